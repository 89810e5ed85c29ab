"""A second process that replays a set while it is being played, and compares it turn by turn.

It reads the journal only from its file: what it plays is what anybody who has the set would hear.

Threads: the caller's; one child process.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from demon_live.core import Floats
from demon_live.replay.render import replay_into
from demon_live.runtime.offline import Offline
from demon_live.sets.journal import load

__all__ = ["Follower", "engine"]

#: Turns that are handed over at once.
_HAND = 500


class _Latest(list[Any]):
    """A list that keeps the last 64 of what is added to it."""

    def __iadd__(self, more: Any) -> Any:
        super().__iadd__(more)
        del self[:-64]
        return self


def engine(name: str) -> Any:
    """What `Offline` takes: the mock engine of the tests, or the name itself."""
    if name != "mock":
        return name
    from tests.helpers.mock_engine import MockEngine, by_prompt

    mock = MockEngine(by_prompt)
    # It keeps every request for tests to look at: over hours that would be the growth measured.
    mock.requests = _Latest()
    return mock


def _digest(piece: Floats) -> bytes:
    return hashlib.blake2b(piece.tobytes(), digest_size=8).digest()


def _follow(path: Path, name: str, folder: Path, pipe: Connection) -> None:
    """The child: turns are played once the parent has played them, so their causes are on file."""
    hashes: list[bytes] | None = pipe.recv()
    same = done = 0
    seed = int(load(path).start["seed"])
    with Offline(engine(name), folders=(folder,), seed=seed) as again:
        while hashes is not None:
            recording = load(path)
            rest = recording.events[done:]
            step = replay_into(again, replace(recording, events=rest))
            now = -1
            for digest in hashes:
                now = again.output.playhead.now()
                step()
                same += _digest(again.turn()) == digest
            done += sum(event.sample <= now for event in rest)
            hashes = pipe.recv()
    pipe.send(same)


class Follower:
    """`with Follower(path, engine, folder) as follower`: tell it of each turn, then `finish`."""

    def __init__(self, path: Path, name: str, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._child = spawn.Process(target=_follow, args=(path, name, folder, theirs), daemon=True)
        self._child.start()
        theirs.close()
        self._hashes: list[bytes] = []

    def turn(self, piece: Floats) -> None:
        """The take's next turn, once its causes are in the file."""
        self._hashes.append(_digest(piece))
        if len(self._hashes) == _HAND:
            self._pipe.send(self._hashes)
            self._hashes = []

    def finish(self) -> int:
        """How many turns of the replay are bit for bit those of the take."""
        if self._hashes:
            self._pipe.send(self._hashes)
        self._pipe.send(None)
        same: int = self._pipe.recv()
        self._child.join()
        return same

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        if self._child.is_alive():
            self._child.terminate()
