"""The command line: `demon live|render|check|replay|engines|devices|doctor|bench|help`.

Each command imports what it needs when it runs: `demon check` and `demon --help` load neither
torch nor an audio library. Exit codes: 0 ok, 1 a score or file is wrong, 2 usage, 3 engine or
device failure.

Threads: main thread only; `live` starts processes and leaves them through their context manager.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from demon_live import __version__
from demon_live.errors import DemonError, FileError, UsageError
from demon_live.ui import show
from demon_live.ui.arguments import COMMANDS, parser

if TYPE_CHECKING:
    from demon_live.perform.session import Session
    from demon_live.perform.view import Status

__all__ = ["main"]


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
        _say(show.error(fault), sys.stderr)
        return fault.exit_code
    except BrokenPipeError:
        # The reader of our output left (`| head`): nothing is wrong, and nothing more can be said.
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
        first is None or first.startswith("-") or first.endswith(".demon") or Path(first).is_dir()
    )
    return ["live", *words] if known else words


# --- playing ------------------------------------------------------------------------------------


def _scores(words: Sequence[str]) -> list[Path]:
    """The scores and folders to play. Raises FileError for what is not there."""
    if not words:
        from demon_live.places import shipped

        return [shipped("patterns") / "00_hello.demon"]
    from demon_live.ui.check import files, near_scores

    paths = [Path(w) for w in words]
    for path in paths:
        if not path.exists():
            raise FileError(f"there is no score {str(path)!r}", hint=near_scores(path))
        if path.is_dir():
            files([str(path)])
    return paths


def _live(args: argparse.Namespace) -> int:
    return _play(args, _scores(args.paths), record=args.record, python=args.python)


def _replay(args: argparse.Namespace) -> int:
    from demon_live.perform.journal import find_set, load
    from demon_live.places import sets_dir

    path = find_set(args.set, [sets_dir()])
    if args.render:
        return _render_to(args, path, args.render)
    recording = load(path)
    if recording.torn:
        lines = f"{recording.torn} damaged lines at its end are left out"
        _say([("warning", f"{path}: {lines}\n")], sys.stderr)
    return _play(args, [], name=path, replay=recording, speed=args.speed)


def _play(
    args: argparse.Namespace, paths: list[Path], *, name: Path | None = None, **more: Any
) -> int:
    """Start the instrument and give it a prompt, or lines where there is no terminal for one."""
    from demon_live.models.manifest import load_manifest

    backends = ("auto", *load_manifest(args.engine).backends)
    if args.backend not in backends:
        hint = f"it has: {', '.join(backends)}"
        raise UsageError(f"engine {args.engine} has no backend {args.backend!r}", hint=hint)
    from demon_live.perform.live import Live

    _log_to_file()
    with _terminated() as stop:
        live = Live(
            paths,
            engine=args.engine,
            backend=args.backend,
            device=args.device,
            audio=args.audio,
            **more,
        )
        with live:
            banner = _banner(live.session.status(), [name] if name else paths)
            if _has_terminal() and not args.no_tty:
                from demon_live.ui.repl import Repl

                Repl(live.session, banner=banner, stop=stop).run()
                return 0
            _say(banner)
            _lines(live.session, args.seconds, stop)
    return 0


def _lines(session: Session, seconds: float | None, stop: threading.Event) -> None:
    """Play without a prompt: for pipes, services, and terminals that can do no more."""
    from demon_live.ui import plain

    by_hand = sys.stdin.isatty()
    if by_hand:
        # On a terminal Ctrl-C is a slip of the hand: it must not cost the sound.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = sys.stdin if plain.readable(sys.stdin) else None
    prompt = "demon> " if by_hand else ""
    plain.play_plain(session, lines, sys.stdout, seconds=seconds, stop=stop, prompt=prompt)


def _log_to_file() -> None:
    """What goes wrong inside is written down, not printed across the prompt."""
    import logging
    from logging.handlers import RotatingFileHandler

    from demon_live.places import state_dir

    with contextlib.suppress(OSError):
        path = state_dir() / "demon.log"
        handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=2, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("demon_live").addHandler(handler)


def _has_terminal() -> bool:
    """Whether a prompt can be drawn: a terminal at both ends that knows how to move its cursor."""
    capable = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return capable and sys.stdin.isatty() and sys.stdout.isatty()


def _banner(status: Status, paths: list[Path]) -> show.Pieces:
    names = ", ".join(_short(p) for p in paths)
    return [
        ("heading", f"demon {__version__}"),
        ("", f" · engine {status.engine} · {status.device}\n"),
        ("", f"playing {names}"),
        ("hint", "   (? for help)\n"),
    ]


def _short(path: Path) -> str:
    """The path from here, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


@contextlib.contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGHUP set, so that sets and files are closed on the way out."""
    stop = threading.Event()
    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and threading.current_thread() is threading.main_thread():
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _render(args: argparse.Namespace) -> int:
    return _render_to(
        args,
        _score_or_set(args.score),
        args.out,
        cycles=args.cycles,
        seconds=args.seconds,
        seed=args.seed,
        stems=args.stems,
    )


def _render_to(args: argparse.Namespace, path: Path, out: str, **more: Any) -> int:
    from demon_live.core import RATES
    from demon_live.perform.render import render

    begun = time.monotonic()
    with _progress(out) as progress:
        done = render(
            path, Path(out), engine=args.engine, backend=args.backend, progress=progress, **more
        )
    for warning in done.warnings:
        _say([("warning", f"{warning}\n")], sys.stderr)
    length, took = len(done.audio) / RATES.sample_rate, time.monotonic() - begun
    stems = f" and {len(done.stems)} stems" if done.stems else ""
    _say([("", f"{out}{stems}: {length:.1f} s, rendered in {took:.1f} s\n")])
    return 0


def _score_or_set(word: str) -> Path:
    """A path as given; else a set by its name."""
    from demon_live.perform.journal import find_set
    from demon_live.places import sets_dir

    path = Path(word)
    if path.exists() or path.suffix == ".demon":
        return path
    return find_set(word, [sets_dir()])


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[float], None] | None]:
    """A line that counts up on a terminal, and nothing elsewhere."""
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
    from demon_live.ui.check import check

    return check(args.paths, canonical=args.format, say=_say)


def _engines(args: argparse.Namespace) -> int:
    from demon_live.models import listing, manifest

    if args.action == "list":
        _say([("", f"{listing.list_text()}\n")])
        return 0
    if args.name is None:
        raise UsageError(
            f"demon engines {args.action} needs the name of an engine",
            hint="see: demon engines list",
        )
    text = getattr(listing, f"{args.action}_text")(args.name)
    _say([("", f"{text}\n")])
    if args.action != "verify":
        return 0
    findings = manifest.verify(manifest.load_manifest(args.name))
    return 0 if all(f.state == "ok" for f in findings) else 3


def _devices(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from demon_live.audio.devices import list_devices, table

    found = list_devices()
    text = json.dumps([asdict(d) for d in found], indent=2) if args.json else table(found)
    _say([("", f"{text}\n")])
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from demon_live import doctor

    checks = doctor.examine()
    _say(doctor.report(checks, args.json))
    return 3 if any(c.verdict == "fail" for c in checks) else 0


def _bench(args: argparse.Namespace) -> int:
    from demon_live import bench

    options = bench.Options(
        args.engine, args.backend, args.depth, args.seconds, args.random_weights
    )
    _say(bench.report(bench.measure(args.what, options), args.json))
    return 0


def _help(args: argparse.Namespace) -> int:
    from demon_live.ui import guide

    if args.all:
        from demon_live.lang import reference

        _say([("", reference())])
    elif args.name is None:
        parser().print_help()
        _say([("", "\nthe language, at the prompt and in scores:\n"), *guide.overview()])
    else:
        _say(guide.about(args.name.strip("?")))
    return 0


def _say(pieces: show.Pieces, stream: IO[str] | None = None) -> None:
    stream = stream or sys.stdout
    stream.write(show.ansi(pieces, show.wants_colour(stream)))
    stream.flush()


_RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "live": _live,
    "render": _render,
    "check": _check,
    "replay": _replay,
    "engines": _engines,
    "devices": _devices,
    "doctor": _doctor,
    "bench": _bench,
    "help": _help,
}
