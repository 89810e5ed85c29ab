"""Check 23, and the class `model`: adapters at work, on a small network of torch."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from demon_live.engine import Ring
from demon_live.errors import DemonError, EngineError, ScoreError
from demon_live.models.lora import Adapter, Factors, LoraBank, read_adapter
from demon_live.runtime.placement import HALF
from tests.helpers.lora_net import SIZES, Net, adapter, net
from tests.helpers.mock_engine import MockEngine, edges, offline, run
from tests.helpers.velocity_models import C, alone, play, request, same

BAR = 96_000  # samples at 120 bpm


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def put(it, **strengths):
    it.weights.commit(it.weights.prepare(strengths))
    return it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_0_is_the_base_to_the_bit(dtype):
    base = net(dtype=dtype).bits()
    it = net(adapter("a", 1), adapter("b", 2), dtype=dtype)
    assert equal(it.bits(), base)
    assert equal(put(it, a=0.0, b=0.0).bits(), base)
    assert not equal(put(it, a=0.7).bits(), base)
    assert equal(put(it, a=0.0).bits(), base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_removal_restores_every_bit_after_a_long_ride(dtype):
    it = net(adapter("a", 1), adapter("b", 2, ["net.2"]), dtype=dtype)
    base, only_b = it.bits(), put(net(adapter("b", 2, ["net.2"]), dtype=dtype), b=0.5).bits()
    for n in range(200):
        put(it, a=(n * 0.37) % 2, b=(n * 0.61) % 2)
    put(it, a=1.3, b=0.5)
    it.weights.remove("a")
    assert it.weights.names == ("b",)
    assert equal(it.bits(), only_b)
    it.weights.remove("b")
    assert equal(it.bits(), base)
    assert it.weights.strengths == {}


def test_adapters_compose_in_any_order():
    a, b = adapter("a", 1), adapter("b", 2, ["net.0"])
    both = put(net(a, b), a=0.5, b=-1.5).bits()
    it = net(b, a)
    put(put(it, b=-1.5), b=-1.5, a=0.5)
    assert equal(it.bits(), both)
    base = net().bits()
    for bits, name in ((0, "net.0"), (2, "net.2")):
        expected = base[bits].double()
        for one, s in ((a, 0.5), (b, -1.5)):
            if name in one.factors:
                f = one.factors[name]
                expected = expected + s * f.scale * f.up.double() @ f.down.double()
        assert torch.allclose(both[bits].double(), expected, atol=1e-6)


def test_a_fused_weight_is_written_through_its_view():
    fused = torch.zeros(3 * C, C)
    bank = LoraBank({"q": fused[:C], "v": fused[2 * C :]})
    ones = Factors(torch.ones(1, C), torch.ones(C, 1), 0.5)
    bank.add(Adapter("x", {"v": ones}))
    address = fused.data_ptr()
    bank.commit(bank.prepare({"x": 2.0}))
    assert torch.equal(fused, torch.cat([torch.zeros(2 * C, C), torch.ones(C, C)]))
    assert fused.data_ptr() == address


def test_preparing_changes_nothing():
    it = net(adapter("a", 1))
    before = it.bits()
    refit = it.weights.prepare({"a": 1.0})
    assert equal(it.bits(), before)
    assert it.weights.strengths == {}
    it.weights.commit(refit)
    assert it.weights.strengths == {"a": 1.0}


# -- in the ring


def test_strength_0_and_no_adapter_make_the_same_latents():
    plain = alone(request(1), Net())
    loaded = net(adapter("a", 1))
    assert same(alone(request(1), loaded), plain)
    assert same(alone(request(1), loaded, shared={"lora.a": 0.0}), plain)
    assert not same(alone(request(1), loaded, shared={"lora.a": 0.8}), plain)


def test_all_rows_see_new_weights_at_the_very_next_tick_and_the_stamps_say_so():
    it = Ring(net(adapter("a", 1)), steps=8, depth=4, shift=3.0)
    play(it, 20, lambda n, deck: request(n))
    before, calls = it.version, len(it.model.seen)
    it.share("lora.a", 0.5)
    (generation,) = it.tick() + it.tick()
    assert it.strengths == {"a": 0.5}
    assert it.model.seen[calls:] == [{"a": 0.5}] * 2
    assert generation.versions.count(before + 1) == generation.retired - 20 + 1
    # Held, it settles on what the new weights make of the request alone.
    late = [g for tick in play(it, 20, lambda n, deck: request(7)) for g in tick][-1]
    held = alone(request(7), net(adapter("a", 1)), shared={"lora.a": 0.5})
    assert same(late.latent, held)
    it.share("lora.a", None)
    it.tick()
    assert it.strengths == {}
    assert equal(it.model.bits(), net().bits())


def test_what_was_made_with_and_without_an_adapter_is_not_kept():
    it = Ring(net(adapter("a", 1)), steps=8, depth=4, shift=3.0)
    plain = replace(request(7), curves={}, identity=("seven",))
    it.submit(plain)
    it.tick()
    it.share("lora.a", 0.5)
    it.tick()
    it.share("lora.a", None)
    (mixed,) = it.flush()
    it.submit(plain)
    (again,) = it.flush()
    assert it.stats().from_store == 0
    assert not same(again.latent, mixed.latent)
    assert same(again.latent, alone(plain, net()))


def test_decks_share_the_weights_and_the_strongest_wish_counts():
    it = Ring(net(adapter("a", 1)), steps=8, depth=4, shift=3.0)
    it.share("lora.a", 0.2, deck="x")
    it.share("lora.a", 0.9, deck="y")
    it.tick()
    assert it.strengths == {"a": 0.9}
    it.dismiss("y")
    it.tick()
    assert it.strengths == {"a": 0.2}


class Held(LoraBank):
    """A bank whose work ends when the test says so."""

    def __init__(self, targets):
        super().__init__(targets)
        self.begun, self.end, self.prepared = threading.Event(), threading.Event(), []

    def prepare(self, strengths):
        self.prepared.append(dict(strengths))
        self.begun.set()
        assert self.end.wait(30)
        return super().prepare(strengths)


def test_ticks_go_on_while_weights_are_worked_out_and_the_latest_wish_wins():
    model = Net()
    model.weights = Held({n: dict(model.net.named_parameters())[f"{n[4:]}.weight"] for n in SIZES})
    model.weights.add(adapter("a", 1))
    it = Ring(model, steps=8, depth=4, shift=3.0, background=True)
    it.on_admit = lambda deck: request(1)
    it.enlist("main")
    it.share("lora.a", 0.1)
    version = it.version
    it.tick()
    assert model.weights.begun.wait(30)
    for n in range(40):
        it.share("lora.a", 0.1 + n / 100)
        it.tick()
    assert (it.version, it.strengths) == (version, {})
    assert model.seen == [{}] * 41
    model.weights.end.set()
    it._weights._work.result(30)
    it.tick()
    assert it.strengths == {"a": 0.1}
    it._weights._work.result(30)
    it.tick()
    assert it.strengths == {"a": 0.1 + 39 / 100}
    assert model.weights.prepared == [{"a": 0.1}, {"a": 0.1 + 39 / 100}]
    assert it.version == version + 2
    it.close()


def test_weights_that_cannot_be_worked_out_leave_the_ring_playing():
    model = net(adapter("a", 1))

    def broken(strengths):
        raise RuntimeError("out of memory")

    model.weights.prepare = broken
    it = Ring(model, steps=8, depth=4, shift=3.0, on_admit=lambda deck: request(1))
    it.enlist("main")
    it.share("lora.a", 0.5)
    out = [g for _ in range(20) for g in it.tick()]
    assert "out of memory" in it.trouble.message
    assert all(same(g.latent, alone(request(1), Net())) for g in out)


@pytest.mark.parametrize(
    ("name", "value"), [("lora.b", 0.5), ("lora.a", float("nan")), ("lora.a", "loud")]
)
def test_wrong_strengths_are_refused_at_the_call(name, value):
    it = Ring(net(adapter("a", 1)), steps=8, depth=4, shift=3.0)
    with pytest.raises(ScoreError):
        it.share(name, value)
    with pytest.raises(ScoreError, match="no LoRA"):
        alone(request(1), shared={"lora.x": 1.0})
    it.tick()
    assert it.strengths == {}


def test_a_ring_that_follows_another_finds_the_weights_as_they_were_left():
    model = net(adapter("a", 1))
    it = Ring(model, steps=8, depth=4, shift=3.0)
    it.share("lora.a", 0.5)
    it.tick()
    again = Ring(model, steps=8, depth=4, shift=3.0)
    assert again.strengths == {"a": 0.5}
    again.tick()
    assert again.strengths == {}
    assert equal(model.bits(), net().bits())


# -- in a score


class Levelled(MockEngine):
    """Sounds as loud as its adapter is strong."""

    def __init__(self):
        super().__init__(lambda request: 0.0)
        self.weights = LoraBank({"w": torch.zeros(1, 1)})
        self.weights.add(Adapter("loud", {"w": Factors(torch.ones(1, 1), torch.ones(1, 1), 1.0)}))
        self.level = lambda request: 0.1 + 0.1 * self.weights.strengths.get("loud", 0.0)


def test_a_strength_of_a_score_is_heard_on_its_bar():
    instrument = offline(Levelled())
    instrument.session.apply('tempo 120\nloop 4\nlora.loud = "<0 2>"')
    heard = edges(run(instrument, 6 * BAR), 0.1, 0.3)
    # Those in flight turn with the weights as well; they are not heard before the bar.
    assert len(heard) == 5
    assert max(abs(h - (i + 1) * BAR) for i, h in enumerate(heard)) <= HALF


def test_an_engine_without_adapters_says_so_and_plays_on():
    instrument = offline(MockEngine(lambda request: 0.25))
    instrument.session.apply("tempo 120\nloop 1\nlora.acid = .8")
    assert run(instrument, BAR)[-1] == pytest.approx(0.25)
    assert any("no LoRA 'acid'" in note for note in instrument.output.notes)


# -- files


def write(folder, config, **tensors):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def peft(one, prefix="base_model.model."):
    return {
        f"{prefix}{target}.lora_{letter}.weight": tensor.clone()
        for target, f in one.factors.items()
        for letter, tensor in (("A", f.down), ("B", f.up))
    }


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 6}, 2.0),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / 3**0.5),
        ({}, 1.0),
        ({"lora_alpha": 6, "alpha_pattern": {"net.0": 9, "net.2": 9}}, 3.0),
    ],
)
def test_peft_directories_are_read(tmp_path, config, scale):
    one = adapter("a", 1)
    path = write(tmp_path / "a", {"peft_type": "LORA", "r": 3, **config}, **peft(one))
    read = read_adapter(path, "a", SIZES)
    assert set(read.factors) == set(SIZES)
    for target, factors in read.factors.items():
        assert factors.scale == pytest.approx(scale)
        assert torch.equal(factors.down, one.factors[target].down)
        assert torch.equal(factors.up, one.factors[target].up)
    Net().weights.add(read)


def test_one_file_with_alphas_is_read(tmp_path):
    alphas = {f"{t}.alpha": torch.tensor(12.0) for t in SIZES}
    save_file({**peft(adapter("a", 1), ""), **alphas}, tmp_path / "a.safetensors")
    read = read_adapter(tmp_path / "a.safetensors", "a", SIZES)
    assert {f.scale for f in read.factors.values()} == {4.0}


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"peft_type": "LOHA"}, peft(adapter("a", 1)), "not the configuration of a LoRA"),
        ({"use_dora": True}, peft(adapter("a", 1)), "use_dora"),
        ({"bias": "all"}, peft(adapter("a", 1)), "biases"),
        ({}, {"x.weight": torch.zeros(1)}, "no lora_A"),
        ({}, {"net.0.lora_A.weight": torch.zeros(1, C)}, "an A and no B"),
    ],
)
def test_files_that_are_no_lora_say_why(tmp_path, config, tensors, says):
    with pytest.raises(EngineError, match=says):
        read_adapter(write(tmp_path / "a", config, **tensors), "a", SIZES)
    with pytest.raises(EngineError, match="cannot be read"):
        read_adapter(tmp_path / "none", "a", SIZES)


@pytest.mark.parametrize(
    "config",
    [
        {"alpha_pattern": [1]},
        {"alpha_pattern": {"net.0": "zz"}},
        *({"lora_alpha": value} for value in ("x", {}, [2], float("nan"), 1e308, 10**400)),
    ],
)
def test_a_scale_that_is_no_number_is_refused_by_name(tmp_path, config):
    folder = write(tmp_path / "a", config, **peft(adapter("a", 1)))
    with pytest.raises(EngineError, match=r"LoRA a: the scale of .* is no number") as caught:
        read_adapter(folder, "a", SIZES)
    assert str(folder) in str(caught.value)


def test_configurations_and_shapes_that_nobody_writes_are_refused_by_name(tmp_path):
    folder = write(tmp_path / "a", {}, **peft(adapter("a", 1)))
    (folder / "adapter_config.json").write_text("[" * 200_000)
    with pytest.raises(EngineError, match=r"adapter_config.json cannot be read"):
        read_adapter(folder, "a", SIZES)
    for down, up in (((0, C), (C, 0)), ((), (C, 1)), ((1, C), (1,))):
        tensors = {"net.0.lora_A.weight": torch.zeros(down), "net.0.lora_B.weight": torch.zeros(up)}
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(EngineError, match="LoRA x: "):
            read_adapter(tmp_path / "x.safetensors", "x", SIZES)


def test_adapters_of_other_networks_are_refused_whole():
    it = Net()
    wrong = {"net.0": Factors(torch.zeros(2, C + 1), torch.zeros(16, 2), 1.0)}
    for factors, says in (
        (wrong, "another size"),
        ({"net.9": wrong["net.0"]}, "does not have"),
        ({"net.0": Factors(torch.full((2, C), np.nan), torch.zeros(16, 2), 1.0)}, "finite"),
        ({}, "changes nothing"),
    ):
        with pytest.raises(DemonError) as caught:
            it.weights.add(Adapter("x", factors))
        assert says in str(caught.value) or says in str(caught.value.hint)
    assert it.weights.names == ()
    with pytest.raises(EngineError, match="no LoRA"):
        it.weights.prepare({"x": 1.0})
