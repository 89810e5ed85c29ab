"""Ticks of the ring by depth, and the depth that is recommended."""

import pytest

from demon_live.bench.ring import Case, overhead_table, recommend, ring_table
from tests.helpers.velocity_models import Constant


def test_ticks_are_timed_at_each_depth():
    table = ring_table(Constant(), 4, (1, 2), 16, seconds=0.2, channels=4)
    assert [row["depth"] for row in table] == [1, 2]
    for row in table:
        assert row["tick_ms"] >= row["model_ms"] > 0
        assert row["largest_gap_ticks"] == 4 // row["depth"]
        assert row["generations_per_s"] > 0


@pytest.mark.parametrize(
    ("tick", "depth"), [(lambda d: 10 * d, 1), (lambda d: 4.4 + 9.6 * d, 4), (lambda d: 20, 8)]
)
def test_of_the_fastest_depths_the_one_heard_soonest_is_recommended(tick, depth):
    """A tick that is all depth, the paper's, and one that does not feel it."""
    table = [
        {
            "depth": d,
            "tick_ms": tick(d),
            "generations_per_s": 125 * d / tick(d),
            "first_effect_ms": (7 + -(-8 // d)) * tick(d),
            "largest_gap_ticks": -(-8 // d),
        }
        for d in (1, 2, 4, 8)
    ]
    assert recommend(table)["depth"] == depth


def test_ticks_without_a_model_are_timed_in_every_case():
    cases = (Case("plain"), Case("curves", {"blend": 0.6}, curves=True, moving=True, mask=True))
    table = overhead_table((1, 2), frames=16, channels=4, ticks=2, cases=cases)
    assert [(row["what"], row["depth"]) for row in table] == [
        ("plain", 1),
        ("plain", 2),
        ("curves", 1),
        ("curves", 2),
    ]
    assert all(row["wall_ms"] >= row["wall_min_ms"] > 0 for row in table)
