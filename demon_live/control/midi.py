"""MIDI ports: the one door to mido (and, through it, to python-rtmidi). Optional, and tolerant.

    available()   names of the ports there are, and why there are none
    MidiIn        every input whose name contains a word, whenever it is plugged in
    MidiOut       the same for one output
    FakeBackend   ports that exist in memory only, for tests and for trying things out

A package or device that is absent is never an error here: a port waits, `problem` says for what
and what helps. Ports come and go while the sound plays: once a second a thread looks again.

Which system mido talks to is mido's own setting: MIDO_BACKEND=mido.backends.rtmidi/UNIX_JACK.

Threads: messages arrive in a thread of the MIDI library. It only stamps them, calls `on_message`
(which must not block) and puts them into a bounded queue; `drain` may be called from any thread. A
thread of each port looks for devices; with watch=False nobody looks but `scan`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

__all__ = [
    "Available",
    "Backend",
    "FakeBackend",
    "MidiIn",
    "MidiMessage",
    "MidiOut",
    "available",
]

log = logging.getLogger(__name__)

#: Seconds between two looks for devices that came or went.
SCAN_EVERY = 1.0
#: Messages that wait to be drained; the oldest give way. A second of a flooded DIN cable is 1000.
QUEUE = 4096
#: Ports that one MidiIn listens to at most.
MOST = 16
_NO_PACKAGE = "MIDI needs its packages: pip install 'demon-live[midi]'"
#: ALSA numbers its clients anew at each plug: "nanoKONTROL2 MIDI 1 24:0".
_NUMBERS = re.compile(r"\s+\d+:\d+$")
#: The loop-back port that every ALSA machine has: only heard if it is asked for.
_THROUGH = "midi through"


@dataclass(frozen=True, slots=True)
class MidiMessage:
    """data: the raw bytes, status first (system exclusive excluded). at: time.monotonic() of the
    arrival. port: name of the input."""

    data: bytes
    at: float
    port: str = ""


@dataclass(frozen=True, slots=True)
class Available:
    """What is plugged in. problem: why nothing can be, with the remedy, or ""."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    problem: str = ""


class Wire(Protocol):
    """An open port."""

    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Backend(Protocol):
    """What opens ports: mido, or a fake."""

    def available(self) -> Available: ...
    def open_input(self, name: str, hear: Callable[[bytes], None], virtual: bool) -> Wire: ...
    def open_output(self, name: str, virtual: bool) -> Wire: ...


# --- mido -------------------------------------------------------------------------------------


class _MidoWire:
    def __init__(self, port: Any, parse: Callable[[bytes], Any]) -> None:
        self._port, self._parse = port, parse

    def send(self, data: bytes) -> None:
        self._port.send(self._parse(data))

    def close(self) -> None:
        self._port.close()


class _MidoBackend:
    """The machine's own ports. Nothing is imported before the first call."""

    def __init__(self) -> None:
        self._mido: Any = None

    def _open(self) -> Any:
        if self._mido is None:
            import mido

            self._mido = mido, mido.Backend()
        return self._mido

    def available(self) -> Available:
        # ALSA's library would print its complaint across the prompt: ask the system first.
        own = not os.environ.get("MIDO_BACKEND")
        if own and sys.platform == "linux" and not Path("/dev/snd/seq").exists():
            return Available(
                problem="this machine has no ALSA sequencer (/dev/snd/seq): sudo modprobe snd-seq"
            )
        try:
            _, backend = self._open()
            inputs, outputs = backend.get_input_names(), backend.get_output_names()
        except ImportError:
            return Available(problem=_NO_PACKAGE)
        # Drivers raise what they like; whatever it is, there are no ports.
        except Exception as error:  # noqa: BLE001
            return Available(problem=f"MIDI is not available: {error}")
        return Available(tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(outputs)))

    def open_input(self, name: str, hear: Callable[[bytes], None], virtual: bool) -> Wire:
        mido, backend = self._open()

        def callback(message: Any) -> None:
            hear(bytes(message.bytes()))

        port = backend.open_input(name, virtual=virtual, callback=callback)
        return _MidoWire(port, mido.Message.from_bytes)

    def open_output(self, name: str, virtual: bool) -> Wire:
        mido, backend = self._open()
        return _MidoWire(backend.open_output(name, virtual=virtual), mido.Message.from_bytes)


_SYSTEM = _MidoBackend()


def available(backend: Backend | None = None) -> Available:
    """The ports there are now. Never raises: `problem` says why there are none."""
    return (backend or _SYSTEM).available()


# --- in memory --------------------------------------------------------------------------------


@dataclass
class _FakeWire:
    backend: FakeBackend
    name: str
    hear: Callable[[bytes], None] | None = None

    def send(self, data: bytes) -> None:
        if self.name not in self.backend.outputs:
            raise OSError("the device is gone")
        self.backend.sent.append((self.name, data))

    def close(self) -> None:
        self.backend.wires = [w for w in self.backend.wires if w is not self]


@dataclass
class FakeBackend:
    """Ports in memory. Plug and unplug by changing the lists; `feed` is what a device sends;
    `sent` is what was sent to outputs, as (port, bytes)."""

    inputs: list[str] = field(default_factory=lambda: ["fake"])
    outputs: list[str] = field(default_factory=lambda: ["fake"])
    problem: str = ""
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    wires: list[_FakeWire] = field(default_factory=list)

    def available(self) -> Available:
        if self.problem:
            return Available(problem=self.problem)
        return Available(tuple(self.inputs), tuple(self.outputs))

    def open_input(self, name: str, hear: Callable[[bytes], None], virtual: bool) -> Wire:
        if not virtual and name not in self.inputs:
            raise OSError(f"unknown port {name!r}")
        self.wires.append(_FakeWire(self, name, hear))
        return self.wires[-1]

    def open_output(self, name: str, virtual: bool) -> Wire:
        if virtual and name not in self.outputs:
            self.outputs.append(name)
        if name not in self.outputs:
            raise OSError(f"unknown port {name!r}")
        return _FakeWire(self, name)

    def feed(self, data: bytes, port: str = "fake") -> None:
        """Bytes from a device: every open input of that name hears them."""
        for wire in list(self.wires):
            if wire.name == port and wire.hear is not None:
                wire.hear(data)


# --- ports that come and go -------------------------------------------------------------------


def _matches(word: str, name: str) -> bool:
    low = name.lower()
    return word.lower() in low if word else _THROUGH not in low


class _Port:
    """What inputs and outputs share: a thread that looks for devices."""

    def __init__(self, name: str, backend: Backend | None, watch: bool) -> None:
        self.name = name
        self._backend = backend or _SYSTEM
        self._wires: dict[str, Wire] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._virtual: Wire | None = None
        self.problem = ""
        self._thread: threading.Thread | None = None
        if watch:
            self._thread = threading.Thread(target=self._watch, name="midi", daemon=True)

    def _begin(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def _watch(self) -> None:
        while not self._closing.is_set():
            self.scan()
            self._closing.wait(SCAN_EVERY)

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the devices that are open now."""
        with self._lock:
            return tuple(_NUMBERS.sub("", n) for n in self._wires)

    @property
    def connected(self) -> bool:
        return bool(self._wires) or self._virtual is not None

    def scan(self) -> None:
        """Look once: open what came, forget what went. Never raises."""
        there = self._backend.available()
        names = self._names(there)
        with self._lock:
            for gone in self._wires.keys() - set(names):
                self._shut(self._wires.pop(gone))
            for name in names:
                if name not in self._wires and len(self._wires) < self._most:
                    self._connect(name)
            waiting = f"no MIDI device called {self.name!r}" if self.name else "no MIDI device"
            if self._wires:
                self.problem = ""
            elif not self.problem or there.problem or not names:
                self.problem = there.problem or f"{waiting} is plugged in"

    _most = MOST

    def _names(self, there: Available) -> list[str]:
        raise NotImplementedError

    def _open(self, name: str) -> Wire:
        raise NotImplementedError

    def _connect(self, name: str) -> None:
        try:
            self._wires[name] = self._open(name)
        # A device that another program holds, or that is pulled out at this very moment.
        except Exception as error:  # noqa: BLE001
            self.problem = f"{name} cannot be opened: {error}"

    @staticmethod
    def _shut(wire: Wire) -> None:
        with contextlib.suppress(Exception):
            wire.close()

    def close(self) -> None:
        """Close every port. Twice is fine."""
        self._closing.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(2)
        with self._lock:
            for wire in self._wires.values():
                self._shut(wire)
            self._wires.clear()
            if self._virtual is not None:
                self._shut(self._virtual)
                self._virtual = None

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class MidiIn(_Port):
    """Listens to every input whose name contains `name` (any case); "" is all of them.

    most: devices at once. on_message: called in the MIDI thread with each message; what it raises
    is logged. virtual: a port of our own that others connect to, called `name`, where the system
    has such (not on Windows). `dropped` counts messages that nobody drained in time.
    """

    def __init__(
        self,
        name: str = "",
        *,
        most: int = MOST,
        on_message: Callable[[MidiMessage], None] | None = None,
        virtual: bool = False,
        watch: bool = True,
        backend: Backend | None = None,
    ) -> None:
        super().__init__(name, backend, watch and not virtual)
        self._most = most
        self._on_message = on_message
        self._queue: deque[MidiMessage] = deque(maxlen=QUEUE)
        self.received = 0
        self.dropped = 0
        if virtual:
            self._make_virtual()
        self._begin()

    def _make_virtual(self) -> None:
        there = self._backend.available()
        if there.problem:
            self.problem = there.problem
            return
        try:
            hear = self._ear(self.name)
            self._virtual = self._backend.open_input(self.name, hear, virtual=True)
        except Exception as error:  # noqa: BLE001
            self.problem = f"a port of our own cannot be made: {error}"

    def _names(self, there: Available) -> list[str]:
        return [n for n in there.inputs if _matches(self.name, n)]

    def _open(self, name: str) -> Wire:
        return self._backend.open_input(name, self._ear(_NUMBERS.sub("", name)), virtual=False)

    def _ear(self, port: str) -> Callable[[bytes], None]:
        def hear(data: bytes) -> None:
            if not data or data[0] == 0xF0:
                return
            message = MidiMessage(data, time.monotonic(), port)
            self.received += 1
            if self._on_message is not None:
                try:
                    self._on_message(message)
                # Nothing may travel into the driver's thread.
                except Exception:
                    log.warning("a MIDI message", exc_info=True)
                return
            if len(self._queue) == QUEUE:
                self.dropped += 1
            self._queue.append(message)

        return hear

    def drain(self) -> list[MidiMessage]:
        """All messages since the last call, oldest first. Empty with `on_message`."""
        out = []
        with contextlib.suppress(IndexError):
            while True:
                out.append(self._queue.popleft())
        return out


class MidiOut(_Port):
    """Sends to the first output whose name contains `name`; "" is the first there is.

    virtual: a port of our own, as in MidiIn. Messages without a device are lost, not queued: a
    clock tick that comes late is worse than none.
    """

    _most = 1

    def __init__(
        self,
        name: str = "",
        *,
        virtual: bool = False,
        watch: bool = True,
        backend: Backend | None = None,
    ) -> None:
        super().__init__(name, backend, watch and not virtual)
        if virtual:
            there = self._backend.available()
            self.problem = there.problem
            try:
                if not there.problem:
                    self._virtual = self._backend.open_output(name, virtual=True)
            except Exception as error:  # noqa: BLE001
                self.problem = f"a port of our own cannot be made: {error}"
        self._begin()

    def _names(self, there: Available) -> list[str]:
        return [n for n in there.outputs if _matches(self.name, n)]

    def _open(self, name: str) -> Wire:
        return self._backend.open_output(name, virtual=False)

    def send(self, data: bytes) -> bool:
        """Send raw bytes, status first. False: there is no device, or it is just gone."""
        with self._lock:
            wires = [self._virtual] if self._virtual is not None else list(self._wires.values())
            for wire in wires:
                try:
                    wire.send(data)
                except Exception as error:  # noqa: BLE001
                    self.problem = f"sending failed: {error}"
                    for name in [n for n, w in self._wires.items() if w is wire]:
                        self._shut(self._wires.pop(name))
                    return False
            return bool(wires)
