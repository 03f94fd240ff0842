"""Schemas: what is accepted, what is refused with which words, and that no value or schema takes for ever."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.errors import InvalidDocument, dotted
from agentrun.plan.schema import MAX_DEPTH, MAX_PARTS, check_schema, compile_schema, depth

ORDER = {
    "type": "object",
    "required": ["id", "items"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
    },
    "$defs": {"item": {"type": "object", "properties": {"price": {"type": "number", "minimum": 0}}}},
}
TREE = {"oneOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)

keywords = st.sampled_from(
    ["type", "items", "anyOf", "properties", "required", "pattern", "$ref", "enum", "minimum", "$defs", "not", "$id"]
)
words = json_values | st.sampled_from(["string", "object", "#", "#/$defs/a", "http://x/y", "(", "^a+$"])
schemas = st.recursive(
    words,
    lambda inner: st.dictionaries(keywords, inner | st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


def problems(schema: Any) -> list[tuple[str, str]]:
    return [(dotted(problem.path), problem.message) for problem in check_schema(schema, ("tools", 0, "parameters"))]


def nested(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_a_value_that_fits() -> None:
    assert compile_schema(ORDER).errors({"id": "4711", "items": [{"price": 2}]}) == []


def test_errors_name_the_place_and_what_is_wrong() -> None:
    assert compile_schema(ORDER).errors({"id": "x", "items": [{"price": 1}, {"price": -1}]}) == [
        'id: "x" does not match "^[0-9]+$"',
        "items[1].price: -1 is less than the minimum of 0",
    ]
    assert compile_schema(ORDER).errors({"id": "1"}) == ['"items" is a required property']


def test_errors_are_few_and_short() -> None:
    found = compile_schema(ORDER).errors({"id": "1", "items": ["x" * 100_000] * 1000})
    assert len(found) == 5
    assert all(len(line) <= 200 for line in found)


@pytest.mark.parametrize(
    ("schema", "place", "words"),
    [
        ({"type": "strin"}, "tools[0].parameters.type", "is not a valid JSON Schema"),
        ({"properties": {"a": {"type": 5}}}, "tools[0].parameters.properties.a.type", "is not a valid JSON Schema"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "tools[0].parameters.properties.a.pattern", "linear time"),
        ({"pattern": "(a)\\1"}, "tools[0].parameters.pattern", "back-references"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "tools[0].parameters.pattern", "bounded size"),
        ({"items": {"$ref": "http://127.0.0.1/x"}}, "tools[0].parameters.items.$ref", "not a schema of this document"),
        ({"$ref": "file:///etc/passwd"}, "tools[0].parameters.$ref", "not a schema of this document"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "tools[0].parameters.$ref", "of this document"),
        ({"$ref": "other.json#/$defs/a"}, "tools[0].parameters.$ref", "not a schema of this document"),
        ({"$ref": "#/$defs/missing"}, "tools[0].parameters.$ref", "not a schema of this document"),
        ({"$ref": "#/examples/0", "examples": [{"$ref": "x"}]}, "tools[0].parameters.$ref", "of this document"),
        ({"$ref": 5}, "tools[0].parameters.$ref", "not a schema of this document"),
        ({"$dynamicRef": "#a"}, "tools[0].parameters.$dynamicRef", "write $ref"),
        ({"not": {"$id": "http://x/y"}}, "tools[0].parameters.not.$id", "only supported at the root"),
        ({"$schema": "http://127.0.0.1/meta"}, "tools[0].parameters.$schema", "draft 2020-12"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "tools[0].parameters.$schema", "draft 2020-12"),
        ({"const": float("nan")}, "tools[0].parameters", "is not JSON"),
        ({"description": "x" * 70_000}, "tools[0].parameters", "at most 65536"),
        ({"const": nested(MAX_DEPTH + 1)}, "tools[0].parameters", "nested deeper than 64"),
    ],
)
def test_refused(schema: Any, place: str, words: str) -> None:
    found = problems(schema)
    assert [where for where, _ in found] == [place]
    assert words in found[0][1]
    assert found[0][1].isprintable()


def test_what_only_looks_like_a_reference_is_data() -> None:
    schema = {
        "const": {"$ref": "http://x"},
        "examples": [{"$ref": "http://x"}],
        "properties": {"$ref": {"type": "string"}, "$id": {}},
    }
    assert problems(schema) == []


@pytest.mark.parametrize("ref", ["#/$defs/a~1b%25", "#here"])
def test_references_by_pointer_and_by_anchor(ref: str) -> None:
    schema = {"$ref": ref, "$defs": {"a/b%": {"$anchor": "here", "type": "integer"}}}
    assert compile_schema(schema).errors("x") == ['"x" is not of type "integer"']


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        for schema in ({"$ref": url}, {"$schema": url}, {"$id": url, "$ref": "other.json"}, {"x": {"$ref": url}}):
            check_schema(schema, ())
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_schema_that_multiplies_out_is_refused() -> None:
    chain: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)}
    found = problems({"$ref": "#/$defs/a0", "$defs": chain | {"a60": {"type": "integer"}}})
    assert [where for where, _ in found] == ["tools[0].parameters"]
    assert f"multiplies out to more than {MAX_PARTS} parts" in found[0][1]


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"not": {"$ref": "#"}}])
def test_a_schema_that_is_itself_comes_to_an_end(schema: Any) -> None:
    assert isinstance(compile_schema(schema).errors(1), list)


def test_explaining_a_deep_misfit_of_a_recursive_schema_is_bounded() -> None:
    # Sixteen levels took 16 s, and twenty took all memory, when the errors of every branch were collected.
    checker = compile_schema(TREE)
    assert checker.errors(nested(90)) == ["does not fit what oneOf says in its schema"]
    assert "oneOf" in checker.errors([3])[0]


def test_a_value_nested_beyond_reason_is_refused() -> None:
    # 100,000 levels overflowed the stack of the validator, which ended the process.
    checker = compile_schema({"items": {"$ref": "#"}})
    assert checker.errors(nested(200)) == []
    assert checker.errors(nested(100_000)) == ["is nested deeper than 200 levels"]


def test_a_pattern_cannot_run_away() -> None:
    assert compile_schema({"pattern": "^(a+)+$"}).errors("a" * 50_000 + "b")


def test_format_is_an_annotation() -> None:
    assert compile_schema({"type": "string", "format": "email"}).errors("not an address") == []


def test_compiled_once_whatever_object_it_is() -> None:
    assert compile_schema({"type": "integer"}) is compile_schema({"type": "integer"})


def test_an_invalid_schema_does_not_compile() -> None:
    with pytest.raises(InvalidDocument, match="is not a valid JSON Schema"):
        compile_schema({"type": 1})


def test_depth() -> None:
    samples: list[Any] = [1, [], {}, [[]], {"a": [1, {"b": {}}]}]
    assert [depth(sample) for sample in samples] == [0, 1, 1, 2, 4]
    assert depth(nested(100_000)) == 100_000


@given(json_values)
def test_a_value_fits_the_schema_that_is_its_constant(value: Any) -> None:
    value = json.loads(json.dumps(value))
    assert compile_schema({"const": value}).errors(value) == []
    assert compile_schema({"not": {"const": value}}).errors(value) != []


@given(schemas)
def test_whatever_is_given_as_a_schema_is_accepted_or_explained(schema: Any) -> None:
    for problem in check_schema(schema, ("spec",)):
        assert problem.path[0] == "spec"
        assert 0 < len(problem.message) <= 200
