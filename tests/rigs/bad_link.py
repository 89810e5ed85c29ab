"""Two network namespaces and a bad link between them, packet by packet, in user space.

    with BadLink(delay=40, jitter=15, loss=1) as link:
        link.popen("near", ["ping", link.FAR]) ...
        link.cut(5)

Each namespace has a TUN device; a process of its own carries every IP packet from one to the other,
late by delay +- jitter (uniform, each packet for itself, so that packets overtake each other) or
not at all, as `tc netem` does, in both directions. The TCP between them is the kernel's own. No
sch_netem is needed, which many kernels lack; root and /dev/net/tun are.

The carrier is a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demon_live.errors import UsageError

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
#: Packets that may be on their way in one direction, as netem's default.
_LIMIT = 1000


class BadLink:
    """See the module. delay, jitter in ms, each way; loss in percent, each way."""

    NEAR, FAR = "10.77.0.1", "10.77.0.2"

    def __init__(self, delay: float, jitter: float, loss: float, seed: int = 0) -> None:
        if os.name != "posix" or os.geteuid() != 0 or not Path("/dev/net/tun").exists():
            raise UsageError(
                "a bad link is made of network namespaces and TUN devices",
                hint="that takes Linux and root",
            )
        self._names = {side: f"demon-{side}-{os.getpid()}" for side in ("near", "far")}
        for name in self._names.values():
            _ip("netns", "add", name)
        root = str(Path(__file__).resolve().parents[2])
        self._carrier = subprocess.Popen(
            [
                sys.executable, "-c",
                f"import sys; sys.path.insert(0, {root!r}); "
                "from tests.rigs.bad_link import carry; carry(*sys.argv[1:])",
                *self._names.values(), str(delay), str(jitter), str(loss), str(seed),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._carrier.stdout is not None
        if self._carrier.stdout.readline().strip() != "up":
            self.close()
            raise UsageError("the link between the namespaces cannot be made")

    def popen(self, side: str, command: Sequence[str], **more: Any) -> subprocess.Popen[str]:
        """A process in the namespace of one side."""
        words = ["ip", "netns", "exec", self._names[side], *command]
        return subprocess.Popen(words, text=True, **more)

    def tell(self, words: str) -> None:
        """`cut SECONDS`, or `set DELAY JITTER LOSS`."""
        assert self._carrier.stdin is not None
        self._carrier.stdin.write(words + "\n")
        self._carrier.stdin.flush()

    def cut(self, seconds: float) -> None:
        """No packet passes for so long."""
        self.tell(f"cut {seconds}")

    def close(self) -> dict[str, int]:
        """Remove everything. Packets that were carried, lost, and lost in cuts."""
        said = "{}"
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            out, _ = self._carrier.communicate("end\n", timeout=5)
            said = out.strip().splitlines()[-1] if out.strip() else said
        if self._carrier.poll() is None:
            self._carrier.kill()
            self._carrier.wait()
        for name in self._names.values():
            with contextlib.suppress(UsageError):
                _ip("netns", "delete", name)
        found: dict[str, int] = json.loads(said)
        return found

    def __enter__(self) -> BadLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _tun(name: str, address: str) -> int:
    """A TUN device in a namespace, up, with its address; its descriptor here."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"bad0", _IFF_TUN | _IFF_NO_PI))
    finally:
        libc.setns(home, _CLONE_NEWNET)
        os.close(there)
        os.close(home)
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{address}/24", "dev", "bad0"),
        ("link", "set", "bad0", "up"),
    ):
        _ip("-n", name, *words)
    return fd


def carry(near: str, far: str, delay: str, jitter: str, loss: str, seed: str) -> None:
    """The carrier: until `end`, or the end of its stdin."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(-10)
    fds = [_tun(near, BadLink.NEAR), _tun(far, BadLink.FAR)]
    for fd in fds:
        os.set_blocking(fd, False)
    print("up", flush=True)  # noqa: T201
    carrier = _Carrier(fds, float(delay), float(jitter), float(loss), int(seed))
    carrier.run()


class _Carrier:
    def __init__(self, fds: list[int], delay: float, jitter: float, loss: float, seed: int) -> None:
        self._fds = fds
        self._how = (delay / 1000, jitter / 1000, loss / 100)
        self._random = random.Random(seed)
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._waiting = [0, 0]
        self._cut_until = 0.0
        self._serial = 0
        self._counts = {"carried": 0, "lost": 0, "cut": 0, "overflowed": 0}

    def run(self) -> None:
        poll = select.poll()
        for fd in (*self._fds, 0):
            poll.register(fd, select.POLLIN)
        while True:
            rest = None
            if self._under_way:
                rest = max(0.0, (self._under_way[0][0] - time.monotonic()) * 1000)
            for fd, _ in poll.poll(rest):
                if fd == 0:
                    if not self._command(sys.stdin.readline().split()):
                        return
                else:
                    self._take(self._fds.index(fd))
            self._give()

    def _command(self, words: list[str]) -> bool:
        match words:
            case ["cut", seconds]:
                self._cut_until = time.monotonic() + float(seconds)
            case ["set", *how]:
                delay, jitter, loss = (float(w) for w in how)
                self._how = (delay / 1000, jitter / 1000, loss / 100)
            case _:
                print(json.dumps(self._counts), flush=True)  # noqa: T201
                return False
        return True

    def _take(self, side: int) -> None:
        delay, jitter, loss = self._how
        while True:
            try:
                packet = os.read(self._fds[side], 65536)
            except BlockingIOError:
                return
            now = time.monotonic()
            if now < self._cut_until:
                self._counts["cut"] += 1
            elif self._random.random() < loss:
                self._counts["lost"] += 1
            elif self._waiting[side] >= _LIMIT:
                self._counts["overflowed"] += 1
            else:
                late = max(0.0, delay + self._random.uniform(-jitter, jitter))
                self._serial += 1
                self._waiting[side] += 1
                heapq.heappush(self._under_way, (now + late, self._serial, side, packet))

    def _give(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, side, packet = heapq.heappop(self._under_way)
            self._waiting[side] -= 1
            self._counts["carried"] += 1
            with contextlib.suppress(OSError):
                os.write(self._fds[1 - side], packet)
