"""Admission policies of earlier engines beside ours, and how completions approach a new state.

    python -m tests.rigs.policies [--steps 8] [--out FILE.json]

policies: first effect of a change of class slot, and the largest gap between completions. sweep: a
denoise that moves at every tick (Table 13 of the DEMON paper). convergence: completions after an
edit, a mock model. `Upstream` does bookkeeping only: what is compared is when completions come and
which change they know.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demon_live.bench.propagation import edits, play
from demon_live.bench.ring import largest_gap
from demon_live.core import Floats, Request
from demon_live.engine import Ring, VelocityModel

Table = list[dict[str, Any]]


@dataclass(slots=True)
class _Cell:
    value: float
    step: int = 0


class Upstream:
    """DEMON's ring of `depth` cells of `steps` steps; a request is a single value, its denoise.

    A FIFO of at most D requests; an empty cell takes the oldest; one finished cell leaves per tick,
    at the beginning of the next. reset: the policy that its paper compares with (StreamDiffusion's
    prepare): one schedule for all, whose change discards what is in flight.
    """

    def __init__(self, steps: int, depth: int, reset: bool = False) -> None:
        self.steps, self.depth, self.reset = steps, depth, reset
        self._queue: deque[float] = deque(maxlen=depth)
        self._cells: list[_Cell | None] = [None] * depth
        self._schedule: float | None = None

    def submit(self, value: float) -> None:
        """Queue a request; a full queue drops its oldest."""
        self._queue.append(value)

    def tick(self) -> float | None:
        """One tick. Returns the value of a generation whose last step was an earlier tick's."""
        done = self._retire()
        if self.reset and self._queue and self._queue[-1] != self._schedule:
            self._schedule = self._queue[-1]
            self._cells = [None] * self.depth
        for place, cell in enumerate(self._cells):
            if cell is None and self._queue:
                self._cells[place] = _Cell(self._queue.popleft())
        for cell in self._cells:
            if cell is not None and cell.step < self.steps:
                cell.step += 1
        return done

    def _retire(self) -> float | None:
        for place, cell in enumerate(self._cells):
            if cell is not None and cell.step >= self.steps:
                self._cells[place] = None
                return cell.value
        return None


class _IdentityModel:
    """A model that costs nothing, where only the order of a ring matters."""

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Any]) -> Tensor:
        return x


Policy = Callable[[float], list[float]]


def _upstream(steps: int, depth: int, reset: bool) -> Policy:
    """A function that submits a value, ticks, and returns the values that were completed."""
    ring = Upstream(steps, depth, reset)

    def tick(value: float) -> list[float]:
        ring.submit(value)
        done = ring.tick()
        return [] if done is None else [done]

    return tick


def _ours(steps: int, depth: int) -> Policy:
    ring = Ring(_IdentityModel(), steps=steps, depth=depth)
    source = np.zeros((2, 1), dtype=np.float32)

    def tick(value: float) -> list[float]:
        ring.submit(Request(frames=2, channels=1, denoise=value, source=source))
        return [generation.request.denoise for generation in ring.tick()]

    return tick


def _first_effects(make: Callable[[], Policy], steps: int, late: int) -> list[int]:
    """Ticks to the first completion that knows a change, for a change at each of many phases."""
    waits = []
    for change in range(4 * steps, 6 * steps):
        tick = make()
        for now in range(change + 4 * steps):
            if 0.5 in tick(0.5 if now >= change else 0.9):
                waits.append(now - change + 1 - late)
                break
    return waits


def policy_table(steps: int = 8, depths: Sequence[int] = (1, 2, 4, 8)) -> Table:
    """First effect of a change of class slot (ticks: min, mean, max) and the largest gap between
    completions, one request submitted a tick: mailbox and even stagger beside DEMON's FIFO.

    A generation of the FIFO leaves with the tick after its last step; it is counted with that
    step, as its paper does.
    """
    table: Table = []
    for depth in depths:
        policies: tuple[tuple[str, Callable[[], Policy], int], ...] = (
            ("fifo", lambda d=depth: _upstream(steps, d, False), 1),  # type: ignore[misc]
            ("mailbox, even stagger", lambda d=depth: _ours(steps, d), 0),  # type: ignore[misc]
        )
        for name, make, late in policies:
            waits = _first_effects(make, steps, late)
            tick = make()
            counts = [len(tick(0.9)) for _ in range(10 * steps)][4 * steps :]
            table.append(
                {
                    "policy": name,
                    "depth": depth,
                    "first_effect_min": min(waits),
                    "first_effect_mean": float(np.mean(waits)),
                    "first_effect_max": max(waits),
                    "largest_gap_ticks": largest_gap(counts),
                }
            )
    return table


def _policies(steps: int, depth: int) -> tuple[tuple[str, Callable[[], Policy]], ...]:
    return (
        ("global reset", lambda: _upstream(steps, depth, True)),
        ("fifo", lambda: _upstream(steps, depth, False)),
        ("mailbox, even stagger", lambda: _ours(steps, depth)),
    )


def sweep_table(steps: int = 8, depth: int = 8, ticks: int = 60) -> Table:
    """A denoise that moves at every tick (the paper's Table 13): completions in `ticks` ticks, and
    the longest wait for one, in ticks, after a single change (1 = no dead air)."""
    return [
        {
            "policy": name,
            "depth": depth,
            "ticks": ticks,
            "completions": sum(_swept(make(), steps, ticks)),
            "longest_wait_ticks": _wait(make(), steps),
        }
        for name, make in _policies(steps, depth)
    ]


def sweep_ticks(steps: int = 8, depth: int = 8, ticks: int = 60) -> Table:
    """The same sweep, for a picture: completions of every tick."""
    return [
        {"policy": name, "completions": _swept(make(), steps, ticks)}
        for name, make in _policies(steps, depth)
    ]


def _swept(tick: Policy, steps: int, ticks: int) -> list[int]:
    for _ in range(4 * steps):
        tick(1.0)
    return [len(tick(1.0 - 0.8 * (n + 1) / ticks)) for n in range(ticks)]


def _wait(tick: Policy, steps: int) -> int | None:
    before = [len(tick(1.0)) for _ in range(4 * steps)][3 * steps :]
    return largest_gap(before + [len(tick(0.5)) for _ in range(4 * steps)])


# -- convergence


def convergence_table(steps: int = 8, depth: int = 8) -> list[dict[str, Any]]:
    """How the completions after an edit approach the new state, for plots: one row for blend,
    morph, velocity, denoise admitted and denoise migrated.

    Rows: control, policy, ticks (of the completions, counted from the edit) and remaining: the
    distance to the new state as a part of that from old to new; 1 = old, 0 = new.
    """
    at, ticks = 2 * steps, 5 * steps
    table = []
    for edit in edits():
        if edit.control not in ("blend", "morph", "velocity", "denoise"):
            continue
        never, then, always = (play(edit, when, steps, depth, ticks) for when in (None, at, 0))
        rows = [
            (n - at + 1, _distance(then[n], always[n]), _distance(never[n], always[n]))
            for n in range(at, ticks)
            if then[n]
        ]
        table.append(
            {
                "control": edit.control,
                "policy": "migrated" if edit.migrate else "shared" if edit.share else "admitted",
                "ticks": [tick for tick, _, _ in rows],
                "remaining": [left / whole for _, left, whole in rows],
            }
        )
    return table


def _distance(a: Sequence[Floats], b: Sequence[Floats]) -> float:
    return float(np.sqrt(np.mean((a[-1] - b[-1]) ** 2)))


def preview_table(
    model: VelocityModel,
    request: Request,
    steps: int,
    *,
    shift: float = 3.0,
    device: str | torch.device = "cpu",
) -> Table:
    """How near the clean prediction after each step is to the finished latent: error is the RMS of
    the difference over that of the latent. A small one early means that decoding predictions
    lets a change be heard before its generation is finished."""
    ring = Ring(model, steps=steps, depth=1, shift=shift, device=device)
    ring.submit(request)
    previews: list[Floats] = []
    for _ in range(steps - 1):
        ring.tick()
        preview = ring.preview(request.deck)
        if preview is not None:
            previews.append(preview.latent)
    final = ring.flush()[-1].latent
    size = float(np.sqrt(np.mean(final**2))) or 1.0
    return [
        {"step": k + 1, "steps": steps, "error": float(np.sqrt(np.mean((p - final) ** 2))) / size}
        for k, p in enumerate(previews)
    ]


def main() -> None:
    """Print the tables as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.policies")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {
        "policies": policy_table(args.steps),
        "sweep": sweep_table(args.steps),
        "convergence": convergence_table(args.steps),
    }
    text = json.dumps(found, indent=2) + "\n"
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
