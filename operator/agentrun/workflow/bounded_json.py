"""Parses JSON from models, tools and people, within limits that every later reader can handle."""

from __future__ import annotations

import json
from typing import Never

from agentrun.api.values import JSON
from agentrun.workflow.json_schema import depth

MAX_DEPTH = 100
"""The deepest nesting that is accepted: far more than people write, far less than any JSON reader's stack allows."""

DIGITS_MAX = 308
"""The most characters of a whole number."""


def parse_json(text: str) -> JSON:
    """``text`` as JSON that every later reader can handle.

    Stricter than ``json.loads``: no NaN or infinity (nor ``1e999``), no lone surrogates (UTF-8 cannot encode them), at
    most ``DIGITS_MAX`` characters of a whole number, and at most a hundred levels.

    Raises:
        ValueError: with a short message that says what is wrong and where.
    """
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)  # as ``json.loads``
    try:
        value = _DECODER.decode(text)
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
    if len(number) > DIGITS_MAX:  # the cluster refuses it: in Go every number has to fit a float
        raise ValueError(f"the number {number[:20]} is too large")
    return int(number)


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
"""``json.loads`` would make one for each text."""
