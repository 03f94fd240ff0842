"""The verbs' backend for a store. This machine drives the runs, and commands are events in their journals."""

# Imports stand in the methods: a verb must not wait for what it does not need (the planner, the driver).
# ruff: noqa: PLC0415

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agentrun.api.errors import Refused
from agentrun.api.printable import printable
from agentrun.cli.place import Place, run_name

if TYPE_CHECKING:
    from agentrun.api.approval import Verdict
    from agentrun.api.command import Resolve, Signal
    from agentrun.api.keys import StepKey
    from agentrun.cli.backend import Source
    from agentrun.documents.document import Document
    from agentrun.journal.paths import RunPath
    from agentrun.journal.runs import Unreadable
    from agentrun.plan.commands import Cancel, Suspend
    from agentrun.query.logs import LogLine
    from agentrun.query.next_steps import Command
    from agentrun.query.past import Past
    from agentrun.query.run_view import Question
    from agentrun.query.stored_run import StoredRun
    from agentrun.records.manifest import RunManifest
    from agentrun.store.protocol import Store


class StoreBackend:
    """See ``Backend``. The store is opened at the first access to ``store``: ``validate`` needs none."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.secrets: str | None = None
        """The folder of Secrets that the person gave. ``resume_command`` repeats it."""
        self._store: Store | None = None

    @property
    def requester(self) -> str:
        """See ``Backend``: the operating system's user."""
        from agentrun.local.user import user

        return user()

    @property
    def store(self) -> Store:
        """The store. Raises StoreUnfit if the place's URL is invalid."""
        from agentrun.store.open import open_store

        if self._store is None:
            self._store = open_store(self.place.url)
        return self._store

    def path(self, name: str) -> RunPath:
        """Where the run of that name is. Raises NoSuchRun, Damaged."""
        from agentrun.journal.runs import find_run

        return find_run(self.store, self.place.namespace, run_name(name))

    # -- reading ------------------------------------------------------------------------------------------------------

    def find(self, name: str, *, to_tell: bool = False) -> StoredRun:
        """See ``Backend``: a run of a cluster takes commands through its API server only."""
        from agentrun.query.stored_run import StoredRun, elsewhere

        found = StoredRun.read(self.store, self.path(name))
        if to_tell and found.pinned.on_cluster:
            raise Refused(elsewhere(found.run))
        return found

    def again(self, run: StoredRun) -> StoredRun:
        """See ``Backend``."""
        from agentrun.query.stored_run import StoredRun

        return StoredRun.read(run.store, run.run)

    def runs(self, *, all_namespaces: bool) -> list[StoredRun | Unreadable]:
        """See ``Backend``."""
        from agentrun.query.stored_run import read_all

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
        """See ``Backend``."""
        from agentrun.cli.on_store.telling import not_asked

        return not_asked(run, label)

    def past(self, run: StoredRun, only: StepKey | None) -> Past:
        """See ``Backend``."""
        from agentrun.query.past import Past, records_of

        return Past(run.states, records_of(run.store, run.run, run.states, only), run.events)

    def journal(self, name: str) -> tuple[Store, RunPath]:
        """See ``Backend``."""
        return self.store, self.path(name)

    def logs(self, name: str, step: str | None, *, follow: bool) -> Iterator[LogLine]:
        """See ``Backend``."""
        from agentrun.cli.on_store.logs import lines

        return lines(self.place, self.store, self.path(name), step, follow=follow)

    def resume_command(self, run: StoredRun) -> Command:
        """See ``Backend``: with the ``--secrets`` that the person gave, or a placeholder if a step reads Secrets."""
        from agentrun.cli.on_store.secrets import reads_secrets
        from agentrun.query.next_steps import Command

        if self.secrets is not None:
            return Command(("resume", run.name), f"--secrets {shlex.quote(self.secrets)}")
        needed = "AGENTRUN_SECRETS" not in os.environ and reads_secrets(run.program)
        return Command(("resume", run.name), "--secrets DIR" if needed else "")

    # -- telling: in its own module, because most commands only read ------------------------------------------------

    def give(self, run: StoredRun, verb: Signal | Resolve | Suspend | Cancel) -> tuple[StoredRun, bool]:
        """See ``Backend``."""
        from agentrun.cli.on_store.telling import give

        return give(run, verb)

    def check_decider(self, question: Question, groups: Sequence[str]) -> None:
        """See ``Backend``: nothing verifies the person here, so the claimed groups count."""
        from agentrun.cli.on_store.telling import check_decider

        check_decider(question, groups)

    def decide(self, run: StoredRun, question: Question, decision: Verdict, comment: str, groups: Sequence[str]) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.telling import decide

        return decide(self.place, run, question, decision, comment, groups)

    # -- making, and going on -----------------------------------------------------------------------------------------

    def check(self, documents: Sequence[Document]) -> str:
        """See ``Backend``: a store has no further checks."""
        del documents
        return "valid"

    def complete(self, documents: list[Document]) -> tuple[list[Document], str | None]:
        """See ``Backend``: the documents are unchanged. Warns about fields that have an effect on a cluster only."""
        from agentrun.api.run import cluster_only
        from agentrun.cli.failures import warn

        if ignored := cluster_only(*(document.model.spec for document in documents)):
            warn(f"{', '.join(ignored)}: only a cluster uses this; it is ignored here")
        return documents, self.place.given_namespace

    def start(self, manifest: RunManifest, documents: Sequence[Document], secrets: str | None, *, detach: bool) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.starting import start

        del documents
        self.place, self.secrets = Place(self.place.url, manifest["namespace"], self.place.output), secrets
        return start(self, manifest, detach=detach)

    def source(self, name: str) -> Source:
        """See ``Backend``: the run may be damaged, if its manifest can be read."""
        from agentrun.cli.backend import Source
        from agentrun.journal.runs import read_manifest

        path = self.path(name)
        return Source(read_manifest(self.store, path), (self.store, path))

    def fork(
        self, source: Source, manifest: RunManifest, at: StepKey, seq: int | None, secrets: str | None, *, detach: bool
    ) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.starting import start_fork

        self.secrets = secrets
        assert source.journal is not None
        manifest.pop("cluster", None)  # this machine drives the new run, even if a cluster ran the source
        return start_fork(self, source.journal[1], manifest, at, seq, detach=detach)

    def resume(self, run: StoredRun, secrets: str | None, *, detach: bool) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.starting import resume

        self.secrets = secrets
        return resume(self, run, detach=detach)

    def drive(self, name: str, secrets: str | None) -> int:
        """See ``Backend``."""
        from agentrun.cli.on_store.driving import drive

        self.secrets = secrets
        return drive(self, self.path(name))
