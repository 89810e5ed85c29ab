"""One whole frame of the stage view, as rows of styled text: a pure function of a Picture.

▄▄▄ ▄▄▄       ● ○ ○ ○  128 bpm                            L ▇▇▇▇▇▅
 ▄▀ ▄▄█        FINE   lead 180 ms   dry 0                 R ▇▇▇▇▆
▀  ▄▄▄█ ▄     imp · tick 61 ms · depth 4                     -8 dB
 00_hello.demon ─────────────────────────────────────────────────
  1 ▌ prompt  = "<'acid techno' 'dub techno'>/8"
  2 ✗ denois  = .5  ← there is no control "denois"
 main ───9───────────6──────▼────7───────────8──────────── loop 4
blend     ⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣄⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣄⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣀⣀⣠⣤⣶⣾⣿    .62
       blend · from bar 6 · class step
demon> lpf = 400 over 4
 F1 help · Alt-Enter plays the block · Alt-. hushes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from prompt_toolkit.document import Document

from demon_live.session.status import Status
from demon_live.ui import panel, text
from demon_live.ui.mouse import Spot
from demon_live.ui.stage import pages
from demon_live.ui.stage.head import head
from demon_live.ui.stage.pages import Stretch
from demon_live.ui.stage.painter import cells_of
from demon_live.ui.stage.score import Page, line_errors, places, sounding
from demon_live.ui.text import Row

#: How long a step that just began is shown brighter, in seconds.
_ONSET = 0.12
_WIDE = 120


@dataclass(slots=True)
class Picture:
    """The content of a frame.

    Attributes:
        cycle: at the ear.
        now: seconds, as `Page.flash_until`.
        tabs: (name, edited) of each open score; tab: the one that is shown.
        focus: "score" or "prompt".
        log: rows, newest last.
        menu: completions as (word, help); chosen: the selected one, -1 = none.
        overlay: help over everything.
    """

    columns: int
    rows: int
    status: Status | None
    cycle: float
    now: float
    page: Page
    tabs: Sequence[tuple[str, bool]] = ()
    tab: int = 0
    prompt: Document = field(default_factory=Document)
    focus: str = "score"
    log: Sequence[Row] = ()
    offered: str = ""
    hint: str = ""
    menu: Sequence[tuple[str, str]] = ()
    chosen: int = -1
    overlay: Sequence[Row] = ()
    ascii_only: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """rows: exactly as many as the screen has. cursor: (row, column), None = hidden. targets: what
    the mouse finds in a row, by its number."""

    rows: list[Row]
    cursor: tuple[int, int] | None
    targets: Mapping[int, tuple[Spot, ...]]


def frame(picture: Picture) -> Frame:
    """The frame of a picture; scrolls the page to its cursor."""
    ask = min(picture.prompt.line_count, 6)
    at = arrange(picture.columns, picture.rows, wanted=panel.wanted(picture.status), ask=ask)
    rows: list[Row] = []
    if picture.status is not None:
        ascii_only = picture.ascii_only
        rows += head(picture.status, picture.cycle, at.columns, at.head, ascii_only=ascii_only)
    rows += [[("", "")]] * (at.head - len(rows))
    if at.title:
        rows.append(_tabs(picture, at))
    score, cursor = _score(picture, at)
    shown = _lanes(picture, at)
    targets = _targets(picture, at, shown)
    body = _body(picture, at, score, shown)
    if cursor is not None:
        cursor = (cursor[0] + at.score_top, cursor[1])
    rows += body
    log = list(picture.log[-at.log :]) if at.log else []
    rows += [*([[("", "")]] * (at.log - len(log))), *log]
    lead = "demon> " if at.columns >= 40 else "> "
    prompt, place = pages.prompt(
        picture.prompt, at.columns, at.prompt, focused=picture.focus == "prompt", lead=lead
    )
    if place is not None:
        cursor = (len(rows) + place[0], place[1])
    if picture.offered and not picture.prompt.text and prompt:
        prompt[0] = [*prompt[0], ("class:hint", picture.offered)]
    rows += prompt
    if at.hint:
        rows.append([("class:hint", text.fit(f" {picture.hint}", at.columns))])
    if picture.menu and cursor is not None:
        rows = _menu(picture, rows, cursor)
    if picture.overlay:
        rows, cursor = _with_help(picture, rows), None
    return Frame(rows[: at.rows] + [[("", "")]] * (at.rows - len(rows)), cursor, targets)


def _tabs(picture: Picture, at: ScreenLayout) -> Row:
    """The names of the scores; a star if the text differs from the file."""
    line = "-" if picture.ascii_only else "─"
    row: list[tuple[str, str]] = []
    used = 0
    for i, (name, dirty) in enumerate(picture.tabs):
        label = f" {name}{'*' if dirty else ''} "
        if used + text.cells(label) > at.left - 2:
            break
        here = i == picture.tab
        row += [
            ("class:stage.tab.here" if here else "class:stage.tab", label),
            ("class:frame", line),
        ]
        used += text.cells(label) + 1
    return [*row, ("class:frame", line * max(0, at.columns - used))]


def _score(picture: Picture, at: ScreenLayout) -> tuple[list[Row], tuple[int, int] | None]:
    page, document = picture.page, picture.page.buffer.document
    current = page.lines_for == document.text
    states = sounding(page.lines, picture.status) if current else {}
    gutter: dict[int, tuple[str, str]] = {}
    stretches: list[Stretch] = []
    for i, state in states.items():
        line = page.lines[i]
        row = document.translate_index_to_position(line.start)[0]
        live = state == "live"
        mark = ("|" if live else ">") if picture.ascii_only else ("▌" if live else "▷")
        gutter[row] = (mark, f"class:stage.{state}")
        if live:
            stretches += _lit(picture, i, document)
    if document.selection:
        stretches += _selected(document)
    failed = "class:stage.flash.failed" if page.failed else "class:stage.flash"
    flash = (*page.flash, failed) if picture.now < page.flash_until else (-1, -1, "")
    error = page.error if page.error_for == document.text else None
    if page.width != at.left:
        # What was scrolled aside for a narrow window may fit now.
        page.width, page.left = at.left, 0
    drawn = pages.sheet(
        document,
        at.left,
        at.score,
        top=page.top,
        left=page.left,
        focused=picture.focus == "score",
        stretches=stretches,
        gutter=gutter,
        places=places(document.text),
        errors=line_errors(error),
        flash=flash,
        ascii_only=picture.ascii_only,
    )
    page.top, page.left = drawn.top, drawn.left
    return drawn.rows, drawn.cursor


def _lit(picture: Picture, i: int, document: Document) -> list[Stretch]:
    """The steps of line i that sound now; those that just began are brighter."""
    status = picture.status
    assert status is not None
    fresh = _ONSET * status.bpm / 60 / max(status.beats, 1)
    found = []
    for step in picture.page.lines[i].active(picture.cycle):
        row, start = document.translate_index_to_position(step.start)
        style = "class:lit.onset" if picture.cycle - step.onset < fresh else "class:lit"
        found.append(Stretch(row, start, start + step.stop - step.start, style))
    return found


def _selected(document: Document) -> list[Stretch]:
    found = []
    for start, stop in document.selection_ranges():
        row, col = document.translate_index_to_position(start)
        for line in document.text[start:stop].split("\n"):
            found.append(Stretch(row, col, col + len(line), "class:selected"))
            row, col = row + 1, 0
    return found


def _lanes(picture: Picture, at: ScreenLayout) -> list[Row]:
    """The rows of the decks."""
    if picture.status is None:
        return []
    ascii_only = picture.ascii_only
    return panel.lanes(picture.status, picture.cycle, at.right, at.decks, ascii_only=ascii_only)


def _targets(
    picture: Picture, at: ScreenLayout, shown: list[Row]
) -> Mapping[int, tuple[Spot, ...]]:
    """What the mouse finds in the decks' rows; nothing while the help lies over them."""
    if picture.status is None or picture.overlay:
        return {}
    top = at.score_top + (0 if at.wide else at.score)
    left = at.left + 1 if at.wide else 0
    found = panel.targets(picture.status, at.right, shown)
    return {
        top + y: tuple(replace(s, begin=s.begin + left, end=s.end + left) for s in spots)
        for y, spots in enumerate(found)
    }


def _body(picture: Picture, at: ScreenLayout, score: list[Row], shown: list[Row]) -> list[Row]:
    """Score and decks, under each other or side by side."""
    shown = [*shown, *([[("", "")]] * (at.decks - len(shown)))]
    if picture.status is None and at.wide:
        return score
    if not at.wide:
        return [*score, *shown]
    line = "|" if picture.ascii_only else "│"
    return [
        [*_exactly(left, at.left), ("class:frame", line), *right]
        for left, right in zip(score, shown, strict=True)
    ]


def _exactly(row: Row, width: int) -> Row:
    """`row` in exactly `width` cells."""
    used = text.width(row)
    if used <= width:
        return [*row, ("", " " * (width - used))]
    return [(style, c) for c, style in cells_of(row, width)]


def _menu(picture: Picture, rows: list[Row], cursor: tuple[int, int]) -> list[Row]:
    """Completions under the cursor, or over it where there is no room under it."""
    most = min(len(picture.menu), 8, max(1, picture.rows // 2))
    first = max(0, min(picture.chosen - most // 2, len(picture.menu) - most))
    shown = picture.menu[first : first + most]
    words = max(text.cells(word) for word, _ in shown) + 2
    width = min(picture.columns - 2, words + max(text.cells(helped) for _, helped in shown) + 1)
    below = cursor[0] + most < len(rows)
    top = cursor[0] + 1 if below else max(0, cursor[0] - most)
    left = max(0, min(cursor[1], picture.columns - width - 1))
    out = list(rows)
    for i, (word, helped) in enumerate(shown):
        style = "class:stage.menu.here" if first + i == picture.chosen else "class:stage.menu"
        label = text.fit(f" {word}", words) + text.fit(helped, width - words)
        out[top + i] = _overlaid(out[top + i], picture.columns, left, [(style, label)])
    return out


def _overlaid(row: Row, columns: int, left: int, piece: Row) -> Row:
    """`piece` over `row` from cell `left` on."""
    over = cells_of(piece, text.width(piece))
    under = cells_of(row, columns)
    under[left : left + len(over)] = over
    return [(style, c) for c, style in under[:columns]]


def _with_help(picture: Picture, rows: list[Row]) -> list[Row]:
    """Help in the middle of the screen."""
    width = min(picture.columns, max(map(text.width, picture.overlay)) + 4)
    shown = list(picture.overlay)[: max(1, picture.rows - 2)]
    top, left = max(0, (picture.rows - len(shown)) // 2), (picture.columns - width) // 2
    out = list(rows)
    blank: Row = [("class:stage.help", " " * width)]
    for y in (top - 1, top + len(shown)):
        if 0 <= y < len(out):
            out[y] = _overlaid(out[y], picture.columns, left, blank)
    for i, row in enumerate(shown):
        piece = [
            (f"class:stage.help {style}", c) for c, style in cells_of([("", "  "), *row], width)
        ]
        if top + i < len(out):
            out[top + i] = _overlaid(out[top + i], picture.columns, left, piece)
    return out


# --- layout -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScreenLayout:
    """Heights in rows; 0 = not shown. From top to bottom: head, then title, score and decks (under
    each other, or side by side if `wide`), log, prompt, hint. left: columns of the score's side."""

    columns: int
    rows: int
    head: int
    title: int
    score: int
    decks: int
    log: int
    prompt: int
    hint: int
    wide: bool
    left: int

    @property
    def right(self) -> int:
        """Columns of the decks' side."""
        return self.columns - self.left - 1 if self.wide else self.columns

    @property
    def score_top(self) -> int:
        """The screen row of the score's first row."""
        return self.head + self.title


def arrange(columns: int, rows: int, *, wanted: int, ask: int = 1) -> ScreenLayout:
    """The layout of a screen, from 20x5 to any size.

    Args:
        columns, rows: of the screen.
        wanted: rows that the decks could use.
        ask: rows of the prompt.
    """
    columns, rows = max(columns, 8), max(rows, 2)
    wide = columns >= _WIDE and rows >= 16
    digits = 5 if columns >= _WIDE and rows >= 36 else 3 if columns >= 60 and rows >= 18 else 1
    head = digits + (1 if digits == 5 else 0)
    hint = 1 if rows >= 9 else 0
    log = 5 if rows >= 44 else 3 if rows >= 30 else 2 if rows >= 20 else 1 if rows >= 7 else 0
    prompt = min(ask, max(1, rows // 4))
    left = rows - head - hint - log - prompt
    title = 1 if left >= 4 else 0
    body = max(0, left - title)
    if wide:
        half = columns // 2
        return ScreenLayout(columns, rows, head, title, body, body, log, prompt, hint, True, half)
    decks = min(wanted, body - max(2, round(body * 0.5))) if body >= 5 else 0
    score = body - decks
    return ScreenLayout(columns, rows, head, title, score, decks, log, prompt, hint, False, columns)
