"""Diagnostics: the errors of statements that do not parse, with remedies.

MISTAKES are tried in order on the statement and the place where the parser stopped; the first that
fits gives the error. A test runs the example of each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from demon_live.controls import CONTROLS, SETTINGS
from demon_live.errors import ScoreError, Span
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import ALIASES, KEYWORDS, STATEMENTS, meant
from demon_live.lang.mistakes import ARGUMENTS, FOREIGN, PIECE, Diagnosis, Mistake, by_regex

# --- quotes and brackets ---------------------------------------------------------------------


def _open_quote(text: str, at: int) -> Diagnosis | None:
    for found in PIECE.finditer(text):
        piece = found.group()
        if piece[0] in "\"'`" and (len(piece) == 1 or piece[-1] != piece[0]):
            closed = _closed(piece) if piece[0] == '"' else piece
            hint = f"write {closed}{piece[0]}"
            return Diagnosis(f"missing closing {piece[0]}", *found.span(), hint)
    return None


def _closed(mini: str) -> str:
    """Unfinished mini-notation with its open brackets closed."""
    pairs, stack = {"<": ">", "[": "]", "{": "}", "(": ")"}, []
    for sign in mini:
        if sign in pairs:
            stack.append(pairs[sign])
        elif stack and sign == stack[-1]:
            stack.pop()
    return mini.rstrip() + "".join(reversed(stack))


def _open_bracket(text: str, at: int) -> Diagnosis | None:
    closing = {"(": ")", "[": "]"}
    stack: list[tuple[str, int]] = []
    for found in PIECE.finditer(text):
        piece, start = found.group(), found.start()
        if piece in closing:
            stack.append((piece, start))
        elif piece in (")", "]"):
            if not stack:
                hint = "remove it, or open it before"
                return Diagnosis(f'"{piece}" closes nothing', start, start + 1, hint)
            opener, where = stack.pop()
            if closing[opener] != piece:
                message = f'"{piece}" where "{closing[opener]}" must close'
                hint = f'"{opener}" opened at column {where + 1}'
                return Diagnosis(message, start, start + 1, hint)
    if not stack:
        return None
    opener, where = stack[-1]
    message, hint = f'missing "{closing[opener]}" opened here', f'close it with "{closing[opener]}"'
    return Diagnosis(message, where, where + 1, hint)


# --- statements ------------------------------------------------------------------------------


#: Words of time, and an example of what follows them.
_WHENS = {"at": "8", "in": "2", "over": "4", "xfade": "4", "now": ""}


def _unknown_start(text: str, at: int) -> Diagnosis | None:
    """The first word is neither a control with `=` nor a statement's word."""
    found = re.match(r"([A-Za-z_]\w*)\s*(.*)", text, re.DOTALL)
    if found is None:
        return None
    word, rest = found.groups()
    if rest.startswith("=") or word in KEYWORDS:
        return None
    message, hint = _start(word, rest, text)
    return Diagnosis(message, 0, len(word), hint)


def _start(word: str, rest: str, text: str) -> tuple[str, str]:
    """(message, hint) for a statement that begins with `word`."""
    if word in CONTROLS:
        if rest.startswith("("):
            inner = rest[1:].rstrip(") ") or "..."
            return f'"{word}" is a control, not a function', f"bind it: {word} = {inner}"
        return f'"{word}" needs "=" before its value', f"write {word} = {rest or '...'}"
    if word in _WHENS:
        rest = rest if re.match(r"\d", rest) else _WHENS[word]
        hint = f"say what moves or waits: blend = .5 {word} {rest}".rstrip()
        return f'"{word}" stands behind a statement', hint
    if re.match(r"[.(]", rest):
        return f'"{word}" alone binds nothing', f"give it to a control: blend = {text.strip()[:40]}"
    near = meant(word, [*CONTROLS, *KEYWORDS])
    hint = f"did you mean {near}?" if near else "a statement is: control = pattern"
    return f'nothing begins with "{word}"', hint


def _setting_call(text: str, at: int) -> Diagnosis | None:
    found = re.match(r"(\w+)\s*(\(([^()]*)\)?)", text)
    if found is None:
        return None
    word = ALIASES.get(found.group(1).lower(), found.group(1))
    if word not in SETTINGS:
        return None
    hint = f"write {word} {found.group(3).strip() or '...'}"
    return Diagnosis("a setting takes no parentheses", *found.span(2), hint)


def _setting_equals(text: str, at: int) -> Diagnosis | None:
    found = re.match(r"([a-z]+)\s*(=|:)\s*(.*)", text, re.DOTALL)
    if found is None or found.group(1) not in SETTINGS:
        return None
    word, sign, rest = found.groups()
    message = f'{word} is a setting and takes no "{sign}"'
    return Diagnosis(message, *found.span(2), f"write {word} {rest.strip()[:30]}")


def _juxtaposed(text: str, at: int) -> Diagnosis | None:
    """Tidal's way: fast 2 "0 1"."""
    found = re.search(r"=\s*(\w+)\s+[\d.(\"']", text)
    if found is None or found.group(1) not in FUNCTIONS:
        return None
    advice = FUNCTIONS[found.group(1)].advice
    return Diagnosis("arguments stand in parentheses", *found.span(1), advice)


def _apostrophe(text: str, at: int) -> Diagnosis | None:
    found = re.search(r"'[^']*\w(')\w[^']*'", text)
    if found is None:
        return None
    return Diagnosis("an apostrophe ends the text here", *found.span(1), "write \\' inside of it")


_NEEDS = {
    "fader": "fader needs a place from 0 to 1, or a pattern",
    "go": "go needs a scene",
    "chain": "chain needs scenes with their lengths in cycles",
    "let": "let needs a name and a pattern",
    "deck": "deck needs a name",
    "scene": "scene needs a name and a block",
}
_EXAMPLES = {word: example for word, _, _, example in STATEMENTS}


def _unfinished(text: str, at: int) -> Diagnosis | None:
    word = re.match(r"[a-z]*", text).group()  # type: ignore[union-attr]
    if word in _NEEDS:
        return Diagnosis(_NEEDS[word], 0, len(word), f"write {_EXAMPLES[word]}")
    if word in SETTINGS and not text[len(word) :].strip():
        hint = f"write {SETTINGS[word].example}"
        return Diagnosis(f"{word} needs a value", 0, len(word), hint)
    return None


def _generic(text: str, at: int, expected: Sequence[str]) -> Diagnosis:
    """The diagnosis if no mistake of the table fits."""
    found = re.compile(r"[A-Za-z_]\w*|[\d.]+|\S").match(text, min(at, max(len(text) - 1, 0)))
    if at >= len(text) or found is None:
        last = len(text.rstrip())
        hint = "a statement is: control = pattern"
        return Diagnosis("the statement ends too early", max(0, last - 1), last, hint)
    shown = [_SHOWN[e] for e in expected if e in _SHOWN]
    hint = f"expected {', '.join(shown[:5])}" if shown else None  # type: ignore[assignment]
    return Diagnosis(f"{_visible(found.group())} does not fit here", *found.span(), hint)


def _visible(word: str) -> str:
    """A word in quotes; an invisible character by its number and name."""
    if len(word) == 1 and not word.isprintable():
        return f"the invisible U+{ord(word):04X} ({unicodedata.name(word, 'control character')})"
    return f'"{word}"'


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

MISTAKES: tuple[Mistake, ...] = (
    by_regex(
        "endless number",
        "blend = 1e900",
        r"\d{19,}|\d[eE][+-]?\d{3,}",
        "this number is too long",
        "numbers go up to 10^15",
    ),
    by_regex(
        "curly quotes",
        "prompt = “acid”",
        r"[“”‘’„«»]",
        "{0} is no quote here",
        "write ' or \" as the keyboard has them",
    ),
    *FOREIGN,
    Mistake("apostrophe", "prompt = 'it's acid'", _apostrophe),
    Mistake("missing quote", 'prompt = "acid techno', _open_quote),
    Mistake("missing bracket", "blend = sine.range(.2, 1", _open_bracket),
    Mistake("setting with =", "tempo = 128", _setting_equals),
    by_regex(
        "colon for =",
        "blend: sine",
        r"^([A-Za-z_][\w.]*)\s*:(?!=)",
        '"=" binds a control, not ":"',
        "write {1} = ...",
        0,
    ),
    by_regex("walrus", "blend := sine", r":=", '"=" binds a control, not ":="', "write ="),
    by_regex(
        "plus equals",
        "blend += .1",
        r"^(\w+)\s*([-+*/])=",
        "{1} has no value to add to: a pattern is written whole",
        "write {1} = ...",
    ),
    by_regex("double equals", "blend == .5", r"^\w+\s*(==)", "a single = binds", "write =", 1),
    Mistake("setting with parentheses", 'source("loops/amen.wav")', _setting_call),
    by_regex(
        "unit of time",
        "blend = 1 over 4 bars",
        r"\b(over|at|in|xfade)\s+([\d.]+)\s*((?!at|in|over|xfade|now)[a-z]+)\s*$",
        "{1} counts in cycles, without a unit",
        "write {1} {2}",
        3,
    ),
    by_regex(
        "per cent",
        "blend = 50%",
        r"=\s*([\d.]+\s*%)\s*$",
        "there are no per cents",
        "0 to 1: write .5 for 50%",
        1,
    ),
    by_regex(
        "decimal comma",
        "blend = 0,5",
        r"=\s*((\d+),(\d+))",
        "a decimal has a point, not a comma",
        "write {2}.{3}",
        1,
    ),
    Mistake("arguments without parentheses", 'blend = fast 2 "0 1"', _juxtaposed),
    by_regex(
        "method without parentheses",
        "blend = sine.slow 4",
        rf"\.(([A-Za-z]\w*)\s+({ARGUMENTS}))",
        "arguments stand in parentheses",
        lambda words: f"write .{words[2]}({', '.join(words[3].split())})",
        1,
    ),
    Mistake("missing =", "blend sine.slow(4)", _unknown_start),
    by_regex(
        "double dot",
        "blend = sine..slow(4)",
        r"\w(\.\.+)\w",
        "one dot calls a method",
        "write a single .",
        1,
    ),
    by_regex(
        "nothing behind =",
        "blend =",
        r"=\s*(?:#.*)?$",
        'nothing behind "="',
        "write a number, a pattern or default",
    ),
    by_regex(
        "keyword argument",
        "blend = sine.range(low=.2, high=1)",
        r"[(,]\s*(\w+)\s*=(?!=)",
        "arguments have no names here",
        "write them in order: range(.2, 1)",
        1,
    ),
    by_regex(
        "when without number",
        "blend = 1 over",
        r"\b(at|in|over|xfade)\s*(?:#.*)?$",
        '"{1}" needs a number of cycles',
        "write {1} 4",
        1,
    ),
    by_regex(
        "bare words",
        "prompt = acid techno",
        r"^(?:prompt2?|key|cfg)\s*=\s*([A-Za-z][^'\"]*)$",
        "text goes into quotes",
        "write '{1}'",
        1,
    ),
    by_regex(
        "two values",
        "blend = .2 .8",
        r"=\s*(-?[\d.]+(?:\s+(?:-?[\d.]+|~))+)",
        "several values in a row are mini-notation",
        'put them in double quotes: "{1}"',
        1,
    ),
    by_regex(
        "bare mini-notation",
        "noise = <0 .5>",
        r"=\s*([\[<{~].*)$",
        "mini-notation stands in double quotes",
        'write "{1}"',
        1,
    ),
    by_regex(
        "rhythm without quotes",
        "noise = 1(3,8)",
        r"=\s*(-?[\d.]+\s*\(\s*\d+\s*(?:,\s*-?\d+\s*)*\))",
        "mini-notation stands in double quotes",
        'write "{1}"',
        1,
    ),
    Mistake("control as a function", "blend(sine)", _unknown_start),
    Mistake("unfinished statement", "chain drop", _unfinished),
)


def explain(text: str, at: int, expected: Sequence[str] = ()) -> ScoreError:
    """The error for a statement that the parser left at offset `at`.

    Args:
        expected: the terminals that the grammar would have accepted there.
    """
    looks = (mistake.look(text, at) for mistake in MISTAKES)
    found = next((d for d in looks if d is not None), None) or _generic(text, at, expected)
    span = Span.of(text, found.start, found.end)
    return ScoreError(found.message, span=span, hint=found.hint, source=text)
