"""`demon mcp` over pipes, with the client of the SDK."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from demon_live.control.registry import Claim, Info, socket_path
from demon_live.control.server import ControlServer
from demon_live.editors import preview as module
from demon_live.errors import EngineError
from demon_live.runtime.offline import Offline
from tests.helpers.real_session import playing

__all__ = ["playing"]

pytest.importorskip("mcp.server.mcpserver")
ROOT = Path(__file__).parents[2]


def talk(conversation: Any, folder: Path, *words: str) -> None:
    """Run `await conversation(client)` with a client of `demon mcp`."""
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "demon_live", "mcp", *words], env=env, cwd=folder
    )

    async def run() -> None:
        async with Client(stdio_client(command)) as client:
            await conversation(client)

    asyncio.run(run())


def text_of(result: Any) -> str:
    return "\n".join(part.text for part in result.content)


def test_edits_play_and_broken_ones_are_refused_with_the_reason(
    playing: Offline, tmp_path: Path
) -> None:
    async def conversation(client: Any) -> None:
        for n in range(100):
            broken = n % 10 == 9
            text = f"blend = sine.slwo({n})" if broken else f"blend = .{n:02}5"
            result = await client.call_tool("apply", {"text": text})
            assert result.is_error == broken
            if broken:
                assert 'there is no function "slwo"' in text_of(result)
                assert "did you mean slow?" in text_of(result)
        assert "then .985" in text_of(await client.call_tool("status", {}))
        await client.call_tool("undo", {})
        assert "then .975" in text_of(await client.call_tool("status", {}))

    talk(conversation, tmp_path)


def test_an_edit_may_wait_for_a_bar(playing: Offline, tmp_path: Path) -> None:
    async def conversation(client: Any) -> None:
        result = await client.call_tool("apply", {"text": "blend = .25", "bar": 9})
        assert "bar 9" in text_of(result)
        for bar in (-1, 1e300):
            result = await client.call_tool("apply", {"text": "blend = .25", "bar": bar})
            assert result.is_error
            assert "cannot be: 0 to 1000000" in text_of(result)

    talk(conversation, tmp_path)


def test_texts_are_checked_and_words_explained_without_a_session(tmp_path: Path) -> None:
    async def conversation(client: Any) -> None:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"check", "apply", "undo", "preview", "status", "explain"}
        assert text_of(await client.call_tool("check", {"text": "blend = .5"})) == "ok"
        wrong = text_of(await client.call_tool("check", {"text": "blend = 1/0"}))
        assert wrong.startswith("score.demon:1:9: division by 0")
        assert "0..1" in text_of(await client.call_tool("explain", {"word": "blend"}))
        (reference,) = (await client.read_resource("demon://reference")).contents
        assert reference.text.startswith("# Reference")
        refused = await client.call_tool("status", {})
        assert refused.is_error
        assert "no session plays" in text_of(refused)

    talk(conversation, tmp_path)


def test_a_preview_is_rendered_beside_and_nothing_plays(playing: Offline, tmp_path: Path) -> None:
    claim = Claim.take(Info("beside", os.getpid(), engine="imp", folder=str(tmp_path)))
    server = ControlServer(playing.session, socket_path("beside"))
    playing.session.apply("tempo 240\nloop 1\nsource none\ngain = .5\ndepth 1")
    before = playing.session.state

    async def conversation(client: Any) -> None:
        found = text_of(await client.call_tool("preview", {"text": "gain = .25 now", "bars": 1}))
        path, levels = found.split("\n")
        assert path == str(tmp_path / "previews" / "preview-1.wav")
        assert levels.startswith("1.00 s, peak 0.")
        audio, rate = soundfile.read(path)
        assert (len(audio), rate) == (48_000, 48_000)
        assert f"peak {abs(audio).max():.3f} (" in levels
        assert f"RMS {(audio**2).mean() ** 0.5:.3f} (" in levels
        for given, said in (
            ({"text": "blend = wrong"}, "score.demon:"),
            ({"bars": 17}, "1 to 16 bars"),
            ({"text": 'source "/etc/passwd"', "alone": True}, "passwd"),
        ):
            refused = await client.call_tool("preview", given)
            assert refused.is_error
            assert said in text_of(refused)

    try:
        talk(conversation, tmp_path, "--name", "beside")
    finally:
        server.close()
        claim.release()
    assert playing.session.state is before
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["preview-1.wav"]


def test_a_preview_needs_an_engine_without_a_gpu_and_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match="needs a GPU"):
        module.preview("blend = 1", 1, tmp_path, "ace-step-v15-turbo")
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    with pytest.raises(EngineError, match="took more than"):
        module.preview("blend = 1", 1, tmp_path, "imp")
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_preview_makes_room(tmp_path: Path) -> None:
    for n in range(module.KEPT):
        path = module._target(tmp_path)
        path.write_bytes(b"")
        os.utime(path, ns=(n + 1, n + 1))
    assert len(list(tmp_path.iterdir())) == module.KEPT
    assert module._target(tmp_path).name == "preview-1.wav"
    assert len(list(tmp_path.iterdir())) == module.KEPT - 1
