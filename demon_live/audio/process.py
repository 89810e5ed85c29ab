"""The audio process: owns the device, the mixer and the recordings. Started by speaker.py.

    stdin   Settings, then MixStates, pickled by the parent; None or the end of the pipe: close
    stdout  AudioEvents, pickled, each under 4 KiB so that a pipe takes it whole or not at all

    reader thread  stdin -> MixThread.newest
    input thread   input device -> its mapped ring                            input_device
    mix thread     newest -> Mixer -> PcmRing, bus, recorders                 mix_thread.MixThread
    audio thread   PcmRing -> device (PortAudio's thread, or the null clock)  sinks.Output
    main thread    health: lost devices, dryness, events, the end

It must not import torch or scipy: it has to play within a fraction of a second.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from demon_live import faults
from demon_live.audio.devices import Device, Stream, drop, open_output
from demon_live.audio.effects import MEMORY, Memory, in_memory
from demon_live.audio.input_device import InputDevice, thru_of
from demon_live.audio.mix_thread import AudioEvent, MixThread
from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.audio.pcmring import CHANNELS, Bus, LoopBuffer, PcmRing
from demon_live.audio.sinks import NullClock, Sink, output_for
from demon_live.audio.sound_input import FILES
from demon_live.children import command
from demon_live.core import RATES, Floats, Gate, MixState
from demon_live.errors import DemonError, DeviceError, FileError

_RATE = RATES.sample_rate


@dataclass(frozen=True, slots=True)
class Settings:
    """How the process starts. ahead: samples kept mixed. latency: PortAudio's word or seconds."""

    bus_path: str
    sink: Sink
    device: str | None = None
    ahead: int = 2400
    most_ahead: int = 9600
    latency: float | str = "high"
    startup: float = 0.05
    start: int = 0
    folder: str = ""  # where the PCM of loops lies
    state: MixState = field(default_factory=MixState)  # applied before the first sample
    resume: bool = False  # go on from the bus, where the music would be by now
    input: str | None = None  # a device as in `parse_input`, or file:PATH
    seek: bool = False  # look for the device for as long as it takes, instead of failing


def mapped_tails(folder: Path, resume: bool) -> Memory:
    """Tails in mapped files, so that the next audio process goes on with them.

    resume: this is the next one.
    """
    known = set(folder.glob("*.tails")) if resume else set()

    def memory(name: str, create: bool) -> Floats | None:
        path = folder / f"{name}.tails"
        if not (create or path in known):
            return None
        try:
            found = LoopBuffer.open(path) if path in known else LoopBuffer.create(path, MEMORY // 2)
        except (FileError, OSError):  # no room: they end with this process
            return in_memory(name, create)
        known.add(path)
        return found.audio.reshape(-1)

    return memory


class _Process:
    """The threads of the audio process and their health."""

    HEALTH = 0.05  #: seconds between two looks

    def __init__(self, settings: Settings, states: BinaryIO, events: int) -> None:
        self.settings = settings
        self.bus = Bus.open(settings.bus_path)
        self.ring = PcmRing(_RATE)
        self.output = output_for(self.ring, self.bus)
        self.news: collections.deque[AudioEvent] = collections.deque(maxlen=1000)
        self._states = states
        self._events = events
        self._closing = threading.Event()
        self._done = False
        self._stream: Stream | None = None
        self._newest = settings.state
        self._device: Device | None = None
        self._channels = 2
        self._input: InputDevice | None = None
        self._null: NullClock | None = None
        self._search: _Search | None = None
        self._looked = time.monotonic()
        self._told = 0.0
        self._dry, self._underruns = self.bus.dry, self.bus.underruns

    def run(self) -> None:
        """From the first sample to the last."""
        self.bus.ahead = self.settings.ahead
        self.bus.pid = os.getpid()
        try:
            opened = self._open()
        except DeviceError as error:
            self._tell("failed", error.message[:1500], error=error)
            self._send()
            return
        # The device is open but silent: what it will play first is mixed now.
        start = self._resume() if self.settings.resume else self.settings.start
        folder = Path(self.settings.folder)
        memory = mapped_tails(folder, self.settings.resume)
        mixer = Mixer(start=start, startup=self.settings.startup, memory=memory, stems=True)
        self.mix = MixThread(mixer, self.ring, self.bus, self.news.append, folder)
        if self.settings.sink.kind == "file":
            self.mix.sink = self.mix.start_recorder(self.settings.sink.path)
        self.mix.newest = self.settings.state
        self.mix.channels = self._channels
        while self.mix.turn():
            pass
        try:
            self._begin(opened)
        except DeviceError as error:
            self._begin(self._without(error))
        if self.settings.input is not None:
            threading.Thread(target=self._listen, args=(self.settings.input, folder)).start()
        threading.Thread(target=self._feed, name="mix", daemon=True).start()
        threading.Thread(target=self._read, name="states", daemon=True).start()
        self.bus.running = 1
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            signal.signal(number, lambda *_: self._closing.set())
        while not self._closing.wait(self.HEALTH):
            self._health()
        self._wind_down()

    def _resume(self) -> int:
        """Where the music would be had nothing happened: late comers play on the beat."""
        bus = self.bus
        due = int((time.monotonic() - bus.t0) * _RATE) if bus.t0 else 0
        # 15 ms are what mixing the first blocks takes.
        start = max(bus.mixed, due + 720)
        bus.mixed = bus.played = start
        return start

    def _tell(self, kind: str, text: str, *, error: DeviceError | None = None) -> None:
        self.news.append(AudioEvent(kind, text, self.bus.played, "", error))

    def _listen(self, text: str, folder: Path) -> None:
        """Begin to hear the input; a long file takes a while to read."""
        try:
            self.mix.mixer.input = thru_of(text, folder)
            if not text.startswith(FILES):
                args = (text, folder, self.bus, self.output, self.news.append, self._counted)
                self._input = InputDevice(*args)
        except DemonError as error:
            self._tell("error", error.message)

    def _counted(self, api: str) -> bool:
        """Whether an input of this API is called in one cycle with the output."""
        device = self._device if self._stream is not None else None
        return device is not None and device.api == api and api.startswith("JACK")

    # --- threads -----------------------------------------------------------------------------

    def _feed(self) -> None:
        while not self._done:
            if not self.mix.turn():
                time.sleep(0.004)

    def _read(self) -> None:
        """States until the parent closes the pipe, on purpose or by dying."""
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                state = pickle.load(self._states)
                if state is None:
                    break
                self._newest = self.mix.newest = state
        self._closing.set()

    # --- health ------------------------------------------------------------------------------

    def _health(self) -> None:
        now = time.monotonic()
        asleep, self._looked = now - self._looked > 1.0, now
        self.bus.alive = now
        stream = self._stream
        if faults.ON and stream is not None and faults.hit("device.gone") is not None:
            self._lose("DEMON_FAULTS")
            stream = None
        if stream is not None:
            # After a machine's sleep the device gets its time to wake up.
            silent = 0.0 if asleep else now - self.bus.called_at
            if asleep:
                self.bus.called_at = now
            if not stream.active:
                self._lose("it stopped")
            elif silent > 1.0:
                self._lose(f"it took no sound for {silent:.1f} s")
            elif self._device is not None and self._wanted(self._device.channels) > self._channels:
                self._widen_device()
        elif self._search is not None:
            self._look(self._search)
        self._widen(now)
        self._send()

    def _widen(self, now: float) -> None:
        """Keeps more mixed ahead when the device's buffers are large, and after each dry."""
        bus = self.bus
        floor = min(self.output.largest + 960, self.ring.capacity - BLOCK)
        bus.ahead = max(bus.ahead, floor)
        dry, underruns = bus.dry - self._dry, bus.underruns - self._underruns
        if not (dry or underruns) or now - self._told < 1.0:
            return
        if dry:
            bus.ahead = max(bus.ahead, min(bus.ahead + 960, self.settings.most_ahead))
            kept = bus.ahead * 1000 // _RATE
            self._tell("dry", f"the sound was late {dry} times: now {kept} ms are kept ahead")
        else:
            # What is kept ahead does not help here: the device asked, but was served too late.
            self._tell(
                "underrun", f"the device ran out {underruns} times: the machine is overloaded"
            )
        self._dry, self._underruns, self._told = bus.dry, bus.underruns, now

    def _send(self) -> None:
        """Events to the parent; if it does not read them they wait, and the oldest are dropped."""
        while self.news:
            try:
                os.write(self._events, pickle.dumps(self.news[0]))
            except BlockingIOError:
                return
            except OSError:
                self.news.clear()
                return
            self.news.popleft()

    # --- devices -----------------------------------------------------------------------------

    def _open(self) -> tuple[Stream, Device] | str:
        """The device, not yet playing; or why the null clock has to do."""
        settings = self.settings
        if settings.sink.kind == "null":
            return "null sink: keeps time, plays nothing"
        if settings.sink.kind == "file":
            return f"writing {settings.sink.path}"
        try:
            return self._open_device(False)
        except DeviceError as error:
            if (settings.sink.kind == "device" or settings.device) and not settings.seek:
                raise
            return self._without(error)

    def _wanted(self, most: int) -> int:
        """The channels that decks go to, of a device that has so many."""
        decks = self._newest.decks.values()
        return min(most, CHANNELS, max((deck.out + 1 for deck in decks), default=2))

    def _open_device(self, fresh: bool) -> tuple[Stream, Device]:
        """fresh: PortAudio lists the devices anew, which ends all streams. Raises DeviceError."""
        settings, wanted = self.settings, self._wanted(CHANNELS)
        if fresh and self._input is not None:
            # A device that nobody asked for is not worth an input that plays.
            fresh = self.bus.device_ok != 0 and self._input.stand_aside()
        begin, latency = self.output.begin, settings.latency
        stream, device = open_output(
            settings.device, self.output, latency, begin=begin, channels=wanted, fresh=fresh
        )
        self._channels = max(2, min(wanted, device.channels))
        return stream, device

    def _widen_device(self) -> None:
        """Open the device again with more channels; the null clock keeps time meanwhile."""
        held, self._stream = self._stream, None
        self._use_null()
        self._search = _Search(self._open_device, self.settings.device, held, known=True)
        self._tell("channels", f"a deck goes to channels {self._channels + 1} and up: opening them")

    def _without(self, error: DeviceError) -> str:
        """The message when the null clock replaces a device."""
        if self.settings.seek:
            self._search = _Search(self._open_device, self.settings.device, None)
        elif "not installed" not in error.message:
            # Nothing was promised, so it is looked for quietly: one may be plugged in.
            self._search = _Search(
                self._open_device, self.settings.device, None, every=_Search.QUIET
            )
        reason = error.message.splitlines()[0]
        return f"{reason}: keeping time silently (record NAME still records)"

    def _begin(self, opened: tuple[Stream, Device] | str) -> None:
        if isinstance(opened, str):
            self._use_null()
            self.bus.device_ok = -1 if self.settings.seek else 0
            self._tell("started", opened)
        else:
            self._use(*opened, "started")

    def _use(self, stream: Stream, device: Device, kind: str) -> None:
        self._stop_null()  # the ring has one reader
        self.bus.called_at = time.monotonic()
        self.mix.channels = self._channels
        stream.start()
        self._stream, self._device = stream, device
        self.bus.device_ok = 1
        if self.bus.latency_s <= 0.0:
            self.bus.latency_s = float(stream.latency)
        more = f", {self._channels} channels" if self._channels > 2 else ""
        latency = float(stream.latency) * 1000
        self._tell(
            kind, f'device "{device.name}" {device.rate / 1000:g} kHz, {latency:.0f} ms{more}'
        )

    def _use_null(self) -> None:
        self._null = NullClock(self.output, self.bus)
        self._null.start()

    def _stop_null(self) -> None:
        if self._null is not None:
            self._null.stop()
            self._null = None

    def _lose(self, why: str) -> None:
        """The device is gone: the null clock keeps time until it is back."""
        lost, self._stream = self._stream, None
        self._use_null()
        self.bus.device_ok = -1
        self._search = _Search(self._open_device, self.settings.device, lost)
        self._tell("device-lost", f"the audio device is gone ({why}): keeping time, looking for it")

    def _look(self, search: _Search) -> None:
        if search.found is not None:
            self._search = None
            if self._input is not None:
                self._input.aside.clear()
            try:
                self._use(*search.found, "device-back")
            except DeviceError:
                self._use_null()
                self._search = _Search(self._open_device, self.settings.device, search.found[0])
        elif search.elsewhere():
            # PortAudio hangs in here, but a new process finds the device: hand over to one.
            self._tell("replace", "the audio device is back: changing over to it")
            self._closing.set()

    # --- the end -----------------------------------------------------------------------------

    def _wind_down(self) -> None:
        """Fades out, plays what is mixed, closes files and device."""
        mixer, state = self.mix.mixer, self.mix.newest
        gates = tuple(replace(gate, hushed=True) for gate in (Gate(), *state.gates))
        self.mix.newest = replace(state, gates=gates)
        until = time.monotonic() + 1.0
        target = mixer.decided + 2 * BLOCK
        while self.bus.played < target and time.monotonic() < until:
            time.sleep(0.005)
        self.output.counting = False
        self._done = True
        if self._search is not None:
            self._search.end()
        if self._input is not None:
            self._input.close()
        time.sleep(min(0.3, self.bus.latency_s))
        self._stop_null()
        if self._stream is not None:
            dropping = threading.Thread(target=drop, args=(self._stream,), daemon=True)
            dropping.start()
            dropping.join(1.0)
        for recorder in (self.mix.sink, self.mix.recorder, *self.mix.tracks.values()):
            if recorder is not None:
                recorder.close(timeout=30.0)
        self._tell("closed", "")
        self._send()
        self.bus.running = 0


class _Search:
    """Looks for a device again and again, on its own thread: PortAudio may hang on dead drivers.

    (With JACK it does: closing the stream of a server that died never returns.) Once it hangs,
    fresh interpreters look instead.

    opens: opens the device; its argument says whether PortAudio lists the devices anew. lost: the
    stream to let go first. known: the device is in the list that there is.
    """

    EVERY = 1.0  #: seconds between two looks, unless said otherwise
    QUIET = 10.0  #: the same, where no device has been promised
    HUNG = 3.0

    def __init__(
        self,
        opens: Callable[[bool], tuple[Stream, Device]],
        device: str | None,
        lost: Stream | None,
        every: float | None = None,
        known: bool = False,
    ) -> None:
        self._every = self.EVERY if every is None else every
        self.found: tuple[Stream, Device] | None = None
        self._opens, self._device, self._known = opens, device, known
        self._over = threading.Event()
        self._turn = time.monotonic()
        self._probe: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._run, args=(lost,), name="device search", daemon=True).start()

    def _run(self, lost: Stream | None) -> None:
        if lost is not None:
            drop(lost)
        if self._known:
            self._look(False)
        while self.found is None and not self._over.wait(self._every):
            self._look(True)

    def _look(self, fresh: bool) -> None:
        self._turn = time.monotonic()
        with contextlib.suppress(DeviceError):
            self.found = self._opens(fresh)

    def end(self) -> None:
        """Look no more."""
        self._over.set()

    def elsewhere(self) -> bool:
        """True when this process's PortAudio hangs while another process can see the device."""
        if time.monotonic() - self._turn < self._every + self.HUNG:
            return False
        if self._probe is None:
            self._probe = subprocess.Popen(
                command("demon_live.audio.devices:pick", self._device),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        status = self._probe.poll()
        if status is None:
            return False
        self._probe, self._turn = None, time.monotonic() - self.HUNG + 1.0
        return status == 0


def _urgent() -> None:
    """Real-time scheduling where it is granted (on Linux: the rtprio of the audio group).

    All threads inherit it, on purpose: they share Python's lock, and one that is starved while it
    holds the lock would starve the callback. Should one run wild, the kernel ends the process after
    two seconds, and the parent starts a new one.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError, ValueError):
        import resource

        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(5))
        resource.setrlimit(resource.RLIMIT_RTTIME, (2_000_000, 4_000_000))
        return
    # Linux weighs sessions before processes: the nice value of the session counts most.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-10")
    with contextlib.suppress(OSError, AttributeError):
        os.nice(-10)


def main() -> None:
    """Entry point of the child: reads Settings from stdin, plays until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    states = sys.stdin.buffer
    try:
        settings: Settings = pickle.load(states)
    except EOFError:  # a spare whose session ended
        return
    # Events have a descriptor of their own: whatever a driver prints must not get between them.
    events = os.dup(1)
    os.dup2(2, 1)
    with contextlib.suppress(AttributeError, OSError):  # Windows: a full pipe would wait
        os.set_blocking(events, False)
    sys.setswitchinterval(0.0005)
    _urgent()
    process = _Process(settings, states, events)
    gc.collect()
    gc.freeze()
    # Nothing here makes cycles in the steady state, and a collection would stop the callback.
    gc.disable()
    process.run()
    # A driver's threads may hang in their exit handlers; everything that matters is closed.
    os._exit(0)
