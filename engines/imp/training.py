"""What both trainings share: Muon with AdamW, moving averages, whole-step CUDA graphs, shards for
transport.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.imp.parallel import Team

START = time.perf_counter()


def say(*words: object) -> None:
    """One line on stdout with the seconds since start."""
    sys.stdout.write(
        f"[{time.perf_counter() - START:6.1f}] " + " ".join(str(w) for w in words) + "\n"
    )
    sys.stdout.flush()


def left(by: float) -> float:
    """Seconds that are left until `by` seconds after the start."""
    return by - (time.perf_counter() - START)


class Optimiser:
    """Muon (orthogonalised momentum, arXiv 2502.16982) on matrices, AdamW on the rest; one
    learning rate, a tensor.
    """

    def __init__(
        self, matrices: list[nn.Parameter], rest: list[nn.Parameter], betas: tuple[float, float]
    ) -> None:
        device = rest[0].device
        self.cuda = device.type == "cuda"
        self.lr = torch.tensor(0.0, device=device)
        plain = [p for p in rest if p.ndim < 2]
        decayed = [p for p in rest if p.ndim >= 2]
        groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": plain, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(
            groups,
            lr=self.lr if self.cuda else 1e-3,
            betas=betas,
            capturable=self.cuda,
            foreach=True,
        )
        self.stacks: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for p in matrices:
            self.stacks.setdefault(tuple(p.shape), []).append(p)
        self.momentum = {
            shape: torch.zeros(len(ps), *shape, device=device) for shape, ps in self.stacks.items()
        }
        self.parameters = matrices + rest

    def rate(self, value: float) -> None:
        """Set the learning rate of the next step."""
        self.lr.fill_(value)
        if not self.cuda:
            for group in self.adam.param_groups:
                group["lr"] = value

    @torch.no_grad()
    def step(self) -> None:
        """Clip at norm 1, then update; no host work, so that it can be captured."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.adam.step()
        for shape, params in self.stacks.items():
            gradient = torch.stack([p.grad for p in params if p.grad is not None])
            buffer = self.momentum[shape]
            buffer.lerp_(gradient, 0.05)
            update = orthogonal(gradient.lerp(buffer, 0.95)) * (-0.2 * max(shape) ** 0.5) * self.lr
            torch._foreach_mul_(params, 1 - self.lr * 0.01)  # type: ignore[arg-type]
            torch._foreach_add_(params, list(update.unbind(0)))  # type: ignore[arg-type]

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Any]:
        """All that is needed to go on later."""
        return {"adam": self.adam.state_dict(), "momentum": dict(self.momentum)}

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave; before the step is captured."""
        self.adam.load_state_dict(state["adam"])
        for group in self.adam.param_groups:
            group["lr"] = self.lr if self.cuda else float(self.lr)
        for shape, buffer in state["momentum"].items():
            self.momentum[shape].copy_(buffer)

    def reset(self) -> None:
        """Forget everything learnt about the gradients (after warming up on noise)."""
        self.clear()
        self.adam.state.clear()
        for buffer in self.momentum.values():
            buffer.zero_()


def orthogonal(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration: [n, a, b] -> nearly orthogonal, float32."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        g = x @ x.mT
        x = 3.4445 * x + (-4.775 * g + 2.0315 * (g @ g)) @ x
    return (x.mT if tall else x).float()


class Average:
    """Exponential moving average of tensors."""

    def __init__(self, tensors: list[Tensor], rate: float) -> None:
        self.tensors, self.rate = tensors, rate
        self.shadow = [t.detach().clone() for t in tensors]

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self.shadow, [t.detach() for t in self.tensors], self.rate)

    @torch.no_grad()
    def restart(self) -> None:
        torch._foreach_copy_(self.shadow, [t.detach() for t in self.tensors])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged values in place of the live ones."""
        live = [t.detach().clone() for t in self.tensors]
        try:
            self.fill(self.shadow)
            yield
        finally:
            self.fill(live)

    @torch.no_grad()
    def fill(self, values: list[Tensor]) -> None:
        """Overwrite the tensors."""
        torch._foreach_copy_(self.tensors, values)


@dataclass(frozen=True)
class Step:
    """One step of a training: gradients, their mean over the processes, the update.

    parameters: whose gradients are averaged. statistics: tensors that are averaged with them.
    """

    gradients: Callable[[], None]
    update: Callable[[], None]
    parameters: list[nn.Parameter]
    team: Team
    statistics: list[Tensor] = field(default_factory=list)

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def shared(self) -> list[Tensor]:
        """What is averaged over the processes."""
        return [p.grad for p in self.parameters if p.grad is not None] + self.statistics

    def __call__(self) -> None:
        """The step, launched operation by operation."""
        self.clear()
        self.gradients()
        self.team.average(self.shared())
        self.update()


def captured(step: Step, cuda: bool) -> Callable[[], None]:
    """A step as two CUDA graphs with the averaging between them; plain on the CPU, and where the
    capture fails (said).
    """
    if not cuda:
        return step
    try:
        torch.cuda.synchronize()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        step.clear()
        graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[0], capture_error_mode="thread_local"):
            step.gradients()
        shared = step.shared()
        with torch.cuda.graph(graphs[1], capture_error_mode="thread_local"):
            step.update()
    except RuntimeError as problem:
        say("no CUDA graph, running step by step:", repr(problem)[:300])
        torch.cuda.synchronize()
        return step

    def replay() -> None:
        graphs[0].replay()
        step.team.average(shared)
        graphs[1].replay()

    return replay


def schedule(done: float, step: int, peak: float, warm: int, decay: float) -> float:
    """Learning rate: linear warm-up over `warm` steps, flat, linear to zero over the last share
    `decay`.
    """
    return peak * min(1.0, (step + 1) / warm) * min(1.0, max(0.0, 1 - done) / decay + 0.01)


def save_shards(
    folder: Path, name: str, tensors: dict[str, Tensor], limit: int = 15_000_000
) -> None:
    """Write float16 safetensors in shards below `limit` bytes: NAME_0.safetensors ..."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in tensors.items():
        if size + 2 * value.numel() > limit:
            shards.append({})
            size = 0
        shards[-1][key] = value.detach().half().contiguous().cpu()
        size += 2 * value.numel()
    for i, shard in enumerate(shards):
        save_file(shard, folder / f"{name}_{i}.safetensors")


def load_shards(folder: Path, name: str) -> dict[str, Tensor]:
    """What `save_shards` wrote, or the one file NAME.safetensors of an engine."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob(f"{name}_*.safetensors")):
        tensors.update(load_file(path))
    if not tensors:
        whole = load_file(folder / f"{name}.safetensors")
        tensors = {
            key.removeprefix("flow.") if name == "flow" else key: whole[key] for key in whole
        }
    return tensors


def join_shards(folder: Path, name: str, prefix: str = "") -> Path:
    """The shards as one file NAME.safetensors beside them, as an engine holds it."""
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    save_file({prefix + key: value for key, value in load_shards(folder, name).items()}, path)
    return path


def wait_for(path: Path, limit: float = 3600.0) -> str:
    """Until PATH is there -> what it says. RuntimeError: it says `never`, or time is up."""
    begin = time.perf_counter()
    while not path.exists():
        if time.perf_counter() - begin > limit:
            raise RuntimeError(f"{path} was not written")
        time.sleep(0.3)
    text = path.read_text()
    if text.strip() == "never":
        raise RuntimeError(f"{path}: never")
    return text
