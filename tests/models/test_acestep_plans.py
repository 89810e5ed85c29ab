"""Exports equal the model for any rows and lengths; RTX plans are built of them without a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.errors import EngineError
from demon_live.models.acestep import export, fused, load
from demon_live.models.acestep.tensorrt import build, library, parts
from demon_live.models.lora import LoraBank
from demon_live.models.manifest import load_manifest
from tests.helpers import acestep_toy as toy

pytest.importorskip("diffusers")
pytestmark = pytest.mark.timeout(900)
#: Largest difference, as a share of the largest value.
CLOSE = {"fp32": 1e-4, "fp16": 2e-3}
#: One layer of each kind of attention: exports take half the time.
SMALL = replace(toy.TOY, layers=2)
_NUMPY = {"fp32": np.float32, "fp16": np.float16}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """(folder with fp32.onnx, fp16.onnx, bf16.onnx and decoder.onnx, packed DiT, VAE)."""
    folder, modules = tmp_path_factory.mktemp("onnx"), toy.make_modules(SMALL)
    packed = fused.pack(modules["transformer"], SMALL, fused.Plain(SMALL))
    load._fold(modules["vae"])
    for precision in ("fp32", "fp16", "bf16"):
        export.export_dit(packed, folder / f"{precision}.onnx", precision)
    export.export_decoder(modules["vae"], folder / "decoder.onnx")
    return folder, packed, modules["vae"]


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def asked(rows: int, frames: int, told: int, told2: int) -> dict[str, torch.Tensor]:
    """Inputs of the graph; told2 = 0: nobody mixes."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.arange(told - rows + 1, told + 1, dtype=torch.int32)
    mixed = told2 > 0
    second = torch.randn(2, 2, rows, told2, 32, generator=g) if mixed else torch.zeros(1)
    return {
        "x": torch.randn(rows, frames, 64, generator=g),
        "t": torch.linspace(1, 0.4, rows),
        "context": torch.randn(rows, frames, 128, generator=g),
        "kept": torch.randn(2, 2, rows, told, 32, generator=g),
        "lengths": lengths,
        "kept2": second if mixed else torch.zeros(2, 2, rows, 1, 32),
        "lengths2": torch.full((rows,), max(told2 - 1, 1), dtype=torch.int32),
        "mix": torch.rand(rows, frames, generator=g) if mixed else torch.zeros(rows, frames),
    }


def eager(packed: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the fused model makes of them; without the second condition where nobody mixes."""
    ops, mix = fused.Plain(SMALL), given["mix"]
    mixed = (fused.KeysValues(given["kept2"], given["lengths2"]), mix) if mix.any() else None
    turn = fused.turn_of(SMALL, given["x"].shape[1] // 2, given["x"])
    cross = fused.KeysValues(given["kept"], given["lengths"])
    return fused.forward(packed, ops, given["x"], given["t"], given["context"], cross, turn, mixed)


def as_graph(given: dict[str, torch.Tensor], precision: str) -> dict[str, Any]:
    small = ("context", "kept", "kept2")
    arrays = {name: value.numpy() for name, value in given.items()}
    return {n: a.astype(_NUMPY[precision]) if n in small else a for n, a in arrays.items()}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_exported_dit_equals_the_model_for_any_rows_and_lengths(
    exported: Any, precision: str
) -> None:
    folder, packed, _ = exported
    found = session(folder / f"{precision}.onnx")
    assert [i.name for i in found.get_inputs()] == list(export.DIT_NAMES)
    assert [o.name for o in found.get_outputs()] == ["v"]
    for sizes in ((1, 40, 16, 0), (3, 90, 24, 0), (2, 64, 20, 9)):
        given = asked(*sizes)
        wanted = eager(packed, given).numpy()
        v = found.run(None, as_graph(given, precision))[0]
        assert np.abs(v - wanted).max() < CLOSE[precision] * np.abs(wanted).max()


def test_exported_decoder_equals_the_vae(exported: Any) -> None:
    folder, _, vae = exported
    found = session(folder / "decoder.onnx")
    z = torch.randn(1, 64, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = vae.decode(z).sample.numpy()
    audio = found.run(None, {"z": z.numpy()})[0]
    assert audio.shape == (1, 2, 11 * 1920)
    assert np.abs(audio - wanted).max() < 1e-4 * np.abs(wanted).max()


# ------------------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_matrix_keeps_its_name_shape_and_values(exported: Any, precision: str) -> None:
    import onnx

    folder, packed, _ = exported
    model = onnx.load(folder / f"{precision}.onnx")
    there = {i.name: i for i in model.graph.initializer}
    wanted = export.initialisers(SMALL)
    assert len(wanted) == 6 * SMALL.layers
    for name, shape in wanted.items():
        assert tuple(there[name].dims) == shape
    if precision == "bf16":
        return
    for name in wanted:
        matrix = packed.base[name.removeprefix("layers.")].t().numpy()
        array = onnx.numpy_helper.to_array(there[name])
        assert np.array_equal(array, matrix.astype(array.dtype))


def test_every_lora_target_is_in_a_named_matrix_or_worked_out_beside_the_plan(
    exported: Any,
) -> None:
    _, packed, _ = exported
    wanted, beside = export.initialisers(SMALL), set()
    for target in packed.targets():
        name = export.initialiser(target)
        if name is None:
            beside.add(target.split(".", 2)[2])
        else:
            assert name in wanted
    assert beside == {"cross_attn.k_proj", "cross_attn.v_proj"}


def test_weights_written_by_name_are_the_models_with_a_lora(exported: Any, tmp_path: Path) -> None:
    """What a refit writes is what eager computes with: for each target that a LoRA may change."""
    import onnx

    from demon_live.models.acestep.tensorrt.parts import matrices

    folder, _, _ = exported
    packed = fused.pack(toy.make_modules(SMALL)["transformer"], SMALL, fused.Plain(SMALL))
    model, given = onnx.load(folder / "fp32.onnx"), asked(2, 64, 20, 0)
    held = matrices(packed, torch.float32, torch.device("cpu"))
    targets = packed.targets()
    touched = {n for n in (export.initialiser(t) for t in targets) if n}
    assert touched == set(held)
    g = torch.Generator().manual_seed(5)
    for target in targets:
        if export.initialiser(target) is not None:
            targets[target].add_(0.05 * torch.randn(targets[target].shape, generator=g))
    for initialiser in model.graph.initializer:
        if initialiser.name in held:
            matrix = held[initialiser.name].numpy()
            initialiser.CopyFrom(onnx.numpy_helper.from_array(matrix, initialiser.name))
    onnx.save(model, tmp_path / "new.onnx")
    for i, layer in enumerate(packed.layers):
        for place in export.MATRICES:
            setattr(layer, place, packed.base[f"{i}.{place}"])
    wanted = eager(packed, given).numpy()
    v = session(tmp_path / "new.onnx").run(None, as_graph(given, "fp32"))[0]
    before = session(folder / "fp32.onnx").run(None, as_graph(given, "fp32"))[0]
    assert np.abs(v - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.abs(before - wanted).max() > 1e-2 * np.abs(wanted).max()
    assert LoraBank(targets).names == ()


def test_the_library_finds_every_exchangeable_matrix_by_name(exported: Any) -> None:
    """The parser's own names; exchanging them for good needs a card."""
    trt = pytest.importorskip("tensorrt_rtx")
    rtx = library.library_for("8.9")
    for precision in ("bf16", "fp16"):
        _, network, _reader, _ = build.parsed(trt, rtx, exported[0] / f"{precision}.onnx")
        for name in export.initialisers(SMALL):
            assert network.mark_weights_refittable(name), name
            assert network.are_weights_marked_refittable(name)
        assert not network.mark_weights_refittable("layers.99.qkv")


# ------------------------------------------------------------------------------------ plans


@pytest.mark.parametrize("capability", ["7.5", "8.6", "8.9", "12.0"])
def test_rtx_plans_are_built_without_a_gpu(exported: Any, tmp_path: Path, capability: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    rtx = library.library_for(capability)
    assert rtx.name == "tensorrt-rtx"
    manifest = load_manifest("ace-step-v15-turbo")
    dit, decoder = parts.parts(manifest, SMALL, capability)
    assert dit.precision == ("fp16" if capability == "7.5" else "bf16")
    plan, seen = tmp_path / "dit.plan", list[float]()
    facts = build.build(
        exported[0] / f"{dit.precision}.onnx", plan, rtx, dit.shapes, capability,
        progress=seen.append,
    )  # fmt: skip
    assert plan.read_bytes()[:4] == b"vtrt"
    assert plan.stat().st_size == facts["bytes"] > 100_000
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] <= 1
    small = "HALF" if capability == "7.5" else "BF16"
    assert facts["inputs"] == {
        "x": ["FLOAT", [-1, -1, 64]],
        "t": ["FLOAT", [-1]],
        "context": [small, [-1, -1, 128]],
        "kept": [small, [2, 2, -1, -1, 32]],
        "lengths": ["INT32", [-1]],
        "kept2": [small, [2, 2, -1, -1, 32]],
        "lengths2": ["INT32", [-1]],
        "mix": ["FLOAT", [-1, -1]],
    }
    assert facts["outputs"] == {"v": ["FLOAT", [-1, -1, 64]]}
    assert facts["profile"]["x"] == [[1, 128, 64], [4, 1500, 64], [8, 6000, 64]]
    assert facts["profile"]["kept2"] == [[2, 2, 1, 1, 32], [2, 2, 4, 1, 32], [2, 2, 8, 2560, 32]]
    plan = tmp_path / "decoder.plan"
    facts = build.build(exported[0] / "decoder.onnx", plan, rtx, decoder.shapes, capability)
    assert facts["inputs"] == {"z": ["FLOAT", [-1, 64, -1]]}
    assert facts["outputs"]["audio"][1][:2] == [-1, 2]
    assert facts["profile"]["z"] == [[1, 64, 1], [1, 64, 43], [1, 64, 268]]
    assert plan.read_bytes()[:4] == b"vtrt"


def test_a_graph_that_the_library_does_not_read_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"tensorrt-rtx does not read x\.onnx"):
        build.build(tmp_path / "x.onnx", tmp_path / "p", library.library_for("8.9"), {}, "8.9")
    assert not (tmp_path / "p").exists()
