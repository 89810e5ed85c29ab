"""Sound files in and out, and how a file becomes a loop.

load_source  any file that libsndfile reads -> float32 [n, 2] at 48 kHz
fit_loop     that, stretched to the tempo (pitch kept) and cut to its length, circular
write_audio  WAV (32-bit float) or FLAC (24 bit), whole or not at all, reproducible
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.core import RATES, SOUND_ENDINGS, Beats, Floats
from demon_live.errors import FileError, nearest
from demon_live.paths import open_file, remove_file

LONGEST = 600  #: seconds of a source at most
#: Samples of a source at most, of all channels: the longest at 192 kHz.
_MOST = LONGEST * 192_000 * 2
WAV_LIMIT = 0xFFFFFF00  #: bytes of sound in a WAV
_LOWEST, _HIGHEST = 4_000, 384_000  #: sample rates that are read, in Hz
_BLOCK = 1024  #: samples read at once; a damaged block is lost as a whole
_FULL = 1 << 20  #: bytes; a disk with less is full
_CHANNELS = 64  #: of a file at most
SEAM = 480  #: samples of the cross-fade where a loop closes: 10 ms
_RATE = RATES.sample_rate


# --- in --------------------------------------------------------------------------------------


def load_source(path: str | Path) -> tuple[Floats, str]:
    """The sound in a file: float32 [n, 2] at 48 kHz, and what was done to it (`mono, 8000 Hz
    resampled`).

    Raises FileError with the remedy: missing, a folder, unreadable, empty, too long, more than two
    channels, not finite.
    """
    audio, notes = _read(Path(path))
    if not audio.any():
        notes.append("silent")
    return audio, ", ".join([f"{len(audio) / _RATE:.2f} s", *notes])


def _read(path: Path) -> tuple[Floats, list[str]]:
    """float32 [n, 2] at 48 kHz, and what is odd about it. It is converted block by block, so that
    memory is bounded by the result."""
    import soundfile

    _must_be_file(path)
    notes, parts, read, bad = list[str](), list[Floats](), 0, 0
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = int(file.samplerate), int(file.channels)
            _must_suit(path, rate, channels)
            convert, most = resampler(rate, channels), min(LONGEST * rate, _MOST // channels)
            # Headers lie, or do not know (a recording that was cut off): what is read is counted.
            while read <= most and len(part := file.read(_BLOCK, "float32", always_2d=True)):
                read += len(part)
                bad += int((~np.isfinite(part)).any(axis=1).sum())
                parts.append(convert(part))
    except soundfile.SoundFileError as error:
        why = str(getattr(error, "error_string", error)).strip().rstrip(".")
        if not read:
            raise FileError(
                f"{path} is not a sound file that can be read: {why}",
                hint="WAV, FLAC, OGG, AIFF and MP3 can be read",
            ) from error
        notes.append(f"damaged behind that: {why}")
    _must_be_whole(path, read, bad, read > most)
    parts.append(convert(None))
    audio = np.concatenate(parts)
    if channels == 1:
        audio = np.repeat(audio, 2, axis=1)
        notes.append("mono")
    if rate != _RATE:
        notes.append(f"{rate} Hz resampled to {_RATE}")
    if not len(audio):
        raise FileError(f"{path} is too short", hint="choose a longer sound")
    return np.ascontiguousarray(audio, np.float32), notes


def _must_suit(path: Path, rate: int, channels: int) -> None:
    if channels > 2:
        raise FileError(
            f"{path} has {channels} channels",
            hint=f"mix it down to mono or stereo: sox {path.name} stereo.wav channels 2",
        )
    if not _LOWEST <= rate <= _HIGHEST:
        raise FileError(
            f"{path} has a sample rate of {rate} Hz; {_LOWEST} to {_HIGHEST} can be read",
            hint=f"convert it: sox {path.name} 48k.wav rate 48000",
        )


def _must_be_whole(path: Path, read: int, bad: int, too_long: bool) -> None:
    if not read:
        raise FileError(
            f"{path} holds no sound: 0 samples", hint="export it again, or choose another"
        )
    if too_long:
        raise FileError(
            f"{path} is too long for a source: over {LONGEST // 60} minutes, or {_MOST} samples",
            hint=f"cut the part you mean: sox {path.name} part.wav trim 0 60",
        )
    if bad:
        raise FileError(
            f"{path}: {bad} samples are not numbers (NaN or infinite)",
            hint="export it again as 16- or 24-bit WAV or FLAC",
        )


def resampler(rate: int, channels: int, to: int = _RATE) -> Callable[[Floats | None], Floats]:
    """Blocks of float32 [n, channels] to another rate, in order; None gives what is left at the
    end."""
    end: Floats = np.zeros((0, channels), np.float32)
    if rate == to:
        return lambda block: end if block is None else block
    import soxr

    stream = soxr.ResampleStream(rate, to, channels, "float32", "HQ")
    return lambda block: np.asarray(
        stream.resample_chunk(end if block is None else block, last=block is None), np.float32
    )


def _must_be_file(path: Path) -> None:
    try:
        if path.is_dir():
            first = next(
                (p.name for p in sorted(path.iterdir()) if p.suffix.lower() in SOUND_ENDINGS), None
            )
            raise FileError(
                f"{path} is a folder",
                hint=f"name a file in it, like {first}" if first else "name a sound file",
            )
        if not path.exists():
            raise FileError(f"there is no file {path}", hint=_near(path))
        if not path.is_file():
            raise FileError(f"{path} is not an ordinary file", hint="name a sound file")
        if path.stat().st_size == 0:
            raise FileError(f"{path} is empty", hint="export it again, or choose another")
        open_file(path).close()
    except PermissionError as error:
        raise FileError(
            f"{path} may not be read: no permission", hint=f"chmod a+r {path.name}"
        ) from error
    except (OSError, ValueError) as error:  # a name that no file can have
        raise FileError(
            f"cannot read {str(path)[:200]!r}: {getattr(error, 'strerror', None) or error}"
        ) from error


def _near(path: Path) -> str:
    """Which files there are instead."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    sounds = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SOUND_ENDINGS)
    like = nearest(path.name, sounds, n=3)
    if like:
        return "did you mean " + " or ".join(like) + "?"
    if sounds:
        return f"in {folder}: " + ", ".join(sounds[:5]) + (" ..." if len(sounds) > 5 else "")
    return f"no sound file is in {folder}"


# --- into a loop -----------------------------------------------------------------------------


def tempo_in_name(name: str) -> float | None:
    """The tempo that a file's name states: `techno_128.flac`, `128bpm amen.wav`,
    `pad-90.5bpm.wav`."""
    stem = Path(name).stem.lower()
    found = re.search(r"(?<![\d.])(\d{2,3}(?:\.\d+)?)\s*[-_]?bpm", stem) or re.search(
        r"(?:^|[_\-\s])(\d{2,3}(?:\.\d+)?)(?=$|[_\-\s])", stem
    )
    tempo = float(found.group(1)) if found else 0.0
    return tempo if 40.0 <= tempo <= 300.0 else None


def beats_in(
    samples: int, beats: Beats, bpm: float, name: str = "", reading: str = ""
) -> tuple[int, float]:
    """How many beats a source of `samples` holds, and its tempo.

    With a tempo in the name: as many whole beats as fit (a beat that is almost there counts).
    Without: a power of two of bars (or of beats, under a bar) whose tempo is nearest to bpm.

    reading: what the score says of it. `bars 2` (of `beats` beats), `beats 6`, `bpm 137`: so it is.
    `half`, `double`: half the beats and the tempo that it would have, or twice as many.
    """
    minutes = samples / (60.0 * _RATE)
    word, _, number = reading.partition(" ")
    if word in ("bars", "beats"):
        count = max(1, round(float(Fraction(number)) * (beats if word == "bars" else 1)))
        return count, count / minutes
    if word in ("half", "double"):
        count, tempo = beats_in(samples, beats, bpm, name)
        return (max(1, count // 2), tempo / 2) if word == "half" else (count * 2, tempo * 2)
    stated = float(Fraction(number)) if word == "bpm" else tempo_in_name(name)
    if stated is not None:
        exact = stated * minutes
        whole = math.floor(exact + 0.02)
        if whole >= 1:
            # Cut to the beat, the file is the tempo; with a tail behind the last beat, the name is.
            return whole, whole / minutes if abs(exact - whole) <= 0.02 else stated
    bars = [beats * 2**k for k in range(11)] + [2**k for k in range(10) if 2**k < beats]
    guesses = [int(n) for n in bars if n == int(n)]
    best = min(guesses, key=lambda n: (abs(math.log2(n / minutes / bpm)), n))
    return best, best / minutes


def sounds(folder: Path, bpm: float, beats: Beats = 4) -> list[tuple[str, str]]:
    """The sound files of a folder, and the bars and tempo that a score at `bpm` takes each for.

    Raises FileError.
    """
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SOUND_ENDINGS)
    except OSError as error:
        raise FileError(f"{folder}: {error.strerror or error}", hint="name a folder") from None
    if not files:
        raise FileError(f"no sound file is in {folder}", hint="WAV, FLAC, OGG, AIFF, MP3")
    rows = []
    for path in files:
        try:
            audio, _ = load_source(path)
        except FileError as error:
            rows.append((path.name, error.message))
            continue
        have, tempo = beats_in(len(audio), beats, bpm, path.name)
        why = "in its name" if tempo_in_name(path.name) else "guessed from its length"
        text = f"{_length(have, beats)} at {tempo:.2f} bpm, {why}"
        rows.append((path.name, f"{len(audio) / _RATE:.2f} s: {text}"))
    return rows


def fit_loop(
    audio: Floats,
    lap_samples: int,
    cycles: int,
    beats: Beats,
    bpm: float | Fraction,
    *,
    name: str = "",
    known: tuple[Beats, float] | None = None,
) -> tuple[Floats, str]:
    """The loop of a stage made of a source: float32 [lap_samples, 2], circular, and what was done.

    audio: float32 [n, 2] at 48 kHz. beats: of a cycle. name: the file's, which may state its tempo.
    known: its beats and tempo; None = those of `beats_in`.
    The text reads like `techno_128.flac: 4 bars at 128 bpm, stretched to 120`.
    """
    bpm, total = float(bpm), cycles * beats
    title = f"{Path(name).name}: " if name else ""
    if len(audio) < lap_samples / total / 4:
        # Too short to be a rhythm of its own; stretching would smear it.
        hit = np.zeros((round(lap_samples / total) + 1 + 2 * SEAM, 2), np.float32)
        hit[SEAM : SEAM + len(audio)] = audio
        text = f"{title}one hit of {len(audio) / _RATE:.2f} s on each beat"
        return _lay(hit, _edges(1, total, lap_samples), lap_samples), text
    have, tempo = known or beats_in(len(audio), beats, bpm, name)
    used: Beats = min(have, total)
    if total % used and used > beats:
        used -= used % beats  # whole bars, or repetitions would leave the metre
    edges = _edges(used, total, lap_samples)
    unit = max(b - a for a, b in pairwise(edges))
    end = min(len(audio), round(used * 60.0 * _RATE / tempo))
    if abs(tempo / bpm - 1.0) > 0.001:
        piece, change = _stretch(closed(audio[:end]), unit), f", stretched to {bpm:g}"
    else:
        piece, change = _around(closed(audio[:end]), SEAM, unit + SEAM), ""
    text = f"{title}{_length(have, beats)} at {round(tempo, 2):g} bpm{change}"
    if used < have:
        text += f", the first {_length(used, beats)}"
    if used < total:
        text += f", {float(total / used):g} times"
    return _lay(piece, edges, lap_samples), text


def _edges(used: Beats, total: Beats, samples: int) -> list[int]:
    """Where the repetitions of `used` beats begin in a loop of `total`, and where the last ends."""
    return [round(k * used * samples / total) for k in range(-(-total // used) + 1)]


def _length(n: Beats, beats: Beats) -> str:
    """`n` beats in words."""
    count, word = (n // beats, "bar") if n % beats == 0 else (n, "beat")
    return f"{float(count):g} {word}{'s' * (count != 1)}"


def closed(audio: Floats) -> Floats:
    """The same sound as a circle: where it would click, its last 10 ms bend to its first sample.

    The beginning, a beat in most cases, stays as it is; sound that closes by itself, entirely so.
    """
    jump = audio[0] - audio[-1]
    own = max(
        float(np.abs(np.diff(part, axis=0)).max(initial=0.0)) for part in (audio[:64], audio[-64:])
    )
    if np.abs(jump).max() <= 4.0 * own:
        return audio
    m = min(SEAM, len(audio))
    up = ((np.arange(m) + 0.5) / m).astype(np.float32)[:, None]
    closed = audio.copy()
    closed[-m:] += up * up * jump
    return closed


def _around(audio: Floats, before: int, after: int) -> Floats:
    """audio[-before : after] of a sound that goes round: float32 [before + after, 2]."""
    return audio[np.arange(-before, after) % len(audio)]


def _stretch(audio: Floats, unit: int) -> Floats:
    """A circular sound as `unit` samples, pitch kept, with SEAM samples before and behind it."""
    from python_stretch import Signalsmith

    factor = len(audio) / unit
    pad = round((SEAM + 2 * 5760) * max(1.0, factor))  # two of the stretcher's windows to settle
    # Its phases are random: with a seed, so that a set renders the same.
    stretcher: Any = Signalsmith.Stretch(1)
    stretcher.preset(2, float(_RATE))
    stretcher.setTimeFactor(factor)
    source = _around(audio, pad, len(audio) + pad)
    out = np.asarray(stretcher.process(np.ascontiguousarray(source.T)), np.float32).T
    start = round(pad / factor) - SEAM
    return np.ascontiguousarray(out[start : start + unit + 2 * SEAM])


def retimed(audio: Floats, samples: int) -> Floats:
    """A loop at another length, pitch kept: float32 [samples, 2], circular."""
    if len(audio) == samples:
        return audio.copy()
    # The stretcher does not come round to where it began: the seam is laid like that of a source.
    return _lay(_stretch(audio, samples), [0, samples], samples)


def _lay(piece: Floats, edges: list[int], samples: int) -> Floats:
    """Lays float32 [SEAM + unit + SEAM, 2] from each edge to the next.

    Before an edge the lap that ends goes over into what precedes the piece's beginning, so that the
    beat on the edge itself is untouched; sound that is the same on both sides passes bit for bit.
    """
    loop = np.zeros((samples, 2), np.float32)
    for a, b in pairwise(edges):
        n = min(b, samples) - a
        part = piece[SEAM : SEAM + n].copy()
        m = min(SEAM, n)
        up = ((np.arange(m) + 0.5) / m).astype(np.float32)[:, None]
        part[n - m :] += up * (piece[SEAM - m : SEAM] - part[n - m :])
        loop[a : a + n] = part
    return loop


# --- out -------------------------------------------------------------------------------------


def write_audio(path: str | Path, audio: Floats) -> None:
    """Writes float32 [n, 2] (or mono, [n]) at 48 kHz to .wav (float) or .flac (24 bit).

    Raises FileError.

    The file appears complete or not at all, and equal samples give equal bytes.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".wav", ".flac"):
        raise FileError(
            f"cannot write {str(path)!r}: the ending says the format",
            hint="end it in .wav or .flac",
        )
    audio = np.ascontiguousarray(audio, "<f4")
    if audio.ndim == 1:
        audio = np.repeat(audio[:, None], 2, axis=1)
    if audio.ndim != 2 or not 1 <= audio.shape[1] <= _CHANNELS:
        turned = audio.ndim == 2 and audio.shape[0] <= _CHANNELS
        raise FileError(
            f"sound is [n, 2], this is {list(audio.shape)}",
            hint="write audio.T" if turned else "48000 rows are a second",
        )
    if kind == ".wav" and audio.nbytes > WAV_LIMIT:
        raise FileError(f"{path} would be over 4 GB, more than a WAV can hold", hint="write .flac")
    part = path.with_name(path.name + ".part")
    try:
        if kind == ".wav":
            _write_wav(part, audio)
        else:
            import soundfile

            soundfile.write(part, audio, _RATE, "PCM_24", format="FLAC")
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        remove_file(part)
        raise FileError(
            f"cannot write {path}: {reason(error, path)}",
            hint="is the folder there, and the disk not full?",
        ) from error


def reason(error: Exception, path: Path) -> str:
    """Why a file could not be written, in the system's words; libsndfile has only its own."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.absolute().parent).free < _FULL:
            return os.strerror(errno.ENOSPC)
    return str(error).strip().rstrip(".")


def _write_wav(path: Path, audio: Floats) -> None:
    """Our own header: libsndfile puts the time of day into float WAVs, and renders would differ."""
    frames, channels = audio.shape
    fmt = struct.pack("<HHIIHHH", 3, channels, _RATE, _RATE * channels * 4, channels * 4, 32, 0)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"fact" + struct.pack("<II", 4, frames)
    head = b"RIFF" + struct.pack("<I", 4 + len(chunks) + 8 + audio.nbytes) + b"WAVE" + chunks
    with path.open("wb") as file:
        file.write(head + b"data" + struct.pack("<I", audio.nbytes))
        file.write(audio.tobytes())
