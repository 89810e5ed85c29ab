"""The slots of one latent shape [T, C]: their tensors, and one step of all of them.

State tensors are [capacity, T, C]; live slots lie in front, without holes, in the order of
`slots`. A step reads `x` and writes `spare`, then the two change places: until the next step the
old state is still there, so that the last clean prediction can be had without having kept it.

    host      lanes, coefficients, row numbers, keys of noise  -> one Mail
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

from demon_live.engine import dcw as wavelet
from demon_live.engine import forward, guidance, rng, solver
from demon_live.engine import staging as border
from demon_live.engine.cells import Cells
from demon_live.engine.lanes import LaneTable, MaskStrength
from demon_live.engine.shared import Snapshot
from demon_live.engine.slots import Slot, VelocityModel
from demon_live.engine.threads import threads
from demon_live.engine.workspace import Workspace

__all__ = ["Bucket"]

_Used = tuple[bool, bool, bool]

#: The lanes that go to a device, by their names in `solver.Lanes`.
_TRAVELLING = ("t", "u", "velocity", "noise", "morph", "mask", "blend", "blended")


@dataclass(frozen=True, slots=True)
class _After:
    """What the work after the model does; numbers that it needs are in the mail.

    guided: slots that are guided. passes: of those, how many have a second pass in this step.
    first: that of them which get v- from noise. store: v- is kept in the slots. used: which of z,
    source and target take part; scaled: whether x has coefficients other than 1. noisy: on a CPU,
    the rows that use z. kind: the device works the coefficients out, of steps of this kind.
    """

    guided: int
    passes: int
    first: int
    store: bool
    used: _Used
    scaled: bool
    noisy: tuple[int, ...]
    kind: solver.Kind | None


class Bucket(Cells):
    """Slots of T = frames and C = channels. capture: on a GPU, run device work as graphs."""

    def __init__(
        self,
        frames: int,
        channels: int,
        device: torch.device,
        noise: rng.NoiseCache,
        dcw: wavelet.Dcw | None = None,
        mask_strength: MaskStrength | None = None,
        capture: bool = True,
    ) -> None:
        super().__init__(frames, channels, device, noise, capture)
        self._dcw = dcw
        self._work = Workspace(device)
        self._lanes = LaneTable(frames, channels, mask_strength)
        self._last: tuple[Tensor, Tensor, solver.Lanes] | None = None

    # -- one step ------------------------------------------------------------------------------

    def advance(self, model: VelocityModel, snapshot: Snapshot, for_model: int = 1) -> None:
        """One solver step of every slot, one velocity call. An error leaves the state as it was.

        for_model: threads of torch that the velocity call may use.
        """
        slots, mail, state = self.slots, self._mail, self._state
        lanes = self._lanes.step(slots, snapshot)
        guided = self._lanes.guided(slots, snapshot)
        passes = [at for at in guided if self._needs_pass(slots[at])]
        plan = forward.lay_out(slots, snapshot, passes)
        mail.open()
        forward.post(plan, mail, len(slots), self.frames)
        self._post_input(lanes, snapshot)
        after = self._post_after(lanes, guided, passes)
        mail.send()
        x = rows = self._rows("x")
        if any(mail.has(name) for name in ("mask_keys", "gain", "owner")):
            x, rows = self._run("before", (x,), self._before)
        with threads(for_model):
            answer = forward.call(model, rows, mail["levels"], plan)
        v_rows = self._settled(answer)
        v = self._run(after, (x, v_rows, state["x"]), lambda: self._after(x, v_rows, plan, after))
        state["x"], state["spare"] = state["spare"], state["x"]
        self._last = (x, v, lanes)
        for at in guided:
            slots[at].negative_kept = True
        for row, slot in enumerate(slots):
            slot.k, slot.row = slot.k + 1, row
            slot.versions.append(snapshot.version)

    def _settled(self, answer: Tensor) -> Tensor:
        """The model's answer in float32, where the graphs expect it."""
        if not self.graphs.enabled:
            return answer.to(device=self.device, dtype=torch.float32)
        held = self._work.like("velocity", answer)
        return held.copy_(answer)

    # What the host says.

    def _post_input(self, lanes: solver.Lanes, snapshot: Snapshot) -> None:
        gain = self._lanes.gain(self.slots, snapshot)
        if gain is not None:
            self._mail.put("gain", gain)
        if self._curves_travel(lanes):
            for name in _TRAVELLING:
                self._mail.put(f"lane {name}", getattr(lanes, name))
        elif self._lanes.masked:
            self._mail.put("mask", solver.stacked(solver.mask_in(lanes.t, lanes.mask)))
        if self._lanes.masked:
            self._mail.put("mask_keys", rng.signed(self._keys(rng.MASK, range(len(self.slots)))))

    def _curves_travel(self, lanes: solver.Lanes) -> bool:
        """Whether the coefficients are worked out on the device, from lanes in the mail."""
        return not self._hosted and lanes.curved

    def _arrived(self) -> solver.Lanes:
        """The lanes that came with the mail, on the device."""
        return solver.Lanes(**{name: self._mail[f"lane {name}"] for name in _TRAVELLING})

    def _post_mix(self, lanes: solver.Lanes) -> tuple[solver.Kind | None, _Used, bool]:
        """Send the coefficients, or say (kind) that the device works them out. Returns (kind,
        which of z, source and target take part, whether x has coefficients other than 1)."""
        own = np.array([[slot.request.target is not None] for slot in self.slots])
        if not self._curves_travel(lanes):
            mix = _targeted(solver.step(lanes), own if own.any() else None)
            self._mail.put("mix", solver.stacked(mix))
            used = bool(mix.z.any()), bool(mix.source.any()), bool(mix.target.any())
            return None, used, not bool(np.all(mix.x == 1.0))
        # Terms that might take part: a coefficient that is zero after all changes no bit.
        if own.any():
            self._mail.put("own", own)
        kind, morph, mask = lanes.kind, bool(lanes.morph.any()), self._lanes.masked
        pulled = kind != "euler"
        z, moved = pulled or bool(lanes.noise.any()), pulled or mask or morph
        return kind, (z, moved, morph and bool(own.any())), moved

    def _post_after(
        self, lanes: solver.Lanes, guided: Sequence[int], passes: Sequence[int]
    ) -> _After:
        mail = self._mail
        kind, used, scaled = self._post_mix(lanes)
        noisy: tuple[int, ...] = ()
        if used[0] and self._hosted:
            z = mail.array("mix")[2].any(axis=(1, 2)) if kind is None else np.ones(len(self.slots))
            noisy = tuple(np.flatnonzero(z).tolist())
        elif used[0]:
            mail.put("keys", rng.signed(self._keys(rng.STEP, range(len(self.slots)))))
        if self._dcw is not None and self._dcw.active:
            mail.put("t", lanes.t.astype(np.float32)[..., None])
        first = self._post_guidance(guided, passes)
        modes = {self.slots[at].request.cfg for at in passes}
        store = bool(guided) and (len(passes) < len(guided) or "initialize" in modes)
        return _After(len(guided), len(passes), first, store, used, scaled, noisy, kind)

    def _keys(self, purpose: int, places: Iterable[int]) -> list[int]:
        slots = [self.slots[at] for at in places]
        step = purpose == rng.STEP
        return [rng.key(s.request.seed, purpose, s.k if step else 0) for s in slots]

    def _post_guidance(self, guided: Sequence[int], passes: Sequence[int]) -> int:
        """Rows and curves of guidance. Returns how many slots get v- from their first noise."""
        mail = self._mail
        if not guided:
            return 0
        for name, curve in self._lanes.guidance().items():
            mail.put(name, curve.astype(np.float32)[..., None])
        if len(guided) < len(self.slots):
            mail.put("guided", np.array(guided, dtype=np.int64))
        if passes:
            mail.put("passes", np.array(passes, dtype=np.int64))
        # v = noise - x0 with an x0 near 0: the slot's first noise stands for v-.
        slots = self.slots
        first = [a for a in guided if slots[a].request.cfg == "self" and not slots[a].negative_kept]
        if first:
            mail.put("first", np.array(first, dtype=np.int64))
            mail.put("first_keys", rng.signed(self._keys(rng.BIRTH, first)))
        return len(first)

    # What the device does.

    def _before(self) -> tuple[Tensor, Tensor]:
        """(x with the frames outside the masks put back on their way, the rows of the model)."""
        mail, work, x = self._mail, self._work, self._rows("x")
        if mail.has("mask_keys"):
            noise = self._fields(rng.MASK, "mask_keys", range(len(self.slots)))
            if mail.has("mask"):
                columns = mail["mask"]
            else:
                lanes = self._arrived()
                columns = solver.columns_of(solver.mask_in(lanes.t, lanes.mask))
            out, terms = work.like("masked", x), (None, noise, self._rows("source"), None)
            x = solver.combine(columns, x, terms, out, work.like("product", x))
        rows = x
        if mail.has("gain"):
            rows = torch.mul(x, mail["gain"], out=work.like("input", x))
        return x, forward.batch(rows, mail, work)

    def _after(self, x: Tensor, v_rows: Tensor, plan: forward.Plan, what: _After) -> Tensor:
        """Writes the next x into `spare`. Returns the velocity that the solver used."""
        mail, work, n = self._mail, self._work, len(self.slots)
        v = forward.merge(v_rows, plan, mail, n)
        if what.guided:
            v = self._guide(v, v_rows[len(v_rows) - what.passes :], what)
        out, (z, source, target) = self._rows("spare"), what.used
        terms = (
            v,
            self._fresh(what.noisy) if z else None,
            self._rows("source") if source else None,
            self._rows("target") if target else None,
        )
        columns = mail["mix"] if what.kind is None else self._columns(what.kind)
        solver.combine(columns, x, terms, out, work.like("product", out), what.scaled)
        if mail.has("t"):
            assert self._dcw is not None
            out.copy_(wavelet.correct(out, x - mail["t"] * v, mail["t"], self._dcw))
        return v

    def _fields(self, purpose: int, keys: str, places: Sequence[int]) -> Tensor:
        """Noise of some slots, [m, T, C]: on a GPU from the keys in the mail."""
        if not self._hosted:
            return rng.normal_on(self._mail[keys], self.frames, self.channels)
        out = torch.empty((len(places), self.frames, self.channels))
        for key, row in zip(self._keys(purpose, places), out, strict=True):
            self._noise.fill(key, row)
        return out

    def _fresh(self, noisy: Sequence[int]) -> Tensor:
        """The step's noise, [n, T, C]. On a CPU, rows that use none hold what they held."""
        if not self._hosted:
            return rng.normal_on(self._mail["keys"], self.frames, self.channels)
        z = self._rows("z")
        for at, key in zip(noisy, self._keys(rng.STEP, noisy), strict=True):
            self._noise.fill(key, z[at])
        return z

    def _columns(self, kind: solver.Kind) -> Tensor:
        """The coefficients of the step, from the lanes in the mail."""
        own = self._mail["own"] if self._mail.has("own") else None
        return solver.columns_of(_targeted(solver.step(self._arrived(), kind), own))

    # -- guidance ------------------------------------------------------------------------------

    @staticmethod
    def _needs_pass(slot: Slot) -> bool:
        """full: at every step. initialize: once, kept. self: never."""
        mode = slot.request.cfg
        return mode == "full" or (mode == "initialize" and not slot.negative_kept)

    def _guide(self, v: Tensor, second: Tensor, what: _After) -> Tensor:
        """APG on the slots that ask for it; the others keep their bits. second: the passes' v-."""
        mail, memory = self._mail, self._rows("momentum")
        negative = second
        if what.store:
            negative = self._rows("negative")
            if what.passes:
                negative.index_copy_(0, mail["passes"], second)
            if what.first:
                first = mail["first"]
                places = first.tolist() if self._hosted else ()
                negative.index_copy_(0, first, self._fields(rng.BIRTH, "first_keys", places))
        curves = (
            mail["guide"],
            mail["rescale"] if mail.has("rescale") else None,
            mail["momentum"] if mail.has("momentum") else None,
        )
        if what.guided == len(self.slots):
            return guidance.guided(v, negative, curves, memory, self._work)
        index = mail["guided"]
        if what.store:
            negative = negative.index_select(0, index)
        held = memory.index_select(0, index)
        new = guidance.guided(v.index_select(0, index), negative, curves, held, self._work)
        memory.index_copy_(0, index, held)
        return v.index_copy(0, index, new)

    # -- predictions and migration -------------------------------------------------------------

    def predictions(self, places: Sequence[int]) -> Tensor:
        """The last clean predictions of slots (by index) that have made a step, [m, T, C]."""
        assert self._last is not None, "no step was made"
        x, v, lanes = self._last
        slots = [self.slots[at] for at in places]
        rows = [slot.row for slot in slots]
        index, cells = border.index(rows, self.device), border.index(places, self.device)
        picked, target = x.index_select(0, index), self._state.get("target")
        own = np.array([[slot.request.target is not None] for slot in slots])
        return solver.apply(
            _targeted(solver.prediction(lanes.rows(rows)), own if own.any() else None),
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
        )
        self._rows("x").index_copy_(0, index, moved)


def _targeted(mix: solver.Mix, own: NDArray[np.bool_] | Tensor | None) -> solver.Mix:
    """Morph without a target of its own goes to the source. own: which slots have one; None: no
    slot has."""
    merged = solver.Mix(mix.x, mix.v, mix.z, mix.source + mix.target, solver.zeros(mix.target))
    return merged if own is None else mix.where(own, merged)
