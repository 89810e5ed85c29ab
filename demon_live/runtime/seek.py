"""Seek: fast-forward with a null model, then real pre-roll.

Everything but the sound is bookkeeping that does not depend on what is heard: which generation is
admitted at which tick, its seed, when it is placed. So up to the pre-roll the instrument plays with
a null model: the same turns, but velocities and decoded windows are zeros, and nothing is mixed.
The pre-roll is real and as long as sound remembers: the generations in flight, two laps of the
longest loop, three seconds of filters and limiter; longer where `feedback` passes sound on from
generation to generation: back to before it began. From there on each bit is that of the whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live.audio.mixer import BLOCK
from demon_live.core import RATES, Floats
from demon_live.runtime.dry_run import Moment
from demon_live.session.state import State

if TYPE_CHECKING:
    from demon_live.runtime.offline import Offline

#: Samples that filters and limiter need to forget.
_FORGET = 3 * RATES.sample_rate


class DryRunEngine:
    """An engine that costs nothing while `dry` is true: its sound is zeros."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.dry = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def velocity(self, x: Any, t: Any, rows: Sequence[Any]) -> Any:
        """float32 [B, T, C]."""
        return x * 0 if self.dry else self._engine.velocity(x, t, rows)

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]."""
        if self.dry:
            return np.zeros((latent.shape[0], latent.shape[1] * RATES.hop, 2), np.float32)
        return np.asarray(self._engine.decode(latent), np.float32)


def place_of(cycle: Fraction, moments: Sequence[Moment]) -> int:
    """The output sample at which a set reaches a cycle, by the tempo said till then."""
    place = 0
    for i, moment in enumerate(moments):
        place = moment.state.tempo.sample_at(cycle)
        if i + 1 < len(moments) and moments[i + 1].sample < place:
            continue
        break
    return place


def pre_roll(place: int, moments: Sequence[Moment], drain: int) -> int:
    """Where sound must begin so that from `place` on it is exact. drain: samples from an admission
    until its generation is heard."""
    before = [m for m in moments if m.sample <= place]
    laps = [d.loop.samples for m in before for d in m.state.decks.values() if d.loop is not None]
    length = 2 * max(laps, default=0) + drain + _FORGET
    begin = place - length
    # Sound that feeds back remembers everything since it began to.
    for i in range(len(before) - 1, -1, -1):
        until = before[i + 1].sample if i + 1 < len(before) else place
        if until >= begin and _feeds(before[i].state, max(begin, before[i].sample)):
            begin = min(begin, before[i].sample - length)
    return max(0, begin)


def _feeds(state: State, sample: int) -> bool:
    here = state.tempo.cycle_at(sample)
    return any("feedback" in deck.bound_lanes(here) for deck in state.decks.values())


def seek(offline: Offline, step: Callable[[], None], begin: int, place: int) -> None:
    """Play up to the turn that holds output sample `place`: dry until `begin`, then for real.

    step: applies the causes whose time has come.
    """
    mixer, turn = offline.output.mixer, offline.output.blocks * BLOCK
    offline.output.dry_run.dry = True
    while mixer.position + turn <= begin:
        step()
        offline.skip()
    offline.output.dry_run.dry = False
    while mixer.position + turn <= place:
        step()
        offline.turn()
