"""Colours of prompt, panel and messages: sixteen, named; the terminal's own palette decides.

No colour carries a meaning alone: grades are also words, errors also begin with their place.

Threads: constants only.
"""

from __future__ import annotations

from prompt_toolkit.styles import Style, merge_styles
from prompt_toolkit.styles.pygments import style_from_pygments_dict
from pygments.token import Token

__all__ = ["DECK_STYLES", "STYLE"]

_UI = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "prompt.more": "ansibrightblack",
        "hint": "ansibrightblack",
        "reply": "ansigreen",
        "event": "ansibrightblack",
        "error": "ansired",
        "error.place": "bold ansired",
        "error.caret": "bold ansired",
        "error.hint": "ansiyellow",
        "warning": "ansiyellow",
        "heading": "bold",
        "topic": "bold ansicyan",
        "frame": "ansibrightblack",
        "ruler": "ansibrightblack",
        "head": "bold ansiyellow",
        "deck": "bold",
        "name": "",
        "lane": "ansicyan",
        "lane.next": "ansiblue",
        "lane.head": "reverse ansiyellow",
        "word": "ansigreen",
        "next": "ansiyellow",
        "held": "ansibrightblack",
        "slot": "ansimagenta",
        "meter": "ansigreen",
        "meter.hot": "bold ansired",
        "quiet": "ansibrightblack",
        "muted": "bold ansiyellow",
        "recording": "bold ansired",
        "grade.fine": "ansigreen",
        "grade.tight": "bold ansiyellow",
        "grade.late": "reverse bold ansired",
        "bottom-toolbar": "noreverse",
        "completion-menu": "bg:default default",
        "completion-menu.completion": "bg:ansibrightblack ansiwhite",
        "completion-menu.completion.current": "bg:ansicyan ansiblack",
        "completion-menu.meta.completion": "bg:ansibrightblack ansiwhite",
        "completion-menu.meta.completion.current": "bg:ansicyan ansiblack",
    }
)

_CODE = style_from_pygments_dict(
    {
        Token.Comment: "ansibrightblack",
        Token.Keyword: "bold ansimagenta",
        Token.Keyword.Pseudo: "ansimagenta",
        Token.Name.Variable: "bold ansicyan",
        Token.Name.Constant: "ansiblue",
        Token.Name.Entity: "ansigreen",
        Token.Name.Function: "ansiblue",
        Token.Literal.String: "ansigreen",
        Token.String: "ansigreen",
        Token.Number: "ansiyellow",
        Token.Literal.Number: "ansiyellow",
        Token.Operator: "",
        Token.Error: "ansired",
    }
)

STYLE = merge_styles([_UI, _CODE])

#: Slots of several decks are told apart by these, in the order of the decks.
DECK_STYLES = ("class:slot", "class:lane", "class:word", "class:head")
