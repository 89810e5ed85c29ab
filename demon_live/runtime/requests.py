"""From what the score says of a moment to the request of a generation."""

from __future__ import annotations

from typing import Any

from demon_live.controls import CONTROLS
from demon_live.core import ControlBlock, Floats, Loop, Request
from demon_live.models.engine import Engine
from demon_live.runtime.scheduler import Target


def build_request(
    engine: Engine,
    name: str,
    loop: Loop,
    source: Floats | None,
    block: ControlBlock,
    target: Target,
    seed: int,
    timbre: str = "",
) -> Request:
    """A target and the lanes of a block, as the ring takes them. timbre: a name that the engine
    has been given a sound for."""
    values = target.values

    def number(control: str) -> float:
        default = CONTROLS[control].default
        return float(values.get(control, default if default is not None else 0.0))

    guided = "guide" in block.lanes
    cfg = str(values.get("cfg", "initialize" if guided else "off")) or "off"
    key = str(values.get("key", ""))
    # Only what the engine knows: the performer was told of the rest when it was bound.
    lyrics = str(values.get("lyrics", "")).replace(" / ", "\n")
    said = {"lyrics": lyrics, "timbre": timbre}
    more: dict[str, Any] = {k: v for k, v in said.items() if v and k in engine.controls}

    def condition(prompt: str, prompt2: str = "") -> object:
        return engine.condition(
            prompt,
            prompt2=prompt2,
            key=key,
            bpm=float(loop.bpm),
            cycles=loop.cycles,
            beats=loop.beats,
            frames=loop.frames,
            **more,
        )

    wanted = condition(str(values.get("prompt", "")), str(values.get("prompt2", "")))
    return Request(
        frames=loop.frames,
        channels=engine.channels,
        denoise=number("denoise"),
        seed=int(number("seed")) + seed,
        source=source,
        condition=wanted,
        deck=name,
        shift=number("shift") if "shift" in values else None,
        init=block.lanes.get("init"),
        mask=block.lanes.get("mask"),
        negative=engine.unconditioned(wanted) if cfg in ("full", "initialize") else None,
        cfg=cfg,
        feedback=number("feedback"),
        feedback_depth=int(number("feedback_depth")),
        epoch=loop.epoch,
        hear_from=target.hear_from,
        values=values,
    )
