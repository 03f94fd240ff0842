"""Removes secrets from everything that is recorded or logged.

A server may echo a request, an error page may quote it, a model may repeat what it read. The secret then comes back as
it was sent, or escaped for JSON, HTML, URLs or mail (also twice), in Base64, in hexadecimal, as a list of bytes, broken
over lines, or with other characters in between. The mask therefore searches the text and also everything that the text
decodes to.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import string
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from agentrun.runner.escapes import LEVELS, READINGS, Place, decodings, may_change, placed
from agentrun.runner.secrets import SHORTEST_SECRET

PLACEHOLDER_MAX = 16
"""A value of lower-case words with fewer characters than this is a placeholder (``not-needed``): endpoints that need no
key are given one."""

HIDDEN = "***"

PACKED_LEVELS = 3
"""The most levels of Base64, Base32, hexadecimal or gzip that are decoded. Kubernetes encodes a registry's login twice.
"""

PARTED_LEAST = 12
"""A secret with at least this many letters and digits is also found with other characters between them."""

_ENDS = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_PROXIES = re.compile(r"(?:HTTPS?|ALL)_PROXY$", re.IGNORECASE)

_EITHER = {"+": "[+-]", "/": "[/_]"}
_BETWEEN_BYTES = ("0x", ":", ",", "-", "\\x")
_RUN = re.compile(r"[A-Za-z0-9+/_-]{24,}=*(?:[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]+=*)*")
"""A run of characters that may be encoded bytes, over one or more lines."""
_RUN_LEAST = b"." * 24
_RUN_MARKS = bytes(46 if chr(byte).isalnum() or byte in b"+/_-" else 32 for byte in range(128)) + bytes(128)
"""Makes a dot of each character of a run, and something else of any other."""
_ALNUM = string.ascii_letters + string.digits
_NOT_ALNUM = bytes(set(range(256)) - set(_ALNUM.encode()))
_NOT_KEPT = _NOT_ALNUM + b"x0"
"""The bytes that ``_letters`` removes: also those of ``0x``, which may stand between the bytes of a secret."""
_LOWER_TO_ASCII = ("\u0130", "\u212a")
"""The characters outside ASCII whose lower case has a letter of ASCII."""
_NOT_TEXT = bytes(byte not in bytes(range(32, 127)) + b"\0\t\r\n" for byte in range(256))
"""Makes a one of each byte that texts do not have, and a zero of any other."""
_SAMPLE = 64
_UNZIPPED_MAX = 1024 * 1024

_ENCODER = json.JSONEncoder(ensure_ascii=False)

Span = tuple[int, int]


class Mask:
    """Hides ``secrets`` of at least ``SHORTEST_SECRET`` characters. Immutable; its creation takes microseconds."""

    __slots__ = ("_hex", "_letters", "_packed", "_parted", "_plain")

    def __init__(self, secrets: Iterable[str]) -> None:
        self._plain: tuple[str, ...] = ()
        self._packed: dict[str, bool] = {}
        self._hex: tuple[str, ...] = ()
        self._parted: tuple[str, ...] = ()
        for secret in {s for s in secrets if len(s) >= SHORTEST_SECRET}:
            forms = {secret, *(form for form in decodings(secret) if len(form) >= SHORTEST_SECRET)}
            self._plain += tuple(forms)
            raw = secret.encode("utf-8", "surrogatepass")
            wide = secret.encode("utf-16-le", "surrogatepass")[:-1]  # big-endian UTF-16 contains these bytes too
            self._packed |= {core: goes_on for data in (raw, wide) for core, goes_on in _cores(data)}
            self._packed[_decimals(raw)] = False
            self._hex += (secret.lower(), raw.hex(), wide.hex())
            parted = "".join(char for char in secret if char in _ALNUM)
            self._parted += (parted,) * (len(parted) >= PARTED_LEAST)
        forms = {*self._plain, *self._packed, *self._hex, *self._parted}
        self._letters = frozenset(_letters(form) for form in forms)

    def __bool__(self) -> bool:
        return bool(self._plain)

    def text(self, text: str) -> str:
        """``text`` with three asterisks in place of each secret, in each encoding that this module knows."""
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
        if not self._plain or not self._is_in(_ENCODER.encode(value)):
            return value
        return self._walk(value)

    def content(self, data: bytes) -> bytes:
        """Bytes without the secrets in their plain forms, for content that may be decoded with a wrong charset."""
        for secret in self._plain:
            data = data.replace(secret.encode("utf-8", "surrogatepass"), HIDDEN.encode())
        return data

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self._walk(part) for key, part in value.items()}
        if isinstance(value, list):
            if all(type(part) is int for part in value) and self._found(",".join(map(str, value))):
                return [HIDDEN]
            if all(isinstance(part, str) for part in value) and self._is_in("".join(value)):
                hidden = [self.text(part) for part in value]
                return [HIDDEN] if hidden == value else hidden  # cut in pieces
            return [self._walk(part) for part in value]
        return value

    def _is_in(self, text: str, levels: int = PACKED_LEVELS) -> bool:
        if not may_change(text) and not self._may_be_in(text):
            return self._is_in_a_run(text, levels)
        return self._is_seen_in(text, levels) or any(self._is_seen_in(view, levels) for view in decodings(text))

    def _is_seen_in(self, view: str, levels: int) -> bool:
        """Whether a secret is in ``view``, or in a run of ``view`` that decodes to it."""
        return self._found(view) or self._is_in_a_run(view, levels)

    def _is_in_a_run(self, view: str, levels: int) -> bool:
        return levels > 1 and any(self._is_packed_in(run, levels) for run in {run[0] for run in _runs(view)})

    def _is_packed_in(self, run: str, levels: int) -> bool:
        return any(self._is_in(text, levels - 1) for text in _unpacked(run))

    def _may_be_in(self, view: str) -> bool:
        """False if ``_found`` surely finds nothing in ``view``, as in most texts.

        ``_found`` finds a form of a secret after it removed other characters or made them small. The letters and digits
        of the form are then among those of ``view``, in the same order and without others in between.
        """
        letters = _letters(view)
        return any(form in letters for form in self._letters) or any(char in view for char in _LOWER_TO_ASCII)

    def _found(self, view: str) -> bool:
        """Whether a secret is in ``view``: plain, with other characters in between, or encoded as bytes."""
        if not self._may_be_in(view):
            return False
        if any(form in view for form in self._plain):
            return True
        if self._parted:
            bare = view.encode("ascii", "ignore").translate(None, _NOT_ALNUM).decode()
            if any(form in bare for form in self._parted):
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
        """The positions of the secrets in ``text``. Slow: positions are mapped back through each decoding."""
        found: set[Span] = set()
        for escape in READINGS:
            places: list[Place] = []
            view = text
            for _ in range(LEVELS + 1):
                for start, end in self._spans_in(view):
                    for place in reversed(places):
                        start, end = place(start), place(end)  # noqa: PLW2901
                    found.add((start, end))
                decoded, place = placed(view, escape)
                if decoded == view:
                    break
                view = decoded
                places.append(place)
        return found

    def _spans_in(self, view: str) -> Iterator[Span]:
        for pattern in self._patterns():
            yield from (hit.span() for hit in pattern.finditer(view))
        for run in _runs(view):
            if not self._found(run[0]) and self._is_packed_in(run[0], PACKED_LEVELS):
                yield run.span()

    def _patterns(self) -> Iterable[re.Pattern[str]]:
        """The patterns that find each form of each secret. ``re`` caches the compiled patterns."""
        for form in self._plain:
            yield re.compile(re.escape(form))
        for form, goes_on in self._packed.items():
            core = r"[\s\0]*".join(_EITHER.get(char, char) for char in form)
            yield re.compile(core + (r"(?:[\s\0]*[A-Za-z0-9+/_-](?:[\s\0]*=)*)?" if goes_on else ""))
        for form in self._hex:
            yield re.compile(r"(?:0x|\\x|[\s\0:,-])*".join(map(re.escape, form)), re.IGNORECASE)
        for form in self._parted:
            yield re.compile("[^A-Za-z0-9]*".join(form))


def environment_secrets(environment: Mapping[str, str]) -> Iterable[str]:
    """The secrets in the environment of a process, recognized by the names of the variables."""
    for name, value in environment.items():
        value = value.strip()  # noqa: PLW2901
        if _PROXIES.search(name):
            password = re.match(r"\w+://[^/?#]*?:([^/?#]*)@", value)
            if password:
                yield password[1]
        elif _ENDS.search(name) and not value.startswith(("/", "./")) and not is_placeholder(value):
            yield value


def is_placeholder(key: str) -> bool:
    """Whether ``key`` looks like a value for endpoints that need no key. Hiding it would garble ordinary texts."""
    return len(key) < PLACEHOLDER_MAX and re.fullmatch(r"[a-z]+(?:[-_ ][a-z]+)*", key) is not None


def _cores(data: bytes) -> Iterable[tuple[str, bool]]:
    """The part that is in the Base64 of every text containing ``data``, for each alignment of ``data`` (0 to 2 bytes).

    The flag says whether the next character holds the rest of the last byte.
    """
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        first = (before * 8 + 5) // 6
        yield text[first : (before + len(data)) * 8 // 6], (before + len(data)) % 3 > 0


def _runs(view: str) -> Iterator[re.Match[str]]:
    """The matches of ``_RUN`` in ``view``. Nearly every text is short of runs, and ``re`` is slow to see that."""
    marks = view.encode("ascii", "replace").translate(_RUN_MARKS)
    at = marks.find(_RUN_LEAST)
    while at >= 0:
        run = _RUN.match(view, at)
        assert run is not None
        yield run
        at = marks.find(_RUN_LEAST, run.end())


def _unpacked(run: str) -> Iterator[str]:
    """The texts that ``run`` may decode to. Content that is not text, such as a picture, is skipped."""
    packed = "".join(run.split()).replace("-", "+").replace("_", "/").replace("=", "")
    ways: list[tuple[Callable[[str], bytes], int]] = []
    if not (packed.islower() or packed.isupper()):  # most names and paths are
        ways += [(_base64, at) for at in range(4)]
    if packed.isalnum():
        ways += [(_base32, 0), (_hexadecimal, 0), (_hexadecimal, 1)]
    for unpack, at in ways:
        try:
            sample = unpack(packed[at : at + _SAMPLE])
            if sample.startswith(b"\x1f\x8b"):
                yield zlib.decompressobj(31).decompress(unpack(packed[at:]), _UNZIPPED_MAX).decode("latin-1")
            elif sample.translate(_NOT_TEXT).count(1) * 8 <= len(sample):
                yield unpack(packed[at:]).decode("latin-1")
        except (ValueError, zlib.error):  # binascii.Error is a ValueError
            continue


def _base64(text: str) -> bytes:
    return binascii.a2b_base64(text[: len(text) - (len(text) % 4 == 1)] + "==")


def _base32(text: str) -> bytes:
    text = text[: len(text) - (len(text) % 8 in (1, 3, 6))]
    return base64.b32decode(text + "=" * (-len(text) % 8))


def _hexadecimal(text: str) -> bytes:
    return bytes.fromhex(text[: len(text) // 2 * 2])


def _decimals(data: bytes) -> str:
    return ",".join(map(str, data))


def _letters(text: str) -> str:
    """The letters and digits of ``text``, in lower case, without ``x`` and ``0``. Not bytes: for each ``in`` of bytes,
    Python first makes the error that they are no number.
    """
    return text.lower().encode("ascii", "ignore").translate(None, _NOT_KEPT).decode()
