"""Moves of controllers, as text in a set and as statements that `learn` makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from demon_live.controls import Control, find
from demon_live.core import RATES
from demon_live.lang.controllers import Hands, Key, Move

#: Seconds between two moments of moves: 25 a second.
GAP = RATES.hop / RATES.sample_rate
#: Samples that a move of a knob takes: the steps of its 7 bits become a line.
MOVE = RATES.hop
#: A knob is meant by `learn` when it has travelled this far.
_TRAVEL = 0.03


class Inputs(Protocol):
    """The open controllers of a session (control.midi_input.Controllers)."""

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

    def __init__(self, deck: str, control: str) -> None:
        self.deck, self.control = deck, control
        self._extent: dict[Key, tuple[float, float]] = {}

    def hear(self, moves: Iterable[Move], before: Hands) -> str:
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
                return binding(self.deck, self.control, key)
        return ""


def binding(deck: str, name: str, key: Key) -> str:
    """`drums.lpf = cc(21).rangex(20, 20000) now`: a knob over the whole range of a control."""
    control = find(name)
    assert control is not None
    label = name if deck == "main" or name == "fader" else f"{deck}.{name}"
    return f"{label} = cc({key.number}){_reach(control)} now"


def _reach(control: Control) -> str:
    if control.unit == "Hz":
        return f".rangex({control.low:g}, {control.high:g})"
    if control.high > 1000:
        return ".range(0, 127).round"
    if (control.low, control.high) == (0.0, 1.0):
        return ""
    return f".range({control.low:g}, {control.high:g})"
