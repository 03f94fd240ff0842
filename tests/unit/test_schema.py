"""Schemas: what is accepted, what is refused with which words, and that no value or schema takes for ever."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.errors import InvalidDocument, dotted
from agentrun.workflow.json_schema import MAX_DEPTH, MAX_PARTS, check_schema, compile_schema, depth
from agentrun.workflow.misfit import misfits

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
    assert f"expands to more than {MAX_PARTS} parts" in found[0][1]


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"not": {"$ref": "#"}}])
def test_a_schema_that_is_itself_comes_to_an_end(schema: Any) -> None:
    assert isinstance(compile_schema(schema).errors(1), list)


def test_explaining_a_deep_misfit_of_a_recursive_schema_is_bounded() -> None:
    # Sixteen levels took 16 s, and twenty took all memory, when the errors of every branch were collected.
    checker = compile_schema(TREE)
    assert checker.errors(nested(90)) == ["does not fit oneOf of its schema"]
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


FAST = {"type": "object", "properties": {"l": {"type": "array", "items": {"enum": list(range(2000))}}}}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (FAST, {"l": [2001] * 6000}, [f"l[{n}]: 2001 is not one of 0, 1 or 1998 other candidates" for n in range(5)]),
        (
            {"anyOf": [FAST, {"type": "null"}]},
            {"l": [2001] * 6000},
            ["does not fit anyOf of its schema"],
        ),
        (
            {"$defs": {"e": {"enum": list(range(2000))}}, "items": {"allOf": [{"$ref": "#/$defs/e"}]}},
            [1] * 5000 + [2001] * 5000,
            [f"[{n}]: 2001 is not one of 0, 1 or 1998 other candidates" for n in range(5000, 5005)],
        ),
        (
            {"prefixItems": [{"enum": list(range(2000))}], "items": {"additionalProperties": FAST}},
            [1] + [{"a": {"l": [1] * 900}, "b": {"l": [1] * 900 + [-1]}}] * 2,
            [f"[{n}].b.l[900]: -1 is not one of 0, 1 or 1998 other candidates" for n in (1, 2)],
        ),
        ({"items": FAST, "minItems": 9000}, [{"l": [1]}] * 3000, ["the value has less than 9000 items"]),
        (
            {"items": FAST, "uniqueItems": True},
            [{"l": [1]}] * 3000,
            ["does not fit uniqueItems of its schema"],
        ),
        ({"items": {"enum": ["x" * 9000]}}, ["y" * 9000] * 100, None),
    ],
)
def test_a_large_misfit_is_explained_without_making_every_error(schema: Any, value: Any, expected: Any) -> None:
    # 2,000 values that missed an enum of 10,000 took 1 GB, since each error held the whole enum.
    found = compile_schema(schema).errors(value)
    assert all(len(line) <= 200 for line in found)
    if expected is None:
        assert len(found) == 5
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": [[n] for n in range(3000)]}}, [[2999]] * 600),
        ({"items": {"enum": [n + 0.5 for n in range(3000)]}}, [2999.5] * 100),
        ({"items": {"anyOf": [{"const": n} for n in range(2000)]}}, [1999] * 600),
        ({"items": {"anyOf": [{"required": ["b"]}] * 2000}}, [{"a": 1}] * 6000),
        ({"items": {"anyOf": [{"multipleOf": 0.37}] * 200}}, [1e300] * 600),
        ({"items": {"multipleOf": 1e-300}}, [1e300] * 6000),
        ({"items": {"anyOf": [{"maximum": 1.5}] * 200}}, [1.7] * 6000),
        ({"pattern": "a.{5000}b$"}, "a" * 100_000),
        ({"items": {"pattern": "a.{5000}b$"}}, ["a" * 1000] * 100),
        ({"additionalProperties": {"pattern": "a.{5000}b$"}}, {str(n): "a" * 1000 for n in range(100)}),
        ({"propertyNames": {"pattern": "a.{5000}b$"}}, {f"{n:01000}": 1 for n in range(100)}),
        ({"patternProperties": {f"^(a|b)*{n}$": {} for n in range(1000)}}, {"a" * 99 + str(n): 1 for n in range(2000)}),
        ({"$defs": {"a": {"anyOf": [{"const": n} for n in range(2000)]}}, "items": {"$ref": "#/$defs/a"}}, [1.0] * 600),
        ({"contains": {"anyOf": [{"const": n} for n in range(2000)]}}, [-1] * 600),
        ({"not": {"items": {"enum": [{"a": n} for n in range(2000)]}}}, [{"a": 1999}] * 600),
        (
            {"dependentSchemas": {"a": {"patternProperties": {"a.{5000}": True}}}},
            {"a" * 9000 + str(n): 1 for n in range(9)},
        ),
    ],
)
def test_a_check_that_would_take_long_is_not_begun(schema: Any, value: Any) -> None:
    checker = compile_schema(schema)
    [line] = checker.errors(value)
    assert "takes too much work to be checked" in line
    assert not checker.fits(value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"type": "integer"}}, list(range(100_000))),
        ({"items": {"enum": list(range(5000))}}, [4999] * 20_000),
        ({"items": {"enum": [f"name-{n}" for n in range(2000)]}}, ["name-1999"] * 20_000),
        ({"items": {"pattern": "^[a-z0-9-]{1,50}$"}}, ["abc-def"] * 10_000),
        ({"items": {"properties": {f"k{n}": {"type": "integer"} for n in range(1000)}}}, [{"k1": 1}] * 10_000),
        (ORDER, {"id": "1", "items": [{"price": 1.5}] * 10_000}),
    ],
)
def test_what_people_check_is_far_from_the_limit(schema: Any, value: Any) -> None:
    assert compile_schema(schema).errors(value) == []


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_nested_unevaluated_properties_multiply_and_count_so(keyword: str) -> None:
    # Sixteen levels took 3 s, and each further one three times as long.
    schema: dict[str, Any] = {"unevaluatedProperties": {"type": "integer"}}
    for _ in range(12):
        schema = {keyword: [schema], "unevaluatedProperties": {"type": "integer"}}
    [(_, message)] = problems(schema)
    assert message.startswith(f"expands to more than {MAX_PARTS} parts")


def test_the_patterns_of_a_schema_are_bounded_together() -> None:
    # 1,800 of these took 12 s and 930 MB to compile.
    [(place, message)] = problems({"anyOf": [{"pattern": f"a{n}.{{500}}"} for n in range(100)]})
    assert place.endswith(".pattern")
    assert "patterns are of bounded size, each and together" in message


@given(schemas, json_values)
def test_whatever_a_schema_says_it_is_judged_and_explained(schema: Any, value: Any) -> None:
    if check_schema(schema, ()):
        return
    checker = compile_schema(schema)
    found = checker.errors(value)
    assert bool(found) != checker.fits(value)
    # The lines of a value that is too large for all errors are found by narrowing down: that finds one, too.
    assert bool(misfits(schema, value, lambda _: False)) or not found
