"""Names, blocks, colours and fixes in the text of a score."""

from __future__ import annotations

from pathlib import Path

import pytest

from demon_live.editors import text as score
from demon_live.lang.diagnostics import MISTAKES
from demon_live.session.check import faults_of

SCORE = """\
let wob(n) = saw.slow(n)   # wob is a let
let twice = wob(2) + "0 .5".wob

deck drums {
  blend = twice.slow(2)

  prompt = 'wob twice drop'
}
scene drop { blend = .5 }
scene rise from drop {
  blend = wob(4)
}
chain drop 8, rise 4, drop 2
go drop
"""


def found(kind: str, name: str) -> list[tuple[int, bool]]:
    """(line, defines) of each place of a name."""
    places = [p for p in score.places(SCORE) if (p.kind, p.name) == (kind, name)]
    assert all(SCORE[p.start : p.end] == name for p in places)
    return [(SCORE.count("\n", 0, p.start), p.defines) for p in places]


def test_places_of_names_are_those_that_mean_them() -> None:
    assert found("let", "wob") == [(0, True), (1, False), (1, False), (10, False)]
    assert found("let", "twice") == [(1, True), (4, False)]
    assert found("let", "n") == []
    assert found("scene", "drop") == [
        (8, True), (9, False), (12, False), (12, False), (13, False),
    ]  # fmt: skip
    assert found("scene", "rise") == [(9, True), (12, False)]


def test_blocks_and_paragraphs_are_whole() -> None:
    assert score.blocks(SCORE) == [(3, 7), (9, 11)]
    assert score.block_at(SCORE, 0) == (0, 1)
    # A blank line inside of a block does not end it.
    assert score.block_at(SCORE, 6) == (3, 13)
    assert score.block_at(SCORE, 3) == (3, 7)
    assert score.block_at("a\n\nb", 2) == (2, 2)
    assert score.block_at("", 7) == (0, 0)


def test_each_colour_covers_its_word() -> None:
    kinds = {SCORE[a:b]: score.COLOURS[kind][0] for a, b, kind in score.colours(SCORE)}
    assert kinds["blend"] == "property"
    assert kinds["saw"] == "variable"
    assert kinds["slow"] == "function"
    assert kinds["8"] == "number"
    assert kinds["# wob is a let"] == "comment"
    assert [score.COLOURS[k][0] for a, b, k in score.colours("\n\nhush")] == ["keyword"]


FIXES = [
    ("noise = 1(3,8)", 'noise = "1(3,8)"'),
    ('denois = "<.4 .8>"', 'denoise = "<.4 .8>"'),
    ("blend = sine.slwo(4)", "blend = sine.slow(4)"),
    ("gain = 1,25", "gain = 1.25"),
    ("blend = sine.range(.2, .9", "blend = sine.range(.2, .9)"),
    ("blend = sine.slow 4", "blend = sine.slow(4)"),
    ('blend = "0.3 <0.9', 'blend = "0.3 <0.9>"'),
    ("tempo = 128", "tempo 128"),
    ("deck x {\n to osc 9\n fog = sine.slwo(4)\n}", "deck x {\n to osc 9\n fog = sine.slow(4)\n}"),
    ("deck x\nto midi 'nano'\ncc74 = 1,5", "deck x\nto midi 'nano'\ncc74 = 1.5"),
    ("deck x {\n to midi 'nano'\n velocty = 1\n}", "deck x {\n to midi 'nano'\n velocity = 1\n}"),
    ("blend(sine)", "blend = sine"),
    ("prompt = acid", "prompt = 'acid'"),
    ("setcpm(120/4)", "tempo 120"),
    ("blend = sine.range(.2, 1.4)", "blend = sine.range(0.2, 1)"),
    ('let w = "0 1"\nblend = w.slwo(2)', 'let w = "0 1"\nblend = w.slow(2)'),
]


@pytest.mark.parametrize(("wrong", "right"), FIXES)
def test_a_fix_is_what_the_hint_says(wrong: str, right: str) -> None:
    path = Path("x.demon")
    (fault,) = faults_of(path, wrong)
    mended = [wrong[: f.start] + f.new + wrong[f.end :] for f in score.fixes(wrong, fault)]
    assert mended[:1] == [right]
    assert faults_of(path, right) == ()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_no_fix_leaves_the_error(mistake: object) -> None:
    wrong: str = mistake.example  # type: ignore[attr-defined]
    path = Path("x.demon")
    for fault in faults_of(path, wrong):
        for fix in score.fixes(wrong, fault):
            mended = wrong[: fix.start] + fix.new + wrong[fix.end :]
            assert fault.message not in {f.message for f in faults_of(path, mended)}
