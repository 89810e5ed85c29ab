"""The README's picture: a real set in tmux, played by keys, as an SVG.

    python tests/tools/take_picture.py examples/pictures/screen.svg

Needs tmux. The set plays at the null sink, in a folder and with a state of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.tools.screen_svg import svg  # noqa: E402

NAME = f"picture-{os.getpid()}"
#: What is typed, and how long the picture waits after it, in seconds.
KEYS = (
    ("blend = sine.slow(2).range(.2, 1) over 4", 2.0),
    ('denois = "<.4 .8>"', 1.0),
    ("prompt = \"<'dub techno, tape hiss' 'acid, 303'>/4\" at 4", 2.0),
    ("?denoise", 0.5),
)
LAST = "noise = perlin.range(0, "


def tmux(*words: str) -> str:
    done = subprocess.run(["tmux", "-L", NAME, *words], capture_output=True, text=True, check=True)
    return done.stdout


def screen() -> str:
    return tmux("capture-pane", "-ep", "-t", "demon")


def wait_for(word: str, without: str = "\0", seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while word not in (shown := screen()) or without in shown:
        if time.monotonic() > end:
            raise SystemExit(f"{word!r} never came:\n{shown}")
        time.sleep(0.2)


def play(folder: Path) -> str:
    """The screen at the end of a short set."""
    (folder / "01_lead.demon").write_text("velocity = tri.slow(2).range(.9, 1.1)\n")
    shutil.copy(ROOT / "patterns" / "00_hello.demon", folder)
    command = (
        f"cd {folder} && DEMON_STATE={folder} DEMON_RUNTIME={folder} "
        f"{sys.executable} -m demon_live live --audio null ."
    )
    env = f"PYTHONPATH={ROOT}"
    tmux("new-session", "-d", "-s", "demon", "-x", "92", "-y", "36", f"{env} sh -c '{command}'")
    wait_for("demon>")
    wait_for("slots", without="starting")
    time.sleep(4)
    for line, pause in KEYS:
        tmux("send-keys", "-t", "demon", "-l", line)
        tmux("send-keys", "-t", "demon", "Enter")
        time.sleep(pause)
    tmux("send-keys", "-t", "demon", "-l", LAST)
    (folder / "01_lead.demon").write_text("velocity = tri.slow(2).range(.9, 1.1\n")
    wait_for("opened here")
    time.sleep(1)
    return screen()


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="demon-") as folder:
        try:
            shown = play(Path(folder))
        finally:
            tmux("kill-server")
            # The session would outlive its terminal.
            env = {**os.environ, "DEMON_STATE": folder, "DEMON_RUNTIME": folder}
            command = [sys.executable, "-m", "demon_live", "stop", "--all"]
            subprocess.run(command, cwd=ROOT, env=env, check=False)
    out.write_text(svg(shown), encoding="utf-8")
    sys.stdout.write(f"{shown}\n{out}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
