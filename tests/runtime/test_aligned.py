"""Written against heard: every scheduled change sounds on the sample it was written for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demon_live.core import Request
from demon_live.runtime.placement import HALF
from tests.helpers.mock_engine import MockEngine, by_prompt, edges, offline, run, write_tone

BAR = 96_000  # samples at 120 bpm


def by(name: str, scale: float) -> MockEngine:
    def level(request: Request) -> float:
        return float(request.values[name]) * scale

    return MockEngine(level)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("line", "name", "scale", "low", "high"),
    [
        ('denoise = "<.4 .8>"', "denoise", 1.0, 0.4, 0.8),
        ('seed = "<1 3>"', "seed", 0.1, 0.1, 0.3),
        ('shift = "<1 4>"', "shift", 0.1, 0.1, 0.4),
    ],
)
def test_slot_class_jumps_are_heard_on_their_sample_at_every_depth(
    line: str, name: str, scale: float, low: float, high: float, depth: int
) -> None:
    engine = by(name, scale)
    engine.depth = depth
    instrument = offline(engine)
    instrument.session.apply(f"tempo 120\nloop 4\n{line}")
    heard = edges(run(instrument, 8 * BAR), low, high)
    assert len(heard) == 7
    # 20 ms is the target; the splice itself is HALF samples to each side.
    assert max(abs(h - (i + 1) * BAR) for i, h in enumerate(heard)) <= HALF
    assert instrument.output.generator.status().on_time_ms == 0.0


def test_prompts_change_on_the_bar_that_the_score_names() -> None:
    instrument = offline(MockEngine(by_prompt))
    instrument.session.apply('tempo 120\nloop 4\nprompt = "<a!3 c>"')
    heard = edges(run(instrument, 9 * BAR), 0.1, 0.3)
    written = [3 * BAR, 4 * BAR, 7 * BAR, 8 * BAR]
    assert max(abs(h - w) for h, w in zip(heard, written, strict=True)) <= HALF


def test_an_edit_waits_for_its_bar_and_is_heard_on_it() -> None:
    instrument = offline(by("seed", 0.1))
    instrument.session.apply("tempo 120\nloop 4\nseed = 1")
    run(instrument, 2 * BAR + 30_000)
    begin = instrument.output.mixer.position
    outcome = instrument.session.apply("seed = 3")
    assert "from bar 3" in outcome.messages[0]
    heard = edges(run(instrument, 2 * BAR), 0.1, 0.3)
    assert len(heard) == 1
    assert abs(begin + heard[0] - 3 * BAR) <= HALF


def test_step_class_curves_are_aligned_by_frames(tmp_path: Path) -> None:
    write_tone(tmp_path / "low.wav", 0.2, 8.0)
    instrument = offline(MockEngine(lambda request: 0.8), tmp_path)
    instrument.session.apply('tempo 120\nloop 4\nsource "low.wav"\nblend = "<1 0>"')
    heard = [h + 4800 for h in edges(run(instrument, 8 * BAR)[4800:], 0.2, 0.8)]
    assert len(heard) == 7
    assert max(abs(h - (i + 1) * BAR) for i, h in enumerate(heard)) <= HALF


def test_mix_class_jumps_are_sample_accurate() -> None:
    instrument = offline(MockEngine(lambda request: 0.5))
    instrument.session.apply('tempo 120\nloop 1\ngain = "1 .5"')
    out = run(instrument, 2 * BAR)
    heard = edges(out[4800:], 0.25, 0.5)
    assert [h + 4800 for h in heard] == pytest.approx([BAR / 2, BAR, 3 * BAR / 2], abs=121)


def test_jumps_closer_than_a_generation_takes_are_all_heard() -> None:
    instrument = offline(by("seed", 0.1))
    instrument.session.apply('tempo 120\nloop 4\nseed = "1 3 1 3"')  # every half second
    heard = [h + 4800 for h in edges(run(instrument, 4 * BAR)[4800:], 0.1, 0.3)]
    assert len(heard) == 15
    assert max(abs(h - (i + 1) * BAR // 4) for i, h in enumerate(heard)) <= HALF


def test_a_tempo_change_and_a_new_loop_leave_no_gap_and_land_on_the_bar(tmp_path: Path) -> None:
    write_tone(tmp_path / "low.wav", 0.25, 8.0)
    instrument = offline(MockEngine(lambda r: 0.25 if r.source is not None else 0.75), tmp_path)
    instrument.session.apply('tempo 120\nloop 4\nsource "low.wav"')
    first = run(instrument, 3 * BAR)
    instrument.session.apply("tempo 128\nloop 2\nsource none")
    second = run(instrument, 4 * BAR)
    out = np.concatenate([first, second])
    assert out[4800:].min() > 0.2
    switch = edges(out[4800:], 0.25, 0.75)
    assert len(switch) == 1
    assert abs(switch[0] + 4800 - 4 * BAR) <= 480
    assert np.abs(np.diff(out[4800:])).max() < 0.01
    assert float(instrument.session.status().bpm) == 128


def test_two_decks_share_the_ring_and_both_are_on_time() -> None:
    instrument = offline(MockEngine(lambda r: float(r.values["seed"]) * 0.1))
    instrument.session.apply(
        'tempo 120\ndeck a\nloop 2\nseed = "<1 2>"\ndeck b\nloop 3\nseed = "<1 1 2 2>"'
    )
    out = run(instrument, 8 * BAR)
    bars = [float(np.median(out[i * BAR + 10_000 : (i + 1) * BAR - 10_000])) for i in range(8)]
    assert bars == pytest.approx([0.2, 0.3, 0.3, 0.4, 0.2, 0.3, 0.3, 0.4], abs=1e-3)
