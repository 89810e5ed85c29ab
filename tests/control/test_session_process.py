"""A session survives its prompt: killed, hung up, detached; attach returns, stop ends it.

Real processes in a real terminal, at the null sink.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from demon_live.audio.pcmring import Bus
from demon_live.control.registry import Info, find, sessions
from demon_live.control.remote_session import RemoteSession
from demon_live.paths import runtime_dir

DEMON = [sys.executable, "-m", "demon_live"]


@pytest.fixture
def name(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The name of a session; whatever plays under it at the end is ended."""
    name = f"live{abs(hash(request.node.name)) % 10**9}"
    yield name
    info = find(name)
    if info is not None:
        os.kill(info.pid, signal.SIGKILL)


@pytest.fixture
def score(tmp_path: Path) -> Path:
    path = tmp_path / "x.demon"
    path.write_text("tempo 240\nloop 1\nblend = .5\n")
    return path


def terminal(tmp_path: Path, *words: str) -> pexpect.spawn:
    env = {
        **os.environ,
        "TERM": "xterm-256color",
        "DEMON_STATE": str(tmp_path / "state"),
        "DEMON_AUDIO": "null",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    return pexpect.spawn(
        DEMON[0], [*DEMON[1:], *words], env=env, dimensions=(30, 100), timeout=60, encoding="utf-8"
    )


def demon(tmp_path: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DEMON_STATE": str(tmp_path / "state")}
    return subprocess.run(
        [*DEMON, *words], input=stdin, capture_output=True, text=True, env=env, timeout=60
    )


def until(found: object) -> object:
    """What `found` returns once it is true; at most a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if value := found():  # type: ignore[operator]
            return value
        time.sleep(0.02)
    raise AssertionError("it never came true")


def bus_of(info: Info) -> Bus:
    return Bus.open(str(next(runtime_dir().glob(f"live-{info.pid}-*")) / "bus"))


def playing(name: str) -> Info:
    info = find(name)
    assert info is not None
    return info


def test_the_sound_survives_its_prompt_and_ends_with_quit(
    tmp_path: Path, score: Path, name: str
) -> None:
    prompt = terminal(tmp_path, "live", str(score), "--name", name)
    prompt.expect("playing")
    info = playing(name)
    assert info.detached
    bus = bus_of(info)

    os.kill(prompt.pid, signal.SIGKILL)
    prompt.wait()
    heard, dry = bus.mixed, bus.dry
    until(lambda: bus.mixed > heard + 24000)
    assert bus.dry == dry
    assert playing(name).pid == info.pid

    prompt = terminal(tmp_path, "attach", "--name", name)
    prompt.expect("playing")
    prompt.send("\x03")
    prompt.expect("the sound goes on")
    prompt.send("blend = .25 now\r")
    prompt.expect(r"\.25")
    prompt.close(force=True)  # the window is closed: SIGHUP
    heard = bus.mixed
    until(lambda: bus.mixed > heard + 24000)

    prompt = terminal(tmp_path, "attach", "--name", name)
    prompt.expect("playing")
    prompt.send("detach\r")
    prompt.expect("plays on")
    prompt.expect(pexpect.EOF)
    assert playing(name).pid == info.pid

    prompt = terminal(tmp_path, "live", str(score), "--name", name)
    prompt.expect("plays already. Return to it")
    prompt.send("\r")
    prompt.expect("for help")
    prompt.expect("bpm")  # its panel is there, so keys are read
    prompt.send("\x04")  # a prompt that joined leaves
    prompt.expect("plays on")
    prompt.expect(pexpect.EOF)
    assert playing(name).pid == info.pid

    prompt = terminal(tmp_path, "attach", "--name", name)
    prompt.expect("playing")
    other = terminal(tmp_path, "attach", "--name", name)
    other.expect("playing")
    prompt.send("quit\r")
    prompt.expect(pexpect.EOF)
    prompt.close()
    assert prompt.exitstatus == 0
    other.expect("the session has ended")
    other.expect(pexpect.EOF)
    assert "Traceback" not in other.before
    assert find(name) is None
    assert list(runtime_dir().glob(f"live-{info.pid}-*")) == []


def test_stop_ends_a_session_whose_terminal_is_gone_and_closes_its_recording(
    tmp_path: Path, score: Path, name: str
) -> None:
    prompt = terminal(tmp_path, "live", str(score), "--name", name, "--record", "friday")
    prompt.expect("playing")
    prompt.close(force=True)
    assert f"session {name}" in demon(tmp_path, "doctor").stdout
    done = demon(tmp_path, "stop", "--name", name)
    assert (done.returncode, done.stdout) == (0, f"{name} has ended\n")
    assert find(name) is None
    recorded = (tmp_path / "state" / "sets" / "friday.set.jsonl").read_text()
    assert '"kind":"end"' in recorded.splitlines()[-1]


def test_a_prompt_whose_session_dies_says_so(tmp_path: Path, score: Path, name: str) -> None:
    prompt = terminal(tmp_path, "live", str(score), "--name", name)
    prompt.expect("playing")
    os.kill(playing(name).pid, signal.SIGKILL)
    prompt.expect("the session has died")
    assert "Traceback" not in prompt.before
    prompt.expect("demon live --resume")
    prompt.expect(pexpect.EOF)
    prompt.close()
    assert prompt.exitstatus == 3
    assert find(name) is None


def test_what_keeps_a_session_from_starting_is_said_at_the_prompt(
    tmp_path: Path, name: str
) -> None:
    score = tmp_path / "bad.demon"
    score.write_text("blent = 1\n")
    prompt = terminal(tmp_path, "live", str(score), "--name", name)
    prompt.expect("did you mean blend")
    prompt.expect(pexpect.EOF)
    prompt.close()
    assert prompt.exitstatus == 1
    assert find(name) is None


def test_a_session_in_a_pipe_is_reached_by_its_name(tmp_path: Path, score: Path, name: str) -> None:
    env = {**os.environ, "DEMON_STATE": str(tmp_path / "state")}
    words = ["live", str(score), "--audio", "null", "--no-tty", "--name", name]
    with subprocess.Popen(
        [*DEMON, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as piped:
        assert piped.stdout is not None
        assert piped.stdout.readline().startswith("demon ")
        remote = RemoteSession(name)
        assert "blend" in remote.apply("blend = .75 now").messages[0]
        remote.close()
        again = demon(tmp_path, *words)
        assert again.returncode == 1
        assert "plays already" in again.stderr
        piped.communicate("", timeout=60)
    assert piped.returncode == 0
    assert find(name) is None


def test_commands_without_a_session_name_the_remedy(tmp_path: Path) -> None:
    assert sessions() == ()
    done = demon(tmp_path, "stop")
    assert done.returncode == 1
    assert "start one: demon live" in done.stderr
