"""Turns a value into text for a model, for a person, or for a message: always as JSON, never in Python's notation."""

from __future__ import annotations

import json
from typing import Any

from agentrun.api.printable import printable

QUOTED_MAX = 80
"""Characters of a value that a message shows."""


def shown(text: str, limit: int = 60) -> str:
    """``text`` from an untrusted source, ``printable`` and short."""
    return printable(text, limit)


def person(name: str | None) -> str:
    """The name of who did something, ``printable``. A cluster without the admission policies vouches for no name, and
    the first journals do not have it.
    """
    return printable(name, 60) if name else "an unknown user"


def as_text(value: Any) -> str:
    """``value`` for use within a text that a model or a person reads: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def quoted(value: object, limit: int = QUOTED_MAX) -> str:
    """``value`` for use in a message: JSON on one line, with quotes around a text, and cut after ``limit`` characters.

    Characters without a glyph (line breaks, direction marks) are escaped as in JSON. A value that is not JSON becomes
    a text.
    """
    if isinstance(value, str):
        return printable(json.dumps(value if len(value) <= limit else value[: limit - 1] + "…", ensure_ascii=False))
    text = json.dumps(value, ensure_ascii=False, default=str)
    return printable(text if len(text) <= limit else text[: limit - 1] + "…")
