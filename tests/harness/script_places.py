"""Valid requests to the scripted model, and every place in them where a test can put a wrong value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

LOOK_UP: dict[str, Any] = {
    "type": "function",
    "name": "look_up_order",
    "description": "The order.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"orderId": {"type": "string"}},
        "required": ["orderId"],
        "additionalProperties": False,
    },
}


CHAT_LOOK_UP = {"type": "function", "function": {name: LOOK_UP[name] for name in ("name", "parameters", "strict")}}


SEALED: Any = ["reasoning.encrypted_content"]


TEXT = "Order 4711 arrived broken."


USER = {"role": "user", "content": TEXT}


CALL = {"type": "function_call", "call_id": "call_a", "name": "look_up_order", "arguments": "{}"}


RESULT = {"type": "function_call_output", "call_id": "call_a", "output": "{}"}


SCHEMA: dict[str, Any] = {"type": "json_schema", "name": "decision", "schema": {"type": "object", "properties": {}}}


CHAT_CALL = {"id": "call_a", "type": "function", "function": {"name": "t", "arguments": "{}"}}


ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}


TOOL = {"role": "tool", "tool_call_id": "call_a", "content": "{}"}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


VALID: dict[str, Any] = {
    "/v1/responses": {
        "model": "m",
        "store": False,
        "input": [USER, CALL, RESULT, {"role": "user", "content": [{"type": "input_text", "text": "x"}]}],
        "instructions": "Decide.",
        "tools": [{**LOOK_UP, "parameters": {**LOOK_UP["parameters"], "anyOf": [{"type": "string"}], "$defs": {}}}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "look_up_order"}],
        },
        "text": {"format": {**SCHEMA, "schema": LOOK_UP["parameters"], "strict": True}},
        "include": SEALED,
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "stream": True,
        "max_output_tokens": 100,
    },
    "/v1/chat/completions": {
        "model": "m",
        "messages": [USER, ASSISTANT, TOOL],
        "tools": [CHAT_LOOK_UP],
        "tool_choice": {"type": "function", "function": {"name": "look_up_order"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "d", "schema": LOOK_UP["parameters"]}},
        "stream": True,
        "stream_options": {"include_usage": True},
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy
