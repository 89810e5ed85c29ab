"""Frames of the control socket, and views on their way over it."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from demon_live.control import wire
from demon_live.control.wire import WireError, pack, parse_reply, parse_request, unpack
from demon_live.core import EngineStatus, SlotStatus
from demon_live.errors import DemonError, ScoreError, Span
from demon_live.session.status import DeckView, LaneView, Outcome, Status, Words
from tests.helpers.ui_fakes import STATUS


def frame(**row: object) -> bytes:
    return json.dumps({"v": 1, "id": 1, **row}).encode()


def test_a_request_is_understood_with_its_defaults() -> None:
    found = parse_request(wire.request(7, "apply", {"text": "hush"}))
    assert (found.id, found.do) == (7, "apply")
    assert dict(found.args) == {"text": "hush", "name": "<prompt>", "origin": "repl", "by": ""}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 200_000,
        b"7",
        b'{"v": 1, "id": NaN}',
        b'{"id": 1, "do": "hello"}',
        frame(do="hello", v=2),
        frame(do="hello", v=True),
        frame(do="hello", id=-1),
        frame(do="hello", id=True),
        frame(do="shell"),
        frame(do=["hello"]),
        frame(do="apply"),
        frame(do="apply", text=7),
        frame(do="apply", text="x" * (64 * 1024 + 1)),
        frame(do="apply", text="x", origin="replay"),
        frame(do="events", since=-1),
        frame(do="events", since="1"),
        b'{"v": 1, "do": "events", "since": ' + b"9" * 5000 + b"}",
        b" " * (wire.MAX_REQUEST + 1),
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_request(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["v", "id", "do", "text", "since", "_", "d"]), inner)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=200) | _JSON.map(lambda row: json.dumps(row).encode()))
@example(b'{"v":1,"do":"hello"}')
def test_any_bytes_are_a_request_or_a_wire_error(data: bytes) -> None:
    try:
        found = parse_request(data)
    except WireError:
        return
    assert found.do in wire.VERBS
    assert set(found.args) == set(wire.VERBS[found.do])


@given(st.binary(max_size=200) | _JSON.map(lambda row: json.dumps(row).encode()))
def test_any_answer_is_read_or_a_demon_error(data: bytes) -> None:
    try:
        _, row = parse_reply(data)
        unpack(row)
    except DemonError:
        pass


def test_an_error_crosses_with_its_place_and_its_remedy() -> None:
    text = "a = 1\nblend = wrong"
    other = ScoreError("and this", span=Span.of(text, 0, 1), source=text, name="x.demon")
    error = ScoreError(
        "no control",
        span=Span.of(text, 14, 19),
        source=text,
        name="x.demon",
        hint="did you mean blend?",
        playing="as before",
        others=[other],
    )
    with pytest.raises(ScoreError) as found:
        parse_reply(wire.reply(3, error=error))
    assert str(found.value) == str(error)
    assert found.value.span == error.span
    assert found.value.exit_code == 1


def test_a_fault_crosses_as_an_error_of_the_engine() -> None:
    with pytest.raises(DemonError, match="KeyError") as found:
        parse_reply(wire.reply(3, error=KeyError("x")))
    assert found.value.exit_code == 3


def test_a_status_crosses_bit_for_bit() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    deck = DeckView(
        "main", 4, 1 / 3, "a.wav", True, False, (LaneView("blend", "saw", 0.1, ramp),) * 2
    )
    slots = (SlotStatus("main", 3, 8, 0.62),)
    error = ScoreError("no", span=Span(0, 1, 1, 1), source="x")
    status = Status(
        17.25, 128.0, 4, "imp", "null", (deck,), slots, peak_db=(-3.5, -120.0), recording="friday",
        errors={"x.demon": error}, telemetry=EngineStatus(ticks=9, slots=slots),
    )  # fmt: skip
    there = unpack(json.loads(json.dumps(pack(status))))
    assert isinstance(there, Status)
    lane = there.decks[0].lanes[1]
    assert lane.samples is not None
    assert lane.samples.dtype == np.float32
    assert lane.samples.tobytes() == ramp.tobytes()
    assert str(there.errors["x.demon"]) == str(error)
    same = {f: getattr(there, f) for f in Status.__slots__ if f not in ("decks", "errors")}
    assert same == {f: getattr(status, f) for f in same}
    assert there.decks[0].playhead == 1 / 3


def test_outcomes_and_words_cross() -> None:
    for value in (
        Outcome(("blend = .5 · from bar 6",), ("careful",)),
        Words(decks=("main",), lets={"pulse": ("a", "b")}, folders=("/x",)),
    ):
        assert unpack(json.loads(json.dumps(pack(value)))) == value


def test_a_field_of_another_version_is_left_out_and_a_missing_one_has_its_default() -> None:
    row = pack(STATUS)
    row["mood"] = "dark"
    del row["dry"]
    assert unpack(row).dry == 0


@pytest.mark.parametrize(
    "row",
    [
        {"_": "Popen", "args": "sh"},
        {"_": "f32", "d": "###"},
        {"_": "f32"},
        {"_": "Status"},
        {"_": "map", "d": [1]},
        {"a": 1},
    ],
)
def test_nothing_but_views_is_made_of_an_answer(row: object) -> None:
    with pytest.raises(WireError):
        unpack(row)


def test_only_views_cross() -> None:
    with pytest.raises(TypeError):
        pack(object())
    assert pack(Fraction(1, 2)) == 0.5
