"""Checks and compiles an ``http`` tool.

Only the author decides where a request goes: values from models and inputs may be in the path, the query, headers and
the body, but never in the scheme or the authority.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.tools import Http
from agentrun.expressions.templates import (
    Expression,
    ExpressionError,
    Scope,
    Template,
    ValueTemplate,
    compile_expression,
    compile_template,
    compile_value,
)
from agentrun.workflow.json_text import json_in

REQUEST_SCOPE = Scope(("inputs", "run", "args"), None)
OUTPUT_SCOPE = Scope(("inputs", "run", "args", "response"), None)

METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""The methods that send the arguments as JSON if the tool defines no body."""

_JSON = re.compile(r"(?:application|text)/(?:x-)?(?:amz-)?json(?:-1\.\d|-?rpc|request)?|[\w.+-]+/[\w.+-]+[.+]json")
_LINES = frozenset({f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "jsonlines", "x-jsonlines")})
_FORM = "application/x-www-form-urlencoded"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = {
    "host": "it is taken from url",
    "content-length": "it is taken from the body",
    "transfer-encoding": "it is taken from the body",
    "connection": "the runtime manages connections",
    "accept-encoding": "the runtime asks for gzip itself, and decompresses it within maxBytes",
    "idempotency-key": "the runtime sends it for Idempotent and Once tools",
    "cookie": "cookies are not supported; use auth",
}


def media_type(content_type: str) -> str:
    """The media type of a Content-Type, in lower case and without parameters."""
    return re.split("[;,]", content_type, maxsplit=1)[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a body of that media type is one JSON value: for example ``application/json``,
    ``application/x-amz-json-1.1``, or any type that ends in ``+json`` or ``.json``.
    """
    return _JSON.fullmatch(kind) is not None


def is_markup(kind: str) -> bool:
    """Whether a body of that media type is XML or HTML."""
    return kind.endswith(("/xml", "+xml", "/html"))


def is_lines(kind: str) -> bool:
    """Whether a body of that media type is several JSON values, one per line."""
    return kind in _LINES


def is_form(kind: str) -> bool:
    """Whether a body of that media type is a URL-encoded form."""
    return kind == _FORM


@dataclass(frozen=True, slots=True)
class CompiledHttp:
    """The templates of a tool's request, and the expression over its response."""

    url: Template
    query: Mapping[str, Template]
    headers: Mapping[str, Template]
    body: ValueTemplate | None
    text: Template | None
    """The body, if it is a text."""
    json: ValueTemplate | None
    """The body, if it is a text that is JSON with expressions in it."""
    output: Expression | None
    references: frozenset[str]
    """All variables that the request names."""


def check_http(http: Http, path: Path) -> list[Problem]:
    """All problems of ``http``, which is at ``path``."""
    problems = [*_url(http, path), *_headers(http, path), *_body(http, path)]
    _compile(http, path, problems)
    return problems


def compile_http(http: Http) -> CompiledHttp:
    """The compiled form of a tool.

    Raises:
        InvalidDocument: with the problems that :func:`check_http` reports.
    """
    problems = [*_url(http, ()), *_headers(http, ()), *_body(http, ())]
    compiled = _compile(http, (), problems)
    if problems:
        raise InvalidDocument(problems)
    return compiled


def http_expressions(http: Http, path: Path) -> Iterator[tuple[Path, Expression]]:
    """All expressions of a tool, of its request and over its response, each with its place under ``path``.

    Raises:
        InvalidDocument: the tool is invalid: it was not checked before.
    """
    compiled = compile_http(http)
    texts: list[tuple[Path, Template]] = [((*path, "url"), compiled.url)]
    texts += (((*path, "query", name), text) for name, text in compiled.query.items())
    texts += (((*path, "headers", name), text) for name, text in compiled.headers.items())
    texts += compiled.body.texts((*path, "body")) if compiled.body is not None else ()
    yield from ((place, expression) for place, text in texts for expression in text.expressions)
    if compiled.output is not None:
        yield (*path, "output"), compiled.output


def _compile(http: Http, path: Path, problems: list[Problem]) -> CompiledHttp:
    def text(template: str, *place: str) -> Template:
        try:
            return compile_template(template, REQUEST_SCOPE)
        except ExpressionError as error:
            problems.append(Problem((*path, *place), str(error)))
            return Template(())

    url = text(http.url, "url")
    query = {name: text(template, "query", name) for name, template in http.query.items()}
    headers = {name: text(template, "headers", name) for name, template in http.headers.items()}
    body = None if http.body is None else compile_value(http.body, REQUEST_SCOPE, (*path, "body"), problems)
    plain = compile_template(http.body, REQUEST_SCOPE) if isinstance(http.body, str) and not problems else None
    json = None if plain is None else json_in(plain)
    output = None
    if http.output is not None:
        try:
            output = compile_expression(http.output, OUTPUT_SCOPE)
        except ExpressionError as error:
            problems.append(Problem((*path, "output"), str(error)))
    parts: list[Template | ValueTemplate] = [url, *query.values(), *headers.values()]
    parts += [body] if body else []
    return CompiledHttp(
        url, query, headers, body, plain, json, output, frozenset().union(*(part.references for part in parts))
    )


def _url(http: Http, path: Path) -> Iterator[Problem]:
    where = (*path, "url")
    if not http.url.isprintable():
        yield Problem(where, "contains a control character")
        return
    before = _before_values(http.url)
    authority = re.match(r"https?://([^/?#]*)([/?#]?)", before)
    if authority is None or (before != http.url and not authority[2]):
        yield Problem(where, "an expression may be in the path and the query, not in the scheme, host or port")
        return
    try:
        parts = urlsplit(authority[0])
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or "\\" in before or "%" in authority[1]:
        yield Problem(where, "has no valid host and port")
    elif "@" in authority[1]:
        yield Problem(where, "contains credentials, which everybody who sees the workflow can read; use auth")
    if "#" in before:
        yield Problem(where, "has a fragment (#…), which is never sent; write %23 for a literal #")


def _before_values(url: str) -> str:
    """``url`` up to its first expression. ``$${`` counts as text."""
    start = url.replace("$${", "\0\0\0").find("${")
    return url if start < 0 else url[:start]


def _headers(http: Http, path: Path) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in http.headers:
        where, lower = (*path, "headers", name), name.lower()
        if not _TOKEN.fullmatch(name):
            yield Problem(where, "is not the name of a header")
        elif lower in _OURS:
            yield Problem(where, f"cannot be set: {_OURS[lower]}")
        elif lower == "authorization" and http.auth is not None:
            yield Problem(where, "cannot be set together with auth; remove one of them")
        elif lower in seen:
            yield Problem(where, f"is the same header as {seen[lower]}")
        seen.setdefault(lower, name)


def _body(http: Http, path: Path) -> Iterator[Problem]:
    if http.body is not None and http.method in ("GET", "HEAD"):
        yield Problem((*path, "body"), f"a {http.method} request has no body; use query, or method POST")
