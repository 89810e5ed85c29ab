"""A set of two hours, by a script: evaluations, broken ones, controllers, file saves, tempo.

    python tests/rigs/two_hours.py                        in virtual time, off line
    python tests/rigs/two_hours.py --real --minutes 20    at the JACK dummy, knobs through MIDI

The script is made from a seed: 500 evaluations in 120 minutes, a tenth of them broken, one save of
a file each two minutes (a fifth broken), a tempo change each five, a knob in motion each minute.
`--minutes` plays a set of another length with the same number of evaluations, unless told others.

In virtual time a second process replays the journal while it is written, and each turn is compared;
in real time the journal's first seconds are rendered twice. Exit 0 if all verdicts are true.

Two hours in virtual time take about five minutes of two cores (mock engine).
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT))

from demon_live.errors import DemonError  # noqa: E402
from demon_live.replay.render import render  # noqa: E402
from demon_live.runtime.offline import Offline  # noqa: E402
from demon_live.runtime.seek import dry_run  # noqa: E402
from demon_live.session.score_files import Reloader  # noqa: E402
from demon_live.sets.journal import SUFFIX, load  # noqa: E402
from tests.rigs.follower import Follower, engine  # noqa: E402
from tests.rigs.set_script import FIRST, SAVED, Act, script  # noqa: E402
from tests.rigs.stagehand import slope_mb_per_hour  # noqa: E402

_PAUSE = threading.Event()
#: A set in virtual time that is shorter has its memory told, but not judged.
_MEMORY_MINUTES = 30


class _Tally:
    """What happened, and memory over time."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("said", "refused", "surprises", "saves", "knobs"), 0)
        self.crashes: list[str] = []
        self._times: list[float] = []
        self._bytes: list[float] = []

    def weigh(self, at: float) -> None:
        self._times.append(at)
        self._bytes.append(float(psutil.Process().memory_info().rss))

    def memory(self) -> dict[str, Any]:
        """The first quarter warms caches up."""
        n = len(self._times) // 4
        times, sizes = self._times[n:], self._bytes[n:]
        return {
            "mb_first": round(sizes[0] / 1e6, 1) if sizes else 0.0,
            "mb_last": round(sizes[-1] / 1e6, 1) if sizes else 0.0,
            "mb_per_hour_of_the_set": slope_mb_per_hour(times, sizes),
            "mb_at_each_eighth": [round(b / 1e6) for b in self._bytes[:: max(1, 4 * n // 8)]],
        }


# --- virtual time ---------------------------------------------------------------------------------


def _act(offline: Offline, act: Act, folder: Path, tally: _Tally) -> None:
    session = offline.session
    try:
        if act.kind == "save":
            path = folder / "air.demon"
            path.write_text(act.text)
            tally.counts["saves"] += 1
            Reloader(session).touch(path)
            return
        session.apply(act.text)
        tally.counts["said"] += 1
        tally.counts["surprises"] += act.kind == "broken"
    except DemonError:
        tally.counts["refused"] += 1
    # Anything else would be a crash on stage.
    except Exception as error:  # noqa: BLE001
        tally.crashes.append(f"{act.text!r}: {error!r}")


def virtual(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The set in virtual time, and its replay."""
    from demon_live.session.inputs import Coalescer

    acts = collections.deque(script(options.minutes, options.evaluations, options.seed))
    tally, coalescer, path = _Tally(), Coalescer(), folder / f"two_hours{SUFFIX}"
    begun = time.process_time()
    with (
        Offline(engine(options.engine), folders=(folder,), sets=folder) as offline,
        Follower(path, options.engine, folder) as follower,
    ):
        offline.session.apply("record two_hours")
        turns = int(options.minutes * 60 * 48000 / (offline.output.blocks * 480))
        for turn in range(turns):
            now = offline.output.mixer.position / 48000
            while acts and acts[0].at <= now:
                act = acts.popleft()
                if act.kind == "knob":
                    number, value = act.knob
                    coalescer.add(bytes((0xB0, number, round(value * 127))))
                else:
                    _act(offline, act, folder, tally)
            if moves := coalescer.take(now):
                tally.counts["knobs"] += 1
                offline.session.hear(moves)
            follower.turn(offline.turn())
            if turn % 50 == 0:
                tally.weigh(now)
        status = offline.output.generator.status()
        offline.session.apply("stop")
        took = time.process_time() - begun
        same = follower.finish()
    return {
        "minutes": options.minutes,
        "engine": options.engine,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "cpu_s": round(took, 1),
        **tally.counts,
        "crashes": tally.crashes[:5],
        "late": status.late,
        "dropped": status.dropped,
        "generations": status.generations,
        "memory": tally.memory(),
        "journal_bytes": path.stat().st_size,
        "replay_equal_turns": [same, turns],
        "notes": offline.output.notes[:5],
    }


# --- real time ------------------------------------------------------------------------------------


def real(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The set at the JACK dummy, with knobs that travel through a MIDI port."""
    from tests.rigs import jack
    from tests.rigs.stagehand import Harness

    scores = folder / "scores"
    scores.mkdir()
    (scores / "air.demon").write_text(SAVED.format(0.4, 2))
    acts = [a for a in script(options.minutes, options.evaluations, options.seed) if a.at > 0]
    tally = _Tally()
    with jack.Server(folder, options.frames) as server:
        midi = {"MIDO_BACKEND": "mido.backends.rtmidi/UNIX_JACK", "DEMON_MIDI": "two-hours"}
        state = {"DEMON_STATE": str(folder / "state")}
        env = {**server.env, **midi, **state}
        os.environ.update({k: env[k] for k in (*midi, "JACK_DEFAULT_SERVER")})
        os.environ |= {"JACK_NO_START_SERVER": "1", "JACK_NO_AUDIO_RESERVATION": "1"}
        from demon_live.control.midi import MidiOut

        words = ["--audio", "device", "--device", "system", "--record", "two-hours"]
        with (
            MidiOut("two-hours", virtual=True) as knobs,
            Harness([scores / "air.demon"], folder, env, *words) as stage,
        ):
            if not stage.wait(
                lambda: stage.status.get("engine", {}).get("generations", 0) > 8, 240
            ):
                raise RuntimeError(f"it does not play: {stage.events[-5:]}")
            server.raise_priority(stage.status["pids"]["audio"])
            stage.apply(FIRST.replace("'a'", "'acid techno'").replace("'b'", "'dub techno'"))
            before, rows = stage.fresh(), list[tuple[float, dict[str, int]]]()
            begun = time.monotonic()
            for act in acts:
                while (rest := begun + act.at - time.monotonic()) > 0:
                    _PAUSE.wait(min(rest, 1.0))
                    rows.append((time.monotonic() - begun, stage.memory()))
                _perform(stage, act, scores, knobs, tally)
            after = stage.fresh()
            stage.apply("stop")
            closed = stage.close()
    counts = {
        k: after["bus"][k] - before["bus"][k]
        for k in ("dry", "dry_samples", "underruns", "failures", "bad", "errors")
    }
    return {
        "minutes": options.minutes,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}",
        **tally.counts,
        "sound": counts,
        "engine_restarts": after["engine"]["restarts"],
        "memory_mb_per_hour": _slopes(rows),
        "memory_mb_at_each_eighth": _eighths(rows),
        "midi_problem": knobs.problem,
        "closed_by_itself": closed,
        **_afterwards(folder, options.check_seconds),
    }


def _perform(stage: Any, act: Act, scores: Path, knobs: Any, tally: _Tally) -> None:
    if act.kind == "knob":
        number, value = act.knob
        tally.counts["knobs"] += knobs.send(bytes((0xB0, number, round(value * 127))))
    elif act.kind == "save":
        (scores / "air.demon").write_text(act.text)
        tally.counts["saves"] += 1
    else:
        answer = stage.apply(act.text)
        refused = "error" in answer
        tally.counts["refused" if refused else "said"] += 1
        tally.counts["surprises"] += act.kind == "broken" and not refused


def _eighths(rows: list[tuple[float, dict[str, int]]]) -> dict[str, list[int]]:
    some = [row for _, row in rows[:: max(1, len(rows) // 8)]]
    names = sorted({name for row in some for name in row})
    return {name: [round(row.get(name, 0) / 1e6) for row in some] for name in names}


def _slopes(rows: list[tuple[float, dict[str, int]]]) -> dict[str, float]:
    later = rows[len(rows) // 3 :]
    names = {name for _, row in later for name in row}
    return {
        name: slope_mb_per_hour(
            [at for at, row in later if name in row], [row[name] for _, row in later if name in row]
        )
        for name in sorted(names)
    }


def _afterwards(folder: Path, seconds: float) -> dict[str, Any]:
    """The set that was recorded: whole, replayable, and its render the same twice."""
    path = next((folder / "state").rglob(f"two-hours{SUFFIX}"))
    recording = load(path)
    moments = list(dry_run(recording, (folder / "scores", _ROOT)))
    parts = [render(path, seconds=seconds).audio.tobytes() for _ in range(2)]
    sound = path.with_name("two-hours.flac")
    return {
        "journal": {
            "causes": len(recording.events),
            "torn": recording.torn,
            "knob_moments": sum(e.kind == "hands" for e in recording.events),
            "cannot_be_done_again": sum(m.error is not None for m in moments),
            "bytes": path.stat().st_size,
        },
        "renders_equal": parts[0] == parts[1],
        "sound_bytes": sound.stat().st_size if sound.exists() else 0,
    }


# --- verdicts -------------------------------------------------------------------------------------


def verdicts(report: dict[str, Any], is_real: bool) -> dict[str, bool]:
    """What must be true of the set."""
    if is_real:
        journal = report["journal"]
        return {
            "no_dry_block": report["sound"]["dry"] == 0,
            "no_restart": report["engine_restarts"] == 0,
            "broken_refused": report["surprises"] == 0 and report["refused"] > 0,
            "memory_flat": all(x < 60 for x in report["memory_mb_per_hour"].values()),
            "knobs_arrived": journal["knob_moments"] > 0,
            "journal_whole": journal["torn"] == journal["cannot_be_done_again"] == 0,
            "renders_equal": report["renders_equal"],
            "closed": report["closed_by_itself"],
        }
    same, turns = report["replay_equal_turns"]
    # Decks that come, longer loops and undo fill up first: a slope means something after that.
    long = report["minutes"] >= _MEMORY_MINUTES
    flat = {"memory_flat": report["memory"]["mb_per_hour_of_the_set"] < 30} if long else {}
    return {
        "no_crash": not report["crashes"],
        "no_late_window": report["late"] == 0,
        "broken_refused": report["surprises"] == 0 and report["refused"] > 0,
        "replay_bit_equal": same == turns,
        **flat,
    }


def _options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--real", action="store_true", help="at the JACK dummy, in real time")
    words.add_argument("--minutes", type=float, default=120.0)
    words.add_argument("--evaluations", type=int, help="default: 500, real: 4 a minute")
    words.add_argument("--engine", default="mock", help="virtual: mock or imp")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--frames", type=int, default=1024)
    words.add_argument("--check-seconds", type=float, default=20.0)
    words.add_argument("--json", type=Path)
    options = words.parse_args()
    if options.evaluations is None:
        options.evaluations = max(20, int(4.2 * options.minutes)) if options.real else 500
    return options


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        report = (real if options.real else virtual)(options, folder)
        os.chdir(_ROOT)
    report["verdict"] = verdicts(report, options.real)
    text = json.dumps(report, indent=2)
    print(text)  # noqa: T201
    if options.json:
        options.json.write_text(text + "\n")
    return 0 if all(report["verdict"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
