"""The instrument on a clock that only moves when it is told to: mixer and player in this thread.

One turn is: pump (sample the score), turn (admit, tick, place), mix one nominal tick of audio. The
nominal tick comes from the engine's manifest, so nothing depends on the machine's speed.

Threads: everything runs in the caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np

from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.core import RATES, Floats, Loop, MixPoints, Sound
from demon_live.errors import EngineError, UsageError
from demon_live.models.engine import Engine, open_engine
from demon_live.paths import shipped
from demon_live.runtime.generator import Generator
from demon_live.runtime.messages import (
    DropDeck,
    MoveLoop,
    PrepareLoop,
    SetTimbre,
    ToEngine,
)
from demon_live.runtime.seek import DryRunEngine
from demon_live.session.describe import db
from demon_live.session.output import Heard
from demon_live.session.session import Session
from demon_live.session.status import EngineStatus
from demon_live.session.tempo import Clock
from demon_live.sets.recorder import about_engine

__all__ = ["Offline", "OfflineRig"]

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
        self.controls: frozenset[str] | None = engine.controls
        self._timbres: set[str] = set()
        self.engine = engine
        self.notes: list[str] = []
        self._loops: dict[str, Floats] = {}
        self._heard = Heard()
        self.blocks = max(1, round(engine.manifest.tick_ms * RATES.sample_rate / 1000 / BLOCK))
        self.hollow = DryRunEngine(engine)
        self.player = Generator(
            cast(Engine, self.hollow),
            self.clock,
            open_loop=self.buffer,
            read_source=self.buffer,
            tick_samples=self.blocks * BLOCK,
            seed=seed,
            tell=self.notes.append,
        )

    def buffer(self, path: str) -> Floats:
        """The PCM that `add_loop` keeps under a name."""
        return self._loops[path]

    def send(self, message: ToEngine) -> None:
        self.player.handle(message)

    def add_loop(self, loop: Loop, first: Floats, source: Floats | None) -> None:
        buffer, original = f"{loop.deck}/{loop.epoch}", f"{loop.deck}/{loop.epoch}/source"
        # The loop that plays, the one that comes, and one more: who still reads an older one has
        # its array.
        mine = [name for name in self._loops if name.startswith(f"{loop.deck}/")]
        for old in mine[:-4]:
            del self._loops[old]
        self._loops[buffer] = first.copy()
        if source is not None:
            self._loops[original] = source
        self.mixer.add_loop(loop, self._loops[buffer])
        self.player.handle(PrepareLoop(loop, buffer, original if source is not None else None))

    def move_loop(self, loop: Loop) -> None:
        self.mixer.add_loop(loop, self._loops[f"{loop.deck}/{loop.epoch}"])
        self.player.handle(MoveLoop(loop))

    def drop_deck(self, deck: str, at: int) -> None:
        self.mixer.remove_deck(deck, at)
        self.player.handle(DropDeck(deck))

    def set_sounds(self, sounds: Collection[Sound]) -> None:
        for sound in sorted(sounds, key=lambda s: s.key):
            if sound.key not in self._timbres:
                self._timbres.add(sound.key)
                # Read and encoded before this returns.
                self._loops[sound.key] = sound.audio
                self.player.handle(SetTimbre(sound.key, sound.key, sound.name))
                del self._loops[sound.key]

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

        with Offline("imp") as loop:
            loop.session.load("patterns/00_hello.demon")
            loop.session.at(4, "denoise = .9 over 2")
            audio = loop.render(cycles=8)

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
        start = {"seed": seed, **about_engine(opened.manifest)}
        self.session = Session(self.rig, folders=folders, sets=sets, start=start)
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

    def skip(self) -> None:
        """A turn that is played but not mixed: for the way to a place in a set."""
        self._play()
        for _ in range(self.rig.blocks):
            self.rig.mixer.skip()

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
        pieces = [self.turn() for _ in range(-(-total // (self.rig.blocks * BLOCK)))]
        return np.concatenate(pieces)[:total]

    def close(self) -> None:
        """Close the engine, if it was opened here."""
        self.session.close()
        if self._owned:
            self.rig.player.close()

    def __enter__(self) -> Offline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
