"""Long computations of the operator: one at a time, namespaces take turns, the loop keeps half of the time."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from agentrun.control.thinking import Thinking


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_namespaces_take_turns() -> None:
    thinking, order = Thinking(lambda: 0.0), list[str]()
    gate = threading.Event()
    first = asyncio.ensure_future(thinking.run("eve", gate.wait))
    await settled()
    wanted = [("eve", 0), ("eve", 1), ("eve", 2), ("ana", 0), ("ana", 1)]
    others = [asyncio.ensure_future(thinking.run(who, partial(order.append, f"{who} {n}"))) for who, n in wanted]
    await settled()
    gate.set()
    await asyncio.gather(first, *others)
    assert order == ["eve 0", "ana 0", "eve 1", "ana 1", "eve 2"]
    thinking.close()


async def test_a_computation_is_followed_by_a_pause_as_long_as_it_took() -> None:
    clock = iter([0.0, 0.2, 1.0, 1.0])
    thinking, loop = Thinking(lambda: next(clock)), asyncio.get_running_loop()
    began = loop.time()
    found, took = await thinking.run("eve", lambda: 7)
    assert (found, took) == (7, 0.2)
    await thinking.run("eve", lambda: None)
    assert loop.time() - began >= 0.2
    thinking.close()


async def test_what_fails_or_is_cancelled_gives_the_turn_on() -> None:
    thinking, gate = Thinking(lambda: 0.0), threading.Event()
    held = asyncio.ensure_future(thinking.run("eve", gate.wait))
    await settled()
    waiting = asyncio.ensure_future(thinking.run("eve", lambda: None))
    failing = asyncio.ensure_future(thinking.run("ana", lambda: 1 // 0))
    last = asyncio.ensure_future(thinking.run("ben", lambda: "done"))
    await settled()
    waiting.cancel()
    held.cancel()
    await settled()
    gate.set()
    with pytest.raises(ZeroDivisionError):
        await failing
    assert (await last)[0] == "done"
    assert (await thinking.run("eve", lambda: 1))[0] == 1
    thinking.close()
