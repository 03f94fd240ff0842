"""A tool step or a compensation: makes one call and turns its result into the step's outcome."""

from __future__ import annotations

from typing import Any

from agentrun.api.facts import FailureInfo
from agentrun.api.tools import ToolCall
from agentrun.api.workflow import FailureClass
from agentrun.plan.effects import asks_people
from agentrun.records.step_records import Kind, ModelCall
from agentrun.runner.attempt import Attempt, unknown_of
from agentrun.runner.failures import MESSAGE_MAX, Failure, plain
from agentrun.runner.gates import require
from agentrun.runner.outcomes import Closed, Parked, failed
from agentrun.runner.tool_calls import Answer, Tools

REFUSAL_MAX = 200
"""Characters of a refusal (a 4xx, often a page of HTML) that the step's failure quotes."""


async def run_tool_step(attempt: Attempt, tool: ToolCall) -> dict[str, Any]:
    """Run a tool step or a compensation: one call, whose value is the step's output.

    Raises:
        Parked: the step waits for people or for budget, or the attempt was asked to stop.
        Failure: the call failed, was refused, or was rejected.
        Closed: the tool answered with an error, or the call was carried out without a usable answer.
    """
    tools = Tools(attempt)
    try:
        call: ModelCall = {"id": "call", "callId": "call", "name": tool.name, "args": attempt.task["args"]}
        allowed = require(tools.judge(call), attempt)
        call = allowed.call
        attempt.check_stop()
        try:
            answer = await (tools.make_once(allowed) if tools.is_once(call) else tools.make(call))
        except Failure as failure:
            happened = failure.kept is not None or attempt.state.happened
            if not happened or attempt.is_retried(failure.info):
                raise
            answer = Answer(None, failure.message, is_error=True, kept=failure.kept)
        if answer.kept is not None or (answer.is_error and attempt.state.happened):
            return await _carried_out(attempt, tools, call, answer)
    finally:
        await tools.close()
    if answer.is_error:
        # The tool answered with an error. That is the result of the call, known and final.
        raise failed(FailureInfo(FailureClass.TOOL, plain(answer.text, REFUSAL_MAX), retryable=False))
    return {"output": answer.value}


async def _carried_out(attempt: Attempt, tools: Tools, call: ModelCall, answer: Answer) -> dict[str, Any]:
    """End the step after its call, or an earlier try of it, was carried out and its answer cannot be used.

    A compensation succeeds without an output: its purpose is fulfilled. For a step, ``asks_people`` decides whether a
    person is asked or the step fails.

    Raises:
        Parked: a person is asked for the result.
        Closed: the step failed, and its call took effect.
    """
    if attempt.spec.start.key.compensate:
        return {"output": None, "answer": answer.kept}
    what, _, came = answer.text.partition("\n")
    if asks_people(attempt.step, tools.effect(call)):
        if attempt.state.intent is None:  # a person has to settle it now, as a Once call
            attempt.uncounted -= 1
            await attempt.commit(Kind.INTENT, tools.intent(call))
        unknown = unknown_of(attempt)
        assert unknown is not None
        told = f"the call happened, so it is not made again; give its result, or give up. {came}"
        unknown["unknown"] |= {"message": plain(f"{call['name']}: {what}; {told}"), "happened": True}
        raise Parked(unknown | {"answer": answer.kept})
    message = plain(f"{what}; the call happened anyway", MESSAGE_MAX)
    info = FailureInfo(FailureClass.TOOL, message, retryable=False, happened=True)
    raise Closed(failed(info).body | {"answer": answer.kept})
