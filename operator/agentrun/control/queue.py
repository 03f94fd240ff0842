"""The work queue. It holds a key once, however often the key was added, and gives it to one worker at a time. Each key
may have one time at which it is due again. One timer serves all keys.

The contract is that of client-go's workqueue (https://pkg.go.dev/k8s.io/client-go/util/workqueue), with three more
rules, so that no tenant waits for another one's load:

1. Namespaces take turns. A namespace with 5,000 keys has the same turn as one with a single key.
2. Keys that are due (by a timer, or an event about a known run) go before first looks at runs, of which there are many
   after a change of leader. Nevertheless, one turn in ``FIRST_LOOK_EVERY`` is a first look.
3. A namespace gets another worker only while it holds fewer than ``SHARE`` times the free workers (dynamic thresholds,
   https://doi.org/10.1109/90.664262). So some workers stay free for other namespaces, however slow the visits of one
   are. A namespace alone may hold two thirds of the workers.

The content of the queue can be lost: a new leader adds every key again.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from agentrun.observe.metrics import Metrics

K = TypeVar("K", bound=Hashable)

BACKOFF_FIRST = 0.5
BACKOFF_MAX = 30.0

FIRST_LOOK_EVERY = 8
"""One of this many keys taken is a first look, if any waits, however many keys are due."""

SHARE = 2
"""A namespace may hold this many times the free workers."""


class _Added(NamedTuple):
    at: float
    first_look: bool


class _Lane(Generic[K]):
    """Waiting keys, in order of arrival within a namespace. The namespaces take turns."""

    def __init__(self) -> None:
        self._turns: OrderedDict[Hashable, OrderedDict[K, None]] = OrderedDict()

    def put(self, space: Hashable, key: K) -> None:
        self._turns.setdefault(space, OrderedDict())[key] = None

    def drop(self, space: Hashable, key: K) -> None:
        keys = self._turns[space]
        del keys[key]
        if not keys:
            del self._turns[space]

    def take(self, has_room: Callable[[Hashable], bool]) -> K | None:
        """Take the oldest key of the first namespace that has room. That namespace then goes to the end of the turns.

        The loop skips few namespaces: each one without room holds a worker.
        """
        for space, keys in self._turns.items():
            if has_room(space):
                key, _ = keys.popitem(last=False)
                if keys:
                    self._turns.move_to_end(space)
                else:
                    del self._turns[space]
                return key
        return None

    def clear(self) -> None:
        self._turns.clear()


class WorkQueue(Generic[K]):
    """For one event loop, not for threads. ``space``: the namespace of a key. ``workers``: the number of workers."""

    def __init__(
        self,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        *,
        space: Callable[[K], Hashable],
        workers: int,
    ) -> None:
        self._metrics, self._clock = metrics, clock
        self._space, self._workers = space, workers
        self._lanes = {False: _Lane[K](), True: _Lane[K]()}
        """The waiting keys, by whether they wait for a first look."""
        self._waiting: Counter[Hashable] = Counter()
        """The number of waiting keys of each namespace."""
        self._depth = 0
        self._due_in_a_row = 0
        self._takers: deque[asyncio.Future[None]] = deque()
        """Workers that found nothing to take, the longest waiting first."""
        self._added: dict[K, _Added] = {}
        """The waiting keys, and those that wait again as soon as their worker is done."""
        self._working: set[K] = set()
        self._held: Counter[Hashable] = Counter()
        """The number of workers that each namespace holds."""
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        """Breaks ties between heap entries of the same time, so that keys are never compared."""
        self._failures: dict[K, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._depth

    def behind(self, key: K) -> int:
        """The number of waiting keys in the namespace of ``key``."""
        return self._waiting[self._space(key)]

    def add(self, key: K, *, first_look: bool = False) -> None:
        """Add the key. If a worker has it now, it is worked on once more. A first look that becomes due moves up."""
        known = self._added.get(key)
        if known is None:
            self._added[key] = _Added(self._clock(), first_look)
            if key not in self._working:
                self._put(key, first_look)
            self._metrics.queued(self._depth)
        elif known.first_look and not first_look:
            self._added[key] = known._replace(first_look=False)
            if key not in self._working:
                space = self._space(key)
                self._lanes[True].drop(space, key)
                self._lanes[False].put(space, key)

    def due(self, key: K, seconds: float | None) -> None:
        """Add the key after this many seconds, instead of at the time that was set before. None clears that time."""
        self._due.pop(key, None)
        if seconds is None:
            return
        at = self._clock() + max(0.0, seconds)
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        if len(self._heap) > 2 * len(self._due) + 64:  # replaced times stay in the heap: at most about half of it
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        if self._heap[0][2] is key:
            self._set_timer()

    def look_again(self) -> None:
        """Add every key that has a due time: the clock from which these times were computed was set."""
        for key in list(self._due):
            self.add(key, first_look=True)

    def retry(self, key: K, at_least: float | None = None) -> float:
        """Add the key after a pause that doubles with each failure in a row. Return the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = max(min(BACKOFF_FIRST * 2.0 ** min(failures, 20), BACKOFF_MAX), at_least or 0.0)
        self._metrics.retried()
        self.due(key, pause)
        return pause

    def succeeded(self, key: K) -> None:
        """Reset the failures of the key: its next failure is the first in a row."""
        self._failures.pop(key, None)

    def forget(self, key: K) -> None:
        """Drop the due time and the failures of a key that is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for the key whose turn it is and take it; ``done`` gives it back. A cancelled call takes no key."""
        while (key := self._take()) is None:
            taker = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except BaseException:
                taker.cancel()
                if not taker.cancelled():
                    self._wake()  # another worker takes the key that this one was woken for
                raise
        return key

    def done(self, key: K) -> None:
        """Give the key back. If it was added meanwhile, it waits again."""
        self._working.discard(key)
        space = self._space(key)
        self._held[space] -= 1
        if not self._held[space]:
            del self._held[space]
        if key in self._added:
            self._put(key, self._added[key].first_look)
        elif self._depth:
            self._wake()  # a namespace that held its share may have room now

    def clear(self) -> None:
        """Forget everything except the keys that workers have now: another replica leads."""
        for lane in self._lanes.values():
            lane.clear()
        self._waiting.clear()
        self._depth = 0
        self._added.clear()
        self._due.clear()
        self._heap.clear()
        self._failures.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, key: K, first_look: bool) -> None:
        space = self._space(key)
        self._lanes[first_look].put(space, key)
        self._waiting[space] += 1
        self._depth += 1
        self._wake()

    def _take(self) -> K | None:
        if not self._depth:
            return None
        looks_first = self._due_in_a_row + 1 >= FIRST_LOOK_EVERY
        for first_look in (looks_first, not looks_first):
            key = self._lanes[first_look].take(self._has_room)
            if key is not None:
                break
        else:
            return None
        self._due_in_a_row = 0 if first_look else min(self._due_in_a_row + 1, FIRST_LOOK_EVERY)
        space = self._space(key)
        self._waiting[space] -= 1
        if not self._waiting[space]:
            del self._waiting[space]
        self._depth -= 1
        self._working.add(key)
        self._held[space] += 1
        self._metrics.taken(self._clock() - self._added.pop(key).at, self._depth)
        return key

    def _has_room(self, space: Hashable) -> bool:
        free = self._workers - len(self._working)
        return self._held[space] < SHARE * free

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return

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
            if self._due.get(key) == at:  # else this time was replaced
                del self._due[key]
                self.add(key)
        self._set_timer()
