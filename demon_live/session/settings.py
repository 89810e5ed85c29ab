"""What a setting changes, apart from loops and sources.

Threads: pure functions of a State.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec

from demon_live.controls import IN, SETTINGS
from demon_live.core import Beats
from demon_live.errors import ScoreError
from demon_live.lang import Setting
from demon_live.session.state import State

#: Settings that prepare no loop.
AT_ONCE = ("quant", "ring", "link", "clock", "nudge", "nudge_in", "hold", "overdub", "out")
#: The packages of settings that share time with others.
_PACKAGES = {"link": "aalink", "clock": "rtmidi"}


def prepares(row: Setting) -> bool:
    """Whether a setting needs new loops; what is played in needs one when it has been."""
    return row.word not in (*AT_ONCE, "to") and (row.word, row.value) != ("source", IN)


def beats_of(row: Setting) -> Beats:
    """The beats that a setting says: whole, or those of a meter."""
    beats = Fraction(str(row.value))
    return beats.numerator if beats.denominator == 1 else beats


def with_setting(state: State, row: Setting) -> tuple[State, str]:
    """The state with a setting, and a line for the performer or "".

    Raises ScoreError for what cannot be set while it plays.
    """
    value = row.value
    match row.word:
        case "tempo":
            return replace(state, bpm=Fraction(str(value))), ""
        case "cps":
            return replace(state, bpm=Fraction(str(value)) * 60 * state.beats), ""
        case "beats":
            return replace(state, beats=beats_of(row)), ""
        case "quant":
            said = f"quant {value}: statements wait for {value} cycles"
            return replace(state, quant=Fraction(str(value))), said
        case "depth":
            depth = None if value == "auto" else int(float(str(value)))
            return replace(state, depth=depth), f"depth {value}: generations in flight"
        case "steps":
            said = f"steps {value}: solver steps of a generation"
            return replace(state, steps=int(float(str(value)))), said
        case "ring":
            return replace(state, always=value == "always"), f"ring {value}"
        case "link":
            return replace(state, link=value == "on"), _shared(row)
        case "clock":
            return replace(state, clock=str(value)), _shared(row)
        case "nudge":
            return replace(state, nudge=float(str(value))), f"nudge {value} ms"
        case "nudge_in":
            return replace(state, nudge_in=float(str(value))), f"nudge in {value} ms"
    if str(value) != "off":
        raise ScoreError(
            f"{row.word} is not supported by this version",
            span=row.span,
            hint=SETTINGS[row.word].help if row.word in SETTINGS else None,
        )
    return state, ""


def _shared(row: Setting) -> str:
    """What is said of a setting that shares time with others."""
    lacks = row.value != "off" and find_spec(_PACKAGES[row.word]) is None
    alone = ", but its package is not installed: bars stay our own" if lacks else ""
    return f"{row.word} {row.value}{alone}"
