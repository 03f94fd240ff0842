"""Reading what models and tools send: JSON within bounds, and bodies that cannot fill the memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterable
from typing import Any, Never

from agentrun.api.texts import quoted
from agentrun.api.values import JSON
from agentrun.plan.schema import depth

MAX_DEPTH = 100
"""Nesting that is accepted: far above what people write, far below where any reader of JSON runs out of stack."""

DIGITS_MAX = 308
"""Characters of a whole number."""


def parse_json(text: str) -> JSON:
    """``text`` as JSON that every later reader can take.

    Stricter than ``json.loads``: no NaN or infinity (also not as ``1e999``), no lone surrogates (they cannot be
    written as UTF-8), at most a hundred levels.

    Raises:
        ValueError: with a short message that says what is wrong and where.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a string holds half of a surrogate pair, which is no character") from error
    return value


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {number[:20]} is too large")
    return value


def _whole(number: str) -> int:
    if len(number) > DIGITS_MAX:  # no reader of the cluster's takes it: for Go every number has to fit a float
        raise ValueError(f"the number {number[:20]} is too large")
    return int(number)


class TooLarge(Exception):
    """A body is larger than its limit, as it came or once decompressed."""


class Undecodable(Exception):
    """A body does not decompress; the message says why."""


RAW_KEPT = 64 * 1024
"""Bytes as they came that are kept of a body which does not decompress."""


async def read_body(chunks: AsyncIterable[bytes], encoding: str, limit: int, into: bytearray | None = None) -> bytes:
    """The body in ``chunks``, decompressed, never holding more than ``limit`` bytes and one chunk.

    ``encoding`` is the Content-Encoding header: identity and gzip are understood, which is what our requests accept.
    httpx2's own decoding is not used: it inflates a whole chunk at once, a thousandfold if the sender wants that.
    ``into`` has what was read, also where this raises: of a body that does not decompress, the beginning as it came.

    Raises:
        TooLarge: as soon as the limit is passed; the rest is not read.
        Undecodable: another encoding, damaged or cut off.
    """
    encoding = encoding.strip().lower()
    known = encoding in ("", "identity", "gzip", "x-gzip")
    inflate: Any = _gunzip() if encoding in ("gzip", "x-gzip") else None
    body = bytearray() if into is None else into
    raw = bytearray()
    received = 0
    try:
        async for chunk in chunks:
            received += len(chunk)
            raw += chunk[: RAW_KEPT - len(raw)]
            data = chunk
            while data and inflate is not None:
                try:
                    body += inflate.decompress(data, limit + 1 - len(body))
                except zlib.error as error:
                    raise Undecodable("is not the gzip that its header announces") from error
                if len(body) > limit:
                    raise TooLarge
                data = inflate.unconsumed_tail
                if inflate.eof and (data := inflate.unused_data):
                    inflate = _gunzip()  # gzip files may be concatenated (RFC 1952, 2.2)
            body += data
            # What was received counts as well: gzip can go on for ever without yielding a byte.
            if len(body) > limit or received > limit + 65_536:
                raise TooLarge
            if not known and len(raw) == RAW_KEPT:
                break
        if not known:
            raise Undecodable(f"is encoded as {quoted(encoding, 40)}, which was not asked for")
        if inflate is not None and received and not inflate.eof:
            raise Undecodable("was cut off")
    except Undecodable:
        body[:] = raw
        raise
    finally:
        del body[limit + 1 :]
    return bytes(body)


def _gunzip() -> Any:
    return zlib.decompressobj(wbits=31)
