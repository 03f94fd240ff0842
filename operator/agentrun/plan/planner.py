"""``plan(snapshot) -> Plan``: all control flow of a run, without I/O, clock or randomness.

The planner is level-triggered: it reads the current state, never a change, so a notification that is lost, doubled or
late has no effect. A run goes through three graphs, one after the other: the steps; if the run fails or is cancelled,
the compensations of the steps that took effect, last first; and ``finally``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentrun.api.facts import AttemptEnd, FailureInfo, StepFact, StepKey, Usage
from agentrun.api.run import Outcome, Reason, StepState
from agentrun.api.workflow import FailureClass
from agentrun.expressions.templates import ExpressionError
from agentrun.plan import outputs
from agentrun.plan.effects import took_effect
from agentrun.plan.groups import Group
from agentrun.plan.planning import Planning
from agentrun.plan.snapshot import Append, Ask, Event, Plan, Snapshot
from agentrun.plan.starting import start_candidates
from agentrun.plan.status import run_status
from agentrun.plan.steps import look, settled
from agentrun.plan.work import MoreWork, TooMuchWork, Work
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
    p = Planning(snapshot, work)
    if (ended := p.events.ended) is not None:
        return _ended(p, ended)
    timed_out = p.events.timed_out or _times_out(p)
    cancelled = p.events.cancelled is not None and not _too_late(p, p.events.cancelled)
    too_much = _gave_too_much(p)
    interrupt = cancelled or timed_out or too_much is not None
    look(p, p.program.steps, ending=interrupt, stop=interrupt or p.suspended)
    failed = _first_failure(p, p.program.steps)
    if timed_out and failed is None:
        message = f"the run was active for longer than its timeout of {p.s.timeout:.0f} s"
        failed = ("", FailureInfo(FailureClass.TIMEOUT, message))
    if too_much is not None and failed is None:
        failed = ("", too_much)
    p.failure = failed
    ending = interrupt or failed is not None
    if all(p.groups[name].final for name in p.program.steps):
        p.outcome = Outcome.CANCELLED if cancelled else Outcome.FAILED if ending else Outcome.SUCCEEDED
        if not ending or _compensate(p):
            _last(p)
    elif ending:
        p.phase = Reason.CANCELLING if cancelled else Reason.RUNNING
    start_candidates(p)
    work.end()
    return _answer(p)


def _last(p: Planning) -> None:
    """The ``finally`` steps, then the end."""
    look(p, p.program.finally_, ending=False, stop=p.suspended, apart=True)
    if not all(p.groups[name].final for name in p.program.finally_):
        return
    late = _first_failure(p, p.program.finally_)
    if late is not None and p.outcome is Outcome.SUCCEEDED:
        p.outcome, p.failure = Outcome.FAILED, late
    if p.outcome is Outcome.SUCCEEDED and (too_much := outputs.too_much(p.s.facts.values())) is not None:
        p.outcome, p.failure = Outcome.FAILED, ("", too_much)
    output = None
    if p.outcome is Outcome.SUCCEEDED and p.program.output is not None:
        try:
            output = p.render(p.program.output)
        except (ExpressionError, TooMuchWork) as error:
            p.outcome = Outcome.FAILED
            p.failure = ("", FailureInfo(FailureClass.INVALID, f"output: {error}"))
    _end(p, output)


def _end(p: Planning, output: Any) -> None:
    body: EndedBody = {
        "outcome": str(p.outcome),
        "output": output,
        "usage": Usage.total(fact.usage for fact in p.s.facts.values()).to_json(),
        "steps": {name: str(group.state) for name, group in p.groups.items()},
        "compensations": {key.label: str(s.state) for key, s in p.undone.items()},
        "heads": {key.path: [fact.seq, fact.head] for key, fact in sorted(p.s.facts.items(), key=_by_path)},
    }
    if p.failure is not None and p.outcome is not Outcome.SUCCEEDED:
        step, why = p.failure
        body["failure"] = why.to_json()
        if step:
            body["failedStep"] = step
    if stays := p.not_undone:
        body["notUndone"] = {label: why[:_WHY_MAX] for label, why in stays[:_STAYS_MAX]}
    p.effects.append(Append(EventKind.ENDED, body))


def _times_out(p: Planning) -> bool:
    """Whether the run's time is over now. If so, record it: the active time that is known may shrink again, when an
    attempt leaves no last word, or when another driver reads the instants with another clock.
    """
    if p.s.timeout is None or (not p.begun.isdisjoint(p.program.finally_) and _all_over(p)):
        return False  # steps of ``finally`` have already read how the steps ended
    # Count the steps alone: otherwise a run whose steps succeeded could time out in its ``finally``.
    running = [e for key, e in p.at_work.items() if _is_main(p, key) and not e.pending and not e.drain]
    spans = [span for key, fact in p.s.facts.items() if _is_main(p, key) for span in fact.intervals]
    active = _union([*spans, *((e.started, p.s.now) for e in running)])
    if active >= p.s.timeout:
        body: TimedOutBody = {"active": round(active, 3)}
        p.effects.append(Append(EventKind.TIMED_OUT, body))
        return True
    if running:
        p.wakes.append(p.s.now + p.s.timeout - active)
    return False


def _gave_too_much(p: Planning) -> FailureInfo | None:
    """Why the run fails because the outputs of its steps are too large; None: they are not. Counts the steps alone."""
    if outputs.too_much(p.s.facts.values()) is None:
        return None  # this check costs a third of the next one
    return outputs.too_much(fact for key, fact in p.s.facts.items() if _is_main(p, key))


def _all_over(p: Planning) -> bool:
    """Whether each step has a recorded end or never began. False if the steps were ended because the run's time was
    over and no event says so, as in the first journals.
    """
    names = p.program.steps.keys() & p.begun
    return all(name in p.events.settled or p.fact(StepKey(name)).outcome is not None for name in names)


def _is_main(p: Planning, key: StepKey) -> bool:
    return key.name in p.program.steps and not key.compensate


def _compensate(p: Planning) -> bool:
    """Undo the steps that took effect, one at a time, last first. Return whether all compensations are over."""
    ends, begun = _ends(p), {*p.s.facts, *p.s.executions, *p.s.unopened}
    done = [
        (
            StepKey(key.name, key.index, compensate=True) in begun,  # goes on first, even if clocks were set since
            max(standing.finished or 0.0, ends[step.name]),
            place,
            key.index or 0,
            key,
            step,
        )
        for place, step in enumerate(p.program.steps.values())
        if step.spec.compensate is not None
        for key, standing in p.groups[step.name].members.items()
        if standing.state is StepState.SUCCEEDED or took_effect(step, standing)
    ]
    for *_, key, step in sorted(done, key=lambda entry: entry[:4], reverse=True):
        undo = StepKey(key.name, key.index, compensate=True)
        standing = p.attempt(undo, step)
        p.undone[undo] = standing
        if not standing.state.final:
            p.phase = Reason.COMPENSATING
            p.consider(undo, standing, may_start=not p.suspended, stop=p.suspended)
            return False
    return True


def _ends(p: Planning) -> dict[str, float]:
    """By step: when its last dependency ended. The step itself ended no earlier, even if its node's clock says so."""
    ends: dict[str, float] = {}
    for name, step in p.program.steps.items():
        before = [max(ends[other], p.groups[other].whole.finished or 0.0) for other in step.spec.depends_on]
        ends[name] = max(before, default=0.0)
    return ends


def _first_failure(p: Planning, steps: Mapping[str, CompiledStep]) -> tuple[str, FailureInfo] | None:
    failed = [
        (group.whole.finished or 0.0, name, group.whole.failure)
        for name, group in ((name, p.groups[name]) for name, s in steps.items() if not s.spec.continue_on_error)
        if group.state is StepState.FAILED
    ]
    if not failed:
        return None
    _, name, failure = min(failed, key=lambda entry: entry[:2])
    return name, failure or FailureInfo(FailureClass.UNKNOWN, "it failed without saying why")


def _answer(p: Planning) -> Plan:
    members = [item for group in p.groups.values() for item in group.members.items()]
    still = [item for item in [*members, *p.undone.items()] if not item[1].state.final]
    people = any(standing.person for _, standing in still)
    by_time = any(standing.wake_at is not None and not standing.person for _, standing in still)  # a retry, a timer
    idle = not p.effects and not p.s.executions
    timers = [t for t in p.wakes if t > p.s.now]
    soonest = min(timers, default=None)
    stuck = idle and (p.suspended or (people and not by_time))
    # A question whose wait is over (a failure elsewhere, a cancellation) is not open.
    asks = tuple([Ask(key, s.fact.attempt, request) for key, s in still if s.asks for request in s.asks])
    return Plan(tuple(p.effects), run_status(p), soonest, waits_for_person=stuck, asks=asks, dropped=_dropped(p))


def _dropped(p: Planning) -> frozenset[str]:
    """Digests of questions about calls of steps that were cancelled before an attempt read the decisions."""
    return frozenset(
        request.digest
        for group in p.groups.values()
        for standing in group.members.values()
        if standing.state is StepState.CANCELLED and standing.fact.end is AttemptEnd.WAITING
        for request in standing.fact.approvals
    )


def _ended(p: Planning, event: Event) -> Plan:
    """A terminal run never changes: show it as it ended."""
    p.outcome = Outcome(event.body["outcome"])
    if "failure" in event.body:
        p.failure = (event.body.get("failedStep", ""), FailureInfo.from_json(event.body["failure"]))
    for step in (*p.program.steps.values(), *p.program.finally_.values()):
        state = StepState(event.body["steps"].get(step.name, StepState.CANCELLED))
        key = StepKey(step.name)
        group = settled(p, step) or Group.of(step.name, key, p.over(key, state))
        group.whole.state = state
        p.groups[step.name] = group
    for label, state in event.body["compensations"].items():
        key = StepKey.parse(label)
        p.undone[key] = p.over(key, StepState(state))
    return Plan((), run_status(p), None, ended=True, dropped=_dropped(p))


def _too_late(p: Planning, cancelled: Event) -> bool:
    """Whether a step of ``finally`` had begun, and so had read the run's outcome, before the run was cancelled.

    On a cluster, where instants come from several clocks, the event itself says so (``late``).
    """
    if "late" in cancelled.body:
        return bool(cancelled.body["late"])
    last = p.program.finally_
    begun = [fact.started for key, fact in p.s.facts.items() if key.name in last and fact.started]
    begun += [e.started for key, e in p.s.executions.items() if key.name in last]
    begun += [e.at for name, events in p.events.beginnings.items() if name in last for e in events]
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
