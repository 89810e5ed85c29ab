"""Any order of calls: nothing dead, nothing twice, nothing lost, and every latent the right one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from demon_live.engine import Ring
from tests.helpers.velocity_models import Linear, T, alone, request, same

CALLS = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from("ab"), st.integers(0, 3)),
    st.tuples(st.just("tick"), st.integers(1, 6)),
    st.tuples(st.just("depth"), st.integers(1, 6)),
    st.tuples(st.just("steps"), st.integers(1, 9)),
    st.tuples(st.just("epoch"), st.sampled_from("ab"), st.booleans()),
    st.tuples(st.just("dismiss"), st.sampled_from("ab")),
    st.tuples(st.just("preview"), st.sampled_from("ab")),
)


class Rider:
    """Plays a list of calls and keeps the books."""

    def __init__(self):
        self.ring = Ring(Linear(), steps=4, depth=3)
        self.epochs = {"a": 0, "b": 0}
        self.lengths = {"a": T, "b": T}
        self.count = 0
        self.out = []

    def submit(self, deck, kind):
        self.count += 1
        frames = self.lengths[deck]
        more = [{}, {"mask": np.zeros(frames, np.float32)}, {"source": None}, {"denoise": 0.0}][
            kind
        ]
        epoch = self.epochs[deck]
        self.ring.submit(request(self.count, deck=deck, epoch=epoch, frames=frames, **more))

    def tick(self, times):
        for _ in range(times):
            most = max(self.ring.depth, self.ring.in_flight)
            done = self.ring.tick()
            assert self.ring.in_flight <= most
            assert [g.born for g in done] == sorted(g.born for g in done)
            for generation in done:
                asked = generation.request
                assert asked.epoch == self.epochs[asked.deck]
                assert generation.retired == self.ring.tick_number - 1
                assert generation.retired - generation.born == len(generation.versions) - 1
            self.out += done

    def depth(self, depth):
        self.ring.resize(depth)

    def steps(self, steps):
        self.ring.resize(steps=steps)

    def epoch(self, deck, longer):
        self.epochs[deck] += 1
        self.lengths[deck] = T + 2 * longer
        self.ring.new_epoch(deck, self.epochs[deck])
        assert deck not in {slot.deck for slot in self.ring.slots()}

    def dismiss(self, deck):
        self.ring.dismiss(deck)
        self.epochs[deck] = 0
        assert deck not in {slot.deck for slot in self.ring.slots()}

    def preview(self, deck):
        found = self.ring.preview(deck)
        assert found is None or found.request.deck == deck


@given(st.lists(CALLS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_order_of_calls(calls):
    rider = Rider()
    for name, *arguments in calls:
        getattr(rider, name)(*arguments)
    rider.out += rider.ring.flush()
    assert rider.ring.in_flight == rider.ring.dropped == rider.ring.stale == 0
    seeds = [g.request.seed for g in rider.out]
    assert len(set(seeds)) == len(seeds)
    for generation in rider.out[::5]:
        steps = len(generation.versions)
        assert same(generation.latent, alone(generation.request, steps=steps))
