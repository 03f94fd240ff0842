"""Begins attempts: divides the budget among them, and refers each one to the outputs that it needs of other steps."""

from __future__ import annotations

from agentrun.api.facts import REFUSED_MAX, Allowance
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason, StepState
from agentrun.plan import budget
from agentrun.plan.attempts import time_left
from agentrun.plan.context import PlanContext
from agentrun.plan.snapshot import Ref, Start
from agentrun.workflow.program import CompiledStep


def start_candidates(context: PlanContext) -> None:
    """Turn the candidates into ``Start`` effects, each with its part of the budget."""
    at_work = {key: execution for key, execution in context.at_work.items() if execution.attempt}  # 0: no pod yet
    # Usage of a running first attempt is inside its allowance, if that is known, so it is not subtracted twice. Of a
    # later attempt the journal does not tell how much of the step's usage is its own.
    first = {key for key, e in at_work.items() if e.attempt == 1 and e.allowance != Allowance()}
    rest = budget.free(
        context.s.budget,
        (fact.usage for key, fact in context.s.facts.items() if key not in first),
        (execution.allowance for execution in at_work.values()),
    )
    alone = rest.last
    refused = sorted({word for fact in context.s.facts.values() for word in fact.refused}) if context.candidates else []
    for number, (key, standing) in enumerate(context.candidates):
        if standing.fact.needs_budget:
            # Its share was too small: it waits until no other attempt holds a part, and then gets all of the budget.
            if not alone:
                standing.state = StepState.WAITING
                standing.waiting_for = {"budget": "until the running attempts have ended"}
                continue
            allowance = rest
        else:
            allowance = budget.share(rest, len(context.candidates) - number)
        rest, alone = budget.less(rest, allowance), False
        step = context.program.step(key.name)
        standing.state, standing.reason = StepState.RUNNING, Reason.RUNNING
        group = context.groups[key.name]
        if not group.final:
            group.whole.state = StepState.RUNNING  # a fan-out whose items were pending when it was evaluated
        context.effects.append(
            Start(
                key,
                standing.fact.attempt + context.s.unopened.get(key, 0) + 1,
                _refs(context, step, key),
                standing.events,
                allowance,
                time_left(standing.fact, step.timeout),
                context.s.now,
                str(context.outcome or "Running"),
                standing.drain,
                _refused(step, key, refused),
            )
        )


def _refused(step: CompiledStep, key: StepKey, words: list[str]) -> tuple[str, ...]:
    """What the endpoint of the step's model is known to refuse."""
    if not words or key.compensate or step.model is None:
        return ()
    return tuple(word for word in words if word.startswith(f"{step.model.name}/"))[:REFUSED_MAX]


def _refs(context: PlanContext, step: CompiledStep, key: StepKey) -> dict[str, Ref]:
    refs: dict[str, Ref] = {}
    for name in step.needs_to_undo if key.compensate else step.needs:
        group = context.groups[name]
        if name == key.name:
            own = group.members[StepKey(key.name, key.index)]
            refs[name] = Ref(str(own.state), seq=own.fact.seq or None, event=own.event)
        else:
            whole = group.whole
            refs[name] = Ref(str(whole.state), whole.fact.seq if whole.event is None else None, whole.event)
            if whole.state not in (StepState.SUCCEEDED, StepState.FAILED) and whole.event is None:
                refs[name] = Ref(str(whole.state))
    return refs
