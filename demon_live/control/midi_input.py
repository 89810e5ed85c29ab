"""Controllers: from MIDI messages to the moves that a session hears and a set records.

    MIDI thread -> bounded queue -> coalesced -> session.hear -> journal, then every lane

A knob in motion sends up to a thousand messages a second. Of a knob the latest value wins, and a
session hears at most one moment of moves each 40 ms (a latent frame): the first of a motion at
once, the last for certain. A key is no curve: its press is never lost, and a release that would
fall into the same moment waits for the next.

Threads: `Controllers` has one thread of its own; `feed` is called in the MIDI thread and only
queues. A `Coalescer` belongs to its caller.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from demon_live.control.midi import Backend, MidiIn, MidiMessage
from demon_live.lang.controllers import Key, Move
from demon_live.session.inputs import GAP

log = logging.getLogger(__name__)

#: Messages that wait; the oldest give way. At the most that MIDI sends, this is four seconds.
_QUEUE = 4096


def moves_of(data: bytes, down: dict[int, list[int]]) -> list[Move]:
    """The moves of a MIDI message. down: channel -> the keys that are down, updated here."""
    if len(data) < 3 or not 0x80 <= data[0] < 0xF0:
        return []
    kind, channel, one, two = data[0] & 0xF0, (data[0] & 0x0F) + 1, data[1], data[2]
    if kind == 0xB0:
        # 120 to 127 are messages of the channel's mode, such as "all notes off".
        return [Move(Key("cc", one, channel), two / 127)] if one < 120 else []
    if kind == 0xE0:
        value = ((two << 7) | one) - 8192
        return [Move(Key("bend", 0, channel), value / (8191 if value > 0 else 8192))]
    if kind not in (0x80, 0x90):
        return []
    keys = down.setdefault(channel, [])
    if one in keys:
        keys.remove(one)
    if kind == 0x90 and two:
        keys.append(one)
        return [Move(Key("note", 0, channel), one), Move(Key("gate", 0, channel), two / 127)]
    # A key that is still down sounds on; `note` stays the last one.
    return [] if keys else [Move(Key("gate", 0, channel), 0.0)]


class Coalescer:
    """Many messages -> few moments of moves. `now` is in seconds."""

    def __init__(self) -> None:
        self._moves: dict[Key, Move] = {}
        self._later: dict[Key, Move] = {}
        self._down: dict[int, list[int]] = {}
        self._last = -1.0

    def add(self, data: bytes) -> None:
        """Add a MIDI message."""
        for move in moves_of(data, self._down):
            waiting = self._moves.get(move.key)
            pressed = waiting is not None and waiting.value > 0
            if move.key.kind == "gate" and not move.value and pressed:
                self._later[move.key] = move
            else:
                self._moves[move.key] = move
                self._later.pop(move.key, None)

    @property
    def waiting(self) -> bool:
        return bool(self._moves)

    def due(self, now: float) -> float:
        """Seconds until `take` is due."""
        return max(0.0, self._last + GAP - now)

    def take(self, now: float) -> list[Move]:
        """The moves of this moment; none before it is due."""
        if not self._moves or now < self._last + GAP - 1e-9:
            return []
        out = list(self._moves.values())
        self._moves, self._later = self._later, {}
        self._last = now
        return out


class Controllers:
    """MIDI inputs whose name contains `port` ("": all) as moves of a session.

    hear: called with each moment of moves, at most 25 times a second, in a thread of its own.
    """

    def __init__(
        self,
        hear: Callable[[Sequence[Move]], None],
        port: str = "",
        *,
        backend: Backend | None = None,
    ) -> None:
        self._hear = hear
        self._coalescer = Coalescer()
        self._queue: deque[bytes] = deque(maxlen=_QUEUE)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self.port = MidiIn(port, backend=backend, on_message=self.feed)
        self.port.scan()
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why no controller can be heard now, or ""."""
        return self.port.problem

    def feed(self, message: MidiMessage) -> None:
        """Queue a message, in any thread, unless it is a clock or another system message."""
        if message.data[0] < 0xF0:
            self._queue.append(message.data)
            self._wake.set()

    def _run(self) -> None:
        coalescer = self._coalescer
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            while (self._queue or coalescer.waiting) and not self._closing.is_set():
                while self._queue:
                    coalescer.add(self._queue.popleft())
                moves = coalescer.take(time.monotonic())
                if moves:
                    # What goes wrong with one move must not end the others.
                    try:
                        self._hear(moves)
                    except Exception:
                        log.exception("the moves of a controller")
                elif coalescer.waiting:
                    # More messages may come until the next moment.
                    self._closing.wait(coalescer.due(time.monotonic()))

    def close(self) -> None:
        """Close the devices. Twice is fine."""
        self._closing.set()
        self._wake.set()
        self.port.close()
        if self._thread is not threading.current_thread():
            self._thread.join(2)
