"""Whole numbers and decimals in one sum: the price that is 149 today and 149.5 tomorrow."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.expressions.arithmetic import EXACT_MAX
from agentrun.expressions.templates import ExpressionError, Scope, Values, compile_expression

SCOPE = Scope(("inputs", "index"), None)
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def value(text: str, **inputs: Any) -> Any:
    return compile_expression(text, SCOPE).evaluate(Values({"inputs": inputs, "index": 2}))


@pytest.mark.parametrize("price", [149, 149.0, 149.5])
def test_a_price_times_a_rate(price: float) -> None:
    assert value("inputs.price * 1.2", price=price) == price * 1.2
    assert value("inputs.price > 100.0 && inputs.price + 0.5 <= 150", price=price)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("149 * 1.2", 149 * 1.2),
        ("1.5 + 1 + 2", 4.5),
        ("7 / 2", 3),
        ("7 / 2.0", 3.5),
        ("-inputs.n + 0.5", -2.5),
        ("index * 1.5", 3.0),
        ("size('abc') * 1.5", 4.5),
        ("[1, 2].map(n, n * 1.5)", [1.5, 3.0]),
        ("inputs.n == 3.0 && 3.0 in [inputs.n]", True),
        ("[1, 2][inputs.n - 2]", 2),
        ("'a' + string(inputs.n * 1.0)", "a3"),
        ("inputs.n * inputs.n", 9),
        ("9007199254740993 + inputs.n", 9007199254740996),
    ],
)
def test_what_stays_whole_and_what_becomes_a_decimal(text: str, expected: Any) -> None:
    found = value(text, n=3)
    assert found == expected and type(found) is type(expected)


whole = st.integers(-EXACT_MAX, EXACT_MAX)
decimal = st.floats(-1e15, 1e15)


@given(left=whole | decimal, right=whole | decimal, symbol=st.sampled_from(sorted(OPERATORS)))
def test_one_of_each_is_what_two_decimals_are(left: float, right: float, symbol: str) -> None:
    if isinstance(left, int) == isinstance(right, int) or (symbol == "/" and right == 0):
        return
    expected = OPERATORS[symbol](float(left), float(right))
    text = f"inputs.a {symbol} inputs.b"
    if math.isfinite(expected):
        assert value(text, a=left, b=right) == expected
    else:
        with pytest.raises(ExpressionError, match="cannot be written in JSON"):
            value(text, a=left, b=right)


@pytest.mark.parametrize("number", [EXACT_MAX + 1, -EXACT_MAX - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("text", ["inputs.big * 1.5", "1.5 - inputs.big", "inputs.big / 2.0", "0.5 + inputs.big"])
def test_a_number_that_would_become_another_is_refused(number: int, text: str) -> None:
    with pytest.raises(ExpressionError, match=f"^{number} is too large for arithmetic with a decimal"):
        value(text, big=number)
    assert value(text.replace("inputs.big", "double(inputs.big)"), big=number)


@pytest.mark.parametrize("text", ["inputs.n / 0.0", "0.0 / 0 + inputs.n", "inputs.n / -0.0"])
def test_a_division_by_zero_ends_as_with_decimals(text: str) -> None:
    with pytest.raises(ExpressionError, match="cannot be written in JSON"):
        value(text, n=3)
