"""Timbre and lyrics: what generations are asked for, from the sample that the score names on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from demon_live.cli import main
from demon_live.core import EngineState, MixState, Sound, Timbre
from demon_live.errors import DemonError
from demon_live.lang import compile_source
from demon_live.replay.farm import How, jobs, render_job
from demon_live.replay.render import render
from demon_live.runtime.offline import Offline
from demon_live.runtime.pcm_files import PcmFiles, PcmFolder
from demon_live.runtime.placement import HALF
from demon_live.runtime.preparation import Timbres
from demon_live.runtime.seek import restore
from demon_live.session import assets
from demon_live.session.assets import LONGEST, Assets, key_of, name_of, read_sound, renamed
from demon_live.session.edit import MOST_FILES
from demon_live.session.output import NullOutput
from demon_live.session.scores import as_score
from demon_live.session.session import Session
from demon_live.sets.journal import SUFFIX, Journal, SetEvent
from demon_live.sets.session_log import find_interrupted
from tests.helpers.dead_session import died
from tests.helpers.mock_engine import (
    MockEngine,
    Singing,
    by_prompt,
    edges,
    offline,
    run,
    write_tone,
)

BAR = 96_000
HEAD = "tempo 120\nloop 2\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name, level in (("a", 0.1), ("b", 0.3), ("c", 0.6)):
        write_tone(here / f"{name}.wav", level, 1.0)
    return here


def playing(folder: Path, more: str = "timbre = 'a.wav'") -> tuple[Offline, Singing]:
    engine = Singing()
    instrument = offline(engine, folder)
    instrument.session.apply(HEAD + more)
    return instrument, engine


def level(instrument: Offline, bars: float = 1.0) -> float:
    return round(float(np.median(run(instrument, round(bars * BAR))[-4800:])), 3)


def test_a_timbre_is_heard_from_the_bar_that_the_score_names(folder: Path) -> None:
    instrument, _ = playing(folder)
    run(instrument, 2 * BAR + 30_000)
    begin = instrument.output.mixer.position
    outcome = instrument.session.apply("timbre = 'b.wav'")
    assert outcome.messages == ("timbre = 'b.wav' · from bar 3 · class slot",)
    assert outcome.warnings == ()
    (heard,) = edges(run(instrument, 2 * BAR), 0.1, 0.3)
    assert abs(begin + heard - 3 * BAR) <= HALF


def test_until_then_every_sample_is_as_without_it(folder: Path) -> None:
    takes = []
    for text in ("prompt = 'x'", "prompt = 'x'\ntimbre = 'b.wav' at 4"):
        instrument, _ = playing(folder)
        first = run(instrument, BAR)
        instrument.session.apply(text)
        takes.append(np.concatenate([first, run(instrument, 4 * BAR)]))
    assert np.array_equal(takes[0][: 4 * BAR - HALF], takes[1][: 4 * BAR - HALF])
    assert not np.array_equal(takes[0], takes[1])


def test_a_pattern_of_files_changes_on_every_bar(folder: Path) -> None:
    instrument, engine = playing(folder, 'timbre = "<a.wav b.wav none c.wav>"')
    audio = run(instrument, 8 * BAR)
    heard = [
        round(float(np.median(audio[n * BAR + 9600 : (n + 1) * BAR - 9600])), 3) for n in range(8)
    ]
    assert heard == [0.1, 0.3, 0.0, 0.6] * 2
    assert len(engine.told) == 3
    assert instrument.output.generator.status().on_time_ms == 0.0


def test_words_are_sung_in_lines_and_given_back(folder: Path) -> None:
    instrument, engine = playing(folder, "lyrics = '[verse] / we sing'")
    assert level(instrument, 2) == 0.05
    assert engine.requests[-1].condition == ("", "[verse]\nwe sing", "")
    instrument.session.apply("lyrics = default")
    assert level(instrument, 2) == 0.0
    assert engine.requests[-1].condition == ("", "", "")


def test_the_source_and_the_loop_stay_as_they_are(folder: Path) -> None:
    instrument, _ = playing(folder, "source \"c.wav\"\ntimbre = 'a.wav'")
    run(instrument, BAR)
    before = instrument.session.state.decks["main"].loop
    instrument.session.apply("timbre = 'b.wav' now")
    run(instrument, BAR)
    assert instrument.session.state.decks["main"].loop is before


def _make(folder: Path, kind: str) -> None:
    if kind == "rubbish":
        (folder / "x.wav").write_bytes(b"RIFF" + bytes(range(256)))
    elif kind == "empty":
        (folder / "x.wav").touch()
    elif kind == "folder":
        (folder / "x.wav").mkdir()
    elif kind == "long":
        soundfile.write(folder / "x.wav", np.ones((8000 * (LONGEST + 1), 1)) / 2, 8000)
    elif kind == "silent":
        write_tone(folder / "x.wav", 0.0, 1.0)
    elif kind == "infinite":
        write_tone(folder / "x.wav", float("inf"), 1.0)
    elif kind == "many":
        soundfile.write(folder / "x.wav", np.ones((4800, 3)) / 2, 48_000)


@pytest.mark.parametrize(
    ("kind", "what", "remedy"),
    [
        ("missing", "there is no file", "did you mean"),
        ("rubbish", "not a sound file", "WAV, FLAC"),
        ("empty", "is empty", "choose another"),
        ("folder", "is a folder", "name a sound file"),
        ("long", f"has at most {LONGEST}", "sox x.wav part.wav trim 0 30"),
        ("silent", "is silent", "choose another"),
        ("infinite", "not numbers", "export it again"),
        ("many", "has 3 channels", "stereo"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_the_old_one_plays_on(
    folder: Path, kind: str, what: str, remedy: str
) -> None:
    _make(folder, kind)
    instrument, engine = playing(folder)
    run(instrument, BAR)
    before, told = instrument.session.state, list(engine.told)
    with pytest.raises(DemonError) as caught:
        instrument.session.apply("prompt = 'x'\ntimbre = \"<a.wav x.wav>\"")
    error = caught.value
    assert error.span is not None
    assert (error.span.line, error.span.col) == (2, 18)
    assert what in error.message
    assert remedy in str(error.hint)
    assert "still playing" in str(error)
    assert instrument.session.state is before
    assert engine.told == told
    assert level(instrument, 2) == 0.1


def test_a_scene_with_a_missing_file_is_refused_before_anybody_goes_there(folder: Path) -> None:
    instrument, _ = playing(folder)
    with pytest.raises(DemonError, match=r"there is no file .*no\.wav"):
        instrument.session.apply("scene drop { timbre = 'no.wav' }")
    assert "drop" not in instrument.session.state.scenes


@pytest.mark.parametrize(
    ("text", "span", "hint"),
    [
        ('timbre = "loops/a.wav"', (1, 11), "'loops/a.wav'"),
        ("timbre = \"<a.wav loops/b.wav 'x/y.wav'>/4\"", (1, 18), "'loops/b.wav'"),
        ("timbre = a.wav", (1, 10), "'a.wav'"),
        ("timbre = loops/a.wav at 8", (1, 10), "'loops/a.wav'"),
        ("timbre 'a.wav'", (1, 1), "timbre = 'a.wav'"),
        ("timbre = none", (1, 10), "'none'"),
        ("timbre = 3", (1, 10), "timbre = 'dub.wav'"),
        ("timbre = cat(" + ", ".join(f"'{n}.wav'" for n in range(17)) + ")", (1, 10), "fewer"),
    ],
)
def test_a_name_that_is_written_wrongly_is_told_with_the_right_way(
    text: str, span: tuple[int, int], hint: str
) -> None:
    with pytest.raises(DemonError) as caught:
        compile_source(text)
    assert caught.value.span is not None
    assert (caught.value.span.line, caught.value.span.col) == span
    assert hint in str(caught.value.hint)


def test_every_file_that_a_pattern_may_ask_for_is_known_when_it_is_evaluated() -> None:
    text = (
        "let far = 'd.wav'\n"
        "timbre = (cc(21) * 2).round.pick('a.wav', 'b.wav')\n"
        "deck two { timbre = \"<c.wav plain>/4 | 'x y.WAV'\".every(2, rev) }\n"
        "deck three { timbre = cat(far, 'none', \"~ e.wav\") }"
    )
    files = {
        s.deck: [n for n, _ in s.files]
        for s in compile_source(text).statements
        if hasattr(s, "files")
    }  # type: ignore[union-attr]
    assert files["main"] == ["a.wav", "b.wav"]
    assert sorted(files["two"]) == ["c.wav", "plain", "x y.WAV"]
    assert sorted(files["three"]) == ["d.wav", "e.wav"]


def test_a_deck_that_duck_names_and_nothing_begins_is_warned_of(folder: Path) -> None:
    instrument = offline(MockEngine(by_prompt), folder)
    text = HEAD + "duck = \"<'drums:.5' beat 'ghost' ~>/2\"\ndeck drumz { gain = 1 }"
    assert instrument.session.apply(text).warnings == (
        "there is no deck 'drums' to duck for · did you mean drumz?",
        "there is no deck 'ghost' to duck for · deck ghost { ... } begins it",
    )
    assert instrument.session.apply("duck = 'drumz:.5'").warnings == ()
    assert instrument.session.apply("deck drums { gain = 1 }\nduck = 'drums'").warnings == ()


def test_an_engine_that_does_not_know_a_word_says_so_once_and_plays_on(folder: Path) -> None:
    engine = MockEngine(by_prompt)
    instrument = offline(engine, folder)
    said = instrument.session.apply(HEAD + "prompt = 'b'\ntimbre = 'a.wav'\nlyrics = 'la'").warnings
    assert said == (
        "mock does not know lyrics: it plays on without",
        "mock does not know timbre: it plays on without",
    )
    assert instrument.session.apply("timbre = 'b.wav'\nlyrics = 'lo'").warnings == ()
    assert level(instrument, 2) == 0.2
    assert instrument.output.notes == []


class Later(Executor):
    """Does what it was given when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def submit(self, call: Any, /, *args: Any, **more: Any) -> Any:
        self.jobs.append(lambda: call(*args, **more))

    def run(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


def encoding_later(instrument: Offline, engine: Singing, folder: Path) -> Later:
    """Timbres are encoded from now on when what is returned is run."""
    later, player = Later(), instrument.output.generator
    known = player.timbres.ready
    audio = {f"timbre-{s.key}": s.audio for s in map(read_sound, sorted(folder.glob("*.wav")))}
    player.timbres = Timbres(engine, audio.__getitem__, later)
    player.timbres.ready |= known
    return later


def test_the_old_timbre_plays_on_until_the_new_one_is_encoded(folder: Path) -> None:
    instrument, engine = playing(folder)
    run(instrument, BAR)
    later = encoding_later(instrument, engine, folder)
    instrument.session.apply("timbre = 'b.wav' now")
    assert level(instrument, 3) == 0.1
    assert len(later.jobs) == 1
    later.run()
    assert level(instrument, 1) == 0.3
    assert instrument.output.notes == []


def test_what_was_scheduled_before_it_was_encoded_is_on_time_all_the_same(folder: Path) -> None:
    instrument, engine = playing(folder)
    run(instrument, BAR)
    later = encoding_later(instrument, engine, folder)
    instrument.session.apply("timbre = 'b.wav' at 4")
    # The generation for bar 4 is the one that is known, without it; then it comes, and it is made.
    run(instrument, 2 * BAR)
    assert {r.condition for r in engine.requests} == {("", "", read_sound(folder / "a.wav").key)}
    later.run()
    begin = instrument.output.mixer.position
    (heard,) = edges(run(instrument, 2 * BAR), 0.1, 0.3)
    assert abs(begin + heard - 4 * BAR) <= HALF
    assert instrument.output.notes == []


def test_a_stage_waits_for_one_timbre_at_most(folder: Path) -> None:
    engine, later = Singing(), Later()
    tones = {name: np.full((48, 2), 0.1, np.float32) for name in "abcde"}
    timbres = Timbres(engine, tones.__getitem__, later)
    for name in "abc":
        timbres.take(name, name)
    later.submit(engine.told.append, "stage")
    timbres.drop("b")
    while later.jobs:
        later.run()
        timbres.collect()
    assert engine.told == ["a", "stage", "c"]
    assert timbres.ready == {"a", "c"}
    # Where nothing plays yet, all come before the first stage.
    for name in "de":
        timbres.take(name, name, first=True)
    later.submit(engine.told.append, "stage")
    later.run()
    assert engine.told[3:] == ["d", "e", "stage"]


def test_a_timbre_that_nobody_asks_for_any_more_is_no_trouble(folder: Path) -> None:
    later = Later()
    timbres = Timbres(Singing(), {}.__getitem__, later)
    for name in "ab":
        timbres.take(name, name)
    timbres.drop("a")
    later.run()
    assert timbres.collect() == (False, [])
    later.run()
    _, (told,) = timbres.collect()
    assert "cannot be used" in told


def test_each_timbre_that_the_model_cannot_encode_is_told_once_by_its_name(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Singing):
        def set_timbre(self, name: str, audio: Any) -> None:
            if float(np.mean(audio)) > 0.2:
                raise RuntimeError("out of memory")
            super().set_timbre(name, audio)

    instrument = offline(Broken(), folder)
    instrument.session.apply(HEAD + "timbre = 'a.wav'")
    run(instrument, BAR)
    instrument.session.apply("timbre = 'b.wav' now")
    assert level(instrument, 2) == 0.1
    instrument.session.apply("timbre = 'c.wav' now\nscene s { timbre = 'b.wav' }")
    assert level(instrument, 2) == 0.1
    assert instrument.output.notes == [
        f"the timbre {name}.wav cannot be used: out of memory; the one before plays on"
        for name in ("b", "c")
    ]
    # The log has the reason, and no trace of an error that is none of its own.
    assert not any(record.exc_info for record in caplog.records)


def test_what_the_model_says_of_a_timbre_is_told(folder: Path) -> None:
    class Deaf(Singing):
        def set_timbre(self, name: str, audio: Any) -> None:
            super().set_timbre(name, audio)
            if "these weights know no timbre" not in self.notes:
                self.notes.append("these weights know no timbre")

    instrument = offline(Deaf(), folder)
    instrument.session.apply(HEAD + 'timbre = "<a.wav b.wav>"')
    run(instrument, BAR)
    assert instrument.output.notes == ["these weights know no timbre"]


def test_each_sound_is_told_once_and_its_content_decides(folder: Path) -> None:
    instrument, engine = playing(folder)
    (folder / "copy.wav").write_bytes((folder / "a.wav").read_bytes())
    instrument.session.apply("timbre = 'copy.wav'")
    instrument.session.apply("deck two { timbre = 'a.wav'; gain = 0 }")
    assert len(engine.told) == 1
    run(instrument, 4 * BAR)
    write_tone(folder / "a.wav", 0.5, 1.0)
    # The file is another; what plays is what was evaluated.
    assert level(instrument, 2) == 0.1
    instrument.session.apply("timbre = 'a.wav'")
    assert level(instrument, 3) == 0.5
    instrument.session.apply("undo")
    assert level(instrument, 3) == 0.1
    assert len(engine.told) == 2


def test_scenes_chains_and_recall_carry_it(folder: Path) -> None:
    instrument, engine = playing(folder)
    instrument.session.apply("scene one { timbre = 'b.wav' }\nscene two { timbre = 'c.wav' }")
    # The engine knows them before anybody goes there.
    assert len(engine.told) == 3
    (folder / "b.wav").unlink()
    (folder / "c.wav").unlink()
    instrument.session.apply("snapshot calm")
    instrument.session.apply("go one")
    assert level(instrument, 3) == 0.3
    instrument.session.apply("chain 'one' 1, 'two' 1")
    audio = run(instrument, 6 * BAR)
    heard = {
        round(float(np.median(audio[n * BAR + 9600 : (n + 1) * BAR - 9600])), 3)
        for n in range(2, 6)
    }
    assert heard == {0.3, 0.6}
    instrument.session.apply("recall calm")
    assert level(instrument, 3) == 0.1


def test_what_a_display_shows_is_the_name(folder: Path) -> None:
    instrument, _ = playing(folder, 'timbre = "<a.wav b.wav>/4"')
    run(instrument, BAR)
    (deck,) = instrument.session.status().decks
    (lane,) = [x for x in deck.lanes if x.control == "timbre"]
    assert lane.text == '"<a.wav b.wav>/4"'
    assert lane.value == "a.wav"
    assert lane.next.startswith("'b.wav' in ")
    value = str(instrument.session.state.decks["main"].lanes["timbre"].at(0))  # type: ignore[arg-type]
    assert (name_of(value), key_of(value)) == ("a.wav", read_sound(folder / "a.wav").key)


def test_what_plays_as_a_score_finds_its_files_from_elsewhere(folder: Path) -> None:
    songs = folder / "songs"
    (songs / "loops").mkdir(parents=True)
    (folder / "b.wav").rename(songs / "loops" / "b.wav")
    (songs / "x.demon").write_text(
        "let kit(n) = \"<a.wav 'loops/b.wav'>\".fast(n)\n"
        + HEAD
        + 'source "c.wav"\n'
        + "timbre = \"<a.wav 'loops/b.wav' c.wav>\"\nscene s { timbre = 'loops/b.wav' }\n"
        + 'deck two\nloop 2\nsource "a.wav"\ntimbre = kit(2)'
    )
    (folder / "a.wav").rename(songs / "a.wav")
    instrument = offline(Singing(), folder)
    instrument.session.load(songs / "x.demon")
    text = as_score(instrument.session.state, folder)
    # What was found in the working folder is found there again.
    assert "timbre = \"<'songs/a.wav' 'songs/loops/b.wav' c.wav>\"" in text
    assert "timbre = 'songs/loops/b.wav'" in text
    instrument.session.apply("save mine")
    again = offline(Singing(), folder).session
    again.load(folder / "mine.demon")
    for name, deck in instrument.session.state.decks.items():
        assert again.state.decks[name].bound["timbre"].sounds == deck.bound["timbre"].sounds


@pytest.mark.parametrize(
    ("text", "names", "new"),
    [
        ("'a.wav'", {"a.wav": "x/a.wav"}, "'x/a.wav'"),
        ('"<a.wav aa.wav>/2"', {"a.wav": "x/a.wav"}, "\"<'x/a.wav' aa.wav>/2\""),
        ("cat('a.wav', 'b a.wav')", {"a.wav": "it's"}, "cat('it\\'s', 'b a.wav')"),
        ("'a.wav'", {}, "'a.wav'"),
    ],
)
def test_names_are_replaced_whole(text: str, names: dict[str, str], new: str) -> None:
    assert renamed(text, names) == new


def test_a_set_with_a_timbre_replays_bit_for_bit(folder: Path) -> None:
    instrument, _ = playing(folder, "timbre = 'a.wav'\nrecord friday")
    pieces = []
    for turn, text in ((0, 'timbre = "<b.wav a.wav>"'), (20, "lyrics = 'la'"), (60, "stop")):
        while len(pieces) < turn:
            pieces.append(instrument.turn())
        instrument.session.apply(text)
    take = np.concatenate(pieces)
    again = render(folder / f"friday{SUFFIX}", engine=Singing()).audio  # type: ignore[arg-type]
    assert len(np.unique(take[:, 0])) > 3
    assert np.array_equal(again[: len(take)], take)


def test_a_session_that_died_goes_on_with_its_timbre(folder: Path) -> None:
    session = Session(NullOutput(), assets=Assets((folder,)))
    causes = [
        SetEvent("apply", 0, HEAD + "timbre = 'a.wav'", "x.demon", "file"),
        SetEvent("apply", BAR, "timbre = \"<b.wav c.wav>\"\nlyrics = 'la'", "<prompt>", "repl"),
    ]
    died(folder, *causes)
    restore(session, find_interrupted(folder=folder))
    deck = session.state.decks["main"]
    assert {k: v.text for k, v in deck.bound.items()} == {
        "timbre": '"<b.wav c.wav>"',
        "lyrics": "'la'",
    }
    keys = {read_sound(folder / name).key for name in ("b.wav", "c.wav")}
    assert keys == {s.key for s in deck.bound["timbre"].sounds}


def test_live_each_sound_lies_in_a_file_while_it_is_named(folder: Path) -> None:
    files = PcmFolder(folder)
    one, two = (read_sound(folder / name) for name in ("a.wav", "b.wav"))

    def publish(*sounds: Sound) -> None:
        timbres = tuple(Timbre(s.key, s.name) for s in sounds)
        files.add({t.file: s.audio for t, s in zip(timbres, sounds, strict=True)})
        files.keep(EngineState(timbres=timbres), MixState())

    # Before anything plays nothing is written; then what is needed is.
    publish(one)
    assert not (folder / f"timbre-{one.key}").exists()
    files.start()
    publish(one, two)
    assert np.array_equal(PcmFiles(folder).read(f"timbre-{two.key}"), two.audio)
    # A few that nothing names stay; after that the oldest goes.
    more = [Sound(f"s{n}", np.full((48, 2), n / 10, np.float32)) for n in range(PcmFolder.SPARE)]
    for sound in more:
        publish(two, sound)
    assert (folder / f"timbre-{one.key}").exists()
    publish(two)
    assert not (folder / f"timbre-{one.key}").exists()
    assert (folder / f"timbre-{two.key}").exists()


def test_a_render_elsewhere_brings_its_timbres(folder: Path) -> None:
    score = folder / "x.demon"
    score.write_text(HEAD + "timbre = \"<a.wav b.wav>\"\nscene s { timbre = 'c.wav' }\ngo s at 2")
    here = render(score, cycles=4, engine=Singing()).audio  # type: ignore[arg-type]
    [job] = jobs([score], How(cycles=4))
    assert sorted(name for name, _ in job.sources) == ["a.wav", "b.wav", "c.wav"]
    for path in (score, *folder.glob("*.wav")):
        path.unlink()
    made = render_job(job, Singing())  # type: ignore[arg-type]
    (folder / "there.wav").write_bytes(made.files["x.wav"])
    there, _ = soundfile.read(folder / "there.wav", dtype="float32")
    assert np.array_equal(there, here)


def test_demon_check_tells_of_files_that_are_not_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x.demon").write_text("timbre = \"<a.wav no.wav>\"\nscene s { timbre = 'nor.wav' }")
    assert main(["check", "x.demon"]) == 0
    said = capsys.readouterr().err
    assert "x.demon:1:18: there is no file no.wav" in said
    assert "x.demon:2:20: there is no file nor.wav" in said
    assert "a.wav" not in said.replace('"<a.wav no.wav>"', "")


@pytest.mark.parametrize("name", ["/outside", "../secret.wav", "link.wav"])
def test_a_strangers_set_reads_no_timbre_outside_its_folders(folder: Path, name: str) -> None:
    secret = folder.parent / "secret.wav"
    write_tone(secret, 0.25, 1.0)
    (folder / "link.wav").symlink_to(secret)
    name = str(secret) if name == "/outside" else name
    path = folder / f"gift{SUFFIX}"
    journal = Journal({"engine": "mock", "seed": 0})
    journal.write(SetEvent("apply", 0, f"{HEAD}timbre = '{name}'", "<prompt>", "repl"))
    journal.open(path)
    journal.close(BAR)
    with pytest.raises(DemonError, match="--trust"):
        render(path, engine=Singing())  # type: ignore[arg-type]


def test_no_knob_turns_files(folder: Path) -> None:
    with pytest.raises(DemonError, match="timbre takes sound files, and a knob gives numbers"):
        playing(folder)[0].session.apply("learn timbre")


@pytest.mark.parametrize("text", ["timbre = '{}'", 'source "{}"'])
def test_what_comes_over_osc_reads_no_file_outside_the_working_folder(
    folder: Path, text: str
) -> None:
    secret = folder.parent / "secret.wav"
    write_tone(secret, 0.2, 1.0)
    session = offline(Singing(), folder).session
    with pytest.raises(DemonError, match="outside the folder"):
        session.apply(text.format(secret), "<osc>", "osc")
    session.apply(text.format(secret))
    session.apply("timbre = 'a.wav'", "<osc>", "osc")
    assert session.state.decks["main"].bound["timbre"].sounds == {read_sound(folder / "a.wav")}


def test_a_source_that_many_scores_share_is_read_and_fitted_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    fitted: list[float] = []
    monkeypatch.setattr(assets, "load_source", _counted(read, assets.load_source))
    monkeypatch.setattr(assets, "fit_loop", _counted(fitted, assets.fit_loop))
    instrument = offline(MockEngine(by_prompt), folder)
    for n in range(12):
        instrument.session.apply(f'deck d{n} {{ source "a.wav"\nloop 1 }}')
    assert (len(read), len(fitted)) == (1, 1)
    tone = np.full((24_000, 2), 0.5, np.float32)
    soundfile.write(folder / "a.wav", tone, 48_000, "FLOAT")
    instrument.session.apply('deck d1 { source "a.wav" }')
    assert (len(read), len(fitted)) == (2, 2)
    assert instrument.session.assets.decoded.read(folder / "a.wav").audio.shape == tone.shape


def _counted(calls: list[Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[0])
        return function(*args, **kwargs)

    return run


def test_the_files_of_one_text_are_bounded(folder: Path) -> None:
    for i in range(MOST_FILES + 1):
        shutil.copy(folder / "a.wav", folder / f"n{i}.wav")
    rows = [f"scene s{i} {{ timbre = 'n{i}.wav' }}" for i in range(MOST_FILES + 1)]
    session = offline(Singing(), folder).session
    session.apply("\n".join(rows[:-1]))
    with pytest.raises(DemonError, match="more than 64 sound files") as found:
        session.apply("\n".join(rows))
    assert found.value.span is not None
    assert found.value.span.line == MOST_FILES + 1


def test_a_score_reads_no_timbre_outside_its_folder(folder: Path) -> None:
    write_tone(folder.parent / "secret.wav", 0.25, 1.0)
    score = folder / "x.demon"
    score.write_text(HEAD + "timbre = '../secret.wav'")
    instrument = offline(Singing(), folder)
    with pytest.raises(DemonError, match="outside the folder of the score"):
        instrument.session.load(score)
