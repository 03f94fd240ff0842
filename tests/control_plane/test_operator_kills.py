"""The operator is killed at every call that it makes to the API server and to the store, before it is done and after.

One run of the refund example for each: real API server, real store, real runners, the operator as it is. Its calls pass
proxies, and a proxy kills it: before the call is passed on, or when it is done and nobody has heard of it. Watches are
calls too. Then another operator starts. Calls that go by time (renewals of the Lease) are struck where they come.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agentrun.journal.log import EventLog
from tests.cluster.ground import Ground, World, phase
from tests.cluster.proxy import Answer, Call, Lost, Side
from tests.cluster.stand_in import Process
from tests.crash.verify import check_journal

AT_ONCE = 3
"""Runs side by side: each waits for processes more than it works."""
RUN = "refund"
Record = Any


@dataclass(frozen=True)
class Point:
    """A side of a call of the operator: the ``number``-th about ``what``."""

    what: str
    number: int
    side: Side

    def __str__(self) -> str:
        return f"{self.side} {self.what} #{self.number}"


@dataclass(frozen=True)
class Outcome:
    """What must not depend on when the operator died."""

    phase: str
    pods: Sequence[tuple[str, int]]
    """Step and attempt of every pod that ever was."""
    effects: Counter[str]
    events: Sequence[str]
    """The run's own records."""
    approvals: Sequence[str]
    """The outcome of every Approval."""


class Trial:
    """One run, with at most one death of its operator."""

    def __init__(self, ground: Ground, point: Point | None) -> None:
        self.world = ground.world()
        self.point = point
        self.fired = False
        self.calls: list[Call] = []
        self._operator: Process | None = None

    async def carry(self) -> Outcome:
        """Run to the end. Raises TimeoutError, AssertionError."""
        async with self.world as world:
            world.api.rule = world.store.rule = self._strike
            await world.submit(RUN)
            while True:
                self._operator = await world.start()
                end = asyncio.create_task(world.ended(RUN))
                await asyncio.wait([end, self._operator.ended], return_when=asyncio.FIRST_COMPLETED)
                if end.done():
                    await end
                    break
                end.cancel()
                code = self._operator.ended.result()
                assert code == -signal.SIGKILL and self.fired, f"the operator ended with {code}:\n{world.said()}"
                await world.free_lease()
            self.calls = [*world.api.calls, *world.store.calls]
            return await self._outcome(world)

    async def _strike(self, call: Call, side: Side) -> Answer | None:
        if not self.fired and self.point == Point(call.what, call.number, side):
            self.fired = True
            assert self._operator is not None
            await self._operator.end()
            raise Lost
        return None

    async def _outcome(self, world: World) -> Outcome:
        run = world.space.runs[RUN]
        log = EventLog(world.journal, world.path(run), float)
        await asyncio.to_thread(log.refresh)
        await asyncio.to_thread(check_journal, world.journal, world.path(run))
        effects = Counter(effect.partition(" ")[0] for effect in world.outside.effects().elements())
        events = [record.kind for record in log.records]
        approvals = await world.listed("approvals")
        decided = [c["reason"] for a in approvals for c in a["status"]["conditions"]]
        return Outcome(phase(run), world.space.attempts, effects, events, decided)


@pytest.mark.timeout(600)
def test_killed_at_every_call(ground: Ground, record_property: Record) -> None:
    first = Trial(ground, None)
    undisturbed = ground.run(first.carry())
    assert undisturbed == Outcome(
        "Succeeded",
        [("note", 1), ("refund", 1), ("triage", 1)],
        Counter(payment=1, note=1),
        ["approvalRequested", "decided", "settled", "ended"],
        ["Approved"],
    )
    sides: tuple[Side, Side] = ("before", "after")
    points = [Point(call.what, call.number, side) for call in first.calls for side in sides]

    async def strike_all() -> tuple[list[str], list[Point]]:
        room = asyncio.Semaphore(AT_ONCE)
        broken, missed = [], []

        async def one(point: Point) -> None:
            async with room:
                trial = Trial(ground, point)
                try:
                    found = await trial.carry()
                    assert found == undisturbed
                except Exception as error:  # noqa: BLE001 (reported, with its point, below)
                    broken.append(f"{point} [{trial.world.folder}]: {type(error).__name__}: {error}")
                if not trial.fired:
                    missed.append(point)

        await asyncio.gather(*(one(point) for point in points))
        return broken, missed

    broken, missed = ground.run(strike_all())
    assert not broken, f"{len(broken)} of {len(points)} points broke:\n" + "\n".join(broken)
    assert len(missed) <= len(points) // 10, f"never reached: {', '.join(map(str, missed))}"
    record_property("struck", len(points) - len(missed))
