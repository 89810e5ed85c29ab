"""Completion: what may stand at the cursor, from the grammar itself.

lark's interactive parser says which terminals may follow; the tables of controls, functions and
signals say which words these are, each with its range and one line of help.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from demon_live.controls import CONTROLS, FADER, SETTINGS, Control, find
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import KEYWORDS, PERFORMANCE, STATEMENTS
from demon_live.lang.parse import expected
from demon_live.lang.registry import Function
from demon_live.lang.signals import RANDOM, SIGNALS
from demon_live.lang.split import split

_WORD = re.compile(r"[A-Za-z_][\w]*$")
_OPEN_TEXT = re.compile(r"""(['"])([^'"\n]*)$""")
#: What a text itself gives a name to.
_NAMED = re.compile(r"\s*(let|scene|deck|snapshot)\s+([A-Za-z_]\w*)")
_HELP = {word: (signature, line) for word, signature, line, _ in STATEMENTS}


@dataclass(frozen=True, slots=True)
class Completion:
    """word replaces the text from offset `start` to the cursor. display: its range or signature."""

    word: str
    kind: str
    display: str
    help: str
    start: int = 0


def complete(
    text: str,
    cursor: int | None = None,
    *,
    decks: Collection[str] = (),
    scenes: Collection[str] = (),
    lets: Collection[str] = (),
    engines: Collection[str] = (),
    snapshots: Collection[str] = (),
) -> list[Completion]:
    """The words that may stand at `cursor`, best first. An error before the cursor gives none.

    decks ... snapshots: names that are known already; those that the text gives are found here.
    """
    before = text[: len(text) if cursor is None else cursor]
    chunks = split(before, KEYWORDS)
    statement = (
        chunks[-1].text
        if chunks and chunks[-1].start + len(chunks[-1].text) >= len(before.rstrip())
        else ""
    )
    if chunks and statement and before[chunks[-1].start + len(chunks[-1].text) :].count("\n"):
        statement = ""
    if statement.endswith("{") or (chunks and chunks[-1].kind == "close"):
        statement = ""
    if before.endswith((" ", "\t")) and statement:
        statement += " "
    inside = _in_quotes(statement)
    if inside is not None:
        start = len(before) - len(inside)
        return _matching(_choices(statement), inside, start)
    found = _WORD.search(statement)
    prefix = found.group() if found else ""
    lead = statement[: len(statement) - len(prefix)]
    known = {
        "deck": list(decks) or ["main"],
        "scene": list(scenes),
        "let": list(lets),
        "engine": list(engines),
        "snapshot": list(snapshots),
    }
    for chunk in chunks[:-1] if statement else chunks:
        if named := _NAMED.match(chunk.text):
            known[named.group(1)].append(named.group(2))
    options = _after(lead, expected(lead), known)
    return _matching(options, prefix, len(before) - len(prefix))


def _in_quotes(statement: str) -> str | None:
    """What stands between an open quote and the cursor, None outside of quotes."""
    found = _OPEN_TEXT.search(statement)
    if found is None:
        return None
    outside = re.sub(r"\"[^\"]*\"|'[^']*'", "", statement[: found.start()])
    if found.group(1) == "'" and statement[: found.start()].count('"') % 2:
        return found.group(2)
    return found.group(2) if not re.search(r"['\"]", outside) else None


def _choices(statement: str) -> Iterator[Completion]:
    """The choices of the control that a statement binds."""
    name = re.match(r"\s*(?:\w+\.)?(\w+)\s*=", statement)
    control = find(name.group(1)) if name else None
    for choice in control.choices if control else ():
        yield Completion(choice, "choice", control.name if control else "", "")


def _matching(options: Iterable[Completion], prefix: str, start: int) -> list[Completion]:
    low = prefix.lower()
    seen: dict[str, Completion] = {}
    for o in options:
        if o.word.lower().startswith(low) and o.word not in seen:
            seen[o.word] = Completion(o.word, o.kind, o.display, o.help, start)
    return list(seen.values())


def _after(lead: str, terminals: set[str], known: dict[str, list[str]]) -> Iterator[Completion]:
    """All that may follow `lead`, by the terminals that the grammar accepts there."""
    bare = lead.rstrip()
    first = bare.split()[0] if bare.split() else ""
    if not bare:
        yield from _statements()
        return
    if bare.endswith(".") and "NAME" in terminals:
        yield from (_function(f) for f in FUNCTIONS.values() if f.method)
        return
    if first in ("go", "chain") and "NAME" in terminals:
        yield from (Completion(s, "scene", "scene", "") for s in known["scene"])
    elif "PATH" in terminals and first == "recall":
        yield from (Completion(s, "snapshot", "snapshot", "") for s in known["snapshot"])
    elif "PATH" in terminals and first == "learn":
        yield from (_control(c) for c in (*CONTROLS.values(), FADER) if c.numeric)
    elif ("PATH" in terminals and first in ("mute", "unmute", "solo", "crossfade")) or (
        first == "deck" and "NAME" in terminals
    ):
        yield from (Completion(d, "deck", "deck", "") for d in known["deck"])
    elif first in SETTINGS and "NAME" in terminals:
        yield from _setting_values(SETTINGS[first], known)
    elif ("NAME" in terminals and first not in ("let", "scene")) or (
        "NAME" in terminals and "=" in bare
    ):
        yield from _values(bare, known)
    if "DEFAULT" in terminals:
        yield Completion("default", "word", *_HELP["default"])
    if "WHEN" in terminals and "NOW" in terminals:
        yield from (Completion(w, "when", *_HELP[w]) for w in ("at", "in", "over", "xfade", "now"))


def _statements() -> Iterator[Completion]:
    for c in CONTROLS.values():
        yield _control(c)
    for c in SETTINGS.values():
        yield Completion(c.name, "prepared", c.range_text, c.help)
    for word in ("deck", "scene", "let", "go", "chain", "fader"):
        yield Completion(word, "word", *_HELP[word])
    for word, row in PERFORMANCE.items():
        yield Completion(word, "word", "", row.help)


def _control(c: Control) -> Completion:
    display = c.range_text if not c.choices else f"{len(c.choices)} choices"
    return Completion(c.name, "control", display, c.help)


def _function(f: Function) -> Completion:
    return Completion(f.name, "function", f.signature, f.help)


def _setting_values(control: Control, known: dict[str, list[str]]) -> Iterator[Completion]:
    words = control.choices or tuple(
        known["engine"]
        if control.name == "engine"
        else ("none",)
        if control.name == "source"
        else ()
    )
    for word in words:
        yield Completion(word, "choice", control.name, "")


def _values(bare: str, known: dict[str, list[str]]) -> Iterator[Completion]:
    """Words that begin an expression; in the argument of a function, functions too."""
    yield from (Completion(n, "let", "let", "a word of the score") for n in known["let"])
    yield from (Completion(n, "signal", "signal", line) for n, (_, line) in SIGNALS.items())
    yield from (Completion(n, "signal", "signal", line) for n, (_, line) in RANDOM.items())
    yield from (Completion(n, "signal", "controller", c.help) for n, c in CONTROLLERS.items())
    yield from (_function(f) for f in FUNCTIONS.values() if not f.method)
    if _takes_function(bare):
        yield from (_function(f) for f in FUNCTIONS.values() if f.method)
        yield Completion("_", "word", *_HELP["_"])


def _takes_function(bare: str) -> bool:
    """Is the cursor in an argument where a function goes: every(4, |"""
    depth, commas = 0, 0
    for i in range(len(bare) - 1, -1, -1):
        c = bare[i]
        if c in ")]":
            depth += 1
        elif c in "([":
            if depth:
                depth -= 1
                continue
            name = re.search(r"(\w+)$", bare[:i])
            function = FUNCTIONS.get(name.group(1)) if name and c == "(" else None
            if function is None or not function.params:
                return False
            return function.params[min(commas, len(function.params) - 1)].kind == "Transform"
        elif c == "," and not depth:
            commas += 1
    return False
