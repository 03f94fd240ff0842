"""The shapes that model APIs ask for."""

from __future__ import annotations

from agentrun.api.workflow import JsonSchema


def parameters(schema: JsonSchema) -> JsonSchema:
    """A tool's parameters as the APIs take them: an object schema without ``properties`` is refused by some."""
    return schema if "properties" in schema else {**schema, "type": "object", "properties": {}}
