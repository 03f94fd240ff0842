"""The kinds that the operator watches, and the view that it keeps of each object: a small frozen value.

An object as the API server sends it takes some 10 KB as Python dictionaries, a large one 34 MB. Of a pod, and of a run
that is pinned, refused or finished, a few values are enough.

``WATCHED`` is the only table of kinds: handlers, lists, cache, probes and metrics go through it. ``adapters.watched``
makes the views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from agentrun.api.approval import Decision
from agentrun.api.command import Command
from agentrun.api.facts import Allowance, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.labels import RUN_LABEL
from agentrun.api.run import Reason
from agentrun.api.workflow import GROUP, VERSION
from agentrun.observe.metrics import Lost


class RunRef(NamedTuple):
    """Names a run: the key of the work queue."""

    namespace: str
    name: str


class View(Protocol):
    """What every view of a kept object has."""

    @property
    def run(self) -> RunRef:
        """The run that the object belongs to. It is visited when the object changes."""

    @property
    def name(self) -> str:
        """The object's own name, in the namespace of the run."""

    @property
    def uid(self) -> str:
        """As Kubernetes writes it, with hyphens."""

    @property
    def version(self) -> int:
        """Its resourceVersion; comparable since Kubernetes 1.35, and by every etcd before."""


@dataclass(frozen=True, slots=True)
class RunView:
    """An AgentRun."""

    ref: RunRef
    uid: str
    """As Kubernetes writes it, with hyphens."""
    version: int
    """Its resourceVersion; comparable since Kubernetes 1.35, and by every etcd before."""
    generation: int
    created: float
    finished: float | None
    """When the run ended, by its status. Of an ended run the view keeps only what its time to live needs."""
    ttl: int | None = None
    deleting: bool = False
    suspend: bool = False
    cancel: bool = False
    written: bytes | None = None
    """Labels and spec as JSON, from which a run is pinned. Kept only of small runs that are still to be pinned; else
    None, and ``Cluster.get_written`` reads them.
    """
    waits_for: str = ""
    """The AgentWorkflow that the run refers to, until the run is pinned."""
    status: Mapping[str, Any] | None = None
    """None for a finished run."""
    requested_by: str | None = None
    """Who created the run, as the admission policy recorded it; None if nothing vouches for the name."""
    changed_by: Mapping[str, str] = field(default_factory=dict)
    """Who last changed ``suspend``, ``cancel`` and ``ttlSecondsAfterFinished``, as far as the annotations tell."""
    observed: int = 0
    """The ``observedGeneration`` of the status."""
    problem: str = ""
    """Why the object cannot be read whole, in which case the run cannot begin; "" if it can."""
    large: bool = False
    """Whether the object is so large that each write of it is long work for the API server."""

    @property
    def run(self) -> RunRef:
        """The run itself, as the views of its objects have it."""
        return self.ref

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.ref.name

    @property
    def begun(self) -> bool:
        """Whether the status says that the run is pinned. A run can be pinned before its status says so."""
        return self.status is not None and "journal" in self.status


PodPhase = Literal["Pending", "Running", "Ended"]


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of a step."""

    name: str
    namespace: str
    uid: str
    version: int
    run: RunRef
    run_uid: str
    """As Kubernetes writes it, with hyphens."""
    key: StepKey
    attempt: int
    phase: PodPhase
    ended: float | None = None
    grace: float | None = None
    """The grace period in seconds, if the pod was deleted; else None."""
    allowance: Allowance = field(default_factory=Allowance)
    """The part of the run's budget that the attempt may spend."""
    drain: bool = False
    """The attempt only settles what is open at the end of the run."""
    stray: bool = False
    """The pod's phase says that it has ended, while the kubelet last reported its container as running."""
    fact: StepFact | None = None
    """The fact in the runner's termination message; None if there is none, or if the fact was too long for it."""
    trouble: tuple[Reason, str] | None = None
    """For a person: why the pod does not start, or nothing is heard of it, or how it ended without a message of the
    runner.
    """
    lost: Lost = Lost.OTHER
    """For the metric: how the pod ended without a message of the runner."""


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """An Approval."""

    name: str
    namespace: str
    uid: str
    version: int
    run: RunRef
    run_uid: str
    digest: str
    required: int
    expires_at: float
    decisions: tuple[Decision, ...]
    settled: bool
    """Whether the Approval is closed: its ``Decided`` condition is true."""


@dataclass(frozen=True, slots=True)
class CommandView:
    """An AgentCommand."""

    name: str
    namespace: str
    uid: str
    version: int
    run: RunRef
    run_uid: str | None
    """The uid of the run that the command is for, if it names one. A later run of the same name has another uid."""
    by: str | None
    command: Command | None
    """None if the command is large (``Cluster.get_command`` reads it), or if there is a ``problem``."""
    problem: str = ""
    """Why the object is no valid command; "" if it is one."""
    large: bool = False
    """Whether the object is no valid command, and so large that a write of it is long work for the API server."""
    answered: float | None = None
    """When the operator answered the command in its status; None if it has no answer yet. Of an answered command the
    view keeps no content.
    """
    deleting: bool = False
    """Whether the command was deleted, and only a finalizer keeps it."""

    @property
    def open(self) -> bool:
        """Whether the command still needs an answer."""
        return self.answered is None and not self.deleting


class WorkflowView(NamedTuple):
    """An AgentWorkflow that was created or changed. Runs may wait for it, so its name is enough."""

    namespace: str
    name: str


T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[T]):
    """A watched kind of objects. ``T`` is the view of its objects."""

    plural: str
    """The name of the resource, as metrics and probes show it."""
    kind: str
    group: str
    """Empty for the core group."""
    version: str
    labels: str = ""
    """The label selector of the watched objects; empty: all objects."""
    kept: bool = True
    """Whether the objects are listed and cached; else only their watch events are used."""


PODS: Final[Kind[PodView]] = Kind("pods", "Pod", "", "v1", labels=RUN_LABEL)
APPROVALS: Final[Kind[ApprovalView]] = Kind("approvals", "Approval", GROUP, VERSION)
COMMANDS: Final[Kind[CommandView]] = Kind("agentcommands", "AgentCommand", GROUP, VERSION)
WORKFLOWS: Final[Kind[WorkflowView]] = Kind("agentworkflows", "AgentWorkflow", GROUP, VERSION, kept=False)
RUNS: Final[Kind[RunView]] = Kind("agentruns", "AgentRun", GROUP, VERSION)

WATCHED: Final[tuple[Kind[Any], ...]] = (PODS, APPROVALS, COMMANDS, WORKFLOWS, RUNS)
"""Every kind, in the order of listing. Runs come last, so that their pods, Approvals and commands are in the cache
before the first visit."""

KEPT: Final[tuple[Kind[Any], ...]] = tuple(kind for kind in WATCHED if kind.kept)
"""The kinds that the cache holds."""
