"""The feeder: obeys commands, mixes ahead, keeps the bus up to date. The heart of the audio
process.

Threads: one thread calls `turn`; anybody may put commands into `commands`.
"""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.audio.pcmring import Bus, LoopBuffer, PcmRing
from demon_live.audio.sinks import Recorder
from demon_live.core import RATES, Floats
from demon_live.errors import DemonError

__all__ = ["Event", "Feeder"]

_RATE = RATES.sample_rate


@dataclass(frozen=True, slots=True)
class Event:
    """News from the audio process.

    kind: started, failed, device-lost, device-back, dry, underrun, recording, recorded,
    record-failed, error, replace, lost, restarted, closed. text: for the performer. sample: where
    it belongs on the output timeline.
    """

    kind: str
    text: str
    sample: int = 0
    path: str = ""
    error: DemonError | None = None


class Feeder:
    """Keeps the ring filled: commands, mixer, bus, recorders. One thread calls `turn`."""

    #: 30 dB a second, in blocks of 10 ms
    FALL = 10.0 ** (-30.0 / 20.0 / 100.0)

    def __init__(
        self, mixer: Mixer, ring: PcmRing, bus: Bus, tell: Callable[[Event], None]
    ) -> None:
        self.mixer = mixer
        self.ring = ring
        self.bus = bus
        self.tell = tell
        self.recorder: Recorder | None = None
        self.commands: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._loops: dict[str, list[LoopBuffer]] = {}
        self._failing = False

    def turn(self) -> bool:
        """Obeys what was commanded, then mixes one block if needed. False: nothing to do yet."""
        while not self.commands.empty():
            name, arguments = self.commands.get()
            try:
                getattr(self, "do_" + name)(*arguments)
            except (DemonError, ValueError, TypeError, AttributeError) as error:
                self.bus.errors += 1
                self.tell(Event("error", f"{name}: {error}"[:500], self.mixer.decided))
        if self.ring.fill >= self.bus.ahead:
            return False
        block = self._mix()
        self.ring.write(block)
        if self.recorder is not None:
            self.recorder.write(block)
        self._report()
        return True

    def _mix(self) -> Floats:
        try:
            block = self.mixer.render()
            self._failing = False
            return block
        except Exception as error:  # noqa: BLE001 - the wall between the mixer and silence for good
            self.mixer.skip()
            self.bus.errors += 1
            if not self._failing:
                self._failing = True
                traceback.print_exc()
                self.tell(Event("error", f"mixer: {error}"[:500], self.mixer.decided))
            return np.zeros((BLOCK, 2), np.float32)

    def _report(self) -> None:
        bus, mixer = self.bus, self.mixer
        bus.mixed = mixer.decided
        bus.blocks += 1
        bus.bad = mixer.bad
        left, right = mixer.peaks
        bus.peak_l = max(left, bus.peak_l * self.FALL)
        bus.peak_r = max(right, bus.peak_r * self.FALL)
        bus.rms = float(mixer.power**0.5)
        bus.limited_db = mixer.limited_db

    # --- commands (the names that Speaker sends) ---------------------------------------------

    def do_add_stage(self, loop: Any, path: str) -> None:
        buffer = LoopBuffer.open(path)
        self.mixer.add_loop(loop, buffer)
        # Two loops of a deck may still sound; what is older is let go, or memory would grow over a
        # set.
        kept = self._loops.setdefault(loop.deck, [])
        kept.append(buffer)
        del kept[:-4]

    def do_remove_deck(self, deck: str, at: int) -> None:
        self.mixer.remove_deck(deck, at)

    def do_set_mix(self, deck: str, points: Any) -> None:
        self.mixer.set_mix(deck, points)

    def do_order(self, what: str, deck: str | None, at: int) -> None:
        getattr(self.mixer, what)(*([] if deck is None else [deck]), at=at)

    def do_master(self, gain: float) -> None:
        self.mixer.master(gain)

    def do_record(self, path: str) -> None:
        self.do_stop_record()
        try:
            self.recorder = Recorder(path, self._recorded)
        except DemonError as error:
            self.tell(Event("record-failed", error.message, self.mixer.position, path, error))
        except OSError as error:
            self.tell(Event("record-failed", f"{path}: {error}", self.mixer.position, path))
        else:
            self.tell(
                Event(
                    "recording",
                    f"recording {self.recorder.path}",
                    self.mixer.position,
                    str(self.recorder.path),
                )
            )

    def do_stop_record(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None

    def _recorded(self, path: str, samples: int, problem: str) -> None:
        kind = "record-failed" if problem else "recorded"
        text = f"{path}: {problem}" if problem else f"{path}, {samples / _RATE:.1f} s"
        self.tell(Event(kind, text[:1000], samples, path))
