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
from demon_live.lang.pattern import Times
from demon_live.lang.program import Bind, Chain, Go, Scene, Setting, Statement


def find_scene(name: str, scenes: Mapping[str, Scene], span: Span) -> Scene:
    """The scene called `name`. Raises ScoreError, with the nearest name."""
    known = scenes.get(name)
    if known is not None:
        return known
    near = nearest(name, scenes)
    raise ScoreError(
        f"there is no scene {name!r}",
        span=span,
        hint=f"did you mean {near[0]}?" if near else f"define it first: scene {name} {{ ... }}",
    )


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
        ScoreError: an unknown scene, or one with settings.
    """
    total = sum((n for _, n in row.scenes), Fraction(0))
    text = "chain " + ", ".join(f"{n} {float(c):g}" for n, c in row.scenes)
    found: dict[tuple[str, str], list[tuple[Fraction, Lane, Fraction]]] = {}
    place = Fraction(0)
    for name, length in row.scenes:
        for bind in find_scene(name, scenes, row.span).body:
            if isinstance(bind, Setting):
                raise ScoreError(
                    f"scene {name!r} sets {bind.word}, which cannot be part of a chain",
                    span=row.span,
                    hint=f"take {bind.word} out of the scene, or use: go {name}",
                )
            lane = bind.lane or Lane.constant(bind.control)
            found.setdefault((bind.deck, bind.control), []).append((place, lane, _move(bind)))
        place += length
    out = []
    for (deck, control), rows in found.items():
        begins, lanes, moves = zip(*rows, strict=True)
        before = old(deck, control)
        ring = ChainLane(before.spec, text, before, at, total, begins, lanes, moves)
        out.append((deck, control, ring))
    return out


def _move(bind: Bind) -> Fraction:
    """Cycles that a binding takes to move, 0 without `over` and `xfade`."""
    when = bind.when if bind.when.kind in ("over", "xfade") else bind.when.then
    return when.cycles if when is not None else Fraction(0)


@dataclass(frozen=True, eq=False, repr=False)
class ChainLane(CompositeLane):
    """Sections in a ring of `total` cycles, from cycle `begin` on; before it, `old`.

    starts: the place of each section in the ring, ascending. The first may be later than 0: before
    it sounds `old` in the first round, the last section in later ones. moves: cycles that the
    transition into each section takes.
    """

    spec: Control
    text: str
    old: Lane
    begin: Fraction
    total: Fraction
    starts: tuple[Fraction, ...]
    sections: tuple[Lane, ...]
    moves: tuple[Fraction, ...]

    def section(self, cycle: Fraction) -> Lane:
        """The lane that sounds at a cycle: a section, or the transition into it."""
        since = cycle - self.begin
        if since < self.starts[0]:
            return self.old
        place = since % self.total
        i = bisect_right(self.starts, place) - 1
        lane, move = self.sections[i], self.moves[i]
        if i < 0:
            # The last section, which began in the round before.
            place += self.total
        begun = cycle - (place - self.starts[i])
        if place - self.starts[i] >= move:
            return lane
        first = i in (0, -len(self.starts)) and begun - self.begin == self.starts[0]
        return Lane.glide(self.old if first else self.sections[i - 1], lane, begun, move)

    def _edges(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        """The cycles in [begin, end) at which sections begin and transitions end."""
        first = max(0, (begin - self.begin) // self.total)
        last = (end - self.begin) // self.total
        first = max(0, first - 1)
        rounds = range(int(first), int(last) + 1)
        rows = list(zip(self.starts, self.moves, strict=True))
        edges = {self.begin + r * self.total + s for r in rounds for s, _ in rows}
        edges |= {self.begin + r * self.total + s + m for r in rounds for s, m in rows if m}
        return sorted(e for e in edges if begin <= e < end)

    def sample(self, cycles: Times) -> Floats:
        times = np.asarray(cycles, dtype=np.float64)
        if not times.size:
            return np.zeros(0, np.float32)
        begin, end = Fraction(float(times.min())), Fraction(float(times.max())) + 1
        bounds = [begin, *self._edges(begin, end), end]
        out = self.old.sample(times)
        for a, b in pairwise(bounds):
            # Rounding may put a frame just before the edge that it belongs behind.
            here = (times >= float(a) - 1e-9) & (times < float(b) - 1e-9)
            if here.any():
                out[here] = self.section(a).sample(times[here])
        return out

    def at(self, cycle: Fraction) -> float | str:
        return self.section(Fraction(cycle)).at(cycle)

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
