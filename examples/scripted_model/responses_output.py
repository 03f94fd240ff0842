"""Writes answers of the Responses API: https://platform.openai.com/docs/api-reference/responses/object."""

from __future__ import annotations

from collections.abc import Iterator

from .answer import CREATED, Answer, pieces
from .conversation import Body, Conversation


def response(asked: Conversation, answer: Answer) -> Body:
    """The response object, complete."""
    body, usage = asked.body, answer.usage
    return {
        "id": f"resp_{asked.digest[:40]}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if answer.incomplete else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": answer.incomplete} if answer.incomplete else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": asked.model,
        "output": _output_items(asked, answer),
        "parallel_tool_calls": asked.parallel,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        },
        "user": None,
    }


def _output_items(asked: Conversation, answer: Answer) -> list[Body]:
    items: list[Body] = []
    status = "incomplete" if answer.incomplete else "completed"
    if answer.seal:
        item: Body = {"id": f"rs_{answer.tag}", "type": "reasoning", "summary": []}
        if "reasoning.encrypted_content" in (asked.body.get("include") or []):
            item["encrypted_content"] = answer.seal
        items.append(item)
    parts: list[Body] = []
    if answer.text is not None:
        parts.append({"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []})
    if answer.refusal is not None:
        parts.append({"type": "refusal", "refusal": answer.refusal})
    if parts:
        items.append(
            {
                "id": f"msg_{answer.tag}00",
                "type": "message",
                "role": "assistant",
                "status": status,
                "content": parts,
            }
        )
    for index, (name, arguments) in enumerate(answer.calls):
        items.append(
            {
                "id": f"fc_{answer.tag}{index:02x}",
                "type": "function_call",
                "status": status,
                "call_id": answer.call_id(index),
                "name": name,
                "arguments": arguments,
            }
        )
    return items


def events(complete: Body) -> Iterator[Body]:
    """The events of https://platform.openai.com/docs/api-reference/responses-streaming that end in ``complete``."""
    for number, event in enumerate(_events(complete)):
        yield {**event, "sequence_number": number}


def _events(complete: Body) -> Iterator[Body]:
    begun = {**complete, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(complete["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "output_index": index, "item": _opened(item)}
        if item["type"] == "function_call":
            prefix = "response.function_call_arguments"
            for delta in pieces(item["arguments"]):
                yield {"type": f"{prefix}.delta", **place, "delta": delta}
            yield {"type": f"{prefix}.done", **place, "name": item["name"], "arguments": item["arguments"]}
        for number, part in enumerate(item.get("content", [])):
            yield from _part_events(part, {**place, "content_index": number})
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{complete['status']}", "response": complete}


def _part_events(part: Body, place: Body) -> Iterator[Body]:
    key = "text" if part["type"] == "output_text" else "refusal"
    extra: Body = {"logprobs": []} if key == "text" else {}
    yield {"type": "response.content_part.added", **place, "part": {**part, key: ""}}
    for delta in pieces(part[key]):
        yield {"type": f"response.{part['type']}.delta", **place, **extra, "delta": delta}
    yield {"type": f"response.{part['type']}.done", **place, **extra, key: part[key]}
    yield {"type": "response.content_part.done", **place, "part": part}


def _opened(item: Body) -> Body:
    """``item`` as it is announced. Its encrypted content is not whole yet: a client must take it from the end."""
    match item["type"]:
        case "message":
            return {**item, "status": "in_progress", "content": []}
        case "function_call":
            return {**item, "status": "in_progress", "arguments": ""}
        case _:
            sealed = item.get("encrypted_content")
            return {**item, "encrypted_content": sealed[: len(sealed) // 2]} if sealed else item
