"""Onset and convergence of every control in ticks, measured on a ring whose model obeys them all.

Three rings get the same requests: the first never sees the edit, the second sees it at some tick,
the third has it from the start. The onset is the first completion of the second ring that differs
from the first ring's; it has converged with the first completion that equals the third ring's, as
do all after it. This measures what comes out, not what the stamps say; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demon_live import controls
from demon_live.core import Floats, Request
from demon_live.engine import Ring

_FRAMES, _CHANNELS = 32, 4

#: Edits of requests, by control. Texts reach the model as its condition, here a number.
_SLOT_EDITS: Mapping[str, Mapping[str, Any]] = {
    "denoise": {"denoise": 0.4},
    "seed": {"seed": 7},
    "drift": {"drift": 0.5},
    "shift": {"shift": 1.0},
    "init": {"init": np.full(_FRAMES, 0.5, dtype=np.float32)},
    "mask": {"mask": np.linspace(0.0, 1.0, _FRAMES, dtype=np.float32)},
    "feedback": {"feedback": 0.3},
    "feedback_depth": {"feedback_depth": 3},
    "prompt": {"condition": 1.0},
    "prompt2": {"condition": 2.0},
    "key": {"condition": 3.0},
    "lyrics": {"condition": 4.0},
    "timbre": {"condition": 5.0},
    "cfg": {"cfg": "self"},
}

#: Edits of shared values.
_STEP_EDITS: Mapping[str, float] = {
    "blend": 0.5,
    "velocity": 0.8,
    "noise": 0.3,
    "morph": 0.5,
    "guide": 3.0,
    "rescale": 0.5,
    "momentum": -0.5,
    "energy": 1.5,
    "hint": 0.7,
    "prompt_mix": 0.6,
}
#: Controls that do nothing without guidance.
_NEEDS_GUIDE = ("rescale", "momentum", "cfg")
_MIGRATES = ("denoise", "shift")


class _OneAdapter:
    """Weights that are one number: the strength of the adapter `x`."""

    names = ("x",)

    def __init__(self) -> None:
        self.strengths: dict[str, float] = {}

    def prepare(self, strengths: Mapping[str, float]) -> Mapping[str, float]:
        return strengths

    def done(self, refit: Mapping[str, float]) -> bool:
        return True

    def commit(self, refit: Mapping[str, float]) -> None:
        self.strengths = dict(refit)


class ObedientModel:
    """A velocity that depends on all of its row and on the weights; rows are independent."""

    def __init__(self) -> None:
        self.weights = _OneAdapter()

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Any]) -> Tensor:
        words = [
            float(row.condition or 0.0)
            + float(np.mean(row.shared.get("hint", 0.0)))
            + 2.0 * float(np.mean(row.shared.get("prompt_mix", 0.0)))
            + 3.0 * self.weights.strengths.get("x", 0.0)
            for row in rows
        ]
        v = 0.3 * x + 0.1 * t[:, None, None] + 0.05 * torch.tensor(words)[:, None, None]
        negative = torch.tensor([row.kind == "negative" for row in rows])[:, None, None]
        return torch.where(negative, torch.roll(v, 1, dims=1), v)


@dataclass(frozen=True, slots=True)
class ControlEdit:
    """An edit of one control. migrate: slots in flight move to the new schedule as well."""

    control: str
    share: Mapping[str, float] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    migrate: bool = False


def _request(name: str) -> Request:
    source = np.random.default_rng(1).normal(size=(_FRAMES, _CHANNELS)).astype(np.float32)
    return Request(
        frames=_FRAMES,
        channels=_CHANNELS,
        denoise=0.8,
        seed=3,
        source=source,
        condition=0.0,
        target=source[::-1].copy(),
        cfg="off" if name == "cfg" else "full",
        feedback=0.3 if name == "feedback_depth" else 0.0,
    )


def play(
    edit: ControlEdit, at: int | None, steps: int, depth: int, ticks: int
) -> list[list[Floats]]:
    """The latents that each tick completes. at: the tick before which the edit is made, or None."""
    request, changed, born = _request(edit.control), False, 0

    def admit(deck: str) -> Request:
        nonlocal born
        born += 1
        # Which earlier generation feeds back shows only if they differ.
        seed = born if edit.control == "feedback_depth" else request.seed
        return replace(request, **{"seed": seed, **(edit.request if changed else {})})

    ring = Ring(ObedientModel(), steps=steps, depth=depth, on_admit=admit)
    ring.enlist("main")
    if edit.control in _NEEDS_GUIDE:
        ring.share("guide", 3.0)
    out = []
    for tick in range(ticks):
        if tick == at:
            changed = True
            for name, value in edit.share.items():
                ring.share(name, value)
            if edit.migrate:
                ring.migrate("main", **edit.request)
        out.append([generation.latent for generation in ring.tick()])
    return out


def _differ(a: Sequence[Floats], b: Sequence[Floats]) -> float:
    return max((float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True)), default=0.0)


def _measured(
    at: int, never: list[list[Floats]], then: list[list[Floats]], always: list[list[Floats]]
) -> tuple[int, int, int]:
    """(onset, convergence, completions that differ in between), ticks counted from the edit."""
    ticks = len(then)
    moved = [_differ(a, b) for a, b in zip(never, then, strict=True)]
    left = [_differ(a, b) for a, b in zip(then, always, strict=True)]
    # Feedback feeds on itself: it comes as near as one likes, but never to the bit.
    near = 1e-2 * max(moved)
    onset = next(n for n, d in enumerate(moved) if d > 1e-6)
    last = max((n for n, d in enumerate(left) if d > near and n >= at), default=at - 1)
    settled = next(n for n in range(last + 1, ticks) if then[n])
    between = sum(len(then[n]) for n in range(onset, settled))
    return onset - at + 1, settled - at + 1, between


def edits() -> list[ControlEdit]:
    shared = [ControlEdit(name, share={name: value}) for name, value in _STEP_EDITS.items()]
    slots = [ControlEdit(name, request=values) for name, values in _SLOT_EDITS.items()]
    moves = [ControlEdit(name, request=_SLOT_EDITS[name], migrate=True) for name in _MIGRATES]
    return [*shared, *slots, *moves, ControlEdit("lora.x", share={"lora.x": 0.5})]


def propagation_table(steps: int = 8, depth: int = 4) -> list[dict[str, Any]]:
    """Onset and convergence of each control of class step, slot and model, in ticks, over all
    phases of the edit against the stagger. lora.x stands for all adapters; preparing their weights
    takes extra time.

    Returns:
        Rows control, cls, policy (shared, admitted, migrated), onset_min, onset_max,
        converged_min, converged_max, between (most completions that are neither old nor new).
    """
    phases = range(2 * steps, 2 * steps + -(-steps // depth))
    ticks = phases.stop + 4 * steps
    table = []
    for edit in edits():
        never, always = (play(edit, at, steps, depth, ticks) for at in (None, 0))
        found = [_measured(at, never, play(edit, at, steps, depth, ticks), always) for at in phases]
        onset, settled, between = zip(*found, strict=True)
        policy = "migrated" if edit.migrate else "shared" if edit.share else "admitted"
        table.append(
            {
                "control": edit.control,
                "cls": "model" if edit.control == "lora.x" else controls.CONTROLS[edit.control].cls,
                "policy": policy,
                "onset_min": min(onset),
                "onset_max": max(onset),
                "converged_min": min(settled),
                "converged_max": max(settled),
                "between": max(between),
            }
        )
    return table
