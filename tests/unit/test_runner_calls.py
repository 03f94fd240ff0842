"""An agent's attempt with a scripted model and tool: what is counted, what is asked, and what is not asked again."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from agentrun.api.facts import Allowance
from agentrun.api.workflow import FailureClass
from agentrun.journal.log import read_step
from agentrun.plan.attempts import time_left
from agentrun.records.step_records import Kind
from agentrun.runner.failures import Failure
from agentrun.runner.models import Usage
from agentrun.runner.ports import Ports
from agentrun.runner.tool_client import ToolOutput
from agentrun.store.protocol import StoreUnavailable
from tests.harness.runner_scene import KEY, OVERFLOW, RUN, Scene, ok, said


def unanswered() -> ToolOutput:
    raise Failure(FailureClass.TOOL, "no answer", retryable=True, happened="unknown")


@pytest.fixture(autouse=True)
def without_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ports, "preload", lambda self: None)


# -- calls that nobody needs to be asked about -----------------------------------------------------------------------


def test_a_call_that_did_not_happen_is_made_again_within_the_budget() -> None:
    """The budget had counted it: the answer "try again" led to the same question, as often as it was given."""
    calls: list[int] = []

    def pay() -> ToolOutput:
        calls.append(1)
        if len(calls) == 1:
            raise Failure(FailureClass.TOOL, "no answer", retryable=True, happened="unknown")
        return ok()

    scene = Scene(said(None, "pay"), said("done"), tool=pay)
    fact = scene.attempt(Allowance(tool_calls=1, last=True))
    assert fact.unknown is not None
    answer = {"step": "a", "callId": fact.unknown.call_id, "attempt": 1, "answer": "retry", "by": "me"}
    again = scene.attempt(Allowance(tool_calls=0, last=True), [scene.say("resolved", **answer)])
    assert again.outcome == "Succeeded"
    assert (len(calls), again.usage.tool_calls) == (2, 1)


def test_a_call_that_did_not_happen_has_all_of_its_time_until_it_is_begun_again() -> None:
    """The first one had used it up: an attempt that died after it took the answer left none to the next."""
    scene = Scene(said(None, "pay"), tool=unanswered)
    fact = scene.attempt()
    assert fact.unknown is not None
    answer = {"step": "a", "callId": fact.unknown.call_id, "attempt": 1, "answer": "retry", "by": "me"}
    event = scene.say("resolved", **answer)
    scene.fails("intent")
    with pytest.raises(StoreUnavailable):
        scene.attempt(events=[event])
    fact = scene.state.fact()
    assert fact.again and fact.unknown is None
    assert time_left(replace(fact, intervals=((0.0, 100.0),)), 60.0) == 60.0


def test_a_person_is_not_asked_again_where_a_call_that_did_not_happen_is_not_begun_anew() -> None:
    """The step's time was over before: what was asked again was whether the first call had happened."""
    scene = Scene(said(None, "pay"), tool=unanswered)
    fact = scene.attempt()
    assert fact.unknown is not None
    answer = {"step": "a", "callId": fact.unknown.call_id, "attempt": 1, "answer": "retry", "by": "me"}
    event = scene.say("resolved", **answer)
    scene.meanwhile("intent", scene.time_goes_by)
    again = scene.attempt(events=[event])
    assert again.unknown is None
    assert again.failure is not None and again.failure.failure_class is FailureClass.TIMEOUT


def test_a_call_whose_time_is_over_before_it_is_sent_did_not_happen() -> None:
    """Its intent was being written when the step's time was over: a person was asked about a call that never was."""
    calls: list[int] = []

    def pay() -> ToolOutput:
        calls.append(1)
        return ok()

    scene = Scene(said(None, "pay"), tool=pay)
    scene.meanwhile("intent", scene.time_goes_by)
    fact = scene.attempt()
    assert not calls
    assert fact.unknown is None
    assert fact.failure is not None and fact.failure.failure_class is FailureClass.TIMEOUT


def test_an_answer_that_is_being_written_is_kept_however_often_the_attempt_is_told_to_end() -> None:
    """Its time was over, and then its grace period: `waiting` took the number of the answer, which was paid twice."""
    scene = Scene(said("x"))
    scene.meanwhile("turn", scene.told_to_end_twice)
    scene.attempt()
    assert [record.kind for record in read_step(scene.store, RUN, KEY, whole=True)] == [
        Kind.OPENED,
        Kind.TURN,
        Kind.WAITING,
    ]


# -- what is counted -------------------------------------------------------------------------------------------------


def test_a_request_after_a_summary_is_reserved_anew() -> None:
    scene = Scene(said(None, "look"), OVERFLOW, said("summary"), said("done"))
    scene.attempt(Allowance(model_calls=2, last=True))
    assert len(scene.model.asked) == 3
    assert scene.state.usage["modelCalls"] == 2


def test_a_summary_of_an_endpoint_that_counts_nothing_is_estimated() -> None:
    long = "x" * 3000
    turns = [said(None, "look"), said(None, "look", usage=Usage(900, 0, 10))]
    scene = Scene(
        *turns, said(long, usage=Usage()), said("done"), tool=lambda: ToolOutput(200, long, long), window=1000
    )
    scene.attempt()
    records = read_step(scene.store, RUN, KEY, whole=True)
    [summary] = [record for record in records if record.kind == Kind.COMPACTED][:1]
    assert summary.body["usage"]["inputTokens"] > 0


def test_a_summary_that_says_nothing_replaces_no_history() -> None:
    """The model had spent its answer on thoughts: the history was replaced by "(none)"."""
    scene = Scene(said(None, "look"), said(None, "look"), OVERFLOW, said(" \n"))
    fact = scene.attempt()
    assert fact.failure is not None
    assert "summary of its history was empty" in fact.failure.message
    assert not [r for r in read_step(scene.store, RUN, KEY, whole=True) if r.kind == Kind.COMPACTED]


@pytest.mark.parametrize("usage", [Usage(0, 0, 7), Usage(100, 0, 0), Usage()])
def test_a_count_that_is_not_reported_is_estimated_alone(usage: Usage) -> None:
    scene = Scene(said("done", usage=usage))
    scene.attempt()
    spent = scene.state.usage
    assert (spent["inputTokens"] > 0, spent["outputTokens"] > 0) == (True, True)
    assert usage.input in (0, spent["inputTokens"]) and usage.output in (0, spent["outputTokens"])


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_an_answer_of_blanks_is_none(blank: str) -> None:
    scene = Scene(said(blank), said("done"))
    assert scene.attempt().output == "done"


def test_more_cached_tokens_than_input_earn_no_budget() -> None:
    scene = Scene(said("done", usage=Usage(10, 1_000_000, 5)))
    scene.attempt()
    assert Decimal(scene.state.usage["costUSD"]) >= 0


def test_a_large_budget_asks_for_no_longer_answer_than_the_window_has() -> None:
    scene = Scene(said("done"))
    scene.attempt(Allowance(tokens=5_000_000, last=True))
    assert scene.model.asked[0].max_output_tokens is None


def test_an_agent_is_told_that_a_call_was_made_whose_answer_it_cannot_use() -> None:
    """It read like a refusal, and so it was made again."""
    kept = {"status": 200, "bytes": 9, "body": "x" * 100_000}
    unusable = ToolOutput(200, {"error": "e"}, "answered with HTTP 200 OK, but no", is_error=True, kept=kept)
    scene = Scene(said(None, "pay", "look"), said("done"), tool=lambda: unusable)
    assert scene.attempt().outcome == "Succeeded"
    records = read_step(scene.store, RUN, KEY, whole=True)
    results = [result for record in records for result in record.body.get("results", ())]
    told = {result["tool"]: result for result in results}
    assert "has taken effect, so do not make it again" in told["pay"]["output"]
    assert told["pay"]["answer"] == kept
    assert "has taken effect" not in told["look"]["output"] and "answer" not in told["look"]  # it only reads
    assert "xxx" not in str(scene.state.to_json())  # nor does every checkpoint hold it


def test_no_record_holds_a_secret_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "very-secret-0123456789")
    echo = "Bearer very-secret-0123456789"
    scene = Scene(
        said(f"I read {echo}", "look"),
        said(f"It was {echo[7:].encode().hex()}"),
        tool=lambda: ToolOutput(200, echo, echo),
    )
    fact = scene.attempt()
    assert fact.output == "It was ***"
    written = b"".join(scene.store.objects.values())
    assert b"0123456789" not in written
