"""HTTP tools and a real server whose responses a test gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentrun.api.tools import Tool
from agentrun.api.workflow import FailureClass
from agentrun.runner.failures import Failure
from agentrun.runner.http_tool import HttpTool
from agentrun.runner.tool_client import ToolOutput
from tests.harness.loopback import Loopback, loopback, reply

TOKEN = "token-0123456789"


AUTH = {"bearer": {"secretRef": {"name": "shop", "key": "token"}}}


class ToolBench:
    """A server, and the pauses that the tools under test would have made."""

    def __init__(self, server: Loopback) -> None:
        self.server = server
        self.pauses: list[float] = []
        self._open: list[HttpTool] = []

    def tool(self, secret: Any = lambda _: f"{TOKEN}\n", effect: str = "Once", **http: Any) -> HttpTool:
        fields = {"url": "/orders", "timeout": "5s", **http}
        fields["url"] = self.server.url + fields["url"] if fields["url"].startswith("/") else fields["url"]
        tool = Tool.model_validate({"name": "shop", "effect": effect, "http": fields})

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        self._open.append(HttpTool(tool, secret, sleep=sleep, now=lambda: 0.0))
        return self._open[-1]

    async def call(self, args: dict[str, Any], *answers: Any, key: str | None = "key-1", **http: Any) -> ToolOutput:
        self.server.then(*(answers or (reply({"ok": True}),)))
        return await self.tool(**http).call(args, {"inputs": {"shop": "north"}, "run": {}}, idempotency_key=key)

    async def fails(self, *answers: Any, args: dict[str, Any] | None = None, **http: Any) -> Failure:
        with pytest.raises(Failure) as caught:
            await self.call(args or {}, *answers, **http)
        assert caught.value.failure_class is FailureClass.TOOL
        assert caught.value.message.startswith("tool shop")
        assert TOKEN not in caught.value.message
        return caught.value

    async def close(self) -> None:
        for tool in self._open:
            await tool.close()


@asynccontextmanager
async def tool_bench() -> AsyncIterator[ToolBench]:
    async with loopback() as server:
        found = ToolBench(server)
        yield found
        await found.close()
