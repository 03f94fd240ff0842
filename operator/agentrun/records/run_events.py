"""The events (the records of a run's own log): their kinds, and the form of each kind's body.

A ``NotRequired`` field may be absent; its docstring says when. Instants are seconds since the epoch. Code that reads a
body declares the type of its kind (``EVENT_BODIES``); nothing is converted.
"""

# No ``from __future__ import annotations`` here: TypedDict would compile each annotation again, in every step process.

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict


class EventKind(StrEnum):
    """The kinds of a run's events."""

    APPROVAL_REQUESTED = "approvalRequested"
    DECIDED = "decided"
    SIGNALLED = "signalled"
    WAIT_STARTED = "waitStarted"
    SETTLED = "settled"
    SUSPENDED = "suspended"
    UNSUSPENDED = "unsuspended"
    CANCELLED = "cancelled"
    TTL_CHANGED = "ttlChanged"
    TIMED_OUT = "timedOut"
    RESUMED = "resumed"
    RESOLVED = "resolved"
    ENDED = "ended"


_KINDS = {kind.value: kind for kind in EventKind}


def event_kind(word: str) -> EventKind | None:
    """The kind that a record's ``kind`` names; None: a later version of agentrun added it, and readers skip it."""
    return _KINDS.get(word)


class ApprovalRequestedBody(TypedDict):
    """An approval step asks people."""

    step: str
    request: dict[str, Any]
    """The question, as ``ApprovalRequest.to_json`` writes it."""


class DecidedBody(TypedDict):
    """A person decided on an approval."""

    digest: str
    """The digest of the question. The decision counts for no other question."""
    decision: Literal["Approved", "Rejected"]
    by: str
    comment: str
    """Empty if the person gave no comment."""
    verified: NotRequired[bool]
    """Whether an API server's admission policies vouch for ``by``. Absent in the first journals."""
    step: NotRequired[str]
    """On one machine: the path of the step that asks."""
    groups: NotRequired[list[str]]
    """On one machine: the groups that the person decides as."""
    approval: NotRequired[str]
    """On a cluster: the name of the Approval."""
    at: NotRequired[float]
    """On a cluster: when the API server accepted the decision, by the operator's clock. Elsewhere the record's own
    instant counts.
    """


class _Said(TypedDict):
    by: NotRequired[str | None]
    """The person who did it; None if nobody vouches for a name. Absent in the first journals of clusters."""
    verified: NotRequired[bool]
    """Whether an API server's admission policies vouch for ``by``. Absent in the first journals."""


class _Commanded(_Said):
    command: NotRequired[str]
    """On a cluster: the uid of the AgentCommand, by which the operator recognizes the command."""


class SignalledBody(_Commanded):
    """A signal arrived."""

    name: str
    payload: Any


class WaitStartedBody(TypedDict):
    """A wait began, or began again because the clock was set back."""

    step: str
    signal: NotRequired[str]
    """The name of the signal. Absent if the step waits for a time."""
    until: NotRequired[float]
    """When the wait is over. Absent if it is for a signal without a timeout."""


class SettledBody(TypedDict):
    """A step, item or compensation ended without an outcome in a log of its own."""

    step: str
    state: str
    """A ``StepState``."""
    output: NotRequired[Any]
    """The step's output. Absent if the step failed, was cancelled or was skipped."""
    failure: NotRequired[dict[str, Any]]
    """Why the step failed, as ``FailureInfo.to_json`` writes it. Absent if it did not."""
    items: NotRequired[int]
    """For a fan-out: how many items it had."""
    states: NotRequired[dict[str, list[int]]]
    """For a fan-out: the indices of the items whose own log holds no outcome, by state."""
    signal: NotRequired[int]
    """For a wait that a signal ended: the number of that signal's event."""
    source: NotRequired[dict[str, Any]]
    """In a fork: the event (``run``, ``event``, ``hash``) or the run that this one was taken from."""


class SuspendedBody(_Said):
    """A person suspended the run, or ended the suspension."""


class CancelledBody(_Said):
    """A person cancelled the run."""

    late: NotRequired[bool]
    """Whether ``finally`` had begun. If so, the run ends with the outcome that ``finally`` has read. May be absent if
    ``finally`` had not begun.
    """


class TtlChangedBody(_Said):
    """On a cluster: a person changed, before the run's end, how long the run is kept after it."""

    ttlSecondsAfterFinished: int | None
    """None: the run is kept for ever."""


class TimedOutBody(TypedDict):
    """The run's ``timeout`` is over."""

    active: float
    """Seconds that its steps were at work."""


class ResumedBody(_Commanded):
    """A person resumed parked steps."""

    step: NotRequired[str]
    """The path or the label of the one step that is resumed. Absent: every parked step."""
    attempts: NotRequired[dict[str, int]]
    """The lost attempt, by the step's path. The event does not resume a step after a later loss. Absent in the first
    journals.
    """


class ResolvedBody(_Commanded):
    """A person told what became of a call whose outcome was unknown."""

    step: str
    """The step's path."""
    callId: str
    answer: Literal["happened", "retry", "giveUp"]
    result: Any
    """The call's result; None unless ``answer`` is ``happened``."""
    attempt: NotRequired[int]
    """The attempt that left the call unknown. Absent in the first journals."""


class Signature(TypedDict):
    """Who vouches for the run: see ``journal.signatures``."""

    key: str
    """The name of the key: the digest of its public half."""
    manifest: str
    """The digest of the run's manifest, which the signature covers as well."""
    value: str
    """The signature, in Base64."""


class EndedBody(TypedDict):
    """The run is over."""

    outcome: str
    """An ``Outcome``."""
    output: Any
    """None unless the run succeeded."""
    steps: dict[str, str]
    """The state of each step by its name."""
    compensations: dict[str, str]
    """The state of each compensation by its label."""
    heads: dict[str, list[Any]]
    """Number and hash of the last record of each step, by the step's path."""
    usage: NotRequired[dict[str, Any]]
    """The usage of all steps together, as ``Usage.to_json`` writes it. Absent in the first journals."""
    failure: NotRequired[dict[str, Any]]
    """Why the run failed, as ``FailureInfo.to_json`` writes it. Absent if the run succeeded or nothing failed."""
    failedStep: NotRequired[str]
    """The step that failed with ``failure``. Absent if the failure is the run's own."""
    notUndone: NotRequired[dict[str, str]]
    """Why an effect was not undone, by the step's label. Absent if there is none."""
    signature: NotRequired[Signature]
    """Absent where the driver has no key."""


EVENT_BODIES: Mapping[EventKind, type] = {
    EventKind.APPROVAL_REQUESTED: ApprovalRequestedBody,
    EventKind.DECIDED: DecidedBody,
    EventKind.SIGNALLED: SignalledBody,
    EventKind.WAIT_STARTED: WaitStartedBody,
    EventKind.SETTLED: SettledBody,
    EventKind.SUSPENDED: SuspendedBody,
    EventKind.UNSUSPENDED: SuspendedBody,
    EventKind.CANCELLED: CancelledBody,
    EventKind.TTL_CHANGED: TtlChangedBody,
    EventKind.TIMED_OUT: TimedOutBody,
    EventKind.RESUMED: ResumedBody,
    EventKind.RESOLVED: ResolvedBody,
    EventKind.ENDED: EndedBody,
}
"""The form of the body of each kind."""
