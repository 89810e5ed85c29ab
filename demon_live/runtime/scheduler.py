"""Which values the next generation of a deck is made with, so that jumps are heard on time.

A generation admitted now is heard one drain later (its steps, its decode, the lead). The score is
a function of time, so its values for that moment are known: the plan of a ControlBlock lists them.
Stretches of the plan between two jumps are groups; every group gets a generation of its own before
it begins, the group that is sounding when the generation is ready gets all others. `build_request`
makes the request.

Threads: belongs to the engine loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demon_live.controls import CONTROLS
from demon_live.core import ControlBlock, Floats, Loop, Phrase, Request, SlotValues, plain_beats
from demon_live.engine.shared import STEP_LANES
from demon_live.lang.prompts import texts_of
from demon_live.models.engine import Engine
from demon_live.notes.lanes import lanes_of

#: The least weight of the first text of a sum: the others are measured by it.
_LEAST = np.float32(1e-3)


@dataclass(frozen=True, slots=True)
class Group:
    """A stretch [begin, end) of output samples in which no value of class slot jumps."""

    begin: int
    end: int
    first: Mapping[str, float | str]
    jump: bool


@dataclass(frozen=True, slots=True)
class Target:
    """When a generation is meant to be heard first, and the values it is made with."""

    hear_from: int
    values: Mapping[str, float | str]


_FOREVER = 1 << 62


def groups(plan: Sequence[SlotValues]) -> list[Group]:
    """The groups of a plan, ascending; the last one has no end."""
    heads = [row for i, row in enumerate(plan) if i == 0 or row.jump]
    ends = [row.from_sample for row in heads[1:]] + [_FOREVER]
    return [
        Group(row.from_sample, end, row.values, row.jump and i > 0)
        for i, (row, end) in enumerate(zip(heads, ends, strict=True))
    ]


def value_at(plan: Sequence[SlotValues], sample: int) -> Mapping[str, float | str]:
    """The values that hold at an output sample."""
    held = plan[0]
    for row in plan:
        if row.from_sample > sample:
            break
        held = row
    return held.values


class DeckScheduler:
    """Chooses the target of each admission of one deck."""

    def __init__(self) -> None:
        # Where a group begins -> the values it was last served with.
        self._served: dict[int, Mapping[str, float | str]] = {}
        self._begun = False

    def reset(self) -> None:
        """Forget what was served: a new loop, or a panic."""
        self._served.clear()
        self._begun = False

    def again(self) -> None:
        """Every group is to be served once more: the same values now mean something else."""
        self._served.clear()

    def target(self, block: ControlBlock, now: int, ready: int, reach: int) -> Target:
        """What the generation admitted at `now` is for.

        ready: the output sample from which it can be heard. reach: a group that begins before this
        sample must be admitted now, since the next admission would be too late for it. The first
        such group that has not been served comes first; else the group that sounds at `ready` is
        refreshed.
        """
        ready = max(ready, block.loop.from_sample)
        if not block.plan:
            return Target(ready, {})
        self._forget(now)
        group = self.unserved(block, ready, reach)
        # The first of all is for what sounds first: a loop is filled from it.
        if group is not None and self._begun:
            self._served[group.begin] = group.first
            ready = max(group.begin, ready)
        self._begun = True
        return Target(ready, value_at(block.plan, ready))

    def unserved(self, block: ControlBlock, ready: int, reach: int) -> Group | None:
        """The first group within reach that no generation was made for."""
        for group in groups(block.plan):
            within = group.jump and group.end > ready and group.begin <= reach
            if within and self._served.get(group.begin) != group.first:
                return group
        return None

    def _forget(self, now: int) -> None:
        # A group is served before it begins; a second after it has begun it is not needed.
        for begin in [b for b in self._served if b < now - 48000]:
            del self._served[begin]


def weights_of(
    texts: Sequence[str], lanes: Mapping[str, Floats], frames: int
) -> list[tuple[str, Floats]]:
    """The texts of a prompt that count, each with its weight float32 [T] against the first.

    The ring gives the first one weight 1. Negative weights lead away from a text, by at most half
    of what the positive ones are.
    """
    none = np.zeros(frames, np.float32)
    found = [(text, lanes.get(f"prompt.{i}", none)) for i, text in enumerate(texts)]
    if len(texts) == 1 or not any((w > 0).any() for _, w in found):
        return [(texts[0], none + 1)]
    found = [(text, w) for text, w in found if w.any()]
    found.sort(key=lambda row: -float(row[1].mean()))
    ahead = sum((np.maximum(w, 0) for _, w in found), none)
    away = sum((np.maximum(-w, 0) for _, w in found), none)
    short = np.minimum(1, 0.5 * ahead / np.maximum(away, 1e-6))
    least = np.maximum(found[0][1], _LEAST)
    rows = [(text, np.where(w < 0, w * short, w) / least) for text, w in found]
    return [(text, np.asarray(w, np.float32)) for text, w in rows]


def _worded(
    engine: Engine,
    loop: Loop,
    values: Mapping[str, float | str],
    lanes: Mapping[str, Floats],
    timbre: str,
) -> tuple[list[tuple[Any, Floats]], tuple[object, ...]]:
    """(condition, weight) of each text that counts, and what they mean (`Request.identity`)."""
    key = str(values.get("key", ""))
    # Only what the engine knows: a warning named the rest when it was bound.
    lyrics = str(values.get("lyrics", "")).replace(" / ", "\n")
    said = {"lyrics": lyrics, "timbre": timbre}
    more: dict[str, Any] = {k: v for k, v in said.items() if v and k in engine.controls}
    place: dict[str, Any] = {
        "bpm": float(loop.bpm),
        "cycles": loop.cycles,
        "beats": plain_beats(loop.beats),
        "frames": loop.frames,
    }
    texts, prompt2 = texts_of(str(values.get("prompt", ""))), str(values.get("prompt2", ""))
    weighed = weights_of(texts, lanes, loop.frames)
    rows = [
        (engine.condition(text, prompt2=prompt2, key=key, **place, **more), weight)
        for text, weight in weighed
    ]
    words = tuple(text for text, _ in weighed)
    return rows, (words, prompt2, key, *place.items(), *more.items())


def build_request(
    engine: Engine,
    name: str,
    loop: Loop,
    source: Floats | None,
    block: ControlBlock,
    target: Target,
    seed: int,
    timbre: str = "",
    curves: Mapping[str, Floats] | None = None,
    phrase: Phrase | None = None,
) -> Request:
    """A target and the lanes of a block, as the ring takes them.

    timbre: a name that the engine has been given a sound for. curves: the generation's own, by
    name; None: those that the deck shares. phrase: the notes of its lap.
    """
    values = target.values

    def number(control: str) -> float:
        default = CONTROLS[control].default
        return float(values.get(control, default if default is not None else 0.0))

    lanes = block.lanes if curves is None else curves
    guided = "guide" in lanes
    cfg = str(values.get("cfg", "initialize" if guided else "off")) or "off"
    worded, identity = _worded(engine, loop, values, lanes, timbre)
    (wanted, _), *others = worded
    told = phrase if getattr(engine, "told_notes", False) else None
    return Request(
        frames=loop.frames,
        channels=engine.channels,
        denoise=number("denoise"),
        seed=int(number("seed")) + seed,
        drift=number("drift"),
        turn=loop.locate(target.hear_from)[0],
        source=source,
        condition=wanted,
        conditions=[(condition, weight, 0.0, 1.0) for condition, weight in others],
        deck=name,
        shift=number("shift") if "shift" in values else None,
        init=lanes.get("init"),
        mask=lanes.get("mask"),
        negative=engine.unconditioned(wanted) if cfg in ("full", "initialize") else None,
        cfg=cfg,
        feedback=number("feedback"),
        feedback_depth=int(number("feedback_depth")),
        epoch=loop.epoch,
        hear_from=target.hear_from,
        values=values,
        curves=None if curves is None else {n: c for n, c in curves.items() if n in STEP_LANES},
        identity=(*identity, told),
        lanes=None if told is None else lanes_of(told, loop),
    )
