"""What the flow model is told of the notes: exact from the score, group by group, and in training
left out as a performer may leave it out.
"""

from __future__ import annotations

import math
import shutil
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.core import Request
from demon_live.models.engine import open_engine
from demon_live.models.imp import model as imp
from demon_live.models.manifest import load_manifest, seal
from engines.imp import bank as banks
from engines.imp import lanes as notes
from engines.imp.draw import Sampler
from engines.imp.following import following
from engines.imp.render import Renderer
from engines.imp.score import Event, Song, compose

KNOBS = (0.0,) * 6


def song(*events: Event, bpm: int = 125, bars: int = 1) -> Song:
    """A song of these events; at 125 bpm a beat is 12 frames."""
    return replace(compose(1, "house", bars=bars, bpm=bpm), events=events, bars=bars, bpm=bpm)


def event(voice: str, bus: str, beat: float, length: float, pitch: float = 0.0) -> Event:
    return Event(voice, bus, beat, length, pitch, 0.8, 0.0, KNOBS)


def test_hits_lie_where_they_are_played() -> None:
    rows = notes.lanes(song(event("kick", "kick", 0.0, 8.0), event("snare", "drums", 1.125, 8)), 48)
    kick, snare = 27 + notes.HITS.index("kick"), 27 + notes.HITS.index("snare")
    assert np.flatnonzero(rows[:, kick]).tolist() == [0]
    assert np.flatnonzero(rows[:, snare]).tolist() == [13]  # 1.125 beats are 13.5 frames
    assert rows[0, kick + 8] == pytest.approx(-0.5)
    assert rows[13, snare + 8] == pytest.approx(0.0)
    assert rows[13, snare] == pytest.approx(0.8)
    assert (rows[:, notes.TOLD :] == 1).all()


def test_bass_and_chords_are_what_sounds() -> None:
    rows = notes.lanes(
        song(
            event("sub", "bass", 1.0, 1.0, 33.0),
            *(event("saws", "music", 2.0, 0.5, p) for p in (57.0, 60.0, 64.0)),
        ),
        48,
    )
    sounding = slice(12, 24)
    assert (rows[sounding, 13 + 9] == 1).all()
    assert rows[:, 13:25].sum() == 12
    assert rows[12, 25] == pytest.approx(-0.5 / 12)
    assert (rows[:, 26] > 0).nonzero()[0].tolist() == list(range(12, 24))
    assert set(np.flatnonzero(rows[0, :12])) == {9, 0, 4}
    assert rows[24:30, 12].tolist() == [1.0] * 6
    assert not rows[30:, 12].any()


def test_lanes_turn_with_the_loop() -> None:
    """From a later start they are the same, turned; past the end they begin again."""
    made = compose(11, "techno", bars=2, bpm=125)
    rows = notes.lanes(made, 96)
    turned = notes.lanes(made, 200, start=30 * imp.HOP)
    assert np.allclose(turned[:96], np.roll(rows, -30, 0), atol=1e-6)
    assert np.allclose(turned[96:192], turned[:96], atol=1e-4)


def test_what_is_not_told_is_zero_and_said_so() -> None:
    torch.manual_seed(0)
    sampler = Sampler(banks.noise(4), 256, "cpu", 0.0, 1.0)
    rows = sampler.draw(0)
    for i, group in enumerate(notes.GROUPS):
        told = rows.lanes[..., notes.TOLD + i] > 0
        assert not rows.lanes[..., group][~told].any()
        share = told.any(1).float().mean().item()
        assert 0.4 < share < 0.8  # each on its own
    alone = (rows.lanes[..., notes.TOLD :].amax(1) > 0).sum(1)
    assert {0, 1, 2, 3} == set(alone.tolist())
    untold = Sampler(banks.noise(4), 8, "cpu", 0.0, 0.0).draw(0)
    assert not untold.lanes.any()


def test_a_source_may_be_shown_in_a_stretch_alone() -> None:
    torch.manual_seed(1)
    rows = Sampler(banks.noise(4), 256, "cpu").draw(0)
    shown = rows.hint[..., -1] > 0
    some, every = shown.any(1), shown.all(1)
    assert 0.3 < some.float().mean() < 0.6
    assert 0.2 < (some & ~every).float().sum() / some.float().sum() < 0.5
    assert not rows.hint[~shown].any()


def test_renders_play_their_own_scores() -> None:
    """The measure finds the chords, bass and kicks of a render, and not those of another."""
    seeds = (compose(seed, "trance", bars=4) for seed in range(2_000_103, 2_000_140))
    own = next(s for s in seeds if {"four-on-the-floor", "pad"} <= set(s.tags))
    other = compose(own.seed, "trance", bars=4, key=(own.key + 1) % 12)
    (loop,) = Renderer()([own])
    right, wrong = following(loop, own), following(loop, other)
    assert right["chords"] >= 0.75 > wrong["chords"] + 0.25
    assert right["kick"] > 0.7
    assert all(math.isnan(v) or 0 <= v <= 1 for v in right.values())


# ------------------------------------------------------------------------------------- the engine

FRAMES = 48


@dataclass
class Row:
    request: Request
    condition: Any
    shared: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of one block whose weights read lanes, with its graph; made-up numbers."""
    pytest.importorskip("onnx")
    from engines.imp import export

    monkeypatch.setattr(imp, "DEPTH", 1)
    shipped = load_manifest("imp")
    shutil.copy(shipped.path, tmp_path / "imp.toml")
    folder = tmp_path / "imp"
    folder.mkdir()
    for name in ("tags.toml", "decoder.onnx", "codec.safetensors"):
        shutil.copy(shipped.folder / name, folder / name)
    torch.manual_seed(0)
    flow = imp.ImpFlow(channels=shipped.channels, lanes=True)
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_(std=0.3 if p.ndim < 2 else p[0].numel() ** -0.5)
    imp.save_half(folder / "flow.safetensors", flow=flow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        export.write(folder, ["flow.onnx"])
    seal(tmp_path / "imp.toml")
    return tmp_path / "imp.toml"


@pytest.mark.parametrize("random", [False, True])
def test_an_engine_that_can_be_told_notes_plays_untold(told: Path, random: bool) -> None:
    """With either backend, with its weights or with made-up ones in their shapes."""
    channels = load_manifest("imp").channels
    noise = np.random.default_rng(0).standard_normal((2, FRAMES, channels), np.float32)
    x = torch.from_numpy(noise)
    t, made = torch.tensor([0.6, 0.3]), []
    for backend in ("onnx", "eager"):
        engine = open_engine(told, backend=backend, device="cpu", threads=1, random_weights=random)
        wanted = engine.condition("techno", bpm=125.0, cycles=1, beats=4, frames=FRAMES)
        rows = [Row(Request(FRAMES, channels), wanted)] * 2
        made.append(engine.velocity(x, t, rows))
        single = [engine.velocity(x[i : i + 1], t[i : i + 1], rows[:1]) for i in (0, 1)]
        assert backend == "eager" or torch.equal(made[-1], torch.cat(single))
    assert (made[0] - made[1]).abs().max() < 2e-3
