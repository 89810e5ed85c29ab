"""`python -m tests.rigs.soak --minutes 60`: an everything-moving set, watched from outside.

Plays at a JACK server without hardware (or, where there is none, at the null sink), with a reload
of the moving score every few seconds, and reports: memory of every process over time, dry blocks,
underruns, ticks, the beat grid and the gaps of what the server was given.

Threads: main thread, and the reader of `Harness`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.rigs import grid, jack, latency, score
from tests.rigs.stagehand import Harness, Listening, slope_mb_per_hour

_PAUSE = threading.Event()
#: Memory is not judged before this part of the run (and at most ten minutes) has passed, nor
#: before there were as many saves as undo keeps (session.undo).
_WARM, _UNDO = 1 / 6, 64


class _Series:
    """What was seen over time.

    Of each minute the least is judged: what a process holds for a moment (arrays of a tick, until
    the next return of freed memory) is no growth, and what it never gives back is in the least.
    """

    def __init__(self) -> None:
        self.memory: dict[str, list[tuple[float, int]]] = {}
        self.turns: list[float] = []

    def take(self, at: float, stage: Harness) -> None:
        # A process that was replaced begins anew.
        for name, size in stage.memory().items():
            pid = stage.status["pids"][name]
            self.memory.setdefault(f"{name} {pid}", []).append((at, size))
        self.turns.append(float(stage.status["engine"]["tick_ms"]))

    def report(self, warm: float) -> dict[str, Any]:
        return {
            "warm_up_s": round(warm),
            "processes": {name: _growth(rows, warm) for name, rows in self.memory.items() if rows},
        }


def _growth(rows: list[tuple[float, int]], warm: float) -> dict[str, Any]:
    """rows: seconds and bytes. The slope is of each minute's least, from `warm` seconds on."""
    minutes: dict[int, tuple[float, int]] = {}
    for at, size in rows:
        if at >= warm:
            minute = int(at // 60)
            minutes[minute] = min(minutes.get(minute, (at, size)), (at, size), key=lambda r: r[1])
    least = list(minutes.values())
    return {
        "first_mb": round(rows[0][1] / 1e6, 1),
        "last_mb": round(rows[-1][1] / 1e6, 1),
        "largest_mb": round(max(size for _, size in rows) / 1e6, 1),
        "minutes": len(least),
        "least_of_each_minute_mb": [round(size / 1e6, 2) for _, size in least],
        "slope_mb_per_hour": slope_mb_per_hour([t for t, _ in least], [v for _, v in least]),
    }


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole run; its report."""
    scores = score.write(folder / "scores")
    seconds = options.minutes * 60
    with contextlib.ExitStack() as stack:
        env = {**os.environ, "DEMON_STATE": str(folder / "state")}
        words = ["--audio", "null"]
        server = None
        if options.sink == "jack":
            server = stack.enter_context(jack.Server(folder, options.frames))
            env = {**server.env, "DEMON_STATE": str(folder / "state")}
            words = ["--audio", "device", "--device", "system"]
        env["DEMON_TAP"] = str(folder / "tap")
        stage = stack.enter_context(Harness(scores, folder, env, *words))
        if not stage.wait(lambda: stage.status.get("engine", {}).get("generations", 0) > 8, 120):
            raise RuntimeError(f"it does not play: {stage.events[-5:]} {stage.status}")
        if options.nice is not None:
            stage.weigh(options.nice)
        capture = None
        if server is not None:
            server.raise_priority(stage.status["pids"]["audio"])
            capture = server.capture(folder / "capture.wav", seconds + 600)
        _warm_up(stage, scores[1], options.warm_reloads)
        # Joining the server's graph may cost it a block, which is not what is measured.
        _PAUSE.wait(3)
        watch = latency.Watch(env)
        stack.callback(watch.close)
        before = stage.fresh()
        series, cpu = _Series(), stage.cpu()
        begun = time.monotonic()
        listening = Listening(folder / "tap")
        stack.callback(listening.close)
        reloads = _watch(stage, series, scores[1], begun, seconds, options)
        heard = listening.close()
        took = time.monotonic() - begun
        after, used = stage.fresh(), stage.cpu()
        machine = watch.close()
        if capture is not None and server is not None:
            server.stop(capture)
        closed = stage.close()
        report = {
            "minutes": round(took / 60, 2),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, load {os.getloadavg()[1]:.1f}",
            "sink": f"{options.sink} {options.frames} frames"
            + (f", realtime {server.realtime}" if server else ""),
            "reloads": reloads,
            "sound": _counts(before, after),
            "machine_itself": machine,
            "server_xruns": server.xruns if server else None,
            "engine": _engine(before, after, series),
            "cpu_cores": {k: round((used[k] - cpu[k]) / took, 3) for k in used if k in cpu},
            "memory": series.report(_warm(took, options)),
            "closed_by_itself": closed,
            "heard": heard,
            "events": _told(stage),
        }
    if capture is not None:
        pieces = grid.read_wav24(folder / "capture.wav")
        report["recording"] = grid.analyse(pieces, score.PERIOD, options.frames)
    report["verdict"] = _verdict(report)
    return report


def _warm(took: float, options: argparse.Namespace) -> float:
    """Seconds after which memory is judged: what is bounded must be full, undo with its 64 steps
    above all."""
    left = max(0, _UNDO + 6 - options.warm_reloads)
    return min(max(min(600.0, took * _WARM), left * options.reload), took / 2)


def _warm_up(stage: Harness, edited: Path, reloads: int) -> None:
    """Enough saves to fill what is bounded but not yet full: undo, caches, plans."""
    for turn in range(reloads):
        edited.write_text(score.moving(turn + 1))
        _PAUSE.wait(1.0)


def _watch(
    stage: Harness, series: _Series, edited: Path, begun: float, seconds: float,
    options: argparse.Namespace,
) -> int:  # fmt: skip
    """Saves the moving score again and again, and looks at the memory. Number of saves."""
    turn, looked = 0, -1e9
    while (at := time.monotonic() - begun) < seconds:
        if stage.process.poll() is not None:
            raise RuntimeError(f"it ended after {at:.0f} s: {stage.events[-5:]}")
        if at >= turn * options.reload:
            turn += 1
            edited.write_text(score.moving(turn))
        if at - looked >= options.look:
            looked = at
            series.take(at, stage)
        if options.progress:
            partial = {
                "at_s": round(at),
                "status": stage.status,
                "memory": series.report(_warm(seconds, options)),
            }
            Path(options.progress).write_text(json.dumps(partial, default=str))
        _PAUSE.wait(min(1.0, options.reload))
    return turn


def _counts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    names = ("dry", "dry_samples", "underruns", "failures", "bad", "errors", "played", "callbacks")
    return {n: after["bus"][n] - before["bus"][n] for n in names}


def _engine(before: dict[str, Any], after: dict[str, Any], series: _Series) -> dict[str, Any]:
    was, now = before["engine"], after["engine"]
    wall = after["at"] - before["at"]
    rows = {k: v for k, v in now.items() if k not in ("alive", "slots")}
    return {
        **rows,
        "ticks_per_s": round((now["ticks"] - was["ticks"]) / wall, 2),
        "generations_per_s": round((now["generations"] - was["generations"]) / wall, 2),
        "tick_ms_seen": [round(min(series.turns), 1), round(max(series.turns), 1)]
        if series.turns
        else [],
    }


def _told(stage: Harness) -> dict[str, Any]:
    """What the performer was told, but for the reloads."""
    rows = [text for _, text in stage.events if "moving.demon" not in text and text[:2] != "  "]
    return {"count": len(stage.events), "other": rows[:40]}


def _verdict(report: dict[str, Any]) -> dict[str, bool]:
    slopes = [p["slope_mb_per_hour"] for p in report["memory"]["processes"].values()]
    verdict = {
        "no_dry": report["sound"]["dry"] == 0,
        "no_underruns": report["sound"]["underruns"] == 0,
        "memory_flat": max(slopes, default=0.0) < 1.0,
        "closed": report["closed_by_itself"],
        "no_restart": report["engine"]["restarts"] == 0,
    }
    heard = report["heard"]
    verdict["grid_2ms"] = heard["grid"].get("worst_ms", 99) <= 2.0 and not heard["grid"]["missing"]
    verdict["no_gap_10ms"] = heard["gaps"]["longest_ms"] <= 10
    return verdict


def main() -> int:
    words = argparse.ArgumentParser(prog="soak", description=__doc__)
    words.add_argument("--minutes", type=float, default=60.0)
    words.add_argument("--sink", choices=("jack", "null"),
                       default="jack" if jack.available() else "null")  # fmt: skip
    words.add_argument("--frames", type=int, default=512, help="of a block of the server")
    words.add_argument("--reload", type=float, default=5.0, metavar="S", help="seconds")
    words.add_argument("--warm-reloads", type=int, default=0, metavar="N", help="before it counts")
    words.add_argument("--look", type=float, default=10.0, metavar="S", help="at the memory")
    words.add_argument("--nice", type=int, help="of the sessions of main and engine process")
    words.add_argument("--out", type=Path, help="where the JSON report goes (else stdout)")
    words.add_argument("--progress", type=Path, help="a JSON file that is kept up to date")
    words.add_argument("--folder", type=Path, help="scratch; kept if given")
    options = words.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demon-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        report = soak(options, folder)
    text = json.dumps(report, indent=2, default=str)
    if options.out:
        options.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0 if all(report["verdict"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
