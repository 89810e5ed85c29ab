"""An instrument in virtual time whose ticks and decodes take as long as an engine's really do.

Live, the playhead moves on while a tick is computed and while a window is decoded; the score is
sampled a dozen times a second beside it. Here the same happens on a clock that is counted, not
waited for: each call of the model or the decoder spends a time drawn from a measured distribution,
and the mixer gives out just so much sound meanwhile. What is measured of the result is therefore
what live would give on a machine that is never interrupted otherwise.

    Times      measured ticks and decodes, drawn from with a seed
    Telltale   an engine whose sound obeys every control and costs next to nothing to compute
    Replayed   session, player and mixer on that clock

Threads: everything runs in the caller's.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from demon_live.audio.mixer import BLOCK
from demon_live.core import RATES, Floats
from demon_live.engine import Ring
from demon_live.paths import shipped
from demon_live.runtime.generator import Generator
from demon_live.runtime.messages import Block, ToEngine
from demon_live.runtime.offline import OfflineRig
from demon_live.session.session import Session

if TYPE_CHECKING:
    from demon_live.models.engine import Engine

__all__ = ["Replayed", "Telltale", "Times", "measured"]

#: How a word moves the four channels.
_SPREAD = np.array([1.0, -0.5, 0.8, -1.0], np.float32)

#: Seconds between two samplings of the score, as live.
_PUMP_EVERY = 0.08
#: A CPU engine's turn fills the time but for this factor, as in the engine process.
_HEADROOM = 1.15


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that calls took. nominal: of a tick, to which a turn is stretched."""

    ticks: tuple[float, ...]
    decodes: tuple[float, ...]
    nominal: float

    def summary(self) -> dict[str, float]:
        """Median and 95th percentile, in ms."""
        return {
            f"{what}_{name}_ms": round(float(np.percentile(rows, q)) * 1000, 1)
            for what, rows in (("tick", self.ticks), ("decode", self.decodes))
            for name, q in (("median", 50), ("p95", 95))
        }


def measured(engine: Engine, depth: int, frames: int, ticks: int = 40, decodes: int = 20) -> Times:
    """What ticks of a full ring at `depth`, and windows between them, take on this machine now."""
    from demon_live.core import Request
    from demon_live.engine.decode import WindowDecoder

    condition = engine.condition("techno", bpm=120.0, cycles=1, beats=4, frames=frames)

    def admit(deck: str) -> Request:
        return Request(frames, engine.channels, condition=condition, deck=deck)

    ring = Ring(engine, steps=engine.steps, depth=depth, shift=engine.shift, on_admit=admit)
    ring.enlist("main")
    window = WindowDecoder(engine.decode, engine.margin).window
    latent = np.zeros((frames, engine.channels), np.float32)
    for _ in range(engine.steps + 2):
        ring.tick()
    spent: list[float] = []
    taken: list[float] = []
    for turn in range(ticks):
        begin = time.perf_counter()
        ring.tick()
        spent.append(time.perf_counter() - begin)
        if turn % max(1, ticks // decodes) == 0:
            begin = time.perf_counter()
            window(latent, turn, engine.window)
            taken.append(time.perf_counter() - begin)
    # The first window also pays for its shape.
    return Times(tuple(spent), tuple(taken[1:]), engine.manifest.tick_ms / 1000)


class Telltale:
    """An engine for measurements: every control moves its four partials, every seed has its own.

    Not a model of music: x0 depends on the row's noise, its source and its words, each strongly
    enough that two values of any control sound different in every frame.
    """

    name = "telltale"
    channels, margin, window, steps, shift = 4, 0, 25, 8, 3.0
    device = torch.device("cpu")

    def __init__(self, depth: int) -> None:
        from demon_live.controls import CONTROLS

        self.depth = depth
        self.controls = frozenset(CONTROLS)
        self.manifest: Any = SimpleNamespace(tick_ms=80.0, name=self.name, digest="0")
        self.notes: list[str] = []
        n = np.arange(RATES.hop)
        # Whole periods in a frame, so that frames of any latents join without a phase of their own.
        self._waves = np.stack([np.sin(2 * np.pi * n * k / RATES.hop) for k in (20, 33, 70, 150)])
        self._waves = np.asarray(self._waves, np.float32)

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Any]) -> Tensor:
        # numpy: at this size torch would spend its time waking threads.
        state = x.numpy()
        said = np.zeros_like(state)
        for i, row in enumerate(rows):
            word = 0.0 if row.condition is None else float(row.condition)
            mix, hint = row.shared.get("prompt_mix", 0.0), row.shared.get("hint", 0.0)
            level = np.atleast_1d(0.3 * word * (1 - 0.8 * np.asarray(mix)) + 0.5 * np.asarray(hint))
            said[i] = level[:, None] * _SPREAD
        v = (state - 0.6 * np.tanh(state) - said) / np.maximum(t.numpy(), 1e-3)[:, None, None]
        return torch.from_numpy(v.astype(np.float32))

    def encode(self, audio: Floats) -> Floats:
        frames = len(audio) // RATES.hop
        ramp = np.linspace(-0.8, 0.8, frames, dtype=np.float32)[:, None]
        return ramp * np.array([1.0, -1.0, 0.5, -0.5], np.float32)

    def decode(self, latent: Floats) -> Floats:
        # Bounded, and never silent in all partials at once.
        loud = 0.1 + 0.08 * np.tanh(latent)
        mono = (loud @ self._waves).reshape(len(latent), -1)
        return np.repeat(mono[:, :, None], 2, axis=2).astype(np.float32)

    def condition(self, prompt: str, *, prompt2: str = "", key: str = "", **_: Any) -> float:
        text = f"{prompt}/{prompt2}/{key}".encode()
        return (zlib.crc32(text) % 1000) / 250 - 2.0

    def unconditioned(self, condition: float) -> float:
        return -condition

    def check_prompt(self, prompt: str) -> list[str]:
        return [prompt]

    def describe(self) -> str:
        return self.name

    def warm_up(self, frames: int, depth: int) -> None:
        """Nothing is slow here."""

    def close(self) -> None:
        """Nothing is held."""


class _Costly:
    """An engine whose calls spend virtual time."""

    def __init__(self, engine: Any, times: Times, seed: int) -> None:
        self._engine, self._times = engine, times
        self._rng = np.random.default_rng(seed)
        self.spend: Callable[[float], None] = lambda seconds: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Any]) -> Tensor:
        v = self._engine.velocity(x, t, rows)
        self.spend(float(self._rng.choice(self._times.ticks)))
        return v  # type: ignore[no-any-return]

    def decode(self, latent: Floats) -> Floats:
        audio = self._engine.decode(latent)
        self.spend(float(self._rng.choice(self._times.decodes)))
        return audio  # type: ignore[no-any-return]


class _Rig(OfflineRig):
    """Messages wait for the next turn, as they do at the engine process."""

    def __init__(self, engine: Any, seed: int) -> None:
        self.inbox: list[ToEngine] = []
        self.alter: Callable[[Block], Block] = lambda block: block
        super().__init__(engine, seed=seed, stems=False)

    def send(self, message: ToEngine) -> None:
        self.inbox.append(self.alter(message) if isinstance(message, Block) else message)

    def deliver(self) -> None:
        """All that waits; of blocks only the newest of each loop."""
        newest = {(m.block.deck, m.block.loop.epoch): m for m in self.inbox if isinstance(m, Block)}
        for message in [m for m in self.inbox if not isinstance(m, Block)]:
            self.player.handle(message)
        for block in newest.values():
            self.player.handle(block)
        self.inbox.clear()


class Replayed:
    """A session on an engine's times. alter: changes what the engine is told (for comparisons)."""

    def __init__(
        self,
        engine: Any,
        times: Times,
        *,
        seed: int = 0,
        alter: Callable[[Block], Block] = lambda block: block,
    ) -> None:
        self.times = times
        self._engine = _Costly(engine, times, seed)
        self.rig = _Rig(self._engine, seed)
        self.rig.alter = alter
        self.rig.player = Generator(
            self._engine,
            self.rig.clock,
            open_loop=self.rig.buffer,
            read_source=self.rig.buffer,
            tick_samples=round(times.nominal * RATES.sample_rate),
            seed=seed,
            tell=self.rig.notes.append,
            timer=lambda: self.seconds,
        )
        self.session = Session(self.rig, folders=(shipped("patterns"),), start={"seed": seed})
        self.seconds = 0.0
        self._pieces: list[Floats] = []
        self._given = 0
        self._pumped = -1.0

    def _spend(self, seconds: float) -> None:
        """Virtual time passes: sound goes out, the score is sampled."""
        self.seconds += seconds
        while (self._given + BLOCK) / RATES.sample_rate <= self.seconds:
            self._pieces.append(self.rig.mixer.render(1))
            self._given += BLOCK
        if self.seconds - self._pumped >= _PUMP_EVERY:
            self._pumped = self.seconds
            self.session.pump()

    def _pump(self) -> None:
        self.session.pump()
        self.rig.deliver()

    def play(self, seconds: float) -> Floats:
        """The sound of the next seconds, float32 [n, 2]; the first call primes the ring."""
        if self._given == 0:
            self.rig.deliver()
            self.rig.player.prime(self._pump, 256)
        self._engine.spend = self._spend
        end = self.seconds + seconds
        while self.seconds < end:
            begun = self.seconds
            self.rig.deliver()
            self.rig.player.turn()
            took = self.seconds - begun
            self._spend(max(self.times.nominal, took * _HEADROOM) - took)
        self._engine.spend = lambda seconds: None
        audio, self._pieces = np.concatenate(self._pieces), []
        return audio
