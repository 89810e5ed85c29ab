"""A beat that is shared with others, and Ableton Link: tempo and phase shared with all peers in the
network. The one importer of aalink.

Link and MIDI clock (midi_clock.py) both give a `BeatReading`: at a moment of time.monotonic() the
shared beat stood at so many quarter notes and moved at so many a minute. A follower (sync.py) needs
nothing else.

aalink wants an asyncio loop that runs for its callbacks; it gets one of its own on a thread. Its
clock is read, never waited for: a reading pairs the session's beat with time.monotonic() taken just
before and just after.

aalink, like Link itself, is GPL: it is an extra (`link`) that a user installs, and no part of this
package.

Threads: any thread may call; the library's own calls are thread-safe.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from demon_live.errors import DeviceError
from demon_live.paths import install


@dataclass(frozen=True, slots=True)
class BeatReading:
    """Where a shared beat stands.

    Attributes:
        at: the moment, time.monotonic().
        beat: quarter notes at `at`.
        bpm: quarter notes a minute.
        running: the beat moves (a MIDI clock may be stopped).
        peers: how many others there are.
    """

    at: float
    beat: float
    bpm: float
    running: bool = True
    peers: int = 0

    def beat_at(self, moment: float) -> float:
        """The beat at another moment, the tempo unchanged."""
        return self.beat + (moment - self.at) * self.bpm / 60.0


class Leader(Protocol):
    """Something whose tempo and phase are followed."""

    @property
    def problem(self) -> str:
        """Why it gives no readings, with the remedy; "" when it does."""
        ...

    def reading(self) -> BeatReading | None:
        """Where the shared beat stands now; None: nobody leads."""
        ...

    def lead(self, bpm: float) -> None:
        """Send a tempo to the others, where that is possible."""
        ...

    def settle(self, beat: float) -> None:
        """Without peers: set the shared beat to `beat` now, so that a later peer joins us."""
        ...

    def close(self) -> None: ...


class LinkPeer:
    """A peer of the Link session. quantum: beats of a bar, on whose phase all peers agree.

    Raises DeviceError without the package.
    """

    def __init__(self, bpm: float, quantum: float = 4.0) -> None:
        self.problem = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        try:
            joined = asyncio.run_coroutine_threadsafe(self._open(bpm, quantum), self._loop)
            self._link: Any = joined.result(10)
        except ImportError as error:
            self._end()
            raise DeviceError(
                "Ableton Link needs a package that is not installed",
                hint=install("link"),
            ) from error
        self._link.enabled = True

    @staticmethod
    async def _open(bpm: float, quantum: float) -> Any:
        from aalink import Link

        link = Link(bpm)
        link.quantum = quantum
        return link

    def reading(self) -> BeatReading | None:
        """Where the session's beat stands now."""
        best: tuple[float, float, float] | None = None
        # A thread may be put aside between the two clocks: the tightest of three pairs counts.
        for _ in range(3):
            before = time.monotonic()
            beat = float(self._link.beat)
            after = time.monotonic()
            if best is None or after - before < best[0]:
                best = after - before, (before + after) / 2, beat
        assert best is not None
        tempo, peers = float(self._link.tempo), int(self._link.num_peers)
        return BeatReading(best[1], best[2], tempo, peers=peers)

    def lead(self, bpm: float) -> None:
        """Set the tempo of all peers."""
        self._link.tempo = bpm

    def settle(self, beat: float) -> None:
        """Our beat becomes the session's, if we are alone; else we join on the next bar."""
        self._link.request_beat(beat)

    def close(self) -> None:
        """Leave the session. Twice is fine."""
        if self._loop.is_closed():
            return
        self._link.enabled = False
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)
        if not self._thread.is_alive():
            self._loop.close()
