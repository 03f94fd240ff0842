"""The fold: the state that follows from a step's records. Deterministic, without side effects, linear.

The runner that resumes a step, the driver that asks how it stands and the person who looks at it all use this fold. A
checkpoint (a ``compacted`` record) holds the whole folded state, so a fold from it equals a fold from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from agentrun.api.facts import (
    REFUSED_MAX,
    ApprovalRequest,
    AttemptEnd,
    FailureInfo,
    StepFact,
    UnknownCall,
    Usage,
    refused_words,
)
from agentrun.api.footprint import footprint
from agentrun.api.run import StepState
from agentrun.journal.records import Damaged, Record
from agentrun.records.step_records import (
    ClosedBody,
    CompactedBody,
    FailedBody,
    IntentBody,
    Kind,
    ModelCall,
    OpenedBody,
    ResultBody,
    TurnBody,
    WaitingBody,
)

_UNFIT = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading a body raises that is not in the form of its kind."""


@dataclass(slots=True)
class Folded:
    """The state of a step after some of its records. Every value is JSON or converts to it (``to_json``)."""

    attempt: int = 0
    seq: int = 0
    head: str = ""
    started: float = 0.0
    at: float = 0.0
    end: AttemptEnd | None = None
    intervals: list[list[float]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=lambda: Usage().to_json())
    failures: int = 0
    losses: int = 0
    process: dict[str, Any] = field(default_factory=dict)
    """The process in which the last attempt runs or ran."""
    progress: bool = False
    """Whether the last attempt committed anything after it opened."""
    failure: Mapping[str, Any] | None = None
    waiting: dict[str, Any] = field(default_factory=dict)
    """The body of the ``waiting`` record that the last attempt ended with."""
    task: dict[str, Any] | None = None
    """The step's rendered request, rendered once, when the step first opened."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """For an agent: ``{user: text}``, ``{items: […]}`` (a model's output, verbatim), ``{results: […]}``."""
    turns: int = 0
    repairs: int = 0
    last: dict[str, Any] | None = None
    """Text, refusal and ``incomplete`` of the last model turn: the step's answer, if that turn asked for no calls."""
    pending: list[ModelCall] = field(default_factory=list)
    """Calls of the last turn (or of the tool step) without a result, in order."""
    intent: IntentBody | None = None
    """The ``Once`` call that was begun and has no result. Its outcome is unknown once its attempt is gone."""
    again: bool = False
    """A person said that a call did not happen, and no other call was begun since."""
    caller: dict[str, Any] = field(default_factory=dict)
    """The process of the attempt that wrote the intent."""
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Decisions and resolutions that attempts took in, by their event's number. A resolution is dropped once used."""
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Questions to people about tool calls, by the call's id."""
    happened: bool = False
    """A call was carried out, though its answer could not be used."""
    context: int = 0
    """Tokens that the model's last request and its answer took."""
    outcome: str | None = None
    output: Any = None
    refused: list[str] = field(default_factory=list)
    """Words ``model/word`` for what a model's endpoint is known to refuse."""

    def to_json(self) -> dict[str, Any]:
        """The state as a checkpoint holds it. ``refused`` is kept beside it: earlier versions do not know that part."""
        return {name: getattr(self, name) for name in self.__slots__ if name not in ("seq", "head", "refused")}

    def checkpoint(self) -> CompactedBody:
        """The body of a checkpoint, which replaces all records before it in a fold."""
        body: CompactedBody = {"reason": "checkpoint", "state": self.to_json()}
        if self.refused:
            body["refused"] = self.refused
        return body

    def fact(self) -> StepFact:
        """The fact that the planner reads of the step.

        Raises:
            Damaged: as for ``fold``.
        """
        try:
            return self._fact()
        except _UNFIT as error:
            raise Damaged(
                f"what the records up to number {self.seq} of a step hold is not what agentrun writes "
                f"({type(error).__name__}: {error})"
            ) from error

    def _fact(self) -> StepFact:
        unknown = self.waiting.get("unknown")
        if self.end is None and self.intent is not None:
            # If the attempt is gone, the outcome is unknown. While it runs, nobody reads this part of the fact.
            message = f"{self.intent['tool']} was called and no answer is known; look whether it happened, then resolve"
            unknown = {"callId": self.intent["id"], "message": message} | {k: self.intent[k] for k in ("tool", "args")}
        return StepFact(
            attempt=self.attempt,
            seq=self.seq,
            head=self.head,
            started=self.started,
            at=self.at,
            end=self.end,
            intervals=tuple((start, end) for start, end in self.intervals),
            usage=Usage.from_json(self.usage),
            failures=self.failures,
            losses=0 if self.progress else self.losses,
            failure=FailureInfo.from_json(self.failure) if self.failure else None,
            approvals=tuple(ApprovalRequest.from_json(request) for request in self.waiting.get("approvals", ())),
            unknown=UnknownCall.from_json(unknown) if unknown else None,
            needs_budget=bool(self.waiting.get("budget")),
            refused=tuple(self.refused),
            again=self.again,
            happened=self.happened,
            outcome=StepState(self.outcome) if self.outcome else None,
            output=self.output,
            size=footprint(self.output),
        )


def fold(records: Iterable[Record], state: Folded | None = None) -> Folded:
    """Apply ``records`` in order to ``state`` (by default a new one), and return it.

    Raises:
        Damaged: a record does not hold what its kind holds. Its hash fits, so a process other than agentrun's wrote it.
    """
    state = state or Folded()
    for record in records:
        try:
            apply(state, record)
        except _UNFIT as error:
            what = f"the {record.kind} record does not hold what such a record holds ({type(error).__name__}: {error})"
            raise Damaged(f"{record.run}/{record.step}, number {record.seq}: {what}") from error
    return state


def checkpoint(records: Iterable[Record]) -> CompactedBody:
    """The body of a checkpoint, which replaces ``records`` in a fold."""
    return fold(records).checkpoint()


def apply(state: Folded, record: Record) -> None:
    """Change ``state`` as ``record`` says."""
    body = record.body
    state.seq, state.head = record.seq, record.hash
    if "refused" in body:
        state.refused = sorted({*state.refused, *refused_words(body["refused"])})[:REFUSED_MAX]
    if record.kind == _OPENED:
        _open(state, record, body)
        state.at = record.at
        return
    state.progress = True
    take = _TAKE.get(record.kind)
    if take is not None:  # None: a kind that a later version of agentrun added
        take(state, body)
    if record.kind == _COMPACTED and "state" in body:
        return  # the restored state has its own instants
    state.at = record.at
    if state.intervals:
        state.intervals[-1][1] = record.at


def _restore(state: Folded, saved: dict[str, Any]) -> None:
    """Take over a checkpoint. Its lists and mappings are copied, so that later records change the state and not the
    checkpoint's record, which may be folded twice. Of their entries, only intervals are changed in place, so only
    intervals are copied too.
    """
    for name, value in saved.items():
        setattr(state, name, copy(value))
    state.end = AttemptEnd(state.end) if state.end is not None else None  # a checkpoint holds it as a string
    state.outcome = str(StepState(state.outcome)) if state.outcome is not None else None
    state.intervals = [list(interval) for interval in state.intervals]


def _open(state: Folded, record: Record, body: OpenedBody) -> None:
    if state.end is not None:
        state.losses = 0
    elif state.attempt:
        # The attempt before was lost. If it had committed anything, the count starts again.
        state.losses = 1 if state.progress else state.losses + 1
    if state.end is AttemptEnd.FAILED:
        state.repairs = 0
    state.attempt, state.end, state.waiting, state.progress = record.attempt, None, {}, False
    state.process = body.get("process", {})
    state.started = state.started or record.at
    state.intervals.append([record.at, record.at])
    state.task = state.task or body.get("task")
    state.events.update(body.get("events", {}))


def _turn(state: Folded, body: TurnBody) -> None:
    state.turns += 1
    state.repairs = 0 if body["calls"] else state.repairs
    state.history.append({"items": body["items"]})
    state.pending = [call.copy() for call in body["calls"]]
    state.last = {name: body.get(name) for name in ("text", "refusal", "incomplete")}
    spent = Usage.from_json(body["usage"])
    state.context = spent.tokens
    state.usage = (Usage.from_json(state.usage) + spent).to_json()


def _intent(state: Folded, body: IntentBody) -> None:
    state.intent, state.caller, state.again = body, state.process, False
    _count_calls(state, 1)  # from now on the call may have been made
    state.events = {n: e for n, e in state.events.items() if e.get("callId") != body["id"]}


def _wait(state: Folded, body: WaitingBody) -> None:
    state.end, state.waiting = AttemptEnd.WAITING, {k: v for k, v in body.items() if k != "answer"}
    state.happened |= body.get("unknown", {}).get("happened", False)
    _count_calls(state, body.get("toolCalls", 0))
    state.requests |= {request["callId"]: request for request in body.get("approvals", ())}


def _fail(state: Folded, body: FailedBody) -> None:
    state.end, state.failure = AttemptEnd.FAILED, body
    state.failures += 1
    state.happened |= body.get("happened", False)
    _count_calls(state, body.get("toolCalls", 0))


def _close(state: Folded, body: ClosedBody) -> None:
    state.end = AttemptEnd.CLOSED
    state.outcome, state.output = str(StepState(body["outcome"])), body.get("output")
    state.failure = body.get("failure")
    state.happened |= (state.failure or {}).get("happened", False)
    _count_calls(state, body.get("toolCalls", 0))


def _compact(state: Folded, body: CompactedBody) -> None:
    if "state" in body:
        _restore(state, body["state"])
        return
    state.history, state.context = [*body["history"]], 0
    state.usage = (Usage.from_json(state.usage) + Usage.from_json(body["usage"])).to_json()


def _result(state: Folded, body: ResultBody) -> None:
    if "repair" in body:
        state.repairs += 1
        state.history.append({"user": body["repair"]})
        return
    if "undone" in body:  # the call surely did not happen: forget that it was begun
        state.intent, state.again = None, "by" in body
        state.happened &= not state.again
        _count_calls(state, -1)
        return
    # An answer that cannot be used is kept in the record for people. The history has what the model was told.
    results = [{k: v for k, v in result.items() if k != "answer"} for result in body["results"]]
    begun = state.intent["id"] if state.intent else None
    done = {result["id"] for result in results}
    state.pending = [call for call in state.pending if call["id"] not in done]
    if state.intent and state.intent["id"] in done:
        state.intent = None
    # The results of one turn are one entry, however many records they came in.
    if state.history and "results" in state.history[-1]:
        state.history[-1] = {"results": state.history[-1]["results"] + results}
    else:
        state.history.append({"results": results})
    _count_calls(state, sum(1 for result in results if result["called"] and result["id"] != begun))


def _count_calls(state: Folded, calls: int) -> None:
    if calls:
        state.usage = (Usage.from_json(state.usage) + Usage(tool_calls=calls)).to_json()


# A table, not a ``match``: a ``match`` looks up one member of the enum for each case, and a resume folds thousands.
_TAKE: dict[str, Callable[[Folded, Any], None]] = {
    Kind.TURN: _turn,
    Kind.INTENT: _intent,
    Kind.RESULT: _result,
    Kind.WAITING: _wait,
    Kind.FAILED: _fail,
    Kind.CLOSED: _close,
    Kind.COMPACTED: _compact,
}
_OPENED, _COMPACTED = Kind.OPENED.value, Kind.COMPACTED.value
