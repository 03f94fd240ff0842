"""The state of a run that has not ended, as the operator holds it in memory: its pinned manifest, what its journal
says, its pods. Other modules change it by its methods only.

Everything here is read anew from the journal and the cluster by the next leader, but for what is marked as lost. What
the status writer and the approvals remember of a run is theirs (``statuses``, ``people``), and goes with this object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import InitVar, dataclass, field

from agentrun.api.facts import StepFact, StepKey
from agentrun.api.footprint import footprint
from agentrun.api.run import Reason
from agentrun.control.views import PodView
from agentrun.journal.log import EventLog
from agentrun.journal.outputs import Outputs
from agentrun.journal.pinned import Pinned
from agentrun.journal.records import Record
from agentrun.journal.run import as_events
from agentrun.plan.attempt_tracker import AttemptTracker
from agentrun.plan.events import EventIndex
from agentrun.plan.snapshot import Event, Execution, Snapshot, Start
from agentrun.plan.work import Work
from agentrun.records.run_events import EventKind

LEAVE_MARGIN = 10.0
"""Seconds past its grace period, by our own clock, after which a pod that was told to leave counts as gone: its node is
dead. The fence keeps what may still run there from doing anything new."""

QUEUED_LOOK = 600.0
"""Seconds until a run is looked at again that waits for a place for a pod; the place itself wakes it before."""

REFUSAL_FIRST, REFUSAL_MAX = 1.0, 15.0
"""Seconds until the API server is asked again for a pod that it refused; they double."""

_BEGINNINGS = (EventKind.APPROVAL_REQUESTED, EventKind.WAIT_STARTED)
"""Of steps that have no pod."""


@dataclass(slots=True)
class Refusal:
    """A pod that the API server did not take. Lost with the leader: it is asked again at once."""

    message: str
    count: int
    until: float


@dataclass(slots=True)
class Attempt:
    """A pod that was seen, or made, and has not been seen to end."""

    key: StepKey
    number: int
    running: float | None = None
    """When it was first seen at work, by our own clock: the node's may show any time. A new leader sees it anew, so a
    step may get a little more of its run's time; its own it reckons itself.
    """
    leaving: float | None = None
    """When its grace period is over, since it was first seen to be told to leave."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class LiveRun:
    """See the module."""

    uid: str
    pinned: Pinned
    log: EventLog
    tracker: AttemptTracker
    program_bytes: int = 0
    """What the compiled workflow takes in memory; runs of one workflow share it."""
    new: InitVar[bool] = False
    """This leader has pinned it."""
    work: Work = field(default_factory=Work)
    """What its expressions have cost and given. Lost with the leader: evaluated anew."""
    outputs: Outputs = field(default_factory=Outputs)
    """What is kept of the outputs in ``facts``."""
    _attempts: dict[str, Attempt] = field(default_factory=dict)
    """By the uid of the pod."""
    _farewells: dict[str, PodView] = field(default_factory=dict)
    """What was last seen of pods that were deleted before their end was taken in, by uid. Without it, the journal."""
    _taken: set[str] = field(default_factory=set)
    """The uids of the pods whose end was taken in."""
    _expected: dict[StepKey, Start] = field(default_factory=dict)
    """The expectations: pods whose creation has no answer yet. Such a pod may be there, or come to be."""
    _refusals: dict[StepKey, Refusal] = field(default_factory=dict)
    _queued: dict[StepKey, str] = field(default_factory=dict)
    """What has no place for a pod, by the last visit: why, for a person."""
    _tried: set[StepKey] = field(default_factory=set)
    """Steps of which this leader asked for a pod, and was not refused."""
    _heard_at: float | None = None
    """When the watch told last of a pod's end."""
    _sizes: dict[int, int] = field(default_factory=dict)
    """Bytes that the records of ``log`` take, by their numbers."""
    _checked: bool = False
    """Whether this leader has asked the API server itself for the run, before the first pod that it makes. Nobody else
    can have begun a run that this leader has pinned, and a pod of one that is gone by now is collected.
    """

    def __post_init__(self, new: bool) -> None:
        self._checked = new
        for fact in self.facts.values():
            self.outputs.take(fact)

    # -- what the journal says ------------------------------------------------------------------------------------

    @property
    def facts(self) -> Mapping[StepKey, StepFact]:
        """What the journals of the steps say."""
        return self.tracker.facts

    def fact(self, key: StepKey) -> StepFact | None:
        """What the journal of a step says; None: it has none."""
        return self.facts.get(key)

    def index(self) -> EventIndex:
        """The run's events by what they are about. Only decisions count that an API server vouches for."""
        return EventIndex(as_events(self.log.records), verified=True)

    def footprint_of(self, record: Record | Event) -> int:
        """Bytes that a record takes in memory; reckoned once."""
        size = self._sizes.get(record.seq)
        if size is None:
            size = self._sizes[record.seq] = footprint(record.body)
        return size

    def clock_set(self, jump: float, now: float) -> None:
        """Our own clock was set by ``jump`` seconds, to ``now``: move what it has stamped.

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
        """Every attempt that has ended since the last look: its pod has, or is not there any more."""
        by_uid = {pod.uid: pod for pod in pods.values() if pod.run_uid == self.uid}
        self._taken &= by_uid.keys()
        for pod in by_uid.values():
            if pod.uid not in self._taken and self._is_over(pod, now):
                yield pod.key, pod.attempt, pod
        for uid, attempt in list(self._attempts.items()):
            if uid not in by_uid:
                del self._attempts[uid]
                if attempt.running is None:  # a kubelet that has begun it says so before the pod is gone
                    self.tracker.mark_gone(attempt.key, attempt.number)
                yield attempt.key, attempt.number, self._farewells.pop(uid, None)

    def take(self, key: StepKey, number: int, pod: PodView | None, fact: StepFact, now: float) -> None:
        """Note how an attempt ended: ``fact`` is its own last word, or what its journal says."""
        if pod is not None:
            self._taken.add(pod.uid)
            self._attempts.pop(pod.uid, None)
            if pod.phase == "Ended" and not pod.stray:
                self.tracker.mark_gone(key, number)  # by its kubelet's word
        if self.tracker.is_newer(key, fact):
            fact = self.outputs.take(fact)
        self.tracker.record_end(key, number, fact, now, pod.trouble if pod is not None else None)

    def _is_over(self, pod: PodView, now: float) -> bool:
        """Whether a pod has ended, or was told to leave and its node does not answer any more."""
        leaving = self.begun(pod, now).leaving
        return pod.phase == "Ended" or (leaving is not None and now >= leaving + LEAVE_MARGIN)

    def _executions(self, pods: Mapping[str, PodView], now: float) -> dict[StepKey, Execution]:
        """The attempts that are under way, by their pods; and those that the API server refused, until the next try."""
        found: dict[StepKey, Execution] = {}
        for pod in pods.values():
            if pod.run_uid != self.uid or pod.uid in self._taken:
                continue  # one that is over, but not taken in, holds its place until its end is known
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
        """Note a pod whose end is to be taken in, and since when it is as it is."""
        attempt = self._attempts.setdefault(pod.uid, Attempt(pod.key, pod.attempt))
        if attempt.running is None and (pod.phase == "Running" or pod.stray):
            attempt.running = now
        if attempt.leaving is None and pod.grace is not None:
            attempt.leaving = now + pod.grace
        return attempt

    def lost(self) -> Iterator[tuple[StepKey, int]]:
        """The steps whose last attempt left no word, with its number: what a person who resumes has seen."""
        return self.tracker.lost()

    @property
    def finally_begun(self) -> bool:
        """Whether a step of ``finally`` was begun: it was told how the run ends, or people were."""
        keys = [*self.facts, *self._tried, *(attempt.key for attempt in self._attempts.values())]
        names = {key.name for key in keys} | {r.body["step"] for r in self.log.records if r.kind in _BEGINNINGS}
        return not names.isdisjoint(self.pinned.program.finally_)

    def end_heard(self, now: float) -> None:
        """The watch has told that a pod ended."""
        self._heard_at = now

    def since_end_heard(self, now: float) -> float | None:
        """Seconds since the watch told last of a pod's end: for the metric of how soon the next pod follows."""
        return None if self._heard_at is None else max(0.0, now - self._heard_at)

    def pod_deleted(self, pod: PodView) -> None:
        """The watch has told that a pod was deleted: its last state may be the only one that says how it ended."""
        if pod.uid in self._attempts:
            self._farewells[pod.uid] = pod

    def has_taken(self, pod: PodView) -> bool:
        """Whether the pod's end was taken in."""
        return pod.uid in self._taken

    # -- pods that are asked for ----------------------------------------------------------------------------------

    @property
    def checked(self) -> bool:
        """Whether this leader knows from the API server itself that it may make pods."""
        return self._checked

    def mark_checked(self) -> None:
        """The API server itself says that the run is as it was last seen."""
        self._checked = True

    @property
    def expected(self) -> tuple[Start, ...]:
        """The pods whose creation has no answer yet."""
        return tuple(self._expected.values())

    def expect(self, start: Start) -> None:
        """A pod is asked for: from now on it may be there."""
        self._tried.add(start.key)
        self._expected[start.key] = start

    def observed(self, key: StepKey) -> None:
        """The API server has said whether the pod that was expected is there."""
        self._expected.pop(key, None)

    def accepted(self, key: StepKey) -> None:
        """The API server took the pod."""
        self.observed(key)
        self._refusals.pop(key, None)

    def refused(self, key: StepKey, message: str, now: float) -> None:
        """The API server did not take the pod: it is asked again after a pause that doubles."""
        self.observed(key)
        self._tried.discard(key)
        before = self._refusals.get(key)
        count = before.count + 1 if before is not None else 1
        pause = min(REFUSAL_FIRST * 2.0 ** min(count - 1, 20), REFUSAL_MAX)
        self._refusals[key] = Refusal(message, count, now + pause)

    @property
    def waits_for_place(self) -> bool:
        """Whether a pod has no place, by the last visit."""
        return bool(self._queued)

    def has_no_place(self, keys: Iterable[StepKey], why: str) -> None:
        """These pods have no place until the next visit."""
        self._queued.update(dict.fromkeys(keys, why))

    def begin_visit(self) -> None:
        """Each visit asks anew for places."""
        self._queued.clear()

    @property
    def at_rest(self) -> bool:
        """Whether it has no pod and waits for none, so that nothing is lost when it is let go of."""
        return not self._attempts and not self._expected and not self._queued

    # -- what a visit looks at ------------------------------------------------------------------------------------

    def snapshot(self, pods: Mapping[str, PodView], unheard: Set[str], now: float) -> Snapshot:
        """What the planner is shown. The journal outlives all of this, so nothing of it is copied."""
        return self.pinned.driven(now, self.tracker, self.log.records, self._executions(pods, now), unheard)

    def wakes(self, pods: Iterable[PodView], now: float) -> Iterator[float]:
        """When a refusal or a pod's grace period is over, and when to look for a place again."""
        yield from (refusal.until for refusal in self._refusals.values() if refusal.until > now)
        for pod in pods:
            attempt = self._attempts.get(pod.uid)
            if attempt is not None and attempt.leaving is not None:
                yield max(attempt.leaving + LEAVE_MARGIN, now)
        if self._queued:
            yield now + QUEUED_LOOK
