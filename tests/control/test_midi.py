"""MIDI ports: absent, plugged in late, pulled out, flooded."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from contextlib import closing

import pytest

from demon_live.control.midi import MidiIn, MidiMessage, MidiOut, MidoBackend
from demon_live.control.midi_input import Controllers
from demon_live.lang.controllers import Move
from demon_live.paths import install
from tests.helpers.fake_midi import FakeBackend


def fake(*names: str) -> FakeBackend:
    return FakeBackend(inputs=list(names), outputs=list(names))


class Inbox(list[MidiMessage]):
    """Every message of a port."""

    def port(self, name: str = "", *, backend: FakeBackend) -> MidiIn:
        return MidiIn(name, backend=backend, watch=False, on_message=self.append)


def test_a_port_is_found_by_a_part_of_its_name_in_any_case() -> None:
    backend = fake("Other:Other 20:0", "nanoKONTROL2:nanoKONTROL2 MIDI 1 24:0")
    inbox = Inbox()
    port = inbox.port("nanokontrol", backend=backend)
    port.scan()
    assert [p.name for p in backend.ports] == ["nanoKONTROL2:nanoKONTROL2 MIDI 1 24:0"]
    backend.feed(b"\xb0\x15\x40", "nanoKONTROL2:nanoKONTROL2 MIDI 1 24:0")
    backend.feed(b"\xb0\x15\x41", "Other:Other 20:0")
    [message] = inbox
    assert message.data == b"\xb0\x15\x40"
    assert message.port == "nanoKONTROL2:nanoKONTROL2 MIDI 1"


def test_without_a_name_all_are_heard_but_not_the_loop_back() -> None:
    backend = fake("A", "Midi Through:Midi Through Port-0 14:0", "B")
    port = Inbox().port(backend=backend)
    port.scan()
    assert [p.name for p in backend.ports] == ["A", "B"]
    by_name = Inbox().port("through", backend=backend)
    by_name.scan()
    assert backend.ports[-1].name.startswith("Midi Through")


def test_devices_come_and_go() -> None:
    backend = fake()
    inbox = Inbox()
    port = inbox.port("knobs", backend=backend)
    port.scan()
    assert backend.ports == []
    assert port.problem == "no MIDI device called 'knobs' is plugged in"
    backend.inputs.append("knobs 24:0")
    port.scan()
    assert len(backend.ports) == 1
    assert port.problem == ""
    backend.inputs[:] = []
    port.scan()
    assert backend.ports == []
    # The system numbers a device anew when it comes back.
    backend.inputs.append("knobs 28:0")
    port.scan()
    backend.feed(b"\xb0\x01\x02", "knobs 28:0")
    assert [m.data for m in inbox] == [b"\xb0\x01\x02"]
    port.close()
    assert backend.ports == []


def test_a_device_that_cannot_be_opened_is_told_and_tried_again() -> None:
    class Held(FakeBackend):
        held = True

        def open_input(self, name, on_data):  # type: ignore[no-untyped-def]
            if self.held:
                raise OSError("device is busy")
            return super().open_input(name, on_data)

    backend = Held()
    port = Inbox().port(backend=backend)
    port.scan()
    assert port.problem == "fake cannot be opened: device is busy"
    backend.held = False
    port.scan()
    assert port.problem == ""


def test_on_message_is_called_at_once_and_may_fail() -> None:
    backend = fake("A")
    heard: list[MidiMessage] = []

    def hear(message: MidiMessage) -> None:
        heard.append(message)
        if len(heard) == 1:
            raise RuntimeError("a bug")

    port = MidiIn(backend=backend, watch=False, on_message=hear)
    port.scan()
    backend.feed(b"\xf8", "A")
    backend.feed(b"\xf8", "A")
    assert [m.data for m in heard] == [b"\xf8", b"\xf8"]
    assert heard[0].at <= heard[1].at


def test_system_exclusive_is_passed_over() -> None:
    backend = fake("A")
    inbox = Inbox()
    inbox.port(backend=backend).scan()
    backend.feed(b"\xf0\x00\xf7", "A")
    assert inbox == []


def test_an_output_takes_the_first_that_matches_and_survives_its_loss() -> None:
    backend = fake("synth 1", "synth 2")
    out = MidiOut("synth", backend=backend, watch=False)
    assert out.send(b"\xf8") is False
    out.scan()
    assert out.send(b"\xf8")
    assert backend.sent == [("synth 1", b"\xf8")]
    backend.outputs.remove("synth 1")
    assert out.send(b"\xf8") is False
    out.scan()
    assert out.send(b"\xfa")
    assert backend.sent[-1] == ("synth 2", b"\xfa")


def test_the_watching_thread_ends_with_the_port() -> None:
    backend = fake("A")
    before = set(threading.enumerate())
    with contextlib.closing(MidiIn(backend=backend, on_message=print)):
        (thread,) = set(threading.enumerate()) - before
    assert not thread.is_alive()


def test_a_missing_package_is_a_problem_with_a_remedy_not_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mido", None)
    monkeypatch.setenv("MIDO_BACKEND", "mido.backends.rtmidi")
    backend = MidoBackend()
    found = backend.available()
    assert found.inputs == ()
    assert install("midi") in found.problem
    port = MidiIn(watch=False, on_message=print, backend=backend)
    port.scan()
    assert port.problem == found.problem


@pytest.mark.skipif(sys.platform != "linux", reason="where ALSA is the system")
def test_a_machine_without_midi_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    monkeypatch.delenv("MIDO_BACKEND", raising=False)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert "snd-seq" in MidoBackend().available().problem


def test_a_move_that_fails_does_not_end_the_others() -> None:
    backend = FakeBackend()
    first, last = threading.Event(), threading.Event()

    def hear(moves: Sequence[Move]) -> None:
        if moves[-1].value == 1.0:
            last.set()
            return
        first.set()
        raise RuntimeError("a fault of ours")

    with closing(Controllers(hear, backend=backend)):
        backend.feed(bytes((0xB0, 21, 0)))
        assert first.wait(60)
        backend.feed(bytes((0xB0, 21, 127)))
        assert last.wait(60)
