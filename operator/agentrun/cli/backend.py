"""The protocol between the verbs and the place where runs are kept. ``on_store`` and ``on_cluster`` implement it.

A verb is written once, in ``verbs``, over this protocol. Everything that differs between places is behind it: who
drives a run, who vouches for a person, how a run is followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from agentrun.api.approval import Verdict
    from agentrun.api.command import Resolve, Signal
    from agentrun.api.keys import StepKey
    from agentrun.cli.place import AnyPlace
    from agentrun.documents.document import Document
    from agentrun.journal.paths import RunPath
    from agentrun.journal.runs import Unreadable
    from agentrun.plan.commands import Cancel, Suspend
    from agentrun.query.logs import LogLine
    from agentrun.query.next_steps import Command
    from agentrun.query.past import Past
    from agentrun.query.run_view import Question, RunView
    from agentrun.records.manifest import RunManifest
    from agentrun.store.protocol import Store

R = TypeVar("R", bound="RunView")


@dataclass(frozen=True, slots=True)
class Source:
    """The run that a new run is forked from."""

    manifest: RunManifest
    """At least the fields that ``forked_manifest`` reads."""
    journal: tuple[Store, RunPath] | None
    """Where its journal is; None if the journal cannot be read."""
    run: RunView | None = None
    """On a cluster: its object."""


class Backend(Protocol[R]):
    """The place where runs are kept.

    Each method can raise Refused, and StoreError or ClusterError if the place is out of reach.
    """

    @property
    def place(self) -> AnyPlace:
        """The place as it was given, and the form of output."""

    @property
    def requester(self) -> str | None:
        """The author that a new run records; None if the place sets it itself."""

    # -- reading ------------------------------------------------------------------------------------------------------

    def find(self, name: str, *, to_tell: bool = False) -> R:
        """The run of that name. With ``to_tell``, raise Refused if the run takes no commands through this place."""

    def again(self, run: R) -> R:
        """Read the same run again."""

    def runs(self, *, all_namespaces: bool) -> list[R | Unreadable]:
        """The runs of the namespace, or of all namespaces."""

    def where(self, *, all_namespaces: bool) -> str:
        """Where ``runs`` looks, in words."""

    def workflow(self, run: R) -> Mapping[str, Any] | None:
        """The workflow that the run pinned; None if it cannot be read."""

    def output(self, run: R) -> Any:
        """The output of a run that succeeded."""

    def questions(self, run: R) -> list[Question]:
        """The undecided requests for approval of the run."""

    def not_asked(self, run: R, label: str) -> str:
        """Why the step has nothing to decide: who has decided, or the step's state."""

    def past(self, run: R, only: StepKey | None) -> Past:
        """The records of the steps that ``only`` selects. If the journal cannot be read, warn and return none."""

    def journal(self, name: str) -> tuple[Store, RunPath]:
        """Where the journal of the run of that name is."""

    def logs(self, name: str, step: str | None, *, follow: bool) -> Iterator[LogLine]:
        """The log lines of the run's processes. With ``follow``, wait for new lines until the run has ended."""

    def resume_command(self, run: R) -> Command:
        """The command that resumes the run."""

    # -- telling ------------------------------------------------------------------------------------------------------

    def give(self, run: R, verb: Signal | Resolve | Suspend | Cancel) -> tuple[R, bool]:
        """Give the run a command. Raises Refused if the run rejects it.

        Returns the run after it, as far as that is known without asking again, and whether the command is new: False if
        it had the same effect before. On a cluster no request follows the write: the person is told of it in any case.
        """

    def check_decider(self, question: Question, groups: Sequence[str]) -> None:
        """Raise Refused if this place knows that the person may not decide. Called before anything is written."""

    def decide(self, run: R, question: Question, decision: Verdict, comment: str, groups: Sequence[str]) -> int:
        """Record the decision, and return how many people have approved. Raises Refused if it was decided before."""

    # -- making, and going on -----------------------------------------------------------------------------------------

    def check(self, documents: Sequence[Document]) -> str:
        """Check the documents of a valid file against the place; the result in words. Raises InvalidDocument."""

    def complete(self, documents: list[Document]) -> tuple[list[Document], str | None]:
        """The documents, with those of the place that they refer to, and the run's namespace if one is given."""

    def start(self, manifest: RunManifest, documents: Sequence[Document], secrets: str | None, *, detach: bool) -> int:
        """Create the run of a file, and follow it unless ``detach``. Returns the exit code."""

    def source(self, name: str) -> Source:
        """The run of that name as the source of a fork."""

    def fork(
        self,
        source: Source,
        manifest: RunManifest,
        at: StepKey,
        seq: int | None,
        secrets: str | None,
        *,
        detach: bool,
    ) -> int:
        """Create the run that goes on from a point of ``source``, and follow it unless ``detach``.

        Returns the exit code.
        """

    def resume(self, run: R, secrets: str | None, *, detach: bool) -> int:
        """Resume what is suspended or parked, and follow the run unless ``detach``. Returns the exit code."""

    def drive(self, name: str, secrets: str | None) -> int:
        """Drive the run of that name in its present state. Returns the exit code.

        Raises:
            UsageError: an operator drives the runs of this place.
        """
