"""The answers to `?functions`, `?words`, `scenes`, `decks`, `status` ...: what there is, in lists.

Threads: called in the thread that evaluates.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from demon_live.ui.show import Pieces

if TYPE_CHECKING:
    from demon_live.session.session_api import SessionApi

KEYS = (
    ("Enter", "evaluate; inside an open bracket or brace: a new line"),
    ("Alt-Enter", "evaluate as it stands"),
    ("Ctrl-O", "a new line"),
    ("Tab, Up, Ctrl-R", "complete, earlier lines, search them"),
    ("Alt-.", "hush"),
    ("Alt-1 .. 9", "mute a deck, and back"),
    ("Alt-t, Alt-- Alt-=", "tap the tempo; a beat a minute slower, faster"),
    ("click, drag", "on the panel: mute a deck, move a constant; Shift-drag selects text"),
    ("F1", "about the word under the cursor"),
    ("Alt-s", "the stage view, and back"),
    ("Alt-w", "status: what plays, the address of the web page"),
    ("Ctrl-C", "cancel what is typed; the sound goes on"),
    ("Ctrl-D", "end the session, or leave one that you joined"),
)
CLASS_HELP = {
    "mix": "heard at the next audio block",
    "step": "heard one tick after it is written; a planned change is on its bar",
    "slot": "set when a generation is born; a planned change is on its bar",
    "model": "heard one tick after the weights are refitted",
    "notes": "heard with the next generation: a deck with `source notes` is made from them",
    "prepared": "made ready, then switched at a bar",
}
#: Columns of names that stand in a table.
_NAME, _WIDTH = 16, 78


def _wrapped(words: Iterable[str]) -> str:
    return textwrap.fill("  ".join(words), _WIDTH) + "\n"


def _table(title: str, rows: Iterable[tuple[str, str]], none: str = "") -> Pieces:
    pieces: Pieces = [("heading", f"{title}\n")]
    for name, what in rows:
        lines = textwrap.wrap(what, _WIDTH - _NAME) or [""]
        pieces += [("name", f"{name:<{_NAME - 1}} "), ("", f"{lines[0]}\n")]
        pieces += [("", f"{' ' * _NAME}{line}\n") for line in lines[1:]]
    return pieces if len(pieces) > 1 or not none else [*pieces, ("hint", f"       {none}\n")]


def _functions(session: SessionApi | None) -> Pieces:
    from demon_live.lang.functions import FUNCTIONS
    from demon_live.lang.signals import RANDOM, SIGNALS

    methods = sorted(f".{f.name}" for f in FUNCTIONS.values() if f.method)
    others = sorted(f"{f.name}()" for f in FUNCTIONS.values() if not f.method)
    rows = (("signals", [*SIGNALS, *RANDOM]), ("begin a pattern", others), ("follow one", methods))
    pieces: Pieces = []
    for title, names in rows:
        pieces += [("heading", f"{title}\n"), ("name", _wrapped(names))]
    return [*pieces, ("hint", "?NAME explains one: ?every\n")]


def _mini(session: SessionApi | None) -> Pieces:
    from demon_live.lang.help import MINI

    return _table('signs in "double quotes"', ((sign, f"{what}  {e}") for sign, what, e in MINI))


def _words(session: SessionApi | None) -> Pieces:
    from demon_live.models.conditioning import lexicon_of

    engine = session.status().engine.split()[0] if session is not None else "imp"
    lexicon = lexicon_of(engine)
    if lexicon is None:
        return [("", f"{engine} reads free text: it has no list of words\n")]
    synonyms: dict[str, list[str]] = {}
    for word, means in lexicon.vocabulary.synonyms.items():
        for tag in means:
            synonyms.setdefault(tag, []).append(word)
    tags = lexicon.vocabulary.tags
    rows = ((tag, ", ".join(w for w in synonyms.get(tag, ()) if w != tag)) for tag in tags)
    return _table(f"{len(tags)} tags of {engine}, and what else means them", rows)


def _keys(session: SessionApi | None) -> Pieces:
    return _table("keys", KEYS)


def _class(session: SessionApi | None) -> Pieces:
    return _table("class: how soon a change of a control is heard", CLASS_HELP.items())


def _scenes(session: SessionApi | None) -> Pieces:
    names = session.words().scenes if session is not None else ()
    return _table("scenes", ((n, f"go {n}") for n in names), "none yet: scene drop { gain = 1 }")


def _decks(session: SessionApi | None) -> Pieces:
    rows = []
    for deck in session.status().decks if session is not None else ():
        read = deck.taken.removeprefix("in: ") or deck.read
        source = f"{deck.source} {read}".strip() if deck.source else "from noise"
        state = " · muted" * deck.muted + " · solo" * deck.soloed
        bound = ", ".join(lane.control for lane in deck.lanes)
        what = f"to {deck.to}" if deck.to else f"loop {deck.cycles} · {source}"
        rows.append((deck.name, f"{what}{state} · {bound}"))
    return _table("decks", rows, "none yet")


def _lets(session: SessionApi | None) -> Pieces:
    lets = session.words().lets if session is not None else {}
    named = (f"{name}({', '.join(params)})" if params else name for name, params in lets.items())
    rows = ((name, "") for name in named)
    return _table("words of your own", rows, "none yet: let wob(n) = sine.fast(n)")


def _snapshots(session: SessionApi | None) -> Pieces:
    names = session.words().snapshots if session is not None else ()
    return _table("snapshots", ((n, f"recall {n}") for n in names), "none yet: snapshot calm")


def _status(session: SessionApi | None) -> Pieces:
    if session is None:
        return [("hint", "       no session plays\n")]
    status, info = session.status(), getattr(session, "info", None)
    scores = ", ".join(session.scores()) or "none"
    rows = [
        ("plays", f"bar {status.cycle:.1f} at {status.bpm:.4g} bpm · {status.grade}"),
        ("engine", f"{status.engine} · {status.device}"),
        ("decks", ", ".join(d.name for d in status.decks)),
        ("scores", scores),
    ]
    if status.master:
        from demon_live.ui.panel import values

        rows.append(("master", values(status.master)))
    if (heard := status.sound_in) is not None:
        level = f" · peak {heard.peak_db:.0f} dB" if heard.state == "open" else ""
        rows.append(("input", heard.words + level))
    if any(status.out):
        lost, late = status.out
        rows.append(("sent", f"to other programs: {lost} messages lost, {late} stretches late"))
    if info is not None:
        rows.append(("session", f"{info.name} · process {info.pid}"))
        rows += [(door, at) for door, at in (("web", info.web), ("osc", info.osc)) if at]
    rows += [("recording", status.recording)] if status.recording else []
    rows += [("error", error.message) for error in status.errors.values()]
    return _table("status", rows)


#: What can be listed, as `?NAME`.
LISTS: dict[str, Callable[[SessionApi | None], Pieces]] = {
    "functions": _functions,
    "mini": _mini,
    "words": _words,
    "tags": _words,
    "keys": _keys,
    "class": _class,
    "scenes": _scenes,
    "decks": _decks,
    "lets": _lets,
    "snapshots": _snapshots,
    "status": _status,
}
#: Those that are words of the prompt, too.
BARE = frozenset({"scenes", "decks", "lets", "snapshots", "status"})
