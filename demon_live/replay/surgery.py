"""A part of a set as a set of its own.

    Recording.load("friday.set.jsonl").cut(16, 32).write("drop")

Threads: everything runs in the caller's.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from demon_live.errors import UsageError
from demon_live.lang.dsl_pattern import exact
from demon_live.runtime.seek import dry_run, place_of
from demon_live.session.scores import as_score
from demon_live.sets.journal import Recording, SetEvent
from demon_live.sets.set_files import KIND


def cut(recording: Recording, begin: float = 0, end: float | None = None) -> Recording:
    """The cycles from `begin` to `end` of a set; cycle `begin` becomes cycle 0.

    What plays at `begin` is said at once, as one score: what waits for its bar or is on its way has
    arrived, and patterns begin with their first cycle. Later events follow at their times.

    Args:
        recording: the set.
        begin: a whole number of cycles.
        end: None: to its end.

    Raises:
        UsageError: there is nothing between the two.
    """
    first = exact(begin)
    if first.denominator != 1 or first < 0:
        raise UsageError(f"a set is cut at whole cycles, not at {begin}")
    moments = list(dry_run(recording, trust=True))
    start = place_of(first, moments) if moments else 0
    stop = recording.length if end is None else place_of(exact(end), moments) if moments else 0
    if not start < stop <= recording.length or not moments:
        raise UsageError(
            f"the set has nothing from cycle {begin:g} to {'its end' if end is None else end}",
            hint="demon set show lists what is in a set",
        )
    if not first:
        kept = [e for e in recording.events if e.sample < stop and e.kind != "end"]
        return replace(recording, events=(*kept, SetEvent("end", stop)))
    before = [e for e in recording.events if e.sample <= start]
    # Names of files still mean what they meant, and knobs stand where they stood.
    said = [replace(e, sample=0) for e in before if e.kind in (KIND, "hands")]
    # What scripts have said for later is still said for later.
    ahead = [e for e in before if e.due is not None and e.due > first]
    past = replace(recording, events=tuple(e for e in before if e not in ahead))
    *_, last = dry_run(past, trust=True)
    opening = SetEvent("apply", 0, as_score(last.state), "<cut>", "repl")
    rest = [*ahead, *(e for e in recording.events if start < e.sample < stop and e.kind != "end")]
    moved = [_moved(e, first, start) for e in rest]
    return replace(recording, events=(*said, opening, *moved, SetEvent("end", stop - start)))


def _moved(event: SetEvent, first: Fraction, start: int) -> SetEvent:
    """An event as seen from cycle `first`, which falls on sample `start`."""
    event = replace(event, sample=max(0, event.sample - start))
    if event.due is not None:
        event = replace(event, at=str(max(Fraction(0), event.due - first)))
    if event.kind == "align":
        cycle, sample, bpm = event.text.split()
        event = replace(event, text=f"{Fraction(cycle) - first} {int(sample) - start} {bpm}")
    return event
