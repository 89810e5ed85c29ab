"""Counter-based Gaussian noise: a function of (seed, purpose, step, frame, channel).

No generator has a state, so noise depends neither on neighbours, depth, order and batch nor on
how many frames a loop has: frame i is the same in every length. The bits come from the finaliser
of SplitMix64 (Steele, Lea, Flood 2014) over a Weyl sequence that starts at a hashed key. A normal
number is an entry of a table of 65,536 Gaussian quantiles: integer arithmetic and a look-up, hence
the same bits on a CPU and on a GPU, four numbers from each word; the tail ends at 4.3 sigma (one
number in 50,000 would lie beyond).

Threads: a NoiseCache belongs to one thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.core import Floats
from demon_live.engine.staging import upload

#: The purpose of a field; part of its key.
BIRTH: Final = 1
STEP: Final = 2
MASK: Final = 3
MIGRATE: Final = 4
DRIFT: Final = 5

_M64: Final = (1 << 64) - 1
_GAMMA: Final = 0x9E3779B97F4A7C15
_MUL1: Final = 0xBF58476D1CE4E5B9
_MUL2: Final = 0x94D049BB133111EB
_LEVELS: Final = 1 << 16
_PIECE: Final = 1 << 12
#: Names of fields that were asked for once; the second time they are kept.
_REMEMBERED: Final = 1 << 9

_Name = tuple[int, int, int]


def _mix(word: int) -> int:
    """SplitMix64's finaliser on a Python int."""
    word = ((word ^ (word >> 30)) * _MUL1) & _M64
    word = ((word ^ (word >> 27)) * _MUL2) & _M64
    return word ^ (word >> 31)


def key(seed: int, purpose: int, step: int = 0) -> int:
    """The 64-bit key of one noise field. seed: any int."""
    word = _mix((seed + _GAMMA) & _M64)
    word = _mix((word + purpose * _GAMMA) & _M64)
    return _mix((word + (step + 1) * _GAMMA) & _M64)


@lru_cache(maxsize=1)
def _quantiles() -> Floats:
    """Midpoint quantiles of a Gaussian, scaled to unit variance."""
    inverse = NormalDist().inv_cdf
    half = np.array([inverse((i + 0.5) / _LEVELS) for i in range(_LEVELS // 2)])
    table = np.concatenate([half, -half[::-1]])
    table /= np.sqrt(np.mean(table**2))
    return np.asarray(table, dtype=np.float32)


@lru_cache(maxsize=16)
def _weyl(words: int) -> NDArray[np.uint64]:
    """(i + 1) * gamma mod 2^64 for i < words: the counter part of every field of this size."""
    return np.arange(1, words + 1, dtype=np.uint64) * np.uint64(_GAMMA)


def _words(channels: int) -> int:
    """Words of a frame: four numbers each."""
    return (channels + 3) // 4


def normal(field_key: int, frames: int, channels: int, out: Floats | None = None) -> Floats:
    """Standard normal float32 [frames, channels] of a key, made on the host; into `out` if given
    (contiguous)."""
    wide = _words(channels)
    weyl, seed, table = _weyl(frames * wide), np.uint64(field_key), _quantiles()
    whole = out is not None and channels == 4 * wide
    field = out.reshape(-1) if whole and out is not None else np.empty(4 * len(weyl), np.float32)
    size = min(_PIECE, len(weyl))
    word, scratch = np.empty(size, np.uint64), np.empty(size, np.uint64)
    index = np.empty(4 * size, np.intp)
    # In pieces that stay in the cache: several times as fast as all at once.
    for start in range(0, len(weyl), size):
        n = min(size, len(weyl) - start)
        np.add(weyl[start : start + n], seed, out=word[:n])
        _finalise(word[:n], scratch[:n])
        index[: 4 * n] = word[:n].view("<u2")
        # Every 16-bit number is in the table: "clip" only spares the check.
        table.take(index[: 4 * n], mode="clip", out=field[4 * start : 4 * (start + n)])
    values = field.reshape(frames, 4 * wide)[:, :channels]
    if out is None:
        return np.ascontiguousarray(values)
    if not whole:
        out[:] = values
    return out


def _finalise(word: NDArray[np.uint64], scratch: NDArray[np.uint64]) -> None:
    """`_mix` of an array, in place."""
    for shift, factor in ((30, _MUL1), (27, _MUL2)):
        np.right_shift(word, np.uint64(shift), out=scratch)
        np.bitwise_xor(word, scratch, out=word)
        np.multiply(word, np.uint64(factor), out=word)
    np.right_shift(word, np.uint64(31), out=scratch)
    np.bitwise_xor(word, scratch, out=word)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


@lru_cache(maxsize=16)
def _device_tables(words: int, device: str) -> tuple[Tensor, Tensor]:
    weyl = torch.from_numpy(_weyl(words).view(np.int64).copy()).to(device)
    return weyl, torch.from_numpy(_quantiles().copy()).to(device)


def signed(keys: Sequence[int]) -> NDArray[np.int64]:
    """Keys as the int64 that `normal_on` takes."""
    return np.array([_signed(key) for key in keys], dtype=np.int64)


def warm(frames: int, channels: int, device: torch.device) -> None:
    """Make the tables of `normal_on` for fields of this size, which a capture cannot."""
    _device_tables(frames * _words(channels), str(torch.empty(0, device=device).device))


def normal_on(keys: Tensor, frames: int, channels: int) -> Tensor:
    """`normal` for n keys (int64 [n]) on the keys' device: float32 [n, frames, channels].

    The same bits as `normal`; no host synchronisation, fixed shapes, so it can be captured.
    """
    wide = _words(channels)
    weyl, table = _device_tables(frames * wide, str(keys.device))
    word = weyl + keys[:, None]
    for shift, factor in ((30, _MUL1), (27, _MUL2)):
        # `>>` on int64 keeps the sign: mask it to the logical shift that the hash means.
        word = (word ^ ((word >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    word = word ^ ((word >> 31) & ((1 << 33) - 1))
    # Least significant 16 bits first, as a little-endian host reads them.
    index = torch.stack([(word >> s) & 0xFFFF for s in (0, 16, 32, 48)], dim=-1)
    return table[index].view(len(keys), frames, 4 * wide)[..., :channels].contiguous()


class NoiseCache:
    """Noise fields on one device; on a CPU, as many as `limit` bytes hold are kept.

    A constant seed is the common case, so most ticks generate nothing. A field is kept when it is
    asked for a second time: those of a moving seed would only push each other out. A GPU makes a
    field in less time than it takes to look it up.
    """

    def __init__(self, device: torch.device, limit: int = 96 << 20) -> None:
        self.device = device
        self.limit = limit
        self._fields: OrderedDict[_Name, Tensor] = OrderedDict()
        self._seen: OrderedDict[_Name, None] = OrderedDict()
        self._bytes = 0

    def fill(self, field_key: int, out: Tensor) -> Tensor:
        """Write a field into `out`, float32 [frames, channels], contiguous, on the device."""
        frames, channels = out.shape
        if self.device.type != "cpu":
            values = normal_on(upload(signed([field_key]), self.device), frames, channels)
            return out.copy_(values[0])
        name = field_key, frames, channels
        known = self._fields.get(name)
        if known is not None:
            self._fields.move_to_end(name)
            return out.copy_(known)
        normal(field_key, frames, channels, out.numpy())
        if name in self._seen:
            self._keep(name, out.clone())
        else:
            self._note(name)
        return out

    def _note(self, name: _Name) -> None:
        self._seen[name] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _keep(self, name: _Name, field: Tensor) -> None:
        del self._seen[name]
        self._fields[name] = field
        self._bytes += field.numel() * 4
        while self._bytes > self.limit and len(self._fields) > 1:
            self._bytes -= self._fields.popitem(last=False)[1].numel() * 4
