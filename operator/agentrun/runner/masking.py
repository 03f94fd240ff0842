"""Secrets out of everything that is written down: one place that knows how a secret may look when it comes back.

A server that echoes a request, an error page, a model that repeats what it read: the secret comes back as it was sent,
or escaped for JSON, HTML, URLs or mail, doubly so, in Base64, in hexadecimal, as a list of bytes, or broken over lines.
What is searched is therefore not the text alone but also the texts that it decodes to.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from html.entities import html5
from typing import Any

from agentrun.runner.secrets import SHORTEST_SECRET

PLACEHOLDER_MAX = 16
"""Letters below which a key of small letters alone is a placeholder (``not-needed``), as endpoints without keys get."""

HIDDEN = "***"

LEVELS = 4
"""How often a text may be escaped."""

_ENDS = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_PROXIES = re.compile(r"(?:HTTPS?|ALL)_PROXY$", re.IGNORECASE)

_ESCAPE = re.compile(
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
    r"|=([0-9A-Fa-f]{2})"
    r"|((?:=\r?|\r)?\n[ \t]*|\x00+)"
)
_ESCAPES = "\\%&=\n\0"
_HEX = (1, 2, 3, 4, 7, 8, 10, 12)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": "\0"}
_EITHER = {"+": "[+-]", "/": "[/_]"}
_BETWEEN_BYTES = ("0x", ":", ",", "-", "\\x")

Span = tuple[int, int]
Place = Callable[[int], int]


class Mask:
    """Hides ``secrets`` of at least ``SHORTEST_SECRET`` characters. Immutable; made in some microseconds."""

    __slots__ = ("_hex", "_packed", "_plain")

    def __init__(self, secrets: Iterable[str]) -> None:
        self._plain: tuple[str, ...] = ()
        self._packed: dict[str, bool] = {}
        self._hex: tuple[str, ...] = ()
        for secret in {s for s in secrets if len(s) >= SHORTEST_SECRET}:
            forms = {secret, *(form for form in _decodings(secret) if len(form) >= SHORTEST_SECRET)}
            self._plain += tuple(forms)
            raw = secret.encode("utf-8", "surrogatepass")
            wide = secret.encode("utf-16-le", "surrogatepass")
            self._packed |= {core: goes_on for data in (raw, wide) for core, goes_on in _cores(data)}
            self._packed[_decimals(raw)] = False
            self._hex += (secret.lower(), raw.hex(), wide.hex())

    def __bool__(self) -> bool:
        return bool(self._plain)

    def text(self, text: str) -> str:
        """``text`` with three asterisks in place of each secret, however it is written."""
        if not self._plain or not self._is_in(text):
            return text
        spans = sorted(self._spans(text))
        parts, at = [], 0
        for start, end in spans:
            if start >= at:
                parts += [text[at:start], HIDDEN]
            at = max(at, end)
        return "".join([*parts, text[at:]])

    def value(self, value: Any) -> Any:
        """A JSON value without the secrets in its texts, its keys, and its lists of bytes."""
        if not self._plain or not self._is_in(json.dumps(value, ensure_ascii=False)):
            return value
        return self._walk(value)

    def content(self, data: bytes) -> bytes:
        """Bytes without the secrets as they are, for what is decoded in another way than it was encoded."""
        for secret in self._plain:
            data = data.replace(secret.encode("utf-8", "surrogatepass"), HIDDEN.encode())
        return data

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self._walk(part) for key, part in value.items()}
        if isinstance(value, list):
            whole = all(type(part) is int for part in value)
            if whole and any(form in ",".join(map(str, value)) for form in self._packed):
                return [HIDDEN]
            return [self._walk(part) for part in value]
        return value

    def _is_in(self, text: str) -> bool:
        if self._found(text):
            return True
        return any(self._found(view) for view in _decodings(text))

    def _found(self, view: str) -> bool:
        """Whether one is in ``view``, as it is or encoded as bytes."""
        if any(form in view for form in self._plain):
            return True
        joined = "".join(view.replace("\0", "").split())
        packed = joined.replace("-", "+").replace("_", "/")  # Base64 for URLs as Base64
        if any(form in packed for form in self._packed):
            return True
        lower = joined.lower()
        if any(form in lower for form in self._hex):
            return True
        for between in _BETWEEN_BYTES:
            lower = lower.replace(between, "")
        return any(form in lower for form in self._hex)

    def _spans(self, text: str) -> set[Span]:
        """Where they stand in ``text``. Slow: the places are carried through each decoding."""
        found: set[Span] = set()
        places: list[Place] = []
        view = text
        for _ in range(LEVELS + 1):
            for pattern in self._patterns():
                for hit in pattern.finditer(view):
                    start, end = hit.span()
                    for place in reversed(places):
                        start, end = place(start), place(end)
                    found.add((start, end))
            decoded, place = _placed(view)
            if decoded == view:
                break
            view = decoded
            places.append(place)
        return found

    def _patterns(self) -> Iterable[re.Pattern[str]]:
        """What finds the forms where they stand. The module ``re`` keeps what was compiled."""
        for form in self._plain:
            yield re.compile(re.escape(form))
        for form, goes_on in self._packed.items():
            core = r"[\s\0]*".join(_EITHER.get(char, char) for char in form)
            yield re.compile(core + (r"(?:[\s\0]*[A-Za-z0-9+/_-](?:[\s\0]*=)*)?" if goes_on else ""))
        for form in self._hex:
            yield re.compile(r"(?:0x|\\x|[\s\0:,-])*".join(map(re.escape, form)), re.IGNORECASE)


def environment_secrets(environment: Mapping[str, str]) -> Iterable[str]:
    """The secrets that the environment of a process holds, by the names of its variables."""
    for name, value in environment.items():
        value = value.strip()  # noqa: PLW2901
        if _PROXIES.search(name):
            password = re.match(r"\w+://[^/?#]*?:([^/?#]*)@", value)
            if password:
                yield password[1]
        elif _ENDS.search(name) and not value.startswith(("/", "./")) and not is_placeholder(value):
            yield value


def is_placeholder(key: str) -> bool:
    """Whether ``key`` looks like what is given where none is needed: to hide it would garble ordinary texts."""
    return len(key) < PLACEHOLDER_MAX and re.fullmatch(r"[a-z]+(?:[-_ ][a-z]+)*", key) is not None


def _cores(data: bytes) -> Iterable[tuple[str, bool]]:
    """What of the Base64 of any text that holds ``data`` is the same, by how many bytes come before it; and whether the
    character after it holds the rest of its last byte.
    """
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        first = (before * 8 + 5) // 6
        yield text[first : (before + len(data)) * 8 // 6], (before + len(data)) % 3 > 0


def _decimals(data: bytes) -> str:
    return ",".join(map(str, data))


def _decodings(text: str) -> Iterable[str]:
    """What ``text`` may be an escaped form of, level by level."""
    view = text
    for _ in range(LEVELS):
        if not any(char in view for char in _ESCAPES):
            return
        decoded = _ESCAPE.sub(_decoded, view)
        if decoded == view:
            return
        yield decoded
        view = decoded


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
        return html5.get(text, found[0])
    else:
        return ""
    return chr(code) if code < 0x110000 else found[0]


def _placed(view: str) -> tuple[str, Place]:
    """The decoded form of ``view``, and the way back from a place in it to one in ``view``."""
    parts: list[str] = []
    starts, sources = [0], [0]
    length, at = 0, 0
    for found in _ESCAPE.finditer(view):
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
