"""`demon lsp` over pipes, as an editor runs it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demon_live.lang.diagnostics import MISTAKES
from demon_live.runtime.offline import Offline
from demon_live.session.check import faults_of
from tests.helpers.real_session import playing
from tests.lang.test_errors import BEGINNERS, POOR

__all__ = ["playing"]

pytest.importorskip("pygls")
ROOT = Path(__file__).parents[2]


class Editor:
    """A client of `demon lsp`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._child = subprocess.Popen(
            [sys.executable, "-m", "demon_live", "lsp"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self._number = 0
        self._came: queue.Queue[dict[str, Any]] = queue.Queue()
        self.noticed: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.can = self.ask("initialize", processId=None, rootUri=None, capabilities={})
        self.tell("initialized")

    def _read(self) -> None:
        out = self._child.stdout
        assert out is not None
        while line := out.readline():
            if line.startswith(b"Content-Length:"):
                while out.readline().strip():
                    pass
                self._came.put(json.loads(out.read(int(line.partition(b":")[2]))))

    def _send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._child.stdin is not None
        self._child.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._child.stdin.flush()

    def tell(self, method: str, **params: Any) -> None:
        self._send(method=method, params=params)

    def refused(self, method: str, **params: Any) -> str:
        """Why a request is refused."""
        self._number += 1
        self._send(id=self._number, method=method, params=params)
        while (message := self._came.get(timeout=60)).get("id") != self._number:
            self.noticed.append(message)
        assert message["error"]["code"] == -32602
        return str(message["error"]["message"])

    def ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._send(id=self._number, method=method, params=params)
        while True:
            message = self._came.get(timeout=60)
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]["message"]
                return message["result"]
            self.noticed.append(message)

    def open(self, text: str, name: str = "x.demon") -> str:
        uri = (self.folder / name).as_uri()
        document = {"uri": uri, "languageId": "demon", "version": 1, "text": text}
        self.tell("textDocument/didOpen", textDocument=document)
        return uri

    def edit(self, uri: str, version: int, text: str) -> None:
        document = {"uri": uri, "version": version}
        self.tell("textDocument/didChange", textDocument=document, contentChanges=[{"text": text}])

    def diagnostics(self, uri: str, version: int) -> list[dict[str, Any]]:
        """Those of a version; wait for them."""
        while True:
            for message in self.noticed:
                params = message.get("params", {})
                if (params.get("uri"), params.get("version")) == (uri, version):
                    found: list[dict[str, Any]] = params["diagnostics"]
                    return found
            self.noticed = [self._came.get(timeout=60)]

    def at(self, method: str, uri: str, line: int, character: int, **more: Any) -> Any:
        position = {"line": line, "character": character}
        return self.ask(
            f"textDocument/{method}", textDocument={"uri": uri}, position=position, **more
        )

    def close(self) -> None:
        self.ask("shutdown")
        self.tell("exit")
        assert self._child.wait(60) == 0
        self._reader.join()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    made = Editor(tmp_path)
    yield made
    made.close()


def applied(text: str, edits: list[dict[str, Any]]) -> str:
    """A text after edits whose characters are all in the basic plane."""
    lines = text.split("\n")

    def offset(place: dict[str, int]) -> int:
        return sum(len(row) + 1 for row in lines[: place["line"]]) + place["character"]

    for edit in sorted(edits, key=lambda e: offset(e["range"]["start"]), reverse=True):
        start, end = (offset(edit["range"][key]) for key in ("start", "end"))
        text = text[:start] + edit["newText"] + text[end:]
    return text


def test_diagnostics_are_those_of_demon_check(editor: Editor) -> None:
    cases = [m.example for m in MISTAKES] + [row[0] for row in (*BEGINNERS, *POOR)]
    cases += ["go nowhere\n", "source 'no.wav'\n", "blend = sine.range(.2, 1.4)\n", "", "# 𝄞\n"]
    uri = editor.open("")
    for version, text in enumerate(cases, 2):
        editor.edit(uri, version, text)
        found = [
            (
                d["message"],
                d["severity"],
                applied(text, [{"range": d["range"], "newText": "<here>"}]),
            )
            for d in editor.diagnostics(uri, version)
        ]
        expected = []
        for fault in faults_of(editor.folder / "x.demon", text):
            start, end = (fault.span.start, fault.span.end) if fault.span else (0, 0)
            hint = f"\nhint: {fault.hint}" if fault.hint else ""
            severity = 2 if type(fault).__name__ == "ScoreWarning" else 1
            expected.append((fault.message + hint, severity, f"{text[:start]}<here>{text[end:]}"))
        assert found == expected, text


def test_stale_edits_are_dropped_and_the_newest_is_checked(editor: Editor) -> None:
    body = "".join(f"deck d{n} {{ blend = sine.slow({n + 1}) }}\n" for n in range(100))
    uri = editor.open(body)
    for version in range(2, 202):
        wrong = f"blend = sine.slwo({version})\n" if version % 2 else ""
        editor.edit(uri, version, body + wrong)
        if version % 20 == 0:
            assert "blend" in editor.at("hover", uri, 0, 12)["contents"]["value"]
    (found,) = editor.diagnostics(uri, 201)
    assert found["message"] == 'there is no function "slwo"\nhint: did you mean slow?'


def test_a_fix_is_a_code_action(editor: Editor) -> None:
    text = "# ♪\nblend = .5\nnoise = sine.slwo(4)\n"
    uri = editor.open(text)
    (found,) = editor.diagnostics(uri, 1)
    asked = {"textDocument": {"uri": uri}, "range": found["range"], "context": {"diagnostics": []}}
    (action,) = editor.ask("textDocument/codeAction", **asked)
    assert action["title"] == "write slow"
    assert action["kind"] == "quickfix"
    mended = applied(text, action["edit"]["changes"][uri])
    assert mended == text.replace("slwo", "slow")


def test_words_at_the_cursor(editor: Editor) -> None:
    uri = editor.open("let wob(n) = saw.slow(n)\nblend = sine.slow(4)\nblend = wob(2)\nden\n")
    shown = editor.at("hover", uri, 1, 2)["contents"]["value"]
    assert shown.startswith("**0..1, default")
    assert "let wob(n) = saw.slow(n)" in editor.at("hover", uri, 2, 9)["contents"]["value"]
    assert editor.at("hover", uri, 3, 0) is None
    (item,) = [i for i in editor.at("completion", uri, 3, 3) if i["label"] == "denoise"]
    assert item["textEdit"]["newText"] == "denoise"
    assert item["textEdit"]["range"]["start"] == {"line": 3, "character": 0}
    help_ = editor.at("signatureHelp", uri, 1, 18)
    assert help_["signatures"][0]["label"].startswith("p.slow(")
    (place,) = editor.at("definition", uri, 2, 9)
    assert place["range"]["start"] == {"line": 0, "character": 4}


def test_characters_beyond_the_basic_plane_count_two(editor: Editor) -> None:
    uri = editor.open("prompt = '𝄞'; blend = sine.slwo(2)\n")
    (found,) = editor.diagnostics(uri, 1)
    assert found["range"]["start"] == {"line": 0, "character": 28}
    tokens = editor.ask("textDocument/semanticTokens/full", textDocument={"uri": uri})["data"]
    assert tokens[5 : 2 * 5] != []
    legend = editor.can["capabilities"]["semanticTokensProvider"]["legend"]["tokenTypes"]
    column, names = 0, {}
    for i in range(0, len(tokens), 5):
        column += tokens[i + 1]
        names[column] = legend[tokens[i + 3]]
    assert names[0] == "property"
    assert names[9] == "string"
    assert names[15] == "property"
    assert "blend" in editor.at("hover", uri, 0, 16)["contents"]["value"]


def test_rename_folding_and_format(editor: Editor) -> None:
    other = editor.folder / "other.demon"
    other.write_text("go drop\n")
    text = "let w = saw\nscene drop {\n  blend=w.slow(2)\n}\ngo drop\n"
    uri = editor.open(text)
    changes = editor.at("rename", uri, 0, 4, newName="wave")["changes"]
    assert applied(text, changes[uri]) == text.replace("w ", "wave ").replace("=w.", "=wave.")
    changes = editor.at("rename", uri, 4, 4, newName="fall")["changes"]
    assert applied(text, changes[uri]) == text.replace("drop", "fall")
    assert applied("go drop\n", changes[other.as_uri()]) == "go fall\n"
    with pytest.raises(AssertionError, match="is no name"):
        editor.at("rename", uri, 0, 4, newName="let")
    with pytest.raises(AssertionError, match="has a scene 'drop' already"):
        editor.at("rename", uri, 4, 4, newName="drop")
    folds = editor.ask("textDocument/foldingRange", textDocument={"uri": uri})
    assert [(f["startLine"], f["endLine"]) for f in folds] == [(1, 3)]
    options = {"tabSize": 2, "insertSpaces": True}
    edits = editor.ask("textDocument/formatting", textDocument={"uri": uri}, options=options)
    assert applied(text, edits) == text.replace("blend=w", "blend = w")
    editor.edit(uri, 2, text + "blend = (\n")
    with pytest.raises(AssertionError, match=r"mend x\.demon first"):
        editor.at("rename", uri, 0, 4, newName="wave")


def test_blocks_are_evaluated_in_a_running_session(editor: Editor, playing: Offline) -> None:
    uri = editor.open("tempo 130\n\ndeck drums {\n  blend = sine.slow(4)\n\n  noise = .2\n}\n")

    def run(word: str, *arguments: Any) -> Any:
        return editor.ask("workspace/executeCommand", command=f"demon.{word}", arguments=arguments)

    assert "error" not in run("evaluate", uri, 5)
    decks = {deck.name: deck for deck in playing.session.status().decks}
    assert {lane.control for lane in decks["drums"].lanes} == {"blend", "noise"}
    assert playing.session.status().bpm != 130
    shown = editor.at("hover", uri, 3, 4)["contents"]["value"]
    assert "drums plays `sine.slow(4)`" in shown
    run("evaluate", uri, 0, 0)
    playing.render(cycles=2)
    assert playing.session.status().bpm == 130
    run("hush")
    assert playing.session.status().hushed
    editor.edit(uri, 2, "\n\nblend = sine.slwo(4)\n")
    (refused,) = run("evaluate", uri, 2)["error"]
    assert refused.startswith(f"{editor.folder / 'x.demon'}:3:14: there is no function")
    run("apply", "mute drums")
    assert {d.name: d.muted for d in playing.session.status().decks}["drums"]
    editor.edit(uri, 3, "gain = .5\n")
    run("evaluateFile", uri)
    assert list(playing.session.scores().values()) == ["gain = .5\n"]


def test_without_a_session_an_evaluation_says_so(editor: Editor) -> None:
    uri = editor.open("blend = .5\n")
    asked = {"command": "demon.evaluate", "arguments": [uri, 0]}
    (refused,) = editor.ask("workspace/executeCommand", **asked)["error"]
    assert "no session plays" in refused


@pytest.mark.parametrize(
    ("command", "arguments", "why"),
    [
        ("evaluate", [], "missing a required argument"),
        ("evaluate", [5, 0], "uri cannot be 5"),
        ("evaluate", ["file:///x.demon", -1], "first cannot be -1"),
        ("evaluate", ["file:///x.demon", 0, "a"], "last cannot be a"),
        ("apply", [None], "text cannot be None"),
        ("evaluateFile", ["http://["], "no score"),
        ("evaluateFile", ["file:///dev/zero"], "no score"),
        ("evaluateFile", ["file://far/x.demon"], "no score"),
    ],
)
def test_commands_refuse_what_no_editor_should_send(
    editor: Editor, command: str, arguments: list[Any], why: str
) -> None:
    editor.open("blend = 1")
    call = {"command": f"demon.{command}", "arguments": arguments}
    assert why in editor.refused("workspace/executeCommand", **call)


def test_scores_beside_an_open_one_are_read_and_no_others(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open("go drop")
    (tmp_path / "y.demon").write_text("scene drop { blend = 1 }")
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "z.demon"
    other.write_text("blend = 1")
    (found,) = editor.at("definition", uri, 0, 4)
    assert found["uri"] == (tmp_path / "y.demon").as_uri()
    place = {"textDocument": {"uri": other.as_uri()}}
    assert "no score" in editor.refused("textDocument/foldingRange", **place)


def test_the_tokens_of_a_long_line_lie_where_they_are(editor: Editor) -> None:
    text = "prompt = '\U0001f39b' # \U0001f39b"
    numbers = 'blend = "' + "0 \u00e9 .5 \U0001f39b " * 4_000 + '"'
    uri = editor.open(f"{text}\n{numbers}\n")
    # 4,000 tokens on a line of 40,000 letters: its length counts once, not once for each token.
    data = editor.ask("textDocument/semanticTokens/full", textDocument={"uri": uri})["data"]
    line = column = 0
    found = set()
    for down, right, length, kind, _ in zip(*[iter(data)] * 5, strict=True):
        line, column = line + down, right + (0 if down else column)
        row = (text, numbers)[line].encode("utf-16-le")
        found.add((row[2 * column : 2 * (column + length)].decode("utf-16-le"), kind))
    assert {"prompt", "blend", "0", "5", "# \U0001f39b"} <= {word for word, _ in found}
