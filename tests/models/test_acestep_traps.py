"""The twenty traps of ACE-Step 1.5, each as a fact that must hold."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.controls import CONTROLS
from demon_live.core import Request
from demon_live.engine import BatchRow, timesteps
from demon_live.errors import EngineError
from demon_live.models.acestep import encode, forward, layout, load
from demon_live.models.acestep import engine as ace
from demon_live.models.acestep import open as ace_open
from demon_live.models.engine import open_engine
from demon_live.models.lora import LoraBank, read_adapter
from demon_live.models.manifest import load_manifest
from tests.helpers import acestep_toy as toy

pytest.importorskip("diffusers")
#: Loading diffusers and transformers alone takes a busy machine a minute.
pytestmark = pytest.mark.timeout(900)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = {}
    for name, config in (("2b", toy.TOY), ("xl", toy.TOY_XL)):
        folder = tmp_path_factory.mktemp(name) / "t"
        toy.save_original(folder, config)
        manifest = toy.manifest_of(folder)
        made[name] = open_engine(manifest, backend="eager", device="cpu", threads=1)
    return made


def noise(frames: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((frames, 64), dtype=np.float32)


def said(engine: Any, prompt: str = "dub", frames: int = 150) -> Any:
    return engine.condition(prompt, bpm=120, cycles=3, beats=4, frames=frames)


def v(engine: Any, rows: list[Any], x: Any, t: float = 0.7) -> torch.Tensor:
    batch = torch.from_numpy(np.stack([x] * len(rows)))
    found: torch.Tensor = engine.velocity(batch, torch.full((len(rows),), t), rows)
    return found


def row(condition: Any, frames: int = 150, source: Any = None, **lanes: Any) -> BatchRow:
    request = Request(frames=frames, channels=64, source=source)
    return BatchRow(request, condition, 0, 8, 1.0, "main", 0, "positive", lanes)


def test_trap_01_xl_puts_a_learned_token_before_the_timbre_and_2b_does_not(engines: Any) -> None:
    latents = torch.from_numpy(noise(750))
    for name, engine in engines.items():
        m = engine.modules
        theirs = m.encoder.timbre_encoder(latents[None], torch.zeros(1, dtype=torch.long))[0][0]
        ours = encode.ConditionEncoder(m)._timbre(latents)
        assert torch.allclose(ours, theirs, atol=1e-5) == (name == "2b")
        before = m.encoder.timbre_encoder.special_token.clone()
        m.encoder.timbre_encoder.special_token += 1.0
        moved = not torch.equal(encode.ConditionEncoder(m)._timbre(latents), ours)
        m.encoder.timbre_encoder.special_token.copy_(before)
        assert moved == (name == "xl")


def test_trap_02_xl_is_fp32_in_shards_and_is_cast_as_it_is_read(tmp_path: Path) -> None:
    toy.save_original(tmp_path / "x", toy.TOY_XL, shards=4)
    found = layout.find_checkpoint(load_manifest(toy.manifest_of(tmp_path / "x")))
    assert len(found.weights("model")) == 4
    made = load.load(found, CPU, torch.bfloat16)
    assert {p.dtype for p in made.dit.parameters()} == {torch.bfloat16}
    lacking = load_manifest(toy.manifest_of(tmp_path / "x"))
    (tmp_path / "x/acestep-v15-turbo/model-00002-of-00004.safetensors").unlink()
    with pytest.raises(EngineError):
        load.load(layout.find_checkpoint(lacking), CPU, torch.bfloat16)


def test_trap_03_xls_attention_is_wider_than_its_residual_stream(engines: Any) -> None:
    attention = engines["xl"].modules.dit.layers[0].self_attn
    assert attention.to_q.weight.shape == (128, 80)
    assert attention.to_out[0].weight.shape == (80, 128)
    assert layout.AceConfig.xl().heads * layout.AceConfig.xl().head_dim == 4096


def test_trap_04_turbo_runs_at_shift_3() -> None:
    for name in ("ace-step-v15-turbo", "ace-step-v15-xl-turbo"):
        assert load_manifest(name).shift == 3.0
    table = [1, 0.9545455, 0.9, 0.8333333, 0.75, 0.6428571, 0.5, 0.3, 0]
    assert np.allclose(timesteps(8, 1.0, 3.0), table, atol=1e-7)


def test_trap_05_nothing_is_silence_as_the_vae_hears_it_never_zeros(engines: Any) -> None:
    engine = engines["2b"]
    quiet = engine.modules.silence
    assert quiet.shape == (1, 15000, 64)
    context = engine._stacker.of([row(said(engine))], 150).context
    assert torch.equal(context[0, :, :64], quiet[0, :150])
    assert engine.encode(np.zeros((20 * 1920, 2), np.float32)).shape == (20, 64)
    assert np.array_equal(engine.encode(np.zeros((20 * 1920, 2), np.float32)), quiet[0, :20])
    speaker = encode.ConditionEncoder(engine.modules)
    assert torch.equal(speaker._silent_timbre(), speaker._timbre(quiet[0, :750]))


def test_trap_06_channels_are_source_mask_noise(engines: Any) -> None:
    engine = engines["2b"]
    source, ones = noise(150, 5), np.ones(150, np.float32)
    context = engine._stacker.of([row(said(engine), source=source, hint=ones)], 150).context[0]
    plan = encode.hints(engine.modules, torch.from_numpy(source))
    assert torch.allclose(context[:, :64], plan, atol=1e-6)
    assert torch.equal(context[:, 64:], torch.ones(150, 64))
    dit = engine.modules.dit
    x, states = torch.from_numpy(noise(150))[None], torch.randn(1, 9, 64)
    t, keep = torch.tensor([0.5]), torch.ones(1, 9, dtype=torch.bool)
    theirs = dit(x, t, t, states, context[None], return_dict=False)[0]
    assert torch.allclose(
        forward.forward(dit, x, t, context[None], states, keep), theirs, atol=1e-5
    )


def test_trap_07_r_equals_t_so_its_branch_is_a_constant(engines: Any) -> None:
    from demon_live.models.acestep import fused

    dit = engines["2b"].modules.dit
    packed = fused.pack(dit, toy.TOY, fused.Plain(toy.TOY))
    for t in (1.0, 0.3):
        constant = dit.time_embed_r(torch.tensor([t]) - torch.tensor([t]))
        assert torch.equal(packed.time_r[0], constant[0])
        assert torch.equal(packed.time_r[1], constant[1])


def test_trap_08_padding_of_conditions_changes_nothing(engines: Any) -> None:
    engine, x = engines["2b"], noise(150)
    short, long = row(said(engine, "a")), row(said(engine, "a long prompt " * 9))
    both = v(engine, [short, long], x)
    assert torch.allclose(both[:1], v(engine, [short], x), atol=1e-4)
    assert torch.allclose(both[1:], v(engine, [long], x), atol=1e-4)
    # The bare module, which attends to the padding, is far off.
    states, _ = encode.padded([r.condition.states(False)[0].kept for r in (short, long)])
    context = engine._stacker.of([short, long], 150).context
    batch, t = torch.from_numpy(np.stack([x, x])), torch.full((2,), 0.7)
    bare = engine.modules.dit(batch, t, t, states, context, return_dict=False)[0]
    assert (bare[:1] - both[:1]).abs().max() > 1e-2


def test_trap_09_fp16_is_never_chosen() -> None:
    config = layout.AceConfig()
    assert ace_open._dtype(CPU, True, config, []) is torch.bfloat16
    assert ace_open._dtype(CPU, False, config, []) is torch.float32
    for module in (load, ace, ace_open, encode, forward):
        code = inspect.getsource(module).replace("_FLOATS = (torch.float32, torch.bfloat16,", "")
        assert code.count("torch.float16") <= 1  # a file may hold it; it is cast as it is read


def test_trap_09_plans_in_fp16_keep_the_residual_stream_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For cards without bf16: large residuals, which would be infinite in fp16, stay finite."""
    from dataclasses import replace

    from demon_live.models.acestep import export, fused

    config = replace(toy.TOY, layers=2)
    packed = fused.pack(toy.make_modules(config)["transformer"], config, fused.Plain(config))
    packed.first = (packed.first[0] * 1e6, packed.first[1])
    given = {
        "x": torch.from_numpy(noise(40))[None],
        "t": torch.tensor([1.0]),
        "context": torch.from_numpy(np.concatenate([noise(40, 2), noise(40, 3)], 1))[None].half(),
        "kept": torch.randn(2, 2, 1, 9, 32).half(),
        "lengths": torch.tensor([9], dtype=torch.int32),
        "kept2": torch.zeros(2, 2, 1, 1, 32).half(),
        "lengths2": torch.tensor([1], dtype=torch.int32),
        "mix": torch.zeros(1, 40),
    }
    assert list(given) == list(export.DIT_NAMES)
    residuals, norm = [], fused._rms

    def watched(x: torch.Tensor, eps: float) -> torch.Tensor:
        residuals.append((x.dtype, float(x.abs().max())))
        return norm(x, eps)

    monkeypatch.setattr(fused, "_rms", watched)
    v = export._Dit(packed, torch.float16, torch.float32)(*given.values())
    assert torch.isfinite(v).all()
    dtype, largest = residuals[0]
    assert dtype is torch.float32
    assert largest > 65504


def test_trap_10_lora_counts_alpha_over_r(engines: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    engine, x = engines["2b"], noise(150)
    upstream = _Upstream(engine.modules.dit)
    wanted = ["q_proj", "k_proj", "v_proj", "o_proj"]
    adapted = get_peft_model(upstream, LoraConfig(r=4, lora_alpha=8, target_modules=wanted))
    g = torch.Generator().manual_seed(3)
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            value.data = 0.2 * torch.randn(value.shape, generator=g)
    adapted.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["lora_alpha"] / config["r"] == 2.0
    targets = dict(engine.kernels.targets())
    adapter = read_adapter(tmp_path, "warm", targets)
    assert len(adapter.factors) == 4 * 8
    bank = LoraBank(targets, engine.refitted)
    bank.add(adapter)
    rows = [row(said(engine))]
    before = v(engine, rows, x)
    name = "layers.2.cross_attn.v_proj"
    merged = adapted.base_model.model.layers[2].cross_attn.v_proj
    expected = merged.base_layer.weight + merged.get_delta_weight("default")
    bank.commit(bank.prepare({"warm": 1.0}))
    assert torch.allclose(targets[name], expected, atol=1e-6)
    assert (v(engine, rows, x) - before).abs().max() > 1e-3
    bank.commit(bank.prepare({"warm": 0.0}))
    assert torch.equal(v(engine, rows, x), before)


class _Upstream(torch.nn.Module):
    """The DiT's projections under upstream's names, for PEFT to find."""

    def __init__(self, dit: Any) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList()
        for layer in dit.layers:
            block = torch.nn.Module()
            for name in ("self_attn", "cross_attn"):
                attention, made = getattr(layer, name), torch.nn.Module()
                for new, old in (("q", "to_q"), ("k", "to_k"), ("v", "to_v")):
                    setattr(made, f"{new}_proj", _copy(getattr(attention, old)))
                made.o_proj = _copy(attention.to_out[0])
                setattr(block, name, made)
            self.layers.append(block)


def _copy(linear: Any) -> torch.nn.Linear:
    made = torch.nn.Linear(linear.in_features, linear.out_features, bias=False)
    made.weight.data = linear.weight.data.clone()
    return made


def test_trap_11_a_source_encodes_the_same_every_time(engines: Any) -> None:
    rng = np.random.default_rng(0)
    audio = 0.1 * rng.standard_normal((4 * 1920, 2), dtype=np.float32)
    first = encode.encode_audio(engines["2b"].modules, audio)
    assert np.array_equal(first, encode.encode_audio(engines["2b"].modules, audio))


def test_trap_12_an_odd_length_pads_one_frame_of_zeros(engines: Any) -> None:
    engine = engines["2b"]
    dit, x = engine.modules.dit, torch.from_numpy(noise(151))[None]
    context, states = torch.randn(1, 151, 128), torch.randn(1, 9, 64)
    t, keep = torch.tensor([0.5]), torch.ones(1, 9, dtype=torch.bool)
    theirs = dit(x, t, t, states, context, return_dict=False)[0]
    ours = forward.forward(dit, x, t, context, states, keep)
    assert ours.shape == (1, 151, 64)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert load_manifest("ace-step-v15-turbo").frames_multiple == 2


def test_trap_13_the_model_never_sees_fewer_than_128_frames(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, seen = engines["2b"], []
    flow = engine.kernels.flow

    def watched(x: Any, t: Any, batch: Any) -> Any:
        seen.append(x.shape[1])
        assert batch.context.shape[1] == x.shape[1]
        return flow(x, t, batch)

    monkeypatch.setattr(engine.kernels, "flow", watched)
    hint = np.ones(50, np.float32)
    made = v(engine, [row(said(engine, frames=50), 50, noise(50, 3), hint=hint)], noise(50))
    assert made.shape == (1, 50, 64)
    assert seen == [150]


def test_trap_14_decoding_normalises_nothing(engines: Any) -> None:
    engine = engines["2b"]
    z = noise(8)[None]
    with torch.no_grad():
        raw = engine.modules.vae.decode(torch.from_numpy(z).transpose(1, 2)).sample
    assert np.array_equal(engine.decode(z), raw.transpose(1, 2).numpy())
    assert np.abs(raw.numpy()).max() != pytest.approx(10 ** (-1 / 20))


def test_trap_15_no_code_of_a_checkpoint_runs(engines: Any) -> None:
    for module in (load, layout, encode, ace_open):
        source = inspect.getsource(module)
        assert "trust_remote_code" not in source
        assert "AutoModel" not in source
    files = [w.file for n in ("", "xl-") for w in load_manifest(f"ace-step-v15-{n}turbo").weights]
    assert not [f for f in files if f.endswith((".py", ".bin", ".ckpt"))]


class _Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code of the checkpoint ran",))


def test_trap_16_the_one_pickle_is_read_as_a_tensor_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "silence_latent.pt"
    torch.save(_Evil(), path)
    with pytest.raises(EngineError, match="no tensor can be read"):
        load._silence(path, 64)
    torch.save(torch.zeros(1, 32, 100), path)
    with pytest.raises(EngineError, match="latents of 64 channels"):
        load._silence(path, 64)
    torch.save(torch.arange(64 * 10.0).view(1, 64, 10), path)
    assert load._silence(path, 64)[0, 1].tolist() == [i * 10.0 + 1 for i in range(64)]


def test_trap_17_the_strength_of_a_cover_is_the_hints_curve_not_a_blend_of_velocities(
    engines: Any,
) -> None:
    engine, x, source = engines["2b"], noise(150), noise(150, 4)
    condition = said(engine)

    def at(strength: float) -> torch.Tensor:
        lane = np.full(150, strength, np.float32)
        return v(engine, [row(condition, source=source, hint=lane)], x)

    assert torch.equal(at(0.0), v(engine, [row(condition, source=source)], x))
    blend = 0.5 * at(1.0) + 0.5 * at(0.0)
    assert (at(0.5) - blend).abs().max() > 1e-3
    assert CONTROLS["hint"].shape == "curve"


def test_trap_18_times_are_rounded_for_the_model_only(engines: Any) -> None:
    """The solver's steps are exact; what a bf16 model is told is t rounded once."""
    times = timesteps(8, 1.0, 3.0)
    assert times.dtype == np.float64
    assert float(torch.tensor(times[1]).to(torch.bfloat16)) == 0.953125
    exact = torch.tensor([0.9545455])
    dit = engines["2b"].modules.dit
    x, context = torch.from_numpy(noise(150))[None], torch.randn(1, 150, 128)
    states, keep = torch.randn(1, 9, 64), torch.ones(1, 9, dtype=torch.bool)
    a = forward.forward(dit, x, exact, context, states, keep)
    b = forward.forward(dit, x, exact.to(torch.bfloat16).float(), context, states, keep)
    assert not torch.equal(a, b)


def test_trap_19_the_wavelet_correction_is_off_unless_asked_for() -> None:
    from demon_live.engine import Ring

    assert inspect.signature(Ring.__init__).parameters["dcw"].default is None


def test_trap_20_the_text_says_whole_seconds_and_the_latent_has_its_own_length(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "- duration: 6 seconds\n" in encode.caption("x", seconds=6.96)
    engine, told = engines["2b"], []
    monkeypatch.setattr(
        engine._encoder, "states", lambda caption, *rest: told.append(caption) or torch.zeros(3, 64)
    )
    said(engine, "something new", frames=174)
    engine._worker.submit(lambda: None).result()
    assert "- duration: 6 seconds" in told[0]
    assert v(engine, [row(said(engine, "something new", frames=174), 174)], noise(174)).shape == (
        1,
        174,
        64,
    )
