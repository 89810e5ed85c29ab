"""The bank the flow model learns from: rendered loops as latents, in pairs, with labels.

Each entry is one score played by two kits, encoded from several starting points round the loop, so
that the bar phase of every frame is exact. The first rendering is what is learnt; the second is
what cover mode starts from, half of them degraded as recordings are. In a share of the entries the
first kit belongs to another genre than the score: these are only ever shown together with their
source, or with a timbre reference.

Entries come in couples: two scores and two kits, each score on each kit. So every target has a loop
of another score (and nearly always another key) on its own kit beside it, at no cost: that is its
timbre reference.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from demon_live.models.imp import timbre as imp_timbre
from demon_live.models.imp.labels import (
    COND,
    TIMBRE,
    Floats,
    Vocabulary,
    condition,
    load_vocabulary,
)
from engines.imp.genres import GENRES
from engines.imp.lanes import lanes
from engines.imp.parallel import own_gpu
from engines.imp.render import Renderer, nice_size
from engines.imp.score import Song, compose

FRAMES = 400
"""Frames of an entry (padded); loops last at most 16 s."""
TURNS = 2
"""Starting points that each loop is encoded from."""
CROSS = 0.3
"""Share of the pairs whose target wears another genre's kit."""
PARTS, SHORTEST = 4, 2.0
"""Timbre references of a loop; seconds of the shortest stretch."""
ALIKE = 0.4
"""Share of the couples whose two scores are of one genre."""
TAGS = Path(__file__).parent / "tags.toml"


@dataclass
class Bank:
    """Latents half [N, TURNS, 2, FRAMES, C] (target, source) and labels; offset in bars [N,
    TURNS]; lanes half [N, TURNS, FRAMES, LANES], all told, zeros where none are known.

    cond, other: labels of target and source. mate: steps to the other entry of its couple, 0 if it
    has none. timbre half [N, 2, PARTS, 128]: how target and source sound, not degraded: all of the
    loop, then stretches of it.
    """

    latent: Tensor
    cond: Tensor
    other: Tensor
    bpm: Tensor
    bars: Tensor
    frames: Tensor
    cross: Tensor
    offset: Tensor
    mate: Tensor
    timbre: Tensor
    lanes: Tensor

    def to(self, device: str) -> Bank:
        return Bank(*(x.to(device) for x in vars(self).values()))

    def save(self, path: Path) -> None:
        torch.save(vars(self), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    @staticmethod
    def load(paths: list[Path]) -> Bank:
        """Several files as one bank."""
        parts = [torch.load(path, mmap=True) for path in paths]
        return Bank(**{key: torch.cat([part[key] for part in parts]) for key in parts[0]})

    def phase(self, index: Tensor, turn: Tensor, frames: int = FRAMES) -> Tensor:
        """Musical position of the frames of entries `index` from starting points `turn`: [B,
        frames, 2].
        """
        n = torch.arange(frames, device=index.device)
        bar = self.offset[index, turn][:, None] + n * self.bpm[index][:, None] / (
            240.0 * imp.FRAME_HZ
        )
        return torch.stack([bar, bar / self.bars[index][:, None]], dim=-1)


def noise(count: int, channels: int = imp.CHANNELS) -> Bank:
    """A bank of noise, to compile on."""
    ones = torch.ones(count)
    latent = torch.randn(count, TURNS, 2, FRAMES, channels).half()
    frames = torch.full((count,), FRAMES)
    crossed = torch.zeros(count, dtype=torch.bool)
    return Bank(
        latent,
        torch.zeros(count, COND),
        torch.zeros(count, COND),
        120 * ones,
        8 * ones,
        frames,
        crossed,
        torch.zeros(count, TURNS),
        torch.zeros(count, dtype=torch.long),
        torch.randn(count, 2, PARTS, TIMBRE).half(),
        torch.rand(count, TURNS, FRAMES, imp.LANES).half(),
    )


def pair(seed: int) -> tuple[Song, Song, bool]:
    """(target, source, crossed) of a seed: one score, two kits."""
    r = random.Random(f"pair {seed}")
    crossed = r.random() < CROSS
    genres = list(GENRES)
    plain = compose(seed)
    other = r.choice(genres) if crossed or r.random() < 0.5 else plain.genre
    dressed = compose(seed, plain.genre, kit_seed=seed + 50_000_000, kit_genre=other)
    return (dressed, plain, True) if crossed else (plain, dressed, False)


def couple(seed: int) -> list[tuple[Song, Song, bool]]:
    """(target, source, crossed) of two entries: the scores of seeds `seed` and `seed` + 1, each on
    the kits of both."""
    r = random.Random(f"couple {seed}")
    first = compose(seed, steady=True)
    genre = first.genre if r.random() < ALIKE else None
    second = compose(seed + 1, genre, steady=True)
    rows = []
    for own, kit in ((first, second), (second, first)):
        dressed = compose(own.seed, own.genre, kit_seed=kit.seed, kit_genre=kit.genre, steady=True)
        crossed = own.genre != kit.genre and r.random() < CROSS / (1 - ALIKE)
        rows.append((dressed, own, True) if crossed else (own, dressed, False))
    return rows


def drawn(first: int, count: int, couples: bool) -> list[tuple[Song, Song, bool]]:
    """`count` entries from seed `first` on; an odd last one is a couple's half, and stays alone."""
    if not couples:
        return [pair(first + i) for i in range(count)]
    return [row for i in range(0, count, 2) for row in couple(first + i)][:count]


def degraded(loop: Tensor, r: random.Random) -> Tensor:
    """A loop [2, n] as a recording: equalised, band-limited, driven, with a noise floor. Stays
    circular.
    """
    n, edge = loop.shape[1], imp.SAMPLE_RATE // 8
    size = nice_size(n + 2 * edge)
    around = loop[:, (torch.arange(size, device=loop.device) - edge) % n]
    f = torch.fft.rfftfreq(size, 1 / imp.SAMPLE_RATE, device=loop.device).clamp(min=20)
    octave = torch.log2(f / 1000)
    curve = sum(
        r.gauss(0, 3.0) * torch.cos(octave * w + r.uniform(0, 6.3)) for w in (0.4, 1.0, 1.7)
    )
    gain = 10 ** (torch.as_tensor(curve, device=loop.device) / 20)
    if r.random() < 0.4:
        gain = gain / (1 + (f / r.uniform(2500, 12000)) ** 6)
    y = torch.fft.irfft(torch.fft.rfft(around) * gain, size)[:, edge : edge + n]
    if r.random() < 0.3:
        y = torch.tanh(y * 3) / 3
    if r.random() < 0.3:
        y = y + 10 ** r.uniform(-3.5, -2) * torch.randn_like(y)
    return (y * 10 ** r.uniform(-0.4, 0.2)).clamp(-1, 1)


def sounds(loop: Tensor, r: random.Random) -> Tensor:
    """Timbre references of a loop [2, n]: of the whole, then of random stretches, [PARTS, 128]."""
    power = imp_timbre.levels(loop)
    count = power.shape[-1]
    rows = [imp_timbre.statistics(power)]
    at = torch.arange(count, device=loop.device)
    for _ in range(PARTS - 1):
        least = min(count, int(SHORTEST * 100))
        length, begin = r.randint(least, count), r.randrange(count)
        rows.append(imp_timbre.statistics(power, (at - begin) % count < length))
    return torch.stack(rows)


def encode(encoder: imp.ImpEncoder, loops: list[Tensor], starts: list[int]) -> Tensor:
    """Loops from the given start samples -> latents [B, FRAMES, C], context wrapped."""
    edge = imp.MARGIN * imp.HOP
    n = torch.arange(-edge, FRAMES * imp.HOP + edge, device=loops[0].device)
    audio = torch.stack([x[:, (n + s) % x.shape[1]] for x, s in zip(loops, starts, strict=True)])
    with torch.autocast(audio.device.type, torch.bfloat16, enabled=audio.is_cuda):
        return encoder(audio)[:, imp.MARGIN : -imp.MARGIN].float()


def load_encoder(codec: Path, device: str) -> imp.ImpEncoder:
    """The encoder of a folder of codec weights."""
    from engines.imp.training import load_shards

    return imp.codec_of(load_shards(codec, "codec"))[0].to(device)


def rows_of_lanes(song: Song, frames: int, starts: list[int]) -> Tensor:
    """What can be told of a song's notes from each start, half [TURNS, FRAMES, LANES]."""
    rows = torch.zeros(len(starts), FRAMES, imp.LANES)
    for row, start in zip(rows, starts, strict=True):
        row[:frames] = torch.from_numpy(lanes(song, frames, start))
    return rows.half()


Target: TypeAlias = tuple[Path, Path]
"""Folder of a codec, file of its bank."""


@torch.no_grad()
def build(
    targets: list[Target],
    first: int,
    count: int,
    limit: float,
    device: str,
    couples: bool = True,
    batch: int = 12,
) -> None:
    """Render entries of seeds first.. until `count` or `limit` seconds; encode them by each codec
    and write its file.
    """
    from engines.imp.training import say

    own_gpu(device)
    torch.backends.cuda.matmul.allow_tf32 = True
    if device == "cuda":
        torch.backends.cuda.cufft_plan_cache[0].max_size = 32  # plans hold memory
    begin, renderer, vocabulary = time.perf_counter(), Renderer(device), load_vocabulary(TAGS)
    encoders = [load_encoder(codec, device) for codec, _ in targets]
    latents: list[list[Tensor]] = [[] for _ in targets]
    labels: list[tuple[Floats, Floats, float, float, int, bool, list[float], int]] = []
    heard: list[Tensor] = []
    notes: list[Tensor] = []
    done = 0
    while done < count and (not done or time.perf_counter() - begin < limit):
        pairs = drawn(first + done, min(batch, count - done), couples)
        done += len(pairs)
        loops = renderer([song for target, source, _ in pairs for song in (target, source)])
        r = random.Random(f"bank {first + done}")
        timbre = torch.stack([sounds(x, random.Random(f"{done} {i}")) for i, x in enumerate(loops)])
        heard.append(timbre.view(len(pairs), 2, PARTS, -1).half().cpu())
        loops = [degraded(x, r) if i % 2 and r.random() < 0.5 else x for i, x in enumerate(loops)]
        starts = [
            [0 if turn == 0 else r.randrange(loops[2 * i].shape[1]) for i in range(len(pairs))]
            for turn in range(TURNS)
        ]
        for encoder, made in zip(encoders, latents, strict=True):
            turns = [encode(encoder, loops, [s for s in row for _ in (0, 1)]) for row in starts]
            shape = (len(pairs), 2, FRAMES, encoder.channels)
            made.append(torch.stack([x.view(shape) for x in turns], 1).half().cpu())
        for i, (target, source, crossed) in enumerate(pairs):
            frames = min(FRAMES, imp.loop_frames(target.bars, target.bpm))
            notes.append(rows_of_lanes(target, frames, [row[i] for row in starts]))
            offset = [row[i] / imp.SAMPLE_RATE * target.bpm / 240 for row in starts]
            alone = not couples or (i % 2 == 0 and i + 1 == len(pairs))
            mate = 0 if alone else 1 - 2 * (i % 2)
            both = label(target, vocabulary), label(source, vocabulary)
            labels.append((*both, target.bpm, target.bars, frames, crossed, offset, mate))
    cond, other, bpm, bars, count_, *rest = zip(*labels, strict=True)
    columns = (
        *(torch.from_numpy(np.stack(column)) for column in (cond, other)),
        *(torch.tensor([float(v) for v in column]) for column in (bpm, bars)),
        *(torch.tensor(column) for column in (count_, *rest)),
    )
    for (_, path), made in zip(targets, latents, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Bank(torch.cat(made), *columns, torch.cat(heard), torch.stack(notes)).save(path)  # type: ignore[call-arg]
        say(f"bank {path}: {done} pairs, {sum(count_) / 90000:.2f} h,", took(begin))


def took(begin: float) -> str:
    """Seconds since `begin`, in words."""
    return f"in {time.perf_counter() - begin:.1f} s"


def label(song: Song, vocabulary: Vocabulary) -> Floats:
    """Condition vector of a song."""
    key = (song.key, vocabulary.modes.index(song.mode))
    return condition(
        vocabulary, dict.fromkeys(song.tags, 1.0), key=key, bpm=song.bpm, bars=song.bars
    )
