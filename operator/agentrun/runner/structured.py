"""Structured output: how a schema is asked for, and how the answer is read."""

from __future__ import annotations

import json

from agentrun.api.values import JSON
from agentrun.api.workflow import JsonSchema
from agentrun.plan.schema import compile_schema
from agentrun.runner.untrusted import parse_json

# What constrained decoding takes, in its provider's documentation of structured outputs. A keyword that is not here
# would have the whole request refused, so its schema is asked for without strictness and checked by us alone.
_STRICT = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs",
    "title", "description", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minItems", "maxItems",
})  # fmt: skip
_STRICT_DEPTH = 10

_FENCE = "```"


def fits_strict_mode(schema: JsonSchema) -> bool:
    """Whether a model API's strict mode takes ``schema``.

    That is: an object at the root, every object closed with all its properties required, at most ten levels, and
    no keyword outside the subset that constrained decoding knows.
    """
    return schema.get("type") == "object" and "anyOf" not in schema and _strict(schema, 0)


def _strict(schema: JSON, level: int) -> bool:
    if not isinstance(schema, dict) or level > _STRICT_DEPTH or not schema.keys() <= _STRICT:
        return False
    properties = schema.get("properties", {})
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema:
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(properties):
            return False
    inner = [*properties.values(), *schema.get("anyOf", ()), *schema.get("$defs", {}).values()]
    if "items" in schema:
        inner.append(schema["items"])
    return all(_strict(part, level + 1) for part in inner)


def can_be_enforced(schema: JsonSchema) -> bool:
    """Whether the APIs take ``schema`` as an output format at all: only with an object at its root."""
    return schema.get("type") == "object"


def in_words(schema: JsonSchema) -> str:
    """The request for an output that the API cannot be told of, as an addition to the instructions."""
    text = json.dumps(schema, ensure_ascii=False)
    return f"Answer with JSON only, without any other text, that is valid under this JSON Schema:\n{text}"


def parse_structured(text: str, schema: JsonSchema) -> tuple[JSON, list[str]]:
    """The value in ``text``, and what is wrong with it in words that the model can act on (nothing, if it will do).

    A Markdown fence around it is taken off unless strict mode made one impossible. The schema was checked before.
    """
    try:
        value = parse_json(text if fits_strict_mode(schema) else _unfenced(text))
    except ValueError as error:
        return None, [f"the answer is not JSON: {error}"]
    return value, compile_schema(schema).errors(value)


def _unfenced(text: str) -> str:
    """``text`` without the Markdown fence that models like to put around JSON; other fences are left alone."""
    first, _, rest = text.strip().partition("\n")
    if first.strip().lower() in (_FENCE, f"{_FENCE}json") and rest.endswith(_FENCE):
        return rest.removesuffix(_FENCE)
    return text
