"""Finds, in a JSON Schema, the schema of the place that an expression names, or that the place cannot exist.

Only certain results count. A schema is a conjunction: other keywords beside ``properties`` can only restrict it
further. A field that ``additionalProperties: false`` excludes therefore never exists, whatever ``anyOf`` or ``if`` add.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentrun.expressions.diagnostics import Keys, nearest, written

Shape = Any
"""A JSON Schema."""

ANYTHING: Shape = True

_REFERENCES_MAX = 16
_WORDS = {
    "string": "a string",
    "number": "a number",
    "integer": "a number",
    "boolean": "a boolean",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def place(shape: Shape, keys: Keys, start: int) -> tuple[Shape, str]:
    """The schema of the value at ``keys``, whose first ``start`` parts lead to a value of ``shape``.

    The second value says why there surely is no such value; it is empty if there may be one.
    """
    root, here = shape, shape
    for at in range(start, len(keys)):
        here, missing = _below(here, root, keys, at)
        if missing:
            return ANYTHING, missing
    return here, ""


def _below(shape: Shape, root: Shape, keys: Keys, at: int) -> tuple[Shape, str]:
    key, below = keys[at], ANYTHING
    for schema in _conjuncts(shape, root):
        types = schema.get("type", [])
        types = [types] if isinstance(types, str) else types
        if types and ("object" if isinstance(key, str) else "array") not in types:
            said = " or ".join(dict.fromkeys(_WORDS.get(str(name), str(name)) for name in types))
            return ANYTHING, f"{written(keys[: at + 1])} is missing: {written(keys[:at])} is {said}"
        if isinstance(key, int):
            found = schema.get("items", ANYTHING) if "prefixItems" not in schema else ANYTHING
        else:
            properties = schema.get("properties", {})
            if key in properties:
                found = properties[key]
            elif schema.get("additionalProperties") is False and "patternProperties" not in schema:
                known = ", ".join(list(properties)[:10]) or "nothing"
                hint = nearest(key, properties)
                return ANYTHING, f"{written(keys[: at + 1])} is missing: the schema has only {known}{hint}"
            else:
                found = schema.get("additionalProperties", ANYTHING)
        below = found if below is ANYTHING else below
    return below, ""


def _conjuncts(shape: Shape, root: Shape) -> Iterator[dict[str, Any]]:
    """``shape`` and the schemas that its ``$ref`` leads to. A value has to fit all of them."""
    for _ in range(_REFERENCES_MAX):
        if not isinstance(shape, dict):
            return
        yield shape
        if "$ref" not in shape:
            return
        shape = _target(root, shape["$ref"])


def _target(root: Shape, reference: Any) -> Shape:
    """The target of ``#/$defs/name``; ``ANYTHING`` if it is not found: ``root`` may be a part of its document."""
    if not isinstance(reference, str) or not reference.startswith(("#/$defs/", "#/definitions/")):
        return ANYTHING
    here = root
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(here, dict) or name not in here:
            return ANYTHING
        here = here[name]
    return here
