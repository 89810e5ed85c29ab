"""Written against heard in real time, at a device: `python -m tests.rigs.jumps --jack`.

The instrument plays an engine through a JACK server without hardware (jack.py), and `jack_rec`
records what arrives there: engine process, audio process and callback are as they are on a stage.
How each value sounds is rendered off line beforehand; the place of the recording on the output
timeline is found by comparing its first seconds with that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live.bench.common import Figures, Options
from demon_live.controls import CONTROLS
from demon_live.core import RATES, Floats
from demon_live.errors import UsageError
from tests.rigs import jack
from tests.rigs.jumps import DEPTHS, JUMPS, SOURCE, SPACING, Jump, crossings, knob

if TYPE_CHECKING:
    from demon_live.runtime.live import Live

_RATE = RATES.sample_rate
#: Of each class what a real model says plainly: a blend of 0 is the source, whatever is around it.
PLAYED = (
    *(jump for jump in JUMPS if jump.control in ("gain", "denoise", "seed", "prompt")),
    Jump("blend", "1", "0"),
)
BASE = f"tempo 160\nloop 2\n{SOURCE}\nprompt = 'house'\ndenoise = .8"
#: Laps of each control.
COUNT = 4


def figures(options: Options) -> Figures:
    """Rows control, cls, anticipation (on, off), depth, ms; what the device saw. DemonError."""
    if not jack.available():
        raise UsageError(
            "--jack needs jackd, jack_rec and jack_lsp",
            hint="Debian and Ubuntu: sudo apt install jackd2 jack-tools",
        )
    jumps = list(PLAYED)
    held = sounds(options, jumps)
    rows: list[dict[str, Any]] = []
    devices = []
    depths = (options.depth,) if options.depth else DEPTHS
    # Knobs at one depth are enough to compare with.
    for anticipation, depth in (*(("on", d) for d in depths), ("off", options.depth or 4)):
        with tempfile.TemporaryDirectory() as folder, jack.Server(Path(folder)) as server:
            # The audio process of the instrument finds the server by its environment.
            os.environ.update(server.variables)
            try:
                on = anticipation == "on"
                audio, begun, device = _take(options, jumps, depth, on, server)
            finally:
                for name in server.variables:
                    del os.environ[name]
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


def sounds(options: Options, jumps: Sequence[Jump]) -> dict[tuple[str, str], Floats]:
    """How each value sounds, one lap [SPACING, 2]; ("", "") is the score that lies under all."""
    from demon_live.models.engine import open_engine
    from demon_live.paths import shipped
    from demon_live.runtime.offline import Offline

    engine = open_engine(options.engine, backend=options.backend)
    out = {}
    wanted = [("", ""), *((j.control, v) for j in jumps for v in (j.low, j.high))]
    try:
        for control, value in wanted:
            offline = Offline(engine, folders=(shipped("patterns"),))
            line = f"\n{control} = {value}" if control else ""
            offline.session.apply(BASE + line, "bench.demon", "file")
            out[control, value] = offline.render(seconds=2 * SPACING / _RATE)[SPACING:]
    finally:
        engine.close()
    return out


def _take(
    options: Options, jumps: Sequence[Jump], depth: int, anticipate: bool, server: jack.Server
) -> tuple[Floats, int, dict[str, Any]]:
    """(recording, about which output sample it begins with, what the device counted)."""
    import soundfile

    from demon_live.runtime.live import Live

    score, wav = server.folder / "bench.demon", server.folder / "take.wav"
    score.write_text(BASE, encoding="utf-8")
    laps = 5 + len(jumps) * (COUNT + 2)
    with Live(
        [score],
        engine=options.engine,
        backend=options.backend,
        device="system",
        depth=depth,
        watch=False,
    ) as live:
        if not anticipate:
            publish = live.engine.publish
            live.engine.publish = lambda state: publish(knob(state))  # type: ignore[method-assign]
        live.wait(30, lambda: live.engine.status.generations > 4)
        # A take begins with whole laps of the score that lies under all.
        bus = live.speaker.bus
        first = bus.played // SPACING + 2
        live.wait(30, lambda: bus.played >= first * SPACING - _RATE // 2)
        seconds = laps * SPACING / _RATE
        begun, dry, under = bus.played, bus.dry, bus.underruns
        recorder = server.capture(wav, seconds)
        perform(live, jumps, turns(begun, len(jumps)))
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


def perform(live: Live, jumps: Sequence[Jump], turns: Sequence[int]) -> None:
    """Each control in its turn: its pattern for some jumps, then what it was."""
    for jump, begin in zip(jumps, turns, strict=True):
        # A bar is half a lap: both edits are in time for their bar.
        until(live, begin * SPACING - SPACING * 3 // 8)
        live.session.apply(f"{jump.control} = {jump.pattern}")
        until(live, (begin + COUNT) * SPACING - SPACING * 3 // 8)
        usual = {"prompt": "'house'", "denoise": ".8"}.get(jump.control, "default")
        live.session.apply(f"{jump.control} = {usual}")
    until(live, (turns[-1] + COUNT + 1) * SPACING)


def until(live: Live, sample: int) -> None:
    live.wait(120, lambda: live.speaker.bus.mixed >= sample)


def _judged(
    audio: Floats, begun: int, jumps: Sequence[Jump], held: dict[tuple[str, str], Floats]
) -> Iterator[dict[str, Any]]:
    """One row for each control. Its place in the recording is found from the lap before it, in
    which the score that lies under all sounds: an underrun earlier on is no error of the score."""
    for jump, first in zip(jumps, turns(begun, len(jumps)), strict=True):
        near = max(0, (first - 1) * SPACING - begun)
        at = near + _offset(audio[near:], held["", ""])  # index at which lap `first` - 1 begins
        part = audio[at + SPACING :][: (COUNT + 1) * SPACING]
        laps = -(-len(part) // SPACING)
        low, high = (
            np.tile(held[jump.control, v], (laps, 1))[: len(part)] for v in (jump.low, jump.high)
        )
        written = [i * SPACING for i in range(1, COUNT)]
        rising = [(first + i) % 2 == 1 for i in range(1, COUNT)]
        heard = crossings(part, low, high, written, rising)
        late = [
            None if h is None else round((h - w) * 1000 / _RATE, 3)
            for h, w in zip(heard, written, strict=True)
        ]
        yield {"control": jump.control, "cls": CONTROLS[jump.control].cls, "ms": late}


def turns(begun: int, count: int) -> list[int]:
    """The even laps at which `perform` lets each control begin."""
    lap = -(-begun // SPACING) + 2
    out = []
    for _ in range(count):
        begin = _even(lap + 1)
        out.append(begin)
        lap = begin + COUNT + 1
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
