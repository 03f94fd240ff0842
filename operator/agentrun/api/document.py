"""A user's file, from its bytes to checked objects.

The order of refusal: the file, its encoding, its YAML (``agentrun.api.reader``), its apiVersion and kind, then every
field at once. A message names the place, says what was expected and what was found; it never shows a value that stands
where secrets do.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentrun.api import reader
from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.reader import Node, shown
from agentrun.api.run import AgentRun, AgentWorkflow, Metadata
from agentrun.api.values import DURATION_PATTERN, LABEL_PATTERN, MONEY_PATTERN, NAME_PATTERN, TOOL_PATTERN
from agentrun.api.workflow import API_VERSION, DATA_KEY_PATTERN, SUBDOMAIN_PATTERN, URL_PATTERN

MAX_BYTES = 4 * 1024 * 1024
MAX_PROBLEMS = 50

KINDS: dict[str, type[AgentRun] | type[AgentWorkflow]] = {"AgentRun": AgentRun, "AgentWorkflow": AgentWorkflow}
_KNOWN = f"{' and '.join(KINDS)} of {API_VERSION}"
_OTHER_KINDS = {
    "Approval": "Approvals are made by the runtime while a run waits, never from a file: answer with agentrun approve",
    "AgentPolicy": "AgentPolicy is not supported by this version: remove the document",
}

FORMS = {
    NAME_PATTERN: 'a name of small letters, digits and hyphens, such as "look-up-order"',
    LABEL_PATTERN: 'a step, or an item of one, such as "letter" or "letter[3]"',
    TOOL_PATTERN: 'a name of letters, digits, _ and - that begins with a letter, such as "look_up_order"',
    DURATION_PATTERN: "a duration such as 30s, 10m, 1h30m or 7d",
    MONEY_PATTERN: 'an amount of USD in quotes, such as "2.50"',
    URL_PATTERN: 'a URL that begins with https:// or http:// and has no spaces, such as "https://models.internal/v1"',
    SUBDOMAIN_PATTERN: 'the name of a Secret: small letters, digits, hyphens and dots, such as "model-key"',
    DATA_KEY_PATTERN: 'a key in a Secret: letters, digits, -, _ and ., such as "api-key"',
}
"""What a pattern asks for, in words; every pattern of the models is here."""

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
_SECRET = frozenset({"credentials", "secretRef", "auth", "bearer", "headers", "query", "endpoint", "url"})
NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What may not stand in YAML (https://yaml.org/spec/1.2.2/#51-character-set)."""


@dataclass(frozen=True)
class Document:
    """One checked object of a file. ``raw`` is what the file says, without defaults, and nobody else's to change."""

    source: str
    kind: str
    metadata: Metadata
    model: AgentRun | AgentWorkflow
    raw: dict[str, Any]
    node: Node = field(repr=False, compare=False)

    @cached_property
    def lines(self) -> dict[Path, int]:
        """The 1-based line of each path in the file; made when it is first asked for."""
        return self.node.lines()


def load(path: FilePath | Literal["-"]) -> list[Document]:
    """The objects in the file ``path``, or in standard input for ``-``, which is read to its end.

    Raises:
        InvalidDocument: the file cannot be read, is larger than ``MAX_BYTES``, or ``parse`` refuses it.
    """
    if path == "-":
        return parse(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refused("does not exist: check the path", source) from None
    except IsADirectoryError:
        raise _refused("is a directory: name a file in it", source) from None
    except PermissionError:
        raise _refused("may not be read by this user: check its permissions", source) from None
    except OSError as error:
        raise _refused(f"cannot be read: {error.strerror or error}", source) from error
    return parse(data, source)


def parse(data: bytes, source: str) -> list[Document]:
    """The objects in ``data``, YAML or JSON, of one document or several; empty documents are left out.

    Raises:
        InvalidDocument: with everything that is wrong with the first document that is; ``source`` names the file.
    """
    nodes = reader.read(_decoded(data, source), source)
    if not nodes:
        raise _refused(f"holds no document, only blanks or comments: write one ({_KNOWN})", source)
    return [_document(node, source) for node in nodes]


def _refused(message: str, source: str, line: int | None = None) -> InvalidDocument:
    return InvalidDocument([Problem((), message)], source, {(): line} if line else None)


def _decoded(data: bytes, source: str) -> str:
    """``data`` as text, without a byte order mark."""
    if not data:
        raise _refused(f"is empty: write a document ({_KNOWN})", source)
    if len(data) > MAX_BYTES:
        raise _refused(f"is larger than {MAX_BYTES // 2**20} MiB: keep data out of it, or split it", source)
    for name, mark in (("UTF-32", b"\xff\xfe\0\0"), ("UTF-16", b"\xff\xfe"), ("UTF-16", b"\xfe\xff")):
        if data.startswith(mark):
            raise _refused(f"is {name}, not UTF-8: convert it with iconv -f {name} -t UTF-8 FILE", source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refused(
            f"is not UTF-8 (byte 0x{data[error.start]:02x} at line {line}): "
            "save it as UTF-8, or convert it, for example with iconv -f LATIN1 -t UTF-8 FILE",
            source,
            line,
        ) from None
    if found := NOT_TEXT.search(text):
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - text.rfind("\n", 0, found.start())
        raise _refused(
            f"holds the control character U+{ord(found[0]):04X} at line {line}, column {column}: remove it "
            "(is this a text file?)",
            source,
            line,
        )
    return text


def _document(node: Node, source: str) -> Document:
    raw = node.value
    if not isinstance(raw, dict):
        found = f"{_found(raw)}" if not isinstance(raw, str) else "text"
        raise _refused(f"is {found}, not an object with apiVersion, kind, metadata and spec", source, node.line)
    if problem := _kind_problem(raw):
        raise InvalidDocument([problem], source, {problem.path: node.line_of(problem.path)})
    model = KINDS[raw["kind"]]
    text = json.dumps(raw)
    try:
        # from JSON, since only there is a strict validation free to read an enum from text; strict, since the API
        # server does not read "3" as a number either
        checked = model.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _explained(error, model, node, source) from None
    # aliases in the file share their values; a copy of one's own does not
    return Document(source, raw["kind"], checked.metadata, checked, json.loads(text), node)


def _kind_problem(raw: dict[str, Any]) -> Problem | None:
    kind, version = raw.get("kind"), raw.get("apiVersion")
    for name, value in (("apiVersion", version), ("kind", kind)):
        if value is None:
            return Problem((name,), f"is missing: known are {_KNOWN}")
        if not isinstance(value, str):
            return Problem((name,), f"must be text, found {_found(value)}: known are {_KNOWN}")
    if version == API_VERSION and kind in KINDS:
        return None
    if version == API_VERSION and kind in _OTHER_KINDS:
        return Problem(("kind",), _OTHER_KINDS[kind])
    if version != API_VERSION:
        return Problem(("apiVersion",), f"{_found(version)} is not known: known are {_KNOWN}")
    return Problem(
        ("kind",), f"{_found(kind)} is not known{_suggestion(str(kind), list(KINDS)) or f': known are {_KNOWN}'}"
    )


def _explained(error: ValidationError, model: type[BaseModel], node: Node, source: str) -> InvalidDocument:
    details = error.errors(include_url=False)
    problems, lines = [], {}
    for detail in details[:MAX_PROBLEMS]:
        path = tuple(part if isinstance(part, int) else shown(part) for part in detail["loc"])
        problems.append(Problem(path, _said(detail, model)))
        lines[path] = node.line_of(detail["loc"])
    if more := len(details) - len(problems):
        problems.append(Problem((), f"{more} more problems are not listed: correct these first"))
    return InvalidDocument(problems, source, lines)


def _said(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """One of pydantic's errors in the words of this project."""
    kind, path, value, context = detail["type"], detail["loc"], detail["input"], detail.get("ctx", {})
    found = _found(value, secret=not _SECRET.isdisjoint(path))
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return _unknown_field(path, model)
    if kind == "value_error":
        return str(context["error"])
    if kind in _TYPES:
        form = FORMS.get(_pattern(_annotation(model, path)) or "") if kind == "string_type" else None
        quotes = ": put it in quotes" if kind == "string_type" and not form and isinstance(value, int | float) else ""
        return f"must be {form or _TYPES[kind]}, found {found}{quotes}"
    match kind:
        case "string_pattern_mismatch":
            form = FORMS.get(context["pattern"], f"text of the form {context['pattern']}")
            return f"must be {form}, found {found}"
        case "literal_error" | "enum":
            known = re.findall("'([^']*)'", context["expected"])
            said = _suggestion(value, known) if isinstance(value, str) else ""
            return f"must be one of {', '.join(known)}, found {found}{said}"
        case "string_too_short" | "too_short" if context["min_length"] == 1:
            return "must not be empty"
        case "string_too_short":
            return f"must have at least {context['min_length']} characters, found {found}"
        case "string_too_long":
            return f"has {len(value):,} characters: at most {context['max_length']:,} are allowed"
        case "too_long":
            return (
                f"has {context['actual_length'] or len(value):,} entries: at most {context['max_length']:,} are allowed"
            )
        case "greater_than_equal":
            return f"must be at least {context['ge']:,g}, found {found}"
        case "less_than_equal":
            return f"must be at most {context['le']:,g}, found {found}"
        case _:
            return detail["msg"]


def _found(value: Any, *, secret: bool = False) -> str:
    """``value`` as a message may show it."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case dict():
            return "an object"
        case list():
            return "a list"
        case _ if secret:
            return "a value that is not shown (it may be a secret)"
        case int() | float():
            return f"the number {value}"
        case _:
            return f'"{shown(str(value))}"'


def _suggestion(name: str, known: list[str]) -> str:
    """``: did you mean X?``, or nothing."""
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.7) if len(name) < 64 else []
    return f": did you mean {folded[close[0]]}?" if close else ""


def _unknown_field(path: tuple[int | str, ...], model: type[BaseModel]) -> str:
    name = str(path[-1])
    owner = _model(_annotation(model, path[:-1]))
    known = [info.alias or key for key, info in owner.model_fields.items()] if owner else []
    said = _suggestion(name, known) or (f": known are {', '.join(known)}" if known else ": remove it")
    return f'unknown field "{shown(name)}"{said}'


def _annotation(model: type[BaseModel], path: tuple[int | str, ...]) -> Any:
    """The declared type, with its constraints, of what ``path`` leads to from ``model``."""
    here: Any = model
    for part in path:
        owner = _model(here)
        if isinstance(part, str) and owner:
            infos = [info for key, info in owner.model_fields.items() if (info.alias or key) == part]
            here = (infos[0].annotation, *infos[0].metadata) if infos else None
        else:
            here = next((arg for arg in _parts(here) if not isinstance(arg, type) or arg is not type(None)), None)
    return here


def _parts(annotation: Any) -> tuple[Any, ...]:
    return annotation if isinstance(annotation, tuple) else get_args(annotation)


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model in ``annotation``, be it optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in _parts(annotation) if (found := _model(part))), None)


def _pattern(annotation: Any) -> str | None:
    """The pattern that text of this type must match."""
    own = getattr(annotation, "pattern", None)
    if isinstance(own, str):
        return own
    parts = (*_parts(annotation), *getattr(annotation, "metadata", ()))
    return next((found for part in parts if (found := _pattern(part))), None)
