"""The beat grid and the gaps of a recording, read as a stream: an hour needs no more than a minute.

The left channel holds a metronome, one pulse a beat. Its first beats give a template (the median
of them) and the grid; every later beat is compared with the template by cross-correlation, so that
its place is known to a part of a sample. The right channel never falls silent by itself: stretches
without sound are gaps.

Threads: none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gaps", "Grid", "Listener", "analyse", "read_wav24"]

Doubles = NDArray[np.float64]

RATE = 48_000
#: A template begins this long before the pulse and is this long, in samples.
BEFORE, LENGTH = 960, 4800
#: A beat is looked for within this distance of its place, in samples (30 ms).
REACH = 1440
#: Beats that make the template.
LEARN = 16


def read_wav24(path: Path, chunk: int = 480_000) -> Iterator[Doubles]:
    """float64 [n, 2] pieces of a 24-bit stereo WAV, whatever length its header claims.

    A capture that was ended by force has no length in its header.
    """
    with path.open("rb") as file:
        head = file.read(4096)
        start = head.index(b"data") + 8
        file.seek(start)
        while raw := file.read(chunk * 6):
            raw = raw[: len(raw) // 6 * 6]
            if not raw:
                return
            triples = np.frombuffer(raw, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(triples), 4), np.uint8)
            wide[:, 1:] = triples
            yield wide.view("<i4").reshape(-1, 2).astype(np.float64) / 2**31


@dataclass
class Grid:
    """Beats of `period` samples. Feed it the metronome; `report` says how they fell.

    block: of a capture that may miss whole blocks of that many samples (it is another client of the
    server, and late sometimes). A beat that is early by whole blocks, to half a millisecond, shows
    such a loss: it is counted, and the grid is set anew. 0: every shift counts as a shift.
    """

    period: float
    block: int = 0
    blocks_lost: int = 0
    _tail: Doubles = field(default_factory=lambda: np.zeros(0))
    _base: int = 0
    _first: float | None = None
    _beat: int = 0
    _template: Doubles | None = None
    offsets: list[float] = field(default_factory=list)
    likeness: list[float] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)

    def feed(self, audio: Doubles) -> None:
        """The next samples [n] of the metronome."""
        self._tail = np.concatenate((self._tail, audio))
        if self._first is None and not self._learn():
            return
        while self._measure():
            pass
        # Keep what the next beat needs.
        keep = int(self._place(self._beat)) - BEFORE - REACH - self._base
        keep = min(keep, len(self._tail))
        if keep > 0:
            self._tail, self._base = self._tail[keep:], self._base + keep

    def _learn(self) -> bool:
        """Phase and template from the first beats. False: more is needed."""
        need = int((LEARN + 3) * self.period)
        # The first two beats may still be fading in.
        skip = int(2 * self.period)
        if len(self._tail) < need + LENGTH:
            return False
        heard = np.abs(self._tail)
        if heard.max() < 1e-3:
            # Silence before the music: look again later.
            drop = len(self._tail) - int(self.period)
            self._tail, self._base = self._tail[drop:], self._base + drop
            return False
        # Fold the beats onto each other: the phase is where the folded energy rises steepest.
        step = round(self.period)
        rows = [self._energy(skip + round(k * self.period), step) for k in range(LEARN)]
        folded = np.median(np.array(rows), axis=0)
        double = np.concatenate((folded, folded))
        rise = double[240 : step + 240] - double[:step]
        phase = int(np.argmax(rise)) + 120
        first = self._base + skip + phase % step
        cuts = [self._cut(first + k * self.period) for k in range(LEARN)]
        usable = [c for c in cuts if c is not None]
        template = np.median(np.array(usable), axis=0)
        self._template = template / (np.linalg.norm(template) + 1e-12)
        self._first = first
        return True

    def _energy(self, start: int, n: int) -> Doubles:
        piece = self._tail[start : start + n] ** 2
        return np.convolve(piece, np.ones(48) / 48, "same")

    def _place(self, beat: int) -> float:
        assert self._first is not None
        return self._first + beat * self.period

    def _cut(self, place: float, reach: int = 0) -> Doubles | None:
        begin = round(place) - BEFORE - reach - self._base
        if begin < 0 or begin + LENGTH + 2 * reach > len(self._tail):
            return None
        return self._tail[begin : begin + LENGTH + 2 * reach]

    def _measure(self) -> bool:
        place = self._place(self._beat)
        around = self._cut(place, REACH)
        if around is None:
            if round(place) - BEFORE - REACH < self._base:
                self._beat += 1
                return True
            return False
        assert self._template is not None
        size = 1 << (len(around) + LENGTH).bit_length()
        spectrum = np.fft.rfft(around, size) * np.conj(np.fft.rfft(self._template, size))
        match = np.fft.irfft(spectrum, size)[: 2 * REACH + 1]
        squares = np.concatenate(([0.0], np.cumsum(around**2)))
        energy = np.sqrt(np.maximum(squares[LENGTH:] - squares[: 2 * REACH + 1], 1e-12))
        alike = match / energy
        best = int(np.argmax(alike))
        if alike[best] < 0.5:
            self.missing.append(self._beat)
        else:
            shift = 0.0
            if 0 < best < 2 * REACH:
                a, b, c = alike[best - 1 : best + 2]
                shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c else 0.0
            # The grid itself need not fall on whole samples.
            self.offsets.append(self._without_losses(best - REACH + shift + round(place) - place))
            self.likeness.append(float(alike[best]))
        self._beat += 1
        return True

    def _without_losses(self, offset: float) -> float:
        if not self.block or len(self.offsets) < LEARN or self._first is None:
            return offset
        blocks = round((float(np.median(self.offsets[:LEARN])) - offset) / self.block)
        rest = offset + blocks * self.block
        if blocks < 1 or abs(rest - float(np.median(self.offsets[:LEARN]))) > 24:
            return offset
        self.blocks_lost += blocks
        self._first -= blocks * self.block
        return rest

    def report(self) -> dict[str, Any]:
        """Deviations in milliseconds from the grid that the first beats set."""
        if not self.offsets:
            return {"beats": 0}
        offsets = np.array(self.offsets)
        off = (offsets - np.median(offsets[:LEARN])) * 1000 / RATE
        return {
            "beats": len(off) + len(self.missing),
            "missing": len(self.missing),
            "capture_blocks_lost": self.blocks_lost,
            "worst_ms": round(float(np.abs(off).max()), 3),
            "p99_ms": round(float(np.percentile(np.abs(off), 99)), 3),
            "median_ms": round(float(np.median(off)), 4),
            "last_ms": round(float(np.median(off[-LEARN:])), 4),
            "likeness_min": round(min(self.likeness), 3),
        }


@dataclass
class Gaps:
    """Stretches without sound in a channel that always has some. Milliseconds."""

    floor: float = 1e-3
    longest_ms: int = 0
    count: int = 0
    worst_at_s: float = 0.0
    holes: list[tuple[float, int]] = field(default_factory=list)
    _open: int = 0
    _at: int = 0
    _rest: Doubles = field(default_factory=lambda: np.zeros(0))
    _begun: bool = False

    def feed(self, audio: Doubles) -> None:
        """The next samples [n]; the beginning, until the first sound, does not count."""
        audio = np.concatenate((self._rest, audio))
        n = len(audio) // 48
        self._rest = audio[n * 48 :]
        quiet = np.abs(audio[: n * 48]).reshape(n, 48).max(axis=1) < self.floor
        if not quiet.any() and not self._open:
            self._begun, self._at = self._begun or n > 0, self._at + n
            return
        for silent in quiet:
            self._begun = self._begun or not silent
            if silent and self._begun:
                self._open += 1
            elif self._open:
                self._close()
            self._at += 1

    def _close(self) -> None:
        if self._open >= 2:
            self.count += 1
            if len(self.holes) < 1000:
                self.holes.append(((self._at - self._open) / 1000, self._open))
        if self._open > self.longest_ms:
            self.longest_ms, self.worst_at_s = self._open, (self._at - self._open) / 1000
        self._open = 0

    def report(self) -> dict[str, Any]:
        """Gaps so far; one that is still open at the end does not count (the end is one)."""
        rest = {k: v for k, v in asdict(self).items() if not k.startswith("_") and k != "holes"}
        return {**rest, "first": self.holes[:20]}


class Listener:
    """Grid and gaps of a stream: metronome left, sound that never ends right."""

    def __init__(self, period: float, block: int = 0) -> None:
        self.grid, self.gaps = Grid(period, block), Gaps()
        self.samples, self.peak = 0, 0.0

    def feed(self, piece: NDArray[Any]) -> None:
        """The next samples [n, 2]."""
        audio = np.asarray(piece, np.float64)
        self.grid.feed(audio[:, 0])
        self.gaps.feed(audio[:, 1])
        self.samples += len(audio)
        self.peak = max(self.peak, float(np.abs(audio).max(initial=0.0)))

    def report(self) -> dict[str, Any]:
        return {
            "seconds": round(self.samples / RATE, 2),
            "peak": round(self.peak, 4),
            "grid": self.grid.report(),
            "gaps": self.gaps.report(),
        }


def analyse(pieces: Iterable[Doubles], period: float, block: int = 0) -> dict[str, Any]:
    """A whole recording."""
    listener = Listener(period, block)
    for piece in pieces:
        listener.feed(piece)
    return listener.report()
