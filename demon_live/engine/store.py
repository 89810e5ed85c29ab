"""Finished generations by what they were made from, so that none is made twice.

A generation is a pure function of its request while its curves are its own (`Request.curves`):
noise is counter-based, and rows do not depend on their neighbours. Equal keys mean equal latents.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from demon_live.core import Floats, Request

#: Digests of arrays that come with many requests, by id; the array is kept, so its id is its own.
_digests: OrderedDict[int, tuple[Floats, bytes]] = OrderedDict()
_REMEMBERED = 16


class RingStats(NamedTuple):
    """made: generations that were computed. from_store: that were taken from the store instead.
    resting: nothing is in flight."""

    made: int
    from_store: int
    resting: bool


def key_of(request: Request, steps: int, shift: float) -> bytes | None:
    """The key of a request that is made in `steps` steps, with `shift` if it names none.

    None where the result depends on more than the request: shared curves, feedback, or a
    condition that has no identity.
    """
    if request.identity is None or request.curves is None or request.feedback:
        return None
    plain = (
        request.identity,
        (request.frames, request.channels, steps, request.cfg),
        (float(request.denoise).hex(), request.seed),
        (float(request.drift).hex(), request.turn) if request.drift else (),
        float(shift if request.shift is None else request.shift).hex(),
    )
    found = hashlib.blake2b(repr(plain).encode(), digest_size=20)
    arrays = {"source": request.source, "target": request.target}
    for name, array in arrays.items():
        found.update(name.encode() + (b"-" if array is None else _digest(array)))
    curves: Mapping[str, Floats | None] = {
        **request.curves,
        "init": request.init,
        "mask": request.mask,
    }
    for name in sorted(curves):
        curve = curves[name]
        found.update(name.encode() + (b"-" if curve is None else curve.tobytes()))
    for _, weight, first, last in request.conditions:
        found.update(repr((float(first), float(last))).encode())
        found.update(np.asarray(weight, np.float32).tobytes())
    return found.digest()


def _digest(array: Floats) -> bytes:
    known = _digests.get(id(array))
    if known is None or known[0] is not array:
        known = (
            array,
            hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=20).digest(),
        )
        _digests[id(array)] = known
        while len(_digests) > _REMEMBERED:
            _digests.popitem(last=False)
    return known[1]


class Store:
    """Latents by key, the least recently used go first.

    Args:
        most: bytes that are kept; 0 = none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._latents: OrderedDict[bytes, Floats] = OrderedDict()
        self._bytes = 0

    def clear(self) -> None:
        """Keep nothing."""
        self._latents.clear()
        self._bytes = 0

    def get(self, key: bytes | None) -> Floats | None:
        """The latent of a key."""
        if key is None or key not in self._latents:
            return None
        self._latents.move_to_end(key)
        return self._latents[key]

    def put(self, key: bytes | None, latent: Floats) -> None:
        """Keep a latent; it must not be written to afterwards."""
        if key is None or key in self._latents:
            return
        self._latents[key] = latent
        self._bytes += latent.nbytes
        while self._bytes > self._most:
            _, old = self._latents.popitem(last=False)
            self._bytes -= old.nbytes
