"""Reads the output of CEL's type checker for an expression: its tree, with the chosen overloads.

The runtime returns a checked expression only as a serialised ``cel.expr.CheckedExpr``
(https://github.com/google/cel-spec/blob/master/proto/cel/expr/checked.proto, and syntax.proto beside it). This module
parses its few messages directly, so that no process needs the protobuf runtime and its import.

Macros are expanded in this tree: ``map``, ``filter``, ``all``, ``exists`` and similar ones all become a *fold*.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["const", "ident", "select", "call", "list", "map", "message", "fold"]


@dataclass(slots=True)
class Node:
    """One node of the tree.

    ``name`` is the identifier, the selected field, or the function. ``args`` are the children: the operand of a
    select; the target (if any) and arguments of a call; the elements of a list; the keys and values of a map in turn;
    the range, initial value, condition, step and result of a fold. ``has(a.b)`` is a call of ``has`` with ``a`` and
    the constant ``"b"``. ``names`` of a fold: its iteration variables, then its accumulator. Only ``+`` has
    ``overloads``, which distinguish numbers from text.
    """

    kind: Kind
    name: str = ""
    args: tuple[Node, ...] = ()
    value: str | bytes | int | float | bool | None = None
    names: tuple[str, ...] = ()
    overloads: tuple[str, ...] = ()


def read(serialized: bytes) -> Node:
    """The tree in ``serialized``, the output of ``Expression.serialize()`` (a CheckedExpr within an Any)."""
    checked = next(message(value) for field, value in fields(serialized) if field == 2)
    overloads: dict[int, tuple[str, ...]] = {}
    root = b""
    for field, value in fields(checked):
        if field == 2 and b"_+_" in message(value):
            entry = dict(fields(message(value)))
            ids = tuple(_text(v) for f, v in fields(message(entry[2])) if f == 3)
            overloads[number(entry.get(1, 0))] = ids
        elif field == 4:
            root = message(value)
    return _node(root, overloads)


def goes_through(node: Node) -> bool:
    """Whether the tree contains a fold: a macro that iterates over a list or an object."""
    return node.kind == "fold" or any(goes_through(arg) for arg in node.args)


def _node(data: bytes, overloads: dict[int, tuple[str, ...]]) -> Node:
    own, kind, body = 0, 0, b""
    for field, value in fields(data):
        if field == 2:
            own = number(value)
        else:
            kind, body = field, message(value)
    match kind:
        case 3:
            return Node("const", value=_constant(body))
        case 4:
            return Node("ident", next((_text(v) for _, v in fields(body)), ""))
        case 5:
            parts = dict(fields(body))
            operand, field_name = _node(message(parts[1]), overloads), _text(parts[2])
            if parts.get(3):
                return Node("call", "has", (operand, Node("const", value=field_name)))
            return Node("select", field_name, (operand,))
        case 6:
            name = next(_text(v) for f, v in fields(body) if f == 2)
            args = tuple(_node(message(v), overloads) for f, v in fields(body) if f in (1, 3))
            return Node("call", name, args, overloads=overloads.get(own, ()))
        case 7:
            return Node("list", args=tuple(_node(message(v), overloads) for f, v in fields(body) if f == 1))
        case 8:
            name = next((_text(v) for f, v in fields(body) if f == 1), "")
            entries = [dict(fields(message(v))) for f, v in fields(body) if f == 2]
            items = (_node(message(entry[f]), overloads) for entry in entries for f in (3, 4) if f in entry)
            return Node("message" if name else "map", name, tuple(items))
        case 9:
            parts = dict(fields(body))
            args = tuple(_node(message(parts[f]), overloads) for f in (2, 4, 5, 6, 7))
            return Node("fold", args=args, names=tuple(_text(parts[f]) for f in (1, 8, 3) if f in parts))
        case _:
            pass
    raise ValueError(f"a checked expression holds an unknown kind of node: {kind}")


def _constant(data: bytes) -> str | bytes | int | float | bool | None:
    for field, value in fields(data):
        match field:
            case 2:
                return bool(value)
            case 3 | 4:
                found = number(value)
                return found - (1 << 64) if field == 3 and found >> 63 else found
            case 5:
                return float(struct.unpack("<d", message(value))[0])
            case 6:
                return _text(value)
            case 7:
                return message(value)
            case _:
                pass
    return None


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in wire format (https://protobuf.dev/programming-guides/encoding/)."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
            case 2:
                length, at = _varint(data, at)
                yield tag >> 3, data[at : at + length]
                at += length
            case 1:
                yield tag >> 3, data[at : at + 8]
                at += 8
            case other:
                raise ValueError(f"a checked expression holds an unknown wire type: {other}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def number(value: int | bytes) -> int:
    """The value of a field that must be a number."""
    if isinstance(value, bytes):
        raise ValueError("a checked expression holds bytes where a number belongs")
    return value


def message(value: int | bytes) -> bytes:
    """The value of a field that must be a message, a text or bytes."""
    if isinstance(value, int):
        raise ValueError("a checked expression holds a number where a message belongs")
    return value


def _text(value: int | bytes) -> str:
    return message(value).decode()
