"""``kubectl agentrun fork``: an AgentRun with a ``source``, whose operator takes over what the journal holds."""

from __future__ import annotations

import time
import uuid
from typing import cast

import click

from agentrun.cli.failures import Refused
from agentrun.cli.fork import check_name, parse_point
from agentrun.cli.inputs import read_inputs
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.run import begin, create
from agentrun.cli.on_cluster.runs import WORKFLOWS, Run, find, journal_of, workflow_of
from agentrun.cli.options import ClusterPlace
from agentrun.cli.printable import printable
from agentrun.journal.fork import forked_manifest, plan_fork
from agentrun.journal.layout import RunPath
from agentrun.journal.run import read_manifest
from agentrun.kube.errors import NotFound
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import KeyMissing, Store, StoreError

_KEPT = ("budget", "timeout", "identity", "ttlSecondsAfterFinished")


def fork_verb(
    place: ClusterPlace,
    run: str,
    point: str,
    pairs: tuple[str, ...],
    inputs_file: str | None,
    prompt: str | None,
    model: str | None,
    name: str | None,
    detach: bool,
) -> int:
    """Make a new run that shares the past of ``run``, with its workflow as that was pinned, and follow it."""
    at, seq = parse_point(point)
    check_name(name)
    client = place.open()
    source = find(place, client, run)
    journal, before = _before(client, source)
    manifest = forked_manifest(
        before,
        at,
        seq,
        inputs=read_inputs(before["workflow"].get("inputs", {}), pairs, inputs_file),
        prompt=prompt,
        model=model,
        name=name,
        now=time.time(),
        uid=uuid.uuid4().hex,
        requested_by="",  # the API server says who
    )
    if journal is not None:
        for line in plan_fork(*journal, manifest, at, seq, now=time.time()).again:
            click.echo(printable(f"agentrun: {line}"), err=True)
    spec = {"workflow": manifest["workflow"], "inputs": manifest["inputs"], "source": manifest["source"]}
    spec |= {field: source.spec[field] for field in _KEPT if field in source.spec}
    made = create(client, source.namespace, manifest["name"], spec, {"labels": source.obj["metadata"].get("labels")})
    return begin(place, client, made, detach=detach)


def _before(client: Client, source: Run) -> tuple[tuple[Store, RunPath] | None, RunManifest]:
    """The source's journal where it may be read, and its manifest: that one's, or what its objects make of it."""
    if "journal" not in source.status:
        raise Refused(f"run {source.name} has not begun: there is nothing of it that a new run could share")
    try:
        journal = journal_of(source)
        return journal, read_manifest(*journal)
    except (StoreError, KeyMissing, Refused) as error:
        click.echo(f"agentrun: the operator will check the point: {printable(error, 300)}", err=True)
    workflow = workflow_of(client, source)
    if workflow is None:
        name = source.spec["workflowRef"]["name"]
        try:
            workflow = client.get(f"{collection(WORKFLOWS, source.namespace)}/{name}")["spec"]
        except NotFound as error:
            raise Refused(f"AgentWorkflow {name} is gone, and the journal, which has it, cannot be read") from error
        click.echo(f"agentrun: AgentWorkflow {name} has changed since; the new run has it as it is now", err=True)
    known = {"name": source.name, "workflow": workflow, "inputs": source.spec.get("inputs") or {}}
    return None, cast("RunManifest", known)  # as much of it as ``forked_manifest`` reads
