"""A fan-out: a step that runs once for each element of a list, ``maxParallel`` at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrun.api.facts import FailureInfo
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason, StepState
from agentrun.api.workflow import MAX_ITEMS, FailureClass
from agentrun.expressions.diagnostics import kind
from agentrun.expressions.templates import ExpressionError
from agentrun.plan.attempts import Standing
from agentrun.plan.context import NO_FACT, PlanContext
from agentrun.plan.groups import Group
from agentrun.plan.output_bounds import is_left_out
from agentrun.plan.snapshot import Append
from agentrun.plan.work_budget import TooMuchWork
from agentrun.records.run_events import EventKind, SettledBody
from agentrun.workflow.program import CompiledStep

ITEMS_MAX = 50_000
"""Items of all fan-outs of a run together. Each plan evaluates every one of them."""

_ITEM = 1_000
"""Units of evaluating an item: about 5 µs."""


def fan_out(context: PlanContext, step: CompiledStep, failing: bool, stop: bool) -> Group:
    """Evaluate a step with ``forEach``: which items begin, and whether all of them are over."""
    assert step.items is not None and step.spec.for_each is not None
    try:
        items = context.render(step.items, shared=step.items.is_path, owed=step.name in context.begun)
    except TooMuchWork as why:
        return Group.of(step.name, StepKey(step.name), context.unaffordable(step, f"forEach.items {why}"))
    except ExpressionError as error:
        return _failed(context, step, FailureInfo(FailureClass.INVALID, f"forEach.items: {error}"))
    if not isinstance(items, list):
        return _failed(context, step, FailureInfo(FailureClass.INVALID, f"forEach.items is {kind(items)}, not a list"))
    if len(items) > MAX_ITEMS:
        message = f"forEach.items has {len(items)} elements; at most {MAX_ITEMS} are possible"
        return _failed(context, step, FailureInfo(FailureClass.INVALID, message))
    context.items += len(items)
    if context.items > ITEMS_MAX and step.name not in context.begun:
        message = f"the run's forEach steps have more than {ITEMS_MAX} items together: divide it into several runs"
        return _failed(context, step, FailureInfo(FailureClass.INVALID, message))
    context.work.tick(_ITEM * len(items))
    members = {key: context.attempt(key, step) for key in (StepKey(step.name, i) for i in range(len(items)))}
    failed = any(m.state is StepState.FAILED for m in members.values()) and not step.spec.continue_on_error
    running = sum(1 for key in members if key in context.at_work)
    basis = context.basis(step.items) + (context.basis(step.when) if step.when is not None else ())
    for (key, standing), item in zip(members.items(), items, strict=True):
        if standing.state.final:
            continue
        room = running < step.spec.for_each.max_parallel
        # Evaluate ``when`` only if the item could begin: for a thousand items it would take 30 ms in each plan.
        if room and step.when_per_item and key not in context.s.facts and key not in context.s.executions:
            refused = _refused_item(context, step, key, item, basis, failing or failed or stop)
            if refused is not None:
                members[key] = refused
                failed = failed or (refused.state is StepState.FAILED and not step.spec.continue_on_error)
                continue
        before = len(context.candidates)
        context.consider(
            key, standing, may_start=room and not (failing or failed or stop), stop=stop, ending=failing or failed
        )
        running += len(context.candidates) - before
    group = Group.fan(step.name, members, context.s.now)
    if group.final:
        _settle(context, step, group, len(items))
    return group


def _refused_item(
    context: PlanContext, step: CompiledStep, key: StepKey, item: Any, basis: Sequence[object], ending: bool
) -> Standing | None:
    """The standing of an item whose ``when`` is false or cannot be evaluated; None: the item may begin.

    ``basis``: what the items and ``when`` were computed from. Together with the key it identifies the item: steps may
    share a condition, but not the items that it is evaluated for.
    """
    when = step.when
    assert when is not None
    more = {"item": item, "index": key.index}
    try:
        wanted = context.work.once((when, key), basis, lambda: when.evaluate(context.values(when, more)))
    except ExpressionError as error:
        failure = FailureInfo(FailureClass.INVALID, f"when: {error}")
        return Standing(StepState.FAILED, NO_FACT, failure=failure)
    except TooMuchWork as why:
        if ending:
            return Standing(StepState.CANCELLED, NO_FACT)
        if step.name in context.program.finally_:
            return Standing(StepState.FAILED, NO_FACT, failure=FailureInfo(FailureClass.INVALID, f"when {why}"))
        return Standing(StepState.WAITING, NO_FACT, Reason.TOO_MUCH_WORK, {"work": f"when {why}"}, person=True)
    return None if wanted else Standing(StepState.SKIPPED, NO_FACT)


def _settle(context: PlanContext, step: CompiledStep, group: Group, items: int) -> None:
    body: SettledBody = {"step": step.name, "state": str(group.state), "items": items}
    dropped = any(is_left_out(standing.fact) for standing in group.members.values())
    body["output"] = None if dropped else [standing.output for standing in group.members.values()]
    body["states"] = states = dict[str, list[int]]()
    for key, standing in group.members.items():
        if standing.fact.outcome is None and key.index is not None:  # no journal of its own says so
            states.setdefault(str(standing.state), []).append(key.index)
    if group.whole.failure is not None:
        body["failure"] = group.whole.failure.to_json()
    context.effects.append(Append(EventKind.SETTLED, body))
    # The step is not final before the event is recorded: the steps that depend on it refer to the event.
    group.whole.state = StepState.RUNNING


def _failed(context: PlanContext, step: CompiledStep, failure: FailureInfo) -> Group:
    return Group.of(step.name, StepKey(step.name), context.settle_failed(step.name, failure))
