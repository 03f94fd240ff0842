"""Converts whole numbers such as 2.0, which models and programs write and JSON Schema accepts as integers."""

from __future__ import annotations

from urllib.parse import unquote

from agentrun.api.values import JSON

EXACT = 2**53
"""Up to this value, a floating-point number represents every whole number exactly."""


def with_integers(schema: JSON, value: JSON) -> JSON:
    """``value``, which fits ``schema``, with numbers such as 2.0 as integers where the schema requires an integer.

    JSON Schema accepts 2.0 as an integer, but a URL, a form or a typed server does not. If several branches apply and
    one of them accepts any number, the number is not changed.
    """
    return _integers([schema], value, schema) if _has_whole(value) else value


def _has_whole(value: JSON) -> bool:
    level = [value]
    while level:
        if any(isinstance(part, float) and part.is_integer() for part in level):
            return True
        inner = [part for part in level if isinstance(part, list | dict)]
        level = [child for part in inner for child in (part.values() if isinstance(part, dict) else part)]
    return False


def _integers(schemas: list[JSON], value: JSON, root: JSON) -> JSON:
    if not isinstance(value, list | dict | float):
        return value
    applied = _applied(schemas, root)
    if isinstance(value, float):
        wanted = value.is_integer() and abs(value) <= EXACT and _is_integer(applied, value)
        return int(value) if wanted else value
    if isinstance(value, list):
        return [_integers(_items(applied, at), part, root) for at, part in enumerate(value)]
    return {key: _integers(_properties(applied, key), part, root) for key, part in value.items()}


def _applied(schemas: list[JSON], root: JSON) -> list[dict[str, JSON]]:
    """``schemas``, and those that they apply to the same value by reference or combination, each once."""
    found: dict[int, dict[str, JSON]] = {}
    ahead = list(schemas)
    while ahead:
        schema = ahead.pop()
        if not isinstance(schema, dict) or id(schema) in found:
            continue
        found[id(schema)] = schema
        for key in ("allOf", "anyOf", "oneOf"):
            branches = schema.get(key)
            ahead += branches if isinstance(branches, list) else []
        ahead += [schema[key] for key in ("then", "else") if key in schema]
        if "$ref" in schema:
            ahead.append(_referred(schema["$ref"], root))
    return list(found.values())


def _referred(ref: JSON, root: JSON) -> JSON:
    """The schema that a JSON pointer leads to; None if ``ref`` is no pointer (an anchor) or leads nowhere."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        return None
    found = root
    for part in unquote(ref[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _is_integer(schemas: list[dict[str, JSON]], value: float) -> bool:
    """Whether one of ``schemas`` requires an integer, and none accepts any number."""
    asked = False
    for schema in schemas:
        kinds = schema.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
        if "number" in kinds:
            return False
        listed = schema.get("enum")
        values = [*(listed if isinstance(listed, list) else []), *([schema["const"]] if "const" in schema else [])]
        asked |= "integer" in kinds or any(type(one) is int and one == value for one in values)
    return asked


def _items(schemas: list[dict[str, JSON]], at: int) -> list[JSON]:
    found: list[JSON] = []
    for schema in schemas:
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        found += [first[at]] if at < len(first) else [schema["items"]] if "items" in schema else []
    return found


def _properties(schemas: list[dict[str, JSON]], key: str) -> list[JSON]:
    found: list[JSON] = []
    for schema in schemas:
        named = schema.get("properties")
        if isinstance(named, dict) and key in named:
            found.append(named[key])
        elif "patternProperties" not in schema and "additionalProperties" in schema:
            found.append(schema["additionalProperties"])
    return found
