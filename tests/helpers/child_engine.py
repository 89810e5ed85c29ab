"""An engine process without a model, for the tests of its supervisor."""

from __future__ import annotations

from multiprocessing.connection import Connection

from demon_live.core import EngineState
from demon_live.runtime.options import Note, Opening, Ready, Telemetry
from demon_live.session.status import EngineStatus


def child(fd: int) -> None:
    """Opens, counts a generation for each deck of the newest state, and repeats the timbres."""
    conn = Connection(fd)
    opening: Opening = conn.recv()
    conn.send(Ready("child", device="cpu"))
    if opening.spare:
        conn.poll(None)
    while True:
        try:
            state: EngineState = conn.recv()
        except EOFError:
            return
        conn.send(Note(f"timbres {' '.join(t.key for t in state.timbres)}"))
        conn.send(Telemetry(EngineStatus(ticks=1, generations=len(state.decks))))
