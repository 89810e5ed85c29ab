"""A set as a timeline, as text and as SVG: texts and when, tempo, decks, scenes, curves."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from demon_live.controls import find
from demon_live.core import RATES
from demon_live.lang.split import uncommented
from demon_live.pictures import COLOURS, Curve, Drawing
from demon_live.runtime.seek import Moment
from demon_live.session.state import State
from demon_live.sets.journal import Recording

_KNOBS = "hands"


def _clock(sample: int) -> str:
    seconds = sample / RATES.sample_rate
    return f"{int(seconds // 60):3d}:{seconds % 60:04.1f}"


def _cycle(moment: Moment) -> float:
    return float(moment.state.tempo.cycle_at(moment.sample))


def _summary(moment: Moment, named: bool) -> str:
    event = moment.event
    who = f"{event.by} · " if named and event.by else ""
    if event.kind == "end":
        return "the end"
    if event.kind == "remove":
        return f"{who}{event.name}: gone"
    if event.kind == "take":
        return f"{event.text.partition(' ')[0]}: a loop of the input, from bar {event.at}"
    lines = [" ".join(uncommented(line).split()) for line in event.text.splitlines()]
    lines = [line for line in lines if line]
    text = " · ".join(lines[:3]) + (f" ... ({len(lines)} lines)" if len(lines) > 3 else "")
    return who + (text if event.name.startswith("<") else f"{event.name}: {text}")


def _runs(moments: Sequence[Moment]) -> Iterator[list[Moment]]:
    """Moments one by one, but moves of controllers that follow each other as one."""
    run: list[Moment] = []
    for moment in moments:
        if run and (moment.event.kind != _KNOBS or run[-1].event.kind != _KNOBS):
            yield run
            run = []
        run.append(moment)
    if run:
        yield run


def _moved(run: Sequence[Moment]) -> str:
    names = {" ".join(x.split()[:2]) for m in run for x in m.event.text.splitlines()}
    return f"{', '.join(sorted(names))} moved ({len(run)} moments)"


def as_text(recording: Recording, moments: Sequence[Moment], columns: int = 0) -> str:
    """One line for each cause: time, bar, text; changes of tempo and decks beside it.

    columns: what is longer is cut there; 0 cuts nothing. Where several played, each line says who.
    """
    start, length = recording.start, recording.length
    said = sum(m.event.kind == "apply" for m in moments)
    head = f"{recording.path.name if recording.path else 'set'} · {_clock(length).strip()} · "
    if recording.begun:
        head += f"recorded from {_clock(recording.begun).strip()} · "
    authors = list(dict.fromkeys(m.event.by for m in moments if m.event.by))
    head += f"by {', '.join(authors)} · " if authors else ""
    head += f"engine {start.get('engine', '?')} · demon {start.get('app', '?')} · {said} texts"
    rows = [head, "", "   time      bar    bpm"]
    for run in _runs(moments):
        moment = run[0]
        what = _moved(run) if moment.event.kind == _KNOBS else _summary(moment, len(authors) > 1)
        bpm = float(moment.state.bpm)
        row = f"{_clock(moment.sample)} {_cycle(moment):8.2f} {bpm:6.4g}  {what}"
        rows.append(row if not columns or len(row) <= columns else f"{row[: columns - 1]}…")
        if moment.error is not None:
            rows.append(f"{'':24}cannot be done here: {moment.error.message}")
    last = moments[-1].state if moments else None
    rows += _form(last) if last is not None else []
    if last is not None and last.decks:
        rows += ["", "at the end:"]
        for deck in last.decks.values():
            plays = " ".join(deck.source_said).rstrip()
            source = f", source {plays}" if plays != "none" else ""
            rows.append(f"  {deck.name} ({deck.cycles} cycles{source})")
            rows += [f"    {n} = {' '.join(x.text.split())}" for n, x in deck.bound.items()]
    if recording.torn:
        rows.append(f"{recording.torn} damaged lines were left out")
    if recording.unknown:
        rows.append(f"{recording.unknown} lines of unknown kinds were left out")
    return "\n".join(rows) + "\n"


def _form(state: State) -> list[str]:
    """The scenes of the chains that the scores name, with their bars."""
    rows: list[str] = []
    for chain in (c for program in state.files.values() for c in program.chains if c.scenes):
        place = Fraction(0)
        rows += ["", "form" + ", once:" * chain.once + ", again and again:" * (not chain.once)]
        for name, length in chain.scenes:
            bpm = float(state.tempo.segment_at(place).bpm)
            clock = _clock(state.tempo.sample_at(place))
            rows.append(f"{clock} {float(place):8g} {bpm:6.4g}  {name}, {float(length):g} bars")
            place += length
        rows.append(f"{_clock(state.tempo.sample_at(place))} {float(place):8g}         end")
    return rows


# --- a picture ------------------------------------------------------------------------------------

_ROW = 34


def as_svg(recording: Recording, moments: Sequence[Moment]) -> str:
    """The timeline over cycles: texts, controllers, the tempo, and a row for each deck in which a
    block is what it plays until something changes, with its prompts; below it a curve for each
    control that moves. Standing on a mark shows what was said."""
    end = float(moments[-1].state.tempo.cycle_at(recording.length)) if moments else 1.0
    drawing = Drawing(end)
    drawing.axis()
    rows = (("texts", "apply", "#9cdcfe"), ("files gone", "remove", "#e15759"))
    for label, kind, colour in (*rows, ("knobs", _KNOBS, "#edc948")):
        found = [m for m in moments if m.event.kind == kind]
        if found:
            drawing.text(8, drawing.y + 16, label)
            for m in found:
                drawing.tick(
                    drawing.x(_cycle(m)),
                    drawing.y,
                    drawing.y + 22,
                    colour,
                    f"bar {_cycle(m):.2f}: "
                    + (f"{m.event.by} · " if m.event.by else "")
                    + (m.event.text or m.event.name),
                )
            drawing.y += _ROW
    _tempo(drawing, moments, end)
    _decks(drawing, moments, end)
    name = recording.path.name if recording.path else "set"
    engine = recording.start.get("engine", "?")
    return drawing.svg(f"{name} · {_clock(recording.length).strip()} · {engine}")


def _tempo(drawing: Drawing, moments: Sequence[Moment], end: float) -> None:
    """Each stretch of the tempo, with its number."""
    if not moments:
        return
    drawing.text(8, drawing.y + 16, "bpm")
    segments = moments[-1].state.tempo.segments
    for i, s in enumerate(segments):
        a = float(s.cycle)
        b = float(segments[i + 1].cycle) if i + 1 < len(segments) else end
        x = drawing.x(a)
        drawing.bar(x, drawing.x(b) - 1, drawing.y, 22, "#3a3f4b", f"{float(s.bpm):g} bpm")
        drawing.text(x + 3, drawing.y + 15, f"{float(s.bpm):g}", 10)
    drawing.y += _ROW


def _decks(drawing: Drawing, moments: Sequence[Moment], end: float) -> None:
    names = list(dict.fromkeys(n for m in moments for n in m.state.decks))
    for i, name in enumerate(names):
        colour, blocks = COLOURS[i % len(COLOURS)], list(_blocks(moments, name, end))
        drawing.text(8, drawing.y + 16, name)
        for begin, until, title in blocks:
            drawing.bar(drawing.x(begin), drawing.x(until) - 1, drawing.y, 22, colour, title)
        _prompts(drawing, words(moments, name, end), blocks)
        drawing.y += _ROW - 6
        for control, curve in curves(moments, name, end).items():
            drawing.text(24, drawing.y + 17, control, 10, "#999")
            drawing.curve(curve, drawing.y, 22, colour)
            drawing.y += _ROW - 8
        drawing.y += 8


def _prompts(
    drawing: Drawing,
    prompts: Sequence[tuple[float, float, str]],
    blocks: Sequence[tuple[float, float, str]],
) -> None:
    """The deck's prompts on its row, where it is heard and as far as there is room."""
    for begin, until, _ in blocks:
        for first, last, text in prompts:
            a, b = drawing.x(max(begin, first)), drawing.x(min(until, last))
            room = int((b - a - 6) / 5.5)
            if room > 4:
                shown = text if len(text) <= room else f"{text[: room - 1]}…"
                drawing.text(a + 3, drawing.y + 15, shown, 10, "#fff")


def _blocks(moments: Sequence[Moment], deck: str, end: float) -> Iterator[tuple[float, float, str]]:
    """(begin, end, what plays) of a deck in cycles, cut where it changes or is silenced."""
    begin, what = 0.0, ""
    for moment in moments:
        new = _plays(moment, deck)
        if new != what:
            here = _cycle(moment)
            if what and here > begin:
                yield begin, here, what
            begin, what = here, new
    if what:
        yield begin, end, what


def _plays(moment: Moment, name: str) -> str:
    state = moment.state
    deck = state.decks.get(name)
    silent = state.hushed or name in state.muted or (state.soloed and name not in state.soloed)
    if deck is None or silent:
        return ""
    return "\n".join(f"{n} = {' '.join(x.text.split())}" for n, x in deck.bound.items()) or name


#: Samples over the whole set: about two for each pixel of the picture's curves.
SAMPLES = 1600


def _share(name: str, value: float) -> float:
    """Where a value lies between the ends of its control's range; Hz are shown by octaves."""
    control = find(name)
    if control is None:
        return 0.0
    low, high = control.low, control.high
    if control.unit == "Hz" and low > 0 and value > 0:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(1.0, max(0.0, (value - low) / (high - low)))


def curves(moments: Sequence[Moment], deck: str, end: float) -> dict[str, Curve]:
    """Control -> its curve over cycles 0 .. end, by shares of its range, for the controls that move
    at all; interrupted where it is not bound.

    A pattern faster than the samples (some ten steps a bar in an hour's set) is seen as its range.
    """
    begins = [_cycle(m) for m in moments]
    found: dict[str, Curve] = {}
    for k in range(SAMPLES + 1):
        cycle = end * k / SAMPLES
        state = moments[max(0, bisect.bisect_right(begins, cycle) - 1)].state
        here, playing = Fraction(cycle), state.decks.get(deck)
        lanes = state.lanes(playing, here) if playing is not None else {}
        for name, lane in lanes.items():
            value = lane.at(here)
            if isinstance(value, float):
                curve = found.setdefault(name, [None] * (SAMPLES + 1))
                curve[k] = (cycle, _share(name, value))
    return {name: curve for name, curve in sorted(found.items()) if _moves(curve)}


def _moves(curve: Curve) -> bool:
    shares = [point[1] for point in curve if point is not None]
    return max(shares) - min(shares) > 0.005


def words(moments: Sequence[Moment], deck: str, end: float) -> list[tuple[float, float, str]]:
    """(begin, end, text) of each stretch in which the deck's prompt is the same."""
    begins = [_cycle(m) for m in moments]
    out: list[tuple[float, float, str]] = []
    for k in range(SAMPLES):
        cycle = end * k / SAMPLES
        state = moments[max(0, bisect.bisect_right(begins, cycle) - 1)].state
        playing = state.decks.get(deck)
        lane = state.lanes(playing, Fraction(cycle)).get("prompt") if playing else None
        text = str(lane.at(Fraction(cycle))) if lane is not None else ""
        if out and out[-1][2] == text:
            out[-1] = (out[-1][0], end * (k + 1) / SAMPLES, text)
        else:
            out.append((cycle, end * (k + 1) / SAMPLES, text))
    return [row for row in out if row[2]]
