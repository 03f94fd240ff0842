"""Writes the body of a tool's request. Its Content-Type decides the format, and how each value is confined."""

from __future__ import annotations

import html
import json
import re
from functools import partial
from urllib.parse import quote, urlencode

from agentrun.api.canonical import sha256
from agentrun.api.texts import as_text, quoted
from agentrun.api.tools import Http
from agentrun.api.values import JSON
from agentrun.expressions.templates import Escape, Values
from agentrun.runner.charsets import codec, declared
from agentrun.runner.failures import plain
from agentrun.workflow.http import METHODS_WITH_BODY, CompiledHttp, is_form, is_json, is_lines, is_markup, media_type

_MULTIPART = "multipart/form-data"
_BOUNDARY = r'boundary="?([^";,\s]+)'
_NOT_XML = "[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]"


class Refused(Exception):
    """The request cannot be made from these values. Nothing was sent. The message is for whoever gave the values."""


def body_of(http: Http, compiled: CompiledHttp, values: Values, args: JSON, headers: dict[str, str]) -> bytes | None:
    """The body of the request; None if there is none. If the tool names no Content-Type, or no boundary in it, this
    sets it in ``headers``.

    Raises:
        Refused: the body cannot be written in its Content-Type.
    """
    if compiled.body is None and http.method not in METHODS_WITH_BODY:
        return None
    name = next((name for name in headers if name.lower() == "content-type"), "Content-Type")
    headers.setdefault(name, "application/json")
    announced = headers[name]
    kind, charset = media_type(announced), _charset(announced)
    try:
        if is_json(kind):
            value = args if compiled.body is None else (compiled.json or compiled.body).render(values)
            return _json(value, charset)
        text = compiled.text
        if text is not None and (len(text.parts) > 1 or text.literal):
            return _encoded(text.render_text(values, _escape(kind, announced, charset)), kind, charset)
        body = args if compiled.body is None else compiled.body.render(values)
        if isinstance(body, str):  # the body is one value: there is no place that it could leave
            return _encoded(body, kind, charset)
        if is_form(kind):
            return urlencode(_fields(body), quote_via=quote, encoding=charset, errors="strict").encode()
        if kind == _MULTIPART:
            content, headers[name] = _parts(_fields(body), announced, charset)
            return content
        if is_markup(kind) or kind.startswith("multipart/"):
            raise Refused(f"a body of type {plain(kind, 60)} must be a text: write it as a text with its values in it")
        if is_lines(kind):
            return b"".join(_json(part, charset) + b"\n" for part in (body if isinstance(body, list) else [body]))
        return _json(body, charset)
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        if "\ud800" <= character <= "\udfff":
            raise Refused("the body contains half of a surrogate pair, which is no character") from error
        raise Refused(f"the body contains {quoted(character)}, which its charset {charset} cannot encode") from error
    except ValueError as error:
        raise Refused("the body contains a number that cannot be written in JSON") from error


def _charset(announced: str) -> str:
    """The encoding that a Content-Type asks for."""
    asked = declared(announced)
    known = "utf-8" if asked is None else codec(asked)
    if known is None:
        raise Refused(f"the charset {quoted(asked)} of the Content-Type is not supported: write utf-8")
    return known


def _json(value: JSON, charset: str) -> bytes:
    """``value`` as JSON. If the charset is not UTF-8, characters beyond ASCII are escaped."""
    text = json.dumps(value, ensure_ascii=charset != "utf-8", allow_nan=False)
    return text.encode(charset)


def _encoded(text: str, kind: str, charset: str) -> bytes:
    return text.encode(charset, "xmlcharrefreplace" if is_markup(kind) and charset != "utf-8" else "strict")


def _escape(kind: str, content_type: str, charset: str) -> Escape | None:
    """The escape that confines a value to its place in a text of that media type; None if none is known."""
    if is_form(kind):
        return partial(quote, safe="", encoding=charset, errors="strict")
    if is_markup(kind):
        return _in_markup
    if "json" in kind:  # several values, one per line: a value is between quotes
        return lambda value: json.dumps(value, ensure_ascii=False)[1:-1]
    if kind.startswith("multipart/"):
        found = re.search(_BOUNDARY, content_type)
        if found is None:
            raise Refused(f"the Content-Type {plain(content_type, 60)} names no boundary between the parts of the body")
        return partial(_within_its_part, found[1])
    return None


def _in_markup(value: str) -> str:
    if re.search(_NOT_XML, value):
        raise Refused("a value in the body contains a control character, which XML does not allow")
    return html.escape(value)


def _within_its_part(boundary: str, value: str) -> str:
    if boundary in value:
        raise Refused("a value in the body contains the boundary between its parts")
    return value


def _fields(body: JSON) -> list[tuple[str, str]]:
    """The fields of a form, from an object. A list repeats its field for each value; null is omitted.

    Raises:
        Refused: ``body`` is not an object, or a field contains an object or a nested list.
    """
    if not isinstance(body, dict):
        raise Refused("the body of a form must be an object with a value for each field")
    pairs: list[tuple[str, str]] = []
    for name, value in body.items():
        for at, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, (dict, list)):
                place = f"body.{plain(name, 60)}" + (f"[{at}]" if isinstance(value, list) else "")
                what = "an object" if isinstance(part, dict) else "a list"
                raise Refused(
                    f"{place} is {what}, which has no single form in a form body: give fields by the names that the "
                    "server expects, such as address[city]"
                )
            if part is not None:
                pairs.append((name, as_text(part)))
    return pairs


def _parts(fields: list[tuple[str, str]], announced: str, charset: str) -> tuple[bytes, str]:
    """Fields as the parts of a multipart form, and its Content-Type. The boundary depends only on the fields, so that a
    repeated call is identical.
    """
    found = re.search(_BOUNDARY, announced)
    boundary = found[1] if found else f"agentrun-{sha256(json.dumps(fields).encode())[-32:]}"
    written = ""
    for name, value in fields:
        label = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{label}"\r\n\r\n'
        written += f"{head}{_within_its_part(boundary, value)}\r\n"
    kind = announced if found else f"{announced.rstrip('; ')}; boundary={boundary}"
    return f"{written}--{boundary}--\r\n".encode(charset), kind
