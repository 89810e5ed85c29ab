"""How soon a change is heard, read off the stamps of generations.

Ticks are counted from the change: 1 is the first tick after it.

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from demon_live.core import Generation, Request

__all__ = ["Propagation", "of_request", "of_version", "share_seen"]


@dataclass(frozen=True, slots=True)
class Propagation:
    """onset: ticks to the first generation that a change touched. converged: to the first that saw
    it at every step. None: not yet."""

    onset: int | None
    converged: int | None


def share_seen(generation: Generation, version: int) -> float:
    """The part of a generation's steps that saw this version of the shared state or a newer one."""
    seen = sum(1 for stamp in generation.versions if stamp >= version)
    return seen / max(1, len(generation.versions))


def _first(
    generations: Iterable[Generation], changed_at: int, holds: Callable[[Generation], bool]
) -> int | None:
    ticks = [g.retired - changed_at + 1 for g in generations if holds(g)]
    return min(ticks, default=None)


def of_version(generations: Iterable[Generation], version: int, changed_at: int) -> Propagation:
    """Of a shared value. version: the ring's after the change; changed_at: its tick_number then."""
    all_of_them = list(generations)
    return Propagation(
        _first(all_of_them, changed_at, lambda g: share_seen(g, version) > 0.0),
        _first(all_of_them, changed_at, lambda g: share_seen(g, version) == 1.0),
    )


def of_request(
    generations: Iterable[Generation], holds: Callable[[Request], bool], changed_at: int
) -> Propagation:
    """Of a value that is baked into requests: both ends are the first completion that has it."""
    first = _first(generations, changed_at, lambda g: g.born >= changed_at and holds(g.request))
    return Propagation(first, first)
