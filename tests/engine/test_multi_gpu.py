"""N workers play as one ring of N times the depth: the same latents and stamps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.core import Generation, Request
from demon_live.engine import Ring
from demon_live.engine.gpu_workers import (
    ConditionArguments,
    GpuWorker,
    InlineLink,
    MultiGpuEngine,
    ProcessLink,
    WorkerOptions,
)
from demon_live.engine.multi_gpu import MultiGpuRing, TickOrder, WorkerLost, WorkerReply
from demon_live.errors import EngineError
from demon_live.runtime.engine_main import _workers, opened
from demon_live.runtime.options import EngineOptions, Opening
from tests.helpers.mock_engine import MockEngine, by_prompt, offline, run

T, C = 12, 2


class Model:
    """Rows are computed one by one, so that a row does not depend on its neighbours."""

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Any]) -> torch.Tensor:
        out = []
        for i, row in enumerate(rows):
            hint = row.shared.get("hint", 0.0)
            word = float(row.condition or 0.0) + float(np.mean(hint))
            out.append(torch.tanh(x[i] * 1.7 + word) - 0.3 * x[i] * t[i])
        return torch.stack(out)


def _engine() -> Any:
    engine = MockEngine(lambda request: 0.1)
    engine.velocity = Model().velocity  # type: ignore[method-assign]
    return engine


def ring_of(workers: int, ahead: int = 0, **more: Any) -> MultiGpuRing:
    links = [InlineLink(GpuWorker(WorkerOptions(), _engine())) for _ in range(workers)]
    return MultiGpuRing(links, ahead=ahead, **more)


def performance(ring: Ring) -> list[Generation]:
    """Everything that can happen to a ring, over 60 ticks."""
    seeds = count()
    source = np.linspace(-1, 1, T * C, dtype=np.float32).reshape(T, C)

    def admit(deck: str) -> Request:
        n = next(seeds)
        return Request(
            T,
            C,
            denoise=0.4 + 0.05 * (n % 10),
            seed=n,
            source=source if n % 3 else None,
            condition=0.1 * (n % 4),
            negative=-0.2,
            cfg=("off", "full", "initialize", "self")[n % 4],
            feedback=0.3 if n % 5 == 0 else 0.0,
            deck=deck,
            epoch=1 if deck == "b" else 0,
        )

    ring.on_admit = admit
    ring.enlist("a")
    ring.enlist("b", weight=2.0)
    ring.prepare("b", 1, T)
    done: list[Generation] = []
    doings: dict[int, Callable[[], object]] = {
        3: lambda: ring.share("blend", np.linspace(0, 1, T, dtype=np.float32), "a"),
        5: lambda: ring.share("guide", 2.0),
        11: lambda: ring.migrate("a", denoise=0.3),
        14: lambda: ring.share("hint", 0.7, "b"),
        20: lambda: ring.new_epoch("b", 1),
        25: lambda: ring.resize(6),
        31: lambda: ring.resize(8, 5),
        40: lambda: ring.dismiss("a"),
        45: lambda: ring.share("blend", None, "a"),
    }
    for tick in range(60):
        doings.get(tick, lambda: None)()
        done += ring.tick()
    done += ring.flush()
    return done


def same(ours: Sequence[Generation], theirs: Sequence[Generation]) -> None:
    assert len(ours) == len(theirs) > 20
    for a, b in zip(ours, theirs, strict=True):
        assert a.request.seed == b.request.seed
        assert (a.request.denoise, a.request.deck) == (b.request.denoise, b.request.deck)
        assert (a.born, a.retired, a.versions) == (b.born, b.retired, b.versions)
        assert a.latent.tobytes() == b.latent.tobytes()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_what_one_ring_of_the_whole_depth_gives(workers: int) -> None:
    one = performance(Ring(Model(), steps=8, depth=6))
    same(performance(ring_of(workers, steps=8, depth=6)), one)


def test_with_orders_on_their_way_the_same_comes_a_tick_later() -> None:
    def plain(ring: Ring) -> list[tuple[int, Generation]]:
        seeds = count()
        ring.on_admit = lambda deck: Request(T, C, seed=next(seeds), deck=deck)
        ring.enlist("main")
        return [(tick, g) for tick in range(60) for g in ring.tick()]

    one = plain(Ring(Model(), steps=8, depth=4))
    ours = plain(ring_of(2, ahead=1, steps=8, depth=4))
    assert [tick - 1 for tick, _ in ours] == [tick for tick, _ in one][: len(ours)]
    same([g for _, g in ours], [g for _, g in one][: len(ours)])


def test_admissions_lie_evenly_between_each_other() -> None:
    ring = ring_of(2, steps=8, depth=4)
    ring.on_admit = lambda deck: Request(T, C, deck=deck)
    ring.enlist("main")
    done = [len(ring.tick()) for _ in range(64)]
    # One worker of depth 2 completes each 4 ticks; two complete each 2 ticks, never both at once.
    assert done[16:] == [0, 1] * 24 or done[16:] == [1, 0] * 24
    counts = [len(worker.in_flight) for worker in ring._workers]
    assert max(counts) - min(counts) <= 1


def test_imp_in_two_workers_is_bit_for_bit_imp_in_one_ring() -> None:
    from demon_live.models.engine import open_engine

    engine = open_engine("imp", threads=1)
    frames = 50
    more = (("bpm", 120.0), ("cycles", 1), ("beats", 4), ("frames", frames))
    words = ConditionArguments("acid techno", more)
    source = np.zeros((frames, engine.channels), np.float32)

    def played(ring: Ring, condition: Any) -> list[Generation]:
        seeds = count()
        ring.on_admit = lambda deck: Request(
            frames, engine.channels, 0.8, next(seeds), source, condition, deck
        )
        ring.enlist("main")
        return [g for _ in range(14) for g in ring.tick()]

    one = played(Ring(engine, steps=4, depth=4), engine.condition("acid techno", **dict(more)))
    links = [InlineLink(GpuWorker(WorkerOptions(), engine)) for _ in range(2)]
    two = played(MultiGpuRing(links, steps=4, depth=4), words)
    assert len(one) == len(two) == 11
    for a, b in zip(one, two, strict=True):
        assert (a.request.seed, a.born, a.retired) == (b.request.seed, b.born, b.retired)
        assert a.latent.tobytes() == b.latent.tobytes()
    engine.close()


class FrailLink:
    """A worker that is lost at its n-th order."""

    def __init__(self, link: InlineLink, orders: int) -> None:
        self._link, self._left = link, orders

    def send(self, order: TickOrder) -> None:
        self._left -= 1
        if self._left < 0:
            raise WorkerLost("the machine is gone")
        self._link.send(order)

    def receive(self) -> WorkerReply:
        return self._link.receive()

    def close(self) -> None:
        """Nothing is left to close."""


def test_when_a_worker_is_lost_the_others_play_on() -> None:
    links: list[Any] = [InlineLink(GpuWorker(WorkerOptions(), _engine())) for _ in range(2)]
    lines: list[str] = []
    ring = MultiGpuRing([links[0], FrailLink(links[1], 20)], steps=8, depth=4, tell=lines.append)
    ring.on_admit = lambda deck: Request(T, C, deck=deck)
    ring.enlist("main")
    done = [len(ring.tick()) for _ in range(80)]
    assert len(ring.links) == 1
    assert "1 play on" in lines[0]
    # The whole depth lies on the one that is left: the same completions as before.
    assert sum(done[40:]) == 20


def test_without_any_worker_left_the_ring_says_so() -> None:
    ring = MultiGpuRing(
        [FrailLink(InlineLink(GpuWorker(WorkerOptions(), _engine())), 2)], steps=8, depth=4
    )
    ring.tick()
    ring.tick()
    with pytest.raises(EngineError, match="no worker"):
        ring.tick()


def test_a_model_that_fails_leaves_the_slots_where_they_were() -> None:
    engine = _engine()
    good, seeds = engine.velocity, count()
    ring = MultiGpuRing([InlineLink(GpuWorker(WorkerOptions(), engine))], steps=4, depth=1)
    ring.on_admit = lambda deck: Request(T, C, seed=next(seeds), deck=deck)
    ring.enlist("main")
    ring.tick()

    def broken(*_: Any) -> Any:
        raise RuntimeError("the model is on fire")

    engine.velocity = broken
    with pytest.raises(EngineError, match="on fire"):
        ring.tick()
    engine.velocity = good
    done = [g for _ in range(3) for g in ring.tick()]
    one = Ring(Model(), steps=4, depth=1)
    one.submit(Request(T, C, seed=0))
    assert [g.latent.tobytes() for g in done] == [one.flush()[0].latent.tobytes()]


def test_a_worker_in_a_process_of_its_own() -> None:
    links = [ProcessLink(WorkerOptions("imp", threads=1, random_weights=True))]
    info = links[0].info()
    assert info.text.startswith("imp (cpu")
    assert info.channels == 128
    ring = MultiGpuRing(links, steps=2, depth=1)
    ring.submit(Request(10, info.channels, seed=3, condition=ConditionArguments("acid", _MORE)))
    [generation] = ring.flush()
    assert generation.request.seed == 3
    assert np.isfinite(generation.latent).all()
    pid = links[0].pid
    links[0].close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


_MORE = (("bpm", 120.0), ("cycles", 1), ("beats", 4), ("frames", 10))


def test_what_was_made_is_taken_from_the_store_and_what_is_in_flight_is_named() -> None:
    ring = ring_of(2, steps=4, depth=2)
    curve = {"blend": np.full(T, 0.5, np.float32)}
    wanted = Request(T, C, seed=5, identity=("dub",), curves=curve)
    ring.submit(wanted)
    ring.tick()
    assert [r.seed for r in ring.requests("main")] == [5]
    [made] = ring.flush()
    assert ring.requests("main") == []
    ring.submit(wanted)
    [again] = ring.tick()
    assert again.latent.tobytes() == made.latent.tobytes()
    assert ring.stats() == (1, 1, True)


def test_what_is_steered_while_it_is_made_goes_into_no_store() -> None:
    ring = ring_of(2, steps=4, depth=2)
    curve = {"blend": np.full(T, 0.5, np.float32)}
    wanted = Request(T, C, seed=5, identity=("dub",), curves=curve)
    ring.submit(wanted)
    ring.tick()
    ring.steer("main", wanted.hear_from, {"blend": np.zeros(T, np.float32)})
    assert len(ring.flush()) == 1
    ring.submit(wanted)
    assert ring.tick() == []


def test_a_ring_that_takes_over_begins_with_nothing_in_flight() -> None:
    links = [InlineLink(GpuWorker(WorkerOptions(), _engine())) for _ in range(2)]
    first = MultiGpuRing(links, steps=4, depth=2)
    first.submit(Request(T, C, seed=1))
    first.tick()
    first.close()
    ring = MultiGpuRing(first.links, steps=4, depth=2)
    ring.submit(Request(T, C, seed=2))
    done = ring.flush()
    assert [g.request.seed for g in done] == [2]
    alone = Ring(Model(), steps=4, depth=2)
    alone.submit(Request(T, C, seed=2))
    assert done[0].latent.tobytes() == alone.flush()[0].latent.tobytes()


class Told(InlineLink):
    """A worker of an engine that notes its timbres; `info` and `warm_up` as of a process."""

    def __init__(self, opens: bool = True) -> None:
        self.timbres: list[str] = []
        self.warmed: list[tuple[int, int]] = []
        self.closed, self._opens = False, opens
        worker = GpuWorker(WorkerOptions(), _engine())
        worker._ring._set_timbre = lambda name, audio: self.timbres.append(name)
        super().__init__(worker)

    def info(self) -> Any:
        if not self._opens:
            raise WorkerLost("its process ended (code 1)")

    def warm_up(self, frames: int, depth: int) -> None:
        self.warmed.append((frames, depth))

    def close(self) -> None:
        self.closed = True


def _several(*links: Any) -> Any:
    engine = _engine()
    engine.set_timbre = lambda name, audio: None
    return MultiGpuEngine(engine, links)


def test_an_engine_on_several_gpus_is_one_engine() -> None:
    good, bad = Told(), Told(opens=False)
    engine = _several(good, bad)
    assert bad.closed
    assert engine.notes == ["GPU 2 does not play along: its process ended (code 1)"]
    assert engine.depth == 8
    assert engine.describe() == "mock on 2 GPUs"
    assert engine.window == 16
    words = engine.condition("dub", bpm=120.0, frames=T)
    assert words == ConditionArguments("dub", (("bpm", 120.0), ("frames", T)))
    assert engine.unconditioned(words) == ConditionArguments("dub", words.more, silent=True)
    engine.warm_up(50, 8)
    assert good.warmed == [(50, 4)]
    ring = engine.new_ring(steps=4, depth=8)
    engine.set_timbre("bell", np.zeros((4, 2), np.float32))
    ring.tick()
    ring.tick()
    # This process has told its own engine.
    assert good.timbres == ["bell"]
    engine.close()
    assert good.closed


def test_a_score_sounds_the_same_on_several_gpus_and_panic_takes_all_back() -> None:
    def played(engine: Any) -> tuple[Any, Any]:
        stage = offline(engine)
        stage.session.apply("tempo 120\nloop 1\nprompt = \"<'a' 'b' 'c'>\"")
        before = run(stage, 4 * 96_000)
        stage.session.apply("panic")
        return before, run(stage, 4 * 96_000)

    one = played(MockEngine(by_prompt, depth=8))
    workers = [MockEngine(by_prompt) for _ in range(2)]
    link: Any = Told()
    link._worker = GpuWorker(WorkerOptions(), workers[1])  # type: ignore[arg-type]
    several = played(MultiGpuEngine(workers[0], [link]))  # type: ignore[arg-type]
    assert all(engine.requests for engine in workers)
    for ours, theirs in zip(several, one, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.timeout(300)
def test_the_engine_process_opens_workers_and_plays_on_without_one_that_dies() -> None:
    options = EngineOptions("imp", device="cpu", threads=1, random_weights=True, gpus=2)
    engine: Any = opened(Opening("", options))
    try:
        assert engine.describe().endswith("on 2 GPUs")
        words = engine.condition("acid", **dict(_MORE))
        lines: list[str] = []
        seeds = count()
        ring = engine.new_ring(
            steps=2,
            depth=2,
            tell=lines.append,
            on_admit=lambda deck: Request(10, 128, seed=next(seeds), condition=words, deck=deck),
        )
        ring.enlist("main")
        assert sum(len(ring.tick()) for _ in range(6)) > 2
        os.kill(engine._others[0].pid, signal.SIGKILL)
        assert sum(len(ring.tick()) for _ in range(8)) > 2
        assert len(ring.links) == 1
        assert "a GPU worker is lost" in lines[0]
    finally:
        engine.close()


def test_gpus_that_are_not_there_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert _workers(EngineOptions(gpus=3)) == ([], ["--gpus 3: this machine shows 1"])
    assert _workers(EngineOptions()) == ([], [])


def test_each_worker_sees_the_gpu_that_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WorkerOptions] = []
    monkeypatch.setattr("demon_live.engine.gpu_workers.ProcessLink", made.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _workers(EngineOptions(gpus=2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,1")
    _workers(EngineOptions(gpus=3))
    assert [one.visible for one in made] == ["1", "3", "1"]


def _known(ring: Ring, seed: int, **more: Any) -> list[Generation]:
    ring.submit(Request(T, C, seed=seed, curves={}, identity=("a",), **more))
    return ring.flush()


def test_workers_take_what_is_known_from_the_store() -> None:
    one, three = Ring(Model(), steps=4, depth=3), ring_of(3, steps=4, depth=3)
    for ring in (one, three):
        (first,) = _known(ring, 1)
        ticks = ring.tick_number
        ring.submit(Request(T, C, seed=1, curves={}, identity=("a",)))
        (again,) = ring.tick()
        assert again.latent is first.latent
        assert ring.tick_number == ticks + 1
        assert ring.stats()[:2] == (1, 1)
        _known(ring, 2)
        assert ring.stats()[:2] == (2, 1)


@pytest.mark.parametrize("change", ["migrate", "steer"])
def test_what_was_changed_in_flight_is_not_known(change: str) -> None:
    ring = ring_of(2, steps=4, depth=2)
    ring.submit(Request(T, C, seed=1, curves={}, identity=("a",)))
    ring.tick()
    if change == "migrate":
        ring.migrate("main", denoise=0.5)
    else:
        ring.steer("main", 0, {"velocity": np.full(T, 0.5, np.float32)})
    ring.flush()
    _known(ring, 1)
    assert ring.stats()[:2] == (2, 0)
