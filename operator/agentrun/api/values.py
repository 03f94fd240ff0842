"""Scalar types that all resources share, each with bounds that the CRD enforces too.

Durations have the notation of Go and Kubernetes ("90s", "1h30m"), and "d" for days. Money is a decimal string, never a
float: Kubernetes forbids floats in APIs because they do not survive a round trip.
"""

# Without `from __future__ import annotations`, as `api.workflow`.

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from agentrun.api.texts import quoted

JSON = Any
"""A JSON value: null, bool, int, float, str, list or dict with string keys."""

EXPRESSION_MAX = 1024
TEXT_MAX = 32 * 1024
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
MONEY_PATTERN = r"^[0-9]+(\.[0-9]+)?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\[[0-9]{1,5}\])?$"
KEY_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\[[0-9]{1,5}\])?(\.compensate)?$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
UID_PATTERN = r"^[-0-9a-f]+$"
TOOL_PATTERN = r"^[a-zA-Z][a-zA-Z0-9_-]*$"

Name = Annotated[str, Field(min_length=1, max_length=50, pattern=NAME_PATTERN)]
"""A DNS label: the name of a step, model or run. With 50 characters there is room for what pods' names add."""

StepPlace = Annotated[str, Field(min_length=1, max_length=80, pattern=KEY_PATTERN)]
"""A step key as ``StepKey.label``: ``NAME``, ``NAME[INDEX]``, or the compensation of either."""

Digest = Annotated[str, Field(max_length=71, pattern=DIGEST_PATTERN)]
Uid = Annotated[str, Field(min_length=1, max_length=36, pattern=UID_PATTERN)]
"""A uid as Kubernetes gives it, with hyphens."""

Instant = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
"""RFC 3339, with a time zone."""

ToolName = Annotated[str, Field(min_length=1, max_length=64, pattern=TOOL_PATTERN)]
"""A name that model APIs accept for a function."""

Duration = Annotated[str, Field(max_length=32, pattern=DURATION_PATTERN)]
Money = Annotated[str, Field(max_length=20, pattern=MONEY_PATTERN)]
Expression = Annotated[str, Field(min_length=1, max_length=EXPRESSION_MAX)]
"""A CEL expression, without ``${}``."""

Template = Annotated[str, Field(max_length=TEXT_MAX)]
"""A text in which ``${…}`` holds CEL expressions and ``$${`` is a literal ``${``."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: str) -> float:
    """The length of ``duration`` in seconds.

    Raises:
        ValueError: ``duration`` is not in the notation above.
    """
    if not re.fullmatch(DURATION_PATTERN, duration):
        raise ValueError(f"{quoted(duration)} is not a duration: write for example 30s, 10m, 24h or 7d")
    return sum(float(n) * _UNITS[unit] for n, _, unit in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|s|m|h|d)", duration))


DELAY_MAX = 100 * 365 * 86400.0
"""Seconds of the longest pause. An instant after the year 9999 could not be shown."""


def pause(duration: str) -> float:
    """The length of ``duration`` in seconds. Raises ValueError if it is not a duration or longer than DELAY_MAX."""
    length = seconds(duration)
    if length > DELAY_MAX:
        raise ValueError(f"a pause of {duration} is too long: at most {DELAY_MAX / 86400:g}d")
    return length


def money(amount: str) -> Decimal:
    """``amount`` (USD) as an exact decimal."""
    return Decimal(amount)


class Spec(BaseModel):
    """Base of every type that a person writes: closed to unknown fields, immutable, camelCase outside."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, defer_build=True
    )
