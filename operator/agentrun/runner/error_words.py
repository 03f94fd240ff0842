"""Reads an endpoint's error, whatever the form of its body: words for a person; codes and parameters for decisions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentrun.runner.charsets import declared, decoded
from agentrun.runner.failures import plain
from agentrun.workflow.bounded_json import parse_json
from agentrun.workflow.http import media_type

WORDS_MAX = 300
"""Characters of an error that a person is shown."""
_READ_MAX = 4_000
"""Characters of an error that are searched."""
_BODY_MAX = 1024 * 1024
"""The most bytes of a body that is parsed. Errors are short; of a longer body only the beginning is shown."""
_PAGE_MAX = 65_536
"""Characters of a page, a document or a stream that are read."""
_DEPTH_MAX = 8
_LIST_MAX = 5

EVENTS = "an event stream"
JSON_LINES = "a stream of JSON lines"

_MESSAGES = ("message", "error", "detail", "errors", "issues", "msg", "error_message", "error_msg", "error_description",
             "errormessage", "description", "reason", "details", "title", "fault", "faultstring", "raw",
             "metadata", "previous_errors", "base_resp", "status_msg", "innererror")  # fmt: skip
"""Keys that may contain an error's words, in the order in which they are read."""
_CODES = ("code", "type", "status", "error_code", "__type")
_NAMES = ("param", "parameter", "field", "argument")


@dataclass(slots=True)
class Said:
    """The content of an error. ``words`` is for people: bounded, printable, without the key.

    The other fields are for decisions: ``text`` is a longer part of the same text, not made printable; ``names`` holds
    the paths of parameters that the body names in a field.
    """

    words: str = ""
    text: str = ""
    codes: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    pause: float | None = None
    """Seconds after which the error says to try again."""


def read_error(body: bytes, content_type: str, hidden: Callable[[str], str]) -> Said:
    """Read the body of an error. ``hidden`` removes the key from a text. Never raises."""
    text = decoded(body[:_BODY_MAX], declared(content_type), media_type(content_type))[0].strip()
    if not text:
        return Said()
    found = _Found()
    kind = kind_of(text, content_type)
    if kind:
        words = _page(text, kind, found)
        return _said(f"{kind}: {words}" if words else kind, found, hidden)
    try:
        if len(body) > _BODY_MAX:
            raise ValueError("too long to be read")
        value = parse_json(text)
    except ValueError:
        return _said(text[:_READ_MAX], found, hidden)
    return _said(_words(value, found, 0), found, hidden)


def read_error_value(value: Any, hidden: Callable[[str], str]) -> Said:
    """Read an error inside an answer."""
    found = _Found()
    return _said(_words(value, found, 0), found, hidden)


def kind_of(text: str, content_type: str) -> str:
    """What a body is that should have been JSON, in words; "" if it is JSON or nothing that is recognized."""
    start = text[:500].lstrip("\ufeff \t\r\n").lower()
    if start.startswith("{") and re.search(r"\}[ \t\r]*\n\s*\{", text[:_PAGE_MAX]):
        try:
            parse_json(text.strip("\ufeff \t\r\n").splitlines()[0])
        except ValueError:
            return ""
        return JSON_LINES
    if start.startswith(("{", "[")):
        return ""
    markup = start.startswith("<")
    if start.startswith(("<!doctype html", "<html")) or (
        markup and "html" in content_type.lower() and "?xml" not in start
    ):
        return "an HTML page"
    if start.startswith(("data:", "event:", "id:", "retry:", ":")) or "event-stream" in content_type.lower():
        return EVENTS
    if markup:
        return "an XML document"
    return ""


@dataclass(slots=True)
class _Found:
    codes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    delay: str = ""
    """The text of a field that says when to try again."""


def _said(text: str, found: _Found, hidden: Callable[[str], str]) -> Said:
    # The key is removed before the text is cut: otherwise a part of the key could remain.
    text = hidden(text)[:_READ_MAX]
    pause = pause_in(found.delay or text)
    return Said(plain(text, WORDS_MAX), text, frozenset(found.codes[:20]), tuple(found.names[:20]), pause)


def pause_in(text: str) -> float | None:
    """The seconds after which a text says to try again ("try again in 1m2.5s", "retry after 20 seconds"); None if it
    does not say so.
    """
    asked = re.search(_AGAIN, text, re.IGNORECASE)
    seconds = 0.0
    for number, unit in re.findall(_DURATION, asked[1], re.IGNORECASE) if asked else ():
        seconds += float(number) * _UNITS["ms" if re.match("ms|mil", unit, re.IGNORECASE) else unit[0].lower()]
    return min(seconds, _DAY) if seconds else None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = (
    r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|milliseconds?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?)(?![a-z])"
)
_AGAIN = (
    r"(?:try(?:ing)? again|retry(?:ing)?|wait)(?: (?:in|after|for|about|at least)){0,2} "
    rf"((?:{_DURATION}[ ,]{{0,2}}(?:and )?)+)"
)
_DAY = 86_400.0


def _words(value: Any, found: _Found, level: int) -> str:
    """The words in ``value``. Codes and names are added to ``found``."""
    if level > _DEPTH_MAX or value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        inner = value.strip()
        if inner.startswith(("{", "[")) and len(inner) < _BODY_MAX:
            try:
                return _words(parse_json(inner), found, level + 1) or value[:_READ_MAX]
            except ValueError:
                pass
        return value.strip()[:_READ_MAX]
    if isinstance(value, list):
        return _joined(_words(entry, found, level + 1) for entry in value[:_LIST_MAX])
    if not isinstance(value, dict):
        return str(value)[:_READ_MAX]
    known = {key.lower(): part for key, part in value.items()}
    for key in _CODES:
        if isinstance(known.get(key), str | int):
            found.codes.append(str(known[key])[:100])
    if isinstance(delay := known.get("retrydelay"), str):  # google.rpc.RetryInfo
        found.delay = f"retry after {delay[:40]}"
    place = _place(known)
    for name in (*(known.get(key) for key in _NAMES), place, *_listed(known.get("keys"))):
        if isinstance(name, str) and name:
            found.names.append(name[:200])
    words = _joined(_words(known[key], found, level + 1) for key in _MESSAGES if key in known)
    for violation in _listed(known.get("fieldviolations")):
        words = _joined((words, _words(violation, found, level + 1)))
    if place and words and place not in words:
        return f"{place}: {words}"
    return words


def _place(known: dict[str, Any]) -> str:
    """The place in the request that a validator names: FastAPI's ``loc``, zod's and others' ``path``."""
    path = known.get("loc", known.get("path"))
    if isinstance(path, str):
        return path[:200]
    parts = [str(part) for part in _listed(path)[:10] if isinstance(part, str | int)]
    return ".".join(parts[1:] if parts[:1] == ["body"] else parts)[:200]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(parts: Any) -> str:
    """The parts joined. Empty parts, and parts that an earlier one contains, are omitted."""
    kept: list[str] = []
    for part in parts:
        if part and not any(part in other for other in kept):
            kept.append(part)
    return "; ".join(kept)[:_READ_MAX]


def _page(text: str, kind: str, found: _Found) -> str:
    """The words of a page, a document or an event stream."""
    head = text[:_PAGE_MAX]
    if kind == JSON_LINES:
        return _joined(_words(line, found, 0) for line in head.splitlines()[:_LIST_MAX])
    if kind == EVENTS:
        for line in head.splitlines():
            if line.startswith("data:"):
                return _words(line.removeprefix("data:").strip(), found, 0)
        return ""
    if kind == "an XML document":
        code = re.search(r"<(?:\w+:)?code>([^<]{1,200})<", head, re.IGNORECASE)
        if code:
            found.codes.append(code[1])
        match = re.search(
            r"<(?:\w+:)?(?:message|faultstring|detail|title|reason)\b[^>]{0,200}>([^<]+)<", head, re.IGNORECASE
        )
    else:
        match = re.search(r"<title\b[^>]{0,200}>([^<]+)<", head, re.IGNORECASE) or re.search(
            r"<h1\b[^>]{0,200}>([^<]+)<", head, re.IGNORECASE
        )
    shown = match[1] if match else re.sub(r"<[^<>]{0,2000}>", " ", head[:_READ_MAX])
    import html  # noqa: PLC0415  (lazy: it has a table of 2,000 names)

    return " ".join(html.unescape(shown).split())[:_READ_MAX]
