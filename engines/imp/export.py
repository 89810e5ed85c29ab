"""Export imp to ONNX: `python -m engines.imp.export [FOLDER]`.

Writes flow.onnx and decoder.onnx beside the weights. The graphs hold topology only: each weight is
an external initializer that points straight into codec.safetensors or flow.safetensors (float16,
cast to float32 when a session opens), so that one copy of the weights serves torch and onnxruntime.
After new weights: export again.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def tensor_places(path: Path) -> dict[str, tuple[int, int, list[int]]]:
    """Tensor name -> (byte offset, byte length, shape) in a float16 safetensors file."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    places = {}
    for name, entry in header.items():
        if entry["dtype"] != "F16":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, not F16")
        begin, end = entry["data_offsets"]
        places[name] = (8 + size + begin, end - begin, list(entry["shape"]))
    return places


def point_into(model: Any, weights: Path, prefix: str) -> Any:
    """Make each initializer that is a weight a Cast of an external float16 tensor in `weights`."""
    import onnx

    places = tensor_places(weights)
    graph, casts, kept, external = model.graph, [], [], []
    for value in graph.initializer:
        name = f"{prefix}.{value.name}"
        if name not in places:
            kept.append(value)
            continue
        offset, length, shape = places[name]
        if list(value.dims) != shape:
            raise ValueError(f"{name}: the graph has {list(value.dims)}, the weights have {shape}")
        half = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT16, dims=shape)
        half.data_location = onnx.TensorProto.EXTERNAL
        for key, entry in (("location", weights.name), ("offset", offset), ("length", length)):
            half.external_data.add(key=key, value=str(entry))
        external.append(half)
        casts.append(onnx.helper.make_node("Cast", [name], [value.name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept + external)
    graph.node.extend(casts + nodes)
    return model


def export(module: Any, inputs: dict[str, Any], outputs: list[str], path: Path) -> None:
    """Trace `module` with dynamic batch and time into `path`, names as in its state_dict."""
    import torch

    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", min=1)
    step = 2 * time if "hint" in inputs else time
    # Labels come for every two frames, if not for the row.
    shapes = {
        name: {0: batch, 1: time if name == "cond" else step} if value.ndim == 3 else {0: batch}
        for name, value in inputs.items()
    }
    torch.onnx.export(
        module,
        kwargs=inputs,
        f=str(path),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=shapes,
        opset_version=20,
        dynamo=True,
        external_data=False,
        optimize=False,
        verbose=False,
    )


def graphs(folder: Path) -> dict[str, tuple[Any, dict[str, Any], list[str], str, str]]:
    """File -> (module, example inputs, output names, weights file, prefix of its tensors). The
    flow model takes what its weights read: a condition as wide as that, with or without timbre
    reference; notes and labels by the frame, or labels of the row alone.
    """
    import torch
    from torch import nn

    from demon_live.models.imp import model as imp

    class Trunk(nn.Module):
        def __init__(self, decoder: imp.ImpDecoder) -> None:
            super().__init__()
            for name, child in decoder.named_children():
                self.add_module(name, child)
            self.decoder = [decoder]

        def forward(self, latent: torch.Tensor) -> imp.Spectra:
            return self.decoder[0].trunk(latent)

    flow = imp.load_flow(folder / "flow.safetensors")
    _, decoder = imp.load_codec(folder / "codec.safetensors")
    torch.manual_seed(0)
    b, t, c = 2, 96, flow.channels
    noise = {
        "x": torch.randn(b, t, c),
        "t": torch.rand(b),
        "hint": torch.randn(b, t, c + 1),
        "phase": torch.rand(b, t, imp.PHASE),
        "cond": torch.randn(b, flow.width),
    }
    if flow.lanes is not None:
        noise["cond"] = torch.randn(b, t // imp.PATCH, flow.width)
        noise["lanes"] = torch.randn(b, t, imp.LANES)
    latent = {"latent": torch.randn(b, t, decoder.channels)}
    spectra = ["level", "phase", "air", "share"] + ["turn"] * (decoder.lines is not None)
    trunk = Trunk(decoder).eval()
    return {
        "flow.onnx": (flow, noise, ["v"], "flow.safetensors", "flow"),
        "decoder.onnx": (
            trunk,
            latent,
            spectra,
            "codec.safetensors",
            "decoder",
        ),
    }


def open_session(path: Path, threads: int = 2) -> Any:
    """An onnxruntime session on the CPU; the weights are found beside the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def write(folder: Path, names: Iterable[str] = ("flow.onnx", "decoder.onnx")) -> None:
    """Export the graphs of the weights in a folder into it, and print their sizes."""
    import onnx

    every = graphs(folder)
    for name in names:
        module, inputs, outputs, weights, prefix = every[name]
        with tempfile.TemporaryDirectory() as scratch:
            whole = Path(scratch) / name
            export(module, inputs, outputs, whole)
            model = point_into(onnx.load(str(whole)), folder / weights, prefix)
        for value in model.graph.node:
            del value.metadata_props[:]
            value.doc_string = value.name = ""
        del model.graph.metadata_props[:], model.graph.value_info[:]
        data = model.SerializeToString()
        (folder / name).write_bytes(data)
        sys.stdout.write(f"{name}: {len(data)} bytes, {len(model.graph.node)} nodes\n")


def main() -> None:
    """Export the graphs of a folder of weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=HERE)
    folder: Path = parser.parse_args().folder
    write(folder)
    from demon_live.models.imp import model as imp

    knows = imp.knows_timbre(tensor_places(folder / "flow.safetensors"))
    sys.stdout.write(f"controls of the manifest: with{'' if knows else 'out'} timbre\n")


if __name__ == "__main__":
    main()
