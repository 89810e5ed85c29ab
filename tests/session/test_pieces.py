"""A piece with an ending: chains that end, scenes with settings, scenes from scenes, the master."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from demon_live.errors import DemonError
from demon_live.lang import compile_source, format_source
from demon_live.runtime.offline import Offline
from demon_live.session.scores import as_score
from demon_live.ui.lists import LISTS
from tests.helpers.mock_engine import MockEngine, offline, run, write_tone

BAR = 96_000


@pytest.fixture
def plays(tmp_path: Path) -> Offline:
    return offline(MockEngine(lambda row: 0.5), tmp_path)


def at(instrument: Offline, control: str, cycle: float, deck: str = "main") -> float | str:
    return instrument.session.state.deck(deck).lanes[control].at(Fraction(cycle))


def test_a_chain_that_plays_once_stays_in_its_last_scene(plays: Offline) -> None:
    plays.session.apply("scene a { gain = .2 }\nscene b { gain = .8 }\nchain a 2, b 2 once")
    assert [round(float(at(plays, "gain", c)), 3) for c in (0, 2, 4, 5, 9)] == [
        *(0.2, 0.8, 0.8, 0.8, 0.8)
    ]
    assert plays.session.state.decks["main"].lanes["gain"].jumps(Fraction(3), Fraction(40)) == []


def test_chain_off_stays_in_the_scene_that_plays(plays: Offline) -> None:
    plays.session.apply("scene a { gain = .2 }\nscene b { gain = .8 }\nchain a 2, b 2")
    run(plays, round(2.5 * BAR))
    said = plays.session.apply("chain off").messages
    assert said == ("chain off · its scene stays, from bar 3",)
    assert [round(float(at(plays, "gain", c)), 3) for c in (3, 4, 5, 6)] == [0.8] * 4
    run(plays, BAR)
    assert plays.session.apply("chain off").messages == ("chain off · no chain plays",)
    # Undo goes back to the chain.
    plays.session.apply("undo")
    assert round(float(at(plays, "gain", 12)), 3) == 0.2


def test_a_scene_takes_from_another_what_it_does_not_say(plays: Offline) -> None:
    text = (
        "scene drop { gain = .2; lpf = 900; deck air { gain = .3 } }\n"
        "scene drop2 from drop { gain = .8 }\n"
    )
    plays.session.apply(text + "go drop2")
    state = plays.session.state
    assert (at(plays, "gain", 1), at(plays, "lpf", 1)) == pytest.approx((0.8, 900))
    assert at(plays, "gain", 1, "air") == pytest.approx(0.3)
    assert "scene drop2 from drop {" in as_score(state)
    with pytest.raises(DemonError, match="there is no scene 'dorp'"):
        plays.session.apply("scene x from dorp { gain = 1 }\ngo x")
    with pytest.raises(DemonError, match="takes from itself"):
        plays.session.apply("scene x from y { gain = 1 }\nscene y from x { pan = 0 }\ngo x")


def test_patterns_of_a_scene_with_restart_begin_with_it(plays: Offline) -> None:
    body = '{ gain = "<1 0 0 0>" }'
    plays.session.apply(f"scene a restart {body}\nscene b {body}\ngo a")
    run(plays, round(2.5 * BAR))
    plays.session.apply("go a")
    assert [at(plays, "gain", c) for c in (3, 4, 5, 6, 7)] == [1, 0, 0, 0, 1]
    plays.session.apply("go b")
    assert [at(plays, "gain", c) for c in (3, 4, 5, 6, 7)] == [0, 1, 0, 0, 0]
    plays.session.apply("chain b 1, a 3 at 8")
    assert [at(plays, "gain", c) for c in (8, 9, 10, 11, 12, 13, 14)] == [1, 1, 0, 0, 1, 1, 0]


def test_a_transition_stands_before_its_scene(plays: Offline) -> None:
    plays.session.apply("scene a { gain = 0 }\nscene b { gain = 1 }\nchain a 4, over 2 b 4")
    assert [at(plays, "gain", c) for c in (4, 5, 6, 8, 12.5)] == pytest.approx([0, 0.5, 1, 0, 0.25])


def test_scenes_of_a_chain_bring_tempo_loop_and_source_on_their_bar(
    plays: Offline, tmp_path: Path
) -> None:
    write_tone(tmp_path / "own_120.wav", 0.25, 8.0)
    session = plays.session
    session.apply(
        "tempo 120\n"
        "scene a { tempo 120; loop 2; source none; gain = 1 }\n"
        'scene b { tempo 60; loop 1; source "own_120.wav" half; gain = .5 }\n'
        "chain a 4, b 2"
    )
    tempo = session.state.tempo
    # The tempo map knows the rounds that come.
    assert [tempo.sample_at(Fraction(c)) for c in (4, 6, 10, 12)] == [
        *(4 * BAR, 8 * BAR, 12 * BAR, 16 * BAR)
    ]
    seen = []
    for cycle in (1, 5, 7, 11, 13):
        run(plays, tempo.sample_at(Fraction(cycle)) - plays.output.mixer.position)
        deck = session.state.decks["main"]
        loop = deck.playing(plays.output.mixer.position)
        assert loop is not None
        seen.append((float(loop.bpm), loop.cycles, loop.source))
    a, b = (120.0, 2, None), (60.0, 1, "own_120.wav")
    assert seen == [a, b, a, b, a]
    assert session.state.tempo.sample_at(Fraction(12)) == 16 * BAR
    session.apply("chain off")
    assert session.state.plan == ()
    assert len(session.state.tempo.segments) <= 6


def test_a_tempo_in_a_scene_may_be_a_ramp_and_a_chain_may_end_with_it(plays: Offline) -> None:
    plays.session.apply(
        "tempo 120\nscene a { tempo 120; gain = 1 }\nscene b { tempo 60 over 2; gain = 1 }\n"
        "chain a 2, b 4 once"
    )
    ahead = [(s.cycle, float(s.bpm)) for s in plays.session.state.tempo.segments]
    assert ahead == [(0, 120.0), (2, 90.0), (3, 60.0)]
    run(plays, 6 * BAR)
    assert [(s.cycle, float(s.bpm)) for s in plays.session.state.tempo.segments] == ahead
    assert plays.session.state.plan == ()
    assert plays.session.state.bpm == 60


def test_the_master_is_the_strip_of_the_sum(plays: Offline) -> None:
    plays.session.apply("ring always\nseed = irand(9).slow(1)")
    loud = np.abs(run(plays, 12 * BAR)[-BAR:]).max()
    said = plays.session.apply("master { gain = .5 } ").messages
    assert said == ("master.gain = .5 · from bar 13 · class mix",)
    run(plays, 2 * BAR)
    assert np.abs(run(plays, BAR)).max() == pytest.approx(loud / 2, rel=0.02)
    assert "master.gain = .5\n" in as_score(plays.session.state)
    (shown,) = plays.session.status().master
    assert (shown.control, shown.text, shown.value) == ("gain", ".5", 0.5)
    assert "gain .5" in "".join(piece for _, piece in LISTS["status"](plays.session))
    plays.session.apply("master.gain = 1 now")
    run(plays, BAR)
    assert np.abs(run(plays, BAR)).max() == pytest.approx(loud, rel=0.02)
    for wrong in ("master { denoise = .5 }", "master { tempo 90 }", "deck master { gain = 1 }"):
        with pytest.raises(DemonError, match="master"):
            plays.session.apply(wrong)


def test_a_scene_may_hold_a_master(plays: Offline) -> None:
    plays.session.apply(
        "scene a { gain = 1; master { gain = .3 } }\n"
        "scene b { master { gain = .9 } }\nchain a 2, b 2"
    )
    assert [at(plays, "gain", c, "") for c in (0, 2, 4)] == pytest.approx([0.3, 0.9, 0.3])


def test_deck_off_ends_a_deck(plays: Offline) -> None:
    plays.session.apply("deck air { gain = .5 }")
    run(plays, 2 * BAR)
    assert plays.session.apply("deck air off").messages == ("air: the deck ends at bar 3",)
    assert list(plays.session.state.decks) == ["main"] or "air" not in plays.session.state.decks
    with pytest.raises(DemonError, match="there is no deck 'air'"):
        plays.session.apply("deck air off")
    plays.session.apply("undo")
    assert "air" in plays.session.state.decks


TEXT = """\
scene a from b restart {
  gain = 1
  master {
    gain = .5
  }
}
chain 'a' 4, over 2 'b' 8 once at 8
chain off
deck air off in 2
source "x.wav" bars 2 at 4
"""


def test_the_canonical_text_of_the_new_statements_is_stable() -> None:
    assert format_source(TEXT) == TEXT
    assert len(compile_source(TEXT).statements) == 5


def test_an_unknown_scene_is_answered_with_those_that_there_are(plays: Offline) -> None:
    with pytest.raises(DemonError) as first:
        plays.session.apply("go peak")
    assert first.value.hint == "a new one: scene peak { ... }"
    plays.session.apply("scene calm { gain = .2 }\nscene loud { gain = 1 }")
    with pytest.raises(DemonError) as second:
        plays.session.apply("chain calm 2, peak 4")
    assert second.value.hint == "scenes: calm, loud; a new one: scene peak { ... }"
