"""An API server that is slow, refuses, loses answers and cuts its watches, and a clock that is wrong: the runs end as
they do undisturbed, with the same pods and the same effects.

Real API server, real store, real runners; between them and the operator stands a proxy that misbehaves.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable

import pytest

from tests.cluster.ground import Ground, World, phase
from tests.cluster.proxy import EXPIRED, Answer, Call, Lost, Rule, Side, nothing, refusal
from tests.crash.verify import check_journal

RUNS = ("one", "two", "three")
SLOW = 0.7
"""Seconds that each call takes twice: longer than anything that the operator waits for without a reason."""

AT_ONCE = 4
"""Worlds side by side."""

CLOCKS = {"ahead": 600.0, "behind": -600.0}
"""By how many seconds the operator's clock differs from those of the nodes and of the API server."""

HANGS = 6.0
"""Seconds: longer than the operator gives a write."""


async def slow(call: Call, side: Side) -> Answer | None:
    if not call.watches:
        await asyncio.sleep(SLOW)
    return None


async def busy(call: Call, side: Side) -> Answer | None:
    if side == "before" and not call.watches and call.number % 2:
        return refusal(429, "TooManyRequests", retry_after=1)
    return None


async def failing(call: Call, side: Side) -> Answer | None:
    if side == "before" and not call.watches and call.number % 3 == 1:
        return refusal(500, "InternalError")
    return None


async def losing(call: Call, side: Side) -> Answer | None:
    """What was asked is done, and nobody hears of it."""
    if side == "after" and call.writes and call.number % 2:
        raise Lost
    return None


async def hanging(call: Call, side: Side) -> Answer | None:
    if side == "after" and call.writes and call.number == 1:
        await asyncio.sleep(HANGS)
    return None


async def refusing_watches(call: Call, side: Side) -> Answer | None:
    if side == "before" and call.watches and call.number % 4:
        return [
            refusal(429, "TooManyRequests", retry_after=1),
            refusal(410, "Expired"),
            refusal(503, "ServiceUnavailable"),
        ][call.number % 4 - 1]
    return None


async def forbidding_another(call: Call, side: Side) -> Answer | None:
    return refusal(403, "Forbidden") if side == "before" and "/namespaces/gone/" in call.path else None


def by(rule: Rule) -> Callable[[World], None]:
    """Every call of the operator to the API server goes by ``rule``."""

    def set_up(world: World) -> None:
        world.api.rule = rule

    return set_up


def cut(world: World) -> None:
    """Watches break off in the middle all the time."""
    world.api.watch_seconds = 0.5


def expired(world: World) -> None:
    """Watches end all the time with the word that what they would go on from is gone."""
    world.api.watch_seconds, world.api.last_word = 0.5, EXPIRED


def refused(world: World) -> None:
    """The same, and the next ones are refused."""
    world.api.watch_seconds, world.api.rule = 0.5, refusing_watches


def one_is_gone(world: World) -> None:
    """Of two namespaces that are watched, one is refused."""
    world.others, world.api.rule = ("gone",), forbidding_another


FAULTS: dict[str, Callable[[World], None]] = {
    "slow": by(slow),
    "429": by(busy),
    "500": by(failing),
    "answers lost": by(losing),
    "writes hang": by(hanging),
    "watches cut": cut,
    "watches expired": expired,
    "watches refused": refused,
    "a namespace refused": one_is_gone,
}


async def carry(world: World, clock: float = 0.0) -> None:
    """The refund example, three times, under an operator whose clock is ahead by ``clock`` seconds."""
    operator = await world.start(clock)
    await world.submit(*RUNS)
    await world.ended(*RUNS, seconds=150)
    assert not operator.ended.done(), f"the operator ended with {operator.ended.result()}:\n{world.said()}"
    assert [phase(world.space.runs[name]) for name in RUNS] == ["Succeeded"] * 3
    assert Counter(world.space.attempts) == dict.fromkeys([("triage", 1), ("refund", 1), ("note", 1)], 3), world.said()
    effects = Counter(effect.partition(" ")[0] for effect in world.outside.effects().elements())
    assert effects == Counter(payment=3, note=3)
    for name in RUNS:
        await asyncio.to_thread(check_journal, world.journal, world.path(world.space.runs[name]))
    assert await operator.end(signal.SIGTERM) == 0, world.said()


@pytest.fixture(scope="module")
def found(ground: Ground) -> dict[str, BaseException | None]:
    """What went wrong under each fault, all of them side by side: most of the time is waited."""

    async def one(room: asyncio.Semaphore, set_up: Callable[[World], None], clock: float) -> None:
        async with room, ground.world() as world:
            set_up(world)
            await carry(world, clock)

    async def all_of_them() -> list[BaseException | None]:
        room = asyncio.Semaphore(AT_ONCE)
        faults = [one(room, set_up, 0.0) for set_up in FAULTS.values()]
        clocks = [one(room, by(nothing), clock) for clock in CLOCKS.values()]
        return await asyncio.gather(*faults, *clocks, return_exceptions=True)

    return dict(zip([*FAULTS, *CLOCKS], ground.run(all_of_them()), strict=True))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", FAULTS)
def test_an_api_server_that_misbehaves(found: dict[str, BaseException | None], fault: str) -> None:
    if (error := found[fault]) is not None:
        raise error


@pytest.mark.timeout(400)
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_differs_from_those_of_the_nodes(found: dict[str, BaseException | None], clock: str) -> None:
    if (error := found[clock]) is not None:
        raise error
