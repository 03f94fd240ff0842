"""What the reconciler asks of the cluster. The adapters implement it on the Kubernetes API.

How a call fails: ``agentrun.kube.errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agentrun.control.views import ApprovalView, CommandView, PodView, RunRef, RunView
from agentrun.journal.pinned import Pinned
from agentrun.plan.snapshot import Start


@dataclass(frozen=True, slots=True)
class Written:
    """What the user wrote of a run."""

    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    size: int
    """Bytes of the whole object as JSON, which is how etcd has it."""
    problem: str = ""
    """Why it cannot be read whole."""


class Cluster(Protocol):
    """The API server. Every method may raise Unavailable or Unauthorized.

    Cancellation leaves a request that may have been done.
    """

    async def get_run(self, ref: RunRef) -> RunView | None:
        """The run as it is now, not as it was last seen."""

    async def get_written(self, run: RunView) -> Written:
        """What the user wrote of a run, read anew. Raises Conflict where the run is gone."""

    async def get_workflow(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """An AgentWorkflow, whole."""

    async def create_pod(self, run: RunView, pinned: Pinned, start: Start) -> PodView:
        """The pod of an attempt; one that is there already and is this run's own is returned as it is.

        Raises:
            Refused: the API server does not take it; a pod of that name that belongs to another owner counts.
            NotFound: the namespace is going away.
        """

    async def find_pod(self, run: RunView, pinned: Pinned, start: Start) -> PodView | None:
        """The pod of an attempt as it is now, if it is there and this run's own."""

    async def delete_pod(self, pod: PodView) -> None:
        """Ask a pod to leave (SIGTERM, then its grace period). Nothing happens to another pod of that name."""

    async def sweep_pods(self, namespace: str) -> None:
        """Remove every pod of a step there that has ended, in one request."""

    async def create_approval(self, approval: Mapping[str, Any]) -> ApprovalView:
        """Ask people; the Approval as it is then, which it may have been before.

        Raises:
            AlreadyExists: another run's of that name is still there.
            Refused: the API server does not take it.
        """

    async def settle_approval(self, approval: ApprovalView, reason: str, message: str, at: float) -> None:
        """Set its ``Decided`` condition. Nothing happens to one that is gone. Raises Conflict."""

    async def delete_approval(self, approval: ApprovalView) -> None:
        """What is left of a run that is gone. Nothing happens to another one of that name."""

    async def get_command(self, command: CommandView) -> CommandView | None:
        """A command as it is now, whole, however large; None where it is gone."""

    async def delete_command(self, command: CommandView) -> None:
        """A command that is in the journal, or can never be."""

    async def refuse_command(self, command: CommandView, why: str) -> None:
        """As ``delete_command``, of one whose run is not there: an Event about the command itself says so first."""

    async def patch_status(self, run: RunView, version: int, status: Mapping[str, Any]) -> RunView:
        """Replace the run's status if it still has ``version``; the run after that.

        Raises Conflict, NotFound; Invalid where the API server will never take this status.
        """

    async def observe(self, run: RunView) -> RunView:
        """Say that the status of a run that has ended is about its newest generation; the run after that.

        Raises Conflict, NotFound.
        """

    async def delete_run(self, run: RunView) -> None:
        """Its time to live is over. Nothing happens to another run of that name."""

    async def record_event(self, run: RunView, kind: str, reason: str, message: str) -> None:
        """A Kubernetes Event for ``kubectl describe``: ``kind`` is Normal or Warning. Best effort: never raises."""
