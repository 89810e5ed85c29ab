"""The session: what is right plays from its quantum on, what is wrong changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demon_live.core import Floats
from demon_live.errors import DemonError, FileError
from demon_live.runtime.offline import Offline
from demon_live.sets.journal import RULES
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run, write_tone

BAR = 96_000


@pytest.fixture
def stage(tmp_path: Path) -> Offline:
    """A deck that plays: prompt 'a' is level 0.1, 'b' 0.2 and so on."""
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply("tempo 120\nloop 2\nprompt = 'a'")
    run(instrument, BAR // 2)
    return instrument


def level(instrument: Offline, bars: float = 1.0) -> float:
    """The level at the end of the next bars."""
    return round(float(np.median(run(instrument, round(bars * BAR))[-4800:])), 3)


def bound(instrument: Offline, deck: str = "main") -> dict[str, str]:
    return {k: v.text for k, v in instrument.session.state.decks[deck].bound.items()}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('denois = "<.4 .8>"', (1, 1), "denoise"),
        ('blend = "1 .5', (1, 9), "closing"),
        ("prompt = 'b'\nblend = [", (2, 9), ""),
        ('source "nothing_here.wav"', (1, None), "no file"),
        ("go chorus", (1, None), "scene"),
        ("mute drums", (1, None), "deck"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_changes_nothing(
    stage: Offline, text: str, place: tuple[int, int | None], words: str
) -> None:
    before = stage.session.state
    with pytest.raises(DemonError) as caught:
        stage.session.apply(text)
    error = caught.value
    assert error.span is not None
    assert error.span.line == place[0]
    assert place[1] is None or error.span.col == place[1]
    assert words in str(error)
    assert "still playing" in str(error)
    assert stage.session.state is before
    assert level(stage, 2) == 0.1


def test_a_score_takes_effect_at_its_when(stage: Offline) -> None:
    stage.session.apply("prompt = 'b' at 4")
    assert [level(stage, 1) for _ in range(4)] == [0.1, 0.1, 0.1, 0.2]
    stage.session.apply("prompt = 'c' in 2")
    assert [level(stage, 1) for _ in range(3)] == [0.2, 0.3, 0.3]
    stage.session.apply("prompt = 'd' !")
    assert level(stage, 1) == 0.4


def test_default_gives_a_control_back(stage: Offline) -> None:
    stage.session.apply("gain = .5")
    assert level(stage, 2) == 0.05
    stage.session.apply("gain = default")
    assert level(stage, 2) == 0.1
    assert bound(stage) == {"prompt": "'a'"}


def test_over_moves_there_in_a_straight_line(stage: Offline) -> None:
    stage.session.apply("gain = .5")
    run(stage, 2 * BAR - BAR // 2)
    begin = stage.output.mixer.position
    stage.session.apply("gain = 1 over 4")
    out = run(stage, 6 * BAR)
    at = [int(begin + x * BAR) - begin for x in (2.99 - 2, 3 - 2 + 2, 3 - 2 + 4.01)]
    assert out[at] == pytest.approx([0.05, 0.075, 0.1], abs=0.001)


@pytest.mark.parametrize(
    ("steps", "rules", "hushed"),
    [
        ("chain one 1, two 1", 3, False),
        ("chain one 1, two 1", RULES, True),
        ("tempo 140 over 4", RULES, True),
    ],
)
def test_after_hush_steps_of_chains_and_ramps_are_silent(
    steps: str, rules: int, hushed: bool
) -> None:
    instrument = offline(MockEngine(by_prompt), rules=rules)
    text = "tempo 120\nloop 1\nprompt = 'b'\nscene one { loop 1 }\nscene two { loop 2 }\n"
    instrument.session.apply(text + steps)
    run(instrument, 48_000)
    instrument.session.apply("hush")
    run(instrument, 8 * 96_000)
    assert instrument.session.state.hushed == hushed


def test_hush_is_silent_within_ten_milliseconds_and_a_statement_wakes(stage: Offline) -> None:
    stage.session.apply("hush")
    out = run(stage, BAR)
    assert np.abs(out[960:]).max() == 0.0
    assert stage.session.status().hushed
    stage.session.apply("prompt = 'b'")
    assert level(stage, 2) == 0.2


def test_panic_forgets_transitions_and_plays_what_the_score_says(stage: Offline) -> None:
    stage.session.apply("prompt = 'c' at 64")
    stage.session.apply("panic")
    assert level(stage) == 0.0
    stage.session.apply("gain = 1")
    assert level(stage, 2) == 0.3


def test_mute_solo_and_their_opposites(stage: Offline) -> None:
    stage.session.apply("deck two\nloop 2\nprompt = 'b'")
    assert level(stage, 3) == 0.3
    stage.session.apply("mute main")
    assert level(stage) == 0.2
    stage.session.apply("unmute main\nsolo main")
    assert level(stage) == 0.1
    stage.session.apply("unsolo")
    assert level(stage) == 0.3


def test_undo_and_redo_of_bindings_and_of_the_stage(stage: Offline) -> None:
    stage.session.apply("prompt = 'b'")
    stage.session.apply("tempo 140")
    assert level(stage, 3) == 0.2
    stage.session.apply("undo")
    assert float(stage.session.state.bpm) == 120
    stage.session.apply("undo")
    assert level(stage, 3) == 0.1
    stage.session.apply("redo")
    assert level(stage, 3) == 0.2
    assert "nothing" in stage.session.apply("redo\nredo\nredo").messages[-1]


def test_scenes_and_chains(stage: Offline) -> None:
    stage.session.apply("scene low { prompt = 'a' }\nscene high { prompt = 'd' }")
    stage.session.apply("go high")
    assert level(stage, 2) == 0.4
    stage.session.apply("chain low 2, high 1")
    run(stage, BAR // 2)
    heard = [level(stage, 1) for _ in range(8)]
    i = heard.index(0.1)
    assert (heard[i:] + heard)[:6] in (
        [0.1, 0.1, 0.4, 0.1, 0.1, 0.4],
        [0.1, 0.4, 0.1, 0.1, 0.4, 0.1],
    )


def test_a_file_applies_the_difference_to_its_last_version(stage: Offline, tmp_path: Path) -> None:
    file = tmp_path / "x.demon"
    file.write_text("gain = .5\npan = 0\n")
    stage.session.load(file)
    assert level(stage, 2) == 0.05
    stage.session.apply("gain = 1")
    file.write_text("gain = .5\npan = .0\n")
    stage.session.load(file)
    # The score is evaluated again: it plays what it says, not what was typed since then.
    assert level(stage, 2) == 0.05
    file.write_text("pan = 0\n")
    stage.session.load(file)
    # Nor does it take with it what the prompt says.
    assert bound(stage)["gain"] == "1"
    stage.session.apply("gain = default")
    assert "gain" not in bound(stage)


def test_a_broken_save_changes_nothing_and_is_remembered_until_it_is_mended(
    stage: Offline, tmp_path: Path
) -> None:
    file = tmp_path / "x.demon"
    file.write_text("gain = .5\n")
    stage.session.load(file)
    file.write_text("gain = (.5\n")
    with pytest.raises(DemonError, match="x as saved at"):
        stage.session.load(file)
    assert level(stage, 2) == 0.05
    assert list(stage.session.status().errors) == [str(file)]
    file.write_text("gain = .8\n")
    stage.session.load(file)
    assert not stage.session.status().errors
    assert level(stage, 2) == 0.08


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("missing.wav", None, "missing.wav"),
        ("noise.wav", b"this is not audio", "noise.wav"),
        ("three.wav", (48_000, 3), "3 channels"),
        ("folder.wav", "dir", "folder"),
        ("empty.wav", (0, 2), "empty"),
    ],
)
def test_sources_that_cannot_be_read_name_the_line_and_the_remedy(
    stage: Offline, tmp_path: Path, name: str, make: object, words: str
) -> None:
    path = tmp_path / name
    if isinstance(make, bytes):
        path.write_bytes(make)
    elif make == "dir":
        path.mkdir()
    elif isinstance(make, tuple):
        soundfile.write(path, np.zeros(make, np.float32), 48_000)
    with pytest.raises(DemonError) as caught:
        stage.session.apply(f'gain = 1\nsource "{name}"')
    assert words in str(caught.value)
    assert caught.value.span is not None
    assert caught.value.span.line == 2
    assert caught.value.hint
    assert level(stage, 2) == 0.1


def test_an_eight_kilohertz_source_is_resampled_and_said(stage: Offline, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "old.wav", np.full(32_000, 0.25, np.float32), 8000)
    outcome = stage.session.apply('source "old.wav"')
    assert "8000 Hz" in " ".join(outcome.messages)
    assert level(stage, 3) == 0.1


def test_a_score_file_cannot_reach_outside_its_folder(stage: Offline, tmp_path: Path) -> None:
    inner = tmp_path / "scores"
    inner.mkdir()
    write_tone(tmp_path.parent / "secret.wav", 0.5, 1)
    (inner / "x.demon").write_text('source "../../secret.wav"\n')
    with pytest.raises(DemonError, match="outside"):
        stage.session.load(inner / "x.demon")
    (inner / "link.wav").symlink_to(tmp_path.parent / "secret.wav")
    (inner / "y.demon").write_text('source "link.wav"\n')
    with pytest.raises(DemonError, match="outside"):
        stage.session.load(inner / "y.demon")


@pytest.mark.parametrize("what", ["folder", "binary", "huge", "gone"])
def test_files_that_are_no_scores(stage: Offline, tmp_path: Path, what: str) -> None:
    path = tmp_path / "bad.demon"
    if what == "folder":
        path.mkdir()
    elif what == "binary":
        path.write_bytes(b"\xff\xfe\x00blend")
    elif what == "huge":
        path.write_text("# " + "x" * 70_000)
    with pytest.raises(DemonError) as caught:
        stage.session.load(path)
    assert caught.value.hint
    assert level(stage) == 0.1


def test_an_empty_score_is_fine_and_changes_nothing(stage: Offline, tmp_path: Path) -> None:
    path = tmp_path / "empty.demon"
    path.write_text("")
    assert stage.session.load(path).messages == ()
    assert level(stage, 2) == 0.1


def test_when_the_model_fails_the_loop_plays_on_and_it_is_told_once(stage: Offline) -> None:
    engine = stage.output.engine
    assert isinstance(engine, MockEngine)
    engine.fail = True
    stage.session.apply("prompt = 'b'")
    assert level(stage, 5) == 0.1
    assert stage.output.notes == ["engine: the model is on fire"]
    engine.fail = False
    assert level(stage, 3) == 0.2


def test_generations_that_are_not_finite_are_dropped_and_counted(tmp_path: Path) -> None:
    engine = MockEngine(lambda r: float("nan") if r.values["prompt"] == "x" else 0.2)
    instrument = offline(engine, tmp_path)
    instrument.session.apply("tempo 120\nloop 2\nprompt = 'a'")
    run(instrument, BAR)
    instrument.session.apply("prompt = 'x'")
    out = run(instrument, 4 * BAR)
    assert np.allclose(out[4800:], 0.2, atol=1e-4)
    assert instrument.output.generator.status().dropped > 0


def test_the_status_speaks_in_bars(stage: Offline) -> None:
    stage.session.apply("prompt = \"<'a' 'b'>/4\"\nblend = sine.slow(2)")
    run(stage, BAR)
    status = stage.session.status()
    (deck,) = status.decks
    lanes = {lane.control: lane for lane in deck.lanes}
    assert "'b' in" in lanes["prompt"].next
    samples = lanes["blend"].samples
    assert samples is not None
    assert 0.0 <= samples.min() < 0.05 < 0.95 < samples.max() <= 1.0
    assert 0 < deck.playhead < 1
    assert status.telemetry.resting
    stage.session.apply("ring always")
    run(stage, BAR)
    assert stage.session.status().slots


def test_a_script_can_be_put_on_the_timeline(stage: Offline) -> None:
    called: list[float] = []
    stage.session.at(Fraction(3), "prompt = 'e'")
    stage.session.at(2, lambda: called.append(stage.session.status().cycle))
    heard = [level(stage, 1) for _ in range(5)]
    assert heard[-1] == 0.5
    assert called == [pytest.approx(2.0, abs=0.1)]


def test_what_plays_can_be_saved_as_a_score_and_loaded_again(
    stage: Offline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage.session.apply("prompt = 'c'\npan = sine.slow(4) * .5\ntempo 126")
    stage.session.apply("save mine")
    other = offline(MockEngine(by_prompt), tmp_path)
    other.session.load(tmp_path / "mine.demon")
    assert bound(other) == bound(stage)
    assert other.session.state.bpm == 126


def test_a_deck_ends_with_the_file_that_played_it(stage: Offline, tmp_path: Path) -> None:
    file = tmp_path / "air.demon"
    file.write_text("deck air\nloop 2\nprompt = 'c'\n")
    stage.session.load(file)
    assert level(stage, 3) == 0.4
    outcome = stage.session.remove(str(file))
    assert any("air" in line and "ends at bar" in line for line in outcome.messages)
    assert level(stage, 2) == 0.1
    assert list(stage.session.state.decks) == ["main"]
    stage.session.apply("undo")
    assert level(stage, 4) == 0.4
    stage.session.apply("redo")
    assert level(stage, 3) == 0.1


def test_a_chain_ends_with_the_line_that_said_it(stage: Offline, tmp_path: Path) -> None:
    file = tmp_path / "x.demon"
    scenes = "scene low { gain = .5 }\nscene high { gain = 2 }\n"
    file.write_text(scenes + "chain low 1, high 1\n")
    stage.session.load(file)
    assert sorted({level(stage, 1) for _ in range(6)} - {0.1}) == [0.05, 0.2]
    file.write_text(scenes)
    stage.session.load(file)
    assert level(stage, 2) == 0.1
    assert "gain" not in bound(stage)


def test_python_patterns_play_only_where_they_are_allowed(stage: Offline, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("from demon_live.dsl import deck\ndeck.gain = .5\n")
    with pytest.raises(DemonError, match="--python"):
        stage.session.load(path)
    stage.session.python = True
    stage.session.load(path)
    assert level(stage, 2) == 0.05
    # A set holds the score that it made, not the code.
    assert "import" not in stage.session.journal.recording().events[-1].text


def test_a_lane_that_fails_holds_its_last_values_and_the_others_go_on(stage: Offline) -> None:
    stage.session.apply("gain = .5\nblend = 1")
    assert level(stage, 2) == 0.05
    broken = stage.session.state.decks["main"].lanes["gain"]

    def fail(*_: object) -> list[Fraction]:
        raise RuntimeError("too much")

    object.__setattr__(broken, "jumps", fail)
    stage.session.apply("prompt = 'b'")
    assert level(stage, 3) == 0.1
    told = "\n".join(stage.session.events(0)[1])
    assert told.count("gain cannot be sampled") == 1


def test_words_in_double_quotes_are_told_the_right_quotes(stage: Offline) -> None:
    with pytest.raises(DemonError) as caught:
        stage.session.apply('prompt = "acid, 303"')
    assert "write prompt = 'acid, 303'" in str(caught.value)


def test_the_engine_that_plays_may_be_named_and_another_is_refused_with_the_remedy(
    stage: Offline,
) -> None:
    stage.session.apply(f"engine '{stage.output.engine_name}'")
    assert level(stage, 1) == 0.1
    with pytest.raises(DemonError, match="the engine is chosen at the start") as caught:
        stage.session.apply('engine "ace-step-v15-turbo"')
    assert "--engine ace-step-v15-turbo" in str(caught.value.hint)
    assert level(stage, 1) == 0.1


def test_a_name_too_long_for_a_file_is_refused_before_anything_is_recorded(
    stage: Offline, tmp_path: Path
) -> None:
    with pytest.raises(DemonError, match="at most 60 letters"):
        stage.session.apply(f"record '{'x' * 300}'")
    assert stage.session.recorder.name is None
    assert not list(tmp_path.glob("*.set.jsonl"))


def test_without_room_for_its_loop_a_text_is_refused_and_in_no_set(
    stage: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(audio: object) -> None:
        raise FileError("no room in the runtime folder")

    before, lines = stage.session.state, stage.session.journal.recording().events
    monkeypatch.setattr(stage.output, "reserve", full)
    with pytest.raises(DemonError, match="no room"):
        stage.session.apply("tempo 140")
    assert stage.session.state is before
    assert stage.session.journal.recording().events == lines
    monkeypatch.undo()
    assert level(stage, 2) == 0.1


def test_a_step_of_a_ramp_without_room_is_left_out_and_sampling_goes_on(
    stage: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.session.apply("tempo 128 over 4")
    reserve, calls = stage.output.reserve, []

    def full_once(audio: Mapping[str, Floats]) -> None:
        calls.append(audio)
        if len(calls) == 1:
            raise FileError("no room in the runtime folder")
        reserve(audio)

    monkeypatch.setattr(stage.output, "reserve", full_once)
    run(stage, 8 * BAR)
    assert any("left out: no room" in line for line in stage.session.events(0)[1])
    assert stage.session.state.bpm == 128
    assert level(stage, 2) == 0.1


def test_a_recording_without_sound_has_another_lamp_and_stop_says_so(
    stage: Offline, tmp_path: Path
) -> None:
    session = stage.session
    session.recorder._folder = tmp_path
    session.apply("record friday")
    sound = session.recorder.sound
    assert sound is not None
    # The file of `--audio file:` is another.
    for path in ("/elsewhere/friday.flac", str(tmp_path / "fridays.flac")):
        session.recorder.note_sound(path, True)
    assert not session.status().recording_lost
    session.recorder.note_sound(sound, True)
    assert session.status().recording == "friday"
    assert session.status().recording_lost
    session.recorder.note_sound(str(tmp_path / "friday-2.flac"), False)
    assert not session.status().recording_lost
    (line,) = session.apply("stop").messages
    assert "some of the sound is missing" in line
    session.apply("record saturday")
    assert session.apply("stop").messages == ("recorded · demon replay saturday",)
