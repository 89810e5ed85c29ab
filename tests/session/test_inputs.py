"""Controllers: knobs and keys as patterns, coalesced, learned, replayed without a device."""

from __future__ import annotations

import re
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live.control.midi_input import Coalescer, Controllers, moves_of
from demon_live.controls import CONTROLS, FADER
from demon_live.errors import ScoreError
from demon_live.lang import compile_source
from demon_live.lang.controllers import EMPTY, ControllerHistory, Key, Move
from demon_live.replay.render import render
from demon_live.runtime.offline import Offline
from demon_live.session.inputs import GAP, MOVE, Inputs, binding, read_moves, write_moves
from demon_live.sets.journal import SUFFIX, load
from tests.helpers.fake_midi import FakeBackend
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run

BAR = 96_000
KNOB = Key("cc", 21, 1)


def turned(
    *values: tuple[float, float], key: Key = KNOB, length: float = 0.02
) -> ControllerHistory:
    hands = EMPTY
    for cycle, value in values:
        hands = hands.moved([Move(key, value)], cycle, length)
    return hands


def lane(text: str, hands: ControllerHistory):  # type: ignore[no-untyped-def]
    (found,) = compile_source(text).decks["main"].values()
    return found.resolve(hands)


# --- as patterns ------------------------------------------------------------------------------


def test_a_knob_is_a_function_of_time() -> None:
    hands = turned((1, 0.5), (2, 1.0))
    knob = lane("blend = cc(21)", hands)
    cycles = np.array([0, 1, 1.5, 2, 2.01, 2.02, 5])
    assert knob.sample(cycles) == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.75, 1, 1])
    assert lane("blend = cc(21).range(.2, .4)", hands).sample(cycles)[-1] == pytest.approx(0.4)
    # The past can be played with: the knob one cycle ago.
    assert lane("blend = cc(21).late(1)", hands).sample(cycles + 1) == pytest.approx(
        knob.sample(cycles)
    )


def test_a_move_in_the_middle_of_a_move_goes_on_from_where_it_is() -> None:
    hands = turned((0, 0.0), (1, 1.0), (1.01, 0.0), length=0.02)
    values = lane("blend = cc(21)", hands).sample(np.array([1, 1.01, 1.02, 1.03]))
    assert values == pytest.approx([0, 0.5, 0.25, 0], abs=1e-6)


def test_channels_are_told_apart_and_without_one_any_is_heard() -> None:
    hands = turned((1, 0.2)).moved([Move(Key("cc", 21, 2), 0.8)], 2, 0.02)
    at = np.array([3.0])
    assert lane("blend = cc(21, 1)", hands).sample(at) == pytest.approx(0.2)
    assert lane("blend = cc(21, 2)", hands).sample(at) == pytest.approx(0.8)
    assert lane("blend = cc(21)", hands).sample(at) == pytest.approx(0.8)


def test_until_a_knob_moves_the_control_keeps_its_default() -> None:
    for text, control in (("lpf = cc(21).rangex(200, 8000)", "lpf"), ("gain = cc(1)", "gain")):
        found = lane(text, EMPTY)
        assert found.sample(np.array([0.0, 9.0])) == pytest.approx(CONTROLS[control].default)
        assert found.jumps(Fraction(0), Fraction(9)) == []
    both = lane("blend = cc(21) * cc(22)", turned((0, 0.5)))
    assert both.sample(np.array([1.0])) == pytest.approx(1.0)


def test_a_key_steps_where_it_is_pressed() -> None:
    hands = EMPTY.moved([Move(Key("note", 0, 1), 60), Move(Key("gate", 0, 1), 0.5)], 1, 0.02)
    hands = hands.moved([Move(Key("gate", 0, 1), 0.0)], 2, 0.02)
    hands = hands.moved([Move(Key("note", 0, 1), 64)], 3, 0.02)
    seed, noise = lane("seed = note", hands), lane("noise = gate", hands)
    assert [seed.at(Fraction(c)) for c in (1, 2, 3)] == [60, 60, 64]
    assert seed.jumps(Fraction(0), Fraction(4)) == [3]
    assert noise.sample(np.array([1.0, 1.99, 2.0])) == pytest.approx([0.5, 0.5, 0])
    assert lane('lpf = note("c4").mul(10)', hands).at(Fraction(0)) == 600


def test_structure_that_follows_a_knob_is_made_anew_with_it() -> None:
    text = "noise = cc(21).segment(4)"
    one, two = turned((0, 0.5)), turned((0, 0.5), (1, 1.0))
    found = compile_source(text).decks["main"]["noise"]
    at = np.array([0.9, 1.5])
    assert found.resolve(one).sample(at) == pytest.approx([0.5, 0.5])
    assert found.resolve(two).sample(at) == pytest.approx([0.5, 1.0])
    assert found.resolve(two) is found.resolve(two.moved([Move(Key("cc", 9, 1), 1.0)], 2, 0.1))


def test_old_versions_of_a_history_stay_as_they_were() -> None:
    first = turned((0, 0.0))
    branches = [first.moved([Move(KNOB, v)], 1, 0) for v in (0.25, 0.75)]
    later = branches[0]
    for i in range(100):
        later = later.moved([Move(KNOB, 1.0)], 2 + i, 0)
    assert [b.value(KNOB, 5) for b in (first, *branches)] == [0.0, 0.25, 0.75]
    assert later.value(KNOB, 1.5) == 0.25


# --- MIDI -------------------------------------------------------------------------------------


def test_messages_become_moves() -> None:
    held: dict[int, list[int]] = {}
    assert moves_of(b"\xb1\x15\x7f", held) == [Move(Key("cc", 21, 2), 1.0)]
    assert moves_of(b"\xe0\x00\x40", held) == [Move(Key("bend", 0, 1), 0.0)]
    assert moves_of(b"\xe0\x7f\x7f", held)[0].value == 1.0
    assert moves_of(b"\xe0\x00\x00", held)[0].value == -1.0
    press = moves_of(b"\x90\x3c\x7f", held)
    assert press == [Move(Key("note", 0, 1), 60), Move(Key("gate", 0, 1), 1.0)]
    moves_of(b"\x90\x40\x7f", held)
    assert moves_of(b"\x80\x3c\x00", held) == []
    assert moves_of(b"\x90\x40\x00", held) == [Move(Key("gate", 0, 1), 0.0)]
    for data in (b"", b"\xf8", b"\xb0\x7b\x00", b"\xc0\x01", b"\xd0\x05\x00"):
        assert moves_of(data, held) == []


def test_moves_are_kept_as_text_and_damage_loses_only_its_line() -> None:
    moves = [Move(Key("cc", 21, 1), 64 / 127), Move(Key("bend", 0, 16), -1.0)]
    text = write_moves(moves)
    back = read_moves(text)
    assert [m.key for m in back] == [m.key for m in moves]
    assert write_moves(back) == text
    assert read_moves("cc 1\nnonsense 1 1 1\ncc x 1 1\n" + text) == back


def test_a_thousand_messages_a_second_are_25_moments_and_the_last_is_not_lost() -> None:
    coalescer = Coalescer()
    moments = []
    for i in range(1000):
        now = i / 1000
        coalescer.add(bytes((0xB0, 21, i % 128)))
        if moves := coalescer.take(now):
            moments.append((now, moves))
    assert moments[0][0] == 0.0
    assert len(moments) <= 26
    assert all(len(moves) == 1 for _, moves in moments)
    last = coalescer.take(2.0)
    assert last == [Move(KNOB, (999 % 128) / 127)]
    assert not coalescer.waiting


def test_a_press_and_its_release_in_one_moment_are_both_heard() -> None:
    coalescer = Coalescer()
    coalescer.add(b"\x90\x3c\x7f")
    coalescer.add(b"\x80\x3c\x00")
    first, then = coalescer.take(0.0), coalescer.take(GAP)
    assert [m.value for m in first if m.key.kind == "gate"] == [1.0]
    assert [m.value for m in then if m.key.kind == "gate"] == [0.0]


def test_every_numeric_control_can_be_bound_to_a_knob() -> None:
    for control in (*CONTROLS.values(), FADER):
        if control.numeric and control.shape != "hits":
            text = binding("drums", control.name, control, Key("cc", 5, 1))
            assert not compile_source(text).warnings, text


# --- in a session -----------------------------------------------------------------------------


def started(instrument: Offline) -> Offline:
    """A deck that plays prompt 'd', level 0.4."""
    instrument.session.apply("tempo 120\nloop 1\nprompt = 'd'")
    run(instrument, BAR // 2)
    return instrument


@pytest.fixture
def stage(tmp_path: Path) -> Offline:
    return started(offline(MockEngine(by_prompt), tmp_path))


def turn(stage: Offline, value: float, number: int = 21) -> None:
    stage.session.hear([Move(Key("cc", number, 1), value)])


def level(stage: Offline) -> float:
    return round(float(np.median(run(stage, BAR)[-4800:])), 3)


def test_a_score_with_a_knob_plays_without_one_and_it_is_told_once(stage: Offline) -> None:
    first = stage.session.apply("gain = cc(21).range(0, .5)")
    assert any("cc(21) has not moved yet" in w for w in first.warnings)
    assert not stage.session.apply("pan = cc(21) * 0").warnings
    assert level(stage) == 0.4
    turn(stage, 0.5)
    assert level(stage) == 0.1


def test_a_knob_sweeps_without_a_step(stage: Offline) -> None:
    stage.session.apply("gain = cc(21)")
    turn(stage, 0.0)
    run(stage, 2 * BAR)
    begun = stage.output.mixer.position
    pieces = []
    for i in range(20):
        turn(stage, (i + 1) / 20)
        pieces.append(stage.turn()[:, 0])
    out = np.concatenate(pieces)
    assert out[-1] > 0.3
    # From 0 to 0.4 in 20 moves: each is a line of 40 ms, with the strip's own slew at its ends.
    assert np.abs(np.diff(out)).max() < 2 * (0.4 / 20) / MOVE * 1.5
    assert begun > 0


def test_learn_binds_the_knob_that_is_moved_on_purpose(stage: Offline) -> None:
    stage.session.apply("learn lpf")
    turn(stage, 0.5, number=9)
    turn(stage, 0.51, number=9)
    assert "lpf" not in stage.session.state.decks["main"].bound
    turn(stage, 0.2, number=7)
    turn(stage, 0.3, number=7)
    bound = stage.session.state.decks["main"].bound["lpf"]
    assert bound.text == "cc(7).rangex(20, 20000)"
    assert "lpf = cc(7)" in " ".join(stage.session.events()[1])
    turn(stage, 0.9, number=9)
    assert stage.session.state.decks["main"].bound["lpf"] is bound
    stage.session.apply("undo")
    assert "lpf" not in stage.session.state.decks["main"].bound


@pytest.mark.parametrize(
    ("to", "name", "text"),
    [
        ("osc 9", "fog", "cc(7)"),
        ("midi 'nano' 1", "cc74", "cc(7)"),
        ("midi 'nano' 1", "bend", "cc(7).range(-1, 1)"),
        ("midi 'nano' 1", "program", "cc(7).range(0, 127).round"),
        ("superdirt", "lpf", "cc(7)"),
    ],
)
def test_learn_knows_the_names_of_decks_that_go_elsewhere(
    stage: Offline, to: str, name: str, text: str
) -> None:
    stage.session.apply(f"deck x {{ to {to}; {name} = 0 }}\nlearn x.{name}")
    turn(stage, 0.2, number=7)
    turn(stage, 0.3, number=7)
    assert stage.session.state.decks["x"].bound[name].text == text


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("midi 'nano' 1", "fog", "no control 'fog'"),
        ("midi 'nano' 1", "note", "a knob gives numbers"),
        ("osc 9", "a.b", "no control 'a.b'"),
    ],
)
def test_learn_refuses_what_a_knob_cannot_turn(
    stage: Offline, to: str, name: str, message: str
) -> None:
    stage.session.apply(f"deck x {{ to {to}; gain = 0 }}")
    with pytest.raises(ScoreError, match=re.escape(message)):
        stage.session.apply(f"learn x.{name}")


def test_learn_can_be_taken_back_and_the_fader_can_be_learned(stage: Offline) -> None:
    stage.session.apply("learn gain")
    stage.session.apply("learn")
    turn(stage, 0.0)
    turn(stage, 1.0)
    assert "gain" not in stage.session.state.decks["main"].bound
    stage.session.apply("learn fader")
    turn(stage, 0.0, number=14)
    turn(stage, 1.0, number=14)
    assert stage.session.state.globals.bound["fader"].text == "cc(14)"


def test_a_set_with_a_controller_replays_without_one_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    take = offline(MockEngine(by_prompt), tmp_path)
    take.session.apply("tempo 120\nloop 1\nprompt = 'd'\ngain = cc(21).range(.2, 1)")
    take.session.apply("record knobs")
    pieces = []
    for i in range(90):
        if i % 3 == 0:
            take.session.hear([Move(KNOB, (i % 30) / 30), Move(Key("note", 0, 1), 40 + i % 12)])
        if i == 20:
            take.session.apply("learn blend")
        if i == 30:
            take.session.apply('seed = note.segment(2)\npan = cc(21).late(1/2) * "1 -1"')
        pieces.append(take.turn())
    take.session.apply("stop")
    whole = np.concatenate(pieces)
    recorded = load(tmp_path / f"knobs{SUFFIX}")
    assert sum(e.kind == "hands" for e in recorded.events) == 30
    # What `learn` led to is in the set as a statement of its own.
    assert any(e.text.startswith("blend = cc(21)") for e in recorded.events)
    again = render(tmp_path / f"knobs{SUFFIX}", engine=MockEngine(by_prompt)).audio  # type: ignore[arg-type]
    assert np.array_equal(again[: len(whole)], whole)
    assert np.unique(np.round(whole[:, 0], 2)).size > 10


def test_controllers_hear_a_fake_port_in_a_thread_of_their_own() -> None:
    backend = FakeBackend()
    heard: list[Move] = []
    done = threading.Event()

    def hear(moves) -> None:  # type: ignore[no-untyped-def]
        heard.extend(moves)
        if heard[-1].value == 1.0:
            done.set()

    controllers = Controllers(hear, backend=backend)
    for value in range(128):
        backend.feed(bytes((0xB0, 21, value)))
        backend.feed(b"\xf8")
    assert done.wait(20)
    controllers.close()
    assert {m.key for m in heard} == {KNOB}
    assert len(heard) < 128
    assert backend.ports == []


def test_without_a_device_a_controller_is_a_problem_not_an_error(tmp_path: Path) -> None:
    backend = FakeBackend(inputs=[])
    inputs = Inputs(lambda hear: Controllers(hear, backend=backend))
    stage = started(offline(MockEngine(by_prompt), tmp_path, inputs=inputs))
    outcome = stage.session.apply("gain = cc(21)")
    assert any("no MIDI device is plugged in" in w for w in outcome.warnings)
    assert level(stage) == 0.4
    stage.session.close()
