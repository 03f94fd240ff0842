"""Implements the reconciler's interfaces (``control.cluster``, ``control.leader``) on the Kubernetes API.

Each write is one request, and can be repeated if its answer was lost: the names of pods, Approvals and Events follow
from their purpose, and every other write names the version or the uid that it is meant for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from agentrun.adapters.objects import approval_view, owned_by, run_view, shown_as, whole_command
from agentrun.adapters.pod_status import pod_view
from agentrun.adapters.watched import path_of
from agentrun.api.approval import DECIDED
from agentrun.api.canonical import timestamp
from agentrun.api.command import accepted
from agentrun.api.decoding import UNREADABLE
from agentrun.api.labels import RUN_LABEL
from agentrun.api.printable import printable
from agentrun.api.workflow import API_VERSION
from agentrun.control.cluster import Written
from agentrun.control.leader import DURATION, Held
from agentrun.control.views import (
    APPROVALS,
    COMMANDS,
    PODS,
    RUNS,
    WORKFLOWS,
    ApprovalView,
    CommandView,
    PodView,
    RunRef,
    RunView,
)
from agentrun.journal.pinned import PinnedRun
from agentrun.kube.client import JSON_PATCH, METADATA, Kube
from agentrun.kube.errors import AlreadyExists, ClusterError, Conflict, NotFound, Refused, Unavailable
from agentrun.plan.snapshot import Start

ENDED = "status.phase!=Pending,status.phase!=Running,status.phase!=Unknown"

NOTE_MAX: Final = 1024
"""The longest note of an Event, in bytes. The API server refuses a longer one."""

EVENTS_PER_RUN: Final = 25
"""Events that one process creates for one run at most. So a run that goes round in a circle stops making Events."""

EVENT_RUNS: Final = 2000
"""Runs whose Events this process remembers. It may try those of older runs again, but the API server still has them."""

_log = logging.getLogger(__name__)


class KubernetesCluster:
    """``control.cluster.Cluster`` over ``kube``. ``build_pod`` makes the complete pod of an attempt.

    Calls for many runs may run side by side. Each method may raise Unavailable.
    """

    def __init__(
        self,
        kube: Kube,
        build_pod: Callable[[RunView, PinnedRun, Start], dict[str, Any]],
        *,
        instance: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._build_pod = build_pod
        self._instance = instance
        self._now = now
        self._told: OrderedDict[str, set[str]] = OrderedDict()
        """The names of the Events that this process has created, by run (or by a name that no run has). Lost with the
        process: then the API server answers that they exist.
        """

    async def get_run(self, ref: RunRef) -> RunView | None:
        """As ``Cluster.get_run``."""
        found = await self._get(path_of(RUNS, *ref))
        return None if found is None else run_view(found)

    async def get_written(self, run: RunView) -> Written:
        """As ``Cluster.get_written``."""
        found = await self._get(path_of(RUNS, *run.ref))
        if found is None or found["metadata"]["uid"] != run.uid:
            raise Conflict(f"AgentRun {run.ref.namespace}/{run.ref.name} ({run.uid}) no longer exists")
        size = len(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"))
        labels, spec = found["metadata"].get("labels") or {}, found.get("spec") or {}
        return Written(labels, spec, size, found.get(UNREADABLE, ""))

    async def get_workflow(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """As ``Cluster.get_workflow``."""
        return await self._get(path_of(WORKFLOWS, namespace, name))

    async def create_pod(self, run: RunView, pinned: PinnedRun, start: Start) -> PodView:
        """As ``Cluster.create_pod``."""
        body = self._build_pod(run, pinned, start)
        namespace, name = run.ref.namespace, body["metadata"]["name"]
        try:
            answer = await self._kube.create(path_of(PODS, namespace), body, accept=METADATA)
            made = {"metadata": answer["metadata"], "spec": body["spec"]}
        except AlreadyExists:
            found = await self._get(path_of(PODS, namespace, name))
            if found is None:  # it was deleted in between
                raise Unavailable(f"pod {namespace}/{name} was deleted in the meantime: try again", 0.0) from None
            if not owned_by(found, run.uid):
                raise Refused(
                    f"pod {namespace}/{name} already exists and belongs to {_owner(found)}, not to AgentRun"
                    f" {run.ref.name} ({run.uid}): delete that pod"
                ) from None
            made = found
        except Conflict as error:  # two creations met in a ResourceQuota's count
            raise Unavailable(str(error), 0.0) from error
        view = pod_view(made)
        if view is None:
            raise Refused(f"pod {namespace}/{name} no longer says what it was created to run: delete that pod")
        return view

    async def find_pod(self, run: RunView, pinned: PinnedRun, start: Start) -> PodView | None:
        """As ``Cluster.find_pod``."""
        name = self._build_pod(run, pinned, start)["metadata"]["name"]
        found = await self._get(path_of(PODS, run.ref.namespace, name))
        return None if found is None or not owned_by(found, run.uid) else pod_view(found)

    async def delete_pod(self, pod: PodView) -> None:
        """As ``Cluster.delete_pod``."""
        await self._delete(path_of(PODS, pod.namespace, pod.name), pod.uid)

    async def sweep_pods(self, namespace: str) -> None:
        """As ``Cluster.sweep_pods``."""
        await self._kube.delete_collection(path_of(PODS, namespace), labels=RUN_LABEL, fields=ENDED, grace=0)

    async def create_approval(self, approval: Mapping[str, Any]) -> ApprovalView:
        """As ``Cluster.create_approval``."""
        namespace, name = approval["metadata"]["namespace"], approval["metadata"]["name"]
        try:
            made = await self._kube.create(path_of(APPROVALS, namespace), approval)
        except AlreadyExists:
            found = await self._get(path_of(APPROVALS, namespace, name))
            if found is None:
                raise Unavailable(f"Approval {namespace}/{name} was deleted in the meantime: try again", 0.0) from None
            asked, wanted = found["spec"], approval["spec"]
            if asked["run"]["uid"] != wanted["run"]["uid"] or asked["digest"] != wanted["digest"]:
                raise
            made = found
        return approval_view(made, self._now())

    async def settle_approval(self, approval: ApprovalView, reason: str, message: str, at: float) -> None:
        """As ``Cluster.settle_approval``. The decisions stay as they are. Raises Conflict if one came in between."""
        condition = {
            "type": DECIDED,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": timestamp(at),
        }
        body = {"metadata": {"resourceVersion": str(approval.version)}, "status": {"conditions": [condition]}}
        try:
            await self._kube.patch(path_of(APPROVALS, approval.namespace, approval.name) + "/status", body)
        except NotFound:
            return

    async def delete_approval(self, approval: ApprovalView) -> None:
        """As ``Cluster.delete_approval``."""
        await self._delete(path_of(APPROVALS, approval.namespace, approval.name), approval.uid)

    async def get_command(self, command: CommandView) -> CommandView | None:
        """As ``Cluster.get_command``."""
        found = await self._get(path_of(COMMANDS, command.namespace, command.name))
        return None if found is None or found["metadata"]["uid"] != command.uid else whole_command(found)

    async def answer_command(self, command: CommandView, refusal: str, at: float) -> CommandView | None:
        """As ``Cluster.answer_command``. The patch is of the same form as that of ``patch_status``."""
        path = path_of(COMMANDS, command.namespace, command.name)
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": str(command.version)},
            {"op": "add", "path": "/status", "value": {"conditions": [accepted(refusal, at)]}},
        ]
        try:
            answer = await self._kube.patch(path + "/status", patch, JSON_PATCH, accept=METADATA)
        except (NotFound, Refused) as error:
            # The command is gone, or the CRD of an earlier version has no status, or the object has no room for one.
            # A command that stayed without an answer would be taken up again for ever.
            _log.info("AgentCommand %s/%s gets no status: %s", command.namespace, command.name, error)
            await self.delete_command(command)
            return None
        return replace(command, version=int(answer["metadata"]["resourceVersion"]), command=None, answered=at)

    async def delete_command(self, command: CommandView) -> None:
        """As ``Cluster.delete_command``."""
        await self._delete(path_of(COMMANDS, command.namespace, command.name), command.uid)

    async def record_refusal(self, command: CommandView, why: str) -> None:
        """As ``Cluster.record_refusal``. Creates at most ``EVENTS_PER_RUN`` Events for one name that no run has."""
        about = {"kind": "AgentCommand", "name": command.name, "namespace": command.namespace, "uid": command.uid}
        await self._tell(about, "/".join(command.run), "Warning", "CommandRefused", f"{command.name}: {why}")

    async def patch_status(self, run: RunView, version: int, status: Mapping[str, Any]) -> RunView:
        """As ``Cluster.patch_status``.

        It is a JSON patch: a merge patch would keep removed fields, and drop nulls in a step's output. The patch writes
        the version instead of testing it, because a failed test is 422, but a stale version is 409. No two objects
        share a version, so it stands for the uid too.
        """
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": str(version)},
            {"op": "add", "path": "/status", "value": status},
        ]
        answer = await self._kube.patch(path_of(RUNS, *run.ref) + "/status", patch, JSON_PATCH, accept=METADATA)
        return shown_as(run, answer["metadata"], status)

    async def observe(self, run: RunView) -> RunView:
        """As ``Cluster.observe``."""
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": str(run.version)},
            {"op": "add", "path": "/status/observedGeneration", "value": run.generation},
        ]
        answer = await self._kube.patch(path_of(RUNS, *run.ref) + "/status", patch, JSON_PATCH, accept=METADATA)
        return replace(run, version=int(answer["metadata"]["resourceVersion"]), observed=run.generation)

    async def delete_run(self, run: RunView) -> None:
        """As ``Cluster.delete_run``."""
        await self._delete(path_of(RUNS, *run.ref), run.uid)

    async def record_event(self, run: RunView, kind: str, reason: str, message: str) -> None:
        """As ``Cluster.record_event``.

        The name of an Event follows from the run and the content. So the same Event is created once while the API
        server keeps it (an hour), whichever replica leads. One process creates at most ``EVENTS_PER_RUN`` for a run.
        """
        about = {"kind": "AgentRun", "name": run.ref.name, "namespace": run.ref.namespace, "uid": run.uid}
        await self._tell(about, run.uid, kind, reason, message)

    async def _tell(self, about: Mapping[str, str], subject: str, kind: str, reason: str, message: str) -> None:
        """Create an Event. ``EVENTS_PER_RUN`` is counted by ``subject``."""
        digest = hashlib.sha256("\0".join((about["uid"], kind, reason, message)).encode(errors="replace")).hexdigest()
        name = f"{about['name']}.{digest[:16]}"
        told = self._told.setdefault(subject, set())
        self._told.move_to_end(subject)
        if len(self._told) > EVENT_RUNS:
            self._told.popitem(last=False)
        if name in told or len(told) >= EVENTS_PER_RUN:
            return
        told.add(name)
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about["namespace"]},
            "eventTime": timestamp(self._now()),
            "type": kind,
            "reason": reason,
            "action": reason,
            "note": printable(message, size=NOTE_MAX),
            "reportingController": "agentrun.dev/operator",
            "reportingInstance": self._instance[:128],
            "regarding": {"apiVersion": API_VERSION, **about},
        }
        try:
            await self._kube.create(f"/apis/events.k8s.io/v1/namespaces/{about['namespace']}/events", body)
        except AlreadyExists:
            return
        except ClusterError as error:  # also NotLeader: an Event is best effort
            _log.info(
                "an Event about %s %s/%s could not be created: %s",
                about["kind"],
                about["namespace"],
                about["name"],
                error,
            )

    async def _get(self, path: str) -> dict[str, Any] | None:
        try:
            return await self._kube.get(path)
        except NotFound:
            return None

    async def _delete(self, path: str, uid: str) -> None:
        try:
            await self._kube.delete(path, uid=uid)
        except (NotFound, Conflict):  # it is gone, or another object has its name
            return


class KubernetesLease:
    """``control.leader.Lease`` over ``kube``. It needs a ``Kube`` of its own, so that a renewal neither waits behind
    other requests nor is stopped by their guard.

    The time in the Lease is for people, and tells one write from another. No code compares it with a clock.
    """

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace, self._name = namespace, name
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    async def get(self) -> Held | None:
        """As ``Lease.get``."""
        try:
            return _held(await self._kube.get(f"{self._collection}/{self._name}"))
        except NotFound:
            return None

    async def create(self, held: Held) -> Held:
        """As ``Lease.create``."""
        body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": self._spec(held)}
        return _held(await self._kube.create(self._collection, body))

    async def update(self, held: Held) -> Held:
        """As ``Lease.update``. It is a patch, so that labels and annotations stay."""
        body = {"metadata": {"resourceVersion": held.version}, "spec": self._spec(held)}
        return _held(await self._kube.patch(f"{self._collection}/{self._name}", body))

    def _spec(self, held: Held) -> dict[str, Any]:
        return {
            "holderIdentity": held.holder,
            "leaseDurationSeconds": round(held.duration),
            "leaseTransitions": held.transitions,
            "renewTime": held.stamp,
        }


def _held(obj: Mapping[str, Any]) -> Held:
    spec = obj.get("spec") or {}
    return Held(
        spec.get("holderIdentity") or "",
        obj["metadata"]["resourceVersion"],
        float(spec.get("leaseDurationSeconds") or DURATION),
        spec.get("leaseTransitions") or 0,
        spec.get("renewTime") or "",
    )


def _owner(obj: Mapping[str, Any]) -> str:
    owners = obj["metadata"].get("ownerReferences")
    if not owners:
        return "nobody"
    return ", ".join(f"{owner['kind']} {owner['name']} ({owner['uid']})" for owner in owners)
