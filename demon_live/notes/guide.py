"""The guide: the notes of a lap as PCM, which a model is shown as the source of its generations.

Each note is a short piece of sound that depends on its instrument, pitch and length alone; pieces
are kept, so that a bar which comes again costs no more than adding them up. A lap is circular: what
rings past its end rings at its beginning. Kicks duck the other buses a little, as in a finished
mix. Equal notes give equal bits.

Threads: any, one at a time (a lock).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from demon_live.core import RATES, Beats, Floats, Phrase
from demon_live.notes.kits import Instrument, NoteKit
from demon_live.notes.voices import VOICES, Notes, noise_bank, tail_seconds

_RATE = RATES.sample_rate
#: Mean level of a note of a pitched voice while it lasts; gains of the drums.
_LEVELS = {"bass": 0.09, "chord": 0.045, "lead": 0.05}
_KICK, _DRUMS = 0.36, 0.6
#: A kick takes so much of what is pitched, and it comes back in this time (seconds).
_PUMP, _RELEASE = 0.4, 0.12
#: Gain in front of the soft clip, and the level behind it that finished mixes have.
_DRIVE, _OUT = 1.4, 0.55
#: Bytes of pieces that are kept.
_KEPT = 64 << 20

_lock = threading.Lock()
_pieces: OrderedDict[tuple[object, ...], Floats] = OrderedDict()


@lru_cache(maxsize=1)
def _bank() -> Tensor:
    return noise_bank("cpu", 4)


def _hertz(pitch: float) -> float:
    return 440.0 * math.pow(2.0, (pitch - 69.0) / 12.0)


@torch.no_grad()
def _played(instrument: Instrument, pitch: float, seconds: float, beat: float) -> Floats:
    """One note at full velocity, float32 [n]."""
    voice, knobs = instrument
    sound, level = VOICES[voice]
    k = (*knobs, *([0.0] * (6 - len(knobs))))
    length = round(max(0.03, tail_seconds(voice, k, seconds)) * _RATE)

    def cell(x: float) -> Tensor:
        return torch.full((1, 1), x)

    place = torch.full((1, 1), 7919 * sorted(VOICES).index(voice))
    notes = Notes(
        cell(_hertz(pitch) if pitch else 100.0),
        cell(seconds),
        cell(1.0),
        cell(1.0),
        cell(beat),
        [cell(x) for x in k],
        place,
        _bank(),
        length,
    )
    wave = sound(notes)[0].numpy() * level
    fade = np.minimum(np.arange(length, 0, -1, dtype=np.float32) / 96, 1)
    return np.asarray(wave * fade, np.float32)


def _piece(voice: str, instrument: Instrument, pitch: float, seconds: float, beat: float) -> Floats:
    """A note at the level of its voice, kept."""
    drum = voice not in _LEVELS
    key = (instrument, pitch) if drum else (voice, instrument, pitch, round(seconds * _RATE), beat)
    found = _pieces.get(key)
    if found is not None:
        _pieces.move_to_end(key)
        return found
    # A drum rings as long as it rings, however long its step is.
    wave = _played(instrument, pitch, 1.0 if drum else seconds, beat)
    gain = _KICK if voice == "kick" else _DRUMS
    if not drum:
        sounding = wave[: max(1, round(seconds * _RATE))]
        gain = _LEVELS[voice] / max(1e-4, float(np.sqrt(np.mean(sounding**2))))
    wave = wave * np.float32(gain)
    _pieces[key] = wave
    while sum(piece.nbytes for piece in _pieces.values()) > _KEPT:
        _pieces.popitem(last=False)
    return wave


def _add(bus: Floats, wave: Floats, at: int) -> None:
    """Add a piece to a circular bus."""
    while len(wave):
        part = wave[: len(bus) - at]
        bus[at : at + len(part)] += part
        wave, at = wave[len(part) :], 0


def _held(kicks: list[int], samples: int) -> Floats:
    """The gain of what is pitched, under the kicks, float32 [samples]."""
    if not kicks:
        return np.ones(samples, np.float32)
    starts = np.array(sorted(kicks))
    n = np.arange(samples)
    since = (n - starts[np.searchsorted(starts, n, side="right") - 1]) % samples / _RATE
    fall = np.minimum(since / 0.004, 1) * np.exp(-since / _RELEASE)
    return np.asarray(1 - _PUMP * fall, np.float32)


def guide(phrase: Phrase, cycles: int, samples: int, beats: Beats, kit: NoteKit) -> Floats:
    """The notes of a lap of `cycles` cycles as PCM, float32 [samples, 2]."""
    with _lock:
        return _guide(phrase, cycles, samples, beats, kit)


def _guide(phrase: Phrase, cycles: int, samples: int, beats: Beats, kit: NoteKit) -> Floats:
    drums = np.zeros((2, samples), np.float32)
    pitched = np.zeros((2, samples), np.float32)
    cycle = samples / cycles / _RATE
    kicks = []
    for note in phrase.notes:
        at = round(note.begin * samples / cycles) % samples
        wave = _piece(
            note.voice,
            kit.instrument(note.voice),
            note.pitch,
            note.length * cycle,
            cycle / beats,
        )
        wave = wave * np.float32(note.velocity)
        # Notes of a chord lie beside each other, all else in the middle.
        pan = 0.4 * ((note.pitch * 7 % 12) / 6 - 1) if note.voice == "chord" else 0.0
        bus = pitched if note.voice in _LEVELS else drums
        for channel, side in enumerate((1 - pan, 1 + pan)):
            _add(bus[channel], wave * np.float32(side), at)
        if note.voice == "kick":
            kicks.append(at)
    total = drums + pitched * _held(kicks, samples)
    return np.ascontiguousarray(np.tanh(total * np.float32(_DRIVE)).T * np.float32(_OUT))
