"""Long computations of the operator: one at a time, namespaces take turns, the loop keeps half of the time."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from agentrun.control import thinking as module
from agentrun.control.thinking import TOO_LONG, Thinking
from agentrun.plan.work_budget import GLANCE, SLICE, Work
from tests.harness.planner_world import PlannerWorld, compiled, step


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


async def test_a_plan_over_its_time_is_parked_with_a_reason_and_a_verb_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The units of its expressions are far below their bound: what they take on this machine is not what they say."""
    monkeypatch.setattr(module, "PAUSE_MAX", 0.0)
    # One condition takes about 1.7 million units: two slices, the first of which takes too long by this clock.
    of_each = [step(f"s{n}", when=f"inputs.l.map(x, x).size() == {n}", wait={"duration": "1h"}) for n in range(20)]
    world = PlannerWorld(compiled(*of_each), inputs={"l": list(range(300))})
    seconds = iter([0.0, TOO_LONG + 1])
    thinking, work = Thinking(lambda: next(seconds, 9.0)), Work()
    found, other = await asyncio.gather(
        thinking.plan("eve", world.snapshot(), work), thinking.plan("ana", world.snapshot(), Work())
    )
    assert GLANCE < work.spent <= GLANCE + SLICE + GLANCE
    states = [entry["state"] for entry in found.status["steps"]]
    assert 5 < states.count("Skipped") < 20 and states.count("Skipped") + states.count("Waiting") == 20
    assert found.waits_for_person and found.status["phase"] == "Stalled"
    assert {c["reason"] for c in found.status["conditions"]} == {"TooMuchWork"}
    assert "took 4.0 s of the operator's time" in found.status["message"]
    assert "agentrun cancel RUN ends the run" in found.status["message"]
    assert {entry["state"] for entry in other.status["steps"]} == {"Skipped"}
    # It is not tried again: the next plan is the same, and evaluates nothing.
    spent, evaluated = work.spent, work.evaluated
    assert await thinking.plan("eve", world.snapshot(), work) == found
    assert (work.spent, work.evaluated) == (spent, evaluated)
    thinking.close()
