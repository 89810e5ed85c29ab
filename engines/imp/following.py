"""Whether a loop plays what it was told: chords and bass of each bar, kicks and snares in time.

chords, bass  share of the bars in which the told pitch classes stand out most among their twelve
              transpositions (chance .08)
kick, snare   F-measure of the onsets in a band of the drum's own against the told hits, 30 ms
Held against the render of the same score (ceiling), and the same loop untold (floor).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.imp.lanes import chord_classes, name_of_drum
from engines.imp.score import Song

__all__ = ["following"]

SR = 48_000
LOWEST = 32.703
"""Hz of C1, from which pitch classes are counted."""
NEAR = 0.03
BANDS = {"kick": (60.0, 160.0), "snare": (1500.0, 9000.0)}
RISE = 5.0
"""dB that the level of a band rises by at a hit."""


def chroma(part: Tensor, low: float, high: float) -> npt.NDArray[np.float64]:
    """Energy of the pitch classes of a mono stretch between two frequencies, [12]."""
    size = max(len(part), 2 * SR)
    s = torch.fft.rfft(part * torch.hann_window(len(part), device=part.device), size).abs()
    f = torch.fft.rfftfreq(size, 1 / SR, device=part.device)
    among = (f >= low) & (f < high)
    semitone = 12 * torch.log2(f[among] / LOWEST)
    near = (1 - 2.5 * (semitone - semitone.round()).abs()).clamp(min=0)
    classes = semitone.round().long() % 12
    row = torch.zeros(12, device=part.device)
    row.index_add_(0, classes, s[among].square() * near / f[among])
    return row.sqrt().double().cpu().numpy()


def stands_out(row: npt.NDArray[np.float64], classes: set[int]) -> bool:
    """Whether these pitch classes hold more than any transposition of them."""
    told = np.zeros(12)
    told[sorted(classes)] = 1
    return int(np.argmax([row @ np.roll(told, k) for k in range(12)])) == 0


def onsets(mono: Tensor, low: float, high: float) -> npt.NDArray[np.float64]:
    """Seconds of the rises of level in a band."""
    f = torch.fft.rfftfreq(len(mono), 1 / SR, device=mono.device)
    y = torch.fft.irfft(torch.fft.rfft(mono) * ((f >= low) & (f < high)), len(mono))
    step = 240 if low < 1000 else 120
    power = y[: len(y) // step * step].view(-1, step).square().mean(1)
    width, apart = 4, int(0.04 * SR / step)
    smooth = torch.stack([power.roll(k) for k in range(width)]).mean(0)
    level = 10 * torch.log10(smooth + 1e-2 * smooth.max() + 1e-12)
    rise = (level.roll(-width) - level).cpu().numpy()
    found = [
        i
        for i in range(len(rise))
        if rise[i] > RISE
        and rise[i] >= rise.take(range(i - apart, i + apart + 1), mode="wrap").max()
    ]
    return (np.array(found, dtype=np.float64) + width / 2 + 0.5) * step / SR


def agreement(found: npt.NDArray[np.float64], told: list[float], whole: float) -> float:
    """F-measure of onsets on a circle of `whole` seconds."""
    if not len(found) or not told:
        return 0.0
    apart = np.abs(found[:, None] - np.array(told)[None])
    apart = np.minimum(apart, whole - apart)
    hits = min((apart.min(0) < NEAR).sum(), (apart.min(1) < NEAR).sum())
    return float(2 * hits / (len(found) + len(told)))


def following(loop: Tensor, song: Song) -> dict[str, float]:
    """A loop [2, n] against the score of `song`; what the score lacks is left out (NaN)."""
    mono, bar = loop.mean(0), 240 / song.bpm
    beat = bar / 4
    chords, basses = [], []
    for n in range(song.bars):
        part = mono[int(n * bar * SR) : int((n + 1) * bar * SR)]
        classes = chord_classes(song, n)
        if 2 <= len(classes) <= 6:
            chords.append(stands_out(chroma(part, 200, 2000), classes))
        played: dict[int, float] = {}
        for e in song.events:
            if e.bus == "bass" and 4 * n <= e.beat < 4 * n + 4:
                pitch = round(e.pitch) % 12
                played[pitch] = played.get(pitch, 0.0) + e.length
        if played:
            most = max(played, key=lambda k: played[k])
            basses.append(stands_out(chroma(part, 38, 200), {most}))
    row = {
        "chords": float(np.mean(chords)) if chords else math.nan,
        "bass": float(np.mean(basses)) if basses else math.nan,
    }
    for drum, band in BANDS.items():
        names = (drum, "clap") if drum == "snare" else (drum,)
        told = [e.beat * beat for e in song.events if name_of_drum(e) in names]
        told = sorted({round(t, 2) for t in told})
        row[drum] = agreement(onsets(mono, *band), told, len(mono) / SR) if told else math.nan
    return row
