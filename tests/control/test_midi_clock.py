"""MIDI clock under a virtual clock: jittered pulses become a steady beat; ours go out in time."""

from __future__ import annotations

import numpy as np
import pytest

from demon_live.control.link import BeatReading
from demon_live.control.midi import MidiMessage
from demon_live.control.midi_clock import PULSES, ClockIn, ClockOut, PhaseLock
from tests.helpers.fake_midi import FakeBackend


def pulses(bpm: float, beats: int, jitter: float, seed: int = 1, start: float = 5.0) -> list[float]:
    rng = np.random.default_rng(seed)
    exact = start + np.arange(beats * PULSES) * 60 / (bpm * PULSES)
    return list(exact + rng.uniform(-jitter, jitter, len(exact)))


@pytest.mark.parametrize("bpm", [60.0, 133.7, 174.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_three_milliseconds_of_jitter_leave_a_tenth_of_a_beat_a_minute(
    bpm: float, seed: int
) -> None:
    loop = PhaseLock()
    for n, at in enumerate(pulses(bpm, 64, 0.003, seed)):
        loop.pulse(at)
        if n >= 16 * PULSES:
            exact = 5.0 + n * 60 / (bpm * PULSES)
            assert abs(loop.bpm - bpm) <= 0.1
            assert abs(loop.at - exact) <= 0.002


def test_pulses_without_jitter_are_followed_exactly() -> None:
    loop = PhaseLock()
    for at in pulses(128.0, 8, 0.0):
        loop.pulse(at)
    assert loop.bpm == pytest.approx(128.0, abs=1e-6)


def test_another_tempo_is_taken_within_two_beats() -> None:
    loop = PhaseLock()
    times = pulses(120.0, 32, 0.001)
    after = times[-1] + 60 / (150 * PULSES)
    for at in [*times, *pulses(150.0, 16, 0.001, start=after)[: 3 * PULSES]]:
        loop.pulse(at)
    assert loop.bpm == pytest.approx(150.0, abs=1.0)


def fed(clock: ClockIn, *rows: tuple[bytes, float]) -> None:
    for data, at in rows:
        clock.feed(MidiMessage(data, at))


def listening() -> ClockIn:
    return ClockIn(watch=False, backend=FakeBackend())


def test_start_is_beat_zero_and_stop_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = listening()
    times = pulses(120.0, 8, 0.0)
    monkeypatch.setattr("demon_live.control.midi_clock.time.monotonic", lambda: times[-1])
    fed(clock, (b"\xfa", times[0] - 0.001), *((b"\xf8", at) for at in times))
    reading = clock.reading()
    assert reading is not None
    # The first pulse after start is beat 0, so the last of 192 is a 24th before beat 8.
    assert reading.beat == pytest.approx(8 - 1 / PULSES, abs=1e-6)
    assert reading.running
    fed(clock, (b"\xfc", times[-1]))
    stopped = clock.reading()
    assert stopped is not None
    assert not stopped.running


def test_song_position_and_continue_say_where_the_beat_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = listening()
    times = pulses(120.0, 2, 0.0)
    monkeypatch.setattr("demon_live.control.midi_clock.time.monotonic", lambda: times[-1])
    fed(clock, (b"\xf2\x10\x01", 4.9), (b"\xfb", 4.99), *((b"\xf8", at) for at in times))
    reading = clock.reading()
    assert reading is not None
    # 1 * 128 + 16 sixteenths are 36 beats.
    assert reading.beat == pytest.approx(36 + 2 - 1 / PULSES, abs=1e-6)


def test_a_clock_that_falls_silent_leads_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = listening()
    times = pulses(120.0, 4, 0.0)
    fed(clock, (b"\xfa", 4.9), *((b"\xf8", at) for at in times))
    monkeypatch.setattr("demon_live.control.midi_clock.time.monotonic", lambda: times[-1] + 1.0)
    assert clock.reading() is None


class Wire:
    """An output that writes down what was sent, and when."""

    problem = ""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[tuple[float, bytes]] = []

    def send(self, data: bytes) -> bool:
        self.sent.append((self.now, data))
        return True

    def close(self) -> None:
        self.sent.append((self.now, b"closed"))


def driven(bpm: float, seconds: float, beat: float = 0.0) -> tuple[ClockOut, Wire]:
    wire = Wire()
    clock = ClockOut(out=wire, now=lambda: wire.now, start=False)
    clock.follow(BeatReading(0.0, beat, bpm))
    while wire.now < seconds:
        due = clock.due()
        assert due is not None
        wire.now = max(wire.now, due)
        clock.pulse()
    return clock, wire


def test_pulses_go_out_at_the_moments_of_our_beats() -> None:
    _, wire = driven(133.7, 10.0)
    sent = np.array([at for at, data in wire.sent if data == b"\xf8"])
    exact = (np.arange(len(sent)) + 1) * 60 / (133.7 * PULSES)
    assert np.abs(sent - exact).max() < 1e-9


def test_a_device_begins_on_a_bar_line_with_its_place_in_the_song() -> None:
    _, wire = driven(120.0, 5.0, beat=6.5)
    place, go = (row for row in wire.sent if row[1] not in (b"\xf8", b"closed"))
    # Bar 2 (beat 8) is three quarters of a second away, and its 32nd sixteenth.
    assert place == (pytest.approx(0.75), b"\xf2\x20\x00")
    assert go == (pytest.approx(0.75), b"\xfb")
    assert wire.sent[wire.sent.index(go) + 1][1] == b"\xf8"


def test_what_we_send_is_what_we_would_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    _, wire = driven(128.0, 20.0)
    clock = listening()
    for at, data in wire.sent:
        clock.feed(MidiMessage(data, at))
    monkeypatch.setattr("demon_live.control.midi_clock.time.monotonic", lambda: wire.now)
    reading = clock.reading()
    assert reading is not None
    assert reading.bpm == pytest.approx(128.0, abs=1e-3)
    assert reading.beat == pytest.approx(wire.now * 128 / 60, abs=1e-3)


def test_closing_stops_the_device() -> None:
    clock, wire = driven(120.0, 3.0)
    clock.close()
    clock.close()
    assert [data for _, data in wire.sent[-2:]] == [b"\xfc", b"closed"]
