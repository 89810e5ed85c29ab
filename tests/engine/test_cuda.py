"""The ring on a GPU: the same latents, no waiting for the device inside a tick."""

import numpy as np
import pytest
import torch

from demon_live.engine import Ring, solver
from demon_live.engine.noise import key, normal, normal_on, signed
from demon_live.models.lora import Adapter, Factors, LoraBank
from tests.helpers.velocity_models import SHARED, Linear, T, request, variety

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def run(device):
    it = Ring(Linear(), steps=8, depth=4, device=device)
    for name, value in SHARED.items():
        it.share(name, value)
    out = []
    for n in range(40):
        it.submit(request(n, cfg=["off", "full", "self", "initialize"][n % 4]))
        if n == 20:
            it.migrate("main", denoise=0.3)
        out += it.tick()
    return out + it.flush()


def test_as_on_the_cpu():
    for a, b in zip(run("cuda"), run("cpu"), strict=True):
        assert a.versions == b.versions
        assert (a.born, a.retired) == (b.born, b.retired)
        assert np.abs(a.latent - b.latent).max() < 1e-5


def test_the_same_noise():
    keys = [key(seed, 1) for seed in range(4)]
    numbers = torch.from_numpy(signed(keys)).cuda()
    assert np.array_equal(normal_on(numbers, 50, 64).cpu(), [normal(k, 50, 64) for k in keys])


# torch calls the mode a prototype, once; were that raised, the mode would stay for later tests.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_tick_waits_for_the_device_but_for_finished_latents():
    it = Ring(Linear(), steps=8, depth=4, device="cuda")
    it.enlist("main")
    it.on_admit = lambda deck: request(it.tick_number, cfg="full")
    for name, value in SHARED.items():
        it.share(name, value)
    for n in range(60):
        it.share("velocity", n / 100)
        it.tick()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for n in range(20):
            it.share("velocity", 1.0 + n / 100)
            it.tick()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert it.graphs[1] > 50


@pytest.mark.parametrize("shared", [{}, {"noise": 0.3}, SHARED])
def test_graphs_change_no_bit(shared):
    """The captured step against the eager one, on a stream in which everything differs."""

    def stream(capture):
        it = Ring(Linear(), steps=8, depth=4, shift=3.0, device="cuda", capture=capture)
        out = []
        for n in range(120):
            for name, value in shared.items():
                it.share(name, value if n % 3 else value * (1 - n / 1000))
            if n in (30, 77):
                it.migrate("main", denoise=0.3)
            if n == 50:
                it.resize(6)
            it.submit(variety(n))
            out += it.tick()
        return out + it.flush(), it.graphs

    (eager, none), (captured, graphs) = stream(False), stream(True)
    assert none == (0, 0)
    assert graphs[1] > graphs[0] > 4
    for a, b in zip(eager, captured, strict=True):
        assert a.versions == b.versions
        assert np.array_equal(a.latent, b.latent)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_streaming_equals_one_at_a_time(depth):
    """To the bit, through graphs, with a model whose rows are independent."""

    def play(depth, requests):
        it = Ring(Linear(), steps=8, depth=depth, shift=3.0, device="cuda")
        for name, value in SHARED.items():
            it.share(name, value)
        todo = list(requests)
        it.on_admit = lambda deck: todo.pop(0) if todo else None
        it.enlist("main")
        out = [g for _ in range(110) for g in it.tick()]
        return [g.latent for g in out + it.flush()]

    requests = [variety(n) for n in range(12)]
    streamed = play(depth, requests)
    assert len(streamed) == 12
    for latent, one in zip(streamed, requests, strict=True):
        (expected,) = play(1, [one])
        assert np.array_equal(latent, expected)


def test_the_step_with_the_model_in_one_graph():
    """A mock model and the solver step, captured by hand into one graph and replayed."""
    x = torch.randn(4, T, 64, device="cuda")
    source = torch.randn_like(x)
    columns = torch.rand(5, 4, T, 1, device="cuda")
    keys = torch.tensor([1, 2, 3, 4], device="cuda")
    out, scratch = torch.empty_like(x), torch.empty_like(x)

    def step():
        v = 0.3 * x + 0.1
        z = normal_on(keys, T, 64)
        return solver.combine(columns, x, (v, z, source, None), out, scratch)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for seed in range(5):
        x.copy_(torch.randn_like(x))
        columns.copy_(torch.rand_like(columns))
        keys.add_(seed)
        graph.replay()
        replayed = out.clone()
        assert torch.equal(step(), replayed)


def test_adapters_prepared_beside_the_ticks():
    """LoRA on the device: a captured network sees the new weights, removal restores every bit."""
    weight = torch.randn(64, 64, device="cuda", dtype=torch.bfloat16)
    base, bank = weight.clone(), LoraBank({"w": weight})
    factors = Factors(torch.randn(8, 64) * 0.1, torch.randn(64, 8) * 0.1, 2.0)
    bank.add(Adapter("a", {"w": factors}))
    x, y = torch.randn(64, 64, device="cuda", dtype=torch.bfloat16), torch.empty_like(weight)
    torch.mm(x, weight, out=y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.mm(x, weight, out=y)
    refit = bank.prepare({"a": 0.7})
    while not bank.done(refit):
        pass
    bank.commit(refit)
    graph.replay()
    change = 0.7 * factors.scale * (factors.up @ factors.down)
    expected = (base.float().cpu() + change).to(torch.bfloat16).cuda()
    assert torch.allclose(weight, expected, rtol=1e-2, atol=1e-2)
    assert torch.equal(y, torch.mm(x, weight))
    bank.remove("a")
    assert torch.equal(weight, base)
