"""Leader election on a Lease: never two at once, whatever the network, the processes and their clocks do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.control.leader import DURATION, GIVE_UP, PERIOD, Held, Leader, NotLeader
from agentrun.kube.errors import AlreadyExists, Conflict, NotFound, Unavailable
from tests.harness.virtual_time import VirtualLoop


@contextmanager
def virtual() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    try:
        yield loop
        assert not asyncio.all_tasks(loop)
    finally:
        loop.close()


class Server:
    """The Lease on an API server: every write has a version of its own."""

    def __init__(self) -> None:
        self.held: Held | None = None
        self._version = 0

    def get(self) -> Held | None:
        return self.held

    def create(self, held: Held) -> Held:
        if self.held is not None:
            raise AlreadyExists("there is one")
        return self._write(held)

    def update(self, held: Held) -> Held:
        if self.held is None:
            raise NotFound("there is none")
        if held.version != self.held.version:
            raise Conflict("it has changed")
        return self._write(held)

    def _write(self, held: Held) -> Held:
        self._version += 1
        self.held = replace(held, version=str(self._version))
        return self.held


@dataclass(frozen=True)
class Fault:
    """What happens to one request, in seconds."""

    there: float = 0.0
    back: float = 0.0
    lost: bool = False
    """The answer never comes."""
    refused: bool = False
    deaf: bool = False
    """The process is stopped until the answer is there: no timeout runs in it meanwhile, and then it takes it in."""


@dataclass
class Line:
    """One process's way to the server. A request that is under way goes on when its sender gives up."""

    server: Server
    faults: list[Fault] = field(default_factory=list)
    cut: bool = False
    retries: bool = False
    """A write without an answer is sent once more, as the client of the API server does it."""
    requests: set[asyncio.Task[Any]] = field(default_factory=set)

    async def get(self) -> Held | None:
        found: Held | None = await self._send(self.server.get)
        return found

    async def create(self, held: Held) -> Held:
        return await self._write(lambda: self.server.create(held))

    async def update(self, held: Held) -> Held:
        return await self._write(lambda: self.server.update(held))

    async def _write(self, act: Callable[[], Held]) -> Held:
        try:
            made: Held = await self._send(act)
        except Unavailable:
            if not self.retries:
                raise
            made = await self._send(act)
        return made

    async def _send(self, act: Callable[[], Any]) -> Any:
        fault = self.faults.pop(0) if self.faults else Fault(there=0.01, back=0.01)
        request = asyncio.ensure_future(self._carry(act, fault))
        self.requests.add(request)
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            if not fault.deaf:
                raise
            return await request

    async def _carry(self, act: Callable[[], Any], fault: Fault) -> Any:
        await asyncio.sleep(fault.there)
        if fault.refused or self.cut:
            raise Unavailable("no answer")
        try:
            answer, error = act(), None
        except (AlreadyExists, Conflict, NotFound) as raised:
            answer, error = None, raised
        await asyncio.sleep(fault.back)
        if fault.lost or self.cut:
            raise Unavailable("the answer was lost")
        if error is not None:
            raise error
        return answer


class Node:
    """One process with a clock of its own, which works while it leads."""

    def __init__(self, loop: VirtualLoop, name: str, line: Line, offset: float = 0.0, rate: float = 1.0) -> None:
        self.line = line
        self.changes: list[bool] = []
        self.working = 0
        self.skip = 0.0
        self.leader = Leader(
            line,
            name,
            clock=lambda: offset + rate * (loop.time() + self.skip),
            on_change=self.changes.append,
        )
        self.task = loop.create_task(self.leader.run(self.work))

    async def work(self) -> None:
        self.working += 1
        try:
            assert self.working == 1, "the last time has not ended"
            while True:
                self.leader.check()
                await asyncio.sleep(0.5)
        finally:
            self.working -= 1

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        await asyncio.gather(*self.line.requests, return_exceptions=True)


def leading(*nodes: Node) -> list[Node]:
    return [node for node in nodes if node.leader.is_leader()]


async def until(true: Callable[[], bool], within: float) -> float:
    """Wait for it; how long that took. The time is the virtual one."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not true():
        assert loop.time() - began <= within, f"not within {within} s"
        await asyncio.sleep(0.05)
    return loop.time() - began


def play(scene: Callable[[VirtualLoop, Server], Awaitable[None]]) -> None:
    with virtual() as loop:
        loop.run_until_complete(scene(loop, Server()))


FAULTS = st.builds(
    Fault,
    there=st.sampled_from((0.0, 0.01, 1.0, 2.9, 3.1, 9.9, 15.1)) | st.floats(0, 20),
    back=st.sampled_from((0.0, 0.01, 1.0, 2.9, 3.1, 9.9, 15.1, 25.0)) | st.floats(0, 30),
    lost=st.booleans(),
    refused=st.sampled_from((False, False, True)),
    deaf=st.booleans(),
)
NODES = st.lists(
    st.tuples(st.lists(FAULTS, max_size=12), st.booleans(), st.floats(-1e6, 1e6), st.floats(0.9, 1.1)),
    min_size=2,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(NODES)
def test_never_two_lead_and_in_the_end_one_does(kinds: list[tuple[list[Fault], bool, float, float]]) -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        nodes = [
            Node(loop, f"n{n}", Line(server, list(faults), retries=retries), offset, rate)
            for n, (faults, retries, offset, rate) in enumerate(kinds)
        ]

        def never_two() -> None:
            assert len(leading(*nodes)) <= 1

        loop.each = never_two
        await asyncio.sleep(60)
        for node in nodes:
            node.line.faults.clear()
        await until(lambda: len(leading(*nodes)) == 1, 100)  # the last answers that are under way, and a whole Lease
        await asyncio.sleep(45)
        (first,) = leading(*nodes)
        first.line.cut = True  # its node is gone
        others = [node for node in nodes if node is not first]
        await until(lambda: len(leading(*others)) == 1, DURATION / 0.9 + 2 * PERIOD)
        assert not first.working or first.leader.is_leader()
        for node in nodes:
            assert not node.task.done()
            await node.stop()

    play(scene)


def test_a_release_hands_over_at_the_next_look() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        b = Node(loop, "b", Line(server))
        await asyncio.sleep(60)
        assert leading(a, b) == [a] and a.changes == [True] and not b.changes
        assert server.held is not None and server.held.transitions == 0
        await a.stop()
        assert not a.leader.is_leader() and not a.working and a.changes == [True, False]
        await until(b.leader.is_leader, PERIOD + 0.1)
        assert server.held.holder == "b" and server.held.transitions == 1
        await b.stop()
        assert server.held.holder == ""

    play(scene)


def test_a_stopped_leader_that_wakes_up_may_write_nothing() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        a.leader.check()
        a.skip = GIVE_UP - PERIOD - 0.5
        a.leader.check()
        a.skip = GIVE_UP
        with pytest.raises(NotLeader, match="a is not the leader"):  # before any other of its code has run
            a.leader.check()
        await until(lambda: a.changes == [True, False], 1)
        await until(a.leader.is_leader, PERIOD)  # nobody took the Lease: it is its again
        assert a.working == 1
        await a.stop()

    play(scene)


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    """The process is stopped while the answer is on its way, and the first that it does is to take the answer in."""

    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        b = Node(loop, "b", Line(server))
        await asyncio.sleep(10)

        def never_two() -> None:
            assert len(leading(a, b)) <= 1

        loop.each = never_two
        a.line.faults.append(Fault(there=0.01, back=25.0, deaf=True))
        await until(b.leader.is_leader, DURATION + 2 * PERIOD + 1)
        await asyncio.sleep(30)
        assert leading(a, b) == [b] and not a.working
        await a.stop()
        await b.stop()

    play(scene)


def test_work_is_cancelled_when_renewals_fail() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        a.line.cut = True
        took = await until(lambda: not a.working, GIVE_UP + 0.1)
        assert took > GIVE_UP - PERIOD - 0.1 and a.changes == [True, False]
        a.line.cut = False
        await until(a.leader.is_leader, PERIOD + 0.1)
        await a.stop()

    play(scene)


@pytest.mark.parametrize("fault", [Fault(lost=True), Fault(back=5.0), Fault(there=5.0)])
def test_a_renewal_without_an_answer_is_made_good(fault: Fault) -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        a.line.faults.append(fault)
        await asyncio.sleep(60)
        assert a.leader.is_leader() and a.changes == [True]
        await a.stop()

    play(scene)


def test_a_takeover_whose_answer_was_lost_is_found() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server, [Fault(), Fault(lost=True)]))
        await until(a.leader.is_leader, PERIOD + 0.1)
        await a.stop()

    play(scene)


def test_a_lease_is_held_though_the_first_answer_to_each_write_is_lost() -> None:
    """The client sent the write again, and that was a conflict: the Lease was ours, and nobody led for as long."""

    async def scene(loop: VirtualLoop, server: Server) -> None:
        lost = [Fault(), *[Fault(there=0.1, lost=True), Fault(), Fault()] * 40]
        a = Node(loop, "a", Line(server, lost, retries=True))
        await until(a.leader.is_leader, PERIOD + 0.5)
        await asyncio.sleep(60)
        assert a.leader.is_leader() and a.changes == [True] and len(a.line.faults) < 60
        await a.stop()

    play(scene)


def test_a_lease_that_somebody_labels_is_not_renewed_by_that() -> None:
    """Ours, and changed, but not by us: to count from there made two leaders of a leader that was then cut off."""

    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        await asyncio.sleep(PERIOD + 0.5)  # the first renewal is done, the second is due in 1.5 s
        began = loop.time()
        assert server.held is not None
        server.update(server.held)
        a.line.faults += [Fault(), Fault(), *[Fault(refused=True)] * 40]
        await until(lambda: not a.leader.is_leader(), GIVE_UP)
        assert loop.time() - began <= GIVE_UP - 0.4
        await a.stop()

    play(scene)


def test_a_lease_that_another_has_taken_is_lost_at_the_next_renewal() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        assert server.held is not None
        server.update(replace(server.held, holder="a person's"))
        await until(lambda: not a.leader.is_leader() and not a.working, PERIOD + 0.1)
        await until(a.leader.is_leader, DURATION + 2 * PERIOD)
        assert server.held.holder == "a"
        await a.stop()

    play(scene)


def test_a_deleted_lease_is_made_anew_by_its_leader_and_left_alone_by_who_has_seen_it() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        a = Node(loop, "a", Line(server))
        await until(a.leader.is_leader, 1)
        b = Node(loop, "b", Line(server))
        await asyncio.sleep(30)
        server.held = None
        a.line.cut = True
        await until(lambda: not a.leader.is_leader(), GIVE_UP + 0.1)
        assert not b.leader.is_leader()
        await until(b.leader.is_leader, DURATION)
        server.held = None
        await asyncio.sleep(2 * PERIOD)
        assert b.leader.is_leader()
        made = server.get()
        assert made is not None and made.holder == "b"
        a.line.cut = False
        await a.stop()
        await b.stop()

    play(scene)


def test_a_longer_lease_of_another_version_is_respected() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        server.create(Held("older", duration=40.0))
        a = Node(loop, "a", Line(server))
        await asyncio.sleep(39)
        assert not a.leader.is_leader()
        await until(a.leader.is_leader, 1 + 2 * PERIOD)
        await a.stop()

    play(scene)


def test_work_that_fails_releases_the_lease_and_is_told() -> None:
    async def scene(loop: VirtualLoop, server: Server) -> None:
        async def work() -> None:
            await asyncio.sleep(5)
            raise ValueError("a bug")

        with pytest.raises(ValueError, match="a bug"):
            await Leader(Line(server), "a", clock=loop.time).run(work)
        assert server.held is not None and server.held.holder == ""

        async def done() -> None:
            return

        await Leader(Line(server), "b", clock=loop.time).run(done)
        assert server.held.holder == "" and server.held.transitions == 1

    play(scene)
