"""The API server of a cluster in memory: objects with versions, the events of its watches, and people's requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from agentrun.adapters.objects import approval_view, command_view, run_view
from agentrun.adapters.pods import pod_name
from agentrun.api.canonical import timestamp
from agentrun.api.command import accepted
from agentrun.api.labels import REQUESTED_BY
from agentrun.api.run import CHANGED_BY
from agentrun.api.workflow import API_VERSION
from agentrun.control.views import ApprovalView, CommandView, PodView, RunView
from agentrun.journal.pinned import PinnedRun
from agentrun.kube.errors import AlreadyExists, Conflict, NotFound, Refused
from agentrun.plan.snapshot import Start
from tests.harness.fake_kubelet import Container

if TYPE_CHECKING:
    from tests.harness.cluster_world import ClusterWorld

Kind = Literal["runs", "pods", "approvals", "commands"]
KINDS: tuple[Kind, ...] = ("pods", "approvals", "commands", "runs")
SPACE = "n"
GRACE = 30.0
"""Seconds of a pod's grace period."""

Obj = dict[str, Any]


class Api:
    """The API server: objects with versions, and the log of its watch events."""

    def __init__(self, world: ClusterWorld) -> None:
        self.world = world
        self.version = 100
        self.objects: dict[Kind, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.log: dict[Kind, list[tuple[bool, Any]]] = {kind: [] for kind in KINDS}
        """The watch events by kind: whether the object was deleted, and its view."""
        self.workflows: dict[str, Obj] = {}
        self.events: list[tuple[str, str]] = []
        """The Events about runs: reason and message."""
        self.refuse: str | None = None
        """Why pod creations are rejected now; None if they are not."""

    # -- objects ----------------------------------------------------------------------------------------------------

    def view(self, kind: Kind, obj: Any) -> Any:
        if kind == "runs":
            return run_view(obj)
        if kind == "approvals":
            return approval_view(obj, self.world.now)
        return command_view(obj) if kind == "commands" else obj

    def write(self, kind: Kind, name: str, obj: Any) -> Any:
        """Store the object under a new version, and return its view."""
        self.version += 1
        if isinstance(obj, PodView):
            obj = replace(obj, version=self.version)
        else:
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self.objects[kind][name] = obj
        seen = self.view(kind, obj)
        self.log[kind].append((False, seen))
        return seen

    def make(self, kind: Kind, obj: Obj) -> Any:
        meta = {
            **obj["metadata"],
            "namespace": SPACE,
            "uid": self.world.new_uid(),
            "generation": 1,
            "creationTimestamp": timestamp(self.world.now),
        }
        if meta["name"] in self.objects[kind]:
            raise AlreadyExists(f"{kind} {meta['name']}")
        return self.write(kind, meta["name"], {**obj, "metadata": meta})

    def remove(self, kind: Kind, name: str, *, orphan: bool = False) -> None:
        """Delete an object. With ``orphan``, the objects that it owns stay."""
        obj = self.objects[kind].pop(name)
        self.version += 1
        seen = replace(self.view(kind, obj), version=self.version)
        self.log[kind].append((True, seen))
        if kind == "runs" and not orphan:  # the objects that it owns are deleted too
            for owned in ("pods", "approvals"):
                for view in self.all(owned):
                    if view.run_uid == seen.uid:
                        self.remove(owned, view.name)

    def all(self, kind: Kind) -> list[Any]:
        """The views of all objects of a kind."""
        return [self.view(kind, obj) for obj in self.objects[kind].values()]

    # -- what operators ask -----------------------------------------------------------------------------------------

    def create_pod(self, run: RunView, pinned: PinnedRun, start: Start) -> PodView:
        name = pod_name(run.ref.name, run.uid, start.key, start.attempt)
        if name in self.objects["pods"]:
            found: PodView = self.objects["pods"][name]
            if found.run_uid != run.uid:
                raise Refused(f"pod {name} belongs to another")
            return found
        if self.refuse is not None:
            raise Refused(self.refuse)
        self.world.about_to_create(run, start)
        view = PodView(
            name,
            SPACE,
            self.world.new_uid(),
            0,
            run.ref,
            run.uid,
            start.key,
            start.attempt,
            "Pending",
            allowance=start.allowance,
            drain=start.drain,
        )
        self.world.containers[view.uid] = Container(self.world, pinned, start)
        made: PodView = self.write("pods", name, view)
        return made

    def find_pod(self, run: RunView, start: Start) -> PodView | None:
        found: PodView | None = self.objects["pods"].get(pod_name(run.ref.name, run.uid, start.key, start.attempt))
        return found if found is not None and found.run_uid == run.uid else None

    def delete_pod(self, pod: PodView) -> None:
        there: PodView | None = self.objects["pods"].get(pod.name)
        if there is not None and there.uid == pod.uid and there.grace is None:
            if there.phase == "Ended":
                self.remove("pods", pod.name)
            else:
                self.write("pods", pod.name, replace(there, grace=GRACE))
                self.world.leaving[there.uid] = self.world.now + GRACE

    def sweep(self) -> None:
        for pod in self.all("pods"):
            if pod.phase == "Ended":
                self.remove("pods", pod.name)

    def create_approval(self, approval: Mapping[str, Any]) -> ApprovalView:
        found = self.objects["approvals"].get(approval["metadata"]["name"])
        if found is None:
            made: ApprovalView = self.make("approvals", dict(approval))
            return made
        if any(found["spec"][k] != approval["spec"][k] for k in ("run", "digest")):
            raise AlreadyExists(f"approval {approval['metadata']['name']}")
        there: ApprovalView = self.view("approvals", found)
        return there

    def settle_approval(self, approval: ApprovalView, reason: str) -> None:
        obj = self.objects["approvals"].get(approval.name)
        if obj is None:
            return
        if obj["metadata"]["resourceVersion"] != str(approval.version):
            raise Conflict(f"approval {approval.name} has changed")
        condition = {"type": "Decided", "status": "True", "reason": reason}
        self.write("approvals", approval.name, {**obj, "status": {**obj.get("status", {}), "conditions": [condition]}})

    def delete_approval(self, approval: ApprovalView) -> None:
        there = self.objects["approvals"].get(approval.name)
        if there is not None and there["metadata"]["uid"] == approval.uid:
            self.remove("approvals", approval.name)

    def answer_command(self, command: CommandView, refusal: str) -> CommandView | None:
        obj = self.objects["commands"].get(command.name)
        if obj is None:
            return None
        if obj["metadata"]["resourceVersion"] != str(command.version):
            raise Conflict(f"command {command.name} has changed")
        if "status" in obj:
            self.world.wrong.append(f"command {command.name} was answered twice")
        status = {"conditions": [accepted(refusal, self.world.now)]}
        after: CommandView = self.write("commands", command.name, {**obj, "status": status})
        return after

    def delete_command(self, command: CommandView) -> None:
        there = self.objects["commands"].get(command.name)
        if there is not None and there["metadata"]["uid"] == command.uid:
            self.remove("commands", command.name)

    def patch_status(self, run: RunView, version: int, status: Mapping[str, Any]) -> RunView:
        obj = self.objects["runs"].get(run.ref.name)
        if obj is None:
            raise NotFound(f"run {run.ref.name} is gone")
        if obj["metadata"]["resourceVersion"] != str(version):
            raise Conflict(f"run {run.ref.name} has changed")
        before = obj.get("status", {})
        if "completionTime" in before:
            self.world.wrong.append(f"the status of a run that ended was written: {before} -> {status}")
        self.world.statuses.append(dict(status))
        after: RunView = self.write("runs", run.ref.name, {**obj, "status": dict(status)})
        return after

    def observe(self, run: RunView) -> RunView:
        obj = self.objects["runs"].get(run.ref.name)
        if obj is None:
            raise NotFound(f"run {run.ref.name} is gone")
        if obj["metadata"]["resourceVersion"] != str(run.version):
            raise Conflict(f"run {run.ref.name} has changed")
        status = {**obj["status"], "observedGeneration": run.generation}
        after: RunView = self.write("runs", run.ref.name, {**obj, "status": status})
        return after

    def delete_run(self, run: RunView) -> None:
        obj = self.objects["runs"].get(run.ref.name)
        if obj is not None and obj["metadata"]["uid"] == run.uid:
            self.remove("runs", run.ref.name)

    # -- what people do ---------------------------------------------------------------------------------------------

    def apply_run(self, name: str, spec: Obj, by: str = "ana") -> RunView:
        meta = {"name": name, "annotations": {REQUESTED_BY: by}}
        made: RunView = self.make("runs", {"metadata": meta, "spec": spec})
        return made

    def edit_run(self, name: str, by: str | None = "ana", **changes: Any) -> None:
        """Change fields of the spec. ``by`` is the user that the admission policy records; None without a policy."""
        obj = self.objects["runs"][name]
        notes = obj["metadata"].get("annotations", {})
        notes = notes | {CHANGED_BY[field]: by for field in changes if by is not None}
        meta = {**obj["metadata"], "generation": obj["metadata"]["generation"] + 1, "annotations": notes}
        self.write("runs", name, {**obj, "metadata": meta, "spec": {**obj["spec"], **changes}})

    def decide(self, name: str, by: str = "ben", decision: str = "Approved") -> bool:
        """Decide an Approval, and return whether the API server accepted the decision."""
        obj = self.objects["approvals"][name]
        status = obj.get("status", {})
        said = status.get("decisions", [])
        if status.get("conditions") or any(d["by"] == by for d in said):
            return False
        at = timestamp(self.world.now)
        entry = {"by": by, "decision": decision, "digest": obj["spec"]["digest"], "comment": "", "at": at}
        writer: Obj = {"manager": by, "subresource": "status", "time": at}
        writer["fieldsV1"] = {"f:status": {"f:decisions": {f'k:{{"by":"{by}"}}': {}}}}
        managed = [*obj["metadata"].get("managedFields", ()), writer]
        obj = {**obj, "metadata": {**obj["metadata"], "managedFields": managed}}
        self.write("approvals", name, {**obj, "status": {**status, "decisions": [*said, entry]}})
        return True

    def answers(self) -> dict[str, str]:
        """The reason of each answered AgentCommand, by name; "" of those that have no answer."""
        return {
            name: obj["status"]["conditions"][0]["reason"] if "status" in obj else ""
            for name, obj in self.objects["commands"].items()
        }

    def command(self, run: str, by: str = "ana", uid: str | None = None, **verb: Any) -> str:
        """Create an AgentCommand, and return its name."""
        name = f"command-{self.world.new_uid()[:8]}"
        meta = {"name": name, "annotations": {REQUESTED_BY: by}}
        spec = {"run": {"name": run} | ({"uid": uid} if uid else {}), **verb}
        self.make("commands", {"apiVersion": API_VERSION, "kind": "AgentCommand", "metadata": meta, "spec": spec})
        return name
