"""Decks into one stereo stream: loops, cross-fades, strips, bus, limiter.

    loop (Loop + PCM) -> finite check -> hpf -> lpf -> gain, mute -> pan      per deck
    sum -> master, start-up, hush -> [DC block] -> finite check -> limiter     once

Pure and deterministic: a function of the calls made so far and of the loops' content. The audio
process and offline rendering run this same code. All times are samples of the output stream.

The limiter looks ahead, so the mixer reads LOOK samples further than it gives out: output is never
late on the timeline, but everything before `decided` is settled, and edits apply from there on.

Threads: owned by one thread (the feeder, or the renderer).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np

from demon_live.audio.likeness import likeness
from demon_live.audio.limiter import LOOK, Limiter
from demon_live.audio.pcmring import LoopBuffer
from demon_live.audio.strip import Doubles, Filter, Ramp, Slewed, pan, scale
from demon_live.controls import CONTROLS, names
from demon_live.core import Floats, Loop, MixPoints

__all__ = ["BLOCK", "FADE", "Mixer"]

BLOCK = 480  #: samples that one block renders: 10 ms
FADE = 480  #: samples of the cross-fade between two loops of a deck, centred on the switch
SWITCH = 0.01  #: seconds that mute, solo, hush and wake take
ABSURD = 16.0  #: 24 dB over full scale: more than any loop means


def _checked(audio: Doubles) -> tuple[Doubles, int]:
    """`audio` without samples that no loudspeaker should get, and how many there were."""
    if np.abs(audio).max() <= ABSURD:  # False for NaN, too
        return audio, 0
    wrong = ~(np.abs(audio) <= ABSURD)
    return np.where(wrong, 0.0, audio), int(wrong.sum())


class _Voice:
    """A loop with its sound, coming in from sample `begin` on. audio None is silence."""

    __slots__ = ("audio", "begin", "likeness", "loop")

    def __init__(self, loop: Loop | None, audio: Floats | None, begin: int) -> None:
        self.loop = loop
        self.audio = audio
        self.begin = begin
        self.likeness: float | None = None

    def fetch(self, a: int, n: int) -> Doubles:
        """float64 [n, 2]: what the loop says to output samples a .. a + n - 1."""
        out = np.zeros((n, 2))
        if self.audio is None or self.loop is None:
            return out
        done = 0
        lap, at = self.loop.locate(a)
        while done < n:
            length = self.loop.lap_start(lap + 1) - self.loop.lap_start(lap)
            m = min(n - done, length - at)
            piece = self.audio[at : at + m]
            # A loop that is too short (a damaged file) leaves silence, never an error.
            out[done : done + len(piece)] = piece
            done += m
            lap, at = lap + 1, 0
        return out


class _Loop:
    """The loops of one deck after each other, cross-faded."""

    def __init__(self) -> None:
        self._voices: list[_Voice] = [_Voice(None, None, 0)]

    def add(self, voice: _Voice, decided: int, fresh: bool) -> None:
        """`voice.begin` is the switch; planned loops from there on are superseded."""
        switch = voice.begin
        kept = [v for v in self._voices[1:] if v.begin + FADE // 2 < switch or v.begin < decided]
        self._voices = [self._voices[0], *kept]
        if fresh and switch <= decided + FADE // 2 and not kept:
            # The very beginning: the start-up ramp does what a fade would.
            voice.begin = decided
            self._voices = [voice]
            return
        voice.begin = max(switch - FADE // 2, decided)
        if kept:
            voice.begin = max(voice.begin, kept[-1].begin + FADE)
        self._voices.append(voice)

    def read(self, a: int, n: int) -> Doubles:
        """float64 [n, 2] from output sample a on."""
        out = np.empty((n, 2))
        done = 0
        while done < n:
            here = a + done
            while len(self._voices) > 1 and self._voices[1].begin + FADE <= here:
                del self._voices[0]
            following = self._voices[1] if len(self._voices) > 1 else None
            if following is None:
                m = n - done
                out[done:] = self._voices[0].fetch(here, m)
            elif here < following.begin:
                m = min(n - done, following.begin - here)
                out[done : done + m] = self._voices[0].fetch(here, m)
            else:
                m = min(n - done, following.begin + FADE - here)
                out[done : done + m] = self._blend(self._voices[0], following, here, m)
            done += m
        return out

    @staticmethod
    def _blend(old: _Voice, new: _Voice, a: int, n: int) -> Doubles:
        """Equal power between different sounds, equal amplitude between equal ones, and between."""
        if new.likeness is None:
            x, y = old.fetch(new.begin, FADE), new.fetch(new.begin, FADE)
            new.likeness = likeness(x, y, silent=0.0)
        u = (np.arange(a, a + n) - new.begin + 0.5) * (np.pi / 2 / FADE)
        down, up = np.cos(u), np.sin(u)
        level = np.sqrt(1.0 + 2.0 * new.likeness * down * up)
        leaving, coming = (down / level)[:, None], (up / level)[:, None]
        mixed: Doubles = old.fetch(a, n) * leaving + new.fetch(a, n) * coming
        return mixed

    @property
    def over(self) -> bool:
        """True when only silence is left."""
        return len(self._voices) == 1 and self._voices[0].audio is None


class _Strip:
    """One deck: its loop, its controls, its gate."""

    def __init__(self, open_: bool) -> None:
        self.buffer = _Loop()
        self.controls = {name: Slewed(CONTROLS[name]) for name in names("mix")}
        self.gate = Ramp(1.0 if open_ else 0.0, SWITCH)
        self.ending = False
        self._hpf = Filter("high", CONTROLS["hpf"].low)
        self._lpf = Filter("low", CONTROLS["lpf"].high)

    def process(self, a: int, n: int) -> tuple[Doubles, int]:
        """float64 [n, 2] from output sample a on, and the number of samples that were not sound."""
        audio, bad = _checked(self.buffer.read(a, n))
        audio = self._hpf.process(audio, self.controls["hpf"].curve(a, n))
        audio = self._lpf.process(audio, self.controls["lpf"].curve(a, n))
        audio = scale(audio, self.controls["gain"].curve(a, n))
        audio = scale(audio, self.gate.curve(n))
        return pan(audio, self.controls["pan"].curve(a, n)), bad


class Mixer:
    """All decks to one stream. start: the first sample. startup: seconds of the first ramp.

    stems: keep every deck's own sound, for render_stems. dc_block: a 5 Hz high-pass on the sum (it
    changes bits, so it is off unless asked for).
    """

    def __init__(
        self, *, start: int = 0, startup: float = 0.01, stems: bool = False, dc_block: bool = False
    ) -> None:
        self.position = start  #: the next output sample that render gives
        self.decided = start  #: everything before is settled
        self.bad = 0  #: samples that were not finite, and became silence
        self.power = 0.0  #: mean square of the last block
        self.peaks = (0.0, 0.0)  #: largest |sample| of the last block, left and right
        self._start = start
        self._stems = stems
        self._strips: dict[str, _Strip] = {}
        self._muted: set[str] = set()
        self._soloed: set[str] = set()
        self._later: list[tuple[int, int, str, str]] = []
        self._count = 0
        self._master = Ramp(1.0, SWITCH)
        self._start_ramp = Ramp(0.0 if startup > 0 else 1.0, startup)
        self._start_ramp.target = 1.0
        self._hush = Ramp(1.0, SWITCH)
        self._dc = Filter("high", -1.0) if dc_block else None
        self._limiter = Limiter()
        self._tails: dict[str, Doubles] = {}

    # --- what may be asked -------------------------------------------------------------------

    @property
    def decks(self) -> list[str]:
        """The decks that sound or will, in the order in which they are summed."""
        return sorted(self._strips)

    @property
    def limited_db(self) -> float:
        """How much the limiter took away in the last block, dB >= 0."""
        return self._limiter.reduction_db

    # --- what may be told --------------------------------------------------------------------

    def add_loop(self, loop: Loop, sound: LoopBuffer | Floats) -> None:
        """From loop.from_sample on the deck plays `sound` (float32 [loop.samples, 2], read as it
        plays).

        The newer call wins: loops planned for the same or a later sample are dropped. A switch
        that is already decided happens at once.
        """
        audio = sound.audio if isinstance(sound, LoopBuffer) else sound
        if audio.ndim != 2 or audio.shape[1] != 2 or not len(audio):
            raise ValueError(f"a loop is float32 [samples, 2], not {audio.shape}")
        strip = self._strip(loop.deck)
        strip.ending = False
        fresh = self.decided == self._start
        strip.buffer.add(_Voice(loop, audio, loop.from_sample), self.decided, fresh)

    def remove_deck(self, deck: str, at: int = 0) -> None:
        """The deck fades out around sample `at` and is forgotten."""
        if deck in self._strips:
            self._strips[deck].buffer.add(_Voice(None, None, at), self.decided, False)
            self._strips[deck].ending = True

    def set_mix(self, deck: str, points: Mapping[str, MixPoints]) -> None:
        """Replaces the automation of the strip; what is not given returns to its default."""
        unknown = set(points) - set(names("mix"))
        if unknown:
            raise ValueError(f"not a control of the mix strip: {', '.join(sorted(unknown))}")
        for name, control in self._strip(deck).controls.items():
            control.follow(points.get(name))

    def mute(self, deck: str, at: int = 0) -> None:
        """Silences a deck from sample `at` on (at once, if that is decided), within 10 ms."""
        self._order(at, "mute", deck)

    def unmute(self, deck: str, at: int = 0) -> None:
        """Takes a mute back."""
        self._order(at, "unmute", deck)

    def solo(self, deck: str, at: int = 0) -> None:
        """Only soloed decks are heard."""
        self._order(at, "solo", deck)

    def unsolo(self, deck: str | None = None, at: int = 0) -> None:
        """Takes back one solo, or all."""
        self._order(at, "unsolo", deck or "")

    def hush(self, at: int = 0) -> None:
        """Fades everything out within 10 ms; the loops run on unheard until `wake`."""
        self._order(at, "hush", "")

    def wake(self, at: int = 0) -> None:
        """Fades in again within 10 ms."""
        self._order(at, "wake", "")

    def master(self, gain: float) -> None:
        """Loudness of the sum, 0 to 2."""
        self._master.target = min(2.0, max(0.0, gain))

    # --- what comes out ----------------------------------------------------------------------

    def render(self, blocks: int = 1) -> Floats:
        """The next float32 [480 * blocks, 2]. Same samples however the calls are cut."""
        return np.concatenate([self._block({}) for _ in range(blocks)])

    def render_stems(self, blocks: int = 1) -> tuple[Floats, dict[str, Floats]]:
        """Like render, and beside it what each deck gave to the sum (before the limiter)."""
        if not self._stems:
            raise ValueError("this mixer was made without stems=True")
        parts: list[dict[str, Floats]] = []
        mixed = []
        for _ in range(blocks):
            parts.append({})
            mixed.append(self._block(parts[-1]))
        decks = sorted({deck for part in parts for deck in part})
        silent = np.zeros((BLOCK, 2), np.float32)
        return np.concatenate(mixed), {
            deck: np.concatenate([part.get(deck, silent) for part in parts]) for deck in decks
        }

    def skip(self) -> None:
        """Goes on at the next block after render has raised."""
        self.position += BLOCK
        self.decided = self.position + LOOK

    # --- inside ------------------------------------------------------------------------------

    def _strip(self, deck: str) -> _Strip:
        if deck not in self._strips:
            self._strips[deck] = _Strip(self._open(deck))
        return self._strips[deck]

    def _open(self, deck: str) -> bool:
        return deck not in self._muted and (not self._soloed or deck in self._soloed)

    def _order(self, at: int, what: str, deck: str) -> None:
        self._count += 1
        heapq.heappush(self._later, (at, self._count, what, deck))

    def _obey(self) -> None:
        """Carries out the orders whose time has come."""
        while self._later and self._later[0][0] <= self.decided:
            _, _, what, deck = heapq.heappop(self._later)
            if what == "hush":
                self._hush.target = 0.0
            elif what == "wake":
                self._hush.target = 1.0
            elif what == "mute":
                self._muted.add(deck)
            elif what == "unmute":
                self._muted.discard(deck)
            elif what == "solo":
                self._soloed.add(deck)
            elif deck:
                self._soloed.discard(deck)
            else:
                self._soloed.clear()
            for name, strip in self._strips.items():
                strip.gate.target = 1.0 if self._open(name) else 0.0

    def _block(self, stems: dict[str, Floats]) -> Floats:
        if self.decided == self._start:
            self._advance(LOOK, {})
        out = self._advance(BLOCK, stems).astype(np.float32)
        self.position += BLOCK
        self.power = float(np.vdot(out, out)) / (2 * BLOCK)
        left, right = np.abs(out).max(axis=0)
        self.peaks = (float(left), float(right))
        return out

    def _advance(self, n: int, stems: dict[str, Floats]) -> Doubles:
        """Reads n more samples of every loop; gives the n samples that leave the limiter."""
        total = np.empty((n, 2))
        parts: dict[str, Doubles] = {}
        done = 0
        while done < n:
            self._obey()
            m = n - done
            if self._later:
                m = min(m, self._later[0][0] - self.decided)
            total[done : done + m] = self._sum(m, parts, done, n)
            done += m
        if self._stems:
            self._delay(parts, n, stems)
        return self._limiter.process(total)

    def _delay(self, parts: dict[str, Doubles], n: int, stems: dict[str, Floats]) -> None:
        """Stems wait for the limiter's look-ahead, as the sum does."""
        silence = np.zeros((LOOK, 2))
        for deck in sorted({*parts, *self._tails}):
            new = parts.get(deck, np.zeros((n, 2)))
            audio = np.concatenate((self._tails.pop(deck, silence), new))
            stems[deck] = audio[:n].astype(np.float32)
            if deck in parts:
                self._tails[deck] = audio[n:]

    def _sum(self, n: int, parts: dict[str, Doubles], at: int, size: int) -> Doubles:
        """The next n samples of all decks; each deck's own go to parts[deck][at : at + n]."""
        total = np.zeros((n, 2))
        bus = [ramp.curve(n) for ramp in (self._master, self._start_ramp, self._hush)]
        for deck in sorted(self._strips):
            strip = self._strips[deck]
            audio, bad = strip.process(self.decided, n)
            self.bad += bad
            for gain in bus:
                audio = scale(audio, gain)
            total += audio
            if self._stems:
                parts.setdefault(deck, np.zeros((size, 2)))[at : at + n] = audio
            if strip.ending and strip.buffer.over:
                del self._strips[deck]
        if self._dc is not None:
            total = self._dc.process(total, 5.0)
        self.decided += n
        total, bad = _checked(total)
        self.bad += bad
        return total
