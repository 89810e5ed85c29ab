"""Time in scripts: texts, scores and functions on the timeline, heard where they are put."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demon_live import dsl as d
from demon_live.core import Floats
from demon_live.errors import DemonError, UsageError
from demon_live.lang import dsl_score
from demon_live.runtime.offline import Offline
from demon_live.session.output import NullOutput
from demon_live.session.score_files import Reloader
from demon_live.session.session import Session
from demon_live.sets.journal import load
from tests.helpers.mock_engine import MockEngine, by_prompt, edges, offline

BAR = 96_000  # at 120


def left(stage: Offline, cycles: float) -> Floats:
    return stage.render(cycles=cycles)[:, 0]


@pytest.fixture
def stage() -> Offline:
    made = offline(MockEngine(by_prompt))
    made.session.apply("prompt = 'b'\nloop 1")
    return made


def test_pieces_of_a_render_join_bit_for_bit() -> None:
    def fresh() -> Offline:
        made = offline(MockEngine(by_prompt))
        made.session.apply("prompt = \"<'b' 'd'>\"\ntempo 126.7\nloop 1\npan = sine")
        return made

    whole = fresh().render(cycles=4)
    one = fresh()
    assert np.array_equal(np.concatenate([one.render(cycles=1) for _ in range(4)]), whole)
    two = fresh()
    pieces = [two.render(seconds=0.3), two.render(cycles=0), two.render(seconds=1.01)]
    joined = np.concatenate(pieces)
    assert np.array_equal(joined, whole[: len(joined)])


def test_many_small_pieces_end_on_the_bar() -> None:
    stage = offline(MockEngine(by_prompt))
    stage.session.apply("prompt = 'b'\ntempo 127\nloop 1")
    length = sum(len(stage.render(cycles=1 / 3)) for _ in range(12))
    assert length == stage.session.state.tempo.sample_at(Fraction(4))


@pytest.mark.parametrize(
    ("before", "text", "low", "high"),
    [
        ("gain = 1", "gain = 0", 0.0, 0.2),
        ("", "prompt = 'd'", 0.2, 0.4),
        ("", "prompt = 'd' now", 0.2, 0.4),
        ("", "mute main", 0.0, 0.2),
    ],
)
@pytest.mark.parametrize("tempo", ["", "tempo 240"])
def test_a_text_is_heard_at_its_cycle(
    stage: Offline, before: str, text: str, low: float, high: float, tempo: str
) -> None:
    stage.session.apply(before)
    stage.session.at(8, text)
    if tempo:
        # The tempo map of then, not that of the call.
        stage.session.apply(f"{tempo} now")
    audio = left(stage, 10)
    place = stage.session.state.tempo.sample_at(Fraction(8))
    found = [edge for edge in edges(audio, low, high) if edge > BAR]
    assert len(found) == 1, found
    assert abs(found[0] - place) <= 1920 // 2, (found, place)
    assert place != 8 * BAR or not tempo


def test_a_loop_and_a_tempo_begin_at_their_cycle(stage: Offline) -> None:
    stage.session.at(3, "tempo 150\nloop 2")
    stage.session.at(5, "deck two { prompt = 'c'\nloop 1 }")
    stage.render(cycles=6)
    tempo = stage.session.state.tempo
    assert [(s.cycle, s.bpm) for s in tempo.segments] == [(0, 120), (3, 150)]
    loop = stage.session.state.decks["two"].loop
    assert loop is not None
    assert loop.from_sample == tempo.sample_at(Fraction(5))


def test_a_curve_changes_at_its_cycle(stage: Offline) -> None:
    stage.session.at(Fraction(5, 2), "blend = .25")
    stage.render(cycles=2.4)
    lane = stage.session.state.decks["main"].lanes["blend"]
    assert lane.jumps(Fraction(2), Fraction(3)) == [Fraction(5, 2)]


def test_times_inside_a_scheduled_text_count_from_its_cycle(stage: Offline) -> None:
    stage.session.at(4, "blend = .25 in 1")
    stage.session.at(4, "noise = .5 at 3")
    stage.render(cycles=4)
    lanes = stage.session.state.decks["main"].lanes
    assert lanes["blend"].jumps(Fraction(3), Fraction(9)) == [Fraction(5)]
    assert lanes["noise"].jumps(Fraction(3), Fraction(9)) == [Fraction(6)]


def test_a_score_and_a_function_are_heard_at_their_cycle(stage: Offline) -> None:
    with d.Score() as later:
        d.deck.blend = 0.25
    calls: list[tuple[Any, Fraction]] = []

    def drop(session: Session, cycle: Fraction) -> None:
        calls.append((session, cycle))
        session.apply("noise = .5")

    stage.session.at(3, later)
    stage.session.at(4, drop)
    stage.render(cycles=5)
    lanes = stage.session.state.decks["main"].lanes
    assert lanes["blend"].jumps(Fraction(1), Fraction(9)) == [Fraction(3)]
    assert lanes["noise"].jumps(Fraction(1), Fraction(9)) == [Fraction(4)]
    assert calls == [(stage.session, Fraction(4))]


def test_what_comes_too_late_is_heard_at_once(stage: Offline) -> None:
    stage.render(cycles=2.5)
    stage.session.at(1, "blend = .25")
    stage.render(cycles=0.25)
    lane = stage.session.state.decks["main"].lanes["blend"]
    assert Fraction("2.4") < lane.jumps(Fraction(2), Fraction(3))[0] < Fraction("2.6")


def test_every_comes_at_each_multiple_and_ends_when_cancelled(stage: Offline) -> None:
    seen: list[Fraction] = []
    found = stage.session.every(2, lambda session, cycle: seen.append(cycle))
    bars: list[Fraction] = []
    stage.session.on("bar", lambda session, cycle: bars.append(cycle))

    @stage.session.every(Fraction(1, 2))
    def half() -> None:
        if stage.session.cycle > 1:
            half.cancel()

    stage.render(cycles=5)
    assert seen[:3] == [0, 2, 4]
    assert bars == [0, 1, 2, 3, 4]
    assert half.cancelled
    found.cancel()
    before = len(seen)
    stage.render(cycles=4)
    assert len(seen) == before


def test_events_errors_and_generations_call_functions(stage: Offline) -> None:
    lines: list[str] = []
    errors: list[DemonError] = []
    latents: list[int] = []
    session = stage.session
    session.on("event", lambda s, line: lines.append(line))
    session.on("error", lambda s, error: errors.append(error))
    session.on("generation", lambda s, g: latents.append(g.latent.shape[1]))
    session.tell("hello")
    with pytest.raises(DemonError):
        session.apply("blendd = 1")
    stage.render(cycles=2)
    assert lines == ["hello"]
    assert "did you mean blend" in str(errors[0])
    newest, made = stage.generations()
    assert newest == len(latents) == len(made) > 0
    assert stage.generations(newest) == (newest, [])


def test_a_listener_that_causes_what_it_waits_for_is_not_called_again(stage: Offline) -> None:
    calls: list[str] = []

    def again(session: Session, line: str) -> None:
        calls.append(line)
        session.tell("again")

    stage.session.on("event", again)
    stage.session.tell("once")
    assert calls == ["once"]


@pytest.mark.parametrize("call", [lambda c: None, lambda a, b, c: None])
def test_a_function_with_other_parameters_is_refused_at_once(
    stage: Offline, call: Callable[..., None]
) -> None:
    with pytest.raises(UsageError, match="cannot be called") as caught:
        stage.session.at(1, call)
    assert "(session, cycle)" in str(caught.value)


@pytest.mark.parametrize("what", [3, None, b"gain = 1"])
def test_what_is_no_score_is_refused_at_once(stage: Offline, what: Any) -> None:
    with pytest.raises(UsageError, match="text or a Score"):
        stage.session.at(1, what)
    with pytest.raises(UsageError, match="text or a Score"):
        stage.session.apply(what)


def test_a_render_raises_what_its_script_raises(stage: Offline) -> None:
    def wrong() -> None:
        raise ZeroDivisionError("by hand")

    stage.session.at(2, wrong)
    with pytest.raises(DemonError, match="by hand") as caught:
        stage.render(cycles=4)
    text = str(caught.value)
    assert "wrong at bar 2" in text
    assert 'raise ZeroDivisionError("by hand")' in text
    assert caught.value.name == __file__
    stage.session.at(6, "gainn = 1")
    with pytest.raises(DemonError, match="no control"):
        stage.render(cycles=8)


def test_a_function_that_waits_for_generations_may_fail_a_render(stage: Offline) -> None:
    def wrong(session: Session, generation: Any) -> None:
        raise ZeroDivisionError("by hand")

    stage.session.on("generation", wrong)
    with pytest.raises(DemonError, match="by hand"):
        stage.render(cycles=1)


def test_a_refused_text_is_one_error() -> None:
    session = Session(NullOutput("mock"))
    errors: list[str] = []
    session.watch(["error"], lambda kind, error: errors.append(error.message))
    done = threading.Event()

    def wrong(session: Session, cycle: Fraction) -> None:
        session.apply("blendd = 1")

    def failing(session: Session, cycle: Fraction) -> None:
        try:
            raise ValueError("by hand")
        finally:
            session.at(0, done.set)

    session.at(0, "gainn = 1")
    session.at(0, wrong)
    session.at(0, failing)
    session.pump()
    # Its call waits behind those of the others.
    while not done.is_set():
        session.pump()
        done.wait(0.02)
    assert errors == [
        'there is no control "gainn"',
        'there is no control "blendd"',
        "test_a_refused_text_is_one_error.<locals>.failing at bar 0: ValueError: by hand",
    ]
    session.close()


def test_who_watches_is_called_at_once_and_sees_the_clock(stage: Offline) -> None:
    seen: list[tuple[str, Any]] = []
    handle = stage.session.watch(["clock", "event"], lambda kind, value: seen.append((kind, value)))
    stage.session.pump()
    stage.session.tell("hello")
    assert seen == [("clock", (0, 120, 4)), ("event", "hello")]
    handle.cancel()
    stage.session.pump()
    assert len(seen) == 2


def test_a_slow_function_misses_generations_and_keeps_none_waiting() -> None:
    session = Session(NullOutput("mock"))
    go, done, calls = threading.Event(), threading.Event(), []

    def slow(session: Session, value: int) -> None:
        assert go.wait(60)
        calls.append(value)

    session.on("generation", slow)
    for number in range(1000):
        session.scripts.emit("generation", number)
    session.on("event", lambda session, line: done.set())
    session.tell("behind the others")
    go.set()
    assert done.wait(60)
    assert calls == list(range(64))
    session.close()


def test_a_function_that_takes_long_or_fails_holds_up_no_sampling() -> None:
    output = NullOutput("mock")
    session = Session(output)
    session.apply("blend = sine")
    go, entered, failed = threading.Event(), threading.Event(), threading.Event()

    def slow(session: Session, cycle: Fraction) -> None:
        entered.set()
        assert go.wait(60)
        raise ValueError("too slow")

    session.every(1, slow)
    session.on("error", lambda session, error: failed.set())
    session.pump()
    assert entered.wait(60)
    for _ in range(4):
        # Sampled while the function is still running.
        output.time.advance(BAR)
        session.pump()
    lines = session.events(0)[1]
    assert any("still runs" in line for line in lines)
    go.set()
    assert failed.wait(60)
    told = "\n".join(session.events(0)[1])
    assert "slow at bar 0: ValueError: too slow" in told
    assert 'raise ValueError("too slow")' in told
    session.close()


def test_a_scheduled_text_replays_on_its_sample(tmp_path: Path) -> None:
    from demon_live.replay.render import render

    stage = offline(MockEngine(by_prompt), tmp_path)
    stage.session.apply("prompt = 'b'\nloop 1\nrecord 'one'")
    stage.session.at(Fraction(7, 3), "prompt = 'd'")
    stage.session.at(4, lambda session, cycle: session.apply("gain = .5"))
    audio = stage.render(cycles=6)
    stage.session.apply("stop")
    (path,) = tmp_path.glob("*.set.jsonl")
    events = load(path).events
    assert [e.at for e in events if e.at] == ["7/3", "4"]
    again = render(path, engine=MockEngine(by_prompt), cycles=6, trust=True).audio  # type: ignore[arg-type]
    assert np.array_equal(again, audio)


def test_a_file_of_python_shows_its_own_lines_and_an_endless_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(NullOutput("mock"), python=True)
    reloader = Reloader(session)
    score = tmp_path / "a.py"
    head = "from demon_live import dsl as d\n\n"

    def save(body: str) -> str:
        score.write_text(head + body)
        seen = session.events(0)[0]
        assert reloader.touch(score, last=False) or reloader.touch(score)
        return "\n".join(session.events(seen)[1])

    save("d.deck.blend = .5\n")
    assert "a.py:3:1:" in save("d.deck.denoise = 1.4\n")
    assert 'as a score: denoise = "x"' in save("d.deck.denoise = 'x'\n")
    assert "a.py:3:1: there is no file" in save("d.deck.source('none.wav')\n")
    monkeypatch.setattr(dsl_score, "PATIENCE", 0.2)
    told = save("while True:\n    pass\n")
    assert "does not end" in told
    assert "still playing: a as saved at" in told
    assert "blend" in save("d.deck.blend = .25\n")
    session.close()


def test_an_offline_that_is_closed_says_so(stage: Offline) -> None:
    stage.close()
    stage.close()
    with pytest.raises(DemonError, match="closed"):
        stage.render(cycles=1)
