"""Checks 8 to 14 and 24: identities of a solver step, exact with mock models."""

import numpy as np
import pytest
import torch

from demon_live.engine import Dcw, Request, Ring, guidance, solver, timesteps
from demon_live.engine import noise as rng
from demon_live.engine.staging import Workspace
from tests.helpers.velocity_models import (
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
)

STEPS = 8
RAMP = np.linspace(0, 1, T, dtype=np.float32)


def by_hand(req, v_of, blend=None, velocity=1.0, noise=0.0):
    """The definition in the head of engine/solver.py, in float64."""
    t = timesteps(STEPS, req.denoise, req.shift or 3.0)
    x = t[0] * rng.normal(rng.key(req.seed, rng.BIRTH), T, C) + (1 - t[0]) * req.source
    for k in range(STEPS):
        z = rng.normal(rng.key(req.seed, rng.STEP, k), T, C)
        v = velocity * v_of(x, t[k])
        x0 = x - t[k] * v
        if blend is None:
            x = x + (t[k + 1] - t[k]) * v + t[k + 1] * noise * z
        else:
            x = t[k + 1] * z + (1 - t[k + 1]) * (blend * x0 + (1 - blend) * req.source)
    return x


@pytest.mark.parametrize("blend", [None, 1.0, 0.4, 0.0, RAMP])
@pytest.mark.parametrize("velocity", [1.0, 0.7, RAMP + 0.5])
@pytest.mark.parametrize("noise", [0.0, 0.3, RAMP])
def test_against_the_formulas(blend, velocity, noise):
    shared = {"velocity": velocity, "noise": noise}
    if blend is not None:
        shared["blend"] = blend
    column = {name: np.reshape(value, (-1, 1)) for name, value in shared.items()}
    expected = by_hand(request(5), lambda x, t: 0.3 * x + 0.1 * t, **column)
    assert alone(request(5), shared=shared) == pytest.approx(expected, abs=2e-6)


# -- 8: blend


def test_blend_1_is_the_plain_sde():
    assert alone(request(2), shared={"blend": 1.0}) == pytest.approx(
        by_hand(request(2), lambda x, t: 0.3 * x + 0.1 * t, blend=1.0), abs=1e-6
    )
    assert not same(alone(request(2), shared={"blend": 1.0}), alone(request(2)))


def test_blend_0_ends_on_the_source_exactly():
    assert same(alone(request(2, denoise=1.0), shared={"blend": 0.0}), source(1))


def test_blend_is_per_frame():
    gate = (np.arange(T) % 3 > 0).astype(np.float32)
    mixed, full = (
        alone(request(2), shared={"blend": gate}),
        alone(request(2), shared={"blend": 1.0}),
    )
    assert same(mixed[gate == 0], source(1)[gate == 0])
    assert same(mixed[gate == 1], full[gate == 1])


def test_blend_is_switched_in_mid_flight():
    it = Ring(Linear(), steps=STEPS, depth=4, shift=3.0)
    play(it, 9, lambda n, deck: request(n))
    it.share("blend", 0.0)
    done = [g for tick in play(it, 8, lambda n, deck: request(n)) for g in tick]
    # c = 0 acts on the last step too, so the very first completion is the source.
    assert done
    assert all(same(g.latent, source(1)) for g in done)
    it.share("blend", None)
    late = [g for tick in play(it, 30, lambda n, deck: request(50)) for g in tick]
    assert same(late[-1].latent, alone(request(50)))


# -- 9: Euler


@pytest.mark.parametrize("denoise", [0.2, 0.71, 1.0])
def test_euler_with_a_constant_velocity_is_exact(denoise):
    req = request(8, denoise=denoise)
    start = timesteps(STEPS, denoise, 3.0)[0]
    x = start * rng.normal(rng.key(8, rng.BIRTH), T, C) + (1 - start) * req.source
    assert alone(req, Constant(0.7)) == pytest.approx(x - 0.7 * start, abs=1e-6)


def test_velocity_0_stands_still():
    req = request(8, denoise=0.5)
    start = np.float32(timesteps(STEPS, 0.5, 3.0)[0])
    noise = rng.normal(rng.key(8, rng.BIRTH), T, C)
    expected = noise * start + req.source * np.float32(1 - timesteps(STEPS, 0.5, 3.0)[0])
    assert same(alone(req, shared={"velocity": 0.0}), expected)


def test_noise_0_is_no_noise():
    assert same(alone(request(8), shared={"noise": 0.0}), alone(request(8)))


def test_an_init_curve_mixes_noise_and_source_by_frame():
    req = request(8, init=RAMP)
    noise = rng.normal(rng.key(8, rng.BIRTH), T, C)
    expected = noise * RAMP[:, None] + source(1) * (1 - RAMP[:, None].astype(np.float64)).astype(
        np.float32
    )
    assert same(alone(req, Constant(0.0)), expected)


# -- 10: morph


@pytest.mark.parametrize("target", [None, source(77)])
@pytest.mark.parametrize("blend", [{}, {"blend": 1.0}])
def test_morph_1_gives_the_target(target, blend):
    got = alone(request(4, target=target), shared={"morph": 1.0, **blend})
    assert same(got, source(1) if target is None else target)


def test_morph_0_changes_no_bit():
    assert same(alone(request(4, target=source(77)), shared={"morph": 0.0}), alone(request(4)))


def test_morph_is_per_frame_and_in_the_second_half():
    gate = (np.arange(T) % 2).astype(np.float32)
    mixed = alone(request(4, target=source(77)), shared={"morph": gate})
    assert same(mixed[gate == 1], source(77)[gate == 1])
    assert same(mixed[gate == 0], alone(request(4))[gate == 0])
    it = Ring(Linear(), steps=STEPS, depth=1, shift=3.0)
    it.submit(request(4, target=source(77)))
    it.share("morph", 1.0)
    for _ in range(4):
        it.tick()
    it.share("morph", 0.0)
    assert same(it.flush()[0].latent, alone(request(4)))


# -- 11: mask


@pytest.mark.parametrize("shared", [{}, {"blend": 0.6}, {"noise": 0.5, "velocity": 0.8}])
def test_mask_0_keeps_the_original(shared):
    mask = np.clip(np.sin(np.arange(T)) * 2, 0, 1).astype(np.float32)
    got = alone(request(6, mask=mask), shared=shared)
    assert (mask == 0).sum() > 5
    assert same(got[mask == 0], source(1)[mask == 0])
    assert not np.isclose(got[mask == 1], source(1)[mask == 1]).all()


@pytest.mark.parametrize("shared", [{}, {"blend": 0.6}])
def test_mask_1_changes_no_bit(shared):
    masked = alone(request(6, mask=np.ones(T, np.float32)), shared=shared)
    assert same(masked, alone(request(6), shared=shared))


def test_the_model_sees_the_original_on_its_way_from_noise():
    model = Recorder()
    alone(request(6, mask=np.zeros(T, np.float32)), model)
    levels = timesteps(STEPS, 0.6, 3.0)
    noise = rng.normal(rng.key(6, rng.MASK), T, C)
    for k, call in enumerate(model.calls):
        expected = levels[k] * noise + (1 - levels[k]) * source(1)
        assert call[0][2].numpy() == pytest.approx(expected, abs=1e-6)


# -- 12: guidance


@pytest.mark.parametrize(
    ("cfg", "passes"), [("off", 0), ("full", STEPS), ("initialize", 1), ("self", 0)]
)
def test_negative_passes_are_as_many_as_the_mode_says(cfg, passes):
    model = Recorder()
    alone(request(1, cfg=cfg), model, shared={"guide": 2.0})
    kinds = [row.kind for call in model.calls for row, _, _ in call]
    assert kinds.count("negative") == passes
    assert kinds.count("positive") == STEPS
    assert len(model.calls) == STEPS


class TwoSided(Linear):
    def velocity(self, x, t, rows):
        v = super().velocity(x, t, rows).clone()
        for i, row in enumerate(rows):
            if row.kind == "negative":
                v[i] = torch.roll(v[i], 1, 0)
        return v


@pytest.mark.parametrize("cfg", ["full", "initialize", "self"])
def test_guide_1_changes_no_bit(cfg):
    plain = alone(request(1), TwoSided())
    assert same(alone(request(1, cfg=cfg), TwoSided(), shared={"guide": 1.0}), plain)
    gate = (np.arange(T) % 2).astype(np.float32)
    mixed = alone(request(1, cfg=cfg), TwoSided(), shared={"guide": 1.0 + gate})
    assert same(mixed[gate == 0], plain[gate == 0])
    assert not same(mixed, plain)


@pytest.mark.parametrize("name", ["rescale", "momentum"])
def test_rescale_and_momentum_act_and_rest(name):
    base = alone(request(1, cfg="full"), TwoSided(), shared={"guide": 3.0})
    assert same(alone(request(1, cfg="full"), TwoSided(), shared={"guide": 3.0, name: 0.0}), base)
    assert not same(
        alone(request(1, cfg="full"), TwoSided(), shared={"guide": 3.0, name: 0.5}), base
    )


def test_guidance_does_not_depend_on_the_length_of_the_loop():
    """The same bar, once in a loop of 50 frames and twice in one of 100, is guided alike."""
    torch.manual_seed(0)
    positive, negative = torch.randn(1, 50, C), torch.randn(1, 50, C)
    work = Workspace(torch.device("cpu"))
    once = guidance.apg(positive, negative, torch.tensor(3.0), work).clone()
    laps = positive.repeat(1, 2, 1), negative.repeat(1, 2, 1)
    twice = guidance.apg(*laps, torch.tensor(3.0), work)
    assert same(twice[:, :50].numpy(), once.numpy())
    assert same(twice[:, 50:].numpy(), once.numpy())


@pytest.mark.parametrize("frames", [1, 2, 7, 24, 25, 26, 60])
def test_window_sums_are_cyclic(frames):
    torch.manual_seed(0)
    x = torch.randn(2, frames, 3)
    reach = min(25, frames - 1 + frames % 2) // 2
    index = (np.arange(frames)[:, None] + np.arange(-reach, reach + 1)) % frames
    ones = torch.ones_like(x)
    got = guidance.window_sum(x, ones, torch.empty_like(x), Workspace(torch.device("cpu")))
    assert got.numpy() == pytest.approx(x.numpy()[:, index].sum(axis=2), abs=1e-5)


def test_rescale_1_keeps_the_power_of_a_steady_sound():
    tone = torch.sin(torch.arange(50.0) * 2 * np.pi / 5).reshape(1, 50, 1)
    work = Workspace(torch.device("cpu"))
    power = guidance.window_sum(tone, tone, torch.empty_like(tone), work)
    loud = guidance.rescale(3.0 * tone, power, torch.tensor(1.0), work)
    assert loud.numpy() == pytest.approx(tone.numpy(), abs=1e-5)


# -- several conditions


class Conditioned:
    """v = the row's condition, a number."""

    def velocity(self, x, t, rows):
        return torch.stack([torch.full_like(x[i], row.condition) for i, row in enumerate(rows)])


def test_conditions_merge_by_weight_and_range():
    weight = 3 * RAMP
    req = request(1, condition=1.0, conditions=((5.0, weight, 0.0, 0.5), (9.0, 1.0, 0.25, 0.5)))
    t = timesteps(STEPS, 0.6, 3.0)
    x = t[0] * rng.normal(rng.key(1, rng.BIRTH), T, C) + (1 - t[0]) * req.source
    for k in range(STEPS):
        total, weights = np.ones(T), np.ones(T)
        if k < 4:
            total, weights = total + 5.0 * weight, weights + weight
        if 2 <= k < 4:
            total, weights = total + 9.0, weights + 1.0
        x = x + (t[k + 1] - t[k]) * (total / weights)[:, None]
    assert alone(req, Conditioned()) == pytest.approx(x, abs=2e-6)


# -- 13: channel gain


@pytest.mark.parametrize(
    "energy", [2.0, RAMP + 0.5, np.arange(C) + 0.5, (np.arange(C) + 0.5)[None]]
)
def test_gain_acts_on_the_input_not_on_the_base(energy):
    assert same(
        alone(request(1), Constant(), shared={"energy": energy}), alone(request(1), Constant())
    )
    plain, loud = Recorder(Constant()), Recorder(Constant())
    alone(request(1), plain)
    alone(request(1), loud, shared={"energy": energy})
    shaped = np.reshape(energy, (-1, 1)) if np.shape(energy) == (T,) else energy
    for a, b in zip(plain.calls, loud.calls, strict=True):
        assert b[0][2].numpy() == pytest.approx(a[0][2].numpy() * shaped, abs=1e-6)


# -- 14: DCW


@pytest.mark.parametrize("frames", [T, T + 1])
def test_dcw_of_no_strength_changes_no_bit(frames):
    req = request(1, frames=frames)
    plain = alone(req)
    assert same(alone(req, dcw=Dcw(low=0.0, high=0.0)), plain)
    # For plain Euler the last step's prediction is its result, and the steps before it do differ.
    corrected = alone(req, dcw=Dcw())
    assert corrected.shape == plain.shape
    assert not same(corrected, plain)


@pytest.mark.parametrize("frames", [T, T + 1])
def test_the_haar_transform_reconstructs_and_corrects_each_band(frames):
    torch.manual_seed(1)
    x = torch.randn(3, frames, C, dtype=torch.float64)
    assert torch.allclose(guidance.haar_merge(*guidance.haar_split(x), frames), x, atol=1e-14)
    t = torch.full((3, 1, 1), 0.4)
    assert torch.equal(guidance.correct(x, x, t, Dcw()), x)
    y = torch.randn_like(x)
    low, high = guidance.haar_split(x)
    low2, high2 = guidance.haar_split(y)
    expected = guidance.haar_merge(
        low + 0.4 * 0.05 * (low - low2), high + 0.6 * 0.02 * (high - high2), frames
    )
    assert torch.allclose(guidance.correct(x, y, t, Dcw()), expected, atol=1e-8)


# -- migration


@pytest.mark.parametrize("new", [0.3, 0.1])
def test_migrate_down_keeps_noise_and_prediction(new):
    """With an exact velocity (noise - source), the move lands on the new schedule."""
    noise = rng.normal(rng.key(9, rng.BIRTH), T, C)

    class Exact:
        def velocity(self, x, t, rows):
            return torch.from_numpy(noise - source(1)).expand_as(x)

    model = Recorder(Exact())
    it = Ring(model, steps=STEPS, depth=1, shift=3.0)
    it.submit(request(9, denoise=0.9))
    for _ in range(3):
        it.tick()
    version = it.version
    assert it.migrate("main", denoise=new) == 1
    assert it.version == version + 1
    (generation,) = it.flush()
    levels = timesteps(STEPS, new, 3.0)
    for k in range(3, STEPS):
        _, t, x = model.calls[k][0]
        assert t == np.float32(levels[k])
        assert x.numpy() == pytest.approx(levels[k] * noise + (1 - levels[k]) * source(1), abs=1e-5)
    assert generation.request.denoise == new
    assert generation.versions == (version,) * 3 + (version + 1,) * 5


def test_migrate_up_renoises_by_counter():
    def run():
        model = Recorder()
        it = Ring(model, steps=STEPS, depth=4, shift=3.0)
        play(it, 12, lambda n, deck: request(n, denoise=0.3))
        it.migrate("main", denoise=0.95)
        it.tick()
        return model

    model = run()
    levels = timesteps(STEPS, 0.95, 3.0).astype(np.float32)
    moved = [(row, t) for row, t, _ in model.calls[-1] if row.index > 0]
    assert len(moved) >= 3
    assert all(t == levels[row.index] for row, t in moved)
    again = run()
    assert all(
        torch.equal(a[2], b[2]) for a, b in zip(model.calls[-1], again.calls[-1], strict=True)
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_first_effect_migrated_is_the_next_completion(depth):
    """Every slot is on the new schedule with the very next step."""
    model = Recorder(Constant())
    it = Ring(model, steps=STEPS, depth=depth, shift=3.0)
    play(it, 21, lambda n, deck: request(n, denoise=0.9))
    it.migrate("main", denoise=0.4)
    old = [row.slot for row, _, _ in model.calls[-1]]
    it.tick()
    levels = timesteps(STEPS, 0.4, 3.0).astype(np.float32)
    stay = [(row, t) for row, t, _ in model.calls[-1] if row.slot in old]
    assert all(t == levels[row.index] for row, t in stay)


def test_migrate_to_the_same_schedule_changes_no_bit():
    it = Ring(Linear(), steps=STEPS, depth=4, shift=3.0)
    out = []
    for n in range(30):
        it.submit(request(n))
        out += it.tick()
        it.migrate("main", denoise=0.6)
    assert all(same(g.latent, alone(request(g.request.seed))) for g in out)


def test_migrate_leaves_other_decks_alone_and_moves_shift_too():
    it = Ring(Linear(), steps=STEPS, depth=4, shift=3.0)
    for n in range(8):
        it.submit(request(n, deck="ab"[n % 4 // 2]))
        it.tick()
    assert it.migrate("a", denoise=0.2, shift=1.0) == 2
    out = it.flush()
    assert [g.request.denoise for g in out if g.request.deck == "b"] == [0.6] * 2
    assert [g.request.shift for g in out if g.request.deck == "a"][-2:] == [1.0] * 2
    for generation in out:
        if generation.request.deck == "b":
            assert same(generation.latent, alone(generation.request))


def test_migrate_to_denoise_0_gives_the_source():
    it = Ring(Linear(), steps=STEPS, depth=4, shift=3.0)
    play(it, 12, lambda n, deck: request(n, denoise=0.9))
    it.migrate("main", denoise=0.0)
    out = it.flush()
    assert len(out) == 3
    assert all(same(g.latent, source(1)) for g in out)


def test_a_move_keeps_the_noise_downward_and_renews_it_upward():
    old = np.array([[0.8], [0.4], [0.5], [0.0], [0.8]])
    new = np.array([[0.4], [0.8], [0.5], [0.3], [0.4]])
    mix = solver.reproject(old, new, np.array([[0.0], [0.0], [0.0], [0.0], [0.5]]))
    assert mix.x.ravel() == pytest.approx([0.5, 0.0, 1.0, 0.0, 0.5])
    assert mix.v.ravel() == pytest.approx([0.6 - 0.5 * 0.2, 0.2, 0.0, 0.7, 0.3 - 0.5 * 0.2])
    assert mix.z.ravel() == pytest.approx([0.0, 0.8, 0.0, 0.3, 0.0])
    assert mix.source.ravel() == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.3])


# -- preview


def test_preview_is_the_prediction_of_the_most_advanced_slot():
    noise = rng.normal(rng.key(9, rng.BIRTH), T, C)

    class Exact:
        def velocity(self, x, t, rows):
            return torch.from_numpy(noise - source(1)).expand_as(x)

    it = Ring(Exact(), steps=STEPS, depth=4, shift=3.0)
    assert it.preview("main") is None
    for _ in range(5):
        it.submit(request(9))
        it.tick()
        preview = it.preview("main")
        assert preview.latent == pytest.approx(source(1), abs=1e-5)
        assert preview.born == 0
        assert len(preview.versions) == it.tick_number
    it.share("blend", 0.0)
    it.tick()
    assert same(it.preview("main").latent, source(1))


# -- 24: feedback


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_feedback_uses_the_nth_last_generation(depth):
    """denoise 0 makes each generation its own source: (1 - f) source + f earlier."""
    it = Ring(Constant(), steps=2, depth=1, shift=3.0)
    made = []
    for n in range(10):
        own = source(n)
        expected = own
        if made:
            earlier = made[-min(depth, len(made))]
            expected = np.float32(0.75) * own + np.float32(0.25) * earlier
        it.submit(request(n, denoise=0.0, source=own, feedback=0.25, feedback_depth=depth))
        (generation,) = it.flush()
        assert same(generation.latent, expected)
        made.append(generation.latent)


def test_feedback_is_cleared_by_a_new_epoch():
    it = Ring(Constant(), steps=2, depth=1, shift=3.0)
    it.submit(request(0, denoise=0.0))
    it.flush()
    it.new_epoch("main", 1)
    it.submit(request(1, denoise=0.0, source=source(5), feedback=1.0, epoch=1))
    assert same(it.flush()[0].latent, source(5))


def test_feedback_gives_a_deck_without_a_source_one():
    it = Ring(Constant(), steps=2, depth=1, shift=3.0)
    it.submit(request(0, denoise=0.0))
    it.flush()
    it.submit(Request(frames=T, channels=C, denoise=0.0, feedback=1.0))
    assert same(it.flush()[0].latent, source(1))
