"""Which sound files a binding may ask for: known when it is evaluated, so that each can be looked
for, read and told to the engine before it is heard.

A text that ends like a sound file is one, wherever in the expression it stands, also where it is
heard only by lot or by a knob. So is everything that the pattern gives in its first cycles.

Threads: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from demon_live.core import SOUND_ENDINGS
from demon_live.errors import ScoreError, Span
from demon_live.lang.check import Site, reached
from demon_live.lang.lane import Lane
from demon_live.lang.program import Let
from demon_live.lang.scope import places_of
from demon_live.lang.syntax import Expr, Mini, Text, children

__all__ = ["MOST", "NONE", "check_paths", "files_of"]

#: Files of one pattern; the word for none.
MOST, NONE = 16, "none"
#: Cycles of a pattern that are listened to.
_CYCLES = 16

_PATH = re.compile(r"[\w.~-]*/[\w.-]*[A-Za-z_][\w./-]*")

Places = dict[str, Span]


def files_of(site: Site, lane: Lane, lets: Mapping[str, Let]) -> tuple[tuple[str, Span], ...]:
    """(name, place) of each file; the place of one that stands in a `let` is the expression's.

    More than `MOST` are an error.
    """
    written: Places = {}
    for word, start, end in _texts(site.expr):
        place = Span.of(site.report.text, site.start + start, site.start + end)
        written.setdefault(word, place)
    for let in sorted(reached(site.expr, lets), key=lambda let: let.name):
        for word, _, _ in _texts(let.expr):
            written.setdefault(word, site.place)
    found = {w: place for w, place in written.items() if w.lower().endswith(SOUND_ENDINGS)}
    for word in _given(lane):
        found.setdefault(word, written.get(word, site.place))
    if len(found) > MOST:
        site.report.error(f"more than {MOST} files in one pattern", site.place, "use fewer")
    return tuple(found.items())


def check_paths(expr: Expr, source: str) -> None:
    """Raises ScoreError for a name without its quotes, which would be read as arithmetic, and for
    `a/b` in mini-notation, which would be read as `a` slowed down."""
    said = source[expr.start : expr.end]
    if said.lower().endswith(SOUND_ENDINGS) and not set("'\"()") & set(said):
        span = Span.of(source, expr.start, expr.end)
        raise ScoreError("a file name goes into quotes", span=span, hint=f"write '{said}'")
    todo: list[Expr] = [expr]
    while todo:
        node = todo.pop()
        todo += children(node)
        if not isinstance(node, Mini):
            continue
        # What stands in single quotes is a text already.
        bare = re.sub(r"'[^']*'", lambda m: " " * len(m.group()), node.text)
        if (found := _PATH.search(bare)) is not None:
            begin = node.start + 1
            span = Span.of(source, begin + found.start(), begin + found.end())
            message = "in double quotes a path needs single quotes of its own"
            alone = found.group() == node.text.strip()
            write = f"write '{found.group()}'" if alone else f"write \"... '{found.group()}' ...\""
            raise ScoreError(message, span=span, hint=write)


def _given(lane: Lane) -> list[str]:
    """What the first cycles of a lane ask for."""
    out: dict[str, None] = {}
    for k in range(_CYCLES):
        begin = Fraction(k)
        for cycle in (begin, *lane.jumps(begin, begin + 1)):
            out[str(lane.at(cycle))] = None
            if len(out) > MOST + 2:
                break
    return [word for word in out if word not in ("", NONE)]


def _texts(expr: Expr) -> list[tuple[str, int, int]]:
    """All texts that are written in an expression: (text, start, end)."""
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
