"""An AgentRun of the cluster, with data from its AgentWorkflow and its journal."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import click
from pydantic import ValidationError

from agentrun.api.canonical import digest_of
from agentrun.api.decoding import UNREADABLE
from agentrun.api.errors import Refused
from agentrun.api.printable import printable
from agentrun.api.run import CHANGED_BY
from agentrun.api.workflow import WorkflowSpec
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.journal.log import EventLog
from agentrun.journal.paths import RunPath
from agentrun.kube.errors import DENIED, NotFound
from agentrun.query.run_view import RunView
from agentrun.query.status_form import in_form
from agentrun.records.run_events import EventKind
from agentrun.store.open import open_store
from agentrun.store.protocol import Store, StoreError

RUNS = "agentruns"
WORKFLOWS = "agentworkflows"
APPROVALS = "approvals"
COMMANDS = "agentcommands"

_JOURNAL = re.compile(r"(?P<store>s3://[^/].*)/(?P<run>[a-z0-9-]+/[a-z0-9.-]+-[0-9a-f]{32})/?")
"""The place of a journal, as the operator writes it in the status."""


@dataclass
class ClusterRun(RunView):
    """An AgentRun at one moment."""

    @cached_property
    def _in_form(self) -> tuple[dict[str, Any], str | None]:
        return in_form(self.obj.get("status"))

    @property
    def spec(self) -> dict[str, Any]:
        """Its spec; empty if it cannot be read."""
        return self.obj.get("spec") or {}

    @property
    def status(self) -> dict[str, Any]:
        """Its status, as far as it has the form in which the operator writes it."""
        return self._in_form[0]

    @property
    def unreadable(self) -> str | None:
        """See ``RunView``: the decoder left out what cannot be read, or somebody else than the operator wrote it."""
        found: str | None = self.obj.get(UNREADABLE)
        why = self._in_form[1]
        return found or (f"its status is not the operator's: {why}" if why is not None else None)

    @property
    def version(self) -> str:
        """The resourceVersion."""
        return str(self.obj["metadata"]["resourceVersion"])

    @property
    def path(self) -> str:
        """The path of the object at the API server."""
        return f"{collection(RUNS, self.namespace)}/{self.name}"


def journal_of(run: RunView) -> tuple[Store, RunPath]:
    """Where the run's journal is, according to its status.

    Raises:
        Refused: there is none yet, or it is not in an S3 store.
        StoreUnfit: the store's URL is invalid.
    """
    url = run.status.get("journal")
    if not url:
        raise Refused(f"run {run.name} has no journal yet: its operator writes it when the run begins ({run.phase})")
    found = _JOURNAL.fullmatch(url)
    if found is None:
        raise Refused(
            f"the journal of run {run.name} is at {printable(url)}, which is not a store that agentrun can read"
        )
    return open_store(found["store"]), RunPath.parse(found["run"])


def workflow_of(client: Client, run: RunView) -> dict[str, Any] | None:
    """The workflow that the run pinned, from the cluster's objects.

    None if the AgentWorkflow has changed since or is gone, or if it cannot be read.
    """
    inline = run.spec.get("workflow")
    if inline is not None:
        found: dict[str, Any] = inline
        return found
    reference = run.spec.get("workflowRef")
    if reference is None:
        return None
    try:
        obj = client.get(f"{collection(WORKFLOWS, run.namespace)}/{reference['name']}")
        digest = workflow_digest(obj["spec"])
    except (NotFound, *DENIED, ValidationError):
        return None
    return obj["spec"] if digest == run.status.get("workflowDigest") else None


def workflow_digest(spec: Mapping[str, Any]) -> str:
    """The digest of a workflow in the form that a run pins."""
    return digest_of(WorkflowSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_unset=True))


def output_of(client: Client, run: RunView) -> Any:
    """The run's output. It is read from the journal if it is too large for the status.

    If the journal cannot be read, print why and return None.
    """
    if "output" in run.status:
        return run.status["output"]
    workflow = workflow_of(client, run)
    if workflow is not None and workflow.get("output") is None:
        return None
    try:
        log = EventLog(*journal_of(run), time.time)
        log.refresh()
    except (StoreError, Refused) as error:
        click.echo(f"agentrun: the output is in the journal, which cannot be read: {printable(error)}", err=True)
        return None
    return next((record.body.get("output") for record in log.records if record.kind == EventKind.ENDED), None)


def change(client: Client, run: ClusterRun, field: str, *, value: bool) -> ClusterRun:
    """Set a field of the run's spec in the person's own name, and return the run.

    The patch has the run's uid, because another run may have its name by now. If somebody else has set the field to the
    same value first, it stays in their name.
    """
    metadata = {"uid": run.uid, "annotations": {CHANGED_BY[field]: client.user()}}
    try:
        return ClusterRun(client.patch(run.path, {"metadata": metadata, "spec": {field: value}}))
    except DENIED:
        now = ClusterRun(client.get(run.path))
        if now.uid != run.uid or bool(now.spec.get(field)) is not value:
            raise
        return now


def same(run: ClusterRun, obj: dict[str, Any]) -> ClusterRun:
    """The object as a later state of ``run``. Raises Refused if it is another run with the same name."""
    if obj["metadata"]["uid"] != run.uid:
        raise Refused(
            f"run {run.name} was deleted, and another run has its name now; the journal of the deleted run stays in "
            "the store"
        )
    return ClusterRun(obj)
