"""Fan-outs, retries, lost attempts, timeouts and budgets: when an attempt begins, and with what."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from agentrun.api.facts import Allowance, Usage
from agentrun.api.keys import StepKey
from agentrun.api.workflow import FailureClass
from agentrun.plan.attempts import STOP_GRACE
from agentrun.plan.retry import LOSSES_MAX
from agentrun.plan.snapshot import Stop
from tests.harness.planner_world import PlannerWorld, compiled, step

ONCE = {"limit": 0}


def fan(items: Any, parallel: int = 10, **fields: Any) -> dict[str, Any]:
    return step("f", forEach={"items": items, "maxParallel": parallel}, **({"retry": ONCE} | fields))


# -- fan-outs --------------------------------------------------------------------------------------------------------


def test_a_fan_out_over_nothing_succeeds_with_no_outputs() -> None:
    world = PlannerWorld(compiled(fan([]), output="${steps.f.output}"))
    world.go()
    assert (world.ended["outcome"], world.ended["output"]) == ("Succeeded", [])


def test_no_more_than_max_parallel_items_run_at_a_time() -> None:
    world = PlannerWorld(compiled(fan([1, 2, 3], parallel=2)))
    world.go()
    assert world.running == ["f[0]", "f[1]"]
    world.succeed("f[1]")
    world.go()
    assert world.running == ["f[0]", "f[2]"]


def test_outputs_are_in_the_order_of_the_items() -> None:
    world = PlannerWorld(compiled(fan("${inputs.names}"), step("b", "f")), inputs={"names": ["x", "y", "z"]})
    world.go()
    for index in (2, 0, 1):
        world.succeed(f"f[{index}]", index)
    world.go()
    assert world.settled("f")["output"] == [0, 1, 2]
    assert world.running == ["b"]


def test_each_item_has_its_own_condition() -> None:
    world = PlannerWorld(compiled(fan([1, 5, 9], when="item > 3 && index < 2")))
    world.go()
    assert world.running == ["f[1]"]
    world.succeed("f[1]", "five")
    world.go()
    assert world.settled("f")["output"] == [None, "five", None]
    assert world.entry("f")["items"] == {"Skipped": 2, "Succeeded": 1}


def test_a_condition_that_cannot_be_told_fails_its_item() -> None:
    world = PlannerWorld(compiled(fan([{"x": 1}, {}], when="item.x > 0")))
    world.go()
    assert world.running == ["f[0]"]
    world.succeed("f[0]")
    world.go()
    assert world.ended["outcome"] == "Failed"
    assert world.entry("f")["items"] == {"Failed": 1, "Succeeded": 1}


def test_an_item_that_fails_stops_new_ones_and_fails_the_step() -> None:
    world = PlannerWorld(compiled(fan([1, 2, 3, 4], parallel=2)))
    world.go()
    world.fail("f[0]", message="no such order")
    world.go()
    assert world.running == ["f[1]"]
    world.succeed("f[1]")
    world.go()
    assert world.settled("f")["state"] == "Failed"
    assert world.ended["failure"]["message"] == "no such order"
    assert world.entry("f")["items"] == {"Cancelled": 2, "Failed": 1, "Succeeded": 1}


def test_continue_on_error_gives_null_for_the_items_that_failed() -> None:
    world = PlannerWorld(compiled(fan([1, 2, 3], parallel=1, continueOnError=True), output="${steps.f.output}"))
    for index in range(3):
        world.go()
        if index == 1:
            world.fail("f[1]")
        else:
            world.succeed(f"f[{index}]", index)
    world.go()
    assert (world.ended["outcome"], world.ended["output"]) == ("Succeeded", [0, None, 2])


@pytest.mark.parametrize("items", ["${inputs.names}", "${inputs.missing}"])
def test_items_that_are_no_list_fail_the_step(items: str) -> None:
    world = PlannerWorld(compiled(fan(items)), inputs={"names": "x"})
    world.go()
    assert world.ended["failedStep"] == "f"
    assert "forEach.items" in world.ended["failure"]["message"]


def test_a_thousand_items_run_and_the_status_stays_an_index() -> None:
    world = PlannerWorld(compiled(fan(list(range(1000)), parallel=1000)))
    world.go()
    assert len(world.running) == 1000
    assert len(world.look().status["steps"]) == 51
    for index in range(1000):
        world.succeed(f"f[{index}]", index)
    world.go()
    assert world.settled("f")["output"] == list(range(1000))
    assert len(world.look().status["steps"]) == 1


def test_a_fan_out_whose_items_were_just_started_is_running() -> None:
    world = PlannerWorld(compiled(fan([1])))
    status = world.look().status
    assert [(e["name"], e["state"]) for e in status["steps"]] == [("f", "Running"), ("f[0]", "Running")]


# -- retries ---------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_after_its_backoff_and_no_oftener_than_the_limit() -> None:
    world = PlannerWorld(
        compiled(step("a", retry={"limit": 2, "backoff": {"initial": "5s", "factor": 3, "max": "1m"}}))
    )
    for pause in (5.0, 15.0):
        world.go()
        world.fail("a")
        waiting = world.go()
        assert world.running == []
        assert waiting.wake_at == world.now + pause
        assert world.state("a") == "Waiting"
        world.now += pause
    world.go()
    world.fail("a")
    world.go()
    assert [start.attempt for start in world.starts] == [1, 2, 3]
    assert world.ended["outcome"] == "Failed"


def test_the_other_side_may_ask_for_a_longer_pause() -> None:
    world = PlannerWorld(compiled(step("a")))
    world.go()
    world.fail("a", FailureClass.RATE_LIMITED, retry_after=77.0)
    assert world.go().wake_at == world.now + 77


def test_a_pause_without_end_is_cut_where_it_can_still_be_shown() -> None:
    forever = "9" * 20 + "d"
    world = PlannerWorld(compiled(step("a", retry={"backoff": {"initial": forever, "max": forever}})))
    world.go()
    world.fail("a")
    assert world.go().wake_at is not None


def test_only_the_classes_that_are_named_are_tried_again() -> None:
    world = PlannerWorld(compiled(step("a", retry={"classes": ["RateLimited"]})))
    world.go()
    world.fail("a", FailureClass.TOOL)
    world.go()
    assert world.ended["outcome"] == "Failed"


# -- lost attempts ---------------------------------------------------------------------------------------------------


def lose_all(world: PlannerWorld, unopened: bool) -> list[float]:
    """Lose every attempt of ``a`` until no more follow; the pauses."""
    pauses = []
    for _ in range(50):
        found = world.go()
        if world.running:
            if unopened:
                world.lose_unopened("a")
            else:
                world.lose("a")
        elif found.wake_at is not None:
            pauses.append(found.wake_at - world.now)
            world.now = found.wake_at
        else:
            return pauses
    raise AssertionError("attempts are lost and started for ever")


@pytest.mark.parametrize("unopened", [False, True])
def test_lost_attempts_back_off_then_are_parked_until_somebody_resumes(unopened: bool) -> None:
    world = PlannerWorld(compiled(step("a")))
    assert lose_all(world, unopened) == [1, 2, 4, 8]
    assert len(world.starts) == LOSSES_MAX + 1
    parked = world.look()
    assert parked.waits_for_person
    assert parked.status["phase"] == "Stalled"
    assert "agentrun resume" in parked.status["message"]
    world.now += 1
    world.append("resumed", step="a")
    world.go()
    assert world.running == ["a"]
    world.succeed("a")
    world.go()
    assert world.ended["outcome"] == "Succeeded"


@pytest.mark.parametrize("unopened", [False, True])
def test_one_resume_frees_one_attempt(unopened: bool) -> None:
    """Starts that never opened were begun again at once and for ever, because no journal said when they ended."""
    world = PlannerWorld(compiled(step("a")))
    lose_all(world, unopened)
    world.now += 1
    world.append("resumed")
    world.now += 1
    before = len(world.starts)
    lose_all(world, unopened)
    assert len(world.starts) == before + 1
    assert world.look().waits_for_person


@pytest.mark.parametrize("clock", [-600.0, 600.0])
def test_a_resume_frees_the_attempt_that_it_is_about_whatever_clocks_say(clock: float) -> None:
    world = PlannerWorld(compiled(step("a")))
    lose_all(world, unopened=False)
    world.now += clock
    world.append("resumed", attempts={"a": len(world.starts)})
    world.now -= clock
    world.go()
    assert world.running == ["a"]
    world.lose("a")
    assert world.look().waits_for_person and not world.executions


def test_another_try_of_a_call_that_took_the_step_s_time_has_time() -> None:
    world = PlannerWorld(compiled(step("a", timeout="1m")))
    world.go()
    world.park("a", unknown="call-1")
    key = StepKey("a")
    world.facts[key] = replace(world.facts[key], intervals=((world.now - 60, world.now),))
    world.resolve("a", "call-1", "retry")
    world.go()
    assert world.starts[-1].timeout == 60.0
    world.now += 59
    assert not any(isinstance(effect, Stop) for effect in world.look().effects)


@pytest.mark.parametrize("end", ["failed", "waiting"])
def test_starts_that_come_to_nothing_are_bounded_after_a_failure_and_a_wait_too(end: str) -> None:
    """They were begun again at once and for ever: only a journal without a last word was counted."""
    world = PlannerWorld(compiled(step("a", retry={"limit": 1, "backoff": {"initial": "1s"}})))
    world.go()
    if end == "failed":
        world.fail("a")
        world.now += 1
    else:
        world.park("a")
    assert lose_all(world, unopened=True) == [1, 2, 4, 8]
    assert world.look().waits_for_person


def test_a_resume_of_an_item_may_be_written_either_way() -> None:
    for name in ("f[0]", "f.0"):
        world = PlannerWorld(compiled(fan([1])))
        for _ in range(LOSSES_MAX + 1):
            world.go()
            world.lose("f[0]")
            world.now += 60
        assert world.go().waits_for_person
        world.append("resumed", step=name)
        world.go()
        assert world.running == ["f[0]"]


def test_a_step_that_retries_infrastructure_fails_in_the_end() -> None:
    world = PlannerWorld(compiled(step("a", retry={"limit": 1, "classes": ["Infrastructure"]})))
    lose_all(world, unopened=False)
    assert len(world.starts) == LOSSES_MAX + 2
    assert world.ended["failure"]["class"] == "Infrastructure"


def test_a_step_whose_call_may_have_happened_is_parked_and_does_not_fail_unasked() -> None:
    world = PlannerWorld(compiled(step("a", retry={"limit": 0, "classes": ["Infrastructure"]})))
    for _ in range(LOSSES_MAX + 1):
        world.go()
        world.lose("a", unknown="call-1")
        world.now += 60
    assert world.go().waits_for_person
    assert world.look().status["phase"] == "Stalled"


# -- time ------------------------------------------------------------------------------------------------------------


def test_an_overdue_attempt_is_stopped_and_no_sooner() -> None:
    world = PlannerWorld(compiled(step("a", timeout="60s")))
    assert world.look().effects
    waiting = world.go()
    assert waiting.wake_at == world.now + 60 + STOP_GRACE
    assert world.starts[0].timeout == 60
    world.now = waiting.wake_at
    assert world.look().effects == (Stop(StepKey("a"), 1),)
    world.go()
    assert world.look().effects == ()  # it was told once


def test_a_later_attempt_has_the_time_that_is_left() -> None:
    world = PlannerWorld(compiled(step("a", timeout="60s")))
    world.go()
    world.fail("a", after=45.0)
    world.now += 3600
    world.go()
    assert world.starts[1].timeout == 15


def test_the_run_has_a_timeout_of_active_time_and_waiting_does_not_count() -> None:
    waits = {"wait": {"duration": "10h"}}
    world = PlannerWorld(compiled(step("a"), {"name": "w", "dependsOn": ["a"], **waits}, step("b", "w")), timeout=100.0)
    world.go()
    world.succeed("a", after=40.0)
    world.go()
    world.now += 36000
    active = world.go()
    assert world.running == ["b"]
    assert active.wake_at == world.now + 60
    world.now += 60
    world.go()
    assert world.executions[StepKey("b")].stopping
    world.park("b")
    world.go()
    assert world.ended["outcome"] == "Failed"
    assert world.ended["failure"]["class"] == "Timeout"


def test_steps_that_run_at_the_same_time_use_the_runs_time_once() -> None:
    world = PlannerWorld(compiled(step("a"), step("b"), step("c", "a", "b")), timeout=100.0)
    world.go()
    world.succeed("a", after=60.0)
    world.succeed("b", after=0.0)
    assert world.go().wake_at == world.now + 40


def test_what_comes_last_does_not_use_up_the_runs_time() -> None:
    """A run that had succeeded was failed and undone while its finally steps were at work."""
    world = PlannerWorld(compiled(step("a", compensate={"name": "t", "args": {"a": "1"}}), **{"finally": [step("z")]}))
    world.timeout = 100.0
    world.go()
    world.succeed("a", after=90.0)
    world.go()
    world.now += 50
    world.go()
    assert world.running == ["z"]
    world.succeed("z")
    world.go()
    assert (world.ended["outcome"], world.ended["compensations"]) == ("Succeeded", {})


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_attempts_that_start_together_share_what_is_left() -> None:
    world = PlannerWorld(compiled(fan([1, 2, 3])), budget=Allowance(model_calls=10, cost_usd=Decimal("1.00")))
    world.go()
    shares = [start.allowance for start in world.starts]
    assert [share.model_calls for share in shares] == [3, 3, 4]
    assert sum(share.cost_usd or 0 for share in shares) <= Decimal("1.00")
    assert all(share.tokens is None for share in shares)
    assert not any(share.last for share in shares)


def test_what_was_not_used_is_free_again() -> None:
    world = PlannerWorld(compiled(step("a"), step("b", "a")), budget=Allowance(tool_calls=10))
    world.go()
    assert world.starts[0].allowance == Allowance(tool_calls=10, last=True)
    world.succeed("a", usage=Usage(tool_calls=4))
    world.go()
    assert world.starts[1].allowance.tool_calls == 6


def test_one_that_needs_more_than_its_share_waits_until_it_is_alone_then_gets_all() -> None:
    world = PlannerWorld(compiled(step("a"), step("b")), budget=Allowance(tokens=100))
    world.go()
    world.park("a", needs_budget=True, usage=Usage(input_tokens=10))
    waiting = world.go()
    assert world.running == ["b"]
    assert world.entry("a")["waitingFor"].keys() == {"budget"}
    assert waiting.wake_at is not None
    world.succeed("b", usage=Usage(output_tokens=20))
    world.go()
    assert world.starts[-1].allowance == Allowance(tokens=70, last=True)


def test_two_that_need_all_of_it_have_it_one_after_the_other() -> None:
    world = PlannerWorld(compiled(step("a"), step("b")), budget=Allowance(tokens=100))
    world.go()
    world.park("a", needs_budget=True)
    world.park("b", needs_budget=True)
    world.go()
    assert world.running == ["a"]
    world.succeed("a", usage=Usage(input_tokens=60))
    world.go()
    assert world.running == ["b"]
    assert world.starts[-1].allowance.tokens == 40
