"""What an API server answers: the body within its bound, what a 2xx says, and what else is which error.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from agentrun.api.decoding import Unreadable, decode, decode_list, decode_object
from agentrun.kube.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Gone,
    NotFound,
    Refused,
    TooSlow,
    Unavailable,
    Unfit,
)
from agentrun.observe.metrics import Verb

APART: Final = 256 * 1024
"""Bytes of an answer from which on it is read in a thread: the loop goes on meanwhile."""

_MESSAGE_MAX = 2000


class TooLong(Refused):
    """An answer has more bytes than were to be read of it."""


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


def error_of(code: int, body: bytes, retry_after: str | None, what: str) -> ClusterError:
    """The error for an answer; its message is the API server's own where ``body`` is a Status.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
    """
    try:
        status = decode(body)
    except Unreadable:
        status = None
    status = status if isinstance(status, dict) else {}
    reason = status.get("reason")
    said = status.get("message") or f"{code} {body[:200].decode(errors='replace')}"
    message = str(said)[:_MESSAGE_MAX]
    if code == 404:
        return NotFound(message)
    if code == 409:
        return AlreadyExists(message) if reason == "AlreadyExists" else Conflict(message)
    if code == 410:
        return Gone(message)
    if code == 403 and _terminating(status):
        return NotFound(message)
    # etcd's and gRPC's limits come as 500: the same object will never fit
    if code in (413, 422) or (code == 500 and ("too large" in message or "larger than max" in message)):
        return Unfit(message)
    if code in (401, 408, 429) or code >= 500:
        wait = float(retry_after) if retry_after and retry_after.isdecimal() else None
        kind = TooSlow if code == 504 else Unavailable
        return kind(f"the API server answered {code} ({what}): {message}", wait)
    return Refused(message)


def _terminating(status: Mapping[str, Any]) -> bool:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(isinstance(c, dict) and c.get("reason") == "NamespaceTerminating" for c in causes or ())
