"""What there is, in lists: `?words`, `scenes`, `status` ..."""

from __future__ import annotations

import pytest

from demon_live.ui import guide
from demon_live.ui.lists import BARE, LISTS
from tests.helpers.ui_fakes import FakeSession


def said(name: str, session: FakeSession | None = None) -> str:
    return "".join(text for _, text in guide.about(name, session or FakeSession()))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("functions", [".every", "perlin", "cat()"]),
        ("mini", ["(k,n,r)", "< >"]),
        ("words", ["75 tags of imp", "acid", "techno"]),
        ("keys", ["Alt-Enter", "hush"]),
        ("class", ["slot", "set when a generation is born"]),
        ("scenes", ["drop", "go drop"]),
        ("decks", ["main", "loop 4", "from noise", "blend"]),
        ("lets", ["wob(n)"]),
        ("snapshots", ["none yet: snapshot calm"]),
        ("status", ["imp", "128 bpm", "main"]),
    ],
)
def test_each_list_says_what_there_is(name: str, parts: list[str]) -> None:
    text = said(name)
    assert [part for part in parts if part not in text] == []
    assert max(map(len, text.splitlines())) <= 79


def test_help_names_all_lists_and_explains_the_words_of_the_surface() -> None:
    overview = "".join(text for _, text in guide.overview())
    assert [name for name in LISTS if f"?{name}" not in overview] == ["tags"]
    for word in ("class", "cycle", "lead", "late", "detach", "quit", "stage", "source"):
        assert said(word)


def test_some_are_words_of_the_prompt() -> None:
    assert {word for word in LISTS if guide.question(word) == word} == BARE
    assert guide.question("decks\n") == "decks"
