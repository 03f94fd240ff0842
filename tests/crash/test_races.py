"""Windows too narrow to be hit from outside, held open."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from agentrun.api.keys import StepKey
from agentrun.attempt.exit_codes import Exit
from agentrun.journal.log import read_step
from agentrun.journal.paths import RunPath
from agentrun.local import lease
from agentrun.local.lease import HeldByOther, Lease
from agentrun.runner.attempt import Attempt, run_attempt
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.ports import Ports
from agentrun.store.folder import FolderStore
from agentrun.store.protocol import StoreUnavailable
from tests.crash.harness import World, start_spec
from tests.crash.workflows import Payment
from tests.crash.zygote import Zygote

RUN = RunPath("default", "struck", "0" * 32)


class SlowClose(FolderStore):
    """A store whose write of ``closed`` takes until it is let go on."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.remote = True  # so that its writes are waited for in a thread
        self.begun, self.go_on = threading.Event(), threading.Event()

    def create(self, key: str, data: bytes) -> None:
        if b'"kind":"closed"' in data:
            self.begun.set()
            assert self.go_on.wait(60)
        super().create(key, data)


async def test_nothing_follows_closed_when_the_grace_period_ends_during_its_commit(
    tmp_path: Path, nursery: Zygote
) -> None:
    with World(tmp_path / "world", nursery, Payment) as world:
        store = SlowClose(world.store_url)
        ports = Ports(open_store=lambda _: store)

        async def work(_: Attempt) -> dict[str, object]:
            return {"output": "done"}

        running = asyncio.ensure_future(run_attempt(start_spec(world, 1), ports, work, Mailbox()))
        await asyncio.to_thread(store.begun.wait, 60)
        running.cancel()
        await asyncio.sleep(0)  # the cancellation arrives; the write goes on
        store.go_on.set()
        code, fact = await running
        ports.progress.close()
        assert code == Exit.CLOSED
        assert fact.outcome is not None
        kinds = [r.kind for r in read_step(world.store, world.run, StepKey("pay"))]
        assert kinds == ["opened", "closed"]


class LosesAnswers(FolderStore):
    """A store that writes the swaps of these numbers (from 1) and loses their answers, or does not even write."""

    def __init__(self, root: Path, *, lost: set[int], refused: set[int] | None = None) -> None:
        super().__init__(root)
        self.lost, self.refused, self.swaps = lost, refused or set(), 0
        self.enough = threading.Event()

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        self.swaps += 1
        if self.swaps > 4:
            self.enough.set()
        if self.swaps in self.refused:
            raise StoreUnavailable("no answer, and nothing written")
        found = super().swap(key, data, version)
        if self.swaps in self.lost:
            raise StoreUnavailable("written, and no answer")
        return found


@pytest.mark.parametrize("written", [True, False])
async def test_one_failed_renewal_does_not_end_the_driver(
    written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LENGTH", 0.3)
    store = LosesAnswers(tmp_path, lost={3} if written else set(), refused=set() if written else {3})
    # Time stands still, so that however slow the machine is, the lease does not run out.
    held = Lease(store, RUN, "one", monotonic=lambda: 0.0)
    await held.acquire(lambda _: None)
    keeping = asyncio.ensure_future(held.keep())
    assert await asyncio.to_thread(store.enough.wait, 60)
    assert not keeping.done()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_lease_that_another_one_took_ends_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LENGTH", 0.03)
    store = FolderStore(tmp_path)
    held = Lease(store, RUN, "one")
    await held.acquire(lambda _: None)
    _, version = store.read_version(RUN.lease)
    store.swap(RUN.lease, b'{"writer": "other"}', version)
    with pytest.raises(HeldByOther, match="took run struck over"):
        await held.keep()


async def test_release_without_an_answer_does_not_hide_how_the_run_ended(tmp_path: Path) -> None:
    store = LosesAnswers(tmp_path, lost={2})
    held = Lease(store, RUN, "one")
    await held.acquire(lambda _: None)
    await held.release()
    assert store.swaps == 2
