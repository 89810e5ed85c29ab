"""The timbres that an engine has been given: encoded beside the ticks, each once.

Threads: belongs to the engine loop; a sound is read and encoded in the thread that prepares stages.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from demon_live.core import Floats
from demon_live.errors import DemonError


class Timbres:
    """See the module. read: path -> PCM. pool: where to encode; None: at once, in `take`.

    An engine that knows no timbres (no `set_timbre`, or not among its controls) is told nothing.
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

        label: how it is called where it is told of. first: before anything that comes later, a
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
        # As in a tick, a model may fail in any way: told, and the old timbre plays on.
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
