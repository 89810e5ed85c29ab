"""The language end to end, in a few lines."""

from fractions import Fraction

import numpy as np
import pytest

from demon_live.lang import DemonError, compile_source, mini


def test_mini_has_exact_times() -> None:
    events = mini("a [b c]").query(0, 1)
    assert [(e.begin, e.end, e.value) for e in events] == [
        (0, Fraction(1, 2), "a"), (Fraction(1, 2), Fraction(3, 4), "b"), (Fraction(3, 4), 1, "c")
    ]


def test_a_lane_samples_arrays() -> None:
    program = compile_source('blend = sine.range(.2, .9)\nnoise = "0 .5"')
    times = np.array([0.0, 0.25, 0.5, 0.75])
    assert program.decks["main"]["blend"].sample(times) == pytest.approx([0.55, 0.9, 0.55, 0.2], abs=1e-6)
    assert program.decks["main"]["noise"].sample(times).tolist() == [0, 0, 0.5, 0.5]


def test_all_errors_are_told() -> None:
    with pytest.raises(DemonError) as caught:
        compile_source("denois = .5\nblend = sine.slo(2)\n")
    assert [(e.span.line, e.hint) for e in caught.value.errors] == [
        (1, "did you mean denoise?"), (2, "did you mean slow?")
    ]
