"""Input onto the clock of the mix: simulated clocks, and a device that we break."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demon_live.audio import input_device
from demon_live.audio.devices import Device
from demon_live.audio.input_device import Aligner, InputDevice, Intake, Thru, _Converter
from demon_live.audio.mix_thread import AudioEvent
from demon_live.audio.pcmring import Bus, PcmRing
from demon_live.audio.sinks import AudioCallback
from demon_live.audio.sound_input import InputRing, InputWriter
from demon_live.core import Floats
from demon_live.errors import DeviceError

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


@pytest.mark.parametrize("drift", [200e-6, -200e-6])
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


def test_counted_blocks_pass_bit_for_bit_and_a_break_is_a_hole() -> None:
    written: list[tuple[int, Floats]] = []
    align = Aligner(lambda first, audio: written.append((first, audio)))
    sound = np.random.default_rng(0).standard_normal((1024, 2)).astype(np.float32)
    align.feed(sound[:512], 1000.25, counted=True)
    align.feed(sound[512:], 1512.25, counted=True)
    align.feed(sound[:512], 3000.0, counted=True)
    assert [first for first, _ in written] == [1000, 1512, 3000]
    assert all((audio == sound[k : k + 512]).all() for (_, audio), k in
               zip(written, (0, 512, 0), strict=True))  # fmt: skip


@pytest.mark.parametrize("rate", [44100, 96000])
def test_a_device_at_another_rate_keeps_the_place_of_a_click(rate: int) -> None:
    tape, convert, frames = Tape(), _Converter(rate), 441
    align = Aligner(tape.write)
    for k in range(200):
        audio = np.zeros((frames, 2), np.float32)
        if k == 100:
            audio[7] = 1.5
        audio, place = convert(audio, 5000 + k * frames * RATE / rate)
        if len(audio):
            align.feed(audio, place, counted=True)
    (click,) = tape.clicks
    assert abs(click - 5000 - (100 * frames + 7) * RATE / rate) < 1


def test_a_clock_that_stood_still_moves_what_is_played() -> None:
    """While the output waits for sound, what is played belongs to no sample of the mix."""
    tape = Tape()
    align = Aligner(tape.write)
    for k in range(100):
        if k == 50:
            align.move(960)
        place = 480 * k - 960 * (k >= 50)
        audio = np.zeros((480, 2), np.float32)
        audio[0] = float(k in (10, 90))
        align.feed(audio, place)
    assert [round(c) for c in tape.clicks] == [4800, 90 * 480 - 960]
    assert tape.gaps == []


class Source:
    """A device that plays when we tell it to."""

    def __init__(self, callback: Intake) -> None:
        self.callback, self.active, self.latency = callback, False, 0.01
        self.dropped = threading.Event()

    def start(self) -> None:
        self.active = True

    def abort(self) -> None:
        self.active = False
        self.dropped.set()

    def close(self) -> None:
        pass

    def play(self, audio: Floats, late: float = 0.01) -> None:
        when = SimpleNamespace(currentTime=5.0, inputBufferAdcTime=5.0 - late)
        self.callback(audio, len(audio), when, None)


class Rig:
    """An InputDevice on a bus that we wind by hand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = "mic") -> None:
        self.bus = Bus.create(folder / "bus")
        self.output = AudioCallback(PcmRing(RATE), self.bus)
        self.ring = InputRing.create(folder, text)
        self.sources: list[Source] = []
        self.error: DeviceError | None = None
        self.news: list[AudioEvent] = []
        self.counted = True
        monkeypatch.setattr(input_device, "open_input", self._open)
        monkeypatch.setattr(InputDevice, "RETRY", 0.01)
        monkeypatch.setattr(InputDevice, "SILENT", 1000.0)
        self.device = InputDevice(
            text, folder, self.bus, self.output, self.news.append, lambda api: self.counted
        )

    def _open(self, text: str, callback: Intake) -> Any:
        if self.error is not None:
            raise self.error
        self.sources.append(Source(callback))
        return self.sources[-1], Device(0, "mic", "JACK", 2, 48000.0, 0.02, True), RATE

    def kinds(self) -> list[str]:
        return [event.kind for event in self.news]


def until(what: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        PAUSE.wait(0.005)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path, monkeypatch)
    yield made
    made.device.close()


def test_nothing_is_opened_until_it_is_wanted(rig: Rig) -> None:
    PAUSE.wait(0.2)
    assert rig.sources == []
    assert rig.ring.status().state == "closed"
    rig.ring.want(True)
    until(lambda: rig.ring.status().state == "open")
    assert (rig.kinds(), rig.ring.status().name) == (["input-open"], "mic")
    rig.ring.want(False)
    until(lambda: rig.ring.status().state == "closed")
    assert rig.sources[0].dropped.is_set()


def test_what_is_played_lies_where_the_mix_was_heard(rig: Rig) -> None:
    """480 samples from the device to the program, 960 from the mix to the ear."""
    rig.ring.want(True)
    until(lambda: rig.sources and rig.sources[0].active)
    rig.output.first, rig.output.first_s = 48000.0, 0.02
    sound = np.random.default_rng(1).standard_normal((512, 2)).astype(np.float32) * 0.1
    rig.sources[0].play(sound)
    until(lambda: rig.ring.end() == 48000 - 1440 + 512)
    assert (rig.ring.read(46560, 47072) == sound).all()
    assert rig.ring.status().latency_ms == pytest.approx(10)
    assert rig.ring.holes(46560, 47072) == []
    assert rig.ring.holes(46000, 47000) == [(46000, 46560)]
    rig.ring.nudge = 10.0
    assert (rig.ring.read(47040, 47552) == sound).all()


def test_a_lost_device_is_told_once_leaves_a_hole_and_comes_back(rig: Rig) -> None:
    rig.ring.want(True)
    until(lambda: rig.sources and rig.sources[0].active)
    rig.bus.t0, rig.bus.played = time.monotonic() - 2.0, 10**9
    rig.output.first, rig.output.first_s = 96000.0, 0.0
    rig.sources[0].play(np.full((480, 2), 0.5, np.float32), late=0.01)
    until(lambda: rig.ring.end() == 96000)
    rig.error = DeviceError("no such device")
    rig.sources[0].active = False
    until(lambda: rig.ring.status().state == "lost")
    until(lambda: rig.ring.end() > 97000)
    rig.error = None
    until(lambda: rig.ring.status().state == "open")
    rig.output.first = float(rig.ring.end() + 4800)
    begin = rig.ring.end()
    rig.sources[-1].play(np.full((480, 2), 0.25, np.float32), late=0.01)
    until(lambda: rig.ring.end() == begin + 4800)
    assert rig.kinds() == ["input-open", "input-lost", "input-back"]
    assert rig.ring.holes(95520, begin + 4800) == [(96000, begin + 4320)]
    heard = rig.ring.read(95520, begin + 4800)
    assert (heard[:480] == 0.5).all()
    assert not heard[480:-480].any()
    assert (heard[-480:] == 0.25).all()


def test_it_stands_aside_while_portaudio_is_started_anew(rig: Rig) -> None:
    rig.ring.want(True)
    until(lambda: rig.ring.status().state == "open")
    assert rig.device.stand_aside()
    assert rig.sources[0].dropped.is_set()
    PAUSE.wait(0.1)
    assert len(rig.sources) == 1
    rig.device.aside.clear()
    until(lambda: rig.ring.status().state == "open")
    assert len(rig.sources) == 2


def test_chosen_channels_and_mono(tmp_path: Path) -> None:
    bus = Bus.create(tmp_path / "bus")
    output = AudioCallback(PcmRing(480), bus)
    four = np.arange(40, dtype=np.float32).reshape(10, 4)
    when = SimpleNamespace(currentTime=1.0, inputBufferAdcTime=0.99)
    for channels, columns in (((3,), (2, 2)), ((2, 4), (1, 3)), ((), (0, 1))):
        intake = Intake(output, bus, channels, lambda: False)
        intake(four, 10, when, None)
        assert (intake.blocks[0].audio == four[:, list(columns)]).all()
    intake = Intake(output, bus, (), lambda: False)
    intake(four[:, :1], 10, when, None)
    assert (intake.blocks[0].audio == four[:, [0, 0]]).all()


def test_thru_reads_what_is_there_and_says_how_late_it_is(tmp_path: Path) -> None:
    ring, writer = InputRing.create(tmp_path, "mic"), InputWriter(tmp_path)
    writer.head.state = 1
    sound = np.arange(9600, dtype=np.float32)[:, None].repeat(2, 1) / 9600
    writer.write(0, sound[:4800])
    thru = Thru(ring)
    thru.read(7200, 480)
    late = 7680 - 4800 + Thru.SPARE
    assert ring.status().thru_ms == pytest.approx(late / 48)
    writer.write(4800, sound[4800:5280])
    assert (thru.read(7680, 480) == sound[7680 - late : 8160 - late]).all()
    assert ring.status().thru_ms == pytest.approx(late / 48)


def test_a_later_process_goes_on_with_the_ring(tmp_path: Path) -> None:
    ring, writer = InputRing.create(tmp_path, "mic"), InputWriter(tmp_path)
    sound = np.random.default_rng(0).standard_normal((4800, 2)).astype(np.float32)
    writer.write(1000, sound)
    later = InputWriter(tmp_path)
    later.write(6000, sound)
    assert (ring.read(1000, 5800) == sound).all()
    assert (ring.read(6000, 10800) == sound).all()
    assert ring.holes(1000, 10800) == [(5800, 6000)]
    later.write(9000, sound)  # what is there stays
    assert (ring.read(6000, 10800) == sound).all()
    assert (ring.read(10800, 13800) == sound[1800:]).all()
