"""Creates an AgentRun from a file, and resumes AgentRuns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentrun.api.errors import Refused
from agentrun.api.labels import REQUESTED_BY
from agentrun.api.printable import printable
from agentrun.api.run import AgentRun, AgentWorkflow
from agentrun.api.texts import quoted
from agentrun.api.workflow import API_VERSION
from agentrun.cli.failures import warn
from agentrun.cli.on_cluster.backend import ClusterBackend
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import RUNS, WORKFLOWS, ClusterRun, change, workflow_digest
from agentrun.cli.on_cluster.commands import command
from agentrun.cli.on_cluster.following import follow
from agentrun.cli.terminal.output import emit, tell
from agentrun.documents.document import Document, from_object
from agentrun.kube.errors import AlreadyExists, Conflict, NotFound
from agentrun.records.manifest import RunManifest


def complete(backend: ClusterBackend, documents: list[Document]) -> tuple[list[Document], str]:
    """The documents of a file, and the namespace of its run.

    Adds the cluster's AgentWorkflow if the run refers to one that the file does not contain.

    Raises:
        Refused: the AgentWorkflow is not on the cluster either.
    """
    runs = [document for document in documents if isinstance(document.model, AgentRun)]
    run = (runs or documents)[0]
    namespace = backend.place.given_namespace or run.metadata.namespace or backend.namespace
    wanted = _reference(run)
    held = {d.metadata.name for d in documents if isinstance(d.model, AgentWorkflow)}
    if len(runs) != 1 or wanted is None or wanted in held:
        return documents, namespace
    try:
        there = backend.client.get(f"{collection(WORKFLOWS, namespace)}/{wanted}")
    except NotFound as error:
        raise Refused(
            f"there is no AgentWorkflow {quoted(wanted)}, neither in this file nor in namespace {namespace} of "
            "the cluster: put it into the file after a line ---, or apply it first"
        ) from error
    return [*documents, from_object(there)], namespace


def start(backend: ClusterBackend, manifest: RunManifest, documents: Sequence[Document], *, detach: bool) -> int:
    """Create the AgentRun, and follow it unless ``detach``. Returns the exit code.

    If the file has the AgentWorkflow that the run refers to, apply that first. The caller has checked the file as for
    one machine.
    """
    client, namespace = backend.client, manifest["namespace"]
    backend.place = replace(backend.place, given_namespace=namespace)
    run = next((d for d in documents if isinstance(d.model, AgentRun)), documents[0])
    wanted = _reference(run)
    own = (d for d in documents if isinstance(d.model, AgentWorkflow) and d.source == run.source)
    workflow = next((d for d in own if wanted is not None and d.metadata.name == wanted), None)
    digest = _apply(backend, workflow, namespace) if workflow is not None else None
    spec = {"workflow": run.raw["spec"]} if isinstance(run.model, AgentWorkflow) else dict(run.raw["spec"])
    spec |= {"inputs": manifest["inputs"]}
    made = create(client, namespace, manifest["name"], spec, run.raw.get("metadata") or {})
    code = begin(backend, made, detach=detach)
    if digest is not None:
        _check_pinned(client, made, digest)
    return code


def _reference(document: Document) -> str | None:
    """The name of the AgentWorkflow that an AgentRun refers to."""
    if not isinstance(document.model, AgentRun) or document.model.spec.workflow_ref is None:
        return None
    return document.model.spec.workflow_ref.name


def _apply(backend: ClusterBackend, document: Document, namespace: str) -> str:
    """Apply the file's AgentWorkflow to the cluster, and return its digest.

    Raises:
        Refused: the result would differ from the file, because others have written to the object.
    """
    client, name = backend.client, document.metadata.name
    metadata = {**(document.raw.get("metadata") or {}), "namespace": namespace}
    body = {"apiVersion": API_VERSION, "kind": "AgentWorkflow", "metadata": metadata, "spec": document.raw["spec"]}
    path = f"{collection(WORKFLOWS, namespace)}/{name}"
    wanted = workflow_digest(document.raw["spec"])
    again = printable(backend.place.command("run", document.source))
    how = f"bring it up to date the way it was made (kubectl apply, Helm, Argo CD), then: {again}"
    try:
        if workflow_digest(client.get(path)["spec"]) == wanted:
            return wanted
    except NotFound:
        pass
    try:
        for dry in (True, False):  # first dry: do not write if the result would differ from the file
            if workflow_digest(client.apply(path, body, dry=dry)["spec"]) != wanted:
                # Server-side apply keeps what other managers have added: a step, a tool, an output.
                raise Refused(f"AgentWorkflow {name} on the cluster has parts that are not in this file; {how}")
    except Conflict as error:
        raise Refused(
            f"AgentWorkflow {name} on the cluster differs from this file, and others manage its fields: {error}; {how}"
        ) from error
    tell(backend.place, f"AgentWorkflow {name} applied")
    return wanted


def _check_pinned(client: Client, made: ClusterRun, digest: str) -> None:
    """Warn if the run pinned another workflow: it may have changed between the apply and the operator's visit."""
    pinned = ClusterRun(client.get(made.path)).status.get("workflowDigest")
    if pinned is not None and pinned != digest:
        warn(f"the run uses another version of the workflow than this file has: {pinned}")


def create(
    client: Client, namespace: str, name: str, spec: Mapping[str, Any], metadata: Mapping[str, Any]
) -> ClusterRun:
    """Create an AgentRun in the caller's name, with the labels and annotations of ``metadata``.

    The client sets the annotation with the caller's name, and the admission policies reject another user's name. If the
    cluster can set the annotation itself, it does.

    Raises:
        Refused: the run's name is taken.
    """
    annotations = {**(metadata.get("annotations") or {}), REQUESTED_BY: client.user()}
    labels = metadata.get("labels") or {}
    body = {
        "apiVersion": API_VERSION,
        "kind": "AgentRun",
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": dict(spec),
    }
    try:
        return ClusterRun(client.create(collection(RUNS, namespace), body))
    except AlreadyExists as error:
        raise Refused(f"a run named {name} exists in {namespace}: give another name with --name") from error


def begin(backend: ClusterBackend, made: ClusterRun, *, detach: bool) -> int:
    """Print the run's name, and follow it unless ``detach``. Returns the exit code."""
    tell(backend.place, made.name)
    if not detach:
        return follow(backend, made)
    if backend.place.output:
        emit(backend.place, made.obj)
    return 0


def resume(backend: ClusterBackend, run: ClusterRun, *, detach: bool) -> int:
    """Resume what is suspended or parked, and follow the run unless ``detach``. Returns the exit code.

    Raises:
        Refused: nothing is suspended or parked.
    """
    parked = [label for label, waiting in run.waiting.items() if "resume" in waiting]
    suspended = bool(run.spec.get("suspend"))
    if not parked and not suspended:
        follow_it = printable(backend.place.command("logs", run.name, "-f"))
        raise Refused(f"run {run.name} is neither suspended nor parked: it is {run.phase}; follow it with {follow_it}")
    after = run
    if suspended:
        after = change(backend.client, run, "suspend", value=False)
        tell(backend.place, f"{run.name} is no longer suspended")
    if parked:
        command(backend.client, run, {"resume": {}})
        for label in parked:
            tell(backend.place, f"{label} is retried")
    if not detach:
        return follow(backend, after, before=run.status)
    if backend.place.output:
        emit(backend.place, after.obj)
    return 0
