"""Loops, generations of one level, and their placement with a decoder that holds frames."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from demon_live.core import Floats, Generation, Loop, Request
from demon_live.runtime.placement import DeckPlacement
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap

WINDOW = 25


def loop(bpm: str = "133.7", cycles: int = 3) -> Loop:
    deck = DeckState("main", cycles=cycles)
    return make_loop(deck, TempoMap.start(Fraction(bpm)), Fraction(0), 1)


def hold(latent: Floats, first: int, frames: int) -> Floats:
    """A decoder whose audio is the latent's first channel, held for a frame."""
    rows = latent[np.arange(first, first + frames) % len(latent), 0]
    return np.repeat(np.repeat(rows, 1920)[:, None], 2, axis=1).astype(np.float32)


def generation(level: float, hear_from: int = 0, at: Loop | None = None) -> Generation:
    s = at or loop()
    latent = np.full((s.frames, 1), level, np.float32)
    request = Request(s.frames, 1, epoch=s.epoch, hear_from=hear_from)
    return Generation(latent, request, (), 0, 0)


def placement(s: Loop, buffer: Floats | None = None) -> DeckPlacement:
    buffer = np.zeros((s.samples, 2), np.float32) if buffer is None else buffer
    return DeckPlacement(s, buffer, hold, WINDOW)


def heard(s: Loop, buffer: Floats, begin: int, n: int) -> Floats:
    out = []
    while n > 0:
        lap, position = s.locate(begin)
        m = min(n, s.lap_start(lap + 1) - begin)
        out.append(buffer[position : position + m])
        begin, n = begin + m, n - m
    return np.concatenate(out)
