"""JSON Schema, draft 2020-12: checks schemas, and checks values against them.

Schemas come from users, and values from models and tools. The work for both is therefore limited:

- Nothing is ever fetched: a ``$ref`` must stay inside its document, and the validator also runs offline.
- Patterns are matched by a linear-time engine (no look-around, no back-references), so no value can make one run for
  long.
- The expansion of a schema is limited: a chain of sixty times ``allOf: [{$ref: a1}, {$ref: a1}]`` would never end.
- An explanation of a misfit costs more than the check. The validator memoises whether a value fits, but an error
  contains the errors of every branch below it: with a recursive ``oneOf``, that took 4 s at fourteen levels and all
  memory at twenty. If that could happen, the value is refused without the details.

``format`` is an annotation, which is the draft's default. An author who wants it enforced writes a ``pattern``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.printable import printable
from agentrun.api.texts import quoted
from agentrun.api.values import JSON
from agentrun.expressions.bounded_cache import Kept
from agentrun.expressions.cost import pattern_size
from agentrun.workflow.misfit import misfits
from agentrun.workflow.schema_cost import Costs, TooCostly, repeated

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 64 * 1024
MAX_DEPTH = 64
MAX_PARTS = 20_000
"""The most parts of a schema after every reference is replaced by its target."""

MAX_PATTERNS = 50_000
"""The most instructions of all patterns of a schema together. Each takes 260 bytes and 3 µs to compile."""

MAX_VALUE_DEPTH = 200
"""The most levels of a value that is checked. At some tens of thousands, the validator's recursion ends the process."""

_MAX_MESSAGE = 200
_MAX_EXPLAINED = 10_000
"""The most branches that an explanation may visit: about 60 ms in the worst case measured."""

_MAX_EXPLANATION = 16 * 1024 * 1024
"""The most bytes of all errors of a value together. Each error may contain the value and a part of the schema."""

_ONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties", "contentSchema")  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_STORES = ("$defs", "definitions")

_Place = tuple[str, ...]
"""The place of a schema in its document, as the parts of a JSON pointer."""


def depth(value: JSON) -> int:
    """The nesting of lists and objects in ``value``: 0 for a scalar, 1 for ``[]``. It does not recurse."""
    level, found = [value], 0
    while level := [part for part in level if isinstance(part, list | dict)]:
        found += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return found


def patterns(schema: JSON) -> int:
    """About how many instructions all patterns in ``schema`` compile to."""
    total, pending = 0, [schema]
    while pending:
        found = pending.pop()
        total += sum(size for _, size in _own_patterns(found))
        pending += found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return total


def _own_patterns(schema: JSON) -> Iterator[tuple[str, int]]:
    """The instructions of the patterns of one schema, without its subschemas, by keyword."""
    if not isinstance(schema, dict):
        return
    if isinstance(pattern := schema.get("pattern"), str):
        yield "pattern", pattern_size(pattern)
    if isinstance(by_pattern := schema.get("patternProperties"), dict):
        yield "patternProperties", sum(pattern_size(pattern) for pattern in by_pattern)


def weight(schema: JSON) -> int:
    """The cost to compile ``schema``: its bytes as JSON, plus ten for each instruction of its patterns."""
    return len(json.dumps(schema, default=str)) + 10 * patterns(schema)


def check_schema(schema: JSON, path: Path) -> list[Problem]:
    """The problems of ``schema``, with their paths below ``path``; empty if it can be compiled."""
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return [Problem(path, f"is not JSON: {error}; quote dates and other values that YAML reads as special types")]
    if not isinstance(schema, dict | bool):
        return [Problem(path, "is not a JSON Schema: write an object such as {type: object}")]
    if len(text) > MAX_BYTES:
        return [Problem(path, f"has {len(text)} bytes as JSON; a schema may have at most {MAX_BYTES}")]
    if depth(schema) > MAX_DEPTH:
        return [Problem(path, f"is nested deeper than {MAX_DEPTH} levels; move parts of it into $defs")]
    try:
        _compile(text)
    except InvalidDocument as error:
        return [Problem(path + problem.path, problem.message) for problem in error.problems]
    return []


def compile_schema(schema: JSON) -> Checker:
    """The checker of ``schema``, from a cache if the process has compiled it before.

    Raises:
        InvalidDocument: with the problems that :func:`check_schema` reports.
    """
    if problems := check_schema(schema, ()):
        raise InvalidDocument(problems)
    return _compile(json.dumps(schema, allow_nan=False))


@dataclass(frozen=True, slots=True)
class Checker:
    """A compiled schema. Safe to share between threads and tasks."""

    _validator: Draft202012Validator
    _root: JSON
    _costs: Costs
    _length: int
    """Bytes of the schema as JSON."""
    _parts: int
    _returns: int

    @property
    def size(self) -> int:
        """About how many bytes of memory the checker takes."""
        return self._length * _FACTOR + _LEAST + patterns(self._root) * _INSTRUCTION

    def fits(self, instance: JSON) -> bool:
        """Whether ``instance`` is surely valid. It is not if it is too deep (200 levels) or too costly to check."""
        return not self._refused(instance) and bool(self._validator.is_valid(instance))

    def broken_rules(self, instance: JSON) -> Iterator[tuple[Path, Path, str]]:
        """The errors of ``instance``: path in the value, path of the rule in the schema, message.

        Nothing is returned if the check or the explanation would cost too much.
        """
        if self._refused(instance) or not self._can_explain(instance):
            return
        for error in self._validator.iter_errors(instance):
            yield tuple(error.instance_path), tuple(error.schema_path), _clip(error.message)

    def errors(self, instance: JSON) -> list[str]:
        """The errors of ``instance``: at most five lines ``place: what``; empty if it fits.

        The lines quote parts of the value.
        """
        if why := self._refused(instance):
            return [why]
        if self._validator.is_valid(instance):
            return []
        return misfits(self._root, instance, self._can_explain)

    def _refused(self, instance: JSON) -> str:
        """Why ``instance`` is refused without a check; empty if it can be checked."""
        if depth(instance) > MAX_VALUE_DEPTH:
            return f"is nested deeper than {MAX_VALUE_DEPTH} levels"
        try:
            self._costs.check(instance)
        except TooCostly:
            return (
                "takes too much work to be checked against its schema: shorten its lists and texts, or use fewer "
                "alternatives, patterns and enums in the schema"
            )
        return ""

    def _can_explain(self, instance: JSON) -> bool:
        """Whether there is memory and time to make all errors of ``instance``.

        Each error contains a part of the value and a part of the schema. The error of an alternative contains all
        errors below it.
        """
        levels = depth(instance)
        branches: int = self._parts * max(self._returns, 1) ** min(levels, 64)
        if branches > _MAX_EXPLAINED:
            return False
        text = json.dumps(instance, default=str)
        parts = 1 + text.count(",") + text.count("{") + text.count("[")
        return branches * (parts * self._length + levels * len(text)) <= _MAX_EXPLANATION


_compiled: Kept[str, Checker] = Kept(32 * 1024 * 1024)
"""The compiled checkers by schema text. Losing an entry costs only the time to compile it again."""

_FACTOR, _LEAST, _INSTRUCTION = 60, 16 * 1024, 300
"""The memory of a compiled schema, in bytes: for each byte of its text, a fixed part, and for each pattern instruction.
"""


def _compile(text: str) -> Checker:
    found = _compiled.get(text)
    if found is None:
        found = _compile_anew(text)
        _compiled.keep(text, found, found.size)
    return found


def _compile_anew(text: str) -> Checker:
    import jsonschema_rs  # noqa: PLC0415  (57 ms, and most commands compile no schema)

    root = json.loads(text)
    schemas = dict(_schemas(root))
    if problems := [problem for place, schema in schemas.items() for problem in _outside(schemas, place, schema)]:
        raise InvalidDocument(problems)
    targets = {place: target for place, schema in schemas.items() if (target := _referred(schemas, schema)) is not None}
    parts, returns, recursive = _expansion(schemas, targets)
    sizes = {(*place, key): size for place, schema in schemas.items() for key, size in _own_patterns(schema)}
    if sum(sizes.values()) > MAX_PATTERNS:
        where = max(sizes, key=lambda place: sizes[place])
        message = "patterns are of bounded size, each and together: use smaller repetitions than {n}, or fewer patterns"
        raise InvalidDocument([Problem(where, message)])
    if parts > MAX_PARTS:
        message = f"expands to more than {MAX_PARTS} parts; let fewer references point to the same schema"
        raise InvalidDocument([Problem((), message)])
    try:
        validator = jsonschema_rs.Draft202012Validator(root, pattern_options=jsonschema_rs.RegexOptions(), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise InvalidDocument([_invalid(error)]) from error
    try:
        costs = Costs(schemas, targets, recursive)
    except TooCostly:
        raise InvalidDocument([Problem((), "takes too much work to check any value: use fewer alternatives")]) from None
    return Checker(validator, root, costs, len(text), parts, returns)


def _schemas(root: JSON) -> Iterator[tuple[_Place, JSON]]:
    """Every schema in the document with its place, without what only looks like one (``const``, ``examples``, …)."""
    found: list[tuple[_Place, JSON]] = [((), root)]
    while found:
        place, schema = found.pop()
        yield place, schema
        found += [(place + key, inner) for key, inner in _below(schema, (*_MAPS, *_STORES))]


def _below(schema: JSON, maps: tuple[str, ...]) -> Iterator[tuple[_Place, JSON]]:
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in _ONE:
            yield (key,), value
        elif key in _LISTS and isinstance(value, list):
            yield from (((key, str(index)), inner) for index, inner in enumerate(value))
        elif key in maps and isinstance(value, dict):
            yield from (((key, name), inner) for name, inner in value.items())


def _outside(schemas: dict[_Place, JSON], place: _Place, schema: JSON) -> Iterator[Problem]:
    """The keywords of one schema that would lead out of its document, or change how the rest of it is read."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema and _target(schemas, schema["$ref"]) is None:
        message = f"{quoted(schema['$ref'])} is not a schema of this document; write for example #/$defs/name"
        yield Problem((*place, "$ref"), _clip(message))
    if "$dynamicRef" in schema:
        yield Problem((*place, "$dynamicRef"), "is not supported; write $ref")
    if "$id" in schema and place:
        yield Problem((*place, "$id"), "is only supported at the root; refer to parts of the document by #/$defs/name")
    if "$schema" in schema and str(schema["$schema"]).rstrip("#") != DIALECT:
        yield Problem((*place, "$schema"), f"schemas are read as draft 2020-12; remove it or write {DIALECT}")
    if "$vocabulary" in schema:
        yield Problem((*place, "$vocabulary"), "is not supported; remove it")


def _target(schemas: dict[_Place, JSON], ref: JSON) -> _Place | None:
    """The place that ``ref`` refers to; None if that is not a schema of the same document."""
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    pointer = unquote(ref[1:])
    if not pointer or pointer.startswith("/"):
        place = tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
        return place if place in schemas else None
    return next((p for p, s in schemas.items() if isinstance(s, dict) and s.get("$anchor") == pointer), None)


def _referred(schemas: dict[_Place, JSON], schema: JSON) -> _Place | None:
    return _target(schemas, schema.get("$ref")) if isinstance(schema, dict) else None


def _expansion(schemas: dict[_Place, JSON], targets: dict[_Place, _Place]) -> tuple[int, int, set[_Place]]:
    """The number of parts of the expanded schema, how often it recurses into itself, and which schemas it recurses to.

    The walk starts at the root, follows every reference, and turns back before a schema that it is still inside of. It
    stops after ``MAX_PARTS``, so it ends even if the expansion does not. Parts below ``unevaluatedProperties`` or
    ``unevaluatedItems`` count as often as the validator visits them.
    """
    next_places: dict[_Place, list[_Place]] = {}
    for place, schema in schemas.items():
        next_places[place] = [place + key for key, _ in _below(schema, _MAPS)]
        if place in targets:
            next_places[place].append(targets[place])
    parts, returns = 1, 0
    recursive: set[_Place] = set()
    trail: list[_Place] = [()]
    times = [1]
    inside: set[_Place] = {()}
    ahead = [iter(next_places[()])]
    while ahead and parts <= MAX_PARTS:
        place_ahead = next(ahead[-1], None)
        if place_ahead is None:
            ahead.pop()
            times.pop()
            inside.discard(trail.pop())
        elif place_ahead in inside:
            returns += 1
            recursive.add(place_ahead)
        else:
            times.append(times[-1] * repeated(schemas[trail[-1]]))
            parts += times[-1]
            trail.append(place_ahead)
            inside.add(place_ahead)
            ahead.append(iter(next_places[place_ahead]))
    return parts, returns, recursive


def _invalid(error: Any) -> Problem:
    path: Path = tuple(getattr(error, "instance_path", ()))
    message = str(getattr(error, "message", error)).splitlines()[0]
    if message.endswith('is not a "regex"'):
        message += ": patterns are matched in linear time, without look-around and back-references, and of bounded size"
    return Problem(path, _clip(f"is not a valid JSON Schema: {message}"))


def _clip(message: str) -> str:
    return printable(message, _MAX_MESSAGE)
