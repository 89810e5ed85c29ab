"""The control socket's protocol: one JSON object a line, UTF-8, bounded, versioned.

    request   {"v": 1, "id": 7, "do": "apply", "text": "hush", "name": "<prompt>"}
    reply     {"id": 7, "ok": ...}   or   {"id": 7, "error": {"kind": "ScoreError", ...}}

A client sends a request and reads its reply; a slow client holds up no other client and no replies
queue up for it. `VERBS` is the whole vocabulary. A request that breaks these rules raises
WireError; the connection stays usable unless the line had no end.

After `follow` a connection is one for pushed events: the server sends them as they come, and the
client only reads, a beat when nothing happens. One that does not read is dropped.

    pushed    {"push": "event", "value": "the engine ended ..."}

    hello     name, pid, engine and versions of the session
    apply     evaluate `text`; origin "repl" adds to what plays, "file" is the whole of file `name`
    at        evaluate `text`, to be heard at `cycle`, as 8 or 7/2
    load      read the score at `path` and apply it as that file
    save      write `text` to the score file at `path` and play it
    remove    unload the score file `name`
    status    the newest Status
    events    lines after number `since`; `lost` of them were forgotten before the request
    scores    the score files that play, name -> text
    score     what plays now as one score, for a file in `folder`
    words     the names that a score may use now, for completion
    follow    push what happens of these `kinds`: clock event error generation
    quit      end the session: recordings are closed, the sound fades

What changes what plays may say `by` whom; "": by the owner of the session.

Values of `session.status` (Status, DeckView, Outcome, ...) and `SlotStatus` cross as an object with
their name and fields. An unknown field is left out, a missing one has its default: two versions
that speak the same protocol understand each other. Curves are float32, base64, bit for bit.

Heavy modules are imported when the first value crosses: `demon send` starts at once.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cache
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from demon_live import errors
from demon_live.errors import DemonError, Span

PROTOCOL = 1
#: Longest frames in bytes. A score has 64 KiB; JSON may need six bytes for one of them.
MAX_REQUEST = 512 * 1024
MAX_REPLY = 8 * 1024 * 1024

#: verb -> argument -> (type, longest text or largest number, default; None = must be given)
_Spec = Mapping[str, tuple[type, int, Any]]
_BY: _Spec = {"by": (str, 32, "")}
VERBS: Mapping[str, _Spec] = {
    "hello": {},
    "apply": {
        "text": (str, 64 * 1024, None),
        "name": (str, 4096, "<prompt>"),
        "origin": (str, 8, "repl"),
        **_BY,
    },
    "at": {
        "text": (str, 64 * 1024, None),
        "name": (str, 4096, "<prompt>"),
        "cycle": (str, 32, None),
        **_BY,
    },
    "load": {"path": (str, 4096, None), **_BY},
    "save": {"path": (str, 4096, None), "text": (str, 64 * 1024, None), **_BY},
    "remove": {"name": (str, 4096, None), **_BY},
    "status": {},
    "events": {"since": (int, 2**53, 0)},
    "scores": {},
    "score": {"folder": (str, 4096, "")},
    "words": {},
    "follow": {"kinds": (str, 64, "clock event error")},
    "quit": {},
}
#: Verbs that change what plays.
EVALUATIONS = frozenset({"apply", "at", "load", "save", "remove"})
_ORIGINS = ("repl", "file")
#: What `follow` pushes; and what it pushes when nothing happens.
_KINDS, BEAT = ("clock", "event", "error", "generation"), "beat"
#: Who evaluates.
AUTHOR = re.compile(r"[\w-]{1,32}")
NAME_HINT = "up to 32 letters, digits, - and _, such as: ann"
#: A cycle, exact.
CYCLE = re.compile(r"\d{1,15}(/[1-9]\d{0,11})?", re.ASCII)


class WireError(DemonError):
    """A request, packet or web message that cannot be understood."""


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """A valid request. args: every argument of the verb, defaults filled in."""

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


def pushed(kind: str, value: Any) -> bytes:
    """An event as bytes, newline included."""
    return _line({"push": kind, "value": pack(value)})


def _line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


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


def parse_request(data: bytes) -> ControlRequest:
    """Read the request in one line of bytes. Raises WireError if malformed."""
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
    if args.get("by") and not AUTHOR.fullmatch(args["by"]):
        raise WireError(f"{args['by']!r} is no name", hint=NAME_HINT)
    if not set(args.get("kinds", "").split()) <= {*_KINDS}:
        raise WireError(f"kinds are some of: {' '.join(_KINDS)}")
    return ControlRequest(number, verb, MappingProxyType(args))


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
    """Read a reply: (id, result). Raises the error that it carries, or WireError."""
    row = _object(data, MAX_REPLY)
    if "error" in row:
        raise decode_error(row["error"])
    number = row.get("id")
    if type(number) is not int or "ok" not in row:
        raise WireError("the session's answer is not a reply")
    return number, row["ok"]


def parse_pushed(data: bytes) -> tuple[str, Any]:
    """Read a pushed event: (kind, value). Raises WireError."""
    row = _object(data, MAX_REPLY)
    return str(row.get("push")), unpack(row.get("value"))


# --- errors -------------------------------------------------------------------------------------


def encode_error(error: BaseException) -> dict[str, Any]:
    """An error as JSON; of any other than a DemonError, the name of its type and its text."""
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
    """The error in a reply; a WireError if it cannot be read."""
    if not isinstance(row, dict):
        return WireError("the session reports an error that cannot be read")
    word = str(row.get("kind"))
    kind = WireError if word == WireError.__name__ else getattr(errors, word, None)
    if not (isinstance(kind, type) and issubclass(kind, DemonError)):
        kind = DemonError
    others = row.get("others")
    keys = ("hint", "source", "name", "playing")
    texts = {k: v for k in keys if isinstance(v := row.get(k), str)}
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


# --- values -------------------------------------------------------------------------------------

_DEEPEST = 16


@cache
def _kinds() -> Mapping[str, tuple[type, tuple[str, ...]]]:
    """The classes that may cross, by name, and their fields; no other can be made by a message."""
    from demon_live import core
    from demon_live.session import status

    return {
        name: (kind, tuple(f.name for f in fields(kind)))
        for home in (status, core)
        for name, kind in vars(home).items()
        if isinstance(kind, type) and is_dataclass(kind)
    }


def pack(value: Any) -> Any:
    """A value in JSON's types. Raises TypeError for a class that may not cross."""
    if value is None or isinstance(value, bool | int | float | str):
        return _number(value)
    if type(value).__module__ == "numpy":
        return _array(value)
    if isinstance(value, DemonError):
        return {"_": "error", **encode_error(value)}
    name = type(value).__name__
    kind, names = _kinds().get(name, (None, ()))
    if kind is type(value):
        return {"_": name, **{f: pack(getattr(value, f)) for f in names}}
    if isinstance(value, Mapping):
        return {"_": "map", "d": [[str(k), pack(v)] for k, v in value.items()]}
    if isinstance(value, tuple | list | set | frozenset):
        return [pack(item) for item in value]
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{name} does not cross the socket")


def _array(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        return _number(value.item())
    data = np.ascontiguousarray(value, np.float32).tobytes()
    row = {"_": "f32", "d": base64.b64encode(data).decode()}
    return row if value.ndim == 1 else {**row, "s": value.shape}


def _number(value: Any) -> Any:
    # JSON has no infinities; a display has no use for them.
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(1e300, value)
    return value


def unpack(row: Any, depth: int = 0) -> Any:
    """The inverse of `pack`; lists become tuples. Raises WireError."""
    if depth > _DEEPEST:
        raise WireError("the session's answer is nested too deeply")
    if isinstance(row, list):
        return tuple(unpack(item, depth + 1) for item in row)
    if not isinstance(row, dict):
        return row
    name = row.get("_")
    try:
        if name == "f32":
            import numpy as np

            flat = np.frombuffer(base64.b64decode(row["d"], validate=True), np.float32)
            return flat.reshape(row.get("s", -1))
        if name == "error":
            return decode_error(row)
        if name == "map":
            return {str(k): unpack(v, depth + 1) for k, v in row["d"]}
        if isinstance(name, str) and name in _kinds():
            kind, names = _kinds()[name]
            return kind(**{f: unpack(row[f], depth + 1) for f in names if f in row})
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"the session's answer cannot be read: {error}") from None
    raise WireError(f"the session's answer holds {str(name)[:40]!r}, which is unknown here")
