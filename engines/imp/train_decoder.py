"""The decoder's finish: `python -m engines.imp.train_decoder --init DIR --out DIR --seconds 900
[--recordings FILE] [--stage 180]`.

Goes on from a trained codec, encoder kept, with the losses of `train_codec` and an adversary
(`adversary`). The losses that compare waveforms or complex spectra end at 1.8 kHz here: above,
where little of the phase is known, they would price a plausible partial higher than noise. The
tone of the start is quiet above 2.4 kHz; it is lifted, so that its phases have a gradient.

First the discriminators learn alone, then their weight rises. Called again with the same --out it
goes on where it stopped. Besides the newest averaged weights in --out, those of every --stage
seconds are kept in folders of their own, `at_SECONDS` (`at_0`: as they came): with an adversary no
loss says which are best, so choose by `evaluate --tables codec coded`. Each line of
codec_curve.jsonl holds the figures of `detail` too; look for `comb` (a buzz of 25 Hz) and `error`
(level).
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from engines.imp.adversary import Adversary
from engines.imp.detail import detail
from engines.imp.losses import WAVE, Loss
from engines.imp.measure import averaged
from engines.imp.train_codec import Run, command_line, train
from engines.imp.training import Step, save_shards, schedule

PHASE = 1800.0
"""Hz below which waveform and complex spectra are compared."""
QUIET, LIFT = 2400.0, 1.0
"""Above the first (Hz) the tone's log level is raised by the second at the start."""
ALONE, RISE = 300, 1000
"""Steps of the discriminators alone; steps in which their weight rises after that."""


class Finish(Run):
    """A training of the decoder against discriminators."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        waves = tuple((a, int(min(b, PHASE)), w) for a, b, w in WAVE if a < PHASE)
        self.loss = Loss(options.device, self.cuda, waves, PHASE)
        self.adversary = Adversary(options.device, (options.hinge, options.match), options.width)
        self.kept = -1
        self.whole = Step(self.gradients, self.update, self.trained(), self.team)

    def trained(self) -> list[torch.nn.Parameter]:
        """The decoder's and the discriminators' parameters."""
        own = list(self.adversary.nets.parameters()) if hasattr(self, "adversary") else []
        return super().trained() + own

    def gradients(self) -> None:
        """Those of the decoder and of the discriminators; no host work."""
        x = self.drawn()
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.cuda):
            made = self.codec.reconstruct(x)
        tone, *draws = (v.detach().requires_grad_() for v in made)
        total, wave = self.loss((tone, *draws), x)  # type: ignore[arg-type]
        by_tone, *held = torch.autograd.grad(total, [tone, *draws])
        gradients = self.adversary.weighed(held, self.adversary.pulls(x, draws))
        torch.autograd.backward(made, [by_tone, *gradients])
        self.progress[:2].lerp_(torch.stack([total.detach(), wave.detach()]), 0.02)

    def update(self) -> None:
        """One update of the decoder and one of the discriminators; no host work."""
        self.adversary.optimiser.step()
        super().update()

    def rate(self, done: float) -> None:
        """Rates of both, and the weight of the adversary."""
        o, since = self.options, self.count - self.options.alone
        self.optimiser.rate(schedule(done, since, o.rate, 300, 0.6) if since >= 0 else 0.0)
        self.adversary.optimiser.rate(schedule(done, self.count, o.adversary_rate, 100, 0.6))
        self.adversary.ramp.fill_(min(1.0, max(0.0, since / o.rise)))

    def warm_up(self) -> None:
        """Compile on noise, then forget what was learnt, also by the discriminators."""
        nets = copy.deepcopy(self.adversary.nets.state_dict())
        super().warm_up()
        self.adversary.reset(nets)

    def begin(self, held: list[Tensor]) -> None:
        """Measure and keep what came, then lift the quiet part of the tone."""
        if self.kept >= 0:
            return
        self.report(held, "as it came")
        self.kept = 0
        edge = int(QUIET * imp.FFT / imp.SAMPLE_RATE)
        with torch.no_grad():
            self.codec.decoder.level.bias.unflatten(0, (2, -1))[:, edge:] += LIFT
        self.average.restart()

    def words(self) -> str:
        """Running means of the losses, and of the gradients' norms at the decoder's output."""
        learnt, hinge, match = self.adversary.progress.tolist()
        norms = " ".join(f"{v:.2e}" for v in self.adversary.norms.tolist())
        words = f"{super().words()} D {learnt:.3f} G {hinge:.3f} match {match:.3f} norms {norms}"
        if self.cuda:
            words += f" {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB"
        return words

    def state(self) -> dict[str, Any]:
        """With the discriminators."""
        return super().state() | {"adversary": self.adversary.state(), "kept": self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        super().restore(state)
        self.adversary.restore(state["adversary"])
        self.kept = state["kept"]

    def measured(self, held: list[Tensor]) -> dict[str, float]:
        """A line of the curve with `detail`; the weights into a folder at every stage."""
        stage = int(self.spent / self.options.stage)
        if stage > self.kept or self.spent >= self.options.seconds:
            self.kept = stage
            folder = self.options.out / f"at_{self.spent:.0f}"
            save_shards(folder, "codec", self.codec.tensors())
        with torch.no_grad():
            rows = []
            for x in held:
                latent = self.codec.encoder.encode_loop(x[None])
                rows.append(detail(x, self.codec.decoder.decode_loop(latent)[0, :, : x.shape[1]]))
        learnt = zip(("D", "G", "match"), self.adversary.progress.tolist(), strict=True)
        return super().measured(held) | averaged(rows) | {k: round(v, 4) for k, v in learnt}


def main() -> None:
    """Parse the command line and train."""
    parser = command_line(__doc__)
    parser.add_argument("--hinge", type=float, default=1.0, help="share of the hinge loss")
    parser.add_argument("--match", type=float, default=1.0, help="share of feature matching")
    parser.add_argument("--adversary-rate", type=float, default=2e-4)
    parser.add_argument("--width", type=int, default=32, help="channels of the discriminators")
    parser.add_argument("--alone", type=int, default=ALONE, help="steps of them alone")
    parser.add_argument("--rise", type=int, default=RISE, help="steps in which their weight rises")
    parser.add_argument("--stage", type=float, default=180, help="seconds between kept weights")
    parser.set_defaults(rate=5e-4, keep_encoder=True)
    options = parser.parse_args()
    if options.init is None:
        parser.error("--init: the folder of the codec whose decoder goes on")
    options.keep_encoder = True
    train(options, Finish)


if __name__ == "__main__":
    main()
