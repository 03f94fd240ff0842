"""Calls that were surely carried out, and whose answers are of no use: nothing of them is forgotten or done twice."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from agentrun.api.facts import Allowance, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.api.tools import Effect
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.fold import fold
from agentrun.journal.log import EventLog, manifest_bytes, read_step
from agentrun.journal.paths import RunPath
from agentrun.plan.effects import asks_people
from agentrun.plan.snapshot import Ref, Start
from agentrun.query.timeline import timeline
from agentrun.runner.attempt import run_attempt
from agentrun.runner.dispatch import work
from agentrun.runner.http_tool import HttpTool
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.ports import Ports
from agentrun.workflow.program import compile_step
from tests.harness.loopback import Loopback, cut, endless, hang, loopback, reply
from tests.harness.memory_store import MemoryStore
from tests.harness.planner_world import PlannerWorld, compiled, step
from tests.harness.virtual_time import SkippingLoop
from tests.unit.record_forms import check_all

RUN, KEY = RunPath("n", "r", "0" * 32), StepKey("a")
UNDO, UNDO_BY_ID = {"name": "undo", "args": {"n": 1}}, {"name": "undo", "args": {"id": "${steps.a.output.id}"}}
PAID = {"id": "p-1"}
INPUTS: dict[str, Any] = {"orders": ["x", "y", "z"]}
FAN = {"forEach": {"items": "${inputs.orders}", "maxParallel": 3}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Scene:
    """One step that calls a tool of a real server, and what it may undo it with."""

    def __init__(
        self,
        server: Loopback,
        effect: str,
        compensate: Any = None,
        retry: int = 0,
        fields: Mapping[str, Any] | None = None,
        **http: Any,
    ) -> None:
        """``fields``: further fields of the step. Everything else in ``http`` is the tool's."""
        self.store, self.server = MemoryStore(), server
        paying = {"url": f"{server.url}/pay", **http}
        tools = [
            {"name": "pay", "effect": effect, "http": paying},
            {
                "name": "undo",
                "effect": "Once",
                "http": {"url": f"{server.url}/undo", "output": "response.body.there.is.none"},
            },
        ]
        made = {"name": "a", "tool": {"name": "pay", "args": {"n": 1}}, "retry": {"limit": retry}, **(fields or {})}
        self.step = made | ({"compensate": compensate} if compensate else {})
        about = {"v": 1, "name": "r", "namespace": "n", "uid": "0" * 32, "requestedBy": "me", "inputs": INPUTS}
        self.tools = tools
        workflow = {"tools": tools, "steps": [self.step]}
        self.store.create(RUN.manifest, manifest_bytes({**about, "workflow": workflow}))
        self.now, self.number, self.send_within = 1000.0, 0, 60.0

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    async def attempt(self, key: StepKey = KEY, events: Sequence[int] = (), **refs: Ref) -> StepFact:
        self.number += 1

        async def no_sleep(_: float) -> None:
            pass

        ports = Ports(
            clock=self.clock,
            open_store=lambda _: self.store,
            send_within=self.send_within,
            open_tool=lambda tool, secret: HttpTool(tool, secret, sleep=no_sleep),
        )
        start = Start(key, self.number, refs, tuple(events), Allowance(), 60.0)
        _, fact = await run_attempt(AttemptSpec("memory", RUN, start), ports, work, Mailbox())
        check_all(read_step(self.store, RUN, key, whole=True))
        return fact

    def last(self, key: StepKey = KEY) -> dict[str, Any]:
        body: dict[str, Any] = read_step(self.store, RUN, key)[-1].body
        return body

    def planned(self, fact: StepFact, key: StepKey = KEY) -> PlannerWorld:
        """The planner's world, once the attempt of ``key`` ended so."""
        from agentrun.api.workflow import WorkflowSpec
        from agentrun.workflow.program import compile_program

        program = compile_program(WorkflowSpec.model_validate({"tools": self.tools, "steps": [self.step]}))
        world = PlannerWorld(program, inputs=INPUTS, facts={key: fact}, now=fact.at or 1000.0)
        world.go()
        return world

    def say(self, answer: str, key: StepKey = KEY, **more: Any) -> int:
        log = EventLog(self.store, RUN, self.clock)
        log.refresh()
        body = {"step": key.label, "callId": "call", "attempt": self.number, "answer": answer, "by": "ana", **more}
        assert log.append("resolved", {name: value for name, value in body.items() if value is not ...})
        return len(log.records)


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with loopback() as found:
        yield found


NO_OUTPUT: dict[str, Any] = {"output": "response.body.payment.id"}

# The answer, the tool's http, and the words that say what is wrong with it.
FINAL = {
    "output that is not there": (reply(PAID), NO_OUTPUT, "output has no value"),
    "output of what is no JSON": (reply(b"{oops"), NO_OUTPUT, "output has no value"),
    "output of a text": (reply(b"paid", content_type="text/plain"), NO_OUTPUT, "output has no value"),
    "output of a binary": (reply(b"\x89PNG\xff", content_type="image/png"), NO_OUTPUT, "output has no value"),
    "output of nothing": (reply(b"", status=204), NO_OUTPUT, "output has no value"),
    "output that is too large": (reply(["x" * 999] * 300), {"output": "response.body"}, "larger than 256 KiB"),
    "nested too deep": (reply(b"[" * 500 + b"]" * 500), NO_OUTPUT, "output has no value"),
    "too large": (endless(b"x" * 65_536), {"maxBytes": 1000}, "larger than the tool's maxBytes"),
    "too large once unpacked": (
        reply(gzip.compress(b"x" * 9_000_000, mtime=0), content_encoding="gzip"), {}, "larger than the tool's maxBytes"
    ),
    "another coding": (reply(b"\x0b\x02\x80hi\x03", content_encoding="br"), {}, 'is encoded as "br"'),
    "no gzip": (reply(b"\x0b\x02\x80hi\x03", content_encoding="gzip"), {}, "is not the gzip"),
    "half a gzip": (reply(gzip.compress(b"x" * 999, mtime=0)[:20], content_encoding="gzip"), {}, "was cut off"),
    "see other": (reply(status=303, location="/receipt"), {}, "303 See Other to /receipt"),
}  # fmt: skip

# The connection's fault: for a call that may be repeated another try might bring the whole.
PASSING = {
    "body cut off": (cut(HEAD + b"Content-Length: 99\r\n\r\n{"), {}, "cannot be read to its end"),
    "chunks without an end": (cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"), {}, "cannot be read"),
    "a chunk that is none": (cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{"), {}, "illegal chunk header"),
    "a body that does not come": (hang(HEAD + b"Content-Length: 9\r\n\r\n{"), {"timeout": "400ms"}, "did not come"),
    "a head that does not end": (hang(HEAD), {"timeout": "400ms"}, "did not come within"),
    "a head that is cut off": (cut(HEAD + b"X-"), {}, "cannot be read to its end"),
    "a blank before the colon": (cut(HEAD + b"X-Powered-By : legacy\r\n\r\n{}"), {}, "illegal header line"),
    "a folded line at the start": (cut(b"HTTP/1.1 200 OK\r\n folded\r\n\r\n{}"), {}, "cannot be read"),
    "a header without a colon": (cut(HEAD + b"hello\r\n\r\n{}"), {}, "illegal header line"),
    "a head without bounds": (cut(HEAD + b"X: y\r\n" * 30_000), {}, "cannot be read to its end"),
    "two lengths": (cut(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), {}, "cannot be read"),
    "no length": (cut(HEAD + b"Content-Length: many\r\n\r\n{}"), {}, "cannot be read"),
    "an odd transfer": (cut(HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}"), {}, "cannot be read"),
    "a reason with a control character": (cut(b"HTTP/1.1 200 O\x00K\r\n\r\n{}"), {}, "illegal status line"),
    "hints, and then such": (
        cut(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nX y\r\n\r\n"), {}, "HTTP 201 Created"
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize(
    ("answer", "http", "words"), [*FINAL.values(), *PASSING.values()], ids=[*FINAL, *PASSING]
)


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


# -- where a step has items, retries and continueOnError ---------------------------------------------------------------


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
