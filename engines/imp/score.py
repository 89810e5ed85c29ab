"""Scores: what is played, and by which kit. Pure Python, deterministic by seed.

compose(seed) writes a `Song`: notes by role (kick, snare, bass, chord ...) from one random stream,
then the kit that plays them from another, so that `compose(seed, kit_seed=...)` is the same score
on other instruments. Each song carries its labels: bpm, key, mode, chords a bar, tags, drum
onsets.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engines.imp.genres import GENRES, PROGRESSIONS, SCALES

KEYS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SAMPLE_RATE = 48_000
DRUMS = ("kick", "snare", "clap", "hats", "open-hats", "shaker", "ride", "toms", "rim", "cowbell")
_VELOCITY = {"X": 1.0, "x": 0.75, "o": 0.38}


class Note(NamedTuple):
    """One note of a role. beat and length in beats; pitch in MIDI (drums: semitones off their
    tuning).
    """

    role: str
    beat: float
    length: float
    pitch: float
    velocity: float
    accent: float = 0.0


class Event(NamedTuple):
    """One note of a voice, ready to render; knobs are the voice's six parameters."""

    voice: str
    bus: str
    beat: float
    length: float
    pitch: float
    velocity: float
    pan: float
    knobs: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Song:
    """A loop: labels, events, and the settings of the mix."""

    seed: int
    genre: str
    kit_genre: str
    bpm: int
    bars: int
    key: int
    mode: str
    chords: tuple[int, ...]
    tags: tuple[str, ...]
    events: tuple[Event, ...]
    mix: dict[str, float] = field(default_factory=dict)
    onsets: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Length at 48 kHz."""
        return round(self.bars * 240 / self.bpm * SAMPLE_RATE)


class Score:
    """Writes the notes of one song."""

    def __init__(
        self, seed: int, genre: str, bars: int | None, bpm: int | None, key: int | None
    ) -> None:
        self.random = r = random.Random(f"score {seed}")
        self.name, self.genre = genre, GENRES[genre]
        g = self.genre
        drawn_bpm, drawn_key, count = r.randint(*g.bpm), r.randrange(12), r.random()
        self.bpm = bpm or drawn_bpm
        self.bars = bars or self.choose_bars(count)
        self.key = drawn_key if key is None else key
        self.mode = r.choice(g.modes)
        self.progression = r.choice(PROGRESSIONS[self.mode])
        self.swing = g.swing * r.random() * 1.6 if r.random() < 0.7 else 0.0
        self.notes: list[Note] = []
        self.bass = r.choice(g.bass)
        self.music = self.choose_music()
        self.density = r.uniform(-1, 1)
        self.layers = self.choose_layers()
        self.tags: set[str] = set()

    def choose_bars(self, count: float) -> int:
        """2, 4 or 8 bars, at most 16 s, from a number in [0, 1)."""
        longest = int(16.001 / (240 / self.bpm))
        fitting = [n for n in (2, 4, 4, 4, 4, 8, 8, 8) if n <= longest] or [2]
        return fitting[int(count * len(fitting))]

    def choose_music(self) -> list[str]:
        """One or two music parts, or none."""
        r = self.random
        parts = r.sample(self.genre.music, k=min(len(self.genre.music), r.choice((1, 1, 2, 2, 2))))
        parts = list(dict.fromkeys(parts))
        return [] if r.random() < 0.08 and self.name != "ambient" else parts

    def choose_layers(self) -> set[str]:
        """Which drum roles play."""
        r = self.random
        roll = r.random()
        if self.name == "ambient":
            return set(DRUMS) if roll < 0.3 else set()
        if roll < 0.05:
            return set()
        layers = set(DRUMS)
        if roll < 0.30:
            out = (("kick",), ("hats", "open-hats", "shaker", "ride"), ("snare", "clap"), ("kick",))
            layers -= set(r.choice(out))
        return layers

    def step(self, index: float) -> float:
        """Beat of a sixteenth, swung."""
        return index / 4 + (self.swing / 4 if index % 2 == 1 else 0.0)

    def degree(self, degree: int, octave: int) -> int:
        """Scale degree -> MIDI pitch; octave 0 begins at the tonic between C2 and B2."""
        scale = SCALES[self.mode]
        return 36 + self.key + 12 * (octave + degree // 7) + scale[degree % 7]

    def chord(self, bar: int) -> int:
        """Root degree of a bar."""
        p = self.progression
        return p[bar * len(p) // self.bars % len(p)] if self.bars >= len(p) else p[bar % len(p)]

    def voicing(self, degree: int, tones: tuple[int, ...], centre: float) -> list[int]:
        """The chord's tones in the octave that lies nearest to `centre` (MIDI): close voicing,
        smooth leading.
        """
        pitches = []
        for tone in tones:
            p = self.degree(degree + tone, 0)
            pitches.append(p + 12 * round((centre - p) / 12))
        return sorted(set(pitches))

    def write(self) -> Score:
        """All parts."""
        self.write_drums()
        if self.bass != "no-bass" and (self.random.random() > 0.07 or self.name == "acid"):
            self.write_bass()
        else:
            self.bass = "no-bass"
        for part in self.music:
            self.write_music(part)
        return self

    # -------------------------------------------------------------------------------------- drums

    def write_drums(self) -> None:
        """The grooves of every drum role; a chopped break replaces kick, snare and hats."""
        r, g = self.random, self.genre
        chopped = r.random() < g.chop
        grooves: dict[str, str] = {
            "kick": r.choice(g.kick),
            "snare": r.choice(g.snare),
            "clap": r.choice(g.clap),
            "hats": r.choice(g.hats),
            "open-hats": r.choice(g.open_hats)
            if not chopped
            else r.choice(("..............x.", "." * 16)),
        }
        for role, (chance, patterns) in g.percussion.items():
            if r.random() < chance + 0.15 * self.density:
                grooves[role] = r.choice(patterns)
        if self.density < -0.5 and g.kick[0].startswith("X...X"):
            grooves["hats"] = "." * 16
        if chopped:
            self.write_break({role: grooves.pop(role) for role in ("kick", "snare", "hats")})
        for role, groove in grooves.items():
            if role in self.layers:
                self.write_groove(role, groove)
        if {"snare", "clap"} & self.layers and r.random() < 0.45:
            self.write_fills()

    def write_groove(self, role: str, groove: str) -> None:
        """One role through all bars, with small mutations off the strong beats."""
        r = self.random
        straight = role in ("kick", "clap") and groove.startswith(("X...X", "....X", "....x"))
        every = r.choice((1, 2, 4))
        changed = {b: self.mutate(groove, straight) for b in range(self.bars)}
        for bar in range(self.bars):
            line = changed[bar] if bar % every == every - 1 else groove
            for i, mark in enumerate(line):
                if mark != ".":
                    pitch = r.choice((0, 0, 3, 5, 7, -2)) if role == "toms" else 0
                    velocity = _VELOCITY[mark] * r.uniform(0.9, 1.0)
                    self.notes.append(Note(role, bar * 4 + self.step(i), 0.25, pitch, velocity))

    def mutate(self, groove: str, straight: bool) -> str:
        r, rate = self.random, self.genre.mutation * (1 + self.density * 0.8)
        if straight or not groove.strip("."):
            return groove
        marks = []
        for i, mark in enumerate(groove):
            if r.random() < rate * (0.3 if i % 4 == 0 else 1.0):
                mark = r.choice("xo") if mark == "." else "."
            marks.append(mark)
        return "".join(marks)

    def write_break(self, grooves: dict[str, str]) -> None:
        """A sampled break, chopped: slices of its bar are replayed out of order, cut short,
        sometimes rolled.
        """
        r = self.random
        self.tags.add("breakbeat")
        hits = [
            (role, i, _VELOCITY[mark])
            for role, groove in grooves.items()
            if role in self.layers
            for i, mark in enumerate(groove)
            if mark != "."
        ]
        wild = 0.75 if self.name in ("jungle", "idm") else 0.35
        plans = [self.plan_chops(0.0 if n == 0 else wild) for n in range(2)]
        for bar in range(self.bars):
            plan = plans[bar % 2] if bar % 4 != 3 else self.plan_chops(min(1.0, wild + 0.2))
            for at, size, start, shift in plan:
                for role, i, velocity in hits:
                    offset = (i - start) % 16
                    if offset < size:
                        beat = bar * 4 + self.step(at + offset)
                        gate = (size - offset) / 4
                        note = Note(
                            "break-" + role, beat, gate, shift, velocity * r.uniform(0.92, 1.0)
                        )
                        self.notes.append(note)

    def plan_chops(self, wild: float) -> list[tuple[float, float, int, float]]:
        """Slices of one bar: (step it is played at, steps long, step it is cut from, semitones)."""
        plan: list[tuple[float, float, int, float]] = []
        r, at = self.random, 0
        while at < 16:
            size = r.choice((2, 4, 4, 8)) if wild else 16
            size = min(size, 16 - at)
            start = r.choice((0, 2, 4, 4, 8, 10, 12)) if r.random() < wild else at
            shift = r.choice((0, 0, 0, -3, 3, 5)) if wild > 0.5 and r.random() < 0.15 else 0
            if size == 2 and r.random() < 0.3 * wild:
                plan += [(at + k / 2, 0.5, start, shift) for k in range(4)]
                self.tags.add("roll")
            else:
                plan.append((at, size, start, shift))
            at += size
        return plan

    def write_fills(self) -> None:
        """Snare or tom fills in the last bar of every four, some of them rolls in 32nds."""
        r = self.random
        role = r.choice(("snare", "snare", "toms", "clap"))
        roll = r.random() < 0.35
        span = r.choice((2, 4, 8))
        self.tags.add("roll" if roll else "fill")
        for bar in range(min(3, self.bars - 1), self.bars, 4):
            step = 0.5 if roll else 1.0
            for k in range(int(span / step)):
                if roll or r.random() < 0.65:
                    index = 16 - span + k * step
                    velocity = 0.25 + 0.5 * k * step / span
                    pitch = r.choice((0, 2, 5, -3)) if role == "toms" else 0
                    beat = bar * 4 + (index / 4 if roll else self.step(index))
                    self.notes.append(Note(role, beat, 0.2, pitch, velocity))

    # --------------------------------------------------------------------------------------- bass

    def write_bass(self) -> None:
        """A bass line in key that follows the chords."""
        if self.bass in ("rumble", "offbeat-bass"):
            self.write_pulse_bass()
        elif self.bass in ("sub", "reese", "wobble", "donk"):
            self.write_long_bass()
        else:
            self.write_riff_bass()

    def bass_pitch(self, degree: int) -> int:
        """A degree in the bass register, E1 (28) to Eb2 (39)."""
        p = self.degree(degree, 0)
        while p > 39:
            p -= 12
        while p < 28:
            p += 12
        return p

    def write_pulse_bass(self) -> None:
        r = self.random
        gallop = self.bass == "offbeat-bass" and r.random() < 0.5
        octave = 12 if self.bass == "offbeat-bass" else 0
        for bar in range(self.bars):
            root = self.bass_pitch(self.chord(bar)) + octave
            for i in range(16):
                rolling = self.bass == "rumble" or gallop
                if i % 4 == 2 or (rolling and i % 4):
                    velocity = 0.9 if i % 4 == 2 else 0.7
                    self.notes.append(
                        Note("bass", bar * 4 + i / 4, 0.22 if rolling else 0.42, root, velocity)
                    )

    def write_long_bass(self) -> None:
        r = self.random
        shapes: tuple[tuple[tuple[float, float], ...], ...] = (
            ((0, 1.75), (2.5, 1.25)),
            ((0, 1.4), (1.5, 1.4), (3, 0.9)),
            ((0, 3.6),),
            ((0, 0.7), (0.75, 1.2), (2.5, 1.2)),
            ((0.5, 1.4), (2.5, 1.4)),
        )
        if self.bass == "donk":
            shapes = (
                ((0, 0.4), (0.75, 0.4), (1.5, 0.4), (2.5, 0.4), (3.25, 0.4)),
                ((0.75, 0.4), (1.5, 0.6), (2.75, 0.5), (3.5, 0.4)),
                ((0, 0.5), (1.5, 0.5), (3, 0.5)),
            )
        shape = [(t, d, r.choice((0, 0, 0, 4, 7, 2))) for t, d in r.choice(shapes)]
        shape[0] = (shape[0][0], shape[0][1], 0)
        for bar in range(self.bars):
            for t, d, step in shape:
                if bar % 4 == 3 and t > 0 and r.random() < 0.2:
                    continue
                pitch = self.bass_pitch(self.chord(bar) + (0 if step == 7 else step)) + (
                    12 if step == 7 else 0
                )
                self.notes.append(Note("bass", bar * 4 + t, d, pitch, 0.9, r.random()))

    def write_riff_bass(self) -> None:
        r = self.random
        acid = self.bass == "acid-line"
        rate = 0.78 if acid else 0.45 + 0.1 * self.density
        steps = [0, 0, 0, 7, 2, 4, 6, 9] if acid else [0, 0, 0, 7, 4, 2, 6]
        length = r.choice((16, 16, 32)) if self.bars > 1 else 16
        riff = [
            (r.random() < rate or i % 16 == 0, r.choice(steps), r.random() < 0.3, r.random() < 0.28)
            for i in range(length)
        ]
        for bar in range(self.bars):
            for i in range(16):
                on, step, accent, slide = riff[(bar * 16 + i) % length]
                if not on:
                    continue
                pitch = self.bass_pitch(self.chord(bar) + step % 7) + 12 * (step // 7)
                gate = 0.5 if slide else 0.2 if acid else r.choice((0.2, 0.24, 0.4))
                self.notes.append(
                    Note(
                        "bass",
                        bar * 4 + self.step(i),
                        gate,
                        pitch,
                        1.0 if accent else 0.75,
                        float(accent),
                    )
                )

    # -------------------------------------------------------------------------------------- music

    def write_music(self, part: str) -> None:
        """One music part by its kind."""
        if part in ("pad", "strings", "drone"):
            self.write_held(part)
        elif part in ("stab", "organ", "keys", "dub-chord"):
            self.write_rhythm_chords(part)
        elif part in ("pluck", "bell"):
            self.write_arpeggio(part)
        else:
            self.write_melody(part)

    def write_held(self, part: str) -> None:
        r = self.random
        tones = (
            ((0, 4), (0, 4, 7))
            if part == "drone"
            else ((0, 2, 4), (0, 2, 4, 6), (0, 2, 4, 8), (0, 4, 6, 9))
        )
        shape = r.choice(tones)
        centre = 48 if part == "drone" else r.uniform(56, 64)
        bar = 0
        while bar < self.bars:
            span = 1
            while bar + span < self.bars and self.chord(bar + span) == self.chord(bar) and span < 4:
                span += 1
            for pitch in self.voicing(self.chord(bar), shape, centre):
                self.notes.append(Note(part, bar * 4, span * 4 - 0.1, pitch, 0.7))
            bar += span

    def write_rhythm_chords(self, part: str) -> None:
        r = self.random
        shapes = {
            "stab": (
                ((0, 0.3), (0.75, 0.3), (1.5, 0.3), (2.75, 0.3)),
                ((0.5, 0.25), (1.5, 0.25), (2.5, 0.25), (3.5, 0.25)),
                ((0, 0.5), (1.5, 0.5)),
                ((0.75, 0.3), (2.25, 0.3), (3.5, 0.3)),
            ),
            "organ": (
                ((0.5, 0.4), (1.5, 0.4), (2.25, 0.3), (3.5, 0.4)),
                ((0, 0.3), (0.75, 0.3), (1.5, 0.3), (2.5, 0.3), (3.25, 0.3)),
            ),
            "keys": (
                ((0, 1.4), (1.5, 0.4), (2.5, 1.2)),
                ((0, 0.6), (0.75, 1.5), (2.75, 1.1)),
                ((0, 3.5),),
            ),
            "dub-chord": (
                ((1.5, 0.35),),
                ((0.5, 0.3), (2.5, 0.3)),
                ((0.75, 0.3), (3.0, 0.3)),
                ((1.5, 0.3), (1.75, 0.3)),
            ),
        }
        shape = r.choice(shapes[part])
        tones = r.choice(
            ((0, 2, 4), (0, 2, 4, 6), (0, 2, 4, 8), (0, 4, 6))
            if part != "stab"
            else ((0, 2, 4), (0, 2, 4, 6), (0, 4, 7))
        )
        centre = r.uniform(57, 66)
        fixed = part in ("stab", "dub-chord") and r.random() < 0.5
        for bar in range(self.bars):
            pitches = self.voicing(self.chord(0 if fixed else bar), tones, centre)
            for t, d in shape:
                if r.random() < 0.92:
                    beat = bar * 4 + self.step(t * 4)
                    self.notes += [Note(part, beat, d, p, 0.75 if t % 1 else 0.85) for p in pitches]

    def write_arpeggio(self, part: str) -> None:
        r = self.random
        length = r.choice((3, 4, 6, 8))
        cells = [r.choice((0, 2, 4, 4, 7, 7, 9, 11)) for _ in range(length)]
        rests = [r.random() < 0.2 - 0.12 * self.density for _ in range(length)]
        every = r.choice((1, 1, 2, 3)) if part == "pluck" else r.choice((2, 4, 4, 6))
        octave = 1 if part == "pluck" and r.random() < 0.4 else 2
        for n, i in enumerate(range(0, self.bars * 16, every)):
            if not rests[n % length]:
                pitch = self.degree(self.chord(i // 16) + cells[n % length], octave)
                beat = (i // 16) * 4 + self.step(i % 16)
                self.notes.append(
                    Note(part, beat, 0.3 if part == "pluck" else 1.6, pitch, r.uniform(0.6, 0.85))
                )

    def write_melody(self, part: str) -> None:
        r = self.random
        rhythm = [i % 4 == 0 or r.random() < 0.35 for i in range(16)]
        cells = [r.choice((0, 2, 4, 4, 6, 7, 9)) for _ in range(16)]
        for bar in range(self.bars):
            for i in range(16):
                if rhythm[i] and r.random() < 0.93:
                    hold = next((k for k in range(1, 5) if rhythm[(i + k) % 16]), 4)
                    pitch = self.degree(self.chord(bar) + cells[(i + (bar % 2) * 3) % 16], 2)
                    self.notes.append(
                        Note(part, bar * 4 + self.step(i), hold / 4 * 0.85, pitch, 0.75)
                    )


def compose(
    seed: int,
    genre: str | None = None,
    *,
    bars: int | None = None,
    bpm: int | None = None,
    key: int | None = None,
    kit_seed: int | None = None,
    kit_genre: str | None = None,
    steady: bool = False,
) -> Song:
    """The song of a seed. `kit_seed` and `kit_genre` dress the same score in other instruments;
    `steady`: in a kit that sounds the same under any score.
    """
    from engines.imp.kit import Kit

    name = genre or random.Random(f"genre {seed}").choice(list(GENRES))
    score = Score(seed, name, bars, bpm, key).write()
    kit = Kit(seed if kit_seed is None else kit_seed, kit_genre or name, score, steady=steady)
    events, mix, tags = kit.dress()
    drums = {
        role: tuple(sorted({n.beat for n in score.notes if n.role.removeprefix("break-") == role}))
        for role in ("kick", "snare", "clap", "hats")
    }
    return Song(
        seed,
        name,
        kit_genre or name,
        score.bpm,
        score.bars,
        score.key,
        score.mode,
        tuple(score.chord(b) for b in range(score.bars)),
        tags,
        events,
        mix,
        drums,
    )


def other_kit(song: Song, kit_seed: int, kit_genre: str | None = None) -> Song:
    """The same score on another kit."""
    fixed: dict[str, Any] = {"bars": song.bars, "bpm": song.bpm, "key": song.key}
    return compose(song.seed, song.genre, kit_seed=kit_seed, kit_genre=kit_genre, **fixed)


def hertz(pitch: float) -> float:
    """MIDI -> Hz."""
    return 440.0 * math.pow(2.0, (pitch - 69.0) / 12.0)
