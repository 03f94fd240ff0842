"""Takes watch events into the cache and, on the leader, runs the workers and the periodic tasks.

Every replica fills its cache from the watches; only the leader works. The cluster and the journal hold all that a
former leader began. So a new leader lists everything, then visits every run that may need something.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentrun.control import run_status
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
"""Visits at the same time. A namespace alone gets at most 32 of them (``queue.SHARE``)."""
SWEEP = 30.0
"""Seconds between sweeps of ended pods. A pod that ended this long ago brings the sweep to its namespace, which then
removes every ended pod there, younger ones too.
"""
TIDY = 15.0
"""Seconds between removals of what deleted runs left behind (``Leftovers``), and of answered commands."""
LOOK = 10.0
"""Seconds between offers of free places to waiting runs. Usually an event has offered them before."""
RESYNC = 300.0
"""Seconds between lists of everything. They find deletions that a watch missed."""

CLOCK_LOOK = 10.0
"""Seconds between comparisons of the wall clock with the steady one."""
CLOCK_JUMP = 5.0
"""Seconds by which the two clocks may drift apart between two comparisons. More means that the wall clock was set."""

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
        self.leftovers = Leftovers(self.cluster, self.cache, self.reconciler.answers, self.clock)

    # -- what the watches tell --------------------------------------------------------------------------------------

    def seen(self, kind: Kind[Any], view: Any) -> None:
        """Handle an object that was created or changed: by ``ON_SEEN``, else keep it and queue its run."""
        if (handle := ON_SEEN.get(kind)) is not None:
            handle(self, view)
        elif self.cache[kind].put(view):
            self._enqueue(view.run)

    def gone(self, kind: Kind[Any], view: Any) -> None:
        """Handle an object that was deleted: by ``ON_GONE``, else drop it from the cache and queue its run.

        Kubernetes deletes what a deleted run owns. The run's journal stays.
        """
        if (handle := ON_GONE.get(kind)) is not None:
            handle(self, view)
        elif kind.kept and self.cache[kind].drop(view.run, view.name, view.uid):
            self._enqueue(view.run)

    def run_seen(self, view: RunView) -> None:
        """Handle an AgentRun that was created or changed."""
        if self.cache.runs.put(view):
            self._enqueue(view.ref, first_look=view.ref not in self.reconciler.live)

    def pod_seen(self, view: PodView) -> None:
        """Handle a pod that was created or changed. Most changes do not show in its view, and queue nothing."""
        before = self.cache.pods.of(view.run).get(view.name)
        if self.cache.pods.put(view) and (before is None or replace(before, version=view.version) != view):
            live = self.reconciler.live.get(view.run)
            if live is not None and view.phase == "Ended":
                live.end_heard(self.clock())
            self._enqueue(view.run)

    def pod_gone(self, view: PodView) -> None:
        """Handle a pod that was deleted."""
        live = self.reconciler.live.get(view.run)
        if live is not None:
            live.pod_deleted(view)
        if self.cache.pods.drop(view.run, view.name, view.uid):
            self._enqueue(view.run)

    def approval_gone(self, view: ApprovalView) -> None:
        """Handle an Approval that was deleted, even one that the cache never had: a visit makes an open one again."""
        self.cache.approvals.drop(view.run, view.name, view.uid)
        self._enqueue(view.run)

    def command_seen(self, view: CommandView) -> None:
        """Handle an AgentCommand that was created or changed. One that has its answer needs no visit."""
        if self.cache.commands.put(view) and view.open:
            self._enqueue(view.run)

    def command_gone(self, view: CommandView) -> None:
        """Handle an AgentCommand that was deleted, usually by the operator itself: its run needs no visit."""
        self.cache.commands.drop(view.run, view.name, view.uid)

    def workflow_seen(self, view: WorkflowView) -> None:
        """Handle an AgentWorkflow that was created or changed: queue the runs that wait for it."""
        for run in self.cache.runs:
            if run.waits_for == view.name and run.ref.namespace == view.namespace:
                self._enqueue(run.ref, first_look=True)

    def _enqueue(self, ref: RunRef, *, first_look: bool = False) -> None:
        if self.leading:
            self.queue.add(ref, first_look=first_look)

    # -- what the leader does ---------------------------------------------------------------------------------------

    async def warm(self) -> None:
        """Fill the cache once, so that a standby is ready to take over. Its watches keep the cache up to date."""
        await self._list_patiently()

    async def lead(self) -> None:
        """Work until cancelled. Cancellation ends every visit between two writes, and nothing has to be undone."""
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
        """Queue a run for a new leader: as due if an answer or an ended pod waits for it, else as a first look."""
        pods = self.cache.pods.of(run.ref).values()
        if run.finished is not None:
            late = any(pod.phase != "Ended" for pod in pods)
            if run.ttl is not None or run.observed < run.generation or self.cache.open_commands(run.ref) or late:
                self.queue.add(run.ref, first_look=True)
            return
        decided = any(a.decisions and not a.settled for a in self.cache.approvals.of(run.ref).values())
        answered = decided or bool(self.cache.open_commands(run.ref)) or any(pod.phase == "Ended" for pod in pods)
        self.queue.add(run.ref, first_look=not answered)
        awaited = run_status.awaited(run.status)
        if awaited is not None:  # the timer may fire while the run still waits for its first look
            self.queue.due(run.ref, max(0.0, awaited - self.clock()))

    async def _work(self) -> None:
        while True:
            ref = await self.queue.get()
            began = self.monotonic()
            result: ReconcileResult = "success"
            try:
                await self.reconciler.visit(ref)
            except NotLeader:
                self.queue.retry(ref)  # this process may lead again: it was stopped a while, and nobody took over
                result = "requeue"
            except ClusterError as error:
                pause = self.queue.retry(ref, error.retry_after if isinstance(error, Unavailable) else None)
                result = "requeue"
                log.warning("%s/%s: %s; retrying in %.1f s", *ref, error, pause)
            except asyncio.CancelledError:
                raise
            except Exception:
                # A bug of ours must not stop other runs, nor this one for ever: log it and try again.
                result = "error"
                pause = self.queue.retry(ref)
                log.exception("%s/%s: the reconcile failed; retrying in %.1f s", *ref, pause)
            finally:
                self.queue.done(ref)
                self.metrics.reconciled(result, self.monotonic() - began)

    async def _sweep(self) -> None:
        """Remove ended pods in bulk: one request for a namespace costs less than one for each pod.

        The request may take 30 s, longer than a Lease lasts, so it can remove pods while the next leader is at work.
        That is harmless. A pod that has ended never runs again, and every leader reads the journal of an attempt whose
        pod is gone: its own sweep, too, removes pods whose end it has not taken in.
        """
        while True:
            await asyncio.sleep(SWEEP)
            old = self.clock() - SWEEP
            ended = [p for p in self.cache.pods if p.phase == "Ended" and (p.ended or 0.0) < old and self._taken(p)]
            spaces = {pod.namespace for pod in ended}
            for namespace in sorted(spaces):
                try:
                    await self.cluster.sweep_pods(namespace)
                except ClusterError as error:
                    log.warning("cannot remove the ended pods in %s: %s", namespace, error)
            # A container that somebody else injected keeps a pod Running after its attempt ended. No sweep finds it.
            for pod in [p for p in ended if p.ended is not None and p.ended < old - SWEEP and p.grace is None]:
                try:
                    await self.cluster.delete_pod(pod)
                except ClusterError as error:
                    log.warning("cannot remove the ended pod %s/%s: %s", pod.namespace, pod.name, error)

    async def _mind_the_clock(self) -> None:
        wall, steady = self.clock(), self.monotonic()
        while True:
            await asyncio.sleep(CLOCK_LOOK)
            jump = (self.clock() - wall) - (self.monotonic() - steady)
            wall, steady = self.clock(), self.monotonic()
            if abs(jump) > CLOCK_JUMP:
                self.clock_set(jump)

    def clock_set(self, jump: float) -> None:
        """Adjust to a wall clock that was set by ``jump`` seconds: move the stored times and queue all that is due."""
        log.warning("this machine's clock was set by %+.0f s", jump)
        for live in self.reconciler.live:
            live.clock_set(jump, self.clock())
        self.queue.look_again()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            await self.leftovers.remove()
            await self.reconciler.answers.remove_old()

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
    COMMANDS: Controller.command_seen,
    WORKFLOWS: Controller.workflow_seen,
}
"""Handlers of created and changed objects, for the kinds that need more than a visit to the run."""

ON_GONE: Final[Mapping[Kind[Any], Handle]] = {
    PODS: Controller.pod_gone,
    APPROVALS: Controller.approval_gone,
    COMMANDS: Controller.command_gone,
}
"""As ``ON_SEEN``, for deleted objects."""
