"""Lanes of the session: chains of scenes, and gains under the crossfader.

`chain 'a' 8, 'b' 4` plays scenes one after the other, again and again. A control that a scene does
not bind keeps the value of the last scene that does. So its lane is a ring of sections, a pure
function of time like every other lane. A binding with `over` moves over as many cycles each time
its section begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from demon_live.controls import CONTROLS, FADER, Control
from demon_live.core import Floats
from demon_live.errors import ScoreError, Span, nearest
from demon_live.lang.lane import CompositeLane, Lane
from demon_live.lang.pattern import Event, Times, moved
from demon_live.lang.program import Bind, Chain, Go, Scene, Setting, Statement, When


def find_scene(
    name: str, scenes: Mapping[str, Scene], span: Span, within: tuple[str, ...] = ()
) -> Scene:
    """The scene called `name`, with what it takes from others. Raises ScoreError, with the nearest
    name.

    within: the scenes that take from it.
    """
    known = scenes.get(name)
    if name in within:
        raise ScoreError(f"scene {name} takes from itself", span=span)
    if known is not None:
        body = known.body
        if known.restart:
            body = tuple(replace(b, restart=True) if isinstance(b, Bind) else b for b in body)
        if known.base:
            own = {_target(row) for row in body}
            base = find_scene(known.base, scenes, span, (*within, name))
            body = (*(row for row in base.body if _target(row) not in own), *body)
        return replace(known, body=body)
    near = nearest(name, scenes)
    listed = f"scenes: {', '.join(sorted(scenes)[:8])}; " if scenes else ""
    raise ScoreError(
        f"there is no scene {name!r}",
        span=span,
        hint=f"did you mean {near[0]}?" if near else f"{listed}a new one: scene {name} {{ ... }}",
    )


def _target(row: Bind | Setting) -> tuple[str, str]:
    return row.deck, row.control if isinstance(row, Bind) else row.word


def chain_settings(
    row: Chain, scenes: Mapping[str, Scene]
) -> list[tuple[Fraction, tuple[Setting, ...]]]:
    """The settings of the scenes of a chain, each with its place in the chain."""
    found, place = [], Fraction(0)
    for name, length in row.scenes:
        body = find_scene(name, scenes, row.span).body
        if rows := tuple(s for s in body if isinstance(s, Setting)):
            found.append((place, rows))
        place += length
    return found


def chain_text(row: Chain) -> str:
    """A chain as a statement, without its `when`."""
    moves = row.moves or (None,) * len(row.scenes)
    items = [
        (f"{m.kind} {float(m.cycles):g} " if m else "") + f"{name} {float(length):g}"
        for (name, length), m in zip(row.scenes, moves, strict=True)
    ]
    return "chain " + ", ".join(items) + " once" * row.once


def expanded(rows: Iterable[Statement], scenes: MutableMapping[str, Scene]) -> list[Statement]:
    """Replace each `go NAME` by the statements of the scene; scenes of the text join `scenes`."""
    out: list[Statement] = []
    for row in rows:
        if isinstance(row, Scene):
            scenes[row.name] = row
        if isinstance(row, Go):
            body = find_scene(row.scene, scenes, row.span).body
            out += [replace(s, when=row.when, span=row.span) for s in body]
        else:
            out.append(row)
    return out


def chain_lanes(
    row: Chain, scenes: Mapping[str, Scene], at: Fraction, old: Callable[[str, str], Lane]
) -> list[tuple[str, str, ChainLane]]:
    """The lanes of the controls that the scenes of a chain bind.

    Args:
        row: the statement.
        scenes: name -> scene.
        at: the cycle at which the chain begins.
        old: (deck, control) -> its lane before that.

    Returns:
        (deck, control, lane) for each control.

    Raises:
        ScoreError: an unknown scene.
    """
    total = sum((n for _, n in row.scenes), Fraction(0))
    text = chain_text(row)
    found: dict[tuple[str, str], list[tuple[Fraction, Lane, Fraction, bool, bool]]] = {}
    place = Fraction(0)
    moves_in = row.moves or (None,) * len(row.scenes)
    for (name, length), into in zip(row.scenes, moves_in, strict=True):
        for bind in find_scene(name, scenes, row.span).body:
            if isinstance(bind, Setting):
                continue
            lane = bind.lane or Lane.constant(old(bind.deck, bind.control).spec)
            move = _move(bind) or into or When()
            section = (place, lane, move.cycles, move.kind == "xfade", bind.restart)
            found.setdefault((bind.deck, bind.control), []).append(section)
        place += length
    out = []
    for (deck, control), rows in found.items():
        begins, lanes, moves, fades, restarts = zip(*rows, strict=True)
        before = old(deck, control)
        ring = ChainLane(
            before.spec, text, before, at, total, begins, lanes, moves, fades, restarts, row.once
        )
        out.append((deck, control, ring))
    return out


def _move(bind: Bind) -> When | None:
    """The `over` or `xfade` of a binding."""
    return bind.when if bind.when.kind in ("over", "xfade") else bind.when.then


def restarted(lane: Lane, begin: Fraction) -> Lane:
    """The lane as if time began at cycle `begin`. What controllers did stays where it was."""
    return lane if lane.keys or not begin else RestartedLane(lane, begin)


@dataclass(frozen=True, eq=False, repr=False)
class RestartedLane(CompositeLane):
    """A lane whose cycle 0 is at cycle `begin`."""

    lane: Lane
    begin: Fraction

    @property
    def spec(self) -> Control:  # type: ignore[override]
        return self.lane.spec

    @property
    def text(self) -> str:  # type: ignore[override]
        return self.lane.text

    def sample(self, cycles: Times) -> Floats:
        return self.lane.sample(np.asarray(cycles, np.float64) - float(self.begin))

    def at(self, cycle: Fraction) -> float | str:
        return self.lane.at(cycle - self.begin)

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        inside = self.lane.jumps(begin - self.begin, end - self.begin)
        return [jump + self.begin for jump in inside]

    def weight(self, i: int, cycles: Times) -> Floats:
        return self.lane.weight(i, np.asarray(cycles, np.float64) - float(self.begin))

    def events(self, begin: Fraction, end: Fraction) -> list[Event]:
        inside = self.lane.events(begin - self.begin, end - self.begin)
        return moved(inside, Fraction(1), self.begin, (Fraction(1), -self.begin))

    @property
    def parts(self) -> tuple[Lane, ...]:
        return (self.lane,)

    def rebuilt(self, parts: tuple[Lane, ...]) -> Lane:
        return replace(self, lane=parts[0])

    def since(self, before: Fraction) -> Lane:
        return self


@dataclass(frozen=True, eq=False, repr=False)
class ChainLane(CompositeLane):
    """Sections in a ring of `total` cycles, from cycle `begin` on; before it, `old`.

    starts: the place of each section in the ring, ascending. The first may be later than 0: before
    it sounds `old` in the first round, the last section in later ones. moves: cycles that the
    transition into each section takes; fades: whether it is an `xfade`. restarts: whether the
    patterns of a section begin with it. once: behind `total` the last section goes on.
    """

    spec: Control
    text: str
    old: Lane
    begin: Fraction
    total: Fraction
    starts: tuple[Fraction, ...]
    sections: tuple[Lane, ...]
    moves: tuple[Fraction, ...]
    fades: tuple[bool, ...]
    restarts: tuple[bool, ...]
    once: bool = False

    def section(self, cycle: Fraction) -> Lane:
        """The lane that sounds at a cycle: a section, or the transition into it."""
        since = cycle - self.begin
        if since < self.starts[0]:
            return self.old
        place = since if self.once else since % self.total
        i = bisect_right(self.starts, place) - 1
        if i < 0:
            # The last section, which began in the round before.
            i, place = len(self.starts) - 1, place + self.total
        begun = cycle - (place - self.starts[i])
        lane, move = self._begun(i, begun), self.moves[i]
        if cycle - begun >= move:
            return lane
        if begun - self.begin == self.starts[0]:
            before = self.old
        else:
            gap = (self.starts[i] - self.starts[i - 1]) % self.total or self.total
            before = self._begun(i - 1, begun - gap)
        join = Lane.xfade if self.fades[i] else Lane.glide
        return join(before, lane, begun, move)

    def standing(self, cycle: Fraction) -> Lane:
        """The lane of the scene that plays just before a cycle, without transitions."""
        since = cycle - self.begin
        if since <= self.starts[0]:
            return self.old
        place = since if self.once else since % self.total or self.total
        i = sum(start < place for start in self.starts) - 1
        begun = cycle - place + self.starts[i] - (self.total if i < 0 else 0)
        return self._begun(i, begun) if i >= 0 else self._begun(len(self.starts) - 1, begun)

    def _begun(self, i: int, begun: Fraction) -> Lane:
        """Section i, which began at cycle `begun`."""
        return restarted(self.sections[i], begun) if self.restarts[i] else self.sections[i]

    def _edges(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        """The cycles in [begin, end) at which sections begin and transitions end."""
        first = max(0, (begin - self.begin) // self.total)
        last = 0 if self.once else (end - self.begin) // self.total
        first = min(max(0, first - 1), last)
        rounds = range(int(first), int(last) + 1)
        rows = list(zip(self.starts, self.moves, strict=True))
        edges = {self.begin + r * self.total + s for r in rounds for s, _ in rows}
        edges |= {self.begin + r * self.total + s + m for r in rounds for s, m in rows if m}
        return sorted(e for e in edges if begin <= e < end)

    def sample(self, cycles: Times) -> Floats:
        return self._read(cycles, lambda lane, times: lane.sample(times))

    def weight(self, i: int, cycles: Times) -> Floats:
        return self._read(cycles, lambda lane, times: lane.weight(i, times))

    def _read(self, cycles: Times, read: Callable[[Lane, Times], Floats]) -> Floats:
        """What the section of each time gives."""
        times = np.asarray(cycles, dtype=np.float64)
        if not times.size:
            return np.zeros(0, np.float32)
        begin, end = Fraction(float(times.min())), Fraction(float(times.max())) + 1
        bounds = [begin, *self._edges(begin, end), end]
        out = read(self.old, times)
        for a, b in pairwise(bounds):
            # Rounding may put a frame just before the edge that it belongs behind.
            here = (times >= float(a) - 1e-9) & (times < float(b) - 1e-9)
            if here.any():
                out[here] = read(self.section(a), times[here])
        return out

    def at(self, cycle: Fraction) -> float | str:
        return self.section(Fraction(cycle)).at(cycle)

    def events(self, begin: Fraction, end: Fraction) -> list[Event]:
        bounds = sorted({begin, *self._edges(begin, end), end})
        return [e for a, b in pairwise(bounds) for e in self.section(a).events(a, b)]

    @property
    def parts(self) -> tuple[Lane, ...]:
        return self.old, *self.sections

    def rebuilt(self, parts: tuple[Lane, ...]) -> Lane:
        return replace(self, old=parts[0], sections=parts[1:])

    @property
    def continuous(self) -> bool:
        return super().continuous or any(self.moves)

    def sounding(self, cycle: Fraction) -> Lane:
        return self.old.sounding(cycle) if cycle - self.begin < self.starts[0] else self

    def since(self, before: Fraction) -> Lane:
        if before >= self.begin + self.starts[0] + self.moves[0]:
            return replace(self, old=self.sections[0])
        return super().since(before)

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        bounds = [Fraction(begin), *self._edges(begin, end), Fraction(end)]
        out: set[Fraction] = set()
        for a, b in pairwise(bounds):
            if a < b:
                out.update(j for j in self.section(a).jumps(a, b) if j != a)
                near = a - Fraction(1, 10**9)
                if a > begin and self.at(a) != self.section(near).at(near):
                    out.add(a)
                elif a == begin:
                    out.update(j for j in self.section(a).jumps(a, b) if j == a)
        return sorted(out)


# --- crossfader ------------------------------------------------------------------------------


def _side_gain(side: str, fader: Floats) -> Floats:
    angle = np.asarray(fader, np.float64) * (np.pi / 2)
    out = np.cos(angle) if side == "a" else np.sin(angle)
    # The ends are exact: cos of a quarter turn is 6e-17 in floating point, not nothing.
    out = np.where(np.abs(out) < 1e-12, 0.0, out)
    return np.asarray(out, np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class FadedLane(CompositeLane):
    """A deck's gain under the crossfader: times cos or sin of a quarter turn, so that the powers of
    both sides add up to one wherever the fader stands."""

    spec: Control
    text: str
    gain: Lane
    fader: Lane
    side: str

    def sample(self, cycles: Times) -> Floats:
        out = self.gain.sample(cycles) * _side_gain(self.side, self.fader.sample(cycles))
        return np.asarray(out, np.float32)

    def at(self, cycle: Fraction) -> float | str:
        fader = np.array([float(self.fader.at(cycle))], np.float32)
        return float(self.gain.at(cycle)) * float(_side_gain(self.side, fader)[0])

    @property
    def parts(self) -> tuple[Lane, ...]:
        return self.gain, self.fader

    def rebuilt(self, parts: tuple[Lane, ...]) -> Lane:
        return replace(self, gain=parts[0], fader=parts[1])

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        return sorted({*self.gain.jumps(begin, end), *self.fader.jumps(begin, end)})


def faded(
    deck: str, lanes: Mapping[str, Lane], sides: Mapping[str, str], shared: Mapping[str, Lane]
) -> Mapping[str, Lane]:
    """The lanes of a deck, its gain under the crossfader if it is on one of its sides."""
    side = sides.get(deck)
    if side is None:
        return lanes
    spec = CONTROLS["gain"]
    gain = lanes.get("gain") or Lane.constant(spec)
    fader = shared.get("fader") or Lane.constant(FADER)
    return {**lanes, "gain": FadedLane(spec, gain.text, gain, fader, side)}
