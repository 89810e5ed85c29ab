"""MIDI through the real driver library: a port of our own and a second client, over JACK."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from demon_live.control.midi import MidiIn, MidiMessage, MidiOut, available

pytestmark = [
    pytest.mark.jack,
    pytest.mark.skipif(shutil.which("jackd") is None, reason="jackd is not installed"),
]
PAUSE = threading.Event()


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + 15
    while not what():
        assert time.monotonic() < end, "it did not happen"
        PAUSE.wait(0.01)


@pytest.fixture
def jack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("rtmidi")
    name = f"demon-midi-{os.getpid()}"
    monkeypatch.setenv("JACK_NO_AUDIO_RESERVATION", "1")
    monkeypatch.setenv("JACK_DEFAULT_SERVER", name)
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("MIDO_BACKEND", "mido.backends.rtmidi/UNIX_JACK")
    command = ["jackd", "-n", name, "-r", "-d", "dummy", "-r", "48000", "-p", "512"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: server.poll() is not None or not available().problem)
    yield
    server.terminate()
    server.wait(10)


def test_messages_travel_through_a_port_of_our_own(jack: None) -> None:
    heard: list[MidiMessage] = []
    with MidiIn("demon", virtual=True) as port, MidiOut("demon", watch=False) as out:
        assert port.connected, port.problem
        out.scan()
        assert out.connected, out.problem
        sent = [bytes((0xB0, 21, value)) for value in range(0, 128, 8)]
        for data in sent:
            assert out.send(data)
            PAUSE.wait(0.02)

        def arrived() -> bool:
            heard.extend(port.drain())
            return len(heard) >= len(sent)

        until(arrived)
    assert [m.data for m in heard] == sent
    assert all(a.at <= b.at for a, b in itertools.pairwise(heard))
