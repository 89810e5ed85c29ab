"""Kits: which instrument plays a role, how it is tuned and how the whole is mixed.

Kit(seed, genre, score).dress() -> (events, mix settings, tags). A second kit on the same score
gives another timbre with the same structure: the pairs that teach the model to cover a loop.
A steady kit draws each instrument and the mix from a stream of its own: two scores then sound the
same on it wherever they use the same roles, which teaches the model to follow a timbre reference.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from engines.imp.genres import GENRES

if TYPE_CHECKING:
    from engines.imp.score import Event, Note, Score

Knobs = tuple[float, float, float, float, float, float]

VOICE_OF_BASS = {
    "rumble": "sub",
    "sub": "sub",
    "acid-line": "acid",
    "saw-bass": "saw",
    "offbeat-bass": "saw",
    "fm-bass": "fm",
    "reese": "reese",
    "wobble": "wobble",
    "donk": "donk",
    "pluck-bass": "string",
}
LONG = ("rumble", "sub", "reese", "wobble", "donk")


def knobs(*values: float) -> Knobs:
    """Six knobs, the rest zero."""
    a, b, c, d, e, f = (*values, *([0.0] * (6 - len(values))))
    return a, b, c, d, e, f


class Kit:
    """The instruments and the mix of one song."""

    def __init__(self, seed: int, genre: str, score: Score, *, steady: bool = False) -> None:
        self.stream, self.steady = f"kit {seed} {genre}", steady
        self.random = r = random.Random(self.stream)
        self.name, self.genre, self.score = genre, GENRES[genre], score
        self.machine = r.choice(self.genre.kits)
        self.tone = r.gauss(0, 0.5)
        self.space = min(1.0, max(0.0, self.genre.space + r.gauss(0, 0.25)))
        self.drive = min(1.0, max(0.0, self.genre.drive + r.gauss(0, 0.2)))
        self.weight = min(
            1.0, max(-1.0, r.gauss(0, 0.45) + (0.3 if genre in ("techno", "acid") else 0.0))
        )
        self.turn_to("bass")
        self.bass = self.choose_bass()
        self.parts = self.choose_music()
        self.drums = {
            role: self.drum(role)
            for role in (
                "kick",
                "snare",
                "clap",
                "hats",
                "open-hats",
                "shaker",
                "ride",
                "toms",
                "rim",
                "cowbell",
            )
        }
        r = self.turn_to("break")
        self.break_rate = r.choice((0.0, 0.0, 2.0, 3.0, 5.0))
        self.break_kit = {role: self.acoustic(role) for role in ("kick", "snare", "hats")}

    def turn_to(self, what: str) -> random.Random:
        """The stream that comes next: a steady kit's own of `what`, otherwise the one there is."""
        if self.steady:
            self.random = random.Random(f"{self.stream} {what}")
        return self.random

    def choose_bass(self) -> str:
        """The bass the score was written for, or for another genre's kit one that can play it."""
        written = self.score.bass
        if written == "no-bass" or (self.name == self.score.name and self.random.random() < 0.8):
            return written
        same = [b for b in self.genre.bass if b != "no-bass" and (b in LONG) == (written in LONG)]
        return self.random.choice(same) if same else written

    def choose_music(self) -> dict[str, str]:
        """Written part -> part that plays it (held parts stay held, short ones short)."""
        groups = (
            ("pad", "strings", "drone"),
            ("stab", "organ", "keys", "dub-chord"),
            ("pluck", "bell", "lead"),
        )
        parts = {}
        for part in self.score.music:
            group = next(g for g in groups if part in g)
            other = [p for p in self.genre.music if p in group]
            keep = self.name == self.score.name and self.random.random() < 0.7
            parts[part] = part if keep or not other else self.random.choice(other)
        return parts

    # -------------------------------------------------------------------------------------- drums

    def drum(self, role: str) -> tuple[str, Knobs]:
        """Voice and knobs of a drum role on this kit's machine."""
        self.turn_to(role)
        if self.machine == "acoustic-kit" and role in ("kick", "snare", "hats", "open-hats"):
            return self.acoustic(role)
        r, old, hard = self.random, self.machine == "808", max(0.0, self.weight)
        tonic = 2 ** ((self.score.key + 2 - (12 if self.score.key > 5 else 0)) / 12) * 46.25
        match role:
            case "kick":
                decay = (
                    r.uniform(0.22, 0.5) if old and self.name != "gqom" else r.uniform(0.1, 0.22)
                )
                sweep = r.uniform(2.2, 4.0) if old else r.uniform(3.5, 7.0)
                f0 = tonic if r.random() < 0.6 else r.uniform(43, 58)
                return "kick", knobs(
                    f0,
                    sweep,
                    r.uniform(0.018, 0.04),
                    decay,
                    r.uniform(0.1, 0.6) * (0.3 if old else 1),
                    1.2 + 2.5 * hard + r.random(),
                )
            case "snare":
                return "snare", knobs(
                    r.uniform(165, 215),
                    r.uniform(0.04, 0.1),
                    r.uniform(0.05, 0.16),
                    r.uniform(0.15, 0.7),
                    r.uniform(0.35, 0.7) if old else r.uniform(0.45, 0.8),
                )
            case "clap":
                return "clap", knobs(
                    r.uniform(0.05, 0.14), r.uniform(0.2, 0.7), r.uniform(0.008, 0.013)
                )
            case "hats":
                return "hat", knobs(
                    r.uniform(0.012, 0.04), r.random() if old else r.uniform(0, 0.5), r.random()
                )
            case "open-hats":
                return "hat", knobs(
                    r.uniform(0.09, 0.26), r.random() if old else r.uniform(0.1, 0.6), r.random()
                )
            case "ride":
                return "hat", knobs(r.uniform(0.18, 0.4), r.uniform(0.6, 1.0), r.uniform(0, 0.4))
            case "shaker":
                return "shaker", knobs(r.uniform(0.012, 0.03), r.uniform(0.02, 0.05), r.random())
            case "toms":
                return "tom", knobs(
                    r.uniform(95, 190), r.uniform(0.07, 0.2), r.uniform(0.2, 0.9), r.uniform(0, 0.3)
                )
            case "rim":
                return "rim", knobs(
                    r.uniform(400, 900), r.uniform(1500, 2500), r.uniform(0.008, 0.03)
                )
            case _:
                return "cowbell", knobs(r.uniform(500, 600), r.uniform(0.06, 0.2))

    def acoustic(self, role: str) -> tuple[str, Knobs]:
        """A recorded-sounding kit: shorter, roomier, less synthetic."""
        r = self.random
        if role == "kick":
            return "kick", knobs(
                r.uniform(52, 72),
                r.uniform(1.6, 2.4),
                r.uniform(0.012, 0.02),
                r.uniform(0.06, 0.12),
                r.uniform(0.4, 0.9),
                r.uniform(1.2, 2.0),
            )
        if role == "snare":
            return "shell", knobs(
                r.uniform(185, 260),
                r.uniform(0.05, 0.11),
                r.uniform(0.07, 0.17),
                r.uniform(0.2, 0.6),
                r.uniform(0.5, 0.75),
            )
        long = role == "open-hats"
        return "hat", knobs(
            r.uniform(0.12, 0.25) if long else r.uniform(0.025, 0.06),
            r.uniform(0.3, 0.8),
            r.uniform(0, 0.6),
        )

    # ------------------------------------------------------------------------------------ pitched

    def bass_voice(self) -> tuple[str, Knobs]:
        """Voice and knobs of the bass."""
        r = self.turn_to(self.bass)
        cut = r.uniform(180, 700) * 2 ** (0.6 * self.tone)
        match self.bass:
            case "rumble":
                return "sub", knobs(2.5 + 2 * self.drive, 0.3, 0.02)
            case "sub":
                return "sub", knobs(r.uniform(0.8, 2.8), r.uniform(0, 0.35), r.uniform(0.004, 0.02))
            case "acid-line":
                return "acid", knobs(
                    r.uniform(180, 650),
                    r.uniform(2.0, 5.0),
                    r.uniform(0.08, 0.28),
                    r.uniform(3.5, 11),
                    float(r.random() < 0.4),
                    1.2 + 2 * self.drive,
                )
            case "saw-bass":
                return "saw", knobs(
                    cut,
                    r.uniform(1, 5),
                    r.uniform(0.06, 0.3),
                    r.uniform(0.9, 2.5),
                    r.choice((0.0, 0.0, 1.0)),
                    1.2 + self.drive,
                )
            case "offbeat-bass":
                return "saw", knobs(
                    cut + 250,
                    r.uniform(1, 4),
                    r.uniform(0.06, 0.16),
                    r.uniform(0.9, 1.8),
                    0.0,
                    1.3 + self.drive,
                )
            case "fm-bass":
                return "fm", knobs(
                    r.uniform(1.2, 4.5),
                    r.choice((1.0, 1.0, 2.0, 0.5)),
                    r.uniform(0.06, 0.3),
                    r.uniform(0.3, 1.0),
                )
            case "reese":
                return "reese", knobs(
                    cut + 200, r.uniform(0.004, 0.012), r.uniform(0.1, 0.6), 1.3 + self.drive
                )
            case "wobble":
                return "wobble", knobs(
                    r.uniform(110, 220),
                    r.uniform(600, 2200),
                    r.choice((1.0, 1.5, 2.0, 3.0, 4.0)),
                    r.uniform(1.5, 4.0),
                    1.4 + 2 * self.drive,
                )
            case "donk":
                return "donk", knobs(
                    r.uniform(1.5, 4.0),
                    r.uniform(0.04, 0.09),
                    r.uniform(0.12, 0.3),
                    r.choice((1.41, 2.0, 1.0)),
                )
            case _:
                return "string", knobs(r.uniform(0.2, 0.5), r.uniform(0.3, 0.8))

    def music_voice(self, part: str) -> tuple[str, Knobs]:
        """Voice and knobs of a music part. `saws`: cutoff, envelope octaves, its time, detune,
        attack, release.
        """
        r = self.turn_to(part)
        bright = 2 ** (0.8 * self.tone)
        match part:
            case "pad":
                return "saws", knobs(
                    r.uniform(500, 2200) * bright,
                    r.uniform(-0.5, 1.0),
                    1.5,
                    r.uniform(0.002, 0.007),
                    r.uniform(0.15, 0.6),
                    r.uniform(0.3, 0.8),
                )
            case "strings":
                return "saws", knobs(
                    r.uniform(1500, 3800) * bright,
                    0.2,
                    0.8,
                    r.uniform(0.003, 0.006),
                    r.uniform(0.08, 0.25),
                    r.uniform(0.2, 0.5),
                )
            case "drone":
                return "saws", knobs(
                    r.uniform(200, 800) * bright,
                    r.uniform(0, 1.5),
                    3.0,
                    r.uniform(0.001, 0.005),
                    r.uniform(0.3, 1.0),
                    r.uniform(0.5, 1.0),
                )
            case "stab":
                return "saws", knobs(
                    r.uniform(350, 1500) * bright,
                    r.uniform(1.0, 3.0),
                    r.uniform(0.05, 0.2),
                    r.choice((0.0, 0.004, 0.008)),
                    0.002,
                    r.uniform(0.05, 0.15),
                )
            case "dub-chord":
                return "saws", knobs(
                    r.uniform(250, 700) * bright,
                    r.uniform(1.0, 2.2),
                    r.uniform(0.06, 0.16),
                    r.uniform(0.002, 0.006),
                    0.003,
                    r.uniform(0.1, 0.25),
                )
            case "lead":
                return "super", knobs(
                    r.uniform(1800, 5000) * bright,
                    r.uniform(0, 1.2),
                    r.uniform(0.1, 0.4),
                    r.uniform(0.6, 1.3),
                    0.004,
                    r.uniform(0.06, 0.2),
                )
            case "organ":
                return "organ", knobs(*(r.random() for _ in range(4)), r.uniform(0.0, 0.4))
            case "keys":
                return "keys", knobs(r.uniform(0.6, 2.2), r.uniform(0.5, 1.4), r.uniform(0.2, 0.6))
            case "pluck":
                return "fmp", knobs(
                    r.choice((1.0, 2.0, 3.0, 0.5)), r.uniform(0.8, 3.0), r.uniform(0.08, 0.3)
                )
            case _:
                return "fmp", knobs(
                    r.choice((3.5, 2.76, 5.4, 1.41)), r.uniform(0.8, 2.2), r.uniform(0.5, 1.4)
                )

    # --------------------------------------------------------------------------------------- dress

    def dress(self) -> tuple[tuple[Event, ...], dict[str, float], tuple[str, ...]]:
        """Events in the order of the score, mix settings, tags."""
        from engines.imp.score import Event

        bass, parts = self.bass_voice(), {p: self.music_voice(q) for p, q in self.parts.items()}
        self.turn_to("pans")
        pans = {
            role: self.random.uniform(-0.45, 0.45)
            for role in ("toms", "rim", "shaker", "cowbell", "ride")
        }
        pans |= {
            "hats": self.random.uniform(-0.2, 0.2),
            "open-hats": self.random.uniform(-0.2, 0.2),
        }
        events: list[Event] = []
        for note in self.score.notes:
            role = note.role
            if role == "bass":
                voice, k = bass
                k = (
                    (*k[:4], k[4], k[5])
                    if voice != "acid"
                    else (k[0], k[1] * (0.6 + 0.6 * note.accent), *k[2:])
                )
                events.append(
                    Event(voice, "bass", note.beat, note.length, note.pitch, note.velocity, 0.0, k)
                )
            elif role in parts:
                voice, k = parts[role]
                pan = 0.5 * (((note.pitch * 7) % 12) / 6 - 1) * (0.3 if voice == "super" else 0.8)
                events.append(
                    Event(voice, "music", note.beat, note.length, note.pitch, note.velocity, pan, k)
                )
            else:
                events.append(self.drum_event(note, pans))
        events += self.effects()
        return tuple(events), self.mix(), self.tags()

    def drum_event(self, note: Note, pans: dict[str, float]) -> Event:
        """A drum hit; hits of a chopped break come from the recorded kit, repitched and gated."""
        from engines.imp.score import Event

        chopped = note.role.startswith("break-")
        role = note.role.removeprefix("break-")
        voice, k = (self.break_kit if chopped else self.drums)[role]
        bus = "kick" if role == "kick" and not chopped else "break" if chopped else "drums"
        gate = note.length if chopped else 8.0
        pitch = note.pitch + (self.break_rate if chopped else 0.0)
        return Event(voice, bus, note.beat, gate, pitch, note.velocity, pans.get(role, 0.0), k)

    def effects(self) -> list[Event]:
        """Riser, vinyl, hiss: long noises under the whole loop."""
        from engines.imp.score import Event

        r, beats = self.turn_to("effects"), self.score.bars * 4
        self.extras: set[str] = set()
        out = []
        rates = {"riser": 0.12, "vinyl": 0.1, "hiss": 0.12}
        if self.name in ("dub", "ambient", "deep-house", "idm"):
            rates |= {"vinyl": 0.25, "hiss": 0.3, "riser": 0.03}
        for voice, chance in rates.items():
            if r.random() < chance:
                self.extras.add(voice)
                length = min(beats, 8.0) if voice == "riser" else beats
                out.append(
                    Event(
                        voice,
                        "fx",
                        beats - length,
                        length,
                        0.0,
                        r.uniform(0.5, 1.0),
                        0.0,
                        knobs(r.random()),
                    )
                )
        return out

    def mix(self) -> dict[str, float]:
        """Settings of the mixer, all numbers."""
        r, g = self.turn_to("mix"), self.genre
        bass, music, fx = (level + r.gauss(0, 1.5) for level in g.levels)
        pump = g.pump * r.choice((0.3, 1.0, 1.0, 1.5)) if self.score.layers & {"kick"} else 0.0
        self.pump = min(0.92, pump)
        r = self.turn_to("mix after pump")
        self.echo = r.random() * (0.9 if self.space > 0.45 else 0.4)
        self.width = r.choice((0.0, 1.0, 1.0, 1.0, 1.4)) if r.random() < 0.4 else 1.0
        self.lofi = r.random() < (
            0.25 if self.name in ("idm", "deep-house", "breaks", "jungle") else 0.07
        )
        return {
            "bass": bass,
            "music": music,
            "fx": fx - 8.0,
            "pump": self.pump,
            "release": r.uniform(0.07, 0.2),
            "room": self.space,
            "decay": r.uniform(0.3, 0.9) + 2.4 * self.space * r.random(),
            "echo": 0.65 * self.echo,
            "echo_beats": r.choice((0.75, 0.75, 0.5, 1.0, 1.5, 0.33)),
            "echo_dark": r.uniform(1200, 6000),
            "tilt": 2.2 * self.tone + r.gauss(0, 0.4),
            "drive": self.drive + 0.4 * max(0.0, self.weight),
            "width": self.width,
            "lowpass": r.uniform(3500, 8000) if self.lofi else 20000.0,
            "crush": r.uniform(0.0, 1.0) if self.lofi else 0.0,
            "room_seed": r.random(),
            "drum_room": 0.5 * self.space * r.random()
            + (0.25 if self.machine == "acoustic-kit" else 0.05),
        }

    def tags(self) -> tuple[str, ...]:
        """What can be heard, in the vocabulary of tags.toml."""
        s = self.score
        roles = {n.role.removeprefix("break-") for n in s.notes}
        tags = {self.name, self.bass, *self.parts.values(), *s.tags, *self.extras}
        tags |= {"no-music"} if not s.music else set()
        drums = roles & {
            "kick",
            "snare",
            "clap",
            "hats",
            "open-hats",
            "shaker",
            "ride",
            "toms",
            "rim",
            "cowbell",
        }
        tags |= (drums - {"kick"}) | ({self.machine} if drums else {"no-drums"})
        if drums:
            tags |= {"no-kick"} if "kick" not in drums else set()
            tags |= {"no-snare"} if not drums & {"snare", "clap"} else set()
            tags |= {"no-hats"} if not drums & {"hats", "open-hats", "shaker", "ride"} else set()
        kicks = {n.beat % 1 for n in s.notes if n.role == "kick"}
        tags |= {"four-on-the-floor"} if kicks and max(kicks) < 0.01 else set()
        tags |= {"swing"} if s.swing > 0.12 else set()
        rates: tuple[tuple[bool, str], ...] = (
            (self.tone < -0.5, "dark"),
            (self.tone > 0.5, "bright"),
            (self.space > 0.7, "reverb"),
            (self.space < 0.2, "dry"),
            (self.echo > 0.5, "delay"),
        )
        rates += (
            (self.drive > 0.75, "distorted"),
            (self.drive < 0.2, "clean"),
            (self.pump > 0.6, "pump"),
            (self.weight > 0.45, "hard"),
            (self.weight < -0.35, "soft"),
        )
        rates += (
            (self.width > 1.2, "wide"),
            (self.width < 0.1, "mono"),
            (self.lofi, "lofi"),
            (s.density > 0.6, "busy"),
            (s.density < -0.6, "sparse"),
        )
        return tuple(sorted(tags | {tag for on, tag in rates if on}))
