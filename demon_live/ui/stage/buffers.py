"""The scores that are open in the view, and which of them is shown.

Threads: the event loop's; only `marked` may be called elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer

from demon_live.lang.highlighting import BindingHighlight, highlights
from demon_live.ui.stage.score import Page

__all__ = ["Shelf", "marked"]

_log = logging.getLogger(__name__)


class Shelf:
    """Pages in the order in which they came. shown: called when another page is shown."""

    def __init__(self, completer: Completer, shown: Callable[[], None]) -> None:
        self._completer = completer
        self._shown = shown
        self.pages: list[Page] = [self._page("")]
        self.at = 0

    @property
    def page(self) -> Page:
        """The score that is shown."""
        return self.pages[self.at]

    def show(self, at: int) -> None:
        """Show the page of that number."""
        self.at = at
        self._shown()

    def turn(self, by: int) -> None:
        """Go to another score."""
        self.show((self.at + by) % len(self.pages))

    def take(self, playing: Mapping[str, str], *, follow: bool) -> None:
        """Open what plays (name -> text); take over what was saved elsewhere where nothing is being
        edited; close what is gone. follow: show a score that has just come."""
        gone = [p for p in self.pages if p.name and p.name not in playing and not p.dirty]
        if gone:
            shown = self.page
            self.pages = [p for p in self.pages if p not in gone] or [self._page("")]
            self.show(self.pages.index(shown) if shown in self.pages else len(self.pages) - 1)
        known = {page.name: page for page in self.pages}
        for name, content in playing.items():
            page = known.get(name)
            if page is None:
                self._open(name, content, follow)
            elif page.known != content:
                if not page.dirty:
                    _replace(page.buffer, content)
                page.known = content

    def _open(self, name: str, content: str, follow: bool) -> None:
        page, empty = self._page(name, content), self.pages[0]
        if len(self.pages) == 1 and not empty.name and not empty.buffer.text:
            self.pages = [page]
        else:
            self.pages.append(page)
            # What was just loaded is what one wants to see, unless another is being worked on.
            if follow and not self.page.dirty:
                self.show(len(self.pages) - 1)
                return
        self.show(min(self.at, len(self.pages) - 1))

    def _page(self, name: str, content: str = "") -> Page:
        buffer = Buffer(
            multiline=True, completer=self._completer, complete_while_typing=True, name="score"
        )
        buffer.set_document(buffer.document.__class__(content, 0), bypass_readonly=True)
        return Page(name, buffer, known=content)


def _replace(buffer: Buffer, content: str) -> None:
    """Another text; the cursor stays in its line and column as far as these are there."""
    row, col = buffer.document.cursor_position_row, buffer.document.cursor_position_col
    buffer.text = content
    row = min(row, buffer.document.line_count - 1)
    buffer.cursor_position = buffer.document.translate_row_col_to_index(row, col)


def marked(content: str) -> tuple[BindingHighlight, ...]:
    """The steps of a score that can be lit; none where marking fails."""
    try:
        return tuple(highlights(content))
    except Exception:  # noqa: BLE001 - a wall: what is only for the eye must not cost the hand
        _log.exception("marking a score failed")
        return ()
