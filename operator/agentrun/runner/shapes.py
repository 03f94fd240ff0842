"""Reading answers of model APIs: what a turn cannot do without is insisted on, everything else may be missing."""

from __future__ import annotations

from typing import Any

from agentrun.api.values import JSON
from agentrun.api.workflow import JsonSchema
from agentrun.runner.endpoint import Malformed
from agentrun.runner.models import ModelCall
from agentrun.runner.untrusted import parse_json


def listed(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects at ``key``; empty where it is null or missing."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Malformed(f"{key} is not a list of objects")
    return value


def in_object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at ``key``; empty where it is null or missing."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{key} is not an object")
    return value


def in_text(holder: dict[str, Any], key: str) -> str:
    """The text at ``key``, which has to be there."""
    value = holder.get(key)
    if not isinstance(value, str):
        raise Malformed(f"{key} is not a text")
    return value


def count(holder: dict[str, Any], key: str) -> int:
    """The number of tokens at ``key``; 0 where it is missing. A negative one would earn budget back."""
    value = holder.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Malformed(f"{key} is not a number of tokens")
    return value


def arguments(text: str) -> tuple[dict[str, JSON] | None, str | None]:
    """The arguments of a call, or what is wrong with them. Models write no arguments as an empty text, too."""
    try:
        value = parse_json(text or "{}")
    except ValueError as error:
        return None, f"the arguments are not JSON: {error}"
    if not isinstance(value, dict):
        return None, "the arguments are not a JSON object"
    return value, None


def distinct(calls: list[ModelCall]) -> tuple[ModelCall, ...]:
    """``calls``, each of which can be answered by its id alone."""
    if len({call.id for call in calls} - {""}) != len(calls):
        raise Malformed("its tool calls have no ids, or the same one twice")
    return tuple(calls)


def parameters(schema: JsonSchema) -> JsonSchema:
    """A tool's parameters as the APIs take them: an object schema without ``properties`` is refused by some."""
    return schema if "properties" in schema else {**schema, "type": "object", "properties": {}}
