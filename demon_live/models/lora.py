"""LoRA: low-rank changes of a network's weights, several at once, each with a strength.

    W = W0 + sum over adapters of  s (alpha / r) B A          (Hu et al. 2021, arXiv 2106.09685)

The weights that a network computes with keep their addresses: a refit computes new values beside
them, on the weights' own device, and `commit` copies them in between two ticks. So a captured graph
reads them, and a tick waits for one copy at most, never for the arithmetic. W0 is stored: strength
0 and removal restore its bits, whatever came before. Sums are in float32, in the order of the
adapters' names, rounded once: the order in which strengths are set changes no bit.

Threads: `prepare` may run in one thread beside the ring's, and its result is committed before the
next call (engine.weights does both); everything else belongs to the ring's thread.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demon_live.errors import EngineError, nearest
from demon_live.paths import open_file, read_file


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The change of one weight [out, in, ...]: scale * up @ down.

    down: A, [r, in, ...]. up: B, [out, r]. scale: alpha / r, or alpha / sqrt(r).
    """

    down: Tensor
    up: Tensor
    scale: float

    def delta(self, like: Tensor) -> Tensor:
        """scale B A as float32, of the shape of the weight `like`, on its device."""
        up, down = (f.to(like.device, torch.float32) for f in (self.up, self.down))
        return (self.scale * (up.flatten(1) @ down.flatten(1))).view(like.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A LoRA. factors: name of the weight's module -> its change."""

    name: str
    factors: Mapping[str, Factors]


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """New weights that wait for `commit`. strengths: of every adapter, those of 0 left out."""

    strengths: Mapping[str, float]
    weights: Mapping[str, Tensor]
    ready: torch.cuda.Event | None = None


@dataclass(slots=True)
class _TouchedWeight:
    """A weight that an adapter touches: W (a view of what the network reads) and its W0."""

    weight: Tensor
    base: Tensor
    adapters: set[str] = field(default_factory=set)


class LoraBank:
    """The adapters of one network and the strengths that are in force.

    targets: module name -> weight [out, in, ...]; a view into a larger, fused weight serves as
    well. changed: called with the names of the weights that a commit has written (to quantise them
    again, say), in the ring's thread. W0 is copied when an adapter first touches a weight.
    """

    def __init__(
        self,
        targets: Mapping[str, Tensor],
        changed: Callable[[Iterable[str]], None] | None = None,
    ) -> None:
        self._targets = {name: weight.detach() for name, weight in targets.items()}
        self._changed = changed
        self._adapters: dict[str, Adapter] = {}
        self._touched: dict[str, _TouchedWeight] = {}
        self._strengths: dict[str, float] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._lock = threading.RLock()

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that there are."""
        return tuple(sorted(self._adapters))

    @property
    def strengths(self) -> Mapping[str, float]:
        """What is in force; adapters of strength 0 are left out."""
        return dict(self._strengths)

    def add(self, adapter: Adapter) -> None:
        """Make an adapter known, at strength 0. EngineError when it does not fit this network."""
        if not adapter.factors:
            raise EngineError(f"LoRA {adapter.name} changes nothing: it has no factors")
        if adapter.name in self._adapters:
            self.remove(adapter.name)
        for target, factors in adapter.factors.items():
            self._check(adapter.name, target, factors)
        with self._lock:
            for target in adapter.factors:
                weight = self._targets[target]
                if target not in self._touched:
                    self._touched[target] = _TouchedWeight(weight, weight.clone())
                self._touched[target].adapters.add(adapter.name)
            self._adapters[adapter.name] = adapter

    def _check(self, name: str, target: str, factors: Factors) -> None:
        weight = self._targets.get(target)
        if weight is None:
            near = nearest(target, self._targets)
            raise EngineError(
                f"LoRA {name} changes {target!r}, which this network does not have",
                hint=f"nearest: {near[0]}" if near else "it was trained for another network",
            )
        rank, shape = factors.down.shape[0], tuple(weight.shape)
        wanted = (shape[0], rank), (rank, *shape[1:])
        got = tuple(factors.up.flatten(1).shape), tuple(factors.down.shape)
        if got != wanted:
            raise EngineError(
                f"LoRA {name}: {target} is {shape}, its factors are B {got[0]} and A {got[1]}",
                hint="it was trained for a network of another size",
            )
        if not (torch.isfinite(factors.up).all() and torch.isfinite(factors.down).all()):
            raise EngineError(f"LoRA {name}: {target} has values that are not finite")

    def remove(self, name: str) -> None:
        """Forget an adapter. If it was in force, the weights are what they are without it."""
        if name not in self._adapters:
            return
        with self._lock:
            self.commit(self.prepare({**self._strengths, name: 0.0}))
            for target in self._adapters.pop(name).factors:
                self._touched[target].adapters.discard(name)
                if not self._touched[target].adapters:
                    del self._touched[target]

    def prepare(self, strengths: Mapping[str, float]) -> Refit:
        """Work out the weights of these strengths; adapters that are not named count as 0.

        Computes beside the ring and changes nothing that a tick reads. Raises EngineError for a
        name that is not there.
        """
        wanted = {name: float(value) for name, value in strengths.items() if value != 0.0}
        for name in strengths:
            self._known(name)
        with self._lock:
            return self._prepared(wanted)

    def _known(self, name: str) -> None:
        if name in self._adapters:
            return
        near, has = nearest(name, self._adapters), ", ".join(self.names)
        hint = f"loaded: {has}" if has else "this engine has none loaded"
        raise EngineError(
            f"there is no LoRA {name!r}", hint=f"did you mean {near[0]}?" if near else hint
        )

    def _prepared(self, wanted: Mapping[str, float]) -> Refit:
        moved = {
            name
            for name in self._adapters
            if wanted.get(name, 0.0) != self._strengths.get(name, 0.0)
        }
        touched = {name: one for name, one in self._touched.items() if one.adapters & moved}
        device = next(iter(touched.values())).weight.device if touched else torch.device("cpu")
        if device.type != "cuda":
            return Refit(
                wanted, {n: self._changed_weight(n, h, wanted) for n, h in touched.items()}
            )
        stream = self._streams.setdefault(device, torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            weights = {n: self._changed_weight(n, h, wanted) for n, h in touched.items()}
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(stream)
        return Refit(wanted, weights, ready)

    @torch.no_grad()
    def _changed_weight(
        self, target: str, touched: _TouchedWeight, strengths: Mapping[str, float]
    ) -> Tensor:
        """W0 itself, or a new tensor W0 + sum s (alpha / r) B A."""
        active = sorted(touched.adapters & strengths.keys())
        if not active:
            return touched.base
        total = touched.base.to(torch.float32, copy=True)
        for name in active:
            change = self._adapters[name].factors[target].delta(touched.base)
            total.add_(change, alpha=strengths[name])
        return total.to(touched.base.dtype)

    @torch.no_grad()
    def commit(self, refit: Refit) -> None:
        """Put prepared weights in force: one copy into each, on the stream that runs the ticks."""
        weights = [self._targets[name] for name in refit.weights]
        news = list(refit.weights.values())
        if refit.ready is not None and weights:
            stream = torch.cuda.current_stream(weights[0].device)
            stream.wait_event(refit.ready)
            for new in news:
                new.record_stream(stream)
        if weights:
            # One call for all: of hundreds of copies the host's part alone would take 6 ms.
            torch._foreach_copy_(weights, news)
        self._strengths = dict(refit.strengths)
        if self._changed is not None and refit.weights:
            self._changed(refit.weights.keys())

    def done(self, refit: Refit) -> bool:
        """Whether `commit` would find the work finished, so that no tick waits for it."""
        return refit.ready is None or bool(refit.ready.query())  # type: ignore[no-untyped-call]


# -- files -------------------------------------------------------------------------------------

#: Bytes of an adapter's configuration, and the largest alpha / r.
_LONGEST, _STRONGEST = 1 << 20, 1e6
#: What PEFT and others put in front of a module's own name.
_PREFIXES = ("base_model.model.", "base_model.", "transformer.", "model.", "decoder.")
_DOWN, _UP = (".lora_A.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_up.weight")


def read_adapter(path: str | Path, name: str, targets: Iterable[str]) -> Adapter:
    """An adapter from a PEFT directory (adapter_config.json, adapter_model.safetensors), or from
    one .safetensors file. targets: the network's module names, to find the right prefix.

    Raises EngineError: files missing or damaged, a kind of adapter that is not LoRA.
    """
    folder = Path(path)
    config: dict[str, Any] = {}
    file = folder
    if folder.is_dir():
        file = folder / "adapter_model.safetensors"
        config = _config(folder / "adapter_config.json", name)
    tensors = _tensors(file, name)
    known = set(targets)
    factors: dict[str, Factors] = {}
    for key, down in tensors.items():
        ending = next((e for e in _DOWN if key.endswith(e)), None)
        if ending is None:
            continue
        module = key.removesuffix(ending)
        up = tensors.get(module + _UP[_DOWN.index(ending)])
        if up is None:
            raise EngineError(f"LoRA {name}: {module} has an A and no B", hint=f"in {file}")
        if min(down.ndim, up.ndim) < 2:
            raise EngineError(f"LoRA {name}: {module} has factors that are no matrices")
        try:
            scale = _scale(config, module, down, tensors.get(module + ".alpha"))
        except (TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError):
            raise EngineError(
                f"LoRA {name}: the scale of {module} is no number", hint=f"see {folder}"
            ) from None
        factors[_bare(module, known)] = Factors(down, up, scale)
    if not factors:
        raise EngineError(f"LoRA {name}: {file} has no lora_A and lora_B weights")
    return Adapter(name, factors)


def _config(file: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads(read_file(file, _LONGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"LoRA {name}: {file} cannot be read: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        raise EngineError(f"LoRA {name}: {file} is not the configuration of a LoRA")
    for wrong, value in (("use_dora", True), ("fan_in_fan_out", True)):
        if config.get(wrong) == value:
            raise EngineError(f"LoRA {name}: {wrong} is not supported", hint="a plain LoRA plays")
    if config.get("bias", "none") != "none":
        raise EngineError(f"LoRA {name} changes biases as well, which is not supported")
    return config


def _tensors(file: Path, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        open_file(file).close()
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"LoRA {name}: {file} cannot be read: {error}",
            hint="adapter_model.safetensors; pickles (.bin, .pt) are not opened",
        ) from None


def _scale(config: Mapping[str, Any], module: str, down: Tensor, alpha: Tensor | None) -> float:
    """alpha / r, or alpha / sqrt(r) with use_rslora. A weight's own alpha wins over the file's.

    Raises whatever values of other kinds lead to.
    """
    rank = down.shape[0]
    patterns = config.get("alpha_pattern") or {}
    own = next((v for k, v in patterns.items() if module.endswith(k)), config.get("lora_alpha"))
    if alpha is not None:
        own = alpha.item()
    scale = float(rank if own is None else own) / (rank**0.5 if config.get("use_rslora") else rank)
    if not abs(scale) <= _STRONGEST:
        raise ValueError(scale)
    return scale


def _bare(module: str, known: set[str]) -> str:
    """A module's name as the network calls it: prefixes are taken off until it is known."""
    name = module
    while name not in known:
        prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
        if prefix is None:
            return module
        name = name.removeprefix(prefix)
    return name
