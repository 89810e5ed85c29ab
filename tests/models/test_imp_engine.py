"""imp on its backends: parity, rows that never mix, exact windows, honest choices."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.core import Floats, Request
from demon_live.engine import Ring
from demon_live.errors import EngineError, ScoreError
from demon_live.models.engine import Engine, open_engine
from demon_live.models.imp import engine as imp_backend
from demon_live.models.manifest import load_manifest
from demon_live.notes.lanes import LANES

FRAMES = 48


@dataclass
class Row:
    request: Request
    condition: Any
    shared: Mapping[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def onnx() -> Iterator[Engine]:
    engine = open_engine("imp", backend="onnx")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def eager() -> Iterator[Engine]:
    engine = open_engine("imp", backend="eager", device="cpu", threads=1)
    yield engine
    engine.close()


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def asked(engine: Engine, prompt: str = "acid techno, 303", prompt2: str = "") -> Any:
    return engine.condition(
        prompt, prompt2=prompt2, key="A minor", bpm=125.0, cycles=1, beats=4, frames=FRAMES
    )


def batch(engine: Engine, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor, list[Row]]:
    """Rows that differ in all that a row can differ in."""
    source = noise(FRAMES, engine.channels, seed=7)
    lane = np.linspace(0, 1, FRAMES, dtype=np.float32)
    request = Request(FRAMES, engine.channels, source=source)
    kinds = [
        Row(request, asked(engine)),
        Row(request, asked(engine, "dub", "ambient"), {"prompt_mix": lane, "hint": 0.5}),
        Row(Request(FRAMES, engine.channels), asked(engine).silent(), {"hint": lane}),
        Row(request, asked(engine, "jungle in C major"), {"hint": lane}),
    ]
    x = torch.from_numpy(noise(rows, FRAMES, engine.channels))
    return x, torch.linspace(1.0, 0.05, rows), (kinds * rows)[:rows]


def test_importing_backends_and_models_loads_nothing_heavy() -> None:
    code = (
        "import sys, demon_live.models.engine, demon_live.models.listing as l; l.list_text();"
        "import demon_live.models.conditioning as c; c.check_prompt('acid', c.lexicon_of('imp'));"
        "sys.exit(any(m in sys.modules for m in ('torch', 'onnxruntime', 'sounddevice')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_velocity_agrees_with_the_oracle(onnx: Engine, eager: Engine) -> None:
    x, t, rows = batch(onnx)
    ours, oracle = onnx.velocity(x, t, rows), eager.velocity(x, t, rows)
    assert ours.shape == x.shape
    assert float(oracle.abs().max()) > 1e-3
    assert float((ours - oracle).abs().max()) < 1e-4


def test_decode_agrees_with_the_oracle(onnx: Engine, eager: Engine) -> None:
    latent = noise(2, 20, onnx.channels)
    ours, oracle = onnx.decode(latent), eager.decode(latent)
    assert ours.shape == (2, 20 * 1920, 2)
    assert ours.dtype == np.float32
    assert np.abs(oracle).max() > 1e-3
    assert np.abs(ours - oracle).max() < 1e-4


def test_a_batch_of_rows_is_the_rows_bit_for_bit(onnx: Engine) -> None:
    x, t, rows = batch(onnx)
    together = onnx.velocity(x, t, rows)
    alone = [onnx.velocity(x[i : i + 1], t[i : i + 1], rows[i : i + 1]) for i in range(4)]
    assert torch.equal(torch.cat(alone), together)
    latent = noise(4, 20, onnx.channels)
    windows = np.concatenate([onnx.decode(latent[i : i + 1]) for i in range(4)])
    np.testing.assert_array_equal(windows, onnx.decode(latent))


def test_threads_do_not_change_the_bits(onnx: Engine) -> None:
    x, t, rows = batch(onnx)
    single = open_engine("imp", backend="onnx", threads=1)
    assert torch.equal(single.velocity(x, t, rows), onnx.velocity(x, t, rows))
    assert "1 thread" in single.describe()
    single.close()


def test_streaming_is_one_at_a_time(onnx: Engine) -> None:
    def requests() -> list[Request]:
        return [
            Request(FRAMES, onnx.channels, seed=s, condition=asked(onnx, p), denoise=d)
            for s, (p, d) in enumerate([("techno", 1.0), ("dub", 1.0), ("jungle", 1.0)])
        ]

    def play(depth: int) -> list[Floats]:
        found: dict[int, Floats] = {}
        ring = Ring(onnx, steps=4, depth=depth, shift=3.0)
        for request in requests():
            ring.submit(request)
            for _ in range(4):
                found |= {g.request.seed: g.latent for g in ring.tick()}
        for _ in range(12):
            found |= {g.request.seed: g.latent for g in ring.tick()}
        return [found[seed] for seed in range(3)]

    for one, many in zip(play(1), play(4), strict=True):
        np.testing.assert_array_equal(one, many)


def test_a_window_with_its_margin_is_exact(onnx: Engine) -> None:
    m, latent = onnx.margin, noise(1, 60, onnx.channels)
    whole = onnx.decode(latent)
    window = onnx.decode(latent[:, 20 - m : 30 + m])
    inner, ours = whole[:, 20 * 1920 : 30 * 1920], window[:, m * 1920 : -m * 1920]
    np.testing.assert_allclose(ours, inner, atol=1e-5)


def test_the_margin_is_the_reach_of_the_decoder(eager: Engine) -> None:
    m, latent = eager.margin, noise(1, 40, eager.channels)
    other = latent.copy()
    other[:, 20] += 1.0
    touched = np.abs(eager.decode(other) - eager.decode(latent)).max(axis=(0, 2)).reshape(40, 1920)
    frames = np.flatnonzero(touched.max(axis=1))
    assert frames.min() >= 20 - m
    assert frames.max() <= 20 + m


def test_encoding_is_circular_and_deterministic(onnx: Engine) -> None:
    t = np.arange(40 * 1920) / 48000
    mono = np.sin(2 * np.pi * 220 * t) * (np.sin(2 * np.pi * 2.5 * t) > 0)
    audio = np.stack([mono, mono * 0.5], axis=1).astype(np.float32)
    latent = onnx.encode(audio)
    assert latent.shape == (40, onnx.channels)
    np.testing.assert_array_equal(latent, onnx.encode(audio))
    rolled = onnx.encode(np.roll(audio, 10 * 1920, axis=0))
    np.testing.assert_allclose(np.roll(latent, 10, axis=0), rolled, atol=1e-3)
    assert len(onnx.encode(audio[: 38 * 1920 + 1])) == 40
    with pytest.raises(EngineError, match=r"float32 \[n, 2\]"):
        onnx.encode(audio[:, 0])


def test_conditions_are_the_same_object_for_the_same_words(onnx: Engine) -> None:
    assert asked(onnx) is asked(onnx)
    assert asked(onnx) is not asked(onnx, "dub")
    with pytest.raises(ScoreError, match="not a key"):
        onnx.condition("dub", key="H minor", bpm=120.0, cycles=1, beats=4, frames=FRAMES)


def test_words_hint_and_mix_reach_the_model(onnx: Engine) -> None:
    x, t, _ = batch(onnx, 1)
    request = Request(FRAMES, onnx.channels, source=noise(FRAMES, onnx.channels, seed=7))
    words = asked(onnx, "techno", "ambient, soft pad")

    def heard(condition: Any, **shared: Any) -> torch.Tensor:
        return onnx.velocity(x, t, [Row(request, condition, shared)])

    plain = heard(words)
    assert torch.equal(plain, heard(words, hint=0.0, prompt_mix=0.0))
    assert torch.equal(heard(words, prompt_mix=1.0), heard(asked(onnx, "ambient, soft pad")))
    for other in (heard(words, hint=1.0), heard(words, prompt_mix=0.5), heard(words.silent())):
        assert not torch.equal(plain, other)


def test_weights_that_can_be_told_notes_are_told_them(onnx: Engine) -> None:
    seen: list[Floats] = []

    class Told:
        lanes = True

        def prepare(self, hint: Floats, phase: Floats, cond: Floats, lanes: Floats) -> None:
            seen.append(lanes)

    lanes = np.random.default_rng(1).random((FRAMES, LANES), dtype=np.float32)
    request, words = Request(FRAMES, onnx.channels, lanes=lanes), asked(onnx)
    rows = [
        Row(request, words),
        Row(request, words.silent()),
        Row(request, None),
        Row(Request(FRAMES, onnx.channels), words),
    ]
    imp_backend._ImpStacker(Told(), onnx.channels).of(rows, FRAMES)  # type: ignore[arg-type]
    np.testing.assert_array_equal(seen[0][0], lanes)
    # Guidance is between words; without a condition nothing is told.
    np.testing.assert_array_equal(seen[0][1], lanes)
    assert not seen[0][2:].any()


def test_a_hint_shows_the_source_with_its_strength(onnx: Engine) -> None:
    seen: list[Floats] = []

    class Spy:
        lanes = False

        def prepare(self, hint: Floats, phase: Floats, cond: Floats, lanes: None) -> None:
            seen.append(hint)

    source = noise(FRAMES, 64)
    lane = np.zeros(FRAMES, np.float32)
    lane[10:20], lane[20:24] = 0.5, 0.05
    stacker = imp_backend._ImpStacker(Spy(), 64)  # type: ignore[arg-type]
    row = Row(Request(FRAMES, 64, source=source), asked(onnx), {"hint": lane})
    stacker.of([row], FRAMES)
    np.testing.assert_array_equal(seen[0][0, 10:20, :64], source[10:20])
    np.testing.assert_allclose(seen[0][0, 20:24, :64], source[20:24] / 4, rtol=1e-6)
    np.testing.assert_array_equal(seen[0][0, :, 64], lane)
    assert not seen[0][0, :10].any()
    # The same rows again are not stacked again; another curve is.
    stacker.of([Row(row.request, row.condition, {"hint": lane})], FRAMES)
    assert len(seen) == 1
    stacker.of([Row(row.request, row.condition, {"hint": lane.copy()})], FRAMES)
    assert len(seen) == 2


def test_a_row_without_condition_keeps_the_place_in_time(onnx: Engine) -> None:
    x, t, rows = batch(onnx, 2)
    spoken = rows[0]
    pair = [spoken, Row(spoken.request, None)]
    named = [spoken, Row(spoken.request, onnx.unconditioned(spoken.condition))]
    assert torch.equal(onnx.velocity(x, t, pair), onnx.velocity(x, t, named))
    assert torch.isfinite(
        onnx.velocity(x, t, [Row(Request(FRAMES, onnx.channels), None)] * 2)
    ).all()


def test_a_condition_of_another_length_is_refused(onnx: Engine) -> None:
    x = torch.zeros(1, FRAMES + 2, onnx.channels)
    with pytest.raises(EngineError, match="48 frames met a latent of 50"):
        onnx.velocity(x, torch.ones(1), [Row(Request(FRAMES + 2, onnx.channels), asked(onnx))])


def test_auto_takes_the_first_backend_and_has_nothing_to_say(onnx: Engine) -> None:
    assert onnx.describe() == f"imp (cpu, onnxruntime fp32, {threads_here()})"
    assert onnx.notes == []
    assert onnx.check_prompt("tecno")[1] == "'tecno' was taken for 'techno'"


def threads_here() -> str:
    from demon_live.models.engine import default_threads

    n = default_threads()
    return f"{n} thread{'s' if n > 1 else ''}"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A stranger's imp without weights: the manifest, the lexicon and the graphs."""
    shipped = load_manifest("imp")
    shutil.copy(shipped.path, tmp_path / "imp.toml")
    (tmp_path / "imp").mkdir()
    for name in ("tags.toml", "flow.onnx", "decoder.onnx"):
        shutil.copy(shipped.folder / name, tmp_path / "imp" / name)
    return tmp_path / "imp.toml"


def test_random_weights_need_no_files_and_agree(copy: Path) -> None:
    ours = open_engine(copy, backend="onnx", random_weights=True)
    oracle = open_engine(copy, backend="eager", device="cpu", threads=1, random_weights=True)
    x, t, rows = batch(ours)
    assert float((ours.velocity(x, t, rows) - oracle.velocity(x, t, rows)).abs().max()) < 1e-3
    assert "random weights" in ours.describe()
    before = torch.random.get_rng_state()
    open_engine(copy, backend="eager", device="cpu", threads=1, random_weights=True)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_step_down_is_said(copy: Path, how: str) -> None:
    graph = copy.parent / "imp" / "flow.onnx"
    graph.unlink() if how == "missing" else graph.write_bytes(b"not a graph")
    engine = open_engine(copy, device="cpu", threads=1, random_weights=True)
    assert "torch" in engine.describe()
    assert len(engine.notes) == 1
    assert "runs without backend onnx" in engine.notes[0]
    assert "flow.onnx" in engine.notes[0]
    with pytest.raises(EngineError, match=r"flow\.onnx") as caught:
        open_engine(copy, backend="onnx", random_weights=True)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_manifest_may_list_what_imp_cannot_do(copy: Path) -> None:
    text = copy.read_text()
    copy.write_text(text.replace('["onnx", "eager"]', '["tensorrt", "eager"]'))
    engine = open_engine(copy, device="cpu", threads=1, random_weights=True)
    assert engine.notes == [
        "imp runs without backend tensorrt: imp has no backend tensorrt on device cpu"
    ]
    copy.write_text(text.replace('["onnx", "eager"]', "[]"))
    with pytest.raises(EngineError, match="lists no backend"):
        open_engine(copy)


def test_a_gpu_is_mentioned_and_used_only_when_asked_for(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    engine = open_engine(copy, backend="onnx", random_weights=True)
    assert engine.device.type == "cpu"
    assert "--device cuda" in engine.notes[0]
    with pytest.raises(EngineError, match="no backend onnx on device cuda"):
        open_engine(copy, backend="onnx", device="cuda", random_weights=True)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"rubbish" * 100])
@pytest.mark.parametrize("backend", ["onnx", "eager", "auto"])
def test_damaged_weights_are_an_engine_error(copy: Path, content: bytes, backend: str) -> None:
    for name in ("flow.safetensors", "codec.safetensors"):
        (copy.parent / "imp" / name).write_bytes(content)
    with pytest.raises(EngineError, match="cannot be used") as caught:
        open_engine(copy, backend=backend, device="cpu")
    assert "demon engines verify" in (caught.value.hint or "")


def test_wrong_wishes_are_refused_with_a_remedy() -> None:
    with pytest.raises(EngineError, match="no backend 'onx'") as caught:
        open_engine("imp", backend="onx")
    assert caught.value.hint == "did you mean onnx?"
    with pytest.raises(EngineError, match="no device 'gpu'"):
        open_engine("imp", device="gpu")
    with pytest.raises(EngineError, match="at least 1"):
        open_engine("imp", threads=0)
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="no CUDA device"):
            open_engine("imp", device="cuda")


def test_warm_up_leaves_no_trace(onnx: Engine) -> None:
    latent = np.random.default_rng(3).standard_normal((1, 24, onnx.channels)).astype(np.float32)
    before = onnx.decode(latent)
    onnx.warm_up(FRAMES, 2)
    assert np.array_equal(onnx.decode(latent), before)
