"""Reads the bodies that models and tools send, with a limit on memory."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterable
from typing import Any

from agentrun.api.texts import quoted
from agentrun.runner.charsets import is_text


class TooLarge(Exception):
    """A body is larger than its limit, as received or after decompression."""


class Undecodable(Exception):
    """A body does not decompress; the message says why."""


RAW_KEPT = 64 * 1024
"""How many received bytes are kept of a body that does not decompress."""


CODINGS_MAX = 3
"""The most codings of one body that are decoded, one after the other."""


async def read_body(chunks: AsyncIterable[bytes], encoding: str, limit: int, into: bytearray | None = None) -> bytes:
    """The body in ``chunks``, decompressed. Memory never holds more than ``limit`` bytes of it and one chunk.

    ``encoding`` is the Content-Encoding header. Requests accept gzip; some servers send deflate anyway. A body that
    arrives as text is taken as text, whatever the header says: proxies decompress a body and leave the header, and some
    servers write a charset there.

    httpx2's own decoding is not used, because it inflates a whole chunk at once, up to a thousand times its size.
    ``into`` gets what was read, also if this raises; for a body that does not decompress, its beginning as received.

    Raises:
        TooLarge: as soon as the limit is passed; the rest is not read.
        Undecodable: the body has another encoding, is damaged or is cut off.
    """
    names = [name for name in re.split(r"[,\s]+", encoding.lower()) if name not in ("", "identity")] if encoding else []
    body = bytearray() if into is None else into
    raw, held = bytearray(), bytearray()
    layer: _Layer | None = None
    received = 0
    try:
        async for chunk in chunks:
            received += len(chunk)
            if names:
                raw += chunk[: RAW_KEPT - len(raw)]
                held += chunk
                if len(body) == 0 and layer is None:
                    if len(held) < _SIGN:
                        continue
                    layer = _layer(names[-1], held)
                data, held = bytes(held), bytearray()
            else:
                data = chunk
            if layer is None:
                body += data
            else:
                layer.inflate(data, body, limit)
            # Received bytes count too: a gzip stream can be endless without yielding a byte.
            if len(body) > limit or received > limit + 65_536:
                raise TooLarge
        body += held
        _take_off(names, layer, body, limit, received)
    except Undecodable:
        body[:] = raw
        raise
    finally:
        del body[limit + 1 :]
    return bytes(body)


def _take_off(names: list[str], layer: _Layer | None, body: bytearray, limit: int, received: int) -> None:
    """Decode the remaining codings, after the body was read through its outermost one.

    Raises:
        TooLarge, Undecodable: as ``read_body``.
    """
    if not names or not received:
        return None
    if layer is None:
        if is_text(bytes(body)):
            return None
        announced = ", ".join(names)
        if names[-1] in _CODINGS:
            raise Undecodable(f"is not the {announced} that its header announces")
        raise Undecodable(f"is encoded as {quoted(announced, 40)}, which was not asked for")
    layer.finish()
    if len(names) > CODINGS_MAX:
        raise Undecodable(f"is encoded {len(names)} times over")
    for at in range(len(names) - 1, 0, -1):
        inner, packed = _layer(names[at - 1], body), bytes(body)
        if inner is None:
            return _take_off(names[:at], None, body, limit, received)
        body.clear()
        inner.inflate(packed, body, limit)
        inner.finish()
    return None


_CODINGS = ("gzip", "x-gzip", "deflate")
_SIGN = 2
"""How many first bytes identify a coding."""


def _layer(name: str, begins: bytes | bytearray) -> _Layer | None:
    """The decoder for the coding ``name`` of a body with these first bytes; None if the body is not in that coding."""
    if name in ("gzip", "x-gzip"):
        return _Layer(name, 31) if begins[:2] == b"\x1f\x8b" else None
    if name != "deflate" or is_text(bytes(begins[:2])):
        return None
    # The standard requires zlib's format; some servers send raw deflate.
    wrapped = begins[0] & 15 == zlib.DEFLATED and int.from_bytes(begins[:2], "big") % 31 == 0
    return _Layer(name, 15 if wrapped else -15)


class _Layer:
    """One coding of a body."""

    def __init__(self, name: str, bits: int) -> None:
        self._name, self._bits = name, bits
        self._open: Any = zlib.decompressobj(wbits=bits)

    def inflate(self, data: bytes, into: bytearray, limit: int) -> None:
        """Append the decompressed ``data`` to ``into``. Raises TooLarge and Undecodable."""
        while data:
            try:
                into += self._open.decompress(data, limit + 1 - len(into))
            except zlib.error as error:
                raise Undecodable(f"is not the {self._name} that its header announces") from error
            if len(into) > limit:
                raise TooLarge
            data = self._open.unconsumed_tail
            if self._open.eof and (data := self._open.unused_data):
                if self._bits != 31:
                    return  # data after the end is ignored
                self._open = zlib.decompressobj(wbits=31)  # gzip files may be concatenated (RFC 1952, 2.2)

    def finish(self) -> None:
        """Raise Undecodable if the end of the data is missing."""
        if not self._open.eof:
            raise Undecodable("was cut off")
