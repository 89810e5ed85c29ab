"""Exact windows of a latent's audio.

A decoder depends on a bounded number of latent frames around each output frame: its margin (9 for
Oobleck, 8 for imp). A window decoded with that much context on both sides equals the same stretch
of the whole decode. A loop has no ends: its windows gather frames around the seam.

Threads: a WindowDecoder may be used from one thread at a time, beside the ring's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from demon_live.core import RATES, Floats
from demon_live.errors import EngineError

#: 24 dB over full scale, where the mixer would turn samples into silence: no window means that.
_LOUDEST = 16.0

#: latent float32 [B, F, C] -> audio float32 [B, F * hop, 2]
Decode = Callable[[Floats], Floats]


def sound(audio: Floats) -> bool:
    """Whether these are samples that may be heard: finite, and not absurdly loud."""
    return bool(np.abs(audio).max(initial=0.0) <= _LOUDEST)  # False for NaN, too


class WindowDecoder:
    """Decodes stretches of latents with enough context to be exact.

    margin: frames of context on each side that make a stretch exact. window: interior frames of
    every call of the decoder, so that it only ever gets the shape [1, window + 2 margin, C] (one
    compiled graph); a longer stretch takes several calls. None: one call of whatever size. width:
    channels that `decode` gives.
    """

    def __init__(
        self,
        decode: Decode,
        margin: int,
        hop: int = RATES.hop,
        window: int | None = None,
        width: int = 2,
    ) -> None:
        if margin < 0 or (window is not None and window < 1):
            raise EngineError(f"no window of {window} frames with a margin of {margin}")
        self.margin, self.hop, self.size = margin, hop, window
        self._decode, self._width = decode, width
        #: Bytes of decoded sound that are kept, for latents that come again.
        self.keep = 0
        self._kept: OrderedDict[tuple[int, int, int], tuple[Floats, Floats]] = OrderedDict()
        self._bytes = 0

    def again(self, latent: Floats, start: int, frames: int) -> Floats:
        """As `window`, cyclic, from what is kept if it can be; not to be written to."""
        key = id(latent), start % len(latent), frames
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][1]
        audio = self.window(latent, start, frames)
        if not sound(audio):
            # The next call may give what can be heard.
            return audio
        # The latent is held, so that its id stays its own.
        self._kept[key] = latent, audio
        self._bytes += audio.nbytes
        while self._bytes > self.keep:
            _, (_, old) = self._kept.popitem(last=False)
            self._bytes -= old.nbytes
        return audio

    def window(self, latent: Floats, start: int, frames: int, cyclic: bool = True) -> Floats:
        """Decode the frames start..start+frames of a latent.

        Args:
            latent: float32 [T, C].
            cyclic: count frames modulo T, with context from across the seam. Otherwise the stretch
                must lie in 0..T, and its ends are those of the whole decode.

        Returns:
            float32 [frames * hop, 2].
        """
        total = len(latent)
        if frames < 0 or (not cyclic and not 0 <= start <= start + frames <= total):
            raise EngineError(f"no frames {start}..{start + frames} in a latent of {total}")
        size = self.size or max(1, frames)
        pieces = [
            self._piece(latent, start + at, min(size, frames - at), size, cyclic)
            for at in range(0, frames, size)
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, self._width), dtype=np.float32)

    def full(self, latent: Floats, cyclic: bool = True) -> Floats:
        """Audio of the whole latent, float32 [T * hop, 2]."""
        return self.window(latent, 0, len(latent), cyclic)

    def _piece(self, latent: Floats, start: int, frames: int, size: int, cyclic: bool) -> Floats:
        """At most `size` frames with one call of the decoder."""
        first, span = start - self.margin, size + 2 * self.margin
        if cyclic:
            index = np.arange(first, first + span) % len(latent)
        else:
            # Move the span inward: the decoder's own edge is then the latent's edge.
            first = max(0, min(first, len(latent) - span))
            index = np.arange(first, min(first + span, len(latent)))
        audio = self._call(latent[index])
        at = (start - first) * self.hop
        return audio[at : at + frames * self.hop]

    def _call(self, frames: NDArray[np.float32]) -> Floats:
        batch = np.ascontiguousarray(frames[None], dtype=np.float32)
        audio: Floats = np.asarray(self._decode(batch), dtype=np.float32)
        if audio.shape != (1, len(frames) * self.hop, self._width):
            raise EngineError(
                f"the decoder made {audio.shape} of {batch.shape}",
                hint=f"expected (1, {len(frames) * self.hop}, {self._width})",
            )
        whole: Floats = audio[0]
        return whole
