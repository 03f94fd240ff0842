"""The order of steps: dependencies, conditions, failures, what comes last, and the run's output."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentrun.api.keys import StepKey
from agentrun.api.workflow import FailureClass
from tests.harness.planner_world import CALL, TOOL, PlannerWorld, compiled, step

ONCE = {"limit": 0}


def test_a_step_starts_when_all_that_it_depends_on_is_done() -> None:
    world = PlannerWorld(compiled(step("a"), step("b"), step("c", "a", "b")))
    world.go()
    assert world.running == ["a", "b"]
    world.succeed("a")
    world.go()
    assert world.running == ["b"]
    world.succeed("b")
    world.go()
    assert world.running == ["c"]
    world.succeed("c")
    world.go()
    assert world.ended["outcome"] == "Succeeded"


def test_the_order_in_the_file_does_not_matter() -> None:
    world = PlannerWorld(compiled(step("late", "early"), step("early")))
    world.go()
    assert world.running == ["early"]


@pytest.mark.parametrize(("amount", "state"), [(5, "Running"), (1, "Skipped")])
def test_when_decides_whether_a_step_runs(amount: int, state: str) -> None:
    world = PlannerWorld(compiled(step("a"), step("b", "a", when="steps.a.output.amount > 3")))
    world.go()
    world.succeed("a", {"amount": amount})
    world.go()
    assert world.state("b") == state


def test_a_condition_that_cannot_be_told_fails_the_step() -> None:
    world = PlannerWorld(compiled(step("a"), step("b", "a", when="steps.a.output.amount > 3")))
    world.go()
    world.succeed("a", {"total": 5})
    world.go()
    assert world.state("b") == "Failed"
    assert world.ended["outcome"] == "Failed"
    assert world.ended["failedStep"] == "b"
    assert "amount" in world.ended["failure"]["message"]


def test_a_skipped_step_counts_as_done_and_its_output_is_null() -> None:
    world = PlannerWorld(
        compiled(
            step("a", when="false"),
            step("b", "a", when="steps.a.output == null && steps.a.state == 'Skipped'"),
        )
    )
    world.go()
    assert world.running == ["b"]


def test_a_failed_step_ends_the_run_but_what_runs_may_finish() -> None:
    world = PlannerWorld(compiled(step("a", retry=ONCE), step("b"), step("c", "b")))
    world.go()
    world.fail("a")
    world.go()
    assert world.running == ["b"]
    world.succeed("b")
    world.go()
    assert world.ended["outcome"] == "Failed"
    assert world.ended["failedStep"] == "a"
    assert world.ended["failure"] == {"class": "Tool", "message": "it broke"}
    assert world.ended["steps"] == {"a": "Failed", "b": "Succeeded", "c": "Cancelled"}


def test_a_step_earlier_in_the_file_does_not_begin_after_a_failure() -> None:
    world = PlannerWorld(compiled(step("a", "z"), step("b", retry=ONCE), step("z")))
    world.go()
    world.fail("b")
    world.succeed("z")
    world.go()
    assert world.running == []
    assert world.ended["steps"]["a"] == "Cancelled"


def test_continue_on_error_lets_the_rest_go_on_with_null() -> None:
    world = PlannerWorld(
        compiled(
            step("a", retry=ONCE, continueOnError=True),
            step("b", "a", when="steps.a.state == 'Failed' && steps.a.output == null"),
        )
    )
    world.go()
    world.fail("a")
    world.go()
    assert world.running == ["b"]
    world.succeed("b")
    world.go()
    assert world.ended["outcome"] == "Succeeded"


def test_the_first_failure_in_time_is_the_runs_failure() -> None:
    world = PlannerWorld(compiled(step("a", retry=ONCE), step("b", retry=ONCE)))
    world.go()
    world.fail("b", message="first")
    world.fail("a", message="second")
    world.go()
    assert world.ended["failure"]["message"] == "first"


# -- finally ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["Succeeded", "Failed", "Cancelled"])
def test_finally_runs_whatever_happened_and_sees_how_it_went(how: str) -> None:
    world = PlannerWorld(compiled(step("a", retry=ONCE), **{"finally": [step("z", when=f"run.outcome == '{how}'")]}))
    world.go()
    if how == "Cancelled":
        world.append("cancelled")
        world.go()
        world.park("a")
    elif how == "Failed":
        world.fail("a")
    else:
        world.succeed("a")
    world.go()
    assert world.running == ["z"]
    assert world.starts[-1].outcome == how
    world.succeed("z")
    world.go()
    assert world.ended["outcome"] == how


def test_a_failing_finally_step_fails_a_run_that_had_succeeded() -> None:
    world = PlannerWorld(compiled(step("a"), **{"finally": [step("z", retry=ONCE)]}))
    world.go()
    world.succeed("a")
    world.go()
    world.fail("z")
    world.go()
    assert (world.ended["outcome"], world.ended["failedStep"]) == ("Failed", "z")


def test_a_run_whose_finally_has_begun_cannot_be_cancelled() -> None:
    undo = {"name": "t", "args": {}}
    world = PlannerWorld(compiled(step("a", compensate=undo), **{"finally": [step("z")]}))
    world.go()
    world.succeed("a")
    world.go()
    assert world.running == ["z"]
    world.now += 1
    world.append("cancelled")
    world.go()
    world.succeed("z")
    world.go()
    assert world.ended["outcome"] == "Succeeded"
    assert world.ended["compensations"] == {}


def test_a_failing_finally_step_does_not_hide_why_the_run_failed() -> None:
    world = PlannerWorld(compiled(step("a", retry=ONCE), **{"finally": [step("z", retry=ONCE)]}))
    world.go()
    world.fail("a", message="the reason")
    world.go()
    world.fail("z")
    world.go()
    assert (world.ended["failedStep"], world.ended["failure"]["message"]) == ("a", "the reason")


def test_a_failing_finally_step_does_not_keep_another_from_running() -> None:
    final = [step("y", retry=ONCE), step("z"), step("after-y", "y"), step("after-z", "z")]
    world = PlannerWorld(compiled(step("a"), **{"finally": final}))
    world.go()
    world.succeed("a")
    world.go()
    world.fail("y")
    world.go()
    assert world.running == ["z"]
    world.succeed("z")
    world.go()
    assert world.running == ["after-z"]
    world.succeed("after-z")
    world.go()
    assert world.ended["steps"]["after-y"] == "Cancelled"


def test_finally_may_use_the_output_of_a_fan_out_that_ended_after_a_failure() -> None:
    """The output stood nowhere: the reference led to record 0 of a journal that does not exist."""
    final = [{"name": "z", "tool": {"name": "t", "args": {"a": "${steps.f.output}"}}}]
    world = PlannerWorld(compiled(step("f", forEach={"items": [1]}), step("a", retry=ONCE), **{"finally": final}))
    world.go()
    world.fail("a")
    world.succeed("f[0]", "one")
    world.go()
    ref = world.starts[-1].refs["f"]
    assert (ref.state, ref.seq) == ("Succeeded", None)
    assert next(e for e in world.events if e.seq == ref.event).body["output"] == ["one"]


# -- compensation ----------------------------------------------------------------------------------------------------


def undo(value: str) -> dict[str, object]:
    return {"name": "t", "args": {"a": value}}


def test_a_step_is_undone_after_what_depends_on_it_whatever_the_clocks_of_nodes_say() -> None:
    steps = [step("a", compensate=CALL), step("b", "a", compensate=CALL), step("c", "b", retry=ONCE)]
    world = PlannerWorld(compiled(*steps))
    for name in ("a", "b"):
        world.go()
        world.succeed(name)
    world.go()
    a = StepKey("a")
    world.facts[a] = replace(world.facts[a], at=world.now + 300)  # as a clock said that was ahead
    world.fail("c")
    world.go()
    assert world.running == ["b.compensate"]
    world.facts[a] = replace(world.facts[a], at=world.now - 300)
    world.go()
    assert world.running == ["b.compensate"]


def test_compensations_run_last_first_one_at_a_time() -> None:
    steps = [
        step("a", compensate=CALL),
        step("b", "a", compensate=CALL),
        step("c", "b", retry=ONCE, compensate=CALL),
    ]
    world = PlannerWorld(compiled(*steps, **{"finally": [step("z")]}))
    for name in ("a", "b"):
        world.go()
        world.succeed(name)
    world.go()
    world.fail("c")
    assert world.go().status["phase"] == "Compensating"
    assert world.running == ["b.compensate"]
    world.succeed("b.compensate")
    world.go()
    assert world.running == ["a.compensate"]
    world.succeed("a.compensate")
    world.go()
    assert world.running == ["z"]
    world.succeed("z")
    world.go()
    assert world.ended["compensations"] == {"b.compensate": "Succeeded", "a.compensate": "Succeeded"}
    assert world.ended["outcome"] == "Failed"


def test_a_failing_compensation_does_not_keep_the_others_from_running() -> None:
    world = PlannerWorld(
        compiled(step("a", compensate=CALL), step("b", "a", compensate=CALL, retry=ONCE), step("c", "b", retry=ONCE))
    )
    for name in ("a", "b"):
        world.go()
        world.succeed(name)
    world.go()
    world.fail("c")
    world.go()
    world.fail("b.compensate")
    world.go()
    assert world.running == ["a.compensate"]
    world.succeed("a.compensate")
    world.go()
    assert world.ended["compensations"] == {"b.compensate": "Failed", "a.compensate": "Succeeded"}


def test_the_items_that_succeeded_are_compensated_and_no_others() -> None:
    one_by_one = {"items": [1, 2, 3], "maxParallel": 1}
    world = PlannerWorld(
        compiled(step("f", forEach=one_by_one, retry=ONCE, compensate=undo("${item} ${steps.f.output}")))
    )
    world.go()
    world.succeed("f[0]", "out")
    world.go()
    world.fail("f[1]")
    world.go()
    assert world.running == ["f[0].compensate"]
    own = world.starts[-1].refs["f"]
    assert (own.state, own.seq) == ("Succeeded", 2)
    world.succeed("f[0].compensate")
    world.go()
    assert world.ended["compensations"] == {"f[0].compensate": "Succeeded"}


def test_nothing_is_compensated_where_the_run_succeeds() -> None:
    world = PlannerWorld(compiled(step("a", compensate=CALL)))
    world.go()
    world.succeed("a")
    world.go()
    assert world.ended["compensations"] == {}


# -- output ----------------------------------------------------------------------------------------------------------


def test_the_output_is_rendered_when_all_is_done() -> None:
    world = PlannerWorld(
        compiled(step("a"), output={"sum": "${steps.a.output.x + 1}", "note": "was ${steps.a.output.x}"})
    )
    world.go()
    world.succeed("a", {"x": 2})
    world.go()
    assert world.ended["output"] == {"sum": 3, "note": "was 2"}
    assert world.look().status["output"] == world.ended["output"]


def test_an_output_that_is_missing_fails_the_run_and_is_named() -> None:
    world = PlannerWorld(compiled(step("a"), output={"x": "${steps.a.output.nothing}"}))
    world.go()
    world.succeed("a", {"x": 2})
    world.go()
    assert world.ended["outcome"] == "Failed"
    assert world.ended["failure"]["class"] == FailureClass.INVALID
    assert "nothing" in world.ended["failure"]["message"]


# -- the end ---------------------------------------------------------------------------------------------------------


def test_the_end_names_the_head_of_every_journal() -> None:
    world = PlannerWorld(compiled(step("a"), tools=[TOOL]))
    world.go()
    world.succeed("a")
    world.go()
    assert world.ended["heads"] == {"a": [2, "hash-2"]}


def test_an_ended_run_never_changes_and_asks_for_nothing() -> None:
    world = PlannerWorld(
        compiled(
            step("a", retry={"limit": 1, "backoff": {"initial": "1h", "max": "1h"}}),
            step("b", retry=ONCE),
            step("f", "a", forEach={"items": [1]}, compensate=CALL),
        )
    )
    world.go()
    world.fail("a")  # waits to be tried again when the other one ends the run
    world.fail("b")
    world.go()
    before = world.look()
    assert before.ended
    for kind in ("cancelled", "suspended", "resumed", "unsuspended", "ended"):
        world.append(kind, outcome="Succeeded", output=None, steps={}, compensations={})
    world.now += 1e6
    after = world.look()
    assert (after.effects, after.wake_at, after.ended) == ((), None, True)
    assert after.status == before.status


def test_a_fan_out_over_nothing_has_no_items() -> None:
    world = PlannerWorld(compiled(step("f", forEach={"items": []})))
    world.go()
    assert world.ended["outcome"] == "Succeeded"
    assert world.entry("f")["items"] == {}
