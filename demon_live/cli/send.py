"""`demon send`: a text or a score to a session that plays, from any editor.

Light on imports (no numpy, no prompt, no engine): an editor runs it for every line. The reply is
shown as at the prompt; with `--at FILE:LINE` errors name the place in the file that the text comes
from, so that an editor's list of errors leads there.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from demon_live.control.client import connect
from demon_live.errors import DemonError, FileError, UsageError, placed
from demon_live.ui import show

#: Longest score, in bytes (the language's bound).
_LIMIT = 64 * 1024
_PLACE = re.compile(r"(.+?)(?::(\d+))?(?::(\d+))?")


def send(args: argparse.Namespace) -> int:
    """`demon send FILE|-`, `demon send -e TEXT`. Raises the session's DemonError."""
    verb, request, place = _request(args)
    connection = connect(args.name)
    try:
        answer = connection.ask(verb, **request)
    except DemonError as error:
        raise placed(error, *place) if place else error from None
    finally:
        connection.close()
    if not args.quiet:
        messages, warnings = _lines(answer, "messages"), _lines(answer, "warnings")
        reply = show.outcome(messages if messages or warnings else ("nothing changes",), warnings)
        sys.stdout.write(show.ansi(reply, show.wants_colour(sys.stdout)))
    return 0


def _request(args: argparse.Namespace) -> tuple[str, dict[str, str], tuple[str, int, int] | None]:
    """The verb, its arguments, and the place of the text in a file."""
    count = (args.text is not None) + (args.file is not None)
    if count != 1:
        raise UsageError("send what?", hint="demon send FILE, demon send -, or demon send -e TEXT")
    if args.file not in (None, "-"):
        if args.at or args.whole:
            raise UsageError("--at and --as say where a text from - or -e stands")
        path = Path(args.file)
        if not os.path.exists(path):
            line = bool(set(" =") & set(args.file))
            hint = f"a line: demon send -e {shlex.quote(args.file)}"
            hint = hint if line else "give the path of a .demon file"
            raise FileError(f"there is no score {str(path)!r}", hint=hint)
        return "load", {"path": str(path.absolute())}, None
    text = args.text if args.text is not None else _read()
    if args.whole:
        whole = str(Path(args.whole).absolute())
        return "apply", {"text": text, "name": whole, "origin": "file"}, None
    return "apply", {"text": text, "name": "<send>"}, _place(args.at)


def _read() -> str:
    """The standard input, within the bounds of a score."""
    data = sys.stdin.buffer.read(_LIMIT + 1)
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
