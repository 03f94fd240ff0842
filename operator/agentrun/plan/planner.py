"""``plan(snapshot) -> Plan``: all control flow of a run, without I/O, clock or randomness.

The planner is level-triggered: it reads the current state, never a change, so a notification that is lost, doubled or
late has no effect. A run goes through three graphs, one after the other: the steps; if the run fails or is cancelled,
the compensations of the steps that took effect, last first; and ``finally``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentrun.api.facts import AttemptEnd, FailureInfo, StepFact, Usage
from agentrun.api.keys import StepKey
from agentrun.api.run import Outcome, Reason, StepState
from agentrun.api.workflow import FailureClass
from agentrun.expressions.templates import ExpressionError
from agentrun.plan import output_bounds
from agentrun.plan.context import PlanContext
from agentrun.plan.dispatch import start_candidates
from agentrun.plan.effects import took_effect
from agentrun.plan.graph_state import look, settled
from agentrun.plan.groups import Group
from agentrun.plan.snapshot import Append, Ask, Event, Plan, Snapshot
from agentrun.plan.status import run_status
from agentrun.plan.work_budget import MoreWork, TooMuchWork, Work
from agentrun.records.run_events import EndedBody, EventKind, TimedOutBody
from agentrun.workflow.program import CompiledStep

_STAYS_MAX, _WHY_MAX = 100, 500
"""The event ``ended`` names at most this many steps that were not undone, with this many characters of each reason."""


def plan(snapshot: Snapshot, work: Work | None = None) -> Plan:
    """Return what to do now. Carrying it out and planning again leads to the run's end, or to a wait that can end.

    ``work`` holds what this run's plans have evaluated so far, and this plan adds to it. None: start without any, and
    keep nothing.
    """
    work = work if work is not None else Work()
    work.begin(float("inf"), strict=False)
    return _plan(snapshot, work)


def plan_slice(snapshot: Snapshot, work: Work, units: int, *, strict: bool = False) -> Plan | None:
    """As ``plan``, but return None after about ``units`` of work. The next slice goes on from there.

    An evaluation is never divided. Each slice makes at least one evaluation, unless ``strict``.
    """
    work.begin(units, strict=strict)
    try:
        return _plan(snapshot, work)
    except MoreWork:
        return None


def _plan(snapshot: Snapshot, work: Work) -> Plan:
    context = PlanContext(snapshot, work)
    if (ended := context.events.ended) is not None:
        return _ended(context, ended)
    timed_out = context.events.timed_out or _times_out(context)
    cancelled = context.events.cancelled is not None and not _too_late(context, context.events.cancelled)
    too_much = _gave_too_much(context)
    interrupt = cancelled or timed_out or too_much is not None
    look(context, context.program.steps, ending=interrupt, stop=interrupt or context.suspended)
    failed = _first_failure(context, context.program.steps)
    if timed_out and failed is None:
        message = f"the run was active for longer than its timeout of {context.s.timeout:.0f} s"
        failed = ("", FailureInfo(FailureClass.TIMEOUT, message))
    if too_much is not None and failed is None:
        failed = ("", too_much)
    context.failure = failed
    ending = interrupt or failed is not None
    if all(context.groups[name].final for name in context.program.steps):
        context.outcome = Outcome.CANCELLED if cancelled else Outcome.FAILED if ending else Outcome.SUCCEEDED
        if _compensate(context, every=ending):
            _last(context)
    elif ending:
        context.phase = Reason.CANCELLING if cancelled else Reason.RUNNING
    start_candidates(context)
    work.end()
    return _answer(context)


def _last(context: PlanContext) -> None:
    """The ``finally`` steps, then the end."""
    look(context, context.program.finally_, ending=False, stop=context.suspended, apart=True)
    if not all(context.groups[name].final for name in context.program.finally_):
        return
    late = _first_failure(context, context.program.finally_)
    if late is not None and context.outcome is Outcome.SUCCEEDED:
        context.outcome, context.failure = Outcome.FAILED, late
    if (
        context.outcome is Outcome.SUCCEEDED
        and (too_much := output_bounds.too_much(context.s.facts.values())) is not None
    ):
        context.outcome, context.failure = Outcome.FAILED, ("", too_much)
    output = None
    if context.outcome is Outcome.SUCCEEDED and context.program.output is not None:
        try:
            output = context.render(context.program.output)
        except (ExpressionError, TooMuchWork) as error:
            context.outcome = Outcome.FAILED
            context.failure = ("", FailureInfo(FailureClass.INVALID, f"output: {error}"))
    _end(context, output)


def _end(context: PlanContext, output: Any) -> None:
    body: EndedBody = {
        "outcome": str(context.outcome),
        "output": output,
        "usage": Usage.total(fact.usage for fact in context.s.facts.values()).to_json(),
        "steps": {name: str(group.state) for name, group in context.groups.items()},
        "compensations": {key.label: str(s.state) for key, s in context.undone.items()},
        "heads": {key.path: [fact.seq, fact.head] for key, fact in sorted(context.s.facts.items(), key=_by_path)},
    }
    if context.failure is not None and context.outcome is not Outcome.SUCCEEDED:
        step, why = context.failure
        body["failure"] = why.to_json()
        if step:
            body["failedStep"] = step
    if stays := context.not_undone:
        body["notUndone"] = {label: why[:_WHY_MAX] for label, why in stays[:_STAYS_MAX]}
    context.effects.append(Append(EventKind.ENDED, body))


def _times_out(context: PlanContext) -> bool:
    """Whether the run's time is over now. If so, record it: the active time that is known may shrink again, when an
    attempt leaves no last word, or when another driver reads the instants with another clock.
    """
    if context.s.timeout is None or (not context.begun.isdisjoint(context.program.finally_) and _all_over(context)):
        return False  # steps of ``finally`` have already read how the steps ended
    # Count the steps alone: otherwise a run whose steps succeeded could time out in its ``finally``.
    running = [e for key, e in context.at_work.items() if _is_main(context, key) and not e.pending and not e.drain]
    spans = [span for key, fact in context.s.facts.items() if _is_main(context, key) for span in fact.intervals]
    active = _union([*spans, *((e.started, context.s.now) for e in running)])
    if active >= context.s.timeout:
        body: TimedOutBody = {"active": round(active, 3)}
        context.effects.append(Append(EventKind.TIMED_OUT, body))
        return True
    if running:
        context.wakes.append(context.s.now + context.s.timeout - active)
    return False


def _gave_too_much(context: PlanContext) -> FailureInfo | None:
    """Why the run fails because the outputs of its steps are too large; None: they are not. Counts the steps alone."""
    if output_bounds.too_much(context.s.facts.values()) is None:
        return None  # this check costs a third of the next one
    return output_bounds.too_much(fact for key, fact in context.s.facts.items() if _is_main(context, key))


def _all_over(context: PlanContext) -> bool:
    """Whether each step has a recorded end or never began. False if the steps were ended because the run's time was
    over and no event says so, as in the first journals.
    """
    names = context.program.steps.keys() & context.begun
    return all(name in context.events.settled or context.fact(StepKey(name)).outcome is not None for name in names)


def _is_main(context: PlanContext, key: StepKey) -> bool:
    return key.name in context.program.steps and not key.compensate


def _compensate(context: PlanContext, *, every: bool) -> bool:
    """Undo the steps that took effect, one at a time, last first. Return whether all compensations are over.

    ``every``: also those that succeeded. A run that succeeds undoes only the calls of the steps that failed (with
    ``continueOnError``) although their call was carried out.
    """
    to_undo = [
        (place, key, standing, step)
        for place, step in enumerate(context.program.steps.values())
        if step.spec.compensate is not None
        for key, standing in context.groups[step.name].members.items()
        if (every and standing.state is StepState.SUCCEEDED) or took_effect(step, standing)
    ]
    if not to_undo:
        return True
    ends, begun = _ends(context), {*context.s.facts, *context.s.executions, *context.s.unopened}
    done = [
        (
            StepKey(key.name, key.index, compensate=True) in begun,  # goes on first, even if clocks were set since
            max(standing.finished or 0.0, ends[step.name]),
            place,
            key.index or 0,
            key,
            step,
        )
        for place, key, standing, step in to_undo
    ]
    for *_, key, step in sorted(done, key=lambda entry: entry[:4], reverse=True):
        undo = StepKey(key.name, key.index, compensate=True)
        standing = context.attempt(undo, step)
        context.undone[undo] = standing
        if not standing.state.final:
            context.phase = Reason.COMPENSATING
            context.consider(undo, standing, may_start=not context.suspended, stop=context.suspended)
            return False
    return True


def _ends(context: PlanContext) -> dict[str, float]:
    """By step: when its last dependency ended. The step itself ended no earlier, even if its node's clock says so."""
    ends: dict[str, float] = {}
    for name, step in context.program.steps.items():
        before = [max(ends[other], context.groups[other].whole.finished or 0.0) for other in step.spec.depends_on]
        ends[name] = max(before, default=0.0)
    return ends


def _first_failure(context: PlanContext, steps: Mapping[str, CompiledStep]) -> tuple[str, FailureInfo] | None:
    failed = [
        (group.whole.finished or 0.0, name, group.whole.failure)
        for name, group in ((name, context.groups[name]) for name, s in steps.items() if not s.spec.continue_on_error)
        if group.state is StepState.FAILED
    ]
    if not failed:
        return None
    _, name, failure = min(failed, key=lambda entry: entry[:2])
    return name, failure or FailureInfo(FailureClass.UNKNOWN, "it failed without saying why")


def _answer(context: PlanContext) -> Plan:
    members = [item for group in context.groups.values() for item in group.members.items()]
    still = [item for item in [*members, *context.undone.items()] if not item[1].state.final]
    people = any(standing.person for _, standing in still)
    by_time = any(standing.wake_at is not None and not standing.person for _, standing in still)  # a retry, a timer
    idle = not context.effects and not context.s.executions
    timers = [t for t in context.wakes if t > context.s.now]
    soonest = min(timers, default=None)
    stuck = idle and (context.suspended or (people and not by_time))
    # A question whose wait is over (a failure elsewhere, a cancellation) is not open.
    asks = tuple([Ask(key, s.fact.attempt, request) for key, s in still if s.asks for request in s.asks])
    return Plan(
        tuple(context.effects),
        run_status(context),
        soonest,
        waits_for_person=stuck,
        asks=asks,
        dropped=_dropped(context),
    )


def _dropped(context: PlanContext) -> frozenset[str]:
    """Digests of questions about calls of steps that were cancelled before an attempt read the decisions."""
    return frozenset(
        request.digest
        for group in context.groups.values()
        for standing in group.members.values()
        if standing.state is StepState.CANCELLED and standing.fact.end is AttemptEnd.WAITING
        for request in standing.fact.approvals
    )


def _ended(context: PlanContext, event: Event) -> Plan:
    """A terminal run never changes: show it as it ended."""
    context.outcome = Outcome(event.body["outcome"])
    if "failure" in event.body:
        context.failure = (event.body.get("failedStep", ""), FailureInfo.from_json(event.body["failure"]))
    for step in (*context.program.steps.values(), *context.program.finally_.values()):
        state = StepState(event.body["steps"].get(step.name, StepState.CANCELLED))
        key = StepKey(step.name)
        group = settled(context, step) or Group.of(step.name, key, context.over(key, state))
        group.whole.state = state
        context.groups[step.name] = group
    for label, state in event.body["compensations"].items():
        key = StepKey.parse(label)
        context.undone[key] = context.over(key, StepState(state))
    return Plan((), run_status(context), None, ended=True, dropped=_dropped(context))


def _too_late(context: PlanContext, cancelled: Event) -> bool:
    """Whether a step of ``finally`` had begun, and so had read the run's outcome, before the run was cancelled.

    On a cluster, where instants come from several clocks, the event itself says so (``late``).
    """
    if "late" in cancelled.body:
        return bool(cancelled.body["late"])
    last = context.program.finally_
    begun = [fact.started for key, fact in context.s.facts.items() if key.name in last and fact.started]
    begun += [e.started for key, e in context.s.executions.items() if key.name in last]
    begun += [e.at for name, events in context.events.beginnings.items() if name in last for e in events]
    return any(started < cancelled.at for started in begun)


def _union(spans: list[tuple[float, float]]) -> float:
    """The length of the union of ``spans``."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _by_path(entry: tuple[StepKey, StepFact]) -> str:
    return entry[0].path
