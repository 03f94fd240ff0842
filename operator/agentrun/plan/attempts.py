"""The standing of one step, item or compensation that runs in a process or pod, and whether another attempt begins.

``stand`` reads as a table: from the last record of the journal to what happens next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from agentrun.api.facts import ApprovalRequest, AttemptEnd, FailureInfo, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason, StepState
from agentrun.api.workflow import FailureClass, Retry
from agentrun.plan.events import EventIndex
from agentrun.plan.retry import LOSSES_MAX, loss_delay, loss_is_final, retry_delay
from agentrun.plan.snapshot import Snapshot
from agentrun.records.waits import WaitingFor
from agentrun.workflow.program import CompiledStep

STOP_GRACE = 15.0
"""Seconds beyond its timeout after which an attempt that did not end by itself is stopped."""


@dataclass(slots=True)
class Standing:
    """How one key stands now. ``begin``: it needs an attempt. ``wake_at``: when to plan again."""

    state: StepState
    fact: StepFact
    reason: Reason | None = None
    waiting_for: WaitingFor | None = None
    output: Any = None
    failure: FailureInfo | None = None
    event: int | None = None
    """Number of the event that settled it, if its own journal holds no outcome."""
    finished: float | None = None
    begin: bool = False
    events: tuple[int, ...] = ()
    drain: bool = False
    settling: bool = False
    """This plan records its end."""
    stop: bool = False
    wake_at: float | None = None
    person: bool = False
    """It waits for a person's verb."""
    asks: tuple[ApprovalRequest, ...] = ()
    """The open questions that it waits for."""


def stand(key: StepKey, fact: StepFact, step: CompiledStep, known: Snapshot, events: EventIndex) -> Standing:
    """The standing of ``key`` by its journal (``fact``), by its process or pod and what else the driver knows
    (``known``), and by the run's events.
    """
    if fact.outcome is not None:
        return Standing(fact.outcome, fact, output=fact.output, failure=fact.failure, finished=fact.at)
    execution, now = known.executions.get(key), known.now
    if execution is not None and execution.pending:
        if execution.trouble is None:
            return Standing(StepState.RUNNING, fact, Reason.RUNNING)
        reason, what = execution.trouble
        return Standing(StepState.PENDING, fact, reason, {"place": what} if reason is Reason.QUEUED else {"pod": what})
    if execution is not None:
        overdue = execution.started + time_left(fact, step.timeout) + STOP_GRACE
        late = now >= overdue
        wake = None if late else overdue
        if execution.trouble is not None:
            reason, what = execution.trouble
            return Standing(StepState.RUNNING, fact, reason, {"pod": what}, stop=late, wake_at=wake)
        return Standing(StepState.RUNNING, fact, Reason.RUNNING, stop=late, wake_at=wake)
    match fact.end:
        case AttemptEnd.WAITING:
            standing = _waiting(key, fact, events, now)
        case AttemptEnd.FAILED:
            assert fact.failure is not None
            due = fact.at + retry_delay(step.retry, fact.failures, fact.failure.retry_after)
            standing = Standing(StepState.PENDING, fact, Reason.RETRYING, begin=True)
            if now < due:
                waiting: WaitingFor = {"retry": due, "because": fact.failure.message}
                standing = Standing(
                    StepState.WAITING, fact, Reason.RETRYING, waiting, wake_at=due, failure=fact.failure
                )
        case AttemptEnd.CLOSED | None:  # CLOSED has an outcome, and was returned above
            standing = Standing(StepState.PENDING, fact, Reason.PENDING, begin=True)
        case unreachable:
            assert_never(unreachable)
    if standing.begin:
        # Whatever the next attempt is for, lost attempts delay it and are bounded in number.
        losses = known.unopened.get(key, 0) + (fact.losses + 1 if fact.attempt and fact.end is None else 0)
        if losses:
            return _held_back(key, fact, losses, step.retry, known, events) or standing
    return standing


def time_left(fact: StepFact, timeout: float) -> float:
    """Seconds that the step's next attempt has. An attempt that follows a person's answer has the whole timeout:
    otherwise a "try again", after a call that used up the step's time, would be over before it began.
    """
    return timeout if fact.unknown is not None or fact.again else max(0.0, timeout - fact.active)


def _held_back(
    key: StepKey, fact: StepFact, losses: int, retry: Retry, known: Snapshot, events: EventIndex
) -> Standing | None:
    """Why no attempt follows a lost one (killed, evicted, out of memory) yet; None: one may begin. ``losses``: how many
    attempts in a row were lost.
    """
    last = fact.attempt + known.unopened.get(key, 0)
    lost_at = max(fact.at, known.lost_at.get(key, 0.0))
    trouble = known.troubles.get(key)
    final = loss_is_final(retry, losses)
    why = f": {trouble[1]}" if trouble else ""
    if final and fact.unknown is None:
        failure = FailureInfo(FailureClass.INFRASTRUCTURE, f"{losses} attempts in a row were lost{why}")
        return Standing(StepState.FAILED, fact, failure=failure, finished=lost_at)
    parked = final or (losses > LOSSES_MAX and FailureClass.INFRASTRUCTURE not in retry.classes)
    if parked and not events.resumed_after(key, last, lost_at):
        waiting: WaitingFor = {"resume": f"{losses} attempts in a row were lost{why}; see its log, then resume"}
        return Standing(StepState.WAITING, fact, Reason.ATTEMPTS_LOST, waiting, person=True)
    due = lost_at + (0.0 if parked else loss_delay(losses - 1))
    if known.now >= due:
        return None
    waiting = {"retry": due, "because": f"the previous attempt was lost{why}"}
    reason = trouble[0] if trouble else Reason.RETRYING
    return Standing(StepState.WAITING, fact, reason, waiting, wake_at=due)


def _waiting(key: StepKey, fact: StepFact, events: EventIndex, now: float) -> Standing:
    """The standing of a step whose last attempt ended in order to wait for something."""
    if fact.unknown is not None:
        answer = events.resolution(key, fact)
        if answer is None:
            waiting: WaitingFor = {
                "resolve": fact.unknown.message,
                "tool": fact.unknown.tool,
                "callId": fact.unknown.call_id,
            }
            return Standing(StepState.OUTCOME_UNKNOWN, fact, Reason.OUTCOME_UNKNOWN, waiting, person=True)
        return Standing(StepState.PENDING, fact, begin=True, events=(answer.seq,))
    if fact.approvals:
        tallies = [events.tally(request, now) for request in fact.approvals]
        open_ = [r for r, t in zip(fact.approvals, tallies, strict=True) if t.state == "Pending"]
        if open_:
            asked: WaitingFor = {"approval": key.label, "subjects": [r.subject for r in open_]}
            wake = min(r.expires_at for r in open_)
            return Standing(
                StepState.WAITING, fact, Reason.AWAITING_APPROVAL, asked, wake_at=wake, person=True, asks=tuple(open_)
            )
        seqs = tuple(sorted({seq for t in tallies for seq in t.events}))
        return Standing(StepState.PENDING, fact, begin=True, events=seqs)
    return Standing(StepState.PENDING, fact, begin=True)
