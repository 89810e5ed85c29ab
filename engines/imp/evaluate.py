"""Measure imp: `python -m engines.imp.evaluate [--per-genre 3] [--weights NAME=CODEC,FLOW ...]
[--tables codec coded samples told control timbre] [--musicnn FILE] [--recordings DIR]
[--json FILE]`.

CODEC and FLOW are folders with codec and flow weights; without --weights those beside this file are
measured. Several sets are measured side by side: same held-out seeds, same ears.

codec     held-out renders and recordings it never saw: SI-SDR, log-mel error by band
samples   8 and 4 steps, no guidance, from the labels of held-out renders, as audio: onsets on the
          grid; genre, key and tags as `listener` hears them; Frechet distance in its embedding and
          in musicnn's (`outside`). Ceilings: the renders, and they through the codec; for the
          distance a second set of renders. Floor: noise.
control   distance to the source against denoise, prompts swapped, guidance, cover, bright and dark
texture   renders, they through the codec, samples: lines or breath, width, pulse (`texture`)
told      chords, bass and drums of the score as lanes, and the same untold (`following`)
timbre    labels of one song, reference of another: how far from the reference's average spectrum,
          and in what share of the loops nearer to it than without; what is kept of the labels.
          Ceiling: the one's score rendered on the other's kit
Seeds from 2_000_000 on, which no training saw.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import (
    Floats,
    condition,
    load_vocabulary,
    loop_frames,
)
from engines.imp import recordings as foreign
from engines.imp.bank import label
from engines.imp.detail import detail
from engines.imp.following import following
from engines.imp.genres import GENRES
from engines.imp.lanes import lanes
from engines.imp.likeness import Likeness
from engines.imp.listener import GENRES as GENRE_COUNT
from engines.imp.listener import Listener, hear, load_listener, scores
from engines.imp.measure import (
    alike,
    averaged,
    compare,
    frechet,
    grid,
    log_mel,
    seams,
    tone,
)
from engines.imp.outside import Outside
from engines.imp.play import Ask, Imp, around
from engines.imp.render import Renderer
from engines.imp.score import Song, compose
from engines.imp.texture import texture
from engines.imp.training import say

HERE = Path(__file__).parent
FIRST = 2_000_000
Row = dict[str, float]
TABLES = ("codec", "coded", "samples", "told", "control", "timbre")
VOCABULARY = load_vocabulary(HERE / "tags.toml")
NAMES = list(GENRES)


@dataclass(frozen=True)
class Ears:
    """Who listens."""

    own: Listener
    outside: Outside | None

    def heard(self, loops: list[Tensor], songs: list[Song], asked: Tensor | None) -> Row:
        """Onsets against the grid, labels against what was asked, level."""
        row = [grid(x, s.bpm) for x, s in zip(loops, songs, strict=True) if s.genre != "ambient"]
        table = averaged(row) if row else {}
        if asked is not None:
            table |= scores(hear(self.own, loops), asked)
        level = torch.stack([x.square().mean().sqrt() for x in loops])
        return table | {"rms_db": float(20 * torch.log10(level + 1e-9).mean())}

    def clouds(self, loops: list[Tensor]) -> dict[str, Any]:
        """Embeddings [n, d] of both ears."""
        own = hear(self.own, loops)[2].double().numpy()
        if self.outside is None:
            return {"own": own}
        rows = torch.stack([self.outside(x) for x in loops])
        return {"own": own, "musicnn": rows.double().cpu().numpy()}


def distances(a: dict[str, Any], b: dict[str, Any]) -> Row:
    """Frechet distances; each cloud on the 32 first axes of the reference b."""
    result = {}
    for name, reference in b.items():
        _, _, axes = np.linalg.svd(reference - reference.mean(0), full_matrices=False)
        result[f"frechet_{name}"] = frechet(a[name] @ axes[:32].T, reference @ axes[:32].T)
    return result


def songs(count: int, first: int) -> list[Song]:
    """`count` held-out songs a genre, four bars (two when slow)."""
    return [
        compose(first + g * 100 + i, genre, bars=2 if genre == "ambient" else 4)
        for g, genre in enumerate(NAMES)
        for i in range(count)
    ]


def codec_table(model: Imp, loops: Iterable[Tensor]) -> Row:
    """Mean reconstruction of loops."""
    rows = [compare(x, model.audio(model.latent(x), x.shape[1])) for x in loops]
    values = sorted(r["si_sdr"] for r in rows)
    return averaged(rows) | {
        "si_sdr_worst": round(values[0], 1),
        "si_sdr_median": round(values[len(values) // 2], 1),
        "n": len(rows),
    }


def detail_table(model: Imp, loops: list[Tensor]) -> Row:
    """Mean of what `detail` says of the renders through the codec."""
    return averaged([detail(x, model.audio(model.latent(x), x.shape[1])) for x in loops])


def recordings(folder: Path, device: str) -> Iterable[Tensor]:
    """First 4 s of the recordings of families that no training saw, of at least half a second."""
    for _, x in foreign.read(folder, foreign.HELD_OUT):
        if len(x) >= imp.SAMPLE_RATE // 2:
            part = np.ascontiguousarray(x[: 4 * imp.SAMPLE_RATE].T)
            yield torch.from_numpy(part).float().to(device)


class Evaluation:
    """Held-out renders, the ears, and their tables."""

    def __init__(self, per_genre: int, ears: Ears, device: str) -> None:
        self.ears, self.device = ears, device
        self.renderer = renderer = Renderer(device)
        self.songs = songs(per_genre, FIRST)
        self.loops = [renderer([song])[0] for song in self.songs]
        self.second = [renderer([song])[0] for song in songs(per_genre, FIRST + 50)]
        self.asked = torch.from_numpy(np.stack([label(s, VOCABULARY) for s in self.songs]))
        self.reference = ears.clouds(self.loops)
        self.step = max(1, per_genre // 2)

    def table(self, kind: str, model: Imp, folder: Path | None) -> dict[str, Row]:
        """The rows of one of TABLES; folder: of recordings that the codec is measured on."""
        nested = model.channels > imp.CHANNELS
        if kind != "codec":
            rows: dict[str, Row] = getattr(self, kind)(model)
            if kind == "coded" and nested:
                rows |= self.base(model)
            if kind == "samples" and nested:
                rows |= self.detail_zero(model)
            return rows
        rows = {"codec, renders": codec_table(model, self.loops)}
        rows["detail"] = detail_table(model, self.loops[:: self.step])
        if folder:
            rows["codec, recordings"] = codec_table(model, recordings(folder, self.device))
        return rows

    def sources(self) -> dict[str, Row]:
        """Ceilings and floor that no weights take part in."""
        table = {"renders": self.ears.heard(self.loops, self.songs, self.asked)}
        table["renders"] |= seams(self.loops) | averaged([texture(x) for x in self.loops])
        table["renders, followed"] = self.followed(self.loops)
        table["second renders"] = distances(self.ears.clouds(self.second), self.reference)
        g = torch.Generator().manual_seed(0)
        noise = [0.1 * torch.randn(x.shape, generator=g).to(self.device) for x in self.loops]
        table["noise"] = self.ears.heard(noise, self.songs, self.asked)
        table["noise"] |= distances(self.ears.clouds(noise), self.reference)
        return table

    def judge(self, model: Imp, loops: list[Tensor]) -> Row:
        """One row of the table of samples."""
        row = self.ears.heard(loops, self.songs, self.asked)
        row |= averaged([texture(x) for x in loops])
        return row | distances(self.ears.clouds(loops), self.reference) | seams(loops)

    def coded(self, model: Imp) -> dict[str, Row]:
        """The renders through the codec."""
        again = [model.audio(model.latent(x), x.shape[1]) for x in self.loops]
        return {"through the codec": self.judge(model, again)}

    def base(self, model: Imp) -> dict[str, Row]:
        """The renders through the codec by its base alone, the detail zero."""
        made = []
        for x in self.loops:
            latent = model.latent(x)
            latent[:, imp.CHANNELS :] = 0
            made.append(model.audio(latent, x.shape[1]))
        rows = [compare(x, y) for x, y in zip(self.loops, made, strict=True)]
        return {"base alone": self.judge(model, made) | averaged(rows)}

    def followed(self, loops: list[Tensor]) -> Row:
        """How loops play the scores: means over the songs that have such a part."""
        rows = [following(x, s) for x, s in zip(loops, self.songs, strict=True)]
        return {k: float(np.nanmean([r[k] for r in rows])) for k in rows[0]}

    def told(self, model: Imp) -> dict[str, Row]:
        """Scores told as lanes, from noise and from another song's loop at denoise .7; untold."""
        if model.flow.lanes is None:
            say("these weights know no lanes: that table is left out")
            return {}
        table = {}
        others = [*self.loops[1:], self.loops[0]]
        for name, amount in (("from noise", 1.0), ("denoise .7", 0.7)):
            for told in (True, False):
                asks = []
                for i, (s, other) in enumerate(zip(self.songs, others, strict=True)):
                    frames = loop_frames(s.bars, s.bpm)
                    source = around(model.latent(other), frames) if amount < 1 else None
                    rows = lanes(s, frames) if told else None
                    cond = label(s, VOCABULARY)
                    asks.append(Ask(cond, s.bars, s.bpm, i, source=source, lanes=rows))
                made = zip(model.sample(asks, denoise=amount), self.songs, strict=True)
                loops = [model.audio(z, s.samples) for z, s in made]
                table[f"{name}, {'told' if told else 'untold'}"] = self.followed(loops)
        return table

    def detail_zero(self, model: Imp) -> dict[str, Row]:
        """Samples of 8 steps decoded without their detail."""
        asks = [Ask(label(s, VOCABULARY), s.bars, s.bpm, i) for i, s in enumerate(self.songs)]
        loops = []
        for z, s in zip(model.sample(asks), self.songs, strict=True):
            z[:, imp.CHANNELS :] = 0
            loops.append(model.audio(z, s.samples))
        return {"8 steps, base alone": self.judge(model, loops)}

    def samples(self, model: Imp) -> dict[str, Row]:
        """Samples of 8 and of 4 steps."""
        table = {}
        asks = [Ask(label(s, VOCABULARY), s.bars, s.bpm, i) for i, s in enumerate(self.songs)]
        for steps in (8, 4):
            made = model.sample(asks, steps=steps)
            loops = [model.audio(z, s.samples) for z, s in zip(made, self.songs, strict=True)]
            table[f"{steps} steps"] = self.judge(model, loops)
        return table

    def control(self, model: Imp) -> dict[str, Row]:
        """Denoise, prompts swapped, guidance, cover, tone."""
        songs, loops = self.songs[:: self.step], self.loops[:: self.step]
        latents = [model.latent(x) for x in loops]
        swapped = [NAMES[(NAMES.index(s.genre) + 5) % len(NAMES)] for s in songs]

        def asks(tags: list[dict[str, float]] | None, **given: list[Tensor]) -> list[Ask]:
            rows = []
            for i, s in enumerate(songs):
                cond = label(s, VOCABULARY)
                if tags is not None:
                    cond = condition(VOCABULARY, tags[i], bpm=s.bpm, bars=s.bars)
                source, hint = (given[k][i] if k in given else None for k in ("source", "hint"))
                rows.append(Ask(cond, s.bars, s.bpm, i, source, hint))
            return rows

        def play(made: list[Tensor]) -> list[Tensor]:
            return [model.audio(z, s.samples) for z, s in zip(made, songs, strict=True)]

        def sure(heard: list[Tensor], names: list[str]) -> tuple[float, float]:
            """Mean probability of the genres, and how often they are what is heard first."""
            tags = hear(self.ears.own, heard)[0][:, :GENRE_COUNT]
            index = torch.tensor([NAMES.index(name) for name in names])
            p = tags.softmax(1).gather(1, index[:, None]).mean()
            return p.item(), (tags.argmax(1) == index).float().mean().item()

        apart = [[0.0] for _ in songs]
        table: dict[str, Row] = {"distance at denoise": {}}
        for amount in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            made = model.sample(asks(None, source=latents), denoise=amount) if amount else latents
            far = [
                (log_mel(y) - log_mel(x)).abs().mean().item()
                for x, y in zip(loops, play(made), strict=True)
            ]
            for row, value in zip(apart, far, strict=True):
                row.append(value)
            table["distance at denoise"][f"{amount}"] = float(np.mean(far))
        rising = [all(a <= b for a, b in itertools.pairwise(row)) for row in apart]
        table["distance at denoise"]["monotone_share"] = float(np.mean(rising))
        own = [s.genre for s in songs]
        for name, tags in (("own genre", own), ("swapped genre", swapped)):
            free = play(model.sample(asks([{g: 1.0} for g in tags])))
            p, first = sure(free, tags)
            kept = play(model.sample(asks([{g: 1.0} for g in tags], source=latents), denoise=0.8))
            table[name] = {"p": p, "first": first, "first_from_source": sure(kept, tags)[1]}
            cover = play(model.sample(asks([{g: 1.0} for g in tags], hint=latents)))
            table[name]["first_cover"] = sure(cover, tags)[1]
            pairs = zip(loops, cover, free, strict=True)
            both = [(alike(x, y), alike(x, z)) for x, y, z in pairs]
            table[name]["rhythm_cover"] = float(np.mean([a for a, _ in both]))
            table[name]["rhythm_free"] = float(np.mean([b for _, b in both]))
        for amount in (0.5, 1.0, 1.5, 2.0):
            heard = play(model.sample(asks(None), guidance=amount))
            p, first = sure(heard, own)
            result = scores(hear(self.ears.own, heard), self.asked[:: self.step])
            table[f"guidance {amount}"] = result | {"p": p, "first": first}
        centre = {}
        for tag in ("bright", "dark"):
            made = model.sample(asks([{s.genre: 1.0, tag: 1.0} for s in songs]))
            centre[tag] = [tone(x) for x in play(made)]
        table["tone"] = {f"{k}_hz": float(np.mean(v)) for k, v in centre.items()}
        higher = np.array(centre["bright"]) > np.array(centre["dark"])
        table["tone"]["bright_above_dark_share"] = float(higher.mean())
        return table

    def timbre(self, model: Imp) -> dict[str, Row]:
        """The table of `likeness`; none for weights that know no reference."""
        if model.flow.timbre is None:
            say("these weights know no timbre reference: that table is left out")
            return {}
        songs = self.songs[:: self.step]

        def play(conds: list[Floats], sources: list[Tensor] | None) -> list[Tensor]:
            hints = [None] * len(songs) if sources is None else [model.latent(x) for x in sources]
            asks = [
                Ask(cond, s.bars, s.bpm, i, hint=hint)
                for i, (cond, s, hint) in enumerate(zip(conds, songs, hints, strict=True))
            ]
            made = zip(model.sample(asks), songs, strict=True)
            return [model.audio(z, s.samples) for z, s in made]

        given = (self.songs, self.loops, self.step, self.ears, self.renderer)
        return Likeness(*given, VOCABULARY, play).table()


def show(title: str, table: dict[str, Any]) -> None:
    """Print rows of numbers."""
    for name, row in table.items():
        values = row.items() if isinstance(row, dict) else [("", row)]
        say(title, "|", name, "|", " ".join(f"{k} {round(float(v), 3)}" for k, v in values))


def main() -> None:
    """Run every table, print it, and keep the numbers with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=CODEC,FLOW")
    parser.add_argument("--listener", type=Path, default=HERE / "listener.safetensors")
    parser.add_argument("--musicnn", type=Path, help="file of engines.imp.outside")
    parser.add_argument("--per-genre", type=int, default=3)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    outside = Outside(options.musicnn, options.device) if options.musicnn else None
    ears = Ears(load_listener(options.listener, options.device), outside)
    evaluation = Evaluation(options.per_genre, ears, options.device)
    report: dict[str, Any] = {"sources": evaluation.sources()}
    show("sources", report["sources"])
    for given in options.weights or [f"imp={HERE},{HERE}"]:
        name, _, folders = given.partition("=")
        codec, flow = (Path(f) for f in folders.split(","))
        model = Imp(codec, flow, options.device)
        table: dict[str, Any] = {}
        for kind in options.tables:
            table |= evaluation.table(kind, model, options.recordings)
        report[name] = table
        show(name, table)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
