"""MIDI through the real driver library: a port of our own and a second client, over JACK."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from demon_live.control.midi import MidiIn, MidiMessage, MidiOut, MidoBackend

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
    until(lambda: server.poll() is not None or not MidoBackend().available().problem)
    yield
    server.terminate()
    server.wait(10)


def test_messages_travel_out_of_one_port_and_into_another(jack: None) -> None:
    import mido

    heard: list[MidiMessage] = []
    sent = [bytes((0xB0, 21, value)) for value in range(0, 128, 8)]
    with (
        mido.open_input("demon-sink", virtual=True) as sink,
        mido.open_output("demon-source", virtual=True) as source,
        closing(MidiIn("demon-source", watch=False, on_message=heard.append)) as port,
        closing(MidiOut("demon-sink", watch=False)) as out,
    ):
        port.scan()
        assert not port.problem
        out.scan()
        assert not out.problem
        for data in sent:
            assert out.send(data)
            PAUSE.wait(0.02)
            source.send(sink.receive())
        until(lambda: len(heard) >= len(sent))
    assert [m.data for m in heard] == sent
    assert all(a.at <= b.at for a, b in itertools.pairwise(heard))


def test_the_end_of_a_sweep_is_heard_while_devices_are_looked_for(jack: None) -> None:
    import mido

    heard: list[MidiMessage] = []
    backend = MidoBackend()
    with (
        mido.open_output("demon-source", virtual=True) as source,
        closing(
            MidiIn("demon-source", watch=False, on_message=heard.append, backend=backend)
        ) as port,
    ):
        port.scan()
        probes = backend._probes
        for value in range(0, 125, 4):
            source.send(mido.Message("control_change", control=21, value=value))
            port.scan()
            PAUSE.wait(0.01)
        until(lambda: len(heard) == 32)
        assert backend._probes is probes
    assert [m.data[2] for m in heard] == list(range(0, 125, 4))
