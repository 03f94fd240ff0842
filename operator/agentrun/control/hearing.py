"""What people said through the API server, as events of the run: decisions, commands, ``suspend`` and ``cancel``.

The API server's admission policies vouch for who decided; each thing that was said becomes one event however often it
is seen, because the event carries where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentrun.api.command import Command, Resolve, Resume, Signal
from agentrun.api.facts import AttemptEnd, StepKey
from agentrun.control.live import LiveRun
from agentrun.control.views import ApprovalView, CommandView, RunView
from agentrun.journal.records import Record
from agentrun.records.run_events import EventKind

SIGNALS_MAX = 1000
"""Signals of a run that no step has taken yet: a run has about as many steps."""

SIGNALS_BYTES = 4 * 1024 * 1024
"""Bytes that these may take in memory."""

WORDS_MAX = 1000
"""Times that a run may be resumed or suspended, that its calls may be resolved, and its time to live be noted."""


def switches(live: LiveRun, run: RunView, vouched: bool) -> Iterator[tuple[EventKind, dict[str, Any]]]:
    """The events that bring the journal to what may change in the run's spec, with who changed it.

    ``vouched``: whether the admission policies are there that see to the names.
    """
    suspended = cancelled = False
    ttl: tuple[str | None, Any] = (None, None)
    suspensions = changes = 0
    for record in live.log.records:
        if record.kind == EventKind.TTL_CHANGED:
            ttl = record.body["by"], record.body["ttlSecondsAfterFinished"]
            changes += 1
        if record.kind in (EventKind.SUSPENDED, EventKind.UNSUSPENDED):
            suspended = record.kind == EventKind.SUSPENDED
            suspensions += suspended
        cancelled = cancelled or record.kind == EventKind.CANCELLED

    def by(field: str) -> dict[str, Any]:
        name = run.changed_by.get(field)
        return {"by": name, "verified": name is not None and vouched}

    if run.suspend is not suspended and (suspended or suspensions < WORDS_MAX):
        yield (EventKind.UNSUSPENDED if suspended else EventKind.SUSPENDED), by("suspend")
    if run.cancel and not cancelled:
        yield EventKind.CANCELLED, by("cancel") | {"late": live.finally_begun}
    changer = run.changed_by.get("ttlSecondsAfterFinished")
    if changer is not None and ttl != (changer, run.ttl) and changes < WORDS_MAX:
        yield EventKind.TTL_CHANGED, by("ttlSecondsAfterFinished") | {"ttlSecondsAfterFinished": run.ttl}


def decisions(live: LiveRun, approval: ApprovalView) -> Iterator[tuple[EventKind, dict[str, Any]]]:
    """The decisions on an approval that the journal does not have."""
    taken = {
        (record.body["digest"], record.body["by"]) for record in live.log.records if record.kind == EventKind.DECIDED
    }
    for decision in approval.decisions:
        if decision.digest == approval.digest and (decision.digest, decision.by) not in taken:
            yield (
                EventKind.DECIDED,
                {
                    "approval": approval.name,
                    "digest": decision.digest,
                    "by": decision.by,
                    "verified": True,
                    "decision": decision.decision,
                    "comment": decision.comment,
                    "at": decision.at,
                },
            )


def commanded(live: LiveRun, run: RunView, view: CommandView, vouched: bool) -> tuple[EventKind, dict[str, Any]] | str:
    """The event that a command means, or why it means nothing; ``vouched`` as for ``switches``."""
    command = view.command
    if command is None:
        return view.problem
    # One without a uid may be meant for a run that had the name before: instants of the API server are whole seconds.
    if command.run_uid is None and command.at <= run.created:
        return f"it is not known to be younger than the run: make it anew, with spec.run.uid: {run.uid}"
    if problem := _no_room(live, view):
        return problem
    body: dict[str, Any] = {"by": view.by, "verified": view.by is not None and vouched, "command": view.uid}
    match command.verb:
        case Signal(name=name, payload=payload):
            return EventKind.SIGNALLED, body | {"name": name, "payload": payload}
        case Resume(step=step):
            body["attempts"] = {key.path: number for key, number in live.lost()}
            return EventKind.RESUMED, body | ({"step": StepKey.parse(step).path} if step else {})
        case Resolve() as resolve:
            return _resolved(live, command, resolve, body)


def _no_room(live: LiveRun, view: CommandView) -> str:
    """Why the journal takes no more of this kind; "" where it does, or has this very command."""
    assert view.command is not None
    records = live.log.records
    if any(record.body.get("command") == view.uid for record in records):
        return ""
    if not isinstance(view.command.verb, Signal):
        kind = EventKind.RESUMED if isinstance(view.command.verb, Resume) else EventKind.RESOLVED
        if sum(record.kind == kind for record in records) < WORDS_MAX:
            return ""
        return f"{WORDS_MAX:,} commands of this kind ({kind}) stand in the run's journal, which takes no more of them"
    taken = {record.body.get("signal") for record in records if record.kind == EventKind.SETTLED}
    left = [r for r in records if r.kind == EventKind.SIGNALLED and r.seq not in taken]
    if len(left) < SIGNALS_MAX and sum(map(live.footprint_of, left)) < SIGNALS_BYTES:
        return ""
    return (
        f"{len(left):,} signals wait in the run that no step has taken, which is all that it holds: send the signal"
        " once a step waits for it"
    )


def _resolved(
    live: LiveRun, command: Command, resolve: Resolve, body: dict[str, Any]
) -> tuple[EventKind, dict[str, Any]] | str:
    key = StepKey.parse(resolve.step)
    fact = live.facts.get(key)
    unknown = fact.unknown if fact is not None and fact.end is AttemptEnd.WAITING else None
    if fact is None or unknown is None:
        return f"{key.label} has no call whose outcome is unknown: there is nothing to resolve"
    if resolve.call_id is not None and resolve.call_id != unknown.call_id:
        return f"the call of {key.label} whose outcome is unknown is {unknown.call_id}, not {resolve.call_id}"
    result = resolve.happened.result if resolve.happened is not None else None
    return EventKind.RESOLVED, body | {
        "step": key.path,
        "callId": unknown.call_id,
        "attempt": fact.attempt,
        "answer": resolve.answer,
        "result": result,
    }


def is_there(records: Sequence[Record], kind: EventKind, body: Mapping[str, Any]) -> bool:
    """Whether the event is in the journal already, or the run has ended."""
    if any(r.kind == EventKind.ENDED for r in records):
        return True
    same = [r.body for r in records if r.kind == kind]
    match kind:
        case EventKind.DECIDED:
            return any(b["digest"] == body["digest"] and b["by"] == body["by"] for b in same)
        case EventKind.SUSPENDED | EventKind.UNSUSPENDED:
            turns = [r.kind for r in records if r.kind in (EventKind.SUSPENDED, EventKind.UNSUSPENDED)]
            return (turns[-1] if turns else EventKind.UNSUSPENDED) == kind
        case EventKind.CANCELLED:
            return bool(same)
        case EventKind.TTL_CHANGED:
            return bool(same) and same[-1] == body
        case _:
            return any(b.get("command") == body["command"] for b in same)
