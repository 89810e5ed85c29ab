"""Train the codec: `python -m engines.imp.train_codec --out DIR --seconds 500 [--init DIR
[--keep-encoder]] [--recordings FILE] [--pool-hours 8]`; on several GPUs by `parallel`.

The latent is nested: the first 64 channels (base) must do alone, in half of the segments the rest
(detail) is zero. --init may be a codec of fewer channels (`grow`); its latents are then what the
new base is held to, so that a flow model that knows them has little to learn again.

Worker processes render a pool of loops on the GPU while this one compiles. Called again with the
same DIR it goes on where it stopped. Two losses. The tone alone is
held to the waveform: log-NMSE in three bands below 5 kHz, what locks the phase. Tone and noise
together are held to the spectra (log magnitude, magnitude, compressed complex, log mel; five
resolutions) by an energy distance (Gritsenko et al., arXiv 2008.01160): near to the source, and as
far from a second draw of the noise as the source is. It is least where the sound is distributed as
the source is given the latent, so that what cannot be followed becomes noise of the right level and
not an average of it. No adversary here: that is `train_decoder`, which goes on from this.

Muon and AdamW, whole step in one CUDA graph, bf16 forward; the averaged weights are saved. Loops of
seeds 1_000_000 and up are held out. --recordings: what `engines.imp.recordings` wrote.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from demon_live.models.imp.synthesis import stereo
from engines.imp import recordings
from engines.imp.grow import grown
from engines.imp.losses import Loss
from engines.imp.measure import averaged, compare
from engines.imp.parallel import Team
from engines.imp.pool import BRIGHT, SEGMENT, augmented, load_pool, start_pool
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

HELD_OUT = 1_000_000
CHANNELS, TONE_BINS = 128, 320
ANCHOR = 2.0
"""Weight of the base's distance to the latents of the codec that it came from."""
ALONE = 0.5
"""Share of the segments that are decoded from the base alone."""


class Codec:
    """Encoder and decoder in training, with batch statistics at the bottleneck.

    anchor: the encoder whose latents the base is held to, or None.
    """

    def __init__(
        self,
        device: str,
        kept: bool = False,
        channels: int = CHANNELS,
        tone_bins: int = TONE_BINS,
        lines: bool = False,
    ) -> None:
        self.device, self.kept = device, kept
        self.encoder = imp.ImpEncoder(channels, lines=lines).to(device).requires_grad_(not kept)
        self.decoder = imp.ImpDecoder(channels, tone_bins, lines=lines).to(device)
        if self.decoder.lines is not None and self.decoder.turn is not None:
            for value in (*self.decoder.lines.parameters(), *self.decoder.turn.parameters()):
                torch.nn.init.zeros_(value)
        self.anchor: imp.ImpEncoder | None = None
        self.apart = torch.zeros((), device=device)
        torch.nn.init.normal_(self.decoder.air.weight, std=0.002)
        torch.nn.init.constant_(self.decoder.air.bias, -5.0)

    def parameters(self) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
        """Matrices of the ConvNeXt blocks, and the rest."""
        trained = (self.decoder,) if self.kept else (self.encoder, self.decoder)
        every = [p for module in trained for p in module.parameters()]
        blocks = [m for c in trained for m in c.modules() if isinstance(m, imp.ConvNeXt)]
        matrices = [w for m in blocks for w in (m.up.weight, m.down.weight)]
        ids = {id(w) for w in matrices}
        return matrices, [p for p in every if id(p) not in ids]  # type: ignore[return-value]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is saved, by its name in codec.safetensors."""
        named = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        return named | {f"decoder.{k}": v for k, v in self.decoder.state_dict().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `tensors`."""
        named = {k: v.float() for k, v in grown(tensors, self.tensors()).items()}
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

    def hold(self, tensors: dict[str, Tensor]) -> None:
        """Hold the base to the latents of the encoder in `tensors` from now on."""
        self.anchor = imp.codec_of(tensors)[0].to(self.device)

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latent with noise of random strength, in half of the segments the base alone -> the
        tone, and it with two draws of the air.
        """
        latent = self.latent(x).float().clamp(-6, 6)
        if self.anchor is not None:
            with torch.no_grad():
                known = self.anchor(x)[:, 1:-1].float()
            base = latent[:, 1:-1, : known.shape[-1]]
            self.apart = (base - known).square().mean()
        sigma = 0.2 * torch.rand(len(x), 1, 1, device=x.device)
        latent = latent + sigma * torch.randn_like(latent)
        if latent.shape[-1] > imp.CHANNELS:
            full = (torch.rand(len(x), 1, 1, device=x.device) >= ALONE).float()
            base, detail = latent.split([imp.CHANNELS, latent.shape[-1] - imp.CHANNELS], dim=-1)
            latent = torch.cat([base, detail * full], dim=-1)
        level, phase, air, _, *turn = self.decoder.trunk(latent)
        synthesis = self.decoder.synthesis
        with torch.autocast(x.device.type, enabled=False):
            tone = synthesis.tone(level.float(), phase.float(), *(v.float() for v in turn))
            gains = synthesis.gains(air.float())
            one, two = (synthesis.shaped(torch.randn_like(tone), gains) for _ in range(2))
            return stereo(tone), stereo(tone + one), stereo(tone + two)


# ---------------------------------------------------------------------------------------- training


@torch.no_grad()
def evaluate(codec: Codec, loops: list[Tensor]) -> dict[str, float]:
    """Reconstruction of whole loops, context wrapped; also with latent noise of 0.2."""
    kernel, imp.ConvNeXt.kernel = imp.ConvNeXt.kernel, staticmethod(imp.convnext)
    rows, noisy, bare, alone = [], [], [], []
    for loop in loops:
        latent = codec.encoder.encode_loop(loop[None])
        base = latent.clone()
        base[..., imp.CHANNELS :] = 0
        alone.append(compare(loop, codec.decoder.decode_loop(base)[0]))
        rows.append(compare(loop, codec.decoder.decode_loop(latent)[0]))
        level, phase, _, _, *turn = codec.decoder.trunk(imp.wrapped(latent, imp.MARGIN, 1))
        tone = stereo(codec.decoder.synthesis.tone(level, phase, *turn))[0]
        bare.append(compare(loop, tone[:, imp.MARGIN * imp.HOP : -imp.MARGIN * imp.HOP]))
        shaken = latent + 0.2 * torch.randn_like(latent)
        noisy.append(compare(loop, codec.decoder.decode_loop(shaken)[0]))
    imp.ConvNeXt.kernel = kernel
    result = averaged(rows)
    result["si_sdr_tone"] = averaged(bare)["si_sdr"]
    result["si_sdr_base"], result["mel_base"] = (averaged(alone)[k] for k in ("si_sdr", "mel"))
    result["si_sdr_noise_.2"] = averaged(noisy)["si_sdr"]
    result["si_sdr_worst"] = round(min(r["si_sdr"] for r in rows), 2)
    result["latent_std"] = round(latent.std().item(), 3)
    return result


class Run:
    """A training in progress: its step, its clock, its checkpoints."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, device = options, options.device
        self.cuda = device == "cuda"
        self.team = Team(device)
        shape = options.channels, options.tone_bins, options.lines
        self.codec, self.loss = Codec(device, options.keep_encoder, *shape), Loss(device, self.cuda)
        if options.init:
            start = load_shards(options.init, "codec")
            self.codec.load(start)
            if not options.keep_encoder and options.anchor:
                self.codec.hold(load_shards(options.anchor, "codec"))
        if self.cuda:
            torch._dynamo.config.recompile_limit = 64
            imp.ConvNeXt.kernel = staticmethod(torch.compile(imp.convnext, dynamic=False))
        matrices, rest = self.codec.parameters()
        self.optimiser = Optimiser(matrices, rest, (0.8, 0.98))
        encoder = self.codec.encoder
        statistics = [] if self.codec.kept else [encoder.mean, encoder.std]
        self.average = Average(matrices + rest + statistics, 0.002)
        self.whole = Step(self.gradients, self.update, self.trained(), self.team, statistics)
        self.pool = (torch.randn(2, 10 * SEGMENT, device=device) * 3000).to(torch.int16)
        self.progress, self.foreign = torch.zeros(3, device=device), 0
        self.count, self.spent = 0, 0.0

    def trained(self) -> list[torch.nn.Parameter]:
        """Everything whose gradients a step makes."""
        return self.optimiser.parameters

    def drawn(self) -> Tensor:
        """A batch of segments."""
        return augmented(self.pool, self.options.batch, self.foreign)

    def step(self) -> None:
        """Gradients, their mean over the processes, update."""
        self.whole()

    def gradients(self) -> None:
        """Those of one batch; no host work, so that it can be captured."""
        x = self.drawn()
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.cuda):
            made = self.codec.reconstruct(x)
        total, wave = self.loss(made, x)
        (total + ANCHOR * self.codec.apart).backward()
        # No graph of a step may outlive it, or the next cannot be captured.
        self.codec.apart = self.codec.apart.detach()
        progress = torch.stack([total.detach(), wave.detach(), self.codec.apart])
        self.progress.lerp_(progress, 0.02)

    def update(self) -> None:
        """What the gradients do; no host work."""
        self.optimiser.step()
        self.average.update()

    def warm_up(self) -> None:
        """Compile on noise, then forget what was learnt."""
        before = {k: v.clone() for k, v in self.codec.tensors().items()}
        for _ in range(2):
            self.step()
        self.codec.load(before)
        self.optimiser.reset()
        self.average.restart()
        say("compiled")

    def begin(self, held: list[Tensor]) -> None:
        """What comes before the first step: the start is measured."""
        if not self.count:
            self.report(held, "as it came")

    def rate(self, done: float) -> None:
        """Set the learning rate of the next step; done: share of the time that is over."""
        self.optimiser.rate(schedule(done, self.count, self.options.rate, 300, 0.6))

    def words(self) -> str:
        """Running means of the losses."""
        loss, wave, apart = self.progress.tolist()
        return f"loss {loss:.3f} wave {wave:.3f} base {apart:.3f}"

    def fill(self) -> None:
        """Take the pool, and the recordings behind it."""
        pool = load_pool(self.options)
        if self.options.recordings:
            known = recordings.load(self.options.recordings).to(pool.device)
            self.foreign = known.shape[1]
            pool = torch.cat([pool, known], dim=1)
        self.pool = pool
        say(f"pool on device, {pool.shape[1] / imp.SAMPLE_RATE / 3600:.2f} h")

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        state = {"tensors": self.average.tensors, "shadow": self.average.shadow}
        return state | {
            "optimiser": self.optimiser.state(), "count": self.count, "spent": self.spent
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        with torch.no_grad():
            self.average.fill(state["tensors"])
            torch._foreach_copy_(self.average.shadow, state["shadow"])
        self.optimiser.restore(state["optimiser"])
        self.count, self.spent = state["count"], state["spent"]

    def keep(self) -> None:
        """Write the state, whole or not at all."""
        if not self.team.first:
            return
        path = self.options.out / "codec.pt"
        state = self.state()
        self.options.out.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def resume(self) -> None:
        """Go on from what `keep` wrote, if it did."""
        path = self.options.out / "codec.pt"
        if not path.exists():
            return
        self.restore(torch.load(path, map_location=self.options.device))
        torch.manual_seed(self.options.seed + 1000 * self.count + self.team.rank)
        say(f"goes on at step {self.count}, {self.spent:.0f} s")

    def measured(self, held: list[Tensor]) -> dict[str, float]:
        """What a line of the curve holds."""
        return evaluate(self.codec, held)

    def report(self, held: list[Tensor], word: str) -> dict[str, float]:
        """Save the averaged weights and measure them; a line in codec_curve.jsonl."""
        if not self.team.first:
            return {}
        with self.average.applied():
            save_shards(self.options.out, "codec", self.codec.tensors())
            result = self.measured(held)
        result |= {"steps": self.count, "seconds": round(self.spent, 1), "loops": len(held)}
        say(word, json.dumps(result))
        with (self.options.out / "codec_curve.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        return result


def prepare(options: argparse.Namespace, kind: type[Run]) -> tuple[Run, list[Tensor]]:
    """A training that is ready for its first step, and the held-out loops."""
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    run = kind(options)
    if run.team.size > 1:
        options.scratch = f"{options.scratch}/{run.team.rank}"
        options.first_seed += 1_000 * options.pool_workers * run.team.rank
    workers = start_pool(options)
    run.warm_up()
    for worker in workers:
        worker.join()
    if options.wait:
        wait_for(options.wait)
    run.fill()
    held = held_out(options.held_out, options.device) if run.team.first else []
    torch.manual_seed(options.seed + run.team.rank)
    run.resume()
    run.begin(held[:8])
    return run, held


def train(options: argparse.Namespace, kind: type[Run] = Run) -> None:
    """`options.seconds` of steps, less what earlier calls have spent."""
    run, held = prepare(options, kind)
    if options.by is not None:
        options.seconds = min(options.seconds, run.spent + run.team.agreed(left(options.by)))
    replay: Callable[[], None] | None = None
    noted, at, last = run.spent, run.count, time.perf_counter()
    before, stopped = run.spent, False
    while run.spent < options.seconds and not stopped:
        run.rate(run.spent / options.seconds)
        if replay is None and run.count - at == 20:
            replay = captured(run.whole, run.cuda)
        (replay or run.whole)()
        run.count += 1
        if run.count % 20 == 0 or not run.cuda:
            if run.cuda:
                torch.cuda.current_stream().synchronize()
            now = time.perf_counter()
            run.spent = run.team.agreed(run.spent + now - last)
            stopped = bool(run.team.agreed(float(ends(options))))
            last = now
        if run.count in (20, 40, 100, 300) or run.count % 1000 == 0:
            rate = (run.count - at) / max(1e-3, run.spent - before)
            say(f"step {run.count} {run.words()} {rate:.1f} steps/s")
        if run.spent - noted > options.note:
            run.report(held[:8], "checkpoint")
            run.keep()
            noted, last = run.spent, time.perf_counter()
    run.keep()
    result = run.report(held, "final" if run.spent >= options.seconds else "stopped")
    if run.spent >= options.seconds and run.team.first:
        (options.out / "codec.json").write_text(json.dumps(result))
    run.team.close()


def ends(options: argparse.Namespace) -> bool:
    """Whether a file says that a training must end here."""
    return bool(options.stop and options.stop.exists())


def held_out(count: int, device: str) -> list[Tensor]:
    """Loops no training sees, [2, n], four bars each."""
    from engines.imp.render import Renderer
    from engines.imp.score import compose

    renderer = Renderer(device)
    songs = [compose(HELD_OUT + i, bars=4) for i in range(count)]
    return [loop for i in range(0, count, 4) for loop in renderer(songs[i : i + 4])]


def command_line(words: str | None) -> argparse.ArgumentParser:
    """Options of a training of the codec."""
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--init", type=Path, help="folder of codec_*.safetensors shards to start from"
    )
    parser.add_argument(
        "--keep-encoder", action="store_true", help="train the decoder alone: latents stay"
    )
    parser.add_argument("--recordings", type=Path, help="file of engines.imp.recordings to mix in")
    parser.add_argument("--channels", type=int, default=CHANNELS)
    parser.add_argument("--tone-bins", type=int, default=TONE_BINS)
    parser.add_argument("--lines", action="store_true", help="with the detail's own matrices")
    parser.add_argument("--anchor", type=Path, help="codec whose latents the base is held to")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the drawing")
    parser.add_argument("--seconds", type=float, default=500, help="of steps, over all calls")
    parser.add_argument("--note", type=float, default=60, help="seconds between checkpoints")
    parser.add_argument("--by", type=float, help="seconds from the start when steps must end")
    parser.add_argument("--stop", type=Path, help="end as soon as this file is there")
    parser.add_argument("--wait", type=Path, help="for this file, after compiling")
    parser.add_argument("--pool-hours", type=float, default=8)
    parser.add_argument("--bright", type=float, default=BRIGHT, help="share of bright loops")
    parser.add_argument("--pool-workers", type=int, default=4)
    parser.add_argument("--pool-seconds", type=float, default=110)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main() -> None:
    """Parse the command line and train."""
    train(command_line(__doc__).parse_args())


if __name__ == "__main__":
    main()
