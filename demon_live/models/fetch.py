"""Fetching an engine's files: what it costs first, then one file after the other, each checked.

    plan(manifest) -> FetchPlan                   what is missing or damaged, bytes, free disk space
    fetch(manifest, plan, tell)              download; an interrupted one goes on where it stopped

The work is huggingface_hub's (resuming, mirrors by HF_ENDPOINT, tokens, progress bars). Ours is
that nothing is used which does not have the size and SHA-256 that the manifest, or for a file
without one there the hub at the first download, says it has.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demon_live import paths as places
from demon_live.errors import EngineError
from demon_live.models.manifest import FileCheck, Manifest, digest_of, note_checked, sealed, verify

_SLACK = 200_000_000
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
    return FetchPlan(wanted, sum(f.weight.bytes for f in wanted), free)


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


def _one(manifest: Manifest, finding: FileCheck) -> None:
    from huggingface_hub import hf_hub_download

    weight, path = finding.weight, finding.path
    again = f"demon engines fetch {manifest.name} goes on where it stopped"
    folder = path
    for _ in Path(weight.file).parts:
        folder = folder.parent
    expected = _announced(manifest, finding)
    try:
        hf_hub_download(
            weight.repo,
            weight.file,
            revision=weight.revision,
            local_dir=folder,
            force_download=finding.state != "missing",
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            tqdm_class=_bounded_progress(finding),
        )
    except EngineError:
        raise
    except Exception as error:  # noqa: BLE001 (its transport's own errors come through)
        raise EngineError(f"{weight.repo}/{weight.file}: {_reason(error)}", hint=again) from None
    _check(finding, expected)


def _announced(manifest: Manifest, finding: FileCheck) -> str:
    """The SHA-256 that is expected of a file; empty for a small one, which the hub hashes by git.

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
    return weight.sha256 or sealed(finding.path) or (etag if len(etag) == 64 else "")


def _bounded_progress(finding: FileCheck) -> Any:
    """A progress bar that ends the download when more comes than is listed."""
    from huggingface_hub.utils.tqdm import tqdm

    class BoundedProgress(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        come = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            self.come += n or 0
            if self.come > finding.weight.bytes:
                raise _other_size(finding, f"over {finding.weight.bytes}")
            done: bool | None = super().update(n)
            return done

    return BoundedProgress


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


def _check(finding: FileCheck, expected: str) -> None:
    """Keep the file if it is what was expected; else remove it and raise EngineError."""
    path, weight = finding.path, finding.weight
    size, digest = path.stat().st_size, digest_of(path)
    if size != weight.bytes or (expected and digest != expected):
        path.unlink()
        what = f"{size} bytes instead of {weight.bytes}" if size != weight.bytes else "another hash"
        raise EngineError(
            f"{weight.repo}/{weight.file} came with {what}, and was thrown away",
            hint="fetch again; if it stays so, the file was changed after this version was made",
        )
    note_checked(path, digest)
    if not weight.sha256:
        path.with_name(path.name + ".sha256").write_text(digest, "ascii")
