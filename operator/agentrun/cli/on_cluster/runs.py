"""An AgentRun as the cluster has it, and its journal where the caller may read that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agentrun.api.canonical import digest_of
from agentrun.api.names import REQUESTED_BY, RUN_LABEL
from agentrun.api.run import CHANGED_BY, Outcome, Reason
from agentrun.api.texts import quoted
from agentrun.api.workflow import WorkflowSpec
from agentrun.cli.failures import Refused
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.refusals import DENIED
from agentrun.cli.options import ClusterPlace, run_name
from agentrun.cli.printable import printable
from agentrun.journal.layout import RunPath
from agentrun.kube.errors import NotFound
from agentrun.records.waits import WAITS, MovedBy
from agentrun.store.open import open_store
from agentrun.store.protocol import Store

RUNS = "agentruns"
WORKFLOWS = "agentworkflows"
APPROVALS = "approvals"
COMMANDS = "agentcommands"

_APPLY_FIRST = {str(Reason.WORKFLOW_NOT_FOUND), str(Reason.SOURCE_NOT_FOUND)}
_OUTCOMES = {str(outcome) for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Run:
    """An AgentRun at one moment."""

    obj: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.obj["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """Kubernetes' own uid, with hyphens."""
        return str(self.obj["metadata"]["uid"])

    @property
    def version(self) -> str:
        """The resourceVersion."""
        return str(self.obj["metadata"]["resourceVersion"])

    @property
    def path(self) -> str:
        """Of the object at the API server."""
        return f"{collection(RUNS, self.namespace)}/{self.name}"

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for."""
        found: dict[str, Any] = self.obj["spec"]
        return found

    @property
    def status(self) -> dict[str, Any]:
        """What the operator saw; empty before it came to the run."""
        return self.obj.get("status") or {}

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The steps' entries by name."""
        return {entry["name"]: entry for entry in self.status.get("steps", ())}

    @property
    def phase(self) -> str:
        """The phase; Pending where no operator has seen the run."""
        return str(self.status.get("phase") or Reason.PENDING)

    @property
    def reason(self) -> str:
        """The reason of the condition Ready."""
        found = (c["reason"] for c in self.status.get("conditions", ()) if c["type"] == "Ready")
        return next(found, "")

    @property
    def requester(self) -> str | None:
        """Who made it; None where nobody vouches for a name."""
        found = (self.obj["metadata"].get("annotations") or {}).get(REQUESTED_BY)
        return str(found) if found else None

    def changer(self, field: str) -> str | None:
        """Who changed that field of the spec last; None where nobody says so."""
        found = (self.obj["metadata"].get("annotations") or {}).get(CHANGED_BY[field])
        return str(found) if found else None

    @property
    def ended(self) -> bool:
        """Whether the run has ended: it can no longer change."""
        return "completionTime" in self.status or self.phase in _OUTCOMES

    @property
    def hopeless(self) -> bool:
        """Whether it will never begin: its spec is not valid, and a spec does not change."""
        return self.reason == Reason.INVALID_SPEC

    @property
    def suspended(self) -> bool:
        """Whether it starts nothing until it is resumed."""
        return bool(self.spec.get("suspend")) and not self.spec.get("cancel") and not self.ended

    @property
    def seen(self) -> bool:
        """Whether the operator has seen the spec as it is."""
        return int(self.status.get("observedGeneration", 0)) >= int(self.obj["metadata"].get("generation", 0))

    @property
    def waits_for_person(self) -> bool:
        """Whether nothing moves until a person does something."""
        if self.ended or not self.seen:
            return False
        if self.hopeless or self.reason in _APPLY_FIRST:
            return True
        if any(entry["state"] == "Running" for entry in self.entries.values()):
            return False
        waiting = [entry["waitingFor"] for entry in self.entries.values() if "waitingFor" in entry]
        moved_by = {WAITS[kind].moved_by for what in waiting for kind in what if kind in WAITS}
        return self.phase in (Reason.SUSPENDED, "Stalled") or moved_by == {MovedBy.PERSON}

    def still_going(self) -> None:
        """Raise Refused where the run has ended."""
        if self.ended:
            raise Refused(f"run {self.name} has ended: {self.phase}; nothing can be changed about it any more")

    def step(self, text: str) -> str:
        """The name of the step in a status. Raises Refused where the run has none such, as far as it is known."""
        names = [*dict.fromkeys(name.partition("[")[0] for name in self.entries)]
        if names and text.partition("[")[0] not in names:
            raise Refused(f"run {self.name} has no step {quoted(text)}; it has {printable(', '.join(names), 300)}")
        return text


def namespace_of(place: ClusterPlace, client: Client) -> str:
    """The namespace that was given, or the context's."""
    return place.given_namespace or client.namespace


def find(place: ClusterPlace, client: Client, name: str) -> Run:
    """The run of that name.

    Raises:
        Refused: there is none.
        ClusterError, NotInstalled: see ``Client``.
    """
    namespace = namespace_of(place, client)
    try:
        return Run(client.get(f"{collection(RUNS, namespace)}/{run_name(name)}"))
    except NotFound as error:
        raise Refused(
            f"there is no run {quoted(name)} in namespace {namespace} of the cluster: see {place.command('list')}. "
            f"The journal of one that was deleted is still in its store: agentrun show {name} -n {namespace} "
            "--store s3://BUCKET/PREFIX"
        ) from error


def journal_of(run: Run) -> tuple[Store, RunPath]:
    """Where the journal is. Raises Refused where there is none yet, StoreUnfit where it is nowhere that we know."""
    url = run.status.get("journal")
    if not url:
        raise Refused(f"run {run.name} has no journal yet: its operator writes it when the run begins ({run.phase})")
    store, namespace, folder = str(url).rstrip("/").rsplit("/", 2)
    if not store.startswith("s3://"):
        raise Refused(f"the journal of run {run.name} is at {printable(url)}, which is no place that agentrun reads")
    return open_store(store), RunPath.parse(f"{namespace}/{folder}")


def workflow_of(client: Client, run: Run) -> dict[str, Any] | None:
    """The workflow that the run pinned, as far as objects tell; None where they do not, or may not be read."""
    inline = run.spec.get("workflow")
    if inline is not None:
        found: dict[str, Any] = inline
        return found
    try:
        obj = client.get(f"{collection(WORKFLOWS, run.namespace)}/{run.spec['workflowRef']['name']}")
        digest = workflow_digest(obj["spec"])
    except (NotFound, *DENIED, ValidationError):
        return None
    return obj["spec"] if digest == run.status.get("workflowDigest") else None


def workflow_digest(spec: Mapping[str, Any]) -> str:
    """The digest of a workflow, as a run pins it."""
    return digest_of(WorkflowSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_unset=True))


def approvals_of(client: Client, run: Run) -> list[dict[str, Any]]:
    """The Approvals that this run's operator made for it, in the order of their names."""
    found = client.list_all(collection(APPROVALS, run.namespace), f"{RUN_LABEL}={run.name}")
    return [obj for obj in found if obj["spec"]["run"]["uid"] == run.uid]


def is_decided(approval: Mapping[str, Any]) -> str | None:
    """How an Approval was closed; None while it is open."""
    conditions = (approval.get("status") or {}).get("conditions") or ()
    return next((str(c["reason"]) for c in conditions if c["type"] == "Decided" and c["status"] == "True"), None)


def open_approvals(client: Client, run: Run) -> Iterator[dict[str, Any]]:
    """Those of them that people can still decide."""
    return (obj for obj in approvals_of(client, run) if is_decided(obj) is None)
