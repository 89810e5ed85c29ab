"""Train the flow model: `python -m engines.imp.train_flow --codec DIR --out DIR --seconds 500
[--init DIR]`.

Worker processes render and encode the bank on the GPU while this one compiles. Flow matching on
whole circular loops, bf16, Muon and AdamW, one CUDA graph a step; short and long loops in batches
of their own, so that little is padding. Labels are dropped at random, so
that a prompt may say as little as it likes; half of the rows get a source to cover. In the second
part the target is shifted away from what the model predicts without labels (model guidance, arXiv
2502.12154), so that no guidance is needed when it plays. In the last part (--straighten) the model
learns to do in one of eight steps what it did until then in four evaluations (two steps of Heun):
eight steps then sound like many. Seeds from 2_000_000 are held out.

--timbre is the share of the rows that get a timbre reference, --lanes of those that are told notes
or hits (`draw`). Weights from before either, and of fewer channels (`grow`), serve as --init. The
detail of a nested latent counts less than its base. On several GPUs: `parallel`.
"""

from __future__ import annotations

import argparse
import copy
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
from demon_live.models.imp.labels import LABELS
from engines.imp import bank as banks
from engines.imp.bank import FRAMES, Bank
from engines.imp.draw import LENGTHS, Sampler
from engines.imp.grow import fit_linear, grown_flow
from engines.imp.parallel import Team
from engines.imp.straighten import SHIFT, STEPS, stride
from engines.imp.training import (
    Average,
    Optimiser,
    Step,
    captured,
    left,
    load_shards,
    save_shards,
    say,
    schedule,
    wait_for,
)

HELD_OUT = 2_000_000
STRAIGHT = 0.4
"""Learning rate of the last part, of that before."""


class Training:
    """The flow model, its optimiser and its two kinds of step."""

    def __init__(self, bank: Bank, options: argparse.Namespace) -> None:
        self.options, self.device = options, options.device
        self.cuda = self.device == "cuda"
        self.team = Team(self.device)
        start = load_shards(options.init, "flow") if options.init else {}
        knows = options.timbre > 0 or imp.knows_timbre(start)
        told = options.lanes > 0 or "lanes.weight" in start
        depth = options.depth or imp.blocks_in(start, "") or None
        flow = imp.ImpFlow(
            channels=options.channels,
            timbre=knows,
            lanes=told,
            linear=options.linear or "linear.axes" in start,
            depth=depth,
        )
        self.flow = flow.to(self.device)
        self.fits = flow.linear is not None and "linear.axes" not in start
        if start:
            self.flow.load_state_dict(grown_flow({k: v.float() for k, v in start.items()}, flow))
        self.forward = self.compiled(self.flow)
        self.teacher = copy.deepcopy(self.flow).requires_grad_(False)
        self.taught = self.compiled(self.teacher)
        every = list(self.flow.parameters())
        blocks = [m for m in self.flow.blocks.modules() if isinstance(m, torch.nn.Linear)]
        matrices = [m.weight for m in blocks]
        ids = {id(w) for w in matrices}
        self.optimiser = Optimiser(matrices, [p for p in every if id(p) not in ids], (0.9, 0.98))  # type: ignore[arg-type]
        self.average = Average(every, 0.001)  # type: ignore[arg-type]
        self.progress = torch.zeros(1, device=self.device)
        self.sampler = Sampler(bank, options.batch, self.device, options.timbre, options.lanes)
        self.held = self.known = bank
        weight = torch.full((options.channels,), options.detail, device=self.device)
        weight[: imp.CHANNELS] = 1.0
        self.weight = weight / weight.sum()

    def compiled(self, flow: imp.ImpFlow) -> Callable[..., Tensor]:
        """The model as it is called."""
        return torch.compile(flow, dynamic=False) if self.cuda else flow

    def step(self, guidance: float | None = 0.0, size: int = -1) -> None:
        """Gradients, their mean over the processes, update."""
        self.whole(guidance, size)()

    def whole(self, guidance: float | None, size: int) -> Step:
        """One kind of step."""

        def gradients() -> None:
            self.gradients(guidance, size)

        return Step(gradients, self.update, self.optimiser.parameters, self.team)

    def update(self) -> None:
        """What the gradients do; no host work."""
        self.optimiser.step()
        self.average.update()

    def gradients(self, guidance: float | None, size: int) -> None:
        """Those of loops of the `size`-th of LENGTHS; `guidance` is how far the target is pushed
        from the prediction of a model that is told nothing. None: the teacher's steps.
        """
        if guidance is None:
            self.straightened(size)
            return
        x0, t, hint, phase, cond, lanes, keep, said = self.sampler.draw(size)
        noise = torch.randn_like(x0)
        x = torch.lerp(x0, noise, t[:, None, None])
        target = noise - x0
        with torch.autocast(self.device, torch.bfloat16, enabled=self.cuda):
            if guidance:
                with torch.no_grad():
                    rows = (torch.cat([v, v]) for v in (x, t, hint, phase))
                    told = (torch.cat([v, torch.zeros_like(v)]) for v in (cond, lanes))
                    both = self.forward(*rows, *told, torch.cat([keep, keep])).float()
                    with_labels, without = both.chunk(2)
                    target = target + guidance * said[..., None] * (with_labels - without)
            v = self.forward(x, t, hint, phase, cond, lanes, keep)
        self.learn(v, target, keep)

    def learn(self, v: Tensor, target: Tensor, keep: Tensor) -> None:
        """Gradients of the loss of a prediction."""
        weight = keep.repeat_interleave(2, dim=1)
        loss = ((v.float() - target).square() @ self.weight * weight).sum() / weight.sum()
        loss.backward()
        self.progress.lerp_(loss.detach()[None], 0.01)

    def straightened(self, size: int) -> None:
        """Gradients of two batches towards the teacher's steps; it is asked for both at once, in
        the shape that guidance has compiled.
        """
        rows = [self.sampler.draw(size)[:-1] for _ in range(2)]
        x0, t, *told = (torch.cat(pair) for pair in zip(*rows, strict=True))
        x = torch.lerp(x0, torch.randn_like(x0), t[:, None, None])
        with torch.autocast(self.device, torch.bfloat16, enabled=self.cuda):
            target = stride(self.taught, x, t, *told)
            for part in range(2):
                half = slice(part * len(t) // 2, (part + 1) * len(t) // 2)
                v = self.forward(x[half], t[half], *(value[half] for value in told))
                self.learn(v, target[half], told[-1][half])

    def fit(self) -> None:
        """Begin with the linear guess of the bank."""
        fit_linear(self.flow, self.sampler.draw)
        self.team.same(list(self.flow.parameters()))
        self.average.restart()

    def begin_straightening(self) -> None:
        """The teacher is the average so far, and so is the start."""
        self.average.fill(self.average.shadow)
        self.teacher.load_state_dict(self.flow.state_dict())

    def warm_up(self) -> None:
        """Compile every kind of step on noise, then forget what was learnt."""
        before = {k: v.clone() for k, v in self.flow.state_dict().items()}
        options = self.options
        kinds: list[float | None] = [0.0] if options.guide_from > 0 else []
        kinds += [options.guidance] if options.straighten > 0 else []
        kinds += [None] if options.straighten < 1 else []
        for guidance in dict.fromkeys(kinds):
            for size in range(len(LENGTHS)):
                self.step(guidance, size)
        self.flow.load_state_dict(before)
        self.optimiser.reset()
        self.average.restart()
        say("compiled")

    def run(self, seconds: float, count: int = 0, spent: float = 0.0) -> None:
        """Train for `seconds`, of which `spent` are over, saving every minute."""
        options, noted, before, stopped = self.options, spent, spent, False
        straight = False
        kinds: dict[tuple[float | None, int], Callable[[], None]] = {}
        choice, first = random.Random(options.seed), count
        shares = [self.team.agreed(float(n)) for n in self.sampler.counts]
        last = time.perf_counter()
        while spent < seconds and not stopped:
            done, parts = spent / seconds, options.straighten
            guidance = options.guidance if done >= options.guide_from else 0.0
            (size,) = choice.choices(range(len(LENGTHS)), shares)
            if done < parts:
                self.optimiser.rate(schedule(done / parts, count, options.rate, 400, 0.65))
            else:
                guidance = None
                within = (done - parts) / (1 - parts)
                self.optimiser.rate(schedule(within, count, STRAIGHT * options.rate, 400, 0.65))
                if not straight:
                    self.begin_straightening()
                    straight = True
            if (guidance, size) not in kinds:
                say("guidance", guidance, "frames", LENGTHS[size], "from step", count)
                kinds[guidance, size] = captured(self.whole(guidance, size), self.cuda)
            kinds[guidance, size]()
            count += 1
            if count % 20 == 0 or not self.cuda:
                if self.cuda:
                    torch.cuda.current_stream().synchronize()
                now = time.perf_counter()
                spent, last = self.team.agreed(spent + now - last), now
                ends = bool(options.stop and options.stop.exists())
                stopped = bool(self.team.agreed(float(ends)))
            if count in (20, 100, 500) or count % 2000 == 0:
                rate = (count - first) / max(1e-3, spent - before)
                say(f"step {count} loss {self.progress.item():.4f} {rate:.1f} steps/s")
            if spent - noted > options.note:
                self.save(count, spent)
                noted, last = spent, time.perf_counter()
        self.save(count, spent)
        if spent >= seconds and self.team.first:
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
        torch.manual_seed(self.options.seed + 1000 * state["count"] + self.team.rank)
        say(f"goes on at step {state['count']}, {state['spent']:.0f} s")
        return state["count"], state["spent"]

    def save(self, count: int, spent: float) -> None:
        """Averaged weights as shards, all that `resume` needs, a line in flow_curve.jsonl."""
        if not self.team.first:
            return
        out: Path = self.options.out
        with self.average.applied():
            save_shards(out, "flow", dict(self.flow.state_dict()))
            row: dict[str, float] = {"steps": count, "seconds": round(spent, 1)}
            row |= self.losses()
        state: dict[str, Any] = {"tensors": self.average.tensors, "shadow": self.average.shadow}
        state |= {"optimiser": self.optimiser.state(), "count": count, "spent": spent}
        torch.save(state, out / "flow.part")
        (out / "flow.part").rename(out / "flow.pt")
        with (out / "flow_curve.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        say("saved", json.dumps(row))

    def losses(self) -> dict[str, float]:
        """Losses of the base on loops that were not learnt from and on some that were; with the
        timbre told; with the notes told; of the detail.
        """
        detail = slice(imp.CHANNELS, None)
        found = {"unseen": unseen(self.flow, self.held), "seen": unseen(self.flow, self.known)}
        if self.flow.timbre is not None:
            found["unseen_told"] = unseen(self.flow, self.held, told=True)
        if self.flow.lanes is not None:
            found["unseen_lanes"] = unseen(self.flow, self.held, lanes=True)
        if self.flow.channels > imp.CHANNELS:
            found["unseen_detail"] = unseen(self.flow, self.held, part=detail)
        return {name: round(value, 4) for name, value in found.items()}


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
    lanes: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """Euler: cond [B, D], phase [B, T, 2] -> latent [B, T, C]. With a source [B, T, C] it starts
    at `denoise`.
    """
    b, frames, _ = phase.shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, frames, flow.channels, generator=generator).to(phase.device)
    times = [denoise * (1 - k / steps) for k in range(steps + 1)]
    times = [shift * t / (1 + (shift - 1) * t) for t in times]
    if source is not None:
        x = times[0] * x + (1 - times[0]) * source
    hint = torch.zeros(b, frames, flow.channels + 1, device=x.device) if hint is None else hint
    for now, then in itertools.pairwise(times):
        t = torch.full((b,), now, device=x.device)
        x = x + (then - now) * flow(x, t, hint, phase, cond, lanes, keep)
    return x


@torch.no_grad()
def unseen(
    flow: imp.ImpFlow,
    bank: Bank,
    *,
    told: bool = False,
    lanes: bool = False,
    part: slice = slice(0, imp.CHANNELS),
) -> float:
    """Loss of some channels (the base) on held-out loops without a source, mean over three times:
    shows learning by heart.

    told: with the timbre of each as its reference; lanes: with its notes. What either gains is
    what the model makes of it.
    """
    index = torch.arange(len(bank.bpm), device=bank.bpm.device)
    x0, phase = bank.latent[:, 0, 0].float(), bank.phase(index, torch.zeros_like(index))
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    keep = torch.arange(FRAMES // 2, device=x0.device)[None] < (bank.frames // 2)[:, None]
    weight = keep.repeat_interleave(2, dim=1)[..., None]
    hint = torch.zeros(*x0.shape[:2], flow.channels + 1, device=x0.device)
    notes = bank.lanes[:, 0].float() if lanes else None
    cond = bank.cond.clone()
    if told:
        cond[:, LABELS:] = bank.timbre[:, 0, 0].float()
    total = 0.0
    for time_ in (0.3, 0.6, 0.9):
        t = torch.full_like(bank.bpm, time_)
        v = flow(torch.lerp(x0, noise, t[:, None, None]), t, hint, phase, cond, notes, keep)
        error = ((v - (noise - x0)).square() * weight)[..., part]
        total += error.sum().item() / (weight.sum() * error.shape[-1]).item() / 3
    return total


def gather_bank(options: argparse.Namespace) -> list[multiprocessing.process.BaseProcess]:
    """Start the workers that build the bank; files that exist already are kept."""
    context, workers = multiprocessing.get_context("spawn"), []
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
    return workers  # type: ignore[return-value]


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
    parser.add_argument("--depth", type=int, help="blocks; those of --init come first")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--guidance", type=float, default=0.6)
    parser.add_argument("--guide-from", type=float, default=0.5)
    parser.add_argument(
        "--linear", action="store_true", help="add the linear guess to weights without it"
    )
    parser.add_argument(
        "--straighten", type=float, default=1.0, help="the part of the time when that begins"
    )
    parser.add_argument(
        "--detail", type=float, default=0.3, help="weight of a channel of the detail; 1: the base's"
    )
    parser.add_argument("--timbre", type=float, default=0.4, help="share with a timbre reference")
    parser.add_argument(
        "--lanes", type=float, default=0.65, help="share that is told notes or hits"
    )
    parser.add_argument("--by", type=float, help="seconds from the start when steps must end")
    parser.add_argument("--note", type=float, default=60, help="seconds between checkpoints")
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """Bank, then `options.seconds` of steps, less what earlier calls have spent."""
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    if options.device == "cuda":
        torch._dynamo.config.recompile_limit = 64
    team = Team(options.device)
    if team.size > 1:
        options.scratch = f"{options.scratch}/{team.rank}"
        options.first_seed += 100_000 * options.workers * team.rank
    scratch = Path(options.scratch)
    options.channels = channels_of(options.codec)
    workers = [] if options.wait else gather_bank(options)
    training = Training(banks.noise(8, options.channels).to(options.device), options)
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
    torch.manual_seed(options.seed + team.rank)
    count, spent = training.resume()
    if not count and training.fits:
        training.fit()
    if options.by is not None:
        seconds = min(seconds, spent + team.agreed(left(options.by)))
    training.run(seconds, count, spent)
    team.close()


def channels_of(codec: Path) -> int:
    """Channels of the codec in a folder."""
    return int(load_shards(codec, "codec")["encoder.mean"].shape[0])


if __name__ == "__main__":
    main()
