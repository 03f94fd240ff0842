"""How a value becomes text: for a model, for a person, and in a message. Always as JSON, never as Python writes it."""

from __future__ import annotations

import json
from typing import Any

from agentrun.api.printable import printable

QUOTED_MAX = 80
"""Characters of a value that a message shows."""


def as_text(value: Any) -> str:
    """``value`` within a text that a model or a person reads: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def quoted(value: object, limit: int = QUOTED_MAX) -> str:
    """``value`` as a message names it: JSON on one line, with quotes around a text, and cut after ``limit`` characters.

    Characters that have no shape of their own (line breaks, marks of direction) are escaped, as JSON escapes them.
    What is no JSON stands as a text.
    """
    if isinstance(value, str):
        return printable(json.dumps(value if len(value) <= limit else value[: limit - 1] + "…", ensure_ascii=False))
    text = json.dumps(value, ensure_ascii=False, default=str)
    return printable(text if len(text) <= limit else text[: limit - 1] + "…")
