"""The agent loop: ask the model, make the calls it asks for, until it answers.

The loop is level-triggered like the planner: each round reads the folded state. A resumed attempt therefore continues
exactly where the records end, and no committed model call is repeated.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from agentrun.api.facts import Usage
from agentrun.api.texts import as_text
from agentrun.api.workflow import Agent, FailureClass, Model
from agentrun.records.step_records import Kind, ModelCall, ResultBody, TurnBody
from agentrun.runner.attempt import Attempt
from agentrun.runner.budget import cost, estimate, reserve_model
from agentrun.runner.calls_in_text import call_in_text
from agentrun.runner.compaction import compact, outgrown
from agentrun.runner.failures import ContextOverflow, Failure
from agentrun.runner.history import History
from agentrun.runner.models import ModelClient, Request, ToolSpec, Turn
from agentrun.runner.structured import parse_structured
from agentrun.runner.tool_calls import Tools, answer_calls

REPAIRS_MAX = 2
"""How often in a row the model is asked again for an answer that is empty, cut off or does not fit its schema."""

NO_PARSER = "a server of your own has to be started with the tool parser of its model; vLLM: --tool-call-parser"
"""What people do about calls that stay in the text."""

CUT_OFF = "not called: your answer was cut off before it was complete"


async def run_agent_step(attempt: Attempt, agent: Agent) -> dict[str, Any]:
    """Run an agent step. Return ``{"output": …}``: the model's text, or JSON if the step has a schema.

    Cancellation abandons the call in hand; what was committed stays.

    Raises:
        Parked: the step waits for people or for budget, or the attempt was asked to stop.
        Failure: the attempt failed, with the class of the failure.
    """
    model = attempt.model
    assert model is not None
    tools = Tools(attempt, agent.tools)
    client = await asyncio.to_thread(attempt.ports.open_model, model, attempt.ports.secret)
    try:
        return await _Loop(attempt, agent, model, client, tools).run()
    finally:
        await tools.close()
        await client.close()


class _Loop:
    def __init__(self, attempt: Attempt, agent: Agent, model: Model, client: ModelClient, tools: Tools) -> None:
        self.attempt, self.model, self.client, self.tools, self.agent = attempt, model, client, tools, agent
        self.task = attempt.task
        known = {tool.name: tool for tool in attempt.workflow.tools}
        self._history = History(client, as_text(self.task["prompt"]))
        self.specs = [ToolSpec(n, known[n].description, known[n].parameters) for n in agent.tools]

    async def run(self) -> dict[str, Any]:
        state = self.attempt.state
        while True:
            if state.pending:
                await answer_calls(self.attempt, self.tools)
            elif state.last is not None and not _asks_again(state.history):
                output = await self._finish(state.last)
                if output is not None:
                    return output
            else:
                self.attempt.check_stop()
                await self._turn()

    async def _turn(self) -> None:
        state = self.attempt.state
        if state.turns >= self.agent.max_turns:
            message = f"the agent did not finish within maxTurns ({self.agent.max_turns})"
            raise Failure(FailureClass.BUDGET, message, retryable=False)
        if outgrown(self.attempt, self.model):
            await compact(self.attempt, self.agent, self.model, self.client, self.model.context_window)
        request = self.request()
        expected = self._expected(request)
        limit = reserve_model(self.attempt, self.agent, self.model, expected)
        began = self.attempt.ports.monotonic()
        try:
            turn = await self.client.ask(_limited(request, limit))
        except ContextOverflow:
            if not state.history:  # the prompt alone is too long, and it cannot be compacted
                raise
            # The estimate was too low, or the window is smaller than the workflow says. The window is taken to be no
            # larger than ``expected``. The history is compacted once; a second overflow fails the attempt.
            await compact(self.attempt, self.agent, self.model, self.client, min(expected, self.model.context_window))
            request = self.request()
            expected = self._expected(request)
            limit = reserve_model(self.attempt, self.agent, self.model, expected)
            turn = await self.client.ask(_limited(request, limit))
        seconds = self.attempt.ports.monotonic() - began
        await self.attempt.commit(Kind.TURN, self._record(turn, expected, seconds))

    def request(self) -> Request:
        """The next request, with the history in the form of the model's API."""
        return Request(
            instructions=as_text(self.task.get("instructions", "")),
            history=self._history.items(self.attempt.state.history),
            tools=self.specs,
            output_schema=self.agent.output,
            refused=self.attempt.refused,
        )

    def _expected(self, request: Request) -> int:
        """About how many tokens the request takes: the model's last count, plus an estimate of what was added since."""
        state = self.attempt.state
        if not state.context:
            tools = [[t.name, t.description, t.parameters] for t in self.specs]
            return estimate([request.instructions, list(request.history), tools, self.agent.output])
        since = 0
        for entry in reversed(state.history):
            if "items" in entry:
                break
            since += estimate(entry)
        return state.context + since

    def _record(self, turn: Turn, expected: int, seconds: float) -> TurnBody:
        number = self.attempt.state.turns + 1
        cut = CUT_OFF if turn.incomplete else None
        calls: list[ModelCall] = []
        for n, c in enumerate(turn.calls):
            # Our own ids: an endpoint may use the same ids in every turn.
            call: ModelCall = {"id": f"{number}-{n}", "callId": c.id, "name": c.name, "args": c.args}
            if why := c.error or cut:
                call["error"] = why
            calls.append(call)
        spent = turn.usage
        estimated = spent.input == 0 or spent.output == 0
        if estimated:
            # An endpoint that reports no usage must not make a budget unlimited. The record marks it as estimated.
            spent = replace(spent, input=spent.input or expected, output=spent.output or estimate(turn.items))
        usage = Usage(
            1,
            spent.input,
            spent.cached,
            spent.output,
            0,
            cost(self.model.price, spent.input, spent.cached, spent.output),
        )
        found: TurnBody = {
            "items": turn.items,
            "calls": calls,
            "text": turn.text,
            "usage": usage.to_json(),
            "refusal": turn.refusal,
            "incomplete": turn.incomplete,
            "responseId": turn.response_id,
            "model": turn.model,
            "seconds": round(seconds, 3),
        }
        if estimated:
            found["usageEstimated"] = True
        return found

    async def _finish(self, last: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer if it can be used; else record a repair request, up to ``REPAIRS_MAX`` in a row.

        Raises:
            Failure: the model refused, or the repairs are used up.
        """
        if last["refusal"]:
            raise Failure(FailureClass.PROVIDER, f"the model refused: {last['refusal']}", retryable=False)
        text: str = last["text"] or ""
        value: Any = text
        errors: list[str] = []
        if last["incomplete"]:
            errors = [f"it was cut off ({last['incomplete']}): answer more briefly"]
        elif self.agent.output is not None:
            value, errors = parse_structured(text, self.agent.output)
        elif not text.strip():
            errors = ["it was empty"]
        if (errors or self.agent.output is None) and (tool := call_in_text(text, self.agent.tools)) is not None:
            errors.insert(0, f"it holds a call of {tool} as text, of which the endpoint made no call ({NO_PARSER})")
        if not errors:
            return {"output": value}
        if self.attempt.state.repairs >= REPAIRS_MAX:
            message = f"the model's answer is still invalid after {REPAIRS_MAX} corrections: {'; '.join(errors)}"
            raise Failure(FailureClass.INVALID, message, retryable=True)
        repair = "Your last answer cannot be used: " + "; ".join(errors) + ". Give the whole answer again, corrected."
        again: ResultBody = {"repair": repair}
        await self.attempt.commit(Kind.RESULT, again)
        return None


def _asks_again(history: list[dict[str, Any]]) -> bool:
    """Whether the model is to be asked: the history is empty, or something follows the model's last turn."""
    return not history or "items" not in history[-1]


def _limited(request: Request, limit: int | None) -> Request:
    return replace(request, max_output_tokens=limit)
