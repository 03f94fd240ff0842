"""From a tool's templates and one call's values to the bytes of a request, or to the reason why there is none.

Values come from a model that may have been talked into something, so each is confined to the place it was put in:
one path segment, one query value, one header value, one part of the body, whose declared type says how.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, unquote, urlencode

from agentrun.api.values import JSON
from agentrun.api.workflow import Http
from agentrun.plan.expressions import Escape, ExpressionError, Template, Values
from agentrun.plan.http import METHODS_WITH_BODY, CompiledHttp, is_form, is_json, media_type
from agentrun.runner.failures import plain

MAX_URL = 16 * 1024
MAX_HEADER = 8 * 1024

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

_MARK = "\0"
"""Stands around every value in the URL until its segment was looked at; a checked template cannot hold it."""


class Refused(Exception):
    """The request cannot be made from these values. Nothing was sent; the message is for whoever gave them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, but for what is added when it is sent: authorization and the idempotency key."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None


def prepare(http: Http, compiled: CompiledHttp, variables: Mapping[str, JSON]) -> Prepared:
    """The request for a call.

    Raises:
        Refused: a value is missing, or would leave the place that it is put in.
    """
    values = Values({name: value for name, value in variables.items() if name in compiled.references})
    try:
        url = _url(compiled, values)
        headers = {name: _header(name, template, values) for name, template in compiled.headers.items()}
        content = _body(http, compiled, values, variables["args"], headers)
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
        raise Refused(f"the URL would have {len(url)} characters, more than {MAX_URL}: pass less in it")
    return url


def _check_segment(segment: str) -> None:
    # Servers and proxies differ in what they decode before they resolve dots, so an encoded slash counts as one.
    if not segment:
        raise Refused("a value in the URL's path is empty, which would make the request one for something else")
    if not {".", ".."}.isdisjoint(re.split(r"[/\\]", segment)):
        raise Refused("a value in the URL's path is or holds . or .. as a segment, which would lead elsewhere")


def _quoted(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise Refused("a value in the URL holds half of a surrogate pair, which is no character") from error


def _header(name: str, template: Template, values: Values) -> str:
    value = template.render_text(values).strip(" \t")
    if not (value.isascii() and value.isprintable()):
        raise Refused(f"the value of header {name} holds line breaks or other characters that a header cannot carry")
    if len(value) > MAX_HEADER:
        raise Refused(f"the value of header {name} would have {len(value)} characters, more than {MAX_HEADER}")
    return value


def _body(http: Http, compiled: CompiledHttp, values: Values, args: JSON, headers: dict[str, str]) -> bytes | None:
    """The body, with its Content-Type put into ``headers`` where the tool names none."""
    if compiled.body is None and http.method not in METHODS_WITH_BODY:
        return None
    named = next((value for name, value in headers.items() if name.lower() == "content-type"), None)
    if named is None:
        headers["Content-Type"] = "application/json"
    kind = media_type(named or "application/json")
    try:
        # A text under a type of its own (a form, XML) is meant as it stands; everything else is JSON.
        text = None if is_json(kind) else compiled.text
        if text is not None and (len(text.parts) > 1 or text.literal):
            return text.render_text(values, _escape(kind, named or "")).encode()
        body = args if compiled.body is None else compiled.body.render(values)
        if is_json(kind):
            return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        if isinstance(body, str):  # all of the body is one value: there is nothing around it that it could leave
            return body.encode()
        if is_form(kind):
            return _form(body).encode()
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise Refused("the body holds half of a surrogate pair or a number that JSON has no form for") from error


def _escape(kind: str, content_type: str) -> Escape | None:
    """What confines a value to its place in a text of that media type; None where nothing is known to."""
    if is_form(kind):
        return partial(quote, safe="")
    if kind.endswith(("/xml", "+xml", "/html")):
        return _in_markup
    if "json" in kind:  # several values, a line each: a value stands between quotes
        return lambda value: json.dumps(value, ensure_ascii=False)[1:-1]
    if kind.startswith("multipart/") and (found := re.search(r'boundary="?([^";,\s]+)', content_type)):
        boundary = found[1]

        def within_its_part(value: str) -> str:
            if boundary in value:
                raise Refused("a value in the body holds the boundary between its parts")
            return value

        return within_its_part
    return None


def _in_markup(value: str) -> str:
    if _NOT_XML.search(value):
        raise Refused("a value in the body holds a control character, which XML has no form for")
    return html.escape(value)


def _form(body: JSON) -> str:
    """An object as a form: a list is its name as often as it has values, null is left out.

    Raises:
        Refused: it is no object, or a field holds more than that.
    """
    if not isinstance(body, dict):
        raise Refused("the body of a form is an object with a value for each field")
    pairs: list[tuple[str, str]] = []
    for name, value in body.items():
        for at, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, (dict, list)):
                place = f"body.{plain(name, 60)}" + (f"[{at}]" if isinstance(value, list) else "")
                what = "an object" if isinstance(part, dict) else "a list"
                raise Refused(
                    f"{place} is {what}, and forms have no one way to hold it: give fields by the names that the "
                    "server expects, such as address[city]"
                )
            if part is not None:
                pairs.append((name, part if isinstance(part, str) else json.dumps(part)))
    return urlencode(pairs, quote_via=quote)
