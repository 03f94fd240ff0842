"""Decides which schemas can be sent with strict mode, which supports a part of JSON Schema and refuses the rest.

The rules are those of OpenAI's guide to structured outputs, for keywords and for their values. Where the guide leaves a
question open, the narrower reading is used: a refused schema costs a request, while agentrun checks answers against a
schema that is sent without ``strict``. What a fine-tuned model takes less is learned from its refusal.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from agentrun.api.tools import JsonSchema
from agentrun.api.values import JSON

_KINDS = {
    "pattern": ("string",), "format": ("string",),
    "minimum": ("number", "integer"), "maximum": ("number", "integer"), "multipleOf": ("number", "integer"),
    "exclusiveMinimum": ("number", "integer"), "exclusiveMaximum": ("number", "integer"),
    "items": ("array",), "minItems": ("array",), "maxItems": ("array",),
    "properties": ("object",), "required": ("object",), "additionalProperties": ("object",),
}  # fmt: skip
"""The types that each keyword belongs to."""
KEYWORDS = frozenset({"type", "enum", "const", "anyOf", "$ref", "$defs", "title", "description", *_KINDS})
FORMATS = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid",
})  # fmt: skip
_CLASS = r"\\[dDsSwWnrtfv]|\\[^\w\s]"
_PATTERN = (
    rf"\^?(?:[^\\^$()\[*+?{{}}]|{_CLASS}|\((?:\?:|(?!\?))|\)|[*+?}}](?![*+?])|{{(?=\d)"
    rf"|\[\^?(?:{_CLASS}|(?!&&|--|~~)[^\\\[\]])+\])*\$?"
)
"""The patterns that are sent: what OpenAI's two readers of a pattern, Python's and one without look-around,
back-references and lazy repetition, surely take alike. Anchors stand at the ends only.
"""

LEVELS_MAX = 10
REFERENCES_MAX = 50
"""The most references that may follow one another. OpenAI names no limit."""
PROPERTIES_MAX = 5_000
NAMES_MAX = 120_000
"""The most characters of all names of properties and definitions, and all values of ``enum`` and ``const``."""
ENUM_MAX = 1_000
"""The most values of all ``enum`` together."""
LONG_ENUM = 250
LONG_ENUM_MAX = 15_000
"""The most characters of the texts in one ``enum`` that has more than LONG_ENUM values."""

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}
_DEFINITION = r"#/\$defs/([\w.-]+)"


def fits_strict_mode(schema: JsonSchema) -> bool:
    """Whether strict mode accepts ``schema``: the root is an object, every object is closed and requires all its
    properties, and the schema is within the keywords, formats and limits above.
    """
    return schema.get("type") == "object" and "anyOf" not in schema and _Check(schema).passes()


class _Check:
    """The check of one schema. It is linear in the schema's size: a definition is walked once, however often it is
    referenced.
    """

    def __init__(self, root: JsonSchema) -> None:
        self._root = root
        definitions = root.get("$defs", {})
        self._definitions: dict[str, JSON] = definitions if isinstance(definitions, dict) else {}
        self._levels: dict[str, int] = {}
        """The depth of each definition; 0 while it is being walked, so that recursion adds nothing."""
        self._followed = 0
        self._properties = self._characters = self._values = 0

    def passes(self) -> bool:
        try:
            deepest = self._level(self._root, root=True)
            for name in self._definitions:
                deepest = max(deepest, self._definition(name))
                self._characters += len(name)
        except _Unfit:
            return False
        return (
            deepest <= LEVELS_MAX
            and self._properties <= PROPERTIES_MAX
            and self._values <= ENUM_MAX
            and self._characters <= NAMES_MAX
        )

    def _level(self, schema: JSON, *, root: bool = False, above: int = 0) -> int:
        """The number of levels of ``schema``. Raises _Unfit."""
        if not isinstance(schema, dict) or not schema.keys() <= KEYWORDS or above > LEVELS_MAX:
            raise _Unfit
        if "$defs" in schema and not (root and isinstance(schema["$defs"], dict)):
            raise _Unfit
        if "$ref" in schema:
            return self._reference(schema)
        self._look(schema)
        return 1 + max((self._level(part, above=above + 1) for part in _parts(schema)), default=0)

    def _reference(self, schema: dict[str, Any]) -> int:
        target = schema["$ref"]
        if len(schema) > 1 or not isinstance(target, str):
            raise _Unfit  # "$ref cannot have keywords {'description'}"
        named = re.fullmatch(_DEFINITION, target)
        return 0 if target == "#" else self._definition(named[1] if named else "")

    def _definition(self, name: str) -> int:
        if name not in self._definitions:
            raise _Unfit
        if name not in self._levels:
            self._levels[name] = 0
            self._followed += 1
            if self._followed > REFERENCES_MAX:
                raise _Unfit
            self._levels[name] = self._level(self._definitions[name])
            self._followed -= 1
        return self._levels[name]

    def _look(self, schema: dict[str, Any]) -> None:
        """Check the keywords' values and count them."""
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind] if kind is not None else []
        if not all(isinstance(one, str) and one in _TYPES for one in kinds) or not (kinds or "anyOf" in schema):
            raise _Unfit  # "schema must have a 'type' key"
        if len(set(kinds)) < len(kinds) or any(word in _KINDS and not {*_KINDS[word]} & {*kinds} for word in schema):
            raise _Unfit
        if not all(isinstance(schema.get(word, ""), str) for word in ("title", "description")):
            raise _Unfit
        if "object" in kinds:
            properties, required = schema.get("properties", {}), schema.get("required", [])
            if schema.get("additionalProperties") is not False or not isinstance(properties, dict):
                raise _Unfit
            if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
                raise _Unfit
            if sorted(required) != sorted(properties):
                raise _Unfit
            self._properties += len(properties)
            self._characters += sum(len(name) for name in properties)
        if ("array" in kinds) != ("items" in schema):
            raise _Unfit  # "array schema missing items"
        if "anyOf" in schema:
            self._look_at_branches(schema["anyOf"])
        if not (_fits_text(schema) and _fits_numbers(schema)):
            raise _Unfit
        self._look_at_values(schema, kinds)

    def _look_at_branches(self, branches: JSON) -> None:
        if not (isinstance(branches, list) and branches):
            raise _Unfit
        first: dict[str, set[str]] = {}
        for branch in branches:
            for name, schema in self._first_property(branch):
                values = schema.get("enum", [schema["const"]] if "const" in schema else ())
                values = {json.dumps(value, sort_keys=True) for value in values} if isinstance(values, list) else set()
                if name in first and not (values and first[name] and values.isdisjoint(first[name])):
                    raise _Unfit  # "Objects provided via 'anyOf' must not share identical first keys"
                first[name] = first.get(name, set()) | values

    def _first_property(self, branch: JSON) -> Iterator[tuple[str, dict[str, Any]]]:
        target = branch.get("$ref") if isinstance(branch, dict) else None
        named = re.fullmatch(_DEFINITION, target) if isinstance(target, str) else None
        shown = self._root if target == "#" else self._definitions.get(named[1]) if named else branch
        properties = shown.get("properties") if isinstance(shown, dict) else None
        for name, schema in list(properties.items())[:1] if isinstance(properties, dict) else ():
            yield name, schema if isinstance(schema, dict) else {}

    def _look_at_values(self, schema: dict[str, Any], kinds: list[str]) -> None:
        enum = schema.get("enum", [])
        if not isinstance(enum, list) or ("enum" in schema and not enum):
            raise _Unfit
        values = [*enum, schema["const"]] if "const" in schema else enum
        if not all(not isinstance(value, dict | list) and any(_is(value, kind) for kind in kinds) for value in values):
            raise _Unfit  # "enum value … does not validate against …"
        if len({(type(value) is bool, value) for value in enum}) < len(enum):
            raise _Unfit  # "… has non-unique elements"
        self._values += len(enum)
        self._characters += sum(len(str(value)) for value in values)
        if len(enum) > LONG_ENUM and sum(len(value) for value in enum if isinstance(value, str)) > LONG_ENUM_MAX:
            raise _Unfit


class _Unfit(Exception):
    """Strict mode does not accept the schema."""


def _parts(schema: dict[str, Any]) -> Iterator[JSON]:
    yield from schema.get("properties", {}).values()
    yield from schema.get("anyOf", ())
    if "items" in schema:
        yield schema["items"]


def _is(value: JSON, kind: str) -> bool:
    if kind in ("number", "integer") and isinstance(value, bool):
        return False
    return isinstance(value, _TYPES[kind])


def _fits_text(schema: dict[str, Any]) -> bool:
    """Whether ``pattern`` and ``format`` are taken. OpenAI refuses a request with "is not a 'regex'" and with "regex
    lookaround is not supported".
    """
    if "format" in schema and not (isinstance(schema["format"], str) and schema["format"] in FORMATS):
        return False
    if "pattern" not in schema:
        return True
    pattern = schema["pattern"]
    if not isinstance(pattern, str) or not re.fullmatch(_PATTERN, pattern):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError, Warning):
            return False
    return True


def _fits_numbers(schema: dict[str, Any]) -> bool:
    """Whether the bounds of numbers and of lists are numbers that some value can meet."""
    bounds = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
    if not all(_is(schema[word], "number") for word in bounds if word in schema) or schema.get("multipleOf", 1) <= 0:
        return False
    least, most = schema.get("minItems", 0), schema.get("maxItems", schema.get("minItems", 0))
    if not (_is(least, "integer") and _is(most, "integer") and 0 <= least <= most):
        return False
    lower = [schema[word] for word in bounds[:2] if word in schema]
    return all(low <= schema[word] for low in lower for word in bounds[2:4] if word in schema)
