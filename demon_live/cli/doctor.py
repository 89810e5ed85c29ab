"""`demon doctor`: what this machine has, what it lacks, and the remedy.

Each check is a function that yields `Check`s; it imports what it examines only when it runs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from demon_live import paths as places
from demon_live._version import __version__
from demon_live.errors import DemonError
from demon_live.ui.show import Pieces

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. remedy: what to do about it, "" where there is nothing to do."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def _judged(name: str, wrong: bool, detail: str, remedy: str, verdict: Verdict = "warn") -> Check:
    """A finding: ok, or else `verdict` with the remedy."""
    return Check(name, verdict, detail, remedy) if wrong else Check(name, "ok", detail)


def _python() -> Iterable[Check]:
    version = platform.python_version()
    old = sys.version_info < (3, 11)
    detail = f"{version}, {platform.system()} {platform.machine()}, demon {__version__}"
    yield _judged("python", old, detail, "Python 3.11 or newer is needed", "fail")


def _packages() -> Iterable[Check]:
    needed = [
        "numpy",
        "scipy",
        "onnxruntime",
        "torch",
        "prompt_toolkit",
        "watchdog",
        "lark",
        "pygments",
        "soundfile",
        "soxr",
        "sounddevice",
        "platformdirs",
        "safetensors",
    ]
    found, lacking = [], []
    for name in needed:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name)
    if lacking:
        yield Check(
            "packages", "fail", f"missing: {', '.join(lacking)}", f"pip install {' '.join(lacking)}"
        )
    else:
        yield Check("packages", "ok", ", ".join(found[:4]) + f" and {len(found) - 4} more")


def _gpu() -> Iterable[Check]:
    if importlib.util.find_spec("torch") is None:
        yield Check("gpu", "warn", "torch is not installed", "pip install torch")
        return
    import torch

    from demon_live.models.cuda import UNKNOWN, why_no_compiler, why_no_cuda

    if not torch.cuda.is_available():
        found = why_no_cuda() or UNKNOWN
        if not found.card:
            yield Check("gpu", "ok", "none: imp plays on the CPU, the large engines cannot play")
            return
        yield Check("gpu", "warn", f"it cannot be used: {found.reason}", found.remedy)
        return
    if (lacking := why_no_compiler()) is not None:
        detail = f"{lacking.reason}: ACE-Step's kernels cannot be compiled, it plays slower"
        yield Check("compiler", "warn", detail, lacking.remedy)
    free, total = torch.cuda.mem_get_info()
    detail = f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    remedy = "close what else uses it: ACE-Step needs about 8 GiB"
    yield _judged("gpu", free < 8 * 2**30, detail, remedy)


#: Extra -> what it is for, the modules that it brings.
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "osc": ("OSC", ("pythonosc",)),
    "web": ("the web page", ("websockets",)),
    "midi": ("knobs, keys and clock", ("mido", "rtmidi")),
    "link": ("Ableton Link", ("aalink",)),
    "lsp": ("demon lsp, for editors", ("pygls",)),
    "mcp": ("demon mcp, for agents", ("mcp.server.mcpserver",)),
    "ace": ("ACE-Step, on a GPU", ("diffusers", "tokenizers")),
    "ray": ("engines and renders elsewhere", ("ray", "cryptography")),
    "tensorrt": ("faster plans of ACE-Step", ("tensorrt",)),
    "rtx": ("the same on RTX cards", ("tensorrt_rtx", "onnx", "onnxscript")),
}


def _extras() -> Iterable[Check]:
    for extra, (purpose, modules) in EXTRAS.items():
        lacking = [name for name in modules if not _is_there(name)]
        if not lacking:
            yield Check(f"extra {extra}", "ok", purpose)
            continue
        detail = f"{purpose}: without {', '.join(lacking)}"
        yield Check(f"extra {extra}", "ok", detail, f"if you want it: {places.install(extra)}")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        # The package that it is part of is missing.
        return False


def _engines() -> Iterable[Check]:
    from demon_live.models.manifest import find_manifests, verify

    for manifest in find_manifests():
        wrong = [f for f in verify(manifest) if f.state != "ok"]
        name = f"engine {manifest.name}"
        if not wrong:
            yield Check(name, "ok", f"{len(manifest.weights)} files, sizes and hashes as listed")
            continue
        fetched = all(f.weight.repo for f in wrong)
        if fetched and len(wrong) == len(manifest.weights):
            detail = f"not fetched: {manifest.summary}"
            yield Check(name, "ok", detail, f"if you want it: demon engines fetch {manifest.name}")
            continue
        states = ", ".join(f"{f.weight.file} {f.state}" for f in wrong[:3])
        remedy = f"demon engines fetch {manifest.name}" if fetched else "install demon-live again"
        yield Check(name, "warn" if fetched else "fail", states, remedy)


def _audio() -> Iterable[Check]:
    from demon_live.audio.devices import list_devices, pick
    from demon_live.errors import DeviceError

    without = "or play into a file: demon live --audio file:set.wav"
    try:
        found = list_devices()
    except DeviceError as fault:
        yield Check("audio library", "warn", fault.message, fault.hint or "")
        return
    yield Check("audio library", "ok", "PortAudio is there")
    if not found:
        yield Check("audio device", "warn", "none found", f"plug one in, {without}")
        return
    device = pick(os.environ.get("DEMON_DEVICE"), found)
    try:
        underruns, latency = _listen(device.index, 1.0)
    except DeviceError as fault:
        yield Check(
            "audio device", "warn", fault.message, f"{fault.hint or 'demon devices'}; {without}"
        )
        return
    facts = f"48 kHz, {latency * 1000:.0f} ms, {underruns} underruns in 1 s"
    detail = f"{device.name} ({device.api}), {facts}"
    remedy = "close what else plays or computes; wired beats Bluetooth"
    yield _judged("audio device", underruns > 0, detail, remedy)


def _listen(device: int, seconds: float) -> tuple[int, float]:
    """(underruns, latency in seconds) of a silent second on the device."""
    from demon_live.audio.devices import open_output

    count = [0]

    def silence(out: Any, frames: int, when: Any, status: Any) -> None:
        out.fill(0)
        count[0] += bool(status.output_underflow)

    stream, _ = open_output(device, silence, "high")
    try:
        stream.start()
        time.sleep(seconds)
        return count[0], stream.latency
    finally:
        stream.abort()
        stream.close()


def _cpu() -> Iterable[Check]:
    cores = os.cpu_count() or 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    remedy = "imp wants two cores: lower `depth` or `loop`"
    yield _judged("cores", available < 2, f"{available} of {cores}", remedy)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.is_file():
        mode = governor.read_text().strip()
        remedy = "on stage: sudo cpupower frequency-set -g performance"
        yield _judged("cpu governor", mode == "powersave", mode, remedy)


def _power() -> Iterable[Check]:
    for battery in sorted(Path("/sys/class/power_supply").glob("BAT*")):
        state = (battery / "status").read_text().strip()
        remedy = "plug it in: a machine on battery slows down"
        yield _judged("power", state == "Discharging", f"battery, {state.lower()}", remedy)
        return
    yield Check("power", "ok", "mains, or unknown")


def _memory() -> Iterable[Check]:
    folder = places.runtime_dir()
    free = shutil.disk_usage(folder).free / 2**20
    remedy = "free some, or point DEMON_RUNTIME elsewhere (docker: --shm-size=256m)"
    yield _judged("shared memory", free < 128, f"{folder}, {free:.0f} MiB free", remedy, "fail")


def _folders() -> Iterable[Check]:
    state = places.state_dir()
    probe = state / ".probe"
    try:
        probe.write_text("x")
        probe.unlink()
    except OSError as fault:
        yield Check(
            "state folder",
            "fail",
            f"{state}: {fault.strerror}",
            "point DEMON_STATE to a folder you may write",
        )
        return
    free = shutil.disk_usage(state).free / 2**30
    remedy = "a recorded hour takes up to 1 GiB"
    yield _judged("state folder", free < 2, f"{state}, {free:.0f} GiB free", remedy)


def _patterns() -> Iterable[Check]:
    from demon_live.lang import compile_source

    folder = places.shipped("patterns")
    scores = sorted(folder.glob("*.demon"))
    broken = []
    for path in scores:
        try:
            compile_source(path.read_text("utf-8"), name=str(path))
        except DemonError as fault:
            broken.append(f"{path.name}: {fault.message}")
    if broken or not scores:
        yield Check(
            "patterns",
            "fail",
            "; ".join(broken) or f"{folder} is empty",
            "install demon-live again",
        )
    else:
        yield Check("patterns", "ok", f"{len(scores)} scores in {folder}")


def _watching() -> Iterable[Check]:
    limit = Path("/proc/sys/fs/inotify/max_user_watches")
    if not limit.is_file():
        yield Check("file watching", "ok", f"by {platform.system()}'s own means")
        return
    count = int(limit.read_text())
    remedy = "sudo sysctl fs.inotify.max_user_watches=65536"
    yield _judged("file watching", count < 1024, f"{count} watches", remedy)


def _terminal() -> Iterable[Check]:
    encoding = (sys.stdout.encoding or "").lower()
    term = os.environ.get("TERM", "")
    columns, rows = shutil.get_terminal_size()
    detail = f"{term or 'none'}, {columns}x{rows}, {encoding or 'no encoding'}"
    if not encoding.startswith("utf"):
        yield Check("terminal", "warn", detail, "curves want UTF-8: export LANG=C.UTF-8")
    elif sys.stdout.isatty() and columns < 80:
        yield Check("terminal", "warn", detail, "80 columns show all of the panel")
    else:
        yield Check("terminal", "ok", detail)


def _settings() -> Iterable[Check]:
    known = [
        "ENGINE",
        "BACKEND",
        "DEVICE",
        "AUDIO",
        "STATE",
        "CACHE",
        "RUNTIME",
        "KEYS",
        "MIDI",
        "OSC",
        "WEB",
        "THEME",
        "TORCH",
        "ACE_FP8",
        "SPARE",
        "PLANS_GB",
        "FAULTS",
        "TAP",
    ]
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith("DEMON_")}
    unknown = [k for k in variables if k.removeprefix("DEMON_") not in known]
    detail = ", ".join(f"{k}={v}" for k, v in variables.items()) or "no DEMON_* variables: defaults"
    yield _judged("settings", bool(unknown), detail, f"{', '.join(unknown)} means nothing here")


def _sessions() -> Iterable[Check]:
    """Sessions that play now, also those whose terminal is gone."""
    from demon_live.control.registry import DEFAULT, sessions

    found = sessions()
    if not found:
        yield Check("sessions", "ok", "none plays now")
    for info in found:
        since = time.strftime("%H:%M", time.localtime(info.since))
        what = ", ".join(info.scores) or "no score"
        doors = "".join(f" · {door}" for door in (info.web, info.osc) if door)
        named = "" if info.name == DEFAULT else f" --name {info.name}"
        yield Check(
            f"session {info.name}",
            "ok",
            f"process {info.pid} since {since}: {what}{doors}",
            f"demon attach{named} returns to it, demon stop{named} ends it",
        )


CHECKS: tuple[Callable[[], Iterable[Check]], ...] = (
    _python,
    _packages,
    _gpu,
    _extras,
    _engines,
    _audio,
    _cpu,
    _power,
    _memory,
    _folders,
    _patterns,
    _watching,
    _terminal,
    _settings,
    _sessions,
)


def examine() -> list[Check]:
    """Run every check. A check that fails to run is itself a finding."""
    found: list[Check] = []
    for check in CHECKS:
        name = check.__name__.strip("_")
        try:
            found += check()
        except DemonError as fault:
            found.append(Check(name, "fail", fault.message, fault.hint or ""))
        except (OSError, ImportError, RuntimeError, ValueError) as fault:
            found.append(Check(name, "fail", f"{type(fault).__name__}: {fault}", "see the message"))
    return found


def report(checks: list[Check], as_json: bool) -> Pieces:
    """The findings as lines, or as one JSON object for bug reports."""
    if as_json:
        found = {"demon": __version__, "checks": [asdict(c) for c in checks]}
        return [("", f"{json.dumps(found, indent=2)}\n")]
    kinds = {"ok": "reply", "warn": "warning", "fail": "error"}
    pieces: Pieces = []
    # A long name gets a line of its own, so that the rest stays a column.
    width = min(20, 1 + max((len(c.name) for c in checks), default=0))
    for c in checks:
        name = f"{c.name:<{width}}" if len(c.name) < width else f"{c.name}\n{'':<{width + 5}}"
        pieces += [(kinds[c.verdict], f"{c.verdict:<5}"), ("", f"{name}{_column(c.detail, width)}")]
        if c.remedy:
            pieces.append(("error.hint", f"{'':<{width + 5}}{_column(c.remedy, width)}"))
    bad = sum(c.verdict == "fail" for c in checks)
    pieces.append(("heading", f"{bad} to repair\n" if bad else "ready to play\n"))
    return pieces


def _column(text: str, width: int) -> str:
    """Text to the right of the names, on as many lines as the terminal needs."""
    room = max(30, shutil.get_terminal_size().columns - width - 6)
    # Paths and commands stay whole, so that they can be copied.
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return f"\n{'':<{width + 5}}".join(lines or [""]) + "\n"
