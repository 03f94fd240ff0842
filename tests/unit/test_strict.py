"""Which schemas are sent with ``strict``: only those that OpenAI's guide allows, by value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.runner.models import ToolSpec
from agentrun.runner.strict import fits_strict_mode

TEXT = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nested(levels: int) -> dict[str, Any]:
    schema = closed(a=TEXT)  # two levels
    for _ in range(levels - 2):
        schema = closed(a=schema)
    return schema


def with_def(**definition: Any) -> dict[str, Any]:
    return closed(a={"$ref": "#/$defs/D"}) | {"$defs": {"D": definition}}


@pytest.mark.parametrize(
    "schema",
    [
        closed(),
        closed(a={"type": "string", "format": "date-time"}),
        *(closed(a={"type": "string", "format": f}) for f in ("time", "date", "duration", "email", "hostname")),
        *(closed(a={"type": "string", "format": f}) for f in ("ipv4", "ipv6", "uuid")),
        closed(a={"type": "string", "pattern": "^a+$", "description": "d", "title": "t"}),
        closed(a={"type": "number", "minimum": 0, "maximum": 9, "multipleOf": 0.5}),
        closed(a={"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9}),
        closed(a={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3}),
        closed(a={"type": ["string", "null"]}),
        closed(a={"type": ["string", "null"], "enum": ["a", None]}),
        closed(a={"type": "string", "const": "a"}),
        closed(a={"type": "number", "enum": [1, 2.5]}),
        closed(a={"anyOf": [TEXT, {"type": "null"}]}),
        closed(a={"anyOf": [TEXT, closed(b=TEXT)], "description": "either"}),
        with_def(**TEXT),
        with_def(**closed(b={"$ref": "#/$defs/D"})),
        closed(a={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        nested(10),
        closed(**{f"p{n}": TEXT for n in range(5_000)}),
        closed(a={"type": "string", "enum": [str(n) for n in range(1_000)]}),
        closed(a={"type": "string", "enum": ["x" * 100 + str(n) for n in range(250)]}),
    ],
)
def test_strict_mode_takes(schema: Any) -> None:
    assert fits_strict_mode(schema)
    assert ToolSpec("t", "", schema).strict


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "array", "items": closed()},
        closed() | {"anyOf": [closed(a=TEXT)]},
        closed() | {"additionalProperties": True},
        closed() | {"additionalProperties": TEXT},
        closed() | {"properties": {"a": TEXT}},
        closed(a=TEXT) | {"required": ["a", "b"]},
        closed() | {"type": ["object", "null"]},
        closed(a={"type": "object"}),
        closed(a={}),
        closed(a=True),
        closed(a={"description": "anything"}),
        closed(a={"enum": ["a"]}),
        closed(a={"const": 1}),
        closed(a={"type": "array"}),
        closed(a={"type": "array", "items": {}}),
        closed(a={"type": "array", "items": [TEXT]}),
        closed(a={"type": "array", "prefixItems": [TEXT], "items": TEXT}),
        closed(a={"type": "array", "items": TEXT, "uniqueItems": True}),
        closed(a={"type": "array", "items": TEXT, "contains": TEXT}),
        closed(a={"type": "any"}),
        closed(a={"type": []}),
        *(
            closed(a={"type": "string", "format": f})
            for f in ("uri", "uri-reference", "iri", "regex", "binary", "byte")
        ),
        closed(a={"type": "integer", "format": "int32"}),
        closed(a={"type": "string", "minLength": 1}),
        closed(a={"type": "string", "maxLength": 1}),
        closed(a={"type": "string", "default": "x"}),
        closed(a={"type": "string", "examples": ["x"]}),
        closed(a={"type": "string", "nullable": True}),
        closed(a={"type": "string", "enum": []}),
        closed(a={"type": "string", "enum": ["a", None]}),
        closed(a={"type": "integer", "enum": [1, True]}),
        closed(a={"type": "string", "const": 1}),
        closed(a={"anyOf": []}),
        closed(a={"oneOf": [TEXT]}),
        closed(a={"allOf": [TEXT]}),
        closed(a={"not": TEXT}),
        closed(a={"if": TEXT, "then": TEXT, "else": TEXT}),
        closed(a=closed(b=TEXT) | {"patternProperties": {"x": TEXT}}),
        closed(a=closed(b=TEXT) | {"dependentRequired": {"b": []}}),
        closed(a=closed(b=TEXT) | {"dependentSchemas": {}}),
        closed(a=closed(b=TEXT) | {"minProperties": 1}),
        closed(a=closed(b=TEXT) | {"unevaluatedProperties": False}),
        closed(a=closed(b=TEXT) | {"propertyNames": TEXT}),
        with_def(**TEXT) | {"properties": {"a": {"$ref": "#/$defs/D", "description": "beside"}}},
        with_def(**TEXT) | {"properties": {"a": {"$ref": "#/$defs/D", "default": None}}},
        with_def(**TEXT) | {"properties": {"a": {"$ref": "#/$defs/E"}}},
        with_def(**TEXT) | {"properties": {"a": {"$ref": "#/properties/a"}}},
        with_def(**TEXT) | {"properties": {"a": {"allOf": [{"$ref": "#/$defs/D"}]}}},
        with_def(type="string", format="uri"),
        with_def(type="object"),
        closed(a={"$ref": "#/definitions/D"}) | {"definitions": {"D": TEXT}},
        closed(a=TEXT) | {"$defs": {"unused": {"type": "object"}}},
        closed(a=closed(b=TEXT) | {"$defs": {}}),
        closed(a=TEXT) | {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        nested(11),
        with_def(**nested(10)),
        closed(**{f"p{n}": TEXT for n in range(5_001)}),
        closed(**{"x" * 60_000: TEXT, "y" * 60_001: TEXT}),
        closed(a={"type": "string", "enum": ["x" * 120_001]}),
        closed(a={"type": "string", "enum": [str(n) for n in range(1_001)]}),
        closed(
            a={"type": "string", "enum": [f"a{n}" for n in range(600)]},
            b={"type": "string", "enum": [f"b{n}" for n in range(600)]},
        ),
        closed(a={"type": "string", "enum": ["x" * 60 + str(n) for n in range(251)]}),
    ],
)
def test_strict_mode_does_not_take(schema: Any) -> None:
    assert not fits_strict_mode(schema)


def test_a_definition_that_is_used_often_is_looked_at_once() -> None:
    chain = {f"d{n}": closed(a={"$ref": f"#/$defs/d{n + 1}"}, b={"$ref": f"#/$defs/d{n + 1}"}) for n in range(60)}
    assert not fits_strict_mode(closed(a={"$ref": "#/$defs/d0"}) | {"$defs": chain | {"d60": TEXT}})
    flat = {f"d{n}": closed(a={"$ref": "#/$defs/e"}, b={"$ref": "#/$defs/e"}) for n in range(60)}
    assert fits_strict_mode(closed(**{n: {"$ref": f"#/$defs/{n}"} for n in flat}) | {"$defs": flat | {"e": TEXT}})


def test_a_chain_of_references_is_followed_so_far_and_no_further() -> None:
    for length, taken in ((40, True), (60, False), (5_000, False)):
        chain: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(length)}
        schema = closed(a={"$ref": "#/$defs/d0"}) | {"$defs": chain | {f"d{length}": TEXT}}
        assert fits_strict_mode(schema) is taken


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["object", "string", "#", "#/$defs/a", "date"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "items", "enum", "const", "anyOf", "$ref", "$defs", "a", "format"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["properties", "required", "$defs", "anyOf", "enum", "title"]), json_like))
def test_no_schema_raises(schema: dict[str, Any]) -> None:
    assert fits_strict_mode({"type": "object", "additionalProperties": False, **schema}) in (True, False)
