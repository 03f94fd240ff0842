"""The one door through which text from outside reaches people: on a terminal, in a log, in an object of Kubernetes.

A terminal obeys what it is sent: ESC can move the cursor over what was printed before, set the clipboard (OSC 52) or
put a link under another text (OSC 8). Marks of direction make a text read as another one. A line break inside a message
looks like a line of its own in ``kubectl describe``. ``printable`` escapes all of that visibly, as JSON escapes it, so
that a JSON text stays the JSON that it was.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import takewhile
from typing import Any

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of what has no shape of its own: controls, marks of direction, surrogates, unassigned."""

JOINERS = frozenset("\u200c\u200d\u180e")
"""Invisible, and part of how Persian, Malayalam, Mongolian and emoji families are written: kept between such only."""

SIGNS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters that are seen: signs of numbers and verses in Arabic, Syriac and Kaithi."""

_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
_INVISIBLE = f"[{_BLANK}]"
"""What Python calls printable and nobody sees: fillers, and selectors of variants, rows of which hide whole texts."""

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
"""Where one of them belongs to a character beside it: an emoji, a sign, a letter of Chinese, Mongolian or Korean."""

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_JOINED = frozenset({"Lo", "Lm", "Mn", "Mc", "So", "Sk"})
_NOT_JOINED = frozenset({"Lu", "Ll", "Lt", "Nd", *UNSEEN})
# The three flags (England, Scotland, Wales) that are written with tags. Any other tags are hidden text.
_FLAG = (
    "\U0001f3f4(?:\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|"
    "\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073)\U000e007f)"
)
_CLUSTER_MAX = 32
"""Characters that one visible sign may have; a longer one (a heap of accents) may be cut anywhere."""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compiled when a text first needs it: most texts are ASCII, and the three patterns take 2.5 ms of each start."""
    return re.compile(pattern)


def printable(text: object, limit: int | None = None, *, lines: bool = False, size: int | None = None) -> str:
    """``text`` as it may be shown: on one line, or with ``lines`` on as many as it has.

    At most ``limit`` characters and ``size`` bytes of UTF-8, counted once it is escaped; what is cut ends in an
    ellipsis, and no escape, accent or emoji is cut in two. Text in any language, emoji included, stays as it is.
    Applying it twice is applying it once.
    """
    whole = text if isinstance(text, str) else str(text)
    most = min((bound for bound in (limit, size) if bound is not None), default=len(whole))
    if len(whole) <= most and whole.isascii() and whole.isprintable():
        return whole
    # Each character is shown as at least one, so what comes behind the limit can only be cut off. A few more are
    # looked at, since whether a joiner stays follows from its neighbours.
    shown = _shown(whole[: most + 2], lines)
    if len(whole) <= most and limit is None and size is None:
        return "".join(shown)
    return _cut(shown, limit, size)


def _shown(text: str, lines: bool) -> list[str]:
    """How each character is shown."""
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
    """Whether the character at ``at``, which Python does not call printable, is an ordinary part of a text."""
    char = text[at]
    if char in JOINERS:
        before = _category(text[at - 1]) if at else ""
        after = _category(text[at + 1]) if at + 1 < len(text) else ""
        return before in _JOINED and after not in _NOT_JOINED
    return char in SIGNS or _category(char) not in UNSEEN  # a space of another width, for one


def _category(char: str) -> str:
    """Unicode's category; also of what was assigned since this Python was made: emoji, and Chinese characters."""
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
    """Whether a cut before ``at`` would part what is one sign."""
    if at <= 0 or at >= len(shown) or len(shown[at]) > 1:
        return False
    char, before = shown[at], shown[at - 1]
    if _is_regional(char):  # two are a flag
        return sum(1 for _ in takewhile(_is_regional, reversed(shown[:at]))) % 2 == 1
    joined = char in JOINERS or before in JOINERS or "\U000e0020" <= char <= "\U000e007f"
    return joined or unicodedata.category(char) in ("Mn", "Mc", "Me") or "\U0001f3fb" <= char <= "\U0001f3ff"


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def printable_value(value: Any) -> Any:
    """A JSON value whose texts and keys are ``printable``; line breaks in them stay."""
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, dict):
        return {printable(key): printable_value(part) for key, part in value.items()}
    return [printable_value(part) for part in value] if isinstance(value, list) else value
