"""``plan(snapshot) -> Plan``: all control flow of a run, without I/O, clock or randomness.

Level-triggered: it looks at how everything stands, never at what just happened, so an event that is lost, doubled
or late changes nothing. A run goes through three graphs, one after the other: the steps; where it fails or is
cancelled, the compensations of what had succeeded, last first; and ``finally``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentrun.api.facts import FailureInfo, StepFact, StepKey
from agentrun.api.run import Outcome, Reason, StepState
from agentrun.api.workflow import MAX_ITEMS, FailureClass
from agentrun.plan import budget
from agentrun.plan.attempts import Standing, stand
from agentrun.plan.events import EventIndex
from agentrun.plan.expressions import ExpressionError, Values, ValueTemplate
from agentrun.plan.people import approval_step, wait_step
from agentrun.plan.program import CompiledStep, Program
from agentrun.plan.snapshot import Append, Effect, Plan, Ref, Snapshot, Start, Stop
from agentrun.plan.status import Group, run_status

NO_FACT = StepFact()


def plan(snapshot: Snapshot) -> Plan:
    """What to do now. Doing all of it and planning again reaches the run's end, or a wait that has an exit."""
    return _Planner(snapshot).plan()


class _Planner:
    """The working state of one call of ``plan``; nothing of it outlives the call."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.s = snapshot
        self.program: Program = snapshot.program
        self.events = EventIndex(snapshot.events)
        self.groups: dict[str, Group] = {}
        """Every step that was looked at, by name, in order."""
        self.undone: dict[StepKey, Standing] = {}
        self.effects: list[Effect] = []
        self.candidates: list[tuple[StepKey, Standing]] = []
        self.wakes: list[float] = []
        self._shared: dict[tuple[frozenset[str], frozenset[str], Outcome | None], Values] = {}
        self.failure: tuple[str, FailureInfo] | None = None
        self.outcome: Outcome | None = None
        self.phase = Reason.RUNNING
        self.suspended = self.events.suspended and self.events.cancelled is None
        keys = [*snapshot.facts, *snapshot.executions, *snapshot.unopened]
        self._begun = {key.name for key in keys if not key.compensate}
        self._begun |= self.events.requested.keys() | self.events.waits.keys()

    # -- the three graphs -------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        if self.events.ended is not None:
            return self._ended()
        timed_out = self._timed_out()
        cancelled = self.events.cancelled is not None
        interrupt = cancelled or timed_out
        self._graph(self.program.steps, ending=interrupt, stop=interrupt or self.suspended)
        failed = self._first_failure(self.program.steps)
        if timed_out and failed is None:
            message = f"the run was active for longer than its timeout of {self.s.timeout:.0f} s"
            failed = ("", FailureInfo(FailureClass.TIMEOUT, message))
        self.failure = failed
        ending = interrupt or failed is not None
        if all(self.groups[name].final for name in self.program.steps):
            self.outcome = Outcome.CANCELLED if cancelled else Outcome.FAILED if ending else Outcome.SUCCEEDED
            if not ending or self._compensate():
                self._last()
        elif ending:
            self.phase = Reason.CANCELLING if cancelled else Reason.RUNNING
        self._start_candidates()
        return self._answer()

    def _last(self) -> None:
        """The ``finally`` steps, then the end."""
        self._graph(self.program.finally_, ending=False, stop=self.suspended, apart=True)
        if not all(self.groups[name].final for name in self.program.finally_):
            return
        late = self._first_failure(self.program.finally_)
        if late is not None and self.outcome is Outcome.SUCCEEDED:
            self.outcome, self.failure = Outcome.FAILED, late
        output = None
        if self.outcome is Outcome.SUCCEEDED and self.program.output is not None:
            try:
                output = self.program.output.render(self._values(self.program.output))
            except ExpressionError as error:
                self.outcome = Outcome.FAILED
                self.failure = ("", FailureInfo(FailureClass.INVALID, f"output: {error}"))
        self._end(output)

    def _end(self, output: Any) -> None:
        body: dict[str, Any] = {"outcome": str(self.outcome), "output": output}
        if self.failure is not None and self.outcome is not Outcome.SUCCEEDED:
            step, why = self.failure
            body |= {"failure": why.to_json()} | ({"failedStep": step} if step else {})
        body["steps"] = {name: str(group.state) for name, group in self.groups.items()}
        body["compensations"] = {key.label: str(s.state) for key, s in self.undone.items()}
        body["heads"] = {key.path: [fact.seq, fact.head] for key, fact in sorted(self.s.facts.items(), key=_by_path)}
        self.effects.append(Append("ended", body))

    def _timed_out(self) -> bool:
        if self.s.timeout is None:
            return False
        # Of the steps alone: were what follows them counted too, a run could succeed, and fail for its ``finally``.
        running = [e for key, e in self.s.executions.items() if self._is_main(key)]
        spans = [span for key, fact in self.s.facts.items() if self._is_main(key) for span in fact.intervals]
        active = _union([*spans, *((e.started, self.s.now) for e in running)])
        if running:
            self.wakes.append(self.s.now + max(0.0, self.s.timeout - active))
        return active >= self.s.timeout

    def _is_main(self, key: StepKey) -> bool:
        return key.name in self.program.steps and not key.compensate

    def _compensate(self) -> bool:
        """Undo what had succeeded, one at a time, last first; whether all of that is over."""
        done = [
            (standing.finished or 0.0, step.name, key.index or 0, key, step)
            for step in self.program.steps.values()
            if step.spec.compensate is not None
            for key, standing in self.groups[step.name].members.items()
            if standing.state is StepState.SUCCEEDED
        ]
        for *_, key, step in sorted(done, key=lambda entry: entry[:3], reverse=True):
            undo = StepKey(key.name, key.index, compensate=True)
            standing = self._attempt(undo, step)
            self.undone[undo] = standing
            if not standing.state.final:
                self.phase = Reason.COMPENSATING
                self._consider(undo, standing, may_start=not self.suspended, stop=self.suspended)
                return False
        return True

    # -- one graph ----------------------------------------------------------------------------------------------------

    def _graph(self, steps: Mapping[str, CompiledStep], *, ending: bool, stop: bool, apart: bool = False) -> None:
        """Look at each step, dependencies first. ``ending``: nothing new begins. ``stop``: running attempts leave.

        A failure ends the graph; ``apart``: it ends only what depends on the step that failed.
        """
        failing = ending or (not apart and self._known_failure(steps))
        for step in steps.values():
            barred = failing or (apart and any(map(self._bars, step.spec.depends_on)))
            self.groups[step.name] = self._settled(step) or self._step(step, barred, stop)

    def _bars(self, dependency: str) -> bool:
        """Whether what depends on that step of ``finally`` does not begin."""
        state = self.groups[dependency].state
        tolerated = self.program.step(dependency).spec.continue_on_error
        return state is StepState.CANCELLED or (state is StepState.FAILED and not tolerated)

    def _known_failure(self, steps: Mapping[str, CompiledStep]) -> bool:
        """Whether some step has failed already: then not even those that come before it in order begin."""
        for step in steps.values():
            if step.spec.continue_on_error:
                continue
            event = self.events.settled.get(step.name)
            if event is not None:
                if event.body["state"] == StepState.FAILED:
                    return True
                continue
            fact = self.s.facts.get(StepKey(step.name), NO_FACT)
            if fact.outcome is StepState.FAILED:
                return True
        return False

    def _settled(self, step: CompiledStep) -> Group | None:
        """A step whose end is an event: approvals, waits, fan-outs, and what failed before it began."""
        event = self.events.settled.get(step.name)
        if event is None:
            return None
        body = event.body
        failure = FailureInfo.from_json(body["failure"]) if "failure" in body else None
        members: dict[StepKey, Standing] = {}
        if step.items is not None:
            told = {index: StepState(state) for state, found in body.get("states", {}).items() for index in found}
            for index in range(body.get("items", 0)):
                key = StepKey(step.name, index)
                members[key] = self._over(key, told.get(index, StepState.CANCELLED))
        whole = Standing(
            StepState(body["state"]),
            self.s.facts.get(StepKey(step.name), NO_FACT),
            output=body.get("output"),
            failure=failure,
            event=event.seq,
            finished=event.at,
        )
        return Group(step.name, whole, members or {StepKey(step.name): whole}, fan_out=step.items is not None)

    def _step(self, step: CompiledStep, failing: bool, stop: bool) -> Group:
        key = StepKey(step.name)
        if step.name not in self._begun:
            blocked = self._not_yet(step, failing)
            if blocked is not None:
                return Group.of(step.name, key, blocked)
        if step.spec.approval is not None:
            return self._people(key, approval_step(step, self, failing))
        if step.spec.wait is not None:
            return self._people(key, wait_step(step, self, failing))
        if step.items is not None:
            return self._fan_out(step, failing, stop)
        standing = self._attempt(key, step)
        self._consider(key, standing, may_start=not (failing or stop), stop=stop, ending=failing)
        return Group.of(step.name, key, standing)

    def _not_yet(self, step: CompiledStep, failing: bool) -> Standing | None:
        """Why a step that has not begun does not begin; None where it may."""
        if failing:
            return Standing(StepState.CANCELLED, NO_FACT)
        for dependency in step.spec.depends_on:
            if not self.groups[dependency].final:
                return Standing(StepState.PENDING, NO_FACT, Reason.PENDING)
        if step.when is not None and not step.when_per_item:
            try:
                wanted = step.when.evaluate(self._values(step.when))
            except ExpressionError as error:
                return self.settle_failed(step.name, FailureInfo(FailureClass.INVALID, f"when: {error}"))
            if not wanted:
                return Standing(StepState.SKIPPED, NO_FACT)
        return None

    def _people(self, key: StepKey, standing: Standing) -> Group:
        if standing.wake_at is not None and not standing.state.final:
            self.wakes.append(standing.wake_at)
        return Group.of(key.name, key, standing)

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _attempt(self, key: StepKey, step: CompiledStep) -> Standing:
        event = self.events.settled.get(key.path)
        if event is not None and (key.index is not None or key.compensate):
            failure = FailureInfo.from_json(event.body["failure"])
            fact = self.s.facts.get(key, NO_FACT)
            return Standing(StepState.FAILED, fact, failure=failure, event=event.seq, finished=event.at)
        standing = stand(
            key,
            self.s.facts.get(key, NO_FACT),
            self.s.executions.get(key),
            self.s.unopened.get(key, 0),
            self.s.lost_at.get(key, 0.0),
            self.events,
            step.retry,
            step.timeout,
            self.s.now,
        )
        if standing.state is StepState.FAILED and standing.fact.outcome is None:
            # Its attempts were lost for good, so no journal of its own says so.
            assert standing.failure is not None
            return self.settle_failed(key.path, standing.failure)
        return standing

    def _over(self, key: StepKey, state: StepState) -> Standing:
        """How ``key`` stands for good: by its journal or its event, else as ``state``; no time or event changes it."""
        fact = self.s.facts.get(key, NO_FACT)
        if fact.outcome is not None:
            return Standing(fact.outcome, fact, output=fact.output, failure=fact.failure, finished=fact.at)
        event = self.events.settled.get(key.path)
        if event is not None and "failure" in event.body and key != StepKey(key.name):
            return Standing(
                StepState.FAILED, fact, failure=FailureInfo.from_json(event.body["failure"]), finished=event.at
            )
        return Standing(state, fact, failure=fact.failure)

    def _consider(self, key: StepKey, standing: Standing, *, may_start: bool, stop: bool, ending: bool = False) -> None:
        """Turn how ``key`` stands into effects, candidates and a time to look again."""
        execution = self.s.executions.get(key)
        if execution is not None:
            if (stop or standing.stop) and not execution.stopping:
                self.effects.append(Stop(key, execution.attempt))
            if standing.wake_at is not None:
                self.wakes.append(standing.wake_at)
            return
        if standing.begin and may_start:
            self.candidates.append((key, standing))
        elif ending and standing.fact.unknown is not None:
            # A call may have happened: only an attempt that settles it, by asking a person, ends the step.
            if standing.begin and not self.suspended:
                standing.drain = True
                self.candidates.append((key, standing))
        elif ending and not standing.state.final and not standing.settling:
            standing.state, standing.person = StepState.CANCELLED, False
        if standing.wake_at is not None and not standing.state.final:
            self.wakes.append(standing.wake_at)

    def _fan_out(self, step: CompiledStep, failing: bool, stop: bool) -> Group:
        assert step.items is not None and step.spec.for_each is not None
        try:
            items = step.items.render(self._values(step.items))
        except ExpressionError as error:
            return self._failed_group(step, FailureInfo(FailureClass.INVALID, f"forEach.items: {error}"))
        if not isinstance(items, list):
            return self._failed_group(step, FailureInfo(FailureClass.INVALID, "forEach.items is not a list"))
        if len(items) > MAX_ITEMS:
            message = f"forEach.items has {len(items)} elements; at most {MAX_ITEMS} are possible"
            return self._failed_group(step, FailureInfo(FailureClass.INVALID, message))
        members = {key: self._attempt(key, step) for key in (StepKey(step.name, i) for i in range(len(items)))}
        failed = any(m.state is StepState.FAILED for m in members.values()) and not step.spec.continue_on_error
        running = sum(1 for key in members if key in self.s.executions)
        for (key, standing), item in zip(members.items(), items, strict=True):
            if standing.state.final:
                continue
            room = running < step.spec.for_each.max_parallel
            # Asked only where the item could begin: to ask a thousand items each time would take 30 ms.
            if room and step.when_per_item and key not in self.s.facts and key not in self.s.executions:
                refused = self._refused_item(step, key, item)
                if refused is not None:
                    standing.state, standing.failure = refused.state, refused.failure
                    failed = failed or (refused.state is StepState.FAILED and not step.spec.continue_on_error)
                    continue
            before = len(self.candidates)
            self._consider(
                key, standing, may_start=room and not (failing or failed or stop), stop=stop, ending=failing or failed
            )
            running += len(self.candidates) - before
        group = Group.fan(step.name, members, self.s.now)
        if group.final:
            self._settle_fan_out(step, group, len(items))
        return group

    def _refused_item(self, step: CompiledStep, key: StepKey, item: Any) -> Standing | None:
        """How an item stands whose ``when`` does not hold, or cannot be told; None where it may begin."""
        assert step.when is not None
        try:
            wanted = step.when.evaluate(self._values(step.when, {"item": item, "index": key.index}))
        except ExpressionError as error:
            failure = FailureInfo(FailureClass.INVALID, f"when: {error}")
            return Standing(StepState.FAILED, NO_FACT, failure=failure)
        return None if wanted else Standing(StepState.SKIPPED, NO_FACT)

    def _settle_fan_out(self, step: CompiledStep, group: Group, items: int) -> None:
        body: dict[str, Any] = {"step": step.name, "state": str(group.state), "items": items}
        body["output"] = [standing.output for standing in group.members.values()]
        body["states"] = states = dict[str, list[int]]()
        for key, standing in group.members.items():
            if standing.fact.outcome is None and key.index is not None:  # what no journal of its own says
                states.setdefault(str(standing.state), []).append(key.index)
        if group.whole.failure is not None:
            body["failure"] = group.whole.failure.to_json()
        self.effects.append(Append("settled", body))
        # Not final before it is recorded: what depends on it refers to the event.
        group.whole.state = StepState.RUNNING

    def _failed_group(self, step: CompiledStep, failure: FailureInfo) -> Group:
        return Group.of(step.name, StepKey(step.name), self.settle_failed(step.name, failure))

    def settle_failed(self, name: str, failure: FailureInfo) -> Standing:
        """Record that a step failed before it had a journal; it is final with the next plan."""
        body = {"step": name, "state": str(StepState.FAILED), "failure": failure.to_json()}
        self.effects.append(Append("settled", body))
        return Standing(StepState.PENDING, NO_FACT, failure=failure, settling=True)

    def _start_candidates(self) -> None:
        rest = budget.free(
            self.s.budget,
            (fact.usage for fact in self.s.facts.values()),
            (execution.allowance for execution in self.s.executions.values()),
        )
        alone = rest.last
        for number, (key, standing) in enumerate(self.candidates):
            if standing.fact.needs_budget:
                # It asked for more than its share: it waits until nobody else holds a part, then gets all of it.
                if not alone:
                    standing.state = StepState.WAITING
                    standing.waiting_for = {"budget": "until the attempts that run now have ended"}
                    continue
                allowance = rest
            else:
                allowance = budget.share(rest, len(self.candidates) - number)
            rest, alone = budget.less(rest, allowance), False
            step = self.program.step(key.name)
            standing.state, standing.reason = StepState.RUNNING, Reason.RUNNING
            group = self.groups[key.name]
            if not group.final:
                group.whole.state = StepState.RUNNING  # of a fan-out: its items were pending when it was looked at
            self.effects.append(
                Start(
                    key,
                    standing.fact.attempt + self.s.unopened.get(key, 0) + 1,
                    self._refs(step, key),
                    standing.events,
                    allowance,
                    max(0.0, step.timeout - standing.fact.active),
                    str(self.outcome or "Running"),
                    standing.drain,
                )
            )

    def _refs(self, step: CompiledStep, key: StepKey) -> dict[str, Ref]:
        refs: dict[str, Ref] = {}
        for name in sorted(step.needs(compensate=key.compensate)):
            group = self.groups[name]
            if name == key.name:
                own = group.members[StepKey(key.name, key.index)]
                refs[name] = Ref(str(own.state), seq=own.fact.seq or None, event=own.event)
            else:
                whole = group.whole
                refs[name] = Ref(str(whole.state), whole.fact.seq if whole.event is None else None, whole.event)
                if whole.state not in (StepState.SUCCEEDED, StepState.FAILED) and whole.event is None:
                    refs[name] = Ref(str(whole.state))
        return refs

    # -- values and answers --------------------------------------------------------------------------------------------

    def _values(self, of: Any, more: Mapping[str, Any] | None = None) -> Values:
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
        return template.render(self._values(template))

    def _first_failure(self, steps: Mapping[str, CompiledStep]) -> tuple[str, FailureInfo] | None:
        failed = [
            (group.whole.finished or 0.0, name, group.whole.failure)
            for name, group in ((name, self.groups[name]) for name, s in steps.items() if not s.spec.continue_on_error)
            if group.state is StepState.FAILED
        ]
        if not failed:
            return None
        _, name, failure = min(failed, key=lambda entry: entry[:2])
        return name, failure or FailureInfo(FailureClass.UNKNOWN, "it failed without saying why")

    def _answer(self) -> Plan:
        people = any(
            member.person
            for group in self.groups.values()
            for member in group.members.values()
            if not member.state.final
        ) or any(s.person for s in self.undone.values())
        idle = not self.effects and not self.s.executions
        timers = [t for t in self.wakes if t > self.s.now]
        soonest = min(timers, default=None)
        stuck = idle and (self.suspended or (people and not self._timer_without_person()))
        return Plan(tuple(self.effects), run_status(self), soonest, waits_for_person=stuck)

    def _timer_without_person(self) -> bool:
        """Whether something moves by time alone: a retry, a timer."""
        standings = [m for g in self.groups.values() for m in g.members.values()] + list(self.undone.values())
        return any(s.wake_at is not None and not s.person and not s.state.final for s in standings)

    def _ended(self) -> Plan:
        """A terminal run never changes: show it as it ended."""
        event = self.events.ended
        assert event is not None
        self.outcome = Outcome(event.body["outcome"])
        if "failure" in event.body:
            self.failure = (event.body.get("failedStep", ""), FailureInfo.from_json(event.body["failure"]))
        for step in (*self.program.steps.values(), *self.program.finally_.values()):
            state = StepState(event.body["steps"].get(step.name, StepState.CANCELLED))
            key = StepKey(step.name)
            group = self._settled(step) or Group.of(step.name, key, self._over(key, state))
            group.whole.state = state
            self.groups[step.name] = group
        for label, state in event.body["compensations"].items():
            key = StepKey.parse(label)
            self.undone[key] = self._over(key, StepState(state))
        return Plan((), run_status(self), None, ended=True)


def _union(spans: list[tuple[float, float]]) -> float:
    """The length of the union of ``spans``."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _by_path(entry: tuple[StepKey, StepFact]) -> str:
    return entry[0].path
