"""`demon bench latency`: every control, from an edit to the ear.

Ticks are facts of the ring (engine.propagation: what comes out of it, with a model that obeys all
controls). Milliseconds are those ticks at the time that a tick of this engine took in this run,
and what follows it: the decode of a window, the lead over the playhead, the block of the mixer.

    edit .. tick begins .. n ticks .. decode .. lead .. block .. ear

best: the edit comes just before the tick that a slot is due at; worst: just after one.

Threads: main thread only.
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
from demon_live.bench.ring_tables import propagation_table
from demon_live.core import RATES, Floats

if TYPE_CHECKING:
    from demon_live.bench.replayed import Times
    from demon_live.models.engine import Engine

__all__ = ["Path", "edits", "figures", "rows"]

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


@dataclass(frozen=True, slots=True)
class Path:
    """What an edit passes through, in ms. prepare: a source encoded, for a new stage."""

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


def _path(engine: Engine, depth: int, frames: int, times: Times) -> Path:
    from demon_live.runtime.pace import GUARD, LEAD_CEILING, LEAD_FLOOR
    from demon_live.runtime.placement import HALF

    tick, decode = float(np.median(times.ticks)), float(np.median(times.decodes))
    # The player's own rule: half as much again as the slowest of the recent decodes.
    slow = max(times.decodes) * RATES.sample_rate * 1.5 + GUARD + 2 * HALF
    lead = min(LEAD_CEILING, max(LEAD_FLOOR, slow))
    pcm = np.zeros((frames * RATES.hop, 2), np.float32)
    began = time.perf_counter()
    engine.encode(pcm)
    encode = time.perf_counter() - began
    ms = 1000 / RATES.sample_rate
    return Path(tick * 1e3, decode * 1e3, lead * ms, BLOCK * ms, encode * 1e3, engine.steps, depth)


def rows(path: Path, obeyed: frozenset[str] | None = None) -> list[dict[str, Any]]:
    """One row for each control and way to change it. obeyed: of the engine; others are marked."""
    table = [_mix(name, path) for name in controls.names("mix")]
    for row in propagation_table(path.steps, path.depth):
        name = str(row["control"])
        heard = obeyed is None or row["cls"] == "model" or name in obeyed
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
                "obeyed": "yes" if heard else "not by this engine",
            }
        )
    return table + [_stage(name, path) for name in ("tempo", "loop", "source", "depth", "steps")]


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _mix(name: str, path: Path) -> dict[str, Any]:
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


def _stage(name: str, path: Path) -> dict[str, Any]:
    """What must be ready before the cycle that it waits for anyway."""
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


def figures(options: Options) -> Figures:
    """The table of controls, and edits heard in sound on the virtual clock. Only ticks, windows and
    one encode are the engine's; everything else is computed with models that cost nothing."""
    from demon_live.bench.replayed import measured

    frames = round(options.seconds * RATES.frame_hz)
    frames += frames % 2
    with opened(options) as engine:
        depth = options.depth or engine.depth
        times = measured(engine, depth, frames, ticks=24, decodes=8)
        path = _path(engine, depth, frames, times)
        table = rows(path, engine.controls)
        heard: dict[str, Any] = {"engine": engine.describe(), "loop_s": frames / RATES.frame_hz}
    heard.update({f"{name}_ms": getattr(path, name) for name in _PARTS})
    heard.update({"depth": path.depth, "steps": path.steps, **times.summary()})
    return {**heard, **edits(depth, times), "controls": table, "classes": by_class(table)}


_PARTS = ("tick", "decode", "lead", "block", "prepare")


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
    from demon_live.bench.replayed import Replayed, Telltale

    instrument = Replayed(Telltale(depth), times)
    instrument.session.apply(score, "bench.demon", "file")
    before = instrument.play(2.0)
    if edit is not None:
        instrument.session.apply(f"{edit} now")
        instrument.session.pump()
    after = instrument.play(max(4.0, 3 * instrument.rig.player.ring.steps * max(times.ticks)))
    sound = np.concatenate((before, after))
    return sound, len(before), instrument.rig.engine_status().on_time_ms
