"""The words of the score language in Python: a line of score pastes into Python and back.

    from demon_live.dsl import deck, sine, saw, mini, scene, over, program

    deck.blend = sine.slow(4).range(.2, .9)
    deck["drums"].denoise = mini("<.4 .6 .8 1>/2")
    deck.velocity = over(4, sine.fast(3) * .2 + .9)
    program()                                    # the same Program as from the same score

Strings are mini-notation; text() is plain text. Functions may be Python's:
every(4, lambda p: p.rev). The names of signals, functions, settings and performance words come
from the tables of the language; `python -m tests.tools.dsl_stub` writes dsl.pyi, which lists them.
"""

from demon_live.controls import SETTINGS
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.dsl_pattern import Pat, mini, text
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
    if name not in ("mini", "range", "abs", "round")
]
globals().update({name: Pat(Name(0, 0, name)) for name in _PATTERNS})
globals().update({word: setting(word) for word in SETTINGS})
globals().update({word: performance(word) for word in PERFORMANCE})

__all__ = [
    "Deck",
    "Pat",
    "Score",
    "Timed",
    "_",
    "at",
    "chain",
    "deck",
    "fader",
    "go",
    "in_",
    "mini",
    "now",
    "over",
    "program",
    "run_python",
    "scene",
    "score",
    "text",
    "xfade",
    *_PATTERNS,
    *SETTINGS,
    *PERFORMANCE,
]
