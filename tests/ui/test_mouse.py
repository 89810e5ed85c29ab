"""The mouse on the panel: where a click lands, and what a drag says."""

from __future__ import annotations

import pytest
from prompt_toolkit.data_structures import Point
from prompt_toolkit.mouse_events import MouseButton, MouseEvent, MouseEventType

from demon_live.controls import CONTROLS
from demon_live.session.status import LaneView
from demon_live.ui.mouse import PanelMouse, Spot, moved, place_of
from demon_live.ui.panel import panel, targets
from tests.ui.test_panel import FLAT, LANES, deck, lines, status

GAIN = LaneView("gain", ".8", 0.8, FLAT, high=2.0)
WAITING = LaneView("pan", ".5", 0.5, FLAT, low=-1.0, coming="sine")
SHAPE = LaneView("lpf", "saw * 0 + 900", 900.0, FLAT, low=20.0, high=20000.0)


class Hand:
    """A mouse, and what it led to."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.quiet: list[str] = []
        self.drags: list[str] = []
        self.time = 0.0
        self.mouse = PanelMouse(
            self.drag,
            lambda name: self.said.append(f"mute {name}"),
            lambda: self.time,
        )

    def drag(self, text: str, drag: str, last: bool) -> None:
        (self.said if last else self.quiet).append(text)
        self.drags.append(drag)

    def does(self, kind: MouseEventType, x: int, found: tuple[Spot, ...] = ()) -> None:
        self.time += 1.0
        event = MouseEvent(Point(x, 0), kind, MouseButton.LEFT, frozenset())
        self.mouse.event(found, event)


DOWN, MOVE, UP = MouseEventType.MOUSE_DOWN, MouseEventType.MOUSE_MOVE, MouseEventType.MOUSE_UP


def test_titles_and_constants_are_found_where_they_are_drawn() -> None:
    state = status(deck("main", *LANES, GAIN, WAITING, SHAPE), deck("drums", GAIN))
    drawn = panel(state, 100, 30)
    rows, found = lines(drawn), targets(state, 100, drawn)
    titles = [t.deck for row in found for t in row if not t.control]
    assert titles == ["main", "drums"]
    held = {t.deck: t for row in found for t in row if t.control == "gain"}
    assert set(held) == {"main", "drums"}
    for row, hits in zip(rows, found, strict=True):
        for hit in hits:
            shown = row[hit.begin : hit.end]
            assert shown == "gain .8" or shown == "velocity 1" or hit.deck in shown
    # What waits for its bar, and what a pattern says, is no constant.
    assert not {"pan", "lpf"} & {t.control for row in found for t in row}


def test_a_click_on_a_title_mutes_the_deck() -> None:
    hand, row = Hand(), (Spot(0, 80, "drums"),)
    hand.does(DOWN, 5, row)
    hand.does(UP, 5, row)
    assert hand.said == ["mute drums"]


def test_a_drag_moves_a_constant_and_says_its_last_value() -> None:
    hand, row = Hand(), (Spot(10, 17, "main", "gain", 0.8),)
    hand.does(DOWN, 12, row)
    hand.does(MOVE, 16, row)
    # Over another row the drag goes on.
    hand.does(MOVE, 22)
    hand.does(UP, 32)
    assert hand.quiet == ["main.gain = 1 now", "main.gain = 1.3 now"]
    assert hand.said == ["main.gain = 1.8 now"]
    hand.does(MOVE, 40, row)
    assert len(hand.quiet) == 2
    # One name, so one step of undo; the next drag has another.
    assert len(set(hand.drags)) == 1
    assert hand.drags[0].startswith("<drag ")
    hand.does(DOWN, 12, row)
    hand.does(UP, 16, row)
    assert len(set(hand.drags)) == 2


def test_a_press_without_a_move_changes_nothing() -> None:
    hand, row = Hand(), (Spot(10, 17, "main", "gain", 0.8),)
    hand.does(DOWN, 12, row)
    hand.does(UP, 12, row)
    hand.does(DOWN, 50, row)
    hand.does(UP, 50, row)
    assert not hand.said
    assert not hand.quiet


@pytest.mark.parametrize(
    ("name", "value", "cells", "wanted"),
    [
        ("gain", 1.0, 100, 2.0),
        ("gain", 1.0, -100, 0.0),
        ("lpf", 20000.0, -20, 632.5),
        ("seed", 3.0, 2, 5.0),
        ("pan", 0.0, 10, 0.5),
    ],
)
def test_a_value_stays_in_its_range(name: str, value: float, cells: int, wanted: float) -> None:
    assert moved(CONTROLS[name], value, cells) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [("gain", 0.5, 0.25), ("pan", 0.0, 0.5), ("lpf", 20.0, 0.0), ("lpf", 0.0, 0.0), ("gain", 9, 1)],
)
def test_a_value_has_a_place_in_its_range(name: str, value: float, place: float) -> None:
    assert place_of(CONTROLS[name], value) == pytest.approx(place)
