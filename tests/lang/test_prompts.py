"""Prompts as weighted sums: which texts there are, how much each counts, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from demon_live.errors import ScoreError
from demon_live.lang import Lane, compile_source
from demon_live.lang.prompts import MARK, texts_of

BEGIN = np.array([0.0, 0.25, 0.5, 0.75])


def lane(text: str) -> Lane:
    return compile_source(f"prompt = {text}").decks["main"]["prompt"]


def weights(text: str, times: np.ndarray = BEGIN) -> list[list[float]]:
    found = lane(text)
    return [[round(float(x), 3) for x in found.weight(i, times)] for i in range(found.width)]


def test_texts_and_their_weights() -> None:
    found = lane("'a' * saw + 'b' * .3 - 'c'")
    assert texts_of(str(found.at(Fraction(0)))) == ["a", "b", "c"]
    assert weights("'a' * saw + 'b' * .3 - 'c'") == [
        [0.0, 0.25, 0.5, 0.75],
        [0.3] * 4,
        [-1.0] * 4,
    ]
    assert found.text == "'a' * saw + 'b' * .3 - 'c'"


def test_weights_stand_on_either_side_and_before_parentheses() -> None:
    assert weights("saw * 'a'") == [[0.0, 0.25, 0.5, 0.75]]
    assert weights("('a' + 'b' * .5) * saw / 2") == [
        [0.0, 0.125, 0.25, 0.375],
        [0.0, 0.062, 0.125, 0.188],
    ]
    assert weights("-'a' + 'b'") == [[-1.0] * 4, [1.0] * 4]


def test_texts_may_be_patterns_and_words() -> None:
    score = "let calm = 'pad'\nprompt = \"<'a' 'b'>\" * .5 + calm"
    found = compile_source(score).decks["main"]["prompt"]
    assert [texts_of(str(found.at(Fraction(c)))) for c in (0, 1)] == [["a", "pad"], ["b", "pad"]]
    assert found.jumps(Fraction(0), Fraction(3)) == [0, 1, 2]
    assert not found.continuous


def test_a_plain_prompt_is_one_text_of_weight_one() -> None:
    found = lane("'a'")
    assert (found.width, found.at(Fraction(0))) == (1, "a")
    assert weights("'a'") == [[1.0] * 4]


def test_a_change_of_prompt_changes_its_weights_at_the_same_moment() -> None:
    both = Lane.switch(lane("'a' * .5 + 'b'"), lane("'c'"), Fraction(1, 2))
    assert both.width == 2
    assert [both.weight(i, BEGIN).tolist() for i in (0, 1)] == [[0.5, 0.5, 1, 1], [1, 1, 0, 0]]
    assert both.at(Fraction(0)) == f"a{MARK}b"
    assert both.at(Fraction(1, 2)) == "c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'a' * 'b'", "a prompt is a sum of texts"),
        ("sine + 'a'", "a prompt is a sum of texts"),
        ("'a' + .5", "a prompt is a sum of texts"),
        (" + ".join(["'a'"] * 9), "more than 8 texts"),
    ],
)
def test_what_is_no_sum_of_texts_is_refused_at_its_place(text: str, message: str) -> None:
    with pytest.raises(ScoreError) as caught:
        lane(text)
    assert caught.value.message.startswith(message)
    assert caught.value.span is not None
