"""Makes the tool calls of an attempt, each as its tool's effect requires.

ReadOnly and Idempotent calls of one turn run in parallel and are committed together. A ``Once`` call runs alone: its
``intent`` is committed, the call is made, its result is committed. If the process dies in between, an intent without a
result remains, and the outcome is unknown. People are asked about calls after all other calls of the turn are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentrun.api.facts import ApprovalRequest
from agentrun.api.keys import CallKey
from agentrun.api.tools import Effect
from agentrun.api.workflow import FailureClass
from agentrun.expressions.templates import ExpressionError
from agentrun.records.step_records import CallResult, IntentBody, Kind, ModelCall, ResultBody
from agentrun.runner.attempt import Attempt
from agentrun.runner.budget import over_budget
from agentrun.runner.failures import Failure
from agentrun.runner.gates import Allow, Ask, Context, Decision, Refuse, Wait, judge, require
from agentrun.runner.outcomes import Parked
from agentrun.runner.tool_client import ToolClient

SHOWN_MAX = 64 * 1024
"""Characters of a tool's answer that a model is shown. Expressions of a workflow see the whole answer."""


HAPPENED = "The call was made and has taken effect, so do not make it again. Only its answer cannot be used."


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call: ``value`` for the workflow, ``text`` for the model."""

    value: Any
    text: str
    is_error: bool = False
    called: bool = True
    kept: dict[str, Any] | None = None
    """If the call was carried out but its answer cannot be used: what arrived of the answer."""


class Tools:
    """The tools of one step. A client is created at its first use and lives as long as the attempt."""

    def __init__(self, attempt: Attempt, listed: Sequence[str] | None = None) -> None:
        """``listed``: the names of the tools that an agent lists; None for a step of one call."""
        self._attempt = attempt
        self._tools = {tool.name: tool for tool in attempt.workflow.tools}
        self._context = Context(attempt, self._tools, listed)
        self._clients: dict[str, ToolClient] = {}

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()

    def judge(self, call: ModelCall) -> Decision:
        """The decision of the rules before a call, without the rules marked ``at_send``.

        Raises:
            ExpressionError: an expression of the tool cannot be evaluated for this call.
        """
        return judge(call, self._context)

    def is_once(self, call: ModelCall) -> bool:
        """Whether the call must not be made a second time."""
        return self.effect(call) is Effect.ONCE

    async def make(self, call: ModelCall) -> Answer:
        """Call a ReadOnly or Idempotent tool. Cancellation abandons the request; the call may have been carried out.

        Raises:
            Failure: no answer, after the tool's own retries.
            Parked, Failure: a rule marked ``at_send`` does not allow the call.
        """
        call = self._at_send(call)
        self._attempt.uncounted += 1
        return await self._call(call)

    async def make_once(self, allowed: Allow) -> Answer:
        """Commit the intent and make the call. The caller must commit the result next.

        Cancellation before the call was sent takes the intent back; later, the intent stays.

        Raises:
            Failure: the call was surely not carried out (the intent is taken back), or it is not known whether it was
                (the intent stays, and the step waits for a person).
            Parked, Failure: a rule marked ``at_send`` does not allow the call; no intent was written.
        """
        attempt = self._attempt
        call = self._at_send(allowed.call)
        began = attempt.ports.monotonic()
        body = self.intent(call)
        sent = False

        def in_time() -> None:
            # If the process was stopped after its intent, a person may have settled the call before it continues.
            if attempt.ports.monotonic() - began > attempt.ports.send_within:
                why = "the process paused too long between intent and call, so the call was not sent"
                raise Failure(FailureClass.TOOL, why, retryable=True, happened="no")
            nonlocal sent
            sent = True

        try:
            if allowed.approved_by:
                body["approvedBy"] = list(allowed.approved_by)
            await attempt.commit(Kind.INTENT, body)
            return await self._call(call, in_time)
        except asyncio.CancelledError:
            if not sent and attempt.state.intent is not None and attempt.state.end is None:
                await attempt.commit(Kind.RESULT, _undone(call, "it was abandoned before it was sent"))
            raise
        except Failure as failure:
            if failure.happened == "no":
                await attempt.commit(Kind.RESULT, _undone(call, failure.message))
            raise

    def effect(self, call: ModelCall) -> Effect:
        """The effect that the tool declares."""
        return self._tools[call["name"]].effect

    def intent(self, call: ModelCall) -> IntentBody:
        """The body of the ``intent`` record of the call."""
        return {"id": call["id"], "tool": call["name"], "args": call["args"], "key": self._key(call)}

    def _at_send(self, call: ModelCall) -> ModelCall:
        return require(judge(call, self._context, at_send=True), self._attempt).call

    async def _call(self, call: ModelCall, before_send: Callable[[], None] | None = None) -> Answer:
        tool = self._tools[call["name"]]
        client = self._clients.get(tool.name)
        if client is None:
            client = self._clients[tool.name] = self._attempt.ports.open_tool(tool, self._attempt.ports.secret)
        key = None if tool.effect is Effect.READ_ONLY else self._key(call)
        about = {k: self._attempt.values[k] for k in ("inputs", "run")}
        output = await client.call(call["args"], about, idempotency_key=key, before_send=before_send)
        kept = None if tool.effect is Effect.READ_ONLY else output.kept
        return Answer(output.output, output.text, output.is_error, kept=kept)

    def _key(self, call: ModelCall) -> str:
        """The idempotency key: the same for every try of this call, and different from that of any other call."""
        return CallKey(self._attempt.spec.start.key, call["id"]).idempotency_key(self._attempt.manifest["uid"])


async def answer_calls(attempt: Attempt, tools: Tools) -> None:
    """Handle every call of the last turn that has no result. Parallel calls are committed together, others one by one.

    Raises:
        Parked: some calls wait for people or for budget, or the attempt was asked to stop.
        Failure: a tool gave no answer. The results of the other calls are committed.
    """
    ready: list[ModelCall] = []
    once: list[Allow] = []
    asked: list[ApprovalRequest] = []
    results: list[CallResult] = []
    for call in attempt.state.pending:
        try:
            decision = tools.judge(call)
        except ExpressionError as error:
            raise Failure(FailureClass.INVALID, f"approval.when: {error}", retryable=False) from error
        match decision:
            case Allow(fitted) if tools.is_once(fitted):
                once.append(decision)
            case Allow(fitted):
                ready.append(fitted)
            case Refuse(_, why):
                results.append(_result(call, Answer(None, why, is_error=True, called=False)))
            case Ask(request):
                asked.append(request)
            case Wait(budget):
                raise over_budget(attempt, budget)
    await _side_by_side(attempt, tools, ready, results)
    for allowed in once:
        attempt.check_stop()
        answer = await tools.make_once(allowed)
        await attempt.commit(Kind.RESULT, _answered([_result(allowed.call, answer)]))
    if asked:
        raise Parked({"approvals": [request.to_json() for request in asked]})


async def _side_by_side(attempt: Attempt, tools: Tools, calls: list[ModelCall], results: list[CallResult]) -> None:
    answers = await asyncio.gather(*(tools.make(call) for call in calls), return_exceptions=True)
    failures: list[BaseException] = []
    for call, answer in zip(calls, answers, strict=True):
        if isinstance(answer, BaseException):
            failures.append(answer)
        else:
            results.append(_result(call, answer))
    if results:
        attempt.uncounted -= len(calls) - len(failures)
        await attempt.commit(Kind.RESULT, _answered(results))
    if failures:
        raise failures[0]


def _undone(call: ModelCall, because: str) -> ResultBody:
    return {"undone": call["id"], "because": because}


def _answered(results: list[CallResult]) -> ResultBody:
    return {"results": results}


def _result(call: ModelCall, answer: Answer) -> CallResult:
    found: CallResult = {
        "id": call["id"],
        "callId": call["callId"],
        "tool": call["name"],
        "output": _clipped(answer.text),
        "called": answer.called,
    }
    if answer.kept is not None:
        found["output"] = _clipped(f"{answer.text}\n{HAPPENED}")
        found["answer"] = answer.kept
    if answer.is_error:
        found["isError"] = True
    return found


def _clipped(text: str) -> str:
    if len(text) <= SHOWN_MAX:
        return text
    return f"{text[:SHOWN_MAX]}… ({len(text) - SHOWN_MAX} more characters are not shown)"
