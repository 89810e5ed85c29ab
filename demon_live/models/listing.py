"""What `demon engines list|info|verify|fetch` print, as text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from demon_live import paths as places
from demon_live.controls import CONTROLS
from demon_live.errors import EngineError
from demon_live.models.cuda import require_gpu, require_system
from demon_live.models.manifest import (
    Manifest,
    checked,
    digest_of,
    find_manifests,
    load_manifest,
    missing_bytes,
    note_checked,
    sealed,
    verify,
)

_SAID = {"ok": "ok", "missing": "MISSING", "size": "WRONG SIZE", "hash": "WRONG HASH"}


def _size(count: int) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _state(manifest: Manifest) -> str:
    findings = verify(manifest, deep=False)
    lacking = [f for f in findings if f.state == "missing"]
    if lacking:
        count = f"{len(lacking)} of {len(findings)} files missing"
        if all(f.weight.repo for f in lacking):
            return f"{count}, {_size(missing_bytes(manifest))} to fetch"
        return f"{count}: install demon-live again"
    if any(f.state == "size" for f in findings):
        return f"present, but not as listed: demon engines verify {manifest.name}"
    return f"present, {_size(sum(weight.bytes for weight in manifest.weights))}"


def require_files(manifest: Manifest) -> None:
    """Raise EngineError unless all files are there in their sizes: what is missing, the remedy."""
    findings = [f for f in verify(manifest, deep=False) if f.state != "ok"]
    if not findings:
        return
    lacking = [f for f in findings if f.state == "missing"]
    if not lacking:
        raise EngineError(
            f"{findings[0].path} is truncated, or not the file that {manifest.name} lists",
            hint=f"demon engines fetch {manifest.name} (it fetches what is damaged)",
        )
    if any(f.weight.repo for f in lacking):
        cost = _size(sum(f.weight.bytes for f in lacking))
        raise EngineError(
            f"{manifest.name} is not fetched: {len(lacking)} files, {cost}, {manifest.licence}",
            hint=f"fetch it: demon engines fetch {manifest.name}; or play now, without a download: "
            "demon live --engine imp",
        )
    raise EngineError(
        f"engine {manifest.name} lacks {lacking[0].path}",
        hint=f"see what is missing with: demon engines verify {manifest.name}",
    )


def require_whole(
    manifest: Manifest, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Raise EngineError unless all files have the hashes that are listed, and the remedy.

    Large files are read once; what was found is kept beside them until they change. progress:
    (bytes checked, bytes in all).
    """
    rows = [(w, manifest.place(w)) for w in manifest.weights]
    waiting = [(w, p, wanted) for w, p in rows if (wanted := w.sha256 or sealed(p))]
    waiting = [row for row in waiting if not checked(row[1], row[2])]
    total, before = sum(weight.bytes for weight, _, _ in waiting), 0
    for weight, path, wanted in waiting:
        found = digest_of(path, partial(_later, progress, before, total))
        before += weight.bytes
        if found != wanted:
            raise EngineError(
                f"{path} has not the hash that {manifest.name} lists: it is damaged, or another "
                "file",
                hint=f"demon engines fetch {manifest.name} (it fetches what is damaged)",
            )
        note_checked(path, wanted)


def _later(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def list_text() -> str:
    """All engines, one a line: name, what is present or what fetching costs, licence, summary."""
    rows = [(m.name, _state(m), m.licence, m.summary) for m in find_manifests()]
    if not rows:
        return "there are no engines"
    widths = [max(len(row[i]) for row in rows) for i in range(3)] + [0]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def info_text(name: str) -> str:
    """All that the manifest says, for people."""
    m = load_manifest(name)
    rate = f"{m.frame_hz} frames a second, hop {m.hop} at {m.sample_rate} Hz"
    rows = [
        ("engine", f"{m.name}: {m.summary}".rstrip(": ")),
        ("manifest", str(m.path)),
        ("licence", m.licence),
        ("files", _state(m)),
        ("latent", f"{m.channels} channels, {rate}"),
        ("frames", f"{m.frames_low}..{m.frames_high}, a multiple of {m.frames_multiple}"),
        ("schedule", f"{m.steps} steps, shift {m.shift:g}, depth {m.depth}"),
        ("decode", f"windows of {m.window} frames, margin {m.margin}"),
        ("backends", ", ".join(m.backends)),
        ("controls", ", ".join(c for c in CONTROLS if c in m.controls)),
    ]
    return "\n".join(f"{title:9} {text}" for title, text in rows)


def verify_text(name: str) -> str:
    """One line a file, and a verdict. For the exit code ask `manifest.verify`."""
    findings = verify(load_manifest(name))
    lines = [f"{_SAID[f.state]:10} {_size(f.weight.bytes):>8}  {f.path}" for f in findings]
    bad = sum(f.state != "ok" for f in findings)
    end = "all files are as listed" if not bad else f"{bad} of {len(findings)} are not as listed"
    return "\n".join([*lines, f"{name}: {end}"])


def fetch_text(name: str, folder: Path | None = None) -> str:
    """Fetch missing or damaged files, after printing size and licence; folder: first take from
    there what it holds. Raises EngineError."""
    require_system()
    manifest = load_manifest(name)
    if not any(weight.repo for weight in manifest.weights):
        return f"{name}: nothing to fetch, its files ship with demon_live ({_state(manifest)})"
    from demon_live.models import fetch

    def tell(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    if any(path.is_file() for path in (manifest.place(w) for w in manifest.weights)):
        tell(f"{name}: looking at the files that are there")
    wanted = fetch.plan(manifest)
    if folder is not None and wanted.wanted:
        fetch.take(wanted, folder, tell)
        wanted = fetch.plan(manifest)
    if not wanted.wanted:
        return f"{name}: nothing to fetch, all files are there and as listed"
    tell(
        f"{name}: {len(wanted.wanted)} files, {_size(wanted.bytes)} to fetch into "
        f"{places.cache_dir() / 'weights'} ({_size(wanted.free)} free)\nlicence: {manifest.licence}"
    )
    try:
        require_gpu(manifest)
    except EngineError as error:
        # It may be fetched for another machine.
        tell(f"on this machine {error.message}\n  {error.hint}")
    fetch.fetch(manifest, wanted, tell)
    return f"{name}: fetched. Play it: demon live --engine {name}"
