"""What both APIs share: how to read a turn, and how to write it in the plainest form for another endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrun.runner.call_names import Names, name_to_send, tool_name
from agentrun.runner.dialect import (
    NOTHING,
    Heard,
    Malformed,
    arguments,
    arguments_to_send,
    label,
    read_usage,
)
from agentrun.runner.models import Item, ModelCall, Turn
from agentrun.runner.thoughts import without_thoughts

WORDLESS = "(no text)"
"""The text, in the plainest history, of a turn that has only calls."""

CALLS_MAX = 1_000
"""The most tool calls of one turn."""


def turn_of(
    answer: dict[str, Any], items: list[Item], heard: Heard, *, refusal: str | None, incomplete: str | None
) -> Turn:
    """Build the turn of an answer from ``heard``, which was read from its items.

    Raises:
        Malformed: the answer has more than ``CALLS_MAX`` calls.
    """
    if len(heard.calls) > CALLS_MAX:
        raise Malformed(f"it has more than {CALLS_MAX} tool calls")
    names = Names().of(call.id for call in heard.calls)
    return Turn(
        items=items,
        text=without_thoughts(heard.text) if heard.text else None,
        calls=tuple(
            ModelCall(name, tool_name(call.name), *arguments(call.arguments))
            for name, call in zip(names, heard.calls, strict=True)
        ),
        usage=read_usage(answer.get("usage")),
        refusal=refusal,
        incomplete=incomplete,
        response_id=label(answer.get("id")),
        model=label(answer.get("model")),
    )


def said_plainly(heard: Heard, ids: Sequence[str]) -> str:
    """The text of a turn without thoughts. It is never empty: some endpoints refuse empty text, even beside calls, and
    some refuse null.
    """
    text = without_thoughts(heard.text or "") or heard.refusal or ""
    return text if text.strip() else WORDLESS if ids else NOTHING


def calls_to_send(heard: Heard, ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, in a form that every endpoint accepts."""
    return [
        (name, name_to_send(call.name), arguments_to_send(call.arguments))
        for call, name in zip(heard.calls, ids, strict=True)
    ]
