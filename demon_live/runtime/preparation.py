"""What is prepared beside the ticks: the sources of loops and the timbres, encoded by the engine.

Threads: belongs to the engine loop; encoding runs in the thread of a pool, where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from demon_live.core import RATES, Floats, Loop
from demon_live.errors import DemonError


def encoded(engine: Any, pcm: Floats, frames: int) -> Floats:
    """A loop of PCM, float32 [n, 2], as a latent [frames, C]; it goes on from its beginning."""
    whole = np.arange(frames * RATES.hop) % len(pcm)
    latent = engine.encode(np.ascontiguousarray(pcm[whole]))
    return np.ascontiguousarray(latent[:frames])


class Timbres:
    """See the module. read: path -> PCM. pool: where to encode; None: at once, in `take`.

    Does nothing for an engine without timbres (no `set_timbre`, or not among its controls).
    """

    def __init__(self, engine: Any, read: Callable[[str], Floats], pool: Executor | None) -> None:
        self._engine, self._read, self._pool = engine, read, pool
        self._waiting: dict[str, tuple[str, str]] = {}
        self._coming: dict[str, tuple[Future[None], str]] = {}
        self._unwanted: set[str] = set()
        #: Names that conditions may mention.
        self.ready: set[str] = set()

    def take(self, name: str, audio: str, label: str = "", first: bool = False) -> None:
        """A sound at path `audio` is called `name` from when it is encoded on.

        label: display name. first: before anything that comes later, a
        stage too.
        """
        self._unwanted.discard(name)
        knows = "timbre" in self._engine.controls and hasattr(self._engine, "set_timbre")
        if knows and name not in self.ready | self._coming.keys() | self._waiting.keys():
            self._waiting[name] = audio, label
            self._next(first)

    def drop(self, name: str) -> None:
        """Nothing asks for it any more, and its PCM may be gone."""
        self._waiting.pop(name, None)
        if name in self._coming:
            self._unwanted.add(name)

    def _next(self, first: bool = False) -> None:
        """One at a time: a stage that is to be prepared in the same thread waits for no more."""
        while self._waiting and (first or self._pool is None or not self._coming):
            name = next(iter(self._waiting))
            audio, label = self._waiting.pop(name)
            future = Future[None]()
            self._coming[name] = future, label
            if self._pool is None:
                self._encode(name, audio, future)
            else:
                self._pool.submit(self._encode, name, audio, future)

    def _encode(self, name: str, audio: str, future: Future[None]) -> None:
        try:
            self._engine.set_timbre(name, self._read(audio))
        # As in a tick, a model may fail in any way: a message, and the old timbre plays on.
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        else:
            future.set_result(None)

    def collect(self) -> tuple[bool, list[str]]:
        """(whether any became ready since the last call, what went wrong)."""
        done = {name: row for name, row in self._coming.items() if row[0].done()}
        troubles: list[str] = []
        for name, (future, label) in done.items():
            del self._coming[name]
            error = future.exception()
            if error is None:
                self.ready.add(name)
            elif name not in self._unwanted:
                why = error.message if isinstance(error, DemonError) else str(error) or repr(error)
                what = f"the timbre {label}" if label else "the timbre"
                troubles.append(f"{what} cannot be used: {why}; the one before plays on")
            self._unwanted.discard(name)
        self._next()
        return bool(self.ready & done.keys()), troubles


@dataclass(frozen=True, slots=True)
class Source:
    """What a loop is made from. latent: float32 [T, C]. audio: float32 [n, 2]."""

    latent: Floats
    audio: Floats


class Sources:
    """The sources of loops, encoded.

    Args:
        engine: the open model.
        read: file name -> PCM, float32 [n, 2].
        pool: where to encode; None: at once, so that renders do not depend on the machine's speed.
    """

    def __init__(self, engine: Any, read: Callable[[str], Floats], pool: Executor | None) -> None:
        self._engine, self._read, self._pool = engine, read, pool
        self._coming: list[tuple[Loop, Future[Source | None]]] = []

    def encode(self, loop: Loop) -> None:
        """Begin with the source of a loop."""
        if self._pool is not None:
            self._coming.append((loop, self._pool.submit(self._encoded, loop)))
            return
        future = Future[Source | None]()
        try:
            future.set_result(self._encoded(loop))
        except (DemonError, OSError, RuntimeError) as error:
            future.set_exception(error)
        self._coming.append((loop, future))

    def _encoded(self, loop: Loop) -> Source | None:
        """None for a loop from noise."""
        # With notes, each lap has a source of its own (`guides`).
        if loop.source_file is None or loop.notes:
            return None
        pcm = self._read(loop.source_file)
        return Source(encoded(self._engine, pcm, loop.frames), pcm)

    def collect(self) -> list[tuple[Loop, Source | None, str]]:
        """(loop, its source or None, why it could not be encoded or "") of those done."""
        done = [row for row in self._coming if row[1].done()]
        out: list[tuple[Loop, Source | None, str]] = []
        for row in done:
            self._coming.remove(row)
            loop, future = row
            try:
                out.append((loop, future.result(), ""))
            except (DemonError, OSError, RuntimeError) as error:
                out.append((loop, None, str(error)))
        return out
