"""Completions a second of one GPU worker, and of N that play as one ring.

    python -m tests.rigs.multi_gpu --engine E --gpus 2 --out FILE.json [--depth D] [--ahead 1]

Each worker has a process of its own and sees one GPU; without enough GPUs they are simulated by
processes of one CPU thread each, and the figures say so. Every worker has the depth that is asked
for, so N workers hold N times the generations: completions grow with N, and the wait from one to
the next falls.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.bench.common import Figures, Options, machine
from demon_live.core import RATES, Request
from demon_live.engine.gpu_workers import ConditionArguments, ProcessLink, WorkerOptions
from demon_live.engine.multi_gpu import MultiGpuRing

#: Milliseconds, in the environment of a worker that waits.
_WAITS = "DEMON_BENCH_WAITS"


class _Waiting(ProcessLink):
    """A worker whose model takes a given time, and no processor."""

    MODULE = "tests.rigs.multi_gpu"


def worker_main(fd: int) -> None:
    """See `gpu_workers.worker_main`: a model that waits."""
    from demon_live.engine import gpu_workers

    def wait(engine: Any) -> None:
        seconds = float(os.environ[_WAITS]) / 1000

        def velocity(x: Any, t: Any, rows: Any) -> Any:
            time.sleep(seconds)
            return x

        engine.velocity = velocity

    gpu_workers.worker_main(fd, wait)


def gpus() -> int:
    """How many GPUs this machine shows; found without loading a driver into this process."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        if said.returncode == 0:
            return len(said.stdout.split())
    return 0


def measure(
    links: Sequence[ProcessLink], depth: int, frames: int, seconds: float, ahead: int
) -> dict[str, Any]:
    """Ticks, completions a second and the wait for them, of a full ring for `seconds`."""
    info, *_ = [link.info() for link in links]
    bars = max(1, round(frames / RATES.frame_hz / 2))
    more = (("bpm", 120.0), ("cycles", bars), ("beats", 4), ("frames", frames))
    words = ConditionArguments("techno", more)
    seeds = count()
    source = np.zeros((frames, info.channels), np.float32)

    def admit(deck: str) -> Request:
        return Request(frames, info.channels, 0.7, next(seeds), source, condition=words, deck=deck)

    workers = len(links)
    ring = MultiGpuRing(
        links,
        steps=info.steps,
        depth=depth * workers,
        shift=info.shift,
        on_admit=admit,
        ahead=ahead,
    )
    ring.enlist("main")
    # Until every shape is compiled and captured, and the ring is full.
    for _ in range(3 * info.steps):
        ring.tick()
    ticks, done, begun = [], [], time.perf_counter()
    while (now := time.perf_counter()) - begun < seconds:
        done.append(len(ring.tick()))
        ticks.append(time.perf_counter() - now)
    spent = time.perf_counter() - begun
    # The workers go on to the next measurement, with nothing in flight.
    ring.flush()
    tick = float(np.median(ticks)) * 1000
    worst = info.steps + -(-info.steps // (depth * workers)) - 1 + ahead
    return {
        "workers": workers,
        "depth": depth * workers,
        "ticks": len(ticks),
        "tick_ms": round(tick, 2),
        "tick_p95_ms": round(float(np.percentile(ticks, 95)) * 1000, 2),
        "generations_per_s": round(sum(done) / spent, 2),
        "ms_between_completions": round(spent * 1000 / max(1, sum(done)), 2),
        "first_effect_ms": round(worst * tick, 1),
    }


def figures(
    options: Options,
    workers: int = 2,
    seconds: float = 6.0,
    ahead: int = 1,
    device: str = "auto",
    waits: float = 0.0,
) -> Figures:
    """One worker beside N, in the same run: one, N, one, N, so that a machine whose speed drifts
    shows it. waits: instead of computing, the model waits for so many ms, as the host of a GPU
    does: what is measured is everything but the model."""
    there = gpus() if device != "cpu" else 0
    real = there >= workers
    frames = round(options.seconds * RATES.frame_hz)
    frames += frames % 2
    depth = options.depth or 4
    plans = [
        WorkerOptions(
            options.engine,
            options.backend,
            "cuda" if real else "cpu",
            None if real else 1,
            options.random_weights,
            str(n) if real else None,
        )
        for n in range(workers)
    ]
    environ = {} if real else {"OMP_NUM_THREADS": "1"}
    if waits:
        environ[_WAITS] = str(waits)
    kind = _Waiting if waits else ProcessLink
    links = [kind(plan, environ) for plan in plans]
    try:
        name, *_ = [link.info().text for link in links]
        part = seconds / 4
        rows = [measure(links[:n], depth, frames, part, ahead) for n in (1, workers) * 2]
    finally:
        for link in links:
            link.close()
    rate = {n: [r["generations_per_s"] for r in rows if r["workers"] == n] for n in (1, workers)}
    ratio = [b / a for a, b in zip(rate[1], rate[workers], strict=True)]
    return {
        "engine": f"a model that waits {waits:g} ms" if waits else name,
        "on": f"{workers} GPUs" if real else f"{workers} processes of one CPU thread: simulated",
        "loop_s": frames / RATES.frame_hz,
        "depth_of_a_worker": depth,
        "ahead": ahead,
        "rings": rows,
        "times_one_worker": round(float(np.mean(ratio)), 3),
        "times_one_worker_each_run": ", ".join(f"{r:.3f}" for r in ratio),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.multi_gpu")
    parser.add_argument("--engine", default="imp")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--loop", type=float, default=16.0, help="seconds of the loop")
    parser.add_argument("--seconds", type=float, default=8.0, help="to measure, in all")
    parser.add_argument("--waits", type=float, default=0.0, help="ms, instead of a model")
    parser.add_argument("--ahead", type=int, default=1)
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    options = Options(args.engine, args.backend, args.depth, args.loop, args.random_weights)
    found = figures(options, args.gpus, args.seconds, args.ahead, args.device, args.waits)
    text = json.dumps({"machine": machine(), **found}, indent=2)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201


if __name__ == "__main__":
    main()
