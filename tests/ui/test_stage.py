"""The stage view: what stands where, what the keys do, and that the screen is always whole."""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyte
import pytest
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import ColorDepth

from demon_live.core import RATES, EngineStatus
from demon_live.errors import DemonError, ScoreError, Span
from demon_live.lang import compile_source
from demon_live.lang.highlighting import highlights
from demon_live.session.status import Grader, LaneView
from demon_live.ui import text
from demon_live.ui.controller import UiController
from demon_live.ui.stage.app import StageView
from demon_live.ui.stage.frame import Picture, arrange, frame
from demon_live.ui.stage.head import big, dry_grade
from demon_live.ui.stage.painter import Painter, cells_of
from demon_live.ui.stage.score import Page, block_at, moved, places
from demon_live.ui.text import Row
from demon_live.ui.theme import depth, stage_style
from tests.helpers.stage_status import RAMP, SCORE, STATUS
from tests.helpers.ui_fakes import FakeSession


def page(content: str = SCORE, name: str = "set.demon") -> Page:
    made = Page(name, Buffer(multiline=True), saved=content)
    made.buffer.document = Document(content, 0)
    made.lines, made.lines_for = tuple(highlights(content)), content
    return made


def picture(columns: int = 80, rows: int = 24, **more: object) -> Picture:
    chosen: dict[str, object] = {"status": STATUS, "cycle": 5.5, "now": 100.0, "page": page()}
    return Picture(columns, rows, **{**chosen, **more})  # type: ignore[arg-type]


def words(row: Row) -> str:
    return "".join(piece for _, piece in row)


def shown(of: Picture) -> str:
    return "\n".join(words(row) for row in frame(of).rows)


def styled(of: Picture, style: str) -> str:
    """All that is drawn in a style."""
    rows = frame(of).rows
    return "".join(piece for row in rows for used, piece in row if style in used.split())


# --- the plan and the frame -------------------------------------------------------------------


@pytest.mark.parametrize("columns", [8, 20, 40, 59, 60, 80, 119, 120, 200, 300])
def test_every_size_is_filled_to_the_row(columns: int) -> None:
    for rows in (2, 3, 5, 8, 12, 17, 18, 24, 36, 44, 60, 100):
        for ask in (1, 4):
            at = arrange(columns, rows, wanted=12, ask=ask)
            body = at.score if at.wide else at.score + at.decks
            assert at.head + at.title + body + at.log + at.prompt + at.hint == rows
            assert min(at.score, at.decks, at.log, at.hint) >= 0
            assert at.prompt >= 1
        for ascii_only in (False, True):
            drawn = frame(picture(columns, rows, ascii_only=ascii_only, hint="h" * 300))
            assert len(drawn.rows) == rows
            assert all(len(cells_of(row, columns)) == columns for row in drawn.rows)
            if ascii_only:
                allowed = set("→✗…·")
                assert all(c.isascii() or c in allowed for row in drawn.rows for c in words(row))


@pytest.mark.parametrize(("columns", "rows"), [(40, 12), (80, 24), (200, 60)])
def test_what_matters_is_there_at_every_size(columns: int, rows: int) -> None:
    seen = shown(picture(columns, rows))
    assert "blend" in seen
    assert "tempo 128" in seen
    assert "FINE" in seen
    assert "demon>" in seen
    assert "dry 0" in seen
    if columns > 40:
        assert all(word in seen for word in ("main", "drums", "muted", "slot", "lead 180 ms"))


def test_the_steps_that_sound_are_lit_and_those_that_begin_are_brighter() -> None:
    assert styled(picture(cycle=5.5), "class:lit") == ".2"
    assert styled(picture(cycle=5.9), "class:lit") == ".9"
    # At 120 bpm 0.12 s are 0.06 bars.
    fast = replace(STATUS, bpm=120.0)
    assert styled(picture(status=fast, cycle=5.84), "class:lit.onset") == ".9"
    assert styled(picture(status=fast, cycle=5.95), "class:lit.onset") == ""


def test_nothing_is_lit_where_something_else_plays() -> None:
    other = replace(STATUS.decks[0], lanes=(LaneView("blend", "saw", 0.5, RAMP),))
    assert styled(picture(status=replace(STATUS, decks=(other,))), "class:lit") == ""


def test_a_constant_has_a_bar_of_its_place_in_its_range() -> None:
    text = "gain = .5\nlpf = 900 # no\nseed = 3\npan = 0\n\ndeck x {\n  to osc 9\n  gain = 1\n}\n"
    assert places(text) == {0: pytest.approx(0.25), 3: pytest.approx(0.5)}
    assert "gain = .5  ━━────" in shown(picture(page=page(text)))
    assert "pan = 0  ===---" in shown(picture(page=page(text), ascii_only=True))
    # No room, no bar.
    assert "━━" not in shown(picture(16, page=page(text)))


@pytest.mark.parametrize(("columns", "rows"), [(60, 24), (80, 24), (120, 40)])
def test_the_mouse_finds_what_is_drawn(columns: int, rows: int) -> None:
    drawn = frame(picture(columns, rows))
    found = {
        words(drawn.rows[y])[spot.begin : spot.end].strip()
        for y, spots in drawn.targets.items()
        for spot in spots
        if spot.control
    }
    titles = [s.deck for spots in drawn.targets.values() for s in spots if not s.control]
    assert (found, titles) == ({"denoise .5"}, ["main", "drums"])
    assert frame(picture(columns, rows, overlay=[[("", "help")]])).targets == {}


def test_lines_that_play_and_lines_that_wait_are_marked() -> None:
    of = picture(page=page("blend = \"1 .2 [0 .9]\"\nprompt = 'acid'\nnoise = 1\n"))
    assert styled(of, "class:stage.live") == "▌"
    assert styled(of, "class:stage.coming") == "▷"


def test_an_error_stands_beside_its_line() -> None:
    content = "blend = 1\ndenois = .5\n"
    broken = page(content)
    with pytest.raises(DemonError) as caught:
        compile_source(content)
    broken.error, broken.error_for = caught.value, content
    rows = frame(picture(page=broken)).rows
    line = next(words(row) for row in rows if "denois" in words(row))
    assert "✗" in line
    assert '← there is no control "denois"' in line
    assert styled(picture(page=broken), "class:stage.fault") == "denois"
    # An edit may have mended it: the old place would be wrong.
    broken.buffer.insert_text("\n")
    assert "no control" not in shown(picture(page=broken))


def test_grades_are_words_and_colours() -> None:
    late = replace(STATUS, grade="late", dry=3)
    assert "LATE" in styled(picture(status=late), "class:lamp.late")
    assert "dry 3" in styled(picture(status=late), "class:lamp.late")
    behind = replace(STATUS, lead_ms=40.0)
    assert "lead 40 ms" in styled(picture(status=behind), "class:lamp.tight")
    starting = replace(STATUS, telemetry=EngineStatus(alive=False))
    assert "STARTING" in shown(picture(status=starting))
    assert "HUSHED" in shown(picture(status=replace(STATUS, hushed=True)))


def test_the_dry_lamp_stays_red_for_a_while_and_amber_for_good() -> None:
    grader = Grader()

    def lamp(dry: int, second: int) -> str:
        grade = grader(STATUS.telemetry, dry, second * RATES.sample_rate)
        return dry_grade(replace(STATUS, grade=grade, dry=dry))

    assert [lamp(0, 0), lamp(1, 1), lamp(1, 10), lamp(1, 12), lamp(2, 60)] == [
        "fine",
        "late",
        "late",
        "tight",
        "late",
    ]


def test_big_digits_can_be_told_apart() -> None:
    for rows in (3, 5):
        for ascii_only in (False, True):
            drawn = {d: big(d, rows, ascii_only=ascii_only) for d in "0123456789.-"}
            assert all(len(d) == rows for d in drawn.values())
            if not (ascii_only and rows == 3):
                assert len(set(drawn.values())) == len(drawn)
    assert big("17.3", 1) == ("17.3",)


def test_the_playhead_goes_round() -> None:
    def head(cycle: float) -> int:
        rows = frame(picture(cycle=cycle)).rows
        return next(words(row) for row in rows if words(row).startswith(" main")).index("▼")

    places = [head(5.5 + i / 8) for i in range(33)]
    assert places[0] == places[32]
    assert sum(a > b for a, b in pairwise(places)) == 1


# --- blocks -----------------------------------------------------------------------------------

BLOCKS = """\
tempo 128

blend = 1
noise = .2

deck drums {
  gain = 1

  blend = .5
  noise = .3

}

scene a {
  blend = 1

  noise = 2
}

deck two
blend = .3

noise = 1"""


@pytest.mark.parametrize(
    ("row", "lines", "head"),
    [
        (0, (0, 0), ""),
        (3, (2, 3), ""),
        (6, (5, 11), ""),
        (8, (8, 9), "deck drums\n"),
        (11, (5, 11), ""),
        (14, (13, 17), ""),
        (16, (13, 17), ""),
        (20, (19, 20), ""),
        (22, (22, 22), "deck two\n"),
    ],
)
def test_a_block_is_what_stands_between_blank_lines(
    row: int, lines: tuple[int, int], head: str
) -> None:
    block = block_at(BLOCKS, row)
    assert block is not None
    assert (block.first, block.last) == lines
    assert block.head == head
    compile_source(block.source)


def test_there_is_no_block_on_a_blank_line() -> None:
    assert block_at(BLOCKS, 1) is None
    assert block_at("", 0) is None
    assert block_at(BLOCKS, 99) is None


def test_errors_of_a_block_are_told_at_their_place_in_the_score() -> None:
    content = "tempo 128\n\ndeck drums {\n  gain = 1\n\n  denois = .5\n}\n"
    block = block_at(content, 5)
    # The brace below belongs to the paragraph, so the whole deck is meant.
    assert block is not None
    assert block.first == 2
    content = "tempo 128\n\ndeck drums\ngain = 1\n\nblend = 1\ndenois = .5\n"
    block = block_at(content, 5)
    assert block is not None
    with pytest.raises(DemonError) as caught:
        compile_source(block.source)
    caught.value.source = block.source
    fault = moved(caught.value, block, content, "set.demon")
    assert fault.span is not None
    assert (fault.span.line, fault.span.col) == (7, 1)
    assert content[fault.span.start : fault.span.end] == "denois"
    assert str(fault).startswith("set.demon:7:1: ")


# --- the painter ------------------------------------------------------------------------------


class Screen:
    """A terminal emulator behind a pipe."""

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._read, self.fd = os.pipe()
        os.set_blocking(self._read, False)
        self.raw = b""

    def feed(self) -> None:
        while True:
            try:
                data = os.read(self._read, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            self.raw += data
            # pyte does not know synchronized updates; terminals that do not, skip them too.
            self._stream.feed(data.replace(b"\x1b[?2026h", b"").replace(b"\x1b[?2026l", b""))

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._read)


@pytest.fixture
def wired() -> Iterator[Callable[[int, int, ColorDepth], tuple[Painter, Screen]]]:
    made: list[tuple[Painter, Screen]] = []

    def wire(columns: int, rows: int, colours: ColorDepth) -> tuple[Painter, Screen]:
        screen = Screen(columns, rows)
        painter = Painter(screen.fd, stage_style("dark", colours), colours, "class:ground")
        made.append((painter, screen))
        return painter, screen

    yield wire
    for painter, screen in made:
        painter.close()
        screen.close()


def settle(painter: Painter) -> None:
    end = time.monotonic() + 10
    while painter.busy:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_after_any_frames_the_screen_holds_the_last(
    wired: Callable[[int, int, ColorDepth], tuple[Painter, Screen]],
) -> None:
    painter, screen = wired(30, 6, ColorDepth.DEPTH_24_BIT)
    lots = random.Random(7)
    painter.open()
    letters = "ab c▌⣿█宽é字 x→"
    styles = ("", "class:lit", "class:lane", "bold", "class:lamp.late")
    for _ in range(300):
        rows: list[Row] = [
            [
                (lots.choice(styles), "".join(lots.choices(letters, k=lots.randrange(8))))
                for _ in range(lots.randrange(6))
            ]
            for _ in range(6)
        ]
        if lots.random() < 0.05:
            painter.forget()
        painter.paint(rows, 30, (2, 3))
        settle(painter)
        screen.feed()
        for y, row in enumerate(rows):
            expected = "".join(c for c, _ in cells_of(row, 30))
            assert "".join(screen.screen.buffer[y][x].data for x in range(30)) == expected
    assert (screen.screen.cursor.y, screen.screen.cursor.x) == (2, 3)


def test_only_changed_cells_are_written(
    wired: Callable[[int, int, ColorDepth], tuple[Painter, Screen]],
) -> None:
    painter, _ = wired(20, 3, ColorDepth.DEPTH_4_BIT)
    rows: list[Row] = [[("", "one")], [("", "two")], [("", "three")]]
    assert painter.paint(rows, 20, None) == 60
    settle(painter)
    assert painter.paint(rows, 20, None) == 0
    settle(painter)
    assert painter.paint([[("", "one")], [("", "twe")], [("bold", "three")]], 20, None) == 1 + 20
    settle(painter)


def test_a_terminal_that_takes_nothing_holds_up_nobody() -> None:
    read, write = os.pipe()
    painter = Painter(write, stage_style("dark", ColorDepth.DEPTH_4_BIT), ColorDepth.DEPTH_4_BIT)
    rows: list[Row] = [[("", "x" * 999)] for _ in range(200)]
    painter.paint(rows, 999, None)
    # More than a pipe holds: the frame is on its way, and stays there.
    assert painter.busy
    os.close(read)
    settle(painter)
    painter.close()
    os.close(write)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_colours_are_those_that_the_terminal_has(
    theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def codes(colours: ColorDepth) -> str:
        screen = Screen(80, 24)
        painter = Painter(screen.fd, stage_style(theme, colours), colours, "class:ground")
        painter.paint(frame(picture()).rows, 80, None)
        settle(painter)
        screen.feed()
        painter.close()
        screen.close()
        return "".join(re.findall(r"\x1b\[[\d;]*m", screen.raw.decode()))

    none = codes(ColorDepth.DEPTH_1_BIT)
    assert "38;" not in none
    assert not any(f"{n}m" in none or f"{n};" in none for n in (*range(30, 38), *range(40, 48)))
    assert "7" in none
    few = codes(ColorDepth.DEPTH_4_BIT)
    assert "38;" not in few
    assert "48;" not in few
    assert "38;5;" in codes(ColorDepth.DEPTH_8_BIT)
    assert "38;2;" in codes(ColorDepth.DEPTH_24_BIT)


@pytest.mark.parametrize(
    ("env", "colours"),
    [
        ({"TERM": "linux"}, ColorDepth.DEPTH_4_BIT),
        ({"TERM": "xterm-256color"}, ColorDepth.DEPTH_8_BIT),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, ColorDepth.DEPTH_24_BIT),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, ColorDepth.DEPTH_1_BIT),
    ],
)
def test_the_terminal_says_how_many_colours_it_has(
    env: dict[str, str], colours: ColorDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR", "PROMPT_TOOLKIT_COLOR_DEPTH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert depth() == colours


# --- the keys ---------------------------------------------------------------------------------


class Session(FakeSession):
    """With a status that stands still, and one score."""


class Played:
    """A stage view on a terminal emulator, and the keys to play it."""

    def __init__(self, session: FakeSession, tmp_path: Path, size: tuple[int, int]) -> None:
        self.session = session
        self.out = Screen(*size)
        self._size = size
        self._tmp = tmp_path
        self.view: StageView
        self.face = "?"

    def lines(self) -> str:
        self.out.feed()
        return "\n".join(line.rstrip() for line in self.out.screen.display)

    def keys(self, typed: str) -> None:
        self._pipe.send_text(typed)

    async def sees(self, said: str) -> None:
        for _ in range(1000):
            if said in self.lines():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{said!r} never came:\n{self.lines()}")

    async def until(self, true: Callable[[], bool]) -> None:
        for _ in range(1000):
            if true():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it never came true:\n{self.lines()}")

    def play(self, script: Callable[[Played], Awaitable[None]]) -> None:
        async def both() -> None:
            running = asyncio.ensure_future(self.view.run())
            await self.sees("demon>")
            await script(self)
            self.face = await asyncio.wait_for(running, 10)

        with create_pipe_input() as self._pipe:
            controller = UiController(self.session, stop=threading.Event())
            self.view = StageView(
                controller,
                input=self._pipe,
                fd=self.out.fd,
                size=self._size,
                colours=ColorDepth.DEPTH_4_BIT,
                history=self._tmp / "history",
            )
            try:
                asyncio.run(both())
            finally:
                controller.close()
                self.out.close()


@pytest.fixture
def played(tmp_path: Path) -> Played:
    session = FakeSession(shown=STATUS, files={"set.demon": SCORE})
    return Played(session, tmp_path, (80, 24))


LEAVE = "\x11\x11"


def test_alt_enter_plays_the_block_under_the_cursor(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("\x1b\r")
        await p.sees("tempo · from bar 6")
        p.keys("\x1b[B" * 4 + "\x1b[27;5;13~")
        await p.until(lambda: len(p.session.applied) == 2)
        p.keys(LEAVE)

    played.play(script)
    assert played.session.applied == [
        'tempo 128\nblend = "1 .2 [0 .9]"',
        'deck drums {\n  gain = "1(3,8)"\n\n  noise = .3\n}',
    ]


def test_a_refused_block_is_told_at_its_line_and_costs_nothing(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("\x1b[B\x1b[B\rwrong = 1")
        p.keys("\x1b\r")
        await p.sees('✗ wrong = 1  ← there is no control "wrong"')
        await p.sees("hint: did you mean blend?")
        # Mended, the mark goes.
        p.keys("\x17\x17\x17blend = 1\x1b\r")
        await p.until(lambda: p.session.applied != [])
        await p.until(lambda: "✗" not in p.lines())
        p.keys(LEAVE)

    played.play(script)


def test_ctrl_s_plays_and_saves_the_whole_score(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("# x\r")
        await p.sees("set.demon*")
        p.keys("\x13")
        await p.until(lambda: p.session.saved != [])
        await p.until(lambda: "set.demon*" not in p.lines())
        p.keys(LEAVE)

    played.play(script)
    assert played.session.saved == [("set.demon", f"# x\n{SCORE}")]


def test_the_keys_of_the_performer(played: Played) -> None:
    async def script(p: Played) -> None:
        for key in ("\x1b.", "\x1bOQ", "\x1b2", "\x1bu", "\x1br"):
            p.keys(key)
        await p.until(lambda: len(p.session.applied) == 5)
        p.keys(LEAVE)

    played.play(script)
    assert played.session.applied == ["hush", "mute main", "unmute drums", "undo", "redo"]
    assert played.view.page.buffer.text == SCORE


def test_the_mouse_mutes_and_moves_constants(played: Played) -> None:
    def at(word: str) -> tuple[int, int]:
        rows = played.lines().split("\n")
        row = next(y for y, line in enumerate(rows) if word in line)
        return rows[row].index(word) + 1, row + 1

    async def script(p: Played) -> None:
        await p.sees("held")
        x, y = at("denoise .5")
        p.keys(f"\x1b[<0;{x};{y}M\x1b[<32;{x + 8};{y}M\x1b[<0;{x + 12};{y}m")
        await p.until(lambda: len(p.session.applied) >= 2)
        x, y = at(" drums ─")
        p.keys(f"\x1b[<0;{x + 1};{y}M\x1b[<0;{x + 1};{y}m")
        await p.until(lambda: "unmute drums" in p.session.applied)
        p.keys("\x1b[<65;5;5M")
        await p.until(lambda: p.view.page.buffer.document.cursor_position_row == 3)
        # Nothing is there.
        p.keys("\x1b[<0;500;500M\x1b[<0;500;500m\x1b[<0;1;1M\x1b[<0;1;1m")
        p.keys(LEAVE)

    played.play(script)
    moves = ["main.denoise = 0.7 now", "main.denoise = 0.8 now"]
    assert played.session.applied == [*moves, "unmute drums"]
    assert played.view.page.buffer.text == SCORE


def test_ctrl_c_stops_nothing(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("\x03")
        await p.sees("the sound goes on")
        p.keys("\x1b[Zblend = 7\x03")
        await p.until(lambda: p.view.prompt.text == "")
        p.keys(LEAVE)

    played.play(script)
    assert played.session.applied == []
    assert played.view.page.buffer.text == SCORE


def test_the_prompt_of_the_stage_is_the_prompt(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("\x1b[Zblend = .5\r")
        await p.sees("blend · from bar 6")
        p.keys("scene a {\r")
        await p.until(lambda: p.view.prompt.text == "scene a {\n")
        p.keys("blend = 1\r}\r")
        await p.until(lambda: len(p.session.applied) == 2)
        p.keys("?denoise\r")
        await p.sees("class slot")
        p.keys("\r")
        await p.until(lambda: "class slot" not in p.lines())
        p.keys("\x10" * 3)
        await p.until(lambda: p.view.prompt.text.startswith("scene a {"))
        p.keys("\x03\x04\x04")

    played.play(script)
    assert played.session.applied == ["blend = .5", "scene a {\nblend = 1\n}"]


def test_help_opens_over_the_score_and_closes(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("\x1bOP")
        await p.sees("play the block under the cursor")
        p.keys("\x1bOP")
        await p.until(lambda: "play the block under" not in p.lines())
        p.keys("\x1bOP")
        await p.sees("play the block under the cursor")
        p.keys("\x03")
        await p.until(lambda: "play the block under" not in p.lines())
        p.keys(LEAVE)

    played.play(script)


def test_typing_can_be_undone(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("# one\r")
        await p.until(lambda: p.view.page.buffer.text.startswith("# one\n"))
        p.keys("\x1a" * 12)
        await p.until(lambda: p.view.page.buffer.text == SCORE)
        p.keys(LEAVE)

    played.play(script)


def test_completions_open_under_the_cursor(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("\x1b[B\x1b[B\rdeno")
        await p.sees("denoise 0..1")
        p.keys("\t")
        await p.until(lambda: "\ndenoise" in p.view.page.buffer.text)
        p.keys("\r\r")
        await p.until(lambda: "\ndenoise\n" in p.view.page.buffer.text)
        p.keys(LEAVE)

    played.play(script)


def test_a_score_saved_elsewhere_is_taken_over_unless_it_is_being_edited(played: Played) -> None:
    async def script(p: Played) -> None:
        p.session.files["set.demon"] = "blend = .7\n"
        await p.sees("blend = .7")
        p.keys("# mine\r")
        await p.sees("set.demon*")
        p.session.files["set.demon"] = "blend = .8\n"
        p.session.files["lead.demon"] = "noise = .1\n"
        await p.sees("lead.demon")
        assert p.view.page.buffer.text == "# mine\nblend = .7\n"
        p.keys("\x1bn")
        await p.sees("noise = .1")
        # Another that is loaded meanwhile is shown; one that plays no more is put away.
        p.session.files["drop.demon"] = "morph = .3\n"
        await p.sees("morph = .3")
        del p.session.files["drop.demon"]
        await p.until(lambda: "drop.demon" not in p.lines())
        p.view.buffers.show(0)
        await p.sees("# mine")
        p.keys(LEAVE)

    played.play(script)


def test_the_tour_shows_its_score_whatever_was_being_edited(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("wrong = 1\r\x1b[A\x1b\r")
        await p.sees("✗ wrong = 1")
        p.keys("\x1b[Z")
        await p.until(lambda: not p.view.editing)
        p.keys("tour\r")
        await p.sees("Enter or Esc closes this")
        # The words of a step are wrapped once, for the box in which they stand.
        torn = [row for row in p.lines().split("\n") if row.split()[-1:] == ["little"]]
        assert torn == []
        p.keys("\r")
        await p.sees("# 00 hello")
        assert p.view.page.name.endswith("00_hello.demon")
        assert "✗" not in p.lines()
        p.keys(LEAVE)

    played.play(script)


def test_ctrl_s_asks_once_where_the_file_was_saved_elsewhere(played: Played) -> None:
    async def script(p: Played) -> None:
        p.keys("# mine\r")
        await p.sees("set.demon*")
        p.session.files["set.demon"] = "blend = .8\n"
        await p.until(lambda: p.view.page.clash)
        p.keys("\x13")
        await p.sees("saved elsewhere")
        assert p.session.saved == []
        assert p.session.files["set.demon"] == "blend = .8\n"
        p.keys("\x13")
        await p.until(lambda: p.session.saved == [("set.demon", f"# mine\n{SCORE}")])
        # What this view saved itself is no other save.
        p.keys("# more\r\x13")
        await p.until(lambda: len(p.session.saved) == 2)
        p.keys(LEAVE)

    played.play(script)


def test_leaving_a_recorded_set_asks_once(played: Played) -> None:
    played.session.recording("friday")

    async def script(p: Played) -> None:
        await p.sees("friday")
        p.keys("\x11")
        await p.sees("friday is being recorded: Ctrl-Q again, or end, ends it")
        p.keys("\x11")

    played.play(script)
    assert played.face == ""


def test_alt_s_goes_to_the_prompt_and_what_is_printed_goes_into_the_log(played: Played) -> None:
    async def script(p: Played) -> None:
        threading.Thread(target=lambda: print("from a library")).start()  # noqa: T201
        await p.sees("from a library")
        p.keys("\x1bs")

    played.play(script)
    assert played.face == "prompt"


def test_events_come_into_the_log_and_errors_of_files_to_their_lines(played: Played) -> None:
    async def script(p: Played) -> None:
        fault = ScoreError("no", span=Span.of(SCORE, 10, 15), source=SCORE, name="set.demon")
        p.session.shown = replace(STATUS, errors={"set.demon": fault})
        p.session.lines.append("the device is back")
        await p.sees("the device is back")
        await p.sees("← no")
        p.keys(LEAVE)

    played.play(script)


def test_wide_letters_keep_the_cursor_in_its_place() -> None:
    from demon_live.ui.stage.pages import sheet

    drawn = sheet(Document("a宽b\tc", 4), 80, 3, top=0, left=0, focused=True)
    # Margin of 4, then a, two cells, b, a tab of four.
    assert drawn.cursor == (0, 4 + 1 + 2 + 1 + 4)
    assert text.cells(words(drawn.rows[0])) == 4 + 9


def test_a_wider_window_shows_lines_from_their_beginning_again() -> None:
    shown_page = page('source "loops/techno_128.flac"  # mine\n')
    shown_page.buffer.cursor_position = len(shown_page.buffer.text) - 1
    assert "source" in shown(picture(80, 24, page=shown_page))
    assert "source" not in shown(picture(30, 12, page=shown_page))
    assert "source" in shown(picture(80, 24, page=shown_page))


def test_long_lines_scroll_sideways_to_the_cursor() -> None:
    from demon_live.ui.stage.pages import sheet

    line = "".join(str(i % 10) for i in range(300))
    for at in (0, 75, 76, 150, 300):
        drawn = sheet(Document(line, at), 80, 3, top=0, left=0, focused=True)
        assert drawn.cursor is not None
        assert 4 <= drawn.cursor[1] < 80
        assert text.cells(words(drawn.rows[0])) <= 80
