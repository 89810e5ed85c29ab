"""The score language: text -> Program, and mini-notation as a value of its own.

    mini("bd(3,8) <a b>").query(begin, end)   events with exact rational times
    compile_source(text, name)                a Program, or a DemonError with all that is wrong
    diff(old, new), removed(old, new)         what a new version of a text says, and says no longer

A line goes through split (statements), parse (lark), compile, expressions (names and kinds),
pattern (the algebra) and lane (functions of arrays of time). functions.py is the table of
functions, keywords.py that of all other words, controls.py that of controls.
"""

from demon_live.errors import DemonError
from demon_live.lang.check import NONE
from demon_live.lang.compile import compile_source
from demon_live.lang.help import Completion, Help, complete, help_for, reference
from demon_live.lang.lane import Lane
from demon_live.lang.mini import CHANCE_RULE, mini
from demon_live.lang.parse import format_source, unparse
from demon_live.lang.pattern import Event, Pattern
from demon_live.lang.program import (
    Bind,
    Chain,
    Go,
    Let,
    Program,
    Scene,
    Setting,
    Statement,
    When,
    Word,
    diff,
    removed,
)
from demon_live.lang.split import is_complete

__all__ = [
    "CHANCE_RULE",
    "NONE",
    "Bind",
    "Chain",
    "Completion",
    "DemonError",
    "Event",
    "Go",
    "Help",
    "Lane",
    "Let",
    "Pattern",
    "Program",
    "Scene",
    "Setting",
    "Statement",
    "When",
    "Word",
    "compile_source",
    "complete",
    "diff",
    "format_source",
    "help_for",
    "is_complete",
    "mini",
    "reference",
    "removed",
    "unparse",
]
