"""The planner's budgets: whatever a workflow computes over whatever values, it stays within them.

A plan that remembers is the plan that a fresh planner makes, and so is one that is made in slices. A run spends no
more than its limit, keeps no more than it may, and gives way in time. And all of it takes no more processor time and
memory than the units say (``target.bounded``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from difflib import unified_diff
from pprint import pformat
from typing import Any

from hypothesis import strategies as st

from agentrun.api.errors import InvalidDocument
from agentrun.api.run import Reason
from agentrun.api.workflow import WorkflowSpec
from agentrun.expressions.cost import COST_MAX
from agentrun.expressions.templates import RENDER_MAX
from agentrun.plan.planner import plan, plan_slice
from agentrun.plan.snapshot import Plan, Snapshot, Start
from agentrun.plan.work_budget import GLANCE, KEPT_MAX, RUN_MAX, SLICE, Work
from agentrun.workflow.program import Program, compile_program
from tests.fuzz.expressions import conditions, expressions
from tests.fuzz.target import Target
from tests.harness.planner_world import TOOL, PlannerWorld, approval, step

ROUNDS = 4


class Forgetful(Work):
    """Remembers nothing, not even within a plan: what it finds is what there is."""

    def once(self, key: object, basis: object, evaluate: Callable[[], Any], **_: object) -> Any:
        return evaluate()


# -- values ------------------------------------------------------------------------------------------------------------

SIZES = st.sampled_from([0, 1, 3, 30, 300, 2_000])
ITEMS: st.SearchStrategy[Any] = st.sampled_from(
    [
        0,
        1.5,
        None,
        True,
        "",
        "a",
        "ab" * 50,
        "😀",
        [1, 2],
        [[]],
        {"k": "v"},
        {"k": {"k": [1, "x"]}},
        "\x00",
        2**70,
        "x" * 2_000,
    ]
)


@st.composite
def large(draw: st.DrawFn) -> Any:
    """A value that is large in one way, or in none."""
    size, item = draw(SIZES), draw(ITEMS)
    match draw(st.sampled_from(["list", "different", "object", "text", "deep", "item"])):
        case "list":
            return [item] * size
        case "different":
            return [[number, item] for number in range(size)]
        case "object":
            return {f"k{number}" if number else "k": item for number in range(size)}
        case "text":
            return draw(st.sampled_from(["a", "ab,", "é", " ", "%s"])) * (50 * size)
        case "deep":
            value = item
            for number in range(min(size, 190)):
                value = [value] if number % 2 else {"k": value}
            return value
        case _:
            pass
    return item


INPUTS = st.fixed_dictionaries({"l": large(), "s": large(), "o": large(), "n": st.integers(-3, 10**6), "d": large()})

# -- workflows ---------------------------------------------------------------------------------------------------------

TEMPLATES = expressions().map("${{{}}}".format)
VALUES = st.recursive(
    TEMPLATES | st.tuples(TEMPLATES, TEMPLATES).map("-".join) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def _step(draw: st.DrawFn, name: str, before: list[str], texts: list[str]) -> dict[str, Any]:
    after = [other for other in before if draw(st.booleans())]
    match draw(st.sampled_from(["tool", "fan", "fan", "approval", "wait", "signal"])):
        case "tool":
            made = step(name, *after)
        case "fan":
            many = draw(st.sampled_from([1, 3, 100]))
            made = step(name, *after, forEach={"items": draw(TEMPLATES | VALUES), "maxParallel": many})
        case "approval":
            made = approval(name, *after, subject=draw(TEMPLATES), details={"x": draw(VALUES)})
        case "wait":
            made = {"name": name, "dependsOn": after, "wait": {"duration": draw(TEMPLATES | st.just("1h"))}}
        case _:
            made = {"name": name, "dependsOn": after, "wait": {"signal": "s"}}
    if draw(st.booleans()):
        made["when"] = draw(st.sampled_from(texts))  # steps may share it
    return made | {"continueOnError": draw(st.booleans())}


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    """Up to six steps; what would not compile has mostly been left out by whoever checks it."""
    names = ["a", "b", "c", "d", "e", "f"][: draw(st.integers(1, 6))]
    texts = draw(st.lists(conditions(), min_size=1, max_size=3))
    steps = [draw(_step(name, names[:number], texts)) for number, name in enumerate(names)]
    last = [draw(_step("z", [], texts))] if draw(st.integers(0, 3)) == 0 else []
    return {"tools": [TOOL], "steps": steps, "finally": last, "output": draw(st.none() | VALUES)}


def program_of(workflow: dict[str, Any]) -> Program | None:
    """What it compiles to, once what cannot be compiled was replaced by something else; None where nothing is left."""
    for _ in range(40):
        try:
            return compile_program(WorkflowSpec.model_validate(workflow), ())
        except InvalidDocument as refused:
            for problem in refused.problems:
                _mend(workflow, list(problem.path))
    return None


def _mend(workflow: dict[str, Any], path: list[Any]) -> None:
    if path[0] == "output":
        workflow["output"] = None
        return
    step_ = workflow[path[0]][path[1]]
    match path[2:]:
        case ["when", *_]:
            step_["when"] = "inputs.n != 1"
        case ["forEach", *_]:
            step_["forEach"]["items"] = "${inputs.l}"
        case ["approval", *_]:
            step_["approval"] |= {"subject": "x", "details": None}
        case ["wait", *_]:
            step_["wait"] = {"duration": "1h"}
        case _:
            raise AssertionError(path)


# -- what has to hold --------------------------------------------------------------------------------------------------

RUNS = st.fixed_dictionaries(
    {
        "workflow": workflows(),
        "inputs": INPUTS,
        "outputs": st.lists(large(), min_size=1, max_size=3),
        "limit": st.sampled_from([RUN_MAX, RUN_MAX, 50_000_000, 1_000_000, 10_000]),
        "slice": st.sampled_from([SLICE, 3_000_000]),
        "ends": st.lists(st.sampled_from(["succeed", "succeed", "fail", "lose"]), min_size=1, max_size=4),
    }
)


def check_run(given: dict[str, Any]) -> None:
    """The run is planned and driven for a while, by one planner that remembers and by others that do not."""
    program = program_of(json.loads(json.dumps(given["workflow"])))
    if program is None:
        return
    world = PlannerWorld(program, inputs=given["inputs"])
    whole, slices = Work(limit=given["limit"]), Work(limit=given["limit"])
    for number in range(ROUNDS):
        here = world.snapshot()
        found = bounded_plan(here, whole)
        made = sliced(here, slices, given["slice"])
        if not _is_parked(found) and not _is_parked(made):  # each slice pays for giving the values to the runtime
            same(made, found)
            assert slices.size == whole.size
        evaluated = whole.evaluated
        same(plan(here, whole), found)
        assert whole.evaluated == evaluated
        if not _is_parked(found):
            same(plan(here, Forgetful(limit=sys.maxsize)), found)
        _go_on(world, found, given, number)
        if found.ended:
            return


def bounded_plan(snapshot: Snapshot, work: Work) -> Plan:
    """The plan, of which the work is within the bounds."""
    found = plan(snapshot, work)
    assert work.spent <= work.limit + RENDER_MAX + COST_MAX
    assert work.size <= KEPT_MAX
    json.dumps(found.status, allow_nan=False)
    return found


def sliced(snapshot: Snapshot, work: Work, units: int) -> Plan:
    """The plan as the operator makes it: after a glance, in slices, each of which gives way."""
    found = plan_slice(snapshot, work, min(GLANCE, units), strict=True)
    assert work.used <= GLANCE or found is None
    for _ in range(5_000):
        if found is not None:
            return found
        found = plan_slice(snapshot, work, units)
        assert work.used <= units + RENDER_MAX + 2 * COST_MAX, work.used
    raise AssertionError("it comes to no end")


def same(one: Plan, other: Plan) -> None:
    """Raise AssertionError where the plans differ, with the lines that do."""
    here, there = (pformat(each, width=150).splitlines() for each in (one, other))
    assert one == other, "\n".join(line[:300] for line in unified_diff(there, here, lineterm="", n=0))


def _is_parked(found: Plan) -> bool:
    reasons = {str(condition["reason"]) for condition in found.status["conditions"]}
    return str(Reason.TOO_MUCH_WORK) in reasons or "units of work" in json.dumps(
        [found.status, *map(str, found.effects)]
    )


def _go_on(world: PlannerWorld, found: Plan, given: dict[str, Any], number: int) -> None:
    """Do what the plan says, and let what runs end."""
    for effect in found.effects:
        if not isinstance(effect, Start) or len(world.executions) < 10:
            world.apply(effect)
    for place, key in enumerate(list(world.executions)):
        match given["ends"][(place + number) % len(given["ends"])]:
            case "succeed":
                world.succeed(key.path, given["outputs"][(place + number) % len(given["outputs"])])
            case "fail":
                world.fail(key.path)
            case _:
                world.lose(key.path)
    world.append("signalled", name="s", payload=given["outputs"][0])
    if found.wake_at is not None:
        world.now = max(world.now, found.wake_at)


TARGETS = (Target("budgets", RUNS, check_run),)
