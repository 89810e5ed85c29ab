"""The control socket: answers, bounds, and who may come."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from demon_live.control import server as module
from demon_live.control import wire
from demon_live.control.client import Connection, SessionGone
from demon_live.control.registry import Claim, Info, find, sessions, socket_path
from demon_live.control.remote_session import RemoteSession
from demon_live.control.server import ControlServer, RateLimit
from demon_live.errors import FileError, ScoreError, UsageError
from demon_live.session.scores import score_name
from tests.helpers.served import Session
from tests.helpers.ui_fakes import STATUS


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"t{abs(hash(request.node.name)) % 10**9}"


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def asked_to_quit() -> threading.Event:
    return threading.Event()


@pytest.fixture
def server(session: Session, name: str, asked_to_quit: threading.Event) -> Iterator[ControlServer]:
    claim = Claim.take(Info(name, os.getpid()))
    control = ControlServer(
        session,
        socket_path(name),
        who=lambda: {"name": name},
        tell=session.lines.append,
        quit=asked_to_quit.set,
    )
    yield control
    control.close()
    claim.release()


@pytest.fixture
def remote(server: ControlServer, name: str) -> Iterator[RemoteSession]:
    session = RemoteSession(name, by="ann")
    yield session
    session.close()


def test_a_statement_reaches_the_session_and_its_reply_the_prompt(
    remote: RemoteSession, session: Session
) -> None:
    assert remote.apply("blend = 1").messages == ("blend · from bar 6 · class step",)
    assert session.applied == ["blend = 1"]


def test_an_error_is_shown_as_the_session_shows_it(remote: RemoteSession, session: Session) -> None:
    with pytest.raises(ScoreError) as there:
        session.apply("x = wrong")
    with pytest.raises(ScoreError) as here:
        remote.apply("x = wrong")
    assert str(here.value) == str(there.value)
    assert "^^^^^" in str(here.value)


def test_views_names_and_scores(remote: RemoteSession) -> None:
    assert remote.status().cycle == STATUS.cycle
    assert remote.words().decks == ("main",)
    assert remote.scores() == {"x.demon": "blend = 1"}


def test_events_arrive_once_and_lost_ones_are_counted(
    remote: RemoteSession, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.lines += ["one", "two"]
    seen, lines = remote.events(0)
    assert (seen, lines) == (2, ("one", "two"))
    assert remote.events(seen) == (2, ())
    monkeypatch.setattr(session, "events", lambda since: (10, ("nine", "ten")))
    assert remote.events(2) == (10, ("6 messages came faster than they were read", "nine", "ten"))


def test_who_comes_later_hears_the_last_lines(
    server: ControlServer, session: Session, name: str
) -> None:
    session.lines += [str(n) for n in range(20)]
    late = RemoteSession(name, recent=3)
    assert late.events(0) == (20, ("17", "18", "19"))
    late.close()


def test_everybody_sees_what_comes_in_and_from_where(
    remote: RemoteSession, session: Session, tmp_path: Path
) -> None:
    remote.apply("blend = 1")
    remote.apply("blend = 2\nlpf = 900", "<send>")
    (tmp_path / "gig.demon").write_text("blend = 3")
    remote.load(tmp_path / "gig.demon")
    remote.save("set.demon", "blend = 4")
    with pytest.raises(ScoreError):
        remote.apply("wrong = 1", "<send>")
    name = score_name(tmp_path / "gig.demon")
    assert session.lines == [
        "ann (prompt): blend = 1",
        "ann (send): blend = 2 ...",
        f"ann (send): {name}",
        "ann (stage): set.demon",
    ]


def test_detach_leaves_the_session_alone(
    server: ControlServer, session: Session, name: str, asked_to_quit: threading.Event
) -> None:
    left = threading.Event()
    remote = RemoteSession(name, ended=left.set)
    remote.apply("detach")
    assert left.is_set()
    assert remote.detached
    assert not asked_to_quit.is_set()
    assert session.applied == []
    remote.close()


def test_quit_asks_for_the_end_after_its_answer(
    server: ControlServer, name: str, asked_to_quit: threading.Event
) -> None:
    connection = Connection(socket_path(name))
    assert connection.ask("quit") is True
    assert asked_to_quit.wait(5)
    connection.close()


def test_a_session_that_has_gone_is_told_once(server: ControlServer, name: str) -> None:
    told: list[int] = []
    remote = RemoteSession(name, ended=lambda: told.append(1))
    server.close()
    for _ in range(2):
        with pytest.raises(SessionGone):
            remote.status()
    assert told == [1]
    assert remote.lost is not None
    remote.close()


def test_a_fault_of_the_session_is_answered_and_the_next_request_too(
    remote: RemoteSession,
) -> None:
    with pytest.raises(Exception, match="RuntimeError: a fault of ours"):
        remote.apply("crash")
    assert remote.apply("blend = 1").messages


def test_the_socket_is_for_its_user_alone(server: ControlServer, name: str) -> None:
    path = socket_path(name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_user_is_turned_away(
    server: ControlServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "same_user", lambda client: False)
    turned_away = (wire.WireError, SessionGone)
    with (
        contextlib.closing(Connection(socket_path(name))) as visitor,
        pytest.raises(turned_away, match=r"another user|does not answer"),
    ):
        visitor.ask("hello")


def raw(name: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(str(socket_path(name)))
    return client


def test_nonsense_is_answered_and_the_connection_stays(server: ControlServer, name: str) -> None:
    with raw(name) as client:
        client.sendall(b"nonsense\n\n" + wire.request(5, "hello", {}))
        with client.makefile("rb") as lines:
            first, second, third = (json.loads(next(lines)) for _ in range(3))
    assert first["error"]["kind"] == second["error"]["kind"] == "WireError"
    assert third["ok"]["name"] == name


def test_a_frame_without_an_end_is_cut_off(server: ControlServer, name: str) -> None:
    with raw(name) as client, pytest.raises(OSError, match=r"pipe|reset"):
        client.sendall(b"x" * 64 * wire.MAX_REQUEST)


def test_a_half_frame_is_not_waited_for_long(
    server: ControlServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIME", 0.05)
    with raw(name) as client:
        client.sendall(b'{"v": 1,')
        assert client.recv(1) == b""


def test_clients_are_counted_and_bounded(
    server: ControlServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 2)
    first, second = Connection(socket_path(name)), Connection(socket_path(name))
    assert first.ask("hello")
    assert second.ask("hello")
    with raw(name) as third:
        assert b"are connected to this session already" in third.recv(4096)
    first.close()
    second.close()


def test_a_client_that_says_nothing_makes_room(
    server: ControlServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 2)
    monkeypatch.setattr(module, "SILENCE", -1.0)
    first, second = Connection(socket_path(name)), Connection(socket_path(name))
    assert first.ask("hello")
    assert second.ask("hello")
    assert first.ask("hello")
    third = Connection(socket_path(name))
    assert third.ask("hello")
    assert first.ask("hello")
    with pytest.raises(SessionGone):
        second.ask("hello")
    for client in (first, second, third):
        client.close()


def test_a_client_whose_request_is_being_answered_is_not_silent(
    server: ControlServer, name: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 1)
    monkeypatch.setattr(module, "SILENCE", -1.0)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> dict[str, str]:
        begun.set()
        assert go_on.wait(60)
        return {}

    monkeypatch.setattr(session, "scores", slow)
    with raw(name) as client:
        client.sendall(wire.request(1, "scores", {}))
        assert begun.wait(60)
        with raw(name) as other:
            assert b"are connected to this session already" in other.recv(4096)
        go_on.set()
        assert b'"ok"' in client.recv(4096)


def test_one_client_that_does_not_read_holds_up_no_other(
    server: ControlServer, name: str, session: Session
) -> None:
    session.lines += ["x" * 1000] * 1000
    with raw(name) as deaf:
        deaf.sendall(wire.request(1, "events", {}) * 8)
        other = Connection(socket_path(name))
        assert other.ask("hello")["name"] == name
        other.close()


def test_the_pace_lets_a_burst_through_and_then_holds_back() -> None:
    pace = RateLimit(rate=10.0, burst=3.0)
    waits = [pace.wait() for _ in range(5)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert 0.0 < waits[3] < waits[4] <= 0.2


def test_without_a_session_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no session"):
        Connection(tmp_path / "nobody.sock")


def test_a_long_path_is_no_obstacle(tmp_path: Path, session: Session) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    control = ControlServer(session, folder / "x.sock")
    connection = Connection(folder / "x.sock")
    assert connection.ask("hello")["protocol"] == wire.PROTOCOL
    connection.close()
    control.close()


def test_a_name_is_held_by_one_session(server: ControlServer, name: str) -> None:
    with pytest.raises(FileError, match="plays already"):
        Claim.take(Info(name, 1))
    assert name in [info.name for info in sessions()]
    assert find(name) is not None


def test_what_a_dead_session_left_is_removed(name: str) -> None:
    path = socket_path(name)
    info = path.with_suffix(".json")
    info.write_text(json.dumps({"name": name, "pid": 1}))
    path.touch()
    assert find(name) is None
    assert not path.exists()
    assert not info.exists()


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "-x", "x" * 33, "é"])
def test_a_name_is_a_name(bad: str) -> None:
    with pytest.raises(UsageError, match="no name for a session"):
        Claim.take(Info(bad, os.getpid()))
