"""`python -m tests.rigs.table`: every fault point once, on the whole instrument: what was heard,
what was shown, what was lost. Prints JSON, or with --markdown the rows of the README's table.

Threads: main thread; `--jobs` instruments play beside each other.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rigs import latency, score
from tests.rigs.stagehand import Harness, Listening

_PAUSE = threading.Event()


@dataclass(frozen=True)
class Case:
    """faults: a DEMON_FAULTS. says: what must be shown. reload: save the score now and then."""

    name: str
    faults: str
    says: str
    reload: bool = False


CASES = (
    Case("slow ticks (factor 6)", "tick.slow=6", "gives up"),
    Case("engine stalls 1 s each 4 s", "tick.stall=1@4s", ""),
    Case("model gives NaN", "latent.nan@10+", "cannot be heard"),
    Case("model explodes", "latent.explode=1e6@10+", "cannot be heard"),
    Case("decoder gives NaN", "pcm.nan@6+", "cannot be heard"),
    Case("engine killed", "engine.crash@12", "started again"),
    Case("out of memory", "engine.oom@10+", "out of memory"),
    Case("weights corrupt", "weights.corrupt", "cannot be used"),
    Case("clock jumps 2 s", "clock.jump=2@6s", ""),
    Case("disk full, then room", "disk.full@6", "nothing was lost"),
    Case("score half written", "score.half@4", "", True),
    Case("save not told by the system", "watch.overflow", "moving.demon", True),
)


def run(case: Case, seconds: float) -> dict[str, Any]:
    """One case; its row."""
    with tempfile.TemporaryDirectory(prefix="demon-table-") as scratch:
        folder = Path(scratch)
        env = {**os.environ, "DEMON_STATE": str(folder / "state"), "DEMON_FAULTS": case.faults,
               "DEMON_TAP": str(folder / "tap")}  # fmt: skip
        scores = score.write(folder / "scores")
        with Harness(scores, folder, env, "--audio", "null") as stage:
            stage.wait(lambda: bool(stage.status), 120)
            listening, watch = Listening(folder / "tap"), latency.Watch()
            program = stage.fresh()["program"]

            def seen() -> bool:
                return bool(case.says) and any(case.says in text for _, text in stage.events)

            # Under load the engine may need minutes to come to the fault.
            for turn in range(1, int(seconds) + 1):
                if case.reload and turn % 6 == 0:
                    scores[1].write_text(score.moving(turn))
                _PAUSE.wait(1)
                if seen() and turn >= 20:
                    break
            stage.apply("denoise = .5")
            after = stage.fresh()
            heard, machine = listening.close(), watch.close()
            stage.close()
        decks = after["program"]["decks"]
        kept = case.reload or all(
            decks.get(name) == lanes for name, lanes in program["decks"].items()
        )
        shown = list(dict.fromkeys(text for _, text in stage.events))
        right = next((t for t in shown if case.says and case.says in t), "")
        return {
            "name": case.name,
            "faults": case.faults,
            "seconds": heard["seconds"],
            "gap_ms": heard["gaps"]["longest_ms"],
            "beat_ms": heard["grid"].get("worst_ms"),
            "missing_beats": heard["grid"].get("missing"),
            "dry": after["bus"]["dry"],
            "bad": after["bus"]["bad"],
            # What comes late by itself: other programs, or the host of a virtual machine.
            "null_clock_late": after["bus"]["late"],
            "machine_worst_ms": machine.get("worst_ms"),
            "load": round(os.getloadavg()[0], 1),
            "dropped": after["engine"]["dropped"],
            "restarts": after["engine"]["restarts"],
            "shown": right or (shown[-1] if shown else ""),
            "shown_as_meant": bool(right) or not case.says,
            "program_kept": kept,
            "answers": decks.get("main", {}).get("denoise") == ".5",
        }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["| fault | heard | shown | lost |", "|---|---|---|---|"]
    for r in rows:
        beat = f"beat within {r['beat_ms']} ms" if r["beat_ms"] is not None else "too short to say"
        if r["missing_beats"]:
            beat = f"{r['missing_beats']} beats elsewhere, since time stood still or leapt"
        heard = f"longest gap {r['gap_ms']} ms, {beat}, dry {r['dry']:.0f}"
        shown = f"“{r['shown']}”" if r["shown_as_meant"] and r["shown"] else "nothing to show"
        lost = "nothing" if r["program_kept"] and r["answers"] else "SOMETHING"
        lines.append(f"| {r['name']} (`{r['faults']}`) | {heard} | {shown} | {lost} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    words = argparse.ArgumentParser(prog="table", description=__doc__)
    words.add_argument("--seconds", type=float, default=120.0, help="of a case, at most")
    words.add_argument("--jobs", type=int, default=1)
    words.add_argument("--only", default="", help="cases whose name has this in it")
    words.add_argument("--markdown", action="store_true")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    rows: list[dict[str, Any]] = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        cases = [c for c in CASES if options.only in c.name]
        for done in concurrent.futures.as_completed(
            pool.submit(run, case, options.seconds) for case in cases
        ):
            rows.append(done.result())
            if options.out:
                options.out.write_text(json.dumps(rows, indent=2) + "\n")
    rows.sort(key=lambda r: [c.name for c in CASES].index(r["name"]))
    sys.stdout.write(markdown(rows) if options.markdown else json.dumps(rows, indent=2) + "\n")
    return 0 if all(r["program_kept"] and r["answers"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
