"""The instrument as a whole: audio process, engine process, session, hot reload.

    main     prompt, compile, sample the lanes for the time ahead     (this process)
    engine   ring, decode, placement into the loops                   (runtime.engine_main)
    spare    another engine that waits for the death of the first     (runtime.supervisor)
    audio    mixer, limiter, device                                   (audio.speaker)

Threads: `Live` is made and closed by one thread. One thread of its own pumps the session.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from demon_live.audio.pcmring import Bus
from demon_live.audio.sound_input import sound_input
from demon_live.audio.speaker import Speaker
from demon_live.control.midi_input import Controllers
from demon_live.control.out import LOOKAHEAD, Out, resolve
from demon_live.control.sync import Sync
from demon_live.core import RATES, EngineState, EngineStatus, Floats, MixState
from demon_live.errors import DemonError, EngineError, UsageError
from demon_live.models.conditioning import check_prompt, lexicon_of
from demon_live.models.manifest import Manifest, load_manifest
from demon_live.paths import runtime_dir, sets_dir, shipped
from demon_live.runtime.doors import Start, doors
from demon_live.runtime.memory import Trimmer
from demon_live.runtime.options import EngineOptions, parse_remote, playable
from demon_live.runtime.pcm_files import PcmFolder, sweep
from demon_live.runtime.seek import restore
from demon_live.runtime.supervisor import EngineSupervisor
from demon_live.session.assets import Assets
from demon_live.session.inputs import Inputs
from demon_live.session.score_files import Reloader, Watcher, is_score
from demon_live.session.session import Session
from demon_live.session.status import db
from demon_live.session.tempo import Playhead
from demon_live.sets.journal import RULES, Recording
from demon_live.sets.recorder import about_engine, notices
from demon_live.sets.session_log import Interrupted, SessionLog, recently
from demon_live.sets.set_files import bounds, causes, folder_of

log = logging.getLogger(__name__)

#: Seconds between two samplings of the score, and between two returns of freed memory.
_PUMP_EVERY, _TRIM_EVERY = 0.08, 30.0
_numbers = itertools.count(1)


class _LiveOutput:
    """Engine process, audio process and the playhead of their bus, as the session sees them.

    Until `start` what is published only waits: a session may be restored first. engine: as it was
    asked for; lexicon: the same without its machine.
    """

    def __init__(self, folder: Path, engine: str, lexicon: str, manifest: Manifest) -> None:
        self.folder = folder
        self._lexicon, self.engine_name = lexicon, manifest.name
        self._followed, self._started = engine, manifest.path
        self.device_name = "starting"
        self.controls: frozenset[str] | None = manifest.controls
        self.start_at = 0
        self.playhead: Playhead = self
        self.supervisor: EngineSupervisor | None = None
        self.speaker: Speaker | None = None
        self._engine, self._mix = EngineState(), MixState()
        self._files = PcmFolder(folder)

    def now(self) -> int:
        """The next output sample that is not decided."""
        return self.start_at if self.speaker is None else int(self.speaker.bus.mixed)

    def start(self, sink: str, device: str | None, sound_in: str | None) -> None:
        """Begin to play what was published last. Raises DemonError."""
        self._files.start()
        self.speaker = Speaker.start(
            sink,
            self.folder,
            device=device,
            sound_input=sound_in,
            state=self._mix,
            start=self.start_at,
            spare=os.environ.get("DEMON_SPARE", "1") != "0",
        )
        self.device_name = self.speaker.first.text
        self.publish(self._engine, self._mix)

    def reserve(self, audio: Mapping[str, Floats]) -> None:
        self._files.add(audio)

    def publish(self, engine: EngineState, mix: MixState) -> None:
        self._engine, self._mix = engine, mix
        self._files.keep(engine, mix)
        if self.speaker is None:
            return
        self.speaker.publish(mix)
        if self.supervisor is not None:
            self.supervisor.publish(engine)

    def heard(self) -> int:
        return 0 if self.speaker is None else self.speaker.bus.heard()

    def find_engine(self, name: str, base: str) -> str:
        """See `Session`: a shipped engine, or the path of a TOML. Raises DemonError."""
        if name.endswith(".toml"):
            beside = Path(base) / name
            name = str((beside if beside.is_file() else Path(name)).absolute())
        elif ":" in name:
            raise EngineError(
                "a score names an engine of this machine: a name, or the path of a TOML",
                hint=f"leave, and start with it: demon live --engine {name}",
            )
        manifest = playable(name, "auto", False)
        return "" if manifest.path == self._started else name

    def follow(self) -> None:
        """Another engine may have taken over: its name, its controls, its words."""
        supervisor = self.supervisor
        if supervisor is None:
            return
        self.engine_name = supervisor.description or self.engine_name
        if supervisor.engine != self._followed:
            self._followed = supervisor.engine
            elsewhere = parse_remote(supervisor.engine)
            self._lexicon = supervisor.engine if elsewhere is None else elsewhere.engine
            self.controls = load_manifest(self._lexicon).controls

    def check_prompt(self, prompt: str) -> list[str]:
        return check_prompt(prompt, lexicon_of(self._lexicon))[1:]

    def engine_status(self) -> EngineStatus:
        supervisor = self.supervisor
        return supervisor.status if supervisor is not None else EngineStatus(alive=False)

    def meters(self) -> tuple[int, tuple[float, float]]:
        if self.speaker is None:
            return 0, (-120.0, -120.0)
        bus = self.speaker.bus
        return int(bus.dry), (db(bus.peak_l), db(bus.peak_r))


class Live:
    """Plays scores. A context manager; `session` is the door for everything else.

    Args:
        paths: score files, or folders of which every score plays; their folders are watched.
        engine: a name, or ray://HOST/NAME for one on another machine.
        backend, engine_device: as in `models.engine.open_engine`.
        device: part of the audio device's name.
        audio: auto, device, null or file:PATH.
        input: part of the name of a device to play into, file:PATH, loop:PATH or none.
        record: name of a set to record.
        seed: added to every seed.
        depth: generations in flight while the score sets none; None = the engine's.
        gpus: that play as one, each with the engine's depth.
        watch: hot reload.
        replay: a set to play instead of scores, `speed` times as fast, from cycle `start` on.
        random_weights: the true shapes without the weights.
        python: pattern files in Python may run.
        resume: a session that died, to go on with.
        trust: a set that was not recorded here may read sources anywhere.
        name: what `demon send`, `demon attach` and `connect` call it; None: they do not reach it.
        osc: [HOST:]PORT to listen at.
        web: port of a web page to watch; 0 is the usual one.
        osc_to: HOST:PORT of other machines that scores may send OSC to, and that get all events.
        lookahead: seconds that OSC leaves ahead of the sound at most.

    Raises:
        DemonError: nothing can be played.
    """

    def __init__(
        self,
        paths: Iterable[Path | str] = (),
        *,
        engine: str = "imp",
        backend: str = "auto",
        engine_device: str = "auto",
        device: str | None = None,
        audio: str | None = None,
        input: str | None = None,
        record: str | None = None,
        seed: int = 0,
        depth: int | None = None,
        gpus: int = 1,
        watch: bool = True,
        replay: Recording | None = None,
        speed: float = 1.0,
        start: float = 0,
        random_weights: bool = False,
        python: bool = False,
        resume: Interrupted | None = None,
        trust: bool = False,
        name: str | None = None,
        osc: str | None = None,
        web: int | None = None,
        osc_to: Iterable[str] = (),
        lookahead: float = LOOKAHEAD,
    ) -> None:
        if speed <= 0:
            raise UsageError(f"speed must be more than 0, this is {speed:g}")
        manifest = playable(engine, engine_device, random_weights, gpus)
        outside = resolve(osc_to)
        sweep(runtime_dir())
        self._folder = runtime_dir() / f"live-{os.getpid()}-{next(_numbers)}"
        self._folder.mkdir(mode=0o700)
        elsewhere = parse_remote(engine)
        given = engine if elsewhere is None else elsewhere.engine
        self._output = _LiveOutput(self._folder, engine, given, manifest)
        self._wake, self._closing = threading.Event(), threading.Event()
        self._doors = contextlib.ExitStack()
        #: Set when another program asks for the end.
        self.ended = threading.Event()
        self._input = sound_input(input, self._folder)
        about = {"seed": seed, **about_engine(manifest, backend)}
        self._out: Out | None = None
        self.session = self._new_session(about, python, replay, resume, trust, tuple(outside))
        self._sync = Sync(self.session)
        self._reloader = Reloader(self.session)
        self._watcher: Watcher | None = None
        self._log: SessionLog | None = None
        self._pump: threading.Thread | None = None
        self._trimmer = Trimmer(_TRIM_EVERY)
        self._events = deque(causes(replay, trust) if replay is not None else ())
        for line in notices(replay, manifest) if replay is not None else ():
            self.session.tell(line)
        self._speed = speed
        options = EngineOptions(
            engine, backend, engine_device, None, depth, None, seed, random_weights, gpus
        )
        try:
            # The engine takes longest to open, so it is started first; it looks for the bus last.
            self._output.supervisor = EngineSupervisor(
                self._folder,
                options,
                self.session.tell,
                lambda made: self.session.scripts.emit("generation", made),
                to_bar=self._to_bar,
            )
            self._log = self._begin_log(resume is None)
            if resume is not None:
                self._restore(resume)
            if start:
                self._seek(Fraction(start))
            self._load([Path(p) for p in paths])
            self._replay_due()
            heard = self._input.name if self._input is not None else None
            self._output.start(audio or ("device" if device else "auto"), device, heard)
            watched = [Path(p) for p in (*paths, *(resume.scores if resume else ()))]
            self._begin(watched, watch, record)
            self._out = Out(self.session, self._clock, outside=outside, lookahead=lookahead)
            self.session.out_counts = self._out.counts
            self._open_doors(Start(name, {"engine": engine}, osc=osc, web=web))
        except BaseException:
            self.close()
            raise

    def _new_session(
        self,
        about: Mapping[str, object],
        python: bool,
        replay: Recording | None,
        resume: Interrupted | None,
        trust: bool,
        outside: tuple[str, ...],
    ) -> Session:
        made = resume.recording if resume is not None else replay
        rules = made.rules if made is not None else RULES
        copies = folder_of(made.path) if made is not None and made.path else None
        within = bounds(replay.path, trust) if replay is not None else None
        # MIDI is opened when a score first names a controller; DEMON_MIDI: part of its name.
        port = os.environ.get("DEMON_MIDI", "")
        return Session(
            self._output,
            assets=Assets((Path.cwd(), shipped("patterns")), within=within, copies=copies),
            sets=sets_dir(),
            start={"rules": rules, **about},
            inputs=Inputs(lambda hear: Controllers(hear, port)),
            sound_in=self._input if replay is None else None,
            python=python,
            changed=self._wake.set,
            outside=outside,
            written=lambda path, text: self._reloader.written(path, text),
        )

    def _clock(self) -> Bus | None:
        """When the audio process plays; None: it does not yet."""
        return self._output.speaker.bus if self._output.speaker is not None else None

    def _begin_log(self, look_back: bool) -> SessionLog | None:
        """Every cause goes to a log from now on. A state folder that cannot be written costs only
        that."""
        self.session.journal.tell = self.session.tell
        try:
            before = recently() if look_back else ""
            kept = SessionLog(self.session.journal, self.session.tell)
        except (DemonError, OSError) as error:
            self.session.tell(f"this session cannot be resumed if it dies: {error}")
            return None
        self.session.assets.takes.folder = kept.files
        if before:
            self.session.tell(before)
        return kept

    def _restore(self, past: Interrupted) -> None:
        """Everything as it was, to be played from the next bar on."""
        self._output.start_at = restore(self.session, past)
        # What was saved meanwhile plays, too.
        for path in past.scores:
            if path.is_file():
                self._reloader.resume(path)

    def _to_bar(self) -> float:
        """Seconds from the playhead to the next bar."""
        tempo, now = self.session.state.tempo, self._output.now()
        bar = tempo.sample_at(Fraction(int(tempo.cycle_at(now)) + 1))
        return max(0, bar - now) / RATES.sample_rate

    def _seek(self, cycle: Fraction) -> None:
        """Do what a set says until it reaches `cycle`, at once; the playhead begins there."""
        session = self.session
        while self._events:
            at = session.state.tempo.sample_at(cycle)
            if session.state.decks and at < self._events[0].sample:
                break
            event = self._events.popleft()
            session.repeat(event, now=event.sample)
        self._output.start_at = session.state.tempo.sample_at(cycle)

    def _load(self, paths: list[Path]) -> None:
        """The first scores play from the first sample. A broken one raises: nothing plays yet."""
        for path in paths:
            files = [path]
            if path.is_dir():
                python = self.session.python
                known = (p for p in path.iterdir() if is_score(p))
                files = sorted(p for p in known if python or p.suffix == ".demon")
            for file in files:
                for warning in self._reloader.load(file).warnings:
                    self.session.tell(warning)

    def _begin(self, paths: list[Path], watch: bool, record: str | None) -> None:
        if watch and paths:
            folders = [p if p.is_dir() else p.parent for p in paths]
            self._watcher = Watcher(self._reloader, folders)
            self._watcher.start()
        self._pump = threading.Thread(target=self._run, name="pump", daemon=True)
        self._pump.start()
        if record:
            self.session.apply(f"record '{record}'", "<start>")

    def _open_doors(self, start: Start) -> None:
        if (start.name, start.osc, start.web) != (None, None, None):
            self.info = self._doors.enter_context(doors(self, start, self.ended))

    @property
    def engine(self) -> EngineSupervisor:
        """The engine process."""
        assert self._output.supervisor is not None
        return self._output.supervisor

    @property
    def speaker(self) -> Speaker:
        """The audio process."""
        assert self._output.speaker is not None
        return self._output.speaker

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._replay_due()
                self.session.pump()
                self._sync.turn(self._clock())
                if self._out is not None:
                    self._out.wake()
                self._hear()
                if self._log is not None:
                    self._log.turn(self._output.now())
                self._trimmer.turn()
            # The sampling wall: a lane that fails must not end all others; the engine keeps its
            # last block, so the sound goes on as it was.
            except Exception as error:
                log.warning("pump", exc_info=True)
                self._tell_once(f"sampling the score failed: {error}")
            self._wake.wait(_PUMP_EVERY)
            self._wake.clear()

    def _tell_once(self, text: str) -> None:
        if text not in self.session.events(0)[1]:
            self.session.tell(text)

    def _hear(self) -> None:
        self._output.follow()
        self.speaker.check()
        for event in self.speaker.events():
            if event.kind in ("started", "device-back"):
                self._output.device_name = event.text
            if event.kind in ("recording", "record-failed", "lost"):
                self.session.recorder.note_sound(event.path, event.kind != "recording")
            if event.kind not in ("started", "closed"):
                self.session.tell(event.text)

    def _replay_due(self) -> None:
        # Time since the beginning, as fast as it was asked for.
        begun = self._output.start_at
        due = begun + (self._output.now() - begun) * self._speed
        while self._events and self._events[0].sample <= due:
            event = self._events.popleft()
            if event.kind == "end":
                self.session.tell("the set is over; what plays goes on")
                self.session.captures.input = self._input
            try:
                for line in self.session.repeat(event).messages:
                    self.session.tell(line)
            except DemonError as error:
                self.session.tell(str(error))

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until something is true or the time is over; for scripts. True if it came true."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() >= end:
                return False
            self._closing.wait(0.02)
        return True

    def close(self) -> None:
        """End the sound with a fade, close recordings and both processes. Twice is fine."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._doors.close()
        self._wake.set()
        if self._watcher is not None:
            self._watcher.close()
        if self._pump is not None:
            self._pump.join(2)
        self._sync.close()
        if self._out is not None:
            self._out.close()
        self.session.close()
        if self._log is not None:
            self._log.close(self._output.now())
        if self._output.speaker is not None:
            self._output.speaker.close()
        if self._output.supervisor is not None:
            self._output.supervisor.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
