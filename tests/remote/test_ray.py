"""What only a real Ray can show: one local cluster for all of it, since its start takes seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from demon_live.audio.pcmring import LoopBuffer
from demon_live.core import ControlBlock, EngineDeck, EngineState, Loop, Request, SlotValues
from demon_live.engine.gpu_workers import ConditionArguments, WorkerOptions
from demon_live.engine.multi_gpu import MultiGpuRing
from demon_live.remote.client import Address, EngineClient
from demon_live.remote.ray import Gone, Ray, RayLink
from demon_live.remote.server import EngineServer
from demon_live.remote.transport import RemotePlayhead
from demon_live.replay.farm import Farm, How, jobs
from demon_live.runtime.options import EngineOptions, Ready, has_ray
from demon_live.runtime.pcm_files import PcmFiles

pytestmark = [
    pytest.mark.skipif(not has_ray(), reason="needs the extra ray"),
    # Workers load torch, two at a time, and a machine may be busy.
    pytest.mark.timeout(600),
]

#: Ray reads its settings as RAY_ and their names, which are in small letters.
_NICENESS = "RAY_worker_niceness"
MORE = (("bpm", 120.0), ("cycles", 1), ("beats", 4), ("frames", 50))


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    # Ray puts its workers behind everything else, which on a busy machine is nowhere.
    before = os.environ.setdefault(_NICENESS, "0")
    with Ray(None, 2) as cluster:
        yield cluster
    if before == "0":
        del os.environ[_NICENESS]


def _children(pid: int) -> set[int]:
    every = {pid}
    for process in psutil.Process(pid).children(recursive=True):
        every.add(process.pid)
    return every


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_cluster_of_this_machine_listens_on_loopback_only_and_asks_for_a_token(ray: Ray) -> None:
    ours = _children(os.getpid())
    addresses = {
        c.laddr.ip
        for c in psutil.net_connections("tcp")
        if c.pid in ours and c.status == psutil.CONN_LISTEN
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_who_does_not_know_the_token_is_refused(ray: Ray) -> None:
    address = ray._ray.get_runtime_context().gcs_address
    strange = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
    words = f"import ray; ray.init({address!r}, logging_level='ERROR'); print('in')"
    got = subprocess.run(
        [sys.executable, "-c", words], env=strange, capture_output=True, text=True, timeout=300
    )
    assert "in" not in got.stdout.split()
    assert "oken" in got.stdout + got.stderr


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_told_as_gone(ray: Ray) -> None:
    with pytest.raises(Gone):
        ray.get(ray.task(_die), 120)


def test_a_farm_gives_the_bytes_of_one_process(
    ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    score = tmp_path / "a.demon"
    score.write_text("tempo 120\nloop 1\nsource \"loops/dub_120.flac\"\nprompt = 'acid'\n")
    every = jobs([score], How(cycles=1, random_weights=True), (1, 2))
    farm = Farm(tmp_path / "far")
    farm.run(every, ray)
    assert not farm.failed
    Farm(tmp_path / "near").run(every)
    sounds = [(tmp_path / "far" / f"a-seed{n}.wav").read_bytes() for n in (1, 2)]
    assert sounds == [(tmp_path / "near" / f"a-seed{n}.wav").read_bytes() for n in (1, 2)]
    assert sounds[0] != sounds[1]


def test_workers_in_actors_play_as_one_ring(ray: Ray) -> None:
    plan = WorkerOptions("imp", threads=1, random_weights=True)
    links = [RayLink(ray, plan) for _ in range(2)]
    channels = links[0].info().channels

    def latents(ring: MultiGpuRing) -> list[bytes]:
        out = []
        for seed in range(4):
            ring.submit(
                Request(50, channels, seed=seed, condition=ConditionArguments("acid", MORE))
            )
            out += [g.latent.tobytes() for g in ring.tick()]
        return out + [g.latent.tobytes() for g in ring.flush()]

    two = latents(MultiGpuRing(links, steps=2, depth=2))
    one = latents(MultiGpuRing(links[:1], steps=2, depth=2))
    assert two == one
    assert len(two) == 4
    for link in links:
        link.close()


def _answers(ray: Ray, actor: Any, options: EngineOptions) -> bool:
    try:
        ray.get(actor.open.remote(options), 60)
    except Gone:
        return False
    return True


def test_an_engine_in_an_actor_plays_into_the_loops_here(ray: Ray, tmp_path: Path) -> None:
    options = EngineOptions("imp", threads=1, random_weights=True)
    actor = ray.lasting(EngineServer, "engine:imp")
    loop = Loop(0, "main", 0, Fraction(0), Fraction(48000), 1, Fraction(240), 4, 26)
    buffer = LoopBuffer.create(tmp_path / loop.file, 48000)
    pipe, theirs = Pipe()

    def reach(key: bytes) -> list[Address]:
        assert str(ray.get(actor.open.remote(options), 300)).startswith("imp")
        host, port, fingerprint = ray.get(actor.listen.remote(key), 60)
        assert host == "127.0.0.1"
        return [(host, port, fingerprint)]

    clock = RemotePlayhead()
    clock.beat(0)
    near = EngineClient(theirs, clock, options, reach, "there", PcmFiles(tmp_path))
    thread = threading.Thread(target=near.run, daemon=True)
    thread.start()
    said = pipe.recv()
    while not isinstance(said, Ready):
        said = pipe.recv()
    assert said.description.endswith("at there")
    plan = (SlotValues(0, {"prompt": "acid", "seed": 3}, jump=False),)
    for n in range(3000):
        if near.landed > 3:
            break
        block = ControlBlock("main", n, loop, clock.now(), {}, plan)
        pipe.send(EngineState({"main": EngineDeck(loop, block)}))
        while pipe.poll(0.03):
            pipe.recv()
    assert np.abs(buffer.audio).max() > 0
    pipe.close()
    thread.join(20)
    # Its caller said good-bye: the actor is gone, and its place is free.
    while _answers(ray, actor, options):
        threading.Event().wait(0.1)
