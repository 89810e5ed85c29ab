"""The only door to Ray (extra `ray`): clusters, actors that outlive a call, tasks that come back.

    Ray(address)   a cluster while it is used: `with Ray(None) as ray: ...`
    RayLink        a worker of a multi-GPU ring in an actor, on any machine with a free GPU

Ray asks for the same minor version of Python and of Ray at both ends, and for demon-live on every
machine that is to work. Who reaches its ports and knows its token may run code. A cluster on this
machine listens on loopback only, with a token of its own that no file holds.

Threads: a cluster belongs to the thread that opened it; there is one in a process at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from demon_live.engine.gpu_workers import GpuWorker, WorkerInfo, WorkerOptions
from demon_live.engine.multi_gpu import TickOrder, WorkerLost, WorkerReply
from demon_live.errors import EngineError
from demon_live.runtime.options import require_ray

_NAMESPACE = "demon-live"


def load_ray(*, here: bool = False) -> Any:
    """The module `ray`. here: for a cluster on this machine. Raises EngineError."""
    require_ray()
    # Read when Ray loads: no usage statistics are sent, and no line is printed about it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if here:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Elsewhere than on Windows and macOS, Ray replaces a loopback address by one that others
        # can reach, unless this says that no others are meant.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    return ray


class Ray:
    """A cluster while it is used.

    address: None begins one on this machine, with `cpus` processors; else HOST:6379 for a machine
    that is part of it, ray://HOST[:10001] for one that is not, or `auto`. Raises EngineError.
    """

    def __init__(self, address: str | None, cpus: int | None = None) -> None:
        self._ray = ray = load_ray(here=address is None)
        here = str(Path(__file__).resolve().parents[2])
        options: dict[str, Any] = {
            "logging_level": logging.ERROR,
            "log_to_driver": False,
            "namespace": _NAMESPACE,
        }
        if address is None:
            options["include_dashboard"] = False
            options["_node_ip_address"] = "127.0.0.1"
            options["num_cpus"] = cpus
            # The workers run this code, wherever it lies.
            path = os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH")) if p)
            options["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
        else:
            options["address"] = address
        try:
            ray.init(**options)
        # Whatever stands in the way of a cluster, grpc and Ray each have errors of their own for.
        except Exception as error:
            # Half a connection would stand in the way of the next one.
            with contextlib.suppress(Exception):
                ray.shutdown()
            reason = str(error).strip().splitlines()
            raise EngineError(
                f"there is no Ray at {address or 'this machine'}: {reason[0] if reason else error}",
                hint="start it there with: RAY_AUTH_MODE=token ray start --head "
                "--ray-client-server-port 10001; ~/.ray/auth_token must be the same at both ends "
                "(ray get-auth-token --generate makes one)",
            ) from error

    @property
    def gpus(self) -> int:
        """GPUs of the whole cluster."""
        return int(self._ray.cluster_resources().get("GPU", 0))

    @property
    def cpus(self) -> int:
        """Processors of the whole cluster."""
        return int(self._ray.cluster_resources().get("CPU", 1))

    def lasting(self, kind: type, name: str, *args: Any) -> Any:
        """The actor called `name`, which outlives its makers; begun if there is none. It gets a GPU
        where the cluster has one."""
        options: dict[str, Any] = {"num_gpus": 1} if self.gpus else {"num_cpus": 1}
        return (
            self._ray.remote(kind)
            .options(
                name=name,
                lifetime="detached",
                namespace=_NAMESPACE,
                get_if_exists=True,
                max_concurrency=4,
                **options,
            )
            .remote(*args)
        )

    def actor(self, kind: type, *args: Any, gpu: bool = False) -> Any:
        """An actor that lives as long as this cluster is used."""
        options: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": 1}
        return self._ray.remote(kind).options(**options).remote(*args)

    def task(self, function: Callable[..., Any], *args: Any, gpu: bool = False) -> Any:
        """Begin a call on some worker. It is not repeated by Ray: see `lost`."""
        options: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": 1}
        return self._ray.remote(function).options(max_retries=0, **options).remote(*args)

    def put(self, value: Any) -> Any:
        """A value that many calls need, sent once."""
        return self._ray.put(value)

    def get(self, reference: Any, seconds: float | None = None) -> Any:
        """What a call gave; raises what it raised, EngineError for one that is lost or late."""
        from ray import exceptions

        try:
            return self._ray.get(reference, timeout=seconds)
        except exceptions.GetTimeoutError as error:
            raise EngineError(f"no answer within {seconds:.0f} s") from error
        except exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception):
                raise cause from None
            raise
        except exceptions.RayError as error:
            raise Gone(str(error).strip().splitlines()[0]) from error

    def wait(self, references: Sequence[Any], seconds: float) -> Iterable[Any]:
        """Those that are done; at least one, unless the time is over before."""
        done, _ = self._ray.wait(list(references), num_returns=1, timeout=seconds)
        return list(done)

    def stop(self, reference: Any) -> None:
        """End an actor at once."""
        self._ray.kill(reference)

    def close(self) -> None:
        self._ray.shutdown()

    def __enter__(self) -> Ray:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Gone(EngineError):
    """A worker, an actor or its machine is lost."""


def node_address() -> str:
    """Inside an actor: the address that Ray knows this machine by."""
    return str(load_ray().util.get_node_ip_address())


def end_actor() -> None:
    """Inside an actor, from any of its threads: it ends now, and is not begun again."""
    ray = load_ray()
    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


class RayLink:
    """A worker of a multi-GPU ring in a Ray actor. gpu: with a GPU of its own."""

    def __init__(self, ray: Ray, options: WorkerOptions, *, gpu: bool = False) -> None:
        self._ray = ray
        self._actor = ray.actor(GpuWorker, options, gpu=gpu)
        self._answers: deque[Any] = deque()

    def _got(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except Gone as error:
            raise WorkerLost(error.message) from error

    def info(self) -> WorkerInfo:
        """Facts of its engine. Raises EngineError if it does not open."""
        info: WorkerInfo = self._got(self._actor.info.remote())
        return info

    def warm_up(self, frames: int, depth: int) -> None:
        """See `Engine.warm_up`."""
        self._got(self._actor.warm_up.remote(frames, depth))

    def send(self, order: TickOrder) -> None:
        self._answers.append(self._actor.run.remote(order))

    def receive(self) -> WorkerReply:
        reply: WorkerReply = self._got(self._answers.popleft())
        return reply

    def close(self) -> None:
        self._ray.stop(self._actor)
