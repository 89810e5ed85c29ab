"""What the host of the engine says, and how patient it is."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demon_live.children import Backoff
from demon_live.core import EngineDeck, EngineState, Generation, Loop, Timbre
from demon_live.errors import EngineError
from demon_live.runtime.engine_main import Drops, turn_for_ever
from demon_live.runtime.options import EngineOptions, Opening
from demon_live.runtime.supervisor import EngineProcess, EngineSupervisor, engine_log
from tests.helpers.mock_engine import MockEngine, by_prompt, offline


def test_what_was_dropped_is_told_at_once_and_then_now_and_then() -> None:
    drops = Drops()
    assert drops.turn(0.0, 0) is None
    assert "gave 3 " in str(drops.turn(1.0, 3))
    assert drops.turn(2.0, 50) is None
    assert "gave 47 " in str(drops.turn(11.5, 50))
    assert drops.turn(100.0, 50) is None


def patient(played: bool, times: int) -> tuple[list[str], list[float]]:
    """What is said and waited when an engine dies `times` times."""
    said: list[str] = []
    waited: list[float] = []
    host: Any = SimpleNamespace(
        _backoff=Backoff(2.0, 64.0), _tell=said.append, _wait=waited.append, _log="engine.log"
    )
    for _ in range(times):
        EngineSupervisor._pause(host, -9, played)
    return said, waited


def test_one_that_has_played_is_started_again_at_once() -> None:
    said, waited = patient(True, 3)
    assert waited == []
    assert all("the loops play on, it is started again" in line for line in said)


def test_one_that_cannot_play_is_tried_ever_more_patiently() -> None:
    said, waited = patient(False, 9)
    assert waited == [2, 4, 8, 16, 32, 64, 64, 64, 64]
    assert "tried again in 2 s" in said[0]
    assert len(said) < 9


def start(opening: Opening, log: Path) -> EngineProcess:
    """A process that says what an engine would say, without a model."""
    return EngineProcess(opening, log, "tests.helpers.child_engine:child")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineSupervisor]:
    monkeypatch.setattr("demon_live.runtime.supervisor._SPARE_AFTER", 0.0)
    monkeypatch.setattr("demon_live.runtime.supervisor._PAUSE", 0.05)
    monkeypatch.setattr("demon_live.runtime.supervisor.available", lambda: float("inf"))
    host = EngineSupervisor(tmp_path, EngineOptions(), lambda text: None, spare=True, start=start)
    yield host
    host.close()


def until(what: Callable[[], object]) -> None:
    for _ in range(3000):
        if what():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not come")


def playing(*decks: str, timbres: tuple[str, ...] = (), panics: int = 0) -> EngineState:
    loops = [
        Loop(1, deck, 0, Fraction(0), Fraction(96_000), 1, Fraction(120), 4, 50) for deck in decks
    ]
    named = tuple(Timbre(key, f"{key}.wav") for key in timbres)
    return EngineState({x.deck: EngineDeck(x) for x in loops}, timbres=named, panics=panics)


def test_generations_reach_who_asked_for_them(host: EngineSupervisor) -> None:
    made: list[Generation] = []
    host._made = made.append
    host.publish(playing("a"))
    until(lambda: host.status.generations)
    assert not made
    host.publish(replace(playing("a"), latents=True))
    until(lambda: made)
    assert (made[0].request.seed, made[0].request.condition) == (3, None)


def large(k: int) -> EngineState:
    """A state that fills a pipe after a few."""
    return playing("a", timbres=tuple(f"{k}/{n}" for n in range(300)))


def test_a_spare_takes_over_with_the_newest_state_and_the_next_spare_is_begun(
    host: EngineSupervisor,
) -> None:
    host.publish(playing("a", "b", "c"))
    host.publish(playing("a", "b"))
    for turn in range(1, 6):
        until(lambda: host.status.generations >= 2 and host.spare_ready)
        first, spare = host.pid, host.spare_pid
        os.kill(first, signal.SIGKILL)
        until(lambda turn=turn: host.restarts == turn)
        until(lambda: host.status.alive)
        assert host.pid == spare
    until(lambda: host.spare_ready)
    assert host.spare_pid not in (None, host.pid)


def test_an_engine_that_was_killed_gets_the_timbres_again(host: EngineSupervisor) -> None:
    lines: list[str] = []
    host._tell = lines.append
    host.publish(playing("a", timbres=("one", "two", "gone")))
    host.publish(playing("a", timbres=("one", "two")))
    until(lambda: host.status.generations >= 1 and host.spare_ready)
    lines.clear()
    os.kill(host.pid, signal.SIGKILL)
    until(lambda: host.restarts == 1 and host.status.generations >= 1)
    assert [line for line in lines if line.startswith("timbres")] == ["timbres one two"]


def test_without_a_spare_a_new_process_starts_with_the_same_state(
    host: EngineSupervisor,
) -> None:
    host.publish(playing("a"))
    until(lambda: host.spare_ready)
    spare, first = host.spare_pid, host.pid
    assert spare is not None
    os.kill(spare, signal.SIGKILL)
    until(lambda: host.spare_pid is None)
    os.kill(first, signal.SIGKILL)
    until(lambda: host.restarts == 1 and host.status.generations == 1)
    assert host.pid not in (first, spare)


def test_a_state_in_the_middle_of_being_written_does_not_reach_the_next_process(
    host: EngineSupervisor,
) -> None:
    host.publish(playing("a"))
    until(lambda: host.status.generations)
    # It reads no more: what is sent fills the pipe, and the feeding thread waits in the middle.
    os.kill(host.pid, signal.SIGSTOP)
    for k in range(200):
        host.publish(large(k))
    os.kill(host.pid, signal.SIGKILL)
    until(lambda: host.restarts == 1 and host.status.generations == 1)


def test_closing_does_not_wait_for_one_that_no_longer_reads(host: EngineSupervisor) -> None:
    os.kill(host.pid, signal.SIGSTOP)
    for k in range(100):
        host.publish(large(k))
    host.close()
    assert host._process.code == -signal.SIGKILL


def test_one_that_hangs_is_replaced_and_said_so(host: EngineSupervisor) -> None:
    lines: list[str] = []
    host._tell = lines.append
    host.publish(playing("a"))
    until(lambda: host.status.generations == 1 and host.spare_ready)
    first, spare = host.pid, host.spare_pid
    os.kill(first, signal.SIGSTOP)
    until(lambda: host.restarts == 1 and host.status.generations == 1)
    assert host.pid == spare
    assert any("does not answer" in line for line in lines)


def test_a_machine_that_slept_does_not_take_its_engine_for_dead(host: EngineSupervisor) -> None:
    host.publish(playing("a"))
    until(lambda: host.status.generations == 1)
    now = time.monotonic()
    # The last look lies an hour back: this process stood still, too.
    host._looked_at = host._heard_at = now - 3600
    assert not host._hangs(now)
    assert not host._hangs(now + 1)


def test_a_spare_that_dies_is_replaced(host: EngineSupervisor) -> None:
    host.publish(playing("a"))
    until(lambda: host.spare_ready)
    before = host.spare_pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: host.spare_ready and host.spare_pid not in (None, before))
    assert host.restarts == 0


def test_what_is_done_while_the_engine_opens_stands_where_its_name_stands(tmp_path: Path) -> None:
    host = EngineSupervisor(
        tmp_path, EngineOptions("slow"), lambda text: None, spare=False, start=start
    )
    try:
        until(lambda: host.description == "slow · loading 1.2 of 6.3 GB")
    finally:
        host.close()


def test_whatever_keeps_an_engine_from_opening_is_said_and_its_log_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    folder, lines = tmp_path / "live", list[str]()
    folder.mkdir()
    options = EngineOptions("tests.helpers.child_engine:Broken")
    host = EngineSupervisor(folder, options, lines.append, spare=False)
    try:
        until(lambda: any("does not start" in line for line in lines))
    finally:
        host.close()
    assert lines[0] == "engine: OSError: libcuda.so.1: cannot open shared object file"
    log = tmp_path / "state" / "engine.log"
    assert f"see {log}" in lines[1]
    assert "Traceback" in log.read_text()
    assert list(folder.iterdir()) == []


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path))
    monkeypatch.setattr("demon_live.runtime.supervisor._LOG_BYTES", 10)
    log = engine_log(tmp_path)
    log.write_bytes(bytes(11))
    assert engine_log(tmp_path) == log
    assert (tmp_path / "engine.log.1").stat().st_size == 11


class Ended(Exception):
    """The pipe of a test has no more to give."""


class TurnPipe:
    """The session's end of a pipe: one state, then so many empty looks."""

    def __init__(self, state: EngineState, looks: int) -> None:
        self.state: EngineState | None = state
        self.looks = looks

    def poll(self, timeout: float | None = 0.0, /) -> bool:
        self.looks -= 1
        if self.looks < 0:
            raise Ended
        return self.state is not None

    def recv(self) -> EngineState | None:
        state, self.state = self.state, None
        return state

    def send(self, message: object, /) -> None:
        """Reports are for others."""


class Spoiled(MockEngine):
    """A GPU's engine whose every tick fails."""

    def __init__(self, error: str) -> None:
        super().__init__(by_prompt)
        self.error = error
        self.manifest.tick_ms = 80.0

    def velocity(self, *_: Any) -> Any:
        raise RuntimeError(self.error)


def failing(error: str, monkeypatch: pytest.MonkeyPatch, lost: float) -> str:
    """What ends the turns of an engine whose ticks fail."""
    monkeypatch.setattr("demon_live.runtime.generator._LOST", lost)
    engine = Spoiled(error)
    with offline(engine) as instrument:
        instrument.session.apply("prompt = 'a'")
        generator = instrument.output.generator
        instrument.session.pump()
        assert generator.tick_due
        engine.device = SimpleNamespace(type="cuda")  # type: ignore[assignment]
        state = generator._state
        try:
            turn_for_ever(TurnPipe(state, 40), engine, generator, 1)
        except (EngineError, Ended) as ended:
            return f"{type(ended).__name__}: {ended}"
    return ""


def test_an_error_of_cuda_itself_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    said = failing("CUDA error: an illegal memory access was encountered\nmore", monkeypatch, 1e9)
    assert said.startswith("EngineError: the GPU has failed and is opened anew: RuntimeError: CUDA")


def test_a_gpu_whose_every_tick_fails_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing("no", monkeypatch, 1e9).startswith("Ended")
    assert failing("no", monkeypatch, -1.0).startswith("EngineError: the GPU has failed")


def switching(tmp_path: Path, lines: list[str], engine: str = "one", **more: Any) -> Any:
    options = EngineOptions(engine, backend="onnx")
    return EngineSupervisor(tmp_path, options, lines.append, spare=False, start=start, **more)


def test_another_engine_is_prepared_beside_and_takes_over_at_a_bar_and_back(tmp_path: Path) -> None:
    bar, lines = threading.Event(), list[str]()
    host = switching(tmp_path, lines, to_bar=lambda: 0.0 if bar.is_set() else 1e9)
    try:
        host.publish(playing("a", "b"))
        until(lambda: host.status.generations == 2)
        first = host.pid
        host.publish(replace(playing("a", "b"), engine="two"))
        until(lambda: host._other_ready is not None)
        assert (host.engine, host.pid, host.status.generations) == ("one", first, 2)
        bar.set()
        host._other_due = 0.0
        until(lambda: host.engine == "two" and host.status.generations == 2)
        assert host.pid != first
        assert host.restarts == 0
        assert "child two plays from here on" in lines
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        host.publish(playing("a"))
        until(lambda: host.engine == "one" and host.status.generations == 1)
        assert lines[-2:] == ["child one plays from here on", "timbres "]
    finally:
        host.close()


def test_an_engine_that_does_not_open_leaves_the_other_playing(tmp_path: Path) -> None:
    lines: list[str] = []
    host = switching(tmp_path, lines)
    try:
        host.publish(playing("a"))
        until(lambda: host.status.generations == 1)
        first = host.pid
        host.publish(replace(playing("a"), engine="broken"))
        until(lambda: any("broken cannot play; one plays on" in line for line in lines))
        host.publish(replace(playing("a", "b"), engine="broken"))
        until(lambda: host.status.generations == 2)
        assert (host.engine, host.pid, host._other) == ("one", first, None)
        host.publish(replace(playing("a"), engine="two"))
        until(lambda: host.engine == "two")
    finally:
        host.close()


def test_an_engine_that_cannot_start_is_left_for_another_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demon_live.runtime.supervisor._PAUSE", 1e6)
    monkeypatch.setattr("demon_live.runtime.supervisor._LONGEST_PAUSE", 1e6)
    lines: list[str] = []
    host = switching(tmp_path, lines, "broken")
    try:
        until(lambda: any("does not start" in line for line in lines))
        host.publish(replace(playing("a"), engine="two"))
        until(lambda: host.engine == "two" and host.status.generations == 1)
    finally:
        host.close()
