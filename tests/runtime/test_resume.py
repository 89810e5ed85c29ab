"""A session that died goes on: the same program, at the next bar, in the same state."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest

from demon_live.runtime.seek import restore
from demon_live.session.assets import Assets
from demon_live.session.output import NullOutput
from demon_live.session.score_files import Reloader
from demon_live.session.session import Session
from demon_live.sets.journal import SetEvent
from demon_live.sets.session_log import Interrupted, find_interrupted, recently
from tests.helpers.dead_session import died
from tests.helpers.mock_engine import write_tone

#: (seconds after the last, text, name)
TAKE = (
    (0, "tempo 120\nloop 2\nsource \"low.wav\"\nprompt = 'a'\nblend = saw.range(.3, 1)", "x.demon"),
    (3, "deck b\nloop 3\nprompt = 'd'\npan = sine2", "<prompt>"),
    (4, "mute b", "<prompt>"),
    (2, "let wob(n) = sine.fast(n)", "<prompt>"),
    (1, "deck main { morph = wob(3) * .2 }", "<prompt>"),
    (2, "tempo 133.7", "<prompt>"),
    (5, "denoise = .4", "<prompt>"),
    (1, "denoise = .9 !", "<prompt>"),
    (1, "undo", "<prompt>"),
    (3, "depth 2", "<prompt>"),
    (9, "hush", "<prompt>"),
)


def fresh(folder: Path) -> Session:
    """A session that plays nothing yet."""
    return Session(NullOutput(), assets=Assets((folder,)))


def performed(folder: Path) -> tuple[Session, Interrupted]:
    """A session, and what its log says after it died in the middle."""
    session = fresh(folder)
    for seconds, text, name in TAKE:
        session.output.playhead.advance(48_000 * seconds)  # type: ignore[attr-defined]
        session.apply(text, name, "repl" if name.startswith("<") else "file")
    causes = session.journal.recording().events
    died(folder, *causes, position=causes[-1].sample + 100_000)
    return session, find_interrupted(folder=folder)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tone(tmp_path / "low.wav", 0.3, 4)
    return tmp_path


def test_everything_is_as_it_was(home: Path) -> None:
    before, past = performed(home)
    after = fresh(home)
    at = restore(after, past)
    one, two = before.state, after.state
    assert two.tempo == one.tempo
    assert (two.bpm, two.muted, two.soloed, two.hushed) == (one.bpm, one.muted, one.soloed, True)
    assert two.muted == {"b"}
    assert (two.depth, two.steps) == (2, None)
    assert two.decks.keys() == one.decks.keys()
    for name, deck in one.decks.items():
        again = two.decks[name]
        assert {k: v.text for k, v in again.bound.items()} == {
            k: v.text for k, v in deck.bound.items()
        }
        assert (again.cycles, again.source) == (deck.cycles, deck.source)
        assert again.loop is not None
        assert deck.loop is not None
        assert again.loop.from_sample == deck.loop.from_sample
        assert again.loop.lap == deck.loop.lap
    assert two.decks["main"].bound["denoise"].text == ".4"
    assert two.lets.keys() == one.lets.keys()
    # From the next bar line on.
    assert at >= past.sample
    assert two.tempo.sample_at(Fraction(round(two.tempo.cycle_at(at)))) == at
    assert at - past.sample <= two.tempo.segment_of(at).length + 1
    assert isinstance(after.output, NullOutput)
    assert (after.output.engine.depth, after.output.engine.steps) == (2, None)
    # Undo goes back through what happened before the crash.
    after.apply("undo", now=at)
    assert any("resumed from bar" in line for line in after.events(0)[1])


def test_a_score_that_was_not_saved_since_changes_nothing(home: Path) -> None:
    before, past = performed(home)
    after = fresh(home)
    restore(after, past)
    reloader = Reloader(after)
    (home / "x.demon").write_text(TAKE[0][1])
    reloader.resume(Path("x.demon"))
    assert after.state.hushed
    texts = {k: lane.text for k, lane in after.state.decks["main"].bound.items()}
    assert texts == {k: lane.text for k, lane in before.state.decks["main"].bound.items()}
    reloader.touch(Path("x.demon"))
    assert after.state.hushed
    # What was saved since plays.
    (home / "x.demon").write_text(TAKE[0][1] + "\nguide = 3")
    Reloader(after).resume(Path("x.demon"))
    assert after.state.decks["main"].bound["guide"].text == "3"


def test_of_many_loops_only_those_that_may_be_heard_are_prepared(home: Path) -> None:
    session = fresh(home)
    causes = [
        SetEvent("apply", 480_000 * k, f"tempo {100 + k}\nloop 2\nprompt = 'a'", "x.demon", "file")
        for k in range(40)
    ]
    died(home, *causes)
    past = find_interrupted(folder=home)
    at = restore(session, past)
    assert isinstance(session.output, NullOutput)
    loops = session.output.mix.decks["main"].loops
    assert 1 <= len(loops) <= 2
    assert loops[-1] == session.state.decks["main"].loop
    assert loops[0].from_sample <= at


def test_a_source_that_is_gone_costs_only_what_needs_it(home: Path) -> None:
    _, past = performed(home)
    (home / "low.wav").unlink()
    session = fresh(home)
    restore(session, past)
    assert any("low.wav" in line for line in session.events(0)[1])
    assert "b" in session.state.decks


def test_the_log_of_a_resumed_session_holds_all_of_it(home: Path) -> None:
    _, past = performed(home)
    session = fresh(home)
    restore(session, past)
    assert session.journal.recording().events == past.causes


def test_a_session_that_died_is_mentioned_at_the_next_start(home: Path) -> None:
    assert recently(home) == ""
    _, past = performed(home)
    assert "demon live --resume" in recently(home)
    assert past.describe() in recently(home)
    for path in home.glob("*.set.jsonl"):
        os.utime(path, (1, 1))
    assert recently(home) == ""
