"""Fine-tuning imp: which loops are taken, and why others are not."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from demon_live.models.imp import model as imp
from engines.imp import bank as banks
from engines.imp import finetune
from engines.imp.finetune import Refused, bars_of, tempo


def silence(seconds: float) -> torch.Tensor:
    return torch.zeros(2, round(seconds * 48_000))


@pytest.mark.parametrize(
    ("name", "bpm"), [("bass_128.wav", 128), ("pad 92 bpm.flac", 92), ("909_kit_140.5.wav", 140.5)]
)
def test_the_tempo_is_in_the_name(name: str, bpm: float) -> None:
    assert tempo(Path(name), None) == bpm
    assert tempo(Path(name), 100.0) == 100.0


def test_a_loop_without_a_tempo_says_what_to_do() -> None:
    with pytest.raises(Refused, match=r"--bpm 128"):
        tempo(Path("drums_2.wav"), None)


def test_whole_bars_up_to_sixteen_seconds_are_taken() -> None:
    assert bars_of(Path("x"), silence(8.0), 120) == 4
    assert bars_of(Path("x"), silence(16.0), 120) == 8
    with pytest.raises(Refused, match=r"4\.50 bars"):
        bars_of(Path("x"), silence(9.0), 120)
    with pytest.raises(Refused, match="at most 16 s"):
        bars_of(Path("x"), silence(24.0), 120)


@pytest.mark.parametrize("timbre", [False, True])
def test_what_is_learnt_is_as_wide_as_what_is_shipped(
    timbre: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is copied, so the weights must fit it: with a timbre reference or without."""
    monkeypatch.setattr(imp, "DEPTH", 1)
    monkeypatch.setattr(finetune, "HERE", tmp_path)
    imp.save_half(tmp_path / "flow.safetensors", flow=imp.ImpFlow(timbre=timbre))
    options = argparse.Namespace(device="cpu", init=None, batch=2, rate=1e-4, steps=2, guidance=0.0)
    learnt = finetune.learn(banks.noise(2), options)
    assert (learnt.timbre is not None) == timbre
    shipped = imp.load_flow(tmp_path / "flow.safetensors")
    assert not torch.equal(learnt.inp.weight, shipped.inp.weight)
