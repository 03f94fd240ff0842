"""The form of a status: the CRD's schema, and what the operator keeps to beyond it.

Whoever may write ``agentruns/status`` can write what the schema accepts and no operator writes: a wait for nothing, an
unknown call without its id, the year 0. Readers of a status start from what ``in_form`` leaves of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from agentrun.api.canonical import moment
from agentrun.api.keys import StepKey
from agentrun.api.status import RUN_STATUS
from agentrun.api.texts import quoted

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "usage": ("modelCalls", "inputTokens", "cachedInputTokens", "outputTokens", "toolCalls", "costUSD"),
    "failure": ("message",),
}
"""By the name of an object: the fields that the schema does not require and the operator always writes."""

_WITH: Mapping[str, tuple[str, ...]] = {"resolve": ("tool", "callId"), "approval": ("subjects",)}
"""By the kind of a wait: the details that the operator always writes with it."""

_READ: Mapping[str, Callable[[str], object]] = {"name": StepKey.parse, "costUSD": Decimal}
"""By field: what reads its text."""


class _Unfit(Exception):
    """The value does not have the form; the message says what is wrong with it."""


def in_form(status: Any) -> tuple[dict[str, Any], str | None]:
    """The part of ``status`` that has the form, and what is wrong with the first other part; None: nothing.

    A field or an element that does not have the form is left out. Fields that are not known here are kept: a later
    version may write them.
    """
    problems: list[str] = []
    try:
        found = _fit(status or {}, RUN_STATUS, "status", "status", problems)
    except _Unfit as why:
        return {}, str(why)
    return found, problems[0] if problems else None


def _fit(value: Any, schema: Mapping[str, Any], field: str, path: str, problems: list[str]) -> Any:
    """The part of ``value`` that has the form of ``schema``. Raises _Unfit if there is none."""
    match schema.get("type"):
        case "object":
            return _object(value, schema, field, path, problems)
        case "array" if isinstance(value, list):
            return _array(value, schema["items"], field, path, problems)
        case "string" if isinstance(value, str):
            _check_text(value, schema, field, path)
        case "integer" if type(value) is int:
            pass
        case "number" if type(value) in (int, float):
            pass
        case "boolean" if isinstance(value, bool):
            pass
        case None:  # free
            pass
        case kind:
            raise _Unfit(f"{path} is no {kind}")
    return value


def _object(value: Any, schema: Mapping[str, Any], field: str, path: str, problems: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unfit(f"{path} is no object")
    known, found = schema["properties"], {}
    for name, part in value.items():
        try:
            found[name] = _fit(part, known[name], name, f"{path}.{name}", problems) if name in known else part
        except _Unfit as why:
            problems.append(str(why))
    required = [*schema.get("required", ()), *_REQUIRED.get(field, ())]
    if field == "waitingFor":
        if not found:
            raise _Unfit(f"{path} names nothing that it waits for")
        required += [detail for kind, details in _WITH.items() if kind in found for detail in details]
    if missing := [name for name in required if name not in found]:
        raise _Unfit(f"{path} has no {missing[0]}")
    return found


def _array(value: list[Any], schema: Mapping[str, Any], field: str, path: str, problems: list[str]) -> list[Any]:
    found = []
    for number, element in enumerate(value):
        try:
            found.append(_fit(element, schema, field, f"{path}[{number}]", problems))
        except _Unfit as why:
            problems.append(str(why))
    return found


def _check_text(value: str, schema: Mapping[str, Any], field: str, path: str) -> None:
    if value not in schema.get("enum", (value,)):
        raise _Unfit(f"{path} is {quoted(value)}")
    read = moment if schema.get("format") == "date-time" else _READ.get(field)
    if read is not None:
        try:
            read(value)
        except (ValueError, InvalidOperation):
            raise _Unfit(f"{path} is {quoted(value)}") from None
