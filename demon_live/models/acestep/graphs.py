"""ACE-Step fused and captured into CUDA graphs: no host work and no allocation in a tick.

    (rows, frames, tokens, mixing) -> a bucket: static inputs, one captured graph, static output
    a tick: copy x and t in, replay, copy v out; conditions are copied only when they change

A new bucket runs uncaptured, which costs a tick some milliseconds, and is captured between ticks
(`between_ticks`), which takes a tenth of a second. Those unused for longest go when all of them
take more than a part of the card's memory. The graphs share one pool of memory, which is sound
because the ring replays them one after another on one stream. Windows are decoded by graphs of
their own, on a stream of higher priority beside the ring's.

Where Triton or its compiler is missing the same graph is captured from torch's own operations,
with a note. fp8: DEMON_ACE_FP8=1, or `fp8=True`.

Threads: `flow` the ring's, `decode` one thread beside it, `keep` the thread that reads texts.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from demon_live.errors import EngineError, one_line
from demon_live.models.acestep import fused
from demon_live.models.acestep.eager import short
from demon_live.models.acestep.engine import Batch
from demon_live.models.acestep.fused import KeysValues, Ops, Plain
from demon_live.models.acestep.load import AceModules, random_dit
from demon_live.models.acestep.oobleck import Decoder, snake
from demon_live.models.cuda import why_no_compiler

_log = logging.getLogger(__name__)
#: Part of the memory that is free beside the weights which buckets may take; runs of a bucket after
#: which it is captured in a tick, if there was no time between ticks.
_SHARE, _RUNS = 3, 400
#: Condition tokens are rounded up to one of these: a new prompt seldom needs a new graph.
_TOKENS = (128, 256, 512, 1024, 2560)


def wants_fp8() -> bool:
    """Whether DEMON_ACE_FP8 asks for fp8."""
    return os.environ.get("DEMON_ACE_FP8", "") not in ("", "0")


def operations(modules: AceModules, fp8: bool) -> tuple[Ops, Any, str]:
    """(ops, snake, what they are) for a device; fp8 needs compute capability 8.9."""
    config, device = modules.config, modules.device
    if device.type != "cuda":
        return Plain(config), snake, "plain torch"
    try:
        from demon_live.models.acestep import triton_ops
    except ImportError:
        return Plain(config), snake, f"{short(modules.dtype)} without Triton: it is not installed"
    failed: list[str] = []
    if fp8 and torch.cuda.get_device_capability(device) < (8, 9):
        failed, fp8 = ["this GPU has none (RTX 40 series, H100 and later do)"], False
    for kind in (triton_ops.Fp8Ops, triton_ops.TritonOps)[not fp8 :]:
        try:
            ops = kind(config, device)
            _try_out(ops, modules)
        # What compiles a kernel may fail in any way: no compiler, no headers, a driver, a card
        # without this product. Torch's own operations need none of it.
        except Exception as error:  # noqa: BLE001
            _log.warning("%s", kind.__name__, exc_info=True)
            failed.append(one_line(error))
            continue
        break
    else:
        found = why_no_compiler()
        why = failed[-1] if found is None else f"{found.reason} ({found.remedy})"
        return Plain(config), snake, f"{short(modules.dtype)} without Triton: {why}"
    what = "fp8" if ops.quant else short(modules.dtype)
    if failed:
        what += f" instead of fp8: {failed[0]}"
    if not (ops.flash or ops.own_attention):
        what += f", attention without FlashAttention ({ops.why_not})"
    return ops, triton_ops.fused_snake, what


@torch.no_grad()
def _try_out(ops: Ops, modules: AceModules) -> None:
    """Compile and run each kernel once on one layer of random weights, before the real ones are
    rearranged for it. Raises whatever goes wrong."""
    config, device = replace(modules.config, layers=1), modules.device
    dit = random_dit(config, device, modules.dtype)
    packed = fused.pack(dit, config, ops, release=True)
    frames, tokens = 2 * config.patch, 2
    like = torch.zeros(1, frames, 2 * config.channels, device=device, dtype=modules.dtype)
    states = torch.zeros(tokens, config.encoder_hidden, device=device, dtype=modules.dtype)
    kept = KeysValues(
        packed.keep(states)[:, :, None].contiguous(),
        torch.full((1,), tokens, dtype=torch.int32, device=device),
    )
    x, t = torch.zeros(1, frames, config.channels, device=device), torch.ones(1, device=device)
    turn = fused.turn_of(config, frames // config.patch, like)
    v = fused.forward(packed, ops, x, t, like, kept, turn, None)
    if not bool(torch.isfinite(v).all()):
        raise EngineError("its kernels give numbers that are not finite")


class Bucket:
    """Static tensors of one shape and the graph over them. sources: of the inputs' values."""

    def __init__(self, owner: AceGraphs, rows: int, frames: int, tokens: int, mixing: bool) -> None:
        c, device, dtype = owner.config, owner.device, owner.dtype
        self.owner = owner
        self.x = torch.zeros(rows, frames, c.channels, device=device)
        self.t = torch.full((rows,), 0.5, device=device)
        self.context = torch.zeros(rows, frames, 2 * c.channels, device=device, dtype=dtype)
        shape = (c.layers, 2, rows, tokens, c.kv_heads * c.head_dim)
        self.cross = [
            KeysValues(
                torch.zeros(shape, device=device, dtype=dtype),
                torch.ones(rows, dtype=torch.int32, device=device),
            )
            for _ in range(2 if mixing else 1)
        ]
        self.mix = torch.zeros(rows, frames, device=device) if mixing else None
        like = torch.empty(0, device=device, dtype=dtype)
        self.turn = fused.turn_of(c, frames // c.patch, like)
        self.sources: list[list[Any]] = [[None] * rows for _ in self.cross]
        self.serial = -1
        self.v: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.runs = 0
        cross = sum(c.kept.nbytes for c in self.cross)
        self.nbytes = cross + self.context.nbytes + 3 * self.x.nbytes

    def run(self) -> Tensor:
        """The forward over the static inputs, as it is captured."""
        mixed = (self.cross[1], self.mix) if self.mix is not None else None
        owner = self.owner
        return fused.forward(
            owner.packed,
            owner.ops,
            self.x,
            self.t,
            self.context,
            self.cross[0],
            self.turn,
            mixed,
        )

    def capture(self) -> None:
        """Run once on a side stream, then capture."""
        side = torch.cuda.Stream(self.owner.device)
        side.wait_stream(torch.cuda.current_stream(self.owner.device))
        with torch.cuda.stream(side):
            self.run()
        torch.cuda.current_stream(self.owner.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.owner.pool, capture_error_mode="thread_local"):
            self.v = self.run()
        self.graph = graph

    def tell(self, batch: Batch) -> None:
        """Copy what changed since the last tick: contexts, and conditions of changed rows."""
        if batch.serial == self.serial:
            return
        self.context.copy_(batch.context)
        sides = (batch.first, batch.second)
        for cross, before, conditions in zip(self.cross, self.sources, sides, strict=False):
            for row, one in enumerate(conditions):
                if before[row] is not one.kept:
                    cross.kept[:, :, row, : one.length].copy_(one.kept)
                    cross.lengths[row].fill_(one.length)
                    before[row] = one.kept
        if self.mix is not None and batch.mix is not None:
            self.mix.copy_(batch.mix)
        self.serial = batch.serial

    def replay(self, x: Tensor, t: Tensor) -> Tensor:
        """v of x and t; a copy, since the next tick writes over the graph's own."""
        self.x.copy_(x)
        self.t.copy_(t)
        if self.graph is None:
            self.runs += 1
            return self.run()
        self.graph.replay()
        assert self.v is not None
        return self.v.clone()


class AceGraphs:
    """Kernels of `models.acestep.engine`: fused, captured. On a CPU (tests) without capture.

    window: latent frames of the usual window of `decode`, its context included.
    release: the modules' own weights go as they are fused, and the modules with them.
    """

    def __init__(
        self,
        modules: AceModules,
        *,
        window: int = 0,
        fp8: bool | None = None,
        release: bool = True,
    ) -> None:
        self.modules, self.config = modules, modules.config
        self.device, self.dtype = modules.device, modules.dtype
        wanted = wants_fp8() if fp8 is None else fp8
        self.ops, act, what = operations(modules, wanted)
        self.label = f"CUDA graphs, {what}" if self.device.type == "cuda" else f"fused, {what}"
        self.packed = fused.pack(modules.dit, self.config, self.ops, release=release)
        self.decoder = Decoder(modules.vae, act)
        self.cuda = self.device.type == "cuda"
        self.pool = torch.cuda.graph_pool_handle() if self.cuda else None
        self._holder = _pool_holder(self.device, self.pool) if self.cuda else None
        self._buckets: OrderedDict[tuple[int, int, int, bool], Bucket] = OrderedDict()
        #: Bytes that the buckets may take.
        self.room = torch.cuda.mem_get_info(self.device)[0] // _SHARE if self.cuda else 1 << 30
        #: Lengths of windows that are to be captured.
        self._uncaptured: set[int] = set()
        self._windows: dict[int, tuple[Any, Tensor, Tensor]] = {}
        self._beside = torch.cuda.Stream(self.device, priority=-1) if self.cuda else None
        self._window = window
        if self.cuda:
            # Every kernel is compiled here, off stage: shapes to come need captures only.
            self._capture(self.bucket(1, 128, _TOKENS[0], False))
            self._buckets.clear()

    def keep(self, states: Tensor) -> Tensor:
        """Keys and values of all layers, [layers, 2, L, kv D]."""
        return self.packed.keep(states)

    def flow(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """v [B, T, C] float32."""
        frames = x.shape[1]
        short_by = -frames % self.config.patch
        if short_by:
            # The patch needs whole pairs of frames: one of zeros more, as upstream does.
            x = torch.nn.functional.pad(x, (0, 0, 0, short_by))
            context = torch.nn.functional.pad(batch.context, (0, 0, 0, short_by))
            mix = batch.mix
            if mix is not None:
                mix = torch.cat([mix, mix[:, -1:].expand(-1, short_by)], dim=1)
            batch = Batch(context, batch.first, batch.second, mix, batch.serial)
        longest = max(entry.length for entry in (*batch.first, *batch.second))
        tokens = next((n for n in _TOKENS if n >= longest), longest)
        bucket = self.bucket(len(x), x.shape[1], tokens, batch.mix is not None)
        bucket.tell(batch)
        return bucket.replay(x, t)[:, :frames]

    def bucket(self, rows: int, frames: int, tokens: int, mixing: bool) -> Bucket:
        """The bucket of a shape, made if it is new; those unused for longest are dropped."""
        key = (rows, frames, tokens, mixing)
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = Bucket(self, *key)
        self._buckets.move_to_end(key)
        while len(self._buckets) > 1 and sum(b.nbytes for b in self._buckets.values()) > self.room:
            self._buckets.popitem(last=False)
        if found.runs >= _RUNS and found.graph is None and self.cuda:
            self._capture(found)
        return found

    def _capture(self, bucket: Bucket) -> None:
        """Capture a bucket, at the cost of the others where memory is short. Raises
        torch.OutOfMemoryError if it does not fit even then."""
        for last in (False, True):
            try:
                bucket.capture()
                return
            except RuntimeError as error:
                if not _is_memory(error):
                    raise
                for key in [k for k, b in self._buckets.items() if b is not bucket]:
                    del self._buckets[key]
                # What a capture that failed has taken of the pool stays with it.
                self.pool = torch.cuda.graph_pool_handle()
                torch.cuda.empty_cache()
                if last:
                    bucket.runs = -(1 << 60)
                    raise torch.OutOfMemoryError(one_line(error)) from error

    def between_ticks(self) -> bool:
        """Capture one shape that has run uncaptured: a tenth of a second. Whether there was one."""
        waiting = next((b for b in self._buckets.values() if b.runs > 0 and b.graph is None), None)
        if self.cuda and waiting is not None:
            self._capture(waiting)
        elif self._uncaptured:
            count = self._uncaptured.pop()
            self._replayed(torch.zeros(1, count, self.config.channels, device=self.device))
        else:
            return False
        return True

    # -- decoding --------------------------------------------------------------------------------

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B, F, C] -> audio [B, 2, F * hop] float32.

        Of a window (one row, its frames and nine of context on either side), or half of one, only
        the window itself is computed; the context, which a caller cuts away, is zeros.
        """
        count = latent.shape[1]
        usual, half = count == self._window, count == 18 + round((self._window - 18) / 2)
        if len(latent) != 1 or not (usual or half) or count <= 18:
            return self.decoder.full(latent)
        inner = count - 18
        if self.cuda and (usual or inner in self._windows):
            cut = self._replayed(latent)
        else:
            cut = self.decoder.window(latent, 9, inner)
            self._uncaptured |= {count} if self.cuda else set()
        return torch.nn.functional.pad(cut, (9 * self.decoder.hop, 9 * self.decoder.hop))

    def _replayed(self, latent: Tensor) -> Tensor:
        inner = latent.shape[1] - 18
        assert self._beside is not None
        self._beside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._beside):
            if inner not in self._windows:
                self._windows[inner] = self._captured(latent.shape, inner)
            graph, z, audio = self._windows[inner]
            z.copy_(latent)
            graph.replay()
            cut: Tensor = audio.clone()
        torch.cuda.current_stream(self.device).wait_stream(self._beside)
        return cut

    def _captured(self, shape: torch.Size, inner: int) -> tuple[Any, Tensor, Tensor]:
        """The fastest of the ways to decode a window here, captured: convolution libraries differ
        by far at such lengths (on an H100, one chose kernels for 25 frames that took 29 ms where
        diffusers' own decoder, context and all, took 4.5)."""
        z = torch.zeros(shape, device=self.device)
        edge = 9 * self.decoder.hop

        def trimmed() -> Tensor:
            return self.decoder.window(z, 9, inner)

        def plain() -> Tensor:
            decoded = self.modules.vae.decode(z.transpose(1, 2).to(self.dtype)).sample
            inside: Tensor = decoded.float()[:, :, edge:-edge]
            return inside

        found = []
        for way in (trimmed, plain):
            graph, audio = self._caught(way)
            found.append((_replay_ms(graph), graph, audio))
        _, graph, audio = min(found, key=lambda made: made[0])
        return graph, z, audio

    def _caught(self, way: Callable[[], Tensor]) -> tuple[Any, Tensor]:
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            for _ in range(2):
                way()
            torch.cuda.current_stream(self.device).synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._beside, capture_error_mode="thread_local"):
                audio = way()
        finally:
            torch.backends.cudnn.benchmark = before
        return graph, audio

    # -- the rest --------------------------------------------------------------------------------

    def targets(self) -> Mapping[str, Tensor]:
        """Views of the fused matrices, by upstream's names."""
        return self.packed.targets()

    def changed(self, names: Sequence[str]) -> None:
        """Quantised copies are made again, in place: captured graphs read the same addresses."""
        self.packed.reload(self.ops)

    def warm_up(self, frames: int, depth: int, window: int) -> None:
        """Compile and capture: batches of 1 to `depth` rows, and one window."""
        frames += -frames % self.config.patch
        for rows in range(1, depth + 1):
            bucket = self.bucket(rows, frames, _TOKENS[0], False)
            if self.cuda and bucket.graph is None:
                self._capture(bucket)
        self.decode(torch.zeros(1, window, self.config.channels, device=self.device))

    def close(self) -> None:
        """Graphs before the memory they use."""
        self._buckets.clear()
        self._windows.clear()


def _is_memory(error: BaseException | None) -> bool:
    """Whether memory was short; a capture that ends by it raises another error, which covers it."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _replay_ms(graph: Any) -> float:
    """Device time of one replay, the least of five."""
    spent = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        spent.append(begin.elapsed_time(end))
    return float(min(spent))


def _pool_holder(device: torch.device, pool: Any) -> Any:
    """A graph of nothing much: a pool that no graph uses any more is gone, and so is its handle."""
    graph, one = torch.cuda.CUDAGraph(), torch.zeros(1, device=device)
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        one.add_(1)
    return graph, one
