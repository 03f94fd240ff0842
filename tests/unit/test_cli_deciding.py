from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from agentrun.api.keys import StepKey
from agentrun.journal.paths import RunPath
from tests.harness.cli_store import PEOPLE, Scene, Type, closed, intent, request, turn, unknown


def asking(scene: Scene, **more: Any) -> RunPath:
    """A run whose sign-off waits."""
    run = scene.run()
    scene.step(run, "triage", closed("yes"))
    scene.event(run, "approvalRequested", step="sign-off", request=request("Refund?", digest="sha256:aa", **more))
    return run


def calls(scene: Scene) -> RunPath:
    """A run of which an agent waits with two calls."""
    run = scene.run()
    asked = [request(f"pay {n}", digest=f"sha256:{n}", call=f"1-{n}") for n in (0, 1)]
    scene.step(run, "triage", turn(None, ("pay", {}), ("pay", {})), ("waiting", {"approvals": asked}))
    return run


def over(scene: Scene, run: RunPath) -> None:
    scene.event(run, "ended", outcome="Failed", output=None, steps={}, compensations={}, heads={})


def test_the_only_question_needs_no_name(scene: Scene, agentrun: Type) -> None:
    run = asking(scene)
    said = agentrun("approve", "r1", "--as-group", "finance", "--as-group", "ops", "--comment", "fine")
    assert said.code == 0
    assert "approved: sign-off: Refund?" in said.out and '{"amount": 5}' in said.out
    assert said.out.endswith("continue with: agentrun resume r1\n")
    assert scene.events(run, "decided") == [
        {
            "step": "sign-off",
            "digest": "sha256:aa",
            "by": "ben",
            "groups": ["finance", "ops"],
            "verified": False,
            "decision": "Approved",
            "comment": "fine",
        }
    ]


@pytest.mark.parametrize("groups", [[], ["--as-group", "ops"]])
def test_who_is_no_approver_is_told_who_is_and_nothing_is_written(
    scene: Scene, agentrun: Type, groups: list[str]
) -> None:
    run = asking(scene)
    said = agentrun("reject", "r1", *groups)
    assert said.code == 2 and "ben" in said.err and "allowed to decide: group finance" in said.err
    assert scene.events(run, "decided") == []


def test_a_decision_that_is_made_says_by_whom_and_stays(scene: Scene, agentrun: Type) -> None:
    run = asking(scene)
    assert agentrun("reject", "r1", "sign-off", "--as-group", "finance").code == 0
    said = agentrun("approve", "r1", "sign-off", "--as-group", "finance")
    assert said.code == 2 and "is already decided: Rejected by ben at " in said.err
    assert agentrun("approve", "r1").code == 2
    assert len(scene.events(run, "decided")) == 1


def test_one_person_counts_once(scene: Scene, agentrun: Type) -> None:
    run = asking(scene, required=2)
    first = agentrun("approve", "r1", "--as-group", "finance")
    assert first.code == 0 and "1 of 2 people have approved" in first.out
    second = agentrun("approve", "r1", "--as-group", "finance")
    assert second.code == 2 and "you have already decided sign-off: Approved" in second.err
    assert len(scene.events(run, "decided")) == 1


def test_what_expired_is_not_decided(scene: Scene, agentrun: Type) -> None:
    run = asking(scene, expires=1.0)
    said = agentrun("approve", "r1", "sign-off", "--as-group", "finance")
    assert said.code == 2 and "expired at 1970" in said.err
    assert scene.events(run, "decided") == []


def test_all_calls_of_a_step_are_decided_unless_one_is_named(scene: Scene, agentrun: Type) -> None:
    run = calls(scene)
    assert agentrun("reject", "r1", "triage", "--as-group", "finance", "--call", "1-1").code == 0
    assert [d["digest"] for d in scene.events(run, "decided")] == ["sha256:1"]
    assert "waiting calls: 1-0" in agentrun("approve", "r1", "--as-group", "finance", "--call", "1-1").err
    said = agentrun("approve", "r1", "--as-group", "finance")
    assert said.code == 0 and "pay 0" in said.out and "pay 1" not in said.out


def test_several_questions_want_a_name(scene: Scene, agentrun: Type) -> None:
    run = calls(scene)
    scene.event(run, "approvalRequested", step="sign-off", request=request("Refund?", digest="sha256:aa"))
    said = agentrun("approve", "r1", "--as-group", "finance")
    assert said.code == 2 and "triage: pay 0" in said.err and "sign-off: Refund?" in said.err
    assert scene.events(run, "decided") == []


@pytest.mark.parametrize(
    "words",
    [
        ["approve", "r1", "sign-off", "--as-group", "finance"],
        ["signal", "r1", "noted"],
        ["suspend", "r1"],
        ["cancel", "r1"],
        ["resolve", "r1", "triage", "--retry"],
    ],
)
def test_an_ended_run_is_left_alone(scene: Scene, agentrun: Type, words: list[str]) -> None:
    run = asking(scene)
    over(scene, run)
    before = scene.store.list(run.events)
    said = agentrun(*words)
    assert said.code == 2 and "has ended: Failed" in said.err
    assert scene.store.list(run.events) == before


def test_of_two_at_once_one_decides(scene: Scene, agentrun: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's decision arrives between our look and our append."""
    run = asking(scene)
    append = type(scene.store).create
    raced = threading.Event()

    def create(store: Any, key: str, data: bytes) -> None:
        if key.startswith(run.events) and not raced.is_set():
            raced.set()
            other = {"step": "sign-off", "digest": "sha256:aa", "by": "fay", "groups": ["finance"], "verified": False}
            scene.event(run, "decided", **other, decision="Rejected", comment="no")
        append(store, key, data)

    monkeypatch.setattr(type(scene.store), "create", create)
    said = agentrun("approve", "r1", "--as-group", "finance")
    assert said.code == 2 and "is already decided: Rejected by fay" in said.err
    assert [d["by"] for d in scene.events(run, "decided")] == ["fay"]


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ([], None),
        (["shipped ok"], "shipped ok"),
        (['{"a": [1]}'], {"a": [1]}),
        (["007"], "007"),
        (["NaN"], "NaN"),
        (["true"], True),
    ],
)
def test_a_payload_is_json_or_text(scene: Scene, agentrun: Type, text: list[str], payload: Any) -> None:
    run = scene.run(workflow=PEOPLE)
    assert agentrun("signal", "r1", "shipped", *text).code == 0
    assert scene.events(run, "signalled") == [{"name": "shipped", "payload": payload, "by": "ben", "verified": False}]


def test_a_signal_that_nobody_takes_or_that_is_too_large_is_refused(scene: Scene, agentrun: Type) -> None:
    run = scene.run(workflow=PEOPLE)
    said = agentrun("signal", "r1", "shiped")
    assert said.code == 2 and "its signals: shipped" in said.err
    assert agentrun("signal", "r1", "shipped", "x" * 70_000).code == 2
    assert scene.events(run, "signalled") == []


@pytest.mark.parametrize("text", ["{bad", '{"id": 7', "[1,", '"unclosed'])
def test_broken_json_is_not_recorded_as_a_text(scene: Scene, agentrun: Type, text: str) -> None:
    """What a person said became of a call stays: a typing error must not."""
    run = scene.run()
    scene.step(run, "refund", intent(), unknown(), task={"args": {}})
    said = agentrun("resolve", "r1", "refund", "--happened", text)
    assert said.code == 2 and "it is not JSON" in said.err and json.dumps(text) in said.err
    assert agentrun("resolve", "r1", "refund", "--happened", json.dumps(text)).code == 0
    assert scene.events(run, "resolved")[0]["result"] == text


@pytest.mark.parametrize(
    ("flags", "answer", "found"),
    [
        (["--happened", '{"id": 7}'], "happened", {"id": 7}),
        (["--happened", "paid"], "happened", "paid"),
        (["--retry"], "retry", None),
        (["--give-up"], "giveUp", None),
    ],
)
def test_an_unknown_outcome_is_resolved_once(
    scene: Scene, agentrun: Type, flags: list[str], answer: str, found: Any
) -> None:
    run = scene.run()
    scene.step(run, "refund", intent(), unknown(), task={"args": {}})
    said = agentrun("resolve", "r1", "refund", *flags)
    assert said.code == 0 and 'refund: pay({"amount": 5})' in said.out and "agentrun resume r1" in said.out
    body = {"step": "refund", "callId": "call", "attempt": 1, "answer": answer, "result": found}
    body |= {"by": "ben", "verified": False}
    assert scene.events(run, "resolved") == [body]
    again = agentrun("resolve", "r1", "refund", "--retry")
    assert again.code == 2 and f"already resolved: {answer}, by ben" in again.err
    assert len(scene.events(run, "resolved")) == 1


def test_only_what_is_unknown_is_resolved(scene: Scene, agentrun: Type) -> None:
    run = scene.run()
    scene.step(run, "refund", intent(), unknown(), task={"args": {}})
    scene.step(run, "triage", closed("x"))
    said = agentrun("resolve", "r1", "triage", "--retry")
    assert said.code == 2 and "triage is Succeeded" in said.err and "OutcomeUnknown: refund" in said.err
    assert "exactly one" in agentrun("resolve", "r1", "refund", "--retry", "--give-up").err
    assert "exactly one" in agentrun("resolve", "r1", "refund").err
    assert scene.events(run, "resolved") == []


def test_suspending_and_cancelling_twice_writes_once(scene: Scene, agentrun: Type) -> None:
    run = scene.run()
    assert agentrun("suspend", "r1").code == 0
    assert "it was already" in agentrun("suspend", "r1").out
    assert len(scene.events(run, "suspended")) == 1
    assert agentrun("list").out.splitlines()[1].split()[1] == "Suspended"
    assert json.loads(agentrun("cancel", "r1", "-o", "json").out)["spec"]["cancel"] is True
    assert "cannot be suspended" in agentrun("suspend", "r1").out
    assert len(scene.events(run, "cancelled")) == 1


def test_with_an_object_on_standard_output_people_are_told_on_standard_error(scene: Scene, agentrun: Type) -> None:
    asking(scene)
    said = agentrun("approve", "r1", "--as-group", "finance", "-o", "json")
    assert json.loads(said.out)["kind"] == "AgentRun" and "approved: sign-off" in said.err


def test_the_steps_of_a_fan_out_are_named_either_way(scene: Scene, agentrun: Type) -> None:
    workflow = {"tools": [{"name": "pay", "http": {"url": "http://127.0.0.1:1/"}}]}
    steps = [{"name": "each", "forEach": {"items": [1, 2]}, "tool": {"name": "pay"}}]
    run = scene.run(workflow=workflow | {"steps": steps})
    for n in (0, 1):
        scene.step(run, f"each[{n}]", intent(), unknown(), task={"args": {}})
    assert agentrun("resolve", "r1", "each[1]", "--retry").code == 0
    assert agentrun("resolve", "r1", "each.0", "--give-up").code == 0
    assert [e["step"] for e in scene.events(run, "resolved")] == ["each.1", "each.0"]
    assert scene.store.list(run.step(StepKey("each", 0)))
