"""Errors as a performer reads them: place, cause, remedy, and what keeps playing.

Every error that can reach a person is a `DemonError`. It prints in one shape everywhere
(prompt, file watcher, `demon check`, journal):

    patterns/03_drop.demon:7:11: denoise goes from 0 to 1, this reaches 1.4
      7 | denoise = sine.range(.2, 1.4)
        |           ^^^^^^^^^^^^^^^^^^^
      hint: write .range(.2, 1)        still playing: line 7 of 14:03:22

Threads: immutable after construction, except `playing`, which the session sets.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text: offsets [start, end), and the 1-based line and column of start."""

    start: int
    end: int
    line: int
    col: int

    @staticmethod
    def of(text: str, start: int, end: int | None = None) -> Span:
        """The span of text[start:end], clamped into the text."""
        start = max(0, min(start, len(text)))
        end = start if end is None else max(start, min(end, len(text)))
        line = text.count("\n", 0, start) + 1
        col = start - (text.rfind("\n", 0, start) + 1) + 1
        return Span(start, end, line, col)


def excerpt(text: str, span: Span) -> str:
    """The line of `span` with carets under it (the first line only, when it spans several)."""
    lines = text.split("\n")
    line = lines[span.line - 1] if span.line <= len(lines) else ""
    # Tabs would move the carets: show them as one blank. No other control character may reach a
    # terminal.
    line = "".join(c if c.isprintable() else "·" for c in line.replace("\t", " ").rstrip("\r"))
    width = max(1, min(span.end - span.start, len(line) - span.col + 1))
    number = str(span.line)
    margin = " " * len(number)
    return f"  {number} | {line}\n  {margin} | {' ' * (span.col - 1)}{'^' * width}"


class DemonError(Exception):
    """A message with its place and a remedy.

    message: one sentence, no full stop. span: where, if it has a place in a text. hint: the remedy.
    source: the whole text that the span points into. name: the file or prompt it came from.
    others: further errors of the same text, since one error must not hide the next.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        span: Span | None = None,
        hint: str | None = None,
        source: str | None = None,
        name: str | None = None,
        playing: str | None = None,
        others: Sequence[DemonError] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.hint = hint
        self.source = source
        self.name = name
        self.playing = playing
        self.others: tuple[DemonError, ...] = tuple(others)

    @property
    def errors(self) -> tuple[DemonError, ...]:
        """This error and the others of the same text, in the order of their places."""
        return (self, *self.others)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders; pickle does not know keyword-only arguments.
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))

    def _show(self) -> str:
        place = self.name or ""
        if self.span is not None:
            place = f"{place or '<text>'}:{self.span.line}:{self.span.col}"
        elif self.message.startswith(place):
            place = ""
        rows = [f"{place}: {self.message}" if place else self.message]
        if self.span is not None and self.source is not None:
            rows.append(excerpt(self.source, self.span))
        tail = [f"hint: {self.hint}"] if self.hint else []
        if self.playing:
            tail.append(f"still playing: {self.playing}")
        if tail:
            rows.append("  " + "        ".join(tail))
        return "\n".join(rows)

    def __str__(self) -> str:
        return "\n".join(e._show() for e in self.errors)


def _rebuild(kind: type[DemonError], message: str, state: dict[str, object]) -> DemonError:
    error = kind(message)
    error.__dict__.update(state)
    return error


def placed(error: DemonError, file: str, line: int, col: int = 1) -> DemonError:
    """The error of a text that begins at `line` and `col` of `file`, as an error of that file."""
    for one in error.errors:
        one.name = file
        if one.span is None or one.source is None:
            continue
        # The excerpt counts lines in the source: blank lines stand for those before the text.
        before = "\n" * (line - 1) + " " * (col - 1)
        span = one.span
        one.source = before + one.source
        one.span = Span(
            span.start + len(before),
            span.end + len(before),
            span.line + line - 1,
            span.col + (col - 1 if span.line == 1 else 0),
        )
    return error


class ScoreError(DemonError):
    """The score cannot be played."""


class ScoreWarning(DemonError):
    """The score plays, but not quite as written (a value is clipped, a word is unknown)."""


class FileError(DemonError):
    """A file is missing, unreadable or of the wrong kind."""


class UsageError(DemonError):
    """The command line is wrong."""

    exit_code = 2


class EngineError(DemonError):
    """The engine, its weights or its backend failed."""

    exit_code = 3


class DeviceError(DemonError):
    """The audio device failed or is not there."""

    exit_code = 3


def one_line(error: BaseException) -> str:
    """What an error of a library says, in one line: its type and its first line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def nearest(word: str, words: Iterable[str], n: int = 1) -> list[str]:
    """The n known words most like `word` in any case, best first; empty if none is near."""
    low = word.lower()
    # No known word is that long.
    if len(low) > 64:
        return []
    known = {w.lower(): w for w in sorted(words, reverse=True)}
    near = difflib.get_close_matches(low, known, len(known) or 1, cutoff=0.62)
    if len(low) <= 4:
        # Short words are like everything: ask more of them, unless the length is right.
        sure = difflib.get_close_matches(low, near, len(near) or 1, cutoff=0.7)
        near = [w for w in near if w in sure or len(w) == len(low)]
    return [known[w] for w in near[:n]]
