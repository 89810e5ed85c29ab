"""From a hand to the ear under two policies, with one model on one device and a simulated playhead.

    python -m tests.rigs.hand [--engine E] [--random-weights] [--seconds S] [--depth D ..] [--idle]

queue: the policy of the engine of the DEMON paper. A request is queued at each tick, the queue
holds as many as the depth, one finished generation leaves a tick, and one window is decoded for
each, at its lead over the playhead. ours: session, generator and placement as they play.

The playhead goes on with the clock, a block at a time. An edit is first heard where the first
window lands that knows of it, and settled where the first lands whose every step knew of it. The
way between processes is left out.

--idle: on a clock that is counted. A call of the model or the decoder takes the least that one of
its shape took so far, and nothing else takes any time: what a machine without other work would do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np

from demon_live.audio.mixer import BLOCK
from demon_live.bench import report
from demon_live.bench.common import Options, machine, opened
from demon_live.core import RATES, Floats, Generation, Request
from demon_live.engine import Ring
from demon_live.engine.decode import WindowDecoder
from demon_live.models.engine import Engine
from demon_live.paths import shipped
from demon_live.runtime.generator import Generator
from demon_live.runtime.offline import OfflineOutput
from demon_live.runtime.pace import GUARD
from demon_live.runtime.placement import HALF, DeckPlacement, Piece
from demon_live.session.assets import Assets
from demon_live.session.session import Session

#: Seconds between two samplings of the score, as live.
_PUMP_EVERY = 0.08
#: Seconds of a turn without work.
_REST = 0.001
#: Seconds after which an edit that was not heard is given up.
_PATIENCE = 10.0
#: The queue's lead, in seconds: so many mean gaps between windows and so much more; at least.
_GAPS, _MORE, _LEAST = 1.6, 0.05, 0.25

CLASSES = ("step", "slot")


class Clock:
    """Seconds that go by as they do."""

    def now(self) -> float:
        return time.perf_counter()

    def rest(self) -> None:
        """A little while without work."""
        time.sleep(_REST)


class Counted(Clock):
    """An engine, and a clock that its calls move on: see the module. floor: seconds of any call."""

    def __init__(self, engine: Engine, floor: float = 0.0) -> None:
        self._engine, self._floor = engine, floor
        self._seconds = 0.0
        self._least: dict[tuple[int, ...], float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def now(self) -> float:
        return self._seconds

    def rest(self) -> None:
        self._seconds += _REST

    def velocity(self, x: Any, t: Any, rows: Any) -> Any:
        return self._spend(tuple(x.shape), lambda: self._engine.velocity(x, t, rows))

    def decode(self, latent: Floats) -> Any:
        return self._spend((0, *latent.shape), lambda: self._engine.decode(latent))

    def _spend(self, shape: tuple[int, ...], call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        took = min(time.perf_counter() - began, self._least.get(shape, _PATIENCE))
        self._least[shape] = took
        self._seconds += max(took, self._floor)
        return result


class ClockPlayhead:
    """The next sample that a mixer would decide, by the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self._began = clock, clock.now()

    def now(self) -> int:
        blocks = int((self.clock.now() - self._began) * RATES.sample_rate) // BLOCK
        return (blocks + 1) * BLOCK


class Heard:
    """Where an edit is first heard and settled, ms after it."""

    def __init__(self, playhead: ClockPlayhead) -> None:
        self._playhead = playhead
        self._edited = 0
        self.first: float | None = None
        self.settled: float | None = None

    def begin(self) -> None:
        """The edit is made now."""
        self.first = self.settled = None
        # The sample at the ear is a block before the next one that is decided.
        self._edited = self._playhead.now() - BLOCK

    def note(self, start: int, known: float) -> None:
        """A window lands at sample `start`; known: the part of its steps that knew of the edit."""
        after = (start - self._edited) * 1000 / RATES.sample_rate
        if known > 0 and self.first is None:
            self.first = after
        if known >= 1 and self.settled is None:
            self.settled = after


class Queue:
    """The queue's policy on a ring: see the module."""

    def __init__(self, engine: Engine, depth: int, frames: int, playhead: ClockPlayhead) -> None:
        self.heard, self._playhead = Heard(playhead), playhead
        self._engine, self._frames, self._depth = engine, frames, depth
        self._words = engine.condition("techno", bpm=120.0, cycles=1, beats=4, frames=frames)
        self._ring = Ring(
            engine,
            steps=engine.steps,
            depth=depth,
            shift=engine.shift,
            device=engine.device,
            on_admit=self._next,
        )
        self._ring.enlist("main")
        # An empty slot takes the oldest request at once.
        self._ring._pace.gap = Fraction(0)
        self._decoder = WindowDecoder(engine.decode, engine.margin)
        self._queue: deque[Request] = deque(maxlen=depth)
        self._finished: deque[Generation] = deque()
        self._seed, self._edit_seed, self._edit_version = 0, -1, 0
        self._gap, self._last = 0.1, playhead.clock.now()

    def _next(self, deck: str) -> Request | None:
        # A finished generation keeps its slot until it leaves.
        full = self._ring.in_flight + len(self._finished) >= self._depth
        return None if full or not self._queue else self._queue.popleft()

    def edit(self, cls: str, n: int) -> None:
        """Another value of a control of a class."""
        self.heard.begin()
        self._edit_seed, self._edit_version = -1, 1 << 62
        if cls == "slot":
            self._seed = self._edit_seed = n
        else:
            self._ring.share("velocity", 0.5 + 0.01 * (n % 50))
            self._edit_version = self._ring.version

    def turn(self) -> None:
        """A tick, and the window of a generation that leaves."""
        self._queue.append(
            Request(self._frames, self._engine.channels, seed=self._seed, condition=self._words)
        )
        leaves = self._finished.popleft() if self._finished else None
        self._finished.extend(self._ring.tick())
        if leaves is not None:
            self._write(leaves)

    def _write(self, made: Generation) -> None:
        now = self._playhead.clock.now()
        self._gap += 0.1 * (min(now - self._last, 0.18) - self._gap)
        self._last = now
        lead = round(max(_LEAST, _GAPS * self._gap + _MORE) * RATES.sample_rate)
        start = self._playhead.now() + lead
        self._decoder.window(made.latent, start // RATES.hop, self._engine.window)
        knew = sum(version >= self._edit_version for version in made.versions)
        slot = made.request.seed == self._edit_seed
        self.heard.note(
            max(start, self._playhead.now()), 1.0 if slot else knew / len(made.versions)
        )

    def close(self) -> None:
        """End the ring."""
        self._ring.close()


class Ours:
    """Session, generator and placement on the clock."""

    def __init__(self, engine: Engine, depth: int, frames: int, playhead: ClockPlayhead) -> None:
        self.heard, self._playhead = Heard(playhead), playhead
        output = OfflineOutput(engine, seed=0, stems=False)
        output.playhead = playhead
        self._generator = output.generator = Generator(
            engine,
            playhead,
            open_buffer=output.pcm,
            read_pcm=output.pcm,
            tick_samples=round(engine.manifest.tick_ms * RATES.sample_rate / 1000),
            depth=depth,
            timer=playhead.clock.now,
            tell=output.notes.append,
        )
        self._session = Session(output, assets=Assets((shipped("patterns"),)), start={"seed": 0})
        tempo = 240 * RATES.frame_hz / frames
        while tempo < 60:
            tempo *= 2
        cycles = round(frames * tempo / 240 / RATES.frame_hz)
        self._session.apply(f"tempo {tempo:g}\nloop {cycles}\nprompt = 'techno'\nseed = 1")
        self._pumped, self._edit_tick = 0.0, 0
        self._generator.prime(self._session.pump, 256)
        (deck,) = self._generator._decks.values()
        self._watch(deck.placement)
        # What is edited before the loop begins cannot be heard before that.
        while playhead.now() <= deck.loop.from_sample:
            self.turn()

    def _watch(self, placement: DeckPlacement) -> None:
        write = placement.write

        def watched(piece: Piece, now: Callable[[], int], guard: int) -> bool:
            landed = write(piece, now, guard)
            made = piece.generation
            if landed and made.born >= self._edit_tick:
                start = max(piece.start, now() + GUARD + HALF)
                early = len(made.versions) == self._generator._draft
                self.heard.note(start, 0.5 if early else 1.0)
            return landed

        placement.write = watched  # type: ignore[method-assign]

    def edit(self, cls: str, n: int) -> None:
        """Another value of a control of a class."""
        self.heard.begin()
        self._edit_tick = self._generator.ring.tick_number
        line = f"seed = {n}" if cls == "slot" else f"velocity = {0.5 + 0.01 * (n % 50):g}"
        self._session.apply(f"{line} now")
        # As live, where an edit wakes what samples the score.
        self._pumped = -_PUMP_EVERY

    def turn(self) -> None:
        """A turn of the generator, and the score sampled now and then."""
        now = self._playhead.clock.now()
        if now - self._pumped > _PUMP_EVERY:
            self._pumped = now
            self._session.pump()
        self._generator.turn()
        if not self._generator.tick_due:
            self._playhead.clock.rest()

    def close(self) -> None:
        """End the session; the engine stays open."""
        self._session.close()
        self._generator.leave()


def table(
    engine: Engine,
    frames: int,
    depths: Sequence[int] = (1, 2, 4, 8),
    edits: int = 10,
    clock: Clock | None = None,
) -> list[dict[str, Any]]:
    """For each policy, class and depth: first heard and settled, best, median and worst, ms."""
    rows, clock = [], clock or Clock()
    for depth in depths:
        for name, policy in (("queue", Queue), ("ours", Ours)):
            found = _edits(policy(engine, depth, frames, ClockPlayhead(clock)), edits, clock)
            for cls in CLASSES:
                row: dict[str, Any] = {"depth": depth, "class": cls, "policy": name}
                for at, what in enumerate(("first", "settled")):
                    times = [heard[at] for heard in found[cls]]
                    row |= _span(what, times)
                rows.append(row)
                sys.stderr.write(f"{row}\n")
    return rows


def _span(what: str, times: Sequence[float]) -> dict[str, float]:
    numbers = (min(times), float(np.median(times)), max(times))
    return {
        f"{what}_{name}_ms": round(ms, 1)
        for name, ms in zip(("best", "median", "worst"), numbers, strict=True)
    }


def _edits(player: Queue | Ours, edits: int, clock: Clock) -> dict[str, list[tuple[float, float]]]:
    """(first heard, settled) of edits of each class, at other moments each."""
    moments = random.Random(1)
    found: dict[str, list[tuple[float, float]]] = {cls: [] for cls in CLASSES}
    _turn_for(player, 1.0, clock)
    for n in range(edits * len(CLASSES)):
        cls = CLASSES[n % len(CLASSES)]
        player.edit(cls, n + 2)
        given_up = clock.now() + _PATIENCE
        while player.heard.settled is None and clock.now() < given_up:
            player.turn()
        first, settled = player.heard.first, player.heard.settled
        found[cls].append((first or _PATIENCE * 1000, settled or _PATIENCE * 1000))
        _turn_for(player, moments.uniform(0.2, 0.4), clock)
    player.close()
    return found


def _turn_for(player: Queue | Ours, seconds: float, clock: Clock) -> None:
    end = clock.now() + seconds
    while clock.now() < end:
        player.turn()


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.hand")
    parser.add_argument("--engine", default="imp")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--seconds", type=float, default=16.0, help="of the loop")
    parser.add_argument("--depth", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--edits", type=int, default=10, help="of each class")
    parser.add_argument("--idle", action="store_true", help="count the least times")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    options = Options(
        args.engine, args.backend, seconds=args.seconds, random_weights=args.random_weights
    )
    with opened(options) as engine:
        engine.warm_up(options.frames, max(args.depth))
        load = os.getloadavg()[0]
        counted = Counted(engine) if args.idle else None
        played = cast(Engine, counted) if counted is not None else engine
        rows = table(played, options.frames, args.depth, args.edits, counted)
        about = {"engine": engine.describe(), "loop_s": args.seconds, "load": round(load, 1)}
        about["clock"] = "counted" if args.idle else "real"
    if args.json:
        found = {"machine": machine(), **about, "hand": rows}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write(
            "".join(text for _, text in report({"hand": about | {"table": rows}}, False))
        )


if __name__ == "__main__":
    main()
