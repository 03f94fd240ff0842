"""The records of a step's log: their kinds, and the form of each kind's body.

A ``NotRequired`` field may be absent; its docstring says when. Instants are seconds since the epoch. Code that reads a
body declares the type of its kind (``STEP_BODIES``); nothing is converted.
"""

# No ``from __future__ import annotations`` here: TypedDict would compile each annotation again, in every step process.

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict


class Kind(StrEnum):
    """The kinds of a step's records."""

    OPENED = "opened"
    TURN = "turn"
    INTENT = "intent"
    RESULT = "result"
    WAITING = "waiting"
    COMPACTED = "compacted"
    FAILED = "failed"
    CLOSED = "closed"


_KINDS = {kind.value: kind for kind in Kind}


def step_kind(word: str) -> Kind | None:
    """The kind that a record's ``kind`` names; None: a later version of agentrun added it, and readers skip it."""
    return _KINDS.get(word)


class ModelCall(TypedDict):
    """A tool call that a model asks for."""

    id: str
    """The runtime's own id: ``TURN-NUMBER``."""
    callId: str
    """The endpoint's id, or one that is made up if the endpoint's is missing or a duplicate."""
    name: str
    args: Any
    error: NotRequired[str]
    """Why the call cannot be made. Absent if it can."""


class CallResult(TypedDict):
    """The result of a tool call."""

    id: str
    callId: str
    tool: str
    output: str
    """The text that the model is shown."""
    called: bool
    """Whether the tool was called at all."""
    isError: NotRequired[bool]
    """True if the answer is an error; otherwise absent."""
    resolvedBy: NotRequired[str | None]
    """The person who told the call's result; None if the name is not recorded. Absent if the tool answered."""
    answer: NotRequired[dict[str, Any]]
    """The tool's answer, if it could not be used; otherwise absent."""


class AnyBody(TypedDict):
    """The fields that any record of a step may have."""

    refused: NotRequired[list[str]]
    """Words ``MODEL/WORD`` for what the model's endpoint is known to refuse. They are in the record that follows the
    refusal, and beside every ``state``.
    """


class OpenedBody(AnyBody):
    """An attempt began."""

    writer: str
    """A random id, so that two attempts never write the same bytes."""
    process: dict[str, Any]
    """The process that runs the attempt: ``host``, ``place``, ``pid``, ``started``."""
    version: str
    """The version of agentrun."""
    allowance: dict[str, Any]
    """What the attempt may spend, as ``Allowance.to_json`` writes it."""
    task: NotRequired[dict[str, Any]]
    """The step's rendered request, or ``error`` if it cannot be rendered. Absent if an earlier record has it."""
    events: NotRequired[dict[str, dict[str, Any]]]
    """The decisions and resolutions that the attempt took in, by their event's number: each body with ``kind`` and
    ``at``. Absent if there is none.
    """


class TurnBody(AnyBody):
    """The model answered."""

    items: list[dict[str, Any]]
    """The model's output, verbatim, with encrypted reasoning."""
    calls: list[ModelCall]
    text: str | None
    refusal: str | None
    incomplete: str | None
    """Why the output was cut off; None if it was not."""
    usage: dict[str, Any]
    """The usage of the turn, as ``Usage.to_json`` writes it."""
    model: str | None
    """The model's name as the endpoint gives it."""
    responseId: str | None
    seconds: float
    """How long the answer took."""
    usageEstimated: NotRequired[bool]
    """True if ``usage`` is estimated because the endpoint did not report it; otherwise absent."""


class IntentBody(AnyBody):
    """A ``Once`` call is about to be made, or a person has to tell the result of a call that was made."""

    id: str
    tool: str
    args: Any
    key: str
    """The Idempotency-Key."""
    approvedBy: NotRequired[list[str]]
    """The people who approved the call. Absent if nobody was asked."""


class ResultBody(AnyBody):
    """The results of calls (``results``), a correction that the model is asked for (``repair``), or a call that was not
    made (``undone``).
    """

    results: NotRequired[list[CallResult]]
    repair: NotRequired[str]
    """What the model is told to correct."""
    undone: NotRequired[str]
    """The id of the call that surely did not happen."""
    because: NotRequired[str]
    """How it is known that the call did not happen. Only with ``undone``."""
    by: NotRequired[str | None]
    """The person who says that the call did not happen; None if the name is not recorded. Absent if the runtime knows
    it.
    """


class LastBody(AnyBody):
    """The fields that any record that ends an attempt may have."""

    toolCalls: NotRequired[int]
    """How many calls of ReadOnly and Idempotent tools were begun and are counted by no ``result``. Absent: none."""
    answer: NotRequired[dict[str, Any] | None]
    """A tool's answer that could not be used. Absent if there is none."""


class WaitingBody(LastBody):
    """The attempt ended its process, and the step is not over: it waits for people or budget, or was asked to leave.

    After the latter, the next attempt begins at once.
    """

    approvals: NotRequired[list[dict[str, Any]]]
    """Questions to people, as ``ApprovalRequest.to_json`` writes them."""
    unknown: NotRequired[dict[str, Any]]
    """The call whose outcome is unknown: ``callId``, ``tool``, ``args``, ``message``, and ``happened`` if it was
    carried out.
    """
    budget: NotRequired[str]
    """The part of the run's budget (``tokens``, ``costUSD``, …) of which the attempt needs more than its allowance."""
    interrupted: NotRequired[bool]
    """True: the attempt was asked to leave."""


class CompactedBody(AnyBody):
    """The state so far, or a shorter history, in one record. ``journal.fold``, ``query.difference`` and
    ``query.timeline`` read it.

    ``checkpoint``: the whole state, so that reading begins here (``Attempt.commit``, ``open_step``). ``fork``: the
    state that a fork takes over (``journal.fork``). ``window``: the model's own summary of a history that outgrew it,
    and no state (``runner.compaction``).
    """

    reason: NotRequired[Literal["checkpoint", "window", "fork"]]
    """Absent in the first journals."""
    state: NotRequired[dict[str, Any]]
    """The whole folded state, in a checkpoint and in a fork."""
    source: NotRequired[dict[str, Any]]
    """In a fork: the record (``run``, ``step``, ``seq``, ``hash``) that it goes on from."""
    history: NotRequired[list[dict[str, Any]]]
    """Without ``state``: an agent's new history, after the old one outgrew the model's context."""
    dropped: NotRequired[int]
    """Without ``state``: how many entries of the history the summary replaces."""
    usage: NotRequired[dict[str, Any]]
    """Without ``state``: the usage of making the summary, as ``Usage.to_json`` writes it."""


FailedBody = TypedDict(
    "FailedBody",
    {
        "class": str,  # A ``FailureClass``.
        "message": str,
        "retryAfter": NotRequired[float],  # Seconds. Absent if the other side asked for no delay.
        "retryable": NotRequired[bool],  # False if the retry rules do not apply; otherwise absent.
        "happened": NotRequired[bool],  # True if the call was carried out; otherwise absent.
        "toolCalls": NotRequired[int],  # As in ``LastBody``, like the next two.
        "answer": NotRequired[dict[str, Any] | None],
        "refused": NotRequired[list[str]],
    },
)
"""The attempt failed, and another one follows: ``FailureInfo.to_json`` and the fields of ``LastBody``. (The functional
form is needed because ``class`` is a keyword.)"""


class ClosedBody(LastBody):
    """The step is over."""

    outcome: str
    """A ``StepState``."""
    output: NotRequired[Any]
    """The step's output. Absent if the step did not succeed."""
    failure: NotRequired[dict[str, Any]]
    """Why the step failed, as ``FailureInfo.to_json`` writes it. Absent if it did not."""
    resolvedBy: NotRequired[str | None]
    """The person who told the result of the step's call; None if the name is not recorded. Absent if the tool answered.
    """
    source: NotRequired[dict[str, Any]]
    """In a fork: the record (``run``, ``step``, ``seq``, ``hash``) that this one was taken from."""


STEP_BODIES: Mapping[Kind, type] = {
    Kind.OPENED: OpenedBody,
    Kind.TURN: TurnBody,
    Kind.INTENT: IntentBody,
    Kind.RESULT: ResultBody,
    Kind.WAITING: WaitingBody,
    Kind.COMPACTED: CompactedBody,
    Kind.FAILED: FailedBody,
    Kind.CLOSED: ClosedBody,
}
"""The form of the body of each kind."""
