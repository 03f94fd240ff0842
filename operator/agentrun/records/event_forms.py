"""Whether the body of an event has the form of its kind. A reader of the run's log checks each body once.

A hash that fits does not prove that agentrun wrote the event: a step's pod can write to the store, too. Without the
check, the planner and the status would fail at such a body in many places, each time that they read it.

This is a table and no pydantic: the check costs less than the read of the event, and it converts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from agentrun.api.keys import StepKey
from agentrun.api.run import Outcome, StepState
from agentrun.api.texts import quoted
from agentrun.api.tools import Approvers
from agentrun.api.workflow import MAX_ITEMS, FailureClass
from agentrun.records.run_events import EventKind

Check = Callable[[Any], object]
"""Whether a JSON value has a form. It returns False, or raises one of ``_UNFIT``, if the value does not."""

_UNFIT = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a check raises for a value of another form."""

_FAR = 1e300
"""Seconds: any number with which floats can still be reckoned. What is beyond the calendar is shown as never."""


_NONE = type(None)


def _is(*types: type) -> Check:
    """Exactly one of ``types``: a truth value is no number."""
    return lambda value: type(value) in types


def _any(value: Any) -> bool:
    return True


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and -_FAR < value < _FAR


def _items(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ITEMS


def _one_of(*words: str) -> Check:
    return lambda value: type(value) is str and value in words


def _read_by(parse: Callable[[str], object]) -> Check:
    """A text that ``parse`` takes."""

    def check(value: Any) -> bool:
        if type(value) is str:
            parse(value)
        return type(value) is str

    return check


def _each(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _map(name: Check, check: Check) -> Check:
    return lambda value: type(value) is dict and all(map(name, value)) and all(map(check, value.values()))


def _object(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    more = optional or {}

    def check(value: Any) -> bool:
        return (
            type(value) is dict
            and all(test(value[name]) for name, test in required.items())
            and all(test(value[name]) for name, test in more.items() if name in value)
        )

    return check


def _approvers(value: Any) -> bool:
    Approvers(**value)
    return True


def _head(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) is int and type(value[1]) is str


_text, _flag, _whole, _text_or_none, _whole_or_none = _is(str), _is(bool), _is(int), _is(str, _NONE), _is(int, _NONE)
_step, _state, _outcome = _read_by(StepKey.parse), _read_by(StepState), _read_by(Outcome)
_failure = _object(
    {"class": _read_by(FailureClass), "message": _text},
    {"retryAfter": _seconds, "retryable": _flag, "happened": _flag},
)
_counts = ("modelCalls", "inputTokens", "cachedInputTokens", "outputTokens", "toolCalls")
_usage = _object(dict.fromkeys(_counts, _whole) | {"costUSD": _read_by(Decimal)})
_request = _object(
    {
        "subject": _text,
        "details": _any,
        "digest": _text,
        "approvers": _approvers,
        "required": _whole,
        "expiresAt": _seconds,
    }
)
_source = _object({"run": _text}, {"event": _whole, "hash": _text})
_SAID: dict[str, Check] = {"by": _text_or_none, "verified": _flag}
_COMMANDED = _SAID | {"command": _text}

EVENT_FORMS: Mapping[str, tuple[Mapping[str, Check], Mapping[str, Check]]] = {
    EventKind.APPROVAL_REQUESTED: ({"step": _step, "request": _request}, {}),
    EventKind.DECIDED: (
        {"digest": _text, "decision": _one_of("Approved", "Rejected"), "by": _text, "comment": _text},
        {"verified": _flag, "step": _step, "groups": _each(_text), "approval": _text, "at": _seconds},
    ),
    EventKind.SIGNALLED: ({"name": _text, "payload": _any}, _COMMANDED),
    EventKind.WAIT_STARTED: ({"step": _step}, {"signal": _text, "until": _seconds}),
    EventKind.SETTLED: (
        {"step": _step, "state": _state},
        {
            "output": _any,
            "failure": _failure,
            "items": _items,
            "states": _map(_state, _each(_items)),
            "signal": _whole,
            "source": _source,
        },
    ),
    EventKind.SUSPENDED: ({}, _SAID),
    EventKind.UNSUSPENDED: ({}, _SAID),
    EventKind.CANCELLED: ({}, _SAID | {"late": _flag}),
    EventKind.TTL_CHANGED: ({"ttlSecondsAfterFinished": _whole_or_none}, _SAID),
    EventKind.TIMED_OUT: ({"active": _seconds}, {}),
    EventKind.RESUMED: ({}, _COMMANDED | {"step": _step, "attempts": _map(_step, _whole)}),
    EventKind.RESOLVED: (
        {
            "step": _step,
            "callId": _text,
            "answer": _one_of("happened", "retry", "giveUp"),
            "result": _any,
        },
        _COMMANDED | {"attempt": _whole},
    ),
    EventKind.ENDED: (
        {
            "outcome": _outcome,
            "output": _any,
            "steps": _map(_text, _state),
            "compensations": _map(_step, _state),
            "heads": _map(_step, _head),
        },
        {
            "usage": _usage,
            "failure": _failure,
            "failedStep": _text,
            "notUndone": _map(_text, _text),
            "signature": _object({"key": _text, "manifest": _text, "value": _text}),
        },
    ),
}
"""By kind: the fields that every body has, and those that it may have. Other fields are of later versions."""


def misfit(kind: str, body: Any) -> str | None:
    """What is wrong with ``body`` as the body of an event of ``kind``; None: nothing, or the kind is not known here."""
    form = EVENT_FORMS.get(kind)
    if form is None:
        return None
    required, optional = form
    if type(body) is not dict:
        return "it is no object"
    for name, check in required.items():
        if name not in body:
            return f"it has no {name}"
        if not _holds(check, body[name]):
            return f"{name} is {quoted(body[name])}"
    for name, check in optional.items():
        if name in body and not _holds(check, body[name]):
            return f"{name} is {quoted(body[name])}"
    if kind == EventKind.WAIT_STARTED and "signal" not in body and "until" not in body:
        return "it has neither signal nor until"
    if kind == EventKind.SETTLED and "failure" not in body and StepKey.parse(body["step"]).name != body["step"]:
        return "it has no failure, though it ends an item or a compensation"
    return None


def _holds(check: Check, value: Any) -> bool:
    try:
        return bool(check(value))
    except _UNFIT:
        return False
