"""`demon bench latency --score --jack`: written against heard in real time, at a device.

A JACK server without hardware is started under a name of its own, the instrument plays the engine
itself through it, and `jack_rec` records what arrives at the server: engine process, audio process
and callback are all as they are on a stage. How each value sounds is rendered off line beforehand;
where the recording begins on the output timeline is found by comparing its first seconds with that.

Threads: main thread only; the processes that it starts end with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live.bench.common import Figures, Options
from demon_live.bench.score import DEPTHS, JUMPS, SOURCE, SPACING, Jump, crossings, knob
from demon_live.controls import CONTROLS
from demon_live.core import RATES, Floats
from demon_live.errors import DeviceError, UsageError
from demon_live.runtime.messages import Block, ToEngine

if TYPE_CHECKING:
    from demon_live.runtime.live import Live

__all__ = ["figures"]

_RATE = RATES.sample_rate
_TOOLS = ("jackd", "jack_rec", "jack_lsp")
#: Of each class what a real model says plainly: a blend of 0 is the source, whatever is around it.
_PLAYED = (
    *(jump for jump in JUMPS if jump.control in ("gain", "denoise", "seed", "prompt")),
    Jump("blend", "1", "0"),
)
_BASE = f"tempo 160\nloop 2\n{SOURCE}\nprompt = 'house'\ndenoise = .8"
#: Laps of each control.
_COUNT = 4


@contextlib.contextmanager
def _server(frames: int = 512) -> Iterator[None]:
    """A JACK server of our own; every client started meanwhile finds it."""
    name = f"demon-bench-{os.getpid()}"
    ours = {
        "JACK_DEFAULT_SERVER": name,
        "JACK_NO_START_SERVER": "1",
        "JACK_NO_AUDIO_RESERVATION": "1",
    }
    before = {key: os.environ.get(key) for key in ours}
    os.environ.update(ours)
    # In real time where the system lets it, as on a musician's machine: else each of the server's
    # own delays is counted against the instrument, and shifts the recording.
    real = ["-R", "-P", "60"] if _realtime() else ["-r"]
    command = ["jackd", "-n", name, *real, "-d", "dummy", "-r", str(_RATE), "-p", str(frames)]
    quiet: dict[str, Any] = {
        "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
    }  # fmt: skip
    server = subprocess.Popen(command, **quiet)
    try:
        time.sleep(1.0)
        if server.poll() is not None:
            raise DeviceError("jackd does not start", hint="try: jackd -r -d dummy -r 48000")
        yield
    finally:
        server.terminate()
        server.wait(5)
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _realtime() -> bool:
    """Whether this user may schedule in real time; tried by a child, not on this process."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def _ports() -> list[str]:
    """The outputs of the instrument at the server."""
    listed = subprocess.run(["jack_lsp"], capture_output=True, text=True, check=True).stdout
    return [p for p in listed.split("\n") if p and not p.startswith("system:") and "out" in p][:2]


def figures(options: Options) -> Figures:
    """Rows control, cls, anticipation (on, off), depth, ms; what the device saw. DemonError."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise UsageError(
            f"--jack needs {', '.join(missing)}",
            hint="Debian and Ubuntu: sudo apt install jackd2 jack-tools",
        )
    jumps = list(_PLAYED)
    held = _sounds(options, jumps)
    rows: list[dict[str, Any]] = []
    devices = []
    depths = (options.depth,) if options.depth else DEPTHS
    # Knobs at one depth are enough to compare with.
    for anticipation, depth in (*(("on", d) for d in depths), ("off", options.depth or 4)):
        with _server(), tempfile.TemporaryDirectory() as folder:
            on = anticipation == "on"
            audio, begun, device = _take(options, jumps, depth, on, Path(folder))
        said = {"anticipation": anticipation, "depth": depth}
        rows += [{**row, **said} for row in _judged(audio, begun, jumps, held)]
        devices.append({**said, **device})
    known = [abs(v) for r in rows if r["anticipation"] == "on" for v in r["ms"] if v is not None]
    return {
        "sink_device": devices,
        "sink_jumps": len(known),
        "sink_worst_ms": round(max(known), 2),
        "sink_within_20_ms": sum(v <= 20 for v in known),
        "sink_median_ms": round(float(np.median(known)), 3),
        "sink": rows,
    }


def _sounds(options: Options, jumps: Sequence[Jump]) -> dict[tuple[str, str], Floats]:
    """How each value sounds, one lap [SPACING, 2]; ("", "") is the score that lies under all."""
    from demon_live.models.engine import open_engine
    from demon_live.paths import shipped
    from demon_live.replay.render import Offline

    engine = open_engine(options.engine, backend=options.backend)
    out = {}
    wanted = [("", ""), *((j.control, v) for j in jumps for v in (j.low, j.high))]
    try:
        for control, value in wanted:
            offline = Offline(engine, folders=(shipped("patterns"),))
            line = f"\n{control} = {value}" if control else ""
            offline.session.apply(_BASE + line, "bench.demon", "file")
            out[control, value] = offline.render(seconds=2 * SPACING / _RATE)[SPACING:]
    finally:
        engine.close()
    return out


def _take(
    options: Options, jumps: Sequence[Jump], depth: int, anticipate: bool, folder: Path
) -> tuple[Floats, int, dict[str, Any]]:
    """(recording, about which output sample it begins with, what the device counted)."""
    import soundfile

    from demon_live.runtime.live import Live

    score, wav = folder / "bench.demon", folder / "take.wav"
    score.write_text(_BASE, encoding="utf-8")
    laps = 5 + len(jumps) * (_COUNT + 2)
    with Live(
        [score],
        engine=options.engine,
        backend=options.backend,
        device="system",
        depth=depth,
        watch=False,
    ) as live:
        host = live.engine
        if not anticipate:
            send = host.send

            def told(message: ToEngine) -> None:
                send(knob(message) if isinstance(message, Block) else message)

            host.send = told  # type: ignore[method-assign]
        live.wait(30, lambda: live.engine.status.generations > 4)
        # A take begins with whole laps of the score that lies under all.
        bus = live.speaker.bus
        first = bus.played // SPACING + 2
        live.wait(30, lambda: bus.played >= first * SPACING - _RATE // 2)
        seconds = laps * SPACING / _RATE
        command = ["jack_rec", "-f", str(wav), "-d", f"{seconds:.0f}", "-b", "24", *_ports()]
        begun, dry, under = bus.played, bus.dry, bus.underruns
        recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _perform(live, jumps, _turns(begun, len(jumps)))
        recorder.wait(seconds + 20)
        status = live.engine.status
        counts = {
            "dry": bus.dry - dry,
            "underruns": bus.underruns - under,
            "latency_ms": round(bus.latency_s * 1000, 1),
            "tick_ms": round(status.tick_ms, 1),
            "period_ms": round(status.period_ms, 1),
        }
    audio, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    return audio, begun, counts


def _perform(live: Live, jumps: Sequence[Jump], turns: Sequence[int]) -> None:
    """Each control in its turn: its pattern for some jumps, then what it was."""
    for jump, begin in zip(jumps, turns, strict=True):
        # A bar is half a lap: both edits are in time for their bar.
        _until(live, begin * SPACING - SPACING * 3 // 8)
        live.session.apply(f"{jump.control} = {jump.pattern}")
        _until(live, (begin + _COUNT) * SPACING - SPACING * 3 // 8)
        usual = {"prompt": "'house'", "denoise": ".8"}.get(jump.control, "default")
        live.session.apply(f"{jump.control} = {usual}")
    _until(live, (turns[-1] + _COUNT + 1) * SPACING)


def _until(live: Live, sample: int) -> None:
    live.wait(120, lambda: live.speaker.bus.mixed >= sample)


def _judged(
    audio: Floats, begun: int, jumps: Sequence[Jump], held: dict[tuple[str, str], Floats]
) -> Iterator[dict[str, Any]]:
    """One row for each control. Its place in the recording is found from the lap before it, in
    which the score that lies under all sounds: an underrun earlier on is no error of the score."""
    for jump, first in zip(jumps, _turns(begun, len(jumps)), strict=True):
        near = max(0, (first - 1) * SPACING - begun)
        at = near + _offset(audio[near:], held["", ""])  # index at which lap `first` - 1 begins
        part = audio[at + SPACING :][: (_COUNT + 1) * SPACING]
        laps = -(-len(part) // SPACING)
        low, high = (
            np.tile(held[jump.control, v], (laps, 1))[: len(part)] for v in (jump.low, jump.high)
        )
        written = [i * SPACING for i in range(1, _COUNT)]
        rising = [(first + i) % 2 == 1 for i in range(1, _COUNT)]
        heard = crossings(part, low, high, written, rising)
        late = [
            None if h is None else round((h - w) * 1000 / _RATE, 3)
            for h, w in zip(heard, written, strict=True)
        ]
        yield {"control": jump.control, "cls": CONTROLS[jump.control].cls, "ms": late}


def _turns(begun: int, count: int) -> list[int]:
    """The even laps at which `_perform` lets each control begin."""
    lap = -(-begun // SPACING) + 2
    out = []
    for _ in range(count):
        begin = _even(lap + 1)
        out.append(begin)
        lap = begin + _COUNT + 1
    return out


def _even(lap: int) -> int:
    return lap + lap % 2


def _offset(audio: Floats, base: Floats) -> int:
    """How many samples behind the first of `audio` a lap of `base` begins, within half a lap."""
    piece = audio[:SPACING, 0].astype(np.float64)
    known = base[: len(piece), 0].astype(np.float64)
    score = np.fft.irfft(np.fft.rfft(piece) * np.conj(np.fft.rfft(known)), len(piece))
    lag = int(np.argmax(score))
    return lag if lag < SPACING // 2 else lag - SPACING
