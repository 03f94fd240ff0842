"""The worst that fits into the bounds costs what the bounds say. Random documents are in tests/fuzz."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrun.api.errors import InvalidDocument, dotted
from agentrun.api.run import AgentRun
from agentrun.documents.document import parse
from agentrun.expressions.cost import COST_MAX
from agentrun.plan.planner import plan_slice
from agentrun.plan.snapshot import Snapshot
from agentrun.plan.work_budget import KEPT_MAX, RUN_MAX, SLICE, Work
from agentrun.workflow import program
from agentrun.workflow.pinning import check
from agentrun.workflow.program import Program, compile_program

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
