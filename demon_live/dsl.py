"""The words of the score language in Python: a line of score pastes into Python and back.

    from demon_live import dsl as d

    d.deck.blend = d.sine.slow(4).range(.2, .9)
    d.deck["drums"].denoise = d.mini("<.4 .6 .8 1>/2")
    d.deck.velocity = d.over(4, d.sine.fast(3) * .2 + .9)
    d.program()                                  # the same Program as from the same score

A string is mini-notation, or the text of a control that takes text; text() is always text, and
mini() always mini-notation. Functions may be Python's: every(4, lambda p: p.rev). `import *` leaves
out the names that hide a builtin (d.iter, d.pow). The names of signals, functions, settings and
performance words come from the tables of the language; `python -m tests.tools.dsl_stub` writes
dsl.pyi, which lists them.
"""

import builtins

from demon_live.controls import SETTINGS
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.dsl_pattern import Pat, mini, text
from demon_live.lang.dsl_samples import curve, midi, onsets
from demon_live.lang.dsl_score import (
    Deck,
    Score,
    Timed,
    at,
    chain,
    deck,
    fader,
    go,
    in_,
    now,
    over,
    performance,
    program,
    run_python,
    scene,
    score,
    setting,
    to,
    xfade,
)
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import PERFORMANCE
from demon_live.lang.signals import RANDOM, SIGNALS
from demon_live.lang.syntax import Hole, Name

_ = Pat(Hole(0, 0))

#: Patterns, and functions: fast(2) for an argument, fast(2, p) or fast(2)(p) for a pattern. Those
#: that would hide a builtin are methods only.
_PATTERNS = [
    name
    for name in dict.fromkeys((*SIGNALS, *RANDOM, "silence", *CONTROLLERS, *FUNCTIONS))
    if name not in ("mini", "range", "abs", "round", "curve", "midi", "onsets")
]
globals().update({name: Pat(Name(0, 0, name)) for name in _PATTERNS})
globals().update({word: setting(word) for word in SETTINGS if word != "to"})
globals().update({word: performance(word) for word in PERFORMANCE})

__all__ = [
    "Deck",
    "Pat",
    "Score",
    "Timed",
    "_",
    "at",
    "chain",
    "curve",
    "deck",
    "fader",
    "go",
    "in_",
    "midi",
    "mini",
    "now",
    "onsets",
    "over",
    "program",
    "run_python",
    "scene",
    "score",
    "text",
    "to",
    "xfade",
    *(name for name in _PATTERNS if not hasattr(builtins, name)),
    *(word for word in SETTINGS if word != "to"),
    *PERFORMANCE,
]
