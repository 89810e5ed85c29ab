"""Frozen views as JSON and back: Status, DeckView, LaneView, Outcome and what they hold.

Every dataclass of `session.status`, and `SlotStatus`, crosses by its name and fields. A field that
the other end does not know is left out, one that it lacks has its default: two versions that
speak the same protocol understand each other. Curves are float32, base64, bit for bit.

Threads: pure functions.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np

from demon_live import core
from demon_live.control.wire import WireError, decode_error, encode_error
from demon_live.errors import DemonError
from demon_live.session import status as view

__all__ = ["pack", "unpack"]

#: What may cross; nothing else can be made by a message.
_KINDS: dict[str, type] = {
    name: kind
    for home in (view, core)
    for name, kind in vars(home).items()
    if isinstance(kind, type) and is_dataclass(kind)
}
_FIELDS = {name: tuple(f.name for f in fields(kind)) for name, kind in _KINDS.items()}
_DEEPEST = 16


def pack(value: Any) -> Any:
    """The value as JSON's types."""
    if value is None or isinstance(value, bool | int | float | str):
        return _number(value)
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value, np.float32).tobytes()
        return {"_": "f32", "d": base64.b64encode(data).decode()}
    if isinstance(value, np.generic):
        return _number(value.item())
    if isinstance(value, DemonError):
        return {"_": "error", **encode_error(value)}
    name = type(value).__name__
    if _KINDS.get(name) is type(value):
        return {"_": name, **{f: pack(getattr(value, f)) for f in _FIELDS[name]}}
    if isinstance(value, Mapping):
        return {"_": "map", "d": [[str(k), pack(v)] for k, v in value.items()]}
    if isinstance(value, tuple | list | set | frozenset):
        return [pack(item) for item in value]
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{name} does not cross the socket")


def _number(value: Any) -> Any:
    # JSON has no infinities; a display has no use for them.
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else (1e300 if value > 0 else -1e300)
    return value


def unpack(row: Any, depth: int = 0) -> Any:
    """What `pack` packed; lists become tuples. Raises WireError."""
    if depth > _DEEPEST:
        raise WireError("the session's answer is nested too deeply")
    if isinstance(row, list):
        return tuple(unpack(item, depth + 1) for item in row)
    if not isinstance(row, dict):
        return row
    name = row.get("_")
    try:
        if name == "f32":
            return np.frombuffer(base64.b64decode(row["d"], validate=True), np.float32)
        if name == "error":
            return decode_error(row)
        if name == "map":
            return {str(k): unpack(v, depth + 1) for k, v in row["d"]}
        if isinstance(name, str) and name in _KINDS:
            known = {f: unpack(row[f], depth + 1) for f in _FIELDS[name] if f in row}
            return _KINDS[name](**known)
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"the session's answer cannot be read: {error}") from None
    raise WireError(f"the session's answer holds {str(name)[:40]!r}, which is unknown here")
