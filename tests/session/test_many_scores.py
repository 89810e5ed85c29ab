"""Several scores that say the same control, and scores that get another name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from demon_live.core import RATES, Floats
from demon_live.errors import DemonError
from demon_live.replay.render import render
from demon_live.runtime.offline import Offline
from demon_live.runtime.seek import dry_run
from demon_live.session.score_files import Reloader, Watcher
from demon_live.sets import journal
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run

SECOND = RATES.sample_rate


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offline:
    monkeypatch.chdir(tmp_path)
    return offline(MockEngine(by_prompt), tmp_path)


def bound(stage: Offline, deck: str = "main") -> dict[str, str]:
    return {name: lane.text for name, lane in stage.session.state.decks[deck].bound.items()}


def save(stage: Offline, name: str, text: str) -> None:
    Path(name).write_text(text)
    stage.session.load(name)


def test_a_copy_that_is_deleted_takes_nothing_with_it(stage: Offline) -> None:
    base = "tempo 120\nloop 1\ndenoise = .5\nblend = \"1 .5\"\nprompt = 'a'\n"
    save(stage, "a.demon", base)
    save(stage, "b.demon", base)
    save(stage, "a.demon", base.replace(".5\nblend", ".9\nblend"))
    loop = stage.session.state.decks["main"].loop
    outcome = stage.session.remove("b.demon")
    assert outcome.messages == ()
    assert bound(stage) == {"denoise": ".9", "blend": '"1 .5"', "prompt": "'a'"}
    assert stage.session.state.decks["main"].loop is loop
    assert stage.session.state.ending == ()


def test_what_another_text_says_speaks_again(stage: Offline) -> None:
    stage.session.apply("tempo 120\nloop 1\nprompt = 'a'\nblend = .3")
    save(stage, "a.demon", "denoise = .9")
    save(stage, "b.demon", "denoise = .7\nblend = .6\npan = .5")
    assert stage.session.remove("b.demon").messages == (
        "denoise = .9 · from bar 1 · class slot",
        "blend = .3 · from bar 1 · class step",
        "pan reverts · from bar 1 · class mix",
    )
    assert bound(stage) == {"prompt": "'a'", "denoise": ".9", "blend": ".3"}


def test_a_line_that_is_taken_out_gives_way_to_another_score(stage: Offline) -> None:
    save(stage, "a.demon", "tempo 120\nloop 1\nprompt = 'a'\ndenoise = .9")
    save(stage, "b.demon", "denoise = .7\npan = .5")
    save(stage, "b.demon", "pan = .5")
    assert bound(stage)["denoise"] == ".9"
    stage.session.apply("denoise = default")
    save(stage, "b.demon", "pan = .2")
    assert "denoise" not in bound(stage)


def test_settings_of_another_score_count_again(stage: Offline) -> None:
    save(stage, "a.demon", "tempo 120\nloop 1\nprompt = 'a'")
    save(stage, "b.demon", "tempo 140\nloop 2\nquant 2\nlink off\nsource none")
    stage.session.remove("b.demon")
    state = stage.session.state
    assert (state.bpm, state.decks["main"].cycles) == (120, 1)
    assert state.quant == 2  # nobody else says it: it stays


def test_a_setting_that_was_overruled_later_stays(stage: Offline) -> None:
    save(stage, "a.demon", "tempo 120\nloop 1\nprompt = 'a'")
    save(stage, "b.demon", "tempo 140")
    stage.session.apply("tempo 133")
    stage.session.remove("b.demon")
    assert stage.session.state.bpm == 133


def test_a_deck_ends_only_when_no_score_names_it(stage: Offline) -> None:
    save(stage, "a.demon", "tempo 120\nprompt = 'a'\ndeck two { loop 1 }")
    save(stage, "b.demon", "deck two { loop 1\nblend = .5 }")
    stage.session.remove("b.demon")
    assert set(stage.session.state.decks) == {"main", "two"}
    stage.session.remove("a.demon")
    assert set(stage.session.state.decks) == set()


def test_a_score_under_another_name_is_the_same_score(stage: Offline) -> None:
    save(stage, "a.demon", "tempo 120\nloop 1\nprompt = 'a'\nblend = .5")
    before = stage.session.state
    Path("a.demon").rename("z.demon")
    assert stage.session.rename("a.demon", "z.demon")
    state = stage.session.state
    assert list(state.files) == ["z.demon"]
    assert state.decks["main"].loops == before.decks["main"].loops
    assert state.decks["main"].lanes == before.decks["main"].lanes
    save(stage, "z.demon", "tempo 120\nloop 1\nprompt = 'a'")
    assert "blend" not in bound(stage)


def test_a_name_that_plays_already_or_lies_elsewhere_is_no_rename(stage: Offline) -> None:
    save(stage, "a.demon", "tempo 120\nloop 1\nprompt = 'a'")
    save(stage, "b.demon", "blend = .5")
    assert not stage.session.rename("a.demon", "b.demon")
    assert not stage.session.rename("a.demon", "sub/a.demon")
    assert not stage.session.rename("c.demon", "d.demon")
    assert list(stage.session.state.files) == ["a.demon", "b.demon"]


@pytest.mark.parametrize("names", [("a.demon", "z.demon"), ("z.demon", "a.demon")])
def test_a_file_that_is_moved_in_a_watched_folder_plays_on(
    stage: Offline, tmp_path: Path, names: tuple[str, str]
) -> None:
    old, new = names
    Path(old).write_text("tempo 120\nloop 1\nprompt = 'a'")
    reloader = Reloader(stage.session)
    reloader.load(tmp_path / old)
    loops = stage.session.state.decks["main"].loops
    watcher = Watcher(reloader, [tmp_path])
    watcher.start()
    try:
        shutil.move(old, new)
        assert watcher.wait_for(lambda: list(stage.session.state.files) == [new], 60)
    finally:
        watcher.close()
    assert stage.session.state.decks["main"].loops == loops
    assert f"{old} is {new} now" in stage.session.events(0)[1]


def _play(stage: Offline) -> Floats:
    save(stage, "a.demon", "tempo 120\nloop 1\nprompt = 'a'\ngain = .5\nquant .25")
    stage.session.apply("record 'take'")
    parts = [run(stage, SECOND)]
    save(stage, "b.demon", "gain = .1")
    parts.append(run(stage, SECOND))
    stage.session.rename("b.demon", "c.demon")
    parts.append(run(stage, SECOND))
    stage.session.remove("c.demon")
    parts.append(run(stage, SECOND))
    stage.session.apply("stop")
    return np.concatenate(parts)


def test_a_set_in_which_scores_were_renamed_and_deleted_replays(
    stage: Offline, tmp_path: Path
) -> None:
    played = _play(stage)
    path = Path(f"take{journal.SUFFIX}")
    assert journal.load(path).start["rules"] == journal.RULES
    again = render(path, engine=MockEngine(by_prompt), seconds=4).audio[:, 0]
    assert np.array_equal(again, played[: len(again)])


def test_a_set_of_before_reverts_to_the_default_as_it_did(stage: Offline) -> None:
    _play(stage)
    recording = journal.load(Path(f"take{journal.SUFFIX}"))
    old = journal.Recording(recording.path, {**recording.start, "rules": 1}, recording.events)
    said = {}
    for one in (recording, old):
        last = list(dry_run(one))[-1].state.decks["main"]
        said[one.start["rules"]] = {name: lane.text for name, lane in last.bound.items()}
    assert said[journal.RULES]["gain"] == ".5"
    assert "gain" not in said[1]


def test_a_set_of_a_later_version_is_refused_with_the_remedy(
    stage: Offline, tmp_path: Path
) -> None:
    made = journal.Journal({"engine": "mock", "rules": journal.RULES + 1})
    made.open(tmp_path / f"x{journal.SUFFIX}")
    made.close(0)
    with pytest.raises(DemonError, match="this version knows 1 to"):
        journal.load(tmp_path / f"x{journal.SUFFIX}")


def test_a_later_word_about_the_same_moment_replaces_the_earlier(stage: Offline) -> None:
    stage.session.apply("tempo 240\nloop 1\nprompt = 'a'")
    run(stage, 100)
    for n in range(2000):
        stage.session.apply(f"blend = {n / 2000} at 32")
    lane = stage.session.state.decks["main"].lanes["blend"]
    assert (lane.depth, lane.at(31), lane.at(32)) == (2, 1.0, 1999 / 2000)
    stage.session.status()
    assert len(run(stage, 100)) >= 100


def test_more_waiting_changes_than_anybody_means_are_refused_and_the_rest_stays(
    stage: Offline,
) -> None:
    stage.session.apply("tempo 240\nloop 1\nprompt = 'a'")
    for n in range(1, 64):
        stage.session.apply(f"blend = {n / 100} in {n}")
    with pytest.raises(DemonError, match="64 changes of blend are waiting") as caught:
        stage.session.apply("blend = .64 in 64")
    assert caught.value.span is not None
    lane = stage.session.state.decks["main"].lanes["blend"]
    assert [lane.at(n) for n in (1, 40, 63)] == [0.01, 0.4, 0.63]
    stage.session.apply("blend = default now")
    assert stage.session.state.decks["main"].lanes["blend"].depth <= 2
