"""The mouse on the panel and in the stage view: a click on the title of a deck mutes it, a drag
moves a constant.

While an application asks for the mouse, most terminals select text with Shift held; `--no-mouse`
leaves it to the terminal.

Threads: the event loop.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prompt_toolkit.mouse_events import MouseButton, MouseEvent, MouseEventType

from demon_live.controls import Control, find

if TYPE_CHECKING:
    from demon_live.session.status import DeckView, LaneView

#: Cells of a drag from one end of a range to the other; the least seconds between two values.
_TRAVEL, _GAP = 40, 0.15


@dataclass(frozen=True, slots=True)
class Spot:
    """What lies in the cells [begin, end) of a row: a deck, or a constant of it."""

    begin: int
    end: int
    deck: str
    control: str = ""
    value: float = 0.0


def constant(deck: DeckView, lane: LaneView) -> bool:
    """Whether a lane is a number that a drag may move."""
    control = find(lane.control)
    if deck.to or control is None or not control.numeric or control.cls == "notes":
        return False
    try:
        return math.isfinite(float(lane.text)) and not lane.coming
    except ValueError:
        return False


def place_of(control: Control, value: float) -> float:
    """Where a value lies in the range of its control, 0 to 1; a frequency by octaves."""
    if _in_octaves(control):
        value = max(value, control.low)
        place = math.log(value / control.low) / math.log(control.high / control.low)
    else:
        place = (value - control.low) / (control.high - control.low)
    return min(max(place, 0.0), 1.0)


def _in_octaves(control: Control) -> bool:
    return control.unit == "Hz" and control.low > 0


def moved(control: Control, value: float, cells: int) -> float:
    """A value after a drag to the right, in its range; a frequency moves in octaves."""
    if _in_octaves(control):
        place = min(max(place_of(control, value) + cells / _TRAVEL, 0.0), 1.0)
        return float(f"{control.low * (control.high / control.low) ** place:.4g}")
    # A seed has no end that a hand could reach.
    span = _TRAVEL if control.high - control.low > 1000 else control.high - control.low
    found = min(max(value + span * cells / _TRAVEL, control.low), control.high)
    return float(round(found)) if control.shape == "integer" else round(found, 3)


class PanelMouse:
    """Turns events of the mouse into statements.

    Args:
        drag: evaluates a statement of the drag of a name, and whether it is the last.
        mute: mutes the deck of a name, or unmutes it.
        now: the time in seconds.
    """

    def __init__(
        self,
        drag: Callable[[str, str, bool], None],
        mute: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._mute, self._now = drag, mute, now
        self._held: tuple[Spot, int] | None = None
        self._drag, self._sent, self._at = "", "", -math.inf

    def event(self, targets: tuple[Spot, ...], event: MouseEvent) -> None:
        """Do what an event means in a row with these targets."""
        x = event.position.x
        if event.event_type == MouseEventType.MOUSE_DOWN:
            hit = next((t for t in targets if t.begin <= x < t.end), None)
            self._held = (hit, x) if hit is not None else None
            self._drag, self._sent = f"<drag {secrets.token_hex(4)}>", ""
        elif self._held is None:
            return
        elif event.event_type == MouseEventType.MOUSE_UP:
            self._release(x)
        elif event.event_type == MouseEventType.MOUSE_MOVE:
            if event.button == MouseButton.NONE:
                self._held = None
            elif self._now() - self._at >= _GAP:
                self._move(x, last=False)

    def _release(self, x: int) -> None:
        assert self._held is not None
        target, _ = self._held
        if target.control:
            self._move(x, last=True)
        else:
            self._mute(target.deck)
        self._held = None

    def _move(self, x: int, *, last: bool) -> None:
        assert self._held is not None
        target, begin = self._held
        control = find(target.control)
        if control is None or (x == begin and not self._sent):
            return
        text = f"{target.deck}.{target.control} = {moved(control, target.value, x - begin):g} now"
        if text != self._sent or last:
            self._sent, self._at = text, self._now()
            self._say(text, self._drag, last)
