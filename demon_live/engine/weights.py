"""Controls of class `model`: weights of the network that change between two ticks.

    share("lora.x", .8)  ->  wanted  ->  prepared beside the ring  ->  committed before a tick

A tick waits for the commit alone (one copy into the weights' own memory); the arithmetic runs in
a thread of its own, the latest wish wins, and only one is in work at a time. All slots see the new
weights at the same tick, whose version is stamped on what they make. Without a background the
preparation happens in the tick itself, so that a render does not depend on the machine's speed.

Threads: everything belongs to the engine thread; `prepare` of the bank runs in a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from demon_live.errors import DemonError, ScoreError, nearest

__all__ = ["PREFIX", "Bank", "Weights"]

log = logging.getLogger(__name__)

#: What the names of these controls begin with.
PREFIX = "lora."


class Bank(Protocol):
    """What a model's `weights` must be (models.lora.LoraBank is one)."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def strengths(self) -> Mapping[str, float]: ...
    def prepare(self, strengths: Mapping[str, float]) -> Any: ...
    def done(self, refit: Any) -> bool: ...
    def commit(self, refit: Any) -> None: ...


class Weights:
    """The strengths that are wanted, and those that are in force.

    bank: the model's, or None if it has no adapters. Weights belong to the network, so that decks
    share them: the strongest wish of all decks counts.
    """

    def __init__(self, bank: Bank | None, background: bool = False) -> None:
        self._bank, self._background = bank, background
        self._wishes: dict[str, dict[str | None, float]] = {}
        # A ring that follows another finds the weights as that one left them.
        self._in_force = {} if bank is None else dict(bank.strengths)
        self._asked = dict(self._in_force)
        self._work: Future[Any] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.trouble: DemonError | None = None

    @property
    def in_force(self) -> Mapping[str, float]:
        """Strengths of the weights that the next tick computes with; 0 is left out."""
        return dict(self._in_force)

    def want(self, name: str, value: object, deck: str | None) -> None:
        """A deck's wish (None: nobody's in particular) for `lora.NAME`; None takes it back.

        ScoreError for a name that the model does not have or a value that is no finite number.
        """
        adapter = name.removeprefix(PREFIX)
        if value is None:
            self._wishes.get(adapter, {}).pop(deck, None)
            return
        names = () if self._bank is None else self._bank.names
        if adapter not in names:
            near = nearest(adapter, names)
            raise ScoreError(
                f"the engine has no LoRA {adapter!r}",
                hint=f"did you mean {PREFIX}{near[0]}?" if near else _has(names),
            )
        number = np.asarray(value, dtype=np.float64) if isinstance(value, int | float) else None
        if number is None or not np.isfinite(number):
            raise ScoreError(f"{name} must be a number, this is {value!r}", hint=f"{name} = .8")
        self._wishes.setdefault(adapter, {})[deck] = float(number)

    def forget(self, deck: str) -> None:
        """Take all wishes of a deck back."""
        for wishes in self._wishes.values():
            wishes.pop(deck, None)

    def _wanted(self) -> dict[str, float]:
        strongest = {n: max(wishes.values(), default=0.0) for n, wishes in self._wishes.items()}
        return {name: value for name, value in strongest.items() if value != 0.0}

    def before_tick(self) -> bool:
        """Commit what is ready, then ask for what is wanted. True: the weights have changed."""
        if self._bank is None:
            return False
        if self._background:
            changed = self._collect()
            if self._work is None and self._wanted() != self._asked:
                self._asked = self._wanted()
                self._pool = self._pool or ThreadPoolExecutor(1, "weights")
                self._work = self._pool.submit(self._bank.prepare, dict(self._asked))
            return changed
        if self._wanted() == self._asked:
            return False
        self._asked = self._wanted()
        try:
            return self._commit(self._bank.prepare(dict(self._asked)))
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
        self._in_force = dict(self._asked)
        return True

    def _failed(self, error: Exception) -> bool:
        """The weights stay as they are; the same wish is not tried again."""
        log.warning("weights", exc_info=error)
        known = isinstance(error, DemonError)
        self.trouble = error if known else ScoreError(f"a LoRA cannot be applied: {error}")  # type: ignore[assignment]
        return False

    def close(self) -> None:
        """End the worker; what it was at is forgotten."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _has(names: Sequence[str]) -> str:
    return f"it has: {', '.join(names)}" if names else "this engine has no LoRA loaded"
