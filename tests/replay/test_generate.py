"""generate: loops and batches of them, equal to what a ring and a render make."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from demon_live import Request, Ring, Score, generate, open_engine, render
from demon_live import dsl as d
from demon_live.errors import DemonError
from demon_live.models.protocol import Engine
from demon_live.paths import shipped
from tests.helpers.mock_engine import MockEngine, by_prompt

HOUSE = shipped("patterns") / "loops" / "house_124.flac"


@pytest.fixture(scope="module")
def imp() -> Iterator[Engine]:
    engine = open_engine("imp")
    yield engine
    engine.close()


def mock(level: Any = by_prompt) -> Any:
    return MockEngine(level)


@pytest.mark.parametrize("beats", ["7/8", 3.5, Fraction(7, 2)])
def test_a_bar_may_have_a_meter(beats: Any) -> None:
    made = generate("a", bpm=120, beats=beats, engine=mock())
    assert len(made.audio) == 84_000
    with pytest.raises(DemonError, match="beats takes a whole number"):
        generate("a", beats=3.3, engine=mock())


def test_the_latent_is_that_of_the_ring(imp: Engine) -> None:
    made = generate("acid techno", denoise=0.8, seed=3, bpm=120, cycles=1, engine=imp)
    condition = imp.condition("acid techno", bpm=120.0, cycles=1, beats=4, frames=50)
    ring = Ring(imp, steps=imp.steps, depth=1, shift=imp.shift)  # type: ignore[arg-type]
    ring.submit(Request(50, imp.channels, denoise=0.8, seed=3, condition=condition))
    (alone,) = ring.flush()
    ring.close()
    assert np.array_equal(made.latent, alone.latent)
    assert made.audio.shape == (96_000, 2)
    assert np.abs(made.audio).max() > 0.01


def test_a_batch_is_its_loops_one_by_one(imp: Engine) -> None:
    batch = generate("dub", denoise=np.linspace(0.2, 1, 5), seed=[1, 2], source=HOUSE, engine=imp)
    assert [round(float(g.values["denoise"]), 1) for g in batch] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [g.values["seed"] for g in batch] == [1, 2, 1, 2, 1]
    for one in (batch[1], batch[4]):
        values = one.values
        alone = generate(
            "dub", denoise=values["denoise"], seed=values["seed"], source=HOUSE, engine=imp
        )
        assert np.array_equal(alone.latent, one.latent)
        assert np.array_equal(alone.audio, one.audio)


def test_a_batch_takes_a_fifth_of_the_ticks_of_its_loops() -> None:
    engine = mock()
    calls: list[int] = []
    velocity = engine.velocity
    engine.velocity = lambda x, t, rows: (calls.append(len(rows)), velocity(x, t, rows))[1]
    generate("c", denoise=list(np.linspace(0.1, 1, 20)), engine=engine)
    # Alone, each loop would take 8 ticks of one row.
    assert sum(calls) == 20 * 8
    assert len(calls) * 5 < 20 * 8


def test_words_patterns_and_arrays_are_arguments() -> None:
    engine = mock()
    seen: list[Request] = []
    engine.level = lambda request: (seen.append(request), 0.5)[1]
    generate("a", blend=np.linspace(0, 1, 25), engine=engine, cycles=2, bpm=60)
    (request,) = {id(r): r for r in seen}.values()
    assert request.frames == 200
    assert request.curves is not None
    assert np.allclose(request.curves["blend"][:184], np.arange(184) / 8 / 24, atol=1e-5)
    seen.clear()
    generate("a", blend=d.saw, engine=engine)
    assert seen[0].curves is not None
    assert np.allclose(seen[0].curves["blend"], np.arange(50) / 50, atol=1e-3)


def test_the_loop_of_a_source_is_the_source_at_denoise_0(imp: Engine) -> None:
    audio = np.random.default_rng(0).standard_normal((96_000, 2)).astype(np.float32) * 0.1
    made = generate(source=audio, denoise=0, engine=imp)
    assert np.allclose(made.latent, imp.encode(audio), atol=1e-4)


def test_what_is_kept_of_a_source_has_its_detail(imp: Engine) -> None:
    audio = np.random.default_rng(0).standard_normal((96_000, 2)).astype(np.float32) * 0.1
    kept = generate(source=audio, denoise=0, engine=imp)
    assert np.array_equal(kept.audio, audio)
    without = generate(source=audio, denoise=0, detail=0, engine=imp)
    assert np.abs(without.audio - audio).max() > 0.01
    half = generate(source=audio, denoise=0, detail=np.repeat([1.0, 0.0], 25), engine=imp)
    assert np.array_equal(half.audio[24_000:36_000], audio[24_000:36_000])
    assert not np.allclose(half.audio[60_000:84_000], audio[60_000:84_000], atol=0.01)


def test_notes_are_played_to_the_engine_as_in_a_score(imp: Engine) -> None:
    engine = mock()
    seen: list[Request] = []
    engine.level = lambda request: (seen.append(request), 0.5)[1]
    generate("a", source="notes", kick="1 ~ ~ ~", engine=engine)
    assert seen[0].source is not None
    assert np.abs(seen[0].source[:5]).max() > 1e-3
    assert not seen[0].source[40:].any()
    assert seen[0].curves is not None
    assert np.allclose(seen[0].curves["hint"], 0.6)
    told = generate("techno", kick="1 ~ ~ ~", engine=imp).request
    assert told.source is None
    assert told.lanes is not None
    over = generate("techno", source=f"{HOUSE} + notes", bass="<a1>", bpm=124, engine=imp).request
    plain = generate("techno", source=HOUSE, bpm=124, engine=imp).request
    assert over.source is not None
    assert plain.source is not None
    assert not np.allclose(over.source, plain.source, atol=0.01)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"denois": 0.5}, "did you mean denoise"),
    ({"denoise": "hello"}, "denoise"),
    ({"gain": 0.5}, "class mix"),
    ({"seed": []}, "is empty"),
    ({"hint": 0.5}, "does not know hint"),
    ({"kick": "1*4"}, "source='notes'"),
    ({"source": np.zeros(5)}, "n, 2"),
    ({"source": "none.wav"}, "no file"),
    ({"blend": np.zeros((2, 2))}, "finite values"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[said for _, said in WRONG])
def test_wrong_arguments_are_errors_with_a_remedy(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DemonError) as caught:
        generate("a", engine=mock(), **wrong)
    assert said in str(caught.value)


def test_results_can_be_saved_and_shown(tmp_path: Path) -> None:
    made = generate("c", engine=mock(), seed=4)
    assert made.save(tmp_path / "a.wav").exists()
    assert soundfile.info(tmp_path / "a.wav").frames == len(made.audio)
    assert "seed=4" in repr(made)
    assert "<audio" in made._repr_html_()


def test_a_score_of_python_renders_as_its_text_does(tmp_path: Path) -> None:
    with Score() as score:
        d.tempo(150)
        d.deck.loop(1)
        d.deck.prompt = d.mini("<a c>")
    (tmp_path / "x.demon").write_text(score.text)
    (tmp_path / "x.py").write_text(
        "from demon_live import dsl as d\nd.tempo(150)\nd.deck.loop(1)\n"
        "d.deck.prompt = d.mini('<a c>')\n"
    )
    of_text = render(tmp_path / "x.demon", engine=mock(), cycles=3)
    of_score = render(score, engine=mock(), cycles=3)
    of_file = render(tmp_path / "x.py", engine=mock(), cycles=3, python=True)
    assert np.array_equal(of_text.audio, of_score.audio)
    assert np.array_equal(of_text.audio, of_file.audio)
    assert of_score.generations
    assert of_score.save(tmp_path / "x.flac").exists()
    assert "audio/wav" in of_score._repr_html_()
    with pytest.raises(DemonError, match="Python") as caught:
        render(tmp_path / "x.py", engine=mock())
    assert "python=True" in str(caught.value)
    with pytest.raises(DemonError, match="no score"):
        render(3, engine=mock())  # type: ignore[arg-type]
    with pytest.raises(DemonError, match="whole number"):
        render(score, engine=mock(), seed="3")  # type: ignore[arg-type]
