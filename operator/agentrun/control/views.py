"""What the operator keeps of each object that it watches: small frozen values, made by the adapters.

An object as the API server sends it takes some ten KB as Python dictionaries, a large one 34 MB; of a pod, and of a run
that is pinned in its journal, refused or finished, a few words are enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from agentrun.api.approval import Decision
from agentrun.api.command import Command
from agentrun.api.facts import Allowance, StepFact, StepKey
from agentrun.api.run import Reason
from agentrun.observe.metrics import Lost


class RunRef(NamedTuple):
    """Which run: the key of the work queue."""

    namespace: str
    name: str


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
