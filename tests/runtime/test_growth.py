"""What a session keeps is bounded: hours of saves leave no objects behind."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

from demon_live.session.assets import Assets
from demon_live.session.output import NullOutput
from demon_live.session.session import Session
from demon_live.session.undo import LIMIT
from tests.rigs import score

#: Values in bounded caches (lang.pattern), which fill over hours: they are no sign of a leak.
CACHED = {"Fraction", "ReferenceType", "builtin_function_or_method"}


def objects() -> Counter[str]:
    gc.collect()
    return Counter(type(o).__name__ for o in gc.get_objects())


def test_after_undo_is_full_more_saves_keep_nothing(tmp_path: Path) -> None:
    output = NullOutput()
    steady, edited = score.write(tmp_path)
    session = Session(output, assets=Assets((tmp_path,)))
    session.load(steady)

    def save(turns: range) -> None:
        for turn in turns:
            edited.write_text(score.moving(turn))
            session.load(edited)
            output.time.advance(60_000)
            session.pump()

    # 15 versions of the score, a few times more than undo keeps.
    save(range(LIMIT + 15))
    before = objects()
    save(range(LIMIT + 15, LIMIT + 60))
    grown = {k: n for k, n in (objects() - before).items() if k not in CACHED}
    # Every save that was kept would keep hundreds.
    assert sum(grown.values()) < 100, grown
