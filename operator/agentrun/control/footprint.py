"""How much memory a workflow takes, with what it compiles to, about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from agentrun.api.footprint import footprint


def program_footprint(workflow: dict[str, Any]) -> int:
    """Bytes that a workflow and what it compiles to take."""
    return _MODELS * footprint(workflow) + _COMPILED * sum(map(len, _expressions(workflow)))


_MODELS: Final = 3
"""Times that a workflow is there: as JSON, as models, as what the planner has of it."""

_COMPILED: Final = 400
"""Bytes of a compiled expression for each of its characters; 150 to 390 were measured."""


def _expressions(workflow: dict[str, Any]) -> Iterator[str]:
    """The texts that are compiled, or hold what is."""
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
