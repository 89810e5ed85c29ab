"""Controls of class `model`: weights of the network that change between two ticks.

    share("lora.x", .8)  ->  wanted  ->  prepared beside the ring  ->  committed before a tick

A tick waits for the commit alone (one copy into the weights' own memory); the arithmetic runs in
a thread of its own, the latest value wins, and one change is prepared at a time. All slots see the
new weights at the same tick, whose version is in their stamps. Without `background` a change is
prepared in the tick itself, so that a render does not depend on the machine's speed.

Threads: everything belongs to the engine thread; `prepare` of the bank runs in a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from demon_live.errors import DemonError, ScoreError, nearest

log = logging.getLogger(__name__)

#: What the names of these controls begin with.
PREFIX = "lora."


class Bank(Protocol):
    """A model's `weights` (models.lora.LoraBank is one)."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def strengths(self) -> Mapping[str, float]: ...
    def prepare(self, strengths: Mapping[str, float]) -> Any: ...
    def done(self, refit: Any) -> bool: ...
    def commit(self, refit: Any) -> None: ...


class AdapterStrengths:
    """Strengths of a model's adapters: those that decks want, and those in force.

    bank: the model's, or None if it has no adapters. Weights belong to the network, so decks share
    them: the largest strength of all decks counts.
    """

    def __init__(self, bank: Bank | None, background: bool = False) -> None:
        self._bank, self._background = bank, background
        self._wanted_by: dict[str, dict[str | None, float]] = {}
        # An earlier ring may have changed the weights.
        self._in_force = {} if bank is None else dict(bank.strengths)
        self._requested = dict(self._in_force)
        self._work: Future[Any] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.trouble: DemonError | None = None

    @property
    def in_force(self) -> Mapping[str, float]:
        """Strengths that the next tick computes with; without those of 0."""
        return dict(self._in_force)

    def want(self, name: str, value: object, deck: str | None) -> None:
        """Set a deck's strength (deck None: the common one) for `lora.NAME`; None removes it.

        Raises:
            ScoreError: the model has no such adapter, or the value is not a finite number.
        """
        adapter = name.removeprefix(PREFIX)
        if value is None:
            self._wanted_by.get(adapter, {}).pop(deck, None)
            return
        names = () if self._bank is None else self._bank.names
        if adapter not in names:
            near = nearest(adapter, names)
            raise ScoreError(
                f"the engine has no LoRA {adapter!r}",
                hint=f"did you mean {PREFIX}{near[0]}?" if near else _names_hint(names),
            )
        number = np.asarray(value, dtype=np.float64) if isinstance(value, int | float) else None
        if number is None or not np.isfinite(number):
            raise ScoreError(f"{name} must be a number, this is {value!r}", hint=f"{name} = .8")
        self._wanted_by.setdefault(adapter, {})[deck] = float(number)

    def forget(self, deck: str) -> None:
        """Remove all strengths of a deck."""
        for values in self._wanted_by.values():
            values.pop(deck, None)

    def _wanted(self) -> dict[str, float]:
        largest = {n: max(values.values(), default=0.0) for n, values in self._wanted_by.items()}
        return {name: value for name, value in largest.items() if value != 0.0}

    def before_tick(self) -> bool:
        """Commit a prepared change, then prepare the next. Returns whether the weights changed."""
        if self._bank is None:
            return False
        if self._background:
            changed = self._collect()
            if self._work is None and self._wanted() != self._requested:
                self._requested = self._wanted()
                self._pool = self._pool or ThreadPoolExecutor(1, "weights")
                self._work = self._pool.submit(self._bank.prepare, dict(self._requested))
            return changed
        if self._wanted() == self._requested:
            return False
        self._requested = self._wanted()
        try:
            return self._commit(self._bank.prepare(dict(self._requested)))
        except (DemonError, RuntimeError) as error:
            return self._failed(error)

    def _collect(self) -> bool:
        work, bank = self._work, self._bank
        if work is None or bank is None or not work.done():
            return False
        try:
            refit = work.result()
            if not bank.done(refit):
                return False
            self._work = None
            return self._commit(refit)
        except (DemonError, RuntimeError) as error:
            self._work = None
            return self._failed(error)

    def _commit(self, refit: Any) -> bool:
        assert self._bank is not None
        self._bank.commit(refit)
        self._in_force = dict(self._requested)
        return True

    def _failed(self, error: Exception) -> bool:
        """Keep the weights as they are; the same strengths are not tried again."""
        log.warning("weights", exc_info=error)
        known = isinstance(error, DemonError)
        self.trouble = error if known else ScoreError(f"a LoRA cannot be applied: {error}")  # type: ignore[assignment]
        return False

    def close(self) -> None:
        """End the worker; its change is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _names_hint(names: Sequence[str]) -> str:
    return f"it has: {', '.join(names)}" if names else "this engine has no LoRA loaded"
