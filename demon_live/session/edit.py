"""One edit: a text in, the next State out, with the sound of its new loops.

Nothing here has an effect. An `Edit` is built completely, sources are read and fitted, and only
then does the session write the journal and assign the state.

Threads: an Edit belongs to the call that builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from demon_live.audio.files import tempo_in_name
from demon_live.controls import SETTINGS, find
from demon_live.core import RATES, Beats, Floats, Loop
from demon_live.errors import DemonError, FileError, ScoreError, Span, nearest
from demon_live.lang import (
    Bind,
    Chain,
    Lane,
    Setting,
    Statement,
    When,
    Word,
)
from demon_live.lang.chain import (
    ChainLane,
    chain_lanes,
    chain_settings,
    expanded,
    find_scene,
    restarted,
)
from demon_live.session.assets import DecodedSource, DecodedSources, with_sounds
from demon_live.session.state import (
    GLOBALS,
    DeckState,
    Planned,
    Said,
    State,
    label_of,
    make_loop,
)
from demon_live.session.tempo import TempoMap
from demon_live.sets.journal import RULES

#: The packages of settings that share time with others.
_PACKAGES = {"link": "aalink", "clock": "rtmidi"}
#: Settings that prepare no loop.
_AT_ONCE = ("quant", "ring", "link", "clock", "nudge")
#: Of a new prompt pattern the words of so many cycles are looked at, and of so many changes.
_PROMPT_CYCLES, _PROMPTS = 16, 64
#: A loop needs this long to be prepared (source encoded, ring primed) before it plays, in samples.
NOTICE = 3 * RATES.sample_rate // 2
#: Sound files that the patterns of one text may name: a minute of each has 23 MB.
MOST_FILES = 64
#: Changes of one control that may lie ahead at different moments.
MOST_WAITING = 64
#: Steps of a plan whose tempos the tempo map has.
_FORECAST = 64
#: Denominator of the tempo that a ramp begins with.
_FINEST = 10**30
#: A step of a ramp is prepared this long before it begins, in samples.
STEP_NOTICE = NOTICE + RATES.sample_rate // 2


def next_multiple(cycle: Fraction, n: Fraction) -> Fraction:
    """The first multiple of n at or after `cycle`."""
    return -(-cycle // n) * n


def folder_of(score: str) -> str:
    """The folder that file names in a score are relative to."""
    return str(Path(score).parent)


def bars(cycle: Fraction) -> str:
    """A cycle as it is shown: bars are cycles, so that `at 8` is bar 8."""
    return f"{int(cycle)}" if cycle.denominator == 1 else f"{float(cycle):.2f}"


def _rates(start: Fraction, end: Fraction, steps: int) -> list[Fraction]:
    """The tempos of a ramp. Ramps that interrupt each other would make ever longer fractions."""
    start = start.limit_denominator(max(_FINEST, end.denominator))
    return [start + (end - start) * (k + 1) / steps for k in range(steps)]


def _ahead(step: Planned, here: Fraction) -> Planned | None:
    """The next time that a step of a plan comes; None: it is over."""
    if step.cycle > here:
        return step
    if not step.every:
        return None
    rounds = (here - step.cycle) // step.every + 1
    return replace(step, cycle=step.cycle + rounds * step.every)


class Edit:
    """Collects what the statements of one text do to a state. Raises DemonError, changing nothing.

    Args:
        state: what plays.
        now: output sample of the decision.
        name: the score that says it; "" at the prompt.
        base: the folder that file names are relative to; "" at the prompt.
        look: finds the file of a name, relative to a base.
        decoded: sources that were read before.
        epoch: gives the number of the next loop.
        engine: finds another engine, named relative to a base; None accepts any (a replay).
        dry: nothing will sound: sources are looked for, not read.
        rules: of the set that is replayed (`sets.journal.RULES`).
        due: the cycle that statements without a time are meant for; None = the next quantum.
    """

    def __init__(
        self,
        state: State,
        now: int,
        *,
        name: str = "",
        base: str,
        look: Callable[[str, str], Path],
        decoded: DecodedSources,
        epoch: Callable[[], int],
        engine: Callable[[str, str], str] | None = None,
        dry: bool = False,
        rules: int = RULES,
        due: Fraction | None = None,
    ) -> None:
        self.state = state
        self.due = due
        self.now = now
        self.name = name
        self.base = base
        self.rules = rules
        self._look, self._engine, self._decoded = look, engine, decoded
        self.scenes = dict(state.scenes)
        self._epoch = epoch
        self._dry = dry
        self.messages: list[str] = []
        self.words: list[Word] = []
        self.loops: list[Loop] = []
        #: The PCM of new loops and sources, by name.
        self.audio: dict[str, Floats] = {}
        self.prompts: list[str] = []
        #: Decks that need a new loop, and from which cycle on.
        self.renew: dict[str, Span | None] = {}
        self._sourced: set[str] = set()
        self._info: list[str] = []
        self._named: set[str] = set()
        self.begin: Fraction | None = None
        # The very first text: there is nothing to move from, so everything simply begins.
        self._silent = not state.decks and now == 0 and not due

    def effect(self, when: When, prepared: bool = False) -> Fraction:
        """The cycle at which a statement takes effect."""
        if self._silent:
            return Fraction(0)
        tempo = self.state.tempo
        here = tempo.cycle_at(self.now)
        prepared = prepared or self.begin is not None
        earliest = max(tempo.cycle_at(self.now + NOTICE), here) if prepared else here
        if self.due is not None:
            return self._scheduled(when, max(self.due, earliest))
        if when.kind == "now":
            return earliest
        if when.kind == "at" and when.cycles > 0:
            return next_multiple(earliest, when.cycles)
        if when.kind == "in":
            return max(Fraction(here // 1) + when.cycles, earliest)
        quant = self.state.quant
        if quant == 0:
            return earliest
        cycle = next_multiple(earliest, quant)
        return cycle if cycle > here else cycle + quant

    @staticmethod
    def _scheduled(when: When, due: Fraction) -> Fraction:
        """As `effect`, seen from the cycle that the statement is meant for."""
        if when.kind == "at" and when.cycles > 0:
            return next_multiple(due, when.cycles)
        return due + when.cycles if when.kind == "in" else due

    def build(self, statements: Iterable[Statement]) -> None:
        """Take all statements of one text, in order."""
        named = [with_sounds(s, self._named_file, self.base, self._dry) for s in statements]
        rows = expanded(named, self.scenes)
        if self._silent:
            self.begin = Fraction(0)
        settings = [s for s in rows if isinstance(s, Setting) and s.word not in _AT_ONCE]
        for row in rows:
            if isinstance(row, Setting):
                self.set(row)
        new = self._new_decks(rows)
        if settings or new:
            when = settings[0].when if settings else When("quant", Fraction(0))
            self.begin = self.effect(when, prepared=True)
            self._ramp(settings)
        self.build_loops()
        for row in rows:
            if isinstance(row, Bind):
                self._bind(row)
            elif isinstance(row, Word) and row.name == "deck":
                self._deck_off(row)
            elif isinstance(row, Word):
                self.words.append(row)
            elif isinstance(row, Chain):
                self._chain(row)

    def _deck_off(self, row: Word) -> None:
        name, decks = row.args[0], self.state.decks
        if name not in decks:
            near = nearest(name, decks)
            known = f"decks: {', '.join(decks)}" if decks else "no deck plays"
            hint = f"did you mean {near[0]}?" if near else known
            raise ScoreError(f"there is no deck {name!r}", span=row.span, hint=hint)
        self.drop(name, row.when)

    def _chain(self, row: Chain) -> None:
        if not row.scenes:
            self._chain_off(row)
            return
        settings = chain_settings(row, self.scenes)
        at = self.effect(row.when, prepared=bool(settings))
        here = self.state.tempo.cycle_at(self.now)

        def old(deck: str, control: str) -> Lane:
            lane = self.state.deck(deck).lanes.get(control) or Lane.constant(control)
            return Lane.prune(lane, here)

        for deck, control, lane in chain_lanes(row, self.scenes, at, old):
            rows = self._rows(deck, control, lane, lane.text)
            self.bind_lane(deck, control, rows, at, row.when)
            self._check_waiting(deck, control, row.span)
        self.unplan()
        every = Fraction(0) if row.once else sum((n for _, n in row.scenes), Fraction(0))
        plan = tuple(Planned(at + place, rows, every, self.base) for place, rows in settings)
        self.state = replace(self.state, plan=plan)
        self.forecast()
        near = self.state.tempo.cycle_at(self.now + STEP_NOTICE)
        while (step := self.state.next_step) is not None and step <= near:
            self.step(quiet=False)

    def _chain_off(self, row: Chain) -> None:
        """Let the scene of the chain that plays go on."""
        at, said = self.effect(row.when), len(self.messages)
        self.unplan()
        for name, deck in [*self.state.decks.items(), (GLOBALS, self.state.globals)]:
            for control, lane in deck.bound.items():
                if isinstance(lane, ChainLane):
                    stays = lane.standing(at)
                    rows = self._rows(name, control, stays, stays.text)
                    self.bind_lane(name, control, rows, at, row.when)
        found = len(self.messages) > said
        del self.messages[said:]
        what = f"its scene stays, from bar {bars(at)}" if found else "no chain plays"
        self.messages.append(f"chain off · {what}")

    def _new_decks(self, rows: list[Statement]) -> bool:
        chained = [
            bind
            for row in rows
            if isinstance(row, Chain)
            for name, _ in row.scenes
            for bind in find_scene(name, self.scenes, row.span).body
        ]
        said = {r.deck for r in (*rows, *chained) if isinstance(r, Bind)}
        new = said - self.state.decks.keys() - {GLOBALS}
        for name in sorted(new):
            self.state = self.state.with_deck(DeckState(name, base=self.base))
            self.renew.setdefault(name, None)
        return bool(new)

    def _ramp(self, rows: list[Setting]) -> None:
        """`tempo 128 over 4`: the tempo map goes there in steps of a cycle; each step's loops are
        prepared when it is near (`step`)."""
        moves = [(r, r.when if r.when.kind == "over" else r.when.then) for r in rows]
        over = next((m for r, m in moves if r.word in ("tempo", "cps") and m is not None), None)
        begin, state = self.begin, self.state
        assert begin is not None
        if rows and any(r.word in ("tempo", "cps", "beats") for r in rows):
            self.state = state = replace(state, ramp=())
        if over is None or self._silent:
            return
        start, steps = state.tempo.segment_at(begin).bpm, max(1, int(over.cycles))
        rates = _rates(start, state.bpm, steps)
        start = start.limit_denominator(max(_FINEST, state.bpm.denominator))
        tempo, target = state.tempo, state.bpm
        for k, bpm in enumerate(rates):
            tempo = tempo.change(begin + k, bpm, state.beats)
        ramp = tuple((begin + k, bpm) for k, bpm in enumerate(rates))[1:]
        self.state = replace(state, tempo=tempo, bpm=rates[0], ramp=ramp)
        self.messages.append(
            f"tempo {float(start):g} to {float(target):g} in {steps} steps of a bar, "
            f"from bar {bars(begin)}"
        )

    def step(self, quiet: bool = True) -> None:
        """The next step of a ramp of the tempo, or of what a chain brings."""
        state = self.state
        if state.plan and (not state.ramp or state.plan[0].cycle <= state.ramp[0][0]):
            self._planned()
        else:
            self._ramp_step()
        if quiet:
            self.messages.clear()

    def _planned(self) -> None:
        """The next settings of a chain; what they do not change needs no new loop."""
        step, *rest = self.state.plan
        self.unplan()
        if step.every:
            rest.append(replace(step, cycle=step.cycle + step.every))
        plan = tuple(sorted(rest, key=lambda planned: planned.cycle))
        before, self.begin = (self.base, self.begin), step.cycle
        self.base = step.base
        rows = [row for row in step.rows if not self._has(row)]
        for row in rows:
            self.set(row)
        self._ramp([row for row in rows if row.word not in _AT_ONCE])
        self.build_loops()
        self.base, self.begin = before
        self.state = replace(self.state, plan=plan)
        self.forecast()

    def _has(self, row: Setting) -> bool:
        """Whether a deck has this loop or source already."""
        deck = self.state.decks.get(row.deck)
        if deck is None or row.word not in ("loop", "source"):
            return False
        if row.word == "loop":
            return deck.cycles == int(float(str(row.value)))
        return (deck.source or "none", deck.reading) == (row.value or "none", row.reading)

    def _coming(self) -> Iterator[tuple[Fraction, Fraction, Beats]]:
        """(cycle, bpm, beats) of the changes of tempo that the plan will bring."""
        state, plan = self.state, list(self.state.plan)
        bpm, beats = state.ramp[-1][1] if state.ramp else state.bpm, state.beats
        for _ in range(_FORECAST if plan else 0):
            if not plan:
                return
            step = min(plan, key=lambda planned: planned.cycle)
            plan.remove(step)
            if step.every:
                plan.append(replace(step, cycle=step.cycle + step.every))
            before, over = (bpm, beats), None
            for row in step.rows:
                if row.word == "beats":
                    beats = _beats(row)
                elif row.word in ("tempo", "cps"):
                    rate = Fraction(str(row.value))
                    bpm = rate if row.word == "tempo" else rate * 60 * beats
                    over = row.when if row.when.kind == "over" else row.when.then
            if over is not None:
                rates = _rates(before[0], bpm, max(1, int(over.cycles)))
                yield from ((step.cycle + k, rate, beats) for k, rate in enumerate(rates))
            elif before != (bpm, beats):
                yield step.cycle, bpm, beats

    def forecast(self) -> None:
        """Put the tempos of the plan into the tempo map, so that what is to come has its place."""
        tempo = self.state.tempo
        for cycle, bpm, beats in self._coming():
            tempo = tempo.change(cycle, bpm, beats)
        self.state = replace(self.state, tempo=tempo)

    def unplan(self) -> None:
        """Forget what a chain would still bring."""
        here = self.state.tempo.cycle_at(self.now)
        coming = {cycle for cycle, _, _ in self._coming() if cycle > here}
        first, *others = self.state.tempo.segments
        kept = (first, *(s for s in others if s.cycle not in coming))
        self.state = replace(self.state, tempo=TempoMap(kept), plan=())

    def _ramp_step(self) -> None:
        (cycle, bpm), *rest = self.state.ramp
        self.state = replace(self.state, bpm=bpm, ramp=tuple(rest))
        self.begin = cycle
        self.renew.update(dict.fromkeys(self.state.decks))
        self.build_loops()

    def set(self, row: Setting) -> None:
        """Take a setting; loops that it changes are built by `build_loops`."""
        value = row.value
        state = self.state
        if row.word == "tempo":
            self.state = replace(state, bpm=Fraction(str(value)))
        elif row.word == "cps":
            self.state = replace(state, bpm=Fraction(str(value)) * 60 * state.beats)
        elif row.word == "beats":
            self.state = replace(state, beats=_beats(row))
        elif row.word == "quant":
            self.state = replace(state, quant=Fraction(str(value)))
            self.messages.append(f"quant {value}: statements wait for {value} cycles")
        elif row.word == "depth":
            depth = None if value == "auto" else int(float(str(value)))
            self.state = replace(state, depth=depth)
            self.messages.append(f"depth {value}: generations in flight")
        elif row.word == "steps":
            self.state = replace(state, steps=int(float(str(value))))
            self.messages.append(f"steps {value}: solver steps of a generation")
        elif row.word == "ring":
            self.state = replace(state, always=row.value == "always")
            self.messages.append(f"ring {row.value}")
        elif row.word in ("loop", "source"):
            self._set_deck(row)
        elif row.word in ("link", "clock", "nudge"):
            self._set_sync(row)
        else:
            self._set_other(row)
        if row.word in ("tempo", "cps", "beats"):
            for name in state.decks:
                self.renew.setdefault(name, row.span)

    def _set_sync(self, row: Setting) -> None:
        if row.word == "link":
            self.state = replace(self.state, link=row.value == "on")
        elif row.word == "clock":
            self.state = replace(self.state, clock=str(row.value))
        else:
            self.state = replace(self.state, nudge=float(str(row.value)))
        unit = " ms" if row.word == "nudge" else ""
        package = _PACKAGES.get(row.word) if row.value != "off" else None
        lacks = package is not None and find_spec(package) is None
        alone = ", but its package is not installed: bars stay our own" if lacks else ""
        self.messages.append(f"{row.word} {row.value}{unit}{alone}")

    def pin(self, cycle: Fraction, sample: int, bpm: Fraction) -> None:
        """Let `cycle` be heard on output sample `sample`, and go on at `bpm` from there.

        At another tempo all decks get new loops; at the same one their laps begin elsewhere.
        Raises ValueError if that is not ahead.
        """
        state, before = replace(self.state, ramp=()), self.state.bpm
        tempo = state.tempo.pin(cycle, sample, bpm, state.beats, self.now)
        self.state = replace(state, tempo=tempo, bpm=bpm)
        if bpm != before:
            self.begin = cycle
            self.renew.update(dict.fromkeys(state.decks))
            self.build_loops()
            return
        for deck in state.decks.values():
            if deck.loop is None:
                continue
            moved = replace(make_loop(deck, tempo, cycle, deck.loop.epoch), lap=deck.loop.lap)
            self.state = self.state.with_deck(deck.with_loop(moved, self.now))

    def _set_other(self, row: Setting) -> None:
        if row.word == "engine":
            name = str(row.value)
            if self._engine is not None:
                try:
                    name = self._engine(name, self.base)
                except DemonError as error:
                    raise ScoreError(error.message, span=row.span, hint=error.hint) from None
            if name != self.state.engine:
                self.messages.append(f"{row.value} is prepared and takes over at a bar")
            self.state = replace(self.state, engine=name)
            return
        if str(row.value) != "off":
            raise ScoreError(
                f"{row.word} is not supported by this version",
                span=row.span,
                hint=SETTINGS[row.word].help if row.word in SETTINGS else None,
            )

    def _set_deck(self, row: Setting) -> None:
        deck = self.state.decks.get(row.deck) or DeckState(row.deck, base=self.base)
        if row.word == "loop":
            deck = replace(deck, cycles=int(float(str(row.value))))
        else:
            source = None if row.value in (None, "none", "") else str(row.value)
            deck = replace(
                deck, source=source, base=self.base, reading=row.reading, beats_known=None
            )
            self._sourced.add(row.deck)
        self.state = self.state.with_deck(deck)
        self.renew[row.deck] = row.span if row.word == "source" else self.renew.get(row.deck)

    def build_loops(self) -> None:
        """New loops of the decks in `renew`, from cycle `begin` on."""
        if not self.renew or self.begin is None:
            return
        state, begin = self.state, self.begin
        segment = state.tempo.segment_at(begin)
        # During a ramp the map has the tempo of every bar already.
        if not state.ramp and (segment.bpm, segment.beats) != (state.bpm, state.beats):
            if begin == 0:
                tempo = TempoMap.start(state.bpm, state.beats)
            else:
                tempo = state.tempo.change(begin, state.bpm, state.beats)
            self.state = state = replace(state, tempo=tempo)
            self.messages.append(f"tempo {float(state.bpm):g}: from bar {bars(begin)}")
        renew, self.renew = self.renew, {}
        for name, span in renew.items():
            self._build_loop(state.decks[name], span, begin)
        self.forecast()

    def _build_loop(self, deck: DeckState, span: Span | None, begin: Fraction) -> None:
        loop = make_loop(deck, self.state.tempo, begin, self._epoch())
        deck, source = self._read_source(deck, loop, span)
        empty = (0 if self._dry else loop.samples, 2)
        self.audio[loop.file] = source if source is not None else np.zeros(empty, np.float32)
        if source is not None and loop.source_file is not None:
            self.audio[loop.source_file] = source
        self.state = self.state.with_deck(deck.with_loop(loop, self.now))
        self.loops.append(loop)
        what = f"loop of {deck.cycles} cycle{'s' * (deck.cycles != 1)}"
        self.messages.append(
            f"{deck.name}: {what}, {self._info[-1] if source is not None else 'from noise'}"
            f" · from bar {bars(begin)}"
        )

    def _read_source(
        self, deck: DeckState, loop: Loop, span: Span | None
    ) -> tuple[DeckState, Floats | None]:
        """The sound of a deck's source for a loop, and the deck, which knows its tempo then."""
        if deck.source is None:
            return deck, None
        try:
            if self._dry:
                return deck, self._seen_source(self._look(deck.source, deck.base))
            sound = self._decode(deck.source, deck)
            length, known = len(sound.audio), deck.beats_known
            if known is None or known[0] != length or self.rules < 2:
                known = (length, *sound.beats_in(loop, deck.reading))
                deck = replace(deck, beats_known=known)
            fitted, info = sound.fit(loop, known[1:])
        except DemonError as error:
            # The line of the score that names the file is where a performer looks.
            error.span = error.span or span
            raise
        stated = deck.reading or tempo_in_name(sound.name)
        guess = "" if stated else " (guessed: bars 2, bpm 90, half or double behind it says it)"
        self._info.append(f"{info}{guess}, of a file of {sound.read}")
        return deck, fitted

    def _decode(self, source: str, deck: DeckState) -> DecodedSource:
        """The sound of a deck's source; one that is gone blocks only the text that names it."""
        try:
            sound = self._decoded.read(self._look(source, deck.base))
        except DemonError:
            known = self._decoded.get(source, deck.base)
            if known is None or deck.name in self._sourced:
                raise
            self.messages.append(f"{known.name} cannot be read now: what was read of it plays on")
            return known
        self._decoded.add(source, deck.base, sound)
        return sound

    def _named_file(self, name: str) -> Path:
        self._named.add(name)
        if len(self._named) > MOST_FILES:
            raise FileError(
                f"more than {MOST_FILES} sound files in one text",
                hint="use fewer, or divide it between several scores",
            )
        return self._look(name, self.base)

    def _seen_source(self, path: Path) -> Floats:
        if not path.is_file():
            raise FileError(f"there is no file {path}", hint="is it where the set was played?")
        self._info.append(path.name)
        return np.zeros((0, 2), np.float32)

    def _bind(self, row: Bind) -> None:
        at = self.begin if self.begin == 0 else self.effect(row.when)
        lane = row.lane
        if row.restart and lane is not None:
            lane = restarted(lane, at)
        # The same name in another folder is another file.
        key = f"{row.key} {self.base}" if row.files else row.key
        rows = self._rows(row.deck, row.control, lane, key)
        self.bind_lane(row.deck, row.control, rows, at, row.when)
        self._check_waiting(row.deck, row.control, row.span)
        if row.lane is not None and row.control == "prompt":
            self._note_prompt(row.lane)

    def _check_waiting(self, deck: str, control: str, span: Span) -> None:
        if self.state.deck(deck).lanes[control].depth > MOST_WAITING:
            raise ScoreError(
                f"{MOST_WAITING} changes of {control} are waiting already",
                span=span,
                hint="let some of them come first, or panic: it forgets them",
            )

    def _rows(self, deck: str, control: str, lane: Lane | None, key: str) -> tuple[Said, ...]:
        """What texts say of a control once this one says `lane`; None: its default, whatever the
        others say."""
        return () if lane is None else (*self.others(deck, control), Said(self.name, lane, key))

    def others(self, deck: str, control: str) -> tuple[Said, ...]:
        """What the other texts say of a control."""
        said = self.state.deck(deck).said.get(control, ())
        return tuple(row for row in said if row.score != self.name)

    def _note_prompt(self, lane: Lane) -> None:
        here = self.state.tempo.cycle_at(self.now)
        cycles = [here]
        for k in range(_PROMPT_CYCLES):
            cycles += lane.jumps(here + k, here + k + 1)
            # Warnings about a thousand prompts in a cycle help no one.
            if len(cycles) >= _PROMPTS:
                break
        self.prompts += sorted({str(lane.at(c)) for c in cycles[:_PROMPTS]})

    def bind_lane(
        self, name: str, control_name: str, rows: tuple[Said, ...], at: Fraction, when: When
    ) -> None:
        """Let the last row play from cycle `at` on, the default if there is none."""
        lane = rows[-1].lane if rows else None
        deck = self.state.deck(name)
        control = find(control_name)
        if control is None:
            return
        neutral = Lane.constant(control, control.default)
        here = self.state.tempo.cycle_at(self.now)
        old = Lane.prune(deck.lanes.get(control_name, neutral), here)
        new = lane if lane is not None else neutral
        move = when if when.kind in ("over", "xfade") else when.then
        if move is not None and not self._silent:
            join = Lane.xfade if move.kind == "xfade" else Lane.glide
            lane_now = join(old, new, at, move.cycles)
            settled = at + move.cycles
        elif control_name not in deck.lanes and at == 0:
            lane_now, settled = new, at
        else:
            lane_now, settled = Lane.switch(old, new, at), at
        leaving = {k: v for k, v in deck.leaving.items() if k != control_name}
        if lane is None:
            leaving[control_name] = settled
        lanes = {**deck.lanes, control_name: lane_now}
        deck = replace(deck.with_said(control_name, rows), lanes=lanes, leaving=leaving)
        self.state = self.state.with_deck(deck)
        self._say(name, control_name, lane, at, when)
        if control_name in ("denoise", "shift") and at <= here and new.kind == "number":
            self._move_in_flight(name, control_name, float(new.at(at)))

    def _move_in_flight(self, name: str, control_name: str, value: float) -> None:
        deck = self.state.deck(name)
        serial = 1 + max((n for n, _ in deck.moves.values()), default=0)
        moves = {**deck.moves, control_name: (serial, value)}
        self.state = self.state.with_deck(replace(deck, moves=moves))

    def _say(
        self, deck: str, control_name: str, lane: Lane | None, at: Fraction, when: When
    ) -> None:
        control = find(control_name)
        assert control is not None
        label = control_name if deck == "main" else label_of(deck, control_name)
        text = " ".join(lane.text.split()) if lane is not None else ""
        what = f"{label} = {text}" if lane is not None else f"{label} reverts"
        move = when if when.kind in ("over", "xfade") else when.then
        if move is not None and not self._silent:
            from_to = f"over {float(move.cycles):g} cycles from bar {bars(at)}"
        elif at <= self.state.tempo.cycle_at(self.now):
            from_to = "now"
        else:
            from_to = f"from bar {bars(at)}"
        self.messages.append(f"{what} · {from_to} · class {control.cls}")

    def drop(self, name: str, when: When = When()) -> None:  # noqa: B008 - frozen
        """Let a deck fade out, at the next quantum."""
        at = self.effect(when)
        self.state = self.state.without_deck(name, self.state.tempo.sample_at(at), self.now)
        self.messages.append(f"{name}: the deck ends at bar {bars(at)}")

    def restore(self, wanted: State, when: When) -> None:
        """Undo, redo and recall: all that is bound in `wanted`, and its loop, from `when` on."""
        current = self.state
        for name, deck in wanted.decks.items():
            now = current.decks.get(name) or DeckState(name, cycles=0)
            if now.geometry != deck.geometry:
                changed = replace(
                    now,
                    cycles=deck.cycles,
                    source=deck.source,
                    base=deck.base,
                    reading=deck.reading,
                    beats_known=deck.beats_known,
                )
                self.state = self.state.with_deck(changed)
                self.renew[name] = None
        if (wanted.bpm, wanted.beats) != (current.bpm, current.beats) or current.ramp:
            self.state = replace(self.state, bpm=wanted.bpm, beats=wanted.beats, ramp=())
            self.renew.update(dict.fromkeys(current.decks))
        here = self.state.tempo.cycle_at(self.now)
        self.unplan()
        plan = sorted((p for q in wanted.plan if (p := _ahead(q, here))), key=lambda p: p.cycle)
        self.state = replace(self.state, plan=tuple(plan))
        self.forecast()
        if self.renew:
            self.begin = self.effect(when, prepared=True)
        self.build_loops()
        for name in sorted(current.decks.keys() - wanted.decks.keys()):
            self.drop(name)
        for name, now in [*self.state.decks.items(), (GLOBALS, self.state.globals)]:
            before = wanted.deck(name).said
            for control in sorted(before.keys() | now.said.keys()):
                rows, said = before.get(control, ()), now.said.get(control, ())
                if rows[-1:] != said[-1:]:
                    self.bind_lane(name, control, rows, self.effect(when), when)


def _beats(row: Setting) -> Beats:
    beats = Fraction(str(row.value))
    return beats.numerator if beats.denominator == 1 else beats
