"""Decodes JSON from an API server within bounds: everybody who may edit a namespace controls its content.

``decode`` returns a value within the bounds or raises ``Unreadable``, and nothing else. ``decode_object`` and
``decode_list`` do not drop an object because one part of it cannot be read: they leave out that part, and name it and
the reason under ``UNREADABLE``. So every object keeps its name, and the problem can be reported on that object.

A text within the bounds is parsed in one go. Any other text is read part by part, each part once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic_core import from_json

MAX_DEPTH: Final = 200
"""Levels of nesting of a text, its envelope included (a list adds two, a watch event one). It is the parser's own
bound, which cannot be set; the code after the parser can take more. A workflow may have ``bounds.MAX_DEPTH``, which is
less.
"""

MAX_VALUES: Final = 250_000
"""Values in an object; a list or an object counts as two. A workflow may have ``bounds.MAX_VALUES``, and for each of
them the API server adds who manages it (``managedFields``).
"""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of an object. The API server accepts 3 MiB, and etcd by default 1.5 MiB."""

UNREADABLE: Final = "unreadable"
"""The key under which a decoded object says what is wrong with it. No schema has it, so no API server sends it."""

_OPENED = (("metadata",), ("spec",), ("status",), ("object",))
_OPENED_PATHS = frozenset([*_OPENED, *(("object", *path) for path in _OPENED[:3])])
"""The objects that are read part by part when the whole cannot be read: in an object, and in a watch event."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]+")
_DIGITS = bytes.maketrans(b"E123456789", b"e000000000")
_OPENS, _CLOSES = frozenset(b"[{"), frozenset(b"]}")


class Unreadable(ValueError):
    """The text is not JSON, or not within the bounds; the message says which, and what to do."""


def decode(data: bytes) -> Any:
    """Parse ``data``. A repeated key has its last value, as in the API server.

    Raises:
        Unreadable: ``data`` is not JSON, or not within the bounds.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES // 2**20} MiB: keep data out of it")
    if _may_be_many(data) and _may_be_many(_STRING.sub(b"", data)):
        raise Unreadable(f"has more than {MAX_VALUES:,} values: keep data out of it")
    try:
        found = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        said = str(error)
        if said.startswith("recursion limit"):
            raise Unreadable(f"nests deeper than {MAX_DEPTH} levels: make it flatter") from None
        raise Unreadable(f"is not JSON: {said[:200]}") from None
    if _may_be_infinite(data) and not _is_finite(found):
        raise Unreadable("has a number that is too large: write it as a text")
    return found


def decode_object(data: bytes) -> dict[str, Any]:
    """Parse an object. Parts that cannot be read are left out; ``UNREADABLE`` names them and the reason.

    ``data`` may be a watch event. Then the object in the event has the key ``UNREADABLE``.

    Raises:
        Unreadable: ``data`` is not an object, or so malformed that its parts cannot be told apart.
    """
    try:
        found = decode(data)
    except Unreadable as error:
        return _salvaged(data, error)
    if not isinstance(found, dict):
        raise Unreadable("is not an object")
    return found


def decode_list(data: bytes) -> dict[str, Any]:
    """Parse a List, with each item as ``decode_object`` returns it.

    Raises:
        Unreadable: ``data`` is not a List.
    """
    try:
        found = decode(data)
    except Unreadable:
        found, text = {}, _Text(data)
        for key in text.members():
            found[key] = [decode_object(item) for item in text.elements()] if key == "items" else decode(text.value())
        text.end()
    if not isinstance(found, dict) or "items" not in found:
        raise Unreadable("is not a List")
    found["items"] = items = found["items"] or []  # Go writes an empty list as null
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Unreadable("is not a List of objects")
    return found


def _may_be_many(text: bytes) -> bool:
    """Whether ``text`` has more than ``MAX_VALUES`` values, judged by its commas and brackets, also inside strings."""
    return len(text) > MAX_VALUES and text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES


def _may_be_infinite(data: bytes) -> bool:
    """Whether a number may have an exponent of three digits, or three hundred digits. A string can look like one."""
    digits = data.translate(_DIGITS)
    return b"e000" in digits or b"e+000" in digits or b"0" * 300 in digits


def _is_finite(value: Any) -> bool:
    """Whether all numbers are finite: the parser refuses the word Infinity, but reads 1e999 as infinite."""
    ahead = [value]
    while ahead:
        at = ahead.pop()
        if isinstance(at, dict):
            ahead += at.values()
        elif isinstance(at, list):
            ahead += at
        elif isinstance(at, float) and not math.isfinite(at):
            return False
    return True


def _salvaged(data: bytes, why: Unreadable) -> dict[str, Any]:
    """The readable parts of an object that cannot be read as a whole."""
    problems: list[str] = []
    found = _parts(_Text(data), (), problems)
    inner = found.get("object")
    (inner if isinstance(inner, dict) else found)[UNREADABLE] = "; ".join(problems) or str(why)
    return found


def _parts(text: _Text, path: tuple[str, ...], problems: list[str]) -> dict[str, Any]:
    found = {}
    for key in text.members():
        place = (*path, key)
        if place in _OPENED_PATHS and text.is_at(b"{"):
            found[key] = _parts(text, place, problems)
            continue
        part = text.value()
        try:
            found[key] = decode(part)
        except Unreadable as error:
            if len(problems) < 3:
                problems.append(f"{'.'.join(name[:60] for name in place if name != 'object')} {error}")
    return found


class _Text:
    """A cursor in a JSON text. Every method raises Unreadable if the text does not have what the method reads."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def is_at(self, sign: bytes) -> bool:
        """Skip white space, and tell whether ``sign`` comes next."""
        found = _SPACE.match(self._data, self._at)
        self._at = found.end() if found is not None else self._at
        return self._data[self._at : self._at + 1] == sign

    def members(self) -> Iterator[str]:
        """The keys of an object, one after the other. The caller reads the value of each key before the next key."""
        self._take(b"{", "an object")
        if self._took(b"}"):
            return
        while True:
            self._take_space()
            key = _STRING.match(self._data, self._at)
            if key is None:
                raise Unreadable("is not JSON: a key is missing")
            self._at = key.end()
            self._take(b":", "JSON: a colon is missing")
            yield decode(key[0])
            if self._took(b"}"):
                return
            self._take(b",", "JSON: a comma is missing")

    def elements(self) -> Iterator[bytes]:
        """The elements of a list, each as JSON text."""
        self._take(b"[", "a list")
        if self._took(b"]"):
            return
        while True:
            yield self.value()
            if self._took(b"]"):
                return
            self._take(b",", "JSON: a comma is missing")

    def end(self) -> None:
        """Check that only white space follows."""
        self._take_space()
        if self._at < len(self._data):
            raise Unreadable("is not JSON: something follows its end")

    def value(self) -> bytes:
        """Read the next value, and return its text unparsed."""
        self._take_space()
        begins = self._at
        self._at = self._end()
        return self._data[begins : self._at]

    def _end(self) -> int:
        first = self._data[self._at : self._at + 1]
        if first in (b"[", b"{"):
            level = 0
            for token in _TOKEN.finditer(self._data, self._at):
                sign = self._data[token.start()]
                if sign in _OPENS:
                    level += 1
                elif sign in _CLOSES:
                    level -= 1
                    if not level:
                        return token.end()
        elif found := (_STRING if first == b'"' else _SCALAR).match(self._data, self._at):
            return found.end()
        raise Unreadable("is not JSON: it ends too soon")

    def _take_space(self) -> None:
        self.is_at(b"")

    def _took(self, sign: bytes) -> bool:
        there = self.is_at(sign)
        self._at += there
        return there

    def _take(self, sign: bytes, what: str) -> None:
        if not self._took(sign):
            raise Unreadable(f"is not {what}")
