"""``kubectl agentrun validate``: what one machine can tell, then what the API server would say."""

from __future__ import annotations

from pathlib import Path

import click

from agentrun.api.document import Document, load
from agentrun.api.errors import InvalidDocument, Problem
from agentrun.api.run import AgentRun
from agentrun.cli.failures import explain, warn
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.refusals import DENIED, REJECTED, fields_of
from agentrun.cli.on_cluster.runs import RUNS, WORKFLOWS, namespace_of
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import emit_list, tell
from agentrun.cli.printable import printable
from agentrun.cli.validate import described
from agentrun.kube.errors import AlreadyExists, Conflict
from agentrun.workflow.pinning import check


def validate_verb(place: ClusterPlace, files: tuple[str, ...]) -> int:
    """Check files without running or writing anything: here, and by the API server's dry run."""
    client = place.open()
    code = 0
    valid = []
    for name in files:
        try:
            documents = load("-" if name == "-" else Path(name))
            for note in check(documents, warn):
                tell(place, printable(note))
            for document in documents:
                namespace = place.given_namespace or document.metadata.namespace or namespace_of(place, client)
                _dry_run(client, document, namespace)
        except (InvalidDocument, *DENIED) as error:
            code = explain(error) or code
            continue
        valid += [document.raw for document in documents]
        tell(place, printable(f"{name}: valid, and the cluster takes it: {', '.join(map(described, documents))}"))
    if place.output:
        emit_list(place, valid)
    return code


def _dry_run(client: Client, document: Document, namespace: str) -> None:
    """Raise InvalidDocument with what the API server refuses, and one of ``DENIED`` where the caller may not."""
    metadata = {**(document.raw.get("metadata") or {}), "namespace": namespace}
    name = metadata.get("name")
    if name is None:
        metadata.setdefault("generateName", "run-")
    body = {**document.raw, "metadata": metadata}
    try:
        if isinstance(document.model, AgentRun) or name is None:
            plural = RUNS if isinstance(document.model, AgentRun) else WORKFLOWS
            client.create(collection(plural, namespace), body, dry=True)
        else:
            client.apply(f"{collection(WORKFLOWS, namespace)}/{name}", body, dry=True)
    except AlreadyExists:
        click.echo(f"agentrun: a run named {name} exists in {namespace} already: give another name", err=True)
    except Conflict as error:
        click.echo(f"agentrun: {printable(error, 500)}", err=True)
    except REJECTED as error:
        problems = fields_of(error) or [Problem((), f"the API server refuses it: {error}")]
        raise InvalidDocument(problems, document.source, dict(document.lines)) from error
