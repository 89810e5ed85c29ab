"""A small network of torch with adapters; every row for itself."""

import torch

from demon_live.models.lora import Adapter, Factors, LoraBank
from tests.helpers.velocity_models import C

SIZES = {"net.0": (16, C), "net.2": (C, 16)}


class Net:
    """Two layers over the channels; every row for itself."""

    def __init__(self, dtype=torch.float32):
        torch.manual_seed(3)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(C, 16), torch.nn.Tanh(), torch.nn.Linear(16, C)
        ).to(dtype)
        self.dtype = dtype
        linear = {n: m for n, m in self.net.named_modules() if isinstance(m, torch.nn.Linear)}
        self.weights = LoraBank({f"net.{name}": m.weight for name, m in linear.items()})
        self.seen = []

    def velocity(self, x, t, rows):
        self.seen.append(dict(self.weights.strengths))
        # One row after the other: a batched product rounds by the size of its batch.
        return torch.stack([self.net(row.to(self.dtype)).float() for row in x])

    def bits(self):
        return [p.detach().clone() for p in self.net.parameters()]


def adapter(name, seed, targets=tuple(SIZES), rank=3, scale=2.0):
    make = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=make) * 0.2

    return Adapter(
        name,
        {t: Factors(normal(rank, SIZES[t][1]), normal(SIZES[t][0], rank), scale) for t in targets},
    )


def net(*adapters, dtype=torch.float32):
    it = Net(dtype)
    for one in adapters:
        it.weights.add(one)
    return it
