"""The instrument with a playhead that moves only when it is advanced, all in one thread.

One turn is: pump (sample the score), turn (admit, tick, place), mix one nominal tick of audio. The
nominal tick comes from the engine's manifest, so nothing depends on the machine's speed.

Threads: everything runs in the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.audio.sound_input import FileInput, SoundInput
from demon_live.core import RATES, EngineState, EngineStatus, Floats, Generation, MixState
from demon_live.errors import EngineError, UsageError
from demon_live.lang.dsl_pattern import exact
from demon_live.models.engine import Engine, open_engine
from demon_live.paths import shipped
from demon_live.runtime.generator import Generator
from demon_live.runtime.pcm_files import named_files
from demon_live.session.assets import Assets
from demon_live.session.inputs import Inputs
from demon_live.session.session import Session
from demon_live.session.status import db
from demon_live.session.tempo import Playhead, TempoMap
from demon_live.sets.journal import RULES
from demon_live.sets.recorder import about_engine

#: Turns after which priming gives up: a ring that gives nothing by then never will.
_PRIME_TURNS = 256
#: Generations that `Offline.generations` keeps.
_KEPT = 256


class _MixerPlayhead:
    """Time as the mixer counts it: what it has decided cannot be changed any more."""

    def __init__(self, mixer: Mixer) -> None:
        self._mixer = mixer

    def now(self) -> int:
        return self._mixer.decided


class DryRunEngine:
    """An engine that costs nothing while `dry` is true: its sound is zeros."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.dry = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def velocity(self, x: Any, t: Any, rows: Sequence[Any]) -> Any:
        """float32 [B, T, C]."""
        return x * 0 if self.dry else self._engine.velocity(x, t, rows)

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]."""
        if self.dry:
            return np.zeros((latent.shape[0], latent.shape[1] * RATES.hop, 2), np.float32)
        return np.asarray(self._engine.decode(latent), np.float32)

    @property
    def decode_parts(self) -> Any:
        """latent [B, F, C] -> audio [B, F*1920, 4], of an engine that tells tones from noise."""
        parts = self._engine.decode_parts

        def decode(latent: Floats) -> Floats:
            shape = (latent.shape[0], latent.shape[1] * RATES.hop, 4)
            return (
                np.zeros(shape, np.float32) if self.dry else np.asarray(parts(latent), np.float32)
            )

        return decode


class OfflineOutput:
    """Mixer and generator in this thread, PCM in memory. blocks: of the mixer in a nominal tick."""

    def __init__(self, engine: Engine, *, seed: int, stems: bool) -> None:
        self.mixer = Mixer(stems=stems)
        self.playhead: Playhead = _MixerPlayhead(self.mixer)
        self.engine_name = engine.name
        self.device_name = "offline"
        self.controls: frozenset[str] | None = engine.controls
        self.engine = engine
        self.notes: list[str] = []
        self._pcm: dict[str, Floats] = {}
        self.blocks = max(1, round(engine.manifest.tick_ms * RATES.sample_rate / 1000 / BLOCK))
        self.dry_run = DryRunEngine(engine)
        self.generator = Generator(
            cast(Engine, self.dry_run),
            self.playhead,
            open_buffer=self.pcm,
            read_pcm=self.pcm,
            tick_samples=self.blocks * BLOCK,
            seed=seed,
            tell=self.notes.append,
        )

    def pcm(self, name: str) -> Floats:
        """The PCM of a loop, a source or a timbre."""
        return self._pcm[name]

    def reserve(self, audio: Mapping[str, Floats]) -> None:
        for name, sound in audio.items():
            if name not in self._pcm:
                # A loop is written to, and what it was made from may be played again.
                self._pcm[name] = sound.copy() if name.endswith(".loop") else sound

    def publish(self, engine: EngineState, mix: MixState) -> None:
        self.mixer.apply(mix, lambda loop: self._pcm[loop.file])
        self.generator.apply(engine)
        for name in self._pcm.keys() - named_files(engine, mix):
            del self._pcm[name]

    def heard(self) -> int:
        return self.playhead.now()

    def check_prompt(self, prompt: str) -> list[str]:
        return self.engine.check_prompt(prompt)[1:]

    def engine_status(self) -> EngineStatus:
        return self.generator.status()

    def meters(self) -> tuple[int, tuple[float, float]]:
        left, right = self.mixer.peaks
        return 0, (db(left), db(right))


class Offline:
    """A session with its rig, driven turn by turn: for renders, replays and scripts.

        with Offline("imp") as loop:
            loop.session.load("patterns/00_hello.demon")
            loop.session.at(4, "denoise = .9 over 2")
            audio = loop.render(cycles=8)

    engine: a name, which is opened and closed here, or an engine of the caller's. input: what is
    played into, a sound file or a SoundInput. rules: of the set that is replayed.
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
        assets: Assets | None = None,
        inputs: Inputs | None = None,
        input: Path | str | SoundInput | None = None,
        rules: int = RULES,
    ) -> None:
        self._owned = isinstance(engine, str)
        if not isinstance(seed, (int, np.integer)):
            raise UsageError(f"seed is a whole number, not {seed!r}")
        opened = open_engine(engine, backend=backend) if isinstance(engine, str) else engine
        if hasattr(opened, "patient"):
            # What is made must not depend on how fast texts are encoded.
            opened.patient = True
        self.output = OfflineOutput(opened, seed=int(seed), stems=stems)
        sound_in = FileInput(input) if isinstance(input, (str, Path)) else input
        if sound_in is not None:
            self.output.mixer.input = lambda a, n: sound_in.read(a, a + n)
        assets = assets or Assets(folders or (Path.cwd(), shipped("patterns")))
        start = {"seed": int(seed), "rules": rules, **about_engine(opened.manifest, backend)}
        self.session = Session(
            self.output,
            assets=assets,
            sets=sets,
            start=start,
            inputs=inputs,
            sound_in=sound_in,
            alone=True,
        )
        self._primed = self._closed = False
        #: Sound that was made and not given yet, and the cycle that it begins at.
        self._rest: Floats = np.zeros((0, 2), np.float32)
        self._cycle = Fraction(0)
        self._generations: deque[tuple[int, Generation]] = deque(maxlen=_KEPT)
        self._new: list[Generation] = []
        self.output.generator.made = self._made

    def prime(self) -> None:
        """Generate, with the clock standing still, until every deck has something to play."""
        if self.output.generator.prime(self.session.pump, _PRIME_TURNS):
            return
        reason = f": {self.output.notes[-1]}" if self.output.notes else ""
        raise EngineError(f"the engine gives no sound{reason}", hint="run: demon doctor")

    def generations(self, since: int = 0) -> tuple[int, list[Generation]]:
        """(number of the newest, the generations after number `since`); the last 256 are kept."""
        rows = [(n, g) for n, g in self._generations if n > since]
        return (rows[-1][0] if rows else since), [g for _, g in rows]

    def _made(self, generation: Generation) -> None:
        number = self._generations[-1][0] if self._generations else 0
        self._generations.append((number + 1, generation))
        self._new.append(generation)

    def _play(self) -> None:
        if self._closed:
            raise EngineError("this Offline is closed", hint="render inside of its with block")
        if not self._primed:
            self._primed = True
            self.prime()
        self.session.pump()
        self.output.generator.turn()
        # Functions that wait for them may raise: not in a turn, which reports a fault and goes on.
        new, self._new = self._new, []
        for generation in new:
            self.session.scripts.emit("generation", generation)

    def turn(self) -> Floats:
        """One nominal tick: float32 [480 * blocks, 2]."""
        self._play()
        return self.output.mixer.render(self.output.blocks)

    def skip(self) -> None:
        """A turn that is played but not mixed: for the way to a place in a set."""
        self._play()
        for _ in range(self.output.blocks):
            self.output.mixer.skip()

    def stems(self) -> tuple[Floats, dict[str, Floats]]:
        """Like `turn`, with each deck beside the sum."""
        self._play()
        return self.output.mixer.render_stems(self.output.blocks)

    def render(self, *, cycles: float | None = None, seconds: float | None = None) -> Floats:
        """The next cycles or seconds, float32 [n, 2]: pieces join, bit for bit.

        A tempo that changes meanwhile changes the length of its cycles.
        """
        if (cycles is None) == (seconds is None):
            raise UsageError("give cycles or seconds")
        begin = self.output.mixer.position - len(self._rest)
        start = self._tempo.cycle_at(begin)
        if self._tempo.sample_at(self._cycle) == begin:
            start = self._cycle
        end = start + exact(cycles or 0)
        pieces, length = [self._rest], len(self._rest)

        def total() -> int:
            if seconds is not None:
                return round(seconds * RATES.sample_rate)
            return max(0, self._tempo.sample_at(end) - begin)

        while length < total():
            pieces.append(self.turn())
            length += len(pieces[-1])
        audio, wanted = np.concatenate(pieces), total()
        self._rest, self._cycle = audio[wanted:], end
        return audio[:wanted]

    @property
    def _tempo(self) -> TempoMap:
        return self.session.state.tempo

    def close(self) -> None:
        """Close the engine, if it was opened here. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self.session.close()
        if self._owned:
            self.output.generator.close()

    def __enter__(self) -> Offline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
