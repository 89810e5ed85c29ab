"""MIDI ports that exist in memory only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from demon_live.control.midi import Available


@dataclass
class _FakePort:
    backend: FakeBackend
    name: str
    on_data: Callable[[bytes], None] | None = None

    def send(self, data: bytes) -> None:
        if self.name not in self.backend.outputs:
            raise OSError("the device is gone")
        self.backend.sent.append((self.name, data))

    def close(self) -> None:
        self.backend.ports = [p for p in self.backend.ports if p is not self]


@dataclass
class FakeBackend:
    """Plug and unplug by changing the lists; `feed` is what a device sends; `sent` is what was sent
    to outputs, as (port, bytes)."""

    inputs: list[str] = field(default_factory=lambda: ["fake"])
    outputs: list[str] = field(default_factory=lambda: ["fake"])
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    ports: list[_FakePort] = field(default_factory=list)

    def available(self) -> Available:
        return Available(tuple(self.inputs), tuple(self.outputs))

    def open_input(self, name: str, on_data: Callable[[bytes], None]) -> _FakePort:
        if name not in self.inputs:
            raise OSError(f"unknown port {name!r}")
        self.ports.append(_FakePort(self, name, on_data))
        return self.ports[-1]

    def open_output(self, name: str) -> _FakePort:
        if name not in self.outputs:
            raise OSError(f"unknown port {name!r}")
        return _FakePort(self, name)

    def feed(self, data: bytes, port: str = "fake") -> None:
        """Bytes from a device: every open input of that name gets them."""
        for one in list(self.ports):
            if one.name == port and one.on_data is not None:
                one.on_data(data)
