"""Hot reload: however an editor saves, the last good text of each file plays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watchdog.events import FileModifiedEvent

from demon_live.errors import DemonError
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


@pytest.mark.skipif(os.name != "posix", reason="needs a fifo")
def test_what_is_no_ordinary_file_is_named_once_and_ends_no_hot_reload(
    reloader: Reloader, tmp_path: Path
) -> None:
    watcher = Watcher(reloader, [tmp_path])
    watcher.start()
    try:
        os.mkfifo(tmp_path / "p.demon")
        (tmp_path / "zero.demon").symlink_to("/dev/zero")
        assert watcher.wait_for(lambda: "zero.demon: not an" in said(reloader), 10)
        assert watcher.wait_for(lambda: "p.demon: not an ordinary file" in said(reloader), 10)
        (tmp_path / "x.demon").write_text("gain = .3")
        assert watcher.wait_for(lambda: gain(reloader) == ".3", 10)
    finally:
        watcher.close()
    assert said(reloader).count("p.demon: not an ordinary file") == 1
    (tmp_path / "p.demon").unlink()
    reloader.touch(tmp_path / "p.demon")
    assert "p.demon is gone" not in said(reloader)
    assert not reloader.session.errors


def test_a_score_that_becomes_unreadable_plays_on(reloader: Reloader, tmp_path: Path) -> None:
    path = tmp_path / "x.demon"
    path.write_text("gain = .5")
    reloader.touch(path)
    path.unlink()
    path.mkdir()
    reloader.touch(path)
    assert "x.demon is a folder" in said(reloader)
    assert gain(reloader) == ".5"
    assert list(reloader.session.errors) == [str(path)]
    path.rmdir()
    reloader.touch(path)
    assert gain(reloader) is None
    assert not reloader.session.errors


def test_a_link_to_a_score_that_is_removed_is_a_score_that_is_gone(
    reloader: Reloader, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.demon").write_text("gain = .5")
    link = tmp_path / "x.demon"
    link.symlink_to("out/x.demon")
    reloader.touch(link)
    assert gain(reloader) == ".5"
    link.unlink()
    reloader.touch(link)
    assert gain(reloader) is None
    assert "x.demon is gone" in said(reloader)


def test_a_folder_behind_a_link_has_the_name_of_the_link_wherever_it_leads(
    reloader: Reloader, tmp_path: Path
) -> None:
    for folder, value in (("real", ".1"), ("other", ".4")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.demon").write_text(f"gain = {value}")
    link = tmp_path / "cur"
    link.symlink_to("real")
    reloader.load(link / "s.demon")
    watcher = Watcher(reloader, [link])
    watcher.start()
    try:
        (link / "s.demon").write_text("gain = .2")
        assert watcher.wait_for(lambda: gain(reloader) == ".2", 10)
        # Some systems name the folder that the link leads to.
        (tmp_path / "real" / "s.demon").write_text("gain = .3")
        watcher.on_any_event(FileModifiedEvent(str(tmp_path / "real" / "s.demon")))
        assert watcher.wait_for(lambda: gain(reloader) == ".3", 10)
        link.unlink()
        link.symlink_to("other")
        assert watcher.wait_for(lambda: gain(reloader) == ".4", 20)
    finally:
        watcher.close()
    assert list(reloader.session.state.files) == [str(link / "s.demon")]


def test_a_score_has_one_name_whatever_way_leads_to_it(reloader: Reloader, tmp_path: Path) -> None:
    path = tmp_path / "x.demon"
    path.write_text("gain = .5")
    (tmp_path / "sub").mkdir()
    reloader.session.load(tmp_path / "sub" / ".." / "x.demon")
    reloader.touch(path)
    assert list(reloader.session.state.files) == [str(path)]


def test_a_load_that_fails_leaves_no_error_behind(reloader: Reloader, tmp_path: Path) -> None:
    broken = tmp_path / "broken.demon"
    broken.write_text("gian = 1")
    for path in (tmp_path / "nosuch.demon", tmp_path / "a\0b.demon", broken):
        with pytest.raises(DemonError):
            reloader.session.load(path)
        assert not reloader.session.errors
    # Of a file that is watched it stays until it is mended.
    reloader.touch(broken)
    with pytest.raises(DemonError):
        reloader.session.load(broken)
    assert list(reloader.session.errors) == [str(broken)]


def test_a_file_of_carriage_returns_says_so(reloader: Reloader, tmp_path: Path) -> None:
    path = tmp_path / "x.demon"
    path.write_bytes(b"gain = .5\rpan = 0\r")
    with pytest.raises(DemonError, match="carriage return") as caught:
        reloader.load(path)
    assert "LF" in str(caught.value.hint)
    path.write_bytes(b"gain = .5\r\npan = 0\r\n")
    reloader.load(path)
    assert gain(reloader) == ".5"


@pytest.mark.parametrize("name", ["nowhere/x", "x" * 300, "a/b\\0c"])
def test_save_says_why_it_cannot_write(reloader: Reloader, tmp_path: Path, name: str) -> None:
    with pytest.raises(DemonError, match=r"No such|too long|null") as caught:
        reloader.session.apply(f"save '{tmp_path}/{name}'".replace("\\0", "\0"))
    assert caught.value.hint
