"""A deck that is made from the notes of its score: each lap from its own, heard on their steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.audio.files import write_audio
from demon_live.core import (
    RATES,
    ControlBlock,
    EngineDeck,
    EngineState,
    Floats,
    NoteEvent,
    Phrase,
    SlotValues,
)
from demon_live.engine.ring import RingStats
from demon_live.notes.lanes import LANES
from demon_live.runtime.generator import Generator
from demon_live.runtime.guides import Guides
from demon_live.runtime.offline import Offline
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap, VirtualPlayhead
from tests.helpers.mock_engine import MockEngine, offline, run

BAR = 96_000  # at tempo 120: 50 frames
HEAD = "tempo 120\nloop 2\nsource notes\n"


class Echo(MockEngine):
    """Sounds like its source: the peak of each frame."""

    def __init__(self) -> None:
        super().__init__(lambda request: 0.0)
        self.encoded = 0

    def encode(self, audio: Floats) -> Floats:
        self.encoded += 1
        peaks = np.abs(audio).reshape(-1, RATES.hop, 2).max(1)
        return np.asarray(peaks > 0.05, np.float32) * 0.5

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Any]) -> torch.Tensor:
        self.requests += [row.request for row in rows if row.request not in self.requests[-64:]]
        sources = [
            torch.zeros_like(x[0]) if r.request.source is None else torch.tensor(r.request.source)
            for r in rows
        ]
        return (x - torch.stack(sources)) / t[:, None, None].to(x.dtype)


def playing(text: str, folder: Path | None = None) -> Offline:
    instrument = offline(Echo(), folder)
    instrument.session.apply(HEAD + text)
    return instrument


def steps(audio: Floats, a_bar: int = 4) -> list[str]:
    """For each bar, where something begins among its steps."""
    level = audio[RATES.hop // 2 :: RATES.hop] > 0.2
    rises = level & ~np.concatenate([[False], level[:-1]])
    begins = np.arange(len(level) // 50 * a_bar) * 50 // a_bar
    marks = ["x" if rises[max(0, n - 1) : n + 3].any() else "." for n in begins]
    return ["".join(marks[b : b + a_bar]) for b in range(0, len(marks), a_bar)]


def stats(instrument: Offline) -> RingStats:
    return instrument.output.generator.ring.stats()


def test_a_hit_is_heard_on_its_step_in_every_lap() -> None:
    instrument = playing('kick = "<[1 ~ ~ 1] [~ 1 ~ ~] [1 ~ 1 ~] [~ ~ ~ 1]>"')
    heard = steps(run(instrument, 8 * BAR))
    assert heard[1:8] == [".x..", "x.x.", "...x", "x..x", ".x..", "x.x.", "...x"]


def test_equal_laps_cost_nothing_twice() -> None:
    instrument = playing('kick = "<1 [1 1] 1 [1 ~ 1 1]>"')
    run(instrument, 32 * BAR)
    engine = instrument.output.engine
    assert isinstance(engine, Echo)
    assert (stats(instrument).made, engine.encoded) == (2, 2)
    assert stats(instrument).resting


def test_a_scheduled_change_is_heard_on_its_bar_and_the_bars_before_it_stay() -> None:
    instrument = playing('kick = "1 ~ ~ ~"')
    before = run(instrument, 4 * BAR)
    instrument.session.apply('kick = "~ ~ 1 ~" in 1')
    assert steps(np.concatenate([before, run(instrument, 4 * BAR)]))[3:8] == [
        "x...",
        "x...",
        "..x.",
        "..x.",
        "..x.",
    ]


def test_a_change_of_the_next_lap_makes_nothing_for_this_one() -> None:
    instrument = playing('kick = "1 ~ ~ ~"')
    run(instrument, 4 * BAR)
    made = stats(instrument).made
    instrument.session.apply('kick = "~ 1 ~ ~" at 2')
    run(instrument, 8 * BAR)
    assert stats(instrument).made == made + 1


def test_what_is_typed_now_is_heard_at_once() -> None:
    instrument = playing('kick = "1 ~ ~ ~"')
    run(instrument, 4 * BAR)
    instrument.session.apply('kick = "~ 1 ~ 1" now')
    heard = steps(run(instrument, 2 * BAR))
    assert heard[1] == ".x.x"
    assert heard[0][3] == "x"


def test_the_prompt_chooses_the_kit() -> None:
    instrument = playing('prompt = "<house dub>/2"\nbass = "a1"')
    run(instrument, 4 * BAR)
    engine = instrument.output.engine
    assert isinstance(engine, Echo)
    assert engine.encoded == 2


def test_notes_are_played_over_a_file(tmp_path: Path) -> None:
    audio = np.zeros((4 * 48_000, 2), np.float32)
    audio[BAR // 2 : BAR // 2 + 9600] = 0.5
    write_audio(tmp_path / "hit.wav", audio)
    instrument = offline(Echo(), tmp_path)
    instrument.session.apply(
        'tempo 120\nloop 2\nsource "hit.wav" bars 2 + notes\nkick = "1 ~ ~ ~"', "<test>"
    )
    assert steps(run(instrument, 4 * BAR))[2:4] == ["x.x.", "x..."]


def test_without_source_notes_nothing_is_played() -> None:
    instrument = offline(Echo())
    instrument.session.apply('tempo 120\nloop 2\nkick = "1*4"')
    assert np.abs(run(instrument, 2 * BAR)).max() < 0.01


def test_undo_takes_the_notes_back() -> None:
    instrument = playing('kick = "1 ~ ~ ~"')
    run(instrument, 2 * BAR)
    instrument.session.apply('kick = "~ ~ 1 ~"')
    run(instrument, 4 * BAR)
    instrument.session.apply("undo")
    run(instrument, 2 * BAR)
    assert steps(run(instrument, 2 * BAR))[1] == "x..."


@pytest.mark.parametrize("word", ["rest", "always"])
def test_a_ring_that_never_rests_plays_the_same_steps(word: str) -> None:
    instrument = playing(f'ring {word}\nkick = "<[1 ~ ~ ~]!2 [~ ~ 1 ~]!2>"')
    heard = steps(run(instrument, 8 * BAR))
    assert heard[3:8] == ["..x.", "x...", "x...", "..x.", "..x."]


def test_an_engine_that_is_told_notes_gets_them_frame_by_frame() -> None:
    engine = Echo()
    engine.told_notes = True  # type: ignore[attr-defined]
    instrument = offline(engine)
    instrument.session.apply(HEAD + 'kick = "1*4"\nsource none')
    run(instrument, BAR)
    lanes = engine.requests[-1].lanes
    assert lanes is not None
    assert lanes.shape == (100, LANES)
    assert np.flatnonzero(lanes[:, 27]).tolist() == [0, 12, 25, 37, 50, 62, 75, 87]


# --- beside the ring --------------------------------------------------------------------------

TEMPO = TempoMap.start(Fraction(120))
LOOP = make_loop(DeckState("main", cycles=1, source="notes"), TEMPO, Fraction(0), 1)


def one(pitch: float) -> Phrase:
    return Phrase((NoteEvent("bass", 0.0, 1.0, pitch, 1.0),), ("bass",))


def test_beside_the_ring_what_is_asked_for_first_is_made_next() -> None:
    engine, told = Echo(), list[str]()
    with ThreadPoolExecutor(1) as pool:
        guides = Guides(engine, lambda name: np.zeros((0, 2), np.float32), pool, told.append)
        # What nobody asks for any more is not made.
        for pitch in (30.0, 31.0, 32.0):
            assert not guides.ready(LOOP, one(pitch), "")
        guides.turn()
        for _ in range(2000):
            if guides.ready(LOOP, one(30.0), ""):
                break
            pool.submit(lambda: None).result()
            guides.turn()
        assert guides.get(LOOP, one(30.0), "") is not None
    assert (engine.encoded, told) == (1, [])


def test_an_engine_that_reads_no_source_says_so_and_plays_from_noise() -> None:
    engine, told = Echo(), list[str]()

    def refuse(audio: Floats) -> Floats:
        raise RuntimeError("no ears")

    engine.encode = refuse  # type: ignore[method-assign]
    guides = Guides(engine, lambda name: np.zeros((0, 2), np.float32), None, told.append)
    assert guides.ready(LOOP, one(30.0), "")
    assert guides.get(LOOP, one(30.0), "") is None
    assert guides.get(LOOP, one(30.0), "") is None
    assert told == ["the notes cannot be played to the engine: no ears"]


class Slow(Echo):
    """Encodes when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_encode = threading.Event()

    def encode(self, audio: Floats) -> Floats:
        assert self.may_encode.wait(60)
        return super().encode(audio)


def test_until_the_first_generation_a_deck_plays_its_notes_as_they_are() -> None:
    engine, playhead = Slow(), VirtualPlayhead()
    loop = make_loop(DeckState("main", cycles=2, source="notes"), TEMPO, Fraction(0), 1)
    buffer = np.zeros((loop.samples, 2), np.float32)
    generator = Generator(
        engine,  # type: ignore[arg-type]
        playhead,
        open_buffer=lambda name: buffer,
        read_pcm=lambda name: buffer,
        tick_samples=3840,
        background=True,
    )
    hit = Phrase((NoteEvent("kick", 1.0, 0.25, 0.0, 1.0),), ("kick",))
    rest = SlotValues(0, {}, jump=False)
    block = ControlBlock("main", 1, loop, 0, plan=(rest,), phrases=(hit, hit))
    generator.apply(EngineState({"main": EngineDeck(loop, block)}))
    try:
        end = time.monotonic() + 60
        while not buffer.any():
            assert time.monotonic() < end
            generator.turn()
        loud = np.flatnonzero(np.abs(buffer).max(1) > 0.05)
        assert BAR <= loud[0] < BAR + 480
        assert not generator.primed
        assert generator.ring.stats().made == 0
        engine.may_encode.set()
        while not generator.primed:
            assert time.monotonic() < end
            generator.turn()
    finally:
        engine.may_encode.set()
        generator.close()
