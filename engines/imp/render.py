"""Render loops: `python -m engines.imp.render --out DIR [--count N] [--genre G] [--bpm B] [--bars
N] [--seed S]`.

compose -> voices (batched) -> buses -> balance, ducking, echo, room, master -> loops [2, samples].
Loops are circular: tails, echoes, rooms and filters wrap, so any rotation of a loop is as good a
loop. CPU or CUDA; deterministic by seed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from demon_live.notes.voices import SR, VOICES, Notes, noise_bank, tail_seconds
from engines.imp.partials import PARTIALS, ring
from engines.imp.score import Song, compose, hertz

BUSES = ("kick", "break", "drums", "bass", "music", "fx")
KICK, BREAK, DRUMS, BASS, MUSIC, FX = range(6)
ROOM = 2 * SR
"""Longest echo tail that the room rings for, samples."""
_PITCHED = frozenset(
    (
        "sub",
        "acid",
        "saw",
        "reese",
        "wobble",
        "fm",
        "donk",
        "string",
        "saws",
        "super",
        "organ",
        "keys",
        "fmp",
        *PARTIALS,
    )
)
PLAYED = VOICES | PARTIALS
Row = tuple[float, ...]


class Renderer:
    """Holds the noise bank of a device."""

    def __init__(self, device: str = "cpu", chunk: int = 4_000_000) -> None:
        self.device, self.chunk = device, chunk if device == "cpu" else 5 * chunk
        self.bank = noise_bank(device)

    @torch.no_grad()
    def __call__(self, songs: Sequence[Song]) -> list[Tensor]:
        """Songs -> loops, each float32 [2, song.samples], peak below 1."""
        lengths = torch.tensor([s.samples for s in songs], device=self.device)
        buses, duck = self.play(songs, lengths)
        mixed = Mixer(songs, lengths, self.bank).mix(buses, duck)
        return [mixed[i, :, : s.samples] for i, s in enumerate(songs)]

    def play(self, songs: Sequence[Song], lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Every note on its bus: [6, B, 2, M] and the ducking envelope [B, 1, M]."""
        b, m = len(songs), int(lengths.max())
        buses = torch.zeros(len(BUSES) * b * 2 * m, device=self.device)
        duck = torch.zeros(b * m, device=self.device)
        for (voice, length), rows in sorted(self.group(songs).items()):
            table = torch.tensor(rows, dtype=torch.float64).to(self.device)
            step = max(1, self.chunk // length)
            for part in table.split(step):
                self.add(voice, length, part, buses, lengths, b, m)
        for i, song in enumerate(songs):
            self.duck(song, duck[i * m : i * m + song.samples])
        return buses.view(len(BUSES), b, 2, m), duck.view(b, 1, m)

    def group(self, songs: Sequence[Song]) -> dict[tuple[str, int], list[Row]]:
        """Notes by voice and length (rounded up to a quarter octave), as rows of numbers."""
        groups: dict[tuple[str, int], list[Row]] = {}
        for i, song in enumerate(songs):
            beat = 60 / song.bpm
            for number, e in enumerate(song.events):
                pitched = e.voice in _PITCHED
                dur = e.length * beat
                more = e.voice in PARTIALS
                tail = dur + ring(e.voice) if more else tail_seconds(e.voice, e.knobs, dur)
                seconds = max(0.03, tail)
                if not pitched:
                    seconds = min(seconds, dur + 0.005)
                length = round(SR * 1.19 ** math.ceil(math.log(seconds) / math.log(1.19)))
                f, rate = (hertz(e.pitch), 1.0) if pitched else (100.0, 2 ** (e.pitch / 12))
                place = (song.seed * 7919 + number * 104_729) % (30 * SR)
                row = (
                    i,
                    e.beat * beat * SR,
                    f,
                    dur,
                    e.velocity * PLAYED[e.voice][1],
                    rate,
                    beat,
                    e.pan,
                    BUSES.index(e.bus),
                    place,
                    *e.knobs,
                )
                groups.setdefault((e.voice, length), []).append(row)
        return groups

    def add(
        self, voice: str, length: int, rows: Tensor, buses: Tensor, lengths: Tensor, b: int, m: int
    ) -> None:
        """Render rows of one voice and add them to their buses, wrapped round the loop."""
        column = [c[:, None].float() for c in rows.unbind(1)]
        song, place = rows[:, 0].long(), rows[:, 9].long()[:, None]
        notes = Notes(
            column[2],
            column[3],
            column[4],
            column[5],
            column[6],
            column[10:16],
            place,
            self.bank,
            length,
        )
        y = PLAYED[voice][0](notes) * column[4]
        edge = torch.arange(length, 0, -1, device=y.device)[None] / 96
        y = y * edge.clamp(max=1)
        if voice not in _PITCHED:
            y = y * ((column[3] * SR - torch.arange(length, device=y.device)) / 150).clamp(0, 1)
        start = rows[:, 1].round().long()[:, None]
        at = (start + torch.arange(length, device=y.device)) % lengths[song][:, None]
        bus = rows[:, 8].long()
        for channel in (0, 1):
            angle = (1 + column[7] * (1 if channel else -1)) * (math.pi / 4)
            row = ((bus * b + song) * 2 + channel) * m
            buses.index_add_(
                0, (row[:, None] + at).flatten(), (y * torch.sin(angle) * 1.414).flatten()
            )

    def duck(self, song: Song, envelope: Tensor) -> None:
        """Fill [samples] with 1 at each kick, falling over the release time."""
        samples = envelope.shape[0]
        kicks = sorted(
            {round(e.beat * 60 / song.bpm * SR) % samples for e in song.events if e.bus == "kick"}
        )
        if not kicks:
            return
        starts = torch.tensor(kicks, device=envelope.device)
        n = torch.arange(samples, device=envelope.device)
        since = (n - starts[torch.searchsorted(starts, n, right=True) - 1]) % samples
        rise = (since / (0.004 * SR)).clamp(max=1)
        envelope.copy_(rise * torch.exp(-since / (song.mix["release"] * SR)))


class Mixer:
    """Buses -> master. All filters act on the circular loop."""

    def __init__(self, songs: Sequence[Song], lengths: Tensor, bank: Tensor) -> None:
        self.songs, self.lengths, self.bank = songs, lengths, bank
        self.device = lengths.device
        self.period = lengths[:, None, None]
        self.n = torch.arange(int(lengths.max()), device=self.device)[None, None]
        self.inside = self.n < self.period

    def knob(self, name: str) -> Tensor:
        """A mix setting of every song, [B, 1, 1]."""
        return torch.tensor([s.mix[name] for s in self.songs], device=self.device)[:, None, None]

    def turned(self, x: Tensor, by: Tensor) -> Tensor:
        """x delayed by whole samples [B, 1, 1], round the loop."""
        return torch.gather(x, 2, ((self.n - by) % self.period).expand_as(x))

    def filtered(
        self, x: Tensor, response: Tensor | None = None, impulse: Tensor | None = None
    ) -> Tensor:
        """Circular filter by a zero-phase response (a function of `self.frequencies`) or an
        impulse response [B, 2, K].
        """
        k = ROOM if impulse is not None else SR // 4
        m = x.shape[-1]
        size = self.fft_size(m, k)
        index = (torch.arange(size, device=self.device)[None, None] - k) % self.period
        spectrum = torch.fft.rfft(torch.gather(x, 2, index.expand(x.shape[0], x.shape[1], size)))
        if impulse is not None:
            spectrum = spectrum * torch.fft.rfft(impulse, size)
        if response is not None:
            spectrum = spectrum * response
        return torch.fft.irfft(spectrum, size)[..., k : k + m] * self.inside

    @staticmethod
    def fft_size(m: int, k: int) -> int:
        """A size that FFTs like and that holds the loop and its context on both sides."""
        return nice_size(m + 2 * k)

    def frequencies(self, impulse: bool = False) -> Tensor:
        """Hz of the bins that `filtered` works on."""
        size = self.fft_size(self.n.shape[-1], ROOM if impulse else SR // 4)
        return torch.fft.rfftfreq(size, 1 / SR, device=self.device).clamp(min=10)

    def mix(self, buses: Tensor, duck: Tensor) -> Tensor:
        """[6, B, 2, M] -> [B, 2, M]."""
        kick, broken, drums, bass, music, fx = buses
        beat = torch.tanh(broken * 1.6) * 0.85
        drum_sum = kick + beat + drums
        gains = self.balance(drum_sum, bass, music, fx)
        hold = 1 - self.knob("pump") * duck
        bass, music, fx = (
            bass * gains[0] * hold,
            music * gains[1] * hold,
            fx * gains[2] * (1 - 0.5 * self.knob("pump") * duck),
        )
        music = self.widened(music)
        send = music + 0.1 * fx + 0.12 * self.knob("room") * drums
        echo = self.echo(send)
        room = self.room(send + 0.7 * echo + self.knob("drum_room") * (drums + beat))
        total = drum_sum + bass + music + fx + echo + room * (1 - 0.5 * self.knob("pump") * duck)
        return self.master(total)

    def loudness(self, x: Tensor) -> Tensor:
        """Root mean square above the lowest octaves, [B, 1, 1]: what the ear balances by."""
        size = nice_size(x.shape[-1])
        spectrum = torch.fft.rfft(x, size)
        f = torch.fft.rfftfreq(size, 1 / SR, device=self.device)
        weight = (f / (f + 70)) ** 1.5 * (1 + 0.6 * (f > 1500))
        power = (spectrum.abs() * weight).square().sum((1, 2), keepdim=True) * 2 / size
        return (power / (2 * self.period)).sqrt()

    def balance(self, drums: Tensor, *others: Tensor) -> list[Tensor]:
        """Gains that bring bass, music and effects to their levels against the drums."""
        reference = self.loudness(drums)
        reference = torch.where(reference > 0.004, reference, torch.full_like(reference, 0.05))
        gains = []
        for name, bus in zip(("bass", "music", "fx"), others, strict=True):
            wanted = reference * 10 ** (self.knob(name) / 20)
            gains.append((wanted / self.loudness(bus).clamp(min=1e-4)).clamp(max=6))
        return gains

    def widened(self, x: Tensor) -> Tensor:
        """A second, slightly late voice in the sides; `width` 0 is mono."""
        mid = x.mean(1, keepdim=True)
        late = self.turned(mid, torch.full_like(self.period, 617)) - self.turned(
            mid, torch.full_like(self.period, 1031)
        )
        side = (x[:, :1] - x[:, 1:]) / 2 + 0.16 * late
        side = side * self.knob("width")
        return torch.cat([mid + side, mid - side], dim=1)

    def echo(self, x: Tensor) -> Tensor:
        """Dotted, dark, ping-pong."""
        beat = torch.tensor([60 / s.bpm for s in self.songs], device=self.device)[:, None, None]
        delay = (self.knob("echo_beats") * beat * SR).long()
        gain = self.knob("echo")
        wet = sum(gain**k * self.turned(x if k % 2 else x.flip(1), k * delay) for k in range(1, 6))
        f = self.frequencies()
        dark = 1 / (1 + (f / self.knob("echo_dark")) ** 2) / (1 + (180 / f) ** 2)
        return self.filtered(wet, response=dark)  # type: ignore[arg-type]

    def room(self, x: Tensor) -> Tensor:
        """Exponential noise in two bands, the high one dying sooner; level by `room`."""
        t = torch.arange(ROOM, device=self.device)[None, None] / SR
        decay = self.knob("decay")
        places = [int(s.mix["room_seed"] * 30 * SR) for s in self.songs]
        grain = torch.stack(
            [
                torch.stack([self.bank[:2, p + c * SR : p + c * SR + ROOM] for c in (0, 1)])
                for p in places
            ]
        )
        impulse = grain[:, :, 1] * torch.exp(-6.9 * t / decay) + 0.6 * grain[:, :, 0] * torch.exp(
            -6.9 * t / (0.3 * decay)
        )
        late = ((t - 0.008) / 0.006).clamp(0, 1)
        impulse = impulse * late / (0.25 * SR * decay.clamp(min=0.2)).sqrt()
        f = self.frequencies(impulse=True)
        level = 0.05 + 0.5 * self.knob("room") ** 1.5
        return level * self.filtered(x, response=1 / (1 + (220 / f) ** 4), impulse=impulse)

    def master(self, x: Tensor) -> Tensor:
        """Balance of bands, glue, saturation, band limits; to a common loudness, peak below 1."""
        x = self.filtered(x, response=self.equaliser(x))
        x = x / self.level(x) * self.glue(x / self.level(x))
        drive = 0.1 + 0.14 * self.knob("drive").clamp(0, 1.4)
        x = torch.tanh(x * drive * 1.4)
        steps = 2 ** (10 - 4 * self.knob("crush"))
        x = torch.where(self.knob("crush") > 0, torch.round(x * steps) / steps, x)
        f = self.frequencies()
        x = self.filtered(
            x, response=1 / (1 + (f / self.knob("lowpass")) ** 8) / (1 + (24 / f) ** 6)
        )
        x = x * 0.13 / self.level(x)
        return torch.where(
            x.abs() < 0.6, x, x.sign() * (0.6 + 0.38 * torch.tanh((x.abs() - 0.6) / 0.38))
        )

    def equaliser(self, x: Tensor) -> Tensor:
        """Shelves that keep the shares of lows and highs within what a finished mix has, then the
        tilt.
        """
        size = nice_size(x.shape[-1])
        power = torch.fft.rfft(x, size).abs().square().sum(1, keepdim=True)
        hz = torch.fft.rfftfreq(size, 1 / SR, device=self.device)
        low, high = (
            power[..., hz < 130].sum(2, keepdim=True),
            power[..., hz > 4000].sum(2, keepdim=True),
        )
        middle = power.sum(2, keepdim=True) - low - high + 1e-9
        tilt = self.knob("tilt")
        low_gain = (1.1 * 2 ** (-0.4 * tilt) * middle / low.clamp(min=1e-9)).clamp(0.08, 1.0).sqrt()
        high_gain = (
            (0.035 * 2 ** (0.8 * tilt) * middle / high.clamp(min=1e-9)).clamp(0.5, 6.0).sqrt()
        )
        f = self.frequencies()
        bass, air = 1 / (1 + (f / 130) ** 4), 1 / (1 + (4000 / f) ** 4)
        shelves = low_gain * bass + high_gain * air + (1 - bass) * (1 - air)
        return (
            shelves * 10 ** (tilt * torch.log2(f.clamp(max=16000) / 700) / 60) / (1 + (28 / f) ** 6)
        )

    def glue(self, x: Tensor) -> Tensor:
        """Gain of a slow compressor: the mean power of 60 ms, to the power -.15; circular."""
        hop = 480
        frames = x.square().mean(1, keepdim=True)
        power = torch.nn.functional.avg_pool1d(
            frames, hop, hop, ceil_mode=True, count_include_pad=False
        )
        power = torch.nn.functional.avg_pool1d(
            torch.cat([power[..., -3:], power, power[..., :3]], 2), 7, 1
        )
        gain = (power + 0.3).clamp(max=30) ** -0.15
        return torch.nn.functional.interpolate(gain, size=x.shape[-1], mode="linear")

    def level(self, x: Tensor) -> Tensor:
        """Between plain and ear-weighted root mean square, [B, 1, 1]."""
        plain = (x.square().sum((1, 2), keepdim=True) / (2 * self.period)).sqrt()
        return (plain * self.loudness(x) * 1.6).sqrt().clamp(min=1e-5)


def nice_size(n: int) -> int:
    """The smallest 2^a * 3^b * 5^c (even) that is at least n."""
    best = 1 << (n - 1).bit_length()
    for fives in range(5):
        for threes in range(5):
            odd = 5**fives * 3**threes
            size = odd << max(1, (-(-n // odd) - 1).bit_length())
            if n <= size < best:
                best = size
    return best


def render(songs: Sequence[Song], device: str = "cpu") -> list[Tensor]:
    """Songs -> loops [2, samples]; one call for a few songs (a `Renderer` keeps its noise for
    many).
    """
    return Renderer(device)(songs)


def main() -> None:
    """Write loops as 16-bit FLAC."""
    import soundfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--genre")
    parser.add_argument("--bpm", type=int)
    parser.add_argument("--bars", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    renderer = Renderer(options.device)
    for seed in range(options.seed, options.seed + options.count):
        song = compose(seed, options.genre, bars=options.bars, bpm=options.bpm)
        (loop,) = renderer([song])
        path = options.out / f"{song.genre}_{song.bpm}_{seed}.flac"
        soundfile.write(path, loop.T.cpu().numpy(), SR, subtype="PCM_16")
        sys.stdout.write(f"{path} {song.bars} bars, {', '.join(song.tags)}\n")


if __name__ == "__main__":
    main()
