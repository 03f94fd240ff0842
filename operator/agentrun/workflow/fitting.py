"""Arguments as a workflow writes them, held against a schema before the values of their templates are known.

A template may become anything, so only that is reported which no value of it could mend: what stands literally, and of
the objects and lists around templates their names and lengths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice

from agentrun.api.errors import Path
from agentrun.api.texts import quoted
from agentrun.api.values import JSON
from agentrun.api.workflow import Tool
from agentrun.expressions.diagnostics import nearest
from agentrun.expressions.templates import ValueTemplate
from agentrun.workflow.json_schema import Checker, compile_schema

MISFITS_MAX = 5

SMALL = 200_000
"""Values times bytes of a schema up to which a call is looked at: each misfit carries the rule that it breaks."""

ALL = 20 * SMALL
"""The same for all calls of a workflow together."""

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
"""Rules that judge an object or a list by its names and its length, whatever its values are."""

_CONDITIONS = frozenset({"then", "else", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"})
"""Rules whose verdict may hang on a value beside the one that they judge."""


class Fitting:
    """Holds the calls of one workflow against the schemas of its tools.

    Nothing is said of what is large, in itself or altogether: arguments are checked again before they are sent.
    """

    def __init__(self) -> None:
        self._left = ALL
        self._checkers: dict[str, tuple[Checker, int]] = {}

    def misfits(self, template: ValueTemplate, tool: Tool) -> list[tuple[Path, str]]:
        """What of the arguments ``template`` fits ``tool`` with no values put in: places below, what is wrong there."""
        if tool.name not in self._checkers:
            self._checkers[tool.name] = compile_schema(tool.parameters), len(json.dumps(tool.parameters))
        checker, size = self._checkers[tool.name]
        value = template.outline
        work = _count(value) * size
        if work > min(SMALL, self._left):
            return []
        self._left -= work
        # By place: whether the template gives a text, whatever is put into it.
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
    """Whether the misfit at ``place``, by the rule at ``rules``, stays whatever the templates at ``holes`` give."""
    if not holes:
        return True
    if any(hole == place[: len(hole)] and hole != place for hole in holes) or not _CONDITIONS.isdisjoint(rules):
        return False
    if place in holes:
        return holes[place] and rules[-1:] == ("type",)
    inside = any(hole[: len(place)] == place for hole in holes)
    return not inside or rules[-1:] in _OF_NAMES or rules[-2:-1] == ("propertyNames",)
