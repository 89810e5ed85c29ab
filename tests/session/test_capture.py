"""What is played in becomes a source, a timbre, a signal: which loop, where, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live.audio.files import load_source, write_audio
from demon_live.audio.sound_input import FileInput, SoundInput, sound_input
from demon_live.core import RATES, Floats, Loop, Request
from demon_live.dsl import Score, deck, hold, in_onset
from demon_live.errors import DemonError, FileError, ScoreError
from demon_live.lang import compile_source
from demon_live.replay.render import render
from demon_live.replay.surgery import cut
from demon_live.replay.to_score import to_score
from demon_live.runtime.offline import Offline
from demon_live.runtime.seek import dry_run
from demon_live.session.assets import Assets, key_of
from demon_live.session.output import NullOutput
from demon_live.session.scores import as_score
from demon_live.session.session import Session
from demon_live.session.state import DeckState
from demon_live.sets.journal import Recording, load
from demon_live.sets.set_files import SetFiles, folder_of, is_take
from tests.helpers.mock_engine import MockEngine, Singing, offline, run

BAR, BEAT = 96_000, 24_000  # at tempo 120
HEAD = "tempo 120\nloop 4\ndenoise = .5\n"
STEP = 6000


def clicks(*places: int, seconds: float = 90, level: float = 0.5) -> Floats:
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


class Desk(NullOutput):
    """Keeps the PCM that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.pcm: dict[str, Floats] = {}

    def reserve(self, audio: Mapping[str, Floats]) -> None:
        self.pcm.update(audio)


class Rig:
    """A session without an engine; its time goes on by an eighth of a second."""

    def __init__(
        self,
        folder: Path,
        played: SoundInput | None,
        text: str = HEAD,
        copies: Path | None = None,
    ) -> None:
        self.desk = Desk()
        assets = Assets((folder,), copies=copies)
        self.session = Session(self.desk, assets=assets, sound_in=played, alone=True)
        if text:
            self.session.apply(text)

    def run(self, samples: int) -> None:
        for _ in range(samples // STEP):
            self.session.pump()
            self.desk.time.advance(STEP)
        self.session.pump()

    @property
    def said(self) -> list[str]:
        return list(self.session.events(0)[1])

    @property
    def files(self) -> list[str]:
        rows = self.session.journal.recording().events
        return [event.name for event in rows if event.kind == "take"]

    def deck(self, name: str = "main") -> DeckState:
        return self.session.state.decks[name]

    def loop(self, name: str = "main") -> Loop:
        loop = self.deck(name).loop
        assert loop is not None
        return loop

    def source(self, name: str = "main") -> Floats:
        """The left channel of the source of the newest loop of a deck."""
        file = self.loop(name).source_file
        assert file is not None
        return self.desk.pcm[file][:, 0]

    def hits(self, name: str = "main") -> list[int]:
        return [int(i) for i in np.flatnonzero(np.abs(self.source(name)) > 0.01)]


def playing(folder: Path, audio: Floats, text: str = HEAD) -> Rig:
    return Rig(folder, FileInput(written(folder, audio)), text)


def sounding(folder: Path, audio: Floats, text: str, engine: MockEngine | None = None) -> Offline:
    made = engine or MockEngine(level_of_source)
    instrument = offline(made, folder, input=written(folder, audio))
    instrument.session.apply(text)
    return instrument


def test_a_click_at_bar_9_beat_2_is_at_beat_2_of_the_next_loops_source(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(9 * BAR + BEAT))
    instrument.run(7 * BAR)
    instrument.session.apply("source in")
    instrument.run(8 * BAR)
    # The loop of bars 8 to 12; its bar 1, beat 2.
    assert instrument.hits() == [BAR + BEAT]
    assert instrument.source()[BAR + BEAT] == np.float32(0.5)
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert loop.from_sample == 13 * BAR
    assert instrument.said[-2:] == [
        "main: bars 8 to 12 of the input",
        "main: loop of 4 cycles, 4 bars at 120 bpm · from bar 13",
    ]


def test_what_was_played_is_heard_as_it_is_until_it_is_transformed(tmp_path: Path) -> None:
    audio = clicks()
    audio[:BAR] = 0.25
    instrument = sounding(tmp_path, audio, "tempo 120\nloop 1\ndenoise = .5\nsource in")
    heard = [run(instrument, 1)]
    instrument.output.engine.fail = True  # type: ignore[attr-defined]
    heard.append(run(instrument, 4 * BAR))
    before, after = np.split(np.concatenate(heard)[: 4 * BAR], 2)
    assert np.abs(before[:-4800]).max() < 1e-6
    assert np.allclose(after[4800:], 0.25, atol=1e-3)


def test_every_4_takes_each_loop_and_hold_keeps_the_last(tmp_path: Path) -> None:
    places = [BEAT, 5 * BAR, 10 * BAR, 15 * BAR]
    instrument = playing(tmp_path, clicks(*places), HEAD + "source in every 4")
    instrument.run(4 * BAR + BEAT)
    assert instrument.hits() == [BEAT]
    instrument.run(4 * BAR)
    assert instrument.hits() == [BAR]
    # Of loops that come again and again the first is told.
    assert sum("of the input" in line for line in instrument.said) == 1
    instrument.session.apply("hold")
    instrument.run(8 * BAR)
    assert instrument.hits() == [BAR]
    assert len(instrument.files) == 2
    instrument.session.apply("hold off")
    assert instrument.session.state.decks["main"].listens


def test_every_bar_the_last_loop_lies_where_it_was_played(tmp_path: Path) -> None:
    instrument = playing(
        tmp_path, clicks(BAR + BEAT, 4 * BAR + 2 * BEAT), HEAD + "source in every 1"
    )
    instrument.run(4 * BAR + BEAT)
    assert instrument.hits() == [BAR + BEAT]
    instrument.run(BAR)
    # Bars 1 to 5: bar 4 has the place of bar 0.
    assert instrument.hits() == [2 * BEAT, BAR + BEAT]
    instrument.run(BAR)
    assert instrument.hits() == [2 * BEAT]


def test_a_loop_in_which_nothing_was_played_is_left_out(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(6 * BAR), HEAD + "source in")
    instrument.run(5 * BAR)
    assert instrument.said == ["main: bars 0 to 4 are left out: nothing was played"]
    assert instrument.session.state.decks["main"].take is None
    instrument.run(4 * BAR)
    assert instrument.hits() == [2 * BAR]
    instrument.run(8 * BAR)
    assert len(instrument.files) == 1


def test_overdub_adds_to_what_is_there_and_undo_takes_the_layers_away(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT, 9 * BAR, 14 * BAR), HEAD + "source in")
    instrument.run(6 * BAR)
    assert instrument.hits() == [BEAT]
    instrument.session.apply("overdub on")
    instrument.run(7 * BAR)
    assert instrument.hits() == [BEAT, BAR]
    instrument.run(4 * BAR)
    assert instrument.hits() == [BEAT, BAR, 2 * BAR]
    instrument.session.apply("overdub off")
    instrument.run(8 * BAR)
    assert len(instrument.files) == 3
    instrument.session.apply("undo")
    instrument.session.apply("undo")
    instrument.run(3 * BAR)
    assert instrument.hits() == [BEAT]
    assert len(instrument.files) == 3
    instrument.session.apply("redo")
    instrument.run(3 * BAR)
    assert instrument.hits() == [BEAT, BAR, 2 * BAR]


def test_layers_stay_below_full_scale_and_a_line_says_so(tmp_path: Path) -> None:
    audio = clicks(BEAT, 8 * BAR + BEAT, level=0.8)
    audio[2 * BAR] = audio[10 * BAR] = 0.3
    instrument = playing(tmp_path, audio, HEAD + "source in")
    instrument.run(6 * BAR)
    instrument.session.apply("overdub on")
    instrument.run(7 * BAR)
    source = instrument.source("main")
    assert 0.9 < np.abs(source[BEAT]).max() < 1.0
    # What is not loud is the sum as it is.
    assert np.abs(source[2 * BAR]).max() == pytest.approx(0.6, abs=1e-3)
    assert [line for line in instrument.said if "full scale" in line] == [
        "main: the layers were 4.1 dB over full scale: their peaks are rounded"
    ]


def test_overdub_adds_to_a_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "one_120.wav", clicks(3 * BAR, seconds=8))
    text = HEAD + 'source "one_120.wav"\noverdub on'
    instrument = playing(tmp_path, clicks(BEAT), text)
    assert instrument.hits() == [3 * BAR]
    instrument.run(5 * BAR)
    assert instrument.hits() == [BEAT, 3 * BAR]


def test_a_change_of_another_kind_is_undone_without_the_takes(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT, 5 * BAR), HEAD + "source in every 4")
    instrument.run(5 * BAR)
    instrument.session.apply("gain = .5")
    instrument.run(4 * BAR)
    assert instrument.hits() == [BAR]
    before = instrument.session.state.decks["main"].loop
    instrument.session.apply("undo")
    assert instrument.session.state.decks["main"].loop == before


def test_undo_gives_back_the_source_of_before(tmp_path: Path) -> None:
    write_audio(tmp_path / "one_120.wav", clicks(3 * BAR, seconds=8))
    instrument = playing(tmp_path, clicks(*range(0, 20 * BAR, BAR)), HEAD + 'source "one_120.wav"')
    instrument.session.apply("source in")
    instrument.run(BAR)
    assert instrument.hits() == [3 * BAR]
    instrument.run(9 * BAR)
    assert instrument.hits() == [0, BAR, 2 * BAR, 3 * BAR]
    instrument.session.apply("undo")
    instrument.run(8 * BAR)
    assert instrument.hits() == [3 * BAR]
    instrument.session.apply("redo")
    assert instrument.hits() == [0, BAR, 2 * BAR, 3 * BAR]
    assert len(instrument.files) == 1


def test_two_decks_take_their_own_loops(tmp_path: Path) -> None:
    text = "tempo 120\ndeck a { loop 2; source in }\ndeck b { loop 4; source in every 4 }"
    instrument = playing(tmp_path, clicks(BAR, 3 * BAR), text)
    instrument.run(5 * BAR)
    assert instrument.hits("a") == [BAR]
    assert instrument.hits("b") == [BAR, 3 * BAR]
    assert not instrument.session.state.decks["a"].listens
    assert instrument.session.state.decks["b"].listens


def test_a_loop_with_another_tempo_in_it_is_left_out(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(*range(0, 40 * BAR, BEAT)), HEAD + "source in")
    instrument.session.apply("tempo 60 at 2")
    instrument.run(8 * BAR)
    assert instrument.said[0] == "main: bars 0 to 4 are left out: the tempo changed in them"
    instrument.run(8 * BAR)
    assert instrument.said[-2] == "main: bars 4 to 8 of the input"


def test_a_take_goes_along_with_a_new_tempo(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (30 * BAR, 2)).astype(np.float32)
    instrument = playing(tmp_path, noise, HEAD + "source in")
    instrument.run(5 * BAR)
    instrument.session.apply("tempo 100")
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert (loop.bpm, loop.source) == (100, instrument.files[0])
    assert len(instrument.source()) == loop.samples == round(4 * BAR * 1.2)


def test_a_loop_of_an_odd_length_and_meter_keeps_its_samples(tmp_path: Path) -> None:
    text = "tempo 137.3\nbeats 7/8\nloop 2\nsource in every 2"
    noise = np.random.default_rng(2).normal(0, 0.1, (30 * BAR, 2)).astype(np.float32)
    instrument = playing(tmp_path, noise, text)
    instrument.run(10 * BAR)
    state = instrument.session.state
    deck = state.decks["main"]
    assert deck.take is not None
    assert deck.take.beats == 7
    path = instrument.session.assets.takes.find(deck.take.name, SetFiles())
    assert path is not None
    audio, _ = load_source(path)
    starts = [state.tempo.sample_at(Fraction(bar)) for bar in range(0, 24, 2)]
    assert sum(np.array_equal(audio[:100], noise[a : a + 100]) for a in starts) == 1
    assert np.array_equal(instrument.source()[: len(audio) - 480], audio[:-480, 0])


def test_where_the_input_was_gone_the_sound_of_before_stays(tmp_path: Path) -> None:
    audio = clicks(BEAT, 2 * BAR, 4 * BAR + 2 * BEAT, 6 * BAR + BEAT)
    path = written(tmp_path, audio)
    lossy = Lossy(path, (6 * BAR - BEAT, 7 * BAR))
    instrument = Rig(tmp_path, lossy, HEAD + "source in every 4")
    instrument.run(9 * BAR)
    assert instrument.hits() == [2 * BEAT, 2 * BAR]
    lines = [line for line in instrument.said if "lost" in line]
    assert lines == ["main: bars 4 to 8 of the input, 2.52 s of them were lost"]


def test_notes_are_played_over_what_is_played_in(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT), HEAD + "source in + notes\nkick = 1")
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert (loop.source, loop.notes) == (None, True)
    instrument.run(5 * BAR)
    loop = instrument.session.state.decks["main"].loop
    assert loop is not None
    assert (loop.source, loop.notes) == (instrument.files[0], True)


def test_the_timbre_is_that_of_the_next_loop_that_is_played_in(tmp_path: Path) -> None:
    audio = clicks()
    audio[BAR : 2 * BAR] = 0.3
    instrument = sounding(tmp_path, audio, "tempo 120\nloop 1\ntimbre = in", Singing())
    assert np.abs(run(instrument, 2 * BAR + BEAT)).max() < 1e-6
    deck = instrument.session.state.decks["main"]
    assert (deck.file, deck.notes, deck.listens) == (None, False, False)
    run(instrument, 2 * BAR)
    assert np.allclose(run(instrument, BAR), 0.3, atol=1e-3)


def test_a_timbre_is_that_of_the_newest_take(tmp_path: Path) -> None:
    audio = clicks(seconds=20)
    audio[: 2 * BAR], audio[2 * BAR :] = 0.3, 0.2
    text = "tempo 120\nloop 2\nsource in every 2"
    instrument = playing(tmp_path, audio, text)
    instrument.run(3 * BAR)
    instrument.session.apply("timbre = in")

    def heard() -> float:
        value = str(instrument.deck().lanes["timbre"].at(Fraction(100)))
        known = {sound.key: sound for sound in instrument.deck().lanes["timbre"].sounds}
        return float(known[key_of(value)].audio.max())

    assert heard() == pytest.approx(0.3, abs=1e-6)
    instrument.run(2 * BAR)
    assert heard() == pytest.approx(0.2, abs=1e-6)


def test_signals_follow_the_input_25_times_a_second(tmp_path: Path) -> None:
    audio = clicks()
    seconds = np.arange(4 * BAR) / RATES.sample_rate
    audio[4 * BAR : 8 * BAR] = (0.5 * np.sin(2 * np.pi * 440 * seconds))[:, None]
    text = "tempo 120\ngain = in_level\npan = in_onset\nblend = in_pitch\nnoise = in_bright"
    instrument = playing(tmp_path, audio, text)
    instrument.run(8 * BAR)
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
    instrument = Rig(tmp_path, None, "loop 2\nscene a { source in }")
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
    instrument = Rig(tmp_path, heard)
    instrument.run(BAR)
    assert not any(asked)
    instrument.session.apply("source in every 4")
    instrument.run(BAR)
    assert asked[-1]
    instrument.session.apply("hold")
    instrument.run(BAR)
    assert not asked[-1]
    instrument.session.apply("gain = in_level")
    instrument.run(BAR)
    assert asked[-1]


def test_a_deck_that_goes_elsewhere_opens_no_input(tmp_path: Path) -> None:
    asked: list[bool] = []
    heard = FileInput(written(tmp_path, clicks(BEAT)))
    heard.want = asked.append  # type: ignore[method-assign]
    instrument = Rig(tmp_path, heard, HEAD + "source in every 4")
    instrument.session.apply("to superdirt now")
    instrument.run(BAR)
    assert not asked[-1]
    instrument.session.apply("to none")
    instrument.run(BAR)
    assert asked[-1]


def test_only_the_newest_takes_are_kept_in_memory_and_no_other_source_goes(tmp_path: Path) -> None:
    write_audio(tmp_path / "one_120.wav", clicks(3 * BAR, seconds=8))
    noise = np.random.default_rng(5).normal(0, 0.2, (24 * BAR, 2)).astype(np.float32)
    text = HEAD + 'loop 1\nsource in every 1\ndeck b { loop 4; source "one_120.wav" }'
    instrument = playing(tmp_path, noise, text)
    decoded = instrument.session.assets.decoded
    instrument.run(20 * BAR)
    assert len(instrument.files) > 15
    assert {name for name, _ in decoded._known if not is_take(name)} == {"one_120.wav"}
    assert [name for name, _ in decoded._known if is_take(name)] == instrument.files[-4:]


def test_what_was_fitted_counts_in_what_is_kept_of_sources(tmp_path: Path) -> None:
    write_audio(tmp_path / "one_120.wav", clicks(BAR, seconds=8))
    instrument = Rig(tmp_path, None, HEAD + 'source "one_120.wav"')
    (sound,) = instrument.session.assets.decoded._known.values()
    alone = sound.audio.nbytes
    instrument.session.apply("tempo 100")
    loop = instrument.loop()
    assert sound.nbytes >= alone + 8 * loop.samples


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Floats, Path]:
    """The sound of a set with an input, and the set."""
    folder = tmp_path_factory.mktemp("recorded")
    noise = np.random.default_rng(3).normal(0, 0.2, (40 * BAR, 2)).astype(np.float32)
    text = "record mine\ntempo 120\nloop 1\ndenoise = .5\ngain = in_level.range(.5, 1)"
    instrument = sounding(folder, noise, text)
    pieces = [run(instrument, BAR)]
    for text, bars in (("source in every 1", 4), ("overdub on", 2), ("tempo 130; hold", 2)):
        instrument.session.apply(text)
        pieces.append(run(instrument, bars * BAR))
    instrument.session.apply("undo")
    pieces.append(run(instrument, 3 * BAR))
    instrument.session.apply("stop")
    instrument.close()
    (folder / "hands.wav").unlink()
    return np.concatenate(pieces), folder / "mine.set.jsonl"


def test_a_set_with_an_input_replays_without_it_bit_for_bit(
    tmp_path: Path, recorded: tuple[Floats, Path]
) -> None:
    heard, path = recorded
    takes = [event for event in load(path).events if event.kind == "take"]
    assert len(takes) >= 3
    again = render(path, engine=MockEngine(level_of_source))
    assert np.array_equal(again.audio[: len(heard), 0], heard[: len(again.audio)])
    late = render(path, engine=MockEngine(level_of_source), start=5)
    begin = len(again.audio) - len(late.audio)
    assert np.array_equal(late.audio, again.audio[begin:])


def test_a_set_that_was_cut_has_its_takes(tmp_path: Path, recorded: tuple[Floats, Path]) -> None:
    _, path = recorded
    whole = render(path, engine=MockEngine(level_of_source))
    part = cut(load(path), 7).write(tmp_path / "part.set.jsonl")
    assert part.path is not None
    part_audio = render(part.path, engine=MockEngine(level_of_source)).audio
    assert abs(len(part_audio) - len(whole.audio) + 7 * BAR) < BAR
    assert part_audio[-BEAT:].any()


def test_a_render_with_an_input_has_the_same_bytes_twice(tmp_path: Path) -> None:
    path = written(tmp_path, clicks(*range(0, 20 * BAR, BEAT)))
    score = tmp_path / "x.demon"
    score.write_text("loop 1\ndenoise = .5\nsource in every 1\nnoise = in_level * .2")
    for name in ("a.wav", "b.wav"):
        render(score, tmp_path / name, engine=MockEngine(level_of_source), cycles=4, input=path)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert load_source(tmp_path / "a.wav")[0][3 * BAR :].any()
    with pytest.raises(DemonError, match="there is no input"):
        render(score, engine=MockEngine(level_of_source), cycles=4)


def test_a_set_brings_its_input(tmp_path: Path, recorded: tuple[Floats, Path]) -> None:
    _, path = recorded
    with pytest.raises(DemonError, match="a set brings"):
        render(path, engine=MockEngine(level_of_source), input=tmp_path / "hands.wav")


@pytest.mark.parametrize("name", ["one_120.wav", "in-0.wav", f"in-{'0' * 32}.wav", "../hands.wav"])
def test_a_line_of_a_set_takes_only_what_is_kept_with_it(
    tmp_path: Path, recorded: tuple[Floats, Path], name: str
) -> None:
    _, path = recorded
    write_audio(path.parent / "one_120.wav", clicks(BAR, seconds=8))
    write_audio(path.parent / f"in-{'0' * 32}.wav", clicks(BAR, seconds=8))
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
def test_a_broken_line_of_a_take_is_refused(
    tmp_path: Path, recorded: tuple[Floats, Path], text: str
) -> None:
    _, path = recorded
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
    instrument = Rig(tmp_path, FileInput(written(tmp_path, clicks(BEAT))), "")
    instrument.session.load(score)
    instrument.run(6 * BAR)
    before = instrument.session.state.decks["main"].loop
    score.write_text(HEAD + "source in\ngain = .5")
    instrument.session.load(score)
    assert instrument.session.state.decks["main"].loop == before
    assert not instrument.session.state.decks["main"].listens


def test_a_status_says_how_far_a_take_is(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT))
    session = instrument.session
    assert session.status().decks[0].taken == ""
    instrument.run(BAR)
    session.apply("source in")
    assert session.status().decks[0].taken == "in: from bar 4"
    instrument.run(5 * BAR + BEAT)
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


def test_a_file_that_goes_round_is_there_in_each_lap(tmp_path: Path) -> None:
    path = written(tmp_path, clicks(BEAT, seconds=8))
    played = sound_input(f"loop:{path}", tmp_path)
    assert played is not None
    assert np.flatnonzero(played.read(9 * BAR, 13 * BAR)[:, 0]).tolist() == [3 * BAR + BEAT]
    instrument = Rig(tmp_path, played, HEAD)
    instrument.run(21 * BAR)
    instrument.session.apply("source in")
    instrument.run(8 * BAR)
    assert instrument.hits() == [BEAT]


def test_python_says_the_same(tmp_path: Path) -> None:
    with Score() as said:
        deck.source("in", every=4, notes=True)
        deck["b"].source("in")
        deck["b"].overdub()
        deck["b"].hold(False)
        deck["b"].timbre = "in"
        deck["b"].noise = in_onset * 0.4
        hold()
    assert said.text.splitlines() == [
        "source in every 4 + notes",
        "deck b {",
        "  source in",
        "  overdub on",
        "  hold off",
        "  timbre = 'in'",
        "  noise  = in_onset * .4",
        "}",
        "hold",
    ]
    Rig(tmp_path, FileInput(written(tmp_path, clicks(BEAT))), HEAD).session.apply(said)


def test_a_session_that_died_goes_on_with_its_takes_and_listens(tmp_path: Path) -> None:
    first = playing(tmp_path, clicks(BEAT, 4 * BAR), HEAD + "source in every 4")
    log = tmp_path / "first.set.jsonl"
    first.session.assets.takes.folder = folder_of(log)
    first.run(5 * BAR)
    causes = first.session.journal.recording().events

    def again(copies: Path, takes: Path) -> Rig:
        rig = Rig(tmp_path, FileInput(tmp_path / "hands.wav"), "", copies=copies)
        rig.session.assets.takes.folder = takes
        for event in causes:
            rig.desk.time.advance(event.sample - rig.desk.time.now())
            rig.session.repeat(event, now=event.sample)
        return rig

    second = again(folder_of(log), tmp_path / "second.files")
    assert second.hits() == [BEAT]
    # That one may die, too.
    third = again(tmp_path / "second.files", tmp_path / "third.files")
    assert third.hits() == [BEAT]
    third.run(5 * BAR)
    assert third.hits() == [0]


def test_a_take_that_cannot_be_written_is_told_and_nothing_stops(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT, 4 * BAR), HEAD + "source in every 4")
    (tmp_path / "blocked").write_text("a file")
    instrument.session.assets.takes.folder = tmp_path / "blocked"
    instrument.run(5 * BAR)
    assert len(instrument.said) == 1
    assert instrument.said[0].startswith("main: bars 0 to 4 of the input are left out: ")
    instrument.session.assets.takes.folder = tmp_path / "free"
    instrument.run(4 * BAR)
    assert instrument.hits() == [0]


def test_a_take_brings_no_sound_back(tmp_path: Path) -> None:
    instrument = playing(tmp_path, clicks(BEAT, 5 * BAR), HEAD + "source in every 4")
    instrument.run(BAR)
    instrument.session.apply("hush")
    instrument.run(8 * BAR)
    assert len(instrument.files) == 2
    assert instrument.session.state.hushed


def test_a_render_from_a_cycle_on_is_that_stretch_of_the_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).normal(0, 0.2, (20 * BAR, 2)).astype(np.float32)
    path, score = written(tmp_path, noise), tmp_path / "x.demon"
    score.write_text("loop 1\ndenoise = .5\nsource in every 1\nnoise = in_level * .2")
    whole, part = (
        render(score, engine=MockEngine(level_of_source), start=a, cycles=n, input=path).audio
        for a, n in ((0, 9), (7, 2))
    )
    assert np.array_equal(part, whole[7 * BAR :])


def test_a_set_becomes_a_score_with_its_takes(recorded: tuple[Floats, Path]) -> None:
    _, path = recorded
    takes = [event.name for event in load(path).events if event.kind == "take"]
    recording = load(path)
    text = to_score(recording, list(dry_run(recording)))
    assert any(f'source "{name}" beats 4' in text for name in takes)
