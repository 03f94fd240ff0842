"""Reads side by side: how many threads there are at the most, however reads nest, and whose calls wait for whose."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentrun.control.async_journal import THREADS, THREADS_PER_NAMESPACE, Journal
from agentrun.journal.paths import RunPath
from agentrun.observe.metrics import Metrics
from agentrun.store import side_by_side
from agentrun.store.s3 import CONNECTIONS
from agentrun.store.side_by_side import ALLOWANCE, READERS, each
from tests.harness.memory_store import MemoryStore


def test_reads_that_nest_share_one_allowance_of_threads() -> None:
    """A new leader made 16 threads for a run, 16 for each step of it and 16 for each call: connections ran out."""
    before = threading.active_count()
    most = 0

    def read(number: int) -> int:
        nonlocal most
        most = max(most, threading.active_count())
        return number

    def nested(number: int) -> list[int]:
        return each(read, range(number, number + 20), remote=True)

    def run(number: int) -> list[list[int]]:
        return each(nested, range(20), remote=True)

    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(run, range(8)))
    assert found == [[list(range(n, n + 20)) for n in range(20)]] * 8
    assert most <= before + 8 + ALLOWANCE
    assert CONNECTIONS >= ALLOWANCE + THREADS, "one connection more than are kept is closed again, and warned of"


def test_the_allowance_is_given_back_whatever_happens() -> None:
    def fail(number: int) -> int:
        raise ValueError(number)

    for _ in range(ALLOWANCE // READERS + 2):
        with pytest.raises(ValueError, match="0"):
            each(fail, range(READERS), remote=True)
    held = [side_by_side._allowance.acquire(blocking=False) for _ in range(ALLOWANCE)]
    assert all(held)
    try:
        assert each(lambda n: (n, threading.current_thread()), range(5), remote=True) == [
            (n, threading.current_thread()) for n in range(5)
        ], "with no thread left, the caller reads by itself"
    finally:
        side_by_side._allowance.release(ALLOWANCE)


@pytest.mark.parametrize(("count", "remote"), [(20, False), (2, True), (0, True)])
def test_what_is_near_or_little_takes_no_threads(count: int, remote: bool) -> None:
    assert (
        each(lambda _: threading.current_thread(), range(count), remote=remote) == [threading.current_thread()] * count
    )


async def test_a_namespace_whose_journals_take_long_leaves_threads_to_the_others() -> None:
    going, gate = threading.Semaphore(0), threading.Event()

    class Slow(MemoryStore):
        def get(self, key: str) -> bytes:
            if key.startswith("slow/"):
                going.release()
                gate.wait(30)
            return super().get(key)

    store = Slow()
    journal = Journal(store, Metrics(), lambda: None)
    slow = [asyncio.ensure_future(journal.read_manifest(RunPath("slow", f"r{n}", "u"))) for n in range(2 * THREADS)]
    try:
        for _ in range(THREADS_PER_NAMESPACE):
            await asyncio.to_thread(going.acquire)
        assert await asyncio.wait_for(journal.read_manifest(RunPath("quick", "r", "u")), 30) is None
        assert not any(call.done() for call in slow) and not going.acquire(blocking=False)
    finally:
        gate.set()
        assert await asyncio.gather(*slow) == [None] * len(slow)
        journal.close()
    assert not journal._gates, "nothing is kept of a namespace without calls"
