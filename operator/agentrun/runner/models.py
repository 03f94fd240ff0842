"""What the agent loop sees of a model: one question, one turn. Which API is spoken stays behind ``ModelClient``.

A turn is recorded as JSON items in the provider's own form, verbatim: reasoning that only its provider can read
(``encrypted_content``) has to go back exactly as it came, or the model starts every turn from nothing. ``history``
makes of the recorded turns what an endpoint takes back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agentrun.api.values import JSON
from agentrun.api.workflow import JsonSchema, Model
from agentrun.runner.retrying import Clock, Sleep
from agentrun.runner.secrets import Secrets
from agentrun.runner.strict import fits_strict_mode

Item = dict[str, Any]
"""One entry of the history, in the provider's form."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn. ``cached`` is the part of ``input`` that was billed as cached. Zero where unreported."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def __post_init__(self) -> None:
        # Some endpoints count cached tokens beside the input; a cost below nothing would earn budget back.
        object.__setattr__(self, "cached", min(self.cached, self.input))


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A tool call that the model asks for.

    ``args`` is None, and ``error`` says why, where the arguments are not a JSON object: the model is told, nothing
    is called. ``name`` may be no tool at all, and ``args`` are not yet checked against the tool's parameters. ``id``
    tells the calls of one turn apart; where the endpoint gave none, it is made up.
    """

    id: str
    name: str
    args: dict[str, JSON] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model answered. ``items`` is to be recorded as it stands; ``text`` is without the model's thoughts.

    ``incomplete`` names the reason (``max_output_tokens``, ``content_filter``, …) where the answer was cut off; its
    text and calls may then be fragments. Text, calls and refusal may all be missing: a model can answer nothing.
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
    """A tool as the model is told of it."""

    name: str
    description: str
    parameters: JsonSchema
    strict: bool = field(init=False)
    """Whether strict mode takes the parameters."""

    def __post_init__(self) -> None:
        # Told once: tools are sent with every turn of a step.
        object.__setattr__(self, "strict", fits_strict_mode(self.parameters))


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model. ``timeout`` bounds each try, in seconds; the caller bounds the whole.

    ``refused`` is what the endpoint is known to refuse (words of ``refusals``); the client adds what it learns.
    ``at_any_length``: the bound of the answer is a wish, and is left out where the endpoint takes none.
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
    """Which one."""

    def user(self, text: str) -> Item:
        """What a person, or the workflow in their place, says."""
        ...

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        """The answer to one of the model's calls; each call needs exactly one before the next turn."""
        ...

    async def ask(self, request: Request) -> Turn:
        """The model's next turn, after short retries. Cancellation closes the connection; the turn may be billed.

        Raises:
            ContextOverflow: the history is too long for the model.
            Failure: of class RateLimited or Provider; never one of Python's, openai's or httpx2's own errors.
        """
        ...

    async def close(self) -> None:
        """Close the connections. The client is of no use afterwards."""
        ...


def open_model(model: Model, secret: Secrets, *, sleep: Sleep = asyncio.sleep, now: Clock = time.time) -> ModelClient:
    """A client for ``model``. Nothing is sent yet; the first call imports openai, which takes about a second.

    The key is read from ``model.credentials``, else from the environment variables of the openai client
    (``OPENAI_API_KEY``, and ``OPENAI_BASE_URL`` where the model names no endpoint).

    Raises:
        Failure: of class Provider: there is no key, or it cannot be one.
    """
    from agentrun.runner.endpoint import Endpoint  # noqa: PLC0415  (lazy: see above)

    endpoint = Endpoint(model, secret, sleep=sleep, now=now)
    if model.api == "chat":
        from agentrun.runner.chat import ChatCompletions  # noqa: PLC0415

        return ChatCompletions(endpoint)
    from agentrun.runner.responses import Responses  # noqa: PLC0415

    return Responses(endpoint)
