"""Bars that decide for themselves: python examples/bars.py writes bars.wav"""

import random
from fractions import Fraction

from demon_live import Offline, Session
from demon_live.audio.files import write_audio

PROMPTS = ("deep house, warm pad", "acid techno, 303", "dub techno, chords")
chance = random.Random(3)

with Offline("imp", seed=3) as stage:
    stage.session.apply("tempo 126\nloop 2\nblend = sine.slow(8).range(.4, 1)")

    @stage.session.every(4)
    def phrase(session: Session, cycle: Fraction) -> None:
        """Another prompt for four bars, and another seed."""
        prompt = PROMPTS[int(cycle) // 4 % len(PROMPTS)]
        session.apply(f"prompt = '{prompt}' xfade 1\nseed = {chance.randrange(100)}")

    @stage.session.every(1)
    def fill(session: Session, cycle: Fraction) -> None:
        """The last bar of four stutters; now and then another one does."""
        stutters = cycle % 4 == 3 or chance.random() < 0.1
        session.apply('gain = "1 1 1 [1 0]*2"' if stutters else "gain = 1")

    write_audio("bars.wav", stage.render(cycles=8))
