"""Chat Completions (https://platform.openai.com/docs/api-reference/chat), for endpoints without Responses."""

from __future__ import annotations

from typing import Any

from agentrun.runner import refusals
from agentrun.runner.endpoint import Endpoint, Malformed
from agentrun.runner.models import Item, ModelCall, Request, ToolSpec, Turn, Usage
from agentrun.runner.refusals import Refused
from agentrun.runner.shapes import arguments, count, distinct, in_object, in_text, listed, parameters
from agentrun.runner.structured import format_of, instructions_of, said_first, strictness

_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ChatCompletions:
    """A model behind Chat Completions. Tasks may share it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def user(self, text: str) -> Item:
        """What a person says, as an item."""
        return {"role": "user", "content": text}

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        """The answer to a call, as an item."""
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
    """The request's body. Fields that not every compatible server knows are sent only where they matter."""
    body: dict[str, Any] = {"model": model}
    kind = format_of(request.output_schema, refused, with_tools=bool(request.tools))
    if kind == refusals.JSON_SCHEMA:
        assert request.output_schema is not None
        wanted = {"name": "output", "schema": request.output_schema}
        body["response_format"] = {"type": kind, "json_schema": wanted | strictness(request.output_schema, refused)}
    elif kind is not None:
        body["response_format"] = {"type": kind}
    history, instructions = request.history, instructions_of(request, kind)
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
    told = {"name": tool.name, "description": tool.description, "parameters": parameters(tool.parameters)}
    enforced = tool.strict and not refused & {refusals.STRICT, refusals.STRICT_SCHEMAS}
    return told | ({"strict": True} if enforced else {})


def _bound(request: Request, refused: Refused) -> dict[str, Any]:
    """The bound of the answer, by the name that the endpoint takes."""
    if request.max_output_tokens is None:
        return {}
    name = refusals.MAX_COMPLETION_TOKENS
    if name in refused:
        name = refusals.MAX_TOKENS
        if name in refused and request.at_any_length:
            return {}
    return {name: refusals.bounded(request.max_output_tokens, refused)}


def read_turn(answer: dict[str, Any]) -> Turn:
    """The turn in an answer: its first choice.

    Raises:
        Malformed: the answer has not the API's shape.
    """
    choices = listed(answer, "choices")
    if not choices:
        raise Malformed("it holds no choice")
    message = in_object(choices[0], "message")
    if message.get("role", "assistant") != "assistant":
        raise Malformed("its message is not the assistant's")
    calls: list[ModelCall] = []
    for call in listed(message, "tool_calls"):
        function = in_object(call, "function")
        args, error = arguments(in_text(function, "arguments"))
        calls.append(ModelCall(in_text(call, "id"), in_text(function, "name"), args, error))
    usage = in_object(answer, "usage")
    return Turn(
        items=[_item(message)],
        text=_optional_text(message, "content"),
        calls=distinct(calls),
        usage=Usage(
            count(usage, "prompt_tokens"),
            count(in_object(usage, "prompt_tokens_details"), "cached_tokens"),
            count(usage, "completion_tokens"),
        ),
        refusal=_optional_text(message, "refusal"),
        incomplete=_CUT.get(str(choices[0].get("finish_reason"))),
        response_id=str(answer.get("id") or ""),
        model=str(answer.get("model") or ""),
    )


def _item(message: dict[str, Any]) -> Item:
    """The message as the API takes it back: it sends nulls and empty lists that it refuses to receive."""
    kept = {key: value for key, value in message.items() if value is not None and value != []}
    return {"role": "assistant", "content": message.get("content"), **kept}


def _optional_text(message: dict[str, Any], key: str) -> str | None:
    return in_text(message, key) if message.get(key) else None
