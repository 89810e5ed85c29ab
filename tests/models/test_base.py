"""Engines of one's own: a base class that needs velocity and decode, found by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live import EngineBase, Live, Offline, generate, open_engine
from demon_live.core import Floats
from demon_live.errors import DemonError
from demon_live.models import manifest
from demon_live.models.protocol import Engine, Row
from demon_live.paths import shipped


class Level(EngineBase):
    """A tone as loud as its prompt says."""

    channels = 2
    margin = 0

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        wanted = [float(row.condition["prompt"] or 0) for row in rows]
        return (x - torch.tensor(wanted)[:, None, None]) / t[:, None, None]

    def decode(self, latent: Floats) -> Floats:
        return np.repeat(latent, 1920, axis=1)


HERE = f"{__name__}:Level"


def test_velocity_and_decode_are_enough_to_play() -> None:
    engine: Engine = Level()
    assert (engine.name, engine.manifest.summary) == ("level", "A tone as loud as its prompt says.")
    with Offline(engine) as stage:
        stage.session.apply("prompt = \"<'.1' '.3'>\"\nloop 1")
        audio = stage.render(cycles=3)[:, 0]
    assert np.allclose(audio[20_000:80_000], 0.1, atol=1e-3)
    assert np.allclose(audio[110_000:180_000], 0.3, atol=1e-3)
    assert np.allclose(generate("0.25", engine=Level()).audio, 0.25, atol=1e-4)


def test_what_it_cannot_do_is_said() -> None:
    class Empty(EngineBase):
        pass

    with pytest.raises(NotImplementedError, match="velocity"):
        generate("a", engine=Empty())
    with pytest.raises(DemonError, match="reads no source"):
        generate("1", source=np.zeros((9600, 2), np.float32), engine=Level())


def test_an_engine_is_opened_by_its_module_and_class() -> None:
    found = open_engine(HERE)
    assert type(found).__name__ == "Level"
    with Offline(HERE) as stage:
        stage.session.apply("prompt = '.2'\nloop 1")
        assert np.allclose(stage.render(cycles=2)[-1000:], 0.2, atol=1e-3)


def test_an_engine_is_opened_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", HERE, manifest.GROUP)

    def points(group: str, name: str | None = None) -> Any:
        assert group == "demon_live.engines"
        return [point] if name in (None, "mine") else []

    monkeypatch.setattr(manifest, "entry_points", points)
    assert open_engine("mine").describe() == "level (cpu)"


def test_an_engine_is_found_where_demon_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shipped("examples"))
    # As of the command `demon`, which does not look there by itself.
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p and Path(p) != Path.cwd()])
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    loop = generate("1 3 5", engine="toy:Bells", bpm=120)
    spectrum = np.abs(np.fft.rfft(loop.audio[:48_000, 0]))
    assert sorted(np.argsort(spectrum)[-3:].tolist()) == [200, 250, 375]
    monkeypatch.delitem(sys.modules, "toy")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:Mine", "cannot be imported"),
        (f"{__name__}:Missing", "cannot be imported"),
        (f"{__name__}:HERE", "is no engine"),
        ("impp", "did you mean imp"),
    ],
)
def test_engines_that_are_none(name: str, said: str) -> None:
    with pytest.raises(DemonError) as caught:
        open_engine(name)
    assert said in str(caught.value)


def test_an_engine_of_ones_own_plays_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DEMON_SPARE", "0")
    score = tmp_path / "x.demon"
    score.write_text("prompt = '.2'\nloop 1\n")
    with Live([score], engine=HERE, audio="null", watch=False) as live:
        assert live.wait(60, lambda: live.session.status().telemetry.generations > 0)
