"""Frames of the control socket: one JSON object a line, UTF-8, bounded, versioned.

    request   {"v": 1, "id": 7, "do": "apply", "text": "hush", "name": "<prompt>"}
    reply     {"id": 7, "ok": ...}   or   {"id": 7, "error": {"kind": "ScoreError", ...}}

A client sends a request and reads its reply; the server never speaks first, so a slow client
holds up nobody and nothing piles up for it. `VERBS` is the whole vocabulary. Whatever is wrong
with a frame is a `WireError`; the connection stays usable unless the frame had no end.

    hello     who is there: name, pid, engine, versions
    apply     evaluate `text`; origin "repl" adds to what plays, "file" is all that `name` says
    load      read the score at `path` and apply it as that file
    save      write `text` to the score file at `path` and play it
    remove    give back what the file `name` said
    status    the newest Status
    events    lines after number `since`; `lost` of them were forgotten before they were asked for
    scores    the score files that play, name -> text
    words     the names that a score may use now, for completion
    quit      end the session: recordings are closed, the sound fades

Threads: pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from demon_live import errors
from demon_live.errors import DemonError, Span

__all__ = [
    "EVALUATIONS",
    "MAX_REPLY",
    "MAX_REQUEST",
    "PROTOCOL",
    "VERBS",
    "Frame",
    "WireError",
    "decode_error",
    "encode_error",
    "parse_frame",
    "parse_reply",
    "reply",
    "request",
]

PROTOCOL = 1
#: Longest frames in bytes. A score has 64 KiB; JSON may need six bytes for one of them.
MAX_REQUEST = 512 * 1024
MAX_REPLY = 8 * 1024 * 1024

#: verb -> argument -> (type, longest text or largest number, default; None = must be given)
_Spec = Mapping[str, tuple[type, int, Any]]
VERBS: Mapping[str, _Spec] = {
    "hello": {},
    "apply": {
        "text": (str, 64 * 1024, None),
        "name": (str, 4096, "<prompt>"),
        "origin": (str, 8, "repl"),
    },
    "load": {"path": (str, 4096, None)},
    "save": {"path": (str, 4096, None), "text": (str, 64 * 1024, None)},
    "remove": {"name": (str, 4096, None)},
    "status": {},
    "events": {"since": (int, 2**53, 0)},
    "scores": {},
    "words": {},
    "quit": {},
}
#: Verbs that change what plays.
EVALUATIONS = frozenset({"apply", "load", "save", "remove"})
_ORIGINS = ("repl", "file")


class WireError(DemonError):
    """A frame, packet or web message that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One understood request. args holds every argument of the verb, defaults filled in."""

    id: int
    do: str
    args: Mapping[str, Any]


def request(number: int, verb: str, args: Mapping[str, Any]) -> bytes:
    """A request as bytes, newline included."""
    return _line({"v": PROTOCOL, "id": number, "do": verb, **args})


def reply(number: int, *, ok: Any = None, error: BaseException | None = None) -> bytes:
    """A reply as bytes, newline included."""
    row: dict[str, Any] = {"id": number}
    row |= {"ok": ok} if error is None else {"error": encode_error(error)}
    return _line(row)


def _line(row: Mapping[str, Any]) -> bytes:
    return (
        json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "backslashreplace"
        )
        + b"\n"
    )


def _object(data: bytes, limit: int) -> dict[str, Any]:
    if len(data) > limit:
        raise WireError(f"a frame has {len(data)} bytes; the limit is {limit}")
    try:
        row = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    # Nesting without end is a RecursionError, numbers without end a ValueError.
    except (ValueError, RecursionError) as error:
        raise WireError(
            f"this is not JSON: {str(error)[:80]}", hint="one JSON object a line, in UTF-8"
        ) from None
    if not isinstance(row, dict):
        raise WireError("a frame is a JSON object", hint='such as {"v": 1, "id": 1, "do": "hello"}')
    return row


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def parse_frame(data: bytes) -> Frame:
    """The request in one line of bytes. Raises WireError for everything else."""
    row = _object(data, MAX_REQUEST)
    version = row.get("v")
    if version != PROTOCOL or isinstance(version, bool):
        raise WireError(
            f"this session speaks protocol {PROTOCOL}, not {str(version)[:20]}",
            hint="use the same version of demon-live at both ends",
        )
    number = row.get("id", 0)
    if type(number) is not int or not 0 <= number < 2**53:
        raise WireError("id is a whole number from 0 on")
    verb = row.get("do")
    if not isinstance(verb, str) or verb not in VERBS:
        raise WireError(
            f"there is no request {str(verb)[:40]!r}", hint=f"known: {', '.join(VERBS)}"
        )
    args = {name: _argument(verb, name, row, spec) for name, spec in VERBS[verb].items()}
    if args.get("origin", "repl") not in _ORIGINS:
        raise WireError(f"origin is one of: {', '.join(_ORIGINS)}")
    return Frame(number, verb, MappingProxyType(args))


def _argument(verb: str, name: str, row: Mapping[str, Any], spec: tuple[type, int, Any]) -> Any:
    kind, limit, default = spec
    value = row.get(name, default)
    if type(value) is not kind:
        raise WireError(f"{verb} needs {name!r}, {'a text' if kind is str else 'a whole number'}")
    size = len(value) if isinstance(value, str) else value
    if not (isinstance(size, int) and 0 <= size <= limit):
        raise WireError(f"{name!r} of {verb} is too large", hint=f"the limit is {limit}")
    return value


def parse_reply(data: bytes) -> tuple[int, Any]:
    """(id, result) of a reply. Raises the error that it carries, or WireError."""
    row = _object(data, MAX_REPLY)
    if "error" in row:
        raise decode_error(row["error"])
    number = row.get("id")
    if type(number) is not int or "ok" not in row:
        raise WireError("the session's answer is not a reply")
    return number, row["ok"]


# --- errors -------------------------------------------------------------------------------------


def encode_error(error: BaseException) -> dict[str, Any]:
    """An error as JSON; one that is not a DemonError keeps its type's name and its text."""
    if not isinstance(error, DemonError):
        return {
            "kind": "EngineError",
            "message": f"this failed inside demon: {type(error).__name__}: {error}",
            "hint": "everything plays on as before; the log has the details",
        }
    span = error.span
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "span": [span.start, span.end, span.line, span.col] if span else None,
        "hint": error.hint,
        "source": error.source,
        "name": error.name,
        "playing": error.playing,
        "others": [encode_error(other) for other in error.others[:64]],
    }


def decode_error(row: Any) -> DemonError:
    """The error of a reply; what cannot be read becomes a WireError."""
    if not isinstance(row, dict):
        return WireError("the session reports an error that cannot be read")
    word = str(row.get("kind"))
    kind = WireError if word == WireError.__name__ else getattr(errors, word, None)
    if not (isinstance(kind, type) and issubclass(kind, DemonError)):
        kind = DemonError
    others = row.get("others")
    texts = {
        k: v for k in ("hint", "source", "name", "playing") if isinstance(v := row.get(k), str)
    }
    return kind(
        str(row.get("message", "")),
        span=_span(row.get("span")),
        others=[decode_error(other) for other in others] if isinstance(others, list) else (),
        **texts,
    )


def _span(row: Any) -> Span | None:
    if isinstance(row, list) and len(row) == 4 and all(type(x) is int and x >= 0 for x in row):
        return Span(*row)
    return None
