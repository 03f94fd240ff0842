"""JSON from models, tools and people, within bounds: what every later reader can take."""

from __future__ import annotations

import json
from typing import Never

from agentrun.api.values import JSON
from agentrun.workflow.json_schema import depth

MAX_DEPTH = 100
"""Nesting that is accepted: far above what people write, far below where any reader of JSON runs out of stack."""

DIGITS_MAX = 308
"""Characters of a whole number."""


def parse_json(text: str) -> JSON:
    """``text`` as JSON that every later reader can take.

    Stricter than ``json.loads``: no NaN or infinity (also not as ``1e999``), no lone surrogates (they cannot be
    written as UTF-8), at most a hundred levels.

    Raises:
        ValueError: with a short message that says what is wrong and where.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a string holds half of a surrogate pair, which is no character") from error
    return value


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {number[:20]} is too large")
    return value


def _whole(number: str) -> int:
    if len(number) > DIGITS_MAX:  # no reader of the cluster's takes it: for Go every number has to fit a float
        raise ValueError(f"the number {number[:20]} is too large")
    return int(number)
