"""The pool that the codec and the listener learn from: loops as audio with their labels, rendered
by worker processes, and segments of them as recordings might be. A share of the loops has long
bright partials instead of its own instruments (`bright`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import load_vocabulary
from engines.imp.parallel import own_gpu
from engines.imp.training import say

SEGMENT = 2 * imp.SAMPLE_RATE
BRIGHT = 0.3
"""Share of the loops on bright instruments."""


def render_pool(
    path: Path, hours: float, limit: float, device: str, first: int, bright: float = BRIGHT
) -> None:
    """Render loops of seeds first.. until there are enough or time is up: PATH.npy (int16 [2,
    samples]) and PATH.npz (of each loop where it begins, its samples, labels and seed).
    """
    from engines.imp.bank import TAGS, label
    from engines.imp.bright import brightened
    from engines.imp.render import Renderer
    from engines.imp.score import compose

    own_gpu(device)
    vocabulary = load_vocabulary(TAGS)
    renderer, parts, rows, total = Renderer(device), [], [], 0
    seed, begin = first, time.perf_counter()
    while total < hours * 3600 * imp.SAMPLE_RATE and time.perf_counter() - begin < limit:
        songs = [compose(seed + i) for i in range(24 if device == "cuda" else 2)]
        songs = [brightened(s) if (s.seed * 0.618034) % 1 < bright else s for s in songs]
        seed += len(songs)
        for song, loop in zip(songs, renderer(songs), strict=True):
            parts.append((loop * 32767).to(torch.int16).cpu().numpy())
            rows.append((total, loop.shape[1], label(song, vocabulary), song.seed))
            total += loop.shape[1]
    columns = zip(("start", "samples", "cond", "seed"), zip(*rows, strict=True), strict=True)
    np.savez(path.with_suffix(".npz"), **{name: np.array(v) for name, v in columns})  # type: ignore[arg-type]
    with path.with_suffix(".part").open("wb") as file:
        np.save(file, np.concatenate(parts, axis=1))
    path.with_suffix(".part").rename(path.with_suffix(".npy"))
    took = time.perf_counter() - begin
    say(f"pool: {seed - first} loops, {total / 3600 / imp.SAMPLE_RATE:.2f} h in {took:.1f} s")


def start_pool(options: argparse.Namespace) -> list[multiprocessing.process.BaseProcess]:
    """Start the workers that render the pool; what is there already is kept."""
    scratch, count = Path(options.scratch), options.pool_workers
    scratch.mkdir(parents=True, exist_ok=True)
    workers = []
    for k in range(count):
        path = scratch / f"imp_pool_{k}"
        if not path.with_suffix(".npy").exists():
            first = options.first_seed + 100_000 * k
            hours, limit = options.pool_hours / count, options.pool_seconds
            job = (path, hours, limit, options.device, first, options.bright)
            context = multiprocessing.get_context("spawn")
            workers.append(context.Process(target=render_pool, args=job))
            workers[-1].start()
    return workers  # type: ignore[return-value]


def load_pool(options: argparse.Namespace) -> Tensor:
    """int16 [2, n] on the device."""
    paths = sorted(Path(options.scratch).glob("imp_pool_*.npy"))
    if not paths:
        raise RuntimeError(f"{options.scratch}: no pool was rendered")
    parts = [torch.from_numpy(np.load(path)).to(options.device) for path in paths]
    return torch.cat(parts, dim=1)


def chance(n: int, p: float, device: torch.device) -> Tensor:
    """[n, 1, 1] bool."""
    return torch.rand(n, 1, 1, device=device) < p


def augmented(pool: Tensor, batch: int, foreign: int = 0) -> Tensor:
    """Random segments [B, 2, 96000] as recordings might be: repitched, filtered, mixed, driven,
    gated, noisy, quiet, mono. The last `foreign` samples of the pool are recordings: one segment in
    eight begins there.
    """
    device = pool.device
    n = torch.arange(SEGMENT, device=device)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, device=device)

    rate = torch.where(
        chance(batch, 0.35, device), 2 ** uniform(-0.6, 0.6), torch.ones(batch, 1, 1, device=device)
    )
    own = pool.shape[1] - foreign
    start = torch.rand(batch, 1, 1, device=device) * (own - 2 * SEGMENT)
    if foreign:
        there = own + torch.rand(batch, 1, 1, device=device) * (foreign - 2 * SEGMENT)
        start = torch.where(chance(batch, 0.125, device), there, start)
    position = start.double() + n * rate.double()
    index = position.floor().long()[:, 0]
    part = (position[:, 0] - index).float()[:, None]
    x = (
        torch.lerp(
            pool[:, index].transpose(0, 1).float(), pool[:, index + 1].transpose(0, 1).float(), part
        )
        / 32767
    )
    other = x.roll(1, 0)
    x = (
        x
        + torch.where(chance(batch, 0.15, device), uniform(0.2, 0.8), torch.zeros_like(start))
        * other
    )
    x = recoloured(x)
    drive = 10 ** uniform(-0.3, 0.9)
    x = torch.where(chance(batch, 0.15, device), torch.tanh(x * drive) / drive.clamp(min=1), x)
    onset = uniform(-0.3, 1.5) * imp.SAMPLE_RATE
    since = n - onset
    gate = (since > 0) * torch.exp(-since.clamp(min=0) / (uniform(0.03, 0.7) * imp.SAMPLE_RATE))
    x = torch.where(chance(batch, 0.12, device), x * gate, x)
    floor = 10 ** uniform(-4.0, -1.9) * chance(batch, 0.2, device)
    x = x + floor * torch.randn_like(x)
    x = torch.where(chance(batch, 0.1, device), x.mean(1, keepdim=True).expand_as(x), x)
    x = torch.where(chance(batch, 0.5, device), x.flip(1), x)
    x = x * (2.0 * chance(batch, 0.5, device) - 1.0)
    quiet = torch.where(chance(batch, 0.12, device), uniform(-1.6, 0.0), torch.zeros_like(start))
    return (x * 10 ** (uniform(-0.6, 0.35) + quiet)).clamp(-1, 1)


def recoloured(x: Tensor) -> Tensor:
    """A smooth random equaliser, and low- or high-pass for some."""
    batch, device = len(x), x.device
    f = torch.fft.rfftfreq(SEGMENT, 1 / imp.SAMPLE_RATE, device=device).clamp(min=20)
    octave = torch.log2(f / 1000)
    curve = sum(
        torch.randn(batch, 1, 1, device=device)
        * 4.0
        * torch.cos(octave * w + 6.3 * torch.rand(batch, 1, 1, device=device))
        for w in (0.35, 0.9, 1.8)
    )
    gain = 10 ** (torch.where(chance(batch, 0.4, device), curve, torch.zeros_like(curve)) / 20)  # type: ignore[arg-type]
    cut = 2000 * 2 ** (3 * torch.rand(batch, 1, 1, device=device))
    low = torch.where(chance(batch, 0.15, device), 1 / (1 + (f / cut) ** 6), torch.ones_like(gain))
    edge = 60 * 2 ** (3 * torch.rand(batch, 1, 1, device=device))
    high = torch.where(
        chance(batch, 0.08, device), 1 / (1 + (edge / f) ** 4), torch.ones_like(gain)
    )
    wall = 7000 * 2 ** (1.5 * torch.rand(batch, 1, 1, device=device))
    low = torch.where(chance(batch, 0.12, device), torch.sigmoid((wall - f) / 60), low)
    return torch.fft.irfft(torch.fft.rfft(x) * gain * low * high, SEGMENT)
