"""A driver that is cancelled while it acquires or renews the lease of a run: it leaves no lease behind."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentrun.journal.paths import RunPath
from agentrun.local import lease
from agentrun.local.lease import LENGTH, HeldByOther, HolderWatch, Lease, holder_of
from agentrun.runner.process_id import this_process
from agentrun.store.folder import FolderStore
from agentrun.store.protocol import KeyExists, Store
from agentrun.store.s3 import S3Store
from tests.harness.memory_store import MemoryStore
from tests.servers.versitygw import S3Server

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


# -- the same in a folder and in a bucket ------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "s3"])
def stores(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server
) -> Callable[[], Store]:
    """Opens the same store anew, as each driver and each watcher does in a process of its own."""
    if request.param == "folder":
        return lambda: FolderStore(tmp_path / "store")
    for name, value in s3_server.environment(tmp_path / "none").items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3_server.new_bucket()}/{uuid.uuid4().hex}"
    return lambda: S3Store(url)


DEAD_PLACES: dict[str, dict[str, Any]] = {
    "another boot": {"place": "11111111-2222-3333-4444-555555555555 pid:[4026531836]"},
    "another host": {"host": "another-machine"},
    "another container": {"place": "pid:[1]"},
    "no place": {"place": ""},
    "a killed process": {"pid": 2**22 + 1},
}


@dataclass
class Elsewhere:
    """The driver at a place that a test names, and the clock of who watches its lease."""

    store: Store
    place: dict[str, Any]
    now: float = 0.0
    version: str | None = None
    renewals: int = 0

    def renew(self) -> None:
        self.renewals += 1
        process = this_process() | self.place
        data = json.dumps({"writer": "elsewhere", "process": process, "renewals": self.renewals}).encode()
        self.version = self.store.swap(RUN.lease, data, self.version)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("place", DEAD_PLACES.values(), ids=DEAD_PLACES)
async def test_a_run_is_taken_over_from_a_driver_that_died_wherever_it_was(
    stores: Callable[[], Store], place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Elsewhere(stores(), place)
    driver.renew()
    seen_here = "pid" in place
    assert HolderWatch(stores(), RUN, driver.clock).decide(lambda _: None, driver.sleep) is False
    assert driver.now == (0.0 if seen_here else LENGTH)

    async def no_time(seconds: float) -> None:
        driver.now += seconds

    said: list[str] = []
    monkeypatch.setattr(lease, "LOOK", LENGTH / 3)
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", no_time)
        ours = Lease(stores(), RUN, "ours", driver.clock)
        await ours.acquire(said.append)
    assert len(said) == (0 if seen_here else 1)
    assert holder_of(stores(), RUN) == this_process()
    with pytest.raises(HeldByOther, match=f"process {this_process()['pid']} on"):
        await Lease(stores(), RUN, "third").acquire(print)
    with pytest.raises(KeyExists):
        driver.renew()  # it was only asleep: it finds the lease of another
    await ours.release()
    assert holder_of(stores(), RUN) is None


@pytest.mark.parametrize("place", [p for p in DEAD_PLACES.values() if "pid" not in p])
async def test_a_driver_that_renews_elsewhere_is_left_alone(stores: Callable[[], Store], place: dict[str, Any]) -> None:
    driver = Elsewhere(stores(), place)
    driver.renew()
    watch = HolderWatch(stores(), RUN, driver.clock)
    assert watch.look() == "unknown"
    for _ in range(3):
        driver.sleep(LENGTH - 1)
        driver.renew()
        assert watch.look() == "alive"
    before = stores().read_version(RUN.lease)
    with pytest.raises(HeldByOther):
        await _acquired_while(driver, Lease(stores(), RUN, "ours", driver.clock))
    assert stores().read_version(RUN.lease)[0] != before[0]  # the driver's own renewal
    assert json.loads(stores().get(RUN.lease))["writer"] == "elsewhere"


async def _acquired_while(driver: Elsewhere, ours: Lease) -> None:
    """Acquire, while the driver renews as soon as it is watched."""
    await ours.acquire(lambda _: driver.renew())


async def test_a_driver_that_is_cancelled_leaves_no_lease_in_any_store(stores: Callable[[], Store]) -> None:
    store = stores()
    task = asyncio.ensure_future(Lease(store, RUN, "one").acquire(print))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert holder_of(stores(), RUN) is None
    held = Lease(stores(), RUN, "two")
    await held.acquire(print)
    keeping = asyncio.ensure_future(held.keep())
    await asyncio.sleep(0)
    keeping.cancel()
    await held.release()
    assert holder_of(stores(), RUN) is None
    await Lease(stores(), RUN, "three").acquire(print)
