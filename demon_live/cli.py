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
from typing import IO, NoReturn

from demon_live import __version__
from demon_live.errors import DemonError, FileError, UsageError
from demon_live.ui import show

__all__ = ["main", "parser"]

_EPILOG = """\
examples:
  demon                                play patterns/00_hello.demon and open the prompt
  demon live set.demon --record friday
  demon render set.demon -o set.wav --cycles 64
  demon check patterns
  demon help blend

exit codes: 0 ok, 1 a score or file is wrong, 2 usage, 3 engine or device failure
"""
_COMMANDS = ("live", "render", "check", "replay", "engines", "devices", "doctor", "bench", "help")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see: {self.prog} --help")


def _seconds(word: str) -> float:
    value = float(word)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def _count(word: str) -> int:
    value = int(word)
    if not 0 < value <= 1_000_000:
        raise ValueError
    return value


# argparse names the type in its messages.
_seconds.__name__ = "number of seconds"
_count.__name__ = "count"


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(
        prog="demon",
        description="Live-code a diffusion model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"demon {__version__}")
    top.add_argument("-v", "--verbose", action="store_true", help="tracebacks with errors")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    common = _Parser(add_help=False)
    common.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="tracebacks with errors",
    )
    engine = _Parser(add_help=False, parents=[common])
    engine.add_argument(
        "--engine",
        default=os.environ.get("DEMON_ENGINE", "imp"),
        metavar="E",
        help="engine that plays (default: imp, or DEMON_ENGINE)",
    )
    engine.add_argument(
        "--backend",
        default=os.environ.get("DEMON_BACKEND", "auto"),
        metavar="B",
        help="auto, onnx, eager, ... (default: auto, or DEMON_BACKEND)",
    )
    _add_playing(commands, engine)
    _add_asking(commands, common, engine)
    return top


def _add_playing(commands: argparse._SubParsersAction[_Parser], engine: _Parser) -> None:
    live = commands.add_parser("live", parents=[engine], help="play scores and open the prompt")
    live.add_argument(
        "paths", nargs="*", metavar="SCORE|DIR", help="default: the shipped 00_hello.demon"
    )
    _add_sound(live)
    live.add_argument("--record", metavar="NAME", help="record the set from the start")
    render = commands.add_parser(
        "render", parents=[engine], help="a score or set into a WAV or FLAC, off line"
    )
    render.add_argument("score", metavar="SCORE|SET")
    render.add_argument("-o", "--out", required=True, metavar="OUT.wav")
    length = render.add_mutually_exclusive_group()
    length.add_argument("--cycles", type=_count, metavar="N")
    length.add_argument("--seconds", type=_seconds, metavar="S")
    render.add_argument("--seed", type=int, metavar="N")
    render.add_argument("--stems", action="store_true", help="one more file for each deck")
    replay = commands.add_parser("replay", parents=[engine], help="play a recorded set again")
    replay.add_argument("set", metavar="SET", help="a name, or the path of a *.set.jsonl")
    _add_sound(replay)
    replay.add_argument("--render", metavar="OUT.wav", help="into a file instead, off line")
    replay.add_argument("--speed", type=float, default=1.0, metavar="X")


def _add_sound(command: _Parser) -> None:
    command.add_argument(
        "--device",
        default=os.environ.get("DEMON_DEVICE"),
        metavar="D",
        help="number or part of the name of an audio device (or DEMON_DEVICE)",
    )
    command.add_argument(
        "--audio",
        default=os.environ.get("DEMON_AUDIO", "device"),
        metavar="device|null|file:PATH",
        help="where the sound goes (or DEMON_AUDIO)",
    )
    command.add_argument(
        "--no-tty", action="store_true", help="no prompt: statements from a pipe, events as lines"
    )
    command.add_argument(
        "--seconds", type=_seconds, metavar="S", help="stop after S seconds (with --no-tty)"
    )


def _add_asking(
    commands: argparse._SubParsersAction[_Parser], common: _Parser, engine: _Parser
) -> None:
    check = commands.add_parser(
        "check", parents=[common], help="say what is wrong with scores, and where"
    )
    check.add_argument("paths", nargs="+", metavar="SCORE|DIR")
    engines = commands.add_parser(
        "engines", parents=[common], help="what can play, and what is missing"
    )
    engines.add_argument(
        "action", nargs="?", default="list", choices=("list", "info", "fetch", "build", "verify")
    )
    engines.add_argument("name", nargs="?", metavar="E")
    devices = commands.add_parser("devices", parents=[common], help="audio devices")
    devices.add_argument("--json", action="store_true")
    doctor = commands.add_parser(
        "doctor", parents=[common], help="check this machine, with remedies"
    )
    doctor.add_argument("--json", action="store_true")
    bench = commands.add_parser("bench", parents=[engine], help="measure")
    bench.add_argument(
        "what", nargs="?", default="all", choices=("ring", "decode", "lang", "latency", "all")
    )
    bench.add_argument("--depth", type=_count, default=4, metavar="D")
    bench.add_argument(
        "--seconds", type=_seconds, default=16.0, metavar="S", help="length of the loop"
    )
    bench.add_argument(
        "--random-weights", action="store_true", help="where the weights are not there"
    )
    bench.add_argument("--json", action="store_true")
    help_ = commands.add_parser("help", parents=[common], help="about a word of the language")
    help_.add_argument("name", nargs="?", metavar="NAME")


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
    if first in _COMMANDS or first in ("-h", "--help", "--version"):
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
    paths = [Path(w) for w in words]
    for path in paths:
        if not path.exists():
            raise FileError(f"there is no score {str(path)!r}", hint=_near_scores(path))
    return paths


def _near_scores(path: Path) -> str | None:
    from demon_live.errors import nearest

    folder = path.parent
    near = (
        nearest(path.name, [p.name for p in folder.glob("*.demon")], 3) if folder.is_dir() else []
    )
    return f"did you mean {' or '.join(str(folder / n) for n in near)}?" if near else None


def _live(args: argparse.Namespace) -> int:
    from demon_live.perform.live import Live

    paths = _scores(args.paths)
    with (
        _terminated() as stop,
        Live(
            paths,
            engine=args.engine,
            device=args.device,
            audio=args.audio,
            record=args.record,
            backend=args.backend,
        ) as live,
    ):
        _front(args, live.session, stop)
    return 0


def _front(args: argparse.Namespace, session: object, stop: threading.Event) -> None:
    """The prompt where there is a terminal for it, lines otherwise."""
    from demon_live.ui import plain

    able = (
        sys.stdin.isatty()
        and sys.stdout.isatty()
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    )
    if able and not args.no_tty:
        from demon_live.ui.repl import Repl

        Repl(session).run()  # type: ignore[arg-type]
        return
    lines = sys.stdin if plain.readable(sys.stdin) else None
    plain.play_plain(session, lines, sys.stdout, seconds=args.seconds, stop=stop)  # type: ignore[arg-type]


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
    from demon_live.perform.render import render

    begun = time.monotonic()
    with _progress(args.out) as progress:
        done = render(
            _score_or_set(args.score),
            Path(args.out),
            cycles=args.cycles,
            seconds=args.seconds,
            engine=args.engine,
            backend=args.backend,
            seed=args.seed,
            stems=args.stems,
            progress=progress,
        )
    for warning in done.warnings:
        _say([("warning", f"{warning}\n")], sys.stderr)
    length, took = len(done.audio) / 48000, time.monotonic() - begun
    stems = f" and {len(done.stems)} stems" if done.stems else ""
    _say([("", f"{args.out}{stems}: {length:.1f} s, rendered in {took:.1f} s\n")])
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


def _replay(args: argparse.Namespace) -> int:
    if args.render:
        args.score, args.out, args.cycles, args.seed, args.stems = (
            args.set,
            args.render,
            None,
            None,
            False,
        )
        return _render(args)
    raise NotImplementedError


# --- asking -------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> int:
    from demon_live.lang import compile_source

    bad = 0
    for path in _files(args.paths):
        try:
            program = compile_source(_text(path), name=str(path))
        except DemonError as fault:
            bad += 1
            _say(show.error(fault), sys.stderr)
            continue
        for warning in program.warnings:
            _say([("warning", f"{warning}\n")], sys.stderr)
        decks = ", ".join(f"{n} ({len(lanes)} controls)" for n, lanes in program.decks.items())
        _say([("reply", "ok  "), ("", f"{path}  {decks}\n")])
    return 1 if bad else 0


def _files(words: Sequence[str]) -> list[Path]:
    """The scores named, and those in the folders named."""
    found: list[Path] = []
    for word in words:
        path = Path(word)
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(path.glob("*.demon"))
        if not inside:
            raise FileError(f"{path} is a folder without scores", hint="scores are called *.demon")
        found += inside
    return found


def _text(path: Path) -> str:
    """A score's text. Raises FileError."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as fault:
        raise FileError(
            f"{path} is not text (byte {fault.start})", hint="save it as UTF-8"
        ) from None
    except OSError as fault:
        raise FileError(
            f"{path}: {(fault.strerror or str(fault)).lower()}", hint=_near_scores(path)
        ) from None


def _engines(args: argparse.Namespace) -> int:
    from demon_live.models import manifest

    if args.action == "list":
        _say([("", f"{manifest.list_text()}\n")])
        return 0
    if args.name is None:
        raise UsageError(
            f"demon engines {args.action} needs the name of an engine",
            hint="see: demon engines list",
        )
    text = getattr(manifest, f"{args.action}_text")(args.name)
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

    if args.name is None:
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
