"""What every verb needs of the place where runs are kept: ``on_store`` and ``on_cluster`` implement it.

A verb is written once, in ``verbs``, over this protocol. What a place alone knows stays behind it: who goes on with a
run, who vouches for a person, how a run is followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agentrun.api.facts import StepKey
from agentrun.query.next_steps import Command
from agentrun.query.run_view import Question, RunView

if TYPE_CHECKING:
    from agentrun.api.approval import Verdict
    from agentrun.api.command import Resolve, Signal
    from agentrun.api.document import Document
    from agentrun.cli.place import AnyPlace
    from agentrun.journal.layout import RunPath
    from agentrun.journal.run import Unreadable
    from agentrun.plan.commands import Cancel, Suspend
    from agentrun.query.logs import LogLine
    from agentrun.query.past import Past
    from agentrun.records.manifest import RunManifest
    from agentrun.store.protocol import Store

R = TypeVar("R", bound=RunView)


@dataclass(frozen=True, slots=True)
class Source:
    """A run that another one is forked from."""

    manifest: RunManifest
    """As much of it as ``forked_manifest`` reads."""
    journal: tuple[Store, RunPath] | None
    """Where its journal is; None where the person may not read it."""
    run: RunView | None = None
    """Its object, on a cluster."""


class Backend(Protocol[R]):
    """Where runs are kept. Each method raises StoreError or ClusterError where that is out of reach, and Refused."""

    @property
    def place(self) -> AnyPlace:
        """Where that is, as it was given, and the form of the answer."""

    @property
    def requester(self) -> str | None:
        """Whose name a new run bears; None where the place itself says it."""

    # -- reading ------------------------------------------------------------------------------------------------------

    def find(self, name: str, *, to_tell: bool = False) -> R:
        """The run of that name. With ``to_tell``, raise Refused where it cannot be told anything through this place."""

    def again(self, run: R) -> R:
        """The same run as it is now."""

    def runs(self, *, all_namespaces: bool) -> list[R | Unreadable]:
        """The runs of the namespace, or of all."""

    def where(self, *, all_namespaces: bool) -> str:
        """What ``runs`` looked through, in words."""

    def workflow(self, run: R) -> Mapping[str, Any] | None:
        """The workflow that the run pinned; None where that cannot be told."""

    def output(self, run: R) -> Any:
        """The output of a run that has succeeded."""

    def questions(self, run: R) -> list[Question]:
        """The questions of the run that are undecided, in the order of the steps."""

    def not_asked(self, run: R, label: str) -> str:
        """Why there is nothing to decide in the step: who has decided, or how it stands."""

    def past(self, run: R, only: StepKey | None) -> Past:
        """What the journal has of the steps that are wanted; nothing, after saying so, where it may not be read."""

    def journal(self, name: str) -> tuple[Store, RunPath]:
        """Where the journal of the run of that name is."""

    def logs(self, name: str, step: str | None, *, follow: bool) -> Iterator[LogLine]:
        """What the run's processes logged, in the order of time; ``follow``: until the run has ended."""

    def resume_command(self, run: R) -> Command:
        """The command that goes on with the run."""

    # -- telling ------------------------------------------------------------------------------------------------------

    def give(self, run: R, verb: Signal | Resolve | Suspend | Cancel) -> bool:
        """Tell the run ``verb``; False where that was so before. Raises Refused where the run does not take it."""

    def check_decider(self, question: Question, groups: Sequence[str]) -> None:
        """Raise Refused where this place can tell that the person may not decide. Asked before anything is written."""

    def decide(self, run: R, question: Question, decision: Verdict, comment: str, groups: Sequence[str]) -> int:
        """Record the decision; how many people have approved by then. Raises Refused where it was decided before."""

    # -- making, and going on -----------------------------------------------------------------------------------------

    def check(self, documents: Sequence[Document]) -> str:
        """Ask the place about a file that is valid; what it says. Raises InvalidDocument."""

    def complete(self, documents: list[Document]) -> tuple[list[Document], str | None]:
        """A file's documents with what they refer to of the place, and the run's namespace as far as it was given."""

    def start(self, manifest: RunManifest, documents: Sequence[Document], secrets: str | None, *, detach: bool) -> int:
        """Make the run of a file, and follow it unless ``detach``; the exit code."""

    def source(self, name: str) -> Source:
        """The run of that name, as one that another is forked from."""

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
        """Make the run that goes on from a point of ``source``, and follow it unless ``detach``; the exit code."""

    def resume(self, run: R, secrets: str | None, *, detach: bool) -> int:
        """Let the run go on where it is suspended or parked, and follow it unless ``detach``; the exit code."""

    def drive(self, name: str, secrets: str | None) -> int:
        """Drive the run of that name as it stands; the exit code. Raises UsageError where an operator does that."""
