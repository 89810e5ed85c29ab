"""Controllers (MIDI and OSC knobs, keys, wheels, what is played in) as functions of time.

A pattern is a pure function of time, and so is a controller: its value at a cycle is read from the
immutable history of its moves. A lane that names controllers is compiled again for each version of
that history (lane.ControllerLane). A set records the moves, so a replay needs no controller. Past
moves can be played with: cc(21).late(4) is the knob four cycles ago, cc(21).ribbon(8, 2) a loop of
its motion.

    cc(n)  cc(n, channel)   a knob or slider, 0..1      note  the last key, 0..127 (c4 is 60)
    bend                    the wheel, -1..1            gate  velocity of a pressed key, else 0
    in_level in_onset in_pitch in_bright                what is heard of the input, 0..1

A move is a straight line to its value: controllers have 128 steps, curves should have none.

Threads: immutable. Histories of one controller share memory; each reads only its own part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from demon_live.lang.pattern import Curve, Pattern, Times
from demon_live.lang.signals import SIGNALS
from demon_live.lang.transform import signal


class ControllerKind(NamedTuple):
    """low, high: the range. steps: the value jumps, it is not a curve."""

    low: float
    high: float
    steps: bool
    help: str
    example: str


CONTROLLERS: dict[str, ControllerKind] = {
    "cc": ControllerKind(
        0.0,
        1.0,
        False,
        "A knob or slider of a MIDI controller, by its number.",
        "blend = cc(21).range(.2, 1)",
    ),
    "note": ControllerKind(
        0.0, 127.0, True, "The last key pressed: c4 is 60; p.note reads note names.", "seed = note"
    ),
    "gate": ControllerKind(
        0.0, 1.0, True, "How hard a key is held, 0 when none is.", "noise = gate * .5"
    ),
    "bend": ControllerKind(-1.0, 1.0, False, "The pitch wheel, 0 in the middle.", "pan = bend"),
    "in_level": ControllerKind(
        0.0,
        1.0,
        False,
        "How loud the input is: 0 is -60 dB, 1 is full.",
        "denoise = in_level.range(.2, .8)",
    ),
    "in_onset": ControllerKind(
        0.0,
        1.0,
        False,
        "1 where something begins in the input, and down to 0 within a quarter of a second.",
        "noise = in_onset * .4",
    ),
    "in_pitch": ControllerKind(
        0.0,
        1.0,
        False,
        "The pitch of the input, c1 to c7; it stays where there is none.",
        "blend = in_pitch",
    ),
    "in_bright": ControllerKind(
        0.0,
        1.0,
        False,
        "How bright the input is: 0 is 100 Hz, 1 is 10 kHz.",
        "lpf = in_bright.rangex(400, 12000)",
    ),
}
#: Those that are heard of the input.
INPUT_SIGNALS = ("in_level", "in_onset", "in_pitch", "in_bright")


class Key(NamedTuple):
    """A controller. number: of a cc, else 0. channel: 1 to 16; 0 is any."""

    kind: str
    number: int = 0
    channel: int = 0

    def __str__(self) -> str:
        numbers = [self.number] if self.kind == "cc" else []
        inner = [str(n) for n in (*numbers, *([self.channel] if self.channel else []))]
        return f"{self.kind}({', '.join(inner)})" if inner else self.kind


class Move(NamedTuple):
    """A new value of a controller. key.channel is the channel that it came on, never 0."""

    key: Key
    value: float

    def __str__(self) -> str:
        return f"{self.key.kind} {self.key.number} {self.key.channel} {self.value:.6g}"

    @staticmethod
    def read(text: str) -> Move:
        """The inverse of str. Raises ValueError."""
        kind, number, channel, value = text.split()
        if kind not in CONTROLLERS:
            raise ValueError(f"there is no controller {kind!r}")
        return Move(Key(kind, int(number), int(channel)), float(value))


class _Store:
    """Memory that several versions of a track share; only ever added to."""

    __slots__ = ("rows", "used")

    def __init__(self, capacity: int) -> None:
        self.rows = np.zeros((4, capacity))
        self.used = 0


class Track:
    """The moves of one controller: rows (begin, from, to, length), in cycles, ascending."""

    __slots__ = ("_store", "n")

    def __init__(self, store: _Store | None = None, n: int = 0) -> None:
        self._store = store or _Store(16)
        self.n = n

    def moved(self, cycle: float, value: float, length: float) -> Track:
        """The track with one more move, which begins at `cycle` and takes `length` cycles."""
        store, n = self._store, self.n
        if n:
            cycle = max(cycle, float(store.rows[0, n - 1]))
        start = float(self.read(np.array([cycle]))[0]) if n else value
        if store.used != n or n == store.rows.shape[1]:
            # Full, or another version already continues here: copy.
            store = _Store(max(16, 2 * n))
            store.rows[:, :n] = self._store.rows[:, :n]
        store.rows[:, n] = cycle, start, value, length
        store.used = n + 1
        return Track(store, n + 1)

    def read(self, t: Any) -> Times:
        """Values at float64 [n] cycles; before the first move its value."""
        begin, start, goal, length = self._store.rows[:, : self.n]
        i = np.maximum(np.searchsorted(begin, t, side="right") - 1, 0)
        x = np.clip((t - begin[i]) / np.maximum(length[i], 1e-12), 0.0, 1.0)
        out: Times = start[i] + (goal[i] - start[i]) * x
        return out

    @property
    def last(self) -> float:
        """The value of the last move."""
        return float(self._store.rows[2, self.n - 1])

    def begins(self, first: float, last: float) -> list[float]:
        """The cycles in [first, last) at which moves begin."""
        begin = self._store.rows[0, : self.n]
        a, b = np.searchsorted(begin, [first, last])
        return [float(c) for c in begin[a:b]]


@dataclass(frozen=True, slots=True)
class ControllerHistory:
    """The histories of all controllers. version: grows with each call of `moved`."""

    version: int = 0
    tracks: Mapping[Key, Track] = field(default_factory=lambda: MappingProxyType({}))

    def moved(self, moves: Iterable[Move], cycle: float, length: float) -> ControllerHistory:
        """The histories with moves at `cycle`. length: cycles that a curve takes to its value."""
        tracks = dict(self.tracks)
        for key, value in moves:
            slope = 0.0 if CONTROLLERS[key.kind].steps else length
            for one in (key, key._replace(channel=0)):
                tracks[one] = tracks.get(one, Track()).moved(cycle, value, slope)
        return ControllerHistory(self.version + 1, MappingProxyType(tracks))

    def value(self, key: Key, cycle: float) -> float | None:
        """The value of a controller at a cycle, None if it has not moved yet."""
        track = self.tracks.get(key)
        return None if track is None else float(track.read(np.array([cycle]))[0])


EMPTY = ControllerHistory()


def track_pattern(key: Key, track: Track) -> Pattern:
    """The pattern of a controller."""

    def read(t: Any) -> Any:
        out = track.read(np.atleast_1d(np.asarray(t, dtype=np.float64)))
        return out if np.ndim(t) else float(out[0])

    if not CONTROLLERS[key.kind].steps:
        return signal(Curve(read), None)

    def steps(begin: Fraction, end: Fraction) -> list[Fraction]:
        return [Fraction(c) for c in track.begins(float(begin), float(end))]

    return signal(Curve(read, steps, flat=True), None)


def guess(key: Key) -> Pattern:
    """The stand-in for a controller while a score is checked: its whole range in each cycle."""
    low, high = CONTROLLERS[key.kind][:2]
    curve = SIGNALS["saw"][0].curve
    assert curve is not None
    return signal(curve.mapped(lambda v: v * (high - low) + low), None)
