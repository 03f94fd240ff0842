"""What an API server answers: the body within its bound, and what a 2xx says. ``kube.status`` has the rest.

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
"""Bytes of an answer from which on it is read in a thread: the loop goes on meanwhile."""


async def body_of(response: aiohttp.ClientResponse, at_most: int) -> bytes:
    """The body. Raises TooLong; the rest of it is not read then."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > at_most:
            response.close()
            raise TooLong(f"the answer of the API server is larger than {at_most // 2**20} MiB")
    return bytes(data)


async def decoded(verb: Verb, path: str, data: bytes) -> dict[str, Any]:
    """What a 2xx says. One object that cannot be read whole says so itself; raises Unavailable where it is none."""
    if verb == "delete":
        return {}  # a Status, or the object as it was: nobody needs either
    read = decode_list if verb in ("list", "deletecollection") else decode_object
    try:
        return read(data) if len(data) <= APART else await asyncio.to_thread(read, data)
    except Unreadable as error:
        raise Unavailable(
            f"what answers is no API server, or was cut off ({verb} {path}): the answer {error}"
        ) from None
