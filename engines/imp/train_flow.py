"""Train the flow model: `python -m engines.imp.train_flow --codec DIR --out DIR --seconds 500
[--init DIR]`.

Worker processes render and encode the bank on the GPU while this one compiles. Flow matching on
whole circular loops, bf16, Muon and AdamW, one CUDA graph a step; short and long loops in batches
of their own, so that little is padding. Labels are dropped at random, so
that a prompt may say as little as it likes; half of the rows get a source to cover. In the second
part the target is shifted away from what the model predicts without labels (model guidance, arXiv
2502.12154), so that no guidance is needed when it plays. Seeds from 2_000_000 are held out.

--timbre is the share of the rows that get a timbre reference: statistics of a stretch of another
score on the same kit (`bank`), with labels dropped more often. Weights from before it serve as
--init.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import LABELS, load_vocabulary
from engines.imp import bank as banks
from engines.imp.bank import FRAMES, Bank
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

HELD_OUT = 2_000_000
LENGTHS = (208, FRAMES)
"""Frames of the batches: each loop goes into the shortest that holds it."""
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

    def __init__(self, bank: Bank, batch: int, device: str, timbre: float = 0.0) -> None:
        self.batch, self.device, self.timbre = batch, device, timbre
        self.take(bank)
        self.genres = len(load_vocabulary(banks.TAGS).groups["genre"])

    def take(self, bank: Bank) -> None:
        """Draw from `bank` from now on."""
        self.bank = bank
        lows = (0, *LENGTHS[:-1])
        self.index = [
            torch.nonzero((bank.frames > low) & (bank.frames <= high))[:, 0]
            for low, high in zip(lows, LENGTHS, strict=True)
        ]
        self.counts = [len(index) for index in self.index]
        every = torch.arange(len(bank.frames), device=bank.frames.device)
        self.index = [index if len(index) else every for index in self.index]

    def references(self, index: Tensor) -> Tensor:
        """Timbre references [B, 128]: how another score sounds on the kit of the target, in a
        quarter of the rows (and where there is none) the target itself; of a stretch, with noise.
        """
        n, device, bank = self.batch, self.device, self.bank
        mate = index + bank.mate[index]
        # The mate plays this kit as its source, unless just one of the two is crossed.
        role = (bank.cross[index] == bank.cross[mate]).long()
        own = (mate == index) | (keep_random(n, 0.25, device)[:, 0] > 0)
        part = torch.randint(0, banks.PARTS, (n,), device=device)
        found = bank.timbre[torch.where(own, index, mate), role * ~own, part].float()
        return found + 0.15 * torch.randn_like(found)

    def labels(self, cond: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Condition vectors with labels dropped, and which rows say anything, [B, 1]. given [B, 1]:
        rows with a timbre reference, which drop theirs more often.
        """
        n, device = self.batch, self.device
        cond = cond.clone()
        share = (0.1 + 0.9 * torch.rand(n, 1, device=device)) * (
            1 - given * keep_random(n, 0.3, device)
        )
        kept = (torch.rand(n, 96, device=device) < share).float()
        kept[:, : self.genres] = torch.maximum(kept[:, : self.genres], keep_random(n, 0.8, device))
        cond[:, TAGS] *= kept * (0.75 + 0.25 * torch.rand(n, 1, device=device))
        for part, p in ((KEY, 0.7), (MODE, 0.6), (TEMPO, 0.8), (BARS, 0.7)):
            cond[:, part] *= keep_random(n, p, device)
        said = keep_random(n, 0.88, device) * (1 - given * keep_random(n, 0.08, device))
        return cond * said, said

    def hints(self, latent: Tensor, cross: Tensor, needed: Tensor) -> Tensor:
        """Sources to cover, [B, frames, 65]: another kit's rendering, or the loop itself; half of
        the rows none, but those `needed`.
        """
        n, device = self.batch, self.device
        itself = keep_random(n, 0.25, device)[..., None] * (~cross)[:, None, None]
        source = torch.where(itself > 0, latent[:, 0], latent[:, 1])
        noise = 0.3 * torch.rand(n, 1, 1, device=device) ** 2
        source = source + noise * torch.randn_like(source)
        u = torch.rand(n, 1, 1, device=device)
        strength = torch.where(itself > 0, 0.7 + 0.3 * u, 0.2 + 0.6 * u)
        given = torch.maximum(keep_random(n, 0.45, device)[..., None], needed.float()[..., None])
        return torch.cat([source, strength.expand(-1, source.shape[1], -1)], dim=-1) * given

    def draw(self, size: int = -1) -> Batch:
        """x0, t, hint, phase, cond, keep, said of loops of the `size`-th of LENGTHS."""
        n, device, bank, frames = self.batch, self.device, self.bank, LENGTHS[size]
        among = self.index[size]
        index = among[torch.randint(0, len(among), (n,), device=device)]
        turn = torch.randint(0, banks.TURNS, (n,), device=device)
        latent = bank.latent[index, turn, :, :frames].float()
        cross = bank.cross[index]
        given = keep_random(n, self.timbre, device)
        # With a reference a crossed target can be asked for as one would: by the labels of its
        # score, and by how the other kit sounds.
        free = cross[:, None] & (given * keep_random(n, 0.6, device) > 0)
        cond, said = self.labels(torch.where(free, bank.other[index], bank.cond[index]), given)
        if self.timbre:
            cond[:, LABELS:] = given * self.references(index)
            said = torch.maximum(said, given)
        normal = torch.sigmoid(0.4 + 1.05 * torch.randn(n, device=device))
        t = torch.where(torch.rand(n, device=device) < 0.2, torch.rand(n, device=device), normal)
        keep = torch.arange(frames // 2, device=device)[None] < (bank.frames[index] // 2)[:, None]
        hint = self.hints(latent, cross, cross[:, None] & ~free)
        phase = bank.phase(index, turn, frames)
        return latent[:, 0], t, hint, phase, cond, keep, said


class Training:
    """The flow model, its optimiser and its two kinds of step."""

    def __init__(self, bank: Bank, options: argparse.Namespace) -> None:
        self.options, self.device = options, options.device
        self.cuda = self.device == "cuda"
        start = load_shards(options.init, "flow") if options.init else {}
        knows = options.timbre > 0 or imp.knows_timbre(start)
        self.flow = imp.ImpFlow(timbre=knows).to(self.device)
        if start:
            self.flow.load_state_dict({k: v.float() for k, v in start.items()})
        self.forward = torch.compile(self.flow, dynamic=False) if self.cuda else self.flow
        every = list(self.flow.parameters())
        blocks = [m for m in self.flow.blocks.modules() if isinstance(m, torch.nn.Linear)]
        matrices: list[torch.nn.Parameter] = [m.weight for m in blocks]  # type: ignore[misc]
        ids = {id(w) for w in matrices}
        self.optimiser = Optimiser(matrices, [p for p in every if id(p) not in ids], (0.9, 0.98))
        self.average = Average(every, 0.001)
        self.progress = torch.zeros(1, device=self.device)
        self.sampler = Sampler(bank, options.batch, self.device, options.timbre)
        self.held = self.known = bank

    def step(self, guidance: float = 0.0, size: int = -1) -> None:
        """One update on loops of the `size`-th of LENGTHS; `guidance` is how far the target is
        pushed from the unlabelled prediction.
        """
        x0, t, hint, phase, cond, keep, said = self.sampler.draw(size)
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
        """Compile every kind of step on noise, then forget what was learnt."""
        before = {k: v.clone() for k, v in self.flow.state_dict().items()}
        for guidance in {0.0, self.options.guidance}:
            for size in range(len(LENGTHS)):
                self.optimiser.clear()
                self.step(guidance, size)
        self.flow.load_state_dict(before)
        self.optimiser.reset()
        self.average.restart()
        say("compiled")

    def graph(self, guidance: float, size: int) -> Callable[[], None]:
        """One kind of step, captured."""

        def step() -> None:
            self.step(guidance, size)

        for _ in range(3):
            self.optimiser.clear()
            step()
        return captured(step, self.optimiser.clear, self.cuda)

    def run(self, seconds: float, count: int = 0, spent: float = 0.0) -> None:
        """Train for `seconds`, of which `spent` are over, saving every minute."""
        options, noted, before = self.options, spent, spent
        graphs: dict[tuple[float, int], Callable[[], None]] = {}
        choice, first, guided = random.Random(options.seed), count, False
        last = time.perf_counter()
        while spent < seconds and not (options.stop and options.stop.exists()):
            done = spent / seconds
            guidance = options.guidance if done >= options.guide_from else 0.0
            if guidance and not guided:
                guided = True
                say("model guidance from step", count)
            (size,) = choice.choices(range(len(LENGTHS)), self.sampler.counts)
            self.optimiser.rate(schedule(done, count, options.rate, 400, 0.65))
            if (guidance, size) not in graphs:
                graphs[guidance, size] = self.graph(guidance, size)
            graphs[guidance, size]()
            count += 1
            if count % 20 == 0 and self.cuda:
                torch.cuda.current_stream().synchronize()
            now = time.perf_counter()
            spent, last = spent + now - last, now
            if count in (1, 100, 500) or count % 2000 == 0:
                rate = (count - first) / (spent - before)
                say(f"step {count} loss {self.progress.item():.4f} {rate:.1f} steps/s")
            if spent - noted > 60:
                self.save(count, spent)
                noted, last = spent, time.perf_counter()
        self.save(count, spent)
        if spent >= seconds:
            (options.out / "flow.json").write_text(json.dumps({"steps": count, "seconds": spent}))

    def resume(self) -> tuple[int, float]:
        """Go on from what `save` wrote: steps and seconds so far, zeros if it wrote nothing."""
        path = self.options.out / "flow.pt"
        if not path.exists():
            return 0, 0.0
        state = torch.load(path, map_location=self.device)
        with torch.no_grad():
            self.average.fill(state["tensors"])
            torch._foreach_copy_(self.average.shadow, state["shadow"])
        self.optimiser.restore(state["optimiser"])
        torch.manual_seed(self.options.seed + 1000 * state["count"])
        say(f"goes on at step {state['count']}, {state['spent']:.0f} s")
        return state["count"], state["spent"]

    def save(self, count: int, spent: float) -> None:
        """Averaged weights as shards, all that `resume` needs, a line in flow_curve.jsonl."""
        out: Path = self.options.out
        with self.average.applied():
            save_shards(out, "flow", dict(self.flow.state_dict()))
            losses = [round(unseen(self.flow, b), 4) for b in (self.held, self.known)]
            if self.flow.timbre is not None:
                losses.append(round(unseen(self.flow, self.held, told=True), 4))
        state: dict[str, Any] = {"tensors": self.average.tensors, "shadow": self.average.shadow}
        state |= {"optimiser": self.optimiser.state(), "count": count, "spent": spent}
        torch.save(state, out / "flow.part")
        (out / "flow.part").rename(out / "flow.pt")
        row: dict[str, float] = {"steps": count, "seconds": round(spent, 1)}
        row |= zip(("unseen", "seen", "unseen_told"), losses, strict=False)
        with (out / "flow_curve.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        say("saved", json.dumps(row))


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
def unseen(flow: imp.ImpFlow, bank: Bank, told: bool = False) -> float:
    """Loss on held-out loops without a source, mean over three times: shows learning by heart.

    told: with the timbre of each as its reference; what that gains is what the model makes of it.
    """
    index = torch.arange(len(bank.bpm), device=bank.bpm.device)
    x0, phase = bank.latent[:, 0, 0].float(), bank.phase(index, torch.zeros_like(index))
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    keep = torch.arange(FRAMES // 2, device=x0.device)[None] < (bank.frames // 2)[:, None]
    weight = keep.repeat_interleave(2, dim=1)[..., None]
    hint = torch.zeros(*x0.shape[:2], imp.CHANNELS + 1, device=x0.device)
    cond = bank.cond.clone()
    if told:
        cond[:, LABELS:] = bank.timbre[:, 0, 0].float()
    total = 0.0
    for time_ in (0.3, 0.6, 0.9):
        t = torch.full_like(bank.bpm, time_)
        v = flow(torch.lerp(x0, noise, t[:, None, None]), t, hint, phase, cond, keep)
        error = ((v - (noise - x0)).square() * weight).sum() / (weight.sum() * imp.CHANNELS)
        total += error.item() / 3
    return total


def gather_bank(options: argparse.Namespace) -> list[multiprocessing.process.BaseProcess]:
    """Start the workers that build the bank; files that exist already are kept."""
    context = multiprocessing.get_context("spawn")
    workers: list[multiprocessing.process.BaseProcess] = []
    scratch = Path(options.scratch)
    codecs = [(options.codec, scratch)]
    if options.also:
        codecs.append((options.also[0], options.also[1]))
    jobs = [
        (f"imp_bank_{k}.pt", options.first_seed + k * 100_000, options.pairs)
        for k in range(options.workers)
    ]
    jobs.append(("imp_held.pt", HELD_OUT, options.held_out))
    for name, first, count in jobs:
        targets = [(codec, folder / name) for codec, folder in codecs]
        if not all(path.exists() for _, path in targets):
            limit, couples = options.bank_seconds, first != HELD_OUT
            arguments = (targets, first, count, limit, options.device, couples)
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
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the drawing")
    parser.add_argument("--seconds", type=float, default=400, help="of steps, over all calls")
    parser.add_argument("--stop", type=Path, help="end as soon as this file is there")
    parser.add_argument("--wait", type=Path, help="for this file, before rendering the bank")
    parser.add_argument("--after", type=Path, help="no step before this file; its --seconds")
    parser.add_argument("--bank-seconds", type=float, default=110)
    parser.add_argument(
        "--also", type=Path, nargs=2, help="another codec's folder, and one for the same bank by it"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5000, help="at most, for each worker")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=168)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--guidance", type=float, default=0.6)
    parser.add_argument("--guide-from", type=float, default=0.5)
    parser.add_argument("--timbre", type=float, default=0.4, help="share with a timbre reference")
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    scratch = Path(options.scratch)
    if options.device == "cuda":
        torch._dynamo.config.recompile_limit = 64
    workers = [] if options.wait else gather_bank(options)
    training = Training(banks.noise(8).to(options.device), options)
    training.warm_up()
    if options.wait:
        wait_for(options.wait)
        workers = gather_bank(options)
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
    training.sampler.take(bank)
    training.held = held
    training.known = Bank(*(v[: len(held.bpm)] for v in vars(bank).values()))
    seconds = float(wait_for(options.after)) if options.after else options.seconds
    training.run(seconds, *training.resume())


if __name__ == "__main__":
    main()
