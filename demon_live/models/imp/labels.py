"""imp's conditioning: labels in, arrays out. Pure numpy: an onnx-only process needs no torch.

    tags {name: weight}, key, bpm, bars, frames  ->  cond float32 [D], phase float32 [T, 2]
    cond: labels [128], then a timbre reference [128] (timbre.py), zeros without one

The vocabulary (tags, keys, synonyms) lives in engines/imp/tags.toml; its order is the layout of
`cond` and is frozen with the weights. Free text is parsed elsewhere (models/conditioning.py) into
the tags used here.
Thread contract: everything here is pure; `Vocabulary` is frozen.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from demon_live.paths import read_file

Floats: TypeAlias = npt.NDArray[np.float32]

FRAME_HZ = 25
"""Latent frames a second."""
LABELS = 128
"""Numbers of the condition vector that labels fill."""
TIMBRE = 128
"""Numbers after them that say what a reference sounds like; zeros: nothing."""
COND = LABELS + TIMBRE
"""Width of the condition vector. Weights from before the timbre reference read the labels only."""
PHASE = 2
"""Columns of the phase: position in bars, position in loops (both in cycles, not wrapped)."""

MAX_TAGS = 96
_LONGEST = 1 << 20  # bytes of a tags.toml
_KEY, _MODE, _TEMPO, _BARS = MAX_TAGS, MAX_TAGS + 12, MAX_TAGS + 16, MAX_TAGS + 18

_NOTES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SIGNS = {"": 0, "#": 1, "♯": 1, "s": 1, "b": -1, "♭": -1}
_KEY_PATTERN = re.compile(r"^\s*([a-g])([#♯b♭s]?)\s*[-_ ]?\s*([a-z]*)\s*$", re.IGNORECASE)
_MODE_WORDS = {
    "": "minor",
    "m": "minor",
    "min": "minor",
    "aeolian": "minor",
    "maj": "major",
    "ionian": "major",
}


@dataclass(frozen=True)
class Vocabulary:
    """imp's labels. `tags` and `modes` are in the order of the condition vector."""

    tags: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    modes: tuple[str, ...]
    synonyms: Mapping[str, Mapping[str, float]]
    """Free word or phrase (lower case) -> tags with weights; every tag maps to itself."""


def load_vocabulary(path: Path) -> Vocabulary:
    """Read engines/imp/tags.toml. ValueError: a tag named twice, or a synonym of no tag."""
    table = tomllib.loads(read_file(path, _LONGEST).decode())
    groups = {name: tuple(words) for name, words in table["tags"].items()}
    tags = tuple(word for words in groups.values() for word in words)
    if len(set(tags)) != len(tags) or len(tags) > MAX_TAGS:
        raise ValueError(f"{path}: tags must be unique and at most {MAX_TAGS}")
    synonyms: dict[str, dict[str, float]] = {tag: {tag: 1.0} for tag in tags}
    for word, target in table["synonyms"].items():
        synonyms[word] = _weights(target)
        unknown = [tag for tag in synonyms[word] if tag not in tags]
        if unknown:
            raise ValueError(f"{path}: {word!r} points at unknown tags {unknown}")
    return Vocabulary(tags, groups, tuple(table["modes"]), synonyms)


def _weights(target: str | list[str] | dict[str, float]) -> dict[str, float]:
    if isinstance(target, str):
        return {target: 1.0}
    if isinstance(target, list):
        return dict.fromkeys(target, 1.0)
    return {tag: float(weight) for tag, weight in target.items()}


def parse_key(text: str, modes: tuple[str, ...]) -> tuple[int, int]:
    """'F# minor', 'Ebm', 'a dorian', 'C' (then minor) -> (pitch class 0..11, index of the mode).

    Raises ValueError for anything else.
    """
    found = _KEY_PATTERN.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a key: write it like 'F# minor', 'Ebm' or 'A dorian'")
    note, sign, word = (part.lower() for part in found.groups())
    if found.group(3) == "M":
        word = "major"
    mode = _MODE_WORDS.get(word, word)
    if mode not in modes:
        raise ValueError(f"{text!r}: the mode must be one of {', '.join(modes)}")
    return (_NOTES[note] + _SIGNS[sign]) % 12, modes.index(mode)


def loop_frames(bars: float, bpm: float, beats: int = 4) -> int:
    """The smallest even number of latent frames that covers a loop of `bars` bars."""
    seconds = bars * beats * 60.0 / bpm
    return 2 * max(1, math.ceil(seconds * FRAME_HZ / 2 - 1e-9))


def loop_phase(
    bars: float, bpm: float, frames: int, *, beats: int = 4, offset: float = 0.0
) -> Floats:
    """Musical position of each frame -> float32 [T, 2]: bars and loops since the loop began.

    Neither is wrapped; the model only uses them modulo one, so a loop of whole bars is circular:
    what lies past its end has the same position as its beginning. `offset` (bars) is the position
    of frame 0.
    """
    position = offset + np.arange(frames, dtype=np.float64) * bpm / (60.0 * beats * FRAME_HZ)
    return np.stack([position, position / bars], axis=-1).astype(np.float32)


def condition(
    vocabulary: Vocabulary,
    tags: Mapping[str, float] | None = None,
    *,
    key: str | tuple[int, int] | None = None,
    bpm: float | None = None,
    bars: float | None = None,
) -> Floats:
    """Labels -> condition vector float32 [D]; what is not named is left to the model.

    Linear in the tag weights, so blending two prompts is blending two vectors. All zeros is the
    null condition. Raises ValueError for an unknown tag or key.
    """
    vector = np.zeros(COND, dtype=np.float32)
    for tag, weight in (tags or {}).items():
        if tag not in vocabulary.tags:
            raise ValueError(f"unknown tag {tag!r}")
        vector[vocabulary.tags.index(tag)] = weight
    if key is not None:
        pitch, mode = parse_key(key, vocabulary.modes) if isinstance(key, str) else key
        vector[_KEY + pitch] = 1.0
        vector[_MODE + mode] = 1.0
    if bpm is not None:
        vector[_TEMPO : _TEMPO + 2] = 1.0, (bpm - 128.0) / 32.0
    if bars is not None:
        vector[_BARS : _BARS + 2] = 1.0, math.log2(max(bars, 0.25)) / 2.0 - 1.0
    return vector


def null_condition() -> Floats:
    """The condition that says nothing (for guidance): zeros, float32 [D]."""
    return np.zeros(COND, dtype=np.float32)
