"""The planner in a world where everything goes wrong: the driver dies between two effects, views are stale, attempts
are lost, events come twice, people change their mind. What must hold, holds; and the run comes to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentrun.api.facts import Allowance, AttemptEnd, FailureInfo, StepFact, Usage
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.api.workflow import FailureClass
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Append, Effect, Plan, Snapshot, Start, Stop
from agentrun.plan.work_budget import Work
from tests.harness.planner_world import CALL, PlannerWorld, approval, compiled, planned, request, step

BUDGET = 40
ROUNDS = 400
FINAL = {"Succeeded", "Failed", "Skipped", "Cancelled"}


@st.composite
def steps(draw: st.DrawFn, prefix: str, least: int, most: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(draw(st.integers(least, most))):
        after = draw(st.lists(st.sampled_from([s["name"] for s in found]), unique=True)) if found else []
        name = f"{prefix}{number}"
        kind = draw(st.sampled_from(["tool", "tool", "tool", "fan", "fan", "approval", "duration", "signal"]))
        if kind == "approval":
            made = approval(name, *after, required=draw(st.integers(1, 2)))
        elif kind == "duration":
            made = {"name": name, "dependsOn": after, "wait": {"duration": "90s"}}
        elif kind == "signal":
            made = {"name": name, "dependsOn": after, "wait": {"signal": "s"}}
        else:
            made = step(name, *after, retry={"limit": draw(st.integers(0, 2)), "backoff": {"initial": "1s"}})
        if kind == "fan":
            items = list(range(draw(st.integers(0, 4))))
            made["forEach"] = {"items": items, "maxParallel": draw(st.integers(1, 3))}
        if kind == "fan" and draw(st.booleans()):
            made["when"] = draw(st.sampled_from(["index != 1", "item < 2 && run.outcome == 'Running'"]))
        elif draw(st.integers(0, 3)) == 0:
            told = [f"steps.{n}.state == 'Succeeded' || steps.{n}.output == 1" for n in after]
            made["when"] = draw(st.sampled_from(["false", "inputs.size() == 0", "1 / inputs.size() == 1", *told]))
        made["continueOnError"] = draw(st.booleans())
        if draw(st.booleans()):
            made["compensate"] = CALL
        found.append(made)
    return found


@dataclass
class Unruly(PlannerWorld):
    """A world that checks every start, and whose attempts remember what they were started for."""

    why: dict[StepKey, Start] = field(default_factory=dict)
    answers: dict[StepKey, str] = field(default_factory=dict)
    """The resolutions that the journals have taken in."""
    ends: dict[str, Any] | None = None
    shares_hold: bool = True
    """Until somebody who saw less than all hands out a part of the budget: only the lease keeps that from happening."""

    def check(self, snapshot: Snapshot, found: Plan) -> None:
        """What holds of every plan, whatever the snapshot missed."""
        states = {entry["name"]: entry["state"] for entry in found.status["steps"]}
        starts = [effect for effect in found.effects if isinstance(effect, Start)]
        assert len({start.key for start in starts}) == len(starts)
        stopped = any(e.kind == "cancelled" for e in snapshot.events) or any(
            fact.outcome is StepState.FAILED and not self.program.steps[key.name].spec.continue_on_error
            for key, fact in snapshot.facts.items()
            if key.name in self.program.steps and not key.compensate and key.index is None
        )
        suspended = [e.kind for e in snapshot.events if e.kind in ("suspended", "unsuspended", "cancelled")]
        for start in starts:
            spec = self.program.step(start.key.name).spec
            assert start.key not in snapshot.executions
            assert snapshot.facts.get(start.key, StepFact()).outcome is None
            assert start.attempt > snapshot.facts.get(start.key, StepFact()).attempt
            assert start.key.compensate or all(states[name] in FINAL for name in spec.depends_on)
            last = start.key.name in self.program.finally_
            assert not stopped or start.drain or start.key.compensate or last
            assert "cancelled" in suspended or suspended[-1:] != ["suspended"]
            if last:
                assert all(states[name] in FINAL for name in self.program.steps)
            if start.key.index is not None and not start.key.compensate:
                assert spec.for_each is not None
                beside = [k for k in snapshot.executions if k.name == start.key.name and not k.compensate]
                beside += [s.key for s in starts if s.key.name == start.key.name and not s.key.compensate]
                assert start.drain or len(beside) <= spec.for_each.max_parallel
        held = [execution.allowance for execution in snapshot.executions.values()] + [s.allowance for s in starts]
        used = sum(fact.usage.tool_calls for fact in snapshot.facts.values())
        assert not self.shares_hold or used + sum(allowance.tool_calls or 0 for allowance in held) <= BUDGET

    def apply(self, effect: Start | Stop | Append) -> None:
        super().apply(effect)
        if isinstance(effect, Start):
            self.why[effect.key] = effect
            for event in self.events:
                if event.seq in effect.events and event.kind == "resolved":
                    self.answers[effect.key] = event.body["answer"]

    def apply_stale(self, snapshot: Snapshot, effects: Sequence[Effect]) -> None:
        """As the journal and the names of pods make it: what somebody else did already is done."""
        known = len(snapshot.events)
        for effect in effects:
            if isinstance(effect, Append):
                if len(self.events) != known:
                    return  # an event is recorded only by who has seen all that are there
                self.apply(effect)
                known = len(self.events)
                continue
            running = self.executions.get(effect.key)
            if isinstance(effect, Stop):
                if running is not None and running.attempt == effect.attempt:
                    self.apply(effect)
                continue
            fact = self.facts.get(effect.key, StepFact())
            if any(event.kind == "ended" for event in self.events):
                return  # a leader's right to write is over before its successor's begins (control/leader.py)
            if running is None and fact.outcome is None and effect.attempt > fact.attempt:
                self.apply(effect)
                self.shares_hold = False

    def conclude(self, key: StepKey, how: str, used: int = 0) -> None:
        """End the attempt of ``key``, as near to ``how`` as what it was started for allows."""
        start, before = self.why[key], self.facts.get(key, StepFact())
        name, call = key.path, before.unknown.call_id if before.unknown else None
        usage = Usage(tool_calls=min(used, start.allowance.tool_calls or 0))
        if how == "unopened":
            self.lose_unopened(name)
            return
        if how == "lost":
            self.lose(name, unknown=call)
            return
        if call is not None:
            answer = self.answers.pop(key, None)
            if answer is None:
                self.park(name, unknown=call)
                return
            if answer == "giveUp":
                failure = FailureInfo(FailureClass.UNKNOWN, "gave up")
                self._leave(name, 1.0, end=AttemptEnd.CLOSED, outcome=StepState.FAILED, failure=failure)
                return
            if answer == "happened":
                self.succeed(name, "it happened")
                return
        if start.drain:
            self.drain(name)
        elif how == "fail":
            self.fail(name)
        elif how == "lost in a call":
            self.lose(name, unknown=f"call-{start.attempt}")
        elif how == "unknown":
            self.park(name, unknown=f"call-{start.attempt}")
        elif how == "approval":
            self.park(name, request(f"{name}-{start.attempt}", expires_at=self.now + 600))
        elif how == "budget" and not start.allowance.last:
            self.park(name, needs_budget=True, usage=usage)
        elif how == "interrupted":
            self.park(name, usage=usage)
        else:
            self.succeed(name, start.attempt, usage=usage)

    def answer(self, decision: str = "Approved", answer: str = "retry") -> None:
        """Somebody does all that people are asked for."""
        asked = [e.body["request"]["digest"] for e in self.events if e.kind == "approvalRequested"]
        asked += [r.digest for fact in self.facts.values() for r in fact.approvals]
        for digest in asked:
            for who in ("ben", "cleo"):
                self.decide(digest, decision, by=who, groups=["finance"])
        for key, fact in self.facts.items():
            if fact.unknown is not None:
                self.resolve(key.path, fact.unknown.call_id, answer)
        self.append("signalled", name="s", payload=len(self.events))
        self.append("resumed")
        self.append("unsuspended")


ENDS = ["succeed", "succeed", "fail", "lost", "lost in a call", "unopened", "unknown", "approval", "budget"]


class PlannerMachine(RuleBasedStateMachine):
    """Rules are what may happen at any time; ``teardown`` lets everybody be kind, and the run has to end."""

    @initialize(main=steps("s", 1, 5), last=steps("z", 0, 2), timeout=st.sampled_from([None, 60.0]))
    def begin(self, main: list[dict[str, Any]], last: list[dict[str, Any]], timeout: float | None) -> None:
        program = compiled(*main, **{"finally": last})
        self.world = Unruly(program, budget=Allowance(tool_calls=BUDGET), timeout=timeout)
        self.seen: list[Snapshot] = []
        self.work = Work()

    def plan(self) -> Plan:
        snapshot = self.world.snapshot()
        self.seen.append(snapshot)
        found = planned(snapshot)
        assert found == plan(snapshot, self.work)  # what was evaluated before is as good as evaluated now
        self.world.check(snapshot, found)
        if found.ended:
            if self.world.ends is None:
                self.world.ends = found.status
            assert found.status == self.world.ends
            assert not self.world.executions
        else:
            assert self.world.ends is None
        return found

    @rule(applied=st.sampled_from([0, 1, 2, 100, 100, 100]))
    def drive(self, applied: int) -> None:
        """Plan, and apply what the driver gets to before it dies; if it does, it forgets what it counted."""
        found = self.plan()
        for effect in found.effects[:applied]:
            self.world.apply(effect)
        if applied < len(found.effects):
            self.world.unopened.clear()
            self.world.lost_at.clear()

    @rule(age=st.integers(1, 10))
    def drive_by_a_stale_view(self, age: int) -> None:
        snapshot = self.seen[-min(age, len(self.seen))]
        found = planned(snapshot)
        self.world.check(snapshot, found)
        self.world.apply_stale(snapshot, found.effects)

    @precondition(lambda self: self.world.executions)
    @rule(which=st.integers(0, 9), how=st.sampled_from(ENDS), used=st.integers(0, 5))
    def an_attempt_ends(self, which: int, how: str, used: int) -> None:
        key = list(self.world.executions)[which % len(self.world.executions)]
        if self.world.executions[key].stopping and how not in ("lost", "unopened", "fail"):
            how = "interrupted"
        self.world.conclude(key, how, used)

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(
        decision=st.sampled_from(["Approved", "Approved", "Rejected"]),
        answer=st.sampled_from(["retry", "giveUp", "happened"]),
    )
    def people_answer(self, decision: str, answer: str) -> None:
        self.world.answer(decision, answer)

    @rule(kind=st.sampled_from(["suspended", "unsuspended", "resumed", "suspended", "unsuspended", "cancelled"]))
    def people_interfere(self, kind: str) -> None:
        self.world.append(kind)

    @precondition(lambda self: self.world.events)
    @rule(which=st.integers(0, 50))
    def an_event_comes_twice(self, which: int) -> None:
        event = self.world.events[which % len(self.world.events)]
        self.world.append(event.kind, **event.body)

    @invariant()
    def every_view_has_a_plan(self) -> None:
        if hasattr(self, "world"):
            self.plan()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.append("unsuspended")
        for _ in range(ROUNDS):
            found = self.plan()
            if found.ended:
                return
            for effect in found.effects:
                world.apply(effect)
            for key in list(world.executions):
                world.conclude(key, "succeed")
            if found.effects:
                continue
            if found.waits_for_person:
                world.now += 1
                world.answer()
            elif found.wake_at is not None:
                world.now = max(world.now, found.wake_at)
        raise AssertionError(f"the run does not end: {self.plan()}")


TestPlanner = PlannerMachine.TestCase
TestPlanner.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
