"""The prompt in a real pseudo-terminal, in its own process, under a storm of messages."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

ROOT = Path(__file__).resolve().parents[2]
#: Prints from a thread of its own (as a library would) and tells events, as fast as it can.
STORM = """
import sys, threading, time
from demon_live.ui.run import front
from tests.helpers.ui_fakes import FakeSession
session, stop = FakeSession(), threading.Event()
def storm():
    k = 0
    while not stop.wait(.01):
        session.lines.append(f"event {k}")
        print(f"printed {k}")
        k += 1
threading.Thread(target=storm, daemon=True).start()
front(session)
stop.set()
sys.stdout.write("applied: " + repr(session.applied))
"""


#: The same on stage, over a status that stands still, and letters sent while it storms.
STAGE_STORM = """
import sys, threading
from demon_live.ui.run import front
from tests.helpers.stage_status import SCORE, STATUS
from tests.helpers.ui_fakes import FakeSession
session, stop = FakeSession(shown=STATUS, files={"set.demon": SCORE}), threading.Event()
def storm():
    k = 0
    while not stop.wait(.005):
        session.lines.append(f"event {k}")
        print(f"printed {k}")
        k += 1
thread = threading.Thread(target=storm)
thread.start()
real = session.apply
def apply(text, name="<prompt>", origin="repl"):
    if text == "calm":
        stop.set()
    return real(text, name, origin)
session.apply = apply
front(session, stage=True)
stop.set()
sys.stdout.write("applied: " + repr(session.applied))
"""
#: What `demon tour` opens.
TOUR = """
import sys
from demon_live.ui.run import front
from tests.helpers.ui_fakes import FakeSession
session = FakeSession()
front(session, first="tour")
sys.stdout.write("applied: " + repr(session.applied))
"""
STRAY = ("event ", "printed ")


class Terminal:
    def __init__(self, state: Path, script: str = STORM, **env: str) -> None:
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.Stream(self.screen)
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", script],
            cwd=str(ROOT),
            env={
                **os.environ,
                "DEMON_STATE": str(state),
                "TERM": "xterm",
                "PROMPT_TOOLKIT_NO_CPR": "1",
                **env,
            },
            encoding="utf-8",
            codec_errors="replace",
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

    def sees(self, *words: str) -> str:
        """The screen as soon as all of these words are on it."""
        end = time.monotonic() + 60
        shown = ""
        while time.monotonic() < end:
            with contextlib.suppress(pexpect.TIMEOUT):
                said = self.child.read_nonblocking(65536, timeout=0.05)
                # pyte does not know synchronized updates; what does not, skips them too.
                self._stream.feed(said.replace("\x1b[?2026h", "").replace("\x1b[?2026l", ""))
            shown = "\n".join(row.rstrip() for row in self.screen.display)
            if all(word in shown for word in words):
                return shown
        raise AssertionError(f"never saw {words}:\n{shown}")

    def resize(self, columns: int, rows: int) -> None:
        self.child.setwinsize(rows, columns)
        self.screen.resize(rows, columns)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
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
    terminal.child.send("\x04\x04")
    terminal.child.expect(r"applied: \['blend = tri.slow\(2\)'\]")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path, STAGE_STORM)
    yield opened
    opened.child.close(force=True)


def test_on_stage_a_storm_of_messages_and_sizes_loses_nothing_that_is_typed(
    stage: Terminal,
) -> None:
    stage.sees("demon>", "tempo 128", "event ")
    stage.child.send("\x1b[Z")
    typed = "blend = tri.slow(2)"
    sizes = ((200, 60), (40, 12), (20, 5), (80, 24), (8, 3), (120, 40), (79, 23), (132, 30))
    for letter, size in zip(typed, sizes * 3, strict=False):
        stage.child.send(letter)
        stage.resize(*size)
    stage.resize(80, 24)
    stage.sees(f"demon> {typed}", "tempo 128", "drums")
    stage.child.send("\r")
    stage.sees("blend · from bar 6")
    stage.child.send("calm\r")
    stage.sees("calm · from bar 6")
    stage.child.send("x")
    shown = stage.sees("demon> x")
    # Drawn anew, the calm screen is the same: not one cell was left from the storm.
    stage.child.send("\x0c")
    stage.child.send("y")
    again = stage.sees("demon> xy")
    quiet = [row for row in shown.split("\n") if not row.startswith(("demon> x", *STRAY))]
    fresh = [row for row in again.split("\n") if not row.startswith(("demon> x", *STRAY))]
    assert quiet[3:20] == fresh[3:20]
    stage.child.send("\x03\x11\x11")
    stage.child.expect(r"applied: \['blend = tri.slow\(2\)', 'calm'\]")


def test_what_comes_first_is_evaluated_when_the_prompt_opens(tmp_path: Path) -> None:
    opened = Terminal(tmp_path, TOUR)
    try:
        opened.sees("Enter plays the grey line", 'demon> blend = "1 .2 1 .2"')
        opened.child.send("\r")
        opened.sees("Enter: the next step", "demon> tour")
        opened.child.send("\x04\x04")
        opened.child.expect(r"'blend = \"1 .2 1 .2\"'\]")
    finally:
        opened.child.close(force=True)


#: A prompt whose deck has a constant.
MOUSE = """
import sys
from dataclasses import replace
from demon_live.session.status import LaneView
from demon_live.ui.run import front
from tests.helpers.ui_fakes import DECK, STATUS, FakeSession
gain = LaneView("gain", ".8", .8, None, high=2.0)
session = FakeSession(shown=replace(STATUS, decks=(replace(DECK, lanes=(*DECK.lanes, gain)),)))
front(session)
sys.stdout.write("applied: " + repr(session.applied))
"""


def test_a_click_mutes_a_deck_and_a_drag_moves_a_constant(tmp_path: Path) -> None:
    opened = Terminal(tmp_path, MOUSE, PROMPT_TOOLKIT_NO_CPR="0")
    # The terminal says where its cursor is, as real ones do.
    opened.screen.write_process_input = opened.child.send
    try:
        rows = opened.sees("demon>", " main ", "gain .8", "dry 0").split("\n")
        title = next(y for y, row in enumerate(rows) if " main " in row and "╭" in row)
        opened.child.send(f"\x1b[<0;10;{title + 1}M\x1b[<0;10;{title + 1}m")
        opened.sees("mute · from bar 6")
        rows = opened.sees("demon>", "gain .8", "dry 0").split("\n")
        held = next(y for y, row in enumerate(rows) if "gain .8" in row)
        at = rows[held].index("gain .8") + 2
        opened.child.send(f"\x1b[<0;{at};{held + 1}M\x1b[<0;{at + 10};{held + 1}m")
        opened.sees("main.gain · from bar 6")
        opened.child.send("\x04\x04")
        opened.child.expect(r"applied: \['mute main', 'main.gain = 1.3 now'\]")
    finally:
        opened.child.close(force=True)
