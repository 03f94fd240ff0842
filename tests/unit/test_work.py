"""What a run's expressions may cost: evaluated once, in slices, within a bound; and the plan stays the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentrun.api.keys import StepKey
from agentrun.plan import fan_out
from agentrun.plan.planner import plan, plan_slice
from agentrun.plan.snapshot import Append, Plan, Snapshot, Start
from agentrun.plan.work_budget import KEPT_MAX, Work
from tests.harness.planner_world import PlannerWorld, approval, compiled, step

WAIT = {"wait": {"duration": "1h"}}
LIST = {"l": list(range(300))}
SQUARE = "inputs.l.map(x, x).size() =="
"""The beginning of a condition that takes about 1.7 million units over 300 elements."""

MOST = 30_000_000
"""Units for all expressions of a run in these tests: a thirtieth of what it is."""


def snapshot(*steps: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any) -> Snapshot:
    return PlannerWorld(compiled(*steps, **more), inputs=inputs or LIST).snapshot()


def sliced(snapshot: Snapshot, work: Work, units: int = 3_000_000) -> tuple[Plan, int]:
    """The plan, and after how many slices."""
    for number in range(1, 1000):
        found = plan_slice(snapshot, work, units)
        if found is not None:
            return found, number
        assert work.used <= units + 3_000_000
    raise AssertionError("it comes to no end")


def state_of(found: Plan, name: str) -> dict[str, Any]:
    return next(entry for entry in found.status["steps"] if entry["name"] == name)


def test_a_condition_is_evaluated_once() -> None:
    here = snapshot(step("a", when=f"{SQUARE} 1", **WAIT), step("b", when="inputs.l[0] == 0", **WAIT))
    work = Work()
    first = plan(here, work)
    spent, evaluated = work.spent, work.evaluated
    assert spent > 1_000_000
    assert plan(here, work) == first == plan(here)
    assert (work.spent, work.evaluated) == (spent, evaluated)


def test_a_glance_begins_nothing_that_takes_long_and_a_slice_gives_way() -> None:
    here = snapshot(*(step(f"s{n}", when=f"{SQUARE} {n}", **WAIT) for n in range(10)))
    work = Work()
    assert plan_slice(here, work, 1_000_000, strict=True) is None
    assert (work.spent, work.used <= 1_000_000) == (0, True)
    found, slices = sliced(here, work)
    assert slices == 5
    assert found == plan(here) == plan_slice(here, work, 1_000_000, strict=True)


def test_each_slice_gets_on_however_many_items_there_are_to_look_at() -> None:
    """The planner's own work used up each slice before its first evaluation: the operator began anew for ever."""
    fans = [step(f"f{n}", forEach={"items": "${inputs.l}", "maxParallel": 1}) for n in range(4)]
    here = snapshot(*fans, *(step(f"s{n}", when=f"{SQUARE} {n}", **WAIT) for n in range(6)))
    found, slices = sliced(here, Work(), 1_000_000)
    assert slices == 6
    assert found == plan(here)


def test_a_run_over_its_bound_is_parked_and_computes_nothing_more() -> None:
    conditions = [step(f"s{n}", when=f"{SQUARE} {n}", **WAIT) for n in range(60)]
    here = snapshot(step("hold", wait={"signal": "go"}), *conditions, step("light", when="inputs.l[0] == 0", **WAIT))
    work = Work(limit=MOST)
    found, _ = sliced(here, work)
    assert work.spent <= MOST
    states = [state_of(found, f"s{n}")["state"] for n in range(60)]
    assert 15 < states.count("Skipped") < 20
    parked = state_of(found, "s59")
    assert "takes 1." in parked["waitingFor"]["work"]
    assert [(c["status"], c["reason"]) for c in found.status["conditions"] if c["type"] == "Stalled"] == [
        ("True", "TooMuchWork")
    ]
    assert found.status["phase"] == "Stalled"
    assert "agentrun cancel RUN ends the run" in found.status["message"]
    begun = [effect.body["step"] for effect in found.effects if isinstance(effect, Append)]
    assert begun == ["hold", "light"]  # what costs little goes on
    evaluated = work.evaluated
    assert plan(here, work) == found
    assert work.evaluated == evaluated


def test_a_parked_run_waits_for_a_person_and_ends_when_it_is_cancelled() -> None:
    conditions = [step(f"s{n}", when=f"{SQUARE} {n}", **WAIT) for n in range(40)]
    last = {"name": "z", "when": "inputs.l.map(x, x).size() == 7", **WAIT}
    world = PlannerWorld(compiled(*conditions, **{"finally": [last]}), inputs=LIST)
    work = Work(limit=MOST)
    assert plan(world.snapshot(), work).waits_for_person
    world.append("cancelled")
    for _ in range(10):
        found = plan(world.snapshot(), work)
        for effect in found.effects:
            world.apply(effect)
        if found.ended:
            break
    assert found.status["phase"] == "Cancelled"
    assert state_of(found, "s39")["state"] == "Cancelled"
    assert state_of(found, "z")["failure"]["message"].startswith("when takes")


@pytest.mark.parametrize(
    "costly",
    [
        step("costly", forEach={"items": "${inputs.l.map(x, x)}"}),
        approval("costly", subject="${inputs.l.map(x, x).size()}"),
        approval("costly", details={"a": "${inputs.l.map(x, x).size()}"}),
        {"name": "costly", "wait": {"duration": "${inputs.l.map(x, x).size()}s"}},
        step("costly", forEach={"items": [1, 2]}, when="inputs.l.map(x, x).size() == index"),
    ],
    ids=["items", "subject", "details", "duration", "when of an item"],
)
def test_whatever_a_run_cannot_afford_is_parked(costly: dict[str, Any]) -> None:
    work = Work(limit=800_000)
    here = snapshot(costly)
    found = plan(here, work)
    assert {c["reason"] for c in found.status["conditions"]} == {"TooMuchWork"}
    assert not found.effects
    assert found.waits_for_person
    assert plan(here, work) == found
    world = PlannerWorld(here.program, inputs=LIST)
    world.append("cancelled")
    assert [e.kind for e in plan(world.snapshot(), work).effects if isinstance(e, Append)] in (["ended"], ["settled"])


def test_an_output_that_cannot_be_afforded_fails_the_run() -> None:
    world = PlannerWorld(compiled(step("a", when="false"), output="${inputs.l.map(x, x).size()}"), inputs=LIST)
    [ended] = plan(world.snapshot(), Work(limit=800_000)).effects
    assert isinstance(ended, Append)
    assert ended.body["failure"]["message"].startswith("output: takes")


def test_the_items_of_what_has_begun_are_known_whatever_that_costs() -> None:
    world = PlannerWorld(compiled(step("f", forEach={"items": "${inputs.l.filter(x, x < 3)}"})), inputs=LIST)
    for effect in plan(world.snapshot()).effects:
        world.apply(effect)
    assert StepKey("f", 2) in world.executions
    late = plan(world.snapshot(), Work(limit=1000))  # another leader, after much else was evaluated
    assert state_of(late, "f")["items"] == {"Running": 3}


def test_a_value_that_is_made_is_kept_as_text_and_a_part_of_the_data_is_not_copied() -> None:
    made = step("made", forEach={"items": "${inputs.l.map(x, string(x))}", "maxParallel": 1})
    work = Work()
    plan(snapshot(made), work)
    assert 1_000 < work.size < 4_000
    work = Work()
    plan(snapshot(step("part", forEach={"items": "${inputs.l}", "maxParallel": 1})), work)
    assert work.size == 0


def test_what_is_kept_for_a_run_is_bounded() -> None:
    inputs = {"l": ["x" * 190] * 1000}
    fans = [step(f"f{n}", forEach={"items": f"${{inputs.l + [string({n})]}}", "maxParallel": 1}) for n in range(12)]
    work = Work()
    found = plan(snapshot(*fans, inputs=inputs), work)
    assert work.size <= KEPT_MAX
    states = [state_of(found, f"f{n}") for n in range(12)]
    assert [s["state"] for s in states].count("Running") == 5
    assert "more than 1024 KiB" in states[-1]["waitingFor"]["work"]


def test_a_condition_of_each_item_is_evaluated_once() -> None:
    fan = step("f", forEach={"items": "${inputs.l}", "maxParallel": 2}, when="item % 2 == 5")
    here, work = snapshot(fan), Work()
    first = plan(here, work)
    evaluated = work.evaluated
    assert evaluated == 301
    assert plan(here, work) == first
    assert work.evaluated == evaluated


def test_fan_outs_that_share_a_condition_ask_it_of_their_own_items() -> None:
    """The second one was told what the condition is for the items of the first."""
    when = "item > 1"
    one, other = (step(f"f{n}", forEach={"items": items}, when=when) for n, items in enumerate(([1, 2], [5, 0])))
    found = plan(snapshot(one, other))
    assert [effect.key.label for effect in found.effects if isinstance(effect, Start)] == ["f0[1]", "f1[0]"]


def test_a_condition_of_finally_that_the_workflow_has_too_is_evaluated_once() -> None:
    """Each plan evaluated it twice anew, and took it out of what the run may spend."""
    when = f"{SQUARE} 1 || run.outcome == 'Succeeded'"
    last = {"name": "z", "when": when, **WAIT}
    world, work = PlannerWorld(compiled(step("a", when=when, **WAIT), **{"finally": [last]}), inputs=LIST), Work()
    here = world.snapshot()
    first = plan(here, work)
    evaluated = work.evaluated
    assert plan(here, work) == first
    assert (work.evaluated, evaluated) == (3, 3)


def test_a_large_input_is_not_converted_for_each_item_that_looks_at_another() -> None:
    orders = [{"id": n, "note": "x" * 20} for n in range(8000)]
    fan = step("f", forEach={"items": "${inputs.orders}"}, when="item.id > inputs.least")
    work = Work()
    plan(snapshot(fan, inputs={"orders": orders, "least": 1_000_000}), work)
    assert work.spent < 150_000_000


def test_what_was_evaluated_over_other_values_does_not_count() -> None:
    world = PlannerWorld(compiled(step("a"), step("b", "a", when="steps.a.output == 1", **WAIT)))
    work = Work()
    for effect in plan(world.snapshot(), work).effects:
        world.apply(effect)
    world.succeed("a", 1)
    assert [e.body["step"] for e in plan(world.snapshot(), work).effects if isinstance(e, Append)] == ["b"]
    key = StepKey("a")
    world.facts[key] = replace(world.facts[key], output=2)
    assert state_of(plan(world.snapshot(), work), "b")["state"] == "Skipped"


def test_the_items_of_a_run_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "ITEMS_MAX", 500)
    fans = [step(f"f{n}", forEach={"items": "${inputs.l}", "maxParallel": 1}, continueOnError=True) for n in range(3)]
    found = plan(snapshot(*fans))
    [failed, other] = [e for e in found.effects if isinstance(e, Append)]
    assert (failed.body["step"], other.body["step"]) == ("f1", "f2")
    assert "more than 500 items together" in failed.body["failure"]["message"]
    assert [e.key.name for e in found.effects if isinstance(e, Start)] == ["f0"]
