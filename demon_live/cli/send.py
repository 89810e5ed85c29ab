"""`demon send`: a text or a score to a session that plays, from any editor.

Light on imports (no numpy, no prompt, no engine): an editor runs it for every line. The reply is
shown as at the prompt; with `--at FILE:LINE` errors name the place in the file that the text comes
from, so that an editor's list of errors leads there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import re
import select
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demon_live.control import wire
from demon_live.control.client import Connection, SessionGone, author, connect
from demon_live.errors import DemonError, FileError, UsageError, placed
from demon_live.ui import show

#: Longest score, in bytes (the language's bound).
_LIMIT = 64 * 1024
#: Seconds for which a block that is not whole waits for more.
_PATIENCE = 1.0
_OPEN, _CLOSE = (b"{", b"(", b"["), (b"}", b")", b"]")
#: Blocks that wait for the session.
_WAITING = 1024
_PLACE = re.compile(r"(.+?)(?::(\d+))?(?::(\d+))?")


def send(args: argparse.Namespace) -> int:
    """`demon send FILE|-`, `demon send -e TEXT`, `demon send --stdin`. Raises the session's
    DemonError."""
    whole, by = _says(args.says)
    if args.stdin:
        return _stream(args, whole, by)
    verb, request, place = _request(args, whole)
    with contextlib.closing(connect(args.name)) as connection:
        try:
            answer = connection.ask(verb, **request, by=by)
        except DemonError as error:
            raise placed(error, *place) if place else error from None
    if not args.quiet:
        _show(answer)
    return 0


def _says(words: list[str]) -> tuple[str | None, str]:
    """What `--as` says: (the file that a text is the whole of, the author)."""
    names = [word for word in words if wire.AUTHOR.fullmatch(word)]
    files = [word for word in words if word not in names]
    if len(names) > 1 or len(files) > 1:
        raise UsageError("--as names one author and one file", hint="--as ann --as set.demon")
    return next(iter(files), None), author(next(iter(names), None))


def _show(answer: Any) -> None:
    messages, warnings = _lines(answer, "messages"), _lines(answer, "warnings")
    reply = show.outcome(messages if messages or warnings else ("nothing changes",), warnings)
    sys.stdout.write(show.ansi(reply, show.wants_colour(sys.stdout)))
    sys.stdout.flush()


# --- blocks from another program ----------------------------------------------------------------


def _stream(args: argparse.Namespace, whole: str | None, by: str) -> int:
    """Evaluate each block of the standard input as it comes. What is refused is shown, and the next
    one comes. Ends with the input, or with the session (SessionGone)."""
    if args.file is not None or args.text is not None or args.at or whole:
        raise UsageError("--stdin takes statements, and no file, -e or --at")
    with contextlib.closing(connect(args.name)) as connection:
        came: queue.Queue[bytes] = queue.Queue(_WAITING)
        source = sys.stdin.fileno()
        # Read at once: blocks are told apart by when they come.
        threading.Thread(target=_read_blocks, args=(source, came), daemon=True).start()
        while block := came.get():
            _evaluate(connection, block, by, args.quiet)
    return 0


def _read_blocks(source: int, came: queue.Queue[bytes]) -> None:
    for block in blocks(source):
        came.put(block)
    came.put(b"")


def _evaluate(connection: Connection, block: bytes, by: str, quiet: bool) -> None:
    try:
        answer = connection.ask("apply", text=_text(block), name="<send>", by=by)
    except SessionGone:
        raise
    except DemonError as error:
        sys.stderr.write(show.ansi(show.error(error), show.wants_colour(sys.stderr)))
        sys.stderr.flush()
    else:
        if not quiet:
            _show(answer)


def blocks(source: int) -> Iterator[bytes]:
    """The blocks of lines that a file descriptor gives: what another program writes at once, or a
    part of it up to a blank line outside of braces.

    What is not whole yet waits a second for more. A block that is too long for a score comes out as
    soon as it is, and is refused.
    """
    held, opened = b"", 0
    while data := os.read(source, _LIMIT):
        for line in data.splitlines(keepends=True):
            held += line
            # Quotes are not looked into: a text of blank lines is not read again at each of them.
            opened += sum(map(line.count, _OPEN)) - sum(map(line.count, _CLOSE))
            if (not line.strip() and opened <= 0) or len(held) > _LIMIT:
                if held.strip():
                    yield held
                held, opened = b"", 0
        if held and (_is_whole(held) or not select.select([source], [], [], _PATIENCE)[0]):
            yield held
            held, opened = b"", 0
    if held.strip():
        yield held


def _is_whole(data: bytes) -> bool:
    from demon_live.lang import is_complete

    return data.endswith(b"\n") and is_complete(data.decode("utf-8", "replace").rstrip())


# --- one text -----------------------------------------------------------------------------------


def _request(
    args: argparse.Namespace, whole: str | None
) -> tuple[str, dict[str, str], tuple[str, int, int] | None]:
    """The verb, its arguments, and the place of the text in a file."""
    count = (args.text is not None) + (args.file is not None)
    if count != 1:
        raise UsageError("send what?", hint="demon send FILE, demon send -, or demon send -e TEXT")
    if args.file not in (None, "-"):
        if args.at or whole:
            raise UsageError("--at and --as say where a text from - or -e stands")
        path = Path(args.file)
        if not os.path.exists(path):
            line = bool(set(" =") & set(args.file))
            hint = f"a line: demon send -e {shlex.quote(args.file)}"
            hint = hint if line else "give the path of a .demon file"
            raise FileError(f"there is no score {str(path)!r}", hint=hint)
        return "load", {"path": str(path.absolute())}, None
    text = args.text if args.text is not None else _read()
    if whole:
        path = Path(whole).absolute()
        return "apply", {"text": text, "name": str(path), "origin": "file"}, None
    return "apply", {"text": text, "name": "<send>"}, _place(args.at)


def _read() -> str:
    """The standard input, within the bounds of a score."""
    return _text(sys.stdin.buffer.read(_LIMIT + 1))


def _text(data: bytes) -> str:
    if len(data) > _LIMIT:
        raise FileError(f"a score has at most {_LIMIT} bytes", hint="send less at a time")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"this is not text (byte {error.start})", hint="send UTF-8") from None


def _place(at: str | None) -> tuple[str, int, int] | None:
    if at is None:
        return None
    match = _PLACE.fullmatch(at)
    if match is None or len(at) > 4096:
        raise UsageError(f"{at[:40]!r} is no place", hint="FILE:LINE, such as set.demon:12")
    return match[1], max(1, int(match[2] or 1)), max(1, int(match[3] or 1))


def _lines(answer: Any, what: str) -> tuple[str, ...]:
    found = answer.get(what) if isinstance(answer, dict) else None
    return tuple(str(line) for line in found) if isinstance(found, list) else ()
