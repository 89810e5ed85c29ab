"""Check 22: 125 Hz of every control for 60 s, 12 ticks a second, virtual time."""

import contextlib
import gc
import hashlib
import tracemalloc

import numpy as np
import pytest

from demon_live.controls import CONTROLS, names
from demon_live.engine import Ring
from tests.helpers.lora_net import adapter, net
from tests.helpers.velocity_models import T, alone, request, same

HZ, SECONDS, TICKS = 125, 60, 12
#: Seconds until every cache that has a bound is full, and how much may be held after that: less
#: than an object for each tick, or than four bytes for each message.
SETTLED, BOUND = 24, 16_000
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
        self.ring = Ring(model, steps=8, depth=4, shift=3.0, noise_bytes=1 << 12)
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


class Ride:
    """A storm, or none, that can go on."""

    def __init__(self, storm):
        self.it, self.books, self.storm = Stormy(storm), Books(), storm
        self.ticks = self.messages = 0

    def go(self, seconds, each_tick=lambda generations: None):
        """The memory in use after each of these seconds, if it is traced."""
        sizes = []
        for _ in range(seconds * TICKS):
            self.ticks += 1
            while self.storm and self.messages < self.ticks * HZ / TICKS:
                self.it.turn(self.messages)
                self.messages += 1
            self.it.submit()
            generations = self.it.ring.tick()
            self.books.enter(generations)
            each_tick(generations)
            if self.ticks % TICKS == 0 and tracemalloc.is_tracing():
                # Also empties the interpreter's own stores of spare tuples and lists.
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes


@contextlib.contextmanager
def traced():
    """Only what is made from now on is looked through and counted."""
    gc.collect()
    gc.freeze()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def growth(sizes):
    return max(sizes) - sizes[0]


@pytest.mark.timeout(600)  # a minute of music, traced: long where the machine is shared
def test_memory_is_flat_the_last_value_wins_and_nobody_else_is_touched():
    ride, still = Ride(True), Ride(False)
    with traced():
        ride.go(SETTLED)
        assert growth(ride.go(SECONDS - SETTLED)) < BOUND
        # One list that keeps what a tick read would be told of within two seconds.
        leak = []
        leaking = ride.go(2, lambda _: leak.append(ride.it.ring._shared.snapshot()))
        assert growth(leaking) > BOUND
    it, books = ride.it, ride.books
    assert ride.messages == HZ * (SECONDS + 2)
    assert (it.ring.dropped, it.ring.refused, it.ring.trouble) == (0, 0, None)
    # As many generations as without a storm, at the same ticks, and the calm deck's bit for bit.
    still.go(SECONDS + 2)
    assert books.count == still.books.count >= SECONDS * TICKS // 2 - 4
    assert books.times.digest() == still.books.times.digest()
    assert books.calm.digest() == still.books.calm.digest()
    # What was turned last is what is in force.
    snapshot = it.ring._shared.snapshot()
    for name in STEP:
        assert np.max(snapshot.get(DECK, name, T)) == np.float32(it.turned[name])
    assert it.ring.strengths.get("a", 0.0) == it.turned["lora.a"]
    it.ring.dismiss("calm")
    held = {name: it.turned[name] for name in STEP}
    it.ring.submit(request(1, deck=DECK))
    assert same(it.ring.flush()[-1].latent, alone(request(1), it.ring.model, shared=held))
