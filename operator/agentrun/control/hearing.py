"""What people said through the API server, as events of the run: decisions, commands, ``suspend`` and ``cancel``.

The API server's admission policies vouch for who decided; each thing that was said becomes one event however often it
is seen, because the event carries where it came from. ``plan.commands`` says which event that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from agentrun.api.command import Resume, Signal
from agentrun.control.live import LiveRun
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
"""Signals of a run that no step has taken yet: a run has about as many steps."""

SIGNALS_BYTES = 4 * 1024 * 1024
"""Bytes that these may take in memory."""

WORDS_MAX = 1000
"""Times that a run may be resumed or suspended, that its calls may be resolved, and its time to live be noted."""


def switches(live: LiveRun, run: RunView, vouched: bool) -> Iterator[NewEvent]:
    """The events that bring the journal to what may change in the run's spec, with who changed it.

    ``vouched``: whether the admission policies are there that see to the names. Asked at each visit, so it goes through
    the records once and makes no index of them.
    """
    suspended = cancelled = False
    ttl: tuple[str | None, object] = (None, None)
    suspensions = changes = 0
    for record in live.log.records:
        if record.kind == EventKind.TTL_CHANGED:
            ttl = record.body["by"], record.body["ttlSecondsAfterFinished"]
            changes += 1
        if record.kind in (EventKind.SUSPENDED, EventKind.UNSUSPENDED):
            suspended = record.kind == EventKind.SUSPENDED
            suspensions += suspended
        cancelled = cancelled or record.kind == EventKind.CANCELLED

    def author(field: str) -> Author:
        name = run.changed_by.get(field)
        return Author(name, verified=name is not None and vouched, on_cluster=True)

    if run.suspend is not suspended and (suspended or suspensions < WORDS_MAX):
        # A run that is being cancelled is suspended all the same, which holds up nothing: the journal follows the spec.
        yield event_for(Unsuspend() if suspended else Suspend(), live, author("suspend"))
    if run.cancel and not cancelled:
        yield event_for(Cancel(), live, author("cancel"))
    changer = run.changed_by.get("ttlSecondsAfterFinished")
    if changer is not None and ttl != (changer, run.ttl) and changes < WORDS_MAX:
        yield event_for(KeepFor(run.ttl), live, author("ttlSecondsAfterFinished"))


def decisions(live: LiveRun, approval: ApprovalView) -> Iterator[NewEvent]:
    """The decisions on an approval that the journal does not have."""
    if not approval.decisions:
        return
    index = live.index()
    for decision in approval.decisions:
        if decision.digest == approval.digest and index.decision_by(decision.digest, decision.by) is None:
            yield event_for(
                DecideApproval(approval.name, decision), live, Author(decision.by, verified=True, on_cluster=True)
            )


def commanded(live: LiveRun, run: RunView, view: CommandView, vouched: bool) -> NewEvent | Refusal:
    """The event that a command means, or why it means nothing; ``vouched`` as for ``switches``."""
    command = view.command
    if command is None:
        return Refusal(view.problem)
    # One without a uid may be meant for a run that had the name before: instants of the API server are whole seconds.
    if command.run_uid is None and command.at <= run.created:
        return Refusal(f"it is not known to be younger than the run: make it anew, with spec.run.uid: {run.uid}")
    if problem := _no_room(live, live.index(), view):
        return Refusal(problem)
    author = Author(view.by, verified=view.by is not None and vouched, command=view.uid, on_cluster=True)
    return event_for(command.verb, live, author)


def _no_room(live: LiveRun, index: EventIndex, view: CommandView) -> str:
    """Why the journal takes no more of this kind; "" where it does, or has this very command.

    The operator has the journals of many runs in memory. On one machine nothing bounds what a person says.
    """
    assert view.command is not None
    if index.has_command(view.uid):
        return ""
    if not isinstance(view.command.verb, Signal):
        resumes = isinstance(view.command.verb, Resume)
        kind = EventKind.RESUMED if resumes else EventKind.RESOLVED
        if (len(index.resumed) if resumes else sum(map(len, index.resolved.values()))) < WORDS_MAX:
            return ""
        return f"{WORDS_MAX:,} commands of this kind ({kind}) stand in the run's journal, which takes no more of them"
    taken = {event.body.get("signal") for event in index.settled.values()}
    left = [event for event in chain(*index.signals.values()) if event.seq not in taken]
    if len(left) < SIGNALS_MAX and sum(map(live.footprint_of, left)) < SIGNALS_BYTES:
        return ""
    return (
        f"{len(left):,} signals wait in the run that no step has taken, which is all that it holds: send the signal"
        " once a step waits for it"
    )
