"""The PCM of loops, sources and timbres as mmap'ed files in the folder of a session.

The session writes them, the engine reads sources and writes loops, the mixer reads loops.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from demon_live.audio.pcmring import LoopBuffer
from demon_live.core import EngineState, Floats, MixState
from demon_live.paths import is_own


def named_files(engine: EngineState, mix: MixState) -> set[str]:
    """The names of all PCM that published states need."""
    loops = [deck.loop for deck in engine.decks.values()]
    loops += [loop for deck in mix.decks.values() for loop in deck.loops]
    files = (name for loop in loops for name in (loop.file, loop.source_file) if name)
    return {*engine.inputs, *files}


class PcmFolder:
    """The PCM of loops, sources and timbres as files; those that nothing names go.

    Until `start` nothing is written: a session that is restored names hundreds of loops of which
    one or two will play. The engine and the mixer may still open the last few that were named, so
    these stay a while.
    """

    #: Files that are kept beside those that are named.
    SPARE = 12

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = False
        self._waiting: dict[str, Floats] = {}
        self._written: dict[str, Path] = {}

    def start(self) -> None:
        """Write what is named, and from now on at once. Raises FileError."""
        self._started = True
        waiting, self._waiting = self._waiting, {}
        self.add(waiting)

    def add(self, audio: Mapping[str, Floats]) -> None:
        """Names with their PCM; those that are known are passed over. Raises FileError."""
        for name, sound in audio.items():
            if name in self._written:
                continue
            if not self._started:
                self._waiting[name] = sound
                continue
            path = self._folder / name
            buffer = LoopBuffer.create(path, len(sound))
            buffer.audio[:] = sound
            buffer.close()
            self._written[name] = path

    def keep(self, engine: EngineState, mix: MixState) -> None:
        """These states are published: remove what they do not name, but for the last few."""
        named = named_files(engine, mix)
        self._waiting = {k: v for k, v in self._waiting.items() if k in named}
        unnamed = [name for name in self._written if name not in named]
        for name in unnamed[: max(0, len(unnamed) - self.SPARE)]:
            with contextlib.suppress(OSError):
                self._written.pop(name).unlink()


class PcmFiles:
    """The PCM files in a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> Floats:
        """A copy, float32 [n, 2]."""
        buffer = LoopBuffer.open(self._folder / name)
        audio = buffer.audio.copy()
        buffer.close()
        return audio

    def open(self, name: str) -> Floats:
        """The PCM itself, to be written to, float32 [n, 2]; mapped as long as the array is."""
        return LoopBuffer.open(self._folder / name).audio


def sweep(folder: Path) -> None:
    """Remove what sessions that were killed have left: their loops lie in memory."""
    for old in folder.glob("live-*-*"):
        with contextlib.suppress(ValueError, OSError):
            found = old.lstat()
            if not stat.S_ISDIR(found.st_mode) or not is_own(found):
                continue
            pid = int(old.name.split("-")[1])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                shutil.rmtree(old, ignore_errors=True)
