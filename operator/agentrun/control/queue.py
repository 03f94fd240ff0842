"""The work queue: a key is in it once however often it was added, one worker has it at a time, and each key may have
one time at which it is due again. One timer serves all of them.

The contract is that of client-go's workqueue (https://pkg.go.dev/k8s.io/client-go/util/workqueue). What is in it can
be lost: a new leader adds every key.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from agentrun.observe.metrics import Metrics

K = TypeVar("K", bound=Hashable)

BACKOFF_FIRST = 0.5
BACKOFF_MAX = 30.0


class WorkQueue(Generic[K]):
    """For one event loop; not for threads."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._waiting: asyncio.Queue[K] = asyncio.Queue()  # wakes one worker for each key, not all of them
        self._added: dict[K, float] = {}
        """When each key in the queue, or to be added again after its worker is done, was added."""
        self._working: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        """Tells entries of the same time apart, so that keys are never compared."""
        self._failures: dict[K, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._waiting.qsize()

    def add(self, key: K) -> None:
        """Have the key worked on, once more if a worker has it now."""
        if key in self._added:
            return
        self._added[key] = self._clock()
        if key not in self._working:
            self._waiting.put_nowait(key)
        self._metrics.queued(self._waiting.qsize())

    def due(self, key: K, seconds: float | None) -> None:
        """Add the key after so many seconds; in place of any time that was set before. None: at no time."""
        self._due.pop(key, None)
        if seconds is None:
            return
        at = self._clock() + max(0.0, seconds)
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        if len(self._heap) > 2 * len(self._due) + 64:  # times that were replaced stay in the heap: no more than half
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        if self._heap[0][2] is key:
            self._set_timer()

    def retry(self, key: K, at_least: float | None = None) -> float:
        """Add the key after a pause that doubles with each failure in a row; the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = max(min(BACKOFF_FIRST * 2.0 ** min(failures, 20), BACKOFF_MAX), at_least or 0.0)
        self._metrics.retried()
        self.due(key, pause)
        return pause

    def succeeded(self, key: K) -> None:
        """The next failure of the key is the first in a row."""
        self._failures.pop(key, None)

    def forget(self, key: K) -> None:
        """The key is no more: no time and no failures are kept of it."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The key that waits the longest; ``done`` gives it back. Cancellation takes none."""
        key = await self._waiting.get()
        now = self._clock()
        self._metrics.taken(now - self._added.pop(key), self._waiting.qsize())
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker is finished with the key; it is taken again if it was added meanwhile."""
        self._working.discard(key)
        if key in self._added:
            self._waiting.put_nowait(key)

    def clear(self) -> None:
        """Forget everything but what workers have now: another replica leads."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._added.clear()
        self._due.clear()
        self._heap.clear()
        self._failures.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap:
            pause = max(0.0, self._heap[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(pause, self._ring)

    def _ring(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:  # else another time was set since
                del self._due[key]
                self.add(key)
        self._set_timer()
