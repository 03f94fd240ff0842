"""An agent's attempt with a scripted model and tool: what is counted, what is asked, and what is not asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal, cast

import pytest

from agentrun.api.facts import Allowance, StepFact, StepKey
from agentrun.api.workflow import FailureClass
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.fold import Folded, fold
from agentrun.journal.layout import RunPath
from agentrun.journal.log import EventLog, manifest_bytes, read_step
from agentrun.plan.attempts import time_left
from agentrun.records.step_records import Kind
from agentrun.runner.attempt import run_attempt
from agentrun.runner.failures import ContextOverflow, Failure
from agentrun.runner.models import ModelCall, Request, Turn, Usage
from agentrun.runner.ports import Ports
from agentrun.runner.tool_client import ToolOutput
from agentrun.runner.work import work
from agentrun.store.protocol import StoreUnavailable
from tests.unit.journal_world import MemoryStore
from tests.unit.record_forms import check_all

RUN, KEY = RunPath("n", "r", "0" * 32), StepKey("a")
PRICE = {"input": "1", "output": "2", "cachedInput": "0"}
TOOLS = [
    {"name": "look", "effect": "ReadOnly", "http": {"url": "http://t.example/"}},
    {"name": "pay", "http": {"url": "http://t.example/"}},
]
OVERFLOW = ContextOverflow(FailureClass.PROVIDER, "too long", retryable=False)

Call = Callable[[], ToolOutput]


def ok() -> ToolOutput:
    return ToolOutput(200, "ok", "ok")


def unanswered() -> ToolOutput:
    raise Failure(FailureClass.TOOL, "no answer", retryable=True, happened="unknown")


def said(text: str | None = None, *calls: str, usage: Usage | None = None) -> Turn:
    asked = tuple(ModelCall(f"c{number}", name, {}) for number, name in enumerate(calls))
    items: list[dict[str, Any]] = [
        {"type": "function_call", "call_id": f"c{number}", "name": name, "arguments": "{}"}
        for number, name in enumerate(calls)
    ]
    if text is not None:
        items.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
    return Turn(items, text, asked, usage or Usage(100, 0, 10), None, None, "x", "m")


class ScriptedModel:
    api: Literal["chat", "responses"] = "responses"

    def __init__(self, *answers: Turn | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    def user(self, text: str) -> dict[str, Any]:
        return {"role": "user", "content": text}

    def tool_result(self, call_id: str, name: str, output: str) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": call_id, "output": output}

    async def ask(self, request: Request) -> Turn:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


class ScriptedTool:
    def __init__(self, call: Call) -> None:
        self._call = call

    async def call(self, *_: Any, before_send: Callable[[], None] | None = None, **__: Any) -> ToolOutput:
        if before_send is not None:
            before_send()
        return self._call()

    async def close(self) -> None:
        pass


class SkippingLoop(asyncio.SelectorEventLoop):
    skipped = 0.0
    """Seconds that went by at once."""

    def time(self) -> float:
        return super().time() + self.skipped


async def _turns() -> None:
    """Let timers that are due, and what they cancel, have their turn."""
    for _ in range(3):
        await asyncio.sleep(0)


class Scene:
    """One step, whose attempts come one after the other."""

    def __init__(self, *answers: Turn | Exception, tool: Call = ok, window: int | None = None) -> None:
        self.store, self.model, self.tool = MemoryStore(), ScriptedModel(*answers), tool
        model = {"name": "m", "model": "gpt", "price": PRICE} | ({"contextWindow": window} if window else {})
        agent = {"prompt": "go", "tools": ["look", "pay"]}
        workflow = {"tools": TOOLS, "models": [model], "steps": [{"name": "a", "agent": agent}]}
        about = {"v": 1, "name": "r", "namespace": "n", "uid": "0" * 32, "requestedBy": "me", "inputs": {}}
        self.store.create(RUN.manifest, manifest_bytes({**about, "workflow": workflow}))
        self.now, self.number = 1000.0, 0
        self.told: dict[str, Any] = {}
        """What the next attempts are told besides."""

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    def attempt(self, allowance: Allowance | None = None, events: Sequence[int] = ()) -> StepFact:
        """The next attempt; what it came to."""
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            self.loop = cast("SkippingLoop", runner.get_loop())
            return runner.run(self._run(allowance or Allowance(), events))

    async def _run(self, allowance: Allowance, events: Sequence[int]) -> StepFact:
        self.number += 1
        self.task = cast("asyncio.Task[StepFact]", asyncio.current_task())
        told = AttemptSpec("memory", RUN, KEY, self.number, {}, tuple(events), allowance, 60.0, **self.told)
        ports = Ports(
            clock=self.clock,
            open_store=lambda url: self.store,
            send_within=5,
            open_model=lambda *_: self.model,
            open_tool=lambda *_: ScriptedTool(self.tool),
        )
        _, fact = await run_attempt(told, ports, work, asyncio.Event())
        check_all(read_step(self.store, RUN, KEY, whole=True))
        return fact

    def say(self, kind: str, **body: Any) -> int:
        log = EventLog(self.store, RUN, self.clock)
        log.refresh()
        log.append(kind, body)
        return log.records[-1].seq

    def meanwhile(self, kind: str, happens: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let something happen in the event loop while a record of that kind is being written."""
        self.store.remote = True
        create = self.store.create

        def creating(key: str, data: bytes) -> Any:
            if f'"kind":"{kind}"'.encode() in data:
                asyncio.run_coroutine_threadsafe(happens(), self.loop).result(30)
            return create(key, data)

        self.store.create = creating  # type: ignore[method-assign]

    async def time_goes_by(self) -> None:
        """All timers of the event loop are due."""
        self.loop.skipped += 1e6
        await _turns()

    async def told_to_end_twice(self) -> None:
        for _ in range(2):
            self.task.cancel()
            await _turns()

    def fails(self, kind: str) -> None:
        """Let the store take no records of that kind."""
        create = self.store.create

        def fail(key: str, data: bytes) -> Any:
            if f'"kind":"{kind}"'.encode() in data:
                raise StoreUnavailable("away")
            return create(key, data)

        self.store.create = fail  # type: ignore[method-assign]

    @property
    def state(self) -> Folded:
        return fold(read_step(self.store, RUN, KEY, whole=True))


@pytest.fixture(autouse=True)
def without_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ports, "preload", lambda self: None)


# -- calls that nobody needs to be asked about -----------------------------------------------------------------------


def test_a_call_that_did_not_happen_is_made_again_within_the_budget() -> None:
    """The budget had counted it: the answer "try again" led to the same question, as often as it was given."""
    calls: list[int] = []

    def pay() -> ToolOutput:
        calls.append(1)
        if len(calls) == 1:
            raise Failure(FailureClass.TOOL, "no answer", retryable=True, happened="unknown")
        return ok()

    scene = Scene(said(None, "pay"), said("done"), tool=pay)
    fact = scene.attempt(Allowance(tool_calls=1, last=True))
    assert fact.unknown is not None
    answer = {"step": "a", "callId": fact.unknown.call_id, "attempt": 1, "answer": "retry", "by": "me"}
    again = scene.attempt(Allowance(tool_calls=0, last=True), [scene.say("resolved", **answer)])
    assert again.outcome == "Succeeded"
    assert (len(calls), again.usage.tool_calls) == (2, 1)


def test_a_call_that_did_not_happen_has_all_of_its_time_until_it_is_begun_again() -> None:
    """The first one had used it up: an attempt that died after it took the answer left none to the next."""
    scene = Scene(said(None, "pay"), tool=unanswered)
    fact = scene.attempt()
    assert fact.unknown is not None
    answer = {"step": "a", "callId": fact.unknown.call_id, "attempt": 1, "answer": "retry", "by": "me"}
    event = scene.say("resolved", **answer)
    scene.fails("intent")
    with pytest.raises(StoreUnavailable):
        scene.attempt(events=[event])
    fact = scene.state.fact()
    assert fact.again and fact.unknown is None
    assert time_left(replace(fact, intervals=((0.0, 100.0),)), 60.0) == 60.0


def test_a_person_is_not_asked_again_where_a_call_that_did_not_happen_is_not_begun_anew() -> None:
    """The step's time was over before: what was asked again was whether the first call had happened."""
    scene = Scene(said(None, "pay"), tool=unanswered)
    fact = scene.attempt()
    assert fact.unknown is not None
    answer = {"step": "a", "callId": fact.unknown.call_id, "attempt": 1, "answer": "retry", "by": "me"}
    event = scene.say("resolved", **answer)
    scene.meanwhile("intent", scene.time_goes_by)
    again = scene.attempt(events=[event])
    assert again.unknown is None
    assert again.failure is not None and again.failure.failure_class is FailureClass.TIMEOUT


def test_a_call_whose_time_is_over_before_it_is_sent_did_not_happen() -> None:
    """Its intent was being written when the step's time was over: a person was asked about a call that never was."""
    calls: list[int] = []

    def pay() -> ToolOutput:
        calls.append(1)
        return ok()

    scene = Scene(said(None, "pay"), tool=pay)
    scene.meanwhile("intent", scene.time_goes_by)
    fact = scene.attempt()
    assert not calls
    assert fact.unknown is None
    assert fact.failure is not None and fact.failure.failure_class is FailureClass.TIMEOUT


def test_an_answer_that_is_being_written_is_kept_however_often_the_attempt_is_told_to_end() -> None:
    """Its time was over, and then its grace period: `waiting` took the number of the answer, which was paid twice."""
    scene = Scene(said("x"))
    scene.meanwhile("turn", scene.told_to_end_twice)
    scene.attempt()
    assert [record.kind for record in read_step(scene.store, RUN, KEY, whole=True)] == [
        Kind.OPENED,
        Kind.TURN,
        Kind.WAITING,
    ]


# -- what is counted -------------------------------------------------------------------------------------------------


def test_a_request_after_a_summary_is_reserved_anew() -> None:
    scene = Scene(said(None, "look"), OVERFLOW, said("summary"), said("done"))
    scene.attempt(Allowance(model_calls=2, last=True))
    assert len(scene.model.asked) == 3
    assert scene.state.usage["modelCalls"] == 2


def test_a_summary_of_an_endpoint_that_counts_nothing_is_estimated() -> None:
    long = "x" * 3000
    turns = [said(None, "look"), said(None, "look", usage=Usage(900, 0, 10))]
    scene = Scene(
        *turns, said(long, usage=Usage()), said("done"), tool=lambda: ToolOutput(200, long, long), window=1000
    )
    scene.attempt()
    records = read_step(scene.store, RUN, KEY, whole=True)
    [summary] = [record for record in records if record.kind == Kind.COMPACTED][:1]
    assert summary.body["usage"]["inputTokens"] > 0


def test_a_summary_that_says_nothing_replaces_no_history() -> None:
    """The model had spent its answer on thoughts: the history was replaced by "(none)"."""
    scene = Scene(said(None, "look"), said(None, "look"), OVERFLOW, said(" \n"))
    fact = scene.attempt()
    assert fact.failure is not None
    assert "summary of its history was empty" in fact.failure.message
    assert not [r for r in read_step(scene.store, RUN, KEY, whole=True) if r.kind == Kind.COMPACTED]


@pytest.mark.parametrize("usage", [Usage(0, 0, 7), Usage(100, 0, 0), Usage()])
def test_a_count_that_is_not_reported_is_estimated_alone(usage: Usage) -> None:
    scene = Scene(said("done", usage=usage))
    scene.attempt()
    spent = scene.state.usage
    assert (spent["inputTokens"] > 0, spent["outputTokens"] > 0) == (True, True)
    assert usage.input in (0, spent["inputTokens"]) and usage.output in (0, spent["outputTokens"])


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_an_answer_of_blanks_is_none(blank: str) -> None:
    scene = Scene(said(blank), said("done"))
    assert scene.attempt().output == "done"


def test_more_cached_tokens_than_input_earn_no_budget() -> None:
    scene = Scene(said("done", usage=Usage(10, 1_000_000, 5)))
    scene.attempt()
    assert Decimal(scene.state.usage["costUSD"]) >= 0


def test_a_large_budget_asks_for_no_longer_answer_than_the_window_has() -> None:
    scene = Scene(said("done"))
    scene.attempt(Allowance(tokens=5_000_000, last=True))
    assert scene.model.asked[0].max_output_tokens is None


def test_an_agent_is_told_that_a_call_was_made_whose_answer_it_cannot_use() -> None:
    """It read like a refusal, and so it was made again."""
    kept = {"status": 200, "bytes": 9, "body": "x" * 100_000}
    unusable = ToolOutput(200, {"error": "e"}, "answered with HTTP 200 OK, but no", is_error=True, kept=kept)
    scene = Scene(said(None, "pay", "look"), said("done"), tool=lambda: unusable)
    assert scene.attempt().outcome == "Succeeded"
    records = read_step(scene.store, RUN, KEY, whole=True)
    results = [result for record in records for result in record.body.get("results", ())]
    told = {result["tool"]: result for result in results}
    assert "has taken effect, so do not make it again" in told["pay"]["output"]
    assert told["pay"]["answer"] == kept
    assert "has taken effect" not in told["look"]["output"] and "answer" not in told["look"]  # it only reads
    assert "xxx" not in str(scene.state.to_json())  # nor does every checkpoint hold it


def test_no_record_holds_a_secret_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "very-secret-0123456789")
    echo = "Bearer very-secret-0123456789"
    scene = Scene(
        said(f"I read {echo}", "look"),
        said(f"It was {echo[7:].encode().hex()}"),
        tool=lambda: ToolOutput(200, echo, echo),
    )
    fact = scene.attempt()
    assert fact.output == "It was ***"
    written = b"".join(scene.store.objects.values())
    assert b"0123456789" not in written
