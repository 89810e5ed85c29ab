"""Prompts: what is heard, what is guessed, what is not understood; and the arrays made of it."""

from __future__ import annotations

import numpy as np
import pytest

from demon_live.models import conditioning
from demon_live.models.conditioning import Lexicon, check_prompt, lexicon_of, prepare, read
from demon_live.models.imp import labels as imp_labels


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return lexicon_of("imp")


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("acid techno, 303", {"techno", "acid", "acid-line"}),
        ("Acid   TECHNO", {"techno", "acid", "acid-line"}),
        ("acid, techno", {"acid", "techno"}),
        ("hi-hats", {"hats"}),
        ("hihat", {"hats"}),
        ("pads", {"pad"}),
        ("drum & bass", {"dnb"}),
        ("drum'n'bass", {"dnb"}),
        ("d&b", {"dnb"}),
        ("a track with some pads and no kick", {"pad", "no-kick"}),
        ("techno without acid", {"techno"}),
        ("128 bpm techno", {"techno"}),
        ("techno 128bpm", {"techno"}),
        ("4/4 kick", {"four-on-the-floor"}),
        ("", set()),
    ],
)
def test_tags_that_are_heard(lexicon: Lexicon, text: str, tags: set[str]) -> None:
    reading = read(text, lexicon)
    assert set(reading.tags) == tags
    assert not reading.unknown
    assert not reading.guessed


def test_the_longest_phrase_wins(lexicon: Lexicon) -> None:
    assert "dub-chord" in read("dub techno", lexicon).tags
    assert "techno" not in read("dub techno", lexicon).tags
    assert set(read("dub, techno", lexicon).tags) == {"dub", "techno"}


def test_words_have_weights(lexicon: Lexicon) -> None:
    assert read("acid:1.5, techno:.4", lexicon).tags == {"acid": 1.5, "techno": 0.4}
    # A word with its own weight begins no longer phrase.
    assert read("acid:1.5 techno:.4", lexicon).tags == {"acid": 1.5, "techno": 0.4}
    assert read("acid:99", lexicon).tags == {"acid": conditioning.MAX_WEIGHT}
    half = read("industrial:.5", lexicon).tags
    whole = read("industrial", lexicon).tags
    assert half == {tag: weight / 2 for tag, weight in whole.items()}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("techno in A minor", "A minor"),
        ("Am, house", "A minor"),
        ("F#min", "F# minor"),
        ("F sharp minor", "F# minor"),
        ("C major", "C major"),
        ("Bb", "Bb minor"),
        ("d dorian", "D dorian"),
        ("I am here", ""),
        ("a pad", ""),
        ("minor", ""),
    ],
)
def test_keys_in_prompts(lexicon: Lexicon, text: str, key: str) -> None:
    assert read(text, lexicon).key == key


def test_misspelt_words_are_guessed_and_said(lexicon: Lexicon) -> None:
    assert read("tecno", lexicon).tags == {"techno": 1.0}
    assert check_prompt("tecno", lexicon) == ["heard: techno", "'tecno' was taken for 'techno'"]


def test_unknown_words_are_listed_with_near_ones(lexicon: Lexicon) -> None:
    lines = check_prompt("acid techno, foobar", lexicon)
    assert lines[0] == "heard: acid techno"
    assert lines[1].startswith("unknown: 'foobar' (near: ")
    assert check_prompt("qqqq", lexicon)[0] == "heard: nothing"
    assert check_prompt("  ", lexicon) == []


def test_nothing_that_is_typed_raises(lexicon: Lexicon) -> None:
    rng = np.random.default_rng(0)
    pieces = [
        "acid",
        ":",
        "1.5",
        "no",
        "A",
        "minor",
        "#",
        ",",
        "-",
        "&",
        "'",
        "é",
        "日本",
        "::",
        "bpm",
        "\x00",
    ]
    for _ in range(300):
        text = " ".join(rng.choice(pieces, 6)).replace(" :", ":")
        reading = read(text, lexicon)
        assert all(0 <= weight <= conditioning.MAX_WEIGHT for weight in reading.tags.values())
        check_prompt(text, lexicon)


def test_every_word_of_the_lexicon_means_what_it_says(lexicon: Lexicon) -> None:
    for word, tags in lexicon.vocabulary.synonyms.items():
        assert read(word, lexicon).tags == dict(tags), word


def test_a_condition_has_the_place_in_time_of_each_frame(lexicon: Lexicon) -> None:
    c = prepare("techno", "dub", "A minor", 120.0, 4, 4, 200, lexicon)
    vocabulary = lexicon.vocabulary
    assert c.phase.shape == (200, 2)
    # 25 frames a second, 2 seconds a bar: frame 50 is the second bar line.
    np.testing.assert_allclose(c.phase[50], [1.0, 0.25])
    assert c.cond[vocabulary.tags.index("techno")] == 1
    assert c.cond2[vocabulary.tags.index("dub")] == 1
    assert not c.cond.flags.writeable
    silent = c.silent()
    assert not silent.cond.any()
    assert silent.phase is c.phase


def test_the_key_control_wins_over_the_prompts(lexicon: Lexicon) -> None:
    a = prepare("techno in C major", "", "A minor", 120.0, 4, 4, 200, lexicon).cond
    b = prepare("techno", "", "A minor", 120.0, 4, 4, 200, lexicon).cond
    c = prepare("techno in C major", "", "", 120.0, 4, 4, 200, lexicon).cond
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    with pytest.raises(ValueError, match="not a key"):
        prepare("techno", "", "H minor", 120.0, 4, 4, 200, lexicon)


def test_prompt_mix_blends_the_vectors(lexicon: Lexicon) -> None:
    c = prepare("techno", "dub", "", 120.0, 4, 4, 200, lexicon)
    np.testing.assert_array_equal(conditioning.mixed(c, None), c.cond)
    np.testing.assert_array_equal(conditioning.mixed(c, 1.0), c.cond2)
    curve = np.linspace(0, 1, 200, dtype=np.float32)
    np.testing.assert_allclose(conditioning.mixed(c, curve), (c.cond + c.cond2) / 2, atol=1e-6)
    alone = prepare("techno", "", "", 120.0, 4, 4, 200, lexicon)
    assert conditioning.mixed(alone, 0.5) is alone.cond


def test_words_for_completion() -> None:
    words = conditioning.words("imp")
    assert words == sorted(words)
    assert {"acid techno", "dub techno", "303"} <= set(words)
    assert imp_labels.LABELS == 128  # frozen with the weights
