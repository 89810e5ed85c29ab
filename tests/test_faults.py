"""Fault points: planned in words, counted, and free when nothing is planned."""

from __future__ import annotations

import subprocess
import sys

import pytest

from demon_live.errors import UsageError
from demon_live.faults import ON, POINTS, FaultPlan, parse


def hits(text: str, name: str, times: list[float]) -> list[float | None]:
    now = [0.0]
    plan = FaultPlan(text, lambda: now[0])
    seen = []
    for now[0] in times:
        seen.append(plan.hit(name))
    return seen


def test_when_a_fault_happens() -> None:
    five = [0.0] * 5
    assert hits("latent.nan", "latent.nan", five) == [1] * 5
    assert hits("latent.nan@2", "latent.nan", five) == [None, 1, None, None, None]
    assert hits("latent.nan=7@4+", "latent.nan", five) == [None, None, None, 7, 7]
    every = hits("tick.stall=.3@20s", "tick.stall", [0, 10, 20, 21, 39, 41, 60])
    assert every == [None, None, 0.3, None, None, 0.3, None]


def test_several_faults_do_not_disturb_each_other() -> None:
    plan = FaultPlan("latent.nan@1, tick.slow=2.5 ,latent.nan=3@2")
    assert [plan.hit("latent.nan"), plan.hit("latent.nan"), plan.hit("latent.nan")] == [1, 3, None]
    assert plan.hit("tick.slow") == 2.5
    assert plan.hit("disk.full") is None


@pytest.mark.parametrize("text", ["tick.slo=2", "tick.slow=x", "tick.slow@soon", "tick.slow@s"])
def test_a_wrong_plan_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.hint


def test_nothing_is_planned_outside_of_tests_and_every_point_is_described() -> None:
    assert not ON
    assert all(len(what) > 10 for what in POINTS.values())


def test_the_environment_decides() -> None:
    code = "from demon_live import faults; print(faults.ON, faults.hit('latent.nan'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"DEMON_FAULTS": "latent.nan=2", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "2.0"]
