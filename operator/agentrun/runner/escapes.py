"""Decodes the escapes of JSON, JavaScript, shells, URLs, HTML, mail and terminals in any text, to see what it hides."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable

LEVELS = 4
"""The most levels of escaping that are decoded."""

_CHARACTER = (
    r"\\u([0-9a-fA-F]{4})"
    r"|\\u\{([0-9a-fA-F]{1,6})\}"
    r"|\\U([0-9a-fA-F]{8})"
    r"|\\x([0-9a-fA-F]{2})"
    r"|\\([0-3][0-7]{2})"
    r"|\\(\r?\n|[^ux])"
    r"|%u([0-9a-fA-F]{4})"
    r"|%([0-9a-fA-F]{2})"
    r"|&#([0-9]{1,7});?"
    r"|&#[xX]([0-9a-fA-F]{1,6});?"
    r"|&([A-Za-z]{2,10};)"
)
_IN_MAIL = r"|=([0-9A-Fa-f]{2})"
_BETWEEN = r"|=\r?\n[ \t]*|\r\n[ \t]*|\n[ \t]*|\x00\x00*|\x1b\[[0-9;:?]*[A-Za-z]"
"""What may be between characters, such as a colour."""
# Every alternative begins with one certain character, outside of groups: only then does ``re`` quickly skip the
# characters that begin none of them.
READINGS = re.compile(_CHARACTER + _IN_MAIL + _BETWEEN), re.compile(_CHARACTER + _BETWEEN)
"""The two ways to read escapes: ``=3A`` is a colon of mail, or the value ``3A`` after the name of a parameter."""
_ESCAPES = "\\%&=\n\0\x1b"
_HEX = (1, 2, 3, 4, 7, 8, 10, 12)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": "\0"}
_MARKS = b"\\=\n\0"
_KINDS = bytes(
    ord("m" if byte in _MARKS else "c" if chr(byte).isalnum() or byte in b"+/_-" else ".") for byte in range(128)
) + bytes(128)
_BLANKS = b"\t\v\f\r\x1c\x1d\x1e\x1f "
"""For ``may_change``: the kind of each character (mark, character of a run, any other), and those that are skipped."""

Place = Callable[[int], int]
"""Maps a position in a decoded text to one in the text before."""


def may_change(text: str) -> bool:
    """Whether decoding ``text`` may change its letters and digits, or its runs.

    An escape that decodes to a letter or digit begins with ``%``, ``&`` or ESC, or is a mark with a letter or digit
    after it. What joins two parts of a run ends in a mark, before the second part. There may be blanks and other marks
    in between. Decoding a text without any of these only removes marks and blanks. This is asked of every text that is
    recorded; a regular expression takes many times as long.
    """
    if "%" in text or "&" in text or "\x1b" in text:
        return True
    return text.encode("ascii", "replace").translate(_KINDS, _BLANKS).find(b"mc") >= 0


def decodings(text: str) -> Iterable[str]:
    """``text`` with its escapes decoded, level by level, in each reading."""
    for escape in READINGS:
        view, ambiguous = text, False
        for _ in range(LEVELS):
            if not any(char in view for char in _ESCAPES):
                break
            ambiguous = ambiguous or "=" in view
            decoded = escape.sub(_decoded, view)
            if decoded == view:
                break
            yield decoded
            view = decoded
        if not ambiguous:
            return


def _decoded(found: re.Match[str]) -> str:
    group = found.lastindex or 0
    text = found[group]
    if group in _HEX:
        code = int(text, 16)
    elif group == 9:
        code = int(text)
    elif group == 5:
        code = int(text, 8)
    elif group == 6:
        return _CONTROLS.get(text, "" if "\n" in text else text)
    elif group == 11:
        from html.entities import html5  # noqa: PLC0415  (lazy: a table of 2,000 names, which few texts need)

        return html5.get(text, found[0])
    else:
        return ""
    return chr(code) if code < 0x110000 else found[0]


def placed(view: str, escape: re.Pattern[str]) -> tuple[str, Place]:
    """The decoded form of ``view`` in one of the ``READINGS``.

    Also returns a function that maps a position in it to one in ``view``.
    """
    parts: list[str] = []
    starts, sources = [0], [0]
    length, at = 0, 0
    for found in escape.finditer(view):
        parts += [view[at : found.start()], _decoded(found)]
        length += found.start() - at
        starts.append(length)
        sources.append(found.start())
        length += len(parts[-1])
        starts.append(length)
        sources.append(found.end())
        at = found.end()
    parts.append(view[at:])

    def place(position: int) -> int:
        piece = bisect_right(starts, position) - 1
        return sources[piece] + (position - starts[piece])

    return "".join(parts), place
