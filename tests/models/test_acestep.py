"""ACE-Step at toy size: it loads, equals diffusers' own pipeline, and the ring plays it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.controls import NOTES_HINT
from demon_live.core import Request
from demon_live.engine import BatchRow, Ring
from demon_live.errors import EngineError
from demon_live.models.acestep import encode, layout, load
from demon_live.models.acestep.engine import AceEngine
from demon_live.models.engine import open_engine
from demon_live.models.manifest import load_manifest
from demon_live.notes.guide import guide
from demon_live.notes.kits import kit_of
from demon_live.runtime.offline import Offline
from demon_live.session.sampler import phrase
from tests.helpers import acestep_toy as toy

pytest.importorskip("diffusers")
#: Loading diffusers and transformers alone takes a busy machine a minute.
pytestmark = pytest.mark.timeout(900)

#: Fast paths are the same operations in another order: float32's last bits.
TIGHT = 2e-4
FRAMES = 150
CPU = torch.device("cpu")


@dataclasses.dataclass
class Toy:
    """A toy checkpoint: its diffusers modules, its folder, and the engine that we make of it."""

    modules: dict[str, Any]
    folder: Path
    engine: AceEngine


def _toy(root: Path, config: layout.AceConfig, **options: Any) -> Toy:
    folder = root / "toy"
    modules = toy.save_original(folder, config, **options)
    engine = open_engine(toy.manifest_of(folder), backend="eager", device="cpu", threads=1)
    assert isinstance(engine, AceEngine)
    return Toy(modules, folder, engine)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return _toy(tmp_path_factory.mktemp("ace"), toy.TOY)


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return _toy(tmp_path_factory.mktemp("xl"), toy.TOY_XL, shards=3)


def noise(frames: int = FRAMES, seed: int = 1) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((frames, 64), dtype=np.float32)
    return made


def condition(engine: AceEngine, prompt: str = "acid techno", **more: Any) -> Any:
    given = {"bpm": 120.0, "cycles": 3, "beats": 4, "frames": FRAMES, **more}
    return engine.condition(prompt, **given)


def row(
    engine: AceEngine, said: Any, source: Any = None, frames: int = FRAMES, **lanes: Any
) -> BatchRow:
    request = Request(frames=frames, channels=64, source=source, condition=said)
    return BatchRow(request, said, 0, 8, 1.0, "main", 0, "positive", lanes)


def schedule(steps: int = 8, shift: float = 3.0) -> list[float]:
    u = [1 - i / steps for i in range(steps + 1)]
    return [shift * v / (1 + (shift - 1) * v) for v in u]


def sample(engine: AceEngine, rows: list[BatchRow], start: np.ndarray) -> np.ndarray:
    """Euler through the turbo schedule, as the pipeline does it; every row from the same noise."""
    x = torch.from_numpy(np.stack([start] * len(rows)))
    times = schedule()
    for t, after in itertools.pairwise(times):
        v = engine.velocity(x, torch.full((len(rows),), t), rows)
        x = x + (after - t) * v
    return x.numpy()


def piped(made: Toy, start: np.ndarray, **options: Any) -> np.ndarray:
    pipeline = toy.pipeline_of(made.modules, made.folder)
    latents = pipeline(
        latents=torch.from_numpy(start)[None],
        audio_duration=len(start) / 25,
        output_type="latent",
        guidance_scale=1.0,
        shift=3.0,
        num_inference_steps=8,
        lyrics="[Instrumental]",
        vocal_language="unknown",
        return_dict=False,
        **options,
    )[0]
    found: np.ndarray = latents[0].numpy()
    return found


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [toy.TOY, toy.TOY_XL], ids=["2b", "xl"])
def test_original_layout_loads_every_tensor_bit_for_bit(config: Any, tmp_path: Path) -> None:
    modules = toy.save_original(tmp_path / "t", config, shards=3)
    found = layout.find_checkpoint(load_manifest(toy.manifest_of(tmp_path / "t")))
    assert found.layout == "original"
    made = load.load(found, CPU, torch.float32)
    assert dataclasses.replace(made.config, layer_types=()) == config
    for part, module in zip(
        layout.PARTS, (made.dit, made.encoder, made.tokenizer, made.detokenizer), strict=True
    ):
        for key, value in modules[part].state_dict().items():
            if key != "silence_latent":
                assert torch.equal(module.state_dict()[key], value), key
    assert torch.equal(made.silence, modules["condition_encoder"].silence_latent)


def test_diffusers_layout_is_the_same_engine(small: Toy, tmp_path: Path) -> None:
    toy.save_diffusers(tmp_path / "d")
    manifest = toy.manifest_of(tmp_path / "d", "toy-diffusers")
    other = open_engine(manifest, backend="eager", device="cpu", threads=1)
    x, t = torch.from_numpy(noise())[None], torch.tensor([0.7])
    a = small.engine.velocity(x, t, [row(small.engine, condition(small.engine))])
    b = other.velocity(x, t, [row(other, condition(other))])  # type: ignore[arg-type]
    assert torch.equal(a, b)
    other.close()


def test_files_are_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    toy.save_original(folder)
    model = folder / "acestep-v15-turbo/model.safetensors"
    whole = model.read_bytes()

    def refusal(path: Path | None = None) -> EngineError:
        manifest = path or toy.manifest_of(folder)
        with pytest.raises(EngineError) as caught:
            open_engine(manifest, backend="eager", device="cpu")
        return caught.value

    manifest = toy.manifest_of(folder)
    model.write_bytes(whole[: len(whole) // 2])
    error = refusal(manifest)
    assert "truncated" in error.message
    assert "demon engines fetch" in (error.hint or "")
    assert "truncated" in refusal().message  # the sizes agree, the header does not

    model.write_bytes(whole)
    manifest = toy.manifest_of(folder)
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    error = refusal(manifest)
    assert "has not the hash that toy-ace lists" in error.message
    assert "demon engines fetch toy-ace" in (error.hint or "")

    model.write_bytes(b"PK\x03\x04" + bytes(100))
    assert "pickle" in refusal().message

    for header in (b"[]", b'{"a": 1}', b'{"a": {}}', b'{"a": {"data_offsets": [0]}}', b"[" * 9999):
        model.write_bytes(struct.pack("<Q", len(header)) + header)
        error = refusal()
        assert "its header is damaged" in error.message
        assert str(model) in error.message

    from safetensors.torch import save_file

    save_file({"decoder.layers.0.strange": torch.zeros(1)}, str(model))
    assert "not ACE-Step's" in refusal().message
    save_file({"null_condition_emb": torch.zeros(1, 1, 32)}, str(model))
    assert "the model needs [1, 1, 64]" in refusal().message
    save_file({"null_condition_emb": torch.zeros(1, 1, 64)}, str(model))
    assert "lacks" in refusal().message

    model.write_bytes(whole)
    config = folder / "acestep-v15-turbo/config.json"
    config.write_text(config.read_text().replace('"acestep"', '"llama"'))
    assert "type 'llama'" in refusal().message


def test_missing_files_say_what_fetching_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEMON_CACHE", str(tmp_path))
    with pytest.raises(EngineError, match=r"not fetched: 8 files, 6\.3 GB, MIT") as caught:
        open_engine("ace-step-v15-turbo", device="cpu")
    assert "demon engines fetch ace-step-v15-turbo" in (caught.value.hint or "")
    assert "demon live --engine imp" in (caught.value.hint or "")
    if not torch.cuda.is_available():
        # Before gigabytes are fetched for a machine that cannot play them.
        with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
            open_engine("ace-step-v15-turbo")


def test_a_backend_that_fails_in_any_way_is_stepped_down_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demon_live.models.acestep import eager, open

    def broken(*_: Any, **named: Any) -> None:
        raise RuntimeError("Triton Error [CUDA]: device kernel image is invalid\nmore")

    toy.save_original(tmp_path / "toy", toy.TOY)
    path = toy.manifest_of(tmp_path / "toy")
    monkeypatch.setattr(open, "_order", lambda *_: ["graphs", "eager"])
    monkeypatch.setattr("demon_live.models.acestep.graphs.AceGraphs", broken)
    told: list[str] = []
    made = open_engine(path, device="cpu", threads=1, progress=told.append)
    assert isinstance(made, AceEngine)
    assert isinstance(made.kernels, eager.AceEager)
    assert any("without backend graphs: RuntimeError: Triton Error" in n for n in made.notes)
    assert [word.split()[0] for word in told][-2:] == ["preparing", "preparing"]
    made.close()
    monkeypatch.setattr(open, "_order", lambda *_: ["graphs"])
    with pytest.raises(EngineError, match="RuntimeError: Triton Error"):
        open_engine(path, device="cpu", threads=1)


def test_kernels_that_do_not_compile_are_replaced_by_torchs_own(
    small: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is said to be CUDA's; what is computed stays on the CPU."""
    import subprocess
    import sys
    from types import ModuleType, SimpleNamespace

    from demon_live.models.acestep import graphs
    from demon_live.models.acestep.fused import Plain

    class Ops(Plain):
        flash, own_attention, why_not, quant = True, True, "", False
        fails = False

        def __init__(self, config: Any, device: Any) -> None:
            super().__init__(config)

        def norm(self, *given: Any) -> Any:
            if self.fails:
                raise subprocess.CalledProcessError(1, ["gcc"])
            return super().norm(*given)

    class Fp8Ops(Ops):
        fails = True

    found = ModuleType("triton_ops")
    found.TritonOps, found.Fp8Ops, found.fused_snake = Ops, Fp8Ops, "snake"  # type: ignore[attr-defined]
    monkeypatch.setattr("demon_live.models.acestep.triton_ops", found, raising=False)
    monkeypatch.setitem(sys.modules, "demon_live.models.acestep.triton_ops", found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(graphs, "why_no_compiler", lambda: None)
    tried = graphs._try_out
    on_cpu = dataclasses.replace(small.engine.modules, device=CPU)
    monkeypatch.setattr(graphs, "_try_out", lambda ops, modules: tried(ops, on_cpu))
    modules: Any = SimpleNamespace(
        config=small.engine.modules.config, device=SimpleNamespace(type="cuda"), dtype=torch.float32
    )
    ops, act, what = graphs.operations(modules, True)
    assert (type(ops), act) == (Ops, "snake")
    assert "instead of fp8: CalledProcessError" in what
    monkeypatch.setattr(Ops, "fails", True)
    ops, act, what = graphs.operations(modules, False)
    assert (type(ops), act) == (Plain, graphs.snake)
    assert "without Triton: CalledProcessError: Command '['gcc']'" in what


# -- oracles -------------------------------------------------------------------------------------


def test_text2music_equals_diffusers_pipeline(small: Toy) -> None:
    start = noise()
    ours = sample(small.engine, [row(small.engine, condition(small.engine, key="A minor"))], start)
    theirs = piped(
        small, start, prompt="acid techno", bpm=120, keyscale="A minor", timesignature="4"
    )
    assert np.abs(theirs).max() > 0.5
    assert np.abs(ours[0] - theirs).max() < TIGHT


def test_cover_equals_diffusers_pipeline(small: Toy) -> None:
    rng = np.random.default_rng(3)
    audio = 0.3 * rng.standard_normal((FRAMES * 1920, 2), dtype=np.float32)
    start = noise()
    # The pipeline draws its source latents; give both the same ones.
    source = noise(seed=5)
    pipeline = toy.pipeline_of(small.modules, small.folder)

    class Fixed:
        def encode(self, wave: Any) -> Any:
            held = type("D", (), {"sample": lambda self: torch.from_numpy(source.T)[None]})()
            return type("P", (), {"latent_dist": held})()

        dtype = torch.float32

    pipeline.vae = Fixed()
    theirs = pipeline(
        prompt="acid techno",
        task_type="cover",
        audio_duration=FRAMES / 25,
        src_audio=torch.from_numpy(audio.T),
        latents=torch.from_numpy(start)[None],
        lyrics="[Instrumental]",
        vocal_language="unknown",
        bpm=120,
        timesignature="4",
        guidance_scale=1.0,
        output_type="latent",
        return_dict=False,
    )[0][0].numpy()
    said = condition(small.engine)
    hint = np.ones(FRAMES, np.float32)
    ours = sample(small.engine, [row(small.engine, said, source, hint=hint)], start)[0]
    assert np.abs(ours - theirs).max() < TIGHT
    without = sample(small.engine, [row(small.engine, said, source)], start)[0]
    assert np.abs(without - theirs).max() > 0.1


def test_a_batch_of_different_conditions_equals_its_rows_one_by_one(small: Toy) -> None:
    """Batching pads the shorter condition; behind the mask that changes nothing."""
    engine = small.engine
    rows = [row(engine, condition(engine, p)) for p in ("dub", "a much longer prompt " * 5)]
    start = noise()
    both = sample(engine, rows, start)
    for one, alone in zip(both, rows, strict=True):
        assert np.abs(one - sample(engine, [alone], start)[0]).max() < TIGHT


def test_prompt_mix_blends_frame_by_frame(small: Toy) -> None:
    engine = small.engine
    said = condition(engine, "dub", prompt2="trance")
    x, t = torch.from_numpy(noise())[None], torch.tensor([0.8])

    def v(prompt: Any, **lanes: Any) -> Any:
        return engine.velocity(x, t, [row(engine, prompt, **lanes)])

    assert torch.equal(v(said, prompt_mix=np.zeros(FRAMES, np.float32)), v(said))
    one = v(said, prompt_mix=np.ones(FRAMES, np.float32))
    assert (one - v(condition(engine, "trance"))).abs().max() < 1e-5
    half = np.zeros(FRAMES, np.float32)
    half[FRAMES // 2 :] = 1
    curve = v(said, prompt_mix=half)
    assert (curve - v(said)).abs().max() > 1e-3
    assert (curve - one).abs().max() > 1e-3


def test_lyrics_and_timbre_reach_the_condition(small: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = small.engine
    x, t = torch.from_numpy(noise())[None], torch.tensor([0.8])
    plain = engine.velocity(x, t, [row(engine, condition(engine))])
    sung = engine.velocity(x, t, [row(engine, condition(engine, lyrics="[verse] la la"))])
    assert (plain - sung).abs().max() > 1e-3
    # Encoding thirty seconds would take a CPU half a minute: what reaches the VAE is looked at.
    heard: list[int] = []

    def encoded(modules: Any, audio: np.ndarray, *, cyclic: bool) -> np.ndarray:
        heard.append(len(audio))
        return noise(750, seed=9)

    monkeypatch.setattr(encode, "encode_audio", encoded)
    engine.set_timbre("bell", np.ones((48000, 2), np.float32))
    assert heard == [30 * 48000]
    coloured = engine.velocity(x, t, [row(engine, condition(engine, timbre="bell"))])
    assert (plain - coloured).abs().max() > 1e-3


# -- playing -------------------------------------------------------------------------------------


def test_the_ring_plays_it(small: Toy) -> None:
    engine = small.engine
    ring = Ring(engine, steps=4, depth=2, shift=engine.shift)
    said = condition(engine)
    for seed in range(3):
        ring.submit(Request(frames=FRAMES, channels=64, seed=seed, condition=said))
        for _ in range(2):
            ring.tick()
    done = ring.flush()
    assert all(np.isfinite(g.latent).all() for g in done)
    audio = engine.decode(done[-1].latent[None, : 25 + 18])
    assert audio.shape == (1, 43 * 1920, 2)
    assert np.isfinite(audio).all()


def test_out_of_memory_is_told_and_the_ring_goes_on(
    small: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick that does not fit costs no generation, and is known for what it is to shedding."""
    from demon_live.runtime.load_shedding import _out_of_memory

    engine = small.engine
    ring = Ring(engine, steps=4, depth=2)
    like = Request(frames=FRAMES, channels=64, condition=condition(engine))
    ring.submit(like)
    ring.tick()

    def full(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine.kernels, "flow", full)
        with pytest.raises(EngineError) as told:
            ring.tick()
    assert _out_of_memory(told.value)
    assert told.value.hint
    assert [slot.step for slot in ring.slots()] == [1]
    assert len(ring.flush()) == 1


def test_a_prompt_that_is_being_read_leaves_the_old_one_playing(
    small: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    engine, gate = small.engine, threading.Event()
    old = condition(engine, "the old one")
    x, t = torch.from_numpy(noise())[None], torch.tensor([0.8])
    before = engine.velocity(x, t, [row(engine, old)])
    states = engine._encoder.states

    def slow(*arguments: Any) -> Any:
        gate.wait(30)
        return states(*arguments)

    monkeypatch.setattr(engine._encoder, "states", slow)
    monkeypatch.setattr(engine, "patient", False)
    new = condition(engine, "a new one")
    assert torch.equal(engine.velocity(x, t, [row(engine, new)]), before)
    gate.set()
    engine._worker.submit(lambda: None).result(30)
    assert (engine.velocity(x, t, [row(engine, new)]) - before).abs().max() > 1e-3
    assert condition(engine, "a new one") is new


def test_windows_decode_as_the_whole(small: Toy) -> None:
    """Oobleck's decoder reaches nine latent frames to either side, whatever its width."""
    latent = noise(80)[None]
    whole = small.engine.decode(latent)
    window = small.engine.decode(np.ascontiguousarray(latent[:, 20:63]))
    inner = window[:, 9 * 1920 : -9 * 1920]
    assert np.abs(inner - whole[:, 29 * 1920 : 54 * 1920]).max() < 1e-5 * np.abs(whole).max()


def test_loras_of_the_folder_are_controls_of_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    loras, g = tmp_path / "state/loras", torch.Generator().manual_seed(0)
    for name, width in (("warm", 64), ("other_size", 80)):
        (loras / name).mkdir(parents=True)
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
        (loras / name / "adapter_config.json").write_text(json.dumps(config))
        key = "base_model.model.layers.1.cross_attn.v_proj.lora_"
        a, b = torch.randn(4, width, generator=g), torch.randn(32, 4, generator=g)
        tensors = {f"{key}A.weight": a, f"{key}B.weight": b}
        save_file(tensors, str(loras / name / "adapter_model.safetensors"))
    toy.save_original(tmp_path / "t")
    for backend in ("eager", "graphs"):
        path = toy.manifest_of(tmp_path / "t")
        engine = open_engine(path, backend=backend, device="cpu", threads=1)
        assert isinstance(engine, AceEngine)
        assert engine.weights.names == ("warm",)
        assert any("other_size" in note and "is (32, 64)" in note for note in engine.notes)
        made = []
        for strength in (0.0, 1.0, 0.0):
            ring = Ring(engine, steps=2, depth=1, shift=3.0)
            ring.submit(Request(frames=FRAMES, channels=64, condition=condition(engine)))
            ring.share("lora.warm", strength)
            made.append(ring.flush()[0].latent)
        assert np.array_equal(made[0], made[2])
        assert np.abs(made[1] - made[0]).max() > 1e-3
        engine.close()


def test_random_weights_play_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        toy.MANIFEST.format(name="random", folder="r")
        + '\n[model]\nsize = "2b"\nhidden = 64\nintermediate = 96\nlayers = 2\nheads = 4\n'
        "kv_heads = 2\nhead_dim = 16\nencoder_hidden = 64\nencoder_intermediate = 96\n"
        "encoder_heads = 4\nencoder_kv_heads = 2\n"
    )
    engine = open_engine(path, backend="eager", device="cpu", random_weights=True, threads=1)
    assert isinstance(engine, AceEngine)
    assert "random weights" in engine.describe()
    v = engine.velocity(
        torch.from_numpy(noise())[None], torch.tensor([0.5]), [row(engine, condition(engine))]
    )
    assert torch.isfinite(v).all()
    engine.close()


def test_the_prompt_text_is_the_pipelines() -> None:
    from diffusers import AceStepPipeline

    blank = object.__new__(AceStepPipeline)
    told, sung = blank._format_prompt(
        "dub",
        "la",
        "en",
        audio_duration=47.9,
        bpm=128,
        keyscale="C major",
        timesignature="4",
    )
    assert encode.caption("dub", bpm=128, key="C major", beats=4, seconds=47.9) == told
    assert encode.lyrics("la") == sung
    assert encode.lyrics("[de] la").startswith("# Languages\nde\n\n# Lyric\nla<")
    assert encode.lyrics("[Verse] la").startswith("# Languages\nen\n\n# Lyric\n[Verse] la<")
    assert encode.lyrics("").startswith("# Languages\nunknown\n\n# Lyric\n[Instrumental]<")


def test_encode_is_deterministic_and_cyclic(small: Toy) -> None:
    rng = np.random.default_rng(0)
    loop = 0.3 * rng.standard_normal((12 * 1920, 2), dtype=np.float32)
    a = encode.encode_audio(small.engine.modules, loop)
    assert a.shape == (12, 64)
    assert np.array_equal(a, encode.encode_audio(small.engine.modules, loop))
    turned = encode.encode_audio(small.engine.modules, np.roll(loop, 5 * 1920, axis=0))
    assert np.abs(np.roll(a, 5, axis=0) - turned).max() < 1e-4


def test_the_notes_of_a_score_are_its_source_and_its_plan(small: Toy) -> None:
    """The same as a guide that is encoded by hand."""
    with Offline(small.engine) as instrument:
        instrument.session.apply(
            "tempo 120\nloop 1\nsource notes\nsteps 1\nprompt = 'acid techno'\nkick = \"1*4\""
        )
        instrument.turn()
        deck = instrument.session.state.decks["main"]
        loop, notes = deck.loop, phrase(deck.lanes, Fraction(0), 1)
        _, made = instrument.generations()
        requests = [g.request for g in made] or instrument.output.generator.ring.requests("main")
    assert loop is not None
    sound = guide(notes, 1, loop.samples, 4, kit_of("acid techno"))
    whole = sound[np.arange(loop.frames * 1920) % len(sound)]
    np.testing.assert_array_equal(requests[0].source, small.engine.encode(whole)[: loop.frames])
    assert requests[0].curves is not None
    assert requests[0].curves["hint"] == pytest.approx(NOTES_HINT)


def test_a_sum_of_prompts_is_the_mean_of_their_velocities(small: Toy) -> None:
    words = [condition(small.engine, text) for text in ("acid techno", "choir, slow")]
    share = np.linspace(0, 1, FRAMES, dtype=np.float32)

    def made(first: Any, *more: Any) -> np.ndarray:
        # One step from the noise: the latent moves in a straight line with the velocity.
        ring = Ring(small.engine, steps=1, depth=1, shift=1.0)
        ring.submit(
            Request(frames=FRAMES, channels=64, condition=first, conditions=list(more), seed=3)
        )
        (generation,) = ring.tick()
        return np.asarray(generation.latent)

    both = made(words[0], (words[1], share, 0.0, 1.0))
    one, other = map(made, words)
    by_hand = (one + share[:, None] * other) / (1 + share[:, None])
    assert np.abs(both - by_hand).max() < TIGHT
    assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("cyclic", [True, False])
def test_a_source_is_encoded_in_tiles_and_equals_the_whole(
    small: Toy, monkeypatch: pytest.MonkeyPatch, cyclic: bool
) -> None:
    sound = np.random.default_rng(3).standard_normal((70 * 1920, 2)).astype(np.float32) * 0.1
    whole = encode.encode_audio(small.engine.modules, sound, cyclic=cyclic)
    vae, seen = small.engine.modules.vae, []
    encoded = vae.encode
    monkeypatch.setattr(vae, "encode", lambda x: seen.append(x.shape[-1] // 1920) or encoded(x))
    monkeypatch.setattr(encode, "_TILE", 16)
    tiled = encode.encode_audio(small.engine.modules, sound, cyclic=cyclic)
    assert tiled.shape == whole.shape == (70, 64)
    assert float(np.abs(tiled - whole).max()) < 1e-4 * float(np.abs(whole).max())
    assert len(seen) == 5
    assert max(seen) <= 16 + 2 * encode._CONTEXT


def test_a_loop_shorter_than_the_model_knows_is_repeated_and_its_text_says_so(
    small: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = load_manifest("ace-step-v15-turbo")
    assert (listed.model["shortest"], listed.model["dcw"]) == (250, "double")
    engine, told, seen = small.engine, list[str](), list[int]()
    monkeypatch.setattr(engine, "shortest", 250)
    flow, states = engine.kernels.flow, engine._encoder.states

    def watched(x: Any, t: Any, batch: Any) -> Any:
        seen.append(x.shape[1])
        return flow(x, t, batch)

    def read(caption: str, *rest: Any) -> Any:
        told.append(caption)
        return states(caption, *rest)

    monkeypatch.setattr(engine.kernels, "flow", watched)
    monkeypatch.setattr(engine._encoder, "states", read)
    for frames, times in ((100, 3), (188, 2), (250, 1)):
        said = condition(engine, f"short {frames}", frames=frames)
        x = torch.from_numpy(noise(frames))[None]
        v = engine.velocity(x, torch.ones(1), [row(engine, said, frames=frames)])
        assert v.shape[1] == frames
        assert seen[-1] == frames * times
        assert f"- duration: {frames * times // 25} seconds" in told[-1]


def test_the_manifest_asks_for_the_wavelet_correction(small: Toy) -> None:
    from demon_live.runtime.offline import Offline

    small.engine.dcw = "double"
    small.engine.patient = False
    try:
        with Offline(small.engine) as instrument:
            assert instrument.output.generator.ring._dcw is not None
            assert small.engine.patient
        small.engine.dcw = ""
        with Offline(small.engine) as instrument:
            assert instrument.output.generator.ring._dcw is None
    finally:
        small.engine.dcw = ""
