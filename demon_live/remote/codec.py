"""What goes over the line, packed small: windows of sound, sources, and blocks as differences.

Windows are FLAC of 16 bits under a power of two that fits their peak. FLAC rather than float16: at
the same 96 kB a second (stereo, 48 kHz, one play through) float16 is 1.5 Mbit/s with a noise floor
66 dB under the signal; FLAC's is 90 dB under the peak at 0.8 to 1.2 Mbit/s, and the decoder is in
libsndfile, which is there anyway. Sources are FLAC of 24 bits: the model hears them.

A block repeats most of the last one: of each lap's curve only the frames are sent that differ from
the lap of the last block that is nearest to it, so that a lap that comes to sound costs nothing.

Threads: functions are pure; `BlockPacker` and `BlockOpener` belong to one thread each.
"""

from __future__ import annotations

import io
import math
import pickle
import zlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demon_live.core import RATES, ControlBlock, Floats, Generation, Request
from demon_live.runtime.placement import Window
from demon_live.session.sampler import next_heard

#: What is said of a request: numbers and names.
_ASKED = tuple(
    field.name for field in fields(Request) if field.type in ("int", "float", "float | None", "str")
)


def _flac(ints: NDArray[Any], subtype: str) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, ints, RATES.sample_rate, format="FLAC", subtype=subtype)
    return out.getvalue()


def pack_pcm(audio: Floats, bits: int) -> tuple[float, bytes]:
    """(scale, FLAC) of float32 [n, 2]; scale is a power of two that the peak is under."""
    peak = float(np.abs(audio).max(initial=0.0))
    scale = 2.0 ** max(-20, math.ceil(math.log2(peak))) if peak > 0 else 1.0
    if bits == 16:
        ints = np.clip(np.rint(audio * (32767 / scale)), -32767, 32767).astype(np.int16)
        return scale, _flac(ints, "PCM_16")
    wide = np.clip(np.rint(audio.astype(np.float64) * (8388607 / scale)), -8388607, 8388607)
    return scale, _flac(wide.astype(np.int32) << 8, "PCM_24")


def open_pcm(scale: float, data: bytes, longest: int) -> Floats:
    """See `pack_pcm`: float32 [n, 2]. Raises ValueError for what is no such sound."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.channels != 2 or not 0 < file.frames <= longest:
                raise ValueError(f"sound of {file.channels} channels and {file.frames} samples")
            wide = file.subtype == "PCM_24"
            ints = file.read(dtype="int32" if wide else "int16", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"sound that cannot be read: {error}") from None
    if not (math.isfinite(scale) and 0 < scale <= 16):
        raise ValueError(f"sound of scale {scale}")
    step = scale / 8388607 / 256 if wide else scale / 32767
    return np.asarray(ints * np.float32(step), np.float32)


def close_window(window: Window, half: int) -> tuple[dict[str, Any], bytes]:
    """A window as numbers and FLAC: no more of it than landing needs."""
    begin, stop = window.start - half - window.base, window.end + 3 * half - window.base
    scale, data = pack_pcm(window.audio[begin:stop], 16)
    head = {
        "start": window.start,
        "end": window.end,
        "base": window.start - half,
        "hear_from": window.hear_from,
        "scale": scale,
    }
    return head, data


def open_window(head: dict[str, Any], data: bytes, half: int) -> Window:
    """See `close_window`. Raises ValueError, KeyError or TypeError if malformed."""
    start, end, base, heard = (int(head[k]) for k in ("start", "end", "base", "hear_from"))
    n = end - start + 4 * half
    if not (0 < n < 60 * RATES.sample_rate and base == start - half):
        raise ValueError("a window that fits nowhere")
    audio = open_pcm(float(head["scale"]), data, n)
    if len(audio) != n:
        raise ValueError(f"a window of {len(audio)} samples instead of {n}")
    return Window(start, end, base, audio, heard)


def close_generation(made: Generation) -> tuple[dict[str, Any], bytes]:
    """A generation as numbers and the latent: of its request what the score said."""
    asked = made.request
    head = {
        "request": {name: getattr(asked, name) for name in _ASKED} | {"values": dict(asked.values)},
        "versions": list(made.versions),
        "born": made.born,
        "retired": made.retired,
    }
    return head, np.ascontiguousarray(made.latent, np.float32).tobytes()


def open_generation(head: dict[str, Any], data: bytes) -> Generation:
    """See `close_generation`. Raises ValueError, KeyError or TypeError if malformed."""
    asked = Request(**head["request"])
    latent = np.frombuffer(data, np.float32).reshape(asked.frames, asked.channels)
    return Generation(
        latent, asked, tuple(head["versions"]), int(head["born"]), int(head["retired"])
    )


class BlockPacker:
    """Blocks of one deck as what changed since the last one packed."""

    def __init__(self) -> None:
        self._before: ControlBlock | None = None

    def pack(self, block: ControlBlock) -> bytes:
        """The mix strip stays out: it belongs to the laptop."""
        before = self._before
        same = before is not None and before.loop == block.loop
        old = before.laps if before is not None and same else {}
        laps: dict[str, Any] = {}
        for name, two in block.laps.items():
            if name not in old or old[name].shape != two.shape:
                laps[name] = two
                continue
            near = [
                int(np.argmin([np.sum(curve != other) for other in old[name]])) for curve in two
            ]
            at = np.flatnonzero(two != old[name][near])
            laps[name] = (near, at.astype(np.uint32), two.ravel()[at])
        thin = replace(block, lanes={}, laps=laps, mix={})
        self._before = block
        return zlib.compress(pickle.dumps((same, thin), protocol=5), 1)


class BlockOpener:
    """See `BlockPacker`."""

    def __init__(self) -> None:
        self._before: ControlBlock | None = None

    def open(self, data: bytes) -> ControlBlock:
        same, thin = pickle.loads(zlib.decompress(data))
        old = self._before.laps if same and self._before is not None else {}
        laps: dict[str, Floats] = {}
        for name, two in thin.laps.items():
            if isinstance(two, tuple):
                near, at, values = two
                two = old[name][near]
                two.reshape(-1)[at] = values
            laps[name] = two
        lanes = next_heard(thin.loop, thin.sampled_at, laps)
        block: ControlBlock = replace(thin, lanes=lanes, laps=laps)
        self._before = block
        return block
