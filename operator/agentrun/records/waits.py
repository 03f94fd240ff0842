"""The kinds of waits (``waitingFor`` in a status): who or what ends each, and what a person can do.

A ``waitingFor`` has the field of one kind (``WAITS``), and fields with details of it (``DETAILS``).
"""

# No ``from __future__ import annotations`` here: TypedDict would compile each annotation again, in every step process.

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict


class MovedBy(StrEnum):
    """Who or what ends a wait."""

    PERSON = "person"
    TIME = "time"
    """The field's value is the instant at which the wait ends."""
    CLUSTER = "cluster"
    """The system that runs the steps: other attempts have ended, a pod is mended, or there is a place for a pod."""


class WaitingFor(TypedDict, total=False):
    """What a step waits for. Instants are seconds since the epoch; a status shows them in RFC 3339."""

    approval: str
    """The step's label; in the status on a cluster, the name of the Approval."""
    signal: str
    """The signal's name."""
    until: float
    """When the timer is over."""
    retry: float
    """When the next attempt begins."""
    resume: str
    """Why the step is parked."""
    resolve: str
    """What is unknown about the step's call."""
    work: str
    """Which expression would cost more computation than the run may spend."""
    budget: str
    """Until when the step waits for a larger part of the budget, in words."""
    pod: str
    """What is wrong with the step's pod."""
    place: str
    """Why there is no place for the step's pod."""
    subjects: list[str]
    """With ``approval``: the subjects of the questions."""
    because: str
    """With ``retry``: why the attempt before failed."""
    tool: str
    """With ``resolve``: the tool that was called."""
    callId: str
    """With ``resolve``: the id of the call."""


DETAILS = frozenset({"subjects", "because", "tool", "callId"})
"""The fields that are not a kind of wait, but a detail of one."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One kind of wait."""

    moved_by: MovedBy
    what_next: str = ""
    """The verb that ends the wait, or how it ends, for the status message. STEP stands for the step's label. Empty: the
    message does not mention it.
    """
    or_cancel: bool = False
    """Whether the message names ``cancel`` as the other way out, as long as the run is not cancelled."""


WAITS: Mapping[str, Wait] = {
    "approval": Wait(MovedBy.PERSON, "agentrun approve|reject RUN STEP"),
    "signal": Wait(MovedBy.PERSON, "agentrun signal RUN NAME"),
    "until": Wait(MovedBy.TIME),
    "retry": Wait(MovedBy.TIME, "it is retried automatically"),
    "resume": Wait(MovedBy.PERSON, "agentrun resume RUN"),
    "resolve": Wait(MovedBy.PERSON, "agentrun resolve RUN STEP --happened RESULT|--retry|--give-up"),
    "work": Wait(MovedBy.PERSON, "agentrun cancel RUN ends the run"),
    "budget": Wait(MovedBy.CLUSTER),
    "pod": Wait(MovedBy.CLUSTER, "it continues automatically once that is fixed", or_cancel=True),
    "place": Wait(MovedBy.CLUSTER, "it begins automatically when there is a place for its pod"),
}
"""Every kind of wait, by its field."""

TIMED = frozenset(kind for kind, wait in WAITS.items() if wait.moved_by is MovedBy.TIME)
"""The kinds whose value is an instant."""


def kind_of(waiting: Mapping[str, object]) -> str:
    """The kind of the wait that ``waiting`` describes; "" if this version of agentrun does not know it."""
    return next((field for field in waiting if field in WAITS), "")
