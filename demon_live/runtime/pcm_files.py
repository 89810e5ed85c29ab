"""The PCM of loops, sources and timbres as mmap'ed files in the folder of a session.

The session writes them, the engine reads sources and writes loops, the mixer reads loops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from demon_live.audio.pcmring import LoopBuffer
from demon_live.core import EngineState, Floats, MixState


class PcmFolder:
    """The PCM of loops, sources and timbres as files; those that nothing names go.

    The engine and the mixer may still open the last few that were named, so these stay a while.
    """

    #: Files that are kept beside those that are named.
    SPARE = 12

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, Floats] = {}
        self._written: dict[str, Path] = {}
        self._named: set[str] = set()

    def want(self, engine: EngineState, mix: MixState, audio: Mapping[str, Floats]) -> None:
        """These states name files. audio: the content of new ones."""
        loops = [deck.loop for deck in engine.decks.values()]
        loops += [loop for deck in mix.decks.values() for loop in deck.loops]
        self._named = {timbre.file for timbre in engine.timbres}
        for loop in loops:
            self._named.add(loop.file)
            if loop.source_file is not None:
                self._named.add(loop.source_file)
        new = {k: v for k, v in audio.items() if k not in self._written}
        self._waiting = {k: v for k, v in (self._waiting | new).items() if k in self._named}

    def write(self) -> None:
        """Write what waits, and remove what is no longer named."""
        for name, audio in self._waiting.items():
            path = self._folder / name
            buffer = LoopBuffer.create(path, len(audio))
            buffer.audio[:] = audio
            buffer.close()
            self._written[name] = path
        self._waiting = {}
        unnamed = [name for name in self._written if name not in self._named]
        for name in unnamed[: max(0, len(unnamed) - self.SPARE)]:
            with contextlib.suppress(OSError):
                self._written.pop(name).unlink()


class PcmFiles:
    """The PCM files in a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A mapping must outlive its array: keep those that may still be written.
        self._open: dict[str, LoopBuffer] = {}

    def read(self, name: str) -> Floats:
        """A copy, float32 [n, 2]."""
        buffer = LoopBuffer.open(self._folder / name)
        audio = buffer.audio.copy()
        buffer.close()
        return audio

    def open(self, name: str) -> Floats:
        """The PCM itself, to be written to, float32 [n, 2]."""
        self._open[name] = LoopBuffer.open(self._folder / name)
        for old in list(self._open)[:-16]:
            del self._open[old]
        return self._open[name].audio
