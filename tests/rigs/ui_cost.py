"""What the prompt and the stage view cost, and how soon a key is heard.

    python -m tests.rigs.ui_cost [--seconds S] [--keys N] [--json]

cost   `demon live --audio null` on a pseudo-terminal, at the prompt and on stage, at 80x24 and
       200x60: processor time of the front end's process (the session has its own), as a share of
       one core, and what is written to the terminal.
keys   the same faces over a session that only notes when it is asked: time from the write of the
       key to the pseudo-terminal to the call of `apply`, and to the first byte of the echo.

path   without a terminal: processor time of the event loop from a key to the hand-over of the
       statement to the evaluating thread, and of one frame.

Times are CLOCK_MONOTONIC, the same in both processes. Wall times say little on a loaded machine:
look at the minimum and the median.

Threads: one drains the pseudo-terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pexpect
import psutil
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.vt100 import Vt100_Output

from demon_live.ui.controller import UiController
from demon_live.ui.prompt import Repl
from demon_live.ui.stage.app import StageView
from tests.helpers.stage_status import SCORE, STATUS
from tests.helpers.ui_fakes import FakeSession

_ROOT = Path(__file__).resolve().parents[2]
_SIZES = ((80, 24), (200, 60))
_NOTER = """
import sys, time
from demon_live.ui.run import front
from tests.helpers.stage_status import SCORE, STATUS
from tests.helpers.ui_fakes import FakeSession
class Noter(FakeSession):
    def apply(self, text, name="<prompt>", origin="repl"):
        at = time.monotonic()
        with open(sys.argv[1], "a") as log:
            log.write(f"{at}\\n")
        return super().apply(text, name, origin)
front(Noter(shown=STATUS, files={"set.demon": SCORE}), stage=sys.argv[2] == "stage")
"""


class Terminal:
    """A command on a pseudo-terminal whose output is read and timed by a thread."""

    def __init__(self, command: list[str], size: tuple[int, int], folder: str) -> None:
        env = {
            **os.environ,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "DEMON_STATE": folder,
            "DEMON_RUNTIME": folder,
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        self.child = pexpect.spawn(
            command[0], command[1:], cwd=str(_ROOT), env=env, dimensions=(size[1], size[0])
        )
        self.bytes = 0
        self.read_at = 0.0
        self.seen = b""
        self._news = threading.Condition()
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self.child.child_fd, 65536)
            except OSError:
                return
            with self._news:
                self.read_at = time.monotonic()
                self.bytes += len(data)
                self.seen = (self.seen + data)[-20000:]
                self._news.notify_all()

    def send(self, keys: bytes) -> None:
        """Press keys: at once, where pexpect's own `send` would wait 50 ms."""
        os.write(self.child.child_fd, keys)

    def wait_for(self, word: bytes, seconds: float = 60.0) -> None:
        with self._news:
            if not self._news.wait_for(lambda: word in self.seen, seconds):
                raise SystemExit(f"{word!r} never came; last: {self.seen[-400:]!r}")

    def next_read(self, since: float, seconds: float = 2.0) -> float | None:
        """When the next output after `since` came."""
        with self._news:
            found = self._news.wait_for(lambda: self.read_at > since, seconds)
            return self.read_at if found else None

    def close(self, face: str) -> None:
        """Leave, which ends the session, too: Ctrl-Q on stage, Ctrl-C and Ctrl-D at the prompt."""
        self.send(b"\x11\x11" if face == "stage" else b"\x03\x04\x04")
        end = time.monotonic() + 15
        while self.child.isalive() and time.monotonic() < end:
            time.sleep(0.1)
        self.child.close(force=True)


def cost(face: str, size: tuple[int, int], seconds: float, folder: str) -> dict[str, Any]:
    """Processor time of the front end over `seconds`, while two decks play."""
    command = [sys.executable, "-m", "demon_live", "live", "patterns/07_mix.demon"]
    name = f"cost-{face}-{size[0]}-{os.getpid()}"
    command += ["--audio", "null", "--name", name]
    terminal = Terminal(command + (["--stage"] if face == "stage" else []), size, folder)
    try:
        terminal.wait_for(b"demon>")
        # Until the engine is open, and the two lanes of the ring are full.
        time.sleep(12)
        process = psutil.Process(terminal.child.pid)
        before, written, begun = process.cpu_times(), terminal.bytes, time.monotonic()
        time.sleep(seconds)
        after, took = process.cpu_times(), time.monotonic() - begun
        used = after.user + after.system - before.user - before.system
        return {
            "face": face,
            "size": f"{size[0]}x{size[1]}",
            "core_percent": round(100 * used / took, 2),
            "kilobytes_a_second": round((terminal.bytes - written) / took / 1000, 2),
        }
    finally:
        terminal.close(face)
        # A terminal that had to be killed leaves its session behind.
        env = {**os.environ, "DEMON_STATE": folder, "DEMON_RUNTIME": folder}
        stop = [sys.executable, "-m", "demon_live", "stop", "--name", name]
        subprocess.run(stop, cwd=_ROOT, env=env, capture_output=True, check=False)


def keys(face: str, size: tuple[int, int], count: int, folder: str) -> dict[str, Any]:
    """Milliseconds from a key to `apply`, and from a letter to its echo."""
    noted = Path(folder) / f"noted-{face}-{size[0]}"
    noted.touch()
    terminal = Terminal([sys.executable, "-c", _NOTER, str(noted), face], size, folder)
    heard, echoed = [], []
    try:
        terminal.wait_for(b"demon>")
        time.sleep(1.0)
        for i in range(count):
            # Apart from the frames' rhythm, so that every phase of it is met.
            time.sleep(0.11 + 0.0137 * (i % 7))
            if face == "prompt":
                terminal.send(b"blend = 1")
                time.sleep(0.4)
            pressed = time.monotonic()
            terminal.send(b"\x1b\r")
            end = pressed + 5
            while len(lines := noted.read_text().split()) <= i and time.monotonic() < end:
                time.sleep(0.001)
            heard.append((float(lines[-1]) - pressed) * 1000)
        time.sleep(1.0)
        terminal.send(b"\x1b[Z" if face == "stage" else b"")
        for i in range(count):
            time.sleep(0.11 + 0.0137 * (i % 7))
            pressed = time.monotonic()
            terminal.send(b"q")
            read = terminal.next_read(pressed)
            if read is not None:
                echoed.append((read - pressed) * 1000)
    finally:
        terminal.close(face)
    return {
        "face": face,
        "size": f"{size[0]}x{size[1]}",
        "to_apply_ms": _summary(heard),
        "to_echo_ms": _summary(echoed),
    }


def path(face: str, size: tuple[int, int], count: int, folder: str) -> dict[str, Any]:
    """Processor time of the event loop from a key to the hand-over of the statement, and of one
    frame: what the machine's other work cannot blur."""
    handed: list[float] = []
    frames: list[float] = []

    async def play() -> None:
        controller = UiController(FakeSession(shown=STATUS, files={"set.demon": SCORE}))
        with create_pipe_input() as pipe, open(os.devnull, "w") as nowhere:
            history = Path(folder) / "history"
            room = Size(rows=size[1], columns=size[0])
            view: Any
            if face == "stage":
                fd = nowhere.fileno()
                view = StageView(controller, input=pipe, fd=fd, size=size, hz=1e-3, history=history)
            else:
                output = Vt100_Output(nowhere, lambda: room, term="xterm", enable_cpr=False)
                view = Repl(controller, input=pipe, output=output, history=history)
            running = asyncio.ensure_future(view.run())
            await asyncio.sleep(0.5)
            for i in range(count):
                if face == "prompt":
                    view.prompt.text = f"blend = {i}"
                await asyncio.sleep(0.02)
                view.app.key_processor.feed_multiple(
                    [KeyPress(Keys.Escape, "\x1b"), KeyPress(Keys.ControlM, "\r")]
                )
                begun = time.thread_time()
                view.app.key_processor.process_keys()
                handed.append((time.thread_time() - begun) * 1000)
                controller.polled_at += 0.033
                await asyncio.sleep(0.01)
                while face == "stage" and view._painter.busy:
                    await asyncio.sleep(0.001)
                begun = time.thread_time()
                if face == "stage":
                    view.draw()
                else:
                    view.app.renderer.render(view.app, view.app.layout)
                frames.append((time.thread_time() - begun) * 1000)
            view._exit()
            await running
        controller.close()

    asyncio.run(play())
    return {
        "face": face,
        "size": f"{size[0]}x{size[1]}",
        "to_hand_over_cpu_ms": _summary(handed),
        "frame_cpu_ms": _summary(frames),
    }


def _summary(found: list[float]) -> dict[str, float]:
    ranked = sorted(found)
    return {
        "min": round(ranked[0], 2),
        "median": round(statistics.median(ranked), 2),
        "p95": round(ranked[int(0.95 * (len(ranked) - 1))], 2),
        "max": round(ranked[-1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="ui_cost", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--keys", type=int, default=60)
    parser.add_argument("--only", choices=("cost", "keys", "path"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="demon-ui-") as folder:
        for face in ("prompt", "stage"):
            for size in _SIZES:
                if args.only in (None, "cost"):
                    rows.append(cost(face, size, args.seconds, folder))
                if args.only in (None, "path"):
                    rows.append(path(face, size, args.keys, folder))
                if args.only in (None, "keys"):
                    rows.append(keys(face, size, args.keys, folder))
                if not args.json:
                    sys.stdout.write("\n".join(map(str, rows)) + "\n")
                    sys.stdout.flush()
                    rows.clear()
    if args.json:
        sys.stdout.write(json.dumps({"load": os.getloadavg(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
