"""What a scalar of YAML without quotes means.

Scalars follow the JSON schema of YAML 1.2, with the booleans of its core schema: ``true`` and ``false`` (also ``True``
and ``TRUE``), ``null`` and ``~``, and numbers as JSON writes them. Dates stay text, because JSON has none. What readers
of YAML disagree about is refused rather than read as one of them: ``yes``, ``no``, ``on`` and ``off`` (booleans for
kubectl, which reads YAML 1.1, also as keys) and numbers such as ``0123`` (83 for kubectl), ``1_000``, ``0x1F``, ``.5``.
"""

from __future__ import annotations

import math
import re

from agentrun.api.texts import shown

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DISPUTED_WORDS = frozenset(
    form for word in ("yes", "no", "on", "off") for form in (word, word.capitalize(), word.upper())
)
LETTERS = {"y": "true", "Y": "true", "n": "false", "N": "false"}
"""Letters that are names far more often than answers, and what kubectl takes them for: ``reader`` notes a doubt."""
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_DISPUTED = re.compile(
    r"[-+]?(0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)(e[-+]?[0-9]+)?)", re.IGNORECASE
)
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)
_NUMERIC = frozenset("-+.0123456789")


class Disputed(ValueError):
    """Readers of YAML disagree about a scalar, or JSON has no such number. The message says what to write instead."""


def scalar(text: str) -> str | int | float | bool | None:
    """The value of ``text``, a scalar without quotes. Raises Disputed."""
    if text in _WORDS:
        return _WORDS[text]
    if text in _DISPUTED_WORDS:
        raise Disputed(f'some YAML parsers read {text} as a boolean: write true or false, or "{text}"')
    if text[0] not in _NUMERIC:
        return text
    if _NOT_FINITE.fullmatch(text):
        raise Disputed(f"{shown(text)} is not a number in JSON: use a finite number")
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
            raise Disputed("this whole number does not fit 64 bits: write it in quotes, as text")
        return int(text)
    if _FLOAT.fullmatch(text):
        if len(text) > 400 or math.isinf(number := float(text)):
            raise Disputed("this number is too large or too long: write it in quotes, as text")
        return number
    if _DISPUTED.fullmatch(text):
        raise Disputed(f"YAML parsers disagree about {shown(text)}: write a plain decimal number, or put it in quotes")
    return text
