"""Pictures of patterns, sounds and latents: what they show, and that they are well formed."""

from __future__ import annotations

import base64
import re
import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest

from demon_live import Rendered, pictures
from demon_live import dsl as d
from demon_live.core import RATES, Generation, Request
from demon_live.errors import ScoreError
from demon_live.lang.dsl_pattern import Pat
from demon_live.replay.generate import Generated

NAMES = {"s": "http://www.w3.org/2000/svg"}


def rows(svg: str, kind: str) -> list[ET.Element]:
    """The elements of a kind; raises if the text is no XML."""
    return ET.fromstring(svg).findall(f"s:{kind}", NAMES)


def texts(svg: str) -> list[str]:
    return [row.text or "" for row in rows(svg, "text")]


def points(svg: str) -> list[tuple[float, float]]:
    (line,) = rows(svg, "polyline")
    pairs = (point.split(",") for point in line.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def test_a_pattern_is_drawn_over_its_cycles_between_its_ends() -> None:
    svg = (d.saw * 2 - 1).plot(cycles=2).svg
    assert texts(svg) == ["saw * 2 - 1", "0", "1", "2", "0.9964", "-1"]
    drawn = points(svg)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    # Up, down at the middle, and up again: lower values lie further down.
    heights = [y for _, y in drawn]
    half = len(heights) // 2
    assert heights[0] == heights[half] == max(heights) == 120
    assert heights[half - 1] == heights[-1] == min(heights) == 40


def test_a_pattern_that_stays_is_a_line_in_the_middle() -> None:
    svg = d.mini("3").plot().svg
    assert texts(svg) == ['"3"', "0", "1", "3"]
    assert {y for _, y in points(svg)} == {80}


@pytest.mark.parametrize("pattern", [d.text("acid & <bass>"), d.rev, d.fast(2)])
def test_what_has_no_curve_has_no_picture_and_is_no_error_in_a_notebook(pattern: Pat) -> None:
    assert pattern._repr_svg_() is None
    with pytest.raises(ScoreError):
        pattern.plot()


def test_a_picture_has_a_length() -> None:
    with pytest.raises(ScoreError, match="more than 0 cycles"):
        d.sine.plot(0)


def test_titles_are_escaped() -> None:
    svg = (d.sine < 0.5).plot().svg
    assert texts(svg)[0] == "sine < .5"


def test_a_sound_is_drawn_left_above_and_right_below() -> None:
    rate = 100
    audio = np.zeros((200, 2), np.float32)
    audio[:100, 0], audio[100:, 1] = 0.5, -2.0
    svg = pictures.of_sound(audio, rate, "two seconds").svg
    lines = rows(svg, "line")
    assert len(lines) == 200
    ends = [(float(row.attrib["y1"]), float(row.attrib["y2"])) for row in lines]
    # What is louder than the whole range is drawn at its end.
    assert ends == [(60, 80)] * 100 + [(80, 120)] * 100
    assert texts(svg) == ["two seconds", "0", "1", "2"]


def pixels(svg: str) -> np.ndarray:
    (image,) = rows(svg, "image")
    data = base64.b64decode(image.attrib["href"].partition(",")[2])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, body, size = 8, b"", (0, 0)
    while at < len(data):
        (length,) = struct.unpack_from("!I", data, at)
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack_from("!I", data, at + 8 + length)
        assert crc == zlib.crc32(name + content)
        if name == b"IHDR":
            size = struct.unpack_from("!2I", content)
            assert content[8:] == bytes([8, 0, 0, 0, 0])
        body += content if name == b"IDAT" else b""
        at += 12 + length
    columns, lines = size
    return np.frombuffer(zlib.decompress(body), np.uint8).reshape(lines, columns + 1)[:, 1:]


def test_a_latent_is_an_image_of_frames_by_channels() -> None:
    latent = np.array([[-3, 0], [3, -9], [0, 9]], np.float32)
    request = Request(frames=3, channels=2, denoise=0.5, seed=7, deck="drums")
    made = Generation(latent, request, (1, 2), 4, 6)
    svg = made._repr_svg_()
    assert pixels(svg).tolist() == [[0, 255, 128], [128, 0, 255]]
    title = "Generation 3 x 2 of drums, denoise 0.5, seed 7, ticks 4 to 6"
    assert texts(svg) == [title]
    assert repr(made) == f"<{title}>"


def test_a_notebook_shows_sound_as_a_picture_and_a_player() -> None:
    audio = np.zeros((RATES.sample_rate, 2), np.float32)
    page = Rendered(None, audio)._repr_html_()
    assert re.findall(r"<(svg|audio|/svg|/audio)", page) == ["svg", "/svg", "audio", "/audio"]
    assert ">1.00 s<" in page
    loop = Generated(audio, np.zeros((25, 4), np.float32), Request(25, 4), {})
    both = loop._repr_html_()
    assert both.startswith(page)
    assert pixels(both[len(page) :]).shape == (4, 25)
