"""Estimates, before a value is checked against a schema, what the check costs at most.

The validator's time is proportional to the value, and the factor depends on the schema: each part of the schema that
applies to one place of the value adds its own cost. Measured were 4 ns for a type, 0.9 µs for a ``const`` that is a
number, 150 µs for a ``multipleOf`` that is no integer, 1 µs for each element of an ``enum`` of lists, and 12 s for a
pattern of 5,000 instructions over 100 kB of text. The estimate walks through the value once, with all parts of the
schema that apply to each place, and adds up their costs.

One unit is about 5 ns, as for expressions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple

from agentrun.api.values import JSON
from agentrun.expressions.cost import pattern_size

CHECK_MAX = 64 * 1024 * 1024
"""The most units of a check: about a third of a second."""

PARTS_MAX = 200_000
"""The most parts of the schema that one check may combine anew. A check that needs more is too costly."""

PARTS_KEPT = 5_000
"""The most combined parts that are kept from one check to the next."""

UNEVALUATED = 3
"""How often, instead of once, the validator visits what is below ``unevaluatedProperties`` or ``unevaluatedItems``."""

_BASE = 20
_NUMBER, _DECIMAL, _MULTIPLE = 200, 800, 30_000
_LIMITS = ("maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum")

_SAME_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_MEMBERS = ("patternProperties", "additionalProperties", "unevaluatedProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("dependentSchemas", "patternProperties")
_ELEMENTS = ("items", "prefixItems", "contains", "unevaluatedItems")

Place = tuple[str, ...]


class TooCostly(Exception):
    """The check could cost more than CHECK_MAX."""


class _Part(NamedTuple):
    place: Place
    times: int
    """How often the validator visits it."""


def own_cost(schema: JSON) -> int:
    """Units to check one value against ``schema`` itself, without its subschemas and its pattern."""
    if not isinstance(schema, dict):
        return _BASE
    units = _BASE + sum(_DECIMAL for key in _LIMITS if key in schema)
    if "multipleOf" in schema:
        units += _NUMBER if isinstance(schema["multipleOf"], int) else _MULTIPLE
    if "const" in schema:
        units += _compared([schema["const"]])
    if isinstance(options := schema.get("enum"), list):
        kinds = {type(option) for option in options}
        units += _BASE if len(kinds) == 1 and kinds <= {str, int} else _compared(options)
    return units


def _compared(options: list[Any]) -> int:
    return sum(
        _DECIMAL if isinstance(o, float) else _BASE if o is None or isinstance(o, (str, bool)) else _NUMBER
        for o in options
    )


class Costs:
    """The costs of checks against one schema. Results are cached. Safe to share between threads.

    ``schemas``: every schema of the document by its place; ``targets``: the target of each schema's reference;
    ``recursive``: the schemas that contain themselves.
    """

    def __init__(self, schemas: Mapping[Place, JSON], targets: Mapping[Place, Place], recursive: Set[Place]) -> None:
        self._schemas, self._targets, self._recursive = schemas, targets, recursive
        self._states: dict[frozenset[_Part], _State] = {}
        self._combined = self._before = 0
        self._root = self._state([_Part((), 1)])

    def check(self, value: JSON) -> int:
        """The most units that a check of ``value`` takes.

        Raises:
            TooCostly: more than CHECK_MAX, or the estimate itself combines more than PARTS_MAX parts.
        """
        if self._combined > PARTS_KEPT:
            self._states, self._combined = {}, 0
            self._root = self._state([_Part((), 1)])
        self._before = self._combined
        total = 0
        stack: list[tuple[JSON, _State]] = [(value, self._root)]
        while stack:
            found, state = stack.pop()
            total += state.cost
            if isinstance(found, str):
                total += state.patterns * len(found)
            elif isinstance(found, dict):
                for key, inner in found.items():
                    total += state.keys * (1 + len(key))
                    stack.append((inner, self._below(state, key)))
            elif isinstance(found, list):
                element = self._below(state, None)
                stack += [(inner, element) for inner in found]
            if total > CHECK_MAX:
                raise TooCostly
        return total

    def _below(self, state: _State, key: str | None) -> _State:
        """The parts of the schema that apply to the value of ``key``, or to an element if ``key`` is None."""
        name = key if key is None or key in state.names else ""
        known = state.below.get(name)
        if known is None:
            known = state.below[name] = self._state(list(self._parts_below(state, name)))
        return known

    def _parts_below(self, state: _State, key: str | None) -> Iterator[_Part]:
        for place, times in state.parts:
            schema = self._schemas[place]
            if not isinstance(schema, dict):
                continue
            below = times * repeated(schema)
            for name in _ELEMENTS if key is None else _MEMBERS:
                yield from (_Part(inner, below) for inner in self._inner(place, schema, name))
            if key is not None and isinstance(known := schema.get("properties"), dict) and key in known:
                yield _Part((*place, "properties", key), below)

    def _inner(self, place: Place, schema: Mapping[str, JSON], name: str) -> Iterator[Place]:
        """The places of the subschemas under the keyword ``name``."""
        found = schema.get(name)
        if name in _MAPS and isinstance(found, dict):
            yield from ((*place, name, key) for key in found)
        elif name in _LISTS and isinstance(found, list):
            yield from ((*place, name, str(index)) for index in range(len(found)))
        elif name in schema and (*place, name) in self._schemas:
            yield (*place, name)

    def _state(self, parts: list[_Part]) -> _State:
        """All parts that apply to one place of a value: ``parts`` and what they refer to."""
        found: dict[Place, int] = {}
        while parts:
            place, times = parts.pop()
            self._combined += 1
            if self._combined - self._before > PARTS_MAX:
                raise TooCostly
            if place in self._recursive:
                if place in found:
                    continue  # the validator caches its result for this place of the value
                times = 1
            found[place] = found.get(place, 0) + times
            schema = self._schemas[place]
            if not isinstance(schema, dict):
                continue
            below = times * repeated(schema)
            if place in self._targets:
                parts.append(_Part(self._targets[place], below))
            for name in _SAME_PLACE:
                parts += [_Part(inner, below) for inner in self._inner(place, schema, name)]
        key = frozenset(_Part(place, times) for place, times in found.items())
        if key not in self._states:
            self._states[key] = _State(key, self._schemas)
        return self._states[key]


def repeated(schema: JSON) -> int:
    """How often the validator visits what is in ``schema``, for each visit of ``schema`` itself."""
    unevaluated = isinstance(schema, dict) and ("unevaluatedProperties" in schema or "unevaluatedItems" in schema)
    return UNEVALUATED if unevaluated else 1


class _State:
    """The parts of a schema that apply to one place of a value."""

    __slots__ = ("below", "cost", "keys", "names", "parts", "patterns")

    def __init__(self, parts: frozenset[_Part], schemas: Mapping[Place, JSON]) -> None:
        self.parts = parts
        self.below: dict[str | None, _State] = {}
        """The states below this one by key; "": a key that no part names; None: an element."""
        self.cost = self.patterns = self.keys = 0
        """Units for the place itself, for each character of a text at it, and for each character of a key in it."""
        self.names: set[str] = set()
        for place, times in parts:
            schema = schemas[place]
            self.cost += times * own_cost(schema)
            if not isinstance(schema, dict):
                continue
            if isinstance(pattern := schema.get("pattern"), str):
                self.patterns += times * _matched(pattern)
            if isinstance(patterns := schema.get("patternProperties"), dict):
                self.keys += times * sum(_matched(pattern) for pattern in patterns)
            if isinstance(properties := schema.get("properties"), dict):
                self.names |= properties.keys()
            if "propertyNames" in schema:
                self.keys += times * _names_cost(schema["propertyNames"])


def _matched(pattern: str) -> int:
    """Units for each character of a text that ``pattern`` is matched against."""
    return 2 + pattern_size(pattern) // 2


def _names_cost(schema: JSON) -> int:
    """Units for each character of a key that is checked against ``schema``, with all its subschemas."""
    units, stack = 0, [schema]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            units += own_cost(found)
            if isinstance(pattern := found.get("pattern"), str):
                units += _matched(pattern)
            stack += found.values()
        elif isinstance(found, list):
            stack += found
    return units
