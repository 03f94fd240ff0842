"""Estimates the memory of a workflow and its program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from agentrun.api.footprint import footprint


def program_footprint(workflow: dict[str, Any]) -> int:
    """Bytes that a workflow and its program take in memory."""
    return _MODELS * footprint(workflow) + _COMPILED * sum(map(len, _expressions(workflow)))


_MODELS: Final = 3
"""The number of copies of a workflow: as JSON, as models, and in the planner's form."""

_COMPILED: Final = 400
"""Bytes of a compiled expression per character; 150 to 390 were measured."""


def _expressions(workflow: dict[str, Any]) -> Iterator[str]:
    """The texts that are expressions or contain some."""
    stack: list[tuple[str, Any]] = [("", workflow)]
    while stack:
        key, found = stack.pop()
        if isinstance(found, str):
            if "${" in found or key in ("when", "output"):
                yield found
        elif isinstance(found, dict):
            stack += found.items()
        elif isinstance(found, list):
            stack += (("", item) for item in found)
