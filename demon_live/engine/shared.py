"""The shared state of the ring: values that every solver step of every slot reads.

A value belongs to all decks or to one deck, whose own value wins. A curve belongs to the loops of
its length, so that the curves of a loop that is being prepared can stand beside those of the one
that plays. Writing checks name, length and finiteness at the call, so that a tick cannot fail on
it. A tick reads one immutable snapshot; its version number grows with every write and is stamped
on every step that saw it.

Threads: the state belongs to the engine thread; a Snapshot is immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from demon_live import controls
from demon_live.core import Floats
from demon_live.errors import ScoreError, nearest

Value = float | Floats

#: Names that may be shared: the controls of class step.
STEP_LANES = tuple(controls.names("step"))
#: Those that the solver does not use: the model reads them from its rows.
MODEL_LANES = ("hint", "prompt_mix")

#: Length under which a gain per channel is kept: it fits loops of any length.
_ANY = 0

_Curves = Mapping[int, Floats]
_Bank = Mapping[str, float | _Curves]


def default(name: str) -> float:
    """The neutral value of a lane, from the table of controls."""
    value = controls.CONTROLS[name].default
    return float(value) if isinstance(value, int | float) else 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All shared values at one version. Curves are read-only float32."""

    version: int
    everywhere: _Bank
    decks: Mapping[str, _Bank]
    # Values by deck and length, computed at their first use.
    _lanes: dict[tuple[str, int], Mapping[str, Value]] = field(default_factory=dict, repr=False)
    _model_lanes: dict[tuple[str, int], Mapping[str, Value]] = field(
        default_factory=dict, repr=False
    )

    def get(self, deck: str, name: str, frames: int) -> Value | None:
        """The value for a deck's slots of T = frames; None if there is none."""
        for bank in (self.decks.get(deck), self.everywhere):
            value = None if bank is None else bank.get(name)
            if isinstance(value, float):
                return value
            if value is not None:
                curve = value.get(frames)
                return value.get(_ANY) if curve is None else curve
        return None

    def lanes(self, deck: str, frames: int) -> Mapping[str, Value]:
        """Every lane that has a value for a deck's slots of T = frames."""
        lanes = self._lanes.get((deck, frames))
        if lanes is None:
            found = ((name, self.get(deck, name, frames)) for name in STEP_LANES)
            lanes = {name: value for name, value in found if value is not None}
            self._lanes[deck, frames] = lanes
        return lanes

    def model_lanes(self, deck: str, frames: int) -> Mapping[str, Value]:
        """The lanes of a row that the model reads."""
        found = self._model_lanes.get((deck, frames))
        if found is None:
            lanes = self.lanes(deck, frames)
            found = MappingProxyType({n: lanes[n] for n in MODEL_LANES if n in lanes})
            self._model_lanes[deck, frames] = found
        return found


class SharedState:
    """The writer of the snapshots. Banks are replaced, never changed: snapshots refer to them."""

    def __init__(self) -> None:
        self._everywhere: dict[str, float | _Curves] = {}
        self._decks: dict[str, dict[str, float | _Curves]] = {}
        self._version = 0
        self._snapshot: Snapshot | None = None

    @property
    def version(self) -> int:
        return self._version

    def bump(self) -> None:
        """Count a version without a new value: weights or schedules changed."""
        self._version += 1

    def write(
        self, name: str, value: object, deck: str | None, lengths: Set[int], channels: Set[int]
    ) -> None:
        """Set a value, or remove it with None.

        lengths, channels: every T and C that the value may have to fit; empty = not known yet.
        """
        if name not in STEP_LANES:
            near = nearest(name, STEP_LANES)
            raise ScoreError(
                f"{name!r} is no control that every step reads",
                hint=f"did you mean {near[0]}?" if near else "one of " + ", ".join(STEP_LANES),
            )
        bank = dict(self._everywhere if deck is None else self._decks.get(deck, {}))
        if value is None:
            bank.pop(name, None)
        else:
            checked = _checked(name, value)
            if isinstance(checked, float):
                bank[name] = checked
            else:
                length = _length(name, checked, lengths, channels)
                present = bank.get(name)
                by_length = present if isinstance(present, Mapping) else {}
                others = {} if _ANY in (length, *by_length) else by_length
                bank[name] = {**others, length: checked}
        self._put(deck, bank)

    def _put(self, deck: str | None, bank: dict[str, float | _Curves]) -> None:
        if deck is None:
            self._everywhere = bank
        else:
            self._decks[deck] = bank
        self._version += 1

    def fits(self, deck: str, frames: int, channels: int) -> None:
        """Raise ScoreError when a lane of `deck` has curves, but none for loops of T = frames."""
        for owner in (deck, None):
            bank = self._everywhere if owner is None else self._decks.get(owner, {})
            for name, value in bank.items():
                if not isinstance(value, Mapping) or frames in value or _ANY in value:
                    continue
                if name == "energy" and channels in value:
                    # Only now is it known that this was a gain per channel.
                    self._put(owner, {**bank, name: {_ANY: value[channels]}})
                else:
                    has = ", ".join(str(length) for length in sorted(value))
                    raise ScoreError(
                        f"the curve of {name} has {has} frames, the request has {frames}",
                        hint=f"share {name} for the new length first, or remove it with None",
                    )

    def keep_lengths(self, deck: str, lengths: Set[int]) -> None:
        """Drop the deck's curves of other lengths: they belong to loops that are gone."""
        bank = self._decks.get(deck)
        if bank is None:
            return
        kept: dict[str, float | _Curves] = {}
        for name, value in bank.items():
            if isinstance(value, Mapping):
                value = {n: curve for n, curve in value.items() if n in lengths or n == _ANY}
            if isinstance(value, float) or value:
                kept[name] = value
        if kept != bank:
            self._put(deck, kept)

    def forget(self, deck: str) -> None:
        """Drop all values of a deck."""
        if self._decks.pop(deck, None):
            self._version += 1

    def snapshot(self) -> Snapshot:
        """The state now; the same object until the next write."""
        if self._snapshot is None or self._snapshot.version != self._version:
            self._snapshot = Snapshot(
                self._version,
                MappingProxyType(self._everywhere),
                MappingProxyType(dict(self._decks)),
            )
        return self._snapshot


def _checked(name: str, value: object) -> Value:
    """A private, read-only float32 copy of a value, or a float."""
    try:
        array = np.array(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise ScoreError(f"{name} must be a number or a curve", hint=f"{name} = .5") from None
    if not np.isfinite(array).all():
        raise ScoreError(f"{name} has a value that is not finite", hint="look for a division by 0")
    if array.ndim == 0:
        return float(array)
    gain_row = name == "energy" and array.ndim == 2 and array.shape[0] == 1
    if not array.size or (array.ndim != 1 and not gain_row):
        raise ScoreError(
            f"{name} must be a number or one curve, not an array of shape {array.shape}",
            hint="one value for each frame of the loop",
        )
    array.setflags(write=False)
    return array


def _length(name: str, curve: Floats, lengths: Set[int], channels: Set[int]) -> int:
    """The T under which a curve is kept; ScoreError when it fits no loop that is known."""
    if curve.ndim == 2:
        if channels and curve.shape[1] not in channels:
            raise ScoreError(
                f"{name} has {curve.shape[1]} channels, the latent has {sorted(channels)}",
                hint="one value for each channel of the latent",
            )
        return _ANY
    if not lengths or len(curve) in lengths:
        return len(curve)
    if name == "energy" and len(curve) in channels:
        return _ANY
    raise ScoreError(
        f"{name} has {len(curve)} frames, the loop has "
        + " or ".join(str(length) for length in sorted(lengths)),
        hint="sample the curve at the loop's own length",
    )
