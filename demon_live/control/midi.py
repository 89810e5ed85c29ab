"""MIDI ports: the one importer of mido (and, through it, of python-rtmidi). Optional, and tolerant.

    MidiIn    every input whose name contains a word, whenever it is plugged in
    MidiOut   the same for one output

A missing package or device is never an error here: a port waits, and `problem` says what is
missing and what helps. Ports come and go while the sound plays: a thread looks once a second, with
a client of the sound system that stays.

mido has its own setting for the system to use: MIDO_BACKEND=mido.backends.rtmidi/UNIX_JACK.

Threads: messages arrive in a thread of the MIDI library, which stamps them and calls `on_message`
(it must not block). A thread of each port looks for devices; with watch=False only `scan` looks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from demon_live.paths import install

log = logging.getLogger(__name__)

#: Seconds between two looks for devices that came or went.
SCAN_EVERY = 1.0
#: Seconds between two looks for messages over JACK.
_POLL_EVERY = 0.002
#: Ports that one MidiIn listens to at most.
MOST = 16
_NO_PACKAGE = f"MIDI needs its packages: {install('midi')}"
#: ALSA numbers its clients anew at each plug: "nanoKONTROL2 MIDI 1 24:0".
_NUMBERS = re.compile(r"\s+\d+:\d+$")
#: The loop-back port that every ALSA machine has: only opened by name.
_THROUGH = "midi through"


@dataclass(frozen=True, slots=True)
class MidiMessage:
    """data: the raw bytes, status first, no system exclusive. at: time.monotonic() of the arrival.

    port: name of the input.
    """

    data: bytes
    at: float
    port: str = ""


@dataclass(frozen=True, slots=True)
class Available:
    """The ports that are plugged in. problem: why there are none, with the remedy, or ""."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    problem: str = ""


class OpenPort(Protocol):
    """An open port."""

    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Backend(Protocol):
    """A library that opens ports: mido, or a fake in tests."""

    def available(self) -> Available: ...
    def open_input(self, name: str, on_data: Callable[[bytes], None]) -> OpenPort: ...
    def open_output(self, name: str) -> OpenPort: ...


# --- mido -------------------------------------------------------------------------------------


class _MidoPort:
    def __init__(self, port: Any, parse: Callable[[bytes], Any]) -> None:
        self._port, self._parse = port, parse

    def send(self, data: bytes) -> None:
        self._port.send(self._parse(data))

    def close(self) -> None:
        self._port.close()


class _PolledPort(_MidoPort):
    """An input over JACK. JACK calls from its own thread, once a cycle: if that waited for Python,
    cycles would be missed, and messages with them. So messages are fetched from rtmidi's queue."""

    def __init__(
        self, port: Any, parse: Callable[[bytes], Any], on_data: Callable[[bytes], None]
    ) -> None:
        super().__init__(port, parse)
        self._on_data, self._closing = on_data, threading.Event()
        port._rt.cancel_callback()
        self._thread = threading.Thread(target=self._poll, name="midi-in", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._closing.wait(_POLL_EVERY):
            while (message := self._port._rt.get_message()) is not None:
                self._on_data(bytes(message[0]))

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        super().close()


class MidoBackend:
    """The machine's own ports. Nothing is imported before the first call."""

    def __init__(self) -> None:
        self._mido: Any = None
        self._probes: tuple[Any, ...] = ()
        self._lock = threading.Lock()

    def _load(self) -> Any:
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
            _, backend = self._load()
            with self._lock:
                inputs, outputs = self._names(backend)
        except ImportError:
            return Available(problem=_NO_PACKAGE)
        # Drivers raise any kind of error; each means that there are no ports.
        except Exception as error:  # noqa: BLE001
            return Available(problem=f"MIDI is not available: {error}")
        return Available(tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(outputs)))

    def _names(self, backend: Any) -> tuple[Sequence[str], Sequence[str]]:
        """Names of inputs and outputs. Each probe is a client of the sound system: with rtmidi they
        stay open, since a client that comes or goes disturbs the others."""
        if not backend.name.endswith(".rtmidi"):
            return backend.get_input_names(), backend.get_output_names()
        module = backend.module
        if not self._probes:
            api = module._get_api_id(backend.api)
            self._probes = (module.rtmidi.MidiIn(rtapi=api), module.rtmidi.MidiOut(rtapi=api))
        try:
            inputs, outputs = (probe.get_ports() for probe in self._probes)
        except Exception:
            self._probes = ()
            raise
        if not inputs and not outputs:
            # Their server may have ended.
            self._probes = ()
        return inputs, outputs

    def open_input(self, name: str, on_data: Callable[[bytes], None]) -> OpenPort:
        mido, backend = self._load()
        if backend.api == "UNIX_JACK":
            return _PolledPort(backend.open_input(name), mido.Message.from_bytes, on_data)

        def callback(message: Any) -> None:
            on_data(bytes(message.bytes()))

        return _MidoPort(backend.open_input(name, callback=callback), mido.Message.from_bytes)

    def open_output(self, name: str) -> OpenPort:
        mido, backend = self._load()
        return _MidoPort(backend.open_output(name), mido.Message.from_bytes)


_SYSTEM = MidoBackend()


# --- ports that come and go -------------------------------------------------------------------


def _matches(word: str, name: str) -> bool:
    low = name.lower()
    return word.lower() in low if word else _THROUGH not in low


class _Ports:
    """Open ports whose name contains a word, and the thread that looks for devices."""

    _most = MOST

    def __init__(self, name: str, backend: Backend | None, watch: bool) -> None:
        self.name = name
        self._backend = backend or _SYSTEM
        self._open_ports: dict[str, OpenPort] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.problem = ""
        self._thread: threading.Thread | None = None
        if watch:
            self._thread = threading.Thread(target=self._watch, name="midi", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._closing.is_set():
            self.scan()
            self._closing.wait(SCAN_EVERY)

    def scan(self) -> None:
        """Look once: open new devices, forget those that were unplugged. Never raises."""
        there = self._backend.available()
        names = [n for n in self._names(there) if _matches(self.name, n)]
        with self._lock:
            for gone in self._open_ports.keys() - set(names):
                self._shut(self._open_ports.pop(gone))
            for name in names:
                if name not in self._open_ports and len(self._open_ports) < self._most:
                    self._connect(name)
            waiting = f"no MIDI device called {self.name!r}" if self.name else "no MIDI device"
            if self._open_ports:
                self.problem = ""
            elif not self.problem or there.problem or not names:
                self.problem = there.problem or f"{waiting} is plugged in"

    def _names(self, there: Available) -> tuple[str, ...]:
        raise NotImplementedError

    def _open(self, name: str) -> OpenPort:
        raise NotImplementedError

    def _connect(self, name: str) -> None:
        try:
            self._open_ports[name] = self._open(name)
        # Another program holds the device, or it is pulled out at this very moment.
        except Exception as error:  # noqa: BLE001
            self.problem = f"{name} cannot be opened: {error}"

    @staticmethod
    def _shut(port: OpenPort) -> None:
        with contextlib.suppress(Exception):
            port.close()

    def close(self) -> None:
        """Close every port. Twice is fine."""
        self._closing.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(2)
        with self._lock:
            for port in self._open_ports.values():
                self._shut(port)
            self._open_ports.clear()


class MidiIn(_Ports):
    """Listens to every input whose name contains a word.

    Args:
        name: the word, in any case; "" is every input but ALSA's loop-back.
        on_message: called in the MIDI thread with each message; an error it raises is logged.
        watch: look for devices in a thread; False: only `scan` looks.
        backend: opens the ports; None = the machine's own.
    """

    def __init__(
        self,
        name: str = "",
        *,
        on_message: Callable[[MidiMessage], None],
        watch: bool = True,
        backend: Backend | None = None,
    ) -> None:
        self._on_message = on_message
        super().__init__(name, backend, watch)

    def _names(self, there: Available) -> tuple[str, ...]:
        return there.inputs

    def _open(self, name: str) -> OpenPort:
        port = _NUMBERS.sub("", name)

        def on_data(data: bytes) -> None:
            if not data or data[0] == 0xF0:
                return
            try:
                self._on_message(MidiMessage(data, time.monotonic(), port))
            # No error may reach the driver's thread.
            except Exception:
                log.warning("a MIDI message", exc_info=True)

        return self._backend.open_input(name, on_data)


class MidiOut(_Ports):
    """Sends to the first output whose name contains `name`; "" is the first there is.

    Messages without a device are lost, not queued: a clock tick that comes late is worse than none.
    """

    _most = 1

    def __init__(
        self, name: str = "", *, watch: bool = True, backend: Backend | None = None
    ) -> None:
        super().__init__(name, backend, watch)

    def _names(self, there: Available) -> tuple[str, ...]:
        return there.outputs

    def _open(self, name: str) -> OpenPort:
        return self._backend.open_output(name)

    def send(self, data: bytes) -> bool:
        """Send raw bytes, status first. False: there is no device, or it has just gone."""
        with self._lock:
            for name, port in self._open_ports.items():
                try:
                    port.send(data)
                except Exception as error:  # noqa: BLE001
                    self.problem = f"sending failed: {error}"
                    self._shut(self._open_ports.pop(name))
                    return False
            return bool(self._open_ports)
