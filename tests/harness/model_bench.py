"""A model's client and a real HTTP server whose responses a test gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentrun.api.workflow import Model
from agentrun.runner.failures import Failure
from agentrun.runner.models import ModelClient, Request, ToolSpec, Turn, open_model
from tests.harness.loopback import Loopback, loopback, reply

KEY = "sk-test-0123456789"


NOW = 1_800_000_000.0


SCHEMA = {
    "type": "object",
    "properties": {"refund": {"type": "boolean"}},
    "required": ["refund"],
    "additionalProperties": False,
}


TOOL = ToolSpec("look_up_order", "The order.", {"type": "object"})


def message(*content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [*content], **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": [], "logprobs": []}


def call(arguments: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"type": "function_call", "id": "fc", "call_id": call_id, "name": "look_up_order", "arguments": arguments}


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 50, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 7, "total_tokens": 57}
    return {"id": "resp_1", "model": "gpt-5.5-1", "status": "completed", "error": None, "output": [*items],
            "incomplete_details": None, "usage": usage, **more}  # fmt: skip


def completion(finish: str = "stop", **fields: Any) -> dict[str, Any]:
    answer = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [], **fields}
    usage = {"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 10}}
    choice = {"index": 0, "finish_reason": finish, "message": answer}
    return {"id": "chatcmpl_1", "model": "gpt-5.5-1", "choices": [choice], "usage": usage}


OK = reply(response(message(text("hello"))))


class ModelBench:
    """A client, its server, and the pauses that the client would have made."""

    def __init__(self, server: Loopback, client: ModelClient, pauses: list[float]) -> None:
        self.server, self.client, self.pauses = server, client, pauses

    async def ask(self, *answers: Any, **more: Any) -> Turn:
        self.server.then(*answers)
        fields: dict[str, Any] = {
            "instructions": "Decide.",
            "history": [self.client.user("hi")],
            "timeout": 5.0,
            **more,
        }
        return await self.client.ask(Request(**fields))

    async def fails(self, *answers: Any, **more: Any) -> Failure:
        with pytest.raises(Failure) as caught:
            await self.ask(*answers, **more)
        assert KEY not in caught.value.message
        assert caught.value.message.isprintable()
        assert caught.value.message.startswith("model main at http://127.0.0.1:")
        return caught.value


@asynccontextmanager
async def model_bench(api: str) -> AsyncIterator[ModelBench]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with loopback() as server:
        credentials = {"secretRef": {"name": "model-key", "key": "api-key"}}
        model = Model.model_validate(
            {"name": "main", "model": "gpt-5.5", "endpoint": f"{server.url}/v1", "api": api, "credentials": credentials}
        )
        client = open_model(model, lambda _: f"{KEY}\n", sleep=sleep, now=lambda: NOW)
        yield ModelBench(server, client, pauses)
        await client.close()
