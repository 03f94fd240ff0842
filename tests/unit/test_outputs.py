"""What the steps of a run give is bounded together, in bytes: the run fails and says so, and memory stays bounded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentrun.api.facts import AttemptEnd, StepFact
from agentrun.api.footprint import footprint
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.control.held import Held
from agentrun.control.run_state import RunState
from agentrun.control.views import RunRef
from agentrun.expressions import evaluation as runtime
from agentrun.journal.bounded_outputs import Outputs
from agentrun.journal.runs import read_facts
from agentrun.plan import output_bounds
from agentrun.plan.output_bounds import is_left_out, too_much
from agentrun.plan.planner import plan
from tests.harness import planner_world
from tests.harness.cluster_world import ClusterWorld
from tests.harness.operator_steps import ends, workflow
from tests.harness.planner_world import CALL, compiled, step

MANY = {"items": list(range(40)), "maxParallel": 4}


def as_read(world: planner_world.PlannerWorld) -> None:
    """The facts as a journal or a last word gives them, which measures them."""
    world.facts = {key: StepFact.from_json(fact.to_json()) for key, fact in world.facts.items()}


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs may keep 600 bytes of outputs: eleven items' names."""
    monkeypatch.setattr(output_bounds, "OUTPUTS_MAX", 600)
    return 600


def test_a_fan_out_whose_items_give_too_much_fails_and_says_what_to_do(little: int, world: ClusterWorld) -> None:
    """Ten thousand items with an output each were kept, of any size."""
    undo = {"compensate": CALL}
    world.api.apply_run("r", {"workflow": workflow(step("f", forEach=MANY, **undo), step("b", "f"))})
    operator = world.operator()
    most = 0
    for _ in range(60):
        operator.hear_all()
        world.run_pods(rounds=5)
        operator.hear_all()
        world.wait(1.5)
        live = operator.reconciler.live.get(RunRef("n", "r"))
        most = max(most, live.outputs.bytes if live is not None else 0)
    status = world.status()
    assert status["phase"] == "Failed"
    assert "outputs of its steps take" in status["message"] and "make each smaller" in status["message"]
    begun = {path for path, _ in world.created if path.startswith("f.") and not path.endswith("compensate")}
    assert 11 < len(begun) < 20, "nothing new began"
    assert 500 < most <= little
    assert not any(path == "b" for path, _ in world.created)
    assert {path for path in world.ledger if path.endswith("compensate")} == {f"{path}.compensate" for path in begun}


def test_who_looks_anew_comes_to_the_same(little: int, world: ClusterWorld) -> None:
    world.api.apply_run("r", {"workflow": workflow(step("f", forEach=MANY))})
    operator = world.operator()
    for _ in range(3):
        ends(world, operator)
        operator.kill()
        operator = world.operator()
    world.finish(operator)
    assert world.status()["phase"] == "Failed"
    (run,) = world.api.all("runs")
    facts = read_facts(world.store, world.path(run))
    assert sum(footprint(fact.output) for fact in facts.values()) <= little
    assert any(map(is_left_out, facts.values()))
    assert too_much(facts.values()) is not None


@pytest.mark.parametrize("last", [False, True])
def test_single_steps_count_together(little: int, last: bool) -> None:
    first, second = ("a", "z") if last else ("a", "b")
    more: dict[str, Any] = {"finally": [step("z")]} if last else {}
    steps = [step("a")] if last else [step("a"), step("b", "a"), step("c", "b")]
    here = planner_world.PlannerWorld(compiled(*steps, **more))
    here.go()
    for name in (first, second):
        here.succeed(name, "x" * 400)
        as_read(here)
        found = here.go()
    assert found.status["phase"] == "Failed"
    assert here.starts[-1].key.name == second
    assert here.state(second) == "Succeeded"


def test_the_plan_is_the_same_whether_outputs_are_kept_or_not(little: int) -> None:
    here = planner_world.PlannerWorld(compiled(step("a"), step("b"), step("c", "a", "b"), step("d", "c")))
    here.go()
    for name in ("a", "b"):
        here.succeed(name, "x" * 400)
    as_read(here)
    whole = here.snapshot()
    kept = Outputs()
    less = replace(whole, facts={key: kept.take(fact) for key, fact in whole.facts.items()})
    assert plan(whole).effects == plan(less).effects
    assert kept.bytes == footprint("x" * 400)


def test_an_expression_is_not_given_what_is_not_kept(little: int) -> None:
    """It would see null, as of a step that was skipped."""
    last = step("z", when="steps.a.output == null")
    here = planner_world.PlannerWorld(compiled(step("a"), **{"finally": [last]}))
    here.go()
    here.succeed("a", "x" * 700)
    as_read(here)
    kept = Outputs()
    here.facts = {key: kept.take(fact) for key, fact in here.facts.items()}
    here.go()
    assert "the output of a is not kept" in here.settled("z")["failure"]["message"]


def test_a_run_that_gives_what_it_may_succeeds(little: int) -> None:
    here = planner_world.PlannerWorld(compiled(step("a"), step("b", "a")))
    here.go()
    for name in ("a", "b"):
        here.succeed(name, "x" * 240)
        as_read(here)
        found = here.go()
    assert found.status["phase"] == "Succeeded"


@pytest.mark.parametrize("output", [None, 1, "text", ["a", {"b": 2.5}], {"k": [{}] * 50}])
def test_how_large_an_output_is_is_nobodys_word(output: Any) -> None:
    fact = StepFact(attempt=1, end=AttemptEnd.CLOSED, outcome=StepState.SUCCEEDED, output=output)
    told = fact.to_json()
    assert "size" not in told
    assert StepFact.from_json(told | {"size": 0}).size == footprint(output)
    assert StepFact.from_json(told | {"size": -(10**9)}) == fact


def test_a_few_large_outputs_are_counted_as_they_come(world: ClusterWorld) -> None:
    """The count waited until there were a quarter more records."""
    world.api.apply_run("r", {"workflow": workflow(step("f", forEach=MANY), {"name": "w", "wait": {"signal": "s"}})})
    operator = world.operator()
    world.settle()
    held, ref = Held(), RunRef("n", "r")
    live: RunState = operator.reconciler.live[ref]
    held.add(ref, live)
    with held.visited(ref):
        pass
    before = held.bytes
    word = {"attempt": 1, "seq": 3, "end": "closed", "outcome": "Succeeded", "usage": StepFact().usage.to_json()}
    live.take(StepKey("f", 0), 1, None, StepFact.from_json(word | {"output": "x" * 1_000_000}), world.now)
    with held.visited(ref):
        pass
    assert held.bytes > before + 900_000


def test_values_of_too_many_parts_are_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One conversion holds up the whole process: of a million values, for two seconds."""
    monkeypatch.setattr(runtime, "WEIGHT_MAX", 100_000)
    last = step("b", "a", when="steps.a.output.size() == 1", wait={"signal": "s"})
    here = planner_world.PlannerWorld(compiled(step("a"), last))
    here.go()
    here.succeed("a", [0] * 200)
    found = here.go()
    assert found.status["phase"] == "Failed"
    assert "has too many parts" in here.settled("b")["failure"]["message"]


def test_a_path_into_values_of_many_parts_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "WEIGHT_MAX", 100_000)
    here = planner_world.PlannerWorld(compiled(step("a"), step("f", "a", forEach={"items": "${steps.a.output.l}"})))
    here.go()
    here.succeed("a", {"l": [1, 2], "rest": [0] * 200})
    here.go()
    assert sorted(here.running) == ["f[0]", "f[1]"]
