"""Why no NVIDIA GPU plays here, found without loading torch.

why_no_cuda()     -> Obstacle or None    why torch cannot use a GPU
why_no_compiler() -> Obstacle or None    why Triton cannot compile its kernels
require_gpu(manifest)                    raises EngineError before anything is loaded
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from demon_live.errors import EngineError
from demon_live.models.manifest import Manifest

#: The oldest driver that plays programs of a major version of CUDA.
_DRIVERS = {11: 450, 12: 525, 13: 580}
_DRIVER = Path("/proc/driver/nvidia/version")
_DEVICES = Path("/sys/bus/pci/devices")
#: Where Windows puts the driver's tool into its Linux.
_WSL = "/usr/lib/wsl/lib"
#: Bytes of weights from which on a model of this family is too slow on a CPU.
_LARGE = 500_000_000
_INSTALL = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What is in the way. card: whether there is an NVIDIA GPU that could play without it."""

    reason: str
    remedy: str
    card: bool = True


#: Nothing is in the way that could be found, and still torch has no GPU.
UNKNOWN = Obstacle("torch finds none", "see: nvidia-smi")


def require_system() -> None:
    """Raises EngineError on a system that cannot play at all."""
    if sys.platform == "win32":
        raise EngineError(
            "demon plays on Linux and macOS, not on Windows itself",
            hint="use WSL2: wsl --install, then install demon in its Ubuntu; NVIDIA's driver for "
            "Windows serves both",
        )


def needs_gpu(manifest: Manifest) -> bool:
    """Whether an engine plays on a GPU only."""
    return manifest.family == "acestep" and sum(w.bytes for w in manifest.weights) > _LARGE


def require_gpu(manifest: Manifest) -> None:
    """Raises EngineError if the engine needs a GPU and none can be used."""
    if needs_gpu(manifest) and (found := why_no_cuda()) is not None:
        raise no_gpu(manifest.name, found)


def no_gpu(name: str, found: Obstacle) -> EngineError:
    """The error for an engine without its GPU."""
    return EngineError(
        f"{name} needs an NVIDIA GPU: {found.reason}",
        hint=f"{found.remedy}; --engine imp plays without one",
    )


def why_no_cuda() -> Obstacle | None:
    """Why torch cannot use a GPU here; None if nothing speaks against it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and (not hidden.strip() or hidden.strip().startswith(("-", "NoDev"))):
        shown = f"CUDA_VISIBLE_DEVICES={hidden}"
        return Obstacle(f"{shown} hides it", "unset CUDA_VISIBLE_DEVICES", _has_card())
    if not _has_card():
        return Obstacle("there is none in this machine", "in a container: --gpus all", card=False)
    driver = _driver()
    if driver is None:
        return Obstacle(
            "its driver is not loaded",
            "install NVIDIA's driver and restart, until nvidia-smi lists the card",
        )
    build, cuda = _torch_build()
    if not build:
        return Obstacle("torch is not installed", "pip install torch")
    if cuda is None:
        remedy = f"{_INSTALL}cu130 (driver 580 or newer; older drivers: cu126)"
        return Obstacle(f"torch {build} is built for CPUs", remedy)
    least = _DRIVERS.get(int(cuda.split(".")[0]), 0)
    if int(driver.split(".")[0]) < least:
        return Obstacle(
            f"driver {driver} is too old for torch {build}, which wants {least} or newer",
            f"update NVIDIA's driver, or install a torch for older ones: {_INSTALL}cu126",
        )
    return None


def why_no_compiler() -> Obstacle | None:
    """Why kernels cannot be compiled: Triton wants a C compiler and Python's headers."""
    if os.environ.get("CC") is None and not any(map(shutil.which, ("gcc", "clang", "cc"))):
        return Obstacle("there is no C compiler", "sudo apt install gcc (or clang)")
    include = sysconfig.get_paths()["include"]
    if not (Path(include) / "Python.h").is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return Obstacle(f"Python.h is not in {include}", f"sudo apt install python{version}-dev")
    return None


def _has_card() -> bool:
    if _DRIVER.is_file() or _smi() is not None:
        return True
    for device in _DEVICES.glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:
            continue
        if vendor.strip() == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def _smi() -> str | None:
    return shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=_WSL)


def _driver() -> str | None:
    """Version of the driver that runs, such as 535.154.05."""
    try:
        text = _DRIVER.read_text()
    except OSError:
        command = _smi()
        if command is None:
            return None
        asked = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            text = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
    found = re.search(r"\b\d{3,}\.\d+[.\d]*", text)
    return found[0] if found else None


def _torch_build() -> tuple[str, str | None]:
    """(version of torch, of the CUDA that it is built for or None); "" without torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "", None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text()
    except OSError:
        return "of an unknown version", "0"
    values = dict(re.findall(r"^(\w+)(?:\s*:[^=\n]+)?\s*=\s*'([^']+)'", text, re.MULTILINE))
    return values.get("__version__", "of an unknown version"), values.get("cuda")
