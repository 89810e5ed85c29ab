"""Freed memory, and how long turns took."""

from __future__ import annotations

import pytest

from demon_live.runtime.memory import Trimmer, trim
from demon_live.runtime.pace import TurnTimes


def test_percentiles_are_right_within_the_width_of_a_bucket() -> None:
    times = TurnTimes()
    for k in range(1, 1001):
        times.add(k / 1000)
    stats = times.stats()
    assert stats.turns == 1000
    assert stats.p50_ms == pytest.approx(500, rel=0.025)
    assert stats.p99_ms == pytest.approx(990, rel=0.025)
    assert stats.max_ms == 1000


def test_no_turn_and_turns_out_of_range_are_counted() -> None:
    times = TurnTimes()
    assert times.stats().p99_ms == 0
    for seconds in (0.0, 1e-9, 1e4):
        times.add(seconds)
    assert times.stats().turns == 3
    assert times.stats().max_ms == 1e7


def test_memory_is_given_back_at_most_once_in_a_while() -> None:
    now = [100.0]
    trimmer = Trimmer(10.0, lambda: now[0])
    seen = []
    for _ in range(45):
        now[0] += 1
        seen.append(trimmer.turn())
    assert sum(seen) == 4
    assert isinstance(trim(), bool)
