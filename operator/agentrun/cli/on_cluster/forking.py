"""Forks a run of a cluster: creates an AgentRun with a ``source``. The operator takes over the source's past."""

from __future__ import annotations

import time
from typing import cast

from agentrun.api.errors import Refused
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.cli.backend import Source
from agentrun.cli.failures import warn
from agentrun.cli.on_cluster.backend import ClusterBackend
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import WORKFLOWS, ClusterRun, journal_of, workflow_of
from agentrun.cli.on_cluster.starting import begin, create
from agentrun.journal.fork import plan_fork
from agentrun.journal.runs import read_manifest
from agentrun.kube.errors import NotFound
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import KeyMissing, StoreError

_KEPT = ("budget", "timeout", "identity", "ttlSecondsAfterFinished")


def source_of(client: Client, run: ClusterRun) -> Source:
    """The run's manifest from its journal if that can be read, otherwise as far as its objects have it.

    Raises:
        Refused: the run has not begun, or its workflow can no longer be found.
    """
    if "journal" not in run.status:
        raise Refused(f"run {run.name} has not begun: there is nothing to fork from")
    try:
        journal = journal_of(run)
        return Source(read_manifest(*journal), journal, run)
    except (StoreError, KeyMissing, Refused) as error:
        warn(f"the fork point was not checked here; the operator checks it: {printable(error, 300)}")
    workflow = workflow_of(client, run)
    if workflow is None:
        name = run.spec["workflowRef"]["name"]
        try:
            workflow = client.get(f"{collection(WORKFLOWS, run.namespace)}/{name}")["spec"]
        except NotFound as error:
            raise Refused(f"AgentWorkflow {name} was deleted, and its copy in the journal cannot be read") from error
        warn(f"AgentWorkflow {name} has changed since the run began; the new run uses its present version")
    known = {"name": run.name, "workflow": workflow, "inputs": run.spec.get("inputs") or {}}
    return Source(cast("RunManifest", known), None, run)


def fork(
    backend: ClusterBackend, source: Source, manifest: RunManifest, at: StepKey, seq: int | None, *, detach: bool
) -> int:
    """Create the new run with the workflow of ``manifest``, and follow it unless ``detach``. Returns the exit code."""
    assert source.run is not None
    if source.journal is not None:
        for line in plan_fork(*source.journal, manifest, at, seq, now=time.time()).again:
            warn(line)
    spec = {"workflow": manifest["workflow"], "inputs": manifest["inputs"], "source": manifest["source"]}
    spec |= {field: source.run.spec[field] for field in _KEPT if field in source.run.spec}
    labels = {"labels": source.run.obj["metadata"].get("labels")}
    made = create(backend.client, source.run.namespace, manifest["name"], spec, labels)
    return begin(backend, made, detach=detach)
