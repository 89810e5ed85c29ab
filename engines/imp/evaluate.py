"""Measure imp: `python -m engines.imp.evaluate [--per-genre 3] [--recordings DIR] [--json FILE]`.

codec     held-out renders and recordings it never saw: SI-SDR, log-mel error by band
samples   eight steps, no guidance, from the labels of held-out renders: onsets on the grid, genre,
          key and tags as the
          probe hears them, Frechet distance in the probe's embedding. Ceiling: a second set of
          renders. Floor: noise.
control   distance to the source against denoise; cover: onsets kept and genre changed; bright
          against dark
All on the CPU; seeds from 2_000_000 on, which no training saw.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from demon_live.models import imp
from demon_live.models.imp_labels import condition, load_vocabulary, loop_frames, loop_phase
from engines.imp import recordings as foreign
from engines.imp.bank import label
from engines.imp.export import open_session
from engines.imp.genres import GENRES
from engines.imp.measure import averaged, compare, log_mel
from engines.imp.probe import KEYS, TAGS, Probe
from engines.imp.render import Renderer
from engines.imp.score import Song, compose
from engines.imp.training import say

HERE = Path(__file__).parent
FIRST = 2_000_000
Floats = npt.NDArray[np.float32]
Row = dict[str, float]


class Imp:
    """The whole model, as the instrument runs it."""

    def __init__(self) -> None:
        self.flow = open_session(HERE / "flow.onnx")
        self.encoder, self.decoder = imp.load_codec(HERE / "codec.safetensors")
        self.vocabulary = load_vocabulary(HERE / "tags.toml")
        from safetensors.torch import load_file

        self.probe = Probe()
        self.probe.load_state_dict(
            {k: v.float() for k, v in load_file(HERE / "probe.safetensors").items()}
        )
        self.probe.eval()

    def sample(
        self,
        cond: Floats,
        bars: float,
        bpm: float,
        seed: int,
        *,
        source: Floats | None = None,
        denoise: float = 1.0,
        hint: Floats | None = None,
        strength: float = 0.5,
        steps: int = 8,
    ) -> Floats:
        """Latent [T, 64] of one request: Euler, shift 3, no guidance."""
        frames = loop_frames(bars, bpm)
        phase = loop_phase(bars, bpm, frames)[None]
        x = (
            np.random.RandomState(seed)
            .standard_normal((1, frames, imp.CHANNELS))
            .astype(np.float32)
        )
        times = [denoise * (1 - k / steps) for k in range(steps + 1)]
        times = [3 * t / (1 + 2 * t) for t in times]
        if source is not None:
            x = np.float32(times[0]) * x + np.float32(1 - times[0]) * source[None]
        context = np.zeros((1, frames, imp.CHANNELS + 1), np.float32)
        if hint is not None:
            context[0, :, :-1], context[0, :, -1] = hint, strength
        for now, then in itertools.pairwise(times):
            inputs = {
                "x": x,
                "t": np.array([now], np.float32),
                "hint": context,
                "phase": phase,
                "cond": cond[None],
            }
            x = x + np.float32(then - now) * self.flow.run(None, inputs)[0]
        return np.asarray(x[0], np.float32)

    def audio(self, latent: Floats, samples: int) -> Tensor:
        """Latent -> loop [2, samples]."""
        return self.decoder.decode_loop(torch.from_numpy(latent)[None])[0][:, :samples]

    def latent(self, loop: Tensor) -> Floats:
        """Loop -> latent [T, 64]."""
        return self.encoder.encode_loop(loop[None])[0].numpy()

    @torch.no_grad()
    def hears(self, latent: Floats) -> tuple[Tensor, Tensor, Tensor]:
        """Probe: tag logits, key logits, embedding."""
        tags, key, embedding = self.probe(
            torch.from_numpy(latent)[None], torch.tensor([len(latent)])
        )
        return tags[0], key[0], embedding[0]


# ------------------------------------------------------------------------------------------ onsets


def onsets(loop: Tensor) -> npt.NDArray[np.float64]:
    """Seconds of the onsets: peaks of the spectral flux in two bands."""
    mono = torch.nn.functional.pad(loop.mean(0), (480, 480))
    s = torch.stft(
        mono, 1024, 480, 1024, torch.hann_window(1024), return_complex=True, center=False
    ).abs()
    level = torch.log(1 + 100 * s)
    rise = (level[:, 1:] - level[:, :-1]).clamp(min=0)
    e = (rise[:8].mean(0) + rise[8:].mean(0)).numpy()
    threshold = np.convolve(e, np.ones(41) / 41, "same") + 0.5 * e.std()
    peaks = [
        i
        for i in range(2, len(e) - 2)
        if e[i] > threshold[i] and e[i] >= e[max(0, i - 4) : i + 5].max()
    ]
    return (np.array(peaks) + 1.5) / 100


def alike(x: Tensor, y: Tensor) -> float:
    """Correlation of the rhythm of two loops: rises of the level in eight bands, 100 a second."""

    def rises(loop: Tensor) -> Tensor:
        window = torch.hann_window(1024)
        s = torch.stft(loop.mean(0), 1024, 480, 1024, window, return_complex=True).abs()
        edges = torch.tensor([1, 3, 6, 12, 24, 48, 96, 192, 400])
        bands = [s[i:j].square().mean(0) for i, j in itertools.pairwise(edges.tolist())]
        level = torch.log(torch.stack(bands) + 1e-3)
        rise = (level[:, 2:] - level[:, :-2]).clamp(min=0)
        return rise - rise.mean(1, keepdim=True)

    a, b = rises(x), rises(y)
    return float((a * b).sum() / (a.norm() * b.norm() + 1e-9))


def grid(loop: Tensor, bpm: float) -> Row:
    """Onsets against the beat grid: share near a sixteenth, share of beats with an onset, their
    F-measure.
    """
    found = onsets(loop)
    if len(found) < 3:
        return {"grid_precision": 0.0, "beat_recall": 0.0, "grid_f": 0.0}
    step = 15.0 / bpm
    off = np.abs((found + step / 2) % step - step / 2)
    beats = np.arange(int(loop.shape[1] / 48000 * bpm / 60)) * 60 / bpm
    precision = float((off < 0.02).mean())
    recall = float((np.abs(beats[:, None] - found[None]).min(1) < 0.03).mean())
    return {
        "grid_precision": precision,
        "beat_recall": recall,
        "grid_f": 2 * precision * recall / max(1e-9, precision + recall),
    }


# ------------------------------------------------------------------------------------------ tables


def songs(count: int, first: int) -> list[Song]:
    """`count` held-out songs a genre, four bars (two when slow)."""
    return [
        compose(first + g * 100 + i, genre, bars=2 if genre == "ambient" else 4)
        for g, genre in enumerate(GENRES)
        for i in range(count)
    ]


def heard(model: Imp, latents: list[Floats], asked: list[Floats]) -> Row:
    """Genre and key accuracy and the F1 of all other tags."""
    genre = key = hit = total = 0.0
    for latent, cond in zip(latents, asked, strict=True):
        tags, pitch, _ = model.hears(latent)
        genre += float(tags[:14].argmax().item() == cond[:14].argmax())
        key += float(pitch.argmax().item() == cond[TAGS : TAGS + KEYS].argmax())
        present, truth = (tags[14:] > 0).numpy(), cond[14:TAGS] > 0.5
        hit += 2 * float((present & truth).sum())
        total += float(present.sum() + truth.sum())
    return {
        "genre": genre / len(latents),
        "key": key / len(latents),
        "tag_f1": hit / max(1.0, total),
    }


def frechet(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Frechet distance of two clouds [n, d]."""
    from scipy.linalg import sqrtm

    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    ca, cb = np.cov(a.T), np.cov(b.T)
    return float(mean + np.trace(ca + cb - 2 * np.real(sqrtm(ca @ cb))))


def cloud(model: Imp, latents: list[Floats]) -> npt.NDArray[np.float64]:
    """Probe embeddings [n, 128]."""
    return torch.stack([model.hears(z)[2] for z in latents]).double().numpy()


def codec_table(model: Imp, loops: Iterable[Tensor]) -> Row:
    """Mean reconstruction of loops."""
    rows = [compare(x, model.audio(model.latent(x), x.shape[1])) for x in loops]
    values = sorted(r["si_sdr"] for r in rows)
    return averaged(rows) | {
        "si_sdr_worst": round(values[0], 1),
        "si_sdr_median": round(values[len(values) // 2], 1),
        "n": len(rows),
    }


def recordings(folder: Path) -> Iterable[Tensor]:
    """Recordings of the families that no training saw, those of at least half a second."""
    for _, x in foreign.read(folder, foreign.HELD_OUT):
        if len(x) >= imp.SAMPLE_RATE // 2:
            yield torch.from_numpy(np.ascontiguousarray(x.T)).float()


def sample_table(
    model: Imp, held: list[Song], loops: list[Tensor], second: list[Tensor]
) -> dict[str, Row]:
    """Samples, ceiling and floor side by side."""
    asked = [label(song, model.vocabulary) for song in held]
    made, latents = [], []
    for i, (song, cond) in enumerate(zip(held, asked, strict=True)):
        made.append(model.audio(model.sample(cond, song.bars, song.bpm, i), song.samples))
        latents.append(model.latent(made[-1]))
    noise = [
        0.1 * torch.randn(2, song.samples, generator=torch.Generator().manual_seed(song.seed))
        for song in held
    ]
    sources = [model.latent(x) for x in loops]
    reference = cloud(model, sources)
    _, _, axes = np.linalg.svd(reference - reference.mean(0), full_matrices=False)
    axes = axes[:16].T
    table = {}
    others = [model.latent(x) for x in second]
    noisy = [model.latent(x) for x in noise]
    for name, audio, z, truth in (
        ("renders", loops, sources, asked),
        ("second renders", second, others, None),
        ("samples", made, latents, asked),
        ("noise", noise, noisy, asked),
    ):
        rows = (
            [grid(x, s.bpm) for x, s in zip(audio, held, strict=True) if s.genre != "ambient"]
            if truth is not None
            else []
        )
        table[name] = averaged(rows) if rows else {}
        table[name] |= heard(model, z, truth) if truth is not None else {}
        table[name]["frechet"] = frechet(cloud(model, z) @ axes, reference @ axes)
        level = torch.stack([x.square().mean().sqrt() for x in audio])
        table[name]["rms_db"] = float(20 * torch.log10(level).mean())
    table["samples"] |= seams(made)
    table["renders"] |= seams(loops)
    return table


def seams(loops: list[Tensor]) -> Row:
    """The step over the seam as a percentile of all steps of its loop, mean over loops (50: like
    any other).
    """
    ranks = []
    for x in loops:
        steps = (x[:, 1:] - x[:, :-1]).abs().amax(0)
        ranks.append(float((steps < (x[:, 0] - x[:, -1]).abs().max()).float().mean()) * 100)
    return {"seam_percentile": sum(ranks) / len(ranks)}


def control_table(model: Imp, held: list[Song], loops: list[Tensor]) -> dict[str, Row]:
    """Denoise, cover, tone."""
    distance: dict[float, list[float]] = {0.3: [], 0.6: [], 0.9: []}
    kept: dict[str, list[float]] = {"cover": [], "unrelated": [], "genre": [], "genre_floor": []}
    centroid: dict[str, list[float]] = {"bright": [], "dark": []}
    names = list(GENRES)
    for i, (song, loop) in enumerate(zip(held, loops, strict=True)):
        z = model.latent(loop)
        cond = label(song, model.vocabulary)
        for amount, row in distance.items():
            y = model.audio(
                model.sample(cond, song.bars, song.bpm, i, source=z, denoise=amount), song.samples
            )
            row.append((log_mel(y) - log_mel(loop)).abs().mean().item())
        target = names[(names.index(song.genre) + 5) % len(names)]
        other = condition(model.vocabulary, {target: 1.0}, bpm=song.bpm, bars=song.bars)
        cover = model.audio(model.sample(other, song.bars, song.bpm, i, hint=z), song.samples)
        free = model.audio(model.sample(other, song.bars, song.bpm, i), song.samples)
        kept["cover"].append(alike(loop, cover))
        kept["unrelated"].append(alike(loop, free))
        kept["genre"].append(
            model.hears(model.latent(cover))[0][names.index(target)].sigmoid().item()
        )
        kept["genre_floor"].append(model.hears(z)[0][names.index(target)].sigmoid().item())
        for tag in centroid:
            toned = condition(
                model.vocabulary, {song.genre: 1.0, tag: 1.0}, bpm=song.bpm, bars=song.bars
            )
            centroid[tag].append(
                tone(model.audio(model.sample(toned, song.bars, song.bpm, i), song.samples))
            )
    pairs = list(zip(*distance.values(), strict=True))
    result = {f"denoise {k}": {"mel_distance": float(np.mean(v))} for k, v in distance.items()}
    result["denoise"] = {"monotone_share": float(np.mean([a < b < c for a, b, c in pairs]))}
    result["cover"] = {k: float(np.mean(v)) for k, v in kept.items()}
    result["tone"] = {f"{k}_hz": float(np.mean(v)) for k, v in centroid.items()}
    ratio = np.array(centroid["bright"]) > np.array(centroid["dark"])
    result["tone"]["bright_above_dark_share"] = float(ratio.mean())
    return result


def tone(loop: Tensor) -> float:
    """Centre of gravity of the magnitude spectrum, Hz."""
    size = torch.fft.rfft(loop.mean(0)).abs()
    f = torch.fft.rfftfreq(loop.shape[1], 1 / imp.SAMPLE_RATE)
    return float((size * f).sum() / size.sum())


def main() -> None:
    """Run every table and print it; --json keeps the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-genre", type=int, default=3)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model, renderer, report = Imp(), Renderer(), dict[str, Any]()
    held = songs(options.per_genre, FIRST)
    loops = [renderer([song])[0] for song in held]
    say("rendered")
    report["codec, renders"] = codec_table(model, loops)
    say("codec, renders", report["codec, renders"])
    if options.recordings:
        report["codec, recordings"] = codec_table(model, recordings(options.recordings))
        say("codec, recordings", report["codec, recordings"])
    second = [renderer([song])[0] for song in songs(options.per_genre, FIRST + 50)]
    report |= sample_table(model, held, loops, second)
    for name in ("renders", "second renders", "samples", "noise"):
        say(name, {k: round(v, 3) for k, v in report[name].items()})
    step = max(1, options.per_genre)
    report |= control_table(model, held[::step], loops[::step])
    for name, row in list(report.items())[-6:]:
        say(name, {k: round(v, 3) for k, v in row.items()})
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
