"""Which of the two libraries serves a card, and their differences behind one adapter.

library_for("8.9") -> Library      or EngineError: why none serves it, and what plays instead
Library.load()     -> its module   Library.logger(module) -> (logger, its errors)
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demon_live.errors import EngineError, UsageError
from demon_live.paths import install

#: Compute capabilities that tensorrt-rtx builds for, and the cards they are.
RTX: Mapping[str, str] = {
    "7.5": "RTX 20 series",
    "8.6": "RTX 30 series",
    "8.9": "RTX 40 series",
    "12.0": "RTX 50 series",
}
_KEPT: list[Any] = []


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two. name: its package on PyPI. module: how it is imported."""

    name: str
    module: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def ahead(self) -> bool:
        """Whether it builds plans for cards that are not in this machine."""
        return self.name == "tensorrt-rtx"

    def load(self) -> Any:
        """The module. Raises EngineError if its libraries do not load here."""
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise EngineError(
                f"{self.name} is installed, but does not load: {reason}",
                hint="the backend graphs needs no TensorRT",
            ) from None


def logger(trt: Any) -> tuple[Any, list[str]]:
    """(a logger for `trt`, its errors): other messages are not for a performer."""
    errors: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message)

    # For the whole life of the process: the library keeps a reference and does not count it.
    made = Logger()
    _KEPT.append(made)
    return made, errors


def _library(name: str, module: str) -> Library:
    if importlib.util.find_spec(module) is None:
        extra = "rtx" if name == "tensorrt-rtx" else "tensorrt"
        raise EngineError(f"{name} is not installed", hint=f"{install(extra)}, or use graphs")
    from importlib.metadata import version

    return Library(name, module, version(name))


def checked(capability: str) -> str:
    """A compute capability as it is written. Raises UsageError."""
    if not re.fullmatch(r"\d+\.\d", capability):
        known = ", ".join(f"{cc} ({card})" for cc, card in RTX.items())
        raise UsageError(
            f"a compute capability is written like 8.9, this is {capability!r}", hint=known
        )
    return capability


def library_for(capability: str) -> Library:
    """The library that serves a card of this compute capability ('8.9').

    Raises EngineError: the card is too old, or the library is not installed.
    """
    if checked(capability) in RTX:
        return _library("tensorrt-rtx", "tensorrt_rtx")
    if float(capability) < 7.5:
        raise EngineError(
            f"compute capability {capability} is too old for TensorRT",
            hint="RTX 20 series and later are served; imp plays on any machine",
        )
    try:
        return _library("tensorrt", "tensorrt")
    except EngineError as error:
        raise EngineError(
            f"tensorrt-rtx does not serve compute capability {capability}, and {error.message}",
            hint="the backend graphs serves this card, without any plan",
        ) from None


def capability_of(device: Any) -> str | None:
    """The compute capability of a CUDA device of torch's ('8.9'); None for any other."""
    import torch

    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return f"{major}.{minor}"
