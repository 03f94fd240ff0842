"""A driver that is cancelled while it acquires or renews the lease of a run: it leaves no lease behind."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable

import pytest

from agentrun.journal.paths import RunPath
from agentrun.local import lease
from agentrun.local.lease import HeldByOther, Lease, holder_of
from tests.harness.memory_store import MemoryStore

RUN = RunPath("support", "refund-4711", "c0ffee")
ELSEWHERE = json.dumps({"writer": "other", "process": {"host": "elsewhere", "boot": "other", "pid": 1, "born": 1}})


class Held(MemoryStore):
    """A store that stops the thread of one call, named by its number, before or after the call is carried out."""

    def __init__(self, number: int = 0, side: str = "") -> None:
        super().__init__()
        self.stop_at, self.count = (number, side), 0
        self.stopped, self.go_on = threading.Event(), threading.Event()

    def _call(self, side: str) -> None:
        self.count += side == "before"
        if (self.count, side) == self.stop_at:
            self.stopped.set()
            assert self.go_on.wait(20)

    def read_version(self, key: str) -> tuple[bytes, str]:
        self._call("before")
        try:
            return super().read_version(key)
        finally:
            self._call("after")

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        self._call("before")
        try:
            return super().swap(key, data, version)
        finally:
            self._call("after")


async def cancelled(work: Awaitable[None], store: Held, times: int = 1) -> None:
    """Cancel ``work`` while the store holds its call, then let the call go on."""
    task = asyncio.ensure_future(work)
    assert await asyncio.to_thread(store.stopped.wait, 20)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2], ids=["its look", "its write"])
async def test_a_driver_that_is_cancelled_as_it_acquires_leaves_no_lease(number: int, side: str, times: int) -> None:
    """The write went on in its thread, so the next driver found a lease of a driver that never drove."""
    store = Held(number, side)
    await cancelled(Lease(store, RUN, "one").acquire(print), store, times)
    assert holder_of(store, RUN) is None
    await Lease(store, RUN, "two").acquire(print)


async def test_a_driver_that_is_cancelled_as_it_waits_changes_nothing() -> None:
    store = Held()
    store.swap(RUN.lease, ELSEWHERE.encode(), None)
    waits = asyncio.Event()
    task = asyncio.ensure_future(Lease(store, RUN, "one").acquire(lambda _: waits.set()))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.read_version(RUN.lease)[0].decode() == ELSEWHERE


async def test_of_two_drivers_the_one_that_is_cancelled_leaves_the_others_lease() -> None:
    store = Held(2, "before")
    task = asyncio.ensure_future(Lease(store, RUN, "one").acquire(print))
    assert await asyncio.to_thread(store.stopped.wait, 20)
    await Lease(store, RUN, "two").acquire(print)
    await cancelled(task, store)
    with pytest.raises(HeldByOther):
        await Lease(store, RUN, "three").acquire(print)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_driver_that_is_cancelled_as_it_renews_can_free_the_lease(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``release`` named the version before the renewal, took the lease for another driver's and left it."""
    monkeypatch.setattr(lease, "LENGTH", 0.0)
    store = Held(3, side)
    held = Lease(store, RUN, "one")
    await held.acquire(print)
    await cancelled(held.keep(), store)
    await held.release()
    assert holder_of(store, RUN) is None
