"""Twenty sets on a local Ray of two workers, one of which is killed in the middle.

    python -m tests.rigs.farm [--sets 20] [--cycles 2] [--json FILE]

Each set is rendered by one process first; then by the farm, whose worker is ended by SIGKILL when a
quarter is done; then the farm is asked again, and has nothing to do. Bytes are compared.

Threads: main thread, and one that kills.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from demon_live.remote.ray import Ray
from demon_live.replay.farm import Farm, How, Job, jobs
from demon_live.replay.render import render
from demon_live.sets.journal import Journal, SetEvent

__all__ = ["main", "write_sets"]

_PROMPTS = ("acid, 303", "dub chord, delay", "deep house, organ", "breaks, fill", "ambient, pad")
_SOURCES = ("house_124.flac", "dub_120.flac", None)
_START = {"engine": "imp", "seed": 0}


def write_sets(folder: Path, count: int, cycles: int) -> list[Path]:
    """Sets of two causes each: a score, and an edit of it half way."""
    out = []
    for n in range(count):
        source = _SOURCES[n % 3]
        rows = ["tempo 125", "loop 1", f'source "loops/{source}"' if source else "source none"]
        rows += [f"prompt = '{_PROMPTS[n % 5]}'", 'denoise = "<.5 .8>"', f"seed = {n}"]
        length = cycles * 92160
        journal = Journal({**_START, "seed": n})
        journal.write(SetEvent("apply", 0, "\n".join(rows), "a.demon", "file"))
        journal.write(SetEvent("apply", length // 2, "blend = sine.slow(2) now", "<repl>", "repl"))
        path = folder / f"set{n:02d}.set.jsonl"
        journal.open(path)
        journal.close(length)
        out.append(path)
    return out


def _killer(farm: Farm, after: int, killed: list[int]) -> None:
    """Ends the worker that has worked longest, once `after` jobs are done."""
    while farm._done < after:
        time.sleep(0.05)
    mine = [
        p
        for p in psutil.Process().children(recursive=True)
        if p.is_running() and "ray::" in " ".join(p.cmdline()) and "_worked" in p.cmdline()[0]
    ]
    for process in sorted(mine, key=lambda p: p.create_time())[:1]:
        killed.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)


def measure(sets: int, cycles: int) -> dict[str, Any]:
    """The figures."""
    with tempfile.TemporaryDirectory(prefix="demon-farm-") as name:
        folder = Path(name)
        paths = write_sets(folder, sets, cycles)
        begun = time.monotonic()
        reference = {}
        from demon_live.models.engine import open_engine

        engine = open_engine("imp")
        for path in paths:
            out = folder / "one" / f"{path.name.split('.')[0]}.wav"
            out.parent.mkdir(exist_ok=True)
            render(path, out, engine=engine)
            reference[out.name] = out.read_bytes()
        alone = time.monotonic() - begun
        engine.close()
        begun = time.monotonic()
        every: list[Job] = jobs(paths, How())
        said: list[str] = []
        farm, killed = Farm(folder / "farm", said.append), list[int]()
        with Ray(None, 2) as ray:
            opened = time.monotonic() - begun
            begun = time.monotonic()
            thread = threading.Thread(target=_killer, args=(farm, sets // 4, killed), daemon=True)
            thread.start()
            farm.run(every, ray)
            took = time.monotonic() - begun
        equal = [n for n, data in reference.items() if (folder / "farm" / n).read_bytes() == data]
        again: list[str] = []
        left = Farm(folder / "farm", again.append).missing(every)
        return {
            "sets": sets,
            "seconds_of_each": cycles * 92160 / 48000,
            "one_process_s": round(alone, 1),
            "farm_of_2_s": round(took, 1),
            "ray_starts_in_s": round(opened, 1),
            "times_one_process": round(alone / took, 2),
            "killed": len(killed),
            "given_out_again": farm.lost,
            "failed": sorted(farm.failed),
            "bytes_equal": len(equal),
            "left_to_do_when_asked_again": len(left),
            "load": round(os.getloadavg()[0], 1),
            "said": said,
        }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.farm")
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    text = json.dumps(measure(args.sets, args.cycles), indent=2)
    if args.json is not None:
        args.json.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201


if __name__ == "__main__":
    main()
