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
        *(
            closed(a={"type": "string", "pattern": pattern})
            for pattern in (
                "",
                "a",
                "^a",
                "a$",
                r"^[A-Z]{2}-\d{4,6}$",
                r"^(?:a|b)+$",
                r"(a|b)*c?",
                r"^[\w.+-]+@[\w-]+\.\w{2,}$",
                r"^\$\^\(\?=$",
                "[^a-z]",
                "[(?=]",
                "[$^*]",
                "a{2}b{2,}c{2,3}",
                "ü",
                "a/b",
            )
        ),
        closed(a={"type": "array", "items": TEXT, "minItems": 0, "maxItems": 0}),
        closed(a={"type": "array", "items": TEXT, "minItems": 3}),
        closed(a={"type": "number", "minimum": 1, "maximum": 1, "multipleOf": 0.01}),
        closed(a={"type": ["string", "null"], "pattern": "a", "format": "date"}),
        closed(a={"type": ["integer", "null"], "minimum": 0}),
        closed(a={"type": "boolean", "enum": [True, False]}),
        closed(a={"type": ["integer", "boolean"], "enum": [1, True, 0, False]}),
        closed(a={"anyOf": [closed(kind={"type": "string", "const": c}, x=TEXT) for c in "ab"]}),
        closed(a={"anyOf": [closed(kind={"type": "string", "enum": [c, c * 2]}, x=TEXT) for c in "ab"]}),
        closed(a={"anyOf": [closed(b=TEXT), closed(c=TEXT), closed(), TEXT, {"type": "null"}]}),
        closed(a={"anyOf": [{"$ref": "#/$defs/D.1-x"}, closed(c=TEXT)]}) | {"$defs": {"D.1-x": closed(b=TEXT)}},
        nested(10),
        closed(**{f"p{n}": TEXT for n in range(5_000)}),
        closed(**{"x" * 60_000: TEXT, "y" * 60_000: TEXT}),
        closed(a={"type": "string", "enum": ["x" * 119_999]}),
        closed(a={"type": "string", "const": "x" * 119_999}),
        with_def(**TEXT) | {"$defs": {"D": TEXT, "x" * 119_998: TEXT}},
        closed(
            a={"type": "string", "enum": [f"a{n}" for n in range(500)]},
            b={"type": "string", "enum": [f"b{n}" for n in range(500)]},
        ),
        closed(a={"type": "string", "enum": [str(n).rjust(59, "x") for n in range(254)]}),  # 14,986 characters
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
        *(
            closed(a={"type": "string", "pattern": pattern})
            for pattern in (
                "(?=a)",
                "(?!a)b",
                "(?<=a)b",
                "(?<!a)b",
                "(?i)a",
                "(?i:a)",
                "(?P<n>a)",
                "(?<n>a)",
                r"(a)\1",
                r"\1",
                r"\p{L}",
                r"[\p{L}]",
                r"\bword\b",
                r"\Aa\z",
                r"\x4",
                r"\u{1F600}",
                "a+?",
                "a*?",
                "a??",
                "a{2}?",
                "a++",
                "a**",
                "a^b",
                "a$b",
                "^a$|^b$",
                "[a&&b]",
                "[a--b]",
                "[[:alpha:]]",
                "[[a]b]",
                r"[\w-.]",
                "[]a]",
                "[z-a]",
                "(a",
                "a)",
                "[a",
                "*a",
                "a{3,2}",
                "a{,3}",
                "x\\",
            )
        ),
        closed(a={"type": "string", "pattern": 1}),
        closed(a={"type": "string", "pattern": None}),
        closed(a={"type": "string", "format": None}),
        closed(a={"type": "string", "format": ["date"]}),
        *(
            closed(a={"type": kind, "items": TEXT} | more if kind == "array" else {"type": kind} | more)
            for kind, more in (
                ("integer", {"pattern": "a"}),
                ("number", {"format": "date"}),
                ("string", {"minimum": 1}),
                ("boolean", {"multipleOf": 1}),
                ("string", {"minItems": 1}),
                ("string", {"items": TEXT}),
                ("string", {"properties": {}}),
                ("string", {"additionalProperties": False}),
                ("null", {"required": []}),
                ("array", {"maximum": 1}),
                ("array", {"minItems": -1}),
                ("array", {"minItems": 1.5}),
                ("array", {"minItems": True}),
                ("array", {"minItems": "1"}),
                ("array", {"minItems": 2, "maxItems": 1}),
                ("number", {"minimum": "1"}),
                ("number", {"maximum": True}),
                ("number", {"exclusiveMaximum": True}),
                ("number", {"minimum": 2, "maximum": 1}),
                ("number", {"multipleOf": 0}),
                ("number", {"multipleOf": -1}),
                ("string", {"title": 1}),
                ("string", {"description": ["a"]}),
                ("string", {"enum": ["a", "a"]}),
                ("integer", {"enum": [1, 1]}),
            )
        ),
        closed(a={"type": ["string", "string"]}),
        closed(a={"type": ["string", ["null"]]}),
        closed(a=closed() | {"enum": [{}]}),
        closed(a=closed() | {"const": {}}),
        closed(a={"anyOf": [TEXT], "pattern": "a"}),
        closed(a={"anyOf": [closed(b=TEXT), closed(b=TEXT, c=TEXT)]}),
        closed(a={"anyOf": [closed(k={"type": "string", "const": "x"}, b=TEXT)] * 2}),
        closed(a={"anyOf": [closed(k={"type": "string", "const": "x"}), closed(k=TEXT)]}),
        closed(a={"anyOf": [closed(k={"type": "string", "enum": [c, "z"]}) for c in "xy"]}),
        closed(a={"anyOf": [{"$ref": "#/$defs/D"}, closed(b=TEXT)]}) | {"$defs": {"D": closed(b=TEXT)}},
        closed(a=TEXT) | {"required": ["a", "a"]},
        closed(a=TEXT) | {"required": [["a"]]},
        {**closed(), "properties": {"1": TEXT}, "required": [1]},
        with_def(**TEXT) | {"properties": {"a": {"$ref": "D"}}},
        closed(a={"$ref": "#/$defs/a/b"}) | {"$defs": {"a/b": TEXT}},
        closed(a={"$ref": "#/$defs/a~1b"}) | {"$defs": {"a~1b": TEXT}},
        closed() | {"$ref": "#/$defs/D", "$defs": {"D": closed()}},
        closed() | {"enum": [{}]},
        with_def(**TEXT) | {"$defs": {"D": TEXT, "x" * 119_999: TEXT}},
        closed(a={"type": "string", "const": "x" * 120_000}),
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
        closed(a={"type": "string", "enum": [str(n).rjust(60, "x") for n in range(251)]}),  # 15,060 characters
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
                [
                    "type",
                    "properties",
                    "required",
                    "items",
                    "enum",
                    "const",
                    "anyOf",
                    "$ref",
                    "$defs",
                    "a",
                    "format",
                    "pattern",
                    "minimum",
                    "maximum",
                    "multipleOf",
                    "minItems",
                    "maxItems",
                    "title",
                ]
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
