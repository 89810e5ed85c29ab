"""Dry run and seek: a set without its sound, and the way to a bar in its middle.

Dry run: the state after each cause of a set, within milliseconds. The session is the very one that
played; only its output is null, and sources are looked for, not read. What is shown, checked and
turned into scores comes from here.

Seek: fast-forward with a null model, then real pre-roll. Everything but the sound is bookkeeping
that does not depend on what is heard: which generation is admitted at which tick, its seed, when it
is placed. So up to the pre-roll the instrument plays with a null model: the same turns, but
velocities and decoded windows are zeros, and nothing is mixed. The pre-roll is real and as long as
sound remembers: the generations in flight, two laps of the longest loop, three seconds of filters
and limiter; with `feedback`, an echo or a room back to before it began; with a loop that another
one is to follow, back to before that was said. From there on each bit is that of the whole set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from demon_live.audio.mixer import BLOCK
from demon_live.core import RATES
from demon_live.errors import DemonError
from demon_live.paths import shipped
from demon_live.runtime.offline import Offline
from demon_live.session.assets import Assets, Find, find_source
from demon_live.session.output import NullOutput
from demon_live.session.session import Session
from demon_live.session.state import State
from demon_live.session.status import Outcome
from demon_live.sets.journal import Recording, SetEvent
from demon_live.sets.session_log import Interrupted
from demon_live.sets.set_files import KIND, causes, folder_of

log = logging.getLogger(__name__)

#: Samples that filters and limiter need to forget.
_FORGET = 3 * RATES.sample_rate
#: Controls whose sound rings on after they are given back; a long echo rings for many minutes.
_TAILS = {"delay", "room", "master.delay", "master.room"}


def place_of(cycle: Fraction, moments: Sequence[Moment]) -> int:
    """The output sample at which a set reaches a cycle, by the tempo said till then."""
    place = 0
    for i, moment in enumerate(moments):
        place = moment.state.tempo.sample_at(cycle)
        if i + 1 < len(moments) and moments[i + 1].sample < place:
            continue
        break
    return place


def pre_roll(place: int, moments: Sequence[Moment], drain: int) -> int:
    """Where sound must begin so that from `place` on it is exact. drain: samples from an admission
    until its generation is heard."""
    before = [m for m in moments if m.sample <= place]
    laps = [d.loop.samples for m in before for d in m.state.decks.values() if d.loop is not None]
    length = 2 * max(laps, default=0) + drain + _FORGET
    begin, exact = place - length, place
    # Sound that feeds back remembers everything since it began to. A loop is not written any more
    # once the next one is prepared, but heard until that begins.
    for i in range(len(before) - 1, -1, -1):
        until = before[i + 1].sample if i + 1 < len(before) else place
        state, feeds = before[i].state, False
        if until >= begin:
            feeds = _feeds(state, max(begin, before[i].sample))
        follows = _follows(before[max(0, i - 1)].state, state)
        if waits := follows + _FORGET > exact:
            exact = before[i].sample
        if feeds or waits or _rings(state):
            begin = min(begin, before[i].sample - length)
    return max(0, begin)


def _feeds(state: State, sample: int) -> bool:
    here = state.tempo.cycle_at(sample)
    return any("feedback" in deck.bound_lanes(here) for deck in state.decks.values())


def _follows(before: State, state: State) -> int:
    """Where the last loop begins that is new in `state` and follows another one; -1 without one."""
    new = (
        loop.from_sample
        for name, old in before.decks.items()
        if old.loops and name in state.decks
        for loop in state.decks[name].loops
        if all(loop.epoch != known.epoch for known in old.loops)
    )
    return max(new, default=-1)


def _rings(state: State) -> bool:
    return any(_TAILS & deck.lanes.keys() for deck in (*state.decks.values(), state.globals))


def seek(offline: Offline, step: Callable[[], None], begin: int, place: int) -> None:
    """Play up to the turn that holds output sample `place`: dry until `begin`, then for real.

    step: applies the causes whose time has come.
    """
    mixer, turn = offline.output.mixer, offline.output.blocks * BLOCK
    offline.output.dry_run.dry = True
    while mixer.position + turn <= begin:
        step()
        offline.skip()
    offline.output.dry_run.dry = False
    offline.output.generator.forget()
    while mixer.position + turn <= place:
        step()
        offline.turn()


@dataclass(frozen=True, slots=True)
class Moment:
    """After one cause. state: what plays from then on. error: why the cause cannot be done here;
    the state is then that of before."""

    sample: int
    event: SetEvent
    state: State
    outcome: Outcome = field(default_factory=Outcome)
    error: DemonError | None = None


def dry_run(
    recording: Recording,
    folders: tuple[Path, ...] = (),
    find: Find = find_source,
    trust: bool = False,
) -> Iterator[Moment]:
    """The moments of a set, in order.

    Args:
        recording: the set.
        folders: where sources are looked for, unless the set has copies of them.
        find: finds the file of a name.
        trust: a set that was not recorded here may have any number of causes.

    Raises:
        FileError: it has too many.
    """
    output = NullOutput(str(recording.start.get("engine", "none")))
    copies = folder_of(recording.path) if recording.path is not None else None
    assets = Assets(folders or (Path.cwd(), shipped("patterns")), find=find, copies=copies)
    session = Session(
        output, assets=assets, start={**recording.start, "rules": recording.rules}, dry=True
    )
    for event in causes(recording, trust):
        if event.kind == KIND:
            session.repeat(event)
            continue
        output.time.advance(max(0, event.sample - output.time.now()))
        try:
            outcome = session.repeat(event, now=event.sample)
        except DemonError as error:
            yield Moment(event.sample, event, session.state, error=error)
        else:
            yield Moment(event.sample, event, session.state, outcome)


def restore(session: Session, past: Interrupted) -> int:
    """Repeat everything that an interrupted session did, in a session that does not play yet.

    Returns:
        The output sample to play from: the first bar line that surely lies behind all of it.
    """
    for event in past.causes:
        try:
            session.repeat(event, now=event.sample)
        # A source that is gone costs only what needs it, and so does what fails in any other way:
        # a session that cannot be resumed is worse than one that lacks a line.
        except Exception as error:
            log.warning("resuming %s", event, exc_info=True)
            session.tell(f"a line of the session is left out: {error}")
    tempo = session.state.tempo
    cycle = -(-tempo.cycle_at(past.sample) // 1)
    session.tell(f"resumed from bar {cycle} · {past.describe()}")
    return tempo.sample_at(Fraction(cycle))
