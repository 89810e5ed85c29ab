"""The commands of `demon`; arguments.py has their options.

Each command imports what it needs when it runs: `demon check` and `demon --help` load neither
torch nor an audio library. Exit codes: 0 ok, 1 a score or file is wrong, 2 usage, 3 engine or
device failure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from demon_live.cli import live as play
from demon_live.cli.arguments import COMMANDS, completion, parser
from demon_live.cli.live import say
from demon_live.errors import DemonError, FileError, UsageError
from demon_live.ui import show


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = False
    try:
        args = parser().parse_args(_with_command(words))
        verbose = args.verbose
        return _RUN[args.command](args)
    except DemonError as fault:
        if verbose:
            raise
        sys.stdout.flush()
        say(show.error(fault), sys.stderr)
        return fault.exit_code
    except BrokenPipeError:
        # The reader of our output left (`| head`): no error, and nobody to report to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _with_command(words: list[str]) -> list[str]:
    """Bare `demon`, `demon x.demon` and `demon --record n` mean `demon live ...`."""
    first = next((w for w in words if w not in ("-v", "--verbose")), None)
    if first in COMMANDS or first in ("-h", "--help", "--version"):
        return words
    known = (
        first is None or first.startswith("-") or first.endswith(".demon") or os.path.isdir(first)
    )
    return ["live", *words] if known else words


# --- playing ------------------------------------------------------------------------------------


def _replay(args: argparse.Namespace) -> int:
    if not args.render:
        return play.replay(args)
    from demon_live.paths import sets_dir
    from demon_live.sets.journal import find_set

    path = find_set(args.set, [sets_dir()])
    return _render_to(args, path, args.render, start=args.start, trust=args.trust)


def _set(args: argparse.Namespace) -> int:
    from demon_live.replay.verify import run

    return run(args, lambda text: say([("", text)]))


def _send(args: argparse.Namespace) -> int:
    from demon_live.cli.send import send

    return send(args)


def _render(args: argparse.Namespace) -> int:
    if args.ray is not None or args.seeds or len(args.scores) > 1:
        if args.input:
            raise UsageError("--input belongs to one score", hint="render them one by one")
        return _render_many(args)
    return _render_to(
        args,
        _score_or_set(args.scores[0]),
        args.out,
        cycles=args.cycles,
        seconds=args.seconds,
        start=args.start,
        seed=args.seed,
        stems=args.stems,
        trust=args.trust,
        input=args.input,
    )


def _render_many(args: argparse.Namespace) -> int:
    """Several sets, or seeds, into a folder: one after the other, or on a Ray."""
    from demon_live.remote.ray import Ray
    from demon_live.replay.farm import Farm, How, jobs

    if args.seeds and args.seed is not None:
        raise UsageError("give --seed or --seeds, not both")
    if Path(args.out).suffix in (".wav", ".flac"):
        raise UsageError(f"{args.out} is one file, and these are several", hint="-o FOLDER")
    how = How(args.engine, args.backend, args.cycles, args.seconds, args.start, args.stems)
    seeds = args.seeds or (args.seed,)
    every = jobs([_score_or_set(word) for word in args.scores], how, seeds, args.trust)
    farm = Farm(Path(args.out), lambda text: say([("", f"{text}\n")]))
    begun = time.monotonic()
    if args.ray is None or not farm.missing(every):
        farm.run(every)
    else:
        with Ray(args.ray or None, args.workers) as ray:
            farm.run(every, ray)
    rendered = len(every) - len(farm.failed)
    say([("", f"{rendered} of {len(every)} in {args.out}, {time.monotonic() - begun:.0f} s\n")])
    return 1 if farm.failed else 0


def _render_to(args: argparse.Namespace, path: Path, out: str, **more: Any) -> int:
    from demon_live.core import RATES
    from demon_live.replay.render import render

    begun = time.monotonic()
    with _progress(out) as progress:
        done = render(
            path,
            Path(out),
            engine=args.engine,
            backend=args.backend,
            progress=progress,
            tell=lambda warning: say([("warning", f"{warning}\n")], sys.stderr),
            **more,
        )
    length, took = len(done.audio) / RATES.sample_rate, time.monotonic() - begun
    stems = f" and {len(done.stems)} stem{'s'[len(done.stems) == 1 :]}" if done.stems else ""
    say([("", f"{out}{stems}: {length:.1f} s, rendered in {took:.1f} s\n")])
    return 0


def _score_or_set(word: str) -> Path:
    """A path, or else a set by its name."""
    from demon_live.paths import sets_dir
    from demon_live.sets.journal import find_set

    path = Path(word)
    if os.path.isfile(path) or path.suffix == ".demon":
        return path
    try:
        return find_set(word, [sets_dir()])
    except FileError as error:
        if os.path.isdir(path):
            error.hint = f"{word} is a folder: name a score in it, or record a set: record {word}"
        raise


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[float], None] | None]:
    """A line that counts up on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = [-1]

    def progress(part: float) -> None:
        if int(part * 100) != shown[0]:
            shown[0] = int(part * 100)
            sys.stderr.write(f"\r{name} {shown[0]:3d} %")
            sys.stderr.flush()

    try:
        yield progress
    finally:
        sys.stderr.write("\r\x1b[K")


# --- asking -------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> int:
    from demon_live.cli.check import check

    return check(args.paths, canonical=args.format, python=args.python, say=say)


def _lsp(args: argparse.Namespace) -> int:
    from demon_live.editors.language_server import serve

    serve(args.name, args.by)
    return 0


def _mcp(args: argparse.Namespace) -> int:
    from demon_live.editors.agents import serve

    serve(args.name, args.by)
    return 0


def _engines(args: argparse.Namespace) -> int:
    from demon_live.models import listing, manifest

    if args.action == "list":
        say([("", f"{listing.list_text()}\n")])
        return 0
    if args.name is None:
        raise UsageError(
            f"demon engines {args.action} needs the name of an engine",
            hint="see: demon engines list",
        )
    if args.capability and args.action != "build":
        raise UsageError(f"--for belongs to demon engines build, not to {args.action}")
    if args.folder is not None and args.action != "fetch":
        raise UsageError(f"--from belongs to demon engines fetch, not to {args.action}")
    if args.action == "build":
        text = _build_plans(args)
    elif args.action == "fetch":
        text = listing.fetch_text(args.name, None if args.folder is None else Path(args.folder))
    elif args.action == "info":
        text = _engine_info(args.name)
    else:
        text = getattr(listing, f"{args.action}_text")(args.name)
    say([("", f"{text}\n")])
    if args.action != "verify":
        return 0
    findings = manifest.verify(manifest.load_manifest(args.name))
    return 0 if all(f.state == "ok" for f in findings) else 3


def _build_plans(args: argparse.Namespace) -> str:
    from demon_live.models.acestep.tensorrt.command import build_text

    cards = [cc for word in args.capability or () for cc in word.split(",")]
    return build_text(args.name, cards, random=args.random_weights)


def _engine_info(name: str) -> str:
    from demon_live.models import listing
    from demon_live.models.acestep.tensorrt.command import rows

    lines = [f"{title:9} {text}" for title, text in rows(name)]
    return "\n".join([listing.info_text(name), *lines])


def _devices(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from demon_live.audio.devices import KINDS, list_devices, table

    found = {kind: list_devices(kind) for kind in KINDS}
    rows = [{**asdict(d), "kind": kind} for kind in KINDS for d in found[kind]]
    text = json.dumps(rows, indent=2) if args.json else table(found["output"], found["input"])
    say([("", f"{text}\n")])
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from demon_live.cli import doctor

    checks = doctor.examine()
    say(doctor.report(checks, args.json))
    return 3 if any(c.verdict == "fail" for c in checks) else 0


def _bench(args: argparse.Namespace) -> int:
    from demon_live import bench

    options = bench.Options(
        args.engine,
        args.backend,
        args.depth,
        args.seconds,
        args.random_weights,
        tuple(args.scores),
        args.cycles,
    )
    say(bench.report(bench.measure(args.what, options), args.json))
    return 0


def _sounds(args: argparse.Namespace) -> int:
    from demon_live.audio.files import sounds

    for name, text in sounds(Path(args.folder), args.tempo):
        say([("word", f"{name:<32} "), ("", f"{text}\n")])
    return 0


def _new(args: argparse.Namespace) -> int:
    from demon_live.cli.starter import new

    say(new(Path(args.folder)))
    return 0


def _completion(args: argparse.Namespace) -> int:
    sys.stdout.write(completion(args.shell))
    return 0


def _help(args: argparse.Namespace) -> int:
    from demon_live.ui import guide

    if args.all:
        from demon_live.lang import reference

        say([("", reference())])
    elif args.name is None:
        parser().print_help()
        say([("", "\nthe language, at the prompt and in scores:\n"), *guide.overview()])
    else:
        say(guide.about(args.name.strip("?")))
    return 0


_RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "live": play.live,
    "tour": play.tour,
    "attach": play.attach,
    "send": _send,
    "stop": play.stop,
    "render": _render,
    "check": _check,
    "lsp": _lsp,
    "mcp": _mcp,
    "replay": _replay,
    "set": _set,
    "engines": _engines,
    "devices": _devices,
    "doctor": _doctor,
    "bench": _bench,
    "new": _new,
    "sounds": _sounds,
    "completion": _completion,
    "help": _help,
}
