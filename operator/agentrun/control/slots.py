"""The line of runs that wait for a place for a pod, and the count of the places that are taken.

``plan.slots`` decides. Here is what it decides about: the pods that the cache holds, the pods that are being made, and
what runs want beyond that. All of it can be lost: the cache counts the pods of every leader, and the visits of a new
leader line the runs up again.

A run joins the line when a visit finds no place for all of its pods, and leaves it when a visit wants none any more or
fails. When a place becomes free, the runs whose turn it is are visited. A run that is visited meanwhile for another
reason does not get the place of one that is ahead of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence, Set
from typing import NamedTuple

from agentrun.api.facts import StepKey
from agentrun.control.live import LEAVE_MARGIN
from agentrun.control.views import PodView, RunRef, RunView
from agentrun.observe.metrics import Metrics
from agentrun.plan.slots import UNBOUNDED, Bounds, Pods, grants
from agentrun.plan.snapshot import Start


class _Counted(NamedTuple):
    """As what a pod is counted: its namespace, and whether it is of a run that ends."""

    space: str
    ending: bool


_NOT = _Counted("", False)
"""As what a pod is that counts no longer, though it is there."""


class _Place(NamedTuple):
    """Where a run stands in the line of its namespace: those that end first, then the oldest."""

    rank: int
    created: float
    name: str


class Slots:
    """For one event loop. ``wake`` has a run visited soon; ``clock`` gives seconds since the epoch."""

    def __init__(
        self, bounds: Bounds, wake: Callable[[RunRef], None], metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._bounds, self._wake, self._metrics, self._clock = bounds, wake, metrics, clock
        self._pods: dict[str, _Counted] = {}
        """The pods that count, by uid."""
        self._leaving: dict[str, float] = {}
        """When each of those that were told to leave is gone, whatever its node says."""
        self._reserved: dict[RunRef, dict[StepKey, bool]] = {}
        """Pods that are being made, or were asked for without an answer; and whether each ends its run."""
        self._used: dict[str, Pods] = {}
        """Both of them, by namespace."""
        self._line: OrderedDict[str, list[_Place]] = OrderedDict()
        """By namespace, in the order of turns."""
        self._wants: dict[RunRef, tuple[_Place, int]] = {}
        self._wanted: dict[str, Pods] = {}

    # -- what there is ----------------------------------------------------------------------------------------------

    def moved(self, pod: PodView, gone: bool) -> None:
        """The cache has a newer view of a pod, or has dropped it. One that has ended takes no place."""
        if gone or pod.phase == "Ended":
            if self._write_off(pod.uid):
                self._offer()
            return
        if pod.uid not in self._pods:
            counted = self._pods[pod.uid] = _Counted(pod.namespace, pod.drain or pod.key.compensate)
            self._take(counted, 1)
            self._metrics.step_pods(len(self._pods))
            self._release(pod.run, {pod.key})
        if pod.grace is not None:
            self._leaving.setdefault(pod.uid, self._clock() + pod.grace + LEAVE_MARGIN)

    def look(self) -> None:
        """Give up the pods of nodes that do not answer, and wake whose turn it is: should a wake have been lost."""
        now = self._clock()
        for uid in [uid for uid, at in self._leaving.items() if at <= now]:
            self._write_off(uid)
            self._pods[uid] = _NOT  # until it is gone
        self._offer()

    def _write_off(self, uid: str) -> bool:
        """Count a pod no longer; whether it was counted."""
        self._leaving.pop(uid, None)
        counted = self._pods.pop(uid, _NOT)
        self._metrics.step_pods(len(self._pods))
        if counted != _NOT:
            self._take(counted, -1)
        return counted != _NOT

    # -- what a visit asks ------------------------------------------------------------------------------------------

    def admit(self, run: RunView, starts: Sequence[Start]) -> tuple[Sequence[Start], str]:
        """Which of the pods a run may have now, their places being taken; and why the others wait, if any does."""
        if self._bounds == UNBOUNDED:
            return starts, ""
        reserved = self._reserved.setdefault(run.ref, {})
        has = frozenset(reserved)
        asked = [start for start in starts if start.key not in has]
        ending = any(start.drain or start.key.compensate for start in asked)
        place = _Place(0 if ending else 1, run.created, run.ref.name)
        self._line_up(run.ref, place, len(asked))
        count = self._share(run.ref)
        for start in asked[:count]:
            reserved[start.key] = start.drain or start.key.compensate
            self._take(_Counted(run.ref.namespace, reserved[start.key]), 1)
        self._line_up(run.ref, place, len(asked) - count)
        if count and run.ref.namespace in self._line:
            self._line.move_to_end(run.ref.namespace)
        why = self._why(run.ref.namespace, place) if count < len(asked) else ""
        return [start for start in starts if start.key in reserved], why

    def after_visit(self, ref: RunRef, expected: Collection[StepKey], waits: bool) -> None:
        """A visit has ended: which pods are asked for without an answer, and whether the run waits in line."""
        reserved = self._reserved.get(ref)
        waited = ref in self._wants
        if reserved is not None:
            waited |= self._release(ref, reserved.keys() - expected)
            if not reserved:
                del self._reserved[ref]
        if not waits and ref in self._wants:
            self._line_up(ref, self._wants[ref][0], 0)
        if waited:  # what it gave back or does not want any more, or not as before, may be another one's
            self._offer()

    def rest(self) -> None:
        """Another replica leads: nobody waits here. The pods are counted on."""
        for ref, keys in list(self._reserved.items()):
            self._release(ref, set(keys))
        self._reserved.clear()
        for ref, (place, _) in list(self._wants.items()):
            self._line_up(ref, place, 0)

    # -- the line ---------------------------------------------------------------------------------------------------

    def _line_up(self, ref: RunRef, place: _Place, count: int) -> None:
        """Let a run wait for ``count`` pods, whatever it waited for before; 0: it leaves.

        A namespace that has another run in line, or the same one again, keeps its turn.
        """
        line = self._line.setdefault(ref.namespace, [])
        before = self._wants.pop(ref, None)
        if before is not None:
            del line[bisect_left(line, before[0])]
            self._want(ref.namespace, before[0], -before[1])
        if count:
            insort(line, place)
            self._wants[ref] = place, count
            self._want(ref.namespace, place, count)
        if not line:
            del self._line[ref.namespace]
            self._wanted.pop(ref.namespace, None)

    def _want(self, space: str, place: _Place, count: int) -> None:
        self._wanted[space] = self._wanted.get(space, Pods()).plus(count, ending=place.rank == 0)
        self._metrics.steps_queued(count)

    def _share(self, ref: RunRef) -> int:
        """How many places a run may take: those of its namespace that no run ahead of it is to have."""
        if ref not in self._wants:
            return 0
        left = self._grants().get(ref.namespace, 0)
        for place in self._line[ref.namespace]:
            count = self._wants[RunRef(ref.namespace, place.name)][1]
            if left <= 0 or place.name == ref.name:
                return min(max(left, 0), count)
            left -= count
        return 0

    def _offer(self) -> None:
        """Have the runs visited that may have a place."""
        if not self._line:
            return
        for space, left in self._grants().items():
            for place in self._line[space]:
                if left <= 0:
                    break
                ref = RunRef(space, place.name)
                left -= self._wants[ref][1]  # noqa: PLW2901
                self._wake(ref)

    def _grants(self) -> dict[str, int]:
        return grants(self._bounds, self._used, {space: self._wanted[space] for space in self._line})

    def _why(self, space: str, place: _Place) -> str:
        ahead = bisect_left(self._line[space], place)
        most, whole = self._bounds.namespace, self._bounds.whole
        if most is not None and sum(self._used.get(space, Pods())) >= most:
            why = f"the namespace has {most} pods of steps, as many as it may have at once (steps.maxPodsPerNamespace)"
        elif whole is not None and sum(map(sum, self._used.values())) >= whole:
            why = f"the cluster has {whole} pods of steps, as many as there may be at once (steps.maxPods)"
        else:
            why = "the places that are free are for runs that have waited for longer"
        others = {0: "no run", 1: "1 run"}.get(ahead, f"{ahead} runs")
        return f"{why}; {others} of the namespace ahead of this one"

    # -- counting ---------------------------------------------------------------------------------------------------

    def _release(self, ref: RunRef, keys: Set[StepKey]) -> bool:
        """Give back the places of pods that are not being made any more; whether there were any."""
        reserved = self._reserved.get(ref, {})
        released = reserved.keys() & keys
        for key in released:
            self._take(_Counted(ref.namespace, reserved.pop(key)), -1)
        return bool(released)

    def _take(self, counted: _Counted, count: int) -> None:
        used = self._used.get(counted.space, Pods()).plus(count, ending=counted.ending)
        self._used[counted.space] = used
        if not sum(used):
            del self._used[counted.space]
