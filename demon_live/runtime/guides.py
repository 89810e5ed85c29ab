"""The sources that a score plays itself: the notes of each lap, rendered and encoded ahead.

What a generation is made from is a matter of its lap and of what its notes say: equal laps have
equal sources, made once. Encoding is slow, so live it runs beside the ring; what is not there yet
is not asked for, and what is asked for first is made next. What was rendered can be heard while it
is being encoded.

Threads: belongs to the engine loop; rendering runs in the thread of a pool, where there is one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from demon_live.core import Beats, Floats, Loop, Phrase
from demon_live.notes.kits import NoteKit, kit_of
from demon_live.runtime.preparation import encoded

#: Sources that are kept.
_KEPT = 64
#: Level of a file that notes are played over.
_UNDER = np.float32(0.7)


class _Source(NamedTuple):
    """What decides a source."""

    file: str | None
    samples: int
    frames: int
    cycles: int
    beats: Beats
    phrase: Phrase
    kit: NoteKit


class Guides:
    """See the module.

    Args:
        engine: the open model.
        read: file name -> PCM, float32 [n, 2].
        pool: where to render; None: at once, so that renders do not depend on the machine's speed.
        tell: called with what went wrong.
    """

    def __init__(
        self,
        engine: Any,
        read: Callable[[str], Floats],
        pool: Executor | None,
        tell: Callable[[str], None],
    ) -> None:
        self._engine, self._read, self._pool, self._tell = engine, read, pool, tell
        self._made: OrderedDict[_Source, Floats | None] = OrderedDict()
        self._missing: dict[_Source, None] = {}
        self._coming: tuple[_Source, Future[Floats]] | None = None
        # The last two that the pool has rendered, replaced as a whole.
        self._rendered: tuple[tuple[_Source, Floats], ...] = ()

    def ready(self, loop: Loop, phrase: Phrase, prompt: str) -> bool:
        """Whether the source of a lap is there; if it is not, it will be."""
        job = _source_of(loop, phrase, prompt)
        if self._pool is None or job in self._made:
            return True
        self._missing[job] = None
        return False

    def get(self, loop: Loop, phrase: Phrase, prompt: str) -> Floats | None:
        """The source of a lap that is ready, float32 [T, C]; None if it could not be made."""
        job = _source_of(loop, phrase, prompt)
        if job not in self._made:
            self._take(job, partial(self._make, job))
        self._made.move_to_end(job)
        return self._made[job]

    def audio(self, loop: Loop, phrase: Phrase, prompt: str) -> Floats | None:
        """What a lap sounds like, float32 [samples, 2]; None unless it was rendered lately."""
        job = _source_of(loop, phrase, prompt)
        return next((audio for known, audio in self._rendered if known == job), None)

    def turn(self) -> None:
        """Take what is done, begin with what was asked for first since the last call."""
        if self._coming is not None and self._coming[1].done():
            job, future = self._coming
            self._coming = None
            self._take(job, future.result)
        if self._coming is None and self._pool is not None:
            first = next((job for job in self._missing if job not in self._made), None)
            if first is not None:
                self._coming = first, self._pool.submit(self._make, first)
        self._missing.clear()

    def clear(self) -> None:
        """Keep nothing."""
        self._made.clear()

    def _take(self, job: _Source, result: Callable[[], Floats]) -> None:
        self._made[job] = None
        try:
            self._made[job] = result()
        # As in a tick, a model may fail in any way: a message, and generations begin from noise.
        except Exception as error:  # noqa: BLE001
            self._tell(f"the notes cannot be played to the engine: {error}")
        while len(self._made) > _KEPT:
            self._made.popitem(last=False)

    def _make(self, job: _Source) -> Floats:
        if getattr(self._engine, "dry", False):
            return np.zeros((job.frames, self._engine.channels), np.float32)
        # torch loads with it, and not every engine has notes to play.
        from demon_live.notes.guide import guide

        audio = guide(job.phrase, job.cycles, job.samples, job.beats, job.kit)
        if job.file is not None:
            audio = audio + _UNDER * self._read(job.file)[: job.samples]
        if self._pool is not None:
            self._rendered = (*self._rendered[-1:], (job, audio))
        return encoded(self._engine, audio, job.frames)


def _source_of(loop: Loop, phrase: Phrase, prompt: str) -> _Source:
    return _Source(
        loop.source_file, loop.samples, loop.frames, loop.cycles, loop.beats, phrase, kit_of(prompt)
    )
