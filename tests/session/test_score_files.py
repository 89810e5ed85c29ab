"""Hot reload: however an editor saves, the last good text of each file plays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demon_live.runtime.offline import Offline
from demon_live.session.score_files import Reloader, Watcher, is_score
from tests.helpers.mock_engine import MockEngine, by_prompt, offline


@pytest.fixture
def reloader(tmp_path: Path) -> Reloader:
    instrument: Offline = offline(MockEngine(by_prompt), tmp_path)
    instrument.session.apply("tempo 120\nloop 1\nprompt = 'a'")
    return Reloader(instrument.session)


def said(reloader: Reloader) -> str:
    return "\n".join(reloader.session.events(0)[1])


def gain(reloader: Reloader) -> str | None:
    lane = reloader.session.state.decks["main"].bound.get("gain")
    return lane.text if lane else None


def test_the_same_content_is_not_applied_twice(reloader: Reloader, tmp_path: Path) -> None:
    path = tmp_path / "x.demon"
    path.write_text("gain = .5")
    assert reloader.touch(path)
    assert reloader.touch(path)
    assert said(reloader).count("gain") == 1


def test_a_half_written_file_gets_a_second_look_before_it_is_called_broken(
    reloader: Reloader, tmp_path: Path
) -> None:
    path = tmp_path / "x.demon"
    path.write_text('gain = "1 .')
    assert not reloader.touch(path, last=False)
    assert said(reloader) == ""
    path.write_text('gain = "1 .5"')
    assert reloader.touch(path)
    assert gain(reloader) == '"1 .5"'


def test_a_broken_file_is_told_once_and_mending_it_plays(
    reloader: Reloader, tmp_path: Path
) -> None:
    path = tmp_path / "x.demon"
    path.write_text("gain = .5")
    reloader.touch(path)
    path.write_text("gian = .2")
    reloader.touch(path)
    reloader.touch(path)
    assert said(reloader).count("gian") == 2  # the message and the line it points at
    assert "did you mean gain" in said(reloader)
    assert gain(reloader) == ".5"
    path.write_text("gain = .2")
    reloader.touch(path)
    assert gain(reloader) == ".2"


def test_the_controls_of_a_removed_or_muted_file_revert(reloader: Reloader, tmp_path: Path) -> None:
    path = tmp_path / "x.demon"
    path.write_text("gain = .5")
    reloader.touch(path)
    path.rename(tmp_path / "_x.demon")
    reloader.touch(path)
    reloader.touch(tmp_path / "_x.demon")
    assert gain(reloader) is None


@pytest.mark.parametrize("how", ["empty", "gone"])
def test_a_file_that_is_empty_or_gone_is_looked_at_again_before_it_is_believed(
    reloader: Reloader, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "x.demon"
    path.write_text("gain = .5")
    reloader.touch(path)
    if how == "empty":
        path.write_text("")
    else:
        path.unlink()
    assert not reloader.touch(path, last=False)
    assert gain(reloader) == ".5"
    path.write_text("gain = .7")
    assert reloader.touch(path, last=False)
    assert gain(reloader) == ".7"


def test_a_byte_order_mark_is_no_part_of_a_score(reloader: Reloader, tmp_path: Path) -> None:
    path = tmp_path / "x.demon"
    path.write_bytes(b"\xef\xbb\xbfgain = .5\r\n")
    assert reloader.touch(path)
    assert gain(reloader) == ".5"


def test_only_scores_count(tmp_path: Path) -> None:
    assert is_score(tmp_path / "a.demon")
    assert not any(is_score(tmp_path / n) for n in ("_a.demon", ".a.demon", "a.demon~", "a.txt"))


def _plain(path: Path, text: str) -> None:
    path.write_text(text)


def _two_writes(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text[:3])
        file.flush()
        os.fsync(file.fileno())
        file.write(text[3:])


def _rename(path: Path, text: str) -> None:
    other = path.with_suffix(".tmp")
    other.write_text(text)
    other.replace(path)


def _backup(path: Path, text: str) -> None:
    if path.exists():
        path.rename(path.with_suffix(".demon~"))
    path.write_text(text)


@pytest.mark.parametrize("save", [_plain, _two_writes, _rename, _backup])
def test_real_saves_in_four_styles_all_arrive(
    reloader: Reloader, tmp_path: Path, save: object
) -> None:
    assert callable(save)
    watcher = Watcher(reloader, [tmp_path])
    watcher.start()
    try:
        for value in (".1", ".2", ".3"):
            save(tmp_path / "x.demon", f"gain = {value}")
            assert watcher.wait_for(lambda value=value: gain(reloader) == value, 10)
    finally:
        watcher.close()
    assert "x.demon:1" not in said(reloader)


def test_a_file_is_one_file_however_it_is_named(
    reloader: Reloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.demon"
    path.write_text("gain = .5\npan = 0")
    reloader.session.load(Path("x.demon"))
    path.write_text("pan = 0")
    reloader.touch(path)
    assert gain(reloader) is None
    assert list(reloader.session.state.files) == ["x.demon"]
