"""Help on every word, the reference page, and completion, from the tables that define the words.

Completion asks lark's interactive parser which terminals may follow; the tables say which words
these are, each with its range and one line of help.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from demon_live.controls import CONTROLS, FADER, SETTINGS, Control, find
from demon_live.errors import nearest
from demon_live.lang.controllers import CONTROLLERS, INPUT_SIGNALS
from demon_live.lang.destinations import KINDS
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import KEYWORDS, PERFORMANCE, STATEMENTS
from demon_live.lang.parse import expected
from demon_live.lang.registry import Function
from demon_live.lang.signals import RANDOM, SIGNALS
from demon_live.lang.split import Chunk, split


@dataclass(frozen=True, slots=True)
class Help:
    """An entry. kind: control, prepared, function, signal, word, statement, mini."""

    name: str
    kind: str
    signature: str
    line: str
    examples: tuple[str, ...]

    def __str__(self) -> str:
        lead = (
            self.signature
            if self.signature.startswith(self.name)
            else f"{self.name}  {self.signature}"
        )
        rows = [f"{lead}.  {self.line}" if self.signature else f"{self.name}  {self.line}"]
        return "\n".join(rows + [f"       {e}" for e in self.examples])


#: Signs of mini-notation: (sign, meaning, example of a score).
MINI: tuple[tuple[str, str, str], ...] = (
    ("a b c", "A sequence: equal parts of the cycle.", 'blend = "0 .5 1"'),
    ("~ -", "A rest: the control has its rest value, mostly its default.", 'gain = "1 ~ 1 -"'),
    ("[ ]", "A group in one step.", 'noise = "0 [.2 .4]"'),
    ("< >", "One step each cycle, in turn.", 'denoise = "<.4 .6 .8>"'),
    ("*", "Faster; the factor may be a pattern.", 'noise = "[0 .3]*<2 4>"'),
    ("/", "Slower: <a b>/8 changes each 8 cycles.", 'denoise = "<.4 1>/8"'),
    ("!", "Repeats as further steps; alone, once more.", 'noise = "0!3 .4 !2"'),
    ("@", "Weight: the share of the cycle; alone, one more.", 'blend = ".2@3 1 @"'),
    ("_", "Lengthens the step before it.", 'blend = ".2 _ _ 1"'),
    ("?", "Drops the event, by lot, half of the time; ?.2 two times in ten.", 'noise = ".3*8?"'),
    ("|", "One of these each cycle, by lot.", 'blend = ".2 | .5 | 1"'),
    (",", "At the same time; the one that began last is heard.", 'noise = ".1, ~ .4"'),
    (
        "(k,n,r)",
        "k hits spread over n steps, turned left by r. All may be patterns.",
        'gain = "1(3,8)"',
    ),
    ("{ }%n", "Steps of several lengths against each other, n a cycle.", 'noise = "{0 .2 .4}%4"'),
    (" . ", "Feet: a b . c d is [a b] [c d].", 'noise = "0 .2 . .4"'),
    ("..", "A run in steps of 1, from the left end.", 'seed = "0 .. 3"'),
    (":", "Joins words and numbers to one word.", "prompt = \"<'techno: dub' house>\""),
    ("' '", "A text with blanks as one step.", "prompt = \"<'acid techno' 'dub'>/4\""),
)


def _control(c: Control) -> Help:
    default = (
        "none"
        if c.default in (None, "")
        else f"{c.default:g}"
        if isinstance(c.default, float)
        else c.default
    )
    # All keys would fill a screen: show the first few.
    shown = (
        c.range_text
        if len(c.choices) <= 6
        else f"one of {', '.join(c.choices[:3])} ... {c.choices[-1]}"
    )
    if c.cls == "prepared":
        return Help(c.name, "prepared", f"{shown}, default {default}", c.help, (c.example,))
    return Help(
        c.name,
        "control",
        f"{shown}, default {default}, {c.shape}, class {c.cls}",
        c.help,
        (c.example,),
    )


def _entries() -> Iterator[Help]:
    for control in CONTROLS.values():
        yield _control(control)
    for control in SETTINGS.values():
        yield _control(control)
    for name, (_, line) in SIGNALS.items():
        bipolar = name.endswith("2")
        example = f"pan = {name}.slow(2) * .5" if bipolar else f"noise = {name}.slow(2) * .5"
        yield Help(
            name, "signal", "", line, ("blend = time / 8 % 1" if name == "time" else example,)
        )
    for name, (_, line) in RANDOM.items():
        signature = f"{name} or {name}(stream)"
        yield Help(name, "signal", signature, line, (f"noise = {name}.range(0, .5)",))
    for name, c in CONTROLLERS.items():
        takes = "(number, channel)" if name == "cc" else "(channel)"
        takes = "" if name in INPUT_SIGNALS else takes
        signature = f"{name}{takes}, {c.low:g}..{c.high:g}"
        yield Help(name, "signal", signature, c.help, (c.example,))
    yield Help("silence", "signal", "", "Nothing at all: a rest.", ("gain = cat(1, silence)",))
    for f in FUNCTIONS.values():
        yield Help(f.name, "function", f.signature, f.help, (f.example,))
    for name, word in PERFORMANCE.items():
        yield Help(name, "word", "", word.help, (word.example,))
    for name, signature, line, example in STATEMENTS:
        yield Help(name, "statement", signature, line, (example,))
    for sign, line, example in MINI:
        yield Help(sign, "mini", f'"{sign.strip()}" in mini-notation', line, (example,))


def all_names() -> list[str]:
    """All names that have an entry, in the order of the reference."""
    return [h.name for h in _entries()]


def help_for(name: str) -> Help | None:
    """The entry of a name or sign, or of the nearest name; None if none is near."""
    entries = {h.name: h for h in reversed(list(_entries()))}
    wanted = name.strip()
    found = entries.get(wanted) or entries.get(
        {w.lower(): w for w in entries}.get(wanted.lower(), "")
    )
    if found is None:
        signs = [
            h for h in entries.values() if h.kind == "mini" and wanted and wanted in h.name.split()
        ]
        found = signs[0] if signs else None
    if found is None and wanted:
        near = nearest(wanted, entries)
        found = entries[near[0]] if near else None
    return found


_TITLES = {
    "control": "Controls",
    "prepared": "Settings",
    "statement": "Statements",
    "mini": "Mini-notation",
    "signal": "Signals",
    "function": "Functions",
    "word": "Performance words",
}


def reference() -> str:
    """The reference page, as Markdown: patterns/REFERENCE.md."""
    rows = list(_entries())
    out = ["# Reference", "", "Made by `demon help --all`. Each example is run as a test."]
    for kind, title in _TITLES.items():
        out += ["", f"## {title}", "", "| name | | | example |", "|---|---|---|---|"]
        for h in rows:
            if h.kind == kind:
                cells = (f"`{h.name.strip()}`", h.signature, h.line, f"`{h.examples[0]}`")
                out.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(out) + "\n"


# --- completion ------------------------------------------------------------------------------

_WORD = re.compile(r"(?<!\w)[A-Za-z_]\w*$")
_OPEN_TEXT = re.compile(r"""(['"])([^'"\n]*)$""")
#: Definitions in the text.
_NAMED = re.compile(r"\s*(let|scene|deck|snapshot)\s+([A-Za-z_]\w*)")
_STATEMENT_HELP = {word: (signature, line) for word, signature, line, _ in STATEMENTS}


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
    """The words that may stand at a cursor, best first. An error before the cursor gives none.

    Args:
        text: of the score.
        cursor: offset in the text; None is its end.
        decks, scenes, lets, engines, snapshots: names of the session; those that the text defines
            are added.
    """
    before = text[: len(text) if cursor is None else cursor]
    chunks = split(before, KEYWORDS)
    statement = _unfinished(before, chunks[-1]) if chunks else ""
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


def _unfinished(before: str, last: Chunk) -> str:
    """The statement at the cursor, empty between statements."""
    rest = before[last.start + len(last.text) :]
    if last.kind == "close" or last.text.endswith("{") or rest.strip() or "\n" in rest:
        return ""
    return last.text + " " * before.endswith((" ", "\t"))


def _in_quotes(statement: str) -> str | None:
    """The text between an open quote and the cursor, None outside of quotes."""
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
        if o.word.lower().lstrip("'").startswith(low) and o.word not in seen:
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
        yield from (_control_word(c) for c in (*CONTROLS.values(), FADER) if c.numeric)
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
        yield Completion("default", "word", *_STATEMENT_HELP["default"])
    if "WHEN" in terminals and "NOW" in terminals:
        yield from (
            Completion(w, "when", *_STATEMENT_HELP[w]) for w in ("at", "in", "over", "xfade", "now")
        )


def _statements() -> Iterator[Completion]:
    for c in CONTROLS.values():
        yield _control_word(c)
    for c in SETTINGS.values():
        yield Completion(c.name, "prepared", c.range_text, c.help)
    for word in ("deck", "scene", "let", "go", "chain", "fader", "master"):
        yield Completion(word, "word", *_STATEMENT_HELP[word])
    for word, row in PERFORMANCE.items():
        yield Completion(word, "word", "", row.help)


def _control_word(c: Control) -> Completion:
    display = c.range_text if not c.choices else f"{len(c.choices)} choices"
    return Completion(c.name, "control", display, c.help)


def _function(f: Function) -> Completion:
    return Completion(f.name, "function", f.signature, f.help)


def _setting_values(control: Control, known: dict[str, list[str]]) -> Iterator[Completion]:
    named = {"engine": known["engine"], "source": ["none"], "to": [*KINDS, "none"]}
    for word in control.choices or named.get(control.name, ()):
        yield Completion(word, "choice", control.name, "")


def _values(bare: str, known: dict[str, list[str]]) -> Iterator[Completion]:
    """Words that begin an expression; in the argument of a function, functions too."""
    bound = re.match(r"(?:\w+\.)?(\w+)\s*=$", bare)
    control = find(bound.group(1)) if bound else None
    for choice in control.choices if control else ():
        yield Completion(f"'{choice}'", "choice", bound.group(1) if bound else "", "")
    yield from (Completion(n, "let", "let", "a word of the score") for n in known["let"])
    if control is None or control.numeric:
        yield from (Completion(n, "signal", "signal", line) for n, (_, line) in SIGNALS.items())
        yield from (Completion(n, "signal", "signal", line) for n, (_, line) in RANDOM.items())
        yield from (Completion(n, "signal", "controller", c.help) for n, c in CONTROLLERS.items())
    yield from (_function(f) for f in FUNCTIONS.values() if not f.method)
    if _takes_function(bare):
        yield from (_function(f) for f in FUNCTIONS.values() if f.method)
        yield Completion("_", "word", *_STATEMENT_HELP["_"])


def _takes_function(bare: str) -> bool:
    """Is the cursor in an argument where a function goes: every(4, |"""
    name, argument = call_at(bare) or ("", 0)
    function = FUNCTIONS.get(name)
    if function is None or not function.params:
        return False
    return function.params[min(argument, len(function.params) - 1)].kind == "Transform"


def call_at(before: str) -> tuple[str, int] | None:
    """(function, number of the argument) of the call that is open at the end of a statement."""
    depth, commas = 0, 0
    for i in range(len(before) - 1, -1, -1):
        c = before[i]
        if c in ")]":
            depth += 1
        elif c in "([":
            if depth:
                depth -= 1
                continue
            name = re.search(r"(?<!\w)(\w+)$", before[:i])
            return (name.group(1), commas) if name and c == "(" else None
        elif c == "," and not depth:
            commas += 1
    return None
