"""Velocity models, requests and shared values for the engine's tests: exact, rows independent."""

import numpy as np
import torch

from demon_live.engine import Request, Ring

torch.set_num_threads(1)  # a second thread only waits, on tensors this small

T, C = 24, 6


class Linear:
    """v = a x + b t: every row for itself."""

    def velocity(self, x, t, rows):
        return 0.3 * x + 0.1 * t[:, None, None]


class Constant:
    def __init__(self, value=0.7):
        self.value = value

    def velocity(self, x, t, rows):
        return torch.full_like(x, self.value)


class Recorder:
    """Notes (slot, step, t, shared) of every row and the input of every call."""

    def __init__(self, inner=None):
        self.inner = inner or Linear()
        self.calls = []

    def velocity(self, x, t, rows):
        self.calls.append(
            [
                (r, float(level), x[i].clone())
                for i, (r, level) in enumerate(zip(rows, t, strict=True))
            ]
        )
        return self.inner.velocity(x, t, rows)

    def levels(self):
        seen = {}
        for call in self.calls:
            for row, level, _ in call:
                seen.setdefault(row.slot, []).append(level)
        return seen


def source(seed=0, frames=T, channels=C):
    return np.random.default_rng(seed).normal(size=(frames, channels)).astype(np.float32)


def request(seed=0, **more):
    frames, channels = more.get("frames", T), more.get("channels", C)
    more = {"denoise": 0.6, "source": source(1, frames, channels), **more}
    return Request(**{"frames": frames, "channels": channels, "seed": seed, **more})


def alone(req, model=None, steps=8, shift=3.0, shared=None, **ring):
    """The latent of one request, with nothing beside it."""
    it = Ring(model or Linear(), steps=steps, depth=1, shift=shift, **ring)
    for name, value in (shared or {}).items():
        it.share(name, value)
    it.submit(req)
    (generation,) = it.flush()
    return generation.latent


def play(it, ticks, make):
    """Tick with a fresh request whenever one is wanted. make(count, deck) -> Request."""
    out, count = [], 0
    for _ in range(ticks):
        for deck in it.wants() or (["main"] if not it.in_flight else []):
            it.submit(make(count, deck))
            count += 1
        out.append(it.tick())
    return out


def same(a, b):
    return np.array_equal(a, b)


def variety(n, deck="main"):
    """Requests that differ in everything that a slot owns."""
    curve = np.linspace(0, 1, T, dtype=np.float32)
    return request(
        n,
        denoise=(n * 0.37) % 1.0,
        shift=1.0 + n % 4,
        deck=deck,
        source=source(n) if n % 5 else None,
        init=curve if n % 3 == 1 else None,
        mask=curve if n % 4 == 3 else None,
        target=source(90 + n) if n % 2 else None,
        conditions=((None, curve, 0.0, 0.6),) if n % 3 == 0 else (),
        cfg=["off", "full", "self", "initialize"][n % 4],
    )


SHARED = {
    "blend": np.linspace(0, 1, T, dtype=np.float32),
    "velocity": 0.9,
    "morph": 0.3,
    "guide": 2.0,
    "momentum": -0.5,
    "rescale": 0.4,
    "energy": 1.2,
}
