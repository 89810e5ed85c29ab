"""`demon bench latency`: every control, from an edit to the ear.

Ticks are counted on a ring (bench/propagation.py). Milliseconds are that many ticks at the time a
tick of this engine takes here, and what follows: the decode of a window, the lead over the
playhead, a block of the mixer.

    edit .. tick begins .. n ticks .. decode .. lead .. block .. ear

Class notes is heard like class slot, once the notes are rendered and encoded: it is not measured.
Best: the edit comes just before the tick at which a slot is due; worst: just after one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live import controls
from demon_live.audio.mixer import BLOCK
from demon_live.bench.common import Figures, Options, opened
from demon_live.bench.propagation import propagation_table
from demon_live.core import RATES, Request
from demon_live.engine import Ring
from demon_live.engine.decode import WindowDecoder

if TYPE_CHECKING:
    from demon_live.models.engine import Engine


@dataclass(frozen=True, slots=True)
class EditPath:
    """What an edit passes through, in ms. prepare: the encoding of a source, for a new loop."""

    tick: float
    decode: float
    lead: float
    block: float
    prepare: float
    steps: int
    depth: int

    @property
    def after(self) -> float:
        """From the end of a tick to the ear."""
        return self.decode + self.lead + self.block


def _path(engine: Engine, depth: int, frames: int, times: Times) -> EditPath:
    from demon_live.runtime.pace import GUARD, LEAD_CEILING, LEAD_FLOOR
    from demon_live.runtime.placement import HALF

    tick, decode = float(np.median(times.ticks)), float(np.median(times.decodes))
    # The generator's own rule: half as much again as the slowest of the recent decodes.
    slow = max(times.decodes) * RATES.sample_rate * 1.5 + GUARD + 2 * HALF
    lead = min(LEAD_CEILING, max(LEAD_FLOOR, slow))
    pcm = np.zeros((frames * RATES.hop, 2), np.float32)
    began = time.perf_counter()
    engine.encode(pcm)
    encode = time.perf_counter() - began
    ms = 1000 / RATES.sample_rate
    return EditPath(
        tick * 1e3, decode * 1e3, lead * ms, BLOCK * ms, encode * 1e3, engine.steps, depth
    )


def rows(path: EditPath, obeyed: frozenset[str] | None = None) -> list[dict[str, Any]]:
    """One row for each control and way to change it. obeyed: the controls that the engine obeys."""
    table = [_mix(name, path) for name in controls.names("mix")]
    for row in propagation_table(path.steps, path.depth):
        name = str(row["control"])
        obeys = obeyed is None or row["cls"] == "model" or name in obeyed
        table.append(
            {
                "control": "lora.NAME" if name == "lora.x" else name,
                "cls": row["cls"],
                "how": row["policy"],
                "onset_ticks": _span(row["onset_min"], row["onset_max"]),
                "settled_ticks": _span(row["converged_min"], row["converged_max"]),
                "onset_ms": row["onset_min"] * path.tick + path.after,
                "onset_worst_ms": (row["onset_max"] + 1) * path.tick + path.after,
                "settled_worst_ms": (row["converged_max"] + 1) * path.tick + path.after,
                "obeyed": "yes" if obeys else "not by this engine",
            }
        )
    # The ring takes it as any curve, and the windows are written again.
    blend = next(row for row in table if row["control"] == "blend")
    obeys = "yes" if obeyed is None or "detail" in obeyed else "not by this engine"
    table.append({**blend, "control": "detail", "obeyed": obeys})
    return table + [_prepared(name, path) for name in ("tempo", "loop", "source", "depth", "steps")]


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _mix(name: str, path: EditPath) -> dict[str, Any]:
    slew = controls.CONTROLS[name].slew * 1e3
    return {
        "control": name,
        "cls": "mix",
        "how": "at once",
        "onset_ticks": "0",
        "settled_ticks": "0",
        "onset_ms": path.block,
        "onset_worst_ms": 2 * path.block,
        "settled_worst_ms": 2 * path.block + slew,
        "obeyed": "yes",
    }


def _prepared(name: str, path: EditPath) -> dict[str, Any]:
    """Settings are prepared first and then wait for their cycle; the wait is not counted."""
    loops = name in ("tempo", "loop", "source")
    ticks = path.steps if loops else path.steps + -(-path.steps // path.depth)
    ready = (path.prepare if loops else 0.0) + ticks * path.tick + path.after
    return {
        "control": name,
        "cls": "prepared",
        "how": "prepared, then on a cycle" if loops else "drained, then refilled",
        "onset_ticks": str(ticks),
        "settled_ticks": str(ticks),
        "onset_ms": ready,
        "onset_worst_ms": ready + path.tick,
        "settled_worst_ms": ready + path.tick,
        "obeyed": "yes",
    }


def by_class(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slowest control of each class and way."""
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for row in table:
        key = row["cls"], row["how"]
        if key not in worst or row["onset_worst_ms"] > worst[key]["onset_worst_ms"]:
            worst[key] = row
    return [{"cls": cls, "how": how, **_times(row)} for (cls, how), row in worst.items()]


def _times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("onset_ms", "onset_worst_ms", "settled_worst_ms")}


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of single calls. nominal: of a tick by the manifest; the generator stretches turns to
    it."""

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


def measure_times(
    engine: Engine, depth: int, frames: int, ticks: int = 40, decodes: int = 20
) -> Times:
    """Time ticks of a full ring at `depth`, and windows decoded between them."""
    condition = engine.condition("techno", bpm=120.0, cycles=1, beats=4, frames=frames)

    def admit(deck: str) -> Request:
        return Request(frames, engine.channels, condition=condition, deck=deck)

    ring = Ring(
        engine,
        steps=engine.steps,
        depth=depth,
        shift=engine.shift,
        device=engine.device,
        on_admit=admit,
    )
    ring.enlist("main")
    window = WindowDecoder(engine.decode, engine.margin).window
    latent = np.zeros((frames, engine.channels), np.float32)
    for _ in range(engine.steps + 2):
        ring.tick()
    tick_s: list[float] = []
    decode_s: list[float] = []
    for turn in range(ticks):
        begin = time.perf_counter()
        ring.tick()
        tick_s.append(time.perf_counter() - begin)
        if turn % max(1, ticks // decodes) == 0:
            begin = time.perf_counter()
            window(latent, turn, engine.window)
            decode_s.append(time.perf_counter() - begin)
    # The first window of a shape is slow.
    return Times(tuple(tick_s), tuple(decode_s[1:]), engine.manifest.tick_ms / 1000)


def figures(options: Options) -> Figures:
    """The table of controls, with the times of an engine's ticks and windows and of one encode."""
    frames = options.frames
    with opened(options) as engine:
        depth = options.depth or engine.depth
        times = measure_times(engine, depth, frames, ticks=24, decodes=8)
        path = _path(engine, depth, frames, times)
        table = rows(path, engine.controls)
        out: dict[str, Any] = {"engine": engine.describe(), "loop_s": frames / RATES.frame_hz}
    out |= {f"{name}_ms": getattr(path, name) for name in _PARTS}
    out |= {"depth": path.depth, "steps": path.steps, **times.summary()}
    return {**out, "controls": table, "classes": by_class(table)}


_PARTS = ("tick", "decode", "lead", "block", "prepare")
