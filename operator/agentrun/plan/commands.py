"""Which event of the run's journal a person's verb becomes, and whether the journal has that event already.

The operator and the command line of one machine record the same kinds of events. They know different things about the
person, and each difference is named where it is made:

- On a cluster the API server vouches for the author, and an AgentCommand has a uid, by which its event is found again.
- On one machine the author is the user of the operating system, and claims groups; nothing vouches for either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, overload

from agentrun.api.command import Resolve, Resume, Signal
from agentrun.api.facts import AttemptEnd, StepFact
from agentrun.api.keys import StepKey
from agentrun.plan.events import EventIndex
from agentrun.records.run_events import EventKind

if TYPE_CHECKING:
    from agentrun.api.approval import Decision, Verdict


@dataclass(frozen=True, slots=True)
class Suspend:
    """Start nothing new."""


@dataclass(frozen=True, slots=True)
class Unsuspend:
    """Start again what is due."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the run."""


@dataclass(frozen=True, slots=True)
class KeepFor:
    """Delete the run's object this many seconds after the run's end; None: keep it."""

    seconds: int | None


@dataclass(frozen=True, slots=True)
class Decide:
    """Decide a question on one machine. ``groups``: the groups that the person claims to be in."""

    key: StepKey
    digest: str
    decision: Verdict
    comment: str
    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class DecideApproval:
    """Decide a question on a cluster: one entry of the Approval with that name. The entry names its author."""

    approval: str
    decision: Decision


Verb = Signal | Resume | Resolve | Suspend | Unsuspend | Cancel | KeepFor | Decide | DecideApproval


@dataclass(frozen=True, slots=True)
class Author:
    """The person who gives a verb. ``by``: the name; None on a cluster if no admission policy stamped it."""

    by: str | None
    verified: bool = False
    """An API server vouches for ``by``."""
    command: str | None = None
    """The uid of the AgentCommand that carries the verb."""
    on_cluster: bool = False


class Run(Protocol):
    """What has to be known of a run in order to record an event."""

    def fact(self, key: StepKey) -> StepFact | None:
        """The fact of a step by its journal; None: it has no journal."""

    def lost(self) -> Iterable[tuple[StepKey, int]]:
        """The steps whose last attempt was lost, with the attempt's number."""

    @property
    def finally_begun(self) -> bool:
        """Whether a step of ``finally`` has begun, and so has read the run's outcome."""


class NewRun:
    """A run that was just created: no step has begun."""

    finally_begun = False

    def fact(self, key: StepKey) -> StepFact | None:
        """None."""
        return None

    def lost(self) -> Iterable[tuple[StepKey, int]]:
        """No step."""
        return ()


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append to the run's journal, unless it is recorded already."""

    kind: EventKind
    body: dict[str, Any]
    about: StepFact | None = None
    """The attempt whose unknown call the event resolves."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a verb does not apply to the run in its present state."""

    why: str


@overload
def event_for(verb: Resolve, run: Run, author: Author) -> NewEvent | Refusal: ...
@overload
def event_for(
    verb: Signal | Resume | Suspend | Unsuspend | Cancel | KeepFor | Decide | DecideApproval, run: Run, author: Author
) -> NewEvent: ...
@overload
def event_for(verb: Verb, run: Run, author: Author) -> NewEvent | Refusal: ...
def event_for(verb: Verb, run: Run, author: Author) -> NewEvent | Refusal:
    """The event that ``verb`` becomes, or why the verb does not apply."""
    body: dict[str, Any] = {"by": author.by, "verified": author.verified}
    if author.command is not None:
        body["command"] = author.command
    match verb:
        case Signal(name=name, payload=payload):
            return NewEvent(EventKind.SIGNALLED, body | {"name": name, "payload": payload})
        case Resume(step=step):
            return NewEvent(EventKind.RESUMED, body | _resumed(step, run, author))
        case Resolve():
            return _resolved(verb, run, body)
        case Suspend():
            return NewEvent(EventKind.SUSPENDED, body)
        case Unsuspend():
            return NewEvent(EventKind.UNSUSPENDED, body)
        case Cancel():
            return NewEvent(EventKind.CANCELLED, body | _late(run, author))
        case KeepFor(seconds=seconds):
            return NewEvent(EventKind.TTL_CHANGED, body | {"ttlSecondsAfterFinished": seconds})
        case Decide(key=key, groups=groups):
            body |= {"step": key.path, "digest": verb.digest, "groups": list(groups)}
            return NewEvent(EventKind.DECIDED, body | {"decision": verb.decision, "comment": verb.comment})
        case DecideApproval(approval=approval, decision=decision):
            body |= {"approval": approval, "digest": decision.digest, "at": decision.at}
            return NewEvent(EventKind.DECIDED, body | {"decision": decision.decision, "comment": decision.comment})


def _resumed(step: str | None, run: Run, author: Author) -> dict[str, Any]:
    """The event names attempts, because no clock tells which losses the person has seen.

    On a cluster it names all lost attempts: a command may be about all steps, and ``step`` says which ones are meant.
    On one machine each step has an event of its own, which names only the attempt of that step.
    """
    lost = {key.path: number for key, number in run.lost()}
    path = StepKey.parse(step).path if step else None
    if not author.on_cluster and path is not None:
        lost = {path: lost[path]}
    return {"attempts": lost} | ({"step": path} if path else {})


def _late(run: Run, author: Author) -> dict[str, Any]:
    """Whether the cancellation comes after ``finally`` has begun.

    A cluster has several clocks, so the event always says it. On one machine it says it only if it is true: for a step
    that begins while the event is written, the instants of the two decide.
    """
    late = run.finally_begun
    return {"late": late} if late or author.on_cluster else {}


def _resolved(verb: Resolve, run: Run, body: dict[str, Any]) -> NewEvent | Refusal:
    key = StepKey.parse(verb.step)
    fact = run.fact(key)
    unknown = fact.unknown if fact is not None and fact.end is AttemptEnd.WAITING else None
    if fact is None or unknown is None:
        return Refusal(f"{key.label} has no call whose outcome is unknown: there is nothing to resolve")
    if verb.call_id is not None and verb.call_id != unknown.call_id:
        return Refusal(f"the call of {key.label} whose outcome is unknown is {unknown.call_id}, not {verb.call_id}")
    answer = {
        "step": key.path,
        "callId": unknown.call_id,
        "attempt": fact.attempt,
        "answer": verb.answer,
        "result": verb.happened.result if verb.happened is not None else None,
    }
    return NewEvent(EventKind.RESOLVED, body | answer, fact)


def already_recorded(event: NewEvent, index: EventIndex) -> bool:
    """Whether the journal has the event, or one that makes it redundant, or the run has ended.

    The event of an AgentCommand is recognized by the command's uid. On one machine a verb has no uid: its event is
    recognized by its subject, and every signal is a new one.
    """
    body = event.body
    if index.ended is not None:
        return True
    if "command" in body:
        return index.has_command(body["command"])
    match event.kind:
        case EventKind.DECIDED:
            return index.decision_by(body["digest"], body["by"]) is not None
        case EventKind.SUSPENDED:
            return index.suspended
        case EventKind.UNSUSPENDED:
            return not index.suspended
        case EventKind.CANCELLED:
            return index.cancelled is not None
        case EventKind.TTL_CHANGED:
            return index.ttl_changed is not None and index.ttl_changed.body == body
        case EventKind.RESOLVED:
            assert event.about is not None
            return index.resolution(StepKey.parse(body["step"]), event.about) is not None
        case EventKind.RESUMED:
            # An event of the first journals names no attempt, and counts for nothing here. A step that such an event
            # is about is not parked.
            lost = body["attempts"]
            return bool(lost) and all(index.resumed_after(StepKey.parse(path), n, inf) for path, n in lost.items())
        case _:
            return False
