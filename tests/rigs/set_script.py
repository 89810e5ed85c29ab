"""A set by a script, made from a seed: evaluations, broken ones, file saves, tempo, knobs.

Threads: none; pure functions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["FIRST", "SAVED", "Act", "script"]

FIRST = (
    "tempo 120\nloop 1\nprompt = 'a'\n"
    "deck two\nloop 1\nprompt = 'b'\ngain = .6\npan = cc(21).range(-.3, .3)\n"
)
SAVED = "deck air\nloop 1\nprompt = 'c'\ngain = {}\npan = sine2.slow({}) * .4\n"
_GOOD = (
    "blend = sine.slow({n}).range(.2, .9)",
    "blend = {x} over {n}",
    'noise = "0 .2 [0 .4]*{n}".smooth(.1)',
    'denoise = "<.4 .6 .8 1>/{n}"',
    "seed = irand(8).segment({n})",
    "gain = cc(21).range(.4, 1)",
    "two.gain = .{d} xfade {n}",
    "lpf = cc(22).rangex(400, 12000)",
    "pan = sine2.slow({n}) * .5",
    'prompt = "<a b c>/{n}"',
    "mute two in {n}",
    "unmute two",
    "solo main",
    "unsolo",
    "undo",
    "undo\nundo",
    "redo",
    "crossfade main two",
    "fader {x} over {n}",
    "crossfade",
    "snapshot s{d}",
    "recall s{d} over {n}",
    "let wob(n) = sine.fast(n) * .{d}",
    "velocity = wob({n}) + .8",
    "scene v{d} { blend = {x}; gain = .8 over 2 }",
    "go v{d}",
    "chain v1 {n}, v2 2",
    "hush",
    "unmute main",
    "learn gain",
    "quant {n}",
    "quant 1",
    "blend = default",
    "hpf = perlin.rangex(20, 300)",
)
_BROKEN = (
    "blend = (",
    'gain = "1 .5',
    "denois = .4",
    "go nowhere",
    "mute drums",
    "tempo 9999",
    "prompt = 3",
    "recall never",
    "blend = sine.slwo(2)",
    "chain x",
    'source "no.wav"',
)


@dataclass(frozen=True, slots=True)
class Act:
    """At a second: say a text, save a file, or move a knob (number, value)."""

    at: float
    kind: str
    text: str = ""
    knob: tuple[int, float] = (0, 0.0)


def script(minutes: float, evaluations: int, seed: int) -> list[Act]:
    """The whole set, in the order of its times."""
    rng, seconds = random.Random(seed), minutes * 60
    # The names that others use are there from the beginning.
    acts = [Act(0, "say", FIRST)]
    early = "".join(f"snapshot s{d}\nscene v{d} {{ blend = .{d}; gain = .8 over 2 }}\n"
                    for d in range(1, 10)) + "let wob(n) = sine.fast(n) * .2"  # fmt: skip
    acts.append(Act(min(4.0, seconds / 100), "say", early))
    for i in range(evaluations):
        broken = i % 10 == 5
        text = rng.choice(_BROKEN) if broken else rng.choice(_GOOD)
        for mark, value in (("n", rng.randint(1, 8)), ("d", rng.randint(1, 9)),
                            ("x", round(rng.uniform(0.1, 1), 2))):  # fmt: skip
            text = text.replace("{" + mark + "}", str(value))
        acts.append(Act(rng.uniform(5, seconds - 5), "broken" if broken else "say", text))
    for i in range(max(2, int(minutes / 2))):
        text = "gain = (" if i % 5 == 4 else SAVED.format(rng.choice((0.3, 0.5)), 1 + i % 7)
        acts.append(Act(rng.uniform(5, seconds - 5), "save", text))
    acts += [
        Act(rng.uniform(5, seconds - 5), "say", f"tempo {rng.randint(90, 150)}")
        for _ in range(max(1, int(minutes / 5)))
    ]
    for _ in range(max(2, int(minutes))):
        begun, knob = rng.uniform(5, seconds - 8), rng.choice((21, 22))
        rate = rng.choice((30, 100, 1000))
        acts += [
            Act(begun + i / rate, "knob", knob=(knob, (i % 128) / 127)) for i in range(2 * rate)
        ]
    return sorted(acts, key=lambda a: a.at)
