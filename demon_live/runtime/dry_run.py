"""Dry run: a set without its sound, the state after each of its causes, within milliseconds.

The session is the very one that played; only its output is null, and sources are looked for, not
read. What is shown, checked and turned into scores comes from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from demon_live.errors import DemonError
from demon_live.paths import shipped
from demon_live.session.assets import Assets
from demon_live.session.find import Find, find_source
from demon_live.session.output import NullOutput
from demon_live.session.session import Session
from demon_live.session.state import State
from demon_live.session.status import Outcome
from demon_live.sets.journal import Event, Recording
from demon_live.sets.session_log import Interrupted
from demon_live.sets.set_files import KIND, folder_of


@dataclass(frozen=True, slots=True)
class Moment:
    """After one cause. state: what plays from then on. error: why the cause cannot be done here;
    the state is then that of before."""

    sample: int
    event: Event
    state: State
    outcome: Outcome = field(default_factory=Outcome)
    error: DemonError | None = None


def dry_run(
    recording: Recording, folders: tuple[Path, ...] = (), find: Find = find_source
) -> Iterator[Moment]:
    """The moments of a set, in order.

    Args:
        recording: the set.
        folders: where sources are looked for, unless the set has copies of them.
        find: finds the file of a name.
    """
    output = NullOutput(str(recording.start.get("engine", "none")))
    copies = folder_of(recording.path) if recording.path is not None else None
    assets = Assets(folders or (Path.cwd(), shipped("patterns")), find=find, copies=copies)
    session = Session(output, assets=assets, start=dict(recording.start), dry=True)
    for event in recording.events:
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
        except DemonError as error:
            # A source that is gone costs only what needs it.
            session.tell(str(error))
    tempo = session.state.tempo
    cycle = -(-tempo.cycle_at(past.sample) // 1)
    session.tell(f"resumed from bar {cycle} · {past.describe()}")
    return tempo.sample_at(Fraction(cycle))
