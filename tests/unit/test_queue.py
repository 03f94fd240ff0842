"""The work queue under any order of events: nothing is lost or worked on twice at once; no tenant waits for another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.canonical import timestamp
from agentrun.control.cache import Cache
from agentrun.control.controller import CLOCK_LOOK, WORKERS, Controller
from agentrun.control.queue import FIRST_LOOK_EVERY, SHARE, WorkQueue
from agentrun.control.run_status import awaited
from agentrun.control.views import Kind, RunRef, RunView
from agentrun.observe.metrics import Metrics
from tests.harness.virtual_time import VirtualLoop

METRICS = Metrics()


class Key(NamedTuple):
    space: str
    name: int


def queue_of(workers: int = 48) -> WorkQueue[Key]:
    loop = asyncio.get_running_loop()
    return WorkQueue[Key](METRICS, loop.time, space=lambda key: key.space, workers=workers)


def ready(queue: WorkQueue[Key]) -> Key | None:
    """What a free worker would get at once."""
    taking = queue.get()
    try:
        taking.send(None)
    except StopIteration as taken:
        key: Key = taken.value
        return key
    taking.close()
    return None


KEYS = st.builds(Key, st.sampled_from("abc"), st.integers(0, 3))
EVENTS = st.one_of(
    st.tuples(st.just("add"), KEYS, st.booleans()),
    st.tuples(st.just("due"), KEYS, st.sampled_from([None, 0.0, 0.5, 2.0])),
    st.tuples(st.just("take"), st.none(), st.none()),
    st.tuples(st.just("done"), st.integers(0, 20), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0]), st.none()),
)


@settings(max_examples=150)
@given(events=st.lists(EVENTS, max_size=60), workers=st.integers(1, 4))
def test_no_key_is_lost_and_none_is_worked_on_twice_at_once(
    events: list[tuple[str, object, object]], workers: int
) -> None:
    async def play() -> None:
        queue = queue_of(workers)
        working: list[Key] = []
        wanted: set[Key] = set()
        due: dict[Key, float] = {}
        now = asyncio.get_running_loop().time
        for what, subject, more in events:
            if isinstance(subject, Key):
                if what == "add":
                    queue.add(subject, first_look=bool(more))
                    wanted.add(subject)
                else:
                    seconds = more if isinstance(more, float) else None
                    queue.due(subject, seconds)
                    due.pop(subject, None)
                    if seconds is not None:
                        due[subject] = now() + seconds
            elif what == "take" and len(working) < workers:
                taken = ready(queue)
                if taken is not None:
                    assert taken in wanted and taken not in working
                    wanted.discard(taken)
                    working.append(taken)
            elif what == "done" and working:
                assert isinstance(subject, int)
                queue.done(working.pop(subject % len(working)))
            elif what == "wait":
                assert isinstance(subject, float)
                await asyncio.sleep(subject)
            else:
                await asyncio.sleep(0)
            rung = {key for key, at in due.items() if at <= now()}
            if rung:
                await asyncio.sleep(0.001)  # the timer has rung by then
                rung = {key for key, at in due.items() if at <= now()}
                wanted |= rung
                due = {key: at for key, at in due.items() if key not in rung}
            assert len(queue) == len(wanted - set(working))
            assert sum(queue.behind(Key(space, 0)) for space in "abc") == len(queue)
        await asyncio.sleep(3)
        wanted |= due.keys()
        for key in working:
            queue.done(key)
        while (left := ready(queue)) is not None:  # whatever happened: a free worker gets all the rest, each once
            wanted.remove(left)
            queue.done(left)
        assert not wanted and len(queue) == 0

    play_in_virtual_time(play())


def play_in_virtual_time(what: object) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(what)  # type: ignore[arg-type]
    finally:
        loop.close()


@settings(max_examples=50)
@given(loads=st.dictionaries(st.text("abcdefg", min_size=1, max_size=1), st.integers(1, 40), min_size=1))
def test_no_key_waits_longer_than_a_round_for_each_one_before_it_in_its_own_namespace(loads: dict[str, int]) -> None:
    async def play() -> None:
        queue = queue_of()
        for space, count in loads.items():
            for number in range(count):
                queue.add(Key(space, number))
        taken: list[Key] = []
        while (key := ready(queue)) is not None:
            taken.append(key)
            queue.done(key)
        assert len(taken) == sum(loads.values())
        for place, key in enumerate(taken):
            assert place < (key.name + 1) * len(loads)
            assert place >= key.name  # and the order within a namespace is that of its additions

    asyncio.run(play())


async def test_a_tenants_5000_runs_delay_anothers_by_one_turn() -> None:
    """It was one queue for all: after a restart a due timer fired behind the first looks at 5,000 runs of somebody."""
    queue = queue_of()
    for number in range(5000):
        queue.add(Key("crowd", number), first_look=True)
    for number in range(5000):
        queue.add(Key("crowd", 10_000 + number))
    for first_look in (True, False):
        queue.add(Key("alone", 1), first_look=first_look)
        places = []
        for place in range(4 * FIRST_LOOK_EVERY):
            key = ready(queue)
            assert key is not None
            queue.done(key)
            if key.space == "alone":
                places.append(place)
        assert places and places[0] <= 2 * FIRST_LOOK_EVERY


class Looks:
    """A reconciler whose visits take some time each, and are noted."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.visits: list[tuple[float, RunRef]] = []
        self.live: dict[RunRef, object] = {}
        self.slots = self.answers = self

    async def visit(self, ref: RunRef) -> None:
        await asyncio.sleep(2.0 if ref.name.startswith("slow") else 0.01)
        self.loop.now += 0.004  # CPU, which nobody shares
        self.visits.append((self.loop.time(), ref))

    async def remove_old(self) -> None: ...
    def look(self) -> None: ...
    def rest(self) -> None: ...


class NoLists:
    """The API server's lists are as the cache already is."""

    def passed_over(self, namespace: str) -> bool:
        return False

    async def pages(self, kind: Kind[Any]) -> AsyncIterator[tuple[list[Any], int]]:
        yield [], 0


def taken_over(loop: VirtualLoop, *runs: RunView) -> tuple[Looks, Controller, asyncio.Task[None]]:
    """A new leader that finds these runs."""
    looks, cache = Looks(loop), Cache()
    queue = WorkQueue[RunRef](METRICS, loop.time, space=lambda ref: ref.namespace, workers=WORKERS)
    for view in runs:
        cache.runs.put(view)
    parts: Any = looks
    controller = Controller(parts, NoLists(), cache, queue, parts, METRICS, loop.time, loop.time)
    return looks, controller, loop.create_task(controller.lead())


def run_of(space: str, name: str, until: float | None = None) -> RunView:
    steps = [{"name": "w", "state": "Waiting", "waitingFor": {"until": timestamp(until)}}] if until is not None else []
    return RunView(RunRef(space, name), name, 1, 1, 0.0, None, status={"steps": steps})


@pytest.mark.parametrize("crowd", ["run", "slow"])
@pytest.mark.parametrize("due", [-5.0, 0.5, 2.0])
def test_a_new_leader_that_finds_a_crowd_is_in_time_for_another_tenants_timer(due: float, crowd: str) -> None:
    """The timer fired 110 s late: one line for all, and first looks before what was due."""
    loop = VirtualLoop()
    loop.now = 1_000_000.0
    crowded = [run_of("crowd", f"{crowd}-{n}") for n in range(1500)]
    looks, controller, task = taken_over(loop, *crowded, run_of("quiet", "timer", loop.now + due))
    loop.run_until_complete(asyncio.sleep(due + 2.5 if due > 0 else 2.5))
    after = [at - 1_000_000.0 for at, ref in looks.visits if ref.namespace == "quiet"]
    assert any(max(due, 0.0) <= at <= max(due, 0.0) + 2.0 for at in after), after
    controller.run_seen(run_of("new", "run"))  # and a run that is made meanwhile begins
    asked = loop.time()
    loop.run_until_complete(asyncio.sleep(2.0))
    assert any(ref.namespace == "new" and at <= asked + 2.0 for at, ref in looks.visits)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"steps": None},
        {"steps": ["x", {"waitingFor": None}, {"waitingFor": []}, {"waitingFor": {"until": 7}}]},
        {"steps": [{"waitingFor": {"until": text}} for text in ("", "soon", "0001-01-01T00:00:00Z", "9" * 50)]},
    ],
)
def test_a_status_that_names_no_instant_is_no_end_of_the_leader(status: Any) -> None:
    found = awaited(status)
    assert found is None or found < 0


async def test_what_is_due_goes_before_first_looks_and_starves_none() -> None:
    queue = queue_of()
    for number in range(100):
        queue.add(Key("a", number), first_look=True)
        queue.add(Key("a", 1000 + number))
    order = []
    for _ in range(200):
        key = ready(queue)
        assert key is not None
        order.append(key.name < 1000)
        queue.done(key)
    looks = Counter(order[:112])
    assert looks[True] == 112 // FIRST_LOOK_EVERY and order[:FIRST_LOOK_EVERY].index(True) == FIRST_LOOK_EVERY - 1


async def test_a_first_look_that_becomes_due_moves_up() -> None:
    """A timer that rings while its run waits behind 5,000 first looks of its own namespace."""
    queue = queue_of()
    for number in range(5000):
        queue.add(Key("a", number), first_look=True)
    queue.add(Key("a", 4000))
    assert ready(queue) == Key("a", 4000) and len(queue) == 4999
    queue.add(Key("a", 4000), first_look=True)  # while it is worked on
    queue.add(Key("a", 4000))
    queue.done(Key("a", 4000))
    assert ready(queue) == Key("a", 4000)


async def test_a_namespace_whose_visits_do_not_end_leaves_workers_to_the_others() -> None:
    queue = queue_of()
    for space in ("slow", "slower", "slowest", "quick"):
        for number in range(100):
            queue.add(Key(space, number))
        held = 0
        while ready(queue) is not None:
            held += 1
        if space == "slow":
            assert held == 48 * SHARE // (SHARE + 1)
        assert held, f"{space} got no worker"


async def test_a_worker_that_waits_is_woken_when_a_namespace_has_room_again() -> None:
    queue = queue_of(workers=3)
    for number in range(5):
        queue.add(Key("a", number))
    first = await queue.get()
    await queue.get()
    assert ready(queue) is None, "two thirds of the workers at the most"
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(first)
    assert await asyncio.wait_for(waiting, 5) == Key("a", 2)


async def test_a_worker_that_is_cancelled_passes_on_what_it_was_woken_for() -> None:
    queue = queue_of(workers=3)
    takers = [asyncio.ensure_future(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add(Key("a", 1))
    takers[0].cancel()
    await asyncio.wait([takers[0]])
    assert await asyncio.wait_for(takers[1], 5) == Key("a", 1)
    takers[2].cancel()
    await asyncio.wait([takers[2]])
    queue.done(Key("a", 1))
    queue.add(Key("a", 2))
    assert await asyncio.wait_for(queue.get(), 5) == Key("a", 2)


def test_a_timer_is_in_time_though_the_clock_was_set_while_it_ran() -> None:
    """It ran by the steady clock, and was as late as the wall clock had been behind."""
    loop = VirtualLoop()
    ahead = 0.0
    looks, controller, leading = taken_over(loop, run_of("a", "w", until=7200.0))
    controller.clock = lambda: loop.time() + ahead
    try:
        loop.run_until_complete(asyncio.sleep(60))
        seen = len(looks.visits)
        loop.run_until_complete(asyncio.sleep(60))
        assert len(looks.visits) == seen  # nothing was set
        ahead = 7200.0
        loop.run_until_complete(asyncio.sleep(2 * CLOCK_LOOK))
        assert len(looks.visits) == seen + 1
    finally:
        leading.cancel()
        loop.run_until_complete(asyncio.gather(leading, return_exceptions=True))
        loop.close()
