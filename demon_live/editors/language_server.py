"""`demon lsp`: the Language Server Protocol over stdin and stdout, for any editor that speaks it.

The one importer of pygls. What is wrong with a score, its hints and its words come from where
`demon check` and the prompt have them.

Threads: handlers run in the event loop; checks, and questions to a session, in threads. Edits that
come while a text is checked are checked together: a report is only sent for the newest text.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from demon_live._version import __version__
from demon_live.control.client import author, connect
from demon_live.control.wire import unpack
from demon_live.editors import text as score
from demon_live.errors import DemonError, ScoreWarning, Span, UsageError, placed
from demon_live.lang import format_source, help_for
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.help import call_at
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.split import split
from demon_live.paths import install, read_file
from demon_live.session.check import faults_of
from demon_live.session.status import Status, Words

try:
    from lsprotocol import types as lsp
    from pygls import uris
    from pygls.exceptions import JsonRpcInvalidParams
    from pygls.lsp.server import LanguageServer
except ImportError as error:
    raise UsageError("demon lsp needs the package pygls", hint=install("lsp")) from error

#: Seconds that a question to a session may take, and an evaluation.
_ASK, _EVALUATE = 1.0, 30.0
#: Seconds between two switches of threads: an answer must not wait for a check.
_SWITCH = 0.0005
#: How an editor may count characters: the codec, bytes of one unit.
_ENCODINGS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}
#: Bytes of a score at most, and the types of the arguments of commands.
_LARGEST = 64 * 1024
_ARGUMENTS = {"uri": (str,), "text": (str,), "first": (int,), "last": (int, type(None))}


class ScoreServer:
    """A language server for scores. name: of the session to evaluate in; None: the only one. by:
    who evaluates; None: the login name."""

    def __init__(self, name: str | None = None, by: str | None = None) -> None:
        self.server = LanguageServer(
            "demon", __version__, text_document_sync_kind=lsp.TextDocumentSyncKind.Full
        )
        self._name, self._by = name, author(by)
        #: Faults of the newest checked version of each open score.
        self._faults: dict[str, tuple[DemonError, ...]] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        #: Scores that changed since their check began.
        self._stale: set[str] = set()
        self._words = Words()
        self._register()

    def _register(self) -> None:
        legend = lsp.SemanticTokensLegend([kind for kind, _ in score.COLOURS], [])
        rows: tuple[tuple[str, Any, Any], ...] = (
            (lsp.TEXT_DOCUMENT_DID_OPEN, self.changed, None),
            (lsp.TEXT_DOCUMENT_DID_CHANGE, self.changed, None),
            (lsp.TEXT_DOCUMENT_DID_SAVE, self.changed, None),
            (lsp.TEXT_DOCUMENT_DID_CLOSE, self.closed, None),
            (lsp.TEXT_DOCUMENT_HOVER, self.hover, None),
            (
                lsp.TEXT_DOCUMENT_COMPLETION,
                self.completion,
                lsp.CompletionOptions(trigger_characters=[".", "'"]),
            ),
            (
                lsp.TEXT_DOCUMENT_SIGNATURE_HELP,
                self.signature,
                lsp.SignatureHelpOptions(trigger_characters=["(", ","]),
            ),
            (lsp.TEXT_DOCUMENT_DEFINITION, self.definition, None),
            (lsp.TEXT_DOCUMENT_REFERENCES, self.references, None),
            (lsp.TEXT_DOCUMENT_RENAME, self.rename, None),
            (lsp.TEXT_DOCUMENT_FOLDING_RANGE, self.folding, None),
            (lsp.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, self.tokens, legend),
            (lsp.TEXT_DOCUMENT_FORMATTING, self.formatting, None),
            (lsp.TEXT_DOCUMENT_CODE_ACTION, self.actions, None),
        )
        for feature, call, options in rows:
            self.server.feature(feature, options)(_handler(call))
        for word in ("evaluate", "evaluateFile", "apply", "hush"):
            self.server.command(f"demon.{word}")(_command(getattr(self, word)))

    # --- texts --------------------------------------------------------------------------------

    def _text(self, uri: str) -> str:
        """The text of a score that is open, or lies beside one. Raises JsonRpcInvalidParams."""
        if self._is_open(uri):
            return str(self.server.workspace.get_text_document(uri).source)
        path = _path(uri)
        folders = {_path(other).parent for other in self.server.workspace.text_documents}
        if path.suffix == ".demon" and path.parent in folders:
            # A name may be one that no file can have.
            with contextlib.suppress(OSError, ValueError):
                return read_file(path, _LARGEST).decode()
        raise JsonRpcInvalidParams(f"{uri[:80]!r} is no score that is open or can be read")

    def _is_open(self, uri: str) -> bool:
        return uri in self.server.workspace.text_documents

    def _units(self, characters: str) -> int:
        """How long a text is for the editor, which counts in the encoding that was agreed."""
        encoding, size = _ENCODINGS[self.server.workspace.position_encoding or "utf-16"]
        return len(characters.encode(encoding, "surrogatepass")) // size

    def _position(self, text: str, at: int) -> lsp.Position:
        begin = text.rfind("\n", 0, at) + 1
        return lsp.Position(text.count("\n", 0, at), self._units(text[begin:at]))

    def _range(self, text: str, start: int, end: int) -> lsp.Range:
        return lsp.Range(self._position(text, start), self._position(text, end))

    def _offset(self, text: str, position: lsp.Position) -> int:
        """The offset of a position; behind the end of its line it is that end."""
        lines = text.split("\n")
        if position.line >= len(lines):
            return len(text)
        line = lines[position.line]
        begin: int = sum(map(len, lines[: position.line])) + position.line
        ends = range(min(len(line), position.character) + 1)
        end = bisect_right(ends, position.character, key=lambda n: self._units(line[:n])) - 1
        return begin + max(0, end)

    # --- what is wrong ------------------------------------------------------------------------

    async def changed(self, params: Any) -> None:
        """Check a score that was opened, edited or saved."""
        uri = params.text_document.uri
        self._stale.add(uri)
        if uri not in self._checks:
            self._checks[uri] = asyncio.create_task(self._check(uri))

    async def _check(self, uri: str) -> None:
        try:
            while uri in self._stale and self._is_open(uri):
                self._stale.discard(uri)
                document = self.server.workspace.get_text_document(uri)
                text, version = str(document.source), document.version
                faults = await asyncio.to_thread(faults_of, _path(uri), text)
                if uri not in self._stale and self._is_open(uri):
                    self._faults[uri] = faults
                    self._publish(uri, [self._diagnostic(text, f) for f in faults], version)
        finally:
            del self._checks[uri]

    def _publish(self, uri: str, found: list[lsp.Diagnostic], version: int | None) -> None:
        params = lsp.PublishDiagnosticsParams(uri, found, version)
        self.server.text_document_publish_diagnostics(params)

    async def closed(self, params: lsp.DidCloseTextDocumentParams) -> None:
        """Forget a score."""
        uri = params.text_document.uri
        self._stale.discard(uri)
        self._faults.pop(uri, None)
        self._publish(uri, [], None)

    def _diagnostic(self, text: str, fault: DemonError) -> lsp.Diagnostic:
        span = fault.span or Span(0, 0, 1, 1)
        weak = isinstance(fault, ScoreWarning)
        return lsp.Diagnostic(
            range=self._range(text, span.start, span.end),
            message=fault.message + (f"\nhint: {fault.hint}" if fault.hint else ""),
            severity=lsp.DiagnosticSeverity.Warning if weak else lsp.DiagnosticSeverity.Error,
            source="demon",
        )

    async def actions(self, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        """The replacements that hints in a range offer."""
        uri = params.text_document.uri
        text = self._text(uri)
        first, last = (self._offset(text, p) for p in (params.range.start, params.range.end))
        found: list[lsp.CodeAction] = []
        for fault in self._faults.get(uri, ()):
            span = fault.span
            if span is None or span.start > last or span.end < first:
                continue
            for fix in await asyncio.to_thread(score.fixes, text, fault):
                edit = lsp.TextEdit(self._range(text, fix.start, fix.end), fix.new)
                action = lsp.CodeAction(
                    title=fix.title,
                    kind=lsp.CodeActionKind.QuickFix,
                    diagnostics=[self._diagnostic(text, fault)],
                    edit=lsp.WorkspaceEdit(changes={uri: [edit]}),
                )
                found.append(action)
        return found

    # --- words --------------------------------------------------------------------------------

    async def hover(self, params: lsp.HoverParams) -> lsp.Hover | None:
        """Help and range of the word at a position, and what it plays now."""
        text = self._text(params.text_document.uri)
        at = self._offset(text, params.position)
        word, start, end = score.word_at(text, at)
        rows: list[str] = []
        place = score.place_at(text, at)
        if place is not None:
            word, start, end = place.name, place.start, place.end
            rows += [_statement(text, p) for p in score.places(text) if _defines(p, place)][-1:]
        elif word and (entry := help_for(word)) is not None and entry.name == word:
            rows += [f"**{entry.signature or word}**", entry.line, f"`{entry.examples[0]}`"]
            rows += await asyncio.to_thread(self._playing, word)
        if not rows:
            return None
        content = lsp.MarkupContent(lsp.MarkupKind.Markdown, "\n\n".join(rows))
        return lsp.Hover(content, self._range(text, start, end))

    def _playing(self, control: str) -> Iterator[str]:
        """What a control plays now, for each deck of a running session."""
        with contextlib.suppress(DemonError):
            status = unpack(self._ask("status"))
            if isinstance(status, Status):
                decks = [(deck.name, deck.lanes) for deck in status.decks]
                for name, lanes in (*decks, ("master", status.master)):
                    for lane in (lane for lane in lanes if lane.control == control):
                        value = lane.value if isinstance(lane.value, str) else f"{lane.value:.4g}"
                        coming = f", {lane.next}" if lane.next else ""
                        yield f"{name} plays `{lane.text}`: {value} now{coming}"

    async def completion(self, params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        """The words that may stand at a position, as at the prompt."""
        text = self._text(params.text_document.uri)
        at = self._offset(text, params.position)
        await asyncio.to_thread(self._look_at_words)
        items: list[lsp.CompletionItem] = []
        typing = cache(lambda typed: self._range(text, at - typed, at))
        for number, (word, typed, shown) in enumerate(score.completions(text, at, self._words)):
            edit = lsp.TextEdit(typing(typed), word)
            # Editors sort by name; the words that fit best come first here.
            item = lsp.CompletionItem(word, detail=shown, sort_text=f"{number:04}", text_edit=edit)
            items.append(item)
        return items

    def _look_at_words(self) -> None:
        with contextlib.suppress(DemonError):
            found = unpack(self._ask("words"))
            self._words = found if isinstance(found, Words) else self._words

    async def signature(self, params: lsp.SignatureHelpParams) -> lsp.SignatureHelp | None:
        """The parameters of the function whose call is open at a position."""
        text = self._text(params.text_document.uri)
        chunks = split(text[: self._offset(text, params.position)], KEYWORDS)
        name, number = (call_at(chunks[-1].text) if chunks else None) or ("", 0)
        function = FUNCTIONS.get(name)
        if function is None:
            return None
        inside = function.signature.partition("(")[2].rstrip(")")
        parts = [lsp.ParameterInformation(part.strip()) for part in inside.split(",") if part]
        shown = lsp.SignatureInformation(function.signature, function.help, parts)
        return lsp.SignatureHelp([shown], 0, min(number, max(0, len(parts) - 1)))

    # --- names --------------------------------------------------------------------------------

    def _named(self, params: Any) -> tuple[score.Place | None, list[tuple[str, str]]]:
        """The name at a position, and the scores that may mention it: (uri, text), this first."""
        uri = params.text_document.uri
        text = self._text(uri)
        place = score.place_at(text, self._offset(text, params.position))
        texts = [(uri, text)]
        # The scores of a folder share their scenes.
        if place is not None and place.kind == "scene":
            own = _path(uri)
            for path in sorted(own.parent.glob("*.demon")):
                other = uris.from_fs_path(str(path))
                if path != own and other is not None:
                    with contextlib.suppress(JsonRpcInvalidParams):
                        texts.append((other, self._text(other)))
        return place, texts

    async def definition(self, params: lsp.DefinitionParams) -> list[lsp.Location]:
        """Where the `let` or scene at a position is defined: the last definition before it."""
        place, texts = self._named(params)
        for uri, text in texts if place else ():
            found = [p for p in score.places(text) if _defines(p, place)]
            before = [p for p in found if uri == texts[0][0] and place and p.start <= place.start]
            if found:
                one = (before or found)[-1]
                return [lsp.Location(uri, self._range(text, one.start, one.end))]
        return []

    async def references(self, params: lsp.ReferenceParams) -> list[lsp.Location]:
        """Where the `let` or scene at a position is used."""
        place, texts = self._named(params)
        whole = params.context.include_declaration
        return [
            lsp.Location(uri, self._range(text, p.start, p.end))
            for uri, text in texts
            for p in score.places(text)
            if _same(p, place) and (whole or not p.defines)
        ]

    async def rename(self, params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
        """Rename a `let` in its score, or a scene in all scores of the folder."""
        place, texts = self._named(params)
        if place is None:
            return None
        new = params.new_name
        if not new.isidentifier() or not new.isascii() or new in KEYWORDS:
            raise JsonRpcInvalidParams(f"{new!r} is no name: letters, digits and _")
        changes: dict[str, list[lsp.TextEdit]] = {}
        for uri, text in texts:
            every = score.places(text)
            if any(p.defines and (p.kind, p.name) == (place.kind, new) for p in every):
                raise JsonRpcInvalidParams(f"{_path(uri).name} has a {place.kind} {new!r} already")
            found = [p for p in every if _same(p, place)]
            wrong = score.broken(text)
            if wrong is not None and (found or uri == texts[0][0]):
                raise JsonRpcInvalidParams(f"mend {_path(uri).name} first: {wrong.message}")
            if found:
                changes[uri] = [lsp.TextEdit(self._range(text, p.start, p.end), new) for p in found]
        return lsp.WorkspaceEdit(changes=changes)

    # --- the shape of the text ----------------------------------------------------------------

    async def folding(self, params: lsp.FoldingRangeParams) -> list[lsp.FoldingRange]:
        """Blocks in braces and statements of several lines."""
        rows = score.blocks(self._text(params.text_document.uri))
        return [lsp.FoldingRange(first, last) for first, last in rows]

    async def tokens(self, params: lsp.SemanticTokensParams) -> lsp.SemanticTokens:
        """The colours of a score."""
        text = self._text(params.text_document.uri)
        data: list[int] = []
        column = read = 0
        for start, end, kind in score.colours(text):
            down = text.count("\n", read, start)
            if down:
                read, column = text.rfind("\n", 0, start) + 1, 0
            # From the last token on: a line may be long.
            at = column + self._units(text[read:start])
            data += (down, at - column, self._units(text[start:end]), kind, 0)
            column, read = at, start
        return lsp.SemanticTokens(data)

    async def formatting(self, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
        """The canonical form of a score; statements with errors stay as they are."""
        text = self._text(params.text_document.uri)
        new = format_source(text)
        return [] if new == text else [lsp.TextEdit(self._range(text, 0, len(text)), new)]

    # --- a running session --------------------------------------------------------------------

    def _ask(self, verb: str, timeout: float = _ASK, **args: Any) -> Any:
        with contextlib.closing(connect(self._name, timeout)) as connection:
            return connection.ask(verb, **args)

    async def evaluate(self, uri: str, first: int, last: int | None = None) -> Any:
        """Evaluate lines of a score; of one line, the block or paragraph around it."""
        text = self._text(uri)
        first, last = score.block_at(text, first) if last in (None, first) else (first, last or 0)
        part = "\n".join(text.split("\n")[first : last + 1])
        return await self._evaluate((str(_path(uri)), first + 1), text=part, name="<editor>")

    async def evaluateFile(self, uri: str) -> Any:
        """Play a score as its file, saved or not."""
        path = str(_path(uri))
        return await self._evaluate(None, text=self._text(uri), name=path, origin="file")

    async def apply(self, text: str) -> Any:
        """Evaluate a text, such as `mute drums`."""
        return await self._evaluate(None, text=text, name="<editor>")

    async def hush(self, *_: Any) -> Any:
        """Silence all decks."""
        return await self.apply("hush")

    async def _evaluate(self, place: tuple[str, int] | None, **args: str) -> Any:
        """What the session said: {"messages", "warnings"}, and "error" where it refused."""
        kind = lsp.MessageType.Info
        try:
            answer = await asyncio.to_thread(self._ask, "apply", _EVALUATE, by=self._by, **args)
            found = {key: list(answer.get(key, ())) for key in ("messages", "warnings")}
            shown = "\n".join((*found["messages"], *found["warnings"])) or "nothing changes"
        except DemonError as fault:
            shown = str(placed(fault, *place) if place else fault)
            kind, found = lsp.MessageType.Error, {"error": [shown]}
        self.server.window_show_message(lsp.ShowMessageParams(kind, shown))
        return found


def serve(name: str | None = None, by: str | None = None) -> None:
    """Serve one editor over stdin and stdout until it leaves."""
    sys.setswitchinterval(_SWITCH)
    ScoreServer(name, by).server.start_io()


def _handler(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    # pygls sets attributes of what it registers, which a method has not.
    async def handle(*arguments: Any) -> Any:
        return await call(*arguments)

    return handle


def _command(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    # An editor may send any arguments.
    async def handle(*arguments: Any) -> Any:
        try:
            given = inspect.signature(call).bind(*arguments).arguments
        except TypeError as error:
            raise JsonRpcInvalidParams(f"{call.__name__}: {error}") from None
        for name, value in given.items():
            kinds = _ARGUMENTS.get(name)
            if kinds and (type(value) not in kinds or (type(value) is int and value < 0)):
                raise JsonRpcInvalidParams(f"{call.__name__}: {name} cannot be {str(value)[:40]}")
        return await call(*arguments)

    return handle


def _path(uri: str) -> Path:
    # Of what is no URL urllib raises.
    with contextlib.suppress(ValueError):
        return Path(uris.to_fs_path(uri) or uri)
    return Path(uri)


def _same(place: score.Place, other: score.Place | None) -> bool:
    return other is not None and (place.kind, place.name) == (other.kind, other.name)


def _defines(place: score.Place, other: score.Place | None) -> bool:
    return place.defines and _same(place, other)


def _statement(text: str, place: score.Place) -> str:
    """The line of a definition, as code."""
    line = text[text.rfind("\n", 0, place.start) + 1 :].partition("\n")[0]
    return f"```demon\n{line.strip()}\n```"
