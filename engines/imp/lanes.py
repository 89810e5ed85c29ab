"""What the flow model is told of the notes, frame by frame: 46 numbers, exact from the score.

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
import numpy.typing as npt

from demon_live.models.imp.model import HOP, LANES, SAMPLE_RATE
from engines.imp.score import Event, Song

__all__ = ["BASS", "CHORDS", "DRUMS", "GROUPS", "HITS", "TOLD", "lanes", "name_of_drum"]

Floats = npt.NDArray[np.float32]
CHORDS, BASS, DRUMS = slice(0, 13), slice(13, 27), slice(27, 43)
GROUPS = (CHORDS, BASS, DRUMS)
TOLD = 43
"""Column of the first told-flag; the others follow in the order of GROUPS."""
HITS = ("kick", "snare", "clap", "hat", "open", "shaker", "tom", "perc")
OPEN = 0.08
"""Decay in seconds from which a hat counts as open."""
_DRUMS = {"kick": "kick", "snare": "snare", "shell": "snare", "clap": "clap", "shaker": "shaker"}
_DRUMS |= {"tom": "tom", "rim": "perc", "cowbell": "perc"}
_CHORDAL = ("saws", "organ", "keys")


def name_of_drum(event: Event) -> str | None:
    """Which of HITS an event is; None if it is no drum."""
    if event.voice == "hat":
        return "open" if event.knobs[0] >= OPEN else "hat"
    return _DRUMS.get(event.voice)


def chord_classes(song: Song, bar: int) -> set[int]:
    """Pitch classes of the chords of a bar; of its tunes where no chord is played."""
    begin, end = 4 * bar, 4 * bar + 4
    sounding = [
        e
        for e in song.events
        if e.bus == "music" and e.beat < end - 0.05 and e.beat + e.length > begin + 0.05
    ]
    chordal = [e for e in sounding if e.voice in _CHORDAL]
    return {round(e.pitch) % 12 for e in chordal or sounding}


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


def lanes(song: Song, frames: int, start: int = 0) -> Floats:
    """Lanes of `frames` latent frames from sample `start` of the loop on, round and round:
    float32 [frames, LANES], everything told.
    """
    out = np.zeros((frames, LANES), np.float32)
    beat, whole = SAMPLE_RATE * 60 / song.bpm / HOP, song.samples / HOP
    chords = [chord_classes(song, bar) for bar in range(song.bars)]
    for turn in range(-1, math.ceil((frames + start / HOP) / whole)):
        shift = turn * whole - start / HOP
        for bar, pitches in enumerate(chords):
            place = span(shift + 4 * bar * beat, shift + 4 * (bar + 1) * beat, frames)
            out[place, sorted(pitches)] = 1.0
        for e in song.events:
            begin, end = shift + e.beat * beat, shift + (e.beat + e.length) * beat
            drum = name_of_drum(e)
            if drum is not None:
                hit(out, drum, begin, e.velocity)
            elif e.bus == "music":
                cover(out[:, 12], begin, end)
            elif e.bus == "bass":
                cover(out[:, 26], begin, end)
                place = span(begin, end, frames)
                out[place, 13:26] = 0.0
                out[place, 13 + round(e.pitch) % 12] = 1.0
                out[place, 25] = (e.pitch - 33.5) / 12
    out[:, TOLD:] = 1.0
    return out
