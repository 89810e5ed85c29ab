"""The picture of a screen."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tests.tools.screen_svg import parse, svg

SCREEN = "\x1b[1;36mdemon> \x1b[39m\x1b[22mblend\x1b[0m <1>\n│ ⣀█▮\x1b[7m▁\x1b[0m ╮\n\n"


def test_cells_keep_their_colours() -> None:
    rows = parse(SCREEN)
    assert "".join(c.char for c in rows[0]) == "demon> blend <1>"
    assert rows[0][0].look.bold
    assert not rows[0][8].look.bold
    assert rows[1][5].look.reverse
    assert len(rows) == 2


def test_the_picture_is_well_formed_and_holds_the_words() -> None:
    root = ET.fromstring(svg(SCREEN))
    said = "".join(e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "demon>" in said
    assert "<1>" in said
    assert not set(said) & set("│⣀█▮▁╮")
