"""What is played in becomes a source, a timbre, a signal: which loop, where, and in which order."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live.audio.files import load_source, write_audio
from demon_live.audio.sound_input import FileInput
from demon_live.core import RATES, Floats, Request
from demon_live.errors import DemonError, FileError, ScoreError
from demon_live.lang import compile_source
from demon_live.replay.render import render
from demon_live.runtime.offline import Offline
from demon_live.session.output import NullOutput
from demon_live.session.scores import as_score
from demon_live.session.session import Session
from demon_live.sets.journal import Recording, load
from tests.helpers.mock_engine import MockEngine, Singing, offline, run

BAR, BEAT = 96_000, 24_000  # at tempo 120
HEAD = "tempo 120\nloop 4\ndenoise = 0\n"


def clicks(*places: int, seconds: float = 60, level: float = 0.5) -> Floats:
    audio = np.zeros((round(seconds * RATES.sample_rate), 2), np.float32)
    audio[list(places)] = level
    return audio


def written(folder: Path, audio: Floats) -> Path:
    path = folder / "hands.wav"
    write_audio(path, audio)
    return path


class Lossy(FileInput):
    """A device that was gone for some samples."""

    def __init__(self, path: Path, *gone: tuple[int, int]) -> None:
        super().__init__(path)
        self.gone = gone
        for first, last in gone:
            self._audio[first:last] = 0

    def holes(self, first: int, last: int) -> list[tuple[int, int]]:
        parts = [(max(a, first), min(b, last)) for a, b in self.gone]
        return [(a, b) for a, b in parts if a < b]


def level_of_source(request: Request) -> float:
    return 0.0 if request.source is None else float(np.abs(request.source).max())


def playing(
    folder: Path, audio: Floats, text: str = HEAD, engine: MockEngine | None = None
) -> Offline:
    instrument = offline(
        engine or MockEngine(level_of_source), folder, input=written(folder, audio)
    )
    instrument.session.apply(text)
    return instrument


def source(instrument: Offline, deck: str = "main") -> Floats:
    """The left channel of the source of the newest loop of a deck."""
    loop = instrument.session.state.decks[deck].loop
    assert loop is not None
    assert loop.source_file is not None
    return instrument.output.pcm(loop.source_file)[:, 0]


def hits(instrument: Offline, deck: str = "main") -> list[int]:
    return [int(i) for i in np.flatnonzero(np.abs(source(instrument, deck)) > 0.01)]


def said(instrument: Offline) -> list[str]:
    return list(instrument.session.events(0)[1])


def files(instrument: Offline) -> list[str]:
    rows = instrument.session.journal.recording().events
    return [event.name for event in rows if event.kind == "take"]


def test_a_click_at_bar_9_beat_2_is_at_beat_2_of_the_next_loops_source(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(9 * BAR + BEAT))
    run(instrument, 7 * BAR)
    instrument.session.apply("source in")
    run(instrument, 8 * BAR)
    # The loop of bars 8 to 12; its bar 1, beat 2.
    assert hits(instrument) == [BAR + BEAT]
    assert source(instrument)[BAR + BEAT] == np.float32(0.5)
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert loop.from_sample == 13 * BAR
    assert said(instrument)[-2:] == [
        "main: bars 8 to 12 of the input",
        "main: loop of 4 cycles, 4 bars at 120 bpm · from bar 13",
    ]


def test_what_was_played_is_heard_as_it_is_until_it_is_transformed(tmp_path: Path) -> None:
    audio = clicks(level=0.25)
    audio[: 8 * BAR] = 0.25
    instrument = playing(tmp_path, audio, HEAD + "source in")
    instrument.output.engine.fail = True  # type: ignore[attr-defined]
    heard = run(instrument, 8 * BAR)
    assert not heard[: 5 * BAR - 480].any()
    settled = heard[5 * BAR + 4800 : 7 * BAR]
    assert np.allclose(settled, 0.25, atol=1e-3)


def test_every_4_takes_each_loop_and_hold_keeps_the_last(tmp_path: Path) -> None:
    places = [BEAT, 5 * BAR, 10 * BAR, 15 * BAR]
    instrument = playing(tmp_path, clicks(*places), HEAD + "source in every 4")
    run(instrument, 4 * BAR + BEAT)
    assert hits(instrument) == [BEAT]
    run(instrument, 4 * BAR)
    assert hits(instrument) == [BAR]
    instrument.session.apply("hold")
    run(instrument, 8 * BAR)
    assert hits(instrument) == [BAR]
    assert len(files(instrument)) == 2
    instrument.session.apply("hold off")
    assert instrument.session.state.decks["main"].listens


def test_every_bar_the_last_loop_lies_where_it_was_played(tmp_path: Path) -> None:
    instrument = playing(
        tmp_path, clicks(BAR + BEAT, 4 * BAR + 2 * BEAT), HEAD + "source in every 1"
    )
    run(instrument, 4 * BAR + BEAT)
    assert hits(instrument) == [BAR + BEAT]
    run(instrument, BAR)
    # Bars 1 to 5: bar 4 has the place of bar 0.
    assert hits(instrument) == [2 * BEAT, BAR + BEAT]
    run(instrument, BAR)
    assert hits(instrument) == [2 * BEAT]


def test_a_loop_in_which_nothing_was_played_is_left_out(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(6 * BAR), HEAD + "source in")
    run(instrument, 5 * BAR)
    assert said(instrument) == ["main: bars 0 to 4 are left out: nothing was played"]
    assert instrument.session.state.decks["main"].take is None
    run(instrument, 4 * BAR)
    assert hits(instrument) == [2 * BAR]
    run(instrument, 8 * BAR)
    assert len(files(instrument)) == 1


def test_overdub_adds_to_what_is_there_and_undo_takes_the_layers_away(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT, 9 * BAR, 14 * BAR), HEAD + "source in")
    run(instrument, 6 * BAR)
    assert hits(instrument) == [BEAT]
    instrument.session.apply("overdub on")
    run(instrument, 7 * BAR)
    assert hits(instrument) == [BEAT, BAR]
    run(instrument, 4 * BAR)
    assert hits(instrument) == [BEAT, BAR, 2 * BAR]
    instrument.session.apply("overdub off")
    run(instrument, 8 * BAR)
    assert len(files(instrument)) == 3
    instrument.session.apply("undo")
    instrument.session.apply("undo")
    run(instrument, 3 * BAR)
    assert hits(instrument) == [BEAT]
    assert len(files(instrument)) == 3
    instrument.session.apply("redo")
    run(instrument, 3 * BAR)
    assert hits(instrument) == [BEAT, BAR, 2 * BAR]


def test_overdub_adds_to_a_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "one_120.wav", clicks(3 * BAR, seconds=8))
    instrument = playing(tmp_path, clicks(BEAT), HEAD + 'source "one_120.wav"')
    instrument.session.apply("overdub on now")
    run(instrument, 9 * BAR)
    assert hits(instrument) == [3 * BAR]
    assert files(instrument) == []
    again = playing(tmp_path, clicks(BEAT), HEAD + 'source "one_120.wav"\noverdub on')
    run(again, 6 * BAR)
    assert hits(again) == [BEAT, 3 * BAR]


def test_a_change_of_another_kind_is_undone_without_the_takes(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT, 5 * BAR), HEAD + "source in every 4")
    run(instrument, 5 * BAR)
    instrument.session.apply("gain = .5")
    run(instrument, 4 * BAR)
    assert hits(instrument) == [BAR]
    before = instrument.session.state.decks["main"].loop
    instrument.session.apply("undo")
    assert instrument.session.state.decks["main"].loop == before


def test_undo_gives_back_the_source_of_before(tmp_path: Path) -> None:
    write_audio(tmp_path / "one_120.wav", clicks(3 * BAR, seconds=8))
    instrument = playing(tmp_path, clicks(*range(0, 20 * BAR, BAR)), HEAD + 'source "one_120.wav"')
    instrument.session.apply("source in")
    run(instrument, BAR)
    assert hits(instrument) == [3 * BAR]
    run(instrument, 9 * BAR)
    assert hits(instrument) == [0, BAR, 2 * BAR, 3 * BAR]
    instrument.session.apply("undo")
    run(instrument, 8 * BAR)
    assert hits(instrument) == [3 * BAR]
    instrument.session.apply("redo")
    assert hits(instrument) == [0, BAR, 2 * BAR, 3 * BAR]
    assert len(files(instrument)) == 1


def test_two_decks_take_their_own_loops(tmp_path: Path) -> None:
    text = "tempo 120\ndeck a { loop 2; source in }\ndeck b { loop 4; source in every 4 }"
    instrument = playing(tmp_path, clicks(BAR, 3 * BAR), text)
    run(instrument, 5 * BAR)
    assert hits(instrument, "a") == [BAR]
    assert hits(instrument, "b") == [BAR, 3 * BAR]
    assert not instrument.session.state.decks["a"].listens
    assert instrument.session.state.decks["b"].listens


def test_a_loop_with_another_tempo_in_it_is_left_out(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(*range(0, 40 * BAR, BEAT)), HEAD + "source in")
    instrument.session.apply("tempo 60 at 2")
    run(instrument, 8 * BAR)
    assert said(instrument)[0] == "main: bars 0 to 4 are left out: the tempo changed in them"
    run(instrument, 8 * BAR)
    assert said(instrument)[-2] == "main: bars 4 to 8 of the input"


def test_a_take_goes_along_with_a_new_tempo(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (30 * BAR, 2)).astype(np.float32)
    instrument = playing(tmp_path, noise, HEAD + "source in")
    run(instrument, 5 * BAR)
    instrument.session.apply("tempo 100")
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert (loop.bpm, loop.source) == (100, files(instrument)[0])
    assert len(source(instrument)) == loop.samples == round(4 * BAR * 1.2)


def test_a_loop_of_an_odd_length_and_meter_keeps_its_samples(tmp_path: Path) -> None:
    text = "tempo 137.3\nbeats 7/8\nloop 2\nsource in every 2"
    noise = np.random.default_rng(2).normal(0, 0.1, (30 * BAR, 2)).astype(np.float32)
    instrument = playing(tmp_path, noise, text)
    run(instrument, 10 * BAR)
    state = instrument.session.state
    deck = state.decks["main"]
    assert deck.take is not None
    assert deck.take.beats == 7
    path = instrument.session.assets.take(deck.take.name)
    assert path is not None
    audio, _ = load_source(path)
    starts = [state.tempo.sample_at(Fraction(bar)) for bar in range(0, 24, 2)]
    found = [
        a
        for a in starts
        if np.array_equal(audio[:100], load_source(tmp_path / "hands.wav")[0][a : a + 100])
    ]
    assert len(found) == 1
    assert np.array_equal(source(instrument)[: len(audio) - 480], audio[:-480, 0])


def test_where_the_input_was_gone_the_sound_of_before_stays(tmp_path: Path) -> None:
    audio = clicks(BEAT, 2 * BAR, 4 * BAR + 2 * BEAT, 6 * BAR + BEAT)
    path = written(tmp_path, audio)
    lossy = Lossy(path, (6 * BAR - BEAT, 7 * BAR))
    instrument = offline(MockEngine(level_of_source), tmp_path, input=lossy)
    instrument.session.apply(HEAD + "source in every 4")
    run(instrument, 9 * BAR)
    assert hits(instrument) == [2 * BEAT, 2 * BAR]
    lines = [line for line in said(instrument) if "lost" in line]
    assert lines == ["main: bars 4 to 8 of the input, 2.52 s of them were lost"]


def test_notes_are_played_over_what_is_played_in(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT), HEAD + "source in + notes\nkick = 1")
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert (loop.source, loop.notes) == (None, True)
    run(instrument, 5 * BAR)
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert (loop.source, loop.notes) == (files(instrument)[0], True)


def test_the_timbre_is_that_of_the_next_loop_that_is_played_in(tmp_path: Path) -> None:
    audio = clicks()
    audio[4 * BAR : 8 * BAR] = 0.3
    text = HEAD.replace("denoise = 0", "denoise = 1") + "timbre = in"
    instrument = playing(tmp_path, audio, text, Singing())
    run(instrument, 9 * BAR)
    assert instrument.session.state.decks["main"].loop.source is None  # type: ignore[union-attr]
    heard = run(instrument, 2 * BAR)
    assert np.allclose(heard[BAR:], 0.3, atol=1e-3)
    assert not instrument.session.state.decks["main"].listens


def test_signals_follow_the_input_25_times_a_second(tmp_path: Path) -> None:
    audio = clicks()
    seconds = np.arange(4 * BAR) / RATES.sample_rate
    audio[4 * BAR : 8 * BAR] = (0.5 * np.sin(2 * np.pi * 440 * seconds))[:, None]
    text = "tempo 120\ngain = in_level\npan = in_onset\nblend = in_pitch\nnoise = in_bright"
    instrument = playing(tmp_path, audio, text)
    run(instrument, 8 * BAR)
    hands = instrument.session.state.hands.tracks
    values = {k.kind: track for k, track in hands.items() if k.channel == 0}
    assert set(values) == {"in_level", "in_onset", "in_pitch", "in_bright"}

    def at(kind: str, bar: float) -> float:
        return float(values[kind].read(np.array([bar]))[0])

    assert at("in_level", 3.9) == 0.0
    assert at("in_level", 7) == pytest.approx(1 + 20 * np.log10(0.5 / 2**0.5) / 60, abs=0.01)
    assert at("in_pitch", 7) == pytest.approx((69 - 24) / 72, abs=0.002)
    assert at("in_bright", 7) == pytest.approx(np.log(4.4) / np.log(100), abs=0.02)
    assert at("in_onset", 4.05) > 0.5
    assert at("in_onset", 5) < 0.01


def test_without_an_input_nothing_is_taken_and_the_remedy_is_said(tmp_path: Path) -> None:
    instrument = offline(MockEngine(level_of_source), tmp_path)
    instrument.session.apply("loop 2\nscene a { source in }")
    for text in (
        "source in",
        "overdub on",
        "timbre = in",
        "noise = in_level",
        "go a",
        "chain a 4",
        "deck b { source in every 2 }",
    ):
        before = instrument.session.state
        with pytest.raises(ScoreError, match="there is no input") as error:
            instrument.session.apply(text)
        assert error.value.hint is not None
        assert "--input" in error.value.hint
        assert instrument.session.state is before


def test_the_input_is_wanted_only_while_something_listens(tmp_path: Path) -> None:
    asked: list[bool] = []
    heard = FileInput(written(tmp_path, clicks(BEAT)))
    heard.want = asked.append  # type: ignore[method-assign]
    instrument = offline(MockEngine(level_of_source), tmp_path, input=heard)
    instrument.session.apply(HEAD)
    run(instrument, BAR)
    assert not any(asked)
    instrument.session.apply("source in every 4")
    run(instrument, BAR)
    assert asked[-1]
    instrument.session.apply("hold")
    run(instrument, BAR)
    assert not asked[-1]
    instrument.session.apply("gain = in_level")
    run(instrument, BAR)
    assert asked[-1]


def recorded(folder: Path) -> tuple[Floats, Path]:
    """The sound of a set with an input, and the set."""
    noise = np.random.default_rng(3).normal(0, 0.2, (40 * BAR, 2)).astype(np.float32)
    instrument = playing(folder, noise, "record mine\n" + HEAD + "gain = in_level.range(.5, 1)")
    pieces = [run(instrument, 3 * BAR)]
    instrument.session.apply("source in every 4")
    pieces.append(run(instrument, 9 * BAR))
    instrument.session.apply("overdub on")
    pieces.append(run(instrument, 5 * BAR))
    instrument.session.apply("tempo 130; hold")
    pieces.append(run(instrument, 4 * BAR))
    instrument.session.apply("undo")
    pieces.append(run(instrument, 6 * BAR))
    instrument.session.apply("stop")
    instrument.close()
    return np.concatenate(pieces), folder / "mine.set.jsonl"


def test_a_set_with_an_input_replays_without_it_bit_for_bit(tmp_path: Path) -> None:
    heard, path = recorded(tmp_path)
    takes = [event for event in load(path).events if event.kind == "take"]
    assert len(takes) >= 3
    (tmp_path / "hands.wav").unlink()
    again = render(path, engine=MockEngine(level_of_source))
    assert np.array_equal(again.audio[: len(heard), 0], heard[: len(again.audio)])
    late = render(path, engine=MockEngine(level_of_source), start=9)
    begin = len(again.audio) - len(late.audio)
    assert np.array_equal(late.audio, again.audio[begin:])


def test_a_set_that_was_cut_has_its_takes(tmp_path: Path) -> None:
    _, path = recorded(tmp_path)
    whole = render(path, engine=MockEngine(level_of_source))
    part = Recording.load(path).cut(14).write(tmp_path / "part.set.jsonl")
    assert part.path is not None
    cut = render(part.path, engine=MockEngine(level_of_source))
    assert np.abs(cut.audio[4 * BAR :]).max() > 0.1
    assert whole.audio[-BAR:].any()


def test_a_render_with_an_input_has_the_same_bytes_twice(tmp_path: Path) -> None:
    path = written(tmp_path, clicks(*range(0, 20 * BAR, BEAT)))
    score = tmp_path / "x.demon"
    score.write_text(HEAD + "source in every 4\nnoise = in_level * .2")
    for name in ("a.wav", "b.wav"):
        render(score, tmp_path / name, engine=MockEngine(level_of_source), cycles=10, input=path)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert load_source(tmp_path / "a.wav")[0].any()
    with pytest.raises(DemonError, match="there is no input"):
        render(score, engine=MockEngine(level_of_source), cycles=10)


def test_a_set_brings_its_input(tmp_path: Path) -> None:
    _, path = recorded(tmp_path)
    with pytest.raises(DemonError, match="a set brings"):
        render(path, engine=MockEngine(level_of_source), input=tmp_path / "hands.wav")


@pytest.mark.parametrize("name", ["one_120.wav", "in-0.wav", f"in-{'0' * 32}.wav", "../hands.wav"])
def test_a_line_of_a_set_takes_only_what_is_kept_with_it(tmp_path: Path, name: str) -> None:
    write_audio(tmp_path / "one_120.wav", clicks(BAR, seconds=8))
    write_audio(tmp_path / f"in-{'0' * 32}.wav", clicks(BAR, seconds=8))
    _, path = recorded(tmp_path)
    changed = Recording.load(path).map(
        lambda event: (
            event
            if event.kind != "take"
            else type(event)("take", event.sample, event.text, name, at=event.at)
        )
    )
    with pytest.raises(FileError, match="has no take"):
        render(changed, engine=MockEngine(level_of_source))


@pytest.mark.parametrize("text", ["main", "main 0", "main 1e9", "main 4/0", "other 4", ""])
def test_a_broken_line_of_a_take_is_refused(tmp_path: Path, text: str) -> None:
    _, path = recorded(tmp_path)
    recording = Recording.load(path)
    take = next(event for event in recording.events if event.kind == "take")
    session = Session(NullOutput(), dry=True)
    session.apply(HEAD + "source in")
    with pytest.raises(FileError):
        session.repeat(type(take)("take", take.sample, text, take.name, at=take.at))


def test_a_score_that_was_saved_listens_again(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT), HEAD + "source in every 2 + notes\noverdub on")
    written_text = as_score(instrument.session.state, tmp_path)
    assert "source in every 2 + notes\noverdub on\n" in written_text
    again = playing(tmp_path, clicks(BEAT), written_text)
    assert as_score(again.session.state, tmp_path) == written_text


def test_a_score_that_is_saved_again_goes_on_with_its_takes(tmp_path: Path) -> None:
    score = tmp_path / "x.demon"
    score.write_text(HEAD + "source in")
    instrument = offline(
        MockEngine(level_of_source), tmp_path, input=written(tmp_path, clicks(BEAT))
    )
    instrument.session.load(score)
    run(instrument, 6 * BAR)
    before = instrument.session.state.decks["main"].loop
    score.write_text(HEAD + "source in\ngain = .5")
    instrument.session.load(score)
    assert instrument.session.state.decks["main"].loop == before
    assert not instrument.session.state.decks["main"].listens


def test_a_status_says_how_far_a_take_is(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT))
    session = instrument.session
    assert session.status().decks[0].taken == ""
    run(instrument, BAR)
    session.apply("source in")
    assert session.status().decks[0].taken == "in: from bar 4"
    run(instrument, 5 * BAR + BEAT)
    assert session.status().decks[0].taken == "in: bar 3 of 4"
    assert session.status().decks[0].source == "in"


def test_words_of_the_input_are_said_in_one_way() -> None:
    rows = compile_source("source in every 4 + notes\nhold\nhold off\noverdub on").statements
    assert [(r.word, r.value, r.reading) for r in rows] == [  # type: ignore[union-attr]
        ("source", "in", "every 4 + notes"),
        ("hold", "on", ""),
        ("hold", "off", ""),
        ("overdub", "on", ""),
    ]
    for wrong in (
        "source in every 0",
        "source in every 1.5",
        "source in bars 2",
        'source "x.wav" every 4',
        "overdub",
        "hold twice",
        "noise = in_level(1)",
        "master { hold }",
    ):
        with pytest.raises(ScoreError):
            compile_source(wrong)
