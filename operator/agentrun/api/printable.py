"""Escapes text from outside before people see it: on a terminal, in a log, in a Kubernetes object.

A terminal executes control sequences: ESC can move the cursor over earlier output, set the clipboard (OSC 52) or put a
link under another text (OSC 8). Direction marks make a text read as another one. A line break inside a message looks
like a separate line in ``kubectl describe``. ``printable`` replaces all of these with JSON's visible escapes, so that
JSON text stays the same JSON.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import takewhile
from typing import Any

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""The Unicode categories of characters without a glyph: controls, direction marks, surrogates, unassigned."""

JOINERS = frozenset("\u200c\u200d\u180e")
"""Invisible, but needed to write Persian, Malayalam, Mongolian and emoji families. Kept only in such a text."""

SIGNS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters that are visible: signs of numbers and verses in Arabic, Syriac and Kaithi."""

_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
_INVISIBLE = f"[{_BLANK}]"
"""Invisible characters that Python calls printable: fillers, and variation selectors, which can hide a whole text."""

_EMOJI = (
    "#*0-9\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935\u2b05-\u2b55"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_HAN = "\u3400-\u9fff\uf900-\ufa6d\ufa70-\ufad9"
_SELECTED = (
    f"(?<=[{_EMOJI}])[\ufe0e\ufe0f]"
    f"|(?<=[\u2200-\u22ff\u2a00-\u2aff\u1000-\u109f{_HAN}])[\ufe00-\ufe02]"
    f"|(?<=[{_HAN}\U00020000-\U0002a6df])[\U000e0100-\U000e01ef]"
    "|(?<=[\u1820-\u1878])[\u180b-\u180d\u180f]|(?<=[\u1100-\u1112])\u1160|\u115f(?=[\u1161-\u11a7])"
)
"""A character of ``_BLANK`` that belongs to its neighbour: an emoji, a sign, a Chinese, Mongolian or Korean letter."""

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_JOINED = frozenset({"Lo", "Lm", "Mn", "Mc", "So", "Sk"})
_NOT_JOINED = frozenset({"Lu", "Ll", "Lt", "Nd", *UNSEEN})
# The three flags (England, Scotland, Wales) that are written with tag characters. Other tag characters hide a text.
_FLAG = (
    "\U0001f3f4(?:\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|"
    "\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073)\U000e007f)"
)
_CLUSTER_MAX = 32
"""Characters of one visible sign that are kept together. A longer sign (a heap of accents) may be cut anywhere."""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """``pattern``, compiled at its first use: most texts are ASCII, and the three patterns cost each start 2.5 ms."""
    return re.compile(pattern)


def printable(text: object, limit: int | None = None, *, lines: bool = False, size: int | None = None) -> str:
    """``text`` in a form that is safe to show: on one line, or with its own line breaks and tabs if ``lines``.

    The result has at most ``limit`` characters and ``size`` bytes of UTF-8, escapes included. A text that is cut ends
    in an ellipsis; no escape, accent or emoji is cut in two. Text in any language, emoji included, stays as it is.
    The function is idempotent.
    """
    whole = text if isinstance(text, str) else str(text)
    most = min((bound for bound in (limit, size) if bound is not None), default=len(whole))
    if len(whole) <= most and whole.isascii() and whole.isprintable():
        return whole
    # Each character is shown as at least one, so everything after the limit is cut off anyway. Two more characters are
    # kept, because whether a joiner stays depends on its neighbours.
    shown = _shown(whole[: most + 2], lines)
    if len(whole) <= most and limit is None and size is None:
        return "".join(shown)
    return _cut(shown, limit, size)


def _shown(text: str, lines: bool) -> list[str]:
    """For each character, the text that shows it."""
    hidden = {found.start() for found in _compiled(_INVISIBLE).finditer(text)} if not text.isascii() else set()
    if text.isprintable() and not hidden:
        return list(text)
    if hidden:
        hidden -= {found.start() for found in _compiled(_SELECTED).finditer(text)}
    flags = (
        {at for found in _compiled(_FLAG).finditer(text) for at in range(*found.span())}
        if "\U000e007f" in text
        else set()
    )
    found: list[str] = []
    for at, char in enumerate(text):
        if at in hidden:
            found.append(_escaped(char))
        elif char.isprintable() or (lines and char in "\n\t") or at in flags or _is_seen(text, at):
            found.append(char)
        else:
            found.append(_escaped(char))
    return found


def _is_seen(text: str, at: int) -> bool:
    """Whether the character at ``at`` is an ordinary part of a text although Python does not call it printable."""
    char = text[at]
    if char in JOINERS:
        before = _category(text[at - 1]) if at else ""
        after = _category(text[at + 1]) if at + 1 < len(text) else ""
        return before in _JOINED and after not in _NOT_JOINED
    return char in SIGNS or _category(char) not in UNSEEN  # for example a space of another width


def _category(char: str) -> str:
    """The Unicode category. Emoji and Chinese characters that are newer than this Python's tables have theirs too."""
    found, code = unicodedata.category(char), ord(char)
    if found != "Cn" or code & 0xFFFE == 0xFFFE:
        return found
    return "So" if 0x1F000 <= code <= 0x1FAFF else "Lo" if 0x20000 <= code <= 0x3FFFF else found


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _cut(shown: list[str], limit: int | None, size: int | None) -> str:
    text = "".join(shown)
    if (limit is None or len(text) <= limit) and (size is None or len(text.encode()) <= size):
        return text
    characters, room = (len(text) if limit is None else limit - 1), (len(text) * 4 if size is None else size - 3)
    kept = 0
    for part in shown:
        characters, room = characters - len(part), room - len(part.encode())
        if characters < 0 or room < 0:
            break
        kept += 1
    for back in range(min(kept, _CLUSTER_MAX)):
        if not _goes_on(shown, kept - back):
            kept -= back
            break
    return "".join(shown[:kept]) + "…"


def _goes_on(shown: list[str], at: int) -> bool:
    """Whether a cut before ``at`` would split one visible sign."""
    if at <= 0 or at >= len(shown) or len(shown[at]) > 1:
        return False
    char, before = shown[at], shown[at - 1]
    if _is_regional(char):  # two of them are one flag
        return sum(1 for _ in takewhile(_is_regional, reversed(shown[:at]))) % 2 == 1
    joined = char in JOINERS or before in JOINERS or "\U000e0020" <= char <= "\U000e007f"
    return joined or unicodedata.category(char) in ("Mn", "Mc", "Me") or "\U0001f3fb" <= char <= "\U0001f3ff"


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def printable_value(value: Any) -> Any:
    """``value`` (JSON) with each text and key ``printable``. Texts, unlike keys, keep their line breaks and tabs."""
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, dict):
        return {printable(key): printable_value(part) for key, part in value.items()}
    return [printable_value(part) for part in value] if isinstance(value, list) else value
