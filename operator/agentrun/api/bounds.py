"""How much a value may hold: in a file, and in an object that an API server sends."""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 64
MAX_VALUES = 100_000
"""Values in one file or object; an alias in a file counts as all that it stands for."""


def too_large(value: Any) -> str | None:
    """What is wrong with a value that did not come from a file; None: it keeps the bounds. The count is breadth first,
    without recursion.
    """
    here, count, level = [value], 0, 0
    while here:
        count += len(here)
        inner = [item for item in here if isinstance(item, dict | list)]
        level += bool(inner)
        if level > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels: make it flatter"
        if count > MAX_VALUES:
            return f"more than {MAX_VALUES:,} values: shorten it"
        here = [child for item in inner for child in (item.values() if isinstance(item, dict) else item)]
    return None
