"""The crossfader: two sides of decks, one lane between them, at equal power.

A deck on a side is heard with its own gain times the fader's: cos and sin of a quarter turn, so
that the powers of both sides add up to one at every place. It is a lane like all others, so the
fader may be a pattern, moves over cycles, and jumps on the sample.

Threads: immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from demon_live.controls import CONTROLS, FADER, Control
from demon_live.core import Floats
from demon_live.lang import Lane
from demon_live.lang.pattern import Times

__all__ = ["FadedLane", "faded"]


def _side_gain(side: str, fader: Floats) -> Floats:
    angle = np.asarray(fader, np.float64) * (np.pi / 2)
    out = np.cos(angle) if side == "a" else np.sin(angle)
    # The ends are exact: cos of a quarter turn is 6e-17 in floating point, not nothing.
    out = np.where(np.abs(out) < 1e-12, 0.0, out)
    return np.asarray(out, np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class FadedLane(Lane):
    """A deck's gain under the crossfader."""

    spec: Control
    text: str
    gain: Lane
    fader: Lane
    side: str

    def sample(self, cycles: Times) -> Floats:
        out = self.gain.sample(cycles) * _side_gain(self.side, self.fader.sample(cycles))
        return np.asarray(out, np.float32)

    def at(self, cycle: Fraction) -> float | str:
        fader = np.array([float(self.fader.at(cycle))], np.float32)
        return float(self.gain.at(cycle)) * float(_side_gain(self.side, fader)[0])

    @property
    def continuous(self) -> bool:
        return self.gain.continuous or self.fader.continuous

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        return sorted({*self.gain.jumps(begin, end), *self.fader.jumps(begin, end)})


def faded(
    deck: str, lanes: Mapping[str, Lane], sides: Mapping[str, str], shared: Mapping[str, Lane]
) -> Mapping[str, Lane]:
    """The lanes of a deck, its gain under the crossfader if it is on one of its sides."""
    side = sides.get(deck)
    if side is None:
        return lanes
    spec = CONTROLS["gain"]
    gain = lanes.get("gain") or Lane.constant(spec)
    fader = shared.get("fader") or Lane.constant(FADER)
    return {**lanes, "gain": FadedLane(spec, gain.text, gain, fader, side)}
