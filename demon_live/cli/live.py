"""`demon live|tour|replay|attach|stop`: start a session, return to it, end it.

on a terminal   the session in a process of its own (runtime.session_process), the prompt here
otherwise       the session in this process: statements from a pipe, events as lines
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from demon_live._version import __version__
from demon_live.errors import DemonError, EngineError, FileError, UsageError
from demon_live.ui import show

if TYPE_CHECKING:
    from demon_live.control.remote_session import RemoteSession
    from demon_live.runtime.session_process import Start
    from demon_live.session.session_api import SessionApi
    from demon_live.session.status import Status
    from demon_live.ui.controller import Leaving

#: Seconds that a session may take to close its files; a log that was written so recently is of one
#: that has just died.
_ENDING, _JUST = 15.0, 30.0
_ADDRESS = re.compile(r"(\S+:)?\d{1,5}")


def say(pieces: show.Pieces, stream: IO[str] | None = None) -> None:
    """Write pieces, in colour where that is wanted."""
    stream = stream or sys.stdout
    stream.write(show.ansi(pieces, show.wants_colour(stream)))
    stream.flush()


# --- commands -----------------------------------------------------------------------------------


def live(args: argparse.Namespace) -> int:
    """`demon live`."""
    from demon_live.sets.recorder import engine_for

    if args.resume is not None:
        return _resume(args)
    args.engine, args.backend = engine_for(None, args.engine, args.backend)
    # `--osc-to HOST:9000 set.demon`: what is no address is a score.
    args.paths += [word for word in args.osc_to if not _ADDRESS.fullmatch(word)]
    args.osc_to = [word for word in args.osc_to if _ADDRESS.fullmatch(word)]
    if args.web is not None and not args.web.isdigit():
        # `--web set.demon`: the port may be left out, and then this is a score.
        args.paths.insert(0, args.web)
        args.web = "0"
    if args.visuals and not args.visuals.endswith(".js"):
        args.paths.insert(0, args.visuals)
        args.visuals = ""
    paths = _scores(args.paths, args.python)
    return _play(args, paths, {"paths": paths, "record": args.record, "python": args.python})


def _resume(args: argparse.Namespace) -> int:
    """Go on with a session that died, from its next bar."""
    from demon_live.sets.recorder import engine_for
    from demon_live.sets.session_log import find_interrupted

    if args.paths:
        raise UsageError(
            "--resume plays what played: it takes no scores", hint="load one when it plays"
        )
    past = find_interrupted(args.resume)
    try:
        # Scores and sources are named from where the session was started.
        os.chdir(past.folder)
    except OSError as error:
        raise FileError(
            f"{past.folder} cannot be entered: {error.strerror}",
            hint="the session was started there: bring the folder back",
        ) from None
    args.engine, args.backend = engine_for(past.recording, args.engine, args.backend)
    more = {"paths": (), "resume": past, "record": args.record, "python": args.python}
    return _play(args, [path for path in past.scores if path.is_file()], more)


def replay(args: argparse.Namespace) -> int:
    """`demon replay` without `--render`."""
    from demon_live.paths import sets_dir
    from demon_live.runtime.seek import dry_run
    from demon_live.sets.journal import find_set, load
    from demon_live.sets.recorder import engine_for

    path = find_set(args.set, [sets_dir()])
    recording, start = load(path), args.start
    args.engine, args.backend = engine_for(recording, args.engine, args.backend)
    if start is None and recording.begun:
        # From where its sound begins.
        last = list(dry_run(recording, trust=args.trust))[-1]
        start = last.state.tempo.cycle_at(recording.begun)
    what = {"replay": recording, "speed": args.speed, "start": start or 0, "trust": args.trust}
    return _play(args, [path], what)


def tour(args: argparse.Namespace) -> int:
    """`demon tour`: the prompt of `demon live`, with the tour begun."""
    if not _has_terminal():
        raise UsageError("the tour needs a terminal", hint="the scores that it plays: demon live")
    shown = _scores(())
    what: dict[str, Any] = {"paths": shown, "record": None, "python": False}
    return _play(args, shown, what, first="tour")


def attach(args: argparse.Namespace) -> int:
    """`demon attach`: a prompt for a session that plays."""
    if not _has_terminal():
        raise UsageError("attach needs a terminal", hint="from scripts: demon send -e 'TEXT'")
    with _Signals() as signals:
        return _attach(args, args.name, signals)


def stop(args: argparse.Namespace) -> int:
    """`demon stop`: end a session, or `--all`."""
    from demon_live.control.client import choose
    from demon_live.control.registry import Info, find, sessions
    from demon_live.runtime.session_process import terminate

    name = None if args.all else choose(args.name)
    for info in sessions() if name is None else (find(name) or Info(name, 0),):
        if not terminate(info):
            raise DemonError(
                f"the session {info.name!r} (process {info.pid}) does not end",
                hint=f"end it by force: kill -9 {info.pid}",
            )
        say([("", f"{info.name} has ended\n")])
    return 0


# --- starting -----------------------------------------------------------------------------------


def _scores(words: Sequence[str], python: bool = False) -> list[Path]:
    """The scores and folders to play. Raises FileError for a missing one.

    python: pattern files in Python are scores, too.
    """
    if not words:
        from demon_live.paths import shipped

        return [shipped("patterns") / "00_hello.demon"]
    from demon_live.cli.check import files
    from demon_live.session.scores import near_scores

    paths = [Path(w) for w in words]
    for path in paths:
        # Of a name that no file can have a Path raises.
        if not os.path.exists(path):
            raise FileError(f"there is no score {str(path)!r}", hint=near_scores(path))
        if path.is_dir():
            files([str(path)], python)
    return paths


def _play(
    args: argparse.Namespace, shown: list[Path], what: dict[str, Any], *, first: str = ""
) -> int:
    """Start the instrument and give it a prompt, or lines where there is no terminal.

    Args:
        args: the command line.
        shown: the scores that the banner names.
        what: arguments of `Live` for this command.
        first: a statement for the prompt to evaluate when it opens.
    """
    from demon_live.control.client import author
    from demon_live.control.registry import available, check_name
    from demon_live.runtime.session_process import Start

    given = ("engine", "backend", "device", "audio", "input", "gpus", "osc_to")
    options = {name: getattr(args, name) for name in given if hasattr(args, name)}
    options |= {"lookahead": args.ahead / 1000, **what}
    if args.name is not None:
        check_name(args.name)
    _check_doors(args)
    scores = tuple(_short(p) for p in shown)
    start = Start(args.name, options, scores, args.osc, _port(args), _sketch(args), author(args.by))
    with _Signals() as signals:
        if args.no_tty or not _has_terminal():
            return _play_here(args, start, signals, shown)
        if available():
            return _play_beside(args, start, signals, shown, first)
        return _play_here(args, start, signals, shown, prompt=True, first=first)


def _port(args: argparse.Namespace) -> int | None:
    """Port of the web view; 0: the usual one. Raises UsageError."""
    if args.web is None:
        return None if args.visuals is None else 0
    if not args.web.isdigit() or not int(args.web) < 65536:
        raise UsageError(f"{args.web[:40]!r} is no port", hint="--web, or --web 8809")
    return int(args.web)


def _sketch(args: argparse.Namespace) -> str | None:
    """The script of the visuals. Raises FileError for a missing one."""
    name: str | None = args.visuals
    if name and not os.path.isfile(name):
        raise FileError(f"there is no sketch {name[:80]!r}", hint="--visuals alone has one")
    return os.path.abspath(name) if name else name


def _check_doors(args: argparse.Namespace) -> None:
    """What the doors need is looked for before anything is opened. Raises UsageError."""
    if args.osc is not None or args.osc_to:
        from demon_live.control import osc

        osc.require()
    if args.web is not None or args.visuals is not None:
        from demon_live.control import web

        web.require()


def _check_backend(args: argparse.Namespace) -> None:
    from demon_live.models.manifest import load_manifest
    from demon_live.runtime.options import parse_remote

    elsewhere = parse_remote(args.engine)
    name = args.engine if elsewhere is None else elsewhere.engine
    backends = ("auto", *load_manifest(name).backends)
    if args.backend not in backends:
        hint = f"it has: {', '.join(backends)}"
        raise UsageError(f"engine {args.engine} has no backend {args.backend!r}", hint=hint)


def _play_beside(
    args: argparse.Namespace, start: Start, signals: _Signals, shown: list[Path], first: str
) -> int:
    """The session in a process of its own; this one is its prompt."""
    from demon_live.control.registry import DEFAULT, find, taken
    from demon_live.runtime.session_process import spawn

    name = start.name or DEFAULT
    if find(name) is not None:
        if _wants_to_attach(name):
            return _attach(args, name, signals, first)
        raise taken(name)
    running = spawn(start)
    try:
        _check_backend(args)
        threading.Thread(target=_import_the_prompt, daemon=True).start()
        running.ready()
    except BaseException:
        running.stop()
        raise
    return _prompt(args, name, signals, shown, first=first)


def _import_the_prompt() -> None:
    """Import the prompt at the lowest priority, while the instrument opens."""
    with contextlib.suppress(OSError, AttributeError):
        # On Linux a thread has a niceness of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    import demon_live.control.client
    import demon_live.ui.run  # noqa: F401


def _wants_to_attach(name: str) -> bool:
    say([("", f"a session called {name!r} plays already. Return to it? [Y/n] ")])
    try:
        return input().strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def _attach(args: argparse.Namespace, name: str | None, signals: _Signals, first: str = "") -> int:
    from demon_live.control.client import choose
    from demon_live.control.registry import find

    name = choose(name)
    info = find(name)
    shown = [Path(s) for s in info.scores] if info else []
    return _prompt(args, name, signals, shown, recent=12, first=first)


def _prompt(
    args: argparse.Namespace,
    name: str,
    signals: _Signals,
    shown: list[Path],
    *,
    recent: int | None = None,
    first: str = "",
) -> int:
    """A prompt until the performer leaves. `quit` ends the session; a lost terminal does not."""
    from demon_live.control.remote_session import RemoteSession
    from demon_live.runtime.session_process import log_to_file

    session = RemoteSession(name, by=args.by, recent=recent, ended=signals.stop.set)
    log_to_file("prompt.log")
    _show(args, session, signals, shown, first, "ask" if recent is None else "detach")
    return _leave(session, signals)


def _show(
    args: argparse.Namespace,
    session: SessionApi,
    signals: _Signals,
    shown: list[Path],
    first: str,
    leaving: Leaving = "end",
) -> None:
    from demon_live.ui.run import front

    front(
        session,
        banner=_banner(session, shown),
        stop=signals.stop,
        stage=args.stage,
        theme=args.theme,
        first=first,
        leaving=leaving,
        mouse=not args.no_mouse,
    )


def _leave(session: RemoteSession, signals: _Signals) -> int:
    """End the session, or leave it alone, after the prompt."""
    if session.lost is not None:
        return _say_gone(session, session.lost)
    if session.detached or signals.hung_up or _terminal_is_gone():
        session.close()
        if session.detached:
            flag = f" --name {session.info.name}" if session.info.name != "default" else ""
            say([("hint", f"it plays on: demon attach{flag} · demon stop{flag}\n")])
        return 0
    with _ignoring_interrupts():
        session.quit()
    return 0


def _say_gone(session: RemoteSession, lost: DemonError) -> int:
    """Tell in a sentence why the session is gone: it ended, or it died (an error)."""
    from demon_live.control.registry import ended
    from demon_live.sets.session_log import recently

    session.close()
    if not session.info.pid or not ended(session.info.name, _ENDING):
        raise lost
    if recently(within=_JUST):
        raise EngineError("the session has died", hint="demon live --resume goes on with it")
    say([("hint", "the session has ended: demon stop, or another prompt, ended it\n")])
    return 0


def _play_here(
    args: argparse.Namespace,
    start: Start,
    signals: _Signals,
    shown: list[Path],
    *,
    prompt: bool = False,
    first: str = "",
) -> int:
    """The session in this process: for pipes and services, and where no other can be started."""
    _check_backend(args)
    from demon_live.runtime.live import Live
    from demon_live.runtime.session_process import doors, log_to_file

    log_to_file()
    with Live(**start.live) as instrument, doors(instrument, start, signals.stop):
        if prompt:
            _show(args, instrument.session, signals, shown, first)
        else:
            say(_banner(instrument.session, shown))
            _lines(instrument.session, args.seconds, signals.stop)
    return 0


def _lines(session: SessionApi, seconds: float | None, stop: threading.Event) -> None:
    """Play without a prompt: for pipes, services, and simple terminals."""
    from demon_live.ui import plain

    by_hand = sys.stdin.isatty()
    if by_hand:
        # On a terminal Ctrl-C is a slip of the hand: it must not cost the sound.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = sys.stdin if plain.readable(sys.stdin) else None
    mark = "demon> " if by_hand else ""
    plain.play_plain(session, lines, sys.stdout, seconds=seconds, stop=stop, prompt=mark)


# --- terminal and signals -----------------------------------------------------------------------


def _has_terminal() -> bool:
    """Whether a prompt can be drawn: a terminal for input and output, with a movable cursor."""
    capable = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return capable and sys.stdin.isatty() and sys.stdout.isatty()


def _terminal_is_gone() -> bool:
    """Whether the terminal has hung up."""
    try:
        return not os.isatty(sys.stdin.fileno())
    except (OSError, ValueError):
        return True


def _banner(session: SessionApi, paths: list[Path]) -> show.Pieces:
    status: Status = session.status()
    return [
        ("heading", f"demon {__version__}"),
        ("", f" · engine {status.engine} · {status.device}\n"),
        ("", f"playing {', '.join(map(_short, paths))}"),
        ("hint", "   (? for help)\n"),
    ]


def _short(path: Path) -> str:
    """The path relative to this folder, if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


class _Signals:
    """SIGTERM and SIGHUP set `stop`, so that sets and files are closed on the way out.

    hung_up: the terminal went away.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.hung_up = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and threading.current_thread() is threading.main_thread():
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: object) -> None:
        self.hung_up |= number == getattr(signal, "SIGHUP", None)
        self.stop.set()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ctrl-C does not interrupt the closing of files."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
