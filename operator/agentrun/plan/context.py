"""The working state of one call of ``plan``, shared by the modules of the planner. It does not outlive the call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from agentrun.api.facts import FailureInfo, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Outcome, Reason, StepState
from agentrun.api.workflow import FailureClass
from agentrun.expressions.cost import weigh
from agentrun.expressions.templates import Expression, ExpressionError, Values, ValueTemplate
from agentrun.plan.attempts import Standing, stand
from agentrun.plan.events import EventIndex
from agentrun.plan.groups import Group
from agentrun.plan.output_bounds import is_left_out
from agentrun.plan.snapshot import Append, Effect, Execution, Snapshot, Stop
from agentrun.plan.work_budget import Work
from agentrun.records.run_events import EventKind, SettledBody
from agentrun.workflow.program import CompiledStep, Program

NO_FACT = StepFact()

LARGE = 256 * 1024
"""Units of converting the inputs. Above this, an expression is given only the inputs that it reads."""


class PlanContext:
    """What one plan has found out about the run so far, and the effects that follow."""

    def __init__(self, snapshot: Snapshot, work: Work) -> None:
        self.s = snapshot
        self.work = work
        self.program: Program = snapshot.program
        self.events = EventIndex(snapshot.events, verified=snapshot.verified, unheard=snapshot.unheard)
        self.groups: dict[str, Group] = {}
        """The steps that were evaluated so far, by name, in order."""
        self.undone: dict[StepKey, Standing] = {}
        """The compensations that were evaluated so far."""
        self.effects: list[Effect] = []
        self.candidates: list[tuple[StepKey, Standing]] = []
        """The keys that may begin an attempt, once the budget is divided."""
        self.wakes: list[float] = []
        self.failure: tuple[str, FailureInfo] | None = None
        """The step that failed the run, and why; an empty name for the run as a whole."""
        self.outcome: Outcome | None = None
        """How the run ends; None until its steps are over."""
        self.phase = Reason.RUNNING
        self.suspended = self.events.suspended and self.events.cancelled is None
        self.recorded = {key.name for key in snapshot.facts if not key.compensate}
        """The steps that have begun according to the journal."""
        self.recorded |= self.events.beginnings.keys()
        keys = [*snapshot.executions, *snapshot.unopened]
        self.begun = self.recorded | {key.name for key in keys if not key.compensate}
        """``recorded``, and the steps that have begun only according to their executions, present or unopened."""
        self.items = 0
        """How many items the fan-outs that were evaluated so far have together."""
        self._shared: dict[object, Values] = {}

    @cached_property
    def at_work(self) -> dict[StepKey, Execution]:
        """Executions whose attempt has not ended according to its journal. A process can outlive its attempt, and a
        driver that reads the journals anew knows of an end before it sees the process end.
        """

        def is_over(fact: StepFact, attempt: int) -> bool:
            return fact.outcome is not None or fact.attempt > attempt or (fact.attempt == attempt and bool(fact.end))

        return {key: e for key, e in self.s.executions.items() if not is_over(self.fact(key), e.attempt)}

    @property
    def not_undone(self) -> list[tuple[str, str]]:
        """The steps and items whose compensation did not succeed, so that their effects stay; and why."""
        return [
            (StepKey(key.name, key.index).label, standing.failure.message if standing.failure else str(standing.state))
            for key, standing in self.undone.items()
            if standing.state.final and standing.state is not StepState.SUCCEEDED
        ]

    def fact(self, key: StepKey) -> StepFact:
        """The fact of ``key`` by its journal; an empty one if no attempt opened the journal."""
        return self.s.facts.get(key, NO_FACT)

    def attempt(self, key: StepKey, step: CompiledStep) -> Standing:
        """The standing of ``key`` now, by its journal, its execution and the run's events."""
        ends = self.events.settled
        event = ends.get(key.path) if ends else None  # building a thousand paths takes half a millisecond
        if event is not None and (key.index is not None or key.compensate):
            failure = FailureInfo.from_json(event.body["failure"])
            fact = self.fact(key)
            return Standing(StepState.FAILED, fact, failure=failure, event=event.seq, finished=event.at)
        standing = stand(key, self.fact(key), step, self.s, self.events)
        if standing.state is StepState.FAILED and standing.fact.outcome is None:
            # Its attempts were lost for good. Its own journal holds no outcome, so an event has to.
            assert standing.failure is not None
            return self.settle_failed(key.path, standing.failure)
        return standing

    def over(self, key: StepKey, state: StepState) -> Standing:
        """The final standing of ``key``: by its journal or its event, else ``state``. No time or event changes it."""
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
        """Turn the standing of ``key`` into effects, candidates and a time to plan again."""
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
            # If a call may have happened, only an attempt that settles it, by asking a person, ends the step. If an
            # attempt is adrift, only a later attempt fences it, so that it calls nothing more.
            if standing.begin and not self.suspended:
                standing.drain = True
                self.candidates.append((key, standing))
        elif ending and not standing.state.final and not standing.settling:
            standing.state, standing.person = StepState.CANCELLED, False
        if standing.wake_at is not None and not standing.state.final:
            self.wakes.append(standing.wake_at)

    def settle_failed(self, name: str, failure: FailureInfo) -> Standing:
        """Record that a step failed although its own journal holds no outcome. It is final in the next plan."""
        body: SettledBody = {"step": name, "state": str(StepState.FAILED), "failure": failure.to_json()}
        self.effects.append(Append(EventKind.SETTLED, body))
        return Standing(StepState.PENDING, NO_FACT, failure=failure, settling=True)

    def values(self, of: Any, more: Mapping[str, Any] | None = None) -> Values:
        """The variables that ``of`` (an expression or a template) uses, and no others, because conversion is expensive.

        Steps that use the same variables share them: what an expression may name is final before it is evaluated.
        """
        if more is not None:
            return self.values(of).extended(more, sum(weigh(value) for value in more.values()))
        keys = of.input_keys if self._large_inputs else None
        key = (of.references, of.step_references, self.outcome, keys)
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = Values(
                self.variables(of.references, of.step_references),
                pay=self.work.pay,
                weight=self._weight(of, keys),
                input_keys=keys,
            )
        return found

    @cached_property
    def _large_inputs(self) -> bool:
        return self.work.weight("", self.s.inputs) > LARGE

    def _weight(self, of: Any, keys: frozenset[str] | None) -> int:
        """Units of giving the runtime what ``of`` names. The empty name, which no step has, stands for all inputs."""
        units = sum(self.work.weight(step, self.groups[step].output) for step in of.step_references)
        if "inputs" not in of.references:
            return units
        if keys is None:
            return units + self.work.weight("", self.s.inputs)
        # ``.KEY`` stands for one input: no step has a dot in its name.
        inputs = self.s.inputs
        return units + sum(self.work.weight(f".{key}", inputs[key]) for key in keys if key in inputs)

    def variables(self, references: Iterable[str], steps: Iterable[str]) -> dict[str, Any]:
        """The values of those ``references`` that are the planner's variables."""
        found: dict[str, Any] = {}
        for name in references:
            if name == "inputs":
                found[name] = self.s.inputs
            elif name == "run":
                found[name] = {**self.s.run, "outcome": str(self.outcome or "Running")}
            elif name == "steps":
                for step in steps:
                    fact = self.groups[step].whole.fact
                    if is_left_out(fact):
                        raise ExpressionError(f"the output of {step} is not kept: the outputs of the run are too large")
                found[name] = {
                    step: {"output": group.output, "state": str(group.state)}
                    for step, group in ((step, self.groups[step]) for step in steps)
                }
        return found

    def basis(self, of: Any) -> tuple[object, ...]:
        """The objects that the value of ``of`` depends on, except those that never change in a run."""
        groups = self.groups
        found: list[object] = [self.outcome]
        for step in of.step_references:
            group = groups[step]
            found += (group.state, group.output)
        return tuple(found)

    def holds(self, condition: Expression) -> bool:
        """Whether ``condition`` holds among the planner's variables. Raises ExpressionError, TooMuchWork, MoreWork."""
        # A step of the workflow and one of ``finally`` may share a condition. Each outcome has a value of its own.
        key = condition, self.outcome
        return bool(self.work.once(key, self.basis(condition), lambda: condition.evaluate(self.values(condition))))

    def render(self, template: ValueTemplate, *, shared: bool = False, owed: bool = False) -> Any:
        """The value of ``template`` among the planner's variables. Raises ExpressionError, TooMuchWork, MoreWork.

        ``shared``, ``owed``: see ``Work.once``.
        """
        return self.work.once(
            template, self.basis(template), lambda: template.render(self.values(template)), shared=shared, owed=owed
        )

    def unaffordable(self, step: CompiledStep, why: str) -> Standing:
        """The standing of a ``step`` whose expressions the run cannot afford: it waits for a person, who can only end
        the run. A step of ``finally`` fails instead, so that the run can end.
        """
        if step.name in self.program.finally_:
            return self.settle_failed(step.name, FailureInfo(FailureClass.INVALID, why))
        return Standing(StepState.WAITING, NO_FACT, Reason.TOO_MUCH_WORK, {"work": why}, person=True)
