"""What every engine is, and what it reads of a row; the cache of stacked rows that engines share.

Threads: `velocity` belongs to the ring's thread, `decode` may run in another one beside it,
`condition` and `check_prompt` in any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from demon_live.core import Floats, Request
from demon_live.models.manifest import Manifest

if TYPE_CHECKING:
    import torch

S = TypeVar("S")


class Row(Protocol):
    """One row of the ring's batch, as an engine reads it.

    condition: of `Engine.condition` or `Engine.unconditioned`; None = unconditioned.
    shared: lanes read at each step, float32 [T] or a number: `hint`, `prompt_mix`; absent means 0.
    """

    @property
    def request(self) -> Request: ...
    @property
    def condition(self) -> Any: ...
    @property
    def shared(self) -> Mapping[str, Any]: ...


class Engine(Protocol):
    """A model on a device. T frames, C channels; a frame is 40 ms, 1920 samples at 48 kHz.

    Attributes:
        notes: lines for the performer, such as why a better backend was not chosen.
        margin: context frames on each side that make a decoded window exact.
        window: frames of a window by default.
        controls: those that the engine obeys.

    An engine whose weights can be told notes says so with `told_notes = True`: its requests bring
    the notes of their lap (`Request.lanes`, see `notes.lanes`). Without it notes
    reach a model by the source that they play.
    """

    name: str
    manifest: Manifest
    notes: list[str]
    channels: int
    steps: int
    shift: float
    depth: int
    margin: int
    window: int
    controls: frozenset[str]
    device: torch.device

    def describe(self) -> str:
        """One line: `imp (cpu, onnxruntime fp32, 2 threads)`."""
        ...

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """v [B, T, C] of x [B, T, C] at times t [B]; one row each. float32, on `device`."""
        ...

    def encode(self, audio: Floats) -> Floats:
        """A loop float32 [n, 2] -> latent [F, C]: F = n/1920 up to even, context wraps round."""
        ...

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]; exact `margin` frames away from either end."""
        ...

    def condition(
        self,
        prompt: str,
        *,
        prompt2: str = "",
        key: str = "",
        bpm: float,
        cycles: int,
        beats: int,
        frames: int,
    ) -> Any:
        """The model's input for texts and a place in time; equal arguments give the same object."""
        ...

    def unconditioned(self, condition: Any) -> Any:
        """The same place in time without words: for the negative pass of guidance."""
        ...

    def check_prompt(self, prompt: str) -> list[str]:
        """How a prompt is understood, then one line for each word that is not."""
        ...

    def warm_up(self, frames: int, depth: int) -> None:
        """Run each shape once, so that the first tick is not the slow one."""
        ...

    def close(self) -> None:
        """Free memory and threads. The engine cannot be used afterwards."""
        ...


class LastStack(Generic[S]):
    """The stacked inputs of the last tick; between admissions its rows come again unchanged."""

    def __init__(self) -> None:
        self._frames = 0
        self._key: list[Any] = []
        self._stacked: list[S] = []

    def get(self, frames: int, key: list[Any], stack: Callable[[], S]) -> S:
        """`stack()`, or its last result if frames and the objects of the key are the same.

        The key holds the objects themselves: an id could come back for another object.
        """
        same = frames == self._frames and len(key) == len(self._key)
        if not same or any(a is not b for a, b in zip(key, self._key, strict=True)):
            self._stacked = [stack()]
            self._frames, self._key = frames, key
        return self._stacked[0]
