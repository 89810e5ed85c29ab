"""ENGINE.md 8, check 22: 125 Hz of every control for 60 s, 12 ticks a second, virtual time."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from demon_live.controls import CONTROLS, names
from demon_live.engine import Ring
from tests.test_engine_mocks import T, alone, request, same
from tests.test_engine_weights import adapter, net

HZ, SECONDS, TICKS = 125, 60, 12
STEP, DECK = names("step"), "storm"


def controls():
    """All that a controller may move: step, slot (through requests) and model."""
    slots = [n for n in ("denoise", "seed", "shift", "feedback", "feedback_depth") if n in CONTROLS]
    return [*STEP, *slots, "lora.a", "migrate"]


class Stormy:
    """A ring with two decks: one is stormed, the other plays on."""

    def __init__(self, storm=True):
        self.storm, self.turned = storm, dict.fromkeys(controls(), 0.0)
        model = net(adapter("a", 1))
        # The weights are the network's, so that the calm deck would rightly hear them.
        model.velocity = lambda x, t, rows: 0.3 * x + 0.1 * t[:, None, None]
        self.ring = Ring(model, steps=8, depth=4, shift=3.0, noise_bytes=1 << 16)
        self.born = 0

    def turn(self, n):
        """One message of a controller."""
        control, value = controls()[n % len(controls())], (n * 7 % 101) / 101
        self.turned[control] = value
        if control in STEP:
            curve = np.full(T, value, np.float32) if n % 2 else value
            self.ring.share(control, curve, deck=DECK)
        elif control == "lora.a":
            self.ring.share(control, value, deck=DECK)
        elif control == "migrate":
            self.ring.migrate(DECK, denoise=value)

    def submit(self):
        self.born += 1
        self.ring.submit(request(self.born, deck="calm"))
        if self.storm:
            t = self.turned
            more = {"shift": 1.0 + t["shift"], "feedback": t["feedback"]}
            seed = int(1000 * t["seed"])
            self.ring.submit(request(seed, deck=DECK, denoise=t["denoise"], **more))
        else:
            self.ring.submit(request(0, deck=DECK))


class Books:
    """Which generations came when, and the bits of the calm deck's; nothing that grows."""

    def __init__(self):
        self.count, self.times, self.calm = 0, hashlib.sha256(), hashlib.sha256()

    def enter(self, generations):
        for g in generations:
            self.count += 1
            self.times.update(f"{g.born} {g.retired} {g.request.deck};".encode())
            if g.request.deck == "calm":
                self.calm.update(g.latent.tobytes())


def ride(storm, each_second=lambda: None):
    it, books, messages = Stormy(storm), Books(), 0
    for tick in range(SECONDS * TICKS):
        while storm and messages < (tick + 1) * HZ / TICKS:
            it.turn(messages)
            messages += 1
        it.submit()
        books.enter(it.ring.tick())
        if tick % TICKS == 0:
            each_second()
    return it, books, messages


@pytest.mark.timeout(600)  # a minute of music, traced: long where the machine is shared
def test_memory_is_flat_the_last_value_wins_and_nobody_else_is_touched():
    sizes = []
    tracemalloc.start()
    it, books, messages = ride(True, lambda: sizes.append(tracemalloc.get_traced_memory()[0]))
    tracemalloc.stop()
    assert messages == HZ * SECONDS
    # Caches are still filling: 6 kB a second were seen, of 7,500 messages that each make objects.
    assert max(sizes[30:]) < max(sizes[10:30]) + 400_000
    assert (it.ring.dropped, it.ring.refused, it.ring.trouble) == (0, 0, None)
    # As many generations as without a storm, at the same ticks, and the calm deck's bit for bit.
    _, still, _ = ride(False)
    assert books.count == still.count >= SECONDS * TICKS // 2 - 4
    assert books.times.digest() == still.times.digest()
    assert books.calm.digest() == still.calm.digest()
    # What was turned last is what is in force.
    snapshot = it.ring._shared.snapshot()
    for name in STEP:
        assert np.max(snapshot.get(DECK, name, T)) == np.float32(it.turned[name])
    assert it.ring.strengths.get("a", 0.0) == it.turned["lora.a"]
    it.ring.dismiss("calm")
    held = {name: it.turned[name] for name in STEP}
    it.ring.submit(request(1, deck=DECK))
    assert same(it.ring.flush()[-1].latent, alone(request(1), it.ring.model, shared=held))
