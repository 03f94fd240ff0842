"""A call whose answer is of no use is made once, and asked about or undone, whatever else its step has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from tests.harness.answer_scene import (
    FAN,
    FINAL,
    KEY,
    NO_OUTPUT,
    PAID,
    PASSING,
    UNDO,
    Scene,
)
from tests.harness.loopback import Loopback, loopback, reply


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with loopback() as found:
        yield found


ITEM = StepKey("a", 1)
AGAIN = 3
"""The limit of retries that the steps below have. A call that was carried out takes none of them."""

WHERE = pytest.mark.parametrize(
    ("fields", "key"),
    [({}, KEY), ({"continueOnError": True}, KEY), (FAN, ITEM), (FAN | {"continueOnError": True}, ITEM)],
    ids=["step", "step that may fail", "item", "item that may fail"],
)
OF_EACH = pytest.mark.parametrize(
    ("answer", "http", "words"),
    [FINAL["output that is not there"], PASSING["body cut off"], PASSING["a header without a colon"]],
    ids=["final", "cut off", "against the grammar"],
)


@WHERE
@OF_EACH
async def test_wherever_it_is_called_a_once_call_is_made_once_and_asks(
    server: Loopback, answer: Any, http: dict[str, Any], words: str, fields: dict[str, Any], key: StepKey
) -> None:
    server.then(answer)
    scene = Scene(server, "Once", None, AGAIN, fields, **http)
    fact = await scene.attempt(key)
    assert (fact.end, fact.happened) == ("waiting", True)
    assert fact.unknown is not None and words in fact.unknown.message
    world = scene.planned(fact, key)
    assert world.state(key.label) == "OutcomeUnknown" and key.label not in world.running
    asked = world.entry(key.label)["waitingFor"]
    assert asked["callId"] == "call" and "the call happened" in asked["resolve"]
    # Neither a retry, nor the end of the run, nor another attempt calls it again: each asks once more.
    world.append("cancelled")
    world.go()
    assert world.state(key.label) == "OutcomeUnknown"
    scene.send_within = 0.0  # how long it waits for the process of the first attempt, which is this one
    assert (await scene.attempt(key)).unknown is not None
    fact = await scene.attempt(key, events=[scene.say("happened", key, result=PAID)])
    assert (fact.outcome, fact.output) == (StepState.SUCCEEDED, PAID)
    assert len(server.received) == 1


@WHERE
@OF_EACH
async def test_wherever_it_is_called_what_can_be_undone_fails_and_is_undone(
    server: Loopback, answer: Any, http: dict[str, Any], words: str, fields: dict[str, Any], key: StepKey
) -> None:
    server.then(answer)
    scene = Scene(server, "Once", UNDO, AGAIN, fields, **http)
    fact = await scene.attempt(key)
    assert fact.outcome is StepState.FAILED and fact.happened and fact.failure is not None
    assert words in fact.failure.message and len(server.received) == 1
    may_fail, undo = "continueOnError" in fields, f"{key.label}.compensate"
    world = scene.planned(fact, key)
    # The other items begin only where a failure does not end the step. The world lets them succeed.
    others = [label for label in world.running if label != undo]
    assert len(others) == (2 if may_fail and key is ITEM else 0)
    for label in others:
        world.succeed(label)
    world.go()
    # A run that succeeds does not undo what succeeded, only the call of what failed.
    assert world.running == [undo]
    world.succeed(undo)
    world.go()
    assert world.ended["outcome"] == ("Succeeded" if may_fail else "Failed")
    assert world.ended["steps"] == {"a": "Failed"} and world.ended["compensations"] == {undo: "Succeeded"}


async def test_an_effect_that_stays_in_a_run_that_succeeds_is_named(server: Loopback) -> None:
    server.then(reply(PAID))
    scene = Scene(server, "Once", UNDO, fields={"continueOnError": True}, **NO_OUTPUT)
    world = scene.planned(await scene.attempt())
    world.fail("a.compensate")
    world.go()
    assert world.ended["outcome"] == "Succeeded" and world.ended["notUndone"].keys() == {"a"}
    assert "these effects remain" in world.look().status["message"]
