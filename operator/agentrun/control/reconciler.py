"""One visit to one run: look at everything, plan, apply, show.

Level-triggered: a visit never knows why it was called. All that it does can be done again, by this or another leader:
journal records are created once, pods and Approvals have deterministic names, the status is replaced only if it is
still the one that was read.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agentrun.api.approval import Owner, approval_object
from agentrun.api.facts import StepKey
from agentrun.api.run import Outcome, Reason
from agentrun.control import showing
from agentrun.control.cache import Cache
from agentrun.control.cluster import AlreadyExists, Cluster, Conflict, NotFound, Refused
from agentrun.control.hearing import commanded, decisions, is_there, outcome_of, switches
from agentrun.control.journal import Journal
from agentrun.control.live import LiveRun
from agentrun.control.opening import NotYet, Opener
from agentrun.control.queue import WorkQueue
from agentrun.control.views import ApprovalView, CommandView, PodView, RunRef, RunView
from agentrun.journal.records import Damaged, EventKind, Record
from agentrun.journal.store import StoreError
from agentrun.observe.logs import RunLog, transition
from agentrun.observe.metrics import Lost, Metrics
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Append, Ask, Plan, Start, Stop

log = logging.getLogger("agentrun.control")

_visit: ContextVar[int] = ContextVar("visit", default=0)

CREATIONS = 16
"""Pods of one run that are created at the same time."""

BUSY = 16
"""Runs that wait in the queue, from which on a status that nobody has to act upon may wait longer."""

POD_GRACE = 60.0
"""Seconds in which a pod that was told to leave is gone, where nothing says better."""

REPAIR = 30.0
"""Seconds until a run is looked at again that waits for something outside to be repaired."""


@dataclass(slots=True)
class Reconciler:
    """See the module. One visit to a run at a time: the work queue sees to that."""

    cluster: Cluster
    journal: Journal
    cache: Cache
    queue: WorkQueue[RunRef]
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds since the epoch."""
    vouched: Callable[[], bool] = lambda: True
    """Whether the admission policies are there that vouch for decisions."""
    live: dict[RunRef, LiveRun] = field(default_factory=dict)
    counted: dict[RunRef, Reason] = field(default_factory=dict)
    """As what each live run is counted in the metrics."""
    visits: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers the visits, for the log."""
    opener: Opener = field(init=False)

    def __post_init__(self) -> None:
        self.opener = Opener(self.cluster, self.journal, self.cache)

    async def visit(self, ref: RunRef) -> None:
        """Do what can be done for the run now. Cancellation leaves what is done; the next visit goes on.

        Raises:
            Unavailable, NotFound: the API server; try again later.
            NotLeader: another replica leads.
        """
        _visit.set(next(self.visits))
        run = self.cache.run(ref)
        if run is None or run.deleting:
            self._forget(ref)
            return
        if run.finished is not None:
            self._forget(ref)
            await self._after_the_end(run)
            return
        try:
            live = self.live.get(ref)
            if live is None or live.uid != run.uid:
                live = self.live[ref] = await self.opener.open(run)
            await self._go_on(run, live)
        except NotYet as wait:
            if run.spec is not None and run.spec.get("cancel"):
                await self._write(run, showing.never_begun(run, wait.message, self.clock()))
                return
            stalled = wait.reason is Reason.INVALID_SPEC
            await self._show_trouble(run, wait.reason, wait.message, stalled=stalled, again=wait.again)
        except Damaged as error:
            self.live.pop(ref, None)
            message = f"{error}. Restore the object, and the run goes on by itself; or delete the run"
            await self._show_trouble(run, Reason.JOURNAL_DAMAGED, message, stalled=True, again=10 * REPAIR)
        except StoreError as error:
            self.live.pop(ref, None)  # what was written without an answer is read anew
            message = f"{error}. The run goes on by itself when the store answers"
            pause = self.queue.retry(ref)
            await self._show_trouble(run, Reason.STORE_UNAVAILABLE, message, stalled=False, again=pause)
        except Conflict:
            await self._look_anew(ref)

    async def _go_on(self, run: RunView, live: LiveRun) -> None:
        assert run.spec is not None
        while True:
            await self._take_ends(run, live)
            await self._hear(run, live)
            await self._close_expired(run, live)
            await self._take_ends(run, live)  # who ended meanwhile: nothing may come between this and the plan
            now = self.clock()
            planned = plan(live.snapshot(live.executions(self.cache.pods.of(run.ref), now), now))
            if planned.ended:
                break
            appends = [e for e in planned.effects if isinstance(e, Append)]
            if not await self._append(live, appends):
                continue
            await self._stop(run, [e for e in planned.effects if isinstance(e, Stop)])
            started = await self._start(run, live, [e for e in planned.effects if isinstance(e, Start)])
            if started and not appends:
                break  # else the plan is not what is: look again before it is shown
        await self._ask(run, live, planned.asks)
        await self._show(run, live, planned)
        self.queue.succeeded(run.ref)

    # -- what happened ----------------------------------------------------------------------------------------------

    async def _take_ends(self, run: RunView, live: LiveRun) -> None:
        """Take in how attempts ended: by their last word, else by what their journals say."""
        now = self.clock()
        while ended := list(live.gone(self.cache.pods.of(run.ref), now)):
            for key, number, pod in ended:
                await self._take_end(run, live, key, number, pod)

    async def _take_end(self, run: RunView, live: LiveRun, key: StepKey, number: int, pod: PodView | None) -> None:
        fact = pod.fact if pod is not None else None
        if fact is None:
            fact = await self.journal.fact(live.pinned.run, key)
        live.take(key, number, pod, fact, self.clock())
        if fact.attempt < number or fact.end is None:
            reason = pod.trouble[1] if pod is not None and pod.trouble is not None else "the pod is gone"
            self.metrics.attempt_lost(_lost(pod))
            _log(run).info("attempt %d was lost: %s", number, reason, extra={"step": key.label})

    async def _hear(self, run: RunView, live: LiveRun) -> None:
        """Take what people said into the journal."""
        assert run.spec is not None
        for kind, body in switches(live, run.spec):
            await self._say(run, live, kind, body)
        live.unheard = False
        for approval in list(self.cache.approvals.of(run.ref).values()):
            if approval.run_uid == run.uid and not approval.settled:
                for kind, body in decisions(live, approval):
                    if not self.vouched():
                        message = (
                            f"a decision on {approval.name} is not taken: the admission policies that vouch for it "
                        )
                        await self.cluster.record_event(
                            run, "Warning", "PoliciesMissing", message + "are not installed: install the chart whole"
                        )
                        live.unheard = True
                        break
                    await self._say(run, live, kind, body)
        for command in list(self.cache.commands.of(run.ref).values()):
            if command.run_uid is not None and command.run_uid != run.uid:
                continue
            said = commanded(live, command)
            if isinstance(said, str):
                await self._refuse(run, command, said)
            else:
                await self._say(run, live, *said)
                await self._remove(command)

    async def _refuse(self, run: RunView, command: CommandView, why: str) -> None:
        await self.cluster.record_event(run, "Warning", "CommandRefused", f"{command.name}: {why}")
        await self._remove(command)

    async def _remove(self, command: CommandView) -> None:
        await self.cluster.delete_command(command)
        self.cache.commands.drop(command.run, command.name, command.uid)

    async def _say(self, run: RunView, live: LiveRun, kind: EventKind, body: dict[str, Any]) -> None:
        def there(records: Sequence[Record]) -> bool:
            return is_there(records, kind, body)

        if await self.journal.append(live.log, kind, body, there):
            _log(run).info("%s%s", kind, f" by {body['by']}" if body.get("by") else "")

    async def _append(self, live: LiveRun, effects: Sequence[Append]) -> bool:
        """Record what was planned; False where the plan did not know what others have recorded since."""
        for effect in effects:
            known = len(live.log.records)
            if not await self.journal.append(live.log, effect.kind, effect.body, lambda r, n=known: len(r) > n):  # type: ignore[misc]
                return False
        return True

    # -- what to do -------------------------------------------------------------------------------------------------

    async def _start(self, run: RunView, live: LiveRun, starts: Sequence[Start]) -> bool:
        """Make the pods; whether the API server took all of them."""
        if not starts:
            return True
        if not live.checked:
            # A cache may be behind, and this leader may be new: ask the API server itself before the first pod.
            now = await self.cluster.get_run(run.ref)
            if now is None or now.uid != run.uid or now.deleting or now.finished is not None:
                raise Conflict(f"run {run.ref.name} is not as it was last seen")
            live.checked = True
        room = asyncio.Semaphore(CREATIONS)

        async def create(start: Start) -> bool:
            async with room:
                return await self._create(run, live, start)

        if len(starts) == 1:
            return await create(starts[0])
        results = await asyncio.gather(*(create(start) for start in starts), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return all(results)

    async def _create(self, run: RunView, live: LiveRun, start: Start) -> bool:
        try:
            with self.cache.pods.creating():
                pod = await self.cluster.create_pod(run, live.pinned, start)
                self.cache.pods.put(pod)
                live.begun(pod, self.clock())
        except Refused as error:
            live.refused(start.key, str(error), self.clock())
            return False
        live.refusals.pop(start.key, None)
        self.metrics.step_started()
        if pod.phase != "Pending":
            self.queue.add(run.ref)  # made before, and its answer was lost: what the watch tells of it is known by now
        if live.heard_at is not None:
            self.metrics.followed(max(0.0, self.clock() - live.heard_at))
        return True

    async def _stop(self, run: RunView, stops: Sequence[Stop]) -> None:
        for stop in stops:
            for pod in list(self.cache.pods.of(run.ref).values()):
                if pod.run_uid == run.uid and (pod.key, pod.attempt) == (stop.key, stop.attempt) and pod.grace is None:
                    await self.cluster.delete_pod(pod)
                    self.cache.pods.amend(replace(pod, grace=POD_GRACE))  # until the watch says it

    async def _ask(self, run: RunView, live: LiveRun, asks: Sequence[Ask]) -> None:
        """See that every open question has its Approval, and that every Approval that is none any more says so."""
        there = {a.digest: a for a in self.cache.approvals.of(run.ref).values() if a.run_uid == run.uid}
        owner = Owner(run.ref.name, run.ref.namespace, run.uid)
        live.asked -= there.keys()  # known by now: should one be deleted unseen, it is made again
        for ask in asks:
            if ask.request.digest in there or ask.request.digest in live.asked:
                continue
            make = partial(approval_object, owner, ask.key, ask.attempt, ask.request, run.requested_by)
            try:
                await self.cluster.create_approval(make())
            except AlreadyExists:
                await self.cluster.create_approval(make(long=True))  # another run has the short name
            live.asked.add(ask.request.digest)
            _log(run).info("asks people: %s", ask.request.subject[:200], extra={"step": ask.key.label})
            await self.cluster.record_event(
                run, "Normal", "AwaitingApproval", f"{ask.key.label}: {ask.request.subject[:300]}"
            )
        open_ = {ask.request.digest for ask in asks}
        for approval in [a for a in there.values() if a.digest not in open_ and not a.settled]:
            await self._settle(approval, live.log.records)

    async def _close_expired(self, run: RunView, live: LiveRun) -> None:
        """Close what nobody decided in time on the API server first: a decision that came in time, but whose event is
        still on its way, makes that a Conflict, and is waited for.
        """
        now = self.clock()
        for approval in list(self.cache.approvals.of(run.ref).values()):
            if approval.run_uid == run.uid and not approval.settled and now >= approval.expires_at:
                await self._settle(approval, live.log.records)

    async def _settle(self, approval: ApprovalView, records: Sequence[Record]) -> None:
        now = self.clock()
        outcome = outcome_of(approval, records, now)
        await self.cluster.settle_approval(approval, outcome, _SETTLED[outcome], now)
        self.cache.approvals.amend(replace(approval, settled=True))

    # -- what to show -----------------------------------------------------------------------------------------------

    async def _show(self, run: RunView, live: LiveRun, planned: Plan) -> None:
        """Write the status if it changed, soon; and set when to look again."""
        now = self.clock()
        wakes = [*([planned.wake_at] if planned.wake_at is not None else [])]
        wakes += live.wakes(self.cache.pods.of(run.ref).values(), now)
        since = live.shown_at or now
        quiet = showing.QUIET if len(self.queue) < BUSY else showing.QUIET_MAX
        early = now < since + quiet and not showing.urgent(run.status, planned.status)
        if early and not run.status:  # to compose what is not written yet costs a tenth of a visit
            live.shown_at = since
            self.queue.due(run.ref, max(0.0, min([*wakes, now + showing.QUIET]) - now))
            return
        approvals = self.cache.approvals.of(run.ref).values()
        names = {a.digest: a.name for a in approvals if a.run_uid == run.uid}
        owner = Owner(run.ref.name, run.ref.namespace, run.uid)
        labels = showing.labels_of(
            (ask.key, names.get(ask.request.digest) or _name(owner, ask)) for ask in planned.asks
        )
        manifest, url = live.pinned.manifest, self.journal.url(live.pinned.run)
        status = showing.composed(planned.status, run, manifest["workflowDigest"], url, labels, now)
        # The same was written before, and stands there as the API server took it: a schema of another version may drop
        # a field, and to write it again and again would not bring it back.
        shown = status == run.status or live.shown == (status, run.status)
        if not shown and early:
            live.shown_at = since
            wakes.append(now + showing.QUIET)
        elif not shown:
            after = await self._write(run, status)
            live.shown, live.shown_at = (status, after.status if after is not None else None), now
        if planned.ended:
            self.queue.due(run.ref, None)
            known = self.cache.run(run.ref)
            if known is not None and known.finished is not None:
                # What we wrote comes as no event.
                self._forget(run.ref)
                await self._after_the_end(known)
            return
        self.queue.due(run.ref, max(0.0, min(wakes) - now) if wakes else None)

    async def _show_trouble(
        self, run: RunView, reason: Reason, message: str, *, stalled: bool, again: float | None
    ) -> None:
        self.queue.due(run.ref, again)
        status = showing.troubled(run, reason, message, stalled=stalled, now=self.clock())
        if status != run.status:
            await self._write(run, status)

    async def _write(self, run: RunView, status: dict[str, Any]) -> RunView | None:
        before = showing.headline(run.status)
        try:
            with self.cache.runs.creating():
                after = await self.cluster.patch_status(run, run.version, status)
                self.cache.runs.put(after)
        except NotFound:
            self.cache.runs.drop(run.ref, run.ref.name, run.uid)
            self.queue.add(run.ref)
            return None
        reason, message = showing.headline(status)
        if (reason, message) == before:
            return after
        self._count(run.ref, Reason(reason))
        transition(_log(run), before[0] or None, reason, message)
        if "completionTime" in status:
            self.metrics.run_ended(Outcome(status["phase"]))
        if reason not in _NOT_TOLD:
            kind = "Normal" if reason in _AS_HOPED else "Warning"
            await self.cluster.record_event(run, kind, reason, message or str(status.get("phase")))
        return after

    async def _look_anew(self, ref: RunRef) -> None:
        """The run is not as it was last seen, and the watch may be behind: ask."""
        known = self.cache.run(ref)
        with self.cache.runs.creating():
            run = await self.cluster.get_run(ref)
            newer = run is not None and self.cache.runs.put(run)
        if run is None and known is not None:
            self.cache.runs.drop(ref, ref.name, known.uid)
        if newer or run is None:
            self.queue.add(ref)
        else:
            self.queue.retry(ref)  # it is an Approval that has changed: the watch will tell

    async def _after_the_end(self, run: RunView) -> None:
        assert run.finished is not None
        for command in list(self.cache.commands.of(run.ref).values()):
            if command.run_uid is None or command.run_uid == run.uid:
                await self._refuse(run, command, "the run has ended")
        if run.observed < run.generation:
            # Somebody changed what changes nothing any more, or its time to live: without this kstatus, and so Argo CD
            # and kubectl wait, would take it for a run that is under way.
            try:
                with self.cache.runs.creating():
                    self.cache.runs.put(await self.cluster.observe(run))
            except NotFound:
                self.cache.runs.drop(run.ref, run.ref.name, run.uid)
                return
            except Conflict:
                await self._look_anew(run.ref)
                return
        if run.ttl is None:
            return
        left = run.finished + run.ttl - self.clock()
        if left <= 0:
            await self.cluster.delete_run(run)
            _log(run).info("deleted: its time to live is over; its journal stays")
        else:
            self.queue.due(run.ref, left)

    def rest(self) -> None:
        """Forget every run: another replica leads."""
        self.live.clear()
        for ref in list(self.counted):
            self._count(ref, None)

    def _forget(self, ref: RunRef) -> None:
        self._count(ref, None)
        if self.live.pop(ref, None) is not None:
            self.queue.forget(ref)

    def _count(self, ref: RunRef, reason: Reason | None) -> None:
        self.metrics.run_moved(self.counted.pop(ref, None), reason)
        if reason is not None and reason not in _ENDS:
            self.counted[ref] = reason


_ENDS = frozenset(Reason(str(outcome)) for outcome in Outcome)
_SETTLED = {
    "Approved": "Enough people have approved.",
    "Rejected": "It was rejected.",
    "Expired": "Its time was over before enough people had decided.",
    "Cancelled": "The run does not wait for it any more.",
}
_AS_HOPED = {str(r) for r in (Reason.AWAITING_SIGNAL, Reason.AWAITING_TIMER, Reason.SUSPENDED, Reason.CANCELLED)}
_NOT_TOLD = {
    str(r)
    for r in (
        Reason.PENDING,
        Reason.RUNNING,
        Reason.RETRYING,
        Reason.SUCCEEDED,
        Reason.AWAITING_APPROVAL,
        Reason.AWAITING_TIMER,
        Reason.CANCELLING,
        Reason.COMPENSATING,
    )
}
"""Reasons without a Kubernetes Event: the status says them, and a busy cluster must not pay a write for each."""


def _lost(pod: PodView | None) -> Lost:
    """What became of an attempt that left no word, for the metric; the text is the kubelet's or our own."""
    if pod is None:
        return Lost.DELETED
    text = pod.trouble[1] if pod.trouble is not None else ""
    if text.startswith("out of memory"):
        return Lost.OOM_KILLED
    return Lost.CRASHED if text.startswith("exit code") else Lost(text.partition(":")[0])


def _log(run: RunView) -> RunLog:
    return RunLog(
        log,
        namespace=run.ref.namespace,
        name=run.ref.name,
        uid=run.uid,
        generation=run.generation,
        reconcile_id=str(_visit.get()),
    )


def _name(owner: Owner, ask: Ask) -> str:
    name: str = approval_object(owner, ask.key, ask.attempt, ask.request, None)["metadata"]["name"]
    return name
