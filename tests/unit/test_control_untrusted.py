"""What others than the operator do to the pods of steps: forge them, change them, put containers into them."""

from __future__ import annotations

from agentrun.api.keys import StepKey
from agentrun.control.views import PodView
from tests.harness.cluster_world import ClusterWorld
from tests.harness.operator_steps import begin
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
