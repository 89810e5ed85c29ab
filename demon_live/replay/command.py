"""`demon set show|to-score|verify|mend SET`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from demon_live.errors import FileError
from demon_live.paths import sets_dir
from demon_live.runtime.dry_run import dry_run
from demon_live.sets.journal import Recording, find_set, load

Say = Callable[[str], None]


def run(args: argparse.Namespace, say: Say) -> int:
    """Do what the command line asks; the exit code. Raises DemonError."""
    path = find_set(args.set, [sets_dir()])
    recording = load(path)
    if args.action == "show":
        return _show(args, recording, say)
    if args.action == "to-score":
        return _to_score(args, recording, say)
    if args.action == "verify":
        from demon_live.replay.verify import examine

        findings = examine(recording)
        say("\n".join(map(str, findings)) + "\n")
        return 1 if any(f.verdict == "fail" for f in findings) else 0
    from demon_live.replay.verify import mend

    sound, seconds = mend(path)
    say(f"{sound}: {seconds:.1f} s\n")
    return 0


def _show(args: argparse.Namespace, recording: Recording, say: Say) -> int:
    from demon_live.replay.show import as_svg, as_text

    moments = list(dry_run(recording))
    if args.svg is None:
        # In a file or a pipe nothing is cut.
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        say(as_text(recording, moments, columns))
        return 0
    _write(Path(args.svg), as_svg(recording, moments))
    say(f"{args.svg}\n")
    return 0


def _to_score(args: argparse.Namespace, recording: Recording, say: Say) -> int:
    from demon_live.replay.to_score import to_score

    text = to_score(recording, list(dry_run(recording)), args.start, args.cycles)
    if args.out is None:
        say(text)
        return 0
    out = Path(args.out)
    if out.exists():
        raise FileError(f"{out} exists already", hint="choose another name")
    _write(out, text)
    say(f"{out}\n")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror}", hint="choose another folder"
        ) from None
