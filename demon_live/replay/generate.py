"""One loop, or a batch of them, without a session: words and numbers in, sound and latents out.

    loop = generate("acid techno", source="loops/house_124.flac", denoise=.6, bpm=126, cycles=4)
    sweep = generate("acid techno", denoise=np.linspace(.2, 1, 20), seed=[1, 2])   # lists: a batch

A batch goes through one ring, several rows a tick. Latents are those that a ring makes of the same
request, whatever else is in flight; where a source is kept, the sound has its `detail`, as in a
render.

Threads: everything runs in the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.audio.files import fit_loop, load_source, write_audio
from demon_live.controls import NOTES, NOTES_HINT, PLUS_NOTES, Control, find
from demon_live.core import (
    RATES,
    Beats,
    ControlBlock,
    Floats,
    Loop,
    Phrase,
    Request,
    SlotValues,
)
from demon_live.engine.decode import WindowDecoder
from demon_live.engine.detail import DetailDecoder
from demon_live.engine.ring import Ring
from demon_live.errors import ScoreError, UsageError
from demon_live.lang import Lane
from demon_live.lang.dsl_pattern import exact, number_of
from demon_live.lang.dsl_score import Score, deck, setting
from demon_live.models.engine import Engine, open_engine
from demon_live.paths import shipped
from demon_live.pictures import of_latent
from demon_live.replay.render import player
from demon_live.runtime.guides import Guides
from demon_live.runtime.preparation import Source, encoded
from demon_live.runtime.scheduler import Target, build_request
from demon_live.session.assets import find_source
from demon_live.session.sampler import phrase
from demon_live.session.state import DeckState, make_loop
from demon_live.session.tempo import TempoMap

#: Rows of a tick at most, and loops of a batch.
_ROWS, _BATCH = 8, 4096


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """A loop that was generated. A notebook shows it as a player.

    Attributes:
        audio: float32 [n, 2] at 48 kHz; it closes.
        latent: float32 [T, C].
        request: what the ring was asked for.
        values: what the arguments were.
    """

    audio: Floats
    latent: Floats
    request: Request
    values: Mapping[str, Any]

    def save(self, path: Path | str) -> Path:
        """Write the sound as .wav or .flac. Raises FileError."""
        write_audio(path, self.audio)
        return Path(path)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        return f"<Generated {len(self.audio) / RATES.sample_rate:.2f} s, {said}>"

    def _repr_html_(self) -> str:
        return player(self.audio) + of_latent(self.latent, "latent").svg


def generate(
    prompt: str | Sequence[str] = "",
    *,
    source: Path | str | Floats | None = None,
    denoise: Any = 1.0,
    seed: Any = 0,
    bpm: float = 120,
    cycles: int = 1,
    beats: float | str = 4,
    engine: str | Engine = "imp",
    backend: str = "auto",
    steps: int | None = None,
    **controls: Any,
) -> Any:
    """Generate a loop, or a batch of loops.

    Args:
        prompt, denoise, seed: as in a score.
        source: the loop that is transformed: a file, or float32 [n, 2] at 48 kHz; 'notes': what
            `kick`, `bass`, `chord` ... play, 'FILE + notes': over a file; None: from noise.
        bpm, cycles, beats: of the loop; beats also as a meter, '7/8'.
        engine, backend: as in `open_engine`; or an engine that is open, and stays so.
        steps: of the solver; None: the engine's.
        controls: any other control that the engine reads, and notes: a number, a text, a pattern,
            and for a curve (`blend`, `hint`, `detail`) also an array over the loop.

    A list (or an array, where it is no curve) makes a batch: value i of each list is for loop i,
    and what is no list is for all. Lists that are shorter begin again.

    Returns:
        Generated; a list of them for a batch.

    Raises:
        DemonError: a word or a value that no score may have, a source that cannot be read.
    """
    asked = {"prompt": prompt, "denoise": denoise, "seed": seed, **controls}
    rows, batch = _rows(asked)
    opened = open_engine(engine, backend=backend) if isinstance(engine, str) else engine
    try:
        tempo = TempoMap.start(exact(bpm), _beats(beats))
        said = _deck(source, cycles)
        loop = make_loop(said, tempo, Fraction(0), 0)
        fitted = _fitted(source if said.source is None else said.source, loop)
        given = None
        if fitted is not None and not loop.notes:
            given = Source(encoded(opened, fitted, loop.frames), fitted)
        played = Guides(opened, lambda file: _given(fitted), None, _refuse)
        requests = [
            replace(_request(row, loop, tempo, given, played, opened), deck=str(i))
            for i, row in enumerate(rows)
        ]
        made = _run(requests, opened, steps or opened.steps)
        done = [
            Generated(_sound(made[r.deck], r, given, loop, opened), made[r.deck], r, row)
            for r, row in zip(requests, rows, strict=True)
        ]
    finally:
        if isinstance(engine, str):
            opened.close()
    return done if batch else done[0]


def _beats(value: float | str) -> Beats:
    with Score("<generate>") as said:
        setting("beats")(value)
    count = exact(said.program().settings["beats"])
    return int(count) if count.denominator == 1 else count


def _control(name: str) -> Control:
    control = find(name)
    # What a deck says of it is checked by the language, names included.
    if control is not None and control.cls not in ("step", "slot", "notes"):
        raise UsageError(
            f"{name} is no control of a generation: it is of class {control.cls}",
            hint="play it in a score, with render",
        )
    return control or Control(name, "number", "slot", None, "", "")


def _rows(asked: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """(the arguments of each loop, whether they are a batch)."""
    lists: dict[str, Sequence[Any]] = {}
    for name, value in asked.items():
        shape = getattr(value, "shape", ())
        if isinstance(value, (list, tuple)):
            lists[name] = value
        elif len(shape) == 1 and _control(name).shape != "curve":
            lists[name] = list(value)
    if any(not len(values) for values in lists.values()):
        raise UsageError("a list of arguments is empty")
    count = max((len(values) for values in lists.values()), default=1)
    if count > _BATCH:
        raise UsageError(f"a batch has at most {_BATCH} loops, this one has {count}")
    rows = [
        {
            name: lists[name][i % len(lists[name])] if name in lists else v
            for name, v in asked.items()
        }
        for i in range(count)
    ]
    return rows, bool(lists)


def _request(
    row: Mapping[str, Any],
    loop: Loop,
    tempo: TempoMap,
    given: Source | None,
    played: Guides,
    engine: Engine,
) -> Request:
    times = tempo.cycles_at(np.arange(loop.frames) * RATES.hop)
    curves = {
        name: _frames(name, value, loop.frames)
        for name, value in row.items()
        if len(getattr(value, "shape", ())) and number_of(value) is None
    }
    values: dict[str, float | str] = {}
    notes: dict[str, Lane] = {}
    for name, lane in _lanes({n: v for n, v in row.items() if n not in curves}).items():
        if _control(name).cls == "notes":
            notes[name] = lane
        elif _control(name).shape == "curve":
            curves[name] = lane.sample(times)
        else:
            values[name] = lane.at(Fraction(0))
    unknown = sorted({*curves, *values} - engine.controls - {"seed", "denoise", "prompt"})
    if unknown:
        raise ScoreError(
            f"{engine.name} does not know {unknown[0]}",
            hint=f"it knows: {', '.join(sorted(engine.controls))}",
        )
    heard = phrase(notes, Fraction(0), loop.cycles) if notes else None
    if heard is not None and not loop.notes and not getattr(engine, "told_notes", False):
        raise ScoreError(
            f"{engine.name} is told no notes: {next(iter(notes))} would not be heard",
            hint="play them to it: source='notes'",
        )
    source = None if given is None else given.latent
    if loop.notes:
        source = played.get(loop, heard or Phrase(), str(values.get("prompt", "")))
        curves.setdefault("hint", np.full(loop.frames, NOTES_HINT, np.float32))
    timbre = str(values.get("timbre", ""))
    if timbre:
        engine.set_timbre(timbre, load_source(_find(timbre))[0])  # type: ignore[attr-defined]
    plan = (SlotValues(0, values),)
    block = ControlBlock("main", 0, loop, 0, lanes=curves, plan=plan)
    made = build_request(
        engine, "main", loop, source, block, Target(0, values), 0, timbre, curves, heard
    )
    return replace(made, values=values)


def _lanes(row: Mapping[str, Any]) -> Mapping[str, Lane]:
    """What the arguments mean, by the rules of scores."""
    with Score("<generate>") as said:
        for name, value in row.items():
            if not (isinstance(value, str) and not value):
                setattr(deck, name, value)
    return said.program().decks["main"]


def _frames(name: str, value: Any, frames: int) -> Floats:
    """An array over the loop as a value a frame."""
    given = np.asarray(value, np.float32)
    if given.ndim != 1 or not np.isfinite(given).all():
        raise ScoreError(f"{name} has finite values [n], this is {list(given.shape)}")
    control = _control(name)
    places = np.arange(frames) * len(given) / frames
    curve = np.interp(places, np.arange(len(given) + 1), np.append(given, given[0]))
    return np.asarray(np.clip(curve, control.low, control.high), np.float32)


def _find(name: str | Path) -> Path:
    return find_source(str(name), "", (Path.cwd(), shipped("patterns")))


def _deck(source: Path | str | Floats | None, cycles: int) -> DeckState:
    """The deck of a score with such a source; an array is none of a score."""
    if not isinstance(source, (str, Path)):
        return DeckState("main", cycles=cycles)
    name = str(source).strip()
    file = name.removesuffix(PLUS_NOTES).rstrip()
    reading = PLUS_NOTES if file != name else ""
    return DeckState("main", cycles=cycles, source=file, reading=reading)


def _fitted(source: Path | str | Floats | None, loop: Loop) -> Floats | None:
    """The sound that is transformed, float32 [loop.samples, 2]; None if it is no sound."""
    if source is None or (isinstance(source, str) and source == NOTES):
        return None
    name = str(source) if isinstance(source, (str, Path)) else ""
    if name:
        audio = load_source(_find(name))[0]
    else:
        audio = np.asarray(source, np.float32)
        if audio.ndim != 2 or audio.shape[1] != 2 or not len(audio):
            raise UsageError(f"a source is float32 [n, 2] at 48 kHz, this is {list(audio.shape)}")
    return fit_loop(audio, loop.samples, loop.cycles, loop.beats, loop.bpm, name=name)[0]


def _given(audio: Floats | None) -> Floats:
    assert audio is not None
    return audio


def _refuse(text: str) -> None:
    raise ScoreError(text)


def _sound(
    latent: Floats, request: Request, given: Source | None, loop: Loop, engine: Engine
) -> Floats:
    """A loop, decoded: float32 [loop.samples, 2]."""
    if given is None:
        decoder = WindowDecoder(engine.decode, engine.margin, window=engine.window)
        return decoder.full(latent)[: loop.samples]
    detail = DetailDecoder(engine, latent=given.latent, audio=given.audio)
    detail.note(latent, request.curves or {}, 1.0)
    size = max(1, engine.window)
    pieces = [
        detail.again(latent, at, min(size, loop.frames - at)) for at in range(0, loop.frames, size)
    ]
    return np.concatenate(pieces)[: loop.samples]


def _run(requests: Sequence[Request], engine: Engine, steps: int) -> dict[str, Floats]:
    """deck -> its latent. Raises DemonError."""
    ring = Ring(
        engine,
        steps=steps,
        depth=max(1, min(len(requests), _ROWS)),
        shift=engine.shift,
        device=engine.device,
    )
    try:
        for request in requests:
            ring.submit(request)
        done = {g.request.deck: g.latent for g in ring.flush()}
        if len(done) < len(requests):
            raise ring.trouble or ScoreError("the engine gives what is no number")
        return done
    finally:
        ring.close()
