"""The rigs themselves: what they would see, and their short forms on the whole instrument."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.rigs import grid, score
from tests.rigs.audit import judge
from tests.rigs.fuzz import SHARES, fuzz, mutated
from tests.rigs.soak import _growth
from tests.rigs.stagehand import slope_mb_per_hour

ROOT = Path(__file__).resolve().parents[2]


def set_of(beats: int, shift: dict[int, int] | None = None) -> np.ndarray:
    """A metronome left and a tone right; from some beats on everything is moved by samples."""
    pulse = np.sin(np.arange(2400) * 0.05) * np.exp(-np.arange(2400) / 600)
    audio = np.zeros((beats * score.PERIOD + 4000, 2))
    audio[:, 1] = 0.1 * np.sin(np.arange(len(audio)) * 0.03)
    moved = 0
    for beat in range(beats):
        moved += (shift or {}).get(beat, 0)
        start = 2000 + beat * score.PERIOD + moved
        audio[start : start + len(pulse), 0] += pulse
    return audio


def analysed(audio: np.ndarray, block: int = 0) -> dict[str, dict[str, float]]:
    pieces = (audio[i : i + 50_000] for i in range(0, len(audio), 50_000))
    return grid.analyse(pieces, score.PERIOD, block)


def test_an_even_beat_is_seen_as_even() -> None:
    got = analysed(set_of(60))
    assert got["grid"]["missing"] == 0
    assert got["grid"]["worst_ms"] < 0.05
    assert got["gaps"]["longest_ms"] == 0


@pytest.mark.parametrize("samples", [120, -120, 512])
def test_a_beat_that_is_moved_is_seen(samples: int) -> None:
    got = analysed(set_of(60, {40: samples}))
    assert got["grid"]["worst_ms"] == pytest.approx(abs(samples) / 48, abs=0.1)


def test_blocks_that_a_capture_missed_are_told_from_beats_that_moved() -> None:
    got = analysed(set_of(60, {30: -512, 45: -1024}), 512)
    assert got["grid"]["capture_blocks_lost"] == 3
    assert got["grid"]["worst_ms"] < 0.1


def test_a_hole_of_twelve_milliseconds_is_seen_where_it_is() -> None:
    audio = set_of(40)
    audio[480_000:480_576, 1] = 0
    got = analysed(audio)["gaps"]
    assert got["longest_ms"] in (11, 12)
    assert got["worst_at_s"] == pytest.approx(10.0, abs=0.01)


def test_a_leak_is_a_slope_and_a_leap_is_none() -> None:
    times = np.arange(0.0, 3600.0, 10)
    assert slope_mb_per_hour(times, 5e8 + 2e6 * times / 3600) == pytest.approx(2.0, abs=0.01)
    leap = np.where(times > 2700, 5.4e8, 5e8)
    assert slope_mb_per_hour(times, leap) == 0


def test_what_a_tick_holds_for_a_moment_is_no_growth() -> None:
    rng = random.Random(5)
    rows = [(float(t), 500_000_000 + rng.randint(0, 60_000_000)) for t in range(0, 3600, 10)]
    # Each minute has a look right after memory was given back.
    flat = [(t, 500_000_000 if t % 60 == 0 else size) for t, size in rows]
    assert _growth(flat, 600)["slope_mb_per_hour"] == 0
    leak = [(t, int(size + 2e6 * t / 3600)) for t, size in flat]
    assert _growth(leak, 600)["slope_mb_per_hour"] == pytest.approx(2.0, abs=0.05)


def test_an_audit_fails_on_what_is_found_and_says_when_nobody_could_be_asked() -> None:
    clean: dict[str, Any] = {"name": "lark", "version": "1.3.1", "vulns": []}
    hole = {**clean, "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
    unknown = {"name": "torch", "skip_reason": "not found on PyPI"}
    assert judge([clean, unknown])["rc"] == 0
    assert judge([clean, unknown])["not_known_there"] == ["torch"]
    assert judge([hole, clean])["rc"] == 1
    assert judge([unknown])["rc"] == judge([])["rc"] == 2


def test_an_input_of_the_fuzzer_can_be_made_again() -> None:
    texts, words = ["blend = sine.slow(4)\ngain = 1"], ["(", "fast"]
    one, two = (mutated(random.Random("1/x/7"), texts, words, 500) for _ in range(2))
    assert one == two
    assert len({mutated(random.Random(str(k)), texts, words, 500) for k in range(50)}) > 40


@pytest.mark.timeout(240)
def test_a_thousand_hostile_inputs_do_no_harm() -> None:
    report = fuzz(1000, seed=11)
    assert report["total"]["failures"] == 0, json.dumps(report["targets"])[-3000:]
    assert report["total"]["outside"] == 0, json.dumps(report["targets"])[-3000:]
    assert set(report["targets"]) == set(SHARES)


def rig(*words: str) -> argparse.Namespace:
    """A rig as it is started by hand; its report."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=230,
    )  # fmt: skip
    assert done.stdout.startswith("{"), done.stderr[-2000:]
    return argparse.Namespace(**json.loads(done.stdout))


@pytest.mark.timeout(240)
def test_a_soak_of_seconds(tmp_path: Path) -> None:
    report = rig("tests.rigs.soak", "--minutes", ".25", "--sink", "null", "--reload", "3")
    assert report.sound["dry"] == 0
    assert report.heard["gaps"]["longest_ms"] <= 10
    assert report.engine["restarts"] == 0
    assert report.closed_by_itself


@pytest.mark.timeout(240)
def test_an_engine_that_is_killed_is_not_heard(tmp_path: Path) -> None:
    report = rig("tests.rigs.chaos", "engine", "--count", "1", "--sink", "null")
    assert report.engine["back"] == 1
    assert report.engine["program_equal"] == 1
    assert report.engine["heard"]["gaps"]["longest_ms"] <= 10


@pytest.mark.timeout(240)
def test_a_scripted_set_of_a_minute_replays_bit_for_bit() -> None:
    report = rig("tests.rigs.two_hours", "--minutes", "1", "--evaluations", "60")
    same, turns = report.replay_equal_turns
    assert same == turns > 700
    assert not report.crashes
    assert report.surprises == report.late == 0
    assert report.refused > 5
    assert report.knobs > 20
