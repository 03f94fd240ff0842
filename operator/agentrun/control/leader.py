"""Which of several operators works: the one that holds a Lease (coordination.k8s.io/v1).

The rules, with every clock a process's own monotonic one, so that the clocks of two nodes are never compared:

1. A leader counts from the moment it *sent* the last renewal that was answered with success. ``GIVE_UP`` seconds after
   that it is none any more, whatever has happened since: a process that was stopped and wakes up finds out at once,
   since ``check`` looks at the clock and at nothing else.
2. Another process takes over when it has seen the Lease unchanged (by its resourceVersion) for ``DURATION`` seconds,
   counted from when it *saw* it so, which cannot be before rule 1 began to count.
3. Every write names the resourceVersion that it builds on, so of two that take over one succeeds, and a renewal that
   was held up on its way changes nothing.

``DURATION - GIVE_UP`` is for a last write in flight to end, and for clocks that do not all run at one speed.

Rule 2 has one exception: where this process has never seen a Lease, it makes one and leads. So a person who deletes
the Lease and starts another operator before the leader's next renewal has made it anew has two: for two seconds, or
for ``GIVE_UP`` where the leader cannot reach the API server. The store's conditional writes and the pods' names keep
their works apart even then.
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
"""Seconds for which the others leave a Lease alone."""

GIVE_UP: Final = 10.0
"""Seconds after which a leader that could not renew is none."""

PERIOD: Final = 2.0
"""Seconds between renewals, and between a standby's looks."""

ANSWER: Final = 3.0
"""Seconds that one request for the Lease may take."""

TOO_LATE: Final = 0.05
"""With fewer seconds than this left, a renewal is not begun."""

_log = logging.getLogger(__name__)


class NotLeader(ClusterError):
    """We do not lead, or no longer: nothing may be written."""


@dataclass(frozen=True, slots=True)
class Held:
    """A Lease. ``version`` is its resourceVersion: "" of one that is not there yet; ``holder`` "": nobody's."""

    holder: str
    version: str = ""
    duration: float = DURATION
    transitions: int = 0
    stamp: str = ""
    """Says by which write it is as it is; ours are each another one."""


class Lease(Protocol):
    """The Lease on the API server. Cancellation leaves a write that may have been done."""

    async def get(self) -> Held | None:
        """As it is now; None: there is none. Raises ClusterError."""

    async def create(self, held: Held) -> Held:
        """Make it; as it is then. Raises AlreadyExists, ClusterError."""

    async def update(self, held: Held) -> Held:
        """Change it if it still has ``held.version``; as it is then. Raises Conflict, NotFound, ClusterError."""


def boot_clock() -> float:
    """Seconds on a clock that no one sets and that counts while the machine is suspended, where there is such a one."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


class Leader:
    """One candidate. ``identity`` must be of this very process: a container that restarts has its pod's name again.

    ``on_change`` hears True when it begins to lead and False when it ends, for a metric.
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
        """When the renewal was sent on which we lead; None: we do not."""
        self._seen: Held | None = None
        self._since: float | None = None
        """When ``_seen`` was first seen as it is; None: nothing was seen yet."""

    def is_leader(self) -> bool:
        """Whether we lead at this moment."""
        return self._left() > 0

    def check(self) -> None:
        """To be called right before each write. Raises NotLeader."""
        if self._left() <= 0:
            raise NotLeader(f"{self._identity} does not lead: its Lease was last renewed too long ago, or never")

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait until we lead, then do ``work`` for as long as we do; again and again, until cancelled.

        ``work`` is cancelled when the Lease is lost, and awaited: the next time begins after the last has ended, so it
        should end soon; its writes are refused by ``check`` meanwhile. If it returns or raises by itself, so does this,
        once the Lease is released; NotLeader alone is no error, it only came first. When this is cancelled, ``work`` is
        cancelled and awaited, then the Lease is released (at most ``ANSWER`` seconds), so that a standby takes over at
        its next look.
        """
        while True:
            while not await self._try(self._stand_by):  # noqa: ASYNC110  (only a request tells whether it is free)
                await asyncio.sleep(PERIOD)
            _log.info("%s leads", self._identity)
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
                _log.info("%s leads no longer", self._identity)
                if held:
                    await self._try(self._release)
            try:
                return working.result()
            except (asyncio.CancelledError, NotLeader):
                continue  # the Lease was lost, and we said so or its own check did

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
        """One step towards the Lease; one that fails is tried again at the next period."""
        left = self._left()
        try:
            async with asyncio.timeout(min(ANSWER, left) if left > 0 else ANSWER):
                return await step()
        except (ClusterError, TimeoutError) as error:
            _log.warning("the Lease could not be had: %s", error or f"no answer within {ANSWER:g} s")
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
        # ours without our knowing: the answer to an earlier write was lost, and nobody has written since
        if found.holder in ("", self._identity) or self._clock() - self._since >= max(DURATION, found.duration):
            return await self._write(self._taken(found))
        return False

    async def _renew(self) -> bool:
        assert self._seen is not None  # what we wrote when we began to lead
        try:
            return await self._write(self._seen)
        except Conflict:
            found = await self._lease.get()
        except NotFound:
            found = None
        if found is None:  # somebody deleted it: whoever makes it first leads
            return await self._write(Held(self._identity))
        self._seen, self._since = found, self._clock()
        if found.holder == self._identity:  # an earlier renewal of ours whose answer was lost, or another's edit of it
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
        """Hold the Lease; we lead from when this was sent. Raises Conflict."""
        sent = self._clock()
        held = replace(held, stamp=self._stamp())
        try:
            found = await (self._lease.update(held) if held.version else self._lease.create(held))
        except (AlreadyExists, Conflict) as error:
            # The client sends again what had no answer. If the Lease bears this very write's stamp, its first try did
            # it; that it has changed and is ours says nothing: anybody may have put a label on it.
            there = await self._lease.get()
            if there is None or (there.holder, there.stamp) != (held.holder, held.stamp):
                raise Conflict(str(error)) from error
            found = there
        self._seen = found
        self._since = self._renewed = sent
        return True
