"""What stands between the view and the terminal: who draws there, and who only wants to print.

Threads: `Aside` may be written to from any thread; `Quiet` belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Callable

from prompt_toolkit.data_structures import Size
from prompt_toolkit.output import DummyOutput

from demon_live.ui import show

__all__ = ["Aside", "Quiet", "ascii_only"]


class Aside(io.TextIOBase):
    """What anything prints while the view is shown goes into its log, whatever thread it is in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, say: Callable[[show.Pieces], None]) -> None:
        self._loop, self._say, self._open = loop, say, ""

    def write(self, words: str) -> int:
        *lines, self._open = (self._open + words).split("\n")
        for line in lines:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._say, [("event", f"{line}\n")])
        return len(words)

    def writable(self) -> bool:
        return True


class Quiet(DummyOutput):
    """prompt_toolkit's own drawing goes nowhere; it only asks for the size."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self._size = size

    def get_size(self) -> Size:
        if self._size is not None:
            return Size(columns=self._size[0], rows=self._size[1])
        return Size(*reversed(_terminal_size()))


def _terminal_size() -> tuple[int, int]:
    try:
        found = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    except (OSError, ValueError):
        return 80, 24
    return found.columns or 80, found.lines or 24


def ascii_only() -> bool:
    """Whether the terminal shows nothing but ASCII."""
    encoding = (getattr(sys.__stdout__, "encoding", "") or "utf-8").lower().replace("-", "")
    return encoding not in ("utf8", "utf16")
