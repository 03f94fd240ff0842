"""The lease of a run: it has one driver at a time, and a dead driver is replaced.

The lease is one object, which its holder renews by compare-and-swap. On the holder's machine, its process shows
whether it lives. From elsewhere (another machine, or the same one after a reboot), a lease is taken over if it does not
change for its whole length, by the watcher's own monotonic clock. So no two clocks are ever compared. The lease only
keeps two drivers from fighting. The contract does not depend on it: the fence in each step's log keeps that.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from agentrun.api.errors import AgentrunError
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Damaged
from agentrun.runner.process_id import Life, life_of, this_process
from agentrun.store.protocol import KeyExists, KeyMissing, Store, StoreUnavailable

LENGTH = 15.0
"""Seconds without renewal after which a driver on another machine counts as dead."""

LOOK = 1.0
"""Seconds between two reads of a lease whose holder's process cannot be seen from here."""


class HeldByOther(AgentrunError):
    """Another driver holds the run's lease."""


class HolderWatch:
    """Tells, from repeated reads of a lease, whether its holder lives. A new ``HolderWatch`` has to watch anew."""

    def __init__(self, store: Store, run: RunPath, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store, self._run, self._monotonic = store, run, monotonic
        self.process: dict[str, Any] | None = None
        """The holder at the last look; None if nobody held the lease."""
        self.version: str | None = None
        """The version of the lease at the last look, for ``swap``; None if there was no lease."""
        self._since = 0.0

    def look(self) -> Life:
        """Whether the holder lives. ``dead``: nobody holds the lease, the holder's process has ended, or the lease was
        not renewed for ``LENGTH``. ``unknown``: look again.

        Raises:
            StoreError: the store is out of reach.
            Damaged: the lease is not what a driver wrote.
        """
        before, seen_before = self.version, self.process is not None
        try:
            data, self.version = self._store.read_version(self._run.lease)
        except KeyMissing:
            data, self.version = b"", None
        self.process = _holder(data, self._run.lease).get("process") or None
        if self.process is None:
            return "dead"
        life = life_of(self.process)
        if life != "unknown":
            return life
        if self.version != before:
            self._since = self._monotonic()
            return "alive" if seen_before else "unknown"
        return "dead" if self._monotonic() - self._since >= LENGTH else "unknown"

    def decide(self, tell: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> bool:
        """Wait until it is known whether the holder lives, and return that. It takes ``LENGTH`` at most.

        ``tell`` is called with a line before the wait, if there is one. Raises the errors of ``look``.
        """
        told = False
        while (life := self.look()) == "unknown":
            if not told:
                tell(self.waiting)
                told = True
            sleep(LOOK)
        return life == "alive"

    def clear(self) -> None:
        """Free the lease of a holder that ``look`` found dead, so that the next driver need not watch it again.

        Does nothing if the lease was renewed or taken since. Raises StoreError.
        """
        if self.version is None or self.process is None:
            return
        try:
            self.version = self._store.swap(self._run.lease, b"{}", self.version)
        except KeyExists:
            return  # the lease has a living holder by now: the next driver sees it

    @property
    def waiting(self) -> str:
        """The line that says why the caller waits for ``look``."""
        host = self.process.get("host") if self.process else None
        return f"waiting {LENGTH:.0f} s to see whether the driver on {host} is still alive"


class Lease:
    """The lease of one run, from ``acquire`` to ``release``."""

    def __init__(
        self, store: Store, run: RunPath, writer: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._run, self._monotonic = store, run, monotonic
        self._holder = {"writer": writer, "process": this_process()}
        self._renewals = 0
        self._version: str | None = None

    async def acquire(self, tell: Callable[[str], None]) -> None:
        """Become the driver. ``tell`` is called with a line if that takes a while. Cancellation leaves no lease behind:
        during the write, it waits for the write and frees the lease again.

        Raises:
            HeldByOther: a living driver holds the lease; the message names it.
            StoreError: the store is out of reach.
            Damaged: the lease is not what a driver wrote.
        """
        watch = HolderWatch(self._store, self._run, self._monotonic)
        told = False
        while True:
            life = await asyncio.to_thread(watch.look)
            if life == "alive":
                raise HeldByOther(self._held(watch.process or {}))
            if life == "unknown":
                if not told:
                    tell(watch.waiting)
                    told = True
                await asyncio.sleep(LOOK)
                continue
            try:
                await self._write(watch.version)
            except KeyExists:
                continue  # another driver was faster: read whose lease it is
            except asyncio.CancelledError:
                await self.release()
                raise
            return

    def _held(self, process: dict[str, Any]) -> str:
        return (
            f"run {self._run.name} is driven by process {process.get('pid')} on {process.get('host')}; "
            f"follow it with agentrun logs {self._run.name} -f, or end that process first"
        )

    async def keep(self) -> None:
        """Renew the lease until cancelled. Cancellation waits for the renewal in hand: it would make ``release`` take
        the lease for another driver's.

        Raises:
            HeldByOther: another driver took the lease: stop before the next effect.
        """
        while True:
            await asyncio.sleep(LENGTH / 3)
            try:
                await self._write(self._version)
            except KeyExists as error:
                raise HeldByOther(f"another driver took run {self._run.name} over; this one stops") from error
            except StoreUnavailable:
                # The next try finds a driver that took the run over meanwhile; the fence keeps the contract until then.
                # The driver, not the lease, decides how long to go on without a store.
                continue

    async def release(self) -> None:
        """Release the lease. A lease that another driver holds by now is left alone."""
        if self._version is None:
            return
        try:
            await asyncio.to_thread(self._store.swap, self._run.lease, b"{}", self._version)
        except KeyExists:
            pass  # another driver took the lease over
        except StoreUnavailable:
            pass  # this process ends soon, and the next driver sees that it has ended
        self._version = None

    async def _write(self, version: str | None) -> None:
        """Write the lease over ``version``. Cancellation waits for the write, whose version ``release`` needs.

        Raises:
            KeyExists: another driver has written the lease.
            StoreUnavailable: the lease may be written or not.
        """
        write = asyncio.get_running_loop().run_in_executor(None, self._swap, version)
        cancelled = False
        while not write.done():
            try:
                await asyncio.wait([write])
            except asyncio.CancelledError:  # it can come more than once
                cancelled = True
        if write.exception() is None:
            self._version = write.result()
        if cancelled:
            raise asyncio.CancelledError
        write.result()

    def _swap(self, version: str | None) -> str:
        self._renewals += 1
        data = json.dumps(self._holder | {"renewals": self._renewals}).encode()
        try:
            return self._store.swap(self._run.lease, data, version)
        except KeyExists:
            # Our own write whose answer was lost, now or at the try before, looks like another's. Compare the writer.
            now, found = self._store.read_version(self._run.lease)
            if _holder(now, self._run.lease).get("writer") == self._holder["writer"]:
                return found
            raise


def holder_of(store: Store, run: RunPath) -> dict[str, Any] | None:
    """The process that the lease names, dead or alive; None if nobody holds the lease.

    Raises:
        StoreError: the store is out of reach.
        Damaged: the lease is not what a driver wrote.
    """
    try:
        data, _ = store.read_version(run.lease)
    except KeyMissing:
        return None
    return _holder(data, run.lease).get("process")


def _holder(data: bytes, key: str) -> dict[str, Any]:
    """The content of a lease; empty if ``data`` is empty. Raises Damaged."""
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("process", {}), dict):
        raise Damaged(f"{key}: this is not a lease; the object was damaged: delete it if no driver is running")
    return found
