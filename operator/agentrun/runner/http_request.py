"""Makes the request of a call from the tool's templates and the call's values, or refuses with a reason.

Values come from a model, which an attacker may have influenced. Each value is therefore confined to its place: one path
segment, one query value, one header value, or one part of the body (``http_body``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from agentrun.api.tools import Http
from agentrun.api.values import JSON
from agentrun.expressions.templates import ExpressionError, Template, Values
from agentrun.runner.http_body import Refused, body_of
from agentrun.workflow.http import CompiledHttp

MAX_URL = 16 * 1024
MAX_HEADER = 8 * 1024

_MARK = "\0"
"""Encloses every value in the URL until its path segment was checked. A checked template cannot contain it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request without the headers that are added when it is sent: authorization and the idempotency key."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None


def prepare(http: Http, compiled: CompiledHttp, variables: Mapping[str, JSON]) -> Prepared:
    """The request for a call.

    Raises:
        Refused: a value is missing, is too large, or would not stay within its place.
    """
    values = Values({name: value for name, value in variables.items() if name in compiled.references})
    try:
        url = _url(compiled, values)
        headers = {name: _header(name, template, values) for name, template in compiled.headers.items()}
        content = body_of(http, compiled, values, variables["args"], headers)
    except ExpressionError as error:
        raise Refused(f"the request cannot be made: {error}") from error
    return Prepared(http.method, url, headers, content)


def _url(compiled: CompiledHttp, values: Values) -> str:
    marked = compiled.url.render_text(values, escape=lambda value: f"{_MARK}{_quoted(value)}{_MARK}")
    address, question, query = marked.partition("?")
    for segment in address.split("/")[3:]:
        if _MARK in segment:
            _check_segment(unquote(segment.replace(_MARK, "")))
    pairs = [f"{_quoted(name)}={_quoted(text.render_text(values))}" for name, text in compiled.query.items()]
    if pairs:
        query = "&".join(filter(None, [query, *pairs]))
    url = (address + (f"?{query}" if question or pairs else "")).replace(_MARK, "")
    if len(url) > MAX_URL:
        raise Refused(f"the URL would have {len(url)} characters, more than {MAX_URL}: pass less data in it")
    return url


def _check_segment(segment: str) -> None:
    # Servers and proxies differ in what they decode before they resolve dots, so an encoded slash counts as a slash.
    if not segment:
        raise Refused("a value in the URL's path is empty, which would make it a request for something else")
    if not {".", ".."}.isdisjoint(re.split(r"[/\\]", segment)):
        raise Refused("a value in the URL's path is or contains . or .. as a segment, which would lead elsewhere")


def _quoted(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise Refused("a value in the URL contains half of a surrogate pair, which is no character") from error


def _header(name: str, template: Template, values: Values) -> str:
    value = template.render_text(values).strip(" \t")
    if not (value.isascii() and value.isprintable()):
        raise Refused(f"the value of header {name} contains line breaks or other characters that a header cannot carry")
    if len(value) > MAX_HEADER:
        raise Refused(f"the value of header {name} would have {len(value)} characters, more than {MAX_HEADER}")
    return value
