"""Offline: the same instrument on a clock that only moves when it is told to.

One turn is: pump (sample the score), turn (admit, tick, place), mix one nominal tick of audio. The
nominal tick comes from the engine's manifest, so a render does not depend on the machine's speed:
two renders of a set give the same bytes.

Threads: everything runs in the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from demon_live.audio.files import write_audio
from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.backends import Engine, open_engine
from demon_live.core import RATES, Floats, MixPoints, Stage
from demon_live.errors import DemonError, EngineError, FileError, UsageError
from demon_live.perform import journal
from demon_live.perform.clock import Clock
from demon_live.perform.describe import db
from demon_live.perform.messages import DropDeck, PrepareStage, ToEngine
from demon_live.perform.player import Player
from demon_live.perform.rig import Heard
from demon_live.perform.session import Session
from demon_live.perform.view import EngineStatus
from demon_live.places import shipped

__all__ = ["Offline", "Rendered", "render", "replay_into"]

#: Turns after which priming gives up: a ring that gives nothing by then never will.
_PRIME_TURNS = 256


class _MixerClock:
    """Time as the mixer counts it: what it has decided cannot be changed any more."""

    def __init__(self, mixer: Mixer) -> None:
        self._mixer = mixer

    def now(self) -> int:
        return self._mixer.decided


class OfflineRig:
    """Mixer and player in this thread, loops in memory."""

    def __init__(self, engine: Engine, *, seed: int, stems: bool) -> None:
        self.mixer = Mixer(stems=stems)
        self.clock: Clock = _MixerClock(self.mixer)
        self.engine_name = engine.name
        self.device_name = "offline"
        self.ring = (engine.depth, engine.steps)
        self.engine = engine
        self.notes: list[str] = []
        self._loops: dict[str, Floats] = {}
        self._heard = Heard()
        self.blocks = max(1, round(engine.manifest.tick_ms * RATES.sample_rate / 1000 / BLOCK))
        self.player = Player(
            engine,
            self.clock,
            open_loop=self.loop,
            read_source=self.loop,
            tick_samples=self.blocks * BLOCK,
            seed=seed,
            tell=self.notes.append,
        )

    def loop(self, path: str) -> Floats:
        """The PCM that `add_stage` keeps under a name."""
        return self._loops[path]

    def send(self, message: ToEngine) -> None:
        self.player.handle(message)

    def add_stage(self, stage: Stage, first: Floats, source: Floats | None) -> None:
        loop, original = f"{stage.deck}/{stage.epoch}", f"{stage.deck}/{stage.epoch}/source"
        self._loops[loop] = first.copy()
        if source is not None:
            self._loops[original] = source
        self.mixer.add_stage(stage, self._loops[loop])
        self.player.handle(PrepareStage(stage, loop, original if source is not None else None))

    def drop_deck(self, deck: str, at: int) -> None:
        self.mixer.remove_deck(deck, at)
        self.player.handle(DropDeck(deck))

    def set_mix(self, deck: str, points: Mapping[str, MixPoints]) -> None:
        self.mixer.set_mix(deck, points)

    def set_heard(self, muted: frozenset[str], soloed: frozenset[str], at: int = 0) -> None:
        self._heard.tell(self.mixer, muted, soloed, at)

    def hush(self) -> None:
        self.mixer.hush()

    def wake(self) -> None:
        self.mixer.wake()

    def record(self, path: str) -> None:
        """A render is itself the recording: nothing to do."""

    def stop_record(self) -> None:
        """See `record`."""

    def heard(self) -> int:
        return self.clock.now()

    def check_prompt(self, prompt: str) -> list[str]:
        return self.engine.check_prompt(prompt)[1:]

    def engine_status(self) -> EngineStatus:
        return self.player.status()

    def meters(self) -> tuple[int, tuple[float, float]]:
        left, right = self.mixer.peaks
        return 0, (db(left), db(right))


class Offline:
    """A session with its rig, driven turn by turn: for renders, replays and scripts.

        with Offline("imp") as stage:
            stage.session.load("patterns/00_hello.demon")
            stage.session.at(4, "denoise = .9 over 2")
            audio = stage.render(cycles=8)

    engine: a name, which is opened and closed here, or an engine of the caller's.
    """

    def __init__(
        self,
        engine: str | Engine = "imp",
        *,
        backend: str = "auto",
        seed: int = 0,
        stems: bool = False,
        folders: tuple[Path, ...] = (),
        sets: Path | None = None,
    ) -> None:
        self._owned = isinstance(engine, str)
        opened = open_engine(engine, backend=backend) if isinstance(engine, str) else engine
        self.rig = OfflineRig(opened, seed=seed, stems=stems)
        folders = folders or (Path.cwd(), shipped("patterns"))
        self.session = Session(self.rig, folders=folders, sets=sets, start={"seed": seed})
        self._primed = False

    def prime(self) -> None:
        """Generate, with the clock standing still, until every deck has something to play."""
        if self.rig.player.prime(self.session.pump, _PRIME_TURNS):
            return
        told = f": {self.rig.notes[-1]}" if self.rig.notes else ""
        raise EngineError(f"the engine gives no sound{told}", hint="run: demon doctor")

    def _play(self) -> None:
        if not self._primed:
            self._primed = True
            self.prime()
        self.session.pump()
        self.rig.player.turn()

    def turn(self) -> Floats:
        """One nominal tick: float32 [480 * blocks, 2]."""
        self._play()
        return self.rig.mixer.render(self.rig.blocks)

    def stems(self) -> tuple[Floats, dict[str, Floats]]:
        """Like `turn`, with each deck beside the sum."""
        self._play()
        return self.rig.mixer.render_stems(self.rig.blocks)

    def render(self, *, cycles: float | None = None, seconds: float | None = None) -> Floats:
        """The next cycles or seconds, float32 [n, 2]."""
        begin = self.rig.mixer.position
        if (cycles is None) == (seconds is None):
            raise UsageError("give cycles or seconds")
        if seconds is not None:
            total = round(seconds * RATES.sample_rate)
        else:
            tempo = self.session.state.tempo
            total = tempo.sample_at(tempo.cycle_at(begin) + Fraction(cycles or 0)) - begin
        if total <= 0:
            return np.zeros((0, 2), np.float32)
        return _collect(self, lambda: None, total, stems=False, progress=None)[0]

    def close(self) -> None:
        """Close the engine, if it was opened here."""
        self.session.close()
        if self._owned:
            self.rig.player.close()

    def __enter__(self) -> Offline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def replay_into(offline: Offline, recording: journal.Recording) -> Callable[[], None]:
    """A function that applies the causes whose time has come; call it before each turn."""
    events = list(recording.events)

    def step() -> None:
        now = offline.rig.clock.now()
        while events and events[0].sample <= now:
            event = events.pop(0)
            try:
                offline.session.repeat(event, now=event.sample)
            except DemonError as error:
                raise FileError(
                    f"the set cannot be replayed at sample {event.sample}: {error}",
                    hint="are the files that it names still there?",
                ) from error

    return step


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a render gave. audio: float32 [n, 2]. stems: deck -> float32 [n, 2]."""

    path: Path | None
    audio: Floats
    stems: Mapping[str, Floats] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def render(
    path: Path | str,
    out: Path | str | None = None,
    *,
    cycles: float | None = None,
    seconds: float | None = None,
    engine: str | Engine = "imp",
    backend: str = "auto",
    seed: int | None = None,
    stems: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Rendered:
    """Render a score or a set to a WAV or FLAC file (or, without `out`, to an array).

    cycles or seconds: how much; a score gives 8 cycles by default, a set its own length.
    seed: added to every seed of the score; a set brings its own. stems: one more file a deck.
    progress: told the part done, 0..1. Raises DemonError.
    """
    path = Path(path)
    recording = journal.load(path) if path.name.endswith(journal.SUFFIX) else None
    if seed is None:
        seed = int(recording.start.get("seed", 0)) if recording else 0
    with Offline(engine, backend=backend, seed=seed, stems=stems) as offline:
        warnings: tuple[str, ...] = ()
        step: Callable[[], None] = lambda: None  # noqa: E731
        if recording is not None:
            step = replay_into(offline, recording)
            step()
        else:
            warnings = offline.session.load(path).warnings
        total = _length(offline, recording, cycles, seconds)
        audio, parts = _collect(offline, step, total, stems, progress)
    if out is None:
        return Rendered(None, audio, parts, warnings)
    out = Path(out)
    write_audio(out, audio)
    for deck, part in parts.items():
        write_audio(out.with_name(f"{out.stem}-{deck}{out.suffix}"), part)
    return Rendered(out, audio, parts, warnings)


def _length(
    offline: Offline,
    recording: journal.Recording | None,
    cycles: float | None,
    seconds: float | None,
) -> int:
    if cycles is not None and seconds is not None:
        raise UsageError("give cycles or seconds, not both")
    if seconds is not None:
        total = round(seconds * RATES.sample_rate)
    elif cycles is not None or recording is None:
        tempo = offline.session.state.tempo
        total = tempo.sample_at(Fraction(8 if cycles is None else cycles))
    else:
        total = recording.length
    if total <= 0:
        raise UsageError("nothing to render: the length is 0", hint="give --cycles or --seconds")
    return total


def _collect(
    offline: Offline,
    step: Callable[[], None],
    total: int,
    stems: bool,
    progress: Callable[[float], None] | None,
) -> tuple[Floats, dict[str, Floats]]:
    pieces: list[Floats] = []
    parts: list[dict[str, Floats]] = []
    done = 0
    while done < total:
        step()
        if stems:
            piece, part = offline.stems()
            parts.append(part)
        else:
            piece = offline.turn()
        pieces.append(piece)
        done += len(piece)
        if progress is not None:
            progress(min(1.0, done / total))
    audio = np.concatenate(pieces)[:total]
    return audio, dict(_joined(parts, pieces, total)) if stems else {}


def _joined(
    parts: list[dict[str, Floats]], pieces: list[Floats], total: int
) -> Iterator[tuple[str, Floats]]:
    for deck in sorted({d for part in parts for d in part}):
        rows = [
            part.get(deck, np.zeros_like(piece)) for part, piece in zip(parts, pieces, strict=True)
        ]
        yield deck, np.concatenate(rows)[:total]
