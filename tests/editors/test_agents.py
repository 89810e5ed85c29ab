"""`demon mcp` over pipes, with the client of the SDK."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from demon_live.runtime.offline import Offline
from tests.helpers.real_session import playing

__all__ = ["playing"]

pytest.importorskip("mcp.server.mcpserver")
ROOT = Path(__file__).parents[2]


def talk(conversation: Any, folder: Path) -> None:
    """Run `await conversation(client)` with a client of `demon mcp`."""
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "demon_live", "mcp"], env=env, cwd=folder
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

    talk(conversation, tmp_path)


def test_texts_are_checked_and_words_explained_without_a_session(tmp_path: Path) -> None:
    async def conversation(client: Any) -> None:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"check", "apply", "undo", "status", "explain"}
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
