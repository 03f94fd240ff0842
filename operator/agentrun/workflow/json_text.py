"""Reads a text template that is JSON with expressions in it, such as a request body that was copied from somewhere."""

from __future__ import annotations

import json
import re

from agentrun.api.values import JSON
from agentrun.expressions.templates import Expression, Template, ValueTemplate

_MARK = "\0"
"""Encloses the number of an expression while the text is parsed."""


def json_in(text: Template) -> ValueTemplate | None:
    """The object or list that ``text`` is; None if it is neither.

    Each expression keeps its place: inside quotes it is part of that text, elsewhere it is a value.
    """
    written, quoted = "", False
    expressions: list[Expression] = []
    for part in text.parts:
        if isinstance(part, str):
            for found in re.finditer(r'\\.|"', part, re.DOTALL):
                quoted ^= found[0] == '"'
            written += part
        else:
            mark = f"{_MARK}{len(expressions)}{_MARK}"
            written += mark if quoted else f'"{mark}"'
            expressions.append(part)
    if written.count(_MARK) != 2 * len(expressions) or not written.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(written, strict=False)
    except (ValueError, RecursionError):
        return None
    templates: list[Template] = []

    def placed(value: JSON) -> JSON:
        if isinstance(value, dict):
            if any(_MARK in key for key in value):
                raise ValueError("a key is literal")
            return {key: placed(part) for key, part in value.items()}
        if isinstance(value, list):
            return [placed(part) for part in value]
        if not isinstance(value, str) or _MARK not in value:
            return value
        parts = re.split(f"{_MARK}(\\d+){_MARK}", value)
        filled = (expressions[int(part)] if at % 2 else part for at, part in enumerate(parts))
        templates.append(Template(tuple(part for part in filled if part != "")))
        return templates[-1]

    try:
        return ValueTemplate(placed(value), templates)
    except (ValueError, RecursionError):
        return None
