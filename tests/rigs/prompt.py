"""Prompts that are killed: the session is a process of its own, plays on, and takes the next one.

Threads: main thread, and the reader of `Listening`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demon_live.sets.journal import load
from tests.rigs import score
from tests.rigs.stagehand import Listening

__all__ = ["kill_prompts"]

_PAUSE = threading.Event()
_ROOT = Path(__file__).resolve().parents[2]
DEMON = [sys.executable, "-m", "demon_live"]


def kill_prompts(
    folder: Path, env: Mapping[str, str], count: int, rng: random.Random, seconds: float = 7200.0
) -> dict[str, Any]:
    """`demon live` on a terminal, its prompt killed; then `demon attach`, killed, `count` times."""
    import pexpect

    name = f"chaos-{os.getpid()}"
    path = os.pathsep.join(filter(None, (str(_ROOT), env.get("PYTHONPATH", ""))))
    env = {**env, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONPATH": path,
           "DEMON_AUDIO": "null"}  # fmt: skip

    def prompt(*words: str) -> Any:
        return pexpect.spawn(
            DEMON[0], [*DEMON[1:], *words, "--name", name], env=dict(env), cwd=str(folder),
            dimensions=(30, 100), timeout=240, encoding="utf-8",
        )  # fmt: skip

    typed: list[str] = []
    rows: list[dict[str, Any]] = []
    scores = [str(p) for p in score.write(folder / "scores")]
    front = prompt("live", *scores)
    listening = None
    try:
        front.expect("for help")
        listening = Listening(folder / "tap")
        began = time.monotonic()
        for turn in range(count):
            if time.monotonic() - began > seconds:
                break
            text = f"moving.denoise = .{turn + 100}"
            front.send(text + "\r")
            answered = rng.random() < 0.5
            if answered:
                # The echo of what was typed, then the answer to it.
                front.expect(rf"\.{turn + 100}[^\r\n]*from bar")
            else:
                _PAUSE.wait(rng.uniform(0.0, 0.3))
            os.kill(front.pid, signal.SIGKILL)
            front.wait()
            if answered:
                typed.append(text)
            begun = time.monotonic()
            front = prompt("attach")
            front.expect("for help|playing")
            rows.append({"attached_s": round(time.monotonic() - begun, 2), "answered": answered})
        heard = listening.close()
    finally:
        with contextlib.suppress(OSError):
            os.kill(front.pid, signal.SIGKILL)
        stopped = subprocess.run(
            [*DEMON, "stop", "--name", name], env=dict(env), cwd=folder, capture_output=True,
            text=True, check=False, timeout=120,
        )  # fmt: skip
    (log,) = (folder / "state" / "sessions").glob("*.set.jsonl")
    found = [e.text for e in load(log).events]
    lost = [t for t in typed if t not in found]
    times = sorted(r["attached_s"] for r in rows)
    return {
        "kills": len(rows),
        "attached_again": len(rows),
        "attached_s": {"min": times[0], "median": times[len(times) // 2], "max": times[-1]},
        "answered": len(typed),
        "lost": len(lost),
        "stopped": stopped.returncode == 0,
        "heard": heard,
        "ok": not lost and stopped.returncode == 0 and heard["gaps"]["longest_ms"] <= 10,
    }
