"""The controllers of a session: which are open, what they moved, what `learn` makes of it.

Threads: under the session's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from demon_live.controls import Control
from demon_live.core import RATES
from demon_live.lang import Lane
from demon_live.lang.controllers import INPUT_SIGNALS, ControllerHistory, Key, Move

#: Seconds between two moments of moves: 25 a second.
GAP = RATES.hop / RATES.sample_rate
#: Samples that a move of a knob takes: the steps of its 7 bits become a line.
MOVE = RATES.hop
#: A knob is meant by `learn` when it has travelled this far.
_TRAVEL = 0.03


class InputDevices(Protocol):
    """Open controllers, such as control.midi_input.Controllers."""

    @property
    def problem(self) -> str:
        """Why no controller can be heard now, or ""."""

    def close(self) -> None:
        """Let go of the devices. Twice is fine."""


def write_moves(moves: Iterable[Move]) -> str:
    """Moves as a set keeps them: one a line, `cc 21 1 0.503937`."""
    return "\n".join(str(m) for m in moves)


def read_moves(text: str) -> list[Move]:
    """The inverse; a line that cannot be read is left out."""
    out = []
    for line in text.splitlines():
        try:
            out.append(Move.read(line))
        except ValueError:
            continue
    return out


class Learner:
    """Waits for the knob that is moved on purpose: others on the desk tremble."""

    def __init__(self, deck: str, name: str, control: Control) -> None:
        self.deck, self.name, self.control = deck, name, control
        self._extent: dict[Key, tuple[float, float]] = {}

    def hear(self, moves: Iterable[Move], before: ControllerHistory) -> str:
        """The statement that binds the control, or "" while no knob has moved far enough."""
        for key, value in moves:
            if key.kind != "cc":
                continue
            was = before.tracks.get(key)
            start = value if was is None else was.last
            low, high = self._extent.get(key, (start, start))
            low, high = min(low, value), max(high, value)
            self._extent[key] = low, high
            if high - low >= _TRAVEL:
                return binding(self.deck, self.name, self.control, key)
        return ""


def binding(deck: str, name: str, control: Control, key: Key) -> str:
    """`drums.lpf = cc(21).rangex(20, 20000) now`: a knob over the whole range of a control."""
    label = name if deck == "main" or name == "fader" else f"{deck}.{name}"
    return f"{label} = cc({key.number}){_reach(control)} now"


def _reach(control: Control) -> str:
    if control.unit == "Hz":
        return f".rangex({control.low:g}, {control.high:g})"
    if control.high > 1000:
        return ".range(0, 127).round"
    if (control.low, control.high) == (0.0, 1.0):
        return ""
    # Of a deck that goes elsewhere, a program of MIDI.
    whole = ".round" if control.cls == "out" and control.shape == "integer" else ""
    return f".range({control.low:g}, {control.high:g}){whole}"


def knobs_of(lane: Lane) -> set[Key]:
    """The controllers that a lane names; what is heard of the input is none."""
    return {key for key in lane.keys if key.kind not in INPUT_SIGNALS}


Hear = Callable[[Sequence[Move]], None]


class Inputs:
    """Opens the controllers when a score first names one; keeps those that have not moved.

    Args:
        open_devices: opens them and calls its argument with each moment of moves; None = there are
            none.
    """

    def __init__(self, open_devices: Callable[[Hear], InputDevices] | None = None) -> None:
        self._open = open_devices
        self._devices: InputDevices | None = None
        self._learner: Learner | None = None
        self._still: set[Key] = set()
        #: Where moves go; set by the session.
        self.hear: Hear = lambda moves: None

    def problem(self) -> str:
        """Open the controllers. Returns why none can be heard, or ""."""
        if self._devices is None and self._open is not None:
            self._devices = self._open(self.hear)
        return "" if self._devices is None else self._devices.problem

    def learn(self, target: tuple[str, str] | None, control: Control | None = None) -> None:
        """Bind the next knob that moves to a control of a deck and a name; None: no longer."""
        self._learner = None if target is None or control is None else Learner(*target, control)

    def moved(
        self,
        moves: Sequence[Move],
        before: ControllerHistory,
        after: ControllerHistory,
        replay: bool,
    ) -> str:
        """Controllers have moved. Returns the statement that `learn` waited for, or ""."""
        self._still -= after.tracks.keys()
        if self._learner is None or replay:
            return ""
        text = self._learner.hear(moves, before)
        if text:
            self._learner = None
        return text

    def unmoved(
        self, lanes: Iterable[tuple[str, Lane]], hands: ControllerHistory
    ) -> tuple[str, ...]:
        """One line for each lane that waits for a controller, each controller once."""
        rows, out = list(lanes), []
        for name, lane in rows:
            new = knobs_of(lane) - hands.tracks.keys() - self._still
            if new:
                self._still |= new
                which = ", ".join(str(k) for k in sorted(new))
                out.append(f"{which} has not moved yet: until then {name} keeps its default")
        problem = self.problem() if any(knobs_of(lane) for _, lane in rows) else ""
        return (*out, *([problem] if out and problem else []))

    def close(self) -> None:
        """Let go of the devices. Twice is fine."""
        devices, self._devices = self._devices, None
        if devices is not None:
            devices.close()
