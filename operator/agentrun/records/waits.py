"""What a step waits for (``waitingFor`` in a status): the kinds of waits, who ends each, and what a person can do.

An entry holds the field of one kind (``WAITS``), and the fields that say more about it (``DETAILS``).
"""

# Annotations are no texts here: a TypedDict would compile each of them again, in every process of a step.

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict


class MovedBy(StrEnum):
    """Who ends a wait."""

    PERSON = "person"
    TIME = "time"
    """The field's value is the instant."""
    CLUSTER = "cluster"
    """Whatever runs the steps: its other attempts have ended, a pod is mended, or there is a place for one."""


class WaitingFor(TypedDict, total=False):
    """What a step waits for. Instants are seconds since the epoch; a status shows them in RFC 3339."""

    approval: str
    """The step's label; in a cluster's status the name of the Approval."""
    signal: str
    """The signal's name."""
    until: float
    """When a timer is over."""
    retry: float
    """When the next attempt begins."""
    resume: str
    """Why the step is parked."""
    resolve: str
    """What is unknown about its call."""
    work: str
    """What costs more computation than the run may."""
    budget: str
    """Until when it waits for a larger part of the budget."""
    pod: str
    """What is wrong with its pod."""
    place: str
    """Why there is no place for its pod."""
    subjects: list[str]
    """Of ``approval``: what people are asked."""
    because: str
    """Of ``retry``: why the attempt before failed."""
    tool: str
    """Of ``resolve``: the tool that was called."""
    callId: str
    """Of ``resolve``: the call."""


DETAILS = frozenset({"subjects", "because", "tool", "callId"})
"""The fields that are no kind of wait, but say more about one."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One kind of wait."""

    moved_by: MovedBy
    what_next: str = ""
    """The verb that ends it, or how it ends, for the status message. STEP stands for the step's label. Empty: the
    message does not speak of it.
    """
    or_cancel: bool = False
    """Whether the message names ``cancel`` as the other way out, while nobody has used it."""


WAITS: Mapping[str, Wait] = {
    "approval": Wait(MovedBy.PERSON, "agentrun approve|reject RUN STEP"),
    "signal": Wait(MovedBy.PERSON, "agentrun signal RUN NAME"),
    "until": Wait(MovedBy.TIME),
    "retry": Wait(MovedBy.TIME, "it is tried again by itself"),
    "resume": Wait(MovedBy.PERSON, "agentrun resume RUN"),
    "resolve": Wait(MovedBy.PERSON, "agentrun resolve RUN STEP --happened RESULT|--retry|--give-up"),
    "work": Wait(MovedBy.PERSON, "agentrun cancel RUN ends the run"),
    "budget": Wait(MovedBy.CLUSTER),
    "pod": Wait(MovedBy.CLUSTER, "it goes on by itself once that is mended", or_cancel=True),
    "place": Wait(MovedBy.CLUSTER, "it begins by itself when there is a place for its pod"),
}
"""Every kind of wait, by its field."""

TIMED = frozenset(kind for kind, wait in WAITS.items() if wait.moved_by is MovedBy.TIME)
"""The kinds whose value is an instant."""


def kind_of(waiting: Mapping[str, object]) -> str:
    """The kind of the wait that ``waiting`` describes; "" where it is none that this agentrun knows."""
    return next((field for field in waiting if field in WAITS), "")
