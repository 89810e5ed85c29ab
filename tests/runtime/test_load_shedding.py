"""Load shedding: announced, in steps, with hysteresis; on a machine that is simulated."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from demon_live.core import EngineState
from demon_live.runtime.load_shedding import FULL, Relief, Shedder, Shedding, ladder

BUDGET = 0.12


def cost(relief: Relief, depth: int = 4) -> float:
    """Seconds of a turn at full speed: half for the slots, the rest for the decodes."""
    slots = (relief.depth or depth) / depth
    decodes = relief.window * (1.0 if relief.gap_fill else 0.6)
    return 0.1 * (0.15 + 0.5 * slots + 0.35 * decodes) * (0.7 if relief.cheap else 1.0)


class Machine:
    """Virtual time; `slow` times as slow as it should be."""

    def __init__(self, shedder: Shedder) -> None:
        self.shedder, self.now = shedder, 0.0
        self.levels: list[tuple[float, int]] = []
        self.said: list[str] = []

    def play(self, seconds: float, slow: float | Callable[[float], float]) -> None:
        end = self.now + seconds
        while self.now < end:
            factor = slow(self.now) if callable(slow) else slow
            took = cost(self.shedder.relief) * factor
            self.now += max(took, 0.08)
            change = self.shedder.turn(self.now, took)
            if change is not None:
                self.levels.append((self.now, change.level))
                self.said.append(change.text)


def test_a_machine_in_time_gives_nothing_up() -> None:
    machine = Machine(Shedder(BUDGET, 4))
    machine.play(600, 1.2)
    assert machine.levels == []
    assert machine.shedder.relief == FULL


def test_an_unplugged_laptop_sheds_in_steps_and_takes_all_back_when_plugged_in() -> None:
    machine = Machine(Shedder(BUDGET, 4))
    machine.play(30, 1.0)
    machine.play(60, 3.0)
    deep = machine.shedder.level
    assert deep >= 2
    assert cost(machine.shedder.relief) * 3.0 <= BUDGET * 1.5
    assert [level for _, level in machine.levels] == list(range(1, deep + 1))
    # Announced: what is late, what is given up, what to do.
    assert "depth 4 to 2" in machine.said[0]
    assert "plug in" in machine.said[0]
    assert "ms a turn" in machine.said[0]
    machine.play(120, 1.0)
    assert machine.shedder.level == 0
    assert machine.shedder.given_up == ""
    assert [level for _, level in machine.levels[deep:]] == list(range(deep - 1, -1, -1))
    assert "back from depth 4 to 2" in machine.said[-1]


@pytest.mark.parametrize("slow", [1.5, 1.7, 1.9, 2.1, 2.4, 3.0, 4.0, 8.0])
def test_a_steady_load_settles_instead_of_going_up_and_down(slow: float) -> None:
    machine = Machine(Shedder(BUDGET, 4))
    machine.play(120, slow)
    machine.levels.clear()
    machine.play(3600, slow)
    # An hour at one load: hardly a change after the first two minutes.
    assert len(machine.levels) <= 2


def test_a_load_that_comes_and_goes_is_answered_ever_more_patiently() -> None:
    machine = Machine(Shedder(BUDGET, 4))
    machine.play(3600, lambda now: 3.0 if (now // 15) % 2 else 1.0)
    first = [t for t, _ in machine.levels if t < 900]
    last = [t for t, _ in machine.levels if t > 2700]
    assert len(last) < len(first)


def test_single_slow_turns_are_not_load() -> None:
    machine = Machine(Shedder(BUDGET, 4))
    count = [0]

    def hiccup(now: float) -> float:
        count[0] += 1
        return 30.0 if count[0] % 20 == 0 else 1.0

    machine.play(300, hiccup)
    assert machine.levels == []


def test_at_the_bottom_it_stays_and_says_no_more() -> None:
    machine = Machine(Shedder(BUDGET, 4))
    machine.play(300, 50.0)
    steps = ladder(4, False)
    assert machine.shedder.level == len(steps) - 1
    assert len(machine.said) == len(steps) - 1


def test_out_of_memory_is_a_step_at_once() -> None:
    shedder = Shedder(BUDGET, 4)
    change = shedder.out_of_memory(1.0)
    assert change is not None
    assert change.relief.depth == 2
    assert "out of memory: it gives up depth 4 to 2" in change.text


@pytest.mark.parametrize(
    ("depth", "precisions", "steps"),
    [
        (4, False, ["depth 4 to 2", "half the window", "no gap-fill", "depth 1"]),
        (8, True, ["depth 8 to 4", "half the window", "no gap-fill", "depth 1",
                   "cheaper arithmetic"]),
        (1, False, ["half the window", "no gap-fill"]),
    ],
)  # fmt: skip
def test_the_ladder(depth: int, precisions: bool, steps: list[str]) -> None:
    assert [what for what, _ in ladder(depth, precisions)[1:]] == steps


class Recorded:
    """A generator that writes down which depths it was given."""

    def __init__(self) -> None:
        self.window_part, self.gap_fill = 1.0, True
        self.trouble: Exception | None = None
        self.depths: list[int | None] = []

    def apply(self, state: EngineState) -> None:
        self.depths.append(state.depth)


def test_a_depth_that_the_score_asks_for_is_kept_for_later() -> None:
    generator, said = Recorded(), []
    shedding = Shedding(generator, BUDGET, 4, said.append)
    generator.trouble = MemoryError("no memory left")
    shedding.turn(0.0, 0.05)
    assert generator.depths == [2]
    assert generator.trouble is None
    assert shedding.given_up == "depth 4 to 2"
    shedding.apply(EngineState(depth=8))
    assert generator.depths[-1] == 4
    now = 1.0
    while shedding.given_up:
        now += 0.1
        shedding.turn(now, 0.05)
        assert now < 60
    assert generator.depths[-1] == 8
    assert "back from" in said[-1]


def test_an_error_that_is_not_about_memory_sheds_nothing() -> None:
    generator, said = Recorded(), []
    shedding = Shedding(generator, BUDGET, 4, said.append)
    generator.trouble = RuntimeError("the model is on fire")
    shedding.turn(0.0, 0.05)
    assert (generator.depths, said) == ([], [])
