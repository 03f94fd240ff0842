"""The fields, items, inputs and forms that a workflow names are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentrun.workflow.lint import absent_inputs, checked_program, other_forms
from tests.harness.linted import CLOSED, PAY, paying, problems, spec
from tests.harness.planner_world import PEOPLE

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
