"""Checks a document against the API server by a dry run. Nothing is written."""

from __future__ import annotations

from agentrun.api.errors import InvalidDocument, Problem
from agentrun.api.printable import printable
from agentrun.api.run import AgentRun
from agentrun.cli.failures import warn
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import RUNS, WORKFLOWS
from agentrun.cli.on_cluster.refusals import fields_of
from agentrun.documents.document import Document
from agentrun.kube.errors import REJECTED, AlreadyExists, Conflict


def dry_run(client: Client, document: Document, namespace: str) -> None:
    """Raise InvalidDocument if the API server rejects the document, and one of ``DENIED`` if the caller may not write.

    Warns if a run of that name exists, or if other writers own parts of the AgentWorkflow.
    """
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
        warn(f"a run named {name} exists in {namespace} already: give another name")
    except Conflict as error:
        warn(printable(error, 500))
    except REJECTED as error:
        problems = fields_of(error) or [Problem((), f"the API server refuses it: {error}")]
        raise InvalidDocument(problems, document.source, dict(document.lines)) from error
