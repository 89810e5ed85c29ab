"""What an engine that begins anew is told, so that the same program goes on: the ring's settings,
the timbres, the newest loop of each deck.

Threads: none of its own; `messages` gives copies.
"""

from __future__ import annotations

from dataclasses import replace

from demon_live.runtime.messages import (
    DropDeck,
    DropTimbre,
    MoveLoop,
    PrepareLoop,
    SetRing,
    SetTimbre,
    ToEngine,
)

__all__ = ["Retold"]


class Retold:
    """Learns from every message that an engine is sent.

    loops: the newest of each deck. timbres: by name.
    """

    def __init__(self) -> None:
        self.loops: dict[str, PrepareLoop] = {}
        self._settings = SetRing()
        self.timbres: dict[str, SetTimbre] = {}

    def note(self, message: ToEngine) -> None:
        """A message was sent."""
        match message:
            case PrepareLoop(loop):
                self.loops[loop.deck] = message
            case MoveLoop(loop):
                known = self.loops.get(loop.deck)
                if known is not None and known.loop.epoch == loop.epoch:
                    self.loops[loop.deck] = replace(known, loop=loop)
            case DropDeck(deck):
                self.loops.pop(deck, None)
            case SetTimbre(name):
                self.timbres[name] = message
            case DropTimbre(name):
                self.timbres.pop(name, None)
            case SetRing(depth, steps):
                self._settings = SetRing(
                    self._settings.depth if depth is None else depth,
                    self._settings.steps if steps is None else steps,
                )

    def messages(self) -> list[ToEngine]:
        """All of it, timbres before the loops that ask for them."""
        settings = [self._settings] if self._settings != SetRing() else []
        return [*settings, *list(self.timbres.values()), *list(self.loops.values())]
