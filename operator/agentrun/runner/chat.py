"""Chat Completions (https://platform.openai.com/docs/api-reference/chat), for endpoints without Responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from agentrun.runner import refusals
from agentrun.runner.chat_turn import read_turn
from agentrun.runner.endpoint import Endpoint
from agentrun.runner.history import plainest
from agentrun.runner.models import Item, Request, ToolSpec, Turn
from agentrun.runner.refusals import Refused
from agentrun.runner.structured import format_of, instructions_of, is_strict, parameters, said_first, strictness


class ChatCompletions:
    """A model behind Chat Completions. Tasks may share it."""

    api: Literal["chat", "responses"] = "chat"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def user(self, text: str) -> Item:
        """See ``ModelClient.user``."""
        return {"role": "user", "content": text}

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        """See ``ModelClient.tool_result``."""
        return {"role": "tool", "tool_call_id": call_id, "content": output}

    async def ask(self, request: Request) -> Turn:
        """The model's next turn; see ``ModelClient.ask``."""
        return await self._endpoint.post(request, self._body, read_turn)

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _body(self, request: Request, refused: Refused) -> dict[str, Any]:
        return body_of(request, self._endpoint.model, refused)


def body_of(request: Request, model: str, refused: Refused = frozenset()) -> dict[str, Any]:
    """The request's body. Fields that some compatible servers do not know are sent only if they matter."""
    body: dict[str, Any] = {"model": model}
    kind = format_of(request.output_schema, refused, with_tools=bool(request.tools))
    if kind == refusals.JSON_SCHEMA:
        assert request.output_schema is not None
        wanted = {"name": "output", "schema": request.output_schema}
        body["response_format"] = {"type": kind, "json_schema": wanted | strictness(request.output_schema, refused)}
    elif kind is not None:
        body["response_format"] = {"type": kind}
    history: Sequence[Item] = request.history
    if refusals.HISTORY in refused:
        history = plainest("chat", history)
    instructions = instructions_of(request, kind)
    if instructions and refusals.SYSTEM in refused:
        history, instructions = said_first(instructions, history), ""
    body["messages"] = [{"role": "system", "content": instructions}] if instructions else []
    body["messages"] += history
    if request.tools:
        body["tools"] = [{"type": "function", "function": _function(tool, refused)} for tool in request.tools]
        if refusals.PARALLEL not in refused:
            body["parallel_tool_calls"] = True
    return body | _bound(request, refused)


def _function(tool: ToolSpec, refused: Refused) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name, "description": tool.description or tool.name}
    told |= parameters(tool, refused)
    return told | ({"strict": True} if is_strict(tool, refused) else {})


def _bound(request: Request, refused: Refused) -> dict[str, Any]:
    """The field that limits the answer, under the name that the endpoint accepts."""
    if request.max_output_tokens is None:
        return {}
    name = refusals.MAX_COMPLETION_TOKENS
    if name in refused:
        name = refusals.MAX_TOKENS
        if name in refused and request.at_any_length:
            return {}
    return {name: refusals.bounded(request.max_output_tokens, refused)}
