"""A run at one moment, as an AgentRun object. Every reader of runs starts from it.

The object has the same shape for a run in a store and on a cluster. A subclass adds what the status does not have, such
as the process that drives the run (``stored_run``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentrun.api.canonical import moment
from agentrun.api.errors import Refused
from agentrun.api.facts import ApprovalRequest
from agentrun.api.keys import StepKey
from agentrun.api.labels import REQUESTED_BY
from agentrun.api.printable import printable
from agentrun.api.run import CHANGED_BY, Outcome, Reason
from agentrun.api.texts import person, quoted
from agentrun.query.texts import value
from agentrun.records.waits import WAITS, MovedBy

_APPLY_FIRST = {str(Reason.WORKFLOW_NOT_FOUND), str(Reason.SOURCE_NOT_FOUND)}
_OUTCOMES = {str(outcome) for outcome in Outcome}


class Mover(StrEnum):
    """Who drives a run that has not ended."""

    OPERATOR = "operator"
    """The operator of the cluster that the run was read from."""
    ELSEWHERE = "elsewhere"
    """The operator of a cluster, but the run was read from its store, which takes no commands for it."""
    DRIVER = "driver"
    """A process of this machine that is surely alive."""
    UNSEEN = "unseen"
    """A process that may be alive or dead: it is on another host, or began before this host rebooted."""
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Question:
    """An undecided request for approval."""

    step: str
    """The label of the step that asks."""
    request: ApprovalRequest
    approval: Mapping[str, Any] | None = None
    """On a cluster: the Approval object of the request."""


@dataclass
class RunView:
    """An AgentRun at one moment."""

    obj: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.obj["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """Its uid: on a cluster Kubernetes' own, with hyphens."""
        return str(self.obj["metadata"]["uid"])

    @property
    def spec(self) -> dict[str, Any]:
        """Its spec."""
        found: dict[str, Any] = self.obj["spec"]
        return found

    @property
    def status(self) -> dict[str, Any]:
        """Its status; empty until an operator has visited the run."""
        return self.obj.get("status") or {}

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The status of each step by its label."""
        return {entry["name"]: entry for entry in self.status.get("steps", ())}

    @property
    def waiting(self) -> dict[str, dict[str, Any]]:
        """What each waiting step waits for, by label."""
        return {label: entry["waitingFor"] for label, entry in self.entries.items() if "waitingFor" in entry}

    @property
    def step_names(self) -> list[str]:
        """The names of its steps, as far as they are known."""
        return list(dict.fromkeys(label.partition("[")[0].removesuffix(".compensate") for label in self.entries))

    @property
    def phase(self) -> str:
        """The phase; Pending if no operator has visited the run."""
        return str(self.status.get("phase") or Reason.PENDING)

    @property
    def reason(self) -> str:
        """The reason of the condition Ready."""
        return next((c["reason"] for c in self.status.get("conditions", ()) if c["type"] == "Ready"), "")

    @property
    def created(self) -> str:
        """When it was created, in RFC 3339. The texts sort in the order of time."""
        return str(self.obj["metadata"]["creationTimestamp"])

    @property
    def started(self) -> float:
        """When it began, in seconds since the epoch; when it was created if it has not begun."""
        return moment(self.status.get("startTime") or self.created)

    @property
    def finished(self) -> float | None:
        """When it ended, in seconds since the epoch; None if it has not."""
        return moment(self.status["completionTime"]) if "completionTime" in self.status else None

    @property
    def requester(self) -> str | None:
        """Who created it; None if nobody vouches for a name."""
        found = (self.obj["metadata"].get("annotations") or {}).get(REQUESTED_BY)
        return str(found) if found else None

    @property
    def requested(self) -> str:
        """Who created it, in words."""
        return f"by {person(self.requester)}"

    def changer(self, field: str) -> str | None:
        """Who last changed that field of the spec; None if it is not recorded."""
        found = (self.obj["metadata"].get("annotations") or {}).get(CHANGED_BY[field])
        return str(found) if found else None

    @property
    def unreadable(self) -> str | None:
        """Why a part of its object cannot be read; None if all of it can."""
        return None

    @property
    def ended(self) -> bool:
        """Whether the run has ended: it can no longer change."""
        return "completionTime" in self.status or self.phase in _OUTCOMES

    @property
    def hopeless(self) -> bool:
        """Whether it will never begin: its spec is invalid, and a spec does not change."""
        return self.reason == Reason.INVALID_SPEC

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled. It may still run compensations."""
        return bool(self.spec.get("cancel"))

    @property
    def suspended(self) -> bool:
        """Whether it starts nothing until a person resumes it."""
        return bool(self.spec.get("suspend")) and not self.cancelled and not self.ended

    @property
    def seen(self) -> bool:
        """Whether the operator has seen the present spec (``observedGeneration``)."""
        return int(self.status.get("observedGeneration", 0)) >= int(self.obj["metadata"].get("generation", 0))

    @property
    def waits_for_person(self) -> bool:
        """Whether the run makes no progress until a person does something."""
        if self.ended or not self.seen:
            return False
        if self.hopeless or self.reason in _APPLY_FIRST:
            return True
        if any(entry["state"] == "Running" for entry in self.entries.values()):
            return False
        moved_by = {WAITS[kind].moved_by for what in self.waiting.values() for kind in what if kind in WAITS}
        return self.phase in (Reason.SUSPENDED, "Stalled") or moved_by == {MovedBy.PERSON}

    @property
    def mover(self) -> Mover:
        """Who drives it."""
        return Mover.OPERATOR

    @property
    def driver_name(self) -> str:
        """The process that drives the run, in words; empty if there is none."""
        return ""

    def unknown_call(self, label: str) -> tuple[str, str] | None:
        """The id and the words for the step's call whose outcome is unknown; None if there is no such call."""
        waiting = self.waiting.get(label, {})
        return (waiting["callId"], value(waiting["tool"])) if "resolve" in waiting else None

    def still_going(self) -> None:
        """Raise Refused if the run has ended."""
        if self.ended:
            raise Refused(f"run {self.name} has ended: {self.phase}; an ended run never changes")

    def key(self, text: str) -> StepKey:
        """Parse the step that a person names.

        Raises:
            Refused: the text does not name a step, or the run's steps are known and none has the name.
        """
        key = parse_step(text)
        names = self.step_names
        if names and key.name not in names:
            raise Refused(f"run {self.name} has no step {quoted(key.name)}; it has {printable(', '.join(names), 300)}")
        return key


def parse_step(text: str) -> StepKey:
    """The step that a person names, of whatever run. Raises Refused if the text does not name a step."""
    try:
        return StepKey.parse(text)
    except ValueError as error:
        raise Refused(str(error)) from None


def signals_of(workflow: Mapping[str, Any]) -> list[str]:
    """The signals that steps of the workflow wait for."""
    waits = (step.get("wait") or {} for step in [*workflow["steps"], *workflow.get("finally", ())])
    return sorted({wait["signal"] for wait in waits if wait.get("signal") is not None})


def wanted(key: StepKey, only: StepKey | None) -> bool:
    """Whether ``only`` selects the step. It names one item or a whole fan-out with its items; None selects all."""
    return only is None or (key.name == only.name and only.index in (None, key.index))
