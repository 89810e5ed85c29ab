"""Time shared with others, on the virtual clock: our bars are heard where theirs fall."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live.control.link import BeatReading
from demon_live.control.sync import Ear, Follower, beat_at
from demon_live.replay.render import replay_into
from demon_live.runtime.offline import Offline
from demon_live.session.tempo import TempoMap
from demon_live.sets import journal
from tests.helpers.mock_engine import MockEngine, offline

LATENCY = 0.021


@dataclass
class Fake:
    """A leader whose beat is a straight line in the time of the mixer. told: what it was told."""

    bpm: float = 120.0
    beat: float = 0.0
    at: float = 0.0
    peers: int = 1
    now: float = 0.0
    problem: str = ""
    told: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)

    def reading(self) -> BeatReading:
        beat = self.beat + (self.now - self.at) * self.bpm / 60
        return BeatReading(self.now, beat, self.bpm, True, self.peers)

    def lead(self, bpm: float) -> None:
        self.told.append(bpm)
        self.turn_to(bpm)

    def turn_to(self, bpm: float) -> None:
        self.beat, self.at, self.bpm = self.reading().beat, self.now, bpm

    def settle(self, beat: float) -> None:
        self.settled.append(beat)
        self.beat, self.at = beat, self.now

    def close(self) -> None: ...


@dataclass
class Pace:
    t0: float = 0.0
    latency_s: float = LATENCY


class Duet:
    """An instrument that follows a fake leader; `ppm`: how much slower its device runs."""

    def __init__(self, leader: Fake, *, ppm: float = 0.0, nudge: float = 0.0) -> None:
        self.leader, self.ppm, self.nudge = leader, ppm, nudge
        self.engine = MockEngine(lambda request: 0.5)
        self.instrument = offline(self.engine)
        self.instrument.session.apply("tempo 120\nloop 2\nblend = 1")
        self.follower = Follower(self.instrument.session, leader, self.instrument.session.tell)
        self.sound: list[np.ndarray] = []
        self.errors: list[float] = []

    def play(self, seconds: float) -> None:
        mixer = self.instrument.output.mixer
        end = mixer.position + seconds * 48_000
        while mixer.position < end:
            self.sound.append(self.instrument.turn())
            pace = Pace(t0=mixer.position / 48_000 * self.ppm * 1e-6)
            ear = Ear(pace, self.nudge)
            # What has just been mixed is heard a device's latency later.
            self.leader.now = ear.moment(mixer.position - 2400)
            self.follower.turn(ear)
            self.errors.append(self.phase_ms(ear))

    def phase_ms(self, ear: Ear) -> float:
        reading = self.leader.reading()
        ours = beat_at(self.instrument.session.state.tempo, ear.sample(reading.at))
        return ((ours - reading.beat + 2) % 4 - 2) * 60_000 / reading.bpm


@pytest.mark.parametrize("offset", [0.13, -0.4, 1.9])
def test_who_joins_comes_in_on_the_others_bar(offset: float) -> None:
    duet = Duet(Fake(beat=offset))
    duet.play(12)
    assert abs(duet.errors[-1]) < 1.5
    assert len(duet.instrument.session.state.tempo.segments) <= 3
    out = np.concatenate(duet.sound)[4800:]
    assert out.min() > 0.499
    assert np.abs(np.diff(out[:, 0])).max() < 1e-3


def test_their_tempo_becomes_ours_on_a_bar_and_stays_in_phase() -> None:
    leader = Fake()
    duet = Duet(leader)
    duet.play(6)
    leader.turn_to(126.0)
    duet.play(14)
    tempo = duet.instrument.session.state.tempo
    assert tempo.segments[-1].bpm == 126
    assert tempo.segments[-1].cycle.denominator == 1
    assert abs(duet.errors[-1]) < 1.5
    assert np.concatenate(duet.sound)[4800:].min() > 0.499


def test_our_tempo_becomes_theirs_when_it_is_heard() -> None:
    leader = Fake()
    duet = Duet(leader)
    duet.play(4)
    duet.instrument.session.apply("tempo 140")
    duet.play(10)
    assert leader.told == [140.0]
    assert abs(duet.errors[-1]) < 1.5


def test_alone_the_beat_of_the_session_is_ours() -> None:
    leader = Fake(bpm=97.0, beat=1.7, peers=0)
    duet = Duet(leader)
    duet.play(4)
    assert leader.told == [120.0]
    assert leader.settled
    assert abs(duet.errors[-1]) < 1.5
    assert len(duet.instrument.session.state.tempo.segments) == 1


def test_a_sound_card_that_runs_slow_is_kept_in_phase() -> None:
    duet = Duet(Fake(), ppm=400.0)
    duet.play(40)
    # 400 ppm are 16 ms in this time.
    assert max(map(abs, duet.errors[60:])) < 3.0


def test_a_nudge_is_heard_as_such() -> None:
    duet = Duet(Fake(), nudge=30.0)
    duet.play(10)
    late = Duet.phase_ms(duet, Ear(Pace()))
    assert late == pytest.approx(-30.0, abs=1.6)


def test_a_set_replays_the_others_bars_without_them(tmp_path: Path) -> None:
    duet = Duet(Fake(beat=0.3))
    session = duet.instrument.session
    session.journal.open(tmp_path / "x.set.jsonl")
    duet.play(5)
    duet.leader.turn_to(123.0)
    duet.play(9)
    session.journal.close(duet.instrument.output.mixer.position)
    again: Offline = offline(MockEngine(lambda request: 0.5))
    step = replay_into(again, journal.load(tmp_path / "x.set.jsonl"))
    pieces = []
    for _ in duet.sound:
        step()
        pieces.append(again.turn())
    assert np.array_equal(np.concatenate(pieces), np.concatenate(duet.sound))
    assert again.session.state.tempo == session.state.tempo


def test_a_pinned_bar_lies_on_its_sample_and_the_past_stays() -> None:
    old = TempoMap.start(Fraction("133.7"))
    natural = old.sample_at(Fraction(8))
    new = old.pin(Fraction(8), natural + 999, Fraction(120), 4, 400_000)
    assert new.sample_at(Fraction(8)) == natural + 999
    assert new.sample_at(Fraction(9)) == natural + 999 + 96_000
    assert new.sample_at(Fraction(4)) == old.sample_at(Fraction(4))
    assert new.cycle_at(400_000) == old.cycle_at(400_000)
    with pytest.raises(ValueError, match="to come"):
        old.pin(Fraction(1), 100, Fraction(120), 4, 400_000)
