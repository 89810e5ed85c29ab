"""The mouse on the panel: a click on the title of a deck mutes it, a drag moves a constant.

While an application asks for the mouse, most terminals select text with Shift held; `--no-mouse`
leaves it to the terminal.

Threads: the event loop.
"""

from __future__ import annotations

import math
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


def moved(control: Control, value: float, cells: int) -> float:
    """A value after a drag to the right, in its range; a frequency moves in octaves."""
    if control.unit == "Hz" and control.low > 0:
        place = math.log(value / control.low) / math.log(control.high / control.low)
        place = min(max(place + cells / _TRAVEL, 0.0), 1.0)
        return float(f"{control.low * (control.high / control.low) ** place:.4g}")
    # A seed has no end that a hand could reach.
    span = _TRAVEL if control.high - control.low > 1000 else control.high - control.low
    found = min(max(value + span * cells / _TRAVEL, control.low), control.high)
    return float(round(found)) if control.shape == "integer" else round(found, 3)


class PanelMouse:
    """Turns events of the mouse into statements.

    Args:
        evaluate: evaluates a statement and shows the answer.
        quietly: evaluates one without an answer.
        mute: mutes the deck of a name, or unmutes it.
        now: the time in seconds.
    """

    def __init__(
        self,
        evaluate: Callable[[str], None],
        quietly: Callable[[str], None],
        mute: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evaluate, self._quietly, self._mute, self._now = evaluate, quietly, mute, now
        self._held: tuple[Spot, int] | None = None
        self._sent, self._at = "", -math.inf

    def event(self, targets: tuple[Spot, ...], event: MouseEvent) -> None:
        """Do what an event means in a row with these targets."""
        x = event.position.x
        if event.event_type == MouseEventType.MOUSE_DOWN:
            hit = next((t for t in targets if t.begin <= x < t.end), None)
            self._held = (hit, x) if hit is not None else None
            self._sent = ""
        elif self._held is None:
            return
        elif event.event_type == MouseEventType.MOUSE_UP:
            self._release(x)
        elif event.event_type == MouseEventType.MOUSE_MOVE:
            if event.button == MouseButton.NONE:
                self._held = None
            elif self._now() - self._at >= _GAP:
                self._drag(x, self._quietly)

    def _release(self, x: int) -> None:
        assert self._held is not None
        target, _ = self._held
        if target.control:
            self._drag(x, self._evaluate)
        else:
            self._mute(target.deck)
        self._held = None

    def _drag(self, x: int, say: Callable[[str], None]) -> None:
        assert self._held is not None
        target, begin = self._held
        control = find(target.control)
        if control is None or (x == begin and not self._sent):
            return
        text = f"{target.deck}.{target.control} = {moved(control, target.value, x - begin):g} now"
        if text != self._sent or say is self._evaluate:
            self._sent, self._at = text, self._now()
            say(text)
