"""What was made once is not made again: keys of generations, and the store of the ring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from demon_live.core import Generation, Request
from demon_live.engine import Ring
from demon_live.engine.store import Store, key_of

T, C = 8, 3


class Model:
    """Velocity that depends on x, t and the condition. calls: rows of every call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def velocity(self, x, t, rows):  # type: ignore[no-untyped-def]
        self.calls.append(len(rows))
        bias = torch.tensor([float(row.condition) for row in rows])[:, None, None]
        return 0.3 * x + t[:, None, None] + bias


def request(**more: object) -> Request:
    given = {
        "condition": 1.0,
        "identity": ("acid",),
        "source": np.full((T, C), 0.25, np.float32),
        "denoise": 0.5,
        "curves": {"blend": np.full(T, 0.5, np.float32)},
    }
    return Request(T, C, **{**given, **more})  # type: ignore[arg-type]


def made(ring: Ring, *requests: Request) -> list[Generation]:
    out = []
    for one in requests:
        ring.submit(one)
        out += ring.flush()
    return out


def test_equal_causes_give_the_latent_that_was_made_without_a_step() -> None:
    ring = Ring(Model(), steps=4, depth=2)
    first, second = made(ring, request(), request(hear_from=9, epoch=1))
    calls = len(ring.model.calls)  # type: ignore[attr-defined]
    assert second.latent is first.latent
    assert (second.request.hear_from, calls) == (9, 4)
    assert ring.stats() == (1, 1, True)


@pytest.mark.parametrize(
    "other",
    [
        {"denoise": 0.25},
        {"seed": 1},
        {"drift": 0.25},
        {"shift": 2.0},
        {"identity": ("dub",)},
        {"source": np.full((T, C), 0.5, np.float32)},
        {"curves": {"blend": np.full(T, 0.25, np.float32)}},
        {"curves": {}},
        {"mask": np.ones(T, np.float32)},
        {"init": np.ones(T, np.float32)},
        {"cfg": "self"},
    ],
)
def test_any_other_cause_is_another_generation(other: dict[str, object]) -> None:
    assert key_of(request(), 8, 3.0) != key_of(request(**other), 8, 3.0)
    ring = Ring(Model(), steps=4, depth=2)
    made(ring, request(), request(**other))
    assert ring.stats() == (2, 0, True)


def test_noise_that_drifts_turns_away_from_that_of_its_seed() -> None:
    """By the cosine of a right angle times `drift`; each turn another way, the same one always."""
    size = {"frames": 64, "channels": 64, "source": None, "denoise": 1.0, "curves": {}}

    class Still(Model):
        def velocity(self, x, t, rows):  # type: ignore[no-untyped-def]
            return torch.zeros_like(x)

    ring = Ring(Still(), steps=1, depth=1)
    asked = [(0.0, 0), (0.0, 3), (0.5, 1), (0.5, 2), (0.5, 1), (1.0, 1)]
    found = made(ring, *(replace(request(drift=d, turn=n), **size) for d, n in asked))  # type: ignore[arg-type]
    plain, other, one, two, again, far = (np.asarray(g.latent) for g in found)
    assert np.array_equal(plain, other)
    assert np.array_equal(one, again)

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    assert alike(plain, one) == pytest.approx(np.sqrt(0.5), abs=0.03)
    assert alike(one, two) == pytest.approx(0.5, abs=0.04)
    assert alike(plain, far) == pytest.approx(0.0, abs=0.05)
    assert one.std() == pytest.approx(1.0, abs=0.03)


def test_the_same_numbers_in_another_array_are_the_same_cause() -> None:
    again = request(source=np.full((T, C), 0.25, np.float32))
    assert key_of(request(), 8, 3.0) == key_of(again, 8, 3.0)
    assert key_of(request(), 8, 3.0) != key_of(request(), 4, 3.0)
    assert key_of(request(), 8, 3.0) == key_of(request(shift=3.0), 8, 3.0)


@pytest.mark.parametrize("more", [{"curves": None}, {"identity": None}, {"feedback": 0.5}])
def test_what_depends_on_more_than_its_request_has_no_key(more: dict[str, object]) -> None:
    assert key_of(request(**more), 8, 3.0) is None


def test_what_was_changed_in_flight_is_not_kept() -> None:
    for change in (
        lambda ring: ring.steer("main", 0, {"blend": np.zeros(T, np.float32)}),
        lambda ring: ring.migrate("main", denoise=0.25),
        lambda ring: ring.forget(),
    ):
        ring = Ring(Model(), steps=4, depth=2)
        ring.submit(request())
        ring.tick()
        change(ring)
        ring.flush()
        made(ring, request())
        assert ring.stats() == (2, 0, True)


def test_own_curves_reach_the_steps_that_remain_and_no_other_generation() -> None:
    """A curve of 0 ends on the source exactly, one of 1 does not."""
    source = np.full((T, C), 0.25, np.float32)
    ring = Ring(Model(), steps=4, depth=2)
    one, zero = np.ones(T, np.float32), np.zeros(T, np.float32)
    ring.submit(replace(request(curves={"blend": one}), deck="a"))
    ring.submit(replace(request(curves={"blend": one}), deck="b"))
    for _ in range(3):
        ring.tick()
    ring.steer("a", 0, {"blend": zero})
    done = {g.request.deck: g for g in ring.flush()}
    assert np.array_equal(done["a"].latent, source)
    assert not np.array_equal(done["b"].latent, source)


def test_own_curves_are_what_a_shared_curve_would_be() -> None:
    curve = np.linspace(0.0, 1.0, T, dtype=np.float32)
    own = Ring(Model(), steps=4, depth=2)
    shared = Ring(Model(), steps=4, depth=2)
    shared.prepare("main", 0, T)
    shared.share("blend", curve, deck="main")
    (mine,) = made(own, request(curves={"blend": curve}))
    (theirs,) = made(shared, request(curves=None))
    assert np.array_equal(mine.latent, theirs.latent)


def test_the_store_is_bounded_and_the_least_recently_used_goes_first() -> None:
    latents = [np.full((4, 1), n, np.float32) for n in range(4)]
    store = Store(most=48)
    for n in range(3):
        store.put(bytes([n]), latents[n])
    assert store.get(b"\0") is latents[0]
    store.put(b"\3", latents[3])
    assert [store.get(bytes([n])) is not None for n in range(4)] == [True, False, True, True]
    assert store.get(None) is None


def test_without_a_store_everything_is_made() -> None:
    ring = Ring(Model(), steps=4, depth=2, store_bytes=0)
    first, second = made(ring, request(), request())
    assert np.array_equal(first.latent, second.latent)
    assert ring.stats() == (2, 0, True)
