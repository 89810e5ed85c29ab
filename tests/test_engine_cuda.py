"""The ring on a GPU: the same latents, no waiting for the device inside a tick."""

import numpy as np
import pytest
import torch

from demon_live.engine import Ring
from demon_live.engine.rng import key, normal, normal_on
from tests.test_engine_mocks import Linear, T, request

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SHARED = {
    "blend": np.linspace(0, 1, T, dtype=np.float32),
    "velocity": 0.9,
    "morph": 0.3,
    "guide": 2.0,
    "momentum": -0.5,
    "rescale": 0.4,
    "energy": 1.2,
}


def run(device, overlap=False):
    it = Ring(Linear(), steps=8, depth=4, device=device, overlap=overlap)
    for name, value in SHARED.items():
        it.share(name, value)
    out = []
    for n in range(40):
        it.submit(request(n, cfg=["off", "full", "self", "initialize"][n % 4]))
        if n == 20:
            it.migrate("main", denoise=0.3)
        out += it.tick()
    return out + it.flush()


@pytest.mark.parametrize("overlap", [False, True])
def test_as_on_the_cpu(overlap):
    for a, b in zip(run("cuda", overlap), run("cpu"), strict=True):
        assert a.versions == b.versions
        assert (a.born, a.retired) == (b.born, b.retired)
        assert np.abs(a.latent - b.latent).max() < 1e-5


def test_the_same_noise():
    keys = [key(seed, 1) for seed in range(4)]
    signed = torch.tensor([k - (1 << 64) if k >> 63 else k for k in keys], device="cuda")
    assert np.array_equal(normal_on(signed, 50, 64).cpu(), [normal(k, 50, 64) for k in keys])


def test_no_tick_waits_for_the_device():
    it = Ring(Linear(), steps=8, depth=4, device="cuda", overlap=True)
    it.enlist("main")
    it.on_admit = lambda deck: request(it.tick_number, cfg="full")
    for name, value in SHARED.items():
        it.share(name, value)
    for _ in range(10):
        it.tick()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for n in range(20):
            it.share("velocity", 1.0 + n / 100)
            it.tick()
    finally:
        torch.cuda.set_sync_debug_mode("default")
