"""What both APIs share of a request: its checks, the error it is refused with, and the conversation it carries.

The checks are those that catch a client's mistakes, with the wording and the shape that OpenAI answers with:
https://platform.openai.com/docs/guides/error-codes and https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = Any
Body = dict[str, Any]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_STRICT_DEPTH = 10
"""OpenAI's own limit for nested objects in a strict schema."""


class RequestError(Exception):
    """A request that is refused; ``status`` is the answer's, the rest its ``error`` object."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: Body = {"message": message, "type": kind, "param": param, "code": code}


@dataclass(slots=True)
class Conversation:
    """A request that passed the checks, as far as rules look at it; see ``script.Facts``."""

    body: Body
    digest: str
    """SHA-256 of the canonical request but for how it is streamed. Every id in the answer is derived from it."""
    size: int
    """The length of the canonical request in characters."""
    text: str = ""
    turn: int = 0
    last_tool: str | None = None
    results: dict[str, JSON] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.body["model"])

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as server-sent events."""
        return self.body.get("stream") is True

    @property
    def parallel(self) -> bool:
        """Whether several tool calls may be made in one turn."""
        return self.body.get("parallel_tool_calls") is not False


def wrong_type(param: str, expected: str, value: JSON) -> RequestError:
    """The refusal of a value that has another type than ``expected``."""
    kinds = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
    }
    got = kinds.get(type(value), "null")
    return RequestError(
        f"Invalid type for '{param}': expected {expected}, but got {got} instead.", param, "invalid_type"
    )


def missing(param: str) -> RequestError:
    """The refusal of a request without ``param``."""
    return RequestError(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def invalid_value(param: str, value: JSON, supported: tuple[str, ...]) -> RequestError:
    """The refusal of a value that is none of ``supported``."""
    listed = ", ".join(f"'{name}'" for name in supported)
    return RequestError(f"Invalid value: '{value}'. Supported values are: {listed}.", param, "invalid_value")


def known_fields(value: JSON, param: str, known: frozenset[str]) -> Body:
    """``value`` if it is an object with no other fields than ``known``."""
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    for name in value:
        if name not in known:
            place = f"{param}.{name}" if param else name
            raise RequestError(f"Unknown parameter: '{place}'.", place, "unknown_parameter")
    return value


def text_field(fields: Mapping[str, JSON], name: str, param: str) -> str:
    """The text ``fields[name]``."""
    if fields.get(name) is None:
        raise missing(f"{param}.{name}" if param else name)
    if not isinstance(fields[name], str):
        raise wrong_type(f"{param}.{name}" if param else name, "a string", fields[name])
    return str(fields[name])


def list_field(value: JSON, param: str) -> list[JSON]:
    """``value`` if it is a list."""
    if not isinstance(value, list):
        raise wrong_type(param, "an array", value)
    return value


def joined(parts: JSON, param: str, kinds: tuple[str, ...]) -> str:
    """The text of a message's content: a string, or parts whose type is one of ``kinds``."""
    if isinstance(parts, str):
        return parts
    texts = []
    for i, part in enumerate(list_field(parts, param)):
        if not isinstance(part, dict):
            raise wrong_type(f"{param}[{i}]", "an object", part)
        if part.get("type") not in kinds:
            raise invalid_value(f"{param}[{i}].type", part.get("type"), kinds)
        if part["type"] in ("input_text", "output_text", "text"):
            texts.append(text_field(part, "text", f"{param}[{i}]"))
    return "".join(texts)


def result_value(output: str) -> JSON:
    """A tool's result as the JSON that it holds, or as the text that it is."""
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        return output


def check_common(body: Body) -> None:
    """Check the fields that both APIs have."""
    text_field(body, "model", "")
    for name in ("stream", "store", "parallel_tool_calls"):
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise wrong_type(name, "a boolean", body[name])
    metadata = body.get("metadata")
    if metadata is not None:
        if not isinstance(metadata, dict):
            raise wrong_type("metadata", "an object", metadata)
        if len(metadata) > 16:
            raise RequestError("Invalid 'metadata': too many properties.", "metadata", "object_above_max_properties")
        for name, value in metadata.items():
            if not isinstance(value, str):
                raise wrong_type(f"metadata.{name}", "a string", value)
            if len(name) > 64 or len(value) > 512:
                raise RequestError(
                    f"Invalid 'metadata.{name}': string too long.", "metadata", "string_above_max_length"
                )
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise wrong_type("stream_options", "an object", options)
    if options is not None and not body.get("stream"):
        raise RequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options", None
        )


def check_count(body: Body, name: str, least: int) -> None:
    """Check an optional whole number."""
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "an integer", value)
    if value < least:
        raise RequestError(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
            name,
            "integer_below_min_value",
        )


def check_function(function: Body, param: str, names: set[str]) -> None:
    """Check one declared function and add its name to ``names``."""
    name = text_field(function, "name", param)
    check_name(name, f"{param}.name")
    if name in names:
        raise RequestError(f"Invalid '{param}.name': the tool name '{name}' is used twice.", param, "invalid_value")
    names.add(name)
    parameters = function.get("parameters")
    if parameters is None:
        return
    context = f"Invalid schema for function '{name}'"
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        got = parameters.get("type") if isinstance(parameters, dict) else None
        raise RequestError(
            f"{context}: schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{got}\"'.",
            f"{param}.parameters",
            "invalid_function_parameters",
        )
    if function.get("strict"):
        _check_strict(parameters, context, f"{param}.parameters", "invalid_function_parameters")


def check_json_schema(fields: Body, param: str) -> None:
    """Check a structured output's declaration: ``name``, ``schema`` and, if ``strict``, what strict asks of it."""
    name = text_field(fields, "name", param)
    check_name(name, f"{param}.name")
    schema = fields.get("schema")
    if schema is None:
        raise missing(f"{param}.schema")
    if not isinstance(schema, dict):
        raise wrong_type(f"{param}.schema", "an object", schema)
    if fields.get("strict"):
        _check_strict(schema, f"Invalid schema for response_format '{name}'", f"{param}.schema", "invalid_json_schema")


def check_name(name: str, param: str) -> None:
    """Check the name of a function or of a schema."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$' and has at most 64 characters.",
            param,
            "invalid_value",
        )


def check_tool_choice(choice: JSON, names: set[str], named: Callable[[Body], str]) -> None:
    """Check ``tool_choice``; ``named`` gives the name that an object of it forces."""
    if choice is None or choice in ("none", "auto"):
        return
    if choice == "required":
        if not names:
            raise RequestError("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        return
    if not isinstance(choice, dict):
        raise invalid_value("tool_choice", choice, ("none", "auto", "required"))
    name = named(choice)
    if name not in names:
        raise RequestError(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")


def _check_strict(schema: JSON, context: str, param: str, code: str, path: tuple[str, ...] = ()) -> None:
    """Structured Outputs: every object is closed, and requires all that it declares."""
    if len(path) > 2 * _STRICT_DEPTH:
        raise RequestError(f"{context}: more than {_STRICT_DEPTH} levels of nesting.", param, code)
    if not isinstance(schema, dict):
        return
    properties, definitions = schema.get("properties", {}), schema.get("$defs", {})
    required, choices = schema.get("required", []), schema.get("anyOf", [])
    shapes = (isinstance(properties, dict), isinstance(definitions, dict), isinstance(required, list))
    if not all(shapes) or not isinstance(choices, list):
        raise RequestError(f"{context}: In context={path}, it is not a JSON Schema.", param, code)
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            message = (
                f"{context}: In context={path}, 'additionalProperties' is required to be supplied and to be false."
            )
            raise RequestError(message, param, code)
        absent = [name for name in properties if name not in required]
        if absent:
            raise RequestError(
                f"{context}: In context={path}, 'required' is required to be supplied and to be an array including "
                f"every key in properties. Missing '{absent[0]}'.",
                param,
                code,
            )
    parts: dict[tuple[str, ...], JSON] = {("properties", name): part for name, part in properties.items()}
    parts |= {("$defs", name): part for name, part in definitions.items()}
    parts |= {("anyOf", str(index)): part for index, part in enumerate(choices)}
    parts |= {("items",): schema["items"]} if "items" in schema else {}
    for place, part in parts.items():
        _check_strict(part, context, param, code, (*path, *place))
