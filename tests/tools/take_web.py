"""The web view of a real session in headless Chromium: its picture, and its return after a crash.

    python tests/tools/take_web.py FOLDER [--score patterns/07_mix.demon] [--refreshes 200]

Writes web.jpg (1280x720), web_720.png and web_1080.png, and prints JSON: what the console said,
what it costs the session to be looked at, how the page fared over refreshes, and how long it took
to come back when its session was killed and another began. Exit 1 if the console said anything
while the session played. Needs Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.tools.chromium import Chromium, Page  # noqa: E402

SIZES = (("720", 1280, 720), ("1080", 1920, 1080))
LIT = "document.querySelectorAll('#scores .lit').length > 0"
AWAY = "!document.getElementById('away').hidden"
PRE = "document.querySelectorAll('#scores pre').length > 0"


def begin(folder: Path, score: Path, port: int) -> subprocess.Popen[bytes]:
    """A session that plays `score` at the null sink; its state lies in `folder`."""
    env = {**os.environ, "DEMON_STATE": str(folder), "DEMON_RUNTIME": str(folder)}
    words = ["live", "--no-tty", "--audio", "null", "--web", str(port), str(score)]
    with (folder / "session.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "demon_live", *words],
            cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log,
        )  # fmt: skip


def address(folder: Path, port: int) -> str:
    """The page's address once the session has written its token."""
    end = time.monotonic() + 60
    while not (tokens := list(folder.rglob("web-token"))):
        if time.monotonic() > end:
            raise SystemExit((folder / "session.log").read_text())
        time.sleep(0.1)
    return f"http://127.0.0.1:{port}/?t={tokens[0].read_text().strip()}"


def pictures(page: Page, out: Path, pause: float) -> list[str]:
    """Screenshots at both sizes; what the console said."""
    for name, width, height in SIZES:
        page.size(width, height)
        page.until(LIT)
        time.sleep(pause)
        page.screenshot(out / f"web_{name}.png")
    page.size(1280, 720)
    time.sleep(1)
    page.screenshot(out / "web.jpg", quality=82)
    return list(page.console)


def refreshes(page: Page, count: int) -> dict[str, Any]:
    """How long the page took from reload to its score, and what the console said."""
    page.console.clear()
    times = []
    for _ in range(count):
        start = time.monotonic()
        page.reload()
        page.until(PRE)
        times.append(time.monotonic() - start)
    times.sort()
    return {
        "count": count,
        "median_s": round(times[count // 2], 3) if times else 0.0,
        "worst_s": round(times[-1], 3) if times else 0.0,
        "console": list(page.console),
    }


def cost(page: Page, session: subprocess.Popen[bytes], seconds: float) -> dict[str, float]:
    """Percent of a core that the session's own process takes, with a page open and with none.

    It samples the score and serves the page; engine and audio have processes of their own.
    """
    process, found = psutil.Process(session.pid), {}
    back = page.value("location.href")
    for name, url in (("page_open", back), ("no_page", "about:blank"), ("page_again", back)):
        page.go(url)
        time.sleep(3)
        before, begun = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        used = sum(process.cpu_times()[:2]) - before
        found[name] = round(100 * used / (time.monotonic() - begun), 2)
    return found


def come_back(
    page: Page, session: subprocess.Popen[bytes], folder: Path, options: argparse.Namespace
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """The session is killed; another one is begun in its place, at the same port."""
    session.send_signal(signal.SIGKILL)
    session.wait()
    start = time.monotonic()
    page.until(AWAY)
    noticed = time.monotonic() - start
    session = begin(folder, options.score, options.port)
    page.until(f"!({AWAY})")
    page.until(LIT)
    back = time.monotonic() - start
    return session, {"noticed_s": round(noticed, 2), "lit_again_s": round(back, 2)}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("out", type=Path)
    words.add_argument("--score", type=Path, default=ROOT / "patterns" / "07_mix.demon")
    words.add_argument("--port", type=int, default=8907)
    words.add_argument("--refreshes", type=int, default=20)
    words.add_argument("--pause", type=float, default=20.0, help="seconds before a picture")
    options = words.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="demon-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        session = begin(folder, options.score, options.port)
        try:
            with Chromium() as browser:
                page = browser.open(address(folder, options.port), 1280, 720)
                report: dict[str, Any] = {"console": pictures(page, options.out, options.pause)}
                report["core_percent"] = cost(page, session, 10)
                report["refreshes"] = refreshes(page, options.refreshes)
                session, report["crash"] = come_back(page, session, folder, options)
        finally:
            session.terminate()
            session.wait(30)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if report["console"] or report["refreshes"]["console"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
