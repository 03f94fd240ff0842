"""A run of an operator, cut off at one of its calls to the API server or the store, and what it came to in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.harness.cluster_world import ClusterWorld, Operator, steps_of
from tests.harness.memory_store import Crash
from tests.harness.planner_world import MODEL, TOOL, approval, step
from tests.harness.virtual_time import VirtualLoop

REFUND = {
    "tools": [TOOL],
    "models": [MODEL],
    "steps": [
        step("triage", retry={"limit": 1, "backoff": {"initial": "1s"}}),
        approval("sign-off", "triage"),
        step("refund", "sign-off"),
        step("letter", "refund", forEach={"items": [0, 1], "maxParallel": 2}),
        {"name": "shipped", "dependsOn": ["refund"], "wait": {"signal": "shipped"}},
    ],
    "finally": [step("note")],
}
HOW = {("triage", 1): "fail", ("refund", 1): "ask"}
"""The first attempt of the triage fails; of the refund itself people are asked, too."""

Strike = Callable[[Operator, str, str], None]


@dataclass(frozen=True)
class Outcome:
    """What must not depend on when the operator died."""

    phase: str
    steps: Mapping[str, str]
    effects: Mapping[str, int]
    decided: tuple[tuple[str, str], ...]
    events: Mapping[str, int]


@dataclass(frozen=True)
class Point:
    """The ``number``-th call (from 1), before it is done or before its answer comes."""

    number: int
    side: str
    what: str


class Trial:
    """One run, from the first visit to its end. The calls of the first operator are counted, and struck."""

    def __init__(self, strike: Point | None) -> None:
        self.strike = strike
        self.points: list[Point] = []
        self.fired = False
        self.world = ClusterWorld(VirtualLoop())
        self.world.hook = self._hook
        self._count = 0

    def _hook(self, operator: Operator, side: str, what: str) -> None:
        if operator is not self.world.operators[0]:
            return
        self._count += side == "before"
        self.points.append(Point(self._count, side, what))
        if self.strike is not None and (self._count, side) == (self.strike.number, self.strike.side):
            assert what == self.strike.what, f"call {self._count} is {what} now, and was {self.strike.what}"
            self.fired = True
            operator.dead = True
            raise Crash

    def carry(self) -> Outcome:
        """Begin, act the script, and end; whoever dies is replaced."""
        world = self.world
        try:
            view = world.api.apply_run("r", {"workflow": REFUND})
            operator = world.operator()
            for _ in range(80):
                world.settle()
                operator = self._alive(operator)
                self._people()
                for pod in world.pods():
                    world.advance(pod, HOW.get((pod.key.path, pod.attempt), "succeed"))
                operator.hear_all()
                operator = self._alive(operator)
                world.wait(1.5)
                operator = self._alive(operator)
                if world.status().get("completionTime") and all(a.settled for a in world.api.all("approvals")):
                    break
            world.wait(2)
            return self._outcome(view)
        finally:
            world.close()
            world.loop.close()

    def _alive(self, operator: Operator) -> Operator:
        if not operator.dead:
            return operator
        operator.kill()
        found = self.world.operator()
        self.world.settle()
        return found

    def _people(self) -> None:
        for approval_ in self.world.api.all("approvals"):
            self.world.api.decide(approval_.name, "ben")
        said = [r for r in self.world.api.log["commands"] if not r[0]]
        waiting = any("signal" in e.get("waitingFor", {}) for e in self.world.status().get("steps", ()))
        if waiting and not said:
            self.world.api.command("r", signal={"name": "shipped", "payload": "today"})

    def _outcome(self, view: Any) -> Outcome:
        records = self.world.records(view)
        kinds = Counter(str(r.kind) for r in records)
        assert kinds["ended"] == 1 and records[-1].kind == "ended", kinds
        assert all(a.settled for a in self.world.api.all("approvals"))
        assert list(self.world.api.answers().values()) == ["Recorded"]
        assert not self.world.wrong, self.world.wrong
        twice = [what for what, count in Counter(self.world.created).items() if count > 1]
        assert not twice, f"two pods for one attempt: {twice}"
        status = self.world.status()
        names = {a.digest: a.name[:12] for a in self.world.api.all("approvals")}  # a call's has its digest at the end
        decided = sorted((names[r.body["digest"]], r.body["by"]) for r in records if r.kind == "decided")
        told = ("settled", "approvalRequested", "waitStarted", "decided", "signalled", "ended")
        return Outcome(
            status["phase"],
            dict(steps_of(status)),
            dict(self.world.ledger),
            tuple(decided),
            {kind: kinds[kind] for kind in told},
        )
