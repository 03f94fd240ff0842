"""Calling tools with the care that their effect asks for.

ReadOnly and Idempotent calls of one turn run side by side and are committed together. A ``Once`` call stands alone:
its ``intent`` is committed, it is made, its result is committed; if the process dies in between, the intent without
a result says that nobody knows. What needs people is asked after everything else was done.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentrun.api.canonical import digest_of
from agentrun.api.facts import ApprovalRequest
from agentrun.api.texts import quoted
from agentrun.api.values import DELAY_MAX, seconds
from agentrun.api.workflow import Effect, FailureClass
from agentrun.expressions.templates import ExpressionError, Values, compile_expression
from agentrun.plan.events import Tally, tally
from agentrun.plan.snapshot import Event
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import CallResult, IntentBody, Kind, ResultBody
from agentrun.runner.attempt import Attempt
from agentrun.runner.failures import Failure, plain
from agentrun.runner.outcomes import Parked
from agentrun.runner.reserve import reserve_tool
from agentrun.runner.tool_client import ToolClient
from agentrun.workflow.integers import with_integers
from agentrun.workflow.json_schema import compile_schema
from agentrun.workflow.program import TOOL_SCOPE

SHOWN_MAX = 64 * 1024
"""Characters of a tool's answer that a model is shown; a workflow's expressions see the whole."""


HAPPENED = "The call was made and has taken effect, so do not make it again. Only its answer cannot be used."


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to: ``value`` for the workflow, ``text`` for the model."""

    value: Any
    text: str
    is_error: bool = False
    called: bool = True
    kept: dict[str, Any] | None = None
    """The call was carried out, and its answer cannot be used: what came of it."""


class Tools:
    """The tools of one step. Clients are made when first used and live as long as the attempt."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._tools = {tool.name: tool for tool in attempt.workflow.tools}
        self._clients: dict[str, ToolClient] = {}

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()

    def refusal(self, call: dict[str, Any], allowed: list[str] | None) -> str | None:
        """Why a call is not made at all, in words for whoever asked for it; None where it may be."""
        name = call["name"]
        if call.get("error"):
            return str(call["error"])
        if name not in self._tools or (allowed is not None and name not in allowed):
            known = ", ".join(allowed if allowed is not None else self._tools)
            return f"there is no tool {quoted(plain(name))}; there are: {known or 'none'}"
        errors = compile_schema(self._tools[name].parameters).errors(call["args"])
        return "the arguments do not fit the tool's parameters: " + "; ".join(errors) if errors else None

    def fitted(self, call: dict[str, Any]) -> dict[str, Any]:
        """A call that is not refused, with its arguments as the tool's parameters mean them."""
        return call | {"args": with_integers(self._tools[call["name"]].parameters, call["args"])}

    def approval(self, call: dict[str, Any]) -> ApprovalRequest | None:
        """What people are asked before ``call``; None where the tool asks for nobody, or not for these arguments.

        Raises:
            ExpressionError: the tool's condition cannot be told for these arguments.
        """
        attempt = self._attempt
        tool = self._tools[call["name"]]
        if tool.approval is None:
            return None
        earlier = attempt.state.requests.get(call["id"])
        if earlier is not None:
            return ApprovalRequest.from_json(earlier)
        if tool.approval.when is not None:
            condition = compile_expression(tool.approval.when, TOOL_SCOPE, "bool")
            scope = {k: attempt.values[k] for k in ("inputs", "run")} | {"args": call["args"]}
            if not condition.evaluate(Values(scope)):
                return None
        asked = {
            "run": attempt.manifest["uid"],
            "step": attempt.spec.key.path,
            "call": call["id"],
            "tool": tool.name,
            "args": call["args"],
        }
        return ApprovalRequest(
            subject=f"{tool.name}({plain(json.dumps(call['args']), 300)})",
            details=call["args"],
            digest=digest_of(asked),
            approvers=tool.approval.approvers,
            required=tool.approval.required,
            expires_at=attempt.ports.clock() + min(seconds(tool.approval.timeout), DELAY_MAX),
            call_id=call["id"],
            tool=tool.name,
        )

    def decided(self, request: ApprovalRequest) -> Tally:
        """What people have said, by the decisions that attempts took in."""
        events = [
            Event(int(seq), body["at"], EventKind.DECIDED, body)
            for seq, body in sorted(self._attempt.state.events.items(), key=lambda item: int(item[0]))
            if body["kind"] == EventKind.DECIDED
        ]
        # On a cluster the API server has looked at who decides, and their groups are not known here.
        verified = bool(self._attempt.manifest.get("cluster"))
        return tally(request, events, self._attempt.ports.clock(), verified=verified)

    def is_once(self, call: dict[str, Any]) -> bool:
        """Whether the call must not be made a second time."""
        return self.effect(call) is Effect.ONCE

    async def make(self, call: dict[str, Any]) -> Answer:
        """Call a ReadOnly or Idempotent tool. Cancellation abandons the request; it may have happened.

        Raises:
            Failure: no answer, after the effect's own retries.
        """
        reserve_tool(self._attempt)
        self._attempt.uncounted += 1
        return await self._call(call)

    async def make_once(self, call: dict[str, Any], approved_by: list[str]) -> Answer:
        """Commit the intent, make the call. The result must be committed next.

        Raises:
            Failure: where it is known that nothing happened (the intent is taken back), or where nothing is known
                (the intent stays, and the step waits for a person).
        """
        attempt = self._attempt
        reserve_tool(attempt)
        began = attempt.ports.monotonic()
        body = self.intent(call)
        sent = False

        def in_time() -> None:
            # A process that was stopped since its intent may wake up when a person has already settled the call.
            if attempt.ports.monotonic() - began > attempt.ports.send_within:
                why = "the process was held up between intent and call, so the call was not sent"
                raise Failure(FailureClass.TOOL, why, retryable=True, happened="no")
            nonlocal sent
            sent = True

        try:
            if approved_by:
                body["approvedBy"] = approved_by
            await attempt.commit(Kind.INTENT, body)
            return await self._call(call, in_time)
        except asyncio.CancelledError:
            if not sent and attempt.state.intent is not None and attempt.state.end is None:
                await attempt.commit(Kind.RESULT, _undone(call, "it was given up before it was sent"))
            raise
        except Failure as failure:
            if failure.happened == "no":
                await attempt.commit(Kind.RESULT, _undone(call, failure.message))
            raise

    def effect(self, call: dict[str, Any]) -> Effect:
        """What the tool declares."""
        return self._tools[call["name"]].effect

    def intent(self, call: dict[str, Any]) -> IntentBody:
        """The body of the record that the call is begun."""
        return {"id": call["id"], "tool": call["name"], "args": call["args"], "key": self._key(call)}

    async def _call(self, call: dict[str, Any], before_send: Callable[[], None] | None = None) -> Answer:
        tool = self._tools[call["name"]]
        client = self._clients.get(tool.name)
        if client is None:
            client = self._clients[tool.name] = self._attempt.ports.open_tool(tool, self._attempt.ports.secret)
        key = None if tool.effect is Effect.READ_ONLY else self._key(call)
        about = {k: self._attempt.values[k] for k in ("inputs", "run")}
        output = await client.call(call["args"], about, idempotency_key=key, before_send=before_send)
        kept = None if tool.effect is Effect.READ_ONLY else output.kept
        return Answer(output.output, output.text, output.is_error, kept=kept)

    def _key(self, call: dict[str, Any]) -> str:
        """The same for every try of this call, and for no other call of any run."""
        whole = [self._attempt.manifest["uid"], self._attempt.spec.key.path, call["id"]]
        return digest_of(whole).removeprefix("sha256:")[:32]


async def answer_calls(attempt: Attempt, tools: Tools, allowed: list[str]) -> None:
    """Deal with every call of the last turn that has no result, committing results as they come.

    Raises:
        Parked: some wait for people, or somebody asked the attempt to leave.
        Failure: a tool gave no answer; what others gave is committed.
    """
    ready: list[dict[str, Any]] = []
    once: list[tuple[dict[str, Any], list[str]]] = []
    asked: list[ApprovalRequest] = []
    results: list[CallResult] = []
    for call in attempt.state.pending:
        refusal = tools.refusal(call, allowed)
        approved_by: list[str] = []
        if refusal is None:
            call = tools.fitted(call)  # noqa: PLW2901
            try:
                request = tools.approval(call)
            except ExpressionError as error:
                raise Failure(FailureClass.INVALID, f"approval.when: {error}", retryable=False) from error
            if request is not None:
                said = tools.decided(request)
                if said.state == "Pending":
                    asked.append(request)
                    continue
                approved_by = list(said.by)
                refusal = not_approved(said)
        if refusal is not None:
            results.append(_result(call, Answer(None, refusal, is_error=True, called=False)))
        elif tools.is_once(call):
            once.append((call, approved_by))
        else:
            ready.append(call)
    await _side_by_side(attempt, tools, ready, results)
    for call, approved_by in once:
        attempt.check_stop()
        answer = await tools.make_once(call, approved_by)
        await attempt.commit(Kind.RESULT, _answered([_result(call, answer)]))
    if asked:
        raise Parked({"approvals": [request.to_json() for request in asked]})


async def _side_by_side(attempt: Attempt, tools: Tools, calls: list[dict[str, Any]], results: list[CallResult]) -> None:
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


def not_approved(said: Tally) -> str | None:
    """Why a call is not made that people were asked about; None where they approved it."""
    if said.state == "Rejected":
        return f"a person rejected this call ({', '.join(said.by)})" + (f": {said.comment}" if said.comment else "")
    return "nobody approved this call in time" if said.state == "Expired" else None


def _undone(call: dict[str, Any], because: str) -> ResultBody:
    return {"undone": call["id"], "because": because}


def _answered(results: list[CallResult]) -> ResultBody:
    return {"results": results}


def _result(call: dict[str, Any], answer: Answer) -> CallResult:
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
