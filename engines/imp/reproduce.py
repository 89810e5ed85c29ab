"""imp from scratch on one GPU: `python -m engines.imp.reproduce --out DIR --minutes 25
[--recordings hits.npz] [--musicnn musicnn.npz] [--seeds 2] [--go-on ENGINE]`.

Pool, codec, bank, one flow model for each seed, the listener and the evaluation, each a command of
its own (train_codec, train_flow, listener, evaluate), timed so that all end in `--minutes`. What
waits compiles meanwhile; what is judged is judged while the next one trains. With --go-on the flow
model of an engine is trained further on fresh loops in the last part.

The decoder's finish (`train_decoder`) wants a GPU of its own, from the end of the codec on:
`train_decoder --init DIR/codec --out DIR/decoder`. What is in DIR/decoder when the flow model is
done is judged with it.

DIR gets codec/, flow_0/ .. and go_on/ (float16 shards and curves), logs/, judged_*.json. Everything
is drawn by seed; steps are counted by time, so that two runs differ by how many they took.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from engines.imp.training import say

HERE = Path(__file__).parent
START, BANK, JUDGE = 95.0, 75.0, 90.0
"""Seconds before the first step, between codec and flow model, for the last evaluation (H100)."""
FIRST_PAIR = 10_000_000
"""Seeds of the bank: none that the shipped flow model has learnt from."""
SHARES = {"codec": 0.34, "flow": 0.24, "go_on": 0.18}
"""Of the seconds of steps; a flow share for each of two seeds."""


@dataclass
class Chain:
    """The stages as processes, and the clock they share."""

    options: argparse.Namespace
    begin: float = field(default_factory=time.perf_counter)
    jobs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds until all must be over."""
        return float(self.options.minutes * 60 - (time.perf_counter() - self.begin))

    def start(self, name: str, module: str, *arguments: object) -> None:
        """Run a stage beside the others; its words go to logs/NAME.log."""
        folder: Path = self.options.out / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", f"engines.imp.{module}", *map(str, arguments)]
        with (folder / f"{name}.log").open("a") as log:
            self.jobs[name] = subprocess.Popen(command, stdout=log, stderr=log)
        say("started", name)

    def wait(self, name: str) -> bool:
        """Until a stage is over -> whether it went well."""
        code = self.jobs[name].wait()
        say("ended", name, f"({code})" if code else "", f"{self.left():.0f} s left")
        return code == 0

    def common(self) -> list[object]:
        """Options of every training."""
        given: list[object] = ["--scratch", self.options.scratch, "--device", self.options.device]
        return given

    def codec(self, seconds: float) -> None:
        """Pool and codec."""
        o = self.options
        more = ["--recordings", o.recordings] if o.recordings else []
        self.start(
            "codec", "train_codec", "--out", o.out / "codec", "--seconds", seconds,
            "--pool-hours", o.pool_hours, "--pool-workers", o.workers, "--seed", o.seed,
            "--held-out", o.held_out, "--batch", o.codec_batch, *more, *self.common(),
        )  # fmt: skip

    def flow(self, name: str, *arguments: object, bank: str, seed: int) -> None:
        """Bank (in a folder of its own) and flow model; no step before DIR/NAME.go is written."""
        o = self.options
        self.start(
            name, "train_flow", "--out", o.out / name, "--after", o.out / f"{name}.go",
            "--scratch", f"{o.scratch}/{bank}", "--device", o.device, "--seed", seed,
            "--workers", o.workers, "--pairs", o.pairs, "--bank-seconds", o.bank_seconds,
            "--first-seed", FIRST_PAIR * (1 + o.seed),
            "--batch", o.flow_batch, "--held-out", o.held_out, "--linear", "--straighten", 0.8,
            *arguments,
        )  # fmt: skip

    def go(self, name: str, seconds: float) -> None:
        """Let a waiting flow model take its steps."""
        path = self.options.out / f"{name}.go"
        path.with_suffix(".tmp").write_text(str(seconds) if seconds > 0 else "never")
        path.with_suffix(".tmp").rename(path)

    def decoder(self) -> Path:
        """Folder of the codec that is judged: the finished one, if there is one."""
        folder: Path = self.options.out / "decoder"
        finished = any(folder.glob("codec_*.safetensors"))
        return folder if finished else self.options.out / "codec"

    def ear(self) -> None:
        """The listener, from the pool, if none is given."""
        o = self.options
        if o.listener is None:
            self.start(
                "listener", "listener", "--scratch", o.scratch, "--out", o.out,
                "--seconds", o.listener_seconds, "--device", o.device, "--batch", o.listener_batch,
            )  # fmt: skip
            self.wait("listener")

    def judge(self, name: str, codec: Path, flow: Path) -> None:
        """Evaluate a set of weights, beside what trains."""
        o = self.options
        more = ["--musicnn", o.musicnn] if o.musicnn else []
        self.start(
            f"judge_{name}", "evaluate", "--weights", f"{name}={codec},{flow}",
            "--listener", o.listener or o.out / "listener.safetensors", "--per-genre", o.per_genre,
            "--device", o.device, "--json", o.out / f"judged_{name}.json", *more,
        )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """The whole chain."""
    chain, out = Chain(options), options.out
    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(options.scratch)
    for path in [*out.glob("*.go"), *scratch.glob("bank*/imp_*.pt")]:
        path.unlink()  # banks are latents of a codec of before
    steps = max(3.0, options.minutes * 60 - options.reserve)
    share = SHARES["flow"] * 2 / options.seeds * (1 if options.go_on else 1.35)
    chain.codec(SHARES["codec"] * steps)
    done = out / "codec" / "codec.json"
    done.unlink(missing_ok=True)
    also = ["--also", options.go_on, scratch / "bank_go_on"] if options.go_on else []
    given = ["--codec", out / "codec", "--wait", done, *also]
    chain.flow("flow_0", *given, bank="bank", seed=options.seed)
    if not chain.wait("codec"):
        chain.jobs["flow_0"].terminate()
        return 1
    chain.go("flow_0", share * steps)
    chain.ear()
    if options.go_on:
        chain.judge("before", options.go_on, options.go_on)
    judged = []
    for k in range(options.seeds):
        name, later = f"flow_{k}", f"flow_{k + 1}"
        if k + 1 < options.seeds:
            chain.flow(later, "--codec", out / "codec", bank="bank", seed=options.seed + k + 1)
        elif options.go_on:
            chain.flow(
                "go_on", "--codec", options.go_on, "--init", options.go_on, "--rate", "5e-4",
                "--guide-from", 0, bank="bank_go_on", seed=7,
            )  # fmt: skip
        well = chain.wait(name)
        if k + 1 < options.seeds:
            after = JUDGE + (SHARES["go_on"] * steps if options.go_on else 0)
            chain.go(later, min(share * steps, chain.left() - after))
        elif options.go_on:
            chain.go("go_on", min(SHARES["go_on"] * steps, chain.left() - JUDGE))
        if well:
            chain.judge(f"scratch_{k}", chain.decoder(), out / name)
            judged.append(f"scratch_{k}")
    if options.go_on:
        judged.append("before")
        if chain.wait("go_on"):
            chain.judge("go_on", options.go_on, out / "go_on")
            judged.append("go_on")
    ended = [chain.wait(f"judge_{name}") for name in judged]
    return 0 if all(ended) else 1


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--recordings", type=Path, help="file of engines.imp.recordings")
    parser.add_argument("--musicnn", type=Path, help="file of engines.imp.outside")
    parser.add_argument("--listener", type=Path, help="who judges; without, one is trained")
    parser.add_argument("--seeds", type=int, default=1, help="flow models, for the spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--go-on", type=Path, help="engine folder whose flow model goes on")
    parser.add_argument("--reserve", type=float, default=START + BANK + JUDGE)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--pool-hours", type=float, default=10)
    parser.add_argument("--pairs", type=int, default=4000, help="at most, for each worker")
    parser.add_argument("--bank-seconds", type=float, default=55)
    parser.add_argument("--listener-seconds", type=float, default=60)
    parser.add_argument("--listener-batch", type=int, default=64)
    parser.add_argument("--codec-batch", type=int, default=24)
    parser.add_argument("--flow-batch", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--per-genre", type=int, default=12)
    parser.add_argument("--scratch", default="/tmp/imp")
    parser.add_argument("--device", default="cuda")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
