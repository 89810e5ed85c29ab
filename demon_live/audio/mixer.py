"""Decks into one stereo stream: loops, cross-fades, strips, bus, limiter.

    loop -> finite check -> thru, hpf, lpf, drive, crush, gain, mute, pan, echo, room, duck  deck
    sum -> start-up, hush -> finite check -> the same strip -> limiter                         sum
    decks on other channels (`out`): sum -> start-up, hush -> limiter                          pair

Pure and deterministic: a function of the calls made so far and of the loops' content. The audio
process and offline rendering run this same code. All times are samples of the output stream.

The limiter looks ahead, so the mixer reads LOOK samples further than it gives out: output is never
late on the timeline, but everything before `decided` is settled, and edits apply from there on.

Threads: owned by one thread (the mix thread, or the renderer).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from demon_live.audio.channel import (
    LOOK,
    Curve,
    Doubles,
    Filter,
    Limiter,
    Ramp,
    Slewed,
    pan,
    scale,
)
from demon_live.audio.effects import ECHO, Duck, Memory, Tails, crush, drive, in_memory
from demon_live.audio.pcmring import LoopBuffer, likeness
from demon_live.controls import CONTROLS, names
from demon_live.core import Floats, Gate, Loop, MixPoints, MixState
from demon_live.errors import DemonError

BLOCK = 480  #: samples that one block renders: 10 ms
FADE = 480  #: samples of the cross-fade between two loops of a deck, centred on the switch
SWITCH = 0.01  #: seconds that a gate takes to open or close
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


#: The delay time comes in samples, and moves by fading from one to the other.
_TIMES = replace(CONTROLS["delaytime"], default=0.0, high=float(ECHO), slew=0.0)
_SLEWED = {n: CONTROLS[n] for n in names("mix") if CONTROLS[n].numeric} | {"delaytime": _TIMES}


class _Controls:
    """The controls of a strip. At their defaults they change no bit."""

    def __init__(self, name: str, memory: Memory) -> None:
        self._controls = {name: Slewed(control) for name, control in _SLEWED.items()}
        self._hpf = Filter("high", CONTROLS["hpf"].low)
        self._lpf = Filter("low", CONTROLS["lpf"].high)
        self.tails = Tails(name, memory)
        self._duck = Duck()

    def follow(self, points: Mapping[str, MixPoints]) -> None:
        """Replaces the automation; what is not given returns to its default.

        points: by the name of the control; of `duck`: "duck" for the beat, "duck DECK" for a deck.
        """
        ducks = {name: p for name, p in points.items() if name.partition(" ")[0] == "duck"}
        unknown = set(points) - set(_SLEWED) - set(ducks)
        if unknown:
            raise ValueError(f"not a control of the mix strip: {', '.join(sorted(unknown))}")
        for name, control in self._controls.items():
            control.follow(points.get(name))
        self._duck.follow({name.partition(" ")[2]: p for name, p in ducks.items()})

    def process(
        self,
        audio: Doubles,
        a: int,
        gate: Ramp | None = None,
        wet: Curve = 1.0,
        heard: Callable[[int, int], Floats] | None = None,
    ) -> Doubles:
        """float64 [n, 2], from output sample a on, but for the ducking.

        gate: opens and closes behind the gain. wet: gain of the tails. heard: the input that `thru`
        adds, by (a, n).
        """
        n = len(audio)
        curves = {name: control.curve(a, n) for name, control in self._controls.items()}
        thru = curves["thru"]
        if heard is not None and not (isinstance(thru, float) and thru == 0.0):
            audio = audio + scale(heard(a, n).astype(np.float64), thru)
        audio = self._hpf.process(audio, curves["hpf"])
        audio = self._lpf.process(audio, curves["lpf"])
        audio = crush(drive(audio, curves["drive"]), curves["crush"])
        audio = scale(audio, curves["gain"])
        if gate is not None:
            audio = scale(audio, gate.curve(n))
        return self.tails.process(pan(audio, curves["pan"]), a, curves, wet)

    def duck(self, audio: Doubles, a: int, decks: Mapping[str, Doubles]) -> Doubles:
        """float64 [n, 2] that makes way for others. decks: what each of them sounds like."""
        return scale(audio, self._duck.gain(a, len(audio), decks))


class _Strip:
    """One deck: its loop, its controls, its gate."""

    def __init__(self, name: str, open_: bool, memory: Memory) -> None:
        self.buffer = _Loop()
        self.controls = _Controls(name, memory)
        self.gate = Ramp(1.0 if open_ else 0.0, SWITCH)
        self.ending = False
        self.out = 1

    def process(
        self, a: int, n: int, heard: Callable[[int, int], Floats] | None
    ) -> tuple[Doubles, int]:
        """float64 [n, 2] from output sample a on, and the number of samples that were not sound."""
        audio, bad = _checked(self.buffer.read(a, n))
        return self.controls.process(audio, a, self.gate, heard=heard), bad

    @property
    def over(self) -> bool:
        """It has ended, and so have its tails."""
        return self.ending and self.buffer.over and not self.controls.tails.on


class Mixer:
    """All decks to one stream. start: the first sample. startup: seconds of the first ramp.

    stems: keep every deck's own sound, for render_stems. memory: where tails are kept.
    """

    def __init__(
        self,
        *,
        start: int = 0,
        startup: float = 0.01,
        stems: bool = False,
        memory: Memory = in_memory,
    ) -> None:
        self.position = start  #: the next output sample that render gives
        self.decided = start  #: everything before is settled
        self.bad = 0  #: samples that were not finite, and became silence
        self.power = 0.0  #: mean square of the last block
        self.peaks = (0.0, 0.0)  #: largest |sample| of the last block, left and right
        self._start = start
        self._stems = stems
        self._strips: dict[str, _Strip] = {}
        self._applied: dict[str, tuple[tuple[Loop, ...], int]] = {}
        self._gates: tuple[Gate, ...] = ()
        self._gate = Gate()
        self._start_ramp = Ramp(0.0 if startup > 0 else 1.0, startup)
        self._start_ramp.target = 1.0
        self._hush = Ramp(1.0, SWITCH)
        self._limiter = Limiter()
        self._memory = memory
        self._master = _Controls("master", memory)
        self._master_points: Mapping[str, MixPoints] = {}
        self._tails: dict[str, Doubles] = {}
        #: float32 [n, 2] of what is played in while samples a ... a + n - 1 are mixed.
        self.input: Callable[[int, int], Floats] | None = None
        self._outs: list[Limiter] = []
        self._out_master = self._master
        #: float32 [480, channels] of the last block, for a device with more than two channels.
        self.out: Floats | None = None

    def open_outs(self, channels: int) -> None:
        """Decks go to the channels that their `out` says; there are `channels` of them.

        A deck whose pair is not there goes to the first one.
        The mix that `render` gives stays that of all decks. The strip of the sum acts on the first
        pair.
        """
        self._outs = [Limiter() for _ in range(channels // 2)] if channels > 2 else []
        self._out_master = _Controls("out", in_memory)
        self._out_master.follow(self._master_points)
        self.out = None

    @property
    def decks(self) -> list[str]:
        """The decks that sound or will, in the order in which they are summed."""
        return sorted(self._strips)

    @property
    def limited_db(self) -> float:
        """How much the limiter took away in the last block, dB >= 0."""
        return self._limiter.reduction_db

    def apply(self, state: MixState, pcm: Callable[[Loop], LoopBuffer | Floats]) -> None:
        """Agree with a published state; it may be the same one again.

        Args:
            state: the newest.
            pcm: gives the sound of a loop that is new to this mixer.

        Raises:
            What `pcm` raised for a loop; everything else has been applied.
        """
        wrong: Exception | None = None
        for name in self._applied.keys() - state.decks.keys():
            del self._applied[name]
            self.remove_deck(name)
        for name, deck in state.decks.items():
            known, version = self._applied.get(name, ((), 0))
            self._applied[name] = deck.loops, deck.version
            for loop in deck.loops:
                if loop not in known:
                    try:
                        self.add_loop(loop, pcm(loop))
                    except (DemonError, OSError, ValueError) as error:
                        # The loop before it plays on, and so does every other deck.
                        wrong = wrong or error
            if deck.points is not None and deck.version != version:
                self.set_mix(name, deck.points)
            self._strip(name).out = deck.out
            if deck.ends is not None and not self._strip(name).ending:
                self.remove_deck(name, deck.ends)
        if state.master is not self._master_points:
            self._master_points = state.master
            self._master.follow(state.master)
            self._out_master.follow(state.master)
        self.set_gates(state.gates)
        if wrong is not None:
            raise wrong

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
        self._strip(deck).controls.follow(points)

    def set_gates(self, gates: Sequence[Gate]) -> None:
        """Which decks are heard, and when that changes; each change takes 10 ms. Loops run on.

        Args:
            gates: ascending; each holds from its `at` on. Replaces what was set before.
        """
        self._gates = tuple(gates)

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

    def _strip(self, deck: str) -> _Strip:
        if deck not in self._strips:
            self._strips[deck] = _Strip(deck, self._gate.opens(deck), self._memory)
        return self._strips[deck]

    def _next_gate(self) -> int:
        """Open and close what the gates say here. Returns the sample of the next change, or 0."""
        after = bisect_right(self._gates, self.decided, key=lambda gate: gate.at)
        gate = self._gates[after - 1] if after else Gate()
        if gate != self._gate:
            self._gate = gate
            self._hush.target = 0.0 if gate.hushed else 1.0
            for name, strip in self._strips.items():
                strip.gate.target = 1.0 if gate.opens(name) else 0.0
        return self._gates[after].at if after < len(self._gates) else 0

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
        total = np.empty((n, 2 + 2 * len(self._outs)))
        parts: dict[str, Doubles] = {}
        done = 0
        while done < n:
            m, change = n - done, self._next_gate()
            if change:
                m = min(m, change - self.decided)
            total[done : done + m] = self._sum(m, parts, done, n)
            done += m
        if self._stems:
            self._delay(parts, n, stems)
        if self._outs:
            pairs = np.hsplit(total[:, 2:], len(self._outs))
            limited = [limit.process(pair) for limit, pair in zip(self._outs, pairs, strict=True)]
            self.out = np.concatenate(limited, axis=1).astype(np.float32)
        return self._limiter.process(total[:, :2])

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
        """The next n samples of all decks, [n, 2], and of each pair of channels that is open.

        Each deck's own go to parts[deck][at : at + n].
        """
        total, pairs = np.zeros((n, 2)), [np.zeros((n, 2)) for _ in self._outs]
        start, hush = self._start_ramp.curve(n), self._hush.curve(n)
        decks: dict[str, Doubles] = {}
        for deck in sorted(self._strips):
            decks[deck], bad = self._strips[deck].process(self.decided, n, self.input)
            self.bad += bad
        for deck, dry in decks.items():
            strip = self._strips[deck]
            audio = strip.controls.duck(dry, self.decided, decks)
            audio = scale(scale(audio, start), hush)
            total += audio
            if pairs:
                pair = (strip.out - 1) // 2
                pairs[pair if pair < len(pairs) else 0] += audio
            if self._stems:
                parts.setdefault(deck, np.zeros((size, 2)))[at : at + n] = audio
            if strip.over:
                del self._strips[deck]
        total, bad = _checked(total)
        self.bad += bad
        total = self._strip_of_sum(self._master, total, hush, decks)
        if pairs:
            pairs[0] = self._strip_of_sum(self._out_master, pairs[0], hush, decks)
        if self._hush.value == 0.0:
            masters = (self._master, self._out_master)
            for controls in (*masters, *(s.controls for s in self._strips.values())):
                controls.tails.clear()
        self.decided += n
        return np.concatenate((total, *pairs), axis=1) if pairs else total

    def _strip_of_sum(
        self, controls: _Controls, total: Doubles, hush: Curve, decks: Mapping[str, Doubles]
    ) -> Doubles:
        """The master strip on a sum; `thru` in it adds the input once more."""
        total = controls.process(total, self.decided, wet=hush, heard=self.input)
        return controls.duck(total, self.decided, decks)
