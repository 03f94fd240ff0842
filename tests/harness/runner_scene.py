"""Runs an agent step in this process, with a model and tools that a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, cast

from agentrun.api.facts import Allowance, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.workflow import FailureClass
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.fold import Folded, fold
from agentrun.journal.log import EventLog, manifest_bytes, read_step
from agentrun.journal.paths import RunPath
from agentrun.plan.snapshot import Start
from agentrun.runner.attempt import run_attempt
from agentrun.runner.dispatch import work
from agentrun.runner.failures import ContextOverflow
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.models import ModelCall, Request, Turn, Usage
from agentrun.runner.ports import Ports
from agentrun.runner.tool_client import ToolOutput
from agentrun.store.protocol import StoreUnavailable
from tests.harness.memory_store import MemoryStore
from tests.harness.virtual_time import SkippingLoop
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


async def _turns() -> None:
    """Let timers that are due run, and the tasks that they cancel."""
    for _ in range(3):
        await asyncio.sleep(0)


class Scene:
    """One step, with one attempt after the other."""

    def __init__(self, *answers: Turn | Exception, tool: Call = ok, window: int | None = None) -> None:
        self.store, self.model, self.tool = MemoryStore(), ScriptedModel(*answers), tool
        model = {"name": "m", "model": "gpt", "price": PRICE} | ({"contextWindow": window} if window else {})
        agent = {"prompt": "go", "tools": ["look", "pay"]}
        workflow = {"tools": TOOLS, "models": [model], "steps": [{"name": "a", "agent": agent}]}
        about = {"v": 1, "name": "r", "namespace": "n", "uid": "0" * 32, "requestedBy": "me", "inputs": {}}
        self.store.create(RUN.manifest, manifest_bytes({**about, "workflow": workflow}))
        self.now, self.number = 1000.0, 0
        self.told: dict[str, Any] = {}
        """Further fields of the ``Start`` of the next attempts."""

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    def attempt(self, allowance: Allowance | None = None, events: Sequence[int] = ()) -> StepFact:
        """Run the next attempt, and return its fact."""
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            self.loop = cast("SkippingLoop", runner.get_loop())
            return runner.run(self._run(allowance or Allowance(), events))

    async def _run(self, allowance: Allowance, events: Sequence[int]) -> StepFact:
        self.number += 1
        self.task = cast("asyncio.Task[StepFact]", asyncio.current_task())
        start = Start(KEY, self.number, {}, tuple(events), allowance, 60.0, **self.told)
        ports = Ports(
            clock=self.clock,
            open_store=lambda url: self.store,
            send_within=5,
            open_model=lambda *_: self.model,
            open_tool=lambda *_: ScriptedTool(self.tool),
        )
        _, fact = await run_attempt(AttemptSpec("memory", RUN, start), ports, work, Mailbox())
        check_all(read_step(self.store, RUN, KEY, whole=True))
        return fact

    def say(self, kind: str, **body: Any) -> int:
        log = EventLog(self.store, RUN, self.clock)
        log.refresh()
        log.append(kind, body)
        return log.records[-1].seq

    def meanwhile(self, kind: str, happens: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``happens`` in the event loop while a record of that kind is being written."""
        self.store.remote = True
        create = self.store.create

        def creating(key: str, data: bytes) -> Any:
            if f'"kind":"{kind}"'.encode() in data:
                asyncio.run_coroutine_threadsafe(happens(), self.loop).result(30)
            return create(key, data)

        self.store.create = creating  # type: ignore[method-assign]

    async def time_goes_by(self) -> None:
        """Make all timers of the event loop due."""
        self.loop.skipped += 1e6
        await _turns()

    async def told_to_end_twice(self) -> None:
        for _ in range(2):
            self.task.cancel()
            await _turns()

    def fails(self, kind: str) -> None:
        """Make the store fail for records of that kind."""
        create = self.store.create

        def fail(key: str, data: bytes) -> Any:
            if f'"kind":"{kind}"'.encode() in data:
                raise StoreUnavailable("away")
            return create(key, data)

        self.store.create = fail  # type: ignore[method-assign]

    @property
    def state(self) -> Folded:
        return fold(read_step(self.store, RUN, KEY, whole=True))
