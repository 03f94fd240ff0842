"""Connects to no guarded address, whatever a name resolves to: the address that is checked is the one connected to."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import httpcore2
import httpx2

from agentrun.workflow.network_guard import forbidden, guarded

ADDRESSES_MAX = 8
"""The most addresses of a host that are tried."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, for a port, in the order in which they are tried. Raises OSError."""


class Forbidden(httpx2.ConnectError):
    """No request goes to the host. The message says why. Nothing was sent."""

    is_explained = True


async def resolved(host: str, port: int) -> list[str]:
    """What the machine's resolver says, in the order of RFC 6724.

    The name is given as bytes: it is in ASCII already, and Python's own encoding refuses some that name servers know.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Resolves each host itself, and lets ``inner`` connect to addresses alone: a second answer of a name server, which
    could be another one, is never asked for.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkBackend, resolve: Resolve = resolved) -> None:
        self._inner = inner
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (the base class has it)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of ``host`` that answers. Each gets an equal part of the time that is left.

        Raises:
            Forbidden: all addresses of the host are guarded.
            httpcore2.ConnectError, httpcore2.ConnectTimeout: as the base class.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        addresses = await self._allowed(host, port, timeout)
        options = None if socket_options is None else list(socket_options)
        for number, address in enumerate(addresses, 1):
            left = None if ends is None else max(ends - time.monotonic(), 0.0) / (len(addresses) - number + 1)
            try:
                return await self._inner.connect_tcp(address, port, left, local_address, options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore2.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        """See the base class."""
        await self._inner.sleep(seconds)

    async def _allowed(self, host: str, port: int, timeout: float | None) -> Sequence[str]:  # noqa: ASYNC109
        host = host.strip("[]")
        try:
            async with asyncio.timeout(timeout):
                found = [host] if _is_address(host) else await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host} is not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        allowed = [address for address in found if guarded(address) is None]
        if found and not allowed:
            raise Forbidden(forbidden(host, found[0], guarded(found[0]) or ""))
        return allowed[:ADDRESSES_MAX]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
