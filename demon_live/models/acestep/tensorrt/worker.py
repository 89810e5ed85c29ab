"""One export or one build, in a process of its own, which frees all memory at its end.

A job is a line of JSON; progress and the result are lines of JSON on standard output:
{"share": .3}, then {"done": facts} or {"error": ..., "hint": ...}. A library that crashes, or that
a failed build leaves broken, harms nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from demon_live.children import command
from demon_live.errors import DemonError, EngineError

Progress = Callable[[float], None]


def run(job: Mapping[str, Any], progress: Progress = lambda share: None) -> dict[str, Any]:
    """Do a job in a process of its own. Raises EngineError: it failed, or its process died.

    An interrupt ends the process; its work is lost.
    """
    with subprocess.Popen(
        command("demon_live.models.acestep.tensorrt.worker:main"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            return _followed(child, job, progress)
        finally:
            if child.poll() is None:
                child.kill()


def _followed(child: Any, job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    child.stdin.write(json.dumps(job) + "\n")
    child.stdin.close()
    for line in child.stdout:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if "share" in message:
            progress(float(message["share"]))
        elif "done" in message:
            found: dict[str, Any] = message["done"]
            return found
        elif "error" in message:
            raise EngineError(message["error"], hint=message.get("hint"))
    last = (child.stderr.read().strip().splitlines() or ["it says nothing"])[-1]
    code = child.wait()
    memory = "; the machine may have run out of memory" if code == -9 else ""
    raise EngineError(
        f"{job['do']} of {job['part']} ended without a result (exit {code}): {last}{memory}",
        hint="the backend graphs plays without a plan",
    )


# ------------------------------------------------------------------------------------ in the child


def _export(job: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    from demon_live.models.acestep import fused
    from demon_live.models.acestep.export import export_decoder, export_dit
    from demon_live.models.acestep.open import modules_for_export
    from demon_live.models.manifest import load_manifest

    torch.set_num_threads(int(job.get("threads", 1)))
    manifest, onnx = load_manifest(job["manifest"]), Path(job["onnx"])
    modules = modules_for_export(manifest, bool(job["random"]), job["part"] == "dit")
    onnx.parent.mkdir(parents=True, exist_ok=True)
    if job["part"] == "dit":
        ops = fused.Plain(modules.config)
        packed = fused.pack(modules.dit, modules.config, ops, release=True)
        modules.dit = None
        export_dit(packed, onnx, job["precision"])
    else:
        export_decoder(modules.vae.half() if job["precision"] == "fp16" else modules.vae, onnx)
    return {"bytes": sum(p.stat().st_size for p in onnx.parent.iterdir())}


def _build(job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    from demon_live.models.acestep.tensorrt.build import build
    from demon_live.models.acestep.tensorrt.library import Library

    return build(
        Path(job["onnx"]),
        Path(job["plan"]),
        Library(*job["library"]),
        job["shapes"],
        job["capability"],
        refit=tuple(job["refit"]),
        progress=progress,
    )


def main() -> None:
    """The child: one job from stdin."""
    # Results have their own descriptor: libraries print to the standard output.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    job = json.loads(sys.stdin.readline())
    last = [0.0]

    def progress(share: float) -> None:
        if share >= last[0] + 0.01:
            last[0] = share
            tell(share=share)

    try:
        tell(done=_export(job) if job["do"] == "export" else _build(job, progress))
    except DemonError as error:
        tell(error=error.message, hint=error.hint)
