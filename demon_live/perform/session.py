"""The only door for scores: compile, check, journal, swap.

REPL, file watcher, scripts and replay all call `apply`. Whatever is wrong raises DemonError and
changes nothing. What is right is written to the journal first and then becomes the new State by
one assignment; the sampling side reads the newest State at its next pump.

Threads: `apply`, `pump` and `status` may be called from any thread; a lock makes each atomic.
"""

from __future__ import annotations

import itertools
import threading
from collections import ChainMap, deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demon_live.core import Stage
from demon_live.errors import DemonError, FileError, ScoreError
from demon_live.lang import Let, Scene, Word, compile_source, diff
from demon_live.perform.change import Change
from demon_live.perform.clock import TempoMap
from demon_live.perform.describe import Grader, describe
from demon_live.perform.journal import Event, Journal
from demon_live.perform.messages import Block, Migrate, Panic, SetRing
from demon_live.perform.recorder import Recorder
from demon_live.perform.rig import Rig
from demon_live.perform.scores import as_score, read_score, score_name, write_score
from demon_live.perform.state import DeckState, State
from demon_live.perform.timeline import DeckSampler
from demon_live.perform.view import Outcome, Status, Words

if TYPE_CHECKING:
    from demon_live.perform.render import Rendered

__all__ = ["Session"]

_UNDO = 64


class Session:
    """A performance in progress.

    rig: what it plays on. folders: where sources are looked for, besides the score's own folder.
    sets: where `record NAME` puts its files. start: header of the journal.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        folders: tuple[Path, ...] = (),
        sets: Path | None = None,
        start: dict[str, object] | None = None,
    ) -> None:
        self.rig = rig
        self.folders = folders
        self.sets = sets or Path()
        self.journal = Journal({"engine": rig.engine_name, **(start or {})})
        self._lock = threading.RLock()
        # Sampling is not under the session's lock: a prompt may be evaluated meanwhile.
        self._pumping = threading.Lock()
        self._samplers: dict[str, DeckSampler] = {}
        #: Python pattern files may run (`demon live --python`).
        self.python = False
        #: Called after each accepted change; live, it wakes the sampling thread.
        self.changed: Callable[[], None] = lambda: None
        #: Called with a score file that this session wrote; live, hot reload then knows it.
        self.written: Callable[[Path], None] = lambda path: None
        self._state = State(TempoMap.start())
        self._undo: deque[State] = deque(maxlen=_UNDO)
        self._redo: deque[State] = deque(maxlen=_UNDO)
        self._scenes: dict[str, Scene] = {}
        self._lets: dict[str, Let] = {}
        self._epochs = itertools.count(1)
        self._versions = itertools.count(1)
        self._events: deque[tuple[int, str]] = deque(maxlen=256)
        self._event_numbers = itertools.count(1)
        self._errors: dict[str, DemonError] = {}
        self._grader = Grader()
        self._saved_at: dict[str, str] = {}
        self._recorder = Recorder(self.journal, rig, self.sets)
        self._replaying = False
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []

    @staticmethod
    def replay(path: Path | str, out: Path | str | None = None, **options: Any) -> Rendered:
        """A recorded set as audio, bit for bit as it was; options as in `render`."""
        from demon_live.perform.render import render

        return render(path, out, **options)

    # ------------------------------------------------------------------ the door

    def apply(
        self, text: str, name: str = "<prompt>", origin: str = "repl", *, now: int | None = None
    ) -> Outcome:
        """Compile a text and let it play from its quantum on. Raises DemonError, changing nothing.

        origin: "repl" (statements add to what plays), "file" (the text is all that file says:
        the difference to its last version is applied), "replay". now: output sample of the
        decision; None = the clock's.
        """
        with self._lock:
            at = self.rig.clock.now() if now is None else now
            self._replaying = origin == "replay"
            try:
                outcome = self._apply(text, name, origin, at)
            except DemonError as error:
                self._explain(error, text, name)
                if origin == "file":
                    self._errors[name] = error
                raise
            finally:
                self._replaying = False
            self._errors.pop(name, None)
            self._saved_at[name] = datetime.now().strftime("%H:%M:%S")
            return outcome

    def _apply(self, text: str, name: str, origin: str, now: int) -> Outcome:
        whole = origin == "file" or (origin == "replay" and not name.startswith("<"))
        # At the prompt the words of the files that play are known, too.
        lets = self._lets if whole else self._known_lets()
        program = compile_source(text, name=name, lets=lets)
        state = self._state
        statements = diff(state.files.get(name), program) if whole else program.statements
        change = self._change(name, now)
        change.build(statements)
        if whole:
            change.release(state.files.get(name), program)
        files = {**state.files, name: program} if whole else state.files
        words = [w for w in change.words if not (self._replaying and w.name in _NOT_REPLAYED)]
        for word in words:
            self._check_word(word, change.state)
        self.journal.write(Event("apply", now, text, name, "file" if whole else "repl"))
        self._commit(change, replace(change.state, files=files))
        if not whole and program.lets:
            self._lets = {**self._lets, **program.lets}
        messages = list(change.messages)
        for word in words:
            messages += self._word(word, now)
        warnings = [str(w) for w in program.warnings]
        for prompt in dict.fromkeys(change.prompts):
            warnings += self.rig.check_prompt(prompt)
        return Outcome(tuple(messages), tuple(warnings))

    def _change(self, name: str, now: int) -> Change:
        base = "" if name.startswith("<") else str(Path(name).parent)
        return Change(
            self._state,
            now,
            base=base,
            folders=self.folders,
            scenes=self._scenes,
            epoch=lambda: next(self._epochs),
        )

    def _commit(self, change: Change, state: State) -> None:
        """The swap, and what the machine must be told of it."""
        before = self._state
        if state.decks != before.decks or state.bpm != before.bpm:
            self._undo.append(before)
            self._redo.clear()
        self._state = state
        self._scenes = change.scenes
        for new in change.stages:
            self.rig.add_stage(new.stage, new.first, new.source)
        for deck, at in change.drops:
            self.rig.drop_deck(deck, at)
        if (state.depth, state.steps) != (before.depth, before.steps):
            self.rig.send(SetRing(state.depth, state.steps))
        for deck, values in change.migrate.items():
            self.rig.send(Migrate(deck, values))
        if state.hushed and (change.messages or change.stages):
            self._state = replace(self._state, hushed=False)
            self.rig.wake()
        self.changed()

    def remove(self, name: str, *, now: int | None = None) -> Outcome:
        """A file is gone or muted: what it said is given back."""
        name = score_name(name)
        with self._lock:
            old = self._state.files.get(name)
            self._errors.pop(name, None)
            if old is None:
                return Outcome()
            at = self.rig.clock.now() if now is None else now
            change = self._change(name, at)
            change.build(diff(old, None))
            change.release(old, None)
            self.journal.write(Event("remove", at, name=name))
            files = {k: v for k, v in self._state.files.items() if k != name}
            self._commit(change, replace(change.state, files=files))
            return Outcome(tuple(change.messages))

    def repeat(self, event: Event, *, now: int | None = None) -> Outcome:
        """Do again what a set says was done; marks and the end do nothing."""
        if event.kind == "apply":
            return self.apply(event.text, event.name, "replay", now=now)
        if event.kind == "remove":
            return self.remove(event.name, now=now)
        return Outcome()

    def load(self, path: Path | str) -> Outcome:
        """Read a score file and apply it as that file. Raises DemonError."""
        name = score_name(path)
        try:
            text = read_score(Path(path))
            if Path(path).suffix == ".py":
                text = self._run_python(text, name)
        except DemonError as error:
            self._explain(error, "", name)
            self._errors[name] = error
            raise
        return self.apply(text, name, "file")

    def save(self, path: Path | str, text: str) -> Outcome:
        """Write a score file, whatever is wrong with it, and play it. Raises DemonError."""
        write_score(Path(path), text)
        self.written(Path(path))
        return self.apply(text, score_name(path), "file")

    def _run_python(self, text: str, name: str) -> str:
        """A Python pattern file as a score: it is the score that is journalled and replayed."""
        if not self.python:
            raise FileError(
                f"{name} is Python and would run as code",
                hint="allow it at the start: demon live --python",
            )
        from demon_live.dsl import run_python

        return run_python(text, name).text

    def _explain(self, error: DemonError, text: str, name: str) -> None:
        saved = None if name.startswith("<") else self._saved_at.get(name)
        playing = f"{Path(name).stem} as saved at {saved}" if saved else "everything, as before"
        for one in error.errors:
            one.name = one.name or name
            if one.span is not None and one.source is None:
                one.source = text
            one.playing = None
        error.errors[-1].playing = playing if self._state.decks else None

    # ------------------------------------------------------------------ performance words

    def _word(self, word: Word, now: int) -> list[str]:
        return _WORDS[word.name](self, word, now)

    def _check_word(self, word: Word, state: State) -> None:
        """Everything that can be wrong with a word, before anything is changed."""
        if word.name in ("mute", "unmute", "solo"):
            unknown = sorted({str(a) for a in word.args} - state.decks.keys())
            if unknown:
                raise ScoreError(
                    f"there is no deck {unknown[0]!r}",
                    span=word.span,
                    hint="decks that play: " + ", ".join(sorted(state.decks)),
                )
        elif word.name == "record":
            self._recorder.check(word)
        elif word.name == "save" and self._save_path(word).exists():
            raise ScoreError(
                f"{self._save_path(word)} exists already",
                span=word.span,
                hint="choose another name",
            )
        elif word.name == "load" and not word.args:
            raise ScoreError("load what?", span=word.span, hint="load 'patterns/00_hello.demon'")

    def _hush(self, word: Word, now: int) -> list[str]:
        self.rig.hush()
        self._state = replace(self._state, hushed=True)
        return ["hush · 10 ms fade · the next statement brings the sound back"]

    def _panic(self, word: Word, now: int) -> list[str]:
        self._hush(word, now)
        self.rig.send(Panic())
        decks = {
            name: replace(d, lanes=dict(d.bound), leaving={})
            for name, d in self._state.decks.items()
        }
        self._state = replace(self._state, decks=decks)
        return ["panic · silence, the ring is empty, transitions are forgotten"]

    def _strip(self, word: Word, now: int) -> list[str]:
        state = self._state
        decks = frozenset(str(a) for a in word.args) or frozenset(state.decks)
        muted, soloed = state.muted, state.soloed
        if word.name == "mute":
            muted |= decks
        elif word.name == "unmute":
            muted -= decks
        elif word.name == "solo":
            soloed = decks
        else:
            soloed = frozenset()
        self._state = replace(state, muted=muted, soloed=soloed)
        self.rig.set_heard(muted, soloed)
        return [f"{word.name} {', '.join(sorted(decks)) if word.name != 'unsolo' else ''}".rstrip()]

    def _back(self, word: Word, now: int) -> list[str]:
        source, target = (
            (self._undo, self._redo) if word.name == "undo" else (self._redo, self._undo)
        )
        if not source:
            return [f"nothing to {word.name}"]
        wanted, current = source.pop(), self._state
        change = self._change("<prompt>", now)
        change.restore(wanted)
        target.append(current)
        undo, redo = self._undo.copy(), self._redo.copy()
        self._commit(change, replace(change.state, files=wanted.files))
        self._undo, self._redo = undo, redo
        return change.messages or [f"{word.name}: nothing changes"]

    def _record(self, word: Word, now: int) -> list[str]:
        return [self._recorder.begin(word)]

    def _stop(self, word: Word, now: int) -> list[str]:
        return [self._recorder.end(now)]

    @staticmethod
    def _save_path(word: Word) -> Path:
        name = str(word.args[0]) if word.args else "saved"
        return Path(name if name.endswith(".demon") else f"{name}.demon")

    def _save(self, word: Word, now: int) -> list[str]:
        path = self._save_path(word)
        path.write_text(as_score(self._state), encoding="utf-8")
        return [f"saved · {path}"]

    def _load(self, word: Word, now: int) -> list[str]:
        outcome = self.load(Path(str(word.args[0])))
        return [*outcome.messages, *outcome.warnings]

    # ------------------------------------------------------------------ the sampling side

    def pump(self) -> None:
        """Sample every deck's lanes for the time ahead and send them; live, a dozen times a second
        and after each change."""
        with self._pumping:
            with self._lock:
                state, now = self._state, self.rig.clock.now()
                self._due(now)
            here = state.tempo.cycle_at(now)
            for deck in state.decks.values():
                if deck.stage is not None:
                    self._sample(deck, deck.stage, state.tempo, now, here)

    def _sample(
        self, deck: DeckState, stage: Stage, tempo: TempoMap, now: int, here: Fraction
    ) -> None:
        gone = {k for k, cycle in deck.leaving.items() if cycle <= here}
        lanes = {k: v for k, v in deck.lanes.items() if k not in gone}
        sampler = self._samplers.setdefault(deck.name, DeckSampler())
        block = sampler.block(deck.name, next(self._versions), lanes, stage, tempo, now)
        for trouble in sampler.trouble():
            self.tell(f"{deck.name}: {trouble}; its last good values hold")
        self.rig.send(Block(block))
        self.rig.set_mix(deck.name, block.mix)

    def at(self, cycle: Fraction | float, what: str | Callable[[], None]) -> None:
        """Apply a text, or call a function, when `cycle` comes: sets as scripts."""
        with self._lock:
            when = self._state.tempo.sample_at(Fraction(cycle))
            call = what if callable(what) else lambda: self._try(what)
            self._agenda.append((when, len(self._agenda), call))
            self._agenda.sort(key=lambda row: row[:2])

    def _due(self, now: int) -> None:
        while self._agenda and self._agenda[0][0] <= now:
            self._agenda.pop(0)[2]()

    def _try(self, text: str) -> None:
        try:
            self.apply(text, "<script>", "repl")
        except DemonError as error:
            self.tell(str(error))

    # ------------------------------------------------------------------ views

    def tell(self, text: str) -> None:
        """Add an asynchronous line for the performer."""
        with self._lock:
            self._events.append((next(self._event_numbers), text))

    def events(self, since: int = 0) -> tuple[int, tuple[str, ...]]:
        """(number of the newest, lines that came after number `since`)."""
        with self._lock:
            rows = [(n, t) for n, t in self._events if n > since]
        return (rows[-1][0] if rows else since), tuple(t for _, t in rows)

    @property
    def state(self) -> State:
        """What is playing. Immutable."""
        return self._state

    @property
    def errors(self) -> dict[str, DemonError]:
        """Files that are broken now, by name."""
        with self._lock:
            return dict(self._errors)

    @property
    def scenes(self) -> tuple[str, ...]:
        return tuple(self._scenes)

    def scores(self) -> dict[str, str]:
        """The score files that play: name -> text of the version that plays."""
        return {name: program.text for name, program in self._state.files.items()}

    def words(self) -> Words:
        """The names that a score may use now."""
        return Words(
            decks=tuple(self._state.decks),
            scenes=tuple(self._scenes),
            lets={name: let.node.params for name, let in self._known_lets().items()},
            folders=tuple(str(f) for f in self.folders),
        )

    def _known_lets(self) -> dict[str, Let]:
        """What `let` defined: in the files that play, and at the prompt."""
        files = (program.lets for program in self._state.files.values())
        return dict(ChainMap(self._lets, *reversed([dict(lets) for lets in files])))

    def status(self) -> Status:
        """A snapshot for displays."""
        return describe(self._state, self.rig, self._recorder.name, self.errors, self._grader)

    def close(self) -> None:
        """End a recording if there is one."""
        with self._lock:
            self._recorder.end(self.rig.clock.now())


#: Words that concern files of this very session: a replay goes on without them. What `load` loaded
#: has its own line in the journal.
_NOT_REPLAYED = frozenset({"record", "stop", "save", "load"})

_WORDS: dict[str, Callable[[Session, Word, int], list[str]]] = {
    "hush": Session._hush,
    "panic": Session._panic,
    "mute": Session._strip,
    "unmute": Session._strip,
    "solo": Session._strip,
    "unsolo": Session._strip,
    "undo": Session._back,
    "redo": Session._back,
    "record": Session._record,
    "stop": Session._stop,
    "save": Session._save,
    "load": Session._load,
}
