"""The answers to `?`, `?name` and `help`: on every word of the language, and on every word of the
screen."""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from typing import TYPE_CHECKING

from demon_live.controls import CONTROLS, SETTINGS, Control, PropagationClass, find, names
from demon_live.errors import UsageError, nearest
from demon_live.ui.lists import BARE, CLASS_HELP, KEYS, LISTS
from demon_live.ui.show import Pieces

if TYPE_CHECKING:
    from demon_live.lang import Help
    from demon_live.session.session_api import SessionApi

#: Words on the screen.
SCREEN = {
    "cycle": "A cycle is a bar. Patterns repeat each cycle; `beats` says how many beats it has.",
    "detach": "Leaves the prompt; the session plays on, and `demon attach` returns to it.",
    "quit": "Ends the session for everybody. `detach` leaves it playing.",
    "stage": "The stage view: the score on the whole screen. Alt-s goes there, and back.",
    "bar": "Bar and beat. A set begins with bar 0; `at 8` waits for a bar that 8 divides.",
    "lead": "How far ahead of the playhead new sound is written.",
    "dry": "Blocks of sound that were not ready in time. If it grows: `demon doctor`.",
    "tick": "Time of one step of all slots together.",
    "slots": "How many generations may be in flight (`depth`; `auto` takes as many as are due), "
    "the solver steps of each, and its denoise. resting: all that will "
    "be heard soon is made.",
    "held": "Controls that stand still, and the source of the deck.",
    "fine": "The engine keeps up with the music.",
    "tight": "The engine keeps up with little to spare: lower `loop`, `steps` or `depth`.",
    "late": "Some windows came too late: the last good sound plays on. Lower `loop` or `steps`.",
    "starting": "The engine is opening; the source plays meanwhile.",
    "restarting": "The engine ended and starts again; the last good sound plays on.",
    "silent": "Nothing above -60 dB reaches the output.",
    "hushed": "Every deck is silenced; evaluate anything and it plays again.",
}

_INDENT = " " * 7
_PERFORM = (
    "hush panic mute unmute solo unsolo undo redo snapshot recall crossfade learn tap record stop "
    "save load"
)
_LISTED = " ".join(f"?{name}" for name in LISTS if name != "tags")
_GROUPS: tuple[tuple[PropagationClass, str], ...] = (
    ("step", "curves"),
    ("slot", "at birth"),
    ("mix", "mix"),
    ("notes", "notes"),
)
#: More than a line has room for.
_MORE = {
    "source": "A file is looked for beside the scores that play, then in the folder where demon "
    "was started, then among the shipped loops. Its tempo is the one in its name (amen_137.wav), "
    "else it is guessed once, from its length; behind the name `bars 2`, `beats 6`, `bpm 137`, "
    "`half` or `double` says it. `demon sounds FOLDER` lists files with what would be assumed.",
    "prompt": "?words lists what the model knows; Tab inside the quotes completes it. Texts may be "
    "added with weights: 'dub' * sine + 'choir' * .3 - 'drums'.",
    "beats": "A meter works too: beats 7/8 has three and a half of the beats that tempo counts.",
}


def question(line: str) -> str | None:
    """The word that `line` asks about (`?blend`, `blend?`, `help blend`, `decks`), "" for a bare
    `?`.

    None if it is no question.
    """
    match = re.fullmatch(r"\?\s*(\S*)|(\w[\w.]*)\s*\?|help(?:\s+(\S+))?", line.strip())
    if match is None:
        return line.strip() if line.strip() in BARE else None
    return next((g for g in match.groups() if g), "").strip("?")


def overview() -> Pieces:
    """One screen: what can be written, and the keys."""
    pieces: Pieces = [
        ("heading", "write    "),
        ("word", "blend = sine.slow(4).range(.2, 1)"),
        ("", "   then when: now, at 8, in 2, over 4\n"),
    ]
    rows = [(title, " ".join(names(cls))) for cls, title in _GROUPS]
    for title, words in (
        *rows,
        ("settings", " ".join(SETTINGS)),
        ("form", "deck scene go chain once master let fader"),
        ("perform", _PERFORM),
    ):
        wrapped = textwrap.wrap(words, 70)
        pieces += [("heading", f"{title:<9}"), ("name", f"{wrapped[0]}\n")]
        pieces += [("name", f"{' ' * 9}{line}\n") for line in wrapped[1:]]
    for i, (key, what) in enumerate(KEYS):
        pieces += [("heading", f"{'keys' if i == 0 else '':<9}"), ("word", f"{key:<16}")]
        pieces.append(("", f" {what}\n"))
    pieces += [("heading", "more     "), ("word", f"{_LISTED}\n")]
    pieces.append(
        ("hint", "?NAME explains any word, those on the panel too. `tour` plays a tour.\n")
    )
    return pieces


def about(name: str, session: SessionApi | None = None) -> Pieces:
    """Explain a control, a setting, a function, a performance word or a word of the screen, or list
    what there is. session: whose scenes, decks and words are listed.

    Raises UsageError with the nearest known words.
    """
    if name in LISTS:
        return LISTS[name](session)
    control = find(name)
    if control is not None:
        return _control(control)
    if name in SCREEN:
        return [("topic", f"{name}\n"), ("", _wrapped(SCREEN[name]))]
    found = exact(name)
    if found is not None:
        head = found.signature if found.signature.startswith(("p.", found.name)) else ""
        rest = f"  {found.signature}" if found.signature and not head else ""
        return [
            ("topic", head or found.name),
            ("", f"{rest}\n{_wrapped(found.line)}"),
            *[("word", f"{_INDENT}{example}\n") for example in found.examples],
        ]
    near = nearest(name, known(), 3)
    raise UsageError(
        f"there is no word {name!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "? lists what there is",
    )


def _control(control: Control) -> Pieces:
    kinds, name = {"curve": "curve", "number": "number", "integer": "whole number"}, control.name
    facts = (
        range_text(control),
        f"default {default_text(control)}",
        kinds.get(control.shape, ""),
        f"class {control.cls}",
    )
    return [
        ("topic", control.name),
        ("", f"  {', '.join(f for f in facts if f)}\n"),
        ("", _wrapped(control.help)),
        *([("", _wrapped(_MORE[control.name]))] if control.name in _MORE else []),
        *([("", _wrapped(f"On the screen: {SCREEN[name]}"))] if name in SCREEN else []),
        ("hint", _wrapped(f"class {control.cls}: {CLASS_HELP[control.cls]}")),
        ("word", f"{_INDENT}{control.example}\n"),
    ]


def _wrapped(words: str) -> str:
    return textwrap.fill(words, 79, initial_indent=_INDENT, subsequent_indent=_INDENT) + "\n"


def range_text(control: Control) -> str:
    """The range of a control, as shown; of many choices, the first few."""
    if len(control.choices) <= 6:
        return control.range_text
    return f"one of {', '.join(control.choices[:3])} ... {control.choices[-1]}"


def default_text(control: Control) -> str:
    """The default of a control, as shown."""
    if isinstance(control.default, float):
        return f"{control.default:g}"
    return control.default or "none"


def exact(name: str) -> Help | None:
    """The language's help on exactly this word or sign."""
    from demon_live.lang import help_for

    found = help_for(name) if name in known() or not name.isidentifier() else None
    return found if found is not None and (found.name == name or not name.isidentifier()) else None


@lru_cache(maxsize=1)
def known() -> tuple[str, ...]:
    """Every word that `about` can explain."""
    from demon_live.lang.help import all_names

    words = {w for w in all_names() if w.isidentifier()}
    return tuple(sorted({*words, *CONTROLS, *SETTINGS, *SCREEN, *LISTS}))
