"""The run's own events, indexed for the planner, and the tally of decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol

from agentrun.api.facts import ApprovalRequest, StepFact
from agentrun.api.keys import CallKey, StepKey
from agentrun.api.run import StepState
from agentrun.api.workflow import FailureClass
from agentrun.records.run_events import (
    ApprovalRequestedBody,
    CancelledBody,
    DecidedBody,
    EndedBody,
    EventKind,
    ResolvedBody,
    ResumedBody,
    SettledBody,
    SignalledBody,
    SuspendedBody,
    TimedOutBody,
    TtlChangedBody,
    WaitStartedBody,
)

if TYPE_CHECKING:
    from agentrun.api.approval import DecidedReason
    from agentrun.plan.snapshot import Event


@dataclass(frozen=True, slots=True)
class Tally:
    """What people have decided about one request. It is undecided while ``state`` is Pending."""

    state: Literal["Pending", "Approved", "Rejected", "Expired"]
    at: float
    events: tuple[int, ...]
    """The numbers of the decisions that count."""
    by: tuple[str, ...] = ()
    comment: str = ""


class Question(Protocol):
    """The part of a question that is needed to count decisions."""

    @property
    def digest(self) -> str:
        """The digest that a decision has to bear."""

    @property
    def required(self) -> int:
        """How many people have to approve."""

    @property
    def expires_at(self) -> float:
        """Seconds since the epoch."""


def tally(request: ApprovalRequest, decisions: Iterable[Event], now: float, *, verified: bool = False) -> Tally:
    """Count the decisions on ``request`` whose authors may decide it.

    ``verified``: count the decisions that came through an API server, whose admission policies vouch for author,
    membership and digest. Otherwise, membership is checked here.
    """
    if verified:
        return count(request, (event for event in decisions if _vouched(event)), now)
    theirs = (e for e in decisions if may_decide(request, e.body["by"], e.body.get("groups", ())))
    return count(request, theirs, now)


def count(question: Question, decisions: Iterable[Event], now: float) -> Tally:
    """Count each person's first decision that bears the question's digest and is in time.

    One rejection rejects. ``required`` distinct people approve. A decision at or after ``expires_at`` does not count,
    so the result does not depend on when it is computed.
    """
    approved: dict[str, Event] = {}
    for event in decisions:
        body: DecidedBody = event.body
        at = body.get("at", event.at)  # when the API server accepted it; the operator may have seen it later
        if body["digest"] != question.digest or at >= question.expires_at or body["by"] in approved:
            continue
        if body["decision"] == "Rejected":
            return Tally("Rejected", event.at, (event.seq,), (body["by"],), body.get("comment", ""))
        approved[body["by"]] = event
        if len(approved) >= question.required:
            seqs = tuple(e.seq for e in approved.values())
            return Tally("Approved", event.at, seqs, tuple(approved), body.get("comment", ""))
    if now >= question.expires_at:
        return Tally("Expired", question.expires_at, ())
    return Tally("Pending", now, (), tuple(approved))


def _vouched(event: Event) -> bool:
    return bool(event.body.get("verified", False))


def may_decide(request: ApprovalRequest, user: str, groups: Sequence[str]) -> bool:
    """Whether ``user`` is among the approvers, by name or by a group."""
    return user in request.approvers.users or not set(groups).isdisjoint(request.approvers.groups)


def answers_to(body: ResolvedBody, at: float, fact: StepFact) -> bool:
    """Whether a resolution, recorded ``at``, is about the attempt that left its call unknown, and not about an earlier
    one that was tried again. Its recorder and the step have different clocks, so the attempt's number decides and not
    the instant. The first journals do not name the attempt; for them the instant decides.
    """
    attempt = body.get("attempt")
    return at >= fact.at if attempt is None else bool(attempt == fact.attempt)


def _ended_as(settled: SettledBody) -> DecidedReason:
    """How the question of an approval step ended, by the event that settled the step."""
    if settled["state"] == StepState.SUCCEEDED:
        return "Approved"
    if settled["state"] == StepState.CANCELLED:
        return "Cancelled"
    return "Rejected" if settled["failure"]["class"] == FailureClass.REJECTED else "Expired"


class EventIndex:
    """The run's events by their subject. Each plan builds it anew, which takes a few microseconds an event."""

    def __init__(self, events: Sequence[Event], *, verified: bool = False, unheard: Set[str] = frozenset()) -> None:
        self._verified, self._unheard = verified, unheard
        self.decisions: dict[str, list[Event]] = {}
        self.settled: dict[str, Event] = {}
        self.requested: dict[str, Event] = {}
        self.waits: dict[str, Event] = {}
        self.begun: dict[str, list[Event]] = {}
        """All beginnings of a wait. It begins once more if the clock was set back."""
        self.resolved: dict[CallKey, list[Event]] = {}
        self.signals: dict[str, list[Event]] = {}
        self.resumed: list[Event] = []
        self.suspended = False
        self.cancelled: Event | None = None
        self.timed_out = False
        self.ended: Event | None = None
        self.ttl_changed: Event | None = None
        """The last change of how long the run's object is kept after its end."""
        for event in events:
            take = _TAKE.get(event.kind)
            if take is not None:  # None: the planner does not read this kind
                take(self, event, event.body)

    @property
    def beginnings(self) -> dict[str, list[Event]]:
        """The events that began each step without a pod, by its path. Each kind of such an event is named here."""
        found: dict[str, list[Event]] = {}
        for events in (self.requested, self.waits):
            for path, event in events.items():
                found.setdefault(path, []).append(event)
        return found

    def tally(self, request: ApprovalRequest, now: float) -> Tally:
        """As the function ``tally``, but a question does not expire while an answer that came in time is unheard."""
        counted = tally(request, self.decisions.get(request.digest, ()), now, verified=self._verified)
        if counted.state == "Expired" and request.digest in self._unheard:
            return Tally("Pending", now, ())
        return counted

    def decision_by(self, digest: str, person: str) -> Event | None:
        """The decision of ``person`` on the question with that digest. There is at most one: nobody can change it."""
        return next((event for event in self.decisions.get(digest, ()) if event.body["by"] == person), None)

    def has_command(self, uid: str) -> bool:
        """Whether the AgentCommand with that uid is recorded."""
        spoken = chain(*self.signals.values(), self.resumed, *self.resolved.values())
        return any(event.body.get("command") == uid for event in spoken)

    def closed(self, question: Question, now: float) -> DecidedReason:
        """How a question ended that the run no longer asks, on a cluster.

        The question of an approval step ended as its step did, because a decision that was recorded after the step's
        end changes nothing. So the step's end decides, not the decisions.
        """
        asked = (s for s, e in self.requested.items() if e.body["request"]["digest"] == question.digest)
        step = next(asked, None)
        if step in self.settled:
            return _ended_as(self.settled[step].body)
        counted = count(question, filter(_vouched, self.decisions.get(question.digest, ())), now)
        return "Cancelled" if counted.state == "Pending" else counted.state

    def signal_for(self, step: str) -> Event | None:
        """The signal that the open wait of ``step`` takes: the n-th open wait for a name takes the n-th unused signal.

        A signal that came before its wait counts, so its sender does not race with the wait.
        """
        name = self.waits[step].body.get("signal")  # None if a damaged log holds waits of two forms for the step
        open_waits = [p for p, e in self.waits.items() if e.body.get("signal") == name and p not in self.settled]
        taken = {e.body.get("signal") for e in self.settled.values()}
        left = [e for e in self.signals.get(name, ()) if e.seq not in taken]
        place = open_waits.index(step)
        return left[place] if place < len(left) else None

    def resolution(self, key: StepKey, fact: StepFact) -> Event | None:
        """The first resolution of the call whose outcome is unknown in ``fact``; None: there is none yet."""
        assert fact.unknown is not None
        answers = self.resolved.get(CallKey(key, fact.unknown.call_id), ())
        return next((event for event in answers if answers_to(event.body, event.at, fact)), None)

    def resumed_after(self, key: StepKey, attempt: int, at: float) -> bool:
        """Whether a person resumed ``key`` (or all steps) after ``attempt`` was lost ``at``."""

        def is_about_it(event: Event) -> bool:
            if "attempts" in event.body:  # in the first journals of one machine the instant decides
                return bool(event.body["attempts"].get(key.path) == attempt)
            return event.at >= at

        return any(e.body.get("step") in (None, key.path, key.label) and is_about_it(e) for e in self.resumed)


def _decided(index: EventIndex, event: Event, body: DecidedBody) -> None:
    index.decisions.setdefault(body["digest"], []).append(event)


def _settled(index: EventIndex, event: Event, body: SettledBody) -> None:
    index.settled.setdefault(body["step"], event)


def _requested(index: EventIndex, event: Event, body: ApprovalRequestedBody) -> None:
    index.requested.setdefault(body["step"], event)


def _wait_started(index: EventIndex, event: Event, body: WaitStartedBody) -> None:
    index.waits[body["step"]] = event
    index.begun.setdefault(body["step"], []).append(event)


def _resolved(index: EventIndex, event: Event, body: ResolvedBody) -> None:
    index.resolved.setdefault(CallKey(StepKey.parse(body["step"]), body["callId"]), []).append(event)


def _signalled(index: EventIndex, event: Event, body: SignalledBody) -> None:
    index.signals.setdefault(body["name"], []).append(event)


def _resumed(index: EventIndex, event: Event, body: ResumedBody) -> None:
    index.resumed.append(event)


def _suspended(index: EventIndex, event: Event, body: SuspendedBody) -> None:
    index.suspended = event.kind == EventKind.SUSPENDED


def _cancelled(index: EventIndex, event: Event, body: CancelledBody) -> None:
    index.cancelled = index.cancelled or event


def _timed_out(index: EventIndex, event: Event, body: TimedOutBody) -> None:
    index.timed_out = True


def _ended(index: EventIndex, event: Event, body: EndedBody) -> None:
    index.ended = index.ended or event


def _ttl_changed(index: EventIndex, event: Event, body: TtlChangedBody) -> None:
    index.ttl_changed = event


# A table, not a ``match``: a ``match`` looks up one member of the enum for each case, and every plan runs this.
_TAKE: dict[str, Callable[[EventIndex, Event, Any], None]] = {
    EventKind.DECIDED: _decided,
    EventKind.SETTLED: _settled,
    EventKind.APPROVAL_REQUESTED: _requested,
    EventKind.WAIT_STARTED: _wait_started,
    EventKind.RESOLVED: _resolved,
    EventKind.SIGNALLED: _signalled,
    EventKind.RESUMED: _resumed,
    EventKind.SUSPENDED: _suspended,
    EventKind.UNSUSPENDED: _suspended,
    EventKind.CANCELLED: _cancelled,
    EventKind.TIMED_OUT: _timed_out,
    EventKind.ENDED: _ended,
    EventKind.TTL_CHANGED: _ttl_changed,
}
