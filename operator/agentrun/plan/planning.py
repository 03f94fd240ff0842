"""The working state of one call of ``plan``, and what its parts share: how a key stands, and what follows from it.

Nothing of it outlives the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from agentrun.api.facts import FailureInfo, StepFact, StepKey
from agentrun.api.run import Outcome, Reason, StepState
from agentrun.plan.attempts import Standing, stand
from agentrun.plan.events import EventIndex
from agentrun.plan.expressions import Values, ValueTemplate
from agentrun.plan.groups import Group
from agentrun.plan.program import CompiledStep, Program
from agentrun.plan.snapshot import Append, Effect, Execution, Snapshot, Stop

NO_FACT = StepFact()


class Planning:
    """What is known so far of the run at the snapshot's moment, and what is to be done."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.s = snapshot
        self.program: Program = snapshot.program
        self.events = EventIndex(snapshot.events, verified=snapshot.verified)
        self.groups: dict[str, Group] = {}
        """Every step that was looked at, by name, in order."""
        self.undone: dict[StepKey, Standing] = {}
        """The compensations that were looked at."""
        self.effects: list[Effect] = []
        self.candidates: list[tuple[StepKey, Standing]] = []
        """What may begin an attempt, once the budget is divided."""
        self.wakes: list[float] = []
        self.failure: tuple[str, FailureInfo] | None = None
        """The step that failed the run, and why; an empty name for the run as a whole."""
        self.outcome: Outcome | None = None
        """How the run ends, from when its steps are over."""
        self.phase = Reason.RUNNING
        self.suspended = self.events.suspended and self.events.cancelled is None
        self.recorded = {key.name for key in snapshot.facts if not key.compensate}
        """The steps that have begun, by the journal."""
        self.recorded |= self.events.requested.keys() | self.events.waits.keys()
        keys = [*snapshot.executions, *snapshot.unopened]
        self.begun = self.recorded | {key.name for key in keys if not key.compensate}
        """Those, and the ones that only a process says to have begun."""
        self._shared: dict[tuple[frozenset[str], frozenset[str], Outcome | None], Values] = {}

    @cached_property
    def at_work(self) -> dict[StepKey, Execution]:
        """The executions but for those whose attempt is over by its journal, and whose process only lingers: who reads
        the journals anew knows of an end before it is seen.
        """

        def is_over(fact: StepFact, attempt: int) -> bool:
            return fact.outcome is not None or fact.attempt > attempt or (fact.attempt == attempt and bool(fact.end))

        return {key: e for key, e in self.s.executions.items() if not is_over(self.fact(key), e.attempt)}

    @property
    def not_undone(self) -> list[tuple[str, str]]:
        """The steps (and items) whose effects stay although they have a compensation: it failed, and why."""
        return [
            (StepKey(key.name, key.index).label, standing.failure.message if standing.failure else str(standing.state))
            for key, standing in self.undone.items()
            if standing.state.final and standing.state is not StepState.SUCCEEDED
        ]

    def fact(self, key: StepKey) -> StepFact:
        """What the journal of ``key`` says; that of a step that never opened is empty."""
        return self.s.facts.get(key, NO_FACT)

    def attempt(self, key: StepKey, step: CompiledStep) -> Standing:
        """How ``key`` stands now, by its journal, its process and its events."""
        event = self.events.settled.get(key.path)
        if event is not None and (key.index is not None or key.compensate):
            failure = FailureInfo.from_json(event.body["failure"])
            fact = self.fact(key)
            return Standing(StepState.FAILED, fact, failure=failure, event=event.seq, finished=event.at)
        standing = stand(
            key,
            self.fact(key),
            self.s.executions.get(key),
            self.s.unopened.get(key, 0),
            self.s.lost_at.get(key, 0.0),
            self.events,
            step.retry,
            step.timeout,
            self.s.now,
            self.s.troubles.get(key),
        )
        if standing.state is StepState.FAILED and standing.fact.outcome is None:
            # Its attempts were lost for good, so no journal of its own says so.
            assert standing.failure is not None
            return self.settle_failed(key.path, standing.failure)
        return standing

    def over(self, key: StepKey, state: StepState) -> Standing:
        """How ``key`` stands for good: by its journal or its event, else as ``state``; no time or event changes it."""
        fact = self.fact(key)
        if fact.outcome is not None:
            return Standing(fact.outcome, fact, output=fact.output, failure=fact.failure, finished=fact.at)
        event = self.events.settled.get(key.path)
        if event is not None and "failure" in event.body and key != StepKey(key.name):
            return Standing(
                StepState.FAILED, fact, failure=FailureInfo.from_json(event.body["failure"]), finished=event.at
            )
        return Standing(state, fact, failure=fact.failure)

    def consider(self, key: StepKey, standing: Standing, *, may_start: bool, stop: bool, ending: bool = False) -> None:
        """Turn how ``key`` stands into effects, candidates and a time to look again."""
        execution = self.s.executions.get(key)
        if execution is not None:
            if (standing.stop or (stop and not execution.drain)) and not execution.stopping:
                self.effects.append(Stop(key, execution.attempt))
            if standing.wake_at is not None:
                self.wakes.append(standing.wake_at)
            return
        if standing.begin and may_start:
            self.candidates.append((key, standing))
        elif ending and (standing.fact.unknown is not None or (key in self.s.adrift and not standing.person)):
            # A call may have happened: only an attempt that settles it, by asking a person, ends the step. And what may
            # still be at work somewhere is kept from calling anything only by an attempt that comes after it.
            if standing.begin and not self.suspended:
                standing.drain = True
                self.candidates.append((key, standing))
        elif ending and not standing.state.final and not standing.settling:
            standing.state, standing.person = StepState.CANCELLED, False
        if standing.wake_at is not None and not standing.state.final:
            self.wakes.append(standing.wake_at)

    def settle_failed(self, name: str, failure: FailureInfo) -> Standing:
        """Record that a step failed before it had a journal; it is final with the next plan."""
        body = {"step": name, "state": str(StepState.FAILED), "failure": failure.to_json()}
        self.effects.append(Append("settled", body))
        return Standing(StepState.PENDING, NO_FACT, failure=failure, settling=True)

    def values(self, of: Any, more: Mapping[str, Any] | None = None) -> Values:
        """The variables that ``of`` (an expression or a template) uses, and no more: converting is what costs.

        Steps that use the same ones share them: what an expression may name is final before it is looked at.
        """
        if more is not None:
            return Values(self.variables(of.references, of.step_references) | dict(more))
        key = (of.references, of.step_references, self.outcome)
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = Values(self.variables(of.references, of.step_references))
        return found

    def variables(self, references: Iterable[str], steps: Iterable[str]) -> dict[str, Any]:
        """The planner's variables among ``references``."""
        found: dict[str, Any] = {}
        for name in references:
            if name == "inputs":
                found[name] = self.s.inputs
            elif name == "run":
                found[name] = {**self.s.run, "outcome": str(self.outcome or "Running")}
            elif name == "steps":
                found[name] = {
                    step: {"output": group.output, "state": str(group.state)}
                    for step, group in ((step, self.groups[step]) for step in steps)
                }
        return found

    def render(self, template: ValueTemplate) -> Any:
        """The value of ``template`` among the planner's variables. Raises ExpressionError."""
        return template.render(self.values(template))
