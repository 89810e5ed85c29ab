"""The README's pictures of the stage: a real set in tmux, played by keys, as SVGs.

    python tests/tools/take_stage.py examples/pictures

Needs tmux. The sets play at the null sink, with a state of their own, at 80x24 and 200x60.
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

NAME = f"stage-{os.getpid()}"
GROUND = "#000000"


def tmux(*words: str) -> str:
    done = subprocess.run(["tmux", "-L", NAME, *words], capture_output=True, text=True, check=True)
    return done.stdout


def screen() -> str:
    # -N keeps the ground of empty cells.
    return tmux("capture-pane", "-epN", "-t", "demon")


def wait_for(word: str, seconds: float = 120.0) -> str:
    end = time.monotonic() + seconds
    while word not in (shown := screen()):
        if time.monotonic() > end:
            raise SystemExit(f"{word!r} never came:\n{shown}")
        time.sleep(0.1)
    return shown


def keys(*names: str, text: str = "", pause: float = 0.5) -> None:
    if text:
        tmux("send-keys", "-t", "demon", "-l", text)
    for name in names:
        tmux("send-keys", "-t", "demon", name)
    time.sleep(pause)


def begin(folder: Path, score: str, columns: int, rows: int) -> None:
    shutil.copy(ROOT / "patterns" / score, folder / score)
    shutil.copytree(ROOT / "patterns" / "loops", folder / "loops", dirs_exist_ok=True)
    command = (
        f"cd {folder} && DEMON_STATE={folder} DEMON_RUNTIME={folder} COLORTERM=truecolor "
        f"TERM=tmux-256color PYTHONPATH={ROOT} "
        f"{sys.executable} -m demon_live live --audio null --stage --name {NAME} {score}"
    )
    tmux("new-session", "-d", "-s", "demon", "-x", str(columns), "-y", str(rows), command)
    wait_for("demon>")
    # The engine is open, and its generations are on their way.
    wait_for("▮" if columns < 120 else "slot 4")
    time.sleep(4)


def narrow(folder: Path) -> str:
    """A block is played, and one that is wrong."""
    begin(folder, "02_blend.demon", 80, 24)
    keys(*["Down"] * 8, "End", "C-u", pause=0.5)
    keys(text='blend   = "1 .2 [.3 .9]*2 .6"', pause=0.3)
    keys("M-Enter", pause=4.0)
    keys("Enter", text="", pause=0.2)
    keys(text="noise   = 1(3,8)", pause=0.2)
    keys("M-Enter", pause=1.5)
    return screen()


def wide(folder: Path) -> str:
    """Two decks."""
    begin(folder, "07_mix.demon", 200, 60)
    keys("BTab", pause=0.2)
    keys("Enter", text="main.blend = perlin.fast(2).range(.3, 1)", pause=3.0)
    keys(text="air.gain = .8 ov", pause=1.0)
    return screen()


def main(out: Path) -> None:
    for name, play in (("stage_80x24.svg", narrow), ("stage_200x60.svg", wide)):
        with tempfile.TemporaryDirectory(prefix="demon-", ignore_cleanup_errors=True) as folder:
            try:
                shown = play(Path(folder))
            finally:
                # The session would outlive its terminal.
                env = {**os.environ, "DEMON_STATE": folder, "DEMON_RUNTIME": folder}
                command = [sys.executable, "-m", "demon_live", "stop", "--all"]
                subprocess.run(command, cwd=ROOT, env=env, check=False)
                subprocess.run(["tmux", "-L", NAME, "kill-server"], check=False)
        (out / name).write_text(svg(shown, GROUND), encoding="utf-8")
        sys.stdout.write(f"{out / name}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
