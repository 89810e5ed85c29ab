"""One edit: a text in, the next State out, with the sound of its new loops.

Nothing here has an effect. An `Edit` is built completely, sources are read and fitted, and only
then does the session write the journal and assign the state.

Threads: an Edit belongs to the call that builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from demon_live.controls import DECK_SETTINGS, IN, Control, find
from demon_live.core import Floats, Loop, Sound
from demon_live.errors import DemonError, FileError, ScoreError, Span, UsageError, nearest
from demon_live.lang import Bind, Chain, Lane, Setting, Statement, When, Word
from demon_live.lang.chain import (
    ChainLane,
    chain_lanes,
    chain_settings,
    expanded,
    find_scene,
    restarted,
)
from demon_live.lang.destinations import Destination, outgoing, read_destination
from demon_live.lang.prompts import texts_of
from demon_live.session.assets import DecodedSources, SoundLane, sound_at, with_sounds
from demon_live.session.capture import listening, needs_input
from demon_live.session.check import ducked_by, values_of
from demon_live.session.loops import LoopBuilder
from demon_live.session.plan import forecast, in_force, next_time, ramped, unplanned
from demon_live.session.settings import prepares, with_setting
from demon_live.session.state import (
    GLOBALS,
    STEP_NOTICE,
    Capture,
    DeckState,
    Planned,
    Said,
    State,
    Take,
    effect_cycle,
    label_of,
    make_loop,
)
from demon_live.session.tempo import TempoMap, bars
from demon_live.sets.journal import RULES

#: Sound files that the patterns of one text may name: a minute of each has 23 MB.
MOST_FILES = 64
#: Changes of one control that may lie ahead at different moments.
MOST_WAITING = 64


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
        input: there is one, or what is taken of it comes from a set.
        engine: finds another engine, named relative to a base; None accepts any (a replay).
        dry: nothing will sound: sources are looked for, not read.
        rules: of the set that is replayed (`sets.journal.RULES`).
        due: the cycle that statements without a time are meant for; None = the next quantum.
        outside: destinations beyond this machine that a score may name; None: any (a replay).
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
        input: bool = True,
        engine: Callable[[str, str], str] | None = None,
        dry: bool = False,
        rules: int = RULES,
        due: Fraction | None = None,
        outside: Collection[str] | None = None,
    ) -> None:
        self.state = state
        self._outside = outside
        self.due = due
        self.now = now
        self.name = name
        self.base = base
        self.rules = rules
        self._look, self._engine, self._dry = look, engine, dry
        self._input = input
        self.scenes = dict(state.scenes)
        self.messages: list[str] = []
        self.words: list[Word] = []
        self._builder = LoopBuilder(look, decoded, epoch, dry, rules, self.messages.append)
        self.loops, self.audio = self._builder.loops, self._builder.audio
        self.prompts: list[str] = []
        self.ducked: list[str] = []
        #: Decks that need a new loop, and from which cycle on.
        self.renew: dict[str, Span | None] = {}
        self._named: set[str] = set()
        self.begin: Fraction | None = None
        # The very first text: there is nothing to move from, so everything simply begins.
        self._silent = not state.decks and now == 0 and not due

    def effect(self, when: When, prepared: bool = False) -> Fraction:
        """The cycle at which a statement takes effect."""
        if self._silent:
            return Fraction(0)
        prepared = prepared or self.begin is not None
        return effect_cycle(self.state, when, self.now, self.due, prepared)

    def build(self, statements: Iterable[Statement]) -> None:
        """Take all statements of one text, in order."""
        named = [with_sounds(s, self._named_file, self.base, self._dry) for s in statements]
        rows = expanded(named, self.scenes)
        self._need_input(rows)
        if self._silent:
            self.begin = Fraction(0)
        settings = [s for s in rows if isinstance(s, Setting) and prepares(s)]
        for row in rows:
            if isinstance(row, Setting):
                self.set(row)
        new = self._new_decks(rows)
        if settings or new or self.renew:
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
        self._need_input([setting for _, found in settings for setting in found])
        at = self.effect(row.when, prepared=bool(settings))
        here = self.state.tempo.cycle_at(self.now)

        def old(deck: str, control: str) -> Lane:
            there = self.state.deck(deck)
            spec = control if there.to is None else outgoing(control, there.to.kind)
            lane = there.lanes.get(control) or Lane.constant(spec)
            return Lane.prune(lane, here)

        for deck, control, lane in chain_lanes(row, self.scenes, at, old):
            rows = self._rows(deck, control, lane, lane.text)
            self.bind_lane(deck, control, rows, at, row.when)
            self._check_waiting(deck, control, row.span)
        self.state = unplanned(self.state, self.now)
        every = Fraction(0) if row.once else sum((n for _, n in row.scenes), Fraction(0))
        plan = tuple(Planned(at + place, rows, every, self.base) for place, rows in settings)
        self.state = forecast(replace(self.state, plan=plan))
        near = self.state.tempo.cycle_at(self.now + STEP_NOTICE)
        while (step := self.state.next_step) is not None and step <= near:
            self.step(quiet=False)

    def _chain_off(self, row: Chain) -> None:
        """Let the scene of the chain that plays go on."""
        at, said = self.effect(row.when), len(self.messages)
        self.state = unplanned(self.state, self.now)
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
        assert self.begin is not None
        if any(row.word in ("tempo", "cps", "beats") for row in rows):
            self.state = replace(self.state, ramp=())
        if not self._silent:
            self.state, said = ramped(self.state, rows, self.begin)
            self.messages += [said] if said else []

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
        self.state = unplanned(self.state, self.now)
        if step.every:
            rest.append(replace(step, cycle=step.cycle + step.every))
        plan = tuple(sorted(rest, key=lambda planned: planned.cycle))
        before, self.begin = (self.base, self.begin), step.cycle
        self.base = step.base
        kept = [r for r in step.rows if r.word in DECK_SETTINGS and in_force(self.state, r)]
        rows = [row for row in step.rows if row not in kept]
        for row in rows:
            self.set(row)
        self._ramp([row for row in rows if prepares(row)])
        self.build_loops()
        self.base, self.begin = before
        self.state = forecast(replace(self.state, plan=plan))

    def _ramp_step(self) -> None:
        (cycle, bpm), *rest = self.state.ramp
        self.state = replace(self.state, bpm=bpm, ramp=tuple(rest))
        self.begin = cycle
        self.renew.update(dict.fromkeys(self.state.decks))
        self.build_loops()

    def set(self, row: Setting) -> None:
        """Take a setting; loops that it changes are built by `build_loops`."""
        if row.word in DECK_SETTINGS:
            self._set_deck(row)
            return
        if row.word == "engine":
            self._set_engine(row)
            return
        decks = self.state.decks
        self.state, said = with_setting(self.state, row)
        self.messages += [said] if said else []
        if row.word in ("tempo", "cps", "beats"):
            for name in decks:
                self.renew.setdefault(name, row.span)

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

    def _set_engine(self, row: Setting) -> None:
        name = str(row.value)
        if self._engine is not None:
            try:
                name = self._engine(name, self.base)
            except DemonError as error:
                raise ScoreError(error.message, span=row.span, hint=error.hint) from None
        if name != self.state.engine:
            self.messages.append(f"{row.value} is prepared and takes over at a bar")
        self.state = replace(self.state, engine=name)

    def _set_deck(self, row: Setting) -> None:
        deck = self.state.decks.get(row.deck) or DeckState(row.deck, base=self.base)
        if row.word in ("hold", "overdub") or row.value == IN:
            self._listen(deck, row)
            return
        if row.word == "out":
            self._send_out(deck, row)
            return
        if row.word == "to" and row.value is not None:
            self._send(deck, row)
            return
        if row.word == "to":
            deck = replace(deck, to=None)
        elif row.word == "loop":
            deck = replace(deck, cycles=int(float(str(row.value))))
        else:
            source = None if row.value in (None, "none", "") else str(row.value)
            deck = replace(
                deck, source=source, base=self.base, reading=row.reading, beats_known=None
            )
            deck = replace(deck, capture=None, take=None)
            self._builder.sourced.add(row.deck)
        self.state = self.state.with_deck(deck)
        self.renew[row.deck] = row.span if row.word == "source" else self.renew.get(row.deck)

    def _send(self, deck: DeckState, row: Setting) -> None:
        """Let a deck go elsewhere instead of to the loudspeaker."""
        try:
            to = read_destination(str(row.value), row.reading)
        except UsageError as error:
            raise ScoreError(error.message, span=row.span, hint=error.hint) from None
        if self._outside is not None and to.far and to.place not in self._outside:
            raise ScoreError(
                f"{to.place} lies beyond this machine: a score alone does not send there",
                span=row.span,
                hint=f"name it at the start: demon live --osc-to {to.place}",
            )
        self._go_to(deck, to, row.when)

    def _go_to(self, deck: DeckState, to: Destination, when: When) -> None:
        at = self.state.tempo.sample_at(self.effect(when))
        self.renew.pop(deck.name, None)
        self.state = self.state.with_deck(deck).with_destination(deck.name, to, at, self.now)
        self.messages.append(f"{deck.name}: goes to {to}, ahead of the sound")

    def _send_out(self, deck: DeckState, row: Setting) -> None:
        """Take the channels that a deck goes to."""
        out = int(float(str(row.value)))
        if out % 2 == 0:
            raise ScoreError(
                f"channels go in pairs: {out} is the second of one",
                span=row.span,
                hint=f"write out {out - 1}, or out {out + 1}",
            )
        self.messages.append(f"{deck.name} goes to channels {out} and {out + 1} of the device")
        self.state = self.state.with_deck(replace(deck, out=out))
        if deck.loop is None:
            self.renew.setdefault(deck.name, row.span)

    def _listen(self, deck: DeckState, row: Setting) -> None:
        """Take a setting of the input."""
        at = self.begin if self.begin is not None else self.effect(row.when)
        new, said = listening(deck, row, at)
        self.messages.append(said)
        self.state = self.state.with_deck(new)
        if deck.name not in self.state.decks or deck.loop is None or new.notes != deck.notes:
            self.renew.setdefault(deck.name, row.span)

    def _need_input(self, rows: Iterable[Statement]) -> None:
        span = next((row.span for row in rows if needs_input(row)), None)
        if span is not None and not self._input:
            raise ScoreError(
                "there is no input",
                span=span,
                hint="start with --input NAME or file:PATH; demon devices lists them",
            )

    def take(self, name: str, take: Take, cycle: Fraction) -> None:
        """Let a loop of the input be what a deck is made of, or sounds like, from `cycle` on."""
        self.begin = cycle
        self.state = self.state.with_deck(replace(self.state.decks[name], take=take))
        if not take.timbre:
            self.renew[name] = None
        self.build_loops()
        row = self.state.decks[name].said.get("timbre", ())[-1:]
        if row and isinstance(lane := row[0].lane, SoundLane) and lane.listens:
            heard = replace(lane, files={**lane.files, IN: self._sound_of(take)})
            rows = (*self.others(name, "timbre"), row[0]._replace(lane=heard))
            self.bind_lane(name, "timbre", rows, cycle, When())

    def source_of(self, deck: DeckState, loop: Loop) -> Floats | None:
        """What a deck is made of, fitted to a loop: float32 [samples, 2]. Raises DemonError."""
        return self._builder.read_source(deck, loop, None)[1]

    def _sound_of(self, take: Take) -> Sound:
        return sound_at(self._look(take.name, ""), take.name, self._dry)

    def build_loops(self) -> None:
        """New loops of the decks in `renew`, from cycle `begin` on."""
        state, begin = self.state, self.begin
        timed = self.renew or any(deck.to is not None for deck in state.decks.values())
        if not timed or begin is None:
            return
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
        sounding = {n: span for n, span in renew.items() if state.decks[n].to is None}
        for name, span in sounding.items():
            self.state = self._builder.build(self.state, name, span, begin, self.now)
        self.state = forecast(self.state)

    def _named_file(self, name: str) -> Path:
        self._named.add(name)
        if len(self._named) > MOST_FILES:
            raise FileError(
                f"more than {MOST_FILES} sound files in one text",
                hint="use fewer, or divide it between several scores",
            )
        return self._look(name, self.base)

    def _bind(self, row: Bind) -> None:
        at = self.begin if self.begin == 0 else self.effect(row.when)
        lane = row.lane
        if isinstance(lane, SoundLane) and lane.listens:
            lane = self._heard(row, lane, at)
        if row.restart and lane is not None:
            lane = restarted(lane, at)
        # The same name in another folder is another file.
        key = f"{row.key} {self.base}" if row.files else row.key
        rows = self._rows(row.deck, row.control, lane, key)
        self.bind_lane(row.deck, row.control, rows, at, row.when)
        self._check_waiting(row.deck, row.control, row.span)
        if row.lane is not None and row.control == "prompt":
            words = (texts_of(value) for value in values_of(row.lane, self._here))
            self.prompts += sorted({word for found in words for word in found})
        elif row.lane is not None and row.control == "duck":
            self.ducked += ducked_by(row.lane, self._here)

    def _heard(self, row: Bind, lane: SoundLane, at: Fraction) -> SoundLane:
        """A timbre that is played in: that of the newest take, or of the next loop."""
        deck = self.state.decks[row.deck]
        if deck.take is not None:
            return replace(lane, files={**lane.files, IN: self._sound_of(deck.take)})
        if deck.capture is None:
            self.state = self.state.with_deck(replace(deck, capture=Capture(at, timbre=True)))
        return lane

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

    @property
    def _here(self) -> Fraction:
        return self.state.tempo.cycle_at(self.now)

    def bind_lane(
        self, name: str, control_name: str, rows: tuple[Said, ...], at: Fraction, when: When
    ) -> None:
        """Let the last row play from cycle `at` on, the default if there is none."""
        lane = rows[-1].lane if rows else None
        deck = self.state.deck(name)
        known = lane or deck.lanes.get(control_name)
        control = known.spec if known is not None else find(control_name)
        if control is None:
            return
        neutral = Lane.constant(control)
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
        self._say(name, control, lane, at, when)
        if (
            deck.to is None
            and control_name in ("denoise", "shift")
            and at <= here
            and new.kind == "number"
        ):
            self.state = self.state.with_deck(deck.moved(control_name, float(new.at(at))))

    def _say(
        self, deck: str, control: Control, lane: Lane | None, at: Fraction, when: When
    ) -> None:
        label = control.name if deck == "main" else label_of(deck, control.name)
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
                    now.formed_as(deck),
                    # What was taken since then is part of what asked for it.
                    take=now.take if now.capture == deck.capture else deck.take,
                    to=deck.to if deck.to is None else now.to,
                )
                self.state = self.state.with_deck(changed)
                if deck.to is not None:
                    self._go_to(changed, deck.to, when)
                elif now.loop is None or now.material != changed.material:
                    self.renew[name] = None
        if (wanted.bpm, wanted.beats) != (current.bpm, current.beats) or current.ramp:
            self.state = replace(self.state, bpm=wanted.bpm, beats=wanted.beats, ramp=())
            self.renew.update(dict.fromkeys(current.decks))
        here = self.state.tempo.cycle_at(self.now)
        self.state = unplanned(self.state, self.now)
        plan = sorted((p for q in wanted.plan if (p := next_time(q, here))), key=lambda p: p.cycle)
        self.state = forecast(replace(self.state, plan=tuple(plan)))
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
