"""Words of the language that are neither controls nor functions, each with help and example.

ALIASES are the names of our words in other languages and trades.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from demon_live.controls import SETTINGS
from demon_live.errors import nearest


class Performance(NamedTuple):
    """A performance word. least, most: how many names may follow it."""

    help: str
    example: str
    least: int = 0
    most: int = 0


#: name -> Performance
PERFORMANCE: dict[str, Performance] = {
    "hush": Performance("Silence on every deck at once (10 ms fade).", "hush"),
    "panic": Performance("hush, and the engine starts anew: transitions are forgotten.", "panic"),
    "mute": Performance("Silence one deck: mute drums.", "mute drums", 1, 8),
    "unmute": Performance("Take back a mute.", "unmute drums", 1, 8),
    "solo": Performance("Only this deck sounds.", "solo drums", 1, 8),
    "unsolo": Performance("All decks sound again.", "unsolo"),
    "undo": Performance("Back to the score before the last change.", "undo"),
    "redo": Performance("Forward again after an undo.", "redo"),
    "record": Performance(
        "Record the set, its sound and the files that it names; with tracks also each deck apart.",
        "record friday tracks",
        0,
        2,
    ),
    "stop": Performance("End the recording.", "stop"),
    "save": Performance("Write what is playing now as a score: save NAME.", "save friday", 1, 1),
    "load": Performance("Play a score from a file: load FILE.", "load friday.demon", 1, 1),
    "snapshot": Performance(
        "Keep all that plays now under a name: snapshot calm.", "snapshot calm", 1, 1
    ),
    "recall": Performance(
        "Back to a snapshot, also over cycles: recall calm over 4.", "recall calm over 4", 1, 1
    ),
    "crossfade": Performance(
        "Put two decks on the sides of the fader; alone, take them off: crossfade a b.",
        "crossfade drums pads",
        0,
        2,
    ),
    "tap": Performance(
        "Tap the tempo: four times, a beat apart; the median of the gaps counts.", "tap"
    ),
    "learn": Performance(
        "Bind the next knob that moves to a control: learn blend.", "learn blend", 0, 1
    ),
}
#: Words that begin a statement and are no control.
KEYWORDS = ("deck", "scene", "master", "let", "go", "chain", "fader", *SETTINGS, *PERFORMANCE)
#: Words that begin a statement or end it: (word, signature, meaning, example).
STATEMENTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "=",
        "CONTROL = PATTERN [when]",
        "Binds a control of the current deck.",
        "blend = sine over 4",
    ),
    ("default", "CONTROL = default", "Gives a control back.", "blend = default"),
    (
        "deck",
        "deck NAME { ... }",
        "The statements inside belong to this deck; without braces, all that follow.",
        "deck drums { gain = .8 }",
    ),
    ("off", "deck NAME off", "The deck fades out and is gone.", "deck drums off"),
    (
        "master",
        "master { ... }",
        "The mixer strip of the sum of all decks: gain, pan, filters, echo, room ...",
        "master { gain = .8; hpf = 30 }",
    ),
    (
        "scene",
        "scene NAME { ... }",
        "A named group of bindings, for go and chain.",
        "scene drop { blend = 1; denoise = .9 }",
    ),
    (
        "from",
        "scene NAME from SCENE { ... }",
        "A scene that says what another one says, but for these lines.",
        "scene drop { blend = 1 }; scene drop2 from drop { lpf = 900 }",
    ),
    (
        "restart",
        "scene NAME restart { ... }",
        "Its patterns begin with the scene, not with bar 0.",
        'scene fill restart { gain = "<1!3 0>" }',
    ),
    (
        "every",
        "source in every N [+ notes]",
        "Each N bars the last loop that was played in becomes the source.",
        "source in every 4",
    ),
    ("go", "go SCENE [when]", "Plays a scene.", "go drop at 8"),
    (
        "chain",
        "chain 'SCENE' CYCLES, ...",
        "Scenes one after the other, each for its cycles. `over 2 calm 4` moves there; `chain off` "
        "stays in the scene that plays.",
        "chain 'drop' 8, over 2 'calm' 4",
    ),
    ("once", "chain ... once", "At its end it stays in the last scene.", "chain 'drop' 8 once"),
    (
        "fader",
        "fader PATTERN [when]",
        "Moves the crossfader: 0 is the first deck of crossfade, 1 the second.",
        "fader 1 over 8",
    ),
    ("let", "let NAME(args) = PATTERN", "A word of your own.", "let wob(n) = sine.fast(n)"),
    ("now", "... now   or   ... !", "At once, not at the next cycle.", "blend = .5 now"),
    ("at", "... at N", "At the next cycle divisible by N.", "seed = 3 at 8"),
    ("in", "... in N", "After N cycles.", "seed = 3 in 2"),
    (
        "over",
        "... over N",
        "Moves there in a straight line over N cycles; text changes at the end.",
        "velocity = 1.2 over 4",
    ),
    ("xfade", "... xfade N", "As over; gain moves at equal power.", "gain = .2 xfade 4"),
    ("**", "p ** q", "To a power.", "blend = sine ** 2"),
    ("and", "p and q", "1 where both are not 0.", "noise = .3 * (saw > .2 and saw < .6)"),
    ("or", "p or q", "1 where one is not 0.", "noise = .3 * (saw < .2 or saw > .6)"),
    ("not", "not p", "1 where it is 0.", "noise = .3 * (not square)"),
    ("_", "_", "The pattern, in the argument of a function.", "noise = sine.off(1/8, _ * .5)"),
)


#: Words of other languages and trades -> ours.
ALIASES: dict[str, str] = {
    "bpm": "tempo",
    "setbpm": "tempo",
    "speed": "tempo",
    "setcps": "cps",
    "setcpm": "tempo",
    "volume": "gain",
    "vol": "gain",
    "amp": "gain",
    "level": "gain",
    "cutoff": "lpf",
    "lowpass": "lpf",
    "highpass": "hpf",
    "hcutoff": "hpf",
    "distort": "drive",
    "shape": "drive",
    "delayfb": "delayfeedback",
    "delayt": "delaytime",
    "reverb": "room",
    "roomsize": "size",
    "sidechain": "duck",
    "bitcrush": "crush",
    "panning": "pan",
    "guidance": "guide",
    "cfg_scale": "guide",
    "strength": "denoise",
    "denoising": "denoise",
    "text": "prompt",
    "silence": "hush",
    "unmuteall": "unsolo",
    "length": "loop",
    "sample": "source",
    "input": "source",
    "scale": "key",
    "vocals": "lyrics",
    "voice": "lyrics",
    "words": "lyrics",
    "use_bpm": "tempo",
    "cpm": "tempo",
    # Words of expressions.
    "sin": "sine",
    "cos": "cosine",
    "seg": "segment",
    "discretise": "segment",
    "chop": "segment",
    "density": "fast",
    "rotl": "early",
    "rotr": "late",
    "overlay": "stack",
    "pressby": "press",
    "somecyclesby": "someCyclesBy",
    "swingby": "swing",
    "choosecycles": "randcat",
    "prand": "randcat",
    "pwhite": "rand",
    "brand": "rand",
    "wrandcat": "wchoose",
    "chooseby": "choose",
    "foldevery": "every",
    "contrast": "fix",
    "sew": "stitch",
    "while": "mask",
    "stut": "echo",
    "stutter": "ply",
    "echowith": "off",
    "trunc": "linger",
    "timeloop": "ribbon",
    "seqploop": "arrange",
    "pickf": "pick",
    "inhabit": "pickRestart",
    "reset": "restart",
    "euclidinv": "euclid",
    "euclidoff": "euclid",
    "slider": "cc",
    "pvar": "var",
}


#: Notes that the keys call otherwise.
_SAME_NOTE = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb"}


def key_of(word: str) -> str | None:
    """The key that a chord's name means: 'Am' is 'A minor'. None if it is no such name."""
    found = re.fullmatch(r"([A-Ga-g][#b]?)\s*(m|min|minor|M|maj|major)?", word.strip())
    if found is None:
        return None
    note, mode = found.group(1).capitalize(), found.group(2) or "major"
    minor = mode == "m" or mode.startswith("min")
    return f"{_SAME_NOTE.get(note, note)} {'minor' if minor else 'major'}"


def meant(word: str, words: Iterable[str]) -> str | None:
    """The word that was most likely meant: that of an alias, else the nearest; None if none is."""
    known = set(words)
    alias = ALIASES.get(word.lower())
    if alias in known:
        return alias
    near = nearest(word, known)
    return near[0] if near else None
