"""What will surely fail is found before the first effect; what is only perhaps a mistake is warned of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.errors import InvalidDocument, dotted
from agentrun.api.tools import Tool
from agentrun.api.workflow import WorkflowSpec
from agentrun.expressions.templates import Scope, Values, compile_value
from agentrun.workflow.fitting import Fitting
from agentrun.workflow.json_schema import compile_schema
from agentrun.workflow.lint import absent_inputs, checked_program, other_forms
from agentrun.workflow.program import compile_program
from tests.harness.planner_world import MODEL, PEOPLE

CLOSED: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["orderId"],
    "properties": {
        "orderId": {"type": "string"},
        "note": {"type": ["string", "null"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "to": {"$ref": "#/$defs/address", "description": "where to"},
        "open": {"type": "object"},
        "any": {},
        "either": {"anyOf": [{"type": "string"}, {"type": "object"}]},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}]},
        "named": {"type": "object", "additionalProperties": {"type": "string"}},
        "matched": {"type": "object", "additionalProperties": False, "patternProperties": {"^x": {}}},
    },
    "$defs": {
        "line": {"type": "object", "additionalProperties": False, "properties": {"sku": {"type": "string"}}},
        "address": {"type": "object", "additionalProperties": False, "properties": {"city": {"type": "string"}}},
    },
}
PAY: dict[str, Any] = {
    "name": "pay",
    "parameters": {
        "type": "object",
        "additionalProperties": False,
        "required": ["amount"],
        "properties": {
            "amount": {"type": "number", "minimum": 1},
            "currency": {"enum": ["EUR", "USD"]},
            "to": {
                "type": "object",
                "required": ["iban"],
                "properties": {"iban": {"type": "string", "pattern": "^DE"}},
            },
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        },
        "if": {"properties": {"currency": {"const": "USD"}}, "required": ["currency"]},
        "then": {"required": ["tags"]},
    },
    "http": {"url": "http://pay.example/"},
}
OPEN: dict[str, Any] = {
    "name": "open",
    "http": {"url": "http://open.example/${args.id}", "query": {"q": "${has(args.q) ? args.q : ''}"}},
}


def spec(*steps: dict[str, Any], **more: Any) -> WorkflowSpec:
    base = {"models": [MODEL], "tools": [PAY, OPEN], "inputs": CLOSED}
    return WorkflowSpec.model_validate(base | {"steps": list(steps)} | more)


def problems(*steps: dict[str, Any], **more: Any) -> list[str]:
    found = spec(*steps, **more)
    compile_program(found)  # what was taken once stays readable
    try:
        checked_program(found)
    except InvalidDocument as error:
        return [f"{dotted(problem.path)}: {problem.message}" for problem in error.problems]
    return []


def paying(args: dict[str, Any], name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "tool": {"name": "pay", "args": args}, **more}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            "timestamp('2027-13-01T00:00:00Z') < timestamp(inputs.any)",
            "the argument of timestamp() is not an instant: write RFC 3339",
        ),
        ("timestamp('2027-01-01') < timestamp(inputs.any)", "the argument of timestamp() is not an instant"),
        (
            "duration(inputs.any) > duration('1 hour')",
            "the argument of duration() is not a duration: write for example '90s'",
        ),
        ("inputs.orderId.matches('[')", "invalid regular expression: missing ]"),
        ("matches(inputs.orderId, '(?=a)b')", "invalid regular expression"),
        ("1 / 0 == 1", "divide by zero"),
        ("timestamp('2027-01-01T00:00:00Z') < timestamp(inputs.any)", None),
        ("inputs.orderId.matches('^it\\\\w+\\'s \\\\\\\\$')", None),
        ("has(inputs.any) && inputs.orderId.matches('[')", None),
        ("'x' in ['x']", None),
    ],
)
def test_what_of_an_expression_fails_whatever_the_values_are(condition: str, expected: str | None) -> None:
    """A pattern that is none was found when its step was due, after another had paid."""
    found = problems(paying({"amount": 1}), paying({"amount": 1}, "b", dependsOn=["a"], when=condition))
    assert len(found) == (expected is not None)
    if expected is not None:
        assert found[0].startswith(f"spec.steps[1].when: {expected}") and found[0].endswith(f"(in {condition})")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"amont": 1}, ['args: "amont" is not known; did you mean amount?', 'args: "amount" is a required property']),
        ({"amount": "1"}, ['args.amount: "1" is not of type "number"']),
        ({"amount": "${inputs.orderId}0"}, ['args.amount: a text is not of type "number"']),
        ({"amount": 0}, ["args.amount: 0 is less than the minimum of 1"]),
        ({"amount": "${inputs.any}", "currency": "GBP"}, ['args.currency: "GBP" is not one of']),
        ({"amount": 1, "to": {}}, ['args.to: "iban" is a required property']),
        ({"amount": 1, "to": {"iban": "FR"}}, ["args.to.iban: "]),
        ({"amount": 1, "to": {"iban": "${inputs.orderId}", "x": 1}}, []),
        ({"amount": 1, "to": "${inputs.any}"}, []),
        ({"amount": 1, "to": "to ${inputs.any}"}, ['args.to: a text is not of type "object"']),
        ({"amount": 1, "tags": ["a", "${inputs.any}", "c"]}, ["args.tags: "]),
        ({"amount": 1, "tags": ["a", 2]}, ['args.tags[1]: 2 is not of type "string"']),
        ({"amount": 1, "either": []}, ["args.either: "]),
        ({"amount": 1, "either": "${inputs.any}"}, []),
        ({"amount": "${inputs.any}", "currency": "USD"}, []),
        ({"amount": 1, "currency": "USD"}, ['args: "tags" is a required property']),
        ({"amount": 1, "currency": "${inputs.any}"}, []),
    ],
)
@pytest.mark.parametrize("kind", ["tool", "compensate", "finally", "forEach"])
def test_arguments_that_no_value_makes_fit(args: dict[str, Any], expected: list[str], kind: str) -> None:
    good = {"amount": 1}
    match kind:
        case "tool":
            found, prefix = problems(paying(args)), "spec.steps[0].tool."
        case "compensate":
            found = problems(paying(good, compensate={"name": "pay", "args": args}))
            prefix = "spec.steps[0].compensate."
        case "finally":
            found, prefix = problems(paying(good, "b"), **{"finally": [paying(args)]}), "spec.finally[0].tool."
        case _:
            found, prefix = problems(paying(args, forEach={"items": "${inputs.any}"})), "spec.steps[0].tool."
    assert len(found) == len(expected), found
    for message, part in zip(found, expected, strict=True):
        assert message.startswith(prefix + part) and message.endswith("do not fit the parameters of tool pay")


scalars = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "EUR", "USD", "DE1", "x"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["amount", "currency", "to", "iban", "tags", "either"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    whole=st.dictionaries(st.sampled_from(sorted(PAY["parameters"]["properties"])), values, max_size=5), data=st.data()
)
def test_arguments_are_refused_only_where_every_value_misfits(whole: dict[str, Any], data: st.DataObject) -> None:
    """Some parts are replaced by templates that give exactly these parts: what fits then was not refused before."""
    inputs: dict[str, Any] = {}

    def hidden(value: Any) -> Any:
        if data.draw(st.integers(0, 3)) == 0:
            name = f"v{len(inputs)}"
            inputs[name] = value
            return (
                f"${{inputs.{name}}}"
                if not isinstance(value, str) or data.draw(st.booleans())
                else f"${{inputs.{name}}} "
            )
        if isinstance(value, dict):
            return {key: hidden(part) for key, part in value.items()}
        if isinstance(value, list):
            return [hidden(part) for part in value]
        return value

    written = {key: hidden(part) for key, part in whole.items()}
    template = compile_value(written, Scope(("inputs",), None), (), [])
    rendered = template.render(Values({"inputs": inputs}))
    found = Fitting().misfits(template, Tool.model_validate(PAY))
    if compile_schema(PAY["parameters"]).fits(rendered):
        assert not found
    if not inputs:
        assert bool(found) == (not compile_schema(PAY["parameters"]).fits(rendered))


def test_large_arguments_are_left_to_the_moment_they_are_sent() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"enum": [f"{n:06}" for n in range(5000)]}}},
    }
    template = compile_value({"a": ["x"] * 5000}, Scope(("inputs",), None), (), [])
    tool = Tool.model_validate(PAY | {"parameters": schema})
    assert Fitting().misfits(template, tool) == []
    few, fitting = compile_value({"a": ["x"]}, Scope(("inputs",), None), (), []), Fitting()
    found = [bool(fitting.misfits(few, tool)) for _ in range(200)]
    assert found[0] and not found[-1]  # nor are many that are large together


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, "id is missing, but the request of tool open uses it; given: nothing"),
        ({"ID": 1}, "id is missing, but the request of tool open uses it; given: ID"),
        ({"idd": 1, "q": 2}, "did you mean idd?"),
        ({"id": "${inputs.orderId}"}, ""),
    ],
)
def test_an_argument_that_the_request_names(args: dict[str, Any], expected: str) -> None:
    found = problems({"name": "a", "tool": {"name": "open", "args": args}})
    assert bool(found) == bool(expected)
    assert not found or expected in found[0]


AGENT = {"name": "text", "agent": {"prompt": "x"}}
JUDGE = {"name": "judge", "agent": {"prompt": "x", "output": CLOSED["$defs"]["line"]}}
ASK = {"name": "ask", "approval": {"subject": "?", "approvers": PEOPLE}}
PAUSE = {"name": "pause", "wait": {"duration": "1s"}}
SIGNAL = {"name": "sig", "wait": {"signal": "s"}}
EACH = {"name": "each", "forEach": {"items": "${inputs.lines}"}, "agent": JUDGE["agent"]}
BEFORE = [AGENT, JUDGE, ASK, PAUSE, SIGNAL, EACH, paying({"amount": 1}, "called")]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("inputs.order_id", "inputs.order_id is missing: the schema has only orderId, "),
        ("inputs['order-id'] == ''", "inputs['order-id'] is missing"),
        ("inputs.orderId.x", "inputs.orderId.x is missing: inputs.orderId is a string"),
        ("inputs.note.x", "inputs.note.x is missing: inputs.note is a string or null"),
        ("inputs.lines.sku", "inputs.lines.sku is missing: inputs.lines is a list"),
        ("inputs.lines[0].price", "inputs.lines[0].price is missing: the schema has only sku"),
        ("inputs.to.town", "inputs.to.town is missing: the schema has only city"),
        ("inputs.to[0]", "inputs.to[0] is missing: inputs.to is an object"),
        ("inputs.named.a.b", "inputs.named.a.b is missing: inputs.named.a is a string"),
        ("inputs.lines.map(l, inputs.nosuch)", "inputs.nosuch is missing"),
        ("has(inputs.note) ? inputs.nosuch : ''", "inputs.nosuch is missing"),
        ("steps.text.output.x", "steps.text.output.x is missing: steps.text.output is a string"),
        ("steps.judge.output.price", "steps.judge.output.price is missing: the schema has only sku"),
        ("steps.ask.output.approvedBy", "the schema has only approved, by, comment"),
        ("steps.ask.output.by[0].name", "steps.ask.output.by[0] is a string"),
        ("steps.pause.output.x", "steps.pause.output is null"),
        ("steps.each.output.sku", "steps.each.output is a list"),
        ("steps.each.output[0].price", "the schema has only sku"),
        ("inputs.orderId", ""),
        ("inputs.lines[0].sku", ""),
        ("inputs.to.city", ""),
        ("inputs.open.x.y[0]", ""),
        ("inputs.any.x", ""),
        ("inputs.either.x", ""),
        ("inputs.pair[0].x", ""),
        ("inputs.named.whatever", ""),
        ("inputs.matched.x1", ""),
        ("has(inputs.nosuch) ? inputs.nosuch : ''", ""),
        ("inputs.?nosuch.orValue('')", ""),
        ("'nosuch' in inputs ? inputs.nosuch : ''", ""),
        ("[{'a': 1}].map(inputs, inputs.a)", ""),
        ("steps.judge.output.sku + steps.text.output + string(steps.each.output[0].sku)", ""),
        ("steps.sig.output.x", ""),
        ("steps.called.output.x", ""),
        ("steps.ask.output.by[0] + steps.ask.output.comment", ""),
        ("string(steps.ask.output.approved)", ""),
    ],
)
@pytest.mark.parametrize("where", ["when", "prompt", "args", "output", "compensate"])
def test_a_field_that_a_schema_does_not_have(expression: str, expected: str, where: str) -> None:
    after = {"name": "z", "dependsOn": [step["name"] for step in BEFORE]}
    whole = f"${{{expression}}}"
    match where:
        case "when":
            found = problems(*BEFORE, after | {"when": f"string(dyn({expression})) == ''", "wait": {"duration": "1s"}})
        case "prompt":
            found = problems(*BEFORE, after | {"agent": {"prompt": f"a {whole}"}})
        case "args":
            found = problems(*BEFORE, after | {"tool": {"name": "pay", "args": {"amount": 1, "to": {"iban": whole}}}})
        case "compensate":
            undo = {"name": "pay", "args": {"amount": whole}}
            found = problems(*BEFORE, after | {"agent": {"prompt": "x"}, "compensate": undo})
        case _:
            found = problems(*BEFORE, output={"a": [whole]})
    assert bool(found) == bool(expected), found
    assert not found or (expected in found[0] and len(found) == 1)


def test_an_item_has_the_schema_of_its_list() -> None:
    step = {"name": "a", "agent": {"prompt": "${item.sku} ${item.nosuch}"}}
    plain = CLOSED | {
        "properties": CLOSED["properties"] | {"lines": {"type": "array", "items": CLOSED["$defs"]["line"]}}
    }
    [found] = problems(step | {"forEach": {"items": "${inputs.lines}"}}, inputs=plain)
    assert "item.nosuch is missing: the schema has only sku" in found
    assert problems(step | {"forEach": {"items": "${inputs.any}"}}, inputs=plain) == []


def test_an_argument_that_closed_parameters_lack_is_found_in_the_request() -> None:
    tool = PAY | {"http": {"url": "http://pay.example/", "body": {"a": "${args.amont}"}}}
    found = problems(paying({"amount": 1}), tools=[tool])
    assert found[0].startswith("spec.tools[0].http.body.a: args.amont is missing") or "args.amont" in found[-1]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (
            {"agent": {"prompt": "x", "tools": ["pay", "open", "pay"]}},
            "agent.tools[2]: the tool pay is listed twice: keep one",
        ),
        ({"wait": {"until": "tomorrow"}}, 'wait.until: "tomorrow" is not an instant: write RFC 3339'),
        ({"wait": {"until": "2027-01-31T09:00:00"}}, "wait.until: "),
        ({"wait": {"until": "9999-12-31T23:59:60z"}}, ""),
        ({"wait": {"until": "${inputs.any}"}}, ""),
        ({"wait": {"duration": "99999d"}}, "wait.duration: a pause of 99999d is too long: at most 36500d"),
        ({"wait": {"duration": "${inputs.any}d"}}, ""),
    ],
)
def test_what_else_is_told_of_a_step_alone(step: dict[str, Any], expected: str) -> None:
    found = problems({"name": "a", **step})
    assert bool(found) == bool(expected) and (not found or expected in found[0])


@pytest.mark.parametrize(
    ("step", "warned"),
    [
        ({"agent": {"prompt": "${inputs.x}"}}, True),
        ({"agent": {"prompt": "${1 + inputs.x}"}}, True),
        ({"wait": {"duration": "1s"}, "when": "inputs.x"}, True),
        ({"forEach": {"items": "${inputs.x}"}, "agent": {"prompt": "a"}}, True),
        ({"agent": {"prompt": "${inputs.x}"}, "when": "inputs.y == 1"}, True),
        ({"agent": {"prompt": "${inputs.y == 1 ? inputs.x : 2}"}}, True),
        ({"agent": {"prompt": "a"}, "compensate": {"name": "pay", "args": {"amount": "${inputs.x}"}}}, True),
        ({"agent": {"prompt": "${has(inputs.x) ? inputs.x : 2}"}}, False),
        ({"agent": {"prompt": "${inputs.?x.orValue(2)}"}}, False),
        ({"agent": {"prompt": "${inputs.y}"}}, False),
    ],
)
def test_an_input_that_is_not_given(step: dict[str, Any], warned: bool) -> None:
    program = checked_program(spec({"name": "a", **step}, inputs={"type": "object"}))
    found = [problem.message for problem in absent_inputs(program, {"y": 1})]
    assert len(found) == warned
    assert all(message.startswith("inputs.x is missing in the run's inputs (in ") for message in found)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Deploy {{ .Values.name }}", "{{ … }}"),
        ("{{inputs.parameters.x}}", "{{ … }}"),
        ("{% if x %}a{% endif %}", "{% … %}"),
        ("cd $(HOME)", "$(NAME)"),
        ("cd %USERPROFILE%", "%NAME%"),
        ("plain $ {x} (a) 100% and $5", ""),
        ("$${HOME} {a} ${inputs.orderId}", ""),
        ("$(date +%s)", ""),
    ],
)
@pytest.mark.parametrize(
    "make", [lambda t: {"agent": {"prompt": t}}, lambda t: paying({"amount": 1, "to": {"iban": "DE", "a": [t]}})]
)
def test_other_tools_forms_are_text_and_warned_of(text: str, form: str, make: Callable[[str], dict[str, Any]]) -> None:
    workflow = spec({"name": "a"} | make(text))
    checked_program(workflow)
    found = list(other_forms(workflow))
    assert [form in problem.message for problem in found] == [True] * bool(form)
