"""An ear of its own: `python -m engines.imp.listener --scratch DIR --out DIR [--seconds 60]`.

Audio of a loop -> tags, key and a 128-number embedding. It shares nothing with the codec, so it
judges any weights alike, and renders, samples and covers alike. Learns from the pool that
`train_codec` leaves in DIR (audio with the labels of its score), gently equalised, quieter and
noisier at random; never from anything that went through a codec.

    levels   128 mel bands of mid and side, 50 a second           -> genre and other tags
    pitches  quarter tones from 41 Hz, seven octaves, 12 a second -> key; the octaves are folded and
             the rest is the same for every key, so that twelve keys are learnt as one
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demon_live.models.imp import model as imp
from engines.imp.measure import mel_bank
from engines.imp.training import say

TAGS, GENRES, KEYS = 96, 14, 12
SECONDS = 8
OCTAVES, STEPS, LOWEST = 7, 24, 41.2034
"""The pitches: quarter tones from E1."""
LONG = 16_384
SR = imp.SAMPLE_RATE


def pitch_bank() -> Tensor:
    """Triangles round every quarter tone, at least three bins of 2.93 Hz wide, [168, LONG/2+1]."""
    f = torch.arange(LONG // 2 + 1) * (SR / LONG)
    centre = LOWEST * 2 ** (torch.arange(OCTAVES * STEPS) / STEPS)
    reach = (centre * (2 ** (1 / STEPS) - 1)).clamp(min=1.5 * SR / LONG)
    rows = (1 - (f[None] - centre[:, None]).abs() / reach[:, None]).clamp(min=0)
    return rows / rows.sum(1, keepdim=True)


class Listener(nn.Module):
    """audio [B, 2, 384000] -> logits of tags [B, 96] and of keys [B, 12], embedding [B, 128]."""

    mel: Tensor
    pitch: Tensor
    short: Tensor
    long: Tensor

    def __init__(self, width: int = 160) -> None:
        super().__init__()
        self.register_buffer("mel", mel_bank(), persistent=False)
        self.register_buffer("pitch", pitch_bank(), persistent=False)
        self.register_buffer("short", torch.hann_window(2048), persistent=False)
        self.register_buffer("long", torch.hann_window(LONG), persistent=False)
        self.inp = nn.Conv1d(256, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in (1, 2, 4, 8, 16)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(5))
        self.lines = nn.ModuleList(
            nn.Conv2d(a, b, (7, 3), padding=(3, 1)) for a, b in ((1, 24), (24, 32), (32, 32))
        )
        self.fold = nn.Conv1d(64 * OCTAVES, 96, 1)
        self.turn = nn.Conv1d(96, 96, STEPS, padding=0)
        self.key = nn.Conv1d(96, 1, 1)
        self.hidden = nn.Linear(2 * width + 96, 128)
        self.tags = nn.Linear(128, TAGS)

    def features(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """levels [B, 256, T], pitches [B, 168, N]; both about unit size."""
        sides = torch.stack([audio[:, 0] + audio[:, 1], audio[:, 0] - audio[:, 1]], 1) * 0.5
        s = torch.fft.rfft(sides.unfold(-1, 2048, 960) * self.short).abs()
        levels = (torch.log(s @ self.mel.T + 1e-2) + 1) / 2
        p = torch.fft.rfft(sides[:, 0].unfold(-1, LONG, 3840) * self.long).abs() @ self.pitch.T
        loud = p.mean((1, 2), keepdim=True) + 1e-3
        return levels.transpose(2, 3).flatten(1, 2), torch.log1p(3 * p / loud).transpose(1, 2)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(audio.device.type, enabled=False):
            levels, pitches = self.features(audio)
        y = self.inp(levels)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y = y + F.gelu(layer(norm(y)))
        x = pitches[:, None]
        for line in self.lines:
            x = F.gelu(line(x))
        x = torch.cat([x.mean(3), x.amax(3)], dim=1)
        x = x.unflatten(2, (OCTAVES, STEPS)).flatten(1, 2)
        x = F.gelu(self.fold(x))
        x = F.gelu(self.turn(F.pad(x, (0, STEPS - 1), mode="circular")))
        key = self.key(x)[:, 0, ::2].float()
        parts = [y.mean(2), (y.var(2) + 1e-4).sqrt(), x.amax(2)]
        embedding = F.gelu(self.hidden(torch.cat(parts, dim=1)))
        return self.tags(embedding).float(), key.roll(4, 1), embedding.float()


@torch.no_grad()
def hear(listener: Listener, loops: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Loops [2, n] of any length, gone round from two starting points: mean logits and embedding,
    [B, 96], [B, 12], [B, 128] on the CPU.
    """
    rows = []
    n = torch.arange(SECONDS * SR, device=loops[0].device)
    for loop in loops:
        starts = (0, loop.shape[1] // 2)
        audio = torch.stack([loop[:, (n + start) % loop.shape[1]] for start in starts])
        rows.append([x.mean(0).cpu() for x in listener(audio)])
    tags, key, embedding = (torch.stack(column) for column in zip(*rows, strict=True))
    return tags, key, embedding


class Pool:
    """The pool as crops with labels, on the device."""

    def __init__(self, scratch: Path, device: str) -> None:
        audio, start, samples, cond, at = [], [], [], [], 0
        for path in sorted(scratch.glob("imp_pool_*.npy")):
            audio.append(torch.from_numpy(np.load(path)).to(device))
            table = np.load(path.with_suffix(".npz"))
            start.append(table["start"] + at)
            samples.append(table["samples"])
            cond.append(table["cond"])
            at += audio[-1].shape[1]
        self.audio = torch.cat(audio, dim=1)
        self.start = torch.from_numpy(np.concatenate(start)).to(device)
        self.samples = torch.from_numpy(np.concatenate(samples)).to(device)
        self.cond = torch.from_numpy(np.concatenate(cond)).float().to(device)

    def crops(self, count: int) -> tuple[Tensor, Tensor]:
        """audio [B, 2, 384000] as recordings may be, condition vectors [B, 128]."""
        device = self.audio.device
        row = torch.randint(0, len(self.start), (count,), device=device)
        n = torch.arange(SECONDS * SR, device=device)
        first = (torch.rand(count, device=device) * self.samples[row]).long()
        index = self.start[row][:, None] + (first[:, None] + n) % self.samples[row][:, None]
        x = self.audio[:, index].transpose(0, 1).float() / 32767
        x = x * 10 ** (0.5 * torch.rand(count, 1, 1, device=device) - 0.4)
        noise = 10 ** (-4.5 + 2 * torch.rand(count, 1, 1, device=device))
        x = coloured(x) + noise * torch.randn_like(x)
        return torch.where(torch.rand(count, 1, 1, device=device) < 0.5, x, x.flip(1)), self.cond[
            row
        ]


def coloured(x: Tensor) -> Tensor:
    """A smooth random equaliser of a few dB."""
    f = torch.fft.rfftfreq(x.shape[-1], 1 / SR, device=x.device).clamp(min=20)
    octave = torch.log2(f / 1000)
    curve = torch.zeros(len(x), 1, 1, device=x.device)
    for width in (0.4, 1.0):
        size, turn = (torch.randn(len(x), 1, 1, device=x.device) for _ in range(2))
        curve = curve + 2 * size * torch.cos(octave * width + 6 * turn)
    return torch.fft.irfft(torch.fft.rfft(x) * 10 ** (curve / 20), x.shape[-1])


def fit(pool: Pool, seconds: float, device: str, batch: int = 64) -> Listener:
    """Train for `seconds`."""
    listener = Listener().to(device)
    optimiser = torch.optim.AdamW(listener.parameters(), 2e-3, weight_decay=0.03)
    first, count = time.perf_counter(), 0
    while (done := (time.perf_counter() - first) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (count + 1) / 100, 1.5 * (1.02 - done))
        audio, labels = pool.crops(batch)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            tags, key, _ = listener(audio)
        loss = F.binary_cross_entropy_with_logits(tags, labels[:, :TAGS]) * 10
        loss = loss + F.cross_entropy(key, labels[:, TAGS : TAGS + KEYS].argmax(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        count += 1
        if count in (1, 50) or count % 500 == 0:
            say(f"listener: step {count}, loss {loss.item():.3f}")
    say(f"listener: {count} steps, loss {loss.item():.3f}")
    return listener.eval()


def load_listener(path: Path, device: str = "cpu") -> Listener:
    """listener.safetensors -> Listener."""
    from safetensors.torch import load_file

    listener = Listener()
    listener.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return listener.to(device).eval().requires_grad_(False)


def scores(heard: tuple[Tensor, ...], asked: Tensor) -> dict[str, float]:
    """Share of the genres and keys heard as asked [B, 128], and the F1 of the other tags."""
    tags, key = heard[:2]
    wanted = asked[:, :TAGS]
    genre = (tags[:, :GENRES].argmax(1) == wanted[:, :GENRES].argmax(1)).float().mean().item()
    right = (key.argmax(1) == asked[:, TAGS : TAGS + KEYS].argmax(1)).float().mean().item()
    present, truth = tags[:, GENRES:] > 0, wanted[:, GENRES:] > 0.5
    hit = (present & truth).sum().item()
    f1 = 2 * hit / max(1, (present.sum() + truth.sum()).item())
    return {"genre": genre, "key": right, "tag_f1": f1}


def main() -> None:
    """Learn from the pool, check on the crops' own loops is left to `evaluate`; write the file."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    pool = Pool(options.scratch, options.device)
    listener = fit(pool, options.seconds, options.device, options.batch)
    options.out.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().half().contiguous().cpu() for k, v in listener.state_dict().items()}
    save_file(tensors, options.out / "listener.safetensors")
    say(json.dumps({"parameters": sum(math.prod(v.shape) for v in tensors.values())}))


if __name__ == "__main__":
    main()
