"""A turn of Chat Completions: how it is read from an answer, and how it is sent back in the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrun.api.values import JSON
from agentrun.runner.call_names import name_to_send
from agentrun.runner.dialect import (
    ARGUMENTS,
    NOTHING,
    AnswerFailed,
    Call,
    Heard,
    Malformed,
    are_parts,
    arguments_to_send,
    ending,
    heard_content,
    joined,
    own_call,
    refused,
)
from agentrun.runner.models import Item, Turn
from agentrun.runner.plain_turns import calls_to_send, said_plainly, turn_of

_PAYLOADS = {"text": "text", "refusal": "refusal"}
"""The parts of a message that OpenAI accepts in a history, with the field of their text."""


def read_turn(answer: dict[str, Any]) -> Turn:
    """The turn in an answer.

    Raises:
        Malformed: the answer holds no turn.
        AnswerFailed: the endpoint says that it failed while it answered.
    """
    choices = answer.get("choices")
    choices = [one for one in (choices if isinstance(choices, list) else [choices]) if isinstance(one, dict)]
    if not choices:
        other = "; it is an answer of the Responses API: write api: responses" if "output" in answer else ""
        raise Malformed(f"it has no choices{other}")
    error = next((one["error"] for one in choices if one.get("error")), None)
    ended = ending(*(one.get(key) for one in choices for key in ("finish_reason", "native_finish_reason")))
    if error or ended.kind == "failed":
        words = f"the answer ended with {ended.reason or 'an error'}"
        given = error if isinstance(error, dict) else {"message": error or words}
        # An error inside an answer that has no code counts as a server error.
        raise AnswerFailed(given if given.get("code") else given | {"code": "server_error"})
    items = _messages(choices)
    heard = heard_in(items)
    said = heard.refusal or ((heard.text or "refused") if ended.reason.startswith("refus") else None)
    return turn_of(answer, items, heard, refusal=said, incomplete=ended.reason if ended.kind == "cut" else None)


def _messages(choices: list[dict[str, Any]]) -> list[Item]:
    """The messages of the turn: the first that has content, and the calls if a gateway put them into another choice."""
    items = [_message(choice) for choice in choices]
    heard = [heard_in([item]) for item in items]
    main = next((n for n, said in enumerate(heard) if said.calls or said.refusal or said.text), 0)
    calls = next((n for n, said in enumerate(heard) if said.calls), main)
    return [items[main]] if calls == main or heard[main].calls else [items[main], items[calls]]


def _message(choice: dict[str, Any]) -> Item:
    message: JSON = next((choice[key] for key in ("message", "delta", "text") if choice.get(key) is not None), {})
    if isinstance(message, str):
        message = {"content": message}
    if not isinstance(message, dict):
        raise Malformed("its message is not an object")
    if str(message.get("role") or "assistant").lower() in ("user", "system", "developer", "tool", "function"):
        raise Malformed("its message is not the assistant's")
    # The API sends nulls and empty lists that it does not accept itself. With a type, ``history`` would take the
    # message for an item of Responses.
    kept = {key: value for key, value in message.items() if value is not None and value != [] and key != "type"}
    return kept | {"role": "assistant", "content": message.get("content")}


def _calls_in(message: Item) -> tuple[Call, ...]:
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else [calls]
    found = []
    for call in calls:
        if isinstance(call, dict) and call:
            function = call.get("function")
            function = function if isinstance(function, dict) else call
            given = next((function[key] for key in ARGUMENTS if key in function), None)
            found.append(Call(call.get("id"), function.get("name"), given))
    legacy = message.get("function_call")
    if not found and isinstance(legacy, dict) and legacy.get("name"):
        found.append(Call(None, legacy["name"], legacy.get("arguments")))
    return tuple(found or filter(None, map(own_call, _list(message.get("content")))))


def heard_in(items: Sequence[Item]) -> Heard:
    """The content of the messages of one turn."""
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[Call] = []
    for message in items:
        text, said = heard_content(message.get("content"))
        said = refused(message.get("refusal")) or said
        texts += [text] if text is not None else []
        refusals += [said] if said is not None else []
        calls += _calls_in(message)
    return Heard(joined(texts), "\n".join(refusals) if refusals else None, tuple(calls))


def back(items: Sequence[Item], heard: Heard, ids: Sequence[str]) -> list[Item]:
    """The turn as it is sent back to its own endpoint: the endpoint's fields stay, and invalid ones are corrected."""
    message: Item = {}
    for item in reversed(items):
        message |= {key: value for key, value in item.items() if value is not None and value != []}
    for key in ("tool_calls", "function_call", "content", *(() if refused(message.get("refusal")) else ("refusal",))):
        message.pop(key, None)
    own = [call for item in items for call in _list(item.get("tool_calls")) if isinstance(call, dict) and call]
    own += [{}] * (len(ids) - len(own))
    calls = [
        {k: v for k, v in given.items() if v is not None and k not in ("name", *ARGUMENTS)}
        | {"id": name, "type": "function"}
        | {"function": _function(given.get("function"), call)}
        for given, call, name in zip(own, heard.calls, ids, strict=True)
    ]
    message = {"role": "assistant", "content": _content(items, heard, bool(calls))} | message
    return [message | {"role": "assistant"} | ({"tool_calls": calls} if calls else {})]


def _function(given: JSON, call: Call) -> dict[str, Any]:
    own = {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else {}
    return own | {"name": name_to_send(call.name), "arguments": arguments_to_send(call.arguments)}


def _content(items: Sequence[Item], heard: Heard, calls: bool) -> JSON:
    content = next((item["content"] for item in items if item.get("content")), None)
    if content and are_parts(content) and (calls or (heard.text or "").strip()):
        # A part without a type is a text, but endpoints require the type.
        parts = [
            {"type": "text"} | {key: value for key, value in part.items() if value is not None}
            for part in content
            if own_call(part) is None
        ]
        return [part for part in parts if isinstance(part.get(_PAYLOADS.get(part.get("type", "text"), "type"), 0), str)]
    if heard.text is not None and (calls or heard.text.strip()):
        return heard.text
    return None if calls else heard.refusal or NOTHING


def made(heard: Heard, ids: Sequence[str]) -> list[Item]:
    """The turn in the plainest form, which every endpoint accepts, whichever model it came from."""
    message: Item = {"role": "assistant", "content": said_plainly(heard, ids)}
    if ids:
        message["tool_calls"] = [
            {"id": name, "type": "function", "function": {"name": tool, "arguments": arguments}}
            for name, tool, arguments in calls_to_send(heard, ids)
        ]
    return [message]


def _list(value: JSON) -> list[Any]:
    return value if isinstance(value, list) else [value]
