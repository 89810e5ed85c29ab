"""The only door for scores: compile, check, journal, swap.

REPL, file watcher, scripts and replay all call `apply`. Whatever is wrong raises DemonError and
changes nothing. What is right is written to the journal first and then becomes the new State by
one assignment; the sampling side reads the newest State at its next pump.

Threads: `apply`, `pump` and `status` may be called from any thread; a lock makes each atomic.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import ChainMap, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demon_live.core import Loop
from demon_live.errors import DemonError, FileError
from demon_live.lang import Lane, Let, Word, compile_source, diff
from demon_live.lang.controllers import Key, Move
from demon_live.runtime.messages import Block, Migrate, SetRing
from demon_live.session.assets import heard_sounds, unknown_words
from demon_live.session.commands import NOT_REPLAYED, check_decks, check_word, do_word
from demon_live.session.describe import Grader, describe, named
from demon_live.session.edit import STEP_NOTICE, Edit
from demon_live.session.inputs import MOVE, Inputs, Learner, read_moves, write_moves
from demon_live.session.output import Rig
from demon_live.session.sampler import DeckSampler
from demon_live.session.scores import Find, find_source, read_score, score_name, write_score
from demon_live.session.state import DeckState, State
from demon_live.session.status import Outcome, Status, Words
from demon_live.session.tempo import TempoMap
from demon_live.session.undo import Undo
from demon_live.sets.journal import Event, Journal
from demon_live.sets.recorder import Recorder
from demon_live.sets.set_files import KIND, File, SetFiles, digest_of

if TYPE_CHECKING:
    from demon_live.replay.render import Rendered

__all__ = ["Session"]


class Session:
    """A performance in progress.

    rig: what it plays on. folders: where sources are looked for, besides the score's own folder.
    sets: where `record NAME` puts its files. start: header of the journal. deaf: nothing will
    sound, so sources are looked for but not read.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        folders: tuple[Path, ...] = (),
        sets: Path | None = None,
        start: dict[str, object] | None = None,
        deaf: bool = False,
    ) -> None:
        self.rig = rig
        self._deaf = deaf
        self.folders = folders
        self.sets = sets or Path()
        self.journal = Journal({"engine": rig.engine_name, **(start or {})})
        self._lock = threading.RLock()
        # Sampling is not under the session's lock: a prompt may be evaluated meanwhile.
        self._pumping = threading.Lock()
        self._samplers: dict[str, DeckSampler] = {}
        self._kept: dict[str, tuple[tuple[object, ...], Mapping[str, Lane]]] = {}
        #: What a replay may read lies in these folders (a set from a stranger); None: anywhere.
        self.within: tuple[Path, ...] | None = None
        #: Finds the files of sources and timbres; told of each that was found.
        self.find: Find = find_source
        self.found: Callable[[str, str, Path], None] = lambda name, base, path: None
        #: Which files names meant; of a set that is replayed, its own copies.
        self.kept = SetFiles()
        self._read: dict[tuple[str, str], Path] = {}
        self._fresh = False
        #: Python pattern files may run (`demon live --python`).
        self.python = False
        #: Called after each accepted change; live, it wakes the sampling thread.
        self.changed: Callable[[], None] = lambda: None
        #: Called with a score file that this session wrote; live, hot reload then knows it.
        self.written: Callable[[Path], None] = lambda path: None
        self._state = State(TempoMap.start())
        self.undone = Undo()
        #: What `recall` goes back to, by name.
        self.snapshots: dict[str, State] = {}
        #: Opens the controllers when a score first asks for one; live, MIDI.
        self.open_controllers: Callable[[], Inputs] | None = None
        self._controllers: Inputs | None = None
        self._learner: Learner | None = None
        self._silent_keys: set[Key] = set()
        self._said_unknown: set[str] = set()
        self._epoch = 0
        self._versions = itertools.count(1)
        self._events: deque[tuple[int, str]] = deque(maxlen=256)
        self._event_numbers = itertools.count(1)
        self._errors: dict[str, DemonError] = {}
        self._grader = Grader()
        self._saved_at: dict[str, str] = {}
        self._paths: dict[str, Path] = {}
        self.recorder = Recorder(self.journal, rig, self.sets, self.tell)
        self._replaying = False
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []

    @staticmethod
    def replay(path: Path | str, out: Path | str | None = None, **options: Any) -> Rendered:
        """A recorded set as audio, bit for bit as it was; options as in `render`."""
        from demon_live.replay.render import render

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
                # What a refused text has read is no part of the set.
                self._read.clear()
            self._errors.pop(name, None)
            self._saved_at[name] = datetime.now().strftime("%H:%M:%S")
            return outcome

    def _apply(self, text: str, name: str, origin: str, now: int) -> Outcome:
        whole = origin == "file" or (origin == "replay" and not name.startswith("<"))
        # At the prompt the words of the files that play are known, too.
        lets = self._state.lets if whole else self._known_lets()
        program = compile_source(text, name=name, lets=lets)
        state = self._state
        if origin == "repl":
            check_decks(text, program, state)
        statements = diff(state.files.get(name), program) if whole else program.statements
        change = self.change(name, now)
        self._fresh = not self._replaying
        try:
            change.build(statements)
        finally:
            self._fresh = False
        if whole:
            change.release(state.files.get(name), program)
        files = {**state.files, name: program} if whole else state.files
        lets = state.lets if whole else {**state.lets, **program.lets}
        words = [w for w in change.words if not (self._replaying and w.name in NOT_REPLAYED)]
        for word in words:
            check_word(self, word, change.state)
            self._look_back(word)
        self._note_files(now)
        self.journal.write(Event("apply", now, text, name, "file" if whole else "repl"))
        self.commit(change, replace(change.state, files=files, scenes=change.scenes, lets=lets))
        messages = [*([] if whole else named(program)), *change.messages]
        for word in words:
            messages += do_word(self, word, now)
        if not any(w.name in ("undo", "redo", "load") for w in words):
            self.undone.note(state, self._state)
        warnings = [str(w) for w in program.warnings]
        for prompt in dict.fromkeys(change.prompts):
            warnings += self.rig.check_prompt(prompt)
        return Outcome(tuple(messages), (*warnings, *self._unknown(), *self._untouched()))

    def change(self, name: str, now: int) -> Edit:
        """An empty change of what plays, by the text called `name`."""
        base = "" if name.startswith("<") else str(Path(name).parent)
        # Whoever reaches that port names files as a score does, not as the performer.
        base = "." if name == "<osc>" else base
        # Numbers are taken at the commit: what is refused leaves no gap that a replay would lack.
        epochs = itertools.count(self._epoch + 1)
        return Edit(
            self._state,
            now,
            base=base,
            folders=(*self.folders, *within) if (within := self._bounds()) else self.folders,
            epoch=lambda: next(epochs),
            deaf=self._deaf,
            within=within,
            find=self._find,
        )

    def _find(
        self, name: str, base: str, folders: Iterable[Path], within: Sequence[Path] | None
    ) -> Path:
        """Where a file is. What is evaluated now means what lies there now; what a set says, or
        comes back by itself, means what it meant then."""
        path = None if self._fresh else self.kept.find(name, base)
        path = path or self.find(name, base, folders, within)
        self._read[name, base] = path
        self.found(name, base, path)
        return path

    def _look_back(self, word: Word) -> None:
        """The sources of a state that a word goes back to will be read again: the set says first
        what lies there now."""
        wanted = self.undone.peek(word.name) if word.name in ("undo", "redo") else None
        if word.name == "recall":
            wanted = self.snapshots.get(word.args[0])
        for deck in wanted.decks.values() if wanted is not None else ():
            if deck.source is not None:
                # What is gone is told when it is needed.
                with contextlib.suppress(DemonError):
                    self._find(deck.source, deck.base, self.folders, self._bounds())

    def _note_files(self, now: int) -> None:
        """The set says which files were read, before it says what read them."""
        read, self._read = self._read, {}
        for (name, base), path in read.items() if not self._deaf else ():
            # What is gone meanwhile is told when it is needed.
            if not path.is_file():
                continue
            try:
                file = File(digest_of(path), path.name)
            except OSError as error:
                self.tell(f"the set cannot keep {path}: {error.strerror}")
                continue
            event = self.kept.event(name, base, file, now)
            if event is not None:
                self.journal.write(event)
            self.recorder.keep(file, path)

    def _bounds(self) -> tuple[Path, ...] | None:
        return self.within if self._replaying else None

    def swap(self, state: State) -> None:
        """The one assignment that lets a state play."""
        self._state = state
        self.changed()

    def commit(self, change: Edit, state: State) -> None:
        """The swap, and what the machine must be told of it."""
        before = self._state
        self._state = state
        # What a step back, or of a ramp, has read.
        self._note_files(change.now)
        # The engine is told what to sound like before anything asks for it.
        self.rig.set_sounds(heard_sounds(state))
        for new in change.loops:
            self._epoch = max(self._epoch, new.loop.epoch)
            self.rig.add_loop(new.loop, new.first, new.source)
        for moved in change.moves:
            self.rig.move_loop(moved)
        for deck, at in change.drops:
            self.rig.drop_deck(deck, at)
        if (state.depth, state.steps) != (before.depth, before.steps):
            depth, steps = self.rig.ring
            self.rig.send(SetRing(state.depth or depth, state.steps or steps))
        for deck, values in change.migrate.items():
            self.rig.send(Migrate(deck, values))
        if state.hushed and (change.messages or change.loops):
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
            before, change = self._state, self.change(name, at)
            change.build(diff(old, None))
            change.release(old, None)
            self._note_files(at)
            self.journal.write(Event("remove", at, name=name))
            files = {k: v for k, v in self._state.files.items() if k != name}
            self.commit(change, replace(change.state, files=files))
            self.undone.note(before, self._state)
            return Outcome(tuple(change.messages))

    def align(
        self, cycle: Fraction, sample: int, bpm: Fraction, *, now: int | None = None
    ) -> Outcome:
        """Let `cycle` fall on output sample `sample` and go on at `bpm`: what a shared clock asks
        for (control.sync). Journalled, so that a set replays without the others."""
        with self._lock:
            at = self.rig.clock.now() if now is None else now
            change = self.change("<sync>", at)
            change.pin(cycle, sample, bpm)
            self._note_files(at)
            self.journal.write(Event("align", at, f"{cycle} {sample} {bpm}"))
            self.commit(change, change.state)
            return Outcome(tuple(change.messages))

    def repeat(self, event: Event, *, now: int | None = None) -> Outcome:
        """Do again what a set says was done; marks and the end do nothing."""
        if event.kind == "apply":
            return self.apply(event.text, event.name, "replay", now=now)
        if event.kind == "align":
            cycle, sample, bpm = event.text.split()
            return self.align(Fraction(cycle), int(sample), Fraction(bpm), now=now)
        if event.kind == "remove":
            return self.remove(event.name, now=now)
        if event.kind == KIND:
            self._learn_file(event, self.rig.clock.now() if now is None else now)
        if event.kind == "hands":
            self.hear(read_moves(event.text), now=now, replay=True)
        return Outcome()

    def _learn_file(self, event: Event, at: int) -> None:
        """A set says which file its next text means; so does one that is recorded of it."""
        with self._lock:
            self.kept.learn(event)
            self.journal.write(replace(event, sample=at))

    def load(self, path: Path | str) -> Outcome:
        """Read a score file and apply it as that file. Raises DemonError."""
        name = score_name(path)
        self._paths[name] = Path(path).absolute()
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
        """Write a score file, whatever is wrong with it, and play it. Raises DemonError.

        path: also the name of a score that plays, wherever it lies.
        """
        name = str(path) if str(path) in self._paths else score_name(path)
        where = self._paths.setdefault(name, Path(path).absolute())
        write_score(where, text)
        self.written(where)
        return self.apply(text, name, "file")

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

    # ------------------------------------------------------------------ the sampling side

    def pump(self) -> None:
        """Sample every deck's lanes for the time ahead and send them; live, a dozen times a second
        and after each change."""
        with self._pumping:
            with self._lock:
                now = self.rig.clock.now()
                self._due(now)
                self._step(now)
                state = self._state
            here = state.tempo.cycle_at(now)
            for deck in state.decks.values():
                if deck.loop is not None:
                    lanes = self._lanes(state, deck, here)
                    self._sample(deck, deck.sampled(now), lanes, state.tempo, now)

    def _lanes(self, state: State, deck: DeckState, here: Fraction) -> Mapping[str, Lane]:
        # The same objects while nothing changes: what is planned from them need not be made anew.
        gone = tuple(sorted(k for k, cycle in deck.leaving.items() if cycle <= here))
        key = (deck.lanes, gone, state.hands.version, state.sides, state.globals)
        kept = self._kept.get(deck.name)
        if kept is None or any(a is not b and a != b for a, b in zip(kept[0], key, strict=True)):
            kept = self._kept[deck.name] = (key, state.lanes(deck, here))
        return kept[1]

    def _sample(
        self,
        deck: DeckState,
        loop: Loop,
        lanes: Mapping[str, Lane],
        tempo: TempoMap,
        now: int,
    ) -> None:
        sampler = self._samplers.setdefault(deck.name, DeckSampler())
        block = sampler.block(deck.name, next(self._versions), lanes, loop, tempo, now)
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

    def _step(self, now: int) -> None:
        """Prepare the next step of a ramp of the tempo when it is near."""
        state = self._state
        if state.ramp and state.tempo.sample_at(state.ramp[0][0]) <= now + STEP_NOTICE:
            change = self.change("<ramp>", now)
            change.step()
            self.commit(change, change.state)

    def _due(self, now: int) -> None:
        while self._agenda and self._agenda[0][0] <= now:
            self._agenda.pop(0)[2]()

    def _try(self, text: str, name: str = "<script>") -> None:
        try:
            outcome = self.apply(text, name, "repl")
        except DemonError as error:
            self.tell(str(error))
        else:
            for line in outcome.messages if name == "<learn>" else ():
                self.tell(line)

    # ------------------------------------------------------------------ controllers

    def hear(self, moves: Sequence[Move], *, now: int | None = None, replay: bool = False) -> None:
        """Controllers were moved: kept in the set, then heard by every lane that names them."""
        with self._lock:
            at = self.rig.clock.now() if now is None else now
            # What is heard is what the set keeps, to the last bit: it writes six digits.
            text = write_moves(moves)
            moves = read_moves(text)
            self.journal.write(Event("hands", at, text=text))
            segment = self._state.tempo.segment_of(at)
            cycle = float(self._state.tempo.cycle_at(at))
            before = self._state.hands
            hands = before.moved(moves, cycle, MOVE / float(segment.length))
            self.swap(replace(self._state, hands=hands))
            self._silent_keys -= hands.tracks.keys()
            if self._learner is not None and not replay:
                said = self._learner.hear(moves, before)
                if said:
                    self._learner = None
                    self._try(said, "<learn>")

    def learn(self, target: tuple[str, str] | None) -> None:
        """The next knob that moves is bound to a control (deck, control); None: no longer."""
        self._learner = None if target is None else Learner(*target)

    def hands_problem(self) -> str:
        """Opens the controllers. Why none can be heard, or ""."""
        if self._controllers is None and self.open_controllers is not None:
            self._controllers = self.open_controllers()
        return "" if self._controllers is None else self._controllers.problem

    def _unknown(self) -> tuple[str, ...]:
        """Controls that a deck binds and the engine does not obey, each told once."""
        bound = {name for deck in self._state.decks.values() for name in deck.bound}
        new = set(unknown_words(bound, self.rig.controls)) - self._said_unknown
        self._said_unknown |= new
        engine = self.rig.engine_name.split(" ", 1)[0]
        return tuple(f"{engine} does not know {n}: it plays on without" for n in sorted(new))

    def _untouched(self) -> tuple[str, ...]:
        """Controllers that a lane waits for, each told once."""
        state = self._state
        rows = [(n, x) for d in (*state.decks.values(), state.globals) for n, x in d.bound.items()]
        out = []
        for name, lane in rows:
            new = lane.keys - state.hands.tracks.keys() - self._silent_keys
            if new:
                self._silent_keys |= new
                which = ", ".join(str(k) for k in sorted(new))
                out.append(f"{which} has not moved yet: until then {name} keeps its default")
        problem = self.hands_problem() if any(lane.keys for _, lane in rows) else ""
        return (*out, *([problem] if out and problem else []))

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
        return tuple(self._state.scenes)

    def scores(self) -> dict[str, str]:
        """The score files that play: name -> text of the version that plays."""
        return {name: program.text for name, program in self._state.files.items()}

    def words(self) -> Words:
        """The names that a score may use now."""
        return Words(
            decks=tuple(self._state.decks),
            scenes=tuple(self._state.scenes),
            snapshots=tuple(self.snapshots),
            lets={name: let.node.params for name, let in self._known_lets().items()},
            folders=tuple(str(f) for f in self.folders),
        )

    def _known_lets(self) -> dict[str, Let]:
        """What `let` defined: in the files that play, and at the prompt."""
        files = (program.lets for program in self._state.files.values())
        return dict(ChainMap(dict(self._state.lets), *reversed([dict(lets) for lets in files])))

    def status(self) -> Status:
        """A snapshot for displays."""
        return describe(self._state, self.rig, self.recorder.name, self.errors, self._grader)

    def close(self) -> None:
        """End a recording if there is one, and let go of the controllers."""
        controllers, self._controllers = self._controllers, None
        if controllers is not None:
            controllers.close()
        with self._lock:
            self.recorder.end(self.rig.clock.now())
