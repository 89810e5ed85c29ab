"""Conditions of the DiT: texts, states of texts and timbre, and context latents beside the noise.

    caption(...), lyrics(...)            the exact texts that ACE-Step 1.5 was trained on
    ConditionEncoder.states(text, lyrics, timbre) -> [L, D], in the order lyrics | timbre | text
    ConditionEncoder.null()                       -> [1, D]: the learned "no condition"
    hints(modules, source)               -> the source as the model's own plan (cover mode), [T, C]
    encode_audio, timbre_of              -> latents of a loop, of a timbre reference

Texts are encoded one by one, so that no padding reaches a state; rows of different lengths meet in
the DiT only, behind a mask. Source of the texts: ACE-Step 1.5's prompt templates and metadata
string; diffusers' pipeline writes the same.

Threads: a ConditionEncoder may be used from one thread at a time, beside the ring's.
"""

from __future__ import annotations

import contextlib
import re
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demon_live.core import RATES, Floats
from demon_live.errors import EngineError
from demon_live.models.acestep.load import AceModules
from demon_live.models.acestep.qwen import rope

#: The encoder's reach in frames: a loop that is continued by this much on both sides encodes as if
#: it went on for ever (receptive field -6.34..+7.34 frames).
_CONTEXT = 8
#: Frames of a source that are encoded at once: 1.3 GB of the full model.
_TILE = 250
#: Seconds of each of the three stretches of a timbre reference.
_STRETCH = 10
_RANDOM_TOKENS = 96
#: Sources whose plans are cached.
_SOURCES = 8


@contextlib.contextmanager
def lent(module: torch.nn.Module | None, device: torch.device) -> Iterator[None]:
    """Inside, the weights of a module that waits in host memory are on the device."""
    weights = [] if module is None else list(module.parameters())
    host = [(weight, weight.data) for weight in weights if weight.device.type != device.type]
    try:
        for weight, value in host:
            weight.data = value.to(device)
        yield
    finally:
        for weight, value in host:
            weight.data = value


@contextlib.contextmanager
def beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """On a GPU what is inside runs in a stream of its own, so that no tick waits for it; it is
    complete when the block ends."""
    if stream is None:
        yield
        return
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


class ConditionStates:
    """The states of one condition, from a worker.

    Attributes:
        states: [L, D]; None until they are encoded.
        kept: the result of the kernels' `keep`; length: L.
        ready: on a GPU, the event after which another stream may read it.
    """

    __slots__ = ("_future", "kept", "length", "ready", "states")

    def __init__(self, future: Future[Tensor] | None = None) -> None:
        self._future = future
        self.states: Tensor | None = None
        self.kept: Any = None
        self.length = 0
        self.ready: torch.cuda.Event | None = None

    @property
    def done(self) -> bool:
        return self._future is None or self._future.done()

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(t.nbytes for t in (self.states, self.kept) if isinstance(t, Tensor))

    def wait(self) -> None:
        """Until the states are there. Raises what encoding them raised."""
        if self._future is not None:
            self._future.result()
            self._future = None


def band(length: int, window: int, like: Tensor) -> Tensor | None:
    """Additive mask [1, 1, length, length] that keeps |i - j| <= window; None if that is all."""
    if length <= window + 1:
        return None
    place = torch.arange(length, device=like.device)
    far = (place[:, None] - place[None, :]).abs() > window
    mask = torch.zeros(length, length, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(far, torch.finfo(like.dtype).min)[None, None]


def tiled_silence(silence: Tensor, frames: int) -> Tensor:
    """silence [1, F, C] -> [frames, C], repeated where it is too short."""
    repeats = -(-frames // silence.shape[1])
    return silence[0].repeat(repeats, 1)[:frames]


class ConditionEncoder:
    """Texts and sounds -> condition states, with the modules of one engine."""

    def __init__(self, modules: AceModules) -> None:
        self.modules = modules
        if modules.words is not None:
            self._text_words = type(modules.words).from_str(modules.words.to_str())
            self._lyric_words = type(modules.words).from_str(modules.words.to_str())
            for words, most in (
                (self._text_words, TEXT_TOKENS),
                (self._lyric_words, LYRIC_TOKENS),
            ):
                words.no_padding()
                words.enable_truncation(most)
        self._quiet: Tensor | None = None

    @torch.no_grad()
    def states(self, text: str, lyrics: str, timbre: Tensor | None = None) -> Tensor:
        """float [L, D] of formatted texts; timbre: latents [frames, C] of a reference, or None."""
        m = self.modules
        if m.words is None:
            return self._made_up(text + lyrics)
        # One after the other: a small card has room for either, not for both.
        with lent(m.text, m.device):
            written = m.text(self._ids(self._text_words, text))
            sung = m.text.embed_tokens(self._ids(self._lyric_words, lyrics))
        with lent(m.encoder, m.device):
            token = self._silent_timbre() if timbre is None else self._timbre(timbre)
            everything = torch.ones(1, sung.shape[1], dtype=torch.bool, device=m.device)
            sung = m.encoder.lyric_encoder(inputs_embeds=sung, attention_mask=everything)
            return torch.cat([sung[0], token, m.encoder.text_projector(written)[0]])

    def _ids(self, words: object, text: str) -> Tensor:
        return torch.tensor([words.encode(text).ids], device=self.modules.device)  # type: ignore[attr-defined]

    def _made_up(self, text: str) -> Tensor:
        """Random states that depend on the text alone: for measuring without weights."""
        m = self.modules
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        states = torch.randn(_RANDOM_TOKENS, m.config.encoder_hidden, generator=generator)
        return states.to(m.device, m.dtype)

    def null(self) -> Tensor:
        """[1, D]: the learned "no condition". One token serves for any number: over equal keys,
        attention is the value."""
        m = self.modules
        if m.encoder is None:
            return self._made_up("")[:1]
        found: Tensor = m.encoder.null_condition_emb[0].to(m.device, m.dtype)
        return found

    def _silent_timbre(self) -> Tensor:
        """No reference: silence as the VAE encodes it. Zeros would sound like a drone."""
        if self._quiet is None:
            m = self.modules
            self._quiet = self._timbre(tiled_silence(m.silence, m.config.timbre_frames))
        return self._quiet

    @torch.no_grad()
    def _timbre(self, latents: Tensor) -> Tensor:
        """latents [frames, C] -> the timbre token [1, D]."""
        m = self.modules
        encoder = m.encoder.timbre_encoder
        x = encoder.embed_tokens(latents[None].to(m.device, m.dtype))
        if m.config.cls_timbre:
            # XL's upstream module puts its learned token in front; diffusers' leaves it out.
            x = torch.cat([encoder.special_token.to(x.dtype), x], dim=1)
        turn = rope(x.shape[1], m.config.head_dim, m.config.rope_theta, x)
        mask = band(x.shape[1], m.config.sliding_window, x)
        for i, layer in enumerate(encoder.layers):
            x = layer(
                hidden_states=x,
                position_embeddings=turn,
                attention_mask=mask if i % 2 == 0 else None,
            )
        token: Tensor = encoder.norm(x)[0, :1]
        return token


@torch.no_grad()
def hints(modules: AceModules, source: Tensor) -> Tensor:
    """source [T, C] -> its plan [T, C] float32: through 5 Hz tokens and back (cover mode)."""
    m = modules
    frames = len(source)
    short = -frames % m.config.pool
    padded = torch.cat([source.to(m.device), tiled_silence(m.silence, max(short, 1))[:short]])
    quantised, _ = m.tokenizer.tokenize(padded[None].to(m.dtype))
    plan: Tensor = m.detokenizer(quantised.to(m.dtype))[0, :frames]
    return plan.float()


@torch.no_grad()
def encode_audio(modules: AceModules, audio: Floats, *, cyclic: bool = True) -> Floats:
    """float32 [n, 2] -> the VAE's mean latent [F, C], F = n / hop rounded up to even.

    cyclic: with context from across the seam, as in a loop. The mean, not a sample: the same source
    gives the same latent.
    """
    if audio.ndim != 2 or audio.shape[1] != 2 or not len(audio):
        raise EngineError(f"a source must be float32 [n, 2], this is {list(audio.shape)}")
    hop = RATES.hop
    frames = -(-len(audio) // (2 * hop)) * 2
    if not np.any(np.abs(audio) > 1e-6):
        # Digital silence has a latent of its own, which the model knows.
        return tiled_silence(modules.silence, frames).cpu().numpy()
    context = _CONTEXT if cyclic else 0
    place = np.arange(-context * hop, (frames + context) * hop)
    stretch = (
        audio[place % len(audio)]
        if cyclic
        else np.pad(audio, ((0, len(place) - len(audio)), (0, 0)))
    )
    wave = torch.from_numpy(np.ascontiguousarray(stretch.T, dtype=np.float32))[None]
    parts, inside = [], wave.shape[-1] // hop
    # Tile by tile, each with the encoder's reach on both sides: exact, and the memory that it takes
    # does not grow with the length.
    for begin in range(context, context + frames, _TILE):
        end = min(begin + _TILE, context + frames)
        first, last = max(0, begin - _CONTEXT), min(inside, end + _CONTEXT)
        tile = wave[..., first * hop : last * hop].to(modules.device, modules.dtype)
        latent = modules.vae.encode(tile).latent_dist.mode()[0].T.float()
        parts.append(latent[begin - first : end - first].cpu())
    return np.ascontiguousarray(torch.cat(parts).numpy())


def timbre_of(modules: AceModules, audio: Floats) -> Tensor:
    """The latents [frames, C] of a reference float32 [n, 2]: ten seconds each from its front,
    middle and back, repeated first if it is shorter than thirty."""
    rate, stretch = RATES.sample_rate, _STRETCH * RATES.sample_rate
    whole = (
        np.tile(audio, (-(-3 * stretch // max(len(audio), 1)), 1))
        if len(audio) < 3 * stretch
        else audio
    )
    third = len(whole) // 3
    cut = np.concatenate(
        [whole[:stretch], whole[third : third + stretch], whole[len(whole) - stretch :]]
    )
    assert len(cut) == 3 * _STRETCH * rate
    latent = encode_audio(modules, cut, cyclic=False)
    return torch.from_numpy(latent[: modules.config.timbre_frames])


def padded(states: list[Tensor], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """States [L_i, D] -> ([B, L, D], keep [B, L] bool), L the longest, up to a multiple."""
    most = max(len(s) for s in states)
    most += -most % multiple
    keep = torch.zeros(len(states), most, dtype=torch.bool, device=states[0].device)
    rows = []
    for i, row in enumerate(states):
        rows.append(F.pad(row, (0, 0, 0, most - len(row))))
        keep[i, : len(row)] = True
    return torch.stack(rows), keep


class SourcePlans:
    """Source latents -> plans (cover hints) on the device; found again by identity, then by value.

    Threads: `of` may be called by the ring and by the thread that encodes sources.
    """

    def __init__(self, modules: AceModules) -> None:
        self._modules = modules
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self._last: dict[int, tuple[Floats, Tensor]] = {}

    def of(self, source: Floats) -> Tensor:
        """float32 [T, C] on the device."""
        found = self._last.get(id(source))
        if found is not None and found[0] is source:
            return found[1]
        value = np.ascontiguousarray(source, dtype=np.float32).tobytes()
        with self._lock:
            plan = self._known.get(value)
            if plan is None:
                m = self._modules
                plan = hints(m, torch.from_numpy(np.array(source)).to(m.device))
                self._known[value] = plan
                while len(self._known) > _SOURCES:
                    self._known.popitem(last=False)
            if len(self._last) >= _SOURCES:
                self._last.clear()
            self._last[id(source)] = (source, plan)
        return plan


def has_effect(lane: Any) -> bool:
    """Whether a lane is anything but zeros."""
    return lane is not None and bool(np.any(lane))


def lane_of(value: Any, frames: int) -> Floats | None:
    """A lane as float32 [frames], repeated if it is of a shorter loop; None where it is 0."""
    if not has_effect(value):
        return None
    lane = np.asarray(value, dtype=np.float32).reshape(-1)
    return np.ascontiguousarray(np.resize(lane, frames))


def upload(values: Floats, device: torch.device) -> Tensor:
    """To the device without waiting for it."""
    host = torch.from_numpy(values)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


Task = Literal["text2music", "cover", "repaint"]

INSTRUCTIONS: dict[Task, str] = {
    "text2music": "Fill the audio semantic mask based on the given conditions:",
    "cover": "Generate audio semantic tokens based on the given conditions:",
    "repaint": "Repaint the mask area based on the given conditions:",
}
TEXT_TOKENS, LYRIC_TOKENS = 256, 2048
#: Tempi and metres that the model knows; others are left out.
_BPM = range(30, 301)
_METRES = (2, 3, 4, 6)


def metas(bpm: float | None, beats: int | None, key: str, seconds: float) -> str:
    """Tempo, metre, key and length as the model reads them; what it does not know is N/A."""
    tempo = round(bpm) if bpm else 0
    rows = (
        ("bpm", str(tempo) if tempo in _BPM else "N/A"),
        ("timesignature", str(beats) if beats in _METRES else "N/A"),
        ("keyscale", key.strip() or "N/A"),
        # The text says whole seconds, whatever the latent's true length.
        ("duration", f"{int(seconds) if seconds > 0 else 30} seconds"),
    )
    return "".join(f"- {name}: {value}\n" for name, value in rows)


def caption(
    prompt: str,
    *,
    bpm: float | None = None,
    beats: int | None = None,
    key: str = "",
    seconds: float = 30.0,
    task: Task = "text2music",
) -> str:
    """The text branch: instruction, caption, metas."""
    metadata = metas(bpm, beats, key, seconds)
    head = f"# Instruction\n{INSTRUCTIONS[task]}\n\n# Caption\n{prompt}\n\n"
    return f"{head}# Metas\n{metadata}<|endoftext|>\n"


def lyrics(words: str) -> str:
    """The lyric branch. Empty words: an instrumental; "[de] ..." names a language, else English."""
    found = re.match(r"\s*\[([a-z]{2,3})\]\s*", words)
    words = words[found.end() :] if found else words
    language = found[1] if found else "en" if words.strip() else "unknown"
    return f"# Languages\n{language}\n\n# Lyric\n{words or '[Instrumental]'}<|endoftext|>"
