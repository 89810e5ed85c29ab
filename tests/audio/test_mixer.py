"""The mixer under virtual time: exact facts about samples."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt

from demon_live.audio.channel import CEILING, LOOK, Filter, Limiter, Ramp, Slewed, pan
from demon_live.audio.mixer import BLOCK, FADE, Mixer
from demon_live.controls import CONTROLS
from demon_live.core import Floats, Gate, Loop, MixDeck, MixPoints, MixState

SECOND = 48000


def loop(
    deck: str = "main",
    begin: int = 0,
    lap: Fraction | int = 2 * SECOND,
    epoch: int = 1,
    origin: int | None = None,
) -> Loop:
    return Loop(
        epoch,
        deck,
        begin,
        begin if origin is None else origin,
        Fraction(lap),
        1,
        Fraction(120),
        4,
        50,
    )


def noise(n: int, seed: int = 0, level: float = 0.1) -> Floats:
    return (np.random.default_rng(seed).standard_normal((n, 2)) * level).astype(np.float32)


def tone(n: int, hz: float = 440.0, level: float = 0.3) -> Floats:
    wave = level * np.sin(np.arange(n) * (2 * np.pi * hz / SECOND))
    return np.stack((wave, wave), 1).astype(np.float32)


def constant(n: int, value: float = 0.25) -> Floats:
    return np.full((n, 2), value, np.float32)


def points(*pairs: tuple[int, float]) -> MixPoints:
    return MixPoints(
        np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.float32)
    )


def playing(audio: Floats, deck: str = "main", **kwargs: object) -> Mixer:
    mixer = Mixer(startup=0.0, **kwargs)  # type: ignore[arg-type]
    mixer.add_loop(loop(deck, lap=len(audio)), audio)
    return mixer


# --- loops -----------------------------------------------------------------------------------


def test_at_rest_every_bit_passes_and_the_loop_goes_round() -> None:
    buffer = noise(2 * SECOND)
    out = playing(buffer).render(500)
    assert np.array_equal(out, np.resize(buffer, out.shape))


def test_position_and_decided() -> None:
    mixer = playing(noise(SECOND))
    assert (mixer.position, mixer.decided) == (0, 0)
    mixer.render(3)
    assert (mixer.position, mixer.decided) == (3 * BLOCK, 3 * BLOCK + LOOK)


def test_same_samples_however_the_calls_are_cut() -> None:
    def run(cuts: list[int]) -> Floats:
        mixer = playing(noise(30011, level=0.6))
        mixer.add_loop(loop("b", 7001, 9973), noise(9973, 1))
        mixer.set_mix(
            "main",
            {
                "lpf": points((0, 200), (40000, 15000)),
                "pan": points((9000, -1), (9500, 1)),
                "hpf": points((0, 20), (20000, 900), (30000, 20)),
                "gain": points((5, 2)),
            },
        )
        mixer.set_gates([Gate(12345, frozenset("b")), Gate(60001, frozenset("b"), hushed=True)])
        return np.concatenate([mixer.render(n) for n in cuts])

    whole = run([150])
    assert np.array_equal(whole, run([1] * 150))
    assert np.array_equal(whole, run([7, 50, 1, 92]))
    assert np.isfinite(whole).all()


def test_laps_of_an_odd_tempo_stay_on_the_beat_for_hours() -> None:
    lap = Fraction(
        3 * 4 * 60 * SECOND * 10, 1337
    )  # 3 bars at 133.7 bpm: no whole number of samples
    hours = loop(lap=lap)
    assert hours.samples == -(-lap.numerator // lap.denominator)
    begin = hours.lap_start(5000)  # more than seven hours in
    assert begin > 7 * 3600 * SECOND
    assert abs(begin - 5000 * lap) <= Fraction(1, 2)
    click = np.zeros((hours.samples, 2), np.float32)
    click[0] = 0.5
    mixer = Mixer(start=begin - BLOCK, startup=0.0)
    mixer.add_loop(hours, click)
    out = mixer.render(2 * hours.samples // BLOCK + 3)
    starts = [hours.lap_start(5000 + k) - begin + BLOCK for k in range(3)]
    assert np.flatnonzero(out[:, 0]).tolist() == starts
    assert {b - a for a, b in pairwise(starts)} <= {
        hours.samples,
        hours.samples - 1,
    }


def test_a_lap_shorter_than_a_block() -> None:
    buffer = noise(37)
    out = playing(buffer).render(4)
    assert np.array_equal(out, np.resize(buffer, out.shape))


def test_the_engine_writes_while_the_mixer_reads() -> None:
    buffer = constant(SECOND, 0.1)
    mixer = playing(buffer)
    mixer.render(10)
    buffer[mixer.decided :] = 0.2
    later = mixer.render(10)
    assert (later[:LOOK] == np.float32(0.1)).all()
    assert (later[LOOK:] == np.float32(0.2)).all()


# --- loops ----------------------------------------------------------------------------------


def test_a_constant_stays_constant_through_a_stage_switch() -> None:
    mixer = playing(constant(SECOND))
    mixer.add_loop(loop(begin=20001, lap=Fraction(70001, 3), epoch=2), constant(23334))
    out = mixer.render(100)
    assert np.abs(out - 0.25).max() < 1e-7


def test_different_sounds_change_over_at_equal_power_centred_on_the_switch() -> None:
    at = 24000
    mixer = playing(noise(SECOND, 1))
    mixer.add_loop(loop(begin=at, lap=SECOND, epoch=2), noise(SECOND, 2))
    out = mixer.render(100)
    old, new = noise(SECOND, 1), noise(SECOND, 2)
    first, last = at - FADE // 2, at + FADE // 2
    assert np.array_equal(out[:first], old[:first])
    assert np.array_equal(out[last:], new[FADE // 2 : SECOND - at])
    u = (np.arange(FADE) + 0.5) * (np.pi / 2 / FADE)
    wanted = old[first:last] * np.cos(u)[:, None] + new[np.arange(-240, 240)] * np.sin(u)[:, None]
    assert (
        np.abs(out[first:last] - wanted).max() < 0.02
    )  # the two noises are alike by chance, a little
    power = np.square(out).mean(axis=1)
    assert 0.8 < power[first:last].mean() / power.mean() < 1.2


def test_no_step_at_a_switch_beyond_the_tones_own_slope() -> None:
    mixer = playing(tone(SECOND, 440))
    mixer.add_loop(loop(begin=24123, lap=SECOND, epoch=2), tone(SECOND, 660))
    out = mixer.render(100)
    own = np.abs(np.diff(tone(SECOND, 660), axis=0)).max()
    assert np.abs(np.diff(out, axis=0)).max() < 1.6 * own


def test_a_late_stage_comes_in_at_once_and_a_newer_one_supersedes() -> None:
    mixer = playing(constant(SECOND, 0.1))
    mixer.render(20)
    mixer.add_loop(loop(begin=96000, lap=SECOND, epoch=2), constant(SECOND, 0.9))
    mixer.add_loop(loop(begin=0, lap=SECOND, epoch=3), constant(SECOND, 0.2))
    out = mixer.render(400)
    assert np.abs(out[LOOK + FADE :] - 0.2).max() < 1e-7
    assert np.abs(out[:LOOK] - 0.1).max() < 1e-7


def test_a_new_deck_fades_in_and_a_removed_one_fades_out() -> None:
    mixer = playing(constant(SECOND, 0.1), "a")
    mixer.add_loop(loop("b", 10000, SECOND), constant(SECOND, 0.2))
    mixer.remove_deck("b", at=30000)
    out = mixer.render(100)[:, 0]
    assert (out[:9760] == np.float32(0.1)).all()
    assert np.abs(out[10240:29760] - 0.3).max() < 1e-6
    assert np.abs(out[30240:] - 0.1).max() < 1e-6
    assert np.abs(np.diff(out)).max() < 0.2 * np.pi / 2 / FADE * 1.1
    assert mixer.decks == ["a"]


def test_a_loop_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        Mixer().add_loop(loop(), np.zeros(100, np.float32))


def test_a_loop_that_is_too_short_leaves_silence() -> None:
    mixer = Mixer(startup=0.0)
    mixer.add_loop(loop(lap=1000), constant(400))
    out = mixer.render(5)
    assert (out[:400] == 0.25).all()
    assert not out[400:1000].any()
    assert (out[1000:1400] == 0.25).all()


# --- the strip -------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 4800, 5000, 12347])
def test_a_gain_jump_begins_on_its_very_sample(at: int) -> None:
    mixer = playing(constant(SECOND))
    mixer.set_mix("main", {"gain": points((at, 1.0), (at, 0.5))})
    out = mixer.render(100)[:, 0]
    width = round(CONTROLS["gain"].slew * SECOND)
    if at == 0:
        assert np.allclose(out, 0.125)  # nothing was heard before: there is nothing to slew from
        return
    assert (out[:at] == 0.25).all()
    assert np.all(np.diff(out[at - 1 : at + width]) < 0)
    assert np.abs(out[at + width - 1 :] - 0.125).max() < 1e-7


def test_a_new_automation_does_not_click() -> None:
    mixer = playing(constant(SECOND))
    mixer.render(10)
    mixer.set_mix("main", {"gain": points((0, 0.0)), "pan": points((0, 1.0))})
    out = mixer.render(10)
    assert np.abs(np.diff(out, axis=0)).max() < 0.25 * 2 / 240
    assert not out[-BLOCK:].any()
    mixer.set_mix("main", {})
    assert np.array_equal(mixer.render(3)[-BLOCK:], constant(BLOCK))


def test_lines_are_followed() -> None:
    mixer = playing(constant(SECOND))
    mixer.set_mix("main", {"gain": points((0, 0.0), (48000, 1.0))})
    out = mixer.render(90)[:, 0]
    k = np.arange(1000, 43000)
    half = (round(CONTROLS["gain"].slew * SECOND) - 1) / 2
    assert np.abs(out[k] - 0.25 * (k - half) / 48000).max() < 1e-6


def test_bad_automation_is_bounded_and_unknown_is_refused() -> None:
    mixer = playing(constant(SECOND))
    mixer.set_mix(
        "main", {"gain": points((0, 50.0)), "pan": points((0, np.nan)), "lpf": points((0, -5))}
    )
    assert np.abs(mixer.render(10)).max() <= 2 * 0.25 * 1.1
    with pytest.raises(ValueError, match="denoise"):
        mixer.set_mix("main", {"denoise": points((0, 1.0))})


def test_slewed_is_exact_where_nothing_moves() -> None:
    control = Slewed(CONTROLS["lpf"])
    assert control.curve(0, 480) == 20000.0
    control.follow(points((600, 20000.0), (600, 333.0)))
    moving = control.curve(480, 480)
    assert isinstance(moving, np.ndarray)
    assert (np.flatnonzero(moving < 19999.999)[0]) == 120
    control.curve(960, 480)
    assert control.curve(1440, 480) == 333.0


@pytest.mark.parametrize(
    ("kind", "hz"),
    [
        ("low", 20.0),
        ("low", 700.0),
        ("low", 19000.0),
        ("high", 21.0),
        ("high", 700.0),
        ("high", 20000.0),
    ],
)
def test_filters_are_butterworth(kind: str, hz: float) -> None:
    x = noise(9600).astype(np.float64)
    mine = Filter("low" if kind == "low" else "high", -1.0)
    mine.process(np.zeros((96, 2)), hz)  # comes in
    out = np.concatenate([mine.process(x[i : i + 480], hz) for i in range(0, 9600, 480)])
    reference = sosfilt(butter(2, hz, kind + "pass", fs=SECOND, output="sos"), x, axis=0)
    assert np.abs(out - reference).max() < 1e-10


def test_filter_sweeps_neither_click_nor_blow_up() -> None:
    mixer = playing(tone(SECOND, 100))
    jumps = [(k * 1200, 200.0 if k % 2 else 15000.0) for k in range(80)]
    mixer.set_mix(
        "main", {"lpf": points(*jumps), "hpf": points(*[(s + 600, v / 40) for s, v in jumps])}
    )
    out = mixer.render(190)
    assert np.abs(out).max() < 0.45
    assert np.abs(np.diff(out, n=2, axis=0)).max() < 0.003  # the tone's own curvature is 5e-5


def test_a_filter_that_comes_and_goes_leaves_the_bits_alone_afterwards() -> None:
    buffer = noise(SECOND)
    mixer = playing(buffer)
    mixer.set_mix("main", {"lpf": points((4800, 20000), (9600, 500), (14400, 500), (19200, 20000))})
    out = mixer.render(100)
    assert np.array_equal(out[:4800], buffer[:4800])
    assert np.array_equal(out[21000:], buffer[21000:])
    assert np.square(out[10000:14000]).mean() < 0.1 * np.square(buffer[10000:14000]).mean()


def test_pan_keeps_power_and_folds_instead_of_losing() -> None:
    x = noise(480).astype(np.float64)
    assert pan(x, 0.0) is x
    hard = pan(x, 1.0)
    assert np.abs(hard[:, 0]).max() < 1e-15
    assert np.allclose(hard[:, 1], x.sum(axis=1))
    left_only = np.stack((x[:, 0], np.zeros(480)), 1)
    for where in (0.1, 0.5, 0.9):
        assert np.isclose(np.square(pan(left_only, where)).sum(), np.square(left_only).sum())


def test_ramp_reaches_its_target_exactly() -> None:
    ramp = Ramp(0.0, 0.01)
    ramp.target = 1.0
    first = ramp.curve(100)
    assert isinstance(first, np.ndarray)
    assert np.allclose(first, np.arange(1, 101) / 480)
    ramp.curve(400)
    assert ramp.curve(10) == 1.0


# --- orders ----------------------------------------------------------------------------------


def test_mute_on_its_very_sample() -> None:
    mixer = playing(constant(SECOND), "a")
    mixer.add_loop(loop("b", 0, SECOND), constant(SECOND, 0.5))
    mixer.set_gates([Gate(5001, frozenset("b")), Gate(20000)])
    out = mixer.render(100)[:, 0]
    assert (out[:5001] == 0.75).all()
    assert out[5001] < 0.75
    assert np.abs(out[5001 + 480 : 20000] - 0.25).max() < 1e-7
    assert (out[20000 + 480 :] == 0.75).all()


def test_solo() -> None:
    mixer = playing(constant(SECOND, 0.1), "a")
    mixer.add_loop(loop("b", 0, SECOND), constant(SECOND, 0.2))
    a, b = frozenset("a"), frozenset("b")
    mixer.set_gates([Gate(1000, a, b), Gate(10000, a), Gate(20000)])
    out = mixer.render(60)[:, 0]
    for at, value in ((0, 0.3), (2000, 0.2), (11000, 0.2), (21000, 0.3)):
        assert abs(out[at] - value) < 1e-6


def test_hush_is_silent_and_the_loop_runs_on() -> None:
    buffer = noise(SECOND)
    mixer = playing(buffer)
    mixer.set_gates([Gate(4800, hushed=True), Gate(24000)])
    out = mixer.render(200)
    assert not out[4800 + 480 : 24000].any()
    assert np.array_equal(out[24480:48000], buffer[24480:])
    mixer.set_gates([Gate(hushed=True)])
    assert not mixer.render(4)[-BLOCK:].any()


def test_start_up_ramp() -> None:
    mixer = Mixer(startup=0.1)
    mixer.add_loop(loop(), constant(2 * SECOND))
    out = mixer.render(20)[:, 0]
    assert np.allclose(out[:4800], 0.25 * np.arange(1, 4801) / 4800)
    assert (out[4800:] == 0.25).all()


def test_stems_add_up_to_the_mix() -> None:
    mixer = playing(noise(SECOND, 1), "a", stems=True)
    mixer.add_loop(loop("b", 3000, 7000), noise(7000, 2))
    mixer.set_mix("b", {"pan": points((0, 0.4)), "lpf": points((0, 900))})
    mixer.remove_deck("b", at=20000)
    mixed, stems = mixer.render_stems(100)
    assert set(stems) == {"a", "b"}
    assert stems["a"].shape == stems["b"].shape == mixed.shape
    assert np.abs(stems["a"] + stems["b"] - mixed).max() < 1e-7
    assert np.array_equal(stems["a"], noise(SECOND, 1))
    with pytest.raises(ValueError, match="stems"):
        Mixer().render_stems()


# --- safety ----------------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_poison_becomes_silence_and_is_counted(poison: float) -> None:
    buffer = constant(SECOND)
    buffer[1000:1010] = poison
    mixer = playing(buffer)
    mixer.set_mix("main", {"lpf": points((0, 2000))})
    out = mixer.render(100)
    assert np.isfinite(out).all()
    assert mixer.bad == 20
    assert np.abs(out[4800:] - 0.25).max() < 1e-6  # filters are not poisoned


def test_limiter_ceiling_and_transparency() -> None:
    quiet, loud = noise(SECOND, 1, 0.15), noise(SECOND, 2, 1.5)
    x = np.concatenate((quiet, loud, quiet, quiet)).astype(np.float64)
    limiter = Limiter()
    out = np.concatenate([limiter.process(x[i : i + 480]) for i in range(0, len(x), 480)])
    assert np.abs(out).max() <= CEILING
    assert np.array_equal(out[LOOK:SECOND], x[: SECOND - LOOK])
    # Two seconds later it has let go, bit for bit.
    assert np.array_equal(out[-4800:], x[-4800 - LOOK : -LOOK])
    assert limiter.reduction_db == 0.0


def test_limiter_is_smooth_and_in_time() -> None:
    x = np.full((9600, 2), 0.5)
    x[4800] = 8.0
    limiter = Limiter()
    out = np.concatenate([limiter.process(x[i : i + 480]) for i in range(0, len(x), 480)])
    assert np.isclose(out[4800 + LOOK, 0], CEILING)
    gain = out[LOOK:, 0] / x[:-LOOK, 0]
    assert np.abs(np.diff(gain)).max() < 1.5 / LOOK
    assert (gain[: 4800 - LOOK] == 1.0).all()
    assert limiter.reduction_db > 0.0


def test_limiter_does_not_depend_on_how_it_is_fed() -> None:
    x = noise(9600, 3, 0.8).astype(np.float64)

    def run(n: int) -> np.ndarray:  # type: ignore[type-arg]
        limiter = Limiter()
        return np.concatenate([limiter.process(x[i : i + n]) for i in range(0, len(x), n)])

    assert np.abs(run(480) - run(96)).max() < 1e-12
    assert np.abs(run(480) - run(9600)).max() < 1e-12


def test_the_sum_never_leaves_the_ceiling() -> None:
    mixer = playing(noise(SECOND, 1, 0.7), "a")
    mixer.add_loop(loop("b", 0, SECOND), noise(SECOND, 2, 0.7))
    mixer.set_mix("a", {"gain": points((0, 2.0))})
    assert np.abs(mixer.render(100)).max() <= np.float32(CEILING)
    assert mixer.limited_db > 0.0


def test_skip_goes_on_after_an_exception() -> None:
    mixer = playing(constant(SECOND))
    mixer.render(2)
    mixer.skip()
    assert (mixer.position, mixer.decided) == (3 * BLOCK, 3 * BLOCK + LOOK)
    assert np.abs(mixer.render(2) - 0.25).max() < 1e-7


# --- whatever is asked -----------------------------------------------------------------------

SAMPLE = st.integers(-2000, 12000)
CURVES = st.dictionaries(
    st.sampled_from(["gain", "pan", "lpf", "hpf"]),
    st.lists(st.tuples(SAMPLE, st.floats(-1e5, 1e5)), min_size=1, max_size=4).map(
        lambda pairs: points(*sorted(pairs))
    ),
)


def _at(gate: Gate) -> int:
    return gate.at


DECK = st.sampled_from(["a", "b", "c"])
GATE = st.builds(Gate, SAMPLE, st.frozensets(DECK), st.frozensets(DECK), st.booleans())
CALL = st.one_of(
    st.tuples(st.just("add"), DECK, SAMPLE, st.integers(30, 4000), st.integers(1, 7)),
    st.tuples(st.just("remove_deck"), DECK, SAMPLE),
    st.tuples(st.just("set_mix"), DECK, CURVES),
    st.tuples(st.just("set_gates"), st.lists(GATE, max_size=3).map(lambda g: sorted(g, key=_at))),
)


def obey(mixer: Mixer, call: tuple[Any, ...], epoch: int) -> None:
    name, *rest = call
    if name == "add":
        deck, begin, lap, denominator = rest
        exact = Fraction(lap * 7 + denominator, 7)
        buffer = noise(-(-exact.numerator // exact.denominator), lap, 0.5)
        mixer.add_loop(loop(deck, begin, exact, epoch), buffer)
    else:
        getattr(mixer, name)(*rest)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), CALL), max_size=25))
def test_any_calls_give_finite_bounded_repeatable_sound(calls: list[tuple[int, Any]]) -> None:
    one, two = Mixer(), Mixer(stems=True)
    first, second = [one.render()], [two.render_stems()[0]]
    for epoch, (blocks, call) in enumerate(calls, 1):
        obey(one, call, epoch)
        obey(two, call, epoch)
        if blocks:
            first.append(one.render(blocks))
            second += [two.render() for _ in range(blocks)]
    a, b = np.concatenate(first), np.concatenate(second)
    assert np.array_equal(a, b)
    assert np.isfinite(a).all()
    assert np.abs(a).max() <= np.float32(CEILING)
    assert one.bad == 0


def test_a_state_may_be_applied_again_and_the_same_calls_by_hand_give_the_same_sound() -> None:
    first, second = loop("main", lap=SECOND), loop("main", 20000, SECOND, epoch=2)
    sounds = {first.file: noise(SECOND, 1, 0.4), second.file: noise(SECOND, 2, 0.4)}
    curve = {"gain": points((0, 0.5), (30000, 1.0))}
    gates = (Gate(40000, frozenset({"main"})),)
    by_hand = Mixer()
    by_hand.add_loop(first, sounds[first.file])
    by_hand.add_loop(second, sounds[second.file])
    by_hand.set_mix("main", curve)
    by_hand.set_gates(gates)
    published = Mixer()
    state = MixState({"main": MixDeck((first, second), 1, curve)}, gates)
    out = []
    for _ in range(100):
        published.apply(state, lambda loop: sounds[loop.file])
        out.append(published.render())
    assert np.array_equal(np.concatenate(out), by_hand.render(100))


def test_a_deck_that_a_state_ends_fades_at_its_sample_and_one_it_lacks_at_once() -> None:
    mixer, deck = Mixer(), loop("main", lap=SECOND)
    state = MixState({"main": MixDeck((deck,), 1, {})})
    mixer.apply(state, lambda _: constant(SECOND))
    mixer.apply(MixState({"main": MixDeck((deck,), 1, {}, ends=30000)}), lambda _: constant(SECOND))
    out = mixer.render(100)[:, 0]
    assert out[29000] == 0.25
    assert not out[31000:].any()
    assert mixer.decks == []
