"""The timeline: every frame holds what the score says for the moment at which it is next heard."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from demon_live.lang import Lane, compile_source
from demon_live.session.sampler import (
    DeckSampler,
    lap_times,
    mix_points,
    next_heard,
    plan,
    strip_points,
)
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap

TEMPO = TempoMap.start(Fraction(120))  # a cycle is 96,000 samples, 50 frames
SETTINGS = make_loop(DeckState("main", cycles=4), TEMPO, Fraction(0), 1)


def lane(line: str) -> Lane:
    program = compile_source(line)
    (found,) = program.decks["main"].values()
    return found


def test_what_lies_behind_the_playhead_belongs_to_the_next_lap() -> None:
    now = 96_000 + 1
    lap, _ = SETTINGS.locate(now)
    laps = np.stack([lap_times(SETTINGS, lap), lap_times(SETTINGS, lap + 1)])
    times = next_heard(SETTINGS, now, {"times": laps})["times"]
    assert times[51] == 51 * 1920
    assert times[50] == 50 * 1920 + SETTINGS.samples  # its start has just passed
    assert times[0] == SETTINGS.samples
    assert times.min() >= now
    assert times.max() < now + SETTINGS.samples


def test_each_frame_holds_the_value_of_the_cycle_in_which_it_is_heard() -> None:
    lanes = {"blend": lane('blend = "<.1 .2 .3 .4 .5 .6 .7 .8>"')}
    block = DeckSampler().block("main", 1, lanes, SETTINGS, TEMPO, 2 * 96_000)
    curve = block.lanes["blend"].reshape(4, 50)
    # In the middle of lap 0: cycles 2 and 3 are ahead in this lap, 0 and 1 come as 4 and 5.
    expected = np.array([0.5, 0.6, 0.3, 0.4], np.float32)
    assert np.array_equal(curve, np.repeat(expected[:, None], 50, axis=1))


def test_the_first_frame_of_a_bar_has_the_bars_value_at_any_tempo_after_hours() -> None:
    tempo = TempoMap.start(Fraction("133.7"))
    loop = make_loop(DeckState("m", cycles=1), tempo, Fraction(0), 1)
    steps = {"blend": lane('blend = "<0 1>"')}
    for bar in (1, 2, 5001, 24_064):
        block = DeckSampler().block("m", 1, steps, loop, tempo, tempo.sample_at(Fraction(bar)))
        assert block.lanes["blend"][0] == bar % 2


def test_the_plan_jumps_on_the_samples_of_the_score() -> None:
    lanes = {"denoise": lane('denoise = "<.4 [.6 .8]>"'), "seed": lane('seed = "<1 2>/2"')}
    rows = plan(lanes, TEMPO, 1000, 1000 + 4 * 96_000)
    assert [(r.from_sample, r.values["denoise"], r.values["seed"]) for r in rows] == [
        (1000, 0.4, 1.0),
        (96_000, 0.6, 1.0),
        (144_000, 0.8, 1.0),
        (192_000, 0.4, 2.0),
        (288_000, 0.6, 2.0),
        (336_000, 0.8, 2.0),
        (384_000, 0.4, 1.0),
    ]
    assert not rows[0].jump
    assert all(r.jump for r in rows[1:])


def test_a_moving_pattern_is_read_anew_without_making_jumps() -> None:
    rows = plan({"denoise": lane("denoise = sine.slow(2)")}, TEMPO, 0, 96_000)
    assert [r.from_sample for r in rows] == [0, 24_000, 48_000, 72_000]
    assert not any(r.jump for r in rows)


def test_a_jump_of_the_mix_is_one_sample_wide() -> None:
    points = mix_points(lane('gain = "1 .5"'), TEMPO, 40_000)
    at = np.interp([40_000, 47_999, 48_000, 95_999, 96_000], points.samples, points.values)
    assert list(at) == [1.0, 1.0, 0.5, 0.5, 1.0]


def test_a_moving_mix_control_has_a_point_each_ten_milliseconds() -> None:
    points = mix_points(lane("pan = saw2"), TEMPO, 0)
    inner = points.samples[points.samples > 0][:-1]
    assert np.diff(inner).max() <= 480
    assert np.interp(24_000, points.samples, points.values) == pytest.approx(-0.5, abs=1e-4)


def test_a_constant_of_the_mix_is_one_point() -> None:
    points = mix_points(lane("pan = -.5"), TEMPO, 12_345)
    assert list(points.values) == [-0.5]


def test_delay_times_are_samples_at_the_tempo_of_their_moment() -> None:
    tempo = TEMPO.change(Fraction(1), Fraction(60), 4)
    points = strip_points("delaytime", lane("delaytime = 1/8"), tempo, 50_000)["delaytime"]
    at = np.interp([50_000, 95_999, 96_000, 140_000], points.samples, points.values)
    assert list(at) == [12_000, 12_000, 24_000, 24_000]


@pytest.mark.parametrize("text", ["delay = .5", "gain = .5"])
def test_an_echo_without_a_time_has_the_default_also_when_nothing_is_sent_any_more(
    text: str,
) -> None:
    lanes = {text.split()[0]: lane(text)}
    block = DeckSampler().block("main", 1, lanes, SETTINGS, TEMPO, 0)
    assert set(block.mix["delaytime"].values) == {18_000}


@pytest.mark.parametrize(("beats", "beat"), [(4, 24_000), (Fraction(7, 2), 24_000)])
def test_ducking_for_the_beat_jumps_on_it_and_is_back_half_a_beat_later(
    beats: int | Fraction, beat: int
) -> None:
    tempo = TempoMap.start(Fraction(120), beats)
    points = strip_points("duck", lane("duck = 'beat:.8'"), tempo, 40_000)["duck"]
    bar = tempo.sample_at(Fraction(1))
    times = [beat * 2 - 1, beat * 2, beat * 2 + beat // 4, beat * 2 + beat // 2, bar - 1, bar]
    at = np.interp(times, points.samples, points.values)
    assert at == pytest.approx([0, 0.8, 0.4, 0, 0, 0.8], abs=1e-4)


def test_ducking_for_decks_has_a_depth_for_each() -> None:
    points = strip_points("duck", lane("duck = \"'drums:.5' 'bass' ~ ~\""), TEMPO, 500)
    assert points.keys() == {"duck drums", "duck bass"}
    times = [500, 23_999, 24_000, 47_999, 48_000]
    for name, wanted in (("duck drums", [0.5, 0.5, 0, 0, 0]), ("duck bass", [0, 0, 1, 1, 0])):
        assert list(np.interp(times, points[name].samples, points[name].values)) == wanted


def test_before_a_stage_begins_it_is_sampled_for_its_beginning() -> None:
    loop = make_loop(DeckState("main", cycles=4), TEMPO, Fraction(4), 2)
    lanes = {"blend": lane('blend = "<.1 .2 .3 .4 .5 .6 .7 .8>"'), "seed": lane('seed = "<1 2>/4"')}
    block = DeckSampler().block("main", 1, lanes, loop, TEMPO, 1000)
    assert np.allclose(block.lanes["blend"].reshape(4, 50)[:, 0], [0.5, 0.6, 0.7, 0.8])
    assert block.plan[0].values == {"seed": 2.0}


def test_a_kept_plan_equals_a_new_one() -> None:
    lanes = {"seed": lane('seed = "<1 2> 3"'), "prompt": lane("prompt = \"<'a' 'b'>/2\"")}
    kept = DeckSampler()
    for now in range(0, 4 * 96_000, 3840):
        old = kept.block("m", 1, lanes, SETTINGS, TEMPO, now).plan
        new = DeckSampler().block("m", 1, lanes, SETTINGS, TEMPO, now).plan
        # The kept one looks a second less far ahead at most.
        assert old == new[: len(old)]
        assert len(new) - len(old) <= 2
