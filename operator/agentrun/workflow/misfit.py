"""Says in words why a value does not fit a schema. It narrows the value down first, so that few errors are made.

The validator makes all errors before it returns the first, and an error of ``anyOf`` contains all errors of all its
branches: 6,000 wrong elements took more memory than an operator has. A check without errors has no such cost. The
search therefore checks the parts of the value one after the other, down to a small one, and makes errors only for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any
from urllib.parse import quote, unquote

from agentrun.api.values import JSON

LINE_MAX = 200
"""The most characters of a line."""

_LINES_MAX = 5
_TRIES_MAX = 400
"""The most schemas that are compiled in the search. After that, the message is less precise."""

_LEVELS_MAX = 64
_DOCUMENT = "urn:agentrun:schema"
_APPLIED = ("allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "propertyNames", "contains", "uniqueItems",
            "unevaluatedItems", "unevaluatedProperties")  # fmt: skip

_Path = tuple[str | int, ...]
_Pointer = tuple[str, ...]


def misfits(root: JSON, instance: JSON, is_small: Callable[[JSON], bool]) -> list[str]:
    """Why ``instance`` does not fit the schema document ``root``: at least one line ``place: what``.

    ``is_small`` says whether all errors of a value can be made.
    """
    return list(islice(_Search(root, is_small).lines(instance), _LINES_MAX))


class _Search:
    def __init__(self, root: JSON, is_small: Callable[[JSON], bool]) -> None:
        import jsonschema_rs  # noqa: PLC0415  (57 ms, and most commands compile no schema)

        self._rs, self._root, self._is_small = jsonschema_rs, root, is_small
        self._tries = 0
        self._registry: Any = None
        self._validators: dict[_Pointer, Any] = {}

    def lines(self, instance: JSON, pointer: _Pointer = (), path: _Path = ()) -> Iterator[str]:
        if self._is_small(instance):
            for error in self._validator(pointer).iter_errors(instance):
                yield _line((*path, *error.instance_path), error.message)
            return
        inner = self._wrong(pointer, instance) if len(path) < _LEVELS_MAX else iter(())
        first = next(inner, None)
        if first is None:
            yield _line(path, self._what(pointer, instance))
            return
        for key, place, value in chain([first], inner):
            yield from self.lines(value, place, (*path, key))

    def _wrong(self, pointer: _Pointer, instance: JSON) -> Iterator[tuple[str | int, _Pointer, JSON]]:
        """The members or elements that do not fit the schema that ``pointer`` has for each of them alone."""
        for place, schema in self._here(pointer):
            members: list[tuple[str | int, _Pointer, JSON]] = []
            if isinstance(instance, dict):
                known = schema.get("properties")
                known = known if isinstance(known, dict) else {}
                members = [(k, (*place, "properties", k), instance[k]) for k in known if k in instance]
                if "additionalProperties" in schema and "patternProperties" not in schema:
                    rest = (*place, "additionalProperties")
                    members += [(k, rest, v) for k, v in instance.items() if k not in known]
            elif isinstance(instance, list):
                first = schema.get("prefixItems")
                first = first if isinstance(first, list) else []
                count = len(first)
                members = [(n, (*place, "prefixItems", str(n)), v) for n, v in enumerate(instance[:count])]
                if "items" in schema:
                    members += [(n, (*place, "items"), v) for n, v in enumerate(instance[count:], count)]
            for key, inner, value in members:
                if self._tries > _TRIES_MAX:
                    return
                if not self._validator(inner).is_valid(value):
                    yield key, inner, value

    def _what(self, pointer: _Pointer, instance: JSON) -> str:
        """The error of a value whose parts fit, or whose wrong parts were not found."""
        for place, schema in self._here(pointer):
            own = {k: v for k, v in schema.items() if k not in _STRUCTURE}
            validator = self._rs.Draft202012Validator(
                own, mask="the value", pattern_options=self._rs.RegexOptions(), offline=True
            )
            try:
                validator.validate(instance)
            except self._rs.ValidationError as error:
                return str(error.message)
            for name in _APPLIED:
                if name in schema and not self._alone(place, name).is_valid(instance):
                    return f"does not fit {name} of its schema"
        return "does not fit its schema"

    def _here(self, pointer: _Pointer) -> Iterator[tuple[_Pointer, dict[str, JSON]]]:
        """The schema at ``pointer``, and those that apply with it, by ``$ref`` or ``allOf``."""
        pending, seen = [pointer], set[_Pointer]()
        while pending and len(seen) < _LEVELS_MAX:
            place = pending.pop()
            schema = _at(self._root, place)
            if place in seen or not isinstance(schema, dict):
                continue
            seen.add(place)
            yield place, schema
            reference = schema.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/"):
                pending.append(_unquoted(reference))
            elif reference == "#":
                pending.append(())
            if isinstance(schema.get("allOf"), list):
                pending += [(*place, "allOf", str(n)) for n in range(len(schema["allOf"]))]

    def _validator(self, pointer: _Pointer) -> Any:
        found = self._validators.get(pointer)
        if found is None:
            found = self._validators[pointer] = self._compiled({"$ref": _DOCUMENT + _fragment(pointer)})
        return found

    def _alone(self, place: _Pointer, name: str) -> Any:
        """A validator for one keyword of the schema at ``place``."""
        if name == "uniqueItems":
            return self._compiled({name: True})
        schema = _at(self._root, place)
        names = ("if", "then", "else") if name == "if" else (name,)
        return self._compiled({n: self._moved((*place, n), schema[n]) for n in names if n in schema})

    def _moved(self, place: _Pointer, value: JSON) -> JSON:
        if isinstance(value, list):
            return [{"$ref": _DOCUMENT + _fragment((*place, str(n)))} for n in range(len(value))]
        if place[-1] == "dependentSchemas" and isinstance(value, dict):
            return {key: {"$ref": _DOCUMENT + _fragment((*place, key))} for key in value}
        return {"$ref": _DOCUMENT + _fragment(place)}

    def _compiled(self, schema: JSON) -> Any:
        self._tries += 1
        if self._registry is None:
            root = {k: v for k, v in self._root.items() if k != "$id"} if isinstance(self._root, dict) else self._root
            self._registry = self._rs.Registry([(_DOCUMENT, root)])
        return self._rs.Draft202012Validator(
            schema, registry=self._registry, pattern_options=self._rs.RegexOptions(), offline=True
        )


_STRUCTURE = frozenset(
    {*_APPLIED, "then", "else", "$ref", "$defs", "definitions", "$id", "$anchor", "$schema", "properties", "items"}
    | {"patternProperties", "additionalProperties", "prefixItems", "minContains", "maxContains"}
)


def _at(root: JSON, pointer: _Pointer) -> JSON:
    found = root
    for part in pointer:
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (LookupError, ValueError, TypeError):
            return None
    return found


def _fragment(pointer: _Pointer) -> str:
    return "#" + "".join("/" + quote(part.replace("~", "~0").replace("/", "~1"), safe="~") for part in pointer)


def _unquoted(reference: str) -> _Pointer:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in unquote(reference[1:]).split("/")[1:])


def _line(path: _Path, message: str) -> str:
    place = ""
    for part in path[:_LEVELS_MAX]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    text = f"{place}: {message}" if place else message
    return text if len(text) <= LINE_MAX else text[: LINE_MAX - 1] + "…"
