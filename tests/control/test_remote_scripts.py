"""Scripts of another process: connect, then at, every and on, as on a session in this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import demon_live
from demon_live import Score, aconnect, connect
from demon_live import dsl as d
from demon_live.control.client import Connection
from demon_live.control.registry import Claim, Info
from demon_live.control.server import ControlServer
from demon_live.core import Generation, Request
from demon_live.errors import DemonError
from demon_live.session.output import NullOutput
from demon_live.session.session import Session

BAR = 96_000


def until(what: Callable[[], object]) -> None:
    for _ in range(3000):
        if what():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not come")


class Stage:
    """A session without sound behind a socket; its time is moved by hand."""

    def __init__(self, name: str) -> None:
        self.output = NullOutput("mock")
        self.session = Session(self.output)
        self.claim = Claim.take(Info(name, os.getpid()))
        self.server = ControlServer(self.session, self.claim.info.socket)
        self.session.apply("blend = .5")

    def go(self, cycles: float) -> None:
        self.output.time.advance(round(cycles * BAR))
        self.session.pump()

    def close(self) -> None:
        self.server.close()
        self.claim.release()
        self.session.close()


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(f"far{abs(hash(request.node.name)) % 10**9}")
    yield made
    made.close()


def lane(stage: Stage, control: str) -> Any:
    return stage.session.state.decks["main"].lanes[control]


def test_a_score_is_heard_at_its_cycle_from_another_process(stage: Stage) -> None:
    with connect(stage.claim.info.name) as far:
        with Score() as score:
            d.deck.noise = 0.5
        far.apply(score)
        far.apply("blend = .25", at=Fraction(7, 2))
        far.apply("hint = .25", at=Fraction(1, 3))
    assert lane(stage, "blend").jumps(Fraction(0), Fraction(9)) == [Fraction(7, 2)]
    assert lane(stage, "hint").jumps(Fraction(0), Fraction(9)) == [Fraction(1, 3)]
    assert lane(stage, "noise").at(Fraction(5)) == 0.5


def test_texts_functions_and_events_of_another_process(stage: Stage) -> None:
    said, called, heard = threading.Event(), threading.Event(), threading.Event()
    with connect(stage.claim.info.name) as far:
        far.at(8, "blend = .25")

        @far.every(4)
        def four(session: Any, cycle: Fraction) -> None:
            if cycle == 8:
                session.apply("noise = .5")
                called.set()

        far.on("event", lambda session, line: heard.set() if line == "hello" else None)
        stage.session.on("event", lambda session, line: said.set())
        stage.go(7.5)
        assert called.wait(60)
        stage.session.tell("hello")
        assert heard.wait(60)
        four.cancel()
    assert lane(stage, "noise").jumps(Fraction(0), Fraction(20)) == [8]
    assert lane(stage, "blend").jumps(Fraction(0), Fraction(20)) == [8]


def test_a_session_is_awaited(stage: Stage) -> None:
    async def play() -> float:
        async with await aconnect(stage.claim.info.name) as far:
            await far.apply("noise = .5")
            with pytest.raises(DemonError, match="no control"):
                await far.apply("noize = .5")
            status = await far.status()
            return float(status.bpm)

    assert asyncio.run(play()) == 120
    assert lane(stage, "noise").at(Fraction(9)) == 0.5


@pytest.mark.parametrize("at", ["x", "1/0", "-1", "1e9", "1" * 20])
def test_a_cycle_that_is_none_is_refused(stage: Stage, at: str) -> None:
    with connect(stage.claim.info.name) as far:
        with pytest.raises(DemonError, match="is no cycle"):
            far._command("at", text="blend = 1", cycle=at)
        far.apply("blend = 1")


def test_bars_of_another_process_come_when_its_own_do(stage: Stage) -> None:
    bars: queue.Queue[tuple[Any, Fraction]] = queue.Queue()
    with connect(stage.claim.info.name) as far:
        far.on("bar", lambda session, cycle: bars.put((session, cycle)))
        stage.session.pump()
        assert bars.get(timeout=60) == (far, 0)
        # Nothing looks at the clock: without a push there is no bar.
        stage.go(0.5)
        stage.go(0.5)
        assert bars.get(timeout=60) == (far, 1)
        assert bars.empty()


def test_errors_of_the_session_are_pushed_with_their_place(stage: Stage) -> None:
    errors: queue.Queue[DemonError] = queue.Queue()
    with connect(stage.claim.info.name) as far:
        far.on("error", lambda session, error: errors.put(error))
        with pytest.raises(DemonError):
            stage.session.apply("noize = 1", "elsewhere")
        error = errors.get(timeout=60)
        assert "did you mean noise" in str(error)
        assert error.name == "elsewhere"


def test_a_refused_text_of_a_script_is_one_error(stage: Stage) -> None:
    errors: queue.Queue[str] = queue.Queue()

    def wrong(session: Any, cycle: Fraction) -> None:
        session.apply("noize = 2")

    with connect(stage.claim.info.name) as far:
        far.on("error", lambda session, error: errors.put(error.message))
        far.at(1, "noize = 1")
        far.at(2, wrong)
        stage.go(1)
        stage.session.scripts.emit("error", DemonError("the last"))
        found = [errors.get(timeout=60) for _ in range(3)]
        # What was refused there is pushed once; here it is only told.
        assert sorted(found) == sorted(['there is no control "noize"'] * 2 + ["the last"])
        stage.session.scripts.emit("error", DemonError("and over"))
        assert errors.get(timeout=60) == "and over"


def test_generations_cross_while_someone_waits_for_them(stage: Stage) -> None:
    made: queue.Queue[Generation] = queue.Queue()
    latent = np.arange(6, dtype=np.float32).reshape(3, 2)
    asked = Request(frames=3, channels=2, seed=7, deck="drums", values={"denoise": 0.5})
    with connect(stage.claim.info.name) as far:
        stage.session.pump()
        assert not stage.output.engine.latents
        handle = far.on("generation", lambda session, generation: made.put(generation))
        stage.session.pump()
        assert stage.output.engine.latents
        stage.session.scripts.emit("generation", Generation(latent, asked, (4, 5), 1, 2))
        found = made.get(timeout=60)
        handle.cancel()
        last = Generation(latent, asked, (), 3, 4)

        def ended() -> bool:
            stage.session.scripts.emit("generation", last)
            return not stage.session.scripts.wants("generation")

        # Those that nobody waits for end it.
        until(ended)
        stage.session.pump()
        assert not stage.output.engine.latents
        far.on("generation", lambda session, generation: made.put(generation))
        for born in (5, 6):
            stage.session.scripts.emit("generation", Generation(latent, asked, (), born, 9))
        assert [made.get(timeout=60).born for _ in range(2)] == [5, 6]
        assert made.empty()
    assert np.array_equal(found.latent, latent)
    assert found.request.values == {"denoise": 0.5}
    assert (found.request.seed, found.request.deck) == (7, "drums")
    assert (found.versions, found.born, found.retired) == ((4, 5), 1, 2)


def test_who_leaves_is_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demon_live.control.server._BEAT", 0.01)
    with connect(stage.claim.info.name) as far:
        far.on("generation", print)
        assert stage.session.scripts.wants("generation")
    until(lambda: not stage.session.scripts.wants("generation"))
    assert not stage.server._pushes


def test_a_client_that_does_not_read_is_dropped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demon_live.control.server.MAX_PUSHED", 4)
    connection = Connection(stage.claim.info.socket)
    pushed = connection.follow("event")
    # More than the socket and the queue hold.
    for _ in range(64):
        stage.session.tell("x" * 100_000)
    until(lambda: not stage.session.scripts.wants("event"))
    assert len(list(pushed)) < 64
    connection.close()


def test_what_is_not_pushed_is_refused(stage: Stage) -> None:
    connection = Connection(stage.claim.info.socket)
    with pytest.raises(DemonError, match="clock event error generation"):
        connection.follow("bar")
    assert connection.ask("words")
    connection.close()


def test_a_live_session_of_a_script_has_a_name(tmp_path: Any) -> None:
    score = tmp_path / "x.demon"
    score.write_text("tempo 240\nloop 1\nblend = .5\n")
    name = f"script{os.getpid()}"
    with demon_live.Live([score], audio="null", watch=False, name=name, osc="0") as live:
        assert live.info.osc
        with connect(name) as far:
            far.apply("noise = .5")
            assert "noise" in live.session.state.decks["main"].lanes
            made: queue.Queue[Generation] = queue.Queue()
            far.on("generation", lambda session, generation: made.put(generation))
            # The ring rests once it has made a lap: each seed is another one.
            for seed in range(1, 100):
                far.apply(f"seed = {seed} now")
                with contextlib.suppress(queue.Empty):
                    found = made.get(timeout=3)
                    break
            assert found.latent.shape == (found.request.frames, found.request.channels)
            assert found.request.deck == "main"
    with pytest.raises(DemonError):
        connect(name)
