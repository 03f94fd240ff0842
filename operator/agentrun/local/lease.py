"""Who drives a run: one driver at a time, and a dead one is replaced.

The lease is one object that its holder renews by compare-and-swap. On the machine of its holder, a look at the
process tells whether it lives; from elsewhere, a lease that did not change for its whole length, by the watcher's own
monotonic clock, is taken over, so no two clocks are ever compared. Losing the lease is not what keeps the contract
(the fence in each step's journal does): it keeps two drivers from fighting.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from agentrun.api.errors import AgentrunError
from agentrun.journal.layout import RunPath
from agentrun.journal.records import Damaged
from agentrun.journal.store import KeyExists, KeyMissing, Store, StoreUnavailable
from agentrun.runner.identity import surely_alive, surely_dead, this_process

LENGTH = 15.0
"""Seconds without renewal after which a driver on another machine counts as dead."""


class HeldByOther(AgentrunError):
    """Another driver has the run."""


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
        """Become the driver. ``tell`` is given a line where that takes a while. Cancellation leaves things as they are.

        Raises:
            HeldByOther: a driver that lives has the run; the message says which.
            StoreError: the store is out of reach.
            Damaged: the lease is not what a driver wrote.
        """
        seen: str | None = None
        since = 0.0
        while True:
            try:
                data, version = await asyncio.to_thread(self._store.read_version, self._run.lease)
            except KeyMissing:
                data, version = b"", None
            process = _holder(data, self._run.lease).get("process")
            if process and not surely_dead(process):
                if surely_alive(process):
                    raise HeldByOther(self._held(process))
                if version != seen:
                    if seen is not None:
                        raise HeldByOther(self._held(process))
                    seen, since = version, self._monotonic()
                    tell(f"waiting {LENGTH:.0f} s to see whether the driver on {process.get('host')} still lives")
                if self._monotonic() - since < LENGTH:
                    await asyncio.sleep(1.0)
                    continue
            try:
                self._version = await asyncio.to_thread(self._swap, version)
            except KeyExists:
                continue  # another one was faster: see who it is
            return

    def _held(self, process: dict[str, Any]) -> str:
        return (
            f"run {self._run.name} is driven by process {process.get('pid')} on {process.get('host')}; "
            f"follow it with agentrun logs {self._run.name} -f, or end that process first"
        )

    async def keep(self) -> None:
        """Renew for ever. Cancellation ends it.

        Raises:
            HeldByOther: the lease was taken: stop before the next effect.
        """
        while True:
            await asyncio.sleep(LENGTH / 3)
            try:
                self._version = await asyncio.to_thread(self._swap, self._version)
            except KeyExists as error:
                raise HeldByOther(f"another driver took run {self._run.name} over; this one stops") from error
            except StoreUnavailable:
                # Whoever takes the run over meanwhile is seen at the next try; the fence keeps the contract. How long
                # to go on without a store is the driver's to say.
                continue

    async def release(self) -> None:
        """Give the run free for the next driver. The lease of somebody else is left alone."""
        if self._version is None:
            return
        try:
            await asyncio.to_thread(self._store.swap, self._run.lease, b"{}", self._version)
        except KeyExists:
            pass  # it was taken over: it is no longer ours to give
        except StoreUnavailable:
            pass  # this process is about to end, and then whoever wants the run sees that
        self._version = None

    def _swap(self, version: str | None) -> str:
        self._renewals += 1
        data = json.dumps(self._holder | {"renewals": self._renewals}).encode()
        try:
            return self._store.swap(self._run.lease, data, version)
        except KeyExists:
            # Our own write whose answer was lost, now or at the try before, looks like another's: its writer tells.
            now, found = self._store.read_version(self._run.lease)
            if _holder(now, self._run.lease).get("writer") == self._holder["writer"]:
                return found
            raise


def is_driven(store: Store, run: RunPath) -> bool:
    """Whether a driver seems to have the run: one that lives here, or one elsewhere that has not let go.

    Raises:
        StoreError: the store is out of reach.
        Damaged: the lease is not what a driver wrote.
    """
    process = holder_of(store, run)
    return process is not None and not surely_dead(process)


def holder_of(store: Store, run: RunPath) -> dict[str, Any] | None:
    """The process that the lease names, dead or alive; None where nobody has it. Raises as ``is_driven`` does."""
    try:
        data, _ = store.read_version(run.lease)
    except KeyMissing:
        return None
    return _holder(data, run.lease).get("process")


def _holder(data: bytes, key: str) -> dict[str, Any]:
    """What a lease says; nothing where ``data`` is empty. Raises Damaged."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("process", {}), dict):
        raise Damaged(f"{key}: this is not a lease; the object was damaged: delete it if nobody drives the run")
    return found
