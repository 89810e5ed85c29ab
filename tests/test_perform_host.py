"""What the host of the engine says, and how patient it is."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from demon_live.perform.host import Drops, EngineHost


def test_what_was_dropped_is_told_at_once_and_then_now_and_then() -> None:
    drops = Drops()
    assert drops.turn(0.0, 0) is None
    assert "gave 3 " in str(drops.turn(1.0, 3))
    assert drops.turn(2.0, 50) is None
    assert "gave 47 " in str(drops.turn(11.5, 50))
    assert drops.turn(100.0, 50) is None


def patient(lived: float, was_ready: bool, times: int) -> tuple[list[str], list[float]]:
    """What is said and waited when an engine dies `times` times after so many seconds."""
    said: list[str] = []
    waited: list[float] = []
    host: Any = SimpleNamespace(
        _was_ready=was_ready, _failures=0, _tell=said.append,
        _closing=SimpleNamespace(wait=waited.append),
    )  # fmt: skip
    for _ in range(times):
        host._started = time.monotonic() - lived
        EngineHost._patience(host, -9)
    return said, waited


def test_one_that_has_played_is_started_again_at_once() -> None:
    said, waited = patient(60.0, True, 3)
    assert waited == []
    assert all("the loops play on, it is started again" in line for line in said)


@pytest.mark.parametrize(("lived", "ready"), [(60.0, False), (0.5, True)])
def test_one_that_cannot_play_is_tried_ever_more_patiently(lived: float, ready: bool) -> None:
    said, waited = patient(lived, ready, 9)
    assert waited == [2, 4, 8, 16, 32, 64, 64, 64, 64]
    assert "tried again in 2 s" in said[0]
    assert len(said) < 9
