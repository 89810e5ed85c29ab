"""A real session, offline, that is reached over its control socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demon_live.control.registry import Claim, Info, socket_path
from demon_live.control.server import ControlServer
from demon_live.runtime.offline import Offline
from tests.helpers.mock_engine import MockEngine


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[Offline]:
    made = Offline(MockEngine(lambda row: 0.2), sets=tmp_path)  # type: ignore[arg-type]
    claim = Claim.take(Info("default", os.getpid()))
    server = ControlServer(made.session, socket_path("default"))
    yield made
    server.close()
    claim.release()
    made.close()
