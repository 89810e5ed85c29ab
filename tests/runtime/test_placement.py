"""Placement: ahead of the playhead, from the right generation, without a click, without a hole."""

from __future__ import annotations

import numpy as np
import pytest

from demon_live.core import Floats, Generation, Request
from demon_live.engine.decode import sound
from demon_live.runtime.placement import HALF, DeckPlacement, crossfade
from demon_live.session.tempo import VirtualPlayhead
from tests.helpers.loops import WINDOW, generation, heard, hold, loop, placement

LEAD, RESERVE, GUARD = 4800, 12 * 1920, 240


def play(p: DeckPlacement, clock: VirtualPlayhead, turns: int, tick: int) -> Floats:
    """Run turns; what a mixer would have read in each tick, as it was at that time."""
    out = []
    for _ in range(turns):
        for _ in range(4):
            piece = p.next_piece(clock.now(), LEAD, RESERVE)
            if piece is None:
                break
            p.write(piece, clock.now, GUARD)
        out.append(heard(p.loop, p.buffer, clock.now(), tick))
        clock.advance(tick)
    return np.concatenate(out)


def test_equal_audio_keeps_its_level_and_unlike_audio_its_power() -> None:
    ones = np.ones((768, 2), np.float32)
    assert np.allclose(crossfade(ones, ones), 1.0, atol=1e-6)
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 48_000, 2)).astype(np.float32)
    assert np.mean(crossfade(a, b) ** 2) == pytest.approx(1.0, abs=0.03)


def test_a_constant_stays_constant_through_windows_seam_and_laps() -> None:
    s = loop()
    p = placement(s)
    p.fill(generation(0.5, at=s))
    p.accept(generation(0.5, at=s))
    out = play(p, VirtualPlayhead(), turns=120, tick=4800)
    assert len(out) > 2 * s.samples
    assert np.allclose(out, 0.5, atol=1e-6)


def test_a_jump_of_the_score_is_spliced_on_its_sample() -> None:
    s = loop("120", 4)
    p = placement(s)
    jump = 200_000
    p.note(0, [jump])
    p.accept(generation(0.0, hear_from=0, at=s))
    p.accept(generation(1.0, hear_from=jump, at=s))
    out = play(p, VirtualPlayhead(), turns=60, tick=4800)[:, 0]
    assert np.all(out[: jump - HALF] == 0.0)
    assert np.allclose(out[jump + HALF : jump + 48_000], 1.0, atol=1e-6)
    middle = np.argmax(out > 0.5 * out.max())
    assert abs(middle - jump) <= HALF
    assert np.abs(np.diff(out)).max() < 0.01
    assert p.jump_late == 0


def test_until_a_generation_of_the_new_values_comes_the_old_plays_on_and_lateness_is_told() -> None:
    s = loop("120", 4)
    p = placement(s)
    jump = 100_000
    p.note(0, [jump])
    p.accept(generation(0.25, at=s))
    clock = VirtualPlayhead()
    first = play(p, clock, turns=25, tick=4800)[:, 0]
    assert first[20_000:].min() == pytest.approx(0.25)
    p.accept(generation(1.0, hear_from=clock.now() + LEAD, at=s))
    play(p, clock, turns=5, tick=4800)
    assert p.jump_late == clock.now() - 5 * 4800 + LEAD - jump


def test_nothing_is_written_near_or_behind_the_playhead() -> None:
    s = loop()
    clock = VirtualPlayhead()
    rng = np.random.default_rng(7)
    touched: list[int] = []

    class Watching(DeckPlacement):
        def _store(self, begin: int, audio: Floats) -> None:
            touched.append(begin - clock.now())
            super()._store(begin, audio)

    def slow(latent: Floats, first: int, frames: int) -> Floats:
        # Heavy-tailed decode times: now and then far beyond the lead.
        clock.advance(int(200 * (1 + rng.pareto(1.2))))
        return hold(latent, first, frames)

    p = Watching(s, np.zeros((s.samples, 2), np.float32), slow, WINDOW)
    for turn in range(600):
        if turn % 2 == 0:
            p.accept(generation(turn / 600, hear_from=clock.now(), at=s))
        piece = p.next_piece(clock.now(), LEAD, RESERVE)
        if piece is not None:
            p.write(piece, clock.now, GUARD)
        clock.advance(int(1000 * (1 + rng.pareto(1.5))))
    assert len(touched) > 300
    assert min(touched) >= GUARD
    assert max(touched) <= LEAD + RESERVE + WINDOW * 1920


def test_every_sample_is_refreshed_each_lap_and_a_stall_leaves_no_hole() -> None:
    s = loop()
    p = placement(s, np.full((s.samples, 2), -1.0, np.float32))
    clock = VirtualPlayhead()
    p.fill(generation(0.1, at=s))
    level = 0.1
    for turn in range(200):
        if turn % 2 == 0:
            level = 0.1 + turn / 1000
            p.accept(generation(level, hear_from=clock.now(), at=s))
        out = play(p, clock, 1, 4800)
        assert out.min() >= 0.0999
        if turn == 90:
            # The mixer reads on through a second without any turn.
            assert heard(s, p.buffer, clock.now(), 48_000).min() >= 0.0999
            clock.advance(48_000)
    # Everything that will be heard from here on is at most one lap old.
    assert heard(s, p.buffer, clock.now(), s.samples - 1).min() > 0.1


def test_a_generation_of_another_epoch_is_never_placed() -> None:
    s = loop()
    p = placement(s)
    stray = generation(1.0, at=s)
    p.accept(Generation(stray.latent, Request(s.frames, 1, epoch=99), (), 0, 0))
    assert p.next_piece(0, LEAD, RESERVE) is None


def test_a_window_that_is_not_finite_is_dropped_and_counted() -> None:
    s = loop()
    p = placement(s, np.full((s.samples, 2), 0.3, np.float32))
    p.accept(generation(float("nan"), at=s))
    piece = p.next_piece(0, LEAD, RESERVE)
    assert piece is not None
    assert not p.write(piece, lambda: 0, GUARD)
    assert p.nonfinite == 1
    assert np.all(p.buffer == np.float32(0.3))


def test_a_window_that_explodes_is_dropped_like_one_that_is_not_finite() -> None:
    assert sound(np.full((4, 2), 15.9, np.float32))
    assert not sound(np.full((4, 2), 17.0, np.float32))
    assert not sound(np.array([[0.0, np.nan]], np.float32))
    assert not sound(np.array([[0.0, -np.inf]], np.float32))
    assert sound(np.empty((0, 2), np.float32))


def test_a_silent_loop_plays_what_stands_in_until_it_is_generated() -> None:
    s = loop("120")
    p, clock = placement(s), VirtualPlayhead()
    ramp = np.linspace(0.1, 0.9, s.samples, dtype=np.float32)[:, None].repeat(2, axis=1)
    clock.advance(20_000)
    p.stand_in(ramp, 20_000 + LEAD, clock.now, GUARD)
    assert p.empty
    out = play(p, clock, turns=60, tick=4800)[LEAD + HALF :]
    expected = np.resize(ramp, (2 * s.samples, 2))[20_000 + LEAD + HALF :]
    # All but the seam of the lap, which is a splice.
    same = np.isclose(out[: len(expected)], expected[: len(out)], atol=1e-6).all(1)
    assert (~same).sum() <= 4 * HALF
    p.accept(generation(0.5, at=s))
    play(p, clock, turns=60, tick=4800)
    assert np.allclose(p.buffer, 0.5, atol=1e-6)
    p.stand_in(ramp.copy(), clock.now() + LEAD, clock.now, GUARD)
    assert np.allclose(p.buffer, 0.5, atol=1e-6)


def test_a_loop_that_sounds_is_left_as_it_is() -> None:
    """Its engine was replaced, or it begins with a file."""
    s = loop()
    p = placement(s)
    p.buffer[:] = 0.25
    p.stand_in(np.ones_like(p.buffer), LEAD, VirtualPlayhead().now, GUARD)
    assert (p.buffer == 0.25).all()
