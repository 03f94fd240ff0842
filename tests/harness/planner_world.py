"""A fake world for the planner: an attempt that the planner starts runs here until a test ends it.

It gives the real guarantees: one attempt of a key at a time, each event once per kind and step, and only the newest
attempt writes to a journal. Every plan is computed twice, and must be equal both times and serialize as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentrun.api.facts import Allowance, ApprovalRequest, AttemptEnd, FailureInfo, StepFact, UnknownCall, Usage
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.api.tools import Approvers
from agentrun.api.workflow import STEP_KINDS, FailureClass, WorkflowSpec
from agentrun.plan.planner import plan
from agentrun.plan.retry import retries
from agentrun.plan.snapshot import Append, Event, Execution, Plan, Snapshot, Start, Stop
from agentrun.records.waits import DETAILS, WAITS
from agentrun.workflow.program import Program, compile_program
from tests.unit import record_forms

TOOL = {"name": "t", "http": {"url": "http://tools.example/${args.a}"}}
MODEL = {"name": "m", "model": "gpt"}
CALL = {"name": "t", "args": {"a": "1"}}
PEOPLE = {"groups": ["finance"], "users": ["ana"]}


def step(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    """A step that calls a tool, unless ``fields`` give another body."""
    kind = {} if fields.keys() & STEP_KINDS.keys() else {"tool": CALL}
    return {"name": name, "dependsOn": list(after), **kind, **fields}


def approval(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    asked = {"subject": "Go on?", "approvers": PEOPLE, "timeout": "1h"} | fields
    return {"name": name, "dependsOn": list(after), "approval": asked}


def compiled(*steps: dict[str, Any], **more: Any) -> Program:
    return compile_program(
        WorkflowSpec.model_validate({"tools": [TOOL], "models": [MODEL], "steps": list(steps), **more})
    )


def request(call_id: str, expires_at: float = 5000.0, required: int = 1) -> ApprovalRequest:
    """The request for approval of a tool call."""
    return ApprovalRequest(
        "pay", None, f"sha256:{call_id}", Approvers(groups=["finance"]), required, expires_at, call_id, "t"
    )


@dataclass
class PlannerWorld:
    """A run with everything that a snapshot contains."""

    program: Program
    inputs: dict[str, Any] = field(default_factory=dict)
    budget: Allowance = field(default_factory=Allowance)
    timeout: float | None = None
    now: float = 1000.0
    facts: dict[StepKey, StepFact] = field(default_factory=dict)
    executions: dict[StepKey, Execution] = field(default_factory=dict)
    unopened: dict[StepKey, int] = field(default_factory=dict)
    lost_at: dict[StepKey, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)

    # -- the planner's side ---------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return Snapshot(
            program=self.program,
            run={"name": "r", "namespace": "n", "requestedBy": "me", "uid": "u"},
            inputs=self.inputs,
            started=1000.0,
            now=self.now,
            budget=self.budget,
            timeout=self.timeout,
            facts=dict(self.facts),
            executions=dict(self.executions),
            unopened=dict(self.unopened),
            lost_at=dict(self.lost_at),
            events=tuple(self.events),
        )

    def look(self) -> Plan:
        """The plan for the present snapshot. It is not applied."""
        found = planned(self.snapshot())
        for entry in found.status["steps"]:
            if "waitingFor" in entry:
                assert len(entry["waitingFor"].keys() & WAITS.keys()) == 1
                assert entry["waitingFor"].keys() <= WAITS.keys() | DETAILS
        return found

    def go(self, rounds: int = 50) -> Plan:
        """Plan and apply until a plan has no effects, and return that plan."""
        for _ in range(rounds):
            found = self.look()
            for effect in found.effects:
                self.apply(effect)
            if not found.effects:
                return found
        raise AssertionError(f"the planner does not come to rest: {found.effects}")

    def apply(self, effect: Start | Stop | Append) -> None:
        match effect:
            case Start(key=key):
                assert key not in self.executions, f"{key.label} runs already"
                before = self.facts.get(key, StepFact())
                assert before.outcome is None, f"{key.label} is closed"
                assert effect.attempt > before.attempt
                self.starts.append(effect)
                self.executions[key] = Execution(effect.attempt, self.now, effect.allowance, drain=effect.drain)
            case Stop(key=key, attempt=attempt):
                assert self.executions[key].attempt == attempt
                self.executions[key] = replace(self.executions[key], stopping=True)
            case Append(kind=kind, body=body):
                record_forms.check(kind, body)
                there = any(e.kind == kind and e.body.get("step") == body.get("step") for e in self.events)
                if not there or kind == "waitStarted":  # a wait starts again after the clock was set back
                    self.append(kind, **body)

    # -- what attempts do -----------------------------------------------------------------------------------------

    def _leave(self, name: str, after: float, **changes: Any) -> StepFact:
        key = StepKey.parse(name)
        execution = self.executions.pop(key)
        self.unopened.pop(key, None)
        before = self.facts.get(key, StepFact())
        self.now += after
        lost = before.attempt > 0 and before.end is None
        self.facts[key] = replace(
            before,
            attempt=execution.attempt,
            seq=before.seq + 2,
            head=f"hash-{before.seq + 2}",
            started=before.started or execution.started,
            at=self.now,
            end=changes.pop("end", None),
            intervals=(*before.intervals, (execution.started, self.now)),
            usage=before.usage + changes.pop("usage", Usage()),
            losses=before.losses + 1 if lost else 0,
            approvals=changes.pop("approvals", ()),
            unknown=changes.pop("unknown", None),
            needs_budget=changes.pop("needs_budget", False),
            **changes,
        )
        return self.facts[key]

    def succeed(self, name: str, output: Any = None, after: float = 1.0, usage: Usage | None = None) -> None:
        more = {"output": output, "usage": usage or Usage()}
        self._leave(name, after, end=AttemptEnd.CLOSED, outcome=StepState.SUCCEEDED, failure=None, **more)

    def fail(
        self,
        name: str,
        failure: FailureClass = FailureClass.TOOL,
        message: str = "it broke",
        retry_after: float | None = None,
        after: float = 1.0,
    ) -> None:
        """The attempt fails. Like the runner, it closes the step if no retry follows."""
        key = StepKey.parse(name)
        info = FailureInfo(failure, message, retry_after)
        failures = self.facts.get(key, StepFact()).failures + 1
        if retries(self.program.step(key.name).retry, info, failures):
            self._leave(name, after, end=AttemptEnd.FAILED, failures=failures, failure=info)
        else:
            self._leave(name, after, end=AttemptEnd.CLOSED, outcome=StepState.FAILED, failure=info)

    def drain(self, name: str) -> None:
        """The attempt of a run that is ending closes the step as Cancelled."""
        self._leave(name, 1.0, end=AttemptEnd.CLOSED, outcome=StepState.CANCELLED, failure=None)

    def park(
        self,
        name: str,
        *approvals: ApprovalRequest,
        unknown: str | None = None,
        needs_budget: bool = False,
        usage: Usage | None = None,
    ) -> None:
        """The attempt ends in order to wait: for approvals, for a person who resolves a call, for budget, or because it
        was stopped.
        """
        call = UnknownCall(unknown, "t", {}, "did it happen?") if unknown else None
        more: dict[str, Any] = {"approvals": approvals, "unknown": call, "needs_budget": needs_budget}
        self._leave(name, 1.0, end=AttemptEnd.WAITING, usage=usage or Usage(), **more)

    def lose(self, name: str, after: float = 0.0, unknown: str | None = None) -> None:
        """The attempt is lost. With ``unknown``, it is lost within that call."""
        call = UnknownCall(unknown, "t", {}, "did it happen?") if unknown else None
        self._leave(name, after, unknown=call)

    def lose_unopened(self, name: str) -> None:
        """The execution ends before it opened the journal."""
        key = StepKey.parse(name)
        del self.executions[key]
        self.unopened[key] = self.unopened.get(key, 0) + 1
        self.lost_at[key] = self.now

    # -- what people do -------------------------------------------------------------------------------------------

    def append(self, kind: str, **body: Any) -> None:
        self.events.append(Event(len(self.events) + 1, self.now, kind, body))

    def decide(self, asked: str, decision: str = "Approved", by: str = "ana", groups: Sequence[str] = ()) -> None:
        """A decision on the request of the step ``asked``, or on the digest ``asked``."""
        found = [e for e in self.events if e.kind == "approvalRequested" and e.body["step"] == asked]
        digest = found[0].body["request"]["digest"] if found else asked
        self.append("decided", digest=digest, by=by, groups=list(groups), decision=decision, comment="why not")

    def resolve(self, step: str, call_id: str, answer: str = "giveUp") -> None:
        attempt = self.facts[StepKey.parse(step)].attempt
        self.append("resolved", step=step, callId=call_id, attempt=attempt, answer=answer, by="ana")

    # -- what is seen ---------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[str]:
        return [key.label for key in self.executions]

    def state(self, name: str) -> str:
        return str(self.entry(name)["state"])

    def entry(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(e for e in self.look().status["steps"] if e["name"] == name)
        return found

    def settled(self, name: str) -> dict[str, Any]:
        """The event that settled ``name``."""
        return next(e.body for e in self.events if e.kind == "settled" and e.body["step"] == name)

    @property
    def ended(self) -> dict[str, Any]:
        """The body of the run's end."""
        return next(e.body for e in self.events if e.kind == "ended")


def planned(snapshot: Snapshot) -> Plan:
    """The plan for ``snapshot``, after checking the invariants of every plan."""
    found = plan(snapshot)
    assert found == plan(snapshot)
    json.dumps(found.status, allow_nan=False)
    assert found.wake_at is None or found.wake_at > snapshot.now
    conditions = {c["type"]: c["status"] for c in found.status["conditions"]}
    assert (conditions["Reconciling"], conditions["Stalled"]) != ("True", "True")
    assert found.ended or (conditions["Succeeded"], conditions["Ready"]) == ("Unknown", "False")
    terminal = found.status["phase"] in ("Succeeded", "Failed", "Cancelled")
    assert terminal == found.ended == (conditions["Succeeded"] != "Unknown")
    if found.ended:
        assert not found.effects
    elif not found.effects and not snapshot.executions:
        assert found.wake_at is not None or found.waits_for_person, f"wedged: {found.status}"
    return found
