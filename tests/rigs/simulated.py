"""An instrument in virtual time whose ticks and decodes take as long as an engine's really do.

Live, the playhead moves on while a tick is computed and while a window is decoded; the score is
sampled a dozen times a second beside it. Here the same happens on a clock that is counted, not
waited for: each call of the model or the decoder spends a time drawn from a measured distribution,
and the mixer gives out just so much sound meanwhile. What is measured of the result is therefore
what live would give on a machine that is never interrupted otherwise.

    Telltale   an engine whose sound obeys every control and costs next to nothing to compute
    Simulated  session, generator and mixer on that clock
    edits      edits of each class, heard in sound

    python -m tests.rigs.simulated [--engine E] [--depth D] [--loop SECONDS]
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from demon_live.audio.mixer import BLOCK
from demon_live.bench.common import Options, machine, opened
from demon_live.bench.latency import Times, measure_times
from demon_live.core import RATES, EngineState, Floats
from demon_live.models.engine import Engine
from demon_live.paths import shipped
from demon_live.runtime.generator import Generator
from demon_live.runtime.offline import OfflineOutput
from demon_live.session.assets import Assets
from demon_live.session.session import Session

Alter = Callable[[EngineState], EngineState]

#: How a word moves the four channels.
_SPREAD = np.array([1.0, -0.5, 0.8, -1.0], np.float32)

#: Seconds between two samplings of the score, as live.
_PUMP_EVERY = 0.08
#: A CPU engine's turn fills the time but for this factor, as in the engine process.
_HEADROOM = 1.15


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
        self.manifest: Any = SimpleNamespace(
            tick_ms=80.0, name=self.name, digest="0", draft_steps=0, first_window=0
        )
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


class _TimedEngine:
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


class _DelayedGenerator(Generator):
    """States wait for the next turn, as on their way to an engine process; the newest counts."""

    alter: Alter
    waiting: EngineState | None = None

    def apply(self, state: EngineState) -> None:
        self.waiting = self.alter(state)

    def deliver(self) -> None:
        """Take the newest state."""
        if self.waiting is not None:
            super().apply(self.waiting)
            self.waiting = None


class Simulated:
    """A session on an engine's times. alter: changes published engine states (for comparisons)."""

    def __init__(
        self, engine: Any, times: Times, *, seed: int = 0, alter: Alter = lambda state: state
    ) -> None:
        self.times = times
        self._engine = _TimedEngine(engine, times, seed)
        self.output = OfflineOutput(cast(Engine, self._engine), seed=seed, stems=False)
        self.generator = _DelayedGenerator(
            cast(Engine, self._engine),
            self.output.playhead,
            open_buffer=self.output.pcm,
            read_pcm=self.output.pcm,
            tick_samples=round(times.nominal * RATES.sample_rate),
            seed=seed,
            tell=self.output.notes.append,
            timer=lambda: self.seconds,
        )
        self.generator.alter = alter
        self.output.generator = self.generator
        assets = Assets((shipped("patterns"),))
        self.session = Session(self.output, assets=assets, start={"seed": seed})
        self.seconds = 0.0
        self._pieces: list[Floats] = []
        self._given = 0
        self._pumped = -1.0

    def _spend(self, seconds: float) -> None:
        """Virtual time passes: sound goes out, the score is sampled."""
        self.seconds += seconds
        while (self._given + BLOCK) / RATES.sample_rate <= self.seconds:
            self._pieces.append(self.output.mixer.render(1))
            self._given += BLOCK
        if self.seconds - self._pumped >= _PUMP_EVERY:
            self._pumped = self.seconds
            self.session.pump()

    def _pump(self) -> None:
        self.session.pump()
        self.generator.deliver()

    def play(self, seconds: float) -> Floats:
        """The sound of the next seconds, float32 [n, 2]; the first call primes the ring."""
        if self._given == 0:
            self.generator.deliver()
            self.generator.prime(self._pump, 256)
        self._engine.spend = self._spend
        end = self.seconds + seconds
        while self.seconds < end:
            begun = self.seconds
            self.generator.deliver()
            self.generator.turn()
            took = self.seconds - begun
            self._spend(max(self.times.nominal, took * _HEADROOM) - took)
        self._engine.spend = lambda seconds: None
        audio, self._pieces = np.concatenate(self._pieces), []
        return audio


# -- edits, heard in sound

#: What plays while edits are timed: one of each class. Generations are all alike, so that whatever
#: differs is the edit's doing.
PLAYED = """\
tempo 128
loop 2
source "loops/techno_128.flac"
prompt = 'acid techno, 303'
seed = 1
blend = .9
denoise = .7
gain = 1
"""
#: Jumps that are known ahead.
SCHEDULED = PLAYED + "prompt = \"<'acid techno, 303' 'dub techno'>\"\n"
EDITS = {
    "mix": "gain = .5",
    "step": "blend = .2",
    "slot_migrated": "denoise = .4",
    "slot": "seed = 2",
}


def edits(depth: int, times: Times) -> dict[str, Any]:
    """The same performance with and without an edit, on an engine's times: the first sample that
    differs, in ms after the edit."""
    plain, _, _ = _performance(depth, times)
    heard: dict[str, Any] = {"scheduled_late_ms": _performance(depth, times, score=SCHEDULED)[2]}
    for cls, edit in EDITS.items():
        edited, at, _ = _performance(depth, times, edit)
        length = min(len(edited), len(plain))
        differ = np.flatnonzero(np.abs(edited[:length] - plain[:length]).max(axis=1) > 1e-3)
        ms = float(differ[0] - at) * 1000 / RATES.sample_rate if len(differ) else None
        heard[f"{cls}_edit_first_heard_virtual_ms"] = ms
    return heard


def _performance(
    depth: int, times: Times, edit: str | None = None, score: str = PLAYED
) -> tuple[Floats, int, float]:
    """(sound until any edit is heard, sample of the edit, how late scheduled jumps were in ms)."""
    instrument = Simulated(Telltale(depth), times)
    # The latencies of the paper's classes are those of a ring that never rests.
    instrument.session.apply(f"ring always\n{score}", "bench.demon", "file")
    before = instrument.play(2.0)
    if edit is not None:
        instrument.session.apply(f"{edit} now")
        instrument.session.pump()
    after = instrument.play(max(4.0, 3 * instrument.generator.ring.steps * max(times.ticks)))
    sound = np.concatenate((before, after))
    return sound, len(before), instrument.output.engine_status().on_time_ms


def main() -> None:
    """Print the edits as JSON, on the times of an engine that is measured first."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.simulated")
    parser.add_argument("--engine", default="imp")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--loop", type=float, default=16.0, help="seconds of the loop")
    args = parser.parse_args()
    options = Options(args.engine, args.backend, args.depth, args.loop)
    with opened(options) as engine:
        depth = options.depth or engine.depth
        times = measure_times(engine, depth, options.frames, ticks=24, decodes=8)
        heard = {"engine": engine.describe(), "depth": depth, **times.summary()}
    heard |= edits(depth, times)
    sys.stdout.write(json.dumps({"machine": machine(), **heard}, indent=2) + "\n")


if __name__ == "__main__":
    main()
