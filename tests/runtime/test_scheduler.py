"""The scheduler: every jump of the score gets a generation of its own, early enough."""

from __future__ import annotations

from fractions import Fraction

from demon_live.core import ControlBlock, SlotValues
from demon_live.runtime.scheduler import DeckScheduler, groups, value_at
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap

SETTINGS = make_loop(DeckState("main", cycles=8), TempoMap.start(Fraction(120)), Fraction(0), 1)


def block(*plan: SlotValues, now: int = 0) -> ControlBlock:
    return ControlBlock("main", 1, SETTINGS, now, {}, plan)


def row(at: int, denoise: float, jump: bool = True) -> SlotValues:
    return SlotValues(at, {"denoise": denoise}, jump)


def test_between_jumps_the_sounding_group_is_refreshed() -> None:
    target = DeckScheduler().target(block(row(0, 0.4)), now=1000, ready=1500, reach=1700)
    assert (target.hear_from, target.values) == (1500, {"denoise": 0.4})


def test_a_jump_within_reach_is_served_before_it_begins_and_only_once() -> None:
    plan = block(row(0, 0.4), row(10_000, 0.8))
    scheduler = DeckScheduler()
    early = scheduler.target(plan, now=0, ready=8000, reach=9000)
    assert early.values == {"denoise": 0.4}
    served = scheduler.target(plan, now=1200, ready=9200, reach=10_200)
    assert (served.hear_from, served.values) == (10_000, {"denoise": 0.8})
    # Until the jump is what a new generation would be heard at, the old group goes on.
    refreshed = scheduler.target(plan, now=1700, ready=9700, reach=10_700)
    assert refreshed.values == {"denoise": 0.4}
    after = scheduler.target(plan, now=2500, ready=10_500, reach=11_500)
    assert (after.hear_from, after.values) == (10_500, {"denoise": 0.8})


def test_an_edit_of_a_served_jump_serves_it_again() -> None:
    scheduler = DeckScheduler()
    scheduler.target(block(row(0, 0.4)), 400, 8400, 9400)
    scheduler.target(block(row(0, 0.4), row(9000, 0.8)), 500, 8500, 9500)
    again = scheduler.target(block(row(0, 0.4), row(9000, 0.6)), 700, 8700, 9700)
    assert (again.hear_from, again.values) == (9000, {"denoise": 0.6})


def test_a_group_that_would_be_over_before_it_is_ready_is_left_out() -> None:
    plan = block(row(0, 0.1), row(2000, 0.2), row(4000, 0.3))
    target = DeckScheduler().target(plan, now=0, ready=5000, reach=6000)
    assert (target.hear_from, target.values) == (5000, {"denoise": 0.3})


def test_a_late_group_is_served_as_soon_as_possible() -> None:
    plan = block(row(0, 0.1), row(2000, 0.2))
    target = DeckScheduler().target(plan, now=0, ready=5000, reach=6000)
    assert (target.hear_from, target.values) == (5000, {"denoise": 0.2})


def test_a_moving_pattern_makes_no_groups_but_gives_its_value_of_the_time() -> None:
    still = (row(0, 0.1, jump=False), row(3000, 0.2, jump=False))
    plan = (*still, row(6000, 0.9), row(7000, 1.0, False))
    assert [(g.begin, g.end > 6000) for g in groups(plan)] == [(0, False), (6000, True)]
    assert value_at(plan, 3500) == {"denoise": 0.2}
    assert value_at(plan, 7500) == {"denoise": 1.0}


def test_before_a_stage_begins_its_generations_are_made_for_its_beginning() -> None:
    loop = make_loop(DeckState("m", cycles=8), TempoMap.start(Fraction(120)), Fraction(4), 1)
    plan = (SlotValues(loop.from_sample, {"seed": 3.0}, False),)
    target = DeckScheduler().target(
        ControlBlock("m", 1, loop, loop.from_sample, {}, plan), 0, 1000, 1200
    )
    assert target.hear_from == loop.from_sample
