"""`demon engines build E [--for CC]`, and what `demon engines info E` says of plans.

    build_text(name, capabilities, ...)   export once, build each plan that is not there, say so
    rows(name)                            (title, text) of each plan, for `info`

What is there is left alone, so that an interrupted build goes on with the plan it was at; its
graph, once exported, is kept until the last plan of it is made.

Threads: one; the work is done by processes of its own (worker.py).
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from demon_live import paths as places
from demon_live.errors import EngineError, UsageError
from demon_live.models.acestep.tensorrt import library as libraries
from demon_live.models.acestep.tensorrt import store, worker
from demon_live.models.acestep.tensorrt.library import RTX, Library
from demon_live.models.acestep.tensorrt.parts import Part, parts
from demon_live.models.listing import require_files, require_whole
from demon_live.models.manifest import Manifest, load_manifest

Tell = Callable[[str], None]


def _here() -> str | None:
    """The compute capability of this machine's card, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    return libraries.capability_of(torch.device("cuda"))


def build_text(
    name: str, capabilities: Sequence[str] = (), *, random: bool = False, progress: bool = True
) -> str:
    """Build an engine's plans for cards, by default for this machine's. Returns the last word.

    Raises EngineError: files missing, no library for a card, a build that failed; UsageError: no
    card was named and there is none here.
    """
    manifest = load_manifest(name)
    if manifest.plan is None or "tensorrt" not in manifest.backends:
        runs = ", ".join(manifest.backends)
        return f"{manifest.name}: nothing to build, it runs as it is ({runs})"
    wanted = [libraries.checked(cc) for cc in capabilities]
    here = _here()
    if not wanted:
        if here is None:
            known = ", ".join(f"{cc} ({card})" for cc, card in RTX.items())
            raise UsageError(
                "torch finds no CUDA card here, so say which one the plans are for",
                hint=f"demon engines build {name} --for 8.9    cards: {known}",
            )
        wanted = [here]
    found = {cc: libraries.library_for(cc) for cc in wanted}
    for cc, lib in found.items():
        if not lib.ahead and cc != here:
            raise EngineError(
                f"{lib} builds plans only for the card that it runs on, and {cc} is not here",
                hint=f"built ahead, on any machine: {', '.join(RTX)}",
            )
    if not random:
        require_files(manifest)
        require_whole(manifest)
    job = _Job(manifest, random, here is not None, _say, _bar if progress else _quiet)
    try:
        made = sum(job.card(cc, lib) for cc, lib in found.items())
    except KeyboardInterrupt:
        _say("stopped: what is built stays, and the same command goes on from there")
        raise
    job.tidy()
    cards = ", ".join(wanted)
    end = f"{made} built" if made else "nothing to build"
    return f"{manifest.name}: {end}, the plans for {cards} are in {store_folder(manifest)}"


def store_folder(manifest: Manifest) -> Path:
    """Where the plans of an engine lie."""
    return places.cache_dir() / "plans" / manifest.name


class _Job:
    """The plans of one engine."""

    def __init__(
        self,
        manifest: Manifest,
        random: bool,
        gpu: bool,
        tell: Tell,
        bar: Callable[[str], Callable[[float], None]],
    ) -> None:
        from demon_live.models.acestep.open import config_for_plans

        self.manifest, self.random, self.gpu = manifest, random, gpu
        self.tell, self.bar = tell, bar
        self.config = config_for_plans(manifest, random)

    def card(self, capability: str, library: Library) -> int:
        """Build what is missing for one card; how many plans that was."""
        made = 0
        for part in parts(self.manifest, self.config, capability):
            want = store.wanted(self.manifest, part, library, capability, self.random)
            try:
                stored = store.find(want)
            except EngineError:
                self._one(want, part, library, capability)
                made += 1
            else:
                size = stored.facts["bytes"] / 1e6
                self.tell(f"{part.name} for {capability}: there already, {size:.1f} MB")
        return made

    def _one(self, want: store.Wanted, part: Part, library: Library, capability: str) -> None:
        onnx = self._exported(part)
        target = want.plan
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".part")
        what = f"{part.name} for {capability}, {part.precision}"
        refit = part.matrices if self.gpu else ()
        self.tell(f"{what}: building with {library}" + (", weights exchangeable" if refit else ""))
        job = {
            "do": "build",
            "part": part.name,
            "onnx": str(onnx),
            "plan": str(draft),
            "library": [library.name, library.module, library.version],
            "shapes": part.shapes,
            "capability": capability,
            "refit": list(refit),
        }
        try:
            facts = worker.run(job, self.bar(what))
            stored = store.put(want, draft, facts)
        finally:
            draft.unlink(missing_ok=True)
        self.tell(f"{what}: {stored.facts['bytes'] / 1e6:.1f} MB in {facts['seconds']:.1f} s")
        for gone in store.room(want):
            self.tell(f"removed, to stay under {store.limit() / 1e9:.0f} GB or out of date: {gone}")

    def _graphs(self) -> Path:
        random = "-random" if self.random else ""
        return store_folder(self.manifest) / f"graphs-{self.manifest.digest[:12]}{random}"

    def _exported(self, part: Part) -> Path:
        """The graph of a part, exported unless it is there; whole or not there at all."""
        from demon_live.models.acestep.export import RECIPE

        folder = self._graphs() / f"{part.name}-{part.precision}-{RECIPE}"
        onnx = folder / f"{part.name}.onnx"
        if onnx.is_file():
            return onnx
        draft = folder.with_name(folder.name + ".part")
        shutil.rmtree(draft, ignore_errors=True)
        self.tell(f"{part.name}, {part.precision}: exporting the graph")
        began = time.monotonic()
        job = {
            "do": "export",
            "part": part.name,
            "manifest": str(self.manifest.path),
            "random": self.random,
            "precision": part.precision,
            "onnx": str(draft / onnx.name),
        }
        try:
            facts = worker.run(job)
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        took = time.monotonic() - began
        self.tell(f"{part.name}, {part.precision}: {facts['bytes'] / 1e6:.1f} MB in {took:.1f} s")
        return onnx

    def tidy(self) -> None:
        """All plans are made: the graphs are of no more use."""
        shutil.rmtree(self._graphs(), ignore_errors=True)


def rows(name: str) -> list[tuple[str, str]]:
    """(title, text) of each plan that is there; what to say if there is none."""
    manifest = load_manifest(name)
    if "tensorrt" not in manifest.backends:
        return []
    found = store.listed(manifest.name)
    if not found:
        return [("plans", f"none: demon engines build {name} --for 8.9 (or another card)")]
    return [("plans", f"{_told(manifest, s)}  {s.path}") for s in found]


def _told(manifest: Manifest, stored: store.Stored) -> str:
    facts = stored.facts
    capability = str(facts.get("capability"))
    card = f" ({RTX[capability]})" if capability in RTX else ""
    text = (
        f"{facts.get('part')} for {capability}{card}, {facts.get('precision')}, "
        f"{facts.get('bytes', 0) / 1e6:.1f} MB, {facts.get('library')} {facts.get('version')}"
    )
    if facts.get("refit"):
        text += ", takes LoRAs"
    if facts.get("random"):
        text += ", RANDOM WEIGHTS"
    if facts.get("manifest") != manifest.digest:
        text += ", OUT OF DATE"
    return text


def _say(text: str) -> None:
    # Over a bar that may stand there.
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{clear}{text}\n")
    sys.stderr.flush()


def _quiet(what: str) -> Callable[[float], None]:
    return lambda share: None


def _bar(what: str) -> Callable[[float], None]:
    """A line that fills on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return _quiet(what)
    began = time.monotonic()

    def show(share: float) -> None:
        filled = "#" * int(24 * share)
        text = f"{what}  [{filled:24}] {100 * share:3.0f} %  {time.monotonic() - began:.0f} s"
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()

    return show
