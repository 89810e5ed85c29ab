"""The command line: `main` runs one `demon` command.

arguments  every command and its options, as a table;  commands: what each one runs
live       live, tour, replay, attach, stop;  send: a text to a session
check      what is wrong with scores;  doctor: what this machine lacks;  starter: `demon new`
"""

from demon_live.cli.commands import main as main
