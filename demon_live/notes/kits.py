"""Kits: the instruments that play the notes of a score, chosen by words of the prompt.

A kit has a drum machine, a bass, chords and a lead. A word of a genre chooses all four; the name of
an instrument or a machine chooses its own, wherever it stands. Knobs are those of `voices`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

Instrument = tuple[str, tuple[float, ...]]

_PLAIN: dict[str, Instrument] = {
    "kick": ("kick", (50.0, 5.0, 0.028, 0.17, 0.35, 2.2)),
    "snare": ("snare", (190.0, 0.07, 0.1, 0.42, 0.62)),
    "clap": ("clap", (0.09, 0.45, 0.0105)),
    "hat": ("hat", (0.025, 0.25, 0.5)),
    "open": ("hat", (0.17, 0.35, 0.5)),
    "perc": ("rim", (650.0, 2000.0, 0.018)),
}
#: Machine -> its instruments.
DRUMS: dict[str, dict[str, Instrument]] = {
    "909": _PLAIN,
    "808": {
        **_PLAIN,
        "kick": ("kick", (49.0, 3.0, 0.028, 0.36, 0.12, 1.8)),
        "snare": ("snare", (180.0, 0.07, 0.1, 0.42, 0.5)),
        "hat": ("hat", (0.025, 0.6, 0.5)),
        "open": ("hat", (0.19, 0.6, 0.5)),
        "perc": ("cowbell", (540.0, 0.12)),
    },
    "acoustic": {
        **_PLAIN,
        "kick": ("kick", (62.0, 2.0, 0.016, 0.09, 0.65, 1.6)),
        "snare": ("shell", (220.0, 0.08, 0.12, 0.4, 0.62)),
        "hat": ("hat", (0.04, 0.5, 0.3)),
        "open": ("hat", (0.18, 0.5, 0.3)),
    },
}
BASSES: dict[str, Instrument] = {
    "saw": ("saw", (440.0, 2.5, 0.14, 1.4, 0.0, 1.6)),
    "sub": ("sub", (1.8, 0.25, 0.01)),
    "acid": ("acid", (380.0, 3.2, 0.16, 7.0, 0.0, 2.4)),
    "reese": ("reese", (600.0, 0.008, 0.3, 1.8)),
    "wobble": ("wobble", (160.0, 1300.0, 2.0, 2.5, 2.2)),
    "fm": ("fm", (2.6, 1.0, 0.16, 0.6)),
    "pluck": ("string", (0.35, 0.55)),
    "donk": ("donk", (2.6, 0.06, 0.2, 1.41)),
}
CHORDS: dict[str, Instrument] = {
    "stab": ("saws", (900.0, 2.0, 0.12, 0.004, 0.002, 0.1)),
    "pad": ("saws", (1200.0, 0.3, 1.5, 0.0045, 0.12, 0.5)),
    "strings": ("saws", (2500.0, 0.2, 0.8, 0.0045, 0.08, 0.35)),
    "dub": ("saws", (450.0, 1.6, 0.1, 0.004, 0.003, 0.18)),
    "organ": ("organ", (0.6, 0.5, 0.4, 0.3, 0.2)),
    "keys": ("keys", (1.3, 1.2, 0.4)),
}
LEADS: dict[str, Instrument] = {
    "pluck": ("fmp", (2.0, 1.6, 0.2)),
    "bell": ("fmp", (3.5, 1.4, 0.9)),
    "lead": ("super", (3200.0, 0.6, 0.25, 0.9, 0.004, 0.12)),
    "keys": ("keys", (1.3, 1.0, 0.5)),
}
#: Word of a genre -> machine, bass, chords, lead.
GENRES: dict[str, tuple[str, str, str, str]] = {
    "techno": ("909", "sub", "stab", "pluck"),
    "acid": ("909", "acid", "stab", "lead"),
    "house": ("909", "saw", "organ", "pluck"),
    "deep": ("909", "sub", "keys", "pluck"),
    "electro": ("808", "fm", "stab", "lead"),
    "breaks": ("acoustic", "saw", "stab", "lead"),
    "breakbeat": ("acoustic", "saw", "stab", "lead"),
    "jungle": ("acoustic", "sub", "pad", "bell"),
    "dnb": ("acoustic", "reese", "pad", "lead"),
    "drum": ("acoustic", "reese", "pad", "lead"),
    "dubstep": ("909", "wobble", "pad", "lead"),
    "dub": ("808", "sub", "dub", "bell"),
    "ambient": ("808", "sub", "pad", "bell"),
    "trance": ("909", "saw", "strings", "lead"),
    "gqom": ("808", "sub", "pad", "pluck"),
    "footwork": ("808", "sub", "keys", "bell"),
    "idm": ("808", "fm", "pad", "bell"),
    "lofi": ("acoustic", "pluck", "keys", "keys"),
    "jazz": ("acoustic", "pluck", "keys", "keys"),
    "piano": ("acoustic", "pluck", "keys", "keys"),
}
_MORE = {"303": ("bass", "acid"), "rumble": ("bass", "sub"), "choir": ("chord", "pad")}


@dataclass(frozen=True, slots=True)
class NoteKit:
    """The instruments of a prompt, by name."""

    machine: str = "909"
    bass: str = "saw"
    chord: str = "pad"
    lead: str = "pluck"

    def instrument(self, voice: str) -> Instrument:
        """Voice and knobs of one of `controls.VOICES`."""
        rows = {"bass": BASSES[self.bass], "chord": CHORDS[self.chord], "lead": LEADS[self.lead]}
        return rows.get(voice) or DRUMS[self.machine][voice]


@lru_cache(maxsize=256)
def kit_of(prompt: str) -> NoteKit:
    """The kit that the words of a prompt ask for; the first genre counts."""
    words = re.findall(r"[a-z]+|\d+", prompt.lower())
    genre = next((GENRES[word] for word in words if word in GENRES), None)
    chosen = dict(zip(("machine", "bass", "chord", "lead"), genre or (), strict=False))
    parts: dict[str, Collection[str]] = {
        "machine": DRUMS,
        "chord": CHORDS,
        "lead": LEADS,
        "bass": BASSES,
    }
    for word in words:
        if word in GENRES:
            continue
        part, name = _MORE.get(word, ("", word))
        found = part or next((p for p, rows in parts.items() if word in rows), "")
        if found:
            chosen[found] = name
    return NoteKit(**chosen)
