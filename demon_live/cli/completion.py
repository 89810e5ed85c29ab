"""`demon completion SHELL`: a script that completes commands, options, files and words.

Generated from the parser itself by shtab, so that nothing has to be kept in step by hand.

Threads: main thread only.
"""

from __future__ import annotations

import argparse

from demon_live.errors import DemonError
from demon_live.ui import guide

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")
_FILES = ("paths", "score", "out", "set", "render")


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The completion script of `parser` for bash, zsh or fish."""
    import shtab

    for action in _actions(parser):
        if action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    commands = _commands(parser)
    _offer(commands["help"], "name", guide.known())
    _offer(commands["engines"], "name", _engines())
    for name in ("live", "render", "replay", "bench"):
        _offer(commands[name], "engine", _engines())
    return str(shtab.complete(parser, shell=shell))


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The actions of a parser and of its commands."""
    return [
        *parser._actions,
        *(a for command in _commands(parser).values() for a in command._actions),
    ]


def _offer(parser: argparse.ArgumentParser, dest: str, words: tuple[str, ...]) -> None:
    for action in parser._actions:
        if action.dest == dest and words:
            action.choices = words


def _engines() -> tuple[str, ...]:
    from demon_live.models.manifest import find_manifests

    try:
        return tuple(m.name for m in find_manifests())
    except DemonError:
        return ()
