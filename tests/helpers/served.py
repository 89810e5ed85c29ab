"""A fake session with everything that is served, behind a control socket or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demon_live.control.registry import Claim, Info, socket_path
from demon_live.control.server import ControlServer
from demon_live.session.status import Words
from tests.helpers.ui_fakes import FakeSession


class Session(FakeSession):
    """A fake with everything that is served."""

    def save(self, path: Path | str, text: str) -> object:
        return self.apply(text)

    def scores(self) -> dict[str, str]:
        return {"x.demon": "blend = 1"}

    def words(self) -> Words:
        return Words(decks=("main",), scenes=("drop",))


class Recorder(Session):
    """Remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str, str]] = []

    def apply(self, text: str, name: str = "<prompt>", origin: str = "repl") -> object:
        self.asked.append((text, name, origin))
        return super().apply(text, name, origin)


@pytest.fixture
def session() -> Iterator[Recorder]:
    fake = Recorder()
    claim = Claim.take(Info("default", os.getpid()))
    server = ControlServer(fake, socket_path("default"))
    yield fake
    server.close()
    claim.release()
