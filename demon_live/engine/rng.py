"""Counter-based Gaussian noise: a function of (seed, purpose, step, frame, channel).

No generator has a state, so noise depends neither on neighbours, depth, order and batch nor on
how many frames a loop has: frame i is the same in every length. The bits come from the finaliser
of SplitMix64 (Steele, Lea, Flood 2014) over a Weyl sequence that starts at a hashed key. A normal
number is the scaled sum of two entries of a table of 65,536 Gaussian quantiles: integer
arithmetic, look-ups and one addition, hence the same bits on a CPU and on a GPU; the tail ends at
6 sigma.

Threads: pure functions; a NoiseCache belongs to one thread.
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
from demon_live.engine.border import upload

__all__ = ["BIRTH", "MASK", "MIGRATE", "STEP", "NoiseCache", "key", "normal", "normal_on"]

#: What a noise is for; part of its key.
BIRTH: Final = 1
STEP: Final = 2
MASK: Final = 3
MIGRATE: Final = 4

_M64: Final = (1 << 64) - 1
_GAMMA: Final = 0x9E3779B97F4A7C15
_MUL1: Final = 0xBF58476D1CE4E5B9
_MUL2: Final = 0x94D049BB133111EB
_LEVELS: Final = 1 << 16
_PIECE: Final = 1 << 13


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
    """Midpoint quantiles of a Gaussian, scaled so that the sum of two has unit variance."""
    inverse = NormalDist().inv_cdf
    half = np.array([inverse((i + 0.5) / _LEVELS) for i in range(_LEVELS // 2)])
    table = np.concatenate([half, -half[::-1]])
    table /= np.sqrt(2.0 * np.mean(table**2))
    return np.asarray(table, dtype=np.float32)


@lru_cache(maxsize=16)
def _weyl(pairs: int) -> NDArray[np.uint64]:
    """(i + 1) * gamma mod 2^64 for i < pairs: the counter part of every field of this size."""
    return np.arange(1, pairs + 1, dtype=np.uint64) * np.uint64(_GAMMA)


def normal(field_key: int, frames: int, channels: int) -> Floats:
    """Standard normal float32 [frames, channels] of a key, made on the host."""
    half = (channels + 1) // 2
    weyl, seed = _weyl(frames * half), np.uint64(field_key)
    pairs = np.empty((len(weyl), 2), dtype=np.float32)
    # In pieces that stay in the cache: several times as fast as all at once.
    for start in range(0, len(weyl), _PIECE):
        part = slice(start, start + _PIECE)
        word = weyl[part] + seed
        _finalise(word)
        index = word.view("<u2").astype(np.intp)
        # Every 16-bit number is in the table: "clip" only spares the check.
        picks = _quantiles().take(index, mode="clip").reshape(-1, 2, 2)
        np.add(picks[..., 0], picks[..., 1], out=pairs[part])
    return np.ascontiguousarray(pairs.reshape(frames, 2 * half)[:, :channels])


def _finalise(word: NDArray[np.uint64]) -> None:
    """`_mix` of an array, in place."""
    scratch = np.empty_like(word)
    for shift, factor in ((30, _MUL1), (27, _MUL2)):
        np.right_shift(word, np.uint64(shift), out=scratch)
        word ^= scratch
        word *= np.uint64(factor)
    np.right_shift(word, np.uint64(31), out=scratch)
    word ^= scratch


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


@lru_cache(maxsize=16)
def _device_tables(pairs: int, device: str) -> tuple[Tensor, Tensor]:
    weyl = torch.from_numpy(_weyl(pairs).view(np.int64).copy()).to(device)
    return weyl, torch.from_numpy(_quantiles().copy()).to(device)


def normal_on(keys: Tensor, frames: int, channels: int) -> Tensor:
    """`normal` for n keys (int64 [n]) on the keys' device: float32 [n, frames, channels].

    The same bits as `normal`; no host synchronisation, fixed shapes, so it can be captured.
    """
    half = (channels + 1) // 2
    weyl, table = _device_tables(frames * half, str(keys.device))
    word = weyl + keys[:, None]
    for shift, factor in ((30, _MUL1), (27, _MUL2)):
        # `>>` on int64 keeps the sign: mask it to the logical shift that the hash means.
        word = (word ^ ((word >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    word = word ^ ((word >> 31) & ((1 << 33) - 1))
    # Least significant 16 bits first, as a little-endian host reads them.
    index = torch.stack([(word >> s) & 0xFFFF for s in (0, 16, 32, 48)], dim=-1)
    picks = table[index].view(len(keys), frames, 2 * half, 2)
    return (picks[..., 0] + picks[..., 1])[..., :channels].contiguous()


class NoiseCache:
    """Noise fields on one device, as many as `limit` bytes hold; the least used goes first.

    A held seed is the common case, so that most ticks generate nothing.
    """

    def __init__(self, device: torch.device, limit: int = 96 << 20) -> None:
        self.device = device
        self.limit = limit
        self._fields: OrderedDict[tuple[int, int, int], Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, field_key: int, frames: int, channels: int) -> Tensor:
        """float32 [frames, channels] on the device; never write to it."""
        return self.many([field_key], frames, channels)[0]

    def many(self, keys: Sequence[int], frames: int, channels: int) -> list[Tensor]:
        """`get` for several keys; what is missing is made at once."""
        missing = list(
            dict.fromkeys(key for key in keys if (key, frames, channels) not in self._fields)
        )
        made = dict(zip(missing, self._make(missing, frames, channels), strict=True))
        fields = [made[key] if key in made else self._fields[key, frames, channels] for key in keys]
        for key, field in zip(keys, fields, strict=True):
            self._keep((key, frames, channels), field)
        return fields

    def _make(self, keys: Sequence[int], frames: int, channels: int) -> list[Tensor]:
        if self.device.type == "cpu" or not keys:
            return [torch.from_numpy(normal(key, frames, channels)) for key in keys]
        signed = upload(np.array([_signed(key) for key in keys]), self.device)
        # Clones: a view would keep the whole batch alive when its neighbours have gone.
        return [field.clone() for field in normal_on(signed, frames, channels)]

    def _keep(self, name: tuple[int, int, int], field: Tensor) -> None:
        if name in self._fields:
            self._fields.move_to_end(name)
            return
        self._fields[name] = field
        self._bytes += field.numel() * 4
        while self._bytes > self.limit and len(self._fields) > 1:
            self._bytes -= self._fields.popitem(last=False)[1].numel() * 4
