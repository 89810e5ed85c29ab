"""The rigs that compare written with heard: what they would see."""

import numpy as np

from demon_live.bench.latency import Times
from tests.rigs.jumps import SPACING, crossings
from tests.rigs.simulated import edits


def test_edits_are_heard_in_the_order_of_their_classes():
    """Ticks of 100 ms at depth 4: a slot is baked for 8 of them, a step acts on the next."""
    heard = edits(4, Times(ticks=(0.1,), decodes=(0.02,), nominal=0.08))
    mix, step, moved, slot = (
        heard[f"{name}_edit_first_heard_virtual_ms"]
        for name in ("mix", "step", "slot_migrated", "slot")
    )
    assert 0 <= mix < 25
    assert 100 < step < 400
    assert 100 < moved < 400
    assert 800 < slot < 1400
    assert heard["scheduled_late_ms"] == 0.0


def test_a_jump_is_timed_to_the_sample_and_a_missing_one_is_missing():
    """Old sound, a cross-fade of 16 ms around 20 ms after the written moment, new sound."""
    rng = np.random.default_rng(3)
    n, written = 2 * SPACING, SPACING
    low, high = (rng.normal(size=(n, 2)).astype(np.float32) for _ in range(2))
    fade = np.clip((np.arange(n) - (written + 960 - 384)) / 768, 0, 1)[:, None]
    played = ((1 - fade) * low + fade * high).astype(np.float32)
    (late,) = crossings(played, low, high, [written], [True])
    assert late is not None
    assert abs(late - (written + 960)) <= 16
    assert crossings(played, high, low, [written], [False]) == [late]
    assert crossings(low, low, high, [written], [True]) == [None]
