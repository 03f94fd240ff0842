"""The kinds that the operator watches, and what it keeps of each object: small frozen values, made by the adapters.

An object as the API server sends it takes some ten KB as Python dictionaries, a large one 34 MB; of a pod, and of a run
that is pinned in its journal, refused or finished, a few words are enough.

``WATCHED`` is the one table of kinds: handlers, lists, cache, probes and metrics go through it. How an object becomes
its view stands in ``adapters.watched``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from agentrun.api.approval import Decision
from agentrun.api.command import Command
from agentrun.api.facts import Allowance, StepFact, StepKey
from agentrun.api.names import RUN_LABEL
from agentrun.api.run import Reason
from agentrun.api.workflow import GROUP, VERSION
from agentrun.observe.metrics import Lost


class RunRef(NamedTuple):
    """Which run: the key of the work queue."""

    namespace: str
    name: str


class View(Protocol):
    """What every view has of an object that is kept."""

    @property
    def run(self) -> RunRef:
        """The run that it belongs to, which is visited when it changes."""

    @property
    def name(self) -> str:
        """Its own, in the namespace of the run."""

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
    """When it ended, by its status: then nothing else of it is kept, and nothing happens to it but its TTL."""
    ttl: int | None = None
    deleting: bool = False
    suspend: bool = False
    cancel: bool = False
    written: bytes | None = None
    """Labels and spec, as an object in JSON: what a run is pinned from. Kept of a run that is still to be pinned, if it
    is small; else None, and ``Cluster.get_written`` has it.
    """
    waits_for: str = ""
    """The AgentWorkflow that it refers to, until it is pinned."""
    status: Mapping[str, Any] | None = None
    """None of a finished run."""
    requested_by: str | None = None
    """Who made it, by the admission policy's word; None: nobody vouches for it."""
    changed_by: Mapping[str, str] = field(default_factory=dict)
    """Who changed ``suspend``, ``cancel`` and ``ttlSecondsAfterFinished`` last, as far as it says."""
    observed: int = 0
    """The generation that its status is about."""
    problem: str = ""
    """Why it cannot be read whole; then it cannot begin."""
    large: bool = False
    """Whether each write of it is long work for the API server."""

    @property
    def run(self) -> RunRef:
        """Itself, as the objects that belong to it say it."""
        return self.ref

    @property
    def name(self) -> str:
        """Its own."""
        return self.ref.name

    @property
    def begun(self) -> bool:
        """Whether its status says that it is pinned in a journal; one that is not may be pinned all the same."""
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
    """Seconds that it has to leave, if it was told to."""
    allowance: Allowance = field(default_factory=Allowance)
    """The part of the run's budget that its attempt may spend."""
    drain: bool = False
    """Its attempt settles what is open at the end of the run, and leaves."""
    stray: bool = False
    """It has ended by somebody's word, while its kubelet's last word is that it is at work."""
    fact: StepFact | None = None
    """The runner's last word (termination message); None where it left none, or one that was too long to hold all."""
    trouble: tuple[Reason, str] | None = None
    """Why it does not start, or is not heard of, or how it ended if not by the runner's word, for a person."""
    lost: Lost = Lost.OTHER
    """How it ended if not by the runner's word, for the metric."""


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
    """It has its ``Decided`` condition."""


@dataclass(frozen=True, slots=True)
class CommandView:
    """An AgentCommand."""

    name: str
    namespace: str
    uid: str
    version: int
    run: RunRef
    run_uid: str | None
    """The run that it is for, where it says so; a run that was made anew under the name is another one."""
    by: str | None
    command: Command | None
    """None of a large one, which ``Cluster.get_command`` has; and where there is a ``problem``."""
    problem: str = ""
    """Why it is none."""


class WorkflowView(NamedTuple):
    """An AgentWorkflow: only that there is a new one. Runs may wait for it."""

    namespace: str
    name: str


T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[T]):
    """A kind of objects that is watched; its objects are seen as ``T``."""

    plural: str
    """Its resource, which metrics and probes name."""
    kind: str
    group: str
    """Empty for Kubernetes' own core."""
    version: str
    labels: str = ""
    """The selector of those that are watched; empty: all of them."""
    kept: bool = True
    """Its objects are listed and stand in the cache; else only their events count."""


PODS: Final[Kind[PodView]] = Kind("pods", "Pod", "", "v1", labels=RUN_LABEL)
APPROVALS: Final[Kind[ApprovalView]] = Kind("approvals", "Approval", GROUP, VERSION)
COMMANDS: Final[Kind[CommandView]] = Kind("agentcommands", "AgentCommand", GROUP, VERSION)
WORKFLOWS: Final[Kind[WorkflowView]] = Kind("agentworkflows", "AgentWorkflow", GROUP, VERSION, kept=False)
RUNS: Final[Kind[RunView]] = Kind("agentruns", "AgentRun", GROUP, VERSION)

WATCHED: Final[tuple[Kind[Any], ...]] = (PODS, APPROVALS, COMMANDS, WORKFLOWS, RUNS)
"""Every kind, in the order in which they are listed. Runs come last: what belongs to them is in the cache when they are
visited for the first time."""

KEPT: Final[tuple[Kind[Any], ...]] = tuple(kind for kind in WATCHED if kind.kept)
"""Those that the cache holds."""
