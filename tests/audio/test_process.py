"""The audio process from inside, with devices that we break."""

from __future__ import annotations

import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demon_live.audio import process
from demon_live.audio.devices import Device
from demon_live.audio.mix_thread import AudioEvent
from demon_live.audio.mixer import Mixer
from demon_live.audio.pcmring import Bus
from demon_live.audio.process import Settings, _Process, _Search
from demon_live.audio.sinks import Sink
from demon_live.core import MixDeck, MixState
from demon_live.errors import DeviceError

PAUSE = threading.Event()


class Stream:
    """A device that asks when we tell it to."""

    def __init__(self, callback: Callable[..., None]) -> None:
        self.callback = callback
        self.active = False
        self.latency = 0.02
        self.broken = False
        self.dropped = threading.Event()

    def start(self) -> None:
        if self.broken:
            raise DeviceError("it does not start")
        self.active = True

    def abort(self) -> None:
        self.active = False
        self.dropped.set()

    def close(self) -> None:
        pass

    def ask(self, frames: int = 480) -> Any:
        out = np.zeros((frames, 2), np.float32)
        self.callback(out, frames, None, None)
        return out


class Rig:
    """A process whose main loop we turn ourselves."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        Bus.create(tmp_path / "bus").close()
        self.streams: list[Stream] = []
        self.opened: list[dict[str, Any]] = []
        self.channels = 2
        self.error: DeviceError | None = None
        self.broken = False
        monkeypatch.setattr(process, "open_output", self._open)
        monkeypatch.setattr(_Search, "EVERY", 0.01)
        monkeypatch.setattr(_Search, "QUIET", 0.01)
        self.read, write = os.pipe()
        os.set_blocking(write, False)
        sink = Sink(settings.pop("kind", "auto"))
        self.process = _Process(
            Settings(str(tmp_path / "bus"), sink, **settings), io.BytesIO(), write
        )
        self.bus = self.process.bus

    def _open(self, name: Any, callback: Any, latency: Any, **more: Any) -> Any:
        self.opened.append(more)
        if self.error is not None:
            raise self.error
        self.streams.append(Stream(callback))
        self.streams[-1].broken = self.broken
        return self.streams[-1], Device(0, "desk", "TEST", self.channels, 48000.0, 0.02, True)

    def begin(self) -> None:
        """What run() does up to the first sound."""
        opened = self.process._open()
        self.process.mix = process.MixThread(
            Mixer(startup=0.0),
            self.process.ring,
            self.bus,
            self.process.news.append,
            Path(),
        )
        self.bus.ahead = 2400
        while self.process.mix.turn():
            pass
        self.process._begin(opened)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.process.news]

    def until(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while not what():
            assert time.monotonic() < end, "it did not happen"
            self.process._health()
            PAUSE.wait(0.005)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def build(**settings: Any) -> Rig:
        rigs.append(Rig(tmp_path, monkeypatch, **settings))
        # News stays where the test can see it.
        monkeypatch.setattr(_Process, "_send", lambda self: None)
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.process._stop_null()
        if rig.process._search is not None:
            rig.process._search.end()


def test_a_device_is_used(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.begin()
    assert rig.kinds() == ["started"]
    assert "desk" in rig.process.news[0].text
    rig.streams[0].ask()
    assert (rig.bus.device_ok, rig.bus.played, rig.bus.latency_s) == (1, 480, 0.02)


def test_without_a_device_auto_keeps_time_and_device_refuses(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.error = DeviceError("there is no audio device")
    rig.begin()
    assert rig.bus.device_ok == 0
    assert "keeping time silently" in rig.process.news[0].text
    rig.until(lambda: rig.bus.played > 0)
    strict = make(kind="device")
    strict.error = DeviceError("there is no audio device")
    with pytest.raises(DeviceError):
        strict.begin()


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_lost_and_found(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    rig = make()
    rig.begin()
    first = rig.streams[0]
    first.ask()
    rig.error = DeviceError("gone")
    if how == "stopped":
        first.active = False
    else:
        rig.bus.called_at -= 2.0
    rig.until(lambda: rig.bus.device_ok == -1)
    played = rig.bus.played
    rig.until(lambda: rig.bus.played > played)  # time goes on
    assert first.dropped.wait(5)
    rig.error = None
    rig.until(lambda: rig.bus.device_ok == 1)
    # A loaded machine may run dry meanwhile.
    found = [kind for kind in rig.kinds() if kind != "dry"]
    assert found == ["started", "device-lost", "device-back"]
    assert rig.process._null is None
    assert rig.streams[-1].active


def test_a_device_that_opens_but_does_not_start(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.begin()
    rig.broken = True
    rig.streams[0].active = False
    rig.until(lambda: len(rig.streams) > 2)
    assert rig.bus.device_ok == -1
    rig.broken = False
    rig.until(lambda: rig.bus.device_ok == 1)


def test_a_suspended_machine_does_not_lose_its_device(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.begin()
    rig.bus.called_at -= 3600.0
    rig.process._looked -= 3600.0
    rig.process._health()
    assert rig.bus.device_ok == 1
    rig.process._health()
    assert rig.kinds() == ["started"]


def test_a_restarted_process_looks_for_its_device(make: Callable[..., Rig]) -> None:
    rig = make(kind="device", seek=True)
    rig.error = DeviceError("not yet")
    rig.begin()
    assert rig.bus.device_ok == -1
    rig.error = None
    rig.until(lambda: rig.bus.device_ok == 1)


def test_after_a_dry_more_is_kept_ahead_and_it_is_told_once_a_second(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    rig.begin()
    for _ in range(8):
        rig.streams[0].ask()
    assert rig.bus.dry == 3
    rig.process._health()
    rig.streams[0].ask()
    rig.process._health()
    assert rig.kinds() == ["started", "dry"]
    assert "3 times" in rig.process.news[1].text
    assert rig.bus.ahead == 2400 + 960
    for _ in range(50):
        rig.process._told = 0.0
        rig.streams[0].ask()
        rig.process._health()
    assert rig.bus.ahead == rig.process.settings.most_ahead


def test_large_device_buffers_widen_quietly(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.begin()
    rig.process.output.largest = 4096
    rig.process._health()
    assert rig.bus.ahead == 4096 + 960
    assert rig.kinds() == ["started"]


def test_resuming_is_on_the_beat(make: Callable[..., Rig]) -> None:
    rig = make(resume=True)
    rig.bus.mixed = rig.bus.played = 48000
    rig.bus.t0 = time.monotonic() - 10.0
    start = rig.process._resume()
    assert start == pytest.approx(480000, abs=2400)
    assert rig.bus.mixed == rig.bus.played == start
    rig.bus.t0 = time.monotonic()
    assert rig.process._resume() >= start  # never back


def test_events_are_whole_or_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, monkeypatch)
    for k in range(900):
        rig.process.news.append(AudioEvent("error", "x" * 500, k))
    rig.process._send()
    waiting = len(rig.process.news)
    assert 0 < waiting < 900  # the pipe is full, and nobody was stopped
    pipe = os.fdopen(rig.read, "rb", buffering=0)
    got: list[int] = []
    while rig.process.news:
        got.append(pickle.load(pipe).sample)
        rig.process._send()
    os.close(rig.process._events)
    while True:
        try:
            got.append(pickle.load(pipe).sample)
        except EOFError:
            break
    pipe.close()
    assert got == list(range(900))


def test_a_parent_that_is_gone_ends_the_process(make: Callable[..., Rig]) -> None:
    rig = make(kind="null")
    rig.begin()
    state = MixState(recording="x.wav")
    rig.process._states = io.BytesIO(pickle.dumps(state) + b"\x80")
    rig.process._read()
    assert rig.process._closing.is_set()
    assert rig.process.mix.newest.recording == "x.wav"


def test_a_device_that_is_plugged_in_after_a_start_without_one_is_picked_up(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    rig.error = DeviceError("there is no audio device")
    rig.begin()
    assert rig.bus.device_ok == 0
    assert rig.kinds() == ["started"]
    rig.error = None
    rig.until(lambda: rig.bus.device_ok == 1)
    assert rig.kinds()[-1] == "device-back"
    assert rig.streams[-1].active


def test_without_portaudio_nobody_looks_for_devices(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.error = DeviceError("PortAudio is not installed: no device can play")
    rig.begin()
    assert rig.bus.device_ok == 0
    assert rig.process._search is None


def test_a_deck_that_goes_elsewhere_opens_the_channels_that_the_device_has(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    rig.channels = 4
    rig.begin()
    assert rig.opened[-1]["channels"] == 2
    rig.process._newest = MixState({"a": MixDeck((), out=5)})
    rig.until(lambda: len(rig.streams) == 2 and rig.process._stream is rig.streams[1])
    assert rig.streams[0].dropped.is_set()
    assert rig.opened[-1]["channels"] == 6
    assert rig.opened[-1]["fresh"] is False
    assert rig.process.mix.channels == 4
    assert rig.kinds() == ["started", "channels", "device-back"]
    assert "4 channels" in rig.process.news[-1].text
    for _ in range(5):
        rig.process._health()
    assert len(rig.streams) == 2
