"""The ring plays from plans: a stand-in for the library runs them in onnxruntime, by addresses."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from demon_live.core import Request
from demon_live.engine import Ring
from demon_live.errors import EngineError, UsageError
from demon_live.models.acestep import engine as ace
from demon_live.models.acestep import export, fused, layout, load
from demon_live.models.acestep import open as ace_open
from demon_live.models.acestep.eager import AceEager
from demon_live.models.acestep.tensorrt import command, kernels, library, parts, store, worker
from demon_live.models.acestep.tensorrt.library import Library
from demon_live.models.acestep.tensorrt.runtime import TensorRTPlan
from demon_live.models.engine import open_engine
from demon_live.models.lora import Adapter, Factors
from demon_live.models.manifest import Manifest, load_manifest
from tests.helpers import acestep_toy as toy
from tests.helpers import fake_tensorrt as fake_trt

pytest.importorskip("diffusers")
pytestmark = pytest.mark.timeout(900)
CPU = torch.device("cpu")
FAKE = Library("tensorrt-rtx", "tests.helpers.fake_tensorrt", "1.0")
#: One layer of each kind of attention: exports take half the time.
SMALL = replace(toy.TOY, layers=2)
PLAN = "\n[plan]\nrows = [1, 2, 4]\nframes = [128, 150, 300]\ntokens = [8, 64, 256]\n"


class Made:
    """A toy checkpoint, its manifest with plans, and graphs of it in fp16."""

    def __init__(self, folder: Path) -> None:
        toy.save_original(folder / "t", SMALL)
        path = toy.manifest_of(folder / "t")
        text = path.read_text().replace('"graphs", "eager"', '"graphs", "eager", "tensorrt"')
        head, mark, rest = text.partition("\n[[weights]]")
        path.write_text(head + PLAN + mark + rest)
        self.manifest: Manifest = load_manifest(path)
        modules = self.modules()
        packed = fused.pack(modules.dit, modules.config, fused.Plain(modules.config))
        self.onnx = {"dit": folder / "dit.onnx", "decoder": folder / "decoder.onnx"}
        export.export_dit(packed, self.onnx["dit"], "fp16")
        export.export_decoder(modules.vae, self.onnx["decoder"])

    def modules(self) -> Any:
        return load.load(layout.find_checkpoint(self.manifest), CPU, torch.float32)

    def wanted(self, capability: str = "7.5") -> list[store.Wanted]:
        both = parts.parts(self.manifest, SMALL, capability)
        return [store.wanted(self.manifest, part, FAKE, capability) for part in both]

    def put(self, tmp: Path, *, refit: bool = False) -> None:
        """Plans of the stand-in into the store."""
        both = parts.parts(self.manifest, SMALL, "7.5")
        for want, part in zip(self.wanted(), both, strict=True):
            names = list(part.matrices) if refit else []
            plan = {"onnx": str(self.onnx[part.name]), "profile": part.shapes, "refit": names}
            draft = tmp / "draft"
            draft.write_text(json.dumps(plan))
            store.put(want, draft, {"refit": len(names), "seconds": 1.0})

    def kernels(self) -> Any:
        return kernels.AceTensorRT(self.manifest, self.modules(), library=FAKE, capability="7.5")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEMON_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("DEMON_PLANS_GB", raising=False)


def told(kernel: Any, length: int, seed: int) -> ace.ConditionStates:
    g, one = torch.Generator().manual_seed(seed), ace.ConditionStates()
    one.states = torch.randn(length, 64, generator=g)
    one.kept, one.length = kernel.keep(one.states), length
    return one


def batch(kernel: Any, frames: int, lengths: tuple[int, ...], mixing: bool, serial: int) -> Any:
    g = torch.Generator().manual_seed(9)
    first = [told(kernel, n, i) for i, n in enumerate(lengths)]
    second = [told(kernel, n + 3, 50 + i) for i, n in enumerate(lengths)] if mixing else first
    mix = torch.rand(len(lengths), frames, generator=g) if mixing else None
    context = torch.randn(len(lengths), frames, 128, generator=g)
    return ace.Batch(context, first, second, mix, serial)


def close(found: Any, wanted: Any, share: float = 4e-3) -> bool:
    return float(abs(found - wanted).max()) < share * float(abs(wanted).max())


# ------------------------------------------------------------------------------- playing


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("frames", [150, 151])
def test_a_tick_from_a_plan_is_the_models(
    made: Made, tmp_path: Path, frames: int, mixing: bool
) -> None:
    made.put(tmp_path)
    oracle, found = AceEager(made.modules(), 1), made.kernels()
    for serial, lengths in enumerate(((5,), (7, 30, 12))):
        g = torch.Generator().manual_seed(serial)
        x = torch.randn(len(lengths), frames, 64, generator=g)
        t = torch.linspace(0.9, 0.3, len(lengths))
        wanted = oracle.flow(x, t, batch(oracle, frames, lengths, mixing, serial))
        v = found.flow(x, t, batch(found, frames, lengths, mixing, serial))
        assert v.shape == x.shape
        assert close(v, wanted)


def test_a_tick_that_repeats_the_last_binds_nothing_again(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path)
    found = made.kernels()
    x, said = torch.randn(2, 150, 64), batch(found, 150, (9, 9), False, 1)
    found.flow(x, torch.full((2,), 0.5), said)
    context = found._flow._made
    shaped, memory = context.shaped, context.memory
    first = found.flow(x, torch.full((2,), 0.5), said)
    again = found.flow(x, torch.full((2,), 0.5), said)
    assert torch.equal(first, again)
    assert first.data_ptr() != again.data_ptr()
    assert (context.shaped, context.memory) == (shaped, memory)


def test_windows_and_whole_loops_are_decoded_by_one_plan(made: Made, tmp_path: Path) -> None:
    """Longer than the plan takes: in tiles whose seams are exact."""
    made.put(tmp_path)
    oracle, found = AceEager(made.modules(), 1), made.kernels()
    for rows, frames in ((1, 43), (2, 7), (1, 600)):
        z = torch.randn(rows, frames, 64, generator=torch.Generator().manual_seed(frames))
        audio = found.decode(z)
        assert audio.shape == (rows, 2, frames * 1920)
        assert close(audio, oracle.decode(z), 1e-4)


def test_the_ring_plays_from_plans(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path)
    rings = []
    for kernel in (made.kernels(), AceEager(made.modules(), 1)):
        engine = ace.AceEngine(made.manifest, kernel.modules, kernel)
        ring = Ring(engine, steps=8, depth=2, shift=3.0)
        said = engine.condition("dub", bpm=120, cycles=3, beats=4, frames=150)
        ring.submit(Request(frames=150, channels=64, seed=3, condition=said))
        done: list[Any] = []
        while not done:
            done = ring.tick()
        rings.append(done[0].latent)
        engine.close()
    assert close(rings[0], rings[1], 2e-2)


def test_contexts_are_one_a_stream(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path)
    found = made.kernels()
    assert len(found._dit.engine.contexts) == 1
    assert len(found._decoder.engine.contexts) == 1


def test_what_the_card_made_of_a_plan_is_kept_for_the_next_start(
    made: Made, tmp_path: Path
) -> None:
    made.put(tmp_path)
    found = made.kernels()
    found.warm_up(150, 2, 43)
    kept = made.wanted()[0].plan.with_suffix(".kernels")
    assert kept.read_bytes() == b"kernels"
    again = made.kernels()
    assert again._dit._cache.read == b"kernels"


# ------------------------------------------------------------------------ what does not fit


def test_sizes_beyond_the_plan_are_told_with_its_limits(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path)
    found = made.kernels()
    t = torch.full((5,), 0.5)
    with pytest.raises(EngineError, match=r"x of the plan dit .* takes \[1, 128, 64\] to \[4, 300"):
        found.flow(torch.zeros(5, 150, 64), t, batch(found, 150, (9,) * 5, False, 1))
    with pytest.raises(EngineError, match=r"this is \[1, 400, 64\]") as error:
        found.flow(torch.zeros(1, 400, 64), t[:1], batch(found, 400, (9,), False, 2))
    assert "--backend graphs" in str(error.value.hint)
    with pytest.raises(EngineError, match=r"kept of the plan dit .*300, 32\]"):
        found.flow(torch.zeros(1, 150, 64), t[:1], batch(found, 150, (300,), False, 3))
    found.flow(torch.zeros(1, 150, 64), t[:1], batch(found, 150, (9,), False, 4))


def test_tensors_are_bound_by_name_type_and_place(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path)
    data = made.wanted()[1].plan.read_bytes()
    plan = TensorRTPlan(FAKE, data, CPU, "decoder")
    assert {n: (p.dtype, p.shape, p.given) for n, p in plan.ports.items()} == {
        "z": (torch.float32, (-1, 64, -1), True),
        "audio": (torch.float32, (-1, 2, -1), False),
    }
    context, out = plan.context(), torch.empty(1, 2, 10 * 1920)
    z = torch.zeros(1, 64, 10)
    context.run({"z": z}, {"audio": out}, 17)
    assert plan.engine.contexts[0].streams == [17]
    for wrong, words in (
        (z.double(), "this is torch.float64"),
        (torch.zeros(1, 10, 64).transpose(1, 2), "contiguous"),
        (torch.zeros(1, 63, 10), r"is \[-1, 64, -1\], this is \[1, 63, 10\]"),
        (torch.zeros(64, 10), r"this is \[64, 10\]"),
        (torch.zeros(1, 64, 500), r"to \[1, 64, 268\], this is \[1, 64, 500\]"),
    ):
        with pytest.raises(EngineError, match=words):
            context.run({"z": wrong}, {"audio": out}, 0)
    with pytest.raises(EngineError, match="has no y"):
        context.run({"y": z}, {}, 0)
    with pytest.raises(EngineError, match="of another graph: it has audio, z"):
        plan.expect(export.DIT_NAMES, ["v"])


def test_what_the_library_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="does not load the plan x: magicTag mismatch") as error:
        TensorRTPlan(FAKE, b"no plan", CPU, "x")
    assert "build it again" in str(error.value.hint)
    assert "more of it" not in str(error.value)
    with pytest.raises(EngineError, match="installed, but does not load"):
        Library("tensorrt", "tests.no_such_library", "1").load()


def test_a_plan_that_is_not_the_model_is_refused_and_the_model_plays_on(
    made: Made, tmp_path: Path
) -> None:
    """Another seed's weights under this engine's name."""
    made.put(tmp_path)
    modules = made.modules()
    other = toy.make_modules(SMALL, seed=7)["transformer"]
    oracle = AceEager(modules, 1)
    modules.dit.load_state_dict(other.state_dict())
    with pytest.raises(EngineError, match="does not compute what the model does: off by"):
        kernels.AceTensorRT(made.manifest, modules, library=FAKE, capability="7.5")
    x = torch.zeros(1, 150, 64)
    v = oracle.flow(x, torch.full((1,), 0.5), batch(oracle, 150, (9,), False, 0))
    assert torch.isfinite(v).all()


# ------------------------------------------------------------------------------------ LoRA


def test_a_lora_reaches_a_plan_by_refit(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path, refit=True)
    found, oracle = made.kernels(), AceEager(made.modules(), 1)
    g = torch.Generator().manual_seed(4)
    factors = {}
    for name, weight in oracle.targets().items():
        out, into = weight.shape
        down, up = torch.randn(4, into, generator=g), torch.randn(out, 4, generator=g)
        factors[name] = Factors(0.1 * down, 0.1 * up, 2.0)
    engines = [ace.AceEngine(made.manifest, k.modules, k) for k in (found, oracle)]
    x, t = torch.randn(1, 150, 64, generator=g), torch.full((1,), 0.5)

    def ticks() -> list[torch.Tensor]:
        return [e.kernels.flow(x, t, batch(e.kernels, 150, (9,), False, n)) for e in engines]

    n = 1
    before = ticks()
    for engine in engines:
        engine.weights.add(Adapter("warm", factors))
        engine.weights.commit(engine.weights.prepare({"warm": 1.0}))
    n = 2
    changed = ticks()
    assert not close(changed[1], before[1], 2e-2)
    assert close(changed[0], changed[1], 1e-2)
    for engine in engines:
        engine.weights.commit(engine.weights.prepare({}))
    n = 3
    assert torch.equal(ticks()[0], before[0])


def test_a_plan_without_exchangeable_weights_says_why_no_lora_plays(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.put(tmp_path)
    found = made.kernels()
    assert found.targets() == {}
    assert found.modules.dit is None
    engine = ace.AceEngine(made.manifest, found.modules, found)
    (tmp_path / "state/loras/warm").mkdir(parents=True)
    ace_open._add_loras(engine)
    assert len(engine.notes) == 1
    assert "LoRAs left out: this plan was built without a GPU" in engine.notes[0]


def test_a_plan_that_cannot_exchange_the_named_weights_is_refused(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.put(tmp_path, refit=True)
    monkeypatch.setattr(fake_trt.Refitter, "get_all_weights", lambda self: ["layers.0.qkv"])
    modules = made.modules()
    with pytest.raises(EngineError, match=r"cannot exchange layers\.0\.down, nor 10 others"):
        kernels.AceTensorRT(made.manifest, modules, library=FAKE, capability="7.5")
    assert modules.dit.layers[0].self_attn.to_q.weight is not None


def test_weights_that_a_refit_still_lacks_are_named(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.put(tmp_path, refit=True)
    found = made.kernels()
    lacking = [f"layers.{n}.down" for n in range(5)]
    monkeypatch.setattr(fake_trt.Refitter, "get_missing_weights", lambda self: lacking)
    with pytest.raises(EngineError, match=r"without layers\.0\.down, .*2\.down and 2 others"):
        found.changed(["layers.0.mlp.down_proj"])


def test_a_library_without_runtime_settings_is_too_old(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.put(tmp_path)
    monkeypatch.delattr(fake_trt.Engine, "create_runtime_config")
    with pytest.raises(EngineError, match="too old to play plans") as told:
        made.kernels()
    assert "tensorrt>=10.11" in str(told.value.hint)


# ----------------------------------------------------------------------------------- choice


def test_rtx_cards_try_their_plans_first_and_others_never_before_graphs(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = torch.device("cuda")
    for card, order in (
        ((8, 9), ["tensorrt", "graphs", "eager"]),
        ((12, 0), ["tensorrt", "graphs", "eager"]),
        ((9, 0), ["graphs", "eager", "tensorrt"]),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d=None, c=card: c)
        assert ace_open._order(made.manifest, cuda) == order
    assert ace_open._order(made.manifest, CPU) == ["eager"]


def test_each_step_down_is_said_once_with_reason_and_remedy(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ace_open, "_order", lambda m, d: ["tensorrt", "eager"])
    monkeypatch.setattr(kernels, "capability_of", lambda device: "8.9")
    monkeypatch.setattr(kernels, "library_for", lambda capability: FAKE)
    engine = open_engine(made.manifest.path, device="cpu", threads=1)
    assert engine.notes == [
        "toy-ace runs without backend tensorrt: no plan of toy-ace (dit) is built for compute "
        "capability 8.9 (build it: demon engines build toy-ace)"
    ]
    assert "torch fp32" in engine.describe()
    engine.close()


def test_tensorrt_asked_for_by_name_never_steps_down(made: Made) -> None:
    with pytest.raises(EngineError, match="TensorRT plays on an NVIDIA GPU") as error:
        open_engine(made.manifest.path, backend="tensorrt", device="cpu", threads=1)
    assert "--backend eager" in str(error.value.hint)


def test_a_card_that_no_library_serves_is_told_what_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="too old") as error:
        library.library_for("6.1")
    assert "imp" in str(error.value.hint)
    with pytest.raises(UsageError, match=r"written like 8\.9"):
        library.library_for("sm_89")
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="tensorrt-rtx is not installed") as error:
        library.library_for("8.9")
    assert "[rtx]" in str(error.value.hint)
    with pytest.raises(EngineError, match=r"does not serve compute capability 9\.0") as error:
        library.library_for("9.0")
    assert "graphs" in str(error.value.hint)


# ------------------------------------------------------------------------------------ store


def test_plans_are_kept_apart_by_manifest_library_card_precision_and_weights() -> None:
    manifest, config = load_manifest("ace-step-v15-turbo"), layout.AceConfig()
    newer = Library("tensorrt-rtx", "tensorrt_rtx", "1.8")
    keys = set()
    for lib in (FAKE, newer):
        for cc in ("7.5", "8.6", "8.9"):
            for random in (False, True):
                for part in parts.parts(manifest, config, cc):
                    keys.add(store.wanted(manifest, part, lib, cc, random).key)
    assert len(keys) == 24
    xl = load_manifest("ace-step-v15-xl-turbo")
    part = parts.parts(xl, config, "8.6")[0]
    assert store.wanted(xl, part, FAKE, "8.6").key not in keys


def test_a_damaged_or_half_written_plan_is_never_used(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path)
    want = made.wanted()[0]
    whole = want.plan.read_bytes()
    assert store.find(want).facts["engine"] == "toy-ace"
    for damage in (whole[:-1], whole[:-1] + b"x", b""):
        want.plan.write_bytes(damage)
        with pytest.raises(EngineError, match="is damaged") as error:
            store.find(want)
        assert "build it again: demon engines build toy-ace" in str(error.value.hint)
    want.plan.write_bytes(whole)
    for facts in ("", "{", None):
        if facts is None:
            want.plan.with_suffix(".json").unlink()
        else:
            want.plan.with_suffix(".json").write_text(facts)
        with pytest.raises(EngineError, match="no plan of toy-ace"):
            store.find(want)


def test_a_stale_plan_says_what_has_changed(made: Made, tmp_path: Path) -> None:
    made.put(tmp_path)
    want = made.wanted()[0]
    for change, words in (
        ({"version": "2.0"}, r"built by tensorrt-rtx 1\.0, this is tensorrt-rtx 2\.0"),
        ({"manifest": "0" * 64}, r"toy-ace\.toml has changed since"),
        ({"recipe": 99}, "another version of demon_live built it"),
        ({"capability": "8.9"}, r"is built for compute capability 8\.9, but for 7\.5"),
        ({"random": True}, "no plan of toy-ace"),
    ):
        with pytest.raises(EngineError, match=words) as error:
            store.find(replace(want, **change))  # type: ignore[arg-type]
        assert "demon engines build toy-ace" in str(error.value.hint)


def test_plans_stay_under_their_limit_and_replaced_ones_go(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = made.wanted()[0]
    wants = [replace(base, capability=cc) for cc in ("8.6", "8.9", "12.0")]
    for i, want in enumerate(wants):
        draft = tmp_path / "draft"
        draft.write_bytes(bytes(400_000))
        store.put(want, draft, {})
        os.utime(want.plan.with_suffix(".json"), (1000 + i, 1000 + i))
    assert store.room(wants[2]) == []
    monkeypatch.setenv("DEMON_PLANS_GB", "0.001")
    assert store.room(wants[2]) == [f"{wants[0].plan.name}, toy-ace"]
    assert [s.facts["capability"] for s in store.listed("toy-ace")] == ["8.9", "12.0"]
    newer = replace(wants[1], version="2.0")
    draft.write_bytes(b"new")
    store.put(newer, draft, {})
    assert store.room(newer) == [f"{wants[1].plan.name}, toy-ace"]
    assert not wants[1].plan.with_suffix(".json").exists()
    monkeypatch.setenv("DEMON_PLANS_GB", "lots")
    with pytest.raises(UsageError, match="number of gigabytes, this is 'lots'"):
        store.limit()


# ------------------------------------------------------------------------------------ build


def test_build_says_which_cards_there_are_when_none_is_here(made: Made) -> None:
    with pytest.raises(UsageError, match="say which one") as error:
        command.build_text(str(made.manifest.path))
    assert "--for 8.9" in str(error.value.hint)
    assert "RTX 40 series" in str(error.value.hint)
    assert "nothing to build" in command.build_text("imp", ["8.9"])


def test_build_exports_builds_resumes_and_is_shown(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The true library, in processes of its own; nothing is built twice."""
    pytest.importorskip("tensorrt_rtx")
    path = str(made.manifest.path)
    assert command.rows(path)[0][1].startswith("none: demon engines build")
    jobs, true = list[Any](), worker.run

    def stopped(job: Any, progress: Any = lambda share: None) -> Any:
        jobs.append((job["do"], job["part"]))
        if len(jobs) == 4:  # export and build of the DiT, export of the decoder, and here
            Path(job["plan"]).write_bytes(b"half a plan")
            raise KeyboardInterrupt
        return true(job, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            command.build_text(path, ["8.9"], progress=False)
        folder = command.store_folder(made.manifest)
        assert not list(folder.rglob("*.part"))
        assert [s.facts["part"] for s in store.listed("toy-ace")] == ["dit"]
        jobs.clear()
        last = command.build_text(path, ["8.9"], progress=False)
    assert jobs == [("build", "decoder")]
    assert last.startswith("toy-ace: 1 built, the plans for 8.9 are in ")
    said = capsys.readouterr().err
    assert "stopped: what is built stays" in said
    assert "dit for 8.9: there already" in said
    assert not list(folder.glob("graphs*"))
    titles = [text for _, text in command.rows(path)]
    assert len(titles) == 2
    assert "dit for 8.9 (RTX 40 series), bf16" in titles[0]
    assert "nothing to build" in command.build_text(path, ["8.9"], progress=False)


def test_a_worker_that_dies_or_fails_says_so(tmp_path: Path) -> None:
    lost = {"do": "export", "part": "dit", "manifest": str(tmp_path / "no.toml")}
    lost |= {"onnx": str(tmp_path / "x"), "random": False}  # type: ignore[dict-item]
    with pytest.raises(EngineError, match=r"no\.toml"):
        worker.run(lost)
    with pytest.raises(EngineError, match=r"build of dit ended without a result \(exit 1\): Key"):
        worker.run({"do": "build", "part": "dit"})


def test_the_command_line_builds_and_refuses(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    from demon_live.cli import main

    assert main(["engines", "build", "ace-step-v15-turbo"]) == 2
    assert "say which one the plans are for" in capsys.readouterr().err
    assert main(["engines", "build", "ace-step-v15-turbo", "--for", "8.9"]) == 3
    said = capsys.readouterr().err
    assert "is not fetched: 8 files, 6.3 GB" in said
    assert "Traceback" not in said
    assert main(["engines", "info", "ace-step-v15-turbo", "--for", "8.9"]) == 2
    assert main(["engines", "info", "ace-step-v15-turbo"]) == 0
    assert "plans     none" in capsys.readouterr().out
