"""What is left out of schemas that an endpoint refuses, and that every body stays whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.printable import printable
from agentrun.runner import chat, refusals, responses
from agentrun.runner.error_words import read_error
from agentrun.runner.models import Request, ToolSpec
from agentrun.runner.plain_schema import plain_schema
from tests.harness.refused_requests import EVERYTHING, error

TOOL_SCHEMAS = {
    "gemini": [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name "
                                                  "\"additionalProperties\" at "
               "'tools[0].function_declarations[0].parameters': Cannot find field."}}],
    "gemini-empty": error("* GenerateContentRequest.tools[0].function_declarations[0].parameters.properties: should be "
                          "non-empty for OBJECT type"),
    "anthropic": error("tools.0.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12"),
    "keyword": error("Invalid schema for function 'pay': keyword 'oneOf' is not permitted"),
    "other": {"detail": "Provided tool schema is not supported"},
}  # fmt: skip


@pytest.mark.parametrize("name", TOOL_SCHEMAS)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_schemas_of_tools_become_less_strict_and_then_plain(name: str, api: str) -> None:
    request = Request(**EVERYTHING)
    make = {"chat": chat.body_of, "responses": responses.body_of}[api]
    said = read_error(json.dumps(TOOL_SCHEMAS[name]).encode(), "application/json", str)
    refused: set[str] = set()
    for word in (refusals.STRICT_SCHEMAS, refusals.PLAIN_SCHEMAS):
        body = make(request, "m", refused)
        assert refusals.refusal(body, said) == word
        refused.add(word)
        assert make(request, "m", refused) != body
    tools = [tool.get("function", tool) for tool in make(request, "m", {refusals.PLAIN_SCHEMAS})["tools"]]
    assert "parameters" not in tools[0]
    assert tools[1]["parameters"] == {
        "type": "object", "properties": {"refund": {"type": "boolean"}}, "required": ["refund"],
    }  # fmt: skip
    assert not any(tool.get("strict") for tool in tools)


WHOLE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["a", "b", "gone"],
    "properties": {
        "a": {"type": ["string", "null"], "minLength": 1, "format": "uri", "description": "An address."},
        "b": {"$ref": "#/$defs/B", "description": "Which."},
        "c": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 1},
        "d": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        "e": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "uniqueItems": True},
        "f": {"enum": [1, "x"]},
        "g": {"const": "x"},
        "h": {"$ref": "#/$defs/none"},
        "i": True,
    },
    "$defs": {
        "B": {"enum": ["x", "y"]},
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "minProperties": 1},
    },
}


def test_a_plain_schema() -> None:
    assert plain_schema(WHOLE) == {
        "type": "object",
        "required": ["a", "b"],
        "properties": {
            "a": {"type": "string", "description": "An address."},
            "b": {"type": "string", "enum": ["x", "y"], "description": "Which."},
            "c": {"type": "integer"},
            "d": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "e": {"type": "array", "items": {"type": "object", "properties": {"next": {"type": "object"}}}},
            "f": {},
            "g": {"type": "string", "enum": ["x"]},
            "h": {},
            "i": {},
        },
    }


def test_a_tool_without_a_description_has_one() -> None:
    """Some endpoints refuse an empty one, others a tool without one."""
    request = Request("", [], tools=[ToolSpec("look_up", "", {"type": "object"})])
    assert chat.body_of(request, "m")["tools"][0]["function"]["description"] == "look_up"
    assert responses.body_of(request, "m")["tools"][0]["description"] == "look_up"


every_word = st.sampled_from(
    ["plain-schemas", "history", "parallel_tool_calls", "include", "store", "strict-schemas", "strict", "json_schema",
            "json_object", "system",
     "format-with-tools", "instructions", "max_completion_tokens", "max_tokens", "max_output_tokens", ">100"]
)  # fmt: skip


@settings(deadline=None)
@given(st.sets(every_word))
def test_every_body_is_whole_whatever_is_refused(refused: set[str]) -> None:
    request = Request(**EVERYTHING)
    for made in (chat.body_of(request, "m", refused), responses.body_of(request, "m", refused)):
        assert "Decide." in str(made)
        assert "hi" in str(made)
        assert len(made["tools"]) == 2
        assert "refund" in str({k: v for k, v in made.items() if k != "tools"})
        assert {"max_completion_tokens", "max_tokens", "max_output_tokens"} & set(made)
    assert request.history == EVERYTHING["history"]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["strict", "tools", "messages"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "message", "detail", "loc", "param", "code", "type", "path", "keys", "metadata"]),
                inner
    ),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(json_like)
def test_no_error_raises(value: Any) -> None:
    said = read_error(json.dumps(value).encode(), "application/json", str)
    assert printable(said.words) == said.words
    for body in (chat.body_of(Request(**EVERYTHING), "m"), responses.body_of(Request(**EVERYTHING), "m")):
        refusals.refusal(body, said)
        refusals.bound(body, said)
        refusals.advice(body, said)
