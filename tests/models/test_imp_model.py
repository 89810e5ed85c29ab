"""imp's modules and labels: exact margins, circular loops, independent rows, one copy of the
weights for two runtimes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import (
    COND,
    condition,
    load_vocabulary,
    loop_frames,
    loop_phase,
    null_condition,
    parse_key,
)
from demon_live.models.manifest import load_manifest

ENGINE = Path(__file__).resolve().parents[2] / "engines" / "imp"
VOCABULARY = load_vocabulary(ENGINE / "tags.toml")
trained = pytest.mark.skipif(not (ENGINE / "flow.safetensors").exists(), reason="no weights")


def inputs(
    rows: int, frames: int, bars: float = 4, seed: int = 0, channels: int = imp.CHANNELS
) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    bpm = bars * 240 * imp.FRAME_HZ / frames
    phase = torch.from_numpy(loop_phase(bars, bpm, frames)).expand(rows, -1, -1).contiguous()
    return {
        "x": torch.randn(rows, frames, channels, generator=g),
        "t": torch.rand(rows, generator=g),
        "hint": torch.randn(rows, frames, channels + 1, generator=g),
        "phase": phase,
        "cond": torch.rand(rows, COND, generator=g),
    }


def noisy(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights of a size that shows every path."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(
                torch.randn(p.shape, generator=g) * (0.3 if p.ndim < 2 else p[0].numel() ** -0.5)
            )
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def decoder() -> imp.ImpDecoder:
    made = noisy(imp.ImpDecoder())
    assert isinstance(made, imp.ImpDecoder)
    return made


def test_margin_is_exact(decoder: imp.ImpDecoder) -> None:
    """A frame depends on MARGIN frames each side, not on the next, and on the last of them."""
    frames, middle = 4 * imp.MARGIN, 2 * imp.MARGIN
    z = torch.randn(1, frames, imp.CHANNELS, generator=torch.Generator().manual_seed(2))
    heard = slice(middle * imp.HOP, (middle + 1) * imp.HOP)
    before = decoder(z)[..., heard]
    for side in (-1, 1):
        outside, inside = z.clone(), z.clone()
        outside[:, middle + side * (imp.MARGIN + 1)] += 3
        inside[:, middle + side * imp.MARGIN] += 3
        assert torch.equal(decoder(outside)[..., heard], before)
        assert not torch.equal(decoder(inside)[..., heard], before)


def test_window_equals_full_decode(decoder: imp.ImpDecoder) -> None:
    z = torch.randn(1, 60, imp.CHANNELS, generator=torch.Generator().manual_seed(3))
    full = decoder(z)
    window = decoder(z[:, 20 - imp.MARGIN : 30 + imp.MARGIN])
    edge = imp.MARGIN * imp.HOP
    inner, whole = window[..., edge:-edge], full[..., 20 * imp.HOP : 30 * imp.HOP]
    assert (inner - whole).abs().max() <= 1e-4 * whole.abs().max()


def test_decode_loop_turns_with_the_latent(decoder: imp.ImpDecoder) -> None:
    z = torch.randn(1, 24, imp.CHANNELS, generator=torch.Generator().manual_seed(4))
    a = decoder.decode_loop(z.roll(5, 1))
    b = decoder.decode_loop(z).roll(5 * imp.HOP, -1)
    assert (a - b).abs().max() <= 1e-4 * b.abs().max()


def test_encode_loop_turns_with_the_audio() -> None:
    encoder = noisy(imp.ImpEncoder())
    assert isinstance(encoder, imp.ImpEncoder)
    audio = 0.1 * torch.randn(1, 2, 20 * imp.HOP, generator=torch.Generator().manual_seed(5))
    a = encoder.encode_loop(audio.roll(3 * imp.HOP, -1))
    b = encoder.encode_loop(audio).roll(3, 1)
    assert a.shape == (1, 20, imp.CHANNELS)
    assert (a - b).abs().max() <= 1e-4 * b.abs().max()


def test_an_odd_loop_is_covered_and_goes_round() -> None:
    """A loop of 9.4 frames becomes 10; what lies past its end is its beginning."""
    encoder = noisy(imp.ImpEncoder())
    assert isinstance(encoder, imp.ImpEncoder)
    audio = 0.1 * torch.randn(1, 2, int(9.4 * imp.HOP), generator=torch.Generator().manual_seed(6))
    assert encoder.encode_loop(audio).shape == (1, 10, imp.CHANNELS)


@pytest.fixture(scope="module")
def flow() -> imp.ImpFlow:
    made = noisy(imp.ImpFlow())
    assert isinstance(made, imp.ImpFlow)
    return made


def test_flow_is_circular(flow: imp.ImpFlow) -> None:
    """Turning a loop by whole bars turns the velocity: there is no seam."""
    given = inputs(1, 96, bars=4)
    v = flow(**given)
    turned = {k: x.roll(24, 1) if k in ("x", "hint", "phase") else x for k, x in given.items()}
    assert (flow(**turned) - v.roll(24, 1)).abs().max() < 1e-4
    later = given | {"phase": given["phase"] + torch.tensor([4.0, 1.0])}
    assert (flow(**later) - v).abs().max() < 1e-4


def test_padding_changes_nothing(flow: imp.ImpFlow) -> None:
    given = inputs(1, 64)
    padded = {
        k: torch.cat([x, x[:, :16] * 0 + 1], 1) if x.ndim == 3 else x for k, x in given.items()
    }
    keep = (torch.arange(40) < 32)[None]
    assert (flow(**padded, keep=keep)[:, :64] - flow(**given)).abs().max() < 1e-4


def test_condition_is_linear_in_tags() -> None:
    a = condition(VOCABULARY, {"techno": 1.0}, bpm=128)
    b = condition(VOCABULARY, {"dub": 1.0, "hiss": 0.5}, bpm=128)
    both = condition(VOCABULARY, {"techno": 0.25, "dub": 0.75, "hiss": 0.375}, bpm=128)
    np.testing.assert_allclose(0.25 * a + 0.75 * b, both, atol=1e-6)
    assert not null_condition().any()
    with pytest.raises(ValueError, match="unknown tag"):
        condition(VOCABULARY, {"polka": 1.0})


@pytest.mark.parametrize(
    ("text", "pitch", "mode"),
    [
        ("F# minor", 6, "minor"),
        ("Ebm", 3, "minor"),
        ("A dorian", 9, "dorian"),
        ("C", 0, "minor"),
        ("bb major", 10, "major"),
        ("CM", 0, "major"),
    ],
)
def test_keys_are_parsed(text: str, pitch: int, mode: str) -> None:
    assert parse_key(text, VOCABULARY.modes) == (pitch, VOCABULARY.modes.index(mode))


def test_what_is_not_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not a key"):
        parse_key("H minor", VOCABULARY.modes)
    with pytest.raises(ValueError, match="mode"):
        parse_key("C locrian", VOCABULARY.modes)


def test_frames_cover_the_loop() -> None:
    assert loop_frames(8, 120) == 400
    assert loop_frames(4, 128) == 188
    phase = loop_phase(4, 128, 188)
    assert phase.shape == (188, 2)
    assert phase[0].tolist() == [0.0, 0.0]
    assert loop_phase(4, 128, 188, offset=1.0)[0].tolist() == [1.0, 0.25]


def test_lexicon_points_at_tags() -> None:
    assert len(VOCABULARY.synonyms) > 500
    assert VOCABULARY.synonyms["acid techno"] == {"techno": 1.0, "acid": 1.0, "acid-line": 1.0}
    assert VOCABULARY.synonyms["tape hiss"] == {"hiss": 1.0}


@trained
def test_weights_are_small_and_named_as_the_modules() -> None:
    assert sum(w.bytes for w in load_manifest("imp").weights) < 60_000_000
    imp.load_codec(ENGINE / "codec.safetensors")
    imp.load_flow(ENGINE / "flow.safetensors")


@trained
@pytest.mark.parametrize(("rows", "frames"), [(1, 64), (3, 188)])
def test_exported_flow_equals_eager(rows: int, frames: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(
        str(ENGINE / "flow.onnx"), providers=["CPUExecutionProvider"]
    )
    flow = imp.load_flow(ENGINE / "flow.safetensors")
    given = inputs(rows, frames, channels=flow.channels)
    given["cond"] = given["cond"][:, None, : flow.width].expand(-1, frames // 2, -1).contiguous()
    given["lanes"] = torch.rand(rows, frames, imp.LANES, generator=torch.Generator().manual_seed(2))
    feed = {k: x.numpy() for k, x in given.items()}
    made = session.run(None, feed)[0]
    eager = flow(**given).numpy()
    assert np.abs(made - eager).max() < 2e-4
    single = [session.run(None, {k: x[i : i + 1] for k, x in feed.items()})[0] for i in range(rows)]
    assert np.array_equal(made, np.concatenate(single)), (
        "rows of a batch must be bit-equal to single rows"
    )


@trained
def test_exported_decoder_equals_eager() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(
        str(ENGINE / "decoder.onnx"), providers=["CPUExecutionProvider"]
    )
    _, decoder = imp.load_codec(ENGINE / "codec.safetensors")
    z = torch.randn(2, 33, decoder.channels, generator=torch.Generator().manual_seed(7))
    made, names = session.run(None, {"latent": z.numpy()}), [o.name for o in session.get_outputs()]
    for name, a, b in zip(names, made, decoder.trunk(z), strict=True):
        assert np.abs(a - b.numpy()).max() < 1e-4, name


@trained
@pytest.mark.parametrize(
    ("graph", "weights", "prefix"), [("flow", "flow", "flow."), ("decoder", "codec", "decoder.")]
)
def test_graphs_point_into_the_weights(graph: str, weights: str, prefix: str) -> None:
    """The graphs are topology: small, and every offset is that of the tensor of the same name."""
    onnx = pytest.importorskip("onnx")
    path = ENGINE / f"{graph}.onnx"
    assert path.stat().st_size < 1_000_000
    data = (ENGINE / f"{weights}.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    model = onnx.load(str(path), load_external_data=False)
    external = [x for x in model.graph.initializer if x.data_location == onnx.TensorProto.EXTERNAL]
    assert {x.name for x in external} == {n for n in header if n.startswith(prefix)}
    for x in external:
        places = {e.key: e.value for e in x.external_data}
        begin, _ = header[x.name]["data_offsets"]
        assert int(places["offset"]) == 8 + size + begin
        assert places["location"] == f"{weights}.safetensors"


def test_noise_of_the_decoder_has_the_level_asked_for() -> None:
    """Log level 0 in every band is noise of unit level; 1 less in a band is 8.7 dB less there."""
    synthesis = imp.Synthesis()
    g = torch.Generator().manual_seed(8)
    share = torch.nn.functional.normalize(torch.randn(1, 50, 16, generator=g), dim=-1)
    flat = synthesis.air(torch.zeros(1, 200, 160), share)
    quiet = synthesis.air(torch.full((1, 200, 160), -1.0), share)
    f = torch.fft.rfftfreq(flat.shape[-1], 1 / imp.SAMPLE_RATE)
    heard = (f > 2000) & (f < 20_000)
    power = [torch.fft.rfft(x)[..., heard].abs().square().mean().item() for x in (flat, quiet)]
    assert power[0] / flat.shape[-1] == pytest.approx(1.0, rel=0.1)
    assert power[1] / power[0] == pytest.approx(np.exp(-2), rel=1e-3)
    assert torch.fft.rfft(flat)[..., f < 400].abs().square().mean() < 1e-3 * power[0]


@trained
def test_the_codec_neither_buzzes_nor_dulls() -> None:
    """Above 5 kHz no pattern repeats each latent frame; every band keeps its level."""
    soundfile = pytest.importorskip("soundfile")
    path = ENGINE.parent.parent / "patterns" / "loops" / "house_124.flac"
    audio, _ = soundfile.read(path, dtype="float32")
    x = torch.from_numpy(audio.T.copy())[None, :, : 80 * imp.HOP]
    encoder, decoder = imp.load_codec(ENGINE / "codec.safetensors")
    y = decoder.decode_loop(encoder.encode_loop(x))
    f = torch.fft.rfftfreq(x.shape[-1], 1 / imp.SAMPLE_RATE)
    a, b = torch.fft.rfft(x), torch.fft.rfft(y)
    for low, high in ((0, 300), (300, 1200), (1200, 5000), (5000, 16_000)):
        band = (f >= low) & (f < high)
        level = (b[..., band].abs().square().sum() / a[..., band].abs().square().sum()).log10() * 10
        assert abs(level.item()) < 2.5, (low, high, level.item())
    air = torch.fft.irfft(b * ((f > 5000) & (f < 16_000)), x.shape[-1])
    comb = (air * air.roll(imp.HOP, -1)).sum() / air.square().sum()
    assert abs(comb.item()) < 0.15


@trained
def test_a_loop_survives_the_codec() -> None:
    """A rendered loop through encoder and decoder: low end in phase, level kept."""
    soundfile = pytest.importorskip("soundfile")
    path = ENGINE.parent.parent / "patterns" / "loops" / "techno_128.flac"
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == imp.SAMPLE_RATE
    x = torch.from_numpy(audio.T.copy())[None, :, : 40 * imp.HOP]
    encoder, decoder = imp.load_codec(ENGINE / "codec.safetensors")
    y = decoder.decode_loop(encoder.encode_loop(x))
    f = torch.fft.rfftfreq(x.shape[-1], 1 / imp.SAMPLE_RATE)
    low = f < 500
    a, b = torch.fft.rfft(x)[..., low], torch.fft.rfft(y)[..., low]
    assert ((a - b).abs().square().sum() / a.abs().square().sum()) < 0.1
    assert 0.7 < (y.square().mean() / x.square().mean()) < 1.3
