"""The messages of the web page, made once for all pages, each only when it has changed.

    frame   30 a second: where the music is, levels, slots, which written steps sound
    scene   decks, lanes and their curves
    score   the texts that play, in coloured pieces, and what is wrong with them
    sound   a loop's spectrum and waveform (binary), a deck at a time

Every message is JSON, but for `sound`.

Threads: a `PageState` belongs to one thread.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from demon_live.audio.pcmring import LoopBuffer
from demon_live.controls import find
from demon_live.core import RATES, Floats, plain_beats
from demon_live.errors import DemonError
from demon_live.lang.highlighting import BindingHighlight, highlights
from demon_live.session.status import DeckView, LaneView, Status

if TYPE_CHECKING:
    from demon_live.session.session import Session

#: Files that a page shows, and letters of one.
_MOST_FILES, _MOST_TEXT = 8, 16_000
#: Columns and bands of a spectrogram; columns of a waveform.
COLUMNS, BANDS, WAVE = 320, 56, 640
_WINDOW = 2048
_LOW, _HIGH = 45.0, 14_000.0
#: Black is this far below the loudest of a loop, in dB; a loop below _QUIET is black.
_RANGE, _QUIET = 58.0, -50.0
_HANN = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _round(value: float, digits: int = 3) -> float:
    return round(float(value), digits) if np.isfinite(value) else 0.0


@dataclass
class PageState:
    """Makes messages of the changes in the session of this process."""

    session: Session
    _status: Status | None = None
    _scene: str = ""
    _score: str = ""
    _texts: Mapping[str, str] = field(default_factory=dict)
    _lines: list[tuple[int, BindingHighlight]] = field(default_factory=list)
    _lit: list[tuple[int, int, int]] | None = None
    _sounds: dict[str, tuple[int, int]] = field(default_factory=dict)
    _turn: int = 0

    def look(self) -> dict[str, str]:
        """Read status and texts, about ten times a second: the changed messages, by kind."""
        status = self._status = self.session.status()
        found = {}
        scene = _json({"k": "scene", **_scene(status)})
        if scene != self._scene:
            found["scene"] = self._scene = scene
        score = self._text(status)
        if score != self._score:
            found["score"] = self._score = score
        return found

    def all(self) -> dict[str, str]:
        """All messages for a page that has just opened."""
        return {"scene": self._scene, "score": self._score} if self._scene else {}

    def forget(self) -> None:
        """Send sounds and lit steps again: a page has opened."""
        self._sounds.clear()
        self._lit = None

    # --- frames -------------------------------------------------------------------------------

    def frame(self) -> str:
        """The message of the moment that is heard now."""
        output, state, status = self.session.output, self.session.state, self._status
        now = output.playhead.now()
        ahead = status.ahead_ms / 1000 if status else 0.0
        bpm, beats = float(state.tempo.segment_of(now).bpm), plain_beats(state.beats)
        cycle = float(state.tempo.cycle_at(now)) - ahead * bpm / 60 / beats
        dry, (left, right) = output.meters()
        row: dict[str, Any] = {
            "k": "f", "c": _round(cycle, 5), "b": _round(bpm), "n": beats, "d": dry,
            "m": [_round(left, 1), _round(right, 1)], "s": self._slots(status),
        }  # fmt: skip
        heard = self.session.captures.input
        if heard is not None:
            level = heard.status(output.heard())
            row["i"] = _round(level.peak_db, 1) if level.state == "open" else level.state
        lit = self._sounding(cycle)
        if lit != self._lit:
            self._lit = row["L"] = lit
        return _json(row)

    @staticmethod
    def _slots(status: Status | None) -> list[list[float]]:
        if status is None:
            return []
        if status.telemetry.resting:
            # What plays is made: a finished picture of each deck.
            return [[i, 1, 1, 0.0] for i in range(len(status.decks))]
        order = {deck.name: i for i, deck in enumerate(status.decks)}
        return [[order.get(s.deck, 0), s.step, s.steps, _round(s.denoise)] for s in status.slots]

    def _sounding(self, cycle: float) -> list[tuple[int, int, int]]:
        """(file, start, stop) of the written steps that sound."""
        playing = self._playing("text")
        return [
            (file, step.start, step.stop)
            for file, line in self._lines
            if (line.deck, line.control, line.text) in playing
            for step in line.active(cycle)
        ]

    def _playing(self, what: str) -> set[tuple[str, str, str]]:
        decks = self._status.decks if self._status else ()
        return {(d.name, v.control, getattr(v, what)) for d in decks for v in d.lanes}

    # --- scores -------------------------------------------------------------------------------

    def _text(self, status: Status) -> str:
        scores = dict(list(self.session.scores().items())[-_MOST_FILES:])
        if scores != self._texts:
            self._texts = scores
            self._lines = [
                (i, line) for i, text in enumerate(scores.values()) for line in _marked(text)
            ]
        live, waiting = self._playing("text"), self._playing("coming")
        files: list[dict[str, Any]] = [
            {"name": name, "text": text[:_MOST_TEXT], "tokens": _tokens(text), "live": []}
            for name, text in scores.items()
        ]
        for file, line in self._lines:
            key = (line.deck, line.control, line.text)
            state = 1 if key in live else 2 if key in waiting else 0
            files[file]["live"].append([line.start, line.stop, state, line.deck])
        errors = [_error(name, error) for name, error in status.errors.items()]
        return _json({"k": "score", "files": files, "errors": errors})

    # --- sound --------------------------------------------------------------------------------

    def sound(self) -> bytes | None:
        """The message of the next deck's loop, if the loop has changed since it was last sent."""
        state, output = self.session.state, self.session.output
        folder = getattr(output, "folder", None)
        names = list(state.decks)
        if not names or folder is None:
            return None
        self._turn = (self._turn + 1) % len(names)
        name = names[self._turn]
        loop = state.decks[name].playing(output.playhead.now())
        if loop is None:
            return None
        try:
            buffer = LoopBuffer.open(Path(folder) / loop.file)
        except (DemonError, OSError):
            return None
        # An eighth of the samples shows whether there is anything new to see.
        known = (loop.epoch, zlib.crc32(buffer.audio[::8].tobytes()))
        if self._sounds.get(name) == known:
            return None
        self._sounds[name] = known
        picture = picture_of(buffer.audio)
        return sound_message(self._turn, picture.spectrum.tobytes(), picture.wave.tobytes())


def sound_message(deck: int, spectrum: bytes, wave: bytes) -> bytes:
    """1, deck, columns, bands, length of the wave (u8 u8 u16 u16 u16), spectrum, wave."""
    return struct.pack("<BBHHH", 1, deck, COLUMNS, BANDS, WAVE) + spectrum + wave


def _scene(status: Status) -> dict[str, Any]:
    return {
        "engine": status.engine,
        "device": status.device,
        "input": "" if status.sound_in is None else status.sound_in.words,
        "grade": status.grade if status.telemetry.alive else "late",
        "alive": status.telemetry.alive,
        "shed": status.telemetry.shed,
        "recording": status.recording and status.recording + " (lost)" * status.recording_lost,
        "hushed": status.hushed,
        "tick": round(status.tick_ms),
        "depth": status.telemetry.depth,
        "lead": round(status.lead_ms / 10) * 10,
        "decks": [_deck(deck) for deck in status.decks],
    }


def _deck(deck: DeckView) -> dict[str, Any]:
    return {
        "name": deck.name,
        "cycles": deck.cycles,
        "source": Path(deck.source).name if deck.source else None,
        "to": deck.to,
        "taken": deck.taken,
        "muted": deck.muted,
        "soloed": deck.soloed,
        "lanes": [_lane(lane) for lane in deck.lanes],
    }


def _lane(lane: LaneView) -> dict[str, Any]:
    row = {"control": lane.control, "text": lane.text, "coming": lane.coming}
    if lane.notes is not None:
        return {**row, "notes": [[round(x, 4) for x in note] for note in lane.notes]}
    if lane.samples is None:
        return {**row, "value": str(lane.value), "next": lane.next}
    samples = np.nan_to_num(np.asarray(lane.samples, np.float64))
    control = find(lane.control)
    log = control is not None and control.unit == "Hz" and lane.low > 0
    return {
        **row,
        "low": lane.low,
        "high": lane.high,
        "log": log,
        "samples": np.clip(np.rint(samples * 255), 0, 255).astype(int).tolist(),
    }


def _marked(text: str) -> list[BindingHighlight]:
    try:
        return highlights(text)
    except DemonError:
        return []


#: Kinds of pygments' tokens -> letters of the page's style sheet; the first that fits.
_LETTERS = (
    ("Comment", "c"), ("Keyword", "k"), ("Name.Variable", "v"), ("Name.Function", "f"),
    ("Name.Entity", "s"), ("Literal.String", "s"), ("Literal.Number", "n"), ("Operator", "o"),
    ("Punctuation", "o"), ("Name", "v"),
)  # fmt: skip


def _tokens(text: str) -> list[list[Any]]:
    """[start, letter] of each stretch of one kind."""
    from demon_live.lang.lexer import DemonLexer

    found: list[list[Any]] = []
    for at, token, _ in DemonLexer().get_tokens_unprocessed(text[:_MOST_TEXT]):
        kind = ".".join(token)
        letter = next((x for name, x in _LETTERS if kind.startswith(name)), "")
        if not found or found[-1][1] != letter:
            found.append([at, letter])
    return found


def _error(name: str, error: DemonError) -> dict[str, Any]:
    span = error.span
    return {
        "name": name,
        "line": span.line if span else 0,
        "message": error.message,
        "hint": error.hint or "",
    }


# --- pictures of the sound ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoopPicture:
    """spectrum: uint8 [COLUMNS, BANDS], low bands first; wave: uint8 [WAVE]."""

    spectrum: NDArray[np.uint8]
    wave: NDArray[np.uint8]


def _edges() -> NDArray[np.int64]:
    hertz = np.geomspace(_LOW, _HIGH, BANDS + 1)
    bins = np.maximum(1, np.rint(hertz * _WINDOW / RATES.sample_rate)).astype(np.int64)
    # Low bands are narrower than a bin: each still takes one of its own.
    for i in range(1, len(bins)):
        bins[i] = max(bins[i], bins[i - 1] + 1)
    return bins


_EDGES = _edges()


def picture_of(audio: Floats) -> LoopPicture:
    """The spectrum over time of one lap of a loop, and how loud it is.

    About 10 ms of one core for 8 s.

    Args:
        audio: float32 [n, 2].
    """
    mono = np.nan_to_num(audio.mean(axis=1, dtype=np.float32))
    n = len(mono)
    starts = np.arange(COLUMNS) * n // COLUMNS - _WINDOW // 2
    frames = mono[(starts[:, None] + np.arange(_WINDOW)) % n] * _HANN
    power = np.abs(np.fft.rfft(frames, axis=1))[:, : _EDGES[-1]]
    bands = np.maximum.reduceat(power, _EDGES[:-1], axis=1) * (4 / _WINDOW)
    # Music falls by some 4 dB an octave: lifted, so that high bands are seen, too.
    octaves = np.linspace(0, np.log2(_HIGH / _LOW), BANDS)
    level = 20 * np.log10(bands + 1e-9) + 3.0 * octaves
    loudest = max(float(np.percentile(level, 99.7)), _QUIET)
    spectrum = np.clip(((level - loudest) / _RANGE + 1) * 255, 0, 255).astype(np.uint8)
    cuts = np.arange(WAVE) * n // WAVE
    loud = np.maximum.reduceat(np.abs(mono), cuts)
    return LoopPicture(spectrum, np.clip(loud * 255, 0, 255).astype(np.uint8))
