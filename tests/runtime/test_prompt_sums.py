"""Sums of prompts as the ring gets them: a condition for each text that counts, merged by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.runtime.scheduler import weights_of
from tests.helpers.mock_engine import MockEngine, offline, run

BAR = 96_000
HEAD = "tempo 120\nloop 1\n"


class Worded(MockEngine):
    """The level of a row is that of its own condition: .1 for a, .2 for b ..."""

    def __init__(self) -> None:
        super().__init__(lambda request: 0.0)

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Any]) -> torch.Tensor:
        self.requests += [row.request for row in rows if row.request not in self.requests[-64:]]
        levels = torch.tensor([0.1 * (ord(row.condition[0]) - 96) for row in rows])
        return (x - levels[:, None, None]) / t[:, None, None].to(x.dtype)


def heard(text: str, bars: int = 4) -> np.ndarray:
    instrument = offline(Worded())
    instrument.session.apply(HEAD + text)
    return run(instrument, bars * BAR)[-BAR:]


def test_texts_count_by_their_share() -> None:
    assert heard("prompt = 'a' * .5 + 'd' * .5")[-1] == pytest.approx(0.25, abs=1e-3)
    assert heard("prompt = 'a' * 3 + 'd'")[-1] == pytest.approx(0.175, abs=1e-3)
    assert heard("prompt = 'a' + 'b' + 'c'")[-1] == pytest.approx(0.2, abs=1e-3)


def test_weights_move_within_the_loop() -> None:
    sound = heard("prompt = 'a' * \"1 0\" + 'c' * \"0 1\"")
    assert sound[BAR // 4] == pytest.approx(0.1, abs=2e-3)
    assert sound[3 * BAR // 4] == pytest.approx(0.3, abs=2e-3)


def test_a_weight_below_0_leads_away() -> None:
    # (.2 - .5 * .1) / (1 - .5): by half of what leads on at most.
    assert heard("prompt = 'b' - 'a'")[-1] == pytest.approx(0.3, abs=2e-3)
    assert heard("prompt = 'b' - 'a' * .25")[-1] == pytest.approx(0.7 / 3, abs=2e-3)


def test_a_text_of_weight_0_costs_nothing() -> None:
    instrument = offline(Worded())
    instrument.session.apply(HEAD + "prompt = 'a' + 'b' * 0")
    run(instrument, 2 * BAR)
    engine = instrument.output.engine
    assert isinstance(engine, Worded)
    assert {len(request.conditions) for request in engine.requests} == {0}


def test_what_stands_still_is_made_once() -> None:
    instrument = offline(Worded())
    instrument.session.apply(HEAD + "prompt = 'a' * sine + 'b' * cosine")
    run(instrument, 8 * BAR)
    assert instrument.output.generator.ring.stats().made == 1
    instrument.session.apply("prompt = 'a' * sine + 'b' * .5")
    run(instrument, 8 * BAR)
    assert instrument.output.generator.ring.stats().made == 2


def test_the_first_condition_is_the_one_that_counts_most() -> None:
    lanes = {"prompt.0": np.full(4, 0.2, np.float32), "prompt.1": np.full(4, 0.8, np.float32)}
    (first, one), (second, share) = weights_of(["a", "b"], lanes, 4)
    assert (first, second) == ("b", "a")
    assert one.tolist() == [1.0] * 4
    assert share == pytest.approx(0.25)


def test_without_a_weight_above_0_the_first_text_plays() -> None:
    assert [text for text, _ in weights_of(["a", "b"], {}, 4)] == ["a"]
