"""Train the codec: `python -m engines.imp.train_codec --out DIR --seconds 500 [--init DIR
[--keep-encoder]] [--recordings FILE] [--pool-hours 8]`.

One process renders a pool of loops on the GPU while another compiles. Two losses. The tone alone is
held to the waveform: log-NMSE in three bands below 5 kHz, what locks the phase. Tone and noise
together are held to the spectra (log magnitude, magnitude, compressed complex, log mel; five
resolutions) by an energy distance (Gritsenko et al., arXiv 2008.01160): near to the source, and as
far from a second draw of the noise as the source is. It is least where the sound is distributed as
the source is given the latent, so that what cannot be followed becomes noise of the right level and
not an average of it. No adversary.

Muon and AdamW, whole step in one CUDA graph, bf16 forward; the averaged weights are saved. Loops of
seeds 1_000_000 and up are held out. --recordings: what `engines.imp.recordings` wrote.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demon_live.models import imp
from demon_live.models.imp_synthesis import stereo
from engines.imp import recordings
from engines.imp.measure import averaged, compare, mel_bank
from engines.imp.training import (
    Average,
    Optimiser,
    captured,
    load_shards,
    save_shards,
    say,
    schedule,
)

SEGMENT = 2 * imp.SAMPLE_RATE
SIZES = (4096, 2048, 1024, 384, 128)
WAVE = ((0, 300, 0.7), (300, 1200, 1.0), (1200, 5000, 0.6))
"""Bands in Hz that the waveform is held to, and how much."""
HELD_OUT = 1_000_000


def render_pool(
    path: str, hours: float, limit: float, device: str, first: int, bars: int | None
) -> None:
    """Render loops of seeds first.. into PATH.npy (int16 [2, samples]) until there are enough or
    time is up.
    """
    from engines.imp.render import Renderer
    from engines.imp.score import compose

    renderer, parts, total, seed, begin = Renderer(device), [], 0, first, time.perf_counter()
    while total < hours * 3600 * imp.SAMPLE_RATE and time.perf_counter() - begin < limit:
        songs = [compose(seed + i, bars=bars) for i in range(24 if device == "cuda" else 2)]
        seed += len(songs)
        for loop in renderer(songs):
            parts.append((loop * 32767).to(torch.int16).cpu().numpy())
            total += loop.shape[1]
    out = np.lib.format.open_memmap(path + ".tmp", "w+", np.int16, (2, total))
    at = 0
    for part in parts:
        out[:, at : at + part.shape[1]] = part
        at += part.shape[1]
    out.flush()
    Path(path + ".tmp").rename(path)
    took = time.perf_counter() - begin
    say(f"pool: {seed - first} loops, {total / 3600 / imp.SAMPLE_RATE:.2f} h in {took:.1f} s")


class Codec:
    """Encoder and decoder in training, with batch statistics at the bottleneck."""

    def __init__(self, device: str, kept: bool = False) -> None:
        self.device, self.kept = device, kept
        self.encoder = imp.ImpEncoder().to(device).requires_grad_(not kept)
        self.decoder = imp.ImpDecoder().to(device)
        torch.nn.init.normal_(self.decoder.air.weight, std=0.002)
        torch.nn.init.constant_(self.decoder.air.bias, -5.0)

    def parameters(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """Matrices of the ConvNeXt blocks, and the rest."""
        trained = (self.decoder,) if self.kept else (self.encoder, self.decoder)
        every = [p for module in trained for p in module.parameters()]
        blocks = [m for c in trained for m in c.modules() if isinstance(m, imp.ConvNeXt)]
        matrices = [w for m in blocks for w in (m.up.weight, m.down.weight)]
        ids = {id(w) for w in matrices}
        return matrices, [p for p in every if id(p) not in ids]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is saved, by its name in codec.safetensors."""
        named = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        return named | {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `tensors`."""
        named = {k: v.float() for k, v in tensors.items()}
        for prefix, module in (("encoder.", self.encoder), ("decoder.", self.decoder)):
            own = {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}
            module.load_state_dict(own)

    def latent(self, x: Tensor) -> Tensor:
        """Encode; normalise by the batch, or by what the encoder holds if it is kept."""
        if self.kept:
            with torch.no_grad():
                return self.encoder(x)
        raw = self.encoder.raw(x)
        inner = raw[:, 1:-1]
        mean = inner.mean((0, 1))
        std = inner.var((0, 1)).add(1e-5).sqrt()
        with torch.no_grad():
            self.encoder.mean.lerp_(mean.detach(), 0.01)
            self.encoder.std.lerp_(std.detach(), 0.01)
        return (raw - mean) / std

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latent with noise of random strength -> the tone, and it with two draws of the air."""
        latent = self.latent(x).float().clamp(-6, 6)
        sigma = 0.2 * torch.rand(len(x), 1, 1, device=x.device)
        level, phase, air, _ = self.decoder.trunk(latent + sigma * torch.randn_like(latent))
        synthesis = self.decoder.synthesis
        with torch.autocast(x.device.type, enabled=False):
            tone = synthesis.tone(level.float(), phase.float())
            gains = synthesis.gains(air.float())
            one, two = (synthesis.shaped(torch.randn_like(tone), gains) for _ in range(2))
            return stereo(tone), stereo(tone + one), stereo(tone + two)


# ------------------------------------------------------------------------------------ augmentation


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
    gain = 10 ** (torch.where(chance(batch, 0.4, device), curve, torch.zeros_like(curve)) / 20)
    cut = 2000 * 2 ** (3 * torch.rand(batch, 1, 1, device=device))
    low = torch.where(chance(batch, 0.15, device), 1 / (1 + (f / cut) ** 6), torch.ones_like(gain))
    edge = 60 * 2 ** (3 * torch.rand(batch, 1, 1, device=device))
    high = torch.where(
        chance(batch, 0.08, device), 1 / (1 + (edge / f) ** 4), torch.ones_like(gain)
    )
    wall = 7000 * 2 ** (1.5 * torch.rand(batch, 1, 1, device=device))
    low = torch.where(chance(batch, 0.12, device), torch.sigmoid((wall - f) / 60), low)
    return torch.fft.irfft(torch.fft.rfft(x) * gain * low * high, SEGMENT)


# -------------------------------------------------------------------------------------------- loss


def spectra(x: Tensor, size: int, window: Tensor) -> Tensor:
    """[N, samples] -> [N, frames, bins, 2]."""
    return torch.view_as_real(torch.fft.rfft(x.unfold(-1, size, size // 4) * window))


def spectral_loss(x: Tensor, y: Tensor, z: Tensor, mel: Tensor | None) -> Tensor:
    """Energy distance, half of 2 d(x, y) - d(y, z), of the spectra of a source x and of two draws
    y, z: log magnitude, magnitude, compressed complex (and log mel).
    """
    a, b, c = ((v.square().sum(-1) + 1e-8).sqrt() for v in (x, y, z))

    def energy(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (u - v).abs().mean() - 0.5 * (v - w).abs().mean()

    def norm(v: Tensor) -> Tensor:
        return (v.square().sum((1, 2)) + 1e-6).sqrt()

    level = energy(*(torch.log(v + 1e-2) for v in (a, b, c)))
    shape = ((norm(a - b) - 0.5 * norm(b - c)) / (norm(a) + 0.3)).mean()
    p, q, r = ((v + 1e-2).pow(-0.7) for v in (a, b, c))
    phase = energy(x * p[..., None], y * q[..., None], z * r[..., None]) / ((a * p).mean() + 0.02)
    loss = level + shape + phase
    if mel is not None:
        loss = loss + 2 * energy(*(torch.log(v @ mel + 1e-3) for v in (a, b, c)))
    return loss


class Loss:
    """Loss of a batch; one latent frame at each end is left out."""

    def __init__(self, device: str, compiled: bool) -> None:
        self.windows = {n: torch.hann_window(n, device=device) for n in SIZES}
        self.mel = mel_bank().T.contiguous().to(device)
        self.part = torch.compile(spectral_loss, dynamic=False) if compiled else spectral_loss
        f = torch.fft.rfftfreq(SEGMENT - 2 * imp.HOP, 1 / imp.SAMPLE_RATE, device=device)
        self.bands = torch.stack([((f >= a) & (f < b)).float() for a, b, _ in WAVE], dim=1)
        self.share = torch.tensor([w for _, _, w in WAVE], device=device)

    def wave(self, tone: Tensor, x: Tensor) -> Tensor:
        """log-NMSE of the tone in the bands of WAVE."""
        scale = 2 / x.shape[-1]
        error = torch.fft.rfft(tone - x).abs().square().sum(1) @ self.bands * scale
        power = torch.fft.rfft(x).abs().square().sum(1) @ self.bands * scale
        return (torch.log(error / (power + 0.05) + 1e-3) * self.share).mean(0).sum()

    def __call__(self, made: tuple[Tensor, Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """made: the tone, and it with two draws of the air, [B, 2, n] each."""
        tone, one, two, x = (v[..., imp.HOP : -imp.HOP] for v in (*made, x))
        wave = self.wave(tone, x)
        sides = torch.rand(len(x), 1, 1, device=x.device) < 0.5

        def view(v: Tensor) -> Tensor:
            turned = torch.stack([v[:, 0] + v[:, 1], v[:, 0] - v[:, 1]], 1) * 0.7071
            return torch.where(sides, v, turned).flatten(0, 1)

        views = [view(v) for v in (x, one, two)]
        total = wave
        for n in SIZES:
            mel = self.mel if n == 2048 else None
            parts = (spectra(v, n, self.windows[n]) for v in views)
            total = total + self.part(*parts, mel)
        return total, wave


# ---------------------------------------------------------------------------------------- training


@torch.no_grad()
def evaluate(codec: Codec, loops: list[Tensor]) -> dict[str, float]:
    """Reconstruction of whole loops, context wrapped; also with latent noise of 0.2."""
    kernel, imp.ConvNeXt.kernel = imp.ConvNeXt.kernel, staticmethod(imp.convnext)
    rows, noisy, bare = [], [], []
    for loop in loops:
        latent = codec.encoder.encode_loop(loop[None])
        rows.append(compare(loop, codec.decoder.decode_loop(latent)[0]))
        level, phase, *_ = codec.decoder.trunk(imp.wrapped(latent, imp.MARGIN, 1))
        tone = stereo(codec.decoder.synthesis.tone(level, phase))[0]
        bare.append(compare(loop, tone[:, imp.MARGIN * imp.HOP : -imp.MARGIN * imp.HOP]))
        shaken = latent + 0.2 * torch.randn_like(latent)
        noisy.append(compare(loop, codec.decoder.decode_loop(shaken)[0]))
    imp.ConvNeXt.kernel = kernel
    result = averaged(rows)
    result["si_sdr_tone"] = averaged(bare)["si_sdr"]
    result["si_sdr_noise_.2"] = averaged(noisy)["si_sdr"]
    result["si_sdr_worst"] = round(min(r["si_sdr"] for r in rows), 2)
    result["latent_std"] = round(latent.std().item(), 3)
    return result


def train(options: argparse.Namespace) -> None:
    """The whole run, in `options.seconds` of wall time."""
    device, begin = options.device, time.perf_counter()
    cuda = device == "cuda"
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    pool_path = f"{options.scratch}/imp_pool.npy"
    Path(pool_path).unlink(missing_ok=True)
    arguments = (pool_path, options.pool_hours, 110.0, device, options.first_seed, None)
    worker = multiprocessing.get_context("spawn").Process(target=render_pool, args=arguments)
    worker.start()

    codec, loss = Codec(device, options.keep_encoder), Loss(device, cuda)
    if options.init:
        codec.load(load_shards(options.init, "codec"))
    if cuda:
        torch._dynamo.config.recompile_limit = 64
        imp.ConvNeXt.kernel = staticmethod(torch.compile(imp.convnext, dynamic=False))
    matrices, rest = codec.parameters()
    optimiser = Optimiser(matrices, rest, (0.8, 0.98))
    statistics = [] if codec.kept else [codec.encoder.mean, codec.encoder.std]
    average = Average(matrices + rest + statistics, 0.002)
    pool = (torch.randn(2, 10 * SEGMENT, device=device) * 3000).to(torch.int16)
    progress, foreign = torch.zeros(2, device=device), 0

    def step() -> None:
        x = augmented(pool, options.batch, foreign)
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            made = codec.reconstruct(x)
        total, wave = loss(made, x)
        total.backward()
        optimiser.step()
        average.update()
        progress.lerp_(torch.stack([total.detach(), wave.detach()]), 0.02)

    before = {k: v.clone() for k, v in codec.tensors().items()}
    for _ in range(2):
        optimiser.clear()
        step()
    say("compiled")
    codec.load(before)
    optimiser.reset()
    average.restart()
    worker.join()
    if not Path(pool_path).exists():
        raise RuntimeError("the pool was not rendered")
    pool = torch.from_numpy(np.load(pool_path)).to(device)
    if options.recordings:
        known = recordings.load(options.recordings).to(device)
        foreign = known.shape[1]
        pool = torch.cat([pool, known], dim=1)
    say(f"pool on device, {pool.shape[1] / imp.SAMPLE_RATE / 3600:.2f} h")
    held = held_out(options.held_out, device)
    with average.applied():
        say("before", json.dumps(evaluate(codec, held)))

    replay = None
    first, count, last_save = time.perf_counter(), 0, time.perf_counter()
    total_seconds = options.seconds - (first - begin) - 12
    while (done := (time.perf_counter() - first) / total_seconds) < 1:
        optimiser.rate(schedule(done, count, options.rate, 300, 0.6))
        if replay is None and count == 20:
            replay = captured(step, optimiser.clear, cuda)
        if replay is None:
            optimiser.clear()
            step()
        else:
            replay()
        count += 1
        if count % 20 == 0 and cuda:
            torch.cuda.current_stream().synchronize()
        if count in (1, 40, 100, 300) or count % 1000 == 0:
            rate = count / (time.perf_counter() - first)
            say(f"step {count} loss {progress[0]:.3f} wave {progress[1]:.3f} {rate:.1f} steps/s")
        if time.perf_counter() - last_save > 120:
            with average.applied():
                save_shards(options.out, "codec", codec.tensors())
                say("checkpoint", json.dumps(evaluate(codec, held[:8])))
            last_save = time.perf_counter()
    with average.applied():
        save_shards(options.out, "codec", codec.tensors())
        result = evaluate(codec, held) | {"steps": count, "batch": options.batch}
        say("final", json.dumps(result))
        (options.out / "codec.json").write_text(json.dumps(result))


def held_out(count: int, device: str) -> list[Tensor]:
    """Loops no training sees, [2, n]."""
    from engines.imp.render import Renderer
    from engines.imp.score import compose

    renderer = Renderer(device)
    songs = [compose(HELD_OUT + i, bars=4) for i in range(count)]
    return [loop for i in range(0, count, 4) for loop in renderer(songs[i : i + 4])]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--init", type=Path, help="folder of codec_*.safetensors shards to start from"
    )
    parser.add_argument(
        "--keep-encoder", action="store_true", help="train the decoder alone: latents stay"
    )
    parser.add_argument("--recordings", type=Path, help="file of engines.imp.recordings to mix in")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=500, help="wall time of the whole run")
    parser.add_argument("--pool-hours", type=float, default=8)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
