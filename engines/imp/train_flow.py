"""Train the flow model: `python -m engines.imp.train_flow --codec DIR --out DIR --seconds 500
[--init DIR]`.

Worker processes render and encode the bank on the GPU while this one compiles. Flow matching on
whole circular loops, bf16, Muon and AdamW, one CUDA graph a step. Labels are dropped at random, so
that a prompt may say as little as it likes; half of the rows get a source to cover. In the second
part the target is shifted away from what the model predicts without labels (model guidance, arXiv
2502.12154), so that no guidance is needed when it plays. Seeds from 2_000_000 are held out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from pathlib import Path

import torch
from torch import Tensor

from demon_live.models import imp
from demon_live.models.imp_labels import load_vocabulary
from engines.imp import bank as banks
from engines.imp.bank import FRAMES, Bank
from engines.imp.probe import Probe, fit_probe, scores
from engines.imp.training import (
    Average,
    Optimiser,
    captured,
    load_shards,
    save_shards,
    say,
    schedule,
)

HELD_OUT = 2_000_000
STEPS, SHIFT = 8, 3.0
TAGS, KEY, MODE, TEMPO, BARS = (
    slice(0, 96),
    slice(96, 108),
    slice(108, 112),
    slice(112, 114),
    slice(114, 116),
)
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def keep_random(n: int, p: float | Tensor, device: str) -> Tensor:
    """[n, 1] float: 1 with probability p."""
    return (torch.rand(n, 1, device=device) < p).float()


class Sampler:
    """Draws training batches from the bank, on its device."""

    def __init__(self, bank: Bank, batch: int, device: str) -> None:
        self.bank, self.batch, self.device = bank, batch, device
        self.genres = len(load_vocabulary(banks.TAGS).groups["genre"])

    def labels(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Condition vectors with labels dropped, and which rows say anything, [B, 1]."""
        n, device = self.batch, self.device
        cond = self.bank.cond[index].clone()
        share = 0.1 + 0.9 * torch.rand(n, 1, device=device)
        kept = (torch.rand(n, 96, device=device) < share).float()
        kept[:, : self.genres] = torch.maximum(kept[:, : self.genres], keep_random(n, 0.8, device))
        cond[:, TAGS] *= kept * (0.75 + 0.25 * torch.rand(n, 1, device=device))
        for part, p in ((KEY, 0.7), (MODE, 0.6), (TEMPO, 0.8), (BARS, 0.7)):
            cond[:, part] *= keep_random(n, p, device)
        said = keep_random(n, 0.88, device)
        return cond * said, said

    def hints(self, latent: Tensor, cross: Tensor) -> Tensor:
        """Sources to cover, [B, FRAMES, 65]: another kit's rendering, or the loop itself; half of
        the rows none.
        """
        n, device = self.batch, self.device
        itself = keep_random(n, 0.25, device)[..., None] * (~cross)[:, None, None]
        source = torch.where(itself > 0, latent[:, 0], latent[:, 1])
        noise = 0.3 * torch.rand(n, 1, 1, device=device) ** 2
        source = source + noise * torch.randn_like(source)
        u = torch.rand(n, 1, 1, device=device)
        strength = torch.where(itself > 0, 0.7 + 0.3 * u, 0.2 + 0.6 * u)
        given = torch.maximum(keep_random(n, 0.45, device)[..., None], cross[:, None, None].float())
        return torch.cat([source, strength.expand(-1, FRAMES, -1)], dim=-1) * given

    def draw(self) -> Batch:
        """x0, t, hint, phase, cond, keep, said."""
        n, device, bank = self.batch, self.device, self.bank
        index = torch.randint(0, len(bank.bpm), (n,), device=device)
        turn = torch.randint(0, banks.TURNS, (n,), device=device)
        latent = bank.latent[index, turn].float()
        cond, said = self.labels(index)
        normal = torch.sigmoid(0.4 + 1.05 * torch.randn(n, device=device))
        t = torch.where(torch.rand(n, device=device) < 0.2, torch.rand(n, device=device), normal)
        keep = torch.arange(FRAMES // 2, device=device)[None] < (bank.frames[index] // 2)[:, None]
        hint = self.hints(latent, bank.cross[index])
        return latent[:, 0], t, hint, bank.phase(index, turn), cond, keep, said


class Training:
    """The flow model, its optimiser and its two kinds of step."""

    def __init__(self, bank: Bank, options: argparse.Namespace) -> None:
        self.options, self.device = options, options.device
        self.cuda = self.device == "cuda"
        self.flow = imp.ImpFlow().to(self.device)
        if options.init:
            self.flow.load_state_dict(
                {k: v.float() for k, v in load_shards(options.init, "flow").items()}
            )
        self.forward = torch.compile(self.flow, dynamic=False) if self.cuda else self.flow
        every = list(self.flow.parameters())
        blocks = [m for m in self.flow.blocks.modules() if isinstance(m, torch.nn.Linear)]
        matrices = [m.weight for m in blocks]
        ids = {id(w) for w in matrices}
        self.optimiser = Optimiser(matrices, [p for p in every if id(p) not in ids], (0.9, 0.98))
        self.average = Average(every, 0.001)
        self.progress = torch.zeros(1, device=self.device)
        self.sampler = Sampler(bank, options.batch, self.device)
        self.held = self.known = bank

    def step(self, guidance: float = 0.0) -> None:
        """One update; `guidance` is how far the target is pushed from the unlabelled prediction."""
        x0, t, hint, phase, cond, keep, said = self.sampler.draw()
        noise = torch.randn_like(x0)
        x = torch.lerp(x0, noise, t[:, None, None])
        target = noise - x0
        with torch.autocast(self.device, torch.bfloat16, enabled=self.cuda):
            if guidance:
                with torch.no_grad():
                    rows = (torch.cat([v, v]) for v in (x, t, hint, phase))
                    labels = torch.cat([cond, torch.zeros_like(cond)])
                    both = self.forward(*rows, labels, torch.cat([keep, keep])).float()
                    with_labels, without = both.chunk(2)
                    target = target + guidance * said[..., None] * (with_labels - without)
            v = self.forward(x, t, hint, phase, cond, keep)
        weight = keep.repeat_interleave(2, dim=1)[..., None]
        loss = ((v.float() - target).square() * weight).sum() / (weight.sum() * imp.CHANNELS)
        loss.backward()
        self.optimiser.step()
        self.average.update()
        self.progress.lerp_(loss.detach()[None], 0.01)

    def warm_up(self) -> None:
        """Compile both kinds of step on noise, then forget what was learnt."""
        before = {k: v.clone() for k, v in self.flow.state_dict().items()}
        for kind in (self.step, self.guided):
            self.optimiser.clear()
            kind()
        self.flow.load_state_dict(before)
        self.optimiser.reset()
        self.average.restart()
        say("compiled")

    def guided(self) -> None:
        """A step with model guidance."""
        self.step(self.options.guidance)

    def run(self, seconds: float) -> None:
        """Train for `seconds`, saving the averaged weights every two minutes."""
        options, first, count, saved = self.options, time.perf_counter(), 0, time.perf_counter()
        steps = {"plain": self.step, "guided": self.guided}
        replay, phase = None, "plain" if options.guide_from > 0 else "guided"
        while (done := (time.perf_counter() - first) / seconds) < 1:
            if phase == "plain" and done > options.guide_from and options.guidance:
                phase, replay = "guided", None
                say("model guidance from step", count)
            self.optimiser.rate(schedule(done, count, options.rate, 400, 0.65))
            if replay is None:
                for _ in range(3):
                    self.optimiser.clear()
                    steps[phase]()
                replay = captured(steps[phase], self.optimiser.clear, self.cuda)
            replay()
            count += 1
            if count % 20 == 0 and self.cuda:
                torch.cuda.current_stream().synchronize()
            if count in (1, 100, 500) or count % 2000 == 0:
                rate = count / (time.perf_counter() - first)
                say(f"step {count} loss {self.progress.item():.4f} {rate:.1f} steps/s")
            if time.perf_counter() - saved > 120:
                self.save(count)
                saved = time.perf_counter()
        self.save(count)

    def save(self, count: int) -> None:
        """Averaged weights as shards."""
        with self.average.applied():
            save_shards(self.options.out, "flow", dict(self.flow.state_dict()))
            losses = [f"{unseen(self.flow, b):.4f}" for b in (self.held, self.known)]
        say("saved at step", count, "loss on unseen, seen loops", *losses)


@torch.no_grad()
def sample(
    flow: imp.ImpFlow,
    cond: Tensor,
    phase: Tensor,
    *,
    steps: int = STEPS,
    shift: float = SHIFT,
    seed: int = 0,
    hint: Tensor | None = None,
    source: Tensor | None = None,
    denoise: float = 1.0,
    keep: Tensor | None = None,
) -> Tensor:
    """Euler: cond [B, D], phase [B, T, 2] -> latent [B, T, 64]. With a source [B, T, 64] it starts
    at `denoise`.
    """
    b, frames, _ = phase.shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, frames, imp.CHANNELS, generator=generator).to(phase.device)
    times = [denoise * (1 - k / steps) for k in range(steps + 1)]
    times = [shift * t / (1 + (shift - 1) * t) for t in times]
    if source is not None:
        x = times[0] * x + (1 - times[0]) * source
    hint = torch.zeros(b, frames, imp.CHANNELS + 1, device=x.device) if hint is None else hint
    for now, then in itertools.pairwise(times):
        t = torch.full((b,), now, device=x.device)
        x = x + (then - now) * flow(x, t, hint, phase, cond, keep)
    return x


@torch.no_grad()
def judge(
    flow: imp.ImpFlow, codec: Path, held: Bank, probe: Probe, device: str
) -> dict[str, float]:
    """Held-out labels -> samples -> audio -> latents -> probe: does it hear what was asked?
    Ceiling: the held-out loops.
    """
    encoder, decoder = load_codec_shards(codec, device)
    n = len(held.bpm)
    turn = torch.zeros(n, dtype=torch.long, device=device)
    index = torch.arange(n, device=device)
    keep = torch.arange(FRAMES // 2, device=device)[None] < (held.frames // 2)[:, None]
    made, drawn = [], []
    for part in index.split(32):
        z = sample(flow, held.cond[part], held.phase(part, turn[part]), keep=keep[part])
        drawn.append(z)
        audio = [
            decoder.decode_loop(z[i : i + 1, : held.frames[j]])[0]
            for i, j in enumerate(part.tolist())
        ]
        made.append(banks.encode(encoder, audio, [0] * len(audio)))
    result = {
        f"ceiling_{k}": v for k, v in scores(probe, held.latent[:, 0, 0].float(), held).items()
    }
    result |= {f"latents_{k}": v for k, v in scores(probe, torch.cat(drawn), held).items()}
    result |= {f"samples_{k}": v for k, v in scores(probe, torch.cat(made), held).items()}
    return result


def load_codec_shards(folder: Path, device: str) -> tuple[imp.ImpEncoder, imp.ImpDecoder]:
    """Codec from shards."""
    from engines.imp.train_codec import Codec

    codec = Codec(device)
    codec.load(load_shards(folder, "codec"))
    return codec.encoder.eval(), codec.decoder.eval()


@torch.no_grad()
def unseen(flow: imp.ImpFlow, bank: Bank) -> float:
    """Loss on held-out loops without a source, mean over three times: shows learning by heart."""
    index = torch.arange(len(bank.bpm), device=bank.bpm.device)
    x0, phase = bank.latent[:, 0, 0].float(), bank.phase(index, torch.zeros_like(index))
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    keep = torch.arange(FRAMES // 2, device=x0.device)[None] < (bank.frames // 2)[:, None]
    weight = keep.repeat_interleave(2, dim=1)[..., None]
    hint = torch.zeros(*x0.shape[:2], imp.CHANNELS + 1, device=x0.device)
    total = 0.0
    for time_ in (0.3, 0.6, 0.9):
        t = torch.full_like(bank.bpm, time_)
        v = flow(torch.lerp(x0, noise, t[:, None, None]), t, hint, phase, bank.cond, keep)
        error = ((v - (noise - x0)).square() * weight).sum() / (weight.sum() * imp.CHANNELS)
        total += error.item() / 3
    return total


def gather_bank(options: argparse.Namespace) -> list[multiprocessing.process.BaseProcess]:
    """Start the workers that build the bank; files that exist already are kept."""
    context, workers = multiprocessing.get_context("spawn"), []
    scratch = Path(options.scratch)
    jobs = [
        (scratch / f"imp_bank_{k}.pt", options.first_seed + k * 100_000, options.pairs)
        for k in range(options.workers)
    ]
    jobs.append((scratch / "imp_held.pt", HELD_OUT, options.held_out))
    for path, first, count in jobs:
        if not path.exists():
            arguments = (options.codec, path, first, count, options.bank_seconds, options.device)
            workers.append(context.Process(target=banks.build, args=arguments))
            workers[-1].start()
    return workers


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--codec", type=Path, required=True, help="folder of codec_*.safetensors shards"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--init", type=Path, help="folder of flow_*.safetensors shards to start from"
    )
    parser.add_argument("--seconds", type=float, default=500, help="wall time of the whole run")
    parser.add_argument("--bank-seconds", type=float, default=110)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5000, help="at most, for each worker")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=168)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--guidance", type=float, default=0.45)
    parser.add_argument("--guide-from", type=float, default=0.5)
    parser.add_argument("--probe-seconds", type=float, default=40)
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    begin = time.perf_counter()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    workers = gather_bank(options)
    scratch = Path(options.scratch)
    if options.device == "cuda":
        torch._dynamo.config.recompile_limit = 64
    training = Training(banks.noise(8).to(options.device), options)
    training.warm_up()
    for worker in workers:
        worker.join()
    paths = sorted(scratch.glob("imp_bank_*.pt"))
    if not paths:
        raise RuntimeError("no worker wrote a bank")
    bank = Bank.load(paths).to(options.device)
    held = Bank.load([scratch / "imp_held.pt"]).to(options.device)
    say(
        f"bank: {len(bank.bpm)} pairs, {bank.frames.sum().item() / 90000:.2f} h,",
        f"latent std {bank.latent[:200].float().std().item():.3f}",
    )
    training.sampler.bank, training.held = bank, held
    training.known = Bank(*(v[: len(held.bpm)] for v in vars(bank).values()))
    reserve = options.probe_seconds + 25
    training.run(options.seconds - (time.perf_counter() - begin) - reserve)
    with training.average.applied():
        probe = fit_probe(bank, options.probe_seconds, options.device)
        save_shards(options.out, "probe", dict(probe.state_dict()))
        result = judge(training.flow, options.codec, held, probe, options.device)
    say("judged", json.dumps({k: round(v, 4) for k, v in result.items()}))
    (options.out / "flow.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
