"""Exports a run's journal as lines that can be verified elsewhere, and reads them.

The lines are read where they are asked for, so that an export of any size takes the memory of its keys and of one line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from agentrun.api.canonical import canonical
from agentrun.api.errors import AgentrunError
from agentrun.api.texts import quoted
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Damaged
from agentrun.store.protocol import KeyMissing, Store

FORMAT = "agentrun-journal"
VERSION = 1

LINE_MAX = 512 * 1024 * 1024
"""Bytes. An object is read into memory as a whole."""


class NotAnExport(AgentrunError):
    """The file is not what ``audit export`` writes; the message says where."""


def export(store: Store, run: RunPath) -> Iterator[dict[str, Any]]:
    """The lines of an export: a header, then every object of the run with its key.

    Canonical JSON is exported as JSON, everything else as base64. Both give the exact bytes back.
    """
    yield {"format": FORMAT, "version": VERSION, "run": str(run)}
    for key in store.list(f"{run}/"):
        data = store.get(key)
        yield {"key": key} | _content(data)


def read_export(file: BinaryIO) -> tuple[RunPath, Exported]:
    """The run and its objects in the lines of an export. ``file`` can be read from any place, and stays open.

    Raises:
        NotAnExport: the lines are no export, or one of another version.
        Damaged: a line is not JSON.
    """
    numbered = enumerate(_lines(file), 1)
    header = _line(*next(numbered, (1, b"")))
    if header.get("format") != FORMAT or not isinstance(header.get("run"), str):
        raise NotAnExport("line 1 is not the header of an export: write one with agentrun audit export RUN")
    if header.get("version") != VERSION:
        raise NotAnExport(
            f"the export has version {quoted(header.get('version'))}; this agentrun reads {VERSION}: upgrade it"
        )
    found: dict[str, int] = {}
    place = file.tell()
    for number, line in numbered:
        value = _line(number, line)
        key = value.get("key")
        if not isinstance(key, str) or not key.startswith(f"{header['run']}/"):
            raise NotAnExport(f"line {number} has no key of run {header['run']}")
        if key in found:
            raise NotAnExport(f"line {number} holds {key} a second time")
        try:
            _decoded(value)
        except (KeyError, TypeError, ValueError) as error:
            raise NotAnExport(f"line {number} has no content that can be read") from error
        found[key] = place
        place += len(line)
    return RunPath.parse(header["run"]), Exported(file, found)


@dataclass(frozen=True, slots=True)
class Exported:
    """The objects of an export, by where their lines begin in the file."""

    file: BinaryIO
    places: dict[str, int]
    remote: bool = False

    def get(self, key: str) -> bytes:
        """See ``Objects``."""
        if key not in self.places:
            raise KeyMissing(f"{key} is not in the export")
        self.file.seek(self.places[key])
        return _decoded(json.loads(self.file.readline()))

    def list(self, prefix: str, after: str = "") -> list[str]:
        """See ``Objects``."""
        return sorted(key for key in self.places if key.startswith(prefix) and key > after)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Each line, from where the file stands. It is read when it is asked for. Raises NotAnExport."""
    while line := file.readline(LINE_MAX):
        if len(line) == LINE_MAX:
            raise NotAnExport(f"a line has more than {LINE_MAX} bytes, which no object of a run needs")
        yield line


def _decoded(value: dict[str, Any]) -> bytes:
    if "content" in value:
        return canonical(value["content"])
    return base64.b64decode(value["base64"], validate=True)


def _content(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
        if canonical(value) == data:
            return {"content": value}
    except (ValueError, RecursionError):
        pass  # not JSON: a blob of another kind, a log, or a damaged object
    return {"base64": base64.b64encode(data).decode()}


def _line(number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"line {number} is not JSON: the file was cut off or damaged") from error
    if not isinstance(value, dict):
        raise NotAnExport(f"line {number} is not a JSON object")
    return value
