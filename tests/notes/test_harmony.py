"""Names of notes and chords, and errors that say what was meant."""

import pytest

from demon_live.controls import CONTROLS
from demon_live.errors import ScoreError
from demon_live.lang import compile_source
from demon_live.notes.harmony import chord_pitches, note_name, note_number, pitches_of, voiced


@pytest.mark.parametrize(
    ("name", "pitches"),
    [
        ("C", (48, 52, 55)),
        ("Am", (57, 60, 64)),
        ("C^7", (48, 52, 55, 59)),
        ("C-7", (48, 51, 55, 58)),
        ("F#m7b5", (54, 57, 60, 64)),
        ("Bbsus4", (58, 63, 65)),
        ("G/B", (47, 55, 59, 62)),
        ("Ebmaj9/G", (43, 51, 55, 58, 62, 65)),
    ],
)
def test_a_chord_is_its_root_in_octave_3_and_what_lies_above(name, pitches):
    assert chord_pitches(name) == pitches


def test_voicings_keep_near_c4_and_turn_upwards():
    assert [voiced(name) for name in ("C", "F", "Am")] == [(55, 60, 64), (57, 60, 65), (57, 60, 64)]
    assert voiced("C", 1) == (60, 64, 67)
    assert voiced("G/B") == (47, 55, 59, 62)


def test_names_and_numbers_of_notes():
    assert [note_number(name) for name in ("c4", "eb", "f#2", "bb-1")] == [60, 51, 42, 10]
    assert [note_name(pitch) for pitch in (60, 51, 42)] == ["c4", "eb3", "f#2"]


def test_a_note_lies_in_the_range_of_its_voice():
    bass, lead = CONTROLS["bass"], CONTROLS["lead"]
    assert pitches_of("a", bass) == (33.0,)
    assert pitches_of("a5", bass) == (45.0,)
    assert pitches_of("a5", lead) == (81.0,)
    assert pitches_of(20, lead) == (56.0,)


@pytest.mark.parametrize(
    ("score", "message", "hint"),
    [
        ('chord = "<Hm F>"', "'Hm' is no chord", "H is called B: Bm"),
        ('chord = "am"', "'am' is no chord", "capital: Am"),
        ('chord = "Cmaj8"', "'Cmaj8' is no chord", "Cmaj7"),
        ('bass = "a1 Am"', "'Am' is no note name", "its root is 'a'"),
        ('lead = "h3"', "'h3' is no note name", "called b: b3"),
        ('kick = "bd"', 'kick takes numbers, and "bd" is text', 'kick = "1*4"'),
    ],
)
def test_what_is_no_note_is_named_with_what_was_meant(score, message, hint):
    with pytest.raises(ScoreError) as caught:
        compile_source(score)
    assert caught.value.message == message
    assert hint in str(caught.value.hint)
    assert caught.value.span is not None
    word = score[caught.value.span.start : caught.value.span.end]
    assert word in message


def test_a_note_out_of_range_is_moved_and_said_so():
    (warning,) = compile_source('bass = "a5"').warnings
    assert warning.message == "bass plays e1 to g3: a5 is moved to a2"
    assert not compile_source('bass = "a1 g3"').warnings
    assert not compile_source("lead = note.segment(8)").warnings


def test_a_curve_plays_no_events():
    (warning,) = compile_source("kick = sine").warnings
    assert warning.message == "kick plays events, and a curve has none"
    assert not compile_source("kick = sine.segment(4)").warnings


def test_chords_become_notes_of_other_voices():
    lane = compile_source('bass = "<Am G/B>".root').decks["main"]["bass"]
    assert [event.value for event in lane.events(0, 2)] == [45, 47]
    lane = compile_source('lead = "<C>".voicing').decks["main"]["lead"]
    assert [event.value for event in lane.events(0, 1)] == [55, 60, 64]
