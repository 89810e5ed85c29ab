"""The handle of the audio process, as everybody else sees it.

    speaker = Speaker.start("auto", bus_path)
    speaker.add_loop(loop, path_of_its_LoopRing)
    speaker.set_mix("drums", {"gain": points})
    for event in speaker.events(): ...
    speaker.bus.played                                # the playhead

The child is a fresh interpreter, not a multiprocessing child: that would import the caller's main
module again (and with it torch). If it dies, it is started anew with all loops, mixes and mutes,
on the beat; the loops are in mmap'ed files, so the music is still there.

Threads: any thread may call; nothing here waits for the audio process but start and close.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from demon_live.audio.feeder import Event
from demon_live.audio.pcmring import Bus
from demon_live.audio.process import Settings
from demon_live.audio.sinks import checked_target, parse_sink
from demon_live.core import RATES, Loop, MixPoints
from demon_live.errors import DeviceError

__all__ = ["Event", "Speaker"]

_CHILD = "import sys; sys.path[:] = {path!r}; from demon_live.audio.process import main; main()"


class _State:
    """What a new audio process has to be told to sound like the old one."""

    def __init__(self) -> None:
        self.loops: dict[str, list[tuple[Loop, str]]] = {}
        self.mixes: dict[str, Mapping[str, MixPoints]] = {}
        self.orders: dict[tuple[str, str | None], tuple[str, str | None, int]] = {}
        self.gain = 1.0
        self.recording: str | None = None

    def note(self, name: str, arguments: tuple[Any, ...], played: int) -> None:
        """Remembers the effect of a command."""
        if name == "add_loop":
            loop: Loop = arguments[0]
            kept = [s for s in self.loops.get(loop.deck, []) if s[0].from_sample < loop.from_sample]
            # Of the loops that have begun only the last still sounds.
            begun = [s for s in kept if s[0].from_sample <= played][-1:]
            ahead = [s for s in kept if s[0].from_sample > played]
            self.loops[loop.deck] = [*begun, *ahead, (loop, arguments[1])]
        elif name == "remove_deck":
            self.loops.pop(arguments[0], None)
            self.mixes.pop(arguments[0], None)
        elif name == "set_mix":
            self.mixes[arguments[0]] = arguments[1]
        elif name == "master":
            self.gain = arguments[0]
        elif name in ("record", "stop_record"):
            # A recording goes on in a second file; what the dead process wrote stays beside it.
            self.recording = arguments[0] if arguments else None
        elif name == "order":
            what, deck, _ = arguments
            family = {"unmute": "mute", "unsolo": "solo", "wake": "hush"}.get(what, what)
            if what == "unsolo" and deck is None:
                for key in [k for k in self.orders if k[0] == "solo"]:
                    del self.orders[key]
            else:
                self.orders[family, deck] = arguments

    def commands(self) -> list[tuple[str, tuple[Any, ...]]]:
        """The commands that bring a fresh process here."""
        return [
            *([("record", (self.recording,))] if self.recording else []),
            *(("order", order) for order in self.orders.values()),
            ("master", (self.gain,)),
            *(("set_mix", item) for item in self.mixes.items()),
            *(("add_loop", entry) for loops in self.loops.values() for entry in loops),
        ]


class Speaker:
    """Starts, commands and watches the audio process."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self.bus = bus  #: what the audio process says about itself; see pcmring.Bus
        self._settings = settings
        self._state = _State()
        self._events: collections.deque[Event] = collections.deque(maxlen=1000)
        self._todo: collections.deque[tuple[str, tuple[Any, ...]]] = collections.deque()
        self._wake = threading.Condition()
        self._answered = threading.Event()
        self._first: Event | None = None
        self._last = ""  # kind of the last event
        self._closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._log = Path(settings.bus_path).with_suffix(".log")

    @classmethod
    def start(
        cls,
        sink: str = "auto",
        bus_path: str | Path | None = None,
        *,
        device: str | None = None,
        ahead_ms: float = 50.0,
        latency: float | str = "high",
        startup: float = 0.05,
        start: int = 0,
        loops: Iterable[tuple[Loop, str | Path]] = (),
        timeout: float = 10.0,
    ) -> Speaker:
        """Starts the audio process and waits until it plays.

        sink: auto, device, null or file:PATH. device: number or part of a name. ahead_ms: how much
        is kept mixed. latency: PortAudio's `low`, `high` or seconds. startup: seconds of the first
        ramp. start: the first output sample. loops: what plays from the first sample on, with
        the paths of the LoopRings; later ones come by add_loop. Raises DeviceError, FileError,
        UsageError.
        """
        if bus_path is None:
            from demon_live.paths import runtime_dir

            bus_path = runtime_dir() / f"bus-{os.getpid()}-{time.monotonic_ns()}"
        settings = Settings(
            str(bus_path),
            parse_sink(sink),
            device,
            round(ahead_ms * RATES.sample_rate / 1000),
            latency=latency,
            startup=startup,
            start=start,
        )
        bus = Bus.create(bus_path)
        bus.played = bus.mixed = start
        speaker = cls(settings, bus)
        for loop, path in loops:
            speaker._state.note("add_loop", (loop, str(path)), start)
        speaker._spawn()
        threading.Thread(target=speaker._send, name="to audio", daemon=True).start()
        threading.Thread(target=speaker._listen, name="from audio", daemon=True).start()
        if not speaker._answered.wait(timeout) or speaker._first is None:
            tail = speaker._complaint()
            speaker.close(timeout=0.5)
            raise DeviceError(f"the audio process does not start{tail}", hint="try --audio null")
        if speaker._first.kind == "failed":
            error = speaker._first.error or DeviceError(speaker._first.text)
            speaker.close()
            raise error
        return speaker

    # --- commands: all return at once --------------------------------------------------------

    def add_loop(self, loop: Loop, path: str | Path) -> None:
        """From loop.from_sample on the deck plays the LoopBuffer at `path`."""
        self._command("add_loop", loop, str(path))

    def remove_deck(self, deck: str, at: int = 0) -> None:
        """The deck fades out around sample `at` and is forgotten."""
        self._command("remove_deck", deck, at)

    def set_mix(self, deck: str, points: Mapping[str, MixPoints]) -> None:
        """Replaces the automation of a deck's strip. In a storm only the newest is sent."""
        self._command("set_mix", deck, dict(points))

    def mute(self, deck: str, at: int = 0) -> None:
        """Silences a deck from sample `at` on, or at once."""
        self._command("order", "mute", deck, at)

    def unmute(self, deck: str, at: int = 0) -> None:
        """Takes a mute back."""
        self._command("order", "unmute", deck, at)

    def solo(self, deck: str, at: int = 0) -> None:
        """Only soloed decks are heard."""
        self._command("order", "solo", deck, at)

    def unsolo(self, deck: str | None = None, at: int = 0) -> None:
        """Takes back one solo, or all."""
        self._command("order", "unsolo", deck, at)

    def hush(self, at: int = 0) -> None:
        """Fades everything out within 10 ms; it stays silent until `wake`."""
        self._command("order", "hush", None, at)

    def wake(self, at: int = 0) -> None:
        """Fades in again."""
        self._command("order", "wake", None, at)

    def master(self, gain: float) -> None:
        """Loudness of everything, 0 to 2."""
        self._command("master", gain)

    def record(self, path: str | Path) -> None:
        """Records what is mixed from now on, to .flac or .wav. Raises FileError if it cannot."""
        self._command("record", str(checked_target(path).absolute()))

    def stop_record(self) -> None:
        """Ends the recording; the event `recorded` tells when the file is complete."""
        self._command("stop_record")

    # --- what it says ------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the audio process runs."""
        return self._child is not None and self._child.poll() is None

    @property
    def first(self) -> Event:
        """The event of the start: its text names the device, or says why there is none."""
        assert self._first is not None
        return self._first

    def events(self) -> list[Event]:
        """What has happened since the last call, oldest first; at most the last 1,000."""
        out = []
        with contextlib.suppress(IndexError):
            while True:
                out.append(self._events.popleft())
        return out

    def close(self, timeout: float = 35.0) -> None:
        """Fades out, finishes the recording and ends the process. Twice is fine."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        child = self._child
        if child is not None:
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(5.0)
        for path in (self.bus.path, self._log):
            with contextlib.suppress(OSError):
                path.unlink()

    # --- inside ------------------------------------------------------------------------------

    def _command(self, name: str, *arguments: Any) -> None:
        with self._wake:
            self._state.note(name, arguments, self.bus.played)
            if name == "set_mix":
                # The newest automation of a deck wins: a storm cannot fill the memory.
                stale = next(
                    (c for c in self._todo if c[0] == name and c[1][0] == arguments[0]), None
                )
                if stale is not None:
                    self._todo.remove(stale)
            self._todo.append((name, arguments))
            self._wake.notify()

    def _spawn(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = [root, *(p for p in sys.path if p and p != root)]
        # One thread for BLAS: nothing here is large, and its pool costs start-up and cores.
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        # The first block already has what is known: the first beat is not lost.
        self._settings = replace(self._settings, commands=tuple(self._state.commands()))
        with open(self._log, "ab") as log:
            # Its own session: Ctrl-C and the closing terminal belong to the prompt, not to the
            # sound.
            self._child = subprocess.Popen(
                [sys.executable, "-c", _CHILD.format(path=path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=env,
            )

    def _send(self) -> None:
        told: subprocess.Popen[bytes] | None = None
        while True:
            with self._wake:
                while not self._todo and not self._closing and self._child is told:
                    self._wake.wait()
                todo = list(self._todo)
                self._todo.clear()
                closing, child = self._closing, self._child
                settings = self._settings
            assert child is not None
            assert child.stdin is not None
            # A child that just died is told everything again when it is restarted.
            if told is not None and told is not child and told.stdin is not None:
                with contextlib.suppress(OSError):
                    told.stdin.close()
            with contextlib.suppress(OSError, ValueError):
                if child is not told:
                    told = child
                    pickle.dump(settings, child.stdin)
                for command in todo:
                    pickle.dump(command, child.stdin)
                if closing:
                    pickle.dump(("close", ()), child.stdin)
                child.stdin.flush()
            if closing:
                with contextlib.suppress(OSError):
                    child.stdin.close()
                return

    def _listen(self) -> None:
        failures = 0
        while True:
            child = self._child
            assert child is not None
            assert child.stdout is not None
            began = time.monotonic()
            with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
                while True:
                    self._hear(pickle.load(child.stdout))
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(1.0)
            child.stdout.close()
            if self._closing or self._first is None or self._first.kind == "failed":
                self._answered.set()
                return
            # One that has played is started at once, one that cannot play ever more patiently.
            failures = 0 if time.monotonic() - began > 2.0 else failures + 1
            if self._last != "closed":
                text = "the audio process died: starting it again" + self._complaint()
                self._events.append(Event("lost", text, self.bus.played))
            self._last = ""
            time.sleep(min(5.0, 0.1 * 2**failures) if failures > 1 else 0.0)
            self._restart()

    def _hear(self, event: Event) -> None:
        if self._first is None:
            self._first = event
            self._answered.set()
        self._last = event.kind
        self._events.append(event)

    def _restart(self) -> None:
        """A new process that goes on where the music would be now."""
        with self._wake:
            if self._closing:
                return
            seek = self._settings.seek or self.bus.device_ok != 0
            self._settings = replace(self._settings, resume=True, seek=seek)
            self._spawn()
            self._todo.clear()
            self._wake.notify()
        self._events.append(Event("restarted", "the audio process is back", self.bus.mixed))

    def _complaint(self) -> str:
        """The last line that the child wrote to its log, for a message."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            if lines:
                return f" ({lines[-1][:200]})"
        return ""
