"""Mistakes of statements, and those that players of other languages make.

FOREIGN is the part of diagnostics.MISTAKES that recognises Tidal, Strudel, FoxDot, Sonic Pi and
Python by their signs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from demon_live.controls import SETTINGS
from demon_live.lang.functions import FUNCTIONS


class Diagnosis(NamedTuple):
    """An error at statement[start:end], and its remedy."""

    message: str
    start: int
    end: int
    hint: str | None


Look = Callable[[str, int], Diagnosis | None]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A common mistake. look: (statement, place where the parser stopped) -> Diagnosis or None."""

    name: str
    example: str
    look: Look


def by_regex(
    name: str,
    example: str,
    pattern: str,
    message: str,
    hint: str | Callable[[Sequence[str]], str],
    group: int = 0,
    called: int = 0,
) -> Mistake:
    """A mistake that a regular expression finds; {n} in message and hint are its groups.

    group: the one whose place is shown. called: the one that must be a function, if one must.
    """
    compiled = re.compile(pattern)

    def look(text: str, at: int) -> Diagnosis | None:
        found = compiled.search(masked(text))
        if found is None:
            return None
        places = [found.span(i) for i in range(compiled.groups + 1)]
        words = ["" if place == (-1, -1) else text[slice(*place)] for place in places]
        if called and words[called] not in FUNCTIONS:
            return None
        remedy = hint(words) if callable(hint) else hint.format(*words)
        return Diagnosis(message.format(*words), *found.span(group), remedy)

    return Mistake(name, example, look)


PIECE = re.compile(r"""`[^`]*`?|"[^"\n]*"?|'(?:[^'\\\n]|\\.)*'?|#[^\n]*|[^`"'#]""")


def masked(text: str) -> str:
    """The statement with quotes and comments blanked out, so that no sign in them misleads."""
    pieces = (m.group() for m in PIECE.finditer(text))
    return "".join(
        p if len(p) == 1 else p[0] + "\xa4" * (len(p) - 2) + (p[-1] if p[0] == p[-1] else " ")
        for p in pieces
    )


#: A bare number or word, or something in quotes.
_ARGUMENT = r"""(?:"[^"]*"|'[^']*'|[\w.]+)"""
#: Arguments behind a function's name, up to a word of time: a number, then anything.
ARGUMENTS = rf"-?[\d.]+(?:\s+(?!(?:at|in|over|xfade|now)\b)-?{_ARGUMENT})*"


def _tidal_tick(text: str, at: int) -> Diagnosis | None:
    found = re.search(r"=\s*(([a-z]\w*)')\s+[\d\"(]", text)
    if found is None:
        return None
    message = f"Tidal's {found.group(1)} is not used here"
    hint = ".every(4, rev, 1) begins a cycle later; all arguments stand in parentheses"
    return Diagnosis(message, *found.span(1), hint)


def _tempo(words: Sequence[str]) -> str:
    """The remedy for Strudel's and Tidal's words of tempo."""
    values = re.split(r"\s*([*/])\s*", words[2].strip())
    cycles = Fraction(values[0])
    for op, value in zip(values[1::2], values[2::2], strict=True):
        cycles = cycles * Fraction(value) if op == "*" else cycles / (Fraction(value) or 1)
    if words[1] != "setcps":
        cycles /= 60
    return f"write tempo {float(cycles * 240):g} (4 beats a cycle), or cps {float(cycles):g}"


def _decibels(words: Sequence[str]) -> str:
    return f"1 is as it is; {words[1]} dB is {10 ** (float(words[1]) / 20):.2g}"


def _plain_digits(words: Sequence[str]) -> str:
    digits = words[1].replace("_", "")
    return f"write {int(digits, 16 if digits[1:2] in ('x', 'X') else 10)}"


def _python_deck(words: Sequence[str]) -> str:
    name = words[1].strip("\"'")
    return f"write {name + '.' * bool(name)}{words[2]} = ..."


FOREIGN: tuple[Mistake, ...] = (
    Mistake("tidal tick", "blend = every' 4 1 rev", _tidal_tick),
    by_regex(
        "cycles a minute",
        "setcpm(120/4)",
        r"^(setcps|setcpm|cpm)\s*\(?\s*((?:\d+\.?\d*|\.\d+)(?:\s*[*/]\s*(?:\d+\.?\d*|\.\d+)){0,4})\s*\)?",
        "{1} is not used here",
        _tempo,
    ),
    by_regex(
        "tidal transition",
        'xfadeIn 1 4 $ sound "bd"',
        r"^(xfade\w*|clutch\w*|interpolate\w*|jump\w*|anticipate|once)\b.*\$",
        "Tidal's {1} is not used here",
        "a time stands behind a binding: blend = .5 xfade 4, ... at 8, ... in 2, ... now",
        1,
    ),
    by_regex(
        "other comments",
        "-- slowly",
        r"(?:^|\s)(--|/\*)\s*(.*)",
        "comments begin with #",
        "write # {2}",
        1,
    ),
    by_regex(
        "sound of Tidal",
        's("bd sd").fast(2)',
        r"^(s|sound|note|n|freq)\s*\(",
        "{1}() is not used here: a deck plays one loop",
        'source "loops/breaks_134.flac" names it, and a control is bound: blend = "1 .5"',
        1,
    ),
    by_regex(
        "all of Tidal",
        "all(lpf 300)",
        r"^(all)\s*[($]",
        "{1} is not used here",
        "master {{ lpf = 300 }} is over all decks",
        1,
    ),
    by_regex(
        "silence of Tidal",
        "d1 silence",
        r"^(d\d+)\s*\$?\s*silence\b",
        "Tidal's {1} is not used here",
        "mute NAME silences a deck, deck NAME off ends it, hush silences all",
        1,
    ),
    by_regex(
        "decibels",
        "gain = -6dB",
        r"(?<![\w.])(-?(?:\d{1,3}(?:\.\d*)?|\.\d+))\s*d[bB]\b",
        "there are no decibels here",
        _decibels,
    ),
    by_regex(
        "sonic pi",
        "live_loop :drums do",
        r"^(live_loop|with_fx|sync|set|sleep|play|use_synth|in_thread|end)\b(?!\s*=)",
        "Sonic Pi's {1} is not used here",
        'a control is bound to a pattern: blend = "0 .5 1"',
        1,
    ),
    by_regex(
        "foxdot stop",
        "b1.stop()",
        r"^(\w+\.(?:stop|clear|solo|only))\s*\(",
        "{1}() is not used here",
        "hush is silence; a control is given back with blend = default",
        1,
    ),
    by_regex(
        "nothing to load",
        'samples("github:tidalcycles/dirt-samples")',
        r"^(print|samples|await|import|from)\b(?!\s*=)",
        "{1} is not used here: there is nothing to load and nothing to print",
        "? lists the words; a sound is named by source",
        1,
    ),
    by_regex(
        "deck of Python",
        'deck["drums"].denoise = sine',
        r"^deck\s*(?:\[\s*([\"'].*[\"'])\s*\]\s*)?\.(\w+)\s*=",
        "this is the form of Python",
        _python_deck,
    ),
    by_regex(
        "power",
        "blend = sine ^ 2",
        r"\^",
        '"^" is no operator here',
        "a power is **: sine ** 2",
    ),
    by_regex(
        "if and else",
        "blend = .5 if sine else 1",
        r"\bif\b.{1,80}?\belse\b|\?[^?:]{1,80}:",
        "a pattern has no if",
        'write "<0 1>".pick(1, .5), or p.when("<0 1>", rev)',
    ),
    by_regex(
        "foxdot pattern",
        "blend = P[0, 1]",
        r"\bP\[",
        "FoxDot's P[ ] is not used here",
        'a sequence is "0 1"',
    ),
    by_regex(
        "index",
        'blend = "0 .5"[0]',
        r"[\w)\"](\[\s*-?\w*\s*\])",
        "a pattern has no index",
        'a part of a cycle is .bite(4, "0") or .zoom(0, 1/4)',
        1,
    ),
    by_regex(
        "f-string",
        'blend = f"0 {x}"',
        r"\b[fr](?=\")",
        "this string is Python's",
        'write "0 1"; patterns are joined by cat, seq and pick',
    ),
    by_regex(
        "digits of Python",
        "seed = 1_000",
        r"\b(\d{1,18}_[\d_]{1,18}|0[xX][0-9a-fA-F]{1,12})\b",
        "a number is written in plain digits",
        _plain_digits,
    ),
    by_regex(
        "capital time",
        "blend = sine Over 4",
        r"\s(Over|At|In|Xfade|Now)\b",
        '"{1}" is written in small letters',
        lambda words: f"write {words[1].lower()}",
        1,
    ),
    by_regex(
        "unit of a setting",
        "tempo 128bpm",
        rf"^({'|'.join(SETTINGS)})\s+([\d./]+)\s*((?!at|in|over|xfade|now)[A-Za-z]+)\s*$",
        "{1} takes a plain number, without a unit",
        "write {1} {2}",
        3,
    ),
    by_regex(
        "quoted time",
        'blend = sine over "4"',
        r"\b(over|at|in|xfade)\s+([\"'`][^\"'`]*[\"'`])",
        "{1} takes a plain number of cycles",
        "write {1} 4",
        2,
    ),
    by_regex(
        "bare path",
        "source loops/amen.wav",
        r"^source\s+([^\s'\"#]*[./][^\s'\"#]*)\s*$",
        "a file name goes into quotes",
        'write source "{1}"',
        1,
    ),
    by_regex(
        "bindings with commas",
        "blend = 1, denoise = .9",
        r"^[\w.]+\s*=[^=,()\[\]]+(,)\s*[A-Za-z_][\w.]*\s*=(?!=)",
        "a comma does not separate bindings",
        "write ; or begin a new line",
        1,
    ),
    by_regex(
        "function in front",
        "blend = slow(4) sine",
        r"=\s*((\w+)\([^()]*\))\s+([A-Za-z\"][^\n]*)$",
        "a function stands behind its pattern",
        lambda words: f"write {words[3].strip()}.{words[1]}",
        1,
        2,
    ),
    by_regex(
        "argument without parentheses",
        "blend = saw.every(4, fast 2)",
        r"[(,]\s*(([A-Za-z]\w*)\s+(-?[\d.]+))\s*[,)]",
        "arguments stand in parentheses",
        "write {2}({3})",
        1,
        2,
    ),
    by_regex(
        "missing comma",
        'blend = cat("0 1" "1 0")',
        rf"\w\((?:[^()]*[,\[(])?\s*({_ARGUMENT}(?:\s+{_ARGUMENT})+)\s*[,)\]]",
        'missing "," between arguments',
        lambda words: f"write {', '.join(re.findall(_ARGUMENT, words[1]))}",
        1,
    ),
    by_regex(
        "comment with slashes",
        "blend = sine // slowly",
        r"//\s*(.*)",
        "comments begin with #",
        "write # {1}",
    ),
    by_regex(
        "strudel label",
        '$: s("bd*4")',
        r"^_?\$\s*:",
        "Strudel's $: is not used here",
        "bind a control instead: blend = sine.slow(4)",
    ),
    by_regex(
        "tidal stream",
        'd1 $ sound "bd*4"',
        r"^d\d+\s*\$",
        "Tidal's d1 $ is not used here",
        'name a deck and bind its controls: deck drums, then blend = "1 .5"',
    ),
    by_regex(
        "tidal dollar",
        'blend = fast 2 $ "0 1"',
        r"\$",
        "there is no $ here",
        'write methods: "0 1".fast(2)',
    ),
    by_regex(
        "tidal hash",
        "blend = sine |> 2",
        r"\|[<>]\|?|[<>]\|",
        'Tidal\'s "{0}" is not used here',
        "|+, +| and |+| are, with any of + - * / %; to take values in a rhythm write .struct",
    ),
    by_regex(
        "arrow function",
        "blend = saw.every(4, x => x.rev())",
        r"\b(\w+)\s*=>\s*",
        "arrow functions are not used here",
        "_ stands for the pattern: every(4, _.rev()), or just every(4, rev)",
    ),
    by_regex(
        "lambda",
        "blend = saw.every(4, lambda x: x.rev())",
        r"\blambda\b[^:]*:",
        "lambda is not used in a score",
        "_ stands for the pattern: every(4, _.rev()), or just every(4, rev)",
    ),
    by_regex(
        "foxdot player",
        "p1 >> pluck([0, 4])",
        r"^\w+\s*>>",
        "FoxDot's >> is not used here",
        "bind a control: blend = linvar([0, 1], 8)",
    ),
)
