"""Arithmetic with mixed operands: a whole number and a decimal.

JSON has one kind of number: the same price is 149 today and 149.5 tomorrow. CEL has whole numbers and decimals; it
compares them with each other, but does not add or multiply them. This extension lets ``+``, ``-``, ``*`` and ``/``
accept one of each: the whole number is converted to a decimal first. Two whole numbers keep CEL's rule: ``7 / 2`` is 3.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

EXACT_MAX = 2**53
"""Up to this value, every whole number can be represented exactly as a decimal."""


def _divide(left: float, right: float) -> float:
    """Division according to IEEE 754, like CEL's: division by zero gives an infinity or NaN."""
    if right:
        return left / right
    if math.isnan(left) or not left:
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


_OPERATORS: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "_+_": ("add", operator.add),
    "_-_": ("subtract", operator.sub),
    "_*_": ("multiply", operator.mul),
    "_/_": ("divide", _divide),
}

MIXED_SUMS = frozenset(
    f"add_{left}_{right}"
    for left, right in (("int64", "double"), ("double", "int64"), ("uint64", "double"), ("double", "uint64"))
)
"""The overloads of ``+`` that this module adds."""


@lru_cache(maxsize=1)
def mixed_arithmetic() -> Any:
    """The extension of the runtime that adds these overloads. The runtime selects one by the operands' types."""
    from cel_expr_python import cel  # noqa: PLC0415  (64 ms, which a process that evaluates nothing should not pay)

    # The result has the dynamic type, like values from JSON. Otherwise ``price * 1.2 <= 150`` would not compile,
    # although CEL can compare these values.
    decimal, result = cel.Type.DOUBLE, cel.Type.DYN
    functions = []
    for symbol, (name, work) in _OPERATORS.items():
        mixed = _mixed(work)
        overloads = []
        for kind, whole in (("int64", cel.Type.INT), ("uint64", cel.Type.UINT)):
            overloads += [
                cel.Overload(f"{name}_{kind}_double", result, [whole, decimal], False, mixed),
                cel.Overload(f"{name}_double_{kind}", result, [decimal, whole], False, mixed),
            ]
        functions.append(cel.FunctionDecl(symbol, overloads))
    return cel.CelExtension("mixed-arithmetic", functions)


def _mixed(work: Callable[[float, float], float]) -> Callable[[float, float], float]:
    def mixed(left: float, right: float) -> float:
        return work(_decimal(left), _decimal(right))

    return mixed


def _decimal(number: float) -> float:
    """``number`` as a decimal. Raises ValueError if the decimal would be a different number."""
    if isinstance(number, int) and abs(number) > EXACT_MAX:
        raise ValueError(
            f"{number} is too large for arithmetic with a decimal: above 2^53 it would become another "
            "number; write double(…) around it where that does not matter"
        )
    return float(number)
