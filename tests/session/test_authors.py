"""Several authors on one session: the set says who did what, and undo is each one's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demon_live.errors import DemonError
from demon_live.session.output import NullOutput
from demon_live.session.session import Session
from demon_live.session.status import Outcome
from demon_live.session.undo import speaking_as


@pytest.fixture
def stage() -> Session:
    stage = Session(NullOutput())
    stage.by = "owner"
    stage.apply("gain = 1\nblend = 0\ndeck two { gain = .5 }")
    return stage


def say(stage: Session, by: str, text: str) -> Outcome:
    with speaking_as(by):
        return stage.apply(text)


def plays(stage: Session, control: str, deck: str = "main") -> str:
    found = stage.state.decks[deck].bound.get(control)
    return "" if found is None else found.text


@pytest.mark.parametrize(
    "other", ["gain = .3", "mute two", "tempo 100", "two.lpf = 900", "let x = 2", "hush"]
)
def test_undo_and_redo_are_of_ones_own_and_leave_what_others_did(
    stage: Session, other: str
) -> None:
    say(stage, "ann", "blend = .5")
    say(stage, "bob", other)
    state = stage.state
    say(stage, "ann", "undo")
    assert plays(stage, "blend") == "0"
    assert stage.state.decks["main"].said["gain"] == state.decks["main"].said["gain"]
    assert dict(stage.state.decks["two"].bound) == dict(state.decks["two"].bound)
    assert (stage.state.muted, stage.state.bpm) == (state.muted, state.bpm)
    assert dict(stage.state.lets) == dict(state.lets)
    assert say(stage, "ann", "undo").messages == ("nothing of yours to undo",)
    say(stage, "ann", "redo")
    assert plays(stage, "blend") == ".5"
    say(stage, "bob", "undo")
    assert stage.state.said[1:3] == (120, 4)
    assert plays(stage, "gain") == "1"
    assert plays(stage, "blend") == ".5"


def test_what_somebody_changed_since_is_not_undone_and_the_error_says_who(stage: Session) -> None:
    say(stage, "cem", "blend = .1")
    say(stage, "ann", "blend = .5\npan = .2\nlpf = 900")
    say(stage, "bob", "blend = .7\nlpf = 400\nhpf = 90")
    before = stage.state
    with pytest.raises(DemonError, match=":1:1: bob changed blend, lpf since") as refused:
        say(stage, "ann", "undo")
    assert refused.value.span is not None
    assert stage.state is before
    say(stage, "bob", "undo")
    say(stage, "ann", "undo")
    assert plays(stage, "blend") == ".1"
    assert plays(stage, "pan") == plays(stage, "hpf") == ""


@pytest.mark.parametrize(
    ("own", "other", "named"),
    [
        ("tempo 100", "tempo 90", "tempo"),
        ("loop 8", "loop 2", "loop of main"),
        ("crossfade main two", "crossfade two main", "crossfade"),
        ("deck three { gain = 1 }", "three.gain = .2\nthree.pan = .1", "three.gain"),
        ("fader = .5", "fader = .2", "fader"),
        ("let x = 1", "let x = 2", "let x"),
        ("quant 2", "quant 4", "quant"),
    ],
)
def test_anything_that_two_changed_stays(stage: Session, own: str, other: str, named: str) -> None:
    say(stage, "ann", own)
    say(stage, "bob", other)
    before = stage.state
    with pytest.raises(DemonError, match=f"bob changed {named} since"):
        say(stage, "ann", "undo")
    assert stage.state is before


def test_a_deck_that_one_began_goes_and_one_that_ended_comes_back(stage: Session) -> None:
    say(stage, "ann", "deck three { gain = .2 }")
    say(stage, "bob", "deck two off")
    say(stage, "ann", "undo")
    assert set(stage.state.decks) == {"main"}
    say(stage, "bob", "undo")
    assert set(stage.state.decks) == {"main", "two"}
    assert plays(stage, "gain", "two") == ".5"


def test_a_deck_to_which_others_added_something_stays(stage: Session) -> None:
    say(stage, "ann", "deck three { gain = .2 }")
    say(stage, "bob", "three.pan = .1")
    say(stage, "ann", "undo")
    assert set(stage.state.decks["three"].bound) == {"pan"}


def test_without_other_authors_undo_goes_back_to_the_state_before(stage: Session) -> None:
    before = stage.state.said
    stage.apply("blend = .5\nmute two")
    stage.apply("undo")
    assert stage.state.said == before


def test_the_set_names_the_authors_and_replays_their_undos() -> None:
    stage = Session(NullOutput())
    stage.by = "owner"
    stage.apply("gain = 1\nblend = 0")
    say(stage, "ann", "blend = .5")
    say(stage, "bob", "gain = .3")
    say(stage, "ann", "undo")
    recording = stage.journal.recording()
    assert [event.by for event in recording.events] == ["owner", "ann", "bob", "ann"]
    again = Session(NullOutput())
    for event in recording.events:
        again.repeat(event)
    assert (plays(again, "blend"), plays(again, "gain")) == ("0", ".3")
    # A set of before names nobody: its undos are of the last change.
    before = Session(NullOutput())
    for event in recording.map(lambda e: replace(e, by="")).events:
        before.repeat(event)
    assert plays(before, "gain") == "1"
    assert plays(before, "blend") == ".5"
