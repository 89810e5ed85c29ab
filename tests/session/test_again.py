"""A score that is evaluated again plays what it says, whatever the prompt said meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demon_live.paths import shipped
from demon_live.runtime.offline import Offline
from demon_live.session.score_files import Reloader
from demon_live.session.session import Session
from demon_live.sets.journal import SetEvent
from tests.helpers.mock_engine import MockEngine, offline, run
from tests.session.test_many_scores import bound

BAR = 96_000
SCENES = "scene a { gain = .2 }\nscene b { gain = .8 }\nchain a 2, b 2\n"
SCORE = "tempo 120\nloop 2\ndenoise = .5\n" + SCENES


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offline:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    made = offline(MockEngine(lambda row: 0.5), tmp_path)
    Path("set.demon").write_text(SCORE)
    made.session.load("set.demon")
    run(made, BAR // 2)
    return made


def test_what_nothing_has_overridden_is_left_alone(stage: Offline) -> None:
    before = stage.session.state
    assert stage.session.load("set.demon").messages == ()
    assert stage.session.state.decks["main"].loops == before.decks["main"].loops
    assert not stage.session.differs("set.demon")


def test_what_the_prompt_has_overridden_plays_again(stage: Offline) -> None:
    chained = stage.session.state.decks["main"].bound["gain"]
    stage.session.apply("denoise = .9\ngain = 1\nloop 4\nscene a { gain = 0 }")
    assert stage.session.differs("set.demon")
    said = stage.session.load("set.demon").messages
    assert said[0] == "what the score says plays again"
    assert any(line.startswith("denoise = .5 · from bar") for line in said)
    assert any(line.startswith("gain = chain a 2, b 2 · from bar") for line in said)
    assert any("loop of 2 cycles" in line for line in said)
    deck = stage.session.state.decks["main"]
    assert (bound(stage)["denoise"], deck.cycles) == (".5", 2)
    assert deck.bound["gain"].text == chained.text
    assert not stage.session.differs("set.demon")


def test_a_deck_that_was_ended_comes_back_and_so_does_a_control_that_was_given_back(
    stage: Offline,
) -> None:
    stage.session.apply("deck air { gain = .3 }", "air.demon", "file")
    stage.session.apply("deck air off\ndenoise = default")
    assert "air" not in stage.session.state.decks
    stage.session.apply("deck air { gain = .3 }", "air.demon", "file")
    assert bound(stage, "air") == {"gain": ".3"}
    stage.session.load("set.demon")
    assert bound(stage)["denoise"] == ".5"


def test_what_another_score_says_stays(stage: Offline) -> None:
    stage.session.apply("denoise = .7\ntempo 100", "other.demon", "file")
    assert stage.session.load("set.demon").messages == ()
    assert bound(stage)["denoise"] == ".7"
    assert stage.session.state.bpm == 100


def test_it_brings_the_sound_back(stage: Offline) -> None:
    stage.session.apply("hush")
    assert stage.session.load("set.demon").messages == ("the sound is back",)
    assert not stage.session.state.hushed


def test_a_file_that_is_saved_unchanged_is_evaluated_again(stage: Offline) -> None:
    reloader, path = Reloader(stage.session), Path("set.demon").absolute()
    reloader.load(path)
    stage.session.apply("denoise = .9")
    number, _ = stage.session.events(0)
    # Looked at again without being written: the prompt keeps its word.
    reloader.touch(path)
    assert bound(stage)["denoise"] == ".9"
    os.utime(path, ns=(1, 1))
    reloader.touch(path)
    assert bound(stage)["denoise"] == ".5"
    assert "set.demon: what the score says plays again" in stage.session.events(number)[1][0]


def test_sets_of_before_replay_as_they_were_played(stage: Offline) -> None:
    texts = [(SCORE, "set.demon", "file"), ("denoise = .9", "<prompt>", "repl")]
    for rules, last in ((1, ".9"), (2, ".5")):
        session = Session(stage.output, start={"rules": rules}, dry=True)
        for text, name, origin in (*texts, texts[0]):
            session.repeat(SetEvent("apply", 0, text, name, origin))
        assert session.state.decks["main"].bound["denoise"].text == last


def test_of_a_shipped_score_a_copy_is_saved(stage: Offline) -> None:
    path = shipped("patterns") / "00_hello.demon"
    stage.session.assets.folders += (shipped("patterns"),)
    text = path.read_text()
    stage.session.load(path)
    (name,) = (n for n in stage.session.scores() if n.endswith("00_hello.demon"))
    said = stage.session.save(name, text + "denoise = .1\n")
    assert path.read_text() == text
    assert Path("00_hello.demon").read_text() == text + "denoise = .1\n"
    assert said.messages[-1] == f"saved as a copy: {Path.cwd() / '00_hello.demon'}"
    assert bound(stage)["denoise"] == ".1"


def test_what_was_saved_is_loaded_by_the_same_name(stage: Offline) -> None:
    stage.session.apply("save mine")
    assert stage.session.apply("load mine").messages is not None
    assert "mine.demon" in stage.session.scores()
