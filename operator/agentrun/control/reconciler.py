"""One visit to one run: look at everything, plan, apply, show.

Level-triggered: a visit never knows why it was called. All that it does can be done again, by this or another leader:
journal records are created once, pods and Approvals have deterministic names, the status is replaced only if it is
still the one that was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field, replace

from agentrun.api.facts import StepKey
from agentrun.api.run import Reason
from agentrun.control import showing
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster, Conflict, NotFound, Refused
from agentrun.control.held import Held
from agentrun.control.journal import Journal
from agentrun.control.live import LiveRun
from agentrun.control.opening import NotYet, Opener
from agentrun.control.people import People
from agentrun.control.queue import WorkQueue
from agentrun.control.slots import Slots
from agentrun.control.statuses import StatusWriter
from agentrun.control.thinking import Thinking
from agentrun.control.views import PodView, RunRef, RunView
from agentrun.control.visits import begin_visit, run_log
from agentrun.journal.records import Damaged
from agentrun.journal.store import StoreError
from agentrun.observe.metrics import Lost, Metrics
from agentrun.plan.slots import UNBOUNDED, Bounds
from agentrun.plan.snapshot import Append, Start, Stop

CREATIONS = 16
"""Pods of one run that are created at the same time."""

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
    vouched: InitVar[Callable[[], bool]] = lambda: True
    """Whether the admission policies are there that vouch for decisions."""
    bounds: InitVar[Bounds] = UNBOUNDED
    """How many pods of steps there may be at once."""
    live: Held = field(default_factory=Held)
    opener: Opener = field(init=False)
    thinking: Thinking = field(default_factory=Thinking)
    people: People = field(init=False)
    status: StatusWriter = field(init=False)
    slots: Slots = field(init=False)

    def __post_init__(self, vouched: Callable[[], bool], bounds: Bounds) -> None:
        self.opener = Opener(self.cluster, self.journal, self.cache, self.thinking)
        self.people = People(self.cluster, self.journal, self.cache, self.clock, vouched)
        self.status = StatusWriter(self.cluster, self.journal, self.cache, self.queue, self.metrics, self.clock)
        self.slots = Slots(bounds, self.queue.add, self.metrics, self.clock)
        self.cache.pods.moved = self.slots.moved

    async def visit(self, ref: RunRef) -> None:
        """Do what can be done for the run now. Cancellation leaves what is done; the next visit goes on.

        Raises:
            Unavailable, NotFound: the API server; try again later.
            NotLeader: another replica leads.
        """
        begin_visit()
        try:
            await self._visit(ref)
        finally:
            live = self.live.get(ref)
            if live is None:
                self.slots.after_visit(ref, (), waits=False)
            else:
                self.slots.after_visit(ref, live.unsure.keys(), waits=bool(live.queued))

    async def _visit(self, ref: RunRef) -> None:
        run = self.cache.run(ref)
        if run is None or run.deleting:
            self._forget(ref)
            return
        if run.finished is not None:
            self._forget(ref)
            await self._after_the_end(run)
            return
        try:
            with self.live.visited(ref):
                live = self.live.get(ref)
                if live is None or live.uid != run.uid:
                    live = self.live.add(ref, await self.opener.open(run))
                await self._go_on(run, live)
        except NotYet as wait:
            if run.cancel:
                ended = await self.status.write(run, showing.never_begun(run, wait.message, self.clock()))
                if ended is not None:
                    await self._after_the_end(ended)
                return
            stalled = wait.reason is Reason.INVALID_SPEC
            await self.status.show_trouble(run, wait.reason, wait.message, stalled=stalled, again=wait.again)
        except Damaged as error:
            self.live.pop(ref)
            message = f"{error}. Restore the object, and the run goes on by itself; or delete the run"
            await self.status.show_trouble(run, Reason.JOURNAL_DAMAGED, message, stalled=True, again=10 * REPAIR)
        except StoreError as error:
            self.live.pop(ref)  # what was written without an answer is read anew
            message = f"{error}. The run goes on by itself when the store answers"
            pause = self.queue.retry(ref)
            await self.status.show_trouble(run, Reason.STORE_UNAVAILABLE, message, stalled=False, again=pause)
        except Conflict:
            await self._look_anew(ref)

    async def _go_on(self, run: RunView, live: LiveRun) -> None:
        live.queued.clear()
        while True:
            await self._look_for_pods(run, live)
            await self._take_ends(run, live)
            await self.people.hear(run, live)
            await self.people.close_expired(run, live)
            await self._take_ends(run, live)  # who ended meanwhile: nothing may come between this and the plan
            now = self.clock()
            snapshot = live.snapshot(live.executions(self.cache.pods.of(run.ref), now), now)
            planned = await self.thinking.plan(run.ref.namespace, snapshot, live.work)
            if planned.ended:
                break
            appends = [e for e in planned.effects if isinstance(e, Append)]
            if not await self._append(live, appends):
                continue
            await self._stop(run, [e for e in planned.effects if isinstance(e, Stop)])
            wanted = [e for e in planned.effects if isinstance(e, Start)]
            admitted = self._admit(run, live, wanted)
            started = await self._start(run, live, admitted) and len(admitted) == len(wanted)
            if started and not appends:
                break  # else the plan is not what is: look again before it is shown
        live.unasked = await self.people.ask(run, live, planned)
        await self.status.show(run, live, planned)
        self.queue.succeeded(run.ref)
        known = self.cache.run(run.ref)
        if planned.ended and known is not None and known.finished is not None:
            self._forget(run.ref)  # what we wrote comes as no event
            await self._after_the_end(known)

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
            run_log(run).info("attempt %d was lost: %s", number, reason, extra={"step": key.label})

    async def _append(self, live: LiveRun, effects: Sequence[Append]) -> bool:
        """Record what was planned; False where the plan did not know what others have recorded since."""
        for effect in effects:
            known = len(live.log.records)
            if not await self.journal.append(live.log, effect.kind, effect.body, lambda r, n=known: len(r) > n):  # type: ignore[misc]
                return False
        return True

    # -- what to do -------------------------------------------------------------------------------------------------

    def _admit(self, run: RunView, live: LiveRun, starts: Sequence[Start]) -> Sequence[Start]:
        """Those of the pods that have a place; the others are ``live.queued`` from then on."""
        if not starts:
            return starts
        admitted, why = self.slots.admit(run, starts)
        if why:
            keys = {start.key for start in admitted}
            live.queued.update((start.key, why) for start in starts if start.key not in keys)
        return admitted

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

    async def _look_for_pods(self, run: RunView, live: LiveRun) -> None:
        """Find out about the pods that were asked for without an answer: a run must not end while one is being made."""
        for start in list(live.unsure.values()):
            with self.cache.pods.creating():
                pod = await self.cluster.find_pod(run, live.pinned, start)
                if pod is not None:
                    self._made(live, pod)
            del live.unsure[start.key]

    async def _create(self, run: RunView, live: LiveRun, start: Start) -> bool:
        live.tried.add(start.key)
        live.unsure[start.key] = start
        try:
            with self.cache.pods.creating():
                pod = await self.cluster.create_pod(run, live.pinned, start)
                self._made(live, pod)
        except Refused as error:
            del live.unsure[start.key]
            live.tried.discard(start.key)
            live.refused(start.key, str(error), self.clock())
            return False
        del live.unsure[start.key]
        live.refusals.pop(start.key, None)
        self.metrics.step_started()
        if pod.phase != "Pending":
            self.queue.add(run.ref)  # made before, and its answer was lost: what the watch tells of it is known by now
        if live.heard_at is not None:
            self.metrics.followed(max(0.0, self.clock() - live.heard_at))
        return True

    def _made(self, live: LiveRun, pod: PodView) -> None:
        if not self.cache.pods.put(pod) and pod.uid not in {
            known.uid for known in self.cache.pods.of(pod.run).values()
        }:
            self.queue.add(pod.run)  # it is gone already, which the watch has told
        live.begun(pod, self.clock())

    async def _stop(self, run: RunView, stops: Sequence[Stop]) -> None:
        for stop in stops:
            for pod in list(self.cache.pods.of(run.ref).values()):
                if pod.run_uid == run.uid and (pod.key, pod.attempt) == (stop.key, stop.attempt) and pod.grace is None:
                    await self.cluster.delete_pod(pod)
                    self.cache.pods.amend(replace(pod, grace=POD_GRACE))  # until the watch says it

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
                await self.people.refuse(run, command, "the run has ended")
        await self._stop(
            run, [Stop(p.key, p.attempt) for p in self.cache.pods.of(run.ref).values() if p.phase != "Ended"]
        )
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
            by = run.changed_by.get("ttlSecondsAfterFinished")
            said = f", which {by} set" if by else ""
            run_log(run).info("deleted: its time to live%s is over; its journal stays", said)
        else:
            self.queue.due(run.ref, left)

    def rest(self) -> None:
        """Forget every run: another replica leads."""
        self.live.clear()
        self.slots.rest()
        for ref in list(self.status.counted):
            self.status.count(ref, None)

    def _forget(self, ref: RunRef) -> None:
        self.status.count(ref, None)
        if self.live.pop(ref) is not None:
            self.queue.forget(ref)


def _lost(pod: PodView | None) -> Lost:
    """What became of an attempt that left no word, for the metric; the text is the kubelet's or our own."""
    if pod is None:
        return Lost.DELETED
    text = pod.trouble[1] if pod.trouble is not None else ""
    if text.startswith("out of memory"):
        return Lost.OOM_KILLED
    return Lost.CRASHED if text.startswith("exit code") else Lost(text.partition(":")[0])
