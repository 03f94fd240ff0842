"""What the planner sees and what it answers: frozen values, nothing else (DESIGN: ``plan(snapshot) -> Plan``).

All instants are seconds since the epoch; the planner has no clock and reads ``now``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from agentrun.api.facts import Allowance, ApprovalRequest, StepFact, StepKey
from agentrun.api.run import Reason
from agentrun.records.run_events import EventKind
from agentrun.workflow.program import Program


@dataclass(frozen=True, slots=True)
class Event:
    """A record of the run as a whole."""

    seq: int
    at: float
    kind: str
    """An ``EventKind``, or one that a later agentrun added."""
    body: Any
    """An object in the form of its kind (``EVENT_BODIES``): a reader gives it that type."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A process or pod that runs an attempt now."""

    attempt: int
    started: float
    allowance: Allowance = field(default_factory=Allowance)
    stopping: bool = False
    pending: bool = False
    """It is not at work yet: a pod that no node has taken. Its time does not count."""
    drain: bool = False
    """It was begun while the run ends, to settle what is open: it leaves by itself."""
    trouble: tuple[Reason, str] | None = None
    """Why it does not begin, or is not heard of, for a person."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is known of a run at one moment. Any part may be late; none may be wrong."""

    program: Program
    run: Mapping[str, Any]
    """What ``run.`` is in expressions: name, namespace, requestedBy."""
    inputs: Mapping[str, Any]
    started: float
    now: float
    budget: Allowance = field(default_factory=Allowance)
    timeout: float | None = None
    """Seconds of active time."""
    facts: Mapping[StepKey, StepFact] = field(default_factory=dict)
    executions: Mapping[StepKey, Execution] = field(default_factory=dict)
    unopened: Mapping[StepKey, int] = field(default_factory=dict)
    """How many executions in a row ended before they opened their journal. Lost with the driver: counted anew."""
    lost_at: Mapping[StepKey, float] = field(default_factory=dict)
    """When the last of those ended: no journal says so, and the pause before the next one counts from there."""
    adrift: Set[StepKey] = frozenset()
    """Whose last attempt is given up, though nobody saw its process end: it may be at work yet."""
    troubles: Mapping[StepKey, tuple[Reason, str]] = field(default_factory=dict)
    """Why the last attempt could not be begun, or how it was lost, where the cluster says so."""
    events: Sequence[Event] = ()
    verified: bool = False
    """Only decisions count for whose author an API server vouches."""
    unheard: Set[str] = frozenset()
    """The digests of questions that somebody answered in time, where nothing vouches for the answer yet: they stay
    open past their time, until it is known whether the answer counts.
    """


@dataclass(frozen=True, slots=True)
class Ref:
    """How an attempt gets at what another step gave: its state, and where its output stands."""

    state: str
    seq: int | None = None
    """The ``closed`` record in that step's journal."""
    event: int | None = None
    """Or the run's event that settled it."""

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
    """Decisions and resolutions for this step that its journal has not taken in."""
    allowance: Allowance
    timeout: float | None
    """Seconds of active time that the step has left."""
    at: float = 0.0
    """When it was planned: the attempt's clock shows nothing earlier."""
    outcome: str = "Running"
    """What ``run.outcome`` is: for the steps of ``finally``, how the run ends."""
    drain: bool = False
    """The run is ending: settle what is unknown, begin nothing new."""
    refused: tuple[str, ...] = ()
    """What the model's endpoint refused of other steps: this one does not ask for it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the attempt to finish its call, commit and leave."""

    key: StepKey
    attempt: int


@dataclass(frozen=True, slots=True)
class Append:
    """Record an event of the run, unless somebody has recorded anything since the snapshot: then plan anew."""

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
    """What to do now, what to show, and when to look again at the latest (None: when something happens)."""

    effects: tuple[Effect, ...]
    status: dict[str, Any]
    wake_at: float | None
    ended: bool = False
    waits_for_person: bool = False
    """Nothing moves before a person does something."""
    asks: tuple[Ask, ...] = ()
    """Every question that is open."""
    dropped: frozenset[str] = frozenset()
    """The digests of the questions about calls that nobody makes any more, whatever people decide: their step was
    cancelled.
    """
