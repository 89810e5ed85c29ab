"""Musical time: output samples and cycles, exact for hours.

Samples are ints (48 kHz, 0 = the first sample ever played), cycles are Fractions. No floating
point is ever accumulated: a tempo map is a list of segments, each anchored at an exact place.

Threads: `TempoMap` is immutable; `VirtualPlayhead` belongs to the thread that advances it.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from demon_live.core import RATES, Beats


def samples_per_cycle(bpm: Fraction, beats: Beats) -> Fraction:
    """Exact length of a cycle of `beats` beats at `bpm` beats a minute, in samples."""
    return beats * 60 * RATES.sample_rate / bpm


def next_multiple(cycle: Fraction, n: Fraction) -> Fraction:
    """The first multiple of n at or after `cycle`."""
    return -(-cycle // n) * n


def bars(cycle: Fraction) -> str:
    """A cycle as it is shown: bars are cycles, so that `at 8` is bar 8."""
    return f"{int(cycle)}" if cycle.denominator == 1 else f"{float(cycle):.2f}"


#: Taps of a tempo, the newest of which count; a longer gap, in seconds, begins anew.
TAPS, _NEWEST, _GAP = 4, 8, 3.0


def tap(taps: Sequence[float], moment: float) -> list[float]:
    """The moments of a tempo that is tapped, in seconds, with one more."""
    return [*(taps if taps and moment - taps[-1] <= _GAP else ()), moment][-_NEWEST:]


def tapped(taps: Sequence[float]) -> Fraction | None:
    """The tempo of taps a beat apart, by the median of their gaps; None before there are TAPS."""
    if len(taps) < TAPS:
        return None
    gap = max(1e-3, median(after - before for before, after in pairwise(taps)))
    return Fraction(round(600 / gap), 10)


class Playhead(Protocol):
    """Where the output stands. `now` is the next sample that is not decided."""

    def now(self) -> int: ...


class VirtualPlayhead:
    """A playhead that moves only when it is advanced: renders, replays and tests."""

    def __init__(self, start: int = 0) -> None:
        self._now = start

    def now(self) -> int:
        return self._now

    def advance(self, samples: int) -> None:
        if samples < 0:
            raise ValueError("time does not run backwards")
        self._now += samples


@dataclass(frozen=True, slots=True)
class Segment:
    """From `cycle` on, which sounds at the exact sample `at`, a cycle lasts `length` samples."""

    cycle: Fraction
    at: Fraction
    length: Fraction
    bpm: Fraction
    beats: Beats


def _round(x: Fraction) -> int:
    return (2 * x.numerator + x.denominator) // (2 * x.denominator)


@dataclass(frozen=True, slots=True)
class TempoMap:
    """Cycles <-> samples over a whole set. Segments ascend; the first also reaches back."""

    segments: tuple[Segment, ...]

    @staticmethod
    def start(bpm: Fraction = Fraction(120), beats: Beats = 4) -> TempoMap:
        """A map that begins with cycle 0 at sample 0."""
        length = samples_per_cycle(bpm, beats)
        return TempoMap((Segment(Fraction(0), Fraction(0), length, bpm, beats),))

    def change(self, cycle: Fraction, bpm: Fraction, beats: Beats) -> TempoMap:
        """The map with another tempo from `cycle` on; later segments are dropped."""
        kept = tuple(s for s in self.segments if s.cycle < cycle)
        length = samples_per_cycle(bpm, beats)
        if not kept:
            first = self.segments[0]
            at = first.at + (cycle - first.cycle) * first.length
            return TempoMap((Segment(cycle, at, length, bpm, beats),))
        return TempoMap((*kept, Segment(cycle, self.exact(cycle), length, bpm, beats)))

    def pin(
        self, cycle: Fraction, sample: int, bpm: Fraction, beats: Beats, begin: int
    ) -> TempoMap:
        """The map in which `cycle` falls on output sample `sample`, and the tempo holds from there.

        Between `begin` (an output sample before it) and there, time is bent to fit; what was before
        stays as it is. Raises ValueError unless begin < sample, and cycle is still to come then.
        """
        start = self.cycle_at(begin)
        if not (begin < sample and start < cycle):
            raise ValueError("only what is to come can be moved")
        length = (sample - self.exact(start)) / (cycle - start)
        s = self.segment_at(start)
        bent = Segment(start, self.exact(start), length, s.bpm, s.beats)
        pinned = Segment(cycle, Fraction(sample), samples_per_cycle(bpm, beats), bpm, beats)
        kept = tuple(s for s in self.segments if s.cycle < start)
        return TempoMap((*kept, bent, pinned))

    def segment_at(self, cycle: Fraction) -> Segment:
        """The segment that `cycle` lies in."""
        i = bisect.bisect_right([s.cycle for s in self.segments], cycle) - 1
        return self.segments[max(i, 0)]

    def segment_of(self, sample: int) -> Segment:
        """The segment that an output sample lies in."""
        i = bisect.bisect_right([_round(s.at) for s in self.segments], sample) - 1
        return self.segments[max(i, 0)]

    def exact(self, cycle: Fraction) -> Fraction:
        """The exact place of a cycle, in samples."""
        s = self.segment_at(cycle)
        return s.at + (cycle - s.cycle) * s.length

    def sample_at(self, cycle: Fraction) -> int:
        """The output sample on which `cycle` falls."""
        return _round(self.exact(cycle))

    def cycle_at(self, sample: int) -> Fraction:
        """The exact cycle of an output sample."""
        s = self.segment_of(sample)
        return s.cycle + (sample - s.at) / s.length

    def cycles_at(self, samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """The cycles of many output samples, float64 [n].

        The offset from the segment's anchor is taken in integers first, so that precision does not
        fade with the hours. A sample on which a cycle boundary falls (rounded) gets that boundary's
        cycle or more: a pattern's jump belongs to the very sample it is rounded to.
        """
        out = np.empty(len(samples), np.float64)
        starts = np.array([_round(s.at) for s in self.segments], np.int64)
        which = np.maximum(np.searchsorted(starts, samples, side="right") - 1, 0)
        for i in np.unique(which):
            s = self.segments[int(i)]
            here = which == i
            whole = _round(s.at)
            # Nearly half a sample forward: sample_at rounds, so up to half may be missing.
            offset = (samples[here] - whole) + (float(whole - s.at) + 0.4999)
            out[here] = float(s.cycle) + offset / float(s.length)
        return out
