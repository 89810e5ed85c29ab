"""Recordings that the codec learns from and is measured on: `python -m engines.imp.recordings
FOLDER --out FILE.npz`.

FOLDER holds the samples of Sonic Pi (Debian: /usr/share/sonic-pi/samples; all of the named families
are CC0 by its copyright file). Single hits are learnt from; loops, chords, basses and atmospheres
are kept for the evaluation, so that no family is on both sides. The loops made from the Amen break
and the mehackit set are in neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from engines.imp.training import say

LEARNT = ("bd", "drum", "elec", "glitch", "perc", "sn", "tabla")
HELD_OUT = ("ambi", "bass", "guit", "loop", "misc", "vinyl")
LEFT_OUT = ("loop_amen", "loop_mehackit")
GAP = imp.SAMPLE_RATE // 8
"""Silence between recordings, samples."""


def read(folder: Path, families: tuple[str, ...]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """(name, audio [n, 2] at 48 kHz) of every file of the families, in order."""
    import soundfile
    import soxr

    for path in sorted(folder.glob("*.flac")):
        if path.stem.startswith(LEFT_OUT) or path.stem.split("_")[0] not in families:
            continue
        x, rate = soundfile.read(path, dtype="float32", always_2d=True)
        x = soxr.resample(x, rate, imp.SAMPLE_RATE) if rate != imp.SAMPLE_RATE else x
        yield path.stem, np.repeat(x, 2, 1)[:, :2] if x.shape[1] == 1 else x[:, :2]


def load(path: Path, seconds: float = 600.0) -> Tensor:
    """int16 [2, n]: the recordings of a file in random order, repeated for about `seconds`."""
    stored = np.load(path)
    parts = [stored[name] for name in stored.files]
    parts = [np.repeat(p[None], 2, 0) if p.ndim == 1 else p for p in parts]
    order, row, total = np.random.RandomState(3), list[npt.NDArray[np.int16]](), 0
    while total < seconds * imp.SAMPLE_RATE:
        for i in order.permutation(len(parts)):
            row += [parts[i], np.zeros((2, GAP), np.int16)]
            total += parts[i].shape[1] + GAP
    return torch.from_numpy(np.concatenate(row, axis=1))


def main() -> None:
    """Write the families to learn from as one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, help="of each at most, faded out")
    options = parser.parse_args()
    found = {}
    for name, x in read(options.folder, LEARNT):
        if options.seconds and len(x) > options.seconds * imp.SAMPLE_RATE:
            x = x[: int(options.seconds * imp.SAMPLE_RATE)]
            x = x * np.linspace(1, 0, len(x), dtype=np.float32)[:, None].clip(0, 0.1) * 10
        y = (x.clip(-1, 1) * 32767).astype(np.int16)
        found[name] = y[:, 0] if np.array_equal(y[:, 0], y[:, 1]) else y.T
    np.savez_compressed(options.out, **found)  # type: ignore[arg-type]
    seconds = sum(y.shape[-1] for y in found.values()) / imp.SAMPLE_RATE
    say(f"{len(found)} recordings, {seconds:.0f} s, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
