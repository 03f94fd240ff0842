"""What the turns of both APIs have in common: how they are read, and how they are told again in plain words."""

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
    without_thoughts,
)
from agentrun.runner.models import Item, ModelCall, Turn

WORDLESS = "(no text)"
"""Stands in the plainest history for the text of a turn that only calls."""

CALLS_MAX = 1_000
"""Tool calls of one turn."""


def turn_of(
    answer: dict[str, Any], items: list[Item], heard: Heard, *, refusal: str | None, incomplete: str | None
) -> Turn:
    """The turn that an answer holds, by what is heard in its items.

    Raises:
        Malformed: it has too many calls.
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
    """The text of a turn without thoughts, which is never empty: some endpoints refuse that beside calls, too, and some
    refuse null.
    """
    text = without_thoughts(heard.text or "") or heard.refusal or ""
    return text if text.strip() else WORDLESS if ids else NOTHING


def calls_to_send(heard: Heard, ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, as every endpoint takes them."""
    return [
        (name, name_to_send(call.name), arguments_to_send(call.arguments))
        for call, name in zip(heard.calls, ids, strict=True)
    ]
