"""One visit to one run: gather, plan, carry out, write the status.

Level-triggered: a visit never knows why it was called. This or another leader can repeat everything that it does:
journal records are created once, pods and Approvals have deterministic names, and the status is replaced only if it is
still the one that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple, assert_never

from agentrun.api.keys import StepKey
from agentrun.api.run import Reason
from agentrun.control import run_status
from agentrun.control.answers import Answers
from agentrun.control.approvals import RUN_ENDED, People
from agentrun.control.async_journal import Journal
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.held import Held
from agentrun.control.patience import NotNow, Patience
from agentrun.control.pod_queue import Slots
from agentrun.control.pods import Pods
from agentrun.control.queue import WorkQueue
from agentrun.control.reconcile_log import begin_visit, run_log
from agentrun.control.run_loader import NotReady, RunLoader
from agentrun.control.run_state import RunState
from agentrun.control.status_writer import StatusWriter
from agentrun.control.thinking import Thinking
from agentrun.control.views import PodView, RunRef, RunView
from agentrun.journal.records import Damaged
from agentrun.kube.errors import Conflict, NotFound
from agentrun.observe.metrics import Lost, Metrics
from agentrun.plan.pod_bounds import UNBOUNDED, Bounds
from agentrun.plan.snapshot import Append, Effect, Plan, Start, Stop
from agentrun.store.protocol import StoreError

REPAIR = 30.0
"""Seconds that a repair outside may take. A run with a damaged journal is visited again after ten times as long."""


@dataclass(slots=True)
class Reconciler:
    """See the module. The work queue lets at most one worker visit a run at a time."""

    cluster: Cluster
    journal: Journal
    cache: Cache
    queue: WorkQueue[RunRef]
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds since the epoch."""
    vouched: InitVar[Callable[[], bool]] = lambda: True
    """Whether the admission policies that vouch for decisions are installed."""
    bounds: InitVar[Bounds] = UNBOUNDED
    """How many step pods may exist at once."""
    live: Held = field(default_factory=Held)
    opener: RunLoader = field(init=False)
    thinking: Thinking = field(default_factory=Thinking)
    answers: Answers = field(init=False)
    people: People = field(init=False)
    patience: Patience = field(init=False)
    status: StatusWriter = field(init=False)
    slots: Slots = field(init=False)
    pods: Pods = field(init=False)

    def __post_init__(self, vouched: Callable[[], bool], bounds: Bounds) -> None:
        self.opener = RunLoader(self.cluster, self.journal, self.cache, self.thinking)
        self.answers = Answers(self.cluster, self.cache, self.clock)
        self.people = People(self.cluster, self.journal, self.cache, self.answers, self.clock, vouched)
        self.patience = Patience(self.cluster, self.clock)
        self.status = StatusWriter(
            self.cluster, self.journal, self.cache, self.queue, self.metrics, self.clock, self.patience
        )
        self.slots = Slots(bounds, self.queue.add, self.metrics, self.clock)
        self.pods = Pods(self.cluster, self.cache, self.queue, self.metrics, self.clock, self.slots)
        self.cache.pods.moved = self.slots.moved

    async def visit(self, ref: RunRef) -> None:
        """Do what can be done for the run now. Cancellation keeps what is done; the next visit continues from there.

        Raises:
            Unavailable, NotFound: a request to the API server failed; try again later.
            NotLeader: another replica leads.
        """
        begin_visit()
        try:
            await self._visit(ref)
        except NotNow as later:
            self.queue.due(ref, later.again)
        finally:
            live = self.live.get(ref)
            if live is None:
                self.slots.after_visit(ref, (), waits=False)
            else:
                self.slots.after_visit(ref, [start.key for start in live.expected], waits=live.waits_for_place)

    async def _visit(self, ref: RunRef) -> None:
        run = self.cache.run(ref)
        if run is None or run.deleting:
            self._forget(ref)
            self.patience.forget(ref)
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
        except NotReady as wait:
            if run.cancel:
                ended = await self.status.write(run, run_status.never_begun(run, wait.message, self.clock()))
                if ended is not None:
                    await self._after_the_end(ended)
                return
            stalled = wait.reason is Reason.INVALID_SPEC
            await self.status.show_trouble(run, wait.reason, wait.message, stalled=stalled, again=wait.again)
        except Damaged as error:
            self.live.pop(ref)
            message = f"{error}. Restore the object, and the run continues automatically; or delete the run"
            await self.status.show_trouble(run, Reason.JOURNAL_DAMAGED, message, stalled=True, again=10 * REPAIR)
        except StoreError as error:
            self.live.pop(ref)  # a write whose answer was lost may be there: the next visit reads the journal again
            message = f"{error}. The run continues automatically when the store answers"
            pause = self.queue.retry(ref)
            await self.status.show_trouble(run, Reason.STORE_UNAVAILABLE, message, stalled=False, again=pause)
        except Conflict:
            await self._look_anew(ref)

    async def _go_on(self, run: RunView, live: RunState) -> None:
        """Reconcile a run that is pinned. Plan again until the plan describes the state that it left behind."""
        live.begin_visit()
        while True:
            # 1. Look up the pods whose creation had no answer: a run must not end while one of them is being made.
            await self.pods.look(run, live)
            # 2. Take in how attempts ended, from the termination message or else from the journal.
            await self._take_ends(run, live)
            # 3. Record what people said: changes of the spec, decisions, commands.
            await self.people.hear(run, live)
            # 4. Close the Approvals that have expired. If somebody decided in time and the watch event is still on its
            #    way, the close is a Conflict. So no plan treats an answered question as expired.
            await self.people.close_expired(run, live)
            # 5. Take in ends again. Phases 3 and 4 waited for the store and the API server. The plan would treat an
            #    attempt that ended meanwhile as running. Nothing may come between this phase and the snapshot.
            await self._take_ends(run, live)
            # 6. Plan. A run that has ended needs only phases 10 to 12.
            planned = await self._plan(run, live)
            if planned.ended:
                break
            effects = _sorted(planned.effects)
            # 7. Append the planned events. If somebody else recorded one since the snapshot, plan again.
            if not await self._append(live, effects.appends):
                continue
            # 8. Delete the pods of attempts that are to stop.
            await self.pods.stop(run, effects.stops)
            # 9. Create pods, after the events: a pod must find in the journal what it was started for.
            if effects.starts and run.large and not run.begun:
                await self._show_first(run, live, planned)
                return
            all_made = await self.pods.start(run, live, effects.starts)
            if all_made and not effects.appends:
                break  # else the plan is out of date: an event was appended, or a pod was not created
        # 10. Open an Approval for each open question, and close those of all others.
        await self.people.ask(run, live, planned)
        # 11. Write the status, and set the time of the next visit.
        await self._show(run, live, planned)
        self.queue.succeeded(run.ref)
        # 12. After its end, a run has only its time to live. The watch event of our own write of the end queues no
        #     visit, because the cache has that version already.
        known = self.cache.run(run.ref)
        if planned.ended and known is not None and known.finished is not None:
            self._forget(run.ref)
            await self._after_the_end(known)

    async def _plan(self, run: RunView, live: RunState) -> Plan:
        snapshot = live.snapshot(self.cache.pods.of(run.ref), self.people.unheard(live), self.clock())
        return await self.thinking.plan(run.ref.namespace, snapshot, live.work)

    async def _show_first(self, run: RunView, live: RunState, planned: Plan) -> None:
        """Write the first status of a large run before its first pod, which must not start if that write fails."""
        await self._show(run, live, planned, at_once=True)
        now = self.cache.run(run.ref)
        if now is not None and now.begun:
            self.queue.add(run.ref)

    async def _show(self, run: RunView, live: RunState, planned: Plan, *, at_once: bool = False) -> None:
        now = self.clock()
        looks = [*live.wakes(self.cache.pods.of(run.ref).values(), now), *self.people.wakes(live, now)]
        await self.status.show(run, live, self.people.told(live, planned), looks, at_once=at_once)

    # -- what happened ----------------------------------------------------------------------------------------------

    async def _take_ends(self, run: RunView, live: RunState) -> None:
        """Take in how attempts ended: from their termination messages, else from their journals."""
        now = self.clock()
        while ended := list(live.gone(self.cache.pods.of(run.ref), now)):
            for key, number, pod in ended:
                await self._take_end(run, live, key, number, pod)

    async def _take_end(self, run: RunView, live: RunState, key: StepKey, number: int, pod: PodView | None) -> None:
        fact = pod.fact if pod is not None else None
        if fact is None:
            fact = await self.journal.fact(live.pinned.run, key)
        live.take(key, number, pod, fact, self.clock())
        if fact.attempt < number or fact.end is None:
            reason = pod.trouble[1] if pod is not None and pod.trouble is not None else "the pod is gone"
            self.metrics.attempt_lost(pod.lost if pod is not None else Lost.DELETED)
            run_log(run).info("attempt %d was lost: %s", number, reason, extra={"step": key.label})

    async def _append(self, live: RunState, effects: Sequence[Append]) -> bool:
        """Record the planned events; False if others have recorded an event that the plan did not know."""
        for effect in effects:
            if not await self.journal.append(live.log, effect.kind, effect.body, live.log.overtaken()):
                return False
        return True

    # -- what is left to do -------------------------------------------------------------------------------------

    async def _look_anew(self, ref: RunRef) -> None:
        """Get the run from the API server after a Conflict: the watch may be behind."""
        known = self.cache.run(ref)
        with self.cache.runs.expecting():
            run = await self.cluster.get_run(ref)
            newer = run is not None and self.cache.runs.put(run)
        if run is None and known is not None:
            self.cache.runs.drop(ref, ref.name, known.uid)
        if newer or run is None:
            self.queue.add(ref)
        else:
            self.queue.retry(ref)  # the run is unchanged, so an Approval has changed: its watch event will come

    async def _after_the_end(self, run: RunView) -> None:
        assert run.finished is not None
        for command in self.cache.open_commands(run.ref):
            if command.run_uid is None or command.run_uid == run.uid:
                await self.people.refuse(run, command, RUN_ENDED)
        await self.pods.stop(
            run, [Stop(p.key, p.attempt) for p in self.cache.pods.of(run.ref).values() if p.phase != "Ended"]
        )
        if run.observed < run.generation:
            # Somebody changed the spec of an ended run. Only its time to live still has an effect. Without this write,
            # kstatus (and so Argo CD and kubectl wait) would take the run for one in progress.
            try:
                await self.status.observe(run)
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
            await self.patience.write(run, "when it was deleted", lambda: self.cluster.delete_run(run))
            by = run.changed_by.get("ttlSecondsAfterFinished")
            said = f", which {by} set" if by else ""
            run_log(run).info("deleted: its time to live%s is over; its journal stays", said)
        else:
            self.queue.due(run.ref, left)

    def rest(self) -> None:
        """Forget every run, because this replica does not lead any more."""
        self.live.clear()
        self.slots.rest()
        self.patience.rest()
        for ref in list(self.status.counted):
            self.status.count(ref, None)

    def _forget(self, ref: RunRef) -> None:
        self.status.count(ref, None)
        if self.live.pop(ref) is not None:
            self.queue.forget(ref)


class _Effects(NamedTuple):
    """The effects of a plan by kind. Each kind is applied as a whole: events first, then pods."""

    appends: list[Append]
    stops: list[Stop]
    starts: list[Start]


def _sorted(effects: Iterable[Effect]) -> _Effects:
    found = _Effects([], [], [])
    for effect in effects:
        match effect:
            case Append():
                found.appends.append(effect)
            case Stop():
                found.stops.append(effect)
            case Start():
                found.starts.append(effect)
            case _:
                assert_never(effect)
    return found
