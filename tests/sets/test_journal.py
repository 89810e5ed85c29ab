"""Sets: every cause is kept, a torn tail loses only itself, nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demon_live.errors import FileError
from demon_live.sets.journal import SUFFIX, Journal, SetEvent, _line, find_set, load

CAUSES = (
    SetEvent("apply", 0, 'blend = "1 .5"\ndenoise = .4', "patterns/00_hello.demon", "file"),
    SetEvent("apply", 48_000, "prompt = 'dub, „tape“ hiss'", "<prompt>", "repl"),
    SetEvent("remove", 96_000, name="patterns/00_hello.demon"),
)


def recorded(folder: Path) -> Path:
    journal = Journal({"engine": "imp", "seed": 7})
    journal.write(CAUSES[0])
    path = folder / f"friday{SUFFIX}"
    journal.open(path)
    for cause in CAUSES[1:]:
        journal.write(cause)
    journal.close(144_000)
    return path


def test_a_set_reads_back_as_it_was_written_even_what_came_before_record(tmp_path: Path) -> None:
    got = load(recorded(tmp_path))
    assert got.events == (*CAUSES, SetEvent("end", 144_000))
    assert (got.start["engine"], got.start["seed"], got.torn) == ("imp", 7, 0)
    assert got.length == 144_000


def test_hours_of_saves_are_kept_whole_in_little_memory(tmp_path: Path) -> None:
    journal = Journal({"engine": "imp"})
    text = "\n".join(f"deck d{k} {{ blend = sine.slow({k + 1}) }}" for k in range(40))
    saves = [
        SetEvent("apply", k, f"{text}\n# {k} \u2028 \x85 \x0b \ud800", "x.demon", "file")
        for k in range(2000)
    ]
    for event in saves:
        journal.write(event)
    assert journal.recording().events == tuple(saves)
    path = tmp_path / f"late{SUFFIX}"
    journal.open(path)
    journal.close(5000)
    assert load(path).events[:-1] == tuple(saves)
    kept = sum(map(len, journal._past._packed)) + len("".join(journal._past._fresh))
    assert kept < path.stat().st_size / 15


def test_cut_at_every_byte_a_set_loses_at_most_the_torn_line(tmp_path: Path) -> None:
    whole = recorded(tmp_path).read_bytes()
    lines = whole.splitlines(keepends=True)
    path = tmp_path / f"cut{SUFFIX}"
    for size in range(len(lines[0]), len(whole)):
        path.write_bytes(whole[:size])
        got = load(path)
        complete = whole[:size].count(b"\n") - 1
        # A line that lacks only its line break is complete.
        assert complete <= len(got.events) <= complete + 1
        assert list(got.events) == [*CAUSES, SetEvent("end", 144_000)][: len(got.events)]


def test_a_line_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    path.write_text(path.read_text().replace("48000", "58000"))
    got = load(path)
    assert got.torn == 1
    assert [e.sample for e in got.events] == [0, 96_000, 144_000]


@pytest.mark.parametrize(
    "change",
    [{"sample": "\U0001f39b"}, {"sample": None}, {"sample": -1}, {"sample": 1e300},
     {"sample": True}, {"kind": []}, {"text": {}}, {"name": 3}, {"sample": 10**400}],
)  # fmt: skip
def test_a_line_of_a_stranger_with_a_right_checksum_and_wrong_values_is_left_out(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = recorded(tmp_path)
    row = {"kind": "apply", "sample": 1, "text": "hush"} | change
    path.write_text(path.read_text() + _line(row))
    got = load(path)
    assert got.torn == 1
    assert got.events == (*CAUSES, SetEvent("end", 144_000))


def test_half_a_character_is_kept_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / f"x{SUFFIX}"
    journal = Journal({"engine": "imp"})
    journal.open(path)
    cause = SetEvent("apply", 1, "# \ud800 ü", "<prompt>", "repl")
    journal.write(cause)
    journal.close(2)
    assert load(path).events[0] == cause


def test_a_set_is_never_overwritten(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    before = path.read_bytes()
    with pytest.raises(FileError, match="exists already"):
        Journal({"engine": "imp"}).open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "not json\n", json.dumps({"kind": "start"}), "\x00\n"])
def test_what_is_not_a_set_is_refused_with_a_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / f"x{SUFFIX}"
    path.write_text(content)
    with pytest.raises(FileError, match="not a set") as caught:
        load(path)
    assert caught.value.hint


def test_a_set_is_found_by_its_name_and_a_wrong_name_lists_what_there_is(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    assert find_set("friday", [tmp_path]) == path
    with pytest.raises(FileError, match="no set 'saturday'") as caught:
        find_set("saturday", [tmp_path])
    assert "friday" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", [1]), ("seed", 10**30), ("engine", 5), ("app", {}), ("weights", [1]), ("seed", None)],
)
def test_a_first_line_that_no_set_has_is_refused_by_name(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / f"x{SUFFIX}"
    path.write_text(_line({"kind": "start", "format": 1, key: value}))
    with pytest.raises(FileError, match=f"begins with a {key}") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_lines_of_unknown_kinds_are_counted_and_left_out(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    with path.open("a") as file:
        file.write(_line({"kind": "dance", "sample": 150_000}))
    got = load(path)
    assert got.unknown == 1
    assert got.events == (*CAUSES, SetEvent("end", 144_000))
