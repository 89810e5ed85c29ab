"""Completion, and the line of help on the word at the cursor.

The language lists the words that may come next. This module adds range and help, and the words that
only this machine knows: those of the engine's prompts, sound files, engines.

Threads: called in the event loop of a view; each call takes a fraction of a millisecond. Lists that
are read from files are read once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from demon_live.controls import IN, NOTES, Control, find
from demon_live.core import SOUND_ENDINGS
from demon_live.errors import DemonError
from demon_live.lang import complete
from demon_live.session.status import Words
from demon_live.ui import guide

_WORD = re.compile(r"[A-Za-z_][\w.]*")
_BOUND = re.compile(r"(?<![\w.])([A-Za-z_][\w.]*)\s*=(?!=)")
_FILE = re.compile(r"^\s*load\s+['\"]?(.*)$")
_QUESTION = re.compile(r"^\s*(?:\?\s*|help\s+)([\w.]*)$")
_TOUR = re.compile(r"^\s*tour\s+(\w*)$")
#: A binding whose value has words, or files, in single quotes.
_QUOTED = re.compile(r"^\s*(?:\w+\.)?(prompt2?|timbre)\s*=")
_SOURCE = re.compile(r"^\s*source\s+['\"]([^'\"]*)$")
_SOURCES = ((NOTES, "what kick, bass, chord ... play"), (IN, "what is played in"))
_ENGINE = re.compile(r"^\s*engine\s+['\"]?([\w.-]*)$")
_MANY = 400


class ScoreCompleter(Completer):
    """Completes scores, questions and names of files. words: the names that the session knows."""

    def __init__(self, words: Callable[[], Words] = Words) -> None:
        self._words = words
        self._files = PathCompleter(file_filter=_is_score_or_folder)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """The words that may stand at the cursor."""
        before = document.text_before_cursor
        line = document.current_line_before_cursor
        requested = event.completion_requested  # by Tab; else the performer is typing
        if (file := _FILE.match(line)) is not None:
            yield from self._files.get_completions(Document(file[1]), event)
        elif (word := _QUESTION.match(before)) is not None:
            low = word[1].lower()
            if low or requested:
                yield from _fitting(low, ((name, "") for name in guide.known()))
        elif (step := _TOUR.match(before)) is not None:
            from demon_live.ui.tour import STEPS

            steps = [(str(i), s.title) for i, s in enumerate(STEPS)]
            yield from _fitting(step[1], [*steps, ("back", "the step before"), ("end", "leave it")])
        elif (tag := _open_quote(line, "prompt")) is not None:
            # Of a prompt, the words since the last comma.
            tag = re.split("[,+;]", tag)[-1].lstrip() if re.search("[,+;]", tag) else tag
            # From two letters on: at one, half of the vocabulary would cover the screen.
            if requested or len(tag) >= 2:
                yield from _fitting(tag, ((t, "") for t in _tags()))
        elif (sound := _open_quote(line, "timbre")) is not None:
            yield from self._sounds(sound)
        elif (source := _SOURCE.match(line)) is not None:
            yield from _fitting(source[1], _SOURCES)
            yield from self._sounds(source[1])
        elif (engine := _ENGINE.match(line)) is not None:
            yield from _fitting(engine[1], _engines())
        else:
            yield from self._score(document, event)

    def _sounds(self, typed: str) -> Iterable[Completion]:
        return _fitting(typed, ((f, "") for f in _sounds(self._words().folders)))

    def _score(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        at, words = document.cursor_position, self._words()
        found = list(
            complete(
                document.text,
                at,
                decks=words.decks,
                scenes=words.scenes,
                lets=tuple(words.lets),
                snapshots=words.snapshots,
            )
        )
        for one in found:
            typed = at - one.start
            # A list that opens at every blank, or for a finished word, is in the way.
            shown = event.completion_requested or (
                typed > 0 and one.word != document.text[at - typed : at]
            )
            if shown:
                display = one.display
                if one.kind == "let" and (params := words.lets.get(one.word)):
                    display = f"{one.word}({', '.join(params)})"
                meta = f"{display}  {one.help}".strip()
                yield Completion(one.word, -typed, display_meta=meta)


def _open_quote(line: str, control: str) -> str | None:
    """What follows the last single quote of a binding of the control, where it opens a text."""
    bound = _QUOTED.match(line)
    if bound is None or not bound[1].startswith(control):
        return None
    before, quote, inside = line[bound.end() :].rpartition("'")
    opens = not before.strip() or before[-1].isspace() or before[-1] in '([<,"|'
    return inside if quote and opens else None


def _is_score_or_folder(path: str) -> bool:
    hidden = Path(path).name.startswith(".")
    return path.endswith(".demon") or (Path(path).is_dir() and not hidden)


def _fitting(typed: str, known: Iterable[tuple[str, str]]) -> Iterator[Completion]:
    low = typed.lower()
    for word, meta in known:
        if word.lower().startswith(low) and word != typed:
            yield Completion(word, -len(typed), display_meta=meta)


@lru_cache(maxsize=1)
def _tags() -> tuple[str, ...]:
    """The words that the prompts of the default engine understand, the plain ones first."""
    from demon_live.models.conditioning import words

    try:
        return tuple(words(os.environ.get("DEMON_ENGINE", "imp")))
    except DemonError:
        return ()


@lru_cache(maxsize=1)
def _engines() -> tuple[tuple[str, str], ...]:
    from demon_live.models.manifest import find_manifests

    return tuple((m.name, m.summary) for m in find_manifests())


@lru_cache(maxsize=4)
def _sounds(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The sound files in the folders of sources, as a score names them, and "none" for noise."""
    found = ["none"]
    for root in (Path(f) for f in folders):
        inside = [p for p in (root, *_folders(root)) if p.is_dir()]
        for folder in inside:
            files = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in SOUND_ENDINGS)
            found += [p.relative_to(root).as_posix() for p in files]
            if len(found) > _MANY:
                break
    return tuple(dict.fromkeys(found))


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


def hint_at(text: str, at: int, ctrl_d: str = "ends") -> str:
    """One line of help on the word at offset `at`, or else on the control that is bound there.

    ctrl_d: what Ctrl-D does, in a word.
    """
    if not text:
        return f"? help · tour · Tab completes · Alt-. hush · Alt-s stage · Ctrl-D {ctrl_d}"
    if "\n" in text and not text.rpartition("\n")[2].strip() and at == len(text):
        return "it goes on: Enter here plays it as it is, Ctrl-C forgets it"
    for match in _WORD.finditer(text):
        if match.start() <= at <= match.end():
            line = _line(match.group())
            if line:
                return line
    bound = bound_at(text, at)
    return _line(bound) if bound else ""


def bound_at(text: str, at: int) -> str:
    """The control whose binding holds offset `at`, or ""."""
    bound = ""
    for match in _BOUND.finditer(text, 0, at):
        bound = match.group(1)
    return bound


@lru_cache(maxsize=512)
def _line(word: str) -> str:
    control = find(word)
    if control is not None:
        return f"{control.name}  {_summary(control)}"
    found = guide.exact(word.rpartition(".")[2])
    return f"{found.signature or found.name}  {found.line}" if found else ""


def _summary(control: Control) -> str:
    """Range, default and help of a control in one line."""
    default = guide.default_text(control)
    return f"{guide.range_text(control)}, default {default}, {control.cls}.  {control.help}"
