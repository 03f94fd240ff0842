"""Formats values, instants and lengths of time for people. All outside text passes ``api.printable.printable``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from agentrun.api.canonical import FIRST, NEVER, moment
from agentrun.api.printable import printable


def value(found: Any, limit: int | None = 120) -> str:
    """A JSON value on one line: a string as it is, everything else as JSON."""
    return printable(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False), limit)


def document(found: Any) -> str:
    """A JSON value in full, as indented JSON."""
    return printable(json.dumps(found, ensure_ascii=False, indent=2), lines=True)


def clock(at: float) -> str:
    """An instant in this machine's time zone, to the second; ``never`` from ``NEVER`` on."""
    if at >= NEVER:
        return "never"
    # The first instant that can be shown plus two days: no time zone is farther from UTC.
    return datetime.fromtimestamp(max(at, FIRST + 2 * 86400), UTC).astimezone().isoformat(" ", "seconds")[:19]


def until(at: float) -> str:
    """The end of a period in words: ``until …``, or ``for ever``."""
    return "for ever" if at >= NEVER else f"until {clock(at)}"


def lasting(text: str) -> str:
    """The same for the text of an instant in a status, which may be any text."""
    try:
        return "for ever" if moment(text) >= NEVER else f"until {text}"
    except ValueError:
        return f"until {text}"


def since(at: float, start: float) -> str:
    """The time from ``start`` to ``at``, as ``+5m10s``."""
    return f"+{spell(at - start)}"


def spell(number: float) -> str:
    """A length of time in its two largest units: ``0.3s``, ``42s``, ``5m10s``, ``3h5m``, ``2d4h``."""
    if number < 10:
        return f"{max(0.0, number):.1f}s"
    whole = int(number)
    if whole < 60:
        return f"{whole}s"
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size}{unit}" + (f"{rest}{smaller}" if rest else "")
    raise AssertionError(number)
