"""The verbs' backend for a cluster. Runs are AgentRuns, and commands go through the API server in the person's name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import click

from agentrun.api.approval import Verdict
from agentrun.api.command import Resolve, Signal
from agentrun.api.errors import Refused
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.api.texts import quoted
from agentrun.cli.backend import Source
from agentrun.cli.failures import warn
from agentrun.cli.on_cluster import approvals
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import RUNS, ClusterRun, change, journal_of, output_of, same, workflow_of
from agentrun.cli.on_cluster.commands import command
from agentrun.cli.place import ClusterPlace, run_name
from agentrun.documents.document import Document
from agentrun.journal.log import EventLog
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Damaged
from agentrun.journal.runs import Unreadable, read_states
from agentrun.kube.errors import NotFound
from agentrun.plan.commands import Cancel, Suspend
from agentrun.query.logs import LogLine
from agentrun.query.next_steps import Command
from agentrun.query.past import Past, records_of
from agentrun.query.run_view import Question
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import Store, StoreError


class ClusterBackend:
    """See ``Backend``. No request is sent before a verb needs one."""

    requester = None

    def __init__(self, place: ClusterPlace) -> None:
        self.place = place
        self.client = Client(place.kubeconfig, place.context)

    @property
    def namespace(self) -> str:
        """The given namespace, or the context's. Raises NoAccess."""
        return self.place.given_namespace or self.client.namespace

    @cached_property
    def _user(self) -> str:
        """The name by which the API server knows the person, asked once."""
        return self.client.user()

    # -- reading ------------------------------------------------------------------------------------------------------

    def find(self, name: str, *, to_tell: bool = False) -> ClusterRun:
        """See ``Backend``: every run of the cluster takes commands."""
        del to_tell
        namespace = self.namespace
        try:
            return ClusterRun(self.client.get(f"{collection(RUNS, namespace)}/{run_name(name)}"))
        except NotFound as error:
            raise Refused(
                f"there is no run {quoted(name)} in namespace {namespace} of the cluster: see "
                f"{self.place.command('list')}. The journal of a deleted run stays in its store: "
                f"agentrun show {name} -n {namespace} --store s3://BUCKET/PREFIX"
            ) from error

    def again(self, run: ClusterRun) -> ClusterRun:
        """See ``Backend``. Raises Refused if the run was deleted."""
        try:
            return same(run, self.client.get(run.path))
        except NotFound as error:
            raise Refused(f"run {run.name} was deleted; its journal stays in the store") from error

    def runs(self, *, all_namespaces: bool) -> list[ClusterRun | Unreadable]:
        """See ``Backend``."""
        path = collection(RUNS, None if all_namespaces else self.namespace)
        return [ClusterRun(obj) for obj in self.client.list_all(path)]

    def where(self, *, all_namespaces: bool) -> str:
        """See ``Backend``."""
        return f"{'any namespace' if all_namespaces else f'namespace {self.namespace}'} of the cluster"

    def workflow(self, run: ClusterRun) -> dict[str, Any] | None:
        """See ``Backend``."""
        return workflow_of(self.client, run)

    def output(self, run: ClusterRun) -> Any:
        """See ``Backend``."""
        return output_of(self.client, run)

    def questions(self, run: ClusterRun) -> list[Question]:
        """See ``Backend``. Raises Unauthorized, Forbidden: the person may not read Approvals."""
        found = []
        for obj in approvals.approvals_of(self.client, run):
            try:
                found += [approvals.question_of(obj)] if approvals.is_decided(obj) is None else []
            except ValueError as error:  # one that somebody else than the operator made hides no other
                warn(f"without the Approval {printable(obj['metadata']['name'], 253)}: {printable(error, 300)}")
        return found

    def not_asked(self, run: ClusterRun, label: str) -> str:
        """See ``Backend``."""
        found = [obj for obj in approvals.approvals_of(self.client, run) if obj["spec"]["step"] == label]
        found = [obj for obj in found if approvals.is_decided(obj) is not None]
        if found:
            return approvals.closed(found[-1])
        entry = run.entries.get(label)
        return f"{label} does not wait for an approval" + (f": it is {entry['state']}" if entry else "")

    def past(self, run: ClusterRun, only: StepKey | None) -> Past:
        """See ``Backend``."""
        if "journal" not in run.status:
            return Past()
        try:
            store, path = journal_of(run)
            states = read_states(store, path)
            log = EventLog(store, path, time.time)
            log.refresh()
            return Past(states, records_of(store, path, states, only), log.records)
        except (StoreError, Damaged, Refused) as error:
            warn(f"the timeline is left out, because the journal cannot be read: {printable(error, 300)}")
            return Past()

    def journal(self, name: str) -> tuple[Store, RunPath]:
        """See ``Backend``: the run's status has the place."""
        return journal_of(self.find(name))

    def logs(self, name: str, step: str | None, *, follow: bool) -> Iterator[LogLine]:
        """See ``Backend``."""
        from agentrun.cli.on_cluster.logs import lines  # noqa: PLC0415  (lazy: one verb needs it)

        found = self.find(name)
        return lines(self.client, found, found.key(step) if step else None, follow=follow)

    def resume_command(self, run: ClusterRun) -> Command:
        """See ``Backend``."""
        return Command(("resume", run.name))

    # -- telling ------------------------------------------------------------------------------------------------------

    def give(self, run: ClusterRun, verb: Signal | Resolve | Suspend | Cancel) -> tuple[ClusterRun, bool]:
        """See ``Backend``: sets a field of the spec, or creates an AgentCommand for the operator."""
        match verb:
            case Suspend() | Cancel():
                field = "suspend" if isinstance(verb, Suspend) else "cancel"
                if run.spec.get(field) or run.cancelled:  # a run that is being cancelled cannot be suspended
                    return run, False
                return change(self.client, run, field, value=True), True
            case Signal():
                command(self.client, run, {"signal": verb.model_dump(by_alias=True, exclude_unset=True)})
            case Resolve():
                command(self.client, run, {"resolve": verb.model_dump(by_alias=True, exclude_unset=True)})
        return run, True

    def check_decider(self, question: Question, groups: Sequence[str]) -> None:
        """See ``Backend``: checks nothing, because the API server checks the decision itself."""

    def decide(
        self, run: ClusterRun, question: Question, decision: Verdict, comment: str, groups: Sequence[str]
    ) -> int:
        """See ``Backend``."""
        assert question.approval is not None
        return approvals.decide(self.client, question.approval, self._user, decision, comment)

    # -- making, and going on: in modules of their own, which few verbs import --------------------------------------

    def check(self, documents: Sequence[Document]) -> str:
        """See ``Backend``: by the API server's dry run. Raises Unauthorized, Forbidden."""
        from agentrun.cli.on_cluster.dry_run import dry_run  # noqa: PLC0415

        for document in documents:
            dry_run(self.client, document, self.place.given_namespace or document.metadata.namespace or self.namespace)
        return "valid, and the cluster accepts it"

    def complete(self, documents: list[Document]) -> tuple[list[Document], str | None]:
        """See ``Backend``: adds the cluster's AgentWorkflow if the file refers to one that it does not contain."""
        from agentrun.cli.on_cluster.starting import complete  # noqa: PLC0415

        return complete(self, documents)

    def start(self, manifest: RunManifest, documents: Sequence[Document], secrets: str | None, *, detach: bool) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_cluster.starting import start  # noqa: PLC0415

        del secrets
        return start(self, manifest, documents, detach=detach)

    def source(self, name: str) -> Source:
        """See ``Backend``: from the journal if it can be read, otherwise from the run's objects."""
        from agentrun.cli.on_cluster.forking import source_of  # noqa: PLC0415

        return source_of(self.client, self.find(name))

    def fork(
        self, source: Source, manifest: RunManifest, at: StepKey, seq: int | None, secrets: str | None, *, detach: bool
    ) -> int:
        """See ``Backend``: creates an AgentRun with a ``source``. The operator takes over the past from the journal."""
        from agentrun.cli.on_cluster.forking import fork  # noqa: PLC0415

        del secrets
        return fork(self, source, manifest, at, seq, detach=detach)

    def resume(self, run: ClusterRun, secrets: str | None, *, detach: bool) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_cluster.starting import resume  # noqa: PLC0415

        del secrets
        return resume(self, run, detach=detach)

    def drive(self, name: str, secrets: str | None) -> int:
        """See ``Backend``."""
        raise click.UsageError("drive works on a store only: on a cluster the operator drives the runs")
