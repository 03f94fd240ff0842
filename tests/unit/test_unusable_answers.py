"""Calls that were surely carried out, and whose answers are of no use: nothing of them is forgotten or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.api.tools import Effect
from agentrun.journal.fold import fold
from agentrun.journal.log import read_step
from agentrun.plan.effects import asks_people
from agentrun.plan.snapshot import Ref
from agentrun.query.timeline import timeline
from agentrun.workflow.program import compile_step
from tests.harness.answer_scene import (
    EVERY,
    HEAD,
    KEY,
    NO_OUTPUT,
    PAID,
    PASSING,
    RUN,
    UNDO,
    UNDO_BY_ID,
    Scene,
)
from tests.harness.loopback import Loopback, cut, loopback, reply
from tests.harness.memory_store import MemoryStore
from tests.harness.planner_world import PlannerWorld, compiled, step
from tests.harness.virtual_time import SkippingLoop


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with loopback() as found:
        yield found


@EVERY
async def test_a_once_call_that_nothing_undoes_is_a_persons_question(
    server: Loopback, answer: Any, http: dict[str, Any], words: str
) -> None:
    server.then(answer)
    scene = Scene(server, "Once", **http)
    fact = await scene.attempt()
    assert fact.unknown is not None and fact.happened
    assert words in fact.unknown.message and "the call happened" in fact.unknown.message
    assert len(server.received) == 1
    kept = scene.last()["answer"]
    assert kept["status"] in (200, 201, 204, 303) and kept["digest"].startswith("sha256:")
    assert scene.planned(fact).state("a") == "OutcomeUnknown"


@EVERY
@pytest.mark.parametrize("effect", ["Once", "Idempotent"])
async def test_a_step_that_can_be_undone_without_the_answer_fails_and_is_undone(
    server: Loopback, answer: Any, http: dict[str, Any], words: str, effect: str
) -> None:
    server.then(answer)
    scene = Scene(server, effect, UNDO, **http)
    fact = await scene.attempt()
    assert fact.outcome is StepState.FAILED and fact.happened and fact.failure is not None
    assert fact.failure.happened and "the call happened anyway" in fact.failure.message
    assert scene.last()["answer"]["status"] in (200, 201, 204, 303)
    world = scene.planned(fact)
    assert world.running == ["a.compensate"]
    tries = 3 if effect == "Idempotent" and words in {entry[2] for entry in PASSING.values()} else 1
    assert len(server.received) == tries


@EVERY
async def test_what_only_reads_has_no_effect_to_undo(
    server: Loopback, answer: Any, http: dict[str, Any], words: str
) -> None:
    server.then(answer)
    scene = Scene(server, "ReadOnly", UNDO, **http)
    fact = await scene.attempt()
    assert fact.outcome is StepState.FAILED and fact.failure is not None
    assert words in fact.failure.message and not fact.happened
    assert "a.compensate" not in scene.planned(fact).running


@pytest.mark.parametrize(
    ("effect", "compensate", "asked"),
    [
        ("ReadOnly", None, False),
        ("ReadOnly", UNDO_BY_ID, False),
        ("Idempotent", None, False),
        ("Idempotent", UNDO, False),
        ("Idempotent", UNDO_BY_ID, True),
        ("Once", None, True),
        ("Once", UNDO, False),
        ("Once", UNDO_BY_ID, True),
    ],
)
async def test_who_decides_is_told_from_the_step_alone(
    server: Loopback, effect: str, compensate: Any, asked: bool
) -> None:
    server.then(reply(PAID))
    scene = Scene(server, effect, compensate, **NO_OUTPUT)
    spec = scene.planned(StepFact()).program.spec
    assert asks_people(compile_step(spec, "a"), Effect(effect)) is asked
    fact = await scene.attempt()
    assert (fact.unknown is not None) is asked
    assert (fact.outcome is StepState.FAILED) is not asked
    assert fact.usage.tool_calls == 1


@pytest.mark.parametrize("effect", ["Once", "Idempotent"])
async def test_a_person_says_what_it_came_to(server: Loopback, effect: str) -> None:
    server.then(reply(PAID))
    scene = Scene(server, effect, UNDO_BY_ID, **NO_OUTPUT)
    await scene.attempt()
    assert scene.last()["answer"]["body"] == PAID
    assert '{"id": "p-1"}' in scene.last()["unknown"]["message"]
    fact = await scene.attempt(events=[scene.say("happened", result=PAID)])
    assert (fact.outcome, fact.output) == (StepState.SUCCEEDED, PAID)
    assert len(server.received) == 1


async def test_a_person_who_gives_up_does_not_make_it_undone(server: Loopback) -> None:
    server.then(reply(PAID))
    scene = Scene(server, "Once", UNDO_BY_ID, **NO_OUTPUT)
    await scene.attempt()
    fact = await scene.attempt(events=[scene.say("giveUp")])
    assert fact.outcome is StepState.FAILED and fact.happened
    assert fact.failure is not None and "which was carried out" in fact.failure.message
    assert scene.planned(fact).running == ["a.compensate"]
    # Its arguments cannot be had, and null is no payment: it fails rather than be made so.
    undone = await scene.attempt(StepKey("a", compensate=True), a=Ref("Failed", seq=fact.seq))
    assert undone.outcome is StepState.FAILED and undone.failure is not None
    assert "steps.a.output is missing" in undone.failure.message
    assert len(server.received) == 1


async def test_a_compensation_has_done_its_work_whatever_its_answer(server: Loopback) -> None:
    server.then(reply(PAID))
    scene = Scene(server, "Once", UNDO, **NO_OUTPUT)
    fact = await scene.attempt()
    undone = await scene.attempt(StepKey("a", compensate=True))
    assert [sent.target for sent in server.received] == ["/pay", "/undo"]
    assert undone.outcome is StepState.SUCCEEDED
    assert scene.last(StepKey("a", compensate=True))["answer"]["body"] == PAID
    assert fact.happened


async def test_a_call_that_happened_is_remembered_over_attempts_that_did_not_reach_anybody(server: Loopback) -> None:
    server.then(cut(HEAD + b"Content-Length: 99\r\n\r\n{"))
    scene = Scene(server, "Idempotent", UNDO, retry=1)
    first = await scene.attempt()
    assert (first.end, first.happened) == ("failed", True)
    assert scene.last()["answer"]["head" if "head" in scene.last()["answer"] else "body"] == "{"
    server.then(reply({"why": "not again"}, status=409))
    fact = await scene.attempt()
    assert fact.outcome is StepState.FAILED and fact.happened
    assert scene.planned(fact).running == ["a.compensate"]
    cancelled = compiled(step("a", compensate={"name": "t", "args": {"a": "1"}}))
    world = PlannerWorld(cancelled, facts={KEY: first}, now=first.at)
    world.append("cancelled")
    world.go()
    assert world.running == ["a.compensate"]


async def test_another_try_may_bring_the_whole_answer(server: Loopback) -> None:
    server.then(cut(HEAD + b"Content-Length: 99\r\n\r\n{"), reply(PAID))
    fact = await Scene(server, "Idempotent").attempt()
    assert (fact.outcome, fact.output) == (StepState.SUCCEEDED, PAID)
    assert len({sent.headers["idempotency-key"] for sent in server.received}) == 1


@pytest.mark.parametrize(
    ("answer", "happened", "words"),
    [
        (reply(status=302, location="/thanks"), "OutcomeUnknown", "does not say whether the call was carried out"),
        (reply(status=307, location="/x/"), "Failed", "redirects are not followed"),
        (reply(status=301, location="/x/"), "Failed", "redirects are not followed"),
        (reply(status=304), "Failed", "nothing has changed since"),
        (reply(status=300), "Failed", "without a Location"),
        (cut(b"HTTP/1.1 404 Not Found\r\nX y\r\n\r\n"), "Failed", "HTTP 404 Not Found"),
        (cut(b"HTTP/1.1 500 Oh\r\nX y\r\n\r\n"), "OutcomeUnknown", "HTTP 500 Internal Server Error"),
        (cut(b"HTTP/1.1 429 Slow\r\nX y\r\n\r\n"), "Failed", "HTTP 429 Too Many Requests"),
        (cut(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "OutcomeUnknown", "HTTP 101"),
        (cut(b"HTTP/1.1 2"), "OutcomeUnknown", "the connection was lost"),
        (cut(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "OutcomeUnknown", "the connection was lost"),
        (cut(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), "OutcomeUnknown", "the connection was lost"),
    ],
)
async def test_what_a_status_line_says_of_a_once_call(server: Loopback, answer: Any, happened: str, words: str) -> None:
    server.then(answer)
    scene = Scene(server, "Once", UNDO)
    fact = await scene.attempt()
    world = scene.planned(fact)
    assert not fact.happened and "a.compensate" not in world.running
    assert world.state("a") == happened
    message = fact.unknown.message if fact.unknown else fact.failure.message if fact.failure else ""
    assert words in message
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("size", "kind", "found"),
    [
        (1000, "text/plain", {"body": "a" * 1000}),
        (1_500_000, "text/plain", {"head": "a" * 49_152, "tail": "a" * 16_384}),
        (1000, "image/png", None),
    ],
)
async def test_what_is_kept_of_an_answer(server: Loopback, size: int, kind: str, found: Any) -> None:
    server.then(reply(b"a" * size, content_type=kind))
    scene = Scene(server, "Once", UNDO, maxBytes=2_000_000, **NO_OUTPUT)
    await scene.attempt()
    kept = scene.last()["answer"]
    assert (kept["bytes"], kept["contentType"], kept["whole"]) == (size, kind, True)
    if found is None:
        assert kept["body"]["base64"].startswith("YWFh")
    else:
        assert found.items() <= kept.items()


def test_the_records_of_a_step_that_asks_fold_to_a_small_state() -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:

        async def go() -> MemoryStore:
            async with loopback() as server:
                server.then(reply(b"a" * 900_000, content_type="text/plain"))
                scene = Scene(server, "Once", **NO_OUTPUT)
                await scene.attempt()
                return scene.store

        store = runner.run(go())
    state = fold(read_step(store, RUN, KEY))
    assert len(str(state.to_json())) < 10_000


@pytest.mark.parametrize(
    "last", [reply(status=500), reply({"why": "there already"}, status=409), cut()], ids=["500", "409", "cut"]
)
async def test_a_try_that_was_carried_out_is_not_undone_by_a_later_one(server: Loopback, last: Any) -> None:
    server.then(cut(HEAD + b"Content-Length: 99\r\n\r\n{"), last)
    scene = Scene(server, "Idempotent", UNDO)
    fact = await scene.attempt()
    assert fact.outcome is StepState.FAILED and fact.happened
    assert scene.last()["answer"]["status"] == 200
    assert scene.planned(fact).running == ["a.compensate"]


async def test_a_person_is_asked_although_a_later_attempt_was_refused(server: Loopback) -> None:
    server.then(cut(HEAD + b"Content-Length: 99\r\n\r\n{"))
    scene = Scene(server, "Idempotent", UNDO_BY_ID, retry=1)
    await scene.attempt()
    server.then(reply({"why": "there already"}, status=409))
    fact = await scene.attempt()
    assert fact.unknown is not None and "HTTP 409 Conflict" in fact.unknown.message


@pytest.mark.parametrize(("by", "who"), [("ana", "ana"), (None, "an unknown user"), (..., "an unknown user")])
async def test_an_answer_counts_though_nobody_recorded_whose_it_is(server: Loopback, by: Any, who: str) -> None:
    """A cluster without the admission policies records no name, and the first journals do not have the field."""
    server.then(cut())
    scene = Scene(server, "Once")
    await scene.attempt()
    fact = await scene.attempt(events=[scene.say("retry", by=by, result=None)])
    assert fact.unknown is not None and len(server.received) == 2
    [undone] = [r.body for r in read_step(scene.store, RUN, KEY, whole=True) if "undone" in r.body]
    assert undone["because"] == f"{who} says that it did not happen"
    fact = await scene.attempt(events=[scene.say("giveUp", by=by, result=None)])
    assert fact.failure is not None and fact.failure.message.startswith(f"{who} gave up on pay")
    other = Scene(server, "Once")
    await other.attempt()
    fact = await other.attempt(events=[other.say("happened", by=by, result=PAID)])
    assert fact.output == PAID
    lines = timeline({KEY: read_step(other.store, RUN, KEY, whole=True)}, [])
    assert any(f"(as {who} says, unverified)" in line.text for line in lines)
