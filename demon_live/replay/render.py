"""Offline: a score or a set as audio, the same bytes each time.

    what equals what: two renders of a set, on one machine; a render from a cycle on and that
    stretch of the whole render; a take made offline and the render of its set. A take made live
    has the same causes at the same samples, but its engine ticked by the clock on the wall: its
    render is the same music, not the same bits.

Threads: everything runs in the caller's.
"""

from __future__ import annotations

import base64
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from demon_live.audio.files import WAV_LIMIT, write_audio
from demon_live.audio.sinks import checked_target
from demon_live.core import RATES, Floats, Generation
from demon_live.errors import DemonError, FileError, UsageError
from demon_live.lang.dsl_score import Score
from demon_live.models.engine import Engine
from demon_live.models.manifest import load_manifest
from demon_live.paths import shipped
from demon_live.pictures import of_sound
from demon_live.runtime.offline import Offline
from demon_live.runtime.seek import Moment, dry_run, place_of, pre_roll, seek
from demon_live.session.assets import Assets, Find, find_source
from demon_live.sets import journal
from demon_live.sets.recorder import engine_for, notices
from demon_live.sets.set_files import bounds, causes, folder_of

#: Hours of a render, unless its seconds are given.
LONGEST = 24


def replay_into(
    offline: Offline, recording: journal.Recording, trust: bool = False
) -> Callable[[], None]:
    """A function that applies the causes whose time has come; call it before each turn."""
    events = deque(causes(recording, trust))

    def step() -> None:
        now = offline.output.playhead.now()
        while events and events[0].sample <= now:
            event = events.popleft()
            try:
                offline.session.repeat(event, now=event.sample)
            except DemonError as error:
                raise FileError(
                    f"the set cannot be replayed at sample {event.sample}: {error}",
                    hint="are the files that it names still there?",
                ) from error

    return step


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a render gave. A notebook shows it as a player.

    Attributes:
        path: of the file that was written.
        audio: float32 [n, 2] at 48 kHz.
        stems: deck -> float32 [n, 2].
        generations: the newest latents, at most 256, with what they were made of.
    """

    path: Path | None
    audio: Floats
    stems: Mapping[str, Floats] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    generations: tuple[Generation, ...] = ()

    def save(self, path: Path | str) -> Path:
        """Write the sound as .wav or .flac. Raises FileError."""
        write_audio(path, self.audio)
        return Path(path)

    def __repr__(self) -> str:
        return f"<Rendered {len(self.audio) / RATES.sample_rate:.2f} s, {self.path or 'no file'}>"

    def _repr_html_(self) -> str:
        return player(self.audio)


#: Seconds of a player in a notebook at most: its sound is part of the page.
_PLAYER = 60


def player(audio: Floats) -> str:
    """Sound float32 [n, 2] as a picture of its peaks and a player, for a page."""
    short = np.clip(audio[: _PLAYER * RATES.sample_rate], -1, 1)
    pcm = np.round(short * 32767).astype("<i2").tobytes()
    rate = RATES.sample_rate
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 2, rate, rate * 4,
        4, 16, b"data", len(pcm),
    )  # fmt: skip
    data = base64.b64encode(head + pcm).decode()
    picture = of_sound(audio, rate, f"{len(audio) / rate:.2f} s").svg
    return f'{picture}<audio controls src="data:audio/wav;base64,{data}"></audio>'


def render(
    what: Path | str | Score | journal.Recording,
    out: Path | str | None = None,
    *,
    cycles: float | None = None,
    seconds: float | None = None,
    start: float | None = None,
    engine: str | Engine | None = None,
    backend: str | None = None,
    seed: int | None = None,
    stems: bool = False,
    trust: bool = False,
    python: bool = False,
    input: Path | str | None = None,
    find: Find = find_source,
    progress: Callable[[float], None] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Rendered:
    """Render a score or a set to a WAV or FLAC file (or, without `out`, to an array).

    Args:
        what: the path of a score or a set; a Score; a Recording.
        out: the file.
        cycles, seconds: how much; a score gives 8 cycles by default, a set its own length.
        start: the cycle to begin with; what comes is bit for bit that stretch of the whole render.
            None: where the set was begun to be recorded, or 0.
        engine, backend: as in `open_engine`, or an engine that is open; None: the set's own, for a
            score imp.
        seed: added to every seed of the score; a set brings its own.
        stems: one more file a deck, what it gave to the sum before the limiter; a score that says
            `record NAME tracks` writes them as NAME-DECK.flac beside `out`.
        trust: a set that was not recorded here may read sources anywhere.
        python: a score in a .py file may run.
        input: a sound file that a score is played into from its first sample on.
        find: finds the files of sources.
        progress: told the part done, 0..1.
        tell: called with each warning, before anything is generated.

    Raises:
        DemonError: nothing was written.
    """
    if out is not None:
        checked_target(out)
    recording = _recording(what)
    if recording is not None and input is not None:
        raise UsageError("a set brings what was played in", hint="render it without an input")
    if seed is None:
        seed = recording.start.get("seed", 0) if recording else 0
    assets = _assets(recording, trust, find)
    rules = recording.rules if recording is not None else journal.RULES
    chosen = backend or "auto"
    warnings: tuple[str, ...] = ()
    if engine is None or isinstance(engine, str):
        engine, chosen = engine_for(recording, engine, backend)
    if recording is not None:
        about = load_manifest(engine) if isinstance(engine, str) else engine.manifest
        warnings = tuple(notices(recording, about))
        for line in warnings:
            tell(line)
    with Offline(
        engine,
        backend=chosen,
        seed=seed,
        stems=stems or recording is None,
        assets=assets,
        input=input,
        rules=rules,
    ) as offline:
        step: Callable[[], None] = lambda: None  # noqa: E731
        if recording is not None:
            moments = list(dry_run(recording, find=find, trust=trust))
            step = replay_into(offline, recording, trust)
            step()
        else:
            offline.session.python = python
            warnings = _say(offline, what)
            for line in warnings:
                tell(line)
            moments = [Moment(0, journal.SetEvent("apply", 0), offline.session.state)]
        if start is None:
            begin = recording.begun if recording is not None else 0
            start = float(moments[-1].state.tempo.cycle_at(begin))
        else:
            begin = place_of(Fraction(start), moments)
        total = _length(moments, recording, start, begin, cycles, seconds)
        _must_fit(out, total, explicit=seconds is not None)
        if begin:
            seek(offline, step, pre_roll(begin, moments, offline.output.generator.drain), begin)
        recorder = offline.session.recorder
        tracks = recorder.name if recorder.tracks else None
        audio, parts = _collect(offline, step, begin, total, stems or bool(tracks), progress)
        made = tuple(offline.generations()[1])
    if out is not None:
        out = Path(out)
        write_audio(out, audio)
        for deck, part in parts.items():
            if stems:
                write_audio(out.with_name(f"{out.stem}-{deck}{out.suffix}"), part)
            if tracks:
                write_audio(out.with_name(f"{tracks}-{deck}.flac"), part)
    return Rendered(out, audio, parts, warnings, made)


def _assets(recording: journal.Recording | None, trust: bool, find: Find) -> Assets:
    folders = (Path.cwd(), shipped("patterns"))
    if recording is None:
        return Assets(folders, find=find)
    copies = None if recording.path is None else folder_of(recording.path)
    return Assets(folders, within=bounds(recording.path, trust), find=find, copies=copies)


def _say(offline: Offline, what: object) -> tuple[str, ...]:
    """Let a score play from the first sample on: its warnings."""
    session = offline.session
    said = session.apply(what) if isinstance(what, Score) else session.load(Path(str(what)))
    return said.warnings


def _recording(what: object) -> journal.Recording | None:
    """The set that is to be rendered; None for a score. Raises DemonError."""
    if isinstance(what, journal.Recording):
        return what
    if isinstance(what, Score):
        return None
    if not isinstance(what, (str, Path)):
        raise UsageError(
            f"this is no score: {type(what).__name__}",
            hint="render takes a path, a Score or a Recording",
        )
    return journal.load(what) if Path(what).name.endswith(journal.SUFFIX) else None


def _length(
    moments: list[Moment],
    recording: journal.Recording | None,
    start: float,
    begin: int,
    cycles: float | None,
    seconds: float | None,
) -> int:
    """Output samples from `begin` on. Raises UsageError if there are none."""
    if cycles is not None and seconds is not None:
        raise UsageError("give cycles or seconds, not both")
    if seconds is not None:
        total = round(seconds * RATES.sample_rate)
    elif cycles is not None or recording is None:
        end = Fraction(start) + Fraction(8 if cycles is None else cycles)
        total = place_of(end, moments) - begin
    else:
        total = recording.length - begin
    if total <= 0:
        why = f"cycle {start:g} is after the end of the set" if begin else "the length is 0"
        raise UsageError(f"nothing to render: {why}", hint="give --cycles or --seconds")
    return total


def _must_fit(out: Path | str | None, total: int, explicit: bool) -> None:
    """Raise DemonError for a length that nobody means, or that the file cannot hold."""
    hours = total / RATES.sample_rate / 3600
    if hours > LONGEST and not explicit:
        raise UsageError(
            f"this would be {hours:.0f} hours of sound", hint=f"for over {LONGEST}: --seconds"
        )
    if out is not None and Path(out).suffix.lower() == ".wav" and total * 8 > WAV_LIMIT:
        raise FileError(f"{out} would be over 4 GB, more than a WAV can hold", hint="write .flac")


def _collect(
    offline: Offline,
    step: Callable[[], None],
    begin: int,
    total: int,
    stems: bool,
    progress: Callable[[float], None] | None,
) -> tuple[Floats, dict[str, Floats]]:
    """The sound of output samples begin .. begin + total - 1, and of each deck."""
    # Pages that nothing is written to cost nothing, so all of it may be asked for at once.
    try:
        audio: Floats = np.zeros((total, 2), np.float32)
    except MemoryError:
        raise UsageError("there is no memory for so much sound", hint="render a part") from None
    parts: dict[str, Floats] = {}
    while (at := offline.output.mixer.position - begin) < total:
        step()
        piece, part = offline.stems() if stems else (offline.turn(), {})
        skip, length = max(0, -at), min(len(piece), total - at)
        audio[at + skip : at + length] = piece[skip:length]
        for deck, sound in part.items():
            if deck not in parts:
                parts[deck] = np.zeros((total, 2), np.float32)
            parts[deck][at + skip : at + length] = sound[skip:length]
        if progress is not None:
            progress(min(1.0, (at + length) / total))
    return audio, dict(sorted(parts.items()))
