"""The synthesisers. Each renders a whole batch of notes: parameters [E, 1], time [1, L] in seconds
-> audio [E, L].

No samples, nothing recorded: oscillators (polyBLEP saws, FM, additive), filtered noise, envelopes.
Everything is a function of (seed of the song, number of the note), so a loop sounds the same in
any batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from demon_live.core import RATES

SR = RATES.sample_rate
TAU = 2 * math.pi
WHITE, MID, HIGH, CLAP, LOW, AIR, WIRES, METAL = range(8)
_METAL_HZ = (821.0, 1131.0, 1174.0, 1566.0, 1606.0, 2001.0)


def noise_bank(device: str, seconds: int = 40) -> Tensor:
    """Eight bands of noise, [8, seconds*48000], unit-ish level; the last is the metal of a drum
    machine's cymbals.
    """
    generator = torch.Generator().manual_seed(20)
    n = SR * seconds
    white = torch.randn(n, generator=generator).to(device)
    spectrum = torch.fft.rfft(white)
    f = torch.fft.rfftfreq(n, 1 / SR, device=device).clamp(min=1)

    def highpass(cut: float) -> Tensor:
        return 1 / (1 + (cut / f) ** 4)

    def lowpass(cut: float) -> Tensor:
        return 1 / (1 + (f / cut) ** 4)

    bands = [
        torch.ones_like(f),
        highpass(700) * lowpass(5000),
        highpass(4000) * lowpass(14000),
        highpass(900) * lowpass(2600),
        lowpass(900),
        highpass(8000),
        highpass(1500) * lowpass(9000),
    ]
    t = torch.arange(n, device=device) / SR
    metal = sum(torch.sign(torch.sin(TAU * hz * t)) for hz in _METAL_HZ)
    rows = [torch.fft.irfft(spectrum * band, n) for band in bands]
    rows.append(torch.fft.irfft(torch.fft.rfft(metal) * highpass(6500), n))
    bank = torch.stack(rows)
    return bank / bank.std(dim=1, keepdim=True)


@dataclass
class Notes:
    """A batch of notes of one voice. f Hz, dur s, vel, rate (repitch of drums), beat s, k six
    knobs: each [E, 1].
    """

    f: Tensor
    dur: Tensor
    vel: Tensor
    rate: Tensor
    beat: Tensor
    k: list[Tensor]
    place: Tensor
    """Where in the noise bank each note reads, [E, 1]."""
    bank: Tensor
    length: int

    @property
    def t(self) -> Tensor:
        """[1, L] seconds."""
        return torch.arange(self.length, device=self.f.device)[None] / SR

    @property
    def coarse(self) -> Tensor:
        """[1, L/256] seconds, for filter envelopes."""
        count = max(2, self.length // 256)
        return torch.linspace(0, self.length / SR, count, device=self.f.device)[None]

    def noise(self, band: int, shift: int = 0) -> Tensor:
        """[E, L] of a band of the bank."""
        index = self.place + shift + torch.arange(self.length, device=self.f.device)
        return self.bank[band][index % self.bank.shape[1]]

    def attack(self, seconds: float | Tensor) -> Tensor:
        return (self.t / seconds).clamp(0, 1)

    def release(self, seconds: float | Tensor) -> Tensor:
        return ((self.dur + seconds - self.t) / seconds).clamp(0, 1)


def saw(phase: Tensor, step: Tensor) -> Tensor:
    """Band-limited sawtooth (polyBLEP); phase and step in cycles."""
    p = phase - phase.floor()
    low, high = p / step, (p - 1) / step
    fix = torch.where(p < step, 2 * low - low * low - 1, torch.zeros_like(p))
    fix = torch.where(p > 1 - step, high * high + 2 * high + 1, fix)
    return 2 * p - 1 - fix


def sweep_filter(x: Tensor, cut: Tensor, q: Tensor, poles: int = 2) -> Tensor:
    """Resonant low-pass whose cutoff moves: x [E, L], cut [E, points] Hz, q [E, 1]; overlapping
    512-sample frames.
    """
    e, length = x.shape
    size, hop, fft = 512, 256, 1024
    frames = torch.nn.functional.pad(x, (hop, size)).unfold(-1, size, hop)
    frames = frames * torch.hann_window(size, device=x.device)
    n = frames.shape[1]
    cut = torch.nn.functional.interpolate(cut[:, None], n, mode="linear", align_corners=True)[:, 0]
    r = torch.arange(fft // 2 + 1, device=x.device) * (SR / fft) / cut.clamp(30, 19000)[..., None]
    response = 1 / torch.complex(1 - r * r, r / q[..., None])
    if poles == 4:
        response = response / torch.complex(1 - r * r, r / 0.7)
    y = torch.fft.irfft(torch.fft.rfft(frames, fft) * response, fft).view(e, n, fft // hop, hop)
    out = torch.zeros(e, n + fft // hop - 1, hop, device=x.device)
    for i in range(fft // hop):
        out[:, i : i + n] += y[:, :, i]
    return out.reshape(e, -1)[:, hop : hop + length]


def driven(x: Tensor, amount: float | Tensor) -> Tensor:
    """Soft saturation, unit peak kept."""
    gain = torch.as_tensor(amount, device=x.device)
    return torch.tanh(x * gain) / torch.tanh(gain)


def sine(cycles: Tensor) -> Tensor:
    return torch.sin(TAU * (cycles - cycles.floor()))


# ------------------------------------------------------------------------------------------- drums


def kick(n: Notes) -> Tensor:
    f0, ratio, fall, decay, click, drive = n.k
    t = n.t * n.rate
    phase = f0 * (t + (ratio - 1) * fall * (1 - torch.exp(-t / fall)))
    body = sine(phase) * torch.exp(-((t / decay) ** 1.25)) * n.attack(0.0008)
    tick = (
        n.noise(MID) * torch.exp(-t / 0.0025) * 0.35 + n.noise(HIGH) * torch.exp(-t / 0.006) * 0.12
    )
    return driven(body + click * tick, drive)


def snare(n: Notes) -> Tensor:
    f, ring, decay, bright, balance, _ = n.k
    t = n.t * n.rate
    drop = 0.012 * (1 - torch.exp(-t / 0.012))
    tone = sine(f * (t + drop)) + 0.6 * sine(1.52 * f * (t + drop)) * torch.exp(-t / 0.03)
    hiss = n.noise(MID) * (1 - bright) + n.noise(HIGH) * bright * 0.8
    snap = n.noise(WIRES) * torch.exp(-t / 0.006) * 0.5
    return driven(
        (1 - balance) * tone * torch.exp(-t / ring)
        + balance * 0.6 * hiss * torch.exp(-t / decay)
        + snap * 0.4,
        1.6,
    )


def shell(n: Notes) -> Tensor:
    """Acoustic snare: drum modes, wires, stick."""
    f, ring, decay, bright, balance, _ = n.k
    t = n.t * n.rate
    modes = ((1.0, 1.0, 1.0), (1.59, 0.7, 0.7), (2.14, 0.5, 0.5), (2.65, 0.3, 0.35))
    tone = sum(w * sine(f * m * t) * torch.exp(-t / (ring * d)) for m, w, d in modes) * 0.55
    wires = n.noise(WIRES) * (1 - 0.5 * bright) + n.noise(HIGH) * 0.5 * bright
    wires = wires * (torch.exp(-t / (0.4 * decay)) + 0.35 * torch.exp(-t / (1.6 * decay)))
    stick = n.noise(MID) * torch.exp(-t / 0.002) * 0.4
    return driven((1 - balance) * tone + balance * 0.55 * wires + stick, 1.8)


def clap(n: Notes) -> Tensor:
    decay, bright, gap, *_ = n.k
    t = n.t * n.rate
    envelope = sum(
        torch.exp(-(t - i * gap).clamp(min=0) / 0.007) * (t >= i * gap) * 0.8 for i in range(3)
    )
    envelope = envelope + torch.exp(-(t - 3 * gap).clamp(min=0) / decay) * (t >= 3 * gap)
    return driven(0.45 * (n.noise(CLAP) + bright * n.noise(HIGH) * 0.7) * envelope, 1.5)


def hat(n: Notes) -> Tensor:
    decay, metal, bright, *_ = n.k
    t = n.t * n.rate
    hiss = n.noise(HIGH) * (1 - bright) + n.noise(AIR) * bright
    sound = hiss * (1 - 0.7 * metal) + n.noise(METAL) * metal
    return 0.35 * sound * torch.exp(-t / decay) * n.attack(0.0006)


def shaker(n: Notes) -> Tensor:
    rise, decay, bright, *_ = n.k
    t = n.t * n.rate
    return (
        0.3
        * (n.noise(HIGH) * (1 - bright) + n.noise(AIR) * bright)
        * (t / rise).clamp(0, 1) ** 2
        * torch.exp(-(t - rise).clamp(min=0) / decay)
    )


def tom(n: Notes) -> Tensor:
    f, decay, bend, skin, *_ = n.k
    t = n.t
    phase = f * n.rate * (t + bend * 0.03 * (1 - torch.exp(-t / 0.03)))
    return driven(
        sine(phase) * torch.exp(-t / decay) + skin * n.noise(MID) * torch.exp(-t / 0.012) * 0.6, 1.3
    )


def rim(n: Notes) -> Tensor:
    low, high, decay, *_ = n.k
    t = n.t * n.rate
    return (
        driven(
            0.7 * (sine(low * t) + sine(high * t)) * torch.exp(-t / decay)
            + 0.3 * n.noise(MID) * torch.exp(-t / 0.003),
            1.5,
        )
        * 0.8
    )


def cowbell(n: Notes) -> Tensor:
    f, decay, *_ = n.k
    t = n.t * n.rate
    tone = torch.tanh(4 * sine(f * t)) + torch.tanh(4 * sine(1.48 * f * t))
    return 0.4 * tone * (0.5 * torch.exp(-t / decay) + 0.5 * torch.exp(-t / 0.015))


# -------------------------------------------------------------------------------------------- bass


def sub(n: Notes) -> Tensor:
    drive, second, rise, *_ = n.k
    x = sine(n.f * n.t) + second * sine(2 * n.f * n.t)
    return driven(x, drive) * n.attack(rise) * n.release(0.03)


def acid(n: Notes) -> Tensor:
    cut, octaves, fall, q, square, drive = n.k
    step = n.f / SR
    x = saw(n.f * n.t, step)
    x = torch.where(square > 0.5, 0.8 * (x - saw(n.f * n.t + 0.5, step)), x)
    envelope = torch.exp(-n.coarse / fall)
    y = sweep_filter(x, cut * 2 ** (octaves * envelope), q, 4) * n.attack(0.003) * n.release(0.02)
    return driven(y * 0.5, drive)


def saw_bass(n: Notes) -> Tensor:
    cut, octaves, fall, q, square, drive = n.k
    step = n.f / SR
    x = saw(n.f * n.t, step) + 0.5 * saw(n.f * 1.004 * n.t + 0.3, step)
    x = torch.where(square > 0.5, saw(n.f * n.t, step) - saw(n.f * n.t + 0.5, step), x)
    y = sweep_filter(x, cut * 2 ** (octaves * torch.exp(-n.coarse / fall) * 0.6), q)
    return driven(y * 0.6 * n.attack(0.003) * n.release(0.02), drive)


def reese(n: Notes) -> Tensor:
    cut, detune, rate, drive, *_ = n.k
    step = n.f / SR
    x = sum(
        saw(n.f * (1 + d * detune) * n.t + p, step)
        for d, p in ((0.0, 0.0), (1.0, 0.3), (-1.0, 0.7))
    )
    moving = cut * (1 + 0.5 * torch.sin(TAU * rate * n.coarse + n.f))
    y = sweep_filter(x * 0.5, moving, torch.ones_like(n.f))  # type: ignore[arg-type]
    return driven(
        y * n.attack(0.006) * n.release(0.03) + 0.3 * sine(0.5 * n.f * n.t * 2) * n.release(0.03),
        drive,
    )


def wobble(n: Notes) -> Tensor:
    low, span, rate, q, drive, _ = n.k
    step = n.f / SR
    x = saw(n.f * n.t, step) - 0.8 * saw(n.f * 1.003 * n.t + 0.5, step)
    lfo = 0.5 - 0.5 * torch.cos(TAU * rate * n.coarse / n.beat)
    y = sweep_filter(x * 0.7, low + span * lfo, q)
    return driven(
        y * n.attack(0.005) * n.release(0.03) + 0.35 * sine(n.f * n.t) * n.release(0.03), drive
    )


def fm_bass(n: Notes) -> Tensor:
    index, ratio, fall, hold, *_ = n.k
    mod = index * (hold * 0.4 + torch.exp(-n.t / fall)) * sine(n.f * ratio * n.t)
    return driven(torch.sin(TAU * n.f * n.t + mod), 1.3) * n.attack(0.002) * n.release(0.03)


def donk(n: Notes) -> Tensor:
    index, fall, decay, ratio, *_ = n.k
    bend = n.f * (n.t + 0.6 * 0.02 * (1 - torch.exp(-n.t / 0.02)))
    mod = index * torch.exp(-n.t / fall) * sine(ratio * n.f * n.t)
    return (
        driven(torch.sin(TAU * bend + mod) * torch.exp(-n.t / decay), 1.8)
        * n.attack(0.001)
        * n.release(0.03)
    )


def string(n: Notes) -> Tensor:
    """Plucked string, additive."""
    decay, bright, *_ = n.k
    tones = (
        sine(h * n.f * n.t)
        * torch.exp(-n.t * (1 + 0.35 * h) / decay)
        * bright ** (0.35 * (h - 1))
        / h**0.7
        for h in range(1, 11)
    )
    return 0.5 * sum(tones, torch.zeros(1, device=n.f.device)) * n.attack(0.002) * n.release(0.04)


# ------------------------------------------------------------------------------------------- music


def saws(n: Notes) -> Tensor:
    """Pads, strings, stabs, dub chords, drones: three saws through a moving filter."""
    cut, octaves, fall, detune, rise, tail = n.k
    step = n.f / SR
    x = (
        sum(
            saw(n.f * (1 + d * detune) * n.t + p, step)
            for d, p in ((0.0, 0.13), (1.0, 0.47), (-1.0, 0.81))
        )
        * 0.4
    )
    drift = 1 + 0.15 * torch.sin(TAU * 0.17 * n.coarse + 0.01 * n.f)
    y = sweep_filter(
        x,  # type: ignore[arg-type]
        cut * drift * 2 ** (octaves * torch.exp(-n.coarse / fall)),
        torch.full_like(n.f, 1.1),
    )
    return y * n.attack(rise) * n.release(tail)


def super_saw(n: Notes) -> Tensor:
    cut, octaves, fall, spread, rise, tail = n.k
    step = n.f / SR
    offsets = (-0.011, -0.007, -0.003, 0.0, 0.004, 0.008, 0.012)
    x = (
        sum(saw(n.f * (1 + d * spread) * n.t + (i * 0.37) % 1, step) for i, d in enumerate(offsets))
        * 0.25
    )
    y = sweep_filter(
        x,  # type: ignore[arg-type]
        cut * 2 ** (octaves * torch.exp(-n.coarse / fall)),
        torch.full_like(n.f, 0.9),
    )
    return y * n.attack(rise) * n.release(tail)


def organ(n: Notes) -> Tensor:
    bars = (
        (1, 1.0),
        (2, n.k[0]),
        (3, n.k[1] * 0.7),
        (4, n.k[2] * 0.5),
        (6, n.k[3] * 0.35),
        (0.5, 0.3),
    )
    x = sum(w * sine(n.f * h * n.t) for h, w in bars) * 0.3
    return x * n.attack(0.004) * n.release(0.05) + n.k[4] * 0.3 * sine(4 * n.f * n.t) * torch.exp(
        -n.t / 0.03
    )


def keys(n: Notes) -> Tensor:
    """Electric piano: FM body, tine, tremolo."""
    index, decay, tine, *_ = n.k
    body = torch.sin(TAU * n.f * n.t + index * torch.exp(-n.t / 0.4) * sine(n.f * n.t))
    bell = tine * torch.sin(TAU * n.f * n.t + 0.6 * sine(14 * n.f * n.t)) * torch.exp(-n.t / 0.12)
    tremolo = 1 + 0.12 * torch.sin(TAU * 5.0 * n.t)
    return (
        0.5 * (body + bell) * tremolo * torch.exp(-n.t / decay) * n.attack(0.002) * n.release(0.15)
    )


def fm_pluck(n: Notes) -> Tensor:
    ratio, index, decay, *_ = n.k
    mod = index * torch.exp(-n.t / (0.5 * decay)) * sine(ratio * n.f * n.t)
    return (
        0.6
        * torch.sin(TAU * (n.f * n.t - (n.f * n.t).floor()) + mod)
        * torch.exp(-n.t / decay)
        * n.attack(0.002)
    )


# ----------------------------------------------------------------------------------------- effects


def riser(n: Notes) -> Tensor:
    x = sweep_filter(
        n.noise(WHITE),
        250 * 40 ** (n.coarse / n.dur).clamp(0, 1).expand(n.f.shape[0], -1),
        torch.full_like(n.f, 2.5),
    )
    return 0.2 * x * (n.t / n.dur).clamp(0, 1) ** 2 * n.release(0.02)


def vinyl(n: Notes) -> Tensor:
    pops = torch.relu(n.noise(MID, 991).abs() - 3.1)
    return 0.08 * n.noise(LOW) + 2.0 * pops * n.noise(WIRES, 77)


def hiss(n: Notes) -> Tensor:
    return 0.1 * n.noise(HIGH) + 0.05 * n.noise(MID)


VOICES: dict[str, tuple[Callable[[Notes], Tensor], float]] = {
    "kick": (kick, 0.85),
    "snare": (snare, 0.62),
    "shell": (shell, 0.62),
    "clap": (clap, 0.55),
    "hat": (hat, 0.5),
    "shaker": (shaker, 0.42),
    "tom": (tom, 0.5),
    "rim": (rim, 0.4),
    "cowbell": (cowbell, 0.3),
    "sub": (sub, 0.5),
    "acid": (acid, 0.5),
    "saw": (saw_bass, 0.5),
    "reese": (reese, 0.5),
    "wobble": (wobble, 0.5),
    "fm": (fm_bass, 0.5),
    "donk": (donk, 0.5),
    "string": (string, 0.5),
    "saws": (saws, 0.4),
    "super": (super_saw, 0.5),
    "organ": (organ, 0.4),
    "keys": (keys, 0.4),
    "fmp": (fm_pluck, 0.5),
    "riser": (riser, 1.0),
    "vinyl": (vinyl, 1.0),
    "hiss": (hiss, 1.0),
}
"""Voice -> (function, level)."""


def tail_seconds(voice: str, k: tuple[float, ...], dur: float) -> float:
    """How long a note of `dur` seconds sounds."""
    match voice:
        case "kick":
            return min(1.4, 3.5 * k[3] + 0.03)
        case "snare":
            return min(0.9, 5 * max(k[1], k[2]))
        case "shell":
            return min(1.0, 8 * k[2])
        case "clap":
            return min(0.9, 0.05 + 5 * k[0])
        case "hat":
            return min(1.6, 5.5 * k[0] + 0.02)
        case "shaker":
            return k[0] + 5 * k[1]
        case "tom":
            return min(1.0, 5 * k[1])
        case "rim" | "cowbell":
            return 0.35
        case "saws" | "super":
            return dur + k[5]
        case "keys":
            return dur + 0.16
        case "fmp":
            return min(4.0, 5 * k[2])
        case "riser" | "vinyl" | "hiss":
            return dur
        case _:
            return dur + 0.06
