"""The handle of the audio process, as everybody else sees it.

    speaker = Speaker.start("auto", folder)
    speaker.publish(MixState(...))                    # what should be heard: the newest wins
    for event in speaker.events(): ...
    speaker.bus.played                                # the playhead

If the process dies another takes over with the newest state, on the beat; the PCM of the loops is
in mmap'ed files, so the music is still there. A *spare*, which has imported everything, makes the
gap short.

Threads: any thread may call; nothing here waits for the audio process but start and close.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

from demon_live.audio.mix_thread import AudioEvent
from demon_live.audio.pcmring import Bus
from demon_live.audio.process import Settings
from demon_live.audio.sinks import parse_sink
from demon_live.children import Backoff, command, last_line
from demon_live.core import RATES, MixState
from demon_live.errors import DeviceError

#: The first spare is begun so many seconds after the sound: a start costs half a second of a
#: processor.
_SPARE_AFTER = 2.0
#: Seconds without a sign of life after which the audio process hangs: it gives twenty a second.
HUNG = 1.0
# One thread for BLAS: nothing in the audio process is large, and a pool costs start-up and cores.
_ENVIRON = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Speaker:
    """Starts and watches the audio process."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self.bus = bus  #: what the audio process says about itself; see pcmring.Bus
        self._settings = settings
        self._state = settings.state
        self._events: collections.deque[AudioEvent] = collections.deque(maxlen=1000)
        self._wake = threading.Condition()
        self._answered = threading.Event()
        self._first: AudioEvent | None = None
        self._last = ""  # kind of the last event
        self._checked = self._beat_at = time.monotonic()
        self._beat = (0.0, 0.0)
        self._closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._spare: subprocess.Popen[bytes] | None = None
        #: When a spare may be begun; inf: none is wanted now.
        self._spare_due = float("inf")
        self._wants_spare = False
        self._spare_backoff = Backoff(2.0, 64.0)
        self._log = Path(settings.bus_path).with_suffix(".log")

    @classmethod
    def start(
        cls,
        sink: str = "auto",
        folder: str | Path = ".",
        *,
        device: str | None = None,
        sound_input: str | None = None,
        ahead_ms: float = 50.0,
        latency: float | str = "high",
        startup: float = 0.05,
        start: int = 0,
        state: MixState | None = None,
        spare: bool = False,
        timeout: float = 10.0,
    ) -> Speaker:
        """Starts the audio process and waits until it plays.

        Args:
            sink: auto, device, null or file:PATH.
            folder: where the PCM of the loops lies; the bus is made there.
            device: number or part of a name.
            sound_input: the device whose ring lies in `folder`, or file:PATH; see `sound_input`.
            ahead_ms: how much is kept mixed.
            latency: PortAudio's `low`, `high` or seconds.
            startup: seconds of the first ramp.
            start: the first output sample.
            state: what is heard from the first sample on.
            spare: keep a process in reserve (`check` begins it).
            timeout: seconds that the process may take to start.

        Raises:
            DeviceError, FileError, UsageError.
        """
        bus_path, ahead = Path(folder) / "bus", round(ahead_ms * RATES.sample_rate / 1000)
        settings = Settings(
            *(str(bus_path), parse_sink(sink), device, ahead),
            latency=latency,
            startup=startup,
            start=start,
            folder=str(folder),
            input=sound_input,
            state=state or MixState(),
        )
        bus = Bus.create(bus_path)
        bus.played = bus.mixed = start
        speaker = cls(settings, bus)
        speaker._spawn()
        threading.Thread(target=speaker._send, name="to audio", daemon=True).start()
        threading.Thread(target=speaker._listen, name="from audio", daemon=True).start()
        if not speaker._answered.wait(timeout) or speaker._first is None:
            tail = last_line(speaker._log)
            speaker.close(timeout=0.5)
            raise DeviceError(f"the audio process does not start{tail}", hint="try --audio null")
        if speaker._first.kind == "failed":
            error = speaker._first.error or DeviceError(speaker._first.text)
            speaker.close()
            raise error
        speaker._wants_spare = spare
        speaker._spare_due = time.monotonic() + _SPARE_AFTER
        return speaker

    def publish(self, state: MixState) -> None:
        """What should be heard from now on; returns at once. In a storm only the newest is sent."""
        with self._wake:
            self._state = state
            self._wake.notify()

    def check(self) -> None:
        """Replace the audio process if it hangs, and a spare that is gone. To be called a dozen
        times a second."""
        self._tend_spare()
        now, bus, child = time.monotonic(), self.bus, self._child
        # A longer pause between two calls: this machine slept, or was overloaded.
        asleep, self._checked = now - self._checked > HUNG / 2, now
        beat = (float(bus.pid), float(bus.alive))
        if asleep or not bus.running or beat != self._beat:
            self._beat, self._beat_at = beat, now
        elif child is not None and child.poll() is None and now - self._beat_at > HUNG:
            self._beat_at = now
            text = "the audio process does not answer any more: starting another"
            self._events.append(AudioEvent("lost", text, bus.played))
            child.kill()

    def _tend_spare(self) -> None:
        now = time.monotonic()
        with self._wake:
            spare = self._spare
            if spare is not None and spare.poll() is not None:
                _let_go(spare)
                self._spare, self._spare_due = None, now + self._spare_backoff.failed()
            elif self._wants_spare and now > self._spare_due and not self._closing:
                self._spare, self._spare_due = self._start_child(), float("inf")

    @property
    def spare_pid(self) -> int | None:
        """Process id of the spare, if there is one."""
        spare = self._spare
        return None if spare is None else spare.pid

    @property
    def alive(self) -> bool:
        """Whether the audio process runs."""
        return self._child is not None and self._child.poll() is None

    @property
    def first(self) -> AudioEvent:
        """The event of the start: its text names the device, or says why there is none."""
        assert self._first is not None
        return self._first

    def events(self) -> list[AudioEvent]:
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
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
            spare.wait(5.0)
            _let_go(spare)
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

    def _spawn(self) -> None:
        # The first block already has what is known: the first beat is not lost.
        self._settings = replace(self._settings, state=self._state)
        spare, self._spare = self._spare, None
        self._spare_due = time.monotonic() + _SPARE_AFTER
        self._spare_backoff.worked()
        ready = spare is not None and spare.poll() is None
        self._child = spare if ready else self._start_child()
        if spare is not None and not ready:
            _let_go(spare)

    def _start_child(self) -> subprocess.Popen[bytes]:
        """A process that waits for its settings."""
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                command("demon_live.audio.process:main"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Its own session: Ctrl-C and the closing terminal belong to the prompt.
                start_new_session=True,
                env={**os.environ, **_ENVIRON},
            )

    def _send(self) -> None:
        """Keep the child's state the newest; a new child gets its settings first."""
        spoken: subprocess.Popen[bytes] | None = None
        sent: MixState | None = None
        while True:
            with self._wake:
                while self._state is sent and not self._closing and self._child is spoken:
                    self._wake.wait()
                state, closing, child = self._state, self._closing, self._child
                settings = self._settings
            assert child is not None
            assert child.stdin is not None
            if spoken is not None and spoken is not child and spoken.stdin is not None:
                with contextlib.suppress(OSError):
                    spoken.stdin.close()
            # A child that just died gets everything again when it is restarted.
            with contextlib.suppress(OSError, ValueError):
                if child is not spoken:
                    spoken, sent = child, settings.state
                    pickle.dump(settings, child.stdin)
                if state is not sent:
                    sent = state
                    pickle.dump(state, child.stdin)
                if closing:
                    pickle.dump(None, child.stdin)
                child.stdin.flush()
            if closing:
                with contextlib.suppress(OSError):
                    child.stdin.close()
                return

    def _listen(self) -> None:
        # One that has played is started at once, one that cannot play ever more patiently.
        backoff = Backoff(0.4, 5.0, free=1)
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
            if self._last != "closed":
                text = "the audio process died: starting it again" + last_line(self._log)
                self._events.append(AudioEvent("lost", text, self.bus.played))
            self._last = ""
            if time.monotonic() - began > 2.0:
                backoff.worked()
            else:
                time.sleep(backoff.failed())
            self._restart()

    def _hear(self, event: AudioEvent) -> None:
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
            self._wake.notify()
        self._events.append(AudioEvent("restarted", "the audio process is back", self.bus.mixed))


def _let_go(child: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a child that has ended."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
