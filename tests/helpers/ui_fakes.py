"""A session that remembers what it was told: front ends are tested against it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from demon_live.errors import ScoreError, Span
from demon_live.session.scores import score_name
from demon_live.session.status import DeckView, LaneView, Outcome, Status, Words

RAMP = np.linspace(0, 1, 64, dtype=np.float32)
DECK = DeckView("main", 4, 0.4, None, False, False, (LaneView("blend", "saw", 0.5, RAMP),))
STATUS = Status(5.5, 128.0, 4, "imp", "null", (DECK,))


@dataclass
class FakeSession:
    """Accepts everything but texts with `wrong`. `say` adds an event."""

    applied: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    shown: Status = STATUS
    files: dict[str, str] = field(default_factory=dict)
    saved: list[tuple[str, str]] = field(default_factory=list)
    by: str = ""

    def apply(self, text: str, name: str = "<prompt>", origin: str = "repl") -> Outcome:
        if "crash" in text:
            raise RuntimeError("a fault of ours")
        if "wrong" in text:
            at = text.index("wrong")
            raise ScoreError(
                'there is no control "wrong"',
                span=Span.of(text, at, at + 5),
                source=text,
                name=name,
                hint="did you mean blend?",
                playing="everything, as before",
            )
        self.applied.append(text)
        return Outcome((f"{text.split()[0]} · from bar 6 · class step",))

    def load(self, path: Path | str) -> Outcome:
        self.loaded.append(Path(path).name)
        self.files[score_name(path)] = Path(path).read_text()
        return Outcome((f"{Path(path).name}: from bar 6",))

    def remove(self, name: str) -> Outcome:
        self.removed.append(Path(name).name)
        self.files = {k: v for k, v in self.files.items() if k != name}
        return Outcome()

    def save(self, path: Path | str, text: str) -> Outcome:
        self.saved.append((str(path), text))
        outcome = self.apply(text, str(path), "file")
        self.files[str(path)] = text
        return outcome

    def scores(self) -> dict[str, str]:
        return dict(self.files)

    def words(self) -> Words:
        return Words(tuple(d.name for d in self.shown.decks), ("drop",), {"wob": ("n",)})

    def status(self) -> Status:
        return self.shown

    def recording(self, name: str | None) -> None:
        self.shown = replace(self.shown, recording=name)

    def events(self, since: int) -> tuple[int, tuple[str, ...]]:
        return len(self.lines), tuple(self.lines[since:])
