"""The source's own detail: what a codec loses of it comes back where the source is still there.

A decoded latent is not the sound it was encoded from, even where nothing was changed. So the
remainder of the source, the sound less its own decode, is added frame by frame, in proportion to
how near the generated latent is to the latent of the source. Where both are equal the samples of
the source themselves are written.

An engine with `decode_parts` tells tones, whose phase follows the latent, from noise, whose level
alone does: there the remainder is that to the tones, and the noise makes way by power, so that
highs neither pile up nor sink.

Threads: belongs to the engine loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demon_live.core import Floats
from demon_live.engine.decode import Decode, WindowDecoder

#: Distance of two frames, rms over channels, at which nothing of the source is left.
REACH = 1.2
#: Samples in which the sound goes over to the source itself, behind a border: 20 ms.
FADE = 960
#: Latents whose frames are remembered.
_KEPT = 64


class DetailDecoder:
    """Decodes windows of one loop with the detail of its source.

    Args:
        engine: has `decode`, `margin`, `window`, perhaps `decode_parts`.
        latent: of the source, float32 [T, C].
        audio: the source, float32 [n, 2]. Its latent may cover a little more than it: there the
            source goes round sooner.
    """

    def __init__(self, engine: Any, latent: Floats, audio: Floats) -> None:
        self.plain = WindowDecoder(engine.decode, engine.margin)
        parts: Decode | None = getattr(engine, "decode_parts", None)
        self._split = parts is not None
        self._parts = self.plain if parts is None else WindowDecoder(parts, engine.margin, width=4)
        self._latent, self._audio = latent, audio
        self._size = max(1, engine.window)
        #: By stretches of `size` frames; each is decoded once.
        self._remainders: dict[int, Floats] = {}
        #: By id of a latent, which is held: detail of each frame, and weight of the source there.
        self._details: OrderedDict[int, tuple[Floats, Floats]] = OrderedDict()

    def note(self, latent: Floats, curves: Mapping[str, Floats], default: float) -> None:
        """A generation is finished. curves: those that it was made with."""
        if id(latent) in self._details:
            return
        detail = np.broadcast_to(curves.get("detail", default), (len(latent),))
        apart = np.sqrt(np.mean(np.square(latent - self._latent), axis=1))
        apart = np.maximum(apart, np.maximum(np.roll(apart, 1), np.roll(apart, -1)))
        weights = detail * np.maximum(0.0, 1.0 - apart / REACH)
        self._details[id(latent)] = latent, weights.astype(np.float32)
        while len(self._details) > _KEPT:
            self._details.popitem(last=False)

    def forget(self) -> None:
        """Take the remainders of the source again: they were not made by the model."""
        self._remainders.clear()

    def again(self, latent: Floats, start: int, frames: int) -> Floats:
        """As `WindowDecoder.again`, with the detail that was noted for this latent."""
        _, weights = self._details.get(id(latent), (latent, None))
        # A border may lie beside the window.
        index = np.arange(start - 1, start + frames + 1) % len(latent)
        if weights is None or not weights[index].any():
            return self.plain.again(latent, start, frames)
        hop = self.plain.hop
        near = weights[index]
        source = self._source(start * hop, frames * hop)
        exact = _ramp(near == 1.0, hop)
        if exact.min() == 1.0:
            return source
        made = self._parts.again(latent, start, frames)
        places = np.arange(frames * hop, dtype=np.float32) / np.float32(hop) + np.float32(0.5)
        w = np.interp(places, np.arange(len(near)), near).astype(np.float32)[:, None]
        mixed = made[:, :2] + w * self._remainder(start, frames)
        if self._split:
            mixed += np.sqrt(1.0 - w * w) * made[:, 2:]
        out: Floats = np.where(exact == 1.0, source, mixed + exact * (source - mixed))
        return out

    def _source(self, at: int, n: int) -> Floats:
        """Samples at, at + 1, ... of the source, which goes round."""
        index = np.arange(at, at + n)
        whole: Floats = self._audio.take(index, axis=0, mode="wrap")
        return whole

    def _remainder(self, start: int, frames: int) -> Floats:
        """The source less what the codec makes of it, or less its tones."""
        hop, total = self.plain.hop, len(self._latent)
        pieces = []
        while frames > 0:
            block, at = divmod(start % total, self._size)
            first = block * self._size
            if block not in self._remainders:
                size = min(self._size, total - first)
                made = self._parts.window(self._latent, first, size)[:, :2]
                self._remainders[block] = self._source(first * hop, size * hop) - made
            piece = self._remainders[block][at * hop : (at + frames) * hop]
            pieces.append(piece)
            start, frames = start + len(piece) // hop, frames - len(piece) // hop
        return np.concatenate(pieces)


def _ramp(exact: NDArray[np.bool_], hop: int) -> Floats:
    """Share of the source itself, float32 [n * hop, 1], of frames 1 .. n of n + 2: 1 where they
    are exact, but for the fade behind a border."""
    inner = np.repeat(exact[1:-1], hop).astype(np.float32)
    rise = (np.arange(FADE, dtype=np.float32) + 0.5) / FADE
    for i in np.flatnonzero(exact[1:-1]):
        if not exact[i]:
            inner[i * hop : i * hop + FADE] *= rise
        if not exact[i + 2]:
            inner[(i + 1) * hop - FADE : (i + 1) * hop] *= rise[::-1]
    return inner[:, None]
