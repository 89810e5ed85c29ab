"""The guide: where notes lie in it, what is kept of it, and what models are told."""

from fractions import Fraction

import numpy as np
import pytest

from demon_live.core import NoteEvent, Phrase
from demon_live.notes import guide as guides
from demon_live.notes.guide import guide
from demon_live.notes.heard import BASS, chroma, stands_out
from demon_live.notes.kits import GENRES, NoteKit, kit_of
from demon_live.notes.lanes import HITS, TOLD, bar_classes, lanes_of
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap

BAR = 96_000


def loop_of(cycles):
    deck = DeckState("main", cycles=cycles)
    return make_loop(deck, TempoMap.start(Fraction(120)), Fraction(0), 1)


def hits(voice, *begins, velocity=1.0):
    return Phrase(tuple(NoteEvent(voice, b, 0.25, 0.0, velocity) for b in begins), (voice,))


def test_a_hit_begins_on_its_sample():
    for voice in ("kick", "snare", "clap", "hat", "open", "perc"):
        sound = guide(hits(voice, 0.25), 1, BAR, 4, NoteKit())
        assert not sound[: BAR // 4].any()
        assert np.abs(sound[BAR // 4 : BAR // 4 + 480]).max() > 0.01


def test_what_rings_past_the_end_rings_at_the_beginning():
    sound = guide(hits("open", 0.999), 1, BAR, 4, NoteKit())
    assert np.abs(sound[:4800]).max() > 0.01
    assert not sound[BAR // 2 : BAR // 2 + 4800].any()


def test_equal_notes_are_equal_bits_whatever_was_played_before():
    phrase = Phrase(
        (NoteEvent("bass", 0.0, 0.5, 33.0, 1.0), NoteEvent("chord", 0.0, 1.0, 60.0, 1.0))
    )
    kit = kit_of("acid techno")
    first = guide(phrase, 2, 2 * BAR, 4, kit)
    guides._pieces.clear()
    guide(hits("kick", 0.0, 0.5), 2, 2 * BAR, 4, kit)
    assert np.array_equal(guide(phrase, 2, 2 * BAR, 4, kit), first)


def test_a_note_is_rendered_once(monkeypatch):
    made = []
    played = guides._played
    monkeypatch.setattr(guides, "_played", lambda *a: made.append(a) or played(*a))
    guides._pieces.clear()
    guide(hits("kick", 0.0, 0.25, 0.5), 1, BAR, 4, NoteKit())
    guide(hits("kick", 0.5, velocity=0.3), 1, BAR, 4, NoteKit())
    assert len(made) == 1


@pytest.mark.parametrize("genre", GENRES)
def test_every_kit_plays_every_voice_in_tune(genre):
    import torch

    kit = kit_of(genre)
    for voice in ("kick", "snare", "clap", "hat", "open", "perc"):
        assert np.abs(guide(hits(voice, 0.0), 1, BAR, 4, kit)).max() > 0.01
    for voice, pitch in (("bass", 45.0), ("chord", 57.0), ("lead", 69.0)):
        sound = guide(Phrase((NoteEvent(voice, 0.0, 1.0, pitch, 1.0),)), 1, BAR, 4, kit)
        assert np.isfinite(sound).all()
        mono = torch.from_numpy(np.ascontiguousarray(sound.mean(1)))
        low, high = BASS if voice == "bass" else (180.0, 1000.0)
        assert stands_out(chroma(mono, low, high), {9})


def test_words_choose_the_kit():
    assert kit_of("acid techno, 808") == NoteKit("808", "acid", "stab", "lead")
    assert kit_of("dub, organ") == NoteKit("808", "sub", "organ", "bell")
    assert kit_of("something else") == kit_of("") == NoteKit()


def test_louder_is_louder_and_nothing_clips():
    soft = guide(hits("kick", 0.0, velocity=0.2), 1, BAR, 4, NoteKit())
    loud = guide(hits("kick", 0.0, velocity=2.0), 1, BAR, 4, NoteKit())
    assert np.abs(soft).max() < np.abs(loud).max() < 1.0


def test_models_are_told_what_sounds_in_each_frame():
    phrase = Phrase(
        (
            NoteEvent("bass", 0.5, 0.25, 33.0, 1.0),
            NoteEvent("chord", 0.0, 1.0, 57.0, 1.0),
            NoteEvent("chord", 0.0, 1.0, 60.0, 1.0),
            NoteEvent("kick", 0.25, 0.25, 0.0, 0.8),
        ),
        ("kick", "bass", "chord"),
    )
    rows = lanes_of(phrase, loop_of(2))
    assert set(np.flatnonzero(rows[10, :12])) == {9, 0}
    assert not rows[50:, :12].any()
    assert np.flatnonzero(rows[:, 13 + 9]).tolist() == list(range(25, 38))
    kick = 27 + HITS.index("kick")
    assert np.flatnonzero(rows[:, kick]).tolist() == [12]
    assert rows[12, kick] == pytest.approx(0.8)
    assert rows[12, kick + len(HITS)] == pytest.approx(0.0)
    assert (rows[:, TOLD:] == [1, 1, 1]).all()


def test_what_the_score_does_not_bind_is_left_to_the_model():
    rows = lanes_of(Phrase((), ("bass",)), loop_of(1))
    assert (rows[:, TOLD:] == [0, 1, 0]).all()
    assert not rows[:, :TOLD].any()


def test_the_lead_gives_the_harmony_of_a_bar_without_chords():
    lead = NoteEvent("lead", 1.0, 0.5, 64.0, 1.0)
    phrase = Phrase((NoteEvent("chord", 0.0, 1.0, 60.0, 1.0), lead))
    assert [bar_classes(phrase, bar) for bar in range(3)] == [{0}, {4}, set()]
