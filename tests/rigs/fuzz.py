"""`python -m tests.rigs.fuzz --count 1000000`: hostile scores, sets, packets, messages, calls.

Each input is made from a corpus by seeded mutation, so that (seed, target, number) makes it again:
`--target scores --first 4711 --count 1`. An input passes if it is accepted or refused with a
DemonError, within 50 ms of CPU time (the least of three, so that a busy machine does not count),
and if no file outside the given folder was opened for it.

Threads: main thread; `--jobs` are processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.rigs import targets

__all__ = ["fuzz", "mutated"]

#: CPU seconds that one input may take, and those it may take more for each letter over 2,000: the
#: work may grow with the text (a score has up to 64 KiB), not faster than it.
LIMIT, LETTER, FREE = 0.05, 25e-6, 2000
#: How the inputs are shared out.
SHARES = {"scores": 0.36, "edits": 0.08, "sets": 0.15, "manifests": 0.11, "osc": 0.1, "web": 0.1,
          "lsp": 0.03, "mcp": 0.05, "stdin": 0.02}  # fmt: skip
_NASTY = (
    "\x00", "\ufeff", "\u202e", "\r", "\x1b[2J", "é", "🎛", "\ud800", "1e309", "-1e309", "nan",
    "inf", "99999999999999999999", "0.0000000001", "1/0", "(((((((", "[[[[[[[", "<<<<", "{", "}",
    "'", '"', "\\", "../../../etc/passwd", "/etc/passwd", "~", "$(id)", "*1000000", "!999", "@0",
    "(3,8,1)", "|", "..", "?", ",", "~~", "_", " . ", "%0", "\n", "\t", "#", "=", "now", "over 0",
    "at 0", "0 .. 9999", "true", "null", "[]", "{}", ":", ";",
)  # fmt: skip


def mutated(rng: random.Random, corpus: list[str], words: list[str], longest: int) -> str:
    """A text of the corpus, or a few of its lines, changed one to eight times."""
    text = rng.choice(corpus)
    rows = text.splitlines()
    if len(rows) > 3 and rng.random() < 0.6:
        start = rng.randrange(len(rows))
        text = "\n".join(rows[start : start + rng.randint(1, 4)])
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        text = _CHANGES[rng.randrange(len(_CHANGES))](rng, text, corpus, words)
    return text[:longest]


def _insert(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(words) + text[at:]


def _nasty(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(_NASTY) + text[at:]


def _delete(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + text[at + rng.randint(1, 12) :]


def _repeat(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    at = rng.randint(0, len(text))
    piece = text[at : at + rng.randint(1, 20)]
    many = rng.choice((2, 3, 8, 64, 700))
    return text[:at] + piece * many + text[at:]


def _swap(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    cuts = sorted(rng.randint(0, len(text)) for _ in range(3))
    a, b, c = cuts
    return text[:a] + text[b:c] + text[a:b] + text[c:]


def _splice(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    other = rng.choice(corpus)
    return text[: rng.randint(0, len(text))] + other[rng.randint(0, len(other)) :]


def _flip(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    if not text:
        return text
    at = rng.randrange(len(text))
    return text[:at] + chr((ord(text[at]) ^ (1 << rng.randrange(7))) or 1) + text[at + 1 :]


def _number(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    digits = [i for i, c in enumerate(text) if c.isdigit()]
    if not digits:
        return text
    at = rng.choice(digits)
    return text[:at] + str(rng.choice((0, -1, 7, 64, 1e9, 1e300, 0.001))) + text[at + 1 :]


def _word(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    """Another word, or another small number, in the place of one: often still a score."""
    found = list(re.finditer(r"[a-z_]+|[0-9.]+", text))
    if not found:
        return text
    old = rng.choice(found)
    new = str(rng.choice((0, 1, 2, 3, 0.25, 16))) if old[0][0] in "0123456789." else ""
    return text[: old.start()] + (new or rng.choice(words).strip(" .(=")) + text[old.end() :]


def _append(rng: random.Random, text: str, corpus: list[str], words: list[str]) -> str:
    return f"{text}\n{rng.choice(rng.choice(corpus).splitlines() or [''])}"


_CHANGES = (_insert, _nasty, _delete, _repeat, _swap, _splice, _flip, _number, _word, _word, _word,
            _append)  # fmt: skip


class _Opened:
    """Which files are opened, by the interpreter's own audit hook."""

    def __init__(self) -> None:
        self.on = False
        self.names: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in ("open", "os.system", "subprocess.Popen", "exec", "socket.connect"):
            name = arguments[0] if arguments else ""
            if event == "exec" or isinstance(name, int):
                return
            self.names.append(f"{event} {name!r}"[:300])


def _run(
    name: str, seed: int, first: int, count: int, folder: Path, seconds: float
) -> dict[str, Any]:
    """One stretch of one target, in this process."""
    target = targets.make(name, folder)
    if target is None:
        return {"target": name, "count": 0, "skipped": "it is not part of this version"}
    opened = _OPENED or _Opened()
    seen: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    slowest, done, begun = 0.0, 0, time.monotonic()
    slow: list[dict[str, Any]] = []
    for number in range(first, first + count):
        rng = random.Random(f"{seed}/{name}/{number}")
        given = target.make(rng, mutated)
        opened.names.clear()
        opened.on = True
        took, outcome = _once(target.take, given)
        opened.on = False
        limit = LIMIT + LETTER * max(0, _length(given) - FREE)
        for _ in range(2):
            if took > LIMIT:
                took = min(took, _once(target.take, given)[0])
        slowest = max(slowest, took)
        if took > LIMIT:
            slow.append({"number": number, "cpu_ms": round(took * 1000, 1),
                         "length": _length(given), "outcome": outcome[:8]})  # fmt: skip
        seen[outcome.split("\n", 1)[0] if outcome in ("ok", "refused") else "failed"] += 1
        outside = [n for n in opened.names if not target.allowed(n)]
        if outcome not in ("ok", "refused") or took > limit or outside:
            bad.append(
                {"number": number, "outcome": outcome[-2000:], "cpu_ms": round(took * 1000, 1),
                 "hang": took > limit, "outside": outside[:3], "input": repr(given)[:600]}
            )  # fmt: skip
        done += 1
        if seconds and time.monotonic() - begun > seconds:
            break
    return {"target": name, "first": first, "count": done, "outcomes": dict(seen),
            "slowest_ms": round(slowest * 1000, 1), "over_50_ms": slow, "bad": bad}  # fmt: skip


def _length(given: Any) -> int:
    return max((len(g) for g in (given if isinstance(given, tuple) else (given,))
                if isinstance(g, str | bytes)), default=0)  # fmt: skip


_OPENED: _Opened | None = None


def _once(take: Callable[[Any], bool], given: Any) -> tuple[float, str]:
    """CPU seconds, and ok, refused, or the traceback."""
    before = time.thread_time()
    try:
        outcome = "ok" if take(given) else "refused"
    # Whatever a door lets through is what the fuzzer looks for.
    except Exception:  # noqa: BLE001
        outcome = traceback.format_exc()
    return time.thread_time() - before, outcome


def fuzz(
    count: int,
    *,
    seed: int = 1,
    only: Iterable[str] = (),
    first: int = 0,
    seconds: float = 0.0,
    jobs: int = 1,
    progress: Path | None = None,
) -> dict[str, Any]:
    """The whole run; its report. seconds: each target stops after this (0: when all is done)."""
    global _OPENED
    _OPENED = _Opened()
    names = list(only) or list(SHARES)
    whole = sum(SHARES[n] for n in names)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="demon-fuzz-") as scratch:
        folder = Path(scratch)
        work = [
            (name, seed, start, size, folder, seconds)
            for name in names
            for start, size in _stretches(first, round(count * SHARES[name] / whole), seconds)
        ]
        # Alternate, so that all targets are part of a run that is cut short.
        work.sort(key=lambda row: row[2])
        if jobs > 1:
            with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=20) as pool:
                for row in pool.imap_unordered(_star, work):
                    rows.append(row)
                    _note(progress, rows, seed)
        else:
            for item in work:
                rows.append(_run(*item))
                _note(progress, rows, seed)
    return _report(rows, seed)


def _star(item: Any) -> dict[str, Any]:
    global _OPENED
    _OPENED = _OPENED or _Opened()
    return _run(*item)


def _stretches(first: int, count: int, seconds: float) -> list[tuple[int, int]]:
    size = count if seconds else 5000
    return [(s, min(size, first + count - s)) for s in range(first, first + count, max(size, 1))]


def _note(progress: Path | None, rows: list[dict[str, Any]], seed: int) -> None:
    if progress is not None:
        progress.write_text(json.dumps(_report(rows, seed), indent=1))


def _report(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    targets_: dict[str, Any] = {}
    for row in rows:
        kept = targets_.setdefault(
            row["target"],
            {"count": 0, "outcomes": Counter(), "slowest_ms": 0.0, "over_50_ms": 0, "slow": [],
             "failures": 0, "hangs": 0, "outside": 0, "bad": []},
        )  # fmt: skip
        if "skipped" in row:
            kept["skipped"] = row["skipped"]
            continue
        kept["count"] += row["count"]
        kept["outcomes"].update(row["outcomes"])
        kept["over_50_ms"] += len(row["over_50_ms"])
        slow = sorted([*kept["slow"], *row["over_50_ms"]], key=lambda r: -r["cpu_ms"])
        kept["slow"] = slow[:40]
        kept["slowest_ms"] = max(kept["slowest_ms"], row["slowest_ms"])
        for bad in row["bad"]:
            kept["failures"] += bad["outcome"] not in ("ok", "refused")
            kept["hangs"] += bad["hang"]
            kept["outside"] += bool(bad["outside"])
        kept["bad"] = (kept["bad"] + row["bad"])[:60]
    total = {k: sum(t[k] for t in targets_.values()) for k in ("count", "failures", "hangs")}
    total["outside"] = sum(t["outside"] for t in targets_.values())
    return {"seed": seed, "limit_ms": LIMIT * 1000, "total": total, "targets": targets_,
            "python": sys.version.split()[0], "cores": os.cpu_count()}  # fmt: skip


def main() -> int:
    words = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    words.add_argument("--count", type=int, default=1_000_000)
    words.add_argument("--seconds", type=float, default=0.0, help="at most, for each target")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--first", type=int, default=0)
    words.add_argument("--target", action="append", choices=tuple(SHARES), default=[])
    words.add_argument("--jobs", type=int, default=1)
    words.add_argument("--out", type=Path)
    words.add_argument("--progress", type=Path)
    options = words.parse_args()
    report = fuzz(
        options.count,
        seed=options.seed,
        only=options.target,
        first=options.first,
        seconds=options.seconds,
        jobs=options.jobs,
        progress=options.progress,
    )
    text = json.dumps(report, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 1 if any(report["total"][k] for k in ("failures", "hangs", "outside")) else 0


if __name__ == "__main__":
    sys.exit(main())
