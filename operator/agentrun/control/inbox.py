"""Translates what people write to the API server into events of the run: decisions, commands, ``suspend``, ``cancel``.

The API server's admission policies vouch for the author of a decision. Each decision or command becomes one event,
however often the operator sees it, because the event names its source. ``plan.commands`` defines these events.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from agentrun.api.command import Resolve, Resume, Signal
from agentrun.control.run_state import RunState
from agentrun.control.views import ApprovalView, CommandView, RunView
from agentrun.plan.commands import (
    Author,
    Cancel,
    DecideApproval,
    KeepFor,
    NewEvent,
    Refusal,
    Suspend,
    Unsuspend,
    event_for,
)
from agentrun.plan.events import EventIndex
from agentrun.records.run_events import EventKind

SIGNALS_MAX = 1000
"""Signals that a run may hold until a step takes them. A run has about as many steps."""

SIGNALS_BYTES = 4 * 1024 * 1024
"""Bytes that these signals may take in memory."""

WORDS_MAX = 1000
"""Events of each of these kinds that a run may have: resumed, suspended, resolved, changes of its time to live."""


def switches(live: RunState, run: RunView, vouched: bool) -> Iterator[NewEvent]:
    """The events that bring the journal in line with the mutable fields of the run's spec, each with its author.

    ``vouched``: whether the admission policies that vouch for the authors are installed. Each visit calls this, so it
    reads the records once and builds no index.
    """
    suspended = cancelled = False
    ttl: tuple[str | None, object] = (None, None)
    suspensions = changes = 0
    for record in live.log.records:
        if record.kind == EventKind.TTL_CHANGED:
            ttl = record.body.get("by"), record.body["ttlSecondsAfterFinished"]
            changes += 1
        if record.kind in (EventKind.SUSPENDED, EventKind.UNSUSPENDED):
            suspended = record.kind == EventKind.SUSPENDED
            suspensions += suspended
        cancelled = cancelled or record.kind == EventKind.CANCELLED

    def author(field: str) -> Author:
        name = run.changed_by.get(field)
        return Author(name, verified=name is not None and vouched, on_cluster=True)

    if run.suspend is not suspended and (suspended or suspensions < WORDS_MAX):
        # A run that is being cancelled can be suspended too, which delays nothing: the journal follows the spec.
        yield event_for(Unsuspend() if suspended else Suspend(), live, author("suspend"))
    if run.cancel and not cancelled:
        yield event_for(Cancel(), live, author("cancel"))
    changer = run.changed_by.get("ttlSecondsAfterFinished")
    if changer is not None and ttl != (changer, run.ttl) and changes < WORDS_MAX:
        yield event_for(KeepFor(run.ttl), live, author("ttlSecondsAfterFinished"))


def decisions(live: RunState, approval: ApprovalView) -> Iterator[NewEvent]:
    """The decisions on an Approval that the journal does not have yet."""
    if not approval.decisions:
        return
    index = live.index()
    for decision in approval.decisions:
        if decision.digest == approval.digest and index.decision_by(decision.digest, decision.by) is None:
            yield event_for(
                DecideApproval(approval.name, decision), live, Author(decision.by, verified=True, on_cluster=True)
            )


def commanded(live: RunState, run: RunView, view: CommandView, vouched: bool) -> NewEvent | Refusal | None:
    """The event for a command, or the reason to reject it; None if the journal has it. ``vouched`` as for ``switches``.

    A leader may have stopped between the record and the answer. Such a command is not judged again.
    """
    index = live.index()
    if index.has_command(view.uid):
        return None
    command = view.command
    if command is None:
        return Refusal(view.problem)
    # A command without a uid may be meant for an earlier run of that name. The API server's times are whole seconds, so
    # only a later second proves that the command is younger than the run.
    if command.run_uid is None and command.at <= run.created:
        return Refusal(f"it may be older than the run: create it again, with spec.run.uid: {run.uid}")
    if problem := _no_room(live, index, command.verb):
        return Refusal(problem)
    author = Author(view.by, verified=view.by is not None and vouched, command=view.uid, on_cluster=True)
    return event_for(command.verb, live, author)


def _no_room(live: RunState, index: EventIndex, verb: Signal | Resume | Resolve) -> str:
    """Why the journal takes no more commands of this kind; "" if it does.

    The operator has the journals of many runs in memory, hence the bounds. A driver on one machine has none.
    """
    if not isinstance(verb, Signal):
        resumes = isinstance(verb, Resume)
        kind = EventKind.RESUMED if resumes else EventKind.RESOLVED
        if (len(index.resumed) if resumes else sum(map(len, index.resolved.values()))) < WORDS_MAX:
            return ""
        return f"the run's journal has {WORDS_MAX:,} commands of this kind ({kind}), and takes no more of them"
    taken = {event.body.get("signal") for event in index.settled.values()}
    left = [event for event in chain(*index.signals.values()) if event.seq not in taken]
    if len(left) < SIGNALS_MAX and sum(map(live.footprint_of, left)) < SIGNALS_BYTES:
        return ""
    return (
        f"the run has {len(left):,} signals that no step has taken, and takes no more: send the signal once a step"
        " waits for it"
    )
