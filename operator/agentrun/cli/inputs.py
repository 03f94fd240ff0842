"""Reads the inputs of a run from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agentrun.api.errors import InvalidDocument, Problem
from agentrun.api.texts import quoted
from agentrun.documents import yaml_reader
from agentrun.documents.document import MAX_BYTES
from agentrun.workflow.bounded_json import parse_json
from agentrun.workflow.json_schema import compile_schema


def read_inputs(schema: dict[str, Any], pairs: Sequence[str], file: str | None) -> dict[str, Any]:
    """The inputs in ``file`` (YAML or JSON; ``-``: standard input), overridden by those in ``pairs`` (KEY=VALUE).

    A VALUE that does not parse as JSON is a text. Otherwise it is JSON if ``schema`` accepts the JSON, a text if the
    schema accepts the text or says ``type: string``, and JSON if the schema accepts neither. So ``-i orderId=4711`` is
    a text for ``{type: string}`` and a number for ``{type: integer}``.

    Raises:
        InvalidDocument: the file cannot be used.
        click.BadParameter: a pair is not KEY=VALUE.
    """
    found = _read_file(file) if file is not None else {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{quoted(pair)}: write KEY=VALUE", param_hint="-i")
        found[name] = _value(schema, name, text)
    return found


def _value(schema: dict[str, Any], name: str, text: str) -> Any:
    try:
        parsed = parse_json(text)
    except ValueError:
        return text
    # Check this input alone, but against the whole schema: its references lead to other parts of the schema.
    checker = compile_schema({k: v for k, v in schema.items() if k not in ("required", "minProperties")})
    if not checker.errors({name: parsed}):
        return parsed
    own = schema.get("properties", {}).get(name)
    wants_text = isinstance(own, dict) and own.get("type") == "string"
    return text if wants_text or not checker.errors({name: text}) else parsed


def _read_file(file: str) -> dict[str, Any]:
    source = "standard input" if file == "-" else file
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(f"cannot be read: {error.strerror}", source) from error
    if len(data) > MAX_BYTES:
        raise _refused(f"is larger than {MAX_BYTES // 2**20} MiB", source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused("is not UTF-8", source) from error
    nodes = yaml_reader.read(text, source)
    if len(nodes) != 1 or not isinstance(nodes[0].value, dict):
        raise _refused("must contain one object that maps the names of inputs to their values", source)
    found: dict[str, Any] = json.loads(json.dumps(nodes[0].value))  # YAML aliases share one value; a copy does not
    return found


def _refused(message: str, source: str) -> InvalidDocument:
    return InvalidDocument([Problem((), message)], source)
