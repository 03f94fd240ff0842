"""The worst that fits into the bounds costs what the bounds say; and whatever a document says, it is answered so.

``AGENTRUN_FUZZ_SECONDS`` makes the fuzz of the validator and the planner run that long; else it is a short one.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrun.api.document import parse
from agentrun.api.errors import InvalidDocument, dotted
from agentrun.api.run import AgentRun
from agentrun.journal.pin import check
from agentrun.plan import program
from agentrun.plan.cost import COST_MAX
from agentrun.plan.planner import plan_slice
from agentrun.plan.program import Program, compile_program
from agentrun.plan.snapshot import Snapshot
from agentrun.plan.work import KEPT_MAX, RUN_MAX, SLICE, Work

SECONDS = float(os.environ.get("AGENTRUN_FUZZ_SECONDS", "0"))
WAIT = {"wait": {"duration": "1h"}}


def document(workflow: dict[str, Any], inputs: dict[str, Any] | None = None) -> bytes:
    spec = {"workflow": workflow, "inputs": inputs or {}}
    metadata = {"name": "worst"}
    return json.dumps(
        {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "metadata": metadata, "spec": spec}
    ).encode()


def checked(data: bytes) -> Program | InvalidDocument:
    """As ``agentrun validate`` does it."""
    try:
        documents = parse(data, "worst.json")
        check(documents)
    except InvalidDocument as refused:
        return refused
    model = documents[0].model
    assert isinstance(model, AgentRun) and model.spec.workflow is not None
    return compile_program(model.spec.workflow, ("spec", "workflow"))


def all_slices(program: Program, inputs: dict[str, Any]) -> Work:
    """The work of a whole plan of a fresh run, each slice within its bound."""
    snapshot = Snapshot(program, {"name": "r", "namespace": "n", "uid": "u"}, inputs, started=0.0, now=1.0)
    work = Work()
    while plan_slice(snapshot, work, SLICE) is None:
        assert work.used <= SLICE + 8 * COST_MAX
    assert work.spent <= RUN_MAX
    assert work.size <= KEPT_MAX
    return work


def conditions(text: str, count: int) -> list[dict[str, Any]]:
    return [{"name": f"s{n}", "when": text.replace("N", str(n)), **WAIT} for n in range(count)]


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        (conditions("[" + ",".join(["1"] * 480) + "].size() == N", 20), ".when"),
        (
            [
                {
                    "name": f"s{n}",
                    "approval": {
                        "subject": "x",
                        "approvers": {"users": ["a"]},
                        "details": {f"k{k}": f"${{inputs.a{n}x{k} > 1}}" for k in range(30)},
                    },
                }
                for n in range(30)
            ],
            ".approval.details.k",
        ),
    ],
    ids=["large ones", "many"],
)
def test_the_expressions_of_a_workflow_are_bounded_together(
    steps: list[dict[str, Any]], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.9 MB of them took 12 s and 420 MB.
    monkeypatch.setattr(program, "EXPRESSIONS_MAX", 100_000)
    refused = checked(document({"steps": steps}))
    assert isinstance(refused, InvalidDocument)
    [problem] = refused.problems
    assert dotted(problem.path).startswith("spec.workflow.steps[") and place in dotted(problem.path)
    assert "too large together" in problem.message


def test_the_schemas_of_a_workflow_are_bounded_together() -> None:
    models = [{"name": "m", "model": "gpt"}]
    agents = [{"name": f"s{n}", "agent": {"prompt": "x", "output": {"pattern": f"a.{{500}}{n}"}}} for n in range(100)]
    refused = checked(document({"models": models, "steps": agents}))
    assert isinstance(refused, InvalidDocument)
    assert "its schemas, with their patterns, are too large together" in refused.problems[0].message


def test_inputs_that_a_check_would_take_too_long_for_are_refused_in_words() -> None:
    schema = {"properties": {"l": {"items": {"enum": [[n] for n in range(3000)]}}}}
    refused = checked(document({"inputs": schema, "steps": [{"name": "a", **WAIT}]}, {"l": [[2999]] * 600}))
    assert isinstance(refused, InvalidDocument)
    assert "takes too much work to be checked against its schema" in refused.problems[0].message


@pytest.mark.parametrize(
    ("steps", "inputs"),
    [
        (conditions("inputs.l.map(x, x).size() == N", 40), {"l": list(range(300))}),
        (conditions("inputs.l[0] + 0 == N", 40), {"l": [{"a": 1}] * 2_000}),
        (
            [{"name": "f", "forEach": {"items": "${inputs.l}"}, "when": "item + 0 == -1", "tool": {"name": "t"}}],
            {"l": list(range(10_000))},
        ),
        (
            [
                {"name": f"f{n}", "forEach": {"items": "${inputs.l}"}, "tool": {"name": "t"}, "continueOnError": True}
                for n in range(20)
            ],
            {"l": list(range(500))},
        ),
    ],
    ids=["quadratic", "a large input converted for each", "a condition of each item", "many fan-outs"],
)
def test_the_worst_stays_within_the_units(steps: list[dict[str, Any]], inputs: dict[str, Any]) -> None:
    tools = [{"name": "t", "http": {"url": "http://tools.example/"}}]
    answer = checked(document({"tools": tools, "steps": steps}, inputs))
    assert isinstance(answer, Program)
    all_slices(answer, inputs)


_texts = st.sampled_from(
    [
        *("inputs.l", "inputs.l.map(x, x)", "inputs.s + inputs.s", "inputs.s.replace('', inputs.s)", "steps.a.output"),
        *(
            "inputs.l.map(x, inputs.l.map(y, x))",
            "inputs.l.filter(x, x in inputs.l)",
            "1/0",
            "inputs.nope",
            "item",
            "'",
        ),
        *("[inputs.s].map(x, x + x).map(x, x + x).map(x, x + x)", "inputs.s.matches('(a|b)*c{1,90}')", "has(inputs.l)"),
        *(
            "inputs.l.map(x, string(x)).join(inputs.s)",
            "'%s'.format([inputs.l])",
            "inputs.s.split('')",
            "{'a': inputs}",
        ),
    ]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | _texts.map("${{{}}}".format) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_schemas = st.recursive(
    st.sampled_from([{}, True, {"type": "integer"}, {"enum": [1, [2]]}, {"pattern": "a.{900}b"}, {"$ref": "#"}]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "anyOf": st.lists(inner, max_size=3),
            "items": inner,
            "properties": st.dictionaries(st.sampled_from(["l", "s"]), inner),
            "unevaluatedProperties": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^l", "a{90}"]), inner),
            "multipleOf": st.sampled_from([2, 0.37]),
        },
    ),
    max_leaves=6,
)


@st.composite
def _steps(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in draw(st.sampled_from([["a"], ["a", "b"], ["a", "b", "c"]])):
        kinds: list[dict[str, Any]] = [
            {"wait": {"duration": draw(st.just("1h") | _texts.map("${{{}}}".format))}},
            {"approval": {"subject": "s", "details": draw(_values), "approvers": {"users": ["x"]}}},
            {"tool": {"name": "t", "args": {"a": draw(_values)}}},
        ]
        step = {"name": name, **draw(st.sampled_from(kinds)), "dependsOn": [s["name"] for s in found[:1]]}
        if draw(st.booleans()):
            step["when"] = draw(_texts)
        if "tool" in step and draw(st.booleans()):
            step["forEach"] = {"items": draw(_values)}
        found.append(step)
    return found


@settings(
    max_examples=30 if not SECONDS else 1000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(
    steps=_steps() | st.lists(_values, max_size=2),
    schema=_schemas | _values,
    output=_values,
    size=st.sampled_from([0, 3, 200, 2000]),
)
def _fuzz(steps: Any, schema: Any, output: Any, size: int) -> None:
    inputs = {"l": list(range(size)), "s": "ab" * size}
    tools = [{"name": "t", "http": {"url": "http://tools.example/"}, "parameters": schema}]
    answer = checked(document({"tools": tools, "inputs": schema, "steps": steps, "output": output}, inputs))
    if isinstance(answer, Program):
        all_slices(answer, inputs)
    else:
        assert answer.problems
        assert all(len(problem.message) < 2000 for problem in answer.problems)


def test_whatever_a_document_says_it_is_answered_within_bounds() -> None:
    ends = time.monotonic() + SECONDS
    _fuzz()
    while time.monotonic() < ends:
        _fuzz()
