"""The table of `demon bench latency`: every control, its class, ticks and milliseconds."""

import re
from pathlib import Path

import pytest

from demon_live.bench.latency import EditPath, by_class, rows
from demon_live.controls import CONTROLS, SETTINGS, names

PATH = EditPath(tick=100.0, decode=20.0, lead=30.0, block=10.0, prepare=500.0, steps=8, depth=4)


@pytest.fixture(scope="module")
def table():
    return rows(PATH, frozenset(names()) - {"hint"})


def test_every_control_of_the_instrument_is_in_it(table):
    stages = {"tempo", "loop", "source", "depth", "steps"}
    sound = {c.name for c in CONTROLS.values() if c.cls != "notes"} | {"lora.NAME"} | stages
    assert sound <= {row["control"] for row in table}
    for row in table:
        known = CONTROLS.get(row["control"]) or SETTINGS.get(row["control"])
        assert row["cls"] == ("model" if known is None else known.cls)


@pytest.mark.parametrize("cls", ["mix", "step", "slot", "notes"])
def test_the_page_names_every_control_of_a_class(cls):
    page = Path(__file__).parents[2] / "examples" / "latency.md"
    row = re.search(rf"^\| {cls} \|.*$", page.read_text("utf-8"), re.MULTILINE)
    wanted = {name for name in names(cls) if not name.endswith("_level")}
    assert row is not None
    assert wanted <= set(re.findall(r"\w+", row[0].rpartition(" | ")[2]))


def test_milliseconds_follow_from_ticks(table):
    found = {(row["control"], row["how"]): row for row in table}
    blend, denoise = found["blend", "shared"], found["denoise", "admitted"]
    assert blend["onset_ticks"] == "1 to 2"
    assert (blend["onset_ms"], blend["onset_worst_ms"]) == (160.0, 360.0)
    assert denoise["onset_ticks"] == "8 to 9"
    assert (denoise["onset_ms"], denoise["onset_worst_ms"]) == (860.0, 1060.0)
    assert found["denoise", "migrated"]["onset_ms"] == 160.0
    lora = found["lora.NAME", "shared"]
    assert (lora["onset_ticks"], lora["settled_ticks"]) == ("1 to 2", "8 to 9")
    assert found["gain", "at once"]["onset_worst_ms"] == 20.0
    assert found["source", "prepared, then on a cycle"]["onset_ms"] == 1360.0
    assert {row["control"] for row in table if row["obeyed"] != "yes"} == {"hint"}


def test_classes_are_told_by_their_slowest(table):
    worst = {(row["cls"], row["how"]): row["onset_worst_ms"] for row in by_class(table)}
    assert worst["mix", "at once"] == 20.0
    assert worst["step", "shared"] == 460.0  # the noise curve is heard a tick later
    assert worst["slot", "migrated"] == 360.0
