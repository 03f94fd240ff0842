"""JSON from an API server, within bounds: whoever may edit a namespace writes what stands in it.

``decode`` gives a value within the bounds or raises ``Unreadable``, nothing else. ``decode_object`` and ``decode_list``
never give up an object for one part of it: the part that cannot be read is left out, and the object says which one and
why under ``UNREADABLE``. So every object has its name, whatever else stands in it, and can be answered for.

A text within the bounds is read in one go. Only another one is looked at piece by piece, each piece once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic_core import from_json

MAX_DEPTH: Final = 200
"""Levels of a text, its envelope included (a list adds two, a watch event one). It is the parser's own bound, which
cannot be set; what comes after the parser stands more. A workflow may have ``reader.MAX_DEPTH``, which is less.
"""

MAX_VALUES: Final = 250_000
"""Values of an object, where a list or an object counts as two. A workflow may have ``reader.MAX_VALUES``, and the API
server notes beside it who wrote each of them.
"""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of an object. The API server takes 3 MiB, and etcd by default 1.5 MiB."""

UNREADABLE: Final = "unreadable"
"""The key of an object that says what is wrong with it. No schema has it, so no API server gives it."""

_OPENED = (("metadata",), ("spec",), ("status",), ("object",))
_OPENED_PATHS = frozenset([*_OPENED, *(("object", *path) for path in _OPENED[:3])])
"""What is looked at part by part, in an object and in a watch event."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]+")
_DIGITS = bytes.maketrans(b"E123456789", b"e000000000")
_OPENS, _CLOSES = frozenset(b"[{"), frozenset(b"]}")


class Unreadable(ValueError):
    """A text is no JSON, or outside the bounds; the message says which, and what to do."""


def decode(data: bytes) -> Any:
    """The value that ``data`` is. A key that stands twice has its last value, as for the API server.

    Raises:
        Unreadable: it is no JSON, or not within the bounds.
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
    """The object that ``data`` is, without what cannot be read of it; then ``UNREADABLE`` says what, and why.

    A watch event is one too: there the object in it says so.

    Raises:
        Unreadable: it is no object, or it ends before its end.
    """
    try:
        found = decode(data)
    except Unreadable as error:
        return _salvaged(data, error)
    if not isinstance(found, dict):
        raise Unreadable("is not an object")
    return found


def decode_list(data: bytes) -> dict[str, Any]:
    """A List of which each item is as ``decode_object`` gives it.

    Raises:
        Unreadable: it is no List.
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
    """Whether the signs, if none stands in a text, are those of more than ``MAX_VALUES``."""
    return len(text) > MAX_VALUES and text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES


def _may_be_infinite(data: bytes) -> bool:
    """Whether a number has an exponent of three digits, or some three hundred digits; so may some texts."""
    digits = data.translate(_DIGITS)
    return b"e000" in digits or b"e+000" in digits or b"0" * 300 in digits


def _is_finite(value: Any) -> bool:
    """Whether no number is infinite: the parser refuses the word, and takes 1e999."""
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
    """What can be read of an object that cannot be read whole."""
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
    """A text and a place in it. Every method raises Unreadable where the text is not what is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def is_at(self, sign: bytes) -> bool:
        """Whether ``sign`` comes next; white space is passed over."""
        found = _SPACE.match(self._data, self._at)
        self._at = found.end() if found is not None else self._at
        return self._data[self._at : self._at + 1] == sign

    def members(self) -> Iterator[str]:
        """The keys of an object, one after the other: whoever asks takes the value before the next one."""
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
        """The elements of a list, each as its text."""
        self._take(b"[", "a list")
        if self._took(b"]"):
            return
        while True:
            yield self.value()
            if self._took(b"]"):
                return
            self._take(b",", "JSON: a comma is missing")

    def end(self) -> None:
        """Nothing may follow."""
        self._take_space()
        if self._at < len(self._data):
            raise Unreadable("is not JSON: something follows its end")

    def value(self) -> bytes:
        """The text of the value that begins here."""
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
