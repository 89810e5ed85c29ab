"""One solver step of all slots of one latent shape [T, C].

A step reads `x` and writes `spare`, then the two change places: until the next step the old state
is still there, from which the last clean prediction can be computed.

    host      lanes, coefficients, row numbers, keys of noise  -> one StagingBuffer
    before    mask, channel gain, rows of the batch            -> device work, may be a graph
    model     one velocity call
    after     conditions merged, guidance, noise, next x       -> device work, may be a graph

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.engine import guidance, noise, solver
from demon_live.engine.lanes import LaneTable
from demon_live.engine.rows import (
    RowLayout,
    VelocityModel,
    call_model,
    gather_rows,
    lay_out,
    merge_rows,
    stage_rows,
)
from demon_live.engine.shared import Snapshot
from demon_live.engine.staging import Workspace, torch_threads, upload_index
from demon_live.engine.state import SlotState

#: The lanes that go to a device, by their names in `solver.Lanes`.
_DEVICE_LANES = ("t", "u", "velocity", "noise", "morph", "mask", "blend", "blended")


@dataclass(frozen=True, slots=True)
class _AfterModel:
    """The work after the model; its numbers are in the staging buffer.

    Attributes:
        guided: how many slots are guided.
        passes: of those, how many have a negative row in this step.
        first: of those, how many take v- from noise.
        store: v- is kept in the state.
        used: which of z, source and target take part.
        scaled: x has coefficients other than 1.
        noisy: on a CPU, the rows that use z.
        kind: the device computes the coefficients, of steps of this kind.
    """

    guided: int
    passes: int
    first: int
    store: bool
    used: tuple[bool, bool, bool]
    scaled: bool
    noisy: tuple[int, ...]
    kind: solver.Kind | None


class SlotBatch(SlotState):
    """Slots of T = frames and C = channels, stepped together. dcw: wavelet correction, or None."""

    def __init__(
        self,
        frames: int,
        channels: int,
        device: torch.device,
        fields: noise.NoiseCache,
        dcw: guidance.Dcw | None = None,
        capture: bool = True,
    ) -> None:
        super().__init__(frames, channels, device, fields, capture)
        self._dcw = dcw
        self._work = Workspace(device)
        self._lanes = LaneTable(frames)
        self._last: tuple[Tensor, Tensor, solver.Lanes] | None = None

    # -- one step ------------------------------------------------------------------------------

    def advance(self, model: VelocityModel, snapshot: Snapshot, for_model: int = 1) -> None:
        """One solver step of every slot, one velocity call. An error leaves the state as it was.

        for_model: threads of torch that the velocity call may use.
        """
        slots, staging, state = self.slots, self._staging, self._state
        lanes = self._lanes.step(slots, snapshot)
        guided = self._lanes.guided(slots, snapshot)
        passes = [at for at in guided if slots[at].needs_negative]
        layout = lay_out(slots, snapshot, passes)
        staging.clear()
        stage_rows(layout, staging, len(slots), self.frames)
        self._stage_input(lanes, snapshot)
        after = self._stage_after(lanes, guided, passes)
        staging.send()
        x = model_x = self._rows("x")
        if any(staging.has(name) for name in ("mask_keys", "gain", "owner")):
            x, model_x = self._run("before", (x,), self._before)
        with torch_threads(for_model):
            answer = call_model(model, model_x, staging["levels"], layout)
        v_rows = answer.to(device=self.device, dtype=torch.float32)
        if self.graphs.enabled:
            # At the address that the graphs read.
            v_rows = self._work.like("velocity", answer).copy_(answer)
        v = self._run(after, (x, v_rows, state["x"]), lambda: self._after(x, v_rows, layout, after))
        state["x"], state["spare"] = state["spare"], state["x"]
        self._last = (x, v, lanes)
        for at in guided:
            slots[at].has_negative = True
        for row, slot in enumerate(slots):
            slot.k, slot.row = slot.k + 1, row
            slot.versions.append(snapshot.version)

    # Host side of a step: fill the staging buffer.

    def _stage_input(self, lanes: solver.Lanes, snapshot: Snapshot) -> None:
        gain = self._lanes.gain(self.slots, snapshot)
        if gain is not None:
            self._staging.put("gain", gain)
        if self._computes_on_device(lanes):
            for name in _DEVICE_LANES:
                self._staging.put(f"lane {name}", getattr(lanes, name))
        elif self._lanes.masked:
            self._staging.put("mask", solver.stacked(solver.mask_in(lanes.t, lanes.mask)))
        if self._lanes.masked:
            self._stage_keys("mask_keys", noise.MASK, range(len(self.slots)))

    def _computes_on_device(self, lanes: solver.Lanes) -> bool:
        """Whether the device computes the coefficients, from lanes in the staging buffer."""
        return not self._on_host and lanes.curved

    def _device_lanes(self) -> solver.Lanes:
        """The lanes of the staging buffer, on the device."""
        return solver.Lanes(**{name: self._staging[f"lane {name}"] for name in _DEVICE_LANES})

    def _stage_mix(
        self, lanes: solver.Lanes
    ) -> tuple[solver.Kind | None, tuple[bool, bool, bool], bool]:
        """Stage the coefficients, or let the device compute them. Returns `kind`, `used` and
        `scaled` of _AfterModel."""
        own = np.array([[slot.request.target is not None] for slot in self.slots])
        if not self._computes_on_device(lanes):
            mix = solver.morph_to_source(solver.step(lanes), own if own.any() else None)
            self._staging.put("mix", solver.stacked(mix))
            used = bool(mix.z.any()), bool(mix.source.any()), bool(mix.target.any())
            return None, used, not bool(np.all(mix.x == 1.0))
        # A term that might take part does: a coefficient of zero changes no bit.
        if own.any():
            self._staging.put("own", own)
        kind, morph, mask = lanes.kind, bool(lanes.morph.any()), self._lanes.masked
        pulled = kind != "euler"
        z, moved = pulled or bool(lanes.noise.any()), pulled or mask or morph
        return kind, (z, moved, morph and bool(own.any())), moved

    def _stage_after(
        self, lanes: solver.Lanes, guided: Sequence[int], passes: Sequence[int]
    ) -> _AfterModel:
        staging = self._staging
        kind, used, scaled = self._stage_mix(lanes)
        noisy: tuple[int, ...] = ()
        if used[0] and self._on_host:
            n = len(self.slots)
            z = staging.array("mix")[2].any(axis=(1, 2)) if kind is None else np.ones(n)
            noisy = tuple(np.flatnonzero(z).tolist())
        elif used[0]:
            self._stage_keys("keys", noise.STEP, range(len(self.slots)))
        if self._dcw is not None and self._dcw.active:
            staging.put("t", lanes.t.astype(np.float32)[..., None])
        first = self._stage_guidance(guided, passes)
        modes = {self.slots[at].request.cfg for at in passes}
        store = bool(guided) and (len(passes) < len(guided) or "initialize" in modes)
        return _AfterModel(len(guided), len(passes), first, store, used, scaled, noisy, kind)

    def _keys(self, purpose: int, places: Iterable[int]) -> list[int]:
        slots = [self.slots[at] for at in places]
        step = purpose == noise.STEP
        return [noise.key(s.request.seed, purpose, s.k if step else 0) for s in slots]

    def _stage_keys(self, name: str, purpose: int, places: Iterable[int]) -> None:
        self._staging.put(name, noise.signed(self._keys(purpose, places)))

    def _stage_guidance(self, guided: Sequence[int], passes: Sequence[int]) -> int:
        """Stage rows and curves of guidance. Returns how many slots take v- from their noise."""
        staging = self._staging
        if not guided:
            return 0
        for name, curve in self._lanes.guidance().items():
            staging.put(name, curve.astype(np.float32)[..., None])
        if len(guided) < len(self.slots):
            staging.put("guided", np.array(guided, dtype=np.int64))
        if passes:
            staging.put("passes", np.array(passes, dtype=np.int64))
        # v = noise - x0 with an x0 near 0: the slot's first noise stands for v-.
        slots = self.slots
        first = [a for a in guided if slots[a].request.cfg == "self" and not slots[a].has_negative]
        if first:
            staging.put("first", np.array(first, dtype=np.int64))
            self._stage_keys("first_keys", noise.BIRTH, first)
        return len(first)

    # Device side of a step.

    def _before(self) -> tuple[Tensor, Tensor]:
        """(x with the frames outside the masks back on their way, the model's input)."""
        staging, work, x = self._staging, self._work, self._rows("x")
        if staging.has("mask_keys"):
            fixed = self._noise_of(noise.MASK, "mask_keys", range(len(self.slots)))
            if staging.has("mask"):
                columns = staging["mask"]
            else:
                lanes = self._device_lanes()
                columns = solver.columns_of(solver.mask_in(lanes.t, lanes.mask))
            out, terms = work.like("masked", x), (None, fixed, self._rows("source"), None)
            x = solver.combine(columns, x, terms, out, work.like("product", x))
        loud = x
        if staging.has("gain"):
            loud = torch.mul(x, staging["gain"], out=work.like("input", x))
        return x, gather_rows(loud, staging, work)

    def _after(self, x: Tensor, v_rows: Tensor, layout: RowLayout, what: _AfterModel) -> Tensor:
        """Write the next x into `spare`. Returns the velocity that the solver used."""
        staging, work = self._staging, self._work
        v = merge_rows(v_rows, layout, staging, len(self.slots))
        if what.guided:
            v = self._guide(v, v_rows[len(v_rows) - what.passes :], what)
        out, (z, source, target) = self._rows("spare"), what.used
        terms = (
            v,
            self._fresh(what.noisy) if z else None,
            self._rows("source") if source else None,
            self._rows("target") if target else None,
        )
        columns = staging["mix"] if what.kind is None else self._columns(what.kind)
        solver.combine(columns, x, terms, out, work.like("product", out), what.scaled)
        if staging.has("t"):
            assert self._dcw is not None
            out.copy_(guidance.correct(out, x - staging["t"] * v, staging["t"], self._dcw))
        return v

    def _noise_of(self, purpose: int, keys: str, places: Sequence[int]) -> Tensor:
        """Noise of slots, [m, T, C]: on a GPU from the keys in the staging buffer."""
        if not self._on_host:
            return noise.normal_on(self._staging[keys], self.frames, self.channels)
        out = torch.empty((len(places), self.frames, self.channels))
        for key, row in zip(self._keys(purpose, places), out, strict=True):
            self._fields.fill(key, row)
        return out

    def _fresh(self, noisy: Sequence[int]) -> Tensor:
        """The step's noise, [n, T, C]. On a CPU, rows that use none are left as they are."""
        if not self._on_host:
            return noise.normal_on(self._staging["keys"], self.frames, self.channels)
        z = self._rows("z")
        for at, key in zip(noisy, self._keys(noise.STEP, noisy), strict=True):
            self._fields.fill(key, z[at])
        return z

    def _columns(self, kind: solver.Kind) -> Tensor:
        """The coefficients of the step, from the lanes in the staging buffer."""
        own = self._staging["own"] if self._staging.has("own") else None
        mix = solver.step(self._device_lanes(), kind)
        return solver.columns_of(solver.morph_to_source(mix, own))

    # -- guidance ------------------------------------------------------------------------------

    def _guide(self, v: Tensor, second: Tensor, what: _AfterModel) -> Tensor:
        """APG on the guided slots; the others keep their bits. second: v- of the negative rows."""
        staging, memory = self._staging, self._rows("momentum")
        negative = second
        if what.store:
            negative = self._rows("negative")
            if what.passes:
                negative.index_copy_(0, staging["passes"], second)
            if what.first:
                first = staging["first"]
                places = first.tolist() if self._on_host else ()
                negative.index_copy_(0, first, self._noise_of(noise.BIRTH, "first_keys", places))
        curves = (
            staging["guide"],
            staging["rescale"] if staging.has("rescale") else None,
            staging["momentum"] if staging.has("momentum") else None,
        )
        if what.guided == len(self.slots):
            return guidance.guided(v, negative, curves, memory, self._work)
        index = staging["guided"]
        if what.store:
            negative = negative.index_select(0, index)
        momentum = memory.index_select(0, index)
        new = guidance.guided(v.index_select(0, index), negative, curves, momentum, self._work)
        memory.index_copy_(0, index, momentum)
        return v.index_copy(0, index, new)

    # -- predictions and migration -------------------------------------------------------------

    def predictions(self, places: Sequence[int]) -> Tensor:
        """The last clean predictions of slots (by index) that have made a step, [m, T, C]."""
        assert self._last is not None, "no step was made"
        x, v, lanes = self._last
        slots = [self.slots[at] for at in places]
        rows = [slot.row for slot in slots]
        index, cells = upload_index(rows, self.device), upload_index(places, self.device)
        picked, target = x.index_select(0, index), self._state.get("target")
        own = np.array([[slot.request.target is not None] for slot in slots])
        return solver.apply(
            solver.morph_to_source(solver.prediction(lanes.rows(rows)), own if own.any() else None),
            picked,
            v.index_select(0, index),
            None,
            self._rows("source").index_select(0, cells),
            None if target is None else target.index_select(0, cells),
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
                self._initialise(at)

    def _reproject(
        self, cells: Sequence[int], schedules: Sequence[NDArray[np.float64]], pull: solver.Curve
    ) -> None:
        slots = [self.slots[at] for at in cells]
        old = np.array([[slot.times[slot.k]] for slot in slots])
        new = np.array([[times[slot.k]] for slot, times in zip(slots, schedules, strict=True)])
        index = upload_index(cells, self.device)
        x = self._rows("x").index_select(0, index)
        fresh = torch.stack([self._field(slot, noise.MIGRATE, slot.k) for slot in slots])
        moved = solver.apply(
            solver.reproject(old, new, pull),
            x,
            self.predictions(cells),
            fresh,
            self._rows("source").index_select(0, index),
            None,
        )
        self._rows("x").index_copy_(0, index, moved)
