"""Shared time: our bars are HEARD where those of Link, or of a MIDI clock, fall.

    Ear        output samples <-> time.monotonic() at the ear, from the audio process's bus
    Follower   one leader: its tempo becomes ours on a bar, ours becomes its, bars are pinned to it
    Sync       opens what the score asks for (`link on`, `clock in`, `clock out`)

A leader's tempo is taken once it has stood still for a moment. `Session.align` pins a bar and
journals it, so that a set replays without the others. Drift of the sound card against the system's
clock shows as a phase that creeps; from TOLERANCE on, the next bar is pinned anew.

Threads: everything belongs to the thread that pumps; a clock that is sent has a thread of its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING, Protocol

from demon_live.control.link import BeatReading, Leader
from demon_live.core import RATES, Beats
from demon_live.errors import DemonError
from demon_live.session.state import NOTICE
from demon_live.session.tempo import TempoMap

if TYPE_CHECKING:
    from demon_live.control.midi_clock import ClockOut
    from demon_live.session.session import Session

#: Seconds of phase from which a bar is pinned anew.
TOLERANCE = 0.0015
#: Readings of which the phase is the median: they come a dozen times a second.
_READINGS = 9
#: A tempo counts when this many readings agree on it.
_STEADY = 4
#: Tempos that differ by less are the same, in bpm: Link counts whole microseconds a beat.
_SAME = 0.01
#: A bar is pinned at least this far ahead of what is decided, in samples.
_AHEAD = RATES.sample_rate // 4


class AudioClock(Protocol):
    """When the audio process plays: a part of its bus."""

    t0: float
    latency_s: float


class Ear:
    """When an output sample reaches the ear. nudge: ms by which the sound is to be late."""

    def __init__(self, audio: AudioClock, nudge: float = 0.0) -> None:
        self._origin = audio.t0 + audio.latency_s - nudge / 1000.0

    def moment(self, sample: float) -> float:
        """The time.monotonic() at which a sample should be heard."""
        return self._origin + sample / RATES.sample_rate

    def sample(self, moment: float) -> float:
        """The output sample that is heard at a moment."""
        return (moment - self._origin) * RATES.sample_rate


def beat_at(tempo: TempoMap, sample: float) -> float:
    """Our beats at an output sample."""
    whole = int(sample)
    segment = tempo.segment_of(whole)
    cycle = tempo.cycle_at(whole) + Fraction(sample - whole) / segment.length
    return float(cycle * segment.beats)


def _wrapped(beats: float, bar: Beats) -> float:
    """Into [-bar / 2, bar / 2)."""
    return (beats + bar / 2) % bar - bar / 2


class Follower:
    """Keeps a session in time with one leader. phase_ms: how far ahead of it our bars are heard."""

    def __init__(self, session: Session, leader: Leader, tell: Callable[[str], None]) -> None:
        self._session, self._leader, self._tell = session, leader, tell
        self._tempos: deque[float] = deque(maxlen=_STEADY)
        self._phases: deque[float] = deque(maxlen=_READINGS)
        self._agreed: float | None = None
        self._pinned = 0
        self._alone = True
        self._peers = -1
        self.phase_ms = 0.0

    def turn(self, ear: Ear) -> None:
        """Read, compare, and act if it is time; called a dozen times a second."""
        reading = self._leader.reading()
        if reading is None or not reading.running:
            self._phases.clear()
            self._tempos.clear()
            return
        state, decided = self._session.state, self._session.output.playhead.now()
        here = ear.sample(reading.at)
        if not state.decks or here < 0:
            return
        if reading.peers != self._peers:
            self._peers = reading.peers
            self._tell(f"time is shared with {reading.peers} other{'s' * (reading.peers != 1)}")
        tempo = state.tempo
        segment = tempo.segment_of(int(here))
        ours = beat_at(tempo, here)
        beat_s = 60.0 / reading.bpm
        self._phases.append(_wrapped(ours - reading.beat, segment.beats) * beat_s)
        self._tempos.append(reading.bpm)
        self.phase_ms = median(self._phases) * 1000.0
        if decided < self._pinned or here < self._pinned or self._moving(decided):
            self._phases.clear()
            return
        if self._lead(reading, float(segment.bpm), ours):
            return
        steady = len(self._tempos) == _STEADY and max(self._tempos) - min(self._tempos) < _SAME
        if steady and abs(reading.bpm - float(segment.bpm)) >= _SAME:
            self._pin(reading, ear, tempo, decided, Fraction(str(round(reading.bpm, 2))))
        elif len(self._phases) == _READINGS and abs(self.phase_ms) > TOLERANCE * 1000:
            self._pin(reading, ear, tempo, decided, segment.bpm)

    def _moving(self, decided: int) -> bool:
        """Whether a change of loop or tempo is scheduled already."""
        decks = self._session.state.decks.values()
        ahead = self._session.state.tempo.segments[-1].at > decided
        return ahead or any(d.loop is not None and d.loop.from_sample > decided for d in decks)

    def _lead(self, reading: BeatReading, ours: float, beat: float) -> bool:
        """Send the others a tempo that the score has changed, or our beat while we are alone."""
        if reading.peers == 0 and self._alone:
            if abs(reading.bpm - ours) >= _SAME:
                self._leader.lead(ours)
            if abs(self.phase_ms) > TOLERANCE * 1000:
                self._leader.settle(beat)
                self._phases.clear()
            self._agreed = ours
            return True
        self._alone = False
        changed = self._agreed is not None and abs(ours - self._agreed) >= _SAME
        self._agreed = ours
        if changed and abs(reading.bpm - ours) >= _SAME:
            self._leader.lead(ours)
            self._tempos.clear()
            return True
        return False

    def _pin(
        self, reading: BeatReading, ear: Ear, tempo: TempoMap, decided: int, bpm: Fraction
    ) -> None:
        """Let one of our next bars begin where a bar of the leader does."""
        segment = tempo.segment_of(decided)
        notice = _AHEAD if bpm == segment.bpm else NOTICE
        cycle = Fraction(tempo.cycle_at(decided + notice).__ceil__())
        for _ in range(3):
            natural = tempo.sample_at(cycle)
            theirs = reading.beat_at(ear.moment(natural))
            away = _wrapped(theirs, segment.beats)
            sample = natural - round(away * 60.0 / reading.bpm * RATES.sample_rate)
            if sample >= decided + notice:
                break
            cycle += 1
        try:
            self._session.align(cycle, sample, bpm)
        except DemonError as error:
            self._tell(f"the shared tempo cannot be played: {error}")
            self._pinned = sample + RATES.sample_rate
            return
        if bpm != segment.bpm:
            self._tell(f"tempo {float(bpm):g} from the others, from bar {int(cycle)}")
        self._agreed = float(bpm)
        self._pinned = sample
        self._phases.clear()

    @property
    def problem(self) -> str:
        """Why there is no leader, with the remedy; "" when there is one."""
        return self._leader.problem

    def close(self) -> None:
        self._leader.close()


class Sync:
    """Opens and closes the leader and the clock that the score's settings ask for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._word = ""
        self._follower: Follower | None = None
        #: Clocks that are sent: a part of the name of a port -> its clock.
        self._clocks: dict[str, ClockOut] = {}
        self._reported = ""

    def turn(self, audio: AudioClock | None) -> None:
        """Called at each pump. audio: of the audio process; None: it does not play yet."""
        state = self._session.state
        word = "link" if state.link else "midi" if state.clock == "in" else ""
        if word != self._word:
            self._change(word)
        if audio is None or audio.t0 == 0.0:
            return
        ear = Ear(audio, state.nudge)
        if self._follower is not None:
            self._follower.turn(ear)
        if text := self.problem():
            self._session.tell(text)
        self._send_clock(ear if state.clock == "out" else None)

    def _change(self, word: str) -> None:
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self._word = word
        if not word:
            return
        try:
            self._follower = Follower(self._session, self._open(word), self._session.tell)
        except DemonError as error:
            # Tried again only when the score asks for it again.
            self._session.tell(str(error))

    def _open(self, word: str) -> Leader:
        state = self._session.state
        if word == "link":
            from demon_live.control.link import LinkPeer

            return LinkPeer(float(state.bpm), float(state.beats))
        from demon_live.control.midi_clock import ClockIn

        return ClockIn()

    def _send_clock(self, ear: Ear | None) -> None:
        """Send our beat to the ports that decks go to; where none does, to the first there is."""
        state = self._session.state
        named = {d.to.place for d in state.decks.values() if d.to and d.to.kind == "midi"}
        ports = set() if ear is None else named or {""}
        for port in self._clocks.keys() - ports:
            self._clocks.pop(port).close()
        if ear is None:
            return
        now = time.monotonic()
        segment = state.tempo.segment_of(int(max(0.0, ear.sample(now))))
        beat = beat_at(state.tempo, ear.sample(now))
        for port in ports:
            if port not in self._clocks:
                from demon_live.control.midi import MidiOut
                from demon_live.control.midi_clock import ClockOut

                self._clocks[port] = ClockOut(MidiOut(port))
            self._clocks[port].follow(BeatReading(now, beat, float(segment.bpm)))

    def problem(self) -> str:
        """Why nobody is followed although the score asks for it; each reason once."""
        text = self._follower.problem if self._follower is not None else ""
        text = next((clock.problem for clock in self._clocks.values() if clock.problem), text)
        if text == self._reported:
            return ""
        self._reported = text
        return text

    def close(self) -> None:
        """Close leader and clock. Twice is fine."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self._send_clock(None)
        self._word = ""
