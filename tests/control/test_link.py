"""Ableton Link between two peers of this machine. Needs the package and multicast on some network.

The soak plays a minute: an instrument in real time beside a peer that is not ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from demon_live.control.link import LinkPeer
from demon_live.control.sync import Ear, Follower, beat_at
from tests.helpers.mock_engine import MockEngine, offline

pytest.importorskip("aalink", reason="the extra `link` is not installed")
PAUSE = threading.Event()


def until(what: Callable[[], bool], seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        PAUSE.wait(0.02)
    return True


@pytest.fixture
def pair() -> Iterator[tuple[LinkPeer, LinkPeer]]:
    first = LinkPeer(120.0)
    first.settle(8.0)
    second = LinkPeer(97.0)
    try:
        if not until(lambda: first.reading().peers == second.reading().peers == 1):
            pytest.skip("no multicast here: two Link peers do not find each other")
        yield first, second
    finally:
        first.close()
        second.close()


def apart_ms(one: LinkPeer, other: LinkPeer) -> float:
    a, b = one.reading(), other.reading()
    assert a is not None
    assert b is not None
    beats = (b.beat - a.beat_at(b.at) + 2) % 4 - 2
    return beats * 60_000 / a.bpm


def test_two_peers_share_tempo_and_phase(pair: tuple[LinkPeer, LinkPeer]) -> None:
    first, second = pair
    assert until(lambda: abs(apart_ms(first, second)) < 1.0)
    second.lead(133.7)
    assert until(lambda: first.reading().bpm == pytest.approx(133.7, abs=0.01))  # type: ignore[union-attr]
    assert until(lambda: abs(apart_ms(first, second)) < 1.0)


def test_a_peer_that_left_is_gone(pair: tuple[LinkPeer, LinkPeer]) -> None:
    first, second = pair
    second.close()
    second.close()
    assert until(lambda: first.reading().peers == 0)


class _Live:
    """An instrument whose mixer is driven by the system's clock, as a device would drive it."""

    latency_s = 0.012

    def __init__(self, peer: LinkPeer) -> None:
        self.instrument = offline(MockEngine(lambda request: 0.5, tick_ms=40))
        self.instrument.session.apply("tempo 104\nloop 2\nblend = 1")
        self.instrument.turn()
        self.follower = Follower(self.instrument.session, peer, self.instrument.session.tell)
        self.mixer = self.instrument.output.mixer
        self.t0 = time.monotonic() - self.mixer.position / 48_000

    def play(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            # 80 ms are mixed ahead.
            if self.mixer.position / 48_000 + self.t0 < now + 0.08:
                self.instrument.turn()
            else:
                PAUSE.wait(0.01)
            self.follower.turn(Ear(self))

    def apart_ms(self, peer: LinkPeer) -> float:
        reading = peer.reading()
        assert reading is not None
        sample = Ear(self).sample(reading.at)
        ours = beat_at(self.instrument.session.state.tempo, sample)
        return ((ours - reading.beat + 2) % 4 - 2) * 60_000 / reading.bpm


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_an_instrument_stays_with_another_peer_for_a_minute(
    pair: tuple[LinkPeer, LinkPeer],
) -> None:
    ours, theirs = pair
    live = _Live(ours)
    live.play(15)
    # Of two sessions that meet Link keeps one: its tempo is not the instrument's 104.
    met = theirs.reading()
    assert met is not None
    assert float(live.instrument.session.state.bpm) == pytest.approx(met.bpm, abs=0.01)
    theirs.lead(126.0)
    live.play(45)
    assert live.instrument.session.state.bpm == 126
    apart = live.apart_ms(theirs)
    print(f"\nafter 60 s: {apart:+.3f} ms apart")  # noqa: T201 - the figure is what this is for
    assert abs(apart) < 5.0
