"""ONNX exports equal the model for any number of rows; RTX plans are built without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.backends import tensorrt
from demon_live.errors import EngineError
from demon_live.models.acestep import export, fused, load
from demon_live.models.manifest import load_manifest
from tests import ace_toy as toy

pytest.importorskip("diffusers")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """(folder with dit.onnx and decoder.onnx, packed DiT, VAE)."""
    folder, modules = tmp_path_factory.mktemp("onnx"), toy.make_modules(toy.TOY)
    packed = fused.pack(modules["transformer"], toy.TOY, fused.Plain(toy.TOY))
    load._fold(modules["vae"])
    export.export_dit(packed, folder / "dit.onnx")
    export.export_decoder(modules["vae"], folder / "decoder.onnx")
    return folder, packed, modules["vae"]


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_exported_dit_equals_the_model_for_any_rows_and_lengths(exported: Any) -> None:
    folder, packed, _ = exported
    found, g = session(folder / "dit.onnx"), torch.Generator().manual_seed(0)
    assert [i.name for i in found.get_inputs()] == list(export.DIT_NAMES)
    assert [o.name for o in found.get_outputs()] == ["v"]
    for rows, frames, told in ((1, 40, 16), (3, 90, 24)):
        x = torch.randn(rows, frames, 64, generator=g)
        t = torch.linspace(1, 0.4, rows)
        context = torch.randn(rows, frames, 128, generator=g)
        kept = torch.randn(4, 2, rows, told, 32, generator=g)
        lengths = torch.arange(told - rows + 1, told + 1, dtype=torch.int32)
        turn = fused.turn_of(toy.TOY, frames // 2, x)
        heard = fused.Heard(kept, lengths)
        wanted = fused.forward(packed, fused.Plain(toy.TOY), x, t, context, heard, turn)
        given = dict(zip(export.DIT_NAMES, (x, t, context, kept, lengths), strict=True))
        v = found.run(None, {name: value.numpy() for name, value in given.items()})[0]
        assert np.abs(v - wanted.numpy()).max() < 1e-4 * np.abs(wanted.numpy()).max()


def test_exported_decoder_equals_the_vae(exported: Any) -> None:
    folder, _, vae = exported
    found = session(folder / "decoder.onnx")
    z = torch.randn(1, 64, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = vae.decode(z).sample.numpy()
    audio = found.run(None, {"z": z.numpy()})[0]
    assert audio.shape == (1, 2, 11 * 1920)
    assert np.abs(audio - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_rtx_plans_are_built_without_a_gpu(exported: Any, tmp_path: Path, capability: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    library = tensorrt.library_for(capability)
    assert library.name == "tensorrt-rtx"
    shapes = {
        "x": ([1, 32, 64], [4, 90, 64], [8, 300, 64]),
        "t": ([1], [4], [8]),
        "context": ([1, 32, 128], [4, 90, 128], [8, 300, 128]),
        "kept": ([4, 2, 1, 8, 32], [4, 2, 4, 24, 32], [4, 2, 8, 64, 32]),
        "lengths": ([1], [4], [8]),
    }
    plan = tmp_path / "dit.plan"
    facts = tensorrt.build(exported[0] / "dit.onnx", plan, library, shapes, capability)
    assert plan.stat().st_size == facts["bytes"] > 100_000
    assert set(facts["inputs"]) == set(export.DIT_NAMES)
    assert facts["inputs"]["x"] == (-1, -1, 64)
    assert facts["outputs"]["v"][0] == -1
    z = {"z": ([1, 64, 25], [1, 64, 43], [1, 64, 100])}
    plan = tmp_path / "decoder.plan"
    facts = tensorrt.build(exported[0] / "decoder.onnx", plan, library, z, capability)
    assert facts["inputs"]["z"] == (-1, 64, -1)
    assert plan.stat().st_size > 100_000


def test_a_card_that_no_library_serves_is_told() -> None:
    with pytest.raises(EngineError, match="too old"):
        tensorrt.library_for("6.1")
    with pytest.raises(EngineError, match=r"written like 8\.9"):
        tensorrt.library_for("sm_89")


def test_plans_are_kept_apart_by_manifest_library_and_card() -> None:
    manifest = load_manifest("ace-step-v15-turbo")
    a = tensorrt.Library("tensorrt-rtx", "tensorrt_rtx", "1.7")
    b = tensorrt.Library("tensorrt-rtx", "tensorrt_rtx", "1.8")
    keys = {tensorrt.cache_key(manifest, lib, cap) for lib in (a, b) for cap in ("8.6", "8.9")}
    keys.add(tensorrt.cache_key(load_manifest("ace-step-v15-xl-turbo"), a, "8.6"))
    assert len(keys) == 5
