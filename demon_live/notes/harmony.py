"""Names of notes and chords -> pitches of MIDI: c4 is 60.

Raises ScoreError with the nearest right name if a name is malformed.
"""

from __future__ import annotations

import re
from functools import lru_cache

from demon_live.controls import Control
from demon_live.errors import ScoreError, nearest

#: A note name.
NOTE = re.compile(r"[a-gA-G][#bs]*-?\d?")
_NOTES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_NAMES = ("c", "c#", "d", "eb", "e", "f", "f#", "g", "ab", "a", "bb", "b")
_CHORD = re.compile(r"([A-G][#b]?)([^/]*)(?:/([A-G][#b]?))?")
_ROOTS = ("C", "C#", "Db", "D", "D#", "Eb", "E", "F", "F#", "Gb", "G", "G#", "Ab", "A", "Bb", "B")
#: Kind of chord -> semitones above its root.
CHORDS: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "5": (0, 7),
    "6": (0, 4, 7, 9),
    "7": (0, 4, 7, 10),
    "9": (0, 4, 7, 10, 14),
    "11": (0, 7, 10, 14, 17),
    "13": (0, 4, 10, 14, 21),
    "add9": (0, 4, 7, 14),
    "maj7": (0, 4, 7, 11),
    "maj9": (0, 4, 7, 11, 14),
    "m6": (0, 3, 7, 9),
    "m7": (0, 3, 7, 10),
    "m9": (0, 3, 7, 10, 14),
    "m11": (0, 3, 7, 10, 14, 17),
    "madd9": (0, 3, 7, 14),
    "mmaj7": (0, 3, 7, 11),
    "m7b5": (0, 3, 6, 10),
    "dim": (0, 3, 6),
    "dim7": (0, 3, 6, 9),
    "aug": (0, 4, 8),
    "aug7": (0, 4, 8, 10),
    "7b9": (0, 4, 7, 10, 13),
    "7#9": (0, 4, 7, 10, 15),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "7sus4": (0, 5, 7, 10),
}
#: Other ways to write the kinds.
_SAME = {
    "M": "",
    "maj": "",
    "^": "maj7",
    "^7": "maj7",
    "^9": "maj9",
    "M7": "maj7",
    "M9": "maj9",
    "-": "m",
    "min": "m",
    "-7": "m7",
    "min7": "m7",
    "-9": "m9",
    "min9": "m9",
    "-6": "m6",
    "m^7": "mmaj7",
    "mM7": "mmaj7",
    "h": "m7b5",
    "h7": "m7b5",
    "-7b5": "m7b5",
    "o": "dim",
    "o7": "dim7",
    "sus": "sus4",
    "7sus": "7sus4",
}
#: The lowest root of a chord (c3); the middle that voicings keep near.
_CHORD_ROOT, _MIDDLE = 48, 60.0


def note_number(name: str, octave: int = 3) -> int:
    """c4 -> 60; `octave` holds where none is named."""
    lower = name.lower()
    letter, rest = lower[:1], lower[1:]
    shift = 0
    while rest and rest[0] in "#bs":
        shift += -1 if rest[0] == "b" else 1
        rest = rest[1:]
    if letter not in _NOTES or not (rest == "" or rest.lstrip("-").isdigit()):
        raise ScoreError(f"{name!r} is no note name", hint=_other_note(name))
    octave = int(rest) if rest else octave
    return _NOTES[letter] + shift + 12 * (octave + 1)


def note_name(pitch: float) -> str:
    """60 -> c4."""
    n = round(pitch)
    return f"{_NAMES[n % 12]}{n // 12 - 1}"


def _other_note(name: str) -> str:
    if name[:1] in ("h", "H"):
        return f"the note h is called b: b{name[1:]}"
    found = _CHORD.fullmatch(name)
    if found is not None and _kind(found[2]) is not None:
        return f"this is a chord: chord = {name!r}; its root is '{found[1].lower()}'"
    return "notes are c d e f g a b, with # or b and an octave: 'eb3'; c4 is 60"


def _kind(kind: str) -> tuple[int, ...] | None:
    return CHORDS.get(_SAME.get(kind, kind))


@lru_cache(maxsize=1024)
def chord_pitches(name: str) -> tuple[int, ...]:
    """The pitches of a chord from its root in octave 3 up, over the bass behind a slash."""
    found = _CHORD.fullmatch(name)
    steps = _kind(found[2]) if found is not None else None
    if found is None or steps is None:
        raise ScoreError(f"{name!r} is no chord", hint=_other_chord(name))
    root = _CHORD_ROOT + note_number(found[1], -1) % 12
    over = () if found[3] is None else (_CHORD_ROOT - 12 + note_number(found[3], -1) % 12,)
    return (*over, *(root + step for step in steps))


def _other_chord(name: str) -> str:
    if name[:1] in ("H", "h"):
        return f"H is called B: {'B' + name[1:]}, or {'Bb' + name[1:]}"
    if name[:1].islower() and _CHORD.fullmatch(name[:1].upper() + name[1:]) is not None:
        return f"the root of a chord is a capital: {name[:1].upper() + name[1:]}"
    known = [root + kind for root in _ROOTS for kind in CHORDS]
    near = nearest(name, known, 3)
    if near:
        return f"did you mean {', '.join(near)}?"
    return "a root with a kind: Am, C^7, F#m7, Bbsus4, G/B"


def voiced(name: str, turn: int = 0) -> tuple[int, ...]:
    """A chord in the inversion that lies nearest to c4; turn: so many inversions above that."""
    pitches = chord_pitches(name)
    over = 1 if "/" in name else 0
    low, upper = pitches[:over], sorted(pitches[over:])
    size = len(upper)

    def away(k: int) -> float:
        return abs(sum(_turned(upper, k)) / size - _MIDDLE)

    return (*low, *_turned(upper, min(range(-size, size + 1), key=away) + turn))


def _turned(pitches: list[int], k: int) -> list[int]:
    """The k-th inversion of ascending pitches; below 0 downwards."""
    out = list(pitches)
    for _ in range(abs(k)):
        if k > 0:
            out.append(out.pop(0) + 12)
        else:
            out.insert(0, out.pop() - 12)
        out.sort()
    return out


def fitted(pitch: float, control: Control) -> float:
    """A pitch moved by octaves into the range of a voice."""
    while pitch > control.high:
        pitch -= 12
    while pitch < control.low:
        pitch += 12
    return pitch


def pitches_of(value: str | float, control: Control) -> tuple[float, ...]:
    """The pitches of an event of a voice, in its range; () for an empty text. Raises ScoreError."""
    return tuple(fitted(pitch, control) for pitch in written_pitches(value, control))


def written_pitches(value: str | float, control: Control) -> tuple[float, ...]:
    """As `pitches_of`, before they are moved into the range of the voice."""
    if not isinstance(value, str):
        return (float(value),)
    if not value:
        return ()
    # c3 is a note, C a chord; so is C7, since chords know no octave.
    if control.shape == "chords" and not (value[0].islower() and NOTE.fullmatch(value)):
        return chord_pitches(value)
    # A name without an octave is the lowest in the range of the voice.
    if not value[-1].isdigit():
        return (fitted(float(note_number(value, -1)), control),)
    return (float(note_number(value)),)
