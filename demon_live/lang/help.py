"""Help on every word, from the tables that define them: `demon help`, `?name`, the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from demon_live.controls import CONTROLS, SETTINGS, Control
from demon_live.errors import nearest
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import PERFORMANCE, STATEMENTS
from demon_live.lang.signals import RANDOM, SIGNALS


@dataclass(frozen=True, slots=True)
class Help:
    """One entry. kind: control, stage, function, signal, word, statement, mini."""

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
    ("!", "Repeats as further steps; alone, once more.", 'noise = "0!3 .4"'),
    ("@", "Weight: the share of the cycle.", 'blend = ".2@3 1"'),
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
    ("..", "A run of whole numbers.", 'seed = "0 .. 3"'),
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
    # Names of keys fill a screen: the first few tell what they look like.
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
        yield Help(name, "signal", "", line, (f"noise = {name}.range(0, .5)",))
    for name, c in CONTROLLERS.items():
        takes = "number, channel" if name == "cc" else "channel"
        signature = f"{name}({takes}), {c.low:g}..{c.high:g}"
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
    """All names that help knows, in the order of the reference."""
    return [h.name for h in _entries()]


def help_for(name: str) -> Help | None:
    """The entry of a name or sign; a near miss finds its neighbour. None if nothing is near."""
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
    """A page of everything, as Markdown: made from the tables, never written by hand."""
    rows = list(_entries())
    out = ["# Reference", "", "Made by `demon help --all`. Each example is run as a test."]
    for kind, title in _TITLES.items():
        out += ["", f"## {title}", "", "| name | | | example |", "|---|---|---|---|"]
        for h in rows:
            if h.kind == kind:
                cells = (f"`{h.name.strip()}`", h.signature, h.line, f"`{h.examples[0]}`")
                out.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(out) + "\n"
