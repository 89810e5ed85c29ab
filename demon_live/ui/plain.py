"""A session without a terminal: statements come in as lines, replies and events go out as lines.

For pipes, services, tests, and simple terminals. Ends at the end of the input, if there is one to
read, at SIGTERM, or after a given time.

Threads: the main thread owns the output; one daemon thread reads the input.
"""

from __future__ import annotations

import logging
import os
import queue
import stat
import threading
import time
from typing import IO

from demon_live.errors import DemonError
from demon_live.lang import is_complete
from demon_live.session.session_api import SessionApi
from demon_live.ui import guide, show

_log = logging.getLogger(__name__)
_POLL = 0.1


def readable(stream: IO[str]) -> bool:
    """Whether a stream can be read: a terminal, a pipe or a file, but not /dev/null."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stream.isatty() or not stat.S_ISCHR(mode)


def play_plain(
    session: SessionApi,
    lines: IO[str] | None,
    out: IO[str],
    *,
    seconds: float | None = None,
    stop: threading.Event | None = None,
    prompt: str = "",
) -> None:
    """Play until the input ends, `seconds` have passed or `stop` is set.

    Args:
        lines: the input; None: there is none.
        out: replies and events.
        seconds: with them, the end of the input does not end the session.
        stop: end when it is set.
        prompt: written before each statement.
    """
    feed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    if lines is not None:
        threading.Thread(target=_read, args=(lines, feed), daemon=True, name="stdin").start()
    colour = show.wants_colour(out)
    end = None if seconds is None else time.monotonic() + seconds
    seen, pending = 0, ""
    _write(out, prompt)
    while not (stop is not None and stop.is_set()) and (end is None or time.monotonic() < end):
        seen = _events(session, seen, out, colour)
        line = _next(feed, end)
        if line:
            pending += line
            if is_complete(pending.removesuffix("\n")):
                _evaluate(session, pending, out, colour)
                pending = ""
                _write(out, prompt)
        elif line is None:
            _evaluate(session, pending, out, colour)
            pending = ""
            if end is None:
                break
    _events(session, seen, out, colour)


def _read(lines: IO[str], feed: queue.SimpleQueue[str | None]) -> None:
    try:
        for line in lines:
            feed.put(line if line.endswith("\n") else f"{line}\n")
    finally:
        feed.put(None)


def _next(feed: queue.SimpleQueue[str | None], end: float | None) -> str | None:
    """The next line, None at the end of the input, "" if there is none in time."""
    wait = _POLL if end is None else max(0.0, min(_POLL, end - time.monotonic()))
    try:
        return feed.get(timeout=wait)
    except queue.Empty:
        return ""


def _events(session: SessionApi, seen: int, out: IO[str], colour: bool) -> int:
    seen, lines = session.events(seen)
    for line in lines:
        _write(out, show.ansi(show.event(line), colour))
    return seen


def _evaluate(session: SessionApi, text: str, out: IO[str], colour: bool) -> None:
    word = guide.question(text)
    try:
        if not text.strip():
            return
        if word is not None:
            pieces = guide.about(word, session) if word else guide.overview()
        else:
            done = session.apply(text.strip("\n"), "<stdin>")
            pieces = show.outcome(done.messages, done.warnings)
    except DemonError as error:
        pieces = show.error(error)
    except Exception as fault:  # noqa: BLE001 - the prompt's wall: no fault may end a set
        _log.exception("a statement failed")
        pieces = show.fault(fault)
    _write(out, show.ansi(pieces, colour))


def _write(out: IO[str], text: str) -> None:
    out.write(text)
    out.flush()
