"""The reconciler's interface to the cluster. The adapters implement it on the Kubernetes API.

``agentrun.kube.errors`` has the errors of its methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agentrun.control.views import ApprovalView, CommandView, PodView, RunRef, RunView
from agentrun.journal.pinned import PinnedRun
from agentrun.plan.snapshot import Start


@dataclass(frozen=True, slots=True)
class Written:
    """The part of an AgentRun that the user wrote."""

    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    size: int
    """Bytes of the whole object as JSON, the form in which etcd stores it."""
    problem: str = ""
    """Why the object cannot be read whole; "" if it can."""


class Cluster(Protocol):
    """The API server. Every method may raise Unavailable or Unauthorized.

    After a cancellation the request may have been carried out.
    """

    async def get_run(self, ref: RunRef) -> RunView | None:
        """The run as the API server has it now, not as it was last seen; None if it is gone."""

    async def get_written(self, run: RunView) -> Written:
        """Read what the user wrote of a run from the API server. Raises Conflict if the run is gone."""

    async def get_workflow(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The whole AgentWorkflow; None if there is none."""

    async def create_pod(self, run: RunView, pinned: PinnedRun, start: Start) -> PodView:
        """Create the pod of an attempt. If the pod exists already and belongs to this run, return it unchanged.

        Raises:
            Refused: the API server does not take the pod, or a pod of that name belongs to another owner.
            NotFound: the namespace is being deleted.
        """

    async def find_pod(self, run: RunView, pinned: PinnedRun, start: Start) -> PodView | None:
        """The pod of an attempt as it is now; None if there is none, or it belongs to another owner."""

    async def delete_pod(self, pod: PodView) -> None:
        """Delete a pod, with SIGTERM and its grace period. Another pod of that name is left alone."""

    async def sweep_pods(self, namespace: str) -> None:
        """Delete all ended step pods of a namespace, in one request."""

    async def create_approval(self, approval: Mapping[str, Any]) -> ApprovalView:
        """Create an Approval. If this run's Approval exists already, return it as it is.

        Raises:
            AlreadyExists: an Approval of that name exists, of another run or another question.
            Refused: the API server does not take the Approval.
        """

    async def settle_approval(self, approval: ApprovalView, reason: str, message: str, at: float) -> None:
        """Close an Approval by its ``Decided`` condition. Do nothing if it is gone. Raises Conflict."""

    async def delete_approval(self, approval: ApprovalView) -> None:
        """Delete an Approval whose run is gone. Another Approval of that name is left alone."""

    async def get_command(self, command: CommandView) -> CommandView | None:
        """Read the whole command from the API server, however large it is; None if it is gone."""

    async def answer_command(self, command: CommandView, refusal: str, at: float) -> CommandView | None:
        """Write the answer into the status of a command that still has its ``version``. Return it after the write.

        ``refusal`` says why the command is rejected; "": it is recorded. ``at``: seconds since the epoch. If the API
        server takes no status for the command, delete it, and return None. Return None, too, if it is gone.

        Raises Conflict.
        """

    async def delete_command(self, command: CommandView) -> None:
        """Delete a command that was recorded or rejected. Another command of that name is left alone."""

    async def record_refusal(self, command: CommandView, why: str) -> None:
        """Create an Event about a command whose run does not exist. Best effort: never raises."""

    async def patch_status(self, run: RunView, version: int, status: Mapping[str, Any]) -> RunView:
        """Replace the status of a run that still has ``version``. Return the run after the write.

        Raises Conflict, NotFound; Invalid if the API server will never take this status.
        """

    async def observe(self, run: RunView) -> RunView:
        """Set ``observedGeneration`` in the status of an ended run to its newest one. Return the run after the write.

        Raises Conflict, NotFound.
        """

    async def delete_run(self, run: RunView) -> None:
        """Delete a run whose time to live is over. Another run of that name is left alone."""

    async def record_event(self, run: RunView, kind: str, reason: str, message: str) -> None:
        """Create an Event for ``kubectl describe``. ``kind`` is Normal or Warning. Best effort: never raises."""
