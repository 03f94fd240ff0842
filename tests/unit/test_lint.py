"""What will surely fail is found before the first effect; what is only perhaps a mistake is warned of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.tools import Tool
from agentrun.expressions.templates import Scope, Values, compile_value
from agentrun.workflow.fitting import Fitting
from agentrun.workflow.json_schema import compile_schema
from tests.harness.linted import PAY, paying, problems


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
