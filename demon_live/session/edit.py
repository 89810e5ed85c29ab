"""One edit: a text in, the next State out, with the sound of its new loops.

Nothing here has an effect. An `Edit` is built completely, sources are read and fitted, and only
then does the session write the journal and assign the state.

Threads: an Edit belongs to the call that builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from demon_live.audio.files import fit_loop, load_source
from demon_live.controls import SETTINGS, find
from demon_live.core import RATES, Floats, Loop
from demon_live.errors import DemonError, FileError, ScoreError, Span
from demon_live.lang import (
    Bind,
    Chain,
    Lane,
    Program,
    Setting,
    Statement,
    When,
    Word,
)
from demon_live.lang.chain import ChainLane, chain_lanes, expanded, find_scene
from demon_live.lang.lane import TransitionLane
from demon_live.session.assets import DecodedSource, DecodedSources, with_sounds
from demon_live.session.state import GLOBALS, DeckState, State, make_loop
from demon_live.session.tempo import TempoMap

#: Settings that prepare no loop.
_AT_ONCE = ("quant", "link", "clock", "nudge")
#: Of a new prompt pattern the words of so many cycles are looked at, and of so many changes.
_PROMPT_CYCLES, _PROMPTS = 16, 64
#: A loop needs this long to be prepared (source encoded, ring primed) before it plays, in samples.
NOTICE = 3 * RATES.sample_rate // 2
#: Sound files that the patterns of one text may name: a minute of each has 23 MB.
MOST_FILES = 64
#: Changes of a control that may be under way, or wait for their bar, at once.
MOST_WAITING = 200
#: Denominator of the tempo that a ramp begins with.
_FINEST = 10**30
#: A step of a ramp is prepared this long before it begins, in samples.
STEP_NOTICE = NOTICE + RATES.sample_rate // 2


def next_multiple(cycle: Fraction, n: Fraction) -> Fraction:
    """The first multiple of n at or after `cycle`."""
    return -(-cycle // n) * n


def _transitions(lane: Lane) -> int:
    """How many changes a lane is made of that are not over."""
    count = 0
    while isinstance(lane, TransitionLane):
        lane, count = lane.old, count + 1
    return count


def bars(cycle: Fraction) -> str:
    """A cycle as it is shown: bars are cycles, so that `at 8` is bar 8."""
    return f"{int(cycle)}" if cycle.denominator == 1 else f"{float(cycle):.2f}"


class Edit:
    """Collects what the statements of one text do to a state. Raises DemonError, changing nothing.

    Args:
        state: what plays.
        now: output sample of the decision.
        base: the folder that file names are relative to; "" at the prompt.
        look: finds the file of a name, relative to a base.
        decoded: sources that were read before.
        epoch: gives the number of the next loop.
        engine: the name of the one that plays; "" accepts any (a replay).
        dry: nothing will sound: sources are looked for, not read.
    """

    def __init__(
        self,
        state: State,
        now: int,
        *,
        base: str,
        look: Callable[[str, str], Path],
        decoded: DecodedSources,
        epoch: Callable[[], int],
        engine: str = "",
        dry: bool = False,
    ) -> None:
        self.state = state
        self.now = now
        self.base = base
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
        self._renew: dict[str, Span | None] = {}
        self._sourced: set[str] = set()
        self._info: list[str] = []
        self._named: set[str] = set()
        self._begin: Fraction | None = None
        # The very first text: there is nothing to move from, so everything simply begins.
        self._silent = not state.decks and now == 0

    def effect(self, when: When, prepared: bool = False) -> Fraction:
        """The cycle at which a statement takes effect."""
        if self._silent:
            return Fraction(0)
        tempo = self.state.tempo
        here = tempo.cycle_at(self.now)
        prepared = prepared or self._begin is not None
        earliest = max(tempo.cycle_at(self.now + NOTICE), here) if prepared else here
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

    def build(self, statements: Iterable[Statement]) -> None:
        """Take all statements of one text, in order."""
        named = [with_sounds(s, self._named_file, self.base, self._dry) for s in statements]
        rows = expanded(named, self.scenes)
        if self._silent:
            self._begin = Fraction(0)
        settings = [s for s in rows if isinstance(s, Setting) and s.word not in _AT_ONCE]
        for row in rows:
            if isinstance(row, Setting):
                self._set(row)
        new = self._new_decks(rows)
        if settings or new:
            when = settings[0].when if settings else When("quant", Fraction(0))
            self._begin = self.effect(when, prepared=True)
            self._ramp(settings)
        self._build_loops()
        for row in rows:
            if isinstance(row, Bind):
                self._bind(row)
            elif isinstance(row, Word):
                self.words.append(row)
            elif isinstance(row, Chain):
                self._chain(row)

    def _chain(self, row: Chain) -> None:
        at, here = self.effect(row.when), self.state.tempo.cycle_at(self.now)

        def old(deck: str, control: str) -> Lane:
            lane = self.state.deck(deck).lanes.get(control) or Lane.constant(control)
            return Lane.prune(lane, here)

        for deck, control, lane in chain_lanes(row, self.scenes, at, old):
            self._bind_lane(deck, control, lane, at, row.when)

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
            self._renew.setdefault(name, None)
        return bool(new)

    def _ramp(self, rows: list[Setting]) -> None:
        """`tempo 128 over 4`: the tempo map goes there in steps of a cycle; each step's loops are
        prepared when it is near (`step`)."""
        moves = [(r, r.when if r.when.kind == "over" else r.when.then) for r in rows]
        over = next((m for r, m in moves if r.word in ("tempo", "cps") and m is not None), None)
        begin, state = self._begin, self.state
        assert begin is not None
        if rows and any(r.word in ("tempo", "cps", "beats") for r in rows):
            self.state = state = replace(state, ramp=())
        if over is None or self._silent:
            return
        start, steps = state.tempo.segment_at(begin).bpm, max(1, int(over.cycles))
        # Ramps that interrupt each other would make ever longer fractions.
        start = start.limit_denominator(max(_FINEST, state.bpm.denominator))
        rates = [start + (state.bpm - start) * (k + 1) / steps for k in range(steps)]
        tempo, target = state.tempo, state.bpm
        for k, bpm in enumerate(rates):
            tempo = tempo.change(begin + k, bpm, state.beats)
        ramp = tuple((begin + k, bpm) for k, bpm in enumerate(rates))[1:]
        self.state = replace(state, tempo=tempo, bpm=rates[0], ramp=ramp)
        self.messages.append(
            f"tempo {float(start):g} to {float(target):g} in {steps} steps of a bar, "
            f"from bar {bars(begin)}"
        )

    def step(self) -> None:
        """The next step of a ramp of the tempo: every deck gets its loop."""
        (cycle, bpm), *rest = self.state.ramp
        self.state = replace(self.state, bpm=bpm, ramp=tuple(rest))
        self._begin = cycle
        self._renew.update(dict.fromkeys(self.state.decks))
        self._build_loops()
        self.messages.clear()

    def _set(self, row: Setting) -> None:
        value = row.value
        state = self.state
        if row.word == "tempo":
            self.state = replace(state, bpm=Fraction(str(value)))
        elif row.word == "cps":
            self.state = replace(state, bpm=Fraction(str(value)) * 60 * state.beats)
        elif row.word == "beats":
            self.state = replace(state, beats=int(float(str(value))))
        elif row.word == "quant":
            self.state = replace(state, quant=Fraction(str(value)))
            self.messages.append(f"quant {value}: statements wait for {value} cycles")
        elif row.word == "depth":
            self.state = replace(state, depth=int(float(str(value))))
            self.messages.append(f"depth {value}: generations in flight")
        elif row.word == "steps":
            self.state = replace(state, steps=int(float(str(value))))
            self.messages.append(f"steps {value}: solver steps of a generation")
        elif row.word in ("loop", "source"):
            self._set_deck(row)
        elif row.word in ("link", "clock", "nudge"):
            self._set_sync(row)
        else:
            self._refuse(row)
        if row.word in ("tempo", "cps", "beats"):
            for name in state.decks:
                self._renew.setdefault(name, row.span)

    def _set_sync(self, row: Setting) -> None:
        if row.word == "link":
            self.state = replace(self.state, link=row.value == "on")
        elif row.word == "clock":
            self.state = replace(self.state, clock=str(row.value))
        else:
            self.state = replace(self.state, nudge=float(str(row.value)))
        unit = " ms" if row.word == "nudge" else ""
        self.messages.append(f"{row.word} {row.value}{unit}")

    def pin(self, cycle: Fraction, sample: int, bpm: Fraction) -> None:
        """Let `cycle` be heard on output sample `sample`, and go on at `bpm` from there.

        At another tempo all decks get new loops; at the same one their laps begin elsewhere.
        Raises ValueError if that is not ahead.
        """
        state, before = replace(self.state, ramp=()), self.state.bpm
        tempo = state.tempo.pin(cycle, sample, bpm, state.beats, self.now)
        self.state = replace(state, tempo=tempo, bpm=bpm)
        if bpm != before:
            self._begin = cycle
            self._renew.update(dict.fromkeys(state.decks))
            self._build_loops()
            return
        for deck in state.decks.values():
            if deck.loop is None:
                continue
            moved = replace(make_loop(deck, tempo, cycle, deck.loop.epoch), lap=deck.loop.lap)
            self.state = self.state.with_deck(deck.with_loop(moved, self.now))

    def _refuse(self, row: Setting) -> None:
        if row.word == "engine":
            if not self._engine or str(row.value) in (self._engine, ""):
                return
            raise ScoreError(
                "the engine is chosen when the instrument starts",
                span=row.span,
                hint=f"leave, and start again with: demon live --engine {row.value}",
            )
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
            deck = replace(deck, source=source, base=self.base)
            self._sourced.add(row.deck)
        self.state = self.state.with_deck(deck)
        self._renew[row.deck] = row.span if row.word == "source" else self._renew.get(row.deck)

    def _build_loops(self) -> None:
        if not self._renew or self._begin is None:
            return
        state, begin = self.state, self._begin
        segment = state.tempo.segment_at(begin)
        # During a ramp the map has the tempo of every bar already.
        if not state.ramp and (segment.bpm, segment.beats) != (state.bpm, state.beats):
            if begin == 0:
                tempo = TempoMap.start(state.bpm, state.beats)
            else:
                tempo = state.tempo.change(begin, state.bpm, state.beats)
            self.state = state = replace(state, tempo=tempo)
            self.messages.append(f"tempo {float(state.bpm):g}: from bar {bars(begin)}")
        for name, span in self._renew.items():
            self._build_loop(state.decks[name], span, begin)

    def _build_loop(self, deck: DeckState, span: Span | None, begin: Fraction) -> None:
        loop = make_loop(deck, self.state.tempo, begin, self._epoch())
        source = self._read_source(deck, loop, span)
        empty = (0 if self._dry else loop.samples, 2)
        self.audio[loop.file] = source if source is not None else np.zeros(empty, np.float32)
        if source is not None and loop.source_file is not None:
            self.audio[loop.source_file] = source
        self.state = self.state.with_deck(deck.with_loop(loop, self.now))
        self.loops.append(loop)
        what = f"loop of {deck.cycles} cycles"
        self.messages.append(
            f"{deck.name}: {what}, {self._info[-1] if source is not None else 'from noise'}"
            f" · from bar {bars(begin)}"
        )

    def _read_source(self, deck: DeckState, loop: Loop, span: Span | None) -> Floats | None:
        if deck.source is None:
            return None
        try:
            if self._dry:
                return self._seen_source(self._look(deck.source, deck.base))
            sound = self._decode(deck.source, deck)
            fitted, info = fit_loop(
                sound.audio,
                lap_samples=loop.samples,
                cycles=loop.cycles,
                beats=loop.beats,
                bpm=loop.bpm,
                name=sound.name,
            )
        except DemonError as error:
            # The line of the score that names the file is where a performer looks.
            error.span = error.span or span
            raise
        self._info.append(f"{info}, {sound.read}" if sound.read else info)
        return fitted

    def _decode(self, source: str, deck: DeckState) -> DecodedSource:
        """The sound of a deck's source; one that is gone blocks only the text that names it."""
        try:
            path = self._look(source, deck.base)
            audio, read = load_source(path)
        except DemonError:
            known = self._decoded.get(source, deck.base)
            if known is None or deck.name in self._sourced:
                raise
            self.messages.append(f"{known.name} cannot be read now: what was read of it plays on")
            return known
        sound = DecodedSource(path.name, audio, read)
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
        at = self._begin if self._begin == 0 else self.effect(row.when)
        self._bind_lane(row.deck, row.control, row.lane, at, row.when)
        if row.lane is not None and row.control == "prompt":
            self._note_prompt(row.lane)

    def _note_prompt(self, lane: Lane) -> None:
        here = self.state.tempo.cycle_at(self.now)
        cycles = [here]
        for k in range(_PROMPT_CYCLES):
            cycles += lane.jumps(here + k, here + k + 1)
            # Warnings about a thousand prompts in a cycle help no one.
            if len(cycles) >= _PROMPTS:
                break
        self.prompts += sorted({str(lane.at(c)) for c in cycles[:_PROMPTS]})

    def _bind_lane(
        self, name: str, control_name: str, lane: Lane | None, at: Fraction, when: When
    ) -> None:
        deck = self.state.deck(name)
        control = find(control_name)
        if control is None:
            return
        neutral = Lane.constant(control, control.default)
        here = self.state.tempo.cycle_at(self.now)
        old = Lane.prune(deck.lanes.get(control_name, neutral), here)
        if _transitions(old) >= MOST_WAITING:
            raise ScoreError(
                f"{MOST_WAITING} changes of {control_name} are under way or wait",
                hint="let them come first, or panic: it forgets them",
            )
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
        bound = {k: v for k, v in deck.bound.items() if k != control_name}
        leaving = {k: v for k, v in deck.leaving.items() if k != control_name}
        if lane is None:
            leaving[control_name] = settled
        else:
            bound[control_name] = lane
        lanes = {**deck.lanes, control_name: lane_now}
        self.state = self.state.with_deck(replace(deck, lanes=lanes, bound=bound, leaving=leaving))
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
        label = control_name if deck in ("main", GLOBALS) else f"{deck}.{control_name}"
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

    def release(self, old: Program | None, new: Program | None) -> None:
        """Take back what a file no longer says beyond single bindings: chains, and its decks."""
        spoken = {c.scenes for c in new.chains} if new else set()
        over = [c for c in old.chains if c.scenes not in spoken] if old else []
        bodies = [self.scenes[name].body for chain in over for name, _ in chain.scenes]
        for bind in (row for body in bodies for row in body if isinstance(row, Bind)):
            known = {GLOBALS: self.state.globals, **self.state.decks}
            deck = known.get(bind.deck)
            if deck is not None and isinstance(deck.bound.get(bind.control), ChainLane):
                self._bind_lane(bind.deck, bind.control, None, self.effect(bind.when), bind.when)
        for name in sorted(_decks_of(old) - _decks_of(new)):
            deck = self.state.decks.get(name)
            if deck is not None and not deck.bound:
                self._drop(name)

    def _drop(self, name: str) -> None:
        at = self.effect(When())
        self.state = self.state.without_deck(name, self.state.tempo.sample_at(at), self.now)
        self.messages.append(f"{name}: the deck ends at bar {bars(at)}")

    def restore(self, wanted: State, when: When) -> None:
        """Undo, redo and recall: all that is bound in `wanted`, and its loop, from `when` on."""
        current = self.state
        for name, deck in wanted.decks.items():
            now = current.decks.get(name) or DeckState(name, cycles=0)
            if (now.cycles, now.source) != (deck.cycles, deck.source):
                changed = replace(now, cycles=deck.cycles, source=deck.source, base=deck.base)
                self.state = self.state.with_deck(changed)
                self._renew[name] = None
        if (wanted.bpm, wanted.beats) != (current.bpm, current.beats) or current.ramp:
            self.state = replace(self.state, bpm=wanted.bpm, beats=wanted.beats, ramp=())
            self._renew.update(dict.fromkeys(current.decks))
        if self._renew:
            self._begin = self.effect(when, prepared=True)
        self._build_loops()
        for name in sorted(current.decks.keys() - wanted.decks.keys()):
            self._drop(name)
        for name, now in [*self.state.decks.items(), (GLOBALS, self.state.globals)]:
            before = wanted.deck(name).bound
            for control in sorted(before.keys() | now.bound.keys()):
                if before.get(control) is not now.bound.get(control):
                    lane = before.get(control)
                    self._bind_lane(name, control, lane, self.effect(when), when)


def _decks_of(program: Program | None) -> set[str]:
    """The decks that a text names."""
    rows = program.statements if program else ()
    bound = {row.deck for row in rows if isinstance(row, Bind)}
    staged = {r.deck for r in rows if isinstance(r, Setting) and r.word in ("loop", "source")}
    return (bound | staged) - {GLOBALS}
