"""The rules before a call: one list, whole and in order, and no call that goes around it."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentrun.api.facts import Allowance, ApprovalRequest
from agentrun.api.tools import Approvers, Tool
from agentrun.api.workflow import FailureClass
from agentrun.journal.log import read_step
from agentrun.records.step_records import Kind, ModelCall
from agentrun.runner import gates
from agentrun.runner.attempt import Attempt
from agentrun.runner.failures import Failure
from agentrun.runner.gates import CALL_GATES, Allow, Ask, Context, Decision, Gate, Refuse, Wait, judge, require
from agentrun.runner.outcomes import Parked
from agentrun.runner.tool_client import ToolOutput
from tests.harness.runner_scene import KEY, RUN, Scene, ok, said

CALL: ModelCall = {"id": "1-0", "callId": "c", "name": "pay", "args": {"n": 2.0}}
PARAMETERS = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
PAY = Tool.model_validate({"name": "pay", "parameters": PARAMETERS, "http": {"url": "http://t.example/"}})
REQUEST = ApprovalRequest("May it?", None, "sha256:1", Approvers(users=["eve"]), 1, 1e12, "1-0", "pay")
REFUSAL = Refuse(FailureClass.TOOL, "a rule says no")


def context(listed: list[str] | None = None) -> Context:
    return Context(cast("Attempt", None), {"pay": PAY}, listed)


def attempt(**allowance: Any) -> Attempt:
    return cast(
        "Attempt", SimpleNamespace(spec=SimpleNamespace(start=SimpleNamespace(allowance=Allowance(**allowance))))
    )


def test_every_rule_is_in_the_list() -> None:
    """A rule is a public function of a call and a context."""
    rules = {
        function
        for name, function in inspect.getmembers(gates, inspect.isfunction)
        if function.__module__ == gates.__name__
        and not name.startswith("_")
        and [p.annotation for p in inspect.signature(function).parameters.values()] == ["ModelCall", "Context"]
    }
    assert [gate.rule for gate in CALL_GATES if gate.rule in rules] == [gate.rule for gate in CALL_GATES]
    assert len(rules) == len(CALL_GATES)


@pytest.mark.parametrize(
    ("call", "listed", "why"),
    [
        ({"error": "it is no JSON", "name": "nothing"}, [], "it is no JSON"),
        ({"name": "nothing", "args": {}}, None, 'there is no tool "nothing"; there are: pay'),
        ({"args": {}}, [], 'there is no tool "pay"; there are: none'),
        ({"args": {}}, ["pay"], "the arguments do not fit the tool's parameters: "),
    ],
)
def test_the_first_rule_that_does_not_allow_a_call_decides(call: Any, listed: list[str] | None, why: str) -> None:
    decision = judge(CALL | call, context(listed))
    assert isinstance(decision, Refuse) and decision.why.startswith(why)


def test_a_rule_hands_on_the_call_as_it_is_made() -> None:
    decision = judge(CALL, context())
    assert isinstance(decision, Allow)
    assert repr(decision.call["args"]) == "{'n': 2}"


def rule(monkeypatch: pytest.MonkeyPatch, decision: Decision, *, at_send: bool) -> None:
    """Let ``decision`` be what one more rule says of every call."""
    monkeypatch.setattr(gates, "CALL_GATES", (*CALL_GATES, Gate(lambda *_: decision, at_send)))


def uncalled() -> ToolOutput:
    raise AssertionError("the call was made")


@pytest.mark.parametrize("tool", ["look", "pay"])
def test_an_agents_call_that_is_refused_is_answered(monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    rule(monkeypatch, REFUSAL, at_send=False)
    scene = Scene(said(None, tool), said("done"), tool=uncalled)
    fact = scene.attempt()
    assert (fact.outcome, fact.usage.tool_calls) == ("Succeeded", 0)
    [result] = [r.body["results"] for r in read_step(scene.store, RUN, KEY, whole=True) if r.kind == Kind.RESULT]
    assert [(one["output"], one["called"], one["isError"]) for one in result] == [(REFUSAL.why, False, True)]


@pytest.mark.parametrize("at_send", [False, True])
@pytest.mark.parametrize("tool", ["look", "pay"])
def test_an_agents_call_waits_for_people_and_for_budget(
    monkeypatch: pytest.MonkeyPatch, tool: str, at_send: bool
) -> None:
    for decision in (Ask(REQUEST), Wait("toolCalls")):
        rule(monkeypatch, decision, at_send=at_send)
        scene = Scene(said(None, tool), tool=uncalled)
        fact = scene.attempt(Allowance(last=False))
        assert fact.end == "waiting"
        assert [request.digest for request in fact.approvals] == ([REQUEST.digest] if decision == Ask(REQUEST) else [])
        assert fact.needs_budget is (decision == Wait("toolCalls"))
        assert scene.state.intent is None


@pytest.mark.parametrize("tool", ["look", "pay"])
def test_a_call_that_is_refused_as_it_is_made_ends_the_attempt(monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    rule(monkeypatch, REFUSAL, at_send=True)
    scene = Scene(said(None, tool), tool=uncalled)
    fact = scene.attempt()
    assert fact.failure is not None and (fact.failure.failure_class, fact.failure.message) == ("Tool", REFUSAL.why)
    assert scene.state.intent is None


def test_what_is_not_allowed_ends_an_attempt_of_one_call() -> None:
    allowed = Allow(CALL, ("eve",))
    assert require(allowed, attempt()) is allowed
    with pytest.raises(Failure) as refused:
        require(REFUSAL, attempt())
    assert (refused.value.failure_class, refused.value.retryable) == (FailureClass.TOOL, False)
    with pytest.raises(Parked) as asked:
        require(Ask(REQUEST), attempt())
    assert asked.value.body == {"approvals": [REQUEST.to_json()]}
    with pytest.raises(Parked) as waiting:
        require(Wait("toolCalls"), attempt(last=False))
    assert waiting.value.body == {"budget": "toolCalls"}
    with pytest.raises(Failure) as never:
        require(Wait("toolCalls"), attempt())
    assert never.value.failure_class is FailureClass.BUDGET


def test_the_names_of_those_who_approved_stand_in_the_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    people = ("ann", "eve")
    monkeypatch.setattr(gates, "CALL_GATES", (*CALL_GATES, Gate(lambda call, _: Allow(call, people))))
    scene = Scene(said(None, "pay"), said("done"), tool=ok)
    assert scene.attempt().outcome == "Succeeded"
    [intent] = [r.body for r in read_step(scene.store, RUN, KEY, whole=True) if r.kind == Kind.INTENT]
    assert intent["approvedBy"] == list(people)
