"""Whether a loop plays what it was told: chords and bass of each bar, kicks and snares in time.

chords, bass  share of the bars in which the told pitch classes stand out most among their twelve
              transpositions (chance .08)
kick, snare   F-measure of the onsets in a band of the drum's own against the told hits, 30 ms
Held against the render of the same score (ceiling), and the same loop untold (floor).
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from demon_live.notes.heard import BANDS, BASS, MUSIC, SR, agreement, chroma, onsets, stands_out
from engines.imp.lanes import chord_classes, name_of_drum
from engines.imp.score import Song

__all__ = ["following"]


def following(loop: Tensor, song: Song) -> dict[str, float]:
    """A loop [2, n] against the score of `song`; what the score lacks is left out (NaN)."""
    mono, bar = loop.mean(0), 240 / song.bpm
    beat = bar / 4
    chords, basses = [], []
    for n in range(song.bars):
        part = mono[int(n * bar * SR) : int((n + 1) * bar * SR)]
        classes = chord_classes(song, n)
        if 2 <= len(classes) <= 6:
            chords.append(stands_out(chroma(part, *MUSIC), classes))
        played: dict[int, float] = {}
        for e in song.events:
            if e.bus == "bass" and 4 * n <= e.beat < 4 * n + 4:
                pitch = round(e.pitch) % 12
                played[pitch] = played.get(pitch, 0.0) + e.length
        if played:
            most = max(played, key=lambda k: played[k])
            basses.append(stands_out(chroma(part, *BASS), {most}))
    row = {
        "chords": float(np.mean(chords)) if chords else math.nan,
        "bass": float(np.mean(basses)) if basses else math.nan,
    }
    for drum, names in (("kick", ("kick",)), ("snare", ("snare", "clap"))):
        told = [e.beat * beat for e in song.events if name_of_drum(e) in names]
        told = sorted({round(t, 2) for t in told})
        row[drum] = (
            agreement(onsets(mono, *BANDS[drum]), told, len(mono) / SR) if told else math.nan
        )
    return row
