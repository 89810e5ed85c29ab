"""A headless Chromium for tests, driven over its own debugging protocol: no driver to install.

with Chromium() as browser:
    page = browser.open("http://...", 1280, 720)
    page.until("document.title === 'demon'")
    page.screenshot(Path("x.png"))
    assert page.console == []
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

__all__ = ["Chromium", "Page", "chromium"]

_PATIENCE = 60.0


def chromium() -> str | None:
    """The browser's path, or None where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return None


class Page:
    """One tab. console: what it printed or threw, as text."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.console: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol; events that come meanwhile are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            row = json.loads(self._socket.recv(_PATIENCE))
            if row.get("id") == self._number:
                assert "error" not in row, row
                return dict(row["result"])
            self._note(row)

    def _note(self, row: dict[str, Any]) -> None:
        said = row.get("params", {})
        if row.get("method") == "Runtime.consoleAPICalled":
            values = [str(a.get("value", a.get("description"))) for a in said["args"]]
            self.console.append(f"{said['type']}: {' '.join(values)}")
        elif row.get("method") == "Runtime.exceptionThrown":
            self.console.append(f"exception: {said['exceptionDetails']}")
        elif row.get("method") == "Log.entryAdded":
            entry = said["entry"]
            self.console.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is now."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression is true, at most a minute."""
        end = time.monotonic() + _PATIENCE
        while not (found := self.value(script)):
            assert time.monotonic() < end, f"never true: {script}; {self.console}"
            time.sleep(0.05)
        return found

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def reload(self) -> None:
        self.call("Page.reload")

    def screenshot(self, path: Path, *, quality: int = 0) -> None:
        kind = {"format": "jpeg", "quality": quality} if quality else {"format": "png"}
        data = self.call("Page.captureScreenshot", **kind)["data"]
        path.write_bytes(base64.b64decode(data))


class Chromium:
    """A browser without a window; ends with its context."""

    def __enter__(self) -> Chromium:
        path = chromium()
        assert path is not None, "no Chromium here"
        self._profile = tempfile.mkdtemp(prefix="demon-chromium-")
        self._open = contextlib.ExitStack()
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--remote-debugging-port=0", "--hide-scrollbars",
            "--disable-background-networking", "--disable-extensions", "--mute-audio",
            f"--user-data-dir={self._profile}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [path, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = Path(self._profile) / "DevToolsActivePort"
        end = time.monotonic() + _PATIENCE
        while not (port.is_file() and port.read_text().count("\n")):
            assert time.monotonic() < end, "Chromium does not start"
            time.sleep(0.05)
        self._port = int(port.read_text().split()[0])
        return self

    def open(self, url: str, width: int, height: int) -> Page:
        """A tab of that size at that address."""
        with urlopen(f"http://127.0.0.1:{self._port}/json/list") as answer:
            tabs = [t for t in json.load(answer) if t["type"] == "page"]
        address = tabs[0]["webSocketDebuggerUrl"]
        socket = self._open.enter_context(connect(address, max_size=None, proxy=None))
        page = Page(socket)
        page.size(width, height)
        page.go(url)
        return page

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)
