"""Train the codec: `python -m engines.imp.train_codec --out DIR --seconds 500 [--init DIR
[--keep-encoder]] [--recordings FILE] [--pool-hours 8]`.

Worker processes render a pool of loops on the GPU while this one compiles. Called again with the
same DIR it goes on where it stopped. Two losses. The tone alone is
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
import time
from pathlib import Path

import torch
from torch import Tensor

from demon_live.models import imp
from demon_live.models.imp_synthesis import stereo
from engines.imp import recordings
from engines.imp.measure import averaged, compare, mel_bank
from engines.imp.pool import SEGMENT, augmented, load_pool, start_pool
from engines.imp.training import (
    Average,
    Optimiser,
    captured,
    load_shards,
    save_shards,
    say,
    schedule,
    wait_for,
)

SIZES = (4096, 2048, 1024, 384, 128)
WAVE = ((0, 300, 0.7), (300, 1200, 1.0), (1200, 5000, 0.6))
"""Bands in Hz that the waveform is held to, and how much."""
HELD_OUT = 1_000_000


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


class Run:
    """A training in progress: its step, its clock, its checkpoints."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, device = options, options.device
        self.cuda = device == "cuda"
        self.codec, self.loss = Codec(device, options.keep_encoder), Loss(device, self.cuda)
        if options.init:
            self.codec.load(load_shards(options.init, "codec"))
        if self.cuda:
            torch._dynamo.config.recompile_limit = 64
            imp.ConvNeXt.kernel = staticmethod(torch.compile(imp.convnext, dynamic=False))
        matrices, rest = self.codec.parameters()
        self.optimiser = Optimiser(matrices, rest, (0.8, 0.98))
        encoder = self.codec.encoder
        statistics = [] if self.codec.kept else [encoder.mean, encoder.std]
        self.average = Average(matrices + rest + statistics, 0.002)
        self.pool = (torch.randn(2, 10 * SEGMENT, device=device) * 3000).to(torch.int16)
        self.progress, self.foreign = torch.zeros(2, device=device), 0
        self.count, self.spent = 0, 0.0

    def step(self) -> None:
        """One update; no host work once it is captured."""
        x = augmented(self.pool, self.options.batch, self.foreign)
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.cuda):
            made = self.codec.reconstruct(x)
        total, wave = self.loss(made, x)
        total.backward()
        self.optimiser.step()
        self.average.update()
        self.progress.lerp_(torch.stack([total.detach(), wave.detach()]), 0.02)

    def warm_up(self) -> None:
        """Compile on noise, then forget what was learnt."""
        before = {k: v.clone() for k, v in self.codec.tensors().items()}
        for _ in range(2):
            self.optimiser.clear()
            self.step()
        self.codec.load(before)
        self.optimiser.reset()
        self.average.restart()
        say("compiled")

    def fill(self) -> None:
        """Take the pool, and the recordings behind it."""
        pool = load_pool(self.options)
        if self.options.recordings:
            known = recordings.load(self.options.recordings).to(pool.device)
            self.foreign = known.shape[1]
            pool = torch.cat([pool, known], dim=1)
        self.pool = pool
        say(f"pool on device, {pool.shape[1] / imp.SAMPLE_RATE / 3600:.2f} h")

    def keep(self) -> None:
        """Write all that `resume` needs."""
        path = self.options.out / "codec.pt"
        state = {"tensors": self.average.tensors, "shadow": self.average.shadow}
        state |= {"optimiser": self.optimiser.state(), "count": self.count, "spent": self.spent}
        self.options.out.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def resume(self) -> None:
        """Go on from what `keep` wrote, if it did."""
        path = self.options.out / "codec.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.options.device)
        with torch.no_grad():
            self.average.fill(state["tensors"])
            torch._foreach_copy_(self.average.shadow, state["shadow"])
        self.optimiser.restore(state["optimiser"])
        self.count, self.spent = state["count"], state["spent"]
        torch.manual_seed(self.options.seed + 1000 * self.count)
        say(f"goes on at step {self.count}, {self.spent:.0f} s")

    def report(self, held: list[Tensor], word: str) -> dict[str, float]:
        """Save the averaged weights and measure them; a line in codec_curve.jsonl."""
        with self.average.applied():
            save_shards(self.options.out, "codec", self.codec.tensors())
            result = evaluate(self.codec, held)
        result |= {"steps": self.count, "seconds": round(self.spent, 1), "loops": len(held)}
        say(word, json.dumps(result))
        with (self.options.out / "codec_curve.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        return result


def train(options: argparse.Namespace) -> None:
    """`options.seconds` of steps, less what earlier calls have spent."""
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    workers = start_pool(options)
    run = Run(options)
    run.warm_up()
    for worker in workers:
        worker.join()
    if options.wait:
        wait_for(options.wait)
    run.fill()
    held = held_out(options.held_out, options.device)
    run.resume()
    replay, noted = None, run.spent
    before, at, last = run.spent, run.count, time.perf_counter()
    while run.spent < options.seconds and not (options.stop and options.stop.exists()):
        done = run.spent / options.seconds
        run.optimiser.rate(schedule(done, run.count, options.rate, 300, 0.6))
        if replay is None and run.count - at == 20:
            replay = captured(run.step, run.optimiser.clear, run.cuda)
        if replay is None:
            run.optimiser.clear()
            run.step()
        else:
            replay()
        run.count += 1
        if run.count % 20 == 0 and run.cuda:
            torch.cuda.current_stream().synchronize()
        now = time.perf_counter()
        run.spent, last = run.spent + now - last, now
        if run.count in (1, 40, 100, 300) or run.count % 1000 == 0:
            rate, loss, wave = (run.count - at) / (run.spent - before), *run.progress.tolist()
            say(f"step {run.count} loss {loss:.3f} wave {wave:.3f} {rate:.1f} steps/s")
        if run.spent - noted > options.note:
            run.report(held[:8], "checkpoint")
            run.keep()
            noted, last = run.spent, time.perf_counter()
    run.keep()
    result = run.report(held, "final" if run.spent >= options.seconds else "stopped")
    if run.spent >= options.seconds:
        (options.out / "codec.json").write_text(json.dumps(result))


def held_out(count: int, device: str) -> list[Tensor]:
    """Loops no training sees, [2, n], four bars each."""
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
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the drawing")
    parser.add_argument("--seconds", type=float, default=500, help="of steps, over all calls")
    parser.add_argument("--note", type=float, default=60, help="seconds between checkpoints")
    parser.add_argument("--stop", type=Path, help="end as soon as this file is there")
    parser.add_argument("--wait", type=Path, help="for this file, after compiling")
    parser.add_argument("--pool-hours", type=float, default=8)
    parser.add_argument("--pool-workers", type=int, default=4)
    parser.add_argument("--pool-seconds", type=float, default=110)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
