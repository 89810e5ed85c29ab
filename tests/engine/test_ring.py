"""Checks 2 to 7, 15 to 18: admission, cadence, latency, sharing, epochs."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from demon_live.engine import Request, Ring, timesteps
from demon_live.engine.batch import SlotBatch
from demon_live.errors import DemonError, ScoreError
from tests.helpers.velocity_models import (
    SHARED,
    C,
    Constant,
    Linear,
    Recorder,
    T,
    alone,
    play,
    request,
    same,
    source,
    variety,
)

DEPTHS = [1, 2, 3, 4, 5, 8]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("shared", [{}, {"noise": 0.3, "velocity": 1.1}, SHARED])
def test_stream_equals_one_at_a_time(depth, shared):
    it = Ring(Linear(), steps=8, depth=depth, shift=3.0)
    for name, value in shared.items():
        it.share(name, value)
    ticks = play(it, 70, variety)
    out = [g for tick in ticks for g in tick] + it.flush()
    assert len(out) >= 7
    for generation in out:
        assert same(generation.latent, alone(generation.request, shared=shared))


@pytest.mark.parametrize("morph", [0.0, 0.3, np.linspace(0, 1, T, dtype=np.float32)])
@pytest.mark.parametrize("others", ["euler", "blend", "both"])
def test_coefficients_of_a_device_have_the_bits_of_the_hosts(monkeypatch, morph, others):
    """A GPU computes them from lanes in the staging buffer; here the same tensors do."""

    def stream():
        it = Ring(Linear(), steps=8, depth=4, shift=3.0)
        for name, value in {"velocity": SHARED["blend"], "noise": 0.2, "morph": morph}.items():
            it.share(name, value)
        if others != "euler":
            it.share("blend", SHARED["blend"], deck="b" if others == "both" else None)
        out = []
        for n in range(40):
            it.submit(variety(n, deck="ab"[n % 2]))
            out += it.tick()
        return out + it.flush()

    here = stream()
    went = []
    monkeypatch.setattr(
        SlotBatch,
        "_computes_on_device",
        lambda self, lanes: went.append(lanes.curved) or lanes.curved,
    )
    there = stream()
    assert all(went)
    for a, b in zip(here, there, strict=True):
        assert np.array_equal(a.latent, b.latent)


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_slot_sees_its_own_schedule(depth):
    model = Recorder()
    it = Ring(model, steps=8, depth=depth, shift=3.0)
    out = [g for tick in play(it, 60, variety) for g in tick] + it.flush()
    levels = model.levels()
    for slot, generation in zip(sorted(levels), out, strict=True):
        asked = generation.request
        denoise = asked.denoise if asked.source is not None else 1.0
        expected = timesteps(8, denoise, asked.shift)[:-1].astype(np.float32)
        # Several rows of a slot share its level.
        assert sorted(set(levels[slot]), reverse=True) == sorted(
            set(expected.tolist()), reverse=True
        )


def test_a_denoise_edit_leaves_rows_in_flight_alone():
    model = Recorder()
    it = Ring(model, steps=8, depth=4, shift=3.0)
    play(it, 20, lambda n, deck: request(n, denoise=0.9))
    before = set(model.levels())
    play(it, 20, lambda n, deck: request(n, denoise=0.2))
    old = timesteps(8, 0.9, 3.0)[:-1].astype(np.float32)
    new = timesteps(8, 0.2, 3.0)[:-1].astype(np.float32)
    for slot, seen in model.levels().items():
        assert np.array_equal(seen, (old if slot in before else new)[: len(seen)])


@pytest.mark.parametrize(("steps", "depth"), [(8, d) for d in DEPTHS] + [(5, 3), (16, 6), (4, 8)])
def test_completions_come_evenly(steps, depth):
    it = Ring(Constant(), steps=steps, depth=depth, shift=3.0, on_admit=lambda deck: request(0))
    it.enlist("main")
    counts = [len(it.tick()) for _ in range(steps * 12)][2 * steps :]
    assert Fraction(sum(counts), len(counts)) == Fraction(depth, steps)
    done = [i for i, n in enumerate(counts) if n]
    assert max(np.diff(done)) <= -(-steps // depth)
    assert max(counts) <= -(-depth // steps)


def test_a_denoise_sweep_loses_nothing():
    """60 ticks, another denoise at every tick (the paper's Table 13: 60 of 60 against 1 of 60)."""
    it = Ring(Constant(), steps=8, depth=8, shift=3.0)
    done = 0
    for tick in range(68):
        it.submit(request(0, denoise=1.0 - tick / 100))
        done += len(it.tick())
    assert done == 60 + 1
    assert it.dropped == 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_first_effect_admitted(depth):
    """The worst case over all phases of a change; S + S / D - 1 ticks, the last tick included."""
    waits = []
    for change in range(24, 48):
        it = Ring(Constant(), steps=8, depth=depth, shift=3.0)
        for tick in range(80):
            it.submit(request(0, denoise=0.5 if tick >= change else 0.9))
            if any(g.request.denoise == 0.5 for g in it.tick()):
                waits.append(tick - change + 1)
                break
    assert min(waits) == 8
    assert max(waits) <= 8 + -(-8 // depth) - 1


def test_mailbox_latest_wins_and_late_building():
    asked = []

    def build(deck):
        asked.append(it.tick_number)
        return request(it.tick_number)

    it = Ring(Constant(), steps=8, depth=4, shift=3.0, on_admit=build)
    first, second = request(1), request(2)
    assert it.submit(first) is None
    assert it.submit(second) is first
    out = [g for _ in range(20) for g in it.tick()]
    assert out[0].request is second
    assert asked == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [g.born for g in out] == [g.request.seed if g.request is not second else 0 for g in out]
    assert all(g.retired - g.born == 7 for g in out)


def test_wants_says_who_is_next():
    it = Ring(Constant(), steps=8, depth=4, shift=3.0)
    it.enlist("a")
    it.enlist("b")
    born = []
    for _ in range(24):
        wanted = it.wants()
        assert it.free == bool(wanted)
        for deck in wanted:
            it.submit(request(0, deck=deck))
        before = it.in_flight
        out = it.tick()
        assert it.in_flight - before + len(out) == len(wanted)
        born += wanted
    assert born == ["a", "b"] * 6


def test_decks_share_by_weight():
    it = Ring(Constant(), steps=8, depth=4, shift=3.0, on_admit=lambda deck: request(0, deck=deck))
    it.enlist("a", weight=3.0)
    it.enlist("b", weight=1.0)
    out = [g.request.deck for _ in range(200) for g in it.tick()]
    assert out.count("a") == pytest.approx(3 * out.count("b"), abs=3)


def test_an_idle_deck_saves_up_no_turns():
    it = Ring(Constant(), steps=8, depth=4, shift=3.0)
    it.enlist("idle")
    for n in range(100):
        it.submit(request(n, deck="busy"))
        it.tick()
    born = []
    for n in range(40):
        it.submit(request(n, deck="busy"))
        it.submit(request(n, deck="idle"))
        born += [g.request.deck for g in it.tick() if g.born >= 100]
    assert abs(born.count("idle") - born.count("busy")) <= 1


def test_shared_values_reach_the_very_next_tick_one_for_all_rows():
    model = Recorder()
    it = Ring(model, steps=8, depth=4, shift=3.0)
    play(it, 12, lambda n, deck: request(n))
    for value in (0.25, 0.5, 1.0):
        it.share("hint", value)
        it.tick()
        assert [row.shared["hint"] for row, _, _ in model.calls[-1]] == [value] * len(
            model.calls[-1]
        )
    it.share("hint", None)
    it.tick()
    assert all("hint" not in row.shared for row, _, _ in model.calls[-1])


def test_a_deck_value_wins_over_the_common_one():
    model = Recorder()
    it = Ring(model, steps=8, depth=4, shift=3.0)
    it.share("hint", 0.1)
    it.share("hint", 0.9, deck="b")
    for n in range(8):
        it.submit(request(n, deck="ab"[n % 2]))
        it.tick()
    seen = {(row.deck, round(row.shared["hint"], 6)) for row, _, _ in model.calls[-1]}
    assert seen == {("a", 0.1), ("b", 0.9)}


def test_versions_say_what_each_step_saw():
    it = Ring(Constant(), steps=4, depth=1, shift=3.0)
    it.submit(request())
    start = it.version
    it.tick()
    it.share("velocity", 0.5)
    it.tick()
    it.tick()
    it.share("velocity", 0.6)
    it.share("velocity", 0.7)
    (generation,) = it.tick()
    assert generation.versions == (start, start + 1, start + 1, start + 3)
    assert (generation.born, generation.retired) == (0, 3)


def test_convergence_is_ordered_by_the_steps_that_remain():
    """A velocity edit moves a slot the more, the more of its steps are still to come."""

    def run(edit):
        it = Ring(Constant(), steps=8, depth=8, shift=1.0)
        out = []
        for n in range(40):
            if edit and n == 20:
                it.share("velocity", 0.5)
            it.submit(request(0))
            out += it.tick()
        return out

    plain, edited = run(False), run(True)
    effect = [np.abs(a.latent - b.latent).mean() for a, b in zip(plain, edited, strict=True)]
    first = next(i for i, e in enumerate(effect) if e > 0)
    assert edited[first].retired == 20
    growing = effect[first : first + 8]
    assert all(a < b for a, b in itertools.pairwise(growing))
    assert effect[first + 7 :] == pytest.approx([growing[-1]] * len(effect[first + 7 :]))


@pytest.mark.parametrize("change", [(4, 2), (2, 5), (8, 1), (1, 8), (3, 4)])
@pytest.mark.parametrize("at", range(16, 25))
def test_resize_loses_nothing_and_keeps_order(change, at):
    before, after = change
    made = []

    def make(n, deck):
        made.append(n)
        return request(len(made))

    it = Ring(Linear(), steps=8, depth=before, shift=3.0)
    out = play(it, at, make)
    it.resize(after)
    most = it.in_flight
    for _ in range(60):
        for _deck in it.wants():
            it.submit(make(0, "main"))
        out.append(it.tick())
        assert it.in_flight <= max(most, after)
    late = [i for i, tick in enumerate(out[-24:]) if tick]
    assert max(np.diff(late)) <= -(-8 // after)
    flat = [g for tick in out for g in tick] + it.flush()
    assert [g.request.seed for g in flat] == list(range(1, len(made) + 1))
    assert all(same(g.latent, alone(g.request)) for g in flat[:: len(flat) // 4])


@pytest.mark.parametrize("steps", [4, 12])
def test_another_number_of_steps_loses_nothing(steps):
    it = Ring(Linear(), steps=8, depth=4, shift=3.0)
    out = play(it, 21, lambda n, deck: request(n))
    before = [s.steps for s in it.slots()]
    it.resize(steps=steps)
    assert [s.steps for s in it.slots()] == before
    out += play(it, 40, lambda n, deck: request(100 + n))
    done = [g for tick in out for g in tick] + it.flush()
    assert len({id(g.request) for g in done}) == len(done)
    assert {g.request.seed for g in done if g.request.seed < 100} == set(range(11))
    for g in done:
        assert len(g.versions) == (8 if g.request.seed < 100 else steps)
        assert same(g.latent, alone(g.request, steps=len(g.versions)))
    counts = [len(tick) for tick in out[-24:]]
    assert sum(counts) == 24 * 4 // steps


def test_flush_really_drains():
    it = Ring(Constant(), steps=20, depth=2, shift=3.0)
    it.submit(request(1))
    it.tick()
    it.submit(request(2))
    assert [g.request.seed for g in it.flush()] == [1, 2]
    assert it.slots() == ()
    assert it.flush() == []


@pytest.mark.parametrize("frames", [T, T + 8])
def test_nothing_of_a_dead_epoch_comes_out(frames):
    it = Ring(Linear(), steps=8, depth=4, shift=3.0)
    play(it, 21, lambda n, deck: request(n, epoch=0))
    it.submit(request(99, epoch=0))
    it.share("blend", np.ones(T, np.float32), deck="main")
    it.share("velocity", 0.9, deck="main")
    it.new_epoch("main", 1)
    assert it.in_flight == 0
    assert it.submit(request(98, epoch=0)) is None
    assert it.stale == 1
    out = play(it, 30, lambda n, deck: request(n, epoch=1, frames=frames))
    epochs = [g.request.epoch for tick in out for g in tick]
    assert epochs
    assert set(epochs) == {1}
    # The ring starts again at once: the first generation is there after S ticks.
    assert [bool(tick) for tick in out[:8]] == [False] * 7 + [True]
    # Numbers serve on; curves do if they have the new length.
    shared = {"velocity": 0.9, "blend": 1.0} if frames == T else {"velocity": 0.9}
    done = next(g for tick in out for g in tick)
    assert same(done.latent, alone(done.request, shared=shared))


def test_other_decks_live_through_an_epoch():
    it = Ring(Linear(), steps=8, depth=4, shift=3.0, on_admit=lambda deck: request(0, deck=deck))
    it.enlist("a")
    it.enlist("b")
    for _ in range(12):
        it.tick()
    kept = [s for s in it.slots() if s.deck == "b"]
    it.new_epoch("a", 1)
    assert list(it.slots()) == kept
    # The deck that starts anew is served at once, and then they take turns again.
    it.on_admit = lambda deck: request(0, deck=deck, epoch=deck == "a")
    now = it.tick_number
    done = [g for _ in range(24) for g in it.tick()]
    assert min(g.born for g in done if g.request.deck == "a") == now
    late = [g.request.deck for g in done if g.born >= now]
    assert abs(late.count("a") - late.count("b")) <= 1


def test_an_epoch_to_come_is_primed_beside_the_present_one():
    it = Ring(Linear(), steps=8, depth=4, shift=3.0)
    it.submit(request(0, epoch=0))
    it.tick()
    it.share("blend", np.full(T, 0.5, np.float32), deck="main")
    with pytest.raises(ScoreError):
        it.submit(request(1, epoch=1, frames=2 * T))
    it.prepare("main", 1, 2 * T)
    it.share("blend", np.full(2 * T, 0.5, np.float32), deck="main")
    out = []
    for n in range(24):
        it.submit(request(n, epoch=n % 2, frames=T * (1 + n % 2)))
        out += it.tick()
    assert {g.request.epoch for g in out} == {0, 1}
    it.new_epoch("main", 1)
    assert {g.request.epoch for g in it.flush()} == {1}


def test_different_lengths_are_one_call_each():
    model = Recorder()
    it = Ring(model, steps=8, depth=4, shift=3.0)
    for n in range(16):
        it.submit(request(n, deck="ab"[n % 2], frames=T * (1 + n % 2)))
        it.tick()
    assert sorted(len(call[0][2]) for call in model.calls[-2:]) == [T, 2 * T]
    out = it.flush()
    assert all(same(g.latent, alone(g.request)) for g in out)


def test_two_equal_sessions_emit_equal_latents():
    def session():
        it = Ring(Linear(), steps=8, depth=4, shift=3.0)
        out = []
        for n in range(50):
            it.share("blend", 0.5 + 0.5 * np.sin(n))
            it.share("noise", 0.1)
            it.submit(request(n // 7))
            if n == 30:
                it.migrate("main", denoise=0.4)
            out += it.tick()
        return out + it.flush()

    a, b = session(), session()
    assert all(
        same(x.latent, y.latent) and x.versions == y.versions for x, y in zip(a, b, strict=True)
    )


def test_a_held_seed_is_a_held_sound():
    it = Ring(Linear(), steps=8, depth=4, shift=3.0)
    it.share("noise", 0.4)
    out = [g.latent for tick in play(it, 30, lambda n, deck: request(5)) for g in tick]
    assert all(same(out[0], other) for other in out[1:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blnd", 0.5),
        ("denoise", 0.5),
        ("blend", np.ones(T + 1)),
        ("blend", float("nan")),
        ("velocity", np.full(T, np.inf)),
        ("morph", np.ones((T, C))),
        ("guide", "loud"),
        ("noise", []),
    ],
)
def test_wrong_curves_are_refused_at_the_call(name, value):
    it = Ring(Constant(), steps=8, depth=4, shift=3.0)
    it.submit(request())
    version = it.version
    with pytest.raises(ScoreError) as caught:
        it.share(name, value)
    assert caught.value.message
    assert it.version == version
    it.tick()


def test_a_curve_that_came_before_its_loop_is_refused_by_submit():
    it = Ring(Constant(), steps=8, depth=4, shift=3.0)
    it.share("blend", np.ones(T - 2))
    with pytest.raises(ScoreError, match="frames"):
        it.submit(request())
    it.tick()


@pytest.mark.parametrize(
    "wrong",
    [
        {"denoise": 1.5},
        {"source": source(0, T + 1)},
        {"shift": -1.0},
        {"cfg": "some"},
        {"mask": np.ones(3)},
        {"source": np.full((T, C), np.nan, np.float32)},
        {"feedback": 2.0},
        {"feedback_depth": 0},
        {"init": np.full(T, np.nan)},
        {"conditions": ((None, np.ones(2), 0.0, 1.0),)},
    ],
)
def test_wrong_requests_are_refused_at_the_call(wrong):
    it = Ring(Constant(), steps=8, depth=4, shift=3.0)
    with pytest.raises(ScoreError):
        it.submit(request(**wrong))
    assert it.tick() == []


def test_a_generation_that_is_not_finite_is_dropped_alone():
    class Bad(Linear):
        def velocity(self, x, t, rows):
            v = super().velocity(x, t, rows).clone()
            for i, row in enumerate(rows):
                if row.request.seed == 3:
                    v[i, 0, 0] = float("nan")
            return v

    it = Ring(Bad(), steps=8, depth=4, shift=3.0)
    it.share("blend", 0.5)
    out = [g for tick in play(it, 60, lambda n, deck: request(n)) for g in tick]
    assert it.dropped == 1
    assert [g.request.seed for g in out][:5] == [0, 1, 2, 4, 5]
    assert all(same(g.latent, alone(g.request, shared={"blend": 0.5})) for g in out)


def test_an_error_of_the_model_leaves_the_ring_where_it_was():
    class Failing(Linear):
        fail = False

        def velocity(self, x, t, rows):
            if self.fail:
                raise RuntimeError("out of memory")
            return super().velocity(x, t, rows)

    model = Failing()
    it = Ring(model, steps=8, depth=4, shift=3.0)
    play(it, 10, lambda n, deck: request(n))
    model.fail = True
    for _ in range(3):
        with pytest.raises(RuntimeError):
            it.tick()
    model.fail = False
    out = it.flush()
    assert out
    assert all(same(g.latent, alone(g.request)) for g in out)


def test_one_decks_bad_request_does_not_hold_up_the_others():
    def build(deck):
        if deck == "late":
            raise ScoreError("no such key")
        return request(0, deck=deck, denoise=7.0 if deck == "bad" else 0.5)

    it = Ring(Linear(), steps=8, depth=4, shift=3.0, on_admit=build)
    for deck in ("bad", "good", "late"):
        it.enlist(deck)
    out = [g for _ in range(24) for g in it.tick()]
    assert [g.request.deck for g in out] == ["good"] * 9
    assert it.refused >= 18
    assert "denoise" in it.trouble.message or "key" in it.trouble.message


def test_a_model_of_the_wrong_shape_is_an_engine_error():
    class Wrong:
        def velocity(self, x, t, rows):
            return torch.zeros(1, 2, 3)

    it = Ring(Wrong(), steps=8, depth=4, shift=3.0)
    it.submit(request())
    with pytest.raises(DemonError, match="the model answered"):
        it.tick()


def test_without_a_source_denoise_counts_as_1():
    free = Request(frames=T, channels=C, denoise=0.3, seed=4)
    assert same(alone(free), alone(Request(frames=T, channels=C, seed=4)))
    assert same(alone(free, shared={"blend": 0.0}), np.zeros((T, C), np.float32))


def test_slots_for_a_view():
    it = Ring(Constant(), steps=8, depth=4, shift=3.0)
    play(it, 7, lambda n, deck: request(n, denoise=0.25 * n))
    assert [(s.step, s.steps, s.denoise) for s in it.slots()] == [
        (7, 8, 0.0),
        (5, 8, 0.25),
        (3, 8, 0.5),
        (1, 8, 0.75),
    ]


@pytest.mark.parametrize("depth", [0, -3])
def test_depth_is_at_least_1(depth):
    with pytest.raises(DemonError):
        Ring(Constant(), steps=8, depth=depth, shift=3.0)


def test_a_hurried_request_makes_its_first_steps_alone_beside_the_depth() -> None:
    def bits(hurry: bool) -> dict[int, tuple[bytes, int, int]]:
        it = Ring(Constant(), steps=8, depth=2)
        for seed in (1, 2):
            it.submit(Request(T, C, seed=seed, deck="ab"[seed - 1]))
        done = [it.tick() for _ in range(6)]
        assert it.in_flight == 2
        if hurry:
            it.hurry(Request(T, C, seed=3), 3)
        done += [it.tick() for _ in range(3)]
        if hurry:
            assert [slot.step for slot in it.slots()] == [6, 2, 3]
            early = it.preview("main", 3)
            assert early is not None
            assert early.request.hand
        done += [it.flush()]
        return {
            g.request.seed: (g.latent.tobytes(), g.born, g.retired) for row in done for g in row
        }

    with_hand, without = bits(True), bits(False)
    assert with_hand[3][1:] == (6, 13)
    for seed in (1, 2):
        assert with_hand[seed][0] == without[seed][0]
        assert with_hand[seed][2] == without[seed][2] + 3


def test_of_two_in_a_hurry_none_waits_and_none_makes_others_wait_for_ever() -> None:
    it = Ring(Constant(), steps=8, depth=2)
    it.submit(Request(T, C, seed=1, deck="a"))
    for n in range(40):
        if it.hurried < 2:
            it.hurry(Request(T, C, seed=10 + n), 3)
        if any(g.request.deck == "a" for g in it.tick()):
            return
    raise AssertionError("the other deck was never served")
