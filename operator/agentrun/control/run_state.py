"""The state of a run that has not ended, in the operator's memory: its pinned manifest, the facts of its journal, its
pods. Other modules change it only by its methods.

The next leader reads all of it from the journal and the cluster, except what is marked as lost. ``status_writer``
and ``approvals`` keep their own memory of a run, which goes with this object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import InitVar, dataclass, field

from agentrun.api.facts import StepFact
from agentrun.api.footprint import footprint
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason
from agentrun.control.views import PodView
from agentrun.journal.bounded_outputs import Outputs
from agentrun.journal.log import EventLog
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.records import Record
from agentrun.journal.runs import as_events
from agentrun.plan.attempt_tracker import AttemptTracker
from agentrun.plan.events import EventIndex
from agentrun.plan.snapshot import Event, Execution, Snapshot, Start
from agentrun.plan.work_budget import Work

LEAVE_MARGIN = 10.0
"""Seconds past its grace period, by our own clock, after which a deleted pod counts as gone: its node is dead. The
fence keeps a process that may still run there from doing anything new."""

QUEUED_LOOK = 600.0
"""Seconds until the next visit to a run that waits for a place. A place that becomes free wakes the run before."""

REFUSAL_FIRST, REFUSAL_MAX = 1.0, 15.0
"""Seconds until the next request for a pod that the API server refused: the first pause and the longest. It doubles."""


@dataclass(slots=True)
class Refusal:
    """A pod that the API server refused. Lost with the leader: the next one asks again at once."""

    message: str
    count: int
    until: float


@dataclass(slots=True)
class Attempt:
    """A pod that the operator has seen or created, and whose end it has not taken in."""

    key: StepKey
    number: int
    running: float | None = None
    """When the pod was first seen running, by our own clock, since the node's clock may be wrong. A new leader sets it
    again, so a step may get a little more of its run's time. The attempt measures the step's own timeout itself.
    """
    leaving: float | None = None
    """When its grace period ends, counted from when its deletion was first seen."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class RunState:
    """See the module."""

    uid: str
    pinned: PinnedRun
    log: EventLog
    tracker: AttemptTracker
    program_bytes: int = 0
    """Bytes of the compiled workflow in memory. Runs of one workflow share it."""
    new: InitVar[bool] = False
    """Whether this leader has just pinned the run."""
    work: Work = field(default_factory=Work)
    """What the run's expressions have cost and returned. Lost with the leader: the next one evaluates them again."""
    outputs: Outputs = field(default_factory=Outputs)
    """Bounds how much of the outputs in ``facts`` stays in memory."""
    _attempts: dict[str, Attempt] = field(default_factory=dict)
    """By the uid of the pod."""
    _farewells: dict[str, PodView] = field(default_factory=dict)
    """The last views of pods that were deleted before their end was taken in, by uid. Without one the journal tells."""
    _taken: set[str] = field(default_factory=set)
    """The uids of pods whose end was taken in."""
    _expected: dict[StepKey, Start] = field(default_factory=dict)
    """The expectations: pod creations without an answer. The pod may or may not exist."""
    _refusals: dict[StepKey, Refusal] = field(default_factory=dict)
    _queued: dict[StepKey, str] = field(default_factory=dict)
    """The steps that had no place for a pod at the last visit, each with the reason for a person."""
    _tried: set[StepKey] = field(default_factory=set)
    """Steps for which this leader requested a pod and was not refused."""
    _heard_at: float | None = None
    """When the watch last reported the end of a pod."""
    _sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of the records of ``log`` in memory, by sequence number."""
    _checked: bool = False
    """Whether this leader has read the run from the API server itself, which it must before it creates the first pod.
    A run that this leader has just pinned needs no such read: nobody else can have begun it, and Kubernetes collects
    the pods of a deleted run.
    """

    def __post_init__(self, new: bool) -> None:
        self._checked = new
        for fact in self.facts.values():
            self.outputs.take(fact)

    # -- what the journal says ------------------------------------------------------------------------------------

    @property
    def facts(self) -> Mapping[StepKey, StepFact]:
        """The facts of all steps, from their journals."""
        return self.tracker.facts

    def fact(self, key: StepKey) -> StepFact | None:
        """The fact of a step; None if it has no journal."""
        return self.facts.get(key)

    def index(self) -> EventIndex:
        """The run's events by their subjects. Only verified decisions count."""
        return EventIndex(as_events(self.log.records), verified=True)

    def footprint_of(self, record: Record | Event) -> int:
        """Bytes of a record in memory, computed once."""
        size = self._sizes.get(record.seq)
        if size is None:
            size = self._sizes[record.seq] = footprint(record.body)
        return size

    def clock_set(self, jump: float, now: float) -> None:
        """Move the stored times after our clock was set by ``jump`` seconds, to ``now``.

        So no attempt gets more or less time, and no pause lasts until a clock that was set back has caught up.
        """
        for attempt in self._attempts.values():
            attempt.running = None if attempt.running is None else attempt.running + jump
            attempt.leaving = None if attempt.leaving is None else attempt.leaving + jump
        for refusal in self._refusals.values():
            refusal.until += jump
        self.tracker.clock_set(jump)
        self.tracker.as_of(now)

    # -- its pods -------------------------------------------------------------------------------------------------

    def gone(self, pods: Mapping[str, PodView], now: float) -> Iterator[tuple[StepKey, int, PodView | None]]:
        """Every attempt whose end was not taken in yet: its pod has ended, counts as gone, or is not in ``pods``."""
        by_uid = {pod.uid: pod for pod in pods.values() if pod.run_uid == self.uid}
        self._taken &= by_uid.keys()
        for pod in by_uid.values():
            if pod.uid not in self._taken and self._is_over(pod, now):
                yield pod.key, pod.attempt, pod
        for uid, attempt in list(self._attempts.items()):
            if uid not in by_uid:
                del self._attempts[uid]
                if attempt.running is None:  # it never ran: a kubelet reports Running before the pod is gone
                    self.tracker.mark_gone(attempt.key, attempt.number)
                yield attempt.key, attempt.number, self._farewells.pop(uid, None)

    def take(self, key: StepKey, number: int, pod: PodView | None, fact: StepFact, now: float) -> None:
        """Take in how an attempt ended. ``fact`` is its termination message, or else the fold of its journal."""
        if pod is not None:
            self._taken.add(pod.uid)
            self._attempts.pop(pod.uid, None)
            if pod.phase == "Ended" and not pod.stray:
                self.tracker.mark_gone(key, number)  # the kubelet itself reported the end
        if self.tracker.is_newer(key, fact):
            fact = self.outputs.take(fact)
        self.tracker.record_end(key, number, fact, now, pod.trouble if pod is not None else None)

    def _is_over(self, pod: PodView, now: float) -> bool:
        """Whether a pod has ended, or was deleted and its node does not answer any more."""
        leaving = self.begun(pod, now).leaving
        return pod.phase == "Ended" or (leaving is not None and now >= leaving + LEAVE_MARGIN)

    def _executions(self, pods: Mapping[str, PodView], now: float) -> dict[StepKey, Execution]:
        """The executions of all steps: attempts with a pod, pods that were refused until their next try, and steps that
        have no place.
        """
        found: dict[StepKey, Execution] = {}
        for pod in pods.values():
            if pod.run_uid != self.uid or pod.uid in self._taken:
                continue  # (a pod that has ended but was not taken in still counts, until its end is known)
            attempt = self.begun(pod, now)
            other = found.get(pod.key)
            if other is None or other.attempt < pod.attempt:
                found[pod.key] = Execution(
                    pod.attempt,
                    attempt.running or now,
                    pod.allowance,
                    stopping=pod.grace is not None,
                    pending=pod.phase == "Pending",
                    drain=pod.drain,
                    trouble=pod.trouble,
                )
        for key, refusal in self._refusals.items():
            if now < refusal.until and key not in found:
                trouble = (Reason.POD_REFUSED, refusal.message)
                found[key] = Execution(0, now, stopping=True, pending=True, trouble=trouble)
        for key, why in self._queued.items():
            if key not in found:
                found[key] = Execution(0, now, stopping=True, pending=True, trouble=(Reason.QUEUED, why))
        return found

    def begun(self, pod: PodView, now: float) -> Attempt:
        """Keep track of a pod until its end is taken in, and note when it began to run and to leave."""
        attempt = self._attempts.setdefault(pod.uid, Attempt(pod.key, pod.attempt))
        if attempt.running is None and (pod.phase == "Running" or pod.stray):
            attempt.running = now
        if attempt.leaving is None and pod.grace is not None:
            attempt.leaving = now + pod.grace
        return attempt

    def lost(self) -> Iterator[tuple[StepKey, int]]:
        """The steps whose last attempt was lost, with its number: what a person who resumes the run has seen."""
        return self.tracker.lost()

    @property
    def finally_begun(self) -> bool:
        """Whether a step of ``finally`` has begun: from then on it, or a person, knows how the run ends."""
        keys = [*self.facts, *self._tried, *(attempt.key for attempt in self._attempts.values())]
        names = {key.name for key in keys} | self.index().beginnings.keys()
        return not names.isdisjoint(self.pinned.program.finally_)

    def end_heard(self, now: float) -> None:
        """Note that the watch reported the end of a pod."""
        self._heard_at = now

    def since_end_heard(self, now: float) -> float | None:
        """Seconds since the watch last reported the end of a pod, for the metric of how soon the next pod follows."""
        return None if self._heard_at is None else max(0.0, now - self._heard_at)

    def pod_deleted(self, pod: PodView) -> None:
        """Keep the last view of a pod that the watch reported as deleted: only it may tell how the pod ended."""
        if pod.uid in self._attempts:
            self._farewells[pod.uid] = pod

    def has_taken(self, pod: PodView) -> bool:
        """Whether the end of the pod was taken in."""
        return pod.uid in self._taken

    # -- pods that are asked for ----------------------------------------------------------------------------------

    @property
    def checked(self) -> bool:
        """Whether this leader may create pods, because the API server itself confirmed the run."""
        return self._checked

    def mark_checked(self) -> None:
        """Note that the API server confirmed the run as it was last seen."""
        self._checked = True

    @property
    def expected(self) -> tuple[Start, ...]:
        """The pod creations without an answer."""
        return tuple(self._expected.values())

    def expect(self, start: Start) -> None:
        """Note that a pod is requested: from now on it may exist."""
        self._tried.add(start.key)
        self._expected[start.key] = start

    def observed(self, key: StepKey) -> None:
        """Forget an expectation: the API server has answered whether the pod exists."""
        self._expected.pop(key, None)

    def accepted(self, key: StepKey) -> None:
        """Note that the API server accepted the pod."""
        self.observed(key)
        self._refusals.pop(key, None)

    def refused(self, key: StepKey, message: str, now: float) -> None:
        """Note that the API server refused the pod. The next request follows after a pause that doubles."""
        self.observed(key)
        self._tried.discard(key)
        before = self._refusals.get(key)
        count = before.count + 1 if before is not None else 1
        pause = min(REFUSAL_FIRST * 2.0 ** min(count - 1, 20), REFUSAL_MAX)
        self._refusals[key] = Refusal(message, count, now + pause)

    @property
    def waits_for_place(self) -> bool:
        """Whether a pod had no place at the last visit."""
        return bool(self._queued)

    def has_no_place(self, keys: Iterable[StepKey], why: str) -> None:
        """Note that these pods have no place until the next visit, and why."""
        self._queued.update(dict.fromkeys(keys, why))

    def begin_visit(self) -> None:
        """Forget which pods had no place: each visit asks for places again."""
        self._queued.clear()

    @property
    def at_rest(self) -> bool:
        """Whether the run has no pod and waits for none, so that dropping it from memory loses nothing."""
        return not self._attempts and not self._expected and not self._queued

    # -- what a visit looks at ------------------------------------------------------------------------------------

    def snapshot(self, pods: Mapping[str, PodView], unheard: Set[str], now: float) -> Snapshot:
        """The snapshot for the planner. It shares the journal's data, which outlives it, and copies nothing of that."""
        return self.pinned.driven(now, self.tracker, self.log.records, self._executions(pods, now), unheard)

    def wakes(self, pods: Iterable[PodView], now: float) -> Iterator[float]:
        """When to request a refused pod again, when a deleted pod counts as gone, when to ask for a place again."""
        yield from (refusal.until for refusal in self._refusals.values() if refusal.until > now)
        for pod in pods:
            attempt = self._attempts.get(pod.uid)
            if attempt is not None and attempt.leaving is not None:
                yield max(attempt.leaving + LEAVE_MARGIN, now)
        if self._queued:
            yield now + QUEUED_LOOK
