"""What a model is told of the notes, frame by frame: 46 numbers, exact from the score.

    0-11   chords: the pitch classes that the chords of the bar are made of (0 or 1)
    12     music sounds: share of the frame in which a chord or a tune sounds
    13-24  bass: the pitch class that sounds (0 or 1); 25 its height in octaves from 33.5 (A1)
    26     bass sounds: share of the frame
    27-34  hits of the eight drums: strength 0 to 1
    35-42  where in the frame the hit lies, -.5 to .5 (0 where there is none)
    43-45  told: chords (0-12), bass (13-26), drums (27-42); 0 with zeros there: left to the model

A group can be told alone, and in some frames only. Told zeros mean silence.
"""

from __future__ import annotations

import math

import numpy as np

from demon_live.core import RATES, Floats, Loop, Phrase

LANES = 46
CHORDS, BASS, DRUMS = slice(0, 13), slice(13, 27), slice(27, 43)
GROUPS = (CHORDS, BASS, DRUMS)
TOLD = 43
"""Column of the first told-flag; the others follow in the order of GROUPS."""
HITS = ("kick", "snare", "clap", "hat", "open", "shaker", "tom", "perc")


def span(begin: float, end: float, count: int) -> slice:
    """Whole frames that an interval (in frames) fills, at least one, of `count`."""
    first = round(begin)
    return slice(max(0, first), max(0, min(count, max(first + 1, round(end)))))


def cover(row: Floats, begin: float, end: float) -> None:
    """Add an interval (in frames) to the shares of the frames that it touches."""
    for n in range(max(0, math.floor(begin)), min(len(row), math.ceil(end))):
        row[n] = min(1.0, row[n] + min(end, n + 1) - max(begin, n))


def hit(out: Floats, drum: str, at: float, strength: float) -> None:
    """Note a hit at a place in frames; of two in one frame the stronger counts."""
    n, column = math.floor(at), 27 + HITS.index(drum)
    if 0 <= n < len(out) and strength > out[n, column]:
        out[n, column], out[n, column + len(HITS)] = strength, at - n - 0.5


def sound_bass(out: Floats, pitch: float, begin: float, end: float) -> None:
    """Note a bass note between two places in frames."""
    cover(out[:, 26], begin, end)
    place = span(begin, end, len(out))
    out[place, 13:26] = 0.0
    out[place, 13 + round(pitch) % 12] = 1.0
    out[place, 25] = (pitch - 33.5) / 12


def bar_classes(phrase: Phrase, bar: int) -> set[int]:
    """Pitch classes of the chords in a bar of a lap; of the lead where there are none."""
    sounding = [
        n
        for n in phrase.notes
        if n.voice in ("chord", "lead")
        and n.begin < bar + 1 - 0.01
        and n.begin + n.length > bar + 0.01
    ]
    chords = [n for n in sounding if n.voice == "chord"]
    return {round(n.pitch) % 12 for n in chords or sounding}


def lanes_of(phrase: Phrase, loop: Loop) -> Floats:
    """The lanes of a lap, float32 [T, LANES]; told are groups of which the score binds a voice."""
    frames, cycle = loop.frames, float(loop.lap) / loop.cycles / RATES.hop
    out = np.zeros((frames, LANES), np.float32)
    for bar in range(loop.cycles):
        place = span(bar * cycle, (bar + 1) * cycle, frames)
        out[place, sorted(bar_classes(phrase, bar))] = 1.0
    for note in phrase.notes:
        begin, end = note.begin * cycle, (note.begin + note.length) * cycle
        if note.voice in HITS:
            hit(out, note.voice, begin, min(note.velocity, 1.0))
        elif note.voice == "bass":
            sound_bass(out, note.pitch, begin, end)
        else:
            cover(out[:, 12], begin, end)
    bound = set(phrase.voices)
    told = (bound & {"chord", "lead"}, bound & {"bass"}, bound & set(HITS))
    out[:, TOLD:] = [bool(group) for group in told]
    return out
