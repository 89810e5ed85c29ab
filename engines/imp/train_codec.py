"""Train the codec: `python -m engines.imp.train_codec --out DIR --seconds 500 [--init DIR]
[--pool-hours 8]`.

One process renders a pool of loops on the GPU while another compiles. Loss: log-NMSE of the
waveform below about 5 kHz (what locks the phase), log magnitude, spectral convergence and
compressed complex spectra at six resolutions, log mel. Muon and AdamW, whole step in one CUDA
graph, bf16 forward; the averaged weights are saved. No adversary. Loops of seeds 1_000_000 and up
are held out.
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
SIZES = (4096, 2048, 1024, 512, 256, 128)
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

    def __init__(self, device: str) -> None:
        self.device = device
        self.encoder = imp.ImpEncoder().to(device)
        self.decoder = imp.ImpDecoder().to(device)

    def parameters(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """Matrices of the ConvNeXt blocks, and the rest."""
        every = [*self.encoder.parameters(), *self.decoder.parameters()]
        blocks = [
            m
            for c in (self.encoder, self.decoder)
            for m in c.modules()
            if isinstance(m, imp.ConvNeXt)
        ]
        matrices = [w for m in blocks for w in (m.up.weight, m.down.weight)]
        ids = {id(w) for w in matrices}
        return matrices, [p for p in every if id(p) not in ids]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is saved, by its name in codec.safetensors."""
        named = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        return named | {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `tensors`."""
        for prefix, module in (("encoder.", self.encoder), ("decoder.", self.decoder)):
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode, normalise by the batch, add noise of random strength, decode."""
        raw = self.encoder.raw(x)
        inner = raw[:, 1:-1].detach() if not torch.is_grad_enabled() else raw[:, 1:-1]
        mean = inner.mean((0, 1))
        std = inner.var((0, 1)).add(1e-5).sqrt()
        with torch.no_grad():
            self.encoder.mean.lerp_(mean.detach(), 0.01)
            self.encoder.std.lerp_(std.detach(), 0.01)
        latent = ((raw - mean) / std).clamp(-6, 6)
        sigma = 0.2 * torch.rand(len(x), 1, 1, device=x.device)
        noisy = latent + sigma * torch.randn_like(latent)
        return self.decoder.synth(self.decoder.trunk(noisy), texture=False)


# ------------------------------------------------------------------------------------ augmentation


def chance(n: int, p: float, device: torch.device) -> Tensor:
    """[n, 1, 1] bool."""
    return torch.rand(n, 1, 1, device=device) < p


def augmented(pool: Tensor, batch: int) -> Tensor:
    """Random segments [B, 2, 96000] as recordings might be: repitched, filtered, mixed, driven,
    gated, noisy, mono.
    """
    device = pool.device
    n = torch.arange(SEGMENT, device=device)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, device=device)

    rate = torch.where(
        chance(batch, 0.35, device), 2 ** uniform(-0.6, 0.6), torch.ones(batch, 1, 1, device=device)
    )
    start = torch.rand(batch, 1, 1, device=device) * (pool.shape[1] - 2 * SEGMENT)
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
    return (x * 10 ** uniform(-0.6, 0.35)).clamp(-1, 1)


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
    return torch.fft.irfft(torch.fft.rfft(x) * gain * low * high, SEGMENT)


# -------------------------------------------------------------------------------------------- loss


def spectra(x: Tensor, size: int, window: Tensor) -> Tensor:
    """[N, samples] -> [N, frames, bins, 2]."""
    return torch.view_as_real(torch.fft.rfft(x.unfold(-1, size, size // 4) * window))


def spectral_loss(x: Tensor, y: Tensor, mel: Tensor | None) -> Tensor:
    """Log magnitude, spectral convergence, compressed complex difference (and log mel) of two
    spectra.
    """
    a = (x.square().sum(-1) + 1e-8).sqrt()
    b = (y.square().sum(-1) + 1e-8).sqrt()
    level = (torch.log(a + 1e-2) - torch.log(b + 1e-2)).abs().mean()
    shape = ((a - b).square().sum((1, 2)).sqrt() / (a.square().sum((1, 2)).sqrt() + 0.3)).mean()
    pa, pb = (a + 1e-2).pow(-0.7), (b + 1e-2).pow(-0.7)
    phase = (x * pa[..., None] - y * pb[..., None]).abs().mean() / ((a * pa).mean() + 0.02)
    loss = level + shape + phase
    if mel is not None:
        loss = loss + 2 * (torch.log(a @ mel + 1e-3) - torch.log(b @ mel + 1e-3)).abs().mean()
    return loss


class Loss:
    """Loss of a batch; one latent frame at each end is left out."""

    def __init__(self, device: str, compiled: bool) -> None:
        self.windows = {n: torch.hann_window(n, device=device) for n in SIZES}
        self.mel = mel_bank().T.contiguous().to(device)
        self.part = torch.compile(spectral_loss, dynamic=False) if compiled else spectral_loss
        f = torch.fft.rfftfreq(SEGMENT - 2 * imp.HOP, 1 / imp.SAMPLE_RATE, device=device)
        self.weight = 1 / (1 + (f / 5000) ** 4)

    def __call__(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        y, x = y[..., imp.HOP : -imp.HOP], x[..., imp.HOP : -imp.HOP]
        error = (torch.fft.rfft(y - x).abs() * self.weight).square().sum((1, 2)) * 2 / x.shape[-1]
        power = (torch.fft.rfft(x).abs() * self.weight).square().sum((1, 2)) * 2 / x.shape[-1]
        wave = torch.log(error / (power + 0.1) + 1e-3).mean()
        sides = torch.rand(len(x), 1, 1, device=x.device) < 0.5

        def view(v: Tensor) -> Tensor:
            turned = torch.stack([v[:, 0] + v[:, 1], v[:, 0] - v[:, 1]], 1) * 0.7071
            return torch.where(sides, v, turned).flatten(0, 1)

        a, b = view(x), view(y)
        total = 2.0 * wave
        for n in SIZES:
            mel = self.mel if n == 2048 else None
            total = total + self.part(
                spectra(a, n, self.windows[n]), spectra(b, n, self.windows[n]), mel
            )
        return total, wave


# ---------------------------------------------------------------------------------------- training


@torch.no_grad()
def evaluate(codec: Codec, loops: list[Tensor]) -> dict[str, float]:
    """Reconstruction of whole loops, context wrapped; also with latent noise of 0.2."""
    kernel, imp.ConvNeXt.kernel = imp.ConvNeXt.kernel, staticmethod(imp.convnext)
    rows, noisy = [], []
    for loop in loops:
        latent = codec.encoder.encode_loop(loop[None])
        rows.append(compare(loop, codec.decoder.decode_loop(latent)[0]))
        shaken = latent + 0.2 * torch.randn_like(latent)
        noisy.append(compare(loop, codec.decoder.decode_loop(shaken)[0]))
    imp.ConvNeXt.kernel = kernel
    result = averaged(rows)
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
    arguments = (pool_path, options.pool_hours, 110.0, device, 0, None)
    worker = multiprocessing.get_context("spawn").Process(target=render_pool, args=arguments)
    worker.start()

    codec, loss = Codec(device), Loss(device, cuda)
    if options.init:
        codec.load(load_shards(options.init, "codec"))
    if cuda:
        torch._dynamo.config.recompile_limit = 64
        imp.ConvNeXt.kernel = staticmethod(torch.compile(imp.convnext, dynamic=False))
    matrices, rest = codec.parameters()
    optimiser = Optimiser(matrices, rest, (0.8, 0.98))
    statistics = [codec.encoder.mean, codec.encoder.std]
    average = Average(matrices + rest + statistics, 0.002)
    pool = (torch.randn(2, 10 * SEGMENT, device=device) * 3000).to(torch.int16)
    progress = torch.zeros(2, device=device)

    def step() -> None:
        x = augmented(pool, options.batch)
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            y = codec.reconstruct(x)
        total, wave = loss(y.float(), x)
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
