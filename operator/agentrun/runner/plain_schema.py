"""Reduces a schema to the keywords that every endpoint knows, for endpoints that refuse the rest.

The reduced schema is weaker than the original: a value that fits the original also fits it, except for a null. agentrun
checks arguments against the whole schema.
"""

from __future__ import annotations

from typing import Any

from agentrun.api.tools import JsonSchema
from agentrun.api.values import JSON

_STORES = ("$defs", "definitions")


def plain_schema(schema: JsonSchema) -> JsonSchema:
    """``schema`` with only types, properties, items, choices, enums of texts and descriptions, without references."""
    return _plain(schema, schema, ())


def _plain(schema: JSON, root: JsonSchema, inside: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = _target(root, reference)
        if target is None or reference in inside:
            return {"type": "object"} if reference in inside else {}
        described = {key: schema[key] for key in ("description",) if key in schema}
        return _plain(target, root, (*inside, reference)) | described
    found: dict[str, Any] = {}
    kind = schema.get("type")
    kinds = [one for one in kind if one != "null"] if isinstance(kind, list) else [kind]
    if len(kinds) == 1 and isinstance(kinds[0], str):
        found["type"] = kinds[0]
    if isinstance(schema.get("description"), str):
        found["description"] = schema["description"]
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        found |= {"type": "string", "enum": values}
    properties = schema.get("properties")
    if isinstance(properties, dict) and properties:
        found["type"] = "object"
        found["properties"] = {name: _plain(part, root, inside) for name, part in properties.items()}
        required = [name for name in schema.get("required", ()) if name in properties]
        found |= {"required": required} if required else {}
    if isinstance(schema.get("items"), dict):
        found["items"] = _plain(schema["items"], root, inside)
    choices = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(choices, list):
        parts = [_plain(part, root, inside) for part in choices if part != {"type": "null"}]
        if len(parts) == 1:
            return parts[0] | found
        if parts and all(parts):
            found["anyOf"] = parts
    return found


def _target(root: JsonSchema, reference: str) -> JSON:
    """The definition that ``reference`` names; None if it names something else."""
    for store in _STORES:
        name = reference.removeprefix(f"#/{store}/")
        definitions = root.get(store)
        if name != reference and isinstance(definitions, dict):
            return definitions.get(name)
    return root if reference == "#" else None
