"""Writes the status of a run: changes that somebody may wait for at once, others gathered. A write whose reason or
message is new also makes a line in the log, a count in the metrics and an Event for ``kubectl describe``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from agentrun.api.approval import Owner, approval_name
from agentrun.api.run import Outcome, Reason
from agentrun.control import run_status
from agentrun.control.async_journal import Journal
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.patience import NotNow, Patience
from agentrun.control.queue import WorkQueue
from agentrun.control.reconcile_log import run_log
from agentrun.control.run_state import RunState
from agentrun.control.views import RunRef, RunView
from agentrun.kube.errors import Invalid, NotFound
from agentrun.observe.logs import transition
from agentrun.observe.metrics import Metrics
from agentrun.plan.snapshot import Ask, Plan

BUSY = 16
"""If this many runs of a namespace wait in the queue, a status that nobody has to act upon may wait ``QUIET_MAX``."""


@dataclass(slots=True)
class _Memory:
    """What is kept in memory of a run's status. Lost with the leader: the next one composes and compares it again."""

    shown: tuple[Mapping[str, Any], Mapping[str, Any] | None] | None = None
    """The status that was last written, and the status that the API server kept of it."""
    at: float = 0.0
    """When the status was last written, or when the wait for the first write began; 0: neither, by this leader."""


@dataclass(slots=True)
class StatusWriter:
    """See the module."""

    cluster: Cluster
    journal: Journal
    cache: Cache
    queue: WorkQueue[RunRef]
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds since the epoch."""
    patience: Patience
    counted: dict[RunRef, Reason] = field(default_factory=dict)
    """The reason under which the metrics count each live run."""
    _memories: WeakKeyDictionary[RunState, _Memory] = field(default_factory=WeakKeyDictionary)
    """By run, as long as the run is in memory."""

    async def show(
        self, run: RunView, live: RunState, planned: Plan, looks: Iterable[float], *, at_once: bool = False
    ) -> None:
        """Write the status if it changed: now if somebody may wait for it or ``at_once`` is set, else together with
        later changes (``QUIET``, ``QUIET_MAX``).

        Set the time of the next visit: the plan's ``wake_at``, or earlier the first of ``looks``.
        """
        now = self.clock()
        memory = self._memories.setdefault(live, _Memory())
        wakes = [*looks, *([planned.wake_at] if planned.wake_at is not None else [])]
        since = memory.at or now
        quiet = run_status.QUIET if self.queue.behind(run.ref) < BUSY else run_status.QUIET_MAX
        early = now < since + quiet and not at_once and not run_status.urgent(run.status, planned.status)
        if early and not run.status:  # composing a status that is not written yet would cost a tenth of a visit
            memory.at = since
            self.queue.due(run.ref, max(0.0, min([*wakes, now + run_status.QUIET]) - now))
            return
        approvals = self.cache.approvals.of(run.ref).values()
        names = {a.digest: a.name for a in approvals if a.run_uid == run.uid}
        owner = Owner(run.ref.name, run.ref.namespace, run.uid)
        labels = run_status.labels_of(
            (ask.key, names.get(ask.request.digest) or _name(owner, ask)) for ask in planned.asks
        )
        manifest, url = live.pinned.manifest, self.journal.url(live.pinned.run)
        status = run_status.composed(planned.status, run, manifest["workflowDigest"], url, labels, now)
        # The status also counts as shown if the last write sent the same and the object still has what the API server
        # made of it: a schema of another version may drop a field, and writing it again would not bring it back.
        shown = status == run.status or memory.shown == (status, run.status)
        if not shown and early:
            memory.at = since
            wakes.append(now + run_status.QUIET)
        elif not shown:
            try:
                after = await self.write(run, status)
            except NotNow as later:
                self.queue.due(run.ref, max(0.0, min([*wakes, self.clock() + later.again]) - self.clock()))
                return
            memory.shown, memory.at = (status, after.status if after is not None else None), now
        self.queue.due(run.ref, max(0.0, min(wakes) - now) if wakes and not planned.ended else None)

    async def show_trouble(
        self, run: RunView, reason: Reason, message: str, *, stalled: bool, again: float | None
    ) -> None:
        """Write at once why the run does not go on. ``again``: seconds until the next visit; None: no visit is set.

        Raises Conflict, NotNow, Unavailable.
        """
        self.queue.due(run.ref, again)
        status = run_status.troubled(run, reason, message, stalled=stalled, now=self.clock())
        if status != run.status:
            await self.write(run, status)

    async def write(self, run: RunView, status: dict[str, Any]) -> RunView | None:
        """Write the status now. Return the run after the write; None if the run is gone, or if the API server refuses
        every status of it.

        Raises Conflict, NotNow, Unavailable.
        """
        before = run_status.headline(run.status)
        try:
            after = await self._patch(run, status)
        except NotFound:
            self.cache.runs.drop(run.ref, run.ref.name, run.uid)
            self.queue.add(run.ref)
            return None
        if after is None:
            return None
        reason, message = run_status.headline(status)
        if (reason, message) == before:
            return after
        self.count(run.ref, Reason(reason))
        transition(run_log(run), before[0] or None, reason, message)
        if "completionTime" in status:
            self.metrics.run_ended(Outcome(status["phase"]))
        if reason not in _NOT_TOLD:
            kind = "Normal" if reason in _AS_HOPED else "Warning"
            await self.cluster.record_event(run, kind, reason, message or str(status.get("phase")))
        return after

    async def observe(self, run: RunView) -> None:
        """Set ``observedGeneration`` of an ended run to its newest generation. Raises Conflict, NotFound, NotNow,
        Unavailable.
        """

        async def patch() -> None:
            with self.cache.runs.expecting():
                self.cache.runs.put(await self.cluster.observe(run))

        await self.patience.write(run, "when its observed generation was written", patch)

    async def _patch(self, run: RunView, status: dict[str, Any]) -> RunView | None:
        """Write the status, or as much of it as the API server accepts. Return the run after the write.

        Return None if the API server accepts nothing. Then an Event gives the reason and message of the status, and why
        the status could not be written.
        """

        async def patch(status: dict[str, Any]) -> RunView:
            with self.cache.runs.expecting():
                after = await self.cluster.patch_status(run, run.version, status)
                self.cache.runs.put(after)
            return after

        def write(status: dict[str, Any]) -> Awaitable[RunView]:
            return self.patience.write(run, "when its status was written", lambda: patch(status))

        try:
            return await write(status)
        except Invalid as error:
            refusal = str(error)[:300]
        for less in run_status.smaller(status):
            try:
                after = await write(less)
            except Invalid:
                continue
            run_log(run).warning("the status is shortened, because the API server rejects the full one: %s", refusal)
            return after
        reason, message = run_status.headline(status)
        lost = f"The status would be {reason}: {message[:500]}"
        what = f"the API server rejects every status of this run ({refusal}). {lost}"
        run_log(run).error("%s", what)
        await self.cluster.record_event(run, "Warning", "StatusRefused", what)
        return None

    def count(self, ref: RunRef, reason: Reason | None) -> None:
        """Count the run under ``reason`` in the metrics, instead of the one before; None: do not count it."""
        self.metrics.run_moved(self.counted.pop(ref, None), reason)
        if reason is not None and reason not in _ENDS:
            self.counted[ref] = reason


_ENDS = frozenset(Reason(str(outcome)) for outcome in Outcome)
_AS_HOPED = {str(r) for r in (Reason.AWAITING_SIGNAL, Reason.AWAITING_TIMER, Reason.SUSPENDED, Reason.CANCELLED)}
_NOT_TOLD = {
    str(r)
    for r in (
        Reason.PENDING,
        Reason.RUNNING,
        Reason.QUEUED,
        Reason.RETRYING,
        Reason.SUCCEEDED,
        Reason.AWAITING_APPROVAL,
        Reason.AWAITING_TIMER,
        Reason.CANCELLING,
        Reason.COMPENSATING,
    )
}
"""Reasons that make no Event: the status shows them, and a busy cluster must not pay a write for each."""


def _name(owner: Owner, ask: Ask) -> str:
    return approval_name(owner.name, ask.key, ask.request)
