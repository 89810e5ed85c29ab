"""imp's timbre reference: what it hears, that nothing said is nothing changed, whom it is learnt
from, and that both widths of the weights play.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.core import Floats, Request
from demon_live.errors import EngineError
from demon_live.models import conditioning
from demon_live.models.engine import Engine, open_engine
from demon_live.models.imp import model as imp
from demon_live.models.imp.engine import ImpEngine
from demon_live.models.imp.labels import COND, LABELS, TIMBRE, condition, load_vocabulary
from demon_live.models.imp.timbre import HOP, levels, statistics, timbre_of
from demon_live.models.imp.weights import ImpWeights
from demon_live.models.manifest import load_manifest
from engines.imp import bank as banks
from engines.imp.draw import Sampler
from engines.imp.score import compose
from engines.imp.train_flow import Training, unseen

ENGINE = Path(__file__).resolve().parents[2] / "engines" / "imp"
RATE = 48_000
FRAMES = 48


def sound(hz: float = 220.0, seconds: float = 2.0, bright: float = 0.02) -> Floats:
    """A gated tone with hiss, float32 [n, 2]; n is a whole number of the statistics' frames."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = 0.2 * np.sin(2 * np.pi * hz * t) * (np.sin(2 * np.pi * 4 * t) > 0)
    hiss = np.random.RandomState(2).standard_normal((len(t), 2)) * bright
    return (tone[:, None] + hiss).astype(np.float32)


# ----------------------------------------------------------------------------------- what is heard


def test_where_a_loop_begins_does_not_matter() -> None:
    audio = sound()
    turned = np.roll(audio, 37 * HOP, axis=0)
    np.testing.assert_allclose(timbre_of(audio), timbre_of(turned), atol=2e-3)


def test_loudness_does_not_matter() -> None:
    np.testing.assert_allclose(timbre_of(sound()), timbre_of(0.25 * sound()), atol=2e-3)


def test_silent_ends_do_not_matter() -> None:
    audio = sound()
    quiet = np.zeros((RATE, 2), np.float32)
    np.testing.assert_array_equal(
        timbre_of(np.concatenate([quiet, audio, quiet])), timbre_of(audio)
    )


def test_a_brighter_sound_has_higher_levels_in_the_high_bands() -> None:
    dull, bright = (timbre_of(sound(bright=b)).reshape(4, 32)[0] for b in (0.002, 0.05))
    assert (bright[16:] > dull[16:]).all()
    assert (bright[16:] - dull[16:]).mean() > (bright[:4] - dull[:4]).mean() + 1


def test_one_channel_is_narrower_than_two() -> None:
    audio = sound()
    mono = np.repeat(audio[:, :1], 2, axis=1)
    wide, narrow = (timbre_of(x).reshape(4, 32)[2] for x in (audio, mono))
    assert (narrow[4:] < wide[4:]).all()


def test_frames_that_do_not_count_do_not_count() -> None:
    audio = torch.from_numpy(sound(seconds=4.0).T.copy())
    power = levels(audio)
    heard = torch.arange(power.shape[-1]) < 200
    other = power.clone()
    other[..., 201:-1] *= 9.0  # the attack of the first frame looks at the last
    assert torch.equal(statistics(power, heard), statistics(other, heard))
    assert not torch.equal(statistics(power), statistics(other))


def test_long_recordings_are_heard_at_three_places() -> None:
    a, b, c = (sound(hz=hz, seconds=10.0) for hz in (110.0, 440.0, 1760.0))
    filler = sound(hz=3000.0, seconds=5.0)
    whole = np.concatenate([a, filler, b, filler, c])
    np.testing.assert_allclose(timbre_of(whole), timbre_of(np.concatenate([a, b, c])), atol=2e-3)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (np.zeros((RATE, 2), np.float32), "silent"),
        (np.zeros((0, 2), np.float32), "silent"),
        (np.ones(RATE, np.float32), r"float32 \[n, 2\]"),
        (np.ones((RATE, 1), np.float32), r"float32 \[n, 2\]"),
    ],
)
def test_what_cannot_be_heard_is_refused(audio: Floats, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        timbre_of(audio)


# ------------------------------------------------------------------------------------- the weights


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(2, FRAMES, imp.CHANNELS, generator=g),
        "t": torch.rand(2, generator=g),
        "hint": torch.randn(2, FRAMES, imp.CHANNELS + 1, generator=g),
        "phase": torch.rand(2, FRAMES, imp.PHASE, generator=g),
        "cond": torch.rand(2, COND, generator=g),
    }


def noisy(module: torch.nn.Module) -> Any:
    """Random weights of a size that shows every path."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            scale = 0.3 if p.ndim < 2 else p[0].numel() ** -0.5
            p.copy_(torch.randn(p.shape, generator=g) * scale)
    return module.eval().requires_grad_(False)


def without(flow: imp.ImpFlow) -> imp.ImpFlow:
    """The same weights as they were before there was a reference."""
    old = imp.ImpFlow(timbre=False)
    kept = {k: v for k, v in flow.state_dict().items() if not imp.knows_timbre([k])}
    old.load_state_dict(kept)
    return old.eval().requires_grad_(False)


def test_no_reference_is_the_output_of_before_bit_for_bit() -> None:
    flow, given = noisy(imp.ImpFlow()), inputs()
    old = without(flow)
    given["cond"][:, LABELS:] = 0
    assert torch.equal(flow(**given), old(**given))
    assert torch.equal(old(**given), old(**given | {"cond": given["cond"][:, :LABELS]}))
    given["cond"][0, LABELS:] = 1.0
    changed = flow(**given)
    assert not torch.equal(changed[0], old(**given)[0])
    assert torch.equal(changed[1], old(**given)[1])


def test_old_weights_load_into_a_model_that_can_learn_it() -> None:
    """A reference says nothing before it is learnt; the rest is what was loaded."""
    old = without(noisy(imp.ImpFlow()))
    wide = imp.ImpFlow()
    wide.load_state_dict({k: v.half().float() for k, v in old.state_dict().items()})
    old.load_state_dict({k: v.half().float() for k, v in old.state_dict().items()})
    given = inputs()
    assert torch.equal(wide(**given), old(**given))
    wide(**given).sum().backward()
    assert wide.timbre is not None
    last = wide.timbre[2].weight.grad
    assert last is not None
    assert last.abs().max() > 0


def test_new_weights_are_saved_whole_and_known_by_their_names(tmp_path: Path) -> None:
    flow = noisy(imp.ImpFlow())
    imp.save_half(tmp_path / "new.safetensors", flow=flow)
    imp.save_half(tmp_path / "old.safetensors", flow=without(flow))
    new, old = (imp.load_flow(tmp_path / f"{name}.safetensors") for name in ("new", "old"))
    assert (new.width, old.width) == (COND, LABELS)
    assert new.timbre is not None
    assert torch.equal(new.timbre[0].weight, flow.timbre[0].weight.half().float())


def test_references_blend_as_prompts_do() -> None:
    lexicon = conditioning.load_lexicon(ENGINE / "tags.toml")
    vector = np.linspace(-1, 1, TIMBRE, dtype=np.float32)
    said = conditioning.prepare("techno", "dub", "", 120.0, 1, 4, FRAMES, lexicon, vector)
    plain = conditioning.prepare("techno", "dub", "", 120.0, 1, 4, FRAMES, lexicon)
    np.testing.assert_array_equal(said.cond[LABELS:], vector)
    np.testing.assert_array_equal(conditioning.mixed(said, 0.5)[LABELS:], vector)
    np.testing.assert_array_equal(said.cond2[:LABELS], plain.cond2[:LABELS])
    assert not plain.cond[LABELS:].any()
    assert not said.silent().cond.any()


# --------------------------------------------------------------------------------- what is learnt


def test_a_couple_is_two_scores_each_on_both_kits() -> None:
    for seed in range(0, 40, 2):
        rows = banks.couple(seed)
        scores = [{(e.beat, e.bus) for e in t.events if e.bus != "fx"} for t, _, _ in rows]
        for (target, source, crossed), own in zip(rows, scores, strict=True):
            assert own == {(e.beat, e.bus) for e in source.events if e.bus != "fx"}
            assert {target.genre} == {source.genre}
            assert crossed == (target.kit_genre != target.genre)
        kits = sorted(
            (s.kit_genre, s.mix["room_seed"]) for t, source, _ in rows for s in (t, source)
        )
        assert kits[0] == kits[1]
        assert kits[2] == kits[3]


def test_a_steady_kit_sounds_the_same_under_any_score() -> None:
    kit: dict[str, Any] = {"kit_seed": 7, "kit_genre": "house", "steady": True}
    one, two = compose(1, "house", **kit), compose(3, "techno", **kit)
    assert {k: v for k, v in one.mix.items() if k != "pump"} == {
        k: v for k, v in two.mix.items() if k != "pump"
    }
    kicks = [{e.knobs[1:] for e in s.events if e.bus == "kick"} for s in (one, two)]
    assert kicks[0]
    assert kicks[0] == kicks[1]
    loose = compose(3, "techno", kit_seed=7, kit_genre="house")
    assert loose.mix != two.mix


def coupled(cross: list[bool]) -> banks.Bank:
    """Two entries of a couple; a reference says which entry and which half it is of."""
    bank = banks.noise(2)
    bank.mate[:] = torch.tensor([1, -1])
    bank.cross[:] = torch.tensor(cross)
    bank.cond[:, 0], bank.other[:, 0] = 1.0, 2.0
    bank.timbre[:] = torch.tensor([[0.0, 10.0], [20.0, 30.0]])[:, :, None, None].half()
    return bank


@pytest.mark.parametrize(
    ("cross", "first", "second"),
    # Entry 0 is score A, 1 is score B; targets and sources by kit: who plays the target's kit?
    [
        ([False, False], 30, 10),
        ([True, False], 20, 0),
        ([False, True], 20, 0),
        ([True, True], 30, 10),
    ],
)
def test_a_reference_is_another_score_on_the_kit_of_the_target(
    cross: list[bool], first: int, second: int
) -> None:
    torch.manual_seed(0)
    sampler = Sampler(coupled(cross), 64, "cpu", 1.0)
    index = torch.arange(64) % 2
    found = (sampler.references(index).mean(1) / 10).round() * 10
    for entry, other in ((0, first), (1, second)):
        heard = found[index == entry].tolist()
        assert set(heard) == {float(other), 20.0 * entry}
        assert heard.count(float(other)) > len(heard) / 2


def test_a_crossed_target_is_shown_with_its_source_or_with_a_reference() -> None:
    torch.manual_seed(0)
    bank = coupled([True, True])
    rows = Sampler(bank, 256, "cpu", 0.5).draw()
    hinted = rows.hint.abs().amax((1, 2)) > 0
    given = rows.cond[..., LABELS:].abs().amax((1, 2)) > 0
    assert (hinted | given).all()
    assert not hinted.all()
    assert rows.said[given].all()
    # What its own kit is called is said only beside the source.
    assert (rows.cond[~hinted][..., 0] != 1.0).all()
    rows = Sampler(bank, 64, "cpu", 0.0).draw()
    assert (rows.hint.abs().amax((1, 2)) > 0).all()
    assert not rows.cond[..., LABELS:].any()


def options(**given: Any) -> argparse.Namespace:
    base = {"device": "cpu", "init": None, "batch": 2, "timbre": 0.4, "guidance": 0.6}
    base |= {"lanes": 0.0, "channels": imp.CHANNELS, "guide_from": 0.5, "depth": None}
    base |= {"linear": False, "detail": 0.3, "straighten": 1.0}
    return argparse.Namespace(**(base | given))


@pytest.mark.skipif(not (ENGINE / "flow.safetensors").exists(), reason="no weights")
def test_training_starts_where_the_weights_of_an_engine_stand() -> None:
    shipped = imp.load_flow(ENGINE / "flow.safetensors")
    bank = banks.noise(2, shipped.channels)
    bank.frames[:], bank.latent = 40, bank.latent[..., :]
    training = Training(bank, options(init=ENGINE, channels=shipped.channels))
    assert training.flow.timbre is not None
    assert unseen(training.flow, bank) == unseen(shipped, bank)
    assert unseen(training.flow, bank, told=True) == unseen(shipped, bank, told=True)


def test_a_step_learns_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imp, "DEPTH", 1)
    torch.manual_seed(0)
    training = Training(coupled([False, False]), options(timbre=1.0))
    training.optimiser.rate(1e-3)
    for guidance in (0.0, 0.6):
        training.optimiser.clear()
        training.step(guidance, 0)
    assert training.flow.timbre is not None
    assert training.flow.timbre[2].weight.abs().max() > 0
    flow, held = training.flow, training.held
    assert unseen(flow, held) != unseen(flow, held, told=True)
    plain = Training(coupled([False, False]), options(timbre=0.0))
    assert plain.flow.timbre is None


# -------------------------------------------------------------------------------------- the engine


@dataclass
class Row:
    request: Request
    condition: Any
    shared: Mapping[str, Any] = field(default_factory=dict)


def asked(engine: ImpEngine, prompt: str = "techno", **more: str) -> Any:
    return engine.condition(prompt, bpm=125.0, cycles=1, beats=4, frames=FRAMES, **more)


def velocity(engine: ImpEngine, wanted: Any) -> torch.Tensor:
    channels = engine.manifest.channels
    noise = np.random.default_rng(0).standard_normal((1, FRAMES, channels), np.float32)
    x = torch.from_numpy(noise)
    return engine.velocity(x, torch.tensor([0.6]), [Row(Request(FRAMES, channels), wanted)])


def opened(path: str | Path, backend: str) -> ImpEngine:
    engine: Engine = open_engine(path, backend=backend, device="cpu", threads=1)
    assert isinstance(engine, ImpEngine)
    return engine


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of one block whose weights read a reference, with its graph; made-up numbers."""
    pytest.importorskip("onnx")
    from engines.imp import export

    monkeypatch.setattr(imp, "DEPTH", 1)
    shipped = load_manifest("imp")
    shutil.copy(shipped.path, tmp_path / "imp.toml")
    folder = tmp_path / "imp"
    folder.mkdir()
    for name in ("tags.toml", "decoder.onnx", "codec.safetensors"):
        shutil.copy(shipped.folder / name, folder / name)
    imp.save_half(folder / "flow.safetensors", flow=noisy(imp.ImpFlow(channels=shipped.channels)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        export.write(folder, ["flow.onnx"])
    return tmp_path / "imp.toml"


def test_weights_that_know_it_follow_a_reference_on_both_backends(small: Path) -> None:
    onnx, eager = opened(small, "onnx"), opened(small, "eager")
    for engine in (onnx, eager):
        plain = asked(engine)
        assert asked(engine, timbre="bell") is plain  # not known yet: nothing is said
        engine.set_timbre("bell", sound())
        named = asked(engine, timbre="bell")
        assert named is asked(engine, timbre="bell")
        assert asked(engine) is plain
        np.testing.assert_array_equal(named.cond[LABELS:], timbre_of(sound()))
        assert not torch.equal(velocity(engine, plain), velocity(engine, named))
        engine.set_timbre("bell", sound(bright=0.1))
        assert asked(engine, timbre="bell") is not named
        assert engine.notes == []
    for wanted in (asked(onnx), asked(onnx, timbre="bell")):
        apart = (velocity(onnx, wanted) - velocity(eager, wanted)).abs().max()
        assert float(apart) < 1e-4
    with pytest.raises(EngineError, match="silent"):
        onnx.set_timbre("bell", np.zeros((RATE, 2), np.float32))
    onnx.close()
    eager.close()


def test_weights_that_do_not_know_it_say_so_once_and_play_on() -> None:
    for backend in ("onnx", "eager"):
        engine = opened("imp", backend)
        if engine._kernels.timbre:
            pytest.skip("the shipped weights know a timbre reference")
        before = velocity(engine, asked(engine))
        for name in ("bell", "drum"):
            engine.set_timbre(name, sound())
        assert engine.notes == ["the weights of imp know no timbre reference: it is left out"]
        assert torch.equal(before, velocity(engine, asked(engine, timbre="bell")))
        engine.close()


def test_the_manifest_says_whether_the_shipped_weights_know_it() -> None:
    engine = opened("imp", "onnx")
    assert engine._kernels.timbre == ("timbre" in load_manifest("imp").controls)
    flow = imp.load_flow(ENGINE / "flow.safetensors")
    assert engine._kernels.timbre == (flow.timbre is not None)
    engine.close()


@pytest.mark.parametrize("knows", [False, True])
def test_a_manifest_that_says_too_much_is_corrected_and_that_is_said(knows: bool) -> None:
    shipped = load_manifest("imp")
    manifest = replace(shipped, controls=shipped.controls | {"timbre"})
    kernels: Any = argparse.Namespace(device=torch.device("cpu"), timbre=knows, lanes=False)
    engine = ImpEngine(manifest, ImpWeights(manifest, True), kernels)
    assert ("timbre" in engine.controls) == knows
    assert engine.notes == ([] if knows else ["the weights of imp know no timbre reference"])


def test_lyrics_are_left_out_and_that_is_said_once() -> None:
    engine = opened("imp", "onnx")
    for text in ("la la", "na na"):
        assert asked(engine, lyrics=text) is asked(engine)
    assert engine.notes == ["imp does not sing: lyrics are left out"]
    engine.close()


def test_labels_leave_the_reference_alone() -> None:
    vocabulary = load_vocabulary(ENGINE / "tags.toml")
    said = condition(vocabulary, {"techno": 1.0}, key="A minor", bpm=128, bars=4)
    assert len(said) == COND
    assert not said[LABELS:].any()
