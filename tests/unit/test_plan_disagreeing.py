"""What is planned while the journal, the processes and the clocks disagree for a moment; and what stays decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentrun.api.facts import Allowance, AttemptEnd, StepFact, Usage
from agentrun.api.keys import StepKey
from agentrun.plan.snapshot import Execution, Start
from tests.harness.planner_world import CALL, PlannerWorld, approval, compiled, planned, request, step

NEVER: dict[str, Any] = {"limit": 0}
A = StepKey("a")


# -- processes that linger: a new leader reads the journal, and the end of the pod is still to be seen ----------------


def linger(world: PlannerWorld) -> dict[StepKey, Execution]:
    """The processes as they are, to be put back after what ends their attempts."""
    return {key: replace(execution, started=world.now) for key, execution in world.executions.items()}


def test_a_closed_step_holds_no_budget() -> None:
    """The next step began with nothing, and needed a second pod."""
    world = PlannerWorld(compiled(step("a"), step("b", "a")), budget=Allowance(tool_calls=10))
    world.go()
    lingering = linger(world)
    world.succeed("a", usage=Usage(tool_calls=4))
    world.executions |= lingering
    world.go()
    assert world.starts[1].allowance == Allowance(tool_calls=6, last=True)


def test_a_parked_step_holds_no_budget() -> None:
    wait = {"name": "c", "wait": {"signal": "s"}}
    world = PlannerWorld(compiled(step("a"), step("b", "c"), wait), budget=Allowance(tool_calls=10))
    world.go()
    lingering = linger(world)
    world.park("a", request("x"), usage=Usage(tool_calls=4))
    world.executions |= lingering
    world.append("signalled", name="s", payload=1)
    world.go()
    assert (world.starts[-1].key.name, world.starts[-1].allowance.tool_calls) == ("b", 6)


@pytest.mark.parametrize(
    ("at_work", "spent", "left"),
    [
        # what a first attempt has spent so far is of what it holds
        (Execution(1, 1000.0, Allowance(tool_calls=5)), 4, 5),
        # a driver that adopts the attempt of one that died does not know what it holds: then what it has spent counts
        (Execution(1, 1000.0, stopping=True), 9, 1),
    ],
)
def test_what_is_left_beside_an_attempt_that_others_began(at_work: Execution, spent: int, left: int) -> None:
    wait = {"name": "c", "wait": {"signal": "s"}}
    world = PlannerWorld(compiled(step("a"), wait, step("b", "c")), budget=Allowance(tool_calls=10))
    world.executions[A] = at_work
    world.facts[A] = StepFact(attempt=1, seq=9, started=1000.0, at=1000.0, usage=Usage(tool_calls=spent))
    world.append("waitStarted", step="c", signal="s")
    world.append("signalled", name="s", payload=1)
    world.go()
    assert world.starts[-1].allowance.tool_calls == left


def test_a_pod_that_the_api_server_refuses_holds_no_budget() -> None:
    """A step that needs all of it waited for one at which nothing was at work."""
    world = PlannerWorld(compiled(step("a"), step("b")), budget=Allowance(tokens=100))
    world.go()
    world.park("a", needs_budget=True)
    world.executions[StepKey("b")] = Execution(0, world.now, stopping=True, pending=True)
    world.go()
    assert world.starts[-1].allowance == Allowance(tokens=100, last=True)


def test_a_closed_item_holds_no_place_of_a_fan_out() -> None:
    world = PlannerWorld(compiled(step("f", forEach={"items": [1, 2], "maxParallel": 1})))
    world.go()
    lingering = linger(world)
    world.succeed("f[0]")
    world.executions |= lingering
    world.go()
    assert StepKey("f", 1) in world.executions


def test_a_closed_step_takes_no_time_of_the_run() -> None:
    """A run that had succeeded was compensated, because a pod on a silent node was not seen to end."""
    world = PlannerWorld(compiled(step("a", compensate=CALL), **{"finally": [step("z")]}), timeout=60.0)
    world.go()
    lingering = linger(world)
    world.succeed("a", after=50.0)
    world.executions |= lingering
    world.go()
    assert (world.starts[-1].key.name, world.starts[-1].outcome) == ("z", "Succeeded")
    world.now += 11
    world.go()
    world.succeed("z")
    del world.executions[A]
    world.go()
    assert world.ended["outcome"] == "Succeeded"
    assert not [start for start in world.starts if start.key.compensate]


# -- the run's time, once it is over -----------------------------------------------------------------------------------


def test_a_run_that_timed_out_stays_so_though_its_time_becomes_less() -> None:
    """An attempt that hung leaves no word: its time ends with its last record, long before it was killed."""
    world = PlannerWorld(compiled(step("x"), approval("ok"), step("y", "ok")), timeout=60.0)
    world.go()
    world.facts[StepKey("x")] = StepFact(attempt=1, seq=1, started=1000.0, at=1000.0, intervals=((1000.0, 1000.0),))
    world.now += 61
    world.go()
    assert [event.kind for event in world.events].count("timedOut") == 1
    assert world.executions[StepKey("x")].stopping
    assert world.state("ok") == "Cancelled"
    del world.executions[StepKey("x")]
    world.go()
    assert (world.ended["outcome"], world.ended["failure"]["class"]) == ("Failed", "Timeout")


def test_a_run_does_not_time_out_once_finally_was_told_that_it_succeeded() -> None:
    """Another leader, whose clock differs, may reckon more time than the one before."""
    world = PlannerWorld(compiled(step("a", compensate=CALL), **{"finally": [step("z")]}), timeout=60.0)
    world.go()
    world.succeed("a", after=50.0)
    world.go()
    world.facts[A] = replace(world.facts[A], intervals=((1000.0, 1061.0),))
    world.go()
    world.succeed("z")
    world.go()
    assert world.ended["outcome"] == "Succeeded"


def test_a_run_of_the_first_journals_that_had_timed_out_begins_nothing_again() -> None:
    """They have no record of it, and ``finally`` has begun: a step that was told to leave went on."""
    world = PlannerWorld(compiled(step("a"), step("b", "a"), **{"finally": [step("z")]}), timeout=60.0, now=1070.0)
    world.facts[A] = StepFact(
        attempt=1, seq=2, started=1000.0, at=1061.0, end=AttemptEnd.WAITING, intervals=((1000.0, 1061.0),)
    )
    world.executions[StepKey("z")] = Execution(1, 1062.0)
    world.go()
    assert not world.starts


# -- attempts that settle what is open ---------------------------------------------------------------------------------


def test_an_attempt_that_settles_a_call_is_not_told_to_leave() -> None:
    world = PlannerWorld(compiled(step("a")))
    world.go()
    world.lose("a", unknown="call-1")
    world.append("cancelled")
    world.go()
    assert world.starts[-1].drain
    assert not world.executions[A].stopping


def test_what_may_still_be_at_work_is_fenced_before_the_run_ends() -> None:
    """A node was cut off; its runner went on and made its call after the run was Cancelled."""
    world = PlannerWorld(compiled(step("a")))
    world.go()
    world.lose("a")
    world.append("cancelled")
    adrift = replace(world.snapshot(), adrift=frozenset({A}))
    [start] = [effect for effect in planned(adrift).effects if isinstance(effect, Start)]
    assert (start.key, start.attempt, start.drain) == (A, 2, True)
    world.go()  # nobody is adrift: its end was seen
    assert world.ended["outcome"] == "Cancelled"


# -- what is over stays over -------------------------------------------------------------------------------------------


def test_a_cancelled_wait_takes_no_signal() -> None:
    last = {"finally": [{"name": "f", "wait": {"signal": "s"}}]}
    world = PlannerWorld(compiled({"name": "w", "wait": {"signal": "s"}}, step("b", retry=NEVER), **last))
    world.go()
    world.fail("b")
    world.go()
    assert world.state("w") == "Cancelled"
    world.append("signalled", name="s", payload=1)
    world.go()
    assert (world.ended["steps"]["w"], world.ended["steps"]["f"]) == ("Cancelled", "Succeeded")


def test_a_cancelled_timer_stays_cancelled_when_its_time_comes() -> None:
    last = {"finally": [step("z")]}
    world = PlannerWorld(compiled({"name": "w", "wait": {"duration": "90s"}}, step("b", retry=NEVER), **last))
    world.go()
    world.fail("b")
    world.go()
    assert (world.state("w"), world.running) == ("Cancelled", ["z"])
    world.now += 100
    world.go()
    assert world.state("w") == "Cancelled"


def test_a_cancelled_approval_does_not_expire() -> None:
    """The run that a person had cancelled ended with the failure that nobody had decided."""
    world = PlannerWorld(compiled(approval("ok"), **{"finally": [step("z")]}))
    world.go()
    world.append("cancelled")
    world.go()
    assert (world.state("ok"), world.running) == ("Cancelled", ["z"])
    world.now += 3600
    world.go()
    world.succeed("z")
    world.go()
    assert (world.ended["outcome"], world.ended["steps"]["ok"]) == ("Cancelled", "Cancelled")
    assert "failure" not in world.ended


def test_a_cancellation_is_late_once_people_were_asked_in_finally() -> None:
    world = PlannerWorld(compiled(step("a", compensate=CALL), **{"finally": [approval("ok"), step("z", "ok")]}))
    world.go()
    world.succeed("a")
    world.go()
    assert world.state("ok") == "Waiting"
    world.now += 5
    world.append("cancelled")
    world.go()
    assert "a.compensate" not in world.running


def test_a_step_that_was_passed_over_stays_so_when_another_fails() -> None:
    """A fork did what followed it again, since nothing that follows a cancelled step is taken over."""
    world = PlannerWorld(compiled(step("a", when="false"), step("b", "a"), step("c", "b", retry=NEVER), step("d", "c")))
    world.go()
    assert world.state("a") == "Skipped"
    world.succeed("b")
    world.go()
    world.fail("c")
    world.go()
    assert world.ended["steps"] == {"a": "Skipped", "b": "Succeeded", "c": "Failed", "d": "Cancelled"}


def test_a_step_with_a_condition_is_not_over_before_what_it_depends_on() -> None:
    """It was Cancelled when another failed, and Skipped in the end."""
    world = PlannerWorld(compiled(step("x"), step("y", "x", when="false"), step("z", retry=NEVER)))
    world.go()
    world.fail("z")
    world.go()
    assert world.state("y") == "Pending"
    world.succeed("x")
    world.go()
    assert world.ended["steps"] == {"x": "Succeeded", "y": "Skipped", "z": "Failed"}
