"""`demon bench`: the measurements of the parts, run on this machine.

    lang      lanes, parse and check, mini-notation: here, since it needs nothing but the language
    ring      engine.measure: ticks of the ring, by part
    decode    backends.measure: windows against real time
    latency   perform.measure: written against heard

Each returns a flat mapping name -> number with its unit in the name; `--json` prints it with the
machine and the date.

Threads: main thread only.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live import __version__
from demon_live.core import RATES, Floats
from demon_live.ui.show import Pieces

if TYPE_CHECKING:
    from demon_live.backends import Engine

__all__ = ["PARTS", "Options", "lang", "measure", "report"]

Figures = Mapping[str, Any]

#: Thirty lines, the size of a score that is played from (TARGETS.md).
SCORE = """\
# thirty lines
tempo 128
loop 8
source none
let wob(n) = sine.fast(n).range(.2, 1)
let glide(n) = tri.slow(n)
prompt = "<'acid techno, 303' 'dub techno, tape hiss'>/8"
prompt2 = 'ambient, warm pad'
prompt_mix = glide(8)
denoise = "<.4 .6 .8 1>/2"
blend = sine.slow(4).range(.2, .9)
noise = "0 .2 [0 .4]*2".smooth(.1) * .5
velocity = wob(3) * .2 + .8
morph = tri.slow(8)
energy = square.range(.8, 1.3)
hint = .7
seed = "<1 2 3 4>/2"
shift = 3
init = square.range(.4, 1)
feedback = .3
guide = 2.5
rescale = .5
momentum = -.5
gain = "1 .8 1 .6"
pan = sine2.slow(2) * .5
lpf = saw.slow(4).rangex(200, 8000)
hpf = "<20 20 20 400>"
deck drums {
  gain = "1(3,8) .5"
}
"""
#: Seconds that one figure is measured for.
TRIAL_S = 0.5
#: What plays while edits are timed: one of each class, and jumps that are known ahead.
PLAYED = """\
tempo 128
loop 2
source "loops/techno_128.flac"
prompt = "<'acid techno, 303' 'dub techno'>"
blend = .9
denoise = .7
gain = 1
"""
EDITS = {"mix": "gain = .5", "step": "blend = .2", "slot": "denoise = .4"}
MINI = "bd*4, [~ sd]*2, hh*8?0.3, <cp [cp cp]>(3,8,<0 2>)"
_LANES = (
    "sine.slow(4).range(.2, .9)",
    '"0 .2 [0 .4]*2".smooth(.1)',
    "perlin.range(.4, 1)",
    '"1(3,8) .5"',
    "saw.fast(2)",
    "tri.slow(8) * .5 + .2",
    "square.fast(3)",
    '"<.4 .6 .8 1>/2"',
)


def _best(work: Callable[[], object]) -> tuple[float, float]:
    """(median, best) time of `work` in ms, called for TRIAL_S, after one warm call."""
    work()
    times: list[float] = []
    end = time.perf_counter() + TRIAL_S
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times), min(times)


def lang() -> Figures:
    """Times of the language half, in ms."""
    from demon_live.lang import compile_source, mini

    controls = ("blend", "velocity", "noise", "morph", "guide", "rescale", "energy", "hint")
    rows = [f"{c} = {e}" for c, e in zip(controls, _LANES, strict=True)]
    text = "\n".join(["deck a {", *rows, "}", "deck b {", *rows, "}"])
    program = compile_source(text, name="bench.demon")
    lanes = [lane for deck in program.decks.values() for lane in deck.values()]
    at = np.arange(1500) / 1500 * 32

    def sample() -> None:
        for lane in lanes:
            lane.sample(at)

    parsed = mini(MINI)
    # Another text each time: a cache of parsed texts would flatter the figure.
    turn = iter(range(10**9))
    results = {
        "lanes_16x1500_ms": _best(sample),
        "parse_check_30_lines_ms": _best(
            lambda: compile_source(f"{SCORE}# {next(turn)}\n", name="bench.demon")
        ),
        "mini_parse_ms": _best(lambda: mini(MINI)),
        "mini_query_one_cycle_ms": _best(lambda: _query(parsed, next(turn))),
    }
    out: dict[str, Any] = {"lanes": len(lanes)}
    for name, (median, best) in results.items():
        out[name] = round(median, 4)
        out[name.replace("_ms", "_best_ms")] = round(best, 4)
    return out


def _query(pattern: Any, cycle: int) -> object:
    return pattern.query(Fraction(cycle), Fraction(cycle + 1))


#: Depths that the ring is timed at, unless one is asked for.
DEPTHS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Options:
    """What `demon bench` was asked for. seconds: length of the loop. depth: None = several."""

    engine: str = "imp"
    backend: str = "auto"
    depth: int | None = None
    seconds: float = 16.0
    random_weights: bool = False


@contextlib.contextmanager
def _engine(options: Options) -> Iterator[Engine]:
    from demon_live.backends import open_engine

    engine = open_engine(
        options.engine, backend=options.backend, random_weights=options.random_weights
    )
    try:
        yield engine
    finally:
        engine.close()


def ring(options: Options) -> Figures:
    """Ticks of the ring, and our admission beside the earlier engines'."""
    from demon_live.engine import measure as parts

    frames = round(options.seconds * RATES.frame_hz)
    frames += frames % 2
    with _engine(options) as engine:
        bars = max(1, round(frames / RATES.frame_hz / 2))
        condition = engine.condition("techno", bpm=120.0, cycles=bars, beats=4, frames=frames)
        rows = parts.ring_table(
            engine,
            engine.steps,
            (options.depth,) if options.depth else DEPTHS,
            frames,
            seconds=6.0 if options.depth else 5.0 * len(DEPTHS),
            channels=engine.channels,
            shift=engine.shift,
            device=engine.device,
            condition=condition,
        )
        return {
            "engine": engine.describe(),
            "loop_s": frames / RATES.frame_hz,
            "ring": rows,
            "recommended": [parts.recommend(rows)],
            "admission": parts.policy_table(engine.steps),
            "sweep": parts.sweep_table(engine.steps),
        }


def decode(options: Options) -> Figures:
    """Windows of the engine's decoder."""
    from demon_live.backends import measure as backend

    with _engine(options) as engine:
        return backend.decode(engine)


def latency(options: Options) -> Figures:
    """Edit to ear on the virtual clock: the same performance with and without an edit, compared."""
    from demon_live.engine import measure as parts

    with _engine(options) as engine:
        plain, _, on_time = _performance(engine, None)
        heard: dict[str, Any] = {"engine": engine.describe(), "scheduled_late_ms": on_time}
        for cls, edit in EDITS.items():
            edited, at, _ = _performance(engine, edit)
            differ = np.flatnonzero(np.abs(edited - plain).max(axis=1) > 1e-3)
            ms = float(differ[0] - at) * 1000 / RATES.sample_rate if len(differ) else None
            heard[f"{cls}_edit_first_heard_ms"] = ms
    return {**heard, "propagation_ticks": parts.propagation_table()}


def _performance(engine: Engine, edit: str | None) -> tuple[Floats, int, float]:
    """(six seconds of sound, sample of the edit, how late scheduled jumps were in ms)."""
    from demon_live.perform.render import Offline
    from demon_live.places import shipped

    offline = Offline(engine, folders=(shipped("patterns"),))
    offline.session.apply(PLAYED, "bench.demon", "file")
    pieces: list[Floats] = []
    at = 0
    while (now := offline.rig.clock.now()) < 6 * RATES.sample_rate:
        if at == 0 and now >= 3 * RATES.sample_rate:
            at = now
            if edit is not None:
                offline.session.apply(f"{edit} now")
        pieces.append(offline.turn())
    return np.concatenate(pieces), at, offline.rig.engine_status().on_time_ms


def machine() -> dict[str, Any]:
    """Where and when the figures were taken."""
    return {
        "demon": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def report(figures: Mapping[str, Figures], as_json: bool) -> Pieces:
    """The figures as a table, or as JSON with machine and date."""
    if as_json:
        return [("", json.dumps({"machine": machine(), **figures}, indent=2, default=str) + "\n")]
    pieces: Pieces = []
    for part, rows in figures.items():
        pieces.append(("heading", f"{part}\n"))
        for name, value in rows.items():
            pieces.append(("", _lines(name.replace("_", " "), value)))
    return pieces


def _lines(name: str, value: Any) -> str:
    """One figure, or a table of them."""
    if not isinstance(value, list):
        return f"  {name:<36}{_shown(value)}\n"
    titles = list(value[0]) if value else []
    cells = [titles, *[[_shown(row[t]) for t in titles] for row in value]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    drawn = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return f"  {name}\n" + "".join(f"    {row.rstrip()}\n" for row in drawn)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


PARTS: dict[str, Callable[[Options], Figures]] = {
    "ring": ring,
    "decode": decode,
    "lang": lambda _: lang(),
    "latency": latency,
}


def measure(what: str, options: Options) -> dict[str, Figures]:
    """The figures of one part, or of all."""
    wanted = PARTS if what == "all" else (what,)
    return {part: PARTS[part](options) for part in wanted}
