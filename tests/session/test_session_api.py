"""What front ends ask of a session, asked of the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from demon_live.errors import DemonError
from demon_live.runtime.offline import Offline
from demon_live.session.output import NullOutput
from demon_live.session.session import Session
from demon_live.session.session_api import SessionApi
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run

BAR = 96_000


@pytest.fixture
def played(tmp_path: Path) -> Offline:
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply("tempo 120\nloop 2\nprompt = 'a'")
    run(instrument, BAR // 2)
    return instrument


def test_a_session_fits_the_session_api(played: Offline) -> None:
    api: SessionApi = played.session
    assert api.scores() == {}
    assert api.words().decks == ("main",)


def test_a_saved_score_is_on_disk_and_plays(tmp_path: Path) -> None:
    written: list[Path] = []
    session = Session(NullOutput(), written=lambda path, text: written.append(path))
    path = tmp_path / "lead.demon"
    session.save(path, "blend = .5\n")
    assert path.read_text() == "blend = .5\n"
    assert list(session.scores().values()) == ["blend = .5\n"]
    assert written == [path]


def test_a_broken_score_is_saved_and_the_one_before_plays_on(
    played: Offline, tmp_path: Path
) -> None:
    path = tmp_path / "lead.demon"
    played.session.save(path, "blend = .5\n")
    with pytest.raises(DemonError) as caught:
        played.session.save(path, "blend = (\n")
    assert caught.value.span is not None
    assert path.read_text() == "blend = (\n"
    assert list(played.session.scores().values()) == ["blend = .5\n"]
    assert [p.name for p in tmp_path.glob("*.part")] == []


def test_what_is_no_score_is_not_written(played: Offline, tmp_path: Path) -> None:
    with pytest.raises(DemonError, match="is no score"):
        played.session.save(tmp_path / "notes.txt", "blend = 1")
    assert not (tmp_path / "notes.txt").exists()
    with pytest.raises(DemonError) as caught:
        played.session.save(tmp_path / "nowhere" / "x.demon", "blend = 1")
    assert caught.value.hint


def test_a_line_that_waits_for_its_bar_is_not_shown_as_sounding(played: Offline) -> None:
    def lane() -> tuple[str, str]:
        deck = played.session.status().decks[0]
        found = next(v for v in deck.lanes if v.control == "blend")
        return found.text, found.coming

    played.session.apply("blend = .5 now")
    assert lane() == (".5", "")
    played.session.apply('blend = "1 .2"')
    assert lane() == (".5", '"1 .2"')
    run(played, BAR)
    assert lane() == ('"1 .2"', "")
    played.session.apply("blend = 1 over 2")
    run(played, BAR)
    assert lane() == ("1", "")


def test_words_of_files_and_of_the_prompt_are_known_at_the_prompt(
    played: Offline, tmp_path: Path
) -> None:
    played.session.save(tmp_path / "x.demon", "let wob(n) = sine.fast(n)\nblend = wob(2)\n")
    played.session.apply("let deep = .2")
    assert dict(played.session.words().lets) == {"wob": ("n",), "deep": ()}
    played.session.apply("noise = wob(3) * deep")


def test_a_score_that_plays_is_saved_where_it_lies(
    played: Offline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    played.session.save("lead.demon", "blend = .5\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (name,) = played.session.scores()
    played.session.save(name, "blend = 1\n")
    assert (tmp_path / "lead.demon").read_text() == "blend = 1\n"
    assert list(played.session.scores().values()) == ["blend = 1\n"]
