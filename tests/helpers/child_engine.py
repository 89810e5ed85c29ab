"""An engine process without a model, for the tests of its supervisor."""

from __future__ import annotations

from demon_live.children import SharedPipe
from demon_live.core import EngineState, EngineStatus
from demon_live.runtime.options import Beat, Note, Opening, Ready, Telemetry


def child(fd: int) -> None:
    """Opens, counts a generation for each deck of the newest state, and repeats the timbres."""
    conn = SharedPipe(fd)
    opening: Opening = conn.recv()
    conn.send(Ready("child", device="cpu"))
    if opening.spare:
        conn.poll(None)
    conn.beat(Beat(), 0.1)
    while True:
        try:
            state: EngineState = conn.recv()
        except EOFError:
            return
        conn.send(Note(f"timbres {' '.join(t.key for t in state.timbres)}"))
        conn.send(Telemetry(EngineStatus(ticks=1, generations=len(state.decks))))
