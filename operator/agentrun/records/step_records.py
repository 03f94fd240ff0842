"""The records of one step's journal: their kinds, and the form of each kind's body.

A field that is ``NotRequired`` is not in every body of its kind, for the reason that its docstring gives. Instants are
seconds since the epoch. A reader takes a body as the type of its kind (``STEP_BODIES``); nothing is converted.
"""

# Annotations are no texts here: a TypedDict would compile each of them again, in every process of a step.

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict


class Kind(StrEnum):
    """What a step's record says."""

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
    """The kind that a record's ``kind`` names; None: a later agentrun added it, and readers pass it over."""
    return _KINDS.get(word)


class ModelCall(TypedDict):
    """A tool call that a model asks for."""

    id: str
    """The runtime's own: ``TURN-NUMBER``."""
    callId: str
    """The endpoint's own, or made up where that is missing or doubled."""
    name: str
    args: Any
    error: NotRequired[str]
    """Why the call cannot be made. Absent where it can."""


class CallResult(TypedDict):
    """What a tool call came to."""

    id: str
    callId: str
    tool: str
    output: str
    """What the model is shown."""
    called: bool
    """Whether the tool was called at all."""
    isError: NotRequired[bool]
    """True where the answer is an error; else absent."""
    resolvedBy: NotRequired[str]
    """The person who said what the call came to. Absent where the tool answered."""
    answer: NotRequired[dict[str, Any]]
    """An answer that could not be used. Absent where it could."""


class AnyBody(TypedDict):
    """What any record of a step may have."""

    refused: NotRequired[list[str]]
    """``MODEL/WORD`` for what the model's endpoint is known to refuse. In the record that follows the refusal, and
    beside every ``state``.
    """


class OpenedBody(AnyBody):
    """An attempt began."""

    writer: str
    """Random: two attempts never write the same bytes."""
    process: dict[str, Any]
    """Where the attempt runs: ``host``, ``place``, ``pid``, ``started``."""
    version: str
    """Of agentrun."""
    allowance: dict[str, Any]
    """What the attempt may spend, as ``Allowance.to_json`` writes it."""
    task: NotRequired[dict[str, Any]]
    """What the step is asked, rendered; ``error`` where it cannot be. Absent where an earlier record has it."""
    events: NotRequired[dict[str, dict[str, Any]]]
    """The decisions and resolutions that the attempt took in, by their event's number: their bodies with ``kind`` and
    ``at``. Absent where there is none.
    """


class TurnBody(AnyBody):
    """The model answered."""

    items: list[dict[str, Any]]
    """The output as it came, with encrypted reasoning."""
    calls: list[ModelCall]
    text: str | None
    refusal: str | None
    incomplete: str | None
    """Why the output was cut off; None where it was not."""
    usage: dict[str, Any]
    """What the turn cost, as ``Usage.to_json`` writes it."""
    model: str | None
    """As the endpoint calls it."""
    responseId: str | None
    seconds: float
    """How long the answer took."""
    usageEstimated: NotRequired[bool]
    """True where the endpoint did not say what the turn cost; else absent."""


class IntentBody(AnyBody):
    """A ``Once`` call is about to be made, or a person has to say what a call came to."""

    id: str
    tool: str
    args: Any
    key: str
    """The Idempotency-Key."""
    approvedBy: NotRequired[list[str]]
    """Who approved the call. Absent where nobody was asked."""


class ResultBody(AnyBody):
    """What calls came to (``results``), what the model is asked again (``repair``), or which call was not made."""

    results: NotRequired[list[CallResult]]
    repair: NotRequired[str]
    """What the model is told to correct."""
    undone: NotRequired[str]
    """The id of the call that surely did not happen."""
    because: NotRequired[str]
    """How that is known. With ``undone``."""
    by: NotRequired[str]
    """The person who says so. Absent where the runtime knows it."""


class LastBody(AnyBody):
    """What any record that ends an attempt may have."""

    toolCalls: NotRequired[int]
    """Calls of ReadOnly and Idempotent tools that were begun and that no ``result`` counts. Absent: none."""
    answer: NotRequired[dict[str, Any] | None]
    """An answer that could not be used. Absent where there is none."""


class WaitingBody(LastBody):
    """The attempt released its process."""

    approvals: NotRequired[list[dict[str, Any]]]
    """What people are asked, as ``ApprovalRequest.to_json`` writes it."""
    unknown: NotRequired[dict[str, Any]]
    """The call whose outcome is unknown: ``callId``, ``tool``, ``args``, ``message``, and ``happened`` where it was
    carried out.
    """
    budget: NotRequired[str]
    """The part of the run's budget (``tokens``, ``costUSD``, …) of which it needs more than it was given."""
    interrupted: NotRequired[bool]
    """True: it was asked to leave."""


class CompactedBody(AnyBody):
    """The state so far, or a shorter history, in one record. ``fold``, ``difference`` and ``cli.timeline`` read it.

    ``checkpoint``: the whole state, so that reading begins here (``Attempt.commit``, ``open_step``). ``fork``: the
    state that a fork takes over (``journal.fork``). ``window``: the model's own summary of a history that outgrew it,
    and no state (``runner.compaction``).
    """

    reason: NotRequired[Literal["checkpoint", "window", "fork"]]
    """Absent in the first journals."""
    state: NotRequired[dict[str, Any]]
    """The whole folded state: of a checkpoint and of a fork."""
    source: NotRequired[dict[str, Any]]
    """In a fork: the record (``run``, ``step``, ``seq``, ``hash``) that it goes on from."""
    history: NotRequired[list[dict[str, Any]]]
    """What the history of an agent is from here on, where it outgrew the model."""
    dropped: NotRequired[int]
    """How many entries of the history the summary stands for."""
    usage: NotRequired[dict[str, Any]]
    """What the summary cost, as ``Usage.to_json`` writes it."""


FailedBody = TypedDict(
    "FailedBody",
    {
        "class": str,  # A ``FailureClass``.
        "message": str,
        "retryAfter": NotRequired[float],  # Seconds. Absent where the other side did not ask for any.
        "retryable": NotRequired[bool],  # False where the retry rules are not asked; else absent.
        "happened": NotRequired[bool],  # True where the call was carried out; else absent.
        "toolCalls": NotRequired[int],  # As in ``LastBody``, like the next two.
        "answer": NotRequired[dict[str, Any] | None],
        "refused": NotRequired[list[str]],
    },
)
"""The attempt failed, and another follows: ``FailureInfo.to_json`` and what ended it. (``class`` is a keyword.)"""


class ClosedBody(LastBody):
    """The step is over."""

    outcome: str
    """A ``StepState``."""
    output: NotRequired[Any]
    """Absent where the step did not succeed."""
    failure: NotRequired[dict[str, Any]]
    """Why it failed, as ``FailureInfo.to_json`` writes it. Absent where it did not."""
    resolvedBy: NotRequired[str]
    """The person who said what the step's call came to. Absent where the tool answered."""
    source: NotRequired[dict[str, Any]]
    """In a fork: the record (``run``, ``step``, ``seq``, ``hash``) that this was taken from."""


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
