"""The lanes of a song of our renderer: what `demon_live.notes.lanes` says of a score."""

from __future__ import annotations

import math

import numpy as np

from demon_live.core import Floats
from demon_live.models.imp.model import HOP, SAMPLE_RATE
from demon_live.notes.lanes import (
    BASS,
    CHORDS,
    DRUMS,
    GROUPS,
    HITS,
    LANES,
    TOLD,
    cover,
    hit,
    sound_bass,
    span,
)
from engines.imp.score import Event, Song

__all__ = ["BASS", "CHORDS", "DRUMS", "GROUPS", "HITS", "TOLD", "lanes", "name_of_drum"]

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
                sound_bass(out, e.pitch, begin, end)
    out[:, TOLD:] = 1.0
    return out
