"""A few bars of a score as a WAV, rendered in a process of its own beside a session.

Bounded: bars, seconds of sound, seconds that it may take, and how many files are kept. It runs at a
low priority, and only with engines that need no GPU: a second model could take the memory of the
one that plays.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from demon_live.children import command
from demon_live.errors import DemonError, EngineError, FileError, UsageError
from demon_live.models.cuda import needs_gpu
from demon_live.models.manifest import load_manifest
from demon_live.runtime.options import parse_remote

#: Bars and seconds of a preview at most; seconds that it may take; files that are kept.
MOST_BARS, MOST_SECONDS, PATIENCE, KEPT = 16, 60.0, 120.0, 8
_one = threading.Lock()


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview that was written. peak, rms: 1 is full scale."""

    path: str
    seconds: float
    peak: float
    rms: float


def preview(text: str, bars: int, folder: Path, engine: str) -> Preview:
    """Render the first bars of a score into `folder/previews`, as sounds of `folder` are found.

    Raises DemonError: the score is refused, it takes too long, or another preview is under way.
    """
    if not 1 <= bars <= MOST_BARS:
        raise UsageError(f"a preview has 1 to {MOST_BARS} bars, not {bars}")
    if parse_remote(engine) is not None or needs_gpu(load_manifest(engine)):
        raise EngineError(
            f"{engine} needs a GPU, which the session has for itself: there is no preview",
            hint="check says whether the text is right",
        )
    if not _one.acquire(blocking=False):
        raise UsageError("another preview is being rendered", hint="wait for its answer")
    try:
        with tempfile.TemporaryDirectory(prefix="demon-preview-") as scratch:
            return _rendered(text, bars, folder, engine, Path(scratch))
    finally:
        _one.release()


def _rendered(text: str, bars: int, folder: Path, engine: str, scratch: Path) -> Preview:
    score, sound = scratch / "preview.demon", scratch / "preview.wav"
    score.write_text(text, "utf-8", errors="replace")
    words = command(f"{__name__}:_render", str(score), str(sound), bars, engine)
    nothing = subprocess.DEVNULL
    try:
        done = subprocess.run(
            words, cwd=folder, stdin=nothing, stderr=nothing, stdout=subprocess.PIPE,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        row = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"the preview took more than {PATIENCE:g} s", hint="ask for fewer bars"
        ) from None
    except (OSError, ValueError):
        raise EngineError("the preview could not be rendered", hint="demon doctor") from None
    if "error" in row:
        raise DemonError(row["error"])
    try:
        target = _target(folder / "previews")
        target.write_bytes(sound.read_bytes())
    except OSError as error:
        raise FileError(f"the preview cannot be kept: {error.strerror}") from None
    return Preview(str(target), row["seconds"], row["peak"], row["rms"])


def _target(folder: Path) -> Path:
    """A new name in the folder, or the oldest one once there are enough. Raises OSError."""
    folder.mkdir(exist_ok=True)
    names = [folder / f"preview-{n}.wav" for n in range(1, KEPT + 1)]
    path = min(names, key=lambda p: p.stat().st_mtime_ns if p.exists() else 0)
    # A link would be followed.
    path.unlink(missing_ok=True)
    return path


def _render(score: str, sound: str, bars: int, engine: str) -> None:
    """The process beside: prints {"seconds", "peak", "rms"}, or {"error"}."""
    from demon_live.core import RATES
    from demon_live.session.output import NullOutput
    from demon_live.session.session import Session

    os.nice(10)
    try:
        text = Path(score).read_text("utf-8")
        played = Session(NullOutput(), dry=True)
        played.apply(text, score, "file")
        length = played.state.tempo.sample_at(Fraction(bars)) / RATES.sample_rate
        # Heavy, so only for a score that is right.
        from demon_live.replay.render import render

        done = render(Path(score), sound, seconds=min(length, MOST_SECONDS), engine=engine)
    except DemonError as error:
        # The place in the text, not in a file that is gone.
        print(json.dumps({"error": str(error).replace(score, "score.demon")}))  # noqa: T201
        return
    import numpy as np

    level = np.abs(done.audio)
    row = {
        "seconds": len(done.audio) / RATES.sample_rate,
        "peak": float(level.max(initial=0.0)),
        "rms": float(np.sqrt(np.mean(np.square(done.audio, dtype=np.float64)))),
    }
    print(json.dumps(row))  # noqa: T201
