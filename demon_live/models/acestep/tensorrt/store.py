"""Where plans lie: keyed by manifest, library and card, whole or not there, checked, bounded.

    Wanted(...)              -> what a plan must have been made from; its key names the file
    put(wanted, file, facts)    moves a finished plan in; old ones go if the folder grows too large
    find(wanted)             -> Stored: the plan and its facts, hash checked; or why there is none
    listed(engine)           -> what is there, for people

Beside each PLAN.plan lies PLAN.json with its facts and SHA-256. The facts are written last and
removed first: a plan without them does not exist.

Threads: several processes may build and play at once; each file is replaced in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demon_live import paths as places
from demon_live.errors import EngineError, UsageError
from demon_live.models.manifest import Manifest, checked, digest_of, note_checked

#: Gigabytes that all plans may take together; DEMON_PLANS_GB overrides.
_LIMIT = 40.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a plan is made from. manifest: its digest. recipe: the number of the graph's form."""

    engine: str
    part: str
    manifest: str
    recipe: int
    library: str
    version: str
    capability: str
    precision: str
    random: bool

    @property
    def key(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def plan(self) -> Path:
        """Where it lies, or would lie."""
        return _folder(self.engine) / f"{self.part}-{self.capability}-{self.key}.plan"


@dataclass(frozen=True, slots=True)
class Stored:
    """A plan that is there. facts: what was written beside it."""

    path: Path
    facts: Mapping[str, Any]


def _folder(engine: str) -> Path:
    return places.cache_dir() / "plans" / engine


def wanted(
    manifest: Manifest, part: Any, library: Any, capability: str, random: bool = False
) -> Wanted:
    """The plan of a part (`parts.Part`) of an engine with a library, for a card.

    random: of random weights, which never stands in for the true ones.
    """
    from demon_live.models.acestep.export import RECIPE

    return Wanted(
        manifest.name,
        part.name,
        manifest.digest,
        RECIPE,
        library.name,
        library.version,
        capability,
        part.precision,
        random,
    )


def limit() -> int:
    """Bytes that all plans may take together. Raises UsageError."""
    text = os.environ.get("DEMON_PLANS_GB", "")
    try:
        value = float(text) if text else _LIMIT
    except ValueError:
        value = -1.0
    if not value > 0:
        raise UsageError(f"DEMON_PLANS_GB is a number of gigabytes, this is {text!r}")
    return int(value * 1e9)


def _all() -> Iterator[Stored]:
    """Every plan of every engine; one whose facts cannot be read is none."""
    for file in sorted((places.cache_dir() / "plans").glob("*/*.json")):
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads(file.read_text("utf-8"))
            if isinstance(facts, dict) and file.with_suffix(".plan").is_file():
                yield Stored(file.with_suffix(".plan"), facts)


def listed(engine: str) -> list[Stored]:
    """The plans of an engine, newest last."""
    return sorted((s for s in _all() if s.facts.get("engine") == engine), key=_used)


def put(want: Wanted, made: Path, facts: Mapping[str, Any]) -> Stored:
    """Move a finished plan in, with what is known of it."""
    target = want.plan
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".json")
    known = {
        **asdict(want),
        **facts,
        "bytes": made.stat().st_size,
        "sha256": digest_of(made),
    }
    beside.unlink(missing_ok=True)
    made.replace(target)
    part = beside.with_name(f".{beside.name}.{os.getpid()}")
    part.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    part.replace(beside)
    return Stored(target, known)


def room(keep: Wanted | None = None) -> list[str]:
    """Remove plans until all fit the limit: first those that this version can no longer use for
    what `keep` is, then those unused for longest. Returns what went, for people."""
    there = list(_all())
    gone = [s for s in there if keep is not None and _replaced(s, keep)]
    rest = sorted((s for s in there if s not in gone), key=_used)
    total = sum(s.path.stat().st_size for s in rest)
    while rest and total > limit():
        oldest = rest.pop(0)
        if keep is not None and oldest.path == keep.plan:
            continue
        total -= oldest.path.stat().st_size
        gone.append(oldest)
    for stored in gone:
        for suffix in (".json", ".kernels", ".plan.checked", ".plan"):
            stored.path.with_suffix(suffix).unlink(missing_ok=True)
    return [f"{s.path.name}, {s.path.parent.name}" for s in gone]


def _used(stored: Stored) -> float:
    """When the plan was used last, in seconds."""
    return stored.path.with_suffix(".json").stat().st_mtime


def _replaced(stored: Stored, want: Wanted) -> bool:
    same = ("engine", "part", "capability", "random", "library")
    return stored.path != want.plan and all(
        stored.facts.get(name) == getattr(want, name) for name in same
    )


def find(want: Wanted) -> Stored:
    """The plan, its bytes checked against their hash; counts as used now.

    Raises EngineError: there is none, there is one of something else, or it is damaged.
    """
    hint = f"build it: demon engines build {want.engine}"
    path, beside = want.plan, want.plan.with_suffix(".json")
    try:
        facts = json.loads(beside.read_text("utf-8")) if path.is_file() else None
    except (OSError, ValueError):
        facts = None
    if facts is None:
        raise EngineError(_why_none(want), hint=hint)
    size, wanted = path.stat().st_size, str(facts.get("sha256"))
    whole = size == facts.get("bytes")
    if whole and not checked(path, wanted):
        whole = digest_of(path) == wanted
        if whole:
            note_checked(path, wanted)
    if not whole:
        raise EngineError(
            f"the plan {path} is damaged: {size} bytes, {facts.get('bytes')} were built",
            hint=f"build it again: demon engines build {want.engine}",
        )
    with contextlib.suppress(OSError):
        # Its description is what counts as used: the plan's own time says whether it has changed.
        os.utime(beside)
    return Stored(path, facts)


def _why_none(want: Wanted) -> str:
    """What is there instead."""
    what = f"no plan of {want.engine} ({want.part}) is built for compute capability"
    for stored in reversed(listed(want.engine)):
        facts = stored.facts
        if facts.get("part") != want.part or facts.get("capability") != want.capability:
            continue
        if facts.get("random") != want.random:
            continue
        made = f"the plan of {want.engine} ({want.part}) for {want.capability} is out of date: "
        if facts.get("library") != want.library or facts.get("version") != want.version:
            was, now = f"{facts.get('library')} {facts.get('version')}", want
            return made + f"built by {was}, this is {now.library} {now.version}"
        if facts.get("manifest") != want.manifest:
            return made + f"{want.engine}.toml has changed since"
        return made + "another version of demon_live built it"
    others = sorted({str(s.facts.get("capability")) for s in listed(want.engine)})
    others = [cc for cc in others if cc != want.capability]
    return f"{what} {want.capability}" + (f", but for {', '.join(others)}" if others else "")
