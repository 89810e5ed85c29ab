"""The instrument in a process of its own: `python -m tests.rigs.stage OPTIONS SCORE...`.

stdin: one JSON object a line, {"apply": TEXT} or {"close": true}; its end closes, too.
stdout: JSON lines: {"status": {...}} twice a second, {"events": [...]}, {"reply": [...]}.

Threads: the main thread reports, one thread reads stdin.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from demon_live.audio.pcmring import Bus
from demon_live.errors import DemonError
from demon_live.lang import compile_source
from demon_live.runtime.live import Live
from demon_live.sets.session_log import find_interrupted

_BUS = ("mixed", "played", "dry", "dry_samples", "underruns", "failures", "bad", "errors",
        "device_ok", "callbacks", "late", "ahead", "limited_db")  # fmt: skip


def bus_row(bus: Bus) -> dict[str, float]:
    """The numbers of the audio process."""
    return {name: getattr(bus, name) for name in _BUS}


def status_row(live: Live) -> dict[str, Any]:
    """Everything that a rig looks at."""
    engine = live.engine.status
    telemetry = {f.name: getattr(engine, f.name) for f in fields(engine) if f.name != "slots"}
    telemetry |= {"restarts": live.engine.restarts, "slots": len(engine.slots)}
    pids = {"main": os.getpid(), "engine": live.engine.pid, "audio": live.speaker.bus.pid}
    if (spare := live.engine.spare_pid) is not None:
        pids["spare"] = spare
    return {
        "at": time.monotonic(),
        "pids": pids,
        "spare_ready": live.engine.spare_ready,
        "bus": bus_row(live.speaker.bus),
        "engine": {**telemetry, **asdict(live.engine.turns)},
        "program": program(live),
    }


def program(live: Live) -> dict[str, Any]:
    """What plays, as text: to be compared before and after a fault."""
    state = live.session.state
    return {
        "bpm": float(state.bpm),
        "muted": sorted(state.muted),
        "decks": {
            name: {control: lane.text for control, lane in sorted(deck.bound.items())}
            for name, deck in sorted(state.decks.items())
        },
    }


def say(row: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(row, default=str) + "\n")
    sys.stdout.flush()


def obey(live: Live, closing: threading.Event) -> None:
    """Lines from stdin until it ends."""
    for line in sys.stdin:
        row = json.loads(line)
        if row.get("close"):
            break
        try:
            outcome = live.session.apply(row["apply"], row.get("name", "<prompt>"))
            say({"reply": [*outcome.messages, *outcome.warnings]})
        except DemonError as error:
            say({"reply": [], "error": str(error)})
    closing.set()


def busy(closing: threading.Event) -> None:
    """A parser under a storm of edits, and the collection of what it leaves behind."""
    text = "\n".join(f"deck d{k} {{\n  blend = sine.slow({k + 1})\n}}" for k in range(20))
    while not closing.is_set():
        compile_source(text)
        gc.collect()


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("scores", nargs="*")
    words.add_argument("--audio", default="null")
    words.add_argument("--device")
    words.add_argument("--record")
    words.add_argument("--every", type=float, default=0.5)
    words.add_argument("--resume", action="store_true", help="the session that died last")
    words.add_argument("--busy", action="store_true", help="parse and collect rubbish all the time")
    options = words.parse_args()
    closing = threading.Event()
    past = find_interrupted() if options.resume else None
    if past is not None:
        os.chdir(past.folder)
    more: dict[str, Any] = {"audio": options.audio, "device": options.device}
    if options.busy:
        threading.Thread(target=busy, args=(closing,), daemon=True).start()
    with Live(options.scores, record=options.record, resume=past, **more) as live:
        threading.Thread(target=obey, args=(live, closing), daemon=True).start()
        seen = 0
        while not closing.wait(options.every):
            seen, events = live.session.events(seen)
            if events:
                say({"events": events})
            say({"status": status_row(live)})
    say({"closed": True})


if __name__ == "__main__":
    main()
