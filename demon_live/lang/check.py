"""Checks of a statement before it may play, and the errors and warnings of a score."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from demon_live.controls import CONTROLS, Control, read_duck
from demon_live.core import SOUND_ENDINGS
from demon_live.errors import ScoreError, ScoreWarning, Span
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.cycle_table import trial
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import PERFORMANCE, key_of, meant
from demon_live.lang.lane import Lane
from demon_live.lang.mini_syntax import MAX_NESTING
from demon_live.lang.pattern import Curve, Event, Pattern, PatternError, less_work
from demon_live.lang.program import Let
from demon_live.lang.scope import places_of
from demon_live.lang.signals import SIGNALS
from demon_live.lang.split import comments
from demon_live.lang.syntax import (
    Bin,
    Call,
    Expr,
    LetNode,
    Method,
    Mini,
    Name,
    Num,
    Text,
    WordNode,
    children,
    unparse_expr,
)
from demon_live.notes.harmony import NOTE, fitted, note_name, written_pitches

_MAX_ERRORS = 50
#: Cycles of a lane that are sampled before it is accepted; more of a pattern with few events.
_TRIAL = 2
_TRIAL_MOST = 16
#: Of a pattern with more events in a cycle, one cycle is played, and this many of its curves.
_DENSE = 256
#: Where in its span a curve is tried.
_TRIED = np.linspace(0, 1, 32, endpoint=False)


class Diagnostics:
    """The errors and warnings of one score, with places in its text."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self._lines = [0, *(m.end() for m in re.finditer("\n", text))]
        self.errors: list[ScoreError] = []
        self.warnings: list[ScoreWarning] = []

    def span(self, start: int, end: int) -> Span:
        """The span of text[start:end]."""
        line = bisect_right(self._lines, start)
        return Span(start, end, line, start - self._lines[line - 1] + 1)

    def error(self, message: str, span: Span, hint: str | None = None) -> None:
        if len(self.errors) < _MAX_ERRORS:
            made = ScoreError(message, span=span, hint=hint, source=self.text, name=self.name)
            self.errors.append(made)

    def warn(self, message: str, span: Span, hint: str | None = None) -> None:
        if len(self.warnings) < _MAX_ERRORS:
            made = ScoreWarning(message, span=span, hint=hint, source=self.text, name=self.name)
            self.warnings.append(made)

    def failure(self) -> ScoreError:
        """All errors as one, in text order."""
        ordered = sorted(self.errors, key=lambda e: e.span.start if e.span else 0)
        first = ordered[0]
        return ScoreError(
            first.message,
            span=first.span,
            hint=first.hint,
            source=self.text,
            name=self.name,
            others=ordered[1:],
        )


@dataclass(frozen=True, slots=True)
class Site:
    """A binding under check. place: of its expression in the score. start: of its statement."""

    report: Diagnostics
    expr: Expr
    spec: Control
    place: Span
    start: int


def try_lane(site: Site, pattern: Pattern) -> None:
    """Play the first cycles, to find too much work, wrong kinds and values out of range."""
    # A short period needs no second cycle; a long one is played whole if it is cheap.
    period = pattern.period or _TRIAL_MOST + 1
    cheap = pattern.cost * period <= _TRIAL_MOST
    cycles = _TRIAL if pattern.cost <= _DENSE else 1
    try:
        events = trial(pattern, period if cheap else min(period, cycles))
    except PatternError as error:
        site.report.error(str(error), site.place, less_work(error))
        return
    spec = site.spec
    if spec.cls == "notes":
        _plays(site, events)
    if spec.pitched:
        _check_pitches(site, events)
        return
    if not events and cheap and any(_has_steps(node) for node in _parts(site.expr)):
        message = "this is silence: no step ever plays"
        site.report.warn(message, site.place, "write ~ if it is meant")
    low, high, curves = math.inf, -math.inf, 0
    for event in events:
        if _wrong_kind(site, event):
            return
        if spec.numeric:
            curves += isinstance(event.value, Curve)
            if curves > _DENSE:
                continue
            try:
                least, most = _extent(event)
            except PatternError as error:
                site.report.error(str(error), site.place, "smooth once, over a longer time")
                return
            low, high = min(low, least), max(high, most)
        elif spec.choices and event.value not in (*spec.choices, spec.default):
            _bad_choice(site, str(event.value))
            return
        elif spec.name == "duck" and not _is_duck(str(event.value)):
            message = f"duck knows no {event.value!r}"
            site.report.error(message, site.place, f"a name and 0 to 1: {spec.example}")
            return
    # Allow for rounding: exp(log(20)) is just under 20.
    slack = 1e-9 * max(abs(spec.low), abs(spec.high))
    if low < spec.low - slack or high > spec.high + slack:
        _excess(site, low, high)


def _plays(site: Site, events: Sequence[Event]) -> None:
    """Warn of a curve where events are needed."""
    if site.spec.shape != "number" and events and all(e.whole_begin is None for e in events):
        message = f"{site.spec.name} plays events, and a curve has none"
        site.report.warn(message, site.place, "cut it into steps: .segment(16)")


def _check_pitches(site: Site, events: Sequence[Event]) -> None:
    """Report names that mean no note or chord, and notes that lie outside of the voice's range."""
    spec, moved = site.spec, dict[float, float]()
    for value in dict.fromkeys(e.value for e in events if not isinstance(e.value, Curve)):
        try:
            written = written_pitches(value, spec)
        except ScoreError as error:
            site.report.error(error.message, _place_of(site, value), error.hint)
            return
        moved |= {p: fitted(p, spec) for p in written if fitted(p, spec) != p}
    # What a key will play is not known yet.
    if moved and not names_in(site.expr) & CONTROLLERS.keys():
        pitch, plays = next(iter(moved.items()))
        site.report.warn(
            f"{spec.name} plays {note_name(spec.low)} to {note_name(spec.high)}: "
            f"{note_name(pitch)} is moved to {note_name(plays)}",
            site.place,
            f"write it in that octave, or .add({plays - pitch:g})",
        )


def _place_of(site: Site, value: str | float) -> Span:
    """Where a value is written, or the whole expression."""
    found = places_of(site.expr, lambda v: v == value)
    if not found:
        return site.place
    _, start, end = found[0]
    return Span.of(site.report.text, site.start + start, site.start + end)


def _has_steps(node: Expr) -> bool:
    """False for a name, and for mini-notation of rests: silence that was written as such."""
    if isinstance(node, Mini):
        return any(c.isalnum() for c in node.text)
    return isinstance(node, (Method, Bin))


def _extent(event: Event) -> tuple[float, float]:
    """The least and the greatest value of an event."""
    if not isinstance(event.value, Curve):
        return float(event.value), float(event.value)
    begin = float(event.begin)
    values = event.value.f(begin + _TRIED * (float(event.end) - begin))
    return float(np.min(values)), float(np.max(values))


def _wrong_kind(site: Site, event: Event) -> bool:
    """Report text among numbers, or numbers among texts, that shows only in the values."""
    spec = site.spec
    if spec.numeric != isinstance(event.value, str) or (spec.cls == "out" and not spec.numeric):
        return False
    what = "numbers" if spec.numeric else "text"
    value = "a curve" if isinstance(event.value, Curve) else repr(event.value)
    message = f"{spec.name} takes {what}, and this gives {value}"
    site.report.error(message, site.place, f"write {_example(spec)}")
    return True


def _is_duck(value: str) -> bool:
    try:
        read_duck(value)
    except ValueError:
        return False
    return True


def _excess(site: Site, low: float, high: float) -> None:
    spec = site.spec
    unit = f" {spec.unit}" if spec.unit else ""
    above = high > spec.high
    reached = high if above else low
    side = (
        f"the top is clipped to {spec.high:g}"
        if above
        else f"the bottom is clipped to {spec.low:g}"
    )
    least, most = max(low, spec.low), min(high, spec.high)
    remedy = ""
    if spec.shape in ("curve", "number") and least < most:
        if isinstance(site.expr, Method) and site.expr.name == "range":
            remedy = f"; write .range({least:.4g}, {most:.4g})"
        elif above and low >= spec.low == 0:
            remedy = f"; to keep its shape: (...) / {high / spec.high:.4g}"
    site.report.warn(
        f"{spec.name} goes from {spec.low:g} to {spec.high:g}{unit}, this reaches {reached:.4g}",
        site.place,
        side + remedy,
    )


def _bad_choice(site: Site, value: str) -> None:
    spec, span = site.spec, _place_of(site, value)
    whole = site.expr.text if isinstance(site.expr, Mini) else value
    near = [w for w in (key_of(whole), meant(whole, spec.choices), meant(value, spec.choices)) if w]
    near = [word for word in near if word in spec.choices]
    few = ", ".join(spec.choices[:4]) + (" ..." if len(spec.choices) > 4 else "")
    hint = f"write {spec.name} = {near[0]!r}" if near else f"it is one of {few}"
    site.report.error(f"{spec.name} knows no {value!r}", span, hint)


def advise(site: Site) -> None:
    """Warn of what plays, but was probably meant otherwise."""
    expr, warn = site.expr, site.report.warn
    if site.spec.cls in ("notes", "out"):
        return
    if isinstance(expr, Call) and expr.name == "irand" and site.spec.shape == "integer":
        message = "this is a new number each 1/1024 of a cycle"
        warn(message, site.place, "hold it: irand(8).segment(1)")
    if site.spec.numeric and isinstance(expr, Mini):
        # Outside of parentheses a comma without a blank was meant as that of a decimal.
        if re.search(r"\d,\d", re.sub(r"\([^()]*\)", "", expr.text)):
            warn("a comma plays both at once", site.place, "a decimal has a point: 0.5")
        return
    if isinstance(expr, Text) and re.match(r"[<\[{].*[>\]}]", expr.value):
        message = "in single quotes this is one text, brackets and all"
        warn(message, site.place, f'mini-notation stands in double quotes: "{expr.value}"')
    if site.spec.numeric or not isinstance(expr, Mini):
        return
    words = expr.text.split()
    if len(words) > 1 and all(w.strip(",").replace("-", "a").isalnum() for w in words):
        message = f"in double quotes this is {len(words)} texts in turn"
        warn(message, site.place, f"one text goes in single quotes: '{expr.text}'")


def lets_text(expr: Expr, lets: Mapping[str, Let]) -> str:
    """The definitions that an expression uses, as text."""
    return "".join(
        f"; {let.name}({','.join(let.params)}) = {unparse_expr(let.expr)}"
        for let in used_lets(expr, lets)
    )


def used_lets(expr: Expr, lets: Mapping[str, Let]) -> list[LetNode]:
    """The definitions that an expression uses, directly or not, each once."""
    found: dict[str, LetNode] = {}
    todo: list[Expr] = [expr]
    while todo:
        for used in sorted(names_in(todo.pop())):
            if used in lets and used not in found:
                found[used] = lets[used].node
                todo.append(lets[used].node.expr)
    return list(found.values())


def _example(spec: Control) -> str:
    """The shortest correct binding of a control."""
    if spec.numeric or spec.pitched:
        return spec.example
    if spec.shape == "file":
        return f"{spec.name} = 'dub.wav'"
    return f"{spec.name} = '{spec.choices[0] if spec.choices else 'dub techno'}'"


def check_args(node: WordNode, source: str) -> None:
    """Check the number of arguments of a performance word. Raises ScoreError."""
    word, count = PERFORMANCE[node.name], len(node.args)
    if node.name == "crossfade" and count == 1:
        what = "needs two decks, or none"
    elif word.least <= count <= word.most:
        return
    else:
        what = "needs a name" if count < word.least else "takes no more words"
    span = Span.of(source, node.start, node.end)
    raise ScoreError(f"{node.name} {what}", span=span, hint=f"write {word.example}")


def check_quotes(spec: Control, expr: Expr, source: str, lets: Mapping[str, Let]) -> None:
    """Check that a text has its quotes. Raises ScoreError."""
    if spec.numeric or not isinstance(expr, Name) or expr.name in FUNCTIONS or expr.name in lets:
        return
    if expr.name not in SIGNALS and not (spec.pitched and expr.name == "silence"):
        span = Span.of(source, expr.start, expr.end)
        meant_key = key_of(expr.name) if spec.name == "key" else None
        hint = f"write {spec.name} = '{meant_key or expr.name}'"
        raise ScoreError("text goes into quotes", span=span, hint=hint)


def check_kind(spec: Control, expr: Expr, pattern: Pattern, source: str) -> None:
    """Check for numbers where text belongs, and text among numbers. Raises ScoreError."""
    if spec.numeric and pattern.text:
        found = places_of(expr, lambda v: isinstance(v, str))
        word, start, end = found[0] if found else ("this", expr.start, expr.end)
        if re.fullmatch(r"[\s\d.<>\[\]{}~*/!@?_(),|-]+", word):
            hint = f'mini-notation stands in double quotes: "{word}"'
        elif spec.shape == "hits":
            hint = f"a hit is a number, how hard: {spec.example}"
        elif NOTE.fullmatch(word) is not None:
            hint = "note names become numbers with .note"
        else:
            hint = f"it goes from {spec.range_text}: {spec.example}"
        raise ScoreError(
            f'{spec.name} takes numbers, and "{word}" is text',
            span=Span.of(source, start, end),
            hint=hint,
        )
    if not spec.numeric and not spec.pitched and spec.cls != "out":
        found = places_of(expr, lambda v: not isinstance(v, str))
        if isinstance(expr, Num):
            found = [(str(expr.value), expr.start, expr.end)]
        if found:
            word, start, end = found[0]
            # Words and a number in double quotes: mini-notation was not meant at all.
            example = _example(spec)
            if isinstance(expr, Mini) and "'" not in expr.text and " " in expr.text.strip():
                example = f"{spec.name} = '{expr.text}'"
            raise ScoreError(
                f"{spec.name} takes text, and {source[start:end]} is a number",
                span=Span.of(source, start, end),
                hint=f"write {example}",
            )


def names_in(expr: Expr) -> set[str]:
    """All names in an expression."""
    return {node.name for node in _parts(expr) if isinstance(node, (Name, Call, Method))}


def _parts(expr: Expr) -> Iterator[Expr]:
    """An expression and all that it is made of."""
    todo: list[Expr] = [expr]
    while todo:
        node = todo.pop()
        yield node
        todo += children(node)


_REMARK = re.compile(rf"#\s*(?:(?:{'|'.join(CONTROLS)})\s+[\d.\"'(-]|[\d.]+\s*$)", re.MULTILINE)


def tidal_remark(source: str) -> tuple[int, int] | None:
    """The place of a comment that looks like Tidal's # gain 0.8, which has no effect here."""
    if "#" not in source:
        return None
    for start, end in comments(source):
        if _REMARK.match(source, start):
            return start, end
    return None


def shallow(text: str) -> bool:
    """False if brackets nest too deep for the parser."""
    depth = most = 0
    for c in text:
        if c in "([{<":
            depth += 1
            most = max(most, depth)
        elif c in ")]}>":
            depth = max(0, depth - 1)
    return most <= 4 * MAX_NESTING


def too_deep(text: str) -> ScoreError:
    """The error for a statement that is not shallow."""
    at = max(text.find("("), 0)
    return ScoreError(
        f"nested deeper than {MAX_NESTING}",
        span=Span.of(text, at, at + 1),
        hint="give a part a name with let",
    )


# --- sound files -----------------------------------------------------------------------------

#: Sound files of one pattern at most; the word for no file.
MAX_FILES, NONE = 16, "none"
#: Cycles of a pattern that are searched for file names.
_CYCLES = 16

_PATH = re.compile(r"(?<![\w.~-])[\w.~-]*/[\w.-]*[A-Za-z_][\w./-]*")

Places = dict[str, Span]


def files_of(site: Site, lane: Lane, lets: Mapping[str, Let]) -> tuple[tuple[str, Span], ...]:
    """The sound files that a binding may ask for: (name, place), more than MAX_FILES are an error.

    A text that ends like a sound file is one, wherever in the expression it stands, also where it
    sounds only by lot or by a knob. So are all values of the first cycles. A file in a `let` has
    the place of the expression.
    """
    written: Places = {}
    for word, start, end in _texts(site.expr):
        place = Span.of(site.report.text, site.start + start, site.start + end)
        written.setdefault(word, place)
    for let in sorted(used_lets(site.expr, lets), key=lambda let: let.name):
        for word, _, _ in _texts(let.expr):
            written.setdefault(word, site.place)
    found = {w: place for w, place in written.items() if w.lower().endswith(SOUND_ENDINGS)}
    for word in _first_values(lane):
        found.setdefault(word, written.get(word, site.place))
    if len(found) > MAX_FILES:
        site.report.error(f"more than {MAX_FILES} files in one pattern", site.place, "use fewer")
    return tuple(found.items())


def check_paths(expr: Expr, source: str) -> None:
    """Check the quotes of file names.

    Raises ScoreError for a name without quotes, which would be arithmetic, and for `a/b` in
    mini-notation, which would be `a` slowed down.
    """
    text = source[expr.start : expr.end]
    if text.lower().endswith(SOUND_ENDINGS) and not set("'\"()") & set(text):
        span = Span.of(source, expr.start, expr.end)
        raise ScoreError("a file name goes into quotes", span=span, hint=f"write '{text}'")
    todo: list[Expr] = [expr]
    while todo:
        node = todo.pop()
        todo += children(node)
        if not isinstance(node, Mini):
            continue
        # Single quotes inside are correct: blank them out.
        bare = re.sub(r"'[^']*'", lambda m: " " * len(m.group()), node.text)
        if (found := _PATH.search(bare)) is not None:
            begin = node.start + 1
            span = Span.of(source, begin + found.start(), begin + found.end())
            message = "in double quotes a path needs single quotes of its own"
            alone = found.group() == node.text.strip()
            write = f"write '{found.group()}'" if alone else f"write \"... '{found.group()}' ...\""
            raise ScoreError(message, span=span, hint=write)


def _first_values(lane: Lane) -> list[str]:
    """The values of the first cycles of a lane."""
    out: dict[str, None] = {}
    for k in range(_CYCLES):
        begin = Fraction(k)
        for cycle in (begin, *lane.jumps(begin, begin + 1)):
            out[str(lane.at(cycle))] = None
            if len(out) > MAX_FILES + 2:
                break
    return [word for word in out if word not in ("", NONE)]


def _texts(expr: Expr) -> list[tuple[str, int, int]]:
    """All texts in an expression: (text, start, end)."""
    out: list[tuple[str, int, int]] = []
    todo: list[Expr] = [expr]
    while todo:
        node = todo.pop()
        if isinstance(node, Text):
            out.append((node.value, node.start, node.end))
        elif isinstance(node, Mini):
            out += places_of(node, lambda value: isinstance(value, str))
        todo += children(node)
    return sorted(out, key=lambda row: row[1])
