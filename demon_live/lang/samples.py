"""Data as patterns: curves, times and notes in files.

    curve('fall.csv', 4)    a curve through the values of a file, over 4 cycles, again and again
    onsets('hits.csv', 4)   1 at each time of a file (in cycles), for the rhythm of others
    midi('tune.mid', 1)     the notes of a track, as numbers: c4 is 60; a bar of 4/4 is a cycle

A session finds the files beside the score, and keeps them with its sets: while it compiles a text
it says with `reading` where names lead. Elsewhere a name is looked up beside the score, in the
working folder, then among the shipped patterns.

Threads: any; each has its own `reading`.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.errors import DemonError, FileError
from demon_live.lang.pattern import Curve, Event, Pattern, PatternError
from demon_live.lang.registry import Count, Time, Values, function
from demon_live.lang.transform import signal
from demon_live.paths import read_file, shipped

#: Bytes of a file, and rows in it.
_LARGEST, _MOST = 1 << 24, 1 << 20
#: Times are rounded to parts of a cycle, so that they stay short fractions.
_PARTS = 5040
#: The newest content of each name: a line with controllers is compiled again when they move.
_newest: dict[str, bytes] = {}
_KEPT = 64


_find: ContextVar[Callable[[str], Path] | None] = ContextVar("find", default=None)
_folder: ContextVar[Path] = ContextVar("folder", default=Path())


def _nearby(name: str) -> Path:
    """The file of a name, in one of the folders that a score may read. Raises FileError."""
    first: Path | None = None
    outside = False
    for folder in (_folder.get(), Path(), shipped("patterns")):
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            path = (folder / name).resolve()
            if path.is_relative_to(folder.resolve()):
                first = first or path
                if path.exists():
                    return path
            else:
                outside = True
    if outside or first is None:
        raise FileError(
            f"{name!r} is outside the folder of the score",
            hint="copy the file next to the score, or name it at the prompt",
        )
    return first


@contextlib.contextmanager
def beside(score: str) -> Iterator[None]:
    """While a score is compiled: the files of names lie in its folder, unless `reading` says."""
    token = _folder.set(Path(score).parent)
    try:
        yield
    finally:
        _folder.reset(token)


@contextlib.contextmanager
def reading(find: Callable[[str], Path]) -> Iterator[None]:
    """While a text is compiled: how the file of a name is found."""
    token = _find.set(find)
    try:
        yield
    finally:
        _find.reset(token)


def _read(name: Values) -> bytes:
    if not isinstance(name, str):
        raise PatternError("the name of a file is needed, in 'quotes'")
    find = _find.get()
    try:
        if find is None and name in _newest and not _nearby(name).exists():
            return _newest[name]
        data = read_file((find or _nearby)(name), _LARGEST)
        if find is not None:
            _newest.pop(name, None)
            _newest[name] = data
            for old in list(_newest)[:-_KEPT]:
                del _newest[old]
        return data
    except DemonError as error:
        raise PatternError(error.message) from None
    except OSError as error:
        raise PatternError(f"{name} cannot be read: {error.strerror}") from None


def _numbers(name: Values) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers of a file: .npy, or text with one row a line, of which the last column counts."""
    data = _read(name)
    try:
        if data.startswith(b"\x93NUMPY"):
            rows = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            lines = data.decode().replace(";", ",").splitlines()
            cells = [line.replace(",", " ").split() for line in lines if line.strip()]
            # A first row of words is a heading.
            with contextlib.suppress(ValueError):
                float(cells[0][-1])
                cells = [[], *cells]
            rows = np.array([float(row[-1]) for row in cells[1:]])
        rows = np.asarray(rows, np.float64).reshape(-1)
    except (ValueError, IndexError, EOFError, MemoryError, TypeError, OverflowError) as error:
        raise PatternError(f"{name} holds no numbers: {str(error)[:60]}") from None
    if not 0 < len(rows) <= _MOST or not np.isfinite(rows).all():
        raise PatternError(f"{name} needs 1 to {_MOST} finite numbers, it has {len(rows)}")
    return rows


@function("blend = curve('curves/week.csv', 4)")
def curve(file: Values, cycles: Time = Fraction(1), held: Count = 0) -> Pattern:
    """A curve through the numbers of a file (.npy, .csv), evenly over the cycles; held: steps."""
    values = _numbers(file)
    if cycles <= 0:
        raise PatternError("a curve lasts more than 0 cycles")
    count, length = len(values), float(cycles)

    def at(t: Any) -> Any:
        place = (t / length - np.floor(t / length)) * count
        i = np.minimum(np.floor(place).astype(np.int64), count - 1)
        if held:
            return values[i]
        return values[i] + (values[(i + 1) % count] - values[i]) * (place - i)

    def steps(begin: Fraction, end: Fraction) -> list[Fraction]:
        step = cycles / count
        first, last = -(-begin // step), -(-end // step)
        if last - first > 100_000:
            raise PatternError("too many jumps")
        return [k * step for k in range(int(first), int(last))]

    period = cycles.numerator if cycles.numerator <= 256 else None
    return signal(Curve(lambda t: at(np.asarray(t)), steps if held else None, bool(held)), period)


@function("noise = \".2 .6\".struct(onsets('curves/hits.csv', 4))")
def onsets(file: Values, cycles: Time = Fraction(1)) -> Pattern:
    """1 at each time of a file, in cycles; over so many cycles, again and again."""
    times = np.unique(np.round(_numbers(file) * _PARTS).astype(np.int64))
    begins = [Fraction(int(t), _PARTS) for t in times if 0 <= t < cycles * _PARTS]
    if not begins:
        raise PatternError(f"no time of {file} lies in the first {cycles} cycles")
    ends = [*begins[1:], cycles]
    return _looped([(b, e, 1) for b, e in zip(begins, ends, strict=True)], cycles)


@function("seed = midi('curves/tune.mid', 1)")
def midi(file: Values, track: Count = -1) -> Pattern:
    """The notes of a MIDI file as numbers, c4 is 60; of one track, or of all."""
    notes, length = _midi(_read(file), track)
    if not notes:
        raise PatternError(f"{file} has no notes" + (f" in track {track}" if track >= 0 else ""))
    return _looped(notes, length)


def _looped(rows: list[tuple[Fraction, Fraction, int]], length: Fraction) -> Pattern:
    """Events of a stretch of `length` cycles, again and again."""
    if length <= 0 or length.denominator != 1:
        raise PatternError("this lasts a whole number of cycles")
    most = np.bincount([int(b) for b, _, _ in rows]).max()

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        for lap in range(int(begin // length), int(-(-end // length))):
            for b, e, value in rows:
                wb, we = b + lap * length, e + lap * length
                if wb < end and we > begin:
                    out.append(Event(wb, we, max(wb, begin), min(we, end), value))
        return out

    return Pattern(raw, period=int(length), cost=float(most) + 1)


# --- MIDI files ------------------------------------------------------------------------------


def _midi(data: bytes, wanted: int) -> tuple[list[tuple[Fraction, Fraction, int]], Fraction]:
    """(begin, end, note) in cycles of four quarters, and the length in whole cycles."""
    try:
        head, size, _, _, division = struct.unpack_from(">4sIHHH", data)
        if head != b"MThd" or not 0 < division < 0x8000:
            raise PatternError("this is no MIDI file with beats")
        notes: list[tuple[Fraction, Fraction, int]] = []
        at, number, longest = 8 + size, 0, 0
        while at + 8 <= len(data):
            kind, size = struct.unpack_from(">4sI", data, at)
            if kind == b"MTrk":
                found, last = _track(data[at + 8 : at + 8 + size])
                longest = max(longest, last)
                if wanted in (-1, number):
                    bar = 4 * division
                    notes += [(Fraction(b, bar), Fraction(e, bar), n) for b, e, n in found]
                number += 1
            at += 8 + size
    except (struct.error, IndexError):
        raise PatternError("this MIDI file is damaged") from None
    if len(notes) > _MOST:
        raise PatternError(f"a MIDI file has at most {_MOST} notes")
    return sorted(notes), Fraction(max(1, -(-longest // (4 * division))))


def _track(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """(begin, end, note) in ticks, and the last tick."""
    at, now, status = 0, 0, 0
    down: dict[int, int] = {}
    notes: list[tuple[int, int, int]] = []
    while at < len(data):
        delta, at = _length(data, at)
        now += delta
        if data[at] & 0x80:
            status, at = data[at], at + 1
        if status >= 0xF0:
            # Texts, tempo and exclusive messages carry their length.
            at += status == 0xFF
            size, at = _length(data, at)
            at += size
            continue
        kind, key = status & 0xF0, data[at]
        if kind in (0x80, 0x90):
            begin = down.pop(key, None)
            if begin is not None and now > begin:
                notes.append((begin, now, key))
            if kind == 0x90 and data[at + 1]:
                down[key] = now
        at += 1 if kind in (0xC0, 0xD0) else 2
    return notes, now


def _length(data: bytes, at: int) -> tuple[int, int]:
    """(a number of variable length, the place behind it)."""
    value = 0
    for _ in range(4):
        byte, at = data[at], at + 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            break
    return value, at
