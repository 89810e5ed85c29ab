"""Fetching an engine's files: what it costs first, then one file after the other, each checked.

    plan(manifest) -> FetchPlan                   what is missing or damaged, bytes, free disk space
    fetch(manifest, plan, tell)              download; an interrupted one goes on where it stopped
    take(plan, folder, tell)                 use what lies in a folder already

huggingface_hub finds the files (mirrors by HF_ENDPOINT, tokens). What has come of a file is kept
beside it as NAME.part, so that any later fetch goes on with it. Nothing is used which does not have
the size and SHA-256 that the manifest, or for a file without one there the hub at the first
download, says it has.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from demon_live import paths as places
from demon_live.errors import EngineError
from demon_live.models.manifest import (
    FileCheck,
    Manifest,
    Weight,
    digest_of,
    note_checked,
    sealed,
    verify,
)

_SLACK = 200_000_000
#: Bytes read at once, seconds that a server may be silent, connections that may be cut.
_PIECE, _PATIENCE, _TRIES = 1 << 20, 30.0, 50
#: How ComfyUI names the parts of a single file; bytes of a header at most; bytes of a number.
_PREFIXES = ("model.diffusion_model.", "text_encoders.qwen3_06b.transformer.model.", "vae.")
_HEADER = 100_000_000
_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1, "BOOL": 1}
_TRUE = ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What a fetch would do. wanted: files that are missing or damaged. free: bytes on the disk."""

    wanted: tuple[FileCheck, ...]
    bytes: int
    free: int


def offline() -> bool:
    """Whether the environment forbids the hub (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def plan(manifest: Manifest) -> FetchPlan:
    """What is to be fetched. Files that are there are read and checked, which takes a while."""
    wanted = tuple(f for f in verify(manifest) if f.state != "ok" and f.weight.repo)
    free = shutil.disk_usage(places.cache_dir()).free
    come = sum(min(_size_of(_part(f.path)), f.weight.bytes) for f in wanted)
    return FetchPlan(wanted, sum(f.weight.bytes for f in wanted) - come, free)


def fetch(manifest: Manifest, wanted: FetchPlan, tell: Callable[[str], None]) -> None:
    """Download what is wanted. Raises EngineError: offline, no space, not there, not as listed."""
    if not wanted.wanted:
        return
    name = manifest.name
    if offline():
        raise EngineError(
            f"{name} cannot be fetched: HF_HUB_OFFLINE is set", hint="unset it, or play imp"
        )
    if wanted.free < wanted.bytes + _SLACK:
        raise EngineError(
            f"{name} needs {wanted.bytes / 1e9:.1f} GB in {places.cache_dir()}, "
            f"{wanted.free / 1e9:.1f} GB are free",
            hint="make room, or set DEMON_CACHE to a folder on a larger disk",
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise EngineError(
            "fetching needs huggingface_hub, not installed here",
            hint=places.install("ace"),
        )
    for i, finding in enumerate(wanted.wanted):
        tell(f"{i + 1} of {len(wanted.wanted)}  {finding.weight.file}")
        _one(manifest, finding)


def take(wanted: FetchPlan, folder: Path, tell: Callable[[str], None]) -> None:
    """Use the files of a folder that are the wanted ones, whatever their names: linked where the
    disk is the same, else copied. A single file of ComfyUI is taken apart.

    Raises EngineError: the folder is not there.
    """
    if not folder.is_dir():
        raise EngineError(
            f"{folder} is no folder", hint="the one that holds the checkpoint's files"
        )
    there = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".part")
    sizes = {p: p.stat().st_size for p in there}
    for finding in wanted.wanted:
        weight, path = finding.weight, finding.path
        # Without a listed hash only a file of the same name counts.
        same = [p for p, size in sizes.items() if size == weight.bytes]
        found = next((p for p in same if weight.sha256 and digest_of(p) == weight.sha256), None)
        if found is None and not weight.sha256:
            found = next((p for p in same if p.name == Path(weight.file).name), None)
        part = _part(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if found is not None:
            part.unlink(missing_ok=True)
            try:
                os.link(found.resolve(), part)
            except OSError:
                shutil.copyfile(found, part)
        elif not _rebuilt(weight, there, part):
            continue
        _check(finding, part, weight.sha256)
        tell(f"{weight.file}: from {found or folder}")


def _rebuilt(weight: Weight, there: list[Path], part: Path) -> bool:
    """Whether a file could be made of the tensors that a single file of ComfyUI holds under a
    prefix; only one that is the listed file, bit for bit, is kept."""
    if not weight.sha256 or not weight.file.endswith(".safetensors"):
        return False
    for path in there:
        if path.suffix != ".safetensors" or path.stat().st_size < weight.bytes:
            continue
        for prefix in _PREFIXES:
            if not extract(path, prefix, part):
                continue
            if part.stat().st_size == weight.bytes and digest_of(part) == weight.sha256:
                return True
            part.unlink()
    return False


def extract(path: Path, prefix: str, out: Path) -> bool:
    """Write the tensors of a safetensors file whose names begin with `prefix`, without it, as
    `safetensors.save_file` would. False: there are none, or the file is damaged."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER:
            return False
        try:
            rows = json.loads(file.read(length))
            found = {k[len(prefix) :]: v for k, v in rows.items() if k.startswith(prefix)}
            order = sorted(found, key=lambda k: (-_WIDTHS[found[k]["dtype"]], k))
        except (ValueError, KeyError, AttributeError, TypeError):
            return False
        if not order:
            return False
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name in order:
            begin, end = found[name]["data_offsets"]
            header[name] = {**found[name], "data_offsets": [at, at + end - begin]}
            at += end - begin
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(out, "wb") as made:
            made.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                begin, end = found[name]["data_offsets"]
                file.seek(8 + length + begin)
                while begin < end and (piece := file.read(min(_PIECE, end - begin))):
                    made.write(piece)
                    begin += len(piece)
    return True


def _one(manifest: Manifest, finding: FileCheck) -> None:
    weight, part = finding.weight, _part(finding.path)
    url, expected = _announced(manifest, finding)
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        before = _size_of(part)
        try:
            _append(url, part, finding)
        except EngineError:
            raise
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError):
                error.close()
            # Try again while more comes each time.
            if _size_of(part) > before:
                continue
            raise _cut(manifest, finding, error) from None
        if _size_of(part) == weight.bytes:
            break
    else:
        raise _cut(manifest, finding, EOFError("the connection is cut again and again"))
    _check(finding, part, expected)


def _part(path: Path) -> Path:
    """Where what has come of a file waits for the rest."""
    return path.with_name(path.name + ".part")


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _cut(manifest: Manifest, finding: FileCheck, error: Exception) -> EngineError:
    weight = finding.weight
    return EngineError(
        f"{weight.repo}/{weight.file}: {_reason(error)}",
        hint=f"demon engines fetch {manifest.name} goes on where it stopped",
    )


def _append(url: str, part: Path, finding: FileCheck) -> None:
    """Ask for what is missing of a file and add it to its part. Raises OSError, EngineError."""
    from huggingface_hub.utils.tqdm import tqdm

    weight, have = finding.weight, _size_of(part)
    if have > weight.bytes:
        part.unlink()
        have = 0
    if have == weight.bytes:
        return
    request = urllib.request.Request(url, headers=_headers(url))
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=_PATIENCE, context=_certificates()) as answer:
        goes_on = answer.status == 206
        have = have if goes_on else 0
        with (
            open(part, "ab" if goes_on else "wb") as file,
            tqdm(  # type: ignore[no-untyped-call, unused-ignore]
                total=weight.bytes, initial=have, unit="B", unit_scale=True
            ) as bar,
        ):
            while piece := answer.read1(_PIECE):
                have += len(piece)
                if have > weight.bytes:
                    raise _other_size(finding, f"over {weight.bytes}")
                file.write(piece)
                bar.update(len(piece))


def _certificates() -> ssl.SSLContext:
    """Those that the hub's own library trusts: not every Python finds the system's."""
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def _headers(url: str) -> dict[str, str]:
    """The token is for the hub alone, not for the servers that it sends on to."""
    from huggingface_hub import constants
    from huggingface_hub.utils._headers import build_hf_headers

    hub = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    same = urlsplit(url).netloc == urlsplit(hub).netloc
    return dict(build_hf_headers(token=None if same else False))


def _announced(manifest: Manifest, finding: FileCheck) -> tuple[str, str]:
    """(where a file lies, the SHA-256 that is expected of it: "" for a small one, which the hub
    hashes by git).

    Raises EngineError if the hub announces another size than is listed.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    weight = finding.weight
    url = hf_hub_url(
        weight.repo,
        weight.file,
        revision=weight.revision,
        endpoint=os.environ.get("HF_ENDPOINT") or None,
    )
    try:
        found = get_hf_file_metadata(url)
    except Exception as error:  # noqa: BLE001 (its transport's own errors come through)
        raise EngineError(
            f"{weight.repo}/{weight.file}: {_reason(error)}", name=manifest.name
        ) from None
    if found.size not in (None, weight.bytes):
        raise _other_size(finding, f"{found.size}")
    etag = found.etag or ""
    expected = weight.sha256 or sealed(finding.path) or (etag if len(etag) == 64 else "")
    return urljoin(url, found.location or url), expected


def _other_size(finding: FileCheck, size: str) -> EngineError:
    weight = finding.weight
    return EngineError(
        f"{weight.repo}/{weight.file} has {size} bytes at the hub instead of {weight.bytes}, and "
        "is not fetched",
        hint="the file was changed after this version was made, or HF_ENDPOINT is no hub",
    )


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _check(finding: FileCheck, came: Path, expected: str) -> None:
    """Keep what came if it is what was expected; else remove it and raise EngineError."""
    path, weight = finding.path, finding.weight
    size, digest = came.stat().st_size, digest_of(came)
    if size != weight.bytes or (expected and digest != expected):
        came.unlink()
        what = f"{size} bytes instead of {weight.bytes}" if size != weight.bytes else "another hash"
        raise EngineError(
            f"{weight.repo}/{weight.file} came with {what}, and was thrown away",
            hint="fetch again; if it stays so, the file was changed after this version was made",
        )
    came.replace(path)
    note_checked(path, digest)
    if not weight.sha256:
        path.with_name(path.name + ".sha256").write_text(digest, "ascii")
