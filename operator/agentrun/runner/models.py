"""The agent loop's interface to a model: one request, one turn. ``ModelClient`` hides which API is used.

A turn is recorded verbatim, as JSON items in the provider's own form. Reasoning that only its provider can read
(``encrypted_content``) has to be sent back unchanged, or the model starts every turn without it. ``history`` converts
recorded turns to what an endpoint accepts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agentrun.api.tools import JsonSchema
from agentrun.api.values import JSON
from agentrun.api.workflow import Model
from agentrun.runner.retries import Clock, Sleep
from agentrun.runner.secrets import Secrets
from agentrun.runner.strict import fits_strict_mode

Item = dict[str, Any]
"""One entry of the history, in the provider's form."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn. ``cached`` is the part of ``input`` that was billed as cached. An unreported count is 0."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def __post_init__(self) -> None:
        # Some endpoints do not include cached tokens in the input. A negative cost would add to the budget.
        object.__setattr__(self, "cached", min(self.cached, self.input))


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A tool call that the model asks for.

    If the arguments are not a JSON object, ``args`` is None and ``error`` says why: the call is not made, and the model
    is told. ``name`` may not be a tool, and ``args`` are not yet checked against the tool's parameters. ``id`` is
    unique within the turn; it is generated if the endpoint gave none.
    """

    id: str
    name: str
    args: dict[str, JSON] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model answered. ``items`` is recorded unchanged; ``text`` does not contain the model's thoughts.

    If the answer was cut off, ``incomplete`` names the reason (``max_output_tokens``, ``content_filter``, …), and the
    text and calls may be fragments. Text, calls and refusal may all be missing: a model can answer nothing.
    """

    items: list[Item]
    text: str | None
    calls: tuple[ModelCall, ...]
    usage: Usage
    refusal: str | None
    incomplete: str | None
    response_id: str
    model: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as it is described to the model."""

    name: str
    description: str
    parameters: JsonSchema
    strict: bool = field(init=False)
    """Whether strict mode accepts the parameters."""

    def __post_init__(self) -> None:
        # Computed once: tools are sent with every turn of a step.
        object.__setattr__(self, "strict", fits_strict_mode(self.parameters))


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model. ``timeout`` limits each try, in seconds; the caller limits the whole call.

    ``refused`` is what the endpoint is known to refuse (words of ``refusals``); the client adds what it learns.
    ``at_any_length``: ``max_output_tokens`` is only a preference, and is omitted if the endpoint does not accept it.
    """

    instructions: str
    history: Sequence[Item]
    tools: Sequence[ToolSpec] = ()
    output_schema: JsonSchema | None = None
    max_output_tokens: int | None = None
    at_any_length: bool = False
    refused: set[str] = field(default_factory=set)
    timeout: float = 600.0


class ModelClient(Protocol):
    """A model behind one of the APIs."""

    api: Literal["chat", "responses"]
    """Which API."""

    def user(self, text: str) -> Item:
        """An item with the text of a person, or of the workflow in a person's place."""
        ...

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        """An item with the result of one of the model's calls. Each call needs exactly one before the next turn."""
        ...

    async def ask(self, request: Request) -> Turn:
        """The model's next turn, after short retries. Cancellation closes the connection; the turn may be billed.

        Raises:
            ContextOverflow: the history is too long for the model.
            Failure: of class RateLimited or Provider; never one of Python's, openai's or httpx2's own errors.
        """
        ...

    async def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        ...


def open_model(model: Model, secret: Secrets, *, sleep: Sleep = asyncio.sleep, now: Clock = time.time) -> ModelClient:
    """A client for ``model``. Nothing is sent yet; the first call imports openai, which takes about a second.

    The key is read from ``model.credentials``, or else from the environment variable ``OPENAI_API_KEY``. If the model
    names no endpoint, ``OPENAI_BASE_URL`` is read too.

    Raises:
        Failure: of class Provider: the key is missing or not valid, or the endpoint's address, a proxy or a
            certificate of the environment cannot be used.
    """
    from agentrun.runner.endpoint import Endpoint  # noqa: PLC0415  (lazy: see above)

    endpoint = Endpoint(model, secret, sleep=sleep, now=now)
    if model.api == "chat":
        from agentrun.runner.chat import ChatCompletions  # noqa: PLC0415

        return ChatCompletions(endpoint)
    from agentrun.runner.responses import Responses  # noqa: PLC0415

    return Responses(endpoint)
