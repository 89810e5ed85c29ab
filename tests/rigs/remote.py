"""An engine behind a bad network, in real time.

    python -m tests.rigs.remote [--delay 40] [--jitter 15] [--loss 1] [--minutes 1.5] [--cut 5]

Two network namespaces with a link between them (bad_link.py: delay, jitter, loss of every packet).
In one, Ray and the engine; in the other, the instrument, as it is on a stage: session, link and
audio process, whose sound goes to a file whose first sample is the first of the timeline. Controls
take turns to jump each lap, and where each jump is heard is found as in tests/rigs/jumps.py. Then
the link is cut for some seconds: what is heard meanwhile, and how long until the engine is back.

Needs root, /dev/net/tun and the extra `ray`. The processes that it starts end with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.bench.common import Figures, Options, machine
from demon_live.controls import CONTROLS
from demon_live.core import RATES, Floats
from demon_live.errors import EngineError
from tests.rigs.bad_link import BadLink
from tests.rigs.jumps import SPACING, Jump, crossings
from tests.rigs.jumps_live import BASE, COUNT, PLAYED, perform, sounds, turns, until

_RATE = RATES.sample_rate
_PORT = 10001
#: A Ray that nobody else can reach, for as long as the measurement: it asks for no token.
_OPEN = {"RAY_AUTH_MODE": "disabled"}


@dataclass(frozen=True, slots=True)
class Take:
    """What is played, over which link. delay, jitter in ms and loss in percent, each way; minutes:
    how long; cut: seconds without a link at the end, 0 for none."""

    engine: str = "imp"
    backend: str = "auto"
    depth: int | None = None
    delay: float = 40.0
    jitter: float = 15.0
    loss: float = 1.0
    minutes: float = 1.5
    cut: float = 5.0


def figures(options: Take) -> Figures:
    """Rows control, cls, ms; the link as it was measured; the cut."""
    with tempfile.TemporaryDirectory(prefix="demon-remote-") as folder:
        link = BadLink(options.delay, options.jitter, options.loss)
        try:
            with _ray(link, Path(folder)):
                found = _take(link, options, Path(folder))
        finally:
            packets = link.close()
    return {
        "delay_ms_each_way": options.delay,
        "jitter_ms_each_way": options.jitter,
        "loss_percent_each_way": options.loss,
        **found,
        **{f"packets_{name}": count for name, count in packets.items()},
    }


@contextlib.contextmanager
def _ray(link: BadLink, folder: Path) -> Iterator[None]:
    """A Ray of its own at the far side of the link."""
    from demon_live.runtime.options import require_ray

    require_ray()
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        f"--node-ip-address={BadLink.FAR}", "--port=6390", f"--ray-client-server-port={_PORT}",
        "--num-cpus=2", "--num-gpus=0", "--include-dashboard=false", "--disable-usage-stats",
        f"--temp-dir={folder / 'ray'}",
    ]  # fmt: skip
    with (folder / "ray.log").open("w") as log:
        head = link.popen(
            "far", command, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **_OPEN, "PYTHONPATH": path},
        )  # fmt: skip
        try:
            end = time.monotonic() + 90
            while "Ray runtime started" not in (folder / "ray.log").read_text():
                if head.poll() is not None or time.monotonic() > end:
                    tail = (folder / "ray.log").read_text()[-400:]
                    raise EngineError(f"Ray does not start: {tail}")
                time.sleep(0.2)
            yield
        finally:
            # It ends what it has begun.
            head.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)


def _take(link: BadLink, options: Take, folder: Path) -> dict[str, Any]:
    """Play in the other namespace; cut the link when it asks for it."""
    said = json.dumps({"options": asdict(options), "folder": str(folder)})
    root = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); "
        "from tests.rigs.remote import inside; inside(sys.argv[1])"
    )
    child = link.popen(
        "near",
        [sys.executable, "-c", code, said],
        stdout=subprocess.PIPE,
        env={**os.environ, **_OPEN},
    )
    found: dict[str, Any] | None = None
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("cut "):
                link.cut(float(line.split()[1]))
            elif line.startswith("{"):
                found = json.loads(line)
        child.wait(30)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait(10)
    if found is None:
        raise EngineError(f"the instrument behind the link ended with code {child.returncode}")
    return found


def inside(said: str) -> None:
    """The near side: plays, judges, prints one line of JSON."""
    given = json.loads(said)
    options = Take(**given["options"])
    folder = Path(given["folder"])
    held = sounds(Options(options.engine, options.backend), list(PLAYED))
    play = _Play(options, folder)
    play.perform()
    audio = _read(folder / "take.wav")
    print(json.dumps({**play.counts, **_judged(play, audio, held)}), flush=True)  # noqa: T201


class _Play:
    """One take: rounds of all controls until the minutes are over, then the cut."""

    def __init__(self, options: Take, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.rounds: list[tuple[list[Jump], int]] = []
        self.after: tuple[list[Jump], int] | None = None
        self.cut = (0, 0)
        self.counts: dict[str, Any] = {}

    def perform(self) -> None:
        from demon_live.runtime.live import Live

        options = self.options
        score = self.folder / "bench.demon"
        score.write_text(BASE, encoding="utf-8")
        begun = time.monotonic()
        with Live(
            [score],
            engine=f"ray://{BadLink.FAR}:{_PORT}/{options.engine}",
            backend=options.backend,
            audio=f"file:{self.folder / 'take.wav'}",
            depth=options.depth or 4,
            watch=False,
        ) as live:
            bus = live.speaker.bus
            if not live.wait(400, lambda: live.engine.status.generations > 8):
                raise EngineError(f"the far engine plays nothing: {live.session.events(0)[1]}")
            self.counts["seconds_to_the_engine"] = round(time.monotonic() - begun, 1)
            # What the link is like is known after some laps.
            until(live, int(bus.mixed) + 4 * SPACING)
            jumps, dry, late = list(PLAYED), bus.dry, live.engine.status.late
            first, links = int(bus.mixed), []
            while (bus.mixed - first) / _RATE < options.minutes * 60 or not self.rounds:
                begun_at = int(bus.mixed)
                self.rounds.append((jumps, begun_at))
                perform(live, jumps, turns(begun_at, len(jumps)))
                links.append((live.engine.status.link_ms, live.engine.status.jitter_ms))
            status = live.engine.status
            self.counts |= {
                "engine": live.engine.description,
                "minutes": round((bus.mixed - first) / _RATE / 60, 2),
                "dry": bus.dry - dry,
                "windows_late": status.late - late,
                "null_clock_late": bus.late,
                "link_ms": round(float(np.median([a for a, _ in links])), 1),
                "link_jitter_ms": round(float(np.median([b for _, b in links])), 1),
                "lead_ms": round(status.lead_ms, 1),
                "tick_ms": round(status.tick_ms, 1),
                "period_ms": round(status.period_ms, 1),
                "load": round(os.getloadavg()[0], 1),
            }
            if options.cut:
                self._cut(live)
            self.counts["told"] = [t for t in live.session.events(0)[1] if "link" in t]

    def _cut(self, live: Any) -> None:
        bus, seconds = live.speaker.bus, self.options.cut
        dry, made = bus.dry, live.engine.status.generations
        begin = int(bus.mixed)
        print(f"cut {seconds}", flush=True)  # noqa: T201
        at = time.monotonic()
        live.wait(seconds + 30, lambda: not live.engine.status.alive)
        noticed = time.monotonic() - at
        back = live.wait(
            60, lambda: live.engine.status.alive and live.engine.status.generations > 2
        )
        took = time.monotonic() - at - seconds
        self.cut = (begin, int(bus.mixed))
        until(live, int(bus.mixed) + 4 * SPACING)
        jumps = [jump for jump in PLAYED if jump.control == "prompt"]
        self.after = (jumps, int(bus.mixed))
        perform(live, jumps, turns(self.after[1], len(jumps)))
        self.counts |= {
            "cut_s": seconds,
            "cut_noticed_after_s": round(noticed, 1),
            "cut_dry": bus.dry - dry,
            "cut_engine_back_after_s": round(took, 1) if back else "not back",
            "cut_generations_before": made,
        }


def _read(path: Path) -> Floats:
    import soundfile

    audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(audio, np.float32)


def _rows(
    rounds: Sequence[tuple[list[Jump], int]], audio: Floats, held: dict[tuple[str, str], Floats]
) -> list[dict[str, Any]]:
    """Heard minus written of each jump, ms. Index 0 of the file is the first of all samples."""
    rows: dict[str, dict[str, Any]] = {}
    for jumps, begun in rounds:
        for jump, first in zip(jumps, turns(begun, len(jumps)), strict=True):
            part = audio[first * SPACING :][: (COUNT + 1) * SPACING]
            laps = -(-len(part) // SPACING)
            low, high = (
                np.tile(held[jump.control, v], (laps, 1))[: len(part)]
                for v in (jump.low, jump.high)
            )
            written = [i * SPACING for i in range(1, COUNT)]
            rising = [(first + i) % 2 == 1 for i in range(1, COUNT)]
            heard = crossings(part, low, high, written, rising)
            row = rows.setdefault(
                jump.control,
                {"control": jump.control, "cls": CONTROLS[jump.control].cls, "ms": []},
            )
            row["ms"] += [
                None if h is None else round((h - w) * 1000 / _RATE, 2)
                for h, w in zip(heard, written, strict=True)
            ]
    return list(rows.values())


def _judged(play: _Play, audio: Floats, held: dict[tuple[str, str], Floats]) -> dict[str, Any]:
    rows = _rows(play.rounds, audio, held)
    ms = [v for row in rows for v in row["ms"]]
    known = [abs(v) for v in ms if v is not None]
    out: dict[str, Any] = {
        "jumps": len(ms),
        "unheard": len(ms) - len(known),
        "within_20_ms": sum(v <= 20 for v in known),
        "worst_ms": max(known, default=None),
        "median_ms": round(float(np.median(known)), 2) if known else None,
        "by_control": rows,
    }
    if play.after is not None:
        begin, end = play.cut
        out["cut_longest_silence_ms"] = _silence(audio[begin:end])
        after = [v for row in _rows([play.after], audio, held) for v in row["ms"]]
        out["after_the_cut_ms"] = after
    return out


def _silence(audio: Floats) -> float:
    """The longest stretch below -60 dBFS, ms."""
    quiet = np.concatenate(([False], np.abs(audio).max(axis=1) < 1e-3, [False]))
    edges = np.flatnonzero(quiet[1:] != quiet[:-1])
    longest = int((edges[1::2] - edges[::2]).max(initial=0))
    return round(longest * 1000 / _RATE, 1)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.remote")
    parser.add_argument("--engine", default="imp")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--depth", type=int)
    for name in ("delay", "jitter", "loss", "minutes", "cut"):
        parser.add_argument(f"--{name}", type=float, default=argparse.SUPPRESS)
    options = Take(**vars(parser.parse_args()))
    found = {"machine": machine(), **figures(options)}
    sys.stdout.write(json.dumps(found, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
