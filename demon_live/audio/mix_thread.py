"""The thread that mixes ahead: applies the newest state, fills the ring, keeps the bus up to date.

Threads: one thread calls `turn`; any thread may assign `newest`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.audio.pcmring import Bus, LoopBuffer, PcmRing
from demon_live.audio.sinks import SoundWriter
from demon_live.core import RATES, Floats, Loop, MixState
from demon_live.errors import DemonError

_RATE = RATES.sample_rate


@dataclass(frozen=True, slots=True)
class AudioEvent:
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


class MixThread:
    """Keeps the ring filled. folder: where the PCM of loops lies."""

    #: 30 dB a second, in blocks of 10 ms
    FALL = 10.0 ** (-30.0 / 20.0 / 100.0)

    def __init__(
        self,
        mixer: Mixer,
        ring: PcmRing,
        bus: Bus,
        tell: Callable[[AudioEvent], None],
        folder: Path,
    ) -> None:
        self.mixer = mixer
        self.ring = ring
        self.bus = bus
        self.tell = tell
        #: What should be heard: the newest published state.
        self.newest = MixState()
        #: Writes the file of the sink; beside it `record` has a writer of its own.
        self.sink: SoundWriter | None = None
        self.recorder: SoundWriter | None = None
        #: Deck -> its own recording; None: it cannot be written.
        self.tracks: dict[str, SoundWriter | None] = {}
        #: Of the device; decks go to those that they name.
        self.channels = self._open_channels = 2
        self._written = 0  # samples of the recording
        self._applied = self.newest
        self._recording: str | None = None
        self._folder = folder
        self._failing = False

    def turn(self) -> bool:
        """Apply the newest state, then mix one block if needed. False: nothing to do yet."""
        state = self.newest
        if state is not self._applied:
            self._applied = state
            self._record(state)
            try:
                self.mixer.apply(state, self._open)
            except (DemonError, ValueError, TypeError, AttributeError, OSError) as error:
                self.bus.errors += 1
                self.tell(AudioEvent("error", f"mix: {error}"[:500], self.mixer.decided))
        if self.channels != self._open_channels:
            self._open_channels = self.channels
            self.mixer.open_outs(self._open_channels)
        if self.ring.fill >= self.bus.ahead:
            return False
        block, stems = self._mix()
        self.ring.write(block if self.mixer.out is None else self.mixer.out)
        for recorder in (self.sink, self.recorder):
            if recorder is not None:
                recorder.write(block)
        if self._applied.tracks and self._recording is not None:
            self._write_tracks(stems)
        self._report()
        return True

    def _write_tracks(self, stems: Mapping[str, Floats]) -> None:
        """All tracks begin and end together: a deck that comes or goes is silent elsewhere."""
        assert self._recording is not None
        whole = Path(self._recording)
        for deck in stems.keys() - self.tracks.keys():
            path = whole.with_name(f"{whole.stem}-{deck}{whole.suffix}")
            self.tracks[deck] = track = self.start_recorder(str(path))
            if track is not None:
                silence = np.zeros((_RATE, 2), np.float32)
                for at in range(0, self._written, _RATE):
                    track.write(silence[: self._written - at])
        for deck, recorder in self.tracks.items():
            if recorder is not None:
                recorder.write(stems.get(deck, np.zeros((BLOCK, 2), np.float32)))
        self._written += BLOCK

    def _mix(self) -> tuple[Floats, Mapping[str, Floats]]:
        try:
            tracks = self._applied.tracks
            mixed = self.mixer.render_stems() if tracks else (self.mixer.render(), {})
            self._failing = False
            return mixed
        except Exception as error:  # noqa: BLE001 - the wall between the mixer and silence for good
            self.mixer.skip()
            self.mixer.out = None
            self.bus.errors += 1
            if not self._failing:
                self._failing = True
                traceback.print_exc()
                self.tell(AudioEvent("error", f"mixer: {error}"[:500], self.mixer.decided))
            return np.zeros((BLOCK, 2), np.float32), {}

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

    def _open(self, loop: Loop) -> LoopBuffer:
        return LoopBuffer.open(self._folder / loop.file)

    def _record(self, state: MixState) -> None:
        path = state.recording
        if path == self._recording:
            return
        self._recording, self._written = path, 0
        for recorder in (self.recorder, *self.tracks.values()):
            if recorder is not None:
                recorder.close()
        self.recorder, self.tracks = None, {}
        if path is not None:
            self.recorder = self.start_recorder(path)

    def start_recorder(self, path: str) -> SoundWriter | None:
        """Record what is mixed from now on; None if that cannot be, which is an event."""
        try:
            recorder = SoundWriter(path, self._recorded, self._goes_on)
        except (DemonError, OSError) as error:
            text = error.message if isinstance(error, DemonError) else f"{path}: {error}"
            problem = error if isinstance(error, DemonError) else None
            self.tell(AudioEvent("record-failed", text, self.mixer.position, path, problem))
            return None
        where = str(recorder.path)
        self.tell(AudioEvent("recording", f"recording {where}", self.mixer.position, where))
        return recorder

    def _recorded(self, path: str, samples: int, problem: str) -> None:
        kind = "record-failed" if problem else "recorded"
        text = f"{path}: {problem}" if problem else f"{path}, {samples / _RATE:.1f} s"
        self.tell(AudioEvent(kind, text[:1000], samples, path))

    def _goes_on(self, path: str, missing: float) -> None:
        text = f"the recording goes on in {path}"
        text += f"; {missing:.1f} s are missing" if missing else ""
        self.tell(AudioEvent("recording", text, self.mixer.position, path))
