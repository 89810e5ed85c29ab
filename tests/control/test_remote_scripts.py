"""Scripts of another process: connect, then at, every and on, as on a session in this one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

import demon_live
from demon_live import Score, aconnect, connect
from demon_live import dsl as d
from demon_live.control.registry import Claim, Info
from demon_live.control.server import ControlServer
from demon_live.errors import DemonError
from demon_live.session.output import NullOutput
from demon_live.session.session import Session

BAR = 96_000


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
        while far.status().cycle < 7:
            pass
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


def test_there_are_no_generations_of_another_process(stage: Stage) -> None:
    with connect(stage.claim.info.name) as far, pytest.raises(DemonError) as caught:
        far.on("generation", print)
    assert "Offline" in str(caught.value)


def test_a_live_session_of_a_script_has_a_name(tmp_path: Any) -> None:
    score = tmp_path / "x.demon"
    score.write_text("tempo 240\nloop 1\nblend = .5\n")
    name = f"script{os.getpid()}"
    with demon_live.Live([score], audio="null", watch=False, name=name, osc="0") as live:
        assert live.info.osc
        with connect(name) as far:
            far.apply("noise = .5")
            assert "noise" in live.session.state.decks["main"].lanes
    with pytest.raises(DemonError):
        connect(name)
