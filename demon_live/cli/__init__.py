"""The command line: `main` runs one `demon` command."""

from demon_live.cli.commands import main

__all__ = ["main"]
