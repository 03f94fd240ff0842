"""Converts a tool's HTTP response: to a value for the workflow and to a text for the model."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from agentrun.api.canonical import sha256
from agentrun.api.values import JSON
from agentrun.expressions.templates import ExpressionError, Values
from agentrun.runner.charsets import declared, decoded, is_text
from agentrun.runner.failures import plain
from agentrun.runner.lenient import read_value
from agentrun.runner.masking import Mask
from agentrun.runner.tool_client import ToolOutput
from agentrun.workflow.http import CompiledHttp, is_json, media_type

MAX_ERROR_TEXT = 4 * 1024
"""The most characters of an error's body that the model is shown."""

KEPT_WHOLE = 1024 * 1024
"""An answer that cannot be used is kept whole up to this many bytes."""

KEPT_HEAD, KEPT_TAIL = 48 * 1024, 16 * 1024
"""Bytes that are kept of the beginning and end of a larger answer, or of one that did not arrive whole."""

_TEXT = re.compile(
    r"(?:text|message)/.*|application/(?:[\w.+-]+\+)?(?:xml|yaml|x-www-form-urlencoded|javascript|x-ndjson|toml)"
)
_BINARY = re.compile(r"(?:image|audio|video|font)/(?!.*\+xml)")


@dataclass(frozen=True, slots=True)
class Response:
    """A response. Header names are lower-case. If it could not be read whole, ``problem`` says why."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    problem: str = ""
    passing: bool = False
    """Whether the connection caused the problem, so that another try could bring a whole answer."""


def refusal(message: str, status: int | None = None) -> ToolOutput:
    """The output for an error that agentrun found, for the model and the workflow."""
    return ToolOutput(status, {"status": status, "error": message}, message, is_error=True)


def phrase(status: int) -> str:
    """A status with its standard reason phrase, such as ``404 Not Found``; the server's own phrase is not used."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def carried_out(status: int) -> bool:
    """Whether this status says that the call was carried out: 2xx, or 303, which names where its result is."""
    return 200 <= status < 300 or status == HTTPStatus.SEE_OTHER


def understand(response: Response, compiled: CompiledHttp, variables: Mapping[str, JSON], mask: Mask) -> ToolOutput:
    """The output of a response. Statuses that are no answer (408, 429, 5xx) do not come here: see ``HttpTool``."""
    status = response.status
    if 300 <= status < 400:
        message = _redirect(response, mask)
        return unusable(response, message, mask) if carried_out(status) else refusal(message, status)
    if response.problem and not carried_out(status):
        return refusal(f"HTTP {phrase(status)}; {response.problem}", status)
    if response.problem:
        return unusable(response, f"the call was answered with HTTP {phrase(status)}, but {response.problem}", mask)
    body, note = _body(response, mask, whole=compiled.output is not None)
    if status >= 400:
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body, ensure_ascii=False)
        shown = text if len(text) <= MAX_ERROR_TEXT else f"{text[:MAX_ERROR_TEXT]}… ({len(text)} characters in all)"
        return ToolOutput(status, {"status": status, "body": body}, f"HTTP {phrase(status)}\n{shown}".strip(), True)
    if compiled.output is None:
        return ToolOutput(status, body, note + _text(body))
    headers = {mask.text(name): mask.text(value) for name, value in response.headers.items()}
    about = {"status": status, "headers": headers}
    try:
        output = compiled.output.evaluate(Values({**variables, "response": {**about, "body": body}}))
    except ExpressionError as error:
        inner = _json_within(body)
        try:
            if inner is None:
                raise error
            output = compiled.output.evaluate(Values({**variables, "response": {**about, "body": inner}}))
        except ExpressionError as last:
            words = f"the call was answered with HTTP {phrase(status)}, but output has no value: {last}"
            return unusable(response, words, mask)
    return ToolOutput(status, output, _text(output))


def _json_within(body: JSON) -> JSON:
    """The object or list in a text that was not announced as JSON; None if the text is neither."""
    if not isinstance(body, str) or not body.lstrip("\ufeff \t\r\n").startswith(("{", "[", ")]}'")):
        return None
    try:
        return read_value(body)
    except ValueError:
        return None


def unusable(response: Response, message: str, mask: Mask) -> ToolOutput:
    """The output for a call that was carried out and whose answer cannot be used."""
    kept = keep(response, mask)
    came = kept.get("body", kept.get("head"))
    shown = came if isinstance(came, str) else "" if came is None else json.dumps(came, ensure_ascii=False)
    text = message + (f"\nReceived: {plain(shown, 1000)}" if shown else "")
    return ToolOutput(response.status, {"status": response.status, "error": message}, text, is_error=True, kept=kept)


def keep(response: Response, mask: Mask) -> dict[str, JSON]:
    """What a record keeps of an answer that cannot be used, without secrets: its size, its digest, and its body.

    Of a body that is too large, or larger than both ends together and not whole, only the ends are kept.
    """
    content = response.content
    found: dict[str, Any] = {
        "status": response.status,
        "contentType": mask.text(plain(response.headers.get("content-type", ""), 100)),
        "bytes": len(content),
        "digest": sha256(content),
        "whole": not response.problem,
    }
    if location := response.headers.get("location"):
        found["location"] = mask.text(plain(location))
    if not content:
        return found
    if len(content) <= (KEPT_WHOLE if not response.problem else KEPT_HEAD + KEPT_TAIL):
        body, _ = _body(response, mask, whole=True)
        return found | {"body": body}
    head, tail = content[:KEPT_HEAD], content[-KEPT_TAIL:]
    if is_text(head[:1000]) or declared(response.headers.get("content-type", "")):
        charset = declared(response.headers.get("content-type", ""))
        return found | {"head": mask.text(decoded(head, charset)[0]), "tail": mask.text(decoded(tail, charset)[0])}
    return found | {"head": _base64(head, mask), "tail": _base64(tail, mask)}


def _redirect(response: Response, mask: Mask) -> str:
    """Why an answer of 3xx is an error."""
    said = f"HTTP {phrase(response.status)}"
    if response.status == HTTPStatus.NOT_MODIFIED:
        return (
            f"{said}: nothing has changed since, so there is no body; remove the header If-None-Match or "
            "If-Modified-Since to get one"
        )
    # Following a redirect would let the server choose where the request and its token go next, including addresses
    # that only this machine can reach.
    target = mask.text(plain(response.headers.get("location", ""), 200))
    return (
        f"{said} to {target}: redirects are not followed"
        if target
        else f"{said} without a Location: this is not an answer"
    )


def _body(response: Response, mask: Mask, *, whole: bool) -> tuple[JSON, str]:
    """The body as a value, and a note for the model if the body is not what its type says.

    The value is JSON if the content type says so. Broken JSON stays a text, because the call was made and its answer
    should be seen. Of a binary body the value has type and size; with ``whole``, also its content in Base64.
    """
    content = mask.content(response.content)
    if not content:
        return None, ""
    announced = response.headers.get("content-type", "")
    kind, charset = media_type(announced), declared(announced)
    if is_json(kind):
        text, problem = decoded(content, charset, kind)
        try:
            return mask.value(read_value(text)), ""
        except ValueError as error:
            note = plain(str(error), 100) + (f"; {problem}" if problem else "")
            return mask.text(text), f"(announced as JSON, but it is not: {note})\n"
    if _TEXT.fullmatch(kind) or (charset and not _BINARY.match(kind)):
        text, problem = decoded(content, charset, kind)
        return mask.text(text), f"({problem})\n" if problem else ""
    if not _BINARY.match(kind) and is_text(content):
        text = mask.text(content.decode())
        return (text if kind or (value := _json_within(text)) is None else value), ""
    named: dict[str, JSON] = {"contentType": plain(kind, 100) or "application/octet-stream", "bytes": len(content)}
    if whole:
        named["base64"] = _base64(content, mask)
    return named, "(binary content, not shown) "


def _base64(content: bytes, mask: Mask) -> str:
    """Bytes in Base64, so that a record can hold them; empty if they contain a secret."""
    text = content.decode("latin-1")
    return "" if mask.text(text) != text else base64.b64encode(content).decode()


def _text(value: JSON) -> str:
    if value is None:
        return "(no content)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
