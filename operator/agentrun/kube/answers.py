"""Reads the answers of the API server: the body, within a bound, and the object in a 2xx. ``kube.status`` reads errors.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp

from agentrun.api.decoding import Unreadable, decode_list, decode_object
from agentrun.kube.errors import TooLong, Unavailable
from agentrun.observe.metrics import Verb

APART: Final = 256 * 1024
"""Bytes of an answer above which it is decoded in a thread, so that the loop goes on meanwhile."""


async def body_of(response: aiohttp.ClientResponse, at_most: int) -> bytes:
    """The body. Raises TooLong as soon as it has more than ``at_most`` bytes, without reading the rest."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > at_most:
            response.close()
            raise TooLong(f"the answer of the API server is larger than {at_most // 2**20} MiB")
    return bytes(data)


async def decoded(verb: Verb, path: str, data: bytes) -> dict[str, Any]:
    """The object or list in a 2xx. An object that cannot be read whole is marked as such. Raises Unavailable if the
    answer is no JSON object.
    """
    if verb == "delete":
        return {}  # the answer is a Status or the deleted object; no caller needs it
    read = decode_list if verb in ("list", "deletecollection") else decode_object
    try:
        return read(data) if len(data) <= APART else await asyncio.to_thread(read, data)
    except Unreadable as error:
        raise Unavailable(
            f"the response is not from an API server, or was cut off ({verb} {path}): the answer {error}"
        ) from None
