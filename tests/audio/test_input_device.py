"""Input onto the clock of the mix: simulated clocks, and a device that we break."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from demon_live.audio.input_device import Aligner
from demon_live.core import Floats

PAUSE = threading.Event()
RATE = 48000


class Tape:
    """What an Aligner writes. clicks: where |sound| peaks, to a fraction of a sample."""

    def __init__(self) -> None:
        self.end: int | None = None
        self.gaps: list[tuple[int, int]] = []
        self.clicks: list[float] = []
        self._last: Floats = np.zeros((0, 2), np.float32)

    def write(self, first: int, audio: Floats) -> None:
        if self.end is None:
            self.end = first
        if first > self.end:
            self.gaps.append((self.end, first))
        audio = audio[max(0, self.end - first) :]
        if not (audio.any() or self._last.any()):
            self.end, self._last = max(self.end, first) + len(audio), audio[-64:]
            return
        begin, sound = self.end - len(self._last), np.concatenate((self._last, audio))
        self.end = max(self.end, first) + len(audio)
        self._last = sound[-64:]
        weight = np.square(sound[: len(sound) - 32, 0].astype(np.float64))
        for at in np.flatnonzero((weight > 0.2) & (np.arange(len(weight)) >= 32)):
            near = slice(max(0, at - 16), at + 17)
            where = np.arange(len(weight))[near]
            place = begin + float((where * weight[near]).sum() / weight[near].sum())
            if not self.clicks or place - self.clicks[-1] > 100:
                self.clicks.append(place)


@pytest.mark.parametrize("drift", [200e-6, -200e-6, 0.0])
def test_ten_minutes_of_two_devices_that_drift_stay_within_a_millisecond(drift: float) -> None:
    """A click each second of the mix; callbacks jitter by 1 ms, now and then one is 40 ms late."""
    rng = np.random.default_rng(3)
    tape = Tape()
    align = Aligner(tape.write)
    frames, speed = 2048, 1 + drift  # samples of the input for each of the mix
    late = rng.normal(0, 0.001, 700 * RATE // frames) * RATE
    late[rng.random(len(late)) < 0.001] = 0.04 * RATE
    for k in range(600 * RATE // frames):
        audio = np.zeros((frames, 2), np.float32)
        first, last = k * frames / speed, (k + 1) * frames / speed
        second = int(np.ceil(first / RATE))
        if first <= second * RATE < last:
            at = round((second * RATE - first) * speed)
            audio[min(at, frames - 1)] = 1.0
        align.feed(audio, first + late[k])
    clicks = np.array(tape.clicks)
    assert len(clicks) > 590
    error = clicks - np.round(clicks / RATE) * RATE
    assert np.abs(error).max() < 0.001 * RATE
    assert tape.gaps == []
