"""The records of a run as a whole: their kinds, and the form of each kind's body.

A field that is ``NotRequired`` is not in every body of its kind, for the reason that its docstring gives. Instants are
seconds since the epoch. A reader takes a body as the type of its kind (``EVENT_BODIES``); nothing is converted.
"""

# Annotations are no texts here: a TypedDict would compile each of them again, in every process of a step.

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict


class EventKind(StrEnum):
    """What a record of the run as a whole says."""

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
    """The kind that a record's ``kind`` names; None: a later agentrun added it, and readers pass it over."""
    return _KINDS.get(word)


class ApprovalRequestedBody(TypedDict):
    """An approval step asks people."""

    step: str
    request: dict[str, Any]
    """What is asked, as ``ApprovalRequest.to_json`` writes it."""


class DecidedBody(TypedDict):
    """A person decided on an approval."""

    digest: str
    """Of what was asked: the decision counts for nothing else."""
    decision: Literal["Approved", "Rejected"]
    by: str
    comment: str
    """Empty where the person gave none."""
    verified: NotRequired[bool]
    """Whether an API server's admission policies vouch for ``by``. Absent in the first journals."""
    step: NotRequired[str]
    """On one machine: the path of the step that asks."""
    groups: NotRequired[list[str]]
    """On one machine: the groups that the person decides as."""
    approval: NotRequired[str]
    """On a cluster: the name of the Approval."""
    at: NotRequired[float]
    """On a cluster: when the API server took the decision, by the operator's clock. Elsewhere the record's own instant
    counts.
    """


class _Said(TypedDict):
    by: NotRequired[str | None]
    """Who did it; None where nobody vouches for a name. Absent in the first journals of clusters."""
    verified: NotRequired[bool]
    """Whether an API server's admission policies vouch for ``by``. Absent in the first journals."""


class _Commanded(_Said):
    command: NotRequired[str]
    """On a cluster: the uid of the AgentCommand, by which the operator knows it again."""


class SignalledBody(_Commanded):
    """A signal came."""

    name: str
    payload: Any


class WaitStartedBody(TypedDict):
    """A wait began, or began again because the clock was set back."""

    step: str
    signal: NotRequired[str]
    """The name of the signal. Absent where the step waits for a time."""
    until: NotRequired[float]
    """When the wait is over. Absent where a signal has no timeout."""


class SettledBody(TypedDict):
    """A step without a journal of its own is over."""

    step: str
    state: str
    """A ``StepState``."""
    output: NotRequired[Any]
    """Absent where the step has none because it failed, was cancelled or was skipped."""
    failure: NotRequired[dict[str, Any]]
    """Why it failed, as ``FailureInfo.to_json`` writes it. Absent where it did not."""
    items: NotRequired[int]
    """Of a fan-out: how many items it had."""
    states: NotRequired[dict[str, list[int]]]
    """Of a fan-out: the indices of the items that have no journal, by state."""
    signal: NotRequired[int]
    """Of a wait that a signal ended: the number of that signal's event."""
    source: NotRequired[dict[str, Any]]
    """In a fork: the event (``run``, ``event``, ``hash``) or the run that this was taken from."""


class SuspendedBody(_Said):
    """Somebody suspended the run, or took that back."""


class CancelledBody(_Said):
    """Somebody cancelled the run."""

    late: NotRequired[bool]
    """Whether ``finally`` had begun, so that the run ends as that was told. May be absent where it had not."""


class TtlChangedBody(_Said):
    """On a cluster: somebody changed how long the run is kept after its end, while it lived."""

    ttlSecondsAfterFinished: int | None
    """None: for ever."""


class TimedOutBody(TypedDict):
    """The run's ``timeout`` is over."""

    active: float
    """Seconds that its steps were at work."""


class ResumedBody(_Commanded):
    """Somebody freed what was parked."""

    step: NotRequired[str]
    """The path or the label of the one step that is meant. Absent: every parked step."""
    attempts: NotRequired[dict[str, int]]
    """The attempt that was lost, by the step's path; no later one is freed. Absent in the first journals."""


class ResolvedBody(_Commanded):
    """A person said what became of a call whose outcome is unknown."""

    step: str
    """The step's path."""
    callId: str
    answer: Literal["happened", "retry", "giveUp"]
    result: Any
    """What the call came to; None unless it happened."""
    attempt: NotRequired[int]
    """The attempt that left the call unknown. Absent in the first journals."""


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
    """What all steps spent, as ``Usage.to_json`` writes it. Absent in the first journals."""
    failure: NotRequired[dict[str, Any]]
    """Why the run failed, as ``FailureInfo.to_json`` writes it. Absent where it succeeded."""
    failedStep: NotRequired[str]
    """The step that ``failure`` is of. Absent where it is the run's own."""
    notUndone: NotRequired[dict[str, str]]
    """Why an effect stays, by the step's label. Absent where none does."""


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
