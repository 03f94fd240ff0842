"""Objects that the API server takes too long for: somebody is told, nobody else waits, and the run goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

import pytest

from agentrun.adapters.objects import run_view
from agentrun.control.patience import OFTEN, PAUSE_FIRST, PAUSE_MAX, NotNow, Patience
from agentrun.control.turns import Turns
from agentrun.control.views import RunView
from agentrun.kube import client
from agentrun.kube.client import Kube
from agentrun.kube.credentials import Access
from agentrun.kube.errors import TooSlow, Unavailable
from agentrun.kube.status import error_of, read_status
from tests.harness.cluster_world import ClusterWorld, Operator
from tests.harness.loopback import loopback
from tests.harness.operator_steps import workflow
from tests.harness.planner_world import step

LARGE = {"inputs": {"x": list(range(8000))}}
TIMER = {"name": "t", "wait": {"duration": "1s"}}


class Slow:
    """An API server that answers no write of the status of some runs in time. Each takes it five seconds."""

    def __init__(self, world: ClusterWorld, operator: Operator, *names: str, done: bool = False) -> None:
        self.names = set(names)
        self.tried: list[tuple[str, float]] = []
        self.most = 0
        """Writes of these runs at the same time."""
        self._now, self._world = 0, world
        for method in ("patch_status", "observe", "delete_run"):
            self._slow(operator, method, done=done)

    def _slow(self, operator: Operator, method: str, *, done: bool) -> None:
        write = getattr(operator.cluster, method)

        async def slow(run: RunView, *more: Any) -> Any:
            if run.ref.name not in self.names:
                return await write(run, *more)
            self.tried.append((run.ref.name, self._world.now))
            self._now += 1
            self.most = max(self.most, self._now)
            await asyncio.sleep(5)
            self._now -= 1
            if done:
                await write(run, *more)
            raise TooSlow("the API server did not answer within 5 s (patch it)")

        setattr(operator.cluster, method, slow)

    def pauses(self, name: str) -> list[float]:
        times = [at for tried, at in self.tried if tried == name]
        return [round(b - a - 5, 1) for a, b in pairwise(times)]


def told(world: ClusterWorld) -> list[str]:
    return [message for reason, message in world.api.events if reason == "ApiServerSlow"]


def quietly(world: ClusterWorld, operator: Operator, seconds: float) -> None:
    for _ in range(max(1, int(seconds))):
        operator.hear_all()
        world.run_pods(rounds=3)
        world.wait(1)


def test_large_objects_are_written_one_at_a_time_and_nobody_waits_for_them(world: ClusterWorld) -> None:
    """All workers were busy with them, for five seconds each, over and over; and nobody was told."""
    operator = world.operator()
    names = [f"big-{n}" for n in range(8)]
    slow = Slow(world, operator, *names)
    for name in names:
        world.api.apply_run(name, {"workflow": workflow({"name": "s", "wait": {"signal": "s"}}), **LARGE})
    operator.hear_all()
    world.settle()
    world.api.apply_run("small", {"workflow": workflow(TIMER)})
    quietly(world, operator, 3)
    assert world.status("small")["phase"] == "Succeeded"
    quietly(world, operator, 60)
    assert slow.most == 1
    assert {name for name, _ in slow.tried} == set(names)
    assert len(told(world)) == len(slow.tried) - 1, "one is under way"


def test_who_looks_at_the_run_is_told_and_the_pauses_grow(
    world: ClusterWorld, caplog: pytest.LogCaptureFixture
) -> None:
    operator = world.operator()
    slow = Slow(world, operator, "r")
    world.api.apply_run("r", {"workflow": {"steps": [{"name": "a"}]}, **LARGE})
    with caplog.at_level(logging.WARNING):
        operator.hear_all()
        world.wait(2000)
    doubled = [PAUSE_FIRST * 2**n for n in range(6)]
    assert slow.pauses("r")[:7] == pytest.approx([*doubled, PAUSE_MAX], abs=0.5)
    assert len(slow.tried) < 15
    first = told(world)[0]
    assert "did not answer within 5 s (patch it), when its status was written: 1 in a row" in first
    assert "retried in 5 s" in first and "keep data out of the spec" in first
    assert sum("when its status was written" in r.getMessage() for r in caplog.records) == len(told(world))
    slow.names.clear()
    world.wait(PAUSE_MAX + 1)
    assert world.status()["phase"] == "Stalled"


def test_a_large_run_begins_when_it_can_be_shown_and_goes_on_when_it_can_not(world: ClusterWorld) -> None:
    operator = world.operator()
    slow = Slow(world, operator, "r")
    world.api.apply_run("r", {"workflow": workflow(step("a"), TIMER | {"dependsOn": ["a"]}, step("b", "t")), **LARGE})
    quietly(world, operator, 30)
    assert not world.created, "nothing of it could be shown"
    slow.names.clear()
    quietly(world, operator, 40)
    assert ("a", 1) in world.created
    world.api.apply_run("s", {"workflow": workflow(step("a"), TIMER | {"dependsOn": ["a"]}, step("b", "t")), **LARGE})
    operator.hear_all()
    world.settle()
    before = world.status("s")
    assert before["journal"]
    slow.names.add("s")
    quietly(world, operator, 60)
    assert world.created.count(("b", 1)) == 2
    run = next(run for run in world.api.all("runs") if run.ref.name == "s")
    assert world.kinds(run)[-1] == "ended" and "completionTime" not in world.status("s")
    slow.names.clear()
    quietly(world, operator, PAUSE_MAX + 10)
    assert world.status("s")["phase"] == "Succeeded"
    assert not operator.reconciler.live


def test_a_write_that_is_done_without_an_answer_is_not_made_again(world: ClusterWorld) -> None:
    operator = world.operator()
    slow = Slow(world, operator, "r", done=True)
    world.api.apply_run("r", {"workflow": {"steps": [{"name": "a"}]}, **LARGE})
    quietly(world, operator, 100)
    assert world.status()["phase"] == "Stalled"
    assert len(slow.tried) == 1


def test_a_large_run_is_cancelled_and_deleted_as_soon_as_the_api_server_takes_it(world: ClusterWorld) -> None:
    operator = world.operator()
    slow = Slow(world, operator, "r")
    world.api.apply_run("r", {"workflow": {"steps": [{"name": "a"}]}, "ttlSecondsAfterFinished": 60, **LARGE})
    quietly(world, operator, 8)
    world.api.edit_run("r", cancel=True)
    quietly(world, operator, 8)
    slow.names.clear()
    quietly(world, operator, 30)
    assert world.status()["phase"] == "Cancelled"
    slow.names.add("r")
    quietly(world, operator, 90)
    assert any("when it was deleted" in message for message in told(world))
    slow.names.clear()
    quietly(world, operator, 120)
    assert not world.api.objects["runs"]


def test_of_a_small_object_it_is_told_too_when_it_happens_often(world: ClusterWorld) -> None:
    """A webhook that takes its time, say."""
    operator = world.operator()
    slow = Slow(world, operator, "r")
    world.api.apply_run("r", {"workflow": {"steps": [{"name": "a"}]}})
    quietly(world, operator, 150)
    assert len(slow.tried) > OFTEN
    assert len(told(world)) == len(slow.tried) // OFTEN
    assert "webhooks" in told(world)[0]


def view(name: str, namespace: str, spec: Mapping[str, Any] = LARGE) -> RunView:
    metadata = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1"}
    return run_view({"metadata": metadata | {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": dict(spec)})


class Deaf:
    """A cluster that nobody reads the Events of."""

    async def record_event(self, *_: Any) -> None: ...


def patience_of(clock: Callable[[], float]) -> Patience:
    return Patience(cast("Any", Deaf()), clock)


async def test_namespaces_take_turns_at_large_writes() -> None:
    patience = patience_of(lambda: 0.0)
    order: list[str] = []

    async def write(run: RunView) -> None:
        async def do() -> None:
            order.append(run.ref.namespace)
            await asyncio.sleep(0)

        await patience.write(run, "", do)

    runs = [view(f"a{n}", "a") for n in range(5)] + [view("b", "b")]
    await asyncio.gather(*map(write, runs))
    assert order.index("b") <= 2


async def test_a_turn_that_nobody_takes_any_more_is_the_next_ones() -> None:
    turns = Turns()
    await turns.take("a")
    gone, next_one = asyncio.create_task(turns.take("a")), asyncio.create_task(turns.take("b"))
    await asyncio.sleep(0)
    gone.cancel()
    turns.give()
    await next_one
    gone, next_one = asyncio.create_task(turns.take("a")), asyncio.create_task(turns.take("b"))
    await asyncio.sleep(0)
    turns.give()
    gone.cancel()  # in the same moment as it is given the turn
    await next_one
    turns.give()
    await turns.take("c")


async def test_who_was_too_slow_is_not_asked_before_the_pause_is_over() -> None:
    now = [0.0]
    calls: list[float] = []
    patience = patience_of(lambda: now[0])

    async def do() -> None:
        calls.append(now[0])
        raise TooSlow("too slow")

    for at in (0.0, 1.0, PAUSE_FIRST - 0.1, PAUSE_FIRST):
        now[0] = at
        with pytest.raises(NotNow) as caught:
            await patience.write(view("r", "a"), "", do)
        assert caught.value.again > 0
    assert calls == [0.0, PAUSE_FIRST]
    patience.forget(view("r", "a").ref)
    with pytest.raises(NotNow):
        await patience.write(view("r", "a"), "", do)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("spec", "large"),
    [
        ({}, False),
        ({"inputs": {"x": list(range(100))}}, False),
        (LARGE, True),
        ({"inputs": {"x": "y" * 300_000}}, True),
        ({"inputs": {"x": [{} for _ in range(3000)]}}, True),
    ],
)
def test_what_counts_as_large(spec: dict[str, Any], large: bool) -> None:
    assert view("r", "a", spec).large is large


class Here:
    """A way to a server on this machine."""

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self, *, anew: bool = False) -> Access:
        return Access(server=self._url, namespace="n")


async def test_a_write_without_an_answer_in_time_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WRITE_TIMEOUT", 0.02)
    never = asyncio.Event()

    async def hang(writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async with loopback() as server:
        server.then(hang)
        async with Kube(Here(server.url)) as kube:
            with pytest.raises(TooSlow, match=r"did not answer within 0\.02 s \(patch /apis/x/v1/namespaces/n/y/z\)"):
                await kube.patch("/apis/x/v1/namespaces/n/y/z", {})
        never.set()
        assert len(server.received) == 1, "it is not sent again: it may be done"


@pytest.mark.parametrize(("code", "kind"), [(504, TooSlow), (500, Unavailable), (503, Unavailable), (429, Unavailable)])
def test_which_answers_are_too_slow(code: int, kind: type[Exception]) -> None:
    assert type(error_of(read_status(code, b"<html>"), "patch x")) is kind
