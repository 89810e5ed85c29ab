"""What plays, its edits and its commands. The only door for scores.

Prompt, file watcher, scripts and replay all call `apply`. Whatever is wrong raises DemonError and
changes nothing. What is right is written to the journal first and then becomes the new State by
one assignment; engine and mixer get the states derived from it.

Threads: `apply`, `pump` and `status` may be called from any thread; a lock makes each atomic.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from demon_live.audio.sound_input import SoundInput
from demon_live.core import Beats, ControlBlock, MixPoints, Sound
from demon_live.errors import DemonError, EngineError, FileError
from demon_live.lang import Let, Program, Statement, When, Word, compile_source, diff
from demon_live.lang.controllers import Move
from demon_live.lang.destinations import is_loopback, parse_address
from demon_live.lang.dsl_score import Score
from demon_live.lang.samples import reading
from demon_live.session.agenda import Handle, Messages, Scripts, due, text_of
from demon_live.session.assets import Assets, heard_sounds, unknown_words
from demon_live.session.capture import Captures, Played
from demon_live.session.check import no_deck
from demon_live.session.commands import NOT_REPLAYED, check_decks, check_word, do_word
from demon_live.session.edit import Edit
from demon_live.session.inputs import MOVE, Inputs, read_moves, write_moves
from demon_live.session.output import Output, engine_state, mix_state, timbre_of
from demon_live.session.release import overridden, release
from demon_live.session.sampler import Sampler
from demon_live.session.scores import KnownScores, as_score, folder_of, score_name
from demon_live.session.session_api import ScriptApi
from demon_live.session.state import STEP_NOTICE, State, Take, effect_cycle
from demon_live.session.status import Grader, Outcome, Status, Words, describe, named
from demon_live.session.tempo import TempoMap, next_multiple
from demon_live.session.undo import AUTHOR, Undo, speaking_as
from demon_live.sets.journal import RULES, Journal, SetEvent
from demon_live.sets.recorder import Recorder
from demon_live.sets.set_files import KIND

#: The beats of a take in a line of a set.
_BEATS = re.compile(r"[1-9]\d{0,4}(/[1-9]\d{0,2})?", re.ASCII)


class Session(ScriptApi):
    """A performance in progress.

    Args:
        output: what it plays on.
        assets: finds the sound files that scores name.
        sets: where `record NAME` puts its files.
        start: header of the journal.
        inputs: the controllers.
        sound_in: what is played into, None without one.
        python: Python pattern files may run.
        changed: called after each accepted change; live, it wakes the sampling thread.
        written: called with (path, text) of a score file that this session wrote.
        dry: nothing will sound, so sources are looked for but not read.
        alone: everything runs in one thread, functions of scripts too, and what they raise is
            raised (renders).
        outside: destinations beyond this machine that a score may send to; None: nothing is sent
            (renders).
    """

    #: `demon_live.render`, for scripts: `Session.replay("friday.set.jsonl")`.
    replay: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        output: Output,
        *,
        assets: Assets | None = None,
        sets: Path | None = None,
        start: Mapping[str, object] | None = None,
        inputs: Inputs | None = None,
        sound_in: SoundInput | None = None,
        python: bool = False,
        changed: Callable[[], None] = lambda: None,
        written: Callable[[Path, str], None] = lambda path, text: None,
        dry: bool = False,
        alone: bool = False,
        outside: Collection[str] | None = None,
    ) -> None:
        self.output, self.assets = output, assets or Assets()
        # The random number tells this session's sets from all others (set_files.is_own).
        head = {"engine": output.engine_name, "id": secrets.token_hex(16), **(start or {})}
        self.journal = Journal(head)
        #: Of the set that is replayed, else the newest: what texts mean (`sets.journal.RULES`).
        self.rules = int(str((start or {}).get("rules", RULES)))
        self.recorder = Recorder(self.journal, sets or Path(), self.tell)
        self.inputs = inputs or Inputs()
        self.inputs.hear = self.hear
        self.captures = Captures(sound_in)
        self.python = python
        self._changed, self._written, self._dry = changed, written, dry
        self._outside, self._unsent_said = outside, False
        self._lock = threading.RLock()
        # Sampling is not under the session's lock: a prompt may be evaluated meanwhile.
        self._pumping = threading.Lock()
        self._sampler = Sampler(self.tell)
        self._blocks: Mapping[str, ControlBlock] = {}
        self._master: Mapping[str, MixPoints] = {}
        self._sounds: frozenset[Sound] = frozenset()
        # Sets of before were made by a ring that never rested.
        self._state = State(TempoMap.start(), always=self.rules < 2, detail=float(self.rules > 2))
        self._engine = output.engine_name
        self._epoch = 0
        self._replaying = self._fresh = False
        self.undone = Undo()
        #: Its owner: who does what no other author does.
        self.by = ""
        #: Messages of decks that go elsewhere: (lost, late); set by whoever sends them.
        self.out_counts: Callable[[], tuple[int, int]] = lambda: (0, 0)
        #: What `recall` goes back to, by name.
        self.snapshots: dict[str, State] = {}
        #: When a tempo was tapped, by `clock`.
        self.taps: list[float] = []
        self.clock: Callable[[], float] = time.monotonic
        self._due: Fraction | None = None
        self._messages = Messages()
        self._timeline = Scripts(self, self.tell, alone=alone)
        self._unknown_said: set[str] = set()
        self._known = KnownScores()
        self._grader = Grader()

    def apply(
        self,
        text: str | Score,
        name: str = "<prompt>",
        origin: str = "repl",
        *,
        at: Fraction | None = None,
        now: int | None = None,
        replay: bool = False,
    ) -> Outcome:
        """Compile a text and let it play from its quantum on.

        Args:
            text: statements, or a Score.
            name: where errors say they are.
            origin: "repl": the statements add to what plays; "osc": the same, but file names are
                bounded as in a score; "file": the text is all that the score `name` says, and the
                difference to its last version is applied.
            at: the cycle that takes the place of the next quantum, if it is still to come.
            now: output sample of the decision; None = the playhead.
            replay: a set says it: files mean what they meant then, and words that concern this
                machine are left out.

        Raises:
            DemonError: nothing has changed.
        """
        text = text_of(text)
        with self._lock:
            meant = due(self) if at is None else Fraction(at)
            # As exact as a set keeps it.
            self._due = None if meant is None else max(Fraction(0), meant.limit_denominator(10**9))
            self._replaying = replay
            try:
                outcome = self._apply(text, name, origin, self._now(now))
            except DemonError as error:
                self.scripts.emit("error", error)
                self._refused(error, text, name if origin == "file" else "")
                for one in error.errors:
                    one.name = one.name or name
                raise
            finally:
                self._due, self._replaying = None, False
                self.assets.forget()
            self._known.accepted(name)
            return outcome

    @property
    def author(self) -> str:
        """Who does what is done now."""
        by = AUTHOR.get()
        return self.by if by is None else by

    def _now(self, now: int | None) -> int:
        return self.output.playhead.now() if now is None else now

    def _apply(self, text: str, name: str, origin: str, now: int) -> Outcome:
        if self._state.plan:
            # A dry run is not pumped.
            self._step(now)
        whole, state = origin == "file", self._state
        # At the prompt the lets of the files that play are known, too.
        lets = state.lets if whole else self._known_lets()
        base = _base(name, origin)
        with self._freshly(), reading(lambda file: self._look(file, base)):
            # A score says itself where its decks go.
            outs = {} if whole else {n: d.to for n, d in state.decks.items() if d.to is not None}
            program = compile_source(text, name=name, lets=lets, chance=self.rules, outs=outs)
        if not whole:
            check_decks(text, program, state)
        edit = self._build(program, name, origin, now)
        words = [w for w in edit.words if not (self._replaying and w.name in NOT_REPLAYED)]
        for word in words:
            check_word(self, word, edit.state)
            self._look_back(word)
        new = _with_program(edit, state, program, name, whole)
        self._reserve(edit, new)
        self._note_files(now)
        at = "" if self._due is None else str(self._due)
        if any(not (isinstance(s, Word) and s.name == "tap") for s in program.statements):
            self.journal.write(SetEvent("apply", now, text, name, origin, at, self.author))
        if whole and new.hushed and self.rules > 1:
            new = replace(new, hushed=False)
            edit.messages.append("the sound is back")
        self.commit(edit, new)
        messages = [*([] if whole else named(program)), *edit.messages]
        for word in words:
            messages += do_word(self, word, now)
        if not any(w.name in ("undo", "redo", "load", "tap") for w in words):
            drag = name if name.startswith("<drag ") else ""
            self.undone.note(state, self._state, self.author, drag)
        return Outcome(tuple(messages), self._warnings(program, edit))

    def _build(self, program: Program, name: str, origin: str, now: int) -> Edit:
        """What a text changes: built as a whole, with no effect yet."""
        before = self._state.files.get(name)
        edit = self.edit(now, _base(name, origin), name if origin == "file" else "")
        rows, again = program.statements, list[Statement]()
        if origin == "file":
            rows = diff(before, program)
            back = self._overridden(name, program) if before is not None else ()
            again = [row for row in back if row not in rows]
        with self._freshly():
            edit.build((*again, *rows))
        if again:
            edit.messages.insert(0, "what the score says plays again")
        if origin == "file":
            release(edit, before, program)
        return edit

    def _overridden(self, name: str, program: Program) -> tuple[Statement, ...]:
        return overridden(self._state, name, program) if self.rules > 1 else ()

    def differs(self, name: str) -> bool:
        """Whether something else plays than what the score `name` says."""
        with self._lock:
            program = self._state.files.get(name)
            hushed = self._state.hushed and self.rules > 1
            return program is not None and (hushed or bool(self._overridden(name, program)))

    def may_send(self, place: str) -> bool:
        """Whether messages may go to HOST:PORT: this machine, or named at the start."""
        near = is_loopback(parse_address(place)[0])
        return near or place in (self._outside or ())

    def _warnings(self, program: Program, edit: Edit) -> tuple[str, ...]:
        state = self._state
        lines = [str(warning) for warning in program.warnings]
        for prompt in dict.fromkeys(edit.prompts):
            lines += self.output.check_prompt(prompt)
        for name in dict.fromkeys(edit.ducked):
            if name not in state.decks:
                lines.append(" · ".join(no_deck(name, state.decks)))
        sounding = [deck for deck in state.decks.values() if deck.to is None]
        bound = {name for deck in sounding for name in deck.bound}
        new = set(unknown_words(bound, self.output.controls)) - self._unknown_said
        self._unknown_said |= new
        engine = self.output.engine_name.split(" ", 1)[0]
        lines += [f"{engine} does not know {n}: it plays on without" for n in sorted(new)]
        away = [deck for deck in state.decks.values() if deck.to is not None]
        if away and self._outside is None and not self._unsent_said:
            self._unsent_said = True
            lines.append(f"{away[0].name} goes to {away[0].to}: a render has sound only")
        decks = (*state.decks.values(), state.globals)
        lanes = [(name, lane) for deck in decks for name, lane in deck.bound.items()]
        return (*lines, *self.inputs.unmoved(lanes, state.hands))

    def edit(self, now: int, base: str = "", name: str = "") -> Edit:
        """An empty edit of what plays.

        base: the folder that file names are relative to. name: the score that says it.
        """
        # Numbers are taken at the commit: what is refused leaves no gap that a replay would lack.
        epochs = itertools.count(self._epoch + 1)
        return Edit(
            self._state,
            now,
            name=name,
            base=base,
            look=self._look,
            decoded=self.assets.decoded,
            epoch=lambda: next(epochs),
            input=self._replaying or self._dry or self.captures.input is not None,
            engine=None if self._replaying or self._dry else self._other_engine,
            dry=self._dry,
            rules=self.rules,
            due=self._due,
            outside=None if self._replaying else self._outside,
        )

    def _other_engine(self, name: str, base: str) -> str:
        """The engine called `name` by a score in `base`; "" for the one that was started. Raises
        DemonError."""
        if name in (self._engine, ""):
            return ""
        find = getattr(self.output, "find_engine", None)
        if find is None:
            raise EngineError("off line the engine is chosen at the start", hint=f"--engine {name}")
        return str(find(name, base))

    @contextlib.contextmanager
    def _freshly(self) -> Iterator[None]:
        """Names of files mean what lies there now, unless a set says what they meant."""
        self._fresh = not self._replaying
        try:
            yield
        finally:
            self._fresh = False

    def _look(self, name: str, base: str) -> Path:
        played = dict.fromkeys(folder_of(score) for score in self._state.files)
        return self.assets.look(
            name,
            base,
            fresh=self._fresh,
            replaying=self._replaying,
            beside=tuple(played) if self.rules > 1 else (),
        )

    def _look_back(self, word: Word) -> None:
        """Undo and recall read sources again: the set says first what lies there now."""
        wanted = None
        if word.name in ("undo", "redo"):
            wanted = self.undone.wanted(word.name, self._state, self.author)
        if word.name == "recall":
            wanted = self.snapshots.get(word.args[0])
        for deck in wanted.decks.values() if wanted is not None else ():
            if deck.file is not None:
                # A file that is gone is an error when it is needed.
                with contextlib.suppress(DemonError):
                    self._look(deck.file, deck.base)

    def _note_files(self, now: int) -> None:
        """The set says which files were read, before it says what read them."""
        if self._dry:
            self.assets.forget()
            return
        for event, file, path, problem in self.assets.changes(now):
            if file is None:
                self.tell(f"the set cannot keep {path}: {problem}")
                continue
            if event is not None:
                self.journal.write(event)
            self.recorder.keep(file, path)

    def swap(self, state: State) -> None:
        """The one assignment that lets a state play, published at once."""
        self._state, self._sounds = state, heard_sounds(state)
        self._publish()
        self._changed()

    def commit(self, edit: Edit, state: State, *, said: bool = True) -> None:
        """Let the state of an edit play. said: by a performer, whom the sound comes back for."""
        self._reserve(edit, state)
        # What a step back, or of a ramp, has read.
        self._note_files(edit.now)
        self._epoch = max(self._epoch, *(loop.epoch for loop in edit.loops), 0)
        if said and state.hushed and (edit.messages or edit.loops):
            state = replace(state, hushed=False)
        self.swap(state)

    def _reserve(self, edit: Edit, state: State) -> None:
        """Room for all that an edit needs. Raises DemonError, having changed nothing."""
        sounds = {timbre_of(sound).file: sound.audio for sound in heard_sounds(state)}
        self.output.reserve({**edit.audio, **sounds})

    def _publish(self) -> None:
        sound = self.recorder.sound
        self.output.publish(
            engine_state(self._state, self._blocks, self._sounds, self.scripts.wants("generation")),
            mix_state(self._state, self._blocks, self._master, sound, self.recorder.tracks),
        )

    def remove(self, name: str, *, now: int | None = None) -> Outcome:
        """Unload a score that is gone or muted; its controls revert."""
        name = score_name(name)
        with self._lock:
            old = self._state.files.get(name)
            self._known.errors.pop(name, None)
            if old is None:
                return Outcome()
            before, edit = self._state, self.edit(self._now(now), folder_of(name), name)
            release(edit, old, None)
            self._note_files(edit.now)
            self.journal.write(SetEvent("remove", edit.now, name=name, by=self.author))
            files = {k: v for k, v in self._state.files.items() if k != name}
            self.commit(edit, replace(edit.state, files=files))
            self.undone.note(before, self._state, self.author)
            return Outcome(tuple(edit.messages))

    def rename(self, old: str, new: str, *, now: int | None = None) -> bool:
        """Call a score that plays by another name; nothing else changes.

        False if it does not play, if `new` does, or if `new` lies in another folder, where the
        files that it names may be others.
        """
        path = Path(new).absolute()
        old, new = score_name(old), score_name(new)
        with self._lock:
            state, folders = self._state, {folder_of(old), folder_of(new)}
            if old not in state.files or new in state.files or len(folders) > 1:
                return False
            self.journal.write(SetEvent("rename", self._now(now), new, old))
            self._known.rename(old, new, path)
            self.swap(state.renamed(old, new))
            return True

    def align(
        self, cycle: Fraction, sample: int, bpm: Fraction, *, now: int | None = None
    ) -> Outcome:
        """Let `cycle` fall on output sample `sample` and go on at `bpm`, as a shared clock asks.

        Journalled, so that a set replays without the others.
        """
        with self._lock:
            edit = self.edit(self._now(now))
            edit.pin(cycle, sample, bpm)
            self._note_files(edit.now)
            self.journal.write(SetEvent("align", edit.now, f"{cycle} {sample} {bpm}"))
            self.commit(edit, edit.state)
            return Outcome(tuple(edit.messages))

    def repeat(self, event: SetEvent, *, now: int | None = None) -> Outcome:
        """Do what a line of a set says was done; marks and the end do nothing."""
        with speaking_as(event.by):
            return self._repeat(event, now)

    def _repeat(self, event: SetEvent, now: int | None) -> Outcome:
        if event.kind == "apply":
            origin, at = event.replay_origin, event.due
            return self.apply(event.text, event.name, origin, at=at, now=now, replay=True)
        if event.kind == "align":
            try:
                cycle, sample, bpm = event.text.split()
                moved = Fraction(cycle), int(sample), Fraction(bpm)
            except (ValueError, ArithmeticError):
                raise FileError(f"a line of the set moves time to {event.text[:40]!r}") from None
            return self.align(*moved, now=now)
        if event.kind == "take":
            deck, _, beats = event.text.partition(" ")
            if event.due is None or not _BEATS.fullmatch(beats):
                raise FileError(f"a line of the set takes {event.text[:40]!r} of the input")
            known = Fraction(beats)
            whole = known.numerator if known.denominator == 1 else known
            return self.take(deck, event.name, whole, event.due, now=now)
        if event.kind == "remove":
            return self.remove(event.name, now=now)
        if event.kind == "rename":
            self.rename(event.name, event.text, now=now)
        if event.kind == KIND:
            with self._lock:
                # A set that is recorded of this one says it, too.
                self.assets.set_files.learn(event)
                self.journal.write(replace(event, sample=self._now(now)))
        if event.kind == "hands":
            self.hear(read_moves(event.text), now=now, replay=True)
        return Outcome()

    def load(self, path: Path | str, data: bytes | None = None) -> Outcome:
        """Read a score file and apply it. Raises DemonError.

        Args:
            path: the file.
            data: its content, if it is watched. What is wrong with another score that does not
                play is shown once: nobody would see it mended.
        """
        name = score_name(path)
        shown = name in self._known.errors or name in self._state.files or data is not None
        try:
            return self._load(Path(path), name, data)
        except DemonError:
            if not shown:
                self._known.errors.pop(name, None)
            raise

    def _load(self, path: Path, name: str, data: bytes | None) -> Outcome:
        try:
            said = self._known.read(path, name, data, self.python)
        except DemonError as error:
            self._refused(error, "", name)
            raise
        if isinstance(said, str):
            return self.apply(said, name, "file")
        # It is the score that is journalled and replayed; what is wrong with it is shown in Python.
        try:
            outcome = self.apply(said.text, name, "file")
        except DemonError as error:
            for one in error.errors:
                said.place(one)
            raise
        shown = compile_source(said.text, name).warnings, said.program().warnings
        lines = dict(zip(map(str, shown[0]), map(str, shown[1]), strict=True))
        return replace(outcome, warnings=tuple(lines.get(w, w) for w in outcome.warnings))

    def save(self, path: Path | str, text: str) -> Outcome:
        """Write a score file, whatever is wrong with it, and play it. Raises DemonError.

        Of a shipped score a copy is written into the working folder.

        path: also the name of a score that plays, wherever it lies.
        """
        name, where, lines = self._known.write(path, text)
        self._written(where, text)
        outcome = self.apply(text, name, "file")
        return Outcome((*outcome.messages, *lines), outcome.warnings)

    def _refused(self, error: DemonError, text: str, file: str) -> None:
        """Add to an error where it is and what plays on. file: name of the score, or ""."""
        self._known.refused(error, text, file, playing=bool(self._state.decks))

    def pump(self) -> None:
        """Sample every deck's lanes for the time ahead and publish them; live, a dozen times a
        second and after each change."""
        with self._pumping:
            with self._lock:
                now = self.output.playhead.now()
                self._listen(now)
                self.scripts.run(now, self._state.tempo)
                self._step(now)
                state = self._state
            blocks, master = self._sampler.blocks(state, now), self._sampler.master(state, now)
            with self._lock:
                self._blocks, self._master = blocks, master
                self._publish()

    def _listen(self, now: int) -> None:
        """Take of the input what is over, and hear its signals."""
        self.captures.want(self._state)
        for played, said in tuple(self.captures.due(self._state, now)):
            try:
                lines = (said,) if played is None else self._keep(played, said, now)
            except DemonError as error:
                lines = (f"{said} are left out: {error.message}",)
            for line in lines:
                self.tell(line)
        for sample, moves in tuple(self.captures.moves(self._state, now)):
            self.hear(moves, now=sample)

    def _keep(self, played: Played, said: str, now: int) -> tuple[str, ...]:
        """Take a loop of the input; what is to be told. Of those that come again and again the
        first is told, and what is wrong with one."""
        deck, edit = self._state.decks[played.deck], self.edit(now)
        loop, wanted = deck.playing(now), deck.capture
        assert loop is not None
        assert wanted is not None
        under = edit.source_of(deck, loop)
        audio, loud = played.over(under, wanted.overdub)
        name = self.assets.takes.keep(audio)
        beats = self._state.tempo.segment_at(played.end - played.cycles).beats * played.cycles
        cycle = effect_cycle(self._state, When("now"), now, prepared=True)
        done = self.take(played.deck, name, beats, next_multiple(cycle, Fraction(1)), now=now)
        again = wanted.every and deck.take is not None and deck.take.since == wanted.begin
        lines = (said,) if again else (said, *done.messages)
        return (*(() if again and not played.missing else lines), *[loud] * bool(loud))

    def take(
        self, deck: str, name: str, beats: Beats, cycle: Fraction, *, now: int | None = None
    ) -> Outcome:
        """Let a loop of the input, kept under `name`, be what a deck is made of from `cycle` on.

        Journalled, so that a set replays without an input. Raises DemonError.
        """
        with self._lock:
            at = self._now(now)
            if self._state.plan:
                self._step(at)
            wanted = self._state.decks[deck].capture if deck in self._state.decks else None
            if wanted is None or self.assets.takes.find(name, self.assets.set_files) is None:
                raise FileError(
                    f"{deck} has no take {name[:60]!r}",
                    hint="the files of a set lie beside it, in NAME.files",
                )
            edit = self.edit(at)
            edit.take(deck, Take(name, beats, wanted.begin, wanted.timbre), cycle)
            self._reserve(edit, edit.state)
            self._note_files(at)
            self.journal.write(SetEvent("take", at, f"{deck} {beats}", name, at=str(cycle)))
            self.commit(edit, edit.state, said=False)
            return Outcome(tuple(edit.messages))

    def _step(self, now: int) -> None:
        """Prepare the steps of ramps of the tempo and of chains that are near."""
        while (cycle := self._state.next_step) is not None:
            state = self._state
            if state.tempo.sample_at(cycle) > now + STEP_NOTICE:
                return
            edit = self.edit(now)
            try:
                edit.step()
                self.commit(edit, edit.state, said=self.rules < 4)
            except DemonError as error:
                # What follows still comes: sampling must not wait for a file.
                self.tell(f"a step of the tempo or of a chain is left out: {error.message}")
                ramp = tuple(row for row in state.ramp if row[0] > cycle)
                plan = tuple(step for step in state.plan if step.cycle > cycle)
                self.swap(replace(state, ramp=ramp, plan=plan))

    @property
    def scripts(self) -> Scripts:
        """What is on the timeline."""
        return self._timeline

    @property
    def cycle(self) -> Fraction:
        """Where the next sample that is not decided lies."""
        return self._state.tempo.cycle_at(self.output.playhead.now())

    def watch(self, kinds: Iterable[str], call: Callable[[str, Any], object]) -> Handle:
        """See `SessionApi.watch`."""
        return self.scripts.watch(kinds, call)

    def _try(self, text: str, name: str, echo: bool = False) -> None:
        try:
            outcome = self.apply(text, name)
        except DemonError as error:
            self.tell(str(error))
        else:
            for line in outcome.messages if echo else ():
                self.tell(line)

    def hear(self, moves: Sequence[Move], *, now: int | None = None, replay: bool = False) -> None:
        """Controllers were moved: kept in the set, then heard by every lane that names them."""
        with self._lock:
            at = self._now(now)
            # What is heard is what the set keeps, to the last bit: it writes six digits.
            text = write_moves(moves)
            moves = read_moves(text)
            self.journal.write(SetEvent("hands", at, text=text))
            segment = self._state.tempo.segment_of(at)
            cycle = float(self._state.tempo.cycle_at(at))
            before = self._state.hands
            hands = before.moved(moves, cycle, MOVE / float(segment.length))
            self.swap(replace(self._state, hands=hands))
            learnt = self.inputs.moved(moves, before, hands, replay)
            if learnt:
                self._try(learnt, "<learn>", echo=True)

    def tell(self, text: str) -> None:
        """Add a line for the performer that is no answer to a statement."""
        with self._lock:
            self._messages.add(text)
        self.scripts.emit("event", text)

    def events(self, since: int = 0) -> tuple[int, tuple[str, ...]]:
        """(number of the newest, lines that came after number `since`)."""
        with self._lock:
            return self._messages.since(since)

    @property
    def state(self) -> State:
        """What is playing. Immutable."""
        return self._state

    @property
    def errors(self) -> dict[str, DemonError]:
        """Files that are broken now, by name."""
        with self._lock:
            return dict(self._known.errors)

    def scores(self) -> dict[str, str]:
        """The score files that play: name -> text of the version that plays."""
        return {name: program.text for name, program in self._state.files.items()}

    def score(self, folder: Path | None = None) -> str:
        """See `SessionApi.score`."""
        return as_score(self._state, folder)

    def words(self) -> Words:
        """The names that a score may use now."""
        played = [os.path.abspath(folder_of(score)) for score in self._state.files]
        return Words(
            decks=tuple(self._state.decks),
            scenes=tuple(self._state.scenes),
            snapshots=tuple(self.snapshots),
            lets={name: let.node.params for name, let in self._known_lets().items()},
            folders=tuple(dict.fromkeys([*played, *map(str, self.assets.folders)])),
        )

    def _known_lets(self) -> dict[str, Let]:
        """What `let` defined: in the files that play, and at the prompt."""
        files = (program.lets for program in self._state.files.values())
        return dict(ChainMap(dict(self._state.lets), *reversed([dict(lets) for lets in files])))

    def status(self) -> Status:
        """A snapshot for displays."""
        found = describe(
            self._state, self.output, self.recorder, self.errors, self._grader, self.captures.input
        )
        return replace(found, out=self.out_counts())

    def close(self) -> None:
        """End a recording if there is one, and let go of the controllers."""
        self.inputs.close()
        self.scripts.close()
        with self._lock:
            self.recorder.end(self.output.playhead.now())
            self._publish()


def _base(name: str, origin: str) -> str:
    """The folder that file names in a text are relative to; "" at the prompt: any path."""
    if origin == "file":
        return folder_of(name)
    return "." if origin == "osc" else ""


def _with_program(edit: Edit, before: State, program: Program, name: str, whole: bool) -> State:
    """The state of an edit, with the text that made it."""
    files = {**before.files, name: program} if whole else before.files
    lets = before.lets if whole else {**before.lets, **program.lets}
    return replace(edit.state, files=files, scenes=edit.scenes, lets=lets)
