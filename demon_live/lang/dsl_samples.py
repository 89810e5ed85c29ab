"""Arrays, functions and files as patterns in Python: curve, onsets and midi.

What is no file yet is written by its hash beside the score (in `curves/`), so that the score is
text, and a set keeps it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from demon_live.errors import FileError, ScoreError
from demon_live.lang.dsl_pattern import Number, Pat, exact
from demon_live.lang.dsl_score import score
from demon_live.lang.syntax import Call, Expr, Num, Text

FOLDER = "curves"
#: Values a cycle of a function of time: more than frames of a latent at any tempo.
_RATE = 256


def curve(
    y: ArrayLike | Callable[[Any], Any] | str | os.PathLike[str],
    cycles: Number = 1,
    *,
    held: bool = False,
) -> Pat:
    """A curve through data.

    Args:
        y: values [n], evenly over the cycles; a function of time in cycles, float64 [n] -> [n];
            or the name of a .npy or .csv file.
        cycles: how long it lasts, before it begins again.
        held: the values are steps; otherwise straight lines join them.
    """
    length = exact(cycles)
    if callable(y):
        count = max(1, round(float(length) * _RATE))
        times = np.arange(count) * float(length) / count
        y = np.broadcast_to(np.asarray(y(times), np.float32), times.shape)
    args: list[Expr] = [_file(y), Num(0, 0, length)]
    return Pat(Call(0, 0, "curve", (*args, *([Num(0, 0, exact(1))] if held else []))))


def onsets(times: ArrayLike | str | os.PathLike[str], cycles: Number = 1) -> Pat:
    """1 at each time: a rhythm for struct and mask.

    Args:
        times: in cycles, [n]; or the name of a .npy or .csv file.
        cycles: how long it lasts, before it begins again: a whole number.
    """
    return Pat(Call(0, 0, "onsets", (_file(times), Num(0, 0, exact(cycles)))))


def midi(path: str | os.PathLike[str], track: int | None = None) -> Pat:
    """The notes of a MIDI file, as numbers: c4 is 60; a bar of 4/4 is a cycle.

    Args:
        path: beside the score.
        track: counted from 0; None: all.
    """
    args: list[Expr] = [Text(0, 0, os.fspath(path))]
    return Pat(Call(0, 0, "midi", (*args, *([] if track is None else [Num(0, 0, exact(track))]))))


def _file(data: ArrayLike | str | os.PathLike[str]) -> Text:
    """The file of some data, written if it is not there."""
    if isinstance(data, (str, os.PathLike)):
        return Text(0, 0, os.fspath(data))
    try:
        values = np.asarray(data, np.float32)
    except (TypeError, ValueError):
        raise ScoreError("a curve is made of numbers", hint="curve([0, .5, 1], 4)") from None
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ScoreError(f"a curve has finite values [n], this is {list(values.shape)}")
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    name = f"{hashlib.sha256(file.getvalue()).hexdigest()[:16]}.npy"
    # A score in a file finds what lies beside it, a script what lies in its working folder.
    path = Path(score().name).parent / FOLDER / name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(file.getvalue())
            part.replace(path)
        except OSError as error:
            raise FileError(f"{path} cannot be written: {error.strerror}") from None
    return Text(0, 0, f"{FOLDER}/{name}")
