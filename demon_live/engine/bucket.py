"""The slots of one latent shape [T, C]: their tensors, and one step of all of them.

State tensors are [capacity, T, C]; live slots lie in front, without holes, in the order of
`slots`. A step reads `x` and writes `spare`, then the two change places: until the next step the
old state is still there, so that the last clean prediction can be had without having kept it.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.core import Floats
from demon_live.engine import border, forward, guidance, rng, solver
from demon_live.engine import dcw as wavelet
from demon_live.engine.lanes import GuidanceCurves, LaneTable, MaskStrength
from demon_live.engine.shared import Snapshot
from demon_live.engine.slots import Slot, VelocityModel
from demon_live.engine.threads import threads
from demon_live.engine.workspace import Workspace

__all__ = ["Bucket"]


class Bucket:
    """Slots of T = frames and C = channels."""

    def __init__(
        self,
        frames: int,
        channels: int,
        device: torch.device,
        noise: rng.NoiseCache,
        dcw: wavelet.Dcw | None = None,
        mask_strength: MaskStrength | None = None,
    ) -> None:
        self.frames, self.channels, self.device = frames, channels, device
        self.slots: list[Slot] = []
        self._noise = noise
        self._dcw = dcw
        self._work = Workspace(device)
        self._lanes = LaneTable(frames, channels, device, mask_strength)
        self._state: dict[str, Tensor] = {}
        self._capacity = 0
        self._last: tuple[Tensor, Tensor, solver.Lanes] | None = None

    # -- cells ---------------------------------------------------------------------------------

    def _rows(self, name: str) -> Tensor:
        """The live rows of a state tensor, which is made (zeros) when it is first asked for."""
        if name not in self._state:
            self._state[name] = self._blank()
        return self._state[name][: len(self.slots)]

    def _blank(self) -> Tensor:
        shape = (self._capacity, self.frames, self.channels)
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    def reserve(self, capacity: int) -> None:
        """Room for so many slots; the tensors never shrink."""
        if capacity <= self._capacity:
            return
        live, self._capacity = len(self.slots), capacity
        for name, old in self._state.items():
            self._state[name] = self._blank()
            self._state[name][:live] = old[:live]

    def _field(self, slot: Slot, purpose: int, step: int = 0) -> Tensor:
        """A noise field of the slot's seed, [T, C]."""
        key = rng.key(slot.request.seed, purpose, step)
        return self._noise.get(key, self.frames, self.channels)

    def _upload(self, array: Floats) -> Tensor:
        return border.upload(np.array(array, dtype=np.float32), self.device)

    def admit(self, slot: Slot) -> None:
        """Give a slot a cell and its first state."""
        self.reserve(len(self.slots) + 1)
        self.slots.append(slot)
        at, target = len(self.slots) - 1, slot.request.target
        source = self._rows("source")[at]
        if slot.source is None:
            source.zero_()
        else:
            source.copy_(self._upload(slot.source))
        if target is not None:
            self._rows("target")[at].copy_(self._upload(target))
        for name in ("momentum", "negative"):
            if name in self._state:
                self._rows(name)[at].zero_()
        self._give_birth(at)

    def _give_birth(self, at: int) -> None:
        slot = self.slots[at]
        init = slot.request.init
        curve = None if init is None else np.asarray(init, dtype=np.float64)
        noise, source = solver.birth(float(slot.times[0]), curve, slot.has_source)
        x = self._rows("x")[at]
        torch.mul(self._field(slot, rng.BIRTH), border.column(noise, self.device), out=x)
        x.add_(self._rows("source")[at] * border.column(source, self.device))

    def drop(self, gone: Sequence[Slot]) -> None:
        """Free the cells of some slots; the last ones move into the holes."""
        ids = {slot.id for slot in gone}
        for at in range(len(self.slots) - 1, -1, -1):
            if self.slots[at].id not in ids:
                continue
            last = len(self.slots) - 1
            if at != last:
                for name, tensor in self._state.items():
                    if name not in ("spare", "z"):
                        tensor[at].copy_(tensor[last])
                self.slots[at] = self.slots[last]
            self.slots.pop()

    def latent(self, slot: Slot) -> Tensor:
        """The state of a slot, [T, C] on the device: a view, until the next step."""
        return self._rows("x")[self.slots.index(slot)]

    # -- one step ------------------------------------------------------------------------------

    def advance(self, model: VelocityModel, snapshot: Snapshot, for_model: int = 1) -> None:
        """One solver step of every slot, one velocity call. An error leaves the state as it was.

        for_model: threads of torch that the velocity call may use.
        """
        slots = self.slots
        lanes = self._lanes.step(slots, snapshot)
        x = self._masked(lanes)
        v = self._velocity(model, x, snapshot, for_model)
        following = self._targeted(solver.step(lanes), slots)
        out = self._rows("spare")
        solver.apply(
            following,
            x,
            v,
            self._fresh(following.z),
            self._needed("source", following.source),
            self._needed("target", following.target),
            out,
            self._work.like("product", out),
        )
        if self._dcw is not None and self._dcw.active:
            t = border.column(lanes.t, self.device)
            out.copy_(wavelet.correct(out, x - t * v, t, self._dcw))
        self._state["x"], self._state["spare"] = self._state["spare"], self._state["x"]
        self._last = (x, v, lanes)
        for row, slot in enumerate(slots):
            slot.k, slot.row = slot.k + 1, row
            slot.versions.append(snapshot.version)

    def _masked(self, lanes: solver.Lanes) -> Tensor:
        """x, or x with the frames outside the masks put back on the way from noise to source."""
        x = self._rows("x")
        if all(slot.request.mask is None for slot in self.slots):
            return x
        mix = solver.mask_in(lanes.t, lanes.mask)
        noise = torch.stack([self._field(slot, rng.MASK) for slot in self.slots])
        return solver.apply(
            mix,
            x,
            None,
            noise,
            self._rows("source"),
            None,
            self._work.like("masked", x),
            self._work.like("product", x),
        )

    @staticmethod
    def _targeted(mix: solver.Mix, slots: Sequence[Slot]) -> solver.Mix:
        """Morph without a target of its own goes to the source."""
        own = np.array([[slot.request.target is not None] for slot in slots])
        zero = np.zeros_like(mix.target)
        merged = solver.Mix(mix.x, mix.v, mix.z, mix.source + mix.target, zero)
        return mix.where(own, merged) if own.any() else merged

    def _needed(self, name: str, curve: solver.Curve) -> Tensor | None:
        return self._rows(name) if curve.any() else None

    def _fresh(self, curve: solver.Curve) -> Tensor | None:
        """The step's noise for the rows that use any; other rows hold what they held, times 0."""
        used = np.flatnonzero(curve.any(axis=1))
        if not len(used):
            return None
        z, slots = self._rows("z"), [self.slots[at] for at in used]
        keys = [rng.key(slot.request.seed, rng.STEP, slot.k) for slot in slots]
        fields = self._noise.many(keys, self.frames, self.channels)
        for at, field in zip(used, fields, strict=True):
            z[at].copy_(field)
        return z

    # -- velocity ------------------------------------------------------------------------------

    def _velocity(
        self, model: VelocityModel, x: Tensor, snapshot: Snapshot, for_model: int
    ) -> Tensor:
        """The velocity that the solver uses, [n, T, C]: conditions merged, guidance done."""
        guided = self._lanes.guided(self.slots, snapshot)
        passes = [at for at in guided if self._needs_pass(self.slots[at])]
        plan = forward.lay_out(self.slots, snapshot, passes)
        gain = self._lanes.gain(self.slots, snapshot)
        with threads(for_model):
            if gain is not None:
                x = torch.mul(x, gain, out=self._work.like("input", x))
            v_rows = forward.call(model, x, plan, self._work)
        v = forward.merge(v_rows, plan, len(self.slots))
        if not guided:
            return v
        return self._guide(v, v_rows, plan, guided, snapshot)

    @staticmethod
    def _needs_pass(slot: Slot) -> bool:
        """full: at every step. initialize: once, kept. self: never."""
        mode = slot.request.cfg
        return mode == "full" or (mode == "initialize" and not slot.negative_kept)

    def _guide(
        self, v: Tensor, v_rows: Tensor, plan: forward.Plan, guided: list[int], snapshot: Snapshot
    ) -> Tensor:
        """APG on the slots that ask for it; the others keep their bits."""
        owners, places = plan.negative
        negative = self._rows("negative")
        for at, place in zip(owners, places, strict=True):
            negative[at].copy_(v_rows[place])
            self.slots[at].negative_kept = True
        for at in guided:
            if self.slots[at].request.cfg == "self":
                # v = noise - x0 with an x0 near 0: the slot's first noise stands for v-.
                negative[at].copy_(self._field(self.slots[at], rng.BIRTH))
        curves = self._lanes.guidance([self.slots[at] for at in guided], snapshot)
        memory = self._rows("momentum")
        if len(guided) == len(self.slots):
            return self._apg(v, negative, memory, curves)
        index = border.index(guided, self.device)
        held = memory.index_select(0, index)
        new = self._apg(v.index_select(0, index), negative.index_select(0, index), held, curves)
        memory.index_copy_(0, index, held)
        return v.index_copy(0, index, new)

    def _apg(
        self, positive: Tensor, negative: Tensor, memory: Tensor, curves: GuidanceCurves
    ) -> Tensor:
        guided = guidance.apg(positive, negative, curves.guide, self._work, curves.momentum, memory)
        if curves.rescale is None:
            return guided
        return guidance.rescale(guided, positive, curves.rescale, self._work)

    # -- predictions and migration -------------------------------------------------------------

    def predictions(self, places: Sequence[int]) -> Tensor:
        """The last clean predictions of slots (by index) that have made a step, [m, T, C]."""
        assert self._last is not None, "no step was made"
        x, v, lanes = self._last
        slots = [self.slots[at] for at in places]
        rows = [slot.row for slot in slots]
        index, cells = border.index(rows, self.device), border.index(places, self.device)
        picked, target = x.index_select(0, index), self._state.get("target")
        return solver.apply(
            self._targeted(solver.prediction(lanes.rows(rows)), slots),
            picked,
            v.index_select(0, index),
            None,
            self._rows("source").index_select(0, cells),
            None if target is None else target.index_select(0, cells),
            torch.empty_like(picked),
            torch.empty_like(picked),
        )

    def migrate(
        self,
        places: Sequence[int],
        schedules: Sequence[NDArray[np.float64]],
        pulls: Sequence[float],
    ) -> None:
        """Move slots to new schedules at their own step (solver.reproject), with pulls p."""
        stepped = [n for n, at in enumerate(places) if self.slots[at].row >= 0]
        if stepped:
            self._reproject(
                [places[n] for n in stepped],
                [schedules[n] for n in stepped],
                np.array([[pulls[n]] for n in stepped]),
            )
        for at, times in zip(places, schedules, strict=True):
            slot = self.slots[at]
            slot.times = times
            if slot.row < 0:
                self._give_birth(at)

    def _reproject(
        self, cells: Sequence[int], schedules: Sequence[NDArray[np.float64]], pull: solver.Curve
    ) -> None:
        slots = [self.slots[at] for at in cells]
        old = np.array([[slot.times[slot.k]] for slot in slots])
        new = np.array([[times[slot.k]] for slot, times in zip(slots, schedules, strict=True)])
        index = border.index(cells, self.device)
        x = self._rows("x").index_select(0, index)
        noise = torch.stack([self._field(slot, rng.MIGRATE, slot.k) for slot in slots])
        moved = solver.apply(
            solver.reproject(old, new, pull),
            x,
            self.predictions(cells),
            noise,
            self._rows("source").index_select(0, index),
            None,
            torch.empty_like(x),
            torch.empty_like(x),
        )
        self._rows("x").index_copy_(0, index, moved)
