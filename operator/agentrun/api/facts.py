"""Small frozen values about steps and calls, which the journal yields and the planner reads.

A ``StepFact`` is everything that the planner needs of a step's journal. The runner writes it as its termination message
(``to_json``). If a process died without one, the journal's fold makes the same ``StepFact`` from the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from enum import StrEnum
from typing import Any

from agentrun.api.footprint import footprint
from agentrun.api.run import StepState
from agentrun.api.tools import Approvers
from agentrun.api.workflow import FailureClass


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent. Tokens are those that the model's endpoint counts; the cost is exact decimal USD."""

    model_calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    tool_calls: int = 0
    cost_usd: Decimal = Decimal(0)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.model_calls + other.model_calls,
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.output_tokens + other.output_tokens,
            self.tool_calls + other.tool_calls,
            self.cost_usd + other.cost_usd,
        )

    @classmethod
    def total(cls, usages: Iterable[Usage]) -> Usage:
        """The sum of ``usages``, without an object for each intermediate sum."""
        spent = list(usages)
        return cls(
            sum(u.model_calls for u in spent),
            sum(u.input_tokens for u in spent),
            sum(u.cached_input_tokens for u in spent),
            sum(u.output_tokens for u in spent),
            sum(u.tool_calls for u in spent),
            sum((u.cost_usd for u in spent), Decimal(0)),
        )

    @property
    def tokens(self) -> int:
        """Input and output tokens, as ``budget.tokens`` counts them."""
        return self.input_tokens + self.output_tokens

    def to_json(self) -> dict[str, Any]:
        """The form in a status."""
        return {
            "modelCalls": self.model_calls,
            "inputTokens": self.input_tokens,
            "cachedInputTokens": self.cached_input_tokens,
            "outputTokens": self.output_tokens,
            "toolCalls": self.tool_calls,
            "costUSD": format(self.cost_usd.normalize() + 0, "f"),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Usage:
        """The inverse of ``to_json``."""
        return cls(
            value["modelCalls"],
            value["inputTokens"],
            value["cachedInputTokens"],
            value["outputTokens"],
            value["toolCalls"],
            Decimal(value["costUSD"]),
        )


@dataclass(frozen=True, slots=True)
class Allowance:
    """The part of a run's budget that one attempt may spend. None in a field means no bound.

    ``last``: no other attempt holds a part, so the attempt gets no more by waiting. A call that does not fit fails.
    """

    model_calls: int | None = None
    tokens: int | None = None
    tool_calls: int | None = None
    cost_usd: Decimal | None = None
    last: bool = True

    def to_json(self) -> dict[str, Any]:
        """The form in the attempt's spec."""
        found: dict[str, Any] = {
            "modelCalls": self.model_calls,
            "tokens": self.tokens,
            "toolCalls": self.tool_calls,
            "costUSD": None if self.cost_usd is None else str(self.cost_usd),
        }
        return {**{k: v for k, v in found.items() if v is not None}, "last": self.last}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Allowance:
        """The inverse of ``to_json``."""
        cost = value.get("costUSD")
        return cls(
            value.get("modelCalls"),
            value.get("tokens"),
            value.get("toolCalls"),
            None if cost is None else Decimal(cost),
            value.get("last", True),
        )


@dataclass(frozen=True, slots=True)
class FailureInfo:
    """Why an attempt or a step failed. People and the retry rules read it."""

    failure_class: FailureClass
    message: str
    retry_after: float | None = None
    """Seconds that the endpoint asked the caller to wait."""
    retryable: bool = True
    happened: bool = False
    """True if the call was carried out although it failed: its answer could not be used."""

    def to_json(self) -> dict[str, Any]:
        """The form in records."""
        found: dict[str, Any] = {"class": str(self.failure_class), "message": self.message}
        if self.retry_after is not None:
            found["retryAfter"] = self.retry_after
        if not self.retryable:
            found["retryable"] = False
        if self.happened:
            found["happened"] = True
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FailureInfo:
        """The inverse of ``to_json``."""
        return cls(
            FailureClass(value["class"]),
            value["message"],
            value.get("retryAfter"),
            value.get("retryable", True),
            value.get("happened", False),
        )


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A question to people. ``digest`` binds a decision to exactly this question."""

    subject: str
    details: Any
    digest: str
    approvers: Approvers
    required: int
    expires_at: float
    """Seconds since the epoch."""
    call_id: str | None = None
    """The tool call that waits for the decision; None for an approval step."""
    tool: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The form in records and events."""
        found = {
            "subject": self.subject,
            "details": self.details,
            "digest": self.digest,
            "approvers": {"users": self.approvers.users, "groups": self.approvers.groups},
            "required": self.required,
            "expiresAt": self.expires_at,
        }
        return found | ({"callId": self.call_id, "tool": self.tool} if self.call_id is not None else {})

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ApprovalRequest:
        """The inverse of ``to_json``."""
        return cls(
            value["subject"],
            value["details"],
            value["digest"],
            Approvers(**value["approvers"]),
            value["required"],
            value["expiresAt"],
            value.get("callId"),
            value.get("tool"),
        )


@dataclass(frozen=True, slots=True)
class UnknownCall:
    """A ``Once`` call that was begun and whose outcome is unknown."""

    call_id: str
    tool: str
    args: Any
    message: str

    def to_json(self) -> dict[str, Any]:
        """The form in records."""
        return {"callId": self.call_id, "tool": self.tool, "args": self.args, "message": self.message}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> UnknownCall:
        """The inverse of ``to_json``."""
        return cls(value["callId"], value["tool"], value["args"], value["message"])


REFUSED_MAX, REFUSED_WORD_MAX = 100, 100
"""At most this many words for refusals per step, and characters per word: a fact comes from a tenant's pod."""


def refused_words(value: Any) -> list[str]:
    """The words for refusals in ``value``, which a tenant's pod wrote. Anything else in it is skipped."""
    words = value[:REFUSED_MAX] if isinstance(value, list | tuple) else ()
    return [word for word in words if isinstance(word, str) and len(word) <= REFUSED_WORD_MAX]


class AttemptEnd(StrEnum):
    """How an attempt ended, according to the last record that it wrote."""

    WAITING = "waiting"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StepFact:
    """The result of folding one step's log. Times are seconds since the epoch."""

    attempt: int = 0
    """The number of the last attempt that opened; 0 if none did."""
    seq: int = 0
    head: str = ""
    """The hash of the last record."""
    started: float = 0.0
    at: float = 0.0
    """When the last record was written."""
    end: AttemptEnd | None = None
    """How the last attempt ended. None if it still runs, or was lost."""
    intervals: tuple[tuple[float, float], ...] = ()
    """When attempts were at work: each from its first record to its last."""
    usage: Usage = field(default_factory=Usage)
    failures: int = 0
    """The number of attempts that recorded a failure."""
    losses: int = 0
    """The number of consecutive attempts that were lost without any progress."""
    failure: FailureInfo | None = None
    approvals: tuple[ApprovalRequest, ...] = ()
    unknown: UnknownCall | None = None
    needs_budget: bool = False
    again: bool = False
    """True if a person said that a call did not happen, and the call was not begun again yet."""
    happened: bool = False
    """True if a call of the step was carried out although its answer could not be used."""
    outcome: StepState | None = None
    output: Any = None
    size: int = field(default=0, compare=False, repr=False)
    """Bytes of memory that the output takes, even if the output is no longer kept (``plan.output_bounds``)."""
    refused: tuple[str, ...] = ()
    """``model/word`` for each thing that a model's endpoint is known to refuse, so that other steps do not try it."""

    @property
    def active(self) -> float:
        """Seconds of work over all attempts."""
        return 0.0 if not self.intervals else sum(end - start for start, end in self.intervals)

    def to_json(self) -> dict[str, Any]:
        """The termination message. Fields with their default value are left out."""
        found: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "size":
                continue
            if f.name == "usage":
                found["usage"] = value.to_json()
            elif f.name == "approvals":
                found |= {"approvals": [request.to_json() for request in value]} if value else {}
            elif f.name in ("failure", "unknown"):
                found |= {f.name: value.to_json()} if value is not None else {}
            elif f.name == "output" or value != f.default:
                found[f.name] = value
        return found

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StepFact:
        """The inverse of ``to_json``."""
        found = dict(value)
        found["usage"] = Usage.from_json(value["usage"])
        found["intervals"] = tuple((start, end) for start, end in value.get("intervals", ()))
        found["approvals"] = tuple(ApprovalRequest.from_json(request) for request in value.get("approvals", ()))
        if "end" in value:
            found["end"] = AttemptEnd(value["end"])
        if "failure" in value:
            found["failure"] = FailureInfo.from_json(value["failure"])
        if "unknown" in value:
            found["unknown"] = UnknownCall.from_json(value["unknown"])
        if "refused" in value:
            found["refused"] = tuple(refused_words(value["refused"]))
        if "outcome" in value:
            found["outcome"] = StepState(value["outcome"])
        found["size"] = footprint(value.get("output"))
        return cls(**found)
