"""What the fourteen genres are made of: tempo, patterns, instruments, harmony. Data only.

Patterns are sixteen steps a bar: X accent, x normal, o ghost, . rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FOUR = ("X...X...X...X...",)
BACKBEAT = ("....X.......X...", "....X.......X..o", "....X..o....X...")
OFFBEAT = ("..x...x...x...x.",)
SIXTEENTHS = ("xoxoxoxoxoxoxoxo", "x.oxx.oxx.oxx.ox", "xoooxoooxoooxooo", "o.xoo.xoo.xoo.xo")
EIGHTHS = ("x.x.x.x.x.x.x.x.", "x.o.x.o.x.o.x.o.", "x.xox.x.x.xox.xo")
NONE = ("................",)

PROGRESSIONS = {
    "minor": (
        (0,),
        (0, 5),
        (0, 5, 2, 6),
        (0, 3),
        (0, 6, 5, 6),
        (0, 3, 5, 4),
        (0, 2, 5, 6),
        (0, 0, 5, 6),
    ),
    "major": ((0, 4, 5, 3), (0, 3), (0, 5, 3, 4), (3, 4, 0, 5), (0, 1, 3, 4), (0,)),
    "dorian": ((0, 3), (0,), (0, 6, 3, 0), (0, 1, 3, 3), (0, 3, 6, 3)),
    "phrygian": ((0, 1), (0,), (0, 0, 1, 0), (0, 6, 1, 0)),
}
SCALES = {
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "major": (0, 2, 4, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}


@dataclass(frozen=True)
class Genre:
    """One genre. `percussion` maps a role to (chance, patterns)."""

    bpm: tuple[int, int]
    modes: tuple[str, ...]
    bass: tuple[str, ...]
    music: tuple[str, ...]
    kits: tuple[str, ...]
    kick: tuple[str, ...] = FOUR
    snare: tuple[str, ...] = NONE
    clap: tuple[str, ...] = NONE
    hats: tuple[str, ...] = SIXTEENTHS
    open_hats: tuple[str, ...] = OFFBEAT
    percussion: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    swing: float = 0.1
    chop: float = 0.0
    mutation: float = 0.06
    space: float = 0.4
    drive: float = 0.4
    levels: tuple[float, float, float] = (0.0, -3.0, -5.0)
    """Loudness of bass, music and effects against the drums, dB."""
    pump: float = 0.5


TOMS = (
    "...x..x....x..x.",
    "......x..x....x.",
    "..x..x..x...x...",
    "x..x......x..x..",
    "..........x.xx..",
)
RIMS = (
    "...x......x.....",
    "..x..x....x..x..",
    "x..x..x...x.x...",
    ".......x........",
    "...x..x...x..x..",
)
SHAKERS = ("xoxoxoxoxoxoxoxo", "oxoxoxoxoxoxoxox", "x.xox.xox.xox.xo")
RIDES = ("x.x.x.x.x.x.x.x.", "..x...x...x...x.", "x...x...x...x...")
BELLS = ("x..x..x.x..x..x.", "..x..x....x..x..", "x.x..x.x..x.x...")

GENRES: dict[str, Genre] = {
    "techno": Genre(
        (125, 145),
        ("minor", "phrygian", "minor"),
        ("rumble", "sub", "acid-line", "offbeat-bass", "fm-bass"),
        ("stab", "drone", "pluck", "dub-chord", "bell", "lead"),
        ("909", "909", "808"),
        clap=("....x.......x...", "............x...", *NONE),
        percussion={
            "ride": (0.3, RIDES),
            "rim": (0.35, RIMS),
            "toms": (0.3, TOMS),
            "shaker": (0.15, SHAKERS),
        },
        swing=0.08,
        drive=0.7,
        levels=(-2.0, -4.0, -8.0),
        pump=0.65,
    ),
    "acid": Genre(
        (118, 142),
        ("minor", "phrygian"),
        ("acid-line",),
        ("stab", "drone", "pad"),
        ("909", "909", "808"),
        clap=("....x.......x...", *NONE),
        snare=("....x.......x...", "....x.......x.xx", *NONE),
        percussion={"rim": (0.25, RIMS), "cowbell": (0.2, BELLS), "toms": (0.2, TOMS)},
        drive=0.7,
        levels=(1.0, -7.0, -9.0),
        pump=0.35,
    ),
    "house": Genre(
        (118, 128),
        ("minor", "dorian", "major"),
        ("saw-bass", "pluck-bass", "fm-bass", "offbeat-bass", "sub"),
        ("organ", "stab", "keys", "strings", "pad", "lead"),
        ("909", "909", "808", "acoustic-kit"),
        clap=BACKBEAT[:1],
        hats=(*SIXTEENTHS, *EIGHTHS),
        percussion={
            "shaker": (0.4, SHAKERS),
            "toms": (0.25, TOMS),
            "rim": (0.2, RIMS),
            "cowbell": (0.12, BELLS),
        },
        swing=0.2,
        levels=(-1.0, -2.0, -8.0),
        pump=0.5,
    ),
    "deep-house": Genre(
        (114, 125),
        ("minor", "dorian"),
        ("sub", "pluck-bass", "fm-bass", "saw-bass"),
        ("keys", "pad", "dub-chord", "organ", "strings", "bell"),
        ("808", "909", "acoustic-kit"),
        clap=("....x.......x...", "....o.......x..."),
        hats=(*SIXTEENTHS, *EIGHTHS),
        percussion={
            "shaker": (0.5, SHAKERS),
            "rim": (0.45, RIMS),
            "toms": (0.2, TOMS),
            "ride": (0.15, RIDES),
        },
        swing=0.25,
        space=0.6,
        drive=0.25,
        levels=(0.0, -1.0, -8.0),
        pump=0.4,
    ),
    "electro": Genre(
        (118, 136),
        ("minor", "phrygian", "minor"),
        ("fm-bass", "saw-bass", "acid-line", "sub"),
        ("pluck", "stab", "lead", "strings", "pad", "bell"),
        ("808", "808", "909"),
        kick=("X.....x...X.....", "X..x......x..x..", "X.....x..xX.....", "X..x..x...x....."),
        snare=BACKBEAT[:2],
        clap=("....x.......x...", *NONE),
        hats=(*EIGHTHS, *SIXTEENTHS),
        open_hats=("..............x.", *NONE),
        percussion={"cowbell": (0.35, BELLS), "rim": (0.2, RIMS), "toms": (0.2, TOMS)},
        swing=0.05,
        levels=(0.0, -3.0, -8.0),
        pump=0.2,
    ),
    "breaks": Genre(
        (122, 140),
        ("minor", "dorian"),
        ("saw-bass", "reese", "acid-line", "sub", "fm-bass"),
        ("stab", "pluck", "pad", "organ", "keys", "lead"),
        ("acoustic-kit", "acoustic-kit", "909"),
        kick=("X..x......x.....", "X.x.......x..x..", "X.....x..xx.....", "X.x....x..x....."),
        snare=("....X..o.o..X...", "....X..o....X..o", "....X.......X.o."),
        hats=EIGHTHS,
        open_hats=("......x.......x.", "..............x.", *NONE),
        percussion={"ride": (0.2, RIDES), "toms": (0.15, TOMS), "shaker": (0.2, SHAKERS)},
        swing=0.15,
        chop=0.25,
        levels=(0.0, -3.0, -8.0),
        pump=0.2,
    ),
    "jungle": Genre(
        (156, 172),
        ("minor", "dorian"),
        ("sub", "reese", "sub"),
        ("pad", "stab", "strings", "bell", "keys", "dub-chord"),
        ("acoustic-kit",),
        kick=("X.x.......xx....", "X.x.......x....."),
        snare=("....X..o.o..X..o", "....X..o....X.o."),
        hats=EIGHTHS,
        open_hats=("..............x.", *NONE),
        percussion={"ride": (0.3, RIDES), "cowbell": (0.05, BELLS)},
        swing=0.08,
        chop=1.0,
        space=0.5,
        levels=(-1.0, -4.0, -9.0),
        pump=0.1,
    ),
    "dnb": Genre(
        (168, 178),
        ("minor", "minor", "phrygian"),
        ("reese", "wobble", "sub", "fm-bass"),
        ("pad", "pluck", "stab", "keys", "strings", "bell"),
        ("acoustic-kit", "909"),
        kick=("X.........x.....", "X.....x...x.....", "X.........x..x.."),
        snare=BACKBEAT,
        hats=(*EIGHTHS, *SIXTEENTHS),
        open_hats=("..............x.", *NONE),
        percussion={"ride": (0.3, RIDES), "shaker": (0.3, SHAKERS), "rim": (0.2, RIMS)},
        swing=0.04,
        chop=0.2,
        levels=(0.0, -4.0, -9.0),
        pump=0.35,
    ),
    "dub": Genre(
        (108, 126),
        ("minor", "dorian"),
        ("sub", "sub", "pluck-bass"),
        ("dub-chord", "dub-chord", "pad", "organ"),
        ("808", "909", "acoustic-kit"),
        kick=(*FOUR, *FOUR, "X.......X.......", "........X......."),
        clap=("....o.......x...", *NONE),
        snare=("........X.......", *NONE),
        hats=("..o...o...o...o.", *EIGHTHS),
        percussion={"rim": (0.5, RIMS), "shaker": (0.3, SHAKERS), "toms": (0.15, TOMS)},
        swing=0.15,
        space=0.9,
        drive=0.2,
        levels=(1.0, -1.0, -6.0),
        pump=0.35,
    ),
    "ambient": Genre(
        (60, 100),
        ("major", "dorian", "minor"),
        ("sub", "no-bass", "no-bass"),
        ("pad", "drone", "bell", "strings", "keys"),
        ("808",),
        kick=NONE,
        hats=("........o.......", *NONE),
        open_hats=NONE,
        percussion={"shaker": (0.12, ("x.......o.......",)), "rim": (0.1, ("......x.........",))},
        space=1.0,
        drive=0.1,
        levels=(4.0, 8.0, -2.0),
        pump=0.0,
    ),
    "trance": Genre(
        (130, 142),
        ("minor", "major", "minor"),
        ("offbeat-bass", "offbeat-bass", "saw-bass", "acid-line"),
        ("lead", "pluck", "pad", "strings", "stab"),
        ("909",),
        clap=BACKBEAT[:1],
        percussion={"ride": (0.25, RIDES), "shaker": (0.3, SHAKERS)},
        swing=0.0,
        space=0.7,
        levels=(-1.0, -1.0, -7.0),
        pump=0.7,
    ),
    "gqom": Genre(
        (112, 126),
        ("minor", "phrygian"),
        ("donk", "donk", "sub"),
        ("drone", "stab", "pad", "strings"),
        ("808", "909"),
        kick=("X..X..X...X..X..", "X..X...X..X.....", "X..X..X...X.....", "X..x..X..x.X...."),
        clap=("......x.......x.", "....x.......x...", *NONE),
        hats=("..x..x..x..x..x.", "x.o.x.o.x.o.x.o."),
        open_hats=NONE,
        percussion={"toms": (0.85, TOMS), "rim": (0.4, RIMS), "shaker": (0.3, SHAKERS)},
        swing=0.1,
        levels=(-5.0, -3.0, -7.0),
        pump=0.25,
    ),
    "footwork": Genre(
        (155, 165),
        ("minor", "dorian"),
        ("sub", "fm-bass", "sub"),
        ("pluck", "organ", "stab", "keys", "bell"),
        ("808",),
        kick=("X..X..X..X..X.x.", "X..X..X...X..X..", "X.....X..X..X...", "X..x..x.X..x..x."),
        snare=("............X...", *NONE),
        clap=("....X.......X...", "............X...", "......x.....X..."),
        hats=("..x...x...x...x.", "x.xxx.x.x.xxx.x.", *SIXTEENTHS),
        open_hats=("..............x.", *NONE),
        percussion={"toms": (0.6, TOMS), "rim": (0.5, RIMS), "cowbell": (0.1, BELLS)},
        swing=0.05,
        mutation=0.1,
        levels=(0.0, -2.0, -8.0),
        pump=0.15,
    ),
    "idm": Genre(
        (88, 160),
        ("minor", "dorian", "major", "phrygian"),
        ("fm-bass", "acid-line", "sub", "reese", "pluck-bass"),
        ("bell", "pad", "pluck", "keys", "strings", "drone", "lead"),
        ("808", "acoustic-kit", "909"),
        kick=("X..x..x...x..x..", "X....x....x.....", "X.....xx....x...", "X...x..x..x....x"),
        snare=("....X....o..X..o", "......X....oX...", "....X..o..o..X.."),
        clap=("............x...", *NONE),
        hats=(*SIXTEENTHS, *EIGHTHS, "x..xx..x.xx.x..x"),
        open_hats=("......x.......x.", *NONE),
        percussion={
            "rim": (0.5, RIMS),
            "toms": (0.3, TOMS),
            "shaker": (0.2, SHAKERS),
            "cowbell": (0.1, BELLS),
        },
        swing=0.12,
        chop=0.3,
        mutation=0.16,
        space=0.6,
        levels=(-1.0, -1.0, -7.0),
        pump=0.15,
    ),
}
