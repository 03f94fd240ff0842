"""The Responses API (https://platform.openai.com/docs/api-reference/responses), used stateless: we keep the history.

With ``store=False`` the provider keeps nothing. ``reasoning.encrypted_content`` includes the model's reasoning, in a
form that only the provider can read. The journal is therefore complete without the provider.
"""

from __future__ import annotations

from typing import Any, Literal

from agentrun.runner import refusals
from agentrun.runner.endpoint import Endpoint
from agentrun.runner.history import plainest
from agentrun.runner.models import Item, Request, ToolSpec, Turn
from agentrun.runner.refusals import Refused
from agentrun.runner.responses_turn import read_turn
from agentrun.runner.structured import format_of, instructions_of, is_strict, parameters, said_first, strictness

_REASONING = "reasoning.encrypted_content"


class Responses:
    """A model behind the Responses API. Tasks may share it."""

    api: Literal["chat", "responses"] = "responses"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def user(self, text: str) -> Item:
        """See ``ModelClient.user``."""
        return {"role": "user", "content": text}

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        """See ``ModelClient.tool_result``."""
        return {"type": "function_call_output", "call_id": call_id, "output": output}

    async def ask(self, request: Request) -> Turn:
        """The model's next turn; see ``ModelClient.ask``."""
        return await self._endpoint.post(request, self._body, read_turn)

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _body(self, request: Request, refused: Refused) -> dict[str, Any]:
        return body_of(request, self._endpoint.model, refused)


def body_of(request: Request, model: str, refused: Refused = frozenset()) -> dict[str, Any]:
    """The request's body. Values that are the API's defaults are omitted."""
    body: dict[str, Any] = {"model": model}
    kind = format_of(request.output_schema, refused, with_tools=bool(request.tools))
    if kind == refusals.JSON_SCHEMA:
        assert request.output_schema is not None
        wanted = {"type": kind, "name": "output", "schema": request.output_schema}
        body["text"] = {"format": wanted | strictness(request.output_schema, refused)}
    elif kind is not None:
        body["text"] = {"format": {"type": kind}}
    history, instructions = list(request.history), instructions_of(request, kind)
    if refusals.HISTORY in refused:
        history = plainest("responses", history)
    if instructions and refusals.SYSTEM in refused:
        history = said_first(instructions, history)
    elif instructions and refusals.INSTRUCTIONS in refused:
        history = [{"role": "system", "content": instructions}, *history]
    elif instructions:
        body["instructions"] = instructions
    body["input"] = history
    if refusals.STORE not in refused:
        body["store"] = False
    # Models without reasoning refuse this field, and no list says which models those are.
    if refusals.INCLUDE not in refused:
        body["include"] = [_REASONING]
    if request.tools:
        body["tools"] = [_tool(tool, refused) for tool in request.tools]
        if refusals.PARALLEL not in refused:
            body["parallel_tool_calls"] = True
    if request.max_output_tokens is not None and not (request.at_any_length and refusals.MAX_OUTPUT_TOKENS in refused):
        body["max_output_tokens"] = refusals.bounded(request.max_output_tokens, refused)
    return body


def _tool(tool: ToolSpec, refused: Refused) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "function", "name": tool.name, "description": tool.description or tool.name}
    told |= parameters(tool, refused)
    # The API's default is true, and then it refuses schemas that do not fit strict mode.
    return told | ({} if refusals.STRICT in refused else {"strict": is_strict(tool, refused)})
