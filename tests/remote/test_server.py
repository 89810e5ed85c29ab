"""An engine on another machine: what is written lands in the laptop's loops, also after a break."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demon_live.audio.pcmring import LoopBuffer
from demon_live.core import ControlBlock, EngineDeck, EngineState, Loop, SlotValues, Timbre
from demon_live.remote.client import EngineClient
from demon_live.remote.codec import (
    BlockOpener,
    BlockPacker,
    close_window,
    open_pcm,
    open_window,
    pack_pcm,
)
from demon_live.remote.server import serve
from demon_live.remote.transport import Delay, RemotePlayhead, Transport, dial, pack, shake, unpack
from demon_live.runtime.options import EngineOptions, Note, Ready, Telemetry
from demon_live.runtime.pcm_files import PcmFiles
from demon_live.runtime.placement import HALF, Window
from tests.helpers.mock_engine import MockEngine, Singing, by_prompt

KEY = b"k" * 32
LOOP = Loop(0, "main", 0, Fraction(0), Fraction(96000), 1, Fraction(120), 4, 50)


class Seconds:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_fastest_beat_is_believed() -> None:
    time_, clock = Seconds(), None
    clock = RemotePlayhead(time_)
    for n, way in enumerate((0.08, 0.04, 0.3, 0.05)):
        time_.now = n * 0.1 + way
        clock.beat(n * 4800)
    time_.now = 0.5
    # 40 ms behind the laptop, which is at 24,000 now.
    assert clock.now() == 24000 - 1920


def test_the_estimate_never_runs_back() -> None:
    time_ = Seconds()
    clock = RemotePlayhead(time_)
    clock.beat(48000)
    time_.now = 1.0
    before = clock.now()
    # The laptop's sound stood still, and the old beats are forgotten.
    time_.now = 7.0
    clock.beat(100_000)
    assert clock.now() >= before


def test_the_lead_covers_the_slowest_window_and_forgets_it() -> None:
    time_ = Seconds()
    delay = Delay(first=9600, memory=30.0, seconds=time_)
    assert delay.lead == 9600
    for samples in (4800, 20000, 5000):
        delay.note(samples)
    assert delay.lead == 22000
    time_.now = 31.0
    delay.note(5000)
    assert delay.lead == 5500
    delay.note(10_000_000)
    assert delay.lead == Delay.CEILING


@pytest.mark.parametrize("gain", [1e-4, 0.3, 1.0, 9.0])
def test_a_window_arrives_within_16_bits_of_its_peak(gain: float) -> None:
    audio = gain * np.random.default_rng(1).uniform(-1, 1, (5000, 2)).astype(np.float32)
    window = Window(48000, 48000 + 2000, 48000 - 1000, audio, 47000)
    there = open_window(*close_window(window, HALF), HALF)
    assert (there.start, there.end, there.hear_from) == (48000, 50000, 47000)
    begin = 1000 - HALF
    sent = audio[begin : begin + 2000 + 4 * HALF]
    assert np.abs(there.audio - sent).max() <= 2 * gain / 32767


def test_a_source_arrives_within_24_bits() -> None:
    audio = np.random.default_rng(2).uniform(-0.7, 0.7, (3000, 2)).astype(np.float32)
    assert np.abs(open_pcm(*pack_pcm(audio, 24), 3000) - audio).max() < 2e-7


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"end": 1 << 40}, "nowhere"),
        ({"base": 0}, "nowhere"),
        ({"scale": float("nan")}, "scale"),
        ({"end": 49000}, "samples"),
    ],
)
def test_a_window_that_fits_nowhere_is_refused(change: dict[str, Any], what: str) -> None:
    audio = np.zeros((5000, 2), np.float32)
    head, data = close_window(Window(48000, 50000, 47000, audio, 0), HALF)
    with pytest.raises(ValueError, match=what):
        open_window(head | change, data, HALF)


def test_blocks_are_whole_again_after_the_line() -> None:
    rng = np.random.default_rng(3)
    packer, opener = BlockPacker(), BlockOpener()
    lanes = {"blend": rng.uniform(size=400).astype(np.float32)}
    sizes = []
    for n in range(6):
        lanes = {**lanes, "blend": lanes["blend"].copy()}
        lanes["blend"][n * 3 : n * 3 + 3] = n
        if n == 2:
            lanes["noise"] = np.full(400, 0.5, np.float32)
        if n == 4:
            del lanes["noise"]
        loop = LOOP if n < 5 else replace(LOOP, epoch=1)
        block = ControlBlock("main", n, loop, n, lanes, (SlotValues(n, {"prompt": "a"}),))
        data = packer.pack(block)
        there = opener.open(data)
        sizes.append(len(data))
        assert there.plan == block.plan
        assert there.loop == loop
        assert there.lanes.keys() == lanes.keys()
        for name, lane in lanes.items():
            assert there.lanes[name].tobytes() == lane.tobytes()
    assert sizes[1] < sizes[0] / 2


def test_who_does_not_know_the_key_is_not_heard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        refused: list[BaseException] = []

        def accept() -> None:
            try:
                shake(server.accept()[0], KEY, first=True)
            except (AuthenticationError, OSError, EOFError) as error:
                refused.append(error)

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises((AuthenticationError, OSError, EOFError)):
            dial("127.0.0.1", server.getsockname()[1], b"another", 5)
        thread.join(10)
    assert len(refused) == 1


def test_messages_that_are_none_are_refused() -> None:
    assert unpack(pack({"kind": "note"}, b"body")) == ({"kind": "note"}, b"body")
    for data in (b"", b"\0\0\0\2[]", b"\0\0\0\5nojson"):
        with pytest.raises(ValueError):  # noqa: PT011 (json has an error of its own kind of it)
            unpack(data)


def test_of_fleeting_messages_only_the_newest_wait() -> None:
    ours, theirs = Pipe()
    held = threading.Event()

    def first() -> bytes:
        held.wait(10)
        return b"first"

    line = Transport(ours)
    line.send(first)
    for n in range(9):
        line.send(b"%d" % n, keep=2)
    line.send(b"old", key="x")
    line.send(b"new", key="x")
    line.send(b"sure")
    held.set()
    got = [theirs.recv_bytes() for _ in range(5)]
    assert got[0] == b"first"
    assert sorted(got[1:]) == sorted([b"sure", b"new", b"7", b"8"])
    assert line.dropped == 7
    line.release()


@dataclass
class Both:
    """A near and a far end over loopback, real threads, a clock that follows the wall."""

    folder: Path
    engine: MockEngine
    said: list[Any] = field(default_factory=list)
    version: int = 0

    def now(self) -> int:
        return int((time.monotonic() - self.begun) * 48000)

    def start(self) -> None:
        self.begun = time.monotonic()
        self.key = KEY
        self.server = socket.create_server(("127.0.0.1", 0))
        port = self.server.getsockname()[1]
        self.served = threading.Thread(
            target=serve, args=(self.engine, self.server, lambda: self.key, 60.0), daemon=True
        )
        self.served.start()
        self.pipe, theirs = Pipe()

        def reach(key: bytes) -> list[tuple[str, int]]:
            self.key = key
            return [("127.0.0.1", port)]

        self.near = EngineClient(
            theirs, self, EngineOptions("mock"), reach, "there", PcmFiles(self.folder)
        )
        self.ran = threading.Thread(target=self.near.run, daemon=True)
        self.ran.start()

    def until(self, true: Callable[[], bool], feed: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not true():
            assert time.monotonic() < end, self.said[-5:]
            feed()
            while self.pipe.poll(0.02):
                self.said.append(self.pipe.recv())

    def close(self) -> None:
        self.pipe.close()
        self.ran.join(10)
        self.served.join(10)
        self.server.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    rig = Both(tmp_path, MockEngine(by_prompt, tick_ms=20))
    rig.start()
    yield rig
    rig.close()
    assert not rig.ran.is_alive()
    assert not rig.served.is_alive()


def _write(rig: Both, epoch: int = 0) -> tuple[LoopBuffer, Loop]:
    loop = replace(LOOP, epoch=epoch, source="x.wav")
    buffer = LoopBuffer.create(rig.folder / loop.file, loop.samples)
    source = LoopBuffer.create(rig.folder / str(loop.source_file), loop.samples)
    source.audio[:] = 0.25
    return buffer, loop


def _state(rig: Both, loop: Loop, timbres: tuple[Timbre, ...] = (), **values: Any) -> EngineState:
    """A state as a session would publish it now."""
    plan = (SlotValues(0, values, jump=False),)
    rig.version += 1
    block = ControlBlock("main", rig.version, loop, rig.now(), {}, plan)
    return EngineState({"main": EngineDeck(loop, block)}, timbres=timbres)


def _feed(rig: Both, prompt: str, loop: Loop) -> Callable[[], None]:
    return lambda: rig.pipe.send(_state(rig, loop, prompt=prompt, denoise=1.0))


def test_what_is_written_lands_in_the_loops_of_the_laptop(both: Both) -> None:
    buffer, loop = _write(both)
    both.until(lambda: any(isinstance(m, Ready) for m in both.said), lambda: None)
    # Prompt 'b' sounds as .2.
    both.until(lambda: bool((np.abs(buffer.audio - 0.2) < 1e-4).all()), _feed(both, "b", loop))
    both.until(
        lambda: any(isinstance(m, Telemetry) and m.status.link_ms for m in both.said),
        _feed(both, "b", loop),
    )
    assert next(m for m in both.said if isinstance(m, Ready)).description == "mock at there"


def test_after_a_break_the_same_program_goes_on(both: Both) -> None:
    buffer, loop = _write(both)
    both.until(lambda: any(isinstance(m, Ready) for m in both.said), lambda: None)
    both.until(lambda: bool((np.abs(buffer.audio - 0.1) < 1e-4).any()), _feed(both, "a", loop))
    line = both.near._line
    assert line is not None
    line.close()
    both.until(lambda: both.near.breaks == 1, _feed(both, "c", loop))
    # The client itself sends the loop again.
    both.until(lambda: bool((np.abs(buffer.audio - 0.3) < 1e-4).all()), _feed(both, "c", loop))
    notes = [m.text for m in both.said if isinstance(m, Note)]
    assert any("is broken" in text for text in notes)
    assert any("is back" in text for text in notes)
    gone = [m for m in both.said if isinstance(m, Telemetry) and not m.status.alive]
    assert len(gone) == 1


def test_a_timbre_crosses_the_line_once_and_is_there_after_a_break(tmp_path: Path) -> None:
    engine = Singing()
    both = Both(tmp_path, engine)
    both.start()
    buffer, loop = _write(both)
    timbre = Timbre("sound", "x.wav")
    sound = LoopBuffer.create(tmp_path / timbre.file, 4800)
    sound.audio[:] = 0.3

    def feed() -> None:
        both.pipe.send(_state(both, loop, (timbre,), timbre="x.wav\x1fsound"))

    both.until(lambda: any(isinstance(m, Ready) for m in both.said), lambda: None)
    both.until(lambda: bool((np.abs(buffer.audio - 0.3) < 1e-4).all()), feed)
    # After a break it is named again, and not sent: the file could be gone by now.
    (tmp_path / timbre.file).unlink()
    line = both.near._line
    assert line is not None
    line.close()
    both.until(lambda: both.near.breaks == 1, feed)
    both.until(lambda: len(engine.told) == 2, feed)
    assert set(engine.told) == {"sound"}
    assert engine.timbres["sound"] == pytest.approx(0.3, abs=1e-6)
    # What nothing asks for any more is forgotten at both ends.
    both.until(lambda: timbre.file not in both.near._has, _feed(both, "a", loop))
    both.close()
    assert not both.served.is_alive()


def test_a_far_end_that_talks_nonsense_costs_the_line_alone(tmp_path: Path) -> None:
    pipe, theirs = Pipe()
    server = socket.create_server(("127.0.0.1", 0))
    keys: list[bytes] = []

    def reach(key: bytes) -> list[tuple[str, int]]:
        keys.append(key)
        return [("127.0.0.1", server.getsockname()[1])]

    files = PcmFiles(tmp_path)
    near = EngineClient(theirs, RemotePlayhead(), EngineOptions("mock"), reach, "there", files)
    thread = threading.Thread(target=near.run, daemon=True)
    thread.start()
    conns: list[Connection] = []
    for n in range(2):
        conn = shake(server.accept()[0], keys[0], first=True)
        ready = {"kind": "ready", "description": "x", "notes": [], "has": []}
        conn.send_bytes(pack(ready))
        for _ in range(1000):
            if near._line is not None and near._was_ready:
                break
            if pipe.poll(0.02):
                pipe.recv()
        conn.send_bytes(pack({"kind": "window", "seq": 1, "deck": "main"}) if n else b"\xff")
        conns.append(conn)
        with contextlib.suppress(EOFError, OSError):
            while True:
                conn.recv_bytes()
    assert near.breaks >= 1
    pipe.close()
    thread.join(10)
    assert not thread.is_alive()
    for conn in conns:
        conn.close()
    server.close()
