"""Estimates what the evaluation of an expression costs, before it is evaluated.

The CEL runtime limits an evaluation to 10,000 iterations, but neither its memory nor its time. 20 characters such as
``x.replace('', x)`` square a text; each link of a chain of ``map(a, [a, a, a])`` triples a structure that ``==`` then
walks; and a ``map`` copies its result for each element that it adds. A tenant's expression may run in a process that
others share. An upper bound is therefore computed first, from the expression's tree and the sizes of the actual
values, and expressions that are too expensive are refused. An honest expression does not come near the limit.

One unit is a byte of memory or about 5 ns of work. A value that exists already counts with its true size; the size of a
value that the expression makes is bounded by the sizes of its parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from agentrun.api.values import JSON
from agentrun.expressions.arithmetic import MIXED_SUMS
from agentrun.expressions.ast import Node

COST_MAX = 48 * 1024 * 1024
"""The most units of an evaluation: 48 MiB, or about a quarter of a second. A ``map`` or ``filter`` over 1,700 elements
reaches it."""

ITERATIONS_MAX = 10_000
"""The runtime's own limit on the iterations of one evaluation."""

PATTERN_MAX = 5_000
"""The most instructions of a compiled regular expression. 5,000 take about 5 ms in every evaluation."""

_PART = 700
"""Units for each list, object and element of a value that is converted for the runtime."""

_ELEMENT = 32
"""Bytes of an element of a list in the runtime."""

_KEY = 300
"""Units to sort each key of an object."""

_ELEMENT_MIN, _ENTRY_MIN = 2, 5
"""The fewest bytes of an element of a list, and of an entry of an object, written as JSON."""


_ATOM = re.compile(r"\\[pP](?:\{[^}]*\}|.)|\[(?:\\.|[^\]\\])*\]|\\.|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)
"""A part of a regular expression. The groups are the two numbers of a counted repetition."""


class TooExpensive(Exception):
    """The evaluation could cost more than COST_MAX."""


class Size(NamedTuple):
    """An upper bound of a value's size."""

    size: int
    """Bytes of the value written as JSON. A shared part counts each time that it occurs."""
    length: int = 0
    """Elements or characters."""
    each: int = 0
    """The size of the largest element."""


class Known(NamedTuple):
    """A value that exists before the evaluation."""

    value: JSON


Value = Size | Known
_SCALAR = Size(24, 1, 24)

_FREE = frozenset({"_&&_", "_||_", "!_", "@not_strictly_false", "_-_", "_*_", "_/_", "_%_", "-_", "has", "hasValue"})
_NUMERIC = frozenset(
    {"add_int64", "add_uint64", "add_double", *MIXED_SUMS}
    | {"add_duration_duration", "add_duration_timestamp", "add_timestamp_duration"}
)
_SELECT = frozenset({"_[_]", "_[?_]", "_?._"})
_STRING = Size(400, 400, 4)
"""The size of the longest text that a number, a time or a boolean becomes."""
_COMPARE = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_EITHER = frozenset({"_?:_", "_?_:_", "or", "orValue", "optional.of", "optional.ofNonZeroValue", "value", "dyn"})
_FIND = frozenset({"contains", "startsWith", "endsWith", "indexOf", "lastIndexOf"})
_CHEAP = _FREE | _SELECT | _COMPARE | _EITHER | {"size", "@in"}


def needs_estimate(node: Node) -> bool:
    """Whether the evaluation of ``node`` can cost more than a few passes over the values that it names."""
    if node.kind == "fold" or (node.kind == "call" and node.name not in _CHEAP and not _is_numeric(node)):
        return True
    return any(needs_estimate(child) for child in node.args)


def weigh(value: JSON) -> int:
    """Units to give ``value`` to the runtime: to screen, measure and convert it."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return 2 * len(str(value)) + _PART  # the same, faster: items are often numbers
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):
        return COST_MAX
    return 2 * len(text) + _PART * (1 + text.count(",") + text.count("[") + text.count("{"))


def estimate(node: Node, values: Mapping[str, JSON], measured: dict[int, tuple[JSON, Size]] | None = None) -> int:
    """An upper bound, in units, for the evaluation of ``node`` over ``values``.

    ``measured``: a cache of the measured sizes of these same values, which this fills.

    Raises:
        TooExpensive: the bound is above COST_MAX.
    """
    run = _Estimate(values, {} if measured is None else measured)
    run.visit(node, {}, 1)
    return run.spent


def pattern_size(pattern: str) -> int:
    """About how many instructions RE2 compiles ``pattern`` to. Counted repetitions multiply what they repeat."""
    open_groups: list[int] = []
    total = last = 0
    for token in _ATOM.finditer(pattern):
        text = token[0]
        if text == "(":
            open_groups.append(total)
            total = last = 0
        elif text == ")":
            last = total + 2
            total = last + (open_groups.pop() if open_groups else 0)
        elif token[1]:
            times = max(int(token[1][:5]), int((token[2] or "0")[:5]), 1)
            total += last * (times - 1)
            last *= times
        else:
            # A Unicode class has hundreds of ranges; any other class has at most one per character.
            last = 1000 if "\\p" in text.lower() else len(text) + 3
            total += last
    return total + sum(open_groups)


class _Estimate:
    def __init__(self, values: Mapping[str, JSON], measured: dict[int, tuple[JSON, Size]]) -> None:
        self.spent = 0
        self._values = values
        # By id, which is safe because the entry also holds the value.
        self._measured = measured

    def visit(self, node: Node, local: Mapping[str, Value], times: int) -> Value:
        """The bound of the value of ``node``. Adds the cost of ``times`` evaluations of it to ``spent``."""
        match node.kind:
            case "const":
                return Known(node.value)
            case "ident":
                return local[node.name] if node.name in local else Known(self._values.get(node.name.lstrip(".")))
            case "select":
                return self._select(self.visit(node.args[0], local, times), Known(node.name))
            case "fold":
                return self._fold(node, local, times)
            case _:
                pass
        args = [self.visit(child, local, times) for child in node.args]
        if node.kind == "call":
            return self._call(node, args, times)
        sizes = [self.size(arg) for arg in args]
        self._spend(times, _ELEMENT * (len(sizes) + 1))
        return Size(sum(s.size + 2 for s in sizes) + 2, len(sizes), max((s.size for s in sizes), default=0))

    def size(self, value: Value) -> Size:
        """The bound of ``value``. A known value is measured once."""
        if isinstance(value, Size):
            return value
        known = value.value
        if isinstance(known, str):
            return _measure(known)
        if not isinstance(known, (list, dict)):
            return _SCALAR
        if id(known) not in self._measured:
            self._measured[id(known)] = (known, _measure(known))
        return self._measured[id(known)][1]

    def _spend(self, times: int, units: int) -> None:
        self.spent += times * units
        if self.spent > COST_MAX:
            raise TooExpensive

    def _select(self, target: Value, key: Value) -> Value:
        if isinstance(target, Known) and isinstance(key, Known):
            try:
                return Known(target.value[key.value])
            except (TypeError, LookupError):
                pass  # missing, or a key that only CEL accepts, such as [0.0]: the largest element is the bound
        return _element(self.size(target))

    def _fold(self, node: Node, local: Mapping[str, Value], times: int) -> Value:
        over, start, condition, step, result = node.args
        *variables, accumulator = node.names
        if over.kind == "list" and not over.args:  # optMap binds a value this way
            return self.visit(result, {**local, accumulator: self.visit(start, local, times)}, times)
        known = self.visit(over, local, times)
        over_size = self.size(known)
        count = min(over_size.length, over_size.size // _ELEMENT_MIN, ITERATIONS_MAX)
        total_times = min(times * count, ITERATIONS_MAX)
        item = _element(over_size)
        inside: dict[str, Value] = {**local, **dict.fromkeys(variables, item), accumulator: Size(0)}
        first = self.size(self.visit(start, local, times))
        self.visit(condition, inside, total_times)
        added = self.size(self.visit(step, inside, total_times))  # what one iteration adds to an empty accumulator
        self._spend(total_times, 8)
        if start.kind == "list":
            # The list so far is copied for each element: n squared over two in all.
            self._spend(total_times, _ELEMENT * count // 2)
            if over.kind not in ("list", "fold") and not (isinstance(known, Known) and isinstance(known.value, list)):
                keys = min(count, over_size.size // _ENTRY_MIN)
                self._spend(times, keys * (_ELEMENT * keys // 2 + _KEY))  # an object's keys are sorted
        gathered = Size(first.size + count * added.size, count * added.length, max(first.each, added.each))
        return self.visit(result, {**local, accumulator: gathered}, times)

    def _call(self, node: Node, args: list[Value], times: int) -> Value:
        name = node.name
        if name in _FREE or _is_numeric(node):
            return _SCALAR
        if name in _SELECT:
            return self._select(args[0], args[1])
        if name == "split" and (parts := _split(args)) is not None:
            self._spend(times, _ELEMENT * len(parts) + len(args[0].value))  # type: ignore[union-attr]
            return Known(parts)
        if name == "trim" and isinstance(args[0], Known):
            self._spend(times, self.size(args[0]).size)
            return args[0]
        sizes = [self.size(arg) for arg in args]
        if name in _EITHER:
            options = sizes[1:] if name == "_?_:_" else sizes
            return Size(*(max(bounds) for bounds in zip(*options, strict=True)))
        if name in _COMPARE:
            self._spend(times, min(s.size for s in sizes))
            return _SCALAR
        if name in _SPECIAL:
            work, made = _SPECIAL[name](sizes, args)
            self._spend(times, work + made.size + _ELEMENT * made.length * (name == "split"))
            return made
        each = max((s.each for s in sizes), default=0)
        made = Size(sum(s.size for s in sizes) + 24, sum(s.length for s in sizes), each)
        self._spend(times, made.size + (_ELEMENT * made.length if name == "_+_" and _may_be_lists(node) else 0))
        return made


def _is_numeric(node: Node) -> bool:
    return node.name == "_+_" and _NUMERIC.issuperset(node.overloads)


def _may_be_lists(node: Node) -> bool:
    return "add_list" in node.overloads


def _element(of: Size) -> Size:
    return Size(of.each, of.each, of.each)


def _measure(value: JSON) -> Size:
    if isinstance(value, str):
        return Size(len(value) if value.isascii() else 4 * len(value), len(value), 4)
    if isinstance(value, list):
        each = [_written(item) for item in value]
    elif isinstance(value, dict):
        each = [_written(key) + _written(item) for key, item in value.items()]
    else:
        return _SCALAR
    return Size(sum(each) + 2 * len(each) + 2, len(each), max(each, default=0))


def _written(value: JSON) -> int:
    return len(value) * 4 if isinstance(value, str) else len(json.dumps(value, default=str)) + 8


def _split(args: list[Value]) -> list[str] | None:
    """The parts of a split, if the text and the separator are known: the cost depends on their number."""
    match args:
        case [Known(str(text)), Known(str(separator))]:
            return text.split(separator) if separator else list(text)
        case _:
            pass
    return None


def _find(sizes: list[Size], _: list[Value]) -> tuple[int, Size]:
    return sizes[0].size + sizes[0].size * sizes[1].size // 256, _SCALAR


def _in(sizes: list[Size], args: list[Value]) -> tuple[int, Size]:
    wanted, within = sizes
    if isinstance(args[1], Known) and isinstance(args[1].value, dict):
        return wanted.size, _SCALAR
    return within.length * (4 + min(wanted.size, within.each)), _SCALAR


def _join(sizes: list[Size], _: list[Value]) -> tuple[int, Size]:
    between = sizes[1].size if len(sizes) > 1 else 0
    size = sizes[0].size + sizes[0].length * between
    return 0, Size(size, size, 4)


def _replace(sizes: list[Size], args: list[Value]) -> tuple[int, Size]:
    width = len(args[1].value) if isinstance(args[1], Known) and isinstance(args[1].value, str) else 0
    size = sizes[0].size + (sizes[0].size // max(width, 1) + 1) * sizes[2].size
    return _find(sizes, args)[0], Size(size, size, 4)


def _split_bound(sizes: list[Size], args: list[Value]) -> tuple[int, Size]:
    return _find(sizes, args)[0], Size(3 * sizes[0].size + 3, sizes[0].length + 1, sizes[0].size)


def _format(sizes: list[Size], args: list[Value]) -> tuple[int, Size]:
    # A precision is at most 1,000 digits, and a double has at most 309 digits before them. %b and %x make a text at
    # most eight times as long.
    known = args[0].value if isinstance(args[0], Known) else None
    clauses = known.count("%") if isinstance(known, str) else sizes[0].size
    size = sizes[0].size + 1400 * clauses + 8 * sizes[1].size
    return 0, Size(size, size, 4)


def _quote(sizes: list[Size], _: list[Value]) -> tuple[int, Size]:
    return 0, Size(2 * sizes[0].size + 2, 2 * sizes[0].size + 2, 4)


def _matches(sizes: list[Size], args: list[Value]) -> tuple[int, Size]:
    # The pattern is a constant (other expressions are refused). It is compiled in each evaluation.
    instructions = pattern_size(args[1].value) if isinstance(args[1], Known) else PATTERN_MAX
    return instructions * (200 + 2 * sizes[0].size), _SCALAR


def _string(sizes: list[Size], _: list[Value]) -> tuple[int, Size]:
    return 0, Size(*(max(bounds) for bounds in zip(sizes[0], _STRING, strict=True)))


def _length(sizes: list[Size], _: list[Value]) -> tuple[int, Size]:
    return sizes[0].size // 8, _SCALAR


_Rule = Callable[[list[Size], list[Value]], tuple[int, Size]]
"""The work of a function in units, besides making its result, and the bound of the result."""

_SPECIAL: dict[str, _Rule] = {
    **dict.fromkeys(_FIND, _find),
    "@in": _in,
    "join": _join,
    "replace": _replace,
    "split": _split_bound,
    "format": _format,
    "strings.quote": _quote,
    "matches": _matches,
    "size": _length,
    "string": _string,
}
