"""`python -m tests.rigs.chaos engine|group|prompt|storm`: processes that are killed, engines that
stall, storms of reloads; what was heard, and what was lost.

    engine   kill -9 of the engine at random moments (0 to 4 s after it is back): sound, beat,
             time to its first tick and its first generation, program
    group    kill -9 of session, engine and audio at once: the log, and a session resumed from it
    prompt   kill -9 of the prompt of a session that is its own process: sound, `attach` finds it
    storm    a reload every 200 ms, a parser in a loop, gc, the engine stalled 300 ms each 20 s

Threads: main thread, and the readers of `Harness` and `Listening`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from demon_live.sets.session_log import find_interrupted
from tests.rigs import jack, latency, score
from tests.rigs.prompt import kill_prompts
from tests.rigs.stagehand import Harness, Listening

_PAUSE = threading.Event()


class Room:
    """A folder, an environment and, where there is one, a JACK server for a stage."""

    def __init__(
        self, stack: contextlib.ExitStack, folder: Path, options: argparse.Namespace
    ) -> None:
        self.folder, self.options = folder, options
        self.env = {**os.environ, "DEMON_STATE": str(folder / "state")}
        self.words = ["--audio", "null"]
        self.server: jack.Server | None = None
        if options.sink == "jack":
            self.server = stack.enter_context(jack.Server(folder))
            self.env = {**self.server.env, "DEMON_STATE": str(folder / "state")}
            self.words = ["--audio", "device", "--device", "system"]
        self.env["DEMON_TAP"] = str(folder / "tap")
        self.scores = score.write(folder / "scores")

    def stage(self, *more: str, faults: str = "", generations: int = 2) -> Harness:
        """An instrument that plays, and whose engine has made so many generations."""
        env: Mapping[str, str] = {**self.env, **({"DEMON_FAULTS": faults} if faults else {})}
        stage = Harness(self.scores, self.folder, env, *self.words, *more)
        if not stage.wait(
            lambda: stage.status.get("engine", {}).get("generations", -1) >= generations, 240
        ):
            stage.close()
            raise RuntimeError(f"it does not play: {stage.events[-3:]}")
        if self.server is not None:
            self.server.raise_priority(stage.status["pids"]["audio"])
        if self.options.nice is not None:
            stage.weigh(self.options.nice)
        return stage


def kill_engines(room: Room, count: int, rng: random.Random) -> dict[str, Any]:
    """The engine dies `count` times while it plays."""
    rows: list[dict[str, Any]] = []
    with room.stage("--every", "0.1") as stage:
        listening, watch = Listening(room.folder / "tap"), latency.Watch()
        before = stage.fresh()
        begun = time.monotonic()
        while len(rows) < count and time.monotonic() - begun < room.options.seconds:
            _PAUSE.wait(rng.uniform(0.0, 4.0))
            status = stage.fresh()
            pid, restarts = status["pids"]["engine"], status["engine"]["restarts"]
            spent = _cpu(status["pids"].get("spare"))
            os.kill(pid, signal.SIGKILL)
            died = time.monotonic()

            def ticks(restarts: int = restarts) -> bool:
                engine = stage.status["engine"]
                return engine["restarts"] > restarts and engine["alive"] and engine["ticks"] > 0

            def plays() -> bool:
                return ticks() and stage.status["engine"]["generations"] > 0

            if room.options.nice is not None:
                stage.wait(lambda old=pid: stage.status["pids"]["engine"] != old, 30)
                stage.weigh(room.options.nice)
            seen = stage.wait(ticks, 180)
            took = time.monotonic() - died
            stage.wait(plays, 60)
            # What the machine's load adds is known by the processor time of the new process.
            rows.append(
                {
                    "back": seen,
                    "seconds": round(took, 2),
                    "generation_s": round(time.monotonic() - died, 2),
                    "cpu_s": round(_cpu(stage.status["pids"]["engine"]) - spent, 2),
                    "spare": status["spare_ready"],
                    "program_equal": stage.fresh()["program"] == before["program"],
                }
            )
        after, heard, machine = stage.fresh(), listening.close(), watch.close()
        stage.close()
    return {
        "kills": len(rows),
        "back": sum(r["back"] for r in rows),
        "ticks_within_5_s": sum(r["back"] and r["seconds"] <= 5.0 for r in rows),
        "generates_within_5_s": sum(r["back"] and r["generation_s"] <= 5.0 for r in rows),
        "spare_was_ready": sum(r["spare"] for r in rows),
        "first_tick_s": _spread(r["seconds"] for r in rows),
        "first_generation_s": _spread(r["generation_s"] for r in rows),
        "cpu_seconds": _spread(r["cpu_s"] for r in rows),
        "program_equal": sum(r["program_equal"] for r in rows),
        "sound": _counts(before, after),
        "heard": heard,
        "machine_itself": machine,
        "ok": all(r["back"] and r["program_equal"] for r in rows) and _sounds(heard),
    }


def kill_groups(room: Room, count: int, rng: random.Random) -> dict[str, Any]:
    """Everything dies at once, `count` times, while statements come in."""
    rows = []
    began = time.monotonic()
    for turn in range(count):
        if time.monotonic() - began > room.options.seconds:
            break
        with room.stage(generations=0) as stage:
            sent: list[str] = []
            answered = 0
            for k in range(rng.randint(1, 12)):
                text = f"denoise = .{rng.randint(100, 999)}\n# {turn}/{k}"
                sent.append(text)
                # The last one may be cut off in the middle.
                if stage.apply(text).get("reply") is not None:
                    answered += 1
            program = stage.fresh()["program"]
            if rng.random() < 0.5:
                sent.append(f"denoise = .5\n# {turn}/last")
                stage.send(sent[-1])
                _PAUSE.wait(rng.uniform(0.0, 0.01))
            for pid in stage.status["pids"].values():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            stage.process.wait(10)
        past = find_interrupted(folder=room.folder / "state" / "sessions")
        found = [e.text for e in past.causes if "#" in e.text and e.origin != "file"]
        lost = answered - sum(text in found for text in sent[:answered])
        row = {"answered": answered, "in_the_log": len(found), "lost": lost}
        row |= {"torn": past.recording.torn}
        if turn % max(1, room.options.resume_every) == 0:
            row |= _resumed(room, program, sent)
        rows.append(row)
        # The next one is another session.
        past_path = past.recording.path
        if past_path is not None:
            past_path.unlink()
    resumed = [r for r in rows if "resumed" in r]
    return {
        "kills": len(rows),
        "statements": sum(r["answered"] for r in rows),
        "lost": sum(r["lost"] for r in rows),
        "torn_lines": sum(r["torn"] for r in rows),
        "resumed": len(resumed),
        "resumed_equal": sum(r["resumed"] for r in resumed),
        "ok": not any(r["lost"] for r in rows) and all(r["resumed"] for r in resumed),
    }


def _resumed(room: Room, program: dict[str, Any], sent: list[str]) -> dict[str, Any]:
    """Go on with it, and compare."""
    with Harness([], room.folder, room.env, *room.words, "--resume") as stage:
        stage.wait(lambda: bool(stage.status), 60)
        again = stage.status.get("program", {})
        stage.close()
    # A last statement that nobody answered may be in the log, or not.
    for deck in (program, again):
        if sent[-1].endswith("last"):
            deck.get("decks", {}).pop("main", None)
    return {"resumed": again == program}


def storm(room: Room, minutes: float, rng: random.Random) -> dict[str, Any]:
    """Reloads, parsing, gc and stalls, all at once."""
    busy = "tick.stall=0.3@20s"
    with room.stage("--busy", faults=busy) as stage:
        listening, watch = Listening(room.folder / "tap"), latency.Watch()
        _PAUSE.wait(2)
        before, begun, turn = stage.fresh(), time.monotonic(), 0
        while time.monotonic() - begun < minutes * 60:
            turn += 1
            text = score.moving(turn)
            # Every tenth save is broken; every seventh comes in two halves.
            if turn % 10 == 0:
                text = text.replace("perlin", "perln")
            if turn % 7 == 0:
                room.scores[1].write_text(text[: len(text) // 2])
                _PAUSE.wait(0.01)
            room.scores[1].write_text(text)
            _PAUSE.wait(0.19)
        after, heard, machine = stage.fresh(), listening.close(), watch.close()
        stage.close()
    counts = _counts(before, after)
    return {
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "reloads": turn,
        "sound": counts,
        "server_xruns": room.server.xruns if room.server else None,
        "heard": heard,
        "machine_itself": machine,
        "engine": {k: v for k, v in after["engine"].items() if k != "slots"},
        "ok": counts["dry"] == 0 and counts["failures"] == 0 and _sounds(heard),
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    rows = sorted(values)
    return {"min": rows[0], "median": rows[len(rows) // 2], "max": rows[-1]} if rows else {}


def _cpu(pid: int | None) -> float:
    if pid is None:
        return 0.0
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _counts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    names = ("dry", "dry_samples", "underruns", "failures", "bad", "errors", "played")
    return {n: after["bus"][n] - before["bus"][n] for n in names}


def _sounds(heard: dict[str, Any]) -> bool:
    """No gap above 10 ms, and each beat within 2 ms of its place."""
    beats = heard["grid"]
    on_the_beat = not beats.get("missing") and beats.get("worst_ms", 99) <= 2.0
    return heard["gaps"]["longest_ms"] <= 10 and on_the_beat


_RUNS: Mapping[str, Callable[[Room, argparse.Namespace, random.Random], dict[str, Any]]] = {
    "engine": lambda room, options, rng: kill_engines(room, options.count, rng),
    "group": lambda room, options, rng: kill_groups(room, options.count, rng),
    "prompt": lambda room, options, rng: kill_prompts(
        room.folder, room.env, options.count, rng, options.seconds
    ),
    "storm": lambda room, options, rng: storm(room, options.minutes, rng),
}


def main() -> int:
    words = argparse.ArgumentParser(prog="chaos", description=__doc__)
    words.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(_RUNS))
    words.add_argument("--count", type=int, default=50, help="kills")
    words.add_argument("--minutes", type=float, default=10.0, help="of the storm")
    words.add_argument("--seconds", type=float, default=7200.0, help="at most, for the kills")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--sink", choices=("jack", "null"),
                       default="jack" if jack.available() else "null")  # fmt: skip
    words.add_argument("--resume-every", type=int, default=5, metavar="N", help="of the groups")
    words.add_argument("--nice", type=int, help="of the sessions of main and engine process")
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    report: dict[str, Any] = {"seed": options.seed, "cores": os.cpu_count()}
    for what in options.what or list(_RUNS):
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demon-chaos-")))
            room = Room(stack, folder, options)
            report[what] = _RUNS[what](room, options, random.Random(f"{options.seed}/{what}"))
            report[what]["load"] = round(os.getloadavg()[0], 1)
        if options.out:
            options.out.write_text(json.dumps(report, indent=2, default=str) + "\n")
    sys.stdout.write(json.dumps(report, indent=2, default=str) + "\n")
    return 0 if all(report[w]["ok"] for w in options.what or list(_RUNS)) else 1


if __name__ == "__main__":
    sys.exit(main())
