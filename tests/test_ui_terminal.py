"""The prompt in a real pseudo-terminal, in its own process, under a storm of messages."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

ROOT = Path(__file__).resolve().parent.parent
#: Prints from a thread of its own (as a library would) and tells events, as fast as it can.
STORM = """
import sys, threading, time
from pathlib import Path
from demon_live.ui.repl import Repl
from tests.ui_fakes import FakeSession
session, stop = FakeSession(), threading.Event()
def storm():
    k = 0
    while not stop.wait(.01):
        session.lines.append(f"event {k}")
        print(f"printed {k}")
        k += 1
threading.Thread(target=storm, daemon=True).start()
Repl(session, history=Path(sys.argv[1])).run()
stop.set()
sys.stdout.write("applied: " + repr(session.applied))
"""


STRAY = ("event ", "printed ")


class Terminal:
    def __init__(self, history: Path) -> None:
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.Stream(self.screen)
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", STORM, str(history)],
            cwd=str(ROOT),
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            encoding="utf-8",
            dimensions=(24, 80),
            timeout=30,
        )

    def until(self, prompt: str) -> list[str]:
        """The screen as soon as it has this row, and the whole panel below it."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                self._stream.feed(self.child.read_nonblocking(65536, timeout=0.03))
                continue
            except pexpect.TIMEOUT:
                # Nothing is on its way: what stands here is what a person sees.
                rows = [row.rstrip() for row in self.screen.display]
            # Below the prompt there is the panel, or the list of completions over it.
            drawn = [row for row in rows if row]
            if prompt in rows and drawn[-1] != prompt and not drawn[-1].startswith(STRAY):
                return rows
        raise AssertionError("\n".join([f"never saw {prompt!r}", *self.screen.display]))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path / "history")
    yield opened
    opened.child.close(force=True)


def test_a_storm_of_messages_does_not_tear_what_is_typed(terminal: Terminal) -> None:
    typed = ""
    above: list[str] = []
    terminal.until("demon>")
    for letter in "blend = tri.slow(2)":
        terminal.child.send(letter)
        typed += letter
        rows = terminal.until(f"demon> {typed}".rstrip())
        assert sum(row.startswith("demon>") for row in rows) == 1, rows
        # The list of completions may lie over the panel's first row.
        assert sum(row.startswith("╭") for row in rows) <= 1, rows
        prompt = next(i for i, row in enumerate(rows) if row.startswith("demon>"))
        above += [row for row in rows[:prompt] if row]
    assert [row for row in above if not row.startswith(STRAY)] == []
    for word in STRAY:
        assert any(row.startswith(word) for row in above)
    terminal.child.send("\r")
    terminal.until("demon>")
    terminal.child.send("\x04")
    terminal.child.expect(r"applied: \['blend = tri.slow\(2\)'\]")
