"""After hours, and on a machine that stumbles: bars on their samples, no hole, nothing behind."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demon_live.audio.mixer import BLOCK, Mixer
from demon_live.core import Floats
from demon_live.runtime.pace import GUARD, LEAD_CEILING, LEAD_FLOOR
from demon_live.runtime.placement import HALF, DeckPlacement
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap, VirtualPlayhead
from tests.helpers.loops import WINDOW, generation, heard, hold, loop, placement

HOURS = 3 * 3600 * 48_000


@pytest.mark.parametrize(("bpm", "cycles"), [("133.7", 3), ("174", 8), ("61.803", 1)])
def test_after_three_hours_the_mixer_plays_each_bar_line_on_its_sample(
    bpm: str, cycles: int
) -> None:
    tempo = TempoMap.start(Fraction(bpm))
    s = make_loop(DeckState("main", cycles=cycles), tempo, Fraction(0), 1)
    # A click at the start of every bar of the loop, where the score has the bar.
    buffer = np.zeros((s.samples, 2), np.float32)
    for bar in range(cycles):
        buffer[tempo.sample_at(Fraction(bar))] = 0.5
    bar = Fraction(int(tempo.cycle_at(HOURS)))
    start = (tempo.sample_at(bar) // BLOCK) * BLOCK - 4 * BLOCK
    mixer = Mixer(start=start, startup=0.0)
    mixer.add_loop(s, buffer)
    n = int(s.lap / cycles * 3) // BLOCK + 8
    out = np.concatenate([mixer.render() for _ in range(n)])[:, 0]
    clicks = np.flatnonzero(out > 0.1) + start
    # A bar inside the loop lies on the lap's whole sample: half a sample each, rounded twice.
    wanted = [tempo.sample_at(bar + k) for k in range(4)]
    for at in wanted[: len(clicks)]:
        assert np.abs(clicks - at).min() <= 1
    laps = [tempo.sample_at(c) for c in range(int(bar), int(bar) + 4) if c % cycles == 0]
    assert set(laps) & set(range(start, start + len(out))) <= set(clicks.tolist())


@pytest.mark.parametrize("bpm", ["133.7", "174"])
def test_after_three_hours_a_jump_is_placed_on_its_sample(bpm: str) -> None:
    tempo = TempoMap.start(Fraction(bpm))
    s = make_loop(DeckState("main", cycles=3), tempo, Fraction(0), 1)
    p = placement(s)
    jump = tempo.sample_at(Fraction(int(tempo.cycle_at(HOURS)) + 1))
    clock = VirtualPlayhead(jump - 30_000)
    from demon_live.core import ControlBlock, SlotValues

    rows = (SlotValues(clock.now(), {}, False), SlotValues(jump, {}))
    block = ControlBlock("main", 1, s, clock.now(), {}, rows)
    p.note(block.sampled_at, block.jumps)
    p.accept(generation(0.0, hear_from=clock.now(), at=s))
    p.accept(generation(1.0, hear_from=jump, at=s))
    out = []
    while clock.now() < jump + 9600:
        for _ in range(4):
            piece = p.next_piece(clock.now(), 4800, 12 * 1920)
            if piece is None:
                break
            p.write(piece, clock.now, GUARD)
        out.append(heard(s, p.buffer, clock.now(), 960))
        clock.advance(960)
    level = np.concatenate(out)[:, 0]
    crossed = int(np.argmax(level > 0.5)) + jump - 30_000
    assert abs(crossed - jump) <= 1


#: Times of ticks and decodes in samples: most short, some far beyond the lead.
_TIMES = st.lists(
    st.one_of(st.integers(200, 4_000), st.integers(4_000, 30_000)), min_size=20, max_size=60
)


@settings(max_examples=25, deadline=None)
@given(ticks=_TIMES, decodes=_TIMES, bpm=st.sampled_from(["133.7", "174", "97.3"]))
def test_whatever_ticks_cost_nothing_is_written_behind_the_playhead(
    ticks: list[int], decodes: list[int], bpm: str
) -> None:
    s = loop(bpm, 1)
    clock = VirtualPlayhead()
    nearest = [1 << 62]

    class Watching(DeckPlacement):
        def _store(self, begin: int, audio: Floats) -> None:
            nearest[0] = min(nearest[0], begin - clock.now())
            super()._store(begin, audio)

    calls = iter(decodes * 200)

    def slow(latent: Floats, first: int, frames: int) -> Floats:
        clock.advance(next(calls))
        return hold(latent, first, frames)

    p = Watching(s, np.full((s.samples, 2), -1.0, np.float32), slow, WINDOW)
    first = generation(0.5, at=s)
    p._decode = hold
    p.fill(first)
    p._decode = slow
    lead = LEAD_FLOOR
    for i, cost in enumerate(ticks * 3):
        p.accept(generation(0.5 + i / 1000, hear_from=clock.now(), at=s))
        piece = p.next_piece(clock.now(), lead, 12 * 1920)
        if piece is not None:
            before = clock.now()
            p.write(piece, clock.now, GUARD)
            lead = min(LEAD_CEILING, max(LEAD_FLOOR, (clock.now() - before) * 3 // 2))
        assert LEAD_FLOOR <= lead <= LEAD_CEILING
        # Whatever the mixer reads until the next turn was written at some time: no hole.
        assert heard(s, p.buffer, clock.now(), cost).min() >= 0.499
        clock.advance(cost)
    assert nearest[0] >= GUARD


@settings(max_examples=15, deadline=None)
@given(ticks=st.lists(st.integers(500, 9_000), min_size=10, max_size=30), stall=st.booleans())
def test_each_sample_is_refreshed_once_a_lap_and_a_stall_of_a_second_leaves_no_hole(
    ticks: list[int], stall: bool
) -> None:
    s = loop("133.7", 1)
    p = placement(s, np.full((s.samples, 2), -1.0, np.float32))
    clock = VirtualPlayhead()
    p.fill(generation(0.0, at=s))
    turn, end = 0, 4 * s.samples
    while clock.now() < end:
        # The level says when a generation was made.
        p.accept(generation(clock.now() / 1e7, hear_from=clock.now(), at=s))
        for _ in range(4):
            piece = p.next_piece(clock.now(), 4800, 12 * 1920)
            if piece is None:
                break
            p.write(piece, clock.now, GUARD)
        cost = ticks[turn % len(ticks)]
        if stall and turn == 20:
            cost += 48_000
        sound = heard(s, p.buffer, clock.now(), cost)
        assert sound.min() >= 0.0
        if clock.now() > s.samples + 3 * 48_000:
            # At most a lap old, and what a stall of a second kept from being made.
            oldest = (clock.now() - s.samples - 48_000 * stall - 12 * 1920 - 4 * HALF) / 1e7
            assert sound.min() >= oldest
        clock.advance(cost)
        turn += 1
