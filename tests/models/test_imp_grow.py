"""A larger model begins where a smaller one stood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demon_live.models.imp import model as imp
from engines.imp.grow import base, grown, grown_flow
from engines.imp.train_codec import Codec


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imp, "DEPTH", 1)
    monkeypatch.setattr(imp, "COARSE_BLOCKS", 1)
    monkeypatch.setattr(imp, "FINE_BLOCKS", 1)


def tensors(encoder: imp.ImpEncoder, decoder: imp.ImpDecoder) -> dict[str, torch.Tensor]:
    named = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    return named | {f"decoder.{k}": v for k, v in decoder.state_dict().items()}


def test_the_base_of_a_grown_codec_is_the_codec_it_came_from() -> None:
    torch.manual_seed(0)
    encoder, decoder = imp.ImpEncoder(), imp.ImpDecoder()
    codec = Codec("cpu", channels=96, tone_bins=320)
    codec.load(tensors(encoder, decoder))
    audio = 0.1 * torch.randn(1, 2, 6 * imp.HOP)
    with torch.no_grad():
        wide, narrow = codec.encoder(audio), encoder(audio)
        assert torch.allclose(wide[..., : imp.CHANNELS], narrow, atol=1e-5)
        made, before = codec.decoder.trunk(wide), decoder.trunk(narrow)
    level, old = made[0].unflatten(-1, (2, -1)), before[0].unflatten(-1, (2, -1))
    assert torch.allclose(level[..., : imp.TONE_BINS], old, atol=1e-4)
    assert torch.allclose(made[2], before[2], atol=1e-4)
    # A new bin is the one 3 kHz below, softer.
    assert torch.allclose(level[..., 200:300], old[..., 80:180] - 0.5, atol=1e-4)


def test_the_base_decodes_alone_as_the_nested_codec_does_without_detail() -> None:
    torch.manual_seed(4)
    encoder, decoder = imp.ImpEncoder(96), imp.ImpDecoder(96, 320)
    few, alone = imp.codec_of(base(tensors(encoder, decoder)))
    audio = 0.1 * torch.randn(1, 2, 6 * imp.HOP)
    with torch.no_grad():
        z = encoder(audio)
        assert torch.allclose(few(audio), z[..., : imp.CHANNELS], atol=1e-5)
        z[..., imp.CHANNELS :] = 0
        for a, b in zip(alone.trunk(few(audio))[:3], decoder.trunk(z)[:3], strict=True):
            assert torch.allclose(a, b, atol=1e-4)


def test_nothing_changes_where_nothing_grows() -> None:
    torch.manual_seed(1)
    old = tensors(imp.ImpEncoder(), imp.ImpDecoder())
    same = grown(old, tensors(imp.ImpEncoder(), imp.ImpDecoder()))
    assert all(torch.equal(old[k], same[k]) for k in old)


def test_a_grown_flow_model_says_of_the_base_what_it_said() -> None:
    torch.manual_seed(2)
    old = imp.ImpFlow(timbre=False)
    with torch.no_grad():
        for p in old.parameters():
            p.normal_(std=0.1)
    flow = imp.ImpFlow(channels=96, lanes=True)
    flow.load_state_dict(grown_flow(old.state_dict(), flow))
    x, hint = torch.randn(1, 8, 96), torch.randn(1, 8, 97)
    phase, cond, t = torch.rand(1, 8, 2), torch.rand(1, 256), torch.tensor([0.5])
    lanes = torch.rand(1, 8, imp.LANES)
    few = torch.cat([hint[..., : imp.CHANNELS], hint[..., -1:]], dim=-1)
    with torch.no_grad():
        v = flow(x, t, hint, phase, cond, lanes)
        before = old(x[..., : imp.CHANNELS], t, few, phase, cond)
    assert torch.allclose(v[..., : imp.CHANNELS], before, atol=1e-4)


def test_shapes_and_branches_are_read_from_the_weights(tmp_path: Path) -> None:
    flow = imp.ImpFlow(channels=96, timbre=False, lanes=True)
    imp.save_half(tmp_path / "flow.safetensors", flow=flow)
    imp.save_half(
        tmp_path / "codec.safetensors", encoder=imp.ImpEncoder(96), decoder=imp.ImpDecoder(96, 320)
    )
    loaded = imp.load_flow(tmp_path / "flow.safetensors")
    assert (loaded.channels, loaded.timbre) == (96, None)
    assert loaded.lanes is not None
    encoder, decoder = imp.load_codec(tmp_path / "codec.safetensors")
    assert encoder.channels == decoder.channels == 96
    assert decoder.level.weight.shape[0] == 640


def test_labels_may_differ_from_frame_to_frame() -> None:
    """One label for all frames is the label of the row; another in the second half is heard."""
    torch.manual_seed(3)
    flow = imp.ImpFlow()
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_(std=0.1)
    x, hint, phase = torch.randn(1, 8, 64), torch.randn(1, 8, 65), torch.rand(1, 8, 2)
    cond, t = torch.rand(1, 256), torch.tensor([0.5])
    every = cond[:, None].expand(-1, 4, -1).clone()
    with torch.no_grad():
        whole = flow(x, t, hint, phase, cond)
        assert torch.allclose(flow(x, t, hint, phase, every), whole, atol=1e-5)
        every[:, 2:] = 0
        assert not torch.allclose(flow(x, t, hint, phase, every)[:, 6:], whole[:, 6:], atol=1e-3)
