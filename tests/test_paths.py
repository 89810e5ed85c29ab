"""What a stranger put in a file's place never makes a reader wait, or read without end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from demon_live.audio.files import load_source
from demon_live.errors import DemonError
from demon_live.models.acestep.layout import read_json
from demon_live.models.conditioning import load_lexicon
from demon_live.models.lora import read_adapter
from demon_live.models.manifest import load_manifest
from demon_live.paths import read_file
from demon_live.session.scores import read_score
from demon_live.sets.journal import load


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    # A socket's address is short: it is bound where it lies, and stays when it is closed.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(path.name)
    finally:
        os.chdir(here)


ODD: dict[str, Callable[[Path], object]] = {
    "fifo": fifo,
    "device": device,
    "socket": listening,
    "folder": lambda path: path.mkdir(),
    "large": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40),
}


def configuration(path: Path) -> object:
    path.rename(path.with_name("adapter_config.json"))
    return read_adapter(path.parent, "x", ())


DOORS: dict[str, Callable[[Path], object]] = {
    "x.demon": read_score,
    "x.set.jsonl": load,
    "x.toml": load_manifest,
    "tags.toml": load_lexicon,
    "x.json": read_json,
    "x.wav": load_source,
    "config": configuration,
    "x.safetensors": lambda path: read_adapter(path, "x", ()),
}


@pytest.mark.skipif(os.name != "posix", reason="needs fifos, sockets and devices")
@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("kind", ODD)
def test_every_door_refuses_what_is_no_ordinary_file(tmp_path: Path, name: str, kind: str) -> None:
    ODD[kind](tmp_path / name)
    with pytest.raises(DemonError) as caught:
        DOORS[name](tmp_path / name)
    assert str(tmp_path) in str(caught.value)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_file(path, 4)
    for name in ("a\0b", "x" * 5000, "half \ud800"):
        with pytest.raises(OSError, match=r"name|long"):
            read_file(tmp_path / name, 5)
