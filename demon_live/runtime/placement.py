"""Where decoded windows go: ahead of the playhead, from the right generation, with clean splices.

What lies in a loop is remembered, so that nothing is decoded twice into the same place: every turn
the first stretch within a reserve ahead of the playhead that should come from another generation is
written. A piece never crosses a jump of the score or the end of a lap, so a splice lies exactly on
the jump, and the seam of the loop is a splice like any other.

A splice fades from what is in the loop to the new audio over 2*HALF samples, centred on the
boundary; weights are compensated for the correlation of the two, so that equal audio keeps its
level (no bump) and unlike audio keeps its power (no dip).

Threads: belongs to the engine loop. Only it writes to the loop's PCM; the mixer reads it.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from demon_live.audio.pcmring import likeness
from demon_live.core import RATES, Floats, Generation, Loop
from demon_live.engine.decode import sound

#: Half of a splice, in samples (8 ms): 16 ms in all.
HALF = 384
#: Finished generations that are kept for a deck.
_KEEP = 64
#: `Window.hear_from` of what was not generated; samples of such a window at most.
STAND_IN, _LONGEST = -1, 30 * RATES.sample_rate

Decode = Callable[[Floats, int, int], Floats]
"""(latent [T, C], first frame, frames) -> audio float32 [frames * hop, 2], cyclic."""


def crossfade(old: Floats, new: Floats) -> Floats:
    """From `old` to `new`, float32 [n, 2], over their whole length.

    Straight weights a = 1-x and b = x, divided by sqrt(a^2 + b^2 + 2*r*a*b) with r the
    correlation of the two: r = 1 is a straight fade (a constant stays constant), r = 0 keeps power.
    """
    n = len(old)
    x = ((np.arange(n, dtype=np.float32) + 0.5) / np.float32(n))[:, None]
    r = np.float32(likeness(old, new, silent=1.0))
    a, b = 1 - x, x
    return np.asarray((a * old + b * new) / np.sqrt(a * a + b * b + 2 * r * a * b), np.float32)


def plays_on(before: Loop, loop: Loop) -> bool:
    """Whether a new loop is the old one at another tempo: its loop begins with what plays."""
    mine = (loop.source, loop.notes, loop.cycles, loop.beats)
    return (before.source, before.notes, before.cycles, before.beats) == mine


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch [start, end) of output samples, to be written from one generation."""

    start: int
    end: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class Window:
    """The decoded sound of a piece, on its way into the loop.

    audio: float32 [n, 2]; its first sample is output sample `base`, and it reaches HALF before
    `start` and 3 * HALF behind `end`. hear_from: of the generation it was decoded from; STAND_IN:
    it plays only in a loop in which nothing was generated yet.
    """

    start: int
    end: int
    base: int
    audio: Floats
    hear_from: int


class Content:
    """Which latent each stretch of a loop was decoded from.

    Latents are compared as objects: a generation from the ring's store is the same one again. A
    window that ends with the lap goes on a little over the beginning of the loop: `over`.
    """

    def __init__(self) -> None:
        # (begin, end, latent, over), ascending, without overlaps.
        self._rows: list[tuple[int, int, Floats, bool]] = []

    def assign(self, begin: int, end: int, latent: Floats | None, over: bool = False) -> None:
        """Positions [begin, end) hold this from now on; None: a mixture."""
        rows: list[tuple[int, int, Floats, bool]] = []
        for a, b, held, was_over in self._rows:
            rows += [(a, min(b, begin), held, was_over)] if a < begin else []
            rows += [(max(a, end), b, held, was_over)] if b > end else []
        if latent is not None and end > begin:
            rows.append((begin, end, latent, over))
        self._rows = sorted(rows, key=lambda row: row[0])

    def at(self, position: int) -> Floats | None:
        """What lies there; None: a mixture, or nothing."""
        return next((latent for a, b, latent, _ in self._rows if a <= position < b), None)

    def reach(self, position: int, latent: Floats | None, over: bool = False) -> int:
        """How far from `position` on the loop holds this latent, in samples."""
        stop = position
        for a, b, held, is_over in self._rows:
            if a <= stop < b and held is latent and is_over == over:
                stop = b
        return stop - position


class DeckPlacement:
    """The loop of one deck under one loop.

    loop: float32 [loop.samples, 2], the PCM that the mixer reads. window: frames of a
    decode; it may change at any time. ship: takes the windows where the loop is on another machine,
    whose own placement lands them; the loop here is then never written.
    """

    def __init__(
        self,
        loop: Loop,
        buffer: Floats,
        decode: Decode,
        window: int,
        ship: Callable[[Window], None] | None = None,
    ) -> None:
        self.loop = loop
        # The same loop with laps that begin elsewhere, from its from_sample on.
        self._moved: Loop | None = None
        self.buffer = buffer
        self._decode, self._ship = decode, ship
        self.window = window
        self._content = Content()
        self._generations: list[Generation] = []
        self._past: deque[int] = deque(maxlen=64)
        self._future: list[int] = []
        self.cursor = loop.from_sample
        #: Leave out splices of a sound with itself.
        self.exact = False
        #: Samples that are equal on both sides of a fade stay as they are.
        self.keeps = False
        self._fresh = False
        #: What came last was asked for by a hand, and none of it was written yet.
        self.hurried = False
        #: Whether what is written may be written again from a newer generation.
        self.may_refresh = True
        self.late = 0
        self.nonfinite = 0
        # How late the first generation of the last jump came, in samples; 0 = on its sample.
        self.jump_late = 0
        self._judged = 0
        # What plays until the first generation; whether something else plays (None: not known).
        self._stand_in: Floats | None = None
        self._sounds: bool | None = None

    def move(self, loop: Loop) -> None:
        """From loop.from_sample on laps begin elsewhere; the same epoch, frames and PCM."""
        if loop.epoch == self.loop.epoch:
            self._moved = loop

    def stage_of(self, sample: int) -> Loop:
        """Whose laps an output sample belongs to."""
        moved = self._moved
        return moved if moved is not None and sample >= moved.from_sample else self.loop

    def _border(self, sample: int) -> int:
        """Where the laps that `sample` belongs to end to be valid."""
        moved = self._moved
        return moved.from_sample if moved is not None and sample < moved.from_sample else 1 << 62

    def settle(self, now: int) -> None:
        """A move that has happened is the loop."""
        if self._moved is not None and now >= self._moved.from_sample + RATES.sample_rate:
            self.loop, self._moved = self._moved, None

    def note(self, now: int, jumps: Iterable[int]) -> None:
        """Where generations take turns from output sample `now` on; what has passed is
        remembered."""
        self.settle(now)
        self._past.extend(j for j in self._future if j <= now)
        self._future = list(jumps)

    def accept(self, generation: Generation) -> None:
        """A finished generation; of an older epoch it is ignored."""
        if generation.request.epoch != self.loop.epoch:
            return
        begin, end = self._bounds(generation.request.hear_from)
        same = [g for g in self._generations if begin <= g.request.hear_from < end]
        if self.exact and any(g.born > generation.born for g in same):
            # What was asked for later was in the store, and is here already.
            return
        # Only the newest of a group is ever asked for.
        kept = [g for g in self._generations if g not in same]
        self._generations = [*kept[-_KEEP:], generation]
        self._fresh, self.hurried = True, generation.request.hand

    def forget(self) -> None:
        """What lies in the loop is to be written again."""
        self._content = Content()
        self._fresh = True

    @property
    def empty(self) -> bool:
        """Nothing has been generated for this loop yet."""
        return not self._generations

    def _bounds(self, sample: int) -> tuple[int, int]:
        """The last jump at or before `sample` and the first after it."""
        before = max((j for j in (*self._past, *self._future) if j <= sample), default=-1)
        i = bisect.bisect_right(self._future, sample)
        return before, self._future[i] if i < len(self._future) else 1 << 62

    def best(self, sample: int) -> Generation | None:
        """The newest generation made for the group that `sample` lies in; else the newest that is
        not for a later group: late, but the nearest there is."""
        begin, end = self._bounds(sample)
        fallback: Generation | None = None
        for generation in reversed(self._generations):
            heard = generation.request.hear_from
            if begin <= heard < end:
                return generation
            if heard < end and fallback is None:
                fallback = generation
        return fallback

    def next_piece(self, now: int, lead: int, reserve: int) -> Piece | None:
        """The stretch to write now, or None: all is as it should be. lead, reserve: samples."""
        soon = max(now + lead, self.loop.from_sample)
        fresh, self._fresh = self._fresh, self._fresh and not self.may_refresh
        if fresh and self.may_refresh:
            start, limit = soon, max(soon + reserve, soon + 1)
        else:
            start, limit = max(soon, self.cursor), soon + reserve
        if self.exact and self._ship is None:
            start = self._unwritten(start, limit)
        generation = self.best(start) if start < limit else None
        if generation is None:
            return None
        _, position = self.stage_of(start).locate(start)
        first = (position - HALF) // RATES.hop
        # What the window covers, less the overhang and the fade behind it.
        covered = (first + self.window) * RATES.hop - position - 3 * HALF
        return Piece(start, min(start + covered, self._group_end(start)), generation)

    def _group_end(self, start: int) -> int:
        """How far what `best` gives at `start` is to be heard."""
        loop = self.stage_of(start)
        lap, _ = loop.locate(start)
        return min(self._bounds(start)[1], loop.lap_start(lap + 1), self._border(start))

    def _unwritten(self, start: int, limit: int) -> int:
        """The first sample before `limit` that does not come from the generation that it should
        come from; `limit` if there is none."""
        soon = start
        while start < limit and (generation := self.best(start)) is not None:
            _, position = self.stage_of(start).locate(start)
            reach = start + self._content.reach(position, generation.latent)
            end = self._group_end(start)
            if reach >= end:
                start = end
                continue
            # The next window goes on within the overhang of the last one, and a splice needs what
            # lies before it as it was before other splices.
            if not (self._splices(reach) and self._before(reach) is not None):
                reach = max(soon, reach - HALF)
            return min(reach, limit)
        return limit

    def _splices(self, sample: int) -> bool:
        """Whether generations take turns there, or a lap begins."""
        return self._begins_lap(sample) or sample == self._bounds(sample)[0]

    def write(self, piece: Piece, now: Callable[[], int], guard: int) -> bool:
        """Decode a piece and splice it in, nothing within `guard` samples of the playhead.

        False if it came too late altogether, or held something that is not finite.
        """
        start = piece.start
        _, position = self.stage_of(start).locate(start)
        first = (position - HALF) // RATES.hop
        audio = self._decode(piece.generation.latent, first, self.window)
        base = start - (position - first * RATES.hop)  # output sample of audio[0]
        if not sound(audio):
            self.nonfinite += 1
            return False
        window = Window(start, piece.end, base, audio, piece.generation.request.hear_from)
        if self._ship is None:
            return self.land(window, now, guard, piece.generation.latent)
        self._ship(window)
        self.cursor = piece.end
        return True

    def stand_in(self, audio: Floats, start: int, now: Callable[[], int], guard: int) -> None:
        """A loop that is silent plays this until its first generation.

        audio: float32 [loop.samples, 2]; the same again does nothing. start: the output sample
        from which on it is heard. now, guard: see `land`.
        """
        if audio is self._stand_in:
            return
        self._stand_in, cursor = audio, self.cursor
        parts = max(2, -(-self.loop.samples // _LONGEST))
        borders = [start + self.loop.samples * k // parts for k in range(parts + 1)]
        for begin, end in pairwise(borders):
            base = begin - HALF
            heard = np.concatenate([audio[a:b] for a, b in self._spans(base, end + 3 * HALF)])
            window = Window(begin, end, base, heard, STAND_IN)
            if self._ship is None:
                self.land(window, now, guard)
            else:
                self._ship(window)
        self.cursor = cursor

    def land(
        self, window: Window, now: Callable[[], int], guard: int, latent: Floats | None = None
    ) -> bool:
        """Splice a window in, nothing within `guard` samples of the playhead. False: too late.

        latent: what it was decoded from, if that is known here.
        """
        start, end, base, audio = window.start, window.end, window.base, window.audio
        if window.hear_from != STAND_IN:
            self._sounds = True
        elif self._sounds is None:
            self._sounds = bool(self.buffer.any())
        if window.hear_from == STAND_IN and self._sounds:
            return False
        start = max(start, now() + guard + HALF)
        if start >= end:
            self.late += 1
            self.cursor = max(self.cursor, start)
            return False
        self._judge(window, start)
        begin, stop = start - HALF, end + HALF
        new = audio[begin - base : stop + 2 * HALF - base]
        old = self._read(begin, stop + 2 * HALF)
        merged = new.copy()
        # A splice of a sound with itself is left out: what is heard must not depend on where
        # windows happen to begin.
        if not self._goes_on(start, latent):
            merged[: 2 * HALF] = self._fade(old[: 2 * HALF], new[: 2 * HALF])
        # Behind the overhang: back to what is there, heard only if the engine stalls.
        tail = self._spans(stop, stop + 2 * HALF)
        whole = all(self._content.reach(a, latent) >= b - a for a, b in tail)
        if not (self.exact and whole):
            merged[-2 * HALF :] = self._fade(new[-2 * HALF :], old[-2 * HALF :])
        self._note_content(start, end, latent)
        if not whole:
            self._assign(stop, stop + 2 * HALF, None)
        self._store(begin, merged)
        self.cursor = end
        return True

    def _fade(self, old: Floats, new: Floats) -> Floats:
        return new if self.keeps and np.array_equal(old, new) else crossfade(old, new)

    def _begins_lap(self, sample: int) -> bool:
        return self.stage_of(sample).locate(sample)[1] == 0

    def _before(self, start: int) -> Floats | None:
        """The latent that lies on both sides of `start`, None if it is not one alone."""
        (a, _), *_ = self._spans(start - HALF, start)
        latent, seam = self._content.at(a), self._begins_lap(start)
        left = [(span, False) for span in self._spans(start - HALF, start)]
        right = [(span, seam) for span in self._spans(start, start + HALF)]
        whole = all(
            self._content.reach(a, latent, over) >= b - a for (a, b), over in (*left, *right)
        )
        return latent if whole else None

    def _goes_on(self, start: int, latent: Floats | None) -> bool:
        """Whether a window of `latent` that begins there continues what lies before it."""
        return (
            self.exact
            and latent is not None
            and not self._begins_lap(start)
            and self._before(start) is latent
        )

    def _note_content(self, start: int, end: int, latent: Floats | None) -> None:
        """[start, end) and an overhang come from `latent` now.

        A splice that is none of the score's, or of more than two sounds, is to be written again.
        """
        if not self._goes_on(start, latent):
            if not self._splices(start):
                self._assign(start - HALF, start + HALF, None)
                start += HALF
            elif self._before(start) is None:
                self._assign(start - HALF, start, None)
        self._assign(start, end, latent)
        self._assign(end, end + HALF, latent, self._begins_lap(end))

    def _assign(self, begin: int, end: int, latent: Floats | None, over: bool = False) -> None:
        for a, b in self._spans(begin, end):
            self._content.assign(a, b, latent, over)

    def fill(self, generation: Generation) -> None:
        """Write the whole loop from one generation: the first sound of a loop, before it plays."""
        position = 0
        while position < self.loop.samples:
            audio = self._decode(generation.latent, position // RATES.hop, self.window)
            n = min(len(audio), self.loop.samples - position)
            if sound(audio):
                self.buffer[position : position + n] = audio[:n]
            position += n
        self._close_seam(generation)
        # At its seam the loop is written once more, as every lap's is.
        self._content.assign(2 * HALF, self.loop.samples - HALF, generation.latent)

    def _close_seam(self, generation: Generation) -> None:
        frame = self.loop.samples // RATES.hop
        tail = self._decode(generation.latent, frame, self.window)[
            self.loop.samples - frame * RATES.hop :
        ]
        if sound(tail):
            self.buffer[: 2 * HALF] = self._fade(tail[: 2 * HALF], self.buffer[: 2 * HALF])

    def _judge(self, window: Window, start: int) -> None:
        begin, _ = self._bounds(window.start)
        if begin > self._judged and window.hear_from >= begin:
            self._judged = begin
            self.jump_late = max(0, start - begin)

    def _read(self, begin: int, end: int) -> Floats:
        return np.concatenate([self.buffer[a:b] for a, b in self._spans(begin, end)])

    def _store(self, begin: int, audio: Floats) -> None:
        done = 0
        for a, b in self._spans(begin, begin + len(audio)):
            self.buffer[a:b] = audio[done : done + b - a]
            done += b - a

    def _spans(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Where output samples [begin, end) lie in the loop: slices of it, in order."""
        spans: list[tuple[int, int]] = []
        while begin < end:
            loop = self.stage_of(begin)
            lap, position = loop.locate(begin)
            n = min(end, loop.lap_start(lap + 1), self._border(begin)) - begin
            spans.append((position, position + n))
            begin += n
        return spans
