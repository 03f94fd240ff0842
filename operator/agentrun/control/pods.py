"""Creates, looks up and deletes the pods of attempts, for one visit. A pod is created only if there is a place for it.

The name of a pod follows from its attempt, so a pod that is requested twice exists once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.pod_queue import Slots
from agentrun.control.queue import WorkQueue
from agentrun.control.run_state import RunState
from agentrun.control.views import PodView, RunRef, RunView
from agentrun.kube.errors import Conflict, Refused
from agentrun.observe.metrics import Metrics
from agentrun.plan.snapshot import Start, Stop

CREATIONS = 16
"""Pods of one run that are created at the same time, at most."""

POD_GRACE = 60.0
"""Seconds that a deleted pod is assumed to have, until the watch reports its real grace period."""


@dataclass(slots=True)
class Pods:
    """See the module."""

    cluster: Cluster
    cache: Cache
    queue: WorkQueue[RunRef]
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds since the epoch."""
    slots: Slots

    async def start(self, run: RunView, live: RunState, starts: Sequence[Start]) -> bool:
        """Create the pods that have a place. Return whether all of them were created. Raises Conflict, Unavailable."""
        if not starts:
            return True
        admitted = self._admit(run, live, starts)
        return await self._create_all(run, live, admitted) and len(admitted) == len(starts)

    def _admit(self, run: RunView, live: RunState, starts: Sequence[Start]) -> Sequence[Start]:
        """Return the pods that have a place, and note that the others have none."""
        admitted, why = self.slots.admit(run, starts)
        if why:
            keys = {start.key for start in admitted}
            live.has_no_place((start.key for start in starts if start.key not in keys), why)
        return admitted

    async def _create_all(self, run: RunView, live: RunState, starts: Sequence[Start]) -> bool:
        """Create the pods. Return whether the API server accepted all of them."""
        if not starts:
            return True
        if not live.checked:
            # The cache may be behind, and this leader may be new: ask the API server itself before the first pod.
            now = await self.cluster.get_run(run.ref)
            if now is None or now.uid != run.uid or now.deleting or now.finished is not None:
                raise Conflict(f"run {run.ref.name} has changed since it was last seen")
            live.mark_checked()
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

    async def look(self, run: RunView, live: RunState) -> None:
        """Look up the pods whose creation had no answer: a run must not end while one of them is being created."""
        for start in live.expected:
            with self.cache.pods.expecting():
                pod = await self.cluster.find_pod(run, live.pinned, start)
                if pod is not None:
                    self._made(live, pod)
            live.observed(start.key)

    async def _create(self, run: RunView, live: RunState, start: Start) -> bool:
        live.expect(start)
        try:
            with self.cache.pods.expecting():
                pod = await self.cluster.create_pod(run, live.pinned, start)
                self._made(live, pod)
        except Refused as error:
            live.refused(start.key, str(error), self.clock())
            return False
        live.accepted(start.key)
        self.metrics.step_started()
        if pod.phase != "Pending":
            self.queue.add(run.ref)  # created before, and the answer was lost: the watch may have reported it already
        if (since := live.since_end_heard(self.clock())) is not None:
            self.metrics.followed(since)
        return True

    def _made(self, live: RunState, pod: PodView) -> None:
        if not self.cache.pods.put(pod) and pod.uid not in {
            known.uid for known in self.cache.pods.of(pod.run).values()
        }:
            self.queue.add(pod.run)  # the watch has already reported that the pod is gone
        live.begun(pod, self.clock())

    async def stop(self, run: RunView, stops: Sequence[Stop]) -> None:
        """Delete the pods of these attempts."""
        for stop in stops:
            for pod in list(self.cache.pods.of(run.ref).values()):
                if pod.run_uid == run.uid and (pod.key, pod.attempt) == (stop.key, stop.attempt) and pod.grace is None:
                    await self.cluster.delete_pod(pod)
                    self.cache.pods.amend(replace(pod, grace=POD_GRACE))  # until the watch reports it
