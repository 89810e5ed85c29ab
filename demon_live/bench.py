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
from demon_live.core import RATES
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


@dataclass(frozen=True, slots=True)
class Options:
    """What `demon bench` was asked for. seconds: length of the loop."""

    engine: str = "imp"
    backend: str = "auto"
    depth: int = 4
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
    """Ticks of the ring."""
    from demon_live.backends import measure as backend

    frames = round(options.seconds * RATES.frame_hz)
    with _engine(options) as engine:
        return backend.tick(engine, depth=options.depth, frames=frames + frames % 2)


def decode(options: Options) -> Figures:
    """Windows of the engine's decoder."""
    from demon_live.backends import measure as backend

    with _engine(options) as engine:
        return backend.decode(engine)


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
            pieces.append(("", f"  {name.replace('_', ' '):<36}{value}\n"))
    return pieces


PARTS: dict[str, Callable[[Options], Figures]] = {
    "ring": ring,
    "decode": decode,
    "lang": lambda _: lang(),
}


def measure(what: str, options: Options) -> dict[str, Figures]:
    """The figures of one part, or of all."""
    wanted = PARTS if what == "all" else (what,)
    return {part: PARTS[part](options) for part in wanted}
