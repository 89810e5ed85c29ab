"""A pygments lexer for scores, with the words of the tables of the language.

Registered as `demon` (entry point pygments.lexers) for every program that uses pygments.
"""

from __future__ import annotations

from pygments.lexer import RegexLexer, words
from pygments.token import (
    Comment,
    Error,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
)

from demon_live.controls import CONTROLS, SETTINGS
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import PERFORMANCE
from demon_live.lang.signals import RANDOM, SIGNALS

_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"


class DemonLexer(RegexLexer):
    """Scores of demon_live."""

    name = "Demon score"
    aliases = ["demon"]  # noqa: RUF012
    filenames = ["*.demon"]  # noqa: RUF012
    url = ""

    tokens = {  # noqa: RUF012
        "root": [
            (r"\s+", Text),
            (r"#[^\n]*", Comment.Single),
            (
                words(("deck", "scene", "let", "go", "chain", "fader"), suffix=r"\b"),
                Keyword.Declaration,
            ),
            (words(tuple(PERFORMANCE), prefix=r"(?:(?<=\n)|^)\s*", suffix=r"\b"), Keyword),
            (words(tuple(SETTINGS), suffix=r"\b(?=\s+[^=\s])"), Keyword),
            (
                words(
                    ("at", "in", "over", "xfade", "now", "default", "none", "on", "off"),
                    prefix=r"(?<![.\w])",
                    suffix=r"\b(?!\()",
                ),
                Keyword.Pseudo,
            ),
            (r"lora\.\w+", Name.Variable),
            (words(tuple(CONTROLS), prefix=r"(?<!\.)", suffix=r"\b(?=\s*=(?!=))"), Name.Variable),
            (
                words(
                    (*SIGNALS, *RANDOM, *CONTROLLERS, "silence"), prefix=r"(?<!\.)", suffix=r"\b"
                ),
                Name.Constant,
            ),
            (words(tuple(FUNCTIONS), suffix=r"\b"), Name.Function),
            (r"(?<!\w)_(?!\w)", Name.Builtin.Pseudo),
            (_NUMBER, Number),
            (r'"', String.Double, "mini"),
            (r"`", String.Double, "long"),
            (r"'(?:[^'\\\n]|\\.)*'?", String.Single),
            (r"~>|<~|\*\*|\|?[-+*/%]\||\|[-+*/%]|[-+*/%<>=!]=?", Operator),
            (r"(?<!\.)(?:and|or|not)\b", Operator.Word),
            (r"[()\[\]{},.;:]", Punctuation),
            (r"[A-Za-z_]\w*", Name),
            (r".", Error),
        ],
        "mini": [
            (r'"', String.Double, "#pop"),
            # An unclosed string ends with its line.
            (r"(?=\n)", Text, "#pop"),
            (r"'(?:[^'\\\n\"]|\\.)*'?", String.Single),
            (r"[\[\]<>{}(),|]", Punctuation),
            (r"\.\.|[*/!@?%_~:.]", Operator),
            (rf"-?{_NUMBER}(?![\w])", Number),
            (r"[^\W_][\w#:-]*", Name.Entity),
            (r"[^\S\n]+", Text),
            (r"[^\n\"]", String.Double),
        ],
        "long": [
            (r"`", String.Double, "#pop"),
            (r"'(?:[^'\\\n`]|\\.)*'?", String.Single),
            (r"[\[\]<>{}(),|]", Punctuation),
            (rf"-?{_NUMBER}(?![\w])", Number),
            (r"[^\W_][\w#:-]*", Name.Entity),
            (r"\s+", Text),
            (r"[^`]", Operator),
        ],
    }
