"""Evaluates one graph of steps in order, dependencies first: each step begins, waits, ends or is skipped."""

from __future__ import annotations

from collections.abc import Mapping

from agentrun.api.facts import FailureInfo
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason, StepState
from agentrun.api.workflow import ApprovalStep, FailureClass, PodBody, Wait
from agentrun.expressions.templates import ExpressionError
from agentrun.plan.attempts import Standing
from agentrun.plan.context import NO_FACT, PlanContext
from agentrun.plan.fan_out import fan_out
from agentrun.plan.groups import Group
from agentrun.plan.waits import approval_step, wait_step
from agentrun.plan.work_budget import TooMuchWork
from agentrun.workflow.program import CompiledStep


def look(
    context: PlanContext, steps: Mapping[str, CompiledStep], *, ending: bool, stop: bool, apart: bool = False
) -> None:
    """Evaluate each step, dependencies first. ``ending``: nothing new begins. ``stop``: running attempts are stopped.

    A failed step ends the whole graph. ``apart``: it ends only the steps that depend on it.
    """
    failing = ending or (not apart and _known_failure(context, steps))
    for step in steps.values():
        barred = failing or (apart and any(_bars(context, name) for name in step.spec.depends_on))
        context.groups[step.name] = settled(context, step) or _step(context, step, barred, stop)


def _bars(context: PlanContext, dependency: str) -> bool:
    """Whether the steps that depend on ``dependency`` do not begin, because of how it ended."""
    state = context.groups[dependency].state
    tolerated = context.program.step(dependency).spec.continue_on_error
    return state is StepState.CANCELLED or (state is StepState.FAILED and not tolerated)


def _known_failure(context: PlanContext, steps: Mapping[str, CompiledStep]) -> bool:
    """Whether a step has failed already. If so, the steps that come before it in order do not begin either."""
    ends = context.events.settled
    failed = {name for name, event in ends.items() if event.body.get("state") == StepState.FAILED}
    for key, fact in context.s.facts.items():
        if fact.outcome is StepState.FAILED and key == StepKey(key.name) and key.name not in ends:
            failed.add(key.name)
    return any(name in steps and not steps[name].spec.continue_on_error for name in failed)


def settled(context: PlanContext, step: CompiledStep) -> Group | None:
    """The group of a step whose end is an event: an approval, a wait, a fan-out, or a step that failed although its
    own journal holds no outcome. None: there is no such event.
    """
    event = context.events.settled.get(step.name)
    if event is None:
        return None
    body = event.body
    failure = FailureInfo.from_json(body["failure"]) if "failure" in body else None
    members: dict[StepKey, Standing] = {}
    if step.items is not None:
        context.items += body.get("items", 0)
        told = {index: StepState(state) for state, found in body.get("states", {}).items() for index in found}
        for index in range(body.get("items", 0)):
            key = StepKey(step.name, index)
            members[key] = context.over(key, told.get(index, StepState.CANCELLED))
    whole = Standing(
        StepState(body["state"]),
        context.fact(StepKey(step.name)),
        output=body.get("output"),
        failure=failure,
        event=event.seq,
        finished=event.at,
    )
    if step.items is None:
        return Group.of(step.name, StepKey(step.name), whole)
    return Group(step.name, whole, members, fan_out=True)


def _step(context: PlanContext, step: CompiledStep, failing: bool, stop: bool) -> Group:
    key = StepKey(step.name)
    ready = all(context.groups[name].final for name in step.spec.depends_on)
    # While the step may not begin yet, an execution alone proves nothing: somebody else may have created it.
    if step.name not in context.begun or not (ready or step.name in context.recorded):
        blocked = _not_yet(context, step, failing)
        if blocked is not None:
            return Group.of(step.name, key, blocked)
    if not isinstance(step.body, PodBody):
        return _without_pod(context, key, step, step.body, failing)
    if step.items is not None:
        return fan_out(context, step, failing, stop)
    standing = context.attempt(key, step)
    context.consider(key, standing, may_start=not (failing or stop), stop=stop, ending=failing)
    return Group.of(step.name, key, standing)


def _without_pod(
    context: PlanContext, key: StepKey, step: CompiledStep, body: ApprovalStep | Wait, failing: bool
) -> Group:
    match body:
        case ApprovalStep():
            standing = approval_step(step, body, context, failing)
        case Wait():
            standing = wait_step(step, body, context, failing)
    if standing.wake_at is not None and not standing.state.final:
        context.wakes.append(standing.wake_at)
    return Group.of(key.name, key, standing)


def _not_yet(context: PlanContext, step: CompiledStep, failing: bool) -> Standing | None:
    """The standing of a step that has not begun and does not begin now; None: it may begin.

    A skipped step stays skipped when another step fails. Nothing records that: each plan evaluates ``when`` again.
    """
    conditional = step.when is not None and not step.when_per_item
    if failing and (not conditional or any(_bars(context, name) for name in step.spec.depends_on)):
        return Standing(StepState.CANCELLED, NO_FACT)
    if not all(context.groups[name].final for name in step.spec.depends_on):
        return Standing(StepState.PENDING, NO_FACT, Reason.PENDING)
    if step.when is not None and not step.when_per_item:
        try:
            wanted = context.holds(step.when)
        except TooMuchWork as why:
            if not failing:
                return context.unaffordable(step, f"when {why}")
        except ExpressionError as error:
            if not failing:
                return context.settle_failed(step.name, FailureInfo(FailureClass.INVALID, f"when: {error}"))
        else:
            if not wanted:
                return Standing(StepState.SKIPPED, NO_FACT)
    return Standing(StepState.CANCELLED, NO_FACT) if failing else None
