"""Times of the language: sampling of lanes, parse and check, mini-notation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.bench.common import Figures, Options

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


def _time(work: Callable[[], object]) -> tuple[float, float]:
    """(median, best) time of `work` in ms, called for TRIAL_S, after one warm call."""
    work()
    times: list[float] = []
    end = time.perf_counter() + TRIAL_S
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times), min(times)


def figures(options: Options) -> Figures:
    """Times of the language, in ms."""
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
        "lanes_16x1500_ms": _time(sample),
        "parse_check_30_lines_ms": _time(
            lambda: compile_source(f"{SCORE}# {next(turn)}\n", name="bench.demon")
        ),
        "mini_parse_ms": _time(lambda: mini(MINI)),
        "mini_query_one_cycle_ms": _time(lambda: _query(parsed, next(turn))),
    }
    out: dict[str, Any] = {"lanes": len(lanes)}
    for name, (median, best) in results.items():
        out[name] = round(median, 4)
        out[name.replace("_ms", "_best_ms")] = round(best, 4)
    return out


def _query(pattern: Any, cycle: int) -> object:
    return pattern.query(Fraction(cycle), Fraction(cycle + 1))
