"""The real callback under load: PortAudio through a JACK server without hardware.

Run with `pytest -m jack -s`; DEMON_JACK_SECONDS and DEMON_JACK_FRAMES change the run. Gates are
counts; times are printed, never judged: a shared machine without real-time scheduling is no loop.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest

from demon_live.audio.pcmring import Bus, LoopBuffer
from demon_live.audio.sound_input import InputRing
from demon_live.audio.speaker import Speaker
from demon_live.core import Loop, MixDeck, MixPoints, MixState
from tests.rigs.jack import Server, realtime

pytestmark = [
    pytest.mark.jack,
    pytest.mark.timeout(700),
    pytest.mark.skipif(shutil.which("jackd") is None, reason="jackd is not installed"),
]
SECONDS = float(os.environ.get("DEMON_JACK_SECONDS", "20"))
FRAMES = int(os.environ.get("DEMON_JACK_FRAMES", "512"))
LAP = 8 * 48000
PAUSE = threading.Event()


REALTIME = ["-R", "-P", "10"] if realtime() else ["-r"]


def until(what: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        PAUSE.wait(0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a JACK server of its own name, again if asked; ends them all."""
    name = f"demon-{os.getpid()}"
    monkeypatch.setenv("JACK_NO_AUDIO_RESERVATION", "1")
    monkeypatch.setenv("JACK_DEFAULT_SERVER", name)
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    servers: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = ["jackd", "-n", name, *REALTIME, "-d", "dummy", "-r", "48000", "-p", str(FRAMES)]
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if servers:
            servers[-1].wait()
        servers.append(server)
        PAUSE.wait(1.0)
        if server.poll() is not None:
            raise AssertionError(server.stdout.read().decode() if server.stdout else "")
        return server

    yield start
    for server in servers:
        server.kill()
        server.communicate()


def report(*what: object) -> None:
    print("\n", *what)  # noqa: T201 - the figures are what the rig is for


def decks(version: int = 1, at: int = 0) -> MixState:
    """Two decks whose filters, gain and pan move all the time."""
    loops = [
        Loop(1, name, 0, Fraction(0), Fraction(LAP), 4, Fraction(120), 4, 200)
        for name in ("one", "two")
    ]
    return MixState({x.deck: MixDeck((x,), version, moving(at)) for x in loops})


def write_loops(folder: Path) -> None:
    """Their sound."""
    rng = np.random.default_rng(1)
    for deck in decks().decks.values():
        sound = LoopBuffer.create(folder / deck.loops[0].file, LAP)
        sound.audio[:] = rng.standard_normal((LAP, 2)) * 0.1


def moving(at: int) -> dict[str, MixPoints]:
    s = np.arange(at, at + 96000, 6000)
    up = np.arange(len(s)) % 2

    def between(low: float, high: float) -> MixPoints:
        return MixPoints(s, np.where(up, high, low).astype(np.float32))

    return {"lpf": between(300, 9000), "hpf": between(30, 300), "gain": between(0.4, 1),
            "pan": between(-0.7, 0.7)}  # fmt: skip


def busy(stop: threading.Event) -> None:
    """Two threads of pure Python and rubbish, as a parser under a storm of edits."""

    def spin() -> None:
        while not stop.is_set():
            {str(k): [k] * 3 for k in range(20000)}
            gc.collect()

    for _ in range(2):
        threading.Thread(target=spin, daemon=True).start()


def test_a_busy_parent_does_not_touch_the_sound(
    server: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    server()
    began = time.monotonic()
    write_loops(tmp_path)
    speaker = Speaker.start("device", tmp_path, device="system", state=decks())
    started = time.monotonic() - began
    stop = threading.Event()
    busy(stop)
    bus = speaker.bus
    until(lambda: bus.played > 48000)
    process = psutil.Process(bus.pid)
    before, begin, dry, under = process.cpu_times(), time.monotonic(), bus.dry, bus.underruns
    played = bus.played
    try:
        while time.monotonic() - begin < SECONDS:
            speaker.publish(decks(bus.blocks + 2, bus.mixed))
            PAUSE.wait(0.2)
    finally:
        stop.set()
    took, after = time.monotonic() - begin, process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / took
    events = [(e.kind, e.text) for e in speaker.events()]
    report(
        f"\n{speaker.first.text}, {FRAMES} frames, "
        f"{REALTIME[0]}, {took:.0f} s: dry {bus.dry - dry}, underruns "
        f"{bus.underruns - under}, callback failures {bus.failures}, start {started:.2f} s, "
        f"CPU of the audio process {share:.1%}, memory {process.memory_info().rss >> 20} MiB, "
        f"kept ahead {bus.ahead * 1000 // 48000} ms, "
        f"pace {(bus.played - played) / took / 48000:.4f}\n{events}"
    )
    speaker.close()
    assert bus.dry - dry == 0
    assert bus.failures == 0
    assert bus.errors == 0


def test_a_server_that_dies_and_comes_back(
    server: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    first = server()
    write_loops(tmp_path)
    speaker = Speaker.start("auto", tmp_path, state=decks())
    bus: Bus = speaker.bus
    until(lambda: bus.device_ok == 1 and bus.played > 24000)
    t0 = bus.t0
    first.kill()
    until(lambda: bus.device_ok == -1)
    position = bus.played
    until(lambda: bus.played > position + 48000)  # time goes on without it
    # What a killed server leaves behind keeps the next one from starting.
    for rest in Path("/dev/shm").glob(f"jack*demon-{os.getpid()}*"):
        rest.unlink()
    server()
    until(lambda: bus.device_ok == 1, 30)
    report([(e.kind, e.text) for e in speaker.events()], f"{bus.t0 - t0:+.3f} s")
    position = bus.played
    until(lambda: bus.played > position + 24000)
    assert speaker.alive
    speaker.close()


def ports(server: Server, kind: str) -> list[str]:
    """Our ports of a kind, `out` or `in`."""
    done = subprocess.run(["jack_lsp"], env=server.env, capture_output=True, text=True, check=True)
    names = done.stdout.split()
    return [n for n in names if f":{kind}_" in n and not n.startswith("system:")]


def clicks(ring: InputRing, first: int) -> list[float]:
    """Where the clicks of a stretch of four seconds lie, to a fraction of a sample."""
    power = np.square(ring.read(first, first + 4 * 48000)[:, 0].astype(np.float64))
    found = []
    for at in np.flatnonzero(power > 0.02):
        near = np.arange(at - 16, at + 17)
        place = first + float((near * power[near]).sum() / power[near].sum())
        if not found or place - found[-1] > 100:
            found.append(place)
    return found


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_a_click_that_comes_back_lies_at_its_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    """Our output is wired to our input, which costs no time. What the server says that device and
    microphone take is subtracted all the same; the nudge takes it back."""
    with Server(tmp_path, FRAMES, rate) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        loop = Loop(1, "one", 0, Fraction(0), Fraction(96000), 4, Fraction(120), 4, 50)
        LoopBuffer.create(tmp_path / loop.file, 96000).audio[24000] = 0.5
        ring = InputRing.create(tmp_path, "system")
        speaker = Speaker.start(
            "device", tmp_path, device="system", sound_input="system",
            state=MixState({"one": MixDeck((loop,))}),
        )  # fmt: skip
        bus = speaker.bus
        until(lambda: bus.played > 24000)
        assert ring.status().state == "closed"
        assert ports(server, "in") == []
        ring.want(True)
        until(lambda: ring.end() > 0)
        for one, other in zip(ports(server, "out"), ports(server, "in"), strict=True):
            subprocess.run(["jack_connect", one, other], env=server.env, check=True)
        ring.nudge = 3 * FRAMES / rate * 1000  # two blocks to the ear, one from the microphone
        begin = ring.end() + 48000
        until(lambda: ring.end() > begin + 5 * 48000, 60)
        found = clicks(ring, begin)
        dry, failures, holes = bus.dry, bus.failures, ring.holes(begin, begin + 4 * 48000)
        report(rate, found, f"dry {dry}", speaker.events())
        speaker.close()
    assert len(found) == 2
    assert all(abs((at - 24000 + 48000) % 96000 - 48000) <= 1 for at in found)
    assert (dry, failures, holes) == (0, 0, [])


def test_eight_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tmp_path, FRAMES, channels=8) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        write_loops(tmp_path)
        state = decks()
        one, two = state.decks["one"], replace(state.decks["two"], out=7)
        speaker = Speaker.start("device", tmp_path, device="system", state=state)
        bus = speaker.bus
        until(lambda: bus.played > 24000)
        assert len(ports(server, "out")) == 2
        speaker.publish(MixState({"one": one, "two": two}))
        until(lambda: len(ports(server, "out")) == 8, 30)
        played = bus.played
        until(lambda: bus.played > played + SECONDS * 48000, SECONDS + 60)
        report(bus.dry, speaker.events())
        speaker.close()
        assert (bus.dry, bus.errors, bus.failures) == (0, 0, 0)
