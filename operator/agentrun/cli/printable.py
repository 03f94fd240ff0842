"""The one door through which text from models, tools and files reaches a terminal.

A terminal obeys what it is sent: ESC can move the cursor over what was printed before, set the clipboard (OSC 52) or
put a link under another text (OSC 8), and marks of direction make a text read as another one. Here all of that is
escaped visibly, as JSON escapes it, so that a JSON text stays the JSON that it was.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of what has no shape of its own: controls, marks of direction, surrogates, unassigned."""

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: object, limit: int | None = None, *, lines: bool = False) -> str:
    """``text`` as it may be shown: on one line unless ``lines``, and not longer than about ``limit`` characters."""
    whole = str(text)
    if limit is not None and len(whole) > limit:
        whole = whole[: max(0, limit - 1)] + "…"
    if whole.isascii() and whole.isprintable():
        return whole
    return "".join(c if c.isprintable() or (lines and c in "\n\t") else _seen(c) for c in whole)


def _seen(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if unicodedata.category(char) not in UNSEEN:
        return char  # a space of another width
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def value(found: Any, limit: int | None = 120) -> str:
    """A JSON value on one line: a text as it is, everything else as JSON."""
    return printable(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False), limit)


def document(found: Any) -> str:
    """A JSON value in full, indented; it reads as JSON again."""
    return printable(json.dumps(found, ensure_ascii=False, indent=2), lines=True)
