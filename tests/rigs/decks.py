"""`python -m tests.rigs.decks --decks 2 --minutes 3`: several loops in one ring, in real time.

Decks of 4 bars at 120 bpm (8 s), each with its own source, words and moving controls, share a ring
of depth 4 while imp plays them; reported is what the device missed, what came late, and what of
the machine it took.

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
from pathlib import Path
from typing import Any

from tests.rigs import jack
from tests.rigs.stagehand import Harness

_PAUSE = threading.Event()
_LOOPS = Path(__file__).resolve().parents[2] / "patterns" / "loops"
#: A deck: its loop from the library, a tempo of its own, another pace for each control.
_DECK = """\
deck {name} {{
  loop {bars}
  source "{source}"
  prompt = "<'{prompt}' 'dub techno, tape hiss'>/{slow}"
  denoise = "<.4 .7 .9>/{fast}"
  seed = irand(8).slow({slow})
  blend = sine.slow({fast}).range(.3, 1)
  velocity = saw.fast({fast}).range(.8, 1.2)
  gain = .5
  lpf = saw.slow(4).rangex(800, 12000)
}}
"""
_SOURCES = (
    ("house_124.flac", "deep house, organ"),
    ("techno_128.flac", "acid techno, 303"),
    ("dub_120.flac", "dub chord, delay"),
    ("breaks_134.flac", "breaks, fill"),
)


def score(decks: int, bars: int) -> str:
    rows = [
        _DECK.format(
            name=f"deck{i}",
            bars=bars,
            source=_LOOPS / source,
            prompt=prompt,
            fast=2 + i,
            slow=3 + i,
        )
        for i, (source, prompt) in enumerate(_SOURCES[:decks])
    ]
    return "tempo 120\n" + "".join(rows)


def play(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole run; its report."""
    for source, _ in _SOURCES:
        (folder / source).write_bytes((_LOOPS / source).read_bytes())
    text = folder / "decks.demon"
    text.write_text(score(options.decks, options.bars))
    with contextlib.ExitStack() as stack:
        env, words, server = dict(os.environ), ["--audio", "null"], None
        if options.sink == "jack":
            server = stack.enter_context(jack.Server(folder, options.frames))
            env, words = dict(server.env), ["--audio", "device", "--device", "system"]
        env["DEMON_STATE"] = str(folder / "state")
        stage = stack.enter_context(Harness([text], folder, env, *words))
        if not stage.wait(lambda: stage.status.get("engine", {}).get("generations", 0) > 16, 120):
            raise RuntimeError(f"it does not play: {stage.events[-5:]}")
        if server is not None:
            server.raise_priority(stage.status["pids"]["audio"])
        _PAUSE.wait(5)
        before, cpu = stage.fresh(), stage.cpu()
        _PAUSE.wait(options.minutes * 60)
        after, used = stage.fresh(), stage.cpu()
        took = after["at"] - before["at"]
        was, now = before["engine"], after["engine"]
        cores = {k: round((used[k] - cpu[k]) / took, 3) for k in used if k in cpu}
        return {
            "decks": options.decks,
            "seconds_of_loop": options.bars * 2,
            "sink": options.sink,
            "minutes": round(took / 60, 2),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, load "
            f"{os.getloadavg()[0]:.1f}",
            "sound": {
                name: after["bus"][name] - before["bus"][name]
                for name in ("dry", "underruns", "bad", "errors")
            },
            "server_xruns": server.xruns if server else None,
            "ticks_per_s": round((now["ticks"] - was["ticks"]) / took, 2),
            "generations_per_s": round((now["generations"] - was["generations"]) / took, 2),
            **{k: now[k] for k in ("p50_ms", "p99_ms", "max_ms", "tick_ms", "shed", "slots")},
            "windows_late": now["late"] - was["late"],
            "cores": cores,
            "cores_in_all": round(sum(cores.values()), 2),
        }


def main() -> int:
    words = argparse.ArgumentParser(prog="decks", description=__doc__)
    words.add_argument("--decks", type=int, default=2, choices=range(1, len(_SOURCES) + 1))
    words.add_argument("--bars", type=int, default=4, help="of each loop, at 120 bpm")
    words.add_argument("--minutes", type=float, default=3.0)
    words.add_argument("--sink", choices=("jack", "null"),
                       default="jack" if jack.available() else "null")  # fmt: skip
    words.add_argument("--frames", type=int, default=512, help="of a block of the server")
    options = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="demon-decks-") as folder:
        report = play(options, Path(folder))
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    sound = report["sound"]
    return 0 if sound["dry"] == 0 and report["windows_late"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
