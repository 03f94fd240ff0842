"""A run at one moment, as an AgentRun object: what everybody who reads runs starts from, wherever a run is kept.

The object has the same shape in a store and on a cluster. What a status does not tell, such as which process drives the
run, is told by the subclass that reads it from somewhere else (``stored_run``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentrun.api.canonical import moment
from agentrun.api.errors import Refused
from agentrun.api.facts import ApprovalRequest, StepKey
from agentrun.api.names import REQUESTED_BY
from agentrun.api.printable import printable
from agentrun.api.run import CHANGED_BY, Outcome, Reason
from agentrun.api.texts import quoted
from agentrun.query.texts import value
from agentrun.records.waits import WAITS, MovedBy

_APPLY_FIRST = {str(Reason.WORKFLOW_NOT_FOUND), str(Reason.SOURCE_NOT_FOUND)}
_OUTCOMES = {str(outcome) for outcome in Outcome}


class Mover(StrEnum):
    """Who goes on with a run that has not ended."""

    OPERATOR = "operator"
    """The operator of the cluster that the run was read from."""
    ELSEWHERE = "elsewhere"
    """The operator of some cluster; the run was read from its store, through which it is told nothing."""
    DRIVER = "driver"
    """A process of this machine, which surely lives."""
    UNSEEN = "unseen"
    """A process, of which nothing here tells whether it lives: on another host, or before a reboot of this one."""
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Question:
    """An approval that people were asked for and that is undecided."""

    step: str
    """The label of the step that asks."""
    request: ApprovalRequest
    approval: Mapping[str, Any] | None = None
    """The Approval that holds it, on a cluster."""


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
        """What was asked for."""
        found: dict[str, Any] = self.obj["spec"]
        return found

    @property
    def status(self) -> dict[str, Any]:
        """How it stands; empty before an operator came to the run."""
        return self.obj.get("status") or {}

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The status of each step by its label."""
        return {entry["name"]: entry for entry in self.status.get("steps", ())}

    @property
    def waiting(self) -> dict[str, dict[str, Any]]:
        """What each step waits for, by the labels of those that wait."""
        return {label: entry["waitingFor"] for label, entry in self.entries.items() if "waitingFor" in entry}

    @property
    def step_names(self) -> list[str]:
        """The names of its steps, as far as they are known."""
        return list(dict.fromkeys(label.partition("[")[0].removesuffix(".compensate") for label in self.entries))

    @property
    def phase(self) -> str:
        """The phase; Pending where no operator has seen the run."""
        return str(self.status.get("phase") or Reason.PENDING)

    @property
    def reason(self) -> str:
        """The reason of the condition Ready."""
        return next((c["reason"] for c in self.status.get("conditions", ()) if c["type"] == "Ready"), "")

    @property
    def created(self) -> str:
        """When it was made, in RFC 3339: later instants sort behind earlier ones."""
        return str(self.obj["metadata"]["creationTimestamp"])

    @property
    def started(self) -> float:
        """When it began, or was made if it has not begun, in seconds since the epoch."""
        return moment(self.status.get("startTime") or self.created)

    @property
    def finished(self) -> float | None:
        """When it ended, in seconds since the epoch."""
        return moment(self.status["completionTime"]) if "completionTime" in self.status else None

    @property
    def requester(self) -> str | None:
        """Who made it; None where nobody vouches for a name."""
        found = (self.obj["metadata"].get("annotations") or {}).get(REQUESTED_BY)
        return str(found) if found else None

    @property
    def requested(self) -> str:
        """Who made it, in words."""
        return f"by {printable(self.requester, 60)}" if self.requester else "by somebody unknown"

    def changer(self, field: str) -> str | None:
        """Who changed that field of the spec last; None where nobody says so."""
        found = (self.obj["metadata"].get("annotations") or {}).get(CHANGED_BY[field])
        return str(found) if found else None

    @property
    def unreadable(self) -> str | None:
        """Why nothing of its object can be read but the name; None where it can."""
        return None

    @property
    def ended(self) -> bool:
        """Whether the run has ended: it can no longer change."""
        return "completionTime" in self.status or self.phase in _OUTCOMES

    @property
    def hopeless(self) -> bool:
        """Whether it will never begin: its spec is not valid, and a spec does not change."""
        return self.reason == Reason.INVALID_SPEC

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled: it may still compensate."""
        return bool(self.spec.get("cancel"))

    @property
    def suspended(self) -> bool:
        """Whether it starts nothing until it is resumed."""
        return bool(self.spec.get("suspend")) and not self.cancelled and not self.ended

    @property
    def seen(self) -> bool:
        """Whether the status is about the spec as it is."""
        return int(self.status.get("observedGeneration", 0)) >= int(self.obj["metadata"].get("generation", 0))

    @property
    def waits_for_person(self) -> bool:
        """Whether nothing moves until a person does something."""
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
        """Who goes on with it."""
        return Mover.OPERATOR

    @property
    def driver_name(self) -> str:
        """The process that drives the run, in words; empty where none does."""
        return ""

    def unknown_call(self, label: str) -> tuple[str, str] | None:
        """The call of a step whose outcome is unknown: its id, and the call in words. None where the step has none."""
        waiting = self.waiting.get(label, {})
        return (waiting["callId"], value(waiting["tool"])) if "resolve" in waiting else None

    def still_going(self) -> None:
        """Raise Refused where the run has ended."""
        if self.ended:
            raise Refused(f"run {self.name} has ended: {self.phase}; an ended run never changes")

    def key(self, text: str) -> StepKey:
        """The step that a person names. Raises Refused where the run has none of that name, as far as it is known."""
        try:
            key = StepKey.parse(text)
        except ValueError as error:
            raise Refused(str(error)) from None
        names = self.step_names
        if names and key.name not in names:
            raise Refused(f"run {self.name} has no step {quoted(key.name)}; it has {printable(', '.join(names), 300)}")
        return key


def signals_of(workflow: Mapping[str, Any]) -> list[str]:
    """The signals that steps of the workflow wait for."""
    waits = (step.get("wait") or {} for step in [*workflow["steps"], *workflow.get("finally", ())])
    return sorted({wait["signal"] for wait in waits if "signal" in wait})


def wanted(key: StepKey, only: StepKey | None) -> bool:
    """Whether the step is ``only``, or an item of it where that names the whole fan-out; None: every step is."""
    return only is None or (key.name == only.name and only.index in (None, key.index))
