"""A set keeps the sound files that it names: it replays when they have changed, or are gone."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live.core import Floats
from demon_live.errors import DemonError
from demon_live.replay.farm import How, jobs, render_job
from demon_live.replay.render import render
from demon_live.replay.show import as_text
from demon_live.replay.verify import examine
from demon_live.runtime.offline import Offline
from demon_live.runtime.seek import dry_run
from demon_live.session.assets import Assets
from demon_live.sets import set_files as module
from demon_live.sets.journal import SUFFIX, Journal, SetEvent, load
from demon_live.sets.set_files import File, SetFiles, copy_into, digest_of, folder_of
from tests.helpers.mock_engine import Singing, offline, write_tone

BAR = 96_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, level in (("source", 0.2), ("a", 0.1), ("b", 0.3)):
        write_tone(folder / f"{name}.wav", level, 2.0)
    return folder


def turns(instrument: Offline, number: int) -> Floats:
    return np.concatenate([instrument.turn() for _ in range(number)])


def performed(here: Path) -> tuple[Floats, Path]:
    """A take whose files change while it is played. Recording begins in its middle."""
    instrument = offline(Singing(), here)
    session = instrument.session
    score = here / "x.demon"
    score.write_text("tempo 120\nloop 1\nsource \"source.wav\"\ntimbre = 'a.wav'\ndenoise = .6")
    session.load(score)
    pieces = [turns(instrument, 40)]
    session.apply("record friday")
    pieces.append(turns(instrument, 10))
    session.apply("timbre = 'b.wav'")
    pieces.append(turns(instrument, 40))
    write_tone(here / "b.wav", 0.5, 2.0)
    session.apply("timbre = 'b.wav'!")
    write_tone(here / "source.wav", 0.7, 2.0)
    pieces.append(turns(instrument, 40))
    session.apply("tempo 133")
    pieces.append(turns(instrument, 60))
    session.apply("stop")
    return np.concatenate(pieces), here / f"friday{SUFFIX}"


def lose(here: Path) -> None:
    """All that the set named is gone or something else."""
    for path in here.glob("*.wav"):
        path.unlink()
    write_tone(here / "a.wav", 0.9, 2.0)


def test_a_set_replays_bit_for_bit_without_the_files_that_it_named(here: Path) -> None:
    take, path = performed(here)
    lose(here)
    again = render(path, start=0, engine=Singing()).audio  # type: ignore[arg-type]
    assert np.array_equal(again[: len(take)], take)
    levels = {round(float(x), 2) for x in take[::480, 0]}
    assert len(levels) > 4
    # Five contents of three names; and a walk without sound finds them, too.
    assert len(list(folder_of(path).glob("*/*.wav"))) == 5
    assert all(moment.error is None for moment in dry_run(load(path)))


@pytest.mark.parametrize("back", ["undo", "recall calm"])
def test_what_a_step_back_reads_anew_is_kept_too(here: Path, back: str) -> None:
    instrument = offline(Singing(), here)
    session = instrument.session
    session.apply('tempo 120\nloop 1\nsource "source.wav"\nblend = 0')
    session.apply("snapshot calm\nrecord friday")
    pieces = [turns(instrument, 20)]
    session.apply("source none\ntimbre = 'a.wav'\nblend = 1")
    pieces.append(turns(instrument, 60))
    write_tone(here / "source.wav", 0.7, 2.0)
    session.apply(back)
    pieces.append(turns(instrument, 80))
    session.apply("stop")
    take = np.concatenate(pieces)
    assert take[-1, 0] == pytest.approx(0.7, abs=1e-3)
    lose(here)
    again = render(here / f"friday{SUFFIX}", engine=Singing()).audio  # type: ignore[arg-type]
    assert np.array_equal(again[: len(take)], take)


def test_a_set_and_its_files_play_from_another_folder(here: Path) -> None:
    take, path = performed(here)
    lose(here)
    there = here.parent / "there"
    there.mkdir()
    for one in (path, folder_of(path)):
        shutil.move(one, there / one.name)
    # It is a stranger's set there: its own folder is all that it may read.
    again = render(there / path.name, start=0, engine=Singing()).audio  # type: ignore[arg-type]
    assert np.array_equal(again[: len(take)], take)


def test_a_worker_elsewhere_gets_the_copies(here: Path) -> None:
    take, path = performed(here)
    lose(here)
    [job] = jobs([path], How(engine="imp"))
    shutil.rmtree(folder_of(path))
    path.unlink()
    made = render_job(job, Singing())  # type: ignore[arg-type]
    assert take.tobytes() in made.files["friday.wav"]


def test_what_is_said_at_the_prompt_while_a_set_plays_means_what_lies_there_now(here: Path) -> None:
    _, path = performed(here)
    lose(here)
    assets = Assets((here,), copies=folder_of(path))
    instrument = offline(Singing(), here, assets=assets)
    session = instrument.session
    for event in load(path).events[:3]:
        session.repeat(event, now=0)
    before = session.state.decks["main"].bound["timbre"].sounds
    session.apply("timbre = 'a.wav'")
    after = session.state.decks["main"].bound["timbre"].sounds
    assert before != after
    with pytest.raises(DemonError, match="there is no file"):
        session.apply('source "source.wav"')


def test_the_set_says_once_what_a_name_means(here: Path) -> None:
    instrument = offline(Singing(), here)
    session = instrument.session
    for _ in range(3):
        session.apply("timbre = 'a.wav'")
        session.apply("scene s { timbre = 'b.wav' }")
    write_tone(here / "a.wav", 0.8, 1.0)
    session.apply("timbre = 'a.wav'")
    said = [e for e in session.journal.recording().events if e.kind == "file"]
    assert [e.name for e in said] == ["a.wav", "b.wav", "a.wav"]
    assert said[2].text == f"{digest_of(here / 'a.wav')} a.wav"
    write_tone(here / "b.wav", 0.7, 1.0)
    with pytest.raises(DemonError):
        session.apply('timbre = "<b.wav no.wav>"')
    session.align(Fraction(16), 16 * BAR, Fraction(120))
    assert len([e for e in session.journal.recording().events if e.kind == "file"]) == 3


def test_a_file_that_changed_before_it_could_be_kept_is_told(here: Path) -> None:
    instrument = offline(Singing(), here)
    instrument.session.apply("timbre = 'a.wav'")
    write_tone(here / "a.wav", 0.8, 1.0)
    instrument.session.apply("record friday")
    told = instrument.session.events(0)[1]
    assert any("a.wav has changed since it was played" in line for line in told)
    assert not list(folder_of(here / f"friday{SUFFIX}").glob("*/*.wav"))


def test_the_timeline_shows_no_lines_of_files(here: Path) -> None:
    _, path = performed(here)
    recording = load(path)
    text = as_text(recording, list(dry_run(recording)))
    assert "timbre = 'b.wav'" in text
    assert digest_of(here / "a.wav") not in text


# ------------------------------------------------------------------ strangers


def gift(here: Path, name: str, line: str) -> Path:
    """A set that was made by hand, with files beside it."""
    path = here / f"gift{SUFFIX}"
    journal = Journal({"engine": "mock", "seed": 0})
    journal.write(SetEvent("file", 0, line, name, ""))
    journal.write(SetEvent("apply", 0, f"tempo 120\nloop 1\ntimbre = '{name}'", "<prompt>", "repl"))
    journal.open(path)
    journal.close(BAR)
    return path


def test_a_set_cannot_name_a_copy_outside_its_folder(here: Path) -> None:
    secret = here.parent / "secret.wav"
    write_tone(secret, 0.25, 1.0)
    digest = digest_of(secret)
    for line in (
        f"{digest} ../../../secret.wav",
        "../.. secret.wav",
        f"{digest[:-1]}/ secret.wav",
        digest,
        "",
    ):
        path = gift(here, "mine.wav", line)
        with pytest.raises(DemonError, match=r"there is no file|--trust"):
            render(path, engine=Singing())  # type: ignore[arg-type]
        path.unlink()


@pytest.mark.parametrize("name", ["a\0b.wav", "\ud800.wav", "x" * 300])
def test_a_copy_whose_name_no_file_can_have_is_none(here: Path, name: str) -> None:
    path = gift(here, "mine.wav", f"{digest_of(here / 'b.wav')} {name}")
    assert [f.verdict for f in examine(load(path)) if f.what == "files"] == ["warn"]
    with pytest.raises(DemonError, match="there is no file"):
        render(path, engine=Singing())  # type: ignore[arg-type]


def test_what_is_larger_than_any_source_is_not_hashed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(here / "b.wav")
    kept = SetFiles()
    kept.folder = here / "x.files"
    copy_into(kept.folder, File(digest, "b.wav"), here / "b.wav")
    kept.learn(SetEvent("file", 0, f"{digest} b.wav", "b.wav", ""))
    assert kept.find("b.wav", "") is not None
    monkeypatch.setattr(module, "LARGEST", (here / "b.wav").stat().st_size - 1)
    assert kept.find("b.wav", "") is None
    session = offline(Singing(), here).session
    session.apply("timbre = 'b.wav'")
    assert session.state.decks["main"].bound["timbre"].sounds
    assert any("the set cannot keep" in line for line in session.events(0)[1])


@pytest.mark.parametrize("link", ["file", "digest", "folder"])
def test_links_lead_nowhere_else(here: Path, link: str) -> None:
    outside = here.parent / "outside"
    digest = digest_of(here / "b.wav")
    (outside / digest).mkdir(parents=True)
    shutil.copy(here / "b.wav", outside / digest / "mine.wav")
    path = gift(here, "mine.wav", f"{digest} mine.wav")
    files = folder_of(path)
    if link == "folder":
        files.symlink_to(outside)
    elif link == "digest":
        files.mkdir()
        (files / digest).symlink_to(outside / digest)
    else:
        (files / digest).mkdir(parents=True)
        (files / digest / "mine.wav").symlink_to(outside / digest / "mine.wav")
    with pytest.raises(DemonError, match="there is no file"):
        render(path, engine=Singing())  # type: ignore[arg-type]


def test_a_copy_that_was_changed_is_not_used(here: Path) -> None:
    digest = digest_of(here / "b.wav")
    kept, file = SetFiles(), File(digest, "b.wav")
    kept.folder = here / "x.files"
    copy_into(kept.folder, file, here / "b.wav")
    kept.learn(SetEvent("file", 0, f"{digest} b.wav", "b.wav", "songs"))
    assert kept.find("b.wav", "songs") == kept.folder / digest / "b.wav"
    assert kept.find("b.wav", "") is None
    write_tone(kept.folder / digest / "b.wav", 0.9, 1.0)
    assert kept.find("b.wav", "songs") is None
