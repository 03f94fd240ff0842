"""Steps without a process: questions to people, and waits for a time or a signal. Only events record them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentrun.api.canonical import digest_of, moment
from agentrun.api.facts import ApprovalRequest, FailureInfo, StepFact
from agentrun.api.run import Reason, StepState
from agentrun.api.values import DELAY_MAX, pause, seconds
from agentrun.api.workflow import ApprovalStep, FailureClass, Wait
from agentrun.expressions.templates import ExpressionError
from agentrun.plan.attempts import Standing
from agentrun.plan.snapshot import Append, Event
from agentrun.plan.work_budget import TooMuchWork
from agentrun.records.run_events import ApprovalRequestedBody, EventKind, SettledBody, SignalledBody, WaitStartedBody
from agentrun.records.waits import WaitingFor
from agentrun.workflow.program import CompiledStep

CLOCK_SET_BACK = 60.0
"""Seconds that an event must lie in the future before the clock counts as set back. Less is two machines' clocks."""

if TYPE_CHECKING:
    from agentrun.plan.context import PlanContext


def approval_step(step: CompiledStep, approval: ApprovalStep, context: PlanContext, failing: bool) -> Standing:
    """An ``approval`` step: asks people once, then waits for their decisions."""
    now = context.s.now
    event = context.events.requested.get(step.name)
    if event is None:
        if context.suspended:
            return _pending()
        return _ask(step, approval, context)
    request = ApprovalRequest.from_json(event.body["request"])
    fact = StepFact(attempt=1, started=event.at, approvals=(request,))
    counted = context.events.tally(request, now)
    if counted.state == "Pending":
        if failing:
            return _cancelled(step, context, fact)
        waiting: WaitingFor = {"approval": step.name, "subjects": [request.subject]}
        return Standing(
            StepState.WAITING,
            fact,
            Reason.AWAITING_APPROVAL,
            waiting,
            wake_at=request.expires_at,
            person=True,
            asks=(request,),
        )
    body: SettledBody = {"step": step.name, "state": str(StepState.SUCCEEDED)}
    if counted.state == "Approved":
        body["output"] = {"approved": True, "by": list(counted.by), "comment": counted.comment}
    elif counted.state == "Rejected":
        why = f"rejected by {counted.by[0]}" + (f": {counted.comment}" if counted.comment else "")
        body["state"], body["failure"] = _failed(FailureInfo(FailureClass.REJECTED, why))
    else:
        why = f"nobody decided within {approval.timeout}"
        body["state"], body["failure"] = _failed(FailureInfo(FailureClass.TIMEOUT, why))
    context.effects.append(Append(EventKind.SETTLED, body))
    return Standing(StepState.WAITING, fact, Reason.RUNNING)


def _ask(step: CompiledStep, approval: ApprovalStep, context: PlanContext) -> Standing:
    try:
        subject = context.render(step.texts["subject"])
        details = context.render(step.texts["details"]) if "details" in step.texts else None
    except TooMuchWork as why:
        return context.unaffordable(step, f"approval {why}")
    except ExpressionError as error:
        return context.settle_failed(step.name, FailureInfo(FailureClass.INVALID, f"approval: {error}"))
    asked = {"run": context.s.run["uid"], "step": step.name, "subject": subject, "details": details}
    request = ApprovalRequest(
        subject=subject,
        details=details,
        digest=digest_of(asked),
        approvers=approval.approvers,
        required=approval.required,
        expires_at=context.s.now + min(seconds(approval.timeout), DELAY_MAX),
    )
    body: ApprovalRequestedBody = {"step": step.name, "request": request.to_json()}
    context.effects.append(Append(EventKind.APPROVAL_REQUESTED, body))
    return _pending()


def wait_step(step: CompiledStep, wait: Wait, context: PlanContext, failing: bool) -> Standing:
    """A ``wait`` step: records once what it waits for and until when, then waits."""
    now = context.s.now
    begun = context.events.begun.get(step.name)
    if begun is None:
        if context.suspended:
            return _pending()
        return _begin_wait(step, wait, context)
    # A clock that was set matters only if ``until`` was computed from it, and not given by the workflow.
    event = _that_counts(begun, now) if "until" in begun[-1].body and wait.until is None else begun[-1]
    if event is None:
        # The clock was ahead when the wait began, and has been corrected since. Begin again with the same length.
        last = begun[-1]
        again: WaitStartedBody = last.body | {"until": now + last.body["until"] - last.at}
        context.effects.append(Append(EventKind.WAIT_STARTED, again))
        return _pending()
    until: float | None = event.body.get("until")
    fact = StepFact(attempt=1, started=event.at)
    body: SettledBody = {"step": step.name, "state": str(StepState.SUCCEEDED), "output": None}
    if "signal" in event.body:
        arrived = context.events.signal_for(step.name)
        if arrived is not None and (until is None or arrived.at < until):
            signalled: SignalledBody = arrived.body
            body["output"], body["signal"] = signalled.get("payload"), arrived.seq
        elif until is not None and now >= until:
            why = FailureInfo(FailureClass.TIMEOUT, f"no signal {event.body['signal']} came in time")
            body["state"], body["failure"] = _failed(why)
        else:
            if failing:
                return _cancelled(step, context, fact)
            awaited: WaitingFor = {"signal": event.body["signal"]}
            return Standing(StepState.WAITING, fact, Reason.AWAITING_SIGNAL, awaited, wake_at=until, person=True)
    elif until is not None and now < until:
        if failing:
            return _cancelled(step, context, fact)
        return Standing(StepState.WAITING, fact, Reason.AWAITING_TIMER, {"until": until}, wake_at=until)
    context.effects.append(Append(EventKind.SETTLED, body))
    return Standing(StepState.WAITING, fact, Reason.RUNNING)


def _that_counts(begun: Sequence[Event], now: float) -> Event | None:
    """Which beginning of a wait counts, if clocks were set since; None: all beginnings lie in the future.

    Of the others, the one that ends last counts. A machine whose clock starts in 1970 begins each wait again, and once
    that clock is corrected, this beginning seems long over.
    """
    past = [event for event in begun if "until" in event.body and event.at <= now + CLOCK_SET_BACK]
    return max(past, key=lambda event: float(event.body["until"]), default=None)


def _begin_wait(step: CompiledStep, wait: Wait, context: PlanContext) -> Standing:
    body: WaitStartedBody = {"step": step.name}
    now = context.s.now
    try:
        if wait.signal is not None:
            body["signal"] = wait.signal
            if wait.timeout is not None:
                body["until"] = now + min(seconds(wait.timeout), DELAY_MAX)
        elif wait.duration is not None:
            body["until"] = now + pause(context.render(step.texts["duration"]))
        else:
            body["until"] = moment(context.render(step.texts["until"]))
    except TooMuchWork as why:
        return context.unaffordable(step, f"wait {why}")
    except (ExpressionError, ValueError) as error:
        return context.settle_failed(step.name, FailureInfo(FailureClass.INVALID, f"wait: {error}"))
    context.effects.append(Append(EventKind.WAIT_STARTED, body))
    return _pending()


def _cancelled(step: CompiledStep, context: PlanContext, fact: StepFact) -> Standing:
    """Record that the step is cancelled: otherwise its time, or a signal for another wait, would end it once more."""
    body: SettledBody = {"step": step.name, "state": str(StepState.CANCELLED)}
    context.effects.append(Append(EventKind.SETTLED, body))
    return Standing(StepState.CANCELLED, fact)


def _failed(why: FailureInfo) -> tuple[str, dict[str, Any]]:
    return str(StepState.FAILED), why.to_json()


def _pending() -> Standing:
    return Standing(StepState.PENDING, StepFact(), Reason.PENDING)
