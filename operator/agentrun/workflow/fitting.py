"""Checks a workflow's arguments against a tool's schema before the values of their templates are known.

A template may become anything. Only misfits that no value of it could repair are reported: in literal parts, and in the
names and lengths of the objects and lists around templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice

from agentrun.api.errors import Path
from agentrun.api.texts import quoted
from agentrun.api.tools import Tool
from agentrun.api.values import JSON
from agentrun.expressions.diagnostics import nearest
from agentrun.expressions.templates import ValueTemplate
from agentrun.workflow.json_schema import Checker, compile_schema

MISFITS_MAX = 5

SMALL = 200_000
"""The largest call that is checked, in values times bytes of the schema: each misfit contains the rule that it breaks.
"""

ALL = 20 * SMALL
"""The same limit for all calls of a workflow together."""

_OF_NAMES = frozenset(
    (keyword,)
    for keyword in (
        "type",
        "required",
        "additionalProperties",
        "dependentRequired",
        "minProperties",
        "maxProperties",
        "minItems",
        "maxItems",
    )
)
"""Rules about the names in an object or the length of a list, which do not depend on their values."""

_CONDITIONS = frozenset({"then", "else", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"})
"""Rules whose result may depend on other values than the one that they reject."""


class Fitting:
    """Checks the calls of one workflow against the schemas of its tools.

    Calls beyond the limits ``SMALL`` and ``ALL`` are not checked here. All arguments are checked again before they are
    sent.
    """

    def __init__(self) -> None:
        self._left = ALL
        self._checkers: dict[str, tuple[Checker, int]] = {}

    def misfits(self, template: ValueTemplate, tool: Tool) -> list[tuple[Path, str]]:
        """The parts of the arguments ``template`` that cannot fit ``tool``, whatever its values: path and message."""
        if tool.name not in self._checkers:
            self._checkers[tool.name] = compile_schema(tool.parameters), len(json.dumps(tool.parameters))
        checker, size = self._checkers[tool.name]
        value = template.outline
        work = _count(value) * size
        if work > min(SMALL, self._left):
            return []
        self._left -= work
        # By place: whether the template always gives a text.
        holes = {place: found.whole is None for place, found in template.texts()}
        certain = (
            (place, _worded(rules, message, tool.parameters))
            for place, rules, message in checker.broken_rules(value)
            if _is_certain(place, rules, holes)
        )
        return list(islice(certain, MISFITS_MAX))


def _worded(rules: Path, message: str, schema: JSON) -> str:
    if rules == ("additionalProperties",):
        known = schema.get("properties", {})
        names = re.findall(r"'([^']*)'", message)
        return "; ".join(f"{quoted(name)} is not known{nearest(name, known)}" for name in names) or message
    return message.replace('""', "a text", 1) if rules[-1:] == ("type",) else message


def _count(value: JSON) -> int:
    if isinstance(value, (dict, list)):
        return 1 + sum(_count(part) for part in (value.values() if isinstance(value, dict) else value))
    return 1


def _is_certain(place: Path, rules: Path, holes: Mapping[Path, bool]) -> bool:
    """Whether the misfit at ``place``, by the rule at ``rules``, does not depend on the templates at ``holes``."""
    if not holes:
        return True
    if any(hole == place[: len(hole)] and hole != place for hole in holes) or not _CONDITIONS.isdisjoint(rules):
        return False
    if place in holes:
        return holes[place] and rules[-1:] == ("type",)
    inside = any(hole[: len(place)] == place for hole in holes)
    return not inside or rules[-1:] in _OF_NAMES or rules[-2:-1] == ("propertyNames",)
