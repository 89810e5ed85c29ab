"""Freed memory goes back to the system, so that a set of hours does not grow.

glibc keeps what is freed in heaps of its own; arrays of many sizes leave holes there, and a process
that leaks nothing still grows by hundreds of megabytes in an hour. `malloc_trim` gives whole pages
back, holes in the middle included, in about 10 ms for half a gigabyte.

Threads: a `Trimmer` belongs to one thread; the call itself lets go of Python's lock.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import time
from collections.abc import Callable


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # musl has neither the name nor the need
        return None
    return function


def trim() -> bool:
    """Give freed memory back. False where the system's allocator has no such call."""
    function = _malloc_trim()
    return function is not None and bool(function(0))


def available() -> float:
    """Bytes that a new process could have without pushing others out; inf where unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024.0
    except (OSError, ValueError, IndexError):
        pass
    return float("inf")


class Trimmer:
    """Calls `trim` at most once in `every` seconds."""

    def __init__(self, every: float, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._now = every, now
        self._next = now() + every

    def turn(self) -> bool:
        """True if it was time."""
        now = self._now()
        if now < self._next:
            return False
        self._next = now + self._every
        trim()
        return True
