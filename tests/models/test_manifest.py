"""Manifests: what ships is whole, and what a stranger writes is checked word by word."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from demon_live.errors import EngineError
from demon_live.models import listing
from demon_live.models import manifest as manifests
from demon_live.models.manifest import find_manifests, load_manifest, missing_bytes, seal, verify

GOOD = """\
name = "tiny"
family = "imp"
licence = "MIT"
controls = ["blend", "denoise"]
backends = ["eager"]
tick_ms = 10

[shapes]
channels = 64
frames_high = 100

[schedule]
steps = 4
shift = 3
depth = 2

[decode]
margin = 1
window = 5

[[weights]]
file = "a.bin"
sha256 = "{sha}"
bytes = 3

[[weights]]
file = "sub/b.bin"
repo = "someone/something"
revision = "0123456789012345678901234567890123456789"
sha256 = "{sha}"
bytes = 2000000000
"""
SHA = hashlib.sha256(b"abc").hexdigest()


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEMON_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.toml"
    path.write_text(GOOD.format(sha=SHA))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "a.bin").write_bytes(b"abc")
    return path


def refused(path: Path, old: str, new: str) -> EngineError:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(EngineError) as caught:
        load_manifest(path)
    return caught.value


def test_shipped_imp_is_whole() -> None:
    imp = load_manifest("imp")
    assert "imp" in [m.name for m in find_manifests()]
    assert [(f.weight.file, f.state) for f in verify(imp)] == [(w.file, "ok") for w in imp.weights]
    assert missing_bytes(imp) == 0
    assert sum(w.bytes for w in imp.weights) < 60e6


def test_imp_margin_and_channels_are_the_models_own() -> None:
    from demon_live.models.imp import model as imp

    manifest = load_manifest("imp")
    encoder, _ = imp.load_codec(manifest.file("codec.safetensors"))
    assert (manifest.margin, manifest.channels) == (imp.MARGIN, encoder.channels)
    assert (manifest.hop, manifest.sample_rate) == (imp.HOP, imp.SAMPLE_RATE)
    assert manifest.frames_multiple == imp.PATCH


def test_states_of_files(toml: Path) -> None:
    manifest = load_manifest(toml)
    assert [f.state for f in verify(manifest)] == ["ok", "missing"]
    assert missing_bytes(manifest) == 2_000_000_000
    shipped = manifest.place(manifest.weights[0])
    shipped.write_bytes(b"abd")
    assert verify(manifest)[0].state == "hash"
    assert verify(manifest, deep=False)[0].state == "ok"
    shipped.write_bytes(b"abcd")
    assert verify(manifest)[0].state == "size"


def test_fetched_files_belong_in_the_cache(toml: Path, tmp_path: Path) -> None:
    manifest = load_manifest(toml)
    fetched = manifest.place(manifest.weights[1])
    assert fetched.is_relative_to(tmp_path / "cache" / "weights" / "someone--something")
    with pytest.raises(EngineError, match="lacks"):
        manifest.file("sub/b.bin")
    with pytest.raises(EngineError, match="lists no file"):
        manifest.file("c.bin")


def test_seal_writes_sizes_and_hashes_and_nothing_else(toml: Path, tmp_path: Path) -> None:
    text = toml.read_text()
    toml.write_text(text[: text.rindex("[[weights]]")])
    (tmp_path / "tiny" / "a.bin").write_bytes(b"other")
    seal(toml)
    sealed = load_manifest(toml)
    assert [f.state for f in verify(sealed)] == ["ok"]
    assert sealed.weights[0].bytes == 5
    assert toml.read_text().count("\n") == text[: text.rindex("[[weights]]")].count("\n")


@pytest.mark.parametrize(
    "path",
    ["../a.bin", "/etc/passwd", "sub/../../a.bin", "..\\\\a.bin", "C:/a.bin", "", "~/../../a.bin"],
)
def test_files_stay_in_their_folder(toml: Path, path: str) -> None:
    error = refused(toml, 'file = "a.bin"', f'file = "{path}"')
    assert "must stay inside" in error.message
    assert error.span is not None
    assert error.span.line == 22


@pytest.mark.parametrize("folder", ["..", "/", "/tmp", "a/../.."])
def test_the_folder_stays_beside_the_manifest(toml: Path, folder: str) -> None:
    error = refused(toml, 'licence = "MIT"', f'licence = "MIT"\nfolder = "{folder}"')
    assert error.span is not None
    assert error.span.line == 4


def test_a_link_out_of_the_folder_is_refused(toml: Path, tmp_path: Path) -> None:
    home = tmp_path / "inner"
    home.mkdir()
    moved = toml.rename(home / "tiny.toml")
    (home / "tiny").symlink_to(tmp_path)
    with pytest.raises(EngineError, match="beside the manifest"):
        load_manifest(moved)


@pytest.mark.parametrize(
    ("old", "new", "message", "line"),
    [
        ("steps = 4", "steps = 0", "at least 1", 13),
        ("shift = 3", "shift = -1", "at least 0.01", 14),
        ("margin = 1", "margin = -1", "at least 0", 18),
        ("tick_ms = 10", "tick_ms = 0", "at least 0.1", 6),
        ("steps = 4", 'steps = "4"', "type int", 13),
        ("steps = 4", "steps = true", "type int", 13),
        ("steps = 4", "stepps = 4", "lacks schedule.steps", 12),
        ("window = 5", "window = 5\nwindou = 3", "means nothing", 20),
        ('"denoise"]', '"denois"]', "no control", 4),
        ('["eager"]', '["eagre"]', "no backend", 5),
        ("name =", "name", "expected", 1),
        ('"tiny"', '"../x"', "short word", 1),
        ("0123456789012345678901234567890123456789", "main", "40 hexadecimal", 29),
        ("someone/something", "someone", "owner/name", 28),
        ("someone/something", "someone/" + "x" * 200, "longer than 200", 28),
        (SHA, "abc", "64 hexadecimal", 23),
        ("bytes = 3", f"bytes = {10**400}", "at most", 24),
    ],
)
def test_errors_point_into_the_toml(
    toml: Path, old: str, new: str, message: str, line: int
) -> None:
    error = refused(toml, old, new)
    assert message in error.message.lower()
    assert error.span is not None
    assert error.span.line == line
    assert str(toml) in str(error)


def test_misspelt_words_get_the_right_one(toml: Path) -> None:
    assert refused(toml, '"denoise"]', '"denois"]').hint == "did you mean denoise?"


def test_unknown_engine_names_the_near_one() -> None:
    with pytest.raises(EngineError, match="no engine 'imq'") as caught:
        load_manifest("imq")
    assert caught.value.hint == "did you mean imp?"
    with pytest.raises(EngineError, match="cannot be read"):
        load_manifest("/nowhere/x.toml")


def test_a_large_file_is_hashed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big.safetensors"
    path.write_bytes(b"x" * 1000)
    manifests.note_checked(path, "a" * 64)
    assert not manifests.checked(path, "a" * 64)  # small: looked at every time
    monkeypatch.setattr(manifests, "_LARGE", 100)
    manifests.note_checked(path, "a" * 64)
    assert manifests.checked(path, "a" * 64)
    assert not manifests.checked(path, "b" * 64)
    path.write_bytes(b"x" * 999)
    assert not manifests.checked(path, "a" * 64)


def test_texts_say_what_is_true() -> None:
    assert re.search(r"^imp +present, ", listing.list_text(), re.MULTILINE)
    info = listing.info_text("imp")
    assert "128 channels" in info
    assert "denoise" in info
    assert listing.verify_text("imp").endswith("all files are as listed")
    assert "nothing to fetch" in listing.fetch_text("imp")
