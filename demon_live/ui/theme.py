"""Colours of prompt, panel, messages and stage view. The prompt uses the terminal's palette.

The stage view has a ground of its own, since a hall is dark or bright whatever the terminal's
palette: light on dark, or dark on light (`--theme light`). Sixteen colours are enough; with more,
lanes and steps get shades of their own. No colour carries a meaning alone: grades are also words,
errors also begin with their place, and NO_COLOR leaves bold and reverse.
"""

from __future__ import annotations

import os

from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import BaseStyle, Style, merge_styles
from prompt_toolkit.styles.pygments import style_from_pygments_dict
from pygments.token import Token

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
        "deck.title": "",
        "control": "",
        "value": "bold",
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

#: Styles of the slots by deck, in the order of the decks.
DECK_STYLES = ("class:slot", "class:lane", "class:word", "class:head")

#: The stage view on both grounds.
_STAGE = {
    "stage.bar": "bold",
    "stage.slim": "bold reverse",
    "stage.beat": "bold",
    "control": "bold",
    "deck.title": "bold reverse",
    "stage.here": "",
    "stage.tab.here": "bold reverse",
    "stage.fault": "underline",
    "selected": "reverse",
    "lit": "reverse",
    "lit.onset": "reverse bold",
    "lamp.fine": "bold",
    "lamp.tight": "bold underline",
    "lamp.late": "bold reverse",
    "stage.help": "",
    "stage.menu": "reverse",
    "stage.menu.here": "bold underline",
}
_DARK = {
    "ground": "bg:ansiblack ansiwhite",
    "stage.bar": "bold ansiyellow",
    "stage.slim": "bold bg:ansiyellow ansiblack noreverse",
    "stage.beat": "bold ansiyellow",
    "stage.number": "ansibrightblack",
    "stage.live": "bold ansigreen",
    "stage.coming": "bold ansiyellow",
    "stage.tab": "ansiwhite",
    "stage.tab.here": "bold bg:ansiwhite ansiblack noreverse",
    "deck.title": "bold bg:ansicyan ansiblack noreverse",
    "stage.fault": "bold underline ansired",
    "stage.flash": "bg:ansigreen ansiblack",
    "stage.flash.failed": "bg:ansired ansiwhite",
    "lit": "bg:ansicyan ansiblack noreverse",
    "lit.onset": "bold bg:ansiyellow ansiblack noreverse",
    "lamp.fine": "bold bg:ansigreen ansiblack nounderline",
    "lamp.tight": "bold bg:ansiyellow ansiblack nounderline",
    "lamp.late": "bold bg:ansired ansiwhite noreverse",
    "stage.help": "bg:ansiblue ansiwhite",
    "stage.menu": "bg:ansibrightblack ansiwhite noreverse",
    "stage.menu.here": "bold bg:ansicyan ansiblack noreverse nounderline",
    "hint": "ansiwhite",
    "quiet": "ansiwhite",
    "event": "ansiwhite",
    "held": "ansiwhite",
    "lane": "ansicyan",
    "lane.next": "ansiblue",
}
_LIGHT = {
    **_DARK,
    "ground": "bg:ansiwhite ansiblack",
    "stage.bar": "bold ansiblue",
    "stage.slim": "bold bg:ansiblue ansiwhite noreverse",
    "stage.beat": "bold ansiblue",
    "stage.tab": "ansiblack",
    "stage.tab.here": "bold bg:ansiblack ansiwhite noreverse",
    "deck.title": "bold bg:ansiblue ansiwhite noreverse",
    "stage.coming": "bold ansimagenta",
    "lit": "bg:ansiblue ansiwhite noreverse",
    "lit.onset": "bold bg:ansimagenta ansiwhite noreverse",
    "hint": "ansibrightblack",
    "quiet": "ansibrightblack",
    "event": "ansibrightblack",
    "held": "ansibrightblack",
    "lane": "ansiblue",
    "lane.next": "ansicyan",
    "lane.head": "reverse ansimagenta",
    "head": "bold ansimagenta",
    "muted": "bold ansimagenta",
    "next": "ansimagenta",
    "reply": "ansigreen",
    "error.hint": "ansimagenta",
    "warning": "ansimagenta",
    "slot": "ansimagenta",
    "prompt": "bold ansiblue",
    "topic": "bold ansiblue",
    "pygments.number": "ansimagenta",
    "pygments.literal.number": "ansimagenta",
    "pygments.name.variable": "bold ansiblue",
}
#: With 256 colours or more.
_DARK_FINE = {
    "ground": "bg:#000000 #e8e8e8",
    "stage.bar": "bold #ffd75f",
    "stage.number": "#6c6c6c",
    "stage.here": "bg:#1c1c1c",
    "stage.flash": "bg:#005f00 #ffffff",
    "stage.flash.failed": "bg:#870000 #ffffff",
    "stage.help": "bg:#1c1c3a #f0f0f0",
    "stage.menu": "bg:#303030 #e4e4e4 noreverse",
    "frame": "#5f5f5f",
    "ruler": "#8a8a8a",
    "hint": "#9e9e9e",
    "quiet": "#9e9e9e",
    "event": "#9e9e9e",
    "held": "#9e9e9e",
    "lane": "#5fd7ff",
    "lane.next": "#005f87",
    "lit": "bg:#00afd7 #000000 noreverse",
    "lit.onset": "bold bg:#ffd75f #000000 noreverse",
    "pygments.comment": "#767676",
    "pygments.comment.single": "#767676",
    "pygments.name.function": "#87afff",
    "pygments.name.constant": "#87afff",
    "pygments.literal.string": "#87d787",
    "pygments.name.entity": "#87d787",
    "pygments.literal.number": "#ffd787",
    "pygments.name.variable": "bold #5fd7ff",
}
_LIGHT_FINE = {
    "ground": "bg:#ffffff #1c1c1c",
    "stage.bar": "bold #005faf",
    "stage.number": "#9e9e9e",
    "stage.here": "bg:#eeeeee",
    "stage.flash": "bg:#afffaf #000000",
    "stage.flash.failed": "bg:#ffafaf #000000",
    "stage.help": "bg:#e4e4ff #000000",
    "stage.menu": "bg:#d0d0d0 #000000 noreverse",
    "frame": "#a8a8a8",
    "ruler": "#767676",
    "hint": "#5f5f5f",
    "quiet": "#5f5f5f",
    "event": "#5f5f5f",
    "held": "#5f5f5f",
    "lane": "#005faf",
    "lane.next": "#87afd7",
    "reply": "#005f00",
    "pygments.comment": "#767676",
    "pygments.comment.single": "#767676",
    "pygments.literal.string": "#005f00",
    "pygments.name.entity": "#005f00",
}


def depth() -> ColorDepth:
    """How many colours the terminal says it has. NO_COLOR wins."""
    chosen = ColorDepth.from_env()
    if os.environ.get("NO_COLOR"):
        return ColorDepth.DEPTH_1_BIT
    if chosen is not None:
        return chosen
    if os.environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return ColorDepth.DEPTH_24_BIT
    kind = os.environ.get("TERM", "")
    return ColorDepth.DEPTH_8_BIT if "256" in kind or "direct" in kind else ColorDepth.DEPTH_4_BIT


def stage_style(theme: str, colours: ColorDepth) -> BaseStyle:
    """The style of the stage view; "class:ground" lies under everything."""
    layers: list[BaseStyle] = [_UI, _CODE, Style.from_dict(_STAGE)]
    if colours != ColorDepth.DEPTH_1_BIT:
        layers.append(Style.from_dict(_LIGHT if theme == "light" else _DARK))
    if colours in (ColorDepth.DEPTH_8_BIT, ColorDepth.DEPTH_24_BIT):
        layers.append(Style.from_dict(_LIGHT_FINE if theme == "light" else _DARK_FINE))
    return merge_styles(layers)
