"""`demon mcp`: the Model Context Protocol over stdin and stdout, for agents that play along.

The one importer of mcp. An agent may do what the control socket allows, and no more: it evaluates
texts, which are checked as at the prompt, and reads.

Threads: the SDK calls each tool in a thread of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from demon_live._version import __version__
from demon_live.control.client import author
from demon_live.control.remote_session import RemoteSession, connect
from demon_live.editors.preview import preview
from demon_live.errors import DemonError, UsageError
from demon_live.lang import help_for, reference
from demon_live.paths import install
from demon_live.session.check import faults_of
from demon_live.session.status import Outcome, Status, db

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError as error:
    raise UsageError("demon mcp needs the package mcp", hint=install("mcp")) from error

#: A month of bars.
_LAST_BAR = 1_000_000
_INSTRUCTIONS = """\
demon_live plays scores: text in a small pattern language that steers a diffusion model of music.
Read demon://reference for the language. check says what is wrong with a text; apply plays it, from
the next bar; preview renders it into a file first. What is refused changes nothing, and the error
says how to write it.
"""


class Tools:
    """What an agent may call. name: of the session; None: the only one that runs. by: who it is;
    None: the login name.

    The docstrings are what the agent reads. What is refused raises ToolError with its reason.
    """

    def __init__(self, name: str | None, by: str | None) -> None:
        self._name, self._by = name, author(by)

    @contextlib.contextmanager
    def _session(self) -> Iterator[RemoteSession]:
        try:
            with connect(self._name, self._by or None) as session:
                yield session
        except DemonError as fault:
            raise ToolError(str(fault)) from None

    def check(self, text: str) -> str:
        """Say what is wrong with a score, without playing it: place, cause and remedy."""
        return "\n".join(map(str, faults_of(Path("score.demon"), text))) or "ok"

    def apply(self, text: str, bar: float | None = None) -> str:
        """Play statements, added to what plays: from the next bar on, or from bar number `bar`."""
        if bar is not None and not 0 <= bar <= _LAST_BAR:
            raise ToolError(f"bar {bar:g} cannot be: 0 to {_LAST_BAR}")
        with self._session() as session:
            at = None if bar is None else Fraction(bar).limit_denominator(1000)
            return _reply(session.apply(text, "<agent>", at=at))

    def undo(self) -> str:
        """Take your last edit back; not what others did."""
        with self._session() as session:
            return _reply(session.apply("undo", "<agent>"))

    def preview(self, text: str = "", bars: int = 4, alone: bool = False) -> str:
        """Render a few bars into a WAV, without playing them: of what plays with `text` added to
        it, or, with `alone`, of `text` as a score of its own. Says path, duration, peak and RMS."""
        with self._session() as session:
            folder = Path(session.info.folder)
            if not session.info.pid or not folder.is_dir():
                raise ToolError("previews are rendered on the machine of the session alone")
            whole = text if alone else f"{session.score(folder)}\n{text}"
            found = preview(whole, bars, folder, session.info.engine)
        levels = f"peak {found.peak:.3f} ({db(found.peak):.1f} dB), RMS {found.rms:.3f}"
        return f"{found.path}\n{found.seconds:.2f} s, {levels} ({db(found.rms):.1f} dB)"

    def status(self) -> str:
        """Say what plays: bar, tempo, decks with their controls, and scores that are wrong."""
        with self._session() as session:
            return _status(session.status())

    def explain(self, word: str) -> str:
        """Explain a word of the language: its range or parameters, with an example."""
        found = help_for(word)
        if found is None:
            raise ToolError(f"there is nothing called {word!r}; demon://reference lists all words")
        return str(found)

    def scores(self) -> str:
        """The score files that play, each under its name."""
        with self._session() as session:
            rows = (f"# --- {name}\n{text}" for name, text in session.scores().items())
            return "\n".join(rows) or "no score file plays"


def _reply(outcome: Outcome) -> str:
    lines = (*outcome.messages, *(f"warning: {text}" for text in outcome.warnings))
    return "\n".join(lines) or "nothing changes"


def _status(status: Status) -> str:
    rows = [f"bar {status.cycle:.2f}, {status.bpm:g} bpm, engine {status.engine}"]
    if status.hushed:
        rows.append("hushed: every deck is silenced")
    for deck in status.decks:
        state = " (muted)" if deck.muted else ""
        rows.append(f"deck {deck.name}{state}, source {deck.source or 'none'}")
        for lane in deck.lanes:
            value = lane.value if isinstance(lane.value, str) else f"{lane.value:.4g}"
            coming = f", then {lane.coming}" if lane.coming else ""
            rows.append(f"  {lane.control} = {lane.text}  (now {value}{coming})")
    rows += [f"{name}: {fault}" for name, fault in status.errors.items()]
    return "\n".join(rows)


def server(name: str | None = None, by: str | None = None) -> MCPServer:
    """The server with all tools and resources."""
    tools = Tools(name, by)
    made = MCPServer("demon", instructions=_INSTRUCTIONS, version=__version__)
    calls: tuple[Callable[..., str], ...] = (
        tools.check, tools.apply, tools.undo, tools.preview, tools.status, tools.explain,
    )  # fmt: skip
    for call in calls:
        made.add_tool(call)
    made.resource("demon://reference", description="All words of the language.")(reference)
    made.resource("demon://scores", description="The score files that play.")(tools.scores)
    return made


def serve(name: str | None = None, by: str | None = None) -> None:
    """Serve one agent over stdin and stdout until it leaves."""
    server(name, by).run("stdio")
