"""Songs with long bright partials, for the codec alone: the score of a song on strings, bells and
additive pads (`partials`), mostly without drums, bright and wide.
"""

from __future__ import annotations

import random
from dataclasses import replace

from engines.imp.kit import Knobs, knobs
from engines.imp.partials import PARTIALS
from engines.imp.score import Event, Song

__all__ = ["brightened"]


def drawn_knobs(voice: str, r: random.Random) -> Knobs:
    """Settings of one of `partials`' voices."""
    u = r.uniform
    match voice:
        case "plucked":
            stiff = u(0, 1e-4) if r.random() < 0.5 else u(0, 1e-3)
            return knobs(u(0.08, 0.4), u(0.3, 1.2), u(0.8, 4.0), u(0.02, 0.25), stiff)
        case "bowed":
            return knobs(u(0.04, 0.3), u(0.6, 1.4), u(4.5, 6.5), u(0.0, 0.5), u(0.0, 1.0))
        case "chime":
            return knobs(u(0.8, 4.0), u(0.3, 1.1), u(0.9, 1.1), u(0.2, 3.0))
        case _:
            return knobs(u(0.1, 0.8), u(0.5, 1.3), u(0.0, 0.008), u(0.05, 0.6), u(0.0, 1.0))


def brightened(song: Song) -> Song:
    """The song on such instruments; the same song gives the same one again."""
    r = random.Random(f"bright {song.seed}")
    played: dict[str, tuple[str, Knobs, int, float]] = {}
    drums, bass = r.random() < 0.35, r.random() < 0.6
    tune = any(e.bus == "music" for e in song.events)
    events: list[Event] = []
    for e in song.events:
        if e.bus == "bass" and not tune:
            e = e._replace(bus="music", pitch=e.pitch + r.choice((24, 24, 12)))
        if e.bus == "music":
            if e.voice not in played:
                voice = r.choice(list(PARTIALS))
                length = r.choice((1.0, 2.0, 4.0)) if voice in ("plucked", "chime") else 1.0
                octave = r.choice((0, 0, 12, 12, 24))
                played[e.voice] = voice, drawn_knobs(voice, r), octave, length
            voice, k, octave, length = played[e.voice]
            pitch = min(e.pitch + octave, 96.0)
            span = min(max(e.length * length, 0.4), song.bars * 4.0)
            pan = max(-0.9, min(0.9, e.pan + r.uniform(-0.6, 0.6)))
            events.append(e._replace(voice=voice, knobs=k, pitch=pitch, length=span, pan=pan))
        elif (e.bus == "bass" and bass) or (e.bus not in ("bass", "music") and drums):
            events.append(e)
    mix = song.mix | {
        "music": song.mix["music"] + r.uniform(3, 9),
        "pump": 0.0,
        "tilt": r.uniform(0, 3),
        "drive": r.uniform(0, 0.3),
        "width": r.choice((0.3, 1.0, 1.4, 2.0)),
        "lowpass": 20_000.0,
        "crush": 0.0,
    }
    return replace(song, events=tuple(events), mix=mix)
