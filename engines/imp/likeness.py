"""The table of the timbre reference: loops by the labels of one song and the sound of another.

Each loop is made twice from the same noise, without and with the reference, and both are held
against the reference: how far their average spectra lie apart, and their embeddings by the ears; in
what share the loop is nearer with it; and what is still heard of the labels. Ceiling: the score of
the one rendered on the kit of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from demon_live.models.imp.labels import LABELS, Floats, Vocabulary, condition
from demon_live.models.imp.timbre import levels, statistics
from engines.imp.bank import label
from engines.imp.genres import GENRES
from engines.imp.measure import spectrum_apart
from engines.imp.render import Renderer
from engines.imp.score import Song, other_kit

Row = dict[str, float]
Far = dict[str, list[float]]
WAYS = ("all labels", "genre and key", "cover")
"""What is said beside the reference; the last also shows the song's own render as a source."""


class Ears(Protocol):
    """Who listens: what is heard of the labels, and embeddings [n, d] by each ear's name."""

    def heard(self, loops: list[Tensor], songs: list[Song], asked: Tensor | None) -> Row: ...

    def clouds(self, loops: list[Tensor]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Likeness:
    """All songs of an evaluation (as many of each genre) with their renders; every `step`-th is
    played. play: conditions and sources to cover (or None), one for each of those -> loops [2, n].
    """

    songs: list[Song]
    loops: list[Tensor]
    step: int
    ears: Ears
    renderer: Renderer
    vocabulary: Vocabulary
    play: Callable[[list[Floats], list[Tensor] | None], list[Tensor]]

    def others(self, genres: int) -> list[int]:
        """For each song that is played another one: `genres` further, or of its own genre."""
        every = len(self.songs)
        count = every // len(GENRES)
        after = [i // count * count + (i + 1) % count for i in range(0, every, self.step)]
        return [(i + genres * count) % every for i in after]

    def said(self, way: str) -> list[Floats]:
        """Conditions of the songs that are played, without a reference."""
        rows = []
        for s in self.songs[:: self.step]:
            key = (s.key, self.vocabulary.modes.index(s.mode))
            few = condition(self.vocabulary, {s.genre: 1.0}, key=key, bpm=s.bpm, bars=s.bars)
            rows.append(label(s, self.vocabulary) if way == "all labels" else few)
        return rows

    def table(self) -> dict[str, Row]:
        """A row for each kind of reference, each way of asking, without and with it."""
        shown = self.loops[:: self.step]
        sources = {way: shown if way == "cover" else None for way in WAYS}
        plain = {way: self.play(self.said(way), sources[way]) for way in WAYS}
        table: dict[str, Row] = {}
        for name, genres in (("another genre's", 5), ("its genre's", 0)):
            others = self.others(genres)
            goal = [self.loops[j] for j in others]
            told = [statistics(levels(x)).cpu().numpy() for x in goal]
            kits = [(self.songs[j].seed, self.songs[j].kit_genre) for j in others]
            pairs = zip(self.songs[:: self.step], kits, strict=True)
            renders = [self.renderer([other_kit(song, *kit)])[0] for song, kit in pairs]
            table[f"timbre, {name}, renders"] = self.row(renders, goal, None)[0]
            for way in WAYS:
                both = zip(self.said(way), told, strict=True)
                conds = [np.concatenate([cond[:LABELS], vector]) for cond, vector in both]
                row, far = self.row(plain[way], goal, None)
                table[f"timbre, {name}, {way}, without"] = row
                made = self.play(conds, sources[way])
                table[f"timbre, {name}, {way}, with"] = self.row(made, goal, far)[0]
        return table

    def row(self, loops: list[Tensor], goal: list[Tensor], before: Far | None) -> tuple[Row, Far]:
        """What is heard of loops, and how far they are from their references: mean, each, and the
        share that is nearer than `before`.
        """
        songs = self.songs[:: self.step]
        far: Far = {"spectrum_db": [spectrum_apart(x, y) for x, y in zip(loops, goal, strict=True)]}
        a, b = self.ears.clouds(loops), self.ears.clouds(goal)
        far |= {name: np.linalg.norm(a[name] - b[name], axis=1).tolist() for name in a}
        asked = torch.from_numpy(np.stack([label(s, self.vocabulary) for s in songs]))
        row = self.ears.heard(loops, songs, asked)
        for name, values in far.items():
            row[name] = float(np.mean(values))
            if before:
                nearer = np.array(values) < np.array(before[name])
                row[f"{name}_nearer_share"] = float(nearer.mean())
        return row, far
