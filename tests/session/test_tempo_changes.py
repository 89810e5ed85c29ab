"""Tempo and source in the middle of a set: on the bar, without a gap, without a click."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.audio.files import retimed
from demon_live.core import Floats
from demon_live.errors import DemonError
from demon_live.paths import shipped
from demon_live.runtime.offline import Offline
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap
from tests.helpers.mock_engine import MockEngine, edges, offline, run, write_tone

BAR = 96_000


def longest_silence(audio: Floats) -> int:
    """The longest stretch in which nothing exceeds -60 dBFS, in samples."""
    loud = np.flatnonzero(np.abs(audio).max(axis=1) > 1e-3)
    return int(np.diff(loud, prepend=-1, append=len(audio)).max()) - 1


def steepest(audio: Floats) -> float:
    return float(np.abs(np.diff(audio, axis=0)).max())


def test_a_ramp_goes_up_in_steps_of_a_bar_and_each_bar_has_its_length(tmp_path: Path) -> None:
    write_tone(tmp_path / "low.wav", 0.25, 4.0)
    instrument = offline(MockEngine(lambda r: 0.25), tmp_path)
    instrument.session.apply('tempo 120\nloop 2\nsource "low.wav"')
    run(instrument, 2 * BAR)
    outcome = instrument.session.apply("tempo 128 over 4")
    assert any("120 to 128 in 4 steps of a bar, from bar 3" in m for m in outcome.messages)
    out = run(instrument, 9 * BAR)
    state = instrument.session.state
    assert [s.bpm for s in state.tempo.segments] == [120, 122, 124, 126, 128]
    assert [s.cycle for s in state.tempo.segments] == [0, 3, 4, 5, 6]
    assert state.bpm == 128
    assert not state.ramp
    for bar, bpm in ((3, 122), (4, 124), (5, 126), (6, 128), (20, 128)):
        length = state.tempo.exact(Fraction(bar + 1)) - state.tempo.exact(Fraction(bar))
        assert length == Fraction(4 * 60 * 48_000, bpm)
    assert out[4800:].min() > 0.249
    assert steepest(out[4800:, None]) < 1e-3


def test_every_step_of_a_ramp_plays_the_stage_of_its_own_tempo() -> None:
    instrument = offline(MockEngine(lambda r: 0.5))
    instrument.session.apply("tempo 120\nloop 2")
    run(instrument, 2 * BAR)
    instrument.session.apply("tempo 60 over 3")
    seen = set()
    while instrument.session.state.tempo.cycle_at(instrument.output.playhead.now()) < 9:
        run(instrument, 4800)
        now = instrument.output.playhead.now()
        stage = instrument.session.state.decks["main"].playing(now)
        assert stage is not None
        if now > stage.from_sample:
            assert stage.bpm == instrument.session.state.tempo.segment_of(now).bpm
            seen.add(stage.bpm)
    assert seen == {120, 100, 80, 60}


def test_another_tempo_ends_a_ramp() -> None:
    instrument = offline(MockEngine(lambda r: 0.5))
    instrument.session.apply("tempo 120\nloop 2")
    run(instrument, 2 * BAR)
    instrument.session.apply("tempo 140 over 8")
    run(instrument, 3 * BAR)
    instrument.session.apply("tempo 100")
    run(instrument, 6 * BAR)
    state = instrument.session.state
    assert not state.ramp
    assert state.tempo.segments[-1].bpm == 100
    assert state.decks["main"].loop is not None
    assert state.decks["main"].loop.bpm == 100


def test_what_plays_goes_on_at_the_new_tempo_until_it_is_generated_anew(tmp_path: Path) -> None:
    # A source of .25 that the model turns into .75: the raw source must not be heard again.
    write_tone(tmp_path / "low.wav", 0.25, 8.0)
    engine = MockEngine(lambda r: 0.75)
    instrument = offline(engine, tmp_path)
    instrument.session.apply('tempo 120\nloop 4\nsource "low.wav"')
    run(instrument, 3 * BAR)
    engine.fail = True
    instrument.session.apply("tempo 125")
    out = run(instrument, 3 * BAR)
    assert instrument.session.state.tempo.segment_of(instrument.output.playhead.now()).bpm == 125
    assert np.median(out[-BAR:]) == pytest.approx(0.75, abs=0.02)
    assert not edges(out[4800:], 0.25, 0.75)


@pytest.mark.parametrize(
    ("bpm", "beats", "cycles"), [("174", 4, 8), ("133.7", 4, 3), ("120", 7, 2), ("61.803", 5, 1)]
)
def test_a_loop_of_any_tempo_and_metre_has_its_exact_length_in_samples(
    bpm: str, beats: int, cycles: int
) -> None:
    tempo = TempoMap.start(Fraction(bpm), beats)
    stage = make_loop(DeckState("main", cycles=cycles), tempo, Fraction(0), 1)
    exact = Fraction(cycles * beats * 60 * 48_000) / Fraction(bpm)
    assert stage.lap == exact
    assert 0 <= stage.samples - exact < 1
    for lap in range(1, 50):
        assert abs(stage.lap_start(lap) - lap * exact) <= Fraction(1, 2)


@pytest.mark.parametrize(("bpm", "beats", "cycles"), [("174", 4, 8), ("133.7", 4, 3), ("90", 7, 1)])
def test_the_seam_of_a_loop_is_a_splice_like_any_other(bpm: str, beats: int, cycles: int) -> None:
    # Frames differ along the loop, so the seam goes from the last frame's level to the first's.
    engine = MockEngine(lambda r: 0.5)
    held = engine.decode

    def shaped(latent: Floats) -> Floats:
        n = np.arange(latent.shape[1] * 1920) / 48_000
        wave = 0.3 * np.sin(2 * np.pi * 220 * n)[None, :, None]
        return np.asarray(held(latent) * wave, np.float32)

    engine.decode = shaped  # type: ignore[method-assign]
    instrument = offline(engine)
    instrument.session.apply(f"ring always\nbeats {beats}\ntempo {bpm}\nloop {cycles}")
    stage = instrument.session.state.decks["main"].loop
    assert stage is not None
    out = run(instrument, 2 * stage.samples + BAR)[:, None]
    seam = stage.lap_start(1)
    own = steepest(out[seam // 2 : seam // 2 + BAR // 2])
    assert steepest(out[seam - 2400 : seam + 2400]) <= 1.2 * own + 1e-4
    assert longest_silence(out[4800:]) < 240


class Wave(MockEngine):
    """Frames rise and fall once along the loop."""

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Any]) -> torch.Tensor:
        turn = torch.arange(x.shape[1]) * (2 * torch.pi / x.shape[1])
        return (x - (0.4 + 0.3 * torch.sin(turn))[None, :, None]) / t[:, None, None]


@pytest.mark.parametrize(("bpm", "cycles"), [("174", 4), ("133.7", 3)])
def test_a_lap_that_is_known_goes_over_into_the_next_as_the_first_did(
    bpm: str, cycles: int
) -> None:
    instrument = offline(Wave(lambda r: 0.0))
    instrument.session.apply(f"tempo {bpm}\nloop {cycles}")
    stage = instrument.session.state.decks["main"].loop
    assert stage is not None
    out = run(instrument, 4 * stage.samples + BAR)[:, None]
    laps = [out[stage.lap_start(k) - 4800 : stage.lap_start(k) + 4800] for k in (1, 2, 3)]
    for lap in laps:
        # No steeper than the step from one frame to the next.
        assert steepest(lap) <= 0.3 * 2 * np.pi / stage.frames
    # At this tempo laps differ by a sample in length.
    assert all(np.allclose(lap, laps[0], atol=0.3 * 2 * np.pi / stage.frames) for lap in laps)


def test_a_loop_at_another_tempo_is_the_same_loop() -> None:
    n = np.arange(96_000)
    buffer = np.repeat(np.sin(2 * np.pi * 100 * n / 48_000)[:, None], 2, axis=1).astype(np.float32)
    faster = retimed(buffer, 90_000)
    assert faster.shape == (90_000, 2)
    # The pitch stays, the level stays, and it closes on itself.
    spectrum = np.abs(np.fft.rfft(faster[:, 0]))
    assert np.argmax(spectrum) * 48_000 / 90_000 == pytest.approx(100, abs=1)
    assert np.sqrt(np.mean(faster**2)) == pytest.approx(np.sqrt(0.5), rel=0.05)
    assert steepest(np.concatenate([faster[-200:], faster[:200]])) < 1.5 * steepest(buffer)


@pytest.mark.timeout(600)
def test_imp_changes_tempo_and_source_without_a_gap_or_a_click() -> None:
    with Offline("imp", folders=(shipped("patterns"),)) as instrument:
        session = instrument.session
        session.apply('tempo 120\nloop 1\nsource "loops/dub_120.flac"\ndenoise = .5')
        pieces = [instrument.render(cycles=2)]
        session.apply("tempo 128")
        pieces.append(instrument.render(cycles=2.5))
        session.apply('source "loops/house_124.flac"')
        pieces.append(instrument.render(cycles=2.5))
        out = np.concatenate(pieces)
        starts = [s.at for s in session.state.tempo.segments[1:]]
        stage = session.state.decks["main"].loop
    assert stage is not None
    # Both land on a bar line, and the loop's own quiet places are the longest there are.
    switches = [int(starts[0]), stage.from_sample]
    tempo = session.state.tempo
    assert all(tempo.sample_at(Fraction(round(tempo.cycle_at(s)))) == s for s in switches)
    assert longest_silence(out[4800:]) < 240
    for at in switches:
        around = np.concatenate([out[at - 48_000 : at - 960], out[at + 960 : at + 48_000]])
        assert steepest(out[at - 960 : at + 960]) <= 1.1 * steepest(around)


@pytest.mark.parametrize("fault", ["gone", "damaged"])
def test_a_source_that_is_gone_or_damaged_blocks_no_tempo_and_no_loop(
    tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "low.wav"
    write_tone(path, 0.25, 4.0)
    instrument = offline(MockEngine(lambda r: 0.25 if r.source is not None else 0.1), tmp_path)
    instrument.session.apply('tempo 120\nloop 2\nsource "low.wav"')
    run(instrument, 2 * BAR)
    if fault == "gone":
        path.unlink()
    else:
        path.write_bytes(b"RIFF")
    outcome = instrument.session.apply("tempo 126")
    assert any("low.wav cannot be read now" in line for line in outcome.messages)
    instrument.session.apply("loop 4")
    assert instrument.session.state.bpm == 126
    out = run(instrument, 6 * BAR)
    assert abs(float(np.median(out[-BAR:])) - 0.25) < 0.01
    # The text that names it is refused.
    with pytest.raises(DemonError):
        instrument.session.apply('source "low.wav"')
