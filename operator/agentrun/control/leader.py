"""Leader election: of several operators, the one that holds a Lease (coordination.k8s.io/v1) works.

The rules. Every process reads only its own monotonic clock, so that the clocks of two nodes are never compared:

1. A leader counts from the moment it *sent* the last renewal that was answered with success. ``GIVE_UP`` seconds after
   that it does not lead any more, whatever has happened since. A process that was stopped and wakes up finds out at
   once, because ``check`` looks at the clock and at nothing else.
2. Another process takes over when it has seen the Lease unchanged (by its resourceVersion) for ``DURATION`` seconds.
   It counts from the moment it first *saw* the Lease so, which cannot be before rule 1 began to count.
3. Every write names the resourceVersion that it builds on. So if two processes take over, one succeeds, and a renewal
   that was delayed on its way changes nothing.

``DURATION - GIVE_UP`` leaves time for the last write in flight, and for clocks that run at different speeds.

Rule 2 has one exception: a process that finds no Lease at its first look creates one and leads. So if a person deletes
the Lease and starts another operator before the leader's next renewal creates it again, there are two leaders: for two
seconds, or for ``GIVE_UP`` if the old one cannot reach the API server. Even then the store's conditional writes and the
names of the pods keep them from doing anything twice.
https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from agentrun.api.canonical import timestamp
from agentrun.kube.errors import AlreadyExists, ClusterError, Conflict, NotFound

DURATION: Final = 15.0
"""Seconds for which other processes leave an unchanged Lease alone."""

GIVE_UP: Final = 10.0
"""Seconds after its last renewal at which a leader stops leading."""

PERIOD: Final = 2.0
"""Seconds between renewals, and between a standby's looks at the Lease."""

ANSWER: Final = 3.0
"""Seconds that one request for the Lease may take."""

TOO_LATE: Final = 0.05
"""A renewal is not begun when fewer seconds than this are left."""

_log = logging.getLogger(__name__)


class NotLeader(ClusterError):
    """This process does not lead, or not any more: it may write nothing."""


@dataclass(frozen=True, slots=True)
class Held:
    """A Lease. ``version`` is its resourceVersion, "" if it does not exist yet. ``holder`` is "" if nobody holds it."""

    holder: str
    version: str = ""
    duration: float = DURATION
    transitions: int = 0
    stamp: str = ""
    """The ``renewTime``, which tells one write from another: each of our writes has its own."""


class Lease(Protocol):
    """The Lease on the API server. After a cancellation the write may have been carried out."""

    async def get(self) -> Held | None:
        """The Lease as it is now; None if there is none. Raises ClusterError."""

    async def create(self, held: Held) -> Held:
        """Create the Lease and return it. Raises AlreadyExists, ClusterError."""

    async def update(self, held: Held) -> Held:
        """Change the Lease if it still has ``held.version``, and return it. Raises Conflict, NotFound, ClusterError."""


def boot_clock() -> float:
    """Seconds on a clock that nobody sets and that runs on while the machine is suspended, if the system has one; else
    on the monotonic clock.
    """
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


class Leader:
    """One candidate. ``identity`` must be unique to this process: a container that restarts has the same pod name.

    ``on_change`` is called with True when this process begins to lead and with False when it ends, for a metric.
    """

    def __init__(
        self,
        lease: Lease,
        identity: str,
        *,
        clock: Callable[[], float] = boot_clock,
        stamp: Callable[[], str] = lambda: timestamp(time.time()),
        on_change: Callable[[bool], None] = lambda leading: None,
    ) -> None:
        self._lease = lease
        self._identity = identity
        self._clock = clock
        self._stamp = stamp
        self._on_change = on_change
        self._renewed: float | None = None
        """When the last successful renewal was sent; None if we do not lead."""
        self._seen: Held | None = None
        self._since: float | None = None
        """When ``_seen`` was first seen; None before the first look."""

    def is_leader(self) -> bool:
        """Whether this process leads at this moment."""
        return self._left() > 0

    def check(self) -> None:
        """Raise NotLeader if this process does not lead. Call it right before each write."""
        if self._left() <= 0:
            raise NotLeader(f"{self._identity} is not the leader: its Lease was last renewed too long ago, or never")

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait until this process leads, then run ``work`` as long as it does. Repeat until cancelled.

        When the Lease is lost, ``work`` is cancelled and awaited; ``check`` refuses its writes meanwhile. It should end
        soon, because the next turn begins only then. If ``work`` returns or raises by itself, this method does the same
        after it has released the Lease. NotLeader is an exception: it only shows that ``check`` noticed the loss first.
        When this method is cancelled, it cancels and awaits ``work``, then releases the Lease (within ``ANSWER``
        seconds), so that a standby takes over at its next look.
        """
        while True:
            while not await self._try(self._stand_by):  # noqa: ASYNC110  (only a request tells whether it is free)
                await asyncio.sleep(PERIOD)
            _log.info("%s is the leader", self._identity)
            self._on_change(True)
            working = asyncio.ensure_future(work())
            try:
                await self._renew_until(working)
            finally:
                held = self.is_leader()
                working.cancel()
                await asyncio.wait([working])
                self._renewed = None
                self._on_change(False)
                _log.info("%s is no longer the leader", self._identity)
                if held:
                    await self._try(self._release)
            try:
                return working.result()
            except (asyncio.CancelledError, NotLeader):
                continue  # the Lease was lost: this method cancelled the work, or the work's own check raised

    def _left(self) -> float:
        return -1.0 if self._renewed is None else self._renewed + GIVE_UP - self._clock()

    async def _renew_until(self, working: asyncio.Future[None]) -> None:
        """Return when ``working`` has ended or the Lease is lost."""
        while (left := self._left()) > TOO_LATE:
            done, _ = await asyncio.wait([working], timeout=min(PERIOD, left))
            if done:
                return
            await self._try(self._renew)

    async def _try(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """Try one request for the Lease. After a failure the next try comes with the next period."""
        left = self._left()
        try:
            async with asyncio.timeout(min(ANSWER, left) if left > 0 else ANSWER):
                return await step()
        except (ClusterError, TimeoutError) as error:
            _log.warning("cannot get or renew the Lease: %s", error or f"no answer within {ANSWER:g} s")
            return False

    async def _stand_by(self) -> bool:
        found = await self._lease.get()
        if self._since is None or found != self._seen:
            first = self._since is None
            self._seen, self._since = found, self._clock()
            if found is None and first:
                return await self._write(Held(self._identity))
        if found is None:
            expired = self._clock() - self._since >= DURATION
            return expired and await self._write(Held(self._identity))
        # A Lease with our identity: the answer to an earlier write of ours was lost, and nobody has written since.
        if found.holder in ("", self._identity) or self._clock() - self._since >= max(DURATION, found.duration):
            return await self._write(self._taken(found))
        return False

    async def _renew(self) -> bool:
        assert self._seen is not None  # our write when we began to lead
        try:
            return await self._write(self._seen)
        except Conflict:
            found = await self._lease.get()
        except NotFound:
            found = None
        if found is None:  # somebody deleted the Lease: the first process to create it leads
            return await self._write(Held(self._identity))
        self._seen, self._since = found, self._clock()
        if found.holder == self._identity:  # a renewal of ours whose answer was lost, or somebody edited the Lease
            return await self._write(found)
        self._renewed = None
        return False

    async def _release(self) -> bool:
        assert self._seen is not None
        self._seen = await self._lease.update(replace(self._seen, holder=""))
        self._since = self._clock()
        return True

    def _taken(self, found: Held) -> Held:
        changes = found.holder != self._identity
        return replace(found, holder=self._identity, duration=DURATION, transitions=found.transitions + changes)

    async def _write(self, held: Held) -> bool:
        """Write the Lease with us as its holder. We lead from the moment this was sent. Raises Conflict."""
        sent = self._clock()
        held = replace(held, stamp=self._stamp())
        try:
            found = await (self._lease.update(held) if held.version else self._lease.create(held))
        except (AlreadyExists, Conflict) as error:
            # The client sends a request again if it had no answer. If the Lease has the stamp of this write, the first
            # try succeeded. Our identity alone would not prove that: anybody may have put a label on the Lease.
            there = await self._lease.get()
            if there is None or (there.holder, there.stamp) != (held.holder, held.stamp):
                raise Conflict(str(error)) from error
            found = there
        self._seen = found
        self._since = self._renewed = sent
        return True
