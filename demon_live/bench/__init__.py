"""`demon bench`: measurements of the parts, taken on this machine.

    ring.py      ticks of the ring by depth, and everything in a tick but the model
    decode.py    decoder windows against real time
    latency.py   every control, from an edit to the ear; propagation.py counts the ticks
    lang.py      sampling of lanes, parsing, mini-notation
    economy.py   generations made for scores, and how many different ones
    notes.py     whether the notes of a score are heard, by denoise
    common.py    options, the engine, the machine

Each has `figures(options)`: a mapping from a name with its unit to a number or a table. `--json`
prints it with the machine and the date. A new part is a module and a line in PARTS. What takes
minutes, root or other programs is a rig: `python -m tests.rigs.NAME`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from demon_live.bench import decode, economy, lang, latency, notes, ring
from demon_live.bench.common import Figures, machine
from demon_live.bench.common import Options as Options
from demon_live.ui.show import Pieces

PARTS: dict[str, Callable[[Options], Figures]] = {
    "ring": ring.figures,
    "decode": decode.figures,
    "lang": lang.figures,
    "latency": latency.figures,
    "economy": economy.figures,
    "notes": notes.figures,
}


def measure(what: str, options: Options) -> dict[str, Figures]:
    """The figures of one part, or of all."""
    wanted = PARTS if what == "all" else (what,)
    return {part: PARTS[part](options) for part in wanted}


def report(figures: Mapping[str, Figures], as_json: bool) -> Pieces:
    """The figures as a table, or as JSON with machine and date."""
    if as_json and list(figures) == ["economy"]:
        return [("", json.dumps(figures["economy"], indent=2) + "\n")]
    if as_json:
        return [("", json.dumps({"machine": machine(), **figures}, indent=2, default=str) + "\n")]
    pieces: Pieces = []
    for part, rows in figures.items():
        pieces.append(("heading", f"{part}\n"))
        for name, value in rows.items():
            pieces.append(("", _lines(name.replace("_", " "), value)))
    return pieces


def _lines(name: str, value: Any) -> str:
    """One figure, or a table of them."""
    if not isinstance(value, list):
        return f"  {name:<36}{_shown(value)}\n"
    titles = list(value[0]) if value else []
    cells = [titles, *[[_shown(row[t]) for t in titles] for row in value]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    drawn = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return f"  {name}\n" + "".join(f"    {row.rstrip()}\n" for row in drawn)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
