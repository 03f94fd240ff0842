"""The Responses API (https://platform.openai.com/docs/api-reference/responses), stateless: we keep the history.

``store=False`` leaves nothing with the provider, and ``reasoning.encrypted_content`` brings the model's reasoning
along in a form that only the provider can read, so a checkpoint is complete without them.
"""

from __future__ import annotations

from typing import Any

from agentrun.runner.endpoint import Endpoint, Malformed, Rejected
from agentrun.runner.models import Item, ModelCall, Request, Turn, Usage
from agentrun.runner.shapes import arguments, count, distinct, in_object, in_text, listed, parameters
from agentrun.runner.structured import can_be_enforced, fits_strict_mode, in_words

_REASONING = "reasoning.encrypted_content"


class Responses:
    """A model behind the Responses API. Tasks may share it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        # Losing this is harmless: the next process finds out again, with one refused request.
        self._include = [_REASONING]

    def user(self, text: str) -> Item:
        """What a person says, as an item."""
        return {"role": "user", "content": text}

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        """The answer to a call, as an item."""
        return {"type": "function_call_output", "call_id": call_id, "output": output}

    async def ask(self, request: Request) -> Turn:
        """The model's next turn; see ``ModelClient.ask``."""
        try:
            return await self._ask(request)
        except Rejected as refused:
            # Models without reasoning refuse the wish for it, and nothing lists which ones those are.
            if not self._include or "encrypted content" not in refused.reason.lower():
                raise
            self._include = []
            return await self._ask(request)

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    async def _ask(self, request: Request) -> Turn:
        body = body_of(request, self._endpoint.model, self._include)
        return await self._endpoint.post("/responses", body, request.timeout, read_turn)


def body_of(request: Request, model: str, include: list[str]) -> dict[str, Any]:
    """The request's body. Everything that would be an API's default is left out."""
    body: dict[str, Any] = {"model": model, "input": list(request.history), "store": False}
    if include:
        body["include"] = include
    instructions = request.instructions
    if (schema := request.output_schema) is not None:
        if can_be_enforced(schema):
            strict = fits_strict_mode(schema)
            body["text"] = {"format": {"type": "json_schema", "name": "output", "schema": schema, "strict": strict}}
        else:
            instructions = "\n\n".join(filter(None, (instructions, in_words(schema))))
    if instructions:
        body["instructions"] = instructions
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": parameters(tool.parameters),
                "strict": fits_strict_mode(tool.parameters),  # the API's default is true, and then it refuses the rest
            }
            for tool in request.tools
        ]
        body["parallel_tool_calls"] = True
    if request.max_output_tokens is not None:
        body["max_output_tokens"] = request.max_output_tokens
    return body


def read_turn(answer: dict[str, Any]) -> Turn:
    """The turn in an answer.

    Raises:
        Malformed: the answer has not the API's shape.
    """
    status = answer.get("status", "completed")
    if status not in ("completed", "incomplete"):
        raise Malformed(f"its status is {status!r}")
    items = listed(answer, "output")
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[ModelCall] = []
    for item in items:
        kind = item.get("type")
        if kind == "function_call":
            args, error = arguments(in_text(item, "arguments"))
            calls.append(ModelCall(in_text(item, "call_id"), in_text(item, "name"), args, error))
        elif kind == "message":
            for part in listed(item, "content"):
                if part.get("type") == "refusal":
                    refusals.append(in_text(part, "refusal"))
                # Commentary is spoken on the way to the answer and is no part of it.
                elif part.get("type") == "output_text" and item.get("phase") != "commentary":
                    texts.append(in_text(part, "text"))
    usage = in_object(answer, "usage")
    details = in_object(answer, "incomplete_details")
    return Turn(
        items=items,
        text="".join(texts) if texts else None,
        calls=distinct(calls),
        usage=Usage(
            count(usage, "input_tokens"),
            count(in_object(usage, "input_tokens_details"), "cached_tokens"),
            count(usage, "output_tokens"),
        ),
        refusal="\n".join(refusals) if refusals else None,
        incomplete=str(details.get("reason") or "unknown") if status == "incomplete" else None,
        response_id=str(answer.get("id") or ""),
        model=str(answer.get("model") or ""),
    )
