"""Turns pydantic's validation errors into this project's messages.

A message says what was expected and what was found. It never shows a value from a field that can hold secrets.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentrun.api.errors import Path, Problem
from agentrun.api.placement import (
    IMAGE_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    QUANTITY_PATTERN,
    SERVICE_ACCOUNT_PATTERN,
)
from agentrun.api.texts import shown
from agentrun.api.tools import DATA_KEY_PATTERN, SUBDOMAIN_PATTERN, URL_PATTERN
from agentrun.api.values import (
    DIGEST_PATTERN,
    DURATION_PATTERN,
    KEY_PATTERN,
    LABEL_PATTERN,
    MONEY_PATTERN,
    NAME_PATTERN,
    TOOL_PATTERN,
    UID_PATTERN,
)

MAX_PROBLEMS = 50

FORMS = {
    NAME_PATTERN: 'a name of lower-case letters, digits and hyphens, such as "look-up-order"',
    LABEL_PATTERN: 'a step, or an item of one, such as "letter" or "letter[3]"',
    TOOL_PATTERN: 'a name of letters, digits, _ and - that begins with a letter, such as "look_up_order"',
    DURATION_PATTERN: "a duration such as 30s, 10m, 1h30m or 7d",
    MONEY_PATTERN: 'an amount of USD in quotes, such as "2.50"',
    URL_PATTERN: 'a URL that begins with https:// or http:// and has no spaces, such as "https://models.internal/v1"',
    SUBDOMAIN_PATTERN: 'the name of a Secret: lower-case letters, digits, hyphens and dots, such as "model-key"',
    SERVICE_ACCOUNT_PATTERN: (
        'the name of a ServiceAccount: lower-case letters, digits, hyphens and dots, such as "refunds-agent"'
    ),
    IMAGE_PATTERN: 'an image without spaces, such as "registry.example.com/runner:1"',
    QUANTITY_PATTERN: 'a quantity as in Kubernetes, in quotes, such as "500m", "2" or "1Gi"',
    LABEL_KEY_PATTERN: 'the key of a label or taint, such as "disktype" or "example.com/pool"',
    LABEL_VALUE_PATTERN: 'the value of a label: letters, digits, -, _ and ., such as "ssd"',
    KEY_PATTERN: 'a step, an item of one, or the compensation of either, such as "letter[3].compensate"',
    DIGEST_PATTERN: "a digest such as sha256: and 64 hexadecimal digits",
    UID_PATTERN: "a uid: lower-case hexadecimal digits and hyphens",
    DATA_KEY_PATTERN: 'a key in a Secret: letters, digits, -, _ and ., such as "api-key"',
}
"""For each pattern of the models, its description in words."""

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


def problems_in(error: ValidationError, model: type[BaseModel]) -> list[tuple[Problem, Path | None]]:
    """The first ``MAX_PROBLEMS`` problems, each with its path in the document.

    ``Problem.path`` is the same path, safe for a terminal. If there are more problems, a last one without a path says
    how many.
    """
    details = error.errors(include_url=False)
    found: list[tuple[Problem, Path | None]] = []
    for detail in details[:MAX_PROBLEMS]:
        path = tuple(part if isinstance(part, int) else shown(part) for part in detail["loc"])
        found.append((Problem(path, _said(detail, model)), detail["loc"]))
    if more := len(details) - len(found):
        found.append((Problem((), f"{more} more problems are not listed: correct these first"), None))
    return found


def _said(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """The message for one of pydantic's errors."""
    kind, path, value, context = detail["type"], detail["loc"], detail["input"], detail.get("ctx", {})
    found = described(value, secret=not _SECRET.isdisjoint(path))
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
            said = suggestion(value, known) if isinstance(value, str) else ""
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


def described(value: Any, *, secret: bool = False) -> str:
    """``value`` in the form that a message may show. With ``secret``, a scalar is not shown."""
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


def suggestion(name: str, known: list[str]) -> str:
    """``: did you mean X?`` with the closest of ``known``, or an empty text."""
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.7) if len(name) < 64 else []
    return f": did you mean {folded[close[0]]}?" if close else ""


def _unknown_field(path: tuple[int | str, ...], model: type[BaseModel]) -> str:
    name = str(path[-1])
    owner = _model(_annotation(model, path[:-1]))
    known = [info.alias or key for key, info in owner.model_fields.items()] if owner else []
    said = suggestion(name, known) or (f": known fields: {', '.join(known)}" if known else ": remove it")
    return f'unknown field "{shown(name)}"{said}'


def _annotation(model: type[BaseModel], path: tuple[int | str, ...]) -> Any:
    """The declared type, with its constraints, of the field at ``path`` in ``model``."""
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
    """The model in ``annotation``, which may be optional or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in _parts(annotation) if (found := _model(part))), None)


def _pattern(annotation: Any) -> str | None:
    """The pattern that a text of this type must match; None if there is none."""
    own = getattr(annotation, "pattern", None)
    if isinstance(own, str):
        return own
    parts = (*_parts(annotation), *getattr(annotation, "metadata", ()))
    return next((found for part in parts if (found := _pattern(part))), None)
