"""What runs while this replica leads: the workers, the sweep of ended pods, the LIST against missed deletions.

Every replica feeds its cache from the watches; only the leader works. What a former leader began is found in the
cluster and the journal, so a change of leader is a list of everything and one visit to every run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentrun.control import showing
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.leader import NotLeader
from agentrun.control.leftovers import Leftovers
from agentrun.control.lists import Lists, take_lists
from agentrun.control.queue import WorkQueue
from agentrun.control.reconciler import Reconciler
from agentrun.control.views import (
    APPROVALS,
    COMMANDS,
    PODS,
    RUNS,
    WORKFLOWS,
    ApprovalView,
    CommandView,
    Kind,
    PodView,
    RunRef,
    RunView,
    WorkflowView,
)
from agentrun.kube.errors import ClusterError, Unavailable
from agentrun.observe.metrics import Metrics, ReconcileResult

WORKERS = 48
"""Visits at the same time; a namespace alone has 32 of them at the most (``queue.SHARE``)."""
SWEEP = 30.0
"""Seconds between sweeps; an ended pod stays at least as long for whoever looks at it."""
TIDY = 15.0
"""Seconds between looks for what is left of runs that are gone."""
LOOK = 10.0
"""Seconds between looks whether a run that waits for a place for a pod can have one: an event tells it before."""
RESYNC = 300.0
"""Seconds between lists of everything, against watches that do not tell of a deletion."""

CLOCK_LOOK = 10.0
"""Seconds between looks whether the wall clock was set."""
CLOCK_JUMP = 5.0
"""Seconds by which it may part from the steady one between two looks before that counts."""

log = logging.getLogger("agentrun.control")


@dataclass(slots=True)
class Controller:
    """See the module."""

    cluster: Cluster
    lists: Lists
    cache: Cache
    queue: WorkQueue[RunRef]
    reconciler: Reconciler
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds since the epoch."""
    monotonic: Callable[[], float]
    leading: bool = False
    leftovers: Leftovers = field(init=False)

    def __post_init__(self) -> None:
        self.leftovers = Leftovers(self.cluster, self.cache, self.clock)

    # -- what the watches tell --------------------------------------------------------------------------------------

    def seen(self, kind: Kind[Any], view: Any) -> None:
        """An object was made or changed: it is kept and its run visited, unless ``ON_SEEN`` has a word on its kind."""
        if (handle := ON_SEEN.get(kind)) is not None:
            handle(self, view)
        elif self.cache[kind].put(view):
            self._enqueue(view.run)

    def gone(self, kind: Kind[Any], view: Any) -> None:
        """An object was deleted: it is forgotten and its run visited, unless ``ON_GONE`` has a word on its kind.

        What a run owns goes with it; its journal stays.
        """
        if (handle := ON_GONE.get(kind)) is not None:
            handle(self, view)
        elif kind.kept and self.cache[kind].drop(view.run, view.name, view.uid):
            self._enqueue(view.run)

    def run_seen(self, view: RunView) -> None:
        """An AgentRun was made or changed."""
        if self.cache.runs.put(view):
            self._enqueue(view.ref, first_look=view.ref not in self.reconciler.live)

    def pod_seen(self, view: PodView) -> None:
        """A pod was made or changed; most changes are of no concern to the run."""
        before = self.cache.pods.of(view.run).get(view.name)
        if self.cache.pods.put(view) and (before is None or replace(before, version=view.version) != view):
            live = self.reconciler.live.get(view.run)
            if live is not None and view.phase == "Ended":
                live.end_heard(self.clock())
            self._enqueue(view.run)

    def pod_gone(self, view: PodView) -> None:
        """A pod was deleted."""
        live = self.reconciler.live.get(view.run)
        if live is not None:
            live.pod_deleted(view)
        if self.cache.pods.drop(view.run, view.name, view.uid):
            self._enqueue(view.run)

    def approval_gone(self, view: ApprovalView) -> None:
        """An Approval was deleted, perhaps before it was heard of; if it was open it is made again."""
        self.cache.approvals.drop(view.run, view.name, view.uid)
        self._enqueue(view.run)

    def command_gone(self, view: CommandView) -> None:
        """It was taken in."""
        self.cache.commands.drop(view.run, view.name, view.uid)

    def workflow_seen(self, view: WorkflowView) -> None:
        """An AgentWorkflow was made or changed: runs may wait for it."""
        for run in self.cache.runs:
            if run.waits_for == view.name and run.ref.namespace == view.namespace:
                self._enqueue(run.ref, first_look=True)

    def _enqueue(self, ref: RunRef, *, first_look: bool = False) -> None:
        if self.leading:
            self.queue.add(ref, first_look=first_look)

    # -- what the leader does ---------------------------------------------------------------------------------------

    async def warm(self) -> None:
        """Fill the cache once, so that a standby is ready to take over; its watches keep it so."""
        await self._list_patiently()

    async def lead(self) -> None:
        """Work until cancelled, which ends every visit between two writes; nothing of it needs to be undone."""
        try:
            await self._list_patiently()
            self.leading = True
            log.info("leading: %d runs, %d pods", len(self.cache.runs), len(self.cache.pods))
            for view in self.cache.runs:
                self._take_over(view)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(WORKERS):
                    tasks.create_task(self._work())
                tasks.create_task(self._sweep())
                tasks.create_task(self._tidy())
                tasks.create_task(self._resync())
                tasks.create_task(self._look_for_places())
                tasks.create_task(self._mind_the_clock())
        finally:
            self.leading = False
            self.queue.clear()
            self.leftovers.forget()
            self.reconciler.rest()

    def _take_over(self, run: RunView) -> None:
        """Put a run into the queue as a new leader: as due where something is known to wait for it, else for a look."""
        pods = self.cache.pods.of(run.ref).values()
        if run.finished is not None:
            late = any(pod.phase != "Ended" for pod in pods)
            if run.ttl is not None or run.observed < run.generation or self.cache.commands.of(run.ref) or late:
                self.queue.add(run.ref, first_look=True)
            return
        decided = any(a.decisions and not a.settled for a in self.cache.approvals.of(run.ref).values())
        answered = decided or bool(self.cache.commands.of(run.ref)) or any(pod.phase == "Ended" for pod in pods)
        self.queue.add(run.ref, first_look=not answered)
        awaited = showing.awaited(run.status)
        if awaited is not None:  # it may come while the run still waits for its first look
            self.queue.due(run.ref, max(0.0, awaited - self.clock()))

    async def _work(self) -> None:
        while True:
            ref = await self.queue.get()
            began = self.monotonic()
            result: ReconcileResult = "success"
            try:
                await self.reconciler.visit(ref)
            except NotLeader:
                self.queue.retry(ref)  # we may lead on: a process that was stopped for a while, and nobody took over
                result = "requeue"
            except ClusterError as error:
                pause = self.queue.retry(ref, error.retry_after if isinstance(error, Unavailable) else None)
                result = "requeue"
                log.warning("%s/%s: %s; again in %.1f s", *ref, error, pause)
            except asyncio.CancelledError:
                raise
            except Exception:
                # A defect of ours must not stop the other runs, nor this one for ever: it is said, and tried again.
                result = "error"
                pause = self.queue.retry(ref)
                log.exception("%s/%s: the visit failed; again in %.1f s", *ref, pause)
            finally:
                self.queue.done(ref)
                self.metrics.reconciled(result, self.monotonic() - began)

    async def _sweep(self) -> None:
        """Remove ended pods in bulk: one request a namespace costs less than one a pod."""
        while True:
            await asyncio.sleep(SWEEP)
            old = self.clock() - SWEEP
            ended = [p for p in self.cache.pods if p.phase == "Ended" and (p.ended or 0.0) < old and self._taken(p)]
            spaces = {pod.namespace for pod in ended}
            for namespace in sorted(spaces):
                try:
                    await self.cluster.sweep_pods(namespace)
                except ClusterError as error:
                    log.warning("ended pods in %s are not removed now: %s", namespace, error)
            # Another container, put in by somebody else, keeps a pod Running, and no sweep finds it.
            for pod in [p for p in ended if p.ended is not None and p.ended < old - SWEEP and p.grace is None]:
                try:
                    await self.cluster.delete_pod(pod)
                except ClusterError as error:
                    log.warning("ended pod %s/%s is not removed now: %s", pod.namespace, pod.name, error)

    async def _mind_the_clock(self) -> None:
        wall, steady = self.clock(), self.monotonic()
        while True:
            await asyncio.sleep(CLOCK_LOOK)
            jump = (self.clock() - wall) - (self.monotonic() - steady)
            wall, steady = self.clock(), self.monotonic()
            if abs(jump) > CLOCK_JUMP:
                self.clock_set(jump)

    def clock_set(self, jump: float) -> None:
        """The wall clock was set by ``jump`` seconds: move what it has stamped, and reckon anew what is due when."""
        log.warning("this machine's clock was set by %+.0f s", jump)
        for live in self.reconciler.live:
            live.clock_set(jump, self.clock())
        self.queue.look_again()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            await self.leftovers.remove()

    def _taken(self, pod: PodView) -> bool:
        live = self.reconciler.live.get(pod.run)
        return live is None or live.uid != pod.run_uid or live.has_taken(pod)

    async def _look_for_places(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self.reconciler.slots.look()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC)
            await self._list_patiently()

    async def _list_patiently(self) -> None:
        for ref in await take_lists(self.cache, self.lists):
            self._enqueue(ref)


Handle = Callable[[Controller, Any], None]

ON_SEEN: Final[Mapping[Kind[Any], Handle]] = {
    RUNS: Controller.run_seen,
    PODS: Controller.pod_seen,
    WORKFLOWS: Controller.workflow_seen,
}
"""What an object that was made or changed means, of the kinds of which that is more than a visit to its run."""

ON_GONE: Final[Mapping[Kind[Any], Handle]] = {
    PODS: Controller.pod_gone,
    APPROVALS: Controller.approval_gone,
    COMMANDS: Controller.command_gone,
}
"""As ``ON_SEEN``, of an object that was deleted."""
