"""A JACK server without hardware, and what it was given, in a file.

The server keeps real time in blocks; the capture is a client of its own, written in C, that sees
each sample the instrument hands over: a block that came too late is a hole in the recording.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil

_PAUSE = threading.Event()


def available() -> bool:
    """Whether the rig can run here."""
    return all(shutil.which(tool) for tool in ("jackd", "jack_rec", "jack_lsp"))


def realtime() -> bool:
    """Whether a server may schedule in real time here, as it does on a musician's machine."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


class Server:
    """`with Server(folder) as server`: `rate` Hz, `frames` a block, `channels` to play to, under a
    name of its own.

    variables: the environment variables that clients need; env: those beside this process's own.
    """

    def __init__(
        self, folder: Path, frames: int = 512, rate: int = 48000, channels: int = 2
    ) -> None:
        self.name = f"demon-rig-{os.getpid()}"
        self.frames = frames
        self._driver = ["-d", "dummy", "-r", f"{rate}", "-p", f"{frames}", "-P", f"{channels}"]
        self.folder = folder
        self.realtime = realtime()
        self.variables = {
            "JACK_NO_AUDIO_RESERVATION": "1",
            "JACK_DEFAULT_SERVER": self.name,
            "JACK_NO_START_SERVER": "1",
        }
        self.env = {**os.environ, **self.variables}
        self._log = folder / "jackd.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._captures: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Server:
        self.start()
        return self

    def start(self) -> None:
        """Start, or start again after `kill`."""
        # The clients get 65: over everything of ours, as on a machine set up for sound.
        speed = ["-R", "-P", "70"] if self.realtime else ["-r"]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                ["jackd", "-n", self.name, *speed, *self._driver],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
            )
        _PAUSE.wait(1.0)
        if self._server.poll() is not None:
            raise RuntimeError(f"jackd does not start: {self._log.read_text()}")

    def kill(self) -> None:
        """The device is gone, at once."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        # What a killed server leaves behind keeps the next one from starting.
        for rest in Path("/dev/shm").glob(f"jack*{self.name}*"):
            rest.unlink()

    @property
    def xruns(self) -> int:
        """Blocks that the server itself says were late."""
        return self._log.read_text(errors="replace").lower().count("xrun")

    def raise_priority(self, pid: int, priority: int = 40) -> bool:
        """`chrt` for every thread of the audio process but the server's own: other rigs on the same
        cores play at our default, 5. False where that is not allowed."""
        try:
            for thread in psutil.Process(pid).threads():
                if os.sched_getscheduler(thread.id) == os.SCHED_RR:
                    os.sched_setscheduler(thread.id, os.SCHED_RR, os.sched_param(priority))
        except (OSError, psutil.Error):
            return False
        return True

    def ports(self, timeout: float = 20.0) -> list[str]:
        """The two output ports of the instrument, once it has them."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            done = subprocess.run(
                ["jack_lsp", "-p"], env=self.env, capture_output=True, text=True, check=False
            )
            rows = done.stdout.splitlines()
            found = [
                name
                for name, kind in zip(rows[::2], rows[1::2], strict=False)
                if "output" in kind and not name.startswith(("system:", "jackrec"))
            ]
            if len(found) >= 2:
                return found[:2]
            _PAUSE.wait(0.1)
        raise RuntimeError("the instrument has no ports at the JACK server")

    def capture(self, path: Path, seconds: float) -> subprocess.Popen[bytes]:
        """Records what the instrument hands over, 24 bit, until `stop` or `seconds`."""
        command = ["jack_rec", "-f", str(path), "-d", str(int(seconds)), "-b", "24"]
        with (self.folder / "capture.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "-B", "1048576", *self.ports()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
            )
        self._captures.append(process)
        return process

    def stop(self, capture: subprocess.Popen[bytes]) -> None:
        """End a capture; what was written stays, whatever its header says."""
        if capture.poll() is None:
            capture.send_signal(signal.SIGINT)
            try:
                capture.wait(5)
            except subprocess.TimeoutExpired:
                capture.kill()
                capture.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for capture in self._captures:
            self.stop(capture)
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            try:
                self._server.wait(5)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        for rest in Path("/dev/shm").glob(f"jack*{self.name}*"):
            rest.unlink(missing_ok=True)
