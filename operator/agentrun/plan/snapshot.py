"""The planner's input and output: frozen values, nothing else (``plan(snapshot) -> Plan``).

All instants are seconds since the epoch. The planner has no clock and reads ``now``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from agentrun.api.facts import Allowance, ApprovalRequest, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason
from agentrun.records.run_events import EventKind
from agentrun.workflow.program import Program


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the run's log."""

    seq: int
    at: float
    kind: str
    """An ``EventKind``, or a kind that a later version of agentrun added."""
    body: Any
    """An object in the form of its kind (``EVENT_BODIES``). The code that reads it declares that type."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A process or pod that runs an attempt now."""

    attempt: int
    started: float
    allowance: Allowance = field(default_factory=Allowance)
    stopping: bool = False
    pending: bool = False
    """It is not at work yet, like a pod that no node has taken. Its time does not count."""
    drain: bool = False
    """It was begun while the run ends, to settle an unknown call or to fence an attempt. It leaves by itself."""
    trouble: tuple[Reason, str] | None = None
    """Why it does not begin, or why nothing is heard of it; for a person to read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is known of a run at one moment. Any part may be late; none may be wrong."""

    program: Program
    run: Mapping[str, Any]
    """The variable ``run`` of expressions: name, namespace, requestedBy, uid."""
    inputs: Mapping[str, Any]
    started: float
    now: float
    budget: Allowance = field(default_factory=Allowance)
    timeout: float | None = None
    """Seconds of active time."""
    facts: Mapping[StepKey, StepFact] = field(default_factory=dict)
    executions: Mapping[StepKey, Execution] = field(default_factory=dict)
    unopened: Mapping[StepKey, int] = field(default_factory=dict)
    """How many executions in a row ended before they opened their journal. A new driver starts again from zero."""
    lost_at: Mapping[StepKey, float] = field(default_factory=dict)
    """When the last of those ended. The pause before the next one counts from there, and no journal records it."""
    adrift: Set[StepKey] = frozenset()
    """Keys whose last attempt is given up although nobody saw its process end: it may still be at work."""
    troubles: Mapping[StepKey, tuple[Reason, str]] = field(default_factory=dict)
    """Why the last attempt could not begin, or how it was lost, if the driver knows."""
    events: Sequence[Event] = ()
    verified: bool = False
    """Only decisions whose author an API server vouches for count."""
    unheard: Set[str] = frozenset()
    """Digests of questions that were answered in time, by an answer that nothing vouches for yet. Such a question
    stays open past its time, until it is known whether the answer counts.
    """


@dataclass(frozen=True, slots=True)
class Ref:
    """What an attempt needs in order to read another step's output: the step's state, and where its output is."""

    state: str
    seq: int | None = None
    """Number of the ``closed`` record in that step's journal."""
    event: int | None = None
    """Or the number of the run's event that settled the step."""

    def to_json(self) -> dict[str, Any]:
        """For the attempt's spec."""
        found: dict[str, Any] = {"state": self.state, "seq": self.seq, "event": self.event}
        return {k: v for k, v in found.items() if v is not None}


@dataclass(frozen=True, slots=True)
class Start:
    """Begin an attempt of a step in a process or pod of its own."""

    key: StepKey
    attempt: int
    refs: Mapping[str, Ref]
    events: tuple[int, ...]
    """Numbers of the decisions and resolutions for this step that its journal does not hold yet."""
    allowance: Allowance
    timeout: float | None
    """Seconds of active time that the step has left."""
    at: float = 0.0
    """When it was planned. The attempt's clock shows no earlier instant."""
    outcome: str = "Running"
    """The value of ``run.outcome``: for the steps of ``finally``, how the run ends."""
    drain: bool = False
    """The run is ending: settle what is unknown, begin nothing new."""
    refused: tuple[str, ...] = ()
    """What the model's endpoint refused in other steps of the run, so that this one does not ask for it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the attempt to finish its call, commit and leave."""

    key: StepKey
    attempt: int


@dataclass(frozen=True, slots=True)
class Append:
    """Record an event of the run. If any event was recorded since the snapshot, plan again instead."""

    kind: EventKind
    body: Mapping[str, Any]
    """In the form of the kind (``EVENT_BODIES``)."""


Effect = Start | Stop | Append


@dataclass(frozen=True, slots=True)
class Ask:
    """An open question to people."""

    key: StepKey
    attempt: int
    request: ApprovalRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, what to show, and when to plan again at the latest (None: only when something happens)."""

    effects: tuple[Effect, ...]
    status: dict[str, Any]
    wake_at: float | None
    ended: bool = False
    waits_for_person: bool = False
    """The run does not go on before a person acts."""
    asks: tuple[Ask, ...] = ()
    """Every question that is open."""
    dropped: frozenset[str] = frozenset()
    """Digests of the questions about calls that are not made any more, whatever people decide, because the step was
    cancelled.
    """
