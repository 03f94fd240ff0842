"""Structured output: how a schema is sent, and how the answer is read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agentrun.api.tools import JsonSchema
from agentrun.api.values import JSON
from agentrun.runner import refusals
from agentrun.runner.lenient import fenced, json_values, mended
from agentrun.runner.models import Item, Request, ToolSpec
from agentrun.runner.plain_schema import plain_schema
from agentrun.runner.refusals import Refused
from agentrun.runner.strict import fits_strict_mode
from agentrun.workflow.json_schema import compile_schema


def format_of(schema: JsonSchema | None, refused: Refused, *, with_tools: bool) -> str | None:
    """The type of the output format of a request. None: no format is sent, and a schema is sent only in words.

    The APIs accept a schema only if its root is an object. An endpoint that refuses the schema may still accept
    ``json_object``.
    """
    if schema is None or schema.get("type") != "object" or (with_tools and refusals.FORMAT_WITH_TOOLS in refused):
        return None
    if refusals.JSON_SCHEMA not in refused:
        return refusals.JSON_SCHEMA
    return None if refusals.JSON_OBJECT in refused else refusals.JSON_OBJECT


def strictness(schema: JsonSchema, refused: Refused) -> dict[str, bool]:
    """The field ``strict`` of a format with ``schema``; empty if the endpoint refuses the field."""
    if refusals.STRICT in refused:
        return {}
    return {"strict": refusals.STRICT_SCHEMAS not in refused and fits_strict_mode(schema)}


def parameters(tool: ToolSpec, refused: Refused) -> dict[str, JSON]:
    """The field ``parameters`` of a tool in a form that the APIs accept: some refuse an object schema without
    ``properties``, others one whose ``properties`` are empty.
    """
    if refusals.PLAIN_SCHEMAS in refused:
        plain = plain_schema(tool.parameters)
        return {"parameters": plain} if "properties" in plain else {}
    known = tool.parameters
    return {"parameters": known if "properties" in known else {**known, "type": "object", "properties": {}}}


def is_strict(tool: ToolSpec, refused: Refused) -> bool:
    """Whether a tool is sent with ``strict: true``."""
    return tool.strict and not refused & {refusals.STRICT, refusals.STRICT_SCHEMAS, refusals.PLAIN_SCHEMAS}


def instructions_of(request: Request, kind: str | None) -> str:
    """The instructions, followed by the schema in words if the format ``kind`` does not carry it."""
    if request.output_schema is None or kind == refusals.JSON_SCHEMA:
        return request.instructions
    return "\n\n".join(filter(None, (request.instructions, in_words(request.output_schema))))


def said_first(instructions: str, history: Sequence[Item]) -> list[Item]:
    """``history`` with the instructions at its beginning, as part of a user message."""
    first = history[0] if history else {}
    if first.get("role") == "user" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{instructions}\n\n{first['content']}"}, *history[1:]]
    return [{"role": "user", "content": instructions}, *history]


def in_words(schema: JsonSchema) -> str:
    """The output schema in words, as an addition to the instructions."""
    text = json.dumps(schema, ensure_ascii=False)
    return f"Answer with JSON only, without any other text, that is valid under this JSON Schema:\n{text}"


def parse_structured(text: str, schema: JsonSchema) -> tuple[JSON, list[str]]:
    """The value in ``text``, and its errors in words that the model can act on (none if the value can be used).

    Endpoints that ignore the format answer with JSON in a Markdown fence, or between sentences. Such a value is used if
    it is the only one that fits ``schema``, which was checked before.
    """
    check = compile_schema(schema)
    try:
        value = mended(text)
    except ValueError as error:
        found = json_values(text)
        fitting = [one for one in found if not check.errors(one)]
        if len(fitting) > 1:
            marked = [one for block in fenced(text) for one in json_values(block)]
            fitting = [one for one in fitting if one in marked]
        if len(fitting) == 1:
            return fitting[0], []
        if len(found) == 1:
            return found[0], check.errors(found[0])
        many = " (it holds more than one JSON value: write one alone)" if found else ""
        return None, [f"the answer is not JSON: {error}{many}"]
    errors = check.errors(value)
    if errors and isinstance(value, str):  # JSON in a JSON text
        try:
            inner = mended(value)
        except ValueError:
            return value, errors
        return (inner, []) if not check.errors(inner) else (value, errors)
    if errors and isinstance(value, list | dict) and len(value) == 1:  # the value inside a list or under one key
        [inner] = value if isinstance(value, list) else value.values()
        return (value, errors) if check.errors(inner) else (inner, [])
    return value, errors
