"""The line of runs that wait for places, and the count of the places that are taken.

``plan.pod_bounds`` decides who gets a place. This module keeps what it decides about: the pods in the cache, the pods
that are being created, and the further pods that runs want. All of it can be lost: the cache counts the pods of every
leader, and the visits of a new leader line the runs up again.

A run joins the line when a visit finds no place for some of its pods. It leaves the line when a visit wants no more
pods, or fails. When a place becomes free, the runs whose turn it is are visited. A run that is visited meanwhile for
another reason does not get the place of a run ahead of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence, Set
from typing import NamedTuple

from agentrun.api.keys import StepKey
from agentrun.control.run_state import LEAVE_MARGIN
from agentrun.control.views import PodView, RunRef, RunView
from agentrun.observe.metrics import Metrics
from agentrun.plan.pod_bounds import UNBOUNDED, Bounds, Pods, grants
from agentrun.plan.snapshot import Start


class _Counted(NamedTuple):
    """How a pod is counted: under its namespace, and whether it belongs to a run that ends."""

    space: str
    ending: bool


_NOT = _Counted("", False)
"""Marks a pod that exists but is not counted any more."""


class _Place(NamedTuple):
    """The position of a run in the line of its namespace: runs that end come first, then the oldest."""

    rank: int
    created: float
    name: str


class Slots:
    """For one event loop. ``wake`` queues a visit to a run; ``clock`` gives seconds since the epoch."""

    def __init__(
        self, bounds: Bounds, wake: Callable[[RunRef], None], metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._bounds, self._wake, self._metrics, self._clock = bounds, wake, metrics, clock
        self._pods: dict[str, _Counted] = {}
        """How each pod is counted, by uid."""
        self._leaving: dict[str, float] = {}
        """When each deleted pod counts as gone, whatever its node reports. By uid."""
        self._reserved: dict[RunRef, dict[StepKey, bool]] = {}
        """Places of pods that are being created or whose creation had no answer; True for pods of a run that ends."""
        self._used: dict[str, Pods] = {}
        """The counted pods and the reserved places together, by namespace."""
        self._line: OrderedDict[str, list[_Place]] = OrderedDict()
        """The waiting runs of each namespace. The namespaces are in the order of their turns."""
        self._wants: dict[RunRef, tuple[_Place, int]] = {}
        self._wanted: dict[str, Pods] = {}

    # -- what there is ----------------------------------------------------------------------------------------------

    def moved(self, pod: PodView, gone: bool) -> None:
        """Handle a newer view of a pod in the cache, or its removal (``gone``). A pod that has ended takes no place."""
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
        """Stop counting deleted pods whose nodes do not answer. Wake runs whose turn it is, in case a wake was lost."""
        now = self._clock()
        for uid in [uid for uid, at in self._leaving.items() if at <= now]:
            self._write_off(uid)
            self._pods[uid] = _NOT  # until the pod is gone
        self._offer()

    def _write_off(self, uid: str) -> bool:
        """Stop counting a pod. Return whether it was counted."""
        self._leaving.pop(uid, None)
        counted = self._pods.pop(uid, _NOT)
        self._metrics.step_pods(len(self._pods))
        if counted != _NOT:
            self._take(counted, -1)
        return counted != _NOT

    # -- what a visit asks ------------------------------------------------------------------------------------------

    def admit(self, run: RunView, starts: Sequence[Start]) -> tuple[Sequence[Start], str]:
        """Take places for a run's pods. Return the pods that have one, and why the others wait ("" if none does)."""
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
        """Update the places of a run after a visit. Pods whose creation had no answer (``expected``) keep their places.

        ``waits``: whether the run stays in line.
        """
        reserved = self._reserved.get(ref)
        waited = ref in self._wants
        if reserved is not None:
            waited |= self._release(ref, reserved.keys() - expected)
            if not reserved:
                del self._reserved[ref]
        if not waits and ref in self._wants:
            self._line_up(ref, self._wants[ref][0], 0)
        if waited:  # it may have given places back, or wants fewer: others may get them
            self._offer()

    def rest(self) -> None:
        """Clear the line and the reserved places, because another replica leads. Pods are still counted."""
        for ref, keys in list(self._reserved.items()):
            self._release(ref, set(keys))
        self._reserved.clear()
        for ref, (place, _) in list(self._wants.items()):
            self._line_up(ref, place, 0)

    # -- the line ---------------------------------------------------------------------------------------------------

    def _line_up(self, ref: RunRef, place: _Place, count: int) -> None:
        """Let a run wait for ``count`` pods, instead of what it waited for before; 0: it leaves the line.

        A namespace keeps its turn as long as a run of it is in line afterwards.
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
        """How many places a run may take: those granted to its namespace, less those for runs ahead of it."""
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
        """Queue a visit to each run that may have a place."""
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
            why = f"the namespace has {most} step pods, as many as it may have at once (steps.maxPodsPerNamespace)"
        elif whole is not None and sum(map(sum, self._used.values())) >= whole:
            why = f"the cluster has {whole} step pods, as many as it may have at once (steps.maxPods)"
        else:
            why = "the free places are for runs that have waited longer"
        others = {0: "no run", 1: "1 run"}.get(ahead, f"{ahead} runs")
        return f"{why}; {others} of the namespace ahead of this one"

    # -- counting ---------------------------------------------------------------------------------------------------

    def _release(self, ref: RunRef, keys: Set[StepKey]) -> bool:
        """Give back the reserved places of these pods. Return whether there were any."""
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
