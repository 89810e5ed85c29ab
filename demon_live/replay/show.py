"""A set as a timeline, as text and as SVG: texts and when, tempo, decks, scenes, curves."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from html import escape

from demon_live.controls import find
from demon_live.core import RATES
from demon_live.lang.split import uncommented
from demon_live.runtime.seek import Moment
from demon_live.session.state import State
from demon_live.sets.journal import Recording

_KNOBS = "hands"


def _clock(sample: int) -> str:
    seconds = sample / RATES.sample_rate
    return f"{int(seconds // 60):3d}:{seconds % 60:04.1f}"


def _cycle(moment: Moment) -> float:
    return float(moment.state.tempo.cycle_at(moment.sample))


def _summary(moment: Moment) -> str:
    event = moment.event
    if event.kind == "end":
        return "the end"
    if event.kind == "remove":
        return f"{event.name}: gone"
    lines = [" ".join(uncommented(line).split()) for line in event.text.splitlines()]
    lines = [line for line in lines if line]
    text = " · ".join(lines[:3]) + (f" ... ({len(lines)} lines)" if len(lines) > 3 else "")
    return text if event.name.startswith("<") else f"{event.name}: {text}"


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

    columns: what is longer is cut there; 0 cuts nothing.
    """
    start, length = recording.start, recording.length
    said = sum(m.event.kind == "apply" for m in moments)
    head = f"{recording.path.name if recording.path else 'set'} · {_clock(length).strip()} · "
    if recording.begun:
        head += f"recorded from {_clock(recording.begun).strip()} · "
    head += f"engine {start.get('engine', '?')} · demon {start.get('app', '?')} · {said} texts"
    rows = [head, "", "   time      bar    bpm"]
    for run in _runs(moments):
        moment = run[0]
        what = _moved(run) if moment.event.kind == _KNOBS else _summary(moment)
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
            source = f", source {deck.source} {deck.reading}".rstrip() if deck.source else ""
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

_WIDTH, _LEFT, _ROW = 1200, 110, 34
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2", "#edc948", "#9c755f")


class _Canvas:
    def __init__(self, cycles: float) -> None:
        self.cycles = max(cycles, 1e-9)
        self.rows: list[str] = []
        self.y = 40

    def x(self, cycle: float) -> float:
        share = min(1.0, max(0.0, cycle / self.cycles))
        return round(_LEFT + share * (_WIDTH - _LEFT - 20), 2)

    def text(self, x: float, y: float, text: str, size: int = 11, colour: str = "#ddd") -> None:
        self.rows.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
        )

    def tick(self, x: float, top: float, bottom: float, colour: str, title: str = "") -> None:
        hover = f"<title>{escape(title)}</title>" if title else ""
        line = f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{colour}" '
        self.rows.append(f'{line}stroke-width="1.5">{hover}</line>')

    def curve(self, curve: Curve, y: float, height: float, colour: str) -> None:
        """Straight lines from point to point, interrupted where there is none."""
        runs: list[list[str]] = [[]]
        for point in curve:
            if point is None:
                runs.append([])
            else:
                runs[-1].append(f"{self.x(point[0]):g},{y + height * (1 - point[1]):.1f}")
        for run in (r for r in runs if len(r) > 1):
            self.rows.append(
                f'<polyline points="{" ".join(run)}" fill="none" stroke="{colour}" '
                f'stroke-width="1.3" stroke-linejoin="round"/>'
            )

    def bar(self, a: float, b: float, y: float, height: float, colour: str, title: str) -> None:
        self.rows.append(
            f'<rect x="{a}" y="{y}" width="{max(0.5, b - a):.2f}" height="{height}" '
            f'fill="{colour}" fill-opacity=".75"><title>{escape(title)}</title></rect>'
        )


def as_svg(recording: Recording, moments: Sequence[Moment]) -> str:
    """The timeline over cycles: texts, controllers, the tempo, and a row for each deck in which a
    block is what it plays until something changes, with its prompts; below it a curve for each
    control that moves. Standing on a mark shows what was said."""
    end = float(moments[-1].state.tempo.cycle_at(recording.length)) if moments else 1.0
    canvas = _Canvas(end)
    _axis(canvas, end)
    rows = (("texts", "apply", "#9cdcfe"), ("files gone", "remove", "#e15759"))
    for label, kind, colour in (*rows, ("knobs", _KNOBS, "#edc948")):
        found = [m for m in moments if m.event.kind == kind]
        if found:
            canvas.text(8, canvas.y + 16, label)
            for m in found:
                canvas.tick(
                    canvas.x(_cycle(m)),
                    canvas.y,
                    canvas.y + 22,
                    colour,
                    f"bar {_cycle(m):.2f}: " + (m.event.text or m.event.name),
                )
            canvas.y += _ROW
    _tempo(canvas, moments, end)
    _decks(canvas, moments, end)
    height = canvas.y + 10
    name = recording.path.name if recording.path else "set"
    title = f"{name} · {_clock(recording.length).strip()} · {recording.start.get('engine', '?')}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="#1b1d22"/>'
    )
    label = f'<text x="8" y="20" font-size="13" fill="#fff">{escape(title)}</text>'
    return "\n".join([head, label, *canvas.rows, "</svg>"]) + "\n"


def _axis(canvas: _Canvas, end: float) -> None:
    step = 1
    while end / step > 24:
        step *= 2
    for bar in range(0, int(end) + 1, step):
        canvas.text(canvas.x(bar), 36, str(bar), 9, "#888")


def _tempo(canvas: _Canvas, moments: Sequence[Moment], end: float) -> None:
    """Each stretch of the tempo, with its number."""
    if not moments:
        return
    canvas.text(8, canvas.y + 16, "bpm")
    segments = moments[-1].state.tempo.segments
    for i, s in enumerate(segments):
        a = float(s.cycle)
        b = float(segments[i + 1].cycle) if i + 1 < len(segments) else end
        x = canvas.x(a)
        canvas.bar(x, canvas.x(b) - 1, canvas.y, 22, "#3a3f4b", f"{float(s.bpm):g} bpm")
        canvas.text(x + 3, canvas.y + 15, f"{float(s.bpm):g}", 10)
    canvas.y += _ROW


def _decks(canvas: _Canvas, moments: Sequence[Moment], end: float) -> None:
    names = list(dict.fromkeys(n for m in moments for n in m.state.decks))
    for i, name in enumerate(names):
        colour, blocks = _COLOURS[i % len(_COLOURS)], list(_blocks(moments, name, end))
        canvas.text(8, canvas.y + 16, name)
        for begin, until, title in blocks:
            canvas.bar(canvas.x(begin), canvas.x(until) - 1, canvas.y, 22, colour, title)
        _prompts(canvas, words(moments, name, end), blocks)
        canvas.y += _ROW - 6
        for control, curve in curves(moments, name, end).items():
            canvas.text(24, canvas.y + 17, control, 10, "#999")
            canvas.curve(curve, canvas.y, 22, colour)
            canvas.y += _ROW - 8
        canvas.y += 8


def _prompts(
    canvas: _Canvas,
    prompts: Sequence[tuple[float, float, str]],
    blocks: Sequence[tuple[float, float, str]],
) -> None:
    """The deck's prompts on its row, where it is heard and as far as there is room."""
    for begin, until, _ in blocks:
        for first, last, text in prompts:
            a, b = canvas.x(max(begin, first)), canvas.x(min(until, last))
            room = int((b - a - 6) / 5.5)
            if room > 4:
                shown = text if len(text) <= room else f"{text[: room - 1]}…"
                canvas.text(a + 3, canvas.y + 15, shown, 10, "#fff")


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

#: Points (cycle, share of the range 0..1); None where the control is not bound.
Curve = list[tuple[float, float] | None]


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
    """Control -> its curve over cycles 0 .. end, for the controls that move at all.

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
