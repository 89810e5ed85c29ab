"""What an editor asks about the text of a score: names, blocks, colours, fixes.

Offsets count characters of the text, lines begin at 0. All functions are pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from demon_live.errors import DemonError, ScoreError
from demon_live.lang import compile_source
from demon_live.lang.compile import deck_at
from demon_live.lang.destinations import Destination
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.lexer import DemonLexer
from demon_live.lang.parse import parse_statement
from demon_live.lang.split import Chunk, comments, split
from demon_live.lang.syntax import (
    BindNode,
    Call,
    ChainNode,
    Expr,
    GoNode,
    LetNode,
    Method,
    Name,
    OpenNode,
    children,
)
from demon_live.session.status import Words

# --- names -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a score: text[start:end]. defines: a `let` or `scene` statement gives its meaning
    here."""

    kind: Literal["let", "scene"]
    name: str
    start: int
    end: int
    defines: bool = False


def places(text: str) -> list[Place]:
    """Where a score defines and uses the names of `let` and `scene`, in text order."""
    found = [place for chunk in split(text, KEYWORDS) for place in _in_statement(chunk)]
    lets = {p.name for p in found if p.kind == "let" and p.defines}
    return sorted(
        (p for p in found if p.kind == "scene" or p.name in lets), key=lambda p: (p.start, p.end)
    )


def place_at(text: str, at: int) -> Place | None:
    """The name at an offset."""
    return next((p for p in places(text) if p.start <= at <= p.end), None)


def word_at(text: str, at: int) -> tuple[str, int, int]:
    """(word, start, end) around an offset; an empty word where there is none."""
    for found in re.finditer(r"[A-Za-z_]\w*", text):
        if found.start() <= at <= found.end():
            return found.group(), *found.span()
    return "", at, at


def broken(text: str) -> ScoreError | None:
    """The error of the first statement that does not parse."""
    for chunk in split(text, KEYWORDS):
        found = parse_statement(chunk.text) if chunk.kind == "statement" else None
        if isinstance(found, ScoreError):
            return found
    return None


def _in_statement(chunk: Chunk) -> Iterator[Place]:
    node = parse_statement(chunk.text) if chunk.kind == "statement" else None
    match node:
        case LetNode():
            at = chunk.text.index(node.name, len("let"))
            yield _place(chunk, "let", node.name, at, True)
            yield from _uses(chunk, node.expr, node.params)
        case BindNode() if node.expr is not None:
            yield from _uses(chunk, node.expr, ())
        case OpenNode(kind="scene"):
            first, *more = _words(chunk, {node.name, node.base}, len("scene"))
            yield _place(chunk, "scene", node.name, first, True)
            yield from (_place(chunk, "scene", node.base, at) for at in more[:1])
        case GoNode():
            for at in _words(chunk, {node.scene}, len("go"))[:1]:
                yield _place(chunk, "scene", node.scene, at)
        case ChainNode():
            for name in {name for name, _ in node.scenes}:
                at_all = _words(chunk, {name}, len("chain"))
                yield from (_place(chunk, "scene", name, at) for at in at_all)


def _place(
    chunk: Chunk, kind: Literal["let", "scene"], name: str, at: int, defines: bool = False
) -> Place:
    start = chunk.start + at
    return Place(kind, name, start, start + len(name), defines)


def _words(chunk: Chunk, names: set[str], first: int) -> list[int]:
    """Where the names stand in a statement, from offset `first` on, outside of comments."""
    remarks = comments(chunk.text)
    words = "|".join(re.escape(name) for name in names if name)
    found = re.compile(rf"(?<![\w.])(?:{words})(?!\w)").finditer(chunk.text, first)
    return [m.start() for m in found if not any(a <= m.start() < b for a, b in remarks)]


def _uses(chunk: Chunk, expr: Expr, params: Iterable[str]) -> Iterator[Place]:
    todo: list[Expr] = [expr]
    while todo:
        node = todo.pop()
        todo += children(node)
        if isinstance(node, Name | Call) and node.name not in params:
            yield _place(chunk, "let", node.name, node.start)
        elif isinstance(node, Method):
            yield _place(chunk, "let", node.name, node.at)


# --- completion ---------------------------------------------------------------------------


def completions(text: str, at: int, words: Words) -> Iterator[tuple[str, int, str]]:
    """(word, characters it replaces, its range and help) of each completion of the prompt."""
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    from demon_live.ui.complete import ScoreCompleter

    event = CompleteEvent(completion_requested=True)
    for one in ScoreCompleter(lambda: words).get_completions(Document(text, at), event):
        yield one.text, -one.start_position, one.display_meta_text


# --- blocks ----------------------------------------------------------------------------------


def blocks(text: str) -> list[tuple[int, int]]:
    """(first line, last line) of all blocks in braces and statements of several lines."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    for chunk in split(text, KEYWORDS):
        line = text.count("\n", 0, chunk.start)
        if chunk.kind == "close":
            if opened:
                found.append((opened.pop(), line))
            continue
        if "\n" in chunk.text:
            found.append((line, line + chunk.text.count("\n")))
        if chunk.text.endswith("{"):
            opened.append(line)
    return sorted((first, last) for first, last in found if last > first)


def block_at(text: str, line: int) -> tuple[int, int]:
    """(first line, last line) of the paragraph around a line, with all of each block it touches."""
    rows = text.split("\n")
    first = last = max(0, min(line, len(rows) - 1))
    while first > 0 and rows[first - 1].strip() and rows[first].strip():
        first -= 1
    while last + 1 < len(rows) and rows[last + 1].strip() and rows[last].strip():
        last += 1
    for begin, end in blocks(text):
        if begin <= last and end >= first:
            first, last = min(first, begin), max(last, end)
    return first, last


# --- colours ---------------------------------------------------------------------------------

#: Kinds of semantic tokens, and the pygments tokens that are of each kind; the first that fits.
COLOURS: tuple[tuple[str, str], ...] = (
    ("comment", "Comment"),
    ("keyword", "Keyword"),
    ("property", "Name.Variable"),
    ("variable", "Name.Constant"),
    ("function", "Name.Function"),
    ("enumMember", "Name.Entity"),
    ("parameter", "Name.Builtin"),
    ("number", "Literal.Number"),
    ("string", "Literal.String"),
    ("operator", "Operator"),
)


def colours(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, number of its kind in COLOURS) of each token that has a colour."""
    for start, token, value in DemonLexer().get_tokens_unprocessed(text):
        name = str(token).removeprefix("Token.")
        kind = next((i for i, (_, of) in enumerate(COLOURS) if name.startswith(of)), None)
        word = value.strip()
        if kind is not None and word:
            begin = start + value.index(word)
            yield begin, begin + len(word), kind


# --- fixes -----------------------------------------------------------------------------------

_REMEDY = re.compile(r"(?:\bwrite|did you mean|bind it:|quotes:|close it with) (.+)")


@dataclass(frozen=True, slots=True)
class Fix:
    """A replacement that mends an error: text[start:end] becomes `new`."""

    title: str
    start: int
    end: int
    new: str


def fixes(text: str, error: DemonError) -> list[Fix]:
    """The replacements that the hint of an error names, of which each was tried: its statement
    compiles."""
    remedy = _REMEDY.search(error.hint or "")
    if remedy is None or error.span is None:
        return []
    chunks = [c for c in split(text, KEYWORDS) if c.kind == "statement"]
    at = error.span.start
    chunk = next((c for c in chunks if c.start <= at <= c.start + len(c.text)), None)
    if chunk is None:
        return []
    lets = [c.text for c in chunks if c is not chunk and re.match(r"let\b", c.text)]
    place = deck_at(text, chunk.start)
    found: dict[str, Fix] = {}
    for word in _remedies(remedy.group(1)):
        for start, end, new in _edits(text, chunk, error.span.start, error.span.end, word):
            mended = text[chunk.start : start] + new + text[end : chunk.start + len(chunk.text)]
            if _compiles(lets, mended, error.message, place):
                found.setdefault(word, Fix(f"write {word}", start, end, new))
    return list(found.values())


def _remedies(hint: str) -> list[str]:
    """What a hint offers to write, the longest reading first."""
    whole = hint.strip().rstrip("?")
    parts = [whole, whole.split(", or ")[0], whole.split(" (")[0], whole.split("; ")[0]]
    parts += whole.split(" or ") if " or " in whole else []
    if re.fullmatch(r'"[)\]]"', whole):
        parts.insert(0, whole[1:-1])
    return list(dict.fromkeys(parts))


def _edits(
    text: str, chunk: Chunk, start: int, end: int, word: str
) -> Iterator[tuple[int, int, str]]:
    """The ways in which a remedy may be meant: (start, end, new text)."""
    last = chunk.start + len(chunk.text)
    if word in (")", "]"):
        yield last, last, word
        return
    yield start, end, word
    if called := re.match(r"\.\w+\(", word):
        yield start - (text[start - 1 : start] == "."), end, word
        for found in re.finditer(re.escape(called.group()) + r"[^()]*\)", text[start:end]):
            yield start + found.start(), start + found.end(), word
    yield chunk.start, last, word


def _compiles(
    lets: list[str], statement: str, message: str, place: tuple[str, Mapping[str, Destination]]
) -> bool:
    """True if a statement has no error, and not the warning that it had.

    place: its deck, and where decks go that make no sound.
    """
    deck, outs = place
    closing = "\n}" if statement.endswith("{") else ""
    try:
        text = "\n".join((*lets, statement)) + closing
        program = compile_source(text, deck=deck, outs=outs)
    except DemonError:
        return False
    return all(warning.message != message for warning in program.warnings)
