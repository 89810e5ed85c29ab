"""The whole instrument in its three processes, on a sink that keeps time without a device."""

from __future__ import annotations

import os
import shutil
import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from demon_live.errors import DemonError
from demon_live.lang import Lane, compile_source
from demon_live.models.manifest import load_manifest
from demon_live.paths import sets_dir
from demon_live.runtime.live import Live
from demon_live.runtime.seek import dry_run
from demon_live.sets.journal import Recording, SetEvent, find_set, load
from demon_live.sets.session_log import Interrupted
from demon_live.sets.set_files import folder_of

SCORE = """tempo 128
loop 2
source "techno_128.flac"
prompt = 'dub techno'
denoise = .6
"""
LOOPS = Path(__file__).resolve().parents[2] / "patterns" / "loops"


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DEMON_RUNTIME", str(tmp_path))
    folder = tmp_path / "scores"
    folder.mkdir()
    (folder / "techno_128.flac").write_bytes((LOOPS / "techno_128.flac").read_bytes())
    (folder / "x.demon").write_text(SCORE)
    return folder / "x.demon"


def generations(live: Live) -> int:
    return live.engine.status.generations


@pytest.mark.timeout(240)
def test_it_plays_follows_a_saved_file_and_survives_the_death_of_its_engine(
    score: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.wav"
    with Live([score], audio=f"file:{out}") as live:
        assert live.wait(60, lambda: generations(live) > 0)
        score.write_text(SCORE.replace(".6", ".9 !"))
        assert live.wait(20, lambda: "denoise" in "".join(live.session.events(0)[1]))
        first = live.engine.pid
        os.kill(first, signal.SIGKILL)
        before = live.speaker.bus.played
        assert live.wait(60, lambda: live.engine.restarts == 1 and live.engine.status.alive)
        assert live.wait(60, lambda: generations(live) > 0 and live.engine.status.ticks < 10_000)
        assert live.engine.pid != first
        assert live.speaker.bus.played > before
        assert live.session.state.decks["main"].bound["denoise"].text == ".9"
    audio, rate = soundfile.read(out)
    assert rate == 48_000
    # No stretch of 50 ms is silent: not at the start, not while the engine was gone.
    blocks = audio[4800 : len(audio) // 2400 * 2400 - 4800].reshape(-1, 2400 * 2)
    assert np.abs(blocks).max(1).min() > 1e-3
    assert not list(tmp_path.glob("demon-*/live-*"))


@pytest.mark.timeout(400)
def test_an_engine_by_path_plays_and_changes_to_another_and_back(
    score: Path, tmp_path: Path
) -> None:
    listed = load_manifest("imp")
    for weight in listed.weights:
        place = tmp_path / "own" / "imp" / weight.file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(listed.place(weight), place)
    path = tmp_path / "own" / "mine.toml"
    path.write_text(listed.path.read_text().replace('name = "imp"', 'name = "mine"'))
    with Live([score], engine=str(path), audio="null") as live:
        assert live.wait(120, lambda: generations(live) > 0)
        assert live.session.status().engine.startswith("mine")
        said = live.session.apply("engine imp")
        assert said.messages == ("imp is prepared and takes over at a bar",)
        assert live.wait(120, lambda: live.engine.engine == "imp" and generations(live) > 0)
        assert live.wait(20, lambda: live.session.status().engine.startswith("imp"))
        with pytest.raises(DemonError, match="there is no engine 'imq'"):
            live.session.apply("engine imq")
        with pytest.raises(DemonError, match="a name, or the path"):
            live.session.apply("engine 'os:system'")
        live.session.apply(f"engine '{path}'")
        assert live.session.state.engine == ""
        assert live.wait(120, lambda: live.engine.engine == str(path) and generations(live) > 0)
        assert live.engine.restarts == 0


def test_a_broken_first_score_raises_and_leaves_nothing_behind(score: Path, tmp_path: Path) -> None:
    score.write_text("blend = [")
    with pytest.raises(DemonError, match=r"x\.demon:1:9"):
        Live([score], audio="null")
    assert not list(tmp_path.glob("demon-*/live-*"))


@pytest.mark.parametrize("how", ["replay", "resume"])
def test_a_set_that_names_no_rules_goes_on_by_the_first(
    score: Path, tmp_path: Path, how: str
) -> None:
    text = "pan = rand.segment(8)"
    past = Recording(None, {"engine": "imp"}, (SetEvent("apply", 0, text, "<prompt>", "repl"),))
    given: dict[str, Any] = {"replay": past} if how == "replay" else {}
    given = given or {"resume": Interrupted(past, tmp_path, 0)}
    with Live(audio="null", **given) as live:
        assert live.session.journal.start["rules"] == 1
        lane = live.session.state.decks["main"].bound["pan"]
        times = np.arange(8, 12, 1 / 8)
        first = compile_source(text, chance=1).decks["main"]["pan"]
        assert np.array_equal(Lane.prune(lane, Fraction(8)).sample(times), first.sample(times))
        assert not np.array_equal(
            first.sample(times), compile_source(text).decks["main"]["pan"].sample(times)
        )


def test_a_set_is_recorded_with_its_sound(score: Path, tmp_path: Path) -> None:
    with Live([score], audio="null", record="friday") as live:
        live.session.apply("gain = .5 !")
        assert live.wait(30, lambda: live.speaker.bus.played > 48_000)
        live.session.apply("stop")
        assert live.wait(30, lambda: (tmp_path / "state" / "sets" / "friday.flac").exists())
    sets = tmp_path / "state" / "sets"
    assert (sets / "friday.set.jsonl").read_text().count('"kind":"apply"') >= 3
    audio, _ = soundfile.read(sets / "friday.flac")
    assert len(audio) > 24_000
    assert np.abs(audio).max() > 0.01


def test_a_state_folder_that_cannot_be_made_costs_only_what_is_kept_there(
    score: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "file" / "state"))
    with Live([score], audio="null") as live:
        assert "this session cannot be resumed" in "".join(live.session.events(0)[1])
        with pytest.raises(DemonError, match="cannot write to the folder"):
            live.session.apply("record friday")
        assert live.session.state.decks["main"].bound["denoise"].text == ".6"


@pytest.mark.timeout(240)
def test_what_is_played_in_is_kept_with_the_set(score: Path, tmp_path: Path) -> None:
    played = f"loop:{LOOPS / 'techno_128.flac'}"
    with Live([score], audio="null", input=played, record="mine") as live:
        assert live.wait(60, lambda: generations(live) > 0)
        live.session.apply("loop 1; source in; gain = in_level.range(.5, 1)")
        assert live.wait(60, lambda: live.session.state.decks["main"].take is not None)
        take = live.session.state.decks["main"].take
        assert take is not None
        kept = list((tmp_path / "state" / "sessions").glob(f"*.files/*/{take.name}"))
        assert len(kept) == 1
        assert live.wait(60, lambda: bool(live.session.state.hands.tracks))
    assert not kept[0].exists()
    path = find_set("mine", [sets_dir()])
    assert len(list(folder_of(path).rglob(take.name))) == 1
    moments = list(dry_run(load(path)))
    assert not [moment.error for moment in moments if moment.error is not None]
    assert moments[-1].state.decks["main"].take == take
