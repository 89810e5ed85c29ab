"""The session in a process of its own, detached from the terminal.

    prompt  --fork-->  session  --starts-->  engine, audio

The session has its own session id: Ctrl-C, a closed window and kill -9 of the prompt do not reach
it. SIGHUP and SIGINT are ignored there; SIGTERM, `quit` over the socket and `demon stop` end it
cleanly (fade, recordings closed). Forked before anything heavy is imported, so that it costs the
first sound nothing: the front end is imported while the instrument opens.

Threads: `spawn` belongs to the main thread, before any other thread has been started.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from demon_live.control import wire
from demon_live.control.registry import DEFAULT, Claim, Info, ended, find, taken
from demon_live.errors import DemonError, EngineError
from demon_live.runtime.doors import Start as Start
from demon_live.runtime.doors import doors as doors
from demon_live.runtime.doors import info_row

log = logging.getLogger(__name__)

#: Seconds that an engine and a device may take to open.
_OPENING = 120.0


@dataclass
class Running:
    """A session that was started here. pid: of its process."""

    pid: int
    _pipe: int

    def ready(self) -> Info:
        """Wait until it plays. Raises the DemonError that kept it from playing."""
        data = b""
        end = time.monotonic() + _OPENING
        try:
            while not data.endswith(b"\n"):
                if not select.select([self._pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise EngineError("the session has not started", hint="demon doctor")
                more = os.read(self._pipe, 65536)
                if not more:
                    raise EngineError(
                        "the session ended while it was starting",
                        hint=f"its last words are in {_last_words()}",
                    )
                data += more
        finally:
            os.close(self._pipe)
            self._pipe = -1
        _, row = wire.parse_reply(data)
        return Info(**{**row, "scores": tuple(row["scores"])})

    def stop(self) -> None:
        """End it, before or after it is ready."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def reap(self) -> int | None:
        """Its exit code once it has ended, else None."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None


def spawn(start: Start) -> Running:
    """Start a session in a process of its own. Raises FileError if its name is held."""
    name = start.name or DEFAULT
    if find(name) is not None:
        raise taken(name)
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return Running(pid, ours)
    # The session's process. Nothing of the caller's stack may be unwound here: it is not its own.
    code = 3
    try:
        os.close(ours)
        code = _session(start, theirs)
    finally:
        logging.shutdown()
        os._exit(code)


def _session(start: Start, pipe: int) -> int:
    """Play until asked to end; an error that keeps it from playing goes through the pipe."""
    os.setsid()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _detach_streams()
    log_to_file()
    told = False
    try:
        claim = Claim.take(start.info(detached=True))
        try:
            from demon_live.runtime.live import Live

            with Live(**start.live) as live, doors(live, start, stop, claim) as info:
                os.write(pipe, wire.reply(0, ok=info_row(info)))
                os.close(pipe)
                told = True
                _wait(stop)
        finally:
            claim.release()
    except BaseException as error:
        if told:
            log.exception("the session ended by a fault")
        else:
            if not isinstance(error, DemonError):
                log.exception("the session could not start")
            os.write(pipe, wire.reply(0, error=error))
        return 3
    return 0


def _wait(stop: threading.Event) -> None:
    # A wait without an end would keep Python from running its signal handlers on some systems.
    while not stop.wait(1.0):
        pass


def _last_words() -> Path:
    from demon_live.paths import state_dir

    return state_dir() / "session.log"


def _detach_streams() -> None:
    """Nothing of the terminal may be read or written any more; last words go to a file."""
    nothing = os.open(os.devnull, os.O_RDWR)
    words = nothing
    with contextlib.suppress(OSError):
        words = os.open(_last_words(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(words, 2)
    faulthandler.enable(file=2)


def terminate(info: Info, patience: float = 15.0) -> bool:
    """End a running session cleanly; True once it has ended."""
    from demon_live.control.client import Connection

    try:
        connection = Connection(info.socket, timeout=patience)
        try:
            connection.ask("quit")
        finally:
            connection.close()
    except DemonError:
        if info.pid:
            with contextlib.suppress(OSError):
                os.kill(info.pid, signal.SIGTERM)
    return ended(info.name, patience)


def log_to_file(name: str = "demon.log") -> None:
    """What goes wrong inside is written down, not printed across the prompt."""
    from logging.handlers import RotatingFileHandler

    from demon_live.paths import state_dir

    with contextlib.suppress(OSError):
        path = state_dir() / name
        handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=2, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("demon_live").addHandler(handler)
