"""ACE-Step's kernels (`models.acestep.engine`) on plans: the ring plays from TensorRT.

    (rows, frames, tokens, tokens2) -> static inputs; a tick copies x and t in and enqueues the plan
    conditions are copied only when they change; windows are decoded on a stream of their own

No tick waits for the device: the plan runs on a stream of its own, since the library synchronises
the default one, and the streams wait for each other on the device.

A plan is compared with the model before it plays: at the opening both compute the same few frames,
and a plan that is off by more than `_OFF` is refused. Until then the DiT's own weights wait in host
memory, so that a card never has to hold both.

Threads: `flow` the ring's, `decode` one thread beside it, `keep` the thread that reads texts.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from demon_live.errors import EngineError
from demon_live.models.acestep import fused
from demon_live.models.acestep.encode import padded
from demon_live.models.acestep.engine import Batch, ConditionStates
from demon_live.models.acestep.export import DECODER_NAMES, DIT_NAMES, initialisers
from demon_live.models.acestep.forward import forward
from demon_live.models.acestep.fused import Packed, Plain
from demon_live.models.acestep.load import AceModules
from demon_live.models.acestep.tensorrt import store
from demon_live.models.acestep.tensorrt.library import Library, capability_of, library_for
from demon_live.models.acestep.tensorrt.parts import Exchange, matrices, parts
from demon_live.models.acestep.tensorrt.runtime import Context, TensorRTPlan
from demon_live.models.manifest import Manifest

_BUCKETS = 12
#: Condition tokens are rounded up to one of these, so that sizes seldom change.
_TOKENS = (32, 128, 256, 512, 1024, 2560)
#: Relative error (root of the summed squares) above which a plan is not the model: bf16 beside
#: bf16 differs by one or two hundredths, a plan of other weights by one.
_OFF = 0.1
_EDGE = 9


class AceTensorRT:
    """Kernels of `models.acestep.engine` on the plans of an engine for this card.

    library, capability: by default those of the device. Raises EngineError with the reason and
    the remedy: no plan, of something else, damaged, not taken by the card, or not the model. The
    modules are then as they were.
    """

    def __init__(
        self,
        manifest: Manifest,
        modules: AceModules,
        *,
        library: Library | None = None,
        capability: str | None = None,
    ) -> None:
        self.modules, self.config = modules, modules.config
        self.device, self.dtype = modules.device, modules.dtype
        self.cuda = self.device.type == "cuda"
        found = capability or capability_of(self.device)
        if found is None:
            raise EngineError(
                "TensorRT plays on an NVIDIA GPU, and this engine is on the CPU",
                hint="--backend eager plays it here, slowly",
            )
        library = library or library_for(found)
        both = parts(manifest, self.config, found)
        wanted = [store.wanted(manifest, p, library, found, modules.random) for p in both]
        stored = [store.find(want) for want in wanted]
        self.label = f"{library}, {both[0].precision} plan for {found}"
        self._flowing = torch.cuda.Stream(self.device) if self.cuda else None
        self._beside = torch.cuda.Stream(self.device, priority=-1) if self.cuda else None
        self._buckets: OrderedDict[tuple[int, int, int, int], _Bucket] = OrderedDict()
        self._keeper = _keeper(modules)
        self._hop = math.prod(int(n) for n in modules.vae.config.downsampling_ratios)
        #: Why LoRAs cannot be applied, if they cannot.
        self.without_loras = ""
        self._exchange: Exchange | None = None
        self._packed: Packed | None = None
        self._open(library, stored)

    def _open(self, library: Library, stored: Sequence[store.Stored]) -> None:
        """Load both plans, hold them to the model, then let the model's own weights go."""
        probe, z = _Probe(self), _noise((1, 2 * _EDGE + 7, self.config.channels), self.device)
        wanted_v = probe.eager()
        wanted_audio = self.modules.vae.decode(z.transpose(1, 2).to(self.dtype)).sample.float()
        self.modules.dit.to("cpu")
        if self.cuda:
            # The library takes memory from the driver, of which torch would keep what it has freed.
            torch.cuda.empty_cache()
        try:
            dit, decoder = (self._load(library, one) for one in stored)
            dit.expect(DIT_NAMES, ["v"])
            decoder.expect(DECODER_NAMES, ["audio"])
            self._dit, self._decoder = dit, decoder
            self._flow, self._window = dit.context(), decoder.context()
            self._tile = decoder.ports["z"].high[2]
            _check_equal(dit.name, self.flow(*probe.inputs), wanted_v)
            _check_equal(decoder.name, self.decode(z), wanted_audio)
            self._prepare_loras(int(stored[0].facts.get("refit", 0)))
        except BaseException:
            self._buckets.clear()
            self.modules.dit.to(self.device)
            raise
        self._buckets.clear()

    def _load(self, library: Library, stored: store.Stored) -> TensorRTPlan:
        kernels = stored.path.with_suffix(".kernels")
        name = f"{stored.facts.get('part')} ({stored.path.name})"
        return TensorRTPlan(library, stored.path.read_bytes(), self.device, name, kernels)

    def _prepare_loras(self, exchangeable: int) -> None:
        if not exchangeable:
            self.without_loras = (
                "this plan was built without a GPU, so its weights cannot be exchanged; "
                "build it on this machine, or play LoRAs with --backend graphs"
            )
            self.modules.dit = None
            return
        exchange = Exchange(self._dit, list(initialisers(self.config)))
        packed = fused.pack(self.modules.dit, self.config, Plain(self.config))
        dtype = self._dit.ports["kept"].dtype
        count = sum(w.numel() for w in packed.base.values()) * dtype.itemsize
        exchange.matrices = matrices(packed, dtype, self._place(count))
        packed.keys_values, packed.layers = self._keeper.keys_values, []
        self._packed, self._exchange, self.modules.dit = packed, exchange, None

    def _place(self, count: int) -> torch.device:
        """Where so many bytes of weights for exchange lie: on the card if that leaves 4 GB."""
        if not self.cuda:
            return self.device
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.device if free - count > 4e9 else torch.device("cpu")

    # -- a tick --------------------------------------------------------------------------------

    def keep(self, states: Tensor) -> Tensor:
        """Keys and values of all layers, [layers, 2, L, kv D]."""
        return Packed.keep(self._keeper, states)

    def flow(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """v [B, T, C] float32. Raises EngineError for what the plan was not built for."""
        frames = x.shape[1]
        short = -frames % self.config.patch
        v = torch.empty(len(x), frames, x.shape[2], device=self.device)
        bucket = self._bucket(batch, len(x), frames + short)
        if self._flowing is None:
            bucket.run(x, t, batch, self._flow, v, 0)
            return v
        now = torch.cuda.current_stream(self.device)
        self._flowing.wait_stream(now)
        with torch.cuda.stream(self._flowing):
            bucket.run(x, t, batch, self._flow, v, self._flowing.cuda_stream)
        now.wait_stream(self._flowing)
        return v

    def _bucket(self, batch: Batch, rows: int, frames: int) -> _Bucket:
        longest = max(entry.length for entry in batch.first)
        second = max(entry.length for entry in batch.second) if batch.mix is not None else 1
        key = (rows, frames, self._rounded(longest), self._rounded(second) if second > 1 else 1)
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = _Bucket(self._dit, self.config, *key)
            while len(self._buckets) > _BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return found

    def _rounded(self, tokens: int) -> int:
        low, high = (getattr(self._dit.ports["kept"], side)[3] for side in ("low", "high"))
        # One that is too long for the plan stays as it is, and is refused with the plan's sizes.
        return next((n for n in _TOKENS if max(low, tokens) <= n <= high), max(high, tokens))

    # -- decoding ------------------------------------------------------------------------------

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B, F, C] -> audio [B, 2, F * hop] float32; longer ones than the plan takes in
        tiles, which nine frames of context on either side make exact."""
        if self._beside is None:
            return torch.stack([self._decoded(one, 0) for one in latent])
        now = torch.cuda.current_stream(self.device)
        self._beside.wait_stream(now)
        with torch.cuda.stream(self._beside):
            audio = torch.stack([self._decoded(z, self._beside.cuda_stream) for z in latent])
        now.wait_stream(self._beside)
        audio.record_stream(now)
        return audio

    def _decoded(self, latent: Tensor, stream: int) -> Tensor:
        count, made = len(latent), []
        step = count if count <= self._tile else self._tile - 2 * _EDGE
        for first in range(0, count, step):
            low, high = max(first - _EDGE, 0), min(first + step + _EDGE, count)
            z = latent[low:high].t()[None].float().contiguous()
            hop = self._hop
            audio = torch.empty(1, 2, z.shape[2] * hop, device=self.device)
            self._window.run({"z": z}, {"audio": audio}, stream)
            last = min(first + step, count)
            made.append(audio[0, :, (first - low) * hop : (last - low) * hop])
        return torch.cat(made, dim=1)

    # -- the rest ------------------------------------------------------------------------------

    def targets(self) -> Mapping[str, Tensor]:
        """Weights that a LoRA may change; none unless the plan's can be exchanged."""
        return {} if self._packed is None else self._packed.targets()

    def changed(self, names: Sequence[str]) -> None:
        """The plan takes new weights over, behind the ticks that are enqueued."""
        if self._exchange is None:
            return
        if self._flowing is None:
            self._exchange.changed(names, 0)
            return
        self._flowing.wait_stream(torch.cuda.current_stream(self.device))
        self._exchange.changed(names, self._flowing.cuda_stream)
        torch.cuda.current_stream(self.device).wait_stream(self._flowing)

    def warm_up(self, frames: int, depth: int, window: int) -> None:
        """Batches of 1 to `depth` rows, and one window; the kernels made for them are kept."""
        entry, c = silent(self), self.config
        for rows in range(1, depth + 1):
            x = torch.zeros(rows, frames, c.channels, device=self.device)
            context = torch.zeros(rows, frames, 2 * c.channels, device=self.device)
            t = torch.full((rows,), 0.5, device=self.device)
            self.flow(x, t, Batch(context, [entry] * rows, [entry] * rows, None, -rows))
        self.decode(torch.zeros(1, window, c.channels, device=self.device))
        self._remember()

    def _remember(self) -> None:
        for plan in (self._dit, self._decoder):
            plan.remember()

    def close(self) -> None:
        """Keep the kernels; inputs, then contexts, before the plans that they are of."""
        self._remember()
        self._buckets.clear()
        del self._flow, self._window
        self._exchange = None


class _Bucket:
    """Static inputs of one size. sources: what lies in them."""

    def __init__(
        self, plan: TensorRTPlan, config: Any, rows: int, frames: int, tokens: int, tokens2: int
    ) -> None:
        c, wide = config, config.kv_heads * config.head_dim
        shapes = {
            "x": (rows, frames, c.channels),
            "t": (rows,),
            "context": (rows, frames, 2 * c.channels),
            "kept": (c.layers, 2, rows, tokens, wide),
            "lengths": (rows,),
            "kept2": (c.layers, 2, rows, tokens2, wide),
            "lengths2": (rows,),
            "mix": (rows, frames),
        }
        self.given = {
            name: torch.zeros(shape, dtype=plan.ports[name].dtype, device=plan.device)
            for name, shape in shapes.items()
        }
        for name in ("lengths", "lengths2"):
            self.given[name].fill_(1)
        self.v = torch.zeros(rows, frames, c.channels, device=plan.device)
        self.sources: list[list[Any]] = [[None] * rows, [None] * rows]
        self.serial: int | None = None

    def run(
        self, x: Tensor, t: Tensor, batch: Batch, context: Context, v: Tensor, stream: int
    ) -> None:
        """v [B, T, C] of x and t, all on one stream."""
        frames = x.shape[1]
        self._tell(batch, frames)
        # Of an odd length the last frame stays zeros, as upstream pads.
        self.given["x"][:, :frames].copy_(x)
        self.given["t"].copy_(t)
        context.run(self.given, {"v": self.v}, stream)
        v.copy_(self.v[:, :frames])

    def _tell(self, batch: Batch, frames: int) -> None:
        if batch.serial == self.serial:
            return
        g, mix = self.given, batch.mix
        g["context"][:, :frames].copy_(batch.context)
        self._copy_conditions("kept", "lengths", batch.first, self.sources[0])
        if mix is not None:
            self._copy_conditions("kept2", "lengths2", batch.second, self.sources[1])
            g["mix"][:, :frames].copy_(mix)
            g["mix"][:, frames:].copy_(mix[:, -1:].expand(-1, g["mix"].shape[1] - frames))
        else:
            g["mix"].zero_()
        self.serial = batch.serial

    def _copy_conditions(
        self, kept: str, lengths: str, conditions: Sequence[ConditionStates], before: list[Any]
    ) -> None:
        for row, one in enumerate(conditions):
            if before[row] is not one.kept:
                self.given[kept][:, :, row, : one.length].copy_(one.kept)
                self.given[lengths][row].fill_(one.length)
                before[row] = one.kept


class _Probe:
    """A few frames that a plan and the model both compute."""

    def __init__(self, kernels: AceTensorRT) -> None:
        c, device = kernels.config, kernels.device
        self.kernels = kernels
        entry = ConditionStates()
        entry.states = _noise((24, c.encoder_hidden), device).to(kernels.dtype)
        entry.kept, entry.length = kernels.keep(entry.states), 24
        context = _noise((1, 128, 2 * c.channels), device).to(kernels.dtype)
        batch = Batch(context, [entry], [entry], None, 0)
        x, t = _noise((1, 128, c.channels), device), torch.full((1,), 0.6, device=device)
        self.inputs = (x, t, batch)

    @torch.no_grad()
    def eager(self) -> Tensor:
        """The model's result."""
        x, t, batch = self.inputs
        states, keep = padded([batch.first[0].states])  # type: ignore[list-item]
        return forward(self.kernels.modules.dit, x, t, batch.context, states, keep)


def _noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)


def _check_equal(name: str, found: Tensor, wanted: Tensor) -> None:
    """Raises EngineError unless a plan computes what the model does."""
    off = float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
    if not off <= _OFF:
        raise EngineError(
            f"the plan {name} does not compute what the model does: off by {off:.3g}, not by "
            f"{_OFF} at most",
            hint="build it again: demon engines build; or play with --backend graphs",
        )


def _keeper(modules: AceModules) -> Any:
    """What `Packed.keep` needs of a DiT's weights, copied, so that the rest can go."""
    dit, kv, norms = modules.dit, [], []
    for layer in dit.layers:
        kv += [layer.cross_attn.to_k.weight, layer.cross_attn.to_v.weight]
        norms.append(layer.cross_attn.norm_k.weight)
    embed = dit.condition_embedder
    return SimpleNamespace(
        config=modules.config,
        embed=(embed.weight.detach().clone(), embed.bias.detach().clone()),
        keys_values=torch.cat([w.detach() for w in kv]).contiguous(),
        key_norms=torch.stack([w.detach() for w in norms]),
    )


def silent(kernels: AceTensorRT, tokens: int = 96) -> ConditionStates:
    """A condition of zeros, for warming up."""
    entry, wide = ConditionStates(), kernels.config.encoder_hidden
    entry.states = torch.zeros(tokens, wide, device=kernels.device, dtype=kernels.dtype)
    entry.kept, entry.length = kernels.keep(entry.states), tokens
    return entry
