"""A GPU that cannot be used is said with its reason and remedy, before anything is fetched."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from demon_live.cli import doctor
from demon_live.errors import EngineError
from demon_live.models import cuda, listing
from demon_live.models.manifest import load_manifest

ACE = "ace-step-v15-turbo"
SMI = """#!/bin/sh
echo 535.154.05
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine to be furnished: machine(card=, driver=, torch=, hidden=)."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("gcc", "clang", "cc"):
        (path / name).write_text("#!/bin/sh\n")
        (path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(cuda, "_WSL", str(tmp_path / "wsl"))
    monkeypatch.setattr(cuda, "_DRIVER", tmp_path / "driver")
    monkeypatch.setattr(cuda, "_DEVICES", tmp_path / "pci")

    def furnish(
        card: bool = True, driver: str = "", torch: tuple[str, str | None] = ("2.13.0", "13.0")
    ) -> None:
        if card:
            device = tmp_path / "pci" / "0000:01:00.0"
            device.mkdir(parents=True)
            (device / "vendor").write_text("0x10de\n")
            (device / "class").write_text("0x030000\n")
        if driver:
            text = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Thu Feb 1 2024\n"
            (tmp_path / "driver").write_text(text)
        monkeypatch.setattr(cuda, "_torch_build", lambda: torch)

    return furnish


def reason() -> str:
    found = cuda.why_no_cuda()
    assert found is not None
    assert found.remedy
    return found.reason


def test_a_machine_without_a_card_is_no_fault(machine: Any) -> None:
    machine(card=False)
    assert reason() == "there is none in this machine"
    assert not cuda.why_no_cuda().card  # type: ignore[union-attr]


def test_a_card_without_a_driver(machine: Any) -> None:
    machine()
    assert reason() == "its driver is not loaded"


def test_torch_for_cpus(machine: Any) -> None:
    machine(driver="580.10", torch=("2.13.0+cpu", None))
    assert reason() == "torch 2.13.0+cpu is built for CPUs"
    found = cuda.why_no_cuda()
    assert found is not None
    assert "--index-url" in found.remedy


def test_an_old_driver(machine: Any) -> None:
    machine(driver="535.154.05")
    assert reason() == ("driver 535.154.05 is too old for torch 2.13.0, which wants 580 or newer")


def test_a_driver_that_only_its_tool_tells_of(machine: Any, tmp_path: Path) -> None:
    (tmp_path / "wsl").mkdir()
    (tmp_path / "wsl" / "nvidia-smi").write_text(SMI)
    (tmp_path / "wsl" / "nvidia-smi").chmod(0o755)
    machine(card=False)
    assert reason().startswith("driver 535.154.05 is too old")


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_hidden_devices(machine: Any, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    machine(driver="580.10")
    assert cuda.why_no_cuda() is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert reason() == f"CUDA_VISIBLE_DEVICES={hidden} hides it"


def test_the_build_of_torch_is_read_without_loading_it() -> None:
    import torch

    assert cuda._torch_build() == (torch.__version__, torch.version.cuda)


def test_a_missing_compiler_and_missing_headers(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    found = cuda.why_no_compiler()
    assert found is not None
    assert found.reason == f"Python.h is not in {tmp_path}"
    assert f"python3.{sys.version_info.minor}-dev" in found.remedy
    (tmp_path / "Python.h").write_text("")
    assert cuda.why_no_compiler() is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    found = cuda.why_no_compiler()
    assert found is not None
    assert found.reason == "there is no C compiler"


def test_a_session_says_it_before_it_asks_for_files(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demon_live.runtime.live import Live

    machine(driver="580.10", torch=("2.13.0+cpu", None))
    monkeypatch.setenv("DEMON_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EngineError, match="needs an NVIDIA GPU: torch"):
        Live(engine=ACE)
    listed = load_manifest(ACE)
    assert not cuda.needs_gpu(load_manifest("imp"))
    with pytest.raises(EngineError, match="8 files"):
        listing.require_files(listed)


def test_fetch_says_it_before_the_download(
    machine: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(driver="535.154.05")
    monkeypatch.setenv("DEMON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EngineError, match="HF_HUB_OFFLINE"):
        listing.fetch_text(ACE)
    assert "needs an NVIDIA GPU: driver 535.154.05 is too old" in capsys.readouterr().err


def test_windows_is_said_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from demon_live.runtime.live import Live

    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EngineError, match="not on Windows") as found:
        Live(engine=ACE)
    assert "WSL2" in str(found.value.hint)
    with pytest.raises(EngineError, match="not on Windows"):
        listing.fetch_text(ACE)


def test_doctor_warns_of_a_card_that_cannot_be_used(machine: Any) -> None:
    machine(driver="580.10", torch=("2.13.0+cpu", None))
    (found,) = doctor._gpu()
    assert (found.verdict, found.name) == ("warn", "gpu")
    assert "built for CPUs" in found.detail
    assert "--index-url" in found.remedy


def test_doctor_knows_every_variable_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(doctor.__file__).parents[1]
    text = "".join(p.read_text("utf-8") for p in sorted(root.rglob("*.py")))
    names = set(re.findall(r"DEMON_[A-Z][A-Z0-9_]*", text))
    assert {"DEMON_SPARE", "DEMON_PLANS_GB", "DEMON_ENGINE"} <= names
    for name in names:
        monkeypatch.setenv(name, "1")
    assert os.environ["DEMON_SPARE"] == "1"
    (found,) = doctor._settings()
    assert found.verdict == "ok", found.remedy
