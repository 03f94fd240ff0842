"""The rules before a call, as one list that is applied from top to bottom.

A rule takes a call and returns a decision. The first rule that does not allow the call decides. A rule that allows it
may pass a corrected call to the next rule. A rule has no side effects and does not wait: its caller acts on the
decision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agentrun.api.canonical import digest_of
from agentrun.api.facts import ApprovalRequest
from agentrun.api.texts import quoted
from agentrun.api.tools import Tool, ToolApproval
from agentrun.api.values import DELAY_MAX, seconds
from agentrun.api.workflow import FailureClass
from agentrun.expressions.templates import Values, compile_expression
from agentrun.plan.events import Tally, tally
from agentrun.plan.snapshot import Event
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import ModelCall
from agentrun.runner.attempt import Attempt
from agentrun.runner.budget import over_budget, short_of_tool_calls
from agentrun.runner.failures import Failure, plain
from agentrun.runner.outcomes import Parked
from agentrun.workflow.integers import with_integers
from agentrun.workflow.json_schema import Checker, compile_schema
from agentrun.workflow.program import TOOL_SCOPE


@dataclass(frozen=True, slots=True)
class Allow:
    """The call may be made."""

    call: ModelCall
    approved_by: tuple[str, ...] = ()
    """The people who approved the call, if people were asked."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The call is not made. An agent's model gets ``why`` and continues; a step of one call fails with ``reason``."""

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
    """What a rule may read besides the call."""

    attempt: Attempt
    tools: Mapping[str, Tool]
    """The workflow's tools by name."""
    listed: Sequence[str] | None
    """The tools that an agent lists; None for a step of one call, whose author named the tool."""
    checkers: dict[str, Checker] = field(default_factory=dict)
    """The compiled parameters of the tools that were called, by name."""

    def checker(self, tool: str) -> Checker:
        """What checks the arguments of ``tool``. ``compile_schema`` walks through the schema each time."""
        found = self.checkers.get(tool)
        if found is None:
            found = self.checkers[tool] = compile_schema(self.tools[tool].parameters)
        return found


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule. It raises ExpressionError if an expression of the tool cannot be evaluated for the call."""

    rule: Callable[[ModelCall, Context], Decision]
    at_send: bool = False
    """The rule is applied just before the call is made, because earlier calls of the same turn change its decision.
    Other rules are applied to every call of a turn before any of them is made."""


def readable(call: ModelCall, _: Context) -> Decision:
    """The call that the model wrote can be parsed."""
    return Refuse(FailureClass.INVALID, str(call["error"])) if call.get("error") else Allow(call)


def known(call: ModelCall, context: Context) -> Decision:
    """The tool exists, and the agent lists it."""
    name, listed = call["name"], context.tools if context.listed is None else context.listed
    if name in context.tools and name in listed:
        return Allow(call)
    there = ", ".join(listed) or "none"
    return Refuse(FailureClass.INVALID, f"there is no tool {quoted(plain(name))}; there are: {there}")


def fitting(call: ModelCall, context: Context) -> Decision:
    """The arguments fit the tool's parameters. A number that means an integer is passed on as one."""
    parameters = context.tools[call["name"]].parameters
    if errors := context.checker(call["name"]).errors(call["args"]):
        why = "the arguments do not fit the tool's parameters: " + "; ".join(errors)
        return Refuse(FailureClass.INVALID, why)
    return Allow(call | {"args": with_integers(parameters, call["args"])})


def approved(call: ModelCall, context: Context) -> Decision:
    """People approved the call, if the tool requires it."""
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
    # A call that cannot be parsed has no tool name and no arguments for the rules below to check.
    Gate(readable),
    # The author of the workflow decides which tools there are; a model can invent names. Below, the tool exists.
    Gate(known),
    # Arguments that do not fit reach neither people nor the tool. Below, the arguments are those that are sent.
    Gate(fitting),
    # People see exactly the call that is made. They are not asked about a call that another rule already refused.
    Gate(approved),
    # Last, and just before the call: a call that is refused or waits for people holds no part of the budget.
    Gate(within_budget, at_send=True),
)
"""The rules in the order in which they are applied. To add one, write a function and add a line with its reason."""


def judge(call: ModelCall, context: Context, *, at_send: bool = False) -> Decision:
    """The decision about ``call``: by the rules marked ``at_send``, or by the others.

    Raises:
        ExpressionError: an expression of the tool cannot be evaluated for this call.
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
    """Return the allowed call. Any other decision ends the attempt, which has no other work.

    Raises:
        Parked: the call waits for people or for budget.
        Failure: the call is refused, or the budget will never cover it.
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
    """The approval request for ``call``; None if the tool needs no approval for these arguments."""
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
        "step": attempt.spec.start.key.path,
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
    """The tally of people's decisions, from the events that the step's attempts recorded."""
    events = [
        Event(int(seq), body["at"], EventKind.DECIDED, body)
        for seq, body in sorted(attempt.state.events.items(), key=lambda item: int(item[0]))
        if body["kind"] == EventKind.DECIDED
    ]
    # On a cluster, the API server has checked who decides; the person's groups are not known here.
    verified = bool(attempt.manifest.get("cluster"))
    return tally(request, events, attempt.ports.clock(), verified=verified)
