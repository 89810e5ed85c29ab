"""ACE-Step on any backend: conditions, contexts, the stacking of rows; kernels do the rest.

    prompt -> ConditionStates                        encoded in a worker, cached, shared by rows
    source, hint lane -> context [T, 2C]             cached while both stay the same objects
    rows -> Batch -> kernels.flow(x, t, batch) -> v  stacked anew only when a row changes

A text takes the encoder some milliseconds, so it never runs in a tick: `condition` returns at once,
and a row whose text is not ready plays its deck's last one. The first text of a deck is waited for;
`patient` (CPU, off line): every text, so that a render does not depend on the machine's speed.

Threads: see models/protocol.py. Texts are encoded in a thread and CUDA stream of the engine's own.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from demon_live.core import RATES, Floats
from demon_live.errors import EngineError
from demon_live.models.acestep import encode
from demon_live.models.acestep.budget import out_of_memory
from demon_live.models.acestep.encode import ConditionStates as ConditionStates
from demon_live.models.acestep.load import AceModules
from demon_live.models.lora import LoraBank, read_adapter
from demon_live.models.manifest import Manifest
from demon_live.models.protocol import LastStack, Row

#: Frames of the shortest music that a model knows, unless its manifest says so.
SHORTEST = 128
#: Texts that are kept, and bytes of them; the one unused for longest goes first.
_TEXTS, _TEXT_BYTES = 24, 1 << 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Inputs of the rows of a tick.

    Attributes:
        context: [B, T, 2C] in the model's type.
        first: the conditions of the rows.
        second, mix: further conditions and their share [B, T] float32; mix is None if no row mixes.
        serial: another number for each batch that was stacked.
    """

    context: Tensor
    first: Sequence[ConditionStates]
    second: Sequence[ConditionStates]
    mix: Tensor | None
    serial: int


class AceKernels(Protocol):
    """What a backend computes. label: for `describe`."""

    label: str
    device: torch.device
    dtype: torch.dtype

    def keep(self, states: Tensor) -> Any:
        """Condition states [L, D] -> their form for `flow`, computed once."""
        ...

    def flow(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """v [B, T, C] float32."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B, F, C] float32 on the device -> audio [B, 2, F * hop] float32."""
        ...

    def targets(self) -> Mapping[str, Tensor]:
        """Weights that a LoRA may change, by upstream's module names; views of what is computed."""
        ...

    def changed(self, names: Sequence[str]) -> None:
        """These targets were written: the results of `keep` are out of date."""
        ...

    def warm_up(self, frames: int, depth: int, window: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class AceCondition:
    """Texts of a row. Compared by identity."""

    prompt: str
    prompt2: str
    engine: AceEngine
    words: tuple[str, str]
    tail: tuple[tuple[str, Any], ...]

    def states(self, cover: bool) -> tuple[ConditionStates, ConditionStates]:
        """The states of `prompt` and `prompt2`; encoding starts at the first call.

        cover: with the instruction to follow a plan, for rows with `hint`.
        """
        task: encode.Task = "cover" if cover else "text2music"
        first = self.engine.states_of(self.prompt, task, self.words, self.tail)
        if not self.prompt2:
            return first, first
        return first, self.engine.states_of(self.prompt2, task, self.words, self.tail)


class AceEngine:
    """ACE-Step 1.5, opened. See models.protocol.Engine. patient: wait for texts, as off line."""

    def __init__(self, manifest: Manifest, modules: AceModules, kernels: AceKernels) -> None:
        self.manifest, self.name = manifest, manifest.name
        self.notes: list[str] = []
        self.channels = manifest.channels
        self.margin, self.window = manifest.margin, manifest.window
        self.shortest = int(manifest.model.get("shortest", SHORTEST))
        self.dcw = str(manifest.model.get("dcw", ""))
        self.steps, self.shift, self.depth = manifest.steps, manifest.shift, manifest.depth
        self.controls = manifest.controls
        self.device = kernels.device
        self.patient = self.device.type == "cpu"
        self.modules, self.kernels = modules, kernels
        self._encoder = encode.ConditionEncoder(modules)
        self._worker = ThreadPoolExecutor(1, "texts")
        self._side = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._lock = threading.Lock()
        self._texts: OrderedDict[Any, ConditionStates] = OrderedDict()
        self._timbres: dict[str, Tensor] = {}
        self._null = ConditionStates()
        self._encode_states(self._null, self._encoder.null)
        self._plans = encode.SourcePlans(modules)
        self._stacker = _AceStacker(self)
        self._condition = functools.lru_cache(maxsize=256)(self._prepare)
        #: Its LoRAs, which the ring turns up and down (`lora.NAME`).
        self.weights = LoraBank(kernels.targets(), lambda names: self.refitted(list(names)))

    def describe(self) -> str:
        """One line: `ace-step-v15-turbo (cuda, CUDA graphs bf16)`."""
        random = ", random weights" if self.modules.random else ""
        return f"{self.name} ({self.device.type}, {self.kernels.label}{random})"

    # -- conditions ----------------------------------------------------------------------------

    def condition(
        self,
        prompt: str,
        *,
        prompt2: str = "",
        key: str = "",
        bpm: float,
        cycles: int,
        beats: int,
        frames: int,
        lyrics: str = "",
        timbre: str = "",
    ) -> AceCondition:
        """See Engine.condition; the text is encoded beside the ring. timbre: of `set_timbre`."""
        return self._condition(prompt, prompt2, key, float(bpm), beats, frames, lyrics, timbre)

    def _prepare(
        self,
        prompt: str,
        prompt2: str,
        key: str,
        bpm: float,
        beats: int,
        frames: int,
        lyrics: str,
        timbre: str,
    ) -> AceCondition:
        seconds = frames * self._times(frames) / RATES.frame_hz
        tail = (("bpm", bpm), ("beats", beats), ("key", key), ("seconds", seconds))
        words = (encode.lyrics(lyrics), timbre)
        condition = AceCondition(prompt, prompt2, self, words, tail)
        condition.states(False)
        return condition

    def states_of(
        self,
        prompt: str,
        task: encode.Task,
        words: tuple[str, str],
        tail: tuple[tuple[str, Any], ...],
    ) -> ConditionStates:
        """The states of a text, which a worker encodes; cached."""
        caption = encode.caption(prompt, task=task, **dict(tail))
        key = (caption, *words)
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key]
            entry = self._texts[key] = ConditionStates()
            while len(self._texts) > _TEXTS or (
                len(self._texts) > 2 and sum(t.nbytes for t in self._texts.values()) > _TEXT_BYTES
            ):
                self._texts.popitem(last=False)
        lyrics, timbre = words
        latents = self._timbres.get(timbre)
        entry._future = self._worker.submit(
            self._encode_states, entry, lambda: self._encoder.states(caption, lyrics, latents)
        )
        return entry

    @torch.no_grad()
    def _encode_states(self, entry: ConditionStates, states: Any) -> Tensor:
        """Encode states, and prepare them with the kernels' `keep`."""
        if self._side is None:
            entry.states = states()
            entry.kept = self.kernels.keep(entry.states)
        else:
            with torch.cuda.stream(self._side):
                entry.states = states()
                entry.kept = self.kernels.keep(entry.states)
                entry.ready = torch.cuda.Event()
                entry.ready.record(self._side)
        entry.length = len(entry.states)
        return entry.states

    def _times(self, frames: int) -> int:
        """How often a loop is repeated for the model, which knows no shorter music."""
        return -(-self.shortest // frames)

    def unconditioned(self, condition: AceCondition) -> None:
        """None: a row without a condition plays the model's learned "no condition"."""
        return None

    def set_timbre(self, name: str, audio: Floats) -> None:
        """A sound float32 [n, 2] whose timbre conditions may name. Encodes it: some 100 ms.

        Called beside the ring: on a GPU in a stream of its own, so that no tick waits for it.
        """
        with encode.beside(self._side):
            self._timbres[name] = encode.timbre_of(self.modules, audio)

    def check_prompt(self, prompt: str) -> list[str]:
        """This model reads free text: nothing to warn of, but what is cut off."""
        if self.modules.words is None or not prompt.strip():
            return []
        count = len(self.modules.words.encode(prompt).ids)
        room = encode.TEXT_TOKENS - 64
        if count <= room:
            return [f"heard: {prompt.strip()}"]
        return [f"heard: {prompt.strip()}", f"{count} tokens, the model reads about {room}"]

    # -- a tick --------------------------------------------------------------------------------

    @torch.no_grad()
    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Row]) -> Tensor:
        """v [B, T, C] of x [B, T, C] at times t [B]; one row each.

        A loop shorter than the model knows is repeated, and the middle is returned.
        """
        frames = x.shape[1]
        times = self._times(frames)
        batch = self._stacker.of(rows, frames * times)
        try:
            if times == 1:
                return self.kernels.flow(x, t, batch)
            v = self.kernels.flow(x.repeat(1, times, 1), t, batch)
            middle = times // 2 * frames
            return v[:, middle : middle + frames]
        except torch.OutOfMemoryError:
            fp8 = bool(getattr(getattr(self.kernels, "ops", None), "quant", False))
            raise out_of_memory(self.modules, len(rows), frames, fp8) from None

    def encode(self, audio: Floats) -> Floats:
        """A loop float32 [n, 2] -> latent [F, C], F = n/1920 rounded up to even. Its plan for
        `hint` is computed as well, so that no tick has to."""
        with encode.beside(self._side):
            latent = encode.encode_audio(self.modules, audio)
            self._plans.of(latent)
        return latent

    @torch.no_grad()
    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]; exact `margin` frames away from either end.

        As the VAE makes it: no normalisation over a whole clip, which a stream does not have.
        """
        z = torch.from_numpy(np.ascontiguousarray(latent, dtype=np.float32)).to(self.device)
        audio: Floats = self.kernels.decode(z).transpose(1, 2).contiguous().cpu().numpy()
        return audio

    # -- the rest ------------------------------------------------------------------------------

    def add_lora(self, path: Path) -> str:
        """Make a LoRA known by its file's or folder's name, at strength 0; returns the name.

        Raises EngineError with the reason: not readable, of another model or size.
        """
        name = path.name.removesuffix(".safetensors")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise EngineError(
                f"a LoRA cannot be called {name!r}",
                hint="rename it: letters, digits and _, so that lora.NAME can be written",
            )
        self.weights.add(read_adapter(path, name, self.kernels.targets()))
        return name

    def refitted(self, names: Sequence[str]) -> None:
        """Targets were written: prepare all conditions again."""
        self.kernels.changed(names)
        with self._lock:
            everything = [*self._texts.values(), self._null]
        for entry in everything:
            if entry.done and entry.states is not None:
                entry.kept = self.kernels.keep(entry.states)
                entry.ready = None
        self._stacker.forget()

    def warm_up(self, frames: int, depth: int) -> None:
        """Run each shape once, so that the first tick is not the slow one."""
        self.kernels.warm_up(frames * self._times(frames), depth, self.window + 2 * self.margin)

    def between_ticks(self) -> bool:
        """Do a piece of work that would hold up a tick. Whether there was one."""
        work = getattr(self.kernels, "between_ticks", None)
        return work is not None and bool(work())

    def close(self) -> None:
        """Give memory and threads back."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self.kernels.close()
        self._condition.cache_clear()
        self._texts.clear()


class _AceStacker:
    """rows -> Batch, for the ring's thread."""

    def __init__(self, engine: AceEngine) -> None:
        self._engine = engine
        self._stacked: LastStack[Batch] = LastStack()
        self._before: dict[str, tuple[ConditionStates, ConditionStates]] = {}
        self._context: dict[tuple[int, int, int], tuple[Any, Any, Tensor]] = {}
        self._serial = 0

    def forget(self) -> None:
        self._stacked = LastStack()

    def of(self, rows: Sequence[Row], frames: int) -> Batch:
        pairs = [self._conditions(row) for row in rows]
        key: list[Any] = []
        for row, (first, second) in zip(rows, pairs, strict=True):
            lanes = row.shared
            key += (row.request.source, lanes.get("hint"), lanes.get("prompt_mix"), first, second)
        return self._stacked.get(frames, key, lambda: self._stack(rows, pairs, frames))

    def _conditions(self, row: Row) -> tuple[ConditionStates, ConditionStates]:
        """A row's own conditions, or its deck's last ones while those are being encoded."""
        engine, condition = self._engine, row.condition
        if condition is None:
            return engine._null, engine._null
        covered = row.request.source is not None and encode.has_effect(row.shared.get("hint"))
        pair: tuple[ConditionStates, ConditionStates] = condition.states(covered)
        deck = row.request.deck
        if not (engine.patient or all(t.done for t in pair)) and deck in self._before:
            return self._before[deck]
        try:
            for entry in pair:
                entry.wait()
        except Exception as error:
            if engine.patient or deck not in self._before:
                raise EngineError(f"the prompt could not be encoded: {error}") from error
            _log.warning("prompt not encoded: %s", error)
            return self._before[deck]
        self._before[deck] = pair
        return pair

    def _stack(
        self,
        rows: Sequence[Row],
        pairs: Sequence[tuple[ConditionStates, ConditionStates]],
        frames: int,
    ) -> Batch:
        engine = self._engine
        for pair in pairs:
            for one in pair:
                if one.ready is not None:
                    stream = torch.cuda.current_stream(engine.device)
                    stream.wait_event(one.ready)
                    # Made in another stream, whose memory it stays: not to be given away while a
                    # tick still reads it.
                    one.kept.record_stream(stream)
                    one.ready = None
        mixes = [
            encode.lane_of(row.shared.get("prompt_mix"), frames) if a is not b else None
            for row, (a, b) in zip(rows, pairs, strict=True)
        ]
        mix = None
        if any(lane is not None for lane in mixes):
            curves = np.stack([np.zeros(frames, np.float32) if m is None else m for m in mixes])
            mix = encode.upload(curves, engine.device)
        self._serial += 1
        if len(self._context) > 64:
            self._context.clear()
        return Batch(
            torch.stack([self._context_of(row, frames) for row in rows]),
            [first for first, _ in pairs],
            [second for _, second in pairs],
            mix,
            self._serial,
        )

    def _context_of(self, row: Row, frames: int) -> Tensor:
        """[T, 2C]: (1 - h) silence + h plan, and the chunk mask, which is 1: all is made anew."""
        engine, m = self._engine, self._engine.modules
        source, hint = row.request.source, row.shared.get("hint")
        key = (frames, id(source), id(hint))
        known = self._context.get(key)
        if known is not None and known[0] is source and known[1] is hint:
            return known[2]
        latents = encode.tiled_silence(m.silence, frames)
        lane = encode.lane_of(hint, frames)
        if source is not None and lane is not None:
            plan = engine._plans.of(source)
            plan = plan.repeat(-(-frames // len(plan)), 1)[:frames]
            latents = latents + encode.upload(lane, engine.device)[:, None] * (plan - latents)
        ones = torch.ones(frames, engine.channels, device=engine.device)
        context = torch.cat([latents, ones], dim=-1).to(engine.kernels.dtype)
        self._context[key] = (source, hint, context)
        return context
