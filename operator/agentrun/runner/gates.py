"""The rules before a call, as one list that is read from top to bottom.

A rule looks at a call and says what becomes of it. The first that does not allow it decides; one that does may hand on
a better call. A rule changes nothing and waits for nothing: whoever asked acts on what it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentrun.api.canonical import digest_of
from agentrun.api.facts import ApprovalRequest
from agentrun.api.texts import quoted
from agentrun.api.values import DELAY_MAX, seconds
from agentrun.api.workflow import FailureClass, Tool, ToolApproval
from agentrun.expressions.templates import Values, compile_expression
from agentrun.plan.events import Tally, tally
from agentrun.plan.snapshot import Event
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import ModelCall
from agentrun.runner.attempt import Attempt
from agentrun.runner.failures import Failure, plain
from agentrun.runner.outcomes import Parked
from agentrun.runner.reserve import over_budget, short_of_tool_calls
from agentrun.workflow.integers import with_integers
from agentrun.workflow.json_schema import compile_schema
from agentrun.workflow.program import TOOL_SCOPE


@dataclass(frozen=True, slots=True)
class Allow:
    """The call may be made."""

    call: ModelCall
    approved_by: tuple[str, ...] = ()
    """The people who approved it, where people were asked."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The call is not made. An agent's model is told ``why`` and goes on; a step of one call fails with ``reason``."""

    reason: FailureClass
    why: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The call is not made before people have decided."""

    request: ApprovalRequest


@dataclass(frozen=True, slots=True)
class Wait:
    """The call is not made before this attempt is allowed more of ``budget``."""

    budget: str


Decision = Allow | Refuse | Ask | Wait


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at besides the call."""

    attempt: Attempt
    tools: Mapping[str, Tool]
    """The workflow's tools by name."""
    listed: Sequence[str] | None
    """The tools that an agent lists; None for a step of one call, whose author named the tool."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule. Raises ExpressionError where an expression of the tool cannot be told for the call."""

    rule: Callable[[ModelCall, Context], Decision]
    at_send: bool = False
    """It is asked as the call is about to be made: the calls of a turn that were made before change what it says.
    Other rules are asked for every call of a turn before any of them is made."""


def readable(call: ModelCall, _: Context) -> Decision:
    """The model wrote a call that can be read."""
    return Refuse(FailureClass.INVALID, str(call["error"])) if call.get("error") else Allow(call)


def known(call: ModelCall, context: Context) -> Decision:
    """The tool exists, and the agent lists it."""
    name, listed = call["name"], context.tools if context.listed is None else context.listed
    if name in context.tools and name in listed:
        return Allow(call)
    there = ", ".join(listed) or "none"
    return Refuse(FailureClass.INVALID, f"there is no tool {quoted(plain(name))}; there are: {there}")


def fitting(call: ModelCall, context: Context) -> Decision:
    """The arguments fit the tool's parameters; they go on as the parameters mean them."""
    parameters = context.tools[call["name"]].parameters
    if errors := compile_schema(parameters).errors(call["args"]):
        why = "the arguments do not fit the tool's parameters: " + "; ".join(errors)
        return Refuse(FailureClass.INVALID, why)
    return Allow(call | {"args": with_integers(parameters, call["args"])})


def approved(call: ModelCall, context: Context) -> Decision:
    """People approved the call, where the tool asks for them."""
    tool = context.tools[call["name"]]
    if tool.approval is None or (request := _request(call, tool, tool.approval, context.attempt)) is None:
        return Allow(call)
    said = _decided(request, context.attempt)
    match said.state:
        case "Pending":
            return Ask(request)
        case "Rejected":
            why = f"a person rejected this call ({', '.join(said.by)})" + (f": {said.comment}" if said.comment else "")
            return Refuse(FailureClass.REJECTED, why)
        case "Expired":
            return Refuse(FailureClass.TIMEOUT, "nobody approved this call in time")
        case "Approved":
            return Allow(call, tuple(said.by))


def within_budget(call: ModelCall, context: Context) -> Decision:
    """The attempt's allowance covers one more call."""
    budget = short_of_tool_calls(context.attempt)
    return Allow(call) if budget is None else Wait(budget)


CALL_GATES: tuple[Gate, ...] = (
    # What cannot be read names no tool and has no arguments that the rules below could look at.
    Gate(readable),
    # Which tools there are is the author's decision; a model makes names up. Below, the tool exists.
    Gate(known),
    # Nothing that does not fit reaches people or the tool. Below, the arguments are those that are sent.
    Gate(fitting),
    # People see the very call that is made; only what nobody has refused yet is worth their time.
    Gate(approved),
    # Last, and just before the call: what is refused or waits for people holds no part of the budget.
    Gate(within_budget, at_send=True),
)
"""The rules in the order in which they are applied. A new rule is a function and a line with its reason."""


def judge(call: ModelCall, context: Context, *, at_send: bool = False) -> Decision:
    """What the rules say of ``call``: those that are asked ``at_send``, or the others.

    Raises:
        ExpressionError: an expression of the tool cannot be told for this call.
    """
    approved_by: tuple[str, ...] = ()
    for gate in CALL_GATES:
        if gate.at_send is at_send:
            decision = gate.rule(call, context)
            if not isinstance(decision, Allow):
                return decision
            call = decision.call
            approved_by += decision.approved_by
    return Allow(call, approved_by)


def require(decision: Decision, attempt: Attempt) -> Allow:
    """The call that is allowed. Anything else ends the attempt, which has nothing else to do.

    Raises:
        Parked: people, or the budget, come first.
        Failure: the call is refused, or the budget never covers it.
    """
    match decision:
        case Allow():
            return decision
        case Refuse(reason, why):
            raise Failure(reason, why, retryable=False, happened="no")
        case Ask(request):
            raise Parked({"approvals": [request.to_json()]})
        case Wait(budget):
            raise over_budget(attempt, budget)


def _request(call: ModelCall, tool: Tool, approval: ToolApproval, attempt: Attempt) -> ApprovalRequest | None:
    """What people are asked about ``call``; None where the tool asks nobody for these arguments."""
    earlier = attempt.state.requests.get(call["id"])
    if earlier is not None:
        return ApprovalRequest.from_json(earlier)
    if approval.when is not None:
        condition = compile_expression(approval.when, TOOL_SCOPE, "bool")
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
        approvers=approval.approvers,
        required=approval.required,
        expires_at=attempt.ports.clock() + min(seconds(approval.timeout), DELAY_MAX),
        call_id=call["id"],
        tool=tool.name,
    )


def _decided(request: ApprovalRequest, attempt: Attempt) -> Tally:
    """What people have said, by the decisions that attempts took in."""
    events = [
        Event(int(seq), body["at"], EventKind.DECIDED, body)
        for seq, body in sorted(attempt.state.events.items(), key=lambda item: int(item[0]))
        if body["kind"] == EventKind.DECIDED
    ]
    # On a cluster the API server has looked at who decides, and their groups are not known here.
    verified = bool(attempt.manifest.get("cluster"))
    return tally(request, events, attempt.ports.clock(), verified=verified)
