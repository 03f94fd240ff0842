"""Turns a user's file into checked objects, and checks an object of an API server with the same messages.

The checks come in this order: the file, its encoding, its YAML (``yaml_reader``), its apiVersion and kind, then all
fields at once (``problems``).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from agentrun.api.bounds import too_large
from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.run import AgentRun, AgentWorkflow, Metadata
from agentrun.api.workflow import API_VERSION
from agentrun.documents import yaml_reader
from agentrun.documents.problems import described, problems_in, suggestion
from agentrun.documents.yaml_reader import Node

MAX_BYTES = 4 * 1024 * 1024

KINDS: dict[str, type[AgentRun] | type[AgentWorkflow]] = {"AgentRun": AgentRun, "AgentWorkflow": AgentWorkflow}
_KNOWN = f"{' or '.join(KINDS)} of {API_VERSION}"
_OTHER_KINDS = {
    "Approval": (
        "an Approval is created while a run waits, never from a file: decide with agentrun approve or agentrun reject"
    ),
    "AgentCommand": (
        "an AgentCommand is created by agentrun signal, resume or resolve, never from a file: use that command"
    ),
    "AgentPolicy": "AgentPolicy is not supported by this version: remove the document",
}

NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that YAML does not allow (https://yaml.org/spec/1.2.2/#51-character-set)."""


@dataclass(frozen=True)
class Document:
    """One checked object of a file. ``raw`` is the object as the file has it, without defaults; it is not shared."""

    source: str
    kind: str
    metadata: Metadata
    model: AgentRun | AgentWorkflow
    raw: dict[str, Any]
    node: Node = field(repr=False, compare=False)

    @cached_property
    def lines(self) -> dict[Path, int]:
        """The 1-based line of each path in the file. Computed at the first access."""
        return self.node.lines()


def load(path: FilePath | Literal["-"]) -> list[Document]:
    """The objects in the file ``path``, or in standard input for ``-``. At most ``MAX_BYTES`` + 1 bytes are read.

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
        raise _refused("cannot be read by this user: check its permissions", source) from None
    except OSError as error:
        raise _refused(f"cannot be read: {error.strerror or error}", source) from error
    return parse(data, source)


def parse(data: bytes, source: str) -> list[Document]:
    """The objects in ``data``, which is YAML or JSON with one document or more. Empty documents are left out.

    Raises:
        InvalidDocument: with all problems of the first invalid document; ``source`` names the file.
    """
    nodes = yaml_reader.read(_decoded(data, source), source)
    if not nodes:
        raise _refused(f"contains no document, only white space or comments: write one ({_KNOWN})", source)
    return [_document(node, source) for node in nodes]


def from_object(obj: Mapping[str, Any]) -> Document:
    """Check an AgentRun or AgentWorkflow from an API server again: the CRD there may be of another version.

    The result has no status, and only the metadata that ``Metadata`` has.

    Raises:
        InvalidDocument: with all problems of the object; its ``source`` is ``KIND NAME``.
    """
    metadata = obj.get("metadata")
    source = f"{obj.get('kind')} {metadata.get('name') if isinstance(metadata, Mapping) else None}"
    if problem := too_large(obj):
        raise _refused(problem, source)
    raw = {key: value for key, value in obj.items() if key != "status"}
    if isinstance(metadata, Mapping):
        known = {info.alias or name for name, info in Metadata.model_fields.items()}
        raw["metadata"] = {key: value for key, value in metadata.items() if key in known}
    return _document(Node(raw, 0), source)


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
            f"contains the control character U+{ord(found[0]):04X} at line {line}, column {column}: remove it "
            "(is this a text file?)",
            source,
            line,
        )
    return text


def _document(node: Node, source: str) -> Document:
    raw = node.value
    if not isinstance(raw, dict):
        found = f"{described(raw)}" if not isinstance(raw, str) else "text"
        raise _refused(f"is {found}, not an object with apiVersion, kind, metadata and spec", source, node.line)
    if problem := _kind_problem(raw):
        raise InvalidDocument([problem], source, {problem.path: node.line_of(problem.path)})
    model = KINDS[raw["kind"]]
    text = json.dumps(raw)
    try:
        # Strict, because the API server does not read "3" as a number either. From JSON, because only there strict
        # validation reads an enum from text.
        checked = model.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _explained(error, model, node, source) from None
    # YAML aliases share one value in ``raw``; the copy from JSON shares nothing.
    return Document(source, raw["kind"], checked.metadata, checked, json.loads(text), node)


def _kind_problem(raw: dict[str, Any]) -> Problem | None:
    kind, version = raw.get("kind"), raw.get("apiVersion")
    for name, value in (("apiVersion", version), ("kind", kind)):
        if value is None:
            return Problem((name,), f"is missing: use {_KNOWN}")
        if not isinstance(value, str):
            return Problem((name,), f"must be text, found {described(value)}: use {_KNOWN}")
    if version == API_VERSION and kind in KINDS:
        return None
    if version == API_VERSION and kind in _OTHER_KINDS:
        return Problem(("kind",), _OTHER_KINDS[kind])
    if version != API_VERSION:
        return Problem(("apiVersion",), f"{described(version)} is not supported: use {_KNOWN}")
    return Problem(
        ("kind",), f"{described(kind)} is not supported{suggestion(str(kind), list(KINDS)) or f': use {_KNOWN}'}"
    )


def _explained(error: ValidationError, model: type[BaseModel], node: Node, source: str) -> InvalidDocument:
    found = problems_in(error, model)
    lines = {problem.path: node.line_of(place) for problem, place in found if place is not None}
    return InvalidDocument([problem for problem, _ in found], source, lines)
