"""A journal that neither a crash nor a full disk can spoil, tried at every byte."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from demon_live.errors import FileError
from demon_live.sets import journal as ledger
from demon_live.sets.journal import SUFFIX, AppendLog, Journal, SetEvent, load, locked
from demon_live.sets.session_log import SessionLog, find_interrupted, interrupted
from tests.helpers.dead_session import died

CAUSES = tuple(
    SetEvent("apply", 48_000 * k, f"denoise = .{k}\n# „Umlaut“ ü 🎛", "<prompt>", "repl")
    for k in range(1, 6)
)


class Disk:
    """A disk with room for so many bytes; a write takes what fits, as write(2) does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 30
        monkeypatch.setattr(ledger, "_write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        n = os.write(fd, data[: self.room])
        self.room -= n
        return n


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def performed(path: Path, disk: Disk, room: int) -> tuple[Journal, list[str]]:
    """All causes, on a disk that has so much room left."""
    said: list[str] = []
    path.unlink(missing_ok=True)
    journal = Journal({"engine": "imp"})
    journal.tell = said.append
    disk.room = 1 << 30
    journal.open(path)
    disk.room = room
    for cause in CAUSES:
        journal.write(cause)
    return journal, said


def test_a_disk_that_is_full_at_any_byte_loses_nothing_once_there_is_room(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / f"x{SUFFIX}"
    journal, _ = performed(path, disk, 1 << 30)
    journal.close(1_000_000)
    whole = path.read_bytes()
    head = len(whole.splitlines(keepends=True)[0])
    for room in range(len(whole) - head):
        journal, said = performed(path, disk, room)
        # The file is a prefix of what was written, at every moment.
        assert whole.startswith(path.read_bytes())
        assert load(path).torn <= 1
        told = len(said)
        disk.room = 1 << 30
        journal.close(1_000_000)
        assert path.read_bytes() == whole
        if told:
            assert "make room" in said[0]
            assert "nothing was lost" in said[-1]


def test_killed_while_the_disk_is_full_only_what_did_not_fit_is_lost(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / f"x{SUFFIX}"
    performed(path, disk, 1 << 30)
    rows = path.read_bytes().splitlines(keepends=True)[1:]
    edges = [sum(len(r) for r in rows[:k]) for k in range(len(rows) + 1)]
    for room in range(edges[-1]):
        performed(path, disk, room)  # and never closed: the process is gone
        fitted = max(k for k, edge in enumerate(edges) if edge <= room + 1)
        assert load(path).events == CAUSES[:fitted]


def test_it_is_told_once_and_a_mark_tries_again(tmp_path: Path, disk: Disk) -> None:
    journal, said = performed(tmp_path / f"x{SUFFIX}", disk, 0)
    assert len(said) == 1
    disk.room = 1 << 30
    journal.mark(1)
    assert len(said) == 2
    assert load(tmp_path / f"x{SUFFIX}").events == CAUSES


def test_an_error_while_syncing_is_not_an_error_of_the_performance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "the cable")

    monkeypatch.setattr(os, "fdatasync", broken, raising=False)
    book = AppendLog(tmp_path / "x")
    assert book.append("one\n")
    book.sync()
    book.close()
    assert (tmp_path / "x").read_text() == "one\n"


def test_a_ledger_never_overwrites_and_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(FileError, match="exists"):
        AppendLog(tmp_path / "x")
    with pytest.raises(FileError, match="cannot be written"):
        AppendLog(tmp_path / "none" / "x")


def test_who_writes_is_known_while_it_lives(tmp_path: Path) -> None:
    book = AppendLog(tmp_path / "x", alone=True)
    assert locked(tmp_path / "x")
    book.close()
    assert not locked(tmp_path / "x")
    assert not locked(tmp_path / "absent")


def test_a_session_that_died_is_found_with_its_place_and_its_causes(tmp_path: Path) -> None:
    died(tmp_path, *CAUSES, position=9_000_000)
    found = find_interrupted(folder=tmp_path)
    assert found.causes == CAUSES
    assert found.sample == 9_000_000
    assert found.folder == Path.cwd()
    start = found.recording.start
    assert (start["engine"], start["seed"]) == ("imp", 3)
    assert found.describe() == "5 changes, 3:07 played"


def test_sessions_that_ended_that_play_or_that_did_nothing_are_not_resumed(tmp_path: Path) -> None:
    journal = Journal({"engine": "imp"})
    log = SessionLog(journal, lambda text: None, tmp_path)
    journal.write(CAUSES[0])
    assert interrupted(log.path) is None  # it plays
    log.close(48_000)
    assert interrupted(log.path) is None  # it has ended
    died(tmp_path)
    with pytest.raises(FileError, match="no session to resume"):
        find_interrupted(folder=tmp_path)
    path = died(tmp_path, CAUSES[0])
    assert find_interrupted(path.name.removesuffix(SUFFIX), tmp_path).causes == CAUSES[:1]


def test_cut_at_any_byte_a_log_loses_at_most_its_last_line(tmp_path: Path) -> None:
    path = died(tmp_path, *CAUSES)
    whole = path.read_bytes()
    head = len(whole.splitlines(keepends=True)[0])
    for size in range(head, len(whole), 3):
        path.write_bytes(whole[:size])
        complete = whole[:size].count(b'"apply"') - 1
        found = interrupted(path)
        got = found.causes if found else ()
        assert len(got) >= complete
        assert got == CAUSES[: len(got)]


def test_old_logs_are_removed_but_never_one_that_is_written(tmp_path: Path) -> None:
    kept = SessionLog(Journal({}), lambda text: None, tmp_path)
    os.utime(kept.path, (1, 1))
    for k in range(40):
        (tmp_path / f"{k:03d}{SUFFIX}").write_text("")
        os.utime(tmp_path / f"{k:03d}{SUFFIX}", (100 + k, 100 + k))
    SessionLog(Journal({}), lambda text: None, tmp_path).close(0)
    assert kept.path.exists()
    assert len(list(tmp_path.iterdir())) == 32
    kept.close(0)
