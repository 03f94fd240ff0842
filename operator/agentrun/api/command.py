"""AgentCommand: a person's command to a run, other than ``suspend`` and ``cancel``.

``agentrun signal``, ``resume`` and ``resolve`` create one in the person's name. The operator records it in the journal
with the name of its author, or rejects it, and answers in the status. The messages in capitals are shared with the
CRD's rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from agentrun.api.canonical import timestamp
from agentrun.api.printable import printable
from agentrun.api.values import Name, Spec, StepPlace, Uid
from agentrun.api.workflow import API_VERSION

ONE_COMMAND = "give exactly one of signal, resume and resolve"
ONE_ANSWER = "give exactly one of happened, retry and giveUp"

PAYLOAD_MAX = 64 * 1024
"""Bytes of a signal's payload or of a call's result, as JSON."""

ACCEPTED = "Accepted"
"""The type of the condition that answers an AgentCommand. Its reason is an ``AcceptedReason``."""

AcceptedReason = Literal["Recorded", "Rejected"]

ANSWER_MAX = 1024
"""Characters of the message of that condition."""


class Signal(Spec):
    """A signal by its name; the payload is the output of the wait that takes it."""

    name: Name
    payload: Any = None


class Resume(Spec):
    """Free what is parked: this step, or without one everything, and a suspension."""

    step: StepPlace | None = None


class Happened(Spec):
    """The call was made, and this was its result."""

    result: Any = None


class Resolve(Spec):
    """What became of a ``Once`` call whose outcome is unknown: exactly one of ``happened``, ``retry``, ``giveUp``."""

    step: StepPlace
    call_id: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    happened: Happened | None = None
    retry: Literal[True] | None = None
    give_up: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Resolve:
        if sum(answer is not None for answer in (self.happened, self.retry, self.give_up)) != 1:
            raise ValueError(ONE_ANSWER)
        return self

    @property
    def answer(self) -> Literal["happened", "retry", "giveUp"]:
        """The answer as the journal records it."""
        return "happened" if self.happened is not None else "retry" if self.retry is not None else "giveUp"


class CommandedRun(Spec):
    """The run that is told. With ``uid``: only if it is still that run."""

    name: Name
    uid: Uid | None = None


class AgentCommandSpec(Spec):
    """Who is told what: exactly one of ``signal``, ``resume`` and ``resolve``. Never changes."""

    run: CommandedRun
    signal: Signal | None = None
    resume: Resume | None = None
    resolve: Resolve | None = None

    @model_validator(mode="after")
    def _one_command(self) -> AgentCommandSpec:
        if sum(verb is not None for verb in (self.signal, self.resume, self.resolve)) != 1:
            raise ValueError(ONE_COMMAND)
        return self


class AgentCommand(Spec):
    """An AgentCommand object."""

    api_version: Annotated[str, Field(pattern=f"^{API_VERSION}$")]
    kind: Annotated[str, Field(pattern="^AgentCommand$")]
    metadata: dict[str, Any]
    spec: AgentCommandSpec


@dataclass(frozen=True, slots=True)
class Command:
    """A checked AgentCommand. ``at`` is when it reached the API server, in seconds since the epoch."""

    name: str
    namespace: str
    uid: str
    at: float
    requested_by: str | None
    """The author, set by an admission policy; None if the cluster has no such policy."""
    run: str
    run_uid: str | None
    """Kubernetes' uid of the run; None means any run with the name."""
    verb: Signal | Resume | Resolve


def accepted(refusal: str, at: float) -> dict[str, Any]:
    """The condition that answers a command: ``refusal`` says why it is rejected; "": it is in the run's journal.

    ``at``: seconds since the epoch. The condition has no ``observedGeneration``, because the spec never changes.
    """
    reason: AcceptedReason = "Rejected" if refusal else "Recorded"
    return {
        "type": ACCEPTED,
        "status": "False" if refusal else "True",
        "reason": reason,
        "message": printable(refusal, ANSWER_MAX) or "The command is in the run's journal.",
        "lastTransitionTime": timestamp(at),
    }
