"""Data as patterns: curves, times and notes of files, and arrays that become files."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live import dsl as d
from demon_live.errors import DemonError
from demon_live.lang import compile_source
from demon_live.paths import shipped
from demon_live.replay.render import render
from demon_live.sets.set_files import folder_of
from tests.helpers.mock_engine import MockEngine, by_prompt, offline

TUNE = shipped("patterns") / "curves" / "tune.mid"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with d.Score():
        yield tmp_path


def test_a_curve_goes_through_its_values_in_straight_lines() -> None:
    y = np.array([0.0, 1.0, 0.5, 0.25])
    pattern = d.curve(y, 2)
    assert np.allclose(pattern.sample([0, 0.5, 1, 1.5, 2, 2.5]), [0, 1, 0.5, 0.25, 0, 1], atol=1e-5)
    assert np.allclose(pattern.sample([0.25, 1.75]), [0.5, 0.125], atol=1e-5)


def test_a_held_curve_steps_on_the_exact_time() -> None:
    d.deck.blend = d.curve([0, 1, 0.5], 1, held=True)
    lane = d.program().decks["main"]["blend"]
    assert lane.jumps(Fraction(0), Fraction(1)) == [0, Fraction(1, 3), Fraction(2, 3)]
    assert [lane.at(Fraction(k, 3)) for k in range(3)] == [0, 1, 0.5]


def test_a_long_array_and_a_function_are_curves() -> None:
    long = np.linspace(0, 1, 100_000, dtype=np.float32)
    d.deck.blend = d.curve(long, 64)
    d.deck.noise = d.curve(lambda t: np.sin(t) ** 2, cycles=8) * 0.5
    lanes = d.program().decks["main"]
    assert np.allclose(lanes["blend"].sample(np.array([32.0])), 0.5, atol=1e-4)
    times = np.linspace(0, 7.9, 50)
    assert np.allclose(lanes["noise"].sample(times), np.sin(times) ** 2 * 0.5, atol=1e-3)


def test_equal_arrays_are_one_file_with_the_name_of_its_content(here: Path) -> None:
    one, two = d.curve([0, 1]), d.curve(np.array([0, 1], np.float64))
    assert str(one) == str(two)
    assert len(list((here / "curves").iterdir())) == 1
    assert str(one) != str(d.curve([0, 0.5]))


def test_a_csv_counts_by_its_last_column(here: Path) -> None:
    (here / "x.csv").write_text("day;level\n1;.25\n2;.75\n")
    assert d.curve("x.csv").sample([0, 0.5]).tolist() == [0.25, 0.75]


def test_onsets_are_a_rhythm() -> None:
    gate = d.onsets([0.25, 1.5, 7], 2)
    assert [(e.whole_begin, e.value) for e in gate.events(0, 4) if e.onset] == [
        (Fraction(1, 4), 1), (Fraction(3, 2), 1), (Fraction(9, 4), 1), (Fraction(7, 2), 1),
    ]  # fmt: skip
    struck = d.mini(".5").struct(gate)
    assert [e.begin for e in struck.events(0, 2) if e.onset] == [Fraction(1, 4), Fraction(3, 2)]


def test_the_notes_of_a_midi_file_are_numbers() -> None:
    found = [(e.begin, e.end, e.value) for e in d.midi(TUNE).events(0, 2)]
    assert [v for _, _, v in found] == [60, 63, 67, 70, 72, 70, 67, 63]
    assert found[1][:2] == (Fraction(1, 4), Fraction(1, 4) + Fraction(84, 384))
    assert found == [(e.begin, e.end, e.value) for e in d.midi(TUNE, track=1).events(0, 2)]
    with pytest.raises(DemonError, match="no notes in track 0"):
        d.midi(TUNE, track=0).events(0, 2)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no numbers|needs 1"),
        (b"a\nb\n", "no numbers"),
        (b"1\nnan\n", "finite"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "no numbers"),
        (b"\xff\xfe\x00", "no numbers"),
    ],
)
def test_files_without_numbers_are_errors_of_the_score(here: Path, data: bytes, said: str) -> None:
    (here / "x.npy").write_bytes(data)
    with pytest.raises(DemonError, match=said) as caught:
        compile_source("blend = curve('x.npy', 4)")
    assert caught.value.span is not None


@pytest.mark.parametrize("cut", [3, 20, 40, 60])
def test_a_damaged_midi_file_is_an_error_of_the_score(here: Path, cut: int) -> None:
    (here / "x.mid").write_bytes(TUNE.read_bytes()[:cut])
    with pytest.raises(DemonError, match=r"MIDI|notes"):
        compile_source("seed = midi('x.mid')")


@pytest.mark.parametrize("wrong", [[[0, 1]], [], [np.inf], "none.csv", ["a"]])
def test_what_is_no_curve_is_refused(wrong: object) -> None:
    with pytest.raises(DemonError):
        d.curve(wrong).sample([0])  # type: ignore[arg-type]


def test_a_set_with_an_array_replays_when_the_array_is_gone(here: Path) -> None:
    stage = offline(MockEngine(by_prompt), here)
    with d.Score() as score:
        d.deck.prompt = "c"
        d.deck.loop(1)
        d.deck.gain = d.curve(np.random.default_rng(1).random(500), 3)
        d.deck.pan = d.cc(1) * d.curve([0, 1, 0], 2)
    stage.session.apply("record 'one'")
    stage.session.apply(score)
    audio = stage.render(cycles=6)
    stage.session.apply("stop")
    (path,) = here.glob("*.set.jsonl")
    assert len(list(folder_of(path).iterdir())) == 2
    for file in (here / "curves").iterdir():
        file.unlink()
    again = render(path, engine=MockEngine(by_prompt), cycles=6, trust=True).audio  # type: ignore[arg-type]
    assert np.array_equal(again, audio)


def test_a_score_of_python_finds_its_arrays_beside_itself(here: Path) -> None:
    folder = here / "gig"
    folder.mkdir()
    score = folder / "a.py"
    score.write_text("from demon_live import dsl as d\nd.deck.blend = d.curve([0, 1], 2)\n")
    stage = offline(MockEngine(by_prompt))
    stage.session.python = True
    stage.session.load(score)
    assert stage.session.state.decks["main"].lanes["blend"].at(Fraction(1)) == 1
    assert [p.parent.parent for p in here.rglob("*.npy")] == [folder]


@pytest.mark.parametrize(
    "name", ["../secret.csv", "/etc/hostname", "a/../../secret.csv", "link.csv"]
)
def test_a_score_reads_no_data_outside_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.csv").write_text("1\n2\n")
    (home / "link.csv").symlink_to(tmp_path / "secret.csv")
    monkeypatch.chdir(home)
    with pytest.raises(DemonError, match="outside the folder of the score"):
        compile_source(f"blend = curve('{name}', 4)")
