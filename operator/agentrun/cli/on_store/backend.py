"""The verbs' backend for a store: runs that this machine drives, and what is told to them through their journals."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from agentrun.api.approval import Verdict
from agentrun.api.command import Resolve, Signal
from agentrun.api.document import Document
from agentrun.api.errors import Refused
from agentrun.api.facts import ApprovalRequest, StepKey
from agentrun.api.printable import printable
from agentrun.api.run import cluster_only
from agentrun.cli.backend import Source
from agentrun.cli.place import Place, run_name
from agentrun.journal.layout import RunPath
from agentrun.journal.log import read_step
from agentrun.journal.run import Unreadable, find_run, read_manifest
from agentrun.local.user import user
from agentrun.plan.commands import Author, Cancel, Decide, Refusal, Suspend, event_for
from agentrun.plan.events import EventIndex, may_decide
from agentrun.query.logs import LogLine
from agentrun.query.next_steps import Command
from agentrun.query.past import Past, records_of
from agentrun.query.run_view import Question
from agentrun.query.stored_run import StoredRun, elsewhere, read_all
from agentrun.query.texts import clock, value
from agentrun.query.timeline import approvers
from agentrun.records.manifest import RunManifest
from agentrun.records.step_records import Kind
from agentrun.store.open import open_store
from agentrun.store.protocol import Store


class StoreBackend:
    """See ``Backend``. Nothing is opened before the store is asked for: ``validate`` needs none."""

    requester = property(lambda _: user())

    def __init__(self, place: Place) -> None:
        self.place = place
        self.secrets: str | None = None
        """The folder of Secrets that the person gave; the command that goes on with a run names it."""
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store. Raises StoreUnfit where the address is none."""
        if self._store is None:
            self._store = open_store(self.place.url)
        return self._store

    def path(self, name: str) -> RunPath:
        """Where the run of that name is. Raises NoSuchRun, Damaged."""
        return find_run(self.store, self.place.namespace, run_name(name))

    # -- reading ------------------------------------------------------------------------------------------------------

    def find(self, name: str, *, to_tell: bool = False) -> StoredRun:
        """See ``Backend``: a run of a cluster hears only what comes through its API server."""
        found = StoredRun.read(self.store, self.path(name))
        if to_tell and found.pinned.on_cluster:
            raise Refused(elsewhere(found.run))
        return found

    def again(self, run: StoredRun) -> StoredRun:
        """See ``Backend``."""
        return StoredRun.read(run.store, run.run)

    def runs(self, *, all_namespaces: bool) -> list[StoredRun | Unreadable]:
        """See ``Backend``."""
        return read_all(self.store, None if all_namespaces else self.place.namespace)

    def where(self, *, all_namespaces: bool) -> str:
        """See ``Backend``."""
        space = "any namespace" if all_namespaces else f"namespace {self.place.namespace}"
        return f"{space} of {printable(self.store.url)}"

    def workflow(self, run: StoredRun) -> dict[str, Any]:
        """See ``Backend``."""
        return run.pinned.manifest["workflow"]

    def output(self, run: StoredRun) -> Any:
        """See ``Backend``."""
        return run.status["output"]

    def questions(self, run: StoredRun) -> list[Question]:
        """See ``Backend``."""
        return list(run.questions())

    def not_asked(self, run: StoredRun, label: str) -> str:
        """See ``Backend``: who decided and when, or how the step stands."""
        key, index = StepKey.parse(label), run.index
        asked_before = [e.body["request"] for e in (index.requested.get(key.path),) if e is not None]
        if key in run.states:
            for record in read_step(run.store, run.run, key, whole=True):
                asked_before += record.body.get("approvals", ()) if record.kind == Kind.WAITING else ()
        if asked_before:
            request = ApprovalRequest.from_json(asked_before[-1])
            tally = index.tally(request, run.now)
            what = f"{label}: {value(request.subject)}"
            if tally.state == "Expired":
                return f"{what} expired at {clock(tally.at)}, before enough people had decided"
            if tally.state != "Pending":
                by = " and ".join(printable(person, 60) for person in tally.by)
                return f"{what} is decided: {tally.state} by {by} at {clock(tally.at)}"
        entry = run.entries.get(label)
        return f"{label} waits for no approval" + (f": it is {entry['state']}" if entry else "")

    def past(self, run: StoredRun, only: StepKey | None) -> Past:
        """See ``Backend``."""
        return Past(run.states, records_of(run.store, run.run, run.states, only), run.events)

    def journal(self, name: str) -> tuple[Store, RunPath]:
        """See ``Backend``."""
        return self.store, self.path(name)

    def logs(self, name: str, step: str | None, *, follow: bool) -> Iterator[LogLine]:
        """See ``Backend``."""
        from agentrun.cli.on_store.logs import lines  # noqa: PLC0415  (lazy: the one verb that reads them)

        return lines(self.place, self.store, self.path(name), step, follow=follow)

    def resume_command(self, run: StoredRun) -> Command:
        """See ``Backend``: with the Secrets that it was started with, or a place for them."""
        from agentrun.cli.on_store.secrets import reads_secrets  # noqa: PLC0415  (lazy: it imports the runner's)

        if self.secrets is not None:
            return Command(("resume", run.name), f"--secrets {shlex.quote(self.secrets)}")
        needed = "AGENTRUN_SECRETS" not in os.environ and reads_secrets(run.program)
        return Command(("resume", run.name), "--secrets DIR" if needed else "")

    # -- telling ------------------------------------------------------------------------------------------------------

    def give(self, run: StoredRun, verb: Signal | Resolve | Suspend | Cancel) -> bool:
        """See ``Backend``: append the event that the verb becomes."""
        event = event_for(verb, run, Author(user()))
        if isinstance(event, Refusal):
            raise Refused(event.why)
        # A run that is being cancelled is not held up, so it is not suspended. (On a cluster it is: its spec says so.)
        if run.record(event, unless=lambda index: isinstance(verb, Suspend) and index.cancelled is not None):
            return True
        self.again(run).still_going()
        if isinstance(verb, Resolve):
            assert event.about is not None
            before = run.index.resolution(StepKey.parse(event.body["step"]), event.about)
            assert before is not None
            who = f"{printable(before.body['by'], 60)} at {clock(before.at)}"
            raise Refused(f"{verb.step} is resolved already: {before.body['answer']}, by {who}")
        return False

    def check_decider(self, question: Question, groups: Sequence[str]) -> None:
        """See ``Backend``: nothing vouches for the person here, so what they claim to be is what counts."""
        if may_decide(question.request, user(), groups):
            return
        claim = f" as {' and '.join(printable(group, 60) for group in groups)}" if groups else " without --as-group"
        who = approvers(question.request)
        raise Refused(f"{user()}{claim} may not decide {question.step}; who may: {who}. Nothing was written")

    def decide(self, run: StoredRun, question: Question, decision: Verdict, comment: str, groups: Sequence[str]) -> int:
        """See ``Backend``: append the decision, unless this person or enough others have decided by then."""
        by, request = user(), question.request
        verb = Decide(StepKey.parse(question.step), request.digest, decision, comment, groups)

        def decided(index: EventIndex) -> bool:
            return index.tally(request, time.time()).state != "Pending"

        # On a cluster the Approval is closed by then, and takes no decision.
        if run.record(event_for(verb, run, Author(by)), unless=decided):
            return len(run.index.tally(request, time.time()).by)
        run.now = time.time()
        run.still_going()
        before = run.index.decision_by(request.digest, by)
        if before is not None:
            said = f"you have decided {question.step} already: {before.body['decision']} at {clock(before.at)}"
            stop = printable(self.place.command("cancel", run.name))
            raise Refused(f"{said}; a decision is not changed. To stop the run: {stop}")
        raise Refused(self.not_asked(run, question.step))

    # -- making, and going on -----------------------------------------------------------------------------------------

    def check(self, documents: Sequence[Document]) -> str:
        """See ``Backend``: a store has nothing to add."""
        del documents
        return "valid"

    def complete(self, documents: list[Document]) -> tuple[list[Document], str | None]:
        """See ``Backend``: a file is whole; fields that only a cluster obeys are named."""
        if ignored := cluster_only(*(document.model.spec for document in documents)):
            click.echo(f"agentrun: only a cluster obeys {', '.join(ignored)}; here it means nothing", err=True)
        return documents, self.place.given_namespace

    def start(self, manifest: RunManifest, documents: Sequence[Document], secrets: str | None, *, detach: bool) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.starting import start  # noqa: PLC0415  (lazy, as are those below: they drive)

        del documents
        self.place, self.secrets = Place(self.place.url, manifest["namespace"], self.place.output), secrets
        return start(self, manifest, detach=detach)

    def source(self, name: str) -> Source:
        """See ``Backend``: also of a damaged run, as long as its manifest can be read."""
        path = self.path(name)
        return Source(read_manifest(self.store, path), (self.store, path))

    def fork(
        self, source: Source, manifest: RunManifest, at: StepKey, seq: int | None, secrets: str | None, *, detach: bool
    ) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.starting import start_fork  # noqa: PLC0415

        self.secrets = secrets
        assert source.journal is not None
        manifest.pop("cluster", None)  # whoever has run it: the new run is driven here
        return start_fork(self, source.journal[1], manifest, at, seq, detach=detach)

    def resume(self, run: StoredRun, secrets: str | None, *, detach: bool) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.starting import resume  # noqa: PLC0415

        self.secrets = secrets
        return resume(self, run, detach=detach)

    def drive(self, name: str, secrets: str | None) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.driving import drive  # noqa: PLC0415

        self.secrets = secrets
        return drive(self, self.path(name))
