"""What the fuzzer attacks: for each door an input maker, the door, and which files it may open.

Threads: pure, but for files in the scratch folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from demon_live.errors import DemonError, FileError

__all__ = ["Target", "make"]

_ROOT = Path(__file__).resolve().parents[2]
Mutate = Callable[[random.Random, list[str], list[str], int], str]


@dataclass
class Target:
    """make: an input from a random state. take: True if accepted, False if refused politely.

    allowed: of a line of the audit hook (`open 'path'`), whether that is right.
    """

    make: Callable[[random.Random, Mutate], Any]
    take: Callable[[Any], bool]
    allowed: Callable[[str], bool]


def _inside(*folders: Path) -> Callable[[str], bool]:
    roots = tuple(str(f) for f in folders)
    # The interpreter itself opens its modules and, for tracebacks, its sources.
    import sys

    library = (
        "curves/",
        sys.prefix,
        sys.base_prefix,
        str(_ROOT / "demon_live"),
        str(_ROOT / "tests"),
    )

    def allowed(line: str) -> bool:
        found = re.match(r"open ['\"b]+(.*?)['\"]?$", line)
        if found is None:
            return line.startswith("open PosixPath") and any(r in line for r in roots)
        if found[1].startswith(("<", "/dev/null")) or "\x00" in found[1]:
            return True
        # What is named from here lies here, whatever its name looks like.
        return os.path.abspath(found[1]).startswith((*roots, *library))

    return allowed


def corpus() -> list[str]:
    """Scores, and the examples of reference and README that are scores."""
    from demon_live.lang import compile_source

    texts = [p.read_text("utf-8") for p in sorted((_ROOT / "patterns").glob("*.demon"))]
    for page in (_ROOT / "README.md", _ROOT / "patterns" / "REFERENCE.md"):
        if page.is_file():
            texts += re.findall(r"`([^`\n]{4,200})`", page.read_text("utf-8"))
    kept = []
    for text in dict.fromkeys(texts):
        with contextlib.suppress(DemonError):
            compile_source(text)
            kept.append(text)
    return kept


def _words() -> list[str]:
    from demon_live.controls import CONTROLS
    from demon_live.lang.help import all_names

    names = [*CONTROLS, *all_names()]
    return [*names, *(f".{n}(" for n in names), *(f"{n} = " for n in CONTROLS), "(", ")", " "]


def _scores(folder: Path) -> Target:
    from demon_live.lang import compile_source

    texts, words = corpus(), _words()

    def take(text: str) -> bool:
        try:
            compile_source(text, name="x.demon")
        except DemonError as error:
            # An error that cannot be shown is no help.
            str(error)
            return False
        return True

    # A curve may be read from the working folder, and from what is shipped.
    allowed = _inside(folder, _ROOT / "patterns", Path.cwd())
    return Target(lambda rng, mutate: mutate(rng, texts, words, 65_536), take, allowed)


def _edits(folder: Path) -> Target:
    """Accepted texts one after the other, against a session with real files beside it."""
    import numpy as np

    from demon_live.audio.files import write_audio
    from demon_live.session.assets import Assets
    from demon_live.session.output import NullOutput
    from demon_live.session.session import Session

    home = folder / "scores"
    home.mkdir(exist_ok=True)
    (folder / "secret.wav").write_bytes(b"RIFF")
    write_audio(home / "x.wav", np.full((4800, 2), 0.25, np.float32))
    with contextlib.suppress(OSError):
        (home / "link.wav").symlink_to(folder / "secret.wav")
    texts, words = corpus(), _words()
    sources = ["../secret.wav", "/etc/passwd", "link.wav", "a/../../secret.wav", "./x.wav",
               "~/x.wav", "..\\\\secret.wav", "/dev/zero", "con", "x" * 300, ""]  # fmt: skip

    # What a stranger's set says: any name for its scores, and they are read nowhere but here.
    names = ["<prompt>", "x.demon", "/etc/x.demon", "../x.demon", str(folder / "x.demon"), "", "/"]

    def fresh() -> Session:
        return Session(NullOutput(), assets=Assets((home,), within=(home,)), sets=home)

    session = [fresh(), 0]

    def make_one(rng: random.Random, mutate: Mutate) -> tuple[str, bool, str]:
        name = rng.choice(names) if rng.random() < 0.3 else ""
        if rng.random() < 0.3:
            word = rng.choice(('source "{}"\n', "timbre = '{}'\n", "timbre = \"<x.wav '{}'>/2\"\n"))
            source = word.format(rng.choice(sources))
            return source + mutate(rng, texts, words, 2000), True, name
        return mutate(rng, texts, words, 2000), rng.random() < 0.5, name

    def take(given: tuple[str, bool, str]) -> bool:
        text, file, replayed = given
        session[1] += 1
        if session[1] % 200 == 0:
            session[0] = fresh()
        # Words that write files have doors of their own.
        text = re.sub(r"\b(save|record|load|source)\b(?!\s*\"\.?\.?[/~a-zA-Z])", "hush", text)
        text = re.sub(r"\b(save|record|load)\b", "hush", text)
        try:
            name = replayed or str(home / ("x.demon" if file else "y.demon"))
            origin = "file" if file or not name.startswith("<") else "repl"
            session[0].apply(text, name, origin, replay=bool(replayed))
        except DemonError as error:
            str(error)
            return False
        return True

    return Target(make_one, take, _inside(home, _ROOT / "patterns"))


def _line(row: dict[str, Any]) -> str:
    body = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    crc = zlib.crc32(body.encode("utf-8", "surrogatepass"))
    return f'{body[:-1]},"crc":"{crc:08x}"}}\n'


def _sets(folder: Path) -> Target:
    from demon_live.sets.journal import load

    home = folder / "sets"
    home.mkdir(exist_ok=True)
    path = home / "x.set.jsonl"
    texts = [p.read_text("utf-8") for p in sorted((_ROOT / "examples").glob("*.set.jsonl"))]
    lines = [line for text in texts for line in text.splitlines()]
    values: list[Any] = [None, True, -1, 1e300, float("nan"), "x", [], {}, [[]], 10**400, "🎛"]

    def make_one(rng: random.Random, mutate: Mutate) -> str:
        if rng.random() < 0.5:
            return mutate(rng, texts, lines, 200_000)
        # A right checksum lets wrong values through to what reads them.
        rows = []
        for line in rng.sample(lines, min(len(lines), rng.randint(1, 6))):
            row = json.loads(line)
            row.pop("crc", None)
            for _ in range(rng.randint(0, 3)):
                row[rng.choice([*row, "extra", "format", "kind", "sample"])] = rng.choice(values)
            if rng.random() < 0.3 and row:
                row.pop(rng.choice(list(row)))
            rows.append(_line(row))
        return "".join(rows)

    def take(text: str) -> bool:
        path.write_text(text, "utf-8", errors="surrogatepass")
        try:
            recording = load(path)
            assert recording.length >= 0
        except DemonError as error:
            str(error)
            return False
        return True

    return Target(make_one, take, _inside(home))


def _manifests(folder: Path) -> Target:
    from demon_live.models.manifest import load_manifest, verify

    home = folder / "engines"
    home.mkdir(exist_ok=True)
    path = home / "x.toml"
    texts = [p.read_text("utf-8") for p in sorted((_ROOT / "engines").glob("*.toml"))]
    words = [line for text in texts for line in text.splitlines()]
    words += ["nan", "inf", "-inf", "[[weights]]", '"../../x"', '"/etc/passwd"', "1979-05-27",
              "[1,2]", "{}", "0x7fffffffffffffff", "[a.b.c]", '"""']  # fmt: skip

    def take(text: str) -> bool:
        path.write_text(text, "utf-8", errors="surrogatepass")
        try:
            manifest = load_manifest(path)
            for weight in manifest.weights:
                place = manifest.place(weight).resolve()
                inside = place.is_relative_to(home.resolve()) or bool(weight.repo)
                assert inside, f"outside: {place}"
            verify(manifest, deep=False)
        except DemonError as error:
            str(error)
            return False
        return True

    return Target(lambda rng, mutate: mutate(rng, texts, words, 65_536), take, _inside(home))


def _bytes_of(rng: random.Random, mutate: Mutate, texts: list[bytes], words: list[str]) -> bytes:
    """Bytes are mutated as the 256 first letters; what became wider is written as UTF-8."""
    text = mutate(rng, [t.decode("latin-1") for t in texts], words, 40_000)
    return b"".join(
        c.encode("latin-1") if ord(c) < 256 else c.encode("utf-8", "surrogatepass") for c in text
    )


def _polite(parse: Callable[[bytes], Any]) -> Callable[[bytes], bool]:
    def take(data: bytes) -> bool:
        try:
            parse(data)
        except DemonError as error:
            str(error)
            return False
        return True

    return take


def _osc(folder: Path) -> Target | None:
    try:
        import pythonosc  # noqa: F401

        from demon_live.control.osc import parse_osc
    except ImportError:
        return None

    def text(value: str) -> bytes:
        data = value.encode() + b"\0"
        return data + b"\0" * (-len(data) % 4)

    one = struct.pack(">f", 0.5)
    messages = [
        text("/demon/eval") + text(",s") + text("blend = sine.slow(4)"),
        text("/demon/control/blend") + text(",f") + one,
        text("/demon/control/air/lpf") + text(",i") + struct.pack(">i", 400),
        text("/demon/cc") + text(",ifi") + struct.pack(">ifi", 21, 0.5, 1),
        text("/demon/hush") + text(","),
        text("/demon/telemetry") + text(",d") + struct.pack(">d", 10.0),
        text("/demon/control/prompt") + text(",s") + text("dub techno, tape hiss"),
    ]
    bundle = text("#bundle") + bytes(8)
    for message in messages:
        bundle += struct.pack(">i", len(message)) + message
    deep = bundle
    for _ in range(6):
        deep = text("#bundle") + bytes(8) + struct.pack(">i", len(deep)) + deep
    texts = [*messages, bundle, deep]
    words = ["\0\0\0\0", "#bundle\0", ",sfidTFNI[]b", "\x7f\xc0\0\0", "\xff\xff\xff\xff",
             "/demon/", "../", "\x7f\x80\0\0", "/demon/eval\0,s\0\0"]  # fmt: skip
    return Target(
        lambda rng, mutate: _bytes_of(rng, mutate, texts, words),
        _polite(parse_osc),
        _inside(folder),
    )


def _web(folder: Path) -> Target | None:
    """Web messages, and frames of the control socket: requests and replies."""
    try:
        from demon_live.control.web import parse_web
        from demon_live.control.wire import VERBS, parse_reply, parse_request, reply, request
    except ImportError:
        return None
    given = {"text": "blend = .5", "name": "<prompt>", "origin": "repl", "path": "x.demon",
             "since": 3}  # fmt: skip
    frames = [
        request(7, verb, {name: given[name] for name in spec if name in given})
        for verb, spec in VERBS.items()
    ]
    replies = [reply(7, ok={"a": [1, 2.5, None]}), reply(8, error=DemonError("x", hint="y"))]
    hellos = [b'{"frames": 30}', b'{"frames":1}', b' {"frames" : 60}\n']
    words = ['"id":', '"v":', "null", "1e999", "NaN", "[[[[[[", "{\"", "\\ud800", '"do":"apply"',
             "99999999999999999999", "\x00", "true", '"ok":', '"error":']  # fmt: skip
    doors = [(parse_request, frames), (parse_reply, replies), (parse_web, hellos)]

    def make_one(rng: random.Random, mutate: Mutate) -> tuple[int, bytes]:
        which = rng.randrange(len(doors))
        return which, _bytes_of(rng, mutate, doors[which][1], words)

    def take(row: tuple[int, bytes]) -> bool:
        return _polite(doors[row[0]][0])(row[1])

    return Target(make_one, take, _inside(folder))


def _refused() -> Any:
    raise FileError("no session plays")


def _lsp(folder: Path) -> Target | None:
    """Requests and commands of an editor, with any text, place and name of a file."""
    try:
        from lsprotocol import types as lsp
        from pygls.exceptions import JsonRpcException
        from pygls.workspace import Workspace

        from demon_live.editors import language_server
    except (ImportError, DemonError):
        return None
    server = language_server.ScoreServer(by="ann")
    protocol: Any = server.server.protocol
    protocol.set_writer(SimpleNamespace(write=lambda data: None, close=lambda: None))
    vars(server)["_ask"] = lambda *_, **__: _refused()

    async def here(call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        return call(*given, **more)

    # In this thread, whose time is measured.
    vars(language_server)["asyncio"] = SimpleNamespace(
        to_thread=here, create_task=asyncio.create_task, Task=asyncio.Task
    )
    texts, words = corpus(), _words()
    own = (folder / "x.demon").as_uri()
    uris = [own, (folder / "y.demon").as_uri(), "", "file:///etc/passwd", "untitled:x", "\0",
            "file://far/x.demon", "http://[", "file:///%00.demon", "file:///dev/zero",
            "x" * 5000]  # fmt: skip
    numbers = [0, 0, 1, 2, 3, 10, 80, 2**31 - 1]
    strange = [None, "", -1, 10**30, 1.5, [], {"a": 1}, "file:///etc/passwd", True, "x", own]
    features = [
        server.changed, server.closed, server.hover, server.completion, server.signature,
        server.definition, server.references, server.rename, server.folding, server.tokens,
        server.formatting, server.actions,
    ]  # fmt: skip
    calls = (server.evaluate, server.evaluateFile, server.apply, server.hush)
    commands = [language_server._command(call) for call in calls]

    def make_one(rng: random.Random, mutate: Mutate) -> tuple[Any, ...]:
        text = mutate(rng, texts, words, 4000)
        uri = own if rng.random() < 0.7 else rng.choice(uris)
        if rng.random() < 0.3:
            call = rng.randrange(len(commands))
            given = [rng.choice([uri, *numbers, *strange]) for _ in range(rng.randint(0, 4))]
            return text, uri, ~call, given
        return text, uri, rng.randrange(len(features)), [rng.choice(numbers) for _ in range(4)]

    async def talk(text: str, uri: str, call: int, given: list[Any]) -> None:
        protocol._workspace = Workspace(None, lsp.TextDocumentSyncKind.Full)
        item = lsp.TextDocumentItem(own, "demon", 1, text)
        server.server.workspace.put_text_document(item)
        if call < 0:
            await commands[~call](*given)
            return
        a, b = (lsp.Position(*given[:2]), lsp.Position(*given[2:]))
        await server.changed(SimpleNamespace(text_document=SimpleNamespace(uri=own)))
        await asyncio.gather(*server._checks.values())
        params = SimpleNamespace(
            text_document=SimpleNamespace(uri=uri), position=a, range=lsp.Range(a, b),
            new_name=text[:9], context=SimpleNamespace(include_declaration=True),
        )  # fmt: skip
        await features[call](params)
        await asyncio.gather(*server._checks.values())

    def take(row: tuple[Any, ...]) -> bool:
        try:
            asyncio.run(talk(*row))
        except JsonRpcException as error:
            str(error)
            return False
        return True

    return Target(make_one, take, _inside(folder, _ROOT / "patterns", Path.cwd()))


def _mcp(folder: Path) -> Target | None:
    """Calls of an agent, with a session of this process."""
    try:
        from mcp.server.mcpserver.exceptions import ToolError

        from demon_live.editors import agents
    except (ImportError, DemonError):
        return None
    from demon_live.session.assets import Assets
    from demon_live.session.output import NullOutput
    from demon_live.session.session import Session

    tools = agents.Tools(None, "agent")
    texts, words = corpus(), _words()
    session: list[Any] = [None, 0]

    @contextlib.contextmanager
    def near() -> Iterator[Any]:
        session[1] += 1
        if session[1] % 200 == 1:
            home = Assets((folder,), within=(folder,))
            session[0] = Session(NullOutput(), assets=home, sets=folder)
            session[0].info = SimpleNamespace(pid=1, folder=str(folder), engine="imp")
        try:
            yield session[0]
        except DemonError as error:
            raise ToolError(str(error)) from None

    vars(tools)["_session"] = near
    vars(agents)["preview"] = lambda *_: _refused()
    calls = [tools.check, tools.apply, tools.undo, tools.status, tools.explain, tools.preview]
    numbers = [None, 0.0, -1.0, 3.5, 1e300, -1e300, float("inf"), float("nan"), 5e-324, 1e6]

    def make_one(rng: random.Random, mutate: Mutate) -> tuple[int, str, Any]:
        text = mutate(rng, texts, words, 4000)
        # Words that write files have doors of their own.
        text = re.sub(r"\b(save|record|load)\b", "hush", text)
        return rng.randrange(len(calls)), text, rng.choice(numbers)

    def take(row: tuple[int, str, Any]) -> bool:
        call, text, number = row
        given = {0: (text,), 1: (text, number), 4: (text[:60],), 5: (text, 3, number is None)}
        try:
            calls[call](*given.get(call, ()))
        except ToolError as error:
            str(error)
            return False
        return True

    return Target(make_one, take, _inside(folder, _ROOT / "patterns", Path.cwd()))


def _stdin(folder: Path) -> Target | None:
    """Blocks of `demon send --stdin`: nothing is lost, and each is a text or is refused."""
    from demon_live.cli import send

    texts, words = [text.encode() for text in corpus()], _words()
    vars(send)["_PATIENCE"] = 0.0

    def take(data: bytes) -> bool:
        source, sink = os.pipe()
        try:
            os.write(sink, data)
            os.close(sink)
            found = list(send.blocks(source))
        finally:
            os.close(source)
        lost = b"".join(found).split() != data.split()
        assert not lost, found
        return all(_polite(send._text)(block) for block in found)

    def make_one(rng: random.Random, mutate: Mutate) -> bytes:
        return b"\n\n".join(_bytes_of(rng, mutate, texts, words)[:20_000] for _ in range(3))

    return Target(make_one, take, _inside(folder))


_MAKERS: dict[str, Callable[[Path], Target | None]] = {
    "scores": _scores,
    "edits": _edits,
    "sets": _sets,
    "manifests": _manifests,
    "osc": _osc,
    "web": _web,
    "lsp": _lsp,
    "mcp": _mcp,
    "stdin": _stdin,
}


def make(name: str, folder: Path) -> Target | None:
    """The target of that name, with `folder` for its files; None if this version has no such door.

    Targets of several processes share the folder's parent, never the folder.
    """
    own = folder / f"{name}-{os.getpid()}"
    own.mkdir(exist_ok=True)
    return _MAKERS[name](own)
