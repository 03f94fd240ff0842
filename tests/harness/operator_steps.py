"""Common first steps of the operator's tests: a workflow, a run, and a record of the operator's calls."""

from __future__ import annotations

from typing import Any

from tests.harness.cluster_world import ClusterWorld, Operator
from tests.harness.planner_world import MODEL, TOOL


def workflow(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tools": [TOOL], "models": [MODEL], "steps": list(steps), **more}


class Calls:
    """Records every call of the operators, in order."""

    def __init__(self, world: ClusterWorld) -> None:
        self.made: list[str] = []
        world.hook = self

    def __call__(self, operator: Operator, side: str, what: str) -> None:
        if side == "before":
            self.made.append(what)

    def count(self, start: str) -> int:
        return sum(what.startswith(start) for what in self.made)


def begin(world: ClusterWorld, *steps: dict[str, Any], **more: Any) -> Operator:
    spec: dict[str, Any] = {
        key: more.pop(key) for key in ("suspend", "ttlSecondsAfterFinished", "timeout") if key in more
    }
    world.api.apply_run("r", {"workflow": workflow(*steps, **more), **spec})
    operator = world.operator()
    world.settle()
    return operator


def quietly(world: ClusterWorld, operator: Operator, seconds: float) -> None:
    """Let time pass, in which the operator hears of everything."""
    for _ in range(4):
        operator.hear_all()
        world.wait(seconds / 4)


def ends(world: ClusterWorld, operator: Operator) -> None:
    """Run all pods to their ends, and deliver the watch events to the operator."""
    for _ in range(4):
        world.run_pods()
        operator.hear_all()
        world.wait(1.5)
