"""The status of a run, in the shape that users see, both on a cluster and on one machine (``api.status``).

``phase`` is derived from the conditions; ``Reconciling`` and ``Stalled`` are what kstatus reads
(https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from agentrun.api.canonical import canonical, timestamp
from agentrun.api.facts import Usage
from agentrun.api.printable import printable
from agentrun.api.run import ConditionType, Outcome, Reason, StepState
from agentrun.plan.attempts import Standing
from agentrun.plan.groups import Group
from agentrun.records.waits import TIMED, WAITS, kind_of

if TYPE_CHECKING:
    from agentrun.plan.context import PlanContext

OUTPUT_MAX = 1024
"""Bytes of a step's output that the status shows. A larger output is only in the journal."""

TEXT_MAX = 1024
"""Characters of a question, a message or a reason in the status. The journal has a longer text whole."""

TEXTS_MAX = 20

STAYS_MAX = 5
"""How many steps that were not undone the final message names. The journal names more."""

EYE_MAX = 50
"""Items of a fan-out that get an entry of their own because a person may want to look at them."""

_EYE = {StepState.OUTCOME_UNKNOWN: 0, StepState.WAITING: 1, StepState.FAILED: 2, StepState.RUNNING: 3}


@dataclass(slots=True)
class _Summary:
    cancelled: bool
    """The run was cancelled: no message suggests ``agentrun cancel`` any more."""
    reasons: Counter[Reason] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    queued: str = ""
    """Why the first queued step has no place for its pod."""


def run_status(context: PlanContext) -> dict[str, Any]:
    """The whole status, except what only the store or the cluster knows (``journal``, transition times)."""
    entries: list[dict[str, Any]] = []
    summary = _Summary(cancelled=context.events.cancelled is not None)
    for group in context.groups.values():
        _add(entries, group, summary)
    for key, standing in context.undone.items():
        entries.append(_entry(key.label, standing))
        _sum(key.label, standing, summary)
    ended = context.events.ended
    reason, message = _headline(context, summary)
    found: dict[str, Any] = {
        "phase": _phase(context, reason),
        "startTime": timestamp(context.s.started),
        "conditions": _conditions(context, reason, message),
        "usage": Usage.total(fact.usage for fact in context.s.facts.values()).to_json(),
        "steps": entries,
        "output": ended.body.get("output") if ended else None,
    }
    if ended:
        found["completionTime"] = timestamp(ended.at)
    if message:
        found["message"] = message
    return found


def _add(entries: list[dict[str, Any]], group: Group, summary: _Summary) -> None:
    entry = _entry(group.name, group.whole)
    entries.append(entry)
    if not group.fan_out:
        _sum(group.name, group.whole, summary)
        return
    entry.pop("attempt", None)
    entry["items"] = {str(state): n for state, n in sorted(Counter(m.state for m in group.members.values()).items())}
    eye = [(key, m) for key, m in group.members.items() if m.state in _EYE]
    for key, member in sorted(eye, key=lambda entry: (_EYE[entry[1].state], entry[0].index))[:EYE_MAX]:
        entries.append(_entry(key.label, member))
    for key, member in group.members.items():
        _sum(key.label, member, summary)


def _sum(label: str, standing: Standing, summary: _Summary) -> None:
    if standing.state.final:
        return
    if standing.reason is not None:
        summary.reasons[standing.reason] += 1
    what = standing.waiting_for
    if what is None:
        return
    if standing.reason is Reason.QUEUED and not summary.queued:
        summary.queued = f"{label}: {_cut(what['place'])} ({WAITS['place'].what_next})"
    if (standing.person or standing.reason in POD_TROUBLE) and len(summary.messages) < 5:
        kind = kind_of(what)
        wait, subjects = WAITS[kind], what.get("subjects")
        why = subjects[0] if subjects else what.get("because", what.get(kind))
        cancel = "; agentrun cancel RUN ends the run" if wait.or_cancel and not summary.cancelled else ""
        summary.messages.append(f"{label}: {_cut(why)} ({wait.what_next.replace('STEP', label)}{cancel})")


def _entry(name: str, standing: Standing) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "state": str(standing.state)}
    fact = standing.fact
    if fact.attempt:
        found["attempt"] = fact.attempt
    if fact.started:
        found["startedAt"] = timestamp(fact.started)
    if standing.finished is not None and standing.state.final and standing.state is not StepState.SKIPPED:
        found["finishedAt"] = timestamp(standing.finished)
    if standing.waiting_for is not None and not standing.state.final:
        found["waitingFor"] = {
            k: timestamp(cast(float, v)) if k in TIMED else _cut(v) for k, v in standing.waiting_for.items()
        }
    if standing.failure is not None:
        found["failure"] = standing.failure.to_json() | {"message": _cut(standing.failure.message)}
    if standing.output is not None and len(canonical(standing.output)) <= OUTPUT_MAX:
        found["output"] = standing.output
    return found


POD_TROUBLE = (
    Reason.POD_REFUSED,
    Reason.CONTAINER_REFUSED,
    Reason.IMAGE_PULL_FAILED,
    Reason.UNSCHEDULABLE,
    Reason.NODE_SILENT,
)
"""Why a pod does not get to work, or why nothing is heard of it. Each is fixed in the cluster, not by a verb."""


def _cut(value: Any) -> Any:
    """Shorten a text, or a list of texts, that a person reads in a table. The journal has it whole."""
    if isinstance(value, list):
        return [_cut(item) for item in value[:TEXTS_MAX]]
    return printable(value, TEXT_MAX) if isinstance(value, str) else value


STALLED = (Reason.OUTCOME_UNKNOWN, Reason.ATTEMPTS_LOST, Reason.TOO_MUCH_WORK)
"""Something went wrong, and the run does not go on before a person acts."""

_URGENT = (
    Reason.OUTCOME_UNKNOWN,
    Reason.ATTEMPTS_LOST,
    Reason.TOO_MUCH_WORK,
    *POD_TROUBLE,
    Reason.RUNNING,
    Reason.QUEUED,
    Reason.RETRYING,
    Reason.AWAITING_APPROVAL,
    Reason.AWAITING_SIGNAL,
    Reason.AWAITING_TIMER,
    Reason.PENDING,
)


def _headline(context: PlanContext, summary: _Summary) -> tuple[Reason, str]:
    ended = context.events.ended
    if ended is not None:
        why = ""
        if context.failure is not None and context.outcome is not Outcome.SUCCEEDED:
            step, failure = context.failure
            why = f"{step}: {failure.message}" if step else failure.message
        if stays := _stays(context):
            why = f"{_short(why, TEXT_MAX // 2)}; {stays}" if why else stays
        return Reason(str(context.outcome)), _cut(why)
    message = "; ".join(summary.messages)
    if summary.reasons[Reason.OUTCOME_UNKNOWN]:
        return Reason.OUTCOME_UNKNOWN, message
    if context.suspended:
        return Reason.SUSPENDED, "continue with agentrun resume RUN"
    if context.phase is not Reason.RUNNING:
        return context.phase, message or summary.queued
    reason = next((reason for reason in _URGENT if summary.reasons[reason]), Reason.RUNNING)
    return reason, summary.queued if reason is Reason.QUEUED else message


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _stays(context: PlanContext) -> str:
    """Which effects stay although they should have been undone, and why."""
    stays = context.not_undone
    if not stays:
        return ""
    each = (TEXT_MAX // 2 - 100) // min(len(stays), STAYS_MAX)
    said = [f"{label} ({_short(why, max(each - len(label) - 5, 10))})" for label, why in stays[:STAYS_MAX]]
    more = f" and {len(stays) - STAYS_MAX} more" if len(stays) > STAYS_MAX else ""
    return f"these effects remain, because they were not undone: {', '.join(said)}{more}"


def _phase(context: PlanContext, reason: Reason) -> str:
    if context.events.ended is not None:
        return str(context.outcome)
    waiting = (
        Reason.AWAITING_APPROVAL,
        Reason.AWAITING_SIGNAL,
        Reason.AWAITING_TIMER,
        Reason.RETRYING,
        Reason.QUEUED,
        *POD_TROUBLE,
    )
    if reason in STALLED:
        return "Stalled"
    if reason in waiting:
        return "Waiting"
    return str(reason) if reason in (Reason.SUSPENDED, Reason.CANCELLING, Reason.COMPENSATING) else "Running"


def _conditions(context: PlanContext, reason: Reason, message: str) -> list[dict[str, Any]]:
    ended = context.events.ended is not None
    succeeded = ended and context.outcome is Outcome.SUCCEEDED
    stalled = reason in STALLED or (ended and not succeeded)

    def condition(kind: ConditionType, status: bool | None) -> dict[str, Any]:
        text = "Unknown" if status is None else str(status)
        return {"type": str(kind), "status": text, "reason": str(reason), "message": message}

    return [
        condition(ConditionType.SUCCEEDED, succeeded if ended else None),
        condition(ConditionType.READY, succeeded),
        condition(ConditionType.RECONCILING, not ended and not stalled),
        condition(ConditionType.STALLED, stalled),
    ]
