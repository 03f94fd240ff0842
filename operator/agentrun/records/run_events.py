"""The records of a run as a whole, by kind."""

from __future__ import annotations

from enum import StrEnum


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
