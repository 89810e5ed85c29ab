"""Speed of the score language, side by side with Strudel in the same run.

    python -m tests.rigs.language            # ours
    (cd tests/bench/strudel && npm install)   # once, then both

Times are the best of many, in microseconds; a cycle is queried that was not queried before.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.lang import compile_source, mini
from demon_live.lang.mini_syntax import parse_mini
from demon_live.lang.parse import parse_statement

STRUDEL = Path(__file__).parent / "strudel"
MINIS = (
    "bd sd hh cp",
    "bd [sd [hh hh]]*2 <cp [cp cp]> ~",
    "bd(3,8) sd(5,8,2)",
    "{bd sd, hh cp lt}%8",
    "<0 2 4 7>*16",
    "bd*4, [~ sd]*2, hh*8?0.3, <cp [cp cp]>(3,8,<0 2>)",
)
FRAMES = ("sine.slow(8).range(.2, .9)", "saw.segment(16)")
#: 16 lanes as a set has them: curves, rhythms, slow changes, chance.
LANES = """
blend = sine.slow(4).range(.2, .9)
velocity = saw.fast(2).range(.8, 1.2)
noise = "0 .2 [0 .4]*2" * .5
morph = tri.slow(8)
guide = "<1 2 3 2.5>/2"
rescale = .5
momentum = sine2 * .5
energy = square.range(.8, 1.3)
hint = "0 .5 1 .5".every(4, rev)
prompt_mix = perlin
denoise = "<.4 .6 .8 1>/2"
shift = "3(3,8)"
init = saw.every(3, fast(2))
gain = "1 .8 1 .6"
pan = sine2.slow(2) * .5
lpf = saw.slow(4).rangex(200, 8000)
"""
#: A score of 30 lines.
SCORE = (
    LANES
    + """tempo 128
loop 8
source "loops/amen.wav"
prompt = "<'acid techno, 303' 'dub techno, tape hiss'>/8"
let wob(n) = sine.fast(n).range(0, 1)
seed = "<1 2 3 4>/2" at 8
deck drums {
  gain = "1 .5 [.2 .4]*2 1".every(4, rev)
  velocity = wob(3) * .2 + .9 over 4
  noise = rand.segment(8).range(0, .3)
  blend = "0 .3 .6 1".chunk(4, _ * .5)
  hpf = "<20 20 20 400>"
}
"""
)


def best(fn: Callable[[int], object], repeats: int = 300) -> float:
    """The least time of a call, microseconds. fn gets the number of the call."""
    least = float("inf")
    for i in range(repeats):
        begin = time.perf_counter()
        fn(i)
        least = min(least, time.perf_counter() - begin)
    return round(least * 1e6, 1)


def ours() -> dict[str, Any]:
    out: dict[str, Any] = {"minis": {}, "frames": {}}
    for text in MINIS:
        pattern = mini(text)

        def parse(_: int, text: str = text) -> None:
            parse_mini.cache_clear()
            mini(text)

        out["minis"][text] = {
            "parse": best(parse),
            "query": best(lambda i, p=pattern: p.query(i, i + 1)),
        }
    frames = np.arange(25) / 25
    for text in FRAMES:
        (lane,) = compile_source(f"blend = {text}").decks["main"].values()
        out["frames"][text] = best(lambda i, lane=lane: lane.sample(frames + i))
    lanes = list(compile_source(LANES).decks["main"].values())
    window = np.arange(1500) / 50
    for lane in lanes:
        lane.sample(window)
    out["16 lanes x 1500 frames"] = best(lambda i: [x.sample(window + i / 97) for x in lanes])

    def check(_: int) -> None:
        parse_statement.cache_clear()
        parse_mini.cache_clear()
        compile_source(SCORE)

    out["parse + check, 30 lines, cold"] = best(check, 60)
    out["parse + check, 30 lines, again"] = best(lambda _: compile_source(SCORE), 60)
    return out


def strudel() -> dict[str, Any] | None:
    if not (STRUDEL / "node_modules").is_dir():
        return None
    order = json.dumps({"minis": MINIS, "frames": FRAMES})
    run = subprocess.run(
        ["node", "bench.mjs", order], cwd=STRUDEL, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return found


def table(mine: dict[str, Any], theirs: dict[str, Any] | None) -> Iterator[str]:
    """The rows that are printed."""
    yield f"Python {platform.python_version()}, numpy {np.__version__}; microseconds, best of many"
    yield f"{'':52} {'ours parse':>10} {'query':>8} {'Strudel':>10} {'query':>8}"
    nothing = {"parse": "-", "query": "-"}
    for text in MINIS:
        a, b = mine["minis"][text], theirs["minis"][text] if theirs else nothing
        yield f"{text:52} {a['parse']:>10} {a['query']:>8} {b['parse']:>10} {b['query']:>8}"
    for text in FRAMES:
        b = theirs["frames"][text] if theirs else "-"
        yield f"{'25 frames of ' + text:52} {'':>10} {mine['frames'][text]:>8} {'':>10} {b:>8}"
    for key, value in mine.items():
        if isinstance(value, float):
            yield f"{key:52} {'':>10} {value:>8}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(ours(), strudel())) + "\n")
