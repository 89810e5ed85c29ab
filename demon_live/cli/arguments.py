"""The parser of the command line: what can be written after `demon`.

Threads: main thread only.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import NoReturn

from demon_live._version import __version__
from demon_live.errors import UsageError, nearest

__all__ = ["COMMANDS", "parser"]

_EPILOG = """\
examples:
  demon                                play patterns/00_hello.demon and open the prompt
  demon tour                           ten minutes of steps that play
  demon live set.demon --record friday
  demon render set.demon -o set.wav --cycles 64
  demon live --stage                   the same on a whole screen
  demon new friday                     a folder with a set to start from
  demon check patterns
  demon help blend

exit codes: 0 ok, 1 a score or file is wrong, 2 usage, 3 engine or device failure
"""
COMMANDS = (
    "live",
    "tour",
    "attach",
    "send",
    "stop",
    "render",
    "check",
    "replay",
    "set",
    "engines",
    "devices",
    "doctor",
    "bench",
    "new",
    "completion",
    "help",
)


class _Parser(argparse.ArgumentParser):
    """Usage errors look like all other errors."""

    def error(self, message: str) -> NoReturn:
        word = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if word is None:
            raise UsageError(message, hint=f"see: {self.prog} --help")
        near = nearest(word[1], COMMANDS)
        raise UsageError(
            f"there is no command {word[1]!r}",
            hint=f"did you mean demon {near[0]}?" if near else f"there are: {', '.join(COMMANDS)}",
        )


def _seconds(word: str) -> float:
    value = float(word)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def _seeds(word: str) -> tuple[int, ...]:
    first, dash, last = word.partition("-")
    if dash and first:
        seeds = tuple(range(int(first), int(last) + 1))
    else:
        seeds = tuple(dict.fromkeys(int(w) for w in word.split(",")))
    if not 0 < len(seeds) <= 10_000:
        raise ValueError
    return seeds


def _count(word: str) -> int:
    value = int(word)
    if not 0 < value <= 1_000_000:
        raise ValueError
    return value


def _cycle(word: str) -> float:
    value = float(word)
    if not 0 <= value < 1e6:
        raise ValueError
    return value


def _speed(word: str) -> float:
    value = float(word)
    if not 0 < value <= 100:
        raise ValueError
    return value


# argparse names the type in its messages.
_seconds.__name__ = "number of seconds"
_count.__name__ = "count"
_seeds.__name__ = "list of seeds"
_speed.__name__ = "speed"
_cycle.__name__ = "cycle"


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
    _add_playing(commands, common, engine)
    _add_asking(commands, common, engine)
    return top


def _add_playing(
    commands: argparse._SubParsersAction[_Parser], common: _Parser, engine: _Parser
) -> None:
    live = commands.add_parser("live", parents=[engine], help="play scores and open the prompt")
    live.add_argument(
        "paths", nargs="*", metavar="SCORE|DIR", help="default: the shipped 00_hello.demon"
    )
    _add_sound(live)
    live.add_argument("--record", metavar="NAME", help="record the set from the start")
    live.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="LOG",
        help="go on with the session that died last, from its next bar",
    )
    live.add_argument(
        "--python", action="store_true", help="also play *.py pattern files: they run as code"
    )
    tour = commands.add_parser(
        "tour", parents=[engine], help="ten minutes of steps that play, walked with Enter"
    )
    _add_sound(tour)
    for name, says in (("attach", "a prompt for a session that plays"), ("stop", "end a session")):
        other = commands.add_parser(name, parents=[common], help=says)
        if name == "attach":
            _add_face(other)
        other.add_argument("--name", metavar="NAME", help="of the session (default: the only one)")
    other.add_argument("--all", action="store_true", help="end every session of this user")
    _add_send(commands, common)
    render = commands.add_parser(
        "render", parents=[engine], help="a score or set into a WAV or FLAC, off line"
    )
    render.add_argument("scores", nargs="+", metavar="SCORE|SET")
    render.add_argument(
        "-o", "--out", required=True, metavar="OUT", help="OUT.wav or .flac; of several, a folder"
    )
    length = render.add_mutually_exclusive_group()
    length.add_argument("--cycles", type=_count, metavar="N")
    length.add_argument("--seconds", type=_seconds, metavar="S")
    render.add_argument("--seed", type=int, metavar="N")
    render.add_argument(
        "--seeds", type=_seeds, metavar="A-B|A,B,C", help="once with each, into a folder"
    )
    render.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="on the workers of a Ray (ray://HOST, HOST:6379, auto); without ADDRESS: on this"
        " machine's processors. Goes on where it stopped",
    )
    render.add_argument("--workers", type=_count, metavar="N", help="with --ray and no ADDRESS")
    render.add_argument("--stems", action="store_true", help="one more file for each deck")
    replay = commands.add_parser("replay", parents=[engine], help="play a recorded set again")
    replay.add_argument("set", metavar="SET", help="a name, or the path of a *.set.jsonl")
    _add_sound(replay)
    replay.add_argument("--render", metavar="OUT.wav", help="into a file instead, off line")
    replay.add_argument("--speed", type=_speed, default=1.0, metavar="X")
    for command in (render, replay):
        command.add_argument(
            "--trust",
            action="store_true",
            help="a set that was not recorded here may read sound files anywhere",
        )
        command.add_argument(
            "--from", dest="start", type=_cycle, default=0, metavar="CYCLE", help="begin there"
        )


def _add_face(command: _Parser) -> None:
    command.add_argument(
        "--stage", action="store_true", help="begin with the stage view (Alt-s goes there, too)"
    )
    command.add_argument(
        "--theme",
        choices=("dark", "light"),
        default=os.environ.get("DEMON_THEME", "dark"),
        help="ground of the stage view (default: dark, or DEMON_THEME)",
    )


def _add_send(commands: argparse._SubParsersAction[_Parser], common: _Parser) -> None:
    send = commands.add_parser(
        "send", parents=[common], help="a text or a score to a session that plays"
    )
    send.add_argument("file", nargs="?", metavar="FILE|-", help="a score; - reads statements")
    send.add_argument("-e", dest="text", metavar="TEXT", help="statements")
    send.add_argument("--name", metavar="NAME", help="of the session (default: the only one)")
    send.add_argument(
        "--at", metavar="FILE:LINE", help="where the text stands, for the places of errors"
    )
    send.add_argument(
        "--as", dest="whole", metavar="FILE", help="the text is all that FILE says, saved or not"
    )
    send.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def _add_sound(command: _Parser) -> None:
    _add_face(command)
    command.add_argument(
        "--device",
        default=os.environ.get("DEMON_DEVICE"),
        metavar="D",
        help="number or part of the name of an audio device (or DEMON_DEVICE)",
    )
    command.add_argument(
        "--audio",
        default=os.environ.get("DEMON_AUDIO"),
        metavar="device|null|file:PATH",
        help="where the sound goes (or DEMON_AUDIO)",
    )
    command.add_argument(
        "--name", metavar="NAME", help="name of the session, to play several (default: default)"
    )
    command.add_argument(
        "--osc",
        metavar="[HOST:]PORT",
        default=os.environ.get("DEMON_OSC"),
        help="listen for OSC (or DEMON_OSC); HOST: default this machine alone",
    )
    command.add_argument(
        "--web",
        nargs="?",
        const="0",
        metavar="PORT",
        default=os.environ.get("DEMON_WEB"),
        help="serve a page to look at, on this machine alone (default port: 8808)",
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
    set_ = commands.add_parser("set", parents=[common], help="look at, check, go on from a set")
    set_.add_argument("action", choices=("show", "to-score", "verify", "mend"))
    set_.add_argument("set", metavar="SET", help="a name, or the path of a *.set.jsonl")
    set_.add_argument("--svg", metavar="OUT.svg", help="show: a picture instead of text")
    set_.add_argument("-o", "--out", metavar="OUT.demon", help="to-score: into a file")
    set_.add_argument("--from", dest="start", type=int, default=0, metavar="CYCLE")
    set_.add_argument("--cycles", type=_count, metavar="N", help="to-score: only so many")
    check = commands.add_parser(
        "check", parents=[common], help="say what is wrong with scores, and where"
    )
    check.add_argument("paths", nargs="+", metavar="SCORE|DIR")
    check.add_argument(
        "--format", action="store_true", help="print the scores in their canonical form"
    )
    engines = commands.add_parser(
        "engines", parents=[common], help="what can play, and what is missing"
    )
    engines.add_argument(
        "action", nargs="?", default="list", choices=("list", "info", "fetch", "build", "verify")
    )
    engines.add_argument("name", nargs="?", metavar="E")
    engines.add_argument(
        "--for",
        dest="capability",
        action="append",
        metavar="CC",
        help="build: plans for cards of this compute capability (7.5, 8.6, 8.9, 12.0), not this "
        "machine's; may be given several times",
    )
    engines.add_argument(
        "--random-weights",
        action="store_true",
        help="build: of the true shapes without the weights, to try it",
    )
    devices = commands.add_parser("devices", parents=[common], help="audio devices")
    devices.add_argument("--json", action="store_true")
    doctor = commands.add_parser(
        "doctor", parents=[common], help="check this machine, with remedies"
    )
    doctor.add_argument("--json", action="store_true")
    bench = commands.add_parser("bench", parents=[engine], help="measure")
    bench.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=("ring", "decode", "lang", "latency", "all"),
    )
    bench.add_argument("--depth", type=_count, metavar="D", help="one depth; else 1, 2, 4, 8")
    bench.add_argument(
        "--seconds", type=_seconds, default=16.0, metavar="S", help="length of the loop"
    )
    bench.add_argument(
        "--random-weights", action="store_true", help="where the weights are not there"
    )
    bench.add_argument("--json", action="store_true")
    new = commands.add_parser("new", parents=[common], help="a folder with a set to start from")
    new.add_argument("folder", metavar="NAME")
    completion = commands.add_parser(
        "completion", parents=[common], help="a script that completes this command line"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    help_ = commands.add_parser("help", parents=[common], help="about a word of the language")
    help_.add_argument("name", nargs="?", metavar="NAME")
    help_.add_argument("--all", action="store_true", help="the whole reference, as Markdown")
