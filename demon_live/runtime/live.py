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
from collections.abc import Callable, Collection, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from demon_live.audio.pcmring import LoopBuffer
from demon_live.audio.speaker import Speaker
from demon_live.control.midi_input import Controllers
from demon_live.control.sync import Sync
from demon_live.core import Floats, Loop, MixPoints, Sound
from demon_live.errors import DemonError, UsageError
from demon_live.models.conditioning import check_prompt, lexicon_of
from demon_live.models.listing import require_files
from demon_live.models.manifest import load_manifest
from demon_live.paths import runtime_dir, sets_dir, shipped
from demon_live.runtime.memory import Trimmer
from demon_live.runtime.messages import (
    DropDeck,
    DropTimbre,
    MoveLoop,
    PrepareLoop,
    SetTimbre,
    ToEngine,
)
from demon_live.runtime.options import EngineOptions, parse_remote, require_ray
from demon_live.runtime.supervisor import EngineSupervisor
from demon_live.session.describe import db
from demon_live.session.output import Heard
from demon_live.session.score_files import Reloader, Watcher, is_score
from demon_live.session.session import Session
from demon_live.session.status import EngineStatus
from demon_live.session.tempo import Clock
from demon_live.sets.journal import Recording
from demon_live.sets.recorder import about_engine
from demon_live.sets.session_log import Held, Interrupted, SessionLog, recently, restore
from demon_live.sets.set_files import folder_of
from demon_live.sets.trusted import bounds

__all__ = ["Live"]

log = logging.getLogger(__name__)

#: Seconds between two samplings of the score, and between two returns of freed memory.
_PUMP_EVERY, _TRIM_EVERY = 0.08, 30.0
#: Timbres that nothing asks for any more and that are kept all the same.
_SPARE_TIMBRES = 4
_numbers = itertools.count(1)


class _LiveRig:
    """Bus clock, engine process and audio process, as the session sees them."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder
        self.engine_name = engine
        self.device_name = "starting"
        self.ring = (4, 8)
        self.controls: frozenset[str] | None = None
        #: While a session is restored: nothing is written or sent yet.
        self.held: Held | None = None
        self.start_at = 0
        self.clock: Clock = self
        self.host: EngineSupervisor | None = None
        self.speaker: Speaker | None = None
        self._lexicon = engine
        self._early: list[tuple[Loop, str]] = []
        self._files: dict[str, deque[Path]] = {}
        #: Of each timbre that the engine was told, its PCM; those that are asked for come last.
        self._timbres: dict[str, Path] = {}
        self._wanted: Collection[Sound] = ()
        self._heard = Heard()

    def now(self) -> int:
        """The next output sample that is not decided."""
        return self.start_at if self.speaker is None else int(self.speaker.bus.mixed)

    def start(self, sink: str, bus_path: Path, device: str | None) -> None:
        """The sound begins, with the loops that were told before. Raises DemonError."""
        self.speaker = Speaker.start(
            sink, bus_path, device=device, loops=self._early, start=self.start_at
        )
        self.device_name = self.speaker.first.text

    def send(self, message: ToEngine) -> None:
        if self.held is not None:
            self.held.note(message)
        elif self.host is not None:
            self.host.send(message)

    def add_loop(self, loop: Loop, first: Floats, source: Floats | None) -> None:
        if self.held is not None:
            self.held.add_loop(loop, first, source)
            return
        buffer = self._write(loop, "loop", first)
        original = self._write(loop, "source", source) if source is not None else None
        if self.speaker is None:
            self._early.append((loop, str(buffer)))
        else:
            self.speaker.add_loop(loop, buffer)
        self.send(PrepareLoop(loop, str(buffer), str(original) if original else None))

    def set_sounds(self, sounds: Collection[Sound]) -> None:
        self._wanted = sounds
        if self.held is not None:
            return
        for sound in sounds:
            path = self._timbres.pop(sound.key, None)
            if path is None:
                path = self.folder / f"timbre-{sound.key}"
                _write_pcm(path, sound.audio)
                self.send(SetTimbre(sound.key, str(path), sound.name))
            self._timbres[sound.key] = path
        # The engine may still be reading one of the last few; older files only cost memory.
        for key in list(self._timbres)[: -len(sounds) - _SPARE_TIMBRES]:
            self.send(DropTimbre(key))
            with contextlib.suppress(OSError):
                self._timbres.pop(key).unlink()

    def resume_sounds(self) -> None:
        """Tell what was named while nothing was sent."""
        self.set_sounds(self._wanted)

    def _write(self, loop: Loop, what: str, audio: Floats) -> Path:
        path = self.folder / f"{loop.deck}-{loop.epoch}.{what}"
        _write_pcm(path, audio)
        # The loop that plays, the one that comes, and their sources; older files only cost memory.
        files = self._files.setdefault(loop.deck, deque())
        files.append(path)
        while len(files) > 6:
            with contextlib.suppress(OSError):
                files.popleft().unlink()
        return path

    def move_loop(self, loop: Loop) -> None:
        if self.held is not None:
            self.held.move_loop(loop)
            return
        if self.speaker is not None:
            buffer = self.folder / f"{loop.deck}-{loop.epoch}.loop"
            self.speaker.add_loop(loop, buffer)
        self.send(MoveLoop(loop))

    def drop_deck(self, deck: str, at: int) -> None:
        if self.held is not None:
            self.held.drop_deck(deck)
            return
        self._early = [row for row in self._early if row[0].deck != deck]
        if self.speaker is not None:
            self.speaker.remove_deck(deck, at)
        self.send(DropDeck(deck))

    def set_mix(self, deck: str, points: Mapping[str, MixPoints]) -> None:
        if self.speaker is not None:
            self.speaker.set_mix(deck, points)

    def set_heard(self, muted: frozenset[str], soloed: frozenset[str], at: int = 0) -> None:
        if self.speaker is None:
            return
        self._heard.tell(self.speaker, muted, soloed, at)

    def hush(self) -> None:
        if self.speaker is not None:
            self.speaker.hush()

    def wake(self) -> None:
        if self.speaker is not None:
            self.speaker.wake()

    def record(self, path: str) -> None:
        if self.speaker is not None:
            self.speaker.record(path)

    def stop_record(self) -> None:
        if self.speaker is not None:
            self.speaker.stop_record()

    def heard(self) -> int:
        return 0 if self.speaker is None else self.speaker.bus.heard()

    def check_prompt(self, prompt: str) -> list[str]:
        return check_prompt(prompt, lexicon_of(self._lexicon))[1:]

    def engine_status(self) -> EngineStatus:
        return self.host.status if self.host is not None else EngineStatus(alive=False)

    def meters(self) -> tuple[int, tuple[float, float]]:
        if self.speaker is None:
            return 0, (-120.0, -120.0)
        bus = self.speaker.bus
        return int(bus.dry), (db(bus.peak_l), db(bus.peak_r))


def _write_pcm(path: Path, audio: Floats) -> None:
    ring = LoopBuffer.create(path, len(audio))
    ring.audio[:] = audio
    ring.close()


def _sweep(folder: Path) -> None:
    """Remove what sessions that were killed have left: their loops lie in memory."""
    for old in folder.glob("live-*-*"):
        with contextlib.suppress(ValueError, OSError):
            pid = int(old.name.split("-")[1])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                shutil.rmtree(old, ignore_errors=True)


class Live:
    """Plays scores. A context manager; `session` is the door for everything else.

    paths: score files, or folders of which every score plays; their folders are watched.
    engine: a name, or ray://HOST/NAME for one on another machine. backend, engine_device: as in
    `backends.open_engine`. device: part of the audio device's name. audio: auto | device | null |
    file:PATH. record: name of a set. replay: a set to play instead of scores, `speed` times as
    fast, from cycle `start` on. python: pattern files in Python may run. resume: a session that
    died, to go on with. trust: a set that was not recorded here may read sources anywhere.
    Raises DemonError when nothing can be played.
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
        record: str | None = None,
        seed: int = 0,
        depth: int | None = None,
        watch: bool = True,
        replay: Recording | None = None,
        speed: float = 1.0,
        start: float = 0,
        random_weights: bool = False,
        python: bool = False,
        resume: Interrupted | None = None,
        trust: bool = False,
    ) -> None:
        if speed <= 0:
            raise UsageError(f"speed must be more than 0, this is {speed:g}")
        elsewhere = parse_remote(engine)
        manifest = load_manifest(engine if elsewhere is None else elsewhere.engine)
        if elsewhere is not None:
            require_ray()
        elif not random_weights:
            require_files(manifest)
        _sweep(runtime_dir())
        self._folder = runtime_dir() / f"live-{os.getpid()}-{next(_numbers)}"
        self._folder.mkdir(mode=0o700)
        self._rig = _LiveRig(self._folder, manifest.name)
        self._rig.ring = (depth or manifest.depth, manifest.steps)
        self._rig.controls = manifest.controls
        self.session = Session(
            self._rig,
            folders=(Path.cwd(), shipped("patterns")),
            sets=sets_dir(),
            start={"seed": seed, **about_engine(manifest)},
        )
        self.session.python = python
        self.session.within = bounds(replay.path, trust) if replay is not None else None
        if replay is not None and replay.path is not None:
            self.session.kept.folder = folder_of(replay.path)
        self._sync = Sync(self.session)
        # MIDI is opened when a score first names a controller; DEMON_MIDI: part of its name.
        port = os.environ.get("DEMON_MIDI", "")
        self.session.open_controllers = lambda: Controllers(self.session.hear, port)
        self._reloader = Reloader(self.session)
        self.session.written = self._reloader.loaded
        self._watcher: Watcher | None = None
        self._log: SessionLog | None = None
        self._closing = threading.Event()
        self._wake = threading.Event()
        self.session.changed = self._wake.set
        self._pump: threading.Thread | None = None
        self._trimmer = Trimmer(_TRIM_EVERY)
        self._events = deque(replay.events if replay is not None else ())
        self._speed = speed
        options = EngineOptions(
            engine, backend, engine_device, depth=depth, seed=seed, random_weights=random_weights
        )
        bus_path = self._folder / "bus"
        sink = audio or ("device" if device else "auto")
        try:
            # The engine takes longest to open, so it is started first; it looks for the bus last.
            self._rig.host = EngineSupervisor(str(bus_path), options, self.session.tell)
            self._log = self._begin_log(resume is None)
            if resume is not None:
                self._restore(resume)
            if start:
                self._rewind(Fraction(start))
            self._load([Path(p) for p in paths])
            self._replay_due()
            self._rig.start(sink, bus_path, device)
            state = self.session.state
            if state.muted or state.soloed:
                self._rig.set_heard(state.muted, state.soloed)
            if state.hushed:
                self._rig.hush()
            watched = [Path(p) for p in (*paths, *(resume.scores if resume else ()))]
            self._begin(watched, watch, record)
        except BaseException:
            self.close()
            raise

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
        if before:
            self.session.tell(before)
        return kept

    def _restore(self, past: Interrupted) -> None:
        """Everything as it was, to be played from the next bar on."""
        held = self._rig.held = Held()
        try:
            self._rig.start_at = restore(self.session, past, held)
        finally:
            self._rig.held = None
        self._prepare(held)
        # What was saved meanwhile plays, too.
        for path in past.scores:
            if path.is_file():
                self._reloader.touch(path)

    def _prepare(self, held: Held) -> None:
        if held.ring is not None:
            self._rig.send(held.ring)
        self._rig.resume_sounds()
        for loop, first, source in held.rows(self._rig.start_at):
            self._rig.add_loop(loop, first, source)

    def _rewind(self, cycle: Fraction) -> None:
        """The causes of a set until it reaches `cycle`, at once; its clock begins there."""
        held, session = Held(), self.session
        self._rig.held = held
        try:
            while self._events:
                at = session.state.tempo.sample_at(cycle)
                if session.state.decks and at < self._events[0].sample:
                    break
                event = self._events.popleft()
                session.repeat(event, now=event.sample)
        finally:
            self._rig.held = None
        self._rig.start_at = session.state.tempo.sample_at(cycle)
        self._prepare(held)

    def _load(self, paths: list[Path]) -> None:
        """The first scores play from the first sample. A broken one raises: nothing plays yet."""
        for path in paths:
            files = [path]
            if path.is_dir():
                python = self.session.python
                known = (p for p in path.iterdir() if is_score(p))
                files = sorted(p for p in known if python or p.suffix == ".demon")
            for file in files:
                outcome = self.session.load(file)
                self._reloader.loaded(file)
                for warning in outcome.warnings:
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

    @property
    def engine(self) -> EngineSupervisor:
        """The engine process."""
        assert self._rig.host is not None
        return self._rig.host

    @property
    def speaker(self) -> Speaker:
        """The audio process."""
        assert self._rig.speaker is not None
        return self._rig.speaker

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._replay_due()
                self.session.pump()
                self._sync.turn(self._rig.speaker.bus if self._rig.speaker is not None else None)
                self._hear()
                if self._log is not None:
                    self._log.turn(self._rig.now())
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
        if self._rig.host is not None and self._rig.host.description:
            self._rig.engine_name = self._rig.host.description
        for event in self.speaker.events():
            if event.kind in ("started", "device-back"):
                self._rig.device_name = event.text
            if event.kind not in ("started", "closed"):
                self.session.tell(event.text)

    def _replay_due(self) -> None:
        # Time since the beginning, as fast as it was asked for.
        begun = self._rig.start_at
        due = begun + (self._rig.now() - begun) * self._speed
        while self._events and self._events[0].sample <= due:
            event = self._events.popleft()
            if event.kind == "end":
                self.session.tell("the set is over; what plays goes on")
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
        self._wake.set()
        if self._watcher is not None:
            self._watcher.close()
        if self._pump is not None:
            self._pump.join(2)
        self._sync.close()
        self.session.close()
        if self._log is not None:
            self._log.close(self._rig.now())
        if self._rig.speaker is not None:
            self._rig.speaker.close()
        if self._rig.host is not None:
            self._rig.host.close()
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
