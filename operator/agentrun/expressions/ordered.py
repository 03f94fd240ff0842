"""Makes expressions iterate over the keys of an object in sorted order, so that the order is always the same.

The runtime keeps objects in hash tables, whose order differs between evaluations. ``map`` and ``filter`` make a list in
that order. Without a fixed order, the items of a ``forEach`` would differ between the planner and a step's process, and
after a restart. The checked expression is therefore rewritten before it runs: if ``map`` or ``filter`` iterates over
what may be an object, it iterates over the object's sorted keys. Lists are not changed.

    X.map(k, F)    becomes, in effect    (X as r: type(r) == map ? sorted(r.map(k, k)) : r).map(k, F)

This module writes the few protobuf messages directly, as ``agentrun.expressions.ast`` reads them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from agentrun.expressions.ast import fields, message, number

_FUNCTION = "@inOrder"
"""The name of the sorting function. No user's expression can call it, because ``@`` is not valid in a name."""

_FIRST_ID = 1_000_000
"""The first id of the added nodes. An expression of 1,024 characters has far fewer nodes of its own."""

_LIST, _FOLD, _OBJECT = 7, 9, 8
_CHILDREN = {5: {1}, 6: {1, 3}, _LIST: {1}, _FOLD: {2, 4, 5, 6, 7}}
"""The fields that contain nodes, by kind of node. An object contains its nodes in messages for its entries."""


def in_order(serialized: bytes) -> bytes | None:
    """The checked expression, rewritten to sort the keys of objects; None if there is nothing to rewrite."""
    checked = next(message(value) for field, value in fields(serialized) if field == 2)
    made = _Ordering(_lists(checked))
    body = b"".join(_field(f, made.node(message(v)) if f == 4 else v) for f, v in fields(checked))
    if not made.notes:
        return None
    return b"".join(_field(f, body + b"".join(made.notes) if f == 2 else v) for f, v in fields(serialized))


@lru_cache(maxsize=1)
def ordering() -> Any:
    """The extension of the runtime that sorts keys."""
    from cel_expr_python import cel  # noqa: PLC0415  (64 ms, which a process that evaluates nothing should not pay)

    keys = cel.Type.List(cel.Type.DYN)
    overload = cel.Overload("in_order", keys, [keys], False, _sorted)
    return cel.CelExtension("ordering", [cel.FunctionDecl(_FUNCTION, [overload])])


def _sorted(keys: list[Any]) -> list[Any]:
    return sorted(keys, key=lambda key: (type(key).__name__, key))


def _lists(checked: bytes) -> set[int]:
    """The ids of the nodes whose type is a list, according to the type checker."""
    entries = [dict(fields(message(value))) for field, value in fields(checked) if field == 3]
    return {number(e.get(1, 0)) for e in entries if 2 in e and any(f == 6 for f, _ in fields(message(e[2])))}


class _Ordering:
    """One rewriting. ``notes`` are the type checker's entries for the added nodes."""

    def __init__(self, lists: set[int]) -> None:
        self._lists = lists
        self._ids = _FIRST_ID
        self.notes: list[bytes] = []

    def node(self, data: bytes) -> bytes:
        """The node ``data``, rewritten at every depth."""
        return b"".join(
            _field(kind, self._inside(kind, value) if isinstance(value, bytes) else value)
            for kind, value in fields(data)
        )

    def _inside(self, kind: int, body: bytes) -> bytes:
        if kind != _OBJECT and kind not in _CHILDREN:
            return body
        makes_list = kind == _FOLD and any(f == 4 and _kind(message(v)) == _LIST for f, v in fields(body))
        found = []
        for field, value in fields(body):
            new = value
            if isinstance(value, bytes) and field in _CHILDREN.get(kind, ()):
                new = self.node(value)
                if field == 2 and makes_list and self._may_be_object(value):
                    new = self._keys_in_order(new)
            elif isinstance(value, bytes) and kind == _OBJECT and field == 2:
                new = b"".join(
                    _field(f, self.node(v) if f in (3, 4) and isinstance(v, bytes) else v) for f, v in fields(value)
                )
            found.append(_field(field, new))
        return b"".join(found)

    def _may_be_object(self, data: bytes) -> bool:
        own = next((number(value) for field, value in fields(data) if field == 2), 0)
        return own not in self._lists

    # -- the added nodes -----------------------------------------------------------------------------------------------

    def _keys_in_order(self, of: bytes) -> bytes:
        them, key, list_ = (f"@{name}{self._ids}" for name in ("r", "k", "l"))
        is_object = self._call("_==_", "equals", self._call("type", "type", self._name(them)), self._name("map"))
        grown = self._call("_+_", "add_list", self._name(list_), self._list(self._name(key)))
        keys = self._fold(key, self._name(them), list_, self._list(), True, grown, self._name(list_))
        ordered = self._call(_FUNCTION, "in_order", keys)
        either = self._call("_?_:_", "conditional", is_object, ordered, self._name(them))
        return self._fold("#unused", self._list(), them, of, False, self._name(them), either)

    def _call(self, name: str, overload: str, *args: bytes) -> bytes:
        body = _field(2, name.encode()) + b"".join(_field(3, arg) for arg in args)
        return self._noted(6, body, _field(3, overload.encode()))

    def _name(self, name: str) -> bytes:
        return self._noted(4, _field(1, name.encode()), _field(1, name.encode()))

    def _list(self, *items: bytes) -> bytes:
        return self._noted(_LIST, b"".join(_field(1, item) for item in items))

    def _fold(
        self, each: str, over: bytes, gathered: str, start: bytes, goes_on: bool, step: bytes, end: bytes
    ) -> bytes:
        condition = self._noted(3, _field(2, int(goes_on)))
        parts = (each.encode(), over, gathered.encode(), start, condition, step, end)
        return self._noted(_FOLD, b"".join(_field(at, part) for at, part in enumerate(parts, 1)))

    def _noted(self, kind: int, body: bytes, reference: bytes = b"") -> bytes:
        own = self._ids
        self._ids += 1
        if reference:
            self.notes.append(_field(2, _field(1, own) + _field(2, reference)))
        self.notes.append(_field(3, _field(1, own) + _field(2, _field(1, b""))))
        return _field(2, own) + _field(kind, body)


def _kind(data: bytes) -> int:
    return next((field for field, _ in fields(data) if field != 2), 0)


def _field(field: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(field << 3) + _varint(value)
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
