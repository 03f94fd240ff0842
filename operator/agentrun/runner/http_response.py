"""What a tool's HTTP response means: a value for the workflow, a text for the model, or the reason for another try."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from agentrun.api.values import JSON
from agentrun.plan.expressions import ExpressionError, Values
from agentrun.plan.http import CompiledHttp
from agentrun.runner.failures import plain
from agentrun.runner.untrusted import parse_json

MAX_ERROR_TEXT = 4 * 1024
"""Characters of an error's body that the model is shown."""

_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json|text/json")
_TEXT = re.compile(r"text/.*|application/(?:[\w.+-]+\+)?(?:xml|yaml|x-www-form-urlencoded|javascript|x-ndjson|toml)")
# Encodings of text. Python knows others that are none (idna, unicode_escape), or that let a sender choose how long
# decoding takes.
_CHARSET = re.compile(r"utf-8|utf-16(-[bl]e)?|ascii|iso8859-\d+|cp\d+|koi8-[rut]|shift_jis|euc_\w+|gb\w+|big5\w*")


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a call came to.

    ``output`` is for the workflow, ``text`` for the model. ``status`` is the HTTP status, None where nothing was
    sent. ``is_error``: the tool said no, or its answer is of no use; the call is over either way.
    """

    status: int | None
    output: JSON
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """A response that was read whole. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def refusal(message: str, status: int | None = None) -> ToolOutput:
    """An error of ours, as the model and the workflow see it."""
    return ToolOutput(status, {"status": status, "error": message}, message, is_error=True)


def phrase(status: int) -> str:
    """``404 Not Found``, in the standard's words rather than the server's."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def understand(response: Response, compiled: CompiledHttp, variables: Mapping[str, JSON]) -> ToolOutput:
    """The output of a response other than 429, 408 and 5xx, which are no answers."""
    status = response.status
    if 300 <= status < 400:
        # Following it would let the server choose where the request, and its token, goes next: also to addresses
        # that only this machine can reach.
        target = plain(response.headers.get("location", ""), 200)
        return refusal(f"HTTP {phrase(status)} to {target or 'nowhere'}: redirects are not followed", status)
    body, note = _body(response)
    if status >= 400:
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body, ensure_ascii=False)
        shown = text if len(text) <= MAX_ERROR_TEXT else f"{text[:MAX_ERROR_TEXT]}… ({len(text)} characters in all)"
        return ToolOutput(status, {"status": status, "body": body}, f"HTTP {phrase(status)}\n{shown}".strip(), True)
    if compiled.output is None:
        return ToolOutput(status, body, note + _text(body))
    seen = {"status": status, "headers": dict(response.headers), "body": body}
    try:
        output = compiled.output.evaluate(Values({**variables, "response": seen}))
    except ExpressionError as error:
        return refusal(f"the call was answered with HTTP {phrase(status)}, but output has no value: {error}", status)
    return ToolOutput(status, output, _text(output))


def _body(response: Response) -> tuple[JSON, str]:
    """The body as a value, and a note for the model where it is not what it claims to be.

    JSON where its type says so; broken JSON stays a text, because the call was made and its answer should be seen.
    """
    content = response.content
    if not content:
        return None, ""
    kind, _, parameters = response.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if _JSON.fullmatch(kind):
        try:
            return parse_json(content.decode("utf-8-sig")), ""
        except ValueError as error:
            return _decoded(content, "utf-8"), f"(announced as JSON, but it is not: {plain(str(error), 100)})\n"
    if _TEXT.fullmatch(kind):
        found = re.search(r"charset\s*=\s*\"?([\w.:-]{1,40})", parameters)
        return _decoded(content, found[1] if found else "utf-8"), ""
    if not kind:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            kind = "application/octet-stream"
        else:
            return text, ""
    return {"contentType": plain(kind, 100), "bytes": len(content)}, "(binary content, not shown) "


def _decoded(content: bytes, charset: str) -> str:
    try:
        name = codecs.lookup(charset).name
    except LookupError:
        name = "utf-8"
    return content.decode(name if _CHARSET.fullmatch(name) else "utf-8", "replace")


def _text(value: JSON) -> str:
    if value is None:
        return "(no content)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
