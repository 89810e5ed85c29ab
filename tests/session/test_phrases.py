"""The notes of a lap: what begins in it, what goes on in it, where a score changes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from demon_live.core import NoteEvent
from demon_live.errors import ScoreError
from demon_live.lang import Lane, compile_source
from demon_live.session.sampler import DeckSampler, phrase
from demon_live.session.scores import as_score
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap
from tests.helpers.mock_engine import MockEngine, by_prompt, offline


def lanes(text: str) -> dict[str, Lane]:
    return dict(compile_source(text).decks["main"])


def notes(text: str, begin: int = 0, cycles: int = 1) -> tuple[NoteEvent, ...]:
    return phrase(lanes(text), Fraction(begin), cycles).notes


def begins(text: str, begin: int = 0, cycles: int = 1) -> list[float]:
    return [note.begin for note in notes(text, begin, cycles)]


def test_each_event_is_a_hit_and_its_value_how_hard() -> None:
    assert notes('kick = "1 ~ [.5 0] ~"') == (
        NoteEvent("kick", 0.0, 0.25, 0.0, 1.0),
        NoteEvent("kick", 0.5, 0.125, 0.0, 0.5),
    )
    assert begins('snare = "1(3,8)"') == [0.0, 0.375, 0.75]
    assert begins("kick = 1", 4, 2) == [0.0, 1.0]
    assert notes("kick = sine") == ()


def test_a_velocity_may_be_a_curve_under_the_steps() -> None:
    loud = [note.velocity for note in notes('hat = "1*4" * saw')]
    assert loud == [0.25, 0.5, 0.75]  # the first is silent


def test_a_level_counts_where_a_note_begins() -> None:
    loud = [n.velocity for n in notes('kick = ".8*2"; kick_level = "1 .5"')]
    assert loud == [0.8, 0.4]


def test_a_chord_line_longer_than_the_loop_is_right_in_every_lap() -> None:
    text = 'chord = "<C F G Am>"'
    pitches = [{n.pitch for n in notes(text, lap * 2, 2)} for lap in (0, 1, 2)]
    assert pitches[0] == {48, 52, 55, 53, 57, 60}
    assert pitches[1] == {55, 59, 62, 57, 60, 64}
    assert pitches[2] == pitches[0]
    assert notes(text, 0, 2) == notes(text, 4, 2)


def test_a_note_goes_on_into_the_next_lap_and_a_hit_does_not() -> None:
    assert [(n.begin, n.length) for n in notes('bass = "a1/4"', 2, 1)] == [(0.0, 1.0)]
    assert [(n.begin, n.length) for n in notes('bass = "a1/4"', 0, 3)] == [(0.0, 3.0)]
    assert notes('kick = "1/4"', 2, 1) == ()


def test_notes_change_where_a_lane_switches() -> None:
    old, new = lanes('bass = "a1*2"')["bass"], lanes('bass = "e1*2"')["bass"]
    lane = Lane.switch(old, new, Fraction(5, 4))
    found = phrase({"bass": lane}, Fraction(1), 1).notes
    assert [(n.begin, n.length, n.pitch) for n in found] == [
        (0.0, 0.25, 33.0),
        (0.25, 0.25, 28.0),
        (0.5, 0.5, 28.0),
    ]
    glide = Lane.glide(old, new, Fraction(0), Fraction(1))
    assert [n.pitch for n in phrase({"bass": glide}, Fraction(0), 2).notes] == [33, 33, 28, 28]


def test_notes_of_a_chain_are_those_of_its_scenes() -> None:
    instrument = offline(MockEngine(by_prompt))
    instrument.session.apply(
        "loop 1\nsource notes\nscene a { kick = 1 }\n"
        'scene b restart { kick = "<.5 .25>" }\nchain a 2, b 2'
    )
    deck = instrument.session.state.decks["main"]
    loud = [phrase(deck.lanes, Fraction(lap), 1).notes[0].velocity for lap in range(6)]
    assert loud == [1.0, 1.0, 0.5, 0.25, 1.0, 1.0]


def test_a_block_has_the_notes_of_this_lap_and_the_next() -> None:
    tempo = TempoMap.start(Fraction(120))
    loop = make_loop(DeckState("main", cycles=1, source="notes"), tempo, Fraction(0), 1)
    assert (loop.source, loop.notes) == (None, True)
    sampler, found = DeckSampler(), lanes('kick = "<1 .5>"')
    block = sampler.block("main", 1, found, loop, tempo, 96_000 * 3)
    assert [p.notes[0].velocity for p in block.phrases] == [0.5, 1.0]
    assert [p.voices for p in block.phrases] == [("kick",)] * 2
    assert block.phrase_at(96_000 * 3) == block.phrases[0]
    assert block.phrase_at(96_000 * 4) == block.phrases[1]
    assert set(block.lanes) == {"hint"}
    assert not block.plan[0].values
    again = sampler.block("main", 2, found, loop, tempo, 96_000 * 3 + 480)
    assert again.phrases is block.phrases


def test_equal_laps_are_equal_phrases_at_an_odd_tempo() -> None:
    tempo = TempoMap.start(Fraction("123.7"))
    loop = make_loop(DeckState("main", cycles=2, source="notes"), tempo, Fraction(0), 1)
    found = lanes("lead = \"0 [2 4 7]\".scale('a4 minor')\nlead_level = sine.slow(2)")
    blocks = [
        DeckSampler().block("main", 1, found, loop, tempo, loop.lap_start(lap) + 7)
        for lap in (0, 5, 1001)
    ]
    assert blocks[0].phrases[0] == blocks[1].phrases[0] == blocks[2].phrases[1]


def test_a_source_says_whether_notes_are_played_over_it() -> None:
    said = [
        (s.value, s.reading)  # type: ignore[union-attr]
        for s in compile_source('source notes\nsource "x.wav" bars 2 + notes at 4').statements
    ]
    assert said == [("notes", ""), ("x.wav", "bars 2 + notes")]
    for wrong in ("source none + notes", "source notes bars 2", "source notes + notes"):
        with pytest.raises(ScoreError):
            compile_source(wrong)


def test_what_plays_is_written_as_it_was_said() -> None:
    instrument = offline(MockEngine(by_prompt))
    text = 'loop 2\nsource notes\nkick = "1*4"\nchord = "<Am G/B>".voicing'
    instrument.session.apply(text)
    written = as_score(instrument.session.state)
    assert "source notes" in written
    assert 'chord = "<Am G/B>".voicing' in written
    again = offline(MockEngine(by_prompt))
    again.session.apply(written)
    assert again.session.state.decks["main"].notes
    assert as_score(again.session.state) == written


def test_a_knob_is_offered_the_level() -> None:
    instrument = offline(MockEngine(by_prompt))
    instrument.session.apply("loop 1\nkick = 1")
    with pytest.raises(ScoreError) as caught:
        instrument.session.apply("learn kick")
    assert "learn kick_level" in str(caught.value.hint)
