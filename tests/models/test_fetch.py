"""Fetching: the cost is said first, a broken download goes on, and nothing unlisted is kept.

The hub is a small server on this machine that speaks what huggingface_hub asks of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from demon_live.errors import EngineError
from demon_live.models import fetch, listing
from demon_live.models.manifest import load_manifest, verify

pytest.importorskip("huggingface_hub")

REVISION = "0123456789012345678901234567890123456789"
CONTENT = {"a.safetensors": b"a" * 300_000, "sub/b.json": b'{"b": 1}'}
MANIFEST = """\
name = "far"
family = "acestep"
licence = "MIT"
controls = ["blend"]
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
"""


class Hub(http.server.ThreadingHTTPServer):
    """files: what is served. cut: after so many bytes the connection is dropped, once.

    endless: it sends on and on, whatever it announced. sent: bytes. hold: until then a connection
    that will be cut stays. broken: files are announced and not given.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(CONTENT)
        self.cut = 0
        self.endless = self.broken = False
        self.hold: threading.Event | None = None
        self.sent = 0
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        found = re.match(rf"/someone/something/resolve/{REVISION}/(.+)", self.path)
        data = self.server.files.get(found[1]) if found else None
        if data is None:
            self.send_error(404)
            return
        if body and self.server.broken:
            self.send_error(503)
            return
        asked = self.headers.get("Range")
        if body:
            self.server.asked.append((self.path.rpartition("/")[2], asked))
        start = int(re.findall(r"\d+", asked)[0]) if asked and body else 0
        part = data[start:]
        self.send_response(206 if start else 200)
        endless = body and self.server.endless
        self.send_header("Content-Length", str(1 << 40 if endless else len(part)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        large = found is not None and found[1].endswith(".safetensors")
        digest = hashlib.sha256(data) if large else hashlib.sha1(data)
        self.send_header("ETag", f'"{digest.hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body and self.server.cut:
            self.wfile.write(part[: self.server.cut])
            self.server.cut = 0
            if self.server.hold is not None:
                self.server.hold.wait(120)
            self.close_connection = True
            return
        if body:
            self.wfile.write(part)
        if endless:
            self.close_connection = True
            with contextlib.suppress(OSError):
                while self.server.sent < 50_000_000:
                    self.server.sent += self.wfile.write(bytes(100_000))

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("DEMON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def manifest_at(path: Path, *, hashes: bool = True) -> Path:
    return manifest_of(path, CONTENT, hashes=hashes)


def manifest_of(path: Path, content: Mapping[str, bytes], *, hashes: bool = True) -> Path:
    rows = [MANIFEST]
    for file, data in content.items():
        sha = f'sha256 = "{hashlib.sha256(data).hexdigest()}"\n' if hashes else ""
        rows.append(
            f'[[weights]]\nrepo = "someone/something"\nrevision = "{REVISION}"\n'
            f'file = "{file}"\n{sha}bytes = {len(data)}\n'
        )
    toml = path / "far.toml"
    toml.write_text("".join(rows))
    return toml


def test_fetch_says_the_cost_then_fetches_and_checks(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = manifest_at(tmp_path)
    assert "fetched" in listing.fetch_text(str(toml))
    said = capsys.readouterr().err
    assert said.index("2 files, 0.3 MB to fetch") < said.index("a.safetensors")
    assert "licence: MIT" in said
    assert all(f.state == "ok" for f in verify(load_manifest(toml)))
    hub.asked.clear()
    assert "nothing to fetch" in listing.fetch_text(str(toml))
    assert hub.asked == []


def test_a_connection_that_is_cut_is_made_again(hub: Hub, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_at(tmp_path))
    hub.cut = 100_000
    fetch.fetch(manifest, fetch.plan(manifest), lambda text: None)
    assert all(f.state == "ok" for f in verify(manifest))
    ranges = [asked for file, asked in hub.asked if file == "a.safetensors"]
    assert ranges == [None, "bytes=100000-"]


def test_what_another_process_has_fetched_is_not_fetched_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process is killed, whatever it would have liked to tidy."""
    toml = manifest_at(tmp_path)
    manifest = load_manifest(toml)
    hub.cut, hub.hold = 100_000, threading.Event()
    code = f"from demon_live.models import listing; listing.fetch_text({str(toml)!r})"
    first = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    part = fetch._part(manifest.place(manifest.weights[0]))
    deadline = time.monotonic() + 120
    while not part.is_file() or part.stat().st_size < 100_000:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    first.kill()
    first.wait()
    hub.hold.set()
    hub.asked.clear()
    wanted = fetch.plan(manifest)
    assert wanted.bytes == 200_000 + len(CONTENT["sub/b.json"])
    fetch.fetch(manifest, wanted, lambda text: None)
    assert all(f.state == "ok" for f in verify(manifest))
    assert ("a.safetensors", "bytes=100000-") in hub.asked
    assert not part.exists()


def test_a_hub_that_gives_nothing_more_is_left_with_the_remedy(hub: Hub, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_at(tmp_path))
    wanted = fetch.plan(manifest)
    part = fetch._part(manifest.place(manifest.weights[0]))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"a" * 100_000)
    hub.broken = True
    with pytest.raises(EngineError, match="503") as found:
        fetch.fetch(manifest, wanted, lambda text: None)
    assert "goes on where it stopped" in str(found.value.hint)
    assert part.stat().st_size == 100_000


def test_the_token_is_for_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch._headers(f"{hub.url}/x")["authorization"] == "Bearer hf_secret"
    assert "authorization" not in fetch._headers("https://elsewhere.example/x")


def test_what_a_folder_holds_is_not_fetched(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = manifest_at(tmp_path)
    mine = tmp_path / "checkpoints" / "deep"
    mine.mkdir(parents=True)
    (mine / "another_name.safetensors").write_bytes(CONTENT["a.safetensors"])
    (mine / "a.safetensors").write_bytes(b"x" * 300_000)
    assert "fetched" in listing.fetch_text(str(toml), tmp_path / "checkpoints")
    assert [file for file, _ in hub.asked] == ["b.json"]
    assert "a.safetensors: from" in capsys.readouterr().err
    manifest = load_manifest(toml)
    assert all(f.state == "ok" for f in verify(manifest))
    assert (mine / "another_name.safetensors").read_bytes() == CONTENT["a.safetensors"]
    with pytest.raises(EngineError, match="is no folder"):
        listing.fetch_text(str(manifest_of(tmp_path, {"c": b"c"})), tmp_path / "none")


def test_a_single_file_of_comfyui_is_taken_apart(hub: Hub, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save, save_file

    made = torch.Generator().manual_seed(1)
    model = {
        "decoder.w": torch.randn(6, 5, generator=made).bfloat16(),
        "a.long": torch.randn(3, generator=made),
        "b": torch.randn(2, 2, generator=made).bfloat16(),
    }
    listed = save(model, metadata={"format": "pt"})
    whole = {f"model.diffusion_model.{k}": v for k, v in model.items()}
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save_file({**whole, "vae.x": torch.zeros(400)}, str(folder / "ace_step_aio.safetensors"))
    toml = manifest_of(tmp_path, {"model.safetensors": listed})
    listing.fetch_text(str(toml), folder)
    assert hub.asked == []
    manifest = load_manifest(toml)
    assert manifest.place(manifest.weights[0]).read_bytes() == listed


def test_what_is_not_as_listed_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_at(tmp_path))
    hub.files["a.safetensors"] = b"x" * 300_000
    with pytest.raises(EngineError, match="another hash, and was thrown away"):
        fetch.fetch(manifest, fetch.plan(manifest), lambda text: None)
    assert not manifest.place(manifest.weights[0]).exists()


def test_another_size_is_refused_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_at(tmp_path))
    hub.files["a.safetensors"] = b"a" * 300_001
    with pytest.raises(EngineError, match="has 300001 bytes at the hub instead of 300000"):
        fetch.fetch(manifest, fetch.plan(manifest), lambda text: None)
    assert hub.asked == []


def test_a_hub_that_sends_on_and_on_is_left(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_PIECE", 100_000)
    manifest = load_manifest(manifest_at(tmp_path))
    hub.endless = True
    with pytest.raises(EngineError, match="over 300000 bytes"):
        fetch.fetch(manifest, fetch.plan(manifest), lambda text: None)
    assert hub.sent < 50_000_000
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in kept) < 1_000_000


def test_a_damaged_file_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_at(tmp_path))
    fetch.fetch(manifest, fetch.plan(manifest), lambda text: None)
    path = manifest.place(manifest.weights[0])
    path.write_bytes(b"y" * 300_000)
    assert [f.state for f in fetch.plan(manifest).wanted] == ["hash"]
    fetch.fetch(manifest, fetch.plan(manifest), lambda text: None)
    assert path.read_bytes() == CONTENT["a.safetensors"]


def test_a_file_without_a_listed_hash_is_held_to_the_hubs(hub: Hub, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_at(tmp_path, hashes=False))
    fetch.fetch(manifest, fetch.plan(manifest), lambda text: None)
    path = manifest.place(manifest.weights[0])
    assert verify(manifest)[0].state == "ok"
    path.write_bytes(b"z" * 300_000)
    assert verify(manifest)[0].state == "hash"


def test_offline_and_missing_files_are_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_manifest(manifest_at(tmp_path))
    wanted = fetch.plan(manifest)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EngineError, match="HF_HUB_OFFLINE is set"):
        fetch.fetch(manifest, wanted, lambda text: None)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    del hub.files["a.safetensors"]
    with pytest.raises(EngineError, match=r"someone/something/a\.safetensors"):
        fetch.fetch(manifest, wanted, lambda text: None)


def test_no_room_is_told_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_at(tmp_path))
    wanted = fetch.plan(manifest)
    full = fetch.FetchPlan(wanted.wanted, 5_000_000_000, 1_000_000_000)
    with pytest.raises(EngineError, match=r"needs 5\.0 GB"):
        fetch.fetch(manifest, full, lambda text: None)
    assert hub.asked == []
