"""Settings of all tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# Idle threads that spin starve the ones that work, on small machines and on shared ones.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Sessions that tests start are not those of whoever runs the tests, nor of another run beside it.
_RUNTIME = tempfile.mkdtemp(
    prefix="demon-test-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
os.environ["DEMON_RUNTIME"] = _RUNTIME

import torch  # noqa: E402 - after the settings it reads

torch.set_num_threads(1)


def pytest_unconfigure() -> None:
    """No session outlives the tests, whatever happened to its prompt."""
    from demon_live.control.registry import sessions
    from demon_live.runtime.session_process import terminate

    for info in sessions():
        terminate(info)
    shutil.rmtree(_RUNTIME, ignore_errors=True)
