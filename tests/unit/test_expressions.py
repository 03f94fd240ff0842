"""Expressions and templates: what they mean, what they refuse, and that hostile ones are harmless."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import agentrun
from agentrun.api.errors import Problem
from agentrun.expressions.cost import COST_MAX, TooExpensive, estimate, pattern_size
from agentrun.expressions.templates import (
    ExpressionError,
    Scope,
    Values,
    compile_expression,
    compile_template,
    compile_value,
)

STEPS = frozenset({"triage", "sign-off", "in", "3d"})
SCOPE = Scope(("inputs", "steps", "run", "item", "index"), STEPS)
DATA: dict[str, Any] = {
    "inputs": {
        "text": "hello",
        "int": 3,
        "float": 129.0,
        "none": None,
        "list": [1, 2, {"k": 5}],
        "words": ["b", "a"],
        "a-b": 1,
        "message": "pay ${inputs.int} now",
    },
    "steps": {
        "triage": {"output": {"refund": True, "amount": 129.0}, "state": "Succeeded"},
        "sign-off": {"output": {"decision": "Approved"}, "state": "Succeeded"},
    },
    "run": {"name": "r", "namespace": "n", "requestedBy": None},
    "item": {"id": "i"},
    "index": 2,
}
VALUES = Values(DATA)


def value(text: str, data: dict[str, Any] | None = None) -> Any:
    return compile_expression(text, SCOPE).evaluate(VALUES if data is None else Values(data))


def reason(text: str, data: dict[str, Any] | None = None, **options: Any) -> str:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, SCOPE, **options).evaluate(VALUES if data is None else Values(data))
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inputs.text", "hello"),
        ("inputs['a-b']", 1),
        ("inputs.list[2].k + 1", 6),
        ("inputs.list[index].k", 5),
        ("steps.triage.output.refund && steps.triage.output.amount > 100.0", True),
        ("steps['sign-off'].output.decision == 'Approved'", True),
        ("inputs.words.map(w, w + '!').join(', ')", "b!, a!"),
        ("inputs.list.filter(x, x == 2)", [2]),
        ("inputs.words.exists(w, w.startsWith('a'))", True),
        ("inputs.?nothing.?more.orValue('none')", "none"),
        ("has(inputs.text) && !has(inputs.nothing)", True),
        ("optional.of(inputs.int).optMap(n, n + 1).orValue(0)", 4),
        ("math.greatest(inputs.int, 7)", 7),
        ("'%s: %d'.format([inputs.text, inputs.int])", "hello: 3"),
        ("inputs.text.matches('^h.l+o$')", True),
        ("item.id + string(index)", "i2"),
        ("{'a': [null, 1.0, 2u, true]}", {"a": [None, 1.0, 2, True]}),
        ("timestamp('2026-01-02T03:04:05Z') + duration('1h')", "2026-01-02T04:04:05Z"),
        ("[duration('90m'), duration('1.5s'), duration('-1ms')]", ["5400s", "1.5s", "-0.001s"]),
        ("1 // a comment", 1),
    ],
)
def test_what_expressions_give(text: str, expected: Any) -> None:
    result = value(text)
    assert result == expected
    assert json.dumps(result) == json.dumps(expected)  # 1.0 stays 1.0, true is not 1


@pytest.mark.parametrize(
    ("text", "variables", "steps"),
    [
        ("1 + 1", set(), set()),
        ("inputs.a == item && steps.triage.state == 'x'", {"inputs", "item", "steps"}, {"triage"}),
        ("steps['sign-off'].output.?x.orValue(steps.?triage.?output)", {"steps"}, {"sign-off", "triage"}),
        ("has(steps.triage.output.x)", {"steps"}, {"triage"}),
        ("[1].map(steps, steps)", set(), set()),
        ("[1].map(steps, .steps.triage.state)", {"steps"}, {"triage"}),
        ("[1].map(inputs, inputs + index)", {"index"}, set()),
        ("'steps.sign-off' + inputs.text", {"inputs"}, set()),
    ],
)
def test_references_are_known_before_anything_runs(text: str, variables: set[str], steps: set[str]) -> None:
    expression = compile_expression(text, SCOPE)
    assert expression.references == variables
    assert expression.step_references == steps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps.sign-off.output", "write steps['sign-off']"),
        ("true || steps.sign-off.output.x == 1", "write steps['sign-off']"),
        ("size(steps . sign-off)", "write steps['sign-off']"),
        ("steps.?sign-off", "write steps['sign-off']"),
        ("steps.sign-off-x", "write steps['sign-off']"),
        ("steps.in.output", "write steps['in']"),
        ("steps.3d.output", "write steps['3d']"),
        ("steps.triag.output", "no step triag to refer to here; did you mean triage?"),
        ("has(steps.nosuch)", "no step nosuch"),
        ("steps.triage.outputs", "steps.triage has no .outputs, only output, state; did you mean output?"),
        ("steps['triage'][inputs.text]", "steps.triage has no […]"),
        ("has(steps.triage.outputs)", "has no .outputs"),
        ("size(steps)", "only be used as steps.NAME or steps['NAME']"),
        ("steps", "only be used as steps.NAME"),
        ("steps.map(s, s)", "only be used as steps.NAME"),
        ("steps[inputs.text]", "must be literal"),
        ("run.nam", "run has no .nam, only name, namespace, outcome, requestedBy; did you mean name?"),
        (
            "inputz.a",
            "inputz is not known here, only index, inputs, item, run, steps, at column 7; did you mean inputs?",
        ),
        ("args.x", "args is not known here"),
        ("now()", "there is no function now, at column 4"),
        ("size(1)", "size() does not take int, at column 5"),
        ("'a' + 1", "+ does not take string and int, at column 5"),
        ("7 % 1.5", "write 1.0 for 1, or double(x)"),
        ("true ? 1 : 'a'", "both results of ?: must have one type, not int and string"),
        ("1 +", "the expression ends too early, at column 4"),
        ("", "the expression ends too early"),
        ("(1", "')' is missing before the end, at column 3"),
        ("${inputs.int > 1}", '"$" is not understood, at column 1; this field is an expression by itself'),
        ("inputs.int > 1 and true", '"and" is unexpected, at column 16; write && for and'),
        ("inputs.int > 1 or true", '"or" is unexpected, at column 16; write || for or'),
        ("not inputs.text", '"inputs" is unexpected, at column 5; write ! for not'),
        ("inputs.int = 1", "; write == to compare"),
        ("inputs.int === 1", "; write == to compare"),
        ("inputs.int > 1 & true", "; write && for and"),
        ("inputs.text | upper", "; write || for or"),
        (
            "inputs.none == None",
            "None is not known here, only index, inputs, item, run, steps, at column 16; write null",
        ),
        ("inputs.none == True", "; write true"),
        ("len(inputs.list)", "there is no function len, at column 4; write size(x)"),
        ("1 2", '"2" is unexpected, at column 3'),
        ("true = false", '"= " is not understood, at column 6'),
        ("'abc", "is the quote closed"),
        ("1\n+ + 'a'", '"+" is unexpected, at line 2 column 3'),
        ("if", '"if" is a reserved word'),
        ("recursion", "recursion is not known here"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("+".join("1" * 40), "nested too deeply"),
        ("1" * 1025, "1,025 characters, at most 1,024"),
        ("'\x00'", "not text"),
        ("'\ud800'", "not text"),
        ("b'a'", "bytes cannot be written in JSON"),
        ("bytes('a')", "bytes cannot be written in JSON"),
        ("google.protobuf.Timestamp{seconds: 1}", "cannot be written in JSON"),
        ("inputs.?x", ".orValue("),
        ("inputs.text.matches(inputs.text)", "must be a literal text"),
        ("inputs.text.matches('(a{100}){100}')", "the pattern of matches() is too large"),
        ("optional.of(1)" + ".optMap(a, a)" * 9, "a chain of optMap doubles"),
    ],
)
def test_what_is_refused_before_anything_runs(text: str, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, SCOPE)
    assert expected in caught.value.reason
    assert "\n" not in caught.value.reason
    assert "INVALID_ARGUMENT" not in caught.value.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inputs.nothing", "inputs.nothing is missing"),
        ("inputs.txt", "inputs.txt is missing; did you mean text?"),
        ("inputs.nothing.more == 1", "inputs.nothing is missing"),
        ("steps.triage.output.zz > 1", "steps.triage.output.zz is missing"),
        ("steps['in'].output", "steps['in'] is missing"),
        ("inputs['no-such']", "inputs['no-such'] is missing"),
        ("inputs.list[7]", "inputs.list[7] is missing: the list has 3 elements"),
        ("inputs.list[index + 5]", "there is no [7]: the list has 3 elements"),
        ("inputs.text.more", "inputs.text.more is missing: inputs.text is a string"),
        ("inputs.text.more == 1", "inputs.text.more is missing: inputs.text is a string"),
        ("inputs.list.map(x, x.k)", "a field is read from a value that is not an object"),
        ("[{'a': 1}].map(x, x.b)", 'there is no "b" in the object'),
        ("inputs.text + 1", "+ does not take string and int"),
        ("{true: 1}", "the key true of an object is not a text"),
        ("inputs.text && true", "&& takes only true and false"),
        ("inputs.text ? 1 : 2", "the condition before ? must be true or false"),
        ("inputs.none.size()", "size() does not take null"),
        ("1 / (inputs.int - 3)", "divide by zero"),
        ("9223372036854775807 + inputs.int", "integer overflow"),
        ("int(inputs.text)", "cannot convert string to int"),
        ("inputs.float / 0.0", "the number inf cannot be written in JSON"),
        ("double('nan')", "the number nan cannot be written in JSON"),
        ("{1: 2}", "is not a text"),
        ("type(1)", "cannot be written in JSON"),
        ("[1].map(x, inputs.?zz)", ".orValue("),
        ("inputs.text.matches('[')", "invalid regular expression"),
    ],
)
def test_what_fails_names_what_is_wrong(text: str, expected: str) -> None:
    assert expected in reason(text)


def test_an_error_shows_the_expression() -> None:
    with pytest.raises(ExpressionError, match=r"inputs\.zz is missing \(in inputs\.zz == 1\)"):
        value("inputs.zz == 1")


def test_a_variable_without_a_value() -> None:
    assert reason("item.id", {"inputs": {}}) == "item has no value here"
    assert reason("item.id + 'x'", {"inputs": {}}) == "item has no value here"


def test_steps_with_hyphens_where_the_names_are_not_known() -> None:
    scope = Scope(("steps",), None)
    assert compile_expression("steps['sign-off'].output", scope).step_references == {"sign-off"}
    with pytest.raises(ExpressionError, match="off is not known"):
        compile_expression("steps.sign-off.output", scope)


def test_conditions() -> None:
    assert compile_expression("inputs.int > 2", SCOPE, "bool").returns_bool is True
    assert compile_expression("steps.triage.output.refund", SCOPE, "bool").evaluate(VALUES) is True
    assert compile_expression("steps.triage.output.refund", SCOPE, "bool").returns_bool is None
    assert compile_expression("1 + 1", SCOPE).returns_bool is False
    for text in ("1 + 1", "'true'", "[true]", "steps.triage"):
        with pytest.raises(ExpressionError, match="a condition must be true or false"):
            compile_expression(text, SCOPE, "bool")
    assert reason("inputs.text", want="bool") == "a condition must be true or false, but this gives a string"
    assert reason("inputs.?none.orValue(1)", want="bool") == "a condition must be true or false, but this gives null"
    assert (
        reason("index == 2 ? inputs.list : []", want="bool")
        == "a condition must be true or false, but this gives a list"
    )


@pytest.mark.parametrize("text", ["inputs.x", "[inputs.x][0]"])
def test_sizes_of_results_are_bounded(text: str) -> None:
    assert len(value(text, {"inputs": {"x": "a" * 262_000}})) == 262_000
    assert "larger than 256 KiB" in reason(text, {"inputs": {"x": "é" * 140_000}})
    assert "larger than 256 KiB" in reason(text, {"inputs": {"x": ["a" * 1000] * 300}})


def test_a_result_that_explodes_by_sharing_is_not_written_out() -> None:
    assert "larger than 256 KiB" in reason("[1]" + ".map(a, [a, a, a, a, a, a, a, a])" * 6)
    assert "larger than 256 KiB" in reason("inputs.x.split('')", {"inputs": {"x": "a" * 100_000}})


def test_what_the_runtime_would_cut_short_or_crash_on() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    data = {
        "inputs": {"nul": "a\0b", "half": "\ud800", "key": {"a\0": 1}, "huge": 2**70, "deep": deep, "fine": "x"},
        "steps": {"triage": {"output": {"ok": True, "nul": ["\0"]}}},
    }
    # None of them spoils what stands beside it.
    assert value("inputs.fine + '!'", data) == "x!"
    assert value("has(inputs.nul2) || steps.triage.output.ok && inputs.?fine.hasValue()", data) is True
    # Passed on whole they are exact.
    assert [value(f"inputs.{k}", data) for k in ("nul", "half", "key", "huge")] == ["a\0b", "\ud800", {"a\0": 1}, 2**70]
    # Computed with, they are refused: the runtime would see "a" for "a\0b".
    assert "inputs.nul cannot be used: its text contains a NUL" in reason("inputs.nul == 'a'", data)
    assert "half of a surrogate pair" in reason("inputs.half + ''", data)
    assert "inputs.key cannot be used" in reason("inputs.key.size()", data)
    assert "does not fit into 64 bits" in reason("inputs.huge > 1", data)
    assert "nested deeper than 200 levels" in reason("size(inputs.deep)", data)
    assert "nested too deeply" in reason("inputs.deep", data)
    assert "inputs.deep[0][0]" in reason("size(inputs)", {"inputs": {"deep": deep}})
    assert "steps.triage.output.nul[0]" in reason("steps.triage.output.nul.size()", data)
    assert "is not JSON" in reason("inputs.x == 1", {"inputs": {"x": {1, 2}}})


def test_expressions_and_values_are_safe_to_share_between_threads() -> None:
    values = Values({"inputs": {"l": list(range(20))}})

    def work(number: int) -> list[Any]:
        text = f"inputs.l.map(x, x + {number % 5}).filter(x, x % 2 == 0).size()"
        return [compile_expression(text, SCOPE).evaluate(values) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        assert all(found == [10] * 50 for found in pool.map(work, range(40)))


def test_importing_this_does_not_load_the_runtime() -> None:
    code = "import sys, agentrun.expressions.templates; sys.exit('cel_expr_python' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=child_environment())


# --- templates ---------------------------------------------------------------------------------------------------


def rendered(text: str) -> Any:
    return compile_template(text, SCOPE).render(VALUES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${inputs.int}", 3),
        ("${steps.triage.output}", {"refund": True, "amount": 129.0}),
        ("Order ${inputs.text}: ${steps.triage.output.amount}?", "Order hello: 129.0?"),
        (" ${inputs.none} ${inputs.int} ${true} ${inputs.list} ", ' null 3 true [1, 2, {"k": 5}] '),
        ("$${x} $$ $x ${1}$${2}", "${x} $$ $x 1${2}"),
        ("$$${1}", "$${1}"),
        ("${ {'a': {'b': '}'}}.a.b }", "}"),
        ("${'{'}${\"}\"}", "{}"),
        ("${'\\'}'}", "'}"),
        ("${r'}\\d'}", "}\\d"),
        ("${'''a'}\n'''}", "a'}\n"),
        ('${"""a"}"""}', 'a"}'),
        ("${1 // }'\n}", 1),
        ("${inputs.message}", "pay ${inputs.int} now"),
        ("say: ${inputs.message}", "say: pay ${inputs.int} now"),
    ],
)
def test_templates(text: str, expected: Any) -> None:
    result = rendered(text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab ${inputs.text", "the ${ at column 4 is not closed: add a }, or write $${"),
        ("a\nb ${ {'a': 1} ", "the ${ at line 2 column 3 is not closed"),
        ("${'a} b", "the quote at column 3 is not closed, in the ${ at column 1"),
        ('${"a\n"}', "the quote at line 1 column 3 is not closed"),
        ("a ${ } b", "the ${} at column 3 is empty"),
        ("${" + "1 " * 600 + "}", "not closed within 1,024 characters"),
        ("${1}" * 101, "more than 100 expressions"),
        ("a ${1 +} b", "ends too early"),
    ],
)
def test_templates_that_are_refused(text: str, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(text, SCOPE)
    assert expected in str(caught.value)


def test_escaping_touches_only_what_is_put_in() -> None:
    template = compile_template("https://x/${inputs.text}/?q=${inputs.list}", SCOPE)
    assert template.render_text(VALUES, lambda text: f"<{len(text)}>") == "https://x/<5>/?q=<16>"
    assert compile_template("${inputs.text}", SCOPE).render_text(VALUES, str.upper) == "HELLO"
    assert [e.text for e in template.expressions] == ["inputs.text", "inputs.list"]
    assert not template.literal
    assert compile_template("$${a}", SCOPE).literal


def test_a_rendered_text_is_bounded() -> None:
    values = Values({"inputs": {"x": "a" * 100_000}})
    assert len(compile_template("${inputs.x}${inputs.x}", SCOPE).render_text(values)) == 200_000
    with pytest.raises(ExpressionError, match="larger than 256 KiB"):
        compile_template("${inputs.x}" * 3, SCOPE).render(values)
    with pytest.raises(ExpressionError, match="larger than 256 KiB altogether"):
        compile_value(["${inputs.x}"] * 3, SCOPE, (), []).render(values)


def test_values_with_templates_at_any_depth() -> None:
    problems: list[Problem] = []
    given_value = {"${k}": ["${inputs.int}", {"t": "a ${steps['sign-off'].state}"}], "n": 1, "lit": "$${x}"}
    template = compile_value(given_value, SCOPE, ("spec",), problems)
    assert problems == []
    assert template.render(VALUES) == {"${k}": [3, {"t": "a Succeeded"}], "n": 1, "lit": "${x}"}
    assert sorted(template.references) == ["inputs", "steps"]
    assert sorted(template.step_references) == ["sign-off"]
    assert not template.literal
    assert compile_value({"a": ["b", None]}, SCOPE, (), problems).literal


def test_all_problems_of_a_value_are_told_with_their_places() -> None:
    problems: list[Problem] = []
    compile_value({"a": ["${inputs.x}", "${nosuch}"], "b": {"c": "${1 +}"}}, SCOPE, ("spec", "args"), problems)
    assert [problem.path for problem in problems] == [("spec", "args", "a", 1), ("spec", "args", "b", "c")]
    assert "nosuch is not known here" in problems[0].message
    deep: Any = "${nosuch}"
    for _ in range(5000):
        deep = [deep]
    found: list[Problem] = []
    compile_value(deep, SCOPE, (), found)
    assert "nested deeper" in found[0].message


# --- properties --------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ANY_TEXT = st.text(st.characters()) | st.text(alphabet="${}'\"ab \\\n")


@given(ANY_TEXT)
def test_text_without_expressions_is_itself(text: str) -> None:
    assume("${" not in text)
    assert compile_template(text, SCOPE).render(VALUES) == text


@given(ANY_TEXT)
def test_escaped_text_renders_back(text: str) -> None:
    assert compile_template(text.replace("${", "$${"), SCOPE).render(VALUES) == text


@given(JSON_VALUES)
def test_values_come_back_as_they_went_in(given_value: Any) -> None:
    result = compile_template("${inputs.x}", SCOPE).render(Values({"inputs": {"x": given_value}}))
    assert repr(result) == repr(given_value)


@given(JSON_VALUES)
def test_values_come_back_through_the_runtime(given_value: Any) -> None:
    try:
        result = value("[inputs.x][0]", {"inputs": {"x": given_value}})
    except ExpressionError as error:
        assert "cannot be used" in error.reason  # noqa: PT017 - either outcome is right, for its reason
        assert any(c in repr(given_value) for c in ("\\x00", "\\ud")) or max_int(given_value) >= 2**63
    else:
        assert sorted_json(result) == sorted_json(given_value)


def sorted_json(of: Any) -> str:
    return json.dumps(of, sort_keys=True)


def max_int(of: Any) -> int:
    if isinstance(of, (list, dict)):
        return max((max_int(part) for part in (of.values() if isinstance(of, dict) else of)), default=0)
    return abs(of) if isinstance(of, int) else 0


LITERALS = st.builds(
    lambda quote, body, raw: f"{raw}{quote}{body}{quote}",
    st.sampled_from(["'", '"', "'''", '"""']),
    st.text(alphabet="{}ab$ /\\'\"\n", max_size=6),
    st.sampled_from(["", "r", "R"]),
)
OPERANDS = LITERALS | st.sampled_from(["inputs.text", "{'}': '{'}['}']", "{'a': {'b': \"c\"}}.a.b", "'a' //{'\n", "{}"])


@given(st.lists(OPERANDS, min_size=1, max_size=4).map(" + ".join))
@example("''//'")
def test_the_lexer_agrees_with_cel(text: str) -> None:
    try:
        compile_expression(text, SCOPE)
    except ExpressionError:
        assume(False)
    if "//" in text.rpartition("\n")[2]:
        text += "\n"  # it may be a comment, which would take the closing brace along
    parts = compile_template(f"<${{{text}}}>", SCOPE).parts
    assert [part if isinstance(part, str) else part.text for part in parts] == ["<", text, ">"]


TOKENS = st.lists(
    st.sampled_from(
        "inputs steps run item index . .? [ ] [? ( ) { } , : ? + - * / % ! && || == != < in 1 1.5 2u 'a' \"b\" r'c'"
        " text list words x triage sign-off output state .map( .filter( .exists( .join( .split( .size() has( null"
        " .matches( true 9223372036854775807 duration('1s') optional.of( .optMap( .orValue( \n // é \x00 ` @".split(" ")
    ),
    max_size=25,
).map("".join)


@given(TOKENS | st.text())
def test_no_text_does_worse_than_an_expression_error(text: str) -> None:
    for evaluate, given_text in ((value, text), (rendered, text), (rendered, f"${{{text}}}")):
        try:
            json.dumps(evaluate(given_text), allow_nan=False)
        except ExpressionError as error:
            assert str(error)  # noqa: PT017 - a value or this error, nothing else


# --- hostile expressions -----------------------------------------------------------------------------------------

GROW = ".map(a, a + a + a + a + a + a + a + a)"
SHARE = ".map(a, [a, a, a, a, a, a, a, a])"
HOSTILE = [
    "['aaaaaaaaaa']" + GROW * 20,
    "[[1, 2, 3]]" + GROW * 20,
    "[1]" + SHARE * 14 + " == [1]" + SHARE * 14,
    "[1]" + SHARE * 14 + " in [[1]" + SHARE * 14 + "]",
    "'%s'.format([[1]" + SHARE * 20 + "])",
    "['ab']" + SHARE * 8 + ".map(a, a[0][0].join('x'))",
    "inputs.text.replace('', inputs.text)",
    "'ab'" + ".replace('', 'aaaaaaaaaaaaaaaaaaaa')" * 20,
    "inputs.text.split('').join(inputs.text)",
    "inputs.text.split('').map(a, a + a)",
    "inputs.text.split('').map(a, inputs.text)",
    "inputs.ids.map(a, inputs.text + 'b')",
    "inputs.ids.map(a, inputs.text).join()",
    "inputs.ids.map(a, inputs.text.upperAscii())",
    "inputs.ids.map(a, inputs.text.split(''))",
    "inputs.ids.map(a, a)",
    "inputs.ids.filter(a, true)",
    "inputs.few.map(a, a) == inputs.few",
    "inputs.few.map(a, {'a': a}).size()",
    "inputs.few.filter(a, true).size() + inputs.few.filter(a, true).size()",
    "inputs.ids.map(a, inputs.ids.map(b, b))",
    "inputs.ids.map(a, inputs.ids + inputs.ids)",
    "inputs.ids.all(a, !(-1 in inputs.ids))",
    "inputs.ids.all(a, inputs.ids == inputs.ids)",
    "inputs.ids.all(a, inputs.ids.all(b, inputs.ids.all(c, true)))",
    "inputs.ids.all(a, !inputs.text.contains('aaaaaaaaab'))",
    "inputs.ids.all(a, !inputs.text.matches('a*a*a*a*a*b'))",
    "inputs.text.matches('(a?){500}a{500}b')",
    "'a'.matches('" + "[^a]{1000}" * 50 + "')",
    "'a'.matches('" + r"\\pL" * 200 + "')",
    " || ".join(["'a'.matches('(.{30}){30}')"] * 25),
    "'%.1000f'.format([1.5])" + ".replace('', '%.1000f'.format([1.5]))" * 3,
    "optional.of(inputs.text)" + ".optMap(a, a + a + a + a)" * 8 + ".orValue('')",
    "strings.quote(" * 20 + "inputs.text" + ")" * 20,
    "string(123456789).replace('', inputs.text).replace('', inputs.text)",
    "inputs.text.contains(inputs.text.substring(1) + 'b') && " * 8 + "true",
]

CHILD = """
import json, resource, sys
from agentrun.expressions.templates import ExpressionError, Scope, Values, compile_expression
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
scope = Scope(("inputs",))
values = Values({"inputs": {"text": "a" * 65536, "ids": list(range(9000)), "few": list(range(1700))}})
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
compile_expression("inputs.text.size() + inputs.ids.size()", scope).evaluate(values)
before, refused = peak(), 0
for text in json.load(sys.stdin):
    assert len(text) <= 1024, text
    for _ in range(3):
        try:
            compile_expression(text, scope).evaluate(values)
        except ExpressionError:
            refused += 1
print(json.dumps({"grown": peak() - before, "refused": refused}))
"""


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(agentrun.__file__).parents[1])}


def test_hostile_expressions_take_neither_memory_nor_time() -> None:
    run = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(HOSTILE),
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    assert run.returncode == 0, run.stderr  # also when the limit of CPU time killed it
    found = json.loads(run.stdout)
    assert found["grown"] < 100 * 1024 * 1024
    assert found["refused"] > 2 * len(HOSTILE)


HONEST = [
    "inputs.orders.filter(o, o.state == 'open').map(o, o.id + ': ' + o.title).join(', ')",
    "inputs.orders.filter(o, o.id in inputs.ids).size()",
    "inputs.orders.exists(o, o.title.contains('late') || o.id.matches('^[0-9]{4,12}$'))",
    "inputs.orders.map(o, {'id': o.id, 'lines': o.lines.map(l, l.price * 1.19)})",
    "inputs.message.trim().lowerAscii().replace('\\n', '<br>')",
    "inputs.message.split('\\n').filter(l, l.trim() != '').join('\\n')",
    "inputs.message.matches('(?i)refund|money back')",
    "'%d of %d'.format([inputs.orders.size(), inputs.ids.size()])",
]


@pytest.mark.parametrize("text", HONEST)
def test_honest_expressions_are_far_from_the_limit(text: str) -> None:
    orders = [
        {"id": str(n), "title": f"Order of {n} late things", "state": "open", "lines": [{"price": 1.5}] * 3}
        for n in range(200)
    ]
    data = {
        "inputs": {"orders": orders, "ids": [str(n) for n in range(500)], "message": "Dear all,\n it broke.\n" * 400}
    }
    expression = compile_expression(text, SCOPE)
    expression.evaluate(Values(data))
    assert estimate(expression.tree, data) < COST_MAX / 2


def test_evaluating_again_and_again_over_the_same_values_keeps_no_memory() -> None:
    # The runtime's arena lives as long as its activation; each evaluation here leaves 16 MB in it.
    child = CHILD.replace("range(9000)", "range(1000)").replace("range(3)", "range(40)")
    run = subprocess.run(
        [sys.executable, "-c", child],
        input=json.dumps(["inputs.ids.map(a, a).size()"]),
        capture_output=True,
        text=True,
        check=True,
        env=child_environment(),
    )
    assert json.loads(run.stdout)["refused"] == 0
    assert json.loads(run.stdout)["grown"] < 100 * 1024 * 1024


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("abc", 3, 20),
        ("[a-z0-9._%+-]+@[a-z0-9.-]+", 10, 60),
        ("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", 30, 500),
        ("(a{30}){30}", 900, 10_000),
        ("((a|b){10,20}){2,}", 40, 1000),
        (r"\{3}\({2}", 2, 40),
        (r"\pL{10}", 10_000, 20_000),
        ("a" + ")" * 3 + "(" * 3, 1, 50),
    ],
)
def test_sizes_of_patterns(pattern: str, least: int, most: int) -> None:
    assert least <= pattern_size(pattern) <= most


@given(
    st.lists(st.text(alphabet="ab,", max_size=5), max_size=6),
    st.sampled_from(
        [
            "inputs.l.map(x, x + x)",
            "inputs.l.map(x, [x, x]).map(y, y + y)",
            "inputs.l.join(inputs.s)",
            "inputs.s.replace('a', inputs.l.join('-'))",
            "inputs.s.replace('', inputs.s)",
            "inputs.s.split(',').map(x, x + inputs.s)",
            "inputs.l.filter(x, x != '').map(x, strings.quote(x))",
            "'%s|%s'.format([inputs.s, inputs.l])",
            "inputs.l.map(x, inputs.l.map(y, y + x))",
            "inputs.?s.optMap(x, x + x).orValue('')",
            "(inputs.l.size() > 2 ? inputs.l : []) + inputs.l",
            "{'a': inputs.l, 'b': [inputs.s, inputs.s]}",
            "inputs.s.upperAscii().reverse() + inputs.s.trim()",
        ]
    ),
)
def test_the_estimate_is_never_below_what_was_made(words: list[str], text: str) -> None:
    data = {"inputs": {"l": words, "s": "".join(words)}}
    expression = compile_expression(text, SCOPE)
    made = expression.evaluate(Values(data))
    parts = made if isinstance(made, list) else [made]
    content = sum(len(part) for part in parts if isinstance(part, str))
    try:
        assert estimate(expression.tree, data) >= content
    except TooExpensive:
        pytest.fail("small values are never too expensive")


LITERAL = "write $${%s} for a literal ${%s}"
ENVIRONMENT = "environment variables are not available here"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rm -rf ${HOME}/tmp", (LITERAL % ("HOME", "HOME"), ENVIRONMENT)),
        ("${HOME:-/root}", (LITERAL % ("HOME:-/root", "HOME:-/root"), ENVIRONMENT)),
        ("${#ARGS}", (LITERAL % ("#ARGS", "#ARGS"), ENVIRONMENT)),
        ("${VERSION%%.*}", (LITERAL % ("VERSION%%.*", "VERSION%%.*"), ENVIRONMENT)),
        ("${env.HOME}", (LITERAL % ("env.HOME", "env.HOME"), ENVIRONMENT)),
        ("${github.sha}", (LITERAL % ("github.sha", "github.sha"),)),
        ("${name}", (LITERAL % ("name", "name"),)),
        ("${@}", (LITERAL % ("@", "@"),)),
        (
            "${{ github.sha }}",
            ("the syntax of another tool", "agentrun's is ${inputs.NAME}", "write $${{ for a literal ${{"),
        ),
        ("${{ inputs.text }}", ("the syntax of another tool",)),
        ("${inputs.order-id}", ("- subtracts: for the field order-id write inputs['order-id']",)),
        ("${inputs.a.b-c-d + 1}", ("- subtracts: for the field b-c-d write inputs.a['b-c-d']",)),
    ],
)
def test_what_was_perhaps_never_meant_as_an_expression(text: str, expected: tuple[str, ...]) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(text, SCOPE)
    for part in expected:
        assert part in caught.value.reason


@pytest.mark.parametrize("text", ["${inputz.a}", "${inputs.a +}", "${steps.nosuch.output}", "${run.nam}", "${input.x}"])
def test_a_mistake_in_an_expression_is_not_taken_for_a_literal(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(text, SCOPE)
    assert "literal" not in caught.value.reason


# -- the same each time ------------------------------------------------------------------------------------------------

KEYS = {f"k{n}": n for n in (3, 1, 2, 0, 5, 4)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("inputs.o.map(k, k)", ["k0", "k1", "k2", "k3", "k4", "k5"]),
        ("inputs.o.map(k, inputs.o[k])", [0, 1, 2, 3, 4, 5]),
        ("inputs.o.map(k, inputs.o[k] * 1.5)", [0.0, 1.5, 3.0, 4.5, 6.0, 7.5]),
        ("inputs.o.map(k, inputs.o[k] > 3, k)", ["k4", "k5"]),
        ("inputs.o.filter(k, inputs.o[k] < 2)", ["k0", "k1"]),
        ("inputs.l.map(x, x.o.map(k, k))", [["k0", "k1", "k2", "k3", "k4", "k5"]]),
        ("(inputs.l.size() > 0 ? inputs.l[0].o : {}).map(k, k)", ["k0", "k1", "k2", "k3", "k4", "k5"]),
        ("inputs.l[?0].orValue(dyn({})).o.map(k, k)", ["k0", "k1", "k2", "k3", "k4", "k5"]),
        ("{'b': 1, 'a': -1.5, 'c': 2u}.map(k, k)", ["a", "b", "c"]),
        ("{'x': {'b': 1, 'a': -1.5}.map(k, k)}.x", ["a", "b"]),
        ("{2: 'a', 1: 'b', 'x': 'c', true: 'd'}.map(k, string(k))", ["true", "1", "2", "x"]),
        ("inputs.o.map(k, k).join(',')", "k0,k1,k2,k3,k4,k5"),
        ("inputs.l.map(x, x.n)", [7]),
        ("[3, 1, 2].map(x, x)", [3, 1, 2]),
        ("inputs.o.all(k, inputs.o[k] < 9)", True),
        ("inputs.o.exists_one(k, k == 'k3')", True),
    ],
)
def test_an_object_s_keys_come_in_order(text: str, value: Any) -> None:
    """The runtime's tables have another order at each evaluation: a step's process took another item than was meant."""
    expression = compile_expression(text, Scope(("inputs",), None))
    for _ in range(8):
        assert expression.evaluate(Values({"inputs": {"o": dict(KEYS), "l": [{"o": dict(KEYS), "n": 7}]}})) == value


@pytest.mark.parametrize("text", ["{'c': 1, 'b': 2, 'a': {'e': 1, 'd': 2}}", "[{'c': 1, 'b': 2}]", "[inputs.o]"])
def test_an_object_becomes_the_same_text_each_time(text: str) -> None:
    template = compile_template(f"x ${{{text}}}", Scope(("inputs",), None))
    assert len({template.render(Values({"inputs": {"o": dict(KEYS)}})) for _ in range(16)}) == 1


@pytest.mark.parametrize("text", ["{inputs: 1}", "{[1]: inputs.n}", "{{'a': 1}: 1}", "{inputs.o: 1}", "{1.5: 1}"])
def test_a_key_that_is_no_text_is_refused_in_words(text: str) -> None:
    """One of them ended the command with a traceback."""
    with pytest.raises(ExpressionError, match="the key of an object must be a text, but this one is of type"):
        compile_expression(text, Scope(("inputs",), None)).evaluate(Values({"inputs": {"o": {}, "n": 1}}))
