"""One graph of steps: each is looked at in order, dependencies first, and may begin, wait, end or be passed over."""

from __future__ import annotations

from collections.abc import Mapping

from agentrun.api.facts import FailureInfo, StepKey
from agentrun.api.run import Reason, StepState
from agentrun.api.workflow import ApprovalStep, FailureClass, PodBody, Wait
from agentrun.expressions.templates import ExpressionError
from agentrun.plan.attempts import Standing
from agentrun.plan.fan_out import fan_out
from agentrun.plan.groups import Group
from agentrun.plan.people import approval_step, wait_step
from agentrun.plan.planning import NO_FACT, Planning
from agentrun.plan.work import TooMuchWork
from agentrun.workflow.program import CompiledStep


def look(p: Planning, steps: Mapping[str, CompiledStep], *, ending: bool, stop: bool, apart: bool = False) -> None:
    """Look at each step, dependencies first. ``ending``: nothing new begins. ``stop``: running attempts leave.

    A failure ends the graph; ``apart``: it ends only what depends on the step that failed.
    """
    failing = ending or (not apart and _known_failure(p, steps))
    for step in steps.values():
        barred = failing or (apart and any(_bars(p, name) for name in step.spec.depends_on))
        p.groups[step.name] = settled(p, step) or _step(p, step, barred, stop)


def _bars(p: Planning, dependency: str) -> bool:
    """Whether what depends on that step of ``finally`` does not begin."""
    state = p.groups[dependency].state
    tolerated = p.program.step(dependency).spec.continue_on_error
    return state is StepState.CANCELLED or (state is StepState.FAILED and not tolerated)


def _known_failure(p: Planning, steps: Mapping[str, CompiledStep]) -> bool:
    """Whether some step has failed already: then not even those that come before it in order begin."""
    ends = p.events.settled
    failed = {name for name, event in ends.items() if event.body.get("state") == StepState.FAILED}
    for key, fact in p.s.facts.items():
        if fact.outcome is StepState.FAILED and key == StepKey(key.name) and key.name not in ends:
            failed.add(key.name)
    return any(name in steps and not steps[name].spec.continue_on_error for name in failed)


def settled(p: Planning, step: CompiledStep) -> Group | None:
    """A step whose end is an event: approvals, waits, fan-outs, and what failed before it began."""
    event = p.events.settled.get(step.name)
    if event is None:
        return None
    body = event.body
    failure = FailureInfo.from_json(body["failure"]) if "failure" in body else None
    members: dict[StepKey, Standing] = {}
    if step.items is not None:
        p.items += body.get("items", 0)
        told = {index: StepState(state) for state, found in body.get("states", {}).items() for index in found}
        for index in range(body.get("items", 0)):
            key = StepKey(step.name, index)
            members[key] = p.over(key, told.get(index, StepState.CANCELLED))
    whole = Standing(
        StepState(body["state"]),
        p.fact(StepKey(step.name)),
        output=body.get("output"),
        failure=failure,
        event=event.seq,
        finished=event.at,
    )
    if step.items is None:
        return Group.of(step.name, StepKey(step.name), whole)
    return Group(step.name, whole, members, fan_out=True)


def _step(p: Planning, step: CompiledStep, failing: bool, stop: bool) -> Group:
    key = StepKey(step.name)
    ready = all(p.groups[name].final for name in step.spec.depends_on)
    # A process alone proves nothing where the step may not begin yet: somebody else may have made it.
    if step.name not in p.begun or not (ready or step.name in p.recorded):
        blocked = _not_yet(p, step, failing)
        if blocked is not None:
            return Group.of(step.name, key, blocked)
    if not isinstance(step.body, PodBody):
        return _without_pod(p, key, step, step.body, failing)
    if step.items is not None:
        return fan_out(p, step, failing, stop)
    standing = p.attempt(key, step)
    p.consider(key, standing, may_start=not (failing or stop), stop=stop, ending=failing)
    return Group.of(step.name, key, standing)


def _without_pod(p: Planning, key: StepKey, step: CompiledStep, body: ApprovalStep | Wait, failing: bool) -> Group:
    match body:
        case ApprovalStep():
            standing = approval_step(step, body, p, failing)
        case Wait():
            standing = wait_step(step, body, p, failing)
    if standing.wake_at is not None and not standing.state.final:
        p.wakes.append(standing.wake_at)
    return Group.of(key.name, key, standing)


def _not_yet(p: Planning, step: CompiledStep, failing: bool) -> Standing | None:
    """Why a step that has not begun does not begin; None where it may.

    What was passed over stays so when another step fails: this is told by ``when`` each time, and recorded nowhere.
    """
    conditional = step.when is not None and not step.when_per_item
    if failing and (not conditional or any(_bars(p, name) for name in step.spec.depends_on)):
        return Standing(StepState.CANCELLED, NO_FACT)
    if not all(p.groups[name].final for name in step.spec.depends_on):
        return Standing(StepState.PENDING, NO_FACT, Reason.PENDING)
    if step.when is not None and not step.when_per_item:
        try:
            wanted = p.holds(step.when)
        except TooMuchWork as why:
            if not failing:
                return p.unaffordable(step, f"when {why}")
        except ExpressionError as error:
            if not failing:
                return p.settle_failed(step.name, FailureInfo(FailureClass.INVALID, f"when: {error}"))
        else:
            if not wanted:
                return Standing(StepState.SKIPPED, NO_FACT)
    return Standing(StepState.CANCELLED, NO_FACT) if failing else None
