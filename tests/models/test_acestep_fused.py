"""The fused DiT and the windowed decoder equal diffusers' modules, at toy size, in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from demon_live.errors import EngineError
from demon_live.models.acestep import encode, forward, fused, load
from tests.helpers import acestep_toy as toy

pytest.importorskip("diffusers")
#: Loading diffusers and transformers alone takes a busy machine a minute.
pytestmark = pytest.mark.timeout(900)

#: Relative to the largest value: the same sums in another order.
CLOSE = 1e-5


@pytest.fixture(scope="module", params=["2b", "xl"])
def parts(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    config = toy.TOY if request.param == "2b" else toy.TOY_XL
    return toy.make_modules(config)["transformer"], config


def inputs(config: Any, rows: int = 3, frames: int = 90) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return {
        "x": torch.randn(rows, frames, 64, generator=g),
        "t": torch.linspace(1.0, 0.2, rows),
        "context": torch.randn(rows, frames, 128, generator=g),
    }


def cross(packed: Any, states: list[torch.Tensor], most: int = 24) -> fused.KeysValues:
    kept = torch.zeros(packed.config.layers, 2, len(states), most, packed.keep(states[0]).shape[-1])
    for i, one in enumerate(states):
        kept[:, :, i, : len(one)] = packed.keep(one)
    return fused.KeysValues(kept, torch.tensor([len(s) for s in states], dtype=torch.int32))


def states(config: Any, lengths: tuple[int, ...], seed: int = 3) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, config.encoder_hidden, generator=g) for n in lengths]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).abs().max()) < CLOSE * float(b.abs().max())


def test_fused_equals_diffusers_module(parts: tuple[Any, Any]) -> None:
    dit, config = parts
    ops = fused.Plain(config)
    packed = fused.pack(dit, config, ops)
    given, said = inputs(config), states(config, (17, 17, 17))
    turn = fused.turn_of(config, 45, given["x"])
    ours = fused.forward(packed, ops, **given, cross=cross(packed, said), turn=turn)
    with torch.no_grad():
        theirs = dit(
            given["x"],
            given["t"],
            given["t"],
            torch.stack(said),
            given["context"],
            return_dict=False,
        )[0]
    assert close(ours, theirs)


def test_fused_masks_and_mixes_as_the_oracle(parts: tuple[Any, Any]) -> None:
    dit, config = parts
    ops = fused.Plain(config)
    packed = fused.pack(dit, config, ops)
    given = inputs(config)
    one, two = states(config, (5, 17, 11)), states(config, (9, 3, 20), seed=4)
    mix = torch.linspace(0, 1, 90).repeat(3, 1)
    turn = fused.turn_of(config, 45, given["x"])
    ours = fused.forward(
        packed,
        ops,
        **given,
        cross=cross(packed, one),
        turn=turn,
        mixed=(cross(packed, two), mix),
    )
    theirs = forward.forward(
        dit,
        **given,
        **dict(zip(("states", "keep"), encode.padded(one), strict=True)),
        mixed=(*encode.padded(two), mix),
    )
    assert close(ours, theirs)


@pytest.mark.parametrize("count", [8, 9, 10, 16, 17, 45, 64])
def test_windowed_attention_is_the_masked_one(count: int) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, count, 16, generator=g) for _ in range(3))
    mask = encode.band(count, 8, q)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(fused.windowed(q, k, v, 8), dense, atol=1e-6)


def test_lora_targets_are_views_of_what_is_computed(parts: tuple[Any, Any]) -> None:
    dit, config = parts
    ops = fused.Plain(config)
    packed = fused.pack(dit, config, ops)
    given, said = inputs(config), states(config, (17, 17, 17))
    turn = fused.turn_of(config, 45, given["x"])

    def run() -> torch.Tensor:
        return fused.forward(packed, ops, **given, cross=cross(packed, said), turn=turn)

    before = run()
    for name, weight in packed.targets().items():
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1
        weight += change
        assert not torch.equal(run(), before), name
        weight -= change
    assert torch.allclose(run(), before, atol=1e-3)
    upstream = {
        toy.upstream_name("transformer", k)[8:-7] for k in dit.state_dict() if "norm" not in k
    }
    assert set(packed.targets()) <= upstream


# -- decoding ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae() -> Any:
    made = toy.make_modules(replace(toy.TOY))["vae"]
    load._fold(made)
    return made


def test_decoder_equals_diffusers_vae(vae: Any) -> None:
    from demon_live.models.acestep.oobleck import Decoder

    z = torch.randn(2, 30, 64, generator=torch.Generator().manual_seed(0))
    decoder = Decoder(vae)
    assert decoder.hop == 1920
    with torch.no_grad():
        theirs = vae.decode(z.transpose(1, 2)).sample
    assert close(decoder.full(z), theirs)


@pytest.mark.parametrize(("before", "count"), [(9, 25), (9, 1), (12, 8)])
def test_window_is_the_same_stretch_of_the_whole(vae: Any, before: int, count: int) -> None:
    from demon_live.models.acestep.oobleck import Decoder

    decoder = Decoder(vae)
    z = torch.randn(1, 60, 64, generator=torch.Generator().manual_seed(1))
    whole = decoder.full(z)
    at = 20
    cut = z[:, at - before : at + count + before]
    window = decoder.window(cut, before, count)
    assert window.shape == (1, 2, count * 1920)
    assert close(window, whole[:, :, at * 1920 : (at + count) * 1920])


def test_a_window_without_its_context_is_refused(vae: Any) -> None:
    from demon_live.models.acestep.oobleck import Decoder

    with pytest.raises(EngineError, match="lack context"):
        Decoder(vae).window(torch.zeros(1, 33, 64), 4, 25)


# -- the backend -----------------------------------------------------------------------------------


def test_graphs_backend_plays_what_eager_plays(tmp_path: Any) -> None:
    """On a CPU the graphs' forward runs uncaptured: the same stacking, masks, windows, loops."""
    import numpy as np

    from demon_live.core import Request
    from demon_live.engine import BatchRow
    from demon_live.models.engine import open_engine

    toy.save_original(tmp_path / "t")
    manifest = toy.manifest_of(tmp_path / "t")
    both = [open_engine(manifest, backend=b, device="cpu", threads=1) for b in ("eager", "graphs")]
    rng = np.random.default_rng(0)
    for frames in (150, 151, 100):
        source = rng.standard_normal((frames, 64), dtype=np.float32)
        hint = np.linspace(0, 1, frames, dtype=np.float32)
        made = []
        for engine in both:
            said = [
                engine.condition(p, prompt2="pads", bpm=120, cycles=2, beats=4, frames=frames)
                for p in ("techno", "a longer prompt with more words in it")
            ]
            request = Request(frames=frames, channels=64, source=source)
            lanes = [{}, {"hint": hint}, {"prompt_mix": hint}, {"prompt_mix": hint, "hint": hint}]
            rows = [
                BatchRow(request, said[i % 2], 0, 8, 1.0, "main", i, "positive", lane)
                for i, lane in enumerate(lanes)
            ]
            rows.append(BatchRow(request, None, 0, 8, 1.0, "main", 9, "negative", {}))
            x = torch.randn(5, frames, 64, generator=torch.Generator().manual_seed(frames))
            made.append(engine.velocity(x, torch.linspace(1, 0.3, 5), rows))
        assert made[1].shape == (5, frames, 64)
        assert close(made[1], made[0])
    latent = rng.standard_normal((1, 43, 64), dtype=np.float32)
    a, b = (engine.decode(latent)[:, 9 * 1920 : -9 * 1920] for engine in both)
    assert close(torch.from_numpy(b), torch.from_numpy(a))
    assert "fused" in both[1].describe()
