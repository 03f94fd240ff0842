"""A turn of the Responses API: how it is read from an answer, and how it is sent back in the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrun.api.texts import quoted
from agentrun.api.values import JSON
from agentrun.runner.call_names import name_to_send
from agentrun.runner.dialect import (
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
    label,
    own_call,
)
from agentrun.runner.models import Item, Turn
from agentrun.runner.plain_turns import WORDLESS, calls_to_send, said_plainly, turn_of

_UNFINISHED = ("queued", "in_progress", "pending", "running", "processing", "requires_action")
_SENT_PARTS = {"output_text": "text", "refusal": "refusal"}


def read_turn(answer: dict[str, Any]) -> Turn:
    """The turn in an answer.

    Raises:
        Malformed: the answer holds no turn.
        AnswerFailed: the endpoint says that it failed.
    """
    inner = answer.get("response")
    if isinstance(inner, dict) and "output" not in answer:  # the last event of a stream
        answer = inner
    status = answer.get("status")
    details = answer.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else details
    if isinstance(status, str) and status.lower() in _UNFINISHED:
        raise Malformed(f"its status is {quoted(status)}")
    ended = ending(status, reason)
    if ended.kind == "failed":
        raise AnswerFailed({"code": "server_error", "message": f"the answer ended with status {ended.reason}"})
    items = _items(answer)
    heard = heard_in(items)
    cut = (label(reason) or "unknown") if ended.kind == "cut" else None
    return turn_of(answer, items, heard, refusal=heard.refusal, incomplete=cut)


def _items(answer: dict[str, Any]) -> list[Item]:
    output = answer.get("output")
    items: list[Item] = []
    for entry in output if isinstance(output, list) else [output]:
        if isinstance(entry, str):
            items.append({"type": "message", "role": "assistant", "content": entry})
        elif isinstance(entry, dict) and entry.get("type") in ("output_text", "text", "refusal"):
            items.append({"type": "message", "role": "assistant", "content": [entry]})  # a part without its message
        elif isinstance(entry, dict):
            # An item without a type gets one, so that the journal distinguishes it from a message of Chat Completions.
            items.append(entry if isinstance(entry.get("type"), str) else entry | {"type": kind_of(entry)})
        elif entry is not None:
            raise Malformed("output is not a list of objects")
    text = answer.get("output_text")
    if isinstance(text, str) and text and not any(heard_in(items)):
        items.append({"type": "message", "role": "assistant", "content": text})
    if not items and output is None:
        other = "; it is an answer of Chat Completions: write api: chat" if "choices" in answer else ""
        if other or "status" not in answer:
            raise Malformed(f"it has no output{other}")
    return items


def kind_of(item: Item) -> str:
    """The kind of an item; some gateways omit the type."""
    kind = item.get("type")
    if kind in ("function_call", "tool_call", "function_tool_call") or (kind is None and "arguments" in item):
        return "function_call"
    if own_call(item) is not None:
        return "function_call"
    if kind == "message" or (kind is None and "content" in item):
        return "message" if item.get("role") in (None, "", "assistant", "model") else "other"
    return kind if isinstance(kind, str) else "other"


def heard_in(items: Sequence[Item]) -> Heard:
    """The content of the items of one turn. Commentary comes before the answer and is not part of it."""
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[Call] = []
    for item in items:
        kind = kind_of(item)
        if kind == "function_call":
            calls.append(_call(item))
        elif kind == "message":
            text, said = heard_content(item.get("content"))
            refusals += [said] if said is not None else []
            texts += [text] if text is not None and item.get("phase") != "commentary" else []
    return Heard(joined(texts), "\n".join(refusals) if refusals else None, tuple(calls))


def _call(item: Item) -> Call:
    function = item.get("function")
    found = own_call(item) or own_call({**item, "type": "function"} if isinstance(function, dict) else None)
    name, given = (found.name, found.arguments) if found else (item.get("name"), item.get("arguments"))
    return Call(item.get("call_id") or item.get("id"), name, given)


def back(items: Sequence[Item], heard: Heard, ids: Sequence[str]) -> list[Item]:
    """The turn as it is sent back to its own endpoint: the endpoint's fields stay, and invalid ones are corrected."""
    names, calls = iter(ids), iter(heard.calls)
    sent: list[Item] = []
    for item in items:
        kept = {key: value for key, value in item.items() if value is not None}
        if "id" in kept and not (isinstance(kept["id"], str) and kept["id"]):
            del kept["id"]
        kind = kind_of(item)
        if kind == "function_call":
            call = next(calls)
            kept |= {"type": "function_call", "call_id": next(names), "name": name_to_send(call.name)}
            kept["arguments"] = arguments_to_send(call.arguments)
            kept = {key: value for key, value in kept.items() if key not in ("function", "input")}
        elif kind == "message":
            content = _content(item.get("content"))
            if not content:
                continue
            kept |= {"type": "message", "role": "assistant", "content": content}
            kept = kept if "id" in kept and "status" in kept else without_id(kept)
        elif kind == "reasoning":
            if not kept.get("encrypted_content") and not kept.get("content"):
                continue  # it has only an id, and the provider stores nothing under it
            kept.setdefault("summary", [])
        elif "call_id" in item or kind == "other":
            continue  # a call of a tool that was never offered, which has no result; or a message of another role
        sent.append(kept)
    while sent and kind_of(sent[-1]) == "reasoning":
        sent.pop()  # the API refuses reasoning at the end; an answer that was cut off can end with it
    return sent if any(kind_of(item) in ("message", "function_call") for item in sent) else [*sent, _message(NOTHING)]


def _content(content: JSON) -> JSON:
    if are_parts(content):
        parts = []
        for part in content:
            kept = {key: value for key, value in part.items() if value is not None}
            if kept.get("type") in (None, "text", "input_text"):
                kept["type"] = "output_text"
            if kept["type"] == "output_text":
                kept.setdefault("annotations", [])
            if isinstance(kept.get(_SENT_PARTS.get(str(kept["type"]), "")), str):
                parts.append(kept)
        return parts if any(part.get("text") or part.get("refusal") for part in parts) else None
    text, refusal = heard_content(content)
    return text or refusal


def without_id(item: Item) -> Item:
    """``item`` without its id. A message in parts needs an id, so only its text is sent."""
    if item.get("type") != "message":
        return {key: value for key, value in item.items() if key != "id"}
    text, refusal = heard_content(item.get("content"))
    phase = {"phase": item["phase"]} if "phase" in item else {}
    return _message(text or refusal or NOTHING) | phase


def _message(text: str) -> Item:
    return {"type": "message", "role": "assistant", "content": text}


def made(heard: Heard, ids: Sequence[str]) -> list[Item]:
    """The turn in the plainest form, which every endpoint accepts, whichever model it came from: without reasoning."""
    text = said_plainly(heard, ids)
    calls: list[Item] = [
        {"type": "function_call", "call_id": name, "name": tool, "arguments": arguments}
        for name, tool, arguments in calls_to_send(heard, ids)
    ]
    return [*([] if text == WORDLESS else [_message(text)]), *calls]
