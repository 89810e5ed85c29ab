"""The panel as text: widths, what is dropped first, what is never dropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demon_live.audio.sound_input import InputStatus
from demon_live.core import EngineStatus, SlotStatus
from demon_live.errors import ScoreError, Span
from demon_live.session.status import DeckView, LaneView, Status
from demon_live.ui import text
from demon_live.ui.panel import panel
from demon_live.ui.text import Row

RAMP = np.linspace(0, 1, 64, dtype=np.float32)
FLAT = np.full(64, 0.5, np.float32)


def deck(name: str = "main", *lanes: LaneView, **more: object) -> DeckView:
    facts = {
        "cycles": 4,
        "playhead": 0.42,
        "source": "loops/a.flac",
        "muted": False,
        "soloed": False,
    }
    return DeckView(name, lanes=lanes, **(facts | more))  # type: ignore[arg-type]


LANES = (
    LaneView("blend", "saw", 0.62, RAMP),
    LaneView("denoise", "tri", 0.8, RAMP, next=".4 in 1 bar"),
    LaneView("prompt", "''", "acid techno, 303", None, next="'dub' in 2 bars"),
    LaneView("velocity", "1", 1.0, FLAT),
)
SLOTS = tuple(SlotStatus("main", k, 8, 0.8) for k in range(4))


def status(*decks: DeckView, **more: object) -> Status:
    facts = {
        "cycle": 5.68,
        "bpm": 128.0,
        "beats": 4,
        "engine": "imp",
        "device": "pulse",
        "slots": SLOTS,
        "tick_ms": 61.0,
        "lead_ms": 180.0,
        "peak_db": (-8.0, -9.5),
    }
    return Status(decks=decks, **(facts | more))  # type: ignore[arg-type]


def lines(rows: list[Row]) -> list[str]:
    return ["".join(piece for _, piece in row) for row in rows]


def test_panel_says_what_plays_and_what_comes() -> None:
    drawn = lines(panel(status(deck("main", *LANES)), 80, 12))
    whole = "\n".join(drawn)
    assert "128 bpm · bar 5.3" in drawn[0]
    assert "→ 'dub' in 2 bars" in whole
    assert "→ .4 in 1 bar" in whole
    assert "held" in whole
    assert "velocity 1 · source loops/a.flac" in whole
    assert "lead 180 ms · dry 0 · fine" in drawn[-1]


def test_hits_are_a_grid_of_steps_and_notes_a_piano_roll() -> None:
    kick = LaneView("kick", '"1*4"', "1", notes=((0.0, 0.25, 0.0, 1.0), (0.5, 0.25, 0.0, 0.3)))
    bass = LaneView("bass", '"a1 e2"', "a1", notes=((0.0, 0.5, 0.2, 1.0), (0.5, 0.5, 1.0, 1.0)))
    drawn = lines(panel(status(deck("main", kick, bass)), 80, 12))
    (hits,) = (line for line in drawn if "kick" in line)
    (roll,) = (line for line in drawn if "bass" in line)
    assert [hits.index(mark) - hits.index("▮") for mark in "▮▯"] == [0, 23]
    assert (roll.count("▂"), roll.count("█")) == (23, 23)
    plain = lines(panel(status(deck("main", kick, bass)), 80, 12, ascii_only=True))
    assert "x" in next(line for line in plain if "kick" in line)
    assert not any("▮" in line for line in plain)


def test_bar_numbers_are_those_of_the_next_hearing() -> None:
    head = lines(panel(status(deck("main", *LANES)), 80, 12))[0]
    # At bar 5.3 of the loop of bars 4 to 7: bar 4 is next heard as bar 8, bar 5 still sounds.
    assert [w for w in head.replace("─", " ").replace("▼", " ").split() if w.isdigit()][:4] == [
        "8", "5", "6", "7",
    ]  # fmt: skip


@given(
    width=st.integers(10, 200),
    height=st.integers(1, 30),
    playhead=st.floats(0, 1),
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=64),
    name=st.text(min_size=1, max_size=20),
    plain=st.booleans(),
)
def test_every_row_has_the_width_of_the_terminal(
    width: int, height: int, playhead: float, values: list[float], name: str, plain: bool
) -> None:
    lane = LaneView("blend", name, 0.5, np.array(values, np.float32), next=name)
    words = LaneView("prompt", name, name, None, next=name)
    state = status(deck(name, lane, words, playhead=playhead, source=name), recording=name)
    rows = lines(panel(state, width, height, ascii_only=plain))
    assert len(rows) <= height
    wide = {text.cells(row) for row in rows}
    assert wide == {width} or (len(rows) == 1 and max(wide) <= width)


@pytest.mark.parametrize(
    ("lost", "plain", "lamp"),
    [(False, False, "● friday"), (True, False, "✗ friday"), (False, True, "* friday")],
)
def test_the_lamp_of_a_recording_is_crossed_while_its_sound_is_lost(
    lost: bool, plain: bool, lamp: str
) -> None:
    shown = status(deck("main", *LANES), recording="friday", recording_lost=lost)
    assert lamp in "\n".join(lines(panel(shown, 80, 8, ascii_only=plain)))


def test_a_ring_that_rests_says_so_where_its_slots_were() -> None:
    resting = EngineStatus(generations=6, from_store=12, resting=True, depth=2)
    shown = lines(panel(status(deck("main", *LANES), slots=(), telemetry=resting), 80, 12))
    busy = lines(panel(status(deck("main", *LANES)), 80, 12))
    assert len(shown) == len(busy)
    assert any("slots 2" in row and "resting · 6 made, 12 known already" in row for row in shown)


def test_the_master_has_a_row_that_stays_where_there_is_little_room() -> None:
    strip = (LaneView("lpf", "300", 300.0), LaneView("gain", ".5", 0.5))
    for rows in (5, 12):
        drawn = lines(panel(status(deck("main", *LANES), master=strip), 80, rows))
        assert any(row.startswith("│ master  ") and "lpf 300 · gain .5" in row for row in drawn)
    assert "master" not in "\n".join(lines(panel(status(deck("main", *LANES)), 80, 12)))


def test_announcements_outlive_what_stands_still() -> None:
    drawn = "\n".join(lines(panel(status(deck("main", *LANES)), 80, 4)))
    assert "'dub' in 2 bars" in drawn
    assert "held" not in drawn
    assert "slots" not in drawn


def test_a_broken_file_is_named_with_its_place() -> None:
    fault = ScoreError(
        'missing ")"', span=Span.of("a\nbcd", 3), playing="01_lead as saved at 14:03:22"
    )
    drawn = "\n".join(lines(panel(status(deck(), errors={"p/01_lead.demon": fault}), 90, 12)))
    assert '✗ 01_lead.demon:2:2: missing ")" (01_lead as saved at 14:03:22 plays on)' in drawn


def test_two_decks_have_a_frame_each_and_say_that_they_are_muted() -> None:
    drawn = lines(panel(status(deck("main", *LANES), deck("drums", muted=True)), 80, 20))
    assert any(row.startswith("├ drums ") and row.endswith(" muted ┤") for row in drawn)


def test_nothing_plays_yet() -> None:
    assert "nothing plays yet" in lines(panel(status(), 80, 12))[0]


def test_an_engine_that_is_not_there_is_called_so() -> None:
    gone = EngineStatus(alive=False)
    assert " starting " in lines(panel(status(deck(), telemetry=gone, grade="late"), 80, 9))[-1]


def test_without_utf8_the_panel_is_ascii() -> None:
    drawn = "".join(lines(panel(status(deck("main", *LANES)), 80, 12, ascii_only=True)))
    assert drawn.replace("·", "").isascii()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.62, ".62"),
        (1.0, "1"),
        (-0.5, "-.5"),
        (0.0, "0"),
        (-0.001, "0"),
        (8000.0, "8000"),
        (10.0, "10"),
        (float("nan"), "?"),
    ],
)
def test_numbers_are_written_as_in_a_score(value: float, shown: str) -> None:
    assert text.number(value) == shown


def test_steps_stay_steps() -> None:
    assert text.curve([0, 1], 4, fine=False) == ["▁▁██"]
    assert text.curve([0, 1], 2) == ["⣀⣿"]


def test_tall_curves_fill_from_the_bottom() -> None:
    assert text.curve([0, 0.5, 1], 3, 2, fine=False) == [" ▁█", "▁██"]
    assert text.curve([1, 0], 1, 2) == ["⡇", "⣇"]


def test_curves_grow_where_there_is_room() -> None:
    few = lines(panel(status(deck("main", *LANES)), 80, 7))
    many = lines(panel(status(deck("main", *LANES)), 80, 30))
    assert len(few) < len(many) <= 30


def test_meter_is_empty_at_silence_and_full_at_full_scale() -> None:
    assert text.meter(-120, 4) == "    "
    assert text.meter(0, 4) == "████"
    assert text.meter(float("-inf"), 4) == "    "


@given(st.text(max_size=30), st.integers(0, 40))
def test_fit_takes_exactly_the_room_given(words: str, width: int) -> None:
    assert text.cells(text.fit(words, width)) == width


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (None, ""),
        (InputStatus("mic", 5.0, 1.0, 0.5, "open"), "in ████ 5 ms"),
        (InputStatus("mic"), "in closed"),
        (InputStatus("mic", state="lost"), "in lost"),
    ],
)
def test_the_input_has_a_meter_beside_the_others(heard: InputStatus | None, words: str) -> None:
    foot = lines(panel(status(deck("main", *LANES), sound_in=heard), 100, 8))[-1]
    assert words in foot
    assert (" in " in foot) == bool(words)
