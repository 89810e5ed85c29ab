"""Figures of the ring that need a GPU, as JSON: nothing but the engine is imported.

    PYTHONPATH=. python -m tests.tools.on_gpu FIGURES.json

overhead: everything in a tick but the model, T = 1500, 64 channels, as graphs and eagerly.
adapters: a LoRA over 96 weights of 2048 x 2048 (bf16): how long the work beside the ticks takes,
and the copy that a tick waits for.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from demon_live.bench.ring import overhead_table
from demon_live.models.lora import Adapter, Factors, LoraBank


def adapters(weights: int = 96, size: int = 2048, rank: int = 16) -> dict[str, Any]:
    """Times in ms: prepared (to the end of the side stream's work), committed (between events)."""
    names = [f"layer.{n}" for n in range(weights)]
    targets = {n: torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for n in names}
    bank = LoraBank(targets)
    for one in "ab":
        bank.add(
            Adapter(
                one,
                {
                    n: Factors(
                        torch.randn(rank, size, device="cuda"),
                        torch.randn(size, rank, device="cuda"),
                        1.0,
                    )
                    for n in names
                },
            )
        )
    prepared, committed, host = [], [], []
    for turn in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        refit = bank.prepare({"a": 0.1 * turn + 0.1, "b": 0.5})
        while not bank.done(refit):
            pass
        prepared.append((time.perf_counter() - start) * 1e3)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start = time.perf_counter()
        begin.record()
        bank.commit(refit)
        end.record()
        host.append((time.perf_counter() - start) * 1e3)
        torch.cuda.synchronize()
        committed.append(begin.elapsed_time(end))
    middle = len(prepared) // 2
    return {
        "weights_bytes": weights * size * size * 2,
        "prepare_ms": sorted(prepared)[middle],
        "commit_device_ms": sorted(committed)[middle],
        "commit_host_ms": sorted(host)[middle],
    }


def main() -> None:
    figures = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "frames": 1500,
        "channels": 64,
        "steps": 8,
        "captured": overhead_table(device="cuda", capture=True),
        "eager": overhead_table(device="cuda", capture=False),
        "adapters": adapters(),
    }
    Path(sys.argv[1]).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
