"""``kubectl agentrun run`` and ``resume``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from agentrun.api.document import Document, from_object, load
from agentrun.api.names import REQUESTED_BY
from agentrun.api.run import AgentRun, AgentWorkflow
from agentrun.api.texts import quoted
from agentrun.api.workflow import API_VERSION
from agentrun.cli.failures import Refused, warn
from agentrun.cli.inputs import read_inputs
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.commands import command
from agentrun.cli.on_cluster.control import change
from agentrun.cli.on_cluster.following import follow, report
from agentrun.cli.on_cluster.runs import RUNS, WORKFLOWS, Run, find, namespace_of, workflow_digest
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable
from agentrun.cli.run import inputs_schema
from agentrun.kube.errors import AlreadyExists, Conflict, NotFound
from agentrun.workflow.pinning import pin


@dataclass(frozen=True, slots=True)
class _File:
    """What a file asks for, checked."""

    documents: list[Document]
    """The run, or the workflow that is run alone; and the workflow that the run refers to, of either."""
    run: Document
    namespace: str
    name: str
    inputs: dict[str, Any]

    @property
    def applied(self) -> Document | None:
        """The workflow of the file that the run refers to."""
        if not isinstance(self.run.model, AgentRun) or self.run.model.spec.workflow_ref is None:
            return None
        name = self.run.model.spec.workflow_ref.name
        found = (d for d in self.documents if isinstance(d.model, AgentWorkflow) and d.metadata.name == name)
        return next((d for d in found if d.source == self.run.source), None)


def run_verb(
    place: ClusterPlace, file: str, pairs: tuple[str, ...], inputs_file: str | None, name: str | None, detach: bool
) -> int:
    """Make an AgentRun of the file, after the AgentWorkflow that it refers to if the file has that; follow it.

    The file is checked as for one machine before anything is written, with the cluster's AgentWorkflow where it refers
    to one that it does not hold.
    """
    if file == inputs_file == "-":
        raise click.UsageError("standard input can be the file or the inputs, not both")
    client = place.open()
    asked = _read(place, client, file, pairs, inputs_file, name)
    place = place.inside(asked.namespace)
    digest = _apply(place, client, asked.applied, asked.namespace) if asked.applied is not None else None
    raw = asked.run.raw
    spec = {"workflow": raw["spec"]} if isinstance(asked.run.model, AgentWorkflow) else dict(raw["spec"])
    made = create(client, asked.namespace, asked.name, spec | {"inputs": asked.inputs}, raw.get("metadata") or {})
    code = begin(place, client, made, detach=detach)
    if digest is not None:
        _check_pinned(client, made, digest)
    return code


def _read(
    place: ClusterPlace,
    client: Client,
    file: str,
    pairs: Sequence[str],
    inputs_file: str | None,
    name: str | None,
) -> _File:
    documents = load("-" if file == "-" else Path(file))
    runs = [document for document in documents if isinstance(document.model, AgentRun)]
    chosen = runs or documents
    namespace = place.given_namespace or chosen[0].metadata.namespace or namespace_of(place, client)
    missing = _reference(documents, chosen[0]) if len(runs) == 1 else None
    if missing is not None:
        try:
            documents = [*documents, from_object(client.get(f"{collection(WORKFLOWS, namespace)}/{missing}"))]
        except NotFound as error:
            raise Refused(
                f"there is no AgentWorkflow {quoted(missing)}, neither in this file nor in namespace {namespace} of "
                "the cluster: put it into the file after a line ---, or apply it first"
            ) from error
    inputs = read_inputs(inputs_schema(documents), pairs, inputs_file)
    manifest = pin(
        documents,
        inputs,
        name=name,
        namespace=namespace,
        now=time.time(),
        new_id=lambda: uuid.uuid4().hex,
        requested_by=None,
        cluster=True,
        warn=warn,
    )
    return _File(documents, chosen[0], namespace, manifest["name"], manifest["inputs"])


def _reference(documents: Sequence[Document], document: Document) -> str | None:
    """The workflow that the run refers to, where the file does not hold it."""
    assert isinstance(document.model, AgentRun)
    reference = document.model.spec.workflow_ref
    there = {d.metadata.name for d in documents if isinstance(d.model, AgentWorkflow)}
    return reference.name if reference is not None and reference.name not in there else None


def _apply(place: ClusterPlace, client: Client, document: Document, namespace: str) -> str:
    """Bring the file's AgentWorkflow to the cluster; its digest there.

    Raises:
        Refused: the cluster's one would not be the file's then: others have written to it.
    """
    name = document.metadata.name
    metadata = {**(document.raw.get("metadata") or {}), "namespace": namespace}
    body = {"apiVersion": API_VERSION, "kind": "AgentWorkflow", "metadata": metadata, "spec": document.raw["spec"]}
    path = f"{collection(WORKFLOWS, namespace)}/{name}"
    wanted = workflow_digest(document.raw["spec"])
    again = printable(place.command("run", document.source))
    how = f"bring it up to date the way it was made (kubectl apply, Helm, Argo CD), then: {again}"
    try:
        if workflow_digest(client.get(path)["spec"]) == wanted:
            return wanted
    except NotFound:
        pass
    try:
        for dry in (True, False):  # what would not become the file's is not touched
            if workflow_digest(client.apply(path, body, dry=dry)["spec"]) != wanted:
                # Server-side apply leaves what others have added: a step, a tool, an output.
                raise Refused(f"AgentWorkflow {name} on the cluster has parts that are not in this file; {how}")
    except Conflict as error:
        raise Refused(
            f"AgentWorkflow {name} on the cluster is another one, and not ours to change: {error}; {how}"
        ) from error
    tell(place, f"AgentWorkflow {name} applied")
    return wanted


def _check_pinned(client: Client, made: Run, digest: str) -> None:
    """Somebody may have changed the workflow between our look and the operator's."""
    pinned = Run(client.get(made.path)).status.get("workflowDigest")
    if pinned is not None and pinned != digest:
        click.echo(f"agentrun: the run pinned another version of the workflow than this file's: {pinned}", err=True)


def create(client: Client, namespace: str, name: str, spec: Mapping[str, Any], metadata: Mapping[str, Any]) -> Run:
    """Make an AgentRun in the caller's name, with the labels and annotations of ``metadata``.

    The name is claimed here and vouched for by the admission policies: they refuse another one's, and where the cluster
    can stamp it, it does so itself.

    Raises:
        Refused: the name is taken.
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
        return Run(client.create(collection(RUNS, namespace), body))
    except AlreadyExists as error:
        raise Refused(f"a run named {name} exists in {namespace}: give another name with --name") from error


def begin(place: ClusterPlace, client: Client, made: Run, *, detach: bool) -> int:
    """Say the run's name, and follow it unless ``detach``; the exit code."""
    tell(place, made.name)
    if not detach:
        return follow(place, client, made)
    if place.output:
        emit(place, made.obj)
    return 0


def resume_verb(place: ClusterPlace, run: str, detach: bool) -> int:
    """Let the run go on where it is suspended or parked, and follow it."""
    client = place.open()
    found = find(place, client, run)
    if found.ended:
        return report(place, client, found)
    parked = [name for name, entry in found.entries.items() if "resume" in entry.get("waitingFor", {})]
    suspended = bool(found.spec.get("suspend"))
    if not parked and not suspended:
        raise Refused(
            f"run {run} is neither suspended nor parked: it is {found.phase}; "
            f"follow it with {printable(place.command('logs', run, '-f'))}"
        )
    after = found
    if suspended:
        after = change(client, found, "suspend", value=False)
        tell(place, f"{run} is no longer suspended")
    if parked:
        command(client, found, {"resume": {}})
        for name in parked:
            tell(place, f"{name} is tried again")
    if not detach:
        return follow(place, client, after, before=found.status)
    if place.output:
        emit(place, after.obj)
    return 0
