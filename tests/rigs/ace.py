"""ACE-Step on a GPU, with random weights: ticks, precision, windows, and what others make of them.

    python -m tests.rigs.ace --out ace.json [--budget 300] [--only SETTINGS,SETTINGS]

Stages run one after the other, each under a time limit of its own, and each is written out as soon
as it ends, so that an interrupted run loses nothing. Baselines run in the same process: diffusers'
module eager, and compiled and captured. Ratios hold anywhere; times hold on the card they name.

    ceiling   an 8192-cube matrix product in bf16, and in fp8        parity   graphs against eager
    ring      ticks of the fused graph, bf16 and fp8, by rows        decode   windows against whole
    profile   where a tick's time goes                               lora     a change of strength
    lengths   loops of 15 to 240 s                                   xl       the XL model
    eager     diffusers' module                                      compiled the same, captured
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from demon_live.bench.common import machine

ROWS = (1, 4, 8, 2)
FRAMES, TOKENS, STEPS = 1500, 96, 8


def flops(config: Any, rows: int, frames: int, tokens: int) -> float:
    """Floating point operations of a tick's matrix products, attention windowed as the model's."""
    s, wide = -(-frames // config.patch), config.heads * config.head_dim
    narrow = config.kv_heads * config.head_dim
    layer = config.hidden * (wide + 2 * narrow) + 3 * wide * config.hidden
    layer += 3 * config.hidden * config.intermediate
    seen = [
        min(s, 2 * config.sliding_window + 1) if kind == "sliding_attention" else s
        for kind in config.kinds
    ]
    attention = 2 * wide * sum(keys + tokens for keys in seen)
    return float(2 * rows * s * (config.layers * layer + attention))


class OverTime(Exception):
    """A stage took longer than its limit."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise OverTime in the block after so many seconds."""

    def stop(*_: object) -> None:
        raise OverTime(f"over {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(call: Callable[[], object], runs: int = 15, warm: int = 3) -> dict[str, float]:
    """Device time of single calls in ms: minimum and median."""
    import torch

    for _ in range(warm):
        call()
    spent = []
    for _ in range(runs):
        if not torch.cuda.is_available():
            began = time.perf_counter()
            call()
            spent.append((time.perf_counter() - began) * 1e3)
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        end.synchronize()
        spent.append(begin.elapsed_time(end))
    spent.sort()
    return {"min_ms": round(spent[0], 3), "median_ms": round(spent[len(spent) // 2], 3)}


class Bench:
    """The stages, sharing one model.

    config, frames: 2B's and 60 s, unless given. vae: settings of the VAE. On a machine without a
    GPU the stages run as well, of a toy: for tests of the bench itself.
    """

    def __init__(
        self,
        out: Path | None,
        budget: float,
        config: Any = None,
        frames: int = FRAMES,
        vae: dict[str, Any] | None = None,
    ) -> None:
        import torch

        from demon_live.models.acestep.layout import AceConfig

        self.out, self.ends = out, time.monotonic() + budget
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.gpu else "cpu")
        self.dtype = torch.bfloat16
        self.config, self.frames, self.vae = config or AceConfig(), frames, vae
        self.found: dict[str, Any] = {"machine": machine(), "frames": frames, "tokens": TOKENS}
        if self.gpu:
            self.found["machine"] |= {
                "gpu": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "memory_GB": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1),
            }
        self._modules: Any = None
        self._kernels: dict[bool, Any] = {}
        self.ceilings: dict[str, float] = {}

    def run(self, stages: list[tuple[str, float]]) -> None:
        """Each stage by name, under its limit, until the budget is spent."""
        for name, most in stages:
            left = self.ends - time.monotonic()
            if left < 5:
                self.found[name] = {"skipped": "no time left"}
                continue
            began = time.monotonic()
            rows: dict[str, Any] = {}
            self.found[name] = rows
            try:
                with limit(min(most, left)):
                    getattr(self, f"_{name}")(rows)
            except Exception:  # noqa: BLE001 (a stage that fails must not cost the others)
                rows["failed"] = traceback.format_exc()[-6000:]
            rows["took_s"] = round(time.monotonic() - began, 1)
            self.write()
            sys.stderr.write(f"{name}: {json.dumps(rows, default=str)[:2500]}\n")
            sys.stderr.flush()

    def write(self) -> None:
        if self.out is not None:
            self.out.write_text(json.dumps(self.found, indent=1, default=str) + "\n", "utf-8")

    def sync(self) -> None:
        import torch

        if self.gpu:
            torch.cuda.synchronize()

    # -- what is measured ------------------------------------------------------------------------

    @property
    def modules(self) -> Any:
        if self._modules is None:
            from demon_live.models.acestep.load import build

            parts = ("transformer",)
            self._modules = build(self.config, self.device, self.dtype, parts=parts, vae=self.vae)
        return self._modules

    def kernels(self, fp8: bool) -> Any:
        """The graphs backend. The module beside it stays whole: it is the oracle."""
        if fp8 not in self._kernels:
            from demon_live.models.acestep import graphs

            self._kernels[fp8] = graphs.AceGraphs(self.modules, window=43, fp8=fp8, release=False)
        return self._kernels[fp8]

    def inputs(self, rows: int, frames: int = 0, seed: int = 1) -> tuple[Any, Any, Any, Any]:
        """x, t, context, states [rows, L, D]."""
        import torch

        c, frames = self.config, frames or self.frames
        g = torch.Generator(self.device).manual_seed(seed)

        def noise(*shape: int) -> Any:
            return torch.randn(*shape, device=self.device, generator=g)

        t = torch.linspace(1.0, 0.3, rows, device=self.device)
        states = noise(rows, TOKENS, c.encoder_hidden).to(self.dtype)
        return noise(rows, frames, 64), t, noise(rows, frames, 128).to(self.dtype), states

    def batch(self, kernels: Any, context: Any, states: Any) -> Any:
        from demon_live.models.acestep.engine import Batch, ConditionStates

        told = []
        for one in states:
            made = ConditionStates()
            made.states, made.kept, made.length = one, kernels.keep(one), len(one)
            told.append(made)
        return Batch(context, told, told, None, time.monotonic_ns())

    def _rate(self, row: dict[str, Any], rows: int, frames: int, kind: str) -> dict[str, Any]:
        seconds = row["median_ms"] / 1e3
        row["generations_per_s"] = round(rows / STEPS / seconds, 2)
        reached = flops(self.config, rows, frames, TOKENS) / seconds / 1e12
        row["TFLOPs"] = round(reached, 1)
        if self.ceilings.get(kind):
            row["of_ceiling"] = round(reached / self.ceilings[kind], 3)
        return row

    # -- stages ----------------------------------------------------------------------------------

    def _ceiling(self, found: dict[str, Any]) -> None:
        import torch

        n = 8192 if self.gpu else 64
        a, b = (torch.randn(n, n, device=self.device, dtype=self.dtype) for _ in range(2))
        ms = timed(lambda: a @ b, 20)["median_ms"]
        self.ceilings["bf16"] = found["bf16_TFLOPs"] = round(2 * n**3 / ms / 1e9, 1)
        if not self.gpu:
            return
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
        one = torch.ones(n, 1, device=self.device)

        def product() -> object:
            return torch._scaled_mm(
                a8, b8.t(), scale_a=one, scale_b=one.t(), out_dtype=self.dtype, use_fast_accum=True
            )

        ms = timed(product, 20)["median_ms"]
        self.ceilings["fp8"] = found["fp8_rowwise_TFLOPs"] = round(2 * n**3 / ms / 1e9, 1)

    def _parity(self, found: dict[str, Any]) -> None:
        """Relative error of the velocity: of fused bf16, of fp8, of eager bf16, against fp32."""
        from demon_live.models.acestep import encode
        from demon_live.models.acestep.forward import forward

        x, t, context, states = self.inputs(3)
        said = [states[0], states[1][:40], states[2][:77]]
        padded, keep = encode.padded(said)
        eager = forward(self.modules.dit, x, t, context, padded, keep)
        for fp8 in (False, True):
            kernels = self.kernels(fp8)
            v = kernels.flow(x, t, self.batch(kernels, context, said))
            name = "fp8" if fp8 else "bf16"
            found[f"{name}_against_eager_bf16"] = float((v - eager).norm() / eager.norm())
            found[f"{name}_finite"] = bool(v.isfinite().all())
            again = kernels.flow(x, t, self.batch(kernels, context, said))
            found[f"{name}_repeats_bit_for_bit"] = bool((again == v).all())
            one = kernels.flow(x[1:2], t[1:2], self.batch(kernels, context[1:2], said[1:2]))
            found[f"{name}_row_alone_against_in_batch"] = float(
                (one[0] - v[1]).norm() / v[1].norm()
            )
        dit32 = self.modules.dit.float()
        exact = forward(dit32, x, t, context.float(), padded.float(), keep)
        self.modules.dit.to(self.dtype)
        norm = exact.norm()
        found["eager_bf16_against_fp32"] = float((eager - exact).norm() / norm)
        for fp8 in (False, True):
            kernels = self.kernels(fp8)
            v = kernels.flow(x, t, self.batch(kernels, context, said))
            found[f"{'fp8' if fp8 else 'bf16'}_against_fp32"] = float((v - exact).norm() / norm)

    def _ring(self, found: dict[str, Any]) -> None:
        import torch

        for fp8 in (False, True):
            kernels, kind = self.kernels(fp8), "fp8" if fp8 else "bf16"
            for rows in ROWS:
                x, t, context, states = self.inputs(rows)
                batch = self.batch(kernels, context, states)
                began = time.monotonic()
                kernels.flow(x, t, batch)
                self.sync()
                first = time.monotonic() - began
                row = timed(lambda k=kernels, g=(x, t, batch): k.flow(*g))  # type: ignore[misc]
                bucket = next(reversed(kernels._buckets.values()))
                if bucket.graph is not None:
                    row["graph_alone_ms"] = timed(bucket.graph.replay, 9)["median_ms"]
                row["first_call_s"] = round(first, 2)
                found[f"{kind}_rows_{rows}"] = self._rate(row, rows, self.frames, kind)
                self.write()
            kernels._buckets.clear()
            found[f"{kind}_peak_GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)

    def _lengths(self, found: dict[str, Any]) -> None:
        kernels = self.kernels(False)
        for seconds in (15, 30, 120, 240) if self.gpu else (6,):
            frames = seconds * 25
            x, t, context, states = self.inputs(4, frames)
            batch = self.batch(kernels, context, states)
            row = timed(lambda g=(x, t, batch): kernels.flow(*g), 7)  # type: ignore[misc]
            found[f"bf16_rows_4_{seconds}_s"] = self._rate(row, 4, frames, "bf16")
            kernels._buckets.clear()

    def _profile(self, found: dict[str, Any]) -> None:
        from torch.profiler import ProfilerActivity, profile

        for fp8 in (False, True):
            kernels = self.kernels(fp8)
            x, t, context, states = self.inputs(4)
            batch = self.batch(kernels, context, states)
            kernels.flow(x, t, batch)
            with profile(activities=[ProfilerActivity.CUDA]) as prof:
                for _ in range(3):
                    kernels.flow(x, t, batch)
            rows = sorted(prof.key_averages(), key=lambda e: -e.self_device_time_total)[:16]
            found["fp8" if fp8 else "bf16"] = [
                {
                    "kernel": e.key[:90],
                    "ms_per_tick": round(e.self_device_time_total / 3e3, 3),
                    "calls": e.count // 3,
                }
                for e in rows
            ]
            kernels._buckets.clear()

    def _decode(self, found: dict[str, Any]) -> None:
        import torch

        kernels, vae = self.kernels(False), self.modules.vae
        z = torch.randn(1, self.frames, 64, device=self.device)
        wide = z.transpose(1, 2).to(self.dtype)
        with torch.no_grad():
            found["whole_60_s_diffusers"] = timed(lambda: vae.decode(wide).sample, 5, 2)
        found["whole_60_s"] = timed(lambda: kernels.decoder.full(z), 5, 2)
        whole = kernels.decoder.full(z)
        exact = vae.float().decode(z.transpose(1, 2)).sample
        vae.to(self.dtype)
        found["bf16_against_fp32"] = float((whole - exact).norm() / exact.norm())
        for inner in (25, 50, 75, 12):
            cut = z[:, 100 - 9 : 100 + inner + 9].contiguous()
            kernels._window = inner + 18
            row: dict[str, Any] = timed(lambda c=cut: kernels.decode(c), 15)  # type: ignore[misc]
            audio = kernels.decode(cut)[:, :, 9 * 1920 : -9 * 1920]
            part = whole[:, :, 100 * 1920 : (100 + inner) * 1920]
            row["interior_relative_error"] = float((audio - part).abs().max() / part.abs().max())
            for name in ("whole_60_s", "whole_60_s_diffusers"):
                row[f"times_cheaper_than_{name}"] = round(
                    found[name]["median_ms"] / row["median_ms"], 1
                )
            found[f"window_{inner}_frames"] = row
        if self.gpu:
            found["window_43_diffusers_captured"] = self._captured_vae(wide[:, :, :43].contiguous())
        # In float32 the same window is the same stretch to rounding.
        from demon_live.models.acestep.oobleck import Decoder

        decoder32 = Decoder(vae.float(), kernels.decoder._act)
        part = decoder32.full(z[:, :150])[:, :, 50 * 1920 : 75 * 1920]
        cut32 = decoder32.window(z[:, 41:84].contiguous(), 9, 25)
        vae.to(self.dtype)
        found["fp32_interior_error"] = float((cut32 - part).abs().max() / part.abs().max())

    def _captured_vae(self, z: Any) -> dict[str, float]:
        """diffusers' own decoder of so many frames, captured."""
        import torch

        with torch.no_grad():
            for _ in range(3):
                self.modules.vae.decode(z)
            self.sync()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.modules.vae.decode(z)
        return timed(graph.replay)

    def _lora(self, found: dict[str, Any]) -> None:
        import torch

        from demon_live.models.lora import Adapter, Factors, LoraBank

        kernels = self.kernels(False)
        targets = kernels.targets()
        factors = {}
        for name, weight in targets.items():
            if ".mlp." not in name:
                a = torch.randn(8, weight.shape[1], device=self.device, dtype=self.dtype) / 64
                b = torch.randn(weight.shape[0], 8, device=self.device, dtype=self.dtype) / 64
                factors[name] = Factors(a, b, 2.0)
        bank = LoraBank(targets)
        bank.add(Adapter("x", factors))
        began = time.monotonic()
        refit = bank.prepare({"x": 0.7})
        self.sync()
        found["worked_out_beside_ms"] = round((time.monotonic() - began) * 1e3, 1)
        spent = []
        for strength in (0.6, 0.5, 0.4):
            refit = bank.prepare({"x": strength})
            self.sync()
            began = time.monotonic()
            bank.commit(refit)
            queued = time.monotonic() - began
            self.sync()
            spent.append((time.monotonic() - began, queued))
        found["commit_ms"] = round(min(s for s, _ in spent) * 1e3, 2)
        found["commit_host_ms"] = round(min(q for _, q in spent) * 1e3, 2)
        found["weights"] = len(factors)
        bank.remove("x")

    def _eager(self, found: dict[str, Any]) -> None:
        import torch

        dit = self.modules.dit
        for rows in (1, 4):
            x, t, context, states = self.inputs(rows)
            x, t = x.to(self.dtype), t.to(self.dtype)

            def call(g: Any = (x, t, t, states, context)) -> object:
                with torch.no_grad():
                    return dit(*g, return_dict=False)[0]

            found[f"rows_{rows}"] = self._rate(timed(call, 5, 2), rows, self.frames, "bf16")

    def _compiled(self, found: dict[str, Any]) -> None:
        import torch
        import torch._dynamo

        torch._dynamo.config.recompile_limit = 64
        dit = self.modules.dit
        for layer in dit.layers:
            layer.compile(dynamic=False)
        for rows in (4, 1):
            x, t, context, states = self.inputs(rows)
            x, t = x.to(self.dtype), t.to(self.dtype)
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(2):
                        dit(x, t, t, states, context, return_dict=False)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    dit(x, t, t, states, context, return_dict=False)
            found[f"rows_{rows}"] = self._rate(timed(graph.replay), rows, self.frames, "bf16")
            self.write()

    def _xl(self, found: dict[str, Any]) -> None:
        import torch

        from demon_live.models.acestep import graphs
        from demon_live.models.acestep.layout import AceConfig
        from demon_live.models.acestep.load import build

        self._kernels.clear()
        self._modules = None
        torch.cuda.empty_cache()
        kept, self.config = self.config, AceConfig.xl()
        try:
            parts = ("transformer",)
            modules = build(self.config, self.device, self.dtype, parts=parts)
            for fp8 in (False, True):
                kernels = graphs.AceGraphs(modules, window=43, fp8=fp8, release=False)
                kind = "fp8" if fp8 else "bf16"
                for rows in (4, 1):
                    x, t, context, states = self.inputs(rows)
                    batch = self.batch(kernels, context, states)
                    row = timed(lambda k=kernels, g=(x, t, batch): k.flow(*g), 9)  # type: ignore[misc]
                    found[f"{kind}_rows_{rows}"] = self._rate(row, rows, self.frames, kind)
                    self.write()
                kernels.close()
                del kernels
            found["peak_GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
        finally:
            self.config = replace(kept)


#: (stage, its limit in seconds), in the order of their worth.
STAGES = [
    ("ceiling", 15.0),
    ("parity", 60.0),
    ("ring", 60.0),
    ("decode", 40.0),
    ("profile", 30.0),
    ("lora", 20.0),
    ("lengths", 30.0),
    ("eager", 20.0),
    ("compiled", 90.0),
    ("xl", 60.0),
]


def main(argv: list[str] | None = None) -> int:
    """Run the stages; the JSON goes to --out and to stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.ace")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float, default=300.0)
    parser.add_argument("--only", default="")
    args = parser.parse_args(argv)
    only = args.only.split(",") if args.only else [name for name, _ in STAGES]
    bench = Bench(args.out, args.budget)
    bench.run([(name, most) for name, most in STAGES if name in only])
    sys.stdout.write(json.dumps(bench.found, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
