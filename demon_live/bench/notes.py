"""Whether notes are heard: scores rendered at several denoises, held against what they say.

kick, snare, hat  F-measure of the onsets in a band of the drum's own against the hits, 30 ms; claps
                  count with the snare, snares and claps with the hat
chord, bass       share of the bars in which the pitch classes of the chords, and the one that the
                  bass plays longest, stand out among their twelve transpositions (chance .08)
The hint is that of a score which says none. Beside them stand the guide itself (`guide`, what could
be heard at best) and the same score without notes, from noise (`untold`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demon_live.bench.common import Figures, Options, opened
from demon_live.core import Floats, Loop, Phrase
from demon_live.notes.guide import guide
from demon_live.notes.heard import BANDS, BASS, MUSIC, SR, agreement, chroma, onsets, stands_out
from demon_live.notes.kits import kit_of
from demon_live.notes.lanes import bar_classes

#: Below the hats, which notes have more of than the songs that imp was trained on.
_BANDS = {**BANDS, "snare": (1500.0, 5000.0)}
#: Samples that a kick is heard.
_KICK = 9600
DENOISES = (0.4, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Scores that no engine was trained on.
SCORES = {
    "house": """tempo 123; prompt = 'house, organ, 909'
kick = "1*4"; clap = "~ 1 ~ [1 ~ ~ .6]"; hat = "[~ .6]*4"; bass = "f1 [~ f1] [~ f1] [f1 c2]"
chord = "<Fm [Db Eb]>" """,
    "techno": """tempo 131; prompt = 'techno, dark'
kick = "1*4"; hat = ".4 .7 .4 [.7 .5]"; perc = ".7(5,16,3)"; bass = "~ e1 [e1 e1] g1"
chord = "<Em ~ C ~>" """,
    "breaks": """tempo 136; prompt = 'breaks, acid'
kick = "1 [~ ~ 1 ~] [~ 1] ~"; snare = "~ 1 ~ 1"; hat = ".6*8"; bass = "a1 ~ a1 [c2 e2]"
chord = "<Am Dm>" """,
    "dub": """tempo 118; prompt = 'dub, deep'
kick = "1 ~ [~ 1] ~"; snare = "~ ~ 1 ~"; hat = "~ .7 ~ .7"; bass = "d2 [~ d2] d2 a1"
chord = "<Dm Gm>" """,
}


def figures(options: Options) -> Figures:
    """A table: for each way to play the scores, the means of what is heard."""
    scores = options.scores or tuple(SCORES)
    rows: dict[str, list[dict[str, float]]] = {}
    with opened(options) as engine:
        for score in scores:
            for way, row in _heard_of(engine, score):
                rows.setdefault(way, []).append(row)
    return {"heard": [{"denoise": way, **_means(found)} for way, found in rows.items()]}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each measure over the scores that have it."""
    out = {}
    for name in rows[0]:
        values = [row[name] for row in rows if not math.isnan(row[name])]
        out[name] = float(np.mean(values)) if values else math.nan
    return out


def _heard_of(engine: Any, score: str) -> Iterable[tuple[str, dict[str, float]]]:
    for way in ("guide", *map(str, DENOISES), "untold"):
        audio, loop, phrase, prompt = _played(engine, score, way)
        if way == "guide":
            audio = guide(phrase, loop.cycles, loop.samples, loop.beats, kit_of(prompt))
        yield way, heard(audio[: loop.samples], phrase, loop.cycles)


def _played(engine: Any, score: str, way: str) -> tuple[Floats, Loop, Phrase, str]:
    """(a lap of a score, its loop, its notes, its prompt); of the guide no lap is played."""
    from demon_live.runtime.offline import Offline
    from demon_live.session.sampler import phrase

    more = {"guide": "source notes", "untold": "source none; denoise = 1"}
    with Offline(engine) as offline:
        session = offline.session
        text = SCORES[score] if score in SCORES else Path(score).read_text("utf-8")
        session.apply(f"{text}\n{more.get(way, f'source notes; denoise = {way}')}", score)
        state = session.state
        deck = next(iter(state.decks.values()))
        lanes, loop = state.lanes(deck, Fraction(0)), deck.loop
        assert loop is not None
        prompt = str(lanes["prompt"].at(Fraction(0))) if "prompt" in lanes else ""
        audio = np.zeros((0, 2), np.float32)
        if way != "guide":
            audio = offline.render(cycles=loop.cycles)
    return audio, loop, phrase(lanes, Fraction(0), loop.cycles), prompt


def longest(phrase: Phrase, bar: int) -> set[int]:
    """The pitch class that the bass plays longest in a bar; empty for a rest."""
    lengths: dict[int, float] = {}
    for note in phrase.notes:
        if note.voice == "bass" and bar <= note.begin < bar + 1:
            pitch = round(note.pitch) % 12
            lengths[pitch] = lengths.get(pitch, 0.0) + note.length
    return {max(lengths, key=lambda pitch: lengths[pitch])} if lengths else set()


def heard(audio: Floats, phrase: Phrase, cycles: int) -> dict[str, float]:
    """A lap float32 [n, 2] against its notes; NaN for what they lack."""
    mono = torch.from_numpy(np.ascontiguousarray(audio.mean(1)))
    cycle = len(mono) / cycles

    def part(begin: float, length: float) -> torch.Tensor:
        return mono[int(begin * cycle) : int((begin + length) * cycle)]

    out: dict[str, float] = {}
    alike = {"kick": {"kick"}, "snare": {"snare", "clap"}, "hat": {"hat", "open", "snare", "clap"}}
    for drum, voices in alike.items():
        told = {round(n.begin * cycle / SR, 2) for n in phrase.notes if n.voice in voices}
        own = any(n.voice in voices and n.voice.startswith(drum[:3]) for n in phrase.notes)
        found = onsets(mono, *_BANDS[drum])
        out[drum] = agreement(found, sorted(told), len(mono) / SR) if own else math.nan
    bars = [(bar, bar_classes(phrase, bar)) for bar in range(cycles)]
    chords = [stands_out(chroma(part(bar, 1), *MUSIC), c) for bar, c in bars if 2 <= len(c) <= 6]
    played = [(bar, longest(phrase, bar)) for bar in range(cycles)]
    for begin in {round(n.begin * cycle) for n in phrase.notes if n.voice == "kick"}:
        # A kick has a pitch of its own.
        mono[begin : begin + _KICK] *= torch.linspace(0, 1, len(mono[begin : begin + _KICK])) ** 6
    basses = [stands_out(chroma(part(bar, 1), *BASS), c) for bar, c in played if c]
    out["chord"] = float(np.mean(chords)) if chords else math.nan
    out["bass"] = float(np.mean(basses)) if basses else math.nan
    return out
