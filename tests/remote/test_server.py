"""An engine on another machine: what is written lands in the laptop's loops, also after a break."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demon_live.audio.pcmring import LoopBuffer
from demon_live.core import (
    ControlBlock,
    EngineDeck,
    EngineState,
    Floats,
    Generation,
    Loop,
    NoteEvent,
    Phrase,
    Request,
    SlotValues,
    Timbre,
)
from demon_live.errors import EngineError
from demon_live.remote import client, transport
from demon_live.remote import server as server_module
from demon_live.remote.client import Address, EngineClient
from demon_live.remote.codec import (
    BlockOpener,
    BlockPacker,
    close_generation,
    close_window,
    open_generation,
    open_pcm,
    open_window,
    pack_pcm,
)
from demon_live.remote.server import HANDSHAKES, Listener, serve
from demon_live.remote.transport import (
    Delay,
    RemotePlayhead,
    TlsConnection,
    Transport,
    dial,
    pack,
    server_tls,
    unpack,
)
from demon_live.runtime.options import EngineOptions, GenerationReport, Note, Ready, Telemetry
from demon_live.runtime.pcm_files import PcmFiles
from demon_live.runtime.placement import HALF, Window
from demon_live.session.sampler import next_heard
from tests.helpers.mock_engine import MockEngine, Singing, by_prompt

KEY = b"k" * 32
TLS, FINGERPRINT = server_tls()
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
    loop = Loop(0, "main", 0, Fraction(0), Fraction(200 * 1920), 4, Fraction(120), 4, 200)
    laps = {"blend": rng.uniform(size=(2, 200)).astype(np.float32)}
    sizes = []
    for n in range(6):
        laps = {**laps, "blend": laps["blend"].copy()}
        laps["blend"][0, n * 3 : n * 3 + 3] = n
        if n == 2:
            laps["noise"] = np.full((2, 200), 0.5, np.float32)
        if n == 4:
            del laps["noise"]
        loop = loop if n < 5 else replace(loop, epoch=1)
        plan = (SlotValues(n, {"prompt": "a"}),)
        lanes = next_heard(loop, n * 1920, laps)
        phrases = (Phrase((NoteEvent("bass", 0.0, 0.5, 33.0, 1.0),), ("bass",)), Phrase())
        block = ControlBlock("main", n, loop, n * 1920, lanes, plan, laps=laps, phrases=phrases)
        data = packer.pack(block)
        there = opener.open(data)
        sizes.append(len(data))
        assert (there.plan, there.phrases) == (block.plan, phrases)
        assert there.loop == loop
        assert (there.lanes.keys(), there.laps.keys()) == (lanes.keys(), laps.keys())
        for name, lane in lanes.items():
            assert there.lanes[name].tobytes() == lane.tobytes()
            assert there.laps[name].tobytes() == laps[name].tobytes()
    assert sizes[1] < sizes[0] / 2


def test_a_lap_that_was_known_costs_nothing_on_the_line() -> None:
    rng = np.random.default_rng(4)
    packer, opener = BlockPacker(), BlockOpener()
    loop = Loop(0, "main", 0, Fraction(0), Fraction(200 * 1920), 4, Fraction(120), 4, 200)
    laps = rng.uniform(size=(3, 200)).astype(np.float32)
    sizes = []
    for n, two in enumerate(([0, 1], [0, 1], [1, 2], [1, 1], [1, 1])):
        curves = {"blend": laps[two]}
        lanes = next_heard(loop, n * 1920, curves)
        data = packer.pack(ControlBlock("main", n, loop, n * 1920, lanes, laps=curves))
        sizes.append(len(data))
        assert opener.open(data).laps["blend"].tobytes() == curves["blend"].tobytes()
    # All but the first and the lap that is new are as small as a block without news.
    assert max(sizes[1], sizes[3], sizes[4]) < min(sizes[0], sizes[2]) / 2


def _meet(
    key: bytes = KEY, fingerprint: bytes = FINGERPRINT
) -> tuple[TlsConnection | ConnectionRefusedError, TlsConnection | ConnectionRefusedError]:
    """What a server and a client get that meet over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:

        def accept() -> TlsConnection | ConnectionRefusedError:
            try:
                return TlsConnection(server.accept()[0], TLS, server=True).handshake(KEY)
            except ConnectionRefusedError as error:
                return error

        accepted = pool.submit(accept)
        dialled: TlsConnection | ConnectionRefusedError
        try:
            dialled = dial("127.0.0.1", server.getsockname()[1], key, fingerprint, 60)
        except ConnectionRefusedError as error:
            dialled = error
        return accepted.result(60), dialled


def _pair() -> tuple[TlsConnection, TlsConnection]:
    server, client = _meet()
    assert isinstance(server, TlsConnection)
    assert isinstance(client, TlsConnection)
    return server, client


def test_a_client_with_another_key_is_refused_at_both_ends() -> None:
    server, client = _meet(key=b"x" * 32)
    assert "another key" in str(server)
    assert isinstance(client, ConnectionRefusedError)


def test_a_server_with_another_certificate_does_not_get_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[bytes] = []
    write = TlsConnection._write
    monkeypatch.setattr(
        TlsConnection, "_write", lambda self, data: (sent.append(data), write(self, data))[1]
    )
    server, client = _meet(fingerprint=b"x" * 32)
    assert "another certificate" in str(client)
    assert isinstance(server, ConnectionRefusedError)
    assert sent == []


@pytest.mark.parametrize("is_server", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\4\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"#CHALLENGE#" + b"x" * 300,
        b"\xff" * 70000,
    ],
)
def test_garbage_in_place_of_a_handshake_is_refused(data: bytes, is_server: bool) -> None:
    ours, theirs = socket.socketpair()
    with theirs, ThreadPoolExecutor() as pool:

        def babble() -> None:
            with contextlib.suppress(OSError):
                theirs.sendall(data)
                theirs.shutdown(socket.SHUT_WR)

        pool.submit(babble)
        context = TLS if is_server else ssl.create_default_context()
        if not is_server:
            context.check_hostname = False
        conn = TlsConnection(ours, context, server=is_server)
        with pytest.raises(ConnectionRefusedError):
            conn.handshake(KEY, None if is_server else FINGERPRINT)
    assert ours.fileno() == -1


def test_a_handshake_has_five_seconds_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Seconds()
    monkeypatch.setattr(transport.time, "monotonic", clock)

    class Slow:
        """A socket that gives a byte of a TLS record after each four seconds."""

        given, limits, closed = 0, [], False  # type: ignore[var-annotated]

        def settimeout(self, seconds: float) -> None:
            self.limits.append(seconds)

        def setsockopt(self, *_: object) -> None: ...

        def sendall(self, data: bytes) -> None: ...

        def recv(self, _: int) -> bytes:
            self.given += 1
            clock.now += 4
            return b"\x16"

        def close(self) -> None:
            self.closed = True

    slow = Slow()
    with pytest.raises(ConnectionRefusedError, match="too long"):
        TlsConnection(slow, TLS, server=True).handshake(KEY)  # type: ignore[arg-type]
    assert slow.given == 2
    assert max(slow.limits) <= 5
    assert slow.closed


def test_what_crosses_the_line_cannot_be_read_on_the_way() -> None:
    seen = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        port = server.getsockname()[1]
        dialled = pool.submit(dial, "127.0.0.1", port, KEY, FINGERPRINT, 60)
        outside, _ = server.accept()
        inside, far = socket.socketpair()

        def carry(a: socket.socket, b: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := a.recv(4096):
                    seen.extend(data)
                    b.sendall(data)

        for a, b in ((outside, inside), (inside, outside)):
            pool.submit(carry, a, b)
        there = TlsConnection(far, TLS, server=True).handshake(KEY)
        here = dialled.result(60)
        message = b"the same words again and again" * 500
        here.send_bytes(message)
        assert there.recv_bytes() == message
        there.send_bytes(message)
        assert here.recv_bytes() == message
        for end in (here, there):
            end.shutdown()
            end.close()
        for sock in (outside, inside):
            sock.shutdown(socket.SHUT_RDWR)
    assert len(seen) > 2 * len(message)
    assert b"same words" not in seen
    assert KEY not in seen
    outside.close()
    inside.close()


def test_a_message_longer_than_allowed_is_not_read() -> None:
    server, client = _pair()
    client.send_bytes(b"x" * 100)
    with pytest.raises(OSError, match="100 bytes"):
        server.recv_bytes(99)
    for conn in (server, client):
        conn.close()


@pytest.fixture
def door() -> Iterator[tuple[Listener, int]]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        listener = Listener(server, lambda: KEY, TLS)
        yield listener, server.getsockname()[1]
        listener.close()


def test_silent_strangers_do_not_shut_the_door(door: tuple[Listener, int]) -> None:
    listener, port = door
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * HANDSHAKES)]
    for _ in range(3):
        conn = dial("127.0.0.1", port, KEY, FINGERPRINT, 60)
        called = listener.next(60)
        assert called is not None
        assert called[1] == KEY
        for end in (conn, called[0]):
            end.close()
    assert len(listener._handshakes) <= HANDSHAKES
    for stranger in strangers:
        stranger.close()


def test_of_two_clients_that_wait_the_newer_is_served(door: tuple[Listener, int]) -> None:
    listener, port = door
    older, newer = (dial("127.0.0.1", port, KEY, FINGERPRINT, 60) for _ in range(2))
    with pytest.raises((EOFError, OSError)):
        older.recv_bytes()
    called = listener.next(60)
    assert called is not None
    newer.send_bytes(b"here")
    assert called[0].recv_bytes() == b"here"
    assert listener.next(0) is None
    for end in (older, newer, called[0]):
        end.close()


def test_an_engine_does_not_end_while_somebody_knocks() -> None:
    engine = MockEngine(by_prompt, tick_ms=20)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        silent = socket.create_connection(("127.0.0.1", port))
        served = threading.Thread(
            target=serve, args=(engine, server, lambda: KEY, TLS, 0.7), daemon=True
        )
        served.start()
        served.join(2.5)
        assert served.is_alive()
        silent.close()
        served.join(60)
        assert not served.is_alive()


def test_messages_that_are_none_are_refused() -> None:
    assert unpack(pack({"kind": "note"}, b"body")) == ({"kind": "note"}, b"body")
    for data in (b"", b"\0\0\0\2[]", b"\0\0\0\5nojson"):
        with pytest.raises(ValueError):  # noqa: PT011 (json has an error of its own kind of it)
            unpack(data)


def test_of_fleeting_messages_only_the_newest_wait() -> None:
    ours, theirs = _pair()
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
    theirs.close()


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
            target=serve, args=(self.engine, self.server, lambda: self.key, TLS, 60.0), daemon=True
        )
        self.served.start()
        self.pipe, theirs = Pipe()

        def reach(key: bytes) -> list[Address]:
            self.key = key
            return [("127.0.0.1", port, FINGERPRINT)]

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


def test_until_the_first_generation_the_notes_land_as_they_are(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_encode = threading.Event()
    encode = both.engine.encode

    def later(audio: Floats) -> Floats:
        assert may_encode.wait(60)
        return encode(audio)

    monkeypatch.setattr(both.engine, "encode", later)
    loop = replace(LOOP, notes=True)
    buffer = LoopBuffer.create(both.folder / loop.file, loop.samples)
    hit = Phrase((NoteEvent("kick", 0.5, 0.25, 0.0, 1.0),), ("kick",))

    def feed() -> None:
        state = _state(both, loop, prompt="b", denoise=1.0)
        block = state.decks["main"].block
        assert block is not None
        deck = EngineDeck(loop, replace(block, phrases=(hit, hit)))
        both.pipe.send(replace(state, decks={"main": deck}))

    try:
        both.until(lambda: bool((np.abs(buffer.audio[48_000:50_000]) > 0.05).any()), feed)
        assert not any(isinstance(m, Telemetry) and m.status.generations for m in both.said)
    finally:
        may_encode.set()
    both.until(lambda: bool((np.abs(buffer.audio - 0.2) < 1e-4).all()), feed)


def test_a_generation_arrives_with_the_numbers_and_names_of_its_request() -> None:
    names = {"deck": "b", "cfg": "full", "shift": 2.0, "denoise": 0.3, "drift": 0.4}
    numbers = {"seed": 5, "turn": 3, "feedback": 0.5, "feedback_depth": 3, "epoch": 2}
    asked = Request(4, 2, hear_from=9, values={"prompt": "a"}, **names, **numbers)  # type: ignore[arg-type]
    made = Generation(np.ones((4, 2), np.float32), asked, (1, 2), 3, 4)
    there = open_generation(*close_generation(made)).request
    for field_ in fields(Request):
        assert getattr(there, field_.name) == getattr(asked, field_.name), field_.name


def test_generations_cross_the_line_while_someone_waits_for_them(both: Both) -> None:
    _, loop = _write(both)

    def generations() -> list[Generation]:
        return [m.generation for m in both.said if isinstance(m, GenerationReport)]

    def asked(latents: bool) -> Callable[[], object]:
        def send() -> None:
            # Another value each time, so that the ring never rests.
            state = _state(both, loop, prompt="b", denoise=1 - both.version % 64 / 128)
            both.pipe.send(replace(state, latents=latents))

        return send

    def landed() -> bool:
        return both.near.landed > 0

    both.until(landed, asked(False))
    assert not generations()
    both.until(lambda: bool(generations()), asked(True))
    made = generations()[0]
    assert made.latent.shape == (made.request.frames, made.request.channels)
    assert made.request.deck == "main"
    assert made.request.values["prompt"] == "b"
    assert made.request.condition is None
    assert made.retired >= made.born


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_why_an_engine_there_ends_is_told_here(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise EngineError("the GPU has failed and is opened anew: x")

    monkeypatch.setattr(server_module, "turn_for_ever", fail)
    told = Note("engine: the GPU has failed and is opened anew: x")
    both.until(lambda: told in both.said, lambda: None)


class _Actors:
    """Stands for a Ray whose actor takes its time to open a model."""

    def __init__(self, opened: Any) -> None:
        self.opened, self.steps = opened, ["loading", "loading", "warming"]
        self.open = SimpleNamespace(remote=lambda options: "opening")
        self.progress = SimpleNamespace(remote=lambda: self.steps.pop(0))

    def wait(self, references: list[Any], seconds: float) -> list[Any]:
        return [] if self.steps else references

    def get(self, reference: Any, seconds: float) -> Any:
        return self.opened if reference == "opening" else reference


def test_what_an_engine_there_is_doing_while_it_opens_is_shown_here() -> None:
    said: list[str] = []
    actors = _Actors("mock")
    client.open_there(actors, actors, EngineOptions("mock"), said.append)
    assert said == ["loading", "warming"]
    actors = _Actors(EngineError("no weights"))
    with pytest.raises(EngineError, match="no weights"):
        client.open_there(actors, actors, EngineOptions("mock"), said.append)


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

    def reach(key: bytes) -> list[Address]:
        keys.append(key)
        return [("127.0.0.1", server.getsockname()[1], FINGERPRINT)]

    files = PcmFiles(tmp_path)
    near = EngineClient(theirs, RemotePlayhead(), EngineOptions("mock"), reach, "there", files)
    thread = threading.Thread(target=near.run, daemon=True)
    thread.start()
    conns: list[TlsConnection] = []
    for n in range(2):
        conn = TlsConnection(server.accept()[0], TLS, server=True).handshake(keys[0])
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


def test_nothing_ends_the_dialling_but_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_BETWEEN", 0.01)
    pipe, theirs = Pipe()
    server = socket.create_server(("127.0.0.1", 0))
    keys: list[bytes] = []
    failures: list[Exception] = [AssertionError("x"), RuntimeError("y"), MemoryError()]

    def reach(key: bytes) -> list[Address]:
        keys.append(key)
        if failures:
            raise failures.pop()
        return [("127.0.0.1", server.getsockname()[1], FINGERPRINT)]

    files = PcmFiles(tmp_path)
    near = EngineClient(theirs, RemotePlayhead(), EngineOptions("mock"), reach, "there", files)
    thread = threading.Thread(target=near.run, daemon=True)
    thread.start()
    # Something else has the port of the engine.
    for answer in (b"\0\0\0\4\0\0\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):
        sock, _ = server.accept()
        with sock:
            sock.sendall(answer)
    conn = TlsConnection(server.accept()[0], TLS, server=True).handshake(keys[-1])
    assert conn.recv_bytes()[:1] == b"H"
    pipe.close()
    thread.join(60)
    assert not thread.is_alive()
    conn.close()
    server.close()
