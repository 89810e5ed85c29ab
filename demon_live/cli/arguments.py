"""The command line as a table: commands, their options, and the completion of both in a shell."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Any, NoReturn

from demon_live._version import __version__
from demon_live.errors import DemonError, UsageError, nearest

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

# --- values -------------------------------------------------------------------------------------


def _number(name: str, kind: Callable[[str], Any], valid: Callable[[Any], bool]) -> Any:
    """A reader of one number. argparse names it in its messages."""

    def read(word: str) -> Any:
        value = kind(word)
        if not valid(value):
            raise ValueError
        return value

    read.__name__ = name
    return read


_SECONDS = _number("number of seconds", float, lambda x: 0 < x < 1e6)
_COUNT = _number("count", int, lambda n: 0 < n <= 1_000_000)
_SPEED = _number("speed", float, lambda x: 0 < x <= 100)
_TEMPO = _number("tempo", float, lambda x: 20 <= x <= 400)
_AHEAD = _number("number of milliseconds", float, lambda x: 1 <= x <= 5000)
_CYCLE = _number("cycle", float, lambda x: 0 <= x < 1e6)


def _seed_list(word: str) -> tuple[int, ...]:
    first, dash, last = word.partition("-")
    if dash and first:
        return tuple(range(int(first), int(last) + 1))
    return tuple(dict.fromkeys(int(w) for w in word.split(",")))


_SEEDS = _number("list of seeds", _seed_list, lambda seeds: 0 < len(seeds) <= 10_000)

# --- the table ----------------------------------------------------------------------------------

#: An option or argument: names and settings of `add_argument`, and two settings of our own. env: a
#: variable that holds the default; one_of: at most one option of this group may be given.
Option = tuple[tuple[str, ...], dict[str, Any]]


def _option(*names: str, **settings: Any) -> Option:
    return names, settings


def _flag(*names: str, **settings: Any) -> Option:
    return names, {"action": "store_true", **settings}


_VERBOSE = _flag("-v", "--verbose", default=argparse.SUPPRESS, help="tracebacks with errors")
_ENGINE = (
    _option(
        "--engine",
        env="DEMON_ENGINE",
        default="imp",
        metavar="E",
        help="engine that plays (default: imp, or DEMON_ENGINE)",
    ),
    _option(
        "--backend",
        env="DEMON_BACKEND",
        default="auto",
        metavar="B",
        help="auto, onnx, eager, ... (default: auto, or DEMON_BACKEND)",
    ),
)
#: Of a command that plays sets: None leaves the choice to the set.
_SETS_ENGINE = (
    _option(
        "--engine",
        metavar="E",
        help="engine, or the path of its TOML (default: the set's own, else imp or DEMON_ENGINE)",
    ),
    _option("--backend", metavar="B", help="auto, onnx, eager, ... (default: likewise)"),
)
_BY = _option(
    "--as",
    dest="by",
    metavar="NAME",
    help="who you are for others on the session, and in its set (default: your login name)",
)
_VIEW = (
    _flag("--stage", help="begin with the stage view (Alt-s goes there, too)"),
    _flag("--no-mouse", help="leave the mouse to the terminal (with it: Shift-drag selects text)"),
    _option(
        "--theme",
        choices=("dark", "light"),
        env="DEMON_THEME",
        default="dark",
        help="ground of the stage view (default: dark, or DEMON_THEME)",
    ),
)
_SOUND = (
    *_VIEW,
    _option(
        "--device",
        env="DEMON_DEVICE",
        metavar="D",
        help="number or part of the name of an audio device (or DEMON_DEVICE)",
    ),
    _option(
        "--audio",
        env="DEMON_AUDIO",
        metavar="device|null|file:PATH",
        help="where the sound goes (or DEMON_AUDIO)",
    ),
    _option(
        "--input",
        metavar="NAME|file:PATH|loop:PATH|none",
        help="what is played into: part of a device's name, or a sound file (loop: goes round)",
    ),
    _option(
        "--name", metavar="NAME", help="name of the session, to play several (default: default)"
    ),
    _option(
        "--osc",
        metavar="[HOST:]PORT",
        env="DEMON_OSC",
        help="listen for OSC (or DEMON_OSC); HOST: default this machine alone",
    ),
    _option(
        "--osc-to",
        action="extend",
        nargs="+",
        default=[],
        metavar="HOST:PORT",
        help="other machines that scores may send OSC to; they also get every event",
    ),
    _option(
        "--ahead",
        type=_AHEAD,
        default=200.0,
        metavar="MS",
        help="how far ahead of the sound OSC leaves (default: 200)",
    ),
    _option(
        "--web",
        nargs="?",
        const="0",
        metavar="PORT",
        env="DEMON_WEB",
        help="serve a page to look at, on this machine alone (default port: 8808)",
    ),
    _BY,
    _option(
        "--visuals",
        nargs="?",
        const="",
        metavar="FILE.js",
        help="visuals for the projector, another page of --web (default: a sketch of our own)",
    ),
    _flag("--no-tty", help="no prompt: statements from a pipe, events as lines"),
    _option("--seconds", type=_SECONDS, metavar="S", help="stop after S seconds (with --no-tty)"),
)
_SESSION = _option(
    "--name",
    metavar="NAME|SOCKET",
    help="of the session, or the path of its socket (default: the only one)",
)
_CLIENT = (_SESSION, _BY)
_SET = _option("set", metavar="SET", help="a name, or the path of a *.set.jsonl")
_JSON = _flag("--json")
_FROM_SET = (
    _flag("--trust", help="a set that was not recorded here may read sound files anywhere"),
    _option(
        "--from",
        dest="start",
        type=_CYCLE,
        metavar="CYCLE",
        help="begin there (default: where a set was begun to be recorded)",
    ),
)

_LIVE = (
    *_SETS_ENGINE,
    _option("paths", nargs="*", metavar="SCORE|DIR", help="default: the shipped 00_hello.demon"),
    *_SOUND,
    _option("--gpus", type=_COUNT, default=1, metavar="N", help="GPUs that play as one"),
    _option("--record", metavar="NAME", help="record the set from the start"),
    _option(
        "--resume",
        nargs="?",
        const="",
        metavar="LOG",
        help="go on with the session that died last, from its next bar",
    ),
    _flag("--python", help="also play *.py pattern files: they run as code"),
)
_SEND = (
    _option("file", nargs="?", metavar="FILE|-", help="a score; - reads statements"),
    _option("-e", dest="text", metavar="TEXT", help="statements"),
    _SESSION,
    _option("--at", metavar="FILE:LINE", help="where the text stands, for the places of errors"),
    _option(
        "--as",
        dest="says",
        action="append",
        default=[],
        metavar="FILE|NAME",
        help="FILE.demon: the text is the whole of it, saved or not; a name without dots: who "
        "sends (default: your login name). May be given twice",
    ),
    _flag("--stdin", help="each block of lines that comes in by itself, until the end (for Flok)"),
    _flag("-q", "--quiet", help="print errors only"),
)
_RENDER = (
    *_SETS_ENGINE,
    _option("scores", nargs="+", metavar="SCORE|SET"),
    _option(
        "-o", "--out", required=True, metavar="OUT", help="OUT.wav or .flac; of several, a folder"
    ),
    _option("--cycles", one_of="length", type=_COUNT, metavar="N"),
    _option("--seconds", one_of="length", type=_SECONDS, metavar="S"),
    _option("--seed", type=int, metavar="N"),
    _option("--seeds", type=_SEEDS, metavar="A-B|A,B,C", help="once with each, into a folder"),
    _option(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="on the workers of a Ray (ray://HOST, HOST:6379, auto); without ADDRESS: on this"
        " machine's processors. Goes on where it stopped",
    ),
    _option("--workers", type=_COUNT, metavar="N", help="with --ray and no ADDRESS"),
    _flag("--stems", help="one more file for each deck"),
    _option("--input", metavar="FILE", help="a sound file that is played in from the start"),
    *_FROM_SET,
)
_REPLAY = (
    *_SETS_ENGINE,
    _SET,
    *_SOUND,
    _option("--render", metavar="OUT.wav", help="into a file instead, off line"),
    _option("--speed", type=_SPEED, default=1.0, metavar="X"),
    *_FROM_SET,
)
_SET_COMMAND = (
    _option("action", choices=("show", "to-score", "verify", "mend")),
    _SET,
    _option("--svg", metavar="OUT.svg", help="show: a picture instead of text"),
    _option("-o", "--out", metavar="OUT.demon", help="to-score: into a file"),
    _option("--from", dest="start", type=int, default=0, metavar="CYCLE"),
    _option("--cycles", type=_COUNT, metavar="N", help="to-score: only so many"),
)
_ENGINES = (
    _option(
        "action", nargs="?", default="list", choices=("list", "info", "fetch", "build", "verify")
    ),
    _option("name", nargs="?", metavar="E"),
    _option(
        "--for",
        dest="capability",
        action="append",
        metavar="CC",
        help="build: plans for cards of this compute capability (7.5, 8.6, 8.9, 12.0), not this "
        "machine's; may be given several times",
    ),
    _flag("--random-weights", help="build: of the true shapes without the weights, to try it"),
    _option(
        "--from",
        dest="folder",
        metavar="DIR",
        help="fetch: take what this folder holds (ACE-Step's checkpoints, ComfyUI's models) first",
    ),
)
_BENCH = (
    *_ENGINE,
    _option(
        "what",
        nargs="?",
        default="all",
        choices=("ring", "decode", "lang", "latency", "economy", "notes", "all"),
    ),
    _option("scores", nargs="*", metavar="SCORE", help="economy, notes: scores; else our own"),
    _option("--cycles", type=_COUNT, default=16, metavar="N", help="economy: cycles of each"),
    _option("--depth", type=_COUNT, metavar="D", help="one depth; else 1, 2, 4, 8"),
    _option("--seconds", type=_SECONDS, default=16.0, metavar="S", help="length of the loop"),
    _flag("--random-weights", help="where the weights are not there"),
    _JSON,
)
#: Command -> its help, its options.
COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "live": ("play scores and open the prompt", _LIVE),
    "tour": ("ten minutes of steps that play, walked with Enter", (*_ENGINE, *_SOUND)),
    "attach": ("a prompt for a session that plays", (*_VIEW, *_CLIENT)),
    "send": ("a text or a score to a session that plays", _SEND),
    "stop": ("end a session", (_SESSION, _flag("--all", help="end every session of this user"))),
    "render": ("a score or set into a WAV or FLAC, off line", _RENDER),
    "check": (
        "say what is wrong with scores, and where",
        (
            _option("paths", nargs="+", metavar="SCORE|DIR"),
            _flag("--format", help="print the scores in their canonical form"),
            _flag("--python", help="run *.py pattern files to check them"),
        ),
    ),
    "lsp": ("a language server for editors, on stdin and stdout", _CLIENT),
    "mcp": ("tools for agents, on stdin and stdout", _CLIENT),
    "sounds": (
        "sound files of a folder, with the tempo and bars that would be assumed",
        (
            _option("folder", nargs="?", default=".", metavar="FOLDER"),
            _option("--tempo", type=_TEMPO, default=120.0, metavar="BPM", help="of the score"),
        ),
    ),
    "replay": ("play a recorded set again", _REPLAY),
    "set": ("look at, check, go on from a set", _SET_COMMAND),
    "engines": ("what can play, and what is missing", _ENGINES),
    "devices": ("audio devices", (_JSON,)),
    "doctor": ("check this machine, with remedies", (_JSON,)),
    "bench": ("measure", _BENCH),
    "new": ("a folder with a set to start from", (_option("folder", metavar="NAME"),)),
    "completion": (
        "a script that completes this command line",
        (_option("shell", choices=("bash", "zsh", "fish")),),
    ),
    "help": (
        "about a word of the language",
        (
            _option("name", nargs="?", metavar="NAME"),
            _flag("--all", help="the whole reference, as Markdown"),
        ),
    ),
}

# --- the parser ---------------------------------------------------------------------------------


class _CommandParser(argparse.ArgumentParser):
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

    def add_options(self, options: tuple[Option, ...]) -> None:
        """Add rows of the table."""
        groups: dict[str, Any] = {}
        for names, row in options:
            settings = dict(row)
            variable, group = settings.pop("env", None), settings.pop("one_of", None)
            if variable is not None:
                settings["default"] = os.environ.get(variable, settings.get("default"))
            if group is not None and group not in groups:
                groups[group] = self.add_mutually_exclusive_group()
            groups.get(group, self).add_argument(*names, **settings)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _CommandParser(
        prog="demon",
        description="Live-code a diffusion model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"demon {__version__}")
    top.add_argument("-v", "--verbose", action="store_true", help="tracebacks with errors")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_CommandParser)
    for name, (says, options) in COMMANDS.items():
        commands.add_parser(name, help=says).add_options((_VERBOSE, *options))
    return top


# --- completion ---------------------------------------------------------------------------------

#: Arguments that are files.
_FILES = ("paths", "score", "out", "set", "render")


def completion(shell: str) -> str:
    """A script that completes the command line in bash, zsh or fish, made from the parser."""
    import shtab

    from demon_live.ui import guide

    whole = parser()
    (subparsers,) = (a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    engines = _engines()
    for command, one in subparsers.choices.items():
        for action in one._actions:
            if action.dest in _FILES:
                action.complete = shtab.FILE
            elif action.dest == "engine" or (command, action.dest) == ("engines", "name"):
                action.choices = engines or None
            elif (command, action.dest) == ("help", "name"):
                action.choices = guide.known()
    return str(shtab.complete(whole, shell=shell))


def _engines() -> tuple[str, ...]:
    from demon_live.models.manifest import find_manifests

    try:
        return tuple(m.name for m in find_manifests())
    except DemonError:
        return ()
