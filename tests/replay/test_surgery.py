"""Sets as values: read, cut, changed, written, rendered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demon_live import Recording, render
from demon_live.errors import DemonError
from demon_live.sets.set_files import folder_of
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, write_tone

BAR = 96_000


def mock() -> Any:
    return MockEngine(by_prompt)


@pytest.fixture
def take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Eight bars at 120, then at 150: prompts b, c (bar 4), d (bar 6), from a source."""
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    write_tone(tmp_path / "tone.wav", 0.2, 2.0)
    stage = offline(mock(), tmp_path)
    stage.session.apply("loop 1\nsource \"tone.wav\"\nprompt = 'b'\nrecord 'one'")
    stage.session.at(2, "tempo 150")
    stage.session.at(4, "prompt = 'c'")
    stage.session.at(6, "prompt = 'd'")
    stage.render(cycles=8)
    stage.session.apply("stop")
    return Recording.load(next(tmp_path.glob("*.set.jsonl")))


def test_a_set_is_a_value(take: Recording) -> None:
    kinds = [e.kind for e in take.events]
    assert kinds.count("apply") >= 4
    assert kinds[-1] == "end"
    whole = render(take, engine=mock()).audio
    assert take.path is not None
    assert np.array_equal(whole, render(take.path, engine=mock()).audio)


def test_what_is_written_is_read_again_with_its_files(take: Recording, tmp_path: Path) -> None:
    copy = take.write(tmp_path / "two")
    assert copy.path == tmp_path / "two.set.jsonl"
    again = Recording.load(copy.path)
    assert (again.events, again.torn, again.unknown) == (take.events, 0, 0)
    assert {k: v for k, v in again.start.items() if k != "crc"} == {
        k: v for k, v in take.start.items() if k != "crc"
    }
    assert len(list(folder_of(copy.path).rglob("*.wav"))) == 1
    with pytest.raises(DemonError, match="exists already"):
        take.write(tmp_path / "two")


def test_a_changed_set_plays_its_changes(take: Recording, tmp_path: Path) -> None:
    louder = take.map(
        lambda e: replace(e, text=e.text.replace("'c'", "'f'")) if e.kind == "apply" else e
    )
    audio = render(louder.write(tmp_path / "f"), engine=mock()).audio[:, 0]
    tempo_4, tempo_6 = 2 * BAR + 2 * 76_800, 2 * BAR + 4 * 76_800
    assert np.allclose(audio[tempo_4 + 4800 : tempo_6 - 4800], 0.6, atol=1e-3)
    without = take.map(lambda e: None if "tempo" in e.text else [e])
    assert len(without.events) == len(take.events) - 1


def test_a_cut_begins_with_what_plays_there(take: Recording, tmp_path: Path) -> None:
    part = take.cut(3, 7)
    audio = render(part, engine=mock()).audio[:, 0]
    assert len(audio) == 4 * 76_800
    places = [0.5, 1.5, 2.5, 3.5]
    heard = [round(float(audio[int(p * 76_800)]), 2) for p in places]
    assert heard == [0.2, 0.3, 0.3, 0.4]
    written = part.write(tmp_path / "part")
    assert np.array_equal(render(written, engine=mock()).audio[:, 0], audio)
    first = take.cut(end=2)
    assert np.array_equal(
        render(first, engine=mock()).audio, render(take, engine=mock(), cycles=2).audio
    )


@pytest.mark.parametrize(("begin", "end"), [(0.5, None), (-1, None), (9, None), (4, 4), (4, 99)])
def test_a_cut_of_nothing_is_refused(take: Recording, begin: float, end: float | None) -> None:
    with pytest.raises(DemonError):
        take.cut(begin, end)
