"""Words of the stage: undo of anything, snapshots, the crossfader, mutes on their bar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demon_live.audio.files import write_audio
from demon_live.audio.sound_input import FileInput
from demon_live.errors import DemonError, ScoreError
from demon_live.lang import Bind, compile_source
from demon_live.lang.highlighting import highlights
from demon_live.replay.render import render
from demon_live.runtime.offline import Offline
from demon_live.session.output import NullOutput
from demon_live.session.scores import as_score
from demon_live.session.session import Session
from demon_live.sets.journal import SUFFIX
from tests.helpers.mock_engine import MockEngine, by_prompt, edges, offline, run

BAR = 96_000


@pytest.fixture
def stage(tmp_path: Path) -> Offline:
    """Two decks: main is level 0.1, two is level 0.2."""
    instrument = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply("tempo 120\nloop 1\nprompt = 'a'\ndeck two\nloop 1\nprompt = 'b'")
    run(instrument, BAR // 2)
    return instrument


def level(instrument: Offline, bars: float = 2.0) -> float:
    return round(float(np.median(run(instrument, round(bars * BAR))[-4800:])), 3)


def said(instrument: Offline) -> tuple[object, ...]:
    return instrument.session.state.said


@pytest.mark.parametrize(("typed", "mean"), [("twoo", "did you mean two?"), ("xy", "a new deck")])
def test_a_slip_of_the_finger_begins_no_deck(stage: Offline, typed: str, mean: str) -> None:
    with pytest.raises(DemonError, match=f"there is no deck '{typed}'") as refused:
        stage.session.apply(f"gain = .4\n{typed}.gain = .5")
    assert mean in str(refused.value.hint)
    assert refused.value.span is not None
    assert refused.value.span.line == 2
    assert set(stage.session.state.decks) == {"main", "two"}
    stage.session.apply(f"deck {typed} {{ gain = .5 }}\n{typed}.pan = .2")
    assert typed in stage.session.state.decks


def test_what_gets_a_name_is_told(stage: Offline) -> None:
    outcome = stage.session.apply("let wob(n) = sine.slow(n)\nscene peak { gain = 1 }")
    assert outcome.messages == ("wob(n) · a word from now on", "scene peak · go peak")


CHANGES = [
    "gain = .5",
    "mute two",
    "solo main",
    "tempo 140",
    "beats 3",
    "quant 2",
    "depth 2",
    "steps 4",
    "loop 2",
    "crossfade main two",
    "fader sine.slow(4)",
    "hush",
    "recall calm",
    "let wob(n) = sine.fast(n)",
    "scene x { gain = .2 }",
    "chain calm 2",
    "deck three\nloop 1\nprompt = 'c'",
    "prompt = 'c'\nmute two\ncrossfade main two\nquant 4",
]


@pytest.mark.parametrize("text", CHANGES)
def test_anything_can_be_undone_and_done_again(stage: Offline, text: str) -> None:
    stage.session.apply("scene calm { gain = .3 }")
    stage.session.apply("gain = .7")
    stage.session.apply("snapshot calm")
    stage.session.apply("gain = .9")
    before = said(stage)
    stage.session.apply(text)
    after = said(stage)
    assert before != after
    stage.session.apply("undo")
    assert said(stage) == before
    stage.session.apply("redo")
    assert said(stage) == after
    stage.session.apply("undo")
    stage.session.apply("undo")
    assert stage.session.state.decks["main"].bound["gain"].text == ".7"


def test_a_drag_is_one_step_of_undo(stage: Offline) -> None:
    stage.session.apply("gain = .9")
    for value in (0.8, 0.7, 0.6):
        stage.session.apply(f"gain = {value} now", "<drag a>")
    stage.session.apply("gain = .5 now", "<drag b>")
    assert bound(stage) == ".5"
    stage.session.apply("undo")
    assert bound(stage) == "0.6"
    stage.session.apply("undo")
    assert bound(stage) == ".9"
    # What is undone is no part of the drag any more.
    stage.session.apply("gain = .4 now", "<drag a>")
    stage.session.apply("undo")
    assert bound(stage) == ".9"


def bound(stage: Offline) -> str:
    return stage.session.state.decks["main"].bound["gain"].text


def test_undo_and_redo_of_mutes_and_solos_say_what_they_do(stage: Offline) -> None:
    replies = {
        "solo two": ("unsolo", "solo two"),
        "unsolo": ("solo two", "unsolo"),
        "mute two": ("unmute two", "mute two"),
        "unmute two\nmute main": ("mute two · unmute main", "mute main · unmute two"),
    }
    said_now: dict[str, tuple[str, str]] = {}
    for text in replies:
        stage.session.apply(text)
        back = " ".join(stage.session.apply("undo").messages)
        said_now[text] = (back, " ".join(stage.session.apply("redo").messages))
    assert said_now == replies


@pytest.mark.parametrize(("text", "package"), [("link on", "aalink"), ("clock in", "rtmidi")])
def test_time_is_not_said_to_be_shared_without_the_package(
    stage: Offline, monkeypatch: pytest.MonkeyPatch, text: str, package: str
) -> None:
    there: set[str] = set()
    monkeypatch.setattr(
        "demon_live.session.settings.find_spec", lambda name: name if name in there else None
    )
    without = f"{text}, but its package is not installed: bars stay our own"
    assert stage.session.apply(text).messages == (without,)
    there.add(package)
    assert stage.session.apply(text).messages == (text,)


def test_what_was_undone_is_heard(stage: Offline) -> None:
    stage.session.apply("mute two")
    assert level(stage) == 0.1
    stage.session.apply("undo")
    assert level(stage) == 0.3
    stage.session.apply("redo")
    assert level(stage) == 0.1
    stage.session.apply("undo")
    stage.session.apply("hush")
    assert level(stage) == 0.0
    stage.session.apply("undo")
    assert level(stage) == 0.3


def test_undo_after_a_hush_never_brings_silence_back(stage: Offline) -> None:
    stage.session.apply("hush")
    stage.session.apply("prompt = 'c'")
    stage.session.apply("undo")
    assert level(stage) == 0.3


def test_the_depth_of_the_ring_goes_back_to_the_engines_own(stage: Offline) -> None:
    own = stage.output.generator.ring.depth
    stage.session.apply("depth 1\nsteps 3")
    run(stage, BAR)
    assert (stage.output.generator.ring.depth, stage.output.generator.ring.steps) == (1, 3)
    stage.session.apply("undo")
    run(stage, BAR)
    assert stage.output.generator.ring.depth == own


def test_a_snapshot_is_the_whole_state_and_undo_follows_a_recall(stage: Offline) -> None:
    stage.session.apply("deck main\ngain = .5\nmute two\ncrossfade two main\nfader 1")
    stage.session.apply("snapshot verse")
    kept = said(stage)
    assert level(stage) == 0.05
    stage.session.apply("unmute two\ntempo 132\ndeck main\ngain = 2\nfader .5\ncrossfade")
    changed = said(stage)
    messages = stage.session.apply("recall verse").messages
    assert "mute two" in messages
    assert said(stage) == kept
    assert level(stage, 3) == 0.05
    stage.session.apply("undo")
    assert said(stage) == changed
    assert "verse" in stage.session.words().snapshots


def test_a_recall_may_move_there_over_cycles(stage: Offline) -> None:
    stage.session.apply("mute two")
    stage.session.apply("snapshot loud")
    stage.session.apply("deck main\ngain = 0 !")
    assert level(stage, 1.5) == 0.0
    stage.session.apply("recall loud over 4")
    begun = stage.output.mixer.position
    out = run(stage, 6 * BAR)
    start = -(-begun // BAR) * BAR - begun
    at = [start + int(x * BAR) for x in (0.01, 2, 4.05)]
    assert out[at] == pytest.approx([0.0, 0.05, 0.1], abs=0.002)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recall nothing", "there is no snapshot yet"),
        ("crossfade main drums", "no deck 'drums'"),
        ("crossfade main main", "one side only"),
        ("hush at 8", "acts at once"),
        ("learn prompt", "a knob gives numbers"),
        ("learn tempo", "no control 'tempo'"),
        ("learn drums.gain", "no deck 'drums'"),
        ("fader 'loud'", "fader takes numbers"),
        ("crossfade main", "two decks"),
    ],
)
def test_words_that_cannot_be_done_change_nothing(stage: Offline, text: str, words: str) -> None:
    before = stage.session.state
    with pytest.raises(DemonError) as caught:
        stage.session.apply(f"gain = .1\n{text}")
    assert words in str(caught.value)
    assert caught.value.span is not None
    assert caught.value.span.line == 2
    assert stage.session.state is before


def test_the_crossfader_is_equal_power_and_exact_at_its_ends(stage: Offline) -> None:
    stage.session.apply("crossfade main two")
    assert level(stage) == 0.1
    stage.session.apply("fader 1")
    assert level(stage) == 0.2
    stage.session.apply("fader .5")
    # Levels of 0.1 and 0.2 at -3 dB each.
    assert level(stage) == pytest.approx((0.1 + 0.2) * np.sqrt(0.5), abs=1e-3)
    stage.session.apply("crossfade")
    assert level(stage) == 0.3


def test_a_fader_pattern_steps_on_the_sample_and_multiplies_the_gain(stage: Offline) -> None:
    stage.session.apply('crossfade main two\nfader "0 1"\ndeck main\ngain = .5')
    run(stage, 2 * BAR)
    begun = stage.output.mixer.position
    out = run(stage, 2 * BAR)
    assert sorted({round(float(x), 3) for x in out[4800 :: BAR // 4]}) == [0.05, 0.2]
    rises = [e + begun for e in edges(out, 0.05, 0.2)]
    # The strip's own slew, 5 ms, begins at each half of a bar.
    assert rises
    assert all(0 <= e % (BAR // 2) <= 240 for e in rises)


def test_the_fader_moves_over_cycles(stage: Offline) -> None:
    stage.session.apply("crossfade main two")
    run(stage, BAR)
    begun = stage.output.mixer.position
    stage.session.apply("fader 1 over 4")
    out = run(stage, 6 * BAR)
    start = -(-begun // BAR) * BAR - begun
    middle = out[start + 2 * BAR]
    assert middle == pytest.approx(0.3 * np.sqrt(0.5), abs=1e-3)
    assert out[start + 4 * BAR + 4800] == pytest.approx(0.2, abs=1e-3)


def test_a_mute_waits_for_its_bar_and_a_later_word_overrules_it(stage: Offline) -> None:
    begun = stage.output.mixer.position
    assert "from bar 4" in " ".join(stage.session.apply("mute two at 4").messages)
    out = run(stage, 5 * BAR)
    fall = int(np.argmax(out < 0.25)) + begun
    assert 0 <= fall - 4 * BAR <= 480
    stage.session.apply("unmute two")
    assert level(stage) == 0.3
    stage.session.apply("mute two at 4")
    stage.session.apply("unmute two")
    assert level(stage, 6) == 0.3


def test_a_chain_moves_where_its_scenes_move(stage: Offline) -> None:
    stage.session.apply("mute two\nscene low { gain = 0 }\nscene high { gain = 1 over 2 }")
    stage.session.apply("chain low 2, high 4")
    run(stage, BAR // 2)
    lane = stage.session.state.decks["main"].bound["gain"]
    begin = lane.begin  # type: ignore[attr-defined]
    places = [0, 1.5, 2, 3, 4, 5.5, 6, 8, 9]
    values = [float(lane.at(begin + p)) for p in map(_fraction, places)]
    assert values == [0, 0, 0, 0.5, 1, 1, 0, 0, 0.5]
    cycles = np.array([float(begin) + p for p in places])
    assert lane.sample(cycles) == pytest.approx(values, abs=1e-6)


def _fraction(x: float):  # type: ignore[no-untyped-def]
    from fractions import Fraction

    return Fraction(x)


def test_a_chain_may_begin_a_deck(stage: Offline) -> None:
    stage.session.apply("scene air { deck air { prompt = 'c' } }\nmute main\nmute two")
    stage.session.apply("chain air 2")
    assert level(stage, 4) == 0.3


def test_all_that_plays_is_saved_and_plays_the_same_from_the_file(
    stage: Offline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage.session.apply(
        "let wob(n) = sine.fast(n)\ndeck main\nblend = wob(2) * .5\nquant 2\ndepth 2\n"
        "scene low { gain = .2; deck two { gain = .1 over 2 } }\nscene high { gain = 1 }\n"
        "chain low 2, high 2\ncrossfade two main\nfader saw.slow(4)\nmute two\nsolo main"
    )
    stage.session.apply("save mine")
    text = (tmp_path / "mine.demon").read_text()
    assert compile_source(text).statements
    other = offline(MockEngine(by_prompt), tmp_path)
    other.session.load(tmp_path / "mine.demon")
    one, two = stage.session.state, other.session.state
    for name, deck in one.decks.items():
        assert {k: v.text for k, v in deck.bound.items()} == {
            k: v.text for k, v in two.decks[name].bound.items()
        }
    assert (one.sides, one.muted, one.soloed, one.quant, one.depth) == (
        two.sides,
        two.muted,
        two.soloed,
        two.quant,
        two.depth,
    )
    assert two.globals.bound["fader"].text == "saw.slow(4)"
    assert list(one.scenes) == list(two.scenes)


@pytest.mark.parametrize(
    "said",
    [
        "(saw * .5).fast(2)",
        ".5 * (saw + .2)",
        "(saw) + (.1)",
        "((saw)).slow(2)",
        "(  # slow (ish)\n  saw * .5  # and :)\n).slow(2)",
        "(saw * .5 # to the end\n).slow(2) * (tri +\n (.5))",
        '"1(3,8) .5" * (.5)',
        "(cc(21) * 2).round.pick(.1, .2, .3)",
    ],
)
def test_an_expression_is_saved_with_all_its_parentheses(stage: Offline, said: str) -> None:
    stage.session.apply(f"blend = {said}")
    text = as_score(stage.session.state)
    (bind,) = [b for b in compile_source(text).statements if getattr(b, "control", "") == "blend"]
    (meant,) = compile_source(f"blend = {said}").statements
    assert isinstance(bind, Bind)
    assert isinstance(meant, Bind)
    assert bind.key == meant.key
    # A display finds the written line by the text of the lane that plays.
    (line,) = highlights(f"blend = {said}")
    assert line.text == stage.session.state.decks["main"].bound["blend"].text


def test_a_set_with_all_of_it_replays_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [
        "tempo 120\nloop 1\nprompt = 'a'\ndeck two\nloop 1\nprompt = 'b'",
        "crossfade main two\nfader sine",
        "snapshot one",
        "mute two at 2",
        "tempo 130",
        "undo",
        "recall one over 2",
        "fader 1 over 2",
        "undo\nundo",
        "redo",
        "hush",
        "undo",
        "solo two in 1",
        "record two_hours",
    ]
    take = offline(MockEngine(by_prompt), tmp_path)
    pieces = []
    for i in range(9 * len(texts)):
        if i % 7 == 0 and i // 7 < len(texts):
            take.session.apply(texts[i // 7])
        pieces.append(take.turn())
    take.session.apply("stop")
    whole = np.concatenate(pieces)
    again = render(tmp_path / f"two_hours{SUFFIX}", start=0, engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    assert np.array_equal(again[: len(whole)], whole)
    assert np.unique(np.round(whole, 3)).size > 10


def test_a_recording_may_have_a_track_for_each_deck(tmp_path: Path) -> None:
    take = offline(MockEngine(by_prompt), tmp_path)
    with pytest.raises(ScoreError, match="'stems' is a second one"):
        take.session.apply("record friday stems")
    take.session.apply("record friday tracks")
    assert (take.session.recorder.name, take.session.recorder.tracks) == ("friday", True)
    take.session.apply("stop")
    take.session.apply("record sunday")
    assert not take.session.recorder.tracks
    take.session.apply("stop")


def test_only_new_sets_have_the_detail_of_their_source(tmp_path: Path) -> None:
    assert Session(NullOutput()).state.detail == 1.0
    assert Session(NullOutput(), start={"rules": 2}).state.detail == 0.0


def test_four_taps_set_the_tempo_from_the_median_of_their_gaps(stage: Offline) -> None:
    moments = iter([0.0, 0.5, 1.1, 1.6, 2.1])
    stage.session.clock = lambda: next(moments)
    said = [stage.session.apply("tap").messages for _ in range(3)]
    assert said == [("tap 1 of 4",), ("tap 2 of 4",), ("tap 3 of 4",)]
    first = stage.session.apply("tap").messages
    assert first[0] == "tap"
    assert stage.session.state.bpm == 120
    before = len(stage.session.journal.recording().events)
    stage.session.taps = [0.0, 0.4, 0.8, 1.2]
    moments = iter([1.6])
    stage.session.apply("tap")
    assert stage.session.state.bpm == 150
    texts = [event.text for event in stage.session.journal.recording().events]
    # A replay has the tempo, not the taps.
    assert texts[before:] == ["tempo 150"]
    assert "tap" not in texts
    stage.session.apply("undo")
    assert stage.session.state.bpm == 120


def test_a_long_gap_begins_the_taps_anew(stage: Offline) -> None:
    moments = iter([0.0, 0.5, 1.0, 9.0, 9.01, 9.02, 9.03])
    stage.session.clock = lambda: next(moments)
    said = [stage.session.apply("tap").messages[0] for _ in range(7)]
    assert said[3] == "tap 1 of 4"
    assert said[6] == "tap · 6000 bpm is no tempo: 20..400 bpm"
    assert stage.session.state.bpm == 120


def test_out_says_where_a_deck_goes_and_renews_no_loop() -> None:
    output = NullOutput()
    session = Session(output)
    session.apply("loop 2\ndeck b { loop 1 }")
    loops = {name: deck.loops for name, deck in session.state.decks.items()}
    session.apply("deck b { out 3 }")
    assert {name: deck.out for name, deck in output.mix.decks.items()} == {"main": 1, "b": 3}
    assert {name: deck.loops for name, deck in session.state.decks.items()} == loops
    with pytest.raises(ScoreError, match="channels go in pairs: 4 is the second of one") as error:
        session.apply("out 4")
    assert error.value.hint == "write out 3, or out 5"
    assert "out 3" in as_score(session.state)
    session.apply("undo")
    assert output.mix.decks["b"].out == 1
    session.apply("redo")
    assert output.mix.decks["b"].out == 3
    assert {name: deck.loops for name, deck in session.state.decks.items()} == loops


def test_thru_and_nudge_in_need_an_input_and_reach_it(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="there is no input"):
        Session(NullOutput()).apply("loop 2\nthru = .5")
    write_audio(tmp_path / "in.wav", np.full(96000, 0.5, np.float32))
    heard = FileInput(tmp_path / "in.wav")
    session = Session(NullOutput(), sound_in=heard)
    session.apply("loop 2\nnudge in -8")
    session.pump()
    assert (heard.nudge, heard.status().state) == (-8.0, "closed")
    session.apply("thru = .5")
    session.pump()
    shown = session.status().sound_in
    assert shown is not None
    assert (shown.name, shown.state) == (f"file:{tmp_path / 'in.wav'}", "open")


def test_thru_is_rendered(tmp_path: Path) -> None:
    played = np.random.default_rng(5).uniform(-0.25, 0.25, (48000, 2)).astype(np.float32)
    write_audio(tmp_path / "in.wav", played)
    sound = []
    for value in (0, 0.5):
        with offline(MockEngine(lambda request: 0.0), tmp_path, input=tmp_path / "in.wav") as made:
            made.session.apply(f"tempo 120\nloop 1\nthru = {value}")
            sound.append(made.render(seconds=1))
    added = sound[1] - sound[0]
    assert np.allclose(added[4800:], 0.5 * played[4800:], atol=1e-5)
