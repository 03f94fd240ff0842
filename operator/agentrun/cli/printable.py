"""How values are shown on a terminal: every text through ``agentrun.api.printable.printable``."""

from __future__ import annotations

import json
from typing import Any

from agentrun.api.printable import printable

__all__ = ["document", "printable", "value"]


def value(found: Any, limit: int | None = 120) -> str:
    """A JSON value on one line: a text as it is, everything else as JSON."""
    return printable(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False), limit)


def document(found: Any) -> str:
    """A JSON value in full, indented; it reads as JSON again."""
    return printable(json.dumps(found, ensure_ascii=False, indent=2), lines=True)
