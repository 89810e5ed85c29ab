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
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest

from demon_live.audio.pcmring import Bus, LoopBuffer
from demon_live.audio.speaker import Speaker
from demon_live.core import Loop, MixDeck, MixPoints, MixState
from tests.rigs.jack import realtime

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
