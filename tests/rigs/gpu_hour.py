"""The first hour on a card, in minutes: what its tests say, how long a start takes, what it draws.

    python -m tests.rigs.gpu_hour --out FOLDER [--budget 400] [--only STAGE,STAGE] [--toy]

A checkpoint of the full size with random weights is made first, in the original layout. Each stage
has a process and a time limit of its own, and FOLDER/gpu_hour.json is written after each line that
it prints, so that an interrupted run loses nothing. --toy: tiny shapes on the CPU, to try the rig.

    tests    the GPU's own tests            start, again    to the first generation, without and
    live     `demon live`: start, rate,                     with what the first start kept
             power at rest, restart         memory          peak at 16, 60 and 240 s, power idle
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
#: (stage, its limit in seconds), in the order of their worth.
STAGES = (
    ("checkpoint", 90.0),
    ("tests", 90.0),
    ("start", 80.0),
    ("again", 50.0),
    ("live", 130.0),
    ("memory", 60.0),
)
SCORE = """tempo 128
loop 8
source "techno_128.flac"
prompt = 'dub techno'
denoise = .7
"""
QWEN: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151669,
    "rope_theta": 1000000.0,
}


def say(**found: Any) -> None:
    """A line for the parent."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------- stages


def checkpoint(folder: Path, toy_size: bool) -> None:
    """A checkpoint with random weights, and its manifest beside it."""
    import torch
    from safetensors.torch import save_file

    from demon_live.models.acestep import layout, load
    from demon_live.models.acestep.qwen import Qwen3
    from tests.helpers import acestep_toy as toy

    place = folder / "full"
    if toy_size:
        toy.save_original(place)
        say(manifest=str(toy.manifest_of(place, "full")))
        return
    began, device = time.monotonic(), torch.device("cuda")
    config = layout.AceConfig()

    def filled(module: Any, name: Callable[[str], str]) -> dict[str, Any]:
        made = {}
        for key, like in module.state_dict().items():
            value = torch.randn(like.shape, device=device, dtype=torch.bfloat16)
            width = like[0].numel() if like.ndim > 1 else 100
            value = 1 + value / 10 if "norm" in key else value / width**0.5
            made[name(key)] = value.cpu().contiguous()
        return made

    def saved(path: Path, tensors: dict[str, Any], settings: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(path))
        (path.parent / "config.json").write_text(json.dumps(settings))

    state: dict[str, Any] = {}
    for part, arguments in config.arguments().items():
        with torch.device("meta"):
            module = load.classes()[part](**arguments)
        state |= filled(module, lambda key, part=part: f"{part}/{key}")  # type: ignore[misc]
    named = {
        toy.upstream_name(*name.split("/", 1)): value
        for name, value in state.items()
        if not name.endswith("/silence_latent")
    }
    saved(place / "acestep-v15-turbo/model.safetensors", named, toy.upstream_config(config))
    silence = torch.randn(1, 64, 15000)
    torch.save(silence, place / "acestep-v15-turbo/silence_latent.pt")
    vae = load._made_up(lambda: load.oobleck(load.VAE), device, torch.bfloat16, 0)
    weights = {key: value.cpu().contiguous() for key, value in vae.state_dict().items()}
    kind = {"_class_name": "AutoencoderOobleck", **load.VAE}
    saved(place / "vae/diffusion_pytorch_model.safetensors", weights, kind)
    with torch.device("meta"):
        text = Qwen3(QWEN)
    words = place / "Qwen3-Embedding-0.6B"
    saved(words / "model.safetensors", filled(text, str), QWEN)
    (words / "tokenizer.json").write_text(json.dumps(toy.byte_tokenizer()))
    manifest = toy.manifest_of(place, "full")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    say(manifest=str(manifest), GB=round(size / 1e9, 2), seconds=round(time.monotonic() - began, 1))


def start(folder: Path, toy_size: bool) -> None:
    """From a fresh process to the first generation."""
    begun = float(os.environ.get("RIG_BEGUN", time.time()))

    def at(what: str, **more: Any) -> None:
        say(**{what: round(time.time() - begun, 2), **more})

    at("python")
    from demon_live.models.engine import open_engine

    at("program")
    last = [""]

    def progress(text: str) -> None:
        if text.split()[0] != last[0]:
            last[0] = text.split()[0]
            at(text)

    manifest, device = str(folder / "full.toml"), "cpu" if toy_size else "auto"
    engine: Any = open_engine(manifest, device=device, threads=1, progress=progress)
    at("open", engine=engine.describe(), notes=engine.notes)
    heavy = ("peft", "transformers", "torch._dynamo", "torch._inductor", "sympy", "scipy.stats")
    say(loaded=[name for name in heavy if name in sys.modules])
    frames = 50 if toy_size else 400
    source = _encoded(engine, frames)
    at("source encoded")
    engine.warm_up(frames, 4)
    at("warm")
    ring = _ring(engine, frames, source)
    while not ring.tick():
        pass
    at("first generation")
    if not toy_size:
        say(captured=[list(key) for key in engine.kernels._buckets])
    engine.close()


def _encoded(engine: Any, frames: int) -> Any:
    import numpy as np

    noise = np.random.default_rng(1).standard_normal((frames * 1920, 2)).astype(np.float32)
    return engine.encode(noise / 10)


def _ring(engine: Any, frames: int, source: Any) -> Any:
    from itertools import count

    from demon_live.core import Request
    from demon_live.engine import Ring

    seeds = count()
    words = engine.condition("dub", bpm=120.0, cycles=8, beats=4, frames=frames)

    def admit(deck: str) -> Request:
        return Request(frames, engine.channels, 0.7, next(seeds), source, words, deck)

    ring = Ring(engine, steps=8, depth=4, device=engine.device, on_admit=admit)
    ring.enlist("main")
    return ring


def live(folder: Path, toy_size: bool) -> None:
    """The whole instrument at the null sink."""
    from demon_live.runtime.live import Live

    score = folder / "x.demon"
    # At toy size the encoder is as wide as the true one, and slow on a CPU.
    score.write_text(SCORE if not toy_size else SCORE.replace("source", "# ").replace("8", "1"))
    loop = HERE / "patterns/loops/techno_128.flac"
    (folder / loop.name).write_bytes(loop.read_bytes())
    manifest, device = str(folder / "full.toml"), "cpu" if toy_size else "auto"
    began = time.monotonic()
    with Live([score], engine=manifest, engine_device=device, audio="null") as it:

        def status() -> Any:
            return it.engine.status

        assert it.wait(90, lambda: status().generations > 0)
        say(first_generation_s=round(time.monotonic() - began, 2))
        assert it.wait(30, lambda: status().resting)
        say(rest_reached_s=round(time.monotonic() - began, 2), made=status().generations)
        say(power_at_rest=_power(8.0))
        say(events=it.session.events(0)[1][:12])
        it.session.apply("ring always")
        time.sleep(4.0)
        before, then = status().generations, time.monotonic()
        power = _power(8.0)
        made, spent = status().generations - before, time.monotonic() - then
        say(
            generations_per_s=round(made / spent, 2),
            power_always=power,
            tick_ms=round(status().tick_ms, 2),
            decode_ms=round(status().decode_ms, 2),
            late=status().late,
            shed=status().shed,
            turns=str(it.engine.turns),
        )
        it.session.apply("loop 4" if not toy_size else "loop 2")
        time.sleep(5.0)
        say(after_another_loop=str(status())[:400])
        _restart(it)


def _restart(it: Any) -> None:
    """Kill the engine: how long until it generates again, and whether the sound went on."""
    first, gap, last, moved = it.engine.pid, 0.0, it.speaker.bus.played, time.monotonic()
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    while time.monotonic() - killed < 40:
        time.sleep(0.01)
        now = time.monotonic()
        if it.speaker.bus.played != last:
            last, moved = it.speaker.bus.played, now
        gap = max(gap, now - moved)
        status = it.engine.status
        if it.engine.pid != first and status.alive and status.generations > 0 and status.ticks:
            break
    say(
        restart_s=round(time.monotonic() - killed, 2),
        longest_pause_of_the_sound_s=round(gap, 3),
        generations_since=it.engine.status.generations,
    )


def memory(folder: Path, toy_size: bool) -> None:
    """Peak memory by the length of the loop, and what an open engine draws that does nothing."""
    import torch

    from demon_live.models.engine import open_engine

    manifest, device = str(folder / "full.toml"), "cpu" if toy_size else "auto"
    engine: Any = open_engine(manifest, device=device, threads=1)
    say(power_idle=_power(5.0))
    gpu = engine.device.type == "cuda"
    for seconds in (16, 60, 240) if gpu else (2,):
        frames = seconds * 25
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        source = _encoded(engine, frames)
        ring = _ring(engine, frames, source)
        for _ in range(24):
            done = ring.tick()
            engine.between_ticks()
        began = time.monotonic()
        for _ in range(16):
            done = ring.tick() or done
        tick = (time.monotonic() - began) / 16
        engine.decode(done[-1].latent[None, : engine.window + 2 * engine.margin])
        row: dict[str, Any] = {"tick_ms": round(tick * 1000, 2)}
        if gpu:
            free, total = torch.cuda.mem_get_info()
            row |= {
                "peak_GB": round(torch.cuda.max_memory_allocated() / 1e9, 2),
                "reserved_GB": round(torch.cuda.memory_reserved() / 1e9, 2),
                "taken_of_the_card_GB": round((total - free) / 1e9, 2),
            }
        say(**{f"loop_{seconds}_s": row})
        ring.close()
    engine.close()


def _power(seconds: float) -> dict[str, float] | None:
    """Means over some seconds: watts, MHz of the processors, percent of use."""
    rows, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            asked = "--query-gpu=power.draw,clocks.sm,utilization.gpu"
            found = subprocess.run(
                ["nvidia-smi", asked, "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=10,
            ).stdout
            rows.append([float(x) for x in found.splitlines()[0].split(",")])
        except (OSError, ValueError, IndexError, subprocess.SubprocessError):
            return None
        time.sleep(0.5)
    means = [round(sum(column) / len(rows), 1) for column in zip(*rows, strict=True)]
    return dict(zip(("W", "MHz", "percent"), means, strict=True))


# ------------------------------------------------------------------------------------ the parent


def _command(stage: str, folder: Path, toy_size: bool) -> list[str]:
    if stage == "tests":
        if toy_size:
            return [sys.executable, "-m", "pytest", "--version"]
        files = ["tests/engine/test_cuda.py", "tests/models/test_acestep_triton.py"]
        more = ["-q", "-p", "no:cacheprovider", "-m", "not soak", "-x", "--maxfail=5"]
        return [sys.executable, "-m", "pytest", *more, *files]
    return [
        sys.executable,
        "-m",
        "tests.rigs.gpu_hour",
        "--stage",
        "start" if stage == "again" else stage,
        "--out",
        str(folder),
        *(["--toy"] if toy_size else []),
    ]


def run(stage: str, limit: float, out: Path, work: Path, toy_size: bool) -> dict[str, Any]:
    """A stage in a process of its own; what it has printed so far lies in OUT/STAGE.log."""
    log = out / f"{stage}.log"
    begun = time.time()
    own = {"DEMON_STATE": str(work / "state"), "DEMON_RUNTIME": str(work), "PYTHONUNBUFFERED": "1"}
    environ = {**os.environ, **own, "DEMON_CACHE": str(work / "cache"), "RIG_BEGUN": str(begun)}
    with log.open("w") as file:
        child = subprocess.Popen(
            _command(stage, work, toy_size),
            cwd=HERE,
            env=environ,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code = None
    found: dict[str, Any] = {"code": code, "seconds": round(time.time() - begun, 1)}
    lines = log.read_text(errors="replace").splitlines()
    for line in lines:
        try:
            found |= json.loads(line)
        except (ValueError, TypeError):
            continue
    if stage == "tests" or code != 0:
        found["end"] = lines[-12:]
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the stages, or one of them in this process."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.gpu_hour")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=400.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--stage")
    args = parser.parse_args(argv)
    if args.stage:
        stages = {"checkpoint": checkpoint, "start": start, "live": live, "memory": memory}
        stages[args.stage](args.out, args.toy)
        return 0
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    work = Path(os.environ.get("RIG_WORK", "/tmp/gpu_hour"))
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    until = time.monotonic() + args.budget
    for stage, limit in STAGES:
        if args.only and stage not in args.only.split(","):
            continue
        left = until - time.monotonic()
        if left < 5:
            break
        found[stage] = run(stage, min(limit, left), out, work, args.toy)
        (out / "gpu_hour.json").write_text(json.dumps(found, indent=1))
        sys.stdout.write(json.dumps({stage: found[stage]}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
