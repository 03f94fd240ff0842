"""Parses JSON with the faults that endpoints and models make, if it has exactly one reading.

A text with several readings, or none, is refused with the place of the fault. Nothing is guessed, and JSON that was cut
off is not completed.
"""

from __future__ import annotations

import json
import re
import warnings
from contextlib import suppress
from itertools import pairwise
from typing import Any

from agentrun.api.values import JSON
from agentrun.runner.charsets import declared, decoded
from agentrun.workflow.bounded_json import MAX_DEPTH, parse_json
from agentrun.workflow.json_schema import depth

MENDED_MAX = 1024 * 1024
"""The most characters of a text that is mended. A longer text has to be valid JSON."""

_FENCE = "```"
_BRACKETS_MAX = 200
_PYTHON_MAX = 65_536
"""The most characters that are read as Python. Its parser takes hundreds of bytes for each."""
# Patterns are compiled when first needed (``re`` caches them), so that they do not delay the start of the process.
_PLACES_MAX = 50
_STRING_OR_COMMA = r'(?s)"(?:[^"\\]|\\.|\\\Z)*(?:"|\Z)|,(?=\s*[}\]])'
_NOTHING_MORE = r"(?:[\s}\])`;.]|<[^<>]{0,50}>)*"
_SPACE = " \t\r\n\ufeff\x00"
_GUARD = ")]}'"
"""The prefix of JSON from some APIs, of Google and others, against its use as a script."""


class Unsayable(str):
    """A number that JSON does not have (NaN, an infinity), as its original text."""

    __slots__ = ()


def read_answer(body: bytes, content_type: str = "") -> JSON:
    """The JSON in the body of an endpoint's answer, in the charset that ``content_type`` declares.

    In addition to ``parse_json``, this accepts:

    - control characters inside strings;
    - halves of surrogate pairs and bytes that the charset does not have, which become U+FFFD (two halves at the border
      of two parts are joined);
    - NaN and infinities, which become texts, ``Unsayable``;
    - an object inside a JSON text, or alone in a list, which becomes the value.

    Raises:
        ValueError: the body is not JSON, or nested too deeply. The message is short and says where.
    """
    text, problem = decoded(body, declared(content_type))
    if problem:
        with suppress(UnicodeDecodeError):
            text = body.decode("utf-8", "surrogatepass")
    value = whole_characters(_answer_in(text)) if problem else _answer_in(text)
    if isinstance(value, str) and value.lstrip(_SPACE).startswith("{"):
        value = _answer_in(value)
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) else value


def _answer_in(text: str) -> JSON:
    try:
        return parse_json(text)
    except ValueError as error:
        first = error
    try:
        value = json.loads(
            text.strip(_SPACE),
            strict=False,
            parse_constant=Unsayable,
            parse_float=_float,
            parse_int=_whole,
        )
    except (ValueError, RecursionError):
        raise first from None
    if text.count("[") + text.count("{") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise first
    return whole_characters(value)


def read_value(text: str) -> JSON:
    """The JSON in a tool's answer.

    In addition to ``parse_json``, this accepts control characters inside strings, halves of surrogate pairs (which
    become U+FFFD), and what servers put around the JSON: a byte order mark, zero bytes, and ``_GUARD``.

    Raises:
        ValueError: as ``parse_json``.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        first = error
    try:
        return _bounded(json.loads(text.strip(_SPACE).removeprefix(_GUARD).lstrip(","), strict=False))
    except (ValueError, RecursionError):
        raise first from None


def mended(text: str) -> JSON:
    """The JSON in ``text`` that a model wrote.

    In addition to ``parse_json``, this accepts control characters inside strings, halves of surrogate pairs (which
    become U+FFFD), a Markdown fence around the JSON, a comma before a closing bracket, extra brackets or marks at the
    end, the same value twice, and Python's notation.

    Raises:
        ValueError: there is not exactly one reading. The message is short and says where the JSON ends.
    """
    text = text.strip(_SPACE)
    try:
        return parse_json(text)
    except ValueError as error:
        first = error
    if len(text) > MENDED_MAX:
        raise first
    inner = unfenced(text)
    for candidate in (inner, re.sub(_STRING_OR_COMMA, lambda found: found[0] if found[0] != "," else "", inner)):
        try:
            return _loaded(candidate)
        except ValueError:
            continue
    try:
        return _python(inner)
    except ValueError:
        raise first from None


def json_values(text: str) -> list[JSON]:
    """The outermost objects and lists in ``text``, in order, each once.

    At most fifty places where one could begin are tried.
    """
    found: list[JSON] = []
    place = 0
    for _ in range(_PLACES_MAX if len(text) <= MENDED_MAX else 0):
        start = min((at for bracket in "{[" if (at := text.find(bracket, place)) >= 0), default=None)
        if start is None:
            break
        try:
            value, place = _LENIENT.raw_decode(text, start)
            value = _bounded(value)
        except (ValueError, RecursionError):
            place = start + 1
            continue
        found += [value] if value not in found else []
    return found


def fenced(text: str) -> list[str]:
    """The contents of the Markdown fences in ``text``."""
    return text.split(_FENCE)[1::2]


def unfenced(text: str) -> str:
    """``text`` without the Markdown fence that models often put around JSON."""
    if not (text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) > 2 * len(_FENCE)):
        return text
    inner = text[len(_FENCE) : -len(_FENCE)]
    language = re.match(r"[ \t]*(?:json[c5l]?|javascript|js)?[ \t]*(?=[\s{\[\"])", inner, re.IGNORECASE)
    return inner[language.end() :].strip(_SPACE) if language else text


def whole_characters(value: JSON) -> JSON:
    """``value`` with U+FFFD for every half of a surrogate pair: it is not a character, and UTF-8 cannot encode it."""
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            return value
        case list():
            _join_halves(value)
            return [whole_characters(entry) for entry in value]
        case dict():
            return {whole_characters(key): whole_characters(entry) for key, entry in value.items()}
        case _:
            return value


def _join_halves(parts: list[Any]) -> None:
    """Join each surrogate pair whose halves are at the end of one part's text and the beginning of the next one's."""
    for one, other in pairwise(parts):
        if not (isinstance(one, dict) and isinstance(other, dict)):
            continue
        before, after = one.get("text"), other.get("text")
        if not (isinstance(before, str) and isinstance(after, str)):
            continue
        if "\ud800" <= before[-1:] <= "\udbff" and "\udc00" <= after[:1] <= "\udfff":
            one["text"], other["text"] = before + after[0], after[1:]


def _loaded(text: str) -> JSON:
    """``text`` as JSON. Line breaks inside strings are accepted; more content after the value is not."""
    try:
        value, end = _LENIENT.raw_decode(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    rest = text[end:].strip(_SPACE)
    if rest and not (isinstance(value, dict | list) and (re.fullmatch(_NOTHING_MORE, rest) or rest == text[:end])):
        raise ValueError("more than one value")
    return _bounded(value)


def _bounded(value: JSON) -> JSON:
    """``value``, if it is within the limits of ``parse_json``; else ValueError."""
    return parse_json(json.dumps(whole_characters(value), allow_nan=False))


def _python(text: str) -> JSON:
    """A dict or list in Python's notation: single quotes, ``True``, ``None``."""
    import ast  # noqa: PLC0415  (seldom needed)

    if "'" not in text or len(text) > _PYTHON_MAX or sum(map(text.count, "[{(")) > _BRACKETS_MAX:
        raise ValueError("not Python's either")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an escape that Python does not know has several readings
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError, Warning) as error:
            raise ValueError("not Python's either") from error
    _check_json(value)
    return _bounded(value)


def _check_json(value: object) -> None:
    """Raise ValueError for values that JSON does not have, such as tuples and sets."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key is not a text")
        for entry in value.values():
            _check_json(entry)
    elif isinstance(value, list):
        for entry in value:
            _check_json(entry)
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError("not JSON")


def _float(number: str) -> float | Unsayable:
    value = float(number)
    return value if abs(value) != float("inf") else Unsayable(number)


def _whole(number: str) -> int | Unsayable:
    return int(number) if len(number) <= 308 else Unsayable(number)


def _refused(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_LENIENT = json.JSONDecoder(strict=False, parse_constant=_refused)
