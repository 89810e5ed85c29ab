"""The commonest mistakes, each with an example, and what to say about it.

When the parser stops, these are tried in order on the statement and the place; the first that fits
speaks. Each row's example is run as a test, so no label can rot.

Threads: constants and pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demon_live.controls import CONTROLS, SETTINGS
from demon_live.errors import ScoreError, Span
from demon_live.lang.brackets import Finding, masked, open_bracket, open_quote
from demon_live.lang.keywords import ALIASES, KEYWORDS, closest
from demon_live.lang.words import WORDS

__all__ = ["MISTAKES", "Mistake", "explain"]


@dataclass(frozen=True, slots=True)
class Mistake:
    """look: (statement, place where the parser stopped) -> Finding or None."""

    name: str
    example: str
    look: Callable[[str, int], Finding | None]


def _regex(
    pattern: str, message: str, hint: str, group: int = 0
) -> Callable[[str, int], Finding | None]:
    """A mistake that a regular expression finds; {n} in message and hint are its groups."""
    compiled = re.compile(pattern)

    def look(text: str, at: int) -> Finding | None:
        found = compiled.search(masked(text))
        if found is None:
            return None
        words = [
            text[slice(*found.span(i))] if found.span(i) != (-1, -1) else ""
            for i in range(compiled.groups + 1)
        ]
        return message.format(*words), found.start(group), found.end(group), hint.format(*words)

    return look


#: Words of time, and what follows them.
_WHENS = {"at": "8", "in": "2", "over": "4", "xfade": "4", "now": ""}


def _unknown_start(text: str, at: int) -> Finding | None:
    """The first word is neither a control with `=` nor a statement's word."""
    found = re.match(r"([A-Za-z_]\w*)\s*(.*)", text, re.DOTALL)
    if found is None:
        return None
    word, rest = found.groups()
    if rest.startswith("=") or word in KEYWORDS:
        return None
    end = len(word)
    if word in CONTROLS:
        if rest.startswith("("):
            inner = rest[1:].rstrip(") ") or "..."
            return f'"{word}" is a control, not a function', 0, end, f"bind it: {word} = {inner}"
        return f'"{word}" needs "=" before its value', 0, end, f"write {word} = {rest or '...'}"
    if word in _WHENS:
        rest = rest if re.match(r"\d", rest) else _WHENS[word]
        hint = f"say what moves or waits: blend = .5 {word} {rest}".rstrip()
        return f'"{word}" stands behind a statement', 0, end, hint
    near = closest(word, [*CONTROLS, *KEYWORDS])
    if re.match(r"[.(]", rest):
        hint = f"give it to a control: blend = {text.strip()[:40]}"
        return f'"{word}" alone binds nothing', 0, end, hint
    hint = f"did you mean {near}?" if near else "a statement is: control = pattern"
    return f'nothing begins with "{word}"', 0, end, hint


def _setting_call(text: str, at: int) -> Finding | None:
    found = re.match(r"(\w+)\s*(\(([^()]*)\)?)", text)
    if found is None:
        return None
    word = ALIASES.get(found.group(1).lower(), found.group(1))
    if word not in SETTINGS:
        return None
    hint = f"write {word} {found.group(3).strip() or '...'}"
    return "a setting takes no parentheses", found.start(2), found.end(2), hint


def _juxtaposed(text: str, at: int) -> Finding | None:
    """Tidal's way: fast 2 "0 1"."""
    found = re.search(r"=\s*(\w+)\s+[\d.(\"']", text)
    if found is None or found.group(1) not in WORDS:
        return None
    example = WORDS[found.group(1)].example.split("= ")[1]
    return "arguments stand in parentheses", found.start(1), found.end(1), f"write {example}"


def _missing_comma(text: str, at: int) -> Finding | None:
    found = re.search(r"\(\s*[^()]*?((?:[\d.]+\s+)+[\d.]+)[^()]*\)", masked(text))
    if found is None:
        return None
    values = ", ".join(found.group(1).split())
    return 'missing "," between arguments', found.start(1), found.end(1), f"write {values}"


def _apostrophe(text: str, at: int) -> Finding | None:
    found = re.search(r"'[^']*\w(')\w[^']*'", text)
    if found is None:
        return None
    return (
        "an apostrophe ends the text here",
        found.start(1),
        found.end(1),
        "write \\' inside of it",
    )


_NEEDS = {
    "fader": ("fader needs a place from 0 to 1, or a pattern", "fader 1 over 8"),
    "go": ("go needs a scene", "go drop at 8"),
    "chain": ("chain needs scenes with their lengths in cycles", "chain 'drop' 8, 'calm' 4"),
    "let": ("let needs a name and a pattern", "let wob(n) = sine.fast(n)"),
    "deck": ("deck needs a name", "deck drums { ... }"),
    "scene": ("scene needs a name and a block", "scene drop { ... }"),
}


def _needs(text: str, at: int) -> Finding | None:
    word = re.match(r"[a-z]*", text).group()  # type: ignore[union-attr]
    if word in _NEEDS:
        message, example = _NEEDS[word]
        return message, 0, len(word), f"write {example}"
    if word in SETTINGS and not text[len(word) :].strip():
        return f"{word} needs a value", 0, len(word), f"write {SETTINGS[word].example}"
    return None


def _setting_equals(text: str, at: int) -> Finding | None:
    found = re.match(r"([a-z]+)\s*(=|:)\s*(.*)", text, re.DOTALL)
    if found is None or found.group(1) not in SETTINGS:
        return None
    word, sign, rest = found.groups()
    return (
        f'{word} is a setting and takes no "{sign}"',
        found.start(2),
        found.end(2),
        f"write {word} {rest.strip()[:30]}",
    )


def _generic(text: str, at: int) -> Finding:
    found = re.compile(r"[A-Za-z_]\w*|[\d.]+|\S").match(text, min(at, max(len(text) - 1, 0)))
    if at >= len(text) or found is None:
        last = len(text.rstrip())
        return (
            "the statement ends too early",
            max(0, last - 1),
            last,
            "a statement is: control = pattern",
        )
    return f'"{found.group()}" does not fit here', found.start(), found.end(), None


MISTAKES: tuple[Mistake, ...] = (
    Mistake(
        "endless number",
        "blend = 1e900",
        _regex(
            r"\d{19,}|\d[eE][+-]?\d{3,}",
            "this number is too long",
            "numbers go up to 10^15",
        ),
    ),
    Mistake(
        "curly quotes",
        "prompt = “acid”",
        _regex(r"[“”‘’„«»]", "{0} is no quote here", "write ' or \" as the keyboard has them"),
    ),
    Mistake(
        "comment with slashes",
        "blend = sine // slowly",
        _regex(r"//\s*(.*)", "comments begin with #", "write # {1}"),
    ),
    Mistake(
        "strudel label",
        '$: s("bd*4")',
        _regex(
            r"^_?\$\s*:",
            "Strudel's $: is not used here",
            "bind a control instead: blend = sine.slow(4)",
        ),
    ),
    Mistake(
        "tidal stream",
        'd1 $ sound "bd*4"',
        _regex(
            r"^d\d+\s*\$",
            "Tidal's d1 $ is not used here",
            'name a deck and bind its controls: deck drums, then blend = "1 .5"',
        ),
    ),
    Mistake(
        "tidal dollar",
        'blend = fast 2 $ "0 1"',
        _regex(r"\$", "there is no $ here", 'write methods: "0 1".fast(2)'),
    ),
    Mistake(
        "tidal hash",
        "blend = sine |+| 2",
        _regex(
            r"\|[-+*/%<>]\|?|[-+*/%]\|",
            'Tidal\'s "{0}" is not used here',
            "plain + - * / keep the structure of the left side, as |+ does",
        ),
    ),
    Mistake(
        "arrow function",
        "blend = saw.every(4, x => x.rev())",
        _regex(
            r"\b(\w+)\s*=>\s*",
            "arrow functions are not used here",
            "_ stands for the pattern: every(4, _.rev()), or just every(4, rev)",
        ),
    ),
    Mistake(
        "lambda",
        "blend = saw.every(4, lambda x: x.rev())",
        _regex(
            r"\blambda\b[^:]*:",
            "lambda is not used in a score",
            "_ stands for the pattern: every(4, _.rev()), or just every(4, rev)",
        ),
    ),
    Mistake(
        "foxdot player",
        "p1 >> pluck([0, 4])",
        _regex(
            r"^\w+\s*>>",
            "FoxDot's >> is not used here",
            "bind a control: blend = linvar([0, 1], 8)",
        ),
    ),
    Mistake("apostrophe", "prompt = 'it's acid'", _apostrophe),
    Mistake("missing quote", 'prompt = "acid techno', open_quote),
    Mistake("missing bracket", "blend = sine.range(.2, 1", open_bracket),
    Mistake("setting with =", "tempo = 128", _setting_equals),
    Mistake(
        "colon for =",
        "blend: sine",
        _regex(
            r"^([A-Za-z_][\w.]*)\s*:(?!=)", '"=" binds a control, not ":"', "write {1} = ...", 0
        ),
    ),
    Mistake("walrus", "blend := sine", _regex(r":=", '"=" binds a control, not ":="', "write =")),
    Mistake(
        "plus equals",
        "blend += .1",
        _regex(
            r"^(\w+)\s*([-+*/])=",
            "{1} has no value to add to: a pattern is written whole",
            "write {1} = ...",
        ),
    ),
    Mistake(
        "double equals",
        "blend == .5",
        _regex(r"^\w+\s*(==)", "a single = binds", "write =", 1),
    ),
    Mistake("setting with parentheses", "tempo(128)", _setting_call),
    Mistake(
        "unit of time",
        "blend = 1 over 4 bars",
        _regex(
            r"\b(over|at|in|xfade)\s+([\d.]+)\s*((?!at|in|over|xfade|now)[a-z]+)\s*$",
            "{1} counts in cycles, without a unit",
            "write {1} {2}",
            3,
        ),
    ),
    Mistake(
        "per cent",
        "blend = 50%",
        _regex(r"=\s*([\d.]+\s*%)\s*$", "there are no per cents", "0 to 1: write .5 for 50%", 1),
    ),
    Mistake(
        "decimal comma",
        "blend = 0,5",
        _regex(r"=\s*((\d+),(\d+))", "a decimal has a point, not a comma", "write {2}.{3}", 1),
    ),
    Mistake("arguments without parentheses", 'blend = fast 2 "0 1"', _juxtaposed),
    Mistake(
        "method without parentheses",
        "blend = sine.slow 4",
        _regex(
            r"\.(([A-Za-z]\w*)\s+(-?[\d.]+))",
            "arguments stand in parentheses",
            "write .{2}({3})",
            1,
        ),
    ),
    Mistake("missing =", "blend sine.slow(4)", _unknown_start),
    Mistake(
        "double dot",
        "blend = sine..slow(4)",
        _regex(r"\w(\.\.+)\w", "one dot calls a method", "write a single .", 1),
    ),
    Mistake(
        "nothing behind =",
        "blend =",
        _regex(r"=\s*(?:#.*)?$", 'nothing behind "="', "write a number, a pattern or default"),
    ),
    Mistake(
        "keyword argument",
        "blend = sine.range(low=.2, high=1)",
        _regex(
            r"[(,]\s*(\w+)\s*=(?!=)",
            "arguments have no names here",
            "write them in order: range(.2, 1)",
            1,
        ),
    ),
    Mistake(
        "when without number",
        "blend = 1 over",
        _regex(
            r"\b(at|in|over|xfade)\s*(?:#.*)?$", '"{1}" needs a number of cycles', "write {1} 4", 1
        ),
    ),
    Mistake(
        "bare words",
        "prompt = acid techno",
        _regex(
            r"^(?:prompt2?|key|cfg)\s*=\s*([A-Za-z][^'\"]*)$",
            "text goes into quotes",
            "write '{1}'",
            1,
        ),
    ),
    Mistake(
        "two values",
        "blend = .2 .8",
        _regex(
            r"=\s*(-?[\d.]+(?:\s+-?[\d.]+)+)",
            "several values in a row are mini-notation",
            'put them in double quotes: "{1}"',
            1,
        ),
    ),
    Mistake("missing comma", "blend = sine.range(.2 1)", _missing_comma),
    Mistake(
        "bare mini-notation",
        "noise = <0 .5>",
        _regex(
            r"=\s*([\[<{~].*)$",
            "mini-notation stands in double quotes",
            'write "{1}"',
            1,
        ),
    ),
    Mistake(
        "rhythm without quotes",
        "noise = 1(3,8)",
        _regex(
            r"=\s*(-?[\d.]+\s*\(\s*\d+\s*(?:,\s*-?\d+\s*)*\))",
            "mini-notation stands in double quotes",
            'write "{1}"',
            1,
        ),
    ),
    Mistake("control as a function", "blend(sine)", _unknown_start),
    Mistake("unfinished statement", "chain drop", _needs),
)


def explain(text: str, at: int, expected: Sequence[str] = ()) -> ScoreError:
    """What is wrong with a statement that the parser left at offset `at`."""
    for mistake in MISTAKES:
        finding = mistake.look(text, at)
        if finding is not None:
            break
    else:
        finding = _generic(text, at)
        if finding[3] is None and expected:
            finding = (*finding[:3], _wanted(expected))
    message, start, end, hint = finding
    return ScoreError(message, span=Span.of(text, start, end), hint=hint, source=text)


_SHOWN = {
    "RPAR": '")"',
    "LPAR": '"("',
    "RSQB": '"]"',
    "COMMA": '","',
    "EQUAL": '"="',
    "DOT": '".method"',
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": '"mini-notation"',
    "TEXT": "'text'",
    "BRACE": '"{"',
    "WHEN": "at, in, over or xfade",
}


def _wanted(expected: Sequence[str]) -> str | None:
    shown = [_SHOWN[e] for e in expected if e in _SHOWN]
    return f"expected {', '.join(shown[:5])}" if shown else None
