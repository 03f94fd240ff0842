"""A profile of an endpoint, and the rows of which profiles are made: refusals and shapes of errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .conversation import JSON, Body, RequestError
from .quirks import QUIRKS, SIGNATURE

Check = Callable[[Body], str | None]
"""Looks at a request of either API: what is wrong with it, or None."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that the endpoint refuses: ``check`` says why. ``param`` and ``code`` stand in OpenAI's error shape."""

    check: Check
    param: str | None = None
    code: str | None = None
    status: int = 400


@dataclass(frozen=True, slots=True)
class Profile:
    """An endpoint. Whatever is not said here is as OpenAI does it."""

    quirks: tuple[str, ...] = ()
    """Of every answer, in this order; names of ``quirks.QUIRKS``."""
    refuses: tuple[Refusal, ...] = ()
    """Looked at in this order, before OpenAI's own checks."""
    takes: tuple[str, ...] = ()
    """Fields of messages, calls and items, and parameters, that OpenAI does not know and this endpoint takes."""
    errors: Callable[[int, Body], tuple[int, JSON]] = field(default=lambda status, error: (status, {"error": error}))
    """The status and body of a refusal, of OpenAI's status and error object."""
    apis: tuple[str, ...] = ("chat",)

    def check(self, body: Body) -> None:
        """Refuse what this endpoint refuses.

        Raises:
            RequestError: it does.

        """
        for refusal in self.refuses:
            if (said := refusal.check(body)) is not None:
                raise RequestError(said, refusal.param, refusal.code, status=refusal.status)

    def known(self, body: Body) -> Body:
        """``body`` without what this endpoint takes beyond OpenAI, so that OpenAI's checks hold for the rest."""
        if not self.takes:
            return body
        found = {name: value for name, value in body.items() if name not in self.takes}
        if isinstance(body.get("messages"), list):
            found["messages"] = [self._message(message) for message in body["messages"]]
        if isinstance(body.get("input"), list):
            kept = [i for i in body["input"] if not (isinstance(i, dict) and i.get("type") in self.takes)]
            found["input"] = [self._without(item) for item in kept]
        return found

    def _without(self, holder: JSON) -> JSON:
        if not isinstance(holder, dict):
            return holder
        return {name: value for name, value in holder.items() if name not in self.takes}

    def _message(self, message: JSON) -> JSON:
        message = self._without(message)
        if isinstance(message, dict) and isinstance(message.get("tool_calls"), list):
            message["tool_calls"] = [self._without(call) for call in message["tool_calls"]]
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            parts = message["content"]
            message["content"] = [p for p in parts if not (isinstance(p, dict) and p.get("type") in self.takes)]
        return message

    def distort(self, answer: Body, more: tuple[str, ...] = ()) -> None:
        """Give ``answer`` the endpoint's quirks, and ``more`` of them."""
        for name in (*self.quirks, *more):
            QUIRKS[name](answer)


# Rows of refusals. Each takes what the endpoint says: {} is what was found, {place} the message's number.


def parameter(name: str, says: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> Refusal:
    """``name`` is in the request; a dotted name is looked for inside (``response_format.json_schema``)."""
    return Refusal(lambda body: says if _at(body, name) is not None else None, param or name, code, status)


def together(one: str, other: str, says: str) -> Refusal:
    """Both are in the request."""
    return Refusal(lambda body: says if None not in (_at(body, one), _at(body, other)) else None)


def messages(wrong: Callable[[Body], JSON], says: str, *, status: int = 400) -> Refusal:
    """``wrong`` of a message (or of an item) of the history is neither None nor False."""

    def check(body: Body) -> str | None:
        for place, message in enumerate(_history(body)):
            found = wrong(message)
            if found is not None and found is not False:
                return says.replace("{place}", str(place)).replace("{}", str(found))
        return None

    return Refusal(check, "messages", status=status)


def _at(body: JSON, name: str) -> JSON:
    for part in name.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def _history(body: Body) -> Iterator[Body]:
    given = body.get("messages") if "messages" in body else body.get("input")
    yield from (entry for entry in (given if isinstance(given, list) else ()) if isinstance(entry, dict))


def _calls(message: Body) -> Iterator[Body]:
    calls = message.get("tool_calls")
    yield from (call for call in (calls if isinstance(calls, list) else ()) if isinstance(call, dict))


def no_text(message: Body) -> bool:
    """An assistant's message without calls that says nothing."""
    return message.get("role") == "assistant" and not message.get("tool_calls") and not message.get("content")


def null_content(message: Body) -> bool:
    """An assistant's message without calls whose content is null or missing."""
    return no_text(message) and message.get("content") is None


def blank_text(message: Body) -> bool:
    """A message with a text that holds nothing but blanks."""
    return isinstance(message.get("content"), str) and not message["content"].strip()


def broken_arguments(message: Body) -> str | None:
    """Arguments of a call that are no JSON object in a text: what a JSON parser says."""
    calls = [message] if message.get("type") == "function_call" else [call.get("function") for call in _calls(message)]
    for call in calls:
        text = _at(call, "arguments")
        try:
            value = json.loads(text if isinstance(text, str) else "")
        except ValueError as error:
            return str(error)
        if not isinstance(value, dict):
            return "Input should be a valid dictionary"
    return None


def odd_id(message: Body) -> JSON:
    """An id that is not nine letters and digits."""
    names = [call.get("id") for call in _calls(message)]
    names += [message["tool_call_id"]] if "tool_call_id" in message else []
    return next((repr(name) for name in names if not re.fullmatch("[a-zA-Z0-9]{9}", str(name))), None)


def long_id(message: Body) -> int | None:
    """An id of a call that is longer than OpenAI takes: its length."""
    names = [(call.get("id"), 40) for call in _calls(message)] + [(message.get("call_id"), 64)]
    return next((len(name) for name, most in names if isinstance(name, str) and len(name) > most), None)


def unsigned(message: Body) -> bool:
    """A turn of calls whose first one lacks Gemini's signature."""
    call = next(_calls(message), None)
    return call is not None and _at(call, "extra_content.google.thought_signature") != SIGNATURE


def lacks(name: str) -> Callable[[Body], bool]:
    """A turn of calls without the field ``name``."""
    return lambda message: bool(message.get("tool_calls")) and name not in message


def has(name: str) -> Callable[[Body], bool]:
    """A message or an item with the field ``name``."""
    return lambda message: name in message


def null_field(message: Body) -> str | None:
    """A field of an item that is null."""
    if message.get("role") == "assistant" and "type" not in message:
        return None
    return next((name for name, value in message.items() if value is None), None)


# Shapes of errors.


def detail(status: int, error: Body) -> tuple[int, JSON]:
    """As FastAPI words it."""
    where = ["body", *str(error["param"] or "").split(".")]
    said = {"type": error["code"] or "value_error", "loc": where, "msg": error["message"], "input": None}
    return (422 if status == 400 else status), {"detail": [said]}


def google(status: int, error: Body) -> tuple[int, JSON]:
    """As Google words it: a list of one."""
    return status, [{"error": {"code": status, "message": error["message"], "status": "INVALID_ARGUMENT"}}]


def flat(status: int, error: Body) -> tuple[int, JSON]:
    """As vLLM words it: no object around."""
    said = {"object": "error", "message": error["message"], "type": "BadRequestError", "param": None, "code": status}
    return status, said


def numbered(status: int, error: Body) -> tuple[int, JSON]:
    """OpenAI's shape with the status as the code."""
    return status, {"error": {"code": status, "message": error["message"], "type": "invalid_request_error"}}


def wrapped(status: int, error: Body) -> tuple[int, JSON]:
    """As OpenRouter words it: what the provider said is a JSON text inside."""
    raw = json.dumps({"error": {"message": error["message"], "code": error["code"]}})
    metadata = {"raw": raw, "provider_name": "Scripted"}
    return status, {"error": {"message": "Provider returned error", "code": status, "metadata": metadata}}


def litellm(status: int, error: Body) -> tuple[int, JSON]:
    """As LiteLLM's proxy words it."""
    said = f"litellm.BadRequestError: OpenAIException - {error['message']}"
    return status, {"error": {"message": said, "type": None, "param": None, "code": str(status)}}


def bare(status: int, error: Body) -> tuple[int, JSON]:
    """As Bedrock words it."""
    return status, {"message": error["message"]}


def in_text(status: int, error: Body) -> tuple[int, JSON]:
    """As Ollama's own API words it."""
    return status, {"error": error["message"]}
