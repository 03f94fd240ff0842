"""Pure functions that read the parts of an endpoint's answer, in all the forms that endpoints use.

No two "compatible" endpoints answer alike. These functions accept every form that was seen and has only one meaning;
``docs/providers.md`` lists them. A part without a clear meaning is an error, and the caller tells the model or asks
again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from agentrun.api.values import JSON
from agentrun.runner.failures import plain
from agentrun.runner.lenient import Unsayable, mended
from agentrun.runner.models import Usage
from agentrun.workflow.bounded_json import parse_json

TOKENS_MAX = 10**9
"""More than any window has. A larger count is not valid."""

SHOWN_MAX = 4_000
"""Characters that the history keeps of arguments that cannot be parsed."""

NOTHING = "(no answer)"
"""The text, in the history, of an empty turn: some endpoints refuse an empty message, some a missing one."""


ARGUMENTS = ("arguments", "input", "parameters", "args")
"""Fields that may contain the arguments of a call."""


class Malformed(Exception):
    """An answer cannot be read as a turn. The message says what is missing."""


class AnswerFailed(Exception):
    """The answer says that the endpoint failed while it answered. ``error`` has the form of an API's error."""

    def __init__(self, error: JSON) -> None:
        super().__init__("the endpoint failed on the way")
        self.error = error


class Call(NamedTuple):
    """A tool call as the endpoint sent it, unchecked."""

    id: JSON
    name: JSON
    arguments: JSON


class Heard(NamedTuple):
    """The content of a turn, from either API."""

    text: str | None
    refusal: str | None
    calls: tuple[Call, ...] = ()


# Arguments.


def arguments(given: JSON) -> tuple[dict[str, JSON] | None, str | None]:
    """The arguments of a call, or what is wrong with them, in words that the model can act on.

    Empty arguments may also be an empty text, null or an empty list. Arguments may be an object, alone in a list, or
    JSON inside a JSON text. Small faults of the JSON are repaired if there is only one reading.
    """
    value = given
    for _ in range(3):  # no endpoint was seen to nest more than three levels of JSON texts
        if not isinstance(value, str) or isinstance(value, Unsayable):
            break
        if not value.strip(" \t\r\n\ufeff\x00"):
            value = {}
            break
        try:
            value = mended(value)
        except ValueError as error:
            return None, f"the arguments are not JSON: {error}"
    if value is None or value == []:
        return {}, None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        [value] = value
    if not isinstance(value, dict):
        return None, f"the arguments are not a JSON object, but {_kind(value)}"
    if (number := _unsayable(value)) is not None:
        return None, f"the arguments are not JSON: {number} is not JSON"
    return value, None


def arguments_to_send(given: JSON) -> str:
    """The arguments in a form that is valid in a history: always the text of a JSON object.

    A text that is valid already is unchanged. Arguments that cannot be parsed are put into an object.
    """
    if isinstance(given, str):
        try:
            if isinstance(parse_json(given), dict):
                return given
        except ValueError:
            pass
    args, error = arguments(given)
    if error is not None:
        said = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        args = {"unreadable": said if len(said) <= SHOWN_MAX else said[:SHOWN_MAX] + "…"}
    return json.dumps(args, ensure_ascii=False)


def _unsayable(value: JSON) -> str | None:
    inner: Iterable[JSON] = ()
    match value:
        case Unsayable():
            return str(value)
        case dict():
            inner = value.values()
        case list():
            inner = value
        case _:
            pass
    return next((found for part in inner if (found := _unsayable(part)) is not None), None)


def _kind(value: JSON) -> str:
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")


def own_call(part: JSON) -> Call | None:
    """The call in a part or item that has Anthropic's form of a call; None for any other part."""
    if not isinstance(part, dict) or part.get("type") not in ("tool_use", "tool_call", "function"):
        return None
    function = part.get("function")
    function = function if isinstance(function, dict) else part
    given = next((function[key] for key in ARGUMENTS if key in function), None)
    return Call(part.get("id"), function["name"], given) if isinstance(function.get("name"), str) else None


# Texts.


def heard_content(content: JSON) -> tuple[str | None, str | None]:
    """The text and the refusal in a message's content: a text, parts of many types, or JSON where a text should be."""
    if content is None or isinstance(content, str):
        return content, None
    parts = content if isinstance(content, list) else [content]
    if not any(isinstance(part, str) or (isinstance(part, dict) and _is_part(part)) for part in parts):
        return (json.dumps(content, ensure_ascii=False) if content != [] else None), None
    texts: list[str] = []
    refusals: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("thought") is not True:  # as Gemini marks its thoughts
            if part.get("type") == "refusal":
                refusals.append(_text_at(part, "refusal") or _text_at(part, "text") or "refused")
            elif part.get("type") in (None, "text", "output_text", "input_text"):
                found = _text_at(part, "text")
                texts += [found] if found is not None else []
    return ("".join(texts) if texts else None), ("\n".join(refusals) if refusals else None)


def are_parts(content: JSON) -> bool:
    """Whether ``content`` is a list of a message's parts."""
    return isinstance(content, list) and all(isinstance(part, dict) and _is_part(part) for part in content)


def _is_part(part: dict[str, Any]) -> bool:
    """Whether ``part`` is a part of a message, and not JSON that is the answer itself."""
    if isinstance(part.get("type"), str):
        return True
    return set(part) <= {"text", "annotations", "cache_control"} and _text_at(part, "text") is not None


def _text_at(part: dict[str, Any], key: str) -> str | None:
    value = part.get(key)
    if isinstance(value, dict):  # {"value": …, "annotations": …}
        value = value.get("value")
    return value if isinstance(value, str) else None


def refused(value: JSON) -> str | None:
    """The text of a message's field ``refusal``; None if it is empty."""
    return value if isinstance(value, str) and value.strip() else None


# How an answer ended.


class Ending(NamedTuple):
    """``whole``, ``cut`` (``reason`` says why), or ``failed`` at the endpoint."""

    kind: Literal["whole", "cut", "failed"]
    reason: str = ""


_FAILED = (
    r"error(?!_(?:toxic|limit))|fail|abort|cancel|timed?_?out|malformed|unexpected|insufficient|overload|unavailable"
    r"|interrupt|exception|missing|too_many"
)
_FILTERED = (
    r"filter|safety|recitation|block|prohibit|spii|sensitive|moderat|refus|guardrail|polic|harm|copyright|violat"
    r"|intervened|toxic|armor"
)
_TOO_LONG = r"length|max|limit|truncat|budget|context|incomplete|exceed|exhaust|pause"
_WHOLE = frozenset({"completed", "stop", "tool_calls"})
"""The usual words for an answer that is whole. The patterns do not match them."""
_CUT_OFF = {"length": "max_output_tokens", "max_tokens": "max_output_tokens"}


def ending(*reasons: JSON) -> Ending:
    """How an answer ended, from the endpoint's finish reasons. The worst of ``reasons`` counts."""
    found = [_ending(reason) for reason in reasons]
    for kind in ("failed", "cut"):
        if (one := next((e for e in found if e.kind == kind), None)) is not None:
            return one
    return Ending("whole")


def _ending(reason: JSON) -> Ending:
    if isinstance(reason, dict):
        reason = next((reason[key] for key in ("type", "reason", "unified", "raw") if key in reason), None)
    if not isinstance(reason, str) or reason in _WHOLE:
        return Ending("whole")
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason.strip()).lower().replace("-", "_").replace(" ", "_")
    if re.search(_FAILED, word):
        return Ending("failed", plain(word, 60))
    if re.search(_FILTERED, word) or re.search(_TOO_LONG, word):
        return Ending("cut", _CUT_OFF.get(word, plain(word, 60)))
    return Ending("whole")


# Usage.


def tokens(usage: JSON, *names: str) -> int:
    """The first valid count of tokens in ``usage`` under one of ``names``; 0 if there is none.

    A name with a dot is a path. A fraction is rounded up, so that a budget does not gain by rounding. A count that is
    negative or larger than ``TOKENS_MAX`` counts as not reported.
    """
    if not isinstance(usage, dict):
        return 0
    for name in names:
        value: Any = usage.get(name)
        if "." in name:
            value = usage
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            continue
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", value):
            value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= TOKENS_MAX:
            return math.ceil(value)
    return 0


def read_usage(usage: JSON) -> Usage:
    """The usage of the turn, under the names of either API: gateways translate some names and not others."""
    whole = tokens(usage, "total_tokens")
    output = tokens(usage, "completion_tokens", "output_tokens", "completionTokens", "outputTokens")
    asked = tokens(usage, "prompt_tokens", "input_tokens", "promptTokens", "inputTokens")
    cached = tokens(
        usage,
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "prompt_cache_hit_tokens",
        "cached_tokens",
    )
    return Usage(asked or max(whole - output, 0), cached, output or (max(whole - asked, 0) if asked else 0))


def label(value: JSON) -> str:
    """An id or a name that is recorded only for people."""
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def joined(parts: Sequence[str]) -> str | None:
    """The texts joined; None if there are none."""
    return "".join(parts) if parts else None
