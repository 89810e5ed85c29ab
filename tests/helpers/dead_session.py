"""The log of a session whose process was killed."""

from __future__ import annotations

import os
from pathlib import Path

from demon_live.sets.journal import Journal, SetEvent
from demon_live.sets.session_log import SessionLog


def died(folder: Path, *causes: SetEvent, position: int = 0) -> Path:
    """The log of a session that was killed."""
    now = [0.0]
    journal = Journal({"engine": "imp", "seed": 3})
    log = SessionLog(journal, lambda text: None, folder, lambda: now[0])
    for cause in causes:
        now[0] += 10
        log.turn(cause.sample)
        journal.write(cause)
    if position:
        now[0] += 10
        log.turn(position)
    path = log.path
    # What the end of a process does to its files.
    os.close(log._ledger._fd)
    log._ledger._fd = -1
    return path
