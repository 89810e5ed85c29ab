"""How well a recording keeps its beat: the phase of each stretch of bars against a grid, in ms.

    python -m tests.tools.beatgrid FILE --tempo 128 [--beats 4] [--bars 8] [--start 0] [--json]

The recording is read in pieces, so that hours fit into memory. Its onset strength (1 ms steps) is
folded over the bar; a stretch of bars is compared with all of the recording by correlation, and the
shift between the two, to a fraction of a step, is the stretch's phase. A constant offset (a slow
attack, the latency of a device) is no error of the grid: it is told apart, as `offset_ms`, which
only means something for sounds with sharp attacks on the beat.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

RATE = 48_000
STEP = 48  #: samples of a step of the onset strength: 1 ms
REACH = 60  #: the largest shift that is looked for, in steps


@dataclass(frozen=True)
class Grid:
    """Phases of the stretches in ms, against the whole recording; late is positive.

    seconds: of the recording. stretches: how many were long and loud enough. worst, p95, rms: of
    the phases. drift_ms_per_hour: of the straight line through them. offset_ms: of the beats
    against the grid itself. silent_ms: the longest stretch below -80 dBFS.
    """

    seconds: float
    stretches: int
    worst_ms: float
    p95_ms: float
    rms_ms: float
    drift_ms_per_hour: float
    offset_ms: float
    silent_ms: float
    phases_ms: tuple[float, ...]


class Onsets:
    """Onset strength of a stream: the rise of the level in dB above a floor, one value a step."""

    FLOOR = 1e-6  #: mean square

    def __init__(self) -> None:
        self._rest: Doubles = np.zeros(0)
        self._before = 0.0
        self._silent = self.silence = 0

    def of(self, mono: Doubles) -> Doubles:
        """The steps that are complete with `mono`."""
        audio = np.concatenate((self._rest, mono))
        steps = len(audio) // STEP
        self._rest = audio[steps * STEP :]
        if not steps:
            return np.zeros(0)
        power = np.mean(audio[: steps * STEP].reshape(steps, STEP) ** 2, axis=1)
        for quiet in power < 1e-8:
            self._silent = self._silent + 1 if quiet else 0
            self.silence = max(self.silence, self._silent)
        level = np.log10(power + self.FLOOR)
        rise = np.diff(level, prepend=self._before if self._before else level[0])
        self._before = float(level[-1])
        return np.maximum(rise, 0.0)


def folded(strength: Doubles, first: int, bar: float) -> Doubles:
    """Onset strength from step `first` on, summed over the bar of `bar` steps: [round(bar)]."""
    size = round(bar)
    place = ((first + np.arange(len(strength))) / bar % 1.0) * size
    low = np.floor(place).astype(int)
    part = place - low
    out = np.bincount(low % size, strength * (1 - part), minlength=size)
    return out + np.bincount((low + 1) % size, strength * part, minlength=size)


def shift(profile: Doubles, reference: Doubles) -> float:
    """By how many steps `profile` is later than `reference`: the top of their correlation."""
    spectrum = np.fft.rfft(profile - profile.mean()) * np.conj(
        np.fft.rfft(reference - reference.mean())
    )
    score = np.fft.irfft(spectrum, len(profile))
    reach = min(REACH, len(score) // 2 - 1)
    around = np.concatenate((score[-reach:], score[: reach + 1]))
    top = int(np.argmax(around))
    if not 0 < top < len(around) - 1:
        return float(top - reach)
    a, b, c = around[top - 1 : top + 2]
    curve = a - 2 * b + c
    return float(top - reach + (0.5 * (a - c) / curve if curve else 0.0))


def pieces(path: Path, start: float = 0.0) -> Iterator[Doubles]:
    """The recording from `start` seconds on, mono, at 48 kHz."""
    with soundfile.SoundFile(path) as file:
        if file.samplerate != RATE:
            raise SystemExit(f"{path} has {file.samplerate} Hz, not {RATE}")
        file.seek(round(start * RATE))
        for block in file.blocks(RATE * 10, dtype="float64", always_2d=True):
            yield block.mean(axis=1)


def measure(audio: Iterable[Doubles], bpm: Fraction, beats: int = 4, bars: int = 8) -> Grid:
    """The grid of a stream of mono audio whose first sample lies on a bar line."""
    bar = float(beats * 60 * RATE / bpm / STEP)
    onsets, strength, done = Onsets(), np.zeros(0), 0
    profiles: list[Doubles] = []
    taken = 0
    for piece in audio:
        done += len(piece)
        strength = np.concatenate((strength, onsets.of(piece)))
        # Whole stretches only; their borders lie on bar lines, to the nearest step.
        while len(strength) >= (
            n := round((len(profiles) + 1) * bars * bar) - round(len(profiles) * bars * bar)
        ):
            profiles.append(folded(strength[:n], taken, bar))
            strength, taken = strength[n:], taken + n
    return _grid(profiles, bar, beats, bars, done, onsets.silence)


def _grid(
    profiles: list[Doubles], bar: float, beats: int, bars: int, samples: int, silence: int
) -> Grid:
    whole = np.sum(profiles, axis=0) if profiles else np.zeros(4)
    loud = [(i, p) for i, p in enumerate(profiles) if p.sum() > 0.1 * whole.sum() / len(profiles)]
    # Twice: the first round aligns the stretches, so that the reference is as sharp as they are.
    first = [shift(p, whole) for _, p in loud]
    if loud:
        whole = np.sum([_moved(p, -s) for (_, p), s in zip(loud, first, strict=True)], axis=0)
    phases = np.array([shift(p, whole) for _, p in loud])
    phases = phases - np.median(phases) if len(phases) else phases
    hours = np.array([(i + 0.5) * bars * bar / 3.6e6 for i, _ in loud])
    drift = float(np.polyfit(hours, phases, 1)[0]) if len(phases) > 2 else 0.0
    beat = np.sum([np.roll(whole, -round(k * len(whole) / beats)) for k in range(beats)], axis=0)
    comb = np.zeros_like(beat)
    comb[0] = 1.0
    absolute = np.abs(phases)
    return Grid(
        seconds=samples / RATE,
        stretches=len(phases),
        worst_ms=float(absolute.max(initial=0.0)),
        p95_ms=float(np.percentile(absolute, 95)) if len(phases) else 0.0,
        rms_ms=float(np.sqrt(np.mean(phases**2))) if len(phases) else 0.0,
        drift_ms_per_hour=drift,
        offset_ms=shift(beat, comb),
        silent_ms=float(silence),
        phases_ms=tuple(round(float(p), 3) for p in phases),
    )


def _moved(profile: Doubles, by: float) -> Doubles:
    """A profile shifted by a fraction of steps, cyclic."""
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(len(profile)) * by)
    return np.fft.irfft(np.fft.rfft(profile) * turn, len(profile))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--tempo", type=Fraction, required=True)
    parser.add_argument("--beats", type=int, default=4)
    parser.add_argument("--bars", type=int, default=8, help="bars of a stretch")
    parser.add_argument("--start", type=float, default=0.0, help="seconds that are left out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    grid = measure(pieces(args.file, args.start), args.tempo, args.beats, args.bars)
    rows = asdict(grid)
    if args.json:
        text = json.dumps(rows)
    else:
        rows.pop("phases_ms")
        text = "\n".join(f"{k:<18} {v:.3f}" if v % 1 else f"{k:<18} {v:g}" for k, v in rows.items())
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
