"""What others than the operator write: forged pods, containers in the pods of steps, instants that no calendar has."""

from __future__ import annotations

import pytest

from agentrun.api.canonical import moment
from agentrun.api.keys import StepKey
from agentrun.control.views import PodView
from agentrun.journal.log import EventLog
from tests.harness.cluster_world import ClusterWorld, Operator
from tests.harness.operator_ports import METRICS
from tests.harness.operator_steps import begin, workflow
from tests.harness.planner_world import approval, step


def test_a_forged_pod_begins_no_step_before_its_approval(world: ClusterWorld) -> None:
    """One that says to be the end of a step's attempt: the step was begun, since it had begun already."""
    operator = begin(world, step("letter"), approval("sign-off", "letter"), step("pay", "sign-off"))
    operator.hear_all()
    world.run_pods()
    for _ in range(2):
        operator.hear_all()
        world.wait(2)
    assert world.created == [("letter", 1)]
    run = world.api.all("runs")[0]
    forged = PodView("mallory", "n", world.new_uid(), 0, run.ref, run.uid, StepKey("pay"), 1, "Ended", ended=world.now)
    world.api.write("pods", "mallory", forged)
    for _ in range(5):
        operator.hear_all()
        world.wait(2)
    world.run_pods()
    operator.hear_all()
    world.wait(2)
    assert world.created == [("letter", 1)]
    assert not world.ledger["pay"]
    world.answer()
    world.finish(operator)
    assert world.status()["phase"] == "Succeeded"


def test_a_pod_that_another_container_keeps_running_is_removed(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    world.api.sweep = lambda: None  # type: ignore[method-assign]  # which passes over pods whose phase is Running
    for _ in range(8):
        operator.hear_all()
        world.run_pods()
        operator.hear_all()
        world.wait(20)
    assert world.status()["phase"] == "Succeeded"
    assert world.pods(alive=False) == []


def quietly(world: ClusterWorld, operator: Operator) -> None:
    for _ in range(5):
        operator.hear_all()
        world.wait(2)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-05:00",
        "9999-12-31T23:59:59.9999999Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_an_instant_at_either_end_of_the_calendar_ends_no_visit(world: ClusterWorld, text: str) -> None:
    """In a run (its steps, its inputs, its status), in an Approval, and in a journal. The year 0 is none for Python."""
    failed, readable = METRICS.results["error"], not text.startswith("0000")
    waits = [{"name": "x", "wait": {"until": "${inputs.at}"}}, {"name": "s", "wait": {"signal": "go", "timeout": "1h"}}]
    if readable:
        waits.append({"name": "w", "wait": {"until": text}})
    typed = {"type": "object", "properties": {"at": {"type": "string"}}}
    at = text if readable else "2027-01-31T09:00:00Z"
    spec = {"workflow": workflow(approval("q"), *waits, inputs=typed), "inputs": {"at": at}}
    world.api.apply_run("r", spec)
    world.api.apply_run("other", {"workflow": workflow(step("a"))})
    operator = world.operator()
    quietly(world, operator)
    (asked,) = world.api.objects["approvals"]
    obj = world.api.objects["approvals"][asked]
    world.api.write("approvals", asked, obj | {"spec": obj["spec"] | {"expiresAt": text, "askedAt": text}})
    obj = world.api.objects["runs"]["r"]
    conditions = [condition | {"lastTransitionTime": text} for condition in obj["status"]["conditions"]]
    world.api.write("runs", "r", obj | {"status": obj["status"] | {"startTime": text, "conditions": conditions}})
    if readable:
        run = next(run for run in world.api.all("runs") if run.ref.name == "r")
        log = EventLog(world.store, world.path(run), lambda: moment(text))
        log.refresh()
        log.append("signalled", {"name": "other", "payload": None})
        log.append("waitStarted", {"step": "s", "signal": "go", "until": moment(text)})
    quietly(world, operator)
    operator.kill()
    operator = world.operator()  # which reads all of it anew
    quietly(world, operator)
    world.api.edit_run("r", cancel=True)
    world.finish(operator)
    assert world.status("r")["phase"] in ("Cancelled", "Failed")
    assert world.status("other")["phase"] == "Succeeded"
    assert METRICS.results["error"] == failed
