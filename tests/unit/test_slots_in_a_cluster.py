"""Runs beyond the bound on pods wait in a cluster, and begin by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from agentrun.adapters.settings import BadSetting, Settings
from agentrun.api.run import Outcome
from agentrun.plan.pod_bounds import Bounds
from tests.harness.cluster_world import ClusterWorld, Operator
from tests.harness.planner_world import CALL, MODEL, TOOL, step
from tests.harness.virtual_time import VirtualLoop


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Any:
    found = ClusterWorld(VirtualLoop(), bounds=request.param)
    yield found
    found.close()
    found.loop.close()


def spec(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"workflow": {"tools": [TOOL], "models": [MODEL], "steps": list(steps)}, **more}


def shown(world: ClusterWorld, name: str) -> tuple[str, str]:
    status = world.status(name)
    [ready] = [c for c in status["conditions"] if c["type"] == "Ready"]
    return ready["reason"], ready["message"]


def settled(world: ClusterWorld, operator: Operator, seconds: float = 3.0) -> None:
    for _ in range(4):
        operator.hear_all()
        world.wait(seconds / 4)


@pytest.mark.parametrize("world", [Bounds(whole=2)], indirect=True)
def test_a_run_beyond_the_bound_is_queued_and_begins_when_a_place_is_free(world: ClusterWorld) -> None:
    operator = world.operator()
    for name in ("a", "b", "c", "d"):
        world.api.apply_run(name, spec(step("s")))
        settled(world, operator)
    assert sorted(pod.run.name for pod in world.pods()) == ["a", "b"]
    reason, message = shown(world, "d")
    assert reason == "Queued" and "steps.maxPods" in message and "1 run of the namespace ahead" in message
    conditions = {c["type"]: c["status"] for c in world.status("d")["conditions"]}
    assert conditions == {"Succeeded": "Unknown", "Ready": "False", "Reconciling": "True", "Stalled": "False"}
    assert world.status("d")["phase"] == "Waiting"
    for done in ("a", "b", "c", "d"):
        assert world.pods()[0].run.name == done, "the oldest first"
        for _ in range(8):
            world.advance(world.pods()[0]) if world.pods()[0].run.name == done else None
            if not world.pods():
                break
        settled(world, operator)
        assert world.status(done)["phase"] == Outcome.SUCCEEDED
    assert len(world.created) == 4


@pytest.mark.parametrize("world", [Bounds(whole=1)], indirect=True)
def test_a_queued_run_that_is_cancelled_ends_at_once_and_holds_up_nobody(world: ClusterWorld) -> None:
    operator = world.operator()
    for name in ("a", "b", "c"):
        world.api.apply_run(name, spec(step("s")))
        settled(world, operator)
    world.api.edit_run("b", cancel=True)
    settled(world, operator)
    assert world.status("b")["phase"] == Outcome.CANCELLED and len(world.created) == 1
    world.run_pods()
    settled(world, operator)
    assert [pod.run.name for pod in world.pods()] == ["c"]


@pytest.mark.parametrize("world", [Bounds(namespace=1)], indirect=True)
def test_a_cancelled_run_settles_its_call_though_the_namespace_is_full_of_pods_that_never_work(
    world: ClusterWorld,
) -> None:
    operator = world.operator()
    world.api.apply_run("paid", spec(step("s", compensate=CALL)))
    settled(world, operator)
    for _ in range(3):  # it runs, has opened its journal, and has said that it is about to call
        world.advance(world.pods()[0])
    world.end(world.pods()[0], word=False)
    world.api.apply_run("stuck", spec(step("s")))
    settled(world, operator, 0.4)
    while not any(pod.run.name == "stuck" for pod in world.pods()):
        for pod in world.pods():
            world.end(pod, word=False)
        settled(world, operator, 0.4)
    world.api.edit_run("paid", cancel=True)
    for _ in range(30):
        settled(world, operator)
        for pod in world.pods():
            if pod.run.name == "paid":
                world.advance(pod)
        world.answer(resolve="giveUp")
    assert world.status("paid")["phase"] == Outcome.CANCELLED
    assert [pod.run.name for pod in world.pods()] == ["stuck"]


@pytest.mark.parametrize("world", [Bounds(whole=2)], indirect=True)
def test_a_new_leader_counts_the_pods_that_it_finds(world: ClusterWorld) -> None:
    operator = world.operator()
    for name in ("a", "b", "c"):
        world.api.apply_run(name, spec(step("s")))
        settled(world, operator)
    operator.kill()
    operator = world.operator()
    settled(world, operator)
    assert sorted(pod.run.name for pod in world.pods()) == ["a", "b"] and shown(world, "c")[0] == "Queued"
    world.finish(operator)


@pytest.mark.parametrize("world", [Bounds(whole=3)], indirect=True)
def test_a_fan_out_takes_the_places_that_there_are_and_goes_on_as_they_are_free(world: ClusterWorld) -> None:
    operator = world.operator()
    world.api.apply_run("r", spec(step("s", forEach={"items": list(range(20)), "maxParallel": 10})))
    settled(world, operator)
    assert len(world.pods()) == 3 and shown(world, "r")[0] == "Running"
    entries = [e for e in world.status("r")["steps"] if "waitingFor" in e]
    assert all("steps.maxPods" in e["waitingFor"]["place"] for e in entries)
    world.finish(operator)
    assert world.status("r")["phase"] == Outcome.SUCCEEDED and len(world.created) == 20


@pytest.mark.parametrize(("text", "bound"), [("", None), ("0", None), ("12", 12), (" 7 ", 7)])
def test_a_bound_is_a_number_and_nought_is_none(text: str, bound: int | None) -> None:
    environment = SETTINGS | {"AGENTRUN_STEP_PODS_MAX": text, "AGENTRUN_STEP_PODS_MAX_PER_NAMESPACE": "3"}
    assert Settings.from_environment(environment).bounds == Bounds(bound, 3)


@pytest.mark.parametrize("text", ["-1", "many", "1.5", "1e3", "9" * 10, "٣"])
def test_a_bound_that_is_no_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadSetting, match="AGENTRUN_STEP_PODS_MAX_PER_NAMESPACE"):
        Settings.from_environment(SETTINGS | {"AGENTRUN_STEP_PODS_MAX_PER_NAMESPACE": text})


SETTINGS = {"AGENTRUN_STORE": "s3://b/p", "AGENTRUN_STEP_IMAGE": "x", "AGENTRUN_ADMISSION_POLICIES": "p"}
