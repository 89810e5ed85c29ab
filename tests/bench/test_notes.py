"""What is heard of notes: a guide has what it was made of, and other sounds have not."""

from fractions import Fraction

import numpy as np
import pytest

from demon_live.bench import notes as notes_bench
from demon_live.bench.common import Options
from demon_live.bench.notes import DENOISES, SCORES, figures, heard, longest
from demon_live.core import NoteEvent, Phrase
from demon_live.lang import compile_source
from demon_live.notes.guide import guide
from demon_live.notes.kits import kit_of
from demon_live.session.sampler import phrase
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap

BAR = 96_000


@pytest.mark.parametrize("name", SCORES)
def test_a_guide_plays_what_its_score_says(name):
    lanes = compile_source(SCORES[name]).decks["main"]
    notes = phrase(lanes, Fraction(0), 4)
    sound = guide(notes, 4, 4 * BAR, 4, kit_of(name))
    row = heard(sound, notes, 4)
    assert row["kick"] > 0.6
    assert row["chord"] == 1.0
    silence = heard(np.zeros_like(sound), notes, 4)
    assert silence["kick"] == 0.0


def test_what_a_score_lacks_is_not_measured():
    row = heard(np.zeros((BAR, 2), np.float32), Phrase(), 1)
    assert all(np.isnan(value) for value in row.values())


def test_the_bass_of_a_bar_is_what_it_plays_longest():
    rows = ((0.0, 0.25, 33.0), (0.25, 0.5, 40.0), (0.75, 0.25, 33.0), (1.0, 1.0, 38.0))
    notes = Phrase(tuple(NoteEvent("bass", *row, 1.0) for row in rows))
    assert [longest(notes, bar) for bar in (0, 1, 2)] == [{9}, {2}, set()]


def test_the_table_has_a_row_for_each_way_to_play(tmp_path, monkeypatch):
    score = tmp_path / "x.demon"
    score.write_text('tempo 120\nloop 1\nprompt = "house"\nkick = "1*4"\n')
    asked = []

    def played(engine, name, way):
        asked.append(way)
        lanes = compile_source(score.read_text()).decks["main"]
        deck = DeckState("main", cycles=1)
        loop = make_loop(deck, TempoMap.start(Fraction(120)), Fraction(0), 1)
        return np.zeros((BAR, 2), np.float32), loop, phrase(lanes, Fraction(0), 1), "house"

    monkeypatch.setattr(notes_bench, "_played", played)
    table = figures(Options(scores=(str(score),), random_weights=True))["heard"]
    assert [row["denoise"] for row in table] == asked == ["guide", *map(str, DENOISES), "untold"]
    assert table[0]["kick"] > 0.75
    assert table[-1]["kick"] == 0.0
